/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Regions: making, placing, changing, keeping and letting go of them. */

#include "t/util.h"

static void
test_create(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	char name[] = "first";
	struct mt_region *r, *a, *io;

	r = t_container(t, name, 0x1000);
	name[0] = 'x';
	is_str(mt_region_name(r), "first", "the name is copied");
	is_int(mt_region_kind(r), MT_CONTAINER, "a container is one");
	is_hex(mt_region_last(r), 0xfff, "last is the last offset");
	ok(mt_region_enabled(r), "a new region is enabled");
	ok(!mt_region_readonly(r), "a new region is writable");
	ok(mt_region_parent(r) == NULL, "a new region has no parent");
	ok(mt_region_target(r) == NULL, "a container has no target");
	ok(mt_region_ptr(r) == NULL, "a container has no memory");
	ok(mt_region_arg(r) == NULL, "a container has no arg");
	ok(mt_region_topology(r) == t, "a region knows its topology");
	is_hex(mt_region_addr(r), 0, "a new region has address 0");
	is_int(mt_region_prio(r), 0, "a new region has priority 0");

	a = t_alias(t, "a", r, 0x123, T_ALL);
	is_int(mt_region_kind(a), MT_ALIAS, "an alias is one");
	ok(mt_region_target(a) == r, "an alias knows its target");
	is_hex(mt_region_alias_offset(a), 0x123, "an alias knows its offset");
	is_hex(mt_region_last(a), MT_LAST_MAX, "a region can have 2^64 bytes");
	mt_region_put(a);

	io = t_io(t, "io", 1, &dev);
	is_int(mt_region_kind(io), MT_IO, "an I/O region is one");
	ok(mt_region_arg(io) == &dev, "an I/O region knows its arg");
	is_hex(mt_region_last(io), 0, "a region can have one byte");
	mt_region_put(io);

	io = t_romd(t, "romd", 0x1000, &dev);
	is_int(mt_region_kind(io), MT_ROM_DEVICE, "a ROM device is one");
	ok(mt_region_arg(io) == &dev, "a ROM device knows its arg");
	ok(mt_region_rom_mode(io), "a ROM device starts in ROM mode");
	ok(mt_region_ptr(io) != NULL, "a ROM device has memory");
	mt_region_put(io);

	io = t_reserved(t, "reserved", 0x1000);
	is_int(mt_region_kind(io), MT_RESERVED, "a reserved region is one");
	mt_region_put(io);
	mt_region_put(r);
	t_end(t);
}

static void
test_widths(void)
{
	static const struct {
		struct mt_width valid, impl;
		int error;
	} tries[] = {
		{ { 0, 0, 0 }, { 0, 0, 0 }, 0 },
		{ { 1, 8, 0 }, { 1, 8, 0 }, 0 },
		{ { 8, 8, 1 }, { 8, 8, 1 }, 0 },
		{ { 4, 0, 0 }, { 2, 0, 0 }, 0 },
		{ { 0, 2, 0 }, { 0, 1, 0 }, 0 },
		{ { 4, 2, 0 }, { 0, 0, 0 }, EINVAL },
		{ { 0, 0, 0 }, { 8, 1, 0 }, EINVAL },
		{ { 3, 4, 0 }, { 0, 0, 0 }, EINVAL },
		{ { 1, 3, 0 }, { 0, 0, 0 }, EINVAL },
		{ { 0, 0, 0 }, { 5, 8, 0 }, EINVAL },
		{ { 0, 0, 0 }, { 0, 6, 0 }, EINVAL },
		{ { 0, 16, 0 }, { 0, 0, 0 }, EINVAL },
		{ { 0, 0, 0 }, { 0, 16, 0 }, EINVAL },
		{ { 16, 0, 0 }, { 0, 0, 0 }, EINVAL },
		{ { 0, 0, 0 }, { 255, 255, 0 }, EINVAL },
	};
	struct mt_topology *t = t_topology();
	struct mt_region *r[2];
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	size_t i, j;
	int error[2];

	for (i = 0; i < T_COUNT(tries); i++) {
		dev.ops.valid = tries[i].valid;
		dev.ops.impl = tries[i].impl;
		errno = 0;
		r[0] = mt_region_create_io(t, "io", 7, &dev.ops, &dev);
		error[0] = r[0] == NULL ? errno : 0;
		errno = 0;
		r[1] = mt_region_create_rom_device(t, "romd", 7, NULL,
		    &dev.ops, &dev);
		error[1] = r[1] == NULL ? errno : 0;
		for (j = 0; j < 2; j++) {
			is_int(error[j], tries[i].error,
			    "valid %u,%u impl %u,%u %s for %s",
			    tries[i].valid.min, tries[i].valid.max,
			    tries[i].impl.min, tries[i].impl.max,
			    tries[i].error == 0 ? "make sense" : "are refused",
			    j == 0 ? "I/O" : "a ROM device");
			mt_region_put(r[j]);
		}
	}
	t_end(t);
}

