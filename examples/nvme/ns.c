/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Namespaces: blocks in memory, or in a file or block device.
 */

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nvme.h"

#define PAGE		((uint64_t)4096)
/* Less than this is sooner cleared than given back and faulted in again. */
#define DONTNEED_MIN	((uint64_t)64 << 10)

/* --- creation ------------------------------------------------------------- */

static struct nvme_ns *
ns_create(unsigned int shift)
{
	struct nvme_ns *ns;

	if ((ns = calloc(1, sizeof(*ns))) == NULL)
		return (NULL);
	ns->shift = shift;
	ns->fd = -1;
	TAILQ_INIT(&ns->flush_now);
	TAILQ_INIT(&ns->flush_next);
	return (ns);
}

struct nvme_ns *
nvme_ns_ram(uint64_t size, unsigned int shift)
{
	struct nvme_ns *ns;

	if (size == 0 || size % (1u << shift) != 0 || size > PTRDIFF_MAX) {
		errno = EINVAL;
		return (NULL);
	}
	if ((ns = ns_create(shift)) == NULL)
		return (NULL);
	ns->ram_len = size;
	ns->ram = mmap(NULL, ns->ram_len, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ns->ram == MAP_FAILED) {
		free(ns);
		return (NULL);
	}
	/* Fewer faults and TLB misses; it works as well without. */
	madvise(ns->ram, ns->ram_len, MADV_HUGEPAGE);
	ns->blocks = size >> shift;
	return (ns);
}

/* Open what must be a file or block device that nobody else serves. */
static int
ns_open(const char *path, uint64_t *size)
{
	struct stat st;
	off_t end;
	int error, fd;

	fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd == -1)
		return (-1);
	if (fstat(fd, &st) == -1)
		goto fail;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		errno = ENOTBLK;
		goto fail;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) == -1) {
		if (errno == EWOULDBLOCK)
			errno = EBUSY;
		goto fail;
	}
	if ((end = lseek(fd, 0, SEEK_END)) == -1)
		goto fail;
	*size = (uint64_t)end;
	return (fd);
fail:
	error = errno;
	close(fd);
	errno = error;
	return (-1);
}

struct nvme_ns *
nvme_ns_file(const char *path, unsigned int shift)
{
	struct nvme_ns *ns;
	uint64_t size;
	int error;

	if ((ns = ns_create(shift)) == NULL)
		return (NULL);
	if ((ns->fd = ns_open(path, &size)) == -1)
		goto fail;
	ns->blocks = size >> shift;
	if (ns->blocks == 0) {
		errno = ENOSPC;
		goto fail;
	}
	if ((ns->path = strdup(path)) == NULL)
		goto fail;
	return (ns);
fail:
	error = errno;
	nvme_ns_destroy(ns);
	errno = error;
	return (NULL);
}

void
nvme_ns_destroy(struct nvme_ns *ns)
{
	if (ns->ram != NULL)
		munmap(ns->ram, ns->ram_len);
	if (ns->fd != -1)
		close(ns->fd);
	free(ns->path);
	free(ns);
}

uint64_t
nvme_ns_size(const struct nvme_ns *ns)
{
	return (ns->blocks << ns->shift);
}

uint8_t *
nvme_ns_ptr(const struct nvme_ns *ns, uint64_t off)
{
	return (ns->ram != NULL ? ns->ram + off : NULL);
}

bool
nvme_ns_is_file(const struct nvme_ns *ns)
{
	return (ns->fd != -1);
}

/* --- reading and writing -------------------------------------------------- */

/* EFAULT is about the guest's memory: it may have cut its file short. */
static int
read_status(int error)
{
	return (error == EFAULT ? NVME_DATA_TRANSFER : NVME_READ_ERROR);
}

static int
write_status(int error)
{
	switch (error) {
	case EFAULT:
		return (NVME_DATA_TRANSFER);
	case ENOSPC:
	case EDQUOT:
		return (NVME_CAPACITY_EXCEEDED);
	default:
		return (NVME_WRITE_FAULT);
	}
}

/* Drop the first done bytes of a list. */
static void
advance(struct iovec **iov, unsigned int *n, size_t done)
{
	while (*n > 0 && done >= (*iov)->iov_len) {
		done -= (*iov)->iov_len;
		++*iov;
		--*n;
	}
	if (*n > 0) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + done;
		(*iov)->iov_len -= done;
	}
}

int
nvme_ns_read(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
    unsigned int n, size_t len)
{
	const uint8_t *p;
	ssize_t got;

	if (ns->ram != NULL) {
		for (p = ns->ram + off; n > 0; n--, iov++) {
			memcpy(iov->iov_base, p, iov->iov_len);
			p += iov->iov_len;
		}
		return (NVME_OK);
	}
	while (len > 0) {
		got = preadv(ns->fd, iov, (int)n, (off_t)off);
		if (got == -1 && errno == EINTR)
			continue;
		if (got == -1)
			return (read_status(errno));
		if (got == 0)	/* the file has been cut short */
			return (NVME_READ_ERROR);
		advance(&iov, &n, (size_t)got);
		off += (uint64_t)got;
		len -= (size_t)got;
	}
	return (NVME_OK);
}

