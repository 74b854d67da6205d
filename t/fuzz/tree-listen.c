/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Listeners: each has a mirror of its space, made of what it is told, and sees
 * that it is told in order; and one beside it, which is told the same by its
 * priority before that or after.
 */

#include "t/fuzz/tree.h"

enum { COALESCE_DEL, EVENTFD_DEL, DEL, ADD, RELOG, EVENTFD_ADD,
    COALESCE_ADD };

static void
in_phase(struct seat *s, unsigned int phase)
{
	check(s->telling && s->phase <= phase);
	s->phase = phase;
}

static void
told_begin(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && !s->telling);
	s->telling = true;
	s->phase = COALESCE_DEL;
	s->ngone = 0;
}

/* What went has gone. */
static void
forget_gone(struct tolds *l)
{
	size_t i, n = 0;

	for (i = 0; i < l->n; i++)
		if (!l->t[i].gone)
			l->t[n++] = l->t[i];
	l->n = n;
}

/*
 * A listener may read: here what it was told of first, in the new view.  It
 * must not wait for a device's lock, under which others change the tree.
 */
static void
read_inside(struct seat *s)
{
	const struct mt_section *sec = &s->mirror[0];
	const uint8_t *mem = mt_region_ptr(sec->region);
	const enum mt_kind kind = mt_region_kind(sec->region);
	const struct mt_attrs attrs = { .memory_only = w.has_locks };
	enum mt_result res;
	uint64_t val;

	w.in_listener = true;
	res = mt_space_load(s->sp, sec->range.first, 1, MT_LITTLE, &val,
	    attrs);
	w.in_listener = false;
	if (kind == MT_RAM || kind == MT_ROM)
		check(res == MT_OK && val == mem[sec->off]);
}

static void
told_commit(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && s->telling);
	s->telling = false;
	forget_gone(&s->events);
	forget_gone(&s->ranges);
	if (s->n != 0)
		read_inside(s);
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
	size_t i = place_of(s, sec), k;

	check(sp == s->sp && s->n < MIRROR);
	in_phase(s, ADD);
	/* One that stays is not mentioned. */
	for (k = 0; k < s->ngone; k++)
		check(!same(&s->gone[k], sec));
	check(i == s->n || sec->range.last < s->mirror[i].range.first);
	check(i == 0 || sec->range.first > s->mirror[i - 1].range.last);
	memmove(&s->mirror[i + 1], &s->mirror[i],
	    (s->n - i) * sizeof(s->mirror[0]));
	memmove(&s->logs[i + 1], &s->logs[i], (s->n - i) * sizeof(s->logs[0]));
	s->mirror[i] = *sec;
	s->logs[i] = 0;
	s->n++;
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	size_t i = place_of(s, sec);

	check(sp == s->sp && i < s->n && same(&s->mirror[i], sec));
	check(s->logs[i] == 0);
	in_phase(s, DEL);
	if (s->ngone < GONE)
		s->gone[s->ngone++] = *sec;
	s->n--;
	memmove(&s->logs[i], &s->logs[i + 1], (s->n - i) * sizeof(s->logs[0]));
	memmove(&s->mirror[i], &s->mirror[i + 1],
	    (s->n - i) * sizeof(s->mirror[0]));
}

/* --- logs ---------------------------------------------------------------- */

static size_t
of_log(const struct seat *s, const struct mt_space *sp,
    const struct mt_section *sec, unsigned int was)
{
	size_t i = place_of(s, sec);

	check(sp == s->sp && i < s->n && same(&s->mirror[i], sec));
	check(s->logs[i] == was);
	return (i);
}

/* If some come and some go, log_stop is next: that tells it, too. */
static void
told_log_start(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct seat *s = arg;
	size_t i = of_log(s, sp, sec, was);

	in_phase(s, s->phase < ADD ? ADD : s->phase);
	check(s->phase <= RELOG && (now & ~was) != 0);
	if ((was & ~now) == 0)
		s->logs[i] = now;
}

static void
told_log_stop(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct seat *s = arg;
	size_t i = of_log(s, sp, sec, was);

	in_phase(s, now == 0 && s->phase <= DEL ? s->phase : RELOG);
	check((was & ~now) != 0);
	s->logs[i] = now;
}

/* --- eventfds and ranges ------------------------------------------------- */

