/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* IOMMU regions: where accesses go, what faults, and who is told. */

#include <sched.h>
#include <time.h>

#include "t/util.h"

#define PAGE	0x1000u
#define NPAGES	16
#define ANY	(MT_IOMMU_READ | MT_IOMMU_WRITE)
#define RD	MT_IOMMU_READ

/* An IOMMU with one entry a page, that writes down what it is asked. */
struct iommu {
	struct mt_iommu_ops ops;
	struct mt_iotlb tlb[NPAGES];
	mt_addr min;			/* 0: no min_page */
	char text[T_TEXT];		/* "0:r 1000:wq" */
	unsigned int calls, faults;
	unsigned int was, now;		/* as notify_changed had them */
	unsigned int changes;
	int refuse;			/* an errno */
};

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	struct iommu *io = arg;

	(void)attrs;
	must(off / PAGE < NPAGES);
	must(out->target == NULL && out->mask == 0 && out->perm == 0);
	*out = io->tlb[off / PAGE];
	io->calls++;
	if ((flags & ANY & ~out->perm) != 0 && (flags & MT_IOMMU_QUIET) == 0)
		io->faults++;
	if (strlen(io->text) < T_TEXT - 64)
		t_append(io->text, "%s%" PRIx64 ":%s%s%s",
		    io->text[0] != '\0' ? " " : "", off,
		    flags & MT_IOMMU_READ ? "r" : "",
		    flags & MT_IOMMU_WRITE ? "w" : "",
		    flags & MT_IOMMU_QUIET ? "q" : "");
}

static mt_addr
min_page(void *arg)
{
	return (((struct iommu *)arg)->min);
}

static unsigned int
index_of(void *arg, struct mt_attrs attrs)
{
	(void)arg;
	return (attrs.requester_id);
}

static int
notify_changed(void *arg, unsigned int was, unsigned int now)
{
	struct iommu *io = arg;

	io->was = was;
	io->now = now;
	io->changes++;
	if (io->refuse != 0 && (now & ~was) != 0) {
		errno = io->refuse;
		return (-1);
	}
	return (0);
}

#define is_asked(io, want, ...)	do {					\
	is_str((io)->text, want, __VA_ARGS__);				\
	(io)->text[0] = '\0';						\
	(io)->calls = 0;						\
} while (0)

static unsigned int
faults_of(struct iommu *io)
{
	unsigned int n = io->faults;

	io->faults = 0;
	return (n);
}

static void
set(struct iommu *io, unsigned int page, struct mt_space *target, mt_addr addr,
    mt_addr mask, unsigned int perm)
{
	io->tlb[page] = (struct mt_iotlb){ target, addr, mask, perm };
}

/*
 * The memory: 0-ffff ram, whose bytes are the number of their page, then
 * 20000-20fff io, 30000-33fff other, 40000-40fff rom.
 * The bus: 0-fff local, 10000-1ffff the IOMMU.
 */
struct world {
	struct mt_topology *t;
	struct mt_region *mem_root, *ram, *other, *rom;
	struct mt_region *bus_root, *local, *io;
	struct mt_space *mem, *bus;
	struct iommu iommu;
	struct t_dev dev;
};

#define BUS	0x10000		/* where the IOMMU is */

static void
begin(struct world *w)
{
	unsigned int i;

	memset(w, 0, sizeof(*w));
	w->iommu.ops.translate = translate;
	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE, .valid = { 1, 8, 0 },
	    .impl = { 1, 8, 0 });
	w->t = t_topology();
	w->mem_root = t_container(w->t, "memory", 0x100000);
	w->ram = t_add(w->mem_root, 0, 0, t_ram(w->t, "ram", 0x10000));
	t_add(w->mem_root, 0x20000, 0, t_io(w->t, "io", PAGE, &w->dev));
	w->other = t_add(w->mem_root, 0x30000, 0,
	    t_ram(w->t, "other", 0x4000));
	w->rom = t_add(w->mem_root, 0x40000, 0, t_rom(w->t, "rom", PAGE));
	for (i = 0; i < NPAGES; i++)
		memset((uint8_t *)mt_region_ptr(w->ram) + i * PAGE, (int)i,
		    PAGE);
	w->mem = t_space(w->mem_root);
	w->bus_root = t_container(w->t, "bus", 0x100000);
	w->local = t_add(w->bus_root, 0, 0, t_ram(w->t, "local", PAGE));
	w->io = mt_region_create_iommu(w->t, "iommu", MT_SIZE(NPAGES * PAGE),
	    &w->iommu.ops, &w->iommu);
	must(w->io != NULL);
	t_add(w->bus_root, BUS, 0, w->io);
	w->bus = t_space(w->bus_root);
}

static void
end(struct world *w)
{
	is_int(mt_dma_bounce_used(w->bus), 0, "all budget has come back");
	must(mt_space_destroy(w->bus) == 0);
	must(mt_space_destroy(w->mem) == 0);
	mt_region_put(w->bus_root);
	mt_region_put(w->mem_root);
	must(mt_topology_sync(w->t) == 0);
	t_end(w->t);
}

static enum mt_result
rd(struct world *w, mt_addr addr, void *buf, size_t len)
{
	return (mt_space_read(w->bus, addr, buf, len, MT_ATTRS_NONE));
}

static enum mt_result
wr(struct world *w, mt_addr addr, const void *buf, size_t len)
{
	return (mt_space_write(w->bus, addr, buf, len, MT_ATTRS_NONE));
}

/* --- where accesses go --------------------------------------------------- */

static void
test_translate(void)
{
	static const struct mt_iommu_ops none = { 0 };
	struct world w;
	uint8_t buf[4 * PAGE], *ram;

	begin(&w);
	fails_null(mt_region_create_iommu(w.t, "x", 0, &none, NULL), EINVAL,
	    "an IOMMU that does not translate is none");
	fails_null(mt_region_create_iommu(w.t, "x", 0, NULL, NULL), EINVAL,
	    "nor is one without callbacks");
	is_int(mt_region_kind(w.io), MT_IOMMU, "the region is of its kind");
	ok(mt_region_arg(w.io) == &w.iommu, "and has its argument");
	is_hex(mt_iommu_min_page(w.io), 4096, "a page has 4 KiB by default");
	w.iommu.ops.min_page = min_page;
	w.iommu.min = 0x10000;
	is_hex(mt_iommu_min_page(w.io), 0x10000, "or what the model says");
	w.iommu.min = 0x3000;
	is_hex(mt_iommu_min_page(w.io), 4096, "if that is a power of two");
	is_hex(mt_iommu_min_page(w.ram), 0, "RAM has none");
	w.iommu.ops.min_page = NULL;

	ram = mt_region_ptr(w.ram);
	set(&w.iommu, 0, w.mem, 0x7000, 0xfff, ANY);
	set(&w.iommu, 1, w.mem, 0x2abc, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x5000, 0xfff, ANY);
	is_read(w.bus, BUS + 0x10, 2, "0707", "a page leads elsewhere");
	is_asked(&w.iommu, "10:r", "by one question");
	is_read(w.bus, BUS + 0xffe, 4, "07070202",
	    "an access is cut at the end of a page");
	is_asked(&w.iommu, "ffe:r 1000:r", "with a question for each");
	is_int(rd(&w, BUS + 0x800, buf, 0x2000), MT_OK, "three pieces");
	is_asked(&w.iommu, "800:r 1000:r 2000:r", "are three questions");
	ok(buf[0] == 7 && buf[0x7ff] == 7 && buf[0x800] == 2 &&
	    buf[0x17ff] == 2 && buf[0x1800] == 5, "each from its page");
	is_int(wr(&w, BUS + 0x1ffe, "abcd", 4), MT_OK, "a write");
	is_mem(ram + 0x2ffe, "ab", 2, "goes to the end of a page");
	is_mem(ram + 0x5000, "cd", 2, "and the beginning of another");
	is_asked(&w.iommu, "1ffe:w 2000:w", "and is told from a read");
	is_int(mt_space_set(w.bus, BUS, 0x55, 0x1800, MT_ATTRS_NONE), MT_OK,
	    "bytes are set");
	is_asked(&w.iommu, "0:w 1000:w", "page by page");
	ok(ram[0x7000] == 0x55 && ram[0x7fff] == 0x55 && ram[0x2000] == 0x55 &&
	    ram[0x27ff] == 0x55 && ram[0x2800] == 2, "where they lead");

	set(&w.iommu, 3, w.mem, 0x40000, 0xfff, ANY);
	is_int(wr(&w, BUS + 0x3000, "x", 1), MT_DECODE, "ROM is ROM");
	is_int(mt_space_write_rom(w.bus, BUS + 0x2ffe, "0123", 4,
	    MT_ATTRS_NONE), MT_OK, "and loaded through it");
	is_mem(mt_region_ptr(w.rom), "23", 2, "where it is");
	is_mem(ram + 0x5ffe, "01", 2, "as is the rest");
	end(&w);
}

