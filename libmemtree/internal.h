/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_INTERNAL_H
#define LIBMEMTREE_INTERNAL_H

#include <sys/types.h>

#include <pthread.h>
#include <stdatomic.h>

#include <bsd/sys/queue.h>

#include <libmemtree/memtree.h>

/*
 * Keys of members, used in every struct below:
 * [I] set before publication, then immutable
 * [t] the topology's writer lock
 * [a] atomic, order named at use
 * [r] read inside a read-side section, replaced under [t]
 *
 * Locks in the order in which they are taken:
 *   mt_topology.lock	writer lock, recursive, held from begin to commit
 *   mt_space.wait_lock	waiters for bounce budget; leaf
 *   mt_topology.reclaim.lock	hand-over to the reclaimer; leaf
 * None of them is held while a region callback or a waiter is called; the
 * writer lock is held while listeners are.
 */

/* --- reclaim.c ----------------------------------------------------------- */

/*
 * Something to be freed by the reclaimer thread.  Two queues: what readers
 * may still see (views, spaces) waits for a grace period; what is out of
 * their reach already (regions without references) only changes threads.
 */
struct mt__retired {
	struct mt__retired *next;
	void (*fn)(struct mt__retired *);
};

struct mt__reclaim {
	_Atomic(struct mt__retired *) after_grace;	/* [a] push-only stack */
	_Atomic(struct mt__retired *) now;		/* [a] push-only stack */
	pthread_mutex_t lock;
	pthread_cond_t work;		/* with lock: kick or stop was set */
	pthread_cond_t done;		/* with lock: passes_done has moved */
	pthread_t thread;		/* [I] */
	uint64_t passes_begun;		/* lock */
	uint64_t passes_done;		/* lock */
	bool kick;			/* lock */
	bool stop;			/* lock */
	char tsan;			/* stands for the grace period */
};

int	mt__reclaim_init(struct mt_topology *t);
void	mt__reclaim_fini(struct mt_topology *t);	/* queues are empty */
bool	mt__reclaim_is_self(struct mt_topology *t);
void	mt__reclaim_wait(struct mt_topology *t);
void	mt__retire_after_grace(struct mt_topology *t, struct mt__retired *r,
	    void (*fn)(struct mt__retired *));
void	mt__retire_now(struct mt_topology *t, struct mt__retired *r,
	    void (*fn)(struct mt__retired *));

/* A read-side section: nests, takes no lock, writes nothing shared. */
void	mt__read_begin(struct mt_topology *t);
void	mt__read_end(struct mt_topology *t);
bool	mt__reading(void);

/* --- topology.c ---------------------------------------------------------- */

struct mt__undo;

/* A region that is the root of spaces, and the view that they share. */
struct mt__root {
	LIST_ENTRY(mt__root) entry;	/* [t] */
	struct mt_region *region;	/* [I] holds a reference */
	struct mt_view *view;		/* [t] holds a reference, never NULL */
	struct mt_view *next_view;	/* [t] during a commit */
	unsigned int nspaces;		/* [t] */
};

struct mt_topology {
	pthread_mutex_t lock;
	_Atomic(uintptr_t) owner;	/* [a] thread that holds lock, or 0 */
	unsigned int depth;		/* [t] nested transactions */
	bool notifying;			/* [t] listeners are being called */
	bool dirty;			/* [t] some view may be out of date */
	uint64_t seq;			/* [t] last place in a sibling order */
	uint64_t visit;			/* [t] stamp of the last walk */
	LIST_HEAD(, mt__root) roots;	/* [t] */
	TAILQ_HEAD(, mt_space) spaces;	/* [t] in order of creation */
	SLIST_HEAD(, mt__undo) undo;	/* [t] newest first */
	_Atomic(size_t) objects;	/* [a] regions and views alive */
	struct mt__reclaim reclaim;
};

bool	mt__topology_is_mine(struct mt_topology *t);
/* Remember r as it is now, to be restored if the transaction fails. */
int	mt__topology_log(struct mt_topology *t, struct mt_region *r);

/* --- region.c ------------------------------------------------------------ */

/* All of a region that a change can change, and a rollback restores. */
struct mt__state {
	struct mt_region *parent;	/* not counted: the parent counts r */
	mt_addr addr;			/* in parent */
	mt_addr last;
	mt_addr alias_off;
	uint64_t seq;			/* among equals, the highest wins */
	int prio;
	bool enabled;
	bool readonly;
	bool nonvolatile;
	bool rom_mode;
};

TAILQ_HEAD(mt__children, mt_region);

struct mt_region {
	struct mt__retired retired;	/* by whoever drops the last ref */
	struct mt_topology *topology;	/* [I] */
	_Atomic(size_t) refs;		/* [a] */
	enum mt_kind kind;		/* [I] */
	char *name;			/* [I] */
	const struct mt_io_ops *ops;	/* [I] NULL unless I/O or ROM device */
	void *arg;			/* [I] */
	struct mt_region *target;	/* [I] of an alias, counted */
	mt_addr created_last;		/* [I] */
	/* ram.c */
	uint8_t *ptr;			/* [I] NULL if not memory */
	size_t map_len;			/* [I] 0: not ours to unmap */
	size_t ptr_len;			/* [I] bytes there are at ptr */
	int fd;				/* [I] -1: none */
	off_t fd_off;			/* [I] */
	bool write_protected;		/* [I] ptr must not be written */
	/* the tree */
	struct mt__state state;		/* [t] */
	struct mt__children children;	/* [t] in the order in which they win */
	TAILQ_ENTRY(mt_region) sibling;	/* [t] */
	uint64_t visited;		/* [t] stamp of the last walk */
	struct mt__root *root;		/* [t] NULL: root of no space */
	void *owner;			/* [I] once set */
	void (*owner_put)(void *);
};

