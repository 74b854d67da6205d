/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Threads that wait on a connection, and serve commands meanwhile: see msg.c.
 */

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal-msg.h"

/* Serving inside of serving. */
#define MAX_SERVING	4

/* --- the leader ---------------------------------------------------------- */

void
vd__conn_kick(struct vd__conn *c)
{
	const uint64_t one = 1;

	if (c->polling && !c->kicked)
		c->kicked = write(c->kick_fd, &one, sizeof(one)) ==
		    sizeof(one);
}

/*
 * The leader has left poll.  It takes back a kick that came too late, or its
 * next sleep would be none: with lock held.
 */
static void
end_polling(struct vd__conn *c)
{
	uint64_t n;

	c->polling = false;
	if (c->kicked)
		c->kicked = read(c->kick_fd, &n, sizeof(n)) != sizeof(n);
}

/* Serve, or refuse, commands that came while we wait: was there any? */
static bool
serve_commands(struct vd__conn *c)
{
	struct vd__msg m;
	unsigned int depth;
	bool any = false;

	pthread_mutex_lock(&c->lock);
	while (vd__conn_may_serve(c) && vd__conn_pop_command(c, &m)) {
		c->server = pthread_self();
		depth = ++c->serving;
		pthread_mutex_unlock(&c->lock);
		any = true;
		if (c->ops->serve == NULL)
			vd__conn_error(c, &m, ENOSYS);
		else if (depth <= MAX_SERVING)
			c->ops->serve(c->arg, &m);
		else
			vd__conn_error(c, &m, EDEADLK);
		vd__msg_close(&m);
		/* Until this is undone others leave commands to us. */
		pthread_mutex_lock(&c->lock);
		c->serving--;
	}
	pthread_mutex_unlock(&c->lock);
	return (any);
}

bool
vd__conn_is_server(struct vd__conn *c)
{
	bool is;

	pthread_mutex_lock(&c->lock);
	is = c->serving > 0 && pthread_equal(c->server, pthread_self());
	pthread_mutex_unlock(&c->lock);
	return (is);
}

/* Sleep until the sockets have something, or a kick, or the time is up. */
static int
sleep_in_poll(struct vd__conn *c, int64_t deadline)
{
	struct pollfd pfd[3];
	int64_t left = -1;
	unsigned int i;
	int rv;

	pthread_mutex_lock(&c->out_lock);
	for (i = 0; i < c->nstreams; i++) {
		pfd[i].fd = -1;
		pfd[i].events = 0;
		if (vd__conn_heeds(c, &c->streams[i]))
			pfd[i].events = POLLIN;
		if (c->streams[i].queued > 0)
			pfd[i].events |= POLLOUT;
		if (pfd[i].events != 0)
			pfd[i].fd = c->streams[i].fd;
	}
	pthread_mutex_unlock(&c->out_lock);
	pfd[i] = (struct pollfd){ .fd = c->kick_fd, .events = POLLIN };
	do {
		if (deadline != -1 && (left = deadline - vd__now_ms()) < 0)
			left = 0;
		if (c->more)
			left = 0;
		rv = poll(pfd, c->nstreams + 1,
		    left > INT32_MAX ? INT32_MAX : (int)left);
	} while (rv == -1 && errno == EINTR);
	return (rv == -1 ? vd__conn_broken(c, ENOMEM) : 0);
}

/* Has it got what it waits for?  With lock held. */
static bool
is_over(struct vd__conn *c, const struct vd__waiter *w)
{
	if (w->call != NULL && w->call->state != ENDED)
		return (false);
	/* What only we would send we do not leave behind. */
	return ((w->call != NULL && !w->served) || !vd__conn_full(c));
}

/*
 * Let another thread lead, as we will not: with lock held.  Who has what it
 * waits for may not have heard of it, and is no leader.
 */
static void
pass_lead(struct vd__conn *c)
{
	struct vd__waiter *w;

	c->leader = NULL;
	TAILQ_FOREACH(w, &c->waiters, link) {
		pthread_cond_signal(&w->cond);
		if (!is_over(c, w))
			return;
	}
}

/* Those who wait for room may have it now: with lock held. */
static void
tell_of_room(struct vd__conn *c)
{
	struct vd__waiter *w;

	TAILQ_FOREACH(w, &c->waiters, link)
		if (w->call == NULL || w->served)
			pthread_cond_signal(&w->cond);
}

