/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Replay conformance vectors: files in the format of t/vectors/README.md,
 * whose statements are carried out on the library and whose answers are
 * compared with what the library answers.  A case is a check; each difference
 * is a remark before it that names file, line, what was expected and what was
 * got.
 */

#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <inttypes.h>

#include <libmemtree/memtree.h>

#include "t/tap.h"

#define CASE_ALARM	60		/* seconds a case may take */
#define ID_MAX		(1u << 20)
#define LEN_MAX		((uint64_t)1 << 32)

/* Lines of text: what a file expects or what the library did. */
struct lines {
	struct line {
		char *text;
		unsigned long no;	/* in the file, or 0 */
	} *v;
	size_t n;
	size_t max;
};

struct replay;

struct region {
	struct mt_region *r;
	struct replay *rp;
	struct mt_io_ops ops;
	unsigned int id;
	bool faulty;
};

struct space {
	struct mt_space *sp;
	struct mt_listener listener;
	struct replay *rp;
	unsigned int id;
	bool added;			/* the commit under way has added */
};

/* The access whose calls are being listed. */
struct access {
	unsigned long no;		/* its line; 0 if there is none */
	bool is_write;
	struct space *s;
	mt_addr addr;
	size_t len;
	uint8_t *buf;			/* read, or to be written */
	unsigned int result;
	char *want;			/* the answer in the file */
	bool optional;			/* its calls need not be listed */
};

struct replay {
	const char *file;
	unsigned long no;		/* current line, from 1 */
	char **w;			/* its words */
	size_t nw;
	size_t maxw;
	unsigned long cases;
	bool failed;			/* the case */
	bool broken;			/* malformed: skip to the next case */
	enum { ENDS_UNKNOWN, ENDS_TOLD, ENDS_UNTOLD } ends;

	/* the case */
	char *name;			/* NULL outside of one */
	unsigned long start;
	struct mt_topology *t;
	unsigned int depth;		/* open transactions */
	struct region **regions;
	size_t nregions;
	struct space **spaces;
	size_t nspaces;

	/* what follows the last statement */
	unsigned long changed;		/* its line */
	struct lines want_events;
	struct lines got_events;
	struct access access;
	struct lines want_calls;
	struct lines got_calls;
	struct space *view;		/* between view and endview */
	struct lines want_view;
	bool recording;			/* calls */
};

/* --- memory, lines and remarks ----------------------------------------- */

static void *
grow(void *p, size_t *max, size_t n, size_t size)
{
	size_t m = *max == 0 ? 16 : *max;

	while (m < n)
		m *= 2;
	if ((p = reallocarray(p, m, size)) == NULL)
		err(1, NULL);
	memset((char *)p + *max * size, 0, (m - *max) * size);
	*max = m;
	return (p);
}

__attribute__((format(printf, 3, 4))) static void
push(struct lines *l, unsigned long no, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) == -1)
		err(1, NULL);
	va_end(ap);
	if (l->n == l->max)
		l->v = grow(l->v, &l->max, l->n + 1, sizeof(*l->v));
	l->v[l->n++] = (struct line){ text, no };
}

static void
cut(struct lines *l, size_t n)
{
	while (l->n > n)
		free(l->v[--l->n].text);
}

static void
differ(struct replay *rp, unsigned long no, const char *want, const char *got)
{
	diag("%s:%lu: expected: %s", rp->file, no, want);
	diag("%s:%lu: got:      %s", rp->file, no, got);
	rp->failed = true;
}

/* The rest of a case that cannot be understood is passed over. */
__attribute__((format(printf, 2, 3))) static void
malformed(struct replay *rp, const char *fmt, ...)
{
	va_list ap;
	char *text;

	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) == -1)
		err(1, NULL);
	va_end(ap);
	if (rp->name == NULL)
		ok(false, "%s:%lu: %s", rp->file, rp->no, text);
	else if (!rp->broken)
		diag("%s:%lu: %s", rp->file, rp->no, text);
	free(text);
	rp->failed = rp->broken = true;
}

/* --- words ------------------------------------------------------------- */

static bool
number(struct replay *rp, const char *s, uint64_t max, uint64_t *val)
{
	int base = s[0] == '0' && (s[1] == 'x' || s[1] == 'X') ? 16 : 10;
	char *end;

	errno = 0;
	*val = strtoull(s, &end, base);
	if (!isdigit((unsigned char)s[0]) || *end != '\0' || errno != 0 ||
	    (base == 16 && s[2] == '\0') || *val > max) {
		malformed(rp, "bad number: %s", s);
		return (false);
	}
	return (true);
}

static bool
address(struct replay *rp, const char *s, mt_addr *addr)
{
	return (number(rp, s, UINT64_MAX, addr));
}

/* A size in bytes as the offset of the last one. */
static bool
size(struct replay *rp, const char *s, mt_addr *last)
{
	if (strcmp(s, "all") == 0)
		*last = MT_LAST_MAX;
	else if (!number(rp, s, UINT64_MAX, last))
		return (false);
	else if ((*last)-- == 0) {
		malformed(rp, "a size of 0");
		return (false);
	}
	return (true);
}

static bool
length(struct replay *rp, const char *s, size_t *len)
{
	uint64_t val;

	if (!number(rp, s, LEN_MAX, &val))
		return (false);
	*len = (size_t)val;
	return (true);
}

