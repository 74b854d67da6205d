/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Accesses that regions complete later.
 *
 * pending counts the pieces of an access that are in flight, and one for each
 * who looks at it: mt_access_submit() until it has begun all of them, and
 * mt_access_cancel().  Who takes it to 0 has the access alone, and ends it.
 * Decrements are release, so that what a region has put into the buffer
 * comes before done, and acquire, for the one who calls it.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* A thread that calls done of a space, on its stack: see finish(). */
struct finishing {
	struct finishing *outer;	/* of another space */
	const struct mt_space *sp;
	struct mt_access *first;	/* that are over, and whose turn comes */
	struct mt_access **last;
};

static __thread struct finishing *innermost;

static struct finishing *
my_finishing(const struct mt_space *sp)
{
	struct finishing *f;

	for (f = innermost; f != NULL && f->sp != sp; f = f->outer)
		;
	return (f);
}

void
mt__defer_init(struct mt_space *sp)
{
	pthread_mutex_init(&sp->defer_lock, NULL);
	pthread_cond_init(&sp->defer_idle, NULL);
}

void
mt__defer_fini(struct mt_space *sp)
{
	pthread_cond_destroy(&sp->defer_idle);
	pthread_mutex_destroy(&sp->defer_lock);
}

bool
mt__defer_idle(struct mt_space *sp)
{
	bool idle;

	pthread_mutex_lock(&sp->defer_lock);
	idle = sp->naccesses == 0;
	pthread_mutex_unlock(&sp->defer_lock);
	return (idle);
}

static void
prepare(struct mt_access *acc, struct mt_space *sp,
    void (*done)(void *, enum mt_result), void *arg)
{
	acc->sp = sp;
	acc->done = done;
	acc->arg = arg;
	acc->pieces = acc->own;
	acc->npieces = 0;
	acc->room = MT_ACCESS_PIECES;
	acc->more = NULL;
	acc->pending = 1;
	acc->result = MT_OK;
	acc->counted = false;
	acc->next = NULL;
}

/* Give back what an access kept that nobody is at any more. */
static void
clean(struct mt_access *acc)
{
	struct mt_piece *p;
	size_t i;

	for (i = 0; i < acc->npieces; i++)
		mt_region_put(acc->pieces[i].region);
	while ((p = acc->more) != NULL) {
		acc->more = p->next;
		mt_region_put(p->region);
		free(p);
	}
	/* Those of a sleeper are its own. */
	if (acc->pieces != acc->own && acc->sp != NULL)
		free(acc->pieces);
}

static void
count(struct mt_access *acc)
{
	if (acc->counted || acc->sp == NULL)
		return;
	pthread_mutex_lock(&acc->sp->defer_lock);
	acc->sp->naccesses++;
	pthread_mutex_unlock(&acc->sp->defer_lock);
	acc->counted = true;
}

/* One less in flight; nobody may use sp after that. */
static void
uncount(struct mt_space *sp)
{
	pthread_mutex_lock(&sp->defer_lock);
	if (--sp->naccesses == 0)
		pthread_cond_broadcast(&sp->defer_idle);
	pthread_mutex_unlock(&sp->defer_lock);
}

static void
call_done(struct mt_access *acc)
{
	enum mt_result res = (enum mt_result)__atomic_load_n(&acc->result,
	    __ATOMIC_RELAXED);
	struct mt_space *sp = acc->counted ? acc->sp : NULL;

	acc->done(acc->arg, res);		/* may free acc */
	if (sp != NULL)
		uncount(sp);
}

/*
 * Nothing is left of an access but to call its done.  If this thread is in
 * one of that space already, it is called when that has returned: a done may
 * submit the next access, which may be over at once, and so on without end.
 * Until then it is in flight, for those who drain and destroy.
 */
static void
finish(struct mt_access *acc)
{
	struct finishing self, *f;

	clean(acc);
	if (acc->sp == NULL) {
		call_done(acc);			/* ours: see wake() */
		return;
	}
	if ((f = my_finishing(acc->sp)) != NULL) {
		count(acc);
		*f->last = acc;
		f->last = &acc->next;
		return;
	}
	self = (struct finishing){ innermost, acc->sp, acc, &acc->next };
	innermost = &self;
	while ((acc = self.first) != NULL) {
		if ((self.first = acc->next) == NULL)
			self.last = &self.first;
		call_done(acc);
	}
	innermost = self.outer;
}

