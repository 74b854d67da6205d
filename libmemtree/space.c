/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* The root of region, shared by all spaces on it: the caller adds one. */
static struct mt__root *
root_get(struct mt_topology *t, struct mt_region *region)
{
	struct mt__root *root;

	if (mt__region_rare(region) == -1)
		return (NULL);
	root = region->rare->root;
	if (root == NULL) {
		if ((root = calloc(1, sizeof(*root))) == NULL)
			return (NULL);
		if ((root->view = mt__view_alloc(t)) == NULL) {
			free(root);
			return (NULL);
		}
		root->region = mt_region_get(region);
		region->rare->root = root;
		TAILQ_INIT(&root->spaces);
		mt__waiting_shown(t, mt__view_bytes(root->view), 0);
		root->dirty.whole = true;
		mt__root_touch(root, 0, MT_LAST_MAX);
	}
	return (root);
}

static void
root_put(struct mt__root *root)
{
	if (!TAILQ_EMPTY(&root->spaces))
		return;
	if (root->is_dirty)
		LIST_REMOVE(root, entry);
	root->region->rare->root = NULL;
	free(root->dirty.ranges);
	mt__waiting_shown(root->region->topology, 0,
	    mt__view_bytes(root->view));
	mt__view_retire(root->view, NULL);
	mt_region_put(root->region);
	free(root);
}

/* For the count of what is in waiting. */
static size_t
size_of(const struct mt_space *sp)
{
	return (sizeof(*sp) + strlen(sp->name) + 1);
}

static void
free_space(struct mt_space *sp)
{
	mt__defer_fini(sp);
	mt__bounce_fini(sp);
	free(sp->name);
	free(sp);
}

static void
free_retired(struct mt__retired *retired)
{
	struct mt_space *sp = (struct mt_space *)(void *)retired;
	struct mt_topology *t = sp->topology;

	mt__waiting_sub(t, size_of(sp));
	free_space(sp);
	/* Pairs with the acquire in mt_topology_destroy(). */
	atomic_fetch_sub_explicit(&t->objects, 1, memory_order_release);
}

/* Out of its root, with the lock held; freed when all have left it. */
static void
take_out(struct mt_space *sp)
{
	struct mt_topology *t = sp->topology;

	TAILQ_REMOVE(&sp->root->spaces, sp, entry);
	root_put(sp->root);
	mt__waiting_add(t, size_of(sp));
	/* Not before a callback that was called through it has returned. */
	mt__retire_after_grace(t, &sp->retired, free_retired);
}

struct mt_space *
mt_space_create(struct mt_region *root, const char *name)
{
	struct mt_topology *t = root->topology;
	struct mt_space *sp;
	bool mine;
	int error;

	if ((sp = calloc(1, sizeof(*sp))) == NULL)
		return (NULL);
	sp->topology = t;
	if (mt__bounce_init(sp) == -1) {
		free(sp);
		return (NULL);
	}
	mt__defer_init(sp);
	if ((sp->name = strdup(name != NULL ? name : "")) == NULL ||
	    mt_topology_begin(t) == -1) {
		free_space(sp);
		return (NULL);
	}
	/* Only a first space on a root is something for the commit. */
	error = mt__waiting_full(t) ? EAGAIN : 0;
	if (error == 0 && (sp->root = root_get(t, root)) == NULL)
		error = ENOMEM;
	if (error != 0) {
		(void)mt_topology_commit(t);
		free_space(sp);
		errno = error;
		return (NULL);
	}
	atomic_init(&sp->view, sp->root->view);
	TAILQ_INSERT_TAIL(&sp->root->spaces, sp, entry);
	atomic_fetch_add_explicit(&t->objects, 1, memory_order_relaxed);
	if (mt_topology_commit(t) == -1) {
		error = errno;
		/* It is still ours while somebody settles. */
		mine = mt__topology_is_mine(t);
		if (!mine)
			pthread_mutex_lock(&t->lock);
		take_out(sp);
		if (!mine)
			pthread_mutex_unlock(&t->lock);
		errno = error;
		return (NULL);
	}
	return (sp);
}

int
mt_space_destroy(struct mt_space *sp)
{
	struct mt_topology *t = sp->topology;

	if (mt__topology_is_mine(t)) {
		errno = t->notifying ? EDEADLK : EBUSY;
		return (-1);
	}
	pthread_mutex_lock(&t->lock);
	if (sp->listeners != NULL || !mt__bounce_idle(sp) ||
	    !mt__defer_idle(sp) ||
	    atomic_load_explicit(&sp->ncaches, memory_order_acquire) != 0) {
		pthread_mutex_unlock(&t->lock);
		errno = EBUSY;
		return (-1);
	}
	take_out(sp);
	pthread_mutex_unlock(&t->lock);
	return (0);
}

const char *
mt_space_name(const struct mt_space *sp)
{
	return (sp->name);
}

struct mt_region *
mt_space_root(const struct mt_space *sp)
{
	return (sp->root->region);
}

struct mt_topology *
mt_space_topology(const struct mt_space *sp)
{
	return (sp->topology);
}

struct mt_view *
mt_space_view(struct mt_space *sp)
{
	struct mt_view *v;

	/*
	 * The reference that the root holds is put after a grace period, so
	 * inside the section the count is at least one.
	 */
	mt__read_begin(sp->topology);
	v = mt_view_get(mt__space_view(sp));
	mt__read_end(sp->topology);
	return (v);
}

int
mt_space_find(struct mt_space *sp, struct mt_range range,
    struct mt_section *sec)
{
	const struct mt__span *span;
	int error = ENOENT;

	if (range.first > range.last) {
		errno = EINVAL;
		return (-1);
	}
	mt__read_begin(sp->topology);
	span = mt__view_search(mt__space_view(sp), range.first);
	if (span != NULL && span->range.first <= range.last) {
		mt__section_of(span, sec);
		if (sec->range.first < range.first) {
			sec->off += range.first - sec->range.first;
			sec->range.first = range.first;
		}
		if (sec->range.last > range.last)
			sec->range.last = range.last;
		mt_region_get(sec->region);
		error = 0;
	}
	mt__read_end(sp->topology);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}
