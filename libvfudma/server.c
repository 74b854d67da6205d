/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server: its sockets, its one client, and its runs.
 *
 * Nothing here waits.  The epoll descriptor is readable while there is
 * something to do: settle() keeps what it watches in step with what the next
 * run would look at.
 */

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "internal.h"

#define DEF_DMA_REGIONS		24000
#define DEF_QUEUED		(4u << 20)
#define DEF_DMA_TIMEOUT_MS	2000	/* QEMU waits 5 s for us */
#define DEF_STALL_TIMEOUT_MS	30000
#define RUN_MAX			64	/* commands a vd_server_run_all() */
#define VERSION_MS		5000	/* for a new client to say VERSION */
#define BACKOFF_MS		1000	/* no descriptors: try again later */
#define RETRY_MS		10	/* accesses wait for a free call */

void
vd__log(struct vd_server *s, int level, const char *fmt, ...)
{
	char msg[512], *c;
	va_list ap;
	int saved = errno;

	if (s->log_fn == NULL)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	/* Some of it may be the peer's own words. */
	for (c = msg; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	s->log_fn(s->log_arg, level, msg);
	errno = saved;
}

void
vd__server_set_timer(struct vd_server *s, int ms)
{
	struct itimerspec it = { 0 };

	s->until = 0;
	s->timed = false;
	if (ms > 0) {
		s->until = vd__now_ms() + ms;
		ms++;			/* when it fires the time is up */
		it.it_value.tv_sec = ms / 1000;
		it.it_value.tv_nsec = ms % 1000 * 1000000L;
	}
	timerfd_settime(s->timer_fd, 0, &it, NULL);
}

/* --- the client's life --------------------------------------------------- */

void
vd__server_wake(struct vd_server *s)
{
	const uint64_t one = 1;

	if (atomic_exchange(&s->posted, true))
		return;
	if (write(s->post_fd, &one, sizeof(one)) == -1)
		return;			/* full: it is readable anyway */
}

static void
wake(void *arg)
{
	vd__server_wake(arg);
}

static const struct vd__conn_ops conn_ops = { .wake = wake,
	    .no_sockets = true };

int
vd__server_reset(struct vd_server *s, enum vd_reset why)
{
	int err;

	/* The memory of a lost client is about to go anyway. */
	if (why != VD_RESET_LOST &&
	    (err = vd__dma_reset(s, &s->parked.waiting)) != 0)
		return (err);
	vd__irq_reset(s);
	vd__pci_reset(s);		/* and with it, bus mastering */
	if (s->ops->reset != NULL)
		s->ops->reset(s->arg, why);
	return (0);
}

static int
watch(struct vd_server *s, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	return (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &ev));
}

/* Take over a connected socket; fd stays the caller's if this fails. */
static int
take_client(struct vd_server *s, int fd)
{
	if (watch(s, fd, EPOLLIN) == -1)
		return (-1);
	if ((s->conn = vd__conn_create(fd, s->limits.max_queued)) == NULL) {
		epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		errno = ENOMEM;
		return (-1);
	}
	vd__conn_set_ops(s->conn, &conn_ops, s);
	vd__conn_set_forced(s->conn, s->limits.force_queue);
	s->conn_fd = fd;
	s->conn_events = EPOLLIN;
	s->drop = false;
	s->client++;
	s->hurry_ms = -1;
	s->stuck_since = 0;
	memset(&s->parked, 0, sizeof(s->parked));
	return (0);
}

int
vd__server_twin(struct vd_server *s, int *fd)
{
	int sv[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1)
		return (errno);
	/* Ours never blocks; the other end is as the client makes it. */
	if (vd__sock_adopt(sv[0], false) == -1) {
		err = errno;
	} else if (vd__conn_set_twin(s->conn, sv[0], true) == -1) {
		err = ENOMEM;
	} else {
		s->twin_fd = sv[0];
		s->twin_events = 0;
		*fd = sv[1];
		return (0);
	}
	vd__close(sv[0]);
	vd__close(sv[1]);
	return (err);
}

