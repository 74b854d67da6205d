/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>

#include <bsd/stdlib.h>

#include "internal.h"

/*
 * What a region was before the first change in the transaction; one for each
 * region that was changed, so that to change it back needs no memory.  To
 * restore all of them gives the tree back as it was.
 */
struct mt__undo {
	SLIST_ENTRY(mt__undo) entry;
	struct mt_region *region;	/* counted */
	struct mt_region *parent;	/* counted; NULL: none, or it is dying */
	struct mt__state state;
};

/* Of an array that is used again and again, as many are kept. */
#define KEEP	1024

static uintptr_t
self(void)
{
	return ((uintptr_t)pthread_self());
}

/*
 * Relaxed is enough: only this thread can have stored its own identity, and
 * it sees its own stores.
 */
bool
mt__topology_is_mine(struct mt_topology *t)
{
	return (atomic_load_explicit(&t->owner, memory_order_relaxed) ==
	    self());
}

struct mt_topology *
mt_topology_create(void)
{
	struct mt_topology *t;
	int error;

	if ((t = calloc(1, sizeof(*t))) == NULL)
		return (NULL);
	pthread_mutex_init(&t->lock, NULL);
	pthread_mutex_init(&t->views_lock, NULL);
	mt__pinning_init(&t->pinning);
	LIST_INIT(&t->dirty_roots);
	SLIST_INIT(&t->undo);
	SLIST_INIT(&t->resized);
	if ((error = mt__reclaim_init(t)) != 0) {
		mt__pinning_fini(&t->pinning);
		pthread_mutex_destroy(&t->views_lock);
		pthread_mutex_destroy(&t->lock);
		free(t);
		errno = error;
		return (NULL);
	}
	return (t);
}

int
mt_topology_destroy(struct mt_topology *t)
{
	if (mt__topology_is_mine(t)) {
		errno = t->notifying ? EDEADLK : EBUSY;
		return (-1);
	}
	if (mt_topology_sync(t) == -1)
		return (-1);
	if (atomic_load_explicit(&t->objects, memory_order_acquire) != 0) {
		errno = EBUSY;
		return (-1);
	}
	mt__reclaim_fini(t);
	mt__pinning_fini(&t->pinning);
	pthread_mutex_destroy(&t->views_lock);
	pthread_mutex_destroy(&t->lock);
	free(t->scratch);
	free(t->frames);
	free(t);
	return (0);
}

int
mt_topology_sync(struct mt_topology *t)
{
	if (mt__topology_is_mine(t) || mt__reading() ||
	    mt__reclaim_is_self(t)) {
		errno = EDEADLK;
		return (-1);
	}
	mt__reclaim_wait(t);
	return (0);
}

int
mt_topology_begin(struct mt_topology *t)
{
	if (mt__topology_is_mine(t)) {
		if (t->notifying) {
			errno = EDEADLK;
			return (-1);
		}
	} else {
		pthread_mutex_lock(&t->lock);
		atomic_store_explicit(&t->owner, self(), memory_order_relaxed);
	}
	/* Who settles has the lock, and begins anew. */
	if (t->depth++ == 0)
		t->had_room = false;
	return (0);
}

int
mt__topology_log(struct mt_topology *t, struct mt_region *r)
{
	struct mt__undo *u;

	if (r->logged)
		return (0);
	if ((u = malloc(sizeof(*u))) == NULL)
		return (-1);
	r->logged = true;
	u->region = mt_region_get(r);
	u->parent = mt__region_get_alive(r->state.parent);
	u->state = r->state;
	mt__extras_get(u->state.extras);
	SLIST_INSERT_HEAD(&t->undo, u, entry);
	return (0);
}

/* Is to be told already, because of a commit before this one: now of last. */
static bool
is_kept(struct mt_topology *t, const struct mt_region *r, mt_addr last)
{
	struct mt__undo *u;

	if (!t->settling)
		return (false);
	SLIST_FOREACH(u, &t->resized, entry)
		if (u->region == r) {
			u->state.last = last;
			return (true);
		}
	return (false);
}

/*
 * Of what has been logged keep the entries, with the size that they have now,
 * of regions that have another one than before, and have somebody who asked.
 * So who is to be told after the commit is known without an allocation.
 */
