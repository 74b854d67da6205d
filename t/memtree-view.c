/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Views: what a tree of regions looks like from a space. */

#include "t/util.h"

/* A topology with a root and a space on it. */
struct world {
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *sp;
};

static struct world
begin(mt_addr size)
{
	struct world w;

	w.t = t_topology();
	w.root = t_container(w.t, "root", size);
	w.sp = t_space(w.root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
}

static void
test_empty(void)
{
	struct world w = begin(0x1000);
	struct mt_section sec;
	struct mt_view *v;

	v = mt_space_view(w.sp);
	ok(v != NULL, "an empty space has a view");
	is_int(mt_view_count(v), 0, "without sections");
	ok(!mt_view_next(v, 0, &sec), "in which there is no next");
	ok(mt_view_get(v) == v, "get returns the view");
	mt_view_put(v);
	mt_view_put(v);
	ok(mt_view_get(NULL) == NULL, "NULL is ignored by get");
	mt_view_put(NULL);
	t_add(w.root, 0x100, 0, t_container(w.t, "c", 0x100));
	is_view(w.sp, "", "an empty container shows nothing");
	end(&w);
}

static void
test_next(void)
{
	struct world w = begin(T_ALL);
	struct mt_region *io, *all;
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_section sec;
	struct mt_view *v;

	io = t_add(w.root, 0x1000, 0, t_io(w.t, "io", 0x100, &dev));
	t_add(w.root, MT_LAST_MAX, 0, t_io(w.t, "top", 1, &dev));
	v = mt_space_view(w.sp);
	is_int(mt_view_count(v), 2, "sections are counted");
	ok(mt_view_next(v, 0, &sec) && sec.region == io &&
	    sec.range.first == 0x1000, "next finds what comes later");
	ok(mt_view_next(v, 0x1000, &sec) && sec.region == io,
	    "and what begins there");
	ok(mt_view_next(v, 0x1080, &sec) && sec.range.first == 0x1000 &&
	    sec.off == 0, "and, whole, what began before");
	ok(mt_view_next(v, 0x10ff, &sec) && sec.region == io,
	    "and what ends there");
	ok(mt_view_next(v, 0x1100, &sec) &&
	    sec.range.first == MT_LAST_MAX && sec.range.last == MT_LAST_MAX,
	    "and what is at the very end");
	ok(mt_view_next(v, MT_LAST_MAX, &sec) &&
	    sec.range.first == MT_LAST_MAX, "from there too");

	all = t_add(w.root, 0, 1, t_io(w.t, "all", T_ALL, &dev));
	is_view(w.sp, "0-ffffffffffffffff all+0", "a region can cover it all");
	is_int(mt_view_count(v), 2, "a view that was taken does not change");
	is_str(t_view_text(v),
	    "1000-10ff io+0, ffffffffffffffff-ffffffffffffffff top+0",
	    "in any way");
	mt_view_put(v);
	must(mt_region_del(all) == 0);
	end(&w);
}

static void
test_overlap(void)
{
	struct world w = begin(0x10000);
	struct mt_region *a, *b, *c;

	a = t_add(w.root, 0x1000, 0, t_ram(w.t, "a", 0x1000));
	b = t_add(w.root, 0x1800, 0, t_ram(w.t, "b", 0x1000));
	is_view(w.sp, "1000-17ff a+0, 1800-27ff b+0",
	    "the latest of equals wins");
	works(mt_region_move(a, 0x1400), "a move");
	is_view(w.sp, "1400-23ff a+0, 2400-27ff b+c00",
	    "puts a region in front of its equals");
	works(mt_region_move(b, 0x1800), "a move to the same place");
	is_view(w.sp, "1400-23ff a+0, 2400-27ff b+c00", "does not");
	works(mt_region_set_enabled(b, false), "off");
	is_view(w.sp, "1400-23ff a+0", "what is disabled is not there");
	works(mt_region_set_enabled(b, true), "and on");
	is_view(w.sp, "1400-23ff a+0, 2400-27ff b+c00",
	    "and comes back in its place");
	c = t_add(w.root, 0x1600, 1, t_ram(w.t, "c", 0x100));
	is_view(w.sp, "1400-15ff a+0, 1600-16ff c+0, 1700-23ff a+300, "
	    "2400-27ff b+c00", "a higher priority cuts a hole");
	must(mt_region_del(c) == 0);
	t_add(w.root, 0x1000, -1, t_ram(w.t, "d", 0x2000));
	is_view(w.sp, "1000-13ff d+0, 1400-23ff a+0, 2400-27ff b+c00, "
	    "2800-2fff d+1800", "a lower one fills what is left");
	works(mt_region_move(b, 0x2000), "and moved");
	is_view(w.sp, "1000-13ff d+0, 1400-1fff a+0, 2000-2fff b+0",
	    "the other is in front");
	end(&w);
}

/* Priorities are compared among siblings only. */
static void
test_priority(void)
{
	struct world w = begin(0x10000);
	struct mt_region *lo, *hi;

	lo = t_add(w.root, 0, 1, t_container(w.t, "lo", 0x1000));
	hi = t_add(w.root, 0, 2, t_container(w.t, "hi", 0x1000));
	t_add(lo, 0, INT32_MAX, t_ram(w.t, "a", 0x1000));
	t_add(hi, 0x800, INT32_MIN, t_ram(w.t, "b", 0x800));
	is_view(w.sp, "0-7ff a+0, 800-fff b+0",
	    "a priority counts among siblings only");
	end(&w);
}

static void
test_subregions(void)
{
	struct world w = begin(0x10000);
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *ram, *io, *c, *res;

	ram = t_add(w.root, 0x1000, 0, t_ram(w.t, "ram", 0x1000));
	io = t_add(ram, 0x800, -5, t_io(w.t, "io", 0x100, &dev));
	is_view(w.sp, "1000-17ff ram+0, 1800-18ff io+0, 1900-1fff ram+900",
	    "subregions win over the region itself");
	t_add(io, 0xf0, 0, t_ram(w.t, "in", 0x1000));
	is_view(w.sp, "1000-17ff ram+0, 1800-18ef io+0, 18f0-18ff in+0, "
	    "1900-1fff ram+900", "and are cut at its end");
	c = t_add(w.root, 0x1400, 1, t_container(w.t, "c", 0x600));
	t_add(c, 0x100, 0, t_ram(w.t, "top", 0x100));
	is_view(w.sp, "1000-14ff ram+0, 1500-15ff top+0, 1600-17ff ram+600, "
	    "1800-18ef io+0, 18f0-18ff in+0, 1900-1fff ram+900",
	    "what is behind shows through the holes of a container");
	res = t_add(w.root, 0x1000, 2, t_reserved(w.t, "res", 0x1000));
	is_view(w.sp, "1000-1fff res+0", "but not through a reserved region");
	t_add(res, 0, 0, t_ram(w.t, "sub", 0x10));
	is_view(w.sp, "1000-100f sub+0, 1010-1fff res+10",
	    "which has subregions like any other");
	works(mt_region_set_enabled(res, false), "a disabled region");
	is_view(w.sp, "1000-14ff ram+0, 1500-15ff top+0, 1600-17ff ram+600, "
	    "1800-18ef io+0, 18f0-18ff in+0, 1900-1fff ram+900",
	    "takes its subregions along");
	end(&w);
}

static void
test_clip(void)
{
	struct world w = begin(0x1000);
	struct mt_region *c, *r, *far;

	c = t_add(w.root, 0x800, 0, t_container(w.t, "c", 0x100));
	r = t_add(c, 0x80, 0, t_ram(w.t, "r", 0x1000));
	is_view(w.sp, "880-8ff r+0", "a child is cut at the end of its parent");
	works(mt_region_resize(c, 0xffff), "of any parent");
	is_view(w.sp, "880-fff r+0", "up to the root");
	works(mt_region_resize(w.root, 0x88f), "which can shrink");
	is_view(w.sp, "880-88f r+0", "too");
	works(mt_region_resize(w.root, 0x87f), "beyond");
	is_view(w.sp, "", "until nothing is left");
	works(mt_region_move(c, 0), "and when it moves down");
	is_view(w.sp, "80-87f r+0", "it is there");
	works(mt_region_resize(r, 0), "resized to a byte");
	is_view(w.sp, "80-80 r+0", "it is a byte");
	works(mt_region_move(r, 0x1000), "past the end");
	is_view(w.sp, "", "it is nowhere");

	works(mt_region_resize(w.root, MT_LAST_MAX), "a root of 2^64 bytes");
	works(mt_region_move(c, 0xfffffffffffff000), "up there");
	works(mt_region_resize(c, MT_LAST_MAX), "and longer than fits");
	works(mt_region_move(r, 0xff0), "with something in it");
	works(mt_region_resize(r, 0xfff), "that does not fit");
	is_view(w.sp, "fffffffffffffff0-ffffffffffffffff r+0",
	    "is cut at 2^64");
	works(mt_region_move(r, 0x1000), "what starts past 2^64");
	is_view(w.sp, "", "is not there");
	works(mt_region_move(r, MT_LAST_MAX), "even far past it");
	is_view(w.sp, "", "nor wraps round");
	far = t_add(c, 0, 0, t_container(w.t, "far", T_ALL));
	t_add(far, 0x2000, 0, t_ram(w.t, "s", 0x1000));
	t_add(far, 0xff8, 0, t_ram(w.t, "u", 0x1000));
	is_view(w.sp, "fffffffffffffff8-ffffffffffffffff u+0",
	    "at any depth");
	end(&w);
}

static void
test_alias(void)
{
	struct world w = begin(T_ALL);
	struct mt_region *ram, *a, *b, *aa;

	ram = t_ram(w.t, "ram", 0x1000);
	a = t_add(w.root, 0x2000, 0, t_alias(w.t, "a", ram, 0x400, 0x200));
	is_view(w.sp, "2000-21ff ram+400", "an alias is a window");
	works(mt_region_set_alias_offset(a, 0xf00), "which can move");
	is_view(w.sp, "2000-20ff ram+f00",
	    "and shows a hole past the end of the target");
	works(mt_region_set_alias_offset(a, 0x1000), "up to its end");
	is_view(w.sp, "", "nothing else");
	works(mt_region_set_alias_offset(a, MT_LAST_MAX), "or far out");
	is_view(w.sp, "", "nor does it wrap round");
	works(mt_region_set_alias_offset(a, 0x400), "back");
	b = t_add(w.root, 0x2200, 0, t_alias(w.t, "b", ram, 0, 0x5000));
	is_view(w.sp, "2000-21ff ram+400, 2200-31ff ram+0",
	    "two aliases show one target");
	works(mt_region_set_alias_offset(b, 0x600), "where they continue");
	is_view(w.sp, "2000-2bff ram+400", "they are merged");
	works(mt_region_set_readonly(b, true), "but not");
	is_view(w.sp, "2000-21ff ram+400, 2200-2bff ram+600 r",
	    "if their flags differ");
	aa = t_add(w.root, 0, 0, t_alias(w.t, "aa", a, 0x100, 0x1000));
	is_view(w.sp, "0-ff ram+500, 2000-21ff ram+400, 2200-2bff ram+600 r",
	    "an alias of an alias is cut by both");
	works(mt_region_set_enabled(a, false), "a disabled alias");
	is_view(w.sp, "2200-2bff ram+600 r", "shows nothing through another");
	works(mt_region_set_enabled(a, true), "and on");
	works(mt_region_set_enabled(ram, false), "a disabled target");
	is_view(w.sp, "", "shows nothing through any");
	works(mt_region_set_enabled(ram, true), "and on");
	works(mt_region_resize(ram, 0x47f), "a target that shrinks");
	is_view(w.sp, "2000-207f ram+400", "shows less through each");
	must(mt_region_del(aa) == 0);
	mt_region_put(ram);
	end(&w);
}

/* A window whose target begins below address 0. */
static void
test_alias_negative(void)
{
	struct world w = begin(T_ALL);
	struct mt_region *c, *a, *deep;

	c = t_container(w.t, "c", T_ALL);
	t_add(c, 0x0, 0, t_ram(w.t, "lo", 0x1000));
	t_add(c, 0x8000, 0, t_ram(w.t, "hi", 0x1000));
	t_add(c, 0xfffffffffffff000, 0, t_ram(w.t, "end", 0x1000));
	a = t_add(w.root, 0x100, 0, t_alias(w.t, "a", c, 0x8800, 0x2000));
	is_view(w.sp, "100-8ff hi+800",
	    "a window may begin far inside its target");
	works(mt_region_move(a, 0), "even at 0");
	is_view(w.sp, "0-7ff hi+800", "or there");
	works(mt_region_set_alias_offset(a, 0xfffffffffffff800), "to the end");
	is_view(w.sp, "0-7ff end+800", "which it shows at the beginning");
	works(mt_region_set_alias_offset(a, 0x800), "or the beginning");
	works(mt_region_resize(a, MT_LAST_MAX), "and is as large as can be");
	is_view(w.sp, "0-7ff lo+800, 7800-87ff hi+0, "
	    "ffffffffffffe800-fffffffffffff7ff end+0",
	    "and ends where the target does");
	deep = t_alias(w.t, "deep", a, 0x7800, T_ALL);
	must(mt_region_add(w.root, deep, 0x10, 1) == 0);
	is_view(w.sp, "0-f lo+800, 10-100f hi+0, 7800-87ff hi+0, "
	    "ffffffffffff7010-ffffffffffff800f end+0, "
	    "ffffffffffffe800-fffffffffffff7ff end+0",
	    "two windows add up");
	mt_region_put(deep);
	mt_region_put(c);
	end(&w);
}

/* The address of a target in its own parent does not matter. */
static void
test_alias_inside(void)
{
	struct world w = begin(0x10000);
	struct mt_region *ram, *sys, *a;
	struct mt_space *other;

	sys = t_add(w.root, 0, 0, t_container(w.t, "sys", 0x8000));
	ram = t_add(sys, 0x4000, 0, t_ram(w.t, "ram", 0x1000));
	t_add(w.root, 0xa000, 0, t_alias(w.t, "a", ram, 0x800, 0x1000));
	is_view(w.sp, "4000-4fff ram+0, a000-a7ff ram+800",
	    "a target may be part of the tree itself");
	works(mt_region_move(ram, 0x5000), "where it moves");
	is_view(w.sp, "5000-5fff ram+0, a000-a7ff ram+800",
	    "the alias stays as it is");
	other = t_space(ram);
	is_view(other, "0-fff ram+0",
	    "a space sees its root from 0, wherever that is");
	must(mt_space_destroy(other) == 0);
	a = t_alias(w.t, "whole", ram, 0, 0x1000);
	other = t_space(a);
	is_view(other, "0-fff ram+0", "through an alias too");
	must(mt_space_destroy(other) == 0);
	mt_region_put(a);
	works(mt_region_set_enabled(sys, false), "a disabled container");
	is_view(w.sp, "a000-a7ff ram+800",
	    "does not disable the target of an alias in it");
	end(&w);
}

static void
test_flags(void)
{
	struct world w = begin(0x10000);
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *ram, *romd, *io, *c, *nv, *a;

	c = t_add(w.root, 0x1000, 0, t_container(w.t, "c", 0x8000));
	ram = t_add(c, 0, 0, t_ram(w.t, "ram", 0x1000));
	t_add(c, 0x1000, 0, t_rom(w.t, "rom", 0x1000));
	romd = t_add(c, 0x2000, 0, t_romd(w.t, "romd", 0x1000, &dev));
	io = t_add(c, 0x3000, 0, t_io(w.t, "io", 0x1000, &dev));
	is_view(w.sp, "1000-1fff ram+0, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0 d, 4000-4fff io+0",
	    "ROM is read-only, a ROM device is in ROM mode");
	works(mt_region_set_rom_mode(romd, false), "and out of it");
	works(mt_region_set_nonvolatile(ram, true), "RAM can be non-volatile");
	is_view(w.sp, "1000-1fff ram+0 n, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0, 4000-4fff io+0", "as the flags tell");
	works(mt_region_set_readonly(ram, true), "and read-only");
	is_view(w.sp, "1000-1fff ram+0 rn, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0, 4000-4fff io+0", "at the same time");
	works(mt_region_set_readonly(ram, false), "and not");
	works(mt_region_set_readonly(c, true), "a read-only container");
	works(mt_region_set_rom_mode(romd, true), "with a ROM device");
	is_view(w.sp, "1000-1fff ram+0 rn, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0 rd, 4000-4fff io+0 r",
	    "makes all in it read-only");
	works(mt_region_set_readonly(c, false), "and not");
	nv = t_add(w.root, 0xa000, 0, t_alias(w.t, "nv", io, 0, 0x1000));
	works(mt_region_set_nonvolatile(nv, true), "an alias");
	works(mt_region_set_readonly(nv, true), "too");
	is_view(w.sp, "1000-1fff ram+0 n, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0 d, 4000-4fff io+0, a000-afff io+0 rn",
	    "marks what is seen through it, and nothing else");
	a = t_add(w.root, 0xb000, 0, t_alias(w.t, "a", nv, 0, 0x1000));
	is_view(w.sp, "1000-1fff ram+0 n, 2000-2fff rom+0 r, "
	    "3000-3fff romd+0 d, 4000-4fff io+0, a000-afff io+0 rn, "
	    "b000-bfff io+0 rn", "and marks add up");
	works(mt_region_set_readonly(a, true), "any number of times");
	end(&w);
}

static void
test_merge(void)
{
	struct world w = begin(0x10000);
	struct mt_region *ram, *hole, *x, *y;

	ram = t_add(w.root, 0, 0, t_ram(w.t, "ram", 0x4000));
	hole = t_add(w.root, 0x1000, 1, t_container(w.t, "hole", 0x1000));
	x = t_add(hole, 0x400, 0, t_alias(w.t, "x", ram, 0x1400, 0x100));
	is_view(w.sp, "0-3fff ram+0",
	    "what looks like its neighbours is not told apart");
	works(mt_region_set_alias_offset(x, 0x1401), "a byte off");
	is_view(w.sp, "0-13ff ram+0, 1400-14ff ram+1401, 1500-3fff ram+1500",
	    "it is");
	works(mt_region_del(x), "and without it");
	is_view(w.sp, "0-3fff ram+0", "the pieces are one again");
	y = t_add(w.root, 0x4000, 0, t_ram(w.t, "y", 0x1000));
	is_view(w.sp, "0-3fff ram+0, 4000-4fff y+0",
	    "two regions stay two sections");
	must(mt_region_del(y) == 0);
	end(&w);
}

static void
test_roots(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *c, *ram, *io, *a;
	struct mt_view *v[2];
	struct mt_space *sp, *sp2, *sp3;

	ram = t_ram(t, "ram", 0x1000);
	sp = t_space(ram);
	is_view(sp, "0-fff ram+0", "RAM can be a root");
	works(mt_region_set_enabled(ram, false), "which can be disabled");
	is_view(sp, "", "and shows nothing then");
	works(mt_region_set_enabled(ram, true), "or not");
	is_view(sp, "0-fff ram+0", "and shows itself again");

	io = t_io(t, "io", T_ALL, &dev);
	sp2 = t_space(io);
	is_view(sp2, "0-ffffffffffffffff io+0", "I/O can be a root");

	a = t_alias(t, "a", ram, 0x800, 0x1000);
	sp3 = t_space(a);
	is_view(sp3, "0-7ff ram+800", "an alias can be a root");
	must(mt_space_destroy(sp3) == 0);

	c = t_container(t, "c", 0x10000);
	must(mt_region_add(c, ram, 0x3000, 0) == 0);
	is_view(sp, "0-fff ram+0", "a root can become part of a tree");
	sp3 = t_space(c);
	is_view(sp3, "3000-3fff ram+0", "which another space shows");
	works(mt_region_add(ram, io, 0x800, 0), "what it gets");
	is_view(sp, "0-7ff ram+0, 800-fff io+0", "is seen in both");
	is_view(sp3, "3000-37ff ram+0, 3800-3fff io+0", "at its place");
	works(mt_region_set_readonly(c, true), "what its parent is");
	is_view(sp, "0-7ff ram+0, 800-fff io+0", "only in that");

	must(mt_space_destroy(sp2) == 0);
	sp2 = t_space(c);
	v[0] = mt_space_view(sp3);
	v[1] = mt_space_view(sp2);
	ok(v[0] == v[1], "spaces on one root share their view");
	mt_view_put(v[0]);
	mt_view_put(v[1]);
	works(mt_region_del(io), "after a change");
	v[0] = mt_space_view(sp3);
	v[1] = mt_space_view(sp2);
	ok(v[0] == v[1], "they do as well");
	is_str(t_view_text(v[0]), "3000-3fff ram+0 r", "and it is right");
	mt_view_put(v[0]);
	mt_view_put(v[1]);

	must(mt_space_destroy(sp) == 0 && mt_space_destroy(sp2) == 0 &&
	    mt_space_destroy(sp3) == 0);
	mt_region_put(a);
	mt_region_put(c);
	mt_region_put(io);
	mt_region_put(ram);
	t_end(t);
}

/* More sections than fit into 12 bits, by bytes and pages, up and down. */
static void
test_many(void)
{
	enum { N = 6000 };
	struct world w = begin(T_ALL);
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	static struct mt_region *r[N];
	struct mt_section sec;
	struct mt_view *v;
	bool good = true;
	mt_addr at = 0;
	int i, j;

	must(mt_topology_begin(w.t) == 0);
	for (i = 0; i < N; i++) {
		j = i * 7919 % N;	/* in no order */
		r[j] = t_add(w.root, (mt_addr)j * 0x1001, 0,
		    t_io(w.t, "io", 0x1000, &dev));
	}
	works(mt_topology_commit(w.t), "thousands of regions are added");
	v = mt_space_view(w.sp);
	is_int(mt_view_count(v), N, "and counted");
	for (i = 0; i < N; i++) {
		if (!mt_view_next(v, at, &sec) || sec.region != r[i] ||
		    sec.range.first != (mt_addr)i * 0x1001 || sec.off != 0)
			good = false;
		at = sec.range.last + 1;
	}
	ok(good && !mt_view_next(v, at, &sec), "and found in their order");
	mt_view_put(v);
	end(&w);
}

int
main(void)
{
	test_empty();
	test_next();
	test_overlap();
	test_priority();
	test_subregions();
	test_clip();
	test_alias();
	test_alias_negative();
	test_alias_inside();
	test_flags();
	test_merge();
	test_roots();
	test_many();
	return (done());
}
