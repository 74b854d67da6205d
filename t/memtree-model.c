/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Random trees, changed at random, against a model that asks the tree who
 * answers at an offset.  It knows nothing of windows, views or clipping.  An
 * answer comes with how far it holds, so that after each change all 2^64
 * addresses are compared, in a few steps.  That this is true is looked at by
 * asking for each byte anew: always in the smallest worlds, at some moment in
 * the life of each other one.  Everything happens near the two ends of the
 * addresses, where arithmetic goes wrong.  IOMMUs lead from any place in one of
 * the spaces to any other, so also in circles.  Listeners settle: they change
 * one more region behind each commit.
 *
 * T_COUNT worlds are made from T_SEED, T_SEED + 1, ...; the one that fails is
 * named.
 */

#include <inttypes.h>
#include <time.h>

/* It is all computing, and has to share the machine. */
#define T_ALARM		300
#include "t/util.h"

#define NODES		32		/* at most */
#define MEMORY		0x300		/* bytes of a region with bytes */
#define SPACES		2
#define ENTRIES		8		/* of an IOMMU's table, which repeats */
#define SECTIONS	1024

/*
 * Of worlds: small ones, where much lies on top of each other, are quick to
 * make and to ask; in large ones trees of nodes have some depth.
 */
static const struct size {
	unsigned int share;		/* of all worlds, in 16ths */
	unsigned int nodes;		/* the last one is who settles' */
	unsigned int changes;		/* in the life of a world */
	unsigned int accesses;		/* after each, a space */
	mt_addr window;			/* where things are, at either end */
	mt_addr memory;			/* at most MEMORY */
	bool bytes;			/* each is asked for after each change */
} sizes[] = {
	{ 6, 7, 20, 4, 0x30, 0x28, true },
	{ 4, 9, 24, 6, 0x80, 0x60, false },
	{ 3, 9, 24, 6, 0x500, MEMORY, false },
	{ 2, 15, 40, 8, 0x500, MEMORY, false },
	{ 1, NODES, 48, 8, 0xa00, MEMORY, false },
};

struct world;

/* Where a page of an IOMMU leads; two may be one window, or one may be two. */
struct entry {
	unsigned int space;		/* SPACES: none */
	mt_addr addr;			/* low bits do not matter */
	mt_addr mask;
	unsigned int perm;
};

struct node {
	struct mt_region *r;		/* NULL: not there now */
	struct world *w;
	enum mt_kind kind;
	mt_addr last;
	mt_addr max_last;		/* of what has memory */
	bool enabled, readonly, nonvolatile, unmergeable, rom_mode;
	struct node *target;
	mt_addr alias_off;
	mt_addr page;			/* of an IOMMU */
	struct entry table[ENTRIES];
	struct node *parent;
	mt_addr addr;
	int prio;
	uint64_t seq;			/* among equals the highest wins */
	uint8_t memory[MEMORY];		/* what reading in place gives */
	uint8_t regs[MEMORY];		/* what the callbacks should have */
	uint8_t device[MEMORY];		/* what they have */
	uint8_t own[MEMORY];		/* host memory, unless it is mapped */
};

/* What a listener has been told, put together; ascending. */
struct told {
	struct world *w;
	struct mt_section sec[SECTIONS];
	size_t n;
	bool wrong;
};

/* A view that is kept while the tree changes, and what it was. */
struct kept {
	struct mt_view *v;		/* NULL: none */
	struct mt_section sec[SECTIONS];
	size_t n;
};

struct answer {
	struct node *n;			/* NULL: nobody */
	mt_addr off;
	mt_addr room;			/* bytes after it that are as it is */
	unsigned int flags;
	uint64_t way;			/* through which regions */
};

