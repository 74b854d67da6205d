/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The budget of bounce buffers, and those who wait for some. */

#include <sched.h>

#include "t/util.h"

struct world {
	struct mt_topology *t;
	struct mt_space *sp;
	struct t_dev dev;
};

static void
begin(struct world *w, size_t limit)
{
	struct mt_region *io;

	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w->t = t_topology();
	io = t_io(w->t, "io", T_ALL, &w->dev);
	w->sp = t_space(io);
	mt_region_put(io);
	mt_dma_set_bounce_limit(w->sp, limit);
}

static void
end(struct world *w)
{
	is_int(mt_dma_bounce_used(w->sp), 0, "all budget has come back");
	must(mt_space_destroy(w->sp) == 0);
	must(mt_topology_sync(w->t) == 0);
	t_end(w->t);
}

static int
map(struct world *w, size_t len, struct mt_mapping *m)
{
	return (mt_dma_map(w->sp, 0, len, MT_DMA_WRITE, MT_ATTRS_NONE, m));
}

static void
test_budget(void)
{
	struct mt_mapping a, b, c;
	struct world w;

	begin(&w, 0);
	mt_dma_set_bounce_limit(w.sp, MT_BOUNCE_DEFAULT);
	end(&w);
	begin(&w, 4096);
	is_int(mt_dma_bounce_limit(w.sp), 4096, "the limit is what was set");
	works(map(&w, 3000, &a), "3000 of 4096 bytes");
	is_int(a.len, 3000, "are granted");
	works(map(&w, 3000, &b), "the next");
	is_int(b.len, 1096, "gets what is left");
	is_int(mt_dma_bounce_used(w.sp), 4096, "which is all of it");
	fails(map(&w, 1, &c), EAGAIN, "and there is no more");
	ok(c.ptr == NULL, "nothing is lent");
	works(mt_dma_unmap(&a, 0), "what comes back");
	is_int(mt_dma_bounce_used(w.sp), 1096, "is counted");
	works(map(&w, 5000, &a), "and granted");
	is_int(a.len, 3000, "again");
	mt_dma_set_bounce_limit(w.sp, 100);
	is_int(mt_dma_bounce_limit(w.sp), 100, "a limit below what is used");
	fails(map(&w, 1, &c), EAGAIN, "grants nothing");
	works(mt_dma_unmap(&b, 0), "nor when some");
	fails(map(&w, 1, &c), EAGAIN, "but not enough comes back");
	works(mt_dma_unmap(&a, 0), "but when enough does");
	works(map(&w, 200, &c), "it grants");
	is_int(c.len, 100, "up to the limit");
	mt_dma_set_bounce_limit(w.sp, 150);
	works(map(&w, 200, &a), "and a raised one");
	is_int(a.len, 50, "the difference");
	works(mt_dma_unmap(&a, 50), "unmap");
	works(mt_dma_unmap(&c, 100), "unmap");
	w.dev.ncalls = 0;
	mt_dma_set_bounce_limit(w.sp, 0);
	fails(map(&w, 1, &c), EAGAIN, "no budget is none");
	end(&w);
}

static void
test_default(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *r;
	struct mt_space *sp, *sp2;

	r = t_container(t, "r", 1);
	sp = t_space(r);
	sp2 = t_space(r);
	is_int(mt_dma_bounce_limit(sp), MT_BOUNCE_DEFAULT,
	    "the default is as documented");
	mt_dma_set_bounce_limit(sp, 1);
	is_int(mt_dma_bounce_limit(sp2), MT_BOUNCE_DEFAULT,
	    "each space has its own");
	must(mt_space_destroy(sp) == 0 && mt_space_destroy(sp2) == 0);
	mt_region_put(r);
	t_end(t);
}

/* Somebody who waits, and writes down that he was called. */
struct client {
	struct mt_waiter w;
	struct world *world;
	char name;
	char *log;		/* in which the name is put at each call */
	size_t take;		/* how much to map then */
	struct mt_mapping map;
	int again;		/* how often to wait again, for take */
	int ret;		/* of that */
};

static void
called(void *arg)
{
	struct client *c = arg;

	strncat(c->log, &c->name, 1);
	if (c->take > 0)
		c->ret = map(c->world, c->take, &c->map);
	if (c->again > 0) {
		c->again--;
		c->ret = mt_dma_wait(c->world->sp, &c->w, c->take, called, c);
	}
}

