/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* A device's regions in a memory tree. */

#include <sys/syscall.h>

#include "t/machine.h"

/* --- mmap fails on demand ------------------------------------------------- */

static __thread unsigned int mmap_countdown;	/* 1: the next of a file */

#if !T_ASAN && !T_TSAN
void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (fd != -1 && mmap_countdown > 0 && --mmap_countdown == 0) {
		errno = ENODEV;
		return (MAP_FAILED);
	}
	return ((void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off));
}
#endif

/* --- regions -------------------------------------------------------------- */

static void
test_placements(void)
{
	static const struct {
		const char *name;
		uint64_t size;
		uint32_t table;
		unsigned int vectors;
		const char *view;
	} cases[] = {
		{ "no MSI-X", 4 * PAGE, 0, 0, "0-3fff bar0, mapped+0" },
		{ "a table at the start", 4 * PAGE, 0, 4,
		    "0-fff bar0+0, 1000-3fff bar0, mapped+0" },
		{ "a table at the end", 4 * PAGE, 3 * PAGE, 4,
		    "0-2fff bar0, mapped+0, 3000-3fff bar0+3000" },
		{ "a table in the middle", 8 * PAGE, 3 * PAGE + 0x800, 4,
		    "0-2fff bar0, mapped+0, 3000-3fff bar0+3000, "
		    "4000-7fff bar0, mapped+0" },
		{ "a table across two pages", 8 * PAGE, 3 * PAGE + 0xf00, 64,
		    "0-2fff bar0, mapped+0, 3000-4fff bar0+3000, "
		    "5000-7fff bar0, mapped+0" },
		{ "a table all over", 2 * PAGE, 8, 256,
		    "0-1fff bar0+0" },
		{ "a table all over one page", PAGE, 0x100, 4,
		    "0-fff bar0+0" },
	};

	for (size_t i = 0; i < T_COUNT(cases); i++) {
		const struct m_options o = { .bar0 = cases[i].size,
		    .table = cases[i].table, .vectors = cases[i].vectors,
		    .no_regs = true };
		struct m_device d;
		struct m_machine m;

		m_start(&d, &o);
		m_connect(&m, &d);
		m_add_bar(&m, 0, 0, 0, 0);
		is_view(m.sp, cases[i].view, "%s", cases[i].name);
		m_disconnect(&m, false);
		m_stop(&d);
	}
}

