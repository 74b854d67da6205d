/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Devices whose DMA comes back to them, and locks around callbacks. */

#include <pthread.h>
#include <sched.h>

#include "t/util.h"

/*
 * A device at base: registers, whose callbacks make an access of their own if
 * they are told to, and a second region that takes buffers.
 */
struct device {
	struct mt_space *sp;
	struct mt_guard guard;
	pthread_mutex_t lock;
	pthread_mutex_t *held;		/* is it?  NULL: do not look */
	struct mt_region *regs, *bufs;
	mt_addr base;
	enum mt_result (*inside)(struct device *, mt_addr);
	mt_addr to;			/* what inside accesses */
	enum mt_result result;		/* of that */
	unsigned int depth;		/* callbacks that this thread is in */
	unsigned int calls;
	unsigned int unlocked;		/* calls that found it not held */
	struct mt_piece *piece;
	pthread_mutex_t *later;		/* of piece, for who completes it */
	bool keep;			/* complete it later */
};

#define REGS(d)		((d)->base)
#define BUFS(d)		((d)->base + 0x1000)
#define RAM		0x0

static void
called(struct device *d)
{
	d->calls++;
	/* From another thread one could not tell, but none is there. */
	if (d->held != NULL) {
		if (pthread_mutex_trylock(d->held) == 0) {
			pthread_mutex_unlock(d->held);
			d->unlocked++;
		}
	}
	if (d->inside == NULL || d->depth > 2)
		return;
	d->depth++;
	d->result = d->inside(d, d->to);
	d->depth--;
}

static enum mt_result
dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)off, (void)size, (void)attrs;
	*val = 0x5555555555555555;
	called(arg);
	return (MT_OK);
}

static enum mt_result
dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)off, (void)size, (void)val, (void)attrs;
	called(arg);
	return (MT_OK);
}

static bool
dev_accepts(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	(void)size, (void)is_write, (void)attrs;
	if (off == 0xff0)
		called(arg);
	return (true);
}

static enum mt_result
dev_read_buf(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)off, (void)attrs;
	memset(buf, 0x66, len);
	called(arg);
	return (MT_OK);
}

static enum mt_result
dev_write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)off, (void)buf, (void)len, (void)attrs;
	called(arg);
	return (MT_OK);
}

static void
dev_submit_buf(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct device *d = arg;

	(void)off, (void)attrs;
	if (!is_write)
		memset(buf, 0x77, len);
	called(d);
	if (d->keep)
		d->piece = piece;
	else
		mt_access_complete(piece, MT_OK);
}

static bool
dev_cancel_buf(void *arg, struct mt_piece *piece)
{
	struct device *d = arg;

	called(d);
	if (d->piece != piece)
		return (false);
	d->piece = NULL;
	return (true);
}

static const struct mt_io_ops regs_ops = {
	.read = dev_read, .write = dev_write, .accepts = dev_accepts,
	.endian = MT_LITTLE, .valid = { 1, 8, false }, .impl = { 1, 4, false },
};
static const struct mt_io_ops bufs_ops = {
	.read_buf = dev_read_buf, .write_buf = dev_write_buf,
	.submit_buf = dev_submit_buf, .cancel_buf = dev_cancel_buf,
	.endian = MT_LITTLE,
};

static const struct mt_io_ops later_ops = {
	.submit_buf = dev_submit_buf, .endian = MT_LITTLE,
};

struct world {
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *sp;
};

