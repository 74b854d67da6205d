/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef VD_INTERNAL_MSG_H
#define VD_INTERNAL_MSG_H

/* What the files of a connection share: msg.c, msg-read.c, msg-wait.c. */

#include <errno.h>

#include "internal.h"

/* Calls under way or not answered; a power of two. */
#define MAX_CALLS	1024
/* With a call out for so much, first look at what comes. */
#define PLACE_LARGE	((size_t)32 << 10)

enum { IDLE, PENDING, ENDED };

/* What has a message id, in the place that the id names modulo MAX_CALLS. */
struct vd__slot {
	struct vd__call *call;		/* NULL: given up, if used */
	struct mt_region *keep;		/* a reference of one given up; NULL */
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
struct vd__command {
	TAILQ_ENTRY(vd__command) link;
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
	_Atomic(int) error;		/* [a] why it has ended; 0: has not */
	_Atomic(size_t) inbufs;		/* [a] bytes */
	_Atomic(bool) more;		/* [ia] messages left in a buffer */
	_Atomic(bool) drained;		/* [ia] the socket, as it seems */

	struct vd__slot slots[MAX_CALLS];	/* [c] */
	uint16_t next_id;		/* [c] */
	_Atomic(size_t) npending;	/* [ca] */
	_Atomic(size_t) nlost;		/* [ca] used slots without a call */
	size_t nlate;			/* [c] of them, by a timeout */
	_Atomic(size_t) nkept;		/* [ca] of them, with keep */
	_Atomic(uint64_t) nreplies;	/* [ca] that came */
	_Atomic(size_t) nlarge;		/* [ca] calls out for much */
	_Atomic(size_t) queued;		/* [oa] bytes, in both streams */
	_Atomic(bool) full;		/* [oa] too many in one of them */
	_Atomic(uint64_t) gone;		/* [oa] bytes that were queued */
	struct calls pending;		/* [c] with done; by deadline */
	struct calls ended;		/* [c] with done */
	_Atomic(size_t) nended;		/* [ca] */
	TAILQ_HEAD(, vd__waiter) waiters;	/* [c] */
	struct vd__waiter *leader;	/* [c] */
	bool polling;			/* [c] the leader sleeps */
	bool kicked;			/* [c] and has been kicked */
	TAILQ_HEAD(, vd__command) commands;	/* [c] */
	TAILQ_HEAD(, vd__command) spare;	/* [c] places for more */
	unsigned int nspare;		/* [c] */
	_Atomic(size_t) ncommands;	/* [ca] */
	int64_t asked;			/* [c] ms; 0: all were posted */
	size_t ncmd_fds;		/* [c] */
	unsigned int serving;		/* [c] how often, nested */
	pthread_t server;		/* [c] who, if serving */
	struct vd__waiter *nested;	/* [c] waits inside of serving */
};

static inline bool
vd__conn_is_closed(const struct vd__conn *c)
{
	return (atomic_load_explicit(&c->error, memory_order_acquire) != 0);
}

static inline bool
vd__conn_is_open(const struct vd__conn *c)
{
	if (!vd__conn_is_closed(c))
		return (true);
	errno = ENOTCONN;
	return (false);
}

/* Are commands served by who waits? */
static inline bool
vd__conn_serves(const struct vd__conn *c)
{
	return (c->ops->serve != NULL || c->ops->wake == NULL);
}

/*
 * Does who waits for replies read this stream?  With a twin, commands that are
 * not for us to serve stay in theirs.
 */
static inline bool
vd__conn_heeds(const struct vd__conn *c, const struct vd__stream *st)
{
	return (c->nstreams == 1 || st == c->ours || vd__conn_serves(c));
}

static inline void
vd__slot_free(struct vd__slot *s)
{
	s->used = false;
	s->call = NULL;
}

/* What a slot keeps: the caller's to put.  With lock held. */
static inline struct mt_region *
vd__slot_unkeep(struct vd__conn *c, struct vd__slot *s)
{
	struct mt_region *keep = s->keep;

	s->keep = NULL;
	c->nkept -= keep != NULL;
	return (keep);
}

/* --- msg.c --------------------------------------------------------------- */

/*
 * The connection is of no more use: -1 with errno set.  The descriptors stay
 * until it is destroyed, so that who watches them can stop before their
 * numbers are used again; who sleeps on them wakes.
 */
int	vd__conn_broken(struct vd__conn *c, int err);
/* rv as it is; but the end of the connection is the end of all calls. */
int	vd__conn_result(struct vd__conn *c, int rv);
/* The call has ended, of which done will tell if tell: with lock held. */
void	vd__conn_end_call(struct vd__conn *c, struct vd__call *call, int err,
	    bool tell);
/* With out_lock held, after a change of what is queued. */
void	vd__conn_count_queued(struct vd__conn *c);
/*
 * Send a message by st, or queue it, and see to it that it will be sent: 0, or
 * -1.  With ENOBUFS nothing has happened, nor is anything sent with what
 * vd__stream_is_good() knows.  A call begins by this, while nobody can take
 * it back; it gives hdr its id.
 */
int	vd__conn_put(struct vd__conn *c, struct vd__stream *st,
	    struct vd_hdr *hdr, const struct iovec *iov, int iovcnt,
	    const int *fds, size_t nfds, struct vd__call *call);
/* The head of a command to be sent: 0, or -1 with ENOTCONN or EMSGSIZE. */
int	vd__conn_head(const struct vd__conn *c, struct vd_hdr *hdr,
	    enum vd_cmd cmd, uint32_t flags, const struct iovec *iov,
	    int iovcnt, size_t nfds);
/*
 * Take a pending call out, with its memory: with in_lock, so that nothing is
 * being received into it.  Returns 0 or -1.
 */
int	vd__conn_withdraw(struct vd__conn *c, struct vd__call *call, int err,
	    bool tell);

/* --- msg-read.c ---------------------------------------------------------- */

/* Take the first command that waits: with lock held. */
bool	vd__conn_pop_command(struct vd__conn *c, struct vd__msg *m);
/* Of a connection that has ended, the second when nobody uses it. */
void	vd__conn_drop_commands(struct vd__conn *c);
void	vd__conn_free_spare(struct vd__conn *c);
/* Serves already, or could: this thread, with lock held. */
bool	vd__conn_may_serve(struct vd__conn *c);
/*
 * Read all that is there, and file it, with in_lock held: 0, or -1.  *told is
 * set if others have to hear of it.  Commands that we are to serve ourselves
 * are left in the socket for a while; so is who never stops talking, at until.
 * Waiter w, if not NULL, stops when its call has ended, which nobody else does.
 * Another reader may have ended it before; then w receives only if it is here
 * for room in the queue, which the peer may not make before we receive.
 */
int	vd__conn_read_all(struct vd__conn *c, bool *told, int64_t until,
	    const struct vd__waiter *w);
/* The same for who does not wait: *told is set or cleared. */
int	vd__conn_read(struct vd__conn *c, bool *told);

/* --- msg-wait.c ---------------------------------------------------------- */

/* Out of poll with the leader, if it is there: with lock held. */
void	vd__conn_kick(struct vd__conn *c);

#endif