static void
test_add(void)
{
	struct mt_topology *t = t_topology(), *t2 = t_topology();
	struct mt_region *root, *mid, *leaf, *alias, *alias2, *other, *alien;

	root = t_container(t, "root", 0x10000);
	mid = t_container(t, "mid", 0x1000);
	leaf = t_container(t, "leaf", 0x100);
	other = t_container(t, "other", 0x100);
	alias = t_alias(t, "alias", root, 0, 0x100);
	alias2 = t_alias(t, "alias2", alias, 0, 0x100);
	alien = t_container(t2, "alien", 0x100);

	works(mt_region_add(root, mid, 0x2000, -7), "a region is added");
	ok(mt_region_parent(mid) == root, "it knows its parent");
	is_hex(mt_region_addr(mid), 0x2000, "it knows its address");
	is_int(mt_region_prio(mid), -7, "it knows its priority");
	works(mt_region_add(mid, leaf, 0, INT32_MAX), "and one below it");
	is_int(mt_region_prio(leaf), INT32_MAX, "priorities may be large");

	fails(mt_region_add(root, leaf, 0, 0), EBUSY,
	    "a region has one parent");
	ok(mt_region_parent(leaf) == mid, "which stays its parent");
	is_hex(mt_region_addr(mid), 0x2000, "and its address stays");
	fails(mt_region_add(mid, leaf, 0, 0), EBUSY,
	    "even if it is the same one");
	fails(mt_region_add(root, root, 0, 0), ELOOP,
	    "a region is not added to itself");
	fails(mt_region_add(leaf, root, 0, 0), ELOOP,
	    "a region is not added to what it contains");
	ok(mt_region_parent(root) == NULL, "and stays without a parent");
	fails(mt_region_add(leaf, alias, 0, 0), ELOOP,
	    "an alias is not added to what it shows");
	fails(mt_region_add(root, alias, 0, 0), ELOOP,
	    "an alias is not added to its target");
	fails(mt_region_add(mid, alias2, 0, 0), ELOOP,
	    "an alias of an alias is not added to what it shows");
	works(mt_region_add(other, alias2, 0, 0), "but elsewhere it is");
	fails(mt_region_add(root, other, 0, 0), ELOOP,
	    "what contains an alias is not added to what that shows");
	works(mt_region_del(alias2), "and without the alias");
	works(mt_region_add(root, other, 0, 0), "it is");
	fails(mt_region_add(other, alias2, 0, 0), ELOOP,
	    "nor is the alias then added there");
	fails(mt_region_add(root, alien, 0, 0), EXDEV,
	    "a region of another topology is not added");
	fails(mt_region_add(alien, alias, 0, 0), EXDEV,
	    "nor is one added to it");
	fails_null(mt_region_create_alias(t, "x", alien, 0, 1), EXDEV,
	    "nor is there an alias of it");

	works(mt_region_del(leaf), "a region is deleted");
	ok(mt_region_parent(leaf) == NULL, "it has no parent then");
	fails(mt_region_del(leaf), ENOENT, "it is not deleted again");
	works(mt_region_add(root, leaf, 0, 0), "it is added again");
	fails(mt_region_add(leaf, mid, 0, 0), EBUSY,
	    "a region is not taken from its parent");

	mt_region_put(alias);
	mt_region_put(alias2);
	mt_region_put(alien);
	works(mt_region_del(other), "clean up");
	mt_region_put(other);
	works(mt_region_del(leaf), "clean up");
	mt_region_put(leaf);
	mt_region_put(mid);
	mt_region_put(root);
	t_end(t);
	t_end(t2);
}