static bool
boolean(struct replay *rp, const char *s, bool *val)
{
	if (strcmp(s, "0") != 0 && strcmp(s, "1") != 0) {
		malformed(rp, "neither 0 nor 1: %s", s);
		return (false);
	}
	*val = s[0] == '1';
	return (true);
}

static bool
identifier(struct replay *rp, const char *s, unsigned int *id)
{
	uint64_t val;

	if (!number(rp, s, ID_MAX, &val))
		return (false);
	*id = (unsigned int)val;
	return (true);
}

static bool
region(struct replay *rp, const char *s, struct region **g)
{
	unsigned int id;

	if (!identifier(rp, s, &id))
		return (false);
	if (id >= rp->nregions || rp->regions[id] == NULL) {
		malformed(rp, "no region %s", s);
		return (false);
	}
	*g = rp->regions[id];
	return (true);
}

static bool
space(struct replay *rp, const char *s, struct space **g)
{
	unsigned int id;

	if (!identifier(rp, s, &id))
		return (false);
	if (id >= rp->nspaces || rp->spaces[id] == NULL) {
		malformed(rp, "no space %s", s);
		return (false);
	}
	*g = rp->spaces[id];
	return (true);
}

static bool
arrow(struct replay *rp, size_t i)
{
	if (strcmp(rp->w[i], "->") == 0)
		return (true);
	malformed(rp, "not an arrow: %s", rp->w[i]);
	return (false);
}

/* One of two words. */
static bool
choice(struct replay *rp, const char *s, const char *a, const char *b,
    bool *is_b)
{
	if (strcmp(s, a) != 0 && strcmp(s, b) != 0) {
		malformed(rp, "neither %s nor %s: %s", a, b, s);
		return (false);
	}
	*is_b = strcmp(s, b) == 0;
	return (true);
}

/* Flags: for each letter itself or a dash. */
static bool
flags(struct replay *rp, const char *s, const char *letters)
{
	size_t i;

	for (i = 0; letters[i] != '\0'; i++)
		if (s[i] != '-' && s[i] != letters[i])
			break;
	if (letters[i] == '\0' && s[i] == '\0')
		return (true);
	malformed(rp, "bad flags: %s", s);
	return (false);
}

static bool
unhex(struct replay *rp, const char *s, uint8_t **buf, size_t *len)
{
	size_t n = strlen(s), i;
	unsigned int byte;

	if (n % 2 != 0 || strspn(s, "0123456789abcdefABCDEF") != n) {
		malformed(rp, "bad bytes: %s", s);
		return (false);
	}
	if ((*buf = malloc(n / 2 + 1)) == NULL)
		err(1, NULL);
	for (i = 0; i < n / 2; i++) {
		sscanf(s + 2 * i, "%2x", &byte);
		(*buf)[i] = (uint8_t)byte;
	}
	*len = n / 2;
	return (true);
}

static char *
hex(const uint8_t *buf, size_t len)
{
	char *s = malloc(2 * len + 1);
	size_t i;

	if (s == NULL)
		err(1, NULL);
	s[0] = '\0';
	for (i = 0; i < len; i++)
		snprintf(s + 2 * i, 3, "%02x", buf[i]);
	return (s);
}

/* --- the devices of the scripts ---------------------------------------- */

static uint64_t
mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return (x ^ x >> 31);
}

static enum mt_result
io(struct region *g, bool is_write, mt_addr off, unsigned int bytes,
    uint64_t val)
{
	bool fails = g->faulty && (off & 0x3c) == 0x20;

	if (!g->rp->recording)
		return (fails ? MT_DEVICE : MT_OK);
	if (fails && !is_write)
		push(&g->rp->got_calls, 0, "call r %u 0x%" PRIx64 " %u error",
		    g->id, off, bytes);
	else
		push(&g->rp->got_calls, 0,
		    "call %c %u 0x%" PRIx64 " %u 0x%" PRIx64 "%s",
		    is_write ? 'w' : 'r', g->id, off, bytes, val,
		    fails ? " error" : "");
	return (fails ? MT_DEVICE : MT_OK);
}

static enum mt_result
io_read(void *arg, mt_addr off, unsigned int bytes, uint64_t *val,
    struct mt_attrs attrs)
{
	struct region *g = arg;

	(void)attrs;
	*val = mix((uint64_t)g->id << 40 ^ off << 8 ^ bytes);
	if (bytes < 8)
		*val &= ((uint64_t)1 << 8 * bytes) - 1;
	return (io(g, false, off, bytes, *val));
}

static enum mt_result
io_write(void *arg, mt_addr off, unsigned int bytes, uint64_t val,
    struct mt_attrs attrs)
{
	(void)attrs;
	return (io(arg, true, off, bytes, val));
}

/* --- regions and spaces ------------------------------------------------ */

static bool
width(struct replay *rp, const char *s, const char *key, struct mt_width *w)
{
	size_t n = strlen(key);
	unsigned int min, max, unaligned;
	char c;

	if (strncmp(s, key, n) != 0 || s[n] != '=' ||
	    sscanf(s + n + 1, "%3u,%3u,%1u%c", &min, &max, &unaligned,
	    &c) != 3 || min > 8 || max > 8 || unaligned > 1) {
		malformed(rp, "not %s=MIN,MAX,UNALIGNED: %s", key, s);
		return (false);
	}
	*w = (struct mt_width){ .min = (uint8_t)min, .max = (uint8_t)max,
	    .unaligned = unaligned == 1 };
	return (true);
}

