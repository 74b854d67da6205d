/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_DIRTY_H
#define T_DIRTY_H

/* Memory that is logged, and what has been marked of it. */

#include "t/util.h"

#define PAGE		0x1000
#define PAGES		200		/* of the RAM: more than three words */
#define RW		(MT_DMA_READ | MT_DMA_WRITE)
#define C		3u		/* the client that most tests are */

struct world {
	struct mt_topology *t;
	struct mt_region *root, *ram, *rom, *alias;
	struct mt_space *sp, *other;
	struct t_dev dev;
};

/* 0 ram, 10 pages of it at 200000 again, io at 100000, rom at 101000. */
static void
begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x1000000);
	w->ram = t_add(w->root, 0, 0, t_ram(w->t, "ram", PAGES * PAGE));
	t_add(w->root, 0x100000, 0, t_io(w->t, "io", PAGE, &w->dev));
	w->rom = t_add(w->root, 0x101000, 0, t_rom(w->t, "rom", 2 * PAGE));
	w->alias = t_add(w->root, 0x200000, 0, t_alias(w->t, "alias", w->ram,
	    5 * PAGE, 10 * PAGE));
	w->sp = t_space(w->root);
	w->other = t_space(w->alias);
}

static void
end(struct world *w)
{
	must(mt_space_destroy(w->other) == 0);
	t_end_space(w->t, w->sp, w->root);
}

static size_t
size_of(const struct mt_region *r)
{
	return ((size_t)mt_region_last(r) + 1);
}

/* The pages in a snapshot as "1 3-4". */
static const char *
snapshot_text(const struct mt_dirty_snapshot *s)
{
	struct mt_range run;
	char *text = t_text();
	mt_addr at;

	for (at = 0; mt_dirty_snapshot_next(s, at, &run); at = run.last + 1) {
		t_append(text, "%s%u", at != 0 ? " " : "",
		    (unsigned int)(run.first / PAGE));
		if (run.last / PAGE != run.first / PAGE)
			t_append(text, "-%u",
			    (unsigned int)(run.last / PAGE));
	}
	return (text[0] == ' ' ? text + 1 : text);
}

/* What was written since the last look. */
static const char *
dirty(struct mt_region *r, unsigned int client)
{
	struct mt_dirty_snapshot *s;
	const char *text;

	s = mt_dirty_snapshot_create(r, client, 0, size_of(r));
	must(s != NULL);
	text = snapshot_text(s);
	mt_dirty_snapshot_destroy(s);
	return (text);
}
#define is_dirty(r, want, ...)	is_str(dirty(r, C), want, __VA_ARGS__)

static void
log_on(struct mt_region *r)
{
	must(mt_region_set_log(r, C, true) == 0);
	dirty(r, C);
}

#endif
