/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The walk that every access is: piece by piece through a view, to memory, to
 * devices, through IOMMUs.  The rules are those of QEMU's memory API;
 * memtree(3) states them and where ours differ.
 */

#include <string.h>

#include "internal-value.h"

void
mt__lookup(const struct mt_view *v, mt_addr addr, bool is_write,
    struct mt_attrs attrs, struct mt__hit *hit)
{
	const struct mt__span *span = mt__tree_at(v->top, addr);
	bool direct;

	hit->host = NULL;
	if (span == NULL) {
		span = mt__tree_next(v->top, addr);
		hit->span = NULL;
		hit->room = (span == NULL ? MT_LAST_MAX :
		    span->range.first - 1) - addr;
		hit->off = 0;
		return;
	}
	hit->span = span;
	hit->room = span->range.last - addr;
	hit->off = span->off + (addr - span->range.first);
	if (is_write)
		direct = (span->flags & MT__DIRECT_WRITE) != 0 ||
		    (attrs.debug && mt__region_is_ram(span->region) &&
		    !span->region->write_protected);
	else
		direct = (span->flags & MT__DIRECT_READ) != 0;
	if (direct) {
		hit->host = span->host + (addr - span->range.first);
		if ((span->flags & MT__EXACT) != 0)
			hit->room = mt__ptr_len(span->region) - hit->off - 1;
	}
}

/*
 * Guest memory is shared with others that write it at the same time.  An
 * aligned access of a machine width must not tear, or a doorbell would ring
 * with a value that nobody wrote; so it is one atomic access.
 */