struct world {
	struct mt_topology *t;
	struct node node[NODES];
	uint64_t seq;
	uint64_t seed;
	struct mt_space *sp[SPACES];
	struct node *root[SPACES];
	struct mt_listener listener[SPACES];
	struct told told[SPACES];
	struct kept kept[SPACES];
	struct answer last[SPACES];	/* what was asked last */
	mt_addr last_addr[SPACES];
	bool asked[SPACES];		/* since the last change */
	unsigned int calls, model_calls;	/* of translate */
	unsigned int faults, model_faults;	/* that were to be reported */
	const struct size *size;
	unsigned int settles;		/* changes that may follow */
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void
wrong(struct world *w, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (w->failed)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	diag("%s", text);
	w->failed = true;
}

/* --- the model --------------------------------------------------------- */

static bool
wins(const struct node *a, const struct node *b)
{
	return (a->prio != b->prio ? a->prio > b->prio : a->seq > b->seq);
}

static void
limit(mt_addr *room, mt_addr to)
{
	if (*room > to)
		*room = to;
}

/*
 * Who answers at offset off of n?  Flags add up on the way; room is cut to
 * where the next thing begins or this one ends.
 */
static struct answer
ask(struct world *w, struct node *n, mt_addr off, mt_addr *room,
    unsigned int flags, uint64_t way)
{
	struct answer none = { .n = NULL }, best = none, a;
	struct node *c, *by = NULL;

	if (!n->enabled || off > n->last)
		return (none);
	limit(room, n->last - off);
	if (n->readonly || n->kind == MT_ROM)
		flags |= MT_SECTION_READONLY;
	if (n->nonvolatile)
		flags |= MT_SECTION_NONVOLATILE;
	if (n->unmergeable)
		flags |= MT_SECTION_UNMERGEABLE;
	way += (uint64_t)(n - w->node) + 1;
	(void)t_random(&way);
	for (c = w->node; c < w->node + w->size->nodes; c++) {
		if (c->parent != n || c->r == NULL ||
		    (by != NULL && wins(by, c)))
			continue;
		if (off < c->addr) {
			limit(room, c->addr - off - 1);
			continue;
		}
		a = ask(w, c, off - c->addr, room, flags, way);
		if (a.n != NULL) {
			best = a;
			by = c;
		}
	}
	if (best.n != NULL || n->kind == MT_CONTAINER)
		return (best);
	if (n->kind == MT_ALIAS) {
		if (off + n->alias_off < off)
			return (none);
		limit(room, MT_LAST_MAX - (off + n->alias_off));
		return (ask(w, n->target, off + n->alias_off, room, flags,
		    way));
	}
	if (n->kind == MT_ROM_DEVICE && n->rom_mode)
		flags |= MT_SECTION_ROM_MODE;
	return ((struct answer){ .n = n, .off = off, .flags = flags,
	    .way = way });
}

static struct answer
ask_anew(struct world *w, unsigned int s, mt_addr addr)
{
	mt_addr room = MT_LAST_MAX - addr;
	struct answer a = ask(w, w->root[s], addr, &room, 0, 0);

	a.room = room;
	return (a);
}

/* An answer, taken so many bytes further on. */
static struct answer
later(struct answer a, mt_addr by)
{
	if (a.n != NULL)
		a.off += by;
	a.room -= by;
	return (a);
}

/* The same, from the last answer if that reaches so far. */
static struct answer
at(struct world *w, unsigned int s, mt_addr addr)
{
	if (!w->asked[s] || addr - w->last_addr[s] > w->last[s].room) {
		w->last[s] = ask_anew(w, s, addr);
		w->last_addr[s] = addr;
		w->asked[s] = true;
	}
	return (later(w->last[s], addr - w->last_addr[s]));
}

static bool
is_memory(const struct answer *a)
{
	return (a->n != NULL && (a->n->kind == MT_RAM ||
	    a->n->kind == MT_ROM || a->n->kind == MT_RAM_DEVICE ||
	    (a->flags & MT_SECTION_ROM_MODE) != 0));
}

static bool
is_writable_memory(const struct answer *a)
{
	return (a->n != NULL &&
	    (a->n->kind == MT_RAM || a->n->kind == MT_RAM_DEVICE) &&
	    (a->flags & MT_SECTION_READONLY) == 0);
}

/* Is it lent in place?  A RAM device is not. */
static bool
is_lent(const struct answer *a, bool is_write)
{
	return ((is_write ? is_writable_memory(a) : is_memory(a)) &&
	    a->n->kind != MT_RAM_DEVICE);
}

static bool
is_device(const struct answer *a)
{
	return (a->n != NULL &&
	    (a->n->kind == MT_IO || a->n->kind == MT_ROM_DEVICE));
}

static bool
is_iommu(const struct answer *a)
{
	return (a->n != NULL && a->n->kind == MT_IOMMU);
}

/* Is b, so many bytes further on, in the same section as a? */
static bool
goes_on(const struct answer *a, const struct answer *b, mt_addr by)
{
	return (b->n == a->n && b->flags == a->flags && b->off == a->off + by &&
	    ((a->flags & MT_SECTION_UNMERGEABLE) == 0 || b->way == a->way));
}

/* Where an access goes on that meets an IOMMU, and how much of it. */
struct onward {
	enum mt_result res;		/* else nothing goes on */
	unsigned int s;
	mt_addr addr;
	mt_addr room;
};

static struct onward
onward(struct world *w, unsigned int s, mt_addr addr, struct answer a,
    bool is_write, unsigned int depth)
{
	unsigned int need = is_write ? MT_IOMMU_WRITE : MT_IOMMU_READ;
	mt_addr page = a.n->page, window = page - 1, room = a.room;
	const struct entry *e = &a.n->table[a.off / page % ENTRIES];
	struct onward o = { .res = MT_OK };
	struct answer b;

	if (depth == MT_IOMMU_DEPTH ||
	    (is_write && (a.flags & MT_SECTION_READONLY) != 0)) {
		o.res = MT_DECODE;
		return (o);
	}
	w->model_calls++;
	if ((e->mask & (e->mask + 1)) != 0)
		o.res = MT_DEVICE;
	else if ((e->perm & need) == 0) {
		o.res = MT_DENIED;
		w->model_faults++;
	} else if (e->space == SPACES)
		o.res = MT_DEVICE;
	/* A fault is one of the smallest page at least. */
	if (o.res == MT_OK || e->mask == 2 * page - 1)
		window = e->mask;
	o.room = window - (a.off & window);
	/* No further than the section. */
	while (room < o.room && addr + room != MT_LAST_MAX) {
		b = at(w, s, addr + room + 1);
		if (!goes_on(&a, &b, room + 1))
			break;
		room += b.room + 1;
	}
	limit(&o.room, room);
	if (e->mask == 2 * page - 1)
		page *= 2;
	o.s = e->space;
	o.addr = e->addr / page * page + a.off % page;
	return (o);
}

/* What is at the end of all translations. */
struct end {
	enum mt_result res;		/* else there is none */
	struct answer a;
	mt_addr room;			/* as far as one translation covers */
	bool translated;
};

static struct end
find_end(struct world *w, unsigned int s, mt_addr addr, bool is_write)
{
	struct end end = { .res = MT_OK, .room = MT_LAST_MAX };
	unsigned int depth;
	struct onward o;

	for (depth = 0;; depth++) {
		end.a = at(w, s, addr);
		if (!is_iommu(&end.a))
			return (end);
		o = onward(w, s, addr, end.a, is_write, depth);
		end.translated = true;
		end.res = o.res;
		if (o.res != MT_OK)
			return (end);
		limit(&end.room, o.room);
		s = o.s;
		addr = o.addr;
	}
}

/* Does n contain or show x, at any depth? */
static bool
reaches(struct world *w, const struct node *n, const struct node *x)
{
	const struct node *c;

	if (n == x || (n->kind == MT_ALIAS && reaches(w, n->target, x)))
		return (true);
	for (c = w->node; c < w->node + w->size->nodes; c++)
		if (c->r != NULL && c->parent == n && reaches(w, c, x))
			return (true);
	return (false);
}

/* --- regions ----------------------------------------------------------- */

static mt_addr
w_memory(const struct node *n)
{
	return (n->w->size->memory);
}

/* Devices have one byte in each register, so that all goes by bytes. */
static enum mt_result
reg_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct node *n = arg;

	(void)attrs;
	if (size != 1 || off > n->last)
		wrong(n->w, "callback read %" PRIx64 "/%u", off, size);
	*val = n->device[off % w_memory(n)];
	return (MT_OK);
}

static enum mt_result
reg_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct node *n = arg;

	(void)attrs;
	if (size != 1 || off > n->last || val > 0xff)
		wrong(n->w, "callback write %" PRIx64 "/%u=%" PRIx64, off,
		    size, val);
	n->device[off % w_memory(n)] = (uint8_t)val;
	return (MT_OK);
}

