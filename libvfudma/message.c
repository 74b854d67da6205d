/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client's memory that came without a descriptor: accesses become
 * DMA_READ and DMA_WRITE.
 *
 * An access is cut into parts, a message each, as the peer can take them.
 * Bytes come from the caller's buffer, and go to it, as libvfudma reads and
 * writes its socket.  Accesses that wait end on their own thread.  Deferred
 * ones end on the thread that runs the server, also when the client is lost,
 * or in submit() if they cannot even begin.
 *
 * The client's end.  The connection is destroyed by the server's thread while
 * device threads may be in it.  vd__messages_detach() says so under the lock,
 * under which all calls begin and are cancelled, so nothing begins any more.
 * Then it closes the connection, which ends all calls, so those who wait
 * leave at once; it is destroyed when the last one has left.  A region belongs
 * to one client and is of no use with the next.
 *
 * Memory that the client takes back.  A write that was given up, by us or by
 * time, when the client may have some of it keeps its region until it is
 * answered: vd__call.keep.  Without a twin the client may answer nothing before
 * we answer its command, which waits for the region: see hurry_locked().
 *
 * The server's end.  A thread in a callback of ours keeps the region it came
 * by, and a server waits for all its regions before it is freed, so the server
 * is there until the callback returns.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>

#include "internal.h"

/* Parts of one access that are in flight. */
#define MAX_PARTS	32
/* Parts of all deferred accesses: some calls are left for those who wait. */
#define MAX_DEFERRED	768
/*
 * QEMU (11.1.3) forgets what its socket does not take at once of an answer,
 * and is out of step from there.  The kernel takes an answer of this size, and
 * its header, as a whole or not at all, and then QEMU does try again.
 */
#define QEMU_READ	((size_t)32 << 10)
/* How often to look for a free call, if all are taken. */
#define RETRY_MS	10
/* What a client has for an answer that it may not give before it has ours. */
#define GRACE_MS	200

struct transfer;

/* A message and its reply. */
struct part {
	TAILQ_ENTRY(part) link;		/* in a transfer, or free */
	TAILQ_ENTRY(part) out;		/* with x: in all that are out */
	struct vd__messages *m;
	struct transfer *x;		/* NULL: nobody wants to know */
	struct vd__call call;
	struct vd_dma_access req;
	struct iovec iov[2];
};

TAILQ_HEAD(parts, part);

/* An access. */
struct transfer {
	TAILQ_ENTRY(transfer) link;	/* waiting, over, or free */
	const struct vd__window *window;	/* while it is not over */
	uint64_t addr;			/* the client's */
	uint8_t *buf;
	size_t len;
	bool is_write;
	struct mt_piece *piece;		/* NULL: somebody waits for it */
	size_t begun;			/* bytes */
	struct parts parts;		/* in flight */
	unsigned int nparts;
	bool waiting;			/* in the queue */
	int64_t since;			/* it waits for a call */
	enum mt_result res;
};

TAILQ_HEAD(transfers, transfer);

/*
 * [I] set by vd__messages_init(), then immutable   [a] atomic
 * [l] lock, which comes before all of a connection
 */
struct vd__messages {
	struct vd_server *s;		/* [I] */
	_Atomic(uintptr_t) caller;	/* [a] see vd__messages_serving() */
	_Atomic(uintptr_t) runner;	/* [a] thread that runs the server */
	_Atomic(uintptr_t) home;	/* [a] the last one that did */
	_Atomic(bool) nonsense;		/* [a] from the peer: drop it */
	pthread_mutex_t lock;
	pthread_cond_t ended;		/* with lock: a part, or a user left */
	struct vd__conn *conn;		/* [l] NULL: no client */
	uint64_t client;		/* [l] whose it is */
	bool closing;			/* [l] begin no more */
	bool twin;			/* [l] */
	size_t max_read;		/* [l] */
	size_t max_write;		/* [l] */
	int timeout_ms;			/* [l] */
	_Atomic(int64_t) asked;		/* [la] see vd__messages_hurry() */
	unsigned int users;		/* [l] threads that wait in conn */
	struct parts out;		/* [l] in flight, of all */
	unsigned int nparts;		/* [l] of those */
	struct transfers waiting;	/* [l] deferred: no call was free */
	_Atomic(size_t) nwaiting;	/* [la] read without to know if any */
	struct parts free_parts;	/* [l] */
	struct transfers free_transfers;	/* [l] */
};

