/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Accesses: what to do at an address, how to cut it into the widths that a
 * device accepts, and how its callbacks put a value together.  The rules are
 * those of QEMU's memory API; memtree(3) states them and where ours differ.
 */

#include <endian.h>
#include <string.h>

#include "internal.h"

#if __BYTE_ORDER == __LITTLE_ENDIAN
#define HOST_ENDIAN	MT_LITTLE
#else
#define HOST_ENDIAN	MT_BIG
#endif

/* Short accesses to a device were 2 ns slower with calls in between. */
#define ALWAYS_INLINE	static inline __attribute__((always_inline))

/* --- values -------------------------------------------------------------- */

static uint64_t
swap(uint64_t val, unsigned int size)
{
	return (__builtin_bswap64(val) >> (64 - 8 * size));
}

static uint64_t
mask(unsigned int size)
{
	return (size >= 8 ? UINT64_MAX : ((uint64_t)1 << (8 * size)) - 1);
}

static enum mt_endian
order_of(enum mt_endian order)
{
	return (order == MT_HOST ? HOST_ENDIAN : order);
}

/* Turn a value between two byte orders that it can have on the bus. */
static uint64_t
convert(uint64_t val, unsigned int size, enum mt_endian from,
    enum mt_endian to)
{
	return (order_of(from) == order_of(to) ? val : swap(val, size));
}

/* size bytes in address order, as a value of the given byte order. */
static uint64_t
value_of(const void *buf, unsigned int size, enum mt_endian order)
{
	uint64_t val = 0;

	memcpy(&val, buf, size);
	if (HOST_ENDIAN == MT_BIG)
		val >>= 64 - 8 * size;
	return (convert(val, size, MT_HOST, order));
}

static void
bytes_of(uint64_t val, void *buf, unsigned int size, enum mt_endian order)
{
	val = convert(val, size, order, MT_HOST);
	if (HOST_ENDIAN == MT_BIG)
		val <<= 64 - 8 * size;
	memcpy(buf, &val, size);
}

static inline bool
size_ok(unsigned int size)
{
	return (size == 1 || size == 2 || size == 4 || size == 8);
}

/* The largest power of two not above n, which is not 0. */
static unsigned int
floor2(unsigned int n)
{
	return (1u << (31 - (unsigned int)__builtin_clz(n)));
}

/* --- host memory --------------------------------------------------------- */

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

static void
copy(void *to, const void *from, size_t len)
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

ALWAYS_INLINE uint64_t
get_value(const void *p, unsigned int size)
{
	switch (size) {
	GET(8);
	GET(16);
	GET(32);
	GET(64);
	}
	return (value_of(p, size, MT_HOST));
}

ALWAYS_INLINE void
put_value(void *p, unsigned int size, uint64_t val)
{
	switch (size) {
	PUT(8);
	PUT(16);
	PUT(32);
	PUT(64);
	}
	bytes_of(val, p, size, MT_HOST);
}

/*
 * The short way, which most accesses take: all of it is in one section that
 * has its bytes in the host's memory.  Returns where, or NULL for the long way,
 * which finds the same and more.
 */
ALWAYS_INLINE uint8_t *
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

/* --- callbacks ----------------------------------------------------------- */

static unsigned int
or_default(unsigned int width, unsigned int def)
{
	return (width != 0 ? width : def);
}

/* Does the device take an access of this size here? */
static bool
accepts(const struct mt_region *r, mt_addr off, unsigned int size,
    bool is_write, struct mt_attrs attrs)
{
	const struct mt_io_ops *ops = r->ops;

	if (ops == NULL ||
	    (is_write ? ops->write == NULL : ops->read == NULL))
		return (false);
	if (ops->accepts != NULL &&
	    !ops->accepts(r->arg, off, size, is_write, attrs))
		return (false);
	if (!ops->valid.unaligned && (off & (size - 1)) != 0)
		return (false);
	if (ops->valid.max == 0)
		return (true);
	return (size >= ops->valid.min && size <= ops->valid.max);
}