static const struct mt_io_ops byte_ops = {
	.read = reg_read,
	.write = reg_write,
	.valid = { 1, 1, false },
	.impl = { 1, 1, false },
};

/* What the library asks; of this the model shares the table alone. */
static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	struct node *n = arg;
	const struct entry *e = &n->table[off / n->page % ENTRIES];
	mt_addr in_page = n->page - 1;

	(void)attrs;
	if (off > n->last)
		wrong(n->w, "translation of %" PRIx64, off);
	if ((flags & MT_IOMMU_QUIET) == 0) {
		n->w->calls++;
		if ((e->mask & (e->mask + 1)) == 0 && (flags & ~e->perm) != 0)
			n->w->faults++;
	}
	out->target = e->space < SPACES ? n->w->sp[e->space] : NULL;
	out->mask = e->mask;
	out->perm = e->perm;
	out->addr = e->addr;
	/* Half of a page, or nonsense. */
	if (e->mask < in_page)
		out->addr = (e->addr & ~in_page) | (off & in_page);
	out->addr ^= e->mask & 0x5555;
}

static mt_addr
min_page(void *arg)
{
	return (((struct node *)arg)->page);
}

static const struct mt_iommu_ops iommu_ops = {
	.translate = translate,
	.min_page = min_page,
};

static struct node *
pick(struct world *w)
{
	struct node *n;

	do
		n = &w->node[t_below(&w->seed, w->size->nodes - 1)];
	while (n->r == NULL);
	return (n);
}

/* An address or offset near one of the two ends of all, or beside others. */
static mt_addr
pick_addr(struct world *w)
{
	mt_addr near = t_below(&w->seed, w->size->window);
	const struct node *n;

	switch (t_below(&w->seed, 12)) {
	case 0:
		return (MT_LAST_MAX - near);
	case 1:
		return (MT_LAST_MAX - near % 16);
	case 2:
		return (0);
	case 3:
	case 4:
		n = pick(w);
		return (n->addr + n->last + t_below(&w->seed, 3));
	case 5:
		n = pick(w);
		return (n->addr + t_below(&w->seed, 3) - 1);
	case 6:
		return (near & ~(w->size->window / 8 - 1));
	default:
		return (near);
	}
}

/* Has it memory? */
static bool
is_limited(enum mt_kind kind)
{
	return (kind == MT_RAM || kind == MT_ROM || kind == MT_ROM_DEVICE ||
	    kind == MT_RAM_DEVICE);
}

static mt_addr
pick_last(struct world *w, enum mt_kind kind)
{
	bool limited = is_limited(kind);

	if (!limited && t_below(&w->seed, 4) == 0)
		return (t_below(&w->seed, 2) == 0 ? MT_LAST_MAX :
		    MT_LAST_MAX - t_below(&w->seed, w->size->window));
	return (t_below(&w->seed, limited ? w->size->memory :
	    w->size->window));
}

static void
fill(struct world *w, uint8_t bytes[MEMORY])
{
	uint64_t val;
	size_t i;

	for (i = 0; i < w->size->memory; i += sizeof(val)) {
		val = t_random(&w->seed);
		memcpy(bytes + i, &val, sizeof(val));
	}
}

static void
fill_entry(struct world *w, struct node *n, unsigned int i)
{
	static const unsigned int perms[] = { 0, MT_IOMMU_READ,
	    MT_IOMMU_WRITE, 3, 3, 3, 3, 3 };
	struct entry *e = &n->table[i], *other = &n->table[i ^ 1];

	e->space = t_below(&w->seed, 16) == 0 ? SPACES :
	    (unsigned int)t_below(&w->seed, SPACES);
	e->addr = pick_addr(w);
	e->perm = perms[t_below(&w->seed, T_COUNT(perms))];
	e->mask = n->page - 1;
	if (other->mask > e->mask)
		other->mask = e->mask;
	switch (t_below(&w->seed, 16)) {
	case 0:				/* not a mask */
		e->mask--;
		break;
	case 1:
	case 2:
		e->mask /= 2;
		break;
	case 3:
	case 4:
	case 5:
		e->mask = 2 * n->page - 1;
		*other = *e;
		break;
	}
}

static void
create(struct world *w, struct node *n, enum mt_kind kind)
{
	struct mt_backing backing = { .kind = MT_BACKING_ANON };
	unsigned int i;
	char name[8];

	snprintf(name, sizeof(name), "n%zu", (size_t)(n - w->node));
	memset(n, 0, offsetof(struct node, memory));
	n->w = w;
	n->kind = kind;
	n->enabled = true;
	n->rom_mode = kind == MT_ROM_DEVICE;
	n->last = n->max_last = pick_last(w, kind);
	if (is_limited(kind) && t_below(&w->seed, 2) == 0)
		n->max_last += t_below(&w->seed, w->size->memory - n->last);
	backing.max_last = n->max_last;
	/* Mapping memory takes longer than all else here. */
	if (t_below(&w->seed, 8) != 0) {
		backing.kind = MT_BACKING_PTR;
		backing.ptr = n->own;
	}
	fill(w, n->memory);
	fill(w, n->regs);
	memcpy(n->device, n->regs, MEMORY);
	switch (kind) {
	case MT_CONTAINER:
		n->r = mt_region_create_container(w->t, name, n->last);
		break;
	case MT_ALIAS:
		n->target = pick(w);
		n->alias_off = pick_addr(w);
		n->r = mt_region_create_alias(w->t, name, n->target->r,
		    n->alias_off, n->last);
		break;
	case MT_RAM:
		n->r = mt_region_create_ram(w->t, name, n->last, &backing);
		break;
	case MT_ROM:
		n->r = mt_region_create_rom(w->t, name, n->last, &backing);
		break;
	case MT_ROM_DEVICE:
		n->r = mt_region_create_rom_device(w->t, name, n->last,
		    &backing, &byte_ops, n);
		break;
	case MT_RAM_DEVICE:
		n->r = mt_region_create_ram_device(w->t, name, n->last,
		    &backing);
		break;
	case MT_IO:
		n->r = mt_region_create_io(w->t, name, n->last, &byte_ops, n);
		break;
	case MT_RESERVED:
		n->r = mt_region_create_reserved(w->t, name, n->last);
		break;
	case MT_IOMMU:
		n->page = (mt_addr)4 << t_below(&w->seed, 4);
		for (i = 0; i < ENTRIES; i++)
			fill_entry(w, n, i);
		n->r = mt_region_create_iommu(w->t, name, n->last, &iommu_ops,
		    n);
		break;
	}
	must(n->r != NULL);
	if (mt_region_ptr(n->r) != NULL)
		memcpy(mt_region_ptr(n->r), n->memory,
		    (size_t)n->max_last + 1);
}

