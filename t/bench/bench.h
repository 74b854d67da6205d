/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_BENCH_BENCH_H
#define T_BENCH_BENCH_H

/*
 * A harness for benchmarks, of programs of one .c file.  One line a figure,
 * "name value unit", from
 *
 *	x [--list] [--quick] [part-of-a-name ...]
 *
 * A figure is a median: of rounds of at least B_ROUND_NS each, as many as
 * B_ROUNDS, or fewer (but three) once B_TOTAL_NS is spent.  --quick makes one
 * round of a few operations: it tells that a benchmark works, not how fast.
 */

#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define B_UNUSED	__attribute__((unused))
#define B_COUNT(a)	(sizeof(a) / sizeof((a)[0]))
#define B_ROUNDS	15
#define B_ROUND_NS	4000000.0
#define B_TOTAL_NS	1500000000.0

struct bench {
	const char *name;
	const char *unit;
	double (*run)(size_t n);	/* the figure, by b_measure() or not */
	bool sized;			/* at each of b_sizes, as name.nN */
};

static bool b_quick;

/* Nanoseconds since some point in time. */
B_UNUSED static double
b_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec * 1e9 + (double)ts.tv_nsec);
}

/* The next number of a sequence that is the same in each run. */
B_UNUSED static uint64_t
b_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return (x ^ x >> 31);
}

/* Make x be computed, and nothing about it be known. */
#define b_use(x)	__asm__ volatile("" : : "r"(x) : "memory")

static int
b_compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x < y ? -1 : x > y);
}

B_UNUSED static double
b_median(double *values, size_t n)
{
	qsort(values, n, sizeof(*values), b_compare);
	return (n % 2 != 0 ? values[n / 2] :
	    (values[n / 2 - 1] + values[n / 2]) / 2);
}

/*
 * The time of one operation: fn(arg, iters) does iters of them; after(arg),
 * unless NULL, cleans up behind a round and is not measured.
 */
B_UNUSED static double
b_measure(void (*fn)(void *arg, size_t iters), void (*after)(void *arg),
    void *arg)
{
	double each[B_ROUNDS], start, took, begun = b_now();
	size_t iters = b_quick ? 2 : 1, n = 0;

	for (;;) {
		start = b_now();
		fn(arg, iters);
		took = b_now() - start;
		if (after != NULL)
			after(arg);
		/* What is no round yet warms up and tells how long one is. */
		if (!b_quick && took < B_ROUND_NS) {
			if (n == 0) {
				iters = took < B_ROUND_NS / 16 ? iters * 8 :
				    (size_t)((double)iters * 1.3 *
				    B_ROUND_NS / took) + 1;
				continue;
			}
			/* The machine has become faster: still a round. */
		}
		each[n++] = took / (double)iters;
		if (n == B_ROUNDS || b_quick ||
		    (n >= 3 && b_now() - begun > B_TOTAL_NS))
			return (b_median(each, n));
	}
}

static void
b_print(const char *name, double value, const char *unit)
{
	printf("%s %.*f %s\n", name, value < 100 ? 2 : value < 1000 ? 1 : 0,
	    value, unit);
	fflush(stdout);
}

B_UNUSED static int
b_main(int argc, char *argv[], const struct bench *benches, size_t nbenches,
    const size_t *sizes, size_t nsizes)
{
	bool list = false, wanted;
	const struct bench *b;
	char name[128];
	size_t i, k;
	int first, j;

	for (first = 1; first < argc && argv[first][0] == '-'; first++) {
		if (strcmp(argv[first], "--list") == 0)
			list = true;
		else if (strcmp(argv[first], "--quick") == 0)
			b_quick = true;
		else {
			fprintf(stderr, "usage: %s [--list] [--quick] "
			    "[part-of-a-name ...]\n", argv[0]);
			return (2);
		}
	}
	for (i = 0; i < nbenches; i++) {
		b = &benches[i];
		for (k = 0; k < (b->sized ? nsizes : 1); k++) {
			if (b->sized)
				snprintf(name, sizeof(name), "%s.n%zu",
				    b->name, sizes[k]);
			else
				snprintf(name, sizeof(name), "%s", b->name);
			wanted = first == argc;
			for (j = first; j < argc; j++)
				wanted |= strstr(name, argv[j]) != NULL;
			if (!wanted)
				continue;
			if (list)
				puts(name);
			else
				b_print(name, b->run(b->sized ? sizes[k] : 0),
				    b->unit);
		}
	}
	return (0);
}

#endif
