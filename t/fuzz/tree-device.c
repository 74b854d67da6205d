/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The devices of the tree, and what leads elsewhere. */

#include "t/fuzz/tree.h"

/* --- callbacks inside each other ----------------------------------------- */

void
init_locks(void)
{
	pthread_mutexattr_t attr;
	size_t i;

	check(pthread_mutexattr_init(&attr) == 0);
	check(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK) == 0);
	for (i = 0; i < LOCKS; i++)
		check(pthread_mutex_init(&w.locks[i], &attr) == 0);
	pthread_mutexattr_destroy(&attr);
}

/* No callback runs: none is held. */
void
check_locks(void)
{
	size_t i;

	check(w.nframes == 0);
	for (i = 0; i < LOCKS; i++) {
		check(pthread_mutex_trylock(&w.locks[i]) == 0);
		check(pthread_mutex_unlock(&w.locks[i]) == 0);
	}
}

static bool
is_inside(const struct mt_guard *guard)
{
	unsigned int i;

	for (i = 0; i < w.nframes; i++)
		if (guard != NULL && w.frames[i]->guard == guard)
			return (true);
	return (false);
}

/* One register of another device, or of this one. */
static void
access_inside(const struct node *n)
{
	struct mt_space *sp = n->to->sp;
	const unsigned int calls = w.ncalls, size = n->to_size;
	uint64_t val = 0x3333333333333333, refused = 0;
	struct mt_view *v = mt_space_view(sp);
	bool whole = false, denied = false;
	struct node *m = NULL;
	struct mt_section sec;
	enum mt_result res;
	mt_addr off = 0;

	if (mt_view_next(v, n->to_addr, &sec) &&
	    sec.range.first <= n->to_addr) {
		m = node_of(sec.region);
		off = sec.off + (n->to_addr - sec.range.first);
		whole = sec.range.last - n->to_addr >= size - 1;
	}
	if (m != NULL && m->op != NULL && is_inside(m->guard)) {
		denied = n->to_write || (sec.flags & MT_SECTION_ROM_MODE) == 0;
		refused = mt_guard_refused(m->guard);
	}
	if (n->to_write)
		wrote(n->to, v, n->to_addr, size, false);
	mt_view_put(v);
	res = n->to_write ?
	    mt_space_store(sp, n->to_addr, size, MT_LITTLE, val,
	    MT_ATTRS_NONE) :
	    mt_space_load(sp, n->to_addr, size, MT_LITTLE, &val,
	    MT_ATTRS_NONE);
	if (denied) {
		check((res & MT_DENIED) != 0);
		if (whole)
			check(res == MT_DENIED && w.ncalls == calls &&
			    mt_guard_refused(m->guard) == refused + 1 &&
			    (n->to_write || val == 0));
	} else if (m != NULL && mt_region_kind(m->r) == MT_IO && whole &&
	    w.depth == 0 && m->x.nevents == 0 && calls < CALLS &&
	    takes(m, off, size, n->to_write) && !too_wide(m, off, size) &&
	    mt_region_last(m->r) - off >= size - 1)
		check(w.ncalls > calls);
}

static void
enter(struct node *n)
{
	check(w.nframes < FRAMES);
	check(!is_inside(n->guard));
	/* It checks for errors: this thread has it. */
	if (n->lock != NULL)
		check(pthread_mutex_lock(n->lock) == EDEADLK);
	w.frames[w.nframes++] = n;
	if (n->to != NULL && n->to->sp != NULL && !w.quiet && w.nframes < 4)
		access_inside(n);
}

static void
leave(void)
{
	check(w.nframes > 0);
	w.nframes--;
}