static enum mt_kind
pick_kind(struct world *w)
{
	static const enum mt_kind kinds[] = { MT_CONTAINER, MT_CONTAINER,
	    MT_ALIAS, MT_ALIAS, MT_ALIAS, MT_RAM, MT_RAM, MT_ROM,
	    MT_ROM_DEVICE, MT_RAM_DEVICE, MT_IO, MT_IO, MT_RESERVED,
	    MT_IOMMU };

	return (kinds[t_below(&w->seed, T_COUNT(kinds))]);
}

/* --- changes ----------------------------------------------------------- */

static void
expect(struct world *w, const char *what, const struct node *n, int ret,
    int error)
{
	int got = ret == -1 ? errno : 0;

	if (got != error)
		wrong(w, "%s of n%zu: got errno %d, expected %d", what,
		    (size_t)(n - w->node), got, error);
}

static void
change_add(struct world *w)
{
	struct node *parent = pick(w), *child = pick(w);
	static const int prios[] = { 0, 0, 0, 1, -1, INT32_MAX, INT32_MIN };
	int prio = prios[t_below(&w->seed, T_COUNT(prios))], error = 0;
	mt_addr addr = pick_addr(w);

	if (child->parent != NULL)
		error = EBUSY;
	else if (reaches(w, child, parent))
		error = ELOOP;
	expect(w, "add", child,
	    mt_region_add(parent->r, child->r, addr, prio), error);
	if (error != 0)
		return;
	child->parent = parent;
	child->addr = addr;
	child->prio = prio;
	child->seq = ++w->seq;
}

static void
change_del(struct world *w)
{
	struct node *n = pick(w);

	expect(w, "del", n, mt_region_del(n->r),
	    n->parent == NULL ? ENOENT : 0);
	n->parent = NULL;
}

static void
change_move(struct world *w)
{
	struct node *n = pick(w);
	mt_addr addr = t_below(&w->seed, 8) == 0 ? n->addr : pick_addr(w);

	expect(w, "move", n, mt_region_move(n->r, addr),
	    n->parent == NULL ? ENOENT : 0);
	if (n->parent == NULL || addr == n->addr)
		return;
	n->addr = addr;
	n->seq = ++w->seq;
}

static void
change_size(struct world *w)
{
	struct node *n = pick(w);
	mt_addr last = pick_last(w, n->kind);
	bool too_large = mt_region_ptr(n->r) != NULL &&
	    last > n->max_last;

	expect(w, "resize", n, mt_region_resize(n->r, last),
	    too_large ? EINVAL : 0);
	if (!too_large)
		n->last = last;
}

static void
change_flag(struct world *w)
{
	struct node *n = pick(w);
	bool val = t_below(&w->seed, 2) == 0;

	switch (t_below(&w->seed, 6)) {
	case 0:
	case 1:
		val = val || t_below(&w->seed, 2) == 0;
		expect(w, "enable", n, mt_region_set_enabled(n->r, val), 0);
		n->enabled = val;
		break;
	case 2:
		expect(w, "readonly", n, mt_region_set_readonly(n->r, val),
		    n->kind == MT_ROM && !val ? EINVAL : 0);
		n->readonly = val;
		break;
	case 3:
		expect(w, "nonvolatile", n,
		    mt_region_set_nonvolatile(n->r, val), 0);
		n->nonvolatile = val;
		break;
	case 4:
		expect(w, "ROM mode", n, mt_region_set_rom_mode(n->r, val),
		    n->kind == MT_ROM_DEVICE ? 0 : EINVAL);
		n->rom_mode = n->kind == MT_ROM_DEVICE && val;
		break;
	case 5:
		expect(w, "unmergeable", n,
		    mt_region_set_unmergeable(n->r, val), 0);
		n->unmergeable = val;
		break;
	}
}

static void
change_alias(struct world *w)
{
	struct node *n = pick(w);
	mt_addr off = pick_addr(w);

	expect(w, "alias offset", n, mt_region_set_alias_offset(n->r, off),
	    n->kind == MT_ALIAS ? 0 : EINVAL);
	n->alias_off = off;
}

/* An alias right on top of a part of its target. */
static void
change_overlay(struct world *w)
{
	struct node *n = pick(w);
	struct node *on = n->target;
	mt_addr off;

	if (on == NULL || on->parent == NULL || n->parent != NULL ||
	    reaches(w, n, on->parent))
		return;
	off = t_below(&w->seed, w->size->memory);
	expect(w, "alias offset", n,
	    mt_region_set_alias_offset(n->r, off), 0);
	n->nonvolatile = t_below(&w->seed, 2) == 0;
	expect(w, "nonvolatile", n,
	    mt_region_set_nonvolatile(n->r, n->nonvolatile), 0);
	expect(w, "overlay", n, mt_region_add(on->parent->r, n->r,
	    on->addr + off, on->prio), 0);
	n->alias_off = off;
	n->parent = on->parent;
	n->addr = on->addr + off;
	n->prio = on->prio;
	n->seq = ++w->seq;
}

/* Another region in place of one that nothing hangs on. */
static void
change_region(struct world *w)
{
	struct node *n = pick(w), *c;

	for (c = w->node; c < w->node + w->size->nodes; c++)
		if (c->r != NULL && (c->parent == n || c->target == n))
			return;
	if (n == w->root[0] || n == w->root[1])
		return;
	if (n->parent != NULL)
		expect(w, "del", n, mt_region_del(n->r), 0);
	mt_region_put(n->r);
	n->r = NULL;
	create(w, n, pick_kind(w));
}

/* Where an IOMMU leads is nobody's business but its own. */
static void
change_table(struct world *w)
{
	struct node *n = pick(w);

	if (n->kind == MT_IOMMU)
		fill_entry(w, n, (unsigned int)t_below(&w->seed, ENTRIES));
}

