/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Topologies: transactions, waiting for what is freed, and their end. */

#include "t/util.h"

static void
test_transaction(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *a, *b;
	struct mt_space *sp;

	root = t_container(t, "root", 0x10000);
	sp = t_space(root);
	a = t_ram(t, "a", 0x1000);
	b = t_ram(t, "b", 0x1000);
	fails(mt_topology_commit(t), EPERM, "commit needs a begin");
	works(mt_topology_begin(t), "a transaction begins");
	works(mt_topology_begin(t), "and one in it");
	works(mt_region_add(root, a, 0, 0), "a region is added");
	is_view(sp, "", "which nobody sees");
	ok(mt_region_parent(a) == root, "but the tree has");
	works(mt_topology_commit(t), "the inner one ends");
	is_view(sp, "", "and nobody sees the region");
	works(mt_region_add(root, b, 0x800, 0), "another is added");
	is_view(sp, "", "which nobody sees");
	works(mt_topology_commit(t), "the outer one ends");
	is_view(sp, "0-7ff a+0, 800-17ff b+0", "and both are seen");
	fails(mt_topology_commit(t), EPERM, "and there is nothing to end");

	works(mt_topology_begin(t), "an empty transaction");
	works(mt_topology_commit(t), "does nothing");
	is_view(sp, "0-7ff a+0, 800-17ff b+0", "to the view");

	must(mt_topology_begin(t) == 0);
	works(mt_region_del(a), "a region goes");
	mt_region_put(a);
	works(mt_region_del(b), "and another");
	works(mt_region_add(root, b, 0, 0), "which comes back");
	works(mt_region_move(b, 0x100), "and moves");
	works(mt_region_set_enabled(b, false), "and is disabled");
	works(mt_region_set_enabled(b, true), "and enabled");
	works(mt_topology_commit(t), "in one transaction");
	is_view(sp, "100-10ff b+0", "and the outcome is seen");

	mt_region_put(b);
	works(mt_space_destroy(sp), "clean up");
	mt_region_put(root);
	t_end(t);
}

static void
test_destroy(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root;
	struct mt_mapping map;
	struct mt_space *sp;

	root = t_ram(t, "root", 0x1000);
	fails(mt_topology_destroy(t), EBUSY, "a region keeps its topology");
	sp = t_space(root);
	mt_region_put(root);
	fails(mt_topology_destroy(t), EBUSY, "as does a space");
	must(mt_dma_map(sp, 0, 1, MT_DMA_READ, MT_ATTRS_NONE, &map) == 0);
	works(mt_space_destroy(sp), "which goes");
	fails(mt_topology_destroy(t), EBUSY, "and a mapping");
	works(mt_dma_unmap(&map, 0), "which goes too");
	works(mt_topology_begin(t), "a transaction");
	fails(mt_topology_destroy(t), EBUSY, "keeps it too");
	works(mt_topology_commit(t), "and is there still");
	t_end(t);
}

/* Calls that are refused where they would wait for themselves. */
struct inside {
	struct mt_topology *t;
	struct mt_space *sp;
	struct mt_region *root, *r, *orphan;
	int begin, sync, destroy, add, del, move, resize, enable, create;
	int space_destroy, registered, dump;
};

#define error_of(call)	(errno = 0, (call) == -1 ? errno : 0)

static void
on_commit(void *arg, struct mt_space *sp)
{
	struct inside *in = arg;
	struct mt_listener l = { .prio = 0 };
	FILE *fp = fopen("/dev/null", "w");

	(void)sp;
	must(fp != NULL);
	in->begin = error_of(mt_topology_begin(in->t));
	in->sync = error_of(mt_topology_sync(in->t));
	in->destroy = error_of(mt_topology_destroy(in->t));
	in->add = error_of(mt_region_add(in->root, in->orphan, 0, 0));
	in->del = error_of(mt_region_del(in->r));
	in->move = error_of(mt_region_move(in->r, 0x8000));
	in->resize = error_of(mt_region_resize(in->r, 0));
	in->enable = error_of(mt_region_set_enabled(in->r, false));
	in->create = error_of(mt_space_create(in->root, "x") == NULL ? -1 : 0);
	in->space_destroy = error_of(mt_space_destroy(in->sp));
	in->registered = error_of(mt_listener_register(in->sp, &l));
	in->dump = error_of(mt_dump_tree(fp, in->root));
	fclose(fp);
}

static enum mt_result
on_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct inside *in = arg;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	in->sync = error_of(mt_topology_sync(in->t));
	in->destroy = error_of(mt_topology_destroy(in->t));
	return (MT_OK);
}

static void
on_put(void *arg)
{
	struct inside *in = arg;

	in->sync = error_of(mt_topology_sync(in->t));
	in->destroy = error_of(mt_topology_destroy(in->t));
}