/* Is that the last one? */
static bool
drop(struct mt_access *acc)
{
	return (__atomic_sub_fetch(&acc->pending, 1, __ATOMIC_ACQ_REL) == 0);
}

/* --- waiting ------------------------------------------------------------- */

#define AT_ONCE		32

/*
 * A blocking access, on the stack of who waits; it is of no space.  It has
 * room for so many pieces in flight, and so never has to allocate some.
 */
struct sleeper {
	struct mt_access acc;
	struct mt_piece pieces[AT_ONCE];
	pthread_mutex_t lock;
	pthread_cond_t cond;		/* with lock: done was set */
	bool done;			/* lock */
};

static void
wake(void *arg, enum mt_result res)
{
	struct sleeper *s = arg;

	(void)res;
	/* The sleeper goes on, and the lock goes, once that is free. */
	pthread_mutex_lock(&s->lock);
	s->done = true;
	pthread_cond_signal(&s->cond);
	pthread_mutex_unlock(&s->lock);
}

static void
sleep_until_done(struct mt__reader *rd, struct sleeper *s)
{
	mt__reader_pause(rd);
	pthread_mutex_lock(&s->lock);
	while (!s->done)
		pthread_cond_wait(&s->cond, &s->lock);
	pthread_mutex_unlock(&s->lock);
	mt__reader_resume(rd);
}

/* Wait until all that has begun is over.  Nobody wakes s before the drop. */
static void
settle(struct mt__reader *rd, struct sleeper *s)
{
	if (s->acc.npieces == 0)
		return;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->cond, NULL);
	s->done = false;
	if (drop(&s->acc))
		clean(&s->acc);
	else
		sleep_until_done(rd, s);
	pthread_cond_destroy(&s->cond);
	pthread_mutex_destroy(&s->lock);
	s->acc.npieces = 0;
	s->acc.pending = 1;
}

enum mt_result
mt__defer_walk(struct mt__reader *rd, mt_addr addr, void *buf, size_t len,
    bool is_write, struct mt_attrs attrs)
{
	struct sleeper s;
	enum mt_result res;

	prepare(&s.acc, NULL, wake, &s);
	s.acc.pieces = s.pieces;
	s.acc.room = AT_ONCE;
	rd->access = &s.acc;
	res = mt__access(rd, addr, buf, len, is_write, attrs);
	rd->access = NULL;
	settle(rd, &s);
	return (res | (enum mt_result)__atomic_load_n(&s.acc.result,
	    __ATOMIC_RELAXED));
}

/* --- beginning and ending ------------------------------------------------ */

/* A piece is over; not yet counted as such. */
static void
end_piece(struct mt_piece *piece, enum mt_result res)
{
	if (res != MT_OK) {
		if (piece->buf != NULL)
			memset(piece->buf, 0, piece->len);
		__atomic_fetch_or(&piece->access->result, (unsigned int)res,
		    __ATOMIC_RELAXED);
	}
	__atomic_store_n(&piece->over, 1, __ATOMIC_RELAXED);
}

static struct mt_piece *
new_piece(struct mt_access *acc)
{
	struct mt_piece *p;

	if (acc->npieces < acc->room)
		return (&acc->pieces[acc->npieces++]);
	/* Only translating tells what is behind an IOMMU. */
	if ((p = malloc(sizeof(*p))) == NULL)
		return (NULL);
	p->next = acc->more;
	acc->more = p;
	return (p);
}

enum mt_result
mt__defer_begin(struct mt__reader *rd, const struct mt__hit *hit, void *buf,
    size_t len, bool is_write, struct mt_attrs attrs)
{
	struct mt_region *r = hit->span->region;
	struct mt_access *acc = rd->access;
	struct mt_piece *piece;
	struct mt__inside in;

	if (acc->sp == NULL && acc->npieces == acc->room)
		settle(rd, acc->arg);
	if (!mt__enter(r, &in)) {
		if (!is_write)
			memset(buf, 0, len);
		return (MT_DENIED);
	}
	if ((piece = new_piece(acc)) == NULL) {
		mt__leave(r, &in);
		if (!is_write)
			memset(buf, 0, len);
		return (MT_DEVICE);
	}
	count(acc);
	piece->data = NULL;
	piece->access = acc;
	piece->region = mt_region_get(r);
	piece->buf = is_write ? NULL : buf;
	piece->len = len;
	piece->over = 0;
	__atomic_fetch_add(&acc->pending, 1, __ATOMIC_RELAXED);
	r->ops->submit_buf(r->arg, hit->off, buf, len, is_write, attrs, piece);
	mt__leave(r, &in);
	return (MT_OK);
}