static void
change(struct world *w)
{
	static void (*const changes[])(struct world *) = {
		change_add, change_add, change_add, change_del, change_move,
		change_move, change_size, change_flag, change_flag,
		change_alias, change_overlay, change_region, change_table,
	};

	changes[t_below(&w->seed, T_COUNT(changes))](w);
	memset(w->asked, 0, sizeof(w->asked));
}

/* --- what is seen ------------------------------------------------------ */

static bool
same_section(const struct mt_section *a, const struct mt_section *b)
{
	return (a->range.first == b->range.first &&
	    a->range.last == b->range.last && a->region == b->region &&
	    a->off == b->off && a->flags == b->flags);
}

static bool
agrees(const struct answer *a, const struct mt_section *sec, mt_addr addr)
{
	if (sec == NULL || addr < sec->range.first)
		return (a->n == NULL);
	return (a->n != NULL && a->n->r == sec->region &&
	    a->off == sec->off + (addr - sec->range.first) &&
	    a->flags == sec->flags);
}

/* Compare an answer, and all of its room if it is not just for one byte. */
static void
check_answer(struct world *w, unsigned int s, const struct mt_view *v,
    mt_addr addr, struct answer a, bool all)
{
	struct mt_section sec;
	bool is = mt_view_next(v, addr, &sec);
	bool right = agrees(&a, is ? &sec : NULL, addr);

	if (right && all && a.n != NULL)
		right = sec.range.last - addr >= a.room;
	else if (right && all && is)
		right = sec.range.first - addr > a.room;
	/* What is unmergeable is seen in one way in all of a section. */
	if (right && (a.flags & MT_SECTION_UNMERGEABLE) != 0)
		right = ask_anew(w, s, sec.range.first).way == a.way;
	if (!right)
		wrong(w, "space %u at %" PRIx64 ": expected %s+%" PRIx64
		    " flags %x to %" PRIx64 ", got %s+%" PRIx64 " flags %x "
		    "to %" PRIx64, s, addr, a.n != NULL ?
		    mt_region_name(a.n->r) : "nothing", a.off, a.flags,
		    all ? addr + a.room : addr, is && sec.range.first <= addr ?
		    mt_region_name(sec.region) : "nothing",
		    is ? sec.off + (addr - sec.range.first) : 0,
		    is ? sec.flags : 0, is ? sec.range.last : 0);
}

/* All addresses that there are. */
static void
check_all(struct world *w, unsigned int s, const struct mt_view *v)
{
	struct answer a;
	mt_addr addr;

	for (addr = 0; !w->failed; addr += a.room + 1) {
		a = ask_anew(w, s, addr);
		check_answer(w, s, v, addr, a, true);
		if (a.room == MT_LAST_MAX - addr)
			break;
	}
}

/* Bytes, each asked for; and does the model keep what it says of room? */
static void
check_bytes(struct world *w, unsigned int s, const struct mt_view *v,
    mt_addr first, mt_addr last)
{
	struct answer a, run = { .room = 0 };
	mt_addr addr, began = first;

	for (addr = first; !w->failed; addr++) {
		a = ask_anew(w, s, addr);
		check_answer(w, s, v, addr, a, false);
		if (addr == first || addr - began > run.room) {
			run = a;
			began = addr;
		} else if (a.n != run.n || a.flags != run.flags ||
		    a.way != run.way || (a.n != NULL && a.off != run.off + (addr - began)))
			wrong(w, "the model is wrong at %" PRIx64, addr);
		if (addr == last)
			break;
	}
}

static void
check_told(struct world *w, unsigned int s, const struct mt_view *v)
{
	struct told *told = &w->told[s];
	struct mt_section sec;
	mt_addr next = 0;
	size_t i;

	if (told->wrong)
		wrong(w, "space %u: told a del of what was not there", s);
	if (told->n != mt_view_count(v))
		wrong(w, "space %u: told of %zu sections, has %zu", s,
		    told->n, mt_view_count(v));
	for (i = 0; !w->failed && mt_view_next(v, next, &sec); i++) {
		if (!same_section(&told->sec[i], &sec))
			wrong(w, "space %u: not told of %" PRIx64 "-%" PRIx64,
			    s, sec.range.first, sec.range.last);
		if ((next = sec.range.last + 1) == 0)
			break;
	}
}

/*
 * Should b be a part of a?  What is unmergeable is a section as far as it is
 * seen in one way.
 */
static bool
continues(struct world *w, unsigned int s, const struct mt_section *a,
    const struct mt_section *b)
{
	return (a->range.last + 1 == b->range.first &&
	    a->region == b->region && a->flags == b->flags &&
	    a->off + (b->range.first - a->range.first) == b->off &&
	    ((a->flags & MT_SECTION_UNMERGEABLE) == 0 ||
	    at(w, s, a->range.last).way == at(w, s, b->range.first).way));
}

/* A view that was taken some changes ago is what it was. */
static void
check_kept(struct world *w, unsigned int s)
{
	struct kept *k = &w->kept[s];
	struct mt_section sec;
	mt_addr next = 0;
	size_t n = 0;

	if (k->v == NULL)
		return;
	while (!w->failed && mt_view_next(k->v, next, &sec)) {
		if (n == k->n || !same_section(&k->sec[n], &sec))
			wrong(w, "space %u: a view that is kept changes at %"
			    PRIx64, s, sec.range.first);
		n++;
		if ((next = sec.range.last + 1) == 0)
			break;
	}
	if (n != k->n)
		wrong(w, "space %u: a view that is kept loses sections", s);
	mt_view_put(k->v);
	k->v = NULL;
}

static void
keep(struct world *w, unsigned int s)
{
	struct kept *k = &w->kept[s];
	mt_addr next = 0;

	k->v = mt_space_view(w->sp[s]);
	for (k->n = 0; k->n < SECTIONS &&
	    mt_view_next(k->v, next, &k->sec[k->n]); k->n++)
		if ((next = k->sec[k->n].range.last + 1) == 0) {
			k->n++;
			break;
		}
}

