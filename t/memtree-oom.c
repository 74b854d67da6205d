/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Every public call with its first, second, ... allocation failing, until it
 * makes no more: it fails cleanly, leaves all as it was, leaks nothing, and
 * works when it is called again.  Allocations are memory, mappings, memfds
 * and threads.  Calls that make none are a list of their own, and what they
 * make is counted.  t/symbols.t looks whether every public function is named
 * in the output; inline ones, which only call others, are left out.
 */

#include <sys/mman.h>
#include <sys/syscall.h>

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>

#include "t/util.h"

/* --- allocations that fail on demand ----------------------------------- */

static __thread long countdown;		/* 1: the next one fails; 0: none */
static __thread bool hit;		/* one has failed */
static long live;			/* atomic: allocations not freed */

#if !T_ASAN && !T_TSAN

static bool
fail(void)
{
	if (countdown == 0 || --countdown > 0)
		return (false);
	hit = true;
	return (true);
}

void	*__libc_malloc(size_t size);
void	*__libc_calloc(size_t n, size_t size);
void	*__libc_realloc(void *p, size_t size);
void	__libc_free(void *p);

static int (*real_pthread_create)(pthread_t *, const pthread_attr_t *,
    void *(*)(void *), void *);

static void *
counted(void *p)
{
	if (p != NULL)
		__atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
	return (p);
}

void *
malloc(size_t size)
{
	if (fail()) {
		errno = ENOMEM;
		return (NULL);
	}
	return (counted(__libc_malloc(size)));
}

void *
calloc(size_t n, size_t size)
{
	if (fail()) {
		errno = ENOMEM;
		return (NULL);
	}
	return (counted(__libc_calloc(n, size)));
}

void *
realloc(void *p, size_t size)
{
	if (p == NULL)
		return (malloc(size));
	if (fail()) {
		errno = ENOMEM;
		return (NULL);
	}
	return (__libc_realloc(p, size));
}

void *
reallocarray(void *p, size_t n, size_t size)
{
	if (size != 0 && n > SIZE_MAX / size) {
		errno = ENOMEM;
		return (NULL);
	}
	return (realloc(p, n * size));
}

void
free(void *p)
{
	if (p != NULL)
		__atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
	__libc_free(p);
}

void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	void *p;

	if (fail()) {
		errno = ENOMEM;
		return (MAP_FAILED);
	}
	p = (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
	if (p != MAP_FAILED)
		__atomic_add_fetch(&live, 1, __ATOMIC_RELAXED);
	return (p);
}

int
munmap(void *addr, size_t len)
{
	__atomic_sub_fetch(&live, 1, __ATOMIC_RELAXED);
	return ((int)syscall(SYS_munmap, addr, len));
}

int
memfd_create(const char *name, unsigned int flags)
{
	if (fail()) {
		errno = ENOMEM;
		return (-1);
	}
	return ((int)syscall(SYS_memfd_create, name, flags));
}

int
pthread_create(pthread_t *thread, const pthread_attr_t *attr,
    void *(*fn)(void *), void *arg)
{
	if (fail())
		return (EAGAIN);
	return (real_pthread_create(thread, attr, fn, arg));
}

static void
begin_failing(void)
{
	union {
		void *p;
		int (*fn)(pthread_t *, const pthread_attr_t *,
		    void *(*)(void *), void *);
	} real;

	real.p = dlsym(RTLD_NEXT, "pthread_create");
	must(real.p != NULL);
	real_pthread_create = real.fn;
}

#else

static void
begin_failing(void)
{
	skip_all("a sanitizer has an allocator of its own");
}

#endif

/* --- what is called ---------------------------------------------------- */

/* A device that takes its time. */
struct slow {
	struct mt_io_ops ops;
	struct mt_piece *piece;		/* NULL: none in flight */
	bool at_once;			/* it takes none */
};

#define SLOWS	3

struct world {
	struct mt_topology *t;
	struct mt_region *root, *box, *ram, *rom, *romd, *io, *alias, *orphan;
	struct mt_region *iommu;	/* shows ram, io, and twice later */
	struct mt_space *sp, *sp2, *made_space;
	struct mt_region *made;
	struct t_listener l;
	struct mt_listener l2;
	struct t_dev dev;
	struct mt_mapping map;
	bool mapped;
	int resized;			/* calls that told of it */
	struct slow slow[SLOWS];
	struct mt_access acc;
	unsigned int ndone;
	struct iovec iov[4];
	struct mt_mapping maps[4];
	struct mt_sg sg;
	struct mt_dirty_snapshot *snapshot;
	int fd, eventfd;
	FILE *fp;
};

static void
slow_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	struct slow *slow = arg;

	(void)off, (void)buf, (void)len, (void)is_write, (void)attrs;
	if (slow->at_once)
		mt_access_complete(piece, MT_OK);
	else
		slow->piece = piece;
}

static bool
slow_cancel(void *arg, struct mt_piece *piece)
{
	struct slow *slow = arg;

	(void)piece;
	slow->piece = NULL;
	return (true);
}

static int
made(struct world *w, struct mt_region *r)
{
	w->made = r;
	return (r == NULL ? -1 : 0);
}

static int
do_container(struct world *w)
{
	return (made(w, mt_region_create_container(w->t, "x", 0xfff)));
}

static int
do_reserved(struct world *w)
{
	return (made(w, mt_region_create_reserved(w->t, "x", 0xfff)));
}

static int
do_alias(struct world *w)
{
	return (made(w, mt_region_create_alias(w->t, "x", w->ram, 0,
	    0xfff)));
}

static int
do_io(struct world *w)
{
	return (made(w, mt_region_create_io(w->t, "x", 0xfff, &w->dev.ops,
	    &w->dev)));
}

static int
do_ram(struct world *w)
{
	return (made(w, mt_region_create_ram(w->t, "x", 0xfff, NULL)));
}

static int
do_rom(struct world *w)
{
	return (made(w, mt_region_create_rom(w->t, "x", 0xfff, NULL)));
}

static int
do_romd(struct world *w)
{
	return (made(w, mt_region_create_rom_device(w->t, "x", 0xfff, NULL,
	    &w->dev.ops, &w->dev)));
}

static int
do_memfd(struct world *w)
{
	static const struct mt_backing backing = {
	    .kind = MT_BACKING_MEMFD };

	return (made(w, mt_region_create_ram(w->t, "x", 0xfff, &backing)));
}

static int
do_fd(struct world *w)
{
	const struct mt_backing backing = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_KEEP_FD, .fd = w->fd };

	return (made(w, mt_region_create_ram(w->t, "x", 0xfff, &backing)));
}

static int
do_ptr(struct world *w)
{
	const struct mt_backing backing = { .kind = MT_BACKING_PTR,
	    .ptr = w->l.own };

	return (made(w, mt_region_create_ram(w->t, "x", 0xf, &backing)));
}