/* Are there commands for us?  Those for another who waits: tell it. */
static bool
has_to_serve(struct vd__conn *c)
{
	if (!vd__conn_serves(c) || c->ncommands == 0)
		return (false);
	if (vd__conn_may_serve(c))
		return (true);
	if (c->nested != NULL && c->nested != c->leader)
		pthread_cond_signal(&c->nested->cond);
	return (false);
}

/* Serve, while somebody else leads: what we do may take long, and may wait. */
static void
serve_aside(struct vd__conn *c, struct vd__waiter *self)
{
	pthread_mutex_lock(&c->lock);
	TAILQ_REMOVE(&c->waiters, self, link);
	if (c->leader == self)
		pass_lead(c);
	pthread_mutex_unlock(&c->lock);
	if (serve_commands(c))
		self->served = true;
	pthread_mutex_lock(&c->lock);
	TAILQ_INSERT_TAIL(&c->waiters, self, link);
	pthread_mutex_unlock(&c->lock);
}

/* Be the leader for once: sleep, send, read. */
static int
lead(struct vd__conn *c, struct vd__waiter *self, int64_t deadline)
{
	bool told = false, serving;
	int rv;

	rv = sleep_in_poll(c, deadline);
	pthread_mutex_lock(&c->lock);
	end_polling(c);
	pthread_mutex_unlock(&c->lock);
	if (rv == 0 && (rv = vd__conn_flush(c)) != -1) {
		pthread_mutex_lock(&c->in_lock);
		rv = vd__conn_read_all(c, &told, deadline, self);
		pthread_mutex_unlock(&c->in_lock);
	}
	vd__conn_result(c, rv);
	pthread_mutex_lock(&c->lock);
	tell_of_room(c);
	serving = has_to_serve(c);
	pthread_mutex_unlock(&c->lock);
	if (serving)
		serve_aside(c, self);
	else if (told && c->ops->wake != NULL)
		c->ops->wake(c->arg);
	return (rv == -1 ? -1 : 0);
}

/* --- waiting in line ------------------------------------------------------ */

static void
init_waiter(struct vd__waiter *w)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->cond, &attr);
	pthread_condattr_destroy(&attr);
}

static void
sleep_in_line(struct vd__conn *c, struct vd__waiter *w, int64_t deadline)
{
	struct timespec ts;

	if (deadline == -1) {
		pthread_cond_wait(&w->cond, &c->lock);
		return;
	}
	ts.tv_sec = (time_t)(deadline / 1000);
	ts.tv_nsec = (long)(deadline % 1000) * 1000000L;
	pthread_cond_timedwait(&w->cond, &c->lock, &ts);
}

/* In line, or out of it when it is our turn: with lock held. */
static struct vd__waiter *
enter(struct vd__conn *c, struct vd__waiter *w)
{
	struct vd__waiter *outer = c->nested;

	if (w->call != NULL)
		w->call->waiter = w;
	TAILQ_INSERT_TAIL(&c->waiters, w, link);
	if (c->serving > 0 && pthread_equal(c->server, pthread_self()))
		c->nested = w;
	return (outer);
}

static void
leave(struct vd__conn *c, struct vd__waiter *w, struct vd__waiter *outer)
{
	if (w->call != NULL)
		w->call->waiter = NULL;
	TAILQ_REMOVE(&c->waiters, w, link);
	if (c->nested == w)
		c->nested = outer;
	/* The lead may have fallen to us, who have no more use for it. */
	if (c->leader == NULL || c->leader == w)
		pass_lead(c);
}

/* Until when to wait, as far as is known by now: with lock held. */
static int64_t
limit(const struct vd__conn *c, const struct vd__call *call, int64_t deadline)
{
	int64_t at;

	if (call == NULL || call->grace_ms == 0 || c->asked == 0)
		return (deadline);
	at = (call->begun > c->asked ? call->begun : c->asked) +
	    call->grace_ms;
	return (deadline == -1 || at < deadline ? at : deadline);
}

/*
 * Wait until call has ended; or with none, until there is room in the queue: 0;
 * or -1, ETIMEDOUT or the end of the connection.
 */
