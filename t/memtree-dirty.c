/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Dirty logging: what marks a page, what a snapshot has, and that who copies
 * marked pages while they are written, for T_SECONDS, ends with a copy.
 */

#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "t/dirty.h"

/* --- on and off -------------------------------------------------------- */

static void
test_switch(void)
{
	struct world w;

	begin(&w);
	is_int(mt_region_log(w.ram), 0, "nobody logs at first");
	fails(mt_region_get_dirty(w.ram, C, 0, 1), ENOENT,
	    "who does not log cannot ask");
	fails(mt_region_test_and_clear_dirty(w.ram, C, 0, 1), ENOENT,
	    "nor take marks");
	fails_null(mt_dirty_snapshot_create(w.ram, C, 0, 1), ENOENT,
	    "nor a snapshot");
	works(mt_region_set_dirty(w.ram, 0, 1), "one may mark for nobody");
	fails(mt_region_set_log(w.ram, MT_DIRTY_CLIENTS, true), EINVAL,
	    "there are so many clients and no more");
	fails(mt_region_set_log(w.root, C, true), EINVAL,
	    "a container has no memory to log");
	fails(mt_region_set_log(w.alias, C, true), EINVAL,
	    "nor has an alias");

	works(mt_region_set_log(w.ram, C, true), "logging begins");
	is_int(mt_region_log(w.ram), 1 << C, "for one client");
	fails(mt_region_get_dirty(w.ram, C - 1, 0, 1), ENOENT,
	    "and no other");
	is_int(mt_region_get_dirty(w.ram, C, PAGES * PAGE - 1, 1), 1,
	    "the last page is marked at first");
	is_dirty(w.ram, "0-199", "as all are");
	is_dirty(w.ram, "", "a snapshot takes the marks away");
	works(mt_region_set_log(w.ram, C, true), "beginning twice");
	is_dirty(w.ram, "", "changes nothing");
	works(mt_region_set_log(w.ram, C, false), "logging ends");
	is_int(mt_region_log(w.ram), 0, "for all");
	fails(mt_region_get_dirty(w.ram, C, 0, 1), ENOENT,
	    "who does not log any more cannot ask");
	works(mt_region_set_log(w.ram, C, true), "logging begins again");
	is_dirty(w.ram, "0-199", "with all pages marked: some were missed");

	fails(mt_region_set_dirty(w.ram, 0, 0), EINVAL, "no bytes");
	fails(mt_region_set_dirty(w.ram, PAGES * PAGE, 1), EINVAL,
	    "past the end");
	fails(mt_region_set_dirty(w.ram, PAGE, SIZE_MAX - 1), EINVAL,
	    "far past the end");
	fails(mt_region_set_dirty(w.root, 0, 1), EINVAL, "of no memory");
	fails(mt_region_get_dirty(w.ram, C, UINT64_MAX, 1), EINVAL,
	    "to ask past the end");
	fails_null(mt_dirty_snapshot_create(w.ram, C, 0, PAGES * PAGE + 1),
	    EINVAL, "a snapshot past the end");
	fails(mt_region_sync_dirty(w.ram, 0, PAGES * PAGE + 1), EINVAL,
	    "to sync past the end");
	is_dirty(w.ram, "", "what failed marks nothing");
	end(&w);
}

/* --- what marks -------------------------------------------------------- */