static bool
ops(struct replay *rp, size_t i, struct region *g)
{
	bool is_big;

	if (rp->nw != i + 4) {
		malformed(rp, "not endian=, valid=, impl=, faulty=");
		return (false);
	}
	if (!choice(rp, rp->w[i], "endian=little", "endian=big", &is_big) ||
	    !width(rp, rp->w[i + 1], "valid", &g->ops.valid) ||
	    !width(rp, rp->w[i + 2], "impl", &g->ops.impl) ||
	    !choice(rp, rp->w[i + 3], "faulty=0", "faulty=1", &g->faulty))
		return (false);
	g->ops.endian = is_big ? MT_BIG : MT_LITTLE;
	/* The files are QEMU's answers, past the ends of regions, too. */
	g->ops.qemu_exact = true;
	g->ops.read = io_read;
	g->ops.write = io_write;
	g->ops.qemu_exact = true;	/* as what answered the vectors */
	return (true);
}

static void
make_region(struct replay *rp, struct region *g, const char *name)
{
	const char *kind = rp->w[2];
	bool is_alias = strcmp(kind, "alias") == 0;
	bool has_ops = strcmp(kind, "io") == 0 || strcmp(kind, "romd") == 0;
	struct region *target;
	mt_addr last, off;
	uint8_t *p;

	if (is_alias) {
		if (rp->nw != 6) {
			malformed(rp, "not TARGET OFFSET SIZE");
			return;
		}
		if (!region(rp, rp->w[3], &target) ||
		    !address(rp, rp->w[4], &off) ||
		    !size(rp, rp->w[5], &last))
			return;
		g->r = mt_region_create_alias(rp->t, name, target->r, off,
		    last);
	} else {
		if (!size(rp, rp->w[3], &last) || (has_ops && !ops(rp, 4, g)))
			return;
		if (!has_ops && rp->nw != 4)
			malformed(rp, "too many words");
		else if (strcmp(kind, "container") == 0)
			g->r = mt_region_create_container(rp->t, name, last);
		else if (strcmp(kind, "ram") == 0)
			g->r = mt_region_create_ram(rp->t, name, last, NULL);
		else if (strcmp(kind, "rom") == 0)
			g->r = mt_region_create_rom(rp->t, name, last, NULL);
		else if (strcmp(kind, "romd") == 0)
			g->r = mt_region_create_rom_device(rp->t, name, last,
			    NULL, &g->ops, g);
		else if (strcmp(kind, "io") == 0)
			g->r = mt_region_create_io(rp->t, name, last, &g->ops,
			    g);
		else
			malformed(rp, "no kind of region: %s", kind);
		if (rp->broken)
			return;
	}
	if (g->r == NULL) {
		malformed(rp, "cannot create region %s: %s", name,
		    strerror(errno));
		return;
	}
	if ((p = mt_region_ptr(g->r)) != NULL)
		for (off = 0; off <= last; off++)
			p[off] = (uint8_t)mix((uint64_t)g->id << 40 ^ off);
}

static void
do_region(struct replay *rp)
{
	struct region *g;
	unsigned int id;
	char name[16];

	if (!identifier(rp, rp->w[1], &id))
		return;
	if (id >= rp->nregions)
		rp->regions = grow(rp->regions, &rp->nregions, id + 1,
		    sizeof(*rp->regions));
	if (rp->regions[id] != NULL) {
		malformed(rp, "there is a region %u", id);
		return;
	}
	if ((g = calloc(1, sizeof(*g))) == NULL)
		err(1, NULL);
	g->rp = rp;
	g->id = id;
	snprintf(name, sizeof(name), "%u", id);
	make_region(rp, g, name);
	if (g->r != NULL)
		rp->regions[id] = g;
	else
		free(g);
}

static void
event(struct space *s, const char *what, const struct mt_section *sec)
{
	push(&s->rp->got_events, 0, "event %u %s 0x%" PRIx64 " 0x%" PRIx64
	    " %s 0x%" PRIx64 " %c%c", s->id, what, sec->range.first,
	    sec->range.last, mt_region_name(sec->region), sec->off,
	    sec->flags & MT_SECTION_READONLY ? 'r' : '-',
	    sec->flags & MT_SECTION_NONVOLATILE ? 'n' : '-');
}

static void
on_begin(void *arg, struct mt_space *sp)
{
	struct space *s = arg;

	(void)sp;
	s->added = false;
}

static void
on_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct space *s = arg;

	(void)sp;
	s->added = true;
	event(s, "add", sec);
}

static void
on_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct space *s = arg;

	(void)sp;
	if (s->added)
		differ(s->rp, s->rp->no, "every del before the first add",
		    "a del after an add");
	event(s, "del", sec);
}