static void
test_access(void)
{
	const struct m_options o = { .bar0 = 8 * PAGE, .table = 3 * PAGE,
	    .vectors = 4 };
	struct m_device d;
	struct m_machine m;
	uint8_t buf[200], want[200];
	uint64_t val;
	unsigned int n;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 0, 0x10000, 0, 0);
	m_add_bar(&m, 2, 0x20000, 0, 0);
	is_view(m.sp, "10000-12fff bar0, mapped+0, 13000-13fff bar0+3000, "
	    "14000-17fff bar0, mapped+0, 20000-21fff bar2+0, "
	    "22000-22fff bar2, mapped+0, 23000-23fff bar2+3000",
	    "a device with two BARs");
	is_hex(mt_space_store_le32(m.sp, 0x14008, 0x12345678), MT_OK,
	    "a store to what is mapped");
	is_mem((uint8_t *)mt_region_ptr(d.ram) + 4 * PAGE + 8,
	    "\x78\x56\x34\x12", 4, "is where the server has it");
	is_hex(mt_space_store_le32(m.sp, 0x13000, 0xfee00000), MT_OK,
	    "a store to the MSI-X table");
	is_hex(mt_space_load_le32(m.sp, 0x13000, (uint32_t *)buf), MT_OK,
	    "goes by message");
	is_mem(buf, "\0\0\xe0\xfe", 4, "and is kept");
	for (unsigned int size = 1; size <= 8; size *= 2) {
		uint64_t mask = size == 8 ? ~(uint64_t)0 :
		    ((uint64_t)1 << 8 * size) - 1;

		is_hex(mt_space_load(m.sp, 0x20040, size, MT_LITTLE, &val,
		    MT_ATTRS_NONE), MT_OK, "a register of %u is read", size);
		is_hex(val, 0x4040404040404040 & mask, "with its value");
		is_int(m_get(&d.size), size, "in one access of its size");
		n = m_get(&d.accesses);
		is_hex(mt_space_store(m.sp, 0x20040, size, MT_LITTLE,
		    0x8877665544332211 & mask, MT_ATTRS_NONE), MT_OK,
		    "it is written");
		is_hex(__atomic_load_n(&d.val, __ATOMIC_SEQ_CST),
		    0x8877665544332211 & mask, "with the value");
		is_int(m_get(&d.accesses), n + 1, "in one access");
	}
	is_hex(mt_space_read(m.sp, 0x20100, buf, sizeof(buf), MT_ATTRS_NONE),
	    MT_OK, "200 bytes are read");
	must(vd_client_read(m.c, 2, 0x100, want, sizeof(want)) == 0);
	is_mem(buf, want, sizeof(buf), "as the client reads them");
	is_hex(mt_space_write(m.sp, 0x20100, buf, sizeof(buf),
	    MT_ATTRS_NONE), MT_OK, "200 bytes are written");

	is_hex(mt_space_load_le32(m.sp, 0x20000 + M_BAD, (uint32_t *)buf),
	    MT_DEVICE, "an error of the device is one");
	is_mem(buf, "\xff\xff\xff\xff", 4, "and reads as ones");
	is_hex(mt_space_store_le32(m.sp, 0x20000 + M_BAD, 1), MT_DEVICE,
	    "for writes, too");
	is_hex(mt_space_load_le32(m.sp, 0x20000 + M_HOLE, (uint32_t *)buf),
	    MT_DECODE, "nothing there is nothing there");

	fails_null(vd_client_region_create(m.c, m.t, 1, "bar1", 0), ENOENT,
	    "there is no BAR1");
	fails_null(vd_client_region_create(m.c, m.t, 99, "x", 0), EINVAL,
	    "nor a region 99");
	fails_null(vd_client_region_create(m.c, m.t, 0, "bar0", 1u << 30),
	    EINVAL, "flags are known");
	fails_null(vd_client_region_create(m.c, d.t, 0, "bar0", 0), EXDEV,
	    "one topology is enough");
	m_stop(&d);
	is_hex(mt_space_load_le32(m.sp, 0x20040, (uint32_t *)buf), MT_DEVICE,
	    "a server that is gone is an error of the device");
	is_hex(mt_space_store_le32(m.sp, 0x20040, 1), MT_DEVICE, "always");
	m_disconnect(&m, false);
}

/* Regions outlive the client; memory outlives the regions for who reads it. */
static void
test_teardown(void)
{
	const struct m_options o = { .bar0 = 2 * PAGE };
	struct m_device d;
	struct m_machine m;
	struct mt_section sec;
	uint32_t val;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 0, 0, 0, 0);
	m_add_bar(&m, 2, 0x10000, 0, 0);
	must(mt_space_store_le32(m.sp, 4, 77) == MT_OK);
	must(mt_space_find(m.sp, (struct mt_range){ 0, 0 }, &sec) == 0);
	must(mt_region_del(m.bars[0]) == 0);
	mt_region_put(m.bars[0]);
	m.bars[0] = NULL;
	must(mt_topology_sync(m.t) == 0);
	is_view(m.sp, "10000-11fff bar2+0, 12000-12fff bar2, mapped+0, "
	    "13000-13fff bar2+3000", "a BAR is taken out");
	is_int(((uint32_t *)mt_region_ptr(sec.region))[1], 77,
	    "who still has it can read it");
	mt_region_put(sec.region);
	vd_client_destroy(m.c);
	is_hex(mt_space_load_le32(m.sp, 0x10000, &val), MT_DEVICE,
	    "without a client a region answers errors");
	m_disconnect(&m, true);
	ok(true, "and is taken apart after it");
	m_stop(&d);
}

