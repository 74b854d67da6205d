/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The memory of a queue.
 *
 * It is the client's, who may take it back and give it again, elsewhere or
 * in other pieces, at any time; firmware does so under live queues.  So we
 * keep one mapping that reaches from some entry to the end of the piece, and
 * make a new one for an entry outside of it.
 *
 * Where there is nothing to map, entries go by messages, as many in one as
 * there are: new ones of an SQ are read to sq->fetched, and those of a CQ wait
 * in cq->held, of which one message at a time takes what there is.  They are
 * known to the guest, and interrupt it, when that message has been answered.
 *
 *	cq->head      cq->shown      cq->tail
 *	    ▼             ▼              ▼
 *	····│ the guest's │ only in held │ free ····
 *
 * Where even that fails the queue is stuck.  No completion could tell of it,
 * so it is a fatal status of the controller, unless the memory is only away:
 * see stick().
 */

#include <string.h>

#include "nvme.h"

void
nvme_ring_init(struct nvme_ring *r, mt_addr base, uint32_t entries,
    unsigned int shift, unsigned int dir)
{
	nvme_ring_drop(r);
	r->base = base;
	r->entries = entries;
	r->shift = shift;
	r->dir = dir;
}

static void
ring_unmap(struct nvme_ring *r)
{
	if (r->ptr == NULL)
		return;
	mt_dma_unmap(&r->map, r->map.len);
	r->ptr = NULL;
	r->len = 0;
	r->off = 0;
}

void
nvme_ring_drop(struct nvme_ring *r)
{
	ring_unmap(r);
	r->slow = false;
	r->stuck = false;
}

/* Have the entry at byte off of the queue mapped. */
static bool
ring_map(struct nvme_ctrl *c, struct nvme_ring *r, size_t off)
{
	/* A bounce buffer would not show what the guest writes later. */
	const struct mt_attrs attrs = { .memory_only = 1 };
	size_t entry = (size_t)1 << r->shift;
	size_t end = (size_t)r->entries << r->shift;

	if (r->slow)
		return (false);
	ring_unmap(r);
	if (mt_dma_map(c->dma, r->base + off, end - off, r->dir, attrs,
	    &r->map) == -1) {
		r->slow = true;
		return (false);
	}
	if (r->map.bounced || r->map.len < entry ||
	    ((uintptr_t)r->map.ptr & (entry - 1)) != 0) {
		mt_dma_unmap(&r->map, 0);
		r->slow = true;
		return (false);
	}
	r->ptr = r->map.ptr;
	r->off = off;
	r->len = r->map.len & ~(entry - 1);
	return (true);
}

/*
 * An access to its memory has failed.  If that answers with errors it is the
 * end.  If there is none it may come back: a client that gives memory anew, in
 * other pieces, takes it away first, and does not stop the guest for that.  A
 * guest that has bus mastering off has asked for nothing to be done, and may
 * take its time.
 */
static void
stick(struct nvme_dma *d, struct nvme_ring *r, const char *what,
    unsigned int qid)
{
	struct nvme_ctrl *c = d->c;

	r->stuck = true;
	nvme_log(c, "%s queue %u: no access to its memory", what, qid);
	if (!c->master)
		return;
	if (mt_space_valid(c->dma, d->range.first,
	    (size_t)(d->range.last - d->range.first) + 1, d->is_write,
	    MT_ATTRS_NONE))
		nvme_ctrl_fail(c, "an error where a queue is");
	else if (c->missing == 0)
		c->missing = nvme_now();
}

/* --- submission queues ---------------------------------------------------- */

static void
fetched(struct nvme_dma *d, enum mt_result res)
{
	struct nvme_sq *sq = d->arg;

	if (sq->fetch_stale)
		sq->fetch_stale = false;
	else if (res == MT_OK)
		sq->nfetched = sq->nfetching;
	else if (sq->fetch_age == d->c->memory_age)
		stick(d, &sq->ring, "submission", sq->qid);
}

/* Read all new entries, to the end of the queue. */
static void
fetch(struct nvme_ctrl *c, struct nvme_sq *sq)
{
	uint32_t n = (sq->tail > sq->head ? sq->tail : sq->ring.entries) -
	    sq->head;

	if (n > NVME_SQ_REQS)
		n = NVME_SQ_REQS;
	sq->nfetched = 0;
	sq->next_fetched = 0;
	sq->nfetching = n;
	sq->fetch_age = c->memory_age;
	sq->fetch.arg = sq;
	(void)nvme_dma_start(c, &sq->fetch, sq->ring.base +
	    ((mt_addr)sq->head << NVME_SQE_SHIFT), sq->fetched,
	    (size_t)n << NVME_SQE_SHIFT, false, fetched);
}

bool
nvme_sq_fetch(struct nvme_ctrl *c, struct nvme_sq *sq, struct nvme_cmd *cmd)
{
	size_t off = (size_t)sq->head << NVME_SQE_SHIFT;
	struct nvme_ring *r = &sq->ring;

	/* What was read by message is used up before anything is mapped. */
	if (nvme_unlikely(off - r->off >= r->len) &&
	    sq->next_fetched == sq->nfetched) {
		if (sq->fetch.busy)
			return (false);
		if (!ring_map(c, r, off))
			fetch(c, sq);
	}
	if (nvme_likely(off - r->off < r->len)) {
		memcpy(cmd, r->ptr + (off - r->off), sizeof(*cmd));
		return (true);
	}
	if (sq->next_fetched == sq->nfetched)
		return (false);
	*cmd = sq->fetched[sq->next_fetched++];
	return (true);
}

