/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Dumps as text, and what the other formats share with them. */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/stdlib.h>

#include "internal.h"

static const struct {
	const char *name;
	const char *colour;
} kinds[] = {
	[MT_CONTAINER] = { "container", "#eeeeee" },
	[MT_ALIAS] = { "alias", "#ffffff" },
	[MT_RAM] = { "ram", "#b9e3a6" },
	[MT_ROM] = { "rom", "#f2dea0" },
	[MT_ROM_DEVICE] = { "romd", "#f7bf8a" },
	[MT_RAM_DEVICE] = { "ramd", "#8fd6c8" },
	[MT_IO] = { "i/o", "#aed0f2" },
	[MT_RESERVED] = { "reserved", "#d5c8ea" },
	[MT_IOMMU] = { "iommu", "#f4b6c6" },
};

const char *
mt__dump_kind(enum mt_kind kind)
{
	return (kinds[kind].name);
}

const char *
mt__dump_colour(enum mt_kind kind)
{
	return (kinds[kind].colour);
}

size_t
mt__dump_char(const char **name, char out[4])
{
	const unsigned char *s = (const unsigned char *)*name;
	uint32_t c = s[0];
	size_t len = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 :
	    c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0, i;
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };

	if (c == '\0')
		return (0);
	if (len > 1)
		c &= 0x7fu >> len;
	for (i = 1; i < len; i++) {
		if ((s[i] & 0xc0) != 0x80)
			break;
		c = c << 6 | (s[i] & 0x3fu);
	}
	/* Too long a form, half a pair, a control or no character at all. */
	if (len == 0 || i < len || c < least[len] || c > 0x10ffff ||
	    c < 0x20 || (c >= 0x7f && c < 0xa0) || (c & ~0x7ffu) == 0xd800 ||
	    (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef)) {
		memcpy(out, "\xef\xbf\xbd", 3);
		*name += len != 0 && i == len ? len : 1;
		return (3);
	}
	memcpy(out, s, len);
	*name += len;
	return (len);
}

static int
append(struct mt__dump *d, struct mt_region *r, size_t parent)
{
	const struct mt__dump_entry *above;
	struct mt__dump_entry *list, e = {
		.region = r, .parent = parent, .hidden = !r->state.enabled,
	};

	if (d->n == d->room) {
		list = reallocarray(d->list, d->room * 2 + 16, sizeof(*list));
		if (list == NULL)
			return (-1);
		d->list = list;
		d->room = d->room * 2 + 16;
	}
	if (parent != MT__NO_PARENT) {
		above = &d->list[parent];
		e.base = above->base + r->state.addr;
		e.depth = above->depth + 1;
		e.hidden |= above->hidden;
	}
	d->list[d->n++] = e;
	/* Where r is listed, it need not be listed as a target. */
	r->visited = r->topology->visit;
	return (0);
}

/* A tree: what is left to do of each level is on the stack of scratch. */
static int
collect(struct mt__dump *d, struct mt_region *r)
{
	struct mt_topology *t = r->topology;
	size_t bottom = t->scratch_n, parent = MT__NO_PARENT;

	while (append(d, r, parent) == 0 &&
	    mt__children_push(r, 0, MT_LAST_MAX) == 0) {
		if (t->scratch_n == bottom)
			return (0);
		r = t->scratch[--t->scratch_n];
		/* It is below the last one, or one of those above that. */
		for (parent = d->n - 1;
		    d->list[parent].region != r->state.parent;
		    parent = d->list[parent].parent)
			continue;
	}
	t->scratch_n = bottom;
	return (-1);
}

int
mt__dump_collect(struct mt__dump *d, struct mt_region *root)
{
	struct mt_topology *t = root->topology;
	struct mt_region *r;
	size_t i;

	memset(d, 0, sizeof(*d));
	t->visit++;
	if (collect(d, root) == -1)
		goto nomem;
	/* The list grows while targets have aliases of their own. */
	for (i = 0; i < d->n; i++) {
		r = mt__target_of(d->list[i].region);
		if (r != NULL && r->visited != t->visit &&
		    collect(d, r) == -1)
			goto nomem;
	}
	return (0);
nomem:
	errno = ENOMEM;
	return (-1);
}

/* No name is to pass for a line of its own, or to talk to the terminal. */
static void
dump_name(FILE *fp, const char *before, const char *name)
{
	char c[4];
	size_t n;

	fputs(before, fp);
	while ((n = mt__dump_char(&name, c)) > 0)
		fwrite(c, 1, n, fp);
}

