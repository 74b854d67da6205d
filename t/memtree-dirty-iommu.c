/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Dirty logging: who writes through an IOMMU marks the pages of the memory that
 * it is led to.
 */

#include "t/dirty.h"

#define NTABLE		16		/* pages of an IOMMU */

/* Where each page leads, in w.sp; 0 of perm: nowhere. */
struct iommu {
	struct mt_space *target;
	struct {
		mt_addr addr;
		unsigned int perm;
	} table[NTABLE];
	struct mt_region *r;
	struct mt_space *sp;		/* page 0 is at 0 */
};

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	struct iommu *io = arg;

	(void)flags, (void)attrs;
	*out = (struct mt_iotlb){ io->target, io->table[off / PAGE].addr,
	    PAGE - 1, io->table[off / PAGE].perm };
}

static const struct mt_iommu_ops iommu_ops = { .translate = translate };

static void
lead(struct iommu *io, unsigned int page, mt_addr addr, unsigned int perm)
{
	io->table[page].addr = addr;
	io->table[page].perm = perm;
}

/*
 * Pages 0 to 3 are 3, 9, 10 and 70 of the RAM, 4 is its 5 by the alias, 5 is
 * the device, 6 ROM, 7 is 20 to be read, 8 leads nowhere, 9 is 21.
 */
static void
begin_iommu(struct iommu *io, struct mt_topology *t, struct mt_space *target)
{
	memset(io, 0, sizeof(*io));
	io->target = target;
	io->r = mt_region_create_iommu(t, "iommu", NTABLE * PAGE - 1,
	    &iommu_ops, io);
	must(io->r != NULL);
	io->sp = t_space(io->r);
	lead(io, 0, 3 * PAGE, RW);
	lead(io, 1, 9 * PAGE, RW);
	lead(io, 2, 10 * PAGE, RW);
	lead(io, 3, 70 * PAGE, RW);
	lead(io, 4, 0x200000, RW);
	lead(io, 5, 0x100000, RW);
	lead(io, 6, 0x101000, RW);
	lead(io, 7, 20 * PAGE, MT_DMA_READ);
	lead(io, 9, 21 * PAGE, RW);
}

static void
end_iommu(struct iommu *io)
{
	must(mt_space_destroy(io->sp) == 0);
	mt_region_put(io->r);
}