static void
test_change(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *root, *c, *ram, *rom, *io, *romd, *alias, *res;

	root = t_container(t, "root", 0x10000);
	c = t_container(t, "c", 0x1000);
	ram = t_ram(t, "ram", 0x2000);
	rom = t_rom(t, "rom", 0x2000);
	io = t_io(t, "io", 0x1000, &dev);
	romd = t_romd(t, "romd", 0x1000, &dev);
	alias = t_alias(t, "alias", ram, 0, 0x1000);
	res = t_reserved(t, "res", 0x1000);

	fails(mt_region_move(c, 1), ENOENT, "an orphan is not moved");
	works(mt_region_add(root, c, 0, 0), "with a parent");
	works(mt_region_move(c, 0x8000), "it is");
	is_hex(mt_region_addr(c), 0x8000, "and is there then");
	works(mt_region_move(c, MT_LAST_MAX), "even far out");

	works(mt_region_resize(c, MT_LAST_MAX), "a container grows at will");
	is_hex(mt_region_last(c), MT_LAST_MAX, "and is that large then");
	works(mt_region_resize(alias, 0xfffff), "an alias grows at will");
	works(mt_region_resize(io, 0xfffff), "an I/O region grows at will");
	works(mt_region_resize(res, 0xfffff), "as does a reserved one");
	works(mt_region_resize(ram, 0), "RAM shrinks");
	is_hex(mt_region_last(ram), 0, "and is that small then");
	works(mt_region_resize(ram, 0x1fff), "RAM grows back");
	fails(mt_region_resize(ram, 0x2000), EINVAL,
	    "but not past its size at creation");
	is_hex(mt_region_last(ram), 0x1fff, "and stays as it was");
	fails(mt_region_resize(rom, 0x2000), EINVAL, "nor does ROM");
	fails(mt_region_resize(romd, 0x1000), EINVAL, "nor a ROM device");
	works(mt_region_resize(romd, 0x7ff), "which shrinks too");

	works(mt_region_set_enabled(c, false), "a region is disabled");
	ok(!mt_region_enabled(c), "and is then");
	works(mt_region_set_enabled(c, true), "and enabled");
	ok(mt_region_enabled(c), "and is then");
	works(mt_region_set_readonly(c, true), "made read-only");
	ok(mt_region_readonly(c), "and is then");
	ok(mt_region_readonly(rom), "ROM is");
	fails(mt_region_set_readonly(rom, false), EINVAL,
	    "and cannot be made anything else");
	works(mt_region_set_nonvolatile(c, true), "made non-volatile");
	ok(mt_region_nonvolatile(c) && !mt_region_nonvolatile(ram),
	    "and is then, alone");
	works(mt_region_set_rom_mode(romd, false), "a ROM device is switched");
	ok(!mt_region_rom_mode(romd), "and is then");
	fails(mt_region_set_rom_mode(rom, false), EINVAL,
	    "ROM has no ROM mode");
	fails(mt_region_set_rom_mode(ram, true), EINVAL, "nor has RAM");
	fails(mt_region_set_rom_mode(io, true), EINVAL, "nor has I/O");
	fails(mt_region_set_rom_mode(alias, true), EINVAL, "nor an alias");
	works(mt_region_set_alias_offset(alias, MT_LAST_MAX),
	    "an alias looks elsewhere");
	is_hex(mt_region_alias_offset(alias), MT_LAST_MAX, "and does then");
	fails(mt_region_set_alias_offset(ram, 0), EINVAL,
	    "RAM has no alias offset");
	fails(mt_region_set_alias_offset(c, 0), EINVAL,
	    "nor has a container");

	works(mt_region_del(c), "clean up");
	mt_region_put(alias);
	mt_region_put(c);
	mt_region_put(ram);
	mt_region_put(rom);
	mt_region_put(io);
	mt_region_put(romd);
	mt_region_put(res);
	mt_region_put(root);
	t_end(t);
}

static void
test_owner(void)
{
	struct mt_topology *t = t_topology();
	int owner = 0, other = 0;
	struct mt_region *r;

	r = t_container(t, "r", 0x1000);
	fails(mt_region_set_owner(r, &owner, NULL), EINVAL,
	    "an owner needs a put");
	works(mt_region_set_owner(r, &owner, t_put), "an owner is set");
	fails(mt_region_set_owner(r, &other, t_put), EBUSY,
	    "a region has one owner");
	ok(mt_region_get(r) == r, "get returns the region");
	mt_region_put(r);
	is_int(t_puts_of(t, &owner), 0, "a kept region keeps its owner");
	mt_region_put(r);
	is_int(t_puts_of(t, &owner), 1, "a released one puts it");
	t_end(t);
	is_int(owner, 1, "an owner is put once");
	is_int(other, 0, "an owner that was refused is not put");

	mt_region_put(NULL);
	ok(mt_region_get(NULL) == NULL, "NULL is ignored by get and put");
}

