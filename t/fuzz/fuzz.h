/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_FUZZ_H
#define T_FUZZ_FUZZ_H

/*
 * What fuzzers share: an input that is read like a script, and checks that
 * abort, since that is what libFuzzer takes for a find.  A script that has
 * ended reads as zeroes.
 */

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F_UNUSED	__attribute__((unused))
#define F_COUNT(a)	(sizeof(a) / sizeof((a)[0]))

int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define check(cond) do {						\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: not so: %s (errno %s)\n",	\
		    __FILE__, __LINE__, #cond, strerror(errno));	\
		abort();						\
	}								\
} while (0)

struct input {
	const uint8_t *p;
	size_t left;
};

/* The next n bytes as a number, little-endian. */
F_UNUSED static uint64_t
next(struct input *in, size_t n)
{
	uint64_t val = 0;
	size_t i;

	for (i = 0; i < n && in->left > 0; i++, in->left--)
		val |= (uint64_t)*in->p++ << 8 * i;
	return (val);
}

F_UNUSED static uint64_t
next_below(struct input *in, uint64_t n)
{
	return (next(in, 1) % n);
}

/* The next n bytes, or fewer; how many. */
F_UNUSED static size_t
next_bytes(struct input *in, void *buf, size_t n)
{
	if (n > in->left)
		n = in->left;
	memcpy(buf, in->p, n);
	in->p += n;
	in->left -= n;
	return (n);
}

/* How many descriptors this process has. */
F_UNUSED static unsigned int
count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	check(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return (n);
}

#endif