/*
 * Where the part at byte i of an access stands in its value, in bits from the
 * low end.  Negative when the callback is wider than the access, and has the
 * bytes asked for at its high end.
 */
static int
part_shift(const struct mt_io_ops *ops, unsigned int size, unsigned int unit,
    unsigned int i)
{
	if (order_of(ops->endian) == MT_BIG)
		return (((int)size - (int)unit - (int)i) * 8);
	return ((int)i * 8);
}

/* The width of the calls that make up an access of this size. */
static unsigned int
unit_of(const struct mt_io_ops *ops, unsigned int size)
{
	unsigned int min = or_default(ops->impl.min, 1);
	unsigned int max = or_default(ops->impl.max, 4);

	/* A min above the max that is only a default wins. */
	if (max < min)
		max = min;
	return (size < min ? min : size > max ? max : size);
}

/*
 * Call a device for an access that it accepts, in parts of the width that it
 * implements.  The value is in the device's own byte order.
 */
static enum mt_result
call_read(const struct mt_region *r, mt_addr off, unsigned int size,
    uint64_t *val, struct mt_attrs attrs)
{
	const struct mt_io_ops *ops = r->ops;
	unsigned int i, unit = unit_of(ops, size), res = MT_OK;
	uint64_t part;
	int shift;

	*val = 0;
	for (i = 0; i < size; i += unit) {
		part = 0;
		res |= ops->read(r->arg, off + i, unit, &part, attrs);
		part &= mask(unit);
		shift = part_shift(ops, size, unit, i);
		*val |= shift >= 0 ? part << shift : part >> -shift;
	}
	*val &= mask(size);
	return ((enum mt_result)res);
}

static enum mt_result
call_write(const struct mt_region *r, mt_addr off, unsigned int size,
    uint64_t val, struct mt_attrs attrs)
{
	const struct mt_io_ops *ops = r->ops;
	unsigned int i, unit = unit_of(ops, size), res = MT_OK;
	uint64_t part;
	int shift;

	val &= mask(size);
	for (i = 0; i < size; i += unit) {
		shift = part_shift(ops, size, unit, i);
		part = shift >= 0 ? val >> shift : val << -shift;
		res |= ops->write(r->arg, off + i, unit, part & mask(unit),
		    attrs);
	}
	return ((enum mt_result)res);
}

/*
 * How many bytes of a longer access a device is given in one step: as many as
 * it accepts at most, aligned (at is the offset) if it implements no other,
 * and none past the end of the region.
 */
static unsigned int
step_size(const struct mt__hit *hit, mt_addr at, size_t len)
{
	const struct mt_region *r = hit->span->region;
	const struct mt_io_ops *ops = r->ops;
	unsigned int size = or_default(ops->valid.max, 4);
	mt_addr align = at & -at;
	mt_addr room = hit->span->region_last - hit->off;

	if (!ops->impl.unaligned && align != 0 && align < size)
		size = (unsigned int)align;
	if (len < size)
		size = (unsigned int)len;
	if (!ops->qemu_exact && room < size - 1)
		size = (unsigned int)room + 1;
	return (floor2(size));
}

/* --- spans --------------------------------------------------------------- */

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
		if (span->region->ops != NULL && span->region->ops->qemu_exact)
			hit->room = mt__ptr_len(span->region) - hit->off - 1;
	}
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
			step = floor2((unsigned int)(len - done));
		done += step;
	}
	return (done);
}

/*
 * How much of an access goes to the callback that takes any length: all that
 * the section and the region have of it, unless it is short enough for the
 * callback of single values.  0: that one it is.
 */