/*
 * The thread that lets go of children waits for the transaction, after some
 * time that there is no way to wait for: so many times.
 */
static void
test_leaving(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *parent, *child;
	unsigned int i, wrong = 0;
	volatile unsigned int n;
	int puts = 0;

	for (i = 0; i < 1000; i++) {
		parent = t_container(t, "parent", 0x1000);
		child = t_container(t, "child", 0x1000);
		must(mt_region_set_owner(child, &puts, t_put) == 0);
		must(mt_region_add(parent, child, 0, 0) == 0);
		must(mt_topology_begin(t) == 0);
		mt_region_put(parent);
		for (n = i * 100; n > 0; n--)
			continue;
		wrong += mt_region_del(child) != 0;
		wrong += mt_region_parent(child) != NULL;
		must(mt_topology_commit(t) == 0);
		mt_region_put(child);
	}
	is_int(wrong, 0, "a child is taken from a parent that is leaving");
	is_int(t_puts_of(t, &puts), (int)i, "which lets go of it once");
	t_end(t);
}

/* Who keeps a region that its creator has let go of. */
static void
test_keepers(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *r, *alias;
	struct mt_section sec;
	struct mt_mapping map;
	struct mt_space *sp;
	struct mt_view *v;
	int owner = 0;

	root = t_container(t, "root", 0x10000);
	sp = t_space(root);
	r = t_ram(t, "r", 0x1000);
	must(mt_region_set_owner(r, &owner, t_put) == 0);
	alias = t_alias(t, "alias", r, 0, 0x1000);
	t_add(root, 0, 0, r);
	is_int(t_puts_of(t, &owner), 0, "a parent keeps its child");
	is_read(sp, 0xffe, 2, "0000", "which is there");
	v = mt_space_view(sp);
	must(mt_space_find(sp, (struct mt_range){ 0, 0 }, &sec) == 0);
	must(mt_dma_map(sp, 0, 1, MT_DMA_READ, MT_ATTRS_NONE, &map) == 0);
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &owner), 0, "an alias keeps its target");
	mt_region_put(alias);
	is_int(t_puts_of(t, &owner), 0, "a view keeps its regions");
	is_str(t_view_text(v), "0-fff r+0", "and shows them");
	mt_view_put(v);
	is_int(t_puts_of(t, &owner), 0, "what was found keeps its region");
	is_str(mt_region_name(sec.region), "r", "and shows it");
	mt_region_put(sec.region);
	is_int(t_puts_of(t, &owner), 0, "a mapping keeps its region");
	is_int(*(uint8_t *)map.ptr, 0, "and shows it");
	works(mt_dma_unmap(&map, 0), "the last one lets go");
	is_int(t_puts_of(t, &owner), 1, "and the region is released");

	owner = 0;
	must(mt_region_set_owner(root, &owner, t_put) == 0);
	mt_region_put(root);
	is_int(t_puts_of(t, &owner), 0, "a space keeps its root");
	ok(mt_space_root(sp) == root, "and knows it");
	works(mt_space_destroy(sp), "a space goes");
	is_int(t_puts_of(t, &owner), 1, "and its root with it");
	t_end(t);
}

static void
test_orphans(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *parent, *a, *b, *deep;
	int owner = 0;

	parent = t_container(t, "parent", 0x1000);
	a = t_container(t, "a", 0x100);
	b = t_add(parent, 0, 0, t_container(t, "b", 0x100));
	deep = t_add(b, 0, 0, t_container(t, "deep", 0x100));
	must(mt_region_set_owner(deep, &owner, t_put) == 0);
	must(mt_region_add(parent, a, 0, 0) == 0);
	mt_region_put(parent);
	is_int(t_puts_of(t, &owner), 1,
	    "a released parent lets go of its children, and they of theirs");
	ok(mt_region_parent(a) == NULL, "a child that is kept is an orphan");
	parent = t_container(t, "parent", 0x1000);
	works(mt_region_add(parent, a, 0, 0), "and finds another parent");
	mt_region_put(parent);
	mt_region_put(a);
	works(mt_topology_sync(t), "wait");
	t_end(t);
}

/* An owner whose put lets go of another region, as a device does. */
struct device {
	struct mt_region *bar;
	int puts;
};

static void
device_put(void *owner)
{
	struct device *d = owner;

	mt_region_put(d->bar);
	d->puts++;
}