static bool
alike(const struct told *a, const struct told *b)
{
	return (a->r == b->r && a->range.first == b->range.first &&
	    a->range.last == b->range.last && a->ev.size == b->ev.size &&
	    a->ev.match == b->ev.match && a->ev.data == b->ev.data &&
	    a->ev.pool == b->ev.pool);
}

static void
put_told(struct tolds *l, const struct told *t)
{
	size_t i;

	/*
	 * Not one that is there, nor one that was where this is now: but an
	 * eventfd that was taken back and added again is another copy.
	 */
	for (i = 0; i < l->n; i++)
		check(!alike(&l->t[i], t) ||
		    (l->t[i].gone && l->t[i].fd != t->fd));
	check(l->n < TOLD);
	l->t[l->n++] = *t;
}

static void
take_told(struct tolds *l, const struct told *t)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (!l->t[i].gone && alike(&l->t[i], t) &&
		    l->t[i].fd == t->fd) {
			l->t[i].gone = true;
			return;
		}
	check(!"told of one that was not there");
}

static struct told
of_event(struct seat *s, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	const mt_addr more = ev->size == 0 ? 0 : ev->size - 1;
	size_t i = place_of(s, sec);

	check(i < s->n && same(&s->mirror[i], sec));
	check(ev->addr >= sec->range.first && ev->addr <= sec->range.last &&
	    sec->range.last - ev->addr >= more);
	return ((struct told){ .r = sec->region,
	    .range = { ev->addr, ev->addr }, .fd = ev->fd,
	    .ev = { .size = ev->size, .match = ev->match, .data = ev->data,
	    .pool = pool_of(ev->fd) } });
}

static void
told_eventfd_add(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct seat *s = arg;
	struct told t = of_event(s, sec, ev);

	check(sp == s->sp);
	in_phase(s, EVENTFD_ADD);
	put_told(&s->events, &t);
}

static void
told_eventfd_del(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct seat *s = arg;
	struct told t = of_event(s, sec, ev);

	check(sp == s->sp);
	in_phase(s, EVENTFD_DEL);
	take_told(&s->events, &t);
}

static struct told
of_range(struct seat *s, const struct mt_section *sec, struct mt_range range)
{
	size_t i = place_of(s, sec);

	check(i < s->n && same(&s->mirror[i], sec));
	check(range.first <= range.last && range.first >= sec->range.first &&
	    range.last <= sec->range.last);
	return ((struct told){ .r = sec->region, .range = range, .fd = -1 });
}

static void
told_coalesce_add(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct seat *s = arg;
	struct told t = of_range(s, sec, range);

	check(sp == s->sp);
	in_phase(s, COALESCE_ADD);
	put_told(&s->ranges, &t);
}

static void
told_coalesce_del(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct seat *s = arg;
	struct told t = of_range(s, sec, range);

	check(sp == s->sp);
	in_phase(s, COALESCE_DEL);
	take_told(&s->ranges, &t);
}

static void
expect(const struct tolds *l, const struct told *t)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (alike(&l->t[i], t))
			return;
	check(!"not told of one that is there");
}

