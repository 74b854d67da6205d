/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * One connection: a receive buffer that messages are taken out of, a queue
 * of bytes that the socket had no room for, and the calls that wait for a
 * reply.
 *
 * Descriptors.  A receive returns those of one send at most, and ends with the
 * bytes of that send; so they belong to the message that has the last byte
 * that came along with them.  The buffer is refilled only when it has no whole
 * message, so at any time descriptors of no more than two messages are held:
 * the one that was begun before the last receive, and the last one.
 */

#include <sys/socket.h>

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define IN_MIN		((size_t)16 << 10)	/* receive buffer, at first */
#define OUT_MIN		((size_t)16 << 10)	/* queue, at first */
#define MOVE_MAX	256			/* bytes moved without need */

/* Sends with descriptors that may wait in the queue, and calls unanswered. */
#define MAX_PARCELS	16
#define MAX_CALLS	64

/* A received descriptor, and the stream offset after the bytes it came with. */
struct held {
	int fd;
	uint64_t end;
};

/* Our copies of descriptors to go out with the byte at a stream offset. */
struct parcel {
	uint64_t start;
	size_t nfds;
	int fds[VD_MAX_FDS];
};

/* A call whose reply has not come; its caller may have given up. */
struct call {
	uint16_t id;
	uint16_t cmd;
	bool used;
};

/*
 * [I] set by vd__conn_create(), then immutable.  All else belongs to the one
 * thread that may use the connection.
 */
struct vd__conn {
	int fd;				/* [I] */
	bool closed;			/* the socket is shut down */
	size_t max_queued;		/* [I] */

	uint8_t *in;
	size_t in_size;
	size_t in_start;		/* first byte not taken */
	size_t in_end;
	uint64_t in_pos;		/* stream offset of in[in_start] */
	struct held held[2 * VD_MAX_FDS];
	size_t nheld;
	uint64_t lost_end[2];		/* as held.end, of what is lost */

	uint8_t *out;
	size_t out_size;
	size_t out_start;
	size_t out_end;
	uint64_t out_pos;		/* stream offset of out[out_start] */
	struct parcel parcels[MAX_PARCELS];	/* ascending */
	size_t nparcels;

	struct call calls[MAX_CALLS];
	uint16_t next_id;
};

struct vd__conn *
vd__conn_create(int fd, size_t max_queued)
{
	struct vd__conn *c;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return (NULL);
	if ((c->in = malloc(IN_MIN)) == NULL) {
		free(c);
		return (NULL);
	}
	c->in_size = IN_MIN;
	c->fd = fd;
	c->max_queued = max_queued;
	return (c);
}

void
vd__conn_close(struct vd__conn *c)
{
	size_t i, j;

	/*
	 * The descriptor stays until the connection is destroyed, so that who
	 * watches it can stop before its number is used again.
	 */
	if (!c->closed)
		shutdown(c->fd, SHUT_RDWR);
	c->closed = true;
	for (i = 0; i < c->nheld; i++)
		vd__close(c->held[i].fd);
	c->nheld = 0;
	for (i = 0; i < c->nparcels; i++)
		for (j = 0; j < c->parcels[i].nfds; j++)
			vd__close(c->parcels[i].fds[j]);
	c->nparcels = 0;
	c->in_start = c->in_end = 0;
	c->out_start = c->out_end = 0;
}

void
vd__conn_destroy(struct vd__conn *c)
{
	int saved = errno;

	if (c == NULL)
		return;
	vd__conn_close(c);
	vd__close(c->fd);
	free(c->in);
	free(c->out);
	free(c);
	errno = saved;
}

int
vd__conn_fd(const struct vd__conn *c)
{
	return (c->closed ? -1 : c->fd);
}

/* The connection is of no more use. */
static int
broken(struct vd__conn *c, int err)
{
	vd__conn_close(c);
	errno = err;
	return (-1);
}

static bool
is_open(const struct vd__conn *c)
{
	if (c->closed)
		errno = ENOTCONN;
	return (!c->closed);
}

void
vd__msg_close(struct vd__msg *m)
{
	size_t i;

	for (i = 0; i < m->nfds; i++)
		vd__close(m->fds[i]);
	m->nfds = 0;
}

/* --- receiving ----------------------------------------------------------- */

/*
 * The header of the message at the start of the buffer: 1 if all of the
 * message is there, 0 if not, with *need bytes to have room for, or -1.
 */
