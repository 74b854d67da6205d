/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_OOM_H
#define T_OOM_H

/*
 * Allocations of this thread that fail on demand: memory and mappings.  A
 * sanitizer has an allocator of its own, with which none fails.
 */

#include <sys/mman.h>
#include <sys/syscall.h>

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "t/util.h"

static __thread long countdown;		/* 1: the next one fails; 0: none */
static __thread bool hit;		/* one has failed */

#if !T_ASAN && !T_TSAN

static bool
fail(void)
{
	if (countdown == 0 || --countdown > 0)
		return (false);
	hit = true;
	errno = ENOMEM;
	return (true);
}

void	*__libc_malloc(size_t size);
void	*__libc_calloc(size_t n, size_t size);
void	*__libc_realloc(void *p, size_t size);

void *
malloc(size_t size)
{
	return (fail() ? NULL : __libc_malloc(size));
}

void *
calloc(size_t n, size_t size)
{
	return (fail() ? NULL : __libc_calloc(n, size));
}

void *
realloc(void *p, size_t size)
{
	return (fail() ? NULL : __libc_realloc(p, size));
}

void *
reallocarray(void *p, size_t n, size_t size)
{
	if (size != 0 && n > SIZE_MAX / size) {
		errno = ENOMEM;
		return (NULL);
	}
	return (realloc(p, n * size));
}

void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (fail())
		return (MAP_FAILED);
	return ((void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off));
}

#endif

#endif