static void
check_view(struct world *w, unsigned int s, bool bytes)
{
	struct mt_view *v = mt_space_view(w->sp[s]);
	struct mt_section sec, prev = { .region = NULL };
	mt_addr next = 0, addr;
	size_t n = 0;
	int i;

	while (!w->failed && mt_view_next(v, next, &sec)) {
		if (sec.range.first < next || sec.range.last < sec.range.first)
			wrong(w, "space %u: sections overlap", s);
		if (n > 0 && continues(w, s, &prev, &sec))
			wrong(w, "space %u: neighbours are not merged at %"
			    PRIx64, s, sec.range.first);
		prev = sec;
		n++;
		if ((next = sec.range.last + 1) == 0)
			break;
	}
	if (n != mt_view_count(v) && !w->failed)
		wrong(w, "space %u: counted %zu of %zu", s, mt_view_count(v),
		    n);
	check_all(w, s, v);
	/* Anywhere: what finds its way down from no edge. */
	for (i = 0; i < 8 && !w->failed; i++) {
		addr = pick_addr(w);
		check_answer(w, s, v, addr, ask_anew(w, s, addr), true);
	}
	if (bytes) {
		check_bytes(w, s, v, 0, w->size->window * 2);
		check_bytes(w, s, v, MT_LAST_MAX - w->size->window,
		    MT_LAST_MAX);
	}
	check_told(w, s, v);
	mt_view_put(v);
	if (t_below(&w->seed, 4) == 0) {
		check_kept(w, s);
		keep(w, s);
	}
}

/* Where sec is in what was told, or would be. */
static size_t
place_of(const struct told *told, const struct mt_section *sec)
{
	size_t i = told->n;

	while (i > 0 && told->sec[i - 1].range.first >= sec->range.first)
		i--;
	return (i);
}

static void
told_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct told *told = arg;
	size_t i = place_of(told, sec);

	(void)sp;
	must(told->n < SECTIONS);
	memmove(&told->sec[i + 1], &told->sec[i],
	    (told->n - i) * sizeof(told->sec[0]));
	told->sec[i] = *sec;
	told->n++;
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct told *told = arg;
	size_t i = place_of(told, sec);

	(void)sp;
	if (i == told->n || !same_section(&told->sec[i], sec)) {
		told->wrong = true;
		return;
	}
	told->n--;
	memmove(&told->sec[i], &told->sec[i + 1],
	    (told->n - i) * sizeof(told->sec[0]));
}

/* --- accesses ---------------------------------------------------------- */

static mt_addr
pick_window(struct world *w)
{
	mt_addr near = t_below(&w->seed, w->size->window);

	return (t_below(&w->seed, 4) == 0 ? MT_LAST_MAX - near : near);
}

/*
 * How many bytes of an access are lost where it meets a hole: what a device
 * without limits would be given in one step.
 */
static size_t
hole_step(mt_addr addr, size_t len)
{
	size_t step = 4;

	while (step > 1 && (step > len || (addr & (step - 1)) != 0))
		step /= 2;
	return (step);
}

/* What an access should do; what it reads is zero before. */
static unsigned int
model_access(struct world *w, unsigned int s, mt_addr addr, uint8_t *buf,
    size_t len, bool is_write, unsigned int depth)
{
	unsigned int res = MT_OK;
	struct onward o;
	struct answer a;
	uint8_t *byte;
	size_t i, n;

	for (i = 0; i < len; i += n) {
		n = 1;
		if (addr + i < addr)
			return (res | MT_DECODE);
		a = at(w, s, addr + i);
		if (is_iommu(&a)) {
			o = onward(w, s, addr + i, a, is_write, depth);
			n = o.room < len - i ? (size_t)o.room + 1 : len - i;
			res |= o.res != MT_OK ? o.res : model_access(w, o.s,
			    o.addr, buf + i, n, is_write, depth + 1);
			continue;
		}
		if (is_write ? is_writable_memory(&a) : is_memory(&a))
			byte = &a.n->memory[a.off];
		else if (is_device(&a))
			byte = &a.n->regs[a.off % w->size->memory];
		else {
			res |= MT_DECODE;
			if (a.n == NULL)
				n = hole_step(addr + i, len - i);
			continue;
		}
		if (is_write)
			*byte = buf[i];
		else
			buf[i] = *byte;
	}
	return (res);
}

static unsigned int
model_read(struct world *w, unsigned int s, mt_addr addr, uint8_t *buf,
    size_t len)
{
	memset(buf, 0, len);
	return (model_access(w, s, addr, buf, len, false, 0));
}

/* One question for each piece of an access, and one report of a fault. */
static void
check_questions(struct world *w, unsigned int s, const char *what,
    mt_addr addr, size_t len)
{
	if (w->calls != w->model_calls || w->faults != w->model_faults)
		wrong(w, "space %u, %s %" PRIx64 "/%zu: %u translations, "
		    "%u faults, expected %u, %u", s, what, addr, len, w->calls,
		    w->faults, w->model_calls, w->model_faults);
}

/* Is there a device behind read-only?  What its writes do is not promised. */
static bool
has_readonly_device(struct world *w, unsigned int s, mt_addr addr, size_t len)
{
	struct end end;
	size_t i;

	for (i = 0; i < len; i++) {
		end = find_end(w, s, addr + i, true);
		if (end.res == MT_OK && is_device(&end.a) &&
		    (end.a.flags & MT_SECTION_READONLY) != 0)
			return (true);
	}
	return (false);
}

static void
check_read(struct world *w, unsigned int s, mt_addr addr, size_t len)
{
	unsigned int res, expected;
	uint8_t got[64], want[64];

	w->calls = w->faults = w->model_calls = w->model_faults = 0;
	res = mt_space_read(w->sp[s], addr, got, len, MT_ATTRS_NONE);
	expected = model_read(w, s, addr, want, len);
	check_questions(w, s, "read", addr, len);
	if (res != expected || memcmp(got, want, len) != 0)
		wrong(w, "space %u, read %" PRIx64 "/%zu: got %u %s, "
		    "expected %u %s", s, addr, len, res, t_hex(got, len),
		    expected, t_hex(want, len));
}

