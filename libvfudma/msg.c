/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * One connection, used by any threads: commands to the peer with their
 * replies, and the peer's commands.  Here is its life, and what is sent; who
 * receives is in msg-read.c, and who waits and serves in msg-wait.c.
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
#include <stdlib.h>
#include <time.h>

#include "internal-msg.h"

/* Of all calls, how many may have timed out: a peer that answers no more. */
#define MAX_LATE	64

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

int
vd__conn_broken(struct vd__conn *c, int err)
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

void
vd__conn_end_call(struct vd__conn *c, struct vd__call *call, int err, bool tell)
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
			vd__conn_kick(c);
	}
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

void
vd__conn_count_queued(struct vd__conn *c)
{
	bool full = false;
	uint64_t gone = 0;
	unsigned int i;
	size_t n = 0;

	for (i = 0; i < c->nstreams; i++) {
		n += c->streams[i].queued;
		gone += c->streams[i].gone;
		full = full || vd__stream_full(&c->streams[i], c->max_queued);
	}
	atomic_store_explicit(&c->queued, n, memory_order_relaxed);
	atomic_store_explicit(&c->gone, gone, memory_order_relaxed);
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
	vd__conn_count_queued(c);
	for (i = 0; i < MAX_CALLS && c->npending > 0; i++) {
		if ((call = c->slots[i].call) == NULL)
			continue;
		told = told || call->done != NULL;
		vd__slot_free(&c->slots[i]);
		vd__conn_end_call(c, call, err, true);
	}
	TAILQ_FOREACH(w, &c->waiters, link)
		pthread_cond_signal(&w->cond);
	vd__conn_kick(c);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->out_lock);
	pthread_mutex_unlock(&c->in_lock);
	vd__conn_unkeep(c);
	if (told && c->ops->wake != NULL)
		c->ops->wake(c->arg);
}

int
vd__conn_result(struct vd__conn *c, int rv)
{
	int saved = errno;

	if (rv == -1 && vd__conn_is_closed(c)) {
		fail_calls(c);
		errno = saved;
	}
	return (rv);
}

void
vd__conn_close(struct vd__conn *c)
{
	vd__conn_broken(c, ENOTCONN);
	fail_calls(c);
	pthread_mutex_lock(&c->lock);
	vd__conn_drop_commands(c);
	pthread_mutex_unlock(&c->lock);
}

void
vd__conn_destroy(struct vd__conn *c)
{
	int saved = errno;
	unsigned int i;

	if (c == NULL)
		return;
	vd__conn_close(c);
	vd__conn_free_spare(c);
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
	return (vd__conn_is_closed(c) ? -1 : c->streams[0].fd);
}

int
vd__conn_twin_fd(const struct vd__conn *c)
{
	return (vd__conn_is_closed(c) || c->nstreams < 2 ? -1 :
	    c->streams[1].fd);
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

	if (!vd__conn_is_open(c))
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
	vd__conn_count_queued(c);
	pthread_mutex_unlock(&c->out_lock);
	return (vd__conn_result(c, rv == -1 ? vd__conn_broken(c, err) : rv));
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
	struct vd__slot *s;

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

int
vd__conn_put(struct vd__conn *c, struct vd__stream *st, struct vd_hdr *hdr,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    struct vd__call *call)
{
	int rv, err;

	assert(iovcnt <= VD__MAX_IOV);
	pthread_mutex_lock(&c->out_lock);
	rv = call != NULL ? begin_call(c, call, hdr, nfds) : 0;
	/* A call whose end has come already is no longer ours to touch. */
	if (rv == 0 && !vd__conn_is_open(c))
		rv = -1;
	if (rv == 0) {
		rv = vd__stream_put(st, hdr, iov, iovcnt, fds, nfds, call,
		    c->forced);
		err = errno;
		if (rv != 1 || vd__conn_queued(c) > 0)
			vd__conn_count_queued(c);
		errno = err;
	}
	err = errno;
	pthread_mutex_unlock(&c->out_lock);
	if (rv == 1)
		return (0);
	if (rv == -1) {
		errno = err;
		return (err == ENOBUFS || vd__stream_is_good(err) ? -1 :
		    vd__conn_broken(c, err));
	}
	pthread_mutex_lock(&c->lock);
	vd__conn_kick(c);
	pthread_mutex_unlock(&c->lock);
	if (c->ops->wake != NULL)
		c->ops->wake(c->arg);
	return (0);
}

/* The size of a message, or 0 with EMSGSIZE if there can be none like that. */
static size_t
message_size(const struct iovec *iov, int iovcnt)
{
	size_t size = sizeof(struct vd_hdr);
	int i;

	for (i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len > VD_MAX_MSG_SIZE - size) {
			errno = EMSGSIZE;
			return (0);
		}
		size += iov[i].iov_len;
	}
	return (size);
}