static void
test_writes(void)
{
	static uint8_t buf[3 * PAGE];
	struct mt_attrs debug = { .debug = 1 };
	struct world w;
	uint64_t val;

	begin(&w);
	log_on(w.ram);
	log_on(w.rom);
	mt_space_read(w.sp, 0, buf, sizeof(buf), MT_ATTRS_NONE);
	mt_space_load(w.sp, 0x2000, 4, MT_LITTLE, &val, MT_ATTRS_NONE);
	is_dirty(w.ram, "", "reading marks nothing");
	mt_space_write(w.sp, 0x2fff, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "2", "a write of a byte");
	mt_space_write(w.sp, 0x2fff, buf, 2, MT_ATTRS_NONE);
	is_dirty(w.ram, "2-3", "a write across pages");
	mt_space_write(w.sp, 63 * PAGE - 1, buf, 2 * PAGE + 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "62-64", "a write across words of bits");
	mt_space_write(w.sp, 0x1000, buf, 0, MT_ATTRS_NONE);
	is_dirty(w.ram, "", "a write of nothing marks nothing");
	mt_space_set(w.sp, 100 * PAGE + 1, 0, 2 * PAGE, MT_ATTRS_NONE);
	is_dirty(w.ram, "100-102", "mt_space_set");
	mt_space_store_le32(w.sp, 0x4000, 1);
	is_dirty(w.ram, "4", "a store");
	mt_space_store_be64(w.sp, 0x4ffc, 1);
	is_dirty(w.ram, "4-5", "a store across pages");
	mt_space_write_rom(w.sp, 0x6000, buf, 2 * PAGE, MT_ATTRS_NONE);
	is_dirty(w.ram, "6-7", "mt_space_write_rom to RAM");
	mt_space_write_rom(w.sp, 0x101fff, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.rom, "0", "mt_space_write_rom to ROM");
	mt_space_write(w.sp, 0x102000, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.rom, "", "a write that ROM refuses marks nothing");
	mt_space_write(w.sp, 0x102000, buf, 1, debug);
	is_dirty(w.rom, "1", "a debugger's write to ROM");
	mt_space_store(w.sp, 0x101000, 1, MT_LITTLE, 1, debug);
	is_dirty(w.rom, "0", "a debugger's store to ROM");

	mt_space_write(w.sp, 0x200000, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "5", "a write through an alias");
	mt_space_store_u8(w.other, 0x9fff, 1);
	is_dirty(w.ram, "14", "and in a space on it");
	must(mt_region_set_readonly(w.alias, true) == 0);
	mt_space_write(w.sp, 0x200000, buf, 1, MT_ATTRS_NONE);
	mt_space_store_u8(w.other, 0x9fff, 1);
	is_dirty(w.ram, "", "what an alias refuses marks nothing");

	works(mt_region_set_dirty(w.ram, 0x7fff, 2), "mt_region_set_dirty");
	is_int(mt_region_get_dirty(w.ram, C, 0x7000, 1), 1, "marks a page");
	is_int(mt_region_get_dirty(w.ram, C, 0x9000, PAGE), 0, "not others");
	is_int(mt_region_get_dirty(w.ram, C, 0, 0x7001), 1,
	    "which shows in a range that reaches into it");
	is_dirty(w.ram, "7-8", "marks all that it touches");
	works(mt_region_set_dirty(w.ram, 0, PAGES * PAGE), "marking all");
	is_dirty(w.ram, "0-199", "marks all");
	end(&w);
}

static void
test_cache(void)
{
	struct mt_cache c;
	struct world w;
	uint32_t val;

	begin(&w);
	must(mt_cache_init(&c, w.sp, 0x2010, 4 * PAGE, RW, MT_ATTRS_NONE) ==
	    0);
	mt_cache_store_le32(&c, 0, 1);
	log_on(w.ram);
	mt_cache_load_le32(&c, 0, &val);
	is_dirty(w.ram, "", "a cache's load marks nothing");
	mt_cache_store_le32(&c, 0, 1);
	is_dirty(w.ram, "2", "the store of a cache older than the log marks");
	mt_cache_store_be64(&c, PAGE - 0x14, 1);
	is_dirty(w.ram, "2-3", "one across pages");
	mt_cache_store(&c, 2 * PAGE, 4, MT_LITTLE, 1);
	is_dirty(w.ram, "4", "one that is not inlined");
	mt_cache_write(&c, 0, "0123456789", 10);
	is_dirty(w.ram, "2", "a write");
	must(mt_region_move(w.ram, 0x400000) == 0);
	mt_cache_store_u8(&c, 0, 1);
	is_dirty(w.ram, "2", "a store in a view that was replaced");
	must(mt_region_set_log(w.ram, C, false) == 0);
	mt_cache_store_u8(&c, 0, 1);
	must(mt_region_set_log(w.ram, MT_DIRTY_VGA, true) == 0);
	dirty(w.ram, MT_DIRTY_VGA);
	mt_cache_store_u8(&c, PAGE, 1);
	is_str(dirty(w.ram, MT_DIRTY_VGA), "3", "a store for another client");
	mt_cache_fini(&c);

	/* Through an alias: offsets of the region count. */
	log_on(w.ram);
	must(mt_cache_init(&c, w.other, 0x1000, PAGE, MT_DMA_WRITE,
	    MT_ATTRS_NONE) == 0);
	mt_cache_store_u8(&c, PAGE - 1, 1);
	is_dirty(w.ram, "6", "a store in a window on an alias");
	mt_cache_fini(&c);
	/* One without memory in place has nothing to look at. */
	must(mt_cache_init(&c, w.sp, 0x100000, 16, RW, MT_ATTRS_NONE) == 0);
	is_int(mt_cache_store_le32(&c, 0, 1), MT_OK,
	    "a store to a device is a store to a device");
	mt_cache_fini(&c);
	end(&w);
}

