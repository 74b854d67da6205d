/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * How fast the memory tree is.  A world of N adjacent slots of 4 KiB, RAM and
 * I/O alternating, added in random order; accesses go to random addresses
 * that are drawn beforehand.  All RAM shows the same few pages of host memory,
 * so that figures differ by the tree and not by what the data costs; the bare
 * copy, memtree.copy4k, is of the same pages in the same order.
 */

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include <libmemtree/memtree.h>

#include "t/bench/bench.h"

#define SLOT		((size_t)4096)
#define POOL		8		/* pages behind all RAM */
#define NADDRS		((size_t)4096)	/* drawn beforehand; a power of two */
#define DEFAULT_N	((size_t)256)	/* where a name has no N */
#define LARGE_N		((size_t)32768)

static const size_t sizes[] = { 16, 256, 4096, 32768 };

static uint8_t pool[POOL][SLOT] __attribute__((aligned(4096)));

struct world {
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_region **slots;	/* lent by root */
	struct mt_space *sp;
	size_t n;
	mt_addr ram[NADDRS];		/* random words in RAM slots */
	mt_addr io[NADDRS];		/* in I/O slots */
	mt_addr any[NADDRS];
	uint32_t order[NADDRS];		/* random slots */
};

static enum mt_result
io_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)attrs;
	*val = off;
	return (MT_OK);
}

static enum mt_result
io_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)attrs;
	b_use(val);
	return (MT_OK);
}

static const struct mt_io_ops io_ops = {
	.read = io_read, .write = io_write, .endian = MT_LITTLE,
	.valid = { .min = 1, .max = 8 }, .impl = { .min = 1, .max = 8 },
};

static struct mt_region *
make_slot(struct mt_topology *t, size_t i)
{
	const struct mt_backing backing = {
		.kind = MT_BACKING_PTR, .ptr = pool[i / 2 % POOL],
	};
	struct mt_region *r;

	r = i % 2 == 0 ?
	    mt_region_create_ram(t, "ram", MT_SIZE(SLOT), &backing) :
	    mt_region_create_io(t, "io", MT_SIZE(SLOT), &io_ops, NULL);
	if (r == NULL)
		err(1, "cannot make region %zu", i);
	return (r);
}

static void
draw(struct world *w)
{
	uint64_t seed = 1, x;
	size_t i, slot;

	for (i = 0; i < NADDRS; i++) {
		x = b_random(&seed);
		slot = (size_t)(x >> 32) % w->n;
		w->order[i] = (uint32_t)slot;
		w->any[i] = slot * SLOT + (x & (SLOT - 4));
		w->ram[i] = slot / 2 * 2 * SLOT + (x & (SLOT - 4));
		w->io[i] = w->ram[i] + SLOT;
	}
}

/* Everything in it, seen by a space or not. */
static struct world *
world_create(size_t n, bool with_space)
{
	struct world *w = calloc(1, sizeof(*w));
	uint64_t seed = 2;
	uint32_t *perm;
	size_t i, j;

	if (w == NULL || (perm = calloc(n, sizeof(*perm))) == NULL ||
	    (w->slots = calloc(n, sizeof(*w->slots))) == NULL ||
	    (w->t = mt_topology_create()) == NULL ||
	    (w->root = mt_region_create_container(w->t, "root",
	    MT_SIZE(n * SLOT))) == NULL)
		err(1, "cannot make a world");
	w->n = n;
	for (i = 0; i < n; i++) {
		j = (size_t)b_random(&seed) % (i + 1);
		perm[i] = perm[j];
		perm[j] = (uint32_t)i;
	}
	if (mt_topology_begin(w->t) == -1)
		err(1, "mt_topology_begin");
	for (i = 0; i < n; i++) {
		j = perm[i];
		w->slots[j] = make_slot(w->t, j);
		if (mt_region_add(w->root, w->slots[j], j * SLOT, 0) == -1)
			err(1, "mt_region_add");
		mt_region_put(w->slots[j]);
	}
	if (mt_topology_commit(w->t) == -1)
		err(1, "mt_topology_commit");
	if (with_space &&
	    (w->sp = mt_space_create(w->root, "bench")) == NULL)
		err(1, "mt_space_create");
	free(perm);
	draw(w);
	return (w);
}

/* The world of a size, which is made when it is first needed. */
static struct world *
world(size_t n)
{
	static struct world *worlds[B_COUNT(sizes)];
	size_t i;

	for (i = 0; sizes[i] != n;)
		i++;
	if (worlds[i] == NULL)
		worlds[i] = world_create(n, true);
	return (worlds[i]);
}

