/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A script of tree operations: regions come, go, move and change, inside
 * transactions or not; spaces, listeners, accesses, caches, mappings, waiters
 * for bounce budget and accesses that are completed later among them.
 * After each change every space is compared with a walk of the tree at every
 * address where something may begin or end, and every listener's mirror with
 * the view.
 */

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

static struct world w;

/* --- the tree as it should be seen --------------------------------------- */

struct answer {
	struct mt_region *r;		/* NULL: nobody */
	mt_addr off;
	unsigned int flags;
};

static bool
wins(const struct node *a, const struct node *b)
{
	const int pa = mt_region_prio(a->r), pb = mt_region_prio(b->r);

	return (pa != pb ? pa > pb : a->seq > b->seq);
}

static struct answer
ask(const struct node *n, mt_addr off, unsigned int flags)
{
	const struct answer none = { NULL, 0, 0 };
	struct answer best = none, a;
	const struct node *c, *by = NULL;
	enum mt_kind kind = mt_region_kind(n->r);

	if (!mt_region_enabled(n->r) || off > mt_region_last(n->r))
		return (none);
	if (mt_region_readonly(n->r) || kind == MT_ROM)
		flags |= MT_SECTION_READONLY;
	if (mt_region_nonvolatile(n->r))
		flags |= MT_SECTION_NONVOLATILE;
	if (mt_region_unmergeable(n->r))
		flags |= MT_SECTION_UNMERGEABLE;
	for (c = w.nodes; c < w.nodes + NODES; c++) {
		if (c->r == NULL || mt_region_parent(c->r) != n->r ||
		    off < mt_region_addr(c->r) || (by != NULL && wins(by, c)))
			continue;
		a = ask(c, off - mt_region_addr(c->r), flags);
		if (a.r != NULL) {
			best = a;
			by = c;
		}
	}
	if (best.r != NULL || kind == MT_CONTAINER)
		return (best);
	if (kind == MT_ALIAS) {
		off += mt_region_alias_offset(n->r);
		return (off < mt_region_alias_offset(n->r) ? none :
		    ask(n->target, off, flags));
	}
	if (kind == MT_ROM_DEVICE && mt_region_rom_mode(n->r))
		flags |= MT_SECTION_ROM_MODE;
	return ((struct answer){ n->r, off, flags });
}

/* What v shows at addr is what the tree says. */
static void
check_at(const struct seat *s, const struct mt_view *v, mt_addr addr)
{
	struct answer want = ask(s->root, addr, 0);
	struct mt_section sec;

	if (!mt_view_next(v, addr, &sec) || sec.range.first > addr) {
		check(want.r == NULL);
		return;
	}
	check(sec.region == want.r);
	check(sec.off + (addr - sec.range.first) == want.off);
	check(sec.flags == want.flags);
}

static bool
same(const struct mt_section *a, const struct mt_section *b)
{
	return (a->range.first == b->range.first &&
	    a->range.last == b->range.last && a->region == b->region &&
	    a->off == b->off && a->flags == b->flags);
}

/* Ascending, apart, and with neighbours merged that continue each other. */
static size_t
check_view(const struct mt_view *v, const struct seat *s)
{
	struct mt_section sec, before;
	mt_addr at = 0;
	size_t n = 0;

	while (mt_view_next(v, at, &sec)) {
		check(sec.range.first <= sec.range.last);
		check(sec.range.first >= at);
		check(n == 0 || sec.range.first != before.range.last + 1 ||
		    sec.region != before.region || sec.flags != before.flags ||
		    sec.off != before.off + (before.range.last -
		    before.range.first) + 1 ||
		    (sec.flags & MT_SECTION_UNMERGEABLE) != 0);
		if (s != NULL && s->listening) {
			check(n < s->n);
			check(same(&sec, &s->mirror[n]));
		}
		before = sec;
		n++;
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	check(n == mt_view_count(v));
	check(s == NULL || !s->listening || n == s->n);
	return (n);
}

static void
check_space(const struct seat *s)
{
	struct mt_view *v = mt_space_view(s->sp);
	struct mt_section sec;
	mt_addr at = 0, end;
	const struct node *n;

	check_view(v, s);
	/* At the edges of what is seen, and where edges of regions may be. */
	check_at(s, v, 0);
	while (mt_view_next(v, at, &sec)) {
		check_at(s, v, sec.range.first);
		check_at(s, v, sec.range.first - 1);
		check_at(s, v, sec.range.last);
		check_at(s, v, sec.range.first +
		    (sec.range.last - sec.range.first) / 2);
		if ((at = sec.range.last + 1) == 0)
			break;
		check_at(s, v, at);
	}
	for (n = w.nodes; n < w.nodes + NODES; n++) {
		if (n->r == NULL)
			continue;
		end = mt_region_addr(n->r) + mt_region_last(n->r);
		check_at(s, v, mt_region_addr(n->r));
		check_at(s, v, end);
		check_at(s, v, end + 1);
	}
	mt_view_put(v);
}

static void
check_all(void)
{
	size_t i;

	if (w.depth > 0)
		return;
	for (i = 0; i < SPACES; i++)
		if (w.seats[i].sp != NULL)
			check_space(&w.seats[i]);
}

/* --- listeners ----------------------------------------------------------- */

static void
told_begin(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && !s->telling);
	s->telling = true;
}

