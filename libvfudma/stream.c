/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * One socket: a buffer that messages are taken out of, and a queue of messages
 * that the socket had no room for.
 *
 * Messages share the buffer that they came in and keep it alive.  So a message
 * may be looked at while others are received: into the free end of the same
 * buffer, and when that is full, into a new one.  While nobody keeps a message
 * the one buffer serves for ever.
 *
 * Descriptors.  A receive returns those of one send at most, and ends with the
 * bytes of that send; so they belong to the message that has the last byte
 * that came along with them.  The buffer is refilled only when it has no whole
 * message, so at any time descriptors of no more than two messages are held:
 * the one that was begun before the last receive, and the last one.
 */

#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define IN_MIN		((size_t)64 << 10)	/* bytes of a buffer */
#define MOVE_MAX	256			/* bytes moved without need */
#define ROOM_MIN	4096			/* free end worth receiving to */

/* Messages with descriptors that may wait in the queue. */
#define MAX_PARCELS	16

/* Buffers of one connection; a peer that makes us keep more is cut off. */
#define MAX_INBUFS	((size_t)16 << 20)

/*
 * Messages in one send, and their bytes unless it is one.  The kernel cuts what
 * is longer than that into pieces, perhaps inside a header, and QEMU gives up
 * if it reads a part of one.
 */
#define MAX_BATCH	16
#define BATCH_BYTES	((size_t)32 << 10)

/* --- life ---------------------------------------------------------------- */

static struct vd__inbuf *
inbuf_new(size_t size, _Atomic(size_t) *total)
{
	struct vd__inbuf *b;

	if (atomic_load_explicit(total, memory_order_relaxed) > MAX_INBUFS ||
	    (b = malloc(sizeof(*b) + size)) == NULL)
		return (NULL);
	atomic_init(&b->refs, 1);
	b->total = total;
	b->size = size;
	atomic_fetch_add_explicit(total, size, memory_order_relaxed);
	return (b);
}

static void
inbuf_put(struct vd__inbuf *b)
{
	/* Release: our reads come before the buffer is filled again. */
	if (b == NULL || atomic_fetch_sub_explicit(&b->refs, 1,
	    memory_order_acq_rel) > 1)
		return;
	atomic_fetch_sub_explicit(b->total, b->size, memory_order_relaxed);
	free(b);
}

int
vd__stream_init(struct vd__stream *st, int fd, _Atomic(size_t) *total)
{
	memset(st, 0, sizeof(*st));
	TAILQ_INIT(&st->out);
	st->total = total;
	st->fd = -1;
	if ((st->in = inbuf_new(IN_MIN, total)) == NULL)
		return (-1);
	st->fd = fd;
	return (0);
}

/* Close what fds are left, and free out unless a call has it. */
static void
drop_out(struct vd__stream *st, struct vd__out *o)
{
	size_t i;

	TAILQ_REMOVE(&st->out, o, link);
	o->queued = false;
	st->queued -= o->left;
	st->nparcels -= o->nfds > 0;
	for (i = 0; i < o->nfds; i++)
		vd__close(o->fds[i]);
	o->nfds = 0;
	free(o->copy);
	if (o->call == NULL) {
		free(o);
		return;
	}
	o->copy = NULL;
	/* Release: who sees this may free the call. */
	atomic_store_explicit(&o->call->lent, false, memory_order_release);
}

void
vd__stream_clear(struct vd__stream *st)
{
	struct vd__out *o;

	while ((o = TAILQ_FIRST(&st->out)) != NULL)
		drop_out(st, o);
}

void
vd__stream_fini(struct vd__stream *st)
{
	size_t i;

	vd__stream_clear(st);
	for (i = 0; i < st->nheld; i++)
		vd__close(st->held[i].fd);
	st->nheld = 0;
	inbuf_put(st->in);
	st->in = NULL;
	vd__close(st->fd);
	st->fd = -1;
}

void
vd__msg_close(struct vd__msg *m)
{
	size_t i;

	for (i = 0; i < m->nfds; i++)
		vd__close(m->fds[i]);
	m->nfds = 0;
	inbuf_put(m->buf);
	m->buf = NULL;
}

/* --- receiving ----------------------------------------------------------- */

