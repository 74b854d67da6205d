/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Which pages of a region's memory were written, for each client that logs
 * it.  The bits belong to the region, so that all ways to its memory agree.
 *
 * No mark is lost.  Who writes (a) writes the data, then (b) sets the bit.
 * Who copies (c) clears the bit, then (d) reads the data.  (b) and (c) are
 * atomic read-modify-writes of one word, so one of them is first.
 *  - (b) before (c): (c) sees the bit.  The release of (b) pairs with the
 *    acquire of (c), also when other such writes of the word come between, so
 *    (d) sees the data.
 *  - (c) before (b): the bit stands, for the next time.
 * That is why (b) may not leave out to write a bit that it sees set: it could
 * see it before (c) clears it, while the data is still on its way.
 *
 * Nor is one when logging begins.  Who writes (a) writes the data, then (b)
 * looks at mt_region.logging, without a barrier.  Who begins (c) sets logging,
 * then (d) has the kernel execute a barrier on every thread of the process,
 * then (e) marks all.  Either (a) is before its thread's barrier, and is seen
 * by all that comes after (d); or (b) is behind it and sees (c).  So the
 * barrier that each write would need is paid for by those who begin.
 */

#include <linux/membarrier.h>
#include <sys/syscall.h>

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define PAGE_SHIFT	12
_Static_assert(MT_DIRTY_PAGE == 1u << PAGE_SHIFT, "as the header says");

struct mt__log {
	size_t nwords;			/* [I] a client */
	/* Each once set, before logging says so. */
	_Atomic(uint64_t) *bits[MT_DIRTY_CLIENTS];
};

struct mt_dirty_snapshot {
	size_t first;			/* page */
	size_t last;			/* page */
	mt_addr end;			/* last byte of the region's memory */
	uint64_t bits[];		/* from the word that has first */
};

/* --- bits ---------------------------------------------------------------- */

/* The bits of word w that are in [first, last]. */
static uint64_t
word_mask(size_t w, size_t first, size_t last)
{
	uint64_t mask = UINT64_MAX;

	if (w == first / 64)
		mask <<= first % 64;
	if (w == last / 64)
		mask &= UINT64_MAX >> (63 - last % 64);
	return (mask);
}

static void
set_bits(_Atomic(uint64_t) *bits, size_t first, size_t last)
{
	size_t w;

	/* Pairs with the acquire in take_bits(). */
	for (w = first / 64; w <= last / 64; w++)
		atomic_fetch_or_explicit(&bits[w], word_mask(w, first, last),
		    memory_order_release);
}

/* Clear bits, and keep them in kept (from the first word on), unless NULL. */
static bool
take_bits(_Atomic(uint64_t) *bits, size_t first, size_t last, uint64_t *kept)
{
	uint64_t mask, got;
	bool any = false;
	size_t w;

	for (w = first / 64; w <= last / 64; w++) {
		mask = word_mask(w, first, last);
		got = atomic_load_explicit(&bits[w], memory_order_relaxed) &
		    mask;
		/*
		 * Acquire pairs with the release in set_bits().  What is not
		 * set yet may come next time.
		 */
		if (got != 0)
			got = mask & atomic_fetch_and_explicit(&bits[w], ~mask,
			    memory_order_acquire);
		any = any || got != 0;
		if (kept != NULL)
			kept[w - first / 64] = got;
	}
	return (any);
}

/* The pages that [off, off + len) touches: are they all in r's memory? */
static bool
pages(const struct mt_region *r, mt_addr off, size_t len, size_t *first,
    size_t *last)
{
	if (len == 0 || r->ptr == NULL || off >= mt__ptr_len(r) ||
	    len > mt__ptr_len(r) - off) {
		errno = EINVAL;
		return (false);
	}
	*first = (size_t)off >> PAGE_SHIFT;
	*last = (size_t)(off + len - 1) >> PAGE_SHIFT;
	return (true);
}

