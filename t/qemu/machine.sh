# SPDX-License-Identifier: BSD-2-Clause
#
# Shell functions for the tests that run a whole machine: a guest and its disk.
# What lib.sh has is there already, and top is the absolute path of the tree.

disk=${T_DISK:-vfio-user}
accel=${T_ACCEL:-tcg}
case ${O:-} in
/*)
	out=$O ;;
*)
	out=$top/${O:-} ;;
esac
nvme=${T_NVME:-${out}examples/nvme/nvme}
guest=${out}t/qemu/guest
boot=${out}t/qemu/boot.bin
seed=${T_SEED:-$(date +%s)}
serial=MT0123456789
size=$((128 << 20))

memory=shared

# Far above what is ever needed: only a hang is to meet them, also where
# other tests run at the same time.
linux_limit=240
bios_limit=60
server_limit=600

# Can it be done here?  Otherwise the test ends.
qe_begin_disk()
{
	[ "$(uname -sm)" = "Linux x86_64" ] || qe_skip_all "not Linux on x86_64"
	QE_ROOT=$(qe_dir)/root
	qe_locate || qe_skip_all "$QE_WHY"
	for t in e2fsck debugfs; do
		command -v $t >/dev/null ||
		    qe_skip_all "no $t: install e2fsprogs"
	done
	diag "seed $seed, QEMU $QE_VERSION, accelerator $accel, disk $disk"
	qe_begin
	t=$(tick)
	for f in "$guest" "$boot"; do
		[ -s "$f" ] || {
			ok 1 "there is $f: run make tests"
			done_testing
			exit
		}
	done
	"$here/mkinitramfs" "$QE_BUSYBOX" "$guest" "$boot" "$tmp/initramfs"
	ok $? "the initramfs is made" || { done_testing; exit; }
	diag "making the initramfs took $(seconds "$t")"
}

# machine NAME SECONDS BOOTINDEX ARGUMENTS...: run QEMU to its end.  The
# controller maps guest memory if that is shared; otherwise it asks QEMU.
machine()
{
	m_name=$1
	m_limit=$2
	m_index=$3
	shift 3
	if [ "$disk" = emulated ]; then
		set -- -drive "file=$img,if=none,format=raw,id=d0" \
		    -device "nvme,serial=$serial,drive=d0$m_index" "$@"
	else
		set -- -device "{\"driver\":\"vfio-user-pci\",\"socket\":{\
\"type\":\"unix\",\"path\":\"$tmp/nvme.sock\"}$m_index}" "$@"
	fi
	start "$m_name" "$m_limit" "$QE_QEMU" -machine "q35,accel=$accel" \
	    -cpu max -smp 2 -m 256M \
	    -object "$(memory_backend),id=ram,size=256M" \
	    -machine memory-backend=ram -nodefaults -display none -no-reboot \
	    -serial "file:$tmp/$m_name.console" "$@"
	finish $pid
}

memory_backend()
{
	case $memory in
	shared)
		echo memory-backend-memfd,share=on ;;
	*)
		echo memory-backend-ram ;;
	esac
}

# What the guest said about $1.
said()
{
	sed -n "s/^$1 //p" "$tmp/$run.said"
}

# The first lines that tell why a start went wrong.
explain()
{
	diag "$(tail -n 5 "$tmp/$run.out")"
	diag "$(tail -n 15 "$tmp/$run.console" | tr -d '\r\0')"
	[ ! -f "$tmp/server-$mode.out" ] ||
	    diag "$(tail -n 10 "$tmp/server-$mode.out")"
}

server_start()
{
	rm -f "$tmp/nvme.sock"
	start "server-$mode" $server_limit "$nvme" --socket "$tmp/nvme.sock" \
	    --file "$img" --serial $serial --doorbells "$doorbells" --verbose
	server=$pid
	n=0
	while ! grep -q listening "$tmp/server-$mode.out" ||
	    ! [ -S "$tmp/nvme.sock" ]; do
		if [ $n -ge 100 ] || ! alive $server; then
			return 1
		fi
		n=$((n + 1))
		sleep 0.1
	done
}

# Boot Linux, which uses the disk, and compare.
linux_run()
{
	run=linux-$mode
	t=$(tick)
	: >"$tmp/$run.said"
	# A host that is busy may stop the guest for long: not our disk's fault.
	machine "$run" $linux_limit "" -kernel "$QE_KERNEL" \
	    -initrd "$tmp/initramfs" -serial "file:$tmp/$run.said" -append \
	    "console=ttyS0 quiet panic=-1 nowatchdog \
	    rcupdate.rcu_cpu_stall_suppress=1 MT_SEED=$seed MT_PERCENT=$percent"
	is $status 0 "$mode: QEMU ran and Linux powered it off" || explain
	is "$(said end)" ok "$mode: Linux did all of its part" || explain
	diag "$mode: QEMU took $(seconds "$t"); uptime in the guest:" \
	    $(said time | tr '\n' ' ')
	if [ "$(said end)" != ok ]; then
		# The rest would only say so again in many ways.
		diag "$(said failed)"
		diag "$(said kmsg)"
		return 1
	fi

	is "$(said serial)" $serial "$mode: the serial number is ours"
	is "$(said bytes)" $size "$mode: the namespace has its file's size"
	is "$(said logical_block_size)" 512 "$mode: blocks have 512 bytes"
	[ -n "$(said model)" ] && [ -n "$(said firmware_rev)" ]
	ok $? "$mode: model and firmware revision are given"
	is "$(said transport)" pcie "$mode: it is a PCI device to Linux"
	is "$(said state)" live "$mode: the controller is live"
	is "$(said write_cache)" "write back" \
	    "$mode: the volatile write cache is told"
	is "$(said state_after_reset)" live "$mode: a reset brings it back"
	is "$(said queue_count)" 3 "$mode: a pair of queues per processor"
	diag "$mode: $(for f in pci model firmware_rev fua max_hw_sectors_kb \
	    nr_requests discard_max_bytes write_zeroes_max_bytes fstrim; do
		printf '%s %s; ' $f "$(said $f)"
	done)"

	irqs=$(said irq)
	diag "$mode: interrupts: $(echo "$irqs" | tr '\n' ';')"
	[ "$(echo "$irqs" | grep -c ' MSI-X [1-9]')" -eq 3 ] &&
	    ! echo "$irqs" | grep -qv ' MSI-X '
	ok $? "$mode: every queue has interrupted, by MSI-X"
	case $(said fstrim) in
	"")
		skip "$mode: free space is deallocated" "not offered" ;;
	*)
		is "$(said fstrim)" ok "$mode: free space is deallocated" ;;
	esac
	is "$(said kmsg)" "" "$mode: the kernel complained of nothing"

	"$guest" list "$percent" | while read -r name bytes; do
		sum=$("$guest" gen "$seed" "$name" "$bytes" | sha256sum)
		echo "$name ${sum%% *}"
	done >"$tmp/$run.wanted"
	said sum | sort >"$tmp/$run.got"
	cmp -s "$tmp/$run.wanted" "$tmp/$run.got"
	ok $? "$mode: Linux read back every byte of" \
	    "$(wc -l <"$tmp/$run.wanted") files" ||
	    diag "$(diff "$tmp/$run.wanted" "$tmp/$run.got" | head -n 8)"
	return 0
}

# Look at the file system from outside.
image_check()
{
	t=$(tick)
	e2fsck -fn "$img" >"$tmp/e2fsck.out" 2>&1
	is $? 0 "$mode: e2fsck finds the file system clean" ||
	    diag "$(cat "$tmp/e2fsck.out")"
	name=$(tail -n 2 "$tmp/$run.wanted" | head -n 1)
	debugfs -R "dump ${name%% *} $tmp/file" "$img" >/dev/null 2>&1
	sum=$(sha256sum "$tmp/file" 2>&1)
	is "${name%% *} ${sum%% *}" "$name" \
	    "$mode: debugfs takes a file with the right sum out of the image"
	rm -f "$tmp/file"
	cmp -s -n 512 "$boot" "$img"
	ok $? "$mode: the boot sector is where Linux put it"
	diag "$mode: looking at the image took $(seconds "$t")"
}

# No kernel given: the firmware has to find one, by its own NVMe driver.
bios_run()
{
	run=bios-$mode
	t=$(tick)
	# If Linux failed to put it there, that has been said.
	cmp -s -n 512 "$boot" "$img" ||
	    dd if="$boot" of="$img" conv=notrunc 2>/dev/null
	if [ "$disk" = emulated ]; then
		index=,bootindex=0
	else
		index=',"bootindex":0'
	fi
	machine "$run" $bios_limit "$index" \
	    -device isa-debug-exit,iobase=0xf4,iosize=1
	text=$(tr -d '\r' <"$tmp/$run.console")
	is $status 33 "$mode: the boot sector ended QEMU" || explain
	is "$(echo "$text" | grep -c '^boot sector: running$')" 1 \
	    "$mode: SeaBIOS started the boot sector"
	is "$(echo "$text" | sed -n 's/^boot sector: sum //p')" \
	    "$("$guest" sectors "$img")" \
	    "$mode: SeaBIOS read the right sectors for it"
	diag "$mode: booting by SeaBIOS took $(seconds "$t")"
}