/* --- reading ------------------------------------------------------------- */

static inline void
expect(bool is, const char *what)
{
	if (!is)
		errx(1, "%s failed", what);
}

/* A loop that does one thing at some addresses of a world. */
#define LOOP(function, addresses, one)					\
static void								\
function(void *arg, size_t iters)					\
{									\
	struct world *w = arg;						\
	size_t i;							\
									\
	for (i = 0; i < iters; i++)					\
		one(w, w->addresses[i & (NADDRS - 1)]);			\
}

static inline void
read4(struct world *w, mt_addr addr)
{
	uint8_t buf[4];

	expect(mt_space_read(w->sp, addr, buf, sizeof(buf), MT_ATTRS_NONE) ==
	    MT_OK, "mt_space_read");
	b_use(buf);
}

static inline void
read4k(struct world *w, mt_addr addr)
{
	uint8_t buf[SLOT];

	expect(mt_space_read(w->sp, addr & ~(mt_addr)(SLOT - 1), buf,
	    sizeof(buf), MT_ATTRS_NONE) == MT_OK, "mt_space_read");
	b_use(buf);
}

/* What the one above cannot do without. */
static inline void
copy(struct world *w, mt_addr addr)
{
	uint8_t buf[SLOT];

	(void)w;
	memcpy(buf, pool[addr / SLOT / 2 % POOL], SLOT);
	b_use(buf);
}

static inline void
load4(struct world *w, mt_addr addr)
{
	uint64_t val;

	expect(mt_space_load(w->sp, addr, 4, MT_LITTLE, &val,
	    MT_ATTRS_NONE) == MT_OK, "mt_space_load");
	b_use(val);
}

static inline void
write4(struct world *w, mt_addr addr)
{
	static const uint8_t buf[4];

	expect(mt_space_write(w->sp, addr, buf, sizeof(buf), MT_ATTRS_NONE) ==
	    MT_OK, "mt_space_write");
}

static inline void
store4(struct world *w, mt_addr addr)
{
	expect(mt_space_store(w->sp, addr, 4, MT_LITTLE, addr,
	    MT_ATTRS_NONE) == MT_OK, "mt_space_store");
}

static inline void
find(struct world *w, mt_addr addr)
{
	const struct mt_range range = { addr, addr };
	struct mt_section sec;

	expect(mt_space_find(w->sp, range, &sec) == 0, "mt_space_find");
	mt_region_put(sec.region);
}

LOOP(read4_ram, ram, read4)
LOOP(load4_ram, ram, load4)
LOOP(write4_ram, ram, write4)
LOOP(store4_ram, ram, store4)
LOOP(read4k_ram, ram, read4k)
LOOP(copy4k, ram, copy)
LOOP(read4_io, io, read4)
LOOP(read4k_io, io, read4k)
LOOP(find_any, any, find)

#define FIGURE(function, loop)						\
static double								\
function(size_t n)							\
{									\
	return (b_measure(loop, NULL, world(n != 0 ? n : DEFAULT_N)));	\
}

FIGURE(bench_read4_ram, read4_ram)
FIGURE(bench_load4_ram, load4_ram)
FIGURE(bench_write4_ram, write4_ram)
FIGURE(bench_store4_ram, store4_ram)
FIGURE(bench_read4k_ram, read4k_ram)
FIGURE(bench_copy4k, copy4k)
FIGURE(bench_read4_io, read4_io)
FIGURE(bench_read4k_io, read4k_io)
FIGURE(bench_find, find_any)

/* --- other ways ---------------------------------------------------------- */

static void
cache_load(void *arg, size_t iters)
{
	const struct mt_cache *c = arg;
	uint32_t val;
	size_t i;

	for (i = 0; i < iters; i++) {
		expect(mt_cache_load_le32(c, i * 4 & (SLOT - 4), &val) ==
		    MT_OK, "mt_cache_load_le32");
		b_use(val);
	}
}

static void
cache_store(void *arg, size_t iters)
{
	const struct mt_cache *c = arg;
	size_t i;

	for (i = 0; i < iters; i++)
		expect(mt_cache_store_le32(c, i * 4 & (SLOT - 4),
		    (uint32_t)i) == MT_OK, "mt_cache_store_le32");
}