/* The bits of a client that logs r, or NULL. */
static _Atomic(uint64_t) *
bits_of(const struct mt_region *r, unsigned int client)
{
	/* Acquire pairs with the release in set_logging(): log is there. */
	if (client >= MT_DIRTY_CLIENTS || (atomic_load_explicit(&r->logging,
	    memory_order_acquire) >> client & 1) == 0) {
		errno = ENOENT;
		return (NULL);
	}
	return (r->rare->log->bits[client]);
}

/* --- marking ------------------------------------------------------------- */

void
mt__dirty_mark(struct mt_region *r, mt_addr off, size_t len)
{
	size_t first = (size_t)off >> PAGE_SHIFT;
	size_t last = (size_t)(off + len - 1) >> PAGE_SHIFT;
	/* Acquire as in bits_of(). */
	unsigned int left = atomic_load_explicit(&r->logging,
	    memory_order_acquire);

	for (; left != 0; left &= left - 1)
		set_bits(r->rare->log->bits[__builtin_ctz(left)], first, last);
}

int
mt_region_set_dirty(struct mt_region *r, mt_addr off, size_t len)
{
	size_t first, last;

	if (!pages(r, off, len, &first, &last))
		return (-1);
	mt__wrote(r, off, len);
	return (0);
}

/* --- on and off ---------------------------------------------------------- */

static void
set_logging(struct mt_region *r, unsigned int clients)
{
	/* Pairs with the acquire in bits_of() and mt__dirty_mark(). */
	atomic_store_explicit(&r->logging, (uint8_t)clients,
	    memory_order_release);
}

/* Until listeners have heard of the end the marks are made. */
void
mt__dirty_update(struct mt_region *r)
{
	if (r->rare != NULL && r->rare->log != NULL)
		set_logging(r, r->state.log | r->log_told);
}

void
mt__dirty_commit(struct mt_region *r)
{
	unsigned int fresh = r->state.log & ~(unsigned int)r->log_told;

	r->log_told = r->state.log;
	mt__dirty_update(r);
	for (; fresh != 0; fresh &= fresh - 1)
		set_bits(r->rare->log->bits[__builtin_ctz(fresh)], 0,
		    (mt__ptr_len(r) - 1) >> PAGE_SHIFT);
}

void
mt__dirty_fini(struct mt__log *log)
{
	unsigned int i;

	for (i = 0; log != NULL && i < MT_DIRTY_CLIENTS; i++)
		free(log->bits[i]);
	free(log);
}

static int
membarrier(int cmd)
{
	return ((int)syscall(SYS_membarrier, cmd, 0, 0));
}

/* A full barrier on every thread of the process. */
static int
barrier_everywhere(void)
{
	if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0)
		return (0);
	/* Not registered yet, or an old kernel: that is slow. */
	if (membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
	    membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0)
		return (0);
	return (membarrier(MEMBARRIER_CMD_GLOBAL));
}

/* From now on what is written to r is marked for client, too. */
static int
start(struct mt_region *r, unsigned int client)
{
	struct mt__log *log;

	if (mt__region_rare(r) == -1)
		return (-1);
	if ((log = r->rare->log) == NULL) {
		if ((log = calloc(1, sizeof(*log))) == NULL)
			return (-1);
		log->nwords = ((mt__ptr_len(r) - 1) >> PAGE_SHIFT) / 64 + 1;
		r->rare->log = log;
	}
	if (log->bits[client] == NULL && (log->bits[client] =
	    calloc(log->nwords, sizeof(*log->bits[client]))) == NULL)
		return (-1);
	set_logging(r, r->state.log | r->log_told | 1u << client);
	return (barrier_everywhere());
}

/* A kind of memory that is written in place: its log can be kept. */
static bool
can_log(const struct mt_region *r)
{
	return (r->kind == MT_RAM || r->kind == MT_ROM ||
	    r->kind == MT_ROM_DEVICE);
}

