/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_TREE_H
#define T_FUZZ_TREE_H

/* What the parts of the fuzzer of trees share. */

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
#define DEPTH		3		/* of transactions */

struct node {
	struct mt_region *r;		/* NULL: none */
	struct node *target;		/* of an alias */
	uint64_t seq;			/* among equals, the highest wins */
};

struct seat {
	struct mt_space *sp;		/* NULL: none */
	struct node *root;
	struct mt_view *held;		/* some older view, or NULL */
	struct mt_listener l;
	bool listening;
	bool telling;
	struct mt_section mirror[MIRROR];
	size_t n;
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
	bool in_cache;			/* accesses go by its view */
	unsigned int nops;
};

extern struct world w;

/* --- tree-model.c --- */

struct answer	ask(const struct node *n, mt_addr off, unsigned int flags);
bool	same(const struct mt_section *a, const struct mt_section *b);
size_t	check_view(const struct mt_view *v, const struct seat *s);
void	check_all(void);

/* --- tree-listen.c --- */

void	toggle_listener(struct seat *s);

/* --- tree-device.c --- */

extern const struct mt_io_ops dev_ops[DEV_OPS];
extern const struct mt_iommu_ops iommu_ops;

/* --- tree-region.c --- */

struct node *pick(void);
mt_addr	pick_addr(void);
bool	is_memory(enum mt_kind kind);
void	create(struct node *n);
void	discard(struct node *n);
void	add(struct node *parent, struct node *child);
void	change(struct node *n);

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

#endif