ALWAYS_INLINE size_t
buf_size(const struct mt__hit *hit, size_t len, bool is_write)
{
	const struct mt_io_ops *ops = hit->span->region->ops;
	mt_addr room = hit->span->region_last - hit->off;

	if ((is_write ? ops->write_buf == NULL : ops->read_buf == NULL) &&
	    ops->submit_buf == NULL)
		return (0);
	if (room > hit->room)
		room = hit->room;
	if (room < len - 1)
		len = (size_t)room + 1;
	if (len <= 8 && (is_write ? ops->write != NULL : ops->read != NULL))
		return (0);
	return (len);
}

/*
 * A RAM device is memory in all but the way that it is accessed: read-only
 * counts, memory_only does not.
 */
static __attribute__((noinline)) bool
is_ram_device(const struct mt__hit *hit, bool is_write, bool debug)
{
	return (!is_write || (hit->span->flags & MT_SECTION_READONLY) == 0 ||
	    (debug && !hit->span->region->write_protected));
}

/* Is this a place where a callback would be called? */
ALWAYS_INLINE bool
is_device(const struct mt__hit *hit, bool is_write, struct mt_attrs attrs)
{
	const struct mt_region *r;

	if (hit->span == NULL || hit->host != NULL)
		return (false);
	r = hit->span->region;
	if (r->kind == MT_RAM_DEVICE)
		return (is_ram_device(hit, is_write, attrs.debug));
	return (r->ops != NULL && !attrs.memory_only);
}

/*
 * Would the callback, widened to what it implements, reach past the end of
 * the region?
 */
static bool
too_wide(const struct mt__hit *hit, unsigned int size)
{
	const struct mt_io_ops *ops = hit->span->region->ops;

	return (!ops->qemu_exact && size < ops->impl.min &&
	    hit->span->region_last - hit->off < ops->impl.min - 1u);
}

/*
 * Is there an eventfd for a write, and was signalled instead of the device?
 * It is there only where all of its bytes are in the section.  The value is
 * in the device's own byte order.
 */
static inline bool
signalled(const struct mt__hit *hit, unsigned int size, uint64_t val)
{
	const struct mt__extras *x = hit->span->extras;

	return (__builtin_expect(x != NULL, 0) && hit->room >= size - 1 &&
	    mt__eventfds_signal(x->eventfds, hit->off, size, val));
}

/* One step of a longer access, at a device. */
ALWAYS_INLINE enum mt_result
call_step(const struct mt__hit *hit, uint8_t *buf, unsigned int size,
    bool is_write, struct mt_attrs attrs)
{
	const struct mt_region *r = hit->span->region;
	enum mt_endian order = r->ops->endian;
	enum mt_result res;
	uint64_t val = 0;

	if (too_wide(hit, size) ||
	    !accepts(r, hit->off, size, is_write, attrs)) {
		if (!is_write)
			memset(buf, 0, size);
		return (MT_DECODE);
	}
	if (is_write) {
		val = value_of(buf, size, order);
		if (signalled(hit, size, val))
			return (MT_OK);
		return (call_write(r, hit->off, size, val, attrs));
	}
	res = call_read(r, hit->off, size, &val, attrs);
	bytes_of(val, buf, size, order);
	return (res);
}

/* The same with a guard or a lock around it; rare, so out of the way. */
static __attribute__((noinline)) enum mt_result
fenced_step(const struct mt__hit *hit, uint8_t *buf, unsigned int size,
    bool is_write, struct mt_attrs attrs)
{
	struct mt__inside in;
	enum mt_result res;

	if (!mt__guard_enter(hit->span->region, &in)) {
		if (!is_write)
			memset(buf, 0, size);
		return (MT_DENIED);
	}
	res = call_step(hit, buf, size, is_write, attrs);
	mt__guard_leave(&in);
	return (res);
}

static enum mt_result
device_step(const struct mt__hit *hit, uint8_t *buf, unsigned int size,
    bool is_write, struct mt_attrs attrs)
{
	if (hit->span->region->fenced)
		return (fenced_step(hit, buf, size, is_write, attrs));
	return (call_step(hit, buf, size, is_write, attrs));
}