/* Inside a transaction. */
static int
change(struct mt_region *r, unsigned int client, bool on)
{
	struct mt_topology *t = r->topology;
	unsigned int log = r->state.log;

	if (client >= MT_DIRTY_CLIENTS || !can_log(r)) {
		errno = EINVAL;
		return (-1);
	}
	log = on ? log | 1u << client : log & ~(1u << client);
	if (log == r->state.log)
		return (0);
	if ((on && start(r, client) == -1) || mt_topology_begin(t) == -1)
		return (-1);
	if (mt__region_set_log(r, (uint8_t)log) == -1)
		return (-1);
	t->relogged = true;
	return (0);
}

int
mt_region_set_log(struct mt_region *r, unsigned int client, bool on)
{
	struct mt_topology *t = r->topology;
	int error;

	if (mt_topology_begin(t) == -1)
		return (-1);
	if (change(r, client, on) == 0)
		return (mt_topology_commit(t));
	error = errno;
	mt__dirty_update(r);
	(void)mt_topology_commit(t);
	errno = error;
	return (-1);
}

unsigned int
mt_region_log(const struct mt_region *r)
{
	return (atomic_load_explicit(&r->logging, memory_order_relaxed));
}

/* --- listeners ----------------------------------------------------------- */

struct asking {
	mt_addr first;			/* of the region */
	mt_addr last;
	bool clear;			/* tell of that; else sync */
};

/* The part of a span that shows the offsets asked for. */
static bool
section_of(const struct mt__span *span, const struct asking *a,
    struct mt_section *sec)
{
	mt_addr last = span->off + (span->range.last - span->range.first);
	mt_addr first = span->off;

	mt__section_of(span, sec);
	if (first < a->first) {
		if (last < a->first)
			return (false);
		sec->range.first += a->first - first;
		sec->off = a->first;
	}
	if (last > a->last) {
		if (first > a->last)
			return (false);
		sec->range.last -= last - a->last;
	}
	return (true);
}

static bool
ask_root(void *arg, struct mt__root *root, const struct mt__span *span)
{
	const struct asking *a = arg;
	void (*fn)(void *, struct mt_space *, const struct mt_section *);
	struct mt_listener *l;
	struct mt_section sec;
	struct mt_space *sp;

	if (!section_of(span, a, &sec))
		return (false);
	TAILQ_FOREACH(sp, &root->spaces, entry)
		for (l = sp->listeners; l != NULL; l = l->next) {
			fn = a->clear ? l->log_clear : l->log_sync;
			if (fn != NULL)
				fn(l->arg, sp, &sec);
		}
	return (false);
}

static void
ask(struct mt_region *r, size_t first, size_t last, bool clear)
{
	struct asking a = { .first = (mt_addr)first << PAGE_SHIFT,
	    .last = ((mt_addr)last << PAGE_SHIFT) + MT_DIRTY_PAGE - 1,
	    .clear = clear };

	r->topology->notifying = true;
	mt__shown(r, a.first, a.last, ask_root, &a);
	r->topology->notifying = false;
}

/* Listeners go by the views, and so does who asks: no changes may be open. */
static int
begin(struct mt_topology *t)
{
	if (mt__topology_is_mine(t)) {
		errno = t->notifying ? EDEADLK : EBUSY;
		return (-1);
	}
	return (mt_topology_begin(t));
}

int
mt_region_sync_dirty(struct mt_region *r, mt_addr off, size_t len)
{
	size_t first, last;

	if (!pages(r, off, len, &first, &last) || begin(r->topology) == -1)
		return (-1);
	ask(r, first, last, false);
	/* If others' leftovers cannot be committed that is not our failure. */
	(void)mt_topology_commit(r->topology);
	return (0);
}

