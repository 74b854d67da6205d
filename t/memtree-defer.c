/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Accesses that are completed later: by hand here, and by threads. */

#include <sched.h>

#include "t/util.h"

#define NSLOTS	64

/* A device of bytes that keeps what it is to do until it is told to do it. */
struct slot {
	struct mt_piece *piece;		/* NULL: free */
	void *buf;
	mt_addr off;
	size_t len;
	bool is_write;
};

struct dev {
	struct mt_io_ops ops;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct slot slots[NSLOTS];	/* lock */
	uint8_t bytes[0x1000];		/* lock */
	unsigned int n;			/* lock; how many there were */
	bool at_once, stop;		/* lock */
	enum mt_result answer;
};

static enum mt_result
transfer(struct dev *d, struct slot *s)
{
	must(s->off < sizeof(d->bytes) && s->len <= sizeof(d->bytes) - s->off);
	if (s->is_write)
		memcpy(d->bytes + s->off, s->buf, s->len);
	else
		memcpy(s->buf, d->bytes + s->off, s->len);
	return (d->answer);
}

static void
dev_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct slot s = { piece, buf, off, len, is_write };
	struct dev *d = arg;
	unsigned int i = 0;

	(void)attrs;
	pthread_mutex_lock(&d->lock);
	d->n++;
	if (d->at_once) {
		enum mt_result res = transfer(d, &s);

		pthread_mutex_unlock(&d->lock);
		mt_access_complete(piece, res);
		return;
	}
	while (d->slots[i].piece != NULL)
		must(++i < NSLOTS);
	d->slots[i] = s;
	piece->data = &d->slots[i];
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

static bool
dev_cancel(void *arg, struct mt_piece *piece)
{
	struct dev *d = arg;
	unsigned int i;

	pthread_mutex_lock(&d->lock);
	for (i = 0; i < NSLOTS && d->slots[i].piece != piece; i++)
		;
	if (i < NSLOTS)
		d->slots[i].piece = NULL;
	pthread_mutex_unlock(&d->lock);
	return (i < NSLOTS);
}

/* Complete what is in slot i, or the first in any: false if there is none. */
static bool
dev_do(struct dev *d, unsigned int i)
{
	struct mt_piece *piece = NULL;
	enum mt_result res = MT_OK;

	pthread_mutex_lock(&d->lock);
	for (i = i < NSLOTS ? i : 0; i < NSLOTS; i++)
		if ((piece = d->slots[i].piece) != NULL) {
			must(piece->data == &d->slots[i]);
			res = transfer(d, &d->slots[i]);
			d->slots[i].piece = NULL;
			break;
		}
	pthread_mutex_unlock(&d->lock);
	if (piece != NULL)
		mt_access_complete(piece, res);
	return (piece != NULL);
}

static void *
dev_run(void *arg)
{
	struct dev *d = arg;
	bool stop;

	do {
		while (dev_do(d, 0))
			;
		pthread_mutex_lock(&d->lock);
		if (!(stop = d->stop) && d->slots[0].piece == NULL)
			pthread_cond_wait(&d->cond, &d->lock);
		pthread_mutex_unlock(&d->lock);
	} while (!stop);
	return (NULL);
}

static void
dev_stop(struct dev *d, pthread_t thread)
{
	pthread_mutex_lock(&d->lock);
	d->stop = true;
	pthread_cond_signal(&d->cond);
	pthread_mutex_unlock(&d->lock);
	pthread_join(thread, NULL);
}

static const struct mt_io_ops dev_ops = {
	.submit_buf = dev_submit,
	.cancel_buf = dev_cancel,
	.endian = MT_LITTLE,
};

/* 0-fff ram, 1000-1fff a, 2000-2fff b, 3000-3fff c, 4000-4fff ram again. */
struct world {
	struct mt_topology *t;
	struct mt_region *root, *ram, *io[3];
	struct mt_space *sp;
	struct dev dev[3];
	uint8_t buf[0x5000];
};

