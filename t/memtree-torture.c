/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Writers that move, switch, make and destroy regions, against readers,
 * mappers, caches, watchers and accesses that end later, for T_SECONDS.  All
 * that a reader sees must be of one view, and what it uses must be alive.
 */

#include <sys/queue.h>
#include <sys/uio.h>

#include <inttypes.h>
#include <sched.h>
#include <time.h>

#include "t/util.h"

#define PAGE		0x1000
#define SWAPPED		0		/* two that change places */
#define FLEETING	0x4000		/* RAM that comes and goes */
#define DEVICE		0x8000		/* as devices do */
#define WINDOW		0xc000		/* a window onto the first two */
#define LATER		0x10000		/* two that answer later, swapped */
#define SLOW		0x14000		/* one of those, that comes and goes */

#define LISTED		8		/* ranges of a list */

#define ALIVE		0x600d600du
#define DEAD		0xdeaddeadu

struct device {
	unsigned int magic;
	uint8_t byte;
};

static struct mt_topology *t;
static struct mt_region *root, *a, *b, *window, *later_a, *later_b;
static struct mt_space *sp;
static unsigned int stop;		/* atomic */
static unsigned int errors;		/* atomic */
static unsigned int made, gone;		/* atomic: of what has an owner */

static bool
running(void)
{
	return (__atomic_load_n(&stop, __ATOMIC_RELAXED) == 0);
}

#define check(cond, what) do {						\
	if (!(cond) && __atomic_fetch_add(&errors, 1,			\
	    __ATOMIC_RELAXED) < 10)					\
		diag("%s (errno %d) at line %d", what, errno, __LINE__);\
} while (0)

/* --- devices ----------------------------------------------------------- */

static void
device_put(void *arg)
{
	struct device *d = arg;

	check(d->magic == ALIVE, "an owner is put twice");
	d->magic = DEAD;
	free(d);
	__atomic_add_fetch(&gone, 1, __ATOMIC_RELAXED);
}

static struct device *
device_make(uint8_t byte)
{
	struct device *d = malloc(sizeof(*d));

	must(d != NULL);
	d->magic = ALIVE;
	d->byte = byte;
	__atomic_add_fetch(&made, 1, __ATOMIC_RELAXED);
	return (d);
}

static enum mt_result
device_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)attrs;
	check(d->magic == ALIVE, "a read of a dead device");
	check(off + size <= PAGE, "a read past the end");
	*val = UINT64_C(0x0101010101010101) * d->byte;
	return (MT_OK);
}

static enum mt_result
device_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)val, (void)attrs;
	check(d->magic == ALIVE, "a write of a dead device");
	check(off + size <= PAGE, "a write past the end");
	return (MT_OK);
}

static const struct mt_io_ops device_ops = {
	.read = device_read,
	.write = device_write,
};

/* --- devices that answer later ----------------------------------------- */

/* A piece that waits for the thread that completes them. */
struct job {
	TAILQ_ENTRY(job) entry;
	struct mt_piece *piece;
	struct device *d;
	void *buf;
	size_t len;
	bool is_write;
};

static pthread_mutex_t jobs_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t jobs_cond = PTHREAD_COND_INITIALIZER;
static TAILQ_HEAD(, job) jobs = TAILQ_HEAD_INITIALIZER(jobs); /* jobs_lock */
static bool jobs_end;						/* jobs_lock */

static void
answer(struct job *job)
{
	struct mt_piece *piece = job->piece;

	check(job->d->magic == ALIVE, "a dead device has an access in flight");
	if (!job->is_write)
		memset(job->buf, job->d->byte, job->len);
	free(job);
	mt_access_complete(piece, MT_OK);
}

static void
later_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct device *d = arg;
	struct job *job = malloc(sizeof(*job));

	(void)attrs;
	must(job != NULL);
	check(d->magic == ALIVE, "an access of a dead device");
	check(off + len <= PAGE, "an access past the end");
	*job = (struct job){ .piece = piece, .d = d, .buf = buf, .len = len,
	    .is_write = is_write };
	if (off % 8 == 7) {
		answer(job);
		return;
	}
	pthread_mutex_lock(&jobs_lock);
	piece->data = job;
	if (off % 2 == 0)
		TAILQ_INSERT_TAIL(&jobs, job, entry);
	else
		TAILQ_INSERT_HEAD(&jobs, job, entry);
	pthread_cond_signal(&jobs_cond);
	pthread_mutex_unlock(&jobs_lock);
}

