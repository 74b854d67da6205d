/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Dirty logging: who is told that it begins and ends, and is asked before
 * marks are looked at; and what happens where it cannot begin.
 */

#include <sys/syscall.h>

#include <dlfcn.h>
#include <stdarg.h>
#include <time.h>

#include "t/dirty.h"

struct ear {
	struct t_listener tl;
	struct mt_region *ram;
	unsigned int refused, client;
	bool brings;
};

static void
heard_log(struct ear *e, const char *what, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	t_heard(&e->tl, what, sec);
	t_append(e->tl.text, " %x>%x", was, now);
}

static void
log_start(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	(void)sp;
	heard_log(arg, "start", sec, was, now);
}

static void
log_stop(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct ear *e = arg;

	(void)sp;
	heard_log(e, "stop", sec, was, now);
	if (e->brings)
		must(mt_region_set_dirty(sec->region, sec->off, 1) == 0);
}

/* Brings its first page's mark, and tries what it must not. */
static void
log_sync(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct ear *e = arg;

	(void)sp;
	t_heard(&e->tl, "sync", sec);
	if (e->brings)
		must(mt_region_set_dirty(sec->region, sec->off, 1) == 0);
	e->refused += mt_region_set_log(sec->region, 1, true) == -1 &&
	    errno == EDEADLK;
	e->refused += mt_region_sync_dirty(sec->region, 0, 1) == -1 &&
	    errno == EDEADLK;
	e->refused += mt_dirty_snapshot_create(sec->region, C, 0, 1) == NULL &&
	    errno == EDEADLK;
}

static void
log_clear(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct ear *e = arg;

	(void)sp;
	t_heard(&e->tl, "clear", sec);
	/* The marks are taken when this is called. */
	if (mt_region_get_dirty(sec->region, C, sec->off,
	    sec->range.last - sec->range.first + 1) == 1)
		t_append(e->tl.text, " too early");
}

static void
listen(struct ear *e, struct mt_space *sp, const char *name, int prio,
    char *text)
{
	memset(e, 0, sizeof(*e));
	e->tl.l.prio = prio;
	e->tl.l.arg = e;
	e->tl.l.begin = t_heard_begin;
	e->tl.l.commit = t_heard_commit;
	e->tl.l.add = t_heard_add;
	e->tl.l.del = t_heard_del;
	e->tl.l.log_start = log_start;
	e->tl.l.log_stop = log_stop;
	e->tl.l.log_sync = log_sync;
	e->tl.l.log_clear = log_clear;
	e->tl.name = name;
	e->tl.text = text != NULL ? text : e->tl.own;
	must(mt_listener_register(sp, &e->tl.l) == 0);
}

