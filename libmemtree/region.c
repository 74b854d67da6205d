/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/*
 * The writer lock for a moment, and not as a transaction, so that it can be
 * had in a listener; returns whether it was taken, or is this thread's already.
 */
static bool
lock_tree(struct mt_topology *t)
{
	if (mt__topology_is_mine(t))
		return (false);
	pthread_mutex_lock(&t->lock);
	return (true);
}

static void
unlock_tree(struct mt_topology *t, bool taken)
{
	if (taken)
		pthread_mutex_unlock(&t->lock);
}

static struct mt_region *
create(struct mt_topology *t, enum mt_kind kind, const char *name,
    mt_addr last)
{
	size_t len = name != NULL ? strlen(name) : 0;
	struct mt_region *r;

	if ((r = calloc(1, sizeof(*r) + len + 1)) == NULL)
		return (NULL);
	if (len > 0)
		memcpy(r->name, name, len);
	r->topology = t;
	atomic_init(&r->refs, 1);
	r->kind = kind;
	r->max_last = MT_LAST_MAX;
	r->state.last = last;
	r->state.enabled = true;
	r->state.readonly = kind == MT_ROM;
	r->state.rom_mode = kind == MT_ROM_DEVICE;
	RB_INIT(&r->children);
	atomic_fetch_add_explicit(&t->objects, 1, memory_order_relaxed);
	return (r);
}

/* Undo create() for a region that nobody has seen. */
static void
discard(struct mt_region *r)
{
	int saved_errno = errno;

	atomic_fetch_sub_explicit(&r->topology->objects, 1,
	    memory_order_relaxed);
	free(r->rare);
	free(r);
	errno = saved_errno;
}

int
mt__region_rare(struct mt_region *r)
{
	struct mt__rare *rare;

	if (r->rare != NULL)
		return (0);
	if ((rare = calloc(1, sizeof(*rare))) == NULL)
		return (-1);
	rare->region = r;
	LIST_INIT(&rare->aliases);
	r->rare = rare;
	return (0);
}

struct mt_region *
mt_region_create_container(struct mt_topology *t, const char *name,
    mt_addr last)
{
	return (create(t, MT_CONTAINER, name, last));
}

struct mt_region *
mt_region_create_reserved(struct mt_topology *t, const char *name,
    mt_addr last)
{
	return (create(t, MT_RESERVED, name, last));
}

struct mt_region *
mt_region_create_alias(struct mt_topology *t, const char *name,
    struct mt_region *target, mt_addr off, mt_addr last)
{
	struct mt_region *r;
	bool taken, done = false;

	if (target->topology != t) {
		errno = EXDEV;
		return (NULL);
	}
	if ((r = create(t, MT_ALIAS, name, last)) == NULL)
		return (NULL);
	r->state.alias_off = off;
	taken = lock_tree(t);
	if (mt__region_rare(r) == 0 && mt__region_rare(target) == 0) {
		r->rare->target = mt_region_get(target);
		LIST_INSERT_HEAD(&target->rare->aliases, r->rare, alias);
		done = true;
	}
	unlock_tree(t, taken);
	if (done)
		return (r);
	discard(r);
	return (NULL);
}

static bool
width_ok(const struct mt_width *w)
{
	if (w->min > 8 || (w->min & (w->min - 1)) != 0)
		return (false);
	if (w->max > 8 || (w->max & (w->max - 1)) != 0)
		return (false);
	return (w->max == 0 || w->min <= w->max);
}

static bool
ops_ok(const struct mt_io_ops *ops)
{
	return (ops != NULL && width_ok(&ops->valid) && width_ok(&ops->impl) &&
	    (ops->endian == MT_LITTLE || ops->endian == MT_BIG ||
	    ops->endian == MT_HOST));
}

/*
 * The sizes of aligned accesses that are one call of a device's and no more:
 * it accepts them, and implements them as they are.
 */
static uint8_t
whole_sizes(const struct mt_io_ops *ops, bool has_callback)
{
	unsigned int size, sizes = 0;
	unsigned int max = ops->impl.max != 0 ? ops->impl.max : 4;

	if (!has_callback || ops->accepts != NULL || ops->qemu_exact)
		return (0);
	for (size = 1; size <= 8; size *= 2)
		if (size >= ops->valid.min && size >= ops->impl.min &&
		    size <= (ops->valid.max != 0 ? ops->valid.max : 4) &&
		    size <= max)
			sizes |= size;
	return ((uint8_t)sizes);
}