static struct world
begin(void)
{
	struct world w = { .t = t_topology() };

	w.root = t_container(w.t, "root", T_ALL);
	t_add(w.root, RAM, 0, t_ram(w.t, "ram", 0x1000));
	w.sp = t_space(w.root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
}

static void
plug(struct world *w, struct device *d, mt_addr base, bool guard,
    pthread_mutex_t *lock)
{
	memset(d, 0, sizeof(*d));
	d->sp = w->sp;
	d->base = base;
	pthread_mutex_init(&d->lock, NULL);
	must((d->regs = mt_region_create_io(w->t, "regs", 0xfff, &regs_ops,
	    d)) != NULL);
	must((d->bufs = mt_region_create_io(w->t, "bufs", 0xfff, &bufs_ops,
	    d)) != NULL);
	if (guard) {
		must(mt_region_set_guard(d->regs, &d->guard) == 0);
		must(mt_region_set_guard(d->bufs, &d->guard) == 0);
	}
	if (lock != NULL) {
		must(mt_region_set_lock(d->regs, lock) == 0);
		must(mt_region_set_lock(d->bufs, lock) == 0);
		d->held = lock;
	}
	t_add(w->root, REGS(d), 0, d->regs);
	t_add(w->root, BUFS(d), 0, d->bufs);
}

/* How many calls an access made; its result and that of the one inside. */
static const char *
poke(struct device *d, enum mt_result (*inside)(struct device *, mt_addr),
    mt_addr to)
{
	enum mt_result res;
	char *s = t_text();

	d->inside = inside;
	d->to = to;
	d->calls = 0;
	d->result = MT_OK;
	res = mt_space_store(d->sp, REGS(d), 4, MT_LITTLE, 1, MT_ATTRS_NONE);
	t_append(s, "%u calls, %u inside %u", d->calls, (unsigned int)res,
	    (unsigned int)d->result);
	d->inside = NULL;
	return (s);
}
#define is_poked(d, inside, to, want, ...) \
	is_str(poke(d, inside, to), want, __VA_ARGS__)

/* --- what a device does inside of a callback --------------------------- */

static enum mt_result
do_store(struct device *d, mt_addr to)
{
	return (mt_space_store(d->sp, to, 4, MT_LITTLE, 7, MT_ATTRS_NONE));
}

static enum mt_result
do_load(struct device *d, mt_addr to)
{
	uint64_t val = 1;
	enum mt_result res;

	res = mt_space_load(d->sp, to, 8, MT_LITTLE, &val, MT_ATTRS_NONE);
	return (res != MT_OK && val != 0 ? MT_DEVICE : res);
}

static enum mt_result
do_read(struct device *d, mt_addr to)
{
	uint8_t buf[64];
	enum mt_result res;
	size_t i;

	memset(buf, 0xee, sizeof(buf));
	res = mt_space_read(d->sp, to, buf, sizeof(buf), MT_ATTRS_NONE);
	for (i = 0; i < sizeof(buf); i++)
		if (res != MT_OK && buf[i] != 0)
			return (MT_DEVICE);
	return (res);
}

static enum mt_result
do_write(struct device *d, mt_addr to)
{
	static const uint8_t buf[64];

	return (mt_space_write(d->sp, to, buf, sizeof(buf), MT_ATTRS_NONE));
}

static enum mt_result
do_cache(struct device *d, mt_addr to)
{
	struct mt_cache c;
	enum mt_result res;
	uint64_t val;

	must(mt_cache_init(&c, d->sp, to, 8, MT_DMA_READ, MT_ATTRS_NONE) ==
	    0);
	res = mt_cache_load_le64(&c, 0, &val);
	mt_cache_fini(&c);
	return (res);
}

static enum mt_result
do_map(struct device *d, mt_addr to)
{
	struct mt_mapping map;
	enum mt_result res;

	must(mt_dma_map(d->sp, to, 64, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map) == 0);
	res = map.result;
	(void)mt_dma_unmap(&map, 64);
	return (map.result == res ? res : MT_DEVICE);
}

static void
submitted(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

static enum mt_result
do_submit(struct device *d, mt_addr to)
{
	enum mt_result res = MT_DEVICE;
	struct mt_access acc;
	uint8_t buf[64];

	must(mt_access_submit(d->sp, &acc, to, buf, sizeof(buf), false,
	    MT_ATTRS_NONE, submitted, &res) == 0);
	return (res);
}

static enum mt_result
do_valid(struct device *d, mt_addr to)
{
	return (mt_space_valid(d->sp, to, 4, true, MT_ATTRS_NONE) ? MT_OK :
	    MT_DENIED);
}

static const struct {
	const char *name;
	enum mt_result (*fn)(struct device *, mt_addr);
} ways[] = {
	{ "a store", do_store },
	{ "a load", do_load },
	{ "a read", do_read },
	{ "a write", do_write },
	{ "a load through a cache", do_cache },
	{ "a bounce buffer", do_map },
	{ "an access that was submitted", do_submit },
	{ "asking", do_valid },
};

/* --- guards ------------------------------------------------------------ */

static void
test_set(void)
{
	struct world w = begin();
	struct mt_guard guard = MT_GUARD_INIT;
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	struct mt_region *r, *ram = t_ram(w.t, "ram", 16), *alias;
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_space *sp;

	fails(mt_region_set_guard(ram, &guard), EINVAL,
	    "memory has no callbacks to guard");
	fails(mt_region_set_lock(ram, &lock), EINVAL, "nor to lock");
	r = t_io(w.t, "io", 16, &dev);
	fails(mt_region_set_guard(r, NULL), EINVAL, "no guard is none");
	fails(mt_region_set_lock(r, NULL), EINVAL, "no lock is none");
	must(mt_region_add(w.root, r, 0x100000, 0) == 0);
	fails(mt_region_set_guard(r, &guard), EBUSY,
	    "it is too late when a region is placed");
	fails(mt_region_set_lock(r, &lock), EBUSY, "for a lock, too");
	must(mt_region_del(r) == 0);
	alias = t_alias(w.t, "alias", r, 0, 16);
	fails(mt_region_set_guard(r, &guard), EBUSY, "or seen by an alias");
	mt_region_put(alias);
	must(mt_topology_sync(w.t) == 0);
	sp = t_space(r);
	fails(mt_region_set_guard(r, &guard), EBUSY, "or has a space");
	must(mt_space_destroy(sp) == 0);
	works(mt_region_set_guard(r, &guard), "else it can have one");
	fails(mt_region_set_guard(r, &guard), EBUSY, "but one");
	works(mt_region_set_lock(r, &lock), "and a lock");
	fails(mt_region_set_lock(r, &lock), EBUSY, "one, too");
	mt_region_put(r);
	r = t_romd(w.t, "romd", 16, &dev);
	works(mt_region_set_guard(r, &guard), "as can a ROM device");
	is_int(mt_guard_refused(&guard), 0, "nothing was refused so far");
	mt_region_put(r);
	mt_region_put(ram);
	end(&w);
}

static void
test_guard(void)
{
	struct world w = begin();
	struct device a, b, open;
	uint64_t refused;
	size_t i;

	plug(&w, &a, 0x10000, true, NULL);
	plug(&w, &b, 0x20000, true, NULL);
	plug(&w, &open, 0x30000, false, NULL);

	is_poked(&open, do_store, REGS(&open), "4 calls, 0 inside 0",
	    "who has no guard is entered again, and again");
	is_poked(&a, do_store, RAM, "1 calls, 0 inside 0",
	    "a guard leaves memory alone");
	is_poked(&a, do_store, REGS(&b), "1 calls, 0 inside 0",
	    "and other devices");
	is_int(b.calls, 1, "which are called");
	for (i = 0; i < T_COUNT(ways); i++) {
		refused = mt_guard_refused(&a.guard);
		is_poked(&a, ways[i].fn, REGS(&a), "1 calls, 0 inside 4",
		    "%s is refused, and calls nobody", ways[i].name);
		is_poked(&a, ways[i].fn, BUFS(&a), "1 calls, 0 inside 4",
		    "by the device's other region, too");
		ok(mt_guard_refused(&a.guard) > refused, "that is counted");
	}
	is_int(mt_guard_refused(&b.guard), 0, "by that guard alone");

	/* A to B to A. */
	b.inside = do_store;
	b.to = REGS(&a);
	is_poked(&a, do_store, REGS(&b), "1 calls, 0 inside 0",
	    "the way by another device ends there");
	is_int(b.result, MT_DENIED, "where it is refused");
	b.inside = NULL;
	/* What crosses into it. */
	is_poked(&a, do_write, REGS(&a) - 32, "1 calls, 0 inside 6",
	    "what begins in a hole is refused in part");
	is_int(mt_space_store(w.sp, REGS(&a), 4, MT_LITTLE, 1,
	    MT_ATTRS_NONE), MT_OK, "later it can be accessed again");
	is_int(do_read(&a, BUFS(&a)), MT_OK, "by the device's own DMA, too");
	end(&w);
}

/* Two regions of one device, of which one shows memory in ROM mode. */
static void
test_rom_device(void)
{
	struct world w = begin();
	struct device a;
	struct mt_region *r;

	plug(&w, &a, 0x10000, true, NULL);
	r = mt_region_create_rom_device(w.t, "romd", 0xfff, NULL, &regs_ops,
	    &a);
	must(r != NULL && mt_region_set_guard(r, &a.guard) == 0);
	t_add(w.root, 0x50000, 0, r);
	t_add(w.root, 0x51000, 0, t_ram(w.t, "ram", 0x1000));
	is_poked(&a, do_load, 0x50000, "1 calls, 0 inside 0",
	    "memory of the device itself can be read");
	is_poked(&a, do_load, 0x50ffc, "1 calls, 0 inside 0",
	    "with what follows it, too");
	is_poked(&a, do_store, 0x50000, "1 calls, 0 inside 4",
	    "but its callbacks are guarded");
	must(mt_region_set_rom_mode(r, false) == 0);
	is_poked(&a, do_load, 0x50000, "1 calls, 0 inside 4",
	    "each of them");
	end(&w);
}

/* Cancelling, too, would enter the device. */
static struct mt_access kept;

static enum mt_result
do_cancel(struct device *d, mt_addr to)
{
	(void)d, (void)to;
	return (mt_access_cancel(&kept) ? MT_OK : MT_DENIED);
}

static void
test_cancel(pthread_mutex_t *lock, const char *what)
{
	struct world w = begin();
	enum mt_result res = MT_OK;
	struct device a;
	uint8_t buf[64];

	plug(&w, &a, 0x10000, true, lock);
	a.keep = true;
	must(mt_access_submit(w.sp, &kept, BUFS(&a), buf, sizeof(buf), false,
	    MT_ATTRS_NONE, submitted, &res) == 0);
	is_poked(&a, do_cancel, 0, "1 calls, 0 inside 4",
	    "with %s a device is not asked to cancel what it is in", what);
	ok(mt_access_cancel(&kept), "elsewhere it is");
	is_int(a.unlocked, 0, "and has its lock, if any");
	end(&w);
}

/* --- threads ----------------------------------------------------------- */

static void *
other_thread(void *arg)
{
	struct device *d = arg;
	uint64_t val;

	return (mt_space_load(d->sp, d->to, 4, MT_LITTLE, &val,
	    MT_ATTRS_NONE) == MT_OK ? NULL : arg);
}

/* From inside of a callback, and while it does not return. */
static enum mt_result
do_elsewhere(struct device *d, mt_addr to)
{
	pthread_t thread;
	void *failed;

	(void)to;
	d->inside = NULL;
	must(pthread_create(&thread, NULL, other_thread, d) == 0);
	pthread_join(thread, &failed);
	return (failed == NULL ? MT_OK : MT_DENIED);
}

#define ROUNDS	5000

/* Registers that count, and their own DMA, which comes back. */
struct counter {
	struct mt_space *sp;
	mt_addr base;
	uint64_t n;			/* by the lock of the region */
	bool comes_back;
};

static enum mt_result
counter_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct counter *c = arg;

	(void)off, (void)size, (void)attrs;
	c->n += val;
	return (c->comes_back && mt_space_store(c->sp, c->base, 4, MT_LITTLE,
	    1000000, MT_ATTRS_NONE) != MT_DENIED ? MT_DEVICE : MT_OK);
}

static enum mt_result
atomic_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct counter *c = arg;

	(void)off, (void)size, (void)attrs;
	__atomic_fetch_add(&c->n, val, __ATOMIC_RELAXED);
	return (mt_space_store(c->sp, c->base, 4, MT_LITTLE, 1000000,
	    MT_ATTRS_NONE) != MT_DENIED ? MT_DEVICE : MT_OK);
}

