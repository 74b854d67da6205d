/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Pins: what keeps memory while a mapping lends it.  A count in the region
 * would be the one word that all who map write to.  So each thread counts for
 * itself, in a table by the number that a region of memory has; what one thread
 * pins another may unpin, and only the sum over all tables means something.  It
 * is asked for when a region has lost its last reference, and so is in no view
 * that a reader could be in.  Then nobody can pin it any more, and all pins
 * that there were are seen, as the sections in which they were made have ended.
 * Each unpin that is not seen makes the sum larger; so a sum of 0 is true.
 *
 * With another sum the region is leaving until the last unpin.  None is lost:
 *
 *	unpin				mt__pins_leave()
 *	(a) lower a count		(c) raise nleaving
 *	(b) look at nleaving		(d) sum all counts
 *
 * All four are sequentially consistent, so in the one order that there is (a)
 * comes before (d), which has seen it, or (c) before (b), which goes on to take
 * the lock and sum again.  Of several that do, the last to get the lock has the
 * unpins of the others behind it, and frees.
 *
 * Threads beyond the slots, and those that get no memory for a table, count in
 * one that all share, under the lock; it has room for every number, so to pin
 * and to unpin never fails.
 */

#include <stdlib.h>

#include "internal.h"

#define LEAST	((size_t)256)	/* counts in a table */

/* --- slots: small numbers for threads, the only thing of the process ------ */

__thread unsigned int mt__pin_slot;

static pthread_mutex_t slots_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t slots = 1;	/* slots_lock; taken; 0 is for who has none */
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;
static pthread_key_t slots_key;
static bool has_key;		/* [I] after slots_once */

_Static_assert(MT__PIN_SLOTS == 64, "slots are the bits of a word");

/* The next thread in this slot goes on with its tables: see the lock. */
static void
give_slot(void *arg)
{
	mt__pin_slot = 0;
	pthread_mutex_lock(&slots_lock);
	slots &= ~((uint64_t)1 << (uintptr_t)arg);
	pthread_mutex_unlock(&slots_lock);
}

static void
make_key(void)
{
	has_key = pthread_key_create(&slots_key, give_slot) == 0;
}

/* A plug-in that is unloaded must leave no way into it. */
static __attribute__((destructor)) void
drop_key(void)
{
	if (has_key)
		pthread_key_delete(slots_key);
}

static unsigned int
take_slot(void)
{
	uintptr_t slot = 0;

	pthread_once(&slots_once, make_key);
	if (!has_key)
		return (0);
	pthread_mutex_lock(&slots_lock);
	if (~slots != 0) {
		slot = (uintptr_t)__builtin_ctzll(~slots);
		slots |= (uint64_t)1 << slot;
	}
	pthread_mutex_unlock(&slots_lock);
	if (slot != 0 && pthread_setspecific(slots_key, (void *)slot) != 0) {
		give_slot((void *)slot);
		slot = 0;
	}
	mt__pin_slot = (unsigned int)slot;
	return (mt__pin_slot);
}

/* --- tables -------------------------------------------------------------- */

static void
free_table(struct mt__retired *retired)
{
	free(retired);
}

_Static_assert(offsetof(struct mt__pins, retired) == 0, "free_table");

struct mt__pins *
mt__pins_table(struct mt_topology *t, uint32_t pin)
{
	struct mt__pins *old, *p;
	unsigned int slot = mt__pin_slot != 0 ? mt__pin_slot : take_slot();
	size_t i, n;

	if (slot == 0)
		return (NULL);
	old = atomic_load_explicit(&t->pinning.tables[slot],
	    memory_order_relaxed);
	if (old != NULL && pin < old->n)
		return (old);
	for (n = old != NULL ? old->n * 2 : LEAST; n <= pin;)
		n *= 2;
	/* Some more, so that nobody else writes to the last line. */
	if ((p = calloc(1, sizeof(*p) + n * sizeof(p->counts[0]) +
	    MT__LINE)) == NULL)
		return (NULL);
	p->n = n;
	for (i = 0; old != NULL && i < old->n; i++)
		atomic_init(&p->counts[i], atomic_load_explicit(
		    &old->counts[i], memory_order_relaxed));
	/* Release pairs with the acquire in pinned(). */
	atomic_store_explicit(&t->pinning.tables[slot], p,
	    memory_order_release);
	if (old != NULL)
		mt__retire_patiently(t, &old->retired, free_table);
	return (p);
}

void
mt__pins_share(struct mt_topology *t, uint32_t pin, uint32_t n)
{
	pthread_mutex_lock(&t->pinning.lock);
	t->pinning.shared[pin] += n;
	pthread_mutex_unlock(&t->pinning.lock);
}