/* The client is gone, or has to go. */
static void
drop_client(struct vd_server *s, const char *why)
{
	if (s->conn == NULL)
		return;
	vd__log(s, LOG_INFO, "client is gone: %s", why);
	epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, s->conn_fd, NULL);
	if (s->twin_events != 0)
		epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, s->twin_fd, NULL);
	s->twin_events = 0;
	vd__desk_detach(s);
	vd__messages_detach(s);
	vd__conn_destroy(s->conn);
	s->conn = NULL;
	s->conn_fd = s->twin_fd = -1;
	s->drop = false;
	s->parked.active = false;
	if (s->until != 0)
		vd__server_set_timer(s, 0);
	if (!s->connected)
		return;
	vd__irq_disconnect(s);
	vd__server_reset(s, VD_RESET_LOST);
	s->connected = false;
	if (vd__dma_clear(s) == -1)
		vd__log(s, LOG_ERR, "cannot take out the memory of the "
		    "client yet: %s", strerror(errno));
	if (s->ops->disconnected != NULL)
		s->ops->disconnected(s->arg);
}

/* Drop the client, and tell what a run returns then. */
static int
lose(struct vd_server *s, const char *why)
{
	drop_client(s, why);
	if (s->listen_fd != -1)
		return (1);
	errno = ENOTCONN;
	return (-1);
}

static const char *
why_lost(int err)
{
	switch (err) {
	case ENOTCONN:
		return ("connection closed");
	case EPROTO:
		return ("malformed message header");
	}
	return (strerror(err));
}

static int
accept_client(struct vd_server *s)
{
	int fd;

	if (s->listen_fd == -1) {
		errno = ENOTCONN;
		return (-1);
	}
	if (s->until != 0) {
		if (vd__now_ms() < s->until)
			return (0);
		vd__server_set_timer(s, 0);
	}
	/* What the last one left behind when there was no memory. */
	if (vd__dma_clear(s) == -1)
		return (-1);
	fd = accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd == -1) {
		switch (errno) {
		case EAGAIN:
		case ECONNABORTED:
		case EINTR:
			return (0);
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			vd__log(s, LOG_ERR, "cannot accept a client: %s",
			    strerror(errno));
			vd__server_set_timer(s, BACKOFF_MS);
			return (0);
		}
		return (-1);
	}
	if (!s->any_user && !vd__sock_trusted(fd)) {
		vd__log(s, LOG_WARNING, "client of another user turned away");
		vd__close(fd);
		return (1);
	}
	if (take_client(s, fd) == -1) {
		vd__close(fd);
		return (-1);
	}
	vd__server_set_timer(s, s->version_ms);
	return (1);
}

/* --- running ------------------------------------------------------------- */

/*
 * Empty wake_fd: our own kick, the news of released memory, and of memory that
 * is gone.  The last is in the mark, too, and was there first.
 */
static void
hear(struct vd_server *s)
{
	unsigned int waited;
	uint64_t n, told = atomic_load_explicit(&s->mark.told,
	    memory_order_acquire);

	if (!s->kicked && !vd__dma_releasing(s) && told == s->told)
		return;
	s->told = told;
	if (read(s->wake_fd, &n, sizeof(n)) != sizeof(n))
		return;
	n %= VD__SIGBUS_NEWS;
	if (s->kicked)
		n--;
	s->kicked = false;
	waited = vd__dma_heard(s, n);
	if (s->parked.active)
		s->parked.waiting -= waited;
}

/*
 * Empty post_fd: others have left us something in the connection, which we look
 * at next.  Who finds the flag set does not write.  Were it cleared before the
 * read, somebody could set it in between, and what he writes would be read
 * here: the flag would stay set with nothing to read, and nobody would write
 * any more.
 */
static void
hear_posts(struct vd_server *s)
{
	uint64_t n;

	if (!atomic_load(&s->posted))
		return;
	if (read(s->post_fd, &n, sizeof(n)) == -1)
		return;			/* it is about to be written */
	/* An exchange: what those left who found it set is seen from here. */
	atomic_exchange(&s->posted, false);
}

