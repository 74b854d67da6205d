/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_TREE_H
#define T_FUZZ_TREE_H

/* What the parts of the fuzzer of trees share. */

#include <pthread.h>

#include <libmemtree/memtree.h>

#include "t/fuzz/fuzz.h"

#define NODES		18
#define SPACES		3
#define MAPS		4
#define LISTS		2		/* scatter lists */
#define PARTS		4		/* of one */
#define ACCESSES	4
#define PIECES		32		/* in flight */
#define WAITERS		3
#define MIRROR		1024		/* sections at most */
#define OPS		200
#define DEV_OPS		9
#define EVENTS		6		/* eventfds of a region */
#define RANGES		6		/* added to a region, as given */
#define POOL		4		/* real eventfds */
#define TOLD		512 		/* eventfds or ranges at most */
#define GONE		32		/* sections */
#define GUARDS		2
#define LOCKS		2
#define FRAMES		16		/* callbacks inside each other */
#define CALLS		64
#define PAGES		8		/* of memory at most */
#define MIGRATION	MT_DIRTY_MIGRATION
#define DEPTH		3		/* of transactions */

struct event {
	mt_addr off;
	unsigned int size;
	bool match;
	uint64_t data;
	int pool;
};

/* What the library does not tell of a region; a rollback takes it back. */
struct extra {
	uint64_t seq;			/* among equals, the highest wins */
	struct event events[EVENTS];
	size_t nevents;
	struct mt_range ranges[RANGES];
	size_t nranges;
	unsigned int log;		/* clients, 1 << n */
};

/* What it does tell, to see that a rollback takes it back. */
struct shape {
	struct mt_region *parent;
	mt_addr addr;
	mt_addr last;
	mt_addr alias_off;
	int prio;
	unsigned int flags;
};

struct node {
	struct mt_region *r;		/* NULL: none */
	struct node *target;		/* of an alias */
	struct extra x;
	struct extra x_was;		/* when the transaction began */
	struct shape was;
	bool is_old;			/* was there when it began */
	bool used;			/* has been in a tree */
	/* devices */
	const struct mt_io_ops *op;	/* NULL: no callbacks of ours */
	struct mt_guard *guard;
	pthread_mutex_t *lock;
	struct seat *to;		/* its callbacks access; NULL: no */
	mt_addr to_addr;
	unsigned int to_size;
	bool to_write;
	/* memory */
	size_t len;			/* 0: none that can be logged */
	size_t room;			/* to the end of its last page */
	unsigned int log_told;		/* when last committed */
	uint8_t must[MT_DIRTY_CLIENTS];	/* pages that are dirty, 1 << n */
	uint8_t may[MT_DIRTY_CLIENTS];	/* and those that may be */
	uint8_t *copy;			/* as MIGRATION sees it */
	/* resized */
	bool hears;
	mt_addr heard;
	unsigned int again;		/* resizes itself as often */
};

/* What a listener was told of an eventfd, or of a range of writes. */
struct told {
	struct mt_region *r;
	struct mt_range range;		/* of an eventfd: where, twice */
	struct event ev;		/* but for off */
	int fd;
	bool gone;			/* in the commit that is being told */
};

struct tolds {
	struct told t[TOLD];
	size_t n;
};

struct seat {
	struct mt_space *sp;		/* NULL: none */
	struct node *root;
	struct mt_view *held;		/* some older view, or NULL */
	struct mt_listener l;
	struct mt_listener beside;	/* another, by its prio before or after */
	bool alone;			/* it only is told */
	size_t nbeside;			/* sections it was told of */
	bool listening;
	bool telling;
	unsigned int phase;		/* of what is told */
	struct mt_section mirror[MIRROR];
	unsigned int logs[MIRROR];
	size_t n;
	struct mt_section gone[GONE];	/* in this commit */
	size_t ngone;
	struct tolds events;
	struct tolds ranges;
	struct mt_cache cache;
	bool cached;
	mt_addr cached_addr;
	size_t cached_len;
};

struct list {
	struct mt_sg sg;
	struct mt_mapping maps[PARTS];
	struct iovec iov[PARTS];
	bool is_write;
	struct mt_space *sp;		/* NULL: not mapped */
};

/* An access that was submitted, and what devices have of all of them. */
struct access {
	struct mt_access acc;
	struct mt_space *sp;
	uint8_t buf[256];
	size_t len;
	bool is_write;
	bool busy;
	bool again;			/* submit it again when it is done */
};

struct flight {
	struct mt_piece *piece;		/* NULL: none */
	uint8_t *buf;
	size_t len;
	bool is_write;
	bool stays;			/* cannot be cancelled */
};