static void
done_with(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

static void
test_mappings(void)
{
	struct mt_range ranges[3] = { { 0x1000, 0x1fff }, { 0x2000, 0x27ff },
	    { 0x5000, 0x6fff } };
	static uint8_t buf[2 * PAGE];
	struct mt_mapping map, maps[3];
	struct iovec iov[3];
	struct mt_access acc;
	enum mt_result res = MT_DEVICE;
	struct world w;
	struct mt_sg sg;

	begin(&w);
	must(mt_dma_map(w.sp, 0x1800, 4 * PAGE, RW, MT_ATTRS_NONE, &map) ==
	    0);
	log_on(w.ram);
	is_dirty(w.ram, "", "a mapping is not marked before it is over");
	works(mt_dma_set_dirty(&map, PAGE, 1), "unless its user says so");
	is_dirty(w.ram, "2", "for a part of it");
	works(mt_dma_set_dirty(&map, 4 * PAGE, 0), "or for none");
	fails(mt_dma_set_dirty(&map, 1, 4 * PAGE), ERANGE, "not past its end");
	works(mt_dma_unmap(&map, PAGE), "unmap");
	is_dirty(w.ram, "1-2", "what was written of it, and no more");
	fails(mt_dma_set_dirty(&map, 0, 1), EINVAL, "then it is over");
	must(mt_dma_map(w.sp, 0x1800, PAGE, RW, MT_ATTRS_NONE, &map) == 0);
	works(mt_dma_unmap(&map, 0), "unmap with nothing written");
	is_dirty(w.ram, "", "marks nothing");
	must(mt_dma_map(w.sp, 0x1800, PAGE, MT_DMA_READ, MT_ATTRS_NONE,
	    &map) == 0);
	fails(mt_dma_set_dirty(&map, 0, 1), EINVAL,
	    "a mapping to be read is not written");
	works(mt_dma_unmap(&map, PAGE), "unmap after reading");
	is_dirty(w.ram, "", "marks nothing");
	must(mt_dma_map(w.other, 0x1fff, 2, RW, MT_ATTRS_NONE, &map) == 0);
	works(mt_dma_unmap(&map, 2), "unmap through an alias");
	is_dirty(w.ram, "6-7", "marks the pages of the region");

	must(mt_dma_map_sg(w.sp, ranges, 3, RW, MT_ATTRS_NONE, iov, maps, 3,
	    &sg) == 0 && sg.len == 0x3800 && sg.niov == 2);
	works(mt_dma_set_dirty(&maps[1], PAGE, 1), "a piece of a list");
	is_dirty(w.ram, "6", "can be marked");
	works(mt_dma_unmap_sg(&sg, 0x1801), "unmap a list");
	is_dirty(w.ram, "1-2 5", "each piece as far as it was written");

	/* The second half of this lies in what is behind the device. */
	must(mt_region_move(w.ram, 0x101000) == 0);
	must(mt_region_del(w.rom) == 0);
	must(mt_dma_map(w.sp, 0x100ff0, 32, RW, MT_ATTRS_NONE, &map) == 0 &&
	    map.bounced);
	works(mt_dma_set_dirty(&map, 0, 32), "a bounce buffer");
	is_dirty(w.ram, "", "is not the memory");
	must(map.len == 32);
	works(mt_dma_unmap(&map, 32), "its write-back");
	is_dirty(w.ram, "0", "marks the memory that it reaches");

	works(mt_access_submit(w.sp, &acc, 0x102000, buf, PAGE + 1, true,
	    MT_ATTRS_NONE, done_with, &res), "a write that is submitted");
	is_int(res, MT_OK, "is over");
	is_dirty(w.ram, "1-2", "and has marked");
	mt_access_submit(w.sp, &acc, 0x102000, buf, PAGE + 1, false,
	    MT_ATTRS_NONE, done_with, &res);
	is_dirty(w.ram, "", "a read that is submitted marks nothing");
	end(&w);
}

static enum mt_result
answer(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)buf, (void)len, (void)attrs;
	return (MT_OK);
}