static void
test_listeners(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *ram, *hole, *b;
	struct mt_space *sp;
	struct ear e, late;

	root = t_container(t, "root", 0x100000);
	ram = t_add(root, 0x1000, 0, t_ram(t, "ram", 4 * PAGE));
	hole = t_add(root, 0x2000, 1, t_reserved(t, "hole", PAGE));
	b = t_add(root, 0x8000, 0, t_ram(t, "b", PAGE));
	sp = t_space(root);
	listen(&e, sp, NULL, 0, NULL);
	is_heard(&e.tl, "begin, add 1000-1fff ram+0, add 2000-2fff hole+0, "
	    "add 3000-4fff ram+2000, add 8000-8fff b+0, commit",
	    "who listens where nothing is logged hears of no log");

	works(mt_region_set_log(ram, 2, true), "a client begins");
	is_heard(&e.tl, "begin, start 1000-1fff ram+0 0>4, "
	    "start 3000-4fff ram+2000 0>4, commit",
	    "every section of the region is told");
	works(mt_region_set_log(ram, 2, true), "a client begins twice");
	is_heard(&e.tl, "", "which is told once");
	works(mt_region_set_log(ram, 0, true), "another client");
	is_heard(&e.tl, "begin, start 1000-1fff ram+0 4>5, "
	    "start 3000-4fff ram+2000 4>5, commit", "is told, too");

	must(mt_topology_begin(t) == 0);
	must(mt_region_set_log(ram, 2, false) == 0);
	must(mt_region_set_log(ram, 1, true) == 0);
	must(mt_region_set_log(b, 7, true) == 0);
	must(mt_region_set_log(b, 7, false) == 0);
	is_heard(&e.tl, "", "nothing is told before the commit");
	is_int(mt_region_log(ram), 7, "marks are made for old and new");
	listen(&late, sp, NULL, 0, NULL);
	is_heard(&late.tl, "begin, add 1000-1fff ram+0, "
	    "start 1000-1fff ram+0 0>5, add 2000-2fff hole+0, "
	    "add 3000-4fff ram+2000, start 3000-4fff ram+2000 0>5, "
	    "add 8000-8fff b+0, commit",
	    "who comes meanwhile hears how it was");
	must(mt_topology_commit(t) == 0);
	is_heard(&late.tl, "begin, start 1000-1fff ram+0 5>3, "
	    "stop 1000-1fff ram+0 5>3, start 3000-4fff ram+2000 5>3, "
	    "stop 3000-4fff ram+2000 5>3, commit", "and then how it is");
	is_heard(&e.tl, "begin, start 1000-1fff ram+0 5>3, "
	    "stop 1000-1fff ram+0 5>3, start 3000-4fff ram+2000 5>3, "
	    "stop 3000-4fff ram+2000 5>3, commit",
	    "one begin and commit for all of a transaction");
	is_int(mt_region_log(ram), 3, "then marks are made for the new ones");
	must(mt_listener_unregister(&late.tl.l) == 0);
	is_heard(&late.tl, "begin, stop 1000-1fff ram+0 3>0, "
	    "del 1000-1fff ram+0, del 2000-2fff hole+0, "
	    "stop 3000-4fff ram+2000 3>0, del 3000-4fff ram+2000, "
	    "del 8000-8fff b+0, commit", "who leaves hears the end of all");

	/* Together with changes of the tree. */
	must(mt_topology_begin(t) == 0);
	must(mt_region_resize(hole, MT_SIZE(2 * PAGE)) == 0);
	must(mt_region_set_log(ram, 0, false) == 0);
	must(mt_topology_commit(t) == 0);
	is_heard(&e.tl, "begin, del 2000-2fff hole+0, "
	    "stop 3000-4fff ram+2000 3>0, del 3000-4fff ram+2000, "
	    "add 2000-3fff hole+0, add 4000-4fff ram+3000, "
	    "start 4000-4fff ram+3000 0>2, stop 1000-1fff ram+0 3>2, commit",
	    "what went, what came and what stayed is told as such");
	must(mt_region_set_enabled(ram, false) == 0);
	is_heard(&e.tl, "begin, stop 1000-1fff ram+0 2>0, "
	    "del 1000-1fff ram+0, stop 4000-4fff ram+3000 2>0, "
	    "del 4000-4fff ram+3000, commit",
	    "the log of what goes ends");
	must(mt_region_set_log(ram, 1, false) == 0);
	must(mt_region_set_log(ram, 3, true) == 0);
	is_heard(&e.tl, "", "of what is not there nothing is told");
	must(mt_region_set_enabled(ram, true) == 0);
	is_heard(&e.tl, "begin, add 1000-1fff ram+0, "
	    "start 1000-1fff ram+0 0>8, add 4000-4fff ram+3000, "
	    "start 4000-4fff ram+3000 0>8, commit",
	    "the log of what comes begins");
	must(mt_listener_unregister(&e.tl.l) == 0);

	t_end_space(t, sp, root);
}

