/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_UTIL_H
#define T_UTIL_H

/* What all tests share: things made in one line or bailed on. */

#include <sys/eventfd.h>

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include <libmemtree/memtree.h>

#include "t/tap.h"

#define T_UNUSED	__attribute__((unused))
#define T_COUNT(a)	(sizeof(a) / sizeof((a)[0]))
#define T_ALL		0	/* as a size: 2^64 bytes */

#if defined(__SANITIZE_ADDRESS__)
#define T_ASAN	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define T_ASAN	1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define T_TSAN	1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define T_TSAN	1
#endif
#endif
#ifndef T_ASAN
#define T_ASAN	0
#endif
#ifndef T_TSAN
#define T_TSAN	0
#endif

/* The call fails with error, and by returning what failing calls return. */
#define fails(call, error, ...) \
	(errno = 0, ok(t__u64((uint64_t)(call), (uint64_t)-1, \
	    "#   returned %jd, expected %jd\n") && \
	    t__u64((uint64_t)errno, (error), \
	    "#   got errno %jd, expected %jd\n"), __VA_ARGS__))
#define fails_null(call, error, ...) \
	(errno = 0, ok(t__u64((uintptr_t)(call), 0, \
	    "#   returned %jd, expected %jd\n") && \
	    t__u64((uint64_t)errno, (error), \
	    "#   got errno %jd, expected %jd\n"), __VA_ARGS__))
#define works(call, ...)	is_int((call), 0, __VA_ARGS__)

/* --- what a test cannot do without ------------------------------------- */

#define must(expr) t_must((expr) ? true : false, #expr, __FILE__, __LINE__)

static T_UNUSED void
t_must(bool is, const char *what, const char *file, int line)
{
	if (!is) {
		ok(false, "%s:%d: %s (%s)", file, line, what, strerror(errno));
		exit(1);
	}
}

static T_UNUSED int64_t
t_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

/* How many descriptors this process has, and a constant. */
static T_UNUSED unsigned int
t_count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	must(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return (n);
}

/* A new eventfd, which makes nobody wait. */
static T_UNUSED int
t_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	must(fd != -1);
	return (fd);
}

/* How often it was signalled since the last look. */
static T_UNUSED uint64_t
t_hits(int fd)
{
	uint64_t n = 0;

	if (read(fd, &n, sizeof(n)) == -1)
		must(errno == EAGAIN);
	return (n);
}

static T_UNUSED void *
t_not_null(void *p, const char *what)
{
	t_must(p != NULL, what, __FILE__, __LINE__);
	return (p);
}

#define t_topology()	\
	((struct mt_topology *)t_not_null(mt_topology_create(), "topology"))
#define t_space(root)	((struct mt_space *)t_not_null( \
	    mt_space_create(root, "space"), "space"))
#define t_container(t, name, size) ((struct mt_region *)t_not_null( \
	    mt_region_create_container(t, name, MT_SIZE(size)), name))
#define t_reserved(t, name, size) ((struct mt_region *)t_not_null( \
	    mt_region_create_reserved(t, name, MT_SIZE(size)), name))
#define t_alias(t, name, target, off, size) ((struct mt_region *)t_not_null( \
	    mt_region_create_alias(t, name, target, off, MT_SIZE(size)), name))
#define t_ram(t, name, size) ((struct mt_region *)t_not_null( \
	    mt_region_create_ram(t, name, MT_SIZE(size), NULL), name))
#define t_rom(t, name, size) ((struct mt_region *)t_not_null( \
	    mt_region_create_rom(t, name, MT_SIZE(size), NULL), name))
#define t_romd(t, name, size, dev) ((struct mt_region *)t_not_null( \
	    mt_region_create_rom_device(t, name, MT_SIZE(size), NULL, \
	    &(dev)->ops, dev), name))
#define t_io(t, name, size, dev) ((struct mt_region *)t_not_null( \
	    mt_region_create_io(t, name, MT_SIZE(size), &(dev)->ops, dev), \
	    name))

/* Add child, whose reference parent is to have alone, and lend it. */
static T_UNUSED struct mt_region *
t_add(struct mt_region *parent, mt_addr off, int prio,
    struct mt_region *child)
{
	must(mt_region_add(parent, child, off, prio) == 0);
	mt_region_put(child);
	return (child);
}

/* An owner that counts how often it is put. */
static T_UNUSED void
t_put(void *owner)
{
	__atomic_add_fetch((int *)owner, 1, __ATOMIC_SEQ_CST);
}