/* Has the client hung up?  For when nothing is read from it. */
static bool
hung_up(const struct vd_server *s)
{
	struct pollfd pfd = { .fd = s->conn_fd };

	return (poll(&pfd, 1, 0) == 1 &&
	    (pfd.revents & (POLLHUP | POLLERR)) != 0);
}

/* Are replies due that somebody waits for? */
static bool
is_due(const struct vd_server *s)
{
	return (vd__conn_pending(s->conn) > 0 || vd__conn_kept(s->conn) > 0);
}

/* While no commands are taken: see to replies, as vd_server_run(). */
static int
see_to_calls(struct vd_server *s)
{
	/* What nothing moves without may itself wait for replies. */
	if (is_due(s) && vd__conn_pump(s->conn) == -1)
		return (lose(s, why_lost(errno)));
	if (vd__conn_finish(s->conn) > 0)
		return (1);
	return (hung_up(s) ? lose(s, "connection closed") : 0);
}

/* Go on with a command whose reply is due: as vd_server_run(). */
static int
run_parked(struct vd_server *s)
{
	struct vd__parked *p = &s->parked;
	struct iovec iov = { .iov_base = p->head, .iov_len = p->head_len };

	if (p->waiting == 0) {
		p->active = false;
		if (vd__conn_reply(s->conn, &p->req, &iov, 1, NULL, 0) == -1)
			return (lose(s, why_lost(errno)));
		return (1);
	}
	return (see_to_calls(s));
}

/*
 * May answers be more than are kept for this client?  Those that the device
 * has still to give count, but alone they do not keep us from going on: they
 * are bounded themselves, and the next command may be what they wait for.
 */
static bool
is_full(const struct vd_server *s)
{
	size_t queued = vd__conn_queued_on(s->conn, false);

	return (vd__conn_full(s->conn) || (queued > 0 &&
	    queued + vd__desk_bytes(s) > s->limits.max_queued));
}

/*
 * Is it for the client to act before we go on?  If it is dead, a socket in
 * which its own end lies, and which we do not read, does not tell.
 */
static bool
is_held_up(const struct vd_server *s)
{
	return (is_full(s) ||
	    (s->parked.active && vd__conn_kept(s->conn) > 0));
}

/* And has it not, for too long? */
static bool
is_stuck(const struct vd_server *s)
{
	return (s->stuck_since != 0 && is_held_up(s) &&
	    vd__conn_progress(s->conn) == s->stuck_at &&
	    vd__now_ms() - s->stuck_since >= s->limits.stall_timeout_ms);
}

/* Was memory touched that this client has shared, and has taken away? */
static bool
is_memory_gone(const struct vd_server *s)
{
	return (s->conn != NULL && vd__sigbus_lost(&s->mark, s->client));
}

/* Do one thing: as vd_server_run(). */
static int
step(struct vd_server *s)
{
	struct vd__msg m;
	int rv;

	hear(s);
	hear_posts(s);
	if (s->conn == NULL)
		return (accept_client(s));
	if (s->connected && s->until != 0 && vd__now_ms() >= s->until) {
		vd__server_set_timer(s, 0);
		vd__conn_expire(s->conn);
	}
	vd__messages_run(s);
	if (s->drop)
		return (lose(s, "dropped by the device"));
	if (vd__messages_nonsense(s))
		return (lose(s, "its answer to a DMA command makes no sense"));
	if (is_memory_gone(s)) {
		rv = lose(s, "it has made a file shorter that it shared");
		if (rv == -1)
			errno = EFAULT;
		return (rv);
	}
	if (vd__conn_flush(s->conn) == -1)
		return (lose(s, why_lost(errno)));
	/* A client that does not read what it asked for asks in vain. */
	if (s->parked.active || is_full(s)) {
		rv = s->parked.active ? run_parked(s) : see_to_calls(s);
		/* We may not have looked for a while: only now we have. */
		return (rv == 0 && is_stuck(s) ?
		    lose(s, "it does not read or answer") : rv);
	}
	if ((rv = vd__conn_next(s->conn, &m)) == -1)
		return (lose(s, why_lost(errno)));
	if (rv == 0) {
		if (!s->connected && s->until != 0 && vd__now_ms() >= s->until)
			return (lose(s, "no VERSION in time"));
		return (vd__conn_finish(s->conn) > 0);
	}
	rv = vd__server_serve(s, &m);
	vd__msg_close(&m);
	if (rv == -1)
		return (lose(s, why_lost(errno)));
	if (s->drop)
		return (lose(s, "dropped by the device"));
	return (1);
}

