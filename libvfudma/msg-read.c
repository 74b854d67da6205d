/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A connection's reader, who files what has come: see msg.c.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal-msg.h"

/* Commands in the list, and their descriptors. */
#define MAX_COMMANDS	65536
#define MAX_CMD_FDS	256
/* After so many, those that we serve ourselves stay in the socket. */
#define SERVE_BATCH	16
/* Places for commands that are kept, so that few commands need no memory. */
#define MAX_SPARE	32
/* With more bytes of answers unsent, no more commands are served. */
#define MAX_ANSWERS	(2 * VD_MAX_MSG_SIZE)

/* A reply at least so long, as far as it has not come, is received in place. */
#define PLACE_MIN	4096
/* What is received to look at. */
#define LOOK		64

/* --- commands that nobody has taken yet ---------------------------------- */

bool
vd__conn_pop_command(struct vd__conn *c, struct vd__msg *m)
{
	struct vd__command *cmd = TAILQ_FIRST(&c->commands);

	if (cmd == NULL)
		return (false);
	TAILQ_REMOVE(&c->commands, cmd, link);
	atomic_fetch_sub_explicit(&c->ncommands, 1, memory_order_relaxed);
	c->ncmd_fds -= cmd->m.nfds;
	if (TAILQ_EMPTY(&c->commands))
		c->asked = 0;
	*m = cmd->m;
	if (c->nspare < MAX_SPARE) {
		TAILQ_INSERT_HEAD(&c->spare, cmd, link);
		c->nspare++;
	} else
		free(cmd);
	return (true);
}

/* A place for a command: with lock held.  NULL: no memory. */
static struct vd__command *
get_command(struct vd__conn *c)
{
	struct vd__command *cmd = TAILQ_FIRST(&c->spare);

	if (cmd == NULL)
		return (malloc(sizeof(*cmd)));
	TAILQ_REMOVE(&c->spare, cmd, link);
	c->nspare--;
	return (cmd);
}

void
vd__conn_drop_commands(struct vd__conn *c)
{
	struct vd__msg m;

	while (vd__conn_pop_command(c, &m))
		vd__msg_close(&m);
}

void
vd__conn_free_spare(struct vd__conn *c)
{
	struct vd__command *cmd;

	while (c->nspare > 0 && (cmd = get_command(c)) != NULL)
		free(cmd);
}

/* The peer waits for us: who waits for it may have to hurry. */
static void
set_asked(struct vd__conn *c)
{
	struct vd__waiter *w;

	c->asked = vd__now_ms();
	TAILQ_FOREACH(w, &c->waiters, link)
		if (w->call != NULL && w->call->grace_ms > 0)
			pthread_cond_signal(&w->cond);
}

/* Keep a command for who takes them: 0, or -1. */
static int
queue_command(struct vd__conn *c, struct vd__msg *m)
{
	struct vd__command *cmd;
	bool full;
	size_t i;

	pthread_mutex_lock(&c->lock);
	full = c->ncommands == MAX_COMMANDS;
	if (full || (cmd = get_command(c)) == NULL) {
		pthread_mutex_unlock(&c->lock);
		vd__msg_close(m);
		return (vd__conn_broken(c, full ? EPROTO : ENOMEM));
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
	if (c->asked == 0 && (m->hdr.flags & VD_NO_REPLY) == 0)
		set_asked(c);
	pthread_mutex_unlock(&c->lock);
	return (0);
}

bool
vd__conn_may_serve(struct vd__conn *c)
{
	return (vd__conn_serves(c) && vd__conn_queued(c) <= MAX_ANSWERS &&
	    (c->serving == 0 || pthread_equal(c->server, pthread_self())));
}

/* --- receiving ----------------------------------------------------------- */

/* The slot of a call that this answers: with lock held. */
static struct vd__slot *
find_slot(struct vd__conn *c, const struct vd_hdr *hdr)
{
	struct vd__slot *s = &c->slots[hdr->id % MAX_CALLS];

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
	struct vd__slot *s;

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
			return (rv == -1 ? vd__conn_broken(c, errno) : rv);
		}
		if ((rv = vd__stream_peek(st, &hdr, &need)) == -1)
			return (vd__conn_broken(c, EPROTO));
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
			return (rv == -1 ? vd__conn_broken(c, errno) : 0);
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
	vd__conn_count_queued(c);
	pthread_mutex_unlock(&c->out_lock);
	if (rv != 0)
		vd__conn_broken(c, rv == -1 ? ENOMEM : EPROTO);
	return (rv == 0);
}

