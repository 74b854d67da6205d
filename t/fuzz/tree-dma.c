/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Mappings, lists of them, waiters for bounce budget. */

#include "t/fuzz/tree.h"

void
toggle_map(struct seat *s)
{
	struct mt_mapping *m = &w.maps[next_below(&w.in, MAPS)];
	const size_t len = (size_t)next(&w.in, 2) % 0x3000;
	const mt_addr addr = pick_addr();
	size_t i, used;

	if (m->ptr != NULL) {
		used = m->len;
		/* Whatever has become of the region, this is memory. */
		if ((m->dir & MT_DMA_WRITE) != 0)
			memset(m->ptr, 0xa5, m->len);
		else
			for (i = 0; i < m->len; i++)
				((volatile const uint8_t *)m->ptr)[i];
		if ((m->dir & MT_DMA_WRITE) != 0)
			wrote_mapping(m, m->len);
		if ((m->dir & MT_DMA_WRITE) != 0 && !m->bounced &&
		    (len & 1) != 0) {
			/* Marked already, so the unmap need not. */
			check(mt_dma_set_dirty(m, 0, m->len) == 0);
			check(mt_dma_set_dirty(m, m->len, 1) == -1 &&
			    errno == ERANGE);
			used = 0;
		}
		w.by_old_view = m->bounced;
		check(mt_dma_unmap(m, used) == 0 || errno == EIO);
		w.by_old_view = false;
		m->ptr = NULL;
	} else if (s->sp != NULL && mt_dma_map(s->sp, addr, len,
	    (unsigned int)(addr & 3), MT_ATTRS_NONE, m) == -1)
		check(m->ptr == NULL && (errno == EFAULT || errno == EINVAL ||
		    errno == EAGAIN));
}

/* --- scatter lists ------------------------------------------------------- */

void
unmap_list(struct list *l, size_t used)
{
	size_t i, left;

	for (i = 0; i < l->sg.niov; i++)
		if (l->is_write)
			memset(l->iov[i].iov_base, 0x5a, l->iov[i].iov_len);
	if (used > l->sg.len) {
		check(mt_dma_unmap_sg(&l->sg, used) == (l->is_write ? -1 : 0));
		if (!l->is_write) {
			l->sp = NULL;
			return;
		}
		check(errno == ERANGE);
		used = l->sg.len;
	}
	for (i = 0, left = used; i < l->sg.niov && l->is_write; i++) {
		wrote_mapping(&l->maps[i], left < l->iov[i].iov_len ? left :
		    l->iov[i].iov_len);
		left -= left < l->iov[i].iov_len ? left : l->iov[i].iov_len;
	}
	w.by_old_view = true;
	check(mt_dma_unmap_sg(&l->sg, used) == 0 || errno == EIO);
	w.by_old_view = false;
	check(mt_dma_unmap_sg(&l->sg, 0) == -1 && errno == EINVAL);
	l->sp = NULL;
}

void
toggle_list(struct seat *s)
{
	struct list *l = &w.lists[next_below(&w.in, LISTS)];
	const size_t n = (size_t)next_below(&w.in, PARTS + 1);
	const size_t room = (size_t)next_below(&w.in, PARTS + 1);
	struct mt_range ranges[PARTS];
	mt_addr total = 0;
	size_t i, len = 0;

	if (l->sp != NULL) {
		unmap_list(l, n * 0x155);
		return;
	}
	if (s->sp == NULL)
		return;
	for (i = 0; i < n; i++) {
		ranges[i].first = pick_addr();
		ranges[i].last = ranges[i].first + next(&w.in, 1) * 5;
		total += ranges[i].last - ranges[i].first + 1;
	}
	l->is_write = (room & 1) != 0;
	if (mt_dma_map_sg(s->sp, ranges, n, l->is_write ? MT_DMA_WRITE :
	    MT_DMA_READ, MT_ATTRS_NONE, l->iov, l->maps, room, &l->sg) == -1) {
		check(errno == EFAULT || errno == EINVAL || errno == EAGAIN);
		return;
	}
	l->sp = s->sp;
	check(l->sg.niov >= 1 && l->sg.niov <= room);
	for (i = 0; i < l->sg.niov; i++)
		len += l->iov[i].iov_len;
	check(len == l->sg.len);
	check(l->sg.error == 0 ? l->sg.range == n && len == total :
	    l->sg.range < n && len < total);
}

/* --- bounce budget ------------------------------------------------------- */

static void
called(void *arg)
{
	struct waiter *wait = arg;
	struct seat *s = wait->seat;
	struct mt_mapping m;

	check(s != NULL);
	wait->seat = NULL;
	/* What was waited for is there; it may go to another address. */
	if (mt_dma_map(s->sp, 0x1000, 16, MT_DMA_READ, MT_ATTRS_NONE, &m) ==
	    0)
		check(mt_dma_unmap(&m, 0) == 0);
	else
		check(errno == EFAULT || mt_dma_bounce_limit(s->sp) == 0 ||
		    errno == EAGAIN);
	if (wait->again > 0) {
		wait->again--;
		wait->seat = s;
		check(mt_dma_wait(s->sp, &wait->waiter, 8, called, wait) ==
		    0);
	}
}

void
bounce(struct seat *s)
{
	struct waiter *wait = &w.waiters[next_below(&w.in, WAITERS)];
	const unsigned int what = (unsigned int)next(&w.in, 1);
	bool is;

	if (s->sp == NULL)
		return;
	switch (what % 4) {
	case 0:
		mt_dma_set_bounce_limit(s->sp, (what >> 2) * 32);
		break;
	case 1:
		if (wait->seat != NULL) {
			check(mt_dma_wait(wait->seat->sp, &wait->waiter, 1,
			    called, wait) == -1 && errno == EBUSY);
			break;
		}
		wait->again = what >> 6;
		wait->seat = s;
		check(mt_dma_wait(s->sp, &wait->waiter, what >> 2, called,
		    wait) == 0);
		break;
	default:
		is = wait->seat != NULL;
		wait->again = 0;
		/* Who waits has not been called. */
		check(mt_dma_cancel(&wait->waiter) == is);
		wait->seat = NULL;
		break;
	}
}

/* The budget is what live mappings have. */
void
check_budget(void)
{
	size_t i, k, used;
	const struct seat *s;

	for (s = w.seats; s < w.seats + SPACES; s++) {
		if (s->sp == NULL)
			continue;
		used = 0;
		for (i = 0; i < MAPS; i++)
			if (w.maps[i].ptr != NULL && w.maps[i].bounced &&
			    w.maps[i].sp == s->sp)
				used += w.maps[i].len;
		for (i = 0; i < LISTS; i++)
			for (k = 0; w.lists[i].sp == s->sp &&
			    k < w.lists[i].sg.niov; k++)
				if (w.lists[i].maps[k].bounced)
					used += w.lists[i].maps[k].len;
		check(mt_dma_bounce_used(s->sp) == used);
	}
}
