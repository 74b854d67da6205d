#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The examples explain themselves, and are of one mind about mistakes.
#
# O=DIR/

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

make_tmp

# example NAME: as program, for any folder
example()
{
	program "examples/$1"
	case $prog in
	/*) ;;
	*) prog=$PWD/$prog ;;
	esac
}

# mistake WHAT ARGS...: how to use $prog goes to stderr, and nothing is done
mistake()
{
	what=$1
	shift
	(cd "$tmp/dir" && exec timeout -s KILL 10 "$prog" "$@") \
	    >"$tmp/stdout" 2>"$tmp/out" </dev/null
	is $? 2 "$what has status 2"
	[ ! -s "$tmp/stdout" ] && [ -z "$(ls -A "$tmp/dir")" ]
	ok $? "... and does nothing"
}

mkdir "$tmp/dir"
for name in minimal memmap nvme/nvme nvme-host vfu-dump; do
	example "$name"
	mistake "$name --bogus" --bogus
	grep -q "$(basename "$name")" "$tmp/out"
	ok $? "... but say so"
	mistake "$name with too many arguments" --socket x y z
	if [ "$name" = minimal ]; then
		mistake "minimal --help" --help
		continue
	fi
	timeout -s KILL 10 "$prog" --help >"$tmp/help" 2>"$tmp/out"
	is $? 0 "$name --help is no mistake"
	empty "... of which stderr hears nothing"
	grep -q "^usage: $(basename "$name") " "$tmp/help"
	ok $? "... but stdout how to use it"
	[ "$name" = memmap ] && continue
	# Each option of the first lines has a line of its own.
	sed '/^$/q' "$tmp/help" | grep -o -e '--[a-z-]*' | sort -u |
	while read -r option; do
		grep -q "^  $option " "$tmp/help" || echo "$option"
	done >"$tmp/out"
	[ "$(wc -l <"$tmp/help")" -gt 10 ] && [ ! -s "$tmp/out" ]
	ok $? "... and what each option is"
done

example nvme-host
mistake "nvme-host with a depth of 0" --socket x --depth 0
mistake "nvme-host with a seed of no number" --socket x --seed 1x
example nvme/nvme
mistake "nvme with a bad size" --socket x --ram 1X

done_testing