static bool
later_cancel(void *arg, struct mt_piece *piece)
{
	struct job *job;

	(void)arg;
	pthread_mutex_lock(&jobs_lock);
	if ((job = piece->data) != NULL)
		TAILQ_REMOVE(&jobs, job, entry);
	pthread_mutex_unlock(&jobs_lock);
	free(job);
	return (job != NULL);
}

static const struct mt_io_ops later_ops = {
	.submit_buf = later_submit,
	.cancel_buf = later_cancel,
};

static void *
run_jobs(void *arg)
{
	unsigned long *n = arg;
	struct job *job;

	pthread_mutex_lock(&jobs_lock);
	for (;;) {
		while ((job = TAILQ_FIRST(&jobs)) == NULL && !jobs_end)
			pthread_cond_wait(&jobs_cond, &jobs_lock);
		if (job == NULL)
			break;
		TAILQ_REMOVE(&jobs, job, entry);
		job->piece->data = NULL;
		pthread_mutex_unlock(&jobs_lock);
		answer(job);
		if (++*n % 4 == 0)
			sched_yield();
		pthread_mutex_lock(&jobs_lock);
	}
	pthread_mutex_unlock(&jobs_lock);
	return (NULL);
}

/* --- writers ----------------------------------------------------------- */

/* Two regions change places; never is one of them missing or doubled. */
static unsigned int
swap(uint64_t *seed)
{
	bool first = mt_region_addr(a) == 0;

	check(mt_topology_begin(t) == 0, "begin");
	check(mt_region_move(a, first ? PAGE : 0) == 0,
	    "move");
	if (t_below(seed, 64) == 0)
		sched_yield();
	check(mt_region_move(b, first ? 0 : PAGE) == 0,
	    "move");
	check(mt_region_move(later_a, first ? PAGE : 0) == 0, "move");
	check(mt_region_move(later_b, first ? 0 : PAGE) == 0, "move");
	check(mt_topology_commit(t) == 0, "commit");
	return (1);
}

/* A region that is made, shown, hidden and let go of. */
static unsigned int
fleet(uint64_t *seed)
{
	static const mt_addr where[] = { FLEETING, DEVICE, SLOW };
	mt_addr at = where[t_below(seed, T_COUNT(where))];
	uint8_t byte = (uint8_t)(1 + t_below(seed, 255));
	struct device *d = device_make(byte);
	struct mt_region *r;

	if (at != FLEETING)
		r = mt_region_create_io(t, "device", PAGE - 1, at == DEVICE ?
		    &device_ops : &later_ops, d);
	else if ((r = mt_region_create_ram(t, "fleeting", PAGE - 1, NULL)) !=
	    NULL)
		memset(mt_region_ptr(r), byte, PAGE);
	must(r != NULL);
	check(mt_region_set_owner(r, d, device_put) == 0, "set_owner");
	check(mt_region_add(root, r, at, (int)t_below(seed, 3)) == 0, "add");
	if (t_below(seed, 2) == 0) {
		check(mt_region_set_enabled(r, false) == 0, "disable");
		check(mt_region_set_enabled(r, true) == 0, "enable");
	}
	if (t_below(seed, 2) == 0)
		sched_yield();
	check(mt_region_del(r) == 0, "del");
	mt_region_put(r);
	return (4);
}

/* The window is switched and moved; spaces and listeners come and go. */
static void
count(void *arg, struct mt_space *space, const struct mt_section *sec)
{
	(void)space;
	++*(unsigned int *)arg;
	check(mt_region_name(sec->region)[0] != '\0', "a section");
}

static unsigned int
rearrange(uint64_t *seed)
{
	unsigned int added = 0, deleted = 0;
	struct mt_listener l = { .arg = &added, .add = count };
	struct mt_listener l2 = { .arg = &deleted, .del = count };
	struct mt_space *other;

	check(mt_region_set_alias_offset(window, t_below(seed, 2) * PAGE) ==
	    0, "alias offset");
	check(mt_region_set_readonly(window, t_below(seed, 2) == 0) == 0,
	    "readonly");
	if (t_below(seed, 8) != 0)
		return (2);
	other = mt_space_create(t_below(seed, 2) == 0 ? root : window, "x");
	must(other != NULL);
	check(mt_listener_register(other, &l) == 0, "register");
	check(mt_listener_register(other, &l2) == 0, "register");
	check(mt_listener_unregister(&l) == 0, "unregister");
	check(mt_listener_unregister(&l2) == 0, "unregister");
	check(added > 0, "a listener is told what there is");
	check(mt_space_destroy(other) == 0, "destroy");
	if (t_below(seed, 4) == 0)
		check(mt_topology_sync(t) == 0, "sync");
	return (4);
}