/* What a page covers is for the model to say. */
static void
test_masks(void)
{
	struct mt_topology *t2 = t_topology();
	struct mt_region *r2 = t_container(t2, "x", 0x1000);
	struct mt_space *sp2 = t_space(r2);
	struct world w;
	uint8_t buf[8 * PAGE];

	begin(&w);
	set(&w.iommu, 4, w.mem, 0x8000, 0x3fff, ANY);
	set(&w.iommu, 5, w.mem, 0x8000, 0x3fff, ANY);
	is_int(rd(&w, BUS + 0x4000, buf, 0x4000), MT_OK, "a large page");
	is_asked(&w.iommu, "4000:r", "is one question");
	ok(buf[0] == 8 && buf[0x3fff] == 11, "for all of it");
	is_read(w.bus, BUS + 0x5000, 1, "09", "also from its middle on");
	is_asked(&w.iommu, "5000:r", "with a question of its own");
	set(&w.iommu, 0, w.mem, 0x3000, 0, ANY);
	is_read(w.bus, BUS + 0x123, 3, "030303", "pages may be of one byte");
	is_asked(&w.iommu, "123:r 124:r 125:r", "asked one by one");
	set(&w.iommu, 0, w.mem, 0, MT_LAST_MAX, ANY);
	is_int(rd(&w, BUS, buf, sizeof(buf)), MT_OK, "and of all addresses");
	is_asked(&w.iommu, "0:r", "asked once");
	is_hex(buf[0x3000], 3, "and are followed");

	set(&w.iommu, 1, w.mem, 0, 0xffe, ANY);
	is_read(w.bus, BUS + 0x1000, 2, "0000 with 1",
	    "a mask that is none is an error of the IOMMU");
	set(&w.iommu, 1, NULL, 0, 0xfff, ANY);
	is_read(w.bus, BUS + 0x1000, 2, "0000 with 1", "so is no target");
	set(&w.iommu, 1, sp2, 0, 0xfff, ANY);
	is_read(w.bus, BUS + 0x1000, 2, "0000 with 1",
	    "and one of another topology");
	end(&w);
	t_end_space(t2, sp2, r2);
}

static void
test_faults(void)
{
	const struct mt_attrs debug = { .debug = 1 };
	struct world w;
	uint8_t buf[3 * PAGE], *ram;
	uint64_t val = 1;

	begin(&w);
	ram = mt_region_ptr(w.ram);
	set(&w.iommu, 0, w.mem, 0x1000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x2000, 0xfff, RD);
	memset(buf, 0xee, sizeof(buf));
	is_int(rd(&w, BUS, buf, sizeof(buf)), MT_DENIED, "a fault is denied");
	is_int(faults_of(&w.iommu), 1, "and is one, whatever its length");
	ok(buf[0] == 1 && buf[0xfff] == 1, "what was before it is read");
	ok(buf[0x1000] == 0 && buf[0x1fff] == 0, "it reads as zero");
	ok(buf[0x2000] == 2 && buf[0x2fff] == 2, "what is behind is read");
	is_asked(&w.iommu, "0:r 1000:r 2000:r", "all of that in three pieces");
	memset(buf, 0xee, sizeof(buf));
	is_int(wr(&w, BUS, buf, sizeof(buf)), MT_DENIED,
	    "a write where reading is allowed is denied");
	is_int(faults_of(&w.iommu), 2, "and one fault a page");
	ok(ram[0x1fff] == 0xee && ram[0x2000] == 2, "which writes nothing");
	is_int(mt_space_set(w.bus, BUS, 0, sizeof(buf), MT_ATTRS_NONE),
	    MT_DENIED, "so is setting");
	is_int(faults_of(&w.iommu), 2, "with as many");
	is_int(mt_space_write_rom(w.bus, BUS + 0xffe, buf, 0x1008,
	    MT_ATTRS_NONE), MT_DENIED, "and loading");
	is_int(faults_of(&w.iommu), 2, "with as many");
	is_int(mt_space_load(w.bus, BUS + 0x1000, 8, MT_LITTLE, &val,
	    MT_ATTRS_NONE), MT_DENIED, "a load that faults is denied");
	is_hex(val, 0, "gives zero");
	is_int(faults_of(&w.iommu), 1, "and faults once");
	is_int(mt_space_store(w.bus, BUS + 0x2000, 8, MT_LITTLE, 0,
	    MT_ATTRS_NONE), MT_DENIED, "so does a store");
	is_int(faults_of(&w.iommu), 1, "and faults once");
	is_int(mt_space_load(w.bus, BUS + 0xffc, 8, MT_LITTLE, &val,
	    MT_ATTRS_NONE), MT_DENIED, "half a load");
	is_hex(val, 0xeeee0000, "is what it could read");
	is_int(faults_of(&w.iommu), 1, "and one fault");
	w.iommu.text[0] = '\0';

	w.iommu.tlb[1].mask = 0x1ff;
	(void)rd(&w, BUS + 0x1000, buf, PAGE);
	is_int(faults_of(&w.iommu), 1, "a fault has a whole page at least");
	set(&w.iommu, 4, NULL, 0, 0x3fff, 0);
	is_int(rd(&w, BUS + 0x4000, buf, 0x2000), MT_DENIED, "a large fault");
	is_int(faults_of(&w.iommu), 1, "is one");
	w.iommu.text[0] = '\0';

	is_int(mt_space_read(w.bus, BUS + 0x1000, buf, 4, debug), MT_DENIED,
	    "a debugger's fault is denied");
	is_int(mt_space_write(w.bus, BUS + 0x2000, buf, 4, debug), MT_DENIED,
	    "and so is its write");
	is_asked(&w.iommu, "1000:rq 2000:wq", "but not to be reported");
	ok(mt_space_valid(w.bus, BUS, 8, true, MT_ATTRS_NONE),
	    "what may be written is valid");
	ok(mt_space_valid(w.bus, BUS + 0x2000, 8, false, MT_ATTRS_NONE),
	    "what may be read is");
	ok(!mt_space_valid(w.bus, BUS + 0x2000, 8, true, MT_ATTRS_NONE),
	    "what may only be read is not to be written");
	ok(!mt_space_valid(w.bus, BUS + 0xff0, 0x20, false, MT_ATTRS_NONE),
	    "what faults in part is not");
	is_asked(&w.iommu, "0:q 2000:q 2000:q ff0:q 1000:q",
	    "nobody hears of it");
	is_int(w.iommu.faults, 0, "in no way");
	end(&w);
}

