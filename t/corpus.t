#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What the fuzzers have found worth keeping, played again: inputs that reach
# far, and those that once did harm.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh
make_tmp

for dir in t/corpus/*/; do
	name=$(basename "$dir")
	program "t/fuzz/$name"
	"$prog" "$dir" >"$tmp/all" 2>&1
	status=$?
	tail -n 40 "$tmp/all" >"$tmp/out"
	ok $status "$name: $(ls "$dir" | wc -l) inputs"
done

done_testing
