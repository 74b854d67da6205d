/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_INTERNAL_H
#define LIBVFUDMA_INTERNAL_H

#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include <libmemtree/memtree.h>
#include <libvfudma/client.h>
#include <libvfudma/client-tree.h>
#include <libvfudma/irq.h>
#include <libvfudma/mappings.h>
#include <libvfudma/pci.h>
#include <libvfudma/proto.h>
#include <libvfudma/request.h>
#include <libvfudma/server.h>
#include <libvfudma/sigbus.h>

/*
 * Handlers of commands return 0 or a positive errno, which is what an error
 * reply carries; other private functions return 0 or -1 with errno, as the
 * public ones do.
 */

/* --- wire.c -------------------------------------------------------------- */

/*
 * Bytes to structs and back: pure.  Every function is safe on any bytes, of
 * any alignment, and reads none past len.
 */

/*
 * Check and copy the header at the start of a stream.  Returns 1, 0 if fewer
 * bytes than a header are there, or -1 with EPROTO if the stream cannot be
 * followed any further: a size below 16, or above max.
 */
int	vd__wire_hdr(const void *buf, size_t len, size_t max,
	    struct vd_hdr *hdr);

/* Headers of replies to req. */
void	vd__wire_reply(struct vd_hdr *hdr, const struct vd_hdr *req,
	    size_t payload);
void	vd__wire_error(struct vd_hdr *hdr, const struct vd_hdr *req, int err);

/* What an error reply says: 1 to VD_MAX_ERRNO. */
int	vd__wire_errno(const struct vd_hdr *hdr);

/*
 * Payloads of requests: 0, or EINVAL (too short, argsz too small, flags
 * unknown, a range that is empty or wraps).  What follows a struct is lent in
 * *data.
 */
int	vd__wire_version(const void *p, size_t len, struct vd_version *v,
	    const char **json, size_t *json_len);	/* NULL: no JSON */
int	vd__wire_dma_map(const void *p, size_t len, struct vd_dma_map *m);
int	vd__wire_dma_unmap(const void *p, size_t len, struct vd_dma_unmap *m);
int	vd__wire_device_info(const void *p, size_t len,
	    struct vd_device_info *info);
int	vd__wire_region_info(const void *p, size_t len,
	    struct vd_region_info *info);
int	vd__wire_irq_info(const void *p, size_t len, struct vd_irq_info *info);
int	vd__wire_irq_set(const void *p, size_t len, struct vd_irq_set *set,
	    const uint8_t **data, size_t *data_len);
/* With is_write the data that follows must be count bytes. */
int	vd__wire_region_access(const void *p, size_t len, bool is_write,
	    size_t max_data, struct vd_region_access *a, const uint8_t **data);
int	vd__wire_dma_access(const void *p, size_t len, bool is_write,
	    size_t max_data, struct vd_dma_access *a, const uint8_t **data);
int	vd__wire_write_multi(const void *p, size_t len, uint64_t *count);
void	vd__wire_write_one(const void *p, uint64_t i, struct vd_write_one *w);

/*
 * The reply to GET_REGION_INFO with one mappable area: fills in info's argsz,
 * flags and cap_offset, and as much of buf as info->argsz of the request
 * allows.  Returns the bytes of payload; the fd goes along if they are more
 * than a struct vd_region_info.
 */
#define VD__REGION_INFO_MAX						\
	(sizeof(struct vd_region_info) + sizeof(struct vd_cap_sparse) +	\
	    sizeof(struct vd_area))
size_t	vd__wire_put_region_info(uint8_t buf[VD__REGION_INFO_MAX],
	    struct vd_region_info *info, const struct vd_area *area);

/*
 * For the client: the sparse areas in a reply to GET_REGION_INFO of len
 * bytes, at most max of them, each inside the region.  Returns 1 with *nr
 * set, 0 if the reply has no such capability, or -1 with EPROTO.
 */
int	vd__wire_get_areas(const void *p, size_t len, struct vd_area *areas,
	    unsigned int max, unsigned int *nr);

/* --- sock.c -------------------------------------------------------------- */

/* Close fd unless it is -1; keeps errno. */
void	vd__close(int fd);

/*
 * Receive once, without blocking.  Descriptors are put into fds, which has
 * room for VD_MAX_FDS; *lost is set if some did not fit or could not be
 * opened.  Returns bytes, 0 at the end of the stream (also then there may be
 * fds), or -1 with errno set.
 */
ssize_t	vd__sock_recv(int fd, void *buf, size_t len, int *fds, size_t *nfds,
	    bool *lost);

/* Send once, without blocking: bytes, or -1 with errno set and none sent. */
ssize_t	vd__sock_send(int fd, const struct iovec *iov, int iovcnt,
	    const int *fds, size_t nfds);

/*
 * Make a listening socket at path, of mode 0600; see vd_server_listen().  Or
 * connect to one.  Both are non-blocking and close-on-exec.
 */
int	vd__sock_listen(const char *path);
int	vd__sock_connect(const char *path);

/*
 * Make a socket that somebody gave us non-blocking.  EINVAL if it is not a
 * UNIX stream socket, listening or not as said.
 */
int	vd__sock_adopt(int fd, bool listening);

/* Does the other end run as our user or as root? */
bool	vd__sock_trusted(int fd);

/* --- stream.c ------------------------------------------------------------ */

/*
 * A buffer of received bytes.  The messages in it, and the stream, hold
 * references; total is the connection's count of all such bytes.
 */
struct vd__inbuf {
	_Atomic(unsigned int) refs;
	_Atomic(size_t) *total;
	size_t size;
	uint8_t data[];
};

/* A message that was received. */
struct vd__msg {
	struct vd_hdr hdr;
	const uint8_t *data;	/* payload, unaligned; until vd__msg_close() */
	size_t len;
	int fds[VD_MAX_FDS];	/* ours: set to -1 what is kept */
	size_t nfds;
	bool fds_lost;		/* more came than we could take */
	bool gone;		/* there was no memory where it was to go */
	struct vd__inbuf *buf;	/* holds data; NULL: data is elsewhere */
	struct vd__stream *from;	/* a reply goes the same way */
};

/* Close the fds of m that are not -1, let go of its data; keeps errno. */
void	vd__msg_close(struct vd__msg *m);

#define VD__MAX_IOV	4	/* pieces of a payload to send */

struct vd__call;