static uintptr_t
self(void)
{
	return ((uintptr_t)pthread_self());
}

/* --- parts --------------------------------------------------------------- */

static struct part *
get_part(struct vd__messages *m)
{
	struct part *p = TAILQ_FIRST(&m->free_parts);

	if (p != NULL) {
		TAILQ_REMOVE(&m->free_parts, p, link);
		return (p);
	}
	if ((p = calloc(1, sizeof(*p))) != NULL)
		p->m = m;
	return (p);
}

static void
put_part(struct vd__messages *m, struct part *p)
{
	p->x = NULL;
	TAILQ_INSERT_HEAD(&m->free_parts, p, link);
}

/*
 * A thread that waits for a read, and on which the server runs, answers nothing
 * meanwhile.
 */
static bool
keeps_client(const struct vd__messages *m, const struct transfer *x)
{
	return (x->piece == NULL && !x->is_write && !m->twin &&
	    atomic_load(&m->home) == self());
}

/* Bytes that are still to be asked for. */
static size_t
rest(const struct transfer *x)
{
	return (x->res == MT_OK ? x->len - x->begun : 0);
}

static bool
is_over(const struct transfer *x)
{
	return (x->nparts == 0 && rest(x) == 0);
}

static void	part_done(struct vd__call *call);

/* Until when to wait for the client, for what has begun then. */
static int64_t
limit_locked(const struct vd__messages *m, int64_t since)
{
	int64_t limit = since + m->timeout_ms;

	if (m->asked == 0)
		return (limit);
	if (since < m->asked)
		since = m->asked;
	return (since + GRACE_MS < limit ? since + GRACE_MS : limit);
}

/* How long to wait for the next part of x, which begins now. */
static int
timeout_locked(const struct vd__messages *m, const struct transfer *x)
{
	int64_t now;

	if (m->asked == 0 || x->piece != NULL || x->is_write)
		return (m->timeout_ms);
	now = vd__now_ms();
	return ((int)(limit_locked(m, now) - now));
}

/* Begin the next part of x: 0, or -1 with errno set. */
static int
begin_locked(struct vd__messages *m, struct transfer *x)
{
	uint8_t *buf = x->buf + x->begun;
	size_t n = x->len - x->begun;
	size_t max = x->is_write ? m->max_write : m->max_read;
	struct part *p;
	int rv, saved;

	if (m->closing) {
		errno = ENOTCONN;
		return (-1);
	}
	if (x->piece != NULL && m->nparts >= MAX_DEFERRED) {
		errno = ENOBUFS;
		return (-1);
	}
	if ((p = get_part(m)) == NULL)
		return (-1);
	if (n > max)
		n = max;
	p->x = x;
	p->req.addr = x->addr + x->begun;
	p->req.count = n;
	p->iov[0].iov_base = &p->req;
	p->iov[0].iov_len = sizeof(p->req);
	p->iov[1].iov_base = buf;
	p->iov[1].iov_len = n;
	p->call.data = x->is_write ? NULL : buf;
	p->call.data_len = x->is_write ? 0 : n;
	p->call.head = sizeof(p->req);
	p->call.keep = x->is_write ? x->window->region : NULL;
	p->call.done = x->piece != NULL ? part_done : NULL;
	p->call.arg = p;
	p->call.grace_ms = keeps_client(m, x) ? GRACE_MS : 0;
	rv = vd__conn_send(m->conn, &p->call,
	    x->is_write ? VD_CMD_DMA_WRITE : VD_CMD_DMA_READ, p->iov,
	    x->is_write ? 2 : 1, NULL, 0, timeout_locked(m, x));
	if (rv == -1) {
		saved = errno;
		put_part(m, p);
		errno = saved;
		return (-1);
	}
	TAILQ_INSERT_TAIL(&x->parts, p, link);
	TAILQ_INSERT_TAIL(&m->out, p, out);
	x->nparts++;
	m->nparts++;
	x->begun += n;
	return (0);
}

/*
 * Begin as much of x as may be in flight.  False if no call is free: some end
 * will free one, or, with none in flight, late answers to what was given up.
 */
static bool
push_locked(struct vd__messages *m, struct transfer *x)
{
	while (rest(x) > 0 && x->nparts < MAX_PARTS) {
		if (begin_locked(m, x) == 0)
			continue;
		if (errno == ENOBUFS)
			return (false);
		x->res |= MT_DEVICE;
	}
	return (true);
}