static int
do_ram_device(struct world *w)
{
	return (made(w, mt_region_create_ram_device(w->t, "x", 0xfff, NULL)));
}

static int
do_space(struct world *w)
{
	w->made_space = mt_space_create(w->box, "x");
	return (w->made_space == NULL ? -1 : 0);
}

static int
do_space_again(struct world *w)
{
	w->made_space = mt_space_create(w->root, "x");
	return (w->made_space == NULL ? -1 : 0);
}

static int
do_add(struct world *w)
{
	return (mt_region_add(w->root, w->orphan, 0x800, 0));
}

static int
do_del(struct world *w)
{
	return (mt_region_del(w->box));
}

static int
do_move(struct world *w)
{
	return (mt_region_move(w->ram, 0x300));
}

static int
do_resize(struct world *w)
{
	return (mt_region_resize(w->ram, 0x123));
}

static int
do_grow(struct world *w)
{
	return (mt_region_resize(w->ram, 0x17ff));
}

static void
resized(void *arg, struct mt_region *r, mt_addr last)
{
	struct world *w = arg;

	(void)r, (void)last;
	w->resized++;
}

static int
do_enable(struct world *w)
{
	return (mt_region_set_enabled(w->ram, false));
}

static int
do_readonly(struct world *w)
{
	return (mt_region_set_readonly(w->box, true));
}

static int
do_nonvolatile(struct world *w)
{
	return (mt_region_set_nonvolatile(w->ram, true));
}

static int
do_unmergeable(struct world *w)
{
	return (mt_region_set_unmergeable(w->ram, true));
}

static int
do_rom_mode(struct world *w)
{
	return (mt_region_set_rom_mode(w->romd, false));
}

static int
do_alias_offset(struct world *w)
{
	return (mt_region_set_alias_offset(w->alias, 0x80));
}

static int
do_add_eventfd(struct world *w)
{
	return (mt_region_add_eventfd(w->io, 8, 4, true, 7, w->eventfd));
}

static int
do_del_eventfd(struct world *w)
{
	return (mt_region_del_eventfd(w->io, 4, 4, false, 0, w->eventfd));
}

static int
do_add_coalescing(struct world *w)
{
	return (mt_region_add_coalescing(w->io, 0x80, 0x8f));
}

static int
do_clear_coalescing(struct world *w)
{
	return (mt_region_clear_coalescing(w->io));
}

/* A transaction of all kinds of changes, whose commit may fail. */
static void
before_commit(struct world *w)
{
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_del(w->io) == 0);
	must(mt_region_move(w->ram, 0x40) == 0);
	must(mt_region_add(w->box, w->orphan, 0x100, -3) == 0);
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_resize(w->rom, 7) == 0);
	must(mt_region_set_alias_offset(w->alias, 0x10) == 0);
	must(mt_region_set_enabled(w->romd, false) == 0);
	must(mt_region_move(w->box, 0x2800) == 0);
	must(mt_region_move(w->box, 0x2900) == 0);
	must(mt_topology_commit(w->t) == 0);
	must(mt_region_add(w->root, w->io, 0x9000, 9) == 0);
	must(mt_region_set_readonly(w->box, true) == 0);
	must(mt_region_del(w->rom) == 0);
	must(do_add_eventfd(w) == 0);
	must(do_del_eventfd(w) == 0);
	must(do_add_coalescing(w) == 0);
}

static int
do_commit(struct world *w)
{
	int ret = mt_topology_commit(w->t);

	if (ret == -1 && errno == EPERM) {
		/* The second try: all changes were taken back. */
		before_commit(w);
		ret = mt_topology_commit(w->t);
	}
	return (ret);
}

/* A change that fails inside of a transaction leaves it open. */
static void
before_inner(struct world *w)
{
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_move(w->box, 0x2800) == 0);
}

static int
do_inner(struct world *w)
{
	return (mt_region_move(w->ram, 0x300));
}

static void
after_inner(struct world *w)
{
	must(mt_topology_commit(w->t) == 0);
}

static int
do_map_bounce(struct world *w)
{
	int ret = mt_dma_map(w->sp, 0x3f00, 64, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, &w->map);

	w->mapped = ret == 0;
	if (ret == -1)
		must(w->map.ptr == NULL);
	return (ret);
}

static int
quiet_map(struct world *w)
{
	if (mt_dma_map(w->sp, 0x1000, 64, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &w->map) == -1 || mt_dma_set_dirty(&w->map, 0, 8) == -1)
		return (-1);
	return (mt_dma_unmap(&w->map, 0));
}

static void
before_map(struct world *w)
{
	must(quiet_map(w) == 0);
}

static void *
map_first(void *arg)
{
	struct world *w = arg;

	must(mt_dma_map(w->sp, 0x1000, 64, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &w->map) == 0);
	return (NULL);
}

static void
before_unmap_first(struct world *w)
{
	pthread_t thread;

	must(pthread_create(&thread, NULL, map_first, w) == 0);
	pthread_join(thread, NULL);
}

static int
do_unmap(struct world *w)
{
	return (mt_dma_unmap(&w->map, 0));
}

static int
do_map_zero(struct world *w)
{
	int ret = mt_dma_map(w->sp, 0x3f00, 64, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &w->map);

	w->mapped = ret == 0;
	return (ret);
}

/* --- through an IOMMU ---------------------------------------------------- */

static void
later_submit(void *arg, mt_addr off, void *buf, size_t len, bool is_write,
    struct mt_attrs attrs, struct mt_piece *piece)
{
	(void)arg, (void)off, (void)is_write, (void)attrs;
	memset(buf, 1, len);
	mt_access_complete(piece, MT_OK);
}

static const struct mt_io_ops later_ops = { .submit_buf = later_submit };

static void
translate(void *arg, mt_addr off, unsigned int flags, struct mt_attrs attrs,
    struct mt_iotlb *out)
{
	static const mt_addr to[] = { 0x1000, 0x3000, 0x4000, 0x4000 };
	struct world *w = arg;

	(void)flags, (void)attrs;
	*out = (struct mt_iotlb){ w->sp, to[off >> 12 & 3] | (off & 0xf00),
	    0xff, MT_IOMMU_READ | MT_IOMMU_WRITE };
}

static const struct mt_iommu_ops iommu_ops = { .translate = translate };

static int
do_iommu(struct world *w)
{
	return (made(w, mt_region_create_iommu(w->t, "x", 0xfff, &iommu_ops,
	    w)));
}

static int
do_iommu_bounce(struct world *w)
{
	int ret = mt_dma_map(w->sp, 0xbf00, 64, MT_DMA_READ, MT_ATTRS_NONE,
	    &w->map);

	w->mapped = ret == 0;
	return (ret);
}