/* A guard or a lock, and what the device's callbacks access. */
void
fence(struct node *n)
{
	const unsigned int what = (unsigned int)next(&w.in, 1);
	struct seat *to = pick_seat();
	const mt_addr addr = pick_addr();
	const struct node *c;
	bool in_use, ok;
	int ret;

	if (n->r == NULL)
		return;
	if (what % 4 >= 2) {
		n->to = what % 4 == 2 && n->op != NULL ? to : NULL;
		n->to_addr = addr;
		n->to_size = 1u << (what >> 2) % 4;
		n->to_write = (what & 0x10) != 0;
		return;
	}
	in_use = mt_region_parent(n->r) != NULL || is_root(n);
	for (c = w.nodes; c < w.nodes + NODES; c++)
		in_use |= c->r != NULL && c->target == n;
	/* Readers of old views may still be in it. */
	if (n->used && !in_use)
		return;
	ok = mt_region_kind(n->r) == MT_IO ||
	    mt_region_kind(n->r) == MT_ROM_DEVICE;
	if (what % 4 == 0) {
		ret = mt_region_set_guard(n->r, &w.guards[(what >> 2) %
		    GUARDS]);
		ok &= !in_use && n->guard == NULL;
		if (ret == 0)
			n->guard = &w.guards[(what >> 2) % GUARDS];
	} else {
		ret = mt_region_set_lock(n->r, &w.locks[(what >> 2) % LOCKS]);
		/* An IOMMU can have this one. */
		ok |= mt_region_kind(n->r) == MT_IOMMU;
		ok &= !in_use && n->lock == NULL;
		if (ret == 0) {
			n->lock = &w.locks[(what >> 2) % LOCKS];
			w.has_locks = true;
		}
	}
	check(ret == (ok ? 0 : -1));
}

/* --- what a device accepts ----------------------------------------------- */

bool
takes(const struct node *n, mt_addr off, unsigned int size, bool is_write)
{
	const struct mt_io_ops *op = n->op;

	if (is_write ? op->write == NULL : op->read == NULL)
		return (false);
	if (op->accepts != NULL && off % 32 == 31)
		return (false);
	if (!op->valid.unaligned && off % size != 0)
		return (false);
	return (op->valid.max == 0 ||
	    (size >= op->valid.min && size <= op->valid.max));
}

/* Widened to what is implemented it would reach past the end. */
bool
too_wide(const struct node *n, mt_addr off, unsigned int size)
{
	return (size < n->op->impl.min &&
	    mt_region_last(n->r) - off < n->op->impl.min - 1u);
}

/* --- callbacks ----------------------------------------------------------- */

static void
check_register(struct node *n, mt_addr off, unsigned int size)
{
	if (w.ncalls < CALLS)
		w.calls[w.ncalls++] = (struct call){ n, off, size };
	check(size == 1 || size == 2 || size == 4 || size == 8);
	/* Views may be as they were when regions are not. */
	check(w.depth > 0 || w.by_old_view || off <= mt_region_last(n->r));
}

static enum mt_result
dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct node *n = arg;

	(void)attrs;
	check_register(n, off, size);
	enter(n);
	*val = off * 0x0101010101010101u;
	leave();
	return (off % 7 == 6 ? MT_DEVICE : MT_OK);
}

/* A register that hides another region, as one that moves a BAR would. */
static enum mt_result
dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct node *n = arg, *other = &w.nodes[val % NODES];

	(void)attrs;
	check_register(n, off, size);
	enter(n);
	if (w.busy == NULL && off == 0 && other->r != NULL) {
		w.busy = n;
		went(mt_region_set_enabled(other->r, (val & 0x80) != 0), 0, 0);
		w.busy = NULL;
	}
	leave();
	return (MT_OK);
}

static bool
dev_accepts(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	(void)size, (void)is_write, (void)attrs;
	enter(arg);
	leave();
	return (off % 32 != 31);
}

/* Any number of bytes at once. */
static void
check_buf(const struct node *n, mt_addr off, size_t len)
{
	check(len > 0 && off + (len - 1) >= off);
	check(w.depth > 0 || w.by_old_view ||
	    off + (len - 1) <= mt_region_last(n->r));
}