static struct world *
begin(void)
{
	struct world *w = calloc(1, sizeof(*w));
	unsigned int i, j;

	must(w != NULL);
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x10000);
	w->ram = t_add(w->root, 0, 0, t_ram(w->t, "ram", 0x1000));
	t_add(w->root, 0x4000, 0, t_alias(w->t, "again", w->ram, 0, 0x1000));
	memset(mt_region_ptr(w->ram), 0x77, 0x1000);
	for (i = 0; i < 3; i++) {
		w->dev[i].ops = dev_ops;
		pthread_mutex_init(&w->dev[i].lock, NULL);
		pthread_cond_init(&w->dev[i].cond, NULL);
		for (j = 0; j < 0x1000; j++)
			w->dev[i].bytes[j] = (uint8_t)(j * 3 + i);
		w->io[i] = t_add(w->root, 0x1000 * (i + 1), 0,
		    t_io(w->t, "io", 0x1000, &w->dev[i]));
	}
	w->sp = t_space(w->root);
	memset(w->buf, 0xee, sizeof(w->buf));
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
	free(w);
}

struct outcome {
	int calls;		/* of done */
	enum mt_result res;
};

static void
note(void *arg, enum mt_result res)
{
	struct outcome *o = arg;

	o->res = res;
	__atomic_add_fetch(&o->calls, 1, __ATOMIC_RELEASE);
}

static int
submit(struct world *w, struct mt_access *acc, mt_addr addr, size_t len,
    bool is_write, struct outcome *o)
{
	*o = (struct outcome){ 0, MT_OK };
	return (mt_access_submit(w->sp, acc, addr, w->buf, len, is_write,
	    MT_ATTRS_NONE, note, o));
}

static void
test_inline(void)
{
	struct world *w = begin();
	struct mt_access acc;
	struct outcome o;

	works(submit(w, &acc, 0x10, 0x20, false, &o), "an access to memory");
	is_int(o.calls, 1, "is over at once");
	is_hex(w->buf[0x1f], 0x77, "with its bytes");
	ok(!mt_access_cancel(&acc), "too late to cancel it");
	submit(w, &acc, 0x8000, 4, false, &o);
	is_int(o.res, MT_DECODE, "a hole is told");
	submit(w, &acc, 0x10, 0, false, &o);
	is_int(o.calls, 1, "nothing is done at once");
	w->dev[0].at_once = true;
	submit(w, &acc, 0x1004, 4, false, &o);
	is_int(o.calls, 1, "a device may be quick");
	is_mem(w->buf, w->dev[0].bytes + 4, 4, "and right");
	is_int(mt_space_read(w->sp, 0x1005, w->buf, 8, MT_ATTRS_NONE), MT_OK,
	    "also when one waits for it");
	is_mem(w->buf, w->dev[0].bytes + 5, 8, "with the same bytes");
	works(mt_access_drain(w->sp), "nothing is in flight");
	end(w);
}

static void
test_later(void)
{
	struct world *w = begin();
	struct mt_access a, b;
	struct outcome oa, ob;
	uint8_t other[16];

	works(submit(w, &a, 0x1000, 0x1000, false, &oa), "a slow device");
	is_int(oa.calls, 0, "is not done");
	is_int(w->dev[0].n, 1, "though asked, once for 4 KiB");
	ob = (struct outcome){ 0, MT_OK };
	memset(other, 0x11, sizeof(other));
	works(mt_access_submit(w->sp, &b, 0x1100, other, 16, true,
	    MT_ATTRS_NONE, note, &ob), "many can be in flight");
	fails(mt_space_destroy(w->sp), EBUSY, "which keep the space");
	dev_do(&w->dev[0], 1);
	is_int(ob.calls, 1, "they end in any order");
	is_int(oa.calls, 0, "each for itself");
	w->dev[0].answer = MT_DEVICE;
	dev_do(&w->dev[0], 0);
	is_int(oa.calls, 1, "in the end");
	is_int(oa.res, MT_DEVICE, "with their results");
	is_hex(w->buf[0] | w->buf[0x101], 0, "and zeros for an error");
	is_hex(w->dev[0].bytes[0x10f], 0x11, "what was written arrived");
	end(w);
}