static void
test_wait(void)
{
	struct client a = { .w = MT_WAITER_INIT, .name = 'a' };
	struct mt_mapping m;
	char log[64] = "";
	struct world w;

	begin(&w, 100);
	a.world = &w;
	a.log = log;
	works(mt_dma_wait(w.sp, &a.w, 100, called, &a), "who waits");
	is_str(log, "a", "is called at once if there is budget");
	ok(!mt_dma_cancel(&a.w), "and waits no longer");
	must(map(&w, 50, &m) == 0);
	log[0] = '\0';
	works(mt_dma_wait(w.sp, &a.w, 51, called, &a), "if there is not");
	is_str(log, "", "he waits");
	fails(mt_dma_wait(w.sp, &a.w, 1, called, &a), EBUSY,
	    "at one place at a time");
	works(mt_dma_unmap(&m, 0), "when some comes back");
	is_str(log, "a", "he is called");
	must(map(&w, 50, &m) == 0);
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "a", "once");

	log[0] = '\0';
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 1, called, &a) == 0);
	ok(mt_dma_cancel(&a.w), "who waits can stop waiting");
	ok(!mt_dma_cancel(&a.w), "once");
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "", "and is not called");

	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 50, called, &a) == 0);
	mt_dma_set_bounce_limit(w.sp, 149);
	is_str(log, "", "a limit raised by too little");
	mt_dma_set_bounce_limit(w.sp, 150);
	is_str(log, "a", "or by enough calls, too");
	must(mt_dma_unmap(&m, 0) == 0);

	log[0] = '\0';
	mt_dma_set_bounce_limit(w.sp, 100);
	must(map(&w, 1, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 5000, called, &a) == 0);
	is_str(log, "", "who needs more than there ever is");
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "a", "waits for all of it");

	log[0] = '\0';
	mt_dma_set_bounce_limit(w.sp, 0);
	must(mt_dma_wait(w.sp, &a.w, 1, called, &a) == 0);
	is_str(log, "", "without a limit there is nothing to get");
	mt_dma_set_bounce_limit(w.sp, 1);
	is_str(log, "a", "until there is one");
	ok(!mt_dma_cancel(&(struct mt_waiter)MT_WAITER_INIT),
	    "who never waited has nothing to cancel");
	end(&w);
}

static void
test_order(void)
{
	struct client c[4];
	struct mt_mapping m, m2;
	char log[64] = "";
	struct world w;
	size_t i;

	begin(&w, 100);
	for (i = 0; i < T_COUNT(c); i++)
		c[i] = (struct client){ .w = MT_WAITER_INIT, .world = &w,
		    .name = (char)('a' + i), .log = log };
	must(map(&w, 60, &m) == 0);
	must(map(&w, 40, &m2) == 0);
	for (i = 0; i < T_COUNT(c); i++)
		must(mt_dma_wait(w.sp, &c[i].w, 1, called, &c[i]) == 0);
	ok(mt_dma_cancel(&c[1].w), "one of those who wait stops waiting");
	works(mt_dma_unmap(&m, 0), "the others");
	is_str(log, "acd", "are called in the order they came");
	must(mt_dma_unmap(&m2, 0) == 0);
	is_str(log, "acd", "once");

	log[0] = '\0';
	must(map(&w, 60, &m) == 0);
	must(map(&w, 40, &m2) == 0);
	must(mt_dma_wait(w.sp, &c[0].w, 70, called, &c[0]) == 0);
	must(mt_dma_wait(w.sp, &c[1].w, 1, called, &c[1]) == 0);
	must(mt_dma_unmap(&m2, 0) == 0);
	is_str(log, "", "who needs little does not overtake");
	must(mt_dma_wait(w.sp, &c[2].w, 1, called, &c[2]) == 0);
	is_str(log, "", "nor does who comes later");
	ok(mt_dma_cancel(&c[2].w), "stop");
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "ab", "all are called in their order");

	/* The first takes so much that the second goes on waiting. */
	log[0] = '\0';
	c[0].take = 90;
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &c[0].w, 90, called, &c[0]) == 0);
	must(mt_dma_wait(w.sp, &c[1].w, 20, called, &c[1]) == 0);
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "a", "only while there is budget");
	is_int(c[0].ret, 0, "which was there for who was called");
	is_int(c[0].map.len, 90, "as much as he waited for");
	must(mt_dma_unmap(&c[0].map, 0) == 0);
	is_str(log, "ab", "the next is called when he gives it back");
	end(&w);
}