static void
do_space(struct replay *rp)
{
	struct space *s;
	struct region *root;
	unsigned int id;

	if (!identifier(rp, rp->w[1], &id) || !region(rp, rp->w[2], &root))
		return;
	if (id >= rp->nspaces)
		rp->spaces = grow(rp->spaces, &rp->nspaces, id + 1,
		    sizeof(*rp->spaces));
	if (rp->spaces[id] != NULL) {
		malformed(rp, "there is a space %u", id);
		return;
	}
	if ((s = calloc(1, sizeof(*s))) == NULL)
		err(1, NULL);
	s->rp = rp;
	s->id = id;
	s->listener = (struct mt_listener){ .arg = s, .begin = on_begin,
	    .add = on_add, .del = on_del };
	if ((s->sp = mt_space_create(root->r, rp->w[1])) == NULL) {
		malformed(rp, "cannot create the space: %s", strerror(errno));
		free(s);
		return;
	}
	rp->spaces[id] = s;
	if (mt_listener_register(s->sp, &s->listener) == -1)
		malformed(rp, "cannot register a listener: %s",
		    strerror(errno));
}

/* --- changes ----------------------------------------------------------- */

static void
check(struct replay *rp, int ret)
{
	if (ret == -1)
		differ(rp, rp->no, "success", strerror(errno));
}

static void
do_begin(struct replay *rp)
{
	check(rp, mt_topology_begin(rp->t));
	rp->depth++;
}

static void
do_commit(struct replay *rp)
{
	if (rp->depth == 0) {
		malformed(rp, "commit without begin");
		return;
	}
	rp->depth--;
	check(rp, mt_topology_commit(rp->t));
}

static void
do_add(struct replay *rp)
{
	struct region *parent, *child;
	const char *s = rp->w[4];
	bool negative = s[0] == '-';
	uint64_t prio;
	mt_addr off;

	if (region(rp, rp->w[1], &parent) && region(rp, rp->w[2], &child) &&
	    address(rp, rp->w[3], &off) &&
	    number(rp, s + negative, (uint64_t)INT32_MAX + negative, &prio))
		check(rp, mt_region_add(parent->r, child->r, off,
		    (int)(negative ? -(int64_t)prio : (int64_t)prio)));
}

static void
do_del(struct replay *rp)
{
	struct region *parent, *child;

	if (!region(rp, rp->w[1], &parent) || !region(rp, rp->w[2], &child))
		return;
	if (mt_region_parent(child->r) != parent->r)
		malformed(rp, "%s is not in %s", rp->w[2], rp->w[1]);
	else
		check(rp, mt_region_del(child->r));
}

static void
do_addr(struct replay *rp)
{
	struct region *g;
	mt_addr off;

	/* The address of a region that has no parent shows nowhere. */
	if (region(rp, rp->w[1], &g) && address(rp, rp->w[2], &off) &&
	    mt_region_parent(g->r) != NULL)
		check(rp, mt_region_move(g->r, off));
}

static void
do_aliasoff(struct replay *rp)
{
	struct region *g;
	mt_addr off;

	if (region(rp, rp->w[1], &g) && address(rp, rp->w[2], &off))
		check(rp, mt_region_set_alias_offset(g->r, off));
}

static void
do_size(struct replay *rp)
{
	struct region *g;
	mt_addr last;

	if (region(rp, rp->w[1], &g) && size(rp, rp->w[2], &last))
		check(rp, mt_region_resize(g->r, last));
}

static void
set(struct replay *rp, int (*fn)(struct mt_region *, bool))
{
	struct region *g;
	bool val;

	if (region(rp, rp->w[1], &g) && boolean(rp, rp->w[2], &val))
		check(rp, fn(g->r, val));
}

static void
do_enable(struct replay *rp)
{
	set(rp, mt_region_set_enabled);
}

static void
do_readonly(struct replay *rp)
{
	set(rp, mt_region_set_readonly);
}

static void
do_nonvolatile(struct replay *rp)
{
	set(rp, mt_region_set_nonvolatile);
}

static void
do_romdmode(struct replay *rp)
{
	set(rp, mt_region_set_rom_mode);
}

/* --- events ------------------------------------------------------------ */

static void
do_event(struct replay *rp)
{
	struct space *s;
	struct region *g;
	mt_addr first, last, off;
	bool is_del;

	if (space(rp, rp->w[1], &s) &&
	    choice(rp, rp->w[2], "add", "del", &is_del) &&
	    address(rp, rp->w[3], &first) && address(rp, rp->w[4], &last) &&
	    region(rp, rp->w[5], &g) && address(rp, rp->w[6], &off) &&
	    flags(rp, rp->w[7], "rn"))
		push(&rp->want_events, rp->no, "event %u %s 0x%" PRIx64
		    " 0x%" PRIx64 " %u 0x%" PRIx64 " %s", s->id, rp->w[2],
		    first, last, g->id, off, rp->w[7]);
}

/* Compare as sets: everything that is on both sides is crossed out. */
static void
compare_events(struct replay *rp)
{
	struct lines *want = &rp->want_events, *got = &rp->got_events;
	size_t i, j;

	for (i = 0; i < want->n; i++) {
		for (j = 0; j < got->n; j++)
			if (got->v[j].text != NULL &&
			    strcmp(got->v[j].text, want->v[i].text) == 0)
				break;
		if (j == got->n) {
			differ(rp, want->v[i].no, want->v[i].text,
			    "no such event");
			continue;
		}
		free(got->v[j].text);
		got->v[j].text = NULL;
	}
	for (j = 0; j < got->n; j++)
		if (got->v[j].text != NULL)
			differ(rp, rp->changed, "no such event",
			    got->v[j].text);
	cut(want, 0);
	cut(got, 0);
}