static void
rewatch(struct vd_server *s, int fd, uint32_t *now, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	if (fd != -1 && *now != events &&
	    epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, fd, &ev) == 0)
		*now = events;
}

/* One that is not watched at all with no events: not for its end, either. */
static void
rewatch_twin(struct vd_server *s, uint32_t events)
{
	struct epoll_event ev = { .events = events };
	int op = s->twin_events == 0 ? EPOLL_CTL_ADD :
	    events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;

	if (s->twin_fd != -1 && s->twin_events != events &&
	    epoll_ctl(s->epoll_fd, op, s->twin_fd, &ev) == 0)
		s->twin_events = events;
}

/* Is there something to do that no socket tells of? */
static bool
has_more(const struct vd_server *s)
{
	if (s->conn == NULL)
		return (false);
	if (s->drop || vd__messages_nonsense(s) || is_memory_gone(s) ||
	    vd__conn_has_ended(s->conn))
		return (true);
	if (s->parked.active)
		return (s->parked.waiting == 0);
	return (!is_full(s) && vd__conn_ready(s->conn));
}

/* Look again in ms, or earlier; -1: there is no need. */
static void
wake_in(struct vd_server *s, int ms)
{
	bool timed = s->timed;

	if (ms < 0 || (s->until != 0 && vd__now_ms() + ms >= s->until))
		return;
	vd__server_set_timer(s, ms > 0 ? ms : 1);
	s->timed = timed;
}

/* In how many ms the client has to have moved; -1: it need not. */
static int
time_to_move(struct vd_server *s)
{
	uint64_t progress = vd__conn_progress(s->conn);
	int64_t now, left;

	if (!is_held_up(s)) {
		s->stuck_since = 0;
		return (-1);
	}
	now = vd__now_ms();
	if (s->stuck_since == 0 || progress != s->stuck_at)
		s->stuck_since = now;
	s->stuck_at = progress;
	left = s->stuck_since + s->limits.stall_timeout_ms - now;
	return (left > 0 ? (int)left : 0);
}

/*
 * Have the poll descriptor tell of replies, and of calls that are overdue.
 * Who begins a call and finds us inattentive wakes us: either it sees that
 * we are not, or we see its call, as all is in one order.
 */
static void
attend(struct vd_server *s)
{
	bool calls, waiting;
	int ms;

	atomic_store(&s->attentive, false);
	/* What waits for late answers has nothing pending. */
	waiting = vd__messages_waiting(s);
	calls = waiting || vd__conn_pending(s->conn) > 0;
	if (calls && s->connected && !s->timed) {
		ms = vd__conn_expire(s->conn);
		if (waiting && (ms == -1 || ms > RETRY_MS))
			ms = RETRY_MS;
		wake_in(s, ms);
		s->timed = ms >= 0;
	}
	wake_in(s, s->hurry_ms);
	wake_in(s, time_to_move(s));
	rewatch_twin(s, (calls || is_due(s) ? EPOLLIN : 0) |
	    (vd__conn_queued_on(s->conn, true) > 0 ? EPOLLOUT : 0));
	atomic_store(&s->attentive, calls);
}

/* Make the poll descriptor readable exactly if a run would do something. */
static void
settle(struct vd_server *s)
{
	const uint64_t one = 1;
	uint32_t events = 0;

	rewatch(s, s->listen_fd, &s->listen_events,
	    s->conn == NULL && s->until == 0 ? EPOLLIN : 0);
	if (s->conn != NULL) {
		attend(s);
		if (vd__conn_queued_on(s->conn, false) > 0)
			events |= EPOLLOUT;
		/* With a twin no replies come this way. */
		if ((is_due(s) && s->twin_fd == -1) ||
		    (!s->parked.active && !is_full(s)))
			events |= EPOLLIN;
		rewatch(s, s->conn_fd, &s->conn_events, events);
	}
	/* To take a kick back may bring the news that make for another. */
	if (s->kicked && !has_more(s))
		hear(s);
	if (!s->kicked && has_more(s))
		s->kicked = write(s->wake_fd, &one, sizeof(one)) ==
		    sizeof(one);
}

