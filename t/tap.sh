# SPDX-License-Identifier: BSD-2-Clause
#
# Shell functions for tests: a producer of the Test Anything Protocol, what
# was printed, and where things are built.
#
# O=DIR/, as for make

tap_n=0
tap_failed=0
tmp=

# Make $tmp, a folder that goes away at the end.
make_tmp()
{
	tmp=$(mktemp -d "${TMPDIR:-/tmp}/$(basename "$0" .t).XXXXXX") || exit 1
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 1' HUP INT TERM
}

# run COMMAND...: what it prints is in $tmp/out
run()
{
	"$@" >"$tmp/out" 2>&1 </dev/null
}

# program PATH: set prog to where it is built, or end the test
program()
{
	prog=${O:-}$1
	[ -x "$prog" ] || skip_all "no $prog: make it"
}

# diag TEXT...: remarks
diag()
{
	printf '%s\n' "$*" | sed 's/^/# /'
}

# ok STATUS NAME...: one check, and whether it passed; if not, that and
# $tmp/out, where there is one, go to stderr, which prove(1) shows
ok()
{
	tap_status=$1
	shift
	tap_n=$((tap_n + 1))
	if [ "$tap_status" -eq 0 ]; then
		echo "ok $tap_n - $*"
	else
		tap_failed=$((tap_failed + 1))
		echo "not ok $tap_n - $*"
		echo "# $0: not ok $tap_n - $*" >&2
		if [ -n "$tmp" ] && [ -s "$tmp/out" ]; then
			sed 's/^/# /' "$tmp/out" >&2
		fi
	fi
	return "$tap_status"
}

# is GOT WANTED NAME
is()
{
	if [ "$1" = "$2" ]; then
		ok 0 "$3"
	else
		ok 1 "$3" ||
		diag "     got: $1
  wanted: $2" >&2
		return 1
	fi
}

# empty NAME...: there is nothing in $tmp/out
empty()
{
	[ ! -s "$tmp/out" ]
	ok $? "$@"
}

# skip NAME WHY: a check that is not made here
skip()
{
	tap_n=$((tap_n + 1))
	echo "ok $tap_n - $1 # SKIP $2"
}

# skip_all WHY...: end the test, which makes no checks here, or no more
skip_all()
{
	if [ "$tap_n" -gt 0 ]; then
		skip "the rest" "$*"
		done_testing
		exit
	fi
	echo "1..0 # SKIP $*"
	exit 0
}

# The end, and whether all went well.
done_testing()
{
	echo "1..$tap_n"
	[ "$tap_failed" -eq 0 ]
}
