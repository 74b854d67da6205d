/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_CLIENT_TREE_H
#define LIBVFUDMA_CLIENT_TREE_H

#include <libmemtree/types.h>
#include <libvfudma/client.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;
struct mt_section;
struct mt_space;
struct mt_topology;

/*
 * A client's device as part of a memory tree: its regions are regions of the
 * tree, memory that a space shows is given to it, and both survive a server
 * that is started again.  All of a client is in one topology, which must not
 * be that of a server in the same process: a change of the tree waits for the
 * server's answer, and the server for its turn to change the tree.
 */

/* --- regions ------------------------------------------------------------- */

#define VD_CLIENT_POST		(1u << 0)	/* do not wait for writes */
#define VD_CLIENT_WHOLE_PAGE	(1u << 1)	/* see vd_client_watch_pages() */

/*
 * Make a region of the device a region of a tree: a container with an I/O
 * region, whose accesses are messages, and in front of it what the server lets
 * us map.  If that fails, or the server's file is too short, messages serve.
 * Where all of a BAR can be mapped, the pages of the MSI-X table are left out.
 *
 * With VD_CLIENT_POST writes do not wait for an answer, so errors of theirs
 * are not told; but once any region of the device is mapped, all writes wait:
 * a later store to the mapping would overtake one that is under way.
 *
 * An error that the server answers is MT_DEVICE, or MT_DECODE for its EFAULT
 * and MT_DENIED for its EACCES; a server that is gone is MT_DEVICE.  Values
 * read are all ones then.
 *
 * Units:   index is that of enum vd_region_index, or beyond; flags are
 *          VD_CLIENT_* bits.
 * Owns:    name is copied; one reference to the caller.  To end it: take it
 *          out of the tree and put the reference; it is unmapped when the last
 *          reader has left.  It may outlive the client, and answers MT_DEVICE
 *          then where it is not mapped.
 * Context: sends; not from a listener.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOENT (the device has no such region), EXDEV (the client is used
 *          with another topology), EINVAL (flags), ENOMEM, EDEADLK (from a
 *          listener), and those of calls that send.
 * Since:   0.1
 */
struct mt_region *vd_client_region_create(struct vd_client *c,
	    struct mt_topology *t, unsigned int index, const char *name,
	    unsigned int flags);

/*
 * Show or hide, in one transaction, all that is mapped of the device; hidden,
 * every access is a message.  On until this is called.
 *
 * Returns: 0, or -1 with errno set and nothing changed.
 * Errors:  ENOMEM, EDEADLK (from a listener).
 * Since:   0.1
 */
int	vd_client_set_direct(struct vd_client *c, bool on);

/* --- regions smaller than a page ----------------------------------------- */

/*
 * Map regions that are smaller than a page, too, while sp shows their first byte
 * once, at the start of a page, and nothing else in that page.  The bytes of the page
 * after them stay unassigned; with VD_CLIENT_WHOLE_PAGE they become part of
 * the mapping, at the lowest priority that there is in sp, for those who can
 * only use whole pages, such as a hypervisor.
 *
 * This follows every commit of a transaction by itself, before the call that
 * commits returns.  If there is no memory for it it is tried again behind the
 * next commit, or by vd_client_update_pages(); meanwhile what is in the page
 * is in front of the mapping all the same, and what is behind a region that has
 * moved stays at the old place.  Destroying the client ends it, too.
 *
 * Context: takes the topology's writer lock; from a listener only in settle.
 *          Unwatching comes before sp is destroyed, and in a transaction is
 *          not taken back with it: what was shown stays.
 * Returns: 0, or -1 with errno set; watches, or does not, as before.
 * Errors:  EBUSY (watches already), ENOENT (does not), EXDEV, ENOMEM, EDEADLK,
 *          EAGAIN (as of mt_topology_commit()).
 * Since:   0.1
 */
int	vd_client_watch_pages(struct vd_client *c, struct mt_space *sp);
int	vd_client_unwatch_pages(struct vd_client *c);
int	vd_client_update_pages(struct vd_client *c);

