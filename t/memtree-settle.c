/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Settling: what follows from a commit is done in the tree behind it, before
 * the call that committed returns.
 */

#include "t/util.h"

struct world {
	struct mt_topology *t;
	struct mt_region *root, *a, *b, *c;
	struct mt_space *sp;
};

static struct world
begin(void)
{
	struct world w;

	w.t = t_topology();
	w.root = t_container(w.t, "root", 0x10000);
	w.a = t_add(w.root, 0x1000, 0, t_ram(w.t, "a", 0x1000));
	w.b = t_add(w.root, 0x4000, 0, t_ram(w.t, "b", 0x1000));
	w.c = t_add(w.root, 0x8000, 0, t_ram(w.t, "c", 0x1000));
	must(mt_region_set_enabled(w.b, false) == 0);
	must(mt_region_set_enabled(w.c, false) == 0);
	w.sp = t_space(w.root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
}

/* One that shows then where its space shows when, and only so. */
struct follower {
	struct t_listener tl;
	struct mt_region *when, *then;
	bool there;
	unsigned int calls, failures;
};

static void
follow_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct follower *f = arg;

	t_heard_add(arg, sp, sec);
	if (sec->region == f->when)
		f->there = true;
}

static void
follow_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct follower *f = arg;

	t_heard_del(arg, sp, sec);
	if (sec->region == f->when)
		f->there = false;
}

static void
follow(void *arg, struct mt_space *sp)
{
	struct follower *f = arg;

	(void)sp;
	f->calls++;
	t_heard(&f->tl, "settle", NULL);
	if (mt_region_set_enabled(f->then, f->there) == -1)
		f->failures++;
}

static void
follower_init(struct follower *f, struct mt_region *when,
    struct mt_region *then)
{
	memset(f, 0, sizeof(*f));
	f->when = when;
	f->then = then;
	f->tl.text = f->tl.own;
	f->tl.l = (struct mt_listener){ .arg = f, .begin = t_heard_begin,
	    .commit = t_heard_commit, .add = follow_add, .del = follow_del,
	    .settle = follow };
}

static void
test_follow(void)
{
	struct world w = begin();
	struct t_listener other;
	struct follower f;

	follower_init(&f, w.a, w.b);
	works(mt_listener_register(w.sp, &f.tl.l), "one who follows");
	is_heard(&f.tl, "begin, add 1000-1fff a+0, commit, settle, "
	    "begin, add 4000-4fff b+0, commit, settle",
	    "does so at once, and sees what it has done");
	is_view(w.sp, "1000-1fff a+0, 4000-4fff b+0", "as all do");
	t_listen(&other, w.sp, NULL, 9, NULL);
	is_heard(&other, "begin, add 1000-1fff a+0, add 4000-4fff b+0, commit",
	    "another one");
	is_heard(&f.tl, "", "is none of its concern");

	works(mt_region_set_enabled(w.a, false), "a change");
	is_view(w.sp, "", "has its consequence when it returns");
	is_heard(&other, "begin, del 1000-1fff a+0, commit, "
	    "begin, del 4000-4fff b+0, commit", "others hear of two");
	is_heard(&f.tl, "begin, del 1000-1fff a+0, commit, settle, "
	    "begin, del 4000-4fff b+0, commit, settle", "so does itself");
	works(mt_region_set_enabled(w.c, true), "another change");
	is_heard(&f.tl, "begin, add 8000-8fff c+0, commit, settle",
	    "has none");

	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.a, true) == 0);
	must(mt_region_move(w.a, 0x2000) == 0);
	must(mt_region_set_enabled(w.c, false) == 0);
	is_heard(&f.tl, "", "a transaction is settled");
	works(mt_topology_commit(w.t), "at its end");
	is_view(w.sp, "2000-2fff a+0, 4000-4fff b+0", "once for all");
	is_heard(&f.tl, "begin, del 8000-8fff c+0, add 2000-2fff a+0, commit, "
	    "settle, begin, add 4000-4fff b+0, commit, settle", "of it");

	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.a, false) == 0);
	must(mt_topology_begin(w.t) == 0);
	works(mt_topology_commit(w.t), "an inner end is none");
	is_heard(&f.tl, "", "for who settles");
	must(mt_topology_commit(w.t) == 0);
	is_view(w.sp, "", "the outer one is");

	works(mt_listener_unregister(&f.tl.l), "who leaves");
	must(mt_region_set_enabled(w.a, true) == 0);
	is_view(w.sp, "2000-2fff a+0", "settles no more");
	must(mt_listener_unregister(&other.l) == 0);
	end(&w);
}

