/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_INTERNAL_H
#define LIBMEMTREE_INTERNAL_H

#include <sys/types.h>

#include <pthread.h>
#include <stdatomic.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

/*
 * Read-side sections are a few instructions: inlined into the library.  Not
 * when it is built with sanitizers: UBSan finds liburcu's records less aligned
 * than it declares them.
 */
#ifndef MT__OUTLINE_RCU
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-bp.h>

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
 *   mt__iommu.change_lock	one change of the notifiers at a time
 *   mt__iommu.lock	the notifiers of an IOMMU, who is being told; leaf
 *   mt_space.wait_lock	waiters for bounce budget; leaf
 *   mt_space.defer_lock	what is in flight; leaf
 *   mt_topology.views_lock	which views there are, and their garbage
 *   mt_topology.pinning.lock	pins of those that have no table
 *   mt_topology.reclaim.lock	hand-over to the reclaimer; leaf
 * None of them is held while a region callback or a waiter is called, nor while
 * the lock that a region names is waited for; the writer lock is held while
 * listeners are, an IOMMU's change_lock while its notify_changed is.
 */

/* --- reclaim.c ----------------------------------------------------------- */

/*
 * Something to be freed by the reclaimer.  Two queues: what readers may still
 * see (views, spaces) waits for a grace period; what is out of their reach
 * already (regions without references) only changes threads.
 */
struct mt__retired {
	struct mt__retired *next;
	void (*fn)(struct mt__retired *);
};

struct mt__reclaim {
	_Atomic(struct mt__retired *) after_grace;	/* [a] push-only stack */
	_Atomic(struct mt__retired *) now;		/* [a] push-only stack */
	_Atomic(bool) roused;		/* [a] a pass is about to begin */
	_Atomic(bool) roused_now;	/* [a] or the stand-in to look at now */
	_Atomic(bool) awake;		/* [a] a hint */
	_Atomic(size_t) waiting;	/* [a] bytes that are not freed yet */
	_Atomic(size_t) max_waiting;	/* [a] */
	pthread_mutex_t lock;
	pthread_cond_t work;		/* with lock: kick or stop was set */
	pthread_cond_t work_now;	/* with lock: the same, of stand_in */
	pthread_cond_t done;		/* with lock: passes_done, helpers */
	pthread_t thread;		/* [I] */
	pthread_t stand_in;		/* [I] */
	struct mt__retired *ready;	/* lock; past its grace period */
	unsigned int helpers;		/* lock; others that free something */
	uint64_t passes_begun;		/* lock */
	uint64_t passes_done;		/* lock */
	bool kick;			/* lock */
	bool kick_now;			/* lock */
	bool in_grace;			/* lock; thread waits for readers */
	bool stop;			/* lock */
	char tsan;			/* stands for the grace period */
};

int	mt__reclaim_init(struct mt_topology *t);
void	mt__reclaim_fini(struct mt_topology *t);	/* queues are empty */
bool	mt__reclaim_is_self(struct mt_topology *t);
void	mt__reclaim_wait(struct mt_topology *t);
void	mt__retire_after_grace(struct mt_topology *t, struct mt__retired *r,
	    void (*fn)(struct mt__retired *));
/* The same for what nobody waits for: with the next, or if there is much. */
void	mt__retire_patiently(struct mt_topology *t, struct mt__retired *r,
	    void (*fn)(struct mt__retired *));
void	mt__retire_now(struct mt_topology *t, struct mt__retired *r,
	    void (*fn)(struct mt__retired *));
/*
 * What is in waiting: exactly the nodes, spans, views, spaces and extras that
 * have been replaced or destroyed and are not freed.  Before more is added: is
 * there too much?  If it is getting so, this frees some.
 */
void	mt__waiting_add(struct mt_topology *t, size_t bytes);
void	mt__waiting_sub(struct mt_topology *t, size_t bytes);
bool	mt__waiting_full(struct mt_topology *t);	/* under [t] */
/* Is there too much, not counting some bytes?  Under [t]. */
bool	mt__waiting_exceeds(const struct mt_topology *t, size_t but);
/*
 * Views of so many bytes have been published, and ones of so many have been
 * replaced or gone and are about to be in waiting.  Under [t].
 */
void	mt__waiting_shown(struct mt_topology *t, size_t added, size_t gone);

bool	mt__reading(void);

/*
 * ThreadSanitizer does not see inside liburcu: tell it that what happened in
 * a section that has ended happens before what the grace period allows.
 */
#if defined(__SANITIZE_THREAD__)
#define MT__TSAN	1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MT__TSAN	1
#endif
#endif

#ifdef MT__TSAN
void	__tsan_acquire(void *);
void	__tsan_release(void *);
#define mt__tsan_acquire(p)	__tsan_acquire(p)
#define mt__tsan_release(p)	__tsan_release(p)
#else
#define mt__tsan_acquire(p)	((void)(p))
#define mt__tsan_release(p)	((void)(p))
#endif

/* --- pin.c --------------------------------------------------------------- */

#define MT__LINE	((size_t)64)	/* of a cache */
#define MT__PIN_SLOTS	64

/*
 * What one thread has pinned, less what it unpinned, by numbers of regions;
 * only the sum over all threads means something.
 */
struct mt__pins {
	struct mt__retired retired;	/* when a larger one is in its place */
	size_t n;			/* [I] */
	char apart[MT__LINE];		/* from what others write */
	_Atomic(uint32_t) counts[];	/* [a] written by its thread alone */
};

RB_HEAD(mt__leaving, mt_region);