/* --- memory -------------------------------------------------------------- */

struct vd_client_dma;

/*
 * What the owner is told.  failed: the device has not got the memory that is
 * at range, or with unmap has not given it back; error is the server's, or
 * EINVAL (not a whole page of the server's), ENOSPC (it takes no more maps;
 * tried again when it can), ENOMEM.  wanted: is this section, which is RAM or
 * ROM, for the device?  NULL wants all of them.
 *
 * Context: the committing thread, under the topology's writer lock.
 * Since:   0.1
 */
struct vd_client_dma_ops {
	void (*failed)(void *arg, bool unmap, struct mt_range range,
	    int error);
	bool (*wanted)(void *arg, const struct mt_section *sec);
};

/*
 * Give the device the memory that sp shows, where it shows it, and keep it so:
 * RAM, and what is read-only for reading only, with its file if it has one.
 * ROM devices, mapped registers and I/O are left out.  What a commit brings is
 * sent at its end, first what went, then what came, without waiting for one
 * answer before the next is sent; the commit returns when all have come.
 * Neighbours that continue each other in one file become one map, and so do
 * those without a file.  One space a client.
 *
 * Destroying takes all of it back.
 *
 * Owns:    the caller, until vd_client_dma_destroy(), which ignores NULL and
 *          comes before sp is destroyed; ops must stay so long, or NULL.
 * Context: takes the topology's writer lock and sends under it, as later
 *          commits do; not from a listener.
 * Returns: the listener, or NULL with errno set.
 * Errors:  EBUSY (has one), EXDEV, ENOMEM, EDEADLK.
 * Since:   0.1
 */
struct vd_client_dma *vd_client_dma_create(struct vd_client *c,
	    struct mt_space *sp, const struct vd_client_dma_ops *ops,
	    void *arg);
void	vd_client_dma_destroy(struct vd_client_dma *d);

/* --- a server that is lost ----------------------------------------------- */

/*
 * Have fn told once when the server is lost, with the errno that the call
 * which found out returns, and remember from now on what
 * vd_client_reconnect() needs: who the device is, and copies of the eventfds
 * that are connected and of the files that vd_client_dma_map() gives, one for
 * all that is given of a regular file.  What went before is not remembered.
 *
 * Context: sends.  fn runs on a thread that found out, perhaps in a region's
 *          callback or a listener, with no lock of the client's held: what is
 *          found inside of a call, by a callback that it serves, is told at
 *          the end of that call.  It must leave reconnecting to others.
 * Returns: 0, or -1 with errno set.
 * Errors:  ENOMEM, and those of calls that send.
 * Since:   0.1
 */
int	vd_client_set_lost(struct vd_client *c,
	    void (*fn)(void *arg, int error), void *arg);

/*
 * Look whether the server is there, without asking it anything.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  ENOTCONN.
 * Since:   0.1
 */
int	vd_client_check(struct vd_client *c);

/*
 * Connect again, by the path that was used first or, unless -1, over fd; see
 * that it is the same device; then connect interrupts and masks, give the
 * memory of vd_client_dma_map() and vd_client_dma_create(), and map regions as
 * before.  The device is as after a reset: its config space is the caller's to
 * set again.  A connection that is still there is dropped first.  Nobody may
 * connect or mask interrupts, or give memory or take it back, meanwhile.
 *
 * Owns:    takes fd over if it succeeds.
 * Context: sends, also under the topology's writer lock; not from a listener
 *          or region callback, nor in a transaction.
 * Returns: 0, or -1 with errno set, and the client is lost: try again.
 * Errors:  EINVAL (vd_client_set_lost() was not called, or no path is known),
 *          ENODEV (another device), ENOMEM, EDEADLK, those of
 *          vd_client_connect(), and those of calls that send: also if the
 *          server does not take all that vd_client_dma_map() gave.
 * Since:   0.1
 */
int	vd_client_reconnect(struct vd_client *c, int fd);

#ifdef __cplusplus
}
#endif

#endif