static void
told_commit(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && s->telling);
	s->telling = false;
	/* Changes from here are refused. */
	check(mt_topology_begin(w.t) == -1 && errno == EDEADLK);
}

static size_t
place_of(const struct seat *s, const struct mt_section *sec)
{
	size_t i = 0;

	while (i < s->n && s->mirror[i].range.first < sec->range.first)
		i++;
	return (i);
}

static void
told_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	size_t i = place_of(s, sec);

	check(sp == s->sp && s->n < MIRROR);
	check(i == s->n || sec->range.last < s->mirror[i].range.first);
	check(i == 0 || sec->range.first > s->mirror[i - 1].range.last);
	memmove(&s->mirror[i + 1], &s->mirror[i],
	    (s->n - i) * sizeof(s->mirror[0]));
	s->mirror[i] = *sec;
	s->n++;
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	size_t i = place_of(s, sec);

	check(sp == s->sp && i < s->n && same(&s->mirror[i], sec));
	s->n--;
	memmove(&s->mirror[i], &s->mirror[i + 1],
	    (s->n - i) * sizeof(s->mirror[0]));
}

/* --- devices ------------------------------------------------------------- */

static void
check_register(const struct node *n, mt_addr off, unsigned int size)
{
	check(size == 1 || size == 2 || size == 4 || size == 8);
	/* Views in transactions and caches are as they were, regions not. */
	check(w.depth > 0 || w.in_cache || off <= mt_region_last(n->r));
}

static enum mt_result
dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct node *n = arg;

	(void)attrs;
	check_register(n, off, size);
	*val = off * 0x0101010101010101u;
	return (off % 7 == 6 ? MT_DEVICE : MT_OK);
}

/* A register that hides another region, as one that moves a BAR would. */
static enum mt_result
dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct node *n = arg, *other = &w.nodes[val % NODES];

	(void)attrs;
	check_register(n, off, size);
	if (w.busy == NULL && off == 0 && other->r != NULL) {
		w.busy = n;
		check(mt_region_set_enabled(other->r, (val & 0x80) != 0) == 0);
		w.busy = NULL;
	}
	return (MT_OK);
}

static bool
dev_accepts(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)is_write, (void)attrs;
	return (off % 32 != 31);
}

/* Any number of bytes at once. */
static void
check_buf(const struct node *n, mt_addr off, size_t len)
{
	check(len > 0 && off + (len - 1) >= off);
	check(w.depth > 0 || w.in_cache ||
	    off + (len - 1) <= mt_region_last(n->r));
}

static void
fill(uint8_t *buf, mt_addr off, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(off + i);
}

static enum mt_result
dev_read_buf(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)attrs;
	check_buf(arg, off, len);
	fill(buf, off, len);
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

static enum mt_result
dev_write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	volatile uint8_t sum = 0;
	size_t i;

	(void)attrs;
	check_buf(arg, off, len);
	for (i = 0; i < len; i++)
		sum ^= ((const uint8_t *)buf)[i];
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

/* Done at once, or kept until the script says so. */
static void
dev_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct flight *f;

	(void)attrs;
	check_buf(arg, off, len);
	if (!is_write)
		fill(buf, off, len);
	for (f = w.flights; off % 4 != 3 && f < w.flights + PIECES; f++)
		if (f->piece == NULL) {
			*f = (struct flight){ piece, buf, len, is_write,
			    off % 8 == 5 };
			return;
		}
	mt_access_complete(piece, off % 5 == 4 ? MT_DECODE : MT_OK);
}

