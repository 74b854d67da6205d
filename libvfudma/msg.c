/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * One connection, used by any threads: commands to the peer with their
 * replies, and the peer's commands.
 *
 * Receiving.  Who holds in_lock is the reader, for as long as bytes are there
 * and never longer: no lock is held while a thread sleeps.  What the reader
 * finds it files: a reply ends its call, a command goes to the list that
 * vd__conn_next() takes from.
 *
 * Waiting.  Of the threads that wait one leads: it sleeps in poll(2) and reads
 * when the sockets have something.  The others sleep until their call ends or
 * the lead falls to them.  A thread that reads without having waited, as the
 * one that runs a server does, may end the leader's call, or leave messages in
 * the buffer; it kicks it out of poll then.
 *
 * Serving.  One thread at a time serves the peer's commands, so that they are
 * done in order.  If it waits for a call of its own meanwhile, it goes on
 * serving inside that wait; other threads that find commands leave them to it.
 *
 * Sending.  A message goes out at once if nothing is queued and the socket
 * takes it.  What it does not take is queued, and sent by whoever finds room
 * next: the leader, the thread that runs the server, the next to send.  Nobody
 * waits for room without reading meanwhile; so two sides that fill each
 * other's sockets both get on.
 *
 * A call that was given up leaves its id behind, in the table, until the late
 * reply comes and is dropped, so that no other call can take it for its own.
 */

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* Calls under way or not answered; a power of two. */
#define MAX_CALLS	1024
/* Of those, how many may have timed out: a peer that answers no more. */
#define MAX_LATE	64

/* Commands in the list, and their descriptors, and nested serving. */
#define MAX_COMMANDS	65536
#define MAX_CMD_FDS	256
#define MAX_SERVING	4
#define SERVE_BATCH	16
/* Places for commands that are kept, so that few commands need no memory. */
#define MAX_SPARE	32
/* With more bytes of answers unsent, no more commands are served. */
#define MAX_ANSWERS	(2 * VD_MAX_MSG_SIZE)

/* A reply at least so long, as far as it has not come, is received in place. */
#define PLACE_MIN	4096
/* With a call out for so much, first look at what comes. */
#define PLACE_LARGE	((size_t)32 << 10)
#define LOOK		64

enum { IDLE, PENDING, ENDED };

/* What has a message id, in the place that the id names modulo MAX_CALLS. */
struct slot {
	struct vd__call *call;		/* NULL: given up, if used */
	uint16_t id;
	uint16_t cmd;
	bool used;
	bool late;			/* given up because it timed out */
};

/* A thread that waits: for its call, or with none for room in the queue. */
struct vd__waiter {
	TAILQ_ENTRY(vd__waiter) link;
	struct vd__call *call;
	bool served;			/* and stays until that is sent */
	pthread_cond_t cond;
};

/* A command that nobody has taken yet. */
struct command {
	TAILQ_ENTRY(command) link;
	struct vd__msg m;
};

TAILQ_HEAD(calls, vd__call);

/*
 * [I] immutable once others use the connection
 * [i] in_lock: being the reader; also all of the streams that is in
 * [o] out_lock: sending; also all of the streams that is out
 * [c] lock: the rest
 * [a] atomic; after a lock: changed under it, and read without where it is
 *     only to be known whether there is something to do
 *
 * Taken in the order in_lock, out_lock, lock.  None is held while anything
 * is called, or waited for.
 */
struct vd__conn {
	pthread_mutex_t in_lock;
	pthread_mutex_t out_lock;
	pthread_mutex_t lock;
	struct vd__stream streams[2];	/* the socket; its twin */
	struct vd__stream *ours;	/* [I] our commands go this way */
	unsigned int nstreams;		/* [I] */
	size_t max_queued;		/* [I] */
	bool forced;			/* [I] */
	const struct vd__conn_ops *ops;	/* [I] */
	void *arg;			/* [I] */
	int kick_fd;			/* [I] eventfd: out of poll with you */
	_Atomic(int) error;		/* [a] why it has ended; 0: it has not */
	_Atomic(size_t) inbufs;		/* [a] bytes */
	_Atomic(bool) more;		/* [ia] messages left in a buffer */
	_Atomic(bool) drained;		/* [ia] the socket, as it seems */

	struct slot slots[MAX_CALLS];	/* [c] */
	uint16_t next_id;		/* [c] */
	_Atomic(size_t) npending;	/* [ca] */
	_Atomic(size_t) nlost;		/* [ca] used slots without a call */
	size_t nlate;			/* [c] of them, by a timeout */
	_Atomic(size_t) nlarge;		/* [ca] calls out for much */
	_Atomic(size_t) queued;		/* [oa] bytes, in both streams */
	_Atomic(bool) full;		/* [oa] too many in one of them */
	struct calls pending;		/* [c] with done; by deadline */
	struct calls ended;		/* [c] with done */
	_Atomic(size_t) nended;		/* [ca] */
	TAILQ_HEAD(, vd__waiter) waiters;	/* [c] */
	struct vd__waiter *leader;	/* [c] */
	bool polling;			/* [c] the leader sleeps */
	bool kicked;			/* [c] and has been kicked, by kick_fd */
	TAILQ_HEAD(, command) commands;	/* [c] */
	TAILQ_HEAD(, command) spare;	/* [c] places for more */
	unsigned int nspare;		/* [c] */
	_Atomic(size_t) ncommands;	/* [ca] */
	size_t ncmd_fds;		/* [c] */
	unsigned int serving;		/* [c] how often, nested */
	pthread_t server;		/* [c] who, if serving */
	struct vd__waiter *nested;	/* [c] waits inside of serving */
};

