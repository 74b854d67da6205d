#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# examples/memmap writes the map of a PC in four forms, of which the two that
# are for programs are what those programs read.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

program examples/memmap
make_tmp

# try NAME COMMAND...: does it work?
try()
{
	name=$1
	shift
	run "$@"
	ok $? "$name"
}
# with NAME TOOL COMMAND...: the same if there is the tool
with()
{
	if command -v "$2" >/dev/null 2>&1; then
		name=$1
		shift 2
		try "$name" "$@"
	else
		skip "$1" "no $2"
	fi
}

try "it makes a folder" "$prog" -o "$tmp/map"
try "it writes into one that is there" "$prog" -o "$tmp/map"
try "the tree has both views of the RAM" \
    grep -q 'ram-above-4g -> pc.ram @00000000b0000000' "$tmp/map/tree.txt"
try "the BIOS is seen below 1 MiB" grep -q \
    '00000000000e0000-00000000000fffff (romd.*pc.flash @00000000003e0000' \
    "$tmp/map/view.txt"
with "the picture is well-formed XML" xmllint \
    xmllint --nonet --noout "$tmp/map/view.svg"
with "it can be drawn" rsvg-convert \
    rsvg-convert -o "$tmp/view.png" "$tmp/map/view.svg"
with "dot accepts the graph" dot dot -Tcanon -o "$tmp/canon" \
    "$tmp/map/tree.dot"
# All that is in the view is in the picture.
grep -o ': [a-z0-9.-]*' "$tmp/map/view.txt" | tr -d ': ' | sort -u |
while read -r name; do
	grep -q ">$name</text>" "$tmp/map/view.svg" || echo "no $name"
done >"$tmp/out"
empty "the picture names all that the text names"
run "$prog" -o "$tmp/map/tree.txt/x"
[ $? -eq 1 ]
ok $? "a folder that cannot be made is an error"
run "$prog"
[ $? -eq 2 ]
ok $? "it says how to be used"

done_testing