static int
peek(const struct vd__conn *c, struct vd_hdr *hdr, size_t *need)
{
	size_t have = c->in_end - c->in_start;

	*need = sizeof(*hdr);
	switch (vd__wire_hdr(c->in + c->in_start, have, VD_MAX_MSG_SIZE,
	    hdr)) {
	case -1:
		return (-1);
	case 0:
		return (0);
	}
	*need = hdr->size;
	return (have >= hdr->size);
}

bool
vd__conn_ready(const struct vd__conn *c)
{
	struct vd_hdr hdr;
	size_t need;

	/* A header that breaks the stream has to be looked at, too. */
	return (!c->closed && peek(c, &hdr, &need) != 0);
}

/*
 * Have room for need bytes from in_start, which is more than are there.  A
 * short beginning is moved to the front at once, so that receives stay large.
 */
static int
make_room(struct vd__conn *c, size_t need)
{
	size_t have = c->in_end - c->in_start;
	uint8_t *p;

	if (c->in_start > 0 && (c->in_size - c->in_start < need ||
	    have <= MOVE_MAX)) {
		memmove(c->in, c->in + c->in_start, have);
		c->in_start = 0;
		c->in_end = have;
	}
	if (need <= c->in_size)
		return (0);
	/* need is bounded by VD_MAX_MSG_SIZE. */
	if ((p = realloc(c->in, need)) == NULL)
		return (-1);
	c->in = p;
	c->in_size = need;
	return (0);
}

/* Keep descriptors that came with the bytes before stream offset end. */
static void
hold(struct vd__conn *c, const int *fds, size_t nfds, bool lost, uint64_t end)
{
	size_t i;

	for (i = 0; i < nfds; i++) {
		if (c->nheld < 2 * VD_MAX_FDS) {
			c->held[c->nheld].fd = fds[i];
			c->held[c->nheld++].end = end;
		} else {
			vd__close(fds[i]);
			lost = true;
		}
	}
	if (lost && c->lost_end[0] <= c->in_pos)
		c->lost_end[0] = end;
	else if (lost)
		c->lost_end[1] = end;
}

/* Receive once: 1, 0 if nothing is there, or -1. */
static int
fill(struct vd__conn *c, size_t need)
{
	int fds[VD_MAX_FDS];
	size_t nfds;
	ssize_t n;
	bool lost;

	if (make_room(c, need) == -1)
		return (broken(c, ENOMEM));
	n = vd__sock_recv(c->fd, c->in + c->in_end, c->in_size - c->in_end,
	    fds, &nfds, &lost);
	if (n == -1) {
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return (0);
		if (errno == ENOMEM || errno == ENOBUFS)
			return (broken(c, ENOMEM));
		return (broken(c, ENOTCONN));
	}
	c->in_end += (size_t)n;
	hold(c, fds, nfds, lost, c->in_pos + (c->in_end - c->in_start));
	if (n == 0)
		return (broken(c, ENOTCONN));
	return (1);
}

/* Hand the message at the start of the buffer out. */
static void
take(struct vd__conn *c, const struct vd_hdr *hdr, struct vd__msg *m)
{
	size_t i, left = 0;

	m->hdr = *hdr;
	m->data = c->in + c->in_start + sizeof(*hdr);
	m->len = hdr->size - sizeof(*hdr);
	m->nfds = 0;
	m->fds_lost = false;
	c->in_start += hdr->size;
	c->in_pos += hdr->size;
	for (i = 0; i < c->nheld; i++) {
		if (c->held[i].end > c->in_pos)
			c->held[left++] = c->held[i];
		else if (m->nfds < VD_MAX_FDS)
			m->fds[m->nfds++] = c->held[i].fd;
		else {
			vd__close(c->held[i].fd);
			m->fds_lost = true;
		}
	}
	c->nheld = left;
	for (i = 0; i < 2; i++) {
		if (c->lost_end[i] != 0 && c->lost_end[i] <= c->in_pos) {
			c->lost_end[i] = 0;
			m->fds_lost = true;
		}
	}
}

int
vd__conn_next(struct vd__conn *c, struct vd__msg *m)
{
	struct vd_hdr hdr;
	size_t need;
	int rv;

	memset(m, 0, sizeof(*m));
	if (!is_open(c))
		return (-1);
	while ((rv = peek(c, &hdr, &need)) == 0) {
		if ((rv = fill(c, need)) != 1)
			return (rv);
	}
	if (rv == -1)
		return (broken(c, EPROTO));
	take(c, &hdr, m);
	return (1);
}

