/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/*
 * What a region was before the first change in the transaction that logged
 * it.  Restoring the entries newest first gives the tree back as it was.
 */
struct mt__undo {
	SLIST_ENTRY(mt__undo) entry;
	struct mt_region *region;	/* counted */
	struct mt_region *parent;	/* counted: state.parent, or NULL */
	struct mt__state state;
};

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
	LIST_INIT(&t->roots);
	TAILQ_INIT(&t->spaces);
	SLIST_INIT(&t->undo);
	if ((error = mt__reclaim_init(t)) != 0) {
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
	if (!TAILQ_EMPTY(&t->spaces) ||
	    atomic_load_explicit(&t->objects, memory_order_acquire) != 0) {
		errno = EBUSY;
		return (-1);
	}
	mt__reclaim_fini(t);
	pthread_mutex_destroy(&t->lock);
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
		t->depth++;
		return (0);
	}
	pthread_mutex_lock(&t->lock);
	atomic_store_explicit(&t->owner, self(), memory_order_relaxed);
	t->depth = 1;
	return (0);
}

int
mt__topology_log(struct mt_topology *t, struct mt_region *r)
{
	struct mt__undo *u;

	if ((u = malloc(sizeof(*u))) == NULL)
		return (-1);
	u->region = mt_region_get(r);
	u->parent = mt_region_get(r->state.parent);
	u->state = r->state;
	SLIST_INSERT_HEAD(&t->undo, u, entry);
	return (0);
}

static void
drop_undo(struct mt_topology *t, bool restore)
{
	struct mt__undo *u;

	while ((u = SLIST_FIRST(&t->undo)) != NULL) {
		SLIST_REMOVE_HEAD(&t->undo, entry);
		if (restore)
			mt__region_apply(u->region, &u->state);
		mt_region_put(u->parent);
		mt_region_put(u->region);
		free(u);
	}
}

/* Make the next view of every root, or none. */
static int
render_all(struct mt_topology *t)
{
	struct mt__root *root;

	LIST_FOREACH(root, &t->roots, entry) {
		root->next_view = mt__render(root->region);
		if (root->next_view == NULL)
			goto fail;
		if (mt__view_equal(root->view, root->next_view)) {
			mt_view_put(root->next_view);
			root->next_view = NULL;
		}
	}
	return (0);
fail:
	LIST_FOREACH(root, &t->roots, entry) {
		mt_view_put(root->next_view);
		root->next_view = NULL;
	}
	errno = ENOMEM;
	return (-1);
}

static void
publish(struct mt_topology *t)
{
	struct mt_space *sp;
	struct mt__root *root;
	struct mt_view *old;

	TAILQ_FOREACH(sp, &t->spaces, entry)
		if (sp->root->next_view != NULL)
			/* Pairs with the acquire in mt__space_view(). */
			atomic_store_explicit(&sp->view, sp->root->next_view,
			    memory_order_release);
	t->notifying = true;
	TAILQ_FOREACH(sp, &t->spaces, entry)
		if (sp->root->next_view != NULL)
			mt__listener_notify(sp, sp->root->view,
			    sp->root->next_view);
	t->notifying = false;
	LIST_FOREACH(root, &t->roots, entry)
		if (root->next_view != NULL) {
			old = root->view;
			root->view = root->next_view;
			root->next_view = NULL;
			mt__view_retire(old);
		}
}

int
mt_topology_commit(struct mt_topology *t)
{
	int error = 0;

	if (!mt__topology_is_mine(t) || t->notifying) {
		errno = EPERM;
		return (-1);
	}
	if (t->depth > 1) {
		t->depth--;
		return (0);
	}
	if (t->dirty) {
		if (render_all(t) == -1)
			/* Views stay; dirty stays for what was so before. */
			error = errno;
		else {
			t->dirty = false;
			publish(t);
		}
	}
	drop_undo(t, error != 0);
	t->depth = 0;
	atomic_store_explicit(&t->owner, 0, memory_order_relaxed);
	pthread_mutex_unlock(&t->lock);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}
