/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <bsd/stdlib.h>

#include "internal.h"

static const char *
kind_name(enum mt_kind kind)
{
	switch (kind) {
	case MT_CONTAINER:
		return ("container");
	case MT_ALIAS:
		return ("alias");
	case MT_RAM:
		return ("ram");
	case MT_ROM:
		return ("rom");
	case MT_ROM_DEVICE:
		return ("romd");
	case MT_IO:
		return ("i/o");
	case MT_RESERVED:
		return ("reserved");
	}
	return ("?");
}

/* Targets of aliases that are still to be written, each once. */
struct targets {
	struct mt_region **list;
	size_t n;
	size_t room;
};

static int
remember(struct targets *targets, struct mt_region *r)
{
	struct mt_region **list;
	size_t i;

	for (i = 0; i < targets->n; i++)
		if (targets->list[i] == r)
			return (0);
	if (targets->n == targets->room) {
		list = reallocarray(targets->list, targets->room * 2 + 8,
		    sizeof(*list));
		if (list == NULL)
			return (-1);
		targets->list = list;
		targets->room = targets->room * 2 + 8;
	}
	targets->list[targets->n++] = r;
	return (0);
}

static void
dump_line(FILE *fp, const struct mt_region *r, mt_addr base,
    unsigned int depth)
{
	const struct mt__state *s = &r->state;
	/* A region may be placed so that its end is past all addresses. */
	mt_addr end = s->last > MT_LAST_MAX - base ? MT_LAST_MAX :
	    base + s->last;

	fprintf(fp, "%*s%016" PRIx64 "-%016" PRIx64 " (prio %d, %s%s): %s",
	    (int)depth * 2, "", base, end, s->prio,
	    s->nonvolatile ? "nv-" : "", kind_name(r->kind), r->name);
	if (r->kind == MT_ALIAS)
		fprintf(fp, " -> %s @%016" PRIx64, r->target->name,
		    s->alias_off);
	if (s->readonly && r->kind != MT_ROM)
		fputs(" [read-only]", fp);
	if (r->kind == MT_ROM_DEVICE && !s->rom_mode)
		fputs(" [i/o mode]", fp);
	if (!s->enabled)
		fputs(" [disabled]", fp);
	fputc('\n', fp);
}

static int
dump_tree(FILE *fp, struct mt_region *r, mt_addr base, unsigned int depth,
    struct targets *targets)
{
	struct mt_topology *t = r->topology;
	size_t i, bottom = t->scratch_n, top;
	struct mt_region *child;
	int ret = 0;

	dump_line(fp, r, base, depth);
	/* Where r is written, it need not be written as a target. */
	r->visited = t->visit;
	if (r->kind == MT_ALIAS && remember(targets, r->target) == -1)
		return (-1);
	if (mt__children_push(r, 0, MT_LAST_MAX) == -1)
		return (-1);
	top = t->scratch_n;
	for (i = bottom; i < top && ret == 0; i++) {
		child = t->scratch[i];
		ret = dump_tree(fp, child, base + child->state.addr,
		    depth + 1, targets);
	}
	t->scratch_n = bottom;
	return (ret);
}

int
mt_dump_tree(FILE *fp, struct mt_region *root)
{
	struct mt_topology *t = root->topology;
	struct targets targets = { NULL, 0, 0 };
	struct mt_region *r;
	size_t i;
	int ret;

	if (mt_topology_begin(t) == -1)
		return (-1);
	t->visit++;
	ret = dump_tree(fp, root, 0, 0, &targets);
	/* The list grows while targets have aliases of their own. */
	for (i = 0; ret == 0 && i < targets.n; i++) {
		r = targets.list[i];
		if (r->visited == t->visit)
			continue;
		fprintf(fp, "target %s:\n", r->name);
		ret = dump_tree(fp, r, 0, 1, &targets);
	}
	free(targets.list);
	(void)mt_topology_commit(t);
	if (ret == -1) {
		errno = ENOMEM;
		return (-1);
	}
	return (ferror(fp) ? -1 : 0);
}

int
mt_dump_view(FILE *fp, struct mt_space *sp)
{
	struct mt_view *v = mt_space_view(sp);
	const struct mt__span *span = mt__view_search(v, 0);

	fprintf(fp, "space %s, root %s, %zu section%s\n", sp->name,
	    sp->root->region->name, v->count, v->count == 1 ? "" : "s");
	while (span != NULL) {
		fprintf(fp, "  %016" PRIx64 "-%016" PRIx64 " (%s%s%s): %s",
		    span->range.first, span->range.last,
		    (span->flags & MT_SECTION_NONVOLATILE) != 0 ? "nv-" : "",
		    kind_name(span->region->kind),
		    (span->flags & MT_SECTION_ROM_MODE) != 0 ? ", rom mode" :
		    "", span->region->name);
		if (span->off != 0)
			fprintf(fp, " @%016" PRIx64, span->off);
		if ((span->flags & MT_SECTION_READONLY) != 0 &&
		    span->region->kind != MT_ROM)
			fputs(" [read-only]", fp);
		fputc('\n', fp);
		span = span->range.last == MT_LAST_MAX ? NULL :
		    mt__view_search(v, span->range.last + 1);
	}
	mt_view_put(v);
	return (ferror(fp) ? -1 : 0);
}