/*
 * Is nothing left, as far as one can tell without asking the socket?  If more
 * comes, or is there after all, the poll descriptor is readable.
 */
static bool
is_quiet(const struct vd_server *s)
{
	return (s->conn != NULL && s->connected &&
	    vd__conn_drained(s->conn) && !has_more(s));
}

static int
run(struct vd_server *s, int max)
{
	int i, rv = 1;

	if (s->busy) {
		errno = EDEADLK;	/* from a callback */
		return (-1);
	}
	s->busy = true;
	vd__messages_running(s, true);
	for (i = 0; i < max && rv == 1 && (i == 0 || !is_quiet(s)); i++)
		rv = step(s);
	s->hurry_ms = s->conn == NULL ? -1 : vd__messages_hurry(s,
	    s->parked.active ? s->parked.since : 0);
	vd__messages_running(s, false);
	s->busy = false;
	settle(s);
	return (rv == 0 && i > 1 ? 1 : rv);
}

int
vd_server_run(struct vd_server *s)
{
	return (run(s, 1));
}

int
vd_server_run_all(struct vd_server *s)
{
	return (run(s, RUN_MAX));
}

/* --- the server's life --------------------------------------------------- */

static void
free_server(struct vd_server *s)
{
	int saved = errno;

	vd__pci_fini(s);
	vd__irq_fini(s);
	vd__dma_fini(s);
	vd__messages_fini(s);
	vd__desk_fini(s);
	vd__close(s->listen_fd);
	vd__close(s->timer_fd);
	vd__close(s->wake_fd);
	vd__close(s->post_fd);
	vd__close(s->epoll_fd);
	free(s->path);
	free(s->buf);
	free(s);
	errno = saved;
}

/* Whatever one client takes, as much is left for those of other servers. */
static unsigned int
default_regions(void)
{
	unsigned int half = vd__mappings_max() / 2;

	if (half >= DEF_DMA_REGIONS)
		return (DEF_DMA_REGIONS);
	return (half > 0 ? half : 1);
}

struct vd_server *
vd_server_create(struct mt_topology *t, const struct vd_device_ops *ops,
    void *arg)
{
	static const struct vd_device_ops none = { 0 };
	struct vd_server *s;

	if ((s = calloc(1, sizeof(*s))) == NULL)
		return (NULL);
	s->topology = t;
	s->ops = ops != NULL ? ops : &none;
	s->arg = arg;
	s->limits.max_dma_regions = default_regions();
	s->limits.max_data_xfer = VD_MAX_DATA_XFER;
	s->limits.max_queued = DEF_QUEUED;
	s->limits.dma_timeout_ms = DEF_DMA_TIMEOUT_MS;
	s->limits.stall_timeout_ms = DEF_STALL_TIMEOUT_MS;
	s->listen_fd = s->conn_fd = s->twin_fd = -1;
	s->version_ms = VERSION_MS;
	s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->mark.fd = s->wake_fd;
	s->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC,
	    TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->epoll_fd == -1 || s->wake_fd == -1 || s->timer_fd == -1 ||
	    s->post_fd == -1 || watch(s, s->wake_fd, EPOLLIN) == -1 ||
	    watch(s, s->post_fd, EPOLLIN) == -1 ||
	    watch(s, s->timer_fd, EPOLLIN) == -1 ||
	    vd__desk_init(s) == -1 || vd__messages_init(s) == -1 ||
	    vd__dma_init(s) == -1 || vd__irq_init(s) == -1 ||
	    vd__pci_init(s) == -1) {
		free_server(s);
		return (NULL);
	}
	return (s);
}