static struct mt_region *
create_ram(struct mt_topology *t, enum mt_kind kind, const char *name,
    mt_addr last, const struct mt_backing *backing,
    const struct mt_io_ops *ops, void *arg)
{
	struct mt_region *r;

	if ((r = create(t, kind, name, last)) == NULL)
		return (NULL);
	r->ops = ops;
	r->arg = arg;
	if (mt__ram_init(r, backing) == -1) {
		discard(r);
		return (NULL);
	}
	/* Others are never lent in place. */
	if (kind != MT_RAM_DEVICE && mt__pins_init(r) == -1) {
		mt__ram_fini(r);
		discard(r);
		return (NULL);
	}
	return (r);
}

struct mt_region *
mt_region_create_ram(struct mt_topology *t, const char *name, mt_addr last,
    const struct mt_backing *backing)
{
	return (create_ram(t, MT_RAM, name, last, backing, NULL, NULL));
}

struct mt_region *
mt_region_create_rom(struct mt_topology *t, const char *name, mt_addr last,
    const struct mt_backing *backing)
{
	return (create_ram(t, MT_ROM, name, last, backing, NULL, NULL));
}

/*
 * A RAM device is an I/O region whose callbacks are loads and stores: so it
 * gets aligned accesses of its registers' widths wherever it is met.
 */
struct mt_region *
mt_region_create_ram_device(struct mt_topology *t, const char *name,
    mt_addr last, const struct mt_backing *backing)
{
	struct mt_region *r;

	if (backing != NULL && backing->kind == MT_BACKING_PTR &&
	    (uintptr_t)backing->ptr % 8 != 0) {
		errno = EINVAL;
		return (NULL);
	}
	r = create_ram(t, MT_RAM_DEVICE, name, last, backing,
	    &mt__ram_device_ops, NULL);
	if (r != NULL)
		r->arg = r->ptr;
	return (r);
}

struct mt_region *
mt_region_create_rom_device(struct mt_topology *t, const char *name,
    mt_addr last, const struct mt_backing *backing,
    const struct mt_io_ops *ops, void *arg)
{
	if (!ops_ok(ops)) {
		errno = EINVAL;
		return (NULL);
	}
	return (create_ram(t, MT_ROM_DEVICE, name, last, backing, ops, arg));
}

struct mt_region *
mt_region_create_io(struct mt_topology *t, const char *name, mt_addr last,
    const struct mt_io_ops *ops, void *arg)
{
	struct mt_region *r;

	if (!ops_ok(ops)) {
		errno = EINVAL;
		return (NULL);
	}
	if ((r = create(t, MT_IO, name, last)) != NULL) {
		r->ops = ops;
		r->arg = arg;
		r->whole[false] = whole_sizes(ops, ops->read != NULL);
		r->whole[true] = whole_sizes(ops, ops->write != NULL);
	}
	return (r);
}

struct mt_region *
mt_region_create_iommu(struct mt_topology *t, const char *name, mt_addr last,
    const struct mt_iommu_ops *ops, void *arg)
{
	struct mt_region *r;

	if (ops == NULL || ops->translate == NULL) {
		errno = EINVAL;
		return (NULL);
	}
	if ((r = create(t, MT_IOMMU, name, last)) == NULL)
		return (NULL);
	if (mt__region_rare(r) == -1 ||
	    (r->rare->iommu = mt__iommu_create(ops)) == NULL) {
		discard(r);
		return (NULL);
	}
	r->arg = arg;
	return (r);
}

void
mt__region_free(struct mt__retired *retired)
{
	struct mt_region *r = mt__retired_region(retired);
	struct mt_topology *t = r->topology;

	mt__pins_fini(r);
	mt__ram_fini(r);
	if (r->rare != NULL) {
		mt__dirty_fini(r->rare->log);
		mt__iommu_free(r->rare->iommu);
	}
	mt__waiting_add(t, mt__extras_bytes(r->state.extras));
	mt__extras_put(r->state.extras);
	if (r->owner_put != NULL)
		r->owner_put(r->owner);
	free(r->rare);
	free(r);
	/* Pairs with the acquire in mt_topology_destroy(). */
	atomic_fetch_sub_explicit(&t->objects, 1, memory_order_release);
}

