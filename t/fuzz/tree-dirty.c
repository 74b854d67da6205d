/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Logs of what is written.  For each page of memory and client there is what
 * must be marked and what may be: where an IOMMU led to is not asked.  And one
 * client copies what is marked, again and again, and has to end with a copy.
 */

#include "t/fuzz/tree.h"

#define ALL	((1u << MT_DIRTY_CLIENTS) - 1)

static uint8_t
pages(size_t off, size_t len)
{
	const size_t first = off / MT_DIRTY_PAGE;
	const size_t last = (off + len - 1) / MT_DIRTY_PAGE;

	return ((uint8_t)((0xffu << first) & (0xffu >> (7 - last))));
}

static uint8_t
all_pages(const struct node *n)
{
	return (pages(0, n->len));
}

/* --- what is written ----------------------------------------------------- */

void
mark(struct node *n, mt_addr off, size_t len, bool surely)
{
	const uint8_t bits = pages((size_t)off, len);
	unsigned int c;

	check(off < n->room && len <= n->room - off);
	for (c = 0; c < MT_DIRTY_CLIENTS; c++) {
		n->may[c] |= bits;
		if (surely && (n->log_told >> c & 1) != 0)
			n->must[c] |= bits;
	}
}

/* Nobody can say what. */
static void
wrote_something(void)
{
	struct node *n;

	for (n = w.nodes; n < w.nodes + NODES; n++)
		if (n->r != NULL && n->len != 0)
			mark(n, 0, n->len, false);
}

static bool
is_sure(const struct mt_section *sec, mt_addr addr, bool rom)
{
	/* What a hole or a device got of it may reach past their end. */
	if (addr < sec->range.first)
		return (false);
	return (rom || (mt_region_kind(sec->region) == MT_RAM &&
	    (sec->flags & MT_SECTION_READONLY) == 0));
}

void
wrote(struct seat *s, const struct mt_view *v, mt_addr addr, size_t len,
    bool rom)
{
	struct mt_view *now = v == NULL ? mt_space_view(s->sp) : NULL;
	mt_addr first, last, end, at = addr;
	struct mt_section sec;
	struct node *n;

	if (len == 0) {
		mt_view_put(now);
		return;
	}
	if (v == NULL)
		v = now;
	end = len - 1 > MT_LAST_MAX - addr ? MT_LAST_MAX : addr + (len - 1);
	while (mt_view_next(v, at, &sec) && sec.range.first <= end) {
		first = sec.range.first > addr ? sec.range.first : addr;
		last = sec.range.last < end ? sec.range.last : end;
		n = node_of(sec.region);
		if (mt_region_kind(sec.region) == MT_IOMMU)
			wrote_something();
		else if (n != NULL && n->len != 0)
			mark(n, sec.off + (first - sec.range.first),
			    (size_t)(last - first) + 1,
			    is_sure(&sec, addr, rom));
		if (last == end)
			break;
		at = last + 1;
	}
	mt_view_put(now);
}

void
wrote_mapping(const struct mt_mapping *m, size_t used)
{
	struct node *n;

	if (used == 0)
		return;
	if (!m->bounced) {
		if ((n = node_of(m->region)) != NULL)
			mark(n, (mt_addr)((uint8_t *)m->ptr -
			    (uint8_t *)mt_region_ptr(n->r)), used, true);
		return;
	}
	/* It goes to what was there when it was mapped. */
	wrote(NULL, m->view, m->addr, used, false);
}

/* --- changes ------------------------------------------------------------- */

/* All that is logged from now on is marked. */
void
logs_committed(void)
{
	unsigned int fresh, c;
	struct node *n;

	for (n = w.nodes; n < w.nodes + NODES; n++) {
		fresh = n->r != NULL ? n->x.log & ~n->log_told : 0;
		for (c = 0; c < MT_DIRTY_CLIENTS; c++)
			if ((fresh >> c & 1) != 0)
				n->must[c] = n->may[c] = all_pages(n);
		n->log_told = n->x.log;
	}
}

void
set_log(struct node *n)
{
	const unsigned int what = (unsigned int)next(&w.in, 1);
	const unsigned int c = what % 16 < 10 ? what % 16 : MIGRATION;
	const bool on = what < 160, ok = n->len != 0 && c < MT_DIRTY_CLIENTS;

	if (n->r == NULL)
		return;
	if (!went(mt_region_set_log(n->r, c, on), ok ? 0 : EINVAL, 0))
		return;
	check(ok);
	n->x.log = on ? n->x.log | 1u << c : n->x.log & ~(1u << c);
	if (w.depth == 0)
		logs_committed();
}

/* --- what is marked ------------------------------------------------------ */

void
check_log(const struct node *n)
{
	unsigned int c;
	size_t p, off;
	int is;

	check(mt_region_log(n->r) == n->log_told && n->log_told == n->x.log);
	for (c = 0; n->log_told != 0 && c < MT_DIRTY_CLIENTS; c++) {
		if ((n->log_told >> c & 1) == 0) {
			check(mt_region_get_dirty(n->r, c, 0, 1) == -1 &&
			    errno == ENOENT);
			continue;
		}
		for (p = 0, off = 0; off < n->len; p++, off += MT_DIRTY_PAGE) {
			is = mt_region_get_dirty(n->r, c, off, 1);
			check(is == 0 || is == 1);
			check(is == 1 || (n->must[c] >> p & 1) == 0);
			check(is == 0 || (n->may[c] >> p & 1) != 0);
		}
	}
}