struct thrower {
	struct counter *c;
	unsigned int failed;
};

static void *
throw(void *arg)
{
	struct thrower *th = arg;
	unsigned int i;

	for (i = 0; i < ROUNDS; i++)
		if (mt_space_store(th->c->sp, th->c->base, 4, MT_LITTLE, 1,
		    MT_ATTRS_NONE) != MT_OK)
			th->failed++;
	return (NULL);
}

static void
test_two_threads(bool lock, bool guard)
{
	static const struct mt_io_ops with_lock = { .write = counter_write };
	static const struct mt_io_ops without = { .write = atomic_write };
	pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	struct mt_guard g = MT_GUARD_INIT;
	struct world w = begin();
	struct counter c = { w.sp, 0x10000, 0, guard };
	struct thrower throwers[2] = { { &c, 0 }, { &c, 0 } };
	struct mt_region *r;
	pthread_t thread;

	r = mt_region_create_io(w.t, "counter", 0xfff,
	    lock ? &with_lock : &without, &c);
	must(r != NULL);
	if (lock)
		must(mt_region_set_lock(r, &mutex) == 0);
	if (guard)
		must(mt_region_set_guard(r, &g) == 0);
	t_add(w.root, c.base, 0, r);
	must(pthread_create(&thread, NULL, throw, &throwers[0]) == 0);
	throw(&throwers[1]);
	pthread_join(thread, NULL);
	is_int(throwers[0].failed + throwers[1].failed, 0,
	    "with%s%s no thread is refused because of another",
	    lock ? " a lock" : "", guard ? " a guard" : "");
	is_int(c.n, 2 * ROUNDS, "each access has its callback, once");
	is_int(mt_guard_refused(&g), guard ? 2 * ROUNDS : 0,
	    "what comes back is refused, always");
	end(&w);
}

