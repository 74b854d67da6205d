/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_TAP_H
#define T_TAP_H

/*
 * A producer of the Test Anything Protocol, for a test program of one .c
 * file.  Checks are numbered in the order they are made, by any thread:
 *
 *	plan(n)			promise n checks; or leave it to done()
 *	ok(cond, name...)	and is_int(got, want, name...), is_hex, is_str,
 *				is_mem(got, want, len, name...): true if passed
 *	skip(n, why...)		n checks that are not made here
 *	skip_all(why...)	the whole program; does not return
 *	todo("why")		failures until todo(NULL) are expected
 *	diag(text...)		a remark
 *	bail(why...)		stop the whole run; does not return
 *	return (done());	from main(): 0 if all went well
 *
 * What is to say of a check that fails goes to stderr, which prove(1) shows.
 * name, why and text are formats for one line without a '#'.  A program has
 * T_ALARM seconds, from the environment or this macro.  A forked child makes
 * no checks and leaves by _exit().
 */

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef T_ALARM
#define T_ALARM		60
#endif

#define T__FN(f, a)	__attribute__((unused, format(printf, f, a)))

static pthread_mutex_t t__lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long t__run, t__failed, t__planned;	/* t__lock */
static const char *t__todo;				/* t__lock */
static __thread char t__why[256];	/* what is_*() found to differ */

static void
t__timeout(int sig)
{
	static const char msg[] = "# out of time: see T_ALARM\n";

	signal(sig, SIG_DFL);
	if (write(STDERR_FILENO, msg, sizeof(msg) - 1) == -1)
		_exit(255);
	raise(sig);
}

__attribute__((constructor)) static void
t__start(void)
{
	const char *s = getenv("T_ALARM");
	struct sigaction sa = { .sa_handler = t__timeout,
	    .sa_flags = SA_NODEFER };

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigaction(SIGALRM, &sa, NULL);
	alarm(s != NULL && atoi(s) > 0 ? (unsigned int)atoi(s) : T_ALARM);
}

/* Print one line. */
#define T__LINE(before, fmt, after) do {				\
	va_list t__ap;							\
									\
	pthread_mutex_lock(&t__lock);					\
	va_start(t__ap, fmt);						\
	fputs(before, stdout);						\
	vprintf(fmt, t__ap);						\
	puts(after);							\
	va_end(t__ap);							\
	pthread_mutex_unlock(&t__lock);					\
} while (0)

static void T__FN(1, 2)
diag(const char *fmt, ...)
{
	T__LINE("# ", fmt, "");
}

static bool T__FN(4, 5)
t__ok(bool pass, const char *file, int line, const char *fmt, ...)
{
	va_list ap;
	FILE *fp;

	pthread_mutex_lock(&t__lock);
	printf("%s %lu - ", pass ? "ok" : "not ok", ++t__run);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (t__todo != NULL)
		printf(" # TODO %s", t__todo);
	else if (!pass)
		t__failed++;
	putchar('\n');
	if (!pass) {
		/* A harness passes this on, where it keeps the rest. */
		fp = t__todo != NULL ? stdout : stderr;
		fprintf(fp, "# %s:%d: not ok %lu - ", file, line, t__run);
		va_start(ap, fmt);
		vfprintf(fp, fmt, ap);
		va_end(ap);
		fprintf(fp, "\n%s", t__why);
	}
	t__why[0] = '\0';
	pthread_mutex_unlock(&t__lock);
	return (pass);
}

static bool T__FN(3, 0)
t__u64(uint64_t got, uint64_t want, const char *fmt)
{
	if (got != want)
		snprintf(t__why, sizeof(t__why), fmt, got, want);
	return (got == want);
}

__attribute__((unused)) static bool
t__str(const char *got, const char *want)
{
	bool same = got == want ||
	    (got != NULL && want != NULL && strcmp(got, want) == 0);

	if (!same)
		snprintf(t__why, sizeof(t__why),
		    "#   got '%.90s', expected '%.90s'\n",
		    got != NULL ? got : "(NULL)",
		    want != NULL ? want : "(NULL)");
	return (same);
}

__attribute__((unused)) static bool
t__mem(const void *got, const void *want, size_t len)
{
	const uint8_t *g = got, *w = want;
	size_t at = 0;

	while (at < len && g != NULL && w != NULL && g[at] == w[at])
		at++;
	if (at < len && (g == NULL || w == NULL))
		snprintf(t__why, sizeof(t__why),
		    "#   got %p, expected %p\n", got, want);
	else if (at < len)
		snprintf(t__why, sizeof(t__why), "#   byte %zu of %zu is the "
		    "first to differ: got 0x%02x, expected 0x%02x\n",
		    at, len, g[at], w[at]);
	return (at == len);
}

#define ok(cond, ...) \
	t__ok((cond) ? true : false, __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, ...) \
	ok(t__u64((uint64_t)(got), (uint64_t)(want), \
	    "#   got %jd, expected %jd\n"), __VA_ARGS__)
#define is_hex(got, want, ...) \
	ok(t__u64((uint64_t)(got), (uint64_t)(want), \
	    "#   got 0x%jx, expected 0x%jx\n"), __VA_ARGS__)
#define is_str(got, want, ...)		ok(t__str(got, want), __VA_ARGS__)
#define is_mem(got, want, len, ...)	ok(t__mem(got, want, len), __VA_ARGS__)

static void T__FN(2, 3)
skip(unsigned long n, const char *fmt, ...)
{
	char before[40];

	while (n-- > 0) {
		snprintf(before, sizeof(before), "ok %lu # SKIP ", ++t__run);
		T__LINE(before, fmt, "");
	}
}

static void __attribute__((noreturn)) T__FN(1, 2)
skip_all(const char *fmt, ...)
{
	T__LINE("1..0 # SKIP ", fmt, "");
	exit(0);
}

static void __attribute__((noreturn)) T__FN(1, 2)
bail(const char *fmt, ...)
{
	T__LINE("Bail out! ", fmt, "");
	fflush(stdout);
	_exit(255);
}

__attribute__((unused)) static void
todo(const char *why)
{
	t__todo = why;
}

__attribute__((unused)) static void
plan(unsigned long n)
{
	t__planned = n;
	printf("1..%lu\n", n);
}

__attribute__((unused)) static int
done(void)
{
	if (t__planned == 0)
		printf("1..%lu\n", t__run);
	else if (t__planned != t__run)
		diag("planned %lu checks, made %lu", t__planned, t__run);
	if (t__failed > 0)
		diag("%lu of %lu checks failed", t__failed, t__run);
	return (t__failed > 0 || (t__planned != 0 && t__planned != t__run));
}

#endif