static void
submitted(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

/* What needs memory for a handle, and has none, is told as a result. */
static int
do_iommu_submit(struct world *w)
{
	enum mt_result res = MT_DENIED;
	struct mt_access acc;
	uint8_t buf[0x600];
	size_t i, ones = 0;

	memset(buf, 0xee, sizeof(buf));
	if (mt_access_submit(w->sp, &acc, 0xc000, buf, sizeof(buf), false,
	    MT_ATTRS_NONE, submitted, &res) == -1)
		return (-1);
	for (i = 0; i < sizeof(buf); i++)
		if (buf[i] == 1)
			ones++;
		else if (buf[i] != 0)
			return (-1);
	if (hit)
		return (res == MT_DEVICE && ones == 0x500 ? 0 : -1);
	return (res == MT_OK && ones == 0x600 ? 0 : -1);
}

/* An access of so many regions that take their time. */
static void
access_done(void *arg, enum mt_result res)
{
	struct world *w = arg;

	(void)res;
	w->ndone++;
}

static int
submit(struct world *w, size_t len)
{
	static uint8_t buf[0x1000];

	return (mt_access_submit(w->sp, &w->acc, 0x8000, buf, len, true,
	    MT_ATTRS_NONE, access_done, w));
}

static void
complete(struct world *w)
{
	struct mt_piece *piece;
	unsigned int i;

	for (i = 0; i < SLOWS; i++)
		if ((piece = w->slow[i].piece) != NULL) {
			w->slow[i].piece = NULL;
			mt_access_complete(piece, MT_OK);
		}
}

static int
do_submit(struct world *w)
{
	unsigned int i, nbegun = 0;
	int ret = submit(w, 0x300);

	for (i = 0; i < SLOWS; i++)
		nbegun += w->slow[i].piece != NULL;
	must(nbegun == (ret == -1 ? 0 : SLOWS) && w->ndone == 0);
	complete(w);
	must(w->ndone == (ret == -1 ? 0 : 1));
	return (ret);
}

/* A list of which the memory of one range is staged. */
static int
map_sg(struct world *w, const struct mt_range *ranges, size_t n)
{
	int ret = mt_dma_map_sg(w->sp, ranges, n, MT_DMA_WRITE, MT_ATTRS_NONE,
	    w->iov, w->maps, T_COUNT(w->maps), &w->sg), error;

	if (ret == -1)
		return (-1);
	error = w->sg.error;
	must(mt_dma_unmap_sg(&w->sg, 0) == 0);
	errno = error;
	return (error != 0 ? -1 : 0);
}

static int
do_map_sg(struct world *w)
{
	static const struct mt_range ranges[] = { { 0x3f00, 0x3f0f },
	    { 0x1000, 0x10ff } };

	return (map_sg(w, ranges, T_COUNT(ranges)));
}

static int
do_map_sg_later(struct world *w)
{
	static const struct mt_range ranges[] = { { 0x1000, 0x10ff },
	    { 0x3f00, 0x3f0f }, { 0x1000, 0x10ff } };

	return (map_sg(w, ranges, T_COUNT(ranges)));
}

static int
do_listen(struct world *w)
{
	return (mt_listener_register(w->sp2, &w->l2));
}

/* A commit that fails leaves the view of a new space to the next one. */
static int
do_listen_late(struct world *w)
{
	long nth = countdown;

	countdown = 0;
	must(mt_topology_begin(w->t) == 0);
	must((w->made_space = mt_space_create(w->box, "x")) != NULL);
	countdown = 1;
	must(mt_topology_commit(w->t) == -1 && errno == ENOMEM);
	hit = false;
	countdown = nth;
	return (mt_listener_register(w->made_space, &w->l2));
}

static void
before_unlisten(struct world *w)
{
	must(mt_listener_register(w->sp2, &w->l2) == 0);
}

static int
do_unlisten(struct world *w)
{
	return (mt_listener_unregister(&w->l2));
}

/* Where there is no RAM there is no I/O. */
static void
settle(void *arg, struct mt_space *sp)
{
	struct world *w = arg;

	(void)sp;
	(void)mt_region_set_enabled(w->io, mt_region_enabled(w->ram));
}

static void
before_settle(struct world *w)
{
	w->l2 = (struct mt_listener){ .arg = w, .settle = settle };
	must(mt_listener_register(w->sp, &w->l2) == 0);
}

static int
do_settle(struct world *w)
{
	return (mt_region_set_enabled(w->ram, false));
}

/* If there was no memory to settle it then, there was at the next chance. */
static void
after_settle(struct world *w)
{
	must(mt_region_set_enabled(w->rom, !mt_region_enabled(w->rom)) == 0);
	must(!mt_region_enabled(w->io));
}

static void
settle_space(void *arg, struct mt_space *sp)
{
	struct world *w = arg;

	(void)sp;
	if (w->made_space == NULL)
		w->made_space = mt_space_create(w->box, "x");
}

static void
before_settle_space(struct world *w)
{
	w->l2 = (struct mt_listener){ .arg = w, .settle = settle_space };
	must(mt_listener_register(w->sp, &w->l2) == 0);
	must(mt_space_destroy(w->made_space) == 0);
	w->made_space = NULL;
}

static void
after_settle_space(struct world *w)
{
	must(mt_region_set_enabled(w->rom, !mt_region_enabled(w->rom)) == 0);
	must(w->made_space != NULL);
}

static int
do_dump_tree(struct world *w)
{
	return (mt_dump_tree(w->fp, w->root));
}

static int
do_dump_view(struct world *w)
{
	return (mt_dump_view(w->fp, w->sp));
}

static int
do_dump_dot(struct world *w)
{
	return (mt_dump_dot(w->fp, w->root));
}

static int
do_dump_svg(struct world *w)
{
	return (mt_dump_svg(w->fp, w->sp));
}

static int
do_log(struct world *w)
{
	return (mt_region_set_log(w->ram, 1, true));
}

static void
before_unlog(struct world *w)
{
	must(mt_region_set_log(w->ram, 1, true) == 0);
	must(mt_region_test_and_clear_dirty(w->ram, 1, 0, 0x1000) == 1);
}

static int
do_unlog(struct world *w)
{
	return (mt_region_set_log(w->ram, 1, false));
}

static void
before_log_inner(struct world *w)
{
	before_unlog(w);
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_move(w->box, 0x2800) == 0);
}

static int
do_log_inner(struct world *w)
{
	return (mt_region_set_log(w->ram, 2, true));
}

/* Whose commit may fail: then the logs are as they were. */
static void
before_log_commit(struct world *w)
{
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_move(w->box, 0x2800) == 0);
	must(mt_region_set_log(w->ram, 1, true) == 0);
	must(mt_region_set_log(w->orphan, 2, true) == 0);
}

static int
do_log_commit(struct world *w)
{
	int ret = mt_topology_commit(w->t);

	if (ret == -1 && errno == EPERM) {
		/* The second try: all changes were taken back. */
		must(mt_region_log(w->orphan) == 0);
		before_log_commit(w);
		ret = mt_topology_commit(w->t);
	}
	must(ret == -1 || mt_region_log(w->orphan) == 1 << 2);
	return (ret);
}