/* Where it is read-only on the way nothing is written through it. */
static void
test_readonly(void)
{
	struct mt_mapping map;
	struct world w;

	begin(&w);
	set(&w.iommu, 0, w.mem, 0x1000, 0xfff, ANY);
	must(mt_region_set_readonly(w.io, true) == 0);
	is_int(wr(&w, BUS, "x", 1), MT_DECODE, "a read-only IOMMU");
	is_asked(&w.iommu, "", "is not asked about a write");
	is_read(w.bus, BUS, 1, "01", "and can be read");
	fails(mt_dma_map(w.bus, BUS, 4, MT_DMA_WRITE, MT_ATTRS_NONE, &map),
	    EFAULT, "nor mapped for writing");
	is_int(map.result, MT_DECODE, "which the mapping tells");
	end(&w);
}

/* A value that one device takes whole is not cut on the way. */
static void
test_typed(void)
{
	struct world w;
	uint64_t val;

	begin(&w);
	set(&w.iommu, 0, w.mem, 0x20000, 0xfff, ANY);
	set(&w.iommu, 1, w.mem, 0x3000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x4000, 0xfff, ANY);
	is_int(mt_space_load(w.bus, BUS + 8, 8, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_OK, "a load from a device");
	is_calls(&w.dev, "r 8/8", "is one call");
	is_hex(val, 0x08090a0b0c0d0e0f, "in the byte order asked for");
	is_int(mt_space_store(w.bus, BUS + 8, 8, MT_LITTLE, 0x1122334455667788,
	    MT_ATTRS_NONE), MT_OK, "a store");
	is_calls(&w.dev, "w 8/8=1122334455667788", "is one call");
	is_int(mt_space_store(w.bus, BUS + 4, 4, MT_BIG, 0x11223344,
	    MT_ATTRS_NONE), MT_OK, "one in the other order");
	is_calls(&w.dev, "w 4/4=44332211", "is swapped once");
	w.dev.ops.valid.max = 0;
	must(mt_space_load(w.bus, BUS + 8, 8, MT_LITTLE, &val, MT_ATTRS_NONE)
	    == MT_OK);
	is_calls(&w.dev, "r 8/8", "whole also where a buffer");
	is_str(t_read(w.bus, BUS + 8, 8), "08090a0b0c0d0e0f", "of that size");
	is_calls(&w.dev, "r 8/4, r c/4", "is cut");
	w.iommu.text[0] = '\0';
	is_int(mt_space_load(w.bus, BUS + 0x1ffc, 8, MT_BIG, &val,
	    MT_ATTRS_NONE), MT_OK, "a value over two pages");
	is_hex(val, 0x0303030304040404, "is put together");
	is_asked(&w.iommu, "1ffc:r 2000:r", "with two questions");
	end(&w);
}

static void
test_nested(void)
{
	struct iommu stage[MT_IOMMU_DEPTH];
	struct mt_region *r[MT_IOMMU_DEPTH];
	struct mt_space *sp[MT_IOMMU_DEPTH];
	struct mt_mapping map;
	struct world w;
	uint8_t buf[2 * PAGE];
	size_t i;

	begin(&w);
	/* A chain of spaces, the last of which leads to the memory. */
	memset(stage, 0, sizeof(stage));
	for (i = 0; i < MT_IOMMU_DEPTH; i++) {
		stage[i].ops.translate = translate;
		r[i] = mt_region_create_iommu(w.t, "stage", MT_SIZE(0x10000),
		    &stage[i].ops, &stage[i]);
		must(r[i] != NULL);
		sp[i] = t_space(r[i]);
	}
	for (i = 0; i < MT_IOMMU_DEPTH; i++)
		set(&stage[i], 0, i + 1 < MT_IOMMU_DEPTH ? sp[i + 1] : w.mem,
		    0, 0xfff, ANY);
	stage[1].tlb[0].mask = 0x3ff;
	set(&stage[7], 0, w.mem, 0x6000, 0xfff, ANY);
	is_read(sp[0], 0x80, 2, "0606", "translations follow each other");
	for (i = 0; i < MT_IOMMU_DEPTH; i++)
		must(strcmp(stage[i].text, "80:r") == 0);
	ok(true, "each asked once");
	stage[0].text[0] = stage[1].text[0] = '\0';
	is_int(mt_space_read(sp[0], 0, buf, PAGE, MT_ATTRS_NONE), MT_OK,
	    "through a smaller page behind a larger one");
	is_asked(&stage[0], "0:r", "the larger one is asked about once");
	is_asked(&stage[1], "0:r 400:r 800:r c00:r", "the smaller for each");
	set(&stage[1], 0, sp[2], 0, 0xfff, RD);
	is_int(mt_space_write(sp[0], 0, buf, PAGE, MT_ATTRS_NONE), MT_DENIED,
	    "all have to allow it");
	is_int(faults_of(&stage[1]), 1, "and the one that does not faults");

	set(&w.iommu, 0, sp[0], 0, 0xfff, RD);
	stage[7].calls = 0;
	is_read(w.bus, BUS, 2, "0000 with 2", "one translation too many ends");
	is_int(stage[7].calls, 0, "before it is made");
	set(&w.iommu, 0, sp[1], 0, 0xfff, RD);
	is_read(w.bus, BUS, 2, "0606", "one less does not");
	set(&w.iommu, 0, w.bus, BUS, 0xfff, ANY);
	w.iommu.calls = 0;
	is_int(rd(&w, BUS, buf, PAGE), MT_DECODE, "a loop comes to an end");
	is_int(w.iommu.calls, MT_IOMMU_DEPTH, "soon");
	ok(!mt_space_valid(w.bus, BUS, 4, false, MT_ATTRS_NONE), "for all");
	fails(mt_dma_map(w.bus, BUS, 4, MT_DMA_READ, MT_ATTRS_NONE, &map),
	    EFAULT, "kinds");
	is_int(map.result, MT_DECODE, "of access");
	is_int(mt_space_store_le32(w.bus, BUS, 1), MT_DECODE, "a store, too");
	for (i = 0; i < MT_IOMMU_DEPTH; i++) {
		must(mt_space_destroy(sp[i]) == 0);
		mt_region_put(r[i]);
	}
	end(&w);
}

/* --- mappings ------------------------------------------------------------ */

static void
test_map(void)
{
	struct mt_mapping map;
	struct world w;
	uint8_t *ram;
	int owner = 0;

	begin(&w);
	ram = mt_region_ptr(w.ram);
	must(mt_region_set_owner(w.ram, &owner, t_put) == 0);
	set(&w.iommu, 0, w.mem, 0x4000, 0xfff, ANY);
	set(&w.iommu, 1, w.mem, 0x5000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x9000, 0xfff, RD);
	set(&w.iommu, 4, w.mem, 0x20000, 0xfff, ANY);

	works(mt_dma_map(w.bus, BUS + 0x100, 0x10, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &map), "memory behind it");
	ok(!map.bounced && map.ptr == ram + 0x4100 && map.len == 0x10,
	    "is lent in place");
	is_asked(&w.iommu, "100:w", "with one question");
	must(mt_region_del(w.ram) == 0);
	is_int(t_puts_of(w.t, &owner), 0, "and stays while it is lent");
	memset(map.ptr, 1, map.len);
	works(mt_dma_unmap(&map, 0x10), "until it is given back");
	is_int(t_puts_of(w.t, &owner), 1, "and goes then");
	fails(mt_dma_map(w.bus, BUS, 4, MT_DMA_READ, MT_ATTRS_NONE, &map),
	    EFAULT, "nothing where it leads");
	is_int(map.result, MT_OK, "is no fault");
	end(&w);

	begin(&w);
	ram = mt_region_ptr(w.ram);
	set(&w.iommu, 0, w.mem, 0x4000, 0xfff, ANY);
	set(&w.iommu, 1, w.mem, 0x5000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x9000, 0xfff, RD);
	set(&w.iommu, 4, w.mem, 0x20000, 0xfff, ANY);
	works(mt_dma_map(w.bus, BUS + 0x800, 0x4000, MT_DMA_READ,
	    MT_ATTRS_NONE, &map), "pages");
	ok(map.ptr == ram + 0x4800 && map.len == 0x1800,
	    "that continue each other are one mapping");
	is_asked(&w.iommu, "800:r 1000:rq 2000:rq", "up to one that does not");
	must(mt_dma_unmap(&map, 0) == 0);
	works(mt_dma_map(w.bus, BUS + 0x1000, 0x4000, MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map), "up to a fault");
	is_hex(map.len, 0x1000, "the mapping is shorter");
	is_int(faults_of(&w.iommu), 0, "and it is not reported");
	must(mt_dma_unmap(&map, 0) == 0);
	fails(mt_dma_map(w.bus, BUS + 0x2000, 0x100, MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map), EFAULT, "before it is mapped");
	is_int(faults_of(&w.iommu), 1, "which faults once");
	is_int(map.result, MT_DENIED, "and is denied");
	ok(map.ptr == NULL, "with nothing to give back");
	fails(mt_dma_map(w.bus, BUS + 0x2000, 4, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map), EFAULT, "both directions need both");
	fails(mt_dma_map(w.bus, BUS + 0x3000, 4, MT_DMA_READ, MT_ATTRS_NONE,
	    &map), EFAULT, "what leads nowhere faults");
	w.iommu.text[0] = '\0';

	mt_dma_set_bounce_limit(w.mem, 0);
	works(mt_dma_map(w.bus, BUS + 0x4ff0, 0x100, MT_DMA_READ |
	    MT_DMA_WRITE, MT_ATTRS_NONE, &map), "a device");
	ok(map.bounced, "is staged");
	is_hex(map.len, 0x10, "to the end of its page");
	is_hex(mt_dma_bounce_used(w.bus), 0x10,
	    "by the budget of the space that was asked");
	is_str(t_hex(map.ptr, 4), "f0f1f2f3", "filled");
	w.dev.ncalls = 0;
	is_asked(&w.iommu, "4ff0:rw", "with one question");
	must(mt_dma_unmap(&map, 4) == 0);
	is_calls(&w.dev, "w ff0/4=f3f2f1f0", "written back");
	is_asked(&w.iommu, "4ff0:w", "where it leads then");
	must(mt_dma_map(w.bus, BUS + 0x4000, 4, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &map) == 0);
	w.iommu.tlb[4].perm = 0;
	fails(mt_dma_unmap(&map, 4), EIO, "which may be nowhere");
	is_int(map.result, MT_DENIED, "by then");
	is_calls(&w.dev, "", "and calls nobody");
	end(&w);
}

static void
test_sg(void)
{
	static const struct mt_range pages[] = { { BUS, BUS + 0x1fff },
	    { BUS + 0x2800, BUS + 0x28ff }, { BUS + 0x3000, BUS + 0x3003 },
	    { 0, 0xf } };
	struct mt_mapping maps[8];
	struct iovec iov[8];
	struct mt_sg sg;
	struct world w;
	uint8_t *ram;

	begin(&w);
	ram = mt_region_ptr(w.ram);
	set(&w.iommu, 0, w.mem, 0x4000, 0xfff, ANY);
	set(&w.iommu, 1, w.mem, 0x5000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x9000, 0xfff, RD);
	works(mt_dma_map_sg(w.bus, pages, 4, MT_DMA_READ, MT_ATTRS_NONE, iov,
	    maps, 8, &sg), "a list through it");
	ok(sg.niov == 2 && iov[0].iov_base == ram + 0x4000 &&
	    iov[0].iov_len == 0x2000 && iov[1].iov_base == ram + 0x9800 &&
	    sg.len == 0x2100, "is lent, what continues joined");
	ok(sg.error == EFAULT && sg.range == 2 && sg.off == 0,
	    "up to a fault");
	is_int(sg.result, MT_DENIED, "which it tells");
	is_int(faults_of(&w.iommu), 1, "of one");
	is_asked(&w.iommu, "0:r 1000:r 2800:r 3000:r", "once for each piece");
	works(mt_dma_unmap_sg(&sg, 0), "and is given back");
	fails(mt_dma_map_sg(w.bus, pages + 2, 1, MT_DMA_READ, MT_ATTRS_NONE,
	    iov, maps, 8, &sg), EFAULT, "a list that begins with one fails");
	is_int(sg.result, MT_DENIED, "and tells");
	is_int(faults_of(&w.iommu), 1, "of one");
	w.iommu.text[0] = '\0';
	set(&w.iommu, 3, w.mem, 0x9000, 0xfff, ANY);
	works(mt_dma_map_sg(w.bus, pages, 4, MT_DMA_READ, MT_ATTRS_NONE, iov,
	    maps, 8, &sg), "with what is not behind it");
	ok(sg.niov == 4 && sg.error == 0 && iov[3].iov_base ==
	    mt_region_ptr(w.local), "all is lent");
	must(mt_dma_unmap_sg(&sg, 0) == 0);
	end(&w);
}

static void
test_cache(void)
{
	struct mt_cache c;
	struct world w;
	uint32_t val;
	uint8_t buf[4];

	begin(&w);
	set(&w.iommu, 0, w.mem, 0x4000, 0xfff, ANY);
	works(mt_cache_init(&c, w.bus, BUS, 0x2000, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE), "a window onto it");
	is_int(mt_cache_load_le32(&c, 8, &val), MT_OK, "is loaded from");
	is_hex(val, 0x04040404, "where it leads");
	set(&w.iommu, 0, w.mem, 0x6000, 0xfff, RD);
	is_int(mt_cache_load_le32(&c, 8, &val), MT_OK, "at each access");
	is_hex(val, 0x06060606, "anew");
	ok(!mt_cache_stale(&c), "and does not get stale by that");
	is_int(mt_cache_store_le32(&c, 8, 1), MT_DENIED, "faults show");
	is_int(mt_cache_read(&c, 0xffe, buf, 4), MT_DENIED, "in part, too");
	is_str(t_hex(buf, 4), "06060000", "as zero");
	is_int(faults_of(&w.iommu), 2, "once each");
	mt_cache_fini(&c);
	end(&w);
}

/* --- accesses completed later -------------------------------------------- */

#define NLATER	8

struct later {
	struct mt_io_ops ops;
	struct mt_piece *pieces[NLATER];
	uint8_t *bufs[NLATER];
	size_t lens[NLATER];
	unsigned int n;			/* atomic */
};

static void
later_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct later *l = arg;
	unsigned int n = __atomic_load_n(&l->n, __ATOMIC_ACQUIRE);

	(void)attrs;
	(void)off;
	must(n < NLATER && !is_write);
	l->pieces[n] = piece;
	l->bufs[n] = buf;
	l->lens[n] = len;
	__atomic_store_n(&l->n, n + 1, __ATOMIC_RELEASE);
}