struct mt__pinning {
	char apart[MT__LINE];
	_Atomic(struct mt__pins *) tables[MT__PIN_SLOTS]; /* [a] 0: NULL */
	_Atomic(size_t) nleaving;	/* [a] of leaving */
	char apart_too[MT__LINE];
	pthread_mutex_t lock;
	struct mt__leaving leaving;	/* lock; that only pins keep, by pin */
	uint32_t *shared;		/* lock; as counts, of all others */
	uint32_t *spare;		/* lock; numbers, a stack */
	size_t nspare;			/* lock */
	size_t n;			/* lock; numbers that there are */
	size_t room;			/* lock; of both */
};

/* Of this thread, while it lives: its tables; 0: it has none. */
extern __thread unsigned int mt__pin_slot;

void	mt__pinning_init(struct mt__pinning *pg);
void	mt__pinning_fini(struct mt__pinning *pg);
/* Give a region a number, take it back. */
int	mt__pins_init(struct mt_region *r);
void	mt__pins_fini(struct mt_region *r);
/*
 * r has no references left.  False: nor pins, and it is to be freed.  True: the
 * last unpin will see to that.
 */
bool	mt__pins_leave(struct mt_region *r);
/* The same as mt__pins_own(), and makes one if it can. */
struct mt__pins *mt__pins_table(struct mt_topology *t, uint32_t pin);
void	mt__pins_share(struct mt_topology *t, uint32_t pin, uint32_t n);
/* Some region is leaving: is it this one, and was that its last pin? */
void	mt__unpinned(struct mt_topology *t, uint32_t pin);

/* --- topology.c ---------------------------------------------------------- */

struct mt__undo;

TAILQ_HEAD(mt__spans, mt__span);
TAILQ_HEAD(mt__nodes, mt__node);

/* Ranges of a root that may look different now. */
struct mt__dirty {
	struct mt_range *ranges;
	size_t n;
	size_t room;
	bool whole;			/* all of it; ranges do not matter */
};

/*
 * The next view of a root while it is made.  Nodes and spans of the view that
 * is published are not changed: what replaces them carries the build's number
 * and may be changed in place.
 */
struct mt__build {
	uint64_t number;
	uintptr_t top;			/* as mt_view.top */
	size_t count;			/* of spans */
	size_t bytes;			/* as mt_view.bytes */
	size_t garbage;			/* bytes of old_nodes and dels */
	struct mt__nodes new_nodes;
	struct mt__nodes old_nodes;	/* replaced, but for their links as was */
	struct mt__spans adds;		/* ascending */
	struct mt__spans dels;		/* ascending */
};

/* A region that is the root of spaces, and the view that they share. */
struct mt__root {
	LIST_ENTRY(mt__root) entry;	/* [t] while dirty */
	struct mt_region *region;	/* [I] holds a reference */
	struct mt_view *view;		/* [t] holds a reference, never NULL */
	struct mt_view *next_view;	/* [t] during a commit */
	struct mt__dirty dirty;		/* [t] */
	struct mt__build build;		/* [t] during a commit */
	bool is_dirty;			/* [t] is in dirty_roots */
	TAILQ_HEAD(, mt_space) spaces;	/* [t] in order of creation */
};

struct mt__piece;
RB_HEAD(mt__pieces, mt__piece);
struct mt__frame;

struct mt_topology {
	pthread_mutex_t lock;
	_Atomic(uintptr_t) owner;	/* [a] thread that holds lock, or 0 */
	unsigned int depth;		/* [t] nested transactions */
	bool notifying;			/* [t] listeners are being called */
	bool settling;			/* [t] settle callbacks are */
	bool had_room;			/* [t] see mt__extras_begin() */
	bool relogged;			/* [t] some region's log was changed */
	uint64_t seq;			/* [t] last place in a sibling order */
	uint64_t visit;			/* [t] stamp of the last walk */
	uint64_t builds;		/* [t] number of the last build */
	size_t live;			/* [t] bytes of views that are shown */
	size_t spared;			/* [t] the most of that: reclaim.c */
	LIST_HEAD(, mt__root) dirty_roots;	/* [t] */
	struct mt_listener *unsettled;	/* [t] whose settle is to be called */
	SLIST_HEAD(mt__undos, mt__undo) undo;	/* [t] newest first */
	struct mt__undos resized;	/* [t] whose owners are to be told */
	struct mt_region **scratch;	/* [t] children of windows, a stack */
	size_t scratch_n;		/* [t] */
	size_t scratch_room;		/* [t] */
	struct mt__frame *frames;	/* [t] where rendering is, a stack */
	size_t nframes;			/* [t] */
	size_t frames_room;		/* [t] */
	_Atomic(size_t) objects;	/* [a] spaces, regions, views alive */
	pthread_mutex_t views_lock;
	struct mt__reclaim reclaim;
	struct mt__pinning pinning;
};

/* A read-side section: nests, takes no lock, writes nothing shared. */
static inline void
mt__read_begin(struct mt_topology *t)
{
	(void)t;
	urcu_bp_read_lock();
}

static inline void
mt__read_end(struct mt_topology *t)
{
	mt__tsan_release(&t->reclaim.tsan);
	urcu_bp_read_unlock();
}

bool	mt__topology_is_mine(struct mt_topology *t);
/*
 * Remember r as it is before it is changed, to be restored if the transaction
 * fails: 0, or -1 with no memory.  Once in a transaction that is enough.
 */
int	mt__topology_log(struct mt_topology *t, struct mt_region *r);
/* The offsets [first, last] of r may look different: tell every root. */
void	mt__touch(struct mt_region *r, mt_addr first, mt_addr last);
void	mt__root_touch(struct mt__root *root, mt_addr first, mt_addr last);
/*
 * Call fn for the spans of root's view that have been touched, each once and
 * ascending, until it returns true: whether it did.  At the end of a commit.
 */
