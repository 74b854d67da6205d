/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Accesses that end later. */

#include "t/fuzz/tree.h"

static void	submit(struct access *a, struct mt_space *sp, mt_addr addr,
		    size_t len, bool is_write);

static void
access_done(void *arg, enum mt_result res)
{
	struct access *a = arg;

	check(a->busy);
	check((res & ~(unsigned int)(MT_DEVICE | MT_DECODE | MT_DENIED)) == 0);
	a->busy = false;
	if (a->again && w.nops < OPS) {
		a->again = false;
		submit(a, a->sp, next(&w.in, 1), a->len, !a->is_write);
	}
}

static struct seat *
seat_of(const struct mt_space *sp)
{
	struct seat *s = w.seats;

	while (s->sp != sp)
		check(++s < w.seats + SPACES);
	return (s);
}

static void
submit(struct access *a, struct mt_space *sp, mt_addr addr, size_t len,
    bool is_write)
{
	size_t i;

	a->sp = sp;
	a->len = len;
	a->is_write = is_write;
	a->busy = true;
	for (i = 0; i < sizeof(a->buf); i++)
		a->buf[i] = i % 2 == 0 ? 0xef : 0xee;
	if (is_write)
		wrote(seat_of(sp), NULL, addr, len, false);
	check(mt_access_submit(sp, &a->acc, addr, a->buf, len, is_write,
	    MT_ATTRS_NONE, access_done, a) == 0);
}

void
submit_one(struct seat *s)
{
	struct access *a = &w.accesses[next_below(&w.in, ACCESSES)];
	const mt_addr addr = pick_addr();
	const size_t len = (size_t)next(&w.in, 1);

	if (s->sp == NULL || a->busy)
		return;
	a->again = (len & 4) != 0;
	submit(a, s->sp, addr, len, (len & 1) != 0);
}

void
complete(struct flight *f, enum mt_result res)
{
	struct mt_piece *piece = f->piece;
	size_t i;

	if (piece == NULL)
		return;
	for (i = 0; i < f->len; i++)
		if (f->is_write)
			check(f->buf[i] == 0xef || f->buf[i] == 0xee);
		else
			f->buf[i] = (uint8_t)i;
	f->piece = NULL;
	mt_access_complete(piece, res);
}

void
cancel(struct access *a)
{
	if (!a->busy)
		return;
	a->again = false;
	if (mt_access_cancel(&a->acc)) {
		check(a->busy);
		a->busy = false;
	}
}

void
drain(struct seat *s)
{
	size_t i;

	if (s->sp == NULL)
		return;
	for (i = 0; i < ACCESSES; i++)
		w.accesses[i].again = false;
	for (i = 0; i < PIECES; i++)
		complete(&w.flights[i], MT_OK);
	check(mt_access_drain(s->sp) == 0);
	for (i = 0; i < ACCESSES; i++)
		check(!w.accesses[i].busy);
}
