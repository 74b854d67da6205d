/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A script of tree operations: regions come, go, move and change, inside
 * transactions or not; spaces, listeners, accesses, caches, mappings, waiters
 * for bounce budget and accesses that are completed later among them; and
 * eventfds, ranges of coalesced writes, dirty logs, guards, locks, and commits
 * that are refused because too much is in waiting.
 * After each change every space is compared with a walk of the tree at every
 * address where something may begin or end, and every listener's mirror with
 * the view.  What there is besides is compared with models of its own, which
 * the tree-*.c tell of at their heads.
 *
 * New operations come at the end.  Inputs that are kept begin operations with
 * their numbers, and no multiples, so they mean the same when there are more.
 */

#include "t/fuzz/tree.h"

struct world w;

/* Was a change made?  If not, for one of two reasons, or as so much waits. */
bool
went(int ret, int error, int other)
{
	if (ret == 0) {
		check(!w.in_listener);
		return (true);
	}
	if (w.in_listener)
		check(errno == EDEADLK);
	else if (errno == EAGAIN)
		check(w.limited && w.depth == 0);
	else
		check(errno == error || errno == other);
	return (false);
}

static void
limit(void)
{
	static const size_t limits[] = { 0, 400, 2000, 20000,
	    MT_WAITING_DEFAULT };
	const size_t i = (size_t)next_below(&w.in, F_COUNT(limits) + 1);

	if (i < F_COUNT(limits)) {
		mt_topology_set_max_waiting(w.t, limits[i]);
		check(mt_topology_max_waiting(w.t) == limits[i]);
		w.limited = limits[i] != MT_WAITING_DEFAULT;
	} else
		check(mt_topology_sync(w.t) == (w.depth > 0 ? -1 : 0));
}

static void
step(void)
{
	struct node *n;

	switch (next_below(&w.in, 32)) {
	case 0:
	case 1:
	case 2:
		create(pick());
		break;
	case 3:
	case 4:
	case 5:
		n = pick();
		add(n, pick());
		break;
	case 6:
		n = pick();
		if (n->r != NULL)
			went(mt_region_del(n->r), ENOENT, 0);
		break;
	case 7:
	case 8:
		change(pick());
		break;
	case 9:
		if (w.depth < DEPTH)
			begin();
		break;
	case 10:
		if (w.depth > 0)
			commit();
		break;
	case 11:
		toggle_space(pick_seat());
		break;
	case 12:
		toggle_listener(pick_seat());
		hold(pick_seat());
		break;
	case 13:
		use(pick_seat());
		break;
	case 14:
		toggle_map(pick_seat());
		break;
	case 15:
		discard(pick());
		break;
	case 16:
		toggle_cache(pick_seat());
		break;
	case 17:
		use_cache(pick_seat());
		break;
	case 18:
		toggle_list(pick_seat());
		break;
	case 19:
		submit_one(pick_seat());
		break;
	case 20:
		complete(&w.flights[next_below(&w.in, PIECES)],
		    (enum mt_result)next_below(&w.in, 2));
		break;
	case 21:
		cancel(&w.accesses[next_below(&w.in, ACCESSES)]);
		break;
	case 22:
		bounce(pick_seat());
		break;
	case 23:
		if (next_below(&w.in, 4) == 0)
			drain(pick_seat());
		else
			complete(&w.flights[0], MT_OK);
		break;
	case 24:
		create_more(pick());
		break;
	case 25:
		set_event(pick());
		break;
	case 26:
		n = pick();
		poke(pick_seat(), n);
		break;
	case 27:
		set_range(pick());
		break;
	case 28:
		set_log(pick());
		break;
	case 29:
		take_log(pick());
		break;
	case 30:
		fence(pick());
		break;
	case 31:
		n = pick();
		if (next_below(&w.in, 3) == 0)
			limit();
		else
			grow(n);
		break;
	}
}

static void
clean_up(void)
{
	size_t i;

	while (w.depth > 0)
		commit();
	w.quiet = true;
	check_all();
	for (i = 0; i < MAPS; i++)
		if (w.maps[i].ptr != NULL)
			check(mt_dma_unmap(&w.maps[i], 0) == 0 ||
			    errno == EIO);
	for (i = 0; i < WAITERS; i++) {
		w.waiters[i].again = 0;
		check(mt_dma_cancel(&w.waiters[i].waiter) ==
		    (w.waiters[i].seat != NULL));
	}
	for (i = 0; i < LISTS; i++)
		if (w.lists[i].sp != NULL)
			unmap_list(&w.lists[i], w.lists[i].sg.len);
	for (i = 0; i < SPACES; i++) {
		if (w.seats[i].sp == NULL)
			continue;
		drain(&w.seats[i]);
		if (w.seats[i].cached)
			mt_cache_fini(&w.seats[i].cache);
		check(mt_dma_bounce_used(w.seats[i].sp) == 0);
		seat_leave(&w.seats[i]);
		check(mt_space_destroy(w.seats[i].sp) == 0);
	}
	for (i = 0; i < NODES; i++)
		if (w.nodes[i].r != NULL)
			mt_region_put(w.nodes[i].r);
	check(mt_topology_sync(w.t) == 0);
	/* Whatever was replaced or refused: all of it has been counted. */
	check(mt_topology_waiting(w.t) == 0);
	check(mt_topology_destroy(w.t) == 0);
	for (i = 0; i < NODES; i++)
		free(w.nodes[i].copy);
	for (i = 0; i < LOCKS; i++)
		check(pthread_mutex_destroy(&w.locks[i]) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&w, 0, sizeof(w));
	w.in = (struct input){ data, size };
	init_pool();
	init_locks();
	check((w.t = mt_topology_create()) != NULL);
	while (w.in.left > 0 && w.nops++ < OPS) {
		step();
		check_locks();
		check_all();
		check_budget();
	}
	clean_up();
	return (0);
}
