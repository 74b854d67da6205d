#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The symbols of the static libraries: all have their library's prefix, every
# public function is there and nothing else is public, neither library uses
# what is private to the other, and there are no writable globals but those
# that each thread has for itself, which nobody contends for.  sigbus.o alone
# handles a signal, as the program asked it to, and keeps what that takes;
# mappings.o counts what the process has so many of.
#
# O=DIR/ CC

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

: "${CC:=cc}"
for tool in nm objdump; do
	command -v $tool >/dev/null 2>&1 || skip_all "no $tool"
done

make_tmp

# declared DIR PREFIX: the public functions of a library, inline ones apart.
declared()
{
	for h in "$1"/*.h; do
		case $h in
		*/internal*.h)	;;
		*)		echo "#include <$h>" ;;
		esac
	done >"$tmp/all.c"
	$CC -I. -E -P "$tmp/all.c" >"$tmp/all.i" || return
	grep -o "\<${2}_[a-z0-9_]*(" "$tmp/all.i" | grep -v "^$2__" |
	    tr -d '(' | sort -u >"$tmp/$2.all"
	tr '\n' ' ' <"$tmp/all.i" |
	    grep -o "static inline [^(]*\<${2}_[a-z0-9_]*(" |
	    sed 's/($//; s/.*[ *]//' | sort -u >"$tmp/$2.inline"
	comm -23 "$tmp/$2.all" "$tmp/$2.inline" >"$tmp/$2.declared"
}

# What only a program may do: end, print, or choose who is told.
never='abort exit _exit _Exit quick_exit printf vprintf puts putchar perror
stdout stderr err errx warn warnx verr verrx vwarn vwarnx syslog vsyslog
__printf_chk __vprintf_chk signal sigaction system popen'

check()
{
	dir=$1 prefix=$2 other=$3
	lib=${O}$dir.a

	nm -A --defined-only "$lib" 2>/dev/null |
	    sed 's/^[^:]*:\([^:]*\):[0-9a-f]* \(.\) /\1 \2 /' >"$tmp/defined"
	nm -A --undefined-only "$lib" 2>/dev/null |
	    sed 's/^[^:]*:\([^:]*\): *U /\1 /' >"$tmp/undefined"
	declared "$dir" "$prefix"

	# The case of the letter says whether a symbol is global.
	awk '$2 ~ /[A-Z]/ && $2 !~ /[UN]/' "$tmp/defined" >"$tmp/global"
	{ [ -s "$tmp/global" ] || echo "no symbols in $lib"; } >"$tmp/out"
	empty "$dir defines something"

	awk -v p="${prefix}_" 'index($3, p) != 1' "$tmp/global" >"$tmp/out"
	empty "$dir: every global symbol begins with ${prefix}_"

	awk '$2 == "C" || $2 == "c"' "$tmp/defined" >"$tmp/out"
	empty "$dir: no common symbols"

	awk '{ print $3 }' "$tmp/global" | sort >"$tmp/names"
	uniq -d "$tmp/names" >"$tmp/out"
	empty "$dir: no symbol is defined twice"

	comm -23 "$tmp/$prefix.declared" "$tmp/names" >"$tmp/out"
	empty "$dir: every function that a public header declares is defined"

	grep -v "^${prefix}__" "$tmp/names" |
	    comm -13 "$tmp/$prefix.declared" - >"$tmp/out"
	empty "$dir: every public symbol is declared in a public header"

	awk -v p="${other}__" 'index($2, p) == 1' "$tmp/undefined" >"$tmp/out"
	empty "$dir uses nothing that is private to the other library"

	awk -v list="$never" '
	BEGIN {
		k = split(list, a, /[ \n]+/)
		for (i = 1; i <= k; i++)
			never[a[i]] = 1
	}
	$2 in never && !($1 == "sigbus.o" && $2 ~ /^sig(nal|action)$/)' \
	    "$tmp/undefined" >"$tmp/out"
	empty "$dir neither prints nor ends the program"

	# Sanitizers have globals of their own.
	if grep -q ' __\(asan\|tsan\|ubsan\|gcov\)_' "$tmp/undefined"; then
		skip "$dir: no writable globals" "built with a sanitizer"
		return
	fi
	# Constants that hold addresses are in .data.rel.ro.
	objdump -t "$lib" 2>/dev/null | awk '
	/file format/ { file = $1 }
	/\t/ {
		split($0, half, "\t")
		k = split(half[1], a, / +/)
		section = a[k]
		split(half[2], b, / +/)
		# Numbers of threads: taken with the first map, then only read.
		if (file == "pin.o:" && b[2] ~ /^(slots(_[a-z]+)?|has_key)$/)
			next
		if (section !~ /^\.(data|bss)/ &&
		    section != "*COM*")
			next
		if (section ~ /^\.data\.rel\.ro/ || b[2] == section)
			next
		if ((file == "sigbus.o:" && b[2] == "bus") ||
		    (file == "mappings.o:" && b[2] == "mappings"))
			next
		if (b[1] !~ /^0+$/)
			print file, section, b[2]
	}' >"$tmp/out"
	empty "$dir: no writable globals"
}

for l in "${O}libmemtree.a" "${O}libvfudma.a"; do
	[ -f "$l" ] || skip_all "$l is not built"
done

check libmemtree mt vd
awk '$2 ~ /^vd_/' "$tmp/undefined" >"$tmp/out"
empty "libmemtree uses nothing of libvfudma"

# What calls do when memory runs out: the test names all that it tries.
oom=${O}t/memtree-oom.t
if [ ! -x "$oom" ]; then
	skip "every public function is tried without memory" "no $oom"
elif ! "$oom" >"$tmp/tap" 2>&1; then
	sed -n '/^not ok/p' "$tmp/tap" >"$tmp/out"
	empty "memtree-oom passes"
elif grep -q '^1\.\.0' "$tmp/tap"; then
	skip "every public function is tried without memory" \
	    "built with a sanitizer"
else
	sed -n 's/^ok //p' "$tmp/tap" | grep -o '\<mt_[a-z0-9_]*' |
	    sort -u >"$tmp/tried"
	# Named, but not called at all?
	nm --undefined-only "${oom%.t}.o" | awk '{ print $2 }' |
	    sort >"$tmp/called"
	comm -12 "$tmp/tried" "$tmp/called" |
	    comm -23 "$tmp/mt.declared" - >"$tmp/out"
	empty "every public function is tried without memory by memtree-oom"
fi

check libvfudma vd mt

done_testing
