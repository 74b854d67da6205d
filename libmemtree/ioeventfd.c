/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Eventfds that are signalled instead of a device.  Those of a region are in
 * a treap that is never changed: an add or a del copies the nodes on the way,
 * so it costs the logarithm of their number, readers need no lock, a view
 * keeps those that it was made with, and what two views share is told by
 * comparing pointers.
 *
 * No access may wait, so only eventfds with O_NONBLOCK are taken.  Others who
 * have the eventfd can take the flag back; so it is polled before the write,
 * too, and waits only if they do that and fill it in the moment in between.
 */

#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* --- one of them --------------------------------------------------------- */

static void
put_eventfd(struct mt__eventfd *ev)
{
	int saved_errno = errno;

	/* The order is that of mt_region_put(). */
	if (atomic_fetch_sub_explicit(&ev->refs, 1, memory_order_acq_rel) != 1)
		return;
	if (ev->fd != -1)
		close(ev->fd);
	mt__waiting_sub(ev->topology, sizeof(*ev));
	free(ev);
	errno = saved_errno;
}

/*
 * Anything that can be polled and written could be signalled, but a pipe or a
 * socket would get eight bytes, and perhaps us SIGPIPE.  The kernel tells what
 * it is in /proc.  Without that, take what has no type, as no file, pipe,
 * socket or device does: what else that may be refuses to be written.
 */
static bool
is_eventfd(int fd)
{
	static const char want[] = "anon_inode:[eventfd]";
	char path[32], got[sizeof(want)];
	struct stat st;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, got, sizeof(got));
	if (n != -1)
		return ((size_t)n == sizeof(want) - 1 &&
		    memcmp(got, want, (size_t)n) == 0);
	return (fstat(fd, &st) == 0 && (st.st_mode & S_IFMT) == 0);
}

static bool
never_blocks(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return (flags != -1 && (flags & O_NONBLOCK) != 0 &&
	    (flags & O_ACCMODE) == O_RDWR);
}

static void
signal_one(const struct mt__eventfd *ev)
{
	struct pollfd p = { .fd = ev->fd, .events = POLLOUT };
	const uint64_t one = 1;

	/* One that is full is readable as it is: nothing is lost. */
	if (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0)
		return;
	/* Whatever it says, there is nobody to tell. */
	if (write(ev->fd, &one, sizeof(one)) == -1)
		return;
}

static int
compare(const struct mt__eventfd *a, const struct mt__eventfd *b)
{
	if (a->off != b->off)
		return (a->off < b->off ? -1 : 1);
	if (a->size != b->size)
		return (a->size < b->size ? -1 : 1);
	if (a->match != b->match)
		return (a->match < b->match ? -1 : 1);
	if (a->data != b->data)
		return (a->data < b->data ? -1 : 1);
	return (0);
}

/* Spread what lies side by side, as the finish of splitmix64 does. */
static uint64_t
mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31);
}

/* --- the treap ----------------------------------------------------------- */

struct mt__enode *
mt__eventfds_get(struct mt__enode *n)
{
	if (n != NULL)
		atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
	return (n);
}

void
mt__eventfds_put(struct mt__enode *n)
{
	/* The order is that of mt_region_put(). */
	if (n == NULL || atomic_fetch_sub_explicit(&n->refs, 1,
	    memory_order_acq_rel) != 1)
		return;
	mt__eventfds_put(n->left);
	mt__eventfds_put(n->right);
	mt__waiting_sub(n->ev->topology, sizeof(*n));
	put_eventfd(n->ev);
	free(n);
}

const struct mt__enode *
mt__eventfds_find(const struct mt__enode *n, const struct mt__eventfd *ev)
{
	int cmp;

	while (n != NULL && (cmp = compare(ev, n->ev)) != 0)
		n = cmp < 0 ? n->left : n->right;
	return (n);
}

/* A node, with references of its own to all that is in it. */
static int
make(struct mt__eventfd *ev, struct mt__enode *left, struct mt__enode *right,
    struct mt__enode **out)
{
	struct mt__enode *n;