/* --- sending ------------------------------------------------------------- */

size_t
vd__conn_queued(const struct vd__conn *c)
{
	return (c->out_end - c->out_start);
}

bool
vd__conn_full(const struct vd__conn *c)
{
	return (vd__conn_queued(c) > c->max_queued ||
	    c->nparcels == MAX_PARCELS);
}

/* The socket took n bytes of the queue, with the first parcel if one is due. */
static void
sent(struct vd__conn *c, size_t n)
{
	size_t i;

	if (n > 0 && c->nparcels > 0 && c->parcels[0].start == c->out_pos) {
		for (i = 0; i < c->parcels[0].nfds; i++)
			vd__close(c->parcels[0].fds[i]);
		c->nparcels--;
		memmove(c->parcels, c->parcels + 1,
		    c->nparcels * sizeof(c->parcels[0]));
	}
	c->out_start += n;
	c->out_pos += n;
	if (c->out_start == c->out_end)
		c->out_start = c->out_end = 0;
}

int
vd__conn_flush(struct vd__conn *c)
{
	const struct parcel *first;
	struct iovec iov;
	uint64_t limit;
	ssize_t n;

	if (!is_open(c))
		return (-1);
	while (c->out_start < c->out_end) {
		/*
		 * Descriptors start a send, and what does not belong to them
		 * ends before it: see the comment at the top.
		 */
		first = c->nparcels > 0 ? &c->parcels[0] : NULL;
		limit = c->out_end - c->out_start;
		if (first != NULL && first->start > c->out_pos)
			limit = first->start - c->out_pos;
		else if (first != NULL && c->nparcels > 1 &&
		    c->parcels[1].start - c->out_pos < limit)
			limit = c->parcels[1].start - c->out_pos;
		iov.iov_base = c->out + c->out_start;
		iov.iov_len = (size_t)limit;
		if (first != NULL && first->start == c->out_pos)
			n = vd__sock_send(c->fd, &iov, 1, first->fds,
			    first->nfds);
		else
			n = vd__sock_send(c->fd, &iov, 1, NULL, 0);
		if (n == -1) {
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				return (0);
			return (broken(c, errno == ENOMEM ||
			    errno == ENOBUFS ? ENOMEM : ENOTCONN));
		}
		sent(c, (size_t)n);
	}
	return (1);
}

/* Have room for n more bytes at the end of the queue. */
static int
grow_out(struct vd__conn *c, size_t n)
{
	size_t have = c->out_end - c->out_start, size;
	uint8_t *p;

	if (n <= c->out_size - c->out_end)
		return (0);
	/* Moving less than half of it pays off. */
	if (c->out_start > have && n <= c->out_size - have) {
		memcpy(c->out, c->out + c->out_start, have);
		c->out_start = 0;
		c->out_end = have;
		return (0);
	}
	for (size = c->out_size > 0 ? c->out_size : OUT_MIN;
	    size - c->out_end < n; size *= 2)
		continue;
	if ((p = realloc(c->out, size)) == NULL)
		return (-1);
	c->out = p;
	c->out_size = size;
	return (0);
}

/*
 * Queue what is left of a message from its byte skip on, and copies of its
 * descriptors if none of it was sent.
 */
static int
queue(struct vd__conn *c, const struct iovec *iov, int iovcnt, size_t skip,
    const int *fds, size_t nfds)
{
	struct parcel *parcel;
	size_t total = 0, n;
	int i;

	for (i = 0; i < iovcnt; i++)
		total += iov[i].iov_len;
	if (grow_out(c, total - skip) == -1)
		return (broken(c, ENOMEM));
	if (nfds > 0 && skip == 0) {
		if (c->nparcels == MAX_PARCELS)
			return (broken(c, ENOMEM));
		parcel = &c->parcels[c->nparcels++];
		parcel->start = c->out_pos + (c->out_end - c->out_start);
		for (parcel->nfds = 0; parcel->nfds < nfds; parcel->nfds++) {
			parcel->fds[parcel->nfds] = fcntl(fds[parcel->nfds],
			    F_DUPFD_CLOEXEC, 0);
			if (parcel->fds[parcel->nfds] == -1)
				return (broken(c, ENOMEM));
		}
	}
	for (i = 0; i < iovcnt; i++) {
		n = iov[i].iov_len;
		if (skip >= n) {
			skip -= n;
			continue;
		}
		memcpy(c->out + c->out_end,
		    (const uint8_t *)iov[i].iov_base + skip, n - skip);
		c->out_end += n - skip;
		skip = 0;
	}
	return (0);
}

