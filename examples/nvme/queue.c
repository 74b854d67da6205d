/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Submission and completion queues: doorbells, and the way of a command from
 * one to the other.
 *
 * A command is fetched only when its completion has a place: an entry of the
 * CQ is reserved for it.  So a completion never waits for the guest, but for
 * a CQ whose memory is away; then it stays on cq->done, and nothing more is
 * fetched for that CQ.
 */

#include <string.h>

#include "nvme.h"

#define NOT_BAD		UINT32_MAX
#define RESUME_COST	64u

static inline void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile ("yield");
#endif
}

/*
 * The acquire pairs with the release by which the guest orders its entries
 * before the doorbell: without it we could fetch an entry's old bytes.
 */
static inline uint32_t
db_load(struct nvme_ctrl *c, unsigned int qid, bool is_cq)
{
	return (atomic_load_explicit(&c->db[2 * qid + is_cq],
	    memory_order_acquire) & 0xffff);
}

static void
db_clear(struct nvme_ctrl *c, unsigned int qid, bool is_cq)
{
	atomic_store_explicit(&c->db[2 * qid + is_cq], 0,
	    memory_order_relaxed);
}

/* --- requests ------------------------------------------------------------- */

void
nvme_req_queue(struct nvme_reqs *list, struct nvme_req *req)
{
	TAILQ_INSERT_TAIL(list, req, link);
	req->list = list;
}

void
nvme_req_unqueue(struct nvme_req *req)
{
	if (req->list == NULL)
		return;
	TAILQ_REMOVE(req->list, req, link);
	req->list = NULL;
}

static struct nvme_req *
req_get(struct nvme_sq *sq)
{
	struct nvme_req *req = TAILQ_FIRST(&sq->free);

	if (req == NULL)
		return (NULL);
	TAILQ_REMOVE(&sq->free, req, link);
	req->list = NULL;
	req->pos = 0;
	req->result = 0;
	req->busy = true;
	req->flushed = 0;
	req->completed = false;
	return (req);
}

/* The most recently used one is taken next: it is in the cache. */
static void
req_put(struct nvme_req *req)
{
	nvme_req_unqueue(req);
	req->busy = false;
	TAILQ_INSERT_HEAD(&req->sq->free, req, link);
}

void
nvme_req_release(struct nvme_req *req)
{
	req->cq->reserved--;
	req_put(req);
}

struct nvme_req *
nvme_req_find(struct nvme_sq *sq, uint16_t cid)
{
	struct nvme_req *req;

	for (req = sq->reqs; req < sq->reqs + NVME_SQ_REQS; req++)
		if (req->busy && !req->completed && req->cmd.cid == cid)
			return (req);
	return (NULL);
}

/* --- completion queues ---------------------------------------------------- */

static uint32_t
cq_used(const struct nvme_cq *cq, uint32_t head)
{
	return (cq->tail >= head ? cq->tail - head :
	    cq->tail + cq->ring.entries - head);
}

uint32_t
nvme_cq_room(const struct nvme_cq *cq)
{
	return (cq->ring.entries - 1 - cq_used(cq, cq->head) - cq->reserved);
}

void
nvme_cq_scan(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	uint32_t head = db_load(c, cq->qid, true);

	if (head == cq->head || head == cq->bad_head)
		return;
	/* It moves forward, and not past what was posted. */
	if (head >= cq->ring.entries ||
	    cq_used(cq, head) > cq_used(cq, cq->head)) {
		cq->bad_head = head;
		nvme_event(c, NVME_AER_ERROR, NVME_AER_BAD_DB_VALUE,
		    NVME_LOG_ERROR);
		return;
	}
	cq->head = head;
	cq->bad_head = NOT_BAD;
}