int
nvme_ns_write(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
    unsigned int n, size_t len)
{
	ssize_t put;
	uint8_t *p;

	if (ns->ram != NULL) {
		for (p = ns->ram + off; n > 0; n--, iov++) {
			memcpy(p, iov->iov_base, iov->iov_len);
			p += iov->iov_len;
		}
		return (NVME_OK);
	}
	ns->dirty = true;
	while (len > 0) {
		put = pwritev(ns->fd, iov, (int)n, (off_t)off);
		if (put == -1 && errno == EINTR)
			continue;
		if (put == -1)
			return (write_status(errno));
		advance(&iov, &n, (size_t)put);
		off += (uint64_t)put;
		len -= (size_t)put;
	}
	return (NVME_OK);
}

/* Read len bytes of a file to buf. */
static int
file_read(struct nvme_ns *ns, uint64_t off, void *buf, size_t len)
{
	struct iovec iov = { buf, len };

	return (nvme_ns_read(ns, off, &iov, 1, len));
}

int
nvme_ns_compare(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
    unsigned int n, size_t len)
{
	uint8_t *buf = ns->ctrl->scratch;
	size_t at, part;
	const uint8_t *p;
	int status;

	(void)len;
	for (; n > 0; n--, iov++) {
		for (at = 0; at < iov->iov_len; at += part, off += part) {
			part = iov->iov_len - at;
			if (part > sizeof(ns->ctrl->scratch))
				part = sizeof(ns->ctrl->scratch);
			if (ns->ram != NULL) {
				p = ns->ram + off;
			} else {
				status = file_read(ns, off, buf, part);
				if (status != NVME_OK)
					return (status);
				p = buf;
			}
			if (memcmp(p, (uint8_t *)iov->iov_base + at,
			    part) != 0)
				return (NVME_COMPARE_FAILED | NVME_DNR);
		}
	}
	return (NVME_OK);
}

/* --- zeroes and holes ----------------------------------------------------- */

/* Whole pages are given back to the system, which hands out zeroes. */
static void
ram_zero(struct nvme_ns *ns, uint64_t off, uint64_t len)
{
	uint64_t end = off + len;
	uint64_t first = (off + PAGE - 1) & ~(PAGE - 1);
	uint64_t last = end & ~(PAGE - 1);

	if (len < DONTNEED_MIN || madvise(ns->ram + first, last - first,
	    MADV_DONTNEED) == -1) {
		memset(ns->ram + off, 0, len);
		return;
	}
	memset(ns->ram + off, 0, first - off);
	memset(ns->ram + last, 0, end - last);
}

static int
file_zero(struct nvme_ns *ns, uint64_t off, uint64_t len)
{
	static const uint8_t zeroes[65536];
	size_t part;
	ssize_t put;

	while (len > 0) {
		part = len < sizeof(zeroes) ? (size_t)len : sizeof(zeroes);
		put = pwrite(ns->fd, zeroes, part, (off_t)off);
		if (put == -1 && errno == EINTR)
			continue;
		if (put == -1)
			return (write_status(errno));
		off += (uint64_t)put;
		len -= (uint64_t)put;
	}
	return (NVME_OK);
}

int
nvme_ns_zero(struct nvme_ns *ns, uint64_t off, uint64_t len, bool deallocate)
{
	int mode = deallocate ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	if (ns->ram != NULL) {
		ram_zero(ns, off, len);
		return (NVME_OK);
	}
	ns->dirty = true;
	if (fallocate(ns->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off,
	    (off_t)len) == 0)
		return (NVME_OK);
	/* The file system may not know how: any error has a second chance. */
	return (file_zero(ns, off, len));
}

int
nvme_ns_deallocate(struct nvme_ns *ns, uint64_t off, uint64_t len)
{
	if (ns->ram != NULL) {
		ram_zero(ns, off, len);
		return (NVME_OK);
	}
	ns->dirty = true;
	if (fallocate(ns->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
	    (off_t)off, (off_t)len) == 0)
		return (NVME_OK);
	/* It was advice: where it cannot be taken the blocks stay. */
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == EINTR)
		return (NVME_OK);
	return (write_status(errno));
}

/* --- durability ----------------------------------------------------------- */

void
nvme_ns_start_sync(struct nvme_ns *ns)
{
	struct nvme_req *req;

	ns->dirty = false;
	ns->syncing = true;
	while ((req = TAILQ_FIRST(&ns->flush_next)) != NULL) {
		nvme_req_unqueue(req);
		nvme_req_queue(&ns->flush_now, req);
	}
	nvme_sync_start(ns->ctrl->sync, ns->nsid - 1, ns->fd);
}

int
nvme_ns_sync(struct nvme_ns *ns)
{
	/* Even after an error: what can be saved shall be. */
	if (ns->fd != -1 && fdatasync(ns->fd) == -1 && ns->error == 0)
		ns->error = errno;
	return (ns->error);
}
