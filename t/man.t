#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The manual: every page lints, every public function is described by exactly
# one page and no page describes what is not there, a page's SYNOPSIS agrees
# with the header, and its example compiles without a warning, links and runs.
#
# The example of vfudma(3) is a device; those of the vd_client pages take the
# path of its socket, all others run alone.
#
# O=DIR/ CC CFLAGS LDFLAGS PKG_CONFIG	as for make

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

command -v mandoc >/dev/null 2>&1 || skip_all "no mandoc"

: "${CC:=cc}" "${PKG_CONFIG:=pkg-config}"
make_tmp
server=
trap 'kill $server 2>/dev/null; rm -rf "$tmp"' EXIT

# The C text of a page's example.
example()
{
	awk '
	/^\.Sh / { in_examples = $2 == "EXAMPLES" }
	/^\.Ed/ { in_code = 0 }
	in_code {
		gsub(/\\&/, "")
		gsub(/\\-/, "-")
		gsub(/\\\(aq/, "\047")
		gsub(/\\e/, "\\")
		print
	}
	in_examples && /^\.Bd -literal/ { in_code = 1 }' "$1"
}

# What a page's SYNOPSIS says, as C that is compiled after the header.
synopsis()
{
	awk '
	function words(s,	out, w) {
		# Words in quotes or without, as arguments of a macro.
		nargs = 0
		while (s != "") {
			sub(/^ +/, "", s)
			if (s ~ /^"/) {
				s = substr(s, 2)
				w = substr(s, 1, index(s "\"", "\"") - 1)
				s = substr(s, length(w) + 2)
			} else {
				w = substr(s, 1, index(s " ", " ") - 1)
				s = substr(s, length(w) + 1)
			}
			if (w != "")
				args[++nargs] = w
		}
	}
	/^\.Sh / { in_synopsis = $2 == "SYNOPSIS" }
	!in_synopsis { next }
	/^\.In / { print "#include <" $2 ">" }
	/^\.Ft / {
		words(substr($0, 5))
		type = args[1]
		for (i = 2; i <= nargs; i++)
			type = type " " args[i]
	}
	/^\.Fn / {
		line = substr($0, 5)
		while (line ~ /\\$/ && (getline more) > 0) {
			sub(/\\$/, "", line)
			line = line more
		}
		words(line)
		list = args[2]
		for (i = 3; i <= nargs; i++)
			list = list ", " args[i]
		print type " " args[1] "(" list ");"
	}' "$1"
}

# The declarations of types in a page's SYNOPSIS, without macros.
types_of()
{
	awk '
	/^\.Sh / { in_synopsis = $2 == "SYNOPSIS" }
	/^\.Ed/ { in_code = 0 }
	in_code && !/^#/ { print }
	in_synopsis && /^\.Bd -literal/ { in_code = 1 }' "$1"
}

# Preprocessed C as pieces between ";", "{" and "}", one a line, sorted.
pieces()
{
	tr '\n\t;{}' '  \n\n\n' | sed 's/_Bool/bool/g; s/  */ /g
	    s/^ //; s/[ ,]*$//; s/( /(/g; s/ )/)/g' | grep . |
	    LC_ALL=C sort -u
}

# --- what there is -------------------------------------------------------

pages=$(echo man3/*.3)
headers=$(ls libmemtree/*.h libvfudma/*.h | grep -v '/internal[^/]*\.h$')
mt_warn="-std=gnu11 -Wall -Wextra -Werror"

for h in $headers; do
	echo "#include <$h>"
done >"$tmp/all.c"
run $CC -I. -E -P "$tmp/all.c"
cp "$tmp/out" "$tmp/all.i"
grep -o '\<\(mt\|vd\)_[a-z0-9_]*(' "$tmp/all.i" | grep -v '__' |
    tr -d '(' | sort -u >"$tmp/functions"
# Names of structs, enums and typedefs: a page may list those, too.
{
	grep -o '\<\(struct\|enum\) \(mt\|vd\)_[a-z0-9_]*' "$tmp/all.i" |
	    sed 's/.* //'
	grep -o '^typedef [^;]*;' "$tmp/all.i" | sed 's/;$//; s/.*[ *]//'
} | sort -u >"$tmp/types"

sh man3/mlinks $pages >"$tmp/links" 2>"$tmp/out"
for p in $pages; do
	page=$(basename "$p" .3)
	echo "$page $page"
done | sort - "$tmp/links" >"$tmp/names"

pieces <"$tmp/all.i" >"$tmp/pieces"

[ -s "$tmp/functions" ]
ok $? "the public headers declare functions"

# --- names ---------------------------------------------------------------

awk '{ print $2 }' "$tmp/names" | sort -u >"$tmp/documented"
comm -23 "$tmp/functions" "$tmp/documented" >"$tmp/out"
empty "every public function has a page that names it"

awk '{ print $2 }' "$tmp/names" | sort | uniq -d >"$tmp/out"
empty "no name is described by two pages"

{
	cat "$tmp/functions" "$tmp/types"
	echo memtree
	echo vfudma
} | sort -u >"$tmp/exists"
comm -13 "$tmp/exists" "$tmp/documented" >"$tmp/out"
empty "no page names what does not exist"

for p in $pages; do
	page=$(basename "$p" .3)
	awk -v page="$page" '
	/^\.Sh / { in_name = $2 == "NAME" }
	in_name && $1 == ".Nm" { if ($2 == page) found = 1; exit }
	END { exit !found }' "$p" || echo "$p: its first name is another"
done >"$tmp/out"
empty "every page is called like the first name in it"

for p in $pages; do
	synopsis "$p" | sed -n 's/^\([^(]*\)(.*/\1/p' | sed 's/.*[ *]//'
done | sort -u >"$tmp/in_synopsis"
comm -23 "$tmp/functions" "$tmp/in_synopsis" >"$tmp/out"
empty "every public function is in a SYNOPSIS"

# Cross-references of ours lead somewhere.
for p in $pages; do
	awk '/^\.Xr|[^a-z]Xr/ {
		for (i = 1; i < NF; i++)
			if ($i == ".Xr" || $i == "Xr")
				print FILENAME, $(i + 1)
	}' "$p"
done | awk -v names="$tmp/documented" '
BEGIN {
	while ((getline name < names) > 0)
		known[name] = 1
}
($2 ~ /^(mt|vd)_/ || $2 == "memtree" || $2 == "vfudma") && !known[$2]' \
    >"$tmp/out"
empty "every reference to a page of ours leads to one"

# --- each page -----------------------------------------------------------

libs="$($PKG_CONFIG --libs libbsd liburcu-bp 2>/dev/null) -pthread"
vd_libs=$($PKG_CONFIG --libs jansson 2>/dev/null)
# Libraries that were built with a sanitizer need it in the link, too.
san=
for s in address:__asan_init undefined:__ubsan_handle thread:__tsan_init; do
	if nm "${O}libmemtree.a" 2>/dev/null | grep -q "U ${s#*:}"; then
		san="$san -fsanitize=${s%%:*}"
	fi
done

sections="NAME LIBRARY SYNOPSIS DESCRIPTION LOCKING EXAMPLES HISTORY"
for p in $pages; do
	page=$(basename "$p" .3)

	run mandoc -T lint -W warning "$p"
	ok $? "$page lints"

	{
		sed -n 1p "$p" | grep -q '^\.\\" SPDX-License-Identifier: ' ||
		    echo "no SPDX line"
		for s in $sections "SEE ALSO"; do
			grep -q "^\.Sh $s\$" "$p" || echo "no $s"
		done
	} >"$tmp/out"
	empty "$page has all sections"

	synopsis "$p" >"$tmp/synopsis.c"
	run $CC -I. $mt_warn -fsyntax-only "$tmp/synopsis.c"
	ok $? "$page has the headers' prototypes"

	types_of "$p" >"$tmp/types.c"
	if [ -s "$tmp/types.c" ]; then
		{
			cat "$tmp/all.c"
			echo "int types_begin;"
			cat "$tmp/types.c"
		} >"$tmp/both.c"
		$CC -I. -E -P "$tmp/both.c" | sed '1,/types_begin/d' |
		    pieces | LC_ALL=C comm -23 - "$tmp/pieces" >"$tmp/out"
		empty "$page has the headers' types"
	fi

	example "$p" >"$tmp/$page.c"
	run $CC -I. $mt_warn $CFLAGS $san -c -o "$tmp/$page.o" "$tmp/$page.c"
	ok $? "the example of $page compiles"
done

# --- each example --------------------------------------------------------

for p in $pages; do
	page=$(basename "$p" .3)
	[ -f "$tmp/$page.o" ] || continue
	need="${O}libmemtree.a"
	with=$libs
	case $page in
	vd_* | vfudma)
		need="${O}libvfudma.a $need"
		with="$vd_libs $libs"
		;;
	esac
	missing=
	for l in $need; do
		[ -f "$l" ] || missing=$l
	done
	if [ -n "$missing" ]; then
		skip "the example of $page links" "$missing is not built"
		continue
	fi
	run $CC $san $CFLAGS $LDFLAGS -o "$tmp/$page" "$tmp/$page.o" $need \
	    $with
	ok $? "the example of $page links"
