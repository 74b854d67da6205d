/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What is mapped stays until it has been unmapped, and no longer: by whichever
 * threads, by however many, and after the region, its space and the thread that
 * mapped are gone.
 */

#include <pthread.h>
#include <sched.h>

#include "t/util.h"

#define PAGE		0x1000
#define MANY		150	/* threads: more than have tables */
#define REGIONS		1000	/* more than a first table has counts */

static struct mt_topology *t;
static struct mt_region *root;
static struct mt_space *sp;

static void
begin(void)
{
	t = t_topology();
	root = t_container(t, "root", T_ALL);
	sp = t_space(root);
}

static void
end(void)
{
	t_end_space(t, sp, root);
}

/* RAM of which puts counts the owner's puts. */
static struct mt_region *
ram(mt_addr addr, int *puts)
{
	struct mt_region *r = t_add(root, addr, 0, t_ram(t, "ram", PAGE));

	*puts = 0;
	must(mt_region_set_owner(r, puts, t_put) == 0);
	return (r);
}

static void
map(mt_addr addr, struct mt_mapping *m)
{
	must(mt_dma_map(sp, addr, 16, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, m) == 0 && !m->bounced && m->len == 16);
}

static void
start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
	must(pthread_create(thread, NULL, fn, arg) == 0);
}

static void
on_another_thread(void *(*fn)(void *), void *arg)
{
	pthread_t thread;

	start(&thread, fn, arg);
	pthread_join(thread, NULL);
}

static void *
map_first(void *arg)
{
	map(0, arg);
	return (NULL);
}

static void *
unmap(void *arg)
{
	must(mt_dma_unmap(arg, 0) == 0);
	return (NULL);
}

static void
test_leaving(void)
{
	struct mt_mapping m, more;
	struct mt_region *r;
	int puts;

	begin();
	r = ram(0, &puts);
	map(0, &m);
	map(8, &more);
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &puts), 0, "what is mapped stays");
	memset(m.ptr, 1, m.len);
	works(mt_dma_unmap(&m, 16), "one of two is unmapped");
	is_int(t_puts_of(t, &puts), 0, "it stays");
	on_another_thread(unmap, &more);
	is_int(t_puts_of(t, &puts), 1, "until another thread unmaps the last");

	r = ram(0, &puts);
	on_another_thread(map_first, &m);
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &puts), 0, "what a thread mapped that has ended, too");
	works(mt_dma_unmap(&m, 0), "is unmapped by this one");
	is_int(t_puts_of(t, &puts), 1, "and goes");

	r = ram(0, &puts);
	on_another_thread(map_first, &m);
	works(mt_dma_unmap(&m, 0), "what is unmapped on another thread");
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &puts), 1, "before it is taken out is gone then");
	end();
}

static void
test_space_gone(void)
{
	struct mt_mapping m;
	struct mt_region *r;
	int puts;

	begin();
	r = ram(0, &puts);
	map(0, &m);
	must(mt_space_destroy(sp) == 0);
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &puts), 0, "a mapping outlives its space");
	fails(mt_topology_destroy(t), EBUSY, "but not its topology");
	memset(m.ptr, 1, m.len);
	works(mt_dma_unmap(&m, 16), "it is unmapped as ever");
	is_int(t_puts_of(t, &puts), 1, "and the memory goes");
	mt_region_put(root);
	t_end(t);
}

/* One of many threads that are there at the same time. */
struct one {
	struct mt_mapping mine, left;
	pthread_t thread;
	pthread_barrier_t *all;
};

static void *
two_maps(void *arg)
{
	struct one *one = arg;

	map(0, &one->left);
	map(8, &one->mine);
	pthread_barrier_wait(one->all);
	/* The region has been taken out. */
	pthread_barrier_wait(one->all);
	must(mt_dma_unmap(&one->mine, 0) == 0);
	return (NULL);
}

static void
test_many_threads(void)
{
	static struct one ones[MANY];
	pthread_barrier_t all;
	struct mt_region *r;
	int i, puts, early = 0;

	begin();
	r = ram(0, &puts);
	pthread_barrier_init(&all, NULL, MANY + 1);
	for (i = 0; i < MANY; i++) {
		ones[i].all = &all;
		start(&ones[i].thread, two_maps, &ones[i]);
	}
	pthread_barrier_wait(&all);
	must(mt_region_del(r) == 0);
	is_int(t_puts_of(t, &puts), 0, "%d threads have mapped it", MANY);
	pthread_barrier_wait(&all);
	for (i = 0; i < MANY; i++)
		pthread_join(ones[i].thread, NULL);
	for (i = 0; i < MANY; i++) {
		early += t_puts_of(t, &puts);
		must(mt_dma_unmap(&ones[i].left, 0) == 0);
	}
	is_int(early, 0, "it stays as long as one mapping is left");
	is_int(t_puts_of(t, &puts), 1, "and goes with the last");
	pthread_barrier_destroy(&all);

	/* One after the other: each has the slot of the one before. */
	r = ram(0, &puts);
	for (i = 0; i < MANY; i++)
		on_another_thread(map_first, &ones[i].left);
	must(mt_region_del(r) == 0);
	for (i = 0, early = 0; i < MANY; i++) {
		early += t_puts_of(t, &puts);
		on_another_thread(unmap, &ones[i].left);
	}
	is_int(early, 0, "threads that come and go count right");
	is_int(t_puts_of(t, &puts), 1, "to the end");
	end();
}