/* Shown twice in overlapping windows, and by two listeners. */
static void
test_order(void)
{
	static char text[T_TEXT];
	struct mt_topology *t = t_topology();
	struct mt_region *root, *ram;
	struct ear low, high;
	struct mt_space *sp;

	root = t_container(t, "root", 0x100000);
	ram = t_ram(t, "ram", 4 * PAGE);
	t_add(root, 0x1000, 0, t_alias(t, "x", ram, 0, 4 * PAGE));
	t_add(root, 0x10000, 0, t_alias(t, "y", ram, PAGE, 2 * PAGE));
	sp = t_space(root);
	listen(&high, sp, "high", 1, text);
	listen(&low, sp, "low", 0, text);
	text[0] = '\0';
	must(mt_region_set_log(ram, 2, true) == 0);
	is_str(t_events(text), "low begin, high begin, "
	    "low start 1000-4fff ram+0 0>4, high start 1000-4fff ram+0 0>4, "
	    "low start 10000-11fff ram+1000 0>4, "
	    "high start 10000-11fff ram+1000 0>4, low commit, high commit",
	    "log_start comes for every window, low first");
	must(mt_region_set_log(ram, 2, false) == 0);
	is_str(t_events(text), "low begin, high begin, "
	    "high stop 1000-4fff ram+0 4>0, low stop 1000-4fff ram+0 4>0, "
	    "high stop 10000-11fff ram+1000 4>0, "
	    "low stop 10000-11fff ram+1000 4>0, low commit, high commit",
	    "log_stop high first");
	must(mt_listener_unregister(&low.tl.l) == 0);
	must(mt_listener_unregister(&high.tl.l) == 0);
	mt_region_put(ram);
	t_end_space(t, sp, root);
}

static void
test_sync(void)
{
	struct world w;
	struct ear e;

	begin(&w);
	log_on(w.ram);
	listen(&e, w.sp, NULL, 0, NULL);
	e.tl.text[0] = '\0';
	works(mt_region_sync_dirty(w.ram, 6 * PAGE + 7, PAGE), "sync a range");
	is_heard(&e.tl, "sync 6000-7fff ram+6000, sync 201000-202fff ram+6000",
	    "is asked for, page by page, of what shows it");
	is_int(e.refused, 6, "and may not change what it is asked about");
	is_dirty(w.ram, "", "who brings nothing marks nothing");
	is_heard(&e.tl, "sync 0-c7fff ram+0, sync 200000-209fff ram+5000",
	    "a snapshot without marks is asked for and clears nothing");
	e.brings = true;
	is_int(mt_region_test_and_clear_dirty(w.ram, C, 14 * PAGE, 2 * PAGE),
	    1, "what is brought is there");
	is_heard(&e.tl, "sync e000-ffff ram+e000, sync 209000-209fff ram+e000,"
	    " clear e000-ffff ram+e000, clear 209000-209fff ram+e000",
	    "and clear follows when the marks are taken");
	is_dirty(w.ram, "0 5", "a snapshot has it");
	is_heard(&e.tl, "sync 0-c7fff ram+0, sync 200000-209fff ram+5000, "
	    "clear 0-c7fff ram+0, clear 200000-209fff ram+5000",
	    "with sync and clear");
	is_int(mt_region_get_dirty(w.ram, C, 0, PAGE), 0, "who only looks");
	is_heard(&e.tl, "", "asks nobody");
	must(mt_region_set_enabled(w.ram, false) == 0);
	is_heard(&e.tl, "begin, stop 0-c7fff ram+0 8>0, del 0-c7fff ram+0, "
	    "stop 200000-209fff ram+5000 8>0, del 200000-209fff ram+5000, "
	    "commit", "the RAM goes");
	is_dirty(w.ram, "0 5", "with the last marks that a listener brings");
	is_dirty(w.ram, "", "a snapshot of what is shown nowhere");
	is_heard(&e.tl, "", "asks nobody");

	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.ram, true) == 0);
	fails(mt_region_sync_dirty(w.ram, 0, 1), EBUSY,
	    "none is asked inside a transaction");
	mt_region_set_dirty(w.ram, 0, 1);
	fails_null(mt_dirty_snapshot_create(w.ram, C, 0, 1), EBUSY,
	    "so a snapshot fails there");
	is_int(mt_region_get_dirty(w.ram, C, 0, 1), 1, "and takes nothing");
	must(mt_topology_commit(w.t) == 0);
	is_heard(&e.tl, "begin, add 0-c7fff ram+0, start 0-c7fff ram+0 0>8, "
	    "add 200000-209fff ram+5000, start 200000-209fff ram+5000 0>8, "
	    "commit", "which goes on as if nothing had been asked");
	must(mt_listener_unregister(&e.tl.l) == 0);
	end(&w);
}