#define ONE_ACCESS(bits)						\
	case bits / 8:							\
		if (((uintptr_t)from | (uintptr_t)to) % (bits / 8) != 0)\
			break;						\
		__atomic_store_n((uint##bits##_t *)to, __atomic_load_n(	\
		    (const uint##bits##_t *)from, __ATOMIC_RELAXED),	\
		    __ATOMIC_RELAXED);					\
		return

void
mt__copy(void *to, const void *from, size_t len)
{
	switch (len) {
	ONE_ACCESS(8);
	ONE_ACCESS(16);
	ONE_ACCESS(32);
	ONE_ACCESS(64);
	}
	/* A buffer may itself lie in the memory that is accessed. */
	memmove(to, from, len);
}

/*
 * How much of a longer access a hole swallows.  On a bus the access would
 * come in words of up to four bytes, aligned, and a word that begins in the
 * hole is lost as a whole: the answer may reach past the end of the hole.
 */
static size_t
hole_size(const struct mt__hit *hit, mt_addr addr, size_t len)
{
	size_t done = 0, step;
	mt_addr at, end, align;

	if (hit->room >= len)
		return (len);
	end = addr + hit->room;
	if ((end & ~(mt_addr)3) > addr)
		done = (size_t)((end & ~(mt_addr)3) - addr);
	while (done < len && (at = addr + done) <= end && at >= addr) {
		align = at & -at;
		step = align != 0 && align < 4 ? (size_t)align : 4;
		if (step > len - done)
			step = mt__floor2((unsigned int)(len - done));
		done += step;
	}
	return (done);
}

/* A single value is not to be cut on the way either. */
static enum mt_result
access_whole(struct mt__reader *rd, mt_addr addr, uint8_t *buf,
    unsigned int size, bool is_write, struct mt_attrs attrs)
{
	enum mt_result res;
	uint64_t val = 0;

	if (is_write)
		return (mt__store(rd, addr, size, MT_HOST,
		    mt__value_of(buf, size, MT_HOST), attrs));
	res = mt__load(rd, addr, size, MT_HOST, &val, attrs);
	mt__bytes_of(val, buf, size, MT_HOST);
	return (res);
}

/* What of an access one translation covers.  Returns how much that was. */
static __attribute__((noinline)) size_t
iommu_access(struct mt__reader *rd, const struct mt__hit *hit, uint8_t *buf,
    size_t len, bool is_write, struct mt_attrs attrs, unsigned int *res)
{
	unsigned int need = mt__iommu_need(is_write);
	struct mt__reader in;
	enum mt_result fault;
	mt_addr at;

	len = mt__iommu_enter(&in, rd, hit, len, need, need, attrs, &at,
	    &fault);
	if (fault != MT_OK) {
		if (!is_write)
			memset(buf, 0, len);
		*res |= fault;
		return (len);
	}
	*res |= len == rd->whole ?
	    access_whole(&in, at, buf, (unsigned int)len, is_write, attrs) :
	    mt__access(&in, at, buf, len, is_write, attrs);
	mt__reader_leave(&in);
	return (len);
}

/*
 * Does an access go over pages of an IOMMU?  Then only the walk over all of
 * its answers can have in flight together what regions behind them defer.  Not
 * that of a single value: behind one answer that is put together at once, and
 * so has to be there.
 */
static inline bool
goes_over_pages(const struct mt__reader *rd, mt_addr addr, size_t len)
{
	return (rd->access == NULL && len > 8 && len > 4096 - addr % 4096);
}

enum mt_result
mt__access(struct mt__reader *rd, mt_addr addr, void *buf, size_t len,
    bool is_write, struct mt_attrs attrs)
{
	const struct mt_view *v = rd->view;
	uint8_t *p = buf;
	struct mt__hit hit;
	unsigned int res = MT_OK;
	size_t step;

	while (len != 0) {
		mt__lookup(v, addr, is_write, attrs, &hit);
		step = hit.room < len - 1 ? (size_t)hit.room + 1 : len;
		if (hit.host != NULL) {
			if (is_write) {
				mt__copy(hit.host, p, step);
				mt__wrote(hit.span->region, hit.off, step);
			} else
				mt__copy(p, hit.host, step);
		} else if (mt__is_device(&hit, is_write, attrs)) {
			step = mt__device_access(rd, &hit, p, len, is_write,
			    attrs, &res);
		} else if (mt__is_iommu(&hit)) {
			step = goes_over_pages(rd, addr, len) ? 0 :
			    iommu_access(rd, &hit, p, step, is_write, attrs,
			    &res);
		} else {
			if (hit.span == NULL)
				step = hole_size(&hit, addr, len);
			res |= hit.span != NULL && attrs.memory_only &&
			    !mt__region_is_ram(hit.span->region) &&
			    hit.span->region->kind != MT_RAM_DEVICE ?
			    MT_DENIED : MT_DECODE;
			if (!is_write)
				memset(p, 0, step);
		}
		if (step == 0) {
			/* All that is deferred from here on goes together. */
			res |= mt__defer_walk(rd, addr, p, len, is_write,
			    attrs);
			break;
		}
		p += step;
		len -= step;
		if (len != 0 && addr > MT_LAST_MAX - step) {
			/* Past the end of all addresses. */
			if (!is_write)
				memset(p, 0, len);
			return ((enum mt_result)(res | MT_DECODE));
		}
		addr += step;
	}
	return ((enum mt_result)res);
}

/* --- single values ------------------------------------------------------- */

MT__ALWAYS_INLINE enum mt_result
load_one(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	struct mt__hit hit;
	uint64_t buf = 0;
	int res;

	*val = 0;
	if (!mt__size_ok(size))
		return (MT_DECODE);
	mt__lookup(rd->view, addr, false, attrs, &hit);
	if (hit.host != NULL && hit.room >= size - 1) {
		mt__copy(&buf, hit.host, size);
		*val = mt__value_of(&buf, size, order);
		return (MT_OK);
	}
	if (mt__is_device(&hit, false, attrs) &&
	    (res = mt__device_load(&hit, size, order, val, attrs)) != -1)
		return ((enum mt_result)res);
	rd->whole = (uint8_t)size;
	res = (int)mt__access(rd, addr, &buf, size, false, attrs);
	*val = mt__value_of(&buf, size, order);
	return ((enum mt_result)res);
}

MT__ALWAYS_INLINE enum mt_result
store_one(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	struct mt__hit hit;
	uint64_t buf = 0;
	int res;

	if (!mt__size_ok(size))
		return (MT_DECODE);
	val &= mt__mask(size);
	mt__bytes_of(val, &buf, size, order);
	mt__lookup(rd->view, addr, true, attrs, &hit);
	if (hit.host != NULL && hit.room >= size - 1) {
		mt__copy(hit.host, &buf, size);
		mt__wrote(hit.span->region, hit.off, size);
		return (MT_OK);
	}
	if (mt__is_device(&hit, true, attrs) &&
	    (res = mt__device_store(&hit, size, order, val, attrs)) != -1)
		return ((enum mt_result)res);
	rd->whole = (uint8_t)size;
	return (mt__access(rd, addr, &buf, size, true, attrs));
}

enum mt_result
mt__load(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	return (load_one(rd, addr, size, order, val, attrs));
}

enum mt_result
mt__store(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	return (store_one(rd, addr, size, order, val, attrs));
}

/* --- the long way of spaces ---------------------------------------------- */

enum mt_result
mt__access_on(struct mt_space *sp, struct mt_view *v, mt_addr addr, void *buf,
    size_t len, bool is_write, struct mt_attrs attrs)
{
	struct mt__reader rd;
	enum mt_result res;

	mt__reader_go_on(&rd, sp, v);
	res = mt__access(&rd, addr, buf, len, is_write, attrs);
	mt__reader_end(&rd);
	return (res);
}

enum mt_result
mt__load_on(struct mt_space *sp, struct mt_view *v, mt_addr addr,
    unsigned int size, enum mt_endian order, uint64_t *val,
    struct mt_attrs attrs)
{
	struct mt__reader rd;
	enum mt_result res;

	mt__reader_go_on(&rd, sp, v);
	res = load_one(&rd, addr, size, order, val, attrs);
	mt__reader_end(&rd);
	return (res);
}

enum mt_result
mt__store_on(struct mt_space *sp, struct mt_view *v, mt_addr addr,
    unsigned int size, enum mt_endian order, uint64_t val,
    struct mt_attrs attrs)
{
	struct mt__reader rd;
	enum mt_result res;

	mt__reader_go_on(&rd, sp, v);
	res = store_one(&rd, addr, size, order, val, attrs);
	mt__reader_end(&rd);
	return (res);
}
