/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The memory that a space shows, given to the device.
 *
 * A piece is a section of the space that the device is to have; a map is what
 * one DMA_MAP has given it, of one piece or of several that continue each
 * other in a file, or of neighbours without one.  A map is whole pages of the
 * server's; a piece may begin or end inside one, and then the page is mapped
 * only together with the piece that has the rest of it.
 *
 * The listener only takes notes until the commit, where all is sent: what has
 * to go, then what is to come.  What is mapped is left alone as long as its
 * pieces are, even if a larger map could be made, because a device may be
 * using it at any time.
 *
 * Nothing waits for the answer to what was sent before it: the server does it
 * all in order, so one way to it and back is enough for a whole commit.  A map
 * that is refused after all is undone here when its answer comes.
 *
 * A commit looks at what is waiting: what has come since the last one.  A piece
 * that could not be mapped is left alone until it can make a difference: one
 * that has no whole page until a neighbour comes, one for which something was
 * short until there is room for a map, and one that the server refused for
 * good.
 */

#include <sys/stat.h>

#include <errno.h>
#include <stdlib.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "internal.h"

/*
 * Messages that are not answered yet.  The kernel may refuse to have more
 * descriptors of a process under way than it may have open.
 */
#define MAX_FLIGHTS	64

/* What the server was given, or is to give back. */
struct map {
	TAILQ_ENTRY(map) link;		/* in going */
	uint64_t first;
	uint64_t last;
	bool going;
};

TAILQ_HEAD(waiting, piece);

struct piece {
	RB_ENTRY(piece) link;
	TAILQ_ENTRY(piece) wait;	/* in list */
	struct waiting *list;		/* waiting or again; NULL: neither */
	uint64_t first;
	uint64_t last;
	struct mt_region *region;	/* a reference: keeps fd open */
	uint64_t region_off;		/* of first */
	int fd;				/* lent by region; -1: no file */
	uint64_t off;			/* in fd, of first */
	dev_t dev;
	ino_t ino;
	unsigned int flags;		/* VD_DMA_* */
	bool unmergeable;
	struct map *map;		/* NULL: not mapped */
	int error;			/* why not, as the owner was told */
	bool refused;			/* by the server: not to be repeated */
};

RB_HEAD(pieces, piece);
TAILQ_HEAD(maps, map);

/* What was sent and is not answered yet. */
struct flight {
	struct vd__dma_op op;
	struct map *map;
	struct piece *p, *q;		/* it maps these; NULL: an unmap */
};

/* All but what is set once belongs to the topology's writer lock. */
struct vd_client_dma {
	struct mt_listener l;
	struct vd_client *client;	/* a reference */
	const struct vd_client_dma_ops *ops;
	void *arg;
	struct pieces pieces;
	struct waiting waiting;		/* pieces for the next commit */
	struct waiting again;		/* to be tried when there is room */
	struct maps going;
	uint64_t nr_maps;		/* that the server has */
	/* in a commit */
	struct vd_client_limits limits;
	bool lost;			/* the server is */
	unsigned int sent, answered;	/* flights, from 0 */
	struct flight flights[MAX_FLIGHTS];
};

/* Pieces do not overlap. */
static int
compare(const struct piece *a, const struct piece *b)
{
	return (a->first < b->first ? -1 : a->first > b->first);
}

RB_GENERATE_INTERNAL(pieces, piece, link, compare,
    __attribute__((unused)) static)

static void
tell(struct vd_client_dma *d, bool unmap, uint64_t first, uint64_t last,
    int error)
{
	/* Who lost the server has heard of that. */
	if (error == ENOTCONN)
		return;
	if (d->ops != NULL && d->ops->failed != NULL)
		d->ops->failed(d->arg, unmap,
		    (struct mt_range){ first, last }, error);
}

/* Put p at the end of list, or, with NULL, into none. */
static void
put_on(struct piece *p, struct waiting *list)
{
	if (p->list != NULL)
		TAILQ_REMOVE(p->list, p, wait);
	p->list = list;
	if (list != NULL)
		TAILQ_INSERT_TAIL(list, p, wait);
}

/* --- notes --------------------------------------------------------------- */

/* Is this memory that the device is to have? */
static bool
wanted(struct vd_client_dma *d, const struct mt_section *sec)
{
	enum mt_kind kind = mt_region_kind(sec->region);

	if (kind != MT_RAM && kind != MT_ROM)
		return (false);
	/* The device need not be told of its own registers. */
	if (vd__client_owns(d->client, sec->region))
		return (false);
	return (d->ops == NULL || d->ops->wanted == NULL ||
	    d->ops->wanted(d->arg, sec));
}

