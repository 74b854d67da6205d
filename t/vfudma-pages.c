/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Regions of a device that are smaller than a page are mapped while a space
 * leaves them their page, and only then.  First sizes around a page, then
 * random trees: the small BARs of two devices, other names for them, and
 * neighbours come, go and move in a few pages, the last one that there is
 * among them.  After each step it is worked out from the views alone, by
 * names, which of the BARs have to be mapped.
 *
 * T_COUNT worlds are made from T_SEED, T_SEED + 1, ...; the one that fails is
 * named.
 */

#include "t/machine.h"

#define LAST_PAGE	(-(mt_addr)PAGE)
#define FIRST_PAGE	((mt_addr)0x10000)
#define PAGES		3u		/* and the last one */
#define PART		(2 * PAGE + 0x800)	/* of space 0 in space 1 */
#define DEVICES		2u
#define NEIGHBOURS	4u
#define SPACES		2u
#define STEPS		500u		/* in the life of a world */
#define SECTIONS	64u

/* --- sizes ---------------------------------------------------------------- */

/* A table that is not mapped takes its page along, so here all of the BAR. */
static void
test_sizes(void)
{
	static const struct {
		const char *name;
		uint64_t size;
		uint32_t table;
		unsigned int vectors;
		const char *before, *watched;
	} cases[] = {
		{ "a page", PAGE, 0, 0,
		    "fffffffffffff000-ffffffffffffffff bar0, mapped+0",
		    "fffffffffffff000-ffffffffffffffff bar0, mapped+0" },
		{ "a page with an MSI-X table", PAGE, 0, 2,
		    "fffffffffffff000-ffffffffffffffff bar0+0",
		    "fffffffffffff000-ffffffffffffffff bar0+0" },
		{ "256 bytes with a table inside", 256, 128, 2,
		    "fffffffffffff000-fffffffffffff0ff bar0+0",
		    "fffffffffffff000-fffffffffffff0ff bar0+0" },
		{ "256 bytes with a table up to the end", 256, 224, 2,
		    "fffffffffffff000-fffffffffffff0ff bar0+0",
		    "fffffffffffff000-fffffffffffff0ff bar0+0" },
		{ "256 bytes with a table from the end", 256, 256, 2,
		    "fffffffffffff000-fffffffffffff0ff bar0+0",
		    "fffffffffffff000-ffffffffffffffff bar0, mapped+0" },
		{ "2048 bytes", 2048, 0, 0,
		    "fffffffffffff000-fffffffffffff7ff bar0+0",
		    "fffffffffffff000-ffffffffffffffff bar0, mapped+0" },
	};

	for (size_t i = 0; i < T_COUNT(cases); i++) {
		const struct m_options o = { .bar0 = cases[i].size,
		    .table = cases[i].table, .vectors = cases[i].vectors,
		    .no_regs = true };
		struct m_device d;
		struct m_machine m;

		m_start(&d, &o);
		m_connect(&m, &d);
		m_add_bar(&m, 0, LAST_PAGE, 0, VD_CLIENT_WHOLE_PAGE);
		is_view(m.sp, cases[i].before, "%s", cases[i].name);
		must(vd_client_watch_pages(m.c, m.sp) == 0);
		is_view(m.sp, cases[i].watched, "%s, watched", cases[i].name);
		must(vd_client_unwatch_pages(m.c) == 0);
		is_view(m.sp, cases[i].before, "%s, not any more",
		    cases[i].name);
		m_disconnect(&m, false);
		m_stop(&d);
	}
}

/* --- worlds --------------------------------------------------------------- */

struct device {
	struct m_device d;
	struct vd_client *c;
	struct mt_region *bar;
	struct mt_region *other;	/* an alias of it */
	char name[8];
	bool whole;			/* VD_CLIENT_WHOLE_PAGE */
	bool direct;
	unsigned int watched;		/* space; SPACES: none */
};

/* What a space shows. */
struct shown {
	struct mt_view *v;
	struct mt_section sec[SECTIONS];
	unsigned int n;
};

struct world {
	uint64_t seed;
	struct mt_topology *t;
	struct mt_region *root, *window, *sub, *part;
	struct mt_region *near[NEIGHBOURS];
	struct mt_space *sp[SPACES];
	bool is_window;			/* the root of space 0 is an alias */
	struct device dev[DEVICES];
	struct shown shown[SPACES];
	char was[SPACES][T_TEXT];	/* before the last step */
	unsigned int step;
	bool failed;
};

static uint64_t
below(struct world *w, uint64_t n)
{
	return (t_below(&w->seed, n));
}