/* --- life ---------------------------------------------------------------- */

static const struct vd__conn_ops no_ops;

struct vd__conn *
vd__conn_create(int fd, size_t max_queued)
{
	struct vd__conn *c;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return (NULL);
	c->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->kick_fd == -1 ||
	    vd__stream_init(&c->streams[0], fd, &c->inbufs) == -1) {
		vd__close(c->kick_fd);
		free(c);
		return (NULL);
	}
	pthread_mutex_init(&c->in_lock, NULL);
	pthread_mutex_init(&c->out_lock, NULL);
	pthread_mutex_init(&c->lock, NULL);
	TAILQ_INIT(&c->pending);
	TAILQ_INIT(&c->ended);
	TAILQ_INIT(&c->waiters);
	TAILQ_INIT(&c->commands);
	TAILQ_INIT(&c->spare);
	c->nstreams = 1;
	c->ours = &c->streams[0];
	c->ops = &no_ops;
	c->max_queued = max_queued;
	return (c);
}

void
vd__conn_set_ops(struct vd__conn *c, const struct vd__conn_ops *ops,
    void *arg)
{
	c->ops = ops;
	c->arg = arg;
}

void
vd__conn_set_forced(struct vd__conn *c, bool forced)
{
	c->forced = forced;
}

int
vd__conn_set_twin(struct vd__conn *c, int fd, bool ours)
{
	if (vd__stream_init(&c->streams[1], fd, &c->inbufs) == -1)
		return (-1);
	c->nstreams = 2;
	if (ours)
		c->ours = &c->streams[1];
	return (0);
}

static bool
is_closed(const struct vd__conn *c)
{
	return (atomic_load_explicit(&c->error, memory_order_acquire) != 0);
}

/*
 * The connection is of no more use: -1 with errno set.  The descriptors stay
 * until it is destroyed, so that who watches them can stop before their
 * numbers are used again; who sleeps on them wakes.
 */
static int
broken(struct vd__conn *c, int err)
{
	unsigned int i;
	int none = 0;

	if (atomic_compare_exchange_strong_explicit(&c->error, &none, err,
	    memory_order_acq_rel, memory_order_acquire))
		for (i = 0; i < c->nstreams; i++)
			shutdown(c->streams[i].fd, SHUT_RDWR);
	errno = err;
	return (-1);
}

/* Out of poll with the leader, if it is there: with lock held. */
static void
kick(struct vd__conn *c)
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

/* The call has ended, of which done will tell if tell: with lock held. */
static void
end_call(struct vd__conn *c, struct vd__call *call, int err, bool tell)
{
	call->err = err;
	call->state = ENDED;
	c->npending--;
	if (call->data_len >= PLACE_LARGE)
		atomic_fetch_sub_explicit(&c->nlarge, 1, memory_order_relaxed);
	if (call->done != NULL) {
		TAILQ_REMOVE(&c->pending, call, link);
		if (tell) {
			TAILQ_INSERT_TAIL(&c->ended, call, link);
			c->nended++;
		}
	} else if (call->waiter != NULL) {
		if (call->waiter != c->leader)
			pthread_cond_signal(&call->waiter->cond);
		else
			kick(c);
	}
}

static void
free_slot(struct slot *s)
{
	s->used = false;
	s->call = NULL;
}

/* Close what came and was not claimed. */
static void
drop_held(struct vd__stream *st)
{
	size_t i;

	for (i = 0; i < st->nheld; i++)
		vd__close(st->held[i].fd);
	st->nheld = 0;
}

/* With out_lock held, after a change of what is queued. */
static void
count_queued(struct vd__conn *c)
{
	bool full = false;
	unsigned int i;
	size_t n = 0;

	for (i = 0; i < c->nstreams; i++) {
		n += c->streams[i].queued;
		full = full || vd__stream_full(&c->streams[i], c->max_queued);
	}
	atomic_store_explicit(&c->queued, n, memory_order_relaxed);
	atomic_store(&c->full, full);
}

/*
 * End all calls of a connection that has ended.  After this nobody touches
 * what they lent: the reader is not here, and the queue is gone.
 */
static void
fail_calls(struct vd__conn *c)
{
	int err = atomic_load_explicit(&c->error, memory_order_acquire);
	struct vd__call *call;
	struct vd__waiter *w;
	bool told = false;
	unsigned int i;

	pthread_mutex_lock(&c->in_lock);
	pthread_mutex_lock(&c->out_lock);
	pthread_mutex_lock(&c->lock);
	for (i = 0; i < c->nstreams; i++) {
		vd__stream_clear(&c->streams[i]);
		c->streams[i].place = NULL;
		drop_held(&c->streams[i]);
	}
	count_queued(c);
	for (i = 0; i < MAX_CALLS && c->npending > 0; i++) {
		if ((call = c->slots[i].call) == NULL)
			continue;
		told = told || call->done != NULL;
		free_slot(&c->slots[i]);
		end_call(c, call, err, true);
	}
	TAILQ_FOREACH(w, &c->waiters, link)
		pthread_cond_signal(&w->cond);
	kick(c);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->out_lock);
	pthread_mutex_unlock(&c->in_lock);
	if (told && c->ops->wake != NULL)
		c->ops->wake(c->arg);
}

