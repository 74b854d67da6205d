# SPDX-License-Identifier: BSD-2-Clause
#
# Shell functions for the tests that run a whole machine: where QEMU and the
# kernel are, time limits, and no process or file left behind.
#
# The caller sets here to the absolute path of the folder of this file.

. "$here/../tap.sh"

# What mkenv makes; a new number makes an older folder incomplete.
QE_FORMAT="qemu-env 1"
QE_ROOT=
QE_SYSTEM=
QE_WHY=

qe_dir()
{
	qe__d=${QEMU_ENV:-${here%/t/qemu}/.qemu-env}
	case $qe__d in
	/*)
		;;
	*)
		qe__d=$PWD/$qe__d ;;
	esac
	echo "$qe__d"
}

# Can this QEMU do it?  vfio-user-pci came with 10.1, but may be left out of
# a build: ask for the device rather than for the version.
qe_usable()
{
	"$1" -device vfio-user-pci,help >/dev/null 2>&1
}

qe_system_qemu()
{
	QE_SYSTEM=$(command -v qemu-system-x86_64) &&
	qe_usable "$QE_SYSTEM"
}

# Did mkenv finish, and is nothing that it counted on gone since?
qe_ready()
{
	QE_ROOT=$(qe_dir)/root
	case $(cat "$QE_ROOT/stamp" 2>/dev/null) in
	"$QE_FORMAT:"*)
		;;
	*)
		return 1 ;;
	esac
	[ -x "$QE_ROOT/bin/qemu-system-x86_64" ] || qe_system_qemu
}

# Set QE_QEMU, QE_VERSION, QE_KERNEL and QE_BUSYBOX, looking into QE_ROOT;
# or fail and say in QE_WHY what is missing.
qe_locate()
{
	QE_KERNEL=$QE_ROOT/boot/vmlinuz
	QE_BUSYBOX=$QE_ROOT/bin/busybox
	if qe_system_qemu; then
		QE_QEMU=$QE_SYSTEM
	elif [ -x "$QE_ROOT/bin/qemu-system-x86_64" ]; then
		QE_QEMU=$QE_ROOT/bin/qemu-system-x86_64
	else
		QE_WHY="no QEMU with vfio-user-pci: run make qemu-env"
		return 1
	fi
	if ! [ -r "$QE_KERNEL" ] || ! [ -x "$QE_BUSYBOX" ]; then
		QE_WHY="no kernel and busybox for a guest: run make qemu-env"
		return 1
	fi
	if ! qe_usable "$QE_QEMU"; then
		QE_WHY="$QE_QEMU has no vfio-user-pci"
		return 1
	fi
	QE_VERSION=$("$QE_QEMU" --version |
	    sed -n '1s/.*version \([0-9.]*\).*/\1/p')
}

# No machine to test with: that is an error only where one was promised.
qe_skip_all()
{
	[ "${QEMU_REQUIRED:-0}" = 1 ] || skip_all "$*"
	ok 1 "the test can run here" || diag "$*"
	done_testing
	exit
}

# ---- Processes and files

pids=

# A test that is killed outright leaves its children to their time limits.
qe_cleanup()
{
	trap '' HUP INT PIPE TERM
	for qe__p in $pids; do
		kill -TERM "$qe__p" 2>/dev/null
	done
	for qe__p in $pids; do
		wait "$qe__p" 2>/dev/null
	done
	if [ -n "$tmp" ]; then
		if [ "${T_KEEP:-0}" = 1 ]; then
			diag "kept: $tmp"
		else
			rm -rf "$tmp"
		fi
	fi
}

# Make $tmp, which goes away at the end with every process in it.  It holds
# sockets, whose names must be short, and an image, which needs some room.
qe_begin()
{
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/memtree-qemu.XXXXXX") || exit 1
	trap 'qe_cleanup' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 141' PIPE
	trap 'exit 143' TERM
}

# start NAME SECONDS COMMAND...: run it in the background, for so long at
# most, its output in $tmp/NAME.out; set pid.
start()
{
	qe__name=$1
	qe__limit=$2
	shift 2
	timeout -k 5 "$qe__limit" "$@" >"$tmp/$qe__name.out" 2>&1 \
	    </dev/null &
	pid=$!
	pids="$pids $pid"
}

# finish PID: wait for it and set status (124 if its time ran out).
finish()
{
	status=0
	wait "$1" || status=$?
	qe__left=
	for qe__p in $pids; do
		[ "$qe__p" = "$1" ] || qe__left="$qe__left $qe__p"
	done
	pids=$qe__left
}

alive()
{
	kill -0 "$1" 2>/dev/null
}

# The time in tenths of seconds.
tick()
{
	echo $(($(date +%s%N) / 100000000))
}

# seconds FROM: since that tick, as 1.2
seconds()
{
	qe__s=$(($(tick) - $1))
	echo "$((qe__s / 10)).$((qe__s % 10)) s"
}