static void
told_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct vd_client_dma *d = arg;
	struct piece *p;
	struct stat st;
	off_t off;

	(void)sp;
	if (!wanted(d, sec))
		return;
	if ((p = calloc(1, sizeof(*p))) == NULL) {
		tell(d, false, sec->range.first, sec->range.last, ENOMEM);
		return;
	}
	p->first = sec->range.first;
	p->last = sec->range.last;
	p->region = mt_region_get(sec->region);
	p->region_off = sec->off;
	p->flags = VD_DMA_READABLE;
	p->unmergeable = (sec->flags & MT_SECTION_UNMERGEABLE) != 0;
	if (mt_region_kind(sec->region) == MT_RAM &&
	    (sec->flags & MT_SECTION_READONLY) == 0)
		p->flags |= VD_DMA_WRITABLE;
	p->fd = mt_region_fd(sec->region, &off);
	if (p->fd != -1 && fstat(p->fd, &st) == -1)
		p->fd = -1;
	if (p->fd != -1) {
		p->off = (uint64_t)off + sec->off;
		p->dev = st.st_dev;
		p->ino = st.st_ino;
	}
	RB_INSERT(pieces, &d->pieces, p);
	put_on(p, &d->waiting);
}

/* Do a and b, which is behind it, continue each other? */
static bool
continues(const struct piece *a, const struct piece *b)
{
	if (a == NULL || b == NULL || a->last + 1 != b->first ||
	    a->flags != b->flags || a->unmergeable || b->unmergeable)
		return (false);
	/* Without a file it is the server's to say by address what it wants. */
	if (a->fd == -1 || b->fd == -1)
		return (a->fd == b->fd);
	return (a->dev == b->dev && a->ino == b->ino &&
	    a->off + (a->last - a->first) + 1 == b->off);
}

/* Take m back from all of its pieces, of which p is one. */
static void
give_up(struct vd_client_dma *d, struct piece *p)
{
	struct map *m = p->map;
	struct piece *q;

	while ((q = RB_PREV(pieces, &d->pieces, p)) != NULL && q->map == m)
		p = q;
	for (; p != NULL && p->map == m;
	    p = RB_NEXT(pieces, &d->pieces, p)) {
		p->map = NULL;
		put_on(p, &d->waiting);
	}
	m->going = true;
	TAILQ_INSERT_TAIL(&d->going, m, link);
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct vd_client_dma *d = arg;
	struct piece key = { .first = sec->range.first }, *p;

	(void)sp;
	p = RB_FIND(pieces, &d->pieces, &key);
	if (p == NULL || p->last != sec->range.last ||
	    p->region != sec->region || p->region_off != sec->off)
		return;
	if (p->map != NULL)
		give_up(d, p);
	put_on(p, NULL);
	RB_REMOVE(pieces, &d->pieces, p);
	mt_region_put(p->region);
	free(p);
}

/* --- the commit ---------------------------------------------------------- */

/* A new piece has part of a page whose rest q has: they are to be one run. */
static void
join(struct vd_client_dma *d, struct piece *q)
{
	if (q->map != NULL)
		give_up(d, q);
	else if (q->error != 0 && !q->refused) {
		q->error = 0;
		put_on(q, &d->waiting);
	}
}

/*
 * A page that two pieces share can be mapped with both only.  If one has come,
 * the map of the other one has to be made again.  What is joined gets to the
 * end of the list, and so it is looked at, too.
 */
static void
join_neighbours(struct vd_client_dma *d, uint64_t page)
{
	struct piece *p, *q;

	TAILQ_FOREACH(p, &d->waiting, wait) {
		if (p->error != 0)
			continue;
		q = RB_PREV(pieces, &d->pieces, p);
		if (p->first % page != 0 && continues(q, p))
			join(d, q);
		q = RB_NEXT(pieces, &d->pieces, p);
		if ((p->last + 1) % page != 0 && continues(p, q))
			join(d, q);
	}
}

/* The pieces from p to q are not mapped; each is told of once. */
static void
refuse(struct vd_client_dma *d, struct piece *p, struct piece *q, int error,
    bool by_server)
{
	for (;; p = RB_NEXT(pieces, &d->pieces, p)) {
		if (p->error != error)
			tell(d, false, p->first, p->last, error);
		p->error = error;
		p->refused = by_server;
		put_on(p, by_server || error == EINVAL ? NULL : &d->again);
		if (p == q)
			break;
	}
}

/* All of m's pieces, from p to q, are mapped by it, or by nothing. */
static void
assign(struct piece *p, struct piece *q, struct map *m)
{
	for (;; p = RB_NEXT(pieces, &d->pieces, p)) {
		put_on(p, NULL);
		p->map = m;
		if (p == q)
			break;
	}
}