void
told_sync(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	struct node *n = node_of(sec->region);

	check(sp == s->sp && w.asking && !s->telling && n != NULL);
	w.nasked++;
	if (w.marking) {
		check(mt_region_set_dirty(n->r, sec->off, 1) == 0);
		mark(n, sec->off, 1, true);
	}
}

void
told_clear(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;

	(void)sec;
	check(sp == s->sp && w.clearing && !s->telling);
}

/* How many sections listeners are asked for. */
static size_t
count_shown(const struct node *n, size_t off, size_t len)
{
	const mt_addr first = off / MT_DIRTY_PAGE * MT_DIRTY_PAGE;
	const mt_addr last = (off + len - 1) | (MT_DIRTY_PAGE - 1);
	const struct seat *s;
	size_t i, count = 0;
	mt_addr end;

	for (s = w.seats; s < w.seats + SPACES; s++)
		for (i = 0; s->listening && i < s->n; i++) {
			end = s->mirror[i].off + (s->mirror[i].range.last -
			    s->mirror[i].range.first);
			if (s->mirror[i].region == n->r &&
			    s->mirror[i].off <= last && end >= first)
				count++;
		}
	return (count);
}

/* Copy what is marked: then all is as it is there. */
static void
copy(struct node *n)
{
	const uint8_t *mem = mt_region_ptr(n->r);
	struct mt_dirty_snapshot *snap;
	struct mt_range run;
	mt_addr at;

	if (n->copy == NULL)
		check((n->copy = calloc(1, PAGES * MT_DIRTY_PAGE)) != NULL);
	snap = mt_dirty_snapshot_create(n->r, MIGRATION, 0, n->len);
	check(snap != NULL);
	for (at = 0; mt_dirty_snapshot_next(snap, at, &run); at = run.last + 1)
		memcpy(n->copy + run.first, mem + run.first,
		    (size_t)(run.last - run.first) + 1);
	mt_dirty_snapshot_destroy(snap);
	check(memcmp(n->copy, mem, n->len) == 0);
	n->must[MIGRATION] = n->may[MIGRATION] = 0;
}

/* Take the marks of a part, and compare. */
static void
take_part(struct node *n, unsigned int c, size_t off, size_t len)
{
	const uint8_t bits = pages(off, len);
	struct mt_dirty_snapshot *snap;
	size_t p;
	bool is;

	snap = mt_dirty_snapshot_create(n->r, c, off, len);
	check(snap != NULL);
	for (p = 0; p < PAGES; p++) {
		is = mt_dirty_snapshot_get(snap, p * MT_DIRTY_PAGE, 1);
		if ((bits >> p & 1) == 0) {
			check(!is);
			continue;
		}
		check(is || (n->must[c] >> p & 1) == 0);
		check(!is || (n->may[c] >> p & 1) != 0);
	}
	mt_dirty_snapshot_destroy(snap);
	n->must[c] &= (uint8_t)~bits;
	n->may[c] &= (uint8_t)~bits;
}

static void
test_and_clear(struct node *n, unsigned int c, size_t off, size_t len)
{
	const uint8_t bits = pages(off, len);
	int is;

	is = mt_region_test_and_clear_dirty(n->r, c, off, len);
	check(is == 0 || is == 1);
	check(is == 1 || (n->must[c] & bits) == 0);
	check(is == 0 || (n->may[c] & bits) != 0);
	n->must[c] &= (uint8_t)~bits;
	n->may[c] &= (uint8_t)~bits;
}

static void
sync_part(struct node *n, size_t off, size_t len)
{
	w.nasked = 0;
	check(mt_region_sync_dirty(n->r, off, len) == 0);
	check(w.nasked == count_shown(n, off, len));
}

void
take_log(struct node *n)
{
	const unsigned int what = (unsigned int)next(&w.in, 1);
	unsigned int c = (what >> 3) % MT_DIRTY_CLIENTS;
	const size_t off = (size_t)next(&w.in, 2), len = (size_t)next(&w.in, 2);
	int want = 0;

	/* A RAM device has memory, but none that is logged. */
	if (n->r == NULL || mt_region_kind(n->r) == MT_RAM_DEVICE)
		return;
	if (len == 0 || off >= n->room || len > n->room - off)
		want = EINVAL;
	else if (w.depth > 0)
		want = EBUSY;
	else if ((n->log_told >> c & 1) == 0)
		want = ENOENT;
	/* That one takes all. */
	if (what % 8 < 2 && w.depth == 0 && n->r != NULL &&
	    (n->log_told >> MIGRATION & 1) != 0)
		c = MIGRATION;
	w.asking = w.clearing = true;
	w.marking = (what & 0x40) != 0;
	if (what % 8 == 7) {
		if (want == EINVAL)
			check(mt_region_set_dirty(n->r, off, len) == -1 &&
			    errno == EINVAL);
		else {
			check(mt_region_set_dirty(n->r, off, len) == 0);
			mark(n, off, len, true);
		}
	} else if (c == MIGRATION && (n->log_told >> c & 1) != 0 &&
	    w.depth == 0)
		copy(n);
	else if (what % 8 == 2 && (want == 0 || want == ENOENT)) {
		w.clearing = false;
		sync_part(n, off, len);
	} else if (want != 0)
		check(mt_region_test_and_clear_dirty(n->r, c, off, len) ==
		    -1 && errno == want &&
		    mt_dirty_snapshot_create(n->r, c, off, len) == NULL &&
		    errno == want);
	else if (what % 8 < 5)
		take_part(n, c, off, len);
	else
		test_and_clear(n, c, off, len);
	w.asking = w.clearing = false;
}