	if ((n = malloc(sizeof(*n))) == NULL)
		return (-1);
	mt__waiting_add(ev->topology, sizeof(*n));
	atomic_init(&n->refs, 1);
	atomic_fetch_add_explicit(&ev->refs, 1, memory_order_relaxed);
	n->ev = ev;
	n->left = mt__eventfds_get(left);
	n->right = mt__eventfds_get(right);
	n->count = 1 + (left != NULL ? left->count : 0) +
	    (right != NULL ? right->count : 0);
	*out = n;
	return (0);
}

/* *out is n with ev, which it has not. */
static int
insert(const struct mt__enode *n, struct mt__eventfd *ev,
    struct mt__enode **out)
{
	struct mt__enode *sub, *low = NULL;
	bool left;
	int ret;

	if (n == NULL)
		return (make(ev, NULL, NULL, out));
	left = compare(ev, n->ev) < 0;
	if (insert(left ? n->left : n->right, ev, &sub) == -1)
		return (-1);
	if (sub->ev->weight <= n->ev->weight) {
		ret = make(n->ev, left ? sub : n->left, left ? n->right : sub,
		    out);
	} else if (left) {
		ret = make(n->ev, sub->right, n->right, &low);
		if (ret == 0)
			ret = make(sub->ev, sub->left, low, out);
	} else {
		ret = make(n->ev, n->left, sub->left, &low);
		if (ret == 0)
			ret = make(sub->ev, low, sub->right, out);
	}
	mt__eventfds_put(low);
	mt__eventfds_put(sub);
	return (ret);
}

/* *out has all of a and of b, which comes behind it. */
static int
join(struct mt__enode *a, struct mt__enode *b, struct mt__enode **out)
{
	struct mt__enode *sub;
	int ret;

	if (a == NULL || b == NULL) {
		*out = mt__eventfds_get(a != NULL ? a : b);
		return (0);
	}
	if (a->ev->weight > b->ev->weight) {
		if (join(a->right, b, &sub) == -1)
			return (-1);
		ret = make(a->ev, a->left, sub, out);
	} else {
		if (join(a, b->left, &sub) == -1)
			return (-1);
		ret = make(b->ev, sub, b->right, out);
	}
	mt__eventfds_put(sub);
	return (ret);
}

/* *out is n without ev, which it has. */
static int
take(const struct mt__enode *n, const struct mt__eventfd *ev,
    struct mt__enode **out)
{
	struct mt__enode *sub;
	int cmp = compare(ev, n->ev), ret;

	if (cmp == 0)
		return (join(n->left, n->right, out));
	if (take(cmp < 0 ? n->left : n->right, ev, &sub) == -1)
		return (-1);
	ret = cmp < 0 ? make(n->ev, sub, n->right, out) :
	    make(n->ev, n->left, sub, out);
	mt__eventfds_put(sub);
	return (ret);
}

void
mt__eventfds_diff(const struct mt__enode *n, const struct mt__enode *other,
    struct mt_range range, void (*fn)(void *, const struct mt__eventfd *),
    void *arg)
{
	const struct mt__enode *same;
	const struct mt__eventfd *ev;

	if (n == NULL)
		return;
	ev = n->ev;
	/* The same node has the same below it. */
	if ((same = mt__eventfds_find(other, ev)) == n)
		return;
	if (ev->off >= range.first)
		mt__eventfds_diff(n->left, other, range, fn, arg);
	if (ev->off >= range.first && ev->off <= range.last &&
	    (same == NULL || same->ev != ev))
		fn(arg, ev);
	if (ev->off <= range.last)
		mt__eventfds_diff(n->right, other, range, fn, arg);
}

static bool
signal_key(const struct mt__enode *n, const struct mt__eventfd *key)
{
	if ((n = mt__eventfds_find(n, key)) == NULL)
		return (false);
	signal_one(n->ev);
	return (true);
}

bool
mt__eventfds_signal(const struct mt__enode *n, mt_addr off, unsigned int size,
    uint64_t val)
{
	struct mt__eventfd key = { .off = off };
	bool found = signal_key(n, &key);

	key.size = size;
	found |= signal_key(n, &key);
	key.match = true;
	key.data = val;
	return (signal_key(n, &key) || found);
}

bool
mt__eventfd_shown(const struct mt__span *span, mt_addr addr,
    const struct mt__eventfd *ev)
{
	const struct mt__enode *found;

	if (span->extras == NULL ||
	    span->range.last - addr < mt__eventfd_span(ev))
		return (false);
	found = mt__eventfds_find(span->extras->eventfds, ev);
	return (found != NULL && found->ev == ev);
}