static void
begin_device(struct world *w, unsigned int i)
{
	static const struct m_options o = { .small = true, .no_regs = true };
	struct device *dev = &w->dev[i];

	m_start(&dev->d, &o);
	must((dev->c = vd_client_attach(dev->d.fd)) != NULL);
	snprintf(dev->name, sizeof(dev->name), "dev%u", i);
	dev->whole = below(w, 2) == 0;
	dev->direct = true;
	dev->watched = SPACES;
	dev->bar = vd_client_region_create(dev->c, w->t, 4, dev->name,
	    dev->whole ? VD_CLIENT_WHOLE_PAGE : 0);
	must(dev->bar != NULL);
	dev->other = t_alias(w->t, "other", dev->bar, 0, M_SMALL);
}

static void
begin_world(struct world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->t = t_topology();
	w->root = t_container(w->t, "root", T_ALL);
	w->sub = t_container(w->t, "sub", T_ALL);
	must(mt_region_add(w->root, w->sub, 0, 0) == 0);
	w->window = t_alias(w->t, "window", w->root, 0, T_ALL);
	w->part = t_container(w->t, "part", T_ALL);
	t_add(w->part, 0, 0, t_alias(w->t, "shows", w->root, FIRST_PAGE,
	    PART));
	w->is_window = below(w, 4) == 0;
	w->sp[0] = t_space(w->is_window ? w->window : w->root);
	w->sp[1] = t_space(w->part);
	for (unsigned int i = 0; i < DEVICES; i++)
		begin_device(w, i);
	for (unsigned int i = 0; i < NEIGHBOURS; i++)
		w->near[i] = t_reserved(w->t, "near", 16);
}

static void
take_out(struct mt_region *r)
{
	if (mt_region_parent(r) != NULL)
		must(mt_region_del(r) == 0);
	mt_region_put(r);
}

/* A client may go while it watches, and its regions after it. */
static void
end_device(struct world *w, struct device *dev)
{
	bool client_first = below(w, 2) == 0;

	if (dev->watched != SPACES && below(w, 2) == 0)
		must(vd_client_unwatch_pages(dev->c) == 0);
	if (client_first)
		vd_client_destroy(dev->c);
	take_out(dev->bar);
	take_out(dev->other);
	if (!client_first)
		vd_client_destroy(dev->c);
}

static void
end_world(struct world *w)
{
	for (unsigned int i = 0; i < DEVICES; i++)
		end_device(w, &w->dev[i]);
	for (unsigned int i = 0; i < NEIGHBOURS; i++)
		take_out(w->near[i]);
	for (unsigned int i = 0; i < SPACES; i++)
		must(mt_space_destroy(w->sp[i]) == 0);
	mt_region_put(w->window);
	mt_region_put(w->part);
	mt_region_put(w->sub);
	mt_region_put(w->root);
	must(mt_topology_destroy(w->t) == 0);
	for (unsigned int i = 0; i < DEVICES; i++)
		m_stop(&w->dev[i].d);
}

/* --- what has to be ------------------------------------------------------- */

/* Why a BAR is not mapped; the first that is true. */
enum state {
	UNWATCHED,
	INDIRECT,			/* vd_client_set_direct() is off */
	HIDDEN,				/* its first byte is */
	TWICE,				/* its first byte is there */
	INSIDE,				/* a page, not at its start */
	CROWDED,
	ALONE,				/* it is mapped */
	STATES
};

static const char *const states[STATES] = { "nobody watches",
    "nothing is direct", "it is hidden", "it is there twice",
    "it is inside a page", "others are in its page", "it is alone" };

/* Messages and mapping alike: the mapping is "dev0, mapped". */
static bool
is_of(const struct device *dev, const struct mt_section *sec)
{
	const char *name = mt_region_name(sec->region);
	size_t len = strlen(dev->name);

	return (strncmp(name, dev->name, len) == 0 &&
	    (name[len] == '\0' || name[len] == ','));
}

static bool
is_alone_at(const struct device *dev, const struct shown *s, mt_addr at)
{
	for (unsigned int i = 0; i < s->n; i++) {
		const struct mt_section *sec = &s->sec[i];

		if (sec->range.last < at || sec->range.first > at + (PAGE - 1))
			continue;
		if (!is_of(dev, sec) || sec->range.first - sec->off != at)
			return (false);
	}
	return (true);
}