/* Every other region leaves and its number is another's soon. */
static void
test_numbers(void)
{
	static struct mt_mapping m[REGIONS], again[REGIONS];
	static int puts[REGIONS], puts_again[REGIONS];
	static struct mt_region *r[REGIONS];
	int i, early = 0, gone = 0, early_again = 0, gone_again = 0;

	begin();
	for (i = 0; i < REGIONS; i++)
		r[i] = ram((mt_addr)i * PAGE, &puts[i]);
	for (i = 0; i < REGIONS; i++)
		map((mt_addr)i * PAGE, &m[i]);
	for (i = 0; i < REGIONS; i++)
		must(mt_region_del(r[i]) == 0);
	for (i = 0; i < REGIONS; i += 2)
		must(mt_dma_unmap(&m[i], 0) == 0);
	must(mt_topology_sync(t) == 0);
	for (i = 0; i < REGIONS; i++) {
		early += i % 2 == 1 && puts[i] != 0;
		gone += i % 2 == 0 && puts[i] == 1;
	}
	is_int(early, 0, "of %d regions none is gone that is mapped", REGIONS);
	is_int(gone, REGIONS / 2, "and all are that are not");
	for (i = 0; i < REGIONS; i++) {
		r[i] = ram((mt_addr)i * PAGE, &puts_again[i]);
		map((mt_addr)i * PAGE, &again[i]);
	}
	for (i = 1; i < REGIONS; i += 2)
		must(mt_dma_unmap(&m[i], 0) == 0);
	for (i = 0; i < REGIONS; i++) {
		must(mt_region_del(r[i]) == 0);
		if (i % 3 == 0)
			must(mt_dma_unmap(&again[i], 0) == 0);
	}
	must(mt_topology_sync(t) == 0);
	for (i = 0, gone = 0; i < REGIONS; i++) {
		gone += puts[i] == 1;
		early_again += i % 3 != 0 && puts_again[i] != 0;
	}
	is_int(gone, REGIONS, "those that left later are gone");
	is_int(early_again, 0, "those that came after them are not");
	for (i = 0; i < REGIONS; i++)
		if (i % 3 != 0)
			must(mt_dma_unmap(&again[i], 0) == 0);
	must(mt_topology_sync(t) == 0);
	for (i = 0; i < REGIONS; i++)
		gone_again += puts_again[i] == 1;
	is_int(gone_again, REGIONS, "before they are unmapped");
	end();
}

/* --- all at once --------------------------------------------------------- */

#define ALIVE		UINT64_C(0x600d600d600d600d)
#define DEAD		UINT64_C(0xdeaddeaddeaddead)
#define PLACES		4	/* of memory that comes and goes */
#define HELD		64	/* mappings that are handed on */
#define MAPPERS		3

static struct {
	pthread_mutex_t lock;
	struct mt_mapping m;
	bool full;
} held[HELD];

static int stop, bad, made, gone;	/* atomic */

/* Memory of its own, which says whether it is alive. */
static void
page_put(void *arg)
{
	__atomic_store_n((uint64_t *)arg, DEAD, __ATOMIC_RELAXED);
	free(arg);
	__atomic_add_fetch(&gone, 1, __ATOMIC_RELAXED);
}

static struct mt_region *
page_add(mt_addr addr)
{
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	struct mt_region *r;

	backing.ptr = t_not_null(calloc(1, PAGE), "memory");
	*(uint64_t *)backing.ptr = ALIVE;
	r = (struct mt_region *)t_not_null(mt_region_create_ram(t, "page",
	    MT_SIZE(PAGE), &backing), "page");
	must(mt_region_set_owner(r, backing.ptr, page_put) == 0);
	__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
	return (t_add(root, addr, 0, r));
}

/* Map something in a place whose mapping somebody else made, unmap that. */
static void *
hand_on(void *arg)
{
	uint64_t seed = (uintptr_t)arg;
	size_t i;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		seed = seed * 6364136223846793005 + 1442695040888963407;
		i = (size_t)(seed >> 32) % HELD;
		pthread_mutex_lock(&held[i].lock);
		if (held[i].full) {
			if (__atomic_load_n((uint64_t *)held[i].m.ptr,
			    __ATOMIC_RELAXED) != ALIVE)
				__atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
			must(mt_dma_unmap(&held[i].m, 0) == 0);
			held[i].full = false;
		} else if (mt_dma_map(sp, (mt_addr)(seed >> 48) % PLACES *
		    PAGE, 8, MT_DMA_READ, MT_ATTRS_NONE, &held[i].m) == 0)
			held[i].full = true;
		pthread_mutex_unlock(&held[i].lock);
	}
	return (NULL);
}

static void
test_race(void)
{
	const char *seconds = getenv("T_SECONDS");
	int64_t until = t_now_ms() + 1000 * (seconds != NULL ?
	    atoi(seconds) : 1);
	struct mt_region *pages[PLACES];
	pthread_t threads[MAPPERS];
	size_t i;

	begin();
	for (i = 0; i < HELD; i++)
		pthread_mutex_init(&held[i].lock, NULL);
	for (i = 0; i < PLACES; i++)
		pages[i] = page_add(i * PAGE);
	for (i = 0; i < MAPPERS; i++)
		start(&threads[i], hand_on, (void *)(i + 1));
	while (t_now_ms() < until)
		for (i = 0; i < PLACES; i++) {
			must(mt_region_del(pages[i]) == 0);
			pages[i] = page_add(i * PAGE);
			sched_yield();
		}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < MAPPERS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < HELD; i++)
		if (held[i].full)
			must(mt_dma_unmap(&held[i].m, 0) == 0);
	is_int(bad, 0, "no memory went while it was mapped");
	is_int(t_puts_of(t, &gone), made - PLACES,
	    "and all that was taken out went in the end");
	diag("%d regions", made);
	end();
	is_int(gone, made, "as the rest did with the tree");
}

int
main(void)
{
	test_leaving();
	test_space_gone();
	test_many_threads();
	test_numbers();
	test_race();
	return (done());
}