/* rv as it is; but the end of the connection is the end of all calls. */
static int
result(struct vd__conn *c, int rv)
{
	int saved = errno;

	if (rv == -1 && is_closed(c)) {
		fail_calls(c);
		errno = saved;
	}
	return (rv);
}

static bool
is_open(const struct vd__conn *c)
{
	if (!is_closed(c))
		return (true);
	errno = ENOTCONN;
	return (false);
}

/* Take the first command that waits: with lock held. */
static bool
pop_command(struct vd__conn *c, struct vd__msg *m)
{
	struct command *cmd = TAILQ_FIRST(&c->commands);

	if (cmd == NULL)
		return (false);
	TAILQ_REMOVE(&c->commands, cmd, link);
	atomic_fetch_sub_explicit(&c->ncommands, 1, memory_order_relaxed);
	c->ncmd_fds -= cmd->m.nfds;
	*m = cmd->m;
	if (c->nspare < MAX_SPARE) {
		TAILQ_INSERT_HEAD(&c->spare, cmd, link);
		c->nspare++;
	} else
		free(cmd);
	return (true);
}

/* A place for a command: with lock held.  NULL: no memory. */
static struct command *
get_command(struct vd__conn *c)
{
	struct command *cmd = TAILQ_FIRST(&c->spare);

	if (cmd == NULL)
		return (malloc(sizeof(*cmd)));
	TAILQ_REMOVE(&c->spare, cmd, link);
	c->nspare--;
	return (cmd);
}

static void
drop_commands(struct vd__conn *c)
{
	struct vd__msg m;

	while (pop_command(c, &m))
		vd__msg_close(&m);
}

void
vd__conn_close(struct vd__conn *c)
{
	broken(c, ENOTCONN);
	fail_calls(c);
	pthread_mutex_lock(&c->lock);
	drop_commands(c);
	pthread_mutex_unlock(&c->lock);
}

void
vd__conn_destroy(struct vd__conn *c)
{
	struct command *cmd;
	int saved = errno;
	unsigned int i;

	if (c == NULL)
		return;
	vd__conn_close(c);
	while (c->nspare > 0 && (cmd = get_command(c)) != NULL)
		free(cmd);
	for (i = 0; i < c->nstreams; i++)
		vd__stream_fini(&c->streams[i]);
	vd__close(c->kick_fd);
	pthread_mutex_destroy(&c->in_lock);
	pthread_mutex_destroy(&c->out_lock);
	pthread_mutex_destroy(&c->lock);
	free(c);
	errno = saved;
}

int
vd__conn_fd(const struct vd__conn *c)
{
	return (is_closed(c) ? -1 : c->streams[0].fd);
}

int
vd__conn_twin_fd(const struct vd__conn *c)
{
	return (is_closed(c) || c->nstreams < 2 ? -1 : c->streams[1].fd);
}

/* --- receiving ----------------------------------------------------------- */

/* The slot of a call that this answers: with lock held. */
static struct slot *
find_slot(struct vd__conn *c, const struct vd_hdr *hdr)
{
	struct slot *s = &c->slots[hdr->id % MAX_CALLS];

	if (!s->used || s->id != hdr->id || s->cmd != hdr->cmd ||
	    (hdr->flags & VD_TYPE_MASK) != VD_TYPE_REPLY)
		return (NULL);
	return (s);
}

static bool
fits(const struct vd__call *call, const struct vd_hdr *hdr)
{
	return (call->data != NULL && (hdr->flags & VD_ERROR) == 0 &&
	    hdr->size - sizeof(*hdr) == call->head + call->data_len);
}

/* Receive the rest of a message, of which need bytes are due, in place? */
static bool
try_place(struct vd__conn *c, struct vd__stream *st, const struct vd_hdr *hdr)
{
	size_t have = st->end - st->start;
	struct vd__call *call = NULL;
	struct slot *s;

	if (st != c->ours || hdr->size - have < PLACE_MIN)
		return (false);
	pthread_mutex_lock(&c->lock);
	s = find_slot(c, hdr);
	if (s != NULL && s->call != NULL && fits(s->call, hdr) &&
	    have >= sizeof(*hdr) + s->call->head)
		call = s->call;
	/* Only a thread that has in_lock, as we do, ends it from here on. */
	pthread_mutex_unlock(&c->lock);
	if (call == NULL)
		return (false);
	call->placing = st;
	vd__stream_place(st, hdr, call->head, call->head_buf, call->data);
	return (true);
}

/*
 * As many bytes as are good to receive next: no more than a header, if what
 * follows may be much that is wanted elsewhere.
 */
static size_t
appetite(struct vd__conn *c, const struct vd__stream *st)
{
	return (st == c->ours && st->end == st->start &&
	    atomic_load_explicit(&c->nlarge, memory_order_relaxed) > 0 ?
	    LOOK : SIZE_MAX);
}