static double
measure_cache(void (*fn)(void *, size_t))
{
	struct mt_cache cache;
	double figure;

	if (mt_cache_init(&cache, world(DEFAULT_N)->sp, 0, SLOT,
	    MT_DMA_READ | MT_DMA_WRITE, MT_ATTRS_NONE) == -1)
		err(1, "mt_cache_init");
	figure = b_measure(fn, NULL, &cache);
	mt_cache_fini(&cache);
	return (figure);
}

static double
bench_cache_load4(size_t n)
{
	(void)n;
	return (measure_cache(cache_load));
}

static double
bench_cache_store4(size_t n)
{
	(void)n;
	return (measure_cache(cache_store));
}

/* One page that is logged, over and over: its bit is set each time. */
static double
bench_cache_store4_logged(size_t n)
{
	struct mt_region *r = world(DEFAULT_N)->slots[0];
	double figure;

	(void)n;
	expect(mt_region_set_log(r, 0, true) == 0, "mt_region_set_log");
	figure = measure_cache(cache_store);
	expect(mt_region_set_log(r, 0, false) == 0, "mt_region_set_log");
	return (figure);
}

static enum mt_result
bulk_read(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)attrs;
	memcpy(buf, (const uint8_t *)arg + off, len);
	return (MT_OK);
}

static void
bulk(void *arg, size_t iters)
{
	struct mt_space *sp = arg;
	uint8_t buf[SLOT];
	size_t i;

	for (i = 0; i < iters; i++) {
		expect(mt_space_read(sp, 0, buf, sizeof(buf), MT_ATTRS_NONE)
		    == MT_OK, "mt_space_read");
		b_use(buf);
	}
}

/* Whole buffers: to be held against memtree.copy4k. */
static double
bench_read4k_io_bulk(size_t n)
{
	static const struct mt_io_ops ops = { .read_buf = bulk_read };
	struct mt_topology *t;
	struct mt_region *r;
	struct mt_space *sp;
	double figure;

	(void)n;
	if ((t = mt_topology_create()) == NULL ||
	    (r = mt_region_create_io(t, "bulk", MT_SIZE(SLOT), &ops,
	    pool)) == NULL || (sp = mt_space_create(r, "bulk")) == NULL)
		err(1, "cannot make a region");
	figure = b_measure(bulk, NULL, sp);
	mt_space_destroy(sp);
	mt_region_put(r);
	mt_topology_destroy(t);
	return (figure);
}

/* --- mapping ------------------------------------------------------------- */

static inline void
map(struct world *w, mt_addr addr, unsigned int dir, bool bounced)
{
	struct mt_mapping m;

	addr &= ~(mt_addr)(SLOT - 1);
	expect(mt_dma_map(w->sp, addr, SLOT, dir, MT_ATTRS_NONE, &m) == 0 &&
	    m.len == SLOT && m.bounced == bounced, "mt_dma_map");
	b_use(m.ptr);
	expect(mt_dma_unmap(&m, 0) == 0, "mt_dma_unmap");
}

static inline void
map_direct(struct world *w, mt_addr addr)
{
	map(w, addr, MT_DMA_READ, false);
}

/* To be written, but nothing of it: neither a fill nor a write-back. */
static inline void
map_staged(struct world *w, mt_addr addr)
{
	map(w, addr, MT_DMA_WRITE, true);
}

LOOP(map_ram, ram, map_direct)
LOOP(map_bounce, io, map_staged)

FIGURE(bench_map_ram, map_ram)
FIGURE(bench_map_bounce, map_bounce)

/* --- two threads --------------------------------------------------------- */

struct racer {
	void (*fn)(void *arg, size_t iters);
	struct world *w;
	size_t iters;
	_Atomic(int) *ready;
	double took;
};

static void *
race(void *arg)
{
	struct racer *r = arg;
	double start;

	/* Warm, so that the thread is known to all it needs to be known to. */
	r->fn(r->w, 1000);
	atomic_fetch_sub(r->ready, 1);
	while (atomic_load(r->ready) > 0)
		continue;
	start = b_now();
	r->fn(r->w, r->iters);
	r->took = b_now() - start;
	return (NULL);
}