static void
test_second_mmap(void)
{
	const struct m_options o = { .bar0 = 8 * PAGE, .table = 3 * PAGE,
	    .vectors = 4 };
	struct m_device d;
	struct m_machine m;
	uint32_t val = 0;

	if (T_ASAN || T_TSAN) {
		skip(4, "mmap is the sanitizer's");
		return;
	}
	m_start(&d, &o);
	m_connect(&m, &d);
	for (unsigned int n = 2; n >= 1; n--) {
		mmap_countdown = n;
		m_add_bar(&m, 0, 0, 0, 0);
		mmap_countdown = 0;
		is_view(m.sp, "0-7fff bar0+0", "if mmap %u fails, nothing "
		    "is mapped", n);
		must(mt_space_store_le32(m.sp, 0x5000, 0x1000 + n) == MT_OK);
		must(mt_space_load_le32(m.sp, 0x5000, &val) == MT_OK);
		is_hex(val, 0x1000 + n, "and messages serve");
		must(mt_region_del(m.bars[0]) == 0);
		mt_region_put(m.bars[0]);
		m.bars[0] = NULL;
	}
	m_disconnect(&m, false);
	m_stop(&d);
}

/* A server whose file has not got what it says. */
static void
test_short_file(void)
{
	struct m_options o = { .bar0 = 8 * PAGE, .table = 3 * PAGE,
	    .vectors = 4, .no_regs = true,
	    .file = memfd_create("short", MFD_CLOEXEC) };
	struct m_device d;
	struct m_machine m;

	must(o.file != -1 && ftruncate(o.file, 8 * PAGE) == 0);
	m_start(&d, &o);
	m_connect(&m, &d);
	must(ftruncate(o.file, 8 * PAGE - 1) == 0);
	m_add_bar(&m, 0, 0, 0, 0);
	is_view(m.sp, "0-7fff bar0+0",
	    "what is not all in its file is not mapped");
	must(ftruncate(o.file, 8 * PAGE) == 0);
	must(mt_region_del(m.bars[0]) == 0);
	mt_region_put(m.bars[0]);
	m_add_bar(&m, 0, 0, 0, 0);
	is_view(m.sp, "0-2fff bar0, mapped+0, 3000-3fff bar0+3000, "
	    "4000-7fff bar0, mapped+0", "if it is, it is");
	m_disconnect(&m, false);
	m_stop(&d);
	close(o.file);
}

/* One whose file cannot be told to have it: this faults at any page. */
static void
test_odd_file(void)
{
	struct m_options o = { .bar0 = 4 * PAGE, .table = 0, .vectors = 4,
	    .no_regs = true, .file = open("/dev/zero", O_RDWR | O_CLOEXEC) };
	struct m_device d;
	struct m_machine m;
	uint32_t val = 1;

	must(o.file != -1);
	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 0, 0, 0, 0);
	is_view(m.sp, "0-3fff bar0+0", "what is no regular file is not mapped");
	must(mt_space_load_le32(m.sp, 2 * PAGE, &val) == MT_OK);
	is_hex(val, 0, "and messages serve");
	m_disconnect(&m, false);
	m_stop(&d);
	close(o.file);
}

static void
test_posted(void)
{
	struct m_options o = { .no_page = true };
	struct m_device d;
	struct m_machine m;
	uint32_t val;
	unsigned int n;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 2, 0, 0, VD_CLIENT_POST);
	n = m_get(&d.accesses);
	for (unsigned int i = 0; i < 50; i++)
		must(mt_space_store_le32(m.sp, 0x40, i) == MT_OK);
	is_hex(mt_space_store_le32(m.sp, M_BAD, 1), MT_OK,
	    "errors of posted writes are not told");
	must(mt_space_load_le32(m.sp, 0x40, &val) == MT_OK);
	is_int(m_get(&d.accesses), n + 52,
	    "a read comes after all that was posted");
	m_disconnect(&m, false);
	m_stop(&d);

	o.no_page = false;
	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 2, 0, 0, VD_CLIENT_POST);
	is_hex(mt_space_store_le32(m.sp, M_BAD, 1), MT_DEVICE,
	    "once something is mapped, no write is posted");
	works(vd_client_set_direct(m.c, false), "also while it is hidden");
	is_hex(mt_space_store_le32(m.sp, M_BAD, 1), MT_DEVICE, "they wait");
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- on and off ----------------------------------------------------------- */