static void
check_write(struct world *w, unsigned int s, mt_addr addr, size_t len)
{
	unsigned int res, expected;
	struct node *n;
	uint8_t buf[64];
	size_t i;

	if (has_readonly_device(w, s, addr, len))
		return;
	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)t_random(&w->seed);
	w->calls = w->faults = w->model_calls = w->model_faults = 0;
	res = mt_space_write(w->sp[s], addr, buf, len, MT_ATTRS_NONE);
	expected = model_access(w, s, addr, buf, len, true, 0);
	check_questions(w, s, "write", addr, len);
	if (res != expected)
		wrong(w, "space %u, write %" PRIx64 "/%zu: got %u, "
		    "expected %u", s, addr, len, res, expected);
	for (n = w->node; n < w->node + w->size->nodes; n++) {
		if (memcmp(n->device, n->regs, w->size->memory) != 0)
			wrong(w, "space %u, write %" PRIx64 "/%zu: registers "
			    "of %s", s, addr, len, mt_region_name(n->r));
		if (mt_region_ptr(n->r) != NULL &&
		    memcmp(mt_region_ptr(n->r), n->memory,
		    (size_t)n->max_last + 1) != 0)
			wrong(w, "space %u, write %" PRIx64 "/%zu: memory "
			    "of %s", s, addr, len, mt_region_name(n->r));
	}
}

static void
check_valid(struct world *w, unsigned int s, mt_addr addr, size_t len,
    bool is_write)
{
	bool expected = true;
	struct end end;
	size_t i;

	if (is_write && has_readonly_device(w, s, addr, len))
		return;
	for (i = 0; i < len && expected; i++) {
		end = find_end(w, s, addr + i, is_write);
		expected = addr + i >= addr && end.res == MT_OK &&
		    (is_device(&end.a) || (is_write ?
		    is_writable_memory(&end.a) : is_memory(&end.a)));
	}
	if (mt_space_valid(w->sp[s], addr, len, is_write, MT_ATTRS_NONE) !=
	    expected)
		wrong(w, "space %u, %s %" PRIx64 "/%zu is%s valid", s,
		    is_write ? "write" : "read", addr, len,
		    expected ? "" : " not");
}

static void
check_find(struct world *w, unsigned int s, mt_addr addr, size_t len)
{
	struct mt_range range = { addr, addr + len - 1 };
	struct mt_section got, want = { .region = NULL };
	struct answer a;
	uint64_t way = 0;
	mt_addr i;

	if (range.last < addr)
		range.last = MT_LAST_MAX;
	for (i = range.first; i >= addr && i <= range.last; i++) {
		a = at(w, s, i);
		if (want.region == NULL && a.n != NULL) {
			way = a.way;
			want = (struct mt_section){ { i, i }, a.n->r, a.off,
			    a.flags };
		} else if (want.region != NULL) {
			if (!agrees(&a, &want, i) || (a.way != way &&
			    (a.flags & MT_SECTION_UNMERGEABLE) != 0))
				break;
			want.range.last = i;
		}
	}
	if (mt_space_find(w->sp[s], range, &got) == -1) {
		if (errno != ENOENT || want.region != NULL)
			wrong(w, "space %u, find %" PRIx64 "-%" PRIx64
			    ": got errno %d", s, addr, range.last, errno);
		return;
	}
	if (!same_section(&got, &want))
		wrong(w, "space %u, find %" PRIx64 "-%" PRIx64 ": got %"
		    PRIx64 "-%" PRIx64 " %s", s, addr, range.last,
		    got.range.first, got.range.last,
		    mt_region_name(got.region));
	mt_region_put(got.region);
}

/* How much is lent in place, where end is. */
static size_t
lent_len(struct world *w, unsigned int s, mt_addr addr, size_t len,
    bool is_write, const struct end *end)
{
	struct end next;
	size_t n;

	for (n = 1; n < len && addr + n >= addr; n++) {
		next = find_end(w, s, addr + n, is_write);
		if (next.res != MT_OK || next.a.n != end->a.n ||
		    next.a.off != end->a.off + n ||
		    next.translated != end->translated ||
		    !is_lent(&next.a, is_write))
			break;
	}
	return (n);
}

/* What stands in for it elsewhere. */
static void
check_bounced(struct world *w, unsigned int s, mt_addr addr, size_t len,
    bool is_write, const struct mt_mapping *map, const struct end *end)
{
	uint8_t want[64];
	size_t n = len;

	if (!map->bounced || map->len > len || map->len == 0)
		wrong(w, "space %u, map %" PRIx64 "/%zu: got %zu", s, addr,
		    len, map->len);
	if (addr + len - 1 < addr)
		n = (size_t)(MT_LAST_MAX - addr) + 1;
	if (end->room < n)
		n = (size_t)end->room + 1;
	if (is_device(&end->a) ? map->len != n : map->len > n)
		wrong(w, "space %u, map %" PRIx64 "/%zu: got %zu of %zu", s,
		    addr, len, map->len, n);
	if (!is_write && !w->failed &&
	    (map->result != model_read(w, s, addr, want, map->len) ||
	    memcmp(map->ptr, want, map->len) != 0))
		wrong(w, "space %u, map %" PRIx64 "/%zu: filled with %s", s,
		    addr, len, t_hex(map->ptr, map->len));
}

static void
check_map(struct world *w, unsigned int s, mt_addr addr, size_t len,
    bool is_write)
{
	struct end end = find_end(w, s, addr, is_write);
	struct answer *a = &end.a;
	struct mt_mapping map;
	bool none = end.res != MT_OK || a->n == NULL ||
	    a->n->kind == MT_RESERVED;
	size_t n;

	w->faults = 0;
	if (mt_dma_map(w->sp[s], addr, len, is_write ? MT_DMA_WRITE :
	    MT_DMA_READ, MT_ATTRS_NONE, &map) == -1) {
		if (errno != EFAULT || !none || map.result != end.res)
			wrong(w, "space %u, map %" PRIx64 "/%zu: got errno "
			    "%d, result %u", s, addr, len, errno, map.result);
		if (w->faults != (end.res == MT_DENIED))
			wrong(w, "space %u, map %" PRIx64 "/%zu: result %u, "
			    "%u faults", s, addr, len, end.res, w->faults);
		return;
	}
	if (none)
		wrong(w, "space %u, map %" PRIx64 ": nothing to map", s, addr);
	else if (is_lent(a, is_write)) {
		n = lent_len(w, s, addr, len, is_write, &end);
		if (map.bounced || map.len != n || w->faults != 0 ||
		    map.ptr != (uint8_t *)mt_region_ptr(a->n->r) + a->off)
			wrong(w, "space %u, map %" PRIx64 "/%zu: got %zu and "
			    "%u faults, expected %zu in place", s, addr, len,
			    map.len, w->faults, n);
	} else
		check_bounced(w, s, addr, len, is_write, &map, &end);
	if (mt_dma_unmap(&map, 0) == -1)
		wrong(w, "space %u, unmap %" PRIx64 "/%zu", s, addr, len);
}