static void
test_rom_device(void)
{
	static const struct mt_io_ops ops = { .write_buf = answer };
	struct mt_topology *t = t_topology();
	struct mt_region *r;
	struct mt_space *sp;
	uint8_t buf[16];

	r = mt_region_create_rom_device(t, "flash", MT_SIZE(2 * PAGE), NULL,
	    &ops, NULL);
	must(r != NULL);
	sp = t_space(r);
	works(mt_region_set_log(r, C, true), "a ROM device can be logged");
	dirty(r, C);
	mt_space_write(sp, 0, buf, sizeof(buf), MT_ATTRS_NONE);
	is_dirty(r, "", "what its callback writes is for the device to mark");
	mt_space_write_rom(sp, PAGE, buf, sizeof(buf), MT_ATTRS_NONE);
	is_dirty(r, "1", "mt_space_write_rom marks");
	t_end_space(t, sp, r);
}

static void
test_clients(void)
{
	struct world w;

	begin(&w);
	must(mt_region_set_log(w.ram, 0, true) == 0);
	must(mt_region_set_log(w.ram, MT_DIRTY_CLIENTS - 1, true) == 0);
	is_int(mt_region_log(w.ram), 0x81, "two clients");
	dirty(w.ram, 0);
	is_str(dirty(w.ram, 7), "0-199", "one's snapshot leaves the other's");
	mt_space_store_u8(w.sp, 0x3000, 1);
	is_int(mt_region_test_and_clear_dirty(w.ram, 0, 0x3000, 1), 1,
	    "a write is marked for the one");
	is_int(mt_region_test_and_clear_dirty(w.ram, 0, 0x3000, 1), 0,
	    "who takes the mark");
	is_str(dirty(w.ram, 7), "3", "and for the other");
	must(mt_region_set_log(w.ram, 0, false) == 0);
	mt_space_store_u8(w.sp, 0x4000, 1);
	is_str(dirty(w.ram, 7), "4", "that one ends is nothing to the other");
	end(&w);
}

/* --- snapshots --------------------------------------------------------- */

static void
test_snapshot(void)
{
	struct mt_dirty_snapshot *s, *none;
	struct mt_range run;
	struct world w;

	begin(&w);
	log_on(w.ram);
	none = mt_dirty_snapshot_create(w.ram, C, 0x1000, 1);
	must(none != NULL);
	mt_region_set_dirty(w.ram, 70 * PAGE, 60 * PAGE);
	mt_region_set_dirty(w.ram, 199 * PAGE, 1);
	s = mt_dirty_snapshot_create(w.ram, C, 100 * PAGE + 5, 50 * PAGE);
	must(s != NULL);
	is_str(snapshot_text(s), "100-129", "a snapshot of a part has that");
	is_dirty(w.ram, "70-99 199", "and leaves the rest");
	ok(mt_dirty_snapshot_get(s, 100 * PAGE, 1) &&
	    mt_dirty_snapshot_get(s, 130 * PAGE - 1, 1), "marked at its ends");
	ok(!mt_dirty_snapshot_get(s, 70 * PAGE, 30 * PAGE) &&
	    !mt_dirty_snapshot_get(s, 130 * PAGE, 20 * PAGE),
	    "not marked beside them");
	ok(mt_dirty_snapshot_get(s, 0, SIZE_MAX), "somewhere");
	ok(!mt_dirty_snapshot_get(s, 110 * PAGE, 0), "not in no bytes");
	ok(!mt_dirty_snapshot_get(s, UINT64_MAX, SIZE_MAX),
	    "not far past the end");
	ok(mt_dirty_snapshot_next(s, 110 * PAGE + 7, &run), "from its middle");
	is_hex(run.first, 110 * PAGE, "a run begins with that page");
	is_hex(run.last, 130 * PAGE - 1, "and goes to its end");
	ok(!mt_dirty_snapshot_next(s, 130 * PAGE, &run), "that was the last");
	ok(!mt_dirty_snapshot_next(s, MT_LAST_MAX, &run),
	    "nor is one far past the end");
	ok(!mt_dirty_snapshot_next(none, 0, &run), "one without marks");
	end(&w);
	is_str(snapshot_text(s), "100-129", "a snapshot outlives its region");
	mt_dirty_snapshot_destroy(s);
	mt_dirty_snapshot_destroy(none);
	mt_dirty_snapshot_destroy(NULL);
}