struct waiter {
	struct mt_waiter waiter;
	struct seat *seat;		/* NULL: is not waiting */
	unsigned int again;		/* how often to wait once more */
};

struct world {
	struct input in;
	struct mt_topology *t;
	struct node nodes[NODES];
	struct seat seats[SPACES];
	struct mt_mapping maps[MAPS];
	struct list lists[LISTS];
	struct access accesses[ACCESSES];
	struct flight flights[PIECES];
	struct waiter waiters[WAITERS];
	struct node *busy;		/* its callback runs */
	uint64_t seq;
	unsigned int depth;
	bool by_old_view;		/* of a cache, of what is staged */
	unsigned int nops;
	bool limited;			/* changes may be refused */
	bool in_listener;		/* and here they are */
	/* devices */
	struct mt_guard guards[GUARDS];
	pthread_mutex_t locks[LOCKS];
	bool has_locks;			/* some device has one of them */
	struct node *frames[FRAMES];	/* whose callbacks run */
	unsigned int nframes;
	bool quiet;			/* they access nothing now */
	struct call {
		struct node *n;
		mt_addr off;
		unsigned int size;
	} calls[CALLS];			/* for single values */
	unsigned int ncalls;
	uint64_t signals[POOL];		/* read from eventfds so far */
	/* logs */
	bool asking;			/* listeners may be asked */
	bool clearing;			/* and may be told of a clear */
	bool marking;			/* they know of writes */
	size_t nasked;
};

extern struct world w;

/* --- tree.c --- */

bool	went(int ret, int error, int other);

/* --- tree-model.c --- */

struct answer	ask(const struct node *n, mt_addr off, unsigned int flags);
bool	same(const struct mt_section *a, const struct mt_section *b);
size_t	check_view(const struct mt_view *v, const struct seat *s);
void	check_all(void);
struct node *node_of(const struct mt_region *r);
void	begin(void);
void	commit(void);

/* --- tree-listen.c --- */

void	toggle_listener(struct seat *s);
void	leave_space(struct seat *s);
void	check_told(const struct seat *s, const struct mt_view *v);

/* --- tree-device.c --- */

extern const struct mt_io_ops dev_ops[DEV_OPS];
extern const struct mt_iommu_ops iommu_ops;
void	init_locks(void);
void	check_locks(void);
void	fence(struct node *n);
bool	takes(const struct node *n, mt_addr off, unsigned int size,
	    bool is_write);
bool	too_wide(const struct node *n, mt_addr off, unsigned int size);

/* --- tree-region.c --- */

struct node *pick(void);
mt_addr	pick_addr(void);
bool	is_memory(enum mt_kind kind);
void	create(struct node *n);
void	discard(struct node *n);
void	add(struct node *parent, struct node *child);
void	change(struct node *n);
void	create_more(struct node *n);
void	grow(struct node *n);
bool	is_root(const struct node *n);

/* --- tree-space.c --- */

struct seat *pick_seat(void);
void	seat_leave(struct seat *s);
void	toggle_space(struct seat *s);
void	hold(struct seat *s);
void	use(struct seat *s);
void	toggle_cache(struct seat *s);
void	use_cache(struct seat *s);

/* --- tree-dma.c --- */

void	unmap_list(struct list *l, size_t used);
void	toggle_map(struct seat *s);
void	toggle_list(struct seat *s);
void	bounce(struct seat *s);
void	check_budget(void);

/* --- tree-defer.c --- */

void	submit_one(struct seat *s);
void	complete(struct flight *f, enum mt_result res);
void	cancel(struct access *a);
void	drain(struct seat *s);

/* --- tree-extras.c --- */

void	init_pool(void);
void	read_pool(uint64_t got[POOL]);
void	count_signals(void);
int	pool_of(int fd);
void	set_event(struct node *n);
void	set_range(struct node *n);
size_t	merged(const struct node *n, struct mt_range out[RANGES]);
void	poke(struct seat *s, struct node *n);

/* --- tree-dirty.c --- */

void	set_log(struct node *n);
void	take_log(struct node *n);
void	logs_committed(void);
void	check_log(const struct node *n);
void	mark(struct node *n, mt_addr off, size_t len, bool surely);
/* What writes [addr, addr + len) by a view, NULL: the present one. */
void	wrote(struct seat *s, const struct mt_view *v, mt_addr addr,
	    size_t len, bool rom);
void	wrote_mapping(const struct mt_mapping *m, size_t used);
void	told_sync(void *arg, struct mt_space *sp, const struct mt_section *sec);
void	told_clear(void *arg, struct mt_space *sp,
	    const struct mt_section *sec);

#endif
