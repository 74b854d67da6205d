/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What a client does with a memory tree, with its first, second, ... allocation
 * failing, until it makes no more: it works all the same, or it fails and
 * leaves the tree as it was.
 */

#include "t/machine.h"
#include "t/oom.h"

struct world {
	struct m_device d;
	struct m_machine m;
	struct vd_client_dma *dma;
	struct mt_region *made, *near;
	unsigned int failures;
};

static void
failed(void *arg, bool unmap, struct mt_range range, int error)
{
	struct world *w = arg;

	(void)unmap;
	(void)range;
	(void)error;
	w->failures++;
}

static const struct vd_client_dma_ops ops = { .failed = failed };

static int
do_create(struct world *w)
{
	w->made = vd_client_region_create(w->m.c, w->m.t, 0, "made", 0);
	return (w->made == NULL ? -1 : 0);
}

static int
do_create_small(struct world *w)
{
	w->made = vd_client_region_create(w->m.c, w->m.t, 4, "made",
	    VD_CLIENT_WHOLE_PAGE);
	return (w->made == NULL ? -1 : 0);
}

static int
do_hide(struct world *w)
{
	return (vd_client_set_direct(w->m.c, false));
}

/* Into the page of a small region, which follows, or does so later. */
static int
do_come(struct world *w)
{
	return (mt_region_add(w->m.root, w->near, 0x10ff0, 1));
}

static int
do_go(struct world *w)
{
	return (mt_region_del(w->near));
}

static int
do_unwatch(struct world *w)
{
	return (vd_client_unwatch_pages(w->m.c));
}

static int
do_mirror(struct world *w)
{
	w->dma = vd_client_dma_create(w->m.c, w->m.sp, &ops, w);
	return (w->dma == NULL ? -1 : 0);
}

static int
do_lost(struct world *w)
{
	return (vd_client_set_lost(w->m.c, NULL, NULL));
}

static int
do_give(struct world *w)
{
	static int fd = -1;

	if (fd == -1)
		must((fd = memfd_create("given", MFD_CLOEXEC)) != -1 &&
		    ftruncate(fd, PAGE) == 0);
	return (vd_client_dma_map(w->m.c, 0x200000, PAGE, VD_DMA_READABLE,
	    fd, 0));
}

static int
do_reconnect(struct world *w)
{
	return (vd_client_reconnect(w->m.c, -1));
}

static void
lost_before(struct world *w)
{
	must(do_lost(w) == 0);
}

static void
all_before(struct world *w)
{
	must(do_lost(w) == 0);
	must(do_give(w) == 0);
	must(do_mirror(w) == 0);
}

static void
come_before(struct world *w)
{
	must(do_come(w) == 0);
}

/* Is the page of the small region shown as it has to be, or can be? */
static bool
pages_right(struct world *w)
{
	bool there = mt_region_parent(w->near) != NULL;
	const char *text = t_space_text(w->m.sp);

	if ((strstr(text, "10ff0-10fff near+0") != NULL) != there)
		return (false);
	must(vd_client_update_pages(w->m.c) == 0);
	text = t_space_text(w->m.sp);
	return (strncmp(text, there ? "10000-100ff bar4+0, " :
	    "10000-10fff bar4, mapped+0, ", 20) == 0);
}

/* Try it with its n-th allocation failing; false if it made fewer. */
static bool
try(const char *name, int (*call)(struct world *),
    void (*before)(struct world *), const struct m_options *o, long n,
    unsigned int *bad)
{
	struct world w = { 0 };
	const char *was;
	char old[T_TEXT];
	bool was_hit;
	int rv, error;

	m_start(&w.d, o);
	m_connect(&w.m, &w.d);
	m_add_bar(&w.m, 2, 0x20000, 0, 0);
	m_add_bar(&w.m, 4, 0x10000, 0, VD_CLIENT_WHOLE_PAGE);
	t_add(w.m.root, 0x100000, 0, t_ram(w.m.t, "ram", PAGE));
	w.near = t_reserved(w.m.t, "near", 16);
	must(vd_client_watch_pages(w.m.c, w.m.sp) == 0);
	if (before != NULL)
		before(&w);
	was = t_space_text(w.m.sp);
	memcpy(old, was, T_TEXT);
	hit = false;
	countdown = n;
	rv = call(&w);
	error = errno;
	countdown = 0;
	was_hit = hit;
	if (rv == -1) {
		/*
		 * What the connection cannot get ends it.  JSON that cannot be
		 * read for lack of memory looks like JSON that is none.
		 */
		if (error != ENOMEM && error != ENOTCONN &&
		    (error != EPROTO || call != do_reconnect)) {
			diag("%s, %ld: %s", name, n, strerror(error));
			++*bad;
		}
		if (strcmp(t_space_text(w.m.sp), old) != 0) {
			diag("%s, %ld: %s, was %s", name, n,
			    t_space_text(w.m.sp), old);
			++*bad;
		}
		if (!was_hit || ((vd_client_check(w.m.c) == 0 ||
		    call == do_reconnect) && call(&w) == -1)) {
			diag("%s, %ld: fails for ever", name, n);
			++*bad;
		}
	}
	/* Without memory a page of another server is not mapped at all. */
	if (call != do_hide && call != do_unwatch && call != do_reconnect &&
	    vd_client_check(w.m.c) == 0 && !pages_right(&w)) {
		diag("%s, %ld: %s", name, n, t_space_text(w.m.sp));
		++*bad;
	}
	mt_region_put(w.near);
	vd_client_dma_destroy(w.dma);
	mt_region_put(w.made);
	m_disconnect(&w.m, false);
	m_stop(&w.d);
	return (was_hit);
}

static void
test(const char *name, int (*call)(struct world *),
    void (*before)(struct world *), const struct m_options *o)
{
	unsigned int bad = 0;
	long n = 1;

	while (n < 500 && try(name, call, before, o, n, &bad))
		n++;
	ok(n > 1 && n < 500, "%s makes %ld allocations", name, n - 1);
	is_int(bad, 0, "with each of them failing nothing is left half done");
}

int
main(void)
{
	char dir[] = "/tmp/vfudma-oom.XXXXXX", path[64];
	const struct m_options o = { .bar0 = 8 * PAGE, .table = 3 * PAGE,
	    .vectors = 4, .small = true, .path = path };

	if (T_ASAN || T_TSAN)
		skip_all("a sanitizer has an allocator of its own");
	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/socket", dir);
	test("a region", do_create, NULL, &o);
	test("a small region", do_create_small, NULL, &o);
	test("hiding", do_hide, NULL, &o);
	test("a neighbour in a page", do_come, NULL, &o);
	test("its end", do_go, come_before, &o);
	test("an end of watching", do_unwatch, NULL, &o);
	test("a mirror", do_mirror, NULL, &o);
	test("who the device is", do_lost, NULL, &o);
	test("memory", do_give, lost_before, &o);
	test("another server", do_reconnect, all_before, &o);
	rmdir(dir);
	return (done());
}