/* A message, or the rest of one, that waits for room in the socket. */
struct vd__out {
	TAILQ_ENTRY(vd__out) link;
	struct vd_hdr hdr;
	struct iovec iov[VD__MAX_IOV + 1];	/* what is left to send */
	int iovcnt;
	size_t left;			/* bytes in iov */
	bool begun;			/* some of it has gone */
	bool queued;
	bool gone;			/* and zeroes for memory that was not there */
	int fds[VD_MAX_FDS];		/* copies, until it is begun */
	size_t nfds;
	struct vd__call *call;		/* lends this, and what iov names */
	void *copy;			/* allocated along or apart; or NULL */
};

TAILQ_HEAD(vd__outs, vd__out);

/* A received descriptor, and the stream offset after the bytes it came with. */
struct vd__held {
	int fd;
	uint64_t end;
};

/*
 * One socket: bytes and descriptors in, cut into messages; messages out.
 * Members above out are in, and belong to who holds the connection's in_lock;
 * the others to who holds its out_lock.
 */
struct vd__stream {
	int fd;				/* [I] -1: none */
	struct vd__inbuf *in;
	_Atomic(size_t) *total;		/* [I] */
	size_t start;			/* first byte in it not taken */
	size_t end;
	uint64_t pos;			/* stream offset of start */
	bool drained;			/* by the last receive, as it seems */
	struct vd__held held[2 * VD_MAX_FDS];
	size_t nheld;
	uint64_t lost_end[2];		/* as held.end, of what is lost */
	/* A message whose last bytes go straight to where they are wanted. */
	struct vd_hdr placed;
	uint8_t *place;			/* the next byte; NULL: not wanted */
	size_t place_left;		/* 0: none */
	bool place_gone;		/* was wanted, where no memory was */

	struct vd__outs out;
	size_t queued;			/* bytes in out */
	uint64_t gone;			/* bytes that were in out */
	size_t nparcels;		/* of those in out, with descriptors */
};

int	vd__stream_init(struct vd__stream *st, int fd, _Atomic(size_t) *total);
void	vd__stream_fini(struct vd__stream *st);	/* closes the socket */
void	vd__stream_clear(struct vd__stream *st);	/* send nothing more */

/*
 * Is the next message there?  1; 0 if not all of it, with *need bytes to be
 * had, and hdr set if that is more than a header; -1 if it can be none.
 */
int	vd__stream_peek(const struct vd__stream *st, struct vd_hdr *hdr,
	    size_t *need);
/*
 * Receive once, up to max bytes, and with room for need: 1, 0 if nothing is
 * there, -1 with ENOMEM or ENOTCONN.
 */
int	vd__stream_fill(struct vd__stream *st, size_t need, size_t max);
/* Take the message that peek has found. */
void	vd__stream_take(struct vd__stream *st, const struct vd_hdr *hdr,
	    struct vd__msg *m);
/*
 * Close the sockets among the descriptors of a message that is not whole.  One
 * might be the peer's end of this very socket, which then has no end.
 */
void	vd__stream_drop_sockets(struct vd__stream *st);
/*
 * Take the header and head bytes after it, which are there, of a message that
 * is not all there; the rest goes to dst.  Until vd__stream_placed() returns
 * 1 or -1 that is all that can be received.  If dst is memory that is gone, the
 * rest is dropped, and the message says so.
 */
void	vd__stream_place(struct vd__stream *st, const struct vd_hdr *hdr,
	    size_t head, void *head_buf, void *dst);
int	vd__stream_placed(struct vd__stream *st, struct vd__msg *m);

/*
 * Send what is queued: 1 if nothing is left, 0 if some waits for room, -1 with
 * ENOMEM or ENOTCONN.
 */
int	vd__stream_flush(struct vd__stream *st);
/*
 * Send a message, or queue what the socket does not take of it: as flush.  With
 * call its out is used for that, and iov and what it names are lent until the
 * call ends; otherwise they are copied.  force queues in any case.  ENOBUFS
 * (too many with descriptors are queued), EBADF, EMFILE and ETOOMANYREFS (for
 * fds), and EFAULT (for iov): nothing of this one is sent or queued, and the
 * stream is good.  What is gone of memory that was lent is sent as zeroes, and
 * the call's out.gone tells.
 */
int	vd__stream_put(struct vd__stream *st, const struct vd_hdr *hdr,
	    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
	    struct vd__call *call, bool force);
bool	vd__stream_is_good(int err);	/* one of the last four */
bool	vd__stream_is_fd_error(int err);	/* and not EFAULT */
/*
 * Stop lending to the queue: 1 if the message was not begun and never will be,
 * 0 if it has gone or the rest of it was copied, -1 with ENOMEM.  A call that
 * was never put must have out.begun and out.queued false.
 */
int	vd__stream_unlend(struct vd__stream *st, struct vd__call *call);

/* More than max bytes are queued, or as many descriptors as may be. */
bool	vd__stream_full(const struct vd__stream *st, size_t max);
/* Would putting a message with descriptors fail with ENOBUFS? */
bool	vd__stream_no_parcels(const struct vd__stream *st);

/* --- msg.c, msg-read.c, msg-wait.c ---------------------------------------- */

/*
 * A command of ours and its reply: in the caller's memory from vd__conn_send()
 * until it has ended, with what it sends and where the reply goes.
 *
 * If data is set, a reply of exactly head + data_len bytes has the last
 * data_len put there, in place where that is worth it; reply.data is good for
 * head bytes only then.  Any other reply is whole in reply.data.
 *
 * If keep is set, and the call is given up when some of it has been sent, a
 * reference to keep is held until the late reply comes, or the connection ends.
 *
 * With grace_ms a call that is awaited has so long, and no longer, once the peer
 * has asked for something and waits for the answer, which nobody gives yet.
 */
struct vd__call {
	void *data;
	size_t data_len;
	size_t head;			/* up to 16 */
	struct mt_region *keep;		/* lent; or NULL */
	void (*done)(struct vd__call *);	/* NULL: it is awaited */
	void *arg;			/* the caller's */
	int grace_ms;			/* 0: does not matter */
	/* when it has ended */
	int err;			/* 0, or as vd__conn_call() */
	bool placed;			/* data is filled */
	struct vd__msg reply;		/* if err is 0; to be closed */
	/* private: conn.lock, but for out */
	int state;
	uint16_t slot;
	int64_t begun;			/* CLOCK_MONOTONIC ms */
	int64_t deadline;		/* -1: none */
	struct vd__waiter *waiter;
	struct vd__stream *placing;
	uint8_t head_buf[16];
	_Atomic(bool) lent;		/* [a] out and iov are in use */
	TAILQ_ENTRY(vd__call) link;	/* in pending or ended */
	struct vd__out out;
};