/* What a listener has been told of each section, which must fit. */
struct mirror {
	struct mt_listener l;
	struct mirrored {
		struct mt_section sec;
		unsigned int was, now;
	} secs[256];
	size_t n;
	unsigned int bad;
};

static struct mirrored *
mirrored(struct mirror *m, const struct mt_section *sec)
{
	size_t i;

	for (i = 0; i < m->n; i++)
		if (m->secs[i].sec.range.first == sec->range.first &&
		    m->secs[i].sec.region == sec->region)
			return (&m->secs[i]);
	m->bad++;
	return (NULL);
}

static void
mirror_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct mirror *m = arg;

	(void)sp;
	must(m->n < T_COUNT(m->secs));
	m->secs[m->n++] = (struct mirrored){ .sec = *sec };
}

static void
mirror_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct mirrored *s = mirrored(arg, sec);
	struct mirror *m = arg;

	(void)sp;
	if (s == NULL)
		return;
	m->bad += s->now != 0;
	*s = m->secs[--m->n];
}

static void
mirror_start(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct mirrored *s = mirrored(arg, sec);
	struct mirror *m = arg;

	(void)sp;
	if (s == NULL)
		return;
	m->bad += was != s->now || (now & ~was) == 0;
	s->was = was;
	s->now = now;
}

static void
mirror_stop(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct mirrored *s = mirrored(arg, sec);
	struct mirror *m = arg;

	(void)sp;
	if (s == NULL)
		return;
	/* The other half of a change whose log_start came before? */
	if ((now & ~was) != 0)
		m->bad += s->was != was || s->now != now;
	else
		m->bad += s->now != was;
	m->bad += (was & ~now) == 0;
	s->was = was;
	s->now = now;
}

/* Does the mirror show the space, as it is logged? */
static bool
mirrors(const struct mirror *m, struct mt_space *sp)
{
	struct mt_view *v = mt_space_view(sp);
	bool good = m->n == mt_view_count(v);
	size_t i;

	mt_view_put(v);
	for (i = 0; i < m->n; i++)
		good = good && m->secs[i].now ==
		    mt_region_log(m->secs[i].sec.region);
	return (good);
}