static enum mt_result
bus_error(int err)
{
	switch (err) {
	case EFAULT:
		return (MT_DECODE);
	case EACCES:
	case EPERM:
		return (MT_DENIED);
	}
	return (MT_DEVICE);
}

/* What came of a part whose call has ended. */
static enum mt_result
outcome(struct part *p, bool is_write)
{
	const struct vd__msg *r = &p->call.reply;
	struct vd_dma_access a;
	bool sound;

	if (p->call.err != 0)
		return (bus_error(p->call.err));
	if (is_write && r->len == 0)
		return (MT_OK);		/* as QEMU answers */
	sound = is_write ? r->len == sizeof(a) : p->call.placed;
	if (sound) {
		memcpy(&a, r->data, sizeof(a));
		sound = a.addr == p->req.addr && a.count == p->req.count;
	}
	if (sound)
		return (MT_OK);
	atomic_store(&p->m->nonsense, true);
	vd__server_wake(p->m->s);
	return (MT_DEVICE);
}

/* Take a part out of its transfer. */
static void
unlink_locked(struct vd__messages *m, struct part *p)
{
	TAILQ_REMOVE(&p->x->parts, p, link);
	TAILQ_REMOVE(&m->out, p, out);
	p->x->nparts--;
	m->nparts--;
	pthread_cond_broadcast(&m->ended);
}

/* Its call has ended. */
static void
end_locked(struct vd__messages *m, struct part *p)
{
	if (p->x != NULL) {
		p->x->res |= outcome(p, p->x->is_write);
		unlink_locked(m, p);
	}
	if (p->call.err == 0)
		vd__msg_close(&p->call.reply);
	put_part(m, p);
}

/* --- accesses that wait -------------------------------------------------- */

static void
init_transfer(struct transfer *x, const struct vd__window *w, uint64_t off,
    void *buf, size_t len, bool is_write, struct mt_piece *piece)
{
	x->window = w;
	x->addr = w->addr + off;
	x->buf = buf;
	x->len = len;
	x->is_write = is_write;
	x->piece = piece;
	x->begun = 0;
	TAILQ_INIT(&x->parts);
	x->nparts = 0;
	x->waiting = false;
	x->res = MT_OK;
}

static bool
usable_locked(const struct vd__messages *m, const struct vd__window *w)
{
	return (m->conn != NULL && !m->closing && m->client == w->client);
}

/* Until a part of somebody's has ended, or a little longer. */
static void
sleep_locked(struct vd__messages *m)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_nsec += RETRY_MS * 1000000L;
	if (ts.tv_nsec >= 1000000000L) {
		ts.tv_nsec -= 1000000000L;
		ts.tv_sec++;
	}
	pthread_cond_timedwait(&m->ended, &m->lock, &ts);
}

/* Send and await all of x: with the lock held, but not while it waits. */
static void
carry_locked(struct vd__messages *m, struct transfer *x)
{
	int64_t since = vd__now_ms();
	struct vd__conn *conn = m->conn;
	struct part *p;

	m->users++;
	while (!is_over(x)) {
		push_locked(m, x);
		if ((p = TAILQ_FIRST(&x->parts)) != NULL) {
			pthread_mutex_unlock(&m->lock);
			vd__conn_await(conn, &p->call);
			pthread_mutex_lock(&m->lock);
			end_locked(m, p);
		} else if (rest(x) > 0 &&
		    vd__now_ms() >= limit_locked(m, since)) {
			x->res |= MT_DEVICE;
		} else if (rest(x) > 0) {
			sleep_locked(m);
		}
	}
	m->users--;
	if (m->closing)
		pthread_cond_broadcast(&m->ended);
}

static enum mt_result
transfer(const struct vd__window *w, uint64_t off, void *buf, size_t len,
    bool is_write)
{
	struct vd__messages *m = w->messages;
	struct transfer x;
	bool stuck, wake = false;

	if (!(is_write ? w->writable : w->readable))
		return (MT_DENIED);
	init_transfer(&x, w, off, buf, len, is_write, NULL);
	pthread_mutex_lock(&m->lock);
	stuck = !m->twin && atomic_load(&m->caller) == self();
	if (stuck || !usable_locked(m, w)) {
		x.res = MT_DEVICE;
	} else {
		carry_locked(m, &x);
		/* What is kept now has to be looked after. */
		wake = !TAILQ_EMPTY(&m->waiting) || vd__conn_kept(m->conn) > 0;
	}
	pthread_mutex_unlock(&m->lock);
	if (stuck)
		vd__log(m->s, LOG_ERR, "EDEADLK: the device waits for memory "
		    "at %#" PRIx64 " while the client waits for the device; "
		    "submit the access, or wait on another thread, or have "
		    "the client take a twin socket", w->addr + off);
	if (wake)
		vd__server_wake(m->s);
	return (x.res);
}

