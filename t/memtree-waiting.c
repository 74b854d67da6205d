/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What waits to be freed: it is counted, a view that is held keeps little of
 * it, and commits fail rather than add to too much.  T_SECONDS is how long a
 * writer goes at full speed.
 */

#include <sys/syscall.h>

#include <time.h>
#include <unistd.h>

#include "t/util.h"

#define SLOTS		64
#define PAGE		0x1000

static struct mt_topology *t;
static struct mt_region *root, *slots[SLOTS];
static struct mt_space *sp;

static void
begin(void)
{
	char name[16];
	unsigned int i;

	t = t_topology();
	root = t_container(t, "root", T_ALL);
	must(mt_topology_begin(t) == 0);
	for (i = 0; i < SLOTS; i++) {
		snprintf(name, sizeof(name), "s%u", i);
		slots[i] = t_add(root, i * 2 * PAGE, 0, t_ram(t, name, PAGE));
	}
	must(mt_topology_commit(t) == 0);
	sp = t_space(root);
}

static void
end(void)
{
	works(mt_space_destroy(sp), "the space goes");
	mt_region_put(root);
	works(mt_topology_sync(t), "wait");
	is_int(mt_topology_waiting(t), 0, "nothing is left in waiting");
	t_end(t);
}

static int
toggle(unsigned int i)
{
	struct mt_region *r = slots[i % SLOTS];

	return (mt_region_set_enabled(r, !mt_region_enabled(r)));
}

/* Bytes in waiting when all that can be freed is. */
static size_t
settled(void)
{
	must(mt_topology_sync(t) == 0);
	return (mt_topology_waiting(t));
}

/* All of a view; to be freed. */
static char *
text_of(const struct mt_view *v)
{
	struct mt_section sec;
	mt_addr at = 0;
	char *text = NULL;
	size_t len = 0;
	FILE *fp;

	must((fp = open_memstream(&text, &len)) != NULL);
	while (mt_view_next(v, at, &sec)) {
		fprintf(fp, "%" PRIx64 "-%" PRIx64 " %s+%" PRIx64 "\n",
		    sec.range.first, sec.range.last,
		    mt_region_name(sec.region), sec.off);
		at = sec.range.last + 1;
	}
	fprintf(fp, "%zu\n", mt_view_count(v));
	fclose(fp);
	return (text);
}

static void
test_count(void)
{
	unsigned int i;

	begin();
	is_int(mt_topology_max_waiting(t), MT_WAITING_DEFAULT,
	    "there is a limit from the beginning");
	mt_topology_set_max_waiting(t, 12345);
	is_int(mt_topology_max_waiting(t), 12345, "and it can be set");
	mt_topology_set_max_waiting(t, MT_WAITING_DEFAULT);
	is_int(settled(), 0, "all that was replaced while it was made is gone");
	for (i = 0; i < 1000; i++)
		must(toggle(i * 7) == 0);
	is_int(settled(), 0, "so is what 1000 commits replace");
	end();
}

/* Nobody asks for it: it is freed all the same, down to bytes, in time. */
static bool
falls_to(size_t bytes)
{
	int64_t end = t_now_ms() + 10000;

	while (mt_topology_waiting(t) > bytes)
		if (t_now_ms() > end || usleep(1000) == -1)
			return (false);
	return (true);
}

/*
 * Views that are replaced by ones that show more free nobody's memory, so they
 * may wait: for one that does, for a limit, or until they are many.
 */
static void
test_patience(void)
{
	unsigned int i, late = 0;

	begin();
	for (i = 0; i < SLOTS; i++)
		must(toggle(i) == 0);
	ok(falls_to(0), "what takes something away is freed soon");
	for (i = 0; i < SLOTS; i++) {
		must(toggle(i) == 0);
		late += !falls_to(64 << 10);
	}
	is_int(late, 0, "what only adds leaves little");
	for (i = 0; i < 20 * SLOTS; i++)
		t_add(root, (1000 + i) * 2 * PAGE, 0, t_ram(t, "more", PAGE));
	ok(falls_to(64 << 10), "also if it is a lot");
	must(toggle(0) == 0);
	ok(falls_to(0), "the next that takes something away ends that");
	mt_topology_set_max_waiting(t, 0);
	for (i = 0; i < 20; i++) {
		must(toggle(0) == 0);
		late += !falls_to(0);
	}
	is_int(late, 0, "at a limit of 0 all is freed soon");
	end();
}