/* What nthreads get done together in a nanosecond. */
static double
rate(void (*fn)(void *, size_t), struct world *w, size_t iters, int nthreads)
{
	_Atomic(int) ready = nthreads;
	struct racer r[2] = {
		{ fn, w, iters, &ready, 0 }, { fn, w, iters, &ready, 0 },
	};
	pthread_t other;
	double sum;

	if (nthreads == 2 && (errno = pthread_create(&other, NULL, race,
	    &r[1])) != 0)
		err(1, "pthread_create");
	race(&r[0]);
	sum = (double)iters / r[0].took;
	if (nthreads == 2) {
		pthread_join(other, NULL);
		sum += (double)iters / r[1].took;
	}
	return (sum);
}

static double
ratio(void (*fn)(void *, size_t), size_t n)
{
	struct world *w = world(n);
	size_t iters = b_quick ? 10000 : 400000;
	size_t rounds = b_quick ? 1 : B_ROUNDS;
	double one[B_ROUNDS], two[B_ROUNDS];
	size_t i;

	/* In turns, so that both see the same disturbances. */
	for (i = 0; i < rounds; i++) {
		one[i] = rate(fn, w, iters, 1);
		two[i] = rate(fn, w, iters, 2);
	}
	return (b_median(two, rounds) / b_median(one, rounds));
}

static double
bench_read4_2threads(size_t n)
{
	(void)n;
	return (ratio(read4_ram, DEFAULT_N));
}

static double
bench_map_2threads(size_t n)
{
	(void)n;
	return (ratio(map_ram, DEFAULT_N));
}

/* --- changes ------------------------------------------------------------- */

static void
toggle(void *arg, size_t iters)
{
	struct world *w = arg;
	struct mt_region *r;
	size_t i;

	/* All are enabled when this ends, if iters is even. */
	for (i = 0; i < iters; i++) {
		r = w->slots[w->order[i / 2 & (NADDRS - 1)]];
		expect(mt_region_set_enabled(r, i % 2 != 0) == 0,
		    "mt_region_set_enabled");
	}
}

static void
enable_all(void *arg)
{
	struct world *w = arg;
	size_t i;

	expect(mt_topology_begin(w->t) == 0, "mt_topology_begin");
	for (i = 0; i < w->n; i++)
		expect(mt_region_set_enabled(w->slots[i], true) == 0,
		    "mt_region_set_enabled");
	expect(mt_topology_commit(w->t) == 0, "mt_topology_commit");
	/* Who frees what a round replaced does not disturb the next. */
	expect(mt_topology_sync(w->t) == 0, "mt_topology_sync");
}

static double
bench_toggle(size_t n)
{
	return (b_measure(toggle, enable_all, world(n)));
}

/* Changes in pairs, so that all is as before when a round ends. */
static void
take_and_put(void *arg, size_t iters)
{
	struct world *w = arg;
	size_t i, slot;
	struct mt_region *r;

	for (i = 0; i < iters; i += 2) {
		slot = w->order[i / 2 & (NADDRS - 1)];
		r = mt_region_get(w->slots[slot]);
		expect(mt_region_del(r) == 0, "mt_region_del");
		expect(mt_region_add(w->root, r, slot * SLOT, 0) == 0,
		    "mt_region_add");
		mt_region_put(r);
	}
}

/* Over a neighbour, and back. */
static void
move(void *arg, size_t iters)
{
	struct world *w = arg;
	size_t i, slot;

	for (i = 0; i < iters; i += 2) {
		slot = w->order[i / 2 & (NADDRS - 1)];
		expect(mt_region_move(w->slots[slot], (slot ^ 1) * SLOT) == 0,
		    "mt_region_move");
		expect(mt_region_move(w->slots[slot], slot * SLOT) == 0,
		    "mt_region_move");
	}
}

static void
settle(void *arg)
{
	struct world *w = arg;

	expect(mt_topology_sync(w->t) == 0, "mt_topology_sync");
}

static double
bench_add(size_t n)
{
	return (b_measure(take_and_put, settle, world(n)));
}

static double
bench_move(size_t n)
{
	return (b_measure(move, settle, world(n)));
}

/* A page that shows a page of a large map, or does not. */
struct window {
	struct world *w;
	struct mt_region *page;
	struct mt_region *alias;
};

static void
add_window(void *arg, size_t iters)
{
	struct window *win = arg;
	size_t i;

	for (i = 0; i < iters; i += 2) {
		expect(mt_region_add(win->page, win->alias, 0, 0) == 0,
		    "mt_region_add");
		expect(mt_region_del(win->alias) == 0, "mt_region_del");
	}
}

static void
settle_window(void *arg)
{
	settle(((struct window *)arg)->w);
}

