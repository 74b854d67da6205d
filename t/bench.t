#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The benchmarks work: each prints what it lists, a positive number apiece.
# How large it is is not looked at.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh
make_tmp

for b in memtree vfio; do
	program "t/bench/$b"
	names=$("$prog" --list)
	run "$prog" --quick
	ok $? "$b runs"
	cp "$tmp/out" "$tmp/lines"
	cut -d' ' -f1 "$tmp/lines" >"$tmp/out"
	[ -n "$names" ] && [ "$(cat "$tmp/out")" = "$names" ]
	ok $? "$b prints what it lists"
	grep -Ev '^[a-z0-9_.]+ [0-9]+(\.[0-9]+)? (ns|bytes|times)$' \
	    "$tmp/lines" >"$tmp/out"
	empty "$b: name, value, unit"
	awk '!($2 > 0)' "$tmp/lines" >"$tmp/out"
	empty "$b: every value is above zero"
	one=$(printf '%s\n' "$names" | sed -n 3p)
	run "$prog" --list "$one"
	[ "$(cat "$tmp/out")" = "$one" ]
	ok $? "$b can be asked for one"
	run "$prog" --lsit
	[ $? -eq 2 ]
	ok $? "$b refuses an option that it does not know"
done

done_testing