/* For those who wait: as nobody else would complete it, at once. */
static void
dev_submit_now(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	mt_access_complete(piece, is_write ?
	    dev_write_buf(arg, off, buf, len, attrs) :
	    dev_read_buf(arg, off, buf, len, attrs));
}

static bool
dev_cancel(void *arg, struct mt_piece *piece)
{
	struct flight *f;

	(void)arg;
	for (f = w.flights; f < w.flights + PIECES; f++)
		if (f->piece == piece && !f->stays) {
			f->piece = NULL;
			return (true);
		}
	return (false);
}

static const struct mt_io_ops ops[] = {
	{ .read = dev_read, .write = dev_write, .endian = MT_LITTLE },
	{ .read = dev_read, .write = dev_write, .endian = MT_BIG,
	    .valid = { 1, 8, true }, .impl = { 4, 4, false } },
	{ .read = dev_read, .write = dev_write, .accepts = dev_accepts,
	    .endian = MT_LITTLE, .valid = { 2, 4, false },
	    .impl = { 1, 8, true } },
	{ .read = dev_read, .endian = MT_HOST, .valid = { 8, 8, false },
	    .impl = { 1, 1, false } },
	{ .read = dev_read, .write = dev_write, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf },
	{ .write_buf = dev_write_buf },
	{ .read_buf = dev_read_buf, .write_buf = dev_write_buf,
	    .submit_buf = dev_submit, .cancel_buf = dev_cancel },
	{ .read = dev_read, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf, .submit_buf = dev_submit },
	{ .submit_buf = dev_submit_now },
};

/* Leads anywhere and nowhere, also back, by windows of all sizes. */
static void
iommu_translate(void *arg, mt_addr off, unsigned int flags,
    struct mt_attrs attrs, struct mt_iotlb *out)
{
	static const mt_addr masks[] = { 0xfff, 0xff, 0, MT_LAST_MAX, 0xfff,
	    0xffff, 0xf0f, 7 };
	const struct node *n = arg;
	const uint64_t x = ((off >> 4) + 1) * 0x9e3779b97f4a7c15u;

	(void)attrs;
	check(n->r != NULL && flags < 8);
	out->target = w.seats[(x >> 32) % SPACES].sp;
	out->addr = (x >> 8 & 7) != 0 ? x >> 48 : x;
	out->mask = masks[x >> 11 & 7];
	out->perm = (x >> 14 & 7) < 3 ? x >> 14 & 3 :
	    MT_IOMMU_READ | MT_IOMMU_WRITE;
}

static const struct mt_iommu_ops iommu_ops = {
	.translate = iommu_translate,
};

/* --- operations ---------------------------------------------------------- */

static struct node *
pick(void)
{
	return (&w.nodes[next_below(&w.in, NODES)]);
}

static mt_addr
pick_addr(void)
{
	const uint64_t how = next(&w.in, 1);

	switch (how % 8) {
	case 0:
		return (0);
	case 1:
		return (MT_LAST_MAX - next(&w.in, 1));
	case 2:
		return ((how >> 3) * 0x1000);
	case 3:
		return ((how >> 3) * 0x1000 - 1);
	case 4:
		return (next(&w.in, 1));
	case 5:
		return (next(&w.in, 8));
	case 6:
		return ((mt_addr)1 << (how >> 3) * 2);
	default:
		return (next(&w.in, 2));
	}
}

static bool
is_memory(enum mt_kind kind)
{
	return (kind == MT_RAM || kind == MT_ROM || kind == MT_ROM_DEVICE ||
	    kind == MT_RAM_DEVICE);
}