static double
bench_add_window(size_t n)
{
	struct window win = { .w = world(n) };
	struct mt_space *sp;
	double ns;

	win.page = mt_region_create_container(win.w->t, "page", MT_SIZE(SLOT));
	win.alias = mt_region_create_alias(win.w->t, "window", win.w->root, 0,
	    MT_SIZE(SLOT));
	if (win.page == NULL || win.alias == NULL ||
	    (sp = mt_space_create(win.page, "page")) == NULL)
		err(1, "cannot make a window");
	ns = b_measure(add_window, settle_window, &win);
	mt_space_destroy(sp);
	mt_region_put(win.alias);
	mt_region_put(win.page);
	return (ns);
}

/* A region that no space sees, beside a space on a large map. */
struct unmapped {
	struct world *w;
	struct mt_region *r;
};

static void
toggle_unmapped(void *arg, size_t iters)
{
	struct unmapped *u = arg;
	size_t i;

	for (i = 0; i < iters; i++)
		expect(mt_region_set_enabled(u->r, i % 2 != 0) == 0,
		    "mt_region_set_enabled");
}

static void
sync_unmapped(void *arg)
{
	struct unmapped *u = arg;

	expect(mt_topology_sync(u->w->t) == 0, "mt_topology_sync");
}

static double
bench_toggle_unmapped(size_t n)
{
	struct unmapped u = { .w = world(LARGE_N) };
	struct mt_region *box;
	double ns;

	(void)n;
	box = mt_region_create_container(u.w->t, "box", MT_SIZE(SLOT));
	u.r = make_slot(u.w->t, 1);
	if (box == NULL || mt_region_add(box, u.r, 0, 0) == -1)
		err(1, "cannot make a box");
	ns = b_measure(toggle_unmapped, sync_unmapped, &u);
	mt_region_put(u.r);
	mt_region_put(box);
	return (ns);
}

/* --- memory -------------------------------------------------------------- */

static double
allocated(void)
{
	struct mallinfo2 m = mallinfo2();

	return ((double)m.uordblks + (double)m.hblkhd);
}

/* A region, its place in the tree, and its part of a view. */
static double
bench_bytes_per_region(size_t n)
{
	struct world *w;
	double before;

	before = allocated();
	w = world_create(LARGE_N, true);
	expect(mt_topology_sync(w->t) == 0, "mt_topology_sync");
	n = LARGE_N * sizeof(struct mt_region *) + sizeof(*w);
	return ((allocated() - before - (double)n) / (double)LARGE_N);
}

/* ------------------------------------------------------------------------- */

static const struct bench benches[] = {
	{ "memtree.read4.ram", "ns", bench_read4_ram, true },
	{ "memtree.load4.ram", "ns", bench_load4_ram, true },
	{ "memtree.write4.ram", "ns", bench_write4_ram, true },
	{ "memtree.store4.ram", "ns", bench_store4_ram, true },
	{ "memtree.read4k.ram", "ns", bench_read4k_ram, true },
	{ "memtree.copy4k", "ns", bench_copy4k, false },
	{ "memtree.read4.io", "ns", bench_read4_io, true },
	{ "memtree.read4k.io.split", "ns", bench_read4k_io, false },
	{ "memtree.read4k.io.bulk", "ns", bench_read4k_io_bulk, false },
	{ "memtree.cache.load4", "ns", bench_cache_load4, false },
	{ "memtree.cache.store4", "ns", bench_cache_store4, false },
	{ "memtree.cache.store4.logged", "ns", bench_cache_store4_logged,
	    false },
	{ "memtree.map.ram", "ns", bench_map_ram, true },
	{ "memtree.map.bounce", "ns", bench_map_bounce, false },
	{ "memtree.find", "ns", bench_find, true },
	{ "memtree.toggle", "ns", bench_toggle, true },
	{ "memtree.add", "ns", bench_add, true },
	{ "memtree.add.window", "ns", bench_add_window, true },
	{ "memtree.move", "ns", bench_move, true },
	{ "memtree.toggle.unmapped", "ns", bench_toggle_unmapped, false },
	{ "memtree.bytes_per_region", "bytes", bench_bytes_per_region, false },
	{ "memtree.read4.2threads.ratio", "times", bench_read4_2threads,
	    false },
	{ "memtree.map.2threads.ratio", "times", bench_map_2threads, false },
};

int
main(int argc, char *argv[])
{
	return (b_main(argc, argv, benches, B_COUNT(benches), sizes,
	    B_COUNT(sizes)));
}