static bool
later_cancel(void *arg, struct mt_piece *piece)
{
	(void)arg;
	(void)piece;
	return (true);
}

static void
later_do(struct later *l, unsigned int i)
{
	memset(l->bufs[i], (int)i + 1, l->lens[i]);
	mt_access_complete(l->pieces[i], MT_OK);
}

static void
later_done(void *arg, enum mt_result res)
{
	*(int *)arg = (int)res;
}

/* Waits until the reader is in the device, changes all under it, ends it. */
static void *
later_change(void *arg)
{
	struct world *w = ((void **)arg)[0];
	struct later *l = ((void **)arg)[1];

	while (__atomic_load_n(&l->n, __ATOMIC_ACQUIRE) == 0)
		sched_yield();
	must(mt_region_set_enabled(w->io, false) == 0);
	must(mt_region_set_enabled(w->mem_root, false) == 0);
	must(mt_topology_sync(w->t) == 0);
	later_do(l, 0);
	return (NULL);
}

/* Ends four pieces, once all of them have begun. */
static void *
later_all(void *arg)
{
	struct later *l = arg;
	unsigned int i;

	while (__atomic_load_n(&l->n, __ATOMIC_ACQUIRE) < 4)
		sched_yield();
	for (i = 4; i-- > 0;)
		later_do(l, i);
	return (NULL);
}

