/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* What the spaces should show: a walk of the tree, asked address by address. */

#include "t/fuzz/tree.h"

struct answer {
	struct mt_region *r;		/* NULL: nobody */
	mt_addr off;
	unsigned int flags;
};

static bool
wins(const struct node *a, const struct node *b)
{
	const int pa = mt_region_prio(a->r), pb = mt_region_prio(b->r);

	return (pa != pb ? pa > pb : a->x.seq > b->x.seq);
}

struct answer
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

bool
same(const struct mt_section *a, const struct mt_section *b)
{
	return (a->range.first == b->range.first &&
	    a->range.last == b->range.last && a->region == b->region &&
	    a->off == b->off && a->flags == b->flags);
}

/* Ascending, apart, and with neighbours merged that continue each other. */
size_t
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
	if (s != NULL && s->listening)
		check_told(s, v);
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

void
check_all(void)
{
	size_t i;

	if (w.depth > 0)
		return;
	for (i = 0; i < SPACES; i++)
		if (w.seats[i].sp != NULL)
			check_space(&w.seats[i]);
	for (i = 0; i < NODES; i++) {
		if (w.nodes[i].r == NULL)
			continue;
		check_log(&w.nodes[i]);
		check(!w.nodes[i].hears ||
		    w.nodes[i].heard == mt_region_last(w.nodes[i].r));
	}
}

struct node *
node_of(const struct mt_region *r)
{
	struct node *n;

	for (n = w.nodes; n < w.nodes + NODES; n++)
		if (n->r == r)
			return (n);
	return (NULL);
}

/* --- transactions -------------------------------------------------------- */

static struct shape
shape_of(const struct mt_region *r)
{
	return ((struct shape){
		.parent = mt_region_parent(r),
		.addr = mt_region_addr(r),
		.last = mt_region_last(r),
		.alias_off = mt_region_alias_offset(r),
		.prio = mt_region_prio(r),
		.flags = (unsigned int)mt_region_enabled(r) |
		    (unsigned int)mt_region_readonly(r) << 1 |
		    (unsigned int)mt_region_nonvolatile(r) << 2 |
		    (unsigned int)mt_region_unmergeable(r) << 3 |
		    (unsigned int)mt_region_rom_mode(r) << 4,
	});
}

void
begin(void)
{
	struct node *n;

	check(mt_topology_begin(w.t) == 0);
	if (w.depth++ != 0)
		return;
	for (n = w.nodes; n < w.nodes + NODES; n++) {
		n->is_old = n->r != NULL;
		if (!n->is_old)
			continue;
		n->x_was = n->x;
		n->was = shape_of(n->r);
	}
}

/* All is as it was when the outermost transaction began. */
static void
rolled_back(void)
{
	struct node *n;
	struct shape now;

	for (n = w.nodes; n < w.nodes + NODES; n++) {
		if (n->r == NULL)
			continue;
		now = shape_of(n->r);
		if (!n->is_old) {
			check(now.parent == NULL);
			n->x = (struct extra){ 0 };
			continue;
		}
		n->x = n->x_was;
		check(now.parent == n->was.parent &&
		    now.last == n->was.last &&
		    now.alias_off == n->was.alias_off &&
		    now.flags == n->was.flags);
		/* Of no meaning without a parent, but they are taken back. */
		check(now.addr == n->was.addr && now.prio == n->was.prio);
	}
}

void
commit(void)
{
	if (--w.depth > 0) {
		check(mt_topology_commit(w.t) == 0);
		return;
	}
	if (went(mt_topology_commit(w.t), 0, 0))
		logs_committed();
	else
		rolled_back();
}