static int
do_snapshot(struct world *w)
{
	struct mt_dirty_snapshot *s;

	must(mt_region_set_dirty(w->ram, 0, 1) == 0);
	s = mt_dirty_snapshot_create(w->ram, 1, 0, 0x1000);
	if (s == NULL) {
		must(mt_region_get_dirty(w->ram, 1, 0, 1) == 1);
		return (-1);
	}
	must(mt_dirty_snapshot_get(s, 0, 1));
	mt_dirty_snapshot_destroy(s);
	return (0);
}

static void
before_fence(struct world *w)
{
	must(do_io(w) == 0);
}

/* On one that nothing shows yet. */
static int
do_guard(struct world *w)
{
	static struct mt_guard guard;

	if (mt_region_set_guard(w->made, &guard) == -1)
		return (-1);
	must(mt_guard_refused(&guard) == 0);
	return (0);
}

static int
do_lock(struct world *w)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

	return (mt_region_set_lock(w->made, &lock));
}

static int
do_set_resized(struct world *w)
{
	return (mt_region_set_resized(w->orphan, resized, w));
}

/* Calls that allocate, in the order of the headers. */
static const struct call {
	const char *name;
	int (*fn)(struct world *);
	bool may_fail;
	void (*before)(struct world *);
	void (*after)(struct world *);
	bool same;		/* it changes nothing that is looked at */
	bool rollback;		/* failing, it undoes what before did, too */
} calls[] = {
	{ "mt_topology_commit", do_commit, true, .before = before_commit,
	    .rollback = true },
	{ "mt_region_create_container", do_container, true, .same = true },
	{ "mt_region_create_reserved", do_reserved, true, .same = true },
	{ "mt_region_create_alias", do_alias, true, .same = true },
	{ "mt_region_create_ram", do_ram, true, .same = true },
	{ "mt_region_create_ram (memfd)", do_memfd, true, .same = true },
	{ "mt_region_create_ram (fd)", do_fd, true, .same = true },
	{ "mt_region_create_ram (ptr)", do_ptr, true, .same = true },
	{ "mt_region_create_rom", do_rom, true, .same = true },
	{ "mt_region_create_rom_device", do_romd, true, .same = true },
	{ "mt_region_create_ram_device", do_ram_device, true, .same = true },
	{ "mt_region_create_io", do_io, true, .same = true },
	{ "mt_region_create_iommu", do_iommu, true, .same = true },
	{ "mt_region_add", do_add, .may_fail = true },
	{ "mt_region_del", do_del, .may_fail = true },
	{ "mt_region_move", do_move, .may_fail = true },
	{ "mt_region_move in a transaction", do_inner, true,
	    .before = before_inner, .after = after_inner },
	{ "mt_region_resize", do_resize, .may_fail = true },
	{ "mt_region_set_guard and mt_guard_refused", do_guard,
	    .may_fail = true, .same = true, .before = before_fence },
	{ "mt_region_set_lock", do_lock, .may_fail = true, .same = true,
	    .before = before_fence },
	{ "mt_region_set_resized", do_set_resized, .may_fail = true,
	    .same = true },
	{ "mt_region_resize (grown)", do_grow, .may_fail = true },
	{ "mt_region_set_enabled", do_enable, .may_fail = true },
	{ "mt_region_set_readonly", do_readonly, .may_fail = true },
	{ "mt_region_set_nonvolatile", do_nonvolatile, .may_fail = true },
	{ "mt_region_set_unmergeable", do_unmergeable, .may_fail = true },
	{ "mt_region_set_rom_mode", do_rom_mode, .may_fail = true },
	{ "mt_region_set_alias_offset", do_alias_offset, .may_fail = true },
	{ "mt_region_add_eventfd", do_add_eventfd, .may_fail = true },
	{ "mt_region_del_eventfd", do_del_eventfd, .may_fail = true },
	{ "mt_region_add_coalescing", do_add_coalescing, .may_fail = true },
	{ "mt_region_clear_coalescing", do_clear_coalescing,
	    .may_fail = true },
	{ "mt_space_create", do_space, true, .same = true },
	{ "mt_space_create (root shared)", do_space_again, true,
	    .same = true },
	{ "mt_dma_map (filled)", do_map_bounce, true, .same = true },
	{ "mt_dma_map (zeroed)", do_map_zero, true, .same = true },
	{ "mt_dma_map (memory, the first of a thread)", quiet_map, false,
	    .same = true },
	{ "mt_dma_unmap (memory, the first of a thread)", do_unmap, false,
	    .before = before_unmap_first, .same = true },
	{ "mt_dma_map_sg (first range)", do_map_sg, true, .same = true },
	{ "mt_dma_map_sg (later range)", do_map_sg_later, true,
	    .same = true },
	{ "mt_access_submit", do_submit, true, .same = true },
	{ "mt_dma_map through an IOMMU (filled)", do_iommu_bounce, true,
	    .same = true },
	{ "mt_access_submit through an IOMMU", do_iommu_submit, false,
	    .same = true },
	{ "mt_listener_register", do_listen, false, .same = true },
	{ "mt_listener_register of a view that was not made", do_listen_late,
	    false, .same = true },
	{ "mt_listener_unregister", do_unlisten, false,
	    .before = before_unlisten, .same = true },
	{ "a change that is settled", do_settle, true,
	    .before = before_settle, .after = after_settle },
	{ "a space that is made to settle", do_settle, true,
	    .before = before_settle_space, .after = after_settle_space },
	{ "mt_region_set_log (on)", do_log, .may_fail = true },
	{ "mt_region_set_log (off)", do_unlog, true,
	    .before = before_unlog, .same = true },
	{ "mt_region_set_log in a transaction", do_log_inner, true,
	    .before = before_log_inner, .after = after_inner },
	{ "mt_topology_commit of logs", do_log_commit, true,
	    .before = before_log_commit, .rollback = true },
	{ "mt_dirty_snapshot_create", do_snapshot, true,
	    .before = before_unlog, .same = true },
	{ "mt_dump_tree", do_dump_tree, true, .same = true },
	{ "mt_dump_view", do_dump_view, false, .same = true },
	{ "mt_dump_dot", do_dump_dot, true, .same = true },
	{ "mt_dump_svg", do_dump_svg, true, .same = true },
};

/* --- what allocates nothing ---------------------------------------------- */

static int
quiet_transaction(struct world *w)
{
	return (mt_topology_begin(w->t) == 0 &&
	    mt_topology_commit(w->t) == 0 ? 0 : -1);
}

static int
quiet_sync(struct world *w)
{
	return (mt_topology_sync(w->t));
}

static int
quiet_limits(struct world *w)
{
	mt_topology_set_max_waiting(w->t, mt_topology_max_waiting(w->t));
	return (mt_topology_waiting(w->t) > mt_topology_max_waiting(w->t));
}