/* --- readers ----------------------------------------------------------- */

static bool
all_equal(const uint8_t *buf, size_t len)
{
	size_t i;

	for (i = 1; i < len; i++)
		if (buf[i] != buf[0])
			return (false);
	return (true);
}

static bool
is_swapped(const uint8_t *lo, const uint8_t *hi, size_t len)
{
	return (all_equal(lo, len) && all_equal(hi, len) &&
	    ((*lo == 0xaa && *hi == 0xbb) || (*lo == 0xbb && *hi == 0xaa)));
}

/* One read is of one view. */
static unsigned int
reads(uint64_t *seed)
{
	uint64_t val;
	uint8_t buf[32];
	enum mt_result res;

	res = mt_space_read(sp, SWAPPED + PAGE - 16, buf, 32, MT_ATTRS_NONE);
	check(res == MT_OK && is_swapped(buf, buf + 16, 16),
	    "a read across two regions that change places");
	res = mt_space_load_le64(sp, SWAPPED + PAGE - 4, &val);
	check(res == MT_OK && (val == 0xaaaaaaaabbbbbbbb ||
	    val == 0xbbbbbbbbaaaaaaaa), "a load across them");
	res = mt_space_read(sp, WINDOW, buf, 32, MT_ATTRS_NONE);
	check(res == MT_OK && all_equal(buf, 32) &&
	    (buf[0] == 0xaa || buf[0] == 0xbb), "a read of the window");
	res = mt_space_read(sp, FLEETING + t_below(seed, PAGE - 32), buf, 32,
	    MT_ATTRS_NONE);
	check(all_equal(buf, 32) && (res == MT_OK) == (buf[0] != 0) &&
	    (res == MT_OK || res == MT_DECODE), "a read of fleeting RAM");
	res = mt_space_read(sp, DEVICE + t_below(seed, PAGE - 32), buf, 32,
	    MT_ATTRS_NONE);
	check(all_equal(buf, 32) && (res == MT_OK) == (buf[0] != 0) &&
	    (res == MT_OK || res == MT_DECODE), "a read of a device");
	res = mt_space_store_le32(sp, DEVICE, 0);
	check(res == MT_OK || res == MT_DECODE, "a write of a device");
	(void)mt_space_valid(sp, DEVICE, 64, true, MT_ATTRS_NONE);
	return (7);
}

/* A view that was taken is whole and stays as it is. */
static unsigned int
looks(uint64_t *seed)
{
	struct mt_view *v = mt_space_view(sp);
	struct mt_section sec, again;
	unsigned int as = 0, bs = 0;
	size_t n = 0;
	mt_addr at;

	for (at = 0; mt_view_next(v, at, &sec); at = sec.range.last + 1) {
		n++;
		check(sec.range.first >= at, "an order of sections");
		check(sec.off + (sec.range.last - sec.range.first) <
		    2 * PAGE, "an offset");
		if (sec.range.first >= 2 * PAGE)
			continue;
		check(sec.range.first % PAGE == 0 && sec.off == 0 &&
		    sec.range.last % PAGE == PAGE - 1, "half a region");
		as += sec.region == a;
		bs += sec.region == b;
		if (t_below(seed, 8) == 0)
			sched_yield();
	}
	check(as == 1 && bs == 1, "each region is there once");
	check(n == mt_view_count(v), "a count of sections");
	if (mt_view_next(v, FLEETING, &sec) &&
	    mt_view_next(v, FLEETING, &again))
		check(sec.region == again.region &&
		    mt_region_name(sec.region)[0] != '\0', "a view changes");
	mt_view_put(v);
	return (1);
}

/* What was found is alive. */
static unsigned int
finds(uint64_t *seed)
{
	mt_addr at = t_below(seed, 2) == 0 ? FLEETING : DEVICE;
	struct mt_section sec;
	struct device *d;
	uint8_t byte;

	if (mt_space_find(sp, (struct mt_range){ at, at + PAGE - 1 }, &sec) ==
	    -1) {
		check(errno == ENOENT, "find");
		return (1);
	}
	if (t_below(seed, 2) == 0)
		sched_yield();
	d = mt_region_arg(sec.region);
	if (d != NULL)
		check(d->magic == ALIVE, "a found device");
	else {
		byte = *(volatile uint8_t *)mt_region_ptr(sec.region);
		check(byte != 0, "found RAM");
	}
	mt_region_put(sec.region);
	return (1);
}