#define READERS	2

struct reader {
	struct m_machine *m;
	pthread_t thread;
	mt_addr at;
	uint64_t bad;
};

static bool stop_readers;

/* What is written is read back, whichever way it went. */
static void *
reader_thread(void *arg)
{
	struct reader *r = arg;
	mt_addr at = r->at;
	uint32_t n = 0, val;

	while (!__atomic_load_n(&stop_readers, __ATOMIC_RELAXED)) {
		if (mt_space_store_le32(r->m->sp, at, ++n) != MT_OK ||
		    mt_space_load_le32(r->m->sp, at, &val) != MT_OK ||
		    val != n)
			r->bad++;
	}
	return (NULL);
}

static struct reader readers[READERS];

/* Readers, each of its own 4 bytes from at on. */
static void
start_readers(struct m_machine *m, mt_addr at)
{
	__atomic_store_n(&stop_readers, false, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < READERS; i++) {
		readers[i] = (struct reader){ .m = m, .at = at + 8 * i };
		must(pthread_create(&readers[i].thread, NULL, reader_thread,
		    &readers[i]) == 0);
	}
}

static void
end_readers(const char *what)
{
	uint64_t bad = 0;

	__atomic_store_n(&stop_readers, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < READERS; i++) {
		must(pthread_join(readers[i].thread, NULL) == 0);
		bad += readers[i].bad;
	}
	is_int(bad, 0, "threads miss nothing while %s", what);
}

static void
test_toggle(void)
{
	const struct m_options o = { .bar0 = 8 * PAGE, .table = 3 * PAGE,
	    .vectors = 4 };
	struct m_device d;
	struct m_machine m;
	unsigned int i;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 0, 0, 0, 0);
	m_add_bar(&m, 2, 0x10000, 0, 0);
	works(vd_client_set_direct(m.c, false), "what is mapped is hidden");
	is_view(m.sp, "0-7fff bar0+0, 10000-13fff bar2+0", "all of it");
	works(vd_client_set_direct(m.c, true), "and shown");
	is_view(m.sp, "0-2fff bar0, mapped+0, 3000-3fff bar0+3000, "
	    "4000-7fff bar0, mapped+0, 10000-11fff bar2+0, "
	    "12000-12fff bar2, mapped+0, 13000-13fff bar2+3000",
	    "as it was");
	must(mt_topology_begin(m.t) == 0);
	must(vd_client_set_direct(m.c, false) == 0);
	must(vd_client_set_direct(m.c, true) == 0);
	must(mt_topology_commit(m.t) == 0);
	is_hex(mt_space_store_le32(m.sp, 8, 5), MT_OK, "and works");

	start_readers(&m, 0x100);
	for (i = 0; i < 300; i++)
		must(vd_client_set_direct(m.c, i & 1) == 0);
	end_readers("that changes");
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- less than a page ----------------------------------------------------- */