static int
quiet_owner(struct world *w)
{
	static int owner;

	return (mt_region_set_owner(w->orphan, &owner, t_put));
}

static int
quiet_references(struct world *w)
{
	mt_region_put(mt_region_get(w->ram));
	return (0);
}

static int
quiet_looks(struct world *w)
{
	off_t off;

	(void)mt_region_name(w->ram);
	(void)mt_region_kind(w->ram);
	(void)mt_region_last(w->ram);
	(void)mt_region_addr(w->ram);
	(void)mt_region_prio(w->ram);
	(void)mt_region_enabled(w->ram);
	(void)mt_region_readonly(w->ram);
	(void)mt_region_nonvolatile(w->ram);
	(void)mt_region_unmergeable(w->ram);
	(void)mt_region_max_last(w->ram);
	(void)mt_region_rom_mode(w->romd);
	(void)mt_region_alias_offset(w->alias);
	(void)mt_region_parent(w->ram);
	(void)mt_region_target(w->alias);
	(void)mt_region_topology(w->ram);
	(void)mt_region_ptr(w->ram);
	(void)mt_region_arg(w->io);
	return (mt_region_fd(w->ram, &off) == -1 ? 0 : -1);
}

static int
quiet_space(struct world *w)
{
	(void)mt_space_name(w->sp);
	(void)mt_space_root(w->sp);
	return (mt_space_topology(w->sp) == w->t ? 0 : -1);
}

static int
quiet_destroy(struct world *w)
{
	int ret = mt_space_destroy(w->made_space);

	w->made_space = NULL;
	return (ret);
}

static int
quiet_views(struct world *w)
{
	struct mt_view *v = mt_view_get(mt_space_view(w->sp));
	struct mt_section sec;
	bool is = mt_view_next(v, 0, &sec) && mt_view_count(v) > 0;

	mt_view_put(v);
	mt_view_put(v);
	return (is ? 0 : -1);
}

static int
quiet_find(struct world *w)
{
	struct mt_section sec;

	if (mt_space_find(w->sp, (struct mt_range){ 0, MT_LAST_MAX }, &sec) ==
	    -1)
		return (-1);
	mt_region_put(sec.region);
	return (0);
}

static int
quiet_accesses(struct world *w)
{
	uint64_t val;
	uint8_t buf[256];

	mt_space_read(w->sp, 0xf80, buf, sizeof(buf), MT_ATTRS_NONE);
	mt_space_write(w->sp, 0x2ff0, buf, 64, MT_ATTRS_NONE);
	mt_space_set(w->sp, 0x1000, 0, 64, MT_ATTRS_NONE);
	mt_space_write_rom(w->sp, 0x2000, buf, 4, MT_ATTRS_NONE);
	mt_space_load(w->sp, 0x3f00, 8, MT_BIG, &val, MT_ATTRS_NONE);
	mt_space_store(w->sp, 0x3f00, 8, MT_BIG, val, MT_ATTRS_NONE);
	return (mt_space_valid(w->sp, 0x3f00, 64, true, MT_ATTRS_NONE) ? 0 :
	    -1);
}

/* Some that take their time, by a caller that waits for them. */
static int
quiet_waiting(struct world *w)
{
	uint8_t buf[SLOWS * 0x100];
	unsigned int i;

	for (i = 0; i < SLOWS; i++)
		w->slow[i].at_once = true;
	return (mt_space_read(w->sp, 0x8000, buf, sizeof(buf),
	    MT_ATTRS_NONE) == MT_OK ? 0 : -1);
}

static int
quiet_cache(struct world *w)
{
	struct mt_cache c;
	uint64_t val;
	uint8_t buf[16];

	if (mt_cache_init(&c, w->sp, 0x1000, 0x100, MT_DMA_READ |
	    MT_DMA_WRITE, MT_ATTRS_NONE) == -1)
		return (-1);
	mt_cache_read(&c, 0, buf, sizeof(buf));
	mt_cache_write(&c, 0xf0, buf, sizeof(buf));
	mt_cache_load(&c, 2, 4, MT_BIG, &val);
	mt_cache_store(&c, 2, 4, MT_BIG, val);
	mt_cache_fini(&c);
	return (mt_cache_stale(&c) ? 0 : -1);
}

static int
quiet_unmap(struct world *w)
{
	w->mapped = false;
	return (mt_dma_unmap(&w->map, 64));
}

static void
before_unmap(struct world *w)
{
	must(do_map_bounce(w) == 0 && w->map.bounced);
}

static int
quiet_map_sg(struct world *w)
{
	static const struct mt_range ranges[] = { { 0x1000, 0x107f },
	    { 0x1080, 0x10ff }, { 0x2000, 0x200f } };

	if (mt_dma_map_sg(w->sp, ranges, T_COUNT(ranges), MT_DMA_READ,
	    MT_ATTRS_NONE, w->iov, w->maps, 2, &w->sg) == -1 ||
	    w->sg.error != 0)
		return (-1);
	return (mt_dma_unmap_sg(&w->sg, 0));
}

static void
before_unmap_sg(struct world *w)
{
	static const struct mt_range range = { 0x3f00, 0x3f0f };

	must(mt_dma_map_sg(w->sp, &range, 1, MT_DMA_WRITE, MT_ATTRS_NONE,
	    w->iov, w->maps, 1, &w->sg) == 0);
}

static int
quiet_unmap_sg(struct world *w)
{
	return (mt_dma_unmap_sg(&w->sg, w->sg.len));
}

static void
waiter(void *arg)
{
	(void)arg;
}

static int
quiet_wait(struct world *w)
{
	struct mt_waiter wait = MT_WAITER_INIT;
	int ret;

	mt_dma_set_bounce_limit(w->sp, 0);
	ret = mt_dma_wait(w->sp, &wait, 1, waiter, NULL);
	if (ret == 0 && !mt_dma_cancel(&wait))
		ret = -1;
	mt_dma_set_bounce_limit(w->sp, MT_BOUNCE_DEFAULT);
	return (mt_dma_bounce_limit(w->sp) == MT_BOUNCE_DEFAULT &&
	    mt_dma_bounce_used(w->sp) == 0 ? ret : -1);
}

static int
quiet_submit(struct world *w)
{
	int ret = submit(w, 0x200);

	if (ret == 0 && !mt_access_cancel(&w->acc))
		return (-1);
	return (ret);
}

static void
before_complete(struct world *w)
{
	must(submit(w, 0x300) == 0);
}

static int
quiet_complete(struct world *w)
{
	complete(w);
	return (w->ndone == 1 ? mt_access_drain(w->sp) : -1);
}

static int
quiet_cancel(struct world *w)
{
	return (mt_access_cancel(&w->acc) ? 0 : -1);
}

static void
before_destroy(struct world *w)
{
	must(do_space(w) == 0);
}