/* Take the marks of some pages: 1 if there were any, 0, or -1. */
static int
take(struct mt_region *r, unsigned int client, size_t first, size_t last,
    uint64_t *kept)
{
	struct mt_topology *t = r->topology;
	int ret = -1, error = 0;
	_Atomic(uint64_t) *bits;

	if (begin(t) == -1)
		return (-1);
	if ((bits = bits_of(r, client)) == NULL)
		error = errno;
	else {
		ask(r, first, last, false);
		ret = take_bits(bits, first, last, kept);
		if (ret == 1)
			ask(r, first, last, true);
	}
	(void)mt_topology_commit(t);
	if (ret == -1)
		errno = error;
	return (ret);
}

/* --- clients ------------------------------------------------------------- */

int
mt_region_get_dirty(const struct mt_region *r, unsigned int client,
    mt_addr off, size_t len)
{
	size_t w, first, last;
	_Atomic(uint64_t) *bits;

	if (!pages(r, off, len, &first, &last) ||
	    (bits = bits_of(r, client)) == NULL)
		return (-1);
	for (w = first / 64; w <= last / 64; w++)
		if ((atomic_load_explicit(&bits[w], memory_order_relaxed) &
		    word_mask(w, first, last)) != 0)
			return (1);
	return (0);
}

int
mt_region_test_and_clear_dirty(struct mt_region *r, unsigned int client,
    mt_addr off, size_t len)
{
	size_t first, last;

	if (!pages(r, off, len, &first, &last))
		return (-1);
	return (take(r, client, first, last, NULL));
}

struct mt_dirty_snapshot *
mt_dirty_snapshot_create(struct mt_region *r, unsigned int client,
    mt_addr off, size_t len)
{
	struct mt_dirty_snapshot *s;
	size_t first, last;
	int saved_errno;

	if (!pages(r, off, len, &first, &last))
		return (NULL);
	s = malloc(sizeof(*s) + (last / 64 - first / 64 + 1) *
	    sizeof(s->bits[0]));
	if (s == NULL)
		return (NULL);
	s->first = first;
	s->last = last;
	s->end = mt__ptr_len(r) - 1;
	if (take(r, client, first, last, s->bits) == -1) {
		saved_errno = errno;
		free(s);
		errno = saved_errno;
		return (NULL);
	}
	return (s);
}

void
mt_dirty_snapshot_destroy(struct mt_dirty_snapshot *s)
{
	free(s);
}

/*
 * The first page of a snapshot from page on that is marked, or is not; the
 * one behind the last if there is none.
 */
static size_t
find(const struct mt_dirty_snapshot *s, size_t page, bool marked)
{
	uint64_t bits;

	while (page <= s->last) {
		bits = s->bits[page / 64 - s->first / 64];
		if (!marked)
			bits = ~bits;
		bits &= UINT64_MAX << page % 64;
		if (bits != 0) {
			page = page / 64 * 64 + (size_t)__builtin_ctzll(bits);
			return (page <= s->last ? page : s->last + 1);
		}
		page = (page / 64 + 1) * 64;
	}
	return (s->last + 1);
}

bool
mt_dirty_snapshot_next(const struct mt_dirty_snapshot *s, mt_addr off,
    struct mt_range *run)
{
	mt_addr page = off >> PAGE_SHIFT;

	if (page > s->last || off > s->end)
		return (false);
	page = find(s, page < s->first ? s->first : (size_t)page, true);
	if (page > s->last)
		return (false);
	run->first = page << PAGE_SHIFT;
	page = find(s, (size_t)page, false);
	run->last = (page << PAGE_SHIFT) - 1;
	if (run->last > s->end)
		run->last = s->end;
	return (true);
}

bool
mt_dirty_snapshot_get(const struct mt_dirty_snapshot *s, mt_addr off,
    size_t len)
{
	mt_addr last = len - 1 > MT_LAST_MAX - off ? MT_LAST_MAX :
	    off + len - 1;
	struct mt_range run;

	return (len != 0 && mt_dirty_snapshot_next(s, off, &run) &&
	    run.first <= last);
}