static void
test_small(bool whole)
{
	const struct m_options o = { .small = true, .no_regs = true };
	const char *on = whole ? "10000-10fff bar4, mapped+0" :
	    "10000-100ff bar4, mapped+0";
	struct mt_region *near, *far, *twice;
	struct m_device d;
	struct m_machine m;
	uint32_t *memory, val;

	m_start(&d, &o);
	m_connect(&m, &d);
	fails(vd_client_update_pages(m.c), ENOENT, "nobody watches");
	m_add_bar(&m, 4, 0x10000, 1, whole ? VD_CLIENT_WHOLE_PAGE : 0);
	is_view(m.sp, "10000-100ff bar4+0", "a small BAR is not mapped");
	works(vd_client_watch_pages(m.c, m.sp), "until somebody watches");
	fails(vd_client_watch_pages(m.c, m.sp), EBUSY, "which one does");
	is_view(m.sp, on, "now it is mapped");
	works(vd_client_update_pages(m.c), "an update");
	is_view(m.sp, on, "finds nothing to do");
	must(mt_space_store_le32(m.sp, 0x10010, 0xabcd) == MT_OK);
	memory = mt_region_ptr(d.small);
	is_hex(__atomic_load_n(&memory[4], __ATOMIC_RELAXED), 0xabcd,
	    "to the server's memory");
	if (!whole)
		is_hex(mt_space_load_le32(m.sp, 0x10100, &val), MT_DECODE,
		    "what is behind it is not");

	/* A neighbour of low priority in the page, then one that has none. */
	near = t_reserved(m.t, "near", 16);
	works(mt_region_add(m.root, near, 0x10ff0, -5), "a neighbour comes");
	is_view(m.sp, "10000-100ff bar4+0, 10ff0-10fff near+0",
	    "nothing is mapped any more");
	is_hex(mt_space_load_le32(m.sp, 0x10010, &val), MT_OK,
	    "but still served");
	is_hex(val, 0xabcd, "by messages");
	far = t_reserved(m.t, "far", 16);
	must(mt_region_add(m.root, far, 0x11000, 0) == 0);
	is_view(m.sp, "10000-100ff bar4+0, 10ff0-10fff near+0, "
	    "11000-1100f far+0", "one in the next page is none");
	works(mt_region_del(near), "the neighbour goes");
	ok(strncmp(t_space_text(m.sp), on, strlen(on)) == 0,
	    "it is mapped again");
	must(mt_region_del(far) == 0);

	start_readers(&m, 0x10010);
	for (unsigned int i = 0; i < 300; i++)
		must((i % 2 == 0 ? mt_region_add(m.root, near, 0x10ff0, 1) :
		    mt_region_del(near)) == 0);
	end_readers("neighbours come and go");
	is_view(m.sp, on, "and the last has gone");

	/* In front of the BAR itself. */
	must(mt_region_add(m.root, near, 0x10000, 9) == 0);
	is_view(m.sp, "10000-1000f near+0, 10010-100ff bar4+10",
	    "so it is not mapped");
	must(mt_region_del(near) == 0);
	is_view(m.sp, on, "and then it is");

	/* Moved. */
	must(mt_region_move(m.bars[4], 0x20800) == 0);
	is_view(m.sp, "20800-208ff bar4+0",
	    "not at the start of a page it is not mapped");
	must(mt_region_move(m.bars[4], 0x30000) == 0);
	is_view(m.sp, whole ? "30000-30fff bar4, mapped+0" :
	    "30000-300ff bar4, mapped+0", "at another it is");
	must(mt_region_move(m.bars[4], 0x10000) == 0);
	is_view(m.sp, on, "and back again, with nothing left there");

	/* All at once. */
	must(mt_topology_begin(m.t) == 0);
	must(mt_region_move(m.bars[4], 0x50000) == 0);
	must(mt_region_add(m.root, near, 0x10ff0, 1) == 0);
	must(mt_region_add(m.root, far, 0x50ff0, 1) == 0);
	works(mt_topology_commit(m.t), "it moves to one of two neighbours");
	is_view(m.sp, "10ff0-10fff near+0, 50000-500ff bar4+0, "
	    "50ff0-50fff far+0", "where it is not mapped");
	must(mt_topology_begin(m.t) == 0);
	must(mt_region_move(m.bars[4], 0x10000) == 0);
	must(mt_region_del(near) == 0);
	must(mt_region_del(far) == 0);
	works(mt_topology_commit(m.t), "and back, as they go");
	is_view(m.sp, on, "where it is");

	/* At two places, and one of them again. */
	must((twice = mt_region_create_alias(m.t, "twice", m.bars[4], 0,
	    MT_SIZE(0x100))) != NULL);
	must(mt_region_add(m.root, twice, 0x40000, 1) == 0);
	is_view(m.sp, "10000-100ff bar4+0, 40000-400ff bar4+0",
	    "shown twice it is not mapped");
	must(mt_region_del(twice) == 0);
	is_view(m.sp, on, "the one that came last goes, and it is");
	must(mt_region_add(m.root, twice, 0x40000, 1) == 0);
	must(mt_region_del(m.bars[4]) == 0);
	is_view(m.sp, whole ? "40000-40fff bar4, mapped+0" :
	    "40000-400ff bar4, mapped+0", "as if the first one goes");
	must(mt_region_del(twice) == 0);
	must(mt_region_add(m.root, m.bars[4], 0x10000, 1) == 0);
	mt_region_put(twice);

	works(vd_client_set_direct(m.c, false), "all is hidden");
	is_view(m.sp, "10000-100ff bar4+0", "this, too");
	must(mt_region_add(m.root, near, 0x10ff0, 5) == 0);
	must(mt_region_del(near) == 0);
	is_view(m.sp, "10000-100ff bar4+0", "and stays so");
	works(vd_client_set_direct(m.c, true), "all is shown");
	is_view(m.sp, on, "this, too");

	must(mt_region_del(m.bars[4]) == 0);
	is_view(m.sp, "", "taken out, nothing is left");
	must(mt_region_add(m.root, m.bars[4], 0x10000, 1) == 0);
	works(vd_client_unwatch_pages(m.c), "nobody watches any more");
	is_view(m.sp, "10000-100ff bar4+0", "and it is as at first");
	mt_region_put(near);
	mt_region_put(far);
	m_disconnect(&m, false);
	m_stop(&d);
}

