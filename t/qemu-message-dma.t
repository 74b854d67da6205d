#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# As qemu-linux.t, but the memory of the guest is QEMU's own: nothing of it
# can be mapped.  Every entry of a queue, every list and every byte of data is
# a DMA_READ or DMA_WRITE, which QEMU serves since 11.1.
#
# The variables are those of qemu-linux.t, but for T_MODES and T_DISK.

top=$(cd "$(dirname "$0")/.." && pwd)
here=$top/t/qemu
. "$here/lib.sh"
. "$here/machine.sh"
PATH=$PATH:/usr/sbin:/sbin
export PATH

memory=private
disk=vfio-user
mode=private
doorbells=map
percent=100

all=$(tick)
qe_begin_disk
case $QE_VERSION in
[0-9].*|10.*|11.0*)
	qe_skip_all "QEMU $QE_VERSION does not serve DMA by message" ;;
esac

img=$tmp/disk.img
truncate -s $size "$img"
server_start
ok $? "the controller says that it listens" || {
	diag "$(cat "$tmp/server-$mode.out")"
	done_testing
	exit
}
if linux_run; then
	image_check
fi
alive $server
ok $? "the controller outlives its first client"
bios_run
alive $server
ok $? "the controller outlives a client that just vanished"
kill -TERM $server
finish $server
is $status 0 "SIGTERM ends the controller cleanly"

# What it counted: mapped commands, commands by message, bytes in and out.
log=$tmp/server-$mode.out
counts=$(sed -n 's/^nvme: commands whose data was mapped: //p' "$log" |
    sed 's/[^0-9]\{1,\}/ /g')
set -- $counts
bytes=$("$guest" list $percent | awk '{ n += $2 } END { print n }')
diag "mapped, by message, bytes read, bytes written: $counts"
is "${1:-none}" 0 "no data was moved by way of mapped memory"
[ "${2:-0}" -gt 100 ]
ok $? "all commands moved theirs by messages"
[ "${3:-0}" -gt "$bytes" ] && [ "${4:-0}" -gt "$bytes" ]
ok $? "as many bytes as the files have went by message, both ways"
grep -q "came without a descriptor" "$log"
ok $? "the guest's memory came without a descriptor"
diag "everything took $(seconds "$all")"
done_testing
