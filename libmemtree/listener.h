/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_LISTENER_H
#define LIBMEMTREE_LISTENER_H

#include <libmemtree/types.h>
#include <libmemtree/view.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_space;

/* An eventfd of a region, where a space shows it. */
struct mt_eventfd {
	mt_addr addr;			/* in the space */
	unsigned int size;		/* of the writes that signal; 0: any */
	bool match;			/* those of data only */
	uint64_t data;
	int fd;				/* the library's copy, lent */
};

/*
 * Someone who is told how a space changes; lives in the caller's memory.  Any
 * callback may be NULL.  After a commit that changed the space come: begin;
 * del for every section that went, ascending; add for every section that
 * came, ascending; commit.  A section that stayed as it was is not mentioned.
 * Listeners with lower prio hear begin, add and commit first and del last;
 * equals in the order they were registered, for del in the reverse.
 *
 * log_start and log_stop tell that the clients for whom the writes to a
 * section's memory are logged (see mt_region_set_log()) were those in was,
 * and are those in now, 1 << client: log_start if there are new ones,
 * log_stop if some are gone, maybe both.  They come behind the adds, for a
 * section that came logged right behind its own add, and for one that goes
 * right before its del, so that was is what this listener was told last, or 0.
 * log_start goes by prio as add does, log_stop as del.
 *
 * log_sync asks for what is known elsewhere (by a hypervisor, a peer) of
 * writes to a part of a section: mt_region_set_dirty() is to be called for
 * them.  log_clear tells that a client takes what was marked there, and reads
 * the memory next: who marks a page once from now on has to begin anew, for
 * the pages that it had told of.  Both come outside of begin and commit.  A
 * section is not asked about when it is gone: log_stop is the last chance.
 *
 * Eventfds and ranges of coalesced writes (see mt_region_add_eventfd() and
 * mt_region_add_coalescing()) are told where sec shows them, a range as far as
 * it does.  One that is where it was is not mentioned, though its section may
 * have changed.
 *
 * So begin is followed by all coalesce_dels, all eventfd_dels, the dels, each
 * behind its log_stop, the adds, each before its log_start, the logs of
 * sections that stayed, all eventfd_adds, all coalesce_adds, and commit.  What
 * is told of a section is behind its add and before its del.  A _del goes by
 * prio as del does, an _add as add.  A listener hears begin and commit if
 * there is anything of all this to tell, even if it has no callback for that.
 *
 * settle comes behind a commit, when every listener of every space has heard
 * all of it, and may change the tree: what follows from what came and went is
 * done by it, before the call that committed returns.  What it changes is
 * another commit, of which listeners hear, this one too, and which may fail
 * without harm to the first.  So it is called again, until it changes nothing
 * that its space shows.
 *
 * Context: the committing thread, under the topology's writer lock, when all
 *          spaces have their new views.  Reading, mapping and finding are
 *          allowed; changing the tree is refused with EDEADLK, but in settle.
 *          sec is lent for the call; take mt_region_get() to keep its region.
 * Since:   0.1
 */
struct mt_listener {
	int prio;
	void *arg;
	void (*begin)(void *arg, struct mt_space *sp);
	void (*commit)(void *arg, struct mt_space *sp);
	void (*add)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec);
	void (*del)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec);
	void (*log_start)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, unsigned int was, unsigned int now);
	void (*log_stop)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, unsigned int was, unsigned int now);
	void (*log_sync)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec);
	void (*log_clear)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec);
	void (*eventfd_add)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, const struct mt_eventfd *ev);
	void (*eventfd_del)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, const struct mt_eventfd *ev);
	void (*coalesce_add)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, struct mt_range range);
	void (*coalesce_del)(void *arg, struct mt_space *sp,
	    const struct mt_section *sec, struct mt_range range);
	void (*settle)(void *arg, struct mt_space *sp);
	/* private */
	struct mt_space *sp;
	struct mt_listener *next;
	struct mt_listener *prev;
	struct mt_listener *next_unsettled;
	bool unsettled;
};

/*
 * Start telling l about sp, beginning with an add for every section it has.
 * Unregistering tells a del for every section.  Only l is called.
 *
 * Owns:    l and what it points to must stay until it is unregistered.
 * Context: takes the topology's writer lock; not from a listener.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (is registered), ENOENT (is not), EDEADLK (from a listener).
 * Since:   0.1
 */
int	mt_listener_register(struct mt_space *sp, struct mt_listener *l);
int	mt_listener_unregister(struct mt_listener *l);

#ifdef __cplusplus
}
#endif

#endif
