/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* What a space shows is given to a device, and nothing else. */

#include "t/machine.h"

#define PAGES		32u		/* of the space are played with */
#define FILE_PAGES	64u
#define UNIT		0x400u		/* regions are multiples of this */
#define NR_REGIONS	24u

static const uint16_t master = 0x6;

struct failures {
	unsigned int unaligned, full, other, unmaps;
	struct mt_range last;
	int error;
};

static void
failed(void *arg, bool unmap, struct mt_range range, int error)
{
	struct failures *f = arg;

	if (unmap)
		f->unmaps++;
	else if (error == EINVAL)
		f->unaligned++;
	else if (error == ENOSPC)
		f->full++;
	else
		f->other++;
	f->last = range;
	f->error = error;
}

static const struct vd_client_dma_ops ops = { .failed = failed };

/* --- one thing at a time -------------------------------------------------- */

static struct mt_region *
of_file(struct m_machine *m, const char *name, int fd, uint64_t off,
    uint64_t size)
{
	const struct mt_backing backing = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_KEEP_FD, .fd = fd, .fd_off = (off_t)off };
	struct mt_region *r = mt_region_create_ram(m->t, name, MT_SIZE(size),
	    &backing);

	must(r != NULL);
	return (r);
}

/* What the device has. */
#define is_given(d, want, ...)						\
	is_view(vd_server_dma((d)->server), want, __VA_ARGS__)

