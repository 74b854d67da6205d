/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The lock that an IOMMU region names: held for translate, and no longer. */

#include <pthread.h>

#include "t/util.h"

#define PAGE	0x1000u
#define IOMMU	0x100000	/* on the bus: page n of it is page n of memory */
#define IO	0x8000		/* in memory */
#define REGS	0x200000	/* of the IOMMU, on the bus */
#define ROUNDS	(T_TSAN ? 500 : 5000)

/* An IOMMU with registers, a device behind it, and who looked at the lock. */
struct world {
	struct mt_topology *t;
	struct mt_region *mem_root, *bus_root, *io;
	struct mt_space *mem, *bus;
	pthread_mutex_t lock;
	bool shared;			/* by threads: do not look */
	unsigned int asked;		/* calls of translate */
	unsigned int unlocked;		/* those that found the lock free */
	unsigned int behind;		/* calls of the device */
	unsigned int locked;		/* those that found it held */
	struct mt_space *in_regs;	/* what a write of a register reads */
	mt_addr from;
	enum mt_result result;
	struct mt_iommu_notifier n;
	unsigned int told;
};

static bool
is_held(struct world *w)
{
	if (pthread_mutex_trylock(&w->lock) != 0)
		return (true);
	pthread_mutex_unlock(&w->lock);
	return (false);
}

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	struct world *w = arg;

	(void)flags, (void)attrs;
	/* Not atomic: that two threads are not in here shows. */
	w->asked++;
	if (!w->shared)
		w->unlocked += !is_held(w);
	*out = (struct mt_iotlb){ w->mem, off, PAGE - 1,
	    MT_IOMMU_READ | MT_IOMMU_WRITE };
}

static const struct mt_iommu_ops iommu_ops = { .translate = translate };

static enum mt_result
io_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct world *w = arg;

	(void)off, (void)size, (void)attrs;
	w->behind++;
	w->locked += is_held(w);
	*val = 0x55;
	return (MT_OK);
}

static const struct mt_io_ops io_ops = { .read = io_read,
    .valid = { 1, 8, true }, .impl = { 1, 8, true } };

/* The IOMMU's registers have its lock, too. */
static enum mt_result
regs_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct mt_iommu_event ev = { .type = MT_IOMMU_UNMAP,
	    .range = { val, val + PAGE - 1 } };
	struct world *w = arg;
	uint8_t buf[4];

	(void)off, (void)size;
	if (w->in_regs != NULL)
		w->result = mt_space_read(w->in_regs, w->from, buf,
		    sizeof(buf), attrs);
	must(mt_iommu_notify(w->io, &ev) == 0);
	w->unlocked += !is_held(w);
	return (MT_OK);
}

static const struct mt_io_ops regs_ops = { .write = regs_write,
    .valid = { 1, 8, false }, .impl = { 1, 8, false } };

/* A device that keeps a page mapped maps it anew when that is invalid. */
static void
invalid(void *arg, const struct mt_iommu_event *ev)
{
	struct mt_mapping map;
	struct world *w = arg;

	w->told++;
	if (mt_dma_map(w->bus, IOMMU + ev->range.first, 16, MT_DMA_READ,
	    MT_ATTRS_NONE, &map) == -1)
		w->told = 100;
	else
		must(mt_dma_unmap(&map, 0) == 0);
}

static void
begin(struct world *w, bool lock)
{
	struct mt_region *regs, *io;

	memset(w, 0, sizeof(*w));
	pthread_mutex_init(&w->lock, NULL);
	w->t = t_topology();
	w->mem_root = t_container(w->t, "memory", 0x10000);
	t_add(w->mem_root, 0, 0, t_ram(w->t, "ram", 0x8000));
	io = mt_region_create_io(w->t, "io", PAGE - 1, &io_ops, w);
	must(io != NULL);
	t_add(w->mem_root, IO, 0, io);
	w->mem = t_space(w->mem_root);
	w->bus_root = t_container(w->t, "bus", 0x400000);
	w->io = mt_region_create_iommu(w->t, "iommu", 0xffff, &iommu_ops, w);
	must(w->io != NULL);
	regs = mt_region_create_io(w->t, "regs", PAGE - 1, &regs_ops, w);
	must(regs != NULL && mt_region_set_lock(regs, &w->lock) == 0);
	if (lock)
		must(mt_region_set_lock(w->io, &w->lock) == 0);
	t_add(w->bus_root, IOMMU, 0, w->io);
	t_add(w->bus_root, REGS, 0, regs);
	w->bus = t_space(w->bus_root);
}