/* Descriptors are to wait for the rest of their message. */
static void
look_at_held(struct vd__conn *c, struct vd__stream *st)
{
	if (c->ops->no_sockets && st->nheld > 0)
		vd__stream_drop_sockets(st);
}

/*
 * Take one message from a stream: 1, 0 if none is whole, or -1.  Without
 * receive only from its buffer.
 */
static int
read_message(struct vd__conn *c, struct vd__stream *st, struct vd__msg *m,
    bool receive)
{
	struct vd_hdr hdr;
	size_t need;
	int rv;

	for (;;) {
		if (st->place_left > 0) {
			if (!receive)
				return (0);
			if ((rv = vd__stream_placed(st, m)) == 0)
				look_at_held(c, st);
			return (rv == -1 ? broken(c, errno) : rv);
		}
		if ((rv = vd__stream_peek(st, &hdr, &need)) == -1)
			return (broken(c, EPROTO));
		if (rv == 1) {
			vd__stream_take(st, &hdr, m);
			return (1);
		}
		if (!receive)
			return (0);
		if (need > sizeof(hdr) && try_place(c, st, &hdr))
			continue;
		rv = vd__stream_fill(st, need, appetite(c, st));
		if (rv == 0)
			look_at_held(c, st);
		if (rv != 1)
			return (rv == -1 ? broken(c, errno) : 0);
	}
}

/*
 * An answer has come before all of the question was sent: take back what call
 * lends.  False if none of it was sent, or if there is no memory.
 */
static bool
take_back(struct vd__conn *c, struct vd__call *call)
{
	int rv;

	pthread_mutex_lock(&c->out_lock);
	rv = vd__stream_unlend(c->ours, call);
	count_queued(c);
	pthread_mutex_unlock(&c->out_lock);
	if (rv != 0)
		broken(c, rv == -1 ? ENOMEM : EPROTO);
	return (rv == 0);
}

/* End the call that m answers; false if there is none. */
static bool
file_reply(struct vd__conn *c, struct vd__msg *m, bool *told)
{
	struct vd__call *call;
	struct slot *s;
	int err = 0;

	pthread_mutex_lock(&c->lock);
	if ((s = find_slot(c, &m->hdr)) == NULL || m->from != c->ours) {
		pthread_mutex_unlock(&c->lock);
		return (false);
	}
	call = s->call;
	/* Acquire: who has sent it touches it no more. */
	if (call != NULL && atomic_load_explicit(&call->lent,
	    memory_order_acquire)) {
		pthread_mutex_unlock(&c->lock);
		if (!take_back(c, call))
			return (false);
		pthread_mutex_lock(&c->lock);
	}
	free_slot(s);
	if (call == NULL) {
		c->nlost--;
		c->nlate -= s->late;
		pthread_mutex_unlock(&c->lock);
		vd__msg_close(m);
		return (true);
	}
	if (m->hdr.flags & VD_ERROR) {
		err = vd__wire_errno(&m->hdr);
		vd__msg_close(m);
	} else {
		call->reply = *m;
		if (m->buf == NULL && call->placing != NULL)
			call->placed = true;
		else if (fits(call, &m->hdr)) {
			memcpy(call->data, m->data + call->head,
			    call->data_len);
			call->placed = true;
		}
		if (m->buf == NULL)
			call->reply.data = call->head_buf;
	}
	call->placing = NULL;
	*told = *told || call->done != NULL;
	end_call(c, call, err, true);
	pthread_mutex_unlock(&c->lock);
	return (true);
}

/* Are commands served by who waits? */
static bool
serves(const struct vd__conn *c)
{
	return (c->ops->serve != NULL || c->ops->wake == NULL);
}

static bool
is_command(const struct vd__msg *m)
{
	return ((m->hdr.flags & VD_TYPE_MASK) == VD_TYPE_COMMAND);
}

/* Keep a command for who takes them: 0, or -1. */
static int
queue_command(struct vd__conn *c, struct vd__msg *m)
{
	struct command *cmd;
	bool full;
	size_t i;

	pthread_mutex_lock(&c->lock);
	full = c->ncommands == MAX_COMMANDS;
	if (full || (cmd = get_command(c)) == NULL) {
		pthread_mutex_unlock(&c->lock);
		vd__msg_close(m);
		return (broken(c, full ? EPROTO : ENOMEM));
	}
	if (c->ncmd_fds + m->nfds > MAX_CMD_FDS) {
		for (i = 0; i < m->nfds; i++)
			vd__close(m->fds[i]);
		m->nfds = 0;
		m->fds_lost = true;
	}
	cmd->m = *m;
	TAILQ_INSERT_TAIL(&c->commands, cmd, link);
	atomic_fetch_add_explicit(&c->ncommands, 1, memory_order_relaxed);
	c->ncmd_fds += m->nfds;
	pthread_mutex_unlock(&c->lock);
	return (0);
}

/* Serves already, or could: this thread, with lock held. */
static bool
may_serve(struct vd__conn *c)
{
	return (serves(c) && vd__conn_queued(c) <= MAX_ANSWERS &&
	    (c->serving == 0 || pthread_equal(c->server, pthread_self())));
}