/* Several, each of which makes work for the next; in two spaces. */
static void
test_chain(void)
{
	struct world w = begin();
	struct mt_region *root = t_container(w.t, "root2", 0x10000), *d;
	struct mt_space *sp = t_space(root);
	struct follower f[3];

	d = t_add(root, 0, 0, t_ram(w.t, "d", 0x1000));
	must(mt_region_set_enabled(d, false) == 0);
	follower_init(&f[0], w.c, d);
	follower_init(&f[1], w.b, w.c);
	follower_init(&f[2], w.a, w.b);
	must(mt_topology_begin(w.t) == 0);
	for (unsigned int i = 0; i < 3; i++)
		must(mt_listener_register(w.sp, &f[i].tl.l) == 0);
	is_int(f[0].calls + f[1].calls + f[2].calls, 0,
	    "inside a transaction nothing is settled");
	works(mt_topology_commit(w.t), "at its end");
	is_view(w.sp, "1000-1fff a+0, 4000-4fff b+0, 8000-8fff c+0",
	    "one makes work for another");
	is_view(sp, "0-fff d+0", "also in another space");
	must(mt_region_set_enabled(w.a, false) == 0);
	is_view(w.sp, "", "and back");
	is_view(sp, "", "there, too");
	ok(f[0].calls + f[1].calls + f[2].calls <= 20,
	    "nobody is called for nothing: %u calls",
	    f[0].calls + f[1].calls + f[2].calls);
	for (unsigned int i = 0; i < 3; i++)
		must(mt_listener_unregister(&f[i].tl.l) == 0);
	must(mt_space_destroy(sp) == 0);
	mt_region_put(root);
	end(&w);
}

/* --- what may be done ---------------------------------------------------- */

struct doer {
	struct mt_listener l, guest;
	struct world *w;
	struct mt_region *made;
	unsigned int step, bad;
};

static void
guest_settles(void *arg, struct mt_space *sp)
{
	struct doer *d = arg;

	(void)sp;
	d->step += 100;
}

static bool
is_error(int rv, int error)
{
	return (rv == -1 && errno == error);
}

static void
doer_settles(void *arg, struct mt_space *sp)
{
	struct doer *d = arg;
	struct world *w = d->w;

	switch (d->step++) {
	case 0:
		d->bad += mt_topology_begin(w->t) != 0;
		d->made = t_ram(w->t, "made", 0x1000);
		d->bad += mt_region_add(w->root, d->made, 0xc000, 0) != 0;
		d->bad += mt_region_move(w->a, 0x3000) != 0;
		d->bad += mt_topology_commit(w->t) != 0;
		d->bad += !is_error(mt_topology_commit(w->t), EPERM);
		d->bad += !is_error(mt_topology_sync(w->t), EDEADLK);
		d->bad += !is_error(mt_topology_destroy(w->t), EBUSY);
		d->bad += !is_error(mt_space_destroy(sp), EBUSY);
		break;
	case 1:
		d->guest = (struct mt_listener){ .arg = d,
		    .settle = guest_settles };
		d->bad += mt_listener_register(sp, &d->guest) != 0;
		d->bad += mt_region_del(d->made) != 0;
		break;
	case 102:
		/* What is left open is closed. */
		d->bad += mt_topology_begin(w->t) != 0;
		d->bad += mt_region_set_enabled(w->c, true) != 0;
		d->bad += mt_topology_begin(w->t) != 0;
		break;
	case 103:
		errno = 99;
		d->bad += mt_region_set_enabled(w->c, false) != 0;
		d->bad += errno != 99;
		break;
	case 204:
		d->bad += mt_listener_unregister(&d->guest) != 0;
		d->bad += mt_listener_unregister(&d->l) != 0;
		/* Nobody is called who has left. */
		d->bad += mt_region_move(w->a, 0x5000) != 0;
		break;
	default:
		d->bad++;
	}
}

static void
test_inside(void)
{
	struct world w = begin();
	struct doer d = { .w = &w };

	d.l = (struct mt_listener){ .arg = &d, .settle = doer_settles };
	works(mt_listener_register(w.sp, &d.l), "one who does many things");
	is_int(d.bad, 0, "is let do them");
	is_int(d.step, 205, "all of them");
	is_view(w.sp, "5000-5fff a+0", "which shows");
	is_str(mt_region_name(d.made), "made", "and keeps what it made");
	mt_region_put(d.made);
	works(mt_region_move(w.a, 0x1000), "then it is over");
	is_int(d.step, 205, "for it");
	end(&w);
}

/* --- no memory for it ---------------------------------------------------- */