/* What was mapped stays, though it is gone. */
static unsigned int
maps(uint64_t *seed)
{
	static const mt_addr where[] = { SWAPPED, WINDOW, FLEETING, DEVICE };
	mt_addr at = where[t_below(seed, T_COUNT(where))];
	bool is_write = at == DEVICE && t_below(seed, 2) == 0;
	struct mt_mapping m;
	uint8_t byte;

	if (mt_dma_map(sp, at, 256, is_write ? MT_DMA_WRITE : MT_DMA_READ,
	    MT_ATTRS_NONE, &m) == -1) {
		check(errno == EAGAIN || errno == EFAULT, "map");
		check(at != SWAPPED && at != WINDOW, "nothing to map");
		return (1);
	}
	if (!is_write) {
		byte = *(uint8_t *)m.ptr;
		check((byte != 0 && all_equal(m.ptr, m.len)) ||
		    (byte == 0 && m.result != MT_OK), "mapped bytes");
		if (t_below(seed, 2) == 0)
			sched_yield();
		check(*(volatile uint8_t *)m.ptr == byte,
		    "mapped bytes change");
	} else
		memset(m.ptr, 0xff, m.len);
	if (mt_dma_unmap(&m, is_write ? m.len : 0) == -1)
		check(errno == EIO && is_write, "unmap");
	return (1);
}

/* A list is mapped in one view: often the same two places, to and fro. */
static unsigned int
lists(uint64_t *seed)
{
	struct mt_range ranges[LISTED];
	struct mt_mapping mappings[LISTED];
	struct iovec iov[LISTED];
	struct mt_sg sg;
	size_t i, n;

	for (i = 0; i < LISTED; i++) {
		ranges[i].first = SWAPPED + (i % 2 == 0 ? PAGE - 16 : PAGE);
		ranges[i].last = ranges[i].first + 15;
	}
	for (n = 0; n < 64 && running(); n++) {
		check(mt_dma_map_sg(sp, ranges, LISTED, MT_DMA_READ,
		    MT_ATTRS_NONE, iov, mappings, LISTED, &sg) == 0 &&
		    sg.error == 0 && sg.niov == LISTED, "map a list");
		if (t_below(seed, 256) == 0)
			sched_yield();
		for (i = 0; i < LISTED; i += 2)
			check(iov[i].iov_len == 16 &&
			    iov[i].iov_base == iov[0].iov_base &&
			    iov[i + 1].iov_base == iov[1].iov_base &&
			    is_swapped(iov[i].iov_base, iov[i + 1].iov_base,
			    16), "a list across two that change places");
		check(mt_dma_unmap_sg(&sg, 0) == 0, "unmap a list");
	}
	return ((unsigned int)n);
}

/* A cache stays in its view, and knows when that is not the last. */
static unsigned int
caches(uint64_t *seed)
{
	unsigned int n = 0;
	struct mt_cache c;
	uint8_t first, buf[32];
	uint64_t val;

	check(mt_cache_init(&c, sp, SWAPPED + PAGE - 16, 32, MT_DMA_READ,
	    MT_ATTRS_NONE) == 0, "a cache");
	check(mt_cache_load_u8(&c, 0, &first) == MT_OK, "a cached load");
	do {
		check(mt_cache_read(&c, 0, buf, 32) == MT_OK &&
		    is_swapped(buf, buf + 16, 16) && buf[0] == first,
		    "a cached read across two that change places");
		check(mt_cache_load_le64(&c, 12, &val) == MT_OK &&
		    (uint8_t)val == first && (uint8_t)(val >> 32) != first,
		    "a cached load across them");
		n++;
	} while (n < 1000 && running() &&
	    (!mt_cache_stale(&c) || t_below(seed, 4) != 0));
	mt_cache_fini(&c);
	return (n);
}

/* An access that waits goes on in the view that it began in. */
static unsigned int
waits(uint64_t *seed)
{
	size_t n = 9 + t_below(seed, 8);
	enum mt_result res;
	uint8_t buf[32];

	res = mt_space_read(sp, LATER + PAGE - n, buf, 2 * n, MT_ATTRS_NONE);
	check(res == MT_OK && is_swapped(buf, buf + n, n),
	    "a read that waits in two regions that change places");
	res = mt_space_read(sp, SLOW, buf, 32, MT_ATTRS_NONE);
	check(all_equal(buf, 32) && (res == MT_OK) == (buf[0] != 0),
	    "a read that waits in a region that goes");
	return (2);
}

