#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# Copyright (c) 2026 The memtree authors
#
# usage: demo.sh [PREFIX]
#
# Start the example NVMe controller on a temporary socket and run the example
# driver on it, more than one way.  PREFIX is the build directory, with its
# slash, if it is not the tree itself.  Exits 0 only if every byte that was
# written was read back.

set -u

prefix=${1-}
nvme=${prefix}examples/nvme/nvme
host=${prefix}examples/nvme-host

die()
{
	echo "demo: $*" >&2
	exit 1
}

for program in "$nvme" "$host"; do
	[ -x "$program" ] || die "build $program first"
done

dir=$(mktemp -d) || exit 1
socket=$dir/nvme.sock
pid=

cleanup()
{
	[ -z "$pid" ] || kill "$pid" 2>/dev/null
	[ -z "$pid" ] || wait "$pid" 2>/dev/null
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

truncate -s 64M "$dir/disk" || exit 1
echo "# $nvme: 256 MiB of memory, and a file of 64 MiB"
"$nvme" --socket "$socket" --serial DEMO --ram 256M \
    --block-size 4096 --file "$dir/disk" >"$dir/out" 2>&1 &
pid=$!

# It says one line when it listens.
tries=0
until [ -s "$dir/out" ] && [ -S "$socket" ]; do
	if ! kill -0 "$pid" 2>/dev/null; then
		cat "$dir/out" >&2
		die "the controller did not start"
	fi
	tries=$((tries + 1))
	[ "$tries" -lt 100 ] || die "the controller does not listen"
	sleep 0.1
done
cat "$dir/out"

run()
{
	echo
	echo "# $1"
	shift
	"$host" --socket "$socket" "$@" || die "FAILED: $host $*"
}

run "large transfers; doorbells and interrupts as the controller offers them" \
    --size 256M
run "doorbells by message, small transfers" \
    --doorbells message --block 8K --size 32M --seed 2
run "no interrupts, deep queues, one page a command" \
    --no-irq --block 4K --queues 2 --depth 255 --size 32M --seed 3
run "nothing shared: every byte by message, on one socket for both directions" \
    --memory private --no-twin --doorbells message --no-irq --size 32M \
    --seed 4
run "the same with a twin socket, by which the controller asks for memory" \
    --memory private --size 32M --seed 5

kill -TERM "$pid"
wait "$pid"
status=$?
pid=
[ "$status" -eq 0 ] || die "FAILED: the controller ended with status $status"
echo
echo "demo: every byte written was read back"
