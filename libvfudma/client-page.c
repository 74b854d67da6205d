/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Regions of a device that are smaller than a page.  What is mapped of them is
 * a page of the server's, and a processor's page tables know no less.  So they
 * are mapped while what a space shows leaves them their page.
 *
 *	page		RAM, all of the page; in no tree itself
 *	front		its first bytes, in the region's container, before io
 *	back		the others, in the space's root, behind everything
 *
 * front is no larger than the region, so it is right wherever it is shown,
 * and what is around it, too.  back makes a whole page of it in the view,
 * where the two continue each other; as it is behind what comes into the page
 * (if that has not INT_MIN for a priority itself) it hides nothing before
 * somebody has looked.
 */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

/* What is watched: vd_client.pages, under [t] and regions_lock. */
struct vd__pages {
	struct mt_listener l;
	struct vd_client *client;
	struct mt_space *sp;
};

static uint64_t
page_size(void)
{
	return ((uint64_t)sysconf(_SC_PAGESIZE));
}

/* --- what the space shows ------------------------------------------------ */

/* Before and after another server's page takes the place of the old one. */
static bool
ours(const struct vd__region *r, const struct mt_section *sec)
{
	return (sec->region == r->io || (sec->region != NULL &&
	    (sec->region == r->direct.page || sec->region == r->fresh.page)));
}

/* A section has come or gone. */
static void
told(struct vd__pages *p, const struct mt_section *sec, int by)
{
	struct vd_client *c = p->client;
	uint64_t page = page_size();
	struct vd__region *r;

	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL; r = r->next) {
		if (r->size >= page)
			continue;
		if (r->seen == 1 && sec->range.first <= (r->at | (page - 1)) &&
		    sec->range.last >= r->at)
			r->touched = true;
		if (!ours(r, sec))
			continue;
		r->touched = true;
		if (sec->off != 0)
			continue;
		r->seen += (unsigned int)by;
		/* Sums may wrap; when one place is left it is that. */
		r->at += by > 0 ? sec->range.first : -sec->range.first;
	}
	pthread_mutex_unlock(&c->regions_lock);
}

static void
told_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)sp;
	told(arg, sec, 1);
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	(void)sp;
	told(arg, sec, -1);
}

/* Is there nothing but r in its page? */
static bool
is_alone(struct vd__pages *p, const struct vd__region *r)
{
	uint64_t page = page_size();
	struct mt_section sec;
	struct mt_view *v;
	bool alone = true;
	mt_addr at;

	if (r->seen != 1 || r->at % page != 0)
		return (false);
	v = mt_space_view(p->sp);
	for (at = r->at; alone && mt_view_next(v, at, &sec) &&
	    sec.range.first <= r->at + (page - 1); at = sec.range.last + 1) {
		alone = ours(r, &sec) && sec.range.first - sec.off == r->at;
		if (sec.range.last >= r->at + (page - 1))
			break;
	}
	mt_view_put(v);
	return (alone);
}

/* Its page was shown alone at the last commit: to be acted upon. */
static void
look(struct vd__pages *p)
{
	struct vd_client *c = p->client;
	struct vd__region *r;

	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL; r = r->next) {
		if (r->touched)
			r->alone = is_alone(p, r);
		r->touched = false;
	}
	pthread_mutex_unlock(&c->regions_lock);
}

/* --- doing something about it -------------------------------------------- */

static bool
is_in(const struct mt_region *region)
{
	return (region != NULL && mt_region_parent(region) != NULL);
}

/*
 * Front and back as they are to be, of the page that is in the tree.  If there is no memory for one of them the
 * other is right all the same, as back is the last to come and the first to go.
 */
static int
show(struct mt_region *root, const struct vd__region *r, bool on)
{
	const struct vd__direct *d = is_in(r->fresh.front) ? &r->fresh :
	    &r->direct;
	mt_addr behind = r->at + r->size;
	bool whole, there;

	if (d->page == NULL)
		return (0);
	on = on && is_in(d->front);
	/* What is added to anything else is in front of what it shows. */
	whole = on && (r->flags & VD_CLIENT_WHOLE_PAGE) != 0 &&
	    mt_region_kind(root) == MT_CONTAINER;
	there = is_in(d->back);
	if (there && (!whole || mt_region_addr(d->back) != behind)) {
		if (mt_region_del(d->back) == -1)
			return (-1);
		there = false;
	}
	if (mt_region_enabled(d->front) != on &&
	    mt_region_set_enabled(d->front, on) == -1)
		return (-1);
	if (!whole || there)
		return (0);
	return (mt_region_add(root, d->back, behind, INT_MIN));
}

