/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The memory that the controller may use: one memfd, given to it in segments
 * whose addresses run backwards and have gaps between them, so that what is
 * contiguous here is not contiguous there, as in a real machine.
 */

#include <sys/mman.h>

#include <err.h>
#include <unistd.h>

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

void
mem_create(struct host *h, size_t len)
{
	struct mem *m = &h->mem;

	len = (len + HOST_SEGMENT - 1) / HOST_SEGMENT * HOST_SEGMENT;
	if (len > MEM_MAX)
		errx(1, "%zu MiB of buffers are too many: "
		    "ask for less depth, queues or block", len >> 20);
	if (len / HOST_SEGMENT > h->limits.max_dma_maps)
		errx(1, "the server takes only %ju DMA maps",
		    (uintmax_t)h->limits.max_dma_maps);
	m->len = len;
	m->fd = memfd_create("nvme-host", MFD_CLOEXEC);
	if (m->fd == -1 || ftruncate(m->fd, (off_t)len) == -1)
		err(1, "memfd of %zu bytes", len);
	m->base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd,
	    0);
	if (m->base == MAP_FAILED)
		err(1, "mmap");
	for (size_t at = 0; at < len; at += HOST_SEGMENT)
		if (vd_client_dma_map(h->client, mem_iova(m, at), HOST_SEGMENT,
		    VD_DMA_READABLE | VD_DMA_WRITABLE, m->fd, at) == -1)
			err(1, "DMA map of 0x%jx", (uintmax_t)mem_iova(m, at));
}

void
mem_destroy(struct host *h)
{
	struct mem *m = &h->mem;

	for (size_t at = 0; at < m->len; at += HOST_SEGMENT)
		if (vd_client_dma_unmap(h->client, mem_iova(m, at),
		    HOST_SEGMENT) == -1)
			err(1, "DMA unmap of 0x%jx",
			    (uintmax_t)mem_iova(m, at));
	munmap(m->base, m->len);
	close(m->fd);
}