/*
 * One connection, for either role: a socket, and perhaps a twin for the
 * server's commands and their replies.  Any thread may use it; what m lends
 * belongs to whoever got it.  None of these blocks but _begin, _await, _call,
 * _post, _run.
 *
 * A function that fails because the connection is of no more use ends it, and
 * so do all others then: ENOTCONN (the peer is gone, or it was closed), EPROTO
 * (it breaks the protocol), ENOMEM.
 */
struct vd__conn;

int64_t	vd__now_ms(void);		/* CLOCK_MONOTONIC */

/*
 * What the user of a connection is told.  wake: somebody else has received
 * commands, ended calls that are to be told of, or left bytes to be sent; any
 * thread, no lock held.  serve: a command that came while some thread waited,
 * on that thread, and never two at once but for what one waits for; NULL leaves
 * it for vd__conn_next(), or with wake NULL, too, answers ENOSYS.  no_sockets:
 * none is wanted; see vd__stream_drop_sockets().
 */
struct vd__conn_ops {
	void (*wake)(void *arg);
	void (*serve)(void *arg, struct vd__msg *m);
	bool no_sockets;
};

/*
 * Takes over fd, a connected socket; destroying closes it and every fd that
 * nobody claimed.  With more than max_queued bytes waiting to be sent
 * vd__conn_full() holds.  It must not be in use when it is destroyed, and all
 * messages must be closed.
 */
struct vd__conn *vd__conn_create(int fd, size_t max_queued);
void	vd__conn_destroy(struct vd__conn *c);	/* NULL is ignored */
/* Before others use it. */
void	vd__conn_set_ops(struct vd__conn *c, const struct vd__conn_ops *ops,
	    void *arg);
void	vd__conn_set_forced(struct vd__conn *c, bool forced);
/* Take over the twin: our commands go by it (the server's), or come by it. */
int	vd__conn_set_twin(struct vd__conn *c, int fd, bool ours);
/* Lent; -1 once closed, though the number stays taken until the end. */
int	vd__conn_fd(const struct vd__conn *c);
int	vd__conn_twin_fd(const struct vd__conn *c);	/* or -1: none */
void	vd__conn_close(struct vd__conn *c);	/* later calls: ENOTCONN */

/*
 * Take the next message that is not the reply to a call: a command, or what
 * the caller ends the connection for.  As many receives as one message needs,
 * none if one is there already (vd__conn_ready()).  Returns 1, 0 if no whole
 * message has come, or -1 with errno set; then there is nothing to close.
 */
int	vd__conn_next(struct vd__conn *c, struct vd__msg *m);
bool	vd__conn_ready(struct vd__conn *c);
/* Has the last receive found less than it had room for? */
bool	vd__conn_drained(struct vd__conn *c);
/* Receive replies only, and queue commands: 0, or -1 with errno set. */
int	vd__conn_pump(struct vd__conn *c);

/*
 * Reply to a command: its payload (copied if it cannot be sent at once) and
 * fds (lent), or an error, which is a header only.  Nothing is sent if the
 * command asked for no reply.  Returns 0, or -1 with errno set.
 */
int	vd__conn_reply(struct vd__conn *c, const struct vd__msg *req,
	    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds);
int	vd__conn_error(struct vd__conn *c, const struct vd__msg *req, int err);

/*
 * Send what is queued: 1 if nothing is left, 0 if some waits for room, or -1
 * with errno set.
 */
int	vd__conn_flush(struct vd__conn *c);
size_t	vd__conn_queued(struct vd__conn *c);	/* bytes */
size_t	vd__conn_queued_on(struct vd__conn *c, bool twin);
bool	vd__conn_full(struct vd__conn *c);	/* reply to no more */

/*
 * Begin a call: send a command with a payload in iovcnt pieces and fds, which
 * are lent until it ends.  One with done ends in vd__conn_finish(), others in
 * vd__conn_await().  Returns 0, or -1 with errno set, and the call is not
 * begun: ENOBUFS (too many are under way or have timed out unanswered),
 * EMSGSIZE (more than VD_MAX_MSG_SIZE), EBADF, EMFILE or ETOOMANYREFS (for
 * fds), EFAULT (for iov), or one that ends the connection.
 */
int	vd__conn_send(struct vd__conn *c, struct vd__call *call,
	    enum vd_cmd cmd, const struct iovec *iov, int iovcnt,
	    const int *fds, size_t nfds, int timeout_ms);
/*
 * Wait until call ends.  Returns 0 with call->reply, or -1 with errno set,
 * which call->err has, too: the errno in the peer's error reply; EFAULT, if what
 * was sent, or where the reply was to go, was gone meanwhile; ETIMEDOUT,
 * after which the connection is still good (the late reply is dropped when it
 * comes); or one that ended the connection.
 */
int	vd__conn_await(struct vd__conn *c, struct vd__call *call);
/*
 * Give a call up: true if it ends by this, without done; false if it has
 * ended already.  The other ends it with ECANCELED, which is told as ever.
 */
bool	vd__conn_cancel(struct vd__conn *c, struct vd__call *call);
void	vd__conn_end(struct vd__conn *c, struct vd__call *call);
/* Call done for what has ended; returns how many. */
unsigned int vd__conn_finish(struct vd__conn *c);
bool	vd__conn_has_ended(struct vd__conn *c);	/* finish has something */
size_t	vd__conn_pending(struct vd__conn *c);	/* calls not answered */
/* Those that were given up and keep something: to be read after pending. */
size_t	vd__conn_kept(struct vd__conn *c);
void	vd__conn_unkeep(struct vd__conn *c);	/* which they do no more */
/* Another number whenever the peer has read what was queued, or has answered. */
uint64_t vd__conn_progress(struct vd__conn *c);
/* End overdue calls with done: ms until the next is overdue, -1 if none. */
int	vd__conn_expire(struct vd__conn *c);

/*
 * Begin a call that is awaited, of which the whole reply is wanted: as
 * vd__conn_send(), but waits for room.
 */
int	vd__conn_begin(struct vd__conn *c, struct vd__call *call,
	    enum vd_cmd cmd, const struct iovec *iov, int iovcnt,
	    const int *fds, size_t nfds, int timeout_ms);

/*
 * Send, and wait up to timeout_ms (-1: for ever) for the reply, which the
 * caller ends with vd__msg_close().  Returns as begin and await.
 *
 * vd__conn_post() sends with VD_NO_REPLY, and waits only until no more than
 * max_queued bytes are left to send.  What is left, also after ETIMEDOUT, goes
 * out with later calls.
 */