static void
end(struct world *w)
{
	must(mt_space_destroy(w->bus) == 0);
	must(mt_space_destroy(w->mem) == 0);
	mt_region_put(w->bus_root);
	mt_region_put(w->mem_root);
	must(mt_topology_sync(w->t) == 0);
	t_end(w->t);
	pthread_mutex_destroy(&w->lock);
}

static void
test_set(void)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct mt_guard guard = MT_GUARD_INIT;
	struct mt_topology *t = t_topology();
	struct mt_region *r;
	struct mt_space *sp;

	r = mt_region_create_iommu(t, "iommu", 0xffff, &iommu_ops, NULL);
	must(r != NULL);
	fails(mt_region_set_guard(r, &guard), EINVAL,
	    "an IOMMU region has no guard");
	fails(mt_region_set_lock(r, NULL), EINVAL, "no lock is none");
	sp = t_space(r);
	fails(mt_region_set_lock(r, &lock), EBUSY, "nor is it the time");
	must(mt_space_destroy(sp) == 0 && mt_topology_sync(t) == 0);
	works(mt_region_set_lock(r, &lock), "but it can have a lock");
	fails(mt_region_set_lock(r, &lock), EBUSY, "one");
	mt_region_put(r);
	t_end(t);
}

/* --- every way that leads through it ------------------------------------- */

static enum mt_result
do_read(struct world *w)
{
	uint8_t buf[2 * PAGE];

	return (mt_space_read(w->bus, IOMMU + 0x800, buf, sizeof(buf),
	    MT_ATTRS_NONE));
}

static enum mt_result
do_read_io(struct world *w)
{
	uint8_t buf[64];

	return (mt_space_read(w->bus, IOMMU + IO, buf, sizeof(buf),
	    MT_ATTRS_NONE));
}

static enum mt_result
do_write(struct world *w)
{
	return (mt_space_write(w->bus, IOMMU + 4, "data", 4, MT_ATTRS_NONE));
}

static enum mt_result
do_load(struct world *w)
{
	uint64_t val;

	return (mt_space_load(w->bus, IOMMU + IO, 4, MT_LITTLE, &val,
	    MT_ATTRS_NONE));
}

static enum mt_result
do_store(struct world *w)
{
	return (mt_space_store(w->bus, IOMMU + 8, 4, MT_LITTLE, 1,
	    MT_ATTRS_NONE));
}

static enum mt_result
do_set(struct world *w)
{
	return (mt_space_set(w->bus, IOMMU, 1, 3 * PAGE, MT_ATTRS_NONE));
}

static enum mt_result
do_write_rom(struct world *w)
{
	return (mt_space_write_rom(w->bus, IOMMU, "data", 4, MT_ATTRS_NONE));
}

static enum mt_result
do_valid(struct world *w)
{
	return (mt_space_valid(w->bus, IOMMU, 2 * PAGE, false, MT_ATTRS_NONE) ?
	    MT_OK : MT_DENIED);
}

static enum mt_result
do_cache(struct world *w)
{
	enum mt_result res;
	struct mt_cache c;
	uint32_t val;

	must(mt_cache_init(&c, w->bus, IOMMU, PAGE, MT_DMA_READ,
	    MT_ATTRS_NONE) == 0);
	res = mt_cache_load_le32(&c, 8, &val);
	mt_cache_fini(&c);
	return (res);
}