static void
dump_line(FILE *fp, const struct mt_region *r, mt_addr base,
    unsigned int depth)
{
	const struct mt__state *s = &r->state;
	/* A region may be placed so that its end is past all addresses. */
	mt_addr end = s->last > MT_LAST_MAX - base ? MT_LAST_MAX :
	    base + s->last;

	fprintf(fp, "%*s%016" PRIx64 "-%016" PRIx64 " (prio %d, %s%s)",
	    (int)depth * 2, "", base, end, s->prio,
	    s->nonvolatile ? "nv-" : "", mt__dump_kind(r->kind));
	dump_name(fp, ": ", r->name);
	if (r->kind == MT_ALIAS) {
		dump_name(fp, " -> ", mt__target_of(r)->name);
		fprintf(fp, " @%016" PRIx64, s->alias_off);
	}
	if (s->readonly && r->kind != MT_ROM)
		fputs(" [read-only]", fp);
	if (s->unmergeable)
		fputs(" [unmergeable]", fp);
	if (r->kind == MT_ROM_DEVICE && !s->rom_mode)
		fputs(" [i/o mode]", fp);
	if (!s->enabled)
		fputs(" [disabled]", fp);
	fputc('\n', fp);
}

/* Where what a region has besides is printed, and how its offsets are. */
struct extras_dump {
	FILE *fp;
	int indent;
	const struct mt__span *span;	/* as its addresses; NULL: offsets */
};

static void
dump_eventfd(void *arg, const struct mt__eventfd *ev)
{
	const struct extras_dump *d = arg;
	mt_addr at = ev->off;

	if (d->span != NULL) {
		at = d->span->range.first + (ev->off - d->span->off);
		if (!mt__eventfd_shown(d->span, at, ev))
			return;
	}
	fprintf(d->fp, "%*seventfd %s%016" PRIx64 ", size ", d->indent, "",
	    d->span != NULL ? "" : "@", at);
	if (ev->size == 0)
		fputs("any", d->fp);
	else
		fprintf(d->fp, "%u", ev->size);
	if (ev->match)
		fprintf(d->fp, ", data %" PRIx64, ev->data);
	fputc('\n', d->fp);
}

static void
dump_range(const struct extras_dump *d, struct mt_range range)
{
	if (d->span != NULL && !mt__coalesce_shown(d->span, &range, &range))
		return;
	fprintf(d->fp, "%*scoalescing %s%016" PRIx64 "-%016" PRIx64 "\n",
	    d->indent, "", d->span != NULL ? "" : "@", range.first,
	    range.last);
}

static void
dump_extras(struct extras_dump *d, const struct mt__extras *x)
{
	struct mt_range range = { 0, MT_LAST_MAX };
	size_t i;

	if (x == NULL)
		return;
	if (d->span != NULL) {
		range.first = d->span->off;
		range.last = d->span->off +
		    (d->span->range.last - d->span->range.first);
	}
	for (i = 0; i < x->nranges; i++)
		dump_range(d, x->ranges[i]);
	mt__eventfds_diff(x->eventfds, NULL, range, dump_eventfd, d);
}

int
mt_dump_tree(FILE *fp, struct mt_region *root)
{
	struct mt_topology *t = root->topology;
	struct extras_dump x = { .fp = fp };
	const struct mt__dump_entry *e;
	unsigned int indent = 0;
	struct mt__dump d;
	size_t i;
	int ret;

	if (mt_topology_begin(t) == -1)
		return (-1);
	ret = mt__dump_collect(&d, root);
	for (i = 0; ret == 0 && i < d.n; i++) {
		e = &d.list[i];
		if (e->parent == MT__NO_PARENT && i > 0) {
			dump_name(fp, "target ", e->region->name);
			fputs(":\n", fp);
			indent = 1;
		}
		dump_line(fp, e->region, e->base, e->depth + indent);
		x.indent = (int)(e->depth + indent) * 2 + 2;
		dump_extras(&x, e->region->state.extras);
	}
	free(d.list);
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
	struct extras_dump x = { .fp = fp, .indent = 4 };
	size_t n = mt_view_count(v);
	struct mt_section sec;
	mt_addr at = 0;

	dump_name(fp, "space ", mt_space_name(sp));
	dump_name(fp, ", root ", mt_space_root(sp)->name);
	fprintf(fp, ", %zu section%s\n", n, n == 1 ? "" : "s");
	while ((x.span = mt__view_search(v, at)) != NULL) {
		mt__section_of(x.span, &sec);
		fprintf(fp, "  %016" PRIx64 "-%016" PRIx64 " (%s%s%s)",
		    sec.range.first, sec.range.last,
		    (sec.flags & MT_SECTION_NONVOLATILE) != 0 ? "nv-" : "",
		    mt__dump_kind(sec.region->kind),
		    (sec.flags & MT_SECTION_ROM_MODE) != 0 ? ", rom mode" :
		    "");
		dump_name(fp, ": ", sec.region->name);
		if (sec.off != 0)
			fprintf(fp, " @%016" PRIx64, sec.off);
		if ((sec.flags & MT_SECTION_READONLY) != 0 &&
		    sec.region->kind != MT_ROM)
			fputs(" [read-only]", fp);
		if ((sec.flags & MT_SECTION_UNMERGEABLE) != 0)
			fputs(" [unmergeable]", fp);
		fputc('\n', fp);
		dump_extras(&x, x.span->extras);
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	mt_view_put(v);
	return (ferror(fp) ? -1 : 0);
}
