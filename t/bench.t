#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The benchmarks work: each prints what it lists, a positive number apiece, and
# what others compare from one version to the next is among it.  How large it
# is is not looked at.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh
make_tmp

# each PREFIX SUFFIX...: a name for each
each()
{
	prefix=$1
	shift
	for suffix; do
		echo "$prefix$suffix"
	done
}

# Figures that are never renamed or left out.
promised_memtree()
{
	for name in read4.ram load4.ram read4k.ram read4.io map.ram find \
	    toggle; do
		each "memtree.$name.n" 16 256 4096 32768
	done
	each memtree. cache.load4 copy4k read4k.io.split read4k.io.bulk \
	    map.bounce toggle.unmapped bytes_per_region read4.2threads.ratio \
	    map.2threads.ratio
}

promised_vfio()
{
	for name in dma_map.fd dma_map.nofd translate; do
		each "vfio.$name.n" 64 1024 16384
	done
	for name in dma_read dma_write floor; do
		each "vfio.$name." 4k 64k 1m
	done
	each vfio. region_read4 region_write4 posted_write4 idle_poll floor4 \
	    dma_read.4k.depth32
}

for b in memtree vfio; do
	program "t/bench/$b"
	names=$("$prog" --list)
	"promised_$b" | sort >"$tmp/promised"
	printf '%s\n' "$names" | sort | comm -13 - "$tmp/promised" >"$tmp/out"
	empty "$b has every figure that is promised"
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