/* Send a message, or queue what the socket does not take of it. */
static int
put(struct vd__conn *c, const struct vd_hdr *hdr, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds)
{
	struct iovec all[VD__MAX_IOV + 1];
	struct vd_hdr copy = *hdr;
	ssize_t n = 0;
	int i, rv;

	assert(iovcnt <= VD__MAX_IOV);
	all[0].iov_base = &copy;
	all[0].iov_len = sizeof(copy);
	for (i = 0; i < iovcnt; i++)
		all[i + 1] = iov[i];
	if ((rv = vd__conn_flush(c)) == -1)
		return (-1);
	if (rv == 1) {
		n = vd__sock_send(c->fd, all, iovcnt + 1, fds, nfds);
		if (n == (ssize_t)hdr->size)
			return (0);
		if (n == -1) {
			if (errno != EAGAIN && errno != EWOULDBLOCK)
				return (broken(c, errno == ENOMEM ||
				    errno == ENOBUFS ? ENOMEM : ENOTCONN));
			n = 0;
		}
		/* The queue is empty: what was sent directly counts as sent. */
		c->out_pos += (size_t)n;
	}
	return (queue(c, all, iovcnt + 1, (size_t)n, fds, nfds));
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

int
vd__conn_reply(struct vd__conn *c, const struct vd_hdr *req,
    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds)
{
	struct vd_hdr hdr;
	size_t size;

	if (!is_open(c))
		return (-1);
	if (req->flags & VD_NO_REPLY)
		return (0);
	if ((size = message_size(iov, iovcnt)) == 0) {
		errno = EMSGSIZE;
		return (-1);
	}
	vd__wire_reply(&hdr, req, size - sizeof(hdr));
	return (put(c, &hdr, iov, iovcnt, fds, nfds));
}

int
vd__conn_error(struct vd__conn *c, const struct vd_hdr *req, int err)
{
	struct vd_hdr hdr;

	if (!is_open(c))
		return (-1);
	if (req->flags & VD_NO_REPLY)
		return (0);
	vd__wire_error(&hdr, req, err);
	return (put(c, &hdr, NULL, 0, NULL, 0));
}

/* --- calling ------------------------------------------------------------- */

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

/*
 * Wait until the socket has something to read, or room for what is queued,
 * which is sent.  Returns 0, or -1: ETIMEDOUT, or closed.
 */
static int
wait_socket(struct vd__conn *c, int64_t deadline)
{
	struct pollfd pfd = { .fd = c->fd, .events = POLLIN };
	int64_t left = -1;
	int rv;

	if (vd__conn_queued(c) > 0)
		pfd.events |= POLLOUT;
	do {
		if (deadline != -1 && (left = deadline - now_ms()) < 0)
			left = 0;
		rv = poll(&pfd, 1, left > INT32_MAX ? INT32_MAX : (int)left);
	} while (rv == -1 && errno == EINTR);
	if (rv == -1)
		return (broken(c, ENOMEM));
	if (rv == 0) {
		errno = ETIMEDOUT;
		return (-1);
	}
	if ((pfd.revents & POLLOUT) && vd__conn_flush(c) == -1)
		return (-1);
	return (0);
}

static struct call *
find_call(struct vd__conn *c, uint16_t id)
{
	size_t i;

	for (i = 0; i < MAX_CALLS; i++)
		if (c->calls[i].used && c->calls[i].id == id)
			return (&c->calls[i]);
	return (NULL);
}

/* An id that no unanswered call has. */
static uint16_t
new_id(struct vd__conn *c)
{
	while (find_call(c, c->next_id) != NULL)
		c->next_id++;
	return (c->next_id++);
}

/*
 * Take one message from the stream, if one is there, and see to it.  Returns
 * 1 if it is the reply to call, which goes to *reply; 2 if it was something
 * else; 0 if there is none; or -1.
 */
static int
receive(struct vd__conn *c, struct call *call, struct vd__msg *reply)
{
	struct vd__msg m;
	struct call *its;
	int rv;

	if ((rv = vd__conn_next(c, &m)) != 1)
		return (rv);
	if ((m.hdr.flags & VD_TYPE_MASK) == VD_TYPE_COMMAND) {
		vd__msg_close(&m);
		/* A peer that asks and asks, and never reads the answers. */
		if (vd__conn_queued(c) > 2 * VD_MAX_MSG_SIZE)
			return (broken(c, EPROTO));
		return (vd__conn_error(c, &m.hdr, ENOSYS) == -1 ? -1 : 2);
	}
	its = find_call(c, m.hdr.id);
	if ((m.hdr.flags & VD_TYPE_MASK) != VD_TYPE_REPLY || its == NULL ||
	    its->cmd != m.hdr.cmd) {
		/* Nobody asked for this. */
		vd__msg_close(&m);
		return (broken(c, EPROTO));
	}
	its->used = false;
	if (its != call) {
		vd__msg_close(&m);
		return (2);
	}
	*reply = m;
	return (1);
}

/* See to all that is there; who never stops talking gets no more time. */
static int
catch_up(struct vd__conn *c, int64_t deadline)
{
	int rv;

	while ((rv = receive(c, NULL, NULL)) == 2) {
		if (deadline != -1 && now_ms() > deadline) {
			errno = ETIMEDOUT;
			return (-1);
		}
	}
	return (rv);
}

/* Read and write until no more than max_queued bytes are left to send. */
static int
drain(struct vd__conn *c, int64_t deadline)
{
	while (vd__conn_full(c)) {
		if (wait_socket(c, deadline) == -1 ||
		    catch_up(c, deadline) == -1)
			return (-1);
	}
	return (0);
}

static struct call *
free_call(struct vd__conn *c)
{
	size_t i;

	for (i = 0; i < MAX_CALLS; i++)
		if (!c->calls[i].used)
			return (&c->calls[i]);
	return (NULL);
}

/* Check and send a command; *call is its place in the table unless NULL. */
static int
submit(struct vd__conn *c, enum vd_cmd cmd, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, int64_t deadline,
    struct call **call)
{
	struct vd_hdr hdr = { .cmd = (uint16_t)cmd };
	struct call *place = NULL;
	size_t size;

	if (!is_open(c))
		return (-1);
	if ((size = message_size(iov, iovcnt)) == 0 || nfds > VD_MAX_FDS) {
		errno = EMSGSIZE;
		return (-1);
	}
	if (drain(c, deadline) == -1)
		return (-1);
	if (call != NULL && (place = free_call(c)) == NULL) {
		/* Late replies may be there by now. */
		if (catch_up(c, deadline) == -1)
			return (-1);
		if ((place = free_call(c)) == NULL) {
			errno = ENOBUFS;
			return (-1);
		}
	}
	hdr.id = new_id(c);
	hdr.size = (uint32_t)size;
	hdr.flags = VD_TYPE_COMMAND | (call == NULL ? VD_NO_REPLY : 0);
	if (put(c, &hdr, iov, iovcnt, fds, nfds) == -1)
		return (-1);
	if (call != NULL) {
		*place = (struct call){ .id = hdr.id, .cmd = hdr.cmd,
		    .used = true };
		*call = place;
	}
	return (0);
}

int
vd__conn_call(struct vd__conn *c, enum vd_cmd cmd, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, int timeout_ms,
    struct vd__msg *reply)
{
	int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;
	struct call *call = NULL;
	int rv;

	memset(reply, 0, sizeof(*reply));
	if (submit(c, cmd, iov, iovcnt, fds, nfds, deadline, &call) == -1)
		return (-1);
	while ((rv = receive(c, call, reply)) != 1) {
		/* After a timeout the id stays taken until the reply comes. */
		if (rv == 0)
			rv = wait_socket(c, deadline);
		if (rv == -1)
			return (-1);
		/* A peer that never stops talking gets no more time. */
		if (rv == 2 && deadline != -1 && now_ms() > deadline) {
			errno = ETIMEDOUT;
			return (-1);
		}
	}
	if (reply->hdr.flags & VD_ERROR) {
		vd__msg_close(reply);
		errno = vd__wire_errno(&reply->hdr);
		memset(reply, 0, sizeof(*reply));
		return (-1);
	}
	return (0);
}

int
vd__conn_post(struct vd__conn *c, enum vd_cmd cmd, const struct iovec *iov,
    int iovcnt, const int *fds, size_t nfds, int timeout_ms)
{
	int64_t deadline = timeout_ms < 0 ? -1 : now_ms() + timeout_ms;

	if (submit(c, cmd, iov, iovcnt, fds, nfds, deadline, NULL) == -1)
		return (-1);
	return (drain(c, deadline));
}