static void
check_accesses(struct world *w, unsigned int s)
{
	unsigned int i;
	bool is_write;
	mt_addr addr;
	size_t len;

	for (i = 0; i < w->size->accesses && !w->failed; i++) {
		addr = pick_window(w);
		len = 1 + t_below(&w->seed, 64);
		is_write = t_below(&w->seed, 2) == 0;
		switch (t_below(&w->seed, 5)) {
		case 0:
			check_read(w, s, addr, len);
			break;
		case 1:
			check_write(w, s, addr, len);
			break;
		case 2:
			check_valid(w, s, addr, len % 8 + 1, is_write);
			break;
		case 3:
			check_find(w, s, addr, len);
			break;
		case 4:
			check_map(w, s, addr, len, is_write);
			break;
		}
	}
}

/* --- worlds ------------------------------------------------------------ */

static const struct size *
pick_size(struct world *w)
{
	uint64_t n = t_below(&w->seed, 16);
	const struct size *size = sizes;

	while (n >= size->share)
		n -= size++->share;
	return (size);
}

/*
 * What follows from a change: some more, to a region that nothing else changes,
 * and never to its place, whose turn among siblings the model takes later.
 */
static void
settle(void *arg, struct mt_space *sp)
{
	struct world *w = ((struct told *)arg)->w;
	struct node *n = &w->node[w->size->nodes - 1];
	bool val = t_below(&w->seed, 2) == 0;

	(void)sp;
	if (w->settles == 0)
		return;
	w->settles--;
	switch (t_below(&w->seed, 3)) {
	case 0:
		expect(w, "settle: enable", n,
		    mt_region_set_enabled(n->r, val), 0);
		n->enabled = val;
		break;
	case 1:
		expect(w, "settle: readonly", n,
		    mt_region_set_readonly(n->r, val), 0);
		n->readonly = val;
		break;
	case 2:
		must(mt_topology_begin(w->t) == 0);
		expect(w, "settle: nonvolatile", n,
		    mt_region_set_nonvolatile(n->r, val), 0);
		expect(w, "settle: unmergeable", n,
		    mt_region_set_unmergeable(n->r, !val), 0);
		must(mt_topology_commit(w->t) == 0);
		n->nonvolatile = val;
		n->unmergeable = !val;
		break;
	}
}

static void
begin_world(struct world *w, uint64_t seed)
{
	struct node *n;
	unsigned int s, i;

	w->seed = seed;
	w->size = pick_size(w);
	w->seq = 0;
	w->failed = false;
	for (i = 0; i < NODES; i++)
		w->node[i].r = NULL;
	w->t = t_topology();
	create(w, &w->node[0], MT_CONTAINER);
	must(mt_region_resize(w->node[0].r, MT_LAST_MAX) == 0);
	w->node[0].last = MT_LAST_MAX;
	for (i = 1; i < w->size->nodes - 1; i++)
		create(w, &w->node[i], pick_kind(w));
	n = &w->node[i];
	create(w, n, MT_RAM);
	n->parent = &w->node[0];
	n->addr = pick_addr(w);
	n->prio = (int)t_below(&w->seed, 5) - 2;
	n->seq = ++w->seq;
	must(mt_region_add(w->node[0].r, n->r, n->addr, n->prio) == 0);
	w->settles = 0;
	for (s = 0; s < SPACES; s++) {
		w->told[s].n = 0;
		w->told[s].wrong = w->asked[s] = false;
		w->root[s] = s == 0 ? &w->node[0] : pick(w);
		w->sp[s] = t_space(w->root[s]->r);
		w->told[s].w = w;
		w->listener[s] = (struct mt_listener){ .arg = &w->told[s],
		    .add = told_add, .del = told_del, .settle = settle };
		must(mt_listener_register(w->sp[s], &w->listener[s]) == 0);
	}
	/* Something to begin with. */
	must(mt_topology_begin(w->t) == 0);
	for (i = 0; i < 2 * w->size->nodes; i++)
		change_add(w);
	must(mt_topology_commit(w->t) == 0);
}

static void
end_world(struct world *w)
{
	unsigned int s;
	size_t i;

	for (s = 0; s < SPACES; s++) {
		check_kept(w, s);
		must(mt_listener_unregister(&w->listener[s]) == 0);
		if (w->told[s].n != 0 || w->told[s].wrong)
			wrong(w, "space %u: %zu sections were not told to go",
			    s, w->told[s].n);
		must(mt_space_destroy(w->sp[s]) == 0);
	}
	for (i = 0; i < w->size->nodes; i++)
		mt_region_put(w->node[i].r);
	if (mt_topology_destroy(w->t) == -1)
		wrong(w, "the topology has something left: errno %d", errno);
}

static bool
run_world(uint64_t seed)
{
	static struct world w;
	unsigned int i, n, s, by_bytes;

	begin_world(&w, seed);
	by_bytes = (unsigned int)t_below(&w.seed, w.size->changes);
	for (i = 0; i < w.size->changes && !w.failed; i++) {
		for (s = 0; s < SPACES && !w.failed; s++) {
			check_view(&w, s, w.size->bytes || i == by_bytes);
			check_accesses(&w, s);
		}
		w.settles = (unsigned int)t_below(&w.seed, 4);
		n = t_below(&w.seed, 3) == 0 ? 1 + t_below(&w.seed, 6) : 0;
		if (n == 0) {
			change(&w);
			continue;
		}
		must(mt_topology_begin(w.t) == 0);
		while (n-- > 0)
			change(&w);
		must(mt_topology_commit(w.t) == 0);
	}
	if (!w.failed)
		end_world(&w);
	return (!w.failed);
}

int
main(void)
{
	uint64_t seed = t_env("T_SEED",
	    (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
	uint64_t count = t_env("T_COUNT", T_TSAN ? 2000 :
	    T_ASAN ? 5000 : 20000), i;

	diag("T_SEED=%" PRIu64 " T_COUNT=%" PRIu64, seed, count);
	for (i = 0; i < count; i++)
		if (!run_world(seed + i))
			break;
	if (i < count)
		diag("again: T_SEED=%" PRIu64 " T_COUNT=1", seed + i);
	is_int(i, count, "random trees look as they should at every address");
	return (done());
}
