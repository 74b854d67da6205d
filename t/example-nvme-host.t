#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What nvme-host says of a controller that does not answer any more, and of one
# that is gone.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

program examples/nvme/nvme
nvme=$prog
program examples/nvme-host
make_tmp
ctrl=
trap 'kill -KILL $ctrl 2>/dev/null; rm -rf "$tmp"' EXIT

# until FILE TEXT: wait for it to be there
until_there()
{
	tries=0
	until grep -q "$2" "$1" 2>/dev/null; do
		tries=$((tries + 1))
		[ "$tries" -lt 300 ] || return 1
		sleep 0.1
	done
}

# ends_with SIGNAL TEXT: what a host says whose controller gets it at work
ends_with()
{
	# What the one before has said is not to be taken for theirs.
	rm -f "$tmp/ctrl" "$tmp/out"
	"$nvme" --socket "$tmp/socket" --ram 1G >"$tmp/ctrl" 2>&1 &
	ctrl=$!
	until_there "$tmp/ctrl" listening || return 1
	timeout -s KILL 50 "$prog" --socket "$tmp/socket" --size 1G --depth 1 \
	    --block 4K >"$tmp/out" 2>&1 &
	host=$!
	until_there "$tmp/out" '^interrupts'
	kill "-$1" "$ctrl"
	wait "$host"
	is $? 1 "SIG$1 for the controller is the end of the test"
	kill -KILL "$ctrl" 2>/dev/null
	wait "$ctrl" 2>/dev/null
	grep -q "^nvme-host: $2" "$tmp/out"
	ok $? "... which says: $2"
}

ends_with KILL "the server is gone"
ends_with STOP "read of register 0x1c: the controller does not answer"

done_testing