static void
test_failure(void)
{
	struct world w = begin();
	struct mt_view *v, *v2;
	struct follower f;

	follower_init(&f, w.a, w.b);
	must(mt_listener_register(w.sp, &f.tl.l) == 0);
	must(mt_region_set_enabled(w.a, false) == 0);
	must(mt_topology_sync(w.t) == 0);
	is_int(f.failures, 0, "all went well");
	v = mt_space_view(w.sp);
	mt_topology_set_max_waiting(w.t, 0);
	works(mt_region_set_enabled(w.a, true), "a change may pass");
	is_int(f.failures, 1, "where its consequence does not");
	is_view(w.sp, "1000-1fff a+0", "which leaves it as it is");
	v2 = mt_space_view(w.sp);
	/* A limit holds for who settles, though the commit had room. */
	must(mt_region_set_enabled(w.a, false) == -1 && errno == EAGAIN);
	mt_view_put(v);
	mt_view_put(v2);
	must(mt_topology_sync(w.t) == 0);
	mt_topology_set_max_waiting(w.t, MT_WAITING_DEFAULT);
	works(mt_region_set_enabled(w.c, true), "the next change");
	is_view(w.sp, "1000-1fff a+0, 4000-4fff b+0, 8000-8fff c+0",
	    "makes good for it");
	must(mt_listener_unregister(&f.tl.l) == 0);
	end(&w);
}

/* --- with those who hear of sizes ---------------------------------------- */

struct sized {
	struct mt_listener l;
	struct world *w;
	struct mt_region *r;
	mt_addr told;
	unsigned int calls, bad;
};

static void
resized(void *arg, struct mt_region *r, mt_addr last)
{
	struct sized *s = arg;

	(void)r;
	s->calls++;
	s->told = last;
	/* No lock is held: this waits for readers. */
	s->bad += mt_topology_sync(s->w->t) != 0;
}

static void
resize(void *arg, struct mt_space *sp)
{
	struct sized *s = arg;

	(void)sp;
	if (mt_region_last(s->r) == 0x1fff)
		s->bad += mt_region_resize(s->r, 0x2fff) != 0;
}

static void
test_resized(void)
{
	const struct mt_backing larger = { .max_last = 0x3fff };
	struct world w = begin();
	struct sized s = { .w = &w };

	s.r = mt_region_create_ram(w.t, "r", MT_SIZE(0x1000), &larger);
	must(s.r != NULL && mt_region_set_resized(s.r, resized, &s) == 0);
	must(mt_region_add(w.root, s.r, 0xa000, 0) == 0);
	s.l = (struct mt_listener){ .arg = &s, .settle = resize };
	must(mt_listener_register(w.sp, &s.l) == 0);
	works(mt_region_resize(s.r, 0x1fff), "a size that is not left alone");
	is_view(w.sp, "1000-1fff a+0, a000-cfff r+0", "becomes another one");
	is_int(s.calls, 1, "its owner hears once");
	is_hex(s.told, 0x2fff, "of the last one");
	is_int(s.bad, 0, "when all is over");
	must(mt_listener_unregister(&s.l) == 0);
	mt_region_put(s.r);
	end(&w);
}

/* What had room for itself gives none to who settles. */
static void
test_room(void)
{
	struct world w = begin();
	struct t_dev dev = T_DEV();
	struct follower f;
	struct mt_region *io;
	struct mt_view *v;

	io = t_add(w.root, 0xc000, 0, t_io(w.t, "io", 0x100, &dev));
	follower_init(&f, w.c, w.b);
	must(mt_listener_register(w.sp, &f.tl.l) == 0);
	must(mt_topology_sync(w.t) == 0);
	v = mt_space_view(w.sp);
	mt_topology_set_max_waiting(w.t, 0);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_add_coalescing(io, 0, 0xf) == 0);
	must(mt_region_set_enabled(w.c, true) == 0);
	works(mt_topology_commit(w.t), "a change that has room");
	is_int(f.failures, 1, "and has all of it");
	is_view(w.sp, "1000-1fff a+0, 8000-8fff c+0, c000-c0ff io+0",
	    "so nothing follows");
	mt_topology_set_max_waiting(w.t, MT_WAITING_DEFAULT);
	mt_view_put(v);
	must(mt_listener_unregister(&f.tl.l) == 0);
	end(&w);
}

/* Who registers in a transaction that fails has been told what there is. */
static void
test_failed_transaction(void)
{
	struct world w = begin();
	struct follower f;
	struct mt_view *v = mt_space_view(w.sp);

	follower_init(&f, w.a, w.b);
	must(mt_region_set_enabled(w.c, true) == 0);
	mt_topology_set_max_waiting(w.t, 0);
	must(mt_topology_begin(w.t) == 0);
	must(mt_listener_register(w.sp, &f.tl.l) == 0);
	must(mt_region_set_enabled(w.c, false) == 0);
	fails(mt_topology_commit(w.t), EAGAIN, "a transaction fails");
	is_int(f.calls, 1, "one who came inside settles all the same");
	is_int(f.failures, 1, "or tries to");
	mt_topology_set_max_waiting(w.t, MT_WAITING_DEFAULT);
	mt_view_put(v);
	must(mt_listener_unregister(&f.tl.l) == 0);
	end(&w);
}

int
main(void)
{
	test_follow();
	test_chain();
	test_inside();
	test_failure();
	test_room();
	test_failed_transaction();
	test_resized();
	return (done());
}