static void
test_inside(void)
{
	static const struct mt_io_ops ops = { .read = on_read };
	struct mt_topology *t = t_topology();
	struct inside in = { .t = t };
	struct mt_listener l = { .arg = &in, .commit = on_commit };

	in.root = t_container(t, "root", 0x10000);
	in.sp = t_space(in.root);
	must((in.r = mt_region_create_io(t, "r", 0, &ops, &in)) != NULL);
	must(mt_region_add(in.root, in.r, 0, 0) == 0);
	in.orphan = t_container(t, "orphan", 1);
	must(mt_region_set_owner(in.orphan, &in, on_put) == 0);
	must(mt_listener_register(in.sp, &l) == 0);
	must(mt_region_move(in.r, 0x1000) == 0);
	is_int(in.begin, EDEADLK, "a listener does not begin a transaction");
	is_int(in.sync, EDEADLK, "nor wait for readers");
	is_int(in.destroy, EDEADLK, "nor destroy the topology");
	is_int(in.add, EDEADLK, "nor add a region");
	is_int(in.del, EDEADLK, "nor delete one");
	is_int(in.move, EDEADLK, "nor move one");
	is_int(in.resize, EDEADLK, "nor resize one");
	is_int(in.enable, EDEADLK, "nor disable one");
	is_int(in.create, EDEADLK, "nor create a space");
	is_int(in.space_destroy, EDEADLK, "nor destroy one");
	is_int(in.registered, EDEADLK, "nor register a listener");
	is_int(in.dump, EDEADLK, "nor dump the tree");
	is_view(in.sp, "1000-1000 r+0", "and nothing has changed");
	ok(mt_region_parent(in.orphan) == NULL, "nor in the tree");
	must(mt_listener_unregister(&l) == 0);

	in.sync = in.destroy = 0;
	mt_space_read(in.sp, 0x1000, &(uint8_t){ 0 }, 1, MT_ATTRS_NONE);
	is_int(in.sync, EDEADLK, "a region callback does not wait for itself");
	is_int(in.destroy, EDEADLK, "nor destroy the topology");

	in.sync = in.destroy = 0;
	mt_region_put(in.orphan);
	works(mt_topology_sync(t), "release an owner");
	is_int(in.sync, EDEADLK, "the reclaimer does not wait for itself");
	is_int(in.destroy, EDEADLK, "nor destroy the topology");

	must(mt_topology_begin(t) == 0);
	fails(mt_topology_sync(t), EDEADLK,
	    "who has a transaction open does not wait for its end");
	must(mt_topology_commit(t) == 0);

	must(mt_space_destroy(in.sp) == 0);
	must(mt_region_del(in.r) == 0);
	mt_region_put(in.r);
	mt_region_put(in.root);
	t_end(t);
}

/* Another writer, on its own thread. */
struct writer {
	struct mt_topology *t;
	struct mt_region *parent, *child;
	int commit, sync, add;
	int state;		/* atomic: 1 before the add, 2 after it */
};

static void *
writer(void *arg)
{
	struct writer *w = arg;

	w->commit = error_of(mt_topology_commit(w->t));
	w->sync = error_of(mt_topology_sync(w->t));
	__atomic_store_n(&w->state, 1, __ATOMIC_SEQ_CST);
	w->add = error_of(mt_region_add(w->parent, w->child, 0, 0));
	__atomic_store_n(&w->state, 2, __ATOMIC_SEQ_CST);
	return (NULL);
}

static int
state(struct writer *w)
{
	return (__atomic_load_n(&w->state, __ATOMIC_SEQ_CST));
}

static void
test_threads(void)
{
	struct mt_topology *t = t_topology(), *t2 = t_topology();
	struct writer w = { .t = t };
	struct mt_region *other, *r2;
	struct mt_space *sp;
	pthread_t thread;

	w.parent = t_container(t, "root", 0x1000);
	w.child = t_ram(t, "child", 0x1000);
	other = t_ram(t, "other", 0x100);
	sp = t_space(w.parent);
	must(mt_topology_begin(t) == 0);
	must(mt_region_add(w.parent, other, 0, 1) == 0);
	must(pthread_create(&thread, NULL, writer, &w) == 0);
	while (state(&w) == 0)
		usleep(1000);
	usleep(50000);
	is_int(state(&w), 1, "a writer waits for the transaction of another");
	is_view(sp, "", "a reader does not");

	r2 = t_container(t2, "r2", 0x1000);
	t_add(r2, 0, 0, t_container(t2, "child", 1));
	works(mt_topology_begin(t2), "another topology is not concerned");
	works(mt_topology_commit(t2), "nor are its transactions");
	mt_region_put(r2);
	t_end(t2);

	works(mt_topology_commit(t), "the transaction ends");
	must(pthread_join(thread, NULL) == 0);
	is_int(w.add, 0, "and the other writer goes on");
	is_int(w.commit, EPERM, "a thread does not commit for another");
	is_int(w.sync, 0, "but may wait for readers meanwhile");
	is_view(sp, "0-ff other+0, 100-fff child+100", "both have their way");
	mt_region_put(w.child);
	mt_region_put(other);
	t_end_space(t, sp, w.parent);
}