static void
test_spans(void)
{
	struct world *w = begin();
	struct mt_access acc;
	struct outcome o;

	works(submit(w, &acc, 0x800, 0x4000, false, &o),
	    "an access over memory and three devices");
	is_int(w->dev[0].n + w->dev[1].n + w->dev[2].n, 3,
	    "is in flight in all of them");
	is_hex(w->buf[0x3fff], 0x77, "while the memory is read");
	dev_do(&w->dev[1], 0);
	w->dev[2].answer = MT_DENIED;
	dev_do(&w->dev[2], 0);
	is_int(o.calls, 0, "it is not over");
	w->dev[0].answer = MT_DEVICE;
	dev_do(&w->dev[0], 0);
	is_int(o.calls, 1, "until all are");
	is_int(o.res, MT_DEVICE | MT_DENIED, "with all of their results");
	is_mem(w->buf + 0x1800, w->dev[1].bytes, 0x1000, "and the bytes");
	is_hex(w->buf[0x800] | w->buf[0x37ff], 0, "but for the errors");
	submit(w, &acc, 0x3800, 0x8800, true, &o);
	dev_do(&w->dev[2], 0);
	is_int(o.res, MT_DENIED | MT_DECODE, "results of others are in it");
	end(w);
}

/* Regions stay until an access is over, and it does not matter where. */
static void
test_pins(void)
{
	struct world *w = begin();
	struct mt_access acc;
	struct outcome o;
	int owner = 0;

	must(mt_region_set_owner(w->io[0], &owner, t_put) == 0);
	submit(w, &acc, 0x1000, 0x100, false, &o);
	must(mt_region_del(w->io[0]) == 0);
	is_int(t_puts_of(w->t, &owner), 0, "a region in use stays");
	dev_do(&w->dev[0], 0);
	is_int(o.calls, 1, "until the access");
	is_int(t_puts_of(w->t, &owner), 1, "is over");
	end(w);
}

static void
test_cancel(void)
{
	struct world *w = begin();
	struct mt_access acc;
	struct outcome o;
	int owner = 0;

	must(mt_region_set_owner(w->io[0], &owner, t_put) == 0);
	submit(w, &acc, 0x1800, 0x1000, false, &o);
	ok(mt_access_cancel(&acc), "an access can be cancelled");
	memset(w->buf, 0x22, sizeof(w->buf));
	ok(!dev_do(&w->dev[0], 0) && !dev_do(&w->dev[1], 0),
	    "then there is nothing to do");
	is_int(o.calls, 0, "and done is not called");
	works(mt_access_drain(w->sp), "nor waited for");
	must(mt_region_del(w->io[0]) == 0);
	is_int(t_puts_of(w->t, &owner), 1, "nor is a region kept");

	w->dev[1].ops.cancel_buf = NULL;
	submit(w, &acc, 0x2800, 0x1000, false, &o);
	ok(!mt_access_cancel(&acc), "one that no longer can goes on");
	is_int(o.calls, 0, "to its end");
	ok(!mt_access_cancel(&acc), "which cannot be cancelled again");
	ok(!dev_do(&w->dev[2], 0), "though a part of it was");
	dev_do(&w->dev[1], 0);
	is_int(o.calls, 1, "when done is called");
	is_int(o.res, MT_DEVICE, "and told");
	is_mem(w->buf, w->dev[1].bytes + 0x800, 0x800, "the rest is there");
	is_hex(w->buf[0x800], 0, "and the part is zero");
	end(w);
}

static void *
later(void *arg)
{
	usleep(30000);
	dev_do(arg, 0);
	return (NULL);
}

struct inside {
	struct mt_space *sp;
	int ret, error;
};

static void
drain_inside(void *arg, enum mt_result res)
{
	struct inside *in = arg;

	(void)res;
	in->ret = mt_access_drain(in->sp);
	in->error = errno;
}

static void
test_drain(void)
{
	struct world *w = begin();
	struct inside in = { w->sp, 0, 0 };
	struct mt_access acc;
	pthread_t thread;
	struct outcome o;

	submit(w, &acc, 0x1000, 4, false, &o);
	must(pthread_create(&thread, NULL, later, &w->dev[0]) == 0);
	works(mt_access_drain(w->sp), "draining");
	is_int(o.calls, 1, "waits for what is in flight");
	pthread_join(thread, NULL);
	must(mt_access_submit(w->sp, &acc, 0x1000, w->buf, 4, false,
	    MT_ATTRS_NONE, drain_inside, &in) == 0);
	dev_do(&w->dev[0], 0);
	is_int(in.ret, -1, "it fails in a done");
	is_int(in.error, EDEADLK, "which it would wait for");
	works(mt_access_drain(w->sp), "and works after it");
	end(w);
}