bool	mt__root_touched(struct mt__root *root,
	    bool (*fn)(void *arg, const struct mt__span *span), void *arg);
/*
 * The same for what the views show of [first, last] of r now, in all roots.
 * Under [t], when nothing has been changed in this transaction.
 */
void	mt__shown(struct mt_region *r, mt_addr first, mt_addr last,
	    bool (*fn)(void *arg, struct mt__root *root,
	    const struct mt__span *span), void *arg);

/* --- region.c ------------------------------------------------------------ */

/* All of a region that a change can change, and a rollback restores. */
struct mt__state {
	struct mt_region *parent;	/* not counted: the parent counts r */
	mt_addr addr;			/* in parent */
	mt_addr last;
	mt_addr alias_off;
	uint64_t seq;			/* among equals, the highest wins */
	int prio;
	uint8_t log;			/* clients, 1 << n: see dirty.c */
	bool enabled : 1;
	bool readonly : 1;
	bool nonvolatile : 1;
	bool unmergeable : 1;
	bool rom_mode : 1;
	struct mt__extras *extras;	/* counted by who holds the state */
};

RB_HEAD(mt__children, mt_region);

/*
 * What few regions have, made with the first of it and freed with the region.
 * Readers look at it only where something that was set later, and is [I] or
 * has a barrier of its own, says that it is there.
 */
struct mt__rare {
	struct mt_region *region;	/* [I] that this belongs to */
	struct mt_region *target;	/* [I] of an alias, counted */
	LIST_ENTRY(mt__rare) alias;	/* [t] in the target's aliases */
	LIST_HEAD(, mt__rare) aliases;	/* [t] whose target this is */
	struct mt__rare *todo;		/* [t] next to be looked at by a walk */
	struct mt__iommu *iommu;	/* [I] of an IOMMU */
	struct mt_guard *guard;		/* [I] once set; or NULL */
	pthread_mutex_t *lock;		/* [I] once set; or NULL */
	struct mt__log *log;		/* once set; before logging is not 0 */
	struct mt__root *root;		/* [t] NULL: root of no space */
	void (*resized)(void *, struct mt_region *, mt_addr); /* [t] once */
	void *resized_arg;		/* [t] */
	union {
		struct mt_range touched;	/* [t] alias: that is to be */
		struct {
			int fd;			/* [I] if has_fd */
			off_t fd_off;		/* [I] */
		};
	};
};

/* There may be very many of these. */
struct mt_region {
	union {
		/* [t] in parent's children; pinning.lock: in leaving */
		RB_ENTRY(mt_region) sibling;
		struct mt__retired retired;	/* when no reference is left */
	};
	struct mt_topology *topology;	/* [I] */
	_Atomic(size_t) refs;		/* [a] */
	enum mt_kind kind : 8;		/* [I] */
	_Atomic(uint8_t) logging;	/* [a] clients whose bits are set */
	uint8_t log_told;		/* [t] state.log as listeners know it */
	bool fenced;			/* [I] has a guard or a lock */
	uint8_t whole[2];		/* [I] sizes that are one read, write */
	bool write_protected : 1;	/* [I] ptr must not be written */
	bool mapped : 1;		/* [I] ptr is ours to unmap */
	bool has_fd : 1;		/* [I] */
	const struct mt_io_ops *ops;	/* [I] NULL: no callbacks */
	void *arg;			/* [I] */
	struct mt__rare *rare;		/* [t] once set; or NULL */
	uint8_t *ptr;			/* [I] NULL if not memory */
	mt_addr max_last;		/* [I] to which it can be resized */
	/* the tree */
	struct mt__state state;		/* [t] */
	struct mt__children children;	/* [t] by address */
	mt_addr subtree_last;		/* [t] last address below sibling */
	uint64_t visited;		/* [t] stamp of the last walk */
	void *owner;			/* [I] once set */
	void (*owner_put)(void *);
	uint32_t pin;			/* [I] its number, 0: not to be lent */
	uint16_t tail;			/* [I] mask: memory ends with a page */
	bool logged;			/* [t] is in the undo log */
	bool was_parent;		/* [t] has or had children */
	char name[];			/* [I] */
};

/* The table of this thread with a count for pin, or NULL: it has to share. */
static inline struct mt__pins *
mt__pins_own(struct mt_topology *t, uint32_t pin)
{
	struct mt__pins *p = atomic_load_explicit(
	    &t->pinning.tables[mt__pin_slot], memory_order_relaxed);

	return (__builtin_expect(p != NULL && pin < p->n, 1) ? p :
	    mt__pins_table(t, pin));
}

/*
 * Pin a region, by its number, against being freed: in the section in which it
 * was found.  Writes to nothing that another thread uses, as a rule.
 */
static inline void
mt__pin(struct mt_topology *t, uint32_t pin)
{
	struct mt__pins *p = mt__pins_own(t, pin);

	if (__builtin_expect(p == NULL, 0))
		mt__pins_share(t, pin, 1);
	else
		atomic_store_explicit(&p->counts[pin], atomic_load_explicit(
		    &p->counts[pin], memory_order_relaxed) + 1,
		    memory_order_relaxed);
}