int
vd__conn_head(const struct vd__conn *c, struct vd_hdr *hdr, enum vd_cmd cmd,
    uint32_t flags, const struct iovec *iov, int iovcnt, size_t nfds)
{
	size_t size;

	if (!vd__conn_is_open(c) || (size = message_size(iov, iovcnt)) == 0)
		return (-1);
	if (nfds > VD_MAX_FDS) {
		errno = EMSGSIZE;
		return (-1);
	}
	*hdr = (struct vd_hdr){ .cmd = (uint16_t)cmd, .size = (uint32_t)size,
	    .flags = flags };
	return (0);
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

	if (!vd__conn_is_open(c))
		return (-1);
	if (req->hdr.flags & VD_NO_REPLY)
		return (0);
	if ((size = message_size(iov, iovcnt)) == 0)
		return (-1);
	vd__wire_reply(&hdr, &req->hdr, size - sizeof(hdr));
	if (vd__conn_put(c, way_back(c, req), &hdr, iov, iovcnt, fds, nfds,
	    NULL) == 0)
		return (0);
	if (vd__stream_is_good(errno))
		return (vd__conn_error(c, req, errno));
	/* The peer would wait for ever. */
	return (vd__conn_result(c, vd__conn_broken(c,
	    errno == ENOBUFS ? ENOMEM : errno)));
}

int
vd__conn_error(struct vd__conn *c, const struct vd__msg *req, int err)
{
	struct vd_hdr hdr;

	if (!vd__conn_is_open(c))
		return (-1);
	if (req->hdr.flags & VD_NO_REPLY)
		return (0);
	vd__wire_error(&hdr, &req->hdr, err);
	return (vd__conn_result(c, vd__conn_put(c, way_back(c, req), &hdr,
	    NULL, 0, NULL, 0, NULL)));
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
	struct vd_hdr hdr;
	bool told;
	int rv, err;

	assert(call->head <= sizeof(call->head_buf));
	if (vd__conn_head(c, &hdr, cmd, VD_TYPE_COMMAND, iov, iovcnt,
	    nfds) == -1)
		return (-1);
	call->err = 0;
	call->placed = false;
	call->waiter = NULL;
	call->placing = NULL;
	call->reply.nfds = 0;
	call->reply.buf = NULL;
	call->out.queued = call->out.begun = false;
	atomic_init(&call->lent, true);
	call->begun = vd__now_ms();
	call->deadline = timeout_ms < 0 ? -1 : call->begun + timeout_ms;
	rv = vd__conn_put(c, c->ours, &hdr, iov, iovcnt, fds, nfds, call);
	if (rv == -1 && errno == ENOBUFS) {
		/* Late replies may be there by now. */
		rv = vd__conn_read(c, &told);
		if (told && c->ops->wake != NULL)
			c->ops->wake(c->arg);
		if (rv == -1)
			return (-1);
		rv = vd__conn_put(c, c->ours, &hdr, iov, iovcnt, fds, nfds,
		    call);
		if (rv == -1 && errno == ENOBUFS)
			return (-1);
	}
	if (rv == -1 && vd__stream_is_good(errno)) {
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

int
vd__conn_withdraw(struct vd__conn *c, struct vd__call *call, int err, bool tell)
{
	struct vd__slot *s = &c->slots[call->slot];
	int rv;

	pthread_mutex_lock(&c->out_lock);
	rv = vd__stream_unlend(c->ours, call);
	if (rv == -1)
		vd__stream_clear(c->ours);	/* this is the end */
	vd__conn_count_queued(c);
	pthread_mutex_lock(&c->lock);
	if (rv == 1)
		vd__slot_free(s);	/* the peer has not heard of it */
	else {
		s->call = NULL;
		s->late = err != ECANCELED;
		s->keep = mt_region_get(call->keep);
		c->nlost++;
		c->nlate += s->late;
		/* Before it is pending no more. */
		c->nkept += s->keep != NULL;
	}
	if (call->placing != NULL)
		call->placing->place = NULL;
	call->placing = NULL;
	vd__conn_end_call(c, call, err, tell);
	pthread_mutex_unlock(&c->lock);
	pthread_mutex_unlock(&c->out_lock);
	return (rv == -1 ? vd__conn_broken(c, ENOMEM) : 0);
}

static bool
give_up(struct vd__conn *c, struct vd__call *call, bool tell)
{
	bool mine;
	int rv = 0;

	pthread_mutex_lock(&c->in_lock);
	pthread_mutex_lock(&c->lock);
	mine = call->state == PENDING;
	pthread_mutex_unlock(&c->lock);
	/* It cannot end meanwhile: that takes in_lock. */
	if (mine)
		rv = vd__conn_withdraw(c, call, ECANCELED, tell);
	pthread_mutex_unlock(&c->in_lock);
	vd__conn_result(c, rv);
	return (mine);
}

bool
vd__conn_cancel(struct vd__conn *c, struct vd__call *call)
{
	return (give_up(c, call, false));
}

void
vd__conn_end(struct vd__conn *c, struct vd__call *call)
{
	(void)give_up(c, call, true);
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
		rv |= vd__conn_withdraw(c, call, ETIMEDOUT, true);
	}
	pthread_mutex_unlock(&c->in_lock);
	vd__conn_result(c, rv);
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

size_t
vd__conn_kept(struct vd__conn *c)
{
	return (c->nkept);
}

uint64_t
vd__conn_progress(struct vd__conn *c)
{
	return (atomic_load_explicit(&c->gone, memory_order_relaxed) +
	    atomic_load_explicit(&c->nreplies, memory_order_relaxed));
}

void
vd__conn_unkeep(struct vd__conn *c)
{
	struct mt_region *keep;
	unsigned int i;

	for (i = 0; i < MAX_CALLS && c->nkept > 0; i++) {
		pthread_mutex_lock(&c->lock);
		keep = vd__slot_unkeep(c, &c->slots[i]);
		pthread_mutex_unlock(&c->lock);
		mt_region_put(keep);
	}
}
