/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_CLIENT_H
#define LIBVFUDMA_CLIENT_H

#include <libmemtree/types.h>
#include <libvfudma/proto.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_space;

/*
 * The other end: a program that drives a vfio-user device.  Every call that
 * sends waits for its reply, and serves what the server asks for meanwhile.
 *
 * Any thread may use a client, also several at once.  All calls that send fail
 * with ETIMEDOUT if the reply takes too long (the connection goes on), with
 * ENOTCONN once the server is gone, with EPROTO if it breaks the protocol (the
 * connection is closed then), with ENOBUFS if too many calls have timed out
 * and are still not answered, and otherwise with the errno that the server
 * answered.
 */
struct vd_client;

#define VD_CLIENT_TIMEOUT_MS	5000

/*
 * Connect to the server at path, or over a connected socket, and agree on a
 * version.  vd_client_destroy() ignores NULL.
 *
 * Owns:    the caller, until vd_client_destroy(); takes fd over if it succeeds.
 * Returns: the client, or NULL with errno set.
 * Errors:  ENAMETOOLONG, ENOMEM, EPROTONOSUPPORT (no version in common), those
 *          of connect(2), and as above.
 * Since:   0.1
 */
struct vd_client *vd_client_connect(const char *path);
struct vd_client *vd_client_attach(int fd);

/* How to connect; zero means the default. */
struct vd_client_options {
	int timeout_ms;		/* for a reply: VD_CLIENT_TIMEOUT_MS */
	bool no_twin;		/* one socket for both directions */
	bool force_queue;	/* queue each message, for tests */
	struct mt_space *dma;	/* see vd_client_set_dma() */
};

struct vd_client *vd_client_connect_with(const char *path,
	    const struct vd_client_options *o);
struct vd_client *vd_client_attach_with(int fd,
	    const struct vd_client_options *o);
void	vd_client_destroy(struct vd_client *c);

/*
 * How long to wait for a reply; VD_CLIENT_TIMEOUT_MS unless set.
 *
 * Units:   milliseconds; -1 waits for ever.
 * Since:   0.1
 */
void	vd_client_set_timeout(struct vd_client *c, int ms);

/*
 * Answer the server's DMA_READ and DMA_WRITE with accesses to sp: all of it is
 * the device's to reach.  NULL, the default, refuses them with ENOSYS.  A hole
 * is EFAULT to the server, memory that takes no writes and what is denied
 * EACCES, an error of a device EIO.  They are served by a thread that waits
 * for a reply, or by vd_client_run(): in order, by one thread at a time.
 *
 * Owns:    sp must stay until the client is destroyed or has another, and no
 *          call is under way.
 * Context: accesses happen on the thread that waits, with no lock that they
 *          could meet, but inside the connection: a callback neither destroys
 *          the client nor connects it again.
 * Since:   0.1
 */
void	vd_client_set_dma(struct vd_client *c, struct mt_space *sp);

/*
 * For a program that has nothing to ask: the sockets to watch, and what to do
 * when one is readable, which serves the commands of the server's that have
 * come, and waits, as for a reply, until the answers are sent.
 *
 * Owns:    fds are lent.
 * Returns: vd_client_fds(): how many there are, 0 if the server is gone.
 *          vd_client_run(): 1 if something was done (call again), 0 if not, or
 *          -1 with errno set.
 * Errors:  ENOTCONN, EPROTO, ENOMEM: the connection is closed.
 * Since:   0.1
 */
#define VD_CLIENT_FDS	2
int	vd_client_fds(const struct vd_client *c, int fds[VD_CLIENT_FDS]);
int	vd_client_run(struct vd_client *c);

/* What was agreed on when the client connected. */
struct vd_client_limits {
	uint16_t minor;
	uint32_t max_msg_fds;
	uint64_t max_data_xfer;
	uint64_t max_dma_maps;
	uint64_t pgsizes;
	bool twin;		/* the server's commands have a socket */
};

void	vd_client_limits(const struct vd_client *c,
	    struct vd_client_limits *limits);