static int
wait_for(struct vd__conn *c, struct vd__call *call, int64_t deadline)
{
	struct vd__waiter w, *outer;
	bool over, serving, tried = false;
	int64_t until;
	int rv = 0, saved;

	init_waiter(&w);
	w.call = call;
	w.served = false;
	pthread_mutex_lock(&c->lock);
	outer = enter(c, &w);
	for (;;) {
		if ((over = call != NULL && is_over(c, &w)) || rv == -1)
			break;
		if (!vd__conn_is_open(c)) {
			rv = -1;
			break;
		}
		if ((over = is_over(c, &w)))
			break;
		/* Without any time what is there already counts. */
		until = limit(c, call, deadline);
		if (tried && until != -1 && vd__now_ms() >= until) {
			errno = ETIMEDOUT;
			rv = -1;
			break;
		}
		tried = true;
		if (c->leader != NULL && c->leader != &w) {
			serving = c->nested == &w && has_to_serve(c);
			if (!serving) {
				sleep_in_line(c, &w, until);
				continue;
			}
			pthread_mutex_unlock(&c->lock);
			serve_aside(c, &w);
		} else {
			c->leader = &w;
			c->polling = true;
			pthread_mutex_unlock(&c->lock);
			rv = lead(c, &w, until);
		}
		saved = errno;
		pthread_mutex_lock(&c->lock);
		errno = saved;
	}
	saved = errno;
	leave(c, &w, outer);
	pthread_mutex_unlock(&c->lock);
	pthread_cond_destroy(&w.cond);
	errno = saved;
	return (over ? 0 : rv);
}

int
vd__conn_await(struct vd__conn *c, struct vd__call *call)
{
	int err = 0, rv = 0;

	if (wait_for(c, call, call->deadline) == -1)
		err = errno;
	if (err != 0) {
		pthread_mutex_lock(&c->in_lock);
		pthread_mutex_lock(&c->lock);
		/* It may have ended since. */
		if (call->state != PENDING)
			err = 0;
		pthread_mutex_unlock(&c->lock);
		if (err != 0)
			rv = vd__conn_withdraw(c, call, err, false);
		pthread_mutex_unlock(&c->in_lock);
		vd__conn_result(c, rv);
	}
	if (call->err == 0)
		return (0);
	errno = call->err;
	return (-1);
}

/* --- calls that wait ------------------------------------------------------ */

int
vd__conn_begin(struct vd__conn *c, struct vd__call *call, enum vd_cmd cmd,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : vd__now_ms() + timeout_ms;

	call->data = NULL;
	call->data_len = call->head = 0;
	call->keep = NULL;
	call->grace_ms = 0;
	call->done = NULL;
	while (vd__conn_send(c, call, cmd, iov, iovcnt, fds, nfds,
	    timeout_ms) == -1)
		if (errno != ENOBUFS || !vd__conn_full(c) ||
		    wait_for(c, NULL, deadline) == -1)
			return (-1);
	return (0);
}

int
vd__conn_call(struct vd__conn *c, enum vd_cmd cmd, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, int timeout_ms,
    struct vd__msg *reply)
{
	struct vd__call call;

	memset(reply, 0, sizeof(*reply));
	if (vd__conn_begin(c, &call, cmd, iov, iovcnt, fds, nfds,
	    timeout_ms) == -1 || vd__conn_await(c, &call) == -1)
		return (-1);
	*reply = call.reply;
	return (0);
}

int
vd__conn_post(struct vd__conn *c, enum vd_cmd cmd, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : vd__now_ms() + timeout_ms;
	struct vd_hdr hdr;

	if (vd__conn_head(c, &hdr, cmd, VD_TYPE_COMMAND | VD_NO_REPLY, iov,
	    iovcnt, nfds) == -1)
		return (-1);
	/* Room first, so that what times out has not been queued. */
	if (vd__conn_full(c) && wait_for(c, NULL, deadline) == -1)
		return (-1);
	if (vd__conn_put(c, c->ours, &hdr, iov, iovcnt, fds, nfds, NULL) == -1)
		return (vd__conn_result(c, -1));
	return (vd__conn_full(c) ? wait_for(c, NULL, deadline) : 0);
}

int
vd__conn_run(struct vd__conn *c, int timeout_ms)
{
	bool told;

	if (vd__conn_flush(c) == -1 || vd__conn_read(c, &told) == -1)
		return (-1);
	if (!serve_commands(c))
		return (0);
	if (wait_for(c, NULL, timeout_ms < 0 ? -1 :
	    vd__now_ms() + timeout_ms) == -1 && errno != ETIMEDOUT)
		return (-1);
	return (1);
}