/*
 * Let go of one child.  By its parent pointer a writer may be looking at r, or
 * taking the child away, so even the look is under the lock.
 */
static bool
release_child(struct mt_region *r)
{
	struct mt_topology *t = r->topology;
	struct mt_region *child;

	pthread_mutex_lock(&t->lock);
	if ((child = mt__children_any(r)) != NULL) {
		mt__children_remove(r, child);
		child->state.parent = NULL;
	}
	pthread_mutex_unlock(&t->lock);
	mt_region_put(child);
	return (child != NULL);
}

/*
 * Runs on the reclaimer: nobody else knows r any more, but for mappings, and
 * its children.  What never had any does not wait for writers.
 */
static void
release(struct mt__retired *retired)
{
	struct mt_region *r = mt__retired_region(retired);
	struct mt_region *target = mt__target_of(r);
	struct mt_topology *t = r->topology;

	if (target != NULL) {
		pthread_mutex_lock(&t->lock);
		LIST_REMOVE(r->rare, alias);
		pthread_mutex_unlock(&t->lock);
	}
	while (r->was_parent && release_child(r))
		continue;
	mt_region_put(target);
	if (!mt__pins_leave(r))
		mt__region_free(retired);
}

struct mt_region *
mt_region_get(struct mt_region *r)
{
	/* Whoever takes a reference holds one, or is in a view that does. */
	if (r != NULL)
		atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return (r);
}

/*
 * For a pointer that does not count: a region that has no references left is
 * on its way to the reclaimer, and must not be sent there twice.
 */
struct mt_region *
mt__region_get_alive(struct mt_region *r)
{
	size_t refs;

	if (r == NULL)
		return (NULL);
	refs = atomic_load_explicit(&r->refs, memory_order_relaxed);
	do
		if (refs == 0)
			return (NULL);
	while (!atomic_compare_exchange_weak_explicit(&r->refs, &refs,
	    refs + 1, memory_order_relaxed, memory_order_relaxed));
	return (r);
}

void
mt_region_put(struct mt_region *r)
{
	if (r == NULL)
		return;
	/*
	 * Release: what this thread did with r comes before its release.
	 * Acquire: the last one sees what all the others did.
	 */
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) == 1)
		mt__retire_now(r->topology, &r->retired, release);
}

int
mt_region_set_owner(struct mt_region *r, void *owner, void (*put)(void *))
{
	if (put == NULL) {
		errno = EINVAL;
		return (-1);
	}
	if (r->owner_put != NULL) {
		errno = EBUSY;
		return (-1);
	}
	r->owner = owner;
	r->owner_put = put;
	return (0);
}

/* May r be given what accesses look at?  Only while there can be none. */
static int
set_fence(struct mt_region *r, struct mt_guard *guard, pthread_mutex_t *lock)
{
	bool taken;
	int error = 0;

	if ((guard == NULL && lock == NULL) ||
	    (r->kind != MT_IO && r->kind != MT_ROM_DEVICE &&
	    (r->kind != MT_IOMMU || guard != NULL))) {
		errno = EINVAL;
		return (-1);
	}
	taken = lock_tree(r->topology);
	if (mt__region_rare(r) == -1)
		error = ENOMEM;
	else if (r->state.parent != NULL || r->rare->root != NULL ||
	    !LIST_EMPTY(&r->rare->aliases) ||
	    (guard != NULL ? r->rare->guard != NULL : r->rare->lock != NULL))
		error = EBUSY;
	else {
		if (guard != NULL)
			r->rare->guard = guard;
		else
			r->rare->lock = lock;
		/* More than a call is to be done from here on. */
		r->fenced = true;
		r->whole[false] = r->whole[true] = 0;
	}
	unlock_tree(r->topology, taken);
	if (error == 0)
		return (0);
	errno = error;
	return (-1);
}

int
mt_region_set_guard(struct mt_region *r, struct mt_guard *guard)
{
	return (set_fence(r, guard, NULL));
}