static void
done_with(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

static void
test_accesses(void)
{
	static uint8_t buf[4 * PAGE];
	struct iommu io, outer;
	struct mt_access acc;
	enum mt_result res;
	struct world w;
	uint64_t val;

	begin(&w);
	log_on(w.ram);
	log_on(w.rom);
	begin_iommu(&io, w.t, w.sp);
	mt_space_read(io.sp, 0, buf, sizeof(buf), MT_ATTRS_NONE);
	mt_space_load(io.sp, PAGE - 4, 8, MT_LITTLE, &val, MT_ATTRS_NONE);
	is_dirty(w.ram, "", "reading through an IOMMU marks nothing");
	mt_space_write(io.sp, 0x10, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "3", "a write marks the page that it is led to");
	mt_space_write(io.sp, PAGE - 1, buf, 2, MT_ATTRS_NONE);
	is_dirty(w.ram, "3 9", "a write across two, both");
	mt_space_write(io.sp, 1, buf, 3 * PAGE, MT_ATTRS_NONE);
	is_dirty(w.ram, "3 9-10 70", "a long one, all");
	mt_space_store_le32(io.sp, PAGE, 1);
	is_dirty(w.ram, "9", "a store");
	mt_space_store_be64(io.sp, 3 * PAGE - 4, 1);
	is_dirty(w.ram, "10 70", "a store across two");
	mt_space_set(io.sp, PAGE + 1, 0, PAGE, MT_ATTRS_NONE);
	is_dirty(w.ram, "9-10", "mt_space_set");
	mt_space_write_rom(io.sp, 2 * PAGE, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "10", "mt_space_write_rom to RAM");
	mt_space_write_rom(io.sp, 6 * PAGE, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.rom, "0", "and to ROM");
	mt_space_write(io.sp, 6 * PAGE, buf, 4, MT_ATTRS_NONE);
	is_dirty(w.rom, "", "which refuses other writes");
	mt_space_store_u8(io.sp, 4 * PAGE, 1);
	is_dirty(w.ram, "5", "by way of an alias");

	is_int(mt_space_write(io.sp, 7 * PAGE, buf, 2 * PAGE + 1,
	    MT_ATTRS_NONE), MT_DENIED, "what faults");
	is_dirty(w.ram, "21", "marks nothing, what follows it does");
	is_int(mt_space_store_u8(io.sp, 7 * PAGE, 1), MT_DENIED,
	    "a store to a page that is to be read");
	is_dirty(w.ram, "", "marks nothing");
	must(mt_region_set_readonly(io.r, true) == 0);
	is_int(mt_space_write(io.sp, 0, buf, 1, MT_ATTRS_NONE), MT_DECODE,
	    "a write to an IOMMU that is read-only");
	is_dirty(w.ram, "", "marks nothing");
	must(mt_region_set_readonly(io.r, false) == 0);

	res = MT_DEVICE;
	works(mt_access_submit(io.sp, &acc, PAGE, buf, PAGE + 1, true,
	    MT_ATTRS_NONE, done_with, &res), "a write that is submitted");
	is_int(res, MT_OK, "is over");
	is_dirty(w.ram, "9-10", "and has marked");
	lead(&io, 0, 30 * PAGE, RW);
	mt_space_store_u8(io.sp, 0, 1);
	is_dirty(w.ram, "30", "when the table has changed, the new page");

	begin_iommu(&outer, w.t, io.sp);
	lead(&outer, 0, 3 * PAGE, RW);
	mt_space_write(outer.sp, 0xfff, buf, 1, MT_ATTRS_NONE);
	is_dirty(w.ram, "70", "through two IOMMUs");
	end_iommu(&outer);
	end_iommu(&io);
	end(&w);
}

static void
test_cache(void)
{
	struct mt_cache c;
	struct iommu io;
	struct world w;
	uint32_t val;

	begin(&w);
	begin_iommu(&io, w.t, w.sp);
	must(mt_cache_init(&c, io.sp, 0, 3 * PAGE, RW, MT_ATTRS_NONE) == 0);
	log_on(w.ram);
	is_int(mt_cache_load_le32(&c, 0, &val), MT_OK, "a load of a cache");
	is_dirty(w.ram, "", "marks nothing behind an IOMMU");
	is_int(mt_cache_store_le32(&c, 8, 1), MT_OK, "a store");
	is_dirty(w.ram, "3", "marks the page that it is led to");
	is_int(mt_cache_store_be64(&c, PAGE - 4, 1), MT_OK, "one across two");
	is_dirty(w.ram, "3 9", "marks both");
	is_int(mt_cache_write(&c, PAGE - 1, "0123456789", 10), MT_OK,
	    "a write");
	is_dirty(w.ram, "3 9", "too");
	lead(&io, 0, 33 * PAGE, RW);
	mt_cache_store_u8(&c, 0, 1);
	is_dirty(w.ram, "33", "a cache follows the table");
	lead(&io, 0, 33 * PAGE, MT_DMA_READ);
	is_int(mt_cache_store_u8(&c, 0, 1), MT_DENIED, "a store that faults");
	is_dirty(w.ram, "", "marks nothing");
	mt_cache_fini(&c);
	end_iommu(&io);
	end(&w);
}

static void
test_mappings(void)
{
	struct mt_range ranges[3] = { { 0x800, 0xfff }, { 0x1000, 0x27ff },
	    { 0x3000, 0x3fff } };
	struct mt_mapping map, maps[4];
	struct iovec iov[4];
	struct iommu io;
	struct world w;
	struct mt_sg sg;

	begin(&w);
	begin_iommu(&io, w.t, w.sp);
	must(mt_dma_map(io.sp, 0x800, 0x800, RW, MT_ATTRS_NONE, &map) == 0 &&
	    !map.bounced && map.len == 0x800);
	log_on(w.ram);
	works(mt_dma_set_dirty(&map, 0, 1), "the user of a mapping can mark");
	is_dirty(w.ram, "3", "what it was led to");
	lead(&io, 0, 40 * PAGE, RW);
	works(mt_dma_set_dirty(&map, 0x7ff, 1), "when the table has changed");
	is_dirty(w.ram, "3", "that is the memory that is lent");
	works(mt_dma_unmap(&map, 0x800), "unmap");
	is_dirty(w.ram, "3", "marks that, too");
	lead(&io, 0, 3 * PAGE, RW);

	must(mt_dma_map(io.sp, PAGE, 4 * PAGE, RW, MT_ATTRS_NONE, &map) == 0 &&
	    map.len == 2 * PAGE);
	works(mt_dma_unmap(&map, PAGE + 1), "pages that continue each other");
	is_dirty(w.ram, "9-10", "are marked as far as they were written");
	must(mt_dma_map(io.sp, PAGE, 2 * PAGE, RW, MT_ATTRS_NONE, &map) == 0);
	works(mt_dma_unmap(&map, PAGE), "of the first alone");
	is_dirty(w.ram, "9", "the first");
	must(mt_dma_map(io.sp, 7 * PAGE, PAGE, MT_DMA_READ, MT_ATTRS_NONE,
	    &map) == 0);
	works(mt_dma_unmap(&map, PAGE), "a mapping to be read");
	is_dirty(w.ram, "", "marks nothing");
	must(mt_dma_map(io.sp, 4 * PAGE, 2, RW, MT_ATTRS_NONE, &map) == 0);
	works(mt_dma_unmap(&map, 2), "one by way of an alias");
	is_dirty(w.ram, "5", "marks the page of the region");

	/* 0x800 of page 3; 0x1800 of 9 and 10; 0x1000 of 70. */
	must(mt_dma_map_sg(io.sp, ranges, 3, RW, MT_ATTRS_NONE, iov, maps, 4,
	    &sg) == 0 && sg.len == 0x3000);
	works(mt_dma_unmap_sg(&sg, 0x1801), "unmap a list");
	is_dirty(w.ram, "3 9-10", "each piece as far as it was written");
	must(mt_dma_map_sg(io.sp, ranges, 3, RW, MT_ATTRS_NONE, iov, maps, 4,
	    &sg) == 0);
	works(mt_dma_unmap_sg(&sg, sg.len), "a list that was written whole");
	is_dirty(w.ram, "3 9-10 70", "all of it");

	must(mt_dma_map(io.sp, 5 * PAGE, 16, RW, MT_ATTRS_NONE, &map) == 0 &&
	    map.bounced);
	is_dirty(w.ram, "", "a bounce buffer is not the memory");
	lead(&io, 5, 50 * PAGE, RW);
	works(mt_dma_unmap(&map, 16), "its write-back");
	is_dirty(w.ram, "50", "marks where it is led to by then");
	end_iommu(&io);
	end(&w);
}

int
main(void)
{
	test_accesses();
	test_cache();
	test_mappings();
	return (done());
}
