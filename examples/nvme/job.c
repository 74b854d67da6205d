/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Commands whose memory cannot be mapped, but is reached by messages to the
 * client.  A job moves the data of one:
 *
 *	           no room: c->starved
 *	command ──────────┬───────────► WALK ◄──────────┐
 *	   (its data is in buf, or      │  │ read a     │
 *	    has a place in buf)         │  ▼ piece of   │
 *	                                │ LIST a list ──┘
 *	           all memory is known  ▼
 *	                               MOVE  up to NVME_JOB_DMA segments at once,
 *	                                │    each one access to guest memory
 *	            none is in flight   ▼
 *	                               OVER  the command is executed again, and
 *	                                     nvme_xfer() finds the job
 *
 * In each state an error, or an abort, leads to OVER as soon as nothing is in
 * flight.  A reset takes the command away; the job is then freed as soon as
 * nothing is in flight.
 *
 * The end of an access only queues its job in c->ready: it may come while a
 * client waits for its answer, or inside what began it.  What follows from it
 * is done by nvme_jobs_run().
 *
 * What a job may write to the blocks is in buf until all of it has come, so a
 * write that fails leaves the blocks alone.
 */

#include <stdlib.h>

#include "nvme.h"

enum state { WALK, LIST, MOVE, OVER };

struct part {
	struct nvme_dma dma;		/* first: see landed() */
	struct nvme_job *job;
};

struct nvme_job {
	struct nvme_ctrl *c;
	struct nvme_req *req;		/* NULL: taken away */
	TAILQ_ENTRY(nvme_job) link;	/* in c->ready, or c->idle_jobs */
	bool ready;
	bool going;			/* in go() */
	enum state state;
	int status;
	unsigned int dir;
	size_t len;
	uint8_t *buf;			/* ours; NULL: the data is elsewhere */
	uint8_t *next;			/* the data not yet begun with, */
	unsigned int seg;		/*   and where its memory is */
	unsigned int pending;		/* parts in flight */
	struct part parts[NVME_JOB_DMA];
	struct nvme_walk walk;
};

/* --- allocation ----------------------------------------------------------- */

static bool
has_room(const struct nvme_ctrl *c, size_t len)
{
	return (c->njobs < NVME_JOBS && c->job_bytes + len <= NVME_JOB_BYTES);
}

static struct nvme_job *
job_get(struct nvme_ctrl *c, size_t len)
{
	struct nvme_job *job = TAILQ_FIRST(&c->idle_jobs);
	unsigned int i;

	if (job != NULL) {
		TAILQ_REMOVE(&c->idle_jobs, job, link);
	} else {
		if ((job = calloc(1, sizeof(*job))) == NULL)
			return (NULL);
		job->c = c;
		for (i = 0; i < NVME_JOB_DMA; i++)
			job->parts[i].job = job;
	}
	job->req = NULL;
	job->ready = false;
	job->going = false;
	job->state = WALK;
	job->status = NVME_OK;
	job->len = len;
	job->buf = NULL;
	job->seg = 0;
	job->pending = 0;
	c->njobs++;
	c->job_bytes += len;
	return (job);
}

static void
job_put(struct nvme_job *job)
{
	struct nvme_ctrl *c = job->c;

	if (job->req != NULL) {
		job->req->job = NULL;
		job->req->sq->njobs--;
	}
	if (job->ready)
		TAILQ_REMOVE(&c->ready, job, link);
	free(job->buf);
	c->njobs--;
	c->job_bytes -= job->len;
	c->landed = true;
	TAILQ_INSERT_HEAD(&c->idle_jobs, job, link);
}

void
nvme_jobs_fini(struct nvme_ctrl *c)
{
	struct nvme_job *job;

	while ((job = TAILQ_FIRST(&c->idle_jobs)) != NULL) {
		TAILQ_REMOVE(&c->idle_jobs, job, link);
		free(job);
	}
}

/* --- the way of a job ----------------------------------------------------- */

static void
make_ready(struct nvme_job *job)
{
	if (job->ready || job->going)
		return;
	job->ready = true;
	TAILQ_INSERT_TAIL(&job->c->ready, job, link);
}

/* A part has ended. */
static void
landed(struct nvme_dma *d, enum mt_result res)
{
	struct nvme_job *job = ((struct part *)d)->job;

	job->pending--;
	if (res != MT_OK && job->status == NVME_OK)
		job->status = NVME_DATA_TRANSFER;
	if (job->req == NULL && job->pending == 0)
		job_put(job);
	else if (job->req != NULL)
		make_ready(job);
}

static bool
start(struct nvme_job *job, struct part *part, mt_addr addr, void *buf,
    size_t len, bool is_write)
{
	job->pending++;
	if (nvme_dma_start(job->c, &part->dma, addr, buf, len, is_write,
	    landed) == 0)
		return (true);
	job->pending--;
	job->status = NVME_INTERNAL;
	return (false);
}