/*
 * Does who waits for replies read this stream?  With a twin, commands that are
 * not for us to serve stay in theirs.
 */
static bool
heeds(const struct vd__conn *c, const struct vd__stream *st)
{
	return (c->nstreams == 1 || st == c->ours || serves(c));
}

/* A command that comes where only replies may. */
static bool
is_astray(const struct vd__conn *c, const struct vd__msg *m)
{
	return (c->nstreams > 1 && m->from == c->ours && is_command(m));
}

/* A twin of ours by which nothing is due. */
static bool
is_idle(const struct vd__conn *c, const struct vd__stream *st)
{
	return (st == &c->streams[1] && st == c->ours &&
	    c->npending + c->nlost == 0);
}

/* See whether messages, or what can be none, are left in the buffers. */
static void
look_for_more(struct vd__conn *c)
{
	struct vd_hdr hdr;
	bool more = false;
	unsigned int i;
	size_t need;

	for (i = 0; i < c->nstreams; i++)
		more = more || (!is_idle(c, &c->streams[i]) &&
		    c->streams[i].place_left == 0 &&
		    vd__stream_peek(&c->streams[i], &hdr, &need) != 0);
	atomic_store(&c->more, more);
	atomic_store_explicit(&c->drained, c->streams[0].drained,
	    memory_order_relaxed);
}

/*
 * Read all that is there, and file it, with in_lock held: 0, or -1.  *told is
 * set if others have to hear of it.  Commands that we are to serve ourselves
 * are left in the socket for a while; so is who never stops talking, at until.
 * Waiter w, if not NULL, stops when its call has ended, which nobody else does.
 * Another reader may have ended it before; then w receives only if it is here
 * for room in the queue, which the peer may not make before we receive.
 * A receive that has found less than it had room for is the last one, as to
 * learn that nothing more is there would take another; if something is, who
 * sleeps in poll is woken.
 */
static int
read_all(struct vd__conn *c, bool *told, int64_t until,
    const struct vd__waiter *w)
{
	const struct vd__call *own = w != NULL ? w->call : NULL;
	bool receive = own == NULL || own->state != ENDED || w->served;
	bool more, serving;
	struct vd__stream *st;
	struct vd__msg m;
	unsigned int i;
	int rv = 0;

	pthread_mutex_lock(&c->lock);
	serving = may_serve(c);
	pthread_mutex_unlock(&c->lock);
	for (i = 0; i < c->nstreams && rv != -1; i++) {
		/* Answers come first by ours, and other things by the twin. */
		st = &c->streams[own != NULL ? i : c->nstreams - 1 - i];
		if (!heeds(c, st))
			continue;
		more = receive;
		while ((rv = read_message(c, st, &m, more)) == 1) {
			if (is_command(&m) && !is_astray(c, &m)) {
				if (queue_command(c, &m) == -1)
					return (-1);
				*told = true;
			} else if (is_command(&m) || !file_reply(c, &m, told)) {
				vd__msg_close(&m);
				return (broken(c, EPROTO));
			}
			/* What has been received is filed in any case. */
			if ((until != -1 && vd__now_ms() > until) ||
			    (serving && c->ncommands >= SERVE_BATCH) ||
			    (own != NULL && own->state == ENDED))
				receive = false;
			more = receive && !st->drained;
		}
		/* Nothing is due by the other one. */
		if (own == NULL && *told && c->npending + c->nlost == 0)
			break;
	}
	look_for_more(c);
	return (rv);
}

/* Take the next message that is no reply to a call: with in_lock held. */
static int
next_message(struct vd__conn *c, struct vd__msg *m, bool *told)
{
	struct vd__stream *st;
	bool popped, more;
	unsigned int i;
	int rv = 0;

	/* What others have read comes first. */
	if (c->ncommands > 0) {
		pthread_mutex_lock(&c->lock);
		popped = pop_command(c, m);
		pthread_mutex_unlock(&c->lock);
		if (popped)
			return (1);
	}
	for (i = c->nstreams; i-- > 0;) {
		st = &c->streams[i];
		if (is_idle(c, st))
			continue;
		more = true;
		while ((rv = read_message(c, st, m, more)) == 1) {
			if (is_astray(c, m)) {
				vd__msg_close(m);
				return (broken(c, EPROTO));
			}
			if (is_command(m) || !file_reply(c, m, told))
				return (1);
			more = !st->drained;
		}
		if (rv == -1)
			return (-1);
	}
	return (0);
}

int
vd__conn_next(struct vd__conn *c, struct vd__msg *m)
{
	bool told = false;
	int rv;

	memset(m, 0, sizeof(*m));
	if (!is_open(c))
		return (-1);
	pthread_mutex_lock(&c->in_lock);
	rv = next_message(c, m, &told);
	look_for_more(c);
	pthread_mutex_unlock(&c->in_lock);
	/* The socket tells the leader nothing of what we have left. */
	if (c->more && c->npending > 0) {
		pthread_mutex_lock(&c->lock);
		kick(c);
		pthread_mutex_unlock(&c->lock);
	}
	return (result(c, rv));
}

static int
pump(struct vd__conn *c, bool *told)
{
	int rv;

	*told = false;
	if (!is_open(c))
		return (-1);
	pthread_mutex_lock(&c->in_lock);
	rv = read_all(c, told, -1, NULL);
	pthread_mutex_unlock(&c->in_lock);
	return (result(c, rv));
}