static void
test_threads(void)
{
	struct world w = begin();
	struct device a;

	plug(&w, &a, 0x10000, true, NULL);
	is_poked(&a, do_elsewhere, REGS(&a), "2 calls, 0 inside 0",
	    "another thread is not refused meanwhile");
	is_int(mt_guard_refused(&a.guard), 0, "at all");
	end(&w);
	test_two_threads(true, false);
	test_two_threads(true, true);
	test_two_threads(false, true);
}

/* --- locks ------------------------------------------------------------- */

static void *
complete_later(void *arg)
{
	struct device *d = arg;
	struct mt_piece *piece;

	/* The access waits without the lock: here it is to be had. */
	do {
		sched_yield();
		pthread_mutex_lock(d->later);
		piece = d->piece;
		d->piece = NULL;
		pthread_mutex_unlock(d->later);
	} while (piece == NULL);
	mt_access_complete(piece, MT_OK);
	return (NULL);
}

static void
test_lock(void)
{
	struct world w = begin();
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;
	struct mt_region *r;
	struct device a;

	plug(&w, &a, 0x10000, false, &lock);
	a.later = &lock;
	is_int(do_store(&a, REGS(&a)) | do_load(&a, REGS(&a)) |
	    do_write(&a, REGS(&a)) | do_read(&a, REGS(&a)) |
	    do_read(&a, BUFS(&a)) | do_write(&a, BUFS(&a)) |
	    do_submit(&a, BUFS(&a)) | do_valid(&a, REGS(&a) + 0xff0), MT_OK,
	    "a device can be accessed in all ways");
	ok(a.calls > 30, "and is called");
	is_int(a.unlocked, 0, "with its lock held in each call");
	is_int(pthread_mutex_trylock(&lock), 0, "and not later");
	pthread_mutex_unlock(&lock);

	r = mt_region_create_io(w.t, "later", 0xfff, &later_ops, &a);
	must(r != NULL && mt_region_set_lock(r, &lock) == 0);
	t_add(w.root, 0x50000, 0, r);
	a.keep = true;
	a.held = NULL;
	must(pthread_create(&thread, NULL, complete_later, &a) == 0);
	is_int(do_read(&a, 0x50000), MT_OK,
	    "an access that waits does not hold the lock");
	pthread_join(thread, NULL);
	end(&w);
}