static void
test_put_from_put(void)
{
	struct mt_topology *t = t_topology();
	struct device d = { NULL, 0 };
	struct mt_region *r;
	int owner = 0;

	r = t_container(t, "r", 1);
	d.bar = t_container(t, "bar", 1);
	must(mt_region_set_owner(r, &d, device_put) == 0);
	must(mt_region_set_owner(d.bar, &owner, t_put) == 0);
	mt_region_put(r);
	is_int(t_puts_of(t, &owner), 1,
	    "a region that is put by the put of an owner goes in the same sync");
	is_int(d.puts, 1, "and that owner was put once");
	t_end(t);

	/* The same with nobody waiting but the end. */
	t = t_topology();
	owner = d.puts = 0;
	r = t_container(t, "r", 1);
	d.bar = t_container(t, "bar", 1);
	must(mt_region_set_owner(r, &d, device_put) == 0);
	must(mt_region_set_owner(d.bar, &owner, t_put) == 0);
	mt_region_put(r);
	t_end(t);
	is_int(owner + d.puts, 2, "destroying a topology waits for that too");
}

static void
device_unplug(void *owner)
{
	struct device *d = owner;

	/* What this replaces is freed by who is called here, later. */
	d->puts += mt_region_del(d->bar) == 0;
}

/* An owner may take what it has out of the tree, while others change that. */
static void
test_change_from_put(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r, *busy;
	struct mt_space *sp = t_space(root);
	struct device d = { NULL, 0 };
	int i, gone = 0;

	busy = t_add(root, 0x8000, 0, t_ram(t, "busy", 0x1000));
	for (i = 0; i < 200; i++) {
		r = t_container(t, "r", 1);
		d.bar = t_add(root, 0, 0, t_ram(t, "bar", 0x1000));
		must(mt_region_set_owner(r, &d, device_unplug) == 0);
		must(mt_region_set_owner(d.bar, &gone, t_put) == 0);
		mt_region_put(r);
		must(mt_region_set_enabled(busy, i % 2 != 0) == 0);
		must(mt_topology_sync(t) == 0);
	}
	is_int(d.puts, 200, "the put of an owner may change the tree");
	is_int(t_puts_of(t, &gone), 200, "and what it takes out goes");
	is_view(sp, "8000-8fff busy+0", "the rest is there");
	t_end_space(t, sp, root);
}

/* A region may be put by its own callback: it outlives the access. */
static enum mt_result
put_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)off, (void)size, (void)attrs;
	*val = 0x5a;
	mt_region_put(mt_region_get(d->bar));
	mt_region_put(d->bar);
	d->bar = NULL;
	return (MT_OK);
}

static void
test_put_in_callback(void)
{
	static const struct mt_io_ops ops = { .read = put_read };
	struct mt_topology *t = t_topology();
	struct mt_region *root, *r;
	struct device d = { NULL, 0 };
	struct mt_space *sp;

	root = t_container(t, "root", 0x1000);
	sp = t_space(root);
	must((r = mt_region_create_io(t, "r", 0, &ops, &d)) != NULL);
	must(mt_region_add(root, r, 0, 0) == 0);
	d.bar = r;
	is_read(sp, 0, 1, "5a", "a callback may put its region");
	ok(d.bar == NULL, "and has");
	works(mt_region_del(r), "the tree lets go of it");
	works(mt_space_destroy(sp), "clean up");
	mt_region_put(root);
	t_end(t);
}

/*
 * A change of a child while its parent, which has been put, is on its way to
 * be released: the parent must not be revived, and so released twice.
 */
static void
test_dying_parent(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *parent, *child;
	int owners = 0, i;

	for (i = 0; i < 2000; i++) {
		parent = t_container(t, "parent", 0x1000);
		must(mt_region_set_owner(parent, &owners, t_put) == 0);
		child = t_container(t, "child", 0x10);
		must(mt_region_add(parent, child, 0, 0) == 0);
		mt_region_put(parent);
		must(mt_region_set_enabled(child, false) == 0);
		must(mt_region_set_enabled(child, true) == 0);
		mt_region_put(child);
	}
	must(mt_topology_sync(t) == 0);
	is_int(owners, 2000, "a parent that goes while its child changes "
	    "goes once");
	t_end(t);
}

int
main(void)
{
	test_create();
	test_widths();
	test_add();
	test_change();
	test_owner();
	test_leaving();
	test_keepers();
	test_orphans();
	test_put_from_put();
	test_change_from_put();
	test_put_in_callback();
	test_dying_parent();
	return (done());
}