static enum mt_result
read_buf(void *arg, mt_addr off, void *buf, size_t len, struct mt_attrs attrs)
{
	(void)attrs;
	return (transfer(arg, off, buf, len, false));
}

static enum mt_result
write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)attrs;
	/* It is only read. */
	return (transfer(arg, off, (void *)(uintptr_t)buf, len, true));
}

/* --- deferred accesses --------------------------------------------------- */

static struct transfer *
get_transfer(struct vd__messages *m)
{
	struct transfer *x = TAILQ_FIRST(&m->free_transfers);

	if (x == NULL)
		return (malloc(sizeof(*x)));
	TAILQ_REMOVE(&m->free_transfers, x, link);
	return (x);
}

static void
put_transfer(struct vd__messages *m, struct transfer *x)
{
	x->piece = NULL;
	TAILQ_INSERT_HEAD(&m->free_transfers, x, link);
}

/* Begin more of x, in its turn. */
static void
advance_locked(struct vd__messages *m, struct transfer *x)
{
	if (x->waiting || rest(x) == 0)
		return;
	if (TAILQ_EMPTY(&m->waiting) && push_locked(m, x))
		return;
	x->waiting = true;
	x->since = vd__now_ms();
	TAILQ_INSERT_TAIL(&m->waiting, x, link);
	m->nwaiting++;
}

static void
unqueue_locked(struct vd__messages *m, struct transfer *x)
{
	if (!x->waiting)
		return;
	x->waiting = false;
	TAILQ_REMOVE(&m->waiting, x, link);
	m->nwaiting--;
}

/* Move x to the list if it is over. */
static void
retire_locked(struct vd__messages *m, struct transfer *x,
    struct transfers *over)
{
	if (!is_over(x))
		return;
	unqueue_locked(m, x);
	TAILQ_INSERT_TAIL(over, x, link);
}

/*
 * Calls may be free: begin what waits for one, in its order.  It waits as long
 * as anything is in flight; but who has left too many unanswered, and answers
 * none of them in all the time, answers no more.
 */
static void
resume_locked(struct vd__messages *m, struct transfers *over)
{
	struct transfer *x;

	while ((x = TAILQ_FIRST(&m->waiting)) != NULL) {
		if (!push_locked(m, x)) {
			if (m->nparts > 0 ||
			    vd__now_ms() < x->since + m->timeout_ms)
				return;
			x->res |= MT_DEVICE;
		}
		unqueue_locked(m, x);
		retire_locked(m, x, over);
	}
}

/* Tell of all in the list; takes the lock, and calls with none. */
static void
complete(struct vd__messages *m, struct transfers *over)
{
	struct mt_piece *piece;
	enum mt_result res;
	struct transfer *x;

	while ((x = TAILQ_FIRST(over)) != NULL) {
		TAILQ_REMOVE(over, x, link);
		piece = x->piece;
		res = x->res;
		pthread_mutex_lock(&m->lock);
		put_transfer(m, x);
		pthread_mutex_unlock(&m->lock);
		mt_access_complete(piece, res);
	}
}

/* A call of a deferred access has ended: on the server's thread. */
static void
part_done(struct vd__call *call)
{
	struct transfers over = TAILQ_HEAD_INITIALIZER(over);
	struct part *p = call->arg;
	struct vd__messages *m = p->m;
	struct transfer *x;

	pthread_mutex_lock(&m->lock);
	x = p->x;
	end_locked(m, p);
	if (x != NULL) {
		advance_locked(m, x);
		retire_locked(m, x, &over);
	}
	resume_locked(m, &over);
	pthread_mutex_unlock(&m->lock);
	complete(m, &over);
}