/* Put r into a state: what changes and rollbacks share.  Does not log. */
void	mt__region_apply(struct mt_region *r, const struct mt__state *state);
/* Is this memory that can be lent?  Then also outside the tree. */
static inline bool
mt__region_is_ram(const struct mt_region *r)
{
	return (r->kind == MT_RAM || r->kind == MT_ROM);
}

/* --- ram.c --------------------------------------------------------------- */

int	mt__ram_init(struct mt_region *r, const struct mt_backing *backing);
void	mt__ram_fini(struct mt_region *r);

/* --- view.c -------------------------------------------------------------- */

#define MT__DIRECT_READ		(1u << 8)	/* readable at host */
#define MT__DIRECT_WRITE	(1u << 9)	/* writable at host */
#define MT__SECTION_FLAGS	0xffu		/* those of struct mt_section */

/* A range of a view, with all that an access needs to know. */
struct mt__span {
	struct mt_range range;
	struct mt_region *region;	/* counted */
	mt_addr off;			/* in region, of range.first */
	mt_addr region_last;		/* where accesses are cut */
	uint8_t *host;			/* of range.first; NULL: no memory */
	unsigned int flags;
};

struct mt_view {
	struct mt__retired retired;	/* by the commit that replaces it */
	struct mt_topology *topology;	/* [I] */
	_Atomic(size_t) refs;		/* [a] */
	size_t nspans;			/* [I] */
	struct mt__span *spans;		/* [I] ascending */
	mt_addr *lasts;			/* [I] range.last of each: searched */
};

/* An empty view with room for nspans spans, and one reference. */
struct mt_view *mt__view_alloc(struct mt_topology *t, size_t nspans);
/* The first span that ends at or after addr, or NULL. */
const struct mt__span *mt__view_search(const struct mt_view *v, mt_addr addr);
bool	mt__view_equal(const struct mt_view *a, const struct mt_view *b);
void	mt__section_of(const struct mt__span *span, struct mt_section *sec);
/* Put v when no reader can see it any more. */
void	mt__view_retire(struct mt_view *v);

/* Call fn for the sections of a that b does not have, ascending. */
void	mt__view_diff(const struct mt_view *a, const struct mt_view *b,
	    void (*fn)(void *arg, const struct mt_section *sec), void *arg);

/* --- render.c ------------------------------------------------------------ */

/* Make the view of a root: NULL with ENOMEM if there is no memory. */
struct mt_view *mt__render(struct mt_region *root);

/* --- space.c, access.c --------------------------------------------------- */

struct mt_space {
	struct mt__retired retired;
	_Atomic(struct mt_view *) view;	/* [r] never NULL */
	struct mt_topology *topology;	/* [I] */
	struct mt__root *root;		/* [I] */
	char *name;			/* [I] */
	TAILQ_ENTRY(mt_space) entry;	/* [t] */
	struct mt_listener *listeners;	/* [t] ascending by prio */
	/* bounce.c */
	_Atomic(size_t) bounce_limit;	/* [a] */
	_Atomic(size_t) bounce_used;	/* [a] */
	_Atomic(size_t) gives;		/* [a] how often budget was given */
	_Atomic(size_t) nwaiters;	/* [a] changed under wait_lock */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_idle;	/* with wait_lock: a call has ended */
	struct mt_waiter *wait_head;	/* wait_lock; oldest first */
	struct mt_waiter *wait_tail;	/* wait_lock */
	struct mt__waking *waking;	/* wait_lock; calls under way */
};

/* Where a span serves addr, and how. */
struct mt__hit {
	const struct mt__span *span;	/* NULL: a hole */
	mt_addr room;			/* last - addr: bytes left, minus one */
	mt_addr off;			/* in span->region */
	uint8_t *host;			/* of addr, if direct; else NULL */
};

void	mt__lookup(const struct mt_view *v, mt_addr addr, bool is_write,
	    struct mt_attrs attrs, struct mt__hit *hit);
enum mt_result mt__access(const struct mt_view *v, mt_addr addr, void *buf,
	    size_t len, bool is_write, struct mt_attrs attrs);

static inline struct mt_view *
mt__space_view(struct mt_space *sp)
{
	/*
	 * Acquire pairs with the release in publish(), so that the reader
	 * sees the view's spans as they were before it was published.
	 */
	return (atomic_load_explicit(&sp->view, memory_order_acquire));
}

/* --- bounce.c ------------------------------------------------------------ */

/* Take up to len bytes of budget: how many were taken, 0 if none are left. */
size_t	mt__bounce_take(struct mt_space *sp, size_t len);
void	mt__bounce_give(struct mt_space *sp, size_t len);	/* may call waiters */
int	mt__bounce_init(struct mt_space *sp);
void	mt__bounce_fini(struct mt_space *sp);
bool	mt__bounce_idle(struct mt_space *sp);

/* --- listener.c ---------------------------------------------------------- */

/* Tell the listeners of sp that its view was old and is now new. */
void	mt__listener_notify(struct mt_space *sp, const struct mt_view *old,
	    const struct mt_view *new);

#endif