/* --- changes ------------------------------------------------------------- */

static bool
fields_ok(const struct mt_region *r, mt_addr off, unsigned int size,
    bool match, uint64_t data)
{
	if (size > 8 || (size & (size - 1)) != 0)
		return (false);
	if (size != 0 && off > MT_LAST_MAX - (size - 1))
		return (false);
	if (match && (size == 0 || (size < 8 && data >> (8 * size) != 0)))
		return (false);
	return (r->ops != NULL && r->ops->write != NULL);
}

/* The extras of r, but with other eventfds, of which it takes the reference. */
static struct mt__extras *
with(const struct mt_region *r, struct mt__enode *eventfds)
{
	const struct mt__extras *old = r->state.extras;
	size_t n = old != NULL ? old->nranges : 0;
	struct mt__extras *x;

	if ((x = mt__extras_alloc(r->topology, n)) == NULL) {
		mt__eventfds_put(eventfds);
		return (NULL);
	}
	x->eventfds = eventfds;
	if (n != 0)
		memcpy(x->ranges, old->ranges, n * sizeof(x->ranges[0]));
	return (x);
}

/* An eventfd on its own, whose reference is the caller's. */
static struct mt__eventfd *
create(const struct mt__eventfd *key)
{
	struct mt__eventfd *ev;

	if ((ev = malloc(sizeof(*ev))) == NULL)
		return (NULL);
	*ev = *key;
	mt__waiting_add(ev->topology, sizeof(*ev));
	atomic_init(&ev->refs, 1);
	ev->weight = mix(mix(mix(ev->off) + ev->size * 2u + ev->match) +
	    ev->data);
	ev->fd = fcntl(ev->callers, F_DUPFD_CLOEXEC, 0);
	if (ev->fd == -1) {
		put_eventfd(ev);
		return (NULL);
	}
	return (ev);
}

int
mt_region_add_eventfd(struct mt_region *r, mt_addr off, unsigned int size,
    bool match, uint64_t data, int fd)
{
	struct mt__eventfd *ev, key = { .topology = r->topology, .off = off,
	    .size = size, .match = match, .data = match ? data : 0,
	    .callers = fd };
	struct mt__enode *old, *new;
	struct mt__extras *x;
	int ret;

	if (!fields_ok(r, off, size, match, data)) {
		errno = EINVAL;
		return (-1);
	}
	if ((ev = create(&key)) == NULL)
		return (-1);
	/* Asked of the copy: the number could get another meaning meanwhile. */
	if (!is_eventfd(ev->fd) || !never_blocks(ev->fd)) {
		put_eventfd(ev);
		errno = EINVAL;
		return (-1);
	}
	if (mt__extras_begin(r) == -1) {
		put_eventfd(ev);
		return (-1);
	}
	old = r->state.extras != NULL ? r->state.extras->eventfds : NULL;
	if (mt__eventfds_find(old, ev) != NULL)
		ret = mt__extras_refuse(r, EEXIST);
	else if (insert(old, ev, &new) == -1 || (x = with(r, new)) == NULL)
		ret = mt__extras_refuse(r, ENOMEM);
	else
		ret = mt__extras_set(r, x);
	put_eventfd(ev);
	return (ret);
}

int
mt_region_del_eventfd(struct mt_region *r, mt_addr off, unsigned int size,
    bool match, uint64_t data, int fd)
{
	const struct mt__eventfd key = { .off = off, .size = size,
	    .match = match, .data = match ? data : 0 };
	const struct mt__enode *old, *found;
	struct mt__extras *x;
	struct mt__enode *new;

	if (!fields_ok(r, off, size, match, data)) {
		errno = EINVAL;
		return (-1);
	}
	if (mt__extras_begin(r) == -1)
		return (-1);
	old = r->state.extras != NULL ? r->state.extras->eventfds : NULL;
	found = mt__eventfds_find(old, &key);
	if (found == NULL || found->ev->callers != fd)
		return (mt__extras_refuse(r, ENOENT));
	if (take(old, &key, &new) == -1 || (x = with(r, new)) == NULL)
		return (mt__extras_refuse(r, ENOMEM));
	return (mt__extras_set(r, x));
}