static void
submit_buf(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	const struct vd__window *w = arg;
	struct transfers over = TAILQ_HEAD_INITIALIZER(over);
	struct vd__messages *m = w->messages;
	struct transfer *x = NULL;

	(void)attrs;
	if (!(is_write ? w->writable : w->readable)) {
		mt_access_complete(piece, MT_DENIED);
		return;
	}
	pthread_mutex_lock(&m->lock);
	if (usable_locked(m, w) && (x = get_transfer(m)) != NULL) {
		init_transfer(x, w, off, buf, len, is_write, piece);
		piece->data = x;
		advance_locked(m, x);
		retire_locked(m, x, &over);
	}
	pthread_mutex_unlock(&m->lock);
	if (x == NULL) {
		mt_access_complete(piece, MT_DEVICE);
		return;
	}
	/*
	 * If a run is under way here, it sees to the call before it ends.  See
	 * the server's attend() for the other flag.  We are in its region
	 * until this returns, so it is there.
	 */
	if (atomic_load(&m->runner) != self() &&
	    (!atomic_load(&m->s->attentive) || m->asked != 0))
		vd__server_wake(m->s);
	complete(m, &over);
}

static bool
cancel_buf(void *arg, struct mt_piece *piece)
{
	const struct vd__window *w = arg;
	struct vd__messages *m = w->messages;
	struct transfer *x;
	struct part *p;
	bool mine, wake;

	pthread_mutex_lock(&m->lock);
	/* Transfers are kept as long as m is, though not for one piece. */
	x = piece->data;
	mine = x != NULL && x->piece == piece && !is_over(x);
	if (mine) {
		while ((p = TAILQ_FIRST(&x->parts)) != NULL) {
			unlink_locked(m, p);
			/* What has ended will be told of, and is ignored. */
			p->x = NULL;
			if (vd__conn_cancel(m->conn, &p->call))
				put_part(m, p);
		}
		unqueue_locked(m, x);
		put_transfer(m, x);
	}
	wake = mine && !TAILQ_EMPTY(&m->waiting);
	pthread_mutex_unlock(&m->lock);
	if (wake)
		vd__server_wake(m->s);
	return (mine);
}

const struct mt_io_ops vd__message_ops = {
	.read_buf = read_buf,
	.write_buf = write_buf,
	.submit_buf = submit_buf,
	.cancel_buf = cancel_buf,
};

/* --- for the server ------------------------------------------------------ */

void
vd__messages_expel(struct vd__window *w)
{
	pthread_mutex_lock(&w->messages->lock);
	w->going = true;
	pthread_mutex_unlock(&w->messages->lock);
}

/*
 * A thread that waits is in a read-side section, and with that keeps all that
 * was there when it began.
 */
static bool
in_the_way(const struct transfer *x)
{
	return (x->piece == NULL || x->window->going);
}

/*
 * The client waits for us.  If it serves nothing meanwhile, which without a
 * twin is its right, what is in its way ends only by time; so after a moment
 * reads do, and all that has not begun.  A write that has begun the client may
 * still do, and has the usual time for.  What was given up by then it has read
 * before it reads our answer, and is not waited for any longer.
 */
static int64_t
hurry_locked(struct vd__messages *m, struct transfers *over)
{
	int64_t next = INT64_MAX, now = vd__now_ms(), limit;
	struct transfer *x, *tx;
	struct part *p;

	TAILQ_FOREACH(p, &m->out, out) {
		if (p->x->is_write || !in_the_way(p->x))
			continue;
		limit = limit_locked(m, p->call.begun);
		if (limit <= now)
			vd__conn_end(m->conn, &p->call);
		else if (limit < next)
			next = limit;
	}
	TAILQ_FOREACH_SAFE(x, &m->waiting, link, tx) {
		if (!in_the_way(x))
			continue;
		limit = limit_locked(m, x->since);
		if (limit <= now) {
			x->res |= MT_DEVICE;
			unqueue_locked(m, x);
			retire_locked(m, x, over);
		} else if (limit < next)
			next = limit;
	}
	if (vd__conn_kept(m->conn) > 0) {
		limit = m->asked + m->timeout_ms;
		if (limit <= now)
			vd__conn_unkeep(m->conn);
		else if (limit < next)
			next = limit;
	}
	return (next == INT64_MAX ? -1 : next - now);
}

int
vd__messages_hurry(struct vd_server *s, int64_t since)
{
	struct transfers over = TAILQ_HEAD_INITIALIZER(over);
	struct vd__messages *m = s->messages;
	int64_t ms = -1;

	if (since == 0 && m->asked == 0)
		return (-1);
	pthread_mutex_lock(&m->lock);
	m->asked = m->twin ? 0 : since;
	if (m->asked != 0)
		ms = hurry_locked(m, &over);
	pthread_mutex_unlock(&m->lock);
	complete(m, &over);
	return ((int)ms);
}