int	vd__conn_call(struct vd__conn *c, enum vd_cmd cmd,
	    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
	    int timeout_ms, struct vd__msg *reply);
int	vd__conn_post(struct vd__conn *c, enum vd_cmd cmd,
	    const struct iovec *iov, int iovcnt, const int *fds, size_t nfds,
	    int timeout_ms);

/* Is this thread in ops->serve? */
bool	vd__conn_is_server(struct vd__conn *c);

/*
 * Serve what has come, and wait up to timeout_ms until the answers are sent: 1,
 * 0 if there was nothing, or -1 with errno set.
 */
int	vd__conn_run(struct vd__conn *c, int timeout_ms);

/* --- negotiate.c --------------------------------------------------------- */

/* What one side says of itself: the capabilities of VERSION. */
struct vd__caps {
	uint32_t max_msg_fds;
	uint64_t max_data_xfer;
	uint64_t max_dma_maps;
	uint64_t pgsizes;
	uint64_t migration_pgsize;
	uint64_t max_bitmap;
	bool twin_socket;
	unsigned int twin_index;	/* in the fds of the answer */
	bool write_multiple;
};

#define VD__WHY_MAX	160	/* why an exchange failed, for the log */
#define VD__VERSION_MAX	256	/* payload of what we send */

/*
 * The capabilities in json, len bytes without a NUL, over the defaults of
 * what it does not name.  from_server tells whose they are: an answer may not
 * go beyond what our client offers.  Returns 0, or EINVAL with a reason that
 * names the key, or ENOMEM.
 */
int	vd__negotiate_parse(const char *json, size_t len, bool from_server,
	    struct vd__caps *caps, char why[VD__WHY_MAX]);

/*
 * The server's side: check a VERSION request, and make the payload of the
 * reply to it.  Returns 0, or the errno to answer with, and a reason.
 */
int	vd__negotiate_server(const struct vd__msg *req,
	    const struct vd_server_limits *limits, struct vd__caps *peer,
	    uint16_t *minor, uint8_t buf[VD__VERSION_MAX], size_t *len,
	    char why[VD__WHY_MAX]);

/*
 * The client's side: exchange versions over c, and give it the twin socket
 * if one was offered and made.  Returns 0, or -1 with errno
 * set, EPROTO and EPROTONOSUPPORT with a reason.
 */
int	vd__negotiate_client(struct vd__conn *c, int timeout_ms, bool twin,
	    struct vd_client_limits *limits, char why[VD__WHY_MAX]);

/* --- sigbus.c ------------------------------------------------------------ */

#define VD__SIGBUS_LEVELS	8
#define VD__SIGBUS_NEWS		(UINT64_C(1) << 32)

/*
 * How the owner of memory that a peer shares hears that some of it is gone: a
 * number that the owner chose, above 0 and higher for later peers.
 */
struct vd__sigbus_mark {
	_Atomic(uint64_t) lost;		/* [a] the highest one that was hit */
	_Atomic(uint64_t) told;		/* [a] news written to fd */
	int fd;				/* [I] eventfd, or -1 */
	bool is_socket;			/* [I] fd is one: hang up by it */
};

/* A mapping of such memory; private to sigbus.c. */
struct vd__sigbus_range {
	uintptr_t first;
	size_t len;
	size_t unit;
	struct vd__sigbus_mark *mark;
	uint64_t number;
	unsigned int levels;		/* 0: was not entered */
	_Atomic(struct vd__sigbus_range *) next[VD__SIGBUS_LEVELS];
};

/*
 * Guard len bytes that are mapped at p, in pages of unit bytes: from before
 * anybody touches them until nobody does any more, which is before they are
 * unmapped.  A fault there puts number into the mark, and adds VD__SIGBUS_NEWS
 * to its eventfd, or shuts its socket down.  Without vd_sigbus_protect() this
 * does nothing.  Any thread; vd__sigbus_del() waits for handlers that run.
 */
void	vd__sigbus_add(struct vd__sigbus_range *r, const void *p, size_t len,
	    size_t unit, struct vd__sigbus_mark *mark, uint64_t number);
void	vd__sigbus_del(struct vd__sigbus_range *r);
/*
 * The kernel says EFAULT of len bytes at p: do as for who touches them.  True
 * if something was mended, so that it is worth another try.  Any thread; only
 * for what does not end meanwhile.
 */
bool	vd__sigbus_fix(const void *p, size_t len);
/* Would touching what is at p be a fault?  Of a page; reads nothing itself. */
bool	vd__sigbus_gone(const void *p);

bool	vd__sigbus_is_on(void);		/* was protection asked for? */

/* Is memory gone that was entered with this number? */
static inline bool
vd__sigbus_lost(const struct vd__sigbus_mark *m, uint64_t number)
{
	return (atomic_load_explicit(&m->lost, memory_order_acquire) ==
	    number);
}

/* --- mappings.c ---------------------------------------------------------- */

/* A mapping of a peer's file. */
struct vd__mapping {
	void *ptr;
	size_t len;			/* in whole pages of the file */
	size_t before;			/* bytes ahead of what is wanted */
	struct vd__sigbus_range guard;
};

/*
 * Map len bytes of fd, of which st tells, from off; the sum does not wrap.
 * They are guarded as by vd__sigbus_add().  Returns 0, or an errno: ENOSPC if
 * the process has as many as it may.
 */
int	vd__mapping_init(struct vd__mapping *m, int fd, const struct stat *st,
	    uint64_t off, uint64_t len, int prot, struct vd__sigbus_mark *mark,
	    uint64_t number);
void	vd__mapping_fini(struct vd__mapping *m);
unsigned int vd__mappings_max(void);

/* --- client-serve.c ------------------------------------------------------ */

/* The client's half of what a server asks. */
struct vd__serve {
	struct vd__conn *conn;
	_Atomic(struct mt_space *) space;	/* NULL: none */
};

/* See to a command of the server's, on any thread: a vd__conn_ops.serve. */
void	vd__client_serve(void *arg, struct vd__msg *m);

/* --- client.c ------------------------------------------------------------ */

#define VD__MAX_IRQS	2048u	/* of one kind */

/* Interrupts of one kind that are connected, for when the server is another. */
struct vd__kept_irqs {
	unsigned int nr;
	int *fds;			/* ours; -1: not connected */
	bool *masked;
};

struct vd__kept_file;
struct vd__kept_map;
RB_HEAD(vd__kept_maps, vd__kept_map);