/* On any thread. */
static inline void
mt__unpin(struct mt_topology *t, uint32_t pin)
{
	struct mt__pins *p = mt__pins_own(t, pin);

	/* Seq_cst, this and the next load: see mt__pins_leave(). */
	if (__builtin_expect(p == NULL, 0))
		mt__pins_share(t, pin, -1U);
	else
		atomic_fetch_sub_explicit(&p->counts[pin], 1,
		    memory_order_seq_cst);
	if (__builtin_expect(atomic_load_explicit(&t->pinning.nleaving,
	    memory_order_seq_cst) != 0, 0))
		mt__unpinned(t, pin);
}

/* NULL unless r is an alias. */
static inline struct mt_region *
mt__target_of(const struct mt_region *r)
{
	return (r->kind == MT_ALIAS ? r->rare->target : NULL);
}

/* NULL unless r is an IOMMU. */
static inline struct mt__iommu *
mt__iommu_of(const struct mt_region *r)
{
	return (r->kind == MT_IOMMU ? r->rare->iommu : NULL);
}

static inline struct mt_region *
mt__retired_region(struct mt__retired *retired)
{
	return ((struct mt_region *)(void *)((char *)retired -
	    offsetof(struct mt_region, retired)));
}

/* How much there is at ptr: max_last and what is behind it in its page. */
static inline size_t
mt__ptr_len(const struct mt_region *r)
{
	return ((size_t)(r->max_last | r->tail) + 1);
}

/* Have r->rare: 0, or -1 with ENOMEM.  Under [t], or before r is shared. */
int	mt__region_rare(struct mt_region *r);
/* Put r into a state: what changes and rollbacks share.  Does not log. */
void	mt__region_apply(struct mt_region *r, const struct mt__state *state);
/* Of a region that nothing knows any more.  On the reclaimer. */
void	mt__region_free(struct mt__retired *retired);
/* Change one thing of r: these end the innermost transaction, as all do. */
int	mt__region_set_log(struct mt_region *r, uint8_t log);
int	mt__region_set_extras(struct mt_region *r, struct mt__extras *x);
/* A reference to r, or NULL if it has none left.  Under [t]. */
struct mt_region *mt__region_get_alive(struct mt_region *r);
/* Is this plain memory?  A RAM device is not. */
static inline bool
mt__region_is_ram(const struct mt_region *r)
{
	return (r->kind == MT_RAM || r->kind == MT_ROM);
}

/* --- loop.c -------------------------------------------------------------- */

/* Would child show itself as a subregion of parent, which it has not yet? */
bool	mt__makes_loop(struct mt_region *parent, struct mt_region *child);

/* --- children.c ---------------------------------------------------------- */

/* Siblings are indexed by where they begin and end. */
void	mt__children_insert(struct mt_region *parent, struct mt_region *r);
void	mt__children_remove(struct mt_region *parent, struct mt_region *r);
struct mt_region *mt__children_any(const struct mt_region *parent);
/* For the walk of all, in no useful order. */
struct mt_region *mt__children_first(const struct mt_region *parent);
struct mt_region *mt__children_next(const struct mt_region *r);
/*
 * Push those that reach into the offsets [first, last] of parent on the
 * topology's scratch stack.  Who pops them, by counting scratch_n down to what
 * it was, gets them in the order in which they win.
 */
int	mt__children_push(const struct mt_region *parent, mt_addr first,
	    mt_addr last);

/* --- extras.c ------------------------------------------------------------ */

/*
 * What few regions have: eventfds, ranges in which writes may be coalesced.
 * Immutable once it is in a region; a change makes another one, which shares
 * with it what is the same.  Counted by the region, by undo entries, and by
 * the spans that show the region, so that a view keeps what it had.
 */
struct mt__extras {
	_Atomic(size_t) refs;		/* [a] */
	struct mt_topology *topology;	/* [I] */
	size_t size;			/* [I] in bytes, of this struct */
	struct mt__enode *eventfds;	/* [I] counted */
	size_t nranges;			/* [I] */
	struct mt_range ranges[];	/* [I] offsets; ascending, apart */
};

struct mt__extras *mt__extras_alloc(struct mt_topology *t, size_t nranges);
struct mt__extras *mt__extras_get(struct mt__extras *x);
void	mt__extras_put(struct mt__extras *x);
/* The bytes of all that is in it; NULL has none. */
size_t	mt__extras_bytes(const struct mt__extras *x);
/*
 * Begin a transaction for a change.  What it replaces is in waiting before
 * the commit, which must not refuse it for that: whether there is room is
 * asked here.
 */
int	mt__extras_begin(struct mt_region *r);
/* Make *x, which the caller gives away, that of r, and end a transaction. */
int	mt__extras_set(struct mt_region *r, struct mt__extras *x);
/* End the transaction of a change that is not made. */
int	mt__extras_refuse(struct mt_region *r, int error);

/* --- ioeventfd.c --------------------------------------------------------- */

struct mt__eventfd {
	_Atomic(size_t) refs;		/* [a] */
	struct mt_topology *topology;	/* [I] */
	uint64_t weight;		/* [I] in the treap */
	mt_addr off;			/* [I] in the region */
	uint64_t data;			/* [I] 0 unless match */
	unsigned int size;		/* [I] 0: any */
	bool match;			/* [I] */
	int fd;				/* [I] ours */
	int callers;			/* [I] the number it was given as */
};

/* A persistent treap of eventfds: nodes never change and are shared. */
struct mt__enode {
	_Atomic(size_t) refs;		/* [a] */
	struct mt__eventfd *ev;		/* [I] counted */
	size_t count;			/* [I] of nodes, this one and below */
	struct mt__enode *left;		/* [I] counted; NULL: none */
	struct mt__enode *right;	/* [I] counted; NULL: none */
};

struct mt__enode *mt__eventfds_get(struct mt__enode *n);
void	mt__eventfds_put(struct mt__enode *n);
const struct mt__enode *mt__eventfds_find(const struct mt__enode *n,
	    const struct mt__eventfd *ev);