int
vd__stream_peek(const struct vd__stream *st, struct vd_hdr *hdr, size_t *need)
{
	size_t have = st->end - st->start;

	*need = sizeof(*hdr);
	switch (vd__wire_hdr(st->in->data + st->start, have, VD_MAX_MSG_SIZE,
	    hdr)) {
	case -1:
		return (-1);
	case 0:
		return (0);
	}
	*need = hdr->size;
	return (have >= hdr->size);
}

/*
 * Have room for need bytes from start, which is more than are there.  A short
 * beginning is moved to the front at once, so that receives stay large.
 */
static int
make_room(struct vd__stream *st, size_t need)
{
	size_t have = st->end - st->start;
	struct vd__inbuf *b = st->in;
	/* Acquire pairs with the release of who has read a message in it. */
	bool alone = atomic_load_explicit(&b->refs, memory_order_acquire) == 1;

	if (alone && st->start > 0 && (b->size - st->start < need ||
	    have <= MOVE_MAX)) {
		memmove(b->data, b->data + st->start, have);
		st->start = 0;
		st->end = have;
	}
	if (b->size - st->start >= need && (alone ||
	    b->size - st->end >= ROOM_MIN))
		return (0);
	/* need is bounded by VD_MAX_MSG_SIZE. */
	b = inbuf_new(need > IN_MIN ? need : IN_MIN, st->total);
	if (b == NULL)
		return (-1);
	memcpy(b->data, st->in->data + st->start, have);
	inbuf_put(st->in);
	st->in = b;
	st->start = 0;
	st->end = have;
	return (0);
}

/* Descriptors were lost that came with the bytes before stream offset end. */
static void
set_lost(struct vd__stream *st, uint64_t end)
{
	if (st->lost_end[0] <= st->pos || st->lost_end[0] == end)
		st->lost_end[0] = end;
	else
		st->lost_end[1] = end;
}

/* Keep descriptors that came with the bytes before stream offset end. */
static void
hold(struct vd__stream *st, const int *fds, size_t nfds, bool lost,
    uint64_t end)
{
	size_t i;

	for (i = 0; i < nfds; i++) {
		if (st->nheld < 2 * VD_MAX_FDS) {
			st->held[st->nheld].fd = fds[i];
			st->held[st->nheld++].end = end;
		} else {
			vd__close(fds[i]);
			lost = true;
		}
	}
	if (lost)
		set_lost(st, end);
}

/* Receive once: bytes, 0 if nothing is there, or -1; EFAULT takes nothing. */
static ssize_t
receive(struct vd__stream *st, void *buf, size_t len, uint64_t pos)
{
	int fds[VD_MAX_FDS];
	size_t nfds;
	ssize_t n;
	bool lost;

	n = vd__sock_recv(st->fd, buf, len, fds, &nfds, &lost);
	st->drained = n < (ssize_t)len;
	if (n == -1) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return (0);
		if (errno != EFAULT)
			errno = errno == ENOMEM || errno == ENOBUFS ? ENOMEM :
			    ENOTCONN;
		return (-1);
	}
	hold(st, fds, nfds, lost, pos + (uint64_t)n);
	if (n == 0) {
		errno = ENOTCONN;
		return (-1);
	}
	return (n);
}

int
vd__stream_fill(struct vd__stream *st, size_t need, size_t max)
{
	size_t have = st->end - st->start, room;
	ssize_t n;

	if (make_room(st, need) == -1) {
		errno = ENOMEM;
		return (-1);
	}
	room = st->in->size - st->end;
	if (room > max)
		room = max;
	n = receive(st, st->in->data + st->end, room, st->pos + have);
	if (n > 0)
		st->end += (size_t)n;
	return (n > 0 ? 1 : (int)n);
}

void
vd__stream_drop_sockets(struct vd__stream *st)
{
	size_t i, left = 0;
	struct stat sb;

	for (i = 0; i < st->nheld; i++) {
		if (fstat(st->held[i].fd, &sb) == -1 || S_ISSOCK(sb.st_mode)) {
			vd__close(st->held[i].fd);
			set_lost(st, st->held[i].end);
		} else
			st->held[left++] = st->held[i];
	}
	st->nheld = left;
}

