#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The benchmarks work: each prints what it lists, a positive number apiece.
# How large it is is not looked at.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1

n=0 failed=0
# ok STATUS NAME: one check; what it printed is in $out
ok()
{
	n=$((n + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $n - $2"
	else
		failed=$((failed + 1))
		echo "not ok $n - $2"
		printf '%s\n' "$out" | sed 's/^/# /'
	fi
}

for b in memtree vfio; do
	prog=${O:-./}t/bench/$b
	case $prog in
	/*|./*) ;;
	*) prog=./$prog ;;
	esac
	if [ ! -x "$prog" ]; then
		echo "1..0 # SKIP no $prog: make it"
		exit 0
	fi
	names=$("$prog" --list)
	out=$("$prog" --quick 2>&1)
	ok $? "$b runs"
	lines=$out
	out=$(printf '%s\n' "$lines" | cut -d' ' -f1)
	[ -n "$names" ] && [ "$out" = "$names" ]
	ok $? "$b prints what it lists"
	out=$(printf '%s\n' "$lines" |
	    grep -Ev '^[a-z0-9_.]+ [0-9]+(\.[0-9]+)? (ns|bytes|times)$')
	[ -z "$out" ]
	ok $? "$b: name, value, unit"
	out=$(printf '%s\n' "$lines" | awk '!($2 > 0)')
	[ -z "$out" ]
	ok $? "$b: every value is above zero"
	one=$(printf '%s\n' "$names" | sed -n 3p)
	out=$("$prog" --list "$one")
	[ "$out" = "$one" ]
	ok $? "$b can be asked for one"
	out=$("$prog" --lsit 2>&1)
	[ $? -eq 2 ]
	ok $? "$b refuses an option that it does not know"
done

echo "1..$n"
[ $failed -eq 0 ]
