/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Large maps: that they work, and that a change costs what it changes. */

#include <malloc.h>
#include <time.h>

#include <libmemtree/memtree.h>

#include "t/tap.h"
#include "t/util.h"

/* Or T_SECTIONS: a map may have 16 million. */
#define SECTIONS	(T_TSAN ? 50000u : 200000u)
#define STEP		0x2000u
#define ROUNDS		20	/* of which the best counts */
#define CHANGES		10	/* in each, and as many back */
/* What may be between two costs; to look at all would be thousands of times. */
#define ABOUT		50

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

/* The best of a few rounds of a change to r that is taken back, in ns. */
static uint64_t
cost(void (*change)(struct mt_region *r, struct mt_region *other),
    struct mt_region *r, struct mt_region *other)
{
	uint64_t best = UINT64_MAX, t, end = now_ns() + 1000000000;
	int i, round;

	for (round = 0; round < ROUNDS; round++) {
		if ((t = now_ns()) > end)
			break;
		for (i = 0; i < CHANGES; i++)
			change(r, other);
		t = (now_ns() - t) / CHANGES;
		if (t < best)
			best = t;
	}
	return (best);
}

static void
toggle(struct mt_region *r, struct mt_region *other)
{
	(void)other;
	must(mt_region_set_enabled(r, false) == 0);
	must(mt_region_set_enabled(r, true) == 0);
}

static void
place(struct mt_region *r, struct mt_region *parent)
{
	must(mt_region_add(parent, r, 0, 0) == 0);
	must(mt_region_move(r, 0x800) == 0);
	must(mt_region_del(r) == 0);
}

static void
protect(struct mt_region *r, struct mt_region *other)
{
	(void)other;
	must(mt_region_set_readonly(r, true) == 0);
	must(mt_region_set_readonly(r, false) == 0);
}

#define is_within(times, large, small, ...) do {			\
	uint64_t l_ = (large), s_ = (small);				\
									\
	if (!ok(l_ < s_ * (times), __VA_ARGS__))			\
		diag("%lu ns and %lu ns", (unsigned long)l_,		\
		    (unsigned long)s_);					\
} while (0)
#define is_about(large, small, ...)	is_within(ABOUT, large, small, \
					    __VA_ARGS__)

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

/* Where a region is put is looked at, and not all that is in it. */
static void
test_place(struct mt_topology *t, struct mt_region *small,
    struct mt_region *large, struct mt_region *ram)
{
	struct mt_region *page = t_container(t, "page", 0x1000);
	struct mt_region *nowhere = t_container(t, "nowhere", 0x1000);
	struct mt_region *few = t_alias(t, "few", small, 0, 0x1000);
	struct mt_region *many = t_alias(t, "many", large, 0, 0x1000);
	struct mt_region *patch = t_container(t, "patch", 0x1000);
	struct mt_space *sp = t_space(page);

	is_about(cost(place, large, page), cost(place, small, page),
	    "a large region is placed, moved and taken as a small one");
	is_about(cost(place, many, page), cost(place, few, page),
	    "and so is an alias of it");
	is_about(cost(place, many, nowhere), cost(place, few, nowhere),
	    "also where nobody sees it");
	must(mt_region_set_enabled(patch, false) == 0);
	is_about(cost(place, patch, ram), cost(place, patch, page),
	    "what shows nothing is placed in what is shown often as elsewhere");

	must(mt_space_destroy(sp) == 0);
	mt_region_put(patch);
	mt_region_put(many);
	mt_region_put(few);
	mt_region_put(nowhere);
	mt_region_put(page);
}

/* As large as the map, so that all of it would be looked at. */
static void
test_disabled(struct mt_topology *t, struct mt_region *root, uint64_t none)
{
	struct mt_region *off = t_container(t, "off", T_ALL);
	struct mt_region *below = t_container(t, "below", T_ALL);
	struct mt_region *target = t_container(t, "target", T_ALL);
	struct mt_region *shade = t_alias(t, "shade", target, 0, T_ALL);

	must(mt_region_set_enabled(off, false) == 0);
	must(mt_region_set_enabled(shade, false) == 0);
	must(mt_region_add(off, below, 0, 0) == 0);
	must(mt_region_add(root, off, 0, 1) == 0);
	must(mt_region_add(root, shade, 0, 1) == 0);
	is_about(cost(protect, off, NULL), none,
	    "nor is the map looked at for what is disabled,");
	is_about(cost(toggle, below, NULL), none,
	    "what is in something disabled,");
	is_about(cost(toggle, target, NULL), none,
	    "or what only a disabled alias shows");
	must(mt_region_del(shade) == 0);
	must(mt_region_del(off) == 0);
	mt_region_put(shade);
	mt_region_put(target);
	mt_region_put(below);
	mt_region_put(off);
}

static void
hear_range(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	(void)sp, (void)sec, (void)range;
	(*(unsigned int *)arg)++;
}

/* The last range becomes longer, by two bytes. */
static void
widen_range(struct mt_region *r, struct mt_region *window)
{
	static mt_addr last = 0x100000;
	int i;

	(void)window;
	for (i = 0; i < 2; i++)
		must(mt_region_add_coalescing(r, 0x100000, ++last) == 0);
}