static void
keep_resized(struct mt_topology *t)
{
	struct mt__undos all = t->undo;
	struct mt__undo *u;
	struct mt_region *r;

	SLIST_INIT(&t->undo);
	while ((u = SLIST_FIRST(&all)) != NULL) {
		SLIST_REMOVE_HEAD(&all, entry);
		r = u->region;
		if (r->rare != NULL && r->rare->resized != NULL &&
		    r->state.last != u->state.last &&
		    !is_kept(t, r, r->state.last)) {
			r->logged = false;
			u->state.last = r->state.last;
			SLIST_INSERT_HEAD(&t->resized, u, entry);
		} else
			SLIST_INSERT_HEAD(&t->undo, u, entry);
	}
}

/* Tell them, with no lock held. */
static void
tell_resized(struct mt__undos *resized)
{
	const struct mt__rare *rare;
	struct mt__undo *u;

	while ((u = SLIST_FIRST(resized)) != NULL) {
		SLIST_REMOVE_HEAD(resized, entry);
		rare = u->region->rare;
		rare->resized(rare->resized_arg, u->region, u->state.last);
		mt__extras_put(u->state.extras);
		mt_region_put(u->parent);
		mt_region_put(u->region);
		free(u);
	}
}

static void
drop_undo(struct mt_topology *t, bool restore)
{
	struct mt__undo *u;

	while ((u = SLIST_FIRST(&t->undo)) != NULL) {
		SLIST_REMOVE_HEAD(&t->undo, entry);
		u->region->logged = false;
		/*
		 * A parent without references is about to let its children
		 * go; one that it has lost already it does not get back.
		 */
		if (u->parent == NULL &&
		    u->region->state.parent != u->state.parent)
			u->state.parent = NULL;
		if (restore)
			mt__region_apply(u->region, &u->state);
		mt__extras_put(u->state.extras);
		mt_region_put(u->parent);
		mt_region_put(u->region);
		free(u);
	}
}

/* --- what has to be looked at -------------------------------------------- */

void
mt__root_touch(struct mt__root *root, mt_addr first, mt_addr last)
{
	struct mt__dirty *d = &root->dirty;
	struct mt_range *ranges;
	size_t room;

	if (!root->is_dirty) {
		LIST_INSERT_HEAD(&root->region->topology->dirty_roots, root,
		    entry);
		root->is_dirty = true;
	}
	if (d->whole)
		return;
	/* A series of changes side by side is one range. */
	if (d->n != 0 && first >= d->ranges[d->n - 1].first &&
	    (d->ranges[d->n - 1].last == MT_LAST_MAX ||
	    first <= d->ranges[d->n - 1].last + 1)) {
		if (last > d->ranges[d->n - 1].last)
			d->ranges[d->n - 1].last = last;
		return;
	}
	if (d->n == d->room) {
		room = d->room * 2 + 8;
		ranges = reallocarray(d->ranges, room, sizeof(*ranges));
		if (ranges == NULL) {
			/* More work, but no failure. */
			d->whole = true;
			return;
		}
		d->ranges = ranges;
		d->room = room;
	}
	d->ranges[d->n].first = first;
	d->ranges[d->n++].last = last;
}

/* Have the aliases of what a region is to others told of [first, last] of it. */
static void
touch_aliases(struct mt__rare *target, mt_addr first, mt_addr last,
    struct mt__rare **todo)
{
	struct mt__rare *alias;
	mt_addr off;

	LIST_FOREACH(alias, &target->aliases, alias) {
		off = alias->region->state.alias_off;
		if (last < off)
			continue;
		alias->touched.first = first > off ? first - off : 0;
		alias->touched.last = last - off;
		alias->todo = *todo;
		*todo = alias;
	}
}

/* The spaces on a region and its parents; aliases of these are left to do. */
static void
touch_up(struct mt_region *r, mt_addr first, mt_addr last,
    struct mt__rare **todo)
{
	const struct mt__state *s;

	for (;; r = s->parent) {
		s = &r->state;
		if (!s->enabled || first > s->last)
			return;
		if (last > s->last)
			last = s->last;
		if (r->rare != NULL) {
			if (r->rare->root != NULL)
				mt__root_touch(r->rare->root, first, last);
			touch_aliases(r->rare, first, last, todo);
		}
		if (s->parent == NULL || first > MT_LAST_MAX - s->addr)
			return;
		first += s->addr;
		last = last > MT_LAST_MAX - s->addr ? MT_LAST_MAX :
		    last + s->addr;
	}
}

/*
 * Up from a region to all who show it: the spaces on it, the aliases of it,
 * its parent, clipped on the way.  What is disabled shows nothing.
 *
 * The last alias found is the next one to go on from.  So what is left to do
 * are aliases of the regions on the way to here.  To get to one of them again,
 * while it waits, would mean to get to its target again, which is below here:
 * but nothing contains itself.  One place in each is enough.
 */