/* Who waits from his own callback. */
static void
test_again(void)
{
	struct client a = { .w = MT_WAITER_INIT, .name = 'a' };
	struct client b = { .w = MT_WAITER_INIT, .name = 'b' };
	struct mt_mapping m;
	char log[64] = "";
	struct world w;

	begin(&w, 100);
	a.world = b.world = &w;
	a.log = b.log = log;
	a.take = 60;
	a.again = 1;
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 1, called, &a) == 0);
	must(mt_dma_wait(w.sp, &b.w, 1, called, &b) == 0);
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "ab", "who waits again is behind the others");
	is_int(a.ret, 0, "and may do so from his callback");
	a.take = 0;
	must(mt_dma_unmap(&a.map, 0) == 0);
	is_str(log, "aba", "and is called again");
	end(&w);
}

/*
 * A waiter whose budget was taken and given back by another while he was
 * being called, and who then waits again: nobody else will call him.
 */
static void
snatched(void *arg)
{
	struct client *c = arg;
	struct mt_mapping other;

	strncat(c->log, &c->name, 1);
	if (c->again-- > 0) {
		must(map(c->world, 100, &other) == 0);
		c->ret = map(c->world, 1, &c->map) == -1 ? errno : 0;
		must(mt_dma_unmap(&other, 0) == 0);
		must(mt_dma_wait(c->world->sp, &c->w, 1, snatched, c) == 0);
	}
}

static void
test_snatched(void)
{
	struct client a = { .w = MT_WAITER_INIT, .name = 'a', .again = 1 };
	struct mt_mapping m;
	char log[64] = "";
	struct world w;

	begin(&w, 100);
	a.world = &w;
	a.log = log;
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 1, snatched, &a) == 0);
	must(mt_dma_unmap(&m, 0) == 0);
	is_int(a.ret, EAGAIN, "the budget was taken by another");
	is_str(log, "aa", "who gave it back before the waiter waited again");
	ok(!mt_dma_cancel(&a.w), "so nobody is left waiting");
	end(&w);
}

/* Cancelling from the callback itself, and freeing there what waited. */
static void
cancels(void *arg)
{
	struct client *c = arg;

	c->ret = mt_dma_cancel(&c->w);
	c->log[0] = 'x';
	free(c);
}

static void
test_cancel_inside(void)
{
	static const struct mt_waiter init = MT_WAITER_INIT;
	struct client *c = calloc(1, sizeof(*c));
	struct mt_mapping m;
	char log[4] = "";
	struct world w;

	begin(&w, 100);
	must(c != NULL);
	c->w = init;
	c->log = log;
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &c->w, 1, cancels, c) == 0);
	works(mt_dma_unmap(&m, 0), "a waiter");
	is_str(log, "x", "may cancel and free itself when it is called");
	end(&w);
}

/* Cancelling waits for a call that is under way. */
struct slow {
	struct mt_waiter w;
	struct world *world;
	struct mt_mapping map;
	int in, out;		/* atomic */
};

static void
slow_called(void *arg)
{
	struct slow *s = arg;

	__atomic_store_n(&s->in, 1, __ATOMIC_SEQ_CST);
	usleep(50000);
	__atomic_store_n(&s->out, 1, __ATOMIC_SEQ_CST);
}

static void *
slow_unmap(void *arg)
{
	struct slow *s = arg;

	mt_dma_unmap(&s->map, 0);
	return (NULL);
}

static void
test_cancel_waits(void)
{
	struct slow s = { .w = MT_WAITER_INIT };
	pthread_t thread;
	struct world w;

	begin(&w, 100);
	s.world = &w;
	must(map(&w, 100, &s.map) == 0);
	must(mt_dma_wait(w.sp, &s.w, 1, slow_called, &s) == 0);
	must(pthread_create(&thread, NULL, slow_unmap, &s) == 0);
	while (__atomic_load_n(&s.in, __ATOMIC_SEQ_CST) == 0)
		usleep(1000);
	ok(!mt_dma_cancel(&s.w), "a call that has begun is not cancelled");
	is_int(__atomic_load_n(&s.out, __ATOMIC_SEQ_CST), 1,
	    "but waited for");
	pthread_join(thread, NULL);
	end(&w);
}