static void
create(struct node *n)
{
	static const enum mt_kind kinds[] = { MT_CONTAINER, MT_CONTAINER,
	    MT_ALIAS, MT_ALIAS, MT_RAM, MT_ROM, MT_ROM_DEVICE, MT_IO,
	    MT_RESERVED };
	enum mt_kind kind = kinds[next_below(&w.in, F_COUNT(kinds))];
	const struct mt_io_ops *op = &ops[next_below(&w.in, F_COUNT(ops))];
	mt_addr last = pick_addr();
	struct node *target;

	if (n->r != NULL)
		return;
	if (is_memory(kind))
		last %= 0x4000;
	/* Both show nothing of their own, so old inputs stay what they are. */
	if (kind == MT_RESERVED && op != ops)
		kind = MT_IOMMU;
	n->target = NULL;
	switch (kind) {
	case MT_CONTAINER:
		n->r = mt_region_create_container(w.t, "c", last);
		break;
	case MT_ALIAS:
		if ((target = pick())->r == NULL)
			return;
		n->target = target;
		n->r = mt_region_create_alias(w.t, "a", target->r,
		    pick_addr(), last);
		break;
	case MT_RAM:
		/* Not a kind of its own: the corpus means what it meant. */
		n->r = last % 4 == 1 ?
		    mt_region_create_ram_device(w.t, "ramd", last, NULL) :
		    mt_region_create_ram(w.t, "ram", last, NULL);
		break;
	case MT_ROM:
		n->r = mt_region_create_rom(w.t, "rom", last, NULL);
		break;
	case MT_ROM_DEVICE:
		n->r = mt_region_create_rom_device(w.t, "romd", last, NULL,
		    op, n);
		break;
	case MT_IO:
		n->r = mt_region_create_io(w.t, "io", last, op, n);
		break;
	case MT_RAM_DEVICE:		/* by MT_RAM */
		break;
	case MT_RESERVED:
		n->r = mt_region_create_reserved(w.t, "r", last);
		break;
	case MT_IOMMU:
		n->r = mt_region_create_iommu(w.t, "iommu", last, &iommu_ops,
		    n);
		break;
	}
	check(n->r != NULL);
}

/* Give a region up, if nothing in this program would miss it. */
static void
discard(struct node *n)
{
	const struct node *c;
	size_t i;

	if (n->r == NULL || mt_region_parent(n->r) != NULL || w.depth > 0)
		return;
	for (c = w.nodes; c < w.nodes + NODES; c++)
		if (c->r != NULL &&
		    (c->target == n || mt_region_parent(c->r) == n->r))
			return;
	for (i = 0; i < SPACES; i++)
		if (w.seats[i].sp != NULL && (w.seats[i].root == n ||
		    w.seats[i].cached))
			return;
	mt_region_put(n->r);
	n->r = NULL;
}

static void
add(struct node *parent, struct node *child)
{
	const mt_addr off = pick_addr();
	const int prio = (int8_t)next(&w.in, 1) / 32;

	if (parent->r == NULL || child->r == NULL)
		return;
	if (mt_region_add(parent->r, child->r, off, prio) == 0)
		child->seq = ++w.seq;
	else
		check(errno == EBUSY || errno == ELOOP);
}

static void
change(struct node *n)
{
	const unsigned int what = (unsigned int)next_below(&w.in, 7);
	const mt_addr addr = pick_addr();
	const bool on = (addr & 1) != 0;
	bool moves;

	if (n->r == NULL)
		return;
	switch (what) {
	case 0:
		moves = addr != mt_region_addr(n->r);
		if (mt_region_move(n->r, addr) == 0)
			/* In front of its equals, unless it stays. */
			n->seq = moves ? ++w.seq : n->seq;
		else
			check(errno == ENOENT);
		break;
	case 1:
		check(mt_region_resize(n->r, addr) == 0 || errno == EINVAL);
		break;
	case 2:
		check(mt_region_set_enabled(n->r, on) == 0);
		break;
	case 3:
		check(mt_region_set_readonly(n->r, on) == 0 ||
		    errno == EINVAL);
		break;
	case 4:
		check(((addr & 2) != 0 ? mt_region_set_unmergeable(n->r, on) :
		    mt_region_set_nonvolatile(n->r, on)) == 0);
		break;
	case 5:
		check(mt_region_set_rom_mode(n->r, on) == 0 ||
		    errno == EINVAL);
		break;
	case 6:
		check(mt_region_set_alias_offset(n->r, addr) == 0 ||
		    errno == EINVAL);
		break;
	}
}

static struct seat *
pick_seat(void)
{
	return (&w.seats[next_below(&w.in, SPACES)]);
}

static void
seat_leave(struct seat *s)
{
	if (s->listening) {
		check(mt_listener_unregister(&s->l) == 0);
		check(s->n == 0);
	}
	s->listening = false;
	mt_view_put(s->held);
	s->held = NULL;
}

/* Is something left that keeps the space from being destroyed? */
static bool
is_busy(const struct seat *s)
{
	size_t i;

	if (s->cached)
		return (true);
	for (i = 0; i < ACCESSES; i++)
		if (w.accesses[i].busy && w.accesses[i].sp == s->sp)
			return (true);
	for (i = 0; i < WAITERS; i++)
		if (w.waiters[i].seat == s)
			return (true);
	return (false);
}