static void
mapped(struct vd_client_dma *d, const struct map *m, struct piece *p,
    struct piece *q)
{
	if (m->first > p->first)
		tell(d, false, p->first, m->first - 1, EINVAL);
	if (m->last < q->last)
		tell(d, false, m->last + 1, q->last, EINVAL);
	for (;; p = RB_NEXT(pieces, &d->pieces, p)) {
		p->error = 0;
		if (p == q)
			break;
	}
}

/* What was sent for f has ended with error. */
static void
land(struct vd_client_dma *d, struct flight *f, int error)
{
	struct map *m = f->map;
	struct piece *p = f->p, *q = f->q;

	d->lost = d->lost || error == ENOTCONN;
	if (p == NULL) {
		if (error != 0)
			tell(d, true, m->first, m->last, error);
		free(m);
	} else if (error == 0)
		mapped(d, m, p, q);
	else if (error == ETIMEDOUT)
		/* It may have it, and must give it back some day. */
		tell(d, false, m->first, m->last, error);
	else {
		d->nr_maps--;
		assign(p, q, NULL);
		free(m);
		refuse(d, p, q, error, error != ENOTCONN &&
		    error != ENOBUFS && !vd__stream_is_fd_error(error));
	}
}

static void
await_one(struct vd_client_dma *d)
{
	struct flight *f = &d->flights[d->answered++ % MAX_FLIGHTS];

	land(d, f, vd__client_end_op(d->client, &f->op) == -1 ? errno : 0);
}

static void
await_all(struct vd_client_dma *d)
{
	while (d->answered != d->sent)
		await_one(d);
}

static struct flight *
next_flight(struct vd_client_dma *d)
{
	if (d->sent - d->answered == MAX_FLIGHTS)
		await_one(d);
	return (&d->flights[d->sent % MAX_FLIGHTS]);
}

/* f is under way, or not, by what has been returned for it. */
static void
take_off(struct vd_client_dma *d, struct flight *f, int rv)
{
	if (rv == 0)
		d->sent++;
	else
		land(d, f, errno);
}

static void
send_unmaps(struct vd_client_dma *d)
{
	struct flight *f;
	struct map *m;

	while ((m = TAILQ_FIRST(&d->going)) != NULL) {
		TAILQ_REMOVE(&d->going, m, link);
		d->nr_maps--;
		f = next_flight(d);
		f->map = m;
		f->p = f->q = NULL;
		take_off(d, f, vd__client_begin_unmap(d->client, &f->op,
		    m->first, m->last - m->first + 1));
	}
}

/* Give [first, last] of the pieces from p to q. */
static void
send_map(struct vd_client_dma *d, struct piece *p, struct piece *q,
    uint64_t first, uint64_t last)
{
	int fd = d->limits.max_msg_fds > 0 ? p->fd : -1;
	struct flight *f;
	struct map *m;

	/* Some of those under way may be refused. */
	if (d->nr_maps >= d->limits.max_dma_maps)
		await_all(d);
	if (d->nr_maps >= d->limits.max_dma_maps) {
		refuse(d, p, q, ENOSPC, false);
		return;
	}
	if ((m = calloc(1, sizeof(*m))) == NULL) {
		refuse(d, p, q, ENOMEM, false);
		return;
	}
	m->first = first;
	m->last = last;
	f = next_flight(d);
	f->map = m;
	f->p = p;
	f->q = q;
	d->nr_maps++;
	assign(p, q, m);
	take_off(d, f, vd__client_begin_map(d->client, &f->op, first,
	    last - first + 1, p->flags, fd,
	    fd == -1 ? 0 : p->off + (first - p->first)));
}

/* Map the run of pieces from p to q, as far as it has whole pages. */
static void
map_run(struct vd_client_dma *d, struct piece *p, struct piece *q)
{
	uint64_t page = d->limits.pgsizes & -d->limits.pgsizes;
	uint64_t first = p->first, last = q->last, before, after;

	before = -first & (page - 1);
	after = (last + 1) & (page - 1);
	if (last - first < before || last - first - before < after ||
	    last - first + 1 == before + after) {
		refuse(d, p, q, EINVAL, false);
		return;
	}
	first += before;
	last -= after;
	/* A piece that has nothing in a whole page stays without. */
	for (; p->last < first; p = RB_NEXT(pieces, &d->pieces, p))
		refuse(d, p, p, EINVAL, false);
	for (; q->first > last; q = RB_PREV(pieces, &d->pieces, q))
		refuse(d, q, q, EINVAL, false);
	send_map(d, p, q, first, last);
}

/* May p be tried now? */
static bool
to_try(const struct piece *p)
{
	return (p->map == NULL && !p->refused);
}