/*
 * A done that submits the next access, and so on: each is over at once, and
 * none is called on top of another.
 */
#define CHAIN		(T_TSAN ? 50000u : 1000000u)
#define SMALL_STACK	((size_t)256 << 10)

struct chain {
	struct world *w;
	struct mt_access *acc;		/* each frees it, and makes another */
	mt_addr addr;
	uint8_t buf[4];
	unsigned int left, calls, in, bad;
};

static void
chain_done(void *arg, enum mt_result res)
{
	struct chain *c = arg;

	if (c->in++ != 0 || res != MT_OK)
		c->bad++;
	c->calls++;
	free(c->acc);
	c->acc = NULL;
	if (c->left > 0) {
		c->left--;
		c->acc = malloc(sizeof(*c->acc));
		must(c->acc != NULL);
		must(mt_access_submit(c->w->sp, c->acc, c->addr, c->buf,
		    sizeof(c->buf), false, MT_ATTRS_NONE, chain_done, c) == 0);
	}
	c->in--;
}

static void *
chain_run(void *arg)
{
	struct chain *c = arg;

	c->acc = malloc(sizeof(*c->acc));
	must(c->acc != NULL);
	must(mt_access_submit(c->w->sp, c->acc, c->addr, c->buf,
	    sizeof(c->buf), false, MT_ATTRS_NONE, chain_done, c) == 0);
	return (c->acc);
}

static void
test_chain(void)
{
	static const mt_addr where[] = { 0x10, 0x1010 };
	struct world *w = begin();
	struct chain c;
	pthread_attr_t attr;
	pthread_t thread;
	unsigned int i;
	void *acc;

	w->dev[0].at_once = true;
	must(pthread_attr_init(&attr) == 0);
	must(pthread_attr_setstacksize(&attr, SMALL_STACK) == 0);
	for (i = 0; i < T_COUNT(where); i++) {
		c = (struct chain){ .w = w, .addr = where[i], .left = CHAIN };
		must(pthread_create(&thread, &attr, chain_run, &c) == 0);
		pthread_join(thread, &acc);
		ok(acc == NULL, "each done submits the next access%s",
		    i == 0 ? "" : ", also of a quick device");
		is_int(c.calls, CHAIN + 1, "and all are over with the first");
		is_int(c.bad, 0, "none inside another");
	}
	pthread_attr_destroy(&attr);
	works(mt_access_drain(w->sp), "nothing is in flight");
	end(w);
}

/* What a done sees of the accesses that it submits, here and elsewhere. */
struct nest {
	struct world *w, *other;
	struct mt_access acc[4];
	struct outcome quick, quicker, elsewhere;
	int calls, drained, destroyed;
	bool cancelled;
	char order[8];
};

static void
nest_last(void *arg, enum mt_result res)
{
	struct nest *n = arg;

	(void)res;
	strcat(n->order, n->quick.calls == 1 && n->quicker.calls == 1 ?
	    "d" : "?");
}

static void
nest_done(void *arg, enum mt_result res)
{
	struct nest *n = arg;

	(void)res;
	strcat(n->order, "a");
	must(submit(n->w, &n->acc[1], 0x1010, 4, false, &n->quick) == 0);
	must(submit(n->w, &n->acc[2], 0x10, 4, false, &n->quicker) == 0);
	must(mt_access_submit(n->w->sp, &n->acc[0], 0x10, n->w->buf, 4, false,
	    MT_ATTRS_NONE, nest_last, n) == 0);
	n->calls = n->quick.calls + n->quicker.calls;
	n->cancelled = mt_access_cancel(&n->acc[1]);
	n->drained = mt_access_drain(n->w->sp) == -1 ? errno : 0;
	n->destroyed = mt_space_destroy(n->w->sp) == -1 ? errno : 0;
	strcat(n->order, "b");
	must(submit(n->other, &n->acc[3], 0x10, 4, false, &n->elsewhere) ==
	    0);
	must(mt_access_drain(n->other->sp) == 0);
	strcat(n->order, n->elsewhere.calls == 1 ? "c" : "?");
}