void
mt_access_complete(struct mt_piece *piece, enum mt_result res)
{
	struct mt_access *acc = piece->access;

	end_piece(piece, res);
	if (drop(acc))
		finish(acc);
}

/* --- submitting ---------------------------------------------------------- */

/*
 * In how many pieces can an access be in flight?  At most so many, and what
 * IOMMUs add.
 */
static size_t
count_pieces(const struct mt_view *v, mt_addr addr, size_t len, bool is_write,
    struct mt_attrs attrs)
{
	struct mt__hit hit;
	size_t n = 0;

	while (len != 0) {
		mt__lookup(v, addr, is_write, attrs, &hit);
		if (hit.span != NULL && hit.host == NULL &&
		    hit.span->region->ops != NULL &&
		    hit.span->region->ops->submit_buf != NULL)
			n++;
		if (hit.room >= len - 1)
			break;
		len -= (size_t)hit.room + 1;
		if (addr + hit.room == MT_LAST_MAX)
			break;
		addr += hit.room + 1;
	}
	return (n);
}

int
mt_access_submit(struct mt_space *sp, struct mt_access *acc, mt_addr addr,
    void *buf, size_t len, bool is_write, struct mt_attrs attrs,
    void (*done)(void *, enum mt_result), void *arg)
{
	struct mt__reader rd;
	enum mt_result res;
	size_t n;

	prepare(acc, sp, done, arg);
	mt__reader_begin(&rd, sp);
	n = count_pieces(rd.view, addr, len, is_write, attrs);
	if (n > MT_ACCESS_PIECES) {
		acc->pieces = calloc(n, sizeof(*acc->pieces));
		if (acc->pieces == NULL) {
			mt__reader_end(&rd);
			acc->pending = 0;
			errno = ENOMEM;
			return (-1);
		}
		acc->room = n;
	}
	rd.access = acc;
	res = mt__access(&rd, addr, buf, len, is_write, attrs);
	mt__reader_end(&rd);
	if (res != MT_OK)
		__atomic_fetch_or(&acc->result, (unsigned int)res,
		    __ATOMIC_RELAXED);
	if (drop(acc))
		finish(acc);
	return (0);
}

/*
 * Ask the region to give up its piece, if it has it still, and this thread is
 * not in it already.
 */
static bool
cancel_piece(struct mt_access *acc, struct mt_piece *p)
{
	const struct mt_region *r = p->region;
	struct mt__inside in;
	bool cancelled;

	if (__atomic_load_n(&p->over, __ATOMIC_RELAXED) != 0 ||
	    r->ops->cancel_buf == NULL || !mt__enter(r, &in))
		return (false);
	cancelled = r->ops->cancel_buf(r->arg, p);
	mt__leave(r, &in);
	if (!cancelled)
		return (false);
	end_piece(p, MT_DEVICE);
	(void)drop(acc);
	return (true);
}

bool
mt_access_cancel(struct mt_access *acc)
{
	size_t i, n = __atomic_load_n(&acc->pending, __ATOMIC_RELAXED);
	bool cancelled = false;
	struct mt_piece *p;

	/* While we count as one, it does not end. */
	do
		if (n == 0)
			return (false);
	while (!__atomic_compare_exchange_n(&acc->pending, &n, n + 1, true,
	    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED));
	for (i = 0; i < acc->npieces; i++)
		cancelled |= cancel_piece(acc, &acc->pieces[i]);
	for (p = acc->more; p != NULL; p = p->next)
		cancelled |= cancel_piece(acc, p);
	if (!drop(acc))
		return (false);
	if (!cancelled) {
		finish(acc);
		return (false);
	}
	clean(acc);
	uncount(acc->sp);
	return (true);
}

int
mt_access_drain(struct mt_space *sp)
{
	if (mt__reading() || my_finishing(sp) != NULL) {
		errno = EDEADLK;
		return (-1);
	}
	pthread_mutex_lock(&sp->defer_lock);
	while (sp->naccesses != 0)
		pthread_cond_wait(&sp->defer_idle, &sp->defer_lock);
	pthread_mutex_unlock(&sp->defer_lock);
	return (0);
}