struct flight {
	struct mt_access acc;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int ndone;		/* lock */
	enum mt_result res;		/* lock */
	uint8_t buf[2 * PAGE];
};

static void
flight_done(void *arg, enum mt_result res)
{
	struct flight *f = arg;

	pthread_mutex_lock(&f->lock);
	f->ndone++;
	f->res = res;
	pthread_cond_signal(&f->cond);
	pthread_mutex_unlock(&f->lock);
}

/* The same, submitted; some are cancelled while they end. */
static unsigned int
submits(uint64_t *seed)
{
	static __thread struct flight f;
	size_t n = 1 + t_below(seed, 16);
	bool slow = t_below(seed, 2) == 0, cancelled = false;

	pthread_mutex_init(&f.lock, NULL);
	pthread_cond_init(&f.cond, NULL);
	f.ndone = 0;
	check(mt_access_submit(sp, &f.acc, slow ? SLOW + n : LATER + PAGE - n,
	    f.buf, 2 * n, false, MT_ATTRS_NONE, flight_done, &f) == 0,
	    "submit");
	if (t_below(seed, 4) == 0) {
		if (t_below(seed, 2) == 0)
			sched_yield();
		cancelled = mt_access_cancel(&f.acc);
	}
	pthread_mutex_lock(&f.lock);
	while (!cancelled && f.ndone == 0)
		pthread_cond_wait(&f.cond, &f.lock);
	pthread_mutex_unlock(&f.lock);
	check(f.ndone == (cancelled ? 0 : 1), "done is called once, or never");
	if (cancelled)
		;
	else if (slow)
		check(all_equal(f.buf, 2 * n) &&
		    (f.res == MT_OK) == (f.buf[0] != 0),
		    "an access of a region that goes");
	else if (f.res == MT_OK)
		check(is_swapped(f.buf, f.buf + n, n),
		    "an access of two regions that change places");
	else
		check(f.res == MT_DEVICE, "what is given up fails");
	pthread_cond_destroy(&f.cond);
	pthread_mutex_destroy(&f.lock);
	return (1);
}

struct leg {
	struct mt_access acc;
	unsigned int ndone;		/* what drain orders */
	uint8_t buf[32];
};

static void
leg_done(void *arg, enum mt_result res)
{
	struct leg *leg = arg;

	check(res == MT_OK && is_swapped(leg->buf, leg->buf + 16, 16),
	    "an access that is drained");
	/* Whoever does not wait for our return gets past us. */
	sched_yield();
	leg->ndone++;
}

/* Several in flight in a space of their own, which then is idle. */
static unsigned int
drains(uint64_t *seed)
{
	static __thread struct leg legs[8];
	size_t i, n = 1 + t_below(seed, T_COUNT(legs));
	struct mt_space *own = t_space(root);

	for (i = 0; i < n; i++) {
		legs[i].ndone = 0;
		check(mt_access_submit(own, &legs[i].acc, LATER + PAGE - 16,
		    legs[i].buf, 32, false, MT_ATTRS_NONE, leg_done,
		    &legs[i]) == 0, "submit");
	}
	check(mt_access_drain(own) == 0, "drain");
	for (i = 0; i < n; i++)
		check(legs[i].ndone == 1, "done is called before drain is "
		    "over");
	check(mt_space_destroy(own) == 0, "a space that is drained goes");
	return (1);
}

/* --- a listener -------------------------------------------------------- */

/* What there is, as it is told; under the writer lock. */
static size_t nsections;
static unsigned int ncommits;

static void
told_add(void *arg, struct mt_space *space, const struct mt_section *sec)
{
	(void)arg, (void)space;
	check(mt_region_name(sec->region)[0] != '\0', "a section that comes");
	nsections++;
}

static void
told_del(void *arg, struct mt_space *space, const struct mt_section *sec)
{
	(void)arg, (void)space;
	check(mt_region_name(sec->region)[0] != '\0', "a section that goes");
	nsections--;
}

static void
told_commit(void *arg, struct mt_space *space)
{
	struct mt_view *v = mt_space_view(space);
	uint8_t buf[32];

	(void)arg;
	/* Unless it is unregistered, when it is told that all goes. */
	check(nsections == mt_view_count(v) || !running(),
	    "a listener is told all");
	check(mt_space_read(space, SWAPPED + PAGE - 16, buf, 32,
	    MT_ATTRS_NONE) == MT_OK && is_swapped(buf, buf + 16, 16),
	    "a read by a listener");
	mt_view_put(v);
	ncommits++;
}