/* *at is where it is, if it is ALONE. */
static enum state
state_of(const struct world *w, const struct device *dev, mt_addr *at)
{
	const struct shown *s;
	unsigned int times = 0;

	if (dev->watched == SPACES)
		return (UNWATCHED);
	if (!dev->direct)
		return (INDIRECT);
	s = &w->shown[dev->watched];
	for (unsigned int i = 0; i < s->n; i++)
		if (is_of(dev, &s->sec[i]) && s->sec[i].off == 0) {
			*at = s->sec[i].range.first;
			times++;
		}
	if (times != 1)
		return (times == 0 ? HIDDEN : TWICE);
	if (*at % PAGE != 0)
		return (INSIDE);
	return (is_alone_at(dev, s, *at) ? ALONE : CROWDED);
}

/* --- what is -------------------------------------------------------------- */

static void
look(struct shown *s, struct mt_space *sp)
{
	mt_addr at = 0;

	s->v = mt_space_view(sp);
	s->n = 0;
	while (mt_view_next(s->v, at, &s->sec[s->n])) {
		at = s->sec[s->n].range.last + 1;
		must(++s->n < SECTIONS);
		if (at == 0)
			break;
	}
}

static void
wrong(struct world *w, const struct device *dev, enum state state,
    const char *what, unsigned int s)
{
	diag("step %u: %s, and %s of %s in space %u", w->step, states[state],
	    what, dev->name, s);
	diag("was %s", w->was[s]);
	diag("is %s", t_space_text(w->sp[s]));
	w->failed = true;
}

/*
 * A space that is not watched shows the same memory, or none; but where the
 * page behind the BAR is shown, there has to be the BAR in front of it.
 */
static void
check_space(struct world *w, const struct device *dev, enum state state,
    bool whole, unsigned int s)
{
	enum mt_kind kind = state == ALONE ? MT_RAM_DEVICE : MT_IO;

	for (unsigned int i = 0; i < w->shown[s].n && !w->failed; i++) {
		const struct mt_section *sec = &w->shown[s].sec[i];
		mt_addr len = sec->range.last - sec->range.first + 1;

		if (!is_of(dev, sec))
			continue;
		if (mt_region_kind(sec->region) != kind)
			wrong(w, dev, state, state == ALONE ? "not all" :
			    "something is mapped", s);
		else if (sec->off + len > M_SMALL &&
		    (!whole || sec->off != 0 || sec->range.first % PAGE != 0))
			wrong(w, dev, state, "bytes of the page behind", s);
	}
}

static enum state
check_device(struct world *w, const struct device *dev)
{
	unsigned int watched = dev->watched;
	struct mt_section sec;
	mt_addr at = 0;
	enum state state = state_of(w, dev, &at);
	/* Behind what an alias shows there is no place for the page's rest. */
	bool whole = state == ALONE && dev->whole &&
	    !(watched == 0 && w->is_window);

	for (unsigned int s = 0; s < SPACES && !w->failed; s++)
		check_space(w, dev, state, whole, s);
	if (w->failed || state != ALONE)
		return (state);
	if (!mt_view_next(w->shown[watched].v, at, &sec) ||
	    sec.range.first != at ||
	    sec.range.last != at + ((whole ? PAGE : M_SMALL) - 1))
		wrong(w, dev, state, "not just what is to be mapped", watched);
	return (state);
}

static void
check_world(struct world *w, unsigned long counts[STATES])
{
	for (unsigned int s = 0; s < SPACES; s++)
		look(&w->shown[s], w->sp[s]);
	for (unsigned int i = 0; i < DEVICES && !w->failed; i++)
		counts[check_device(w, &w->dev[i])]++;
	for (unsigned int s = 0; s < SPACES; s++)
		mt_view_put(w->shown[s].v);
}

/* --- changes -------------------------------------------------------------- */

/* Mostly at the start of a page. */
static mt_addr
pick_addr(struct world *w)
{
	mt_addr at = below(w, 6) == 0 ? LAST_PAGE :
	    FIRST_PAGE + PAGE * below(w, PAGES);

	return (below(w, 4) == 0 ? at + M_SMALL * below(w, 16) : at);
}

/*
 * Of a neighbour: often the first or last bytes of a page.  Past the last
 * address it goes on at the first one.
 */
static mt_addr
pick_near(struct world *w)
{
	mt_addr at = pick_addr(w);

	if (below(w, 3) == 0)
		return (at - 16 * below(w, 2));
	return (at + 16 * below(w, PAGE / 16));
}

static struct mt_region *
pick_parent(struct world *w)
{
	return (below(w, 2) == 0 ? w->root : w->sub);
}

static void
toggle(struct world *w, struct mt_region *r, mt_addr at)
{
	int prio = (int)below(w, 3) - 1;

	if (mt_region_parent(r) != NULL)
		must(mt_region_del(r) == 0);
	else
		must(mt_region_add(pick_parent(w), r, at, prio) == 0);
}

