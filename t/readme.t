#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The README shows the example that is in the tree, and commands that exist.

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

shown=$(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md)
[ "$shown" = "$(cat examples/minimal.c)" ]
ok $? "the README shows examples/minimal.c as it is"

lines=$(wc -l <examples/minimal.c)
[ "$lines" -lt 100 ]
ok $? "which is under 100 lines" || diag "it has $lines"

missing=
for target in $(sed -n 's/^    make \([a-z ]*\).*/\1/p' README.md); do
	grep -q "^[a-z -]*\b$target\b[a-z -]*:" Makefile ||
		missing="$missing $target"
done
is "$missing" "" "the make targets that it names exist"

done_testing
