/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Regions come, go, move and change. */

#include "t/fuzz/tree.h"

struct node *
pick(void)
{
	return (&w.nodes[next_below(&w.in, NODES)]);
}

mt_addr
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

bool
is_memory(enum mt_kind kind)
{
	return (kind == MT_RAM || kind == MT_ROM || kind == MT_ROM_DEVICE ||
	    kind == MT_RAM_DEVICE);
}

/* Its memory can be logged, and what the library maps is whole pages. */
static void
set_len(struct node *n, mt_addr last, bool whole)
{
	n->len = (size_t)last + 1;
	n->room = whole ? (size_t)(last | (MT_DIRTY_PAGE - 1)) + 1 : n->len;
}

void
create(struct node *n)
{
	static const enum mt_kind kinds[] = { MT_CONTAINER, MT_CONTAINER,
	    MT_ALIAS, MT_ALIAS, MT_RAM, MT_ROM, MT_ROM_DEVICE, MT_IO,
	    MT_RESERVED };
	enum mt_kind kind = kinds[next_below(&w.in, F_COUNT(kinds))];
	const struct mt_io_ops *op = &dev_ops[next_below(&w.in, DEV_OPS)];
	mt_addr last = pick_addr();
	struct node *target;

	if (n->r != NULL)
		return;
	if (is_memory(kind))
		last %= 0x4000;
	/* Both show nothing of their own, so old inputs stay what they are. */
	if (kind == MT_RESERVED && op != dev_ops)
		kind = MT_IOMMU;
	*n = (struct node){ .copy = n->copy };
	switch (kind) {
	case MT_CONTAINER:
		n->r = mt_region_create_container(w.t, "c", last);
		break;
	case MT_ALIAS:
		if ((target = pick())->r == NULL)
			return;
		n->target = target;
		target->used = true;
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
		n->op = op;
		break;
	case MT_IO:
		n->op = op;
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
	if (kind == MT_ROM || kind == MT_ROM_DEVICE ||
	    mt_region_kind(n->r) == MT_RAM)
		set_len(n, last, true);
}

static void
put_memory(void *ptr)
{
	free(ptr);
}

static void
told_size(void *arg, struct mt_region *r, mt_addr last)
{
	struct node *n = arg;

	check(r == n->r && last == mt_region_last(r) && last != n->heard);
	check(w.depth == 0);
	n->heard = last;
	if (n->again > 0) {
		n->again--;
		went(mt_region_resize(r, last / 2 + n->again), EINVAL, 0);
	}
}

/* Memory that grows, of all backings; devices that are mapped. */
void
create_more(struct node *n)
{
	static const enum mt_backing_kind backings[] = { MT_BACKING_ANON,
	    MT_BACKING_MEMFD, MT_BACKING_PTR, MT_BACKING_ANON };
	const unsigned int what = (unsigned int)next(&w.in, 1);
	const struct mt_io_ops *op = &dev_ops[next_below(&w.in, DEV_OPS)];
	const mt_addr last = pick_addr() % 0x4000;
	const mt_addr max = last + (next(&w.in, 1) << 7);
	struct mt_backing b = { .kind = backings[what % 4] };

	if (n->r != NULL)
		return;
	*n = (struct node){ .copy = n->copy };
	b.max_last = max < PAGES * MT_DIRTY_PAGE ? max :
	    PAGES * MT_DIRTY_PAGE - 1;
	if (b.kind == MT_BACKING_PTR)
		check((b.ptr = calloc(1, (size_t)b.max_last + 1)) != NULL);
	switch ((what >> 2) % 5) {
	case 0:
		n->r = mt_region_create_ram(w.t, "ram", last, &b);
		break;
	case 1:
		n->r = mt_region_create_rom(w.t, "rom", last, &b);
		break;
	case 2:
		n->op = op;
		n->r = mt_region_create_rom_device(w.t, "romd", last, &b, op,
		    n);
		break;
	case 3:
		n->r = mt_region_create_ram_device(w.t, "ramd", last, &b);
		break;
	case 4:
		n->op = op;
		n->r = mt_region_create_io(w.t, "io", last, op, n);
		break;
	}
	check(n->r != NULL);
	if ((what >> 2) % 5 < 3)
		set_len(n, b.max_last != 0 ? b.max_last : last,
		    b.kind != MT_BACKING_PTR);
	if (b.kind == MT_BACKING_PTR)
		check(mt_region_set_owner(n->r, b.ptr, put_memory) == 0);
	if ((what & 0x80) != 0) {
		check(mt_region_set_resized(n->r, told_size, n) == 0);
		n->hears = true;
		n->heard = mt_region_last(n->r);
	}
}

/* To where it may, or one more. */
void
grow(struct node *n)
{
	const unsigned int what = (unsigned int)next(&w.in, 1);
	mt_addr to;

	if (n->r == NULL || !is_memory(mt_region_kind(n->r)))
		return;
	n->again = n->hears ? what & 3 : 0;
	to = mt_region_max_last(n->r);
	if ((what & 4) == 0)
		to = to * (what >> 3) / 31;
	else if ((what & 8) != 0) {
		check(mt_region_resize(n->r, to + 1) == -1 && errno == EINVAL);
		return;
	}
	went(mt_region_resize(n->r, to), 0, 0);
}

bool
is_root(const struct node *n)
{
	size_t i;

	for (i = 0; i < SPACES; i++)
		if (w.seats[i].sp != NULL && w.seats[i].root == n)
			return (true);
	return (false);
}

/* Give a region up, if nothing in this program would miss it. */
void
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
	/* Who is asked to cancel is asked by what it was then. */
	for (i = 0; i < PIECES; i++)
		if (w.flights[i].piece != NULL &&
		    (n->guard != NULL || n->lock != NULL))
			return;
	mt_region_put(n->r);
	n->r = NULL;
}

void
add(struct node *parent, struct node *child)
{
	const mt_addr off = pick_addr();
	const int prio = (int8_t)next(&w.in, 1) / 32;

	if (parent->r == NULL || child->r == NULL)
		return;
	if (went(mt_region_add(parent->r, child->r, off, prio), EBUSY,
	    ELOOP)) {
		child->x.seq = ++w.seq;
		child->used = true;
	}
}

void
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
		/* In front of its equals, unless it stays. */
		if (went(mt_region_move(n->r, addr), ENOENT, 0) && moves)
			n->x.seq = ++w.seq;
		break;
	case 1:
		went(mt_region_resize(n->r, addr),
		    addr > mt_region_max_last(n->r) ? EINVAL : 0, 0);
		break;
	case 2:
		went(mt_region_set_enabled(n->r, on), 0, 0);
		break;
	case 3:
		went(mt_region_set_readonly(n->r, on), EINVAL, 0);
		break;
	case 4:
		went((addr & 2) != 0 ? mt_region_set_unmergeable(n->r, on) :
		    mt_region_set_nonvolatile(n->r, on), 0, 0);
		break;
	case 5:
		went(mt_region_set_rom_mode(n->r, on), EINVAL, 0);
		break;
	case 6:
		went(mt_region_set_alias_offset(n->r, addr), EINVAL, 0);
		break;
	}
}