/* Begin with the next segment; false if that has to wait, or was the last. */
static bool
move_one(struct nvme_job *job)
{
	const struct nvme_seg *seg = &job->walk.v[job->seg];
	unsigned int i;

	for (i = 0; i < NVME_JOB_DMA && job->parts[i].dma.busy; i++)
		continue;
	if (i == NVME_JOB_DMA || job->seg == job->walk.n ||
	    !start(job, &job->parts[i], seg->addr, job->next, seg->len,
	    job->dir == MT_DMA_WRITE))
		return (false);
	job->next += seg->len;
	job->seg++;
	return (true);
}

/* One step; false if there is none before a part has ended. */
static bool
step(struct nvme_job *job)
{
	struct nvme_walk *w = &job->walk;

	if (job->status != NVME_OK)
		return (false);
	switch (job->state) {
	case WALK:
		if (w->bytes == 0) {
			job->state = MOVE;
			return (true);
		}
		job->state = LIST;
		return (start(job, &job->parts[0], w->addr, &w->list,
		    w->bytes, false));
	case LIST:
		if (job->pending > 0)
			return (false);
		job->status = nvme_walk_feed(job->c, w);
		job->state = WALK;
		return (true);
	case MOVE:
		return (move_one(job));
	default:
		return (false);
	}
}

/* Go as far as it can be gone without waiting. */
static void
go(struct nvme_job *job)
{
	job->going = true;
	while (step(job))
		continue;
	job->going = false;
	if (job->pending > 0)
		return;
	job->state = OVER;
	nvme_exec(job->c, job->req);
}

unsigned int
nvme_jobs_run(struct nvme_ctrl *c, unsigned int budget)
{
	struct nvme_job *job;
	unsigned int used = 0;

	while (used < budget && (job = TAILQ_FIRST(&c->ready)) != NULL) {
		TAILQ_REMOVE(&c->ready, job, link);
		job->ready = false;
		c->moved = 0;
		go(job);
		used += NVME_COST_COMMAND +
		    (unsigned int)(c->moved >> NVME_COST_SHIFT);
	}
	return (used);
}

/* --- for the commands ----------------------------------------------------- */

int
nvme_job_start(struct nvme_ctrl *c, struct nvme_req *req,
    const struct nvme_xfer *x)
{
	struct nvme_job *job;
	struct iovec iov;
	int status = NVME_INTERNAL;

	/* Who came before and needs more is not overtaken. */
	if (!has_room(c, x->len) ||
	    (!TAILQ_EMPTY(&c->starved) && !c->feeding)) {
		req->need = x->len;
		return (NVME_NO_ROOM);
	}
	if ((job = job_get(c, x->len)) == NULL)
		return (NVME_INTERNAL);
	job->dir = x->dir;
	job->next = x->mem;
	if (x->mem == NULL) {
		if ((job->next = job->buf = malloc(x->len)) == NULL)
			goto fail;
		iov = (struct iovec){ job->buf, x->len };
		status = x->dir == MT_DMA_WRITE ?
		    x->fn(x->arg, &iov, 1, 0, x->len) : NVME_OK;
		if (status != NVME_OK)
			goto fail;
	}
	status = nvme_walk_begin(c, &job->walk, &req->cmd, x->len);
	if (status != NVME_OK)
		goto fail;
	job->req = req;
	req->job = job;
	req->sq->njobs++;
	make_ready(job);
	return (NVME_LATER);
fail:
	job_put(job);
	return (status);
}

int
nvme_job_end(struct nvme_ctrl *c, struct nvme_req *req,
    const struct nvme_xfer *x)
{
	struct nvme_job *job = req->job;
	struct iovec iov = { job->buf, job->len };
	int status = job->status;

	if (status == NVME_OK && job->dir == MT_DMA_READ)
		status = x->fn(x->arg, &iov, 1, 0, job->len);
	if (status == NVME_OK)
		c->stats.by_message++;
	c->moved += job->len;
	job_put(job);
	if (c->njobs == 0)
		nvme_shutdown_go_on(c);
	return (status);
}

/* What is written to guest memory may be on its way: that is waited for. */
void
nvme_job_abort(struct nvme_job *job, int status)
{
	unsigned int i;

	if (job->status == NVME_OK)
		job->status = status;
	for (i = 0; i < NVME_JOB_DMA; i++)
		if (!job->parts[i].dma.is_write)
			nvme_dma_cancel(&job->parts[i].dma);
	make_ready(job);
}

void
nvme_job_leave(struct nvme_job *job)
{
	job->req->job = NULL;
	job->req->sq->njobs--;
	job->req = NULL;
	if (job->pending == 0) {
		job_put(job);
	} else if (job->ready) {
		TAILQ_REMOVE(&job->c->ready, job, link);
		job->ready = false;
	}
}

unsigned int
nvme_jobs_feed(struct nvme_ctrl *c)
{
	struct nvme_req *req;
	unsigned int used = 0;

	c->feeding = true;
	while ((req = TAILQ_FIRST(&c->starved)) != NULL &&
	    has_room(c, req->need)) {
		nvme_req_unqueue(req);
		nvme_exec(c, req);
		used += NVME_COST_COMMAND;
	}
	c->feeding = false;
	return (used);
}