/* The descriptors of the message that ends at pos. */
static void
claim(struct vd__stream *st, struct vd__msg *m)
{
	size_t i, left = 0;

	for (i = 0; i < st->nheld; i++) {
		if (st->held[i].end > st->pos)
			st->held[left++] = st->held[i];
		else if (m->nfds < VD_MAX_FDS)
			m->fds[m->nfds++] = st->held[i].fd;
		else {
			vd__close(st->held[i].fd);
			m->fds_lost = true;
		}
	}
	st->nheld = left;
	for (i = 0; i < 2; i++) {
		if (st->lost_end[i] != 0 && st->lost_end[i] <= st->pos) {
			st->lost_end[i] = 0;
			m->fds_lost = true;
		}
	}
}

void
vd__stream_take(struct vd__stream *st, const struct vd_hdr *hdr,
    struct vd__msg *m)
{
	m->hdr = *hdr;
	m->data = st->in->data + st->start + sizeof(*hdr);
	m->len = hdr->size - sizeof(*hdr);
	m->nfds = 0;
	m->fds_lost = false;
	m->gone = false;
	m->from = st;
	m->buf = st->in;
	atomic_fetch_add_explicit(&st->in->refs, 1, memory_order_relaxed);
	st->start += hdr->size;
	st->pos += hdr->size;
	claim(st, m);
}

void
vd__stream_place(struct vd__stream *st, const struct vd_hdr *hdr, size_t head,
    void *head_buf, void *dst)
{
	const uint8_t *p = st->in->data + st->start + sizeof(*hdr);
	size_t have = st->end - st->start - sizeof(*hdr) - head;

	memcpy(head_buf, p, head);
	memcpy(dst, p + head, have);
	st->placed = *hdr;
	st->place = (uint8_t *)dst + have;
	st->place_left = hdr->size - sizeof(*hdr) - head - have;
	st->place_gone = false;
	st->pos += st->end - st->start;
	st->start = st->end;
}

/* Receive some of what is placed, as receive(). */
static ssize_t
receive_placed(struct vd__stream *st)
{
	uint8_t sink[4096];
	bool fixed = true;
	size_t len;
	ssize_t n;

	while (st->place != NULL) {
		n = receive(st, st->place, st->place_left, st->pos);
		if (n != -1 || errno != EFAULT)
			return (n);
		/* Once more also if somebody else was quicker. */
		if (!fixed) {
			st->place = NULL;
			st->place_gone = true;
			break;
		}
		fixed = vd__sigbus_fix(st->place, st->place_left);
	}
	len = st->place_left < sizeof(sink) ? st->place_left : sizeof(sink);
	return (receive(st, sink, len, st->pos));
}

int
vd__stream_placed(struct vd__stream *st, struct vd__msg *m)
{
	ssize_t n;

	while (st->place_left > 0) {
		if ((n = receive_placed(st)) <= 0)
			return ((int)n);
		if (st->place != NULL)
			st->place += n;
		st->place_left -= (size_t)n;
		st->pos += (uint64_t)n;
	}
	memset(m, 0, sizeof(*m));
	m->hdr = st->placed;
	m->len = m->hdr.size - sizeof(m->hdr);
	m->gone = st->place_gone;
	m->from = st;
	claim(st, m);
	return (1);
}

/* --- sending ------------------------------------------------------------- */

/* n bytes of o have gone. */
static void
advance(struct vd__stream *st, struct vd__out *o, size_t n)
{
	size_t i;

	if (!o->begun) {
		o->begun = true;
		st->nparcels -= o->nfds > 0;
		for (i = 0; i < o->nfds; i++)
			vd__close(o->fds[i]);
		o->nfds = 0;
	}
	o->left -= n;
	st->queued -= n;
	st->gone += n;
	for (i = 0; n > 0; i++) {
		size_t m = n < o->iov[i].iov_len ? n : o->iov[i].iov_len;

		o->iov[i].iov_base = (uint8_t *)o->iov[i].iov_base + m;
		o->iov[i].iov_len -= m;
		n -= m;
	}
}

/*
 * As many of the first messages as go into one send.  Descriptors travel with
 * their message alone: who receives takes them for those of the last byte.
 */