static void
test_reentry(void)
{
	struct world w = begin();
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, check;
	pthread_mutexattr_t attr;
	struct device a, b, c, checked;
	size_t i;

	/* With a guard: refused before the lock is asked for. */
	plug(&w, &a, 0x10000, true, &lock);
	plug(&w, &b, 0x20000, true, &lock);
	for (i = 0; i < T_COUNT(ways); i++)
		is_poked(&a, ways[i].fn, REGS(&a), "1 calls, 0 inside 4",
		    "with a lock, too, %s is refused", ways[i].name);
	is_poked(&a, do_store, REGS(&b), "1 calls, 0 inside 0",
	    "another device may share the lock");
	is_int(b.unlocked, 0, "which is held there");
	b.inside = do_store;
	b.to = REGS(&a);
	is_poked(&a, do_store, REGS(&b), "1 calls, 0 inside 0",
	    "so may one that comes back");
	is_int(b.result, MT_DENIED, "which is refused");
	is_int(pthread_mutex_trylock(&lock), 0, "all have given it back");
	pthread_mutex_unlock(&lock);

	/* Without: the thread has the lock already. */
	plug(&w, &c, 0x30000, false, &lock);
	is_poked(&c, do_store, REGS(&c), "4 calls, 0 inside 0",
	    "a lock alone lets a thread in that has it");
	is_int(c.unlocked, 0, "and is not let go too early");
	is_int(pthread_mutex_trylock(&lock), 0, "nor too late");
	pthread_mutex_unlock(&lock);

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
	pthread_mutex_init(&check, &attr);
	plug(&w, &checked, 0x40000, false, &check);
	pthread_mutex_lock(&check);
	is_int(do_store(&checked, REGS(&checked)), MT_DENIED,
	    "a lock that cannot be had refuses");
	pthread_mutex_unlock(&check);
	is_int(do_store(&checked, REGS(&checked)), MT_OK, "and later not");
	is_int(checked.calls, 1, "and nobody was called");
	end(&w);
}

int
main(void)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	test_set();
	test_guard();
	test_rom_device();
	test_cancel(NULL, "a guard");
	test_cancel(&lock, "a lock");
	test_threads();
	test_lock();
	test_reentry();
	return (done());
}