/* Memory that does not end with a page. */
static void
test_odd_size(void)
{
	static uint8_t bytes[PAGE + 100];
	const struct mt_backing backing = { .kind = MT_BACKING_PTR,
	    .ptr = bytes };
	struct mt_topology *t = t_topology();
	struct mt_dirty_snapshot *s;
	struct mt_region *r;
	struct mt_range run;

	r = mt_region_create_ram(t, "odd", MT_SIZE(sizeof(bytes)), &backing);
	must(r != NULL);
	must(mt_region_set_log(r, C, true) == 0);
	s = mt_dirty_snapshot_create(r, C, PAGE, 1);
	must(s != NULL && mt_dirty_snapshot_next(s, 0, &run));
	is_hex(run.first, PAGE, "the last page begins as pages do");
	is_hex(run.last, sizeof(bytes) - 1, "and ends with the memory");
	ok(!mt_dirty_snapshot_next(s, run.last + 1, &run),
	    "behind that there is nothing");
	mt_dirty_snapshot_destroy(s);
	mt_region_put(r);
	t_end(t);
}

static void
test_resize(void)
{
	struct world w;

	begin(&w);
	log_on(w.ram);
	mt_space_store_u8(w.sp, 150 * PAGE, 1);
	must(mt_region_resize(w.ram, MT_SIZE(100 * PAGE)) == 0);
	mt_space_store_u8(w.sp, 50 * PAGE, 1);
	mt_space_store_u8(w.sp, 160 * PAGE, 1);
	is_dirty(w.ram, "50", "a shorter region has the marks that it shows");
	must(mt_region_resize(w.ram, MT_SIZE(PAGES * PAGE)) == 0);
	is_dirty(w.ram, "150", "and the others when it has grown again");
	end(&w);
}

/* Random marks and looks against a naive array. */
static void
test_model(void)
{
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL));
	bool model[PAGES] = { false }, want;
	struct mt_dirty_snapshot *s;
	size_t first, n, i, k;
	unsigned int bad = 0;
	struct world w;

	diag("T_SEED=%" PRIu64, seed);
	begin(&w);
	log_on(w.ram);
	for (i = 0; i < 20000; i++) {
		first = t_below(&seed, PAGES);
		n = 1 + t_below(&seed, t_below(&seed, 4) == 0 ?
		    PAGES - first : 1);
		switch (t_below(&seed, 4)) {
		case 0:
		case 1:
			mt_region_set_dirty(w.ram, first * PAGE, n * PAGE);
			for (k = first; k < first + n; k++)
				model[k] = true;
			break;
		case 2:
			for (want = false, k = first; k < first + n; k++)
				want = want || model[k];
			bad += mt_region_get_dirty(w.ram, C, first * PAGE,
			    n * PAGE) != want;
			break;
		case 3:
			s = mt_dirty_snapshot_create(w.ram, C, first * PAGE,
			    n * PAGE);
			must(s != NULL);
			for (k = 0; k < PAGES; k++) {
				want = k >= first && k < first + n && model[k];
				bad += mt_dirty_snapshot_get(s, k * PAGE, 1)
				    != want;
				if (want)
					model[k] = false;
			}
			mt_dirty_snapshot_destroy(s);
		}
	}
	is_int(bad, 0, "random marks are as in a naive array");
	end(&w);
}

/* --- threads ----------------------------------------------------------- */

#define T_PAGES		66		/* two words */
#define WORDS		(PAGE / 8)
#define NWRITERS	5

static struct {
	struct mt_space *sp;
	struct mt_space *iommu;		/* page 0 of it is the RAM's last */
	struct mt_region *ram;
	uint64_t *copy;
	size_t copied;
	unsigned int stop;		/* atomic */
} race;

struct writer {
	pthread_t id;
	uint64_t seed;
	unsigned int way;
	uint64_t n;
};

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	(void)arg, (void)flags, (void)attrs;
	*out = (struct mt_iotlb){ race.sp, (T_PAGES - 1 - off / PAGE) * PAGE,
	    PAGE - 1, RW };
}

static const struct mt_iommu_ops iommu_ops = { .translate = translate };

static bool
racing(void)
{
	return (__atomic_load_n(&race.stop, __ATOMIC_RELAXED) == 0);
}