/* Where the table is. */
struct vd__msix {
	bool known;
	uint32_t bar;
	uint64_t off;
	uint64_t len;			/* 0: there is none */
};

struct vd__identity;
struct vd__region;
struct vd__hangup;

/*
 * [I] set when it connects, then immutable   [a] atomic   [c] conn_lock
 * [l] lock   [r] regions_lock   [t] the topology's writer lock
 * Order: the topology's writer lock, regions_lock, conn_lock, post_lock or
 * lock.  Who uses the connection has conn_lock shared, also while it waits.
 */
struct vd_client {
	_Atomic(unsigned int) refs;	/* [a] the caller, regions, a listener */
	pthread_rwlock_t conn_lock;
	_Atomic(bool) replacing;	/* [a] stay out of conn_lock */
	struct vd__conn *conn;		/* [c] NULL once it is destroyed */
	struct vd_client_limits limits;	/* [c] */
	struct vd__serve serve;		/* [c] but for space, which is [a] */
	_Atomic(int) timeout_ms;	/* [a] */
	bool no_twin, force_queue;	/* [I] options */
	char *path;			/* [I] NULL: none */

	/* client-lost.c */
	pthread_mutex_t lock;
	bool lost;			/* [l] and lost_fn knows, or will */
	int untold;			/* [l] why, until it does; or 0 */
	void (*lost_fn)(void *arg, int error);	/* [l] */
	void *lost_arg;			/* [l] */
	struct vd__hangup *hangup;	/* [l] of conn; a reference; or NULL */
	struct vd__identity *identity;	/* [l] NULL: not to be recovered */
	struct vd__kept_irqs irqs[VD_NUM_IRQS];	/* [l] */

	/* client-maps.c */
	struct vd__kept_maps kept_maps;		/* [l] by address */
	LIST_HEAD(, vd__kept_file) kept_files;	/* [l] of them */

	/* client-tree.c */
	pthread_mutex_t regions_lock;
	struct mt_topology *topology;	/* [r] set once; NULL: none yet */
	struct vd__region *regions;	/* [r] a list; see there */
	bool direct;			/* [r] areas are to be mapped */
	struct vd__msix msix;		/* [r] set once */
	pthread_mutex_t post_lock;	/* recursive */
	bool posted;			/* post_lock */
	bool mapped;			/* post_lock: some area is, or was */

	struct vd__pages *pages;	/* [r][t] client-page.c; or NULL */
	struct vd_client_dma *dma;	/* [t] client-dma.c; or NULL */
};

/*
 * Make the connection of from, which nobody uses, that of c; nobody enters it
 * while c is replacing, which this leaves set.
 */
void	vd__client_take(struct vd_client *c, struct vd_client *from);
/* vd_client_post() of a range that does not wrap, for who has entered. */
int	vd__client_post(struct vd_client *c, unsigned int index, uint64_t off,
	    const void *buf, size_t len);
/* Connect eventfds, as many as one message takes, and remember them. */
int	vd__client_connect_irqs(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count, const int *fds);

/* --- client-lost.c ------------------------------------------------------- */

void	vd__client_init(struct vd_client *c);
struct vd_client *vd__client_get(struct vd_client *c);
/* End the connection; all calls fail with ENOTCONN, and nobody is told. */
void	vd__client_disconnect(struct vd_client *c);
void	vd__client_put(struct vd_client *c);

/*
 * Enter before c->conn or limits are used, and leave with the outcome of that,
 * which is returned, errno kept.  Whoever leaves first after the connection was
 * lost tells the owner, unless inside of another call.  enter fails with
 * ENOTCONN.
 */
int	vd__client_enter(struct vd_client *c);
int	vd__client_leave(struct vd_client *c, int rv);

/*
 * Who maps a server's file keeps this: a fault there hangs up on that server,
 * by a descriptor of its own, so that it is never the next one's.
 */
struct vd__hangup {
	_Atomic(unsigned int) refs;	/* [a] the client, mappings */
	struct vd__sigbus_mark mark;	/* [a] its one number is 1 */
};

/* For a connection whose socket is fd, of which it has a copy.  NULL: errno. */
struct vd__hangup *vd__hangup_create(int fd);
void	vd__hangup_put(struct vd__hangup *h);	/* NULL is ignored */
/* That of c's connection, to be put; NULL: there is none. */
struct vd__hangup *vd__client_hangup(struct vd_client *c);
void	vd__client_set_hangup(struct vd_client *c, struct vd__hangup *h);

/*
 * DMA_MAP and DMA_UNMAP without waiting, for who has entered until they have
 * ended: as vd_client_dma_map() and vd_client_dma_unmap(), in two parts.  op
 * and fd stay the caller's; an op whose begin failed has ended.
 */
struct vd__dma_op {
	struct vd__call call;
	struct iovec iov;
	union {
		struct vd_dma_map map;
		struct vd_dma_unmap unmap;
	};
	int fd;
	bool is_unmap;
};

int	vd__client_begin_map(struct vd_client *c, struct vd__dma_op *op,
	    uint64_t iova, uint64_t len, unsigned int flags, int fd,
	    uint64_t off);
int	vd__client_begin_unmap(struct vd_client *c, struct vd__dma_op *op,
	    uint64_t iova, uint64_t len);
int	vd__client_end_op(struct vd_client *c, struct vd__dma_op *op);

/*
 * What is remembered of interrupts, if they may have to be connected again:
 * copies of fds are made before they are sent (up to VD_MAX_FDS; -1 each if
 * none is needed), and kept or closed after that.
 */
int	vd__client_dup_irqs(struct vd_client *c, const int *fds,
	    unsigned int count, int *copies);
void	vd__client_close_irqs(const int *copies, unsigned int count);
void	vd__client_keep_irqs(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count, const int *copies);
void	vd__client_drop_irqs(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count);
void	vd__client_mask_irqs(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count, bool masked);

/* --- client-maps.c ------------------------------------------------------- */

/*
 * What is remembered of memory that vd_client_dma_map() has given, if it may
 * have to be given again.  A copy is made before it is sent (NULL if none is
 * needed), and kept or dropped after that, which keeps errno.  0, or -1 with
 * errno set.
 */
int	vd__client_copy_map(struct vd_client *c, const struct vd_dma_map *m,
	    int fd, struct vd__kept_map **copy);
void	vd__client_keep_map(struct vd_client *c, struct vd__kept_map *copy,
	    bool given);
void	vd__client_forget_map(struct vd_client *c, uint64_t iova,
	    uint64_t len);