static void
test_nest(void)
{
	static const mt_addr where[] = { 0x20, 0x2020 };
	struct nest n = { .w = begin(), .other = begin() };
	unsigned int i;

	n.w->dev[0].at_once = true;
	for (i = 0; i < T_COUNT(where); i++) {
		n.order[0] = '\0';
		works(mt_access_submit(n.w->sp, &n.acc[0], where[i], n.w->buf,
		    4, false, MT_ATTRS_NONE, nest_done, &n), "an access%s",
		    i == 0 ? "" : " that ends later");
		if (i == 1)
			dev_do(&n.w->dev[1], 0);
		is_str(n.order, "abcd", "what its done submits has its own "
		    "called after that, in order, but at once elsewhere");
		is_int(n.calls, 0, "not before");
		ok(!n.cancelled, "when it is too late to cancel it");
		is_int(n.drained, EDEADLK, "and waiting would be for ever");
		is_int(n.destroyed, EBUSY, "though it keeps the space");
	}
	works(mt_access_drain(n.w->sp), "nothing is in flight");
	end(n.other);
	end(n.w);
}

/* A call that waits, on a thread of its own. */
struct blocked {
	struct world *w;
	enum { READ, WRITE, SET, LOAD, MAP } what;
	mt_addr addr;
	size_t len;
	uint64_t val;
	struct mt_mapping map;
	enum mt_result res;
	pthread_t thread;
};

static void *
block(void *arg)
{
	struct blocked *b = arg;
	struct mt_space *sp = b->w->sp;

	switch (b->what) {
	case READ:
		b->res = mt_space_read(sp, b->addr, b->w->buf, b->len,
		    MT_ATTRS_NONE);
		break;
	case WRITE:
		b->res = mt_space_write(sp, b->addr, b->w->buf, b->len,
		    MT_ATTRS_NONE);
		break;
	case SET:
		b->res = mt_space_set(sp, b->addr, 9, b->len, MT_ATTRS_NONE);
		break;
	case LOAD:
		b->res = mt_space_load(sp, b->addr, (unsigned int)b->len,
		    MT_BIG, &b->val, MT_ATTRS_NONE);
		break;
	case MAP:
		b->res = mt_dma_map(sp, b->addr, b->len, MT_DMA_READ,
		    MT_ATTRS_NONE, &b->map) == 0 ? b->map.result : MT_DENIED;
		break;
	}
	return (NULL);
}

/* A device is given something to do, soon. */
static bool
await(struct dev *d)
{
	int64_t end_ms = t_now_ms() + 10000;
	bool there = false;

	while (!there && t_now_ms() < end_ms) {
		pthread_mutex_lock(&d->lock);
		there = d->slots[0].piece != NULL;
		pthread_mutex_unlock(&d->lock);
		usleep(1000);
	}
	return (there);
}

/* Begin a call that then is in the first n devices at once. */
static void
blocks(struct blocked *b, unsigned int n, const char *what)
{
	unsigned int i, there = 0;

	must(pthread_create(&b->thread, NULL, block, b) == 0);
	for (i = 0; i < n && await(&b->w->dev[i]); i++)
		there++;
	is_int(there, n, "%s is in flight in all that defer", what);
	/* One that goes from one to the next has to come to its end, too. */
	for (; there < n; there++) {
		dev_do(&b->w->dev[there - 1], 0);
		must(await(&b->w->dev[there]));
	}
}

static enum mt_result
unblocked(struct blocked *b)
{
	pthread_join(b->thread, NULL);
	return (b->res);
}