/* Each in a way of its own; words are written whole. */
static void *
run_writer(void *arg)
{
	struct writer *w = arg;
	struct mt_mapping map;
	struct mt_cache c;
	uint64_t val, *p;
	mt_addr addr;

	must(mt_cache_init(&c, race.sp, 0, T_PAGES * PAGE, MT_DMA_WRITE,
	    MT_ATTRS_NONE) == 0);
	for (; racing(); w->n++) {
		addr = t_below(&w->seed, T_PAGES * WORDS) * 8;
		val = t_random(&w->seed);
		switch (w->way) {
		case 0:
			mt_space_store_le64(race.sp, addr, val);
			break;
		case 1:
			mt_cache_store_le64(&c, addr, val);
			break;
		case 2:
			mt_space_write(race.sp, addr, &val, 8, MT_ATTRS_NONE);
			break;
		case 3:
			must(mt_dma_map(race.sp, addr, 8, MT_DMA_WRITE,
			    MT_ATTRS_NONE, &map) == 0);
			p = map.ptr;
			__atomic_store_n(p, val, __ATOMIC_RELAXED);
			must(mt_dma_unmap(&map, 8) == 0);
			break;
		case 4:
			mt_space_store_le64(race.iommu, addr, val);
			break;
		}
	}
	mt_cache_fini(&c);
	return (NULL);
}

/* Copy what is marked. */
static void
copy_marked(void)
{
	struct mt_dirty_snapshot *s;
	struct mt_range run;
	mt_addr at;
	uint64_t *from = mt_region_ptr(race.ram);

	s = mt_dirty_snapshot_create(race.ram, C, 0, T_PAGES * PAGE);
	must(s != NULL);
	for (at = 0; mt_dirty_snapshot_next(s, at, &run); at = run.last + 1)
		for (at = run.first / 8; at <= run.last / 8; at++, race.copied++)
			race.copy[at] = __atomic_load_n(&from[at],
			    __ATOMIC_RELAXED);
	mt_dirty_snapshot_destroy(s);
}

/*
 * Rounds: logging begins while all write, marked pages are copied all the
 * time, the writers end, and one last time.
 */
static void
test_race(void)
{
	double seconds = t_seconds(1);
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL)), n = 0;
	struct writer writers[NWRITERS];
	unsigned int rounds = 0, bad = 0, i, k;
	struct mt_topology *t = t_topology();
	struct mt_region *root, *iommu;
	time_t until = time(NULL) + (time_t)seconds + 1;

	diag("T_SEED=%" PRIu64 " T_SECONDS=%g", seed, seconds);
	root = t_container(t, "root", 0x100000);
	race.ram = t_add(root, 0, 0, t_ram(t, "ram", T_PAGES * PAGE));
	race.sp = t_space(root);
	iommu = mt_region_create_iommu(t, "iommu", T_PAGES * PAGE - 1,
	    &iommu_ops, NULL);
	must(iommu != NULL);
	race.iommu = t_space(iommu);
	race.copy = calloc(T_PAGES, PAGE);
	must(race.copy != NULL);
	do {
		__atomic_store_n(&race.stop, 0, __ATOMIC_RELAXED);
		for (i = 0; i < NWRITERS; i++) {
			writers[i] = (struct writer){ .way = i,
			    .seed = seed + rounds * NWRITERS + i };
			must(pthread_create(&writers[i].id, NULL, run_writer,
			    &writers[i]) == 0);
		}
		sched_yield();
		must(mt_region_set_log(race.ram, C, true) == 0);
		for (k = 0; k < 5 + rounds % 20; k++) {
			copy_marked();
			if (k % 4 == 3)
				usleep(100);
		}
		/* Another client comes and goes beside. */
		must(mt_region_set_log(race.ram, 0, rounds % 2 == 0) == 0);
		copy_marked();
		__atomic_store_n(&race.stop, 1, __ATOMIC_RELAXED);
		for (i = 0; i < NWRITERS; i++) {
			pthread_join(writers[i].id, NULL);
			n += writers[i].n;
		}
		copy_marked();
		bad += memcmp(race.copy, mt_region_ptr(race.ram),
		    T_PAGES * PAGE) != 0;
		must(mt_region_set_log(race.ram, C, false) == 0);
		/* What is not copied again in the next round shows. */
		memset(race.copy, 0, T_PAGES * PAGE);
		rounds++;
	} while (time(NULL) < until);
	diag("%u rounds, %" PRIu64 " writes, %zu words copied", rounds, n,
	    race.copied);
	is_int(bad, 0, "who copies marked pages ends with a copy");
	ok(n > rounds && race.copied > T_PAGES * WORDS,
	    "of what was written meanwhile");
	free(race.copy);
	must(mt_space_destroy(race.iommu) == 0);
	mt_region_put(iommu);
	t_end_space(t, race.sp, root);
}

int
main(void)
{
	test_switch();
	test_writes();
	test_cache();
	test_mappings();
	test_rom_device();
	test_clients();
	test_snapshot();
	test_odd_size();
	test_resize();
	test_model();
	test_race();
	return (done());
}
