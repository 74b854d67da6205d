/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Queues: commands put in, completions taken out, and waiting for them.
 */

#include <err.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host.h"

#define IDLE_MAX	10.0	/* seconds without a completion: give up */

/* --- waiting ------------------------------------------------------------- */

double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (ts.tv_sec + ts.tv_nsec / 1e9);
}

/* Memory never tells us that the server is gone, or the controller unwell. */
static void
check_alive(struct host *h)
{
	if (reg_read(h, NVME_REG_CSTS, 4) & NVME_CSTS_CFS)
		errx(1, "the controller reports a fatal error");
}

/*
 * Nothing has completed: sleep until an interrupt comes, or a moment.  Now and
 * then see whether anybody is there at all.
 */
void
host_wait(struct host *h, struct host_idle *idle)
{
	const struct timespec nap = { .tv_nsec = 20000 };
	double t;

	mem_serve(h);
	if (h->nr_vectors > 0) {
		struct pollfd pfd[MAX_VECTORS + VD_CLIENT_FDS];
		unsigned int n = h->nr_vectors, more = 0;
		int fds[VD_CLIENT_FDS];

		for (unsigned int i = 0; i < n; i++)
			pfd[i] = (struct pollfd){ .fd = h->irq_fds[i],
			    .events = POLLIN };
		if (h->opt.private)
			more = (unsigned int)vd_client_fds(h->client, fds);
		for (unsigned int i = 0; i < more; i++)
			pfd[n + i] = (struct pollfd){ .fd = fds[i],
			    .events = POLLIN };
		if (poll(pfd, n + more, 500) == -1 && errno != EINTR)
			err(1, "poll");
		for (unsigned int i = 0; i < n; i++) {
			uint64_t count;

			if (pfd[i].revents != 0 && read(pfd[i].fd, &count,
			    sizeof(count)) == -1 && errno != EAGAIN)
				err(1, "eventfd");
		}
	} else if (++idle->spins < 200)
		sched_yield();
	else
		nanosleep(&nap, NULL);
	mem_serve(h);

	t = now();
	if (idle->since == 0)
		idle->since = idle->checked = t;
	if (t - idle->checked < 0.25)
		return;
	idle->checked = t;
	check_alive(h);
	if (t - idle->since > IDLE_MAX)
		errx(1, "no command completed for %.0f seconds", IDLE_MAX);
}

/* --- one queue ----------------------------------------------------------- */

void
queue_init(struct host *h, struct queue *q, unsigned int id,
    unsigned int entries)
{
	*q = (struct queue){ .id = id, .entries = entries, .phase = 1 };
	q->sq = mem_alloc(&h->mem, entries * sizeof(struct nvme_cmd), true);
	q->cq = mem_alloc(&h->mem, entries * sizeof(struct nvme_cqe), true);
}

/*
 * Give a queue's commands their buffers.  Every other buffer starts inside a
 * page, and half of the PRP lists near the end of one, so that they have to be
 * continued in the next.
 */
static void
queue_init_slots(struct host *h, struct queue *q)
{
	unsigned int n = q->entries - 1;

	q->slots = calloc(n, sizeof(*q->slots));
	q->idle = calloc(n, sizeof(*q->idle));
	if (q->slots == NULL || q->idle == NULL)
		err(1, NULL);
	for (unsigned int i = 0; i < n; i++) {
		q->slots[i].data = mem_alloc(&h->mem, h->block + HOST_PAGE,
		    false) + (i & 1 ? 512 : 0);
		q->slots[i].list = mem_alloc(&h->mem, 2 * HOST_PAGE, false) +
		    (i & 2 ? HOST_PAGE - 32 : 0);
		q->idle[i] = (uint16_t)(n - 1 - i);
	}
	q->nr_idle = n;
}

static void
queue_fini(struct queue *q)
{
	free(q->slots);
	free(q->idle);
}

/* Place a command; the controller is told by queue_ring(). */
void
queue_put(struct host *h, struct queue *q, const struct nvme_cmd *e)
{
	struct nvme_cmd *sq = mem_ptr(h, q->sq);

	sq[q->tail] = *e;
	q->tail = (q->tail + 1) % q->entries;
}

void
queue_ring(struct host *h, struct queue *q)
{
	if (q->rung == q->tail)
		return;
	q->rung = q->tail;
	doorbell_ring(h, 2 * q->id, q->tail);
}

/*
 * Take the next completion if there is one.  Its phase bit says so, and is
 * read before the rest.
 */
