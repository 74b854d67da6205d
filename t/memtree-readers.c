/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Readers write to nothing that another thread reads: all that the library has
 * allocated for a topology, its spaces, regions and views cannot be written to
 * while they do what they do.  (Its globals are few: see symbols.t.)
 */

#include <sys/mman.h>

#include <signal.h>
#include <unistd.h>

#include "t/util.h"

#if T_ASAN || T_TSAN

int
main(void)
{
	skip_all("a sanitizer has an allocator of its own");
}

#else

/* --- memory that can be protected ---------------------------------------- */

#define ARENA	((size_t)16 << 20)
#define BEFORE	((size_t)64)		/* each piece: its size */

static uint8_t *arena;
static size_t arena_used;
static __thread bool from_arena;	/* where this thread allocates */

void	*__libc_malloc(size_t size);
void	*__libc_calloc(size_t n, size_t size);
void	*__libc_realloc(void *p, size_t size);
void	__libc_free(void *p);

static bool
in_arena(const void *p)
{
	return (arena != NULL && (const uint8_t *)p >= arena &&
	    (const uint8_t *)p < arena + ARENA);
}

/* Never freed, so it is zero. */
static void *
arena_alloc(size_t size)
{
	uint8_t *p = arena + arena_used;

	arena_used += BEFORE + (size + BEFORE - 1) / BEFORE * BEFORE;
	if (arena_used > ARENA)
		abort();
	*(size_t *)(void *)p = size;
	return (p + BEFORE);
}

void *
malloc(size_t size)
{
	return (from_arena ? arena_alloc(size) : __libc_malloc(size));
}

void *
calloc(size_t n, size_t size)
{
	return (from_arena ? arena_alloc(n * size) : __libc_calloc(n, size));
}

void *
realloc(void *p, size_t size)
{
	size_t old;
	void *q;

	if (!from_arena && !in_arena(p))
		return (__libc_realloc(p, size));
	q = malloc(size);
	if (p != NULL && q != NULL) {
		old = in_arena(p) ? *(size_t *)(void *)((uint8_t *)p - BEFORE) :
		    0;
		must(old != 0);
		memcpy(q, p, old < size ? old : size);
	}
	return (q);
}

void
free(void *p)
{
	if (!in_arena(p))
		__libc_free(p);
}

static pthread_t main_thread;
static volatile sig_atomic_t written;	/* by this thread */
static volatile sig_atomic_t disturbed;	/* by another one */

static void
fault(int sig, siginfo_t *si, void *context)
{
	(void)context;
	if (!in_arena(si->si_addr)) {
		signal(sig, SIG_DFL);
		return;
	}
	if (pthread_equal(pthread_self(), main_thread))
		written = 1;
	else
		disturbed = 1;
	mprotect(arena, ARENA, PROT_READ | PROT_WRITE);
}

/* --- what readers do ----------------------------------------------------- */

#define RAM	0x0		/* logged by nobody */
#define IO	0x1000
#define BUF	0x2000		/* takes any length */
#define ROM	0x3000
#define ROMD	0x4000
#define RAMD	0x5000
#define IOMMU	0x6000
#define HOLE	0x7000
#define PAGE	0x1000

static struct world {
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *sp;
	struct mt_cache cache;
	struct t_dev dev;
	uint8_t buf[2 * PAGE];
} w;

static enum mt_result
buf_read(void *arg, mt_addr off, void *buf, size_t len, struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)attrs;
	memset(buf, 0, len);
	return (MT_OK);
}

static enum mt_result
buf_write(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)buf, (void)len, (void)attrs;
	return (MT_OK);
}

static const struct mt_io_ops buf_ops = {
	.read_buf = buf_read, .write_buf = buf_write,
};

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	(void)flags, (void)attrs;
	out->target = arg;
	out->addr = RAM + off;
	out->mask = PAGE - 1;
	out->perm = MT_IOMMU_READ | MT_IOMMU_WRITE;
}

static const struct mt_iommu_ops iommu_ops = { .translate = translate };

static void
world_create(void)
{
	struct mt_region *r;
	struct mt_space *mem;

	w.dev = (struct t_dev)T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 8, false }, .impl = { 1, 8, false });
	w.t = t_topology();
	w.root = t_container(w.t, "root", 0x100000);
	t_add(w.root, RAM, 0, t_ram(w.t, "ram", PAGE));
	mem = t_space(w.root);
	t_add(w.root, IO, 0, t_io(w.t, "io", PAGE, &w.dev));
	must((r = mt_region_create_io(w.t, "buf", MT_SIZE(PAGE), &buf_ops,
	    NULL)) != NULL);
	t_add(w.root, BUF, 0, r);
	t_add(w.root, ROM, 0, t_rom(w.t, "rom", PAGE));
	t_add(w.root, ROMD, 0, t_romd(w.t, "romd", PAGE, &w.dev));
	must((r = mt_region_create_ram_device(w.t, "ramd", MT_SIZE(PAGE),
	    NULL)) != NULL);
	t_add(w.root, RAMD, 0, r);
	must((r = mt_region_create_iommu(w.t, "iommu", MT_SIZE(PAGE),
	    &iommu_ops, mem)) != NULL);
	t_add(w.root, IOMMU, 0, r);
	w.sp = t_space(w.root);
	must(mt_cache_init(&w.cache, w.sp, RAM, PAGE,
	    MT_DMA_READ | MT_DMA_WRITE, MT_ATTRS_NONE) == 0);
	must(mt_topology_sync(w.t) == 0);
}