static void
toggle_space(struct seat *s)
{
	struct node *root = pick();
	size_t i;

	if (w.depth > 0)
		return;
	if (s->sp != NULL) {
		for (i = 0; i < MAPS; i++)
			if (w.maps[i].ptr != NULL && w.maps[i].sp == s->sp)
				return;
		for (i = 0; i < LISTS; i++)
			if (w.lists[i].sp == s->sp)
				return;
		if (is_busy(s)) {
			check(mt_space_destroy(s->sp) == -1 && errno == EBUSY);
			return;
		}
		seat_leave(s);
		/* One that has been called knows its space all the same. */
		for (i = 0; i < WAITERS; i++)
			if (w.waiters[i].waiter.sp == s->sp)
				memset(&w.waiters[i], 0, sizeof(w.waiters[i]));
		check(mt_space_destroy(s->sp) == 0);
		s->sp = NULL;
	} else if (root->r != NULL) {
		s->root = root;
		check((s->sp = mt_space_create(root->r, "s")) != NULL);
	}
}

static void
toggle_listener(struct seat *s)
{
	if (s->sp == NULL)
		return;
	if (s->listening) {
		check(mt_listener_unregister(&s->l) == 0);
		check(s->n == 0);
	} else {
		s->l = (struct mt_listener){ .arg = s, .begin = told_begin,
		    .commit = told_commit, .add = told_add, .del = told_del };
		check(mt_listener_register(s->sp, &s->l) == 0);
	}
	s->listening = !s->listening;
}

/* Keep a view, and look at it again when the tree has become another. */
static void
hold(struct seat *s)
{
	if (s->sp == NULL)
		return;
	if (s->held != NULL)
		check_view(s->held, NULL);
	mt_view_put(s->held);
	s->held = mt_space_view(s->sp);
}

static void
use(struct seat *s)
{
	const unsigned int what = (unsigned int)next_below(&w.in, 8);
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1);
	const struct mt_attrs attrs = { .memory_only = (len & 0x80) != 0,
	    .debug = (len & 0x40) != 0 };
	const enum mt_endian order = (len & 1) != 0 ? MT_BIG : MT_LITTLE;
	struct mt_section sec;
	uint8_t buf[256];
	uint64_t val;

	if (s->sp == NULL)
		return;
	memset(buf, (int)len, sizeof(buf));
	switch (what) {
	case 0:
		mt_space_read(s->sp, addr, buf, len, attrs);
		break;
	case 1:
		mt_space_write(s->sp, addr, buf, len, attrs);
		break;
	case 2:
		mt_space_load(s->sp, addr, 1u << len % 4, order, &val, attrs);
		break;
	case 3:
		mt_space_store(s->sp, addr, 1u << len % 4, order, addr, attrs);
		break;
	case 4:
		mt_space_set(s->sp, addr, 0x5a, len, attrs);
		break;
	case 5:
		mt_space_write_rom(s->sp, addr, buf, len, attrs);
		break;
	case 6:
		mt_space_valid(s->sp, addr, len, (len & 2) != 0, attrs);
		break;
	case 7:
		if (mt_space_find(s->sp, (struct mt_range){ addr,
		    addr + len < addr ? MT_LAST_MAX : addr + len }, &sec) == 0)
			mt_region_put(sec.region);
		else
			check(errno == ENOENT);
		break;
	}
}

static void
toggle_map(struct seat *s)
{
	struct mt_mapping *m = &w.maps[next_below(&w.in, MAPS)];
	const size_t len = (size_t)next(&w.in, 2) % 0x3000;
	const mt_addr addr = pick_addr();
	size_t i;

	if (m->ptr != NULL) {
		/* Whatever has become of the region, this is memory. */
		if ((m->dir & MT_DMA_WRITE) != 0)
			memset(m->ptr, 0xa5, m->len);
		else
			for (i = 0; i < m->len; i++)
				((volatile const uint8_t *)m->ptr)[i];
		check(mt_dma_unmap(m, m->len) == 0 || errno == EIO);
		m->ptr = NULL;
	} else if (s->sp != NULL && mt_dma_map(s->sp, addr, len,
	    (unsigned int)(addr & 3), MT_ATTRS_NONE, m) == -1)
		check(m->ptr == NULL && (errno == EFAULT || errno == EINVAL ||
		    errno == EAGAIN));
}

/* --- caches -------------------------------------------------------------- */