bool
queue_take(struct host *h, struct queue *q, struct nvme_cqe *out)
{
	struct nvme_cqe *e = (struct nvme_cqe *)mem_ptr(h, q->cq) + q->head;
	uint16_t status = __atomic_load_n(&e->status, __ATOMIC_ACQUIRE);

	if ((status & 1) != q->phase)
		return (false);
	*out = *e;
	out->status = status >> 1;
	if (++q->head == q->entries) {
		q->head = 0;
		q->phase ^= 1;
	}
	return (true);
}

void
check_status(const char *what, uint16_t status)
{
	if (NVME_STATUS_CODE(status) != NVME_OK)
		errx(1, "%s: status code type %u, code 0x%02x%s", what,
		    status >> 8 & 7, status & 0xff,
		    status & NVME_DNR ? ", do not retry" : "");
}

uint32_t
admin_run(struct host *h, struct nvme_cmd *e, const char *what)
{
	struct host_idle idle = { 0 };
	struct nvme_cqe done;

	e->cid = (uint16_t)h->admin.tail;
	queue_put(h, &h->admin, e);
	queue_ring(h, &h->admin);
	while (!queue_take(h, &h->admin, &done))
		host_wait(h, &idle);
	doorbell_ring(h, 1, h->admin.head);
	if (done.cid != e->cid)
		errx(1, "%s: completion of a command that was not sent", what);
	check_status(what, done.status);
	return (done.result);
}

const void *
identify(struct host *h, unsigned int cns, uint32_t nsid, const char *what)
{
	struct nvme_cmd e = { .opcode = NVME_ADM_IDENTIFY, .nsid = nsid,
	    .prp1 = mem_iova(&h->mem, h->scratch), .cdw10 = cns };

	memset(mem_ptr(h, h->scratch), 0, HOST_PAGE);
	admin_run(h, &e, what);
	return (mem_ptr(h, h->scratch));
}

/* --- all of them --------------------------------------------------------- */

/* Ask for queues; the controller may grant fewer, or more. */
void
queues_negotiate(struct host *h)
{
	uint32_t want = h->opt.queues - 1, got, least;
	struct nvme_cmd e = { .opcode = NVME_ADM_SET_FEATURES,
	    .cdw10 = NVME_FEAT_QUEUES, .cdw11 = want << 16 | want };

	got = admin_run(h, &e, "number of queues");
	least = ((got & 0xffff) < got >> 16 ? got & 0xffff : got >> 16) + 1;
	h->nr_queues = least < h->opt.queues ? least : h->opt.queues;
}

void
queues_create(struct host *h)
{
	unsigned int most = (h->cap & 0xffff) + 1;
	unsigned int entries = h->opt.depth + 1;

	h->queues = calloc(h->nr_queues, sizeof(*h->queues));
	h->expect = malloc(h->block);
	if (h->queues == NULL || h->expect == NULL)
		err(1, NULL);
	for (unsigned int i = 0; i < h->nr_queues; i++) {
		struct queue *q = &h->queues[i];
		uint32_t vector = h->nr_vectors < 2 ? 0 :
		    1 + i % (h->nr_vectors - 1);
		struct nvme_cmd e = { .opcode = NVME_ADM_CREATE_CQ };

		queue_init(h, q, i + 1, entries < most ? entries : most);
		queue_init_slots(h, q);
		e.prp1 = mem_iova(&h->mem, q->cq);
		e.cdw10 = (q->entries - 1) << 16 | q->id;
		e.cdw11 = vector << 16 | (h->nr_vectors > 0 ? 2u : 0) | 1;
		admin_run(h, &e, "create completion queue");
		e = (struct nvme_cmd){ .opcode = NVME_ADM_CREATE_SQ };
		e.prp1 = mem_iova(&h->mem, q->sq);
		e.cdw10 = (q->entries - 1) << 16 | q->id;
		e.cdw11 = q->id << 16 | 1;
		admin_run(h, &e, "create submission queue");
	}
}

void
queues_delete(struct host *h)
{
	for (unsigned int i = h->nr_queues; i-- > 0;) {
		struct nvme_cmd e = { .opcode = NVME_ADM_DELETE_SQ,
		    .cdw10 = i + 1 };

		admin_run(h, &e, "delete submission queue");
		e.opcode = NVME_ADM_DELETE_CQ;
		admin_run(h, &e, "delete completion queue");
		queue_fini(&h->queues[i]);
	}
	free(h->queues);
	free(h->expect);
}
