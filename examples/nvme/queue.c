/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Submission and completion queues: doorbells, and the way of a command from
 * one to the other.
 *
 * A command is fetched only when its completion has a place: an entry of the
 * CQ is reserved for it.  So a completion never waits for the guest.  While
 * the memory of a CQ is away nothing more is fetched for it.
 *
 * When the controller fails all queues are stuck, and so nothing is fetched or
 * posted from there on; what is under way is given up when that is safe.
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
	req->job = NULL;
	req->pos = 0;
	req->result = 0;
	req->busy = true;
	req->flushed = 0;
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
		if (req->busy && req->cmd.cid == cid)
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

/* What is only held does not count, and the guest may be ahead of us. */
bool
nvme_cq_unread(const struct nvme_cq *cq)
{
	return (cq_used(cq, cq->head) > cq_used(cq, cq->shown));
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

void
nvme_complete(struct nvme_ctrl *c, struct nvme_req *req, int status)
{
	struct nvme_cqe cqe = {
		.result = req->result,
		.sqhd = (uint16_t)req->sq->head,
		.sqid = req->sq->qid,
		.cid = req->cmd.cid,
	};

	if (nvme_unlikely(req->job != NULL))
		nvme_job_leave(req->job);
	if (nvme_unlikely(status != NVME_OK)) {
		nvme_log_error(c, req, status);
		status |= NVME_MORE;
	}
	cqe.status = (uint16_t)(status << 1);
	nvme_cq_post(c, req->cq, &cqe);
	nvme_req_release(req);
}

/* End a command early, if need be when what it has in flight has ended. */
void
nvme_abort(struct nvme_ctrl *c, struct nvme_req *req, int status)
{
	if (req->job != NULL && req->list == NULL) {
		nvme_job_abort(req->job, status);
	} else {
		nvme_req_unqueue(req);
		nvme_complete(c, req, status);
	}
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
	case NVME_NO_ROOM:
		nvme_req_queue(&c->starved, req);
		return;
	case NVME_DRAIN:
		nvme_req_queue(&c->drain, req);
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
		if (nvme_cq_room(cq) == 0 || cq->ring.stuck ||
		    sq->ring.stuck || (req = req_get(sq)) == NULL)
			break;
		if (!nvme_sq_fetch(c, sq, &req->cmd)) {
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
		if (nvme_unlikely(!sq->live || sq->stopping))
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

	if (c->landed) {
		c->landed = false;
		while ((req = TAILQ_FIRST(&c->drain)) != NULL) {
			nvme_req_unqueue(req);
			nvme_req_queue(&c->again, req);
		}
	}
	if (!TAILQ_EMPTY(&c->starved))
		used += nvme_jobs_feed(c);
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
			nvme_cq_unstick(c, cq);
}

/* A queue's memory has been away for too long, if the queue still is there. */
static void
check_missing(struct nvme_ctrl *c)
{
	unsigned int i;

	if (nvme_now() - c->missing < NVME_MISSING_NS)
		return;
	c->missing = 0;
	for (i = 0; i < NVME_QUEUES; i++)
		if ((c->sq[i].live && c->sq[i].ring.stuck) ||
		    (c->cq[i].live && c->cq[i].ring.stuck)) {
			nvme_ctrl_fail(c, "no memory where a queue is");
			return;
		}
}

/* Look at every queue once; returns the work done. */
static unsigned int
pass(struct nvme_ctrl *c, unsigned int budget)
{
	unsigned int i, n, used = 0;

	if (nvme_unlikely(c->retry))
		unstick(c);
	if (nvme_unlikely(c->missing != 0))
		check_missing(c);
	if (nvme_unlikely(!TAILQ_EMPTY(&c->ready)))
		used += nvme_jobs_run(c, budget);
	if (nvme_unlikely(c->landed || !TAILQ_EMPTY(&c->again) ||
	    !TAILQ_EMPTY(&c->starved)))
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
	if (nvme_unlikely(!TAILQ_EMPTY(&c->ready)))
		used += nvme_jobs_run(c, budget);
	if (nvme_unlikely(c->nshows > 0))
		nvme_cqs_show(c);
	return (used);
}

/* The controller has failed: commands end without completions. */
static void
give_up(struct nvme_ctrl *c)
{
	nvme_queues_reset(c, false);
	nvme_shutdown_go_on(c);		/* it may have waited for them */
}

bool
nvme_work(struct nvme_ctrl *c, unsigned int budget, unsigned int spin)
{
	unsigned int used, left = spin;
	bool any = false;

	for (;;) {
		used = nvme_enabled(c) ? pass(c, budget) : 0;
		nvme_intr_update(c);
		if (nvme_unlikely(c->failed))
			give_up(c);
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

int64_t
nvme_deadline(const struct nvme_ctrl *c, uint64_t now)
{
	if (c->missing == 0 || !nvme_enabled(c))
		return (-1);
	if (now - c->missing >= NVME_MISSING_NS)
		return (0);
	return ((int64_t)(NVME_MISSING_NS - (now - c->missing)));
}

/* --- starting and stopping ------------------------------------------------ */

void
nvme_cq_start(struct nvme_ctrl *c, unsigned int qid, mt_addr base,
    uint32_t entries, bool ien, unsigned int vector)
{
	struct nvme_cq *cq = &c->cq[qid];

	nvme_ring_init(&cq->ring, base, entries, NVME_CQE_SHIFT,
	    MT_DMA_WRITE);
	cq->head = 0;
	cq->shown = 0;
	cq->tail = 0;
	cq->reserved = 0;
	cq->bad_head = NOT_BAD;
	cq->vector = (uint16_t)vector;
	cq->nsqs = 0;
	cq->phase = 1;
	cq->ien = ien;
	cq->stopping = false;
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
	sq->stopping = false;
	sq->live = true;
	db_clear(c, qid, false);
	if (qid != 0)
		c->active[c->nactive++] = (uint16_t)qid;
}

/* The guest has deleted a CQ that no SQ uses. */
bool
nvme_cq_stop(struct nvme_ctrl *c, unsigned int qid)
{
	struct nvme_cq *cq = &c->cq[qid];

	cq->stopping = true;
	if (cq->post.busy && !cq->post_stale)
		return (false);
	nvme_cq_forget(cq, false);
	cq->live = false;
	c->intr_dirty = true;
	return (true);
}

/* The guest has deleted an SQ: its commands are aborted. */
bool
nvme_sq_stop(struct nvme_ctrl *c, unsigned int qid)
{
	struct nvme_sq *sq = &c->sq[qid];
	struct nvme_req *req;
	unsigned int i;

	if (!sq->stopping) {
		sq->stopping = true;
		for (i = 0; c->active[i] != qid; i++)
			continue;
		c->nactive--;
		memmove(&c->active[i], &c->active[i + 1],
		    (c->nactive - i) * sizeof(c->active[0]));
	}
	for (req = sq->reqs; req < sq->reqs + NVME_SQ_REQS; req++)
		if (req->busy)
			nvme_abort(c, req, NVME_ABORT_SQ_DELETED);
	if (sq->njobs > 0)
		return (false);
	nvme_sq_forget(sq);
	sq->live = false;
	sq->cq->nsqs--;
	return (true);
}

/* Take the commands of a queue away from whoever is at them. */
static void
sq_clear(struct nvme_sq *sq)
{
	struct nvme_req *req;

	TAILQ_INIT(&sq->free);
	for (req = sq->reqs; req < sq->reqs + NVME_SQ_REQS; req++) {
		if (req->job != NULL)
			nvme_job_leave(req->job);
		req->sq = sq;
		req->list = NULL;
		req->busy = false;
		TAILQ_INSERT_TAIL(&sq->free, req, link);
	}
}

void
nvme_queues_reset(struct nvme_ctrl *c, bool now)
{
	struct nvme_cq *cq;
	struct nvme_sq *sq;
	unsigned int i;

	c->failed = false;
	c->retry = false;
	c->missing = 0;
	c->landed = false;
	TAILQ_INIT(&c->starved);
	TAILQ_INIT(&c->again);
	TAILQ_INIT(&c->drain);
	for (i = 0; i < c->nns; i++) {
		TAILQ_INIT(&c->ns[i]->flush_now);
		TAILQ_INIT(&c->ns[i]->flush_next);
	}
	for (i = 0; i < NVME_QUEUES; i++) {
		sq = &c->sq[i];
		sq_clear(sq);
		nvme_sq_forget(sq);
		sq->live = false;
		sq->qid = (uint16_t)i;
		cq = &c->cq[i];
		nvme_cq_forget(cq, now);
		cq->live = false;
		cq->irq = false;
		cq->showing = false;
		cq->qid = (uint16_t)i;
	}
	nvme_dma_cancel_all(c, (struct mt_range){ 0, MT_LAST_MAX }, now);
	c->nirqs = 0;
	c->nshows = 0;
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

	c->memory_age++;
	nvme_dma_cancel_all(c, range, true);
	for (i = 0; i < NVME_QUEUES; i++) {
		ring_unmap(&c->sq[i].ring, c->sq[i].live, range);
		ring_unmap(&c->cq[i].ring, c->cq[i].live, range);
	}
}

void
nvme_queues_retry(struct nvme_ctrl *c)
{
	unsigned int i;

	c->memory_age++;
	for (i = 0; i < NVME_QUEUES; i++) {
		c->sq[i].ring.slow = c->sq[i].ring.stuck = false;
		c->cq[i].ring.slow = c->cq[i].ring.stuck = false;
	}
	c->retry = true;
	c->missing = 0;
}

void
nvme_queues_stick(struct nvme_ctrl *c)
{
	unsigned int i;

	for (i = 0; i < NVME_QUEUES; i++)
		c->sq[i].ring.stuck = c->cq[i].ring.stuck = true;
}