static void
fill(uint8_t *buf, mt_addr off, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(off + i);
}

static enum mt_result
dev_read_buf(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)attrs;
	check_buf(arg, off, len);
	enter(arg);
	fill(buf, off, len);
	leave();
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

static enum mt_result
dev_write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	volatile uint8_t sum = 0;
	size_t i;

	(void)attrs;
	check_buf(arg, off, len);
	enter(arg);
	leave();
	for (i = 0; i < len; i++)
		sum ^= ((const uint8_t *)buf)[i];
	return (off % 5 == 4 ? MT_DEVICE : MT_OK);
}

/* Done at once, or kept until the script says so. */
static void
dev_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct flight *f;

	(void)attrs;
	check_buf(arg, off, len);
	enter(arg);
	if (!is_write)
		fill(buf, off, len);
	for (f = w.flights; off % 4 != 3 && f < w.flights + PIECES; f++)
		if (f->piece == NULL) {
			*f = (struct flight){ piece, buf, len, is_write,
			    off % 8 == 5 };
			leave();
			return;
		}
	mt_access_complete(piece, off % 5 == 4 ? MT_DECODE : MT_OK);
	leave();
}

/* For those who wait: as nobody else would complete it, at once. */
static void
dev_submit_now(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	mt_access_complete(piece, is_write ?
	    dev_write_buf(arg, off, buf, len, attrs) :
	    dev_read_buf(arg, off, buf, len, attrs));
}

static bool
dev_cancel(void *arg, struct mt_piece *piece)
{
	struct flight *f;

	enter(arg);
	leave();
	for (f = w.flights; f < w.flights + PIECES; f++)
		if (f->piece == piece && !f->stays) {
			f->piece = NULL;
			return (true);
		}
	return (false);
}

const struct mt_io_ops dev_ops[DEV_OPS] = {
	{ .read = dev_read, .write = dev_write, .endian = MT_LITTLE },
	{ .read = dev_read, .write = dev_write, .endian = MT_BIG,
	    .valid = { 1, 8, true }, .impl = { 4, 4, false } },
	{ .read = dev_read, .write = dev_write, .accepts = dev_accepts,
	    .endian = MT_LITTLE, .valid = { 2, 4, false },
	    .impl = { 1, 8, true } },
	{ .read = dev_read, .endian = MT_HOST, .valid = { 8, 8, false },
	    .impl = { 1, 1, false } },
	{ .read = dev_read, .write = dev_write, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf },
	{ .write_buf = dev_write_buf },
	{ .read_buf = dev_read_buf, .write_buf = dev_write_buf,
	    .submit_buf = dev_submit, .cancel_buf = dev_cancel },
	{ .read = dev_read, .read_buf = dev_read_buf,
	    .write_buf = dev_write_buf, .submit_buf = dev_submit },
	{ .submit_buf = dev_submit_now },
};

/* Leads anywhere and nowhere, also back, by windows of all sizes. */
static void
iommu_translate(void *arg, mt_addr off, unsigned int flags,
    struct mt_attrs attrs, struct mt_iotlb *out)
{
	static const mt_addr masks[] = { 0xfff, 0xff, 0, MT_LAST_MAX, 0xfff,
	    0xffff, 0xf0f, 7 };
	const struct node *n = arg;
	const uint64_t x = ((off >> 4) + 1) * 0x9e3779b97f4a7c15u;

	(void)attrs;
	check(n->r != NULL && flags < 8);
	out->target = w.seats[(x >> 32) % SPACES].sp;
	out->addr = (x >> 8 & 7) != 0 ? x >> 48 : x;
	out->mask = masks[x >> 11 & 7];
	out->perm = (x >> 14 & 7) < 3 ? x >> 14 & 3 :
	    MT_IOMMU_READ | MT_IOMMU_WRITE;
}

const struct mt_iommu_ops iommu_ops = {
	.translate = iommu_translate,
};
