#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The library answers every statement of the conformance vectors as written.
# O is a side build, as in the Makefile, relative to the top directory.

cd "$(dirname "$0")/.." || exit 1
replay=${O:-./}t/replay
case $replay in
/*|./*) ;;
*) replay=./$replay ;;
esac

if [ ! -x "$replay" ]; then
	echo "1..0 # SKIP no $replay: make it"
	exit 0
fi
exec "$replay" t/vectors/*.txt