/* How often owner was put, once everything that can go has gone. */
static T_UNUSED int
t_puts_of(struct mt_topology *t, int *owner)
{
	must(mt_topology_sync(t) == 0);
	return (__atomic_load_n(owner, __ATOMIC_SEQ_CST));
}

/* The end of a test: nothing is left that keeps the topology. */
#define t_end(t)	\
	works(mt_topology_destroy(t), "the topology is destroyed in the end")

/* The same of a test that has a space, and the root of it. */
#define t_end_space(t, sp, root) do {					\
	must(mt_space_destroy(sp) == 0);				\
	mt_region_put(root);						\
	t_end(t);							\
} while (0)

/* --- a device that writes down how it is called ------------------------ */

struct t_call {
	bool is_write;
	mt_addr off;
	unsigned int size;
	uint64_t val;
	struct mt_attrs attrs;
};

/*
 * Reads give the bytes off, off + 1, ... in the byte order of the device, so
 * that a byte read tells where it came from; unless fixed, which then is
 * given.  An access with fail_off in it fails with fail.
 */
struct t_dev {
	struct mt_io_ops ops;
	struct t_call calls[64];
	unsigned int ncalls;
	bool is_fixed;
	uint64_t fixed;
	enum mt_result fail;
	mt_addr fail_off;
};

static T_UNUSED enum mt_result
t_dev_call(struct t_dev *d, struct t_call call)
{
	if (d->ncalls < T_COUNT(d->calls))
		d->calls[d->ncalls] = call;
	d->ncalls++;
	return (d->fail != MT_OK && d->fail_off >= call.off &&
	    d->fail_off - call.off < call.size ? d->fail : MT_OK);
}

static T_UNUSED enum mt_result
t_dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct t_dev *d = arg;
	unsigned int i, shift;

	*val = 0;
	for (i = 0; i < size; i++) {
		shift = 8 * (d->ops.endian == MT_BIG ? size - 1 - i : i);
		*val |= (uint64_t)(uint8_t)(off + i) << shift;
	}
	if (d->is_fixed)
		*val = d->fixed;
	return (t_dev_call(d, (struct t_call){ false, off, size, 0, attrs }));
}

static T_UNUSED enum mt_result
t_dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	return (t_dev_call(arg,
	    (struct t_call){ true, off, size, val, attrs }));
}

#define T_DEV(...)	{ .ops = { .read = t_dev_read, \
			    .write = t_dev_write, __VA_ARGS__ } }

/* --- things as text, to be compared by is_str() ------------------------ */

#define T_TEXTS		4
#define T_TEXT		4096

/* One of the few buffers that take turns. */
static T_UNUSED char *
t_text(void)
{
	static __thread char text[T_TEXTS][T_TEXT];
	static __thread unsigned int turn;
	char *s = text[turn++ % T_TEXTS];

	s[0] = '\0';
	return (s);
}

__attribute__((unused, format(printf, 2, 3))) static void
t_append(char *s, const char *fmt, ...)
{
	size_t n = strlen(s);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(s + n, T_TEXT - n, fmt, ap);
	va_end(ap);
}

/* "0-fff ram+0 r", with the flags r, d, n, u that are set. */
static T_UNUSED void
t_append_section(char *s, const struct mt_section *sec)
{
	t_append(s, "%" PRIx64 "-%" PRIx64 " %s+%" PRIx64, sec->range.first,
	    sec->range.last, mt_region_name(sec->region), sec->off);
	if (sec->flags != 0)
		t_append(s, " %s%s%s%s",
		    sec->flags & MT_SECTION_READONLY ? "r" : "",
		    sec->flags & MT_SECTION_ROM_MODE ? "d" : "",
		    sec->flags & MT_SECTION_NONVOLATILE ? "n" : "",
		    sec->flags & MT_SECTION_UNMERGEABLE ? "u" : "");
}