/*
 * Call fn for each of n with an offset in range, ascending, that is not in
 * other; what they share is not looked at.
 */
void	mt__eventfds_diff(const struct mt__enode *n,
	    const struct mt__enode *other, struct mt_range range,
	    void (*fn)(void *, const struct mt__eventfd *), void *arg);
/* Signal those that a write is for: whether there were any.  Never waits. */
bool	mt__eventfds_signal(const struct mt__enode *n, mt_addr off,
	    unsigned int size, uint64_t val);
/* The bytes that have to be visible for it to be there, minus one. */
static inline mt_addr
mt__eventfd_span(const struct mt__eventfd *ev)
{
	return (ev->size == 0 ? 0 : ev->size - 1);
}
/* Is an eventfd whose first byte is at addr in a span there, as a whole? */
bool	mt__eventfd_shown(const struct mt__span *span, mt_addr addr,
	    const struct mt__eventfd *ev);

/* --- coalesce.c ---------------------------------------------------------- */

/* The first range that ends at or after off, or how many there are. */
size_t	mt__coalesce_find(const struct mt__extras *x, mt_addr off);
/* Does a span show some of a range of its region, and at which addresses? */
bool	mt__coalesce_shown(const struct mt__span *span,
	    const struct mt_range *range, struct mt_range *shown);

/* --- ram.c --------------------------------------------------------------- */

int	mt__ram_init(struct mt_region *r, const struct mt_backing *backing);
void	mt__ram_fini(struct mt_region *r);
/* The loads and stores of RAM devices; arg is the memory. */
extern const struct mt_io_ops mt__ram_device_ops;

/* --- dirty.c ------------------------------------------------------------- */

void	mt__dirty_mark(struct mt_region *r, mt_addr off, size_t len);

/*
 * [off, off + len) of a region's memory has been written.  The look at logging
 * comes after the data: for the compiler by the fence, for the processor by
 * what mt_region_set_log() does (see dirty.c).
 */
static inline void
mt__wrote(struct mt_region *r, mt_addr off, size_t len)
{
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(atomic_load_explicit(&r->logging,
	    memory_order_relaxed) != 0, 0))
		mt__dirty_mark(r, off, len);
}

/* The log in r's state was changed, or is known to listeners now: [t]. */
void	mt__dirty_update(struct mt_region *r);
void	mt__dirty_commit(struct mt_region *r);
void	mt__dirty_fini(struct mt__log *log);	/* NULL is ignored */

/* --- guard.c ------------------------------------------------------------- */

/* This thread is inside a callback of region; on its stack. */
struct mt__inside {
	struct mt__inside *up;		/* the callback around it */
	const struct mt_region *region;
	bool takes;			/* the lock, which is to be unlocked */
};

bool	mt__guard_enter(const struct mt_region *r, struct mt__inside *in);
void	mt__guard_leave(struct mt__inside *in);

/* Around callbacks: false if they must not be called, which is MT_DENIED. */
static inline bool
mt__enter(const struct mt_region *r, struct mt__inside *in)
{
	return (!r->fenced || mt__guard_enter(r, in));
}

static inline void
mt__leave(const struct mt_region *r, struct mt__inside *in)
{
	if (r->fenced)
		mt__guard_leave(in);
}

/* --- view.c -------------------------------------------------------------- */

#define MT__DIRECT_READ		(1u << 8)	/* readable at host */
#define MT__DIRECT_WRITE	(1u << 9)	/* writable at host */
#define MT__IOMMU		(1u << 10)	/* goes on elsewhere */
#define MT__EXACT		(1u << 11)	/* not cut as QEMU does not cut */
#define MT__SECTION_FLAGS	0xffu		/* those of struct mt_section */

/*
 * A range of a view, with all that an access needs to know.  Belongs to the
 * views between the commit that made it and the one that replaced it.
 */
struct mt__span {
	struct mt_range range;
	uint8_t *host;			/* of range.first; NULL: no memory */
	unsigned int flags;
	uint32_t pin;			/* of region */
	struct mt_region *region;	/* counted */
	mt_addr off;			/* in region, of range.first */
	mt_addr region_last;		/* where accesses are cut */
	struct mt__extras *extras;	/* counted; NULL: none */
	uint64_t build;			/* that made it */
	TAILQ_ENTRY(mt__span) link;	/* in adds, then in a view's garbage */
};

/*
 * The views of a root that are not freed yet are a list, in the order in which
 * they were published.  A node or span is in those between the build that made
 * it and the one that replaced it.  Garbage is what this view has and the next
 * one in the list has not.  When a view dies, what it alone has goes with it,
 * and what the one before it has, too, becomes the garbage of that one; so a
 * view that is kept keeps what it shows, and nothing of what came after it.
 */
struct mt_view {
	struct mt__retired retired;	/* by the commit that replaces it */
	struct mt_topology *topology;	/* [I] */
	_Atomic(size_t) refs;		/* [a] */
	uint64_t build;			/* [I] that made it; 0: none, empty */
	uintptr_t top;			/* [I] the tree: see tree.c */
	size_t count;			/* [I] of spans */
	size_t bytes;			/* [I] of nodes and spans */
	struct mt_view *prev;		/* views_lock */
	struct mt_view *next;		/* views_lock; NULL: has all of top */
	struct mt__nodes old_nodes;	/* views_lock; garbage */
	struct mt__spans old_spans;	/* views_lock; garbage */
};

