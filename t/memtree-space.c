/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Spaces: making and destroying them, finding sections, what is valid, and
 * accesses that cross what they meet.
 */

#include "t/util.h"

static void
test_create(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *ram;
	struct mt_view *a, *b;
	struct mt_space *sp, *sp2;
	char name[] = "bus";

	root = t_container(t, "root", 0x10000);
	must((sp = mt_space_create(root, name)) != NULL);
	name[0] = 'x';
	is_str(mt_space_name(sp), "bus", "the name is copied");
	ok(mt_space_root(sp) == root, "a space knows its root");
	ok(mt_space_topology(sp) == t, "and its topology");

	must(mt_topology_begin(t) == 0);
	ram = t_add(root, 0, 0, t_ram(t, "ram", 0x1000));
	sp2 = t_space(ram);
	is_view(sp2, "", "a space made in a transaction is empty");
	is_read(sp2, 0, 2, "0000 with 2", "and reads as nothing");
	must(mt_topology_commit(t) == 0);
	is_view(sp2, "0-fff ram+0", "until the commit");
	is_view(sp, "0-fff ram+0", "like the others");
	must(mt_space_destroy(sp2) == 0);

	must(mt_topology_begin(t) == 0);
	sp2 = t_space(root);
	must(mt_topology_commit(t) == 0);
	is_view(sp2, "0-fff ram+0", "one on a root that has a space as well");
	a = mt_space_view(sp);
	b = mt_space_view(sp2);
	ok(a == b, "spaces on one root share their view");
	mt_view_put(b);
	works(mt_space_destroy(sp), "one of two spaces goes");
	is_str(t_view_text(a), "0-fff ram+0", "a view that was taken stays");
	mt_view_put(a);
	is_read(sp2, 0, 2, "0000", "as does the other space");
	works(mt_region_set_enabled(ram, false), "which");
	is_view(sp2, "", "goes on");
	must(mt_space_destroy(sp2) == 0);

	sp = t_space(root);
	is_view(sp, "", "a space can be made anew");
	works(mt_region_set_enabled(ram, true), "and is");
	is_view(sp, "0-fff ram+0", "alive");
	t_end_space(t, sp, root);
}

static void
called(void *arg)
{
	++*(int *)arg;
}

static void
test_destroy(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_listener l = { .prio = 0 };
	struct mt_waiter waiter = MT_WAITER_INIT;
	struct mt_mapping map, direct;
	struct mt_region *root;
	struct mt_space *sp;
	int calls = 0;

	root = t_container(t, "root", 0x10000);
	t_add(root, 0, 0, t_ram(t, "ram", 0x1000));
	t_add(root, 0x1000, 0, t_io(t, "io", 0x1000, &dev));
	sp = t_space(root);
	must(mt_listener_register(sp, &l) == 0);
	fails(mt_space_destroy(sp), EBUSY, "a listener keeps a space");
	must(mt_listener_unregister(&l) == 0);
	must(mt_dma_map(sp, 0x1000, 4, MT_DMA_WRITE, MT_ATTRS_NONE, &map) ==
	    0);
	fails(mt_space_destroy(sp), EBUSY, "as does a bounced mapping");
	is_read(sp, 0x1000, 4, "00010203", "and it still works");
	must(mt_dma_unmap(&map, 0) == 0);
	mt_dma_set_bounce_limit(sp, 0);
	must(mt_dma_wait(sp, &waiter, 1, called, &calls) == 0);
	fails(mt_space_destroy(sp), EBUSY, "and a waiter");
	must(mt_dma_cancel(&waiter));
	must(mt_topology_begin(t) == 0);
	fails(mt_space_destroy(sp), EBUSY, "and a transaction");
	must(mt_topology_commit(t) == 0);
	must(mt_dma_map(sp, 0, 4, MT_DMA_WRITE, MT_ATTRS_NONE, &direct) == 0);
	works(mt_space_destroy(sp), "but not a direct mapping");
	memcpy(direct.ptr, "abcd", 4);
	works(mt_dma_unmap(&direct, 4), "which outlives it");
	is_int(calls, 0, "a waiter that was cancelled is not called");
	mt_region_put(root);
	t_end(t);
}