/* Remove our socket, unless something else is there by now. */
static void
remove_path(struct vd_server *s)
{
	struct stat st;

	if (s->path != NULL && lstat(s->path, &st) == 0 &&
	    st.st_dev == s->path_dev && st.st_ino == s->path_ino)
		unlink(s->path);
}

void
vd_server_destroy(struct vd_server *s)
{
	if (s == NULL)
		return;
	s->busy = true;
	drop_client(s, "the server ends");
	remove_path(s);
	hear(s);
	free_server(s);
}

static int
start_listening(struct vd_server *s, int fd)
{
	if (watch(s, fd, EPOLLIN) == -1)
		return (-1);
	s->listen_fd = fd;
	s->listen_events = EPOLLIN;
	return (0);
}

int
vd_server_listen(struct vd_server *s, const char *path)
{
	struct stat st;
	char *copy;
	int fd;

	if (s->listen_fd != -1 || s->conn != NULL) {
		errno = EBUSY;
		return (-1);
	}
	if ((copy = strdup(path)) == NULL)
		return (-1);
	if ((fd = vd__sock_listen(path)) == -1) {
		free(copy);
		return (-1);
	}
	if (lstat(path, &st) == -1 || start_listening(s, fd) == -1) {
		vd__close(fd);
		unlink(path);
		free(copy);
		return (-1);
	}
	s->path = copy;
	s->path_dev = st.st_dev;
	s->path_ino = st.st_ino;
	return (0);
}

void
vd_server_set_any_user(struct vd_server *s, bool any_user)
{
	s->any_user = any_user;
}

int
vd_server_listen_fd(struct vd_server *s, int fd)
{
	if (s->listen_fd != -1 || s->conn != NULL) {
		errno = EBUSY;
		return (-1);
	}
	if (vd__sock_adopt(fd, true) == -1)
		return (-1);
	return (start_listening(s, fd));
}

int
vd_server_attach(struct vd_server *s, int fd)
{
	if (s->listen_fd != -1 || s->conn != NULL) {
		errno = EBUSY;
		return (-1);
	}
	if (vd__sock_adopt(fd, false) == -1 || vd__dma_clear(s) == -1)
		return (-1);
	return (take_client(s, fd));
}

void
vd_server_disconnect(struct vd_server *s)
{
	if (s->conn == NULL)
		return;
	if (s->busy) {
		s->drop = true;		/* by the run that is under way */
		return;
	}
	s->busy = true;
	drop_client(s, "dropped by the device");
	s->busy = false;
	settle(s);
}

int
vd_server_set_limits(struct vd_server *s,
    const struct vd_server_limits *limits)
{
	if (s->conn != NULL) {
		errno = EBUSY;
		return (-1);
	}
	if (limits->dma_timeout_ms > INT32_MAX ||
	    limits->stall_timeout_ms > INT32_MAX ||
	    (limits->max_data_xfer != 0 && (limits->max_data_xfer < 8 ||
	    limits->max_data_xfer > VD_MAX_DATA_XFER))) {
		errno = EINVAL;
		return (-1);
	}
	s->limits = *limits;
	if (s->limits.max_dma_regions == 0)
		s->limits.max_dma_regions = default_regions();
	if (s->limits.max_data_xfer == 0)
		s->limits.max_data_xfer = VD_MAX_DATA_XFER;
	if (s->limits.max_queued == 0)
		s->limits.max_queued = DEF_QUEUED;
	if (s->limits.dma_timeout_ms == 0)
		s->limits.dma_timeout_ms = DEF_DMA_TIMEOUT_MS;
	if (s->limits.stall_timeout_ms == 0)
		s->limits.stall_timeout_ms = DEF_STALL_TIMEOUT_MS;
	return (0);
}

int
vd_server_fd(const struct vd_server *s)
{
	return (s->epoll_fd);
}

struct mt_space *
vd_server_dma(const struct vd_server *s)
{
	return (vd__dma_space(s));
}

bool
vd_server_connected(const struct vd_server *s)
{
	return (s->connected);
}

void
vd_server_set_log(struct vd_server *s,
    void (*fn)(void *arg, int level, const char *msg), void *arg)
{
	s->log_fn = fn;
	s->log_arg = arg;
}