/*
 * Ask for the device's flags and numbers of regions and interrupts, for one
 * kind of interrupt, or for one region.
 *
 * Returns: 0 with the reply in *info, or -1 with errno set.
 * Errors:  as above.
 * Since:   0.1
 */
int	vd_client_device_info(struct vd_client *c, struct vd_device_info *info);
int	vd_client_irq_info(struct vd_client *c, enum vd_irq index,
	    struct vd_irq_info *info);

#define VD_CLIENT_MAX_AREAS	8

/*
 * A region, and the parts of it that can be mapped: whole pages, or all of a
 * region that is smaller, whose page is mapped.  What the server offers in
 * other units than our pages is left out, and can be reached by messages.
 */
struct vd_client_region {
	uint32_t flags;				/* VD_REGION_* */
	uint64_t size;
	uint64_t fd_off;			/* in fd, of offset 0 */
	int fd;					/* -1 if not mappable */
	unsigned int nr_areas;
	struct vd_area areas[VD_CLIENT_MAX_AREAS];	/* offset, size */
};

/*
 * Owns:    the caller closes info->fd unless it is -1.
 * Since:   0.1
 */
int	vd_client_region_info(struct vd_client *c, unsigned int index,
	    struct vd_client_region *info);

/*
 * Read or write a region.  A write may be posted: it is sent without asking
 * for a reply, so an error is not told.
 *
 * Units:   off and len are bytes; a len beyond the server's max_data_xfer
 *          is sent in several messages.
 * Returns: 0, or -1 with errno set.
 * Errors:  EFAULT (some of buf is not there; the server may have got zeroes for
 *          it), EIO (the server moved fewer bytes than asked), and as above.
 * Since:   0.1
 */
int	vd_client_read(struct vd_client *c, unsigned int index, uint64_t off,
	    void *buf, size_t len);
int	vd_client_write(struct vd_client *c, unsigned int index, uint64_t off,
	    const void *buf, size_t len);
int	vd_client_post(struct vd_client *c, unsigned int index, uint64_t off,
	    const void *buf, size_t len);

/*
 * Give the device memory at iova: len bytes of fd from off.  With fd -1 the
 * server is told of memory that it can reach by messages only.  Taking it back
 * returns when the server has let go of it.
 *
 * After vd_client_set_lost() what is given is given to each later server, too,
 * until it is taken back.  That fails while there is none, but counts.
 *
 * Units:   iova, off, len are bytes, multiples of the page size; flags is
 *          VD_DMA_* bits.
 * Owns:    fd stays the caller's.
 * Returns: 0, or -1 with errno set.
 * Errors:  EEXIST (overlaps what was given before), ENOENT (nothing such was
 *          given), EINVAL, EBADF (fd is not open), after vd_client_set_lost()
 *          ENOMEM and EMFILE, and as above.
 * Since:   0.1
 */
int	vd_client_dma_map(struct vd_client *c, uint64_t iova, uint64_t len,
	    unsigned int flags, int fd, uint64_t off);
int	vd_client_dma_unmap(struct vd_client *c, uint64_t iova, uint64_t len);

/*
 * Connect interrupts start, start + 1, ... to count eventfds; disconnect them
 * with fds NULL, or the whole kind with count 0.
 *
 * Owns:    fds stay the caller's.
 * Returns: 0, or -1 with errno set; then some may be connected.
 * Errors:  EINVAL, ENOTSUP (the server takes no descriptors), EBADF (one is
 *          not open), and as above.
 * Since:   0.1
 */
int	vd_client_set_eventfds(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count, const int *fds);

/*
 * Send a SET_IRQS without data: flags is VD_IRQ_ACT_MASK, _UNMASK or _TRIGGER.
 * Since:   0.1
 */
int	vd_client_set_irqs(struct vd_client *c, enum vd_irq index,
	    unsigned int start, unsigned int count, unsigned int flags);

/*
 * Reset the device.
 * Since:   0.1
 */
int	vd_client_reset(struct vd_client *c);

#ifdef __cplusplus
}
#endif

#endif