static void
test_together(void)
{
	struct world *w = begin();
	struct blocked b = { .w = w, .what = READ, .addr = 0x800,
	    .len = 0x4000 };

	blocks(&b, 3, "a read that waits");
	works(mt_topology_sync(w->t), "and is not waited for");
	dev_do(&w->dev[2], 0);
	w->dev[1].answer = MT_DEVICE;
	dev_do(&w->dev[1], 0);
	w->dev[0].answer = MT_DENIED;
	dev_do(&w->dev[0], 0);
	is_int(unblocked(&b), MT_DEVICE | MT_DENIED,
	    "it has the results of all");
	is_hex(w->buf[0x800] | w->buf[0x17ff] | w->buf[0x1800] |
	    w->buf[0x27ff], 0, "zeros for the errors");
	is_mem(w->buf + 0x2800, w->dev[2].bytes, 0x1000, "and the bytes");
	is_hex(w->buf[0x3fff], 0x77, "also of memory behind them");
	w->dev[0].answer = w->dev[1].answer = MT_OK;

	b = (struct blocked){ .w = w, .what = WRITE, .addr = 0x1ff0,
	    .len = 0x20 };
	memset(w->buf, 0x33, 0x20);
	blocks(&b, 2, "a write");
	ok(dev_do(&w->dev[1], 0) && dev_do(&w->dev[0], 0),
	    "which may end in the last first");
	is_int(unblocked(&b), MT_OK, "it is over with all of them");
	ok(w->dev[0].bytes[0xff0] == 0x33 && w->dev[1].bytes[0xf] == 0x33 &&
	    w->dev[1].bytes[0x10] != 0x33, "and has written what it is to");

	b = (struct blocked){ .w = w, .what = LOAD, .addr = 0x1ffc,
	    .len = 8 };
	memcpy(w->dev[0].bytes + 0xffc, "\1\2\3\4", 4);
	memcpy(w->dev[1].bytes, "\5\6\7\10", 4);
	blocks(&b, 2, "a value");
	dev_do(&w->dev[1], 0);
	dev_do(&w->dev[0], 0);
	is_int(unblocked(&b), MT_OK, "it is there");
	is_hex(b.val, 0x0102030405060708, "when all of its bytes are");

	b = (struct blocked){ .w = w, .what = MAP, .addr = 0x1800,
	    .len = 0x1000 };
	blocks(&b, 2, "the filling of a bounce buffer");
	dev_do(&w->dev[1], 0);
	dev_do(&w->dev[0], 0);
	is_int(unblocked(&b), MT_OK, "is over");
	is_mem(b.map.ptr, w->dev[0].bytes + 0x800, 0x800, "with the bytes");
	is_mem((uint8_t *)b.map.ptr + 0x800, w->dev[1].bytes, 0x800,
	    "of both");
	works(mt_dma_unmap(&b.map, 0), "unmap");
	end(w);
}

/* How many pieces a device has been given, soon so many. */
static unsigned int
await_number(struct dev *d, unsigned int want)
{
	int64_t end_ms = t_now_ms() + 10000;
	unsigned int n = 0;

	while (n < want && t_now_ms() < end_ms) {
		pthread_mutex_lock(&d->lock);
		n = d->n;
		pthread_mutex_unlock(&d->lock);
		usleep(1000);
	}
	return (n);
}

/* More pieces than can be in flight for one who waits. */
#define MANY	40

static void
test_many(void)
{
	struct world *w = begin();
	struct blocked b = { .w = w, .what = READ, .addr = 0x8000,
	    .len = MANY * 0x10 };
	pthread_t worker;
	unsigned int i, wrong = 0;

	/* Each shows what the next one does not go on with. */
	for (i = 0; i < MANY; i++)
		t_add(w->root, 0x8000 + i * 0x10, 0, t_alias(w->t, "part",
		    w->io[0], i * 0x20, 0x10));
	must(pthread_create(&b.thread, NULL, block, &b) == 0);
	is_int(await_number(&w->dev[0], 32), 32, "up to 32 parts are in "
	    "flight for one who waits");
	must(pthread_create(&worker, NULL, dev_run, &w->dev[0]) == 0);
	is_int(unblocked(&b), MT_OK, "the others follow");
	for (i = 0; i < MANY; i++)
		wrong += memcmp(w->buf + i * 0x10, w->dev[0].bytes + i * 0x20,
		    0x10) != 0;
	is_int(wrong, 0, "and each is in its place");
	is_int(w->dev[0].n, MANY, "once");
	dev_stop(&w->dev[0], worker);
	end(w);
}