static void
test_kinds(void)
{
	const struct m_options o = { .bar0 = 2 * PAGE };
	struct t_dev io = T_DEV();
	struct failures f = { 0 };
	struct vd_client_dma *dma;
	struct mt_region *r, *romd, *file;
	struct m_device d;
	struct m_machine m;
	int fd;

	m_start(&d, &o);
	m_connect(&m, &d);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	must((fd = memfd_create("mirror", MFD_CLOEXEC)) != -1);
	must(ftruncate(fd, FILE_PAGES * PAGE) == 0);
	m_add_bar(&m, 0, 0x100000, 0, 0);
	r = t_ram(m.t, "anonymous", PAGE);
	must(mt_region_add(m.root, r, 0, 0) == 0);
	dma = vd_client_dma_create(m.c, m.sp, &ops, &f);
	ok(dma != NULL, "a space is mirrored");
	fails_null(vd_client_dma_create(m.c, m.sp, &ops, &f), EBUSY,
	    "one is enough");
	is_given(&d, "0-fff dma@0+0", "memory without a file is told of");
	is_int(mt_region_kind(r), MT_RAM, "but the device's registers not");
	mt_region_put(r);

	file = of_file(&m, "file", fd, 4 * PAGE, 2 * PAGE);
	t_add(m.root, 0x4000, 0, file);
	is_given(&d, "0-fff dma@0+0, 4000-5fff dma@4000+0",
	    "memory of a file is given");
	((uint32_t *)mt_region_ptr(file))[3] = 0x1234abcd;
	is_read(vd_server_dma(d.server), 0x400c, 4, "cdab3412",
	    "and is the same");
	must(mt_region_set_readonly(file, true) == 0);
	is_given(&d, "0-fff dma@0+0, 4000-5fff dma@4000+0 r",
	    "read-only it is for reading");
	must(mt_region_set_readonly(file, false) == 0);
	t_add(m.root, 0x8000, 0, t_rom(m.t, "rom", PAGE));
	romd = t_romd(m.t, "romd", PAGE, &io);
	t_add(m.root, 0x9000, 0, romd);
	t_add(m.root, 0xa000, 0, t_io(m.t, "io", PAGE, &io));
	is_given(&d, "0-fff dma@0+0, 4000-5fff dma@4000+0, "
	    "8000-8fff dma@8000+0", "ROM is given, ROM devices and I/O not");
	must(mt_region_del(romd) == 0);
	is_int(f.other + f.unmaps + f.unaligned + f.full, 0,
	    "nothing has failed");

	/* Neighbours. */
	must(mt_topology_begin(m.t) == 0);
	t_add(m.root, 0x10000, 0, of_file(&m, "a", fd, 8 * PAGE, PAGE));
	t_add(m.root, 0x11000, 0, of_file(&m, "b", fd, 9 * PAGE, PAGE));
	t_add(m.root, 0x12000, 0, of_file(&m, "c", fd, 11 * PAGE, PAGE));
	must(mt_topology_commit(m.t) == 0);
	is_given(&d, "0-fff dma@0+0, 4000-5fff dma@4000+0, "
	    "8000-8fff dma@8000+0, 10000-11fff dma@10000+0, "
	    "12000-12fff dma@12000+0",
	    "neighbours that continue each other are one map");

	must(mt_topology_begin(m.t) == 0);
	for (unsigned int i = 0; i < 2; i++) {
		r = of_file(&m, "apart", fd, (20 + i) * PAGE, PAGE);
		must(mt_region_set_unmergeable(r, true) == 0);
		t_add(m.root, 0x18000 + i * PAGE, 0, r);
	}
	must(mt_topology_commit(m.t) == 0);
	ok(strstr(t_space_text(vd_server_dma(d.server)),
	    "18000-18fff dma@18000+0, 19000-19fff dma@19000+0") != NULL,
	    "but not those that are to stay apart");

	must(mt_topology_begin(m.t) == 0);
	t_add(m.root, 0x30000, 0, t_ram(m.t, "a", PAGE));
	t_add(m.root, 0x31000, 0, t_ram(m.t, "b", PAGE / 2));
	t_add(m.root, 0x31800, 0, t_ram(m.t, "c", PAGE + PAGE / 2));
	t_add(m.root, 0x33000, 0, of_file(&m, "d", fd, 30 * PAGE, PAGE));
	t_add(m.root, 0x34000, 0, t_rom(m.t, "e", PAGE / 2));
	r = t_add(m.root, 0x34800, 0, t_rom(m.t, "f", PAGE / 2));
	must(mt_topology_commit(m.t) == 0);
	ok(strstr(t_space_text(vd_server_dma(d.server)),
	    "30000-32fff dma@30000+0, 33000-33fff dma@33000+0, "
	    "34000-34fff dma@34000+0") != NULL,
	    "so are neighbours without a file");
	is_int(f.unaligned, 0, "also two halves of a page");
	must(mt_region_del(r) == 0);
	ok(strstr(t_space_text(vd_server_dma(d.server)), "34000") == NULL,
	    "which is taken back when one has gone");
	is_int(f.unaligned, 1, "as the owner is told");
	f.unaligned = 0;

	/* What is not whole pages. */
	t_add(m.root, 0x20800, 0, of_file(&m, "odd", fd, 0, 2 * PAGE));
	ok(strstr(t_space_text(vd_server_dma(d.server)),
	    "21000-21fff dma@21000+800") != NULL, "parts of pages are left out");
	is_int(f.unaligned, 2, "which is told for both ends");
	is_hex(f.last.first, 0x22000, "from where");
	is_hex(f.last.last, 0x227ff, "to where");

	vd_client_dma_destroy(dma);
	is_given(&d, "", "all is taken back in the end");
	is_int(f.other + f.unmaps + f.full, 0, "and nothing has failed");
	m_disconnect(&m, false);
	close(fd);
	m_stop(&d);
}