done

sock=$tmp/socket
if [ -x "$tmp/vfudma" ]; then
	"$tmp/vfudma" "$sock" >"$tmp/server" 2>&1 &
	server=$!
	i=0
	while [ ! -S "$sock" ] && [ $i -lt 100 ]; do
		sleep 0.1
		i=$((i + 1))
	done
	cp "$tmp/server" "$tmp/out"
	[ -S "$sock" ]
	ok $? "the device of vfudma listens"
fi

for p in $pages; do
	page=$(basename "$p" .3)
	[ -x "$tmp/$page" ] || continue
	case $page in
	vfudma)
		continue
		;;
	vd_client_*)
		if [ ! -S "$sock" ]; then
			skip "the example of $page runs" "no device"
			continue
		fi
		run timeout 30 "$tmp/$page" "$sock"
		;;
	*)
		run timeout 30 "$tmp/$page"
		;;
	esac
	status=$?
	[ $status -eq 0 ] || echo "status $status" >>"$tmp/out"
	ok $status "the example of $page runs"
done

if [ -n "$server" ]; then
	cp "$tmp/server" "$tmp/out"
	kill -0 $server 2>/dev/null
	ok $? "the device of vfudma is still there"
	[ ! -s "$tmp/server" ]
	ok $? "and has said nothing"
fi

done_testing
