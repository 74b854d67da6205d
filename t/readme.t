#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The README shows the example that is in the tree, and commands that exist.

cd "$(dirname "$0")/.." || exit 1
echo 1..3

shown=$(awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md)
if [ "$shown" = "$(cat examples/minimal.c)" ]; then
	echo "ok 1 - the README shows examples/minimal.c as it is"
else
	echo "not ok 1 - the README shows examples/minimal.c as it is"
fi

lines=$(wc -l <examples/minimal.c)
if [ "$lines" -lt 100 ]; then
	echo "ok 2 - which is under 100 lines"
else
	echo "not ok 2 - which is under 100 lines"
	echo "#   it has $lines"
fi

missing=
for target in $(sed -n 's/^    make \([a-z ]*\).*/\1/p' README.md); do
	grep -q "^[a-z -]*\b$target\b[a-z -]*:" Makefile ||
		missing="$missing $target"
done
if [ -z "$missing" ]; then
	echo "ok 3 - the make targets that it names exist"
else
	echo "not ok 3 - the make targets that it names exist"
	echo "#   not:$missing"
fi