/* --- views that are held ------------------------------------------------- */

static void
test_held(void)
{
	struct mt_view *v;
	char *before, *after;
	size_t few, many;
	unsigned int i;

	begin();
	v = mt_space_view(sp);
	before = text_of(v);
	for (i = 0; i < 2 * SLOTS; i++)
		must(toggle(i) == 0);
	few = settled();
	ok(few > 0, "a view that is held keeps what it shows");
	for (i = 0; i < 200 * SLOTS; i++)
		must(toggle(i) == 0);
	many = settled();
	is_int(many, few, "and no more after 12 800 commits");
	after = text_of(v);
	is_str(after, before, "and is what it was");
	free(before);
	free(after);
	mt_view_put(v);
	is_int(settled(), 0, "when it is put all of it goes");
	end();
}

#define HELD	9

/* Many views, put in any order. */
static void
test_many_held(void)
{
	struct mt_view *v[HELD] = { NULL };
	char *text[HELD], *now;
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL));
	unsigned int i, n, k, differ = 0;

	diag("T_SEED=%" PRIu64, seed);
	begin();
	for (i = 0; i < 3000; i++) {
		must(mt_topology_begin(t) == 0);
		for (n = (unsigned int)t_below(&seed, 12); n > 0; n--)
			must(toggle((unsigned int)t_below(&seed, SLOTS)) == 0);
		must(mt_topology_commit(t) == 0);
		k = (unsigned int)t_below(&seed, HELD);
		if (v[k] == NULL) {
			v[k] = mt_space_view(sp);
			text[k] = text_of(v[k]);
			continue;
		}
		now = text_of(v[k]);
		differ += strcmp(now, text[k]) != 0;
		free(now);
		free(text[k]);
		mt_view_put(v[k]);
		v[k] = NULL;
		if (t_below(&seed, 50) == 0)
			must(mt_topology_sync(t) == 0);
	}
	/* The last of a space goes before some that are older. */
	must(mt_space_destroy(sp) == 0);
	must(mt_topology_sync(t) == 0);
	for (k = 0; k < HELD; k++) {
		if (v[k] == NULL)
			continue;
		now = text_of(v[k]);
		differ += strcmp(now, text[k]) != 0;
		free(now);
		free(text[k]);
		mt_view_put(v[k]);
	}
	is_int(differ, 0, "views that are held stay what they were, whichever "
	    "of them go first");
	is_int(settled(), 0, "and leave nothing behind");
	sp = t_space(root);
	end();
}

/* --- eventfds and coalescing ranges -------------------------------------- */

#define RANGES		200
#define EVENTFDS	100
#define RANGE_BYTES	sizeof(struct mt_range)

static struct t_dev dev = T_DEV(.endian = MT_LITTLE);

static void
add_ranges(struct mt_region *r)
{
	unsigned int i;

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < RANGES; i++)
		must(mt_region_add_coalescing(r, i * 8, i * 8 + 3) == 0);
	must(mt_topology_commit(t) == 0);
}

static void
change_eventfds(struct mt_region *r, int fd, unsigned int first, bool add)
{
	unsigned int i;

	must(mt_topology_begin(t) == 0);
	for (i = first; i < EVENTFDS; i++)
		must((add ? mt_region_add_eventfd : mt_region_del_eventfd)(r,
		    i * 4, 4, false, 0, fd) == 0);
	must(mt_topology_commit(t) == 0);
}

