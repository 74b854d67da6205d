/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Large maps: that they work, and that a change costs what it changes. */

#include <time.h>

#include <libmemtree/memtree.h>

#include "t/tap.h"
#include "t/util.h"

#define SECTIONS	200000u
#define STEP		0x2000u

static unsigned int adds, dels;

static void
count_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)arg, (void)sp, (void)sec;
	adds++;
}

static void
count_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)arg, (void)sp, (void)sec;
	dels++;
}

static uint64_t
now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec);
}

/* The best of a few rounds of toggling r, in ns a commit. */
static uint64_t
toggle_cost(struct mt_region *r)
{
	uint64_t best = UINT64_MAX, t;
	int i, round;

	for (round = 0; round < 20; round++) {
		t = now_ns();
		for (i = 0; i < 20; i++)
			must(mt_region_set_enabled(r, i & 1) == 0);
		t = (now_ns() - t) / 20;
		if (t < best)
			best = t;
	}
	return (best);
}

/* n windows onto one page of RAM, with holes between them. */
static struct mt_region *
fill(struct mt_topology *t, struct mt_region *ram, unsigned int n,
    struct mt_region **middle)
{
	struct mt_region *root = t_container(t, "root", T_ALL), *r;
	unsigned int i;

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < n; i++) {
		r = mt_region_create_alias(t, "window", ram, 0, 0xfff);
		must(r != NULL);
		must(mt_region_add(root, r, (mt_addr)i * STEP, 0) == 0);
		if (i == n / 2)
			*middle = mt_region_get(r);
		mt_region_put(r);
	}
	must(mt_topology_commit(t) == 0);
	return (root);
}

int
main(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *ram = t_ram(t, "ram", 0x1000);
	struct mt_region *small_root, *root, *in_small, *in_large, *lonely;
	struct mt_space *small, *large;
	struct mt_listener l = { .add = count_add, .del = count_del };
	uint64_t few, many, none;
	uint8_t byte;
	unsigned int i, wrong = 0;

	memset(mt_region_ptr(ram), 0x5a, 0x1000);
	small_root = fill(t, ram, 16, &in_small);
	root = fill(t, ram, SECTIONS, &in_large);
	small = t_space(small_root);
	large = t_space(root);
	must(mt_listener_register(large, &l) == 0);
	is_int(adds, SECTIONS, "a listener hears of 200 000 sections");
	for (i = 0; i < SECTIONS; i += 7) {
		wrong += mt_space_read(large, (mt_addr)i * STEP + 0x800,
		    &byte, 1, MT_ATTRS_NONE) != MT_OK || byte != 0x5a;
		wrong += mt_space_read(large, (mt_addr)i * STEP + 0x1000,
		    &byte, 1, MT_ATTRS_NONE) != MT_DECODE;
	}
	is_int(wrong, 0, "all of them can be read, and none of the holes");

	adds = dels = 0;
	must(mt_region_set_enabled(in_large, false) == 0);
	must(mt_region_set_enabled(in_large, true) == 0);
	ok(adds == 1 && dels == 1, "one that goes and comes is told once");
	must(mt_listener_unregister(&l) == 0);

	few = toggle_cost(in_small);
	many = toggle_cost(in_large);
	lonely = t_ram(t, "lonely", 0x1000);
	none = toggle_cost(lonely);
	diag("a toggle among 16: %lu ns, among %u: %lu ns, nowhere: %lu ns",
	    (unsigned long)few, SECTIONS, (unsigned long)many,
	    (unsigned long)none);
	/* A render of all would be thousands of times as much. */
	ok(many < few * 50, "a change costs what it changes, not the map");
	ok(none <= few, "and next to nothing where nobody sees it");

	mt_region_put(lonely);
	mt_region_put(in_small);
	mt_region_put(in_large);
	mt_region_put(ram);
	must(mt_space_destroy(small) == 0);
	must(mt_space_destroy(large) == 0);
	mt_region_put(small_root);
	mt_region_put(root);
	t_end(t);
	return (done());
}