/* The calls that wait: outside of their section, and by one view. */
static void
test_wait(void)
{
	struct world *w = begin();
	struct blocked b = { .w = w, .what = SET, .addr = 0x1e00,
	    .len = 0x400 };
	struct mt_mapping map;
	struct mt_cache c;
	pthread_t worker;
	uint64_t val;

	must(pthread_create(&b.thread, NULL, block, &b) == 0);
	must(await(&w->dev[0]));
	must(mt_region_del(w->io[1]) == 0);
	works(mt_topology_sync(w->t), "one that waits is not waited for");
	dev_do(&w->dev[0], 0);
	ok(await(&w->dev[1]), "and goes on");
	dev_do(&w->dev[1], 0);
	is_int(unblocked(&b), MT_OK, "to its end");
	ok(w->dev[0].bytes[0xfff] == 9 && w->dev[1].bytes[0] == 9 &&
	    w->dev[1].bytes[0x1ff] == 9, "with what was there before");

	must(pthread_create(&worker, NULL, dev_run, &w->dev[0]) == 0);
	is_int(mt_space_store(w->sp, 0x1010, 4, MT_BIG, 0x01020304,
	    MT_ATTRS_NONE), MT_OK, "a store waits");
	is_int(mt_space_load(w->sp, 0x1010, 4, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_OK, "a load does");
	is_hex(val, 0x01020304, "and they agree");
	is_int(mt_space_set(w->sp, 0x1000, 9, 0x800, MT_ATTRS_NONE), MT_OK,
	    "filling waits for each of its parts");
	works(mt_dma_map(w->sp, 0x1700, 0x200, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map), "a bounce buffer");
	is_mem(map.ptr, w->dev[0].bytes + 0x700, 0x200, "is filled");
	memset(map.ptr, 8, 0x200);
	works(mt_dma_unmap(&map, 0x200), "and written back");
	is_hex(w->dev[0].bytes[0x8ff], 8, "in time");
	must(mt_cache_init(&c, w->sp, 0x1000, 0x10, MT_DMA_READ,
	    MT_ATTRS_NONE) == 0);
	is_int(mt_cache_load(&c, 0, 4, MT_LITTLE, &val), MT_OK,
	    "a cache waits, too");
	is_hex(val, 0x09090909, "for its value");
	mt_cache_fini(&c);
	dev_stop(&w->dev[0], worker);
	end(w);
}

/* Threads that submit, wait and cancel, and threads that complete. */
#define ROUNDS	(T_TSAN ? 500 : 3000)

struct user {
	struct world *w;
	unsigned int bad, cancelled;
};

static void *
use(void *arg)
{
	struct user *u = arg;
	struct mt_access acc[4];
	struct outcome o[4];
	uint8_t buf[4][64];
	unsigned int i, k;

	for (i = 0; i < ROUNDS; i++) {
		for (k = 0; k < 4; k++) {
			o[k] = (struct outcome){ 0, MT_OK };
			if (mt_access_submit(u->w->sp, &acc[k], 0x1fe0, buf[k],
			    64, false, MT_ATTRS_NONE, note, &o[k]) == -1)
				u->bad++;
		}
		if (i % 3 == 0 && mt_access_cancel(&acc[3])) {
			u->cancelled++;
			o[3].calls = 1;
		}
		for (k = 0; k < 4; k++) {
			while (__atomic_load_n(&o[k].calls,
			    __ATOMIC_ACQUIRE) == 0)
				sched_yield();
			if (k < 3 && (o[k].res != MT_OK || memcmp(buf[k],
			    u->w->dev[0].bytes + 0xfe0, 32) != 0 ||
			    memcmp(buf[k] + 32, u->w->dev[1].bytes, 32) != 0))
				u->bad++;
		}
	}
	return (NULL);
}

static void
test_threads(void)
{
	struct world *w = begin();
	struct user u[2] = { { w, 0, 0 }, { w, 0, 0 } };
	pthread_t dev[2], user[2];
	unsigned int i;

	for (i = 0; i < 2; i++)
		must(pthread_create(&dev[i], NULL, dev_run, &w->dev[i]) == 0);
	for (i = 0; i < 2; i++)
		must(pthread_create(&user[i], NULL, use, &u[i]) == 0);
	for (i = 0; i < 2; i++)
		pthread_join(user[i], NULL);
	works(mt_access_drain(w->sp), "all comes to an end");
	is_int(u[0].bad + u[1].bad, 0, "with the right bytes, once each");
	diag("%u of %u were cancelled", u[0].cancelled + u[1].cancelled,
	    2 * ROUNDS / 3);
	for (i = 0; i < 2; i++)
		dev_stop(&w->dev[i], dev[i]);
	end(w);
}

int
main(void)
{
	test_inline();
	test_later();
	test_spans();
	test_pins();
	test_cancel();
	test_drain();
	test_chain();
	test_nest();
	test_together();
	test_many();
	test_wait();
	test_threads();
	return (done());
}