void
nvme_sq_forget(struct nvme_sq *sq)
{
	nvme_ring_drop(&sq->ring);
	sq->fetch_stale = sq->fetch.busy;
	nvme_dma_cancel(&sq->fetch);
	sq->nfetched = 0;
	sq->next_fetched = 0;
}

/* --- completion queues ---------------------------------------------------- */

/*
 * Copy cqe to where entry i is mapped.  The guest finds it by the phase bit in
 * its last four bytes: these are released after the rest, or it would read an
 * old result.
 */
static bool
put_mapped(struct nvme_ctrl *c, struct nvme_ring *r, uint32_t i,
    const struct nvme_cqe *cqe)
{
	size_t off = (size_t)i << NVME_CQE_SHIFT;
	const size_t last = offsetof(struct nvme_cqe, cid);
	uint32_t word;
	uint8_t *p;

	if (nvme_unlikely(off - r->off >= r->len) && !ring_map(c, r, off))
		return (false);
	p = r->ptr + (off - r->off);
	memcpy(p, cqe, last);
	memcpy(&word, (const uint8_t *)cqe + last, sizeof(word));
	atomic_store_explicit((_Atomic uint32_t *)(void *)(p + last), word,
	    memory_order_release);
	return (true);
}

static uint32_t
after(const struct nvme_cq *cq, uint32_t i, uint32_t n)
{
	return (i + n == cq->ring.entries ? 0 : i + n);
}

/* The guest can see n more. */
static void
show(struct nvme_ctrl *c, struct nvme_cq *cq, uint32_t n)
{
	cq->shown = after(cq, cq->shown, n);
	if (cq->ien)
		nvme_intr_post(c, cq);
}

/* Have what is held written at the end of this pass, all in one. */
static void
want_show(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	if (cq->showing)
		return;
	cq->showing = true;
	c->shows[c->nshows++] = cq->qid;
}

static void
posted(struct nvme_dma *d, enum mt_result res)
{
	struct nvme_cq *cq = d->arg;

	if (cq->post_stale)
		cq->post_stale = false;
	else if (res == MT_OK)
		show(d->c, cq, cq->nposting);
	else if (cq->post_age == d->c->memory_age)
		stick(d, &cq->ring, "completion", cq->qid);
	want_show(d->c, cq);
}

/*
 * Write entries by one message.  Who receives it copies 16 bytes as one: that
 * is what the guest needs of any device that it has.
 */
static bool
post(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	uint32_t n = (cq->tail > cq->shown ? cq->tail : cq->ring.entries) -
	    cq->shown;

	if (n > NVME_POST_MAX)
		n = NVME_POST_MAX;
	/* A copy: after a reset others may be held while it is in flight. */
	memcpy(cq->posting, &cq->held[cq->shown], n * sizeof(cq->posting[0]));
	cq->nposting = n;
	cq->post_age = c->memory_age;
	cq->post.arg = cq;
	return (nvme_dma_start(c, &cq->post, cq->ring.base +
	    ((mt_addr)cq->shown << NVME_CQE_SHIFT), cq->posting,
	    (size_t)n << NVME_CQE_SHIFT, true, posted) == 0);
}

static void
show_held(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	while (cq->live && !cq->stopping && !cq->post.busy &&
	    !cq->ring.stuck && cq->shown != cq->tail) {
		if (put_mapped(c, &cq->ring, cq->shown, &cq->held[cq->shown]))
			show(c, cq, 1);
		else if (!post(c, cq)) {
			want_show(c, cq);
			return;
		}
	}
}

void
nvme_cqs_show(struct nvme_ctrl *c)
{
	struct nvme_cq *cq;
	unsigned int i, n = c->nshows;

	/* Those that ask again go first in the next pass. */
	c->nshows = 0;
	for (i = 0; i < n; i++) {
		cq = &c->cq[c->shows[i]];
		cq->showing = false;
		show_held(c, cq);
	}
}

void
nvme_cq_unstick(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	cq->ring.slow = cq->ring.stuck = false;
	want_show(c, cq);
}

void
nvme_cq_post(struct nvme_ctrl *c, struct nvme_cq *cq,
    const struct nvme_cqe *cqe)
{
	struct nvme_cqe e = *cqe;
	uint32_t i = cq->tail;

	e.status = (uint16_t)((e.status & ~1u) | cq->phase);
	cq->tail = after(cq, i, 1);
	if (cq->tail == 0)
		cq->phase ^= 1;
	if (nvme_likely(cq->shown == i && !cq->ring.stuck) &&
	    put_mapped(c, &cq->ring, i, &e)) {
		show(c, cq, 1);
		return;
	}
	cq->held[i] = e;
	want_show(c, cq);
}

void
nvme_cq_forget(struct nvme_cq *cq, bool now)
{
	nvme_ring_drop(&cq->ring);
	cq->post_stale = cq->post.busy;
	if (now)
		nvme_dma_cancel(&cq->post);
}