/* The sections of a view, separated by ", ". */
static T_UNUSED const char *
t_view_text(const struct mt_view *v)
{
	struct mt_section sec;
	char *s = t_text();
	mt_addr at = 0;
	size_t n = 0;

	while (mt_view_next(v, at, &sec)) {
		if (n++ > 0)
			t_append(s, ", ");
		t_append_section(s, &sec);
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	if (n != mt_view_count(v))
		t_append(s, " but %zu are counted", mt_view_count(v));
	return (s);
}

static T_UNUSED const char *
t_space_text(struct mt_space *sp)
{
	struct mt_view *v = mt_space_view(sp);
	const char *s = t_view_text(v);

	mt_view_put(v);
	return (s);
}
#define is_view(sp, want, ...)	is_str(t_space_text(sp), want, __VA_ARGS__)

/* The calls of a device since the last look: "r 0/4, w 4/2=1234". */
static T_UNUSED const char *
t_calls(struct t_dev *d)
{
	const struct t_call *c = d->calls;
	char *s = t_text();
	unsigned int i;

	for (i = 0; i < d->ncalls && i < T_COUNT(d->calls); i++, c++) {
		t_append(s, "%s%s %" PRIx64 "/%u", i > 0 ? ", " : "",
		    c->is_write ? "w" : "r", c->off, c->size);
		if (c->is_write)
			t_append(s, "=%" PRIx64, c->val);
	}
	d->ncalls = 0;
	return (s);
}
#define is_calls(dev, want, ...) is_str(t_calls(dev), want, __VA_ARGS__)

/* Memory as hexadecimal digits. */
static T_UNUSED const char *
t_hex(const void *p, size_t len)
{
	const uint8_t *b = p;
	char *s = t_text();

	while (len-- > 0)
		t_append(s, "%02x", *b++);
	return (s);
}

/* What a space reads as. */
static T_UNUSED const char *
t_read(struct mt_space *sp, mt_addr addr, size_t len)
{
	uint8_t buf[256];
	enum mt_result res;
	const char *hex;
	char *s;

	must(len <= sizeof(buf));
	memset(buf, 0xee, sizeof(buf));
	res = mt_space_read(sp, addr, buf, len, MT_ATTRS_NONE);
	hex = t_hex(buf, len);
	if (res == MT_OK)
		return (hex);
	s = t_text();
	t_append(s, "%s with %u", hex, (unsigned int)res);
	return (s);
}
#define is_read(sp, addr, len, want, ...) \
	is_str(t_read(sp, addr, len), want, __VA_ARGS__)

/* --- a listener that writes down what it is told ----------------------- */

struct t_listener {
	struct mt_listener l;
	const char *name;	/* said first, unless NULL */
	char *text;		/* T_TEXT bytes, shared or own */
	char own[T_TEXT];
};

static T_UNUSED void
t_heard(struct t_listener *tl, const char *what, const struct mt_section *sec)
{
	if (tl->text[0] != '\0')
		t_append(tl->text, ", ");
	if (tl->name != NULL)
		t_append(tl->text, "%s ", tl->name);
	t_append(tl->text, "%s", what);
	if (sec != NULL) {
		t_append(tl->text, " ");
		t_append_section(tl->text, sec);
	}
}

static T_UNUSED void
t_heard_begin(void *arg, struct mt_space *sp)
{
	(void)sp;
	t_heard(arg, "begin", NULL);
}

static T_UNUSED void
t_heard_commit(void *arg, struct mt_space *sp)
{
	(void)sp;
	t_heard(arg, "commit", NULL);
}

static T_UNUSED void
t_heard_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)sp;
	t_heard(arg, "add", sec);
}

static T_UNUSED void
t_heard_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)sp;
	t_heard(arg, "del", sec);
}

/* text: where to write, or NULL for its own. */
static T_UNUSED void
t_listen(struct t_listener *tl, struct mt_space *sp, const char *name,
    int prio, char *text)
{
	memset(tl, 0, sizeof(*tl));
	tl->l.prio = prio;
	tl->l.arg = tl;
	tl->l.begin = t_heard_begin;
	tl->l.commit = t_heard_commit;
	tl->l.add = t_heard_add;
	tl->l.del = t_heard_del;
	tl->name = name;
	tl->text = text != NULL ? text : tl->own;
	must(mt_listener_register(sp, &tl->l) == 0);
}

/* What was heard since the last look. */
static T_UNUSED const char *
t_events(char *text)
{
	char *s = t_text();

	t_append(s, "%s", text);
	text[0] = '\0';
	return (s);
}
#define is_heard(tl, want, ...)	is_str(t_events((tl)->text), want, __VA_ARGS__)

/* --- what a run is given, and random numbers --------------------------- */

static T_UNUSED uint64_t
t_env(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return (s != NULL && *s != '\0' ? strtoull(s, NULL, 0) : otherwise);
}

/* T_SECONDS, for a test that goes on for a time; it may be a long one. */
static T_UNUSED double
t_seconds(double otherwise)
{
	const char *s = getenv("T_SECONDS");
	double seconds = s != NULL ? atof(s) : otherwise;

	if (seconds > T_ALARM / 2)
		alarm((unsigned int)seconds * 2);
	return (seconds);
}

static T_UNUSED uint64_t
t_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return (x ^ x >> 31);
}

/* In [0, n). */
static T_UNUSED uint64_t
t_below(uint64_t *state, uint64_t n)
{
	return (t_random(state) % n);
}

#endif