/* --- threads ----------------------------------------------------------- */

static struct thread {
	const char *name;
	unsigned int (*run)(uint64_t *seed);
	uint64_t seed;
	unsigned long n;
	pthread_t id;
} threads[] = {
	{ .name = "swap", .run = swap },
	{ .name = "fleet", .run = fleet },
	{ .name = "fleet", .run = fleet },
	{ .name = "rearrange", .run = rearrange },
	{ .name = "reads", .run = reads },
	{ .name = "reads", .run = reads },
	{ .name = "looks", .run = looks },
	{ .name = "finds", .run = finds },
	{ .name = "maps", .run = maps },
	{ .name = "maps", .run = maps },
	{ .name = "lists", .run = lists },
	{ .name = "caches", .run = caches },
	{ .name = "waits", .run = waits },
	{ .name = "submits", .run = submits },
	{ .name = "submits", .run = submits },
	{ .name = "drains", .run = drains },
};

static void *
run_thread(void *arg)
{
	struct thread *thread = arg;

	while (running())
		thread->n += thread->run(&thread->seed);
	return (NULL);
}

int
main(void)
{
	double seconds = t_seconds(2);
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL));
	struct mt_listener l = { .add = told_add, .del = told_del,
	    .commit = told_commit };
	struct device answers[] = { { ALIVE, 0xaa }, { ALIVE, 0xbb } };
	struct mt_region *pair, *later;
	unsigned long njobs = 0;
	pthread_t completer;
	bool all = true;
	size_t i;

	diag("T_SEED=%" PRIu64 " T_SECONDS=%g", seed, seconds);
	t = t_topology();
	root = t_container(t, "root", 0x20000);
	pair = t_add(root, SWAPPED, 0, t_container(t, "pair", 2 * PAGE));
	a = t_add(pair, 0, 0, t_ram(t, "a", PAGE));
	b = t_add(pair, PAGE, 0, t_ram(t, "b", PAGE));
	memset(mt_region_ptr(a), 0xaa, PAGE);
	memset(mt_region_ptr(b), 0xbb, PAGE);
	window = t_add(root, WINDOW, 0, t_alias(t, "window", pair, 0, 0x100));
	later = t_add(root, LATER, 0, t_container(t, "later", 2 * PAGE));
	later_a = t_add(later, 0, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "later a", PAGE - 1, &later_ops,
	    &answers[0]), "later a"));
	later_b = t_add(later, PAGE, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "later b", PAGE - 1, &later_ops,
	    &answers[1]), "later b"));
	sp = t_space(root);
	must(mt_listener_register(sp, &l) == 0);
	must(pthread_create(&completer, NULL, run_jobs, &njobs) == 0);
	mt_dma_set_bounce_limit(sp, 300);

	for (i = 0; i < T_COUNT(threads); i++) {
		threads[i].seed = seed + i;
		must(pthread_create(&threads[i].id, NULL, run_thread,
		    &threads[i]) == 0);
	}
	usleep((useconds_t)(seconds * 1e6));
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < T_COUNT(threads); i++) {
		pthread_join(threads[i].id, NULL);
		diag("%s: %lu", threads[i].name, threads[i].n);
		all = all && threads[i].n > 0;
	}
	works(mt_access_drain(sp), "nothing stays in flight");
	pthread_mutex_lock(&jobs_lock);
	jobs_end = true;
	pthread_cond_signal(&jobs_cond);
	pthread_mutex_unlock(&jobs_lock);
	pthread_join(completer, NULL);
	diag("pieces: %lu, commits told: %u", njobs, ncommits);
	ok(njobs > 0 && ncommits > 0, "devices answered, and a listener was "
	    "told");
	works(mt_listener_unregister(&l), "the listener goes");
	is_int(nsections, 0, "it was told of each section that came and went");
	is_int(errors, 0, "all that was seen was whole and alive");
	ok(all, "every thread got on");
	is_int(mt_dma_bounce_used(sp), 0, "all bounce budget has come back");
	works(mt_topology_sync(t), "wait");
	is_int(mt_topology_waiting(t), 0, "nothing is left in waiting");
	is_int(gone, made, "all that was made and let go of has gone");
	works(mt_space_destroy(sp), "the space goes");
	mt_region_put(root);
	works(mt_topology_sync(t), "wait");
	t_end(t);
	return (done());
}