static int
quiet_dirty(struct world *w)
{
	if (mt_region_set_dirty(w->ram, 0, 1) == -1 ||
	    mt_region_get_dirty(w->ram, 1, 0, 1) != 1 ||
	    mt_region_log(w->ram) != 1 << 1 ||
	    mt_region_sync_dirty(w->ram, 0, 1) == -1)
		return (-1);
	return (mt_region_test_and_clear_dirty(w->ram, 1, 0, 1) == 1 ? 0 :
	    -1);
}

static void
before_snapshot(struct world *w)
{
	before_unlog(w);
	must(mt_region_set_dirty(w->ram, 0, 1) == 0);
	w->snapshot = mt_dirty_snapshot_create(w->ram, 1, 0, 0x1000);
	must(w->snapshot != NULL);
}

static int
quiet_snapshot(struct world *w)
{
	struct mt_range run;
	bool is = mt_dirty_snapshot_get(w->snapshot, 0, 1) &&
	    mt_dirty_snapshot_next(w->snapshot, 0, &run);

	mt_dirty_snapshot_destroy(w->snapshot);
	return (is ? 0 : -1);
}

static int
quiet_iommu(struct world *w)
{
	struct mt_cache c;
	uint8_t buf[0x300];
	uint64_t val;

	if (mt_space_read(w->sp, 0xaf00, buf, 0x200, MT_ATTRS_NONE) != MT_OK ||
	    mt_space_write(w->sp, 0xa000, buf, 0x200, MT_ATTRS_NONE) !=
	    MT_OK || mt_space_load(w->sp, 0xbf00, 4, MT_BIG, &val,
	    MT_ATTRS_NONE) != MT_OK || !mt_space_valid(w->sp, 0xa000, 0x400,
	    true, MT_ATTRS_NONE) || mt_space_read(w->sp, 0xc000, buf,
	    sizeof(buf), MT_ATTRS_NONE) != MT_OK ||
	    mt_cache_init(&c, w->sp, 0xa000, 16, MT_DMA_READ, MT_ATTRS_NONE) ==
	    -1)
		return (-1);
	val = mt_cache_load(&c, 0, 8, MT_BIG, &val);
	mt_cache_fini(&c);
	return (val == MT_OK ? 0 : -1);
}

static int
quiet_iommu_map(struct world *w)
{
	int ret = mt_dma_map(w->sp, 0xa000, 0x200, MT_DMA_READ, MT_ATTRS_NONE,
	    &w->map);

	w->mapped = ret == 0;
	return (ret == 0 && w->map.len != 0x200 ? -1 : ret);
}

static void
told(void *arg, const struct mt_iommu_event *ev)
{
	(void)ev;
	++*(int *)arg;
}

static int
quiet_notifier(struct world *w)
{
	const struct mt_iommu_event ev = { .type = MT_IOMMU_UNMAP,
	    .range = { 0, 0xfff } };
	int n = 0;
	struct mt_iommu_notifier nf = { .range = { 0, 0xfff }, .events =
	    MT_IOMMU_MAP | MT_IOMMU_UNMAP, .fn = told, .arg = &n };

	if (mt_iommu_register(w->iommu, &nf) == -1 ||
	    mt_iommu_replay(w->iommu, &nf) == -1 ||
	    mt_iommu_notify(w->iommu, &ev) == -1 ||
	    mt_iommu_unregister(w->iommu, &nf) == -1)
		return (-1);
	return (n == 17 ? 0 : -1);
}

/* One that knows what it has mapped, and tells. */
static void
send_one(void *arg, struct mt_range range, struct mt_attrs attrs,
    struct mt_iommu_sink *sink)
{
	const struct mt_iommu_event ev = { .type = MT_IOMMU_UNMAP,
	    .range = range };

	(void)arg, (void)attrs;
	must(mt_iommu_send(sink, &ev) == 0);
}

static const struct mt_iommu_ops sending_ops = { .translate = translate,
	.replay = send_one };

static void
before_send(struct world *w)
{
	must(made(w, mt_region_create_iommu(w->t, "x", 0xfff, &sending_ops,
	    w)) == 0);
}

static int
quiet_send(struct world *w)
{
	int n = 0;
	struct mt_iommu_notifier nf = { .range = { 0, 0xfff }, .events =
	    MT_IOMMU_MAP | MT_IOMMU_UNMAP, .fn = told, .arg = &n };

	if (mt_iommu_min_page(w->made) != 4096 ||
	    mt_iommu_register(w->made, &nf) == -1 ||
	    mt_iommu_replay(w->made, &nf) == -1 ||
	    mt_iommu_unregister(w->made, &nf) == -1)
		return (-1);
	return (n == 1 ? 0 : -1);
}

/* Calls that never allocate; mt_topology_destroy is looked at by test_end. */
static const struct quiet {
	const char *names;
	int (*fn)(struct world *);
	void (*before)(struct world *);
} quiets[] = {
	{ "mt_topology_begin and mt_topology_commit of nothing",
	    quiet_transaction, NULL },
	{ "mt_topology_sync", quiet_sync, NULL },
	{ "mt_topology_waiting, mt_topology_max_waiting and "
	    "mt_topology_set_max_waiting", quiet_limits, NULL },
	{ "mt_region_get and mt_region_put", quiet_references, NULL },
	{ "mt_region_set_owner", quiet_owner, NULL },
	{ "mt_region_name, mt_region_kind, mt_region_last, mt_region_addr, "
	    "mt_region_prio, mt_region_enabled, mt_region_readonly, "
	    "mt_region_nonvolatile, mt_region_unmergeable, "
	    "mt_region_max_last, mt_region_rom_mode, "
	    "mt_region_alias_offset, mt_region_parent, mt_region_target, "
	    "mt_region_topology, mt_region_ptr, mt_region_arg and "
	    "mt_region_fd", quiet_looks, NULL },
	{ "mt_space_name, mt_space_root and mt_space_topology", quiet_space, NULL },
	{ "mt_space_destroy", quiet_destroy, before_destroy },
	{ "mt_space_view, mt_view_get, mt_view_put, mt_view_next and "
	    "mt_view_count", quiet_views, NULL },
	{ "mt_space_find", quiet_find, NULL },
	{ "mt_space_read, mt_space_write, mt_space_set, mt_space_write_rom, "
	    "mt_space_load, mt_space_store and mt_space_valid",
	    quiet_accesses, NULL },
	{ "mt_space_read of what completes later", quiet_waiting, NULL },
	{ "mt_cache_init, mt_cache_fini, mt_cache_read, mt_cache_write, "
	    "mt_cache_load and mt_cache_store", quiet_cache, NULL },
	{ "mt_dma_map of memory, once a thread has mapped some, and "
	    "mt_dma_set_dirty", quiet_map, before_map },
	{ "mt_dma_unmap", quiet_unmap, before_unmap },
	{ "mt_dma_map_sg of memory", quiet_map_sg, before_map },
	{ "mt_dma_unmap_sg", quiet_unmap_sg, before_unmap_sg },
	{ "mt_dma_wait, mt_dma_cancel, mt_dma_set_bounce_limit, "
	    "mt_dma_bounce_limit and mt_dma_bounce_used", quiet_wait, NULL },
	{ "mt_access_submit of few pieces", quiet_submit, NULL },
	{ "mt_access_complete and mt_access_drain", quiet_complete,
	    before_complete },
	{ "mt_access_cancel", quiet_cancel, before_complete },
	{ "accesses through an IOMMU", quiet_iommu, NULL },
	{ "mt_dma_map through an IOMMU", quiet_iommu_map, before_map },
	{ "mt_iommu_register, mt_iommu_replay, mt_iommu_notify and "
	    "mt_iommu_unregister", quiet_notifier, NULL },
	{ "mt_iommu_send and mt_iommu_min_page", quiet_send, before_send },
	{ "mt_region_log, mt_region_set_dirty, mt_region_get_dirty, "
	    "mt_region_sync_dirty and mt_region_test_and_clear_dirty",
	    quiet_dirty, before_unlog },
	{ "mt_dirty_snapshot_get, mt_dirty_snapshot_next and "
	    "mt_dirty_snapshot_destroy", quiet_snapshot, before_snapshot },
};