/*
 * Many threads, little budget: never more than the limit is lent, everybody
 * gets through, and nobody waits for ever.
 */
#define LIMIT	1000
#define THREADS	4

struct thread {
	struct world *world;
	size_t *held;		/* atomic, of all threads */
	size_t *most;		/* atomic */
	uint64_t seed;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken;
	unsigned int rounds, waits, errors;
	pthread_t id;
};

static void
wake_thread(void *arg)
{
	struct thread *t = arg;

	pthread_mutex_lock(&t->lock);
	t->woken = true;
	pthread_cond_signal(&t->cond);
	pthread_mutex_unlock(&t->lock);
}

static void *
run_thread(void *arg)
{
	struct mt_waiter waiter = MT_WAITER_INIT;
	struct thread *t = arg;
	struct mt_mapping m;
	size_t held, most, want;
	unsigned int i;

	for (i = 0; i < t->rounds; i++) {
		want = 1 + t_below(&t->seed, LIMIT);
		while (mt_dma_map(t->world->sp, 0, want, MT_DMA_WRITE,
		    MT_ATTRS_NONE, &m) == -1) {
			if (errno != EAGAIN) {
				t->errors++;
				return (NULL);
			}
			t->waits++;
			t->woken = false;
			if (mt_dma_wait(t->world->sp, &waiter, 1, wake_thread,
			    t) != 0)
				t->errors++;
			pthread_mutex_lock(&t->lock);
			while (!t->woken)
				pthread_cond_wait(&t->cond, &t->lock);
			pthread_mutex_unlock(&t->lock);
			/* Its lock is ours to use when the call is over. */
			if (mt_dma_cancel(&waiter))
				t->errors++;
		}
		held = __atomic_add_fetch(t->held, m.len, __ATOMIC_SEQ_CST);
		most = __atomic_load_n(t->most, __ATOMIC_SEQ_CST);
		while (held > most && !__atomic_compare_exchange_n(t->most,
		    &most, held, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
		if (m.len > want)
			t->errors++;
		if (t_below(&t->seed, 8) == 0)
			sched_yield();
		memset(m.ptr, 0xff, m.len);
		__atomic_sub_fetch(t->held, m.len, __ATOMIC_SEQ_CST);
		if (mt_dma_unmap(&m, 0) != 0)
			t->errors++;
	}
	return (NULL);
}

static void
test_threads(void)
{
	struct thread t[THREADS];
	size_t held = 0, most = 0, i;
	unsigned int errors = 0, waits = 0;
	struct world w;

	begin(&w, LIMIT);
	for (i = 0; i < THREADS; i++) {
		memset(&t[i], 0, sizeof(t[i]));
		t[i].world = &w;
		t[i].held = &held;
		t[i].most = &most;
		t[i].seed = i;
		t[i].rounds = T_TSAN ? 2000 : 10000;
		pthread_mutex_init(&t[i].lock, NULL);
		pthread_cond_init(&t[i].cond, NULL);
	}
	for (i = 0; i < THREADS; i++)
		must(pthread_create(&t[i].id, NULL, run_thread, &t[i]) == 0);
	for (i = 0; i < THREADS; i++) {
		pthread_join(t[i].id, NULL);
		errors += t[i].errors;
		waits += t[i].waits;
		pthread_cond_destroy(&t[i].cond);
		pthread_mutex_destroy(&t[i].lock);
	}
	is_int(errors, 0, "threads that share a budget all get through");
	ok(most <= LIMIT, "and never hold more than there is");
	diag("held up to %zu of %d, waited %u times", most, LIMIT, waits);
	end(&w);
}

/*
 * No wake-up is lost.  One gives back all there is at the moment at which
 * another comes to wait for it, and nothing else happens that could mend it
 * if each were to miss the other: when both calls are over the waiter has
 * been called.  It takes many rounds before two threads are in these few
 * instructions at once.
 */
#define MEET_MS		700
#define MEET_ROUNDS	300000

struct meeting {
	struct world w;
	unsigned int arrived[2];	/* atomic; steps that each has made */
	bool stop;			/* by arrived, as are these: */
	unsigned int calls, errors;
};

/* Go on when the other has come as far, too. */
static void
meet(struct meeting *m, int me)
{
	unsigned int step = m->arrived[me] + 1, spins = 0;

	__atomic_store_n(&m->arrived[me], step, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&m->arrived[!me], __ATOMIC_SEQ_CST) < step)
		if (++spins > 2000)
			sched_yield();
}

/* So that they come at different distances. */
static void
dawdle(unsigned int n)
{
	volatile unsigned int i;

	for (i = 0; i < n; i++)
		;
}

static void
meeting_called(void *arg)
{
	struct meeting *m = arg;

	m->calls++;
}

static void *
meeting_give(void *arg)
{
	struct meeting *m = arg;
	struct mt_mapping held;
	unsigned int i;

	for (i = 0;; i++) {
		m->errors += map(&m->w, 64, &held) == -1;
		meet(m, 1);
		if (m->stop)
			break;
		dawdle(i % 41);
		m->errors += mt_dma_unmap(&held, 0) == -1;
		meet(m, 1);
	}
	m->errors += mt_dma_unmap(&held, 0) == -1;
	return (NULL);
}

static void
test_lost(void)
{
	struct mt_waiter waiter = MT_WAITER_INIT;
	struct meeting m = { .stop = false };
	int64_t end_ms = t_now_ms() + MEET_MS;
	unsigned int rounds = 0, lost = 0;
	pthread_t thread;

	begin(&m.w, 64);
	must(pthread_create(&thread, NULL, meeting_give, &m) == 0);
	for (;;) {
		m.stop = lost != 0 || rounds == MEET_ROUNDS ||
		    (rounds % 256 == 0 && t_now_ms() >= end_ms);
		meet(&m, 0);
		if (m.stop)
			break;
		must(mt_dma_wait(m.w.sp, &waiter, 64, meeting_called, &m) ==
		    0);
		meet(&m, 0);
		lost += m.calls != ++rounds;
		mt_dma_cancel(&waiter);
	}
	pthread_join(thread, NULL);
	is_int(lost, 0, "who comes to wait when all comes back is called");
	is_int(m.errors, 0, "and budget is there when nobody waits");
	diag("%u times", rounds);
	end(&m.w);
}

/* Who does not wait takes nothing from who does. */
static void
test_barging(void)
{
	struct client a = { .w = MT_WAITER_INIT, .name = 'a', .take = 50 };
	struct client b = { .w = MT_WAITER_INIT, .name = 'b', .take = 60 };
	struct mt_mapping held, m, m2;
	char log[64] = "";
	struct world w;

	begin(&w, 100);
	a.world = b.world = &w;
	a.log = b.log = log;
	must(map(&w, 60, &held) == 0);
	must(mt_dma_wait(w.sp, &a.w, 50, called, &a) == 0);
	fails(map(&w, 10, &m), EAGAIN,
	    "what is too little for who waits is not for others");
	must(mt_dma_wait(w.sp, &b.w, 60, called, &b) == 0);
	must(mt_dma_unmap(&held, 0) == 0);
	is_str(log, "a", "it piles up");
	is_int(a.map.len, 50, "until it is enough");
	fails(map(&w, 10, &m), EAGAIN, "the same goes for the next");
	must(mt_dma_unmap(&a.map, 0) == 0);
	is_str(log, "ab", "who is called in turn");
	is_int(b.map.len, 60, "and gets what he needs");
	works(map(&w, 100, &m), "when nobody waits");
	is_int(m.len, 40, "the rest is there for all");
	must(mt_dma_unmap(&m, 0) == 0);

	/* The first needs less than there is in the end. */
	log[0] = '\0';
	a.take = 0;
	must(map(&w, 40, &m) == 0);
	must(mt_dma_wait(w.sp, &a.w, 70, called, &a) == 0);
	must(mt_dma_wait(w.sp, &b.w, 1, called, &b) == 0);
	b.take = 0;
	must(mt_dma_unmap(&m, 0) == 0);
	is_str(log, "", "the first waits");
	ok(mt_dma_cancel(&a.w), "when it stops waiting");
	is_str(log, "b", "there is enough for the next");
	must(mt_dma_unmap(&b.map, 0) == 0);
	works(map(&w, 100, &m2), "what was set aside and not taken comes back");
	is_int(m2.len, 100, "all of it");
	must(mt_dma_unmap(&m2, 0) == 0);
	end(&w);
}

/* While a waiter is called nobody takes what it needs. */
struct robbed {
	struct client c;
	struct mt_mapping theirs;
	size_t got;
};

static void *
rob(void *arg)
{
	struct robbed *r = arg;

	r->got = map(r->c.world, 100, &r->theirs) == 0 ? r->theirs.len : 0;
	return (NULL);
}

static void
robbed_called(void *arg)
{
	struct robbed *r = arg;
	pthread_t thread;

	must(pthread_create(&thread, NULL, rob, r) == 0);
	pthread_join(thread, NULL);
	r->c.ret = map(r->c.world, 70, &r->c.map);
}

static void
test_robbed(void)
{
	struct robbed r = { .c = { .w = MT_WAITER_INIT } };
	struct mt_mapping m;
	struct world w;

	begin(&w, 100);
	r.c.world = &w;
	must(map(&w, 100, &m) == 0);
	must(mt_dma_wait(w.sp, &r.c.w, 70, robbed_called, &r) == 0);
	must(mt_dma_unmap(&m, 0) == 0);
	is_int(r.got, 30, "another thread gets what is left");
	is_int(r.c.ret, 0, "who is called");
	is_int(r.c.map.len, 70, "what it waited for");
	must(mt_dma_unmap(&r.theirs, 0) == 0);
	must(mt_dma_unmap(&r.c.map, 0) == 0);
	end(&w);
}

/*
 * Some never wait, and together always hold something; others need all there
 * is, or a third.  Each of these gets it, every time it is called.
 */
struct needy {
	struct mt_waiter waiter;
	struct world *world;
	struct mt_mapping map;
	size_t need;
	int state;			/* atomic: 1 got it, 2 did not */
	unsigned int rounds, bad;
	int *stop;			/* atomic */
	pthread_t id;
};

static void
needy_called(void *arg)
{
	struct needy *n = arg;
	int ret = map(n->world, n->need, &n->map);

	__atomic_store_n(&n->state, ret == 0 && n->map.len == n->need ? 1 : 2,
	    __ATOMIC_RELEASE);
}

static void *
needy_run(void *arg)
{
	struct needy *n = arg;
	int state;

	while (n->rounds-- > 0) {
		n->state = 0;
		if (mt_dma_wait(n->world->sp, &n->waiter, n->need,
		    needy_called, n) == -1)
			n->bad++;
		while ((state = __atomic_load_n(&n->state,
		    __ATOMIC_ACQUIRE)) == 0)
			sched_yield();
		/* Leave them some time to take everything. */
		if (n->rounds % 8 == 0)
			usleep(50);
		/* The waiter is ours again when the call is over. */
		if (mt_dma_cancel(&n->waiter) || state != 1)
			n->bad++;
		if (n->map.ptr != NULL && mt_dma_unmap(&n->map, 0) == -1)
			n->bad++;
	}
	return (NULL);
}

static void *
greedy_run(void *arg)
{
	struct needy *n = arg;
	struct mt_mapping m[2];
	unsigned int i;

	memset(m, 0, sizeof(m));
	/* Takes the next before it gives the last back, if it can. */
	for (i = 0; !__atomic_load_n(n->stop, __ATOMIC_RELAXED); i++) {
		if (map(n->world, n->need, &m[i % 2]) == 0)
			n->rounds++;
		sched_yield();
		if (m[1 - i % 2].ptr != NULL)
			mt_dma_unmap(&m[1 - i % 2], 0);
	}
	for (i = 0; i < 2; i++)
		if (m[i].ptr != NULL)
			mt_dma_unmap(&m[i], 0);
	return (NULL);
}

static void
test_starve(void)
{
	static const size_t needs[] = { LIMIT, LIMIT / 3, LIMIT };
	struct needy needy[3], greedy[3];
	unsigned int i, bad = 0, taken = 0;
	struct world w;
	int stop = 0;

	begin(&w, LIMIT);
	memset(needy, 0, sizeof(needy));
	memset(greedy, 0, sizeof(greedy));
	for (i = 0; i < 3; i++) {
		needy[i].world = greedy[i].world = &w;
		needy[i].need = needs[i];
		needy[i].rounds = T_TSAN ? 300 : 2000;
		greedy[i].need = LIMIT / 4;
		greedy[i].stop = &stop;
		must(pthread_create(&greedy[i].id, NULL, greedy_run,
		    &greedy[i]) == 0);
	}
	for (i = 0; i < 3; i++)
		must(pthread_create(&needy[i].id, NULL, needy_run,
		    &needy[i]) == 0);
	for (i = 0; i < 3; i++) {
		pthread_join(needy[i].id, NULL);
		bad += needy[i].bad;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < 3; i++) {
		pthread_join(greedy[i].id, NULL);
		taken += greedy[i].rounds;
	}
	is_int(bad, 0, "among those who do not wait, those who do get "
	    "what they need");
	diag("those who did not wait mapped %u times", taken);
	end(&w);
}

/*
 * Very many wait, and each gives back at once what it takes, or takes nothing:
 * all are called in their order, but not on top of each other.
 */
#define CROWD		(T_TSAN ? 20000u : 100000u)
#define SMALL_STACK	((size_t)256 << 10)

struct crowd {
	struct world w;
	struct mt_waiter *waiters;
	struct mt_mapping held;
	unsigned int n;			/* of them that were called */
	unsigned int in;		/* of them that are in their callback */
	unsigned int bad;
	bool idle;			/* they take nothing */
	int64_t us;			/* that it took the processor */
};

struct member {
	struct crowd *crowd;
	unsigned int number;
};

static void
member_called(void *arg)
{
	struct member *me = arg;
	struct crowd *c = me->crowd;
	struct mt_mapping m;

	if (c->in++ != 0 || me->number != c->n++)
		c->bad++;
	if (!c->idle && (map(&c->w, 100, &m) == -1 ||
	    mt_dma_unmap(&m, 0) == -1))
		c->bad++;
	c->in--;
}

static void *
crowd_unmap(void *arg)
{
	struct crowd *c = arg;
	struct timespec ts;
	int ret = mt_dma_unmap(&c->held, 0);

	must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	c->us = (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
	return ((void *)(intptr_t)ret);
}

/* How much time it takes to call a crowd. */
static int64_t
call_crowd(bool idle)
{
	struct member *members = calloc(CROWD, sizeof(*members));
	struct crowd c = { .idle = idle };
	pthread_attr_t attr;
	pthread_t thread;
	unsigned int i;
	void *ret;

	c.waiters = calloc(CROWD, sizeof(*c.waiters));
	must(members != NULL && c.waiters != NULL);
	begin(&c.w, 100);
	must(map(&c.w, 100, &c.held) == 0);
	for (i = 0; i < CROWD; i++) {
		members[i] = (struct member){ &c, i };
		must(mt_dma_wait(c.w.sp, &c.waiters[i], 100, member_called,
		    &members[i]) == 0);
	}
	must(pthread_attr_init(&attr) == 0);
	must(pthread_attr_setstacksize(&attr, SMALL_STACK) == 0);
	must(pthread_create(&thread, &attr, crowd_unmap, &c) == 0);
	pthread_join(thread, &ret);
	pthread_attr_destroy(&attr);
	is_int((intptr_t)ret, 0, "what a crowd waits for comes back");
	is_int(c.n, CROWD, "all are called");
	is_int(c.bad, 0, "one after the other, on a small stack");
	end(&c.w);
	free(c.waiters);
	free(members);
	return (c.us);
}

static void
test_crowd(void)
{
	int64_t busy = call_crowd(false), idle = call_crowd(true);

	diag("%u calls: %jd us, and %jd us of some that take nothing", CROWD,
	    (intmax_t)busy, (intmax_t)idle);
	/* Walking all of the queue takes hundreds of times as much. */
	ok(idle < 50 * busy, "what a call costs does not grow with the queue");
}

int
main(void)
{
	test_default();
	test_budget();
	test_wait();
	test_order();
	test_again();
	test_snatched();
	test_cancel_inside();
	test_cancel_waits();
	test_barging();
	test_robbed();
	test_crowd();
	test_threads();
	test_starve();
	test_lost();
	return (done());
}
