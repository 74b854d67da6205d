#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# The public headers: each compiles alone, first and twice, as C11 and as C++,
# with nothing but the top directory in the include path; none includes one of
# libbsd's; and what they define can be used in both languages.
#
# CC CXX	the compilers

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh

: "${CC:=cc}" "${CXX:=c++}"
make_tmp

warn="-Wall -Wextra -Werror"
have_cxx=false
command -v $CXX >/dev/null 2>&1 && have_cxx=true

# compile_c FILE, compile_cxx FILE
compile_c()
{
	$CC -I. -std=c11 -pedantic $warn -fsyntax-only "$1" >"$tmp/out" 2>&1
}
compile_cxx()
{
	$CXX -I. -std=c++11 -pedantic $warn -fsyntax-only "$1" \
	    >"$tmp/out" 2>&1
}

# both FILE.c NAME: compile it as either language
both()
{
	compile_c "$1"
	ok $? "$2 as C"
	if $have_cxx; then
		cp "$1" "${1%.c}.cc"
		compile_cxx "${1%.c}.cc"
		ok $? "$2 as C++"
	else
		skip "$2 as C++" "no $CXX"
	fi
}

headers=$(ls libmemtree/*.h libvfudma/*.h | grep -v '/internal[^/]*\.h$')

for h in $headers; do
	# A file with nothing else in it would be empty for -pedantic.
	printf '#include <%s>\nextern int end;\n' "$h" >"$tmp/x.c"
	both "$tmp/x.c" "$h alone"

	printf '#include <%s>\n#include <%s>\nextern int end;\n' "$h" "$h" \
	    >"$tmp/x.c"
	compile_c "$tmp/x.c"
	ok $? "$h twice"

	printf '#include <%s>\n' "$h" >"$tmp/x.c"
	$CC -I. -M "$tmp/x.c" 2>&1 | tr ' ' '\n' |
	    grep -e '/bsd/' -e internal >"$tmp/out"
	empty "$h brings none of libbsd's headers nor a private one"

	sed -n 1p "$h" >"$tmp/out"
	grep -q '^/\* SPDX-License-Identifier: BSD-2-Clause \*/$' "$tmp/out"
	ok $? "$h names its license"
done

# After the system's queue.h, which libbsd's would contradict, and the other
# way round.
for u in libmemtree/memtree.h libvfudma/vfudma.h; do
	printf '#include <sys/queue.h>\n#include <%s>\nextern int end;\n' \
	    "$u" >"$tmp/x.c"
	both "$tmp/x.c" "$u after <sys/queue.h>"
done

# An umbrella leaves none out.
for d in memtree vfudma; do
	printf '#include <lib%s/%s.h>\n' "$d" "$d" >"$tmp/x.c"
	$CC -I. -M "$tmp/x.c" 2>/dev/null | tr -s ' \\' '\n' |
	    sed 's,^\./,,' | sort -u >"$tmp/deps"
	for h in $headers; do
		case $h in
		lib$d/*)
			grep -qx "$h" "$tmp/deps" || echo "$h"
			;;
		esac
	done >"$tmp/out"
	empty "lib$d/$d.h includes all headers of lib$d"
done

# Macros and inline functions are compiled where they are used only.
cat >"$tmp/use.c" <<'EOF'
#include <libvfudma/vfudma.h>

#if MT_VERSION_MAJOR < 0 || MT_VERSION_MINOR < 0 || MT_VERSION_PATCH < 0
#error no version
#endif

unsigned int use(struct mt_space *sp);

unsigned int
use(struct mt_space *sp)
{
	struct mt_waiter waiter = MT_WAITER_INIT;
	struct mt_cache cache;
	struct mt_range all = { 0, MT_LAST_MAX };
	unsigned int res = MT_OK;
	uint8_t u8;
	uint16_t u16;
	uint32_t u32;
	uint64_t u64;

	res |= mt_space_read(sp, MT_SIZE(1), &u8, 1, MT_ATTRS_NONE);
	res |= mt_space_load_u8(sp, all.first, &u8);
	res |= mt_space_load_le16(sp, 0, &u16);
	res |= mt_space_load_le32(sp, 0, &u32);
	res |= mt_space_load_le64(sp, 0, &u64);
	res |= mt_space_load_be16(sp, 0, &u16);
	res |= mt_space_load_be32(sp, 0, &u32);
	res |= mt_space_load_be64(sp, 0, &u64);
	res |= mt_space_store_u8(sp, all.last, u8);
	res |= mt_space_store_le16(sp, 0, u16);
	res |= mt_space_store_le32(sp, 0, u32);
	res |= mt_space_store_le64(sp, 0, u64);
	res |= mt_space_store_be16(sp, 0, u16);
	res |= mt_space_store_be32(sp, 0, u32);
	res |= mt_space_store_be64(sp, 0, u64);
	if (mt_cache_init(&cache, sp, 0, 8, MT_DMA_READ, MT_ATTRS_NONE) == -1 ||
	    mt_cache_stale(&cache))
		return (1);
	res |= mt_cache_load_u8(&cache, 0, &u8);
	res |= mt_cache_load_le32(&cache, 0, &u32);
	res |= mt_cache_store_be64(&cache, 0, u64);
	res |= mt_cache_store_host16(&cache, 0, u16);
	mt_cache_fini(&cache);
	mt_dma_set_bounce_limit(sp, MT_BOUNCE_DEFAULT);
	return (mt_dma_cancel(&waiter) ? VD_IRQ_ACTION_MASK : res);
}
EOF
both "$tmp/use.c" "macros and inline functions can be used"

# One library's users may use the other's, and two files can be linked.
printf '#include <libmemtree/memtree.h>\nint main(void) { return (0); }\n' \
    >"$tmp/a.c"
printf '#include <libvfudma/vfudma.h>\nextern int end;\n' >"$tmp/b.c"
$CC -I. -std=c11 -pedantic $warn -o "$tmp/ab" "$tmp/a.c" "$tmp/b.c" \
    >"$tmp/out" 2>&1
ok $? "two files that include them link without either library"

# The version in the header is the Makefile's.
version=$(sed -n 's/^VERSION[[:space:]]*=[[:space:]]*//p' Makefile)
printf '%s\n' "$version" >"$tmp/out"
for part in MAJOR MINOR PATCH; do
	sed -n "s/^#define MT_VERSION_$part[[:space:]]*//p" \
	    libmemtree/memtree.h
done | paste -sd. - | cmp -s - "$tmp/out"
ok $? "MT_VERSION_* is the Makefile's VERSION"

done_testing