static void
test_extras(void)
{
	struct mt_region *r;
	struct mt_space *again;
	struct mt_view *v;
	size_t few, many;
	int fd;

	fd = t_eventfd();
	begin();
	r = t_add(root, 0x1000000, 0, t_io(t, "r", PAGE, &dev));
	must((again = mt_space_create(r, "again")) != NULL);
	add_ranges(r);
	change_eventfds(r, fd, 0, true);
	is_int(settled(), 0, "what a region has is not in waiting");

	v = mt_space_view(sp);
	must(mt_region_set_enabled(slots[0], false) == 0);
	few = settled();
	must(mt_region_del_eventfd(r, 0, 4, false, 0, fd) == 0);
	many = settled();
	ok(many > few && many < few + 4096 + RANGES * RANGE_BYTES,
	    "a view that is held keeps an eventfd, and shares the others");
	few = many;
	change_eventfds(r, fd, 1, false);
	many = settled();
	ok(many > few + EVENTFDS * 64, "all of them count when they are gone");
	must(mt_region_clear_coalescing(r) == 0);
	is_int(settled(), many, "ranges that it keeps with them once only");
	must(mt_region_set_enabled(slots[0], true) == 0);
	mt_view_put(v);
	is_int(settled(), 0, "when it is put all of it goes");

	add_ranges(r);
	v = mt_space_view(sp);
	must(settled() == 0);
	mt_topology_set_max_waiting(t, 0);
	works(mt_region_clear_coalescing(r), "at a limit of 0 a change may "
	    "replace what it likes if nothing is in waiting");
	ok(settled() > RANGES * RANGE_BYTES, "which is then");
	fails(mt_region_add_coalescing(r, 0, 7), EAGAIN, "the next is refused");
	fails(mt_region_add_eventfd(r, 0, 4, false, 0, fd), EAGAIN,
	    "of either kind");
	many = settled();
	fails(mt_region_add_eventfd(r, 0, 4, false, 0, fd), EAGAIN, "again");
	is_int(settled(), many, "and leaves nothing behind");
	mt_view_put(v);
	is_int(settled(), 0, "all is freed");
	mt_topology_set_max_waiting(t, MT_WAITING_DEFAULT);
	change_eventfds(r, fd, 0, true);
	add_ranges(r);
	must(mt_region_del(r) == 0);
	must(mt_space_destroy(again) == 0);
	is_int(settled(), 0, "also with a region that has some");
	end();
	close(fd);
}

/* --- a reader that does not leave ---------------------------------------- */

#define LIMIT	((size_t)64 << 10)
#define ONE	((size_t)8192)		/* more than one commit replaces */

static size_t most;			/* that may be in waiting */
static unsigned int heard;

/* Keep to LIMIT, beside which there may be as much as the map has. */
static void
limit(void)
{
	struct mt_view *v = mt_space_view(sp);

	must(mt_region_set_enabled(root, false) == 0);
	most = settled() + LIMIT + ONE;
	must(mt_region_set_enabled(root, true) == 0);
	mt_view_put(v);
	must(settled() == 0);
	mt_topology_set_max_waiting(t, LIMIT);
}

static void
hear(void *arg, struct mt_space *space)
{
	(void)arg, (void)space;
	heard++;
}

/* Is all as it was, after a change that failed? */
static void
test_refused(void)
{
	char *before, *after;
	struct mt_view *v;
	bool first = mt_region_enabled(slots[0]);
	struct mt_region *other;
	unsigned int was = heard;

	v = mt_space_view(sp);
	before = text_of(v);
	fails(mt_region_set_enabled(slots[0], !first), EAGAIN,
	    "a change is refused");
	is_int(mt_region_enabled(slots[0]), first, "and taken back");
	must(mt_topology_begin(t) == 0);
	must(mt_region_enabled(slots[SLOTS - 1]));
	must(mt_region_move(slots[SLOTS - 1], 0x7000000) == 0);
	must(mt_region_del(slots[SLOTS - 2]) == 0);
	fails(mt_topology_commit(t), EAGAIN, "so is a transaction");
	is_hex(mt_region_addr(slots[SLOTS - 1]), (SLOTS - 1) * 2 * PAGE,
	    "all of it: nobody moved");
	ok(mt_region_parent(slots[SLOTS - 2]) == root, "nor went");
	mt_view_put(v);
	v = mt_space_view(sp);
	after = text_of(v);
	is_str(after, before, "the view is as it was");
	is_int(heard, was, "no listener was called");
	free(before);
	free(after);
	mt_view_put(v);
	fails_null(mt_space_create(root, "x"), EAGAIN, "no new space");
	works(mt_region_set_nonvolatile(root, false), "what changes nothing "
	    "is allowed");
	other = t_container(t, "other", 1);
	works(mt_region_resize(other, 10), "and a change that no space shows");
	mt_region_put(other);
}