/* --- views ------------------------------------------------------------- */

static void
do_view(struct replay *rp)
{
	space(rp, rp->w[1], &rp->view);
}

static void
do_range(struct replay *rp)
{
	struct region *g;
	mt_addr first, last, off;

	if (rp->view == NULL)
		malformed(rp, "range outside a view");
	else if (address(rp, rp->w[1], &first) &&
	    address(rp, rp->w[2], &last) && region(rp, rp->w[3], &g) &&
	    address(rp, rp->w[4], &off) && flags(rp, rp->w[5], "rdn"))
		push(&rp->want_view, rp->no, "range 0x%" PRIx64 " 0x%" PRIx64
		    " %u 0x%" PRIx64 " %s", first, last, g->id, off,
		    rp->w[5]);
}

static void
do_endview(struct replay *rp)
{
	struct lines got = { NULL, 0, 0 }, *want = &rp->want_view;
	struct mt_section sec;
	struct mt_view *v;
	mt_addr at = 0;
	size_t i, n;

	if (rp->view == NULL) {
		malformed(rp, "endview without view");
		return;
	}
	v = mt_space_view(rp->view->sp);
	while (mt_view_next(v, at, &sec)) {
		push(&got, 0, "range 0x%" PRIx64 " 0x%" PRIx64 " %s 0x%" PRIx64
		    " %c%c%c", sec.range.first, sec.range.last,
		    mt_region_name(sec.region), sec.off,
		    sec.flags & MT_SECTION_READONLY ? 'r' : '-',
		    sec.flags & MT_SECTION_ROM_MODE ? 'd' : '-',
		    sec.flags & MT_SECTION_NONVOLATILE ? 'n' : '-');
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	n = mt_view_count(v);
	mt_view_put(v);
	for (i = 0; i < want->n || i < got.n; i++) {
		const char *w = i < want->n ? want->v[i].text : "endview";
		const char *g = i < got.n ? got.v[i].text : "endview";

		if (strcmp(w, g) != 0)
			differ(rp, i < want->n ? want->v[i].no : rp->no, w, g);
	}
	if (n != got.n)
		differ(rp, rp->no, "as many sections as are counted",
		    "another number");
	cut(&got, 0);
	free(got.v);
	cut(want, 0);
	rp->view = NULL;
}

/* --- accesses ---------------------------------------------------------- */

static void
do_read(struct replay *rp)
{
	struct access *a = &rp->access;
	const char *data = rp->nw == 7 ? rp->w[6] : "";
	uint64_t result;
	uint8_t *buf;
	size_t len;

	if (!space(rp, rp->w[1], &a->s) || !address(rp, rp->w[2], &a->addr) ||
	    !length(rp, rp->w[3], &a->len) || !arrow(rp, 4) ||
	    !number(rp, rp->w[5], 7, &result))
		return;
	if (strcmp(data, "-") != 0) {
		if (!unhex(rp, data, &buf, &len))
			return;
		free(buf);
		if (result != 0 || len != a->len) {
			malformed(rp, "neither - nor %zu bytes", a->len);
			return;
		}
	}
	if ((a->buf = calloc(1, a->len + 1)) == NULL)
		err(1, NULL);
	if (asprintf(&a->want, "%u %s", (unsigned int)result,
	    result != 0 ? "-" : data) == -1)
		err(1, NULL);
	a->no = rp->no;
	a->is_write = false;
	rp->recording = true;
	a->result = mt_space_read(a->s->sp, a->addr, a->buf, a->len,
	    MT_ATTRS_NONE);
	rp->recording = false;
}

static void
do_write(struct replay *rp)
{
	struct access *a = &rp->access;
	uint64_t result;

	if (!space(rp, rp->w[1], &a->s) || !address(rp, rp->w[2], &a->addr) ||
	    !arrow(rp, 4) || !number(rp, rp->w[5], 7, &result) ||
	    !unhex(rp, rp->w[3], &a->buf, &a->len))
		return;
	if (asprintf(&a->want, "%u", (unsigned int)result) == -1)
		err(1, NULL);
	a->no = rp->no;
	a->is_write = true;
	rp->recording = true;
	a->result = mt_space_write(a->s->sp, a->addr, a->buf, a->len,
	    MT_ATTRS_NONE);
	rp->recording = false;
}

static void
do_call(struct replay *rp)
{
	struct region *g;
	bool is_write, error = rp->nw == 7;
	uint64_t off, bytes, val;
	const char *last = rp->w[rp->nw - 1];

	if (rp->access.no == 0) {
		malformed(rp, "a call after what makes none");
		return;
	}
	if (!choice(rp, rp->w[1], "r", "w", &is_write) ||
	    !region(rp, rp->w[2], &g) || !address(rp, rp->w[3], &off) ||
	    !number(rp, rp->w[4], 8, &bytes))
		return;
	if (rp->nw == 6 && !is_write && strcmp(last, "error") == 0)
		push(&rp->want_calls, rp->no, "call r %u 0x%" PRIx64
		    " %" PRIu64 " error", g->id, off, bytes);
	else if (error && strcmp(last, "error") != 0)
		malformed(rp, "not error: %s", last);
	else if (address(rp, rp->w[5], &val))
		push(&rp->want_calls, rp->no, "call %c %u 0x%" PRIx64
		    " %" PRIu64 " 0x%" PRIx64 "%s", is_write ? 'w' : 'r',
		    g->id, off, bytes, val, error ? " error" : "");
}

static void
compare_access(struct replay *rp)
{
	struct lines *want = &rp->want_calls, *got = &rp->got_calls;
	struct access *a = &rp->access;
	const char *w, *g;
	char *answer, *data;
	size_t i;

	if (a->want != NULL) {
		data = hex(a->buf, a->is_write ? 0 : a->len);
		if (asprintf(&answer, "%u%s%s", a->result,
		    a->is_write ? "" : " ",
		    a->is_write ? "" : a->result != 0 ? "-" : data) == -1)
			err(1, NULL);
		if (strcmp(answer, a->want) != 0)
			differ(rp, a->no, a->want, answer);
		free(answer);
		free(data);
	}
	if (!a->optional || want->n > 0)
		for (i = 0; i < want->n || i < got->n; i++) {
			w = i < want->n ? want->v[i].text : "no more calls";
			g = i < got->n ? got->v[i].text : "no more calls";
			if (strcmp(w, g) != 0)
				differ(rp, i < want->n ? want->v[i].no : a->no,
				    w, g);
		}
	cut(want, 0);
	cut(got, 0);
	free(a->want);
	free(a->buf);
	memset(a, 0, sizeof(*a));
}

/* --- questions --------------------------------------------------------- */

static void
answer(struct replay *rp, size_t i, const char *got)
{
	char want[256] = "";

	for (; i < rp->nw; i++) {
		strncat(want, rp->w[i], sizeof(want) - strlen(want) - 1);
		if (i + 1 < rp->nw)
			strncat(want, " ", sizeof(want) - strlen(want) - 1);
	}
	if (strcmp(want, got) != 0)
		differ(rp, rp->no, want, got);
}

/* Bring a number to the form in which answers are printed. */
static bool
normal(struct replay *rp, size_t i, const char *fmt)
{
	char buf[32];
	uint64_t val;

	if (!address(rp, rp->w[i], &val))
		return (false);
	snprintf(buf, sizeof(buf), fmt, val);
	free(rp->w[i]);
	if ((rp->w[i] = strdup(buf)) == NULL)
		err(1, NULL);
	return (true);
}

static void
do_find(struct replay *rp)
{
	struct mt_section sec;
	struct mt_range range;
	struct space *s;
	struct region *g;
	char got[128];
	mt_addr last;

	if (!space(rp, rp->w[1], &s) || !address(rp, rp->w[2], &range.first) ||
	    !size(rp, rp->w[3], &last) || !arrow(rp, 4))
		return;
	if (rp->nw == 6 ? strcmp(rp->w[5], "none") != 0 : rp->nw != 9) {
		malformed(rp, "neither none nor REGION OFFSET ADDR SIZE");
		return;
	}
	if (rp->nw == 9 && (!region(rp, rp->w[5], &g) ||
	    !normal(rp, 5, "%" PRIu64) || !normal(rp, 6, "0x%" PRIx64) ||
	    !normal(rp, 7, "0x%" PRIx64) || (strcmp(rp->w[8], "all") != 0 &&
	    !normal(rp, 8, "0x%" PRIx64))))
		return;
	range.last = last > MT_LAST_MAX - range.first ? MT_LAST_MAX :
	    range.first + last;
	if (mt_space_find(s->sp, range, &sec) == 0) {
		last = sec.range.last - sec.range.first;
		snprintf(got, sizeof(got), "%s 0x%" PRIx64 " 0x%" PRIx64 " ",
		    mt_region_name(sec.region), sec.off, sec.range.first);
		snprintf(got + strlen(got), sizeof(got) - strlen(got),
		    last == MT_LAST_MAX ? "all" : "0x%" PRIx64, last + 1);
		mt_region_put(sec.region);
	} else
		snprintf(got, sizeof(got), "%s",
		    errno == ENOENT ? "none" : strerror(errno));
	answer(rp, 5, got);
}

static void
do_valid(struct replay *rp)
{
	struct space *s;
	bool is_write, val;
	mt_addr addr;
	size_t len;

	if (space(rp, rp->w[1], &s) && address(rp, rp->w[2], &addr) &&
	    length(rp, rp->w[3], &len) &&
	    choice(rp, rp->w[4], "r", "w", &is_write) && arrow(rp, 5) &&
	    boolean(rp, rp->w[6], &val))
		answer(rp, 6, mt_space_valid(s->sp, addr, len, is_write,
		    MT_ATTRS_NONE) ? "1" : "0");
}

static void
do_map(struct replay *rp)
{
	struct access *a = &rp->access;
	struct mt_mapping map;
	struct space *s;
	bool is_write, bounced;
	mt_addr addr;
	char got[64];
	size_t len;
	int ret;

	if (!space(rp, rp->w[1], &s) || !address(rp, rp->w[2], &addr) ||
	    !length(rp, rp->w[3], &len) ||
	    !choice(rp, rp->w[4], "r", "w", &is_write) || !arrow(rp, 5))
		return;
	if (rp->nw == 7 ? strcmp(rp->w[6], "hole") != 0 :
	    (!choice(rp, rp->w[6], "direct", "bounce", &bounced) ||
	    !normal(rp, 7, "0x%" PRIx64))) {
		malformed(rp, "none of direct LEN, bounce LEN, hole");
		return;
	}

	/* What a fill calls may be listed, but is not in every file. */
	a->no = rp->no;
	a->optional = true;
	rp->recording = true;
	ret = mt_dma_map(s->sp, addr, len,
	    is_write ? MT_DMA_WRITE : MT_DMA_READ, MT_ATTRS_NONE, &map);
	rp->recording = false;
	if (ret == 0)
		snprintf(got, sizeof(got), "%s 0x%zx",
		    map.bounced ? "bounce" : "direct", map.len);
	else
		snprintf(got, sizeof(got), "%s",
		    errno == EFAULT ? "hole" : strerror(errno));
	answer(rp, 6, got);
	if (ret == 0 && mt_dma_unmap(&map, 0) == -1)
		differ(rp, rp->no, "an unmap", strerror(errno));
}

/* --- cases ------------------------------------------------------------- */

static void
do_case(struct replay *rp)
{
	if ((rp->name = strdup(rp->w[1])) == NULL)
		err(1, NULL);
	rp->start = rp->no;
	rp->cases++;
	rp->failed = rp->broken = false;
	if ((rp->t = mt_topology_create()) == NULL)
		err(1, "mt_topology_create");
	alarm(CASE_ALARM);
}

/*
 * Unregister the listeners, which is told as events before the end of a case,
 * or in no case of a file.
 */
static void
end_events(struct replay *rp)
{
	size_t i, changes = rp->got_events.n;

	for (i = 0; i < rp->nspaces; i++)
		if (rp->spaces[i] != NULL &&
		    mt_listener_unregister(&rp->spaces[i]->listener) == -1)
			differ(rp, rp->no, "a listener to unregister",
			    strerror(errno));
	if (rp->got_events.n == changes)
		return;
	if (rp->ends == ENDS_UNKNOWN)
		rp->ends = rp->want_events.n > changes ? ENDS_TOLD :
		    ENDS_UNTOLD;
	if (rp->ends == ENDS_UNTOLD)
		cut(&rp->got_events, changes);
}

/* Take everything down: nothing may be left in the end. */
static void
end_case(struct replay *rp)
{
	size_t i;

	while (rp->depth > 0) {
		mt_topology_commit(rp->t);
		rp->depth--;
	}
	rp->changed = rp->no;
	end_events(rp);
	if (!rp->broken) {
		compare_events(rp);
		compare_access(rp);
	}
	for (i = 0; i < rp->nspaces; i++) {
		if (rp->spaces[i] == NULL)
			continue;
		if (mt_space_destroy(rp->spaces[i]->sp) == -1)
			differ(rp, rp->no, "a space to destroy",
			    strerror(errno));
		free(rp->spaces[i]);
	}
	for (i = 0; i < rp->nregions; i++)
		if (rp->regions[i] != NULL &&
		    mt_region_parent(rp->regions[i]->r) != NULL &&
		    mt_region_del(rp->regions[i]->r) == -1)
			differ(rp, rp->no, "a region to delete",
			    strerror(errno));
	for (i = 0; i < rp->nregions; i++)
		if (rp->regions[i] != NULL)
			mt_region_put(rp->regions[i]->r);
	if (mt_topology_destroy(rp->t) == -1)
		differ(rp, rp->no, "a topology to destroy", strerror(errno));
	for (i = 0; i < rp->nregions; i++)
		free(rp->regions[i]);
	ok(!rp->failed, "%s:%lu: case %s", rp->file, rp->start, rp->name);

	cut(&rp->want_events, 0);
	cut(&rp->got_events, 0);
	cut(&rp->want_calls, 0);
	cut(&rp->got_calls, 0);
	cut(&rp->want_view, 0);
	free(rp->access.want);
	free(rp->access.buf);
	memset(&rp->access, 0, sizeof(rp->access));
	free(rp->regions);
	free(rp->spaces);
	free(rp->name);
	rp->regions = NULL;
	rp->spaces = NULL;
	rp->nregions = rp->nspaces = 0;
	rp->name = NULL;
	rp->view = NULL;
	rp->t = NULL;
	rp->failed = rp->broken = false;
}

static void
do_endcase(struct replay *rp)
{
	if (rp->depth > 0)
		malformed(rp, "a transaction is open");
	end_case(rp);
}

/* A statement of kind DETAIL belongs to the one before it. */
static const struct statement {
	const char *word;
	size_t min;			/* words, itself included */
	size_t max;
	void (*fn)(struct replay *);
	enum { PLAIN, DETAIL } kind;
} statements[] = {
	{ "add",	5, 5, do_add,		PLAIN },
	{ "addr",	3, 3, do_addr,		PLAIN },
	{ "aliasoff",	3, 3, do_aliasoff,	PLAIN },
	{ "begin",	1, 1, do_begin,		PLAIN },
	{ "call",	6, 7, do_call,		DETAIL },
	{ "case",	2, 2, do_case,		PLAIN },
	{ "commit",	1, 1, do_commit,	PLAIN },
	{ "del",	3, 3, do_del,		PLAIN },
	{ "enable",	3, 3, do_enable,	PLAIN },
	{ "endcase",	1, 1, do_endcase,	DETAIL },
	{ "endview",	1, 1, do_endview,	DETAIL },
	{ "event",	8, 8, do_event,		DETAIL },
	{ "find",	6, 9, do_find,		PLAIN },
	{ "map",	7, 8, do_map,		PLAIN },
	{ "nonvolatile", 3, 3, do_nonvolatile,	PLAIN },
	{ "range",	6, 6, do_range,		DETAIL },
	{ "read",	6, 7, do_read,		PLAIN },
	{ "readonly",	3, 3, do_readonly,	PLAIN },
	{ "region",	4, 8, do_region,	PLAIN },
	{ "romdmode",	3, 3, do_romdmode,	PLAIN },
	{ "size",	3, 3, do_size,		PLAIN },
	{ "space",	3, 3, do_space,		PLAIN },
	{ "valid",	7, 7, do_valid,		PLAIN },
	{ "view",	2, 2, do_view,		PLAIN },
	{ "write",	6, 6, do_write,		PLAIN },
};

static const struct statement *
find_statement(const char *word)
{
	size_t i;

	for (i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
		if (strcmp(statements[i].word, word) == 0)
			return (&statements[i]);
	return (NULL);
}

static void
forget_words(struct replay *rp)
{
	while (rp->nw > 0)
		free(rp->w[--rp->nw]);
}

static void
split(struct replay *rp, char *text)
{
	static const char blank[] = " \t\r\n";
	char *last, *word;

	forget_words(rp);
	for (word = strtok_r(text, blank, &last); word != NULL;
	    word = strtok_r(NULL, blank, &last)) {
		if (rp->nw == rp->maxw)
			rp->w = grow(rp->w, &rp->maxw, rp->nw + 1,
			    sizeof(*rp->w));
		if ((rp->w[rp->nw++] = strdup(word)) == NULL)
			err(1, NULL);
	}
}

/* Is this a statement that may come here? */
static bool
belongs(struct replay *rp, const struct statement *st)
{
	if (st == NULL)
		malformed(rp, "unknown statement: %s", rp->w[0]);
	else if (rp->nw < st->min || rp->nw > st->max)
		malformed(rp, "%s with too %s words", st->word,
		    rp->nw < st->min ? "few" : "many");
	else if (rp->name == NULL && st->fn != do_case)
		malformed(rp, "%s outside a case", st->word);
	else if (rp->view != NULL && st->fn != do_range &&
	    st->fn != do_endview)
		malformed(rp, "%s inside a view", st->word);
	else
		return (true);
	/* Nor is a case understood without its end. */
	return (rp->name != NULL && st != NULL && st->fn == do_endcase);
}

static void
run(struct replay *rp)
{
	const struct statement *st;

	if (rp->nw == 0)
		return;
	st = find_statement(rp->w[0]);
	if (rp->name != NULL && st != NULL && st->fn == do_case) {
		malformed(rp, "case %s has no end", rp->name);
		end_case(rp);
	}
	if (rp->name == NULL)
		rp->broken = false;
	else if (rp->broken && (st == NULL || st->fn != do_endcase))
		return;
	if (!belongs(rp, st))
		return;

	/* What the last statement caused has been told: compare. */
	if (st->kind != DETAIL) {
		compare_events(rp);
		compare_access(rp);
		rp->changed = rp->no;
	}
	st->fn(rp);
}

static void
replay(const char *file)
{
	struct replay rp = { .file = file };
	char *text = NULL;
	size_t max = 0;
	ssize_t n;
	FILE *fp;
	int error;

	if ((fp = fopen(file, "r")) == NULL) {
		ok(false, "%s: %s", file, strerror(errno));
		return;
	}
	while (errno = 0, (n = getline(&text, &max, fp)) != -1) {
		rp.no++;
		if (memchr(text, '\0', (size_t)n) != NULL) {
			malformed(&rp, "a line with a NUL");
			continue;
		}
		split(&rp, text);
		run(&rp);
	}
	error = errno;
	if (rp.name != NULL) {
		malformed(&rp, "the file ends inside case %s", rp.name);
		end_case(&rp);
	}
	if (ferror(fp) || rp.cases == 0)
		ok(false, "%s: %s", file,
		    ferror(fp) ? strerror(error) : "no case");
	fclose(fp);
	forget_words(&rp);
	free(text);
	free(rp.w);
	free(rp.want_events.v);
	free(rp.got_events.v);
	free(rp.want_calls.v);
	free(rp.got_calls.v);
	free(rp.want_view.v);
}

int
main(int argc, char *argv[])
{
	static const char usage[] = "usage: replay FILE...\n";
	int i;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		printf("%s\nRun conformance vectors (t/vectors/README.md) "
		    "through libmemtree and\nprint TAP: a check a case, and a "
		    "remark for each difference.\nExits 0 if there is none.\n",
		    usage);
		return (0);
	}
	if (argc < 2 || argv[1][0] == '-') {
		fputs(usage, stderr);
		return (2);
	}
	for (i = 1; i < argc; i++)
		replay(argv[i]);
	return (done());
}
