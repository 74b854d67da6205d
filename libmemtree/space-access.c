/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The blocking calls of a space.  Most accesses are short and go to one
 * section, of memory or of a simple device: they take a way of their own, which
 * has everything inlined.
 */

#include <stdlib.h>
#include <string.h>

#include "internal-value.h"

/* One value of memory, in the host's order. */
#define GET(bits)							\
	case bits / 8:							\
		if ((uintptr_t)p % (bits / 8) == 0)			\
			return (__atomic_load_n((const uint##bits##_t *)p,\
			    __ATOMIC_RELAXED));				\
		break
#define PUT(bits)							\
	case bits / 8:							\
		if ((uintptr_t)p % (bits / 8) == 0) {			\
			__atomic_store_n((uint##bits##_t *)p,		\
			    (uint##bits##_t)val, __ATOMIC_RELAXED);	\
			return;						\
		}							\
		break

MT__ALWAYS_INLINE uint64_t
get_value(const void *p, unsigned int size)
{
	switch (size) {
	GET(8);
	GET(16);
	GET(32);
	GET(64);
	}
	return (mt__value_of(p, size, MT_HOST));
}

MT__ALWAYS_INLINE void
put_value(void *p, unsigned int size, uint64_t val)
{
	switch (size) {
	PUT(8);
	PUT(16);
	PUT(32);
	PUT(64);
	}
	mt__bytes_of(val, p, size, MT_HOST);
}

/*
 * The short way, which most accesses take: all of it is in one section that
 * has its bytes in the host's memory.  Returns where, or NULL for the long way,
 * which finds the same and more.
 */
MT__ALWAYS_INLINE uint8_t *
direct(const struct mt_view *v, mt_addr addr, size_t len, unsigned int flag,
    const struct mt__span **at)
{
	const struct mt__span *span = mt__tree_at(v->top, addr);

	*at = span;
	if (__builtin_expect(span == NULL || (span->flags & flag) == 0 ||
	    len - 1 > span->range.last - addr, 0))
		return (NULL);
	return (span->host + (addr - span->range.first));
}

/*
 * The short way to a device: one aligned value that it takes in one call, all
 * of it in one section.
 */
MT__ALWAYS_INLINE bool
is_one_call(const struct mt__span *span, mt_addr addr, size_t len,
    bool is_write, struct mt_attrs attrs)
{
	mt_addr off;

	if (span == NULL || len - 1 > 7 || (span->region->whole[is_write] &
	    len & -len) != len || attrs.memory_only ||
	    (is_write && span->extras != NULL))
		return (false);
	off = span->off + (addr - span->range.first);
	return ((off & (len - 1)) == 0 && len - 1 <= span->range.last - addr &&
	    len - 1 <= span->region_last - off);
}

MT__ALWAYS_INLINE enum mt_result
one_read(const struct mt__span *span, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	const struct mt_region *r = span->region;
	enum mt_result res;
	uint64_t got = 0;

	res = r->ops->read(r->arg, span->off + (addr - span->range.first),
	    size, &got, attrs);
	*val = mt__convert(got & mt__mask(size), size, r->ops->endian, order);
	return (res);
}

MT__ALWAYS_INLINE enum mt_result
one_write(const struct mt__span *span, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	const struct mt_region *r = span->region;

	return (r->ops->write(r->arg, span->off + (addr - span->range.first),
	    size, mt__convert(val, size, order, r->ops->endian), attrs));
}

enum mt_result
mt_space_read(struct mt_space *sp, mt_addr addr, void *buf, size_t len,
    struct mt_attrs attrs)
{
	const struct mt__span *span;
	enum mt_result res = MT_OK;
	const uint8_t *host;
	struct mt_view *v;
	uint64_t val;

	mt__read_begin(sp->topology);
	v = mt__space_view(sp);
	host = direct(v, addr, len, MT__DIRECT_READ, &span);
	if (host != NULL)
		mt__copy(buf, host, len);
	else if (is_one_call(span, addr, len, false, attrs)) {
		res = one_read(span, addr, (unsigned int)len, MT_HOST, &val,
		    attrs);
		put_value(buf, (unsigned int)len, val);
	} else
		return (mt__access_on(sp, v, addr, buf, len, false, attrs));
	mt__read_end(sp->topology);
	return (res);
}

enum mt_result
mt_space_write(struct mt_space *sp, mt_addr addr, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	/* mt__access() only reads from it. */
	void *from = (void *)(uintptr_t)buf;
	const struct mt__span *span;
	enum mt_result res = MT_OK;
	struct mt_view *v;
	uint8_t *host;

	mt__read_begin(sp->topology);
	v = mt__space_view(sp);
	host = direct(v, addr, len, MT__DIRECT_WRITE, &span);
	if (host != NULL) {
		mt__copy(host, buf, len);
		mt__wrote(span->region, span->off +
		    (addr - span->range.first), len);
	} else if (is_one_call(span, addr, len, true, attrs))
		res = one_write(span, addr, (unsigned int)len, MT_HOST,
		    get_value(buf, (unsigned int)len), attrs);
	else
		return (mt__access_on(sp, v, addr, from, len, true, attrs));
	mt__read_end(sp->topology);
	return (res);
}

enum mt_result
mt_space_load(struct mt_space *sp, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	const struct mt__span *span;
	enum mt_result res = MT_OK;
	const uint8_t *host;
	struct mt_view *v;

	mt__read_begin(sp->topology);
	v = mt__space_view(sp);
	host = direct(v, addr, size, MT__DIRECT_READ, &span);
	if (host != NULL && mt__size_ok(size))
		*val = mt__convert(get_value(host, size), size, MT_HOST, order);
	else if (is_one_call(span, addr, size, false, attrs))
		res = one_read(span, addr, size, order, val, attrs);
	else
		return (mt__load_on(sp, v, addr, size, order, val, attrs));
	mt__read_end(sp->topology);
	return (res);
}

enum mt_result
mt_space_store(struct mt_space *sp, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	const struct mt__span *span;
	enum mt_result res = MT_OK;
	struct mt_view *v;
	uint8_t *host;

	mt__read_begin(sp->topology);
	v = mt__space_view(sp);
	host = direct(v, addr, size, MT__DIRECT_WRITE, &span);
	if (host != NULL && mt__size_ok(size)) {
		put_value(host, size, mt__convert(val & mt__mask(size), size, order,
		    MT_HOST));
		mt__wrote(span->region, span->off +
		    (addr - span->range.first), size);
	} else if (is_one_call(span, addr, size, true, attrs))
		res = one_write(span, addr, size, order, val & mt__mask(size),
		    attrs);
	else
		return (mt__store_on(sp, v, addr, size, order, val, attrs));
	mt__read_end(sp->topology);
	return (res);
}

/* --- with rules of their own --------------------------------------------- */

#define CHUNK		512u
#define LARGE_CHUNK	((size_t)1 << 20)

/* What is written by such rules. */
struct source {
	const uint8_t *p;		/* what is next; NULL: byte, always */
	uint8_t byte;
	uint8_t *large;			/* a chunk of it, if one was needed */
	size_t large_len;
};

/* Of a source, up to *step bytes to where hit is. */
typedef unsigned int	step_fn(struct mt__reader *rd,
			    const struct mt__hit *hit, mt_addr addr,
			    struct source *src, size_t *step,
			    struct mt_attrs attrs);

/* Write len bytes by fn, through IOMMUs if need be. */
static unsigned int
write_by(step_fn *fn, struct mt__reader *rd, mt_addr addr, struct source *src,
    size_t len, struct mt_attrs attrs)
{
	const uint8_t *p = src->p;
	unsigned int res = MT_OK;
	struct mt__reader in;
	struct mt__hit hit;
	enum mt_result fault;
	size_t step;
	mt_addr at;

	while (len != 0) {
		mt__lookup(rd->view, addr, true, attrs, &hit);
		step = len;
		if (mt__is_iommu(&hit)) {
			step = mt__iommu_enter(&in, rd, &hit, len,
			    MT_IOMMU_WRITE, MT_IOMMU_WRITE, attrs, &at, &fault);
			res |= fault;
			if (fault == MT_OK) {
				res |= write_by(fn, &in, at, src, step, attrs);
				mt__reader_leave(&in);
			}
		} else
			res |= fn(rd, &hit, addr, src, &step, attrs);
		if (p != NULL)
			src->p = p += step;
		len -= step;
		if (len != 0 && addr > MT_LAST_MAX - step)
			return (res | MT_DECODE);
		addr += step;
	}
	return (res);
}

/* A chunk to be given away in one piece, of no more than len bytes. */
static const uint8_t *
large_chunk(struct source *src, size_t *len)
{
	if (src->large == NULL) {
		src->large_len = *len < LARGE_CHUNK ? *len : LARGE_CHUNK;
		if ((src->large = malloc(src->large_len)) == NULL)
			return (NULL);
		memset(src->large, src->byte, src->large_len);
	}
	if (*len > src->large_len)
		*len = src->large_len;
	return (src->large);
}

/*
 * What is one thing for all of a section is done at once: memory, a buffer for
 * a device that takes any, and what is in vain.  The rest is in chunks that end
 * at multiples of their size, like devices.
 */
static unsigned int
set(struct mt__reader *rd, const struct mt__hit *hit, mt_addr addr,
    struct source *src, size_t *step, struct mt_attrs attrs)
{
	bool is_device = mt__is_device(hit, true, attrs), is_all;
	size_t len = *step, room;
	const uint8_t *p;
	uint8_t chunk[CHUNK];
	mt_addr end;

	is_all = hit->room >= len - 1;
	room = is_all ? len : (size_t)hit->room + 1;
	if (hit->host != NULL && room > sizeof(uint64_t) &&
	    (hit->span->flags & MT__EXACT) == 0) {
		memset(hit->host, src->byte, room);
		mt__wrote(hit->span->region, hit->off, room);
		*step = room;
		return (MT_OK);
	}
	memset(chunk, src->byte, sizeof(chunk));
	if (is_device && (room = mt__device_buf(hit, len, true)) != 0) {
		p = room <= CHUNK ? chunk : large_chunk(src, &room);
		if (p != NULL) {
			*step = room;
			return (mt__access(rd, addr, (void *)(uintptr_t)p, room,
			    true, attrs));
		}
	}
	if (hit->host == NULL && !is_device) {
		/* The last word of a hole may swallow what follows it. */
		end = (addr + hit->room) & ~(mt_addr)(CHUNK - 1);
		if (hit->span == NULL && !is_all)
			room = end > addr ? (size_t)(end - addr) : 0;
		if (room != 0) {
			*step = room;
			return (mt__access(rd, addr, chunk, 1, true, attrs));
		}
	}
	if (len > CHUNK - addr % CHUNK)
		*step = CHUNK - addr % CHUNK;
	return (mt__access(rd, addr, chunk, *step, true, attrs));
}

static unsigned int
write_rom(struct mt__reader *rd, const struct mt__hit *hit, mt_addr addr,
    struct source *src, size_t *step, struct mt_attrs attrs)
{
	struct mt_region *r = hit->span != NULL ? hit->span->region : NULL;

	(void)rd, (void)addr, (void)attrs;
	if (hit->room < *step - 1)
		*step = (size_t)hit->room + 1;
	if (r == NULL || r->ptr == NULL || r->write_protected)
		return (MT_DECODE);
	if (r->kind == MT_RAM_DEVICE)
		mt__ram_device_write(hit, src->p, *step);
	else {
		mt__copy(r->ptr + hit->off, src->p, *step);
		mt__wrote(r, hit->off, *step);
	}
	return (MT_OK);
}

enum mt_result
mt_space_set(struct mt_space *sp, mt_addr addr, uint8_t byte, size_t len,
    struct mt_attrs attrs)
{
	struct source src = { .byte = byte };
	struct mt__reader rd;
	unsigned int res;

	mt__reader_begin(&rd, sp);
	res = write_by(set, &rd, addr, &src, len, attrs);
	mt__reader_end(&rd);
	free(src.large);
	return ((enum mt_result)res);
}

enum mt_result
mt_space_write_rom(struct mt_space *sp, mt_addr addr, const void *buf,
    size_t len, struct mt_attrs attrs)
{
	struct source src = { .p = buf };
	struct mt__reader rd;
	unsigned int res;

	mt__reader_begin(&rd, sp);
	res = write_by(write_rom, &rd, addr, &src, len, attrs);
	mt__reader_end(&rd);
	return ((enum mt_result)res);
}

/* --- asking -------------------------------------------------------------- */

static bool	valid(struct mt__reader *rd, mt_addr addr, size_t len,
		    bool is_write, struct mt_attrs attrs);
/* The same of what one translation covers: nobody hears of a fault. */
static size_t
iommu_valid(struct mt__reader *rd, const struct mt__hit *hit, size_t len,
    bool is_write, struct mt_attrs attrs, bool *ok)
{
	struct mt__reader in;
	enum mt_result fault;
	mt_addr at;

	len = mt__iommu_enter(&in, rd, hit, len, mt__iommu_need(is_write),
	    MT_IOMMU_QUIET, attrs, &at, &fault);
	if ((*ok = fault == MT_OK)) {
		*ok = valid(&in, at, len, is_write, attrs);
		mt__reader_leave(&in);
	}
	return (len);
}

static bool
valid(struct mt__reader *rd, mt_addr addr, size_t len, bool is_write,
    struct mt_attrs attrs)
{
	struct mt__hit hit;
	bool ok = true;
	size_t step;

	while (len != 0 && ok) {
		mt__lookup(rd->view, addr, is_write, attrs, &hit);
		step = hit.room < len - 1 ? (size_t)hit.room + 1 : len;
		if (hit.host != NULL && (hit.span->flags & MT__EXACT) != 0)
			break;		/* QEMU asks no further */
		if (mt__is_iommu(&hit))
			step = iommu_valid(rd, &hit, step, is_write, attrs,
			    &ok);
		else if (hit.host == NULL) {
			ok = mt__is_device(&hit, is_write, attrs);
			if (ok)
				step = mt__device_valid(&hit, addr, len, is_write,
				    attrs, &ok);
		}
		len -= step;
		if (len != 0 && addr > MT_LAST_MAX - step)
			ok = false;
		addr += step;
	}
	return (ok);
}

bool
mt_space_valid(struct mt_space *sp, mt_addr addr, size_t len, bool is_write,
    struct mt_attrs attrs)
{
	struct mt__reader rd;
	bool ok;

	mt__reader_begin(&rd, sp);
	ok = valid(&rd, addr, len, is_write, attrs);
	mt__reader_end(&rd);
	return (ok);
}
