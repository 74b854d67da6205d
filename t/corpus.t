#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What the fuzzers have found worth keeping, played again: inputs that reach
# far, and those that once did harm.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1

tmp=$(mktemp -d "${TMPDIR:-/tmp}/corpus.XXXXXX") || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

n=0 failed=0
for dir in t/corpus/*/; do
	name=$(basename "$dir")
	prog=${O:-./}t/fuzz/$name
	case $prog in
	/*|./*) ;;
	*) prog=./$prog ;;
	esac
	if [ ! -x "$prog" ]; then
		echo "1..0 # SKIP no $prog: make it"
		exit 0
	fi
	n=$((n + 1))
	files=$(ls "$dir" | wc -l)
	if "$prog" "$dir" >"$tmp/out" 2>&1; then
		echo "ok $n - $name: $files inputs"
	else
		failed=$((failed + 1))
		echo "not ok $n - $name: $files inputs"
		tail -n 40 "$tmp/out" | sed 's/^/# /'
	fi
done

echo "1..$n"
[ $failed -eq 0 ]