int
mt_region_set_lock(struct mt_region *r, pthread_mutex_t *lock)
{
	return (set_fence(r, NULL, lock));
}

int
mt_region_set_resized(struct mt_region *r,
    void (*fn)(void *, struct mt_region *, mt_addr), void *arg)
{
	bool taken;
	int error = 0;

	if (fn == NULL) {
		errno = EINVAL;
		return (-1);
	}
	taken = lock_tree(r->topology);
	if (mt__region_rare(r) == -1)
		error = ENOMEM;
	else if (r->rare->resized != NULL)
		error = EBUSY;
	else {
		r->rare->resized = fn;
		r->rare->resized_arg = arg;
	}
	unlock_tree(r->topology, taken);
	if (error != 0) {
		errno = error;
		return (-1);
	}
	return (0);
}

/* --- changes ------------------------------------------------------------- */

void
mt__region_apply(struct mt_region *r, const struct mt__state *state)
{
	struct mt_region *old = r->state.parent;
	bool reindex = state->parent != old || state->addr != r->state.addr ||
	    state->last != r->state.last || state->seq != r->state.seq;

	/* The parent's reference; taken first, so that r cannot go between. */
	if (old == NULL && state->parent != NULL)
		mt_region_get(r);
	if (reindex && old != NULL)
		mt__children_remove(old, r);
	if (state->extras != r->state.extras) {
		mt__extras_get(state->extras);
		mt__waiting_add(r->topology, mt__extras_bytes(r->state.extras));
		mt__waiting_sub(r->topology, mt__extras_bytes(state->extras));
		mt__extras_put(r->state.extras);
	}
	r->state = *state;
	mt__dirty_update(r);
	if (reindex && state->parent != NULL)
		mt__children_insert(state->parent, r);
	if (old != NULL && state->parent == NULL)
		mt_region_put(r);
}

/*
 * All that r shows may look different; or, if only its place is changed, that
 * of its parent which it is in, and nothing to those who show r itself.
 */
static void
touch(struct mt_region *r, bool place)
{
	const struct mt__state *s = &r->state;

	if (!place)
		mt__touch(r, 0, MT_LAST_MAX);
	else if (s->enabled && s->parent != NULL)
		mt__touch(s->parent, s->addr, s->last > MT_LAST_MAX - s->addr ?
		    MT_LAST_MAX : s->addr + s->last);
}

/* Change r as one step of a transaction, or as one of its own. */
static int
change(struct mt_region *r, const struct mt__state *state)
{
	struct mt_topology *t = r->topology;
	bool place = state->parent != r->state.parent ||
	    state->addr != r->state.addr;

	if (mt__topology_log(t, r) == -1) {
		(void)mt_topology_commit(t);
		errno = ENOMEM;
		return (-1);
	}
	/* Where it was seen, and where it is. */
	touch(r, place);
	mt__region_apply(r, state);
	touch(r, place);
	return (mt_topology_commit(t));
}

int
mt__region_set_log(struct mt_region *r, uint8_t log)
{
	struct mt__state state = r->state;

	state.log = log;
	return (change(r, &state));
}

int
mt__region_set_extras(struct mt_region *r, struct mt__extras *x)
{
	struct mt__state state = r->state;

	state.extras = x;
	return (change(r, &state));
}

/* Leave the transaction that a change has begun, without changing. */
static int
refuse(struct mt_region *r, int error)
{
	(void)mt_topology_commit(r->topology);
	if (error == 0)
		return (0);
	errno = error;
	return (-1);
}

int
mt_region_add(struct mt_region *parent, struct mt_region *child, mt_addr off,
    int prio)
{
	struct mt_topology *t = child->topology;
	struct mt__state state;

	if (parent->topology != t) {
		errno = EXDEV;
		return (-1);
	}
	if (mt_topology_begin(t) == -1)
		return (-1);
	if (child->state.parent != NULL)
		return (refuse(child, EBUSY));
	if (mt__makes_loop(parent, child))
		return (refuse(child, ELOOP));
	state = child->state;
	state.parent = parent;
	state.addr = off;
	state.prio = prio;
	state.seq = ++t->seq;
	return (change(child, &state));
}