static void
test_later(void)
{
	struct later l = { .ops = { .submit_buf = later_submit,
	    .cancel_buf = later_cancel, .endian = MT_LITTLE } };
	struct mt_access acc;
	struct world w;
	void *args[2] = { &w, &l };
	pthread_t thread;
	uint8_t buf[5 * PAGE];
	unsigned int i;
	int res = -1;

	begin(&w);
	t_add(w.mem_root, 0x50000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(w.t, "later", MT_SIZE(0x10000), &l.ops, &l),
	    "later"));
	for (i = 0; i < 4; i++)
		set(&w.iommu, i, w.mem, 0x50000 + (3 - i) * PAGE, 0xfff, RD);
	works(mt_access_submit(w.bus, &acc, BUS, buf, sizeof(buf), false,
	    MT_ATTRS_NONE, later_done, &res), "an access is submitted");
	is_int(l.n, 4, "in as many pieces as it takes");
	is_int(w.iommu.calls, 5, "with a question for each");
	for (i = 4; i-- > 0;) {
		is_int(res, -1, "it goes on");
		later_do(&l, i);
	}
	is_int(res, MT_DENIED, "until all pieces are over, with what faulted");
	is_int(w.iommu.faults, 1, "once");
	ok(buf[0] == 1 && buf[PAGE] == 2 && buf[3 * PAGE] == 4 &&
	    buf[4 * PAGE] == 0, "each piece in its place");

	l.n = 0;
	res = -1;
	must(mt_access_submit(w.bus, &acc, BUS, buf, 4 * PAGE, false,
	    MT_ATTRS_NONE, later_done, &res) == 0);
	ok(mt_access_cancel(&acc), "all of one is taken back");
	is_int(res, -1, "and nobody told");
	works(mt_access_drain(w.bus), "nothing is left");

	/* The same, by one who waits. */
	l.n = 0;
	must(pthread_create(&thread, NULL, later_all, &l) == 0);
	is_int(rd(&w, BUS, buf, 4 * PAGE), MT_OK, "a reader that waits");
	pthread_join(thread, NULL);
	ok(buf[0] == 1 && buf[PAGE] == 2 && buf[3 * PAGE] == 4,
	    "waits for all pieces at once");

	/* Both views that a reader is in stay while it waits. */
	l.n = 0;
	set(&w.iommu, 0, w.mem, 0x50000, 0x1fff, RD);
	memset(mt_region_ptr(w.other), 9, 0x4000);
	must(mt_region_move(w.other, 0x51000) == 0);
	set(&w.iommu, 2, w.bus, 0, 0xfff, RD);
	memset(mt_region_ptr(w.local), 5, PAGE);
	must(pthread_create(&thread, NULL, later_change, args) == 0);
	is_int(rd(&w, BUS, buf, 3 * PAGE), MT_OK,
	    "a reader that waited goes on in the view it had");
	pthread_join(thread, NULL);
	ok(buf[0] == 1 && buf[PAGE] == 9 && buf[2 * PAGE] == 5,
	    "with what it waited for");
	is_int(rd(&w, BUS, buf, 1), MT_DECODE, "while others see the new one");

	/* A value waits for each translation, so this one goes on after it. */
	l.n = 0;
	must(mt_region_set_enabled(w.io, true) == 0);
	must(mt_region_set_enabled(w.mem_root, true) == 0);
	set(&w.iommu, 1, w.mem, 0x50000, 0xfff, RD);
	must(pthread_create(&thread, NULL, later_change, args) == 0);
	is_int(rd(&w, BUS + 2 * PAGE - 4, buf, 8), MT_OK,
	    "also one that goes on to the next page");
	pthread_join(thread, NULL);
	ok(buf[0] == 1 && buf[3] == 1 && buf[4] == 5 && buf[7] == 5,
	    "with what is there");
	end(&w);
}

/* --- notifiers ----------------------------------------------------------- */

struct heard {
	struct mt_iommu_notifier n;
	const char *name;
	char *text;
	struct mt_region *io;
	struct heard *drop;		/* to be unregistered when told */
	struct heard *mine;		/* to be freed then */
};

static void
hear(void *arg, const struct mt_iommu_event *ev)
{
	struct heard *h = arg, *mine = h->mine;
	static const char *const types[] = { "?", "map", "unmap", "?", "dev" };

	t_append(h->text, "%s%s%s %" PRIx64 "-%" PRIx64,
	    h->text[0] != '\0' ? ", " : "", h->name, types[ev->type],
	    ev->range.first, ev->range.last);
	if (ev->type == MT_IOMMU_MAP)
		t_append(h->text, ">%" PRIx64 "%s%s", ev->addr,
		    ev->perm & MT_IOMMU_READ ? "r" : "",
		    ev->perm & MT_IOMMU_WRITE ? "w" : "");
	if (h->drop != NULL)
		must(mt_iommu_unregister(h->io, &h->drop->n) == 0);
	h->drop = NULL;
	if (mine != NULL) {
		memset(mine, 0xa5, sizeof(*mine));
		free(mine);
	}
}