static enum mt_result
do_map(struct world *w)
{
	struct mt_mapping map;
	enum mt_result res;

	if (mt_dma_map(w->bus, IOMMU, 3 * PAGE, MT_DMA_READ, MT_ATTRS_NONE,
	    &map) == -1)
		return (map.result);
	res = map.len == 3 * PAGE ? map.result : MT_DEVICE;
	must(mt_dma_unmap(&map, 0) == 0);
	return (res);
}

static enum mt_result
do_map_sg(struct world *w)
{
	struct mt_range ranges[2] = { { IOMMU, IOMMU + 15 },
	    { IOMMU + PAGE, IOMMU + PAGE + 15 } };
	struct mt_mapping maps[2];
	struct iovec iov[2];
	enum mt_result res;
	struct mt_sg sg;

	if (mt_dma_map_sg(w->bus, ranges, 2, MT_DMA_READ, MT_ATTRS_NONE, iov,
	    maps, 2, &sg) == -1)
		return (sg.result);
	res = sg.len == 32 ? MT_OK : MT_DENIED;
	must(mt_dma_unmap_sg(&sg, 0) == 0);
	return (res);
}

static void
submitted(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

static enum mt_result
do_submit(struct world *w)
{
	enum mt_result res = MT_DEVICE;
	struct mt_access acc;
	uint8_t buf[64];

	must(mt_access_submit(w->bus, &acc, IOMMU + IO, buf, sizeof(buf),
	    false, MT_ATTRS_NONE, submitted, &res) == 0);
	return (res);
}

static void
mapped(void *arg, const struct mt_iommu_event *ev)
{
	struct world *w = arg;

	(void)ev;
	w->told++;
	w->locked += is_held(w);
}

static enum mt_result
do_replay(struct world *w)
{
	struct mt_iommu_notifier n = { .range = { 0, 0xffff }, .fn = mapped,
	    .arg = w, .events = MT_IOMMU_MAP };

	w->told = 0;
	must(mt_iommu_register(w->io, &n) == 0);
	must(mt_iommu_replay(w->io, &n) == 0);
	must(mt_iommu_unregister(w->io, &n) == 0);
	return (w->told == 16 ? MT_OK : MT_DENIED);
}

static const struct {
	const char *name;
	enum mt_result (*fn)(struct world *);
} ways[] = {
	{ "a read", do_read },
	{ "a read of a device", do_read_io },
	{ "a write", do_write },
	{ "a load", do_load },
	{ "a store", do_store },
	{ "mt_space_set", do_set },
	{ "mt_space_write_rom", do_write_rom },
	{ "asking", do_valid },
	{ "a cache", do_cache },
	{ "a mapping", do_map },
	{ "a list of mappings", do_map_sg },
	{ "a submitted access", do_submit },
	{ "a replay", do_replay },
};

static void
test_held(void)
{
	struct world w;
	size_t i;

	begin(&w, true);
	for (i = 0; i < T_COUNT(ways); i++) {
		w.asked = 0;
		is_int(ways[i].fn(&w), MT_OK, "%s is translated",
		    ways[i].name);
		ok(w.asked > 0 && w.unlocked == 0,
		    "with the lock held each time");
		ok(!is_held(&w), "and not later");
	}
	ok(w.behind > 0, "a device behind it is called");
	is_int(w.locked, 0, "without the lock, as are notifiers");
	end(&w);

	begin(&w, false);
	is_int(do_read(&w), MT_OK, "without a lock");
	ok(w.unlocked == w.asked, "none is held");
	end(&w);
}

/* --- with its registers -------------------------------------------------- */

static void
test_registers(void)
{
	struct world w;

	begin(&w, true);
	w.n = (struct mt_iommu_notifier){ .range = { 0, 0xffff },
	    .events = MT_IOMMU_UNMAP, .fn = invalid, .arg = &w };
	must(mt_iommu_register(w.io, &w.n) == 0);
	is_int(mt_space_store_le32(w.bus, REGS, 0x2000), MT_OK,
	    "a register that has the lock can tell of a page");
	is_int(w.told, 1, "who hears of it maps that page anew");
	is_int(w.asked, 1, "through the IOMMU");
	is_int(w.unlocked, 0, "with the lock held, till the register has done");
	w.in_regs = w.bus;
	w.from = IOMMU;
	w.result = MT_DEVICE;
	is_int(mt_space_store_le32(w.bus, REGS, 0x2000), MT_OK,
	    "the IOMMU's own DMA");
	is_int(w.result, MT_OK, "is translated");
	w.from = IOMMU + IO;
	must(mt_space_store_le32(w.bus, REGS, 0x2000) == MT_OK);
	is_int(w.result, MT_OK, "to a device");
	is_int(w.locked, w.behind, "which finds the lock of the register held");
	ok(!is_held(&w), "all have given it back");
	must(mt_iommu_unregister(w.io, &w.n) == 0);
	end(&w);
}

/* --- with others that have it -------------------------------------------- */

struct reader {
	struct world *w;
	unsigned int failed;
};

static void *
run_reader(void *arg)
{
	struct reader *rd = arg;
	unsigned int i;
	uint64_t val;

	for (i = 0; i < ROUNDS; i++)
		if (mt_space_load(rd->w->bus, IOMMU + 8 * (i % 512), 8,
		    MT_LITTLE, &val, MT_ATTRS_NONE) != MT_OK)
			rd->failed++;
	return (NULL);
}

static void
test_threads(void)
{
	struct world w;
	struct reader readers[2] = { { &w, 0 }, { &w, 0 } };
	pthread_t thread;

	begin(&w, true);
	w.shared = true;
	must(pthread_create(&thread, NULL, run_reader, &readers[0]) == 0);
	run_reader(&readers[1]);
	pthread_join(thread, NULL);
	is_int(readers[0].failed + readers[1].failed, 0,
	    "two threads are translated");
	is_int(w.asked, 2 * ROUNDS, "one at a time");
	end(&w);
}

/* A lock that cannot be had; and who needs none does not ask for it. */
static void
test_refused(void)
{
	struct mt_attrs memory_only = { .memory_only = 1 };
	pthread_mutexattr_t attr;
	struct world w;
	uint64_t val = 7;
	uint8_t buf[4];
	size_t i;

	begin(&w, true);
	pthread_mutex_destroy(&w.lock);
	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&w.lock, &attr);
	pthread_mutexattr_destroy(&attr);
	must(pthread_mutex_lock(&w.lock) == 0);
	for (i = 0; i < T_COUNT(ways); i++)
		is_int(ways[i].fn(&w), MT_DENIED,
		    "with a lock that cannot be had %s is denied",
		    ways[i].name);
	is_int(w.asked + w.behind, 0, "and nobody is asked");
	must(pthread_mutex_unlock(&w.lock) == 0);
	is_int(do_read(&w), MT_OK, "later it is not");
	end(&w);

	/* The registers' lock is a plain one: this thread would wait for ever. */
	begin(&w, true);
	must(pthread_mutex_lock(&w.lock) == 0);
	is_int(mt_space_read(w.bus, REGS, buf, 4, memory_only) |
	    mt_space_load(w.bus, REGS, 4, MT_LITTLE, &val, memory_only) |
	    mt_space_write(w.bus, REGS, buf, 4, memory_only) |
	    mt_space_store(w.bus, REGS, 4, MT_LITTLE, 1, memory_only),
	    MT_DENIED, "who wants memory only takes no lock of a device");
	ok(!mt_space_valid(w.bus, REGS, 4, true, memory_only),
	    "nor to ask");
	must(pthread_mutex_unlock(&w.lock) == 0);
	end(&w);
}

int
main(void)
{
	test_set();
	test_held();
	test_registers();
	test_threads();
	test_refused();
	return (done());
}
