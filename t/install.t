#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# What `make install' puts where, and that programs outside the tree can be
# built with it: in C and C++, by pkg-config, and with -static where the
# static libraries of what we use are there.  Then `make uninstall'.
#
# O=DIR/ MAKE CC CXX CFLAGS PKG_CONFIG

cd "$(dirname "$0")/.." || exit 1
. t/tap.sh
top=$(pwd)
umask 022

: "${MAKE:=make}" "${CC:=cc}" "${CXX:=c++}" "${PKG_CONFIG:=pkg-config}"
# This is not a part of the make that may have started us.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
unset BINDIR INCLUDEDIR LIBDIR MANDIR

for l in "${O}libmemtree.a" "${O}libvfudma.a"; do
	if nm "$l" 2>/dev/null | grep -q ' __\(asan\|tsan\|ubsan\)_'; then
		skip_all "built with a sanitizer"
	fi
done

make_tmp
root=$tmp/root
man=$root/usr/share/man/man3

# --- install -------------------------------------------------------------

run $MAKE O="$O" DESTDIR="$root" PREFIX=/usr install
ok $? "make install" || { done_testing; exit; }

for f in libmemtree/*.h libvfudma/*.h; do
	case $f in
	*/internal*.h)
		[ ! -e "$root/usr/include/$f" ] || echo "$f is private"
		;;
	*)
		cmp "$f" "$root/usr/include/$f"
		;;
	esac
done >"$tmp/out" 2>&1
empty "the public headers are there, and no others"

for l in libmemtree libvfudma; do
	cmp "${O}$l.a" "$root/usr/lib/$l.a"
done >"$tmp/out" 2>&1
empty "the libraries are there"

for p in man3/*.3; do
	cmp "$p" "$root/usr/share/man/$p"
done >"$tmp/out" 2>&1
empty "the manual pages are there"

man3/mlinks | while read -r page name; do
	cmp "man3/$page.3" "$man/$name.3"
	case $(readlink "$man/$name.3") in
	/*)
		echo "$name.3: the link is absolute"
		;;
	esac
done >"$tmp/out" 2>&1
empty "each name in a page leads to it"

version=$(sed -n 's/^VERSION[[:space:]]*=[[:space:]]*//p' Makefile)
for l in libmemtree libvfudma; do
	pc=$root/usr/lib/pkgconfig/$l.pc
	[ -f "$pc" ] || echo "no $pc"
	grep -n '@[A-Z]*@' "$pc"
	grep -nF "$tmp" "$pc"
	grep -nF "$top" "$pc"
	grep -q '^prefix=/usr$' "$pc" || echo "no prefix in $pc"
	grep -q "^Version: $version\$" "$pc" || echo "no version in $pc"
done >"$tmp/out" 2>&1
empty "the .pc files are filled in, without DESTDIR"

find "$root" ! -type l -perm /022 >"$tmp/out"
find "$root" -type f ! -perm -044 >>"$tmp/out"
find "$root/usr/include" "$root/usr/lib" "$root/usr/share" -type f \
    -perm /111 >>"$tmp/out"
empty "modes are right"

(cd "$root" && find . ! -type d) | LC_ALL=C sort >"$tmp/files"
run $MAKE O="$O" DESTDIR="$root" PREFIX=/usr install
ok $? "make install once more"
(cd "$root" && find . ! -type d) | LC_ALL=C sort |
    diff "$tmp/files" - >"$tmp/out"
empty "it changes nothing then"

# --- users ---------------------------------------------------------------

mkdir "$tmp/user"
cat >"$tmp/user/mt.c" <<'EOF'
#include <stdio.h>

#include <libmemtree/memtree.h>

int
main(void)
{
	struct mt_topology *t = mt_topology_create();
	struct mt_region *ram;
	struct mt_space *sp;
	uint32_t val = 0;

	if (t == NULL)
		return (1);
	ram = mt_region_create_ram(t, "ram", MT_SIZE(4096), NULL);
	if (ram == NULL || (sp = mt_space_create(ram, "bus")) == NULL)
		return (2);
	if (mt_space_store_le32(sp, 16, 0x68656c6c) != MT_OK ||
	    mt_space_load_be32(sp, 16, &val) != MT_OK || val != 0x6c6c6568)
		return (3);
	if (mt_space_destroy(sp) == -1)
		return (4);
	mt_region_put(ram);
	if (mt_topology_destroy(t) == -1)
		return (5);
	printf("hello, memory\n");
	return (0);
}
EOF
cat >"$tmp/user/vd.c" <<'EOF'
#include <sys/socket.h>