void
mt__touch(struct mt_region *r, mt_addr first, mt_addr last)
{
	struct mt__rare *todo = NULL, *alias;

	touch_up(r, first, last, &todo);
	while ((alias = todo) != NULL) {
		todo = alias->todo;
		touch_up(alias->region, alias->touched.first,
		    alias->touched.last, &todo);
	}
}

static int
by_first(const void *pa, const void *pb)
{
	const struct mt_range *a = pa, *b = pb;

	return (a->first < b->first ? -1 : a->first > b->first);
}

/* Sort ranges, and make one of those that touch. */
static void
tidy(struct mt__dirty *d)
{
	size_t i, n = 0;

	if (d->n > 1)
		qsort(d->ranges, d->n, sizeof(*d->ranges), by_first);
	for (i = 1; i < d->n; i++) {
		if (d->ranges[n].last == MT_LAST_MAX ||
		    d->ranges[i].first <= d->ranges[n].last + 1) {
			if (d->ranges[i].last > d->ranges[n].last)
				d->ranges[n].last = d->ranges[i].last;
		} else
			d->ranges[++n] = d->ranges[i];
	}
	if (d->n != 0)
		d->n = n + 1;
}

bool
mt__root_touched(struct mt__root *root,
    bool (*fn)(void *, const struct mt__span *), void *arg)
{
	static const struct mt_range all = { 0, MT_LAST_MAX };
	const struct mt__dirty *d = &root->dirty;
	const struct mt_range *range = d->whole ? &all : d->ranges;
	size_t n = d->whole ? 1 : d->n;
	const struct mt__span *span;
	mt_addr addr = 0;

	/* The ranges are in order; a span may reach into several. */
	for (; n > 0; n--, range++) {
		if (addr < range->first)
			addr = range->first;
		while (addr <= range->last) {
			span = mt__view_search(root->view, addr);
			if (span == NULL || span->range.first > range->last)
				break;
			if (fn(arg, span))
				return (true);
			if (span->range.last == MT_LAST_MAX)
				return (false);
			addr = span->range.last + 1;
		}
	}
	return (false);
}

/* Nothing of a root is left to be looked at. */
static void
clean(struct mt__root *root)
{
	LIST_REMOVE(root, entry);
	root->is_dirty = false;
	root->dirty.n = 0;
	root->dirty.whole = false;
	if (root->dirty.room > KEEP) {
		free(root->dirty.ranges);
		root->dirty.ranges = NULL;
		root->dirty.room = 0;
	}
}

/* What walks have used, once none is under way. */
static void
shrink(struct mt_topology *t)
{
	if (t->scratch_room > KEEP) {
		free(t->scratch);
		t->scratch = NULL;
		t->scratch_room = 0;
	}
	if (t->frames_room > KEEP) {
		free(t->frames);
		t->frames = NULL;
		t->frames_room = 0;
	}
}

/* --- building ------------------------------------------------------------ */

static int
build(struct mt__root *root, uint64_t number)
{
	struct mt__dirty *d = &root->dirty;
	struct mt__build *b = &root->build;
	size_t i;
	int ret = 0;

	mt__build_begin(b, number, root->view);
	tidy(d);
	if (d->whole)
		ret = mt__render(b, root->region, 0, MT_LAST_MAX);
	for (i = 0; i < d->n && !d->whole && ret == 0; i++)
		ret = mt__render(b, root->region, d->ranges[i].first,
		    d->ranges[i].last);
	if (ret == 0 &&
	    (!TAILQ_EMPTY(&b->adds) || !TAILQ_EMPTY(&b->dels))) {
		root->next_view = mt__view_alloc(root->region->topology);
		if (root->next_view == NULL)
			ret = -1;
		else {
			root->next_view->build = number;
			root->next_view->top = b->top;
			root->next_view->count = b->count;
			root->next_view->bytes = b->bytes;
		}
	}
	/* All may look as before, and still have been taken apart and built. */
	if (root->next_view == NULL)
		mt__build_abort(b);
	return (ret);
}

/* Make the next view of every root that is dirty, or none. */
static int
build_all(struct mt_topology *t)
{
	struct mt__root *root, *failed;

	t->builds++;
	LIST_FOREACH(root, &t->dirty_roots, entry)
		if (build(root, t->builds) == -1)
			break;
	if ((failed = root) == NULL)
		return (0);
	LIST_FOREACH(root, &t->dirty_roots, entry) {
		if (root == failed)
			break;
		if (root->next_view == NULL)
			continue;
		mt__build_abort(&root->build);
		mt__view_discard(root->next_view);
		root->next_view = NULL;
	}
	errno = ENOMEM;
	return (-1);
}