/* What is in waiting lets no commit pass that changes a view. */
static struct mt_view *
block(struct m_machine *m, struct mt_region *toggled)
{
	struct mt_view *v = mt_space_view(m->sp);

	must(mt_region_set_enabled(toggled, !mt_region_enabled(toggled)) ==
	    0);
	mt_topology_set_max_waiting(m->t, 0);
	return (v);
}

static void
unblock(struct m_machine *m, struct mt_view *v)
{
	mt_topology_set_max_waiting(m->t, MT_WAITING_DEFAULT);
	mt_view_put(v);
}

/* Nothing can be hidden: who watches goes on, and who is destroyed does not. */
static void
test_no_end(void)
{
	const struct m_options o = { .small = true, .no_regs = true };
	const char *on = "10000-10fff bar4, mapped+0";
	struct mt_region *x;
	struct mt_view *v;
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 4, 0x10000, 1, VD_CLIENT_WHOLE_PAGE);
	x = t_add(m.root, 0x80000, 0, t_reserved(m.t, "x", 16));
	must(mt_region_set_enabled(x, false) == 0);
	must(vd_client_watch_pages(m.c, m.sp) == 0);
	is_view(m.sp, on, "a small BAR is mapped");
	v = block(&m, x);
	must(mt_region_enabled(x));
	fails(vd_client_unwatch_pages(m.c), EAGAIN,
	    "too much is in waiting for the end of watching");
	fails(vd_client_set_direct(m.c, false), EAGAIN, "and for hiding");
	unblock(&m, v);
	must(mt_region_set_enabled(x, false) == 0);
	is_view(m.sp, on, "nothing has changed");
	must(mt_region_move(m.bars[4], 0x20800) == 0);
	is_view(m.sp, "20800-208ff bar4+0", "and somebody still watches");
	must(mt_region_move(m.bars[4], 0x10000) == 0);
	works(vd_client_unwatch_pages(m.c), "then it can end");
	is_view(m.sp, "10000-100ff bar4+0", "with nothing mapped");
	fails(vd_client_unwatch_pages(m.c), ENOENT, "once");

	must(vd_client_watch_pages(m.c, m.sp) == 0);
	v = block(&m, x);
	vd_client_destroy(m.c);
	unblock(&m, v);
	must(mt_region_set_enabled(x, false) == 0);
	ok(true, "a client that cannot hide its pages is destroyed");
	must(mt_topology_sync(m.t) == 0);
	m_disconnect(&m, true);
	m_stop(&d);
}

struct watcher {
	struct m_machine *m;
	pthread_t thread;
	unsigned int kind, bad;
};