/* An empty view with one reference. */
struct mt_view *mt__view_alloc(struct mt_topology *t);
/* All of it. */
static inline size_t
mt__view_bytes(const struct mt_view *v)
{
	return (sizeof(*v) + v->bytes);
}
/* The first span that ends at or after addr, or NULL. */
const struct mt__span *mt__view_search(const struct mt_view *v, mt_addr addr);
void	mt__section_of(const struct mt__span *span, struct mt_section *sec);
/*
 * A view of what v shows of [first, *last], to be kept beside v, which keeps no
 * other region; or of the beginning of that, where it is very many sections:
 * *last is lowered.  NULL: no memory.  To be freed when nobody uses it.
 */
struct mt_view *mt__view_part(const struct mt_view *v, mt_addr first,
	    mt_addr *last);
void	mt__view_part_free(struct mt_view *v);
/* Free a view that was never published, whose tree is not its own. */
void	mt__view_discard(struct mt_view *v);
/* next has replaced v. */
void	mt__view_link(struct mt_view *v, struct mt_view *next);
/*
 * Put v when no reader can see it any more.  b, of which the garbage is taken,
 * is the build that replaced it; NULL: nothing has, its root is gone.
 */
void	mt__view_retire(struct mt_view *v, struct mt__build *b);

/* --- tree.c -------------------------------------------------------------- */

#define MT__BITS	6
#define MT__FAN		(1u << MT__BITS)

/*
 * A node of the radix tree over addresses.  A slot is 0, a span, or a node
 * (its address plus 1).  A slot has a span when no other one reaches into the
 * slot's addresses; the span need not fill them.  A node may be smaller than
 * the slot that it is in, and then has all that the slot has.
 */
struct mt__node {
	mt_addr base;			/* of its addresses */
	mt_addr mask;			/* of the bits of base that matter */
	uint8_t shift;			/* of an address, to a slot's number */
	uint8_t used;			/* slots that are not 0 */
	uint64_t build;			/* that made it */
	TAILQ_ENTRY(mt__node) link;
	uintptr_t slots[MT__FAN];
};

static inline bool
mt__is_node(uintptr_t slot)
{
	return ((slot & 1) != 0);
}

static inline struct mt__node *
mt__to_node(uintptr_t slot)
{
	return ((struct mt__node *)(slot - 1));
}

/* The span that has addr, or NULL: the path of every access. */
static inline const struct mt__span *
mt__tree_at(uintptr_t slot, mt_addr addr)
{
	const struct mt__node *n;
	const struct mt__span *span;

	while (mt__is_node(slot)) {
		n = mt__to_node(slot);
		if (((addr ^ n->base) & n->mask) != 0)
			return (NULL);
		slot = n->slots[(addr >> n->shift) & (MT__FAN - 1)];
	}
	span = (const struct mt__span *)slot;
	if (span == NULL || addr < span->range.first ||
	    addr > span->range.last)
		return (NULL);
	return (span);
}

const struct mt__span *mt__tree_next(uintptr_t slot, mt_addr addr);
/* Free what is not older than a build, spans too: how many bytes that were. */
size_t	mt__tree_free(uintptr_t slot, uint64_t build);
void	mt__span_free(struct mt__span *span);

void	mt__build_begin(struct mt__build *b, uint64_t number,
	    const struct mt_view *v);
/* Take a span out, put one in: b->dels and b->adds have them then. */
int	mt__build_del(struct mt__build *b, struct mt__span *span);
int	mt__build_add(struct mt__build *b, struct mt__span *span);
void	mt__build_abort(struct mt__build *b);

/* --- render.c ------------------------------------------------------------ */

/* Bring [first, last] of a build up to date with the tree under region. */
int	mt__render(struct mt__build *b, struct mt_region *region,
	    mt_addr first, mt_addr last);

/* --- space.c ------------------------------------------------------------- */

struct mt_space {
	struct mt__retired retired;
	_Atomic(struct mt_view *) view;	/* [r] never NULL */
	struct mt_topology *topology;	/* [I] */
	struct mt__root *root;		/* [I] */
	char *name;			/* [I] */
	TAILQ_ENTRY(mt_space) entry;	/* [t] in its root's spaces */
	struct mt_listener *listeners;	/* [t] ascending by prio */
	_Atomic(size_t) ncaches;	/* [a] */
	/* defer.c */
	pthread_mutex_t defer_lock;
	pthread_cond_t defer_idle;	/* with defer_lock: naccesses is 0 */
	size_t naccesses;		/* defer_lock; in flight */
	/* bounce.c */
	_Atomic(size_t) bounce_limit;	/* [a] */
	_Atomic(size_t) bounce_used;	/* [a] */
	_Atomic(size_t) nbusy;		/* [a] waiters queued or being called */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_idle;	/* with wait_lock: a call has ended */
	struct mt_waiter *wait_head;	/* wait_lock; oldest first */
	struct mt_waiter *wait_tail;	/* wait_lock */
	struct mt__waking *waking;	/* wait_lock; calls under way */
	size_t gives;			/* wait_lock; what may make room */
	size_t turns;			/* wait_lock; calls and queuers, ever */
};

static inline struct mt_view *
mt__space_view(struct mt_space *sp)
{
	/*
	 * Acquire pairs with the release in publish(), so that the reader
	 * sees the view's spans as they were before it was published.
	 */
	return (atomic_load_explicit(&sp->view, memory_order_acquire));
}

/* --- access.c ------------------------------------------------------------ */

/* Where a span serves addr, and how. */
struct mt__hit {
	const struct mt__span *span;	/* NULL: a hole */
	mt_addr room;			/* last - addr: bytes left, minus one */
	mt_addr off;			/* in span->region */
	uint8_t *host;			/* of addr, if direct; else NULL */
};

