/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A tree as a graph for Graphviz.  Regions are numbered in the order in which
 * they are listed, so that one and the same tree gives the same text.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <bsd/stdlib.h>

#include "internal.h"

/* Where in the list a region is; ordered by its address in memory. */
struct number {
	const struct mt_region *region;
	size_t i;
};

static int
compare(const void *a, const void *b)
{
	const uintptr_t x = (uintptr_t)((const struct number *)a)->region;
	const uintptr_t y = (uintptr_t)((const struct number *)b)->region;

	return (x < y ? -1 : x > y);
}

/* Inside a string in quotes. */
static void
put_name(FILE *fp, const char *name)
{
	char c[4];
	size_t n;

	while ((n = mt__dump_char(&name, c)) > 0) {
		if (c[0] == '"' || c[0] == '\\')
			fputc('\\', fp);
		fwrite(c, 1, n, fp);
	}
}

static void
put_node(FILE *fp, const struct mt__dump_entry *e, size_t i)
{
	const struct mt_region *r = e->region;
	const struct mt__state *s = &r->state;
	mt_addr end = s->last > MT_LAST_MAX - e->base ? MT_LAST_MAX :
	    e->base + s->last;

	fprintf(fp, "\tn%zu [label=\"", i);
	put_name(fp, r->name);
	fprintf(fp, "\\n%" PRIx64 " - %" PRIx64 "\\n", e->base, end);
	if (e->parent != MT__NO_PARENT)
		fprintf(fp, "prio %d, ", s->prio);
	fprintf(fp, "%s%s", s->nonvolatile ? "nv-" : "",
	    mt__dump_kind(r->kind));
	if (r->kind == MT_ALIAS)
		fprintf(fp, " @%" PRIx64, s->alias_off);
	if (s->readonly && r->kind != MT_ROM)
		fputs(", read-only", fp);
	if (s->unmergeable)
		fputs(", unmergeable", fp);
	if (r->kind == MT_ROM_DEVICE && !s->rom_mode)
		fputs(", i/o mode", fp);
	if (!s->enabled)
		fputs(", disabled", fp);
	fputc('"', fp);
	if (e->hidden)
		fputs(", style=\"filled,dashed\", fillcolor=\"#f4f4f4\", "
		    "color=\"#aaaaaa\", fontcolor=\"#999999\"", fp);
	else
		fprintf(fp, ", fillcolor=\"%s\"", mt__dump_colour(r->kind));
	fputs("];\n", fp);
}

/* To a child from its parent, and to what an alias shows. */
static void
put_edges(FILE *fp, const struct mt__dump *d, size_t i,
    const struct number *numbers)
{
	const struct mt__dump_entry *e = &d->list[i];
	const struct number *target, key = { mt__target_of(e->region), 0 };

	if (e->parent != MT__NO_PARENT)
		fprintf(fp, "\tn%zu -> n%zu%s;\n", e->parent, i,
		    e->hidden ? " [color=\"#bbbbbb\"]" : "");
	if (e->region->kind != MT_ALIAS)
		return;
	target = bsearch(&key, numbers, d->n, sizeof(key), compare);
	fprintf(fp, "\tn%zu -> n%zu [style=dashed, color=\"%s\"%s];\n", i,
	    target->i, e->hidden ? "#aabbcc" : "#3060a0",
	    /* What is a tree of its own stands to the right of its aliases. */
	    d->list[target->i].parent == MT__NO_PARENT && target->i > 0 ? "" :
	    ", constraint=false, tailport=e, headport=e");
}

static struct number *
number(const struct mt__dump *d)
{
	struct number *numbers;
	size_t i;

	if ((numbers = reallocarray(NULL, d->n, sizeof(*numbers))) == NULL)
		return (NULL);
	for (i = 0; i < d->n; i++)
		numbers[i] = (struct number){ d->list[i].region, i };
	qsort(numbers, d->n, sizeof(*numbers), compare);
	return (numbers);
}

int
mt_dump_dot(FILE *fp, struct mt_region *root)
{
	struct mt_topology *t = root->topology;
	struct number *numbers = NULL;
	struct mt__dump d;
	size_t i;
	int ret;

	if (mt_topology_begin(t) == -1)
		return (-1);
	ret = mt__dump_collect(&d, root);
	if (ret == 0 && (numbers = number(&d)) == NULL)
		ret = -1;
	if (ret == 0) {
		fputs("digraph \"", fp);
		put_name(fp, root->name);
		fputs("\" {\n"
		    "\tgraph [rankdir=LR, ordering=out, nodesep=0.12, "
		    "ranksep=0.7];\n"
		    "\tnode [shape=box, style=filled, fontname=\"monospace\", "
		    "fontsize=10, height=0.3, margin=\"0.12,0.04\"];\n"
		    "\tedge [arrowsize=0.6];\n", fp);
		for (i = 0; i < d.n; i++)
			put_node(fp, &d.list[i], i);
		for (i = 0; i < d.n; i++)
			put_edges(fp, &d, i, numbers);
		fputs("}\n", fp);
	}
	free(numbers);
	free(d.list);
	(void)mt_topology_commit(t);
	if (ret == -1) {
		errno = ENOMEM;
		return (-1);
	}
	return (ferror(fp) ? -1 : 0);
}