static void *
watch_thread(void *arg)
{
	struct watcher *w = arg;

	for (unsigned int i = 0; i < 300; i++) {
		errno = 0;
		if ((w->kind == 0 ? vd_client_watch_pages(w->m->c, w->m->sp) :
		    w->kind == 1 ? vd_client_unwatch_pages(w->m->c) :
		    vd_client_update_pages(w->m->c)) == -1 &&
		    errno != EBUSY && errno != ENOENT)
			w->bad++;
	}
	return (NULL);
}

/* Threads begin and end it, and look, all at once. */
static void
test_watchers(void)
{
	const struct m_options o = { .small = true, .no_regs = true };
	struct watcher w[6];
	unsigned int bad = 0;
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 4, 0x10000, 1, VD_CLIENT_WHOLE_PAGE);
	for (unsigned int i = 0; i < T_COUNT(w); i++) {
		w[i] = (struct watcher){ .m = &m, .kind = i % 3 };
		must(pthread_create(&w[i].thread, NULL, watch_thread,
		    &w[i]) == 0);
	}
	for (unsigned int i = 0; i < 100; i++)
		must(mt_region_move(m.bars[4], i % 2 ? 0x10000 : 0x20800) ==
		    0);
	for (unsigned int i = 0; i < T_COUNT(w); i++) {
		must(pthread_join(w[i].thread, NULL) == 0);
		bad += w[i].bad;
	}
	is_int(bad, 0, "threads watch, look and end it, all at once");
	(void)vd_client_unwatch_pages(m.c);
	is_view(m.sp, "10000-100ff bar4+0", "at the end nothing is mapped");
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- interrupts ----------------------------------------------------------- */

static void
test_irqs(void)
{
	const struct m_options o = { .vectors = 40 };
	const enum vd_irq kinds[] = { VD_IRQ_INTX, VD_IRQ_MSIX, VD_IRQ_ERR,
	    VD_IRQ_REQ };
	int fds[40];
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 2, 0, 0, 0);
	for (unsigned int i = 0; i < 40; i++)
		fds[i] = t_eventfd();
	for (unsigned int i = 0; i < T_COUNT(kinds); i++) {
		struct vd_irq_info info;

		must(vd_client_irq_info(m.c, kinds[i], &info) == 0);
		works(vd_client_set_eventfds(m.c, kinds[i], 0, info.count,
		    fds), "all %u of kind %u are connected", info.count,
		    kinds[i]);
		works(vd_client_set_irqs(m.c, kinds[i], info.count - 1, 1,
		    VD_IRQ_ACT_TRIGGER), "the last is triggered");
		is_int(t_hits(fds[info.count - 1]), 1, "and comes");
		if (kinds[i] != VD_IRQ_INTX)
			must(vd_client_set_eventfds(m.c, kinds[i], 0, 0,
			    NULL) == 0);
	}
	must(mt_space_store_le32(m.sp, M_PIN, 1) == MT_OK);
	is_int(t_hits(fds[0]), 1, "the pin rises");
	is_int(t_hits(fds[0]), 0, "and masks itself");
	works(vd_client_set_irqs(m.c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "it is unmasked");
	is_int(t_hits(fds[0]), 1, "and is still high");
	works(vd_client_set_irqs(m.c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "again");
	is_int(t_hits(fds[0]), 1, "it is");
	must(mt_space_store_le32(m.sp, M_PIN, 0) == MT_OK);
	works(vd_client_set_irqs(m.c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_MASK),
	    "it is masked");
	must(mt_space_store_le32(m.sp, M_PIN, 1) == MT_OK);
	is_int(t_hits(fds[0]), 0, "and does not come");
	works(vd_client_set_irqs(m.c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "until it is not");
	is_int(t_hits(fds[0]), 1, "then it does");
	for (unsigned int i = 0; i < 40; i++)
		close(fds[i]);
	m_disconnect(&m, false);
	m_stop(&d);
}

int
main(void)
{
	test_placements();
	test_access();
	test_teardown();
	test_second_mmap();
	test_short_file();
	test_odd_file();
	test_posted();
	test_toggle();
	test_small(false);
	test_small(true);
	test_no_end();
	test_watchers();
	test_irqs();
	return (done());
}