void	vd__client_free_maps(struct vd_client *c);
/* Give it all to the server of a client that nobody else uses yet. */
int	vd__client_give_maps(struct vd_client *c, struct vd_client *to);

/* --- client-tree.c, client-page.c, client-dma.c -------------------------- */

/* What is mapped of a region; all are references. */
struct vd__direct {
	unsigned int nr;
	struct mt_region *areas[VD_CLIENT_MAX_AREAS];
	uint64_t off[VD_CLIENT_MAX_AREAS];
	/* Of one that is smaller than a page: see client-page.c. */
	struct mt_region *page;		/* all of the page; or NULL */
	struct mt_region *front;	/* its bytes that are the region's */
	struct mt_region *back;		/* the others, behind everything */
};

/*
 * A region of the device in a tree:
 *
 *	container		what the caller has
 *	  areas, or front	mapped; in front
 *	  io			messages
 *
 * It lives as long as one of container and io, and is in the client's list so
 * long, too.  [I] and [r] as above.
 */
struct vd__region {
	struct vd__region *next;	/* [r] */
	_Atomic(unsigned int) refs;	/* [a] container, io, its maker */
	struct vd_client *client;	/* [I] a reference */
	unsigned int index;		/* [I] */
	unsigned int flags;		/* [I] VD_CLIENT_* */
	uint32_t access;		/* [I] VD_REGION_READABLE, _WRITABLE */
	uint64_t size;			/* [I] */
	struct mt_region *container;	/* [r] lent; NULL once it is released */
	/*
	 * [r] In the container, with a reference until that is released: where
	 * areas are.  To the container, whose last reference may have gone
	 * already, nothing can be added.
	 */
	struct mt_region *inner;
	struct mt_region *io;		/* [I] lent; to compare with only */
	struct vd__direct direct;	/* [r] */
	struct vd__direct fresh;	/* [r] to take its place */
	bool replacing;			/* [r] it is about to */
	/* Where a region smaller than a page is in the space: [t] */
	unsigned int seen;		/* how often its first byte is shown */
	mt_addr at;			/* the sum of where, if several times */
	bool touched;			/* by the commit that is told */
	bool alone;			/* its page is its own */
};

/* For a topology that is not known: 0, or -1 with EXDEV; takes regions_lock. */
int	vd__client_set_topology(struct vd_client *c, struct mt_topology *t);
/* No write is posted any more, and none is under way. */
int	vd__client_stop_posts(struct vd_client *c);
/* Is region what is mapped of the device?  Takes regions_lock. */
bool	vd__client_owns(struct vd_client *c, const struct mt_region *region);
/*
 * Map what regions, VD_NUM_REGIONS of a new server, have, in place of what is mapped: in a
 * transaction, which this ends.
 */
int	vd__client_remap(struct vd_client *c,
	    const struct vd_client_region *regions);

/*
 * What is smaller than a page as it is to be shown: in a transaction, under
 * regions_lock.  0, or -1 with only some of it done.
 */
int	vd__client_show_pages(struct vd_client *c, bool direct);
/* Nobody watches any more, whether all could be hidden or not. */
void	vd__client_end_pages(struct vd_client *c);

/* All that was given to a server that is gone is given to this one. */
int	vd__client_dma_restore(struct vd_client *c);

/* --- pci.c, pci-cap.c ---------------------------------------------------- */

#define VD__CONFIG_MAX		4096u

/* Offsets in the header, and bits of the command and status registers. */
#define VD__PCI_COMMAND		0x04u
#define VD__PCI_STATUS		0x06u
#define VD__PCI_BAR0		0x10u
#define VD__PCI_ROM		0x30u
#define VD__PCI_CAPS		0x34u
#define VD__PCI_LINE		0x3cu
#define VD__PCI_PIN		0x3du
#define VD__PCI_CMD_MASTER	0x0004u
#define VD__PCI_CMD_NO_INTX	0x0400u
#define VD__PCI_STATUS_INTX	0x08u
#define VD__PCI_STATUS_CAPS	0x10u

/* Offsets in MSI (64-bit, with masks) and MSI-X; bits of their control. */
#define VD__MSI_CTRL		2u
#define VD__MSI_MASK		16u
#define VD__MSI_PENDING		20u
#define VD__MSI_ENABLE		0x0001u
#define VD__MSIX_CTRL		2u
#define VD__MSIX_MASK_ALL	0x4000u
#define VD__MSIX_ENABLE		0x8000u
#define VD__EXPRESS_DEVCTL	8u

/* A BAR or the ROM. */
struct vd__bar {
	struct mt_region *region;	/* NULL: absent */
	struct mt_space *space;		/* on region: how it is accessed */
	uint64_t size;
	unsigned int flags;		/* VD_BAR_* */
	bool upper;			/* upper half of the 64-bit BAR before */
	/* The mappable part: len 0 if none. */
	uint64_t map_off;
	uint64_t map_len;
	struct mt_region *map_region;	/* holds map_fd open; a reference */
	int map_fd;			/* lent by map_region */
	/*
	 * In map_fd, of the BAR's offset 0: negative where the part starts
	 * later in the BAR than in its file.  Clients add the two as 64-bit
	 * numbers that wrap, so it goes out as it is.
	 */
	off_t map_fd_off;
};

struct vd__pci {
	uint8_t config[VD__CONFIG_MAX];
	uint8_t initial[VD__CONFIG_MAX];	/* config after a reset */
	uint8_t wmask[VD__CONFIG_MAX];		/* bits the guest may write */
	uint8_t w1c[VD__CONFIG_MAX];		/* bits a written 1 clears */
	uint32_t config_size;			/* 256 or 4096 */
	struct vd__bar bars[VD_NUM_BARS];
	struct vd__bar rom;
	uint32_t cap_last;			/* 0: none */
	uint32_t cap_end;			/* where the next one goes */
	uint32_t ext_cap_last;			/* 0: none */
	uint32_t ext_cap_end;
	uint32_t pm_cap, msi_cap, msix_cap, express_cap;	/* 0: none */
	unsigned int msi_vectors, msix_vectors;
	struct mt_region *msix_table, *msix_pba;	/* in their BARs */
};

struct vd__irqs;

int	vd__pci_init(struct vd_server *s);
void	vd__pci_fini(struct vd_server *s);
/* Config to its initial state; after vd__irq_reset(), which lowers the pin. */
void	vd__pci_reset(struct vd_server *s);