/* Those for which there may be room now come before those that are new. */
static void
try_again(struct vd_client_dma *d)
{
	struct piece *p, *before = NULL;

	for (uint64_t n = d->nr_maps; n < d->limits.max_dma_maps &&
	    (p = TAILQ_FIRST(&d->again)) != NULL; n++) {
		TAILQ_REMOVE(&d->again, p, wait);
		if (before == NULL)
			TAILQ_INSERT_HEAD(&d->waiting, p, wait);
		else
			TAILQ_INSERT_AFTER(&d->waiting, before, p, wait);
		p->list = &d->waiting;
		before = p;
	}
}

/* Each piece that is waiting is put elsewhere by this, in one run or another. */
static void
send_maps(struct vd_client_dma *d)
{
	struct piece *p, *q, *n;

	while (!d->lost && (q = TAILQ_FIRST(&d->waiting)) != NULL) {
		/* The run that it is in. */
		for (p = q; (n = RB_PREV(pieces, &d->pieces, p)) != NULL &&
		    to_try(n) && continues(n, p); p = n)
			continue;
		while ((n = RB_NEXT(pieces, &d->pieces, q)) != NULL &&
		    to_try(n) && continues(q, n))
			q = n;
		map_run(d, p, q);
	}
}

/* The server that had them is gone. */
static void
forget_going(struct vd_client_dma *d)
{
	struct map *m;

	while ((m = TAILQ_FIRST(&d->going)) != NULL) {
		TAILQ_REMOVE(&d->going, m, link);
		d->nr_maps--;
		free(m);
	}
}

/* Send what has to be sent: all messages are between here and the return. */
static void
bring_up_to_date(struct vd_client_dma *d)
{
	struct vd_client *c = d->client;

	if (TAILQ_EMPTY(&d->going) && TAILQ_EMPTY(&d->waiting) &&
	    (TAILQ_EMPTY(&d->again) || d->nr_maps >= d->limits.max_dma_maps))
		return;
	if (vd__client_enter(c) == -1) {
		forget_going(d);
		return;
	}
	d->limits = c->limits;
	d->lost = false;
	join_neighbours(d, d->limits.pgsizes & -d->limits.pgsizes);
	send_unmaps(d);
	try_again(d);
	send_maps(d);
	await_all(d);
	if (d->lost)
		errno = ENOTCONN;
	(void)vd__client_leave(c, d->lost ? -1 : 0);
}

static void
told_commit(void *arg, struct mt_space *sp)
{
	(void)sp;
	bring_up_to_date(arg);
}

int
vd__client_dma_restore(struct vd_client *c)
{
	struct vd_client_dma *d = c->dma;
	struct piece *p;

	if (d == NULL)
		return (0);
	RB_FOREACH(p, pieces, &d->pieces) {
		if (p->map != NULL)
			give_up(d, p);
		else
			put_on(p, &d->waiting);
		p->error = 0;
		p->refused = false;
	}
	forget_going(d);
	bring_up_to_date(d);
	return (vd_client_check(c));
}

/* --- life ---------------------------------------------------------------- */

struct vd_client_dma *
vd_client_dma_create(struct vd_client *c, struct mt_space *sp,
    const struct vd_client_dma_ops *ops, void *arg)
{
	struct mt_topology *t = mt_space_topology(sp);
	struct vd_client_dma *d;
	int rv, saved;

	if (vd__client_set_topology(c, t) == -1)
		return (NULL);
	if ((d = calloc(1, sizeof(*d))) == NULL)
		return (NULL);
	d->l = (struct mt_listener){ .arg = d, .add = told_add,
	    .del = told_del, .commit = told_commit };
	d->client = vd__client_get(c);
	d->ops = ops;
	d->arg = arg;
	RB_INIT(&d->pieces);
	TAILQ_INIT(&d->waiting);
	TAILQ_INIT(&d->again);
	TAILQ_INIT(&d->going);
	rv = mt_topology_begin(t);
	if (rv == 0) {
		if (c->dma != NULL) {
			errno = EBUSY;
			rv = -1;
		} else if ((rv = mt_listener_register(sp, &d->l)) == 0)
			c->dma = d;
		saved = errno;
		(void)mt_topology_commit(t);
		errno = saved;
	}
	if (rv == 0)
		return (d);
	vd__client_put(c);
	free(d);
	return (NULL);
}

void
vd_client_dma_destroy(struct vd_client_dma *d)
{
	struct mt_topology *t;
	struct vd_client *c;

	if (d == NULL)
		return;
	c = d->client;
	t = c->topology;
	/* Fails in a listener only, where it must not be called. */
	if (mt_topology_begin(t) == -1)
		return;
	(void)mt_listener_unregister(&d->l);
	c->dma = NULL;
	(void)mt_topology_commit(t);
	vd__client_put(c);
	free(d);
}