static int
gather(const struct vd__stream *st, struct iovec *iov)
{
	const struct vd__out *o;
	int i, n = 0, batch = 0;
	size_t bytes = 0;

	TAILQ_FOREACH(o, &st->out, link) {
		bytes += o->left;
		if (batch++ > 0 && (o->nfds > 0 || bytes > BATCH_BYTES))
			break;
		for (i = 0; i < o->iovcnt; i++)
			if (o->iov[i].iov_len > 0)
				iov[n++] = o->iov[i];
		if (batch == MAX_BATCH || o->nfds > 0)
			break;
	}
	return (n);
}

bool
vd__stream_is_fd_error(int err)
{
	return (err == EBADF || err == EMFILE || err == ETOOMANYREFS);
}

bool
vd__stream_is_good(int err)
{
	return (vd__stream_is_fd_error(err) || err == EFAULT);
}

static int
send_error(void)
{
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return (0);
	errno = errno == ENOMEM || errno == ENOBUFS ? ENOMEM : ENOTCONN;
	return (-1);
}

/*
 * As vd__sock_send(), of what may be memory of another peer's, which that one
 * can take away; the kernel says EFAULT where others get a SIGBUS.  If that is
 * handled, so is this.
 */
static ssize_t
send_pieces(const struct vd__stream *st, const struct iovec *iov, int iovcnt,
    const int *fds, size_t nfds)
{
	bool fixed = true;
	ssize_t n;
	int i;

	for (;;) {
		n = vd__sock_send(st->fd, iov, iovcnt, fds, nfds);
		/* Once more also if somebody else was quicker. */
		if (n != -1 || errno != EFAULT || !fixed)
			return (n);
		fixed = false;
		for (i = 0; i < iovcnt; i++)
			fixed |= vd__sigbus_fix(iov[i].iov_base,
			    iov[i].iov_len);
	}
}

/*
 * Some of a queued message is gone for good, and the peer may have had the
 * beginning: send the next piece up to the end of a page, or as many zeroes.
 */
static ssize_t
send_page(const struct vd__stream *st, struct vd__out *o)
{
	static const uint8_t zeroes[4096];
	struct iovec iov;
	size_t room;
	ssize_t n;
	int i;

	for (i = 0; o->iov[i].iov_len == 0; i++)
		continue;
	iov = o->iov[i];
	room = sizeof(zeroes) - (uintptr_t)iov.iov_base % sizeof(zeroes);
	if (iov.iov_len > room)
		iov.iov_len = room;
	if (!vd__sigbus_gone(iov.iov_base)) {
		n = vd__sock_send(st->fd, &iov, 1, o->fds, o->nfds);
		if (n != -1 || errno != EFAULT)
			return (n);
	}
	o->gone = true;
	iov.iov_base = (void *)(uintptr_t)zeroes;	/* only read */
	return (vd__sock_send(st->fd, &iov, 1, o->fds, o->nfds));
}

int
vd__stream_flush(struct vd__stream *st)
{
	struct iovec iov[MAX_BATCH * (VD__MAX_IOV + 1)];
	struct vd__out *o;
	size_t sent;
	ssize_t n;

	while ((o = TAILQ_FIRST(&st->out)) != NULL) {
		n = send_pieces(st, iov, gather(st, iov), o->fds, o->nfds);
		if (n == -1 && errno == EFAULT)
			n = send_page(st, o);
		if (n == -1)
			return (send_error());
		for (sent = (size_t)n; sent > 0; o = TAILQ_FIRST(&st->out)) {
			n = (ssize_t)(sent < o->left ? sent : o->left);
			advance(st, o, (size_t)n);
			sent -= (size_t)n;
			if (o->left == 0)
				drop_out(st, o);
		}
	}
	return (1);
}

bool
vd__stream_full(const struct vd__stream *st, size_t max)
{
	return (st->queued > max || st->nparcels == MAX_PARCELS);
}

bool
vd__stream_no_parcels(const struct vd__stream *st)
{
	return (st->nparcels == MAX_PARCELS);
}

/* Copy what is left of o into memory of its own. */
static int
own(struct vd__out *o)
{
	size_t done = 0;
	uint8_t *p;
	int i;

	if ((p = malloc(o->left)) == NULL)
		return (-1);
	for (i = 0; i < o->iovcnt; i++) {
		memcpy(p + done, o->iov[i].iov_base, o->iov[i].iov_len);
		done += o->iov[i].iov_len;
	}
	o->copy = p;
	o->iov[0] = (struct iovec){ p, o->left };
	o->iovcnt = 1;
	return (0);
}