static const char *
found(struct mt_space *sp, mt_addr first, mt_addr last)
{
	struct mt_section sec;
	char *s = t_text();

	errno = 0;
	if (mt_space_find(sp, (struct mt_range){ first, last }, &sec) == -1) {
		t_append(s, "%s", errno == ENOENT ? "nothing" :
		    strerror(errno));
		return (s);
	}
	t_append_section(s, &sec);
	mt_region_put(sec.region);
	return (s);
}
#define is_found(sp, first, last, want, ...) \
	is_str(found(sp, first, last), want, __VA_ARGS__)

static void
test_find(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *root, *io;
	struct mt_section sec;
	struct mt_space *sp;
	int owner = 0;

	root = t_container(t, "root", T_ALL);
	io = t_io(t, "io", 0x1000, &dev);
	must(mt_region_set_owner(io, &owner, t_put) == 0);
	t_add(root, 0x1000, 0, io);
	t_add(root, 0x3000, 0, t_rom(t, "rom", 0x1000));
	t_add(root, MT_LAST_MAX, 0, t_io(t, "top", 1, &dev));
	sp = t_space(root);
	is_found(sp, 0, 0xfff, "nothing", "nothing is found in a hole");
	is_found(sp, 0, 0x1000, "1000-1000 io+0", "what is found is cut");
	is_found(sp, 0x1800, 0x18ff, "1800-18ff io+800",
	    "to the range, with its offset");
	is_found(sp, 0x1fff, 0x3fff, "1fff-1fff io+fff", "at either end");
	is_found(sp, 0x2000, 0x3800, "3000-3800 rom+0 r",
	    "the first thing is found, with its flags");
	is_found(sp, 0x4000, 0xffff, "nothing", "or nothing behind it");
	is_found(sp, 0x4000, MT_LAST_MAX,
	    "ffffffffffffffff-ffffffffffffffff top+0",
	    "to the end of all addresses");
	is_found(sp, 0, MT_LAST_MAX, "1000-1fff io+0", "and from the first");
	fails(mt_space_find(sp, (struct mt_range){ 2, 1 }, &sec), EINVAL,
	    "a range that ends before it begins is refused");
	must(mt_space_find(sp, (struct mt_range){ 0, 0x1000 }, &sec) == 0);
	must(mt_region_del(io) == 0);
	is_int(t_puts_of(t, &owner), 0, "what was found is kept");
	is_found(sp, 0, 0x2fff, "nothing", "but not found again");
	mt_region_put(sec.region);
	is_int(t_puts_of(t, &owner), 1, "until it is put");
	t_end_space(t, sp, root);
}