int
mt_region_del(struct mt_region *child)
{
	struct mt__state state;

	if (mt_topology_begin(child->topology) == -1)
		return (-1);
	if (child->state.parent == NULL)
		return (refuse(child, ENOENT));
	state = child->state;
	state.parent = NULL;
	return (change(child, &state));
}

int
mt_region_move(struct mt_region *r, mt_addr off)
{
	struct mt__state state;

	if (mt_topology_begin(r->topology) == -1)
		return (-1);
	if (r->state.parent == NULL)
		return (refuse(r, ENOENT));
	if (r->state.addr == off)
		return (refuse(r, 0));
	state = r->state;
	state.addr = off;
	state.seq = ++r->topology->seq;
	return (change(r, &state));
}

int
mt_region_resize(struct mt_region *r, mt_addr last)
{
	struct mt__state state;

	if (mt_topology_begin(r->topology) == -1)
		return (-1);
	if (last > r->max_last)
		return (refuse(r, EINVAL));
	if (r->state.last == last)
		return (refuse(r, 0));
	state = r->state;
	state.last = last;
	return (change(r, &state));
}

#define SETTER(name, type, member, kind_ok)				\
int									\
mt_region_set_##name(struct mt_region *r, type value)			\
{									\
	struct mt__state state;						\
									\
	if (mt_topology_begin(r->topology) == -1)			\
		return (-1);						\
	if (!(kind_ok))							\
		return (refuse(r, EINVAL));				\
	if (r->state.member == value)					\
		return (refuse(r, 0));					\
	state = r->state;						\
	state.member = value;						\
	return (change(r, &state));					\
}

SETTER(enabled, bool, enabled, true)
SETTER(readonly, bool, readonly, r->kind != MT_ROM || value)
SETTER(nonvolatile, bool, nonvolatile, true)
SETTER(unmergeable, bool, unmergeable, true)
SETTER(rom_mode, bool, rom_mode, r->kind == MT_ROM_DEVICE)
SETTER(alias_offset, mt_addr, alias_off, r->kind == MT_ALIAS)

/* --- looking ------------------------------------------------------------- */

const char *
mt_region_name(const struct mt_region *r)
{
	return (r->name);
}

enum mt_kind
mt_region_kind(const struct mt_region *r)
{
	return (r->kind);
}

mt_addr
mt_region_max_last(const struct mt_region *r)
{
	return (r->max_last);
}

struct mt_topology *
mt_region_topology(const struct mt_region *r)
{
	return (r->topology);
}

struct mt_region *
mt_region_target(const struct mt_region *r)
{
	return (mt__target_of(r));
}

void *
mt_region_ptr(const struct mt_region *r)
{
	return (r->ptr);
}

void *
mt_region_arg(const struct mt_region *r)
{
	return (r->kind != MT_RAM_DEVICE ? r->arg : NULL);
}

int
mt_region_fd(const struct mt_region *r, off_t *off)
{
	if (!r->has_fd) {
		errno = ENOENT;
		return (-1);
	}
	if (off != NULL)
		*off = r->rare->fd_off;
	return (r->rare->fd);
}

/* The rest may be changing: the writer lock makes one reading whole. */
#define GETTER(type, name, member)					\
type									\
mt_region_##name(const struct mt_region *r)				\
{									\
	bool taken = lock_tree(r->topology);				\
	type value = r->state.member;					\
									\
	unlock_tree(r->topology, taken);				\
	return (value);							\
}

GETTER(mt_addr, last, last)
GETTER(mt_addr, addr, addr)
GETTER(int, prio, prio)
GETTER(bool, enabled, enabled)
GETTER(bool, readonly, readonly)
GETTER(bool, nonvolatile, nonvolatile)
GETTER(bool, unmergeable, unmergeable)
GETTER(bool, rom_mode, rom_mode)
GETTER(mt_addr, alias_offset, alias_off)

/* A macro cannot name a function that returns a pointer and keep KNF. */
struct mt_region *
mt_region_parent(const struct mt_region *r)
{
	bool taken = lock_tree(r->topology);
	struct mt_region *parent = r->state.parent;

	unlock_tree(r->topology, taken);
	return (parent);
}
