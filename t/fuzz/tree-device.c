/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The devices of the tree, and what leads elsewhere. */

#include "t/fuzz/tree.h"

static void
check_register(const struct node *n, mt_addr off, unsigned int size)
{
	check(size == 1 || size == 2 || size == 4 || size == 8);
	/* Views in transactions and caches are as they were, regions not. */
	check(w.depth > 0 || w.in_cache || off <= mt_region_last(n->r));
}

static enum mt_result
dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct node *n = arg;

	(void)attrs;
	check_register(n, off, size);
	*val = off * 0x0101010101010101u;
	return (off % 7 == 6 ? MT_DEVICE : MT_OK);
}

/* A register that hides another region, as one that moves a BAR would. */
static enum mt_result
dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct node *n = arg, *other = &w.nodes[val % NODES];

	(void)attrs;
	check_register(n, off, size);
	if (w.busy == NULL && off == 0 && other->r != NULL) {
		w.busy = n;
		check(mt_region_set_enabled(other->r, (val & 0x80) != 0) == 0);
		w.busy = NULL;
	}
	return (MT_OK);
}

static bool
dev_accepts(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)is_write, (void)attrs;
	return (off % 32 != 31);
}

/* Any number of bytes at once. */
static void
check_buf(const struct node *n, mt_addr off, size_t len)
{
	check(len > 0 && off + (len - 1) >= off);
	check(w.depth > 0 || w.in_cache ||
	    off + (len - 1) <= mt_region_last(n->r));
}

static void
fill(uint8_t *buf, mt_addr off, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(off + i);
}

static enum mt_result
dev_read_buf(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)attrs;
	check_buf(arg, off, len);
	fill(buf, off, len);
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

static enum mt_result
dev_write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	volatile uint8_t sum = 0;
	size_t i;

	(void)attrs;
	check_buf(arg, off, len);
	for (i = 0; i < len; i++)
		sum ^= ((const uint8_t *)buf)[i];
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

/* Done at once, or kept until the script says so. */
static void
dev_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct flight *f;

	(void)attrs;
	check_buf(arg, off, len);
	if (!is_write)
		fill(buf, off, len);
	for (f = w.flights; off % 4 != 3 && f < w.flights + PIECES; f++)
		if (f->piece == NULL) {
			*f = (struct flight){ piece, buf, len, is_write,
			    off % 8 == 5 };
			return;
		}
	mt_access_complete(piece, off % 5 == 4 ? MT_DECODE : MT_OK);
}

/* For those who wait: as nobody else would complete it, at once. */
static void
dev_submit_now(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	mt_access_complete(piece, is_write ?
	    dev_write_buf(arg, off, buf, len, attrs) :
	    dev_read_buf(arg, off, buf, len, attrs));
}

static bool
dev_cancel(void *arg, struct mt_piece *piece)
{
	struct flight *f;

	(void)arg;
	for (f = w.flights; f < w.flights + PIECES; f++)
		if (f->piece == piece && !f->stays) {
			f->piece = NULL;
			return (true);
		}
	return (false);
}

const struct mt_io_ops dev_ops[DEV_OPS] = {
	{ .read = dev_read, .write = dev_write, .endian = MT_LITTLE },
	{ .read = dev_read, .write = dev_write, .endian = MT_BIG,
	    .valid = { 1, 8, true }, .impl = { 4, 4, false } },
	{ .read = dev_read, .write = dev_write, .accepts = dev_accepts,
	    .endian = MT_LITTLE, .valid = { 2, 4, false },
	    .impl = { 1, 8, true } },
	{ .read = dev_read, .endian = MT_HOST, .valid = { 8, 8, false },
	    .impl = { 1, 1, false } },
	{ .read = dev_read, .write = dev_write, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf },
	{ .write_buf = dev_write_buf },
	{ .read_buf = dev_read_buf, .write_buf = dev_write_buf,
	    .submit_buf = dev_submit, .cancel_buf = dev_cancel },
	{ .read = dev_read, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf, .submit_buf = dev_submit },
	{ .submit_buf = dev_submit_now },
};

/* Leads anywhere and nowhere, also back, by windows of all sizes. */
static void
iommu_translate(void *arg, mt_addr off, unsigned int flags,
    struct mt_attrs attrs, struct mt_iotlb *out)
{
	static const mt_addr masks[] = { 0xfff, 0xff, 0, MT_LAST_MAX, 0xfff,
	    0xffff, 0xf0f, 7 };
	const struct node *n = arg;
	const uint64_t x = ((off >> 4) + 1) * 0x9e3779b97f4a7c15u;

	(void)attrs;
	check(n->r != NULL && flags < 8);
	out->target = w.seats[(x >> 32) % SPACES].sp;
	out->addr = (x >> 8 & 7) != 0 ? x >> 48 : x;
	out->mask = masks[x >> 11 & 7];
	out->perm = (x >> 14 & 7) < 3 ? x >> 14 & 3 :
	    MT_IOMMU_READ | MT_IOMMU_WRITE;
}

const struct mt_iommu_ops iommu_ops = {
	.translate = iommu_translate,
};