static void
test_limits(void)
{
	const struct m_options o = { .max_maps = 2 };
	struct mt_region *rams[4];
	struct failures f = { 0 };
	struct vd_client_limits limits;
	struct vd_client_dma *dma;
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	vd_client_limits(m.c, &limits);
	is_int(limits.max_dma_maps, 2, "a server that takes two maps");
	must((dma = vd_client_dma_create(m.c, m.sp, &ops, &f)) != NULL);
	for (unsigned int i = 0; i < 4; i++) {
		rams[i] = t_ram(m.t, "ram", PAGE);
		t_add(m.root, 0x2000 * i, 0, mt_region_get(rams[i]));
	}
	is_given(&d, "0-fff dma@0+0, 2000-2fff dma@2000+0", "has two");
	is_int(f.full, 2, "the others are told of");
	is_hex(f.last.first, 0x6000, "by their place");
	t_add(m.root, 0x9000, 0, t_ram(m.t, "more", PAGE));
	is_int(f.full, 3, "each once");
	must(mt_region_set_readonly(rams[3], true) == 0);
	is_int(f.full, 4, "or again when it is another");
	must(mt_region_del(rams[0]) == 0);
	is_given(&d, "2000-2fff dma@2000+0, 4000-4fff dma@4000+0",
	    "when one goes the next comes");
	must(mt_region_del(rams[2]) == 0);
	is_given(&d, "2000-2fff dma@2000+0, 9000-9fff dma@9000+0",
	    "in the order in which they came");
	must(mt_region_del(rams[1]) == 0);
	is_given(&d, "6000-6fff dma@6000+0, 9000-9fff dma@9000+0",
	    "until all have come");
	for (unsigned int i = 0; i < 4; i++)
		mt_region_put(rams[i]);
	is_int(f.other + f.unmaps + f.unaligned, 0, "nothing else has failed");
	vd_client_dma_destroy(dma);
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- cost ----------------------------------------------------------------- */

static int64_t
cpu_time(void)
{
	struct timespec ts;

	must(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts) == 0);
	return ((int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec);
}

/* What a commit costs, at the best of many times, with n of size bytes. */
static int64_t
cost_of_commit(unsigned int n, uint64_t size, uint32_t max_maps)
{
	const struct m_options o = { .max_maps = max_maps };
	struct failures f = { 0 };
	struct vd_client_dma *dma;
	int64_t best = INT64_MAX, t;
	struct mt_region *all, *r;
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	all = t_ram(m.t, "all", PAGE);
	r = t_add(m.root, 0, 0, t_ram(m.t, "one", PAGE));
	must(mt_topology_begin(m.t) == 0);
	for (unsigned int i = 0; i < n; i++)
		t_add(m.root, 0x100000 + (mt_addr)i * 2 * PAGE, 0,
		    t_alias(m.t, "part", all, 0, size));
	must(mt_topology_commit(m.t) == 0);
	must((dma = vd_client_dma_create(m.c, m.sp, &ops, &f)) != NULL);
	is_int(f.unaligned + f.full, n, "%u sections are not mapped", n);
	for (unsigned int i = 0; i < 100; i++) {
		t = cpu_time();
		must(mt_region_set_enabled(r, i & 1) == 0);
		t = cpu_time() - t;
		best = t < best ? t : best;
	}
	mt_region_put(all);
	vd_client_dma_destroy(dma);
	m_disconnect(&m, false);
	m_stop(&d);
	return (best);
}

static void
test_cost(void)
{
	int64_t few = cost_of_commit(4, UNIT, 0);
	int64_t many = cost_of_commit(20000, UNIT, 0);

	ok(many < 3 * few, "a commit costs no more with many that are no "
	    "pages: %jd and %jd ns", (intmax_t)few, (intmax_t)many);
	many = cost_of_commit(20000, PAGE, 1);
	ok(many < 3 * few, "nor with many for which there is no room: "
	    "%jd ns", (intmax_t)many);
}

static bool
not_this(void *arg, const struct mt_section *sec)
{
	(void)arg;
	return (strcmp(mt_region_name(sec->region), "this") != 0);
}

static void
test_failures(void)
{
	static const struct vd_client_dma_ops picky = { .failed = failed,
	    .wanted = not_this };
	const struct m_options o = { 0 };
	struct failures f = { 0 };
	struct vd_client_dma *dma;
	struct m_device d;
	struct m_machine m;
	struct mt_region *r;

	m_start(&d, &o);
	m_connect(&m, &d);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	must(vd_client_dma_map(m.c, 0x2000, PAGE, VD_DMA_READABLE, -1,
	    0) == 0);
	must((dma = vd_client_dma_create(m.c, m.sp, &picky, &f)) != NULL);
	r = t_ram(m.t, "ram", 4 * PAGE);
	t_add(m.root, 0x1000, 0, r);
	is_int(f.other, 1, "what the server refuses is told");
	is_int(f.error, EEXIST, "with its reason");
	ok(f.last.first == 0x1000 && f.last.last == 0x4fff, "and its place");
	t_add(m.root, 0x8000, 0, t_ram(m.t, "this", PAGE));
	is_int(f.other, 1, "and not tried again for nothing");
	is_given(&d, "2000-2fff dma@2000+0", "what is not wanted is not given");
	must(mt_region_move(r, 0x10000) == 0);
	is_given(&d, "2000-2fff dma@2000+0, 10000-13fff dma@10000+0",
	    "elsewhere it is taken");
	must(vd_client_dma_unmap(m.c, 0x10000, 4 * PAGE) == 0);
	must(mt_region_del(r) == 0);
	is_int(f.unmaps, 1, "so is what is not given back");
	is_int(f.error, ENOENT, "with its reason");
	t_add(m.root, 0x20000, 0, t_ram(m.t, "last", PAGE));
	vd_client_destroy(m.c);
	t_add(m.root, 0x30000, 0, t_ram(m.t, "later", PAGE));
	is_int(f.other + f.unmaps, 2,
	    "without a server nothing is told any more");
	vd_client_dma_destroy(dma);
	m_disconnect(&m, true);
	m_stop(&d);
}

/* --- random changes ------------------------------------------------------- */

/* The section that has byte at of the space, if the device is to have it. */
static bool
wanted_at(struct mt_space *sp, mt_addr at, struct mt_section *sec)
{
	enum mt_kind kind;

	if (mt_space_find(sp, (struct mt_range){ at, at }, sec) == -1)
		return (false);
	mt_region_put(sec->region);
	kind = mt_region_kind(sec->region);
	return (kind == MT_RAM || kind == MT_ROM);
}

/*
 * Where in the file a unit of the space is: its offset; 1 without a file, 2 if
 * it is read-only without; 0 if the device is not to have it.
 */
static uint64_t
place_of(struct mt_space *sp, mt_addr at, bool *readonly)
{
	struct mt_section sec;
	off_t off;

	if (!wanted_at(sp, at, &sec))
		return (0);
	*readonly = mt_region_kind(sec.region) == MT_ROM ||
	    (sec.flags & MT_SECTION_READONLY) != 0;
	if (mt_region_fd(sec.region, &off) == -1)
		return (1);
	return (UNIT * 100 + (uint64_t)off + sec.off);
}

/*
 * Is page of the space as it should be for the device?  It has it if it is all
 * memory, and one file continues through it, or there is none.
 */
static bool
page_is_right(struct m_machine *m, struct m_device *d, mt_addr page)
{
	struct mt_space *dma = vd_server_dma(d->server);
	uint64_t first = 0, place;
	bool readonly = false, ro = false, have = true;
	struct mt_section sec;
	uint32_t here, there;

	for (mt_addr at = page; at < page + PAGE; at += UNIT) {
		place = place_of(m->sp, at, &ro);
		if (at == page) {
			first = place;
			readonly = ro;
		}
		have &= place != 0 && ro == readonly;
		if (place > 1 && place - (at - page) != first)
			have = false;
		if (place == 1 && first != 1)
			have = false;
	}
	if (mt_space_find(dma, (struct mt_range){ page, page + PAGE - 1 },
	    &sec) == -1)
		return (!have);
	mt_region_put(sec.region);
	if (!have || sec.range.first != page ||
	    sec.range.last != page + PAGE - 1)
		return (false);
	/* By message: there is nobody here to answer. */
	if (first == 1)
		return (mt_region_kind(sec.region) != MT_RAM);
	if (mt_region_kind(sec.region) != MT_RAM ||
	    readonly != ((sec.flags & MT_SECTION_READONLY) != 0))
		return (false);
	for (mt_addr at = page; at < page + PAGE; at += UNIT)
		if (mt_space_load_le32(m->sp, at, &here) != MT_OK ||
		    mt_space_load_le32(dma, at, &there) != MT_OK ||
		    here != there)
			return (false);
	return (true);
}

static void
change(struct m_machine *m, struct mt_region **regions, uint64_t *seed)
{
	struct mt_region *r = regions[t_below(seed, NR_REGIONS)];
	mt_addr at = UNIT * t_below(seed, PAGES * PAGE / UNIT);
	int rv = 0;

	if (t_below(seed, 2) == 0)
		at = at / PAGE * PAGE;
	switch (t_below(seed, 5)) {
	case 0:
		rv = mt_region_set_readonly(r, t_below(seed, 3) == 0);
		if (rv == -1 && errno == EINVAL)
			rv = 0;
		break;
	case 1:
		if (mt_region_parent(r) != NULL)
			rv = mt_region_del(r);
		break;
	default:
		if (mt_region_parent(r) != NULL)
			rv = mt_region_move(r, at);
		else
			rv = mt_region_add(m->root, r, at,
			    (int)t_below(seed, 4));
	}
	must(rv == 0);
}

static struct mt_region *
random_region(struct m_machine *m, int fd, struct mt_region *all,
    struct t_dev *io, uint64_t *seed)
{
	uint64_t size = UNIT * (1 + t_below(seed, 6 * PAGE / UNIT));
	uint64_t off = UNIT * t_below(seed, 8 * PAGE / UNIT);

	switch (t_below(seed, 8)) {
	case 0:
		return (t_io(m->t, "io", size, io));
	case 1:
		return (t_rom(m->t, "rom", size));
	case 2:
		return (t_ram(m->t, "ram", size));
	case 3:
	case 4:
		return (of_file(m, "own", fd, off / PAGE * PAGE, size));
	default:
		return (t_alias(m->t, "part", all, off, size));
	}
}

static void
test_random(void)
{
	const struct m_options o = { 0 };
	uint64_t seed = t_env("T_SEED", (uint64_t)getpid() * 7919), s = seed;
	struct mt_region *regions[NR_REGIONS], *all;
	struct t_dev io = T_DEV();
	struct failures f = { 0 };
	struct vd_client_dma *dma;
	struct m_device d;
	struct m_machine m;
	unsigned int wrong = 0, rounds = T_ASAN || T_TSAN ? 150 : 600;
	uint32_t *p;
	int fd;

	diag("T_SEED=%" PRIu64, seed);
	m_start(&d, &o);
	m_connect(&m, &d);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	must((fd = memfd_create("mirror", MFD_CLOEXEC)) != -1);
	must(ftruncate(fd, FILE_PAGES * PAGE) == 0);
	all = of_file(&m, "all", fd, 0, FILE_PAGES * PAGE);
	p = mt_region_ptr(all);
	for (unsigned int i = 0; i < FILE_PAGES * PAGE / 4; i++)
		p[i] = i * 2654435761u;
	for (unsigned int i = 0; i < NR_REGIONS; i++)
		regions[i] = random_region(&m, fd, all, &io, &s);
	must((dma = vd_client_dma_create(m.c, m.sp, &ops, &f)) != NULL);
	for (unsigned int i = 0; i < rounds && wrong == 0; i++) {
		unsigned int n = 1 + (unsigned int)t_below(&s, 5);

		must(mt_topology_begin(m.t) == 0);
		while (n-- > 0)
			change(&m, regions, &s);
		must(mt_topology_commit(m.t) == 0);
		for (unsigned int j = 0; j < PAGES + 8; j++)
			if (!page_is_right(&m, &d, (mt_addr)j * PAGE)) {
				diag("round %u: page %#x is not right; space "
				    "%s", i, j * PAGE, t_space_text(m.sp));
				diag("device %s",
				    t_space_text(vd_server_dma(d.server)));
				wrong++;
			}
	}
	is_int(wrong, 0, "after each change every page is as it should be");
	is_int(f.other + f.unmaps + f.full, 0,
	    "nothing has failed but for parts of pages");
	vd_client_dma_destroy(dma);
	is_given(&d, "", "nothing is left");
	is_int(m_get(&d.maps), m_get(&d.unmaps),
	    "as many maps as were made (%u) were taken back",
	    m_get(&d.maps));
	for (unsigned int i = 0; i < NR_REGIONS; i++) {
		if (mt_region_parent(regions[i]) != NULL)
			must(mt_region_del(regions[i]) == 0);
		mt_region_put(regions[i]);
	}
	mt_region_put(all);
	m_disconnect(&m, false);
	close(fd);
	m_stop(&d);
}

int
main(void)
{
	test_kinds();
	test_limits();
	test_failures();
	test_cost();
	test_random();
	return (done());
}
