/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Where the bytes of memory live; and loads and stores of RAM devices. */

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>

#include "internal.h"

static void
close_keep_errno(int fd)
{
	int saved_errno = errno;

	close(fd);
	errno = saved_errno;
}

/* Memory of our own ends with a page. */
static void
whole_pages(struct mt_region *r)
{
	r->tail = (uint16_t)(sysconf(_SC_PAGESIZE) - 1);
}

/* fd is r's now, or -1. */
static void
set_fd(struct mt_region *r, int fd, off_t off)
{
	r->has_fd = fd != -1;
	if (r->has_fd) {
		r->rare->fd = fd;
		r->rare->fd_off = off;
	}
}

static int
map(struct mt_region *r, int prot, int flags, int fd, off_t off)
{
	size_t len = mt__ptr_len(r);
	void *p;

	if ((p = mmap(NULL, len, prot, flags, fd, off)) == MAP_FAILED)
		return (-1);
	r->ptr = p;
	r->mapped = true;
	r->write_protected = (prot & PROT_WRITE) == 0;
	return (0);
}

/*
 * A memfd may be handed to a peer, who must not be able to pull the pages
 * from under us: hence the seals against changing its size.
 */
static int
init_memfd(struct mt_region *r)
{
	int fd;

	whole_pages(r);
	if (mt__region_rare(r) == -1)
		return (-1);
	fd = memfd_create("memtree", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd == -1)
		return (-1);
	if (ftruncate(fd, (off_t)mt__ptr_len(r)) == -1 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
	    == -1 || map(r, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == -1) {
		close_keep_errno(fd);
		return (-1);
	}
	set_fd(r, fd, 0);
	return (0);
}

static int
init_fd(struct mt_region *r, const struct mt_backing *b)
{
	int fd = -1, prot = PROT_READ;

	if (b->fd_off < 0 || b->fd_off % sysconf(_SC_PAGESIZE) != 0) {
		errno = EINVAL;
		return (-1);
	}
	if ((b->flags & MT_BACKING_RDONLY) == 0)
		prot |= PROT_WRITE;
	if ((b->flags & MT_BACKING_KEEP_FD) != 0 &&
	    (mt__region_rare(r) == -1 ||
	    (fd = fcntl(b->fd, F_DUPFD_CLOEXEC, 0)) == -1))
		return (-1);
	if (map(r, prot, MAP_SHARED, b->fd, b->fd_off) == -1) {
		if (fd != -1)
			close_keep_errno(fd);
		return (-1);
	}
	set_fd(r, fd, b->fd_off);
	return (0);
}

int
mt__ram_init(struct mt_region *r, const struct mt_backing *b)
{
	static const struct mt_backing anon = { .kind = MT_BACKING_ANON };

	if (b == NULL)
		b = &anon;
	r->max_last = b->max_last != 0 ? b->max_last : r->state.last;
	/* Whole pages of it have to fit as well. */
	if (r->max_last >= PTRDIFF_MAX - 65536) {
		errno = EFBIG;
		return (-1);
	}
	if (r->max_last < r->state.last ||
	    (b->flags & ~(MT_BACKING_RDONLY | MT_BACKING_KEEP_FD)) != 0) {
		errno = EINVAL;
		return (-1);
	}
	switch (b->kind) {
	case MT_BACKING_ANON:
		whole_pages(r);
		return (map(r, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
	case MT_BACKING_MEMFD:
		return (init_memfd(r));
	case MT_BACKING_PTR:
		if (b->ptr == NULL)
			break;
		r->ptr = b->ptr;
		r->write_protected = (b->flags & MT_BACKING_RDONLY) != 0;
		return (0);
	case MT_BACKING_FD:
		return (init_fd(r, b));
	}
	errno = EINVAL;
	return (-1);
}

void
mt__ram_fini(struct mt_region *r)
{
	if (r->mapped)
		munmap(r->ptr, mt__ptr_len(r));
	if (r->has_fd)
		close(r->rare->fd);
}

/* --- RAM devices --------------------------------------------------------- */

/*
 * Atomic, so that no access is torn; volatile, because reading or writing may
 * do something there: each access is made once, in the width that it has.
 */
#define PLACE(bits)	((volatile uint##bits##_t *)((uintptr_t)arg + off))
#define LOAD(bits)	__atomic_load_n(PLACE(bits), __ATOMIC_RELAXED)
#define STORE(bits)							\
	__atomic_store_n(PLACE(bits), (uint##bits##_t)val, __ATOMIC_RELAXED)

static enum mt_result
ram_device_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)attrs;
	*val = size == 1 ? LOAD(8) : size == 2 ? LOAD(16) :
	    size == 4 ? LOAD(32) : LOAD(64);
	return (MT_OK);
}

static enum mt_result
ram_device_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)attrs;
	if (size == 1)
		STORE(8);
	else if (size == 2)
		STORE(16);
	else if (size == 4)
		STORE(32);
	else
		STORE(64);
	return (MT_OK);
}

/* Bytes stay in the order that they have there: that of the host. */
const struct mt_io_ops mt__ram_device_ops = {
	.read = ram_device_read,
	.write = ram_device_write,
	.endian = MT_HOST,
	.valid = { .min = 1, .max = 8 },
	.impl = { .min = 1, .max = 8 },
};