#include <stdio.h>
#include <unistd.h>

#include <libvfudma/vfudma.h>

int
main(void)
{
	static const struct vd_device_ops ops = { NULL, NULL, NULL, NULL,
	    NULL, NULL };
	struct mt_topology *t = mt_topology_create();
	struct vd_server *s;
	int done, sv[2];

	if (t == NULL || (s = vd_server_create(t, &ops, NULL)) == NULL)
		return (1);
	if (vd_pci_set_id(s, 0x1234, 0x5678, 0, 0) == -1 ||
	    vd_pci_config_get(s, 0, 4) != 0x56781234)
		return (2);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == -1 ||
	    vd_server_attach(s, sv[0]) == -1)
		return (3);
	close(sv[1]);
	while ((done = vd_server_run(s)) == 1)
		;
	if (done != -1)
		return (4);
	vd_server_destroy(s);
	if (mt_topology_destroy(t) == -1)
		return (5);
	printf("hello, device\n");
	return (0);
}
EOF
cp "$tmp/user/mt.c" "$tmp/user/mt.cc"
cp "$tmp/user/vd.c" "$tmp/user/vd.cc"

if ! command -v $PKG_CONFIG >/dev/null 2>&1; then
	skip "programs outside the tree" "no $PKG_CONFIG"
	done_testing
	exit
fi
# In the sysroot's /usr, which pkg-config would take for the system's.
PKG_CONFIG_PATH=$root/usr/lib/pkgconfig
PKG_CONFIG_SYSROOT_DIR=$root
PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1
PKG_CONFIG_ALLOW_SYSTEM_LIBS=1
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS PKG_CONFIG_ALLOW_SYSTEM_LIBS

cd "$tmp/user" || exit 1
warn="-Wall -Wextra -Werror"

# Can anything be linked with -static here, and with all that we use?
all_static()
{
	echo 'int main(void) { return (0); }' >static.c
	run $CC -static -o static static.c $(env -u PKG_CONFIG_PATH \
	    -u PKG_CONFIG_SYSROOT_DIR $PKG_CONFIG --static --libs \
	    libbsd liburcu-bp jansson)
}

for u in mt:libmemtree vd:libvfudma; do
	prog=${u%%:*} lib=${u#*:}

	run $PKG_CONFIG --modversion "$lib"
	grep -qx "$version" "$tmp/out"
	ok $? "pkg-config knows the version of $lib"

	run $PKG_CONFIG --static --cflags --libs "$lib"
	ok $? "pkg-config finds $lib and what it needs"
	cflags=$($PKG_CONFIG --cflags "$lib" 2>/dev/null)
	libs=$($PKG_CONFIG --static --libs "$lib" 2>/dev/null)

	run $CC -std=gnu11 $warn $CFLAGS $cflags -o "$prog" "$prog.c" $libs
	ok $? "a C program with $lib builds"
	run timeout 30 "./$prog"
	ok $? "and runs"

	if command -v $CXX >/dev/null 2>&1; then
		run $CXX $warn $CFLAGS $cflags -o "$prog-cxx" "$prog.cc" $libs
		ok $? "a C++ program with $lib builds"
		run timeout 30 "./$prog-cxx"
		ok $? "and runs"
	else
		skip "a C++ program with $lib" "no $CXX"
	fi

	if all_static; then
		run $CC -std=gnu11 $warn $CFLAGS $cflags -static \
		    -o "$prog-static" "$prog.c" $libs
		ok $? "a static program with $lib builds"
		run timeout 30 "./$prog-static"
		ok $? "and runs"
	else
		skip "a static program with $lib" "not all libraries are static"
	fi
done

# --- uninstall -----------------------------------------------------------

cd "$top" || exit 1
run $MAKE O="$O" DESTDIR="$root" PREFIX=/usr uninstall
ok $? "make uninstall"
find "$root" ! -type d >"$tmp/out"
empty "no file is left"
find "$root" -type d \( -name libmemtree -o -name libvfudma \) >"$tmp/out"
empty "nor a folder of ours"

done_testing