static enum mt_result
greedy_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	unsigned int i, *n = arg;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	for (i = 0; i < 1000000 && toggle(i) == 0; i++)
		++*n;
	ok(errno == EAGAIN, "changes from a callback fail at the limit");
	ok(mt_topology_waiting(t) <= most, "and are not much above it");
	diag("%u commits, %zu bytes", *n, mt_topology_waiting(t));
	test_refused();
	return (MT_OK);
}

static const struct mt_io_ops greedy_ops = { .read = greedy_read };

static void
test_own_section(void)
{
	struct mt_listener l = { .begin = hear };
	unsigned int n = 0;
	uint8_t byte;

	begin();
	t_add(root, 0x1000000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "greedy", 0, &greedy_ops, &n), "io"));
	must(mt_listener_register(sp, &l) == 0);
	limit();
	is_int(mt_space_read(sp, 0x1000000, &byte, 1, MT_ATTRS_NONE), MT_OK,
	    "the read");
	ok(n > 10, "and before it they work");
	is_int(settled(), 0, "after it all is freed");
	works(toggle(0), "and changes work again");
	must(mt_listener_unregister(&l) == 0);
	end();
}

/* All of a map that is larger than the limit goes, and comes back. */
static enum mt_result
replace_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct mt_space **others = arg;
	size_t bytes;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	mt_topology_set_max_waiting(t, ONE / 2);
	must(mt_space_destroy(others[0]) == 0);
	must(mt_space_destroy(others[1]) == 0);
	bytes = mt_topology_waiting(t);
	ok(bytes > ONE, "two spaces go, and leave %zu bytes", bytes);
	works(mt_region_set_enabled(root, false), "all of the third is hidden");
	ok(mt_topology_waiting(t) - bytes > ONE / 2, "which is as much as "
	    "either");
	bytes = mt_topology_waiting(t);
	works(mt_region_set_enabled(root, true), "and shown again at once");
	ok(mt_topology_waiting(t) - bytes < ONE / 4, "which replaces little");
	works(mt_region_set_enabled(root, false), "and hidden again");
	fails(mt_region_set_enabled(root, true), EAGAIN,
	    "that cannot go on for ever");
	return (MT_OK);
}

static const struct mt_io_ops replace_ops = { .read = replace_read };

static void
test_replaced(void)
{
	struct mt_region *other[2];
	struct mt_space *others[2];
	unsigned int i;
	uint8_t byte;

	begin();
	t_add(root, 0x1000000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "replace", 0, &replace_ops, others), "io"));
	for (i = 0; i < 2; i++) {
		other[i] = t_alias(t, "other", root, 0, T_ALL);
		others[i] = t_space(other[i]);
	}
	must(mt_topology_sync(t) == 0);
	is_int(mt_space_read(sp, 0x1000000, &byte, 1, MT_ATTRS_NONE), MT_OK,
	    "the read");
	mt_region_put(other[0]);
	mt_region_put(other[1]);
	is_int(settled(), 0, "after it all is freed");
	end();
}

/* The same with changes that replace more of ranges than of the view. */
static enum mt_result
greedy_ranges(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct mt_region *r = *(struct mt_region **)arg;
	unsigned int i;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	for (i = 0; i < 1000 && mt_region_add_coalescing(r, 0x800 + i,
	    0x800 + i) == 0; i++)
		;
	ok(i > 1 && i * RANGES * RANGE_BYTES <= most && errno == EAGAIN,
	    "%u changes of ranges reach the limit", i);
	ok(mt_topology_waiting(t) <= most + RANGES * RANGE_BYTES,
	    "and are not much above it");
	return (MT_OK);
}

static const struct mt_io_ops greedy_ranges_ops = { .read = greedy_ranges };

static void
test_own_ranges(void)
{
	struct mt_region *r;
	uint8_t byte;

	begin();
	r = t_add(root, 0x1000000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "greedy", PAGE - 1, &greedy_ranges_ops,
	    &r), "io"));
	add_ranges(r);
	limit();
	is_int(mt_space_read(sp, 0x1000000, &byte, 1, MT_ATTRS_NONE), MT_OK,
	    "the read");
	is_int(settled(), 0, "after it all is freed");
	end();
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool inside, leave;		/* lock */