void	mt__lookup(const struct mt_view *v, mt_addr addr, bool is_write,
	    struct mt_attrs attrs, struct mt__hit *hit);

/* Somebody in a read-side section who goes by one view of a space. */
struct mt__reader {
	struct mt_topology *topology;
	struct mt_view *view;
	struct mt_access *access;	/* what is in flight is of; or NULL */
	struct mt__reader *outer;	/* whose translation led here */
	bool kept;			/* view stays without the section */
	bool put;			/* by a reference of ours */
	uint8_t depth;			/* of translations; 0: no outer */
	uint8_t whole;			/* size of the value, if it is one */
};

/* In a section that has begun, and which v was taken in. */
static inline void
mt__reader_go_on(struct mt__reader *rd, struct mt_space *sp,
    struct mt_view *v)
{
	rd->topology = sp->topology;
	rd->view = v;
	rd->access = NULL;
	rd->kept = rd->put = false;
	rd->depth = rd->whole = 0;
}

static inline void
mt__reader_begin(struct mt__reader *rd, struct mt_space *sp)
{
	mt__read_begin(sp->topology);
	mt__reader_go_on(rd, sp, mt__space_view(sp));
}

static inline void
mt__reader_end(struct mt__reader *rd)
{
	mt__read_end(rd->topology);
	if (rd->put)
		mt_view_put(rd->view);
}

/*
 * Leave the section in order to wait; view stays the one to go by, and so do
 * those of the readers around this one.
 */
static inline void
mt__reader_pause(struct mt__reader *rd)
{
	struct mt__reader *at = rd;

	for (;; at = at->outer) {
		if (!at->kept) {
			mt_view_get(at->view);
			at->kept = at->put = true;
		}
		if (at->depth == 0)
			break;
	}
	mt__read_end(rd->topology);
}

static inline void
mt__reader_resume(struct mt__reader *rd)
{
	mt__read_begin(rd->topology);
}

enum mt_result mt__access(struct mt__reader *rd, mt_addr addr, void *buf,
	    size_t len, bool is_write, struct mt_attrs attrs);
enum mt_result mt__load(struct mt__reader *rd, mt_addr addr,
	    unsigned int size, enum mt_endian order, uint64_t *val,
	    struct mt_attrs attrs);
enum mt_result mt__store(struct mt__reader *rd, mt_addr addr,
	    unsigned int size, enum mt_endian order, uint64_t val,
	    struct mt_attrs attrs);
/* The same in a section that has begun, and which these end. */
enum mt_result mt__access_on(struct mt_space *sp, struct mt_view *v,
	    mt_addr addr, void *buf, size_t len, bool is_write,
	    struct mt_attrs attrs);
enum mt_result mt__load_on(struct mt_space *sp, struct mt_view *v,
	    mt_addr addr, unsigned int size, enum mt_endian order,
	    uint64_t *val, struct mt_attrs attrs);
enum mt_result mt__store_on(struct mt_space *sp, struct mt_view *v,
	    mt_addr addr, unsigned int size, enum mt_endian order,
	    uint64_t val, struct mt_attrs attrs);
/* Copy what may be guest memory: a single value of a width never tears. */
void	mt__copy(void *to, const void *from, size_t len);

/* --- device.c ------------------------------------------------------------ */

/* Of a RAM device: may it be accessed so? */
bool	mt__is_ram_device(const struct mt__hit *hit, bool is_write, bool debug);

/* Is this a place where a callback would be called? */
static inline bool
mt__is_device(const struct mt__hit *hit, bool is_write, struct mt_attrs attrs)
{
	const struct mt_region *r;

	if (hit->span == NULL || hit->host != NULL)
		return (false);
	r = hit->span->region;
	if (r->kind == MT_RAM_DEVICE)
		return (mt__is_ram_device(hit, is_write, attrs.debug));
	return (r->ops != NULL && !attrs.memory_only);
}

/*
 * What of an access is a device's: in one call, or step by step to the end of
 * the section or, as QEMU does, past it.  Returns how much that was; 0: it
 * defers, and rd has no access that it could be in flight with.
 */
size_t	mt__device_access(struct mt__reader *rd, struct mt__hit *hit,
	    uint8_t *buf, size_t len, bool is_write, struct mt_attrs attrs,
	    unsigned int *res);
/* How much of it in one call, whatever its length; 0: it has no such. */
size_t	mt__device_buf(const struct mt__hit *hit, size_t len, bool is_write);
/* By one access, if the device takes that: its result, or -1. */
int	mt__device_load(const struct mt__hit *hit, unsigned int size,
	    enum mt_endian order, uint64_t *val, struct mt_attrs attrs);
int	mt__device_store(const struct mt__hit *hit, unsigned int size,
	    enum mt_endian order, uint64_t val, struct mt_attrs attrs);
/* Write to a RAM device what its section has room for. */
void	mt__ram_device_write(const struct mt__hit *hit, const uint8_t *p,
	    size_t len);
/* Would a device take its part of an access?  How much that is. */
size_t	mt__device_valid(const struct mt__hit *hit, mt_addr addr, size_t len,
	    bool is_write, struct mt_attrs attrs, bool *ok);

/* --- defer.c ------------------------------------------------------------- */

void	mt__defer_init(struct mt_space *sp);
void	mt__defer_fini(struct mt_space *sp);
bool	mt__defer_idle(struct mt_space *sp);
/* Submit to the region at hit its part of rd->access. */
enum mt_result mt__defer_begin(struct mt__reader *rd,
	    const struct mt__hit *hit, void *buf, size_t len, bool is_write,
	    struct mt_attrs attrs);