/* All ranges stay where they are, in another section. */
static void
resize(struct mt_region *r, struct mt_region *window)
{
	(void)r;
	must(mt_region_resize(window, 0xfffffff) == 0);
	must(mt_region_resize(window, 0xffffffff) == 0);
}

static uint64_t
cost_with_ranges(struct mt_topology *t, unsigned int n, void (*change)
    (struct mt_region *r, struct mt_region *window))
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *r = t_io(t, "io", T_ALL, &dev);
	struct mt_region *window = t_alias(t, "window", r, 0, 0x100000000);
	struct mt_space *sp = t_space(window);
	unsigned int told = 0, i;
	struct mt_listener l = { .coalesce_add = hear_range,
	    .coalesce_del = hear_range, .arg = &told };
	uint64_t ns;

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < n; i++)
		must(mt_region_add_coalescing(r, i * 16, i * 16 + 3) == 0);
	must(mt_topology_commit(t) == 0);
	must(mt_listener_register(sp, &l) == 0);
	must(told == n);
	ns = cost(change, r, window);
	/* What stayed as it was is not told: at most the last one each time. */
	must(told - n <= (change == resize ? 0 : ROUNDS * CHANGES * 4));
	must(mt_listener_unregister(&l) == 0);
	must(mt_space_destroy(sp) == 0);
	mt_region_put(window);
	mt_region_put(r);
	return (ns);
}

/* Of 64 times as many: each with each would be 4096 times as much. */
static void
test_ranges(struct mt_topology *t)
{
	is_within(64 * 8, cost_with_ranges(t, 64 * 64, widen_range),
	    cost_with_ranges(t, 64, widen_range),
	    "old and new coalescing ranges are not compared each with each");
	is_within(64 * 8, cost_with_ranges(t, 64 * 64, resize),
	    cost_with_ranges(t, 64, resize),
	    "nor where the section is not the same");
}

/* In use, as the C library knows it; a sanitizer's says nothing. */
static size_t
allocated(void)
{
	struct mallinfo2 m = mallinfo2();

	return (m.uordblks + m.hblkhd);
}

static void
test_memory(void)
{
	static struct mt_region *windows[100000];
	struct mt_topology *t = t_topology();
	struct mt_region *ram = t_ram(t, "ram", 0x1000);
	struct mt_region *root = t_container(t, "root", T_ALL);
	struct mt_space *sp = t_space(root);
	const size_t n = T_COUNT(windows);
	size_t before, after, i, at;

	must(mt_topology_sync(t) == 0);
	before = allocated();
	must(mt_topology_begin(t) == 0);
	/* One here, one there: each is a range of its own. */
	for (i = 0; i < n; i++) {
		at = i * 7919 % n;
		windows[at] = t_alias(t, "window", ram, 0, 0x1000);
		must(mt_region_add(root, windows[at], at * STEP, 0) == 0);
	}
	must(mt_topology_commit(t) == 0);
	/* And all as one. */
	toggle(root, NULL);
	must(mt_topology_begin(t) == 0);
	for (i = 0; i < n; i++) {
		must(mt_region_del(windows[i]) == 0);
		mt_region_put(windows[i]);
	}
	must(mt_topology_commit(t) == 0);
	must(mt_topology_sync(t) == 0);
	after = allocated();
	if (!ok(after < before + 256 * 1024,
	    "a large transaction leaves no memory in use"))
		diag("%zu bytes before, %zu after", before, after);
	must(mt_space_destroy(sp) == 0);
	mt_region_put(root);
	mt_region_put(ram);
	must(mt_topology_destroy(t) == 0);
}

int
main(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *ram = t_ram(t, "ram", 0x1000);
	struct mt_region *small_root, *root, *in_small, *in_large, *lonely;
	struct mt_space *small, *large;
	struct mt_listener l = { .add = count_add, .del = count_del };
	uint64_t few, none;
	int64_t start = t_now_ms();
	uint8_t byte;
	unsigned int sections = (unsigned int)t_env("T_SECTIONS", SECTIONS);
	unsigned int i, wrong = 0;

	memset(mt_region_ptr(ram), 0x5a, 0x1000);
	small_root = fill(t, ram, 16, &in_small);
	root = fill(t, ram, sections, &in_large);
	small = t_space(small_root);
	large = t_space(root);
	diag("built in %" PRId64 " ms", t_now_ms() - start);
	must(mt_listener_register(large, &l) == 0);
	is_int(adds, sections, "a listener hears of %u sections", sections);
	for (i = 0; i < sections; i += 7) {
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

	few = cost(toggle, in_small, NULL);
	is_about(cost(toggle, in_large, NULL), few,
	    "a change costs what it changes, not the map");
	lonely = t_ram(t, "lonely", 0x1000);
	none = cost(toggle, lonely, NULL);
	ok(none <= few, "and next to nothing where nobody sees it");
	test_disabled(t, root, none);
	test_place(t, small_root, root, ram);
	test_ranges(t);
	test_memory();

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
