/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A script of tree operations: regions come, go, move and change, inside
 * transactions or not; spaces, listeners, accesses and mappings among them.
 * After each change every space is compared with a walk of the tree at every
 * address where something may begin or end, and every listener's mirror with
 * the view.
 */

#include <libmemtree/memtree.h>

#include "t/fuzz/fuzz.h"

#define NODES		18
#define SPACES		3
#define MAPS		4
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
};

struct world {
	struct input in;
	struct mt_topology *t;
	struct node nodes[NODES];
	struct seat seats[SPACES];
	struct mt_mapping maps[MAPS];
	struct node *busy;		/* its callback runs */
	uint64_t seq;
	unsigned int depth;
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
	/* In a transaction views are as they were, regions are not. */
	check(w.depth > 0 || off <= mt_region_last(n->r));
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

static const struct mt_io_ops ops[] = {
	{ .read = dev_read, .write = dev_write, .endian = MT_LITTLE },
	{ .read = dev_read, .write = dev_write, .endian = MT_BIG,
	    .valid = { 1, 8, true }, .impl = { 4, 4, false } },
	{ .read = dev_read, .write = dev_write, .accepts = dev_accepts,
	    .endian = MT_LITTLE, .valid = { 2, 4, false },
	    .impl = { 1, 8, true } },
	{ .read = dev_read, .endian = MT_HOST, .valid = { 8, 8, false },
	    .impl = { 1, 1, false } },
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
		if (w.seats[i].sp != NULL && w.seats[i].root == n)
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
		seat_leave(s);
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

static void
step(void)
{
	struct node *n;

	switch (next_below(&w.in, 16)) {
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
	for (i = 0; i < SPACES; i++) {
		if (w.seats[i].sp == NULL)
			continue;
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
	}
	clean_up();
	return (0);
}