/*
 * The rest of a blocking access, from where the first region defers: all that
 * do are given their parts, and waited for once.
 */
enum mt_result mt__defer_walk(struct mt__reader *rd, mt_addr addr, void *buf,
	    size_t len, bool is_write, struct mt_attrs attrs);

/* --- dma.c --------------------------------------------------------------- */

#define MT__MAP_DIRECT	(1u << 0)	/* or ENOSPC: no bounce buffers */
#define MT__MAP_QUIET	(1u << 1)	/* faults are not to be reported */
#define MT__MAP_PIECE	(1u << 2)	/* no more than one translation */

/*
 * Map addr in the view of rd: 0 or an errno.  map has its space, its address
 * there, direction and attributes, and is zero otherwise.
 */
int	mt__dma_map(struct mt__reader *rd, mt_addr addr, size_t len,
	    unsigned int how, struct mt_mapping *map);
/* Make next part of map, if it goes on where map ends in its region. */
bool	mt__dma_join(struct mt_mapping *map, const struct mt_mapping *next);
/*
 * How many bytes from hit on are one piece of host memory: sections may
 * differ in what does not matter here.
 */
size_t	mt__direct_len(const struct mt_view *v, const struct mt__hit *hit,
	    mt_addr addr, size_t len, bool is_write, struct mt_attrs attrs);
/* Give back what map has pinned. */
void	mt__dma_unpin(const struct mt_mapping *map);
/* Let map pass for a live mapping where it is now. */
void	mt__dma_mark(struct mt_mapping *map);

/* --- bounce.c ------------------------------------------------------------ */

/* Take up to len bytes of budget: how many were taken, 0 if none are left. */
size_t	mt__bounce_take(struct mt_space *sp, size_t len);
void	mt__bounce_give(struct mt_space *sp, size_t len);	/* may call waiters */
int	mt__bounce_init(struct mt_space *sp);
void	mt__bounce_fini(struct mt_space *sp);
bool	mt__bounce_idle(struct mt_space *sp);

/* --- iommu.c, iommu-notify.c --------------------------------------------- */

struct mt__telling;

struct mt__iommu {
	const struct mt_iommu_ops *ops;		/* [I] */
	pthread_mutex_t change_lock;	/* tells who has it already */
	unsigned int events;		/* change_lock; of all notifiers */
	pthread_mutex_t lock;
	pthread_cond_t idle;		/* with lock: a telling has gone on */
	struct mt_iommu_notifier *notifiers;	/* lock; newest first */
	struct mt__telling *tellings;	/* lock; under way */
};

struct mt__iommu *mt__iommu_create(const struct mt_iommu_ops *ops);
void	mt__iommu_free(struct mt__iommu *io);

static inline bool
mt__is_iommu(const struct mt__hit *hit)
{
	return (hit->span != NULL && (hit->span->flags & MT__IOMMU) != 0);
}

/* What an access needs of a translation. */
static inline unsigned int
mt__iommu_need(bool is_write)
{
	return (is_write ? MT_IOMMU_WRITE : MT_IOMMU_READ);
}

/*
 * Translate; need is what the answer has to permit, or 0: anything.  tlb->mask
 * is that of a page in any case.
 */
enum mt_result mt__iommu_look(const struct mt_region *r, mt_addr off,
	    unsigned int need, unsigned int flags, struct mt_attrs attrs,
	    struct mt_iotlb *tlb);
/*
 * Go from a hit of rd to where it leads: in reads there, at *at, unless *res
 * is an error.  Returns how many of len bytes the answer is for.
 */
size_t	mt__iommu_enter(struct mt__reader *in, struct mt__reader *rd,
	    const struct mt__hit *hit, size_t len, unsigned int need,
	    unsigned int flags, struct mt_attrs attrs, mt_addr *at,
	    enum mt_result *res);
static inline void
mt__reader_leave(struct mt__reader *in)
{
	if (in->put)
		mt_view_put(in->view);
}

int	mt__iommu_map(struct mt__reader *rd, const struct mt__hit *hit,
	    mt_addr addr, size_t len, unsigned int how,
	    struct mt_mapping *map);

/* --- listener.c ---------------------------------------------------------- */

/* Tell the listeners of sp what a commit has changed in its root. */
void	mt__listener_notify(struct mt_space *sp, struct mt__root *root);
/* Call settle of all who have been told something, until nobody is left. */
void	mt__listener_settle(struct mt_topology *t);

/* --- dump.c -------------------------------------------------------------- */

/* A region as dumps show it. */
struct mt__dump_entry {
	struct mt_region *region;
	mt_addr base;			/* address seen from its tree's root */
	size_t parent;			/* its index, or MT__NO_PARENT */
	unsigned int depth;
	bool hidden;			/* it or what contains it is disabled */
};

#define MT__NO_PARENT	SIZE_MAX

struct mt__dump {
	struct mt__dump_entry *list;
	size_t n;
	size_t room;
};

/*
 * List the tree under root, then the trees of what its aliases show and is
 * not listed yet.  Under [t].  Returns 0, or -1 with ENOMEM; list is to be
 * freed in both cases.
 */
int	mt__dump_collect(struct mt__dump *d, struct mt_region *root);
const char *mt__dump_kind(enum mt_kind kind);
const char *mt__dump_colour(enum mt_kind kind);
/*
 * Take one character off a name, as UTF-8 that can be shown: what is not
 * UTF-8, or a control, is replaced.  Returns its bytes in out, 0 at the end.
 */
size_t	mt__dump_char(const char **name, char out[4]);

#endif
