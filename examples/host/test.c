/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The test: a pattern is written to a namespace through all queues, read back
 * and compared.
 */

#include <err.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host.h"

#define DEFAULT_SIZE	((uint64_t)64 << 20)

/* --- the pattern --------------------------------------------------------- */

static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return (x ^ x >> 31);
}

/* What belongs at off: every word of the disk has its own value. */
static void
pattern(uint64_t seed, uint32_t nsid, uint64_t off, void *buf, size_t len)
{
	uint64_t *p = buf, base = mix(seed + nsid) + off;

	for (size_t i = 0; i < len / 8; i++)
		p[i] = mix(base + 8 * i);
}

/* A sum that does not depend on the order in which commands complete. */
static uint64_t
checksum(const void *buf, size_t len, uint64_t off)
{
	const uint64_t *p = buf;
	uint64_t sum = off;

	for (size_t i = 0; i < len / 8; i++)
		sum = (sum ^ p[i]) * 0x9e3779b97f4a7c15u;
	return (mix(sum));
}

/* --- reading and writing ------------------------------------------------- */

/* One pass over a namespace. */
struct pass {
	struct host *h;
	const struct namespace *ns;
	const char *name;
	uint8_t opcode;
	uint64_t size;			/* bytes to do */
	uint64_t next;			/* of them submitted */
	uint64_t done;			/* of them completed */
	uint64_t commands;
	uint64_t sum;
	uint64_t bad;			/* bytes that differ */
	double start;
	double shown;			/* last progress; -1: no terminal */
};

/*
 * Name the pages of a buffer: two fit in the command, more go to a list, whose
 * last entry in a page points to where it goes on if it does.
 */
static void
set_prps(struct host *h, struct nvme_cmd *e, const struct slot *slot)
{
	struct mem *m = &h->mem;
	size_t data = slot->data, list = slot->list;
	size_t first = HOST_PAGE - data % HOST_PAGE, pages;

	e->prp1 = mem_iova(m, data);
	if (slot->len <= first)
		return;
	pages = (slot->len - first + HOST_PAGE - 1) / HOST_PAGE;
	data += first;
	if (pages == 1) {
		e->prp2 = mem_iova(m, data);
		return;
	}
	e->prp2 = mem_iova(m, list);
	for (; pages > 0; list += 8) {
		uint64_t *entry = mem_ptr(h, list);

		if (pages > 1 && list % HOST_PAGE == HOST_PAGE - 8) {
			*entry = mem_iova(m, list + 8);
			continue;
		}
		*entry = mem_iova(m, data);
		data += HOST_PAGE;
		pages--;
	}
}

static void
submit(struct pass *p, struct queue *q)
{
	struct host *h = p->h;
	uint16_t cid = q->idle[--q->nr_idle];
	struct slot *slot = &q->slots[cid];
	struct nvme_cmd e = { .opcode = p->opcode, .cid = cid,
	    .nsid = p->ns->id };
	uint64_t lba = p->next >> p->ns->shift, left = p->size - p->next;
	void *data = mem_ptr(h, slot->data);

	slot->off = p->next;
	slot->len = left < h->block ? (size_t)left : h->block;
	slot->busy = true;
	p->next += slot->len;
	if (p->opcode == NVME_IO_WRITE) {
		pattern(h->opt.seed, p->ns->id, slot->off, data, slot->len);
		p->sum += checksum(data, slot->len, slot->off);
	} else {
		/* What is not read must not look as if it were. */
		memset(data, 0xdb, slot->len);
	}
	set_prps(h, &e, slot);
	e.cdw10 = (uint32_t)lba;
	e.cdw11 = (uint32_t)(lba >> 32);
	e.cdw12 = (uint32_t)(slot->len >> p->ns->shift) - 1;
	queue_put(h, q, &e);
}

/* Compare what was read, byte by byte where it differs. */
static void
compare(struct pass *p, const struct slot *slot)
{
	const uint8_t *got = mem_ptr(p->h, slot->data), *want = p->h->expect;

	p->sum += checksum(got, slot->len, slot->off);
	pattern(p->h->opt.seed, p->ns->id, slot->off, p->h->expect, slot->len);
	if (memcmp(got, want, slot->len) == 0)
		return;
	for (size_t i = 0; i < slot->len; i++) {
		if (got[i] == want[i])
			continue;
		if (p->bad++ == 0)
			warnx("namespace %u, byte %ju: read 0x%02x, wrote "
			    "0x%02x", p->ns->id, (uintmax_t)(slot->off + i),
			    got[i], want[i]);
	}
}