/* --- the world in which it is called ----------------------------------- */

static void
begin(struct world *w)
{
	static const struct mt_backing growable = {
	    .kind = MT_BACKING_ANON, .max_last = 0x1fff };
	unsigned int i;

	memset(w, 0, sizeof(*w));
	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w->l2.arg = &w->l2;
	must((w->fd = memfd_create("file", MFD_CLOEXEC)) != -1);
	must(ftruncate(w->fd, 0x1000) == 0);
	w->eventfd = t_eventfd();
	must((w->fp = fopen("/dev/null", "w")) != NULL);
	setvbuf(w->fp, NULL, _IONBF, 0);
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x10000);
	w->box = t_container(w->t, "box", 0x1000);
	w->ram = mt_region_create_ram(w->t, "ram", 0xfff, &growable);
	must(w->ram != NULL);
	must(mt_region_set_resized(w->ram, resized, w) == 0);
	w->rom = t_rom(w->t, "rom", 0x1000);
	w->romd = t_romd(w->t, "romd", 0x1000, &w->dev);
	w->io = t_io(w->t, "io", 0x1000, &w->dev);
	w->alias = t_alias(w->t, "alias", w->box, 0, 0x1000);
	w->orphan = t_ram(w->t, "orphan", 0x1000);
	t_add(w->alias, 0xf0, 0, t_reserved(w->t, "sub", 0x10));
	must(mt_region_add_eventfd(w->io, 4, 4, false, 0, w->eventfd) == 0);
	must(mt_region_add_eventfd(w->io, 6, 2, false, 0, w->eventfd) == 0);
	must(mt_region_add_eventfd(w->io, 2, 2, true, 1, w->eventfd) == 0);
	must(mt_region_add_coalescing(w->io, 0x40, 0x4f) == 0);
	must(mt_region_add(w->box, w->ram, 0, 0) == 0);
	must(mt_region_add(w->box, w->rom, 0xc00, 0) == 0);
	must(mt_region_add(w->root, w->romd, 0x2000, 0) == 0);
	must(mt_region_add(w->root, w->io, 0x3000, 0) == 0);
	must(mt_region_add(w->root, w->alias, 0x2f00, 0) == 0);
	t_add(w->root, 0x4000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_io(w->t, "later", 0xfff, &later_ops, w),
	    "later"));
	w->iommu = t_add(w->root, 0xa000, 0, (struct mt_region *)t_not_null(
	    mt_region_create_iommu(w->t, "iommu", 0x3fff, &iommu_ops, w),
	    "iommu"));
	must(mt_region_add(w->root, w->box, 0x1000, 0) == 0);
	for (i = 0; i < SLOWS; i++) {
		w->slow[i].ops.submit_buf = slow_submit;
		w->slow[i].ops.cancel_buf = slow_cancel;
		t_add(w->root, 0x8000 + i * 0x100, 0, (struct mt_region *)
		    t_not_null(mt_region_create_io(w->t, "slow", 0xff,
		    &w->slow[i].ops, &w->slow[i]), "slow"));
	}
	w->sp = t_space(w->root);
	w->sp2 = t_space(w->alias);
	t_listen(&w->l, w->sp, NULL, 0, NULL);
	t_events(w->l.text);
}

/* Its parent may have been put already, and may let go of it any moment. */
static void
put(struct mt_region *r)
{
	if (mt_region_del(r) == -1)
		must(errno == ENOENT);
	mt_region_put(r);
}

/* Returns whether nothing was left over. */
static bool
end(struct world *w)
{
	if (w->mapped)
		must(mt_dma_unmap(&w->map, 0) == 0);
	mt_region_put(w->made);
	(void)mt_listener_unregister(&w->l2);
	if (w->made_space != NULL)
		must(mt_space_destroy(w->made_space) == 0);
	must(mt_listener_unregister(&w->l.l) == 0);
	must(mt_space_destroy(w->sp) == 0);
	must(mt_space_destroy(w->sp2) == 0);
	put(w->alias);
	put(w->box);
	put(w->ram);
	put(w->rom);
	put(w->romd);
	put(w->io);
	put(w->orphan);
	put(w->root);
	fclose(w->fp);
	close(w->fd);
	close(w->eventfd);
	return (mt_topology_destroy(w->t) == 0);
}

/* All that can be seen of a world; to be freed. */
static char *
picture(struct world *w)
{
	char *text = NULL;
	size_t len = 0;
	FILE *fp;

	must((fp = open_memstream(&text, &len)) != NULL);
	must(mt_dump_tree(fp, w->root) == 0);
	must(mt_dump_tree(fp, w->orphan) == 0);
	must(mt_dump_tree(fp, w->box) == 0);
	fprintf(fp, "%s\n%s\n%s\n", t_space_text(w->sp),
	    t_space_text(w->sp2), w->l.text);
	fprintf(fp, "%x\n", mt_region_log(w->ram));
	fprintf(fp, "%d %p %p %p", w->resized,
	    (void *)mt_region_parent(w->orphan),
	    (void *)mt_region_parent(w->rom), (void *)mt_region_parent(w->io));
	fclose(fp);
	return (text);
}

static size_t
count_fds(void)
{
	size_t n = 0;
	int fd;

	for (fd = 0; fd < 256; fd++)
		if (fcntl(fd, F_GETFD) != -1)
			n++;
	return (n);
}