bool
vd__messages_waiting(const struct vd_server *s)
{
	return (s->messages->nwaiting > 0);
}

void
vd__messages_run(struct vd_server *s)
{
	struct transfers over = TAILQ_HEAD_INITIALIZER(over);
	struct vd__messages *m = s->messages;

	if (!vd__messages_waiting(s))
		return;
	pthread_mutex_lock(&m->lock);
	resume_locked(m, &over);
	pthread_mutex_unlock(&m->lock);
	complete(m, &over);
}

void
vd__messages_running(struct vd_server *s, bool running)
{
	atomic_store(&s->messages->runner, running ? self() : 0);
	if (running)
		atomic_store(&s->messages->home, self());
}

bool
vd__messages_runs_here(const struct vd_server *s)
{
	return (atomic_load(&s->messages->runner) == self());
}

void
vd__messages_serving(struct vd_server *s, bool serving)
{
	atomic_store(&s->messages->caller, serving ? self() : 0);
}

bool
vd__messages_nonsense(const struct vd_server *s)
{
	return (atomic_load(&s->messages->nonsense));
}

void
vd__messages_attach(struct vd_server *s)
{
	struct vd__messages *m = s->messages;

	pthread_mutex_lock(&m->lock);
	m->conn = s->conn;
	m->client = s->client;
	m->closing = false;
	m->twin = s->twin_fd != -1;
	m->max_write = VD_MAX_DATA_XFER;
	if (s->peer.max_data_xfer < m->max_write)
		m->max_write = (size_t)s->peer.max_data_xfer;
	m->max_read = m->max_write;
	/* Nobody else offers this. */
	if (s->peer.write_multiple && m->max_read > QEMU_READ)
		m->max_read = QEMU_READ;
	m->timeout_ms = (int)s->limits.dma_timeout_ms;
	pthread_mutex_unlock(&m->lock);
}

void
vd__messages_detach(struct vd_server *s)
{
	struct vd__messages *m = s->messages;

	pthread_mutex_lock(&m->lock);
	m->closing = true;
	pthread_mutex_unlock(&m->lock);
	vd__conn_close(s->conn);
	pthread_mutex_lock(&m->lock);
	while (m->users > 0)
		pthread_cond_wait(&m->ended, &m->lock);
	pthread_mutex_unlock(&m->lock);
	vd__conn_finish(s->conn);
	/* What has begun nothing has been failed by the last to end, or: */
	vd__messages_run(s);
	pthread_mutex_lock(&m->lock);
	m->asked = 0;
	m->conn = NULL;
	pthread_mutex_unlock(&m->lock);
	atomic_store(&m->nonsense, false);
}

void
vd__messages_init_window(struct vd_server *s, struct vd__window *w,
    uint64_t addr, uint32_t flags)
{
	w->messages = s->messages;
	w->region = NULL;
	w->going = false;
	w->addr = addr;
	w->client = s->client;
	w->readable = (flags & VD_DMA_READABLE) != 0;
	w->writable = (flags & VD_DMA_WRITABLE) != 0;
}

int
vd__messages_init(struct vd_server *s)
{
	struct vd__messages *m;
	pthread_condattr_t attr;

	if ((m = calloc(1, sizeof(*m))) == NULL)
		return (-1);
	m->s = s;
	pthread_mutex_init(&m->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&m->ended, &attr);
	pthread_condattr_destroy(&attr);
	TAILQ_INIT(&m->out);
	TAILQ_INIT(&m->waiting);
	TAILQ_INIT(&m->free_parts);
	TAILQ_INIT(&m->free_transfers);
	s->messages = m;
	return (0);
}

void
vd__messages_fini(struct vd_server *s)
{
	struct vd__messages *m = s->messages;
	struct transfer *x;
	struct part *p;

	if (m == NULL)
		return;
	while ((p = TAILQ_FIRST(&m->free_parts)) != NULL) {
		TAILQ_REMOVE(&m->free_parts, p, link);
		free(p);
	}
	while ((x = TAILQ_FIRST(&m->free_transfers)) != NULL) {
		TAILQ_REMOVE(&m->free_transfers, x, link);
		free(x);
	}
	pthread_cond_destroy(&m->ended);
	pthread_mutex_destroy(&m->lock);
	free(m);
	s->messages = NULL;
}