/* Two topologies can have a transaction open on one thread. */
static void
test_two(void)
{
	struct mt_topology *t = t_topology(), *t2 = t_topology();
	struct mt_region *r, *r2;
	struct mt_space *sp, *sp2;

	r = t_container(t, "r", 0x1000);
	r2 = t_container(t2, "r2", 0x1000);
	sp = t_space(r);
	sp2 = t_space(r2);
	works(mt_topology_begin(t), "one begins");
	works(mt_topology_begin(t2), "another begins on the same thread");
	t_add(r, 0, 0, t_ram(t, "a", 1));
	t_add(r2, 0, 0, t_ram(t2, "b", 1));
	works(mt_topology_commit(t), "the first ends");
	is_view(sp, "0-0 a+0", "and is seen");
	is_view(sp2, "", "alone");
	fails(mt_topology_sync(t2), EDEADLK, "the second is still open");
	works(mt_topology_sync(t), "which the first does not mind");
	works(mt_topology_commit(t2), "the second ends");
	is_view(sp2, "0-0 b+0", "and is seen");
	must(mt_space_destroy(sp) == 0 && mt_space_destroy(sp2) == 0);
	mt_region_put(r);
	mt_region_put(r2);
	t_end(t);
	t_end(t2);
}

/* A reader that stays inside for as long as it is told to. */
struct reader {
	struct mt_space *sp;
	int in, out;			/* atomic */
};

static enum mt_result
slow_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct reader *r = arg;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	__atomic_store_n(&r->in, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&r->out, __ATOMIC_SEQ_CST) == 0)
		usleep(1000);
	return (MT_OK);
}

static void *
reader(void *arg)
{
	struct reader *r = arg;
	uint8_t byte;

	mt_space_read(r->sp, 0, &byte, 1, MT_ATTRS_NONE);
	return (NULL);
}

static void *
let_go(void *arg)
{
	struct reader *r = arg;

	usleep(50000);
	__atomic_store_n(&r->out, 1, __ATOMIC_SEQ_CST);
	return (NULL);
}

static void
test_sync(void)
{
	static const struct mt_io_ops ops = { .read = slow_read };
	struct mt_topology *t = t_topology();
	struct reader r = { NULL, 0, 0 };
	struct mt_region *root, *io;
	pthread_t thread[2];
	int owner = 0;

	root = t_container(t, "root", 0x1000);
	must((io = mt_region_create_io(t, "io", 0, &ops, &r)) != NULL);
	must(mt_region_set_owner(io, &owner, t_put) == 0);
	t_add(root, 0, 0, io);
	r.sp = t_space(root);
	must(pthread_create(&thread[0], NULL, reader, &r) == 0);
	while (__atomic_load_n(&r.in, __ATOMIC_SEQ_CST) == 0)
		usleep(1000);
	works(mt_region_del(io), "a writer does not wait for readers");
	is_view(r.sp, "", "and its change is seen");
	usleep(20000);
	is_int(__atomic_load_n(&owner, __ATOMIC_SEQ_CST), 0,
	    "a region is not released under its reader");
	must(pthread_create(&thread[1], NULL, let_go, &r) == 0);
	works(mt_topology_sync(t), "a sync waits for the reader");
	is_int(__atomic_load_n(&r.out, __ATOMIC_SEQ_CST), 1,
	    "until it has left");
	is_int(owner, 1, "and for the region to be released");
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	t_end_space(t, r.sp, root);
}

static void
test_signals(void)
{
	struct mt_topology *t;
	sigset_t set, pending;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	t = t_topology();
	must(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
	must(kill(getpid(), SIGUSR1) == 0);
	usleep(20000);
	sigpending(&pending);
	is_int(sigismember(&pending, SIGUSR1), 1,
	    "the reclaimer's thread takes no signals");
	signal(SIGUSR1, SIG_IGN);
	must(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
	signal(SIGUSR1, SIG_DFL);
	t_end(t);
}

static void
test_many(void)
{
	struct mt_topology *t;
	bool good = true;
	int i;

	for (i = 0; i < 50; i++) {
		t = t_topology();
		mt_region_put(t_ram(t, "ram", 0x10000));
		good = mt_topology_destroy(t) == 0 && good;
	}
	ok(good, "topologies come and go");
}

int
main(void)
{
	test_transaction();
	test_destroy();
	test_inside();
	test_threads();
	test_two();
	test_sync();
	test_signals();
	test_many();
	return (done());
}