/* Call it with allocation nth failing: is there another to try? */
static bool
try_call(const struct call *call, long nth, const char **error)
{
	struct world *w = malloc(sizeof(*w));
	char *before, *base, *after;
	int ret, errno_was;
	bool was_hit;

	must(w != NULL);
	begin(w);
	base = picture(w);
	if (call->before != NULL)
		call->before(w);
	before = picture(w);
	errno = 0;
	hit = false;
	countdown = nth;
	ret = call->fn(w);
	errno_was = errno;
	countdown = 0;
	was_hit = hit;
	after = picture(w);
	if (ret == -1) {
		if (!was_hit)
			*error = "fails without a reason";
		else if (!call->may_fail)
			*error = "fails, but should not";
		else if (errno_was != ENOMEM)
			*error = "fails with another errno than ENOMEM";
		else if (strcmp(after, call->rollback ? base : before) != 0)
			*error = "fails and changes something";
		if (*error != NULL && strcmp(after, before) != 0)
			diag("before:\n%s\nafter:\n%s", before, after);
		if (call->fn(w) == -1 && *error == NULL)
			*error = "does not work afterwards";
		free(after);
		after = picture(w);
	}
	if (!call->same && strcmp(after, base) == 0 && *error == NULL)
		*error = "does nothing";
	if (call->same && call->before == NULL && strcmp(after, base) != 0 &&
	    *error == NULL)
		*error = "changes something";
	free(base);
	free(before);
	free(after);
	if (call->after != NULL)
		call->after(w);
	if (!end(w) && *error == NULL)
		*error = "leaves something in the topology";
	free(w);
	return (was_hit);
}

static void
test_call(const struct call *call)
{
	const char *error = NULL;
	long nth, live_was;
	size_t fds_was;

	for (nth = 1; error == NULL; nth++) {
		live_was = __atomic_load_n(&live, __ATOMIC_RELAXED);
		fds_was = count_fds();
		if (!try_call(call, nth, &error) && error == NULL)
			break;
		if (error == NULL && fds_was != count_fds())
			error = "leaves a file open";
		if (error == NULL && live_was != live)
			error = "leaks";
	}
	if (!ok(error == NULL, "%s %s", call->name, call->may_fail ?
	    "fails cleanly wherever memory runs out" :
	    "needs no memory that it could lack"))
		diag("with allocation %ld failing, it %s", nth - 1, error);
	else if (call->may_fail)
		diag("%ld allocations", nth - 1);
}

static void
test_quiet(const struct quiet *quiet)
{
	struct world *w = malloc(sizeof(*w));
	const char *error = NULL;
	long n;

	must(w != NULL);
	begin(w);
	if (quiet->before != NULL)
		quiet->before(w);
	countdown = LONG_MAX;
	if (quiet->fn(w) != 0)
		error = "fails";
	n = LONG_MAX - countdown;
	countdown = 0;
	if (!end(w) && error == NULL)
		error = "leaves something in the topology";
	free(w);
	if (!ok(n == 0 && error == NULL, "%s: nothing is allocated",
	    quiet->names))
		diag("%ld allocations; it %s", n, error != NULL ? error :
		    "works");
}

static void
test_topology(void)
{
	const char *error = NULL;
	struct mt_topology *t;
	long nth, live_was;

	for (nth = 1; error == NULL; nth++) {
		live_was = __atomic_load_n(&live, __ATOMIC_RELAXED);
		hit = false;
		countdown = nth;
		t = mt_topology_create();
		countdown = 0;
		if (t != NULL) {
			if (mt_topology_destroy(t) == -1)
				error = "cannot be destroyed";
			if (!hit)
				break;
		} else if (errno != ENOMEM && errno != EAGAIN)
			error = "fails with another errno";
		if (error == NULL && live_was != live)
			error = "leaks";
	}
	if (!ok(error == NULL, "mt_topology_create fails cleanly"))
		diag("with allocation %ld failing, it %s", nth - 1, error);
}

/* What a transaction has changed it can change again, and back. */
static void
test_again(void)
{
	struct world *w = malloc(sizeof(*w));
	char *before, *after;
	int bad = 0;

	must(w != NULL);
	begin(w);
	before = picture(w);
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_set_enabled(w->io, false) == 0);
	countdown = 1;
	bad += mt_region_move(w->io, 0x7777) != 0;
	countdown = 1;
	bad += mt_region_del(w->io) != 0;
	countdown = 1;
	bad += mt_region_add(w->root, w->io, 0x5555, 3) != 0;
	countdown = 1;
	bad += mt_region_set_enabled(w->io, true) != 0;
	is_int(bad, 0, "what a transaction has changed it can change again "
	    "without memory");
	countdown = 1;
	fails(mt_topology_commit(w->t), ENOMEM, "if its end fails");
	countdown = 0;
	after = picture(w);
	is_str(after, before, "all is as it was before");
	free(before);
	free(after);
	ok(end(w), "and nothing is left");
	free(w);
}

/* What must always work works when nothing can be had any more. */
static void
test_end(void)
{
	struct world *w = malloc(sizeof(*w));
	struct mt_mapping map;
	long live_was;
	int bad = 0;

	must(w != NULL);
	live_was = __atomic_load_n(&live, __ATOMIC_RELAXED);
	begin(w);
	must(do_map_bounce(w) == 0);
	must(mt_dma_map(w->sp, 0x1000, 4, MT_DMA_READ, MT_ATTRS_NONE, &map) ==
	    0);
	countdown = 1;
	bad += mt_dma_unmap(&w->map, 64) != 0;
	countdown = 1;
	bad += mt_dma_unmap(&map, 0) != 0;
	countdown = 1;
	bad += mt_listener_unregister(&w->l.l) != 0;
	countdown = 1;
	bad += mt_space_destroy(w->sp) != 0;
	countdown = 1;
	bad += mt_space_destroy(w->sp2) != 0;
	countdown = 1;
	mt_region_put(w->root);
	mt_region_put(w->box);
	mt_region_put(w->ram);
	mt_region_put(w->rom);
	mt_region_put(w->romd);
	mt_region_put(w->io);
	mt_region_put(w->alias);
	mt_region_put(w->orphan);
	countdown = 1;
	bad += mt_topology_sync(w->t) != 0;
	countdown = 1;
	bad += mt_topology_destroy(w->t) != 0;
	countdown = 0;
	fclose(w->fp);
	close(w->fd);
	close(w->eventfd);
	is_int(bad, 0, "taking all down, mt_topology_destroy included, needs "
	    "no memory");
	is_int(live, live_was, "and leaves none behind");
	free(w);
}

int
main(void)
{
	struct world *w;
	size_t i;

	begin_failing();
	/* What the C library and liburcu keep for themselves. */
	must((w = malloc(sizeof(*w))) != NULL);
	begin(w);
	quiet_accesses(w);
	before_unmap_first(w);
	must(do_unmap(w) == 0);
	free(picture(w));
	must(end(w));
	free(w);

	test_topology();
	for (i = 0; i < T_COUNT(calls); i++)
		test_call(&calls[i]);
	for (i = 0; i < T_COUNT(quiets); i++)
		test_quiet(&quiets[i]);
	test_again();
	test_end();
	return (done());
}
