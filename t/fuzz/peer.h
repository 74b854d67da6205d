/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_PEER_H
#define T_FUZZ_PEER_H

/*
 * For fuzzers that play one end of a connection: bare messages, no TAP.  Both
 * ends are one thread's.  From p_begin() to p_end(), where the library would
 * sleep until the other end has done something, the fuzzer's act() does it.
 * Time passes only there, so nothing ever sleeps, and an input does the same
 * each time.
 */

#include <sys/syscall.h>
#include <sys/timerfd.h>

#include <pthread.h>
#include <time.h>

#define T_ALARM		0

#include "t/fuzz/fuzz.h"
#include "t/vfu.h"

/* After the constructor in t/tap.h: libFuzzer replaces no handler but this. */
__attribute__((constructor)) static void
leave_alarm_alone(void)
{
	signal(SIGALRM, SIG_DFL);
}

/* --- time ---------------------------------------------------------------- */

#define P_MS		1000000
#define P_TICK		10000		/* ns, so that who looks sees it pass */

static __thread bool p_on;		/* the thread of the input, in it */
static void (*p_act)(void);
static int64_t p_now;			/* ns */
static int p_timer;			/* the descriptor of the one there is */
static int64_t p_timer_at;		/* 0: not set */

static void
p_set_timer(int fd, int64_t at)
{
	const struct itimerspec it = { .it_value = { 0, at != 0 } };

	p_timer = fd;
	p_timer_at = at;
	/* What is long past is due at once. */
	if (at <= p_now)
		syscall(SYS_timerfd_settime, fd, TFD_TIMER_ABSTIME, &it,
		    NULL);
}

F_UNUSED static void
p_pass(int64_t ns)
{
	p_now += ns;
	if (p_timer_at != 0 && p_timer_at <= p_now)
		p_set_timer(p_timer, p_timer_at);
}

F_UNUSED static void
p_begin(void (*act)(void))
{
	p_act = act;
	p_now = 1000 * (int64_t)P_MS;
	p_timer_at = 0;
	p_on = true;
}

F_UNUSED static void
p_end(void)
{
	p_on = false;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	if (!p_on || clock != CLOCK_MONOTONIC)
		return ((int)syscall(SYS_clock_gettime, clock, ts));
	p_now += P_TICK;
	ts->tv_sec = p_now / (1000 * (int64_t)P_MS);
	ts->tv_nsec = p_now % (1000 * (int64_t)P_MS);
	return (0);
}

int
timerfd_settime(int fd, int flags, const struct itimerspec *it,
    struct itimerspec *old)
{
	const struct timespec *ts = &it->it_value;

	if (!p_on || flags != 0 || old != NULL)
		return ((int)syscall(SYS_timerfd_settime, fd, flags, it, old));
	p_set_timer(fd, 0);
	if (ts->tv_sec != 0 || ts->tv_nsec != 0)
		p_set_timer(fd, p_now + ts->tv_sec * 1000 * (int64_t)P_MS +
		    ts->tv_nsec);
	return (0);
}

/* Who waits for a socket of its connection has another descriptor, too. */
int
poll(struct pollfd *pfd, nfds_t n, int ms)
{
	const struct timespec now = { 0, 0 },
	    ts = { ms / 1000, ms % 1000 * (long)P_MS };
	int rv;

	if (!p_on || n < 2 || ms == 0)
		return (ppoll(pfd, n, ms < 0 ? NULL : &ts, NULL));
	check(ms > 0);			/* the peer may never answer */
	p_act();
	rv = ppoll(pfd, n, &now, NULL);
	if (rv == 0)
		p_pass(ms * (int64_t)P_MS);
	return (rv);
}

int
pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *lock,
    const struct timespec *ts)
{
	if (!p_on)
		return (pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC,
		    ts));
	/* Nobody else is there who could signal. */
	p_pass(ts->tv_sec * 1000 * (int64_t)P_MS + ts->tv_nsec - p_now);
	return (ETIMEDOUT);
}

/* --- messages that come -------------------------------------------------- */

struct p_stream {
	int fd;				/* -1: none */
	int *keep;			/* where a descriptor is to go; or NULL */
	size_t len, skip;		/* bytes there; to be thrown away */
	uint8_t buf[1 << 16];
};

F_UNUSED static void
p_open(struct p_stream *st, int fd)
{
	st->fd = fd;
	st->keep = NULL;
	st->len = st->skip = 0;
}

F_UNUSED static void
p_close(struct p_stream *st)
{
	if (st->fd != -1)
		close(st->fd);
	st->fd = -1;
}

static void
p_take_fds(struct p_stream *st, struct msghdr *msg)
{
	struct cmsghdr *c;
	size_t i, n;
	int fd;

	for (c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < n; i++) {
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int),
			    sizeof(fd));
			if (st->keep != NULL && *st->keep == -1)
				*st->keep = fd;
			else
				close(fd);
		}
	}
}

/* Hand out what is whole; of what is too long for us, the header. */
static void
p_cut(struct p_stream *st, void (*fn)(struct p_stream *st,
    const struct vd_hdr *hdr, const uint8_t *data, size_t len))
{
	struct vd_hdr h;
	size_t at = 0;

	while (st->len - at >= sizeof(h)) {
		memcpy(&h, st->buf + at, sizeof(h));
		check(h.size >= sizeof(h) && h.size <= VD_MAX_MSG_SIZE);
		if (h.size > sizeof(st->buf)) {
			st->skip = h.size - (st->len - at);
			at = st->len;
			fn(st, &h, NULL, 0);
			break;
		}
		if (h.size > st->len - at)
			break;
		at += h.size;
		fn(st, &h, st->buf + at - h.size + sizeof(h),
		    h.size - sizeof(h));
	}
	st->len -= at;
	memmove(st->buf, st->buf + at, st->len);
}

/* Take what is there.  fn may close the stream, but not open it again. */
F_UNUSED static void
p_receive(struct p_stream *st, void (*fn)(struct p_stream *st,
    const struct vd_hdr *hdr, const uint8_t *data, size_t len))
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	ssize_t n;

	while (st->fd != -1) {
		size_t room = sizeof(st->buf) - st->len;
		struct iovec iov = { st->buf + st->len,
		    st->skip > 0 && st->skip < room ? st->skip : room };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
		    .msg_control = control.buf,
		    .msg_controllen = sizeof(control.buf) };

		n = recvmsg(st->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (n <= 0)
			break;
		p_take_fds(st, &msg);
		if (st->skip > 0) {
			st->skip -= (size_t)n;
			continue;
		}
		st->len += (size_t)n;
		p_cut(st, fn);
	}
}

/* The header and head bytes of a message that is not all there yet. */
F_UNUSED static bool
p_begun(const struct p_stream *st, struct vd_hdr *hdr, size_t head)
{
	if (st->fd == -1 || st->len < sizeof(*hdr) + head)
		return (false);
	memcpy(hdr, st->buf, sizeof(*hdr));
	return (true);
}

#endif
