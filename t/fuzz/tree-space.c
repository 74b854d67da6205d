/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Spaces, accesses to them, caches. */

#include "t/fuzz/tree.h"

struct seat *
pick_seat(void)
{
	return (&w.seats[next_below(&w.in, SPACES)]);
}

void
seat_leave(struct seat *s)
{
	leave_space(s);
	mt_view_put(s->held);
	s->held = NULL;
}

/* Is something left that keeps the space from being destroyed? */
static bool
is_busy(const struct seat *s)
{
	size_t i;

	if (s->cached)
		return (true);
	for (i = 0; i < ACCESSES; i++)
		if (w.accesses[i].busy && w.accesses[i].sp == s->sp)
			return (true);
	for (i = 0; i < WAITERS; i++)
		if (w.waiters[i].seat == s)
			return (true);
	return (false);
}

void
toggle_space(struct seat *s)
{
	struct node *root = pick();
	size_t i;

	if (w.depth > 0)
		return;
	if (s->sp != NULL) {
		for (i = 0; i < MAPS; i++)
			if (w.maps[i].ptr != NULL && w.maps[i].sp == s->sp)
				return;
		for (i = 0; i < LISTS; i++)
			if (w.lists[i].sp == s->sp)
				return;
		if (is_busy(s)) {
			check(mt_space_destroy(s->sp) == -1 && errno == EBUSY);
			return;
		}
		seat_leave(s);
		/* One that has been called knows its space all the same. */
		for (i = 0; i < WAITERS; i++)
			if (w.waiters[i].waiter.sp == s->sp)
				memset(&w.waiters[i], 0, sizeof(w.waiters[i]));
		check(mt_space_destroy(s->sp) == 0);
		s->sp = NULL;
	} else if (root->r != NULL) {
		s->root = root;
		s->sp = mt_space_create(root->r, "s");
		if (went(s->sp != NULL ? 0 : -1, 0, 0))
			root->used = true;
	}
}

/* Keep a view, and look at it again when the tree has become another. */
void
hold(struct seat *s)
{
	if (s->sp == NULL)
		return;
	if (s->held != NULL)
		check_view(s->held, NULL);
	mt_view_put(s->held);
	s->held = mt_space_view(s->sp);
}

void
use(struct seat *s)
{
	const unsigned int what = (unsigned int)next_below(&w.in, 8);
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1);
	const struct mt_attrs attrs = { .memory_only = (len & 0x80) != 0,
	    .debug = (len & 0x40) != 0 };
	const enum mt_endian order = (len & 1) != 0 ? MT_BIG : MT_LITTLE;
	struct mt_section sec;
	uint8_t buf[256];
	uint64_t val;

	if (s->sp == NULL)
		return;
	memset(buf, (int)len, sizeof(buf));
	if (what == 1 || what == 3 || what == 4 || what == 5)
		wrote(s, NULL, addr, what == 3 ? 1u << len % 4 : len,
		    what == 5);
	switch (what) {
	case 0:
		mt_space_read(s->sp, addr, buf, len, attrs);
		break;
	case 1:
		mt_space_write(s->sp, addr, buf, len, attrs);
		break;
	case 2:
		mt_space_load(s->sp, addr, 1u << len % 4, order, &val, attrs);
		break;
	case 3:
		mt_space_store(s->sp, addr, 1u << len % 4, order, addr, attrs);
		break;
	case 4:
		mt_space_set(s->sp, addr, 0x5a, len, attrs);
		break;
	case 5:
		mt_space_write_rom(s->sp, addr, buf, len, attrs);
		break;
	case 6:
		mt_space_valid(s->sp, addr, len, (len & 2) != 0, attrs);
		break;
	case 7:
		if (mt_space_find(s->sp, (struct mt_range){ addr,
		    addr + len < addr ? MT_LAST_MAX : addr + len }, &sec) == 0)
			mt_region_put(sec.region);
		else
			check(errno == ENOENT);
		break;
	}
}

/* --- caches -------------------------------------------------------------- */

void
toggle_cache(struct seat *s)
{
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1) * 4;

	if (s->sp == NULL)
		return;
	if (s->cached) {
		mt_cache_fini(&s->cache);
		s->cached = false;
		return;
	}
	if (mt_cache_init(&s->cache, s->sp, addr, len, (unsigned int)(len >> 2)
	    & 3, MT_ATTRS_NONE) == 0) {
		s->cached = true;
		s->cached_addr = addr;
		s->cached_len = len;
		check(!mt_cache_stale(&s->cache));
	} else {
		check(errno == EINVAL);
		check(mt_cache_stale(&s->cache));
	}
}

/* It shows what the space shows, if that is still the same view. */
void
use_cache(struct seat *s)
{
	const unsigned int what = (unsigned int)next_below(&w.in, 4);
	const size_t off = (size_t)next(&w.in, 1) * 3;
	const size_t len = (size_t)next(&w.in, 1);
	enum mt_result res, other;
	uint8_t buf[256], want[256];
	struct mt_view *v;
	uint64_t val, val2;
	uint32_t val32;
	bool whole;

	if (!s->cached)
		return;
	v = mt_space_view(s->sp);
	check(mt_cache_stale(&s->cache) == (s->cache.view != v));
	whole = s->cache.view == v && off <= s->cached_len &&
	    len <= s->cached_len - off && (s->cache.dir & MT_DMA_READ) != 0;
	mt_view_put(v);
	memset(buf, 0xee, sizeof(buf));
	w.by_old_view = true;
	switch (what) {
	case 0:
		res = mt_cache_read(&s->cache, off, buf, len);
		if (!whole)
			break;
		memset(want, 0xdd, sizeof(want));
		other = mt_space_read(s->sp, s->cached_addr + off, want, len,
		    MT_ATTRS_NONE);
		check(res == other && memcmp(buf, want, len) == 0);
		break;
	case 1:
		if (off <= s->cached_len && len <= s->cached_len - off &&
		    (s->cache.dir & MT_DMA_WRITE) != 0)
			wrote(s, s->cache.view, s->cached_addr + off, len,
			    false);
		mt_cache_write(&s->cache, off, buf, len);
		break;
	case 2:
		res = mt_cache_load(&s->cache, off, 4, MT_LITTLE, &val);
		check(res == MT_OK || val <= UINT32_MAX);
		other = mt_cache_load_le32(&s->cache, off, &val32);
		check(res == other && val == val32);
		if (whole && len >= 4) {
			other = mt_space_load(s->sp, s->cached_addr + off, 4,
			    MT_LITTLE, &val2, MT_ATTRS_NONE);
			check(res == other && val == val2);
		}
		break;
	case 3:
		if (off <= s->cached_len && 8 <= s->cached_len - off &&
		    (s->cache.dir & MT_DMA_WRITE) != 0)
			wrote(s, s->cache.view, s->cached_addr + off, 8,
			    false);
		mt_cache_store_be64(&s->cache, off, len * 0x0102030405060708u);
		break;
	}
	w.by_old_view = false;
}