int
vd__conn_pump(struct vd__conn *c)
{
	bool told;

	return (pump(c, &told));
}

bool
vd__conn_ready(struct vd__conn *c)
{
	return (!is_closed(c) && (c->ncommands > 0 || c->more));
}

bool
vd__conn_drained(struct vd__conn *c)
{
	return (atomic_load_explicit(&c->drained, memory_order_relaxed));
}

/* --- sending ------------------------------------------------------------- */

size_t
vd__conn_queued(struct vd__conn *c)
{
	return (atomic_load_explicit(&c->queued, memory_order_relaxed));
}

size_t
vd__conn_queued_on(struct vd__conn *c, bool twin)
{
	size_t n;

	if (vd__conn_queued(c) == 0)
		return (0);
	pthread_mutex_lock(&c->out_lock);
	n = c->streams[twin].queued;
	pthread_mutex_unlock(&c->out_lock);
	return (n);
}

bool
vd__conn_full(struct vd__conn *c)
{
	return (atomic_load(&c->full));
}

int
vd__conn_flush(struct vd__conn *c)
{
	int rv = 1, err = 0;
	unsigned int i;

	if (!is_open(c))
		return (-1);
	if (vd__conn_queued(c) == 0)
		return (1);
	pthread_mutex_lock(&c->out_lock);
	for (i = 0; i < c->nstreams && rv != -1; i++) {
		switch (vd__stream_flush(&c->streams[i])) {
		case -1:
			err = errno;
			rv = -1;
			break;
		case 0:
			rv = 0;
			break;
		}
	}
	count_queued(c);
	pthread_mutex_unlock(&c->out_lock);
	return (result(c, rv == -1 ? broken(c, err) : rv));
}

/* Into the list by deadline: nearly always at its end. */
static void
insert_pending(struct vd__conn *c, struct vd__call *call)
{
	struct vd__call *at;

	TAILQ_FOREACH_REVERSE(at, &c->pending, calls, link) {
		if (call->deadline == -1 || (at->deadline != -1 &&
		    at->deadline <= call->deadline))
			break;
	}
	if (at != NULL)
		TAILQ_INSERT_AFTER(&c->pending, at, call, link);
	else
		TAILQ_INSERT_HEAD(&c->pending, call, link);
}

/* Give call a slot, and hdr its id: 0, or -1 with ENOBUFS; with out_lock. */
static int
begin_call(struct vd__conn *c, struct vd__call *call, struct vd_hdr *hdr,
    size_t nfds)
{
	struct slot *s;

	pthread_mutex_lock(&c->lock);
	if (c->npending + c->nlost == MAX_CALLS || c->nlate >= MAX_LATE ||
	    (nfds > 0 && vd__stream_no_parcels(c->ours))) {
		pthread_mutex_unlock(&c->lock);
		errno = ENOBUFS;
		return (-1);
	}
	while ((s = &c->slots[c->next_id % MAX_CALLS])->used)
		c->next_id++;
	s->id = c->next_id++;
	s->used = true;
	s->cmd = hdr->cmd;
	s->call = call;
	hdr->id = s->id;
	call->slot = (uint16_t)(s - c->slots);
	call->state = PENDING;
	c->npending++;
	if (call->data_len >= PLACE_LARGE)
		atomic_fetch_add_explicit(&c->nlarge, 1, memory_order_relaxed);
	if (call->done != NULL)
		insert_pending(c, call);
	pthread_mutex_unlock(&c->lock);
	return (0);
}

/*
 * Send a message by st, or queue it, and see to it that it will be sent: 0, or
 * -1.  With ENOBUFS nothing has happened, nor is anything sent with what
 * vd__stream_is_fd_error() knows.  A call begins by this, while nobody can take
 * it back; it gives hdr its id.
 */
static int
put(struct vd__conn *c, struct vd__stream *st, struct vd_hdr *hdr,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    struct vd__call *call)
{
	int rv, err;

	assert(iovcnt <= VD__MAX_IOV);
	pthread_mutex_lock(&c->out_lock);
	rv = call != NULL ? begin_call(c, call, hdr, nfds) : 0;
	/* A call whose end has come already is no longer ours to touch. */
	if (rv == 0 && !is_open(c))
		rv = -1;
	if (rv == 0) {
		rv = vd__stream_put(st, hdr, iov, iovcnt, fds, nfds, call,
		    c->forced);
		err = errno;
		if (rv != 1 || vd__conn_queued(c) > 0)
			count_queued(c);
		errno = err;
	}
	err = errno;
	pthread_mutex_unlock(&c->out_lock);
	if (rv == 1)
		return (0);
	if (rv == -1) {
		errno = err;
		return (err == ENOBUFS || vd__stream_is_fd_error(err) ? -1 :
		    broken(c, err));
	}
	pthread_mutex_lock(&c->lock);
	kick(c);
	pthread_mutex_unlock(&c->lock);
	if (c->ops->wake != NULL)
		c->ops->wake(c->arg);
	return (0);
}