int
vd__client_show_pages(struct vd_client *c, bool direct)
{
	struct vd__pages *p = c->pages;
	struct vd__region *r;

	if (p == NULL)
		return (0);
	for (r = c->regions; r != NULL; r = r->next)
		if (show(mt_space_root(p->sp), r, r->alone && direct) == -1)
			return (-1);
	return (0);
}

/* Begin a transaction of c's topology, with what is watched: or -1. */
static int
begin(struct vd_client *c, struct vd__pages **p)
{
	struct mt_topology *t;

	*p = NULL;
	pthread_mutex_lock(&c->regions_lock);
	/* Where nobody watches the topology may have gone. */
	t = c->pages != NULL ? c->topology : NULL;
	pthread_mutex_unlock(&c->regions_lock);
	if (t != NULL) {
		if (mt_topology_begin(t) == -1)
			return (-1);
		if ((*p = c->pages) != NULL)
			return (0);
		(void)mt_topology_commit(t);
	}
	errno = ENOENT;
	return (-1);
}

/* End it; rv and errno tell what became of it so far. */
static int
commit(struct vd_client *c, int rv)
{
	int saved = errno;

	if (mt_topology_commit(c->topology) == -1 && rv == 0) {
		saved = errno;
		rv = -1;
	}
	errno = saved;
	return (rv);
}

int
vd_client_update_pages(struct vd_client *c)
{
	struct vd__pages *p;
	int rv, saved;

	if (begin(c, &p) == -1)
		return (-1);
	pthread_mutex_lock(&c->regions_lock);
	rv = vd__client_show_pages(c, c->direct);
	saved = errno;
	pthread_mutex_unlock(&c->regions_lock);
	errno = saved;
	return (commit(c, rv));
}

/* What cannot be done is tried again behind the next commit, or on demand. */
static void
settle(void *arg, struct mt_space *sp)
{
	struct vd__pages *p = arg;

	(void)sp;
	look(p);
	(void)vd_client_update_pages(p->client);
}

/* --- watching ------------------------------------------------------------ */

static void
set_pages(struct vd_client *c, struct vd__pages *p)
{
	pthread_mutex_lock(&c->regions_lock);
	c->pages = p;
	pthread_mutex_unlock(&c->regions_lock);
}

/* In a transaction; only a listener could not register. */
static int
watch(struct vd_client *c, struct vd__pages *p)
{
	if (c->pages != NULL) {
		errno = EBUSY;
		return (-1);
	}
	set_pages(c, p);
	if (mt_listener_register(p->sp, &p->l) == 0)
		return (0);
	set_pages(c, NULL);
	return (-1);
}

int
vd_client_watch_pages(struct vd_client *c, struct mt_space *sp)
{
	struct mt_topology *t = mt_space_topology(sp);
	struct vd__pages *p;
	int rv, saved;

	if (vd__client_set_topology(c, t) == -1 ||
	    (p = calloc(1, sizeof(*p))) == NULL)
		return (-1);
	p->l = (struct mt_listener){ .arg = p, .add = told_add,
	    .del = told_del, .settle = settle };
	p->client = c;
	p->sp = sp;
	if (mt_topology_begin(t) == -1) {
		free(p);
		return (-1);
	}
	if ((rv = watch(c, p)) == -1) {
		saved = errno;
		free(p);
		errno = saved;
	}
	/* Of others' leftovers, if of anything, it can fail. */
	(void)commit(c, rv);
	return (rv);
}

/* Watch no more, with all hidden; or as far as it can be, if in any case. */
static int
unwatch(struct vd_client *c, bool in_any_case)
{
	struct vd__pages *p;
	int rv, saved;
	bool ended;

	if (begin(c, &p) == -1)
		return (-1);
	pthread_mutex_lock(&c->regions_lock);
	rv = vd__client_show_pages(c, false);
	saved = errno;
	if (rv == -1)
		(void)vd__client_show_pages(c, c->direct);
	pthread_mutex_unlock(&c->regions_lock);
	ended = rv == 0 || in_any_case;
	if (ended) {
		(void)mt_listener_unregister(&p->l);
		set_pages(c, NULL);
	}
	errno = saved;
	rv = commit(c, rv);
	saved = errno;
	if (rv == -1 && ended && !in_any_case &&
	    mt_topology_begin(c->topology) == 0) {
		/* All is shown as before, so go on; if nobody else does. */
		ended = watch(c, p) == -1;
		(void)mt_topology_commit(c->topology);
	}
	if (ended)
		free(p);
	errno = saved;
	return (rv);
}

int
vd_client_unwatch_pages(struct vd_client *c)
{
	return (unwatch(c, false));
}

void
vd__client_end_pages(struct vd_client *c)
{
	(void)unwatch(c, true);
}