static void
test_valid(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE, .valid = { 4, 4, false });
	static const struct mt_io_ops deaf = { .read = t_dev_read };
	struct mt_region *root, *romd, *alias, *r;
	struct mt_space *sp;
	unsigned int i;
	static const struct {
		mt_addr addr;
		size_t len;
		bool is_write, valid;
		const char *what;
	} tries[] = {
		{ 0x0000, 4, false, false, "a hole is not valid" },
		{ 0x0000, 0, true, true, "nothing is valid" },
		{ 0x1000, 4, false, true, "RAM is" },
		{ 0x1000, 0x1000, true, true, "all of it" },
		{ 0x0fff, 2, false, false, "a hole before it is not" },
		{ 0x2000, 4, false, true, "ROM is readable" },
		{ 0x2000, 4, true, false, "not writable" },
		{ 0x1ffe, 4, true, false, "in no part" },
		{ 0x1ffe, 4, false, true, "across two regions" },
		{ 0x3000, 4, false, true, "a device, as it accepts" },
		{ 0x3000, 2, false, false, "not if it does not" },
		{ 0x3000, 16, true, true, "in several steps" },
		{ 0x3000, 18, true, false, "each of which counts" },
		{ 0x3002, 4, false, false, "as does their offset" },
		{ 0x2ffc, 12, false, true, "behind memory" },
		{ 0x4000, 1, false, true, "a ROM device in ROM mode" },
		{ 0x4000, 1, true, false, "which is asked for writes" },
		{ 0x4000, 4, true, true, "that it accepts or not" },
		{ 0x5000, 4, true, false, "a read-only window" },
		{ 0x5000, 4, false, true, "is readable" },
		{ 0x6000, 4, true, false, "what has no write" },
		{ 0x6000, 4, false, true, "has a read" },
		{ 0x7000, 1, false, false, "what is reserved is not valid" },
	};

	root = t_container(t, "root", 0x10000);
	r = t_add(root, 0x1000, 0, t_ram(t, "ram", 0x1000));
	t_add(root, 0x2000, 0, t_rom(t, "rom", 0x1000));
	t_add(root, 0x3000, 0, t_io(t, "io", 0x1000, &dev));
	romd = t_add(root, 0x4000, 0, t_romd(t, "romd", 0x1000, &dev));
	alias = t_add(root, 0x5000, 0, t_alias(t, "alias", r, 0, 0x1000));
	must(mt_region_set_readonly(alias, true) == 0);
	must((r = mt_region_create_io(t, "deaf", 7, &deaf, &dev)) != NULL);
	t_add(root, 0x6000, 0, r);
	t_add(root, 0x7000, 0, t_reserved(t, "reserved", 0x1000));
	sp = t_space(root);
	for (i = 0; i < T_COUNT(tries); i++)
		is_int(mt_space_valid(sp, tries[i].addr, tries[i].len,
		    tries[i].is_write, MT_ATTRS_NONE), tries[i].valid, "%s",
		    tries[i].what);
	must(mt_region_set_rom_mode(romd, false) == 0);
	ok(!mt_space_valid(sp, 0x4000, 1, false, MT_ATTRS_NONE),
	    "a ROM device out of ROM mode is asked for reads");
	is_calls(&dev, "", "and none of them was called");
	t_end_space(t, sp, root);
}

/* Long accesses cross what they meet, in order. */
static void
test_cross(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *root;
	struct mt_space *sp;
	uint8_t buf[0x3000], want[0x3000];
	size_t i;

	root = t_container(t, "root", 0x10000);
	for (i = 0; i < 0x20; i++)
		if (i % 4 != 3)
			memset(mt_region_ptr(t_add(root, i * 0x100, 0,
			    t_ram(t, "ram", 0x100))), (int)i, 0x100);
	t_add(root, 0x2000, 0, t_io(t, "io", 0x100, &dev));
	sp = t_space(root);
	memset(buf, 0x55, sizeof(buf));
	is_int(mt_space_read(sp, 0, buf, sizeof(buf), MT_ATTRS_NONE),
	    MT_DECODE, "a read crosses regions and holes");
	memset(want, 0, sizeof(want));
	for (i = 0; i < 0x2000; i++)
		if (i / 0x100 % 4 != 3)
			want[i] = (uint8_t)(i / 0x100);
	for (i = 0; i < 0x100; i++)
		want[0x2000 + i] = (uint8_t)i;
	is_mem(buf, want, sizeof(want), "and each byte is right");
	is_int(dev.ncalls, 64, "a device is called as often as it takes");
	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i * 7);
	is_int(mt_space_write(sp, 0, buf, 0x2000, MT_ATTRS_NONE), MT_DECODE,
	    "a write does as well");
	memset(want, 0x55, sizeof(want));
	mt_space_read(sp, 0, want, 0x2000, MT_ATTRS_NONE);
	for (i = 0; i < 0x2000; i++)
		if (i / 0x100 % 4 == 3)
			buf[i] = 0;
	is_mem(want, buf, 0x2000, "and each byte is read back");
	t_end_space(t, sp, root);
}

int
main(void)
{
	test_create();
	test_destroy();
	test_find();
	test_valid();
	test_cross();
	return (done());
}