static enum mt_result
stuck_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)attrs;
	*val = 0;
	pthread_mutex_lock(&lock);
	inside = true;
	pthread_cond_broadcast(&cond);
	while (!leave)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	return (MT_OK);
}

static const struct mt_io_ops stuck_ops = { .read = stuck_read };

static void *
stuck_reader(void *arg)
{
	uint8_t byte;

	(void)arg;
	(void)mt_space_read(sp, 0x1000000, &byte, 1, MT_ATTRS_NONE);
	return (NULL);
}

/* Have a thread read for ever. */
static void
stuck_begin(pthread_t *id)
{
	inside = leave = false;
	must(pthread_create(id, NULL, stuck_reader, NULL) == 0);
	pthread_mutex_lock(&lock);
	while (!inside)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
}

/* Have it leave. */
static void
stuck_leave(void)
{
	pthread_mutex_lock(&lock);
	leave = true;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
}

static void
stuck_end(pthread_t id)
{
	stuck_leave();
	pthread_join(id, NULL);
}

static void
test_other_section(void)
{
	struct mt_space *other;
	pthread_t id;
	unsigned int i, n;

	begin();
	t_add(root, 0x1000000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "stuck", 0, &stuck_ops, NULL), "io"));
	limit();
	stuck_begin(&id);
	for (n = 0; n < 1000000 && toggle(n) == 0; n++)
		;
	ok(n > 10 && n < 1000000 && errno == EAGAIN, "commits go on until the "
	    "limit while another thread reads for ever");
	ok(mt_topology_waiting(t) <= most, "which is kept");
	test_refused();
	mt_topology_set_max_waiting(t, 4 * LIMIT);
	works(toggle(0), "a higher limit lets them go on");
	/* Spaces count, too. */
	for (n = 0; n < 1000000; n++) {
		if ((other = mt_space_create(root, "other")) == NULL)
			break;
		must(mt_space_destroy(other) == 0);
	}
	ok(n < 1000000 && errno == EAGAIN, "so do spaces that come and go");
	stuck_leave();
	/* Without a sync: what is in waiting is freed by itself. */
	for (i = 0; i < 1000 && toggle(0) == -1; i++)
		usleep(10000);
	ok(i < 1000, "when the reader has left changes work again");
	pthread_join(id, NULL);
	is_int(settled(), 0, "and all is freed");
	end();
}

/* --- commits that free ---------------------------------------------------- */

static bool hold;			/* lock; others stay in close() */
static bool held;			/* lock; one does */
static pthread_t main_thread;

int
close(int fd)
{
	pthread_mutex_lock(&lock);
	while (hold && !pthread_equal(pthread_self(), main_thread)) {
		held = true;
		pthread_cond_broadcast(&cond);
		pthread_cond_wait(&cond, &lock);
	}
	pthread_mutex_unlock(&lock);
	return ((int)syscall(SYS_close, fd));
}

static void
stuck_put(void *val)
{
	(void)stuck_read(NULL, 0, 1, val, MT_ATTRS_NONE);
}

/* Let the reclaimer come to 200 views, the first of which it stays in. */
static void
stuck_reclaimer(struct mt_region *r, int fd)
{
	struct mt_region *owned = t_container(t, "owned", 1);
	uint64_t val;
	unsigned int i;

	inside = leave = false;
	must(mt_region_set_owner(owned, &val, stuck_put) == 0);
	must(settled() == 0);
	mt_region_put(owned);
	pthread_mutex_lock(&lock);
	while (!inside)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
	must(mt_region_del_eventfd(r, 0, 4, false, 0, fd) == 0);
	for (i = 0; i < 200; i++)
		must(toggle(0) == 0);
	hold = true;
	stuck_leave();
	pthread_mutex_lock(&lock);
	while (!held)
		pthread_cond_wait(&cond, &lock);
	pthread_mutex_unlock(&lock);
}

