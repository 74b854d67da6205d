/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * How a device is called: which accesses it takes, how they are cut into the
 * widths that it has, and how its callbacks put a value together.
 */

#include <string.h>

#include "internal-value.h"

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
	if (mt__order_of(ops->endian) == MT_BIG)
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
		part &= mt__mask(unit);
		shift = part_shift(ops, size, unit, i);
		*val |= shift >= 0 ? part << shift : part >> -shift;
	}
	*val &= mt__mask(size);
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

	val &= mt__mask(size);
	for (i = 0; i < size; i += unit) {
		shift = part_shift(ops, size, unit, i);
		part = shift >= 0 ? val >> shift : val << -shift;
		res |= ops->write(r->arg, off + i, unit, part & mt__mask(unit),
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
	return (mt__floor2(size));
}

/*
 * A RAM device is memory in all but the way that it is accessed: read-only
 * counts, memory_only does not.
 */
bool
mt__is_ram_device(const struct mt__hit *hit, bool is_write, bool debug)
{
	return (!is_write || (hit->span->flags & MT_SECTION_READONLY) == 0 ||
	    (debug && !hit->span->region->write_protected));
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

/* --- longer accesses ----------------------------------------------------- */

/*
 * How much of an access goes to the callback that takes any length: all that
 * the section and the region have of it, unless it is short enough for the
 * callback of single values.  0: that one it is.
 */
MT__ALWAYS_INLINE size_t
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

size_t
mt__device_buf(const struct mt__hit *hit, size_t len, bool is_write)
{
	return (buf_size(hit, len, is_write));
}

/* One step of a longer access, at a device. */
MT__ALWAYS_INLINE enum mt_result
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
		val = mt__value_of(buf, size, order);
		if (signalled(hit, size, val))
			return (MT_OK);
		return (call_write(r, hit->off, size, val, attrs));
	}
	res = call_read(r, hit->off, size, &val, attrs);
	mt__bytes_of(val, buf, size, order);
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
 * Does a region complete its part later?  One that can do it at once, too, does
 * so for who waits.
 */
static bool
defers(const struct mt__reader *rd, const struct mt_region *r, bool is_write)
{
	return (r->ops->submit_buf != NULL &&
	    ((is_write ? r->ops->write_buf == NULL : r->ops->read_buf == NULL) ||
	    (rd->access != NULL && rd->access->sp != NULL)));
}

/*
 * A buffer for a device.  What has been read by one that failed is zeroed:
 * nothing of ours must pass for it.
 */
static __attribute__((noinline)) enum mt_result
device_buf(const struct mt__hit *hit, uint8_t *buf, size_t len, bool is_write,
    struct mt_attrs attrs)
{
	const struct mt_region *r = hit->span->region;
	enum mt_result res = MT_DENIED;
	struct mt__inside in;

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

size_t
mt__device_access(struct mt__reader *rd, struct mt__hit *hit, uint8_t *buf,
    size_t len, bool is_write, struct mt_attrs attrs, unsigned int *res)
{
	size_t done = buf_size(hit, len, is_write);
	unsigned int step;

	if (done != 0) {
		if (!defers(rd, hit->span->region, is_write))
			*res |= device_buf(hit, buf, done, is_write, attrs);
		else if (rd->access != NULL)
			*res |= mt__defer_begin(rd, hit, buf, done, is_write,
			    attrs);
		else
			return (0);
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

void
mt__ram_device_write(const struct mt__hit *hit, const uint8_t *p, size_t len)
{
	struct mt__hit at = *hit;
	unsigned int step;

	for (; len != 0; len -= step, p += step, at.off += step) {
		step = step_size(&at, at.off, len);
		(void)call_write(at.span->region, at.off, step,
		    mt__value_of(p, step, MT_HOST), MT_ATTRS_NONE);
	}
}

/* --- single values ------------------------------------------------------- */

/* Can the device take the whole value in one access? */
static bool
in_one(const struct mt__hit *hit, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	return (hit->room >= size - 1 &&
	    hit->span->region_last - hit->off >= size - 1 &&
	    !too_wide(hit, size) &&
	    accepts(hit->span->region, hit->off, size, is_write, attrs));
}

MT__ALWAYS_INLINE int
load_in_one(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	const struct mt_region *r;
	enum mt_result res;

	if (!in_one(hit, size, false, attrs))
		return (-1);
	r = hit->span->region;
	res = call_read(r, hit->off, size, val, attrs);
	*val = mt__convert(*val, size, r->ops->endian, order);
	return ((int)res);
}

MT__ALWAYS_INLINE int
store_in_one(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	const struct mt_region *r;

	if (!in_one(hit, size, true, attrs))
		return (-1);
	r = hit->span->region;
	val = mt__convert(val, size, order, r->ops->endian);
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

int
mt__device_load(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t *val, struct mt_attrs attrs)
{
	if (hit->span->region->fenced)
		return (fenced_load(hit, size, order, val, attrs));
	return (load_in_one(hit, size, order, val, attrs));
}

int
mt__device_store(const struct mt__hit *hit, unsigned int size,
    enum mt_endian order, uint64_t val, struct mt_attrs attrs)
{
	if (hit->span->region->fenced)
		return (fenced_store(hit, size, order, val, attrs));
	return (store_in_one(hit, size, order, val, attrs));
}

/* --- asking -------------------------------------------------------------- */

size_t
mt__device_valid(const struct mt__hit *hit, mt_addr addr, size_t len,
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
