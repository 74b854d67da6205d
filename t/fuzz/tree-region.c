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
	if (mt_region_add(parent->r, child->r, off, prio) == 0)
		child->seq = ++w.seq;
	else
		check(errno == EBUSY || errno == ELOOP);
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