static struct heard *
heard(struct world *w, const char *name, mt_addr first, mt_addr last,
    unsigned int events, char *text)
{
	struct heard *h = calloc(1, sizeof(*h));

	must(h != NULL);
	h->n.range = (struct mt_range){ first, last };
	h->n.events = events;
	h->n.fn = hear;
	h->n.arg = h;
	h->name = name;
	h->text = text;
	h->io = w->io;
	return (h);
}

static int
tell(struct world *w, unsigned int type, mt_addr first, mt_addr last)
{
	const struct mt_iommu_event ev = { .type = type,
	    .range = { first, last },
	    .target = type == MT_IOMMU_MAP ? w->mem : NULL,
	    .addr = 0x100000, .perm = type == MT_IOMMU_MAP ? RD : 0 };

	return (mt_iommu_notify(w->io, &ev));
}

#define is_told(text, want, ...) is_str(t_events(text), want, __VA_ARGS__)

static void
test_notify(void)
{
	const unsigned int map = MT_IOMMU_MAP, unmap = MT_IOMMU_UNMAP,
	    dev = MT_IOMMU_DEVTLB_UNMAP;
	struct mt_iommu_event ev = { .type = MT_IOMMU_UNMAP };
	struct heard *a, *b, *c;
	struct world w;
	char text[T_TEXT] = "";

	begin(&w);
	w.iommu.ops.notify_changed = notify_changed;
	w.iommu.ops.index = index_of;
	a = heard(&w, "a ", 0x1000, 0x1fff, map | unmap, text);
	b = heard(&w, "b ", 0, MT_LAST_MAX, unmap | dev, text);
	c = heard(&w, "c ", 0, MT_LAST_MAX, unmap, text);
	c->n.attrs.requester_id = 7;
	works(mt_iommu_register(w.io, &a->n), "a notifier");
	ok(w.iommu.was == 0 && w.iommu.now == (map | unmap),
	    "and the model hears what is wanted");
	fails(mt_iommu_register(w.io, &a->n), EBUSY, "once");
	works(mt_iommu_register(w.io, &b->n), "another one");
	ok(w.iommu.was == (map | unmap) && w.iommu.now == (map | unmap | dev),
	    "and the model hears what more is wanted");
	works(mt_iommu_register(w.io, &c->n), "one of another requester");
	is_int(w.iommu.changes, 2, "wants nothing new");

	works(tell(&w, unmap, 0x800, 0x27ff), "what goes");
	is_told(text, "b unmap 800-27ff, a unmap 1000-1fff",
	    "is told the newest first, cut to its range");
	works(tell(&w, map, 0x800, 0x17ff), "what comes");
	is_told(text, "a map 1000-17ff>100800r", "to who wants it, moved");
	works(tell(&w, dev, 0x1000, 0x1000), "what goes from devices");
	is_told(text, "b dev 1000-1000", "apart from the rest");
	works(tell(&w, map, 0x2000, 0x2fff), "what is out of range");
	is_told(text, "", "is told to nobody");
	ev.index = 7;
	works(mt_iommu_notify(w.io, &ev), "one requester's");
	is_told(text, "c unmap 0-0", "is told to who watches it");

	fails(tell(&w, 0, 0, 0), EINVAL, "an event has a type");
	fails(tell(&w, map | unmap, 0, 0), EINVAL, "and one only");
	fails(tell(&w, unmap, 1, 0), EINVAL, "a range");
	fails(tell(&w, map, 0, MT_LAST_MAX), EINVAL, "within all addresses");
	ev.perm = RD;
	fails(mt_iommu_notify(w.io, &ev), EINVAL, "what goes permits nothing");
	ev.type = map;
	fails(mt_iommu_notify(w.io, &ev), EINVAL, "what comes leads somewhere");
	fails(mt_iommu_notify(w.ram, &ev), EINVAL, "RAM has no events");
	fails(mt_iommu_register(w.ram, &a->n), EINVAL, "nor notifiers");
	fails(mt_iommu_unregister(w.ram, &a->n), EINVAL, "to unregister");
	fails(mt_iommu_replay(w.ram, &a->n), EINVAL, "or replay");
	is_told(text, "", "and nobody was told");

	works(mt_iommu_unregister(w.io, &a->n), "one is taken out");
	ok(w.iommu.was == (map | unmap | dev) && w.iommu.now == (unmap | dev),
	    "and the model hears what is wanted still");
	fails(mt_iommu_unregister(w.io, &a->n), ENOENT, "once");
	fails(mt_iommu_replay(w.io, &a->n), ENOENT, "and is not replayed");
	w.iommu.refuse = EOPNOTSUPP;
	fails(mt_iommu_register(w.io, &a->n), EOPNOTSUPP,
	    "the model may refuse");
	works(tell(&w, unmap, 0x1000, 0x1000), "then");
	is_told(text, "b unmap 1000-1000", "it hears nothing");
	a->n.events = 8;
	fails(mt_iommu_register(w.io, &a->n), EINVAL, "events are known ones");
	a->n.events = unmap;
	a->n.range.first = 0x3000;
	fails(mt_iommu_register(w.io, &a->n), EINVAL, "ranges are right");
	must(mt_iommu_unregister(w.io, &b->n) == 0);
	must(mt_iommu_unregister(w.io, &c->n) == 0);
	is_int(w.iommu.now, 0, "in the end nothing is wanted");
	free(a);
	free(b);
	free(c);
	end(&w);
}

/* A registration from notify_changed would wait for itself. */
static int
changed_registers(void *arg, unsigned int was, unsigned int now)
{
	struct heard *h = *(struct heard **)arg;

	(void)was;
	(void)now;
	return (mt_iommu_register(h->io, &h->n));
}

static void
test_unregister(void)
{
	struct heard *a, *b, *c, *h;
	struct world w;
	struct mt_iommu_ops ops = { .translate = translate,
	    .notify_changed = changed_registers };
	char text[T_TEXT] = "";

	begin(&w);
	a = heard(&w, "a ", 0, 0xffff, MT_IOMMU_UNMAP, text);
	b = heard(&w, "b ", 0, 0xffff, MT_IOMMU_UNMAP, text);
	c = heard(&w, "c ", 0, 0xffff, MT_IOMMU_UNMAP, text);
	must(mt_iommu_register(w.io, &a->n) == 0);
	must(mt_iommu_register(w.io, &b->n) == 0);
	must(mt_iommu_register(w.io, &c->n) == 0);
	c->drop = c->mine = c;
	must(tell(&w, MT_IOMMU_UNMAP, 0, 1) == 0);
	is_told(text, "c unmap 0-1, b unmap 0-1, a unmap 0-1",
	    "one that takes itself out, and is freed, hides no others");
	b->drop = b->mine = a;
	must(tell(&w, MT_IOMMU_UNMAP, 0, 2) == 0);
	is_told(text, "b unmap 0-2", "the next one can be taken out, too");
	b->mine = NULL;
	must(tell(&w, MT_IOMMU_UNMAP, 0, 3) == 0);
	is_told(text, "b unmap 0-3", "and is gone");

	h = b;
	h->io = mt_region_create_iommu(w.t, "x", 0xfff, &ops, &h);
	must(h->io != NULL);
	b = heard(&w, "x ", 0, 0xffff, MT_IOMMU_UNMAP, text);
	must(mt_iommu_unregister(w.io, &h->n) == 0);
	fails(mt_iommu_register(h->io, &b->n), EDEADLK,
	    "one that would wait for itself is refused");
	mt_region_put(h->io);
	free(h);
	free(b);
	end(&w);
}