/* Take what has completed on a queue. */
static bool
reap(struct pass *p, struct queue *q)
{
	struct nvme_cqe e;
	bool any = false;

	while (queue_take(p->h, q, &e)) {
		uint16_t cid = e.cid;

		if (cid >= q->entries - 1 || !q->slots[cid].busy)
			errx(1, "%s: queue %u completes command %u, which "
			    "was not sent", p->name, q->id, cid);
		check_status(p->name, e.status);
		if (p->opcode == NVME_IO_READ)
			compare(p, &q->slots[cid]);
		q->slots[cid].busy = false;
		q->idle[q->nr_idle++] = cid;
		p->done += q->slots[cid].len;
		p->commands++;
		any = true;
	}
	if (any)
		doorbell_ring(p->h, 2 * q->id + 1, q->head);
	return (any);
}

static void
show_progress(struct pass *p)
{
	double t;

	if (p->shown < 0 || (t = now()) - p->shown < 0.1)
		return;
	p->shown = t;
	fprintf(stderr, "\r%-5s namespace %u: %3.0f%%, %.0f MiB/s ", p->name,
	    p->ns->id, 100.0 * (double)p->done / (double)p->size,
	    (double)p->done / (1 << 20) / (t - p->start));
}

static void
run_pass(struct pass *p)
{
	struct host *h = p->h;
	struct host_idle idle = { 0 };
	char size[8];
	double t;

	p->shown = isatty(STDERR_FILENO) ? 0 : -1;
	p->start = now();
	while (p->done < p->size) {
		bool any = false;

		for (unsigned int i = 0; i < h->nr_queues; i++) {
			struct queue *q = &h->queues[i];

			while (q->nr_idle > 0 && p->next < p->size)
				submit(p, q);
			queue_ring(h, q);
		}
		for (unsigned int i = 0; i < h->nr_queues; i++)
			any |= reap(p, &h->queues[i]);
		if (any)
			idle = (struct host_idle){ 0 };
		else
			host_wait(h, &idle);
		show_progress(p);
	}
	t = now() - p->start;
	if (p->shown >= 0)
		fprintf(stderr, "\r%50s\r", "");
	printf("%-11s namespace %u: %s in %.3f s, %.0f MiB/s, %.0f IOPS\n",
	    p->name, p->ns->id, human(p->size, size), t,
	    (double)p->size / (1 << 20) / t, (double)p->commands / t);
}

static void
flush(struct host *h, const struct namespace *ns)
{
	struct nvme_cmd e = { .opcode = NVME_IO_FLUSH, .nsid = ns->id };
	struct queue *q = &h->queues[0];
	struct host_idle idle = { 0 };
	struct nvme_cqe done;

	queue_put(h, q, &e);
	queue_ring(h, q);
	while (!queue_take(h, q, &done))
		host_wait(h, &idle);
	doorbell_ring(h, 2 * q->id + 1, q->head);
	check_status("flush", done.status);
}

/* Write, flush, read back; true if every byte came back. */
bool
test_namespace(struct host *h, const struct namespace *ns)
{
	uint64_t size = ns->blocks << ns->shift;
	uint64_t want = h->opt.size != 0 ? h->opt.size : DEFAULT_SIZE;
	struct pass p = { .h = h, .ns = ns, .name = "write",
	    .opcode = NVME_IO_WRITE };
	uint64_t sum;
	char text_size[8];

	if (size > want)
		size = want >> ns->shift << ns->shift;
	if (size == 0)
		errx(1, "--size is less than a block of %u bytes",
		    1u << ns->shift);
	p.size = size;
	run_pass(&p);
	sum = p.sum;
	flush(h, ns);
	p = (struct pass){ .h = h, .ns = ns, .name = "read",
	    .opcode = NVME_IO_READ, .size = size };
	run_pass(&p);
	if (p.bad != 0 || p.sum != sum) {
		printf("compare     namespace %u: %ju bytes of %ju differ; "
		    "checksum %016jx, wrote %016jx\n", ns->id,
		    (uintmax_t)p.bad, (uintmax_t)size, (uintmax_t)p.sum,
		    (uintmax_t)sum);
		return (false);
	}
	printf("compare     namespace %u: %s, every byte as written, "
	    "checksum %016jx\n", ns->id, human(size, text_size),
	    (uintmax_t)sum);
	return (true);
}

