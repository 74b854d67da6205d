/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Who is inside which device.  Each thread has a list of the callbacks with a
 * guard or a lock that it is inside of, innermost first, on its own stack.  No
 * other thread looks at it, so to ask whether a device would be entered again
 * needs no lock, and another thread in the same device is nobody's business.
 *
 * The guard is asked first and the lock taken after: a lock that waits for
 * this very thread would wait for ever.  And it never does, for a lock that
 * this thread took here and has not given back is in its list, and one that is
 * in the list is not taken.
 */

#include <errno.h>

#include "internal.h"

static __thread struct mt__inside *innermost;

bool
mt__guard_enter(const struct mt_region *r, struct mt__inside *in)
{
	const struct mt__rare *rare = r->rare;
	const struct mt__inside *at;

	in->region = r;
	in->takes = rare->lock != NULL;
	for (at = innermost; at != NULL; at = at->up) {
		if (rare->guard != NULL && at->region->rare->guard == rare->guard) {
			__atomic_fetch_add(&rare->guard->refused, 1,
			    __ATOMIC_RELAXED);
			return (false);
		}
		if (at->region->rare->lock == rare->lock)
			in->takes = false;
	}
	if (in->takes && pthread_mutex_lock(rare->lock) != 0)
		return (false);
	in->up = innermost;
	innermost = in;
	return (true);
}

void
mt__guard_leave(struct mt__inside *in)
{
	innermost = in->up;
	if (in->takes)
		pthread_mutex_unlock(in->region->rare->lock);
}

uint64_t
mt_guard_refused(const struct mt_guard *guard)
{
	return (__atomic_load_n(&guard->refused, __ATOMIC_RELAXED));
}