/* Queue what is left of a message after its first sent bytes. */
static int
queue(struct vd__stream *st, const struct vd_hdr *hdr, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, struct vd__call *call,
    size_t sent)
{
	struct vd__out *o;
	int i, saved;

	if (sent > 0)
		nfds = 0;
	if (nfds > 0 && st->nparcels == MAX_PARCELS) {
		errno = ENOBUFS;
		return (-1);
	}
	errno = ENOMEM;
	if (call != NULL)
		o = &call->out;
	else if ((o = malloc(sizeof(*o))) == NULL)
		return (-1);
	o->call = call;
	o->copy = NULL;
	o->hdr = *hdr;
	o->begun = o->gone = false;
	o->iov[0] = (struct iovec){ &o->hdr, sizeof(o->hdr) };
	for (i = 0; i < iovcnt; i++)
		o->iov[i + 1] = iov[i];
	o->iovcnt = iovcnt + 1;
	o->left = hdr->size;
	o->nfds = 0;
	st->queued += o->left;
	st->nparcels += nfds > 0;
	TAILQ_INSERT_TAIL(&st->out, o, link);
	o->queued = true;
	for (; o->nfds < nfds; o->nfds++) {
		o->fds[o->nfds] = fcntl(fds[o->nfds], F_DUPFD_CLOEXEC, 0);
		if (o->fds[o->nfds] == -1)
			break;
	}
	if (o->nfds < nfds) {
		saved = errno;
		st->nparcels -= o->nfds == 0;
		drop_out(st, o);
		errno = saved;
		return (-1);
	}
	if (sent > 0)
		advance(st, o, sent);
	if (call == NULL && own(o) == -1) {
		drop_out(st, o);
		errno = ENOMEM;
		return (-1);
	}
	return (0);
}

int
vd__stream_put(struct vd__stream *st, const struct vd_hdr *hdr,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
    struct vd__call *call, bool force)
{
	struct iovec all[VD__MAX_IOV + 1];
	struct vd_hdr copy = *hdr;
	ssize_t n = 0;
	int i;

	if (call != NULL)
		call->out.gone = false;
	if (TAILQ_EMPTY(&st->out) && !force) {
		all[0] = (struct iovec){ &copy, sizeof(copy) };
		for (i = 0; i < iovcnt; i++)
			all[i + 1] = iov[i];
		n = send_pieces(st, all, iovcnt + 1, fds, nfds);
		if (n > 0 && call != NULL)
			call->out.begun = true;
		if (n == (ssize_t)hdr->size) {
			if (call != NULL)
				atomic_store_explicit(&call->lent, false,
				    memory_order_release);
			return (1);
		}
		if (n == -1) {
			if (errno == EFAULT || (nfds > 0 &&
			    vd__stream_is_fd_error(errno)) ||
			    send_error() == -1)
				return (-1);
			n = 0;
		}
		if (queue(st, hdr, iov, iovcnt, fds, nfds, call,
		    (size_t)n) == -1)
			return (-1);
		return (0);
	}
	if (queue(st, hdr, iov, iovcnt, fds, nfds, call, 0) == -1)
		return (-1);
	return (vd__stream_flush(st));
}

int
vd__stream_unlend(struct vd__stream *st, struct vd__call *call)
{
	struct vd__out *o = &call->out, *copy;

	if (!o->queued)
		return (o->begun ? 0 : 1);
	if (!o->begun) {
		drop_out(st, o);
		return (1);
	}
	/* The peer has the beginning, so the rest has to follow. */
	if ((copy = malloc(sizeof(*copy))) == NULL) {
		errno = ENOMEM;
		return (-1);
	}
	*copy = *o;
	copy->call = NULL;
	/* The header may be what is left, and is part of the call. */
	if (own(copy) == -1) {
		free(copy);
		errno = ENOMEM;
		return (-1);
	}
	TAILQ_INSERT_AFTER(&st->out, o, copy, link);
	st->queued += copy->left;
	drop_out(st, o);
	return (0);
}
