/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Eventfds and ranges of coalesced writes.  What a write has to signal, and
 * which of its steps have to reach the device, is worked out here from what
 * memtree(3) says of accesses.
 */

#include <sys/eventfd.h>

#include <endian.h>
#include <unistd.h>

#include "t/fuzz/tree.h"

#define LONG	(9 + 0x1c)		/* a write of several steps */

/* --- real ones ----------------------------------------------------------- */

static int pool[POOL] = { -1 };

/* The same for all inputs, since to make them takes long. */
void
init_pool(void)
{
	size_t i;

	for (i = 0; pool[POOL - 1] <= 0 && i < POOL; i++)
		check((pool[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) > 0);
	count_signals();
	memset(w.signals, 0, sizeof(w.signals));
}

void
read_pool(uint64_t got[POOL])
{
	size_t i;

	for (i = 0; i < POOL; i++)
		if (read(pool[i], &got[i], sizeof(got[i])) == -1)
			got[i] = 0;
}

void
count_signals(void)
{
	uint64_t got[POOL];
	size_t i;

	read_pool(got);
	for (i = 0; i < POOL; i++)
		w.signals[i] += got[i];
}

/* Which of them is fd a copy of?  It is written to, to see. */
int
pool_of(int fd)
{
	const uint64_t one = 1;
	uint64_t got[POOL];
	int i, found = -1;

	count_signals();
	check(write(fd, &one, sizeof(one)) == sizeof(one));
	read_pool(got);
	for (i = 0; i < POOL; i++)
		if (got[i] != 0) {
			check(found == -1 && got[i] == 1);
			found = i;
		}
	check(found != -1);
	return (found);
}

/* --- changes ------------------------------------------------------------- */

static bool
has_write(const struct node *n)
{
	return (mt_region_kind(n->r) == MT_RAM_DEVICE ||
	    (n->op != NULL && n->op->write != NULL));
}

static size_t
find_event(const struct node *n, const struct event *ev)
{
	size_t i = 0;

	while (i < n->x.nevents && (n->x.events[i].off != ev->off ||
	    n->x.events[i].size != ev->size ||
	    n->x.events[i].match != ev->match ||
	    n->x.events[i].data != ev->data))
		i++;
	return (i);
}

static void
del_event(struct node *n, size_t i)
{
	const struct event ev = n->x.events[i];
	const int other = (ev.pool + 1) % POOL;

	check(mt_region_del_eventfd(n->r, ev.off, ev.size, ev.match, ev.data,
	    pool[other]) == -1 && errno == ENOENT);
	if (went(mt_region_del_eventfd(n->r, ev.off, ev.size, ev.match,
	    ev.data, pool[ev.pool]), 0, 0))
		n->x.events[i] = n->x.events[--n->x.nevents];
}

void
set_event(struct node *n)
{
	static const unsigned int sizes[] = { 0, 1, 2, 4, 8, 4, 2, 3 };
	const unsigned int what = (unsigned int)next(&w.in, 1);
	struct event ev = { .size = sizes[what % 8],
	    .match = (what & 8) != 0, .pool = (int)(what >> 4) % POOL };
	const bool del = what >> 6 == 3;
	bool ok;
	size_t i;

	ev.off = del ? next(&w.in, 1) : pick_addr();
	if (ev.match && !del)
		ev.data = next(&w.in, ev.size);
	if (n->r == NULL)
		return;
	if (del) {
		if (n->x.nevents != 0)
			del_event(n, ev.off % n->x.nevents);
		return;
	}
	ok = has_write(n) && ev.size != 3 && (!ev.match || ev.size != 0) &&
	    (ev.size == 0 || ev.off + (ev.size - 1) >= ev.off);
	i = find_event(n, &ev);
	if (!ok || i < n->x.nevents) {
		check(mt_region_add_eventfd(n->r, ev.off, ev.size, ev.match,
		    ev.data, pool[ev.pool]) == -1);
		check(errno == (ok ? EEXIST : EINVAL));
		return;
	}
	check(mt_region_del_eventfd(n->r, ev.off, ev.size, ev.match, ev.data,
	    pool[ev.pool]) == -1 && errno == ENOENT);
	if (i < EVENTS && went(mt_region_add_eventfd(n->r, ev.off, ev.size,
	    ev.match, ev.data, pool[ev.pool]), 0, 0))
		n->x.events[n->x.nevents++] = ev;
}

/* The ranges of n, ascending and apart: the naive way. */
size_t
merged(const struct node *n, struct mt_range out[RANGES])
{
	struct mt_range all[RANGES], t;
	size_t i, k, len = 0;

	memcpy(all, n->x.ranges, sizeof(all));
	for (i = 0; i < n->x.nranges; i++)
		for (k = i + 1; k < n->x.nranges; k++)
			if (all[k].first < all[i].first) {
				t = all[i];
				all[i] = all[k];
				all[k] = t;
			}
	for (i = 0; i < n->x.nranges; i++)
		if (len != 0 && (out[len - 1].last == MT_LAST_MAX ||
		    all[i].first <= out[len - 1].last + 1)) {
			if (all[i].last > out[len - 1].last)
				out[len - 1].last = all[i].last;
		} else
			out[len++] = all[i];
	return (len);
}

void
set_range(struct node *n)
{
	const bool clear = next_below(&w.in, 5) == 0;
	struct mt_range range;
	bool ok;

	range.first = pick_addr();
	range.last = range.first + next(&w.in, 1);
	if (n->r == NULL)
		return;
	ok = n->op != NULL || mt_region_kind(n->r) == MT_RAM_DEVICE;
	if (clear) {
		if (went(mt_region_clear_coalescing(n->r), ok ? 0 : EINVAL, 0))
			n->x.nranges = 0;
		return;
	}
	if (range.first > range.last)
		ok = false;
	if (ok && n->x.nranges == RANGES)
		return;
	if (went(mt_region_add_coalescing(n->r, range.first, range.last),
	    ok ? 0 : EINVAL, 0)) {
		check(ok);
		n->x.ranges[n->x.nranges++] = range;
	}
}

/* --- writes that may signal ---------------------------------------------- */

/* Bytes in address order, as a number by the byte order of a device. */
static uint64_t
number(const uint8_t *buf, unsigned int size, enum mt_endian order)
{
	uint64_t val = 0;
	unsigned int i;

	if (order == MT_HOST)
		order = __BYTE_ORDER == __BIG_ENDIAN ? MT_BIG : MT_LITTLE;
	for (i = 0; i < size; i++)
		val |= (uint64_t)buf[i] << 8 *
		    (order == MT_BIG ? size - 1 - i : i);
	return (val);
}

static void
bytes(uint64_t val, uint8_t *buf, unsigned int size, enum mt_endian order)
{
	unsigned int i;

	if (order == MT_HOST)
		order = __BYTE_ORDER == __BIG_ENDIAN ? MT_BIG : MT_LITTLE;
	for (i = 0; i < size; i++)
		buf[i] = (uint8_t)(val >> 8 *
		    (order == MT_BIG ? size - 1 - i : i));
}

static enum mt_endian
order_of(const struct node *n)
{
	return (n->op != NULL ? n->op->endian : MT_HOST);
}

/* How much of len bytes a device gets at once. */
static unsigned int
step_of(const struct node *n, mt_addr off, unsigned int len)
{
	unsigned int size = 1, max = 8;
	bool aligned = true;

	if (n->op != NULL) {
		max = n->op->valid.max != 0 ? n->op->valid.max : 4;
		aligned = !n->op->impl.unaligned;
	}
	while (size * 2 <= max && size * 2 <= len &&
	    (!aligned || off % (size * 2) == 0) &&
	    mt_region_last(n->r) - off >= size * 2 - 1)
		size *= 2;
	return (size);
}

/* Add to want what a step signals: whether it does. */
static bool
match(const struct node *n, mt_addr off, unsigned int size, uint64_t val,
    uint64_t want[POOL])
{
	const struct event *ev;
	bool any = false;

	for (ev = n->x.events; ev < n->x.events + n->x.nevents; ev++)
		if (ev->off == off && (ev->size == 0 || (ev->size == size &&
		    (!ev->match || ev->data == val)))) {
			want[ev->pool]++;
			any = true;
		}
	return (any);
}

static bool
was_called(const struct node *n, mt_addr off, unsigned int size)
{
	unsigned int i;

	for (i = 0; i < w.ncalls; i++)
		if (w.calls[i].n == n && w.calls[i].off >= off &&
		    w.calls[i].off - off < size)
			return (true);
	return (false);
}

/* One step has been made: was it what it should have been? */
static void
check_step(const struct node *n, mt_addr off, unsigned int size,
    const uint8_t *buf, bool refused, uint64_t want[POOL])
{
	const uint8_t *mem = mt_region_ptr(n->r);

	if (refused && n->op != NULL)
		check(!was_called(n, off, size));
	else if (n->op == NULL) {
		/* The byte that it had was the complement. */
		if (!refused && !match(n, off, size, number(buf, size,
		    MT_HOST), want))
			check(memcmp(mem + off, buf, size) == 0);
		else
			check((mem[off] ^ buf[0]) == 0xff);
	} else if (too_wide(n, off, size) || !takes(n, off, size, true) ||
	    match(n, off, size, number(buf, size, order_of(n)), want))
		check(!was_called(n, off, size));
	else
		check(was_called(n, off, size));
}

static void
check_poke(const struct node *n, const struct mt_section *sec, mt_addr off,
    const uint8_t *buf, unsigned int size, bool typed, bool locked,
    const uint64_t had[POOL])
{
	const bool refused = locked || (n->op == NULL &&
	    (sec->flags & MT_SECTION_READONLY) != 0);
	uint64_t want[POOL] = { 0 };
	unsigned int step;
	size_t i;

	if (size > 8 && n->op != NULL && n->op->write_buf != NULL)
		/* All of it goes to that. */
		check(!was_called(n, off, size));
	else if (typed && mt_region_last(n->r) - off >= size - 1 &&
	    (n->op != NULL ? takes(n, off, size, true) &&
	    !too_wide(n, off, size) : off % size == 0))
		check_step(n, off, size, buf, refused, want);
	else
		for (; size != 0; size -= step, off += step, buf += step) {
			step = step_of(n, off, size);
			check_step(n, off, step, buf, refused, want);
		}
	count_signals();
	for (i = 0; i < POOL; i++)
		check(w.signals[i] - had[i] == want[i]);
}

static bool
shown(const struct mt_view *v, const struct node *n, mt_addr off,
    struct mt_section *sec)
{
	mt_addr at = 0;

	while (mt_view_next(v, at, sec)) {
		if (sec->region == n->r && off >= sec->off &&
		    off - sec->off <= sec->range.last - sec->range.first)
			return (true);
		if ((at = sec->range.last + 1) == 0)
			break;
	}
	return (false);
}

static void
write_at(struct seat *s, mt_addr addr, const uint8_t *buf, unsigned int size,
    unsigned int how, bool typed)
{
	const enum mt_endian order = (how & 1) != 0 ? MT_BIG : MT_LITTLE;
	struct mt_cache c;

	if ((how & 0x80) != 0) {
		check(mt_cache_init(&c, s->sp, addr, size, MT_DMA_WRITE,
		    MT_ATTRS_NONE) == 0);
		if (typed)
			mt_cache_store(&c, 0, size, order,
			    number(buf, size, order));
		else
			mt_cache_write(&c, 0, buf, size);
		mt_cache_fini(&c);
	} else if (typed)
		mt_space_store(s->sp, addr, size, order,
		    number(buf, size, order), MT_ATTRS_NONE);
	else
		mt_space_write(s->sp, addr, buf, size, MT_ATTRS_NONE);
}

/* A write that is, or nearly is, what one of n's eventfds waits for. */
void
poke(struct seat *s, struct node *n)
{
	const unsigned int what = (unsigned int)next(&w.in, 1);
	const unsigned int how = (unsigned int)next(&w.in, 1);
	unsigned int i, lead, size = 1u << (what >> 3) % 4;
	/* Who has a lock that checks for errors cannot take it again. */
	const bool locked = (how & 0x40) != 0 && n->lock != NULL;
	uint8_t buf[LONG], *mem;
	uint64_t had[POOL], data = 0;
	const struct event *ev;
	struct mt_section sec;
	struct mt_view *v;
	mt_addr off, addr;
	bool typed = (how & 2) != 0;

	if (s->sp == NULL || n->r == NULL || n->x.nevents == 0 || w.depth != 0)
		return;
	ev = &n->x.events[(what & 7) % n->x.nevents];
	off = ev->off;
	if ((what & 0x20) == 0 && ev->size != 0)
		size = ev->size;
	if ((what & 0xc0) == 0xc0)
		off -= off != 0;
	data = ev->data ^ ((how & 0x1c) == 0x1c ? 1u << (how >> 5) % 4 : 0);
	memset(buf, 0x5a, sizeof(buf));
	if ((what & 0xc0) == 0x80) {
		/* A longer one, of which it is a step. */
		lead = (how & 0x20) != 0 && off >= 4 ? 4 : 0;
		off -= lead;
		bytes(data, buf + lead, ev->size != 0 ? ev->size : 1,
		    order_of(n));
		size = 9 + (how & 0x1c);
		typed = false;
	} else
		bytes(data, buf, size, order_of(n));
	v = mt_space_view(s->sp);
	if (!shown(v, n, off, &sec) || sec.range.last - sec.range.first -
	    (off - sec.off) < size - 1) {
		mt_view_put(v);
		return;
	}
	mt_view_put(v);
	addr = sec.range.first + (off - sec.off);
	if (n->op == NULL)
		for (mem = mt_region_ptr(n->r), i = 0; i < size; i++)
			mem[off + i] = (uint8_t)~buf[i];
	count_signals();
	memcpy(had, w.signals, sizeof(had));
	w.ncalls = 0;
	w.quiet = true;
	if (locked)
		check(pthread_mutex_lock(n->lock) == 0);
	write_at(s, addr, buf, size, how, typed);
	if (locked)
		check(pthread_mutex_unlock(n->lock) == 0);
	w.quiet = false;
	check_poke(n, &sec, off, buf, size, typed, locked, had);
}
