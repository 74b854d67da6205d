#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
# The library answers every statement of the conformance vectors as written.
# O is a side build, as in the Makefile, relative to the top directory.

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

program t/replay
exec "$prog" t/vectors/*.txt