static void
toggle_cache(struct seat *s)
{
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1) * 4;

	if (s->sp == NULL)
		return;
	if (s->cached) {
		mt_cache_fini(&s->cache);
		s->cached = false;
		return;
	}
	if (mt_cache_init(&s->cache, s->sp, addr, len, (unsigned int)(len >> 2)
	    & 3, MT_ATTRS_NONE) == 0) {
		s->cached = true;
		s->cached_addr = addr;
		s->cached_len = len;
		check(!mt_cache_stale(&s->cache));
	} else {
		check(errno == EINVAL);
		check(mt_cache_stale(&s->cache));
	}
}

/* It shows what the space shows, if that is still the same view. */
static void
use_cache(struct seat *s)
{
	const unsigned int what = (unsigned int)next_below(&w.in, 4);
	const size_t off = (size_t)next(&w.in, 1) * 3;
	const size_t len = (size_t)next(&w.in, 1);
	enum mt_result res, other;
	uint8_t buf[256], want[256];
	struct mt_view *v;
	uint64_t val, val2;
	uint32_t val32;
	bool whole;

	if (!s->cached)
		return;
	v = mt_space_view(s->sp);
	check(mt_cache_stale(&s->cache) == (s->cache.view != v));
	whole = s->cache.view == v && off <= s->cached_len &&
	    len <= s->cached_len - off && (s->cache.dir & MT_DMA_READ) != 0;
	mt_view_put(v);
	memset(buf, 0xee, sizeof(buf));
	w.in_cache = true;
	switch (what) {
	case 0:
		res = mt_cache_read(&s->cache, off, buf, len);
		if (!whole)
			break;
		memset(want, 0xdd, sizeof(want));
		other = mt_space_read(s->sp, s->cached_addr + off, want, len,
		    MT_ATTRS_NONE);
		check(res == other && memcmp(buf, want, len) == 0);
		break;
	case 1:
		mt_cache_write(&s->cache, off, buf, len);
		break;
	case 2:
		res = mt_cache_load(&s->cache, off, 4, MT_LITTLE, &val);
		check(res == MT_OK || val <= UINT32_MAX);
		other = mt_cache_load_le32(&s->cache, off, &val32);
		check(res == other && val == val32);
		if (whole && len >= 4) {
			other = mt_space_load(s->sp, s->cached_addr + off, 4,
			    MT_LITTLE, &val2, MT_ATTRS_NONE);
			check(res == other && val == val2);
		}
		break;
	case 3:
		mt_cache_store_be64(&s->cache, off, len * 0x0102030405060708u);
		break;
	}
	w.in_cache = false;
}

/* --- scatter lists ------------------------------------------------------- */

static void
unmap_list(struct list *l, size_t used)
{
	size_t i;

	for (i = 0; i < l->sg.niov; i++)
		if (l->is_write)
			memset(l->iov[i].iov_base, 0x5a, l->iov[i].iov_len);
	if (used > l->sg.len) {
		check(mt_dma_unmap_sg(&l->sg, used) == (l->is_write ? -1 : 0));
		if (!l->is_write) {
			l->sp = NULL;
			return;
		}
		check(errno == ERANGE);
		used = l->sg.len;
	}
	check(mt_dma_unmap_sg(&l->sg, used) == 0 || errno == EIO);
	check(mt_dma_unmap_sg(&l->sg, 0) == -1 && errno == EINVAL);
	l->sp = NULL;
}

static void
toggle_list(struct seat *s)
{
	struct list *l = &w.lists[next_below(&w.in, LISTS)];
	const size_t n = (size_t)next_below(&w.in, PARTS + 1);
	const size_t room = (size_t)next_below(&w.in, PARTS + 1);
	struct mt_range ranges[PARTS];
	mt_addr total = 0;
	size_t i, len = 0;

	if (l->sp != NULL) {
		unmap_list(l, n * 0x155);
		return;
	}
	if (s->sp == NULL)
		return;
	for (i = 0; i < n; i++) {
		ranges[i].first = pick_addr();
		ranges[i].last = ranges[i].first + next(&w.in, 1) * 5;
		total += ranges[i].last - ranges[i].first + 1;
	}
	l->is_write = (room & 1) != 0;
	if (mt_dma_map_sg(s->sp, ranges, n, l->is_write ? MT_DMA_WRITE :
	    MT_DMA_READ, MT_ATTRS_NONE, l->iov, l->maps, room, &l->sg) == -1) {
		check(errno == EFAULT || errno == EINVAL || errno == EAGAIN);
		return;
	}
	l->sp = s->sp;
	check(l->sg.niov >= 1 && l->sg.niov <= room);
	for (i = 0; i < l->sg.niov; i++)
		len += l->iov[i].iov_len;
	check(len == l->sg.len);
	check(l->sg.error == 0 ? l->sg.range == n && len == total :
	    l->sg.range < n && len < total);
}