/* Of everything, across borders. */
static void
do_read(void)
{
	mt_addr at;

	for (at = 0; at < HOLE; at += PAGE) {
		(void)mt_space_read(w.sp, at, w.buf, 4, MT_ATTRS_NONE);
		(void)mt_space_read(w.sp, at + 1, w.buf, PAGE, MT_ATTRS_NONE);
	}
}

static void
do_write(void)
{
	mt_addr at;

	for (at = 0; at < HOLE; at += PAGE) {
		(void)mt_space_write(w.sp, at, w.buf, 4, MT_ATTRS_NONE);
		(void)mt_space_write(w.sp, at + 1, w.buf, PAGE, MT_ATTRS_NONE);
	}
}

static void
do_load(void)
{
	uint64_t val;
	mt_addr at;

	for (at = 0; at <= HOLE; at += PAGE) {
		(void)mt_space_load(w.sp, at, 4, MT_BIG, &val, MT_ATTRS_NONE);
		(void)mt_space_load(w.sp, at + PAGE - 2, 8, MT_LITTLE, &val,
		    MT_ATTRS_NONE);
	}
}

static void
do_store(void)
{
	mt_addr at;

	for (at = 0; at <= HOLE; at += PAGE) {
		(void)mt_space_store(w.sp, at, 4, MT_BIG, at, MT_ATTRS_NONE);
		(void)mt_space_store(w.sp, at + PAGE - 2, 8, MT_LITTLE, at,
		    MT_ATTRS_NONE);
	}
}

static void
do_rest(void)
{
	(void)mt_space_set(w.sp, RAM, 1, HOLE + PAGE, MT_ATTRS_NONE);
	(void)mt_space_write_rom(w.sp, RAM, w.buf, sizeof(w.buf),
	    MT_ATTRS_NONE);
	(void)mt_space_valid(w.sp, RAM, HOLE + PAGE, true, MT_ATTRS_NONE);
}

static void
do_cache(void)
{
	uint32_t val;

	must(mt_cache_load_le32(&w.cache, 8, &val) == MT_OK);
	must(mt_cache_store_le32(&w.cache, 8, val) == MT_OK);
	must(mt_cache_load_le32(&w.cache, 1, &val) == MT_OK);
	(void)mt_cache_stale(&w.cache);
}

static void
do_map(void)
{
	const struct mt_range ranges[] = { { RAM, 7 }, { ROM, ROM + 7 },
	    { RAM + 16, RAM + 23 } };
	struct mt_mapping map, maps[3];
	struct iovec iov[3];
	struct mt_sg sg;

	must(mt_dma_map(w.sp, RAM, PAGE, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &map) == 0 && !map.bounced);
	must(mt_dma_unmap(&map, map.len) == 0);
	must(mt_dma_map_sg(w.sp, ranges, 3, MT_DMA_READ, MT_ATTRS_NONE, iov,
	    maps, 3, &sg) == 0 && sg.niov == 3);
	must(mt_dma_unmap_sg(&sg, 0) == 0);
}

/* Does it write to what the library has?  Others may do so meanwhile. */
static void
try(void (*fn)(void), const char *what)
{
	int tries = 0;

	/* What this thread alone has is made with the first. */
	fn();
	do {
		usleep(tries > 0 ? 1000 : 0);
		disturbed = written = 0;
		must(mprotect(arena, ARENA, PROT_READ) == 0);
		fn();
		must(mprotect(arena, ARENA, PROT_READ | PROT_WRITE) == 0);
	} while (disturbed && !written && ++tries < 1000);
	ok(!disturbed && !written, "%s", what);
}

int
main(void)
{
	struct sigaction sa = { .sa_sigaction = fault,
	    .sa_flags = SA_SIGINFO };

	main_thread = pthread_self();
	sigaction(SIGSEGV, &sa, NULL);
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(arena != MAP_FAILED);

	/* Once without, for what libraries allocate for this thread. */
	world_create();
	do_read();
	do_map();
	from_arena = true;
	world_create();
	from_arena = false;
	ok(in_arena(w.t) && in_arena(w.sp) && in_arena(w.root),
	    "all is where it can be protected");

	/* A word in it that is written to is seen. */
	must(mprotect(arena, ARENA, PROT_READ) == 0);
	(void)mt_region_put(mt_region_get(w.root));
	ok(written, "a reference is a write");

	try(do_read, "reads write to nothing that others read");
	try(do_write, "writes only where they are for");
	try(do_load, "loads to nothing");
	try(do_store, "stores only there");
	try(do_rest, "nor do fillings, and questions");
	try(do_cache, "nor loads and stores of a window");
	try(do_map, "to map and unmap memory writes what is the thread's own");
	return (done());
}

#endif
