/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_SERVER_H
#define LIBVFUDMA_SERVER_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_space;
struct mt_topology;

/*
 * A PCI device model offered on a UNIX socket, to one client at a time.  The
 * device is described with pci.h, interrupts the client with irq.h, and
 * reaches the client's memory through the space that vd_server_dma() names.
 *
 * A server belongs to the thread that runs it: no two calls on one server may
 * overlap, but for vd_irq_*() and vd_request_finish(), which any thread may
 * call, and for accesses to the DMA space, which follow libmemtree's rules.
 * Servers are independent of each other.
 */
struct vd_server;

enum vd_reset {
	VD_RESET_DEVICE,	/* the client asked */
	VD_RESET_FLR,		/* the guest asked, by its config space */
	VD_RESET_LOST,		/* the client is gone */
};

/*
 * What a device model is told.  Any callback may be NULL.
 *
 * Context: the thread that runs the server, with no lock held, and never
 *          inside a topology transaction.
 * Since:   0.1
 */
struct vd_device_ops {
	/*
	 * Put the device in its power-on state; give back all mappings.  The
	 * client is answered when the last one of its memory has been given
	 * back; with vd_server_take() when the device says so.  Requests that
	 * were taken before stay the device's to finish.
	 */
	void (*reset)(void *arg, enum vd_reset why);
	/* A client has connected and agreed on a version, or has gone. */
	void (*connected)(void *arg);
	void (*disconnected)(void *arg);
	/* Memory has come: the DMA space shows it already. */
	void (*dma_map)(void *arg, struct mt_range iova);
	/*
	 * Memory is about to go.  The client is answered when the last
	 * mapping of it has been given back, so give back or finish what
	 * overlaps it soon; drop what was cached of it now.  Reads by message
	 * that the client does not answer end soon by themselves, unless it
	 * has a twin socket; writes, also those that are given up here, are
	 * waited for.
	 */
	void (*dma_unmap)(void *arg, struct mt_range iova);
	/* The guest wrote config space; the new value is in it. */
	void (*config_written)(void *arg, uint32_t off, uint32_t len);
};

/*
 * What a server lets a peer use.  Zero means the default.  Regions that are
 * mapped count for the process, too: see vd_mappings_set_max(), half of whose
 * limit is the default where that is less.  A client without a twin socket that
 * serves no DMA while it waits for a reply to DMA_UNMAP, or to a reset, may
 * have to wait for dma_timeout_ms and 200 ms: less than it will (QEMU: 5
 * seconds).  stall_timeout_ms is for a client that has more than max_queued to
 * read, or to answer a write before its own command is answered.
 */
struct vd_server_limits {
	uint32_t max_dma_regions;	/* 24000 */
	uint32_t max_data_xfer;		/* bytes in one access: 1 MiB */
	uint32_t max_queued;		/* bytes of replies kept: 4 MiB */
	uint32_t dma_timeout_ms;	/* an answer to DMA by message: 2000 */
	uint32_t stall_timeout_ms;	/* to read, or answer: 30000 */
	bool force_queue;		/* queue each message, for tests */
	bool no_twin;			/* one socket for both directions */
};

/*
 * Create a server for a device of topology t: its DMA space, and the spaces
 * of its BARs, live there.  ops, unless NULL, must stay as long as the server.
 *
 * Owns:    the caller, until vd_server_destroy(); t must outlive it.
 * Returns: the server, or NULL with errno set.
 * Errors:  ENOMEM, and those of epoll_create1(2) and eventfd(2).
 * Since:   0.1
 */
struct vd_server *vd_server_create(struct mt_topology *t,
	    const struct vd_device_ops *ops, void *arg);

/*
 * Drop the client, remove the socket if this server made it, free everything.
 * The device must have given back its mappings (VD_RESET_LOST tells it).
 * Waits until the memory of the client is unmapped.
 *
 * Context: not from a callback.  NULL is ignored.
 * Since:   0.1
 */
void	vd_server_destroy(struct vd_server *s);

/*
 * Listen on a new socket at path, made with mode 0600.  A socket there that
 * nobody listens on any more is replaced.  Clients must run as our user or as
 * root, unless any_user is set; others are turned away.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (has a socket already), EADDRINUSE (somebody listens there),
 *          EEXIST (path is something else than a socket), ENAMETOOLONG, and
 *          those of bind(2).
 * Since:   0.1
 */
int	vd_server_listen(struct vd_server *s, const char *path);
void	vd_server_set_any_user(struct vd_server *s, bool any_user);

/*
 * Serve a listening socket that somebody else made, or one connected client,
 * whose credentials are not looked at.
 *
 * Owns:    takes fd over if it succeeds; it is made non-blocking.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (has a socket or client already), EINVAL (not such a socket).
 * Since:   0.1
 */
int	vd_server_listen_fd(struct vd_server *s, int fd);
int	vd_server_attach(struct vd_server *s, int fd);

/*
 * A descriptor that is readable when vd_server_run() has something to do: one
 * and the same as long as the server lives.
 *
 * Owns:    lends.
 * Since:   0.1
 */
int	vd_server_fd(const struct vd_server *s);

/*
 * Do what is due without blocking: accept a client, answer at most one
 * command.  vd_server_run_all() goes on until nothing seems to be left to do,
 * or 64 commands are done; vd_server_fd() is readable if something is.  When
 * either returns, the replies to what was done have been sent, or wait for room
 * in the socket.  A client that is lost, or that breaks the protocol, or that
 * has not agreed on a version 5 seconds after it was accepted, or for which
 * nothing goes on for stall_timeout_ms, is dropped, and the server waits for the
 * next.  The device is told of a loss by reset, dma_unmap for each range,
 * disconnected.
 *
 * Returns: 1 if something was done (call again), 0 if not, or -1 with errno
 *          set if the server cannot go on.
 * Errors:  ENOTCONN (its client is gone, and it has no listening socket),
 *          EFAULT (the same, as vd_sigbus_protect() tells),
 *          EDEADLK (called from a callback of this server), ENOMEM, and those
 *          of accept4(2) that concern the listening socket.
 * Since:   0.1
 */
int	vd_server_run(struct vd_server *s);
int	vd_server_run_all(struct vd_server *s);

/*
 * Look at a server.  The DMA space is lent; it shows the client's memory at
 * the addresses that the client chose, while the guest lets the device be a
 * bus master.
 * Since:   0.1
 */
struct mt_space *vd_server_dma(const struct vd_server *s);
bool	vd_server_connected(const struct vd_server *s);

/*
 * Drop the client, as if it had gone.
 * Since:   0.1
 */
void	vd_server_disconnect(struct vd_server *s);

/*
 * Change limits before a client connects.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (has a client), EINVAL (a data_xfer above 1 MiB or below 8,
 *          a time above INT32_MAX).
 * Since:   0.1
 */
int	vd_server_set_limits(struct vd_server *s,
	    const struct vd_server_limits *limits);

/*
 * Have fn told what goes wrong and what happens: level is one of syslog(3)'s,
 * from LOG_ERR to LOG_DEBUG; msg has no newline.  Without it a server is
 * silent.
 * Since:   0.1
 */
void	vd_server_set_log(struct vd_server *s,
	    void (*fn)(void *arg, int level, const char *msg), void *arg);

#ifdef __cplusplus
}
#endif

#endif