/*
 * A buffer for a device, which it may complete later.  What has been read by
 * one that failed is zeroed: nothing of ours must pass for it.
 */
static __attribute__((noinline)) enum mt_result
device_buf(struct mt__reader *rd, const struct mt__hit *hit, uint8_t *buf,
    size_t len, bool is_write, struct mt_attrs attrs)
{
	const struct mt_region *r = hit->span->region;
	struct mt__inside in;
	enum mt_result res;

	if (r->ops->submit_buf != NULL) {
		if (rd->access != NULL)
			return (mt__defer_begin(rd->access, hit, buf, len,
			    is_write, attrs));
		if (is_write ? r->ops->write_buf == NULL :
		    r->ops->read_buf == NULL)
			return (mt__defer_wait(rd, hit, buf, len, is_write,
			    attrs));
	}
	res = MT_DENIED;
	if (mt__enter(r, &in)) {
		res = is_write ?
		    r->ops->write_buf(r->arg, hit->off, buf, len, attrs) :
		    r->ops->read_buf(r->arg, hit->off, buf, len, attrs);
		mt__leave(r, &in);
	}
	if (res != MT_OK && !is_write)
		memset(buf, 0, len);
	return (res);
}

/*
 * What of an access is a device's: in one call, or step by step to the end of
 * the section or, as QEMU does, past it.  Returns how much that was.
 */
ALWAYS_INLINE size_t
device_access(struct mt__reader *rd, struct mt__hit *hit, uint8_t *buf,
    size_t len, bool is_write, struct mt_attrs attrs, unsigned int *res)
{
	size_t done = buf_size(hit, len, is_write);
	unsigned int step;

	if (done != 0) {
		*res |= device_buf(rd, hit, buf, done, is_write,
		    attrs);
		return (done);
	}
	for (;;) {
		step = step_size(hit, hit->off, len - done);
		*res |= device_step(hit, buf + done, step, is_write, attrs);
		done += step;
		if (done == len || step > hit->room)
			return (done);
		hit->off += step;
		hit->room -= step;
	}
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
		    value_of(buf, size, MT_HOST), attrs));
	res = mt__load(rd, addr, size, MT_HOST, &val, attrs);
	bytes_of(val, buf, size, MT_HOST);
	return (res);
}

static unsigned int
dir_of(bool is_write)
{
	return (is_write ? MT_IOMMU_WRITE : MT_IOMMU_READ);
}