/* A notifier that is held up, and who waits for it. */
struct slow {
	struct mt_region *io;
	struct mt_iommu_notifier n;
	int in, go, out;		/* atomic */
};

static void
slow_told(void *arg, const struct mt_iommu_event *ev)
{
	struct slow *s = arg;

	(void)ev;
	__atomic_store_n(&s->in, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&s->go, __ATOMIC_SEQ_CST) == 0)
		sched_yield();
	__atomic_store_n(&s->out, 1, __ATOMIC_SEQ_CST);
}

static void *
slow_notify(void *arg)
{
	const struct mt_iommu_event ev = { .type = MT_IOMMU_UNMAP };
	struct slow *s = arg;

	must(mt_iommu_notify(s->io, &ev) == 0);
	return (NULL);
}

static void *
slow_go(void *arg)
{
	struct slow *s = arg;
	struct timespec ts = { 0, 20000000 };

	nanosleep(&ts, NULL);
	__atomic_store_n(&s->go, 1, __ATOMIC_SEQ_CST);
	return (NULL);
}

static void
test_waiting(void)
{
	struct slow s = { 0 };
	struct world w;
	pthread_t teller, goer;
	int out;

	begin(&w);
	s.io = w.io;
	s.n.events = MT_IOMMU_UNMAP;
	s.n.fn = slow_told;
	s.n.arg = &s;
	must(mt_iommu_register(w.io, &s.n) == 0);
	must(pthread_create(&teller, NULL, slow_notify, &s) == 0);
	while (__atomic_load_n(&s.in, __ATOMIC_SEQ_CST) == 0)
		sched_yield();
	must(pthread_create(&goer, NULL, slow_go, &s) == 0);
	works(mt_iommu_unregister(w.io, &s.n), "one who is being told");
	out = __atomic_load_n(&s.out, __ATOMIC_SEQ_CST);
	is_int(out, 1, "is waited for");
	pthread_join(teller, NULL);
	pthread_join(goer, NULL);
	end(&w);
}

/* --- replays ------------------------------------------------------------- */

static void
own_replay(void *arg, struct mt_range range, struct mt_attrs attrs,
    struct mt_iommu_sink *sink)
{
	struct iommu *io = arg;
	struct mt_iommu_event ev = { .type = MT_IOMMU_MAP, .target =
	    io->tlb[0].target, .range = { 0, 0x1fff }, .perm = ANY };
	struct mt_iommu_event bad = { .type = MT_IOMMU_MAP };

	is_hex(range.last, 0x17ff, "the model is told the range");
	is_hex(attrs.requester_id, 3, "and the requester");
	ev.index = 3;
	fails(mt_iommu_send(sink, &bad), EINVAL, "nonsense is not sent");
	if (mt_iommu_send(sink, &ev) == -1) {
		is_int(errno, ECANCELED, "nothing is for one that left");
		return;
	}
	ev.range = (struct mt_range){ 0x1800, 0x1fff };
	works(mt_iommu_send(sink, &ev), "what is out of range is not");
	ev.range = (struct mt_range){ 0x1000, 0x1000 };
	io->calls = 0;
	while (io->calls < 3 && mt_iommu_send(sink, &ev) == 0)
		io->calls++;
}

static void
test_replay(void)
{
	struct heard *a, *b;
	struct world w;
	char text[T_TEXT] = "";

	begin(&w);
	set(&w.iommu, 1, w.mem, 0x7000, 0xfff, ANY);
	set(&w.iommu, 2, w.mem, 0x3000, 0xfff, RD);
	set(&w.iommu, 4, w.mem, 0x8000, 0x3fff, ANY);
	set(&w.iommu, 8, NULL, 0, 0x7fff, 0);
	a = heard(&w, "", 0x1800, MT_LAST_MAX, MT_IOMMU_MAP, text);
	must(mt_iommu_register(w.io, &a->n) == 0);
	is_told(text, "", "who registers hears nothing of what is there");
	works(mt_iommu_replay(w.io, &a->n), "before it asks");
	is_told(text, "map 1800-1fff>7800rw, map 2000-2fff>3000r, "
	    "map 4000-7fff>8000rw", "and then all, cut to its range");
	is_asked(&w.iommu, "1800:q 2000:q 3000:q 4000:q 8000:q",
	    "found out page by page without a fault, large ones at once");
	is_int(w.iommu.faults, 0, "none at all");
	a->drop = a->mine = a;
	fails(mt_iommu_replay(w.io, &a->n), ECANCELED, "one that unregisters");
	is_told(text, "map 1800-1fff>7800rw", "is not told of more");
	a = heard(&w, "", 0, MT_LAST_MAX, MT_IOMMU_UNMAP, text);
	must(mt_iommu_register(w.io, &a->n) == 0);
	works(mt_iommu_replay(w.io, &a->n), "who wants no MAPs");
	is_told(text, "", "gets none");
	must(mt_iommu_unregister(w.io, &a->n) == 0);
	free(a);

	w.iommu.ops.index = index_of;
	w.iommu.ops.replay = own_replay;
	set(&w.iommu, 0, w.mem, 0, 0xfff, ANY);
	b = heard(&w, "", 0x400, 0x17ff, MT_IOMMU_MAP, text);
	b->n.attrs.requester_id = 3;
	must(mt_iommu_register(w.io, &b->n) == 0);
	works(mt_iommu_replay(w.io, &b->n), "a model replays by itself");
	is_told(text, "map 400-17ff>400rw, map 1000-1000>0rw, "
	    "map 1000-1000>0rw, map 1000-1000>0rw", "what it likes");
	b->drop = b->mine = b;
	fails(mt_iommu_replay(w.io, &b->n), ECANCELED, "until there is nobody");
	is_told(text, "map 400-17ff>400rw", "to be told");
	end(&w);
}

/* --- listeners, dumps ---------------------------------------------------- */

static void
bus_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct heard *h = arg;

	(void)sp;
	if (mt_region_kind(sec->region) != MT_IOMMU)
		return;
	h->n.range.first = sec->off;
	h->n.range.last = sec->off + (sec->range.last - sec->range.first);
	must(mt_iommu_register(sec->region, &h->n) == 0);
	must(mt_iommu_replay(sec->region, &h->n) == 0);
}

static void
bus_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct heard *h = arg;

	(void)sp;
	if (mt_region_kind(sec->region) == MT_IOMMU)
		must(mt_iommu_unregister(sec->region, &h->n) == 0);
}

