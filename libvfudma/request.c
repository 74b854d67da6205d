/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Commands whose reply is the device's to give.
 *
 * A request may outlive its client, and the server, so it knows neither, but a
 * desk, which goes with the last of them.  The desk names the connection as
 * long as that is there; a reply is sent under its lock.
 */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

#define MAX_TAKEN	256

/*
 * [l] lock, which comes before all of a connection
 * [la] changed under it, read without
 */
struct vd__desk {
	pthread_mutex_t lock;
	struct vd__conn *conn;		/* [l] NULL: no client */
	uint64_t client;		/* [l] number of the last one */
	bool open;			/* [l] the server is there */
	unsigned int taken;		/* [l] requests that are not finished */
	size_t max_bytes;		/* [l] */
	_Atomic(size_t) bytes;		/* [la] of answers due to the client */
};

struct vd_request {
	struct vd__desk *desk;
	uint64_t client;
	struct vd__msg msg;		/* to reply to; no data */
	struct vd_region_access access;
	struct vd_request_info info;
	size_t bytes;			/* of the answer */
};

/* --- for the server ------------------------------------------------------ */

int
vd__desk_init(struct vd_server *s)
{
	if ((s->desk = calloc(1, sizeof(*s->desk))) == NULL)
		return (-1);
	pthread_mutex_init(&s->desk->lock, NULL);
	s->desk->open = true;
	return (0);
}

/* Let go of the lock, and of the desk if nobody is left. */
static void
leave(struct vd__desk *d)
{
	bool last = !d->open && d->taken == 0;

	pthread_mutex_unlock(&d->lock);
	if (!last)
		return;
	pthread_mutex_destroy(&d->lock);
	free(d);
}

void
vd__desk_fini(struct vd_server *s)
{
	if (s->desk == NULL)
		return;
	pthread_mutex_lock(&s->desk->lock);
	s->desk->open = false;
	leave(s->desk);
	s->desk = NULL;
}

void
vd__desk_attach(struct vd_server *s)
{
	pthread_mutex_lock(&s->desk->lock);
	s->desk->conn = s->conn;
	s->desk->client = s->client;
	s->desk->max_bytes = s->limits.max_queued;
	s->desk->bytes = 0;
	pthread_mutex_unlock(&s->desk->lock);
}

void
vd__desk_detach(struct vd_server *s)
{
	pthread_mutex_lock(&s->desk->lock);
	s->desk->conn = NULL;
	pthread_mutex_unlock(&s->desk->lock);
}

void
vd__request_offer(struct vd_server *s, const struct vd__msg *m,
    const struct vd_region_access *a, bool is_write)
{
	struct vd__offer *o = &s->offer;

	o->msg = m;
	o->access = a;
	o->is_write = is_write;
	o->taken = false;
}

size_t
vd__desk_bytes(const struct vd_server *s)
{
	return (atomic_load(&s->desk->bytes));
}

bool
vd__request_taken(struct vd_server *s)
{
	bool taken = s->offer.taken;

	s->offer.msg = NULL;
	s->offer.taken = false;
	return (taken);
}

/* --- for the device ------------------------------------------------------ */

/* How long the answer to what is offered may be. */
static size_t
answer_size(const struct vd__offer *o)
{
	if (o->msg->hdr.flags & VD_NO_REPLY)
		return (0);
	return (sizeof(struct vd_hdr) + (o->access == NULL ? 0 :
	    sizeof(*o->access) + (o->is_write ? 0 : o->access->count)));
}

/* Have room for one more answer: with lock held. */
static bool
reserve(struct vd__desk *d, size_t bytes)
{
	/* One alone may be longer than all may be. */
	if (d->taken == MAX_TAKEN ||
	    (d->bytes > 0 && d->bytes + bytes > d->max_bytes))
		return (false);
	d->taken++;
	d->bytes += bytes;
	return (true);
}

struct vd_request *
vd_server_take(struct vd_server *s)
{
	struct vd__offer *o = &s->offer;
	struct vd__desk *d = s->desk;
	struct vd_request *r;
	bool full;

	/* Of another thread, what is offered is not even to be looked at. */
	if (!vd__messages_runs_here(s) || o->msg == NULL) {
		errno = EINVAL;
		return (NULL);
	}
	if (o->taken) {
		errno = EBUSY;
		return (NULL);
	}
	if ((r = calloc(1, sizeof(*r))) == NULL)
		return (NULL);
	r->bytes = answer_size(o);
	pthread_mutex_lock(&d->lock);
	full = !reserve(d, r->bytes);
	pthread_mutex_unlock(&d->lock);
	if (full) {
		free(r);
		errno = ENOBUFS;
		return (NULL);
	}
	r->desk = d;
	r->client = s->client;
	r->msg.hdr = o->msg->hdr;
	r->msg.from = o->msg->from;
	r->info.reset = o->access == NULL;
	if (o->access != NULL) {
		r->access = *o->access;
		r->info.is_write = o->is_write;
		r->info.region = o->access->region;
		r->info.off = o->access->offset;
		r->info.len = o->access->count;
	}
	o->taken = true;
	return (r);
}

void
vd_request_info(const struct vd_request *r, struct vd_request_info *info)
{
	*info = r->info;
}

/* Send the reply; a connection that fails to takes its own end. */
static void
reply(struct vd__conn *c, const struct vd_request *r, int err,
    const void *data, size_t len)
{
	struct iovec iov[2] = {
		{ (void *)(uintptr_t)&r->access, sizeof(r->access) },
		{ (void *)(uintptr_t)data, len },	/* only read */
	};

	if (err != 0)
		vd__conn_error(c, &r->msg, err);
	else
		vd__conn_reply(c, &r->msg, iov, r->info.reset ? 0 :
		    len > 0 ? 2 : 1, NULL, 0);
}

int
vd_request_finish(struct vd_request *r, int err, const void *data, size_t len)
{
	bool read = !r->info.reset && !r->info.is_write;
	struct vd__desk *d = r->desk;
	size_t want = read && err == 0 ? r->info.len : 0;

	if (err < 0 || err > VD_MAX_ERRNO || len != want) {
		errno = EINVAL;
		return (-1);
	}
	pthread_mutex_lock(&d->lock);
	if (d->conn != NULL && d->client == r->client) {
		/* First, as the reply wakes the server, which looks at it. */
		d->bytes -= r->bytes;
		reply(d->conn, r, err, data, len);
	}
	d->taken--;
	leave(d);
	free(r);
	return (0);
}