/* The size of a message, or 0 if there can be none like that. */
static size_t
message_size(const struct iovec *iov, int iovcnt)
{
	size_t size = sizeof(struct vd_hdr);
	int i;

	for (i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len > VD_MAX_MSG_SIZE - size)
			return (0);
		size += iov[i].iov_len;
	}
	return (size);
}

static struct vd__stream *
way_back(struct vd__conn *c, const struct vd__msg *req)
{
	return (req->from != NULL ? req->from : &c->streams[0]);
}

int
vd__conn_reply(struct vd__conn *c, const struct vd__msg *req,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds)
{
	struct vd_hdr hdr;
	size_t size;

	if (!is_open(c))
		return (-1);
	if (req->hdr.flags & VD_NO_REPLY)
		return (0);
	if ((size = message_size(iov, iovcnt)) == 0) {
		errno = EMSGSIZE;
		return (-1);
	}
	vd__wire_reply(&hdr, &req->hdr, size - sizeof(hdr));
	if (put(c, way_back(c, req), &hdr, iov, iovcnt, fds, nfds, NULL) == 0)
		return (0);
	if (vd__stream_is_fd_error(errno))
		return (vd__conn_error(c, req, errno));
	/* The peer would wait for ever. */
	return (result(c, broken(c, errno == ENOBUFS ? ENOMEM : errno)));
}

int
vd__conn_error(struct vd__conn *c, const struct vd__msg *req, int err)
{
	struct vd_hdr hdr;

	if (!is_open(c))
		return (-1);
	if (req->hdr.flags & VD_NO_REPLY)
		return (0);
	vd__wire_error(&hdr, &req->hdr, err);
	return (result(c, put(c, way_back(c, req), &hdr, NULL, 0, NULL, 0, NULL)));
}

/* --- calls --------------------------------------------------------------- */

int64_t
vd__now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

int
vd__conn_send(struct vd__conn *c, struct vd__call *call, enum vd_cmd cmd,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    int timeout_ms)
{
	struct vd_hdr hdr = { .cmd = (uint16_t)cmd,
	    .flags = VD_TYPE_COMMAND };
	size_t size;
	bool told;
	int rv, err;

	assert(call->head <= sizeof(call->head_buf));
	if (!is_open(c))
		return (-1);
	if ((size = message_size(iov, iovcnt)) == 0 || nfds > VD_MAX_FDS) {
		errno = EMSGSIZE;
		return (-1);
	}
	hdr.size = (uint32_t)size;
	call->err = 0;
	call->placed = false;
	call->waiter = NULL;
	call->placing = NULL;
	call->reply.nfds = 0;
	call->reply.buf = NULL;
	call->out.queued = call->out.begun = false;
	atomic_init(&call->lent, true);
	call->deadline = timeout_ms < 0 ? -1 : vd__now_ms() + timeout_ms;
	rv = put(c, c->ours, &hdr, iov, iovcnt, fds, nfds, call);
	if (rv == -1 && errno == ENOBUFS) {
		/* Late replies may be there by now. */
		rv = pump(c, &told);
		if (told && c->ops->wake != NULL)
			c->ops->wake(c->arg);
		if (rv == -1)
			return (-1);
		rv = put(c, c->ours, &hdr, iov, iovcnt, fds, nfds, call);
		if (rv == -1 && errno == ENOBUFS)
			return (-1);
	}
	if (rv == -1 && vd__stream_is_fd_error(errno)) {
		err = errno;
		if (vd__conn_cancel(c, call)) {
			errno = err;
			return (-1);
		}
		return (0);		/* the connection has ended it */
	}
	/* It has begun, so its failure is told by its end. */
	if (rv == -1)
		fail_calls(c);
	return (0);
}

/*
 * Take a pending call out, with its memory: with in_lock, so that nothing is
 * being received into it.  Returns 0 or -1.
 */
static int
withdraw(struct vd__conn *c, struct vd__call *call, int err, bool tell)
{
	struct slot *s = &c->slots[call->slot];
	int rv;

	pthread_mutex_lock(&c->out_lock);
	rv = vd__stream_unlend(c->ours, call);
	if (rv == -1)
		vd__stream_clear(c->ours);	/* this is the end */
	count_queued(c);
	pthread_mutex_lock(&c->lock);
	if (rv == 1)
		free_slot(s);	/* the peer has not heard of it */
	else {
		s->call = NULL;
		s->late = err != ECANCELED;
		c->nlost++;
		c->nlate += s->late;
	}
	if (call->placing != NULL)
		call->placing->place = NULL;
	call->placing = NULL;
	end_call(c, call, err, tell);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->out_lock);
	return (rv == -1 ? broken(c, ENOMEM) : 0);
}

bool
vd__conn_cancel(struct vd__conn *c, struct vd__call *call)
{
	bool mine;
	int rv = 0;

	pthread_mutex_lock(&c->in_lock);
	pthread_mutex_lock(&c->lock);
	mine = call->state == PENDING;
	pthread_mutex_unlock(&c->lock);
	/* It cannot end meanwhile: that takes in_lock. */
	if (mine)
		rv = withdraw(c, call, ECANCELED, false);
	pthread_mutex_unlock(&c->in_lock);
	result(c, rv);
	return (mine);
}