bool
nvme_cq_post(struct nvme_ctrl *c, struct nvme_cq *cq,
    const struct nvme_cqe *cqe)
{
	struct nvme_cqe e = *cqe;

	if (nvme_unlikely(cq->ring.stuck))
		return (false);
	e.status = (uint16_t)((e.status & ~1u) | cq->phase);
	if (!nvme_ring_put(c, &cq->ring, cq->tail, &e))
		return (false);
	if (++cq->tail == cq->ring.entries) {
		cq->tail = 0;
		cq->phase ^= 1;
	}
	if (cq->ien)
		nvme_intr_post(c, cq);
	return (true);
}

static bool
req_post(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cqe cqe = {
		.result = req->result,
		.sqhd = req->sqhd,
		.sqid = req->sq->qid,
		.cid = req->cmd.cid,
		.status = (uint16_t)(req->status << 1),
	};

	if (!nvme_cq_post(c, req->cq, &cqe))
		return (false);
	nvme_req_release(req);
	return (true);
}

void
nvme_complete(struct nvme_ctrl *c, struct nvme_req *req, int status)
{
	struct nvme_cq *cq = req->cq;

	req->completed = true;
	req->sqhd = (uint16_t)req->sq->head;
	if (nvme_unlikely(status != NVME_OK)) {
		nvme_log_error(c, req, status);
		status |= NVME_MORE;
	}
	req->status = (uint16_t)status;
	if (nvme_unlikely(!TAILQ_EMPTY(&cq->done)) || !req_post(c, req))
		nvme_req_queue(&cq->done, req);
}

/* Post what could not be posted before. */
static void
cq_flush(struct nvme_ctrl *c, struct nvme_cq *cq)
{
	struct nvme_req *req;

	while ((req = TAILQ_FIRST(&cq->done)) != NULL)
		if (!req_post(c, req))
			return;
}

/* --- submission queues ---------------------------------------------------- */

static void
sq_scan(struct nvme_ctrl *c, struct nvme_sq *sq)
{
	uint32_t tail = db_load(c, sq->qid, false);

	if (tail == sq->tail || tail == sq->bad_tail)
		return;
	if (tail >= sq->ring.entries) {
		sq->bad_tail = tail;
		nvme_event(c, NVME_AER_ERROR, NVME_AER_BAD_DB_VALUE,
		    NVME_LOG_ERROR);
		return;
	}
	sq->tail = tail;
	sq->bad_tail = NOT_BAD;
}

void
nvme_exec(struct nvme_ctrl *c, struct nvme_req *req)
{
	int status;

	status = req->sq->qid == 0 ? nvme_admin(c, req) : nvme_io(c, req);
	switch (status) {
	case NVME_LATER:
		return;
	case NVME_NO_MEMORY:
		nvme_req_queue(&c->starved, req);
		nvme_xfer_wait(c);
		return;
	case NVME_AGAIN:
		nvme_req_queue(&c->again, req);
		return;
	default:
		nvme_complete(c, req, status);
	}
}

/* Fetch and execute what there is, within budget; returns the work done. */
static unsigned int
sq_run(struct nvme_ctrl *c, struct nvme_sq *sq, unsigned int budget)
{
	struct nvme_cq *cq = sq->cq;
	struct nvme_req *req;
	unsigned int used = 0;

	sq_scan(c, sq);
	if (cq->head != cq->tail)
		nvme_cq_scan(c, cq);
	while (sq->head != sq->tail && used < budget) {
		if (nvme_cq_room(cq) == 0 || !TAILQ_EMPTY(&cq->done) ||
		    sq->ring.stuck || (req = req_get(sq)) == NULL)
			break;
		if (!nvme_ring_get(c, &sq->ring, sq->head, &req->cmd)) {
			req_put(req);
			break;
		}
		if (++sq->head == sq->ring.entries)
			sq->head = 0;
		req->cq = cq;
		cq->reserved++;
		c->moved = 0;
		nvme_exec(c, req);
		used += NVME_COST_COMMAND +
		    (unsigned int)(c->moved >> NVME_COST_SHIFT);
		/* A command may have stopped this queue's controller. */
		if (nvme_unlikely(!sq->live))
			break;
	}
	return (used);
}