static void
test_help(void)
{
	struct mt_region *r;
	unsigned int i;
	size_t bytes;
	int fd;

	main_thread = pthread_self();
	begin();
	fd = t_eventfd();
	r = t_add(root, 0x2000000, 0, t_io(t, "r", PAGE, &dev));
	must(mt_region_add_eventfd(r, 0, 4, false, 0, fd) == 0);
	stuck_reclaimer(r, fd);
	bytes = mt_topology_waiting(t);
	must(toggle(0) == 0);
	ok(mt_topology_waiting(t) > bytes, "what the reclaimer does not come "
	    "to waits, if it is little");
	mt_topology_set_max_waiting(t, bytes * 2);
	for (i = 0; i < 4; i++)
		must(toggle(0) == 0);
	ok(mt_topology_waiting(t) < bytes * 2 / 3, "if it is much commits "
	    "free some: %zu of %zu bytes", mt_topology_waiting(t), bytes);
	pthread_mutex_lock(&lock);
	hold = false;
	pthread_cond_broadcast(&cond);
	pthread_mutex_unlock(&lock);
	is_int(settled(), 0, "and it the rest");
	close(fd);
	end();
}

/* --- regions that are put ------------------------------------------------- */

/* Has the owner been put so often by now, or soon? */
static bool
put_soon(int *owner, int times)
{
	int64_t end = t_now_ms() + 10000;

	while (__atomic_load_n(owner, __ATOMIC_SEQ_CST) != times)
		if (t_now_ms() > end || usleep(1000) == -1)
			return (false);
	return (true);
}

/* They are in no view, so no reader holds them up. */
static void
test_put(void)
{
	struct mt_region *box, *r;
	int i, j, owner = 0, seen = 0;
	pthread_t id;

	begin();
	t_add(root, 0x1000000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(t, "stuck", 0, &stuck_ops, NULL), "io"));
	stuck_begin(&id);
	must(mt_region_set_owner(slots[0], &seen, t_put) == 0);
	must(mt_region_del(slots[0]) == 0);
	for (i = 0; i < 5; i++) {
		for (j = 0; j < 100; j++) {
			r = t_ram(t, "r", PAGE);
			must(mt_region_set_owner(r, &owner, t_put) == 0);
			box = t_container(t, "box", PAGE);
			must(mt_region_set_owner(box, &owner, t_put) == 0);
			t_add(box, 0, 0, r);
			mt_region_put(box);
		}
		ok(put_soon(&owner, 2 * 100 * (i + 1)), "regions that are put "
		    "go while a reader stays, and those in them");
	}
	is_int(seen, 0, "that which it may see does not");
	stuck_end(id);
	is_int(t_puts_of(t, &seen), 1, "until it leaves");
	slots[0] = t_add(root, 0, 0, t_ram(t, "s0", PAGE));
	end();
}

/* --- a writer at full speed ---------------------------------------------- */

static unsigned int stop;		/* atomic */

static void *
busy_reader(void *arg)
{
	unsigned long *n = arg;
	uint8_t buf[64];

	while (__atomic_load_n(&stop, __ATOMIC_RELAXED) == 0) {
		(void)mt_space_read(sp, *n % SLOTS * 2 * PAGE, buf,
		    sizeof(buf), MT_ATTRS_NONE);
		++*n;
	}
	return (NULL);
}

static double
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec + (double)ts.tv_nsec / 1e9);
}

static void
test_speed(double seconds)
{
	unsigned long commits = 0, refused = 0, reads = 0;
	size_t bytes, peak = 0;
	pthread_t id;
	double until;

	begin();
	must(pthread_create(&id, NULL, busy_reader, &reads) == 0);
	for (until = now() + seconds; now() < until; commits++) {
		if (toggle((unsigned int)commits) == -1)
			refused++;
		bytes = mt_topology_waiting(t);
		if (bytes > peak)
			peak = bytes;
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(id, NULL);
	diag("%lu commits, %lu reads, at most %zu KiB in waiting", commits,
	    reads, peak >> 10);
	is_int(refused, 0, "beside a reader no commit of a writer at full "
	    "speed is refused");
	ok(peak < MT_WAITING_DEFAULT, "and what waits stays below the limit");
	end();
}

int
main(void)
{
	double seconds = t_seconds(1);

	test_count();
	test_patience();
	test_held();
	test_many_held();
	test_extras();
	test_own_section();
	test_replaced();
	test_own_ranges();
	test_other_section();
	test_help();
	test_put();
	test_speed(seconds);
	return (done());
}