int
vd__conn_expire(struct vd__conn *c)
{
	struct vd__call *call;
	int64_t now = vd__now_ms(), left = -1;
	int rv = 0;

	pthread_mutex_lock(&c->in_lock);
	for (;;) {
		pthread_mutex_lock(&c->lock);
		call = TAILQ_FIRST(&c->pending);
		left = call == NULL || call->deadline == -1 ? -1 :
		    call->deadline - now;
		pthread_mutex_unlock(&c->lock);
		if (call == NULL || call->deadline == -1 || left > 0)
			break;
		rv |= withdraw(c, call, ETIMEDOUT, true);
	}
	pthread_mutex_unlock(&c->in_lock);
	result(c, rv);
	return (left > INT32_MAX ? INT32_MAX : (int)left);
}

unsigned int
vd__conn_finish(struct vd__conn *c)
{
	struct vd__call *call;
	unsigned int n = 0;

	for (;; n++) {
		if (c->nended == 0)
			return (n);
		pthread_mutex_lock(&c->lock);
		if ((call = TAILQ_FIRST(&c->ended)) != NULL) {
			TAILQ_REMOVE(&c->ended, call, link);
			c->nended--;
		}
		pthread_mutex_unlock(&c->lock);
		if (call == NULL)
			return (n);
		call->done(call);
	}
}

bool
vd__conn_has_ended(struct vd__conn *c)
{
	return (c->nended > 0);
}

size_t
vd__conn_pending(struct vd__conn *c)
{
	return (c->npending);
}

/* --- waiting ------------------------------------------------------------- */

/* Serve, or refuse, commands that came while we wait: was there any? */
static bool
serve_commands(struct vd__conn *c)
{
	struct vd__msg m;
	unsigned int depth;
	bool any = false;

	pthread_mutex_lock(&c->lock);
	while (may_serve(c) && pop_command(c, &m)) {
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
		if (heeds(c, &c->streams[i]))
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
	return (rv == -1 ? broken(c, ENOMEM) : 0);
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
	if (!serves(c) || c->ncommands == 0)
		return (false);
	if (may_serve(c))
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
		rv = read_all(c, &told, deadline, self);
		pthread_mutex_unlock(&c->in_lock);
	}
	result(c, rv);
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

/*
 * Wait until call has ended; or with none, until there is room in the queue: 0;
 * or -1, ETIMEDOUT or the end of the connection.
 */
static int
wait_for(struct vd__conn *c, struct vd__call *call, int64_t deadline)
{
	struct vd__waiter w, *outer;
	bool over, serving, tried = false;
	int rv = 0, saved;

	init_waiter(&w);
	w.call = call;
	w.served = false;
	pthread_mutex_lock(&c->lock);
	outer = enter(c, &w);
	for (;;) {
		if ((over = call != NULL && is_over(c, &w)) || rv == -1)
			break;
		if (!is_open(c)) {
			rv = -1;
			break;
		}
		if ((over = is_over(c, &w)))
			break;
		/* Without any time what is there already counts. */
		if (tried && deadline != -1 && vd__now_ms() >= deadline) {
			errno = ETIMEDOUT;
			rv = -1;
			break;
		}
		tried = true;
		if (c->leader != NULL && c->leader != &w) {
			serving = c->nested == &w && has_to_serve(c);
			if (!serving) {
				sleep_in_line(c, &w, deadline);
				continue;
			}
			pthread_mutex_unlock(&c->lock);
			serve_aside(c, &w);
		} else {
			c->leader = &w;
			c->polling = true;
			pthread_mutex_unlock(&c->lock);
			rv = lead(c, &w, deadline);
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
			rv = withdraw(c, call, err, false);
		pthread_mutex_unlock(&c->in_lock);
		result(c, rv);
	}
	if (call->err == 0)
		return (0);
	errno = call->err;
	return (-1);
}

int
vd__conn_begin(struct vd__conn *c, struct vd__call *call, enum vd_cmd cmd,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : vd__now_ms() + timeout_ms;

	call->data = NULL;
	call->data_len = call->head = 0;
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
	struct vd_hdr hdr = { .cmd = (uint16_t)cmd,
	    .flags = VD_TYPE_COMMAND | VD_NO_REPLY };
	size_t size;

	if (!is_open(c))
		return (-1);
	if ((size = message_size(iov, iovcnt)) == 0 || nfds > VD_MAX_FDS) {
		errno = EMSGSIZE;
		return (-1);
	}
	hdr.size = (uint32_t)size;
	/* Room first, so that what times out has not been queued. */
	if (vd__conn_full(c) && wait_for(c, NULL, deadline) == -1)
		return (-1);
	if (put(c, c->ours, &hdr, iov, iovcnt, fds, nfds, NULL) == -1)
		return (result(c, -1));
	return (vd__conn_full(c) ? wait_for(c, NULL, deadline) : 0);
}

int
vd__conn_run(struct vd__conn *c, int timeout_ms)
{
	bool told;

	if (vd__conn_flush(c) == -1 || pump(c, &told) == -1)
		return (-1);
	if (!serve_commands(c))
		return (0);
	if (wait_for(c, NULL, timeout_ms < 0 ? -1 :
	    vd__now_ms() + timeout_ms) == -1 && errno != ETIMEDOUT)
		return (-1);
	return (1);
}