/* End the call that m answers; false if there is none. */
static bool
file_reply(struct vd__conn *c, struct vd__msg *m, bool *told)
{
	struct mt_region *keep;
	struct vd__call *call;
	struct vd__slot *s;
	int err = 0;

	pthread_mutex_lock(&c->lock);
	if ((s = find_slot(c, &m->hdr)) == NULL || m->from != c->ours) {
		pthread_mutex_unlock(&c->lock);
		return (false);
	}
	call = s->call;
	/* Acquire: who has sent it touches it no more; gone is told. */
	if (call != NULL && atomic_load_explicit(&call->lent,
	    memory_order_acquire)) {
		pthread_mutex_unlock(&c->lock);
		if (!take_back(c, call))
			return (false);
		pthread_mutex_lock(&c->lock);
	}
	vd__slot_free(s);
	atomic_fetch_add_explicit(&c->nreplies, 1, memory_order_relaxed);
	if (call == NULL) {
		c->nlost--;
		c->nlate -= s->late;
		keep = vd__slot_unkeep(c, s);
		pthread_mutex_unlock(&c->lock);
		mt_region_put(keep);
		vd__msg_close(m);
		return (true);
	}
	if (m->hdr.flags & VD_ERROR) {
		err = vd__wire_errno(&m->hdr);
		vd__msg_close(m);
	} else if (call->out.gone || m->gone) {
		err = EFAULT;
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
	vd__conn_end_call(c, call, err, true);
	pthread_mutex_unlock(&c->lock);
	return (true);
}

static bool
is_command(const struct vd__msg *m)
{
	return ((m->hdr.flags & VD_TYPE_MASK) == VD_TYPE_COMMAND);
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

int
vd__conn_read_all(struct vd__conn *c, bool *told, int64_t until,
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
	serving = vd__conn_may_serve(c);
	pthread_mutex_unlock(&c->lock);
	for (i = 0; i < c->nstreams && rv != -1; i++) {
		/* Answers come first by ours, and other things by the twin. */
		st = &c->streams[own != NULL ? i : c->nstreams - 1 - i];
		if (!vd__conn_heeds(c, st))
			continue;
		more = receive;
		while ((rv = read_message(c, st, &m, more)) == 1) {
			if (is_command(&m) && !is_astray(c, &m)) {
				if (queue_command(c, &m) == -1)
					return (-1);
				*told = true;
			} else if (is_command(&m) || !file_reply(c, &m, told)) {
				vd__msg_close(&m);
				return (vd__conn_broken(c, EPROTO));
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
		popped = vd__conn_pop_command(c, m);
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
				return (vd__conn_broken(c, EPROTO));
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
	if (!vd__conn_is_open(c))
		return (-1);
	pthread_mutex_lock(&c->in_lock);
	rv = next_message(c, m, &told);
	look_for_more(c);
	pthread_mutex_unlock(&c->in_lock);
	/* The socket tells the leader nothing of what we have left. */
	if (c->more && c->npending > 0) {
		pthread_mutex_lock(&c->lock);
		vd__conn_kick(c);
		pthread_mutex_unlock(&c->lock);
	}
	return (vd__conn_result(c, rv));
}

int
vd__conn_read(struct vd__conn *c, bool *told)
{
	int rv;

	*told = false;
	if (!vd__conn_is_open(c))
		return (-1);
	pthread_mutex_lock(&c->in_lock);
	rv = vd__conn_read_all(c, told, -1, NULL);
	pthread_mutex_unlock(&c->in_lock);
	return (vd__conn_result(c, rv));
}

int
vd__conn_pump(struct vd__conn *c)
{
	bool told;

	return (vd__conn_read(c, &told));
}

bool
vd__conn_ready(struct vd__conn *c)
{
	return (!vd__conn_is_closed(c) && (c->ncommands > 0 || c->more));
}

bool
vd__conn_drained(struct vd__conn *c)
{
	return (atomic_load_explicit(&c->drained, memory_order_relaxed));
}