/* Logs and the tree change at random, in transactions or not. */
static void
test_mirror(void)
{
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL));
	struct mt_region *rs[6], *aliases[6], *r;
	struct mirror *m = calloc(1, sizeof(*m));
	unsigned int i, k, bad = 0, told = 0;
	struct mt_topology *t = t_topology();
	struct mt_region *root, *box;
	struct mt_space *sp;
	size_t left = 0;

	must(m != NULL);
	diag("T_SEED=%" PRIu64, seed);
	root = t_container(t, "root", 0x40000);
	box = t_add(root, 0x20000, 2, t_container(t, "box", 0x10000));
	for (i = 0; i < T_COUNT(rs); i++) {
		r = rs[i] = t_add(i < 3 ? root : box, i * 0x1800, (int)i,
		    t_ram(t, "ram", 0x4000));
		aliases[i] = t_add(root, t_below(&seed, 0x30) * PAGE, 1,
		    t_alias(t, "alias", i < 3 ? r : box, 0x800, 0x3000));
	}
	sp = t_space(root);
	m->l.arg = m;
	m->l.add = mirror_add;
	m->l.del = mirror_del;
	m->l.log_start = mirror_start;
	m->l.log_stop = mirror_stop;
	must(mt_listener_register(sp, &m->l) == 0);
	for (i = 0; i < 4000; i++) {
		if (left == 0 && t_below(&seed, 4) == 0) {
			must(mt_topology_begin(t) == 0);
			left = 1 + t_below(&seed, 8);
		}
		k = (unsigned int)t_below(&seed, T_COUNT(rs));
		r = t_below(&seed, 2) == 0 ? rs[k] : aliases[k];
		switch (t_below(&seed, 8)) {
		default:
			must(mt_region_set_log(rs[k],
			    (unsigned int)t_below(&seed, 3),
			    t_below(&seed, 2) == 0) == 0);
			break;
		case 0:
			must(mt_region_move(r, t_below(&seed, 0x40) * 0x800)
			    == 0);
			break;
		case 1:
			must(mt_region_set_enabled(r, t_below(&seed, 3) != 0)
			    == 0);
			break;
		case 2:
			must(mt_region_resize(rs[k], MT_SIZE(0x800 *
			    (1 + t_below(&seed, 8)))) == 0);
			break;
		case 3:
			must(mt_region_set_enabled(box, t_below(&seed, 3) !=
			    0) == 0);
			break;
		}
		if (left > 0 && --left == 0)
			must(mt_topology_commit(t) == 0);
		if (left == 0) {
			bad += !mirrors(m, sp);
			told += m->n > 0 && m->secs[0].now != 0;
		}
	}
	if (left > 0)
		must(mt_topology_commit(t) == 0);
	is_int(m->bad, 0, "a listener is told of logs in an order that fits");
	is_int(bad, 0, "and knows then who logs each section");
	ok(told > 0, "when some are logged");
	must(mt_listener_unregister(&m->l) == 0);
	is_int(m->n + m->bad, 0, "all is taken back in the end");
	t_end_space(t, sp, root);
	free(m);
}

/* --- the system call that it needs ------------------------------------- */

/* Of this thread: the reclaimer has its own. */
static __thread bool no_barriers;
static __thread unsigned int barriers;

/* In place of that of the C library, to count and to fail. */
long
syscall(long number, ...)
{
	static long (*real)(long, ...);
	long args[6];
	va_list ap;
	size_t i;

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "syscall");
	va_start(ap, number);
	for (i = 0; i < T_COUNT(args); i++)
		args[i] = va_arg(ap, long);
	va_end(ap);
	if (number == SYS_membarrier) {
		barriers++;
		if (no_barriers) {
			errno = ENOSYS;
			return (-1);
		}
	}
	return (real(number, args[0], args[1], args[2], args[3], args[4],
	    args[5]));
}

/* A system that cannot execute the barrier that writers go without. */
static void
test_no_barrier(void)
{
	struct world w;
	struct ear e;

	begin(&w);
	listen(&e, w.sp, NULL, 0, NULL);
	e.tl.text[0] = '\0';
	barriers = 0;
	must(mt_region_set_log(w.ram, 0, true) == 0);
	ok(barriers > 0, "logging begins with a barrier on every thread");
	is_heard(&e.tl, "begin, start 0-c7fff ram+0 0>1, "
	    "start 200000-209fff ram+5000 0>1, commit", "and is told");
	no_barriers = true;
	fails(mt_region_set_log(w.ram, C, true), ENOSYS,
	    "where there is none it does not begin");
	is_int(mt_region_log(w.ram), 1, "and who logs goes on alone");
	is_heard(&e.tl, "", "without a word");
	works(mt_region_set_log(w.ram, 0, false), "to end needs no barrier");
	no_barriers = false;
	must(mt_listener_unregister(&e.tl.l) == 0);
	end(&w);
}

int
main(void)
{
	test_listeners();
	test_order();
	test_sync();
	test_mirror();
	test_no_barrier();
	return (done());
}