/* What of an access one translation covers.  Returns how much that was. */
static __attribute__((noinline)) size_t
iommu_access(struct mt__reader *rd, const struct mt__hit *hit, uint8_t *buf,
    size_t len, bool is_write, struct mt_attrs attrs, unsigned int *res)
{
	struct mt__reader in;
	enum mt_result fault;
	mt_addr at;

	len = mt__iommu_enter(&in, rd, hit, len, dir_of(is_write),
	    dir_of(is_write), attrs, &at, &fault);
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
				copy(hit.host, p, step);
				mt__wrote(hit.span->region, hit.off, step);
			} else
				copy(p, hit.host, step);
		} else if (is_device(&hit, is_write, attrs)) {
			step = device_access(rd, &hit, p, len, is_write,
			    attrs, &res);
		} else if (mt__is_iommu(&hit)) {
			step = iommu_access(rd, &hit, p, step, is_write,
			    attrs, &res);
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

/* The long way, in a section that has begun, and which this ends. */
static __attribute__((noinline)) enum mt_result
access_on(struct mt_space *sp, struct mt_view *v, mt_addr addr, void *buf,
    size_t len, bool is_write, struct mt_attrs attrs)
{
	struct mt__reader rd;
	enum mt_result res;

	mt__reader_go_on(&rd, sp, v);
	res = mt__access(&rd, addr, buf, len, is_write, attrs);
	mt__reader_end(&rd);
	return (res);
}

/*
 * The short way to a device: one aligned value that it takes in one call, all
 * of it in one section.
 */
ALWAYS_INLINE bool
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

ALWAYS_INLINE enum mt_result
one_read(const struct mt__span *span, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	const struct mt_region *r = span->region;
	enum mt_result res;
	uint64_t got = 0;

	res = r->ops->read(r->arg, span->off + (addr - span->range.first),
	    size, &got, attrs);
	*val = convert(got & mask(size), size, r->ops->endian, order);
	return (res);
}

ALWAYS_INLINE enum mt_result
one_write(const struct mt__span *span, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	const struct mt_region *r = span->region;

	return (r->ops->write(r->arg, span->off + (addr - span->range.first),
	    size, convert(val, size, order, r->ops->endian), attrs));
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
		copy(buf, host, len);
	else if (is_one_call(span, addr, len, false, attrs)) {
		res = one_read(span, addr, (unsigned int)len, MT_HOST, &val,
		    attrs);
		put_value(buf, (unsigned int)len, val);
	} else
		return (access_on(sp, v, addr, buf, len, false, attrs));
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
		copy(host, buf, len);
		mt__wrote(span->region, span->off +
		    (addr - span->range.first), len);
	} else if (is_one_call(span, addr, len, true, attrs))
		res = one_write(span, addr, (unsigned int)len, MT_HOST,
		    get_value(buf, (unsigned int)len), attrs);
	else
		return (access_on(sp, v, addr, from, len, true, attrs));
	mt__read_end(sp->topology);
	return (res);
}

#define CHUNK	512u

static unsigned int
set(struct mt__reader *rd, mt_addr addr, uint8_t chunk[CHUNK], size_t len,
    struct mt_attrs attrs)
{
	unsigned int res = MT_OK;
	struct mt__reader in;
	struct mt__hit hit;
	enum mt_result fault;
	size_t step;
	mt_addr at;

	while (len != 0) {
		mt__lookup(rd->view, addr, true, attrs, &hit);
		if (mt__is_iommu(&hit)) {
			step = mt__iommu_enter(&in, rd, &hit, len,
			    MT_IOMMU_WRITE, MT_IOMMU_WRITE, attrs, &at, &fault);
			res |= fault;
			if (fault == MT_OK) {
				res |= set(&in, at, chunk, step, attrs);
				mt__reader_leave(&in);
			}
		} else {
			/* They end at multiples of their size, like devices. */
			step = CHUNK - addr % CHUNK;
			if (step > len)
				step = len;
			res |= mt__access(rd, addr, chunk, step, true, attrs);
		}
		len -= step;
		if (len != 0 && addr > MT_LAST_MAX - step)
			return (res | MT_DECODE);
		addr += step;
	}
	return (res);
}

enum mt_result
mt_space_set(struct mt_space *sp, mt_addr addr, uint8_t byte, size_t len,
    struct mt_attrs attrs)
{
	struct mt__reader rd;
	uint8_t chunk[CHUNK];
	unsigned int res;

	memset(chunk, byte, sizeof(chunk));
	mt__reader_begin(&rd, sp);
	res = set(&rd, addr, chunk, len, attrs);
	mt__reader_end(&rd);
	return ((enum mt_result)res);
}

/* Write to a RAM device what its section has room for. */
static void
store_pieces(const struct mt__hit *hit, const uint8_t *p, size_t len)
{
	struct mt__hit at = *hit;
	unsigned int step;

	for (; len != 0; len -= step, p += step, at.off += step) {
		step = step_size(&at, at.off, len);
		(void)call_write(at.span->region, at.off, step,
		    value_of(p, step, MT_HOST), MT_ATTRS_NONE);
	}
}

