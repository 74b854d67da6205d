/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Mappings of peers' files, and how many there may be.  The system gives so
 * many to a process, whoever of its parts asks for them; so they are counted
 * for the process, and peers do not get the last ones.
 */

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include <linux/magic.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define MAX_MAP_COUNT	65530u		/* of a system that does not say */

/* [a] atomic, relaxed: they are numbers, and order nothing else */
static struct {
	_Atomic(unsigned int) max;	/* [a] 0: to be found out */
	_Atomic(unsigned int) used;	/* [a] */
} mappings;

/* What peers get of all that a process may have. */
static unsigned int
share(void)
{
	char buf[16] = "";
	long count;
	int fd;

	fd = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
	if (fd == -1 || read(fd, buf, sizeof(buf) - 1) <= 0)
		buf[0] = '\0';
	vd__close(fd);
	count = strtol(buf, NULL, 10);
	if (count <= 0)
		count = MAX_MAP_COUNT;
	return (count > INT32_MAX ? INT32_MAX : (unsigned int)(count / 4 * 3));
}

unsigned int
vd__mappings_max(void)
{
	unsigned int max, none = 0;

	max = atomic_load_explicit(&mappings.max, memory_order_relaxed);
	if (max != 0)
		return (max);
	max = share();
	/* Unless it was set meanwhile. */
	if (!atomic_compare_exchange_strong_explicit(&mappings.max, &none, max,
	    memory_order_relaxed, memory_order_relaxed))
		max = none;
	return (max);
}

void
vd_mappings_set_max(unsigned int max)
{
	atomic_store_explicit(&mappings.max, max, memory_order_relaxed);
}

static bool
take_one(void)
{
	unsigned int max = vd__mappings_max(), used;

	used = atomic_load_explicit(&mappings.used, memory_order_relaxed);
	do {
		if (used >= max)
			return (false);
	} while (!atomic_compare_exchange_weak_explicit(&mappings.used, &used,
	    used + 1, memory_order_relaxed, memory_order_relaxed));
	return (true);
}

static void
give_back(void)
{
	atomic_fetch_sub_explicit(&mappings.used, 1, memory_order_relaxed);
}

/* A mapping of this file starts at a multiple of this, and is one long. */
static uint64_t
granule(int fd, const struct stat *st)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct statfs fs;

	if (fstatfs(fd, &fs) == 0 && fs.f_type == HUGETLBFS_MAGIC &&
	    st->st_blksize > 0 && (uint64_t)st->st_blksize > page)
		return ((uint64_t)st->st_blksize);
	return (page);
}

/*
 * Whole pages, as a mapping can start only at a page, and one of huge pages
 * cannot even be removed unless it also ends at one.
 */
int
vd__mapping_init(struct vd__mapping *m, int fd, const struct stat *st,
    uint64_t off, uint64_t len, int prot, struct vd__sigbus_mark *mark,
    uint64_t number)
{
	uint64_t unit = granule(fd, st), before = off % unit;
	int err;

	/* Where addresses have 32 bits. */
	if (len > SIZE_MAX - before || before + len > SIZE_MAX - unit)
		return (ENOMEM);
	m->before = before;
	m->len = (before + len + unit - 1) / unit * unit;
	/* The end of an ordinary page is rounded by the kernel. */
	if (before == 0 && unit == (uint64_t)sysconf(_SC_PAGESIZE))
		m->len = len;
	if (!take_one())
		return (ENOSPC);
	m->ptr = mmap(NULL, m->len, prot, MAP_SHARED, fd,
	    (off_t)(off - before));
	if (m->ptr == MAP_FAILED) {
		err = errno;
		give_back();
		return (err);
	}
	vd__sigbus_add(&m->guard, m->ptr, m->len, unit, mark, number);
	return (0);
}

void
vd__mapping_fini(struct vd__mapping *m)
{
	/* Not a moment later: somebody else's memory may be there then. */
	vd__sigbus_del(&m->guard);
	munmap(m->ptr, m->len);
	give_back();
}