static void
test_listener(void)
{
	struct mt_listener l = { .add = bus_add, .del = bus_del };
	char text[T_TEXT] = "", *dump = NULL;
	struct heard *h;
	struct world w;
	size_t size;
	FILE *fp;

	begin(&w);
	is_view(w.bus, "0-fff local+0, 10000-1ffff iommu+0",
	    "it is a section of its own");
	h = heard(&w, "", 0, 0, MT_IOMMU_MAP | MT_IOMMU_UNMAP, text);
	l.arg = h;
	set(&w.iommu, 2, w.mem, 0x7000, 0xfff, ANY);
	must(mt_listener_register(w.bus, &l) == 0);
	is_told(text, "map 2000-2fff>7000rw", "a listener can replay it");
	must(tell(&w, MT_IOMMU_UNMAP, 0x2000, 0x2fff) == 0);
	is_told(text, "unmap 2000-2fff", "and be told of what comes");
	must(mt_region_resize(w.io, 0x27ff) == 0);
	is_told(text, "map 2000-27ff>7000rw", "also when the section changes");
	must(mt_region_del(w.io) == 0);
	ok(h->n.region == NULL, "until it goes");
	must(mt_listener_unregister(&l) == 0);
	free(h);
	end(&w);

	begin(&w);
	must((fp = open_memstream(&dump, &size)) != NULL);
	must(mt_dump_tree(fp, w.bus_root) == 0);
	must(mt_dump_view(fp, w.bus) == 0);
	must(mt_dump_dot(fp, w.bus_root) == 0);
	must(mt_dump_svg(fp, w.bus) == 0);
	must(fclose(fp) == 0);
	ok(strstr(dump, "(prio 0, iommu): iommu") != NULL, "a tree shows it");
	ok(strstr(dump, "(iommu): iommu") != NULL, "a view shows it");
	ok(strstr(dump, "prio 0, iommu\", fillcolor=") != NULL,
	    "a graph shows it");
	ok(strstr(dump, "class=\"n\">iommu</text>") != NULL,
	    "a picture shows it");
	free(dump);
	end(&w);
}

/* --- threads ------------------------------------------------------------- */

#define ROUNDS	(T_TSAN ? 300 : 1500)

/*
 * One thread maps and unmaps pages of the IOMMU, and destroys the spaces that
 * it led to; others read, map and listen meanwhile.
 */
struct race {
	struct world w;
	struct mt_region *ram;		/* all 0x11 */
	pthread_mutex_t lock;
	struct mt_iotlb tlb;		/* lock */
	struct mt_iommu_ops ops;
	struct mt_region *io;
	struct mt_space *sp;
	bool stop;			/* atomic */
	unsigned int good, bad;		/* atomic */
	unsigned int told;		/* atomic */
	bool telling;			/* atomic; in the notifier */
};

static void
race_translate(void *arg, mt_addr off, unsigned int flags,
    struct mt_attrs attrs, struct mt_iotlb *out)
{
	struct race *r = arg;

	(void)off, (void)flags, (void)attrs;
	pthread_mutex_lock(&r->lock);
	*out = r->tlb;
	pthread_mutex_unlock(&r->lock);
	sched_yield();
}

static void *
race_read(void *arg)
{
	struct race *r = arg;
	struct mt_mapping map;
	uint64_t val;
	bool is_good;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (mt_space_load(r->sp, 0x10, 8, MT_LITTLE, &val,
		    MT_ATTRS_NONE) == MT_OK)
			is_good = val == 0x1111111111111111;
		else
			is_good = val == 0;
		if (mt_dma_map(r->sp, 0x20, 0x1800, MT_DMA_READ,
		    MT_ATTRS_NONE, &map) == 0) {
			is_good = is_good && *(uint8_t *)map.ptr == 0x11;
			must(mt_dma_unmap(&map, 0) == 0);
		} else
			is_good = is_good && map.result == MT_DENIED;
		__atomic_add_fetch(is_good ? &r->good : &r->bad, 1,
		    __ATOMIC_RELAXED);
	}
	return (NULL);
}

static void
race_told(void *arg, const struct mt_iommu_event *ev)
{
	struct race *r = arg;

	(void)ev;
	__atomic_store_n(&r->telling, true, __ATOMIC_RELAXED);
	sched_yield();
	__atomic_add_fetch(&r->told, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&r->telling, false, __ATOMIC_RELAXED);
}

static void *
race_listen(void *arg)
{
	struct race *r = arg;
	struct mt_iommu_notifier *n;
	unsigned int i;

	for (i = 0; !__atomic_load_n(&r->stop, __ATOMIC_RELAXED); i++) {
		must((n = calloc(1, sizeof(*n))) != NULL);
		n->range.last = MT_LAST_MAX;
		n->events = MT_IOMMU_MAP | MT_IOMMU_UNMAP;
		n->fn = race_told;
		n->arg = r;
		must(mt_iommu_register(r->io, n) == 0);
		must(mt_iommu_replay(r->io, n) == 0);
		sched_yield();
		must(mt_iommu_unregister(r->io, n) == 0);
		if (__atomic_load_n(&r->telling, __ATOMIC_RELAXED))
			__atomic_add_fetch(&r->bad, 1, __ATOMIC_RELAXED);
		memset(n, 0xa5, sizeof(*n));
		free(n);
	}
	return (NULL);
}

static void
race_change(struct race *r, struct mt_space *target)
{
	struct mt_iommu_event ev = { .type = target != NULL ? MT_IOMMU_MAP :
	    MT_IOMMU_UNMAP, .range = { 0, 0x3fff }, .target = target,
	    .perm = target != NULL ? RD : 0 };

	pthread_mutex_lock(&r->lock);
	r->tlb = (struct mt_iotlb){ target, 0, 0xfff, ev.perm };
	pthread_mutex_unlock(&r->lock);
	must(mt_iommu_notify(r->io, &ev) == 0);
}

static void
test_threads(void)
{
	static struct race r;
	pthread_t threads[3];
	struct mt_space *target;
	unsigned int i;

	begin(&r.w);
	pthread_mutex_init(&r.lock, NULL);
	r.ops.translate = race_translate;
	r.ram = t_ram(r.w.t, "ram", 0x2000);
	memset(mt_region_ptr(r.ram), 0x11, 0x2000);
	r.io = mt_region_create_iommu(r.w.t, "race", MT_SIZE(0x4000), &r.ops,
	    &r);
	must(r.io != NULL);
	r.sp = t_space(r.io);
	must(pthread_create(&threads[0], NULL, race_read, &r) == 0);
	must(pthread_create(&threads[1], NULL, race_read, &r) == 0);
	must(pthread_create(&threads[2], NULL, race_listen, &r) == 0);
	for (i = 0; i < ROUNDS; i++) {
		target = t_space(r.ram);
		race_change(&r, target);
		sched_yield();
		race_change(&r, NULL);
		/* It is given no more; who had it before is waited for. */
		must(mt_space_destroy(target) == 0);
	}
	while (__atomic_load_n(&r.good, __ATOMIC_RELAXED) < 10)
		sched_yield();
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	is_int(r.bad, 0, "readers see a whole table, and unregistering waits");
	ok(r.good >= 10, "while it changes");
	diag("%u accesses, %u events", r.good, r.told);
	must(mt_space_destroy(r.sp) == 0);
	mt_region_put(r.io);
	mt_region_put(r.ram);
	end(&r.w);
}

int
main(void)
{
	test_translate();
	test_masks();
	test_faults();
	test_readonly();
	test_typed();
	test_nested();
	test_map();
	test_sg();
	test_cache();
	test_later();
	test_notify();
	test_unregister();
	test_waiting();
	test_replay();
	test_listener();
	test_threads();
	return (done());
}