/* --- accesses that end later --------------------------------------------- */

static void	submit(struct access *a, struct mt_space *sp, mt_addr addr,
		    size_t len, bool is_write);

static void
access_done(void *arg, enum mt_result res)
{
	struct access *a = arg;

	check(a->busy);
	check((res & ~(unsigned int)(MT_DEVICE | MT_DECODE | MT_DENIED)) == 0);
	a->busy = false;
	if (a->again && w.nops < OPS) {
		a->again = false;
		submit(a, a->sp, next(&w.in, 1), a->len, !a->is_write);
	}
}

static void
submit(struct access *a, struct mt_space *sp, mt_addr addr, size_t len,
    bool is_write)
{
	size_t i;

	a->sp = sp;
	a->len = len;
	a->is_write = is_write;
	a->busy = true;
	for (i = 0; i < sizeof(a->buf); i++)
		a->buf[i] = i % 2 == 0 ? 0xef : 0xee;
	check(mt_access_submit(sp, &a->acc, addr, a->buf, len, is_write,
	    MT_ATTRS_NONE, access_done, a) == 0);
}

static void
submit_one(struct seat *s)
{
	struct access *a = &w.accesses[next_below(&w.in, ACCESSES)];
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1);

	if (s->sp == NULL || a->busy)
		return;
	a->again = (len & 4) != 0;
	submit(a, s->sp, addr, len, (len & 1) != 0);
}

static void
complete(struct flight *f, enum mt_result res)
{
	struct mt_piece *piece = f->piece;
	size_t i;

	if (piece == NULL)
		return;
	for (i = 0; i < f->len; i++)
		if (f->is_write)
			check(f->buf[i] == 0xef || f->buf[i] == 0xee);
		else
			f->buf[i] = (uint8_t)i;
	f->piece = NULL;
	mt_access_complete(piece, res);
}

static void
cancel(struct access *a)
{
	if (!a->busy)
		return;
	a->again = false;
	if (mt_access_cancel(&a->acc)) {
		check(a->busy);
		a->busy = false;
	}
}

static void
drain(struct seat *s)
{
	size_t i;

	if (s->sp == NULL)
		return;
	for (i = 0; i < ACCESSES; i++)
		w.accesses[i].again = false;
	for (i = 0; i < PIECES; i++)
		complete(&w.flights[i], MT_OK);
	check(mt_access_drain(s->sp) == 0);
	for (i = 0; i < ACCESSES; i++)
		check(!w.accesses[i].busy);
}

/* --- bounce budget ------------------------------------------------------- */

static void
called(void *arg)
{
	struct waiter *wait = arg;
	struct seat *s = wait->seat;
	struct mt_mapping m;

	check(s != NULL);
	wait->seat = NULL;
	/* What was waited for is there; it may go to another address. */
	if (mt_dma_map(s->sp, 0x1000, 16, MT_DMA_READ, MT_ATTRS_NONE, &m) ==
	    0)
		check(mt_dma_unmap(&m, 0) == 0);
	else
		check(errno == EFAULT || mt_dma_bounce_limit(s->sp) == 0 ||
		    errno == EAGAIN);
	if (wait->again > 0) {
		wait->again--;
		wait->seat = s;
		check(mt_dma_wait(s->sp, &wait->waiter, 8, called, wait) ==
		    0);
	}
}

static void
bounce(struct seat *s)
{
	struct waiter *wait = &w.waiters[next_below(&w.in, WAITERS)];
	const unsigned int what = (unsigned int)next(&w.in, 1);
	bool is;

	if (s->sp == NULL)
		return;
	switch (what % 4) {
	case 0:
		mt_dma_set_bounce_limit(s->sp, (what >> 2) * 32);
		break;
	case 1:
		if (wait->seat != NULL) {
			check(mt_dma_wait(wait->seat->sp, &wait->waiter, 1,
			    called, wait) == -1 && errno == EBUSY);
			break;
		}
		wait->again = what >> 6;
		wait->seat = s;
		check(mt_dma_wait(s->sp, &wait->waiter, what >> 2, called,
		    wait) == 0);
		break;
	default:
		is = wait->seat != NULL;
		wait->again = 0;
		/* Who waits has not been called. */
		check(mt_dma_cancel(&wait->waiter) == is);
		wait->seat = NULL;
		break;
	}
}

