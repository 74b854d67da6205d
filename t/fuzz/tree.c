/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A script of tree operations: regions come, go, move and change, inside
 * transactions or not; spaces, listeners, accesses, caches, mappings, waiters
 * for bounce budget and accesses that are completed later among them.
 * After each change every space is compared with a walk of the tree at every
 * address where something may begin or end, and every listener's mirror with
 * the view.
 */

#include "t/fuzz/tree.h"

struct world w;

static void
step(void)
{
	struct node *n;

	switch (next_below(&w.in, 24)) {
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
			check(mt_region_del(n->r) == 0 || errno == ENOENT);
		break;
	case 7:
	case 8:
		change(pick());
		break;
	case 9:
		if (w.depth < DEPTH && mt_topology_begin(w.t) == 0)
			w.depth++;
		break;
	case 10:
		if (w.depth > 0) {
			check(mt_topology_commit(w.t) == 0);
			w.depth--;
		}
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
	}
}

static void
clean_up(void)
{
	size_t i;

	for (; w.depth > 0; w.depth--)
		check(mt_topology_commit(w.t) == 0);
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
	check(mt_topology_destroy(w.t) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	memset(&w, 0, sizeof(w));
	w.in = (struct input){ data, size };
	check((w.t = mt_topology_create()) != NULL);
	while (w.in.left > 0 && w.nops++ < OPS) {
		step();
		check_all();
		check_budget();
	}
	clean_up();
	return (0);
}
