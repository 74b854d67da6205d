/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
/*
 * What the guest and the host of t/qemu-linux.t must agree about: which
 * files there are and what is in them.  One static program for both, so that
 * each side makes the bytes for itself and only checksums are compared.
 *
 *	guest list [PERCENT]	name and size of each file, 64 MiB in all
 *	guest gen SEED NAME SIZE	the bytes of that file, to stdout
 *	guest sectors FILE	the sum that boot.S makes of a disk
 */

#include <sys/stat.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOTAL	(64u << 20)

/* As in boot.S. */
#define SECTOR	512
#define CHUNK	(64 * SECTOR)
#define STRIDE	(16384ull * SECTOR)
#define CHUNKS	16

/*
 * Sizes around the block, the page and what one command can move; the rest
 * goes into a few large files that are worth several commands in flight.
 */
static const uint32_t sizes[] = {
	0,
	1,
	511,
	512,
	513,
	4095,
	4096,
	4097,
	8192,
	12289,
	65535,
	65536,
	131072,
	131073,
	262144,
	524287,
	524288,
	1048575,
	1048576,
	2097152,
	3145729,
	4194304,
	8388608,
	16777216,
};

static void
list(unsigned int percent)
{
	uint32_t done, size;
	size_t i;

	done = 0;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size = (uint32_t)((uint64_t)sizes[i] * percent / 100);
		printf("f%02zu %" PRIu32 "\n", i, size);
		done += size;
	}
	printf("f%02zu %" PRIu32 "\n", i,
	    (uint32_t)((uint64_t)TOTAL * percent / 100) - done);
}

/* splitmix64 (public domain, S. Vigna): cheap even where each instruction
 * is emulated, and no block repeats, so a misplaced one is noticed. */
static uint64_t
next(uint64_t *state)
{
	uint64_t z;

	z = (*state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (z ^ (z >> 31));
}

static void
put(const void *buf, size_t len)
{
	const char *p;
	ssize_t n;

	for (p = buf; len > 0; p += n, len -= (size_t)n) {
		n = write(STDOUT_FILENO, p, len);
		if (n == -1 && errno == EINTR)
			n = 0;
		else if (n == -1)
			err(1, "write");
	}
}

static void
gen(uint64_t seed, const char *name, uint64_t size)
{
	static uint64_t buf[65536 / sizeof(uint64_t)];
	uint64_t state;
	size_t i, len;

	state = seed;
	for (; *name != '\0'; name++)
		state = next(&state) ^ (unsigned char)*name;
	while (size > 0) {
		for (i = 0; i < sizeof(buf) / sizeof(buf[0]); i++)
			buf[i] = next(&state);
		len = size < sizeof(buf) ? (size_t)size : sizeof(buf);
		put(buf, len);
		size -= len;
	}
}

static void
sectors(const char *path)
{
	static unsigned char buf[CHUNK];
	uint32_t sum, word;
	size_t off;
	unsigned int i;
	int fd;

	if ((fd = open(path, O_RDONLY | O_CLOEXEC)) == -1)
		err(1, "%s", path);
	sum = 0;
	for (i = 0; i < CHUNKS; i++) {
		if (pread(fd, buf, sizeof(buf), (off_t)(i * STRIDE)) !=
		    (ssize_t)sizeof(buf))
			errx(1, "%s: short", path);
		for (off = 0; off < sizeof(buf); off += sizeof(word)) {
			memcpy(&word, buf + off, sizeof(word));
			/* Rotated, so that the order counts too. */
			sum = ((sum << 1) | (sum >> 31)) + word;
		}
	}
	close(fd);
	printf("%08" PRIx32 "\n", sum);
}

static uint64_t
number(const char *s)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(s, &end, 0);
	if (errno != 0 || *s == '\0' || *end != '\0')
		errx(1, "not a number: %s", s);
	return (n);
}

int
main(int argc, char *argv[])
{
	if (argc == 2 && strcmp(argv[1], "list") == 0)
		list(100);
	else if (argc == 3 && strcmp(argv[1], "list") == 0)
		list((unsigned int)number(argv[2]));
	else if (argc == 5 && strcmp(argv[1], "gen") == 0)
		gen(number(argv[2]), argv[3], number(argv[4]));
	else if (argc == 3 && strcmp(argv[1], "sectors") == 0)
		sectors(argv[2]);
	else {
		fprintf(stderr, "usage: guest list [PERCENT]\n"
		    "       guest gen SEED NAME SIZE\n"
		    "       guest sectors FILE\n");
		return (1);
	}
	if (fflush(stdout) != 0)
		err(1, "stdout");
	return (0);
}