/* What v shows of a region's eventfds and ranges was told, and no more. */
void
check_told(const struct seat *s, const struct mt_view *v)
{
	struct mt_range ranges[RANGES];
	size_t i, n, nevents = 0, nranges = 0;
	const struct event *ev;
	const struct node *node;
	struct mt_section sec;
	struct told t;
	mt_addr at = 0, end;
	size_t at_log = 0;

	for (; mt_view_next(v, at, &sec); at_log++) {
		node = node_of(sec.region);
		check(node != NULL && s->logs[at_log] == node->log_told);
		end = sec.off + (sec.range.last - sec.range.first);
		for (i = 0; i < node->x.nevents; i++) {
			ev = &node->x.events[i];
			if (ev->off < sec.off || ev->off > end ||
			    (ev->size > 1 && end - ev->off < ev->size - 1))
				continue;
			t = (struct told){ .r = sec.region, .ev = *ev };
			t.range.first = t.range.last = sec.range.first +
			    (ev->off - sec.off);
			expect(&s->events, &t);
			nevents++;
		}
		n = merged(node, ranges);
		for (i = 0; i < n; i++) {
			if (ranges[i].last < sec.off || ranges[i].first > end)
				continue;
			t = (struct told){ .r = sec.region };
			t.range.first = sec.range.first + (ranges[i].first >
			    sec.off ? ranges[i].first - sec.off : 0);
			t.range.last = ranges[i].last < end ? sec.range.first +
			    (ranges[i].last - sec.off) : sec.range.last;
			expect(&s->ranges, &t);
			nranges++;
		}
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	check(nevents == s->events.n && nranges == s->ranges.n);
	check(s->nbeside == s->n);
}

/* --- the one beside it --------------------------------------------------- */

/* What the other was told before, if that is told first. */
static bool
is_second(const struct seat *s)
{
	return (s->beside.prio >= s->l.prio);
}

static void
beside_begin(void *arg, struct mt_space *sp)
{
	const struct seat *s = arg;

	check(sp == s->sp && (s->alone || s->telling == is_second(s)));
}

static void
beside_commit(void *arg, struct mt_space *sp)
{
	const struct seat *s = arg;

	check(sp == s->sp && (s->alone || s->telling == !is_second(s)));
}

/* A del goes the other way round: what is told last has it no more. */
static void
beside_section(const struct seat *s, const struct mt_section *sec)
{
	const size_t i = place_of(s, sec);

	check(s->alone ||
	    (i < s->n && same(&s->mirror[i], sec)) == is_second(s));
}

static void
beside_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;

	(void)sp;
	beside_section(s, sec);
	s->nbeside++;
}

static void
beside_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;

	(void)sp;
	beside_section(s, sec);
	check(s->nbeside-- > 0);
}

static bool
has_told(const struct tolds *l, const struct told *t)
{
	size_t i;

	for (i = 0; i < l->n; i++)
		if (!l->t[i].gone && alike(&l->t[i], t) &&
		    l->t[i].fd == t->fd)
			return (true);
	return (false);
}

static void
beside_eventfd(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct seat *s = arg;
	struct told t;

	(void)sp;
	if (s->alone)
		return;
	t = of_event(s, sec, ev);
	check(has_told(&s->events, &t) == is_second(s));
}

static void
beside_coalesce(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct seat *s = arg;
	struct told t;

	(void)sp;
	if (s->alone)
		return;
	t = of_range(s, sec, range);
	check(has_told(&s->ranges, &t) == is_second(s));
}

/* Only it is told now. */
static void
toggle_beside(struct seat *s)
{
	s->alone = true;
	if (s->beside.arg == NULL) {
		s->beside = (struct mt_listener){ .arg = s,
		    .prio = (int)(w.nops % 3) - 1, .begin = beside_begin,
		    .commit = beside_commit, .add = beside_add,
		    .del = beside_del, .eventfd_add = beside_eventfd,
		    .eventfd_del = beside_eventfd,
		    .coalesce_add = beside_coalesce,
		    .coalesce_del = beside_coalesce };
		check(mt_listener_register(s->sp, &s->beside) == 0);
		check(mt_listener_register(s->sp, &s->beside) == -1 &&
		    errno == EBUSY);
	} else {
		check(mt_listener_unregister(&s->beside) == 0);
		check(s->nbeside == 0);
		check(mt_listener_unregister(&s->beside) == -1 &&
		    errno == ENOENT);
		s->beside.arg = NULL;
	}
	s->alone = false;
}

/* In one order or the other. */
void
leave_space(struct seat *s)
{
	if (!s->listening)
		return;
	if (w.nops % 2 == 0)
		toggle_beside(s);
	check(mt_listener_unregister(&s->l) == 0);
	check(s->n == 0 && s->events.n == 0 && s->ranges.n == 0);
	if (w.nops % 2 != 0)
		toggle_beside(s);
	s->listening = false;
}

void
toggle_listener(struct seat *s)
{
	if (s->sp == NULL)
		return;
	if (s->listening) {
		leave_space(s);
	} else {
		s->l = (struct mt_listener){ .arg = s, .begin = told_begin,
		    .commit = told_commit, .add = told_add, .del = told_del,
		    .log_start = told_log_start, .log_stop = told_log_stop,
		    .log_sync = told_sync, .log_clear = told_clear,
		    .eventfd_add = told_eventfd_add,
		    .eventfd_del = told_eventfd_del,
		    .coalesce_add = told_coalesce_add,
		    .coalesce_del = told_coalesce_del };
		check(mt_listener_register(s->sp, &s->l) == 0);
		toggle_beside(s);
		s->listening = true;
	}
}