static unsigned int
write_rom(struct mt__reader *rd, mt_addr addr, const uint8_t *p, size_t len,
    struct mt_attrs attrs)
{
	struct mt_region *r;
	unsigned int res = MT_OK;
	struct mt__reader in;
	struct mt__hit hit;
	enum mt_result fault;
	size_t step;
	mt_addr at;

	while (len != 0) {
		mt__lookup(rd->view, addr, true, attrs, &hit);
		step = hit.room < len - 1 ? (size_t)hit.room + 1 : len;
		r = hit.span != NULL ? hit.span->region : NULL;
		if (mt__is_iommu(&hit)) {
			step = mt__iommu_enter(&in, rd, &hit, len,
			    MT_IOMMU_WRITE, MT_IOMMU_WRITE, attrs, &at, &fault);
			res |= fault;
			if (fault == MT_OK) {
				res |= write_rom(&in, at, p, step, attrs);
				mt__reader_leave(&in);
			}
		} else if (r == NULL || r->ptr == NULL || r->write_protected)
			res |= MT_DECODE;
		else if (r->kind == MT_RAM_DEVICE)
			store_pieces(&hit, p, step);
		else {
			copy(r->ptr + hit.off, p, step);
			mt__wrote(r, hit.off, step);
		}
		p += step;
		len -= step;
		if (len != 0 && addr > MT_LAST_MAX - step)
			return (res | MT_DECODE);
		addr += step;
	}
	return (res);
}

enum mt_result
mt_space_write_rom(struct mt_space *sp, mt_addr addr, const void *buf,
    size_t len, struct mt_attrs attrs)
{
	struct mt__reader rd;
	unsigned int res;

	mt__reader_begin(&rd, sp);
	res = write_rom(&rd, addr, buf, len, attrs);
	mt__reader_end(&rd);
	return ((enum mt_result)res);
}

/* --- typed --------------------------------------------------------------- */

/* Can one region take the whole value in one access? */
static bool
in_one(const struct mt__hit *hit, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	return (is_device(hit, is_write, attrs) && hit->room >= size - 1 &&
	    hit->span->region_last - hit->off >= size - 1 &&
	    !too_wide(hit, size) &&
	    accepts(hit->span->region, hit->off, size, is_write, attrs));
}

/* Load or store by one access, if one region takes it: its result, or -1. */
ALWAYS_INLINE int
load_in_one(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	const struct mt_region *r;
	enum mt_result res;

	if (!in_one(hit, size, false, attrs))
		return (-1);
	r = hit->span->region;
	res = call_read(r, hit->off, size, val, attrs);
	*val = convert(*val, size, r->ops->endian, order);
	return ((int)res);
}

ALWAYS_INLINE int
store_in_one(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	const struct mt_region *r;

	if (!in_one(hit, size, true, attrs))
		return (-1);
	r = hit->span->region;
	val = convert(val, size, order, r->ops->endian);
	if (signalled(hit, size, val))
		return (MT_OK);
	return ((int)call_write(r, hit->off, size, val, attrs));
}

/* The same with a guard or a lock; what is refused is done with. */
static __attribute__((noinline)) int
fenced_load(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	struct mt__inside in;
	int res;

	if (!mt__guard_enter(hit->span->region, &in))
		return (MT_DENIED);
	res = load_in_one(hit, size, order, val, attrs);
	mt__guard_leave(&in);
	return (res);
}

static __attribute__((noinline)) int
fenced_store(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	struct mt__inside in;
	int res;

	if (!mt__guard_enter(hit->span->region, &in))
		return (MT_DENIED);
	res = store_in_one(hit, size, order, val, attrs);
	mt__guard_leave(&in);
	return (res);
}

static bool
is_fenced(const struct mt__hit *hit)
{
	return (hit->span != NULL && hit->span->region->fenced);
}