/* A little-endian field of config, initial, wmask or w1c. */
uint32_t vd__pci_field(const uint8_t *field, unsigned int size);
void	vd__pci_set_field(uint8_t *field, unsigned int size, uint32_t val);
/* Set a field of config now and after every reset: it describes the device. */
void	vd__pci_describe(struct vd_server *s, uint32_t off, unsigned int size,
	    uint32_t val);

/*
 * The guest's accesses: any offset and length inside config_size.  Both
 * return 0 or a positive errno.  A write may end in ops->config_written and,
 * for an FLR, in vd__server_reset().
 */
int	vd__pci_read(struct vd_server *s, uint64_t off, void *buf, size_t len);
int	vd__pci_write(struct vd_server *s, uint64_t off, const void *buf,
	    size_t len);

/* The BAR or ROM of a region index, or NULL if there is none. */
struct vd__bar *vd__pci_region(struct vd_server *s, unsigned int index);

/* --- notify.c ------------------------------------------------------------ */

/*
 * What it takes to signal eventfds of the peer's.  Closed, with fd -1, it
 * works too, but with a gap: see there.  One thread at a time.
 */
struct vd__notifier {
	int fd;				/* -1: closed */
	unsigned long ctx;
	unsigned int ended;		/* requests that are not collected */
};

void	vd__notifier_open(struct vd__notifier *n);	/* or it stays closed */
void	vd__notifier_close(struct vd__notifier *n);
/* Add 1 to the counter of an eventfd; one that is full stays so. */
void	vd__notify(struct vd__notifier *n, int fd);

/* --- irq.c --------------------------------------------------------------- */

/*
 * Interrupt state has its own lock, so that vd_irq_*() work from any thread.
 * vd__irq_* other than _config are called on the server's thread.
 */
int	vd__irq_init(struct vd_server *s);
void	vd__irq_fini(struct vd_server *s);
void	vd__irq_reset(struct vd_server *s);	/* device reset: masks, pending, pin */
void	vd__irq_disconnect(struct vd_server *s);	/* drop every eventfd */
unsigned int vd__irq_count(const struct vd_server *s, enum vd_irq index);
/*
 * DEVICE_GET_IRQ_INFO: flags and count of info->index.  Returns 0 or a
 * positive errno.
 */
int	vd__irq_info(const struct vd_server *s, struct vd_irq_info *info);
/*
 * DEVICE_SET_IRQS.  data is the len bytes that follow set; an fd that is kept
 * is set to -1 in fds, the caller closes the rest.  Returns 0 or a positive
 * errno, and has changed nothing then.
 */
int	vd__irq_set(struct vd_server *s, const struct vd_irq_set *set,
	    const uint8_t *data, size_t len, int *fds, size_t nfds);
/* Config space changed: command register, MSI or MSI-X control. */
void	vd__irq_config(struct vd_server *s);
/* What config space shows of interrupts: the pin, and MSI's pending bits. */
bool	vd__irq_pin(const struct vd_server *s);
uint32_t vd__irq_msi_pending(const struct vd_server *s);
/* The table and pending bits of MSI-X, as I/O regions for vd_pci_add_msix(). */
int	vd__irq_msix_regions(struct vd_server *s, unsigned int vectors,
	    struct mt_region **table, struct mt_region **pba);

/* --- message.c ----------------------------------------------------------- */

struct vd__messages;

/* The arg of vd__message_ops: client's memory that is reached by message. */
struct vd__window {
	struct vd__messages *messages;
	struct mt_region *region;	/* that has it as its arg */
	uint64_t addr;			/* of offset 0 */
	uint64_t client;		/* whose it is */
	bool readable;			/* by the device */
	bool writable;
	bool going;			/* with messages' lock */
};

extern const struct mt_io_ops vd__message_ops;

/* Nothing may be in flight, nor any region be left, at the end. */
int	vd__messages_init(struct vd_server *s);
void	vd__messages_fini(struct vd_server *s);
/* flags are VD_DMA_*; of the client that is there. */
void	vd__messages_init_window(struct vd_server *s, struct vd__window *w,
	    uint64_t addr, uint32_t flags);
/* Its region has been taken out, and is waited for. */
void	vd__messages_expel(struct vd__window *w);
/*
 * The client has agreed on a version; or it is to go: close its connection,
 * end all accesses, and wait for those who are in it.
 */
void	vd__messages_attach(struct vd_server *s);
void	vd__messages_detach(struct vd_server *s);
/* A run is under way, on this thread, which goes on to settle(). */
void	vd__messages_running(struct vd_server *s, bool running);
bool	vd__messages_runs_here(const struct vd_server *s);
/*
 * This thread is in a command that the client waits for: it may not wait for
 * the client, unless there is a twin socket.
 */
void	vd__messages_serving(struct vd_server *s, bool serving);
/* Begin accesses that wait for a free call; are there any? */
void	vd__messages_run(struct vd_server *s);
bool	vd__messages_waiting(const struct vd_server *s);
/* Has the client answered what makes no sense? */
bool	vd__messages_nonsense(const struct vd_server *s);
/*
 * The client waits for memory to be released, since then; 0: it does not.
 * Gives up what it may not answer before it has that.  Returns in how many ms
 * to call again, or -1.
 */
int	vd__messages_hurry(struct vd_server *s, int64_t since);

/* --- request.c ----------------------------------------------------------- */

struct vd__desk;

/* The command that a callback may take; its memory belongs to the handler. */
struct vd__offer {
	const struct vd__msg *msg;	/* NULL: none */
	const struct vd_region_access *access;	/* NULL: DEVICE_RESET */
	bool is_write;
	bool taken;
};

int	vd__desk_init(struct vd_server *s);
void	vd__desk_fini(struct vd_server *s);
/* There is a client; or its connection is about to go. */
void	vd__desk_attach(struct vd_server *s);
void	vd__desk_detach(struct vd_server *s);
/* Around the callbacks of a command; was it taken? */
void	vd__request_offer(struct vd_server *s, const struct vd__msg *m,
	    const struct vd_region_access *a, bool is_write);
bool	vd__request_taken(struct vd_server *s);
/* What all answers to requests that are not finished may have. */
size_t	vd__desk_bytes(const struct vd_server *s);

/* --- dma.c --------------------------------------------------------------- */

struct vd__dma;

/*
 * A region of the client's memory that was taken out of the DMA space is
 * released, by the topology's reclaimer, when the last mapping of it has been
 * given back.  Each release adds 1 to the server's wakefd.
 */