/* The budget is what live mappings have. */
static void
check_budget(void)
{
	size_t i, k, used;
	const struct seat *s;

	for (s = w.seats; s < w.seats + SPACES; s++) {
		if (s->sp == NULL)
			continue;
		used = 0;
		for (i = 0; i < MAPS; i++)
			if (w.maps[i].ptr != NULL && w.maps[i].bounced &&
			    w.maps[i].sp == s->sp)
				used += w.maps[i].len;
		for (i = 0; i < LISTS; i++)
			for (k = 0; w.lists[i].sp == s->sp &&
			    k < w.lists[i].sg.niov; k++)
				if (w.lists[i].maps[k].bounced)
					used += w.lists[i].maps[k].len;
		check(mt_dma_bounce_used(s->sp) == used);
	}
}

static void
step(void)
{
	struct node *n;

	switch (next_below(&w.in, 24)) {
	case 0:
	case 1:
	case 2:
		create(pick());
		break;
	case 3:
	case 4:
	case 5:
		n = pick();
		add(n, pick());
		break;
	case 6:
		n = pick();
		if (n->r != NULL)
			check(mt_region_del(n->r) == 0 || errno == ENOENT);
		break;
	case 7:
	case 8:
		change(pick());
		break;
	case 9:
		if (w.depth < DEPTH && mt_topology_begin(w.t) == 0)
			w.depth++;
		break;
	case 10:
		if (w.depth > 0) {
			check(mt_topology_commit(w.t) == 0);
			w.depth--;
		}
		break;
	case 11:
		toggle_space(pick_seat());
		break;
	case 12:
		toggle_listener(pick_seat());
		hold(pick_seat());
		break;
	case 13:
		use(pick_seat());
		break;
	case 14:
		toggle_map(pick_seat());
		break;
	case 15:
		discard(pick());
		break;
	case 16:
		toggle_cache(pick_seat());
		break;
	case 17:
		use_cache(pick_seat());
		break;
	case 18:
		toggle_list(pick_seat());
		break;
	case 19:
		submit_one(pick_seat());
		break;
	case 20:
		complete(&w.flights[next_below(&w.in, PIECES)],
		    (enum mt_result)next_below(&w.in, 2));
		break;
	case 21:
		cancel(&w.accesses[next_below(&w.in, ACCESSES)]);
		break;
	case 22:
		bounce(pick_seat());
		break;
	case 23:
		if (next_below(&w.in, 4) == 0)
			drain(pick_seat());
		else
			complete(&w.flights[0], MT_OK);
		break;
	}
}

static void
clean_up(void)
{
	size_t i;

	for (; w.depth > 0; w.depth--)
		check(mt_topology_commit(w.t) == 0);
	check_all();
	for (i = 0; i < MAPS; i++)
		if (w.maps[i].ptr != NULL)
			check(mt_dma_unmap(&w.maps[i], 0) == 0 ||
			    errno == EIO);
	for (i = 0; i < WAITERS; i++) {
		w.waiters[i].again = 0;
		check(mt_dma_cancel(&w.waiters[i].waiter) ==
		    (w.waiters[i].seat != NULL));
	}
	for (i = 0; i < LISTS; i++)
		if (w.lists[i].sp != NULL)
			unmap_list(&w.lists[i], w.lists[i].sg.len);
	for (i = 0; i < SPACES; i++) {
		if (w.seats[i].sp == NULL)
			continue;
		drain(&w.seats[i]);
		if (w.seats[i].cached)
			mt_cache_fini(&w.seats[i].cache);
		check(mt_dma_bounce_used(w.seats[i].sp) == 0);
		seat_leave(&w.seats[i]);
		check(mt_space_destroy(w.seats[i].sp) == 0);
	}
	for (i = 0; i < NODES; i++)
		if (w.nodes[i].r != NULL)
			mt_region_put(w.nodes[i].r);
	check(mt_topology_sync(w.t) == 0);
	check(mt_topology_destroy(w.t) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&w, 0, sizeof(w));
	w.in = (struct input){ data, size };
	check((w.t = mt_topology_create()) != NULL);
	while (w.in.left > 0 && w.nops++ < OPS) {
		step();
		check_all();
		check_budget();
	}
	clean_up();
	return (0);
}
