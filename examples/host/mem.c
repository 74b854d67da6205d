/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The memory that the controller may use: one memfd, shown on the bus in
 * segments whose addresses run backwards and have gaps between them, so that
 * what is contiguous here is not contiguous there, as in a real machine.
 *
 * Private memory is in no file, so the controller cannot map it: it asks us to
 * read and write it, which we do while we wait.
 */

#include <err.h>
#include <string.h>

#include "host.h"

#define IOVA_BASE	((uint64_t)4 << 30)
#define IOVA_STEP	(2 * HOST_SEGMENT)
#define MEM_MAX		((size_t)1 << 30)

uint64_t
mem_iova(const struct mem *m, size_t at)
{
	size_t last = m->len / HOST_SEGMENT - 1;

	return (IOVA_BASE + (last - at / HOST_SEGMENT) * IOVA_STEP +
	    at % HOST_SEGMENT);
}

void *
mem_ptr(struct host *h, size_t off)
{
	return (h->mem.base + off);
}

/*
 * Hand out whole pages.  A queue must be contiguous for the controller, so it
 * must not cross into another segment.
 */
size_t
mem_alloc(struct mem *m, size_t len, bool contiguous)
{
	size_t at = m->used;

	len = (len + HOST_PAGE - 1) / HOST_PAGE * HOST_PAGE;
	if (contiguous && at / HOST_SEGMENT != (at + len - 1) / HOST_SEGMENT)
		at = (at / HOST_SEGMENT + 1) * HOST_SEGMENT;
	if (at + len > m->len)
		errx(1, "out of memory for the controller");
	m->used = at + len;
	return (at);
}

static void
failed(void *arg, bool unmap, struct mt_range range, int error)
{
	(void)arg;
	errx(1, "DMA %s of 0x%jx: %s", unmap ? "unmap" : "map",
	    (uintmax_t)range.first, strerror(error));
}

void
mem_create(struct host *h, size_t len)
{
	static const struct vd_client_dma_ops ops = { .failed = failed };
	const struct mt_backing backing = { .kind = h->opt.private ?
	    MT_BACKING_ANON : MT_BACKING_MEMFD };
	struct mem *m = &h->mem;

	len = (len + HOST_SEGMENT - 1) / HOST_SEGMENT * HOST_SEGMENT;
	if (len > MEM_MAX)
		errx(1, "%zu MiB of buffers are too many: "
		    "ask for less depth, queues or block", len >> 20);
	if (len / HOST_SEGMENT > h->limits.max_dma_maps)
		errx(1, "the server takes only %ju DMA maps",
		    (uintmax_t)h->limits.max_dma_maps);
	m->len = len;
	m->ram = mt_region_create_ram(h->topology, "memory", MT_SIZE(len),
	    &backing);
	if (m->ram == NULL)
		err(1, "memory of %zu bytes", len);
	m->base = mt_region_ptr(m->ram);
	for (size_t at = 0; at < len; at += HOST_SEGMENT) {
		struct mt_region *part = mt_region_create_alias(h->topology,
		    "segment", m->ram, at, MT_SIZE(HOST_SEGMENT));

		if (part == NULL || mt_region_add(h->root, part,
		    mem_iova(m, at), 0) == -1)
			err(1, "memory");
		mt_region_put(part);
	}
	if (h->opt.private)
		vd_client_set_dma(h->client, h->bus);
	m->dma = vd_client_dma_create(h->client, h->bus, &ops, NULL);
	if (m->dma == NULL)
		err(1, "memory for the controller");
}

void
mem_serve(struct host *h)
{
	int did;

	if (!h->opt.private)
		return;
	while ((did = vd_client_run(h->client)) == 1)
		continue;
	if (did == -1)
		errx(1, "the server is gone");
}

/* The segments are the bus's, and go with it. */
void
mem_destroy(struct host *h)
{
	vd_client_dma_destroy(h->mem.dma);
	vd_client_set_dma(h->client, NULL);
	mt_region_put(h->mem.ram);
}