/* How many pins there are, or more.  Under the lock. */
static uint32_t
pinned(struct mt_topology *t, uint32_t pin)
{
	uint32_t sum = t->pinning.shared[pin];
	struct mt__pins *p;
	size_t i;

	/* The section is for tables that are replaced. */
	mt__read_begin(t);
	for (i = 1; i < MT__PIN_SLOTS; i++) {
		p = atomic_load_explicit(&t->pinning.tables[i],
		    memory_order_acquire);
		if (p != NULL && pin < p->n)
			sum += atomic_load_explicit(&p->counts[pin],
			    memory_order_seq_cst);
	}
	mt__read_end(t);
	return (sum);
}

/* --- regions that leave -------------------------------------------------- */

static int
by_pin(const struct mt_region *a, const struct mt_region *b)
{
	return (a->pin < b->pin ? -1 : a->pin > b->pin);
}

RB_GENERATE_INTERNAL(mt__leaving, mt_region, sibling, by_pin,
    static __attribute__((unused)))

bool
mt__pins_leave(struct mt_region *r)
{
	struct mt__pinning *pg = &r->topology->pinning;
	bool leaving;

	if (r->pin == 0)
		return (false);
	pthread_mutex_lock(&pg->lock);
	/* Most are not mapped: others need not know of them. */
	leaving = pinned(r->topology, r->pin) != 0;
	if (leaving) {
		atomic_fetch_add_explicit(&pg->nleaving, 1,
		    memory_order_seq_cst);
		leaving = pinned(r->topology, r->pin) != 0;
		if (leaving)
			RB_INSERT(mt__leaving, &pg->leaving, r);
		else
			atomic_fetch_sub_explicit(&pg->nleaving, 1,
			    memory_order_relaxed);
	}
	pthread_mutex_unlock(&pg->lock);
	return (leaving);
}

void
mt__unpinned(struct mt_topology *t, uint32_t pin)
{
	struct mt__pinning *pg = &t->pinning;
	struct mt_region key = { .pin = pin };
	struct mt_region *r;

	pthread_mutex_lock(&pg->lock);
	/* It may be another one by now that has the number: no matter. */
	r = RB_FIND(mt__leaving, &pg->leaving, &key);
	if (r != NULL && pinned(t, pin) != 0)
		r = NULL;
	if (r != NULL) {
		RB_REMOVE(mt__leaving, &pg->leaving, r);
		atomic_fetch_sub_explicit(&pg->nleaving, 1,
		    memory_order_relaxed);
	}
	pthread_mutex_unlock(&pg->lock);
	if (r != NULL)
		mt__retire_now(t, &r->retired, mt__region_free);
}

/* --- numbers ------------------------------------------------------------- */

/* Room for one more number, in use or spare: so none is lost for memory. */
static int
make_room(struct mt__pinning *pg)
{
	size_t room = pg->room + pg->room / 2 + 64;
	uint32_t *p;

	if (pg->n < pg->room)
		return (0);
	if ((p = realloc(pg->spare, room * sizeof(*p))) == NULL)
		return (-1);
	pg->spare = p;
	if ((p = realloc(pg->shared, room * sizeof(*p))) == NULL)
		return (-1);
	pg->shared = p;
	pg->room = room;
	return (0);
}

int
mt__pins_init(struct mt_region *r)
{
	struct mt__pinning *pg = &r->topology->pinning;
	int error = 0;

	pthread_mutex_lock(&pg->lock);
	if (pg->nspare != 0)
		r->pin = pg->spare[--pg->nspare];
	else if ((error = make_room(pg)) == 0) {
		/* 0 stays nobody's. */
		if (pg->n == 0)
			pg->shared[pg->n++] = 0;
		r->pin = (uint32_t)pg->n;
		pg->shared[pg->n++] = 0;
	}
	pthread_mutex_unlock(&pg->lock);
	return (error);
}

/* The sum for its number is 0, which is where the next one begins. */
void
mt__pins_fini(struct mt_region *r)
{
	struct mt__pinning *pg = &r->topology->pinning;

	if (r->pin == 0)
		return;
	pthread_mutex_lock(&pg->lock);
	pg->spare[pg->nspare++] = r->pin;
	pthread_mutex_unlock(&pg->lock);
}

void
mt__pinning_init(struct mt__pinning *pg)
{
	pthread_mutex_init(&pg->lock, NULL);
	RB_INIT(&pg->leaving);
}

void
mt__pinning_fini(struct mt__pinning *pg)
{
	size_t i;

	for (i = 1; i < MT__PIN_SLOTS; i++)
		free(atomic_load_explicit(&pg->tables[i],
		    memory_order_relaxed));
	free(pg->spare);
	free(pg->shared);
	pthread_mutex_destroy(&pg->lock);
}