static void
publish(struct mt_topology *t)
{
	struct mt__root *root, *next;
	size_t added = 0, gone = 0;
	struct mt_space *sp;
	struct mt_view *old;

	LIST_FOREACH(root, &t->dirty_roots, entry) {
		if (root->next_view == NULL)
			continue;
		old = root->view;
		added += mt__view_bytes(root->next_view);
		gone += mt__view_bytes(old);
		mt__view_link(old, root->next_view);
		root->view = root->next_view;
		TAILQ_FOREACH(sp, &root->spaces, entry)
			/* Pairs with the acquire in mt__space_view(). */
			atomic_store_explicit(&sp->view, root->view,
			    memory_order_release);
		root->next_view = old;		/* for the loop below */
	}
	mt__waiting_shown(t, added, gone);
	t->notifying = true;
	LIST_FOREACH(root, &t->dirty_roots, entry)
		if (root->next_view != NULL || t->relogged)
			TAILQ_FOREACH(sp, &root->spaces, entry)
				mt__listener_notify(sp, root);
	t->notifying = false;
	for (root = LIST_FIRST(&t->dirty_roots); root != NULL; root = next) {
		next = LIST_NEXT(root, entry);
		if ((old = root->next_view) != NULL) {
			root->next_view = NULL;
			mt__view_retire(old, &root->build);
		}
		clean(root);
	}
}

/*
 * After a rollback views are right as they are, but for spaces that are new:
 * they stay to be made by the next commit.
 */
static void
forget(struct mt_topology *t)
{
	struct mt__root *root, *next;

	for (root = LIST_FIRST(&t->dirty_roots); root != NULL; root = next) {
		next = LIST_NEXT(root, entry);
		if (!root->dirty.whole)
			clean(root);
	}
}

struct shown {
	const struct mt_region *region;
	struct mt__root *root;
	bool (*fn)(void *, struct mt__root *, const struct mt__span *);
	void *arg;
};

static bool
show(void *arg, const struct mt__span *span)
{
	struct shown *s = arg;

	return (span->region == s->region && s->fn(s->arg, s->root, span));
}

void
mt__shown(struct mt_region *r, mt_addr first, mt_addr last,
    bool (*fn)(void *, struct mt__root *, const struct mt__span *), void *arg)
{
	struct mt_topology *t = r->topology;
	struct shown s = { .region = r, .fn = fn, .arg = arg };

	mt__touch(r, first, last);
	LIST_FOREACH(s.root, &t->dirty_roots, entry) {
		tidy(&s.root->dirty);
		if (mt__root_touched(s.root, show, &s))
			break;
	}
	forget(t);
}

/* Make and publish what the transaction has changed, or take it back. */
static int
finish(struct mt_topology *t)
{
	struct mt__undo *u;
	int error = 0;

	if (!LIST_EMPTY(&t->dirty_roots)) {
		if (mt__waiting_full(t) && !t->had_room)
			error = EAGAIN;
		else if (build_all(t) == -1)
			error = errno;
		else
			publish(t);
	}
	if (t->relogged && error == 0)
		SLIST_FOREACH(u, &t->undo, entry)
			mt__dirty_commit(u->region);
	t->relogged = false;
	if (error == 0)
		keep_resized(t);
	drop_undo(t, error != 0);
	if (error != 0)
		forget(t);
	shrink(t);
	t->depth = 0;
	return (error);
}

int
mt_topology_commit(struct mt_topology *t)
{
	struct mt__undos resized;
	int error;

	if (!mt__topology_is_mine(t) || t->notifying || t->depth == 0) {
		errno = EPERM;
		return (-1);
	}
	if (t->depth > 1) {
		t->depth--;
		return (0);
	}
	if ((error = finish(t)) != 0)
		errno = error;
	/* Of a change by who settles, all the rest is left to who commits. */
	if (t->settling)
		return (error == 0 ? 0 : -1);
	/* Who came inside of this has been told something in any case. */
	mt__listener_settle(t);
	resized = t->resized;
	SLIST_INIT(&t->resized);
	atomic_store_explicit(&t->owner, 0, memory_order_relaxed);
	pthread_mutex_unlock(&t->lock);
	tell_resized(&resized);
	if (error == 0)
		return (0);
	errno = error;
	return (-1);
}