/* --- the work ------------------------------------------------------------- */

/* Go on with commands that could not be finished when they came. */
static unsigned int
resume(struct nvme_ctrl *c)
{
	struct nvme_req *req, *last;
	unsigned int used = 0;

	if (c->fed) {
		c->fed = false;
		while ((req = TAILQ_FIRST(&c->starved)) != NULL) {
			nvme_req_unqueue(req);
			nvme_req_queue(&c->again, req);
		}
	}
	/* One round: those that queue themselves again come after last. */
	last = TAILQ_LAST(&c->again, nvme_reqs);
	while ((req = TAILQ_FIRST(&c->again)) != NULL) {
		nvme_req_unqueue(req);
		nvme_exec(c, req);
		used += RESUME_COST;
		if (req == last)
			break;
	}
	return (used);
}

static void
unstick(struct nvme_ctrl *c)
{
	struct nvme_cq *cq;

	c->retry = false;
	for (cq = c->cq; cq < c->cq + NVME_QUEUES; cq++)
		if (cq->live)
			cq_flush(c, cq);
}

/* Look at every queue once; returns the work done. */
static unsigned int
pass(struct nvme_ctrl *c, unsigned int budget)
{
	unsigned int i, n, used = 0;

	if (nvme_unlikely(c->retry))
		unstick(c);
	if (nvme_unlikely(c->fed || !TAILQ_EMPTY(&c->again)))
		used += resume(c);
	used += sq_run(c, &c->sq[0], budget);
	if (nvme_unlikely(c->nevents > 0 && c->naers > 0))
		nvme_event_deliver(c);
	i = c->next_active;
	for (n = c->nactive; n > 0 && used < budget; n--) {
		if (i >= c->nactive)
			i = 0;
		used += sq_run(c, &c->sq[c->active[i++]], budget - used);
	}
	c->next_active = i;
	return (used);
}

bool
nvme_work(struct nvme_ctrl *c, unsigned int budget, unsigned int spin)
{
	unsigned int used, left = spin;
	bool any = false;

	for (;;) {
		used = nvme_enabled(c) ? pass(c, budget) : 0;
		nvme_intr_update(c);
		if (used > 0) {
			any = true;
			left = spin;
		} else if (left == 0) {
			break;
		} else {
			left--;
			used = 1;
			cpu_relax();
		}
		if (used >= budget)
			break;
		budget -= used;
	}
	return (any);
}

bool
nvme_polling(const struct nvme_ctrl *c)
{
	return (c->map_doorbells && nvme_enabled(c));
}

/* --- starting and stopping ------------------------------------------------ */

void
nvme_cq_start(struct nvme_ctrl *c, unsigned int qid, mt_addr base,
    uint32_t entries, bool ien, unsigned int vector)
{
	struct nvme_cq *cq = &c->cq[qid];

	nvme_ring_init(&cq->ring, base, entries, NVME_CQE_SHIFT,
	    MT_DMA_WRITE);
	TAILQ_INIT(&cq->done);
	cq->head = 0;
	cq->tail = 0;
	cq->reserved = 0;
	cq->bad_head = NOT_BAD;
	cq->vector = (uint16_t)vector;
	cq->nsqs = 0;
	cq->phase = 1;
	cq->ien = ien;
	cq->live = true;
	db_clear(c, qid, true);
}

void
nvme_sq_start(struct nvme_ctrl *c, unsigned int qid, mt_addr base,
    uint32_t entries, unsigned int cqid)
{
	struct nvme_sq *sq = &c->sq[qid];

	nvme_ring_init(&sq->ring, base, entries, NVME_SQE_SHIFT, MT_DMA_READ);
	sq->cq = &c->cq[cqid];
	sq->cq->nsqs++;
	sq->head = 0;
	sq->tail = 0;
	sq->bad_tail = NOT_BAD;
	sq->live = true;
	db_clear(c, qid, false);
	if (qid != 0)
		c->active[c->nactive++] = (uint16_t)qid;
}

