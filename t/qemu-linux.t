#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Linux in QEMU uses examples/nvme as its disk, through vfio-user-pci; then
# SeaBIOS boots from that disk.  Neither of them is changed for it.
#
# The guest makes a file system, writes 64 MiB of files that a seed decides,
# and reads them back; what it finds is compared with what the same program
# makes here, and its file system is looked at from outside.  The server is
# the same through all starts of QEMU.
#
# QEMU_REQUIRED=1  a machine without QEMU fails this test instead of skipping
# T_SEED=N         the files' contents
# T_DISK=emulated  QEMU's own NVMe device instead of ours: shows that guest
#                  and test are right without our controller
# T_MODES=...      doorbell modes to go through, default "map message"
# T_ACCEL=...      QEMU's accelerator, default tcg
# T_NVME=PROGRAM   the controller, default examples/nvme/nvme below $O
# T_KEEP=1         leave the temporary folder, with all logs

top=$(cd "$(dirname "$0")/.." && pwd)
here=$top/t/qemu
. "$here/lib.sh"
. "$here/machine.sh"
PATH=$PATH:/usr/sbin:/sbin
export PATH

all=$(tick)
qe_begin_disk

if [ "$disk" = emulated ]; then
	mode=emulated
	percent=100
	img=$tmp/disk.img
	truncate -s $size "$img"
	linux_run && image_check
	bios_run
	diag "everything took $(seconds "$all")"
	done_testing
	exit
fi

percent=100
for mode in ${T_MODES:-map message}; do
	doorbells=$mode
	img=$tmp/disk-$mode.img
	truncate -s $size "$img"
	server_start
	ok $? "$mode: the controller says that it listens" || {
		diag "$(cat "$tmp/server-$mode.out")"
		continue
	}
	if linux_run; then
		image_check
	fi
	alive $server
	ok $? "$mode: the controller outlives its first client"
	bios_run
	alive $server
	ok $? "$mode: the controller outlives a client that just vanished"

	kill -TERM $server
	finish $server
	is $status 0 "$mode: SIGTERM ends the controller cleanly" ||
	    diag "$(tail -n 10 "$tmp/server-$mode.out")"
	rm -f "$img"
	# The other mode is a matter of doorbells, not of volume.
	percent=25
done
diag "everything took $(seconds "$all")"
done_testing