ALWAYS_INLINE enum mt_result
load_one(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	struct mt__hit hit;
	uint64_t buf = 0;
	int res;

	*val = 0;
	if (!size_ok(size))
		return (MT_DECODE);
	mt__lookup(rd->view, addr, false, attrs, &hit);
	if (hit.host != NULL && hit.room >= size - 1) {
		copy(&buf, hit.host, size);
		*val = value_of(&buf, size, order);
		return (MT_OK);
	}
	res = is_fenced(&hit) ? fenced_load(&hit, size, order, val, attrs) :
	    load_in_one(&hit, size, order, val, attrs);
	if (res != -1)
		return ((enum mt_result)res);
	rd->whole = (uint8_t)size;
	res = (int)mt__access(rd, addr, &buf, size, false, attrs);
	*val = value_of(&buf, size, order);
	return ((enum mt_result)res);
}

ALWAYS_INLINE enum mt_result
store_one(struct mt__reader *rd, mt_addr addr, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	struct mt__hit hit;
	uint64_t buf = 0;
	int res;

	if (!size_ok(size))
		return (MT_DECODE);
	val &= mask(size);
	bytes_of(val, &buf, size, order);
	mt__lookup(rd->view, addr, true, attrs, &hit);
	if (hit.host != NULL && hit.room >= size - 1) {
		copy(hit.host, &buf, size);
		mt__wrote(hit.span->region, hit.off, size);
		return (MT_OK);
	}
	res = is_fenced(&hit) ? fenced_store(&hit, size, order, val, attrs) :
	    store_in_one(&hit, size, order, val, attrs);
	if (res != -1)
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

static __attribute__((noinline)) enum mt_result
load_on(struct mt_space *sp, struct mt_view *v, mt_addr addr,
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

static __attribute__((noinline)) enum mt_result
store_on(struct mt_space *sp, struct mt_view *v, mt_addr addr,
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
	if (host != NULL && size_ok(size))
		*val = convert(get_value(host, size), size, MT_HOST, order);
	else if (is_one_call(span, addr, size, false, attrs))
		res = one_read(span, addr, size, order, val, attrs);
	else
		return (load_on(sp, v, addr, size, order, val, attrs));
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
	if (host != NULL && size_ok(size)) {
		put_value(host, size, convert(val & mask(size), size, order,
		    MT_HOST));
		mt__wrote(span->region, span->off +
		    (addr - span->range.first), size);
	} else if (is_one_call(span, addr, size, true, attrs))
		res = one_write(span, addr, size, order, val & mask(size),
		    attrs);
	else
		return (store_on(sp, v, addr, size, order, val, attrs));
	mt__read_end(sp->topology);
	return (res);
}

/* --- asking -------------------------------------------------------------- */

/* Would a device take its part of an access?  How much that is. */
static size_t
device_valid(const struct mt__hit *hit, mt_addr addr, size_t len,
    bool is_write, struct mt_attrs attrs, bool *ok)
{
	const struct mt_region *r = hit->span->region;
	size_t step = buf_size(hit, len, is_write);
	struct mt__inside in;

	if (!(*ok = mt__enter(r, &in)))
		return (len);
	if (step == 0) {
		step = step_size(hit, r->ops->qemu_exact ? addr : hit->off,
		    len);
		*ok = !too_wide(hit, (unsigned int)step) &&
		    accepts(r, hit->off, (unsigned int)step, is_write, attrs);
	}
	mt__leave(r, &in);
	return (step);
}

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

	len = mt__iommu_enter(&in, rd, hit, len, dir_of(is_write),
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
		if (hit.host != NULL && hit.span->region->ops != NULL &&
		    hit.span->region->ops->qemu_exact)
			break;		/* QEMU asks no further */
		if (mt__is_iommu(&hit))
			step = iommu_valid(rd, &hit, step, is_write, attrs,
			    &ok);
		else if (hit.host == NULL) {
			ok = is_device(&hit, is_write, attrs);
			if (ok)
				step = device_valid(&hit, addr, len, is_write,
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