/* The guest has deleted a CQ that no SQ uses. */
void
nvme_cq_stop(struct nvme_ctrl *c, unsigned int qid)
{
	struct nvme_cq *cq = &c->cq[qid];
	struct nvme_req *req;

	while ((req = TAILQ_FIRST(&cq->done)) != NULL)
		req_put(req);
	nvme_ring_drop(&cq->ring);
	cq->live = false;
	c->intr_dirty = true;
}

/* The guest has deleted an SQ: its commands are aborted. */
void
nvme_sq_stop(struct nvme_ctrl *c, unsigned int qid)
{
	struct nvme_sq *sq = &c->sq[qid];
	struct nvme_req *req;
	unsigned int i;

	for (req = sq->reqs; req < sq->reqs + NVME_SQ_REQS; req++) {
		if (!req->busy || req->completed)
			continue;
		nvme_req_unqueue(req);
		nvme_complete(c, req, NVME_ABORT_SQ_DELETED);
	}
	nvme_ring_drop(&sq->ring);
	sq->live = false;
	sq->cq->nsqs--;
	for (i = 0; c->active[i] != qid; i++)
		continue;
	c->nactive--;
	memmove(&c->active[i], &c->active[i + 1],
	    (c->nactive - i) * sizeof(c->active[0]));
}

void
nvme_queues_reset(struct nvme_ctrl *c)
{
	struct nvme_cq *cq;
	struct nvme_sq *sq;
	unsigned int i, j;

	if (c->waiting)
		mt_dma_cancel(&c->waiter);
	c->waiting = false;
	c->fed = false;
	c->retry = false;
	TAILQ_INIT(&c->starved);
	TAILQ_INIT(&c->again);
	for (i = 0; i < c->nns; i++) {
		TAILQ_INIT(&c->ns[i]->flush_now);
		TAILQ_INIT(&c->ns[i]->flush_next);
	}
	for (i = 0; i < NVME_QUEUES; i++) {
		cq = &c->cq[i];
		nvme_ring_drop(&cq->ring);
		TAILQ_INIT(&cq->done);
		cq->live = false;
		cq->irq = false;
		cq->qid = (uint16_t)i;
		sq = &c->sq[i];
		nvme_ring_drop(&sq->ring);
		TAILQ_INIT(&sq->free);
		sq->live = false;
		sq->qid = (uint16_t)i;
		for (j = 0; j < NVME_SQ_REQS; j++) {
			sq->reqs[j].sq = sq;
			sq->reqs[j].list = NULL;
			sq->reqs[j].busy = false;
			TAILQ_INSERT_TAIL(&sq->free, &sq->reqs[j], link);
		}
	}
	c->nirqs = 0;
	c->nactive = 0;
	c->next_active = 0;
	for (i = 0; i < sizeof(c->own_db) / sizeof(c->own_db[0]); i++)
		atomic_store_explicit(&c->db[i], 0, memory_order_relaxed);
}

static void
ring_unmap(struct nvme_ring *r, bool live, struct mt_range range)
{
	mt_addr last;

	if (!live)
		return;
	last = r->base + (((mt_addr)r->entries << r->shift) - 1);
	if (r->base <= range.last && range.first <= last)
		nvme_ring_drop(r);
}

void
nvme_queues_unmap(struct nvme_ctrl *c, struct mt_range range)
{
	unsigned int i;

	for (i = 0; i < NVME_QUEUES; i++) {
		ring_unmap(&c->sq[i].ring, c->sq[i].live, range);
		ring_unmap(&c->cq[i].ring, c->cq[i].live, range);
	}
}

void
nvme_queues_retry(struct nvme_ctrl *c)
{
	unsigned int i;

	for (i = 0; i < NVME_QUEUES; i++) {
		c->sq[i].ring.slow = c->sq[i].ring.stuck = false;
		c->cq[i].ring.slow = c->cq[i].ring.stuck = false;
	}
	c->retry = true;
}