int	vd__dma_init(struct vd_server *s);
void	vd__dma_fini(struct vd_server *s);	/* waits for all releases */
struct mt_space *vd__dma_space(const struct vd_server *s);
/* Show the client's memory to the device, or hide it. */
void	vd__dma_set_master(struct vd_server *s, bool on);
/* DMA_MAP and DMA_UNMAP: 0, or a positive errno. */
int	vd__dma_map(struct vd_server *s, const struct vd_dma_map *m,
	    const int *fds, size_t nfds);
/*
 * *waiting is set to the number of releases that the reply has to wait for,
 * and they are made to count for vd__dma_heard().
 */
int	vd__dma_unmap(struct vd_server *s, const struct vd_dma_unmap *m,
	    unsigned int *waiting);
/*
 * End bus mastering.  The memory stays, but all that was lent of it counts as
 * with vd__dma_unmap(), for *waiting, which was 0.  Returns 0, or an errno and
 * nothing has happened: ENOMEM, or EBUSY if *waiting is not 0.
 */
int	vd__dma_reset(struct vd_server *s, unsigned int *waiting);
/* Take out everything; nobody waits for it.  0, or -1 with errno set. */
int	vd__dma_clear(struct vd_server *s);
/* Are any releases due?  Then look at wakefd. */
bool	vd__dma_releasing(const struct vd_server *s);
/*
 * n releases have been heard of on wakefd.  Returns how many of those that
 * the last reply waits for have come.
 */
unsigned int vd__dma_heard(struct vd_server *s, uint64_t n);

/* --- server.c ------------------------------------------------------------ */

#define VD__PARKED_MAX	sizeof(struct vd_dma_unmap)

/* A command whose reply waits for memory to be released. */
struct vd__parked {
	bool active;
	int64_t since;			/* CLOCK_MONOTONIC ms */
	unsigned int waiting;		/* releases to come */
	struct vd__msg req;		/* to reply to; no data */
	uint8_t head[VD__PARKED_MAX];	/* the payload of the reply */
	size_t head_len;
};

/*
 * [I] set by vd_server_create(), then immutable   [a] atomic
 * irqs, messages, desk and conn have their own locks, dma its own legend.  All
 * else belongs to the thread that runs the server.
 */
struct vd_server {
	struct mt_topology *topology;		/* [I] */
	const struct vd_device_ops *ops;	/* [I] never NULL */
	void *arg;				/* [I] */
	struct vd__pci pci;
	struct vd__irqs *irqs;			/* [I] */
	struct vd__dma *dma;			/* [I] */
	struct vd__messages *messages;		/* [I] */
	struct vd__desk *desk;			/* [I] */
	struct vd_server_limits limits;		/* none is 0 */
	void (*log_fn)(void *arg, int level, const char *msg);
	void *log_arg;

	/* What vd_server_fd() watches; all in the epoll set. */
	int epoll_fd;			/* [I] */
	int wake_fd;			/* [I] eventfd: releases, kicked, mark */
	int post_fd;			/* [I] eventfd: posted */
	int timer_fd;			/* [I] timerfd: until */
	int listen_fd;			/* -1: none */
	int conn_fd;			/* that of conn; -1: none */
	int twin_fd;			/* its twin; -1: none */
	uint32_t listen_events;		/* epoll's idea of them */
	uint32_t conn_events;
	uint32_t twin_events;
	bool kicked;			/* 1 in wake_fd is ours: call again */
	_Atomic(bool) posted;		/* [a] 1 in post_fd: look at conn */
	_Atomic(bool) attentive;	/* [a] calls of others are watched */
	int64_t until;			/* CLOCK_MONOTONIC ms; 0: no limit */
	bool timed;			/* which is in time for all calls */
	int hurry_ms;			/* see vd__messages_hurry() */
	int64_t stuck_since;		/* CLOCK_MONOTONIC ms; 0: is not */
	uint64_t stuck_at;		/* the connection's progress then */

	char *path;			/* of listen_fd, if we made it */
	dev_t path_dev;
	ino_t path_ino;
	bool any_user;
	int version_ms;			/* a new client's time for VERSION */

	struct vd__conn *conn;		/* NULL: no client */
	bool connected;			/* it has agreed on a version */
	bool busy;			/* a run is under way */
	bool drop;			/* a callback wants the client gone */
	uint64_t client;		/* number of the last one */
	struct vd__sigbus_mark mark;	/* [a] whose memory is gone */
	uint64_t told;			/* mark.told, as of the last look */
	struct vd__caps peer;
	uint16_t minor;
	struct vd__parked parked;
	struct vd__offer offer;
	uint8_t *buf;			/* data of replies */
	size_t buf_size;
};

void	vd__log(struct vd_server *s, int level, const char *fmt, ...)
	    __attribute__((format(printf, 3, 4)));
/* Have vd_server_fd() become readable in ms; with 0 take that back. */
void	vd__server_set_timer(struct vd_server *s, int ms);
/*
 * Have the server look at its connection: for any thread.  After beginning a
 * call with done only if the server is not attentive.
 */
void	vd__server_wake(struct vd_server *s);
/* Make a twin socket: 0 with the client's end, or an errno. */
int	vd__server_twin(struct vd_server *s, int *fd);
/*
 * DEVICE_RESET, an FLR, a lost client: all parts, then ops->reset.  Returns 0,
 * or an errno and nothing has happened.  Cannot fail for a lost client.
 */
int	vd__server_reset(struct vd_server *s, enum vd_reset why);

/* --- server-cmd.c -------------------------------------------------------- */

/*
 * See to one message of the client, whose payload and fds stay the caller's:
 * answer it, or park it in s->parked.  Returns 0, or -1 with errno set if the
 * connection has to end.
 */
int	vd__server_serve(struct vd_server *s, struct vd__msg *m);

/*
 * What a handler puts together; sent as one message, and only if the handler
 * returns 0.
 */
struct vd__reply {
	uint8_t head[VD__REGION_INFO_MAX];	/* structs */
	size_t head_len;
	const void *data;			/* what follows them */
	size_t data_len;
	int fd;					/* lent; -1: none */
};

/* A handler's answer besides 0 and an errno: the device replies. */
#define VD__TAKEN	(-1)

/* --- server-region.c ----------------------------------------------------- */

/* Handlers: 0, a positive errno, or VD__TAKEN. */
int	vd__region_info(struct vd_server *s, struct vd__msg *m,
	    struct vd__reply *r);
int	vd__region_read(struct vd_server *s, struct vd__msg *m,
	    struct vd__reply *r);
int	vd__region_write(struct vd_server *s, struct vd__msg *m,
	    struct vd__reply *r);
int	vd__region_write_multi(struct vd_server *s, struct vd__msg *m,
	    struct vd__reply *r);

#endif