static void
move(struct world *w, struct mt_region *r, mt_addr at)
{
	if (mt_region_parent(r) == NULL)
		toggle(w, r, at);
	else
		must(mt_region_move(r, at) == 0);
}

static void
change_bar(struct world *w, struct device *dev)
{
	switch (below(w, 4)) {
	case 0:
		toggle(w, dev->bar, pick_addr(w));
		break;
	case 1:
	case 2:
		move(w, dev->bar, pick_addr(w));
		break;
	case 3:
		must(mt_region_set_enabled(dev->bar, below(w, 8) != 0) == 0);
		break;
	}
}

/* It is there less than half of the time, or nothing else would happen. */
static void
change_other(struct world *w, struct device *dev)
{
	if (below(w, 3) == 0)
		must(mt_region_set_alias_offset(dev->other,
		    0x40 * below(w, 2)) == 0);
	else if (mt_region_parent(dev->other) != NULL || below(w, 2) == 0)
		toggle(w, dev->other, pick_addr(w));
}

static void
change_neighbour(struct world *w)
{
	struct mt_region *r = w->near[below(w, NEIGHBOURS)];
	mt_addr at = pick_near(w);

	switch (below(w, 4)) {
	case 0:
	case 1:
		toggle(w, r, at);
		break;
	case 2:
		move(w, r, at);
		break;
	case 3:
		must(mt_region_set_enabled(r, below(w, 2) == 0) == 0);
		break;
	}
}

static void
change_client(struct world *w, struct device *dev)
{
	switch (below(w, 4)) {
	case 0:
		dev->direct = !dev->direct || below(w, 4) != 0;
		must(vd_client_set_direct(dev->c, dev->direct) == 0);
		break;
	case 1:
		if (dev->watched != SPACES)
			must(vd_client_update_pages(dev->c) == 0);
		break;
	case 2:
		if (dev->watched == SPACES || below(w, 4) != 0)
			break;
		must(vd_client_unwatch_pages(dev->c) == 0);
		dev->watched = SPACES;
		break;
	case 3:
		if (dev->watched != SPACES)
			break;
		dev->watched = below(w, 3) == 0;
		must(vd_client_watch_pages(dev->c,
		    w->sp[dev->watched]) == 0);
		break;
	}
}

static void
change(struct world *w)
{
	struct device *dev = &w->dev[below(w, DEVICES)];

	switch (below(w, 8)) {
	case 0:
	case 1:
		change_bar(w, dev);
		break;
	case 2:
		change_other(w, dev);
		break;
	case 3:
	case 4:
	case 5:
		change_neighbour(w);
		break;
	case 6:
		change_client(w, dev);
		break;
	case 7:
		must(mt_region_set_enabled(w->sub, below(w, 6) != 0) == 0);
		break;
	}
}

static void
step(struct world *w)
{
	uint64_t n = below(w, 4) == 0 ? 1 + below(w, 5) : 0;

	if (n == 0) {
		change(w);
		return;
	}
	must(mt_topology_begin(w->t) == 0);
	while (n-- > 0)
		change(w);
	must(mt_topology_commit(w->t) == 0);
}

static bool
run_world(uint64_t seed, unsigned long counts[STATES])
{
	static struct world w;

	begin_world(&w, seed);
	for (w.step = 0; w.step < STEPS && !w.failed; w.step++) {
		for (unsigned int s = 0; s < SPACES; s++)
			snprintf(w.was[s], T_TEXT, "%s",
			    t_space_text(w.sp[s]));
		step(&w);
		check_world(&w, counts);
	}
	end_world(&w);
	return (!w.failed);
}

/* A check that none of the states has ever passed would be none. */
static void
check_counts(const unsigned long counts[STATES])
{
	for (unsigned int i = 0; i < STATES; i++)
		ok(counts[i] > 0, "%lu times %s", counts[i], states[i]);
}

static void
test_random(void)
{
	uint64_t seed = t_env("T_SEED",
	    (uint64_t)time(NULL) * 1000003 + (uint64_t)getpid());
	uint64_t count = t_env("T_COUNT", T_TSAN ? 50 :
	    T_ASAN ? 100 : 400), i;
	unsigned long counts[STATES] = { 0 };

	diag("T_SEED=%" PRIu64 " T_COUNT=%" PRIu64, seed, count);
	for (i = 0; i < count; i++)
		if (!run_world(seed + i, counts))
			break;
	if (i < count)
		diag("again: T_SEED=%" PRIu64 " T_COUNT=1", seed + i);
	is_int(i, count, "what is mapped is what is alone in its page");
	if (i < 20)
		skip(STATES, "too few worlds to have seen everything");
	else
		check_counts(counts);
}

int
main(void)
{
	test_sizes();
	test_random();
	return (done());
}
