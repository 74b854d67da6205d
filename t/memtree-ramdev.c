/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * RAM devices: registers behind a mapping.  How they are accessed is looked at
 * from below: the page cannot be accessed, and each instruction that tries is
 * written down and stepped over.
 */

#include <sys/mman.h>

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

#include "t/util.h"

#define PAGE		4096u

static struct mt_region *
ramd(struct mt_topology *t, const char *name, mt_addr size, void *ptr)
{
	struct mt_backing b = { .kind = MT_BACKING_PTR, .ptr = ptr };
	struct mt_region *r;

	r = mt_region_create_ram_device(t, name, MT_SIZE(size),
	    ptr != NULL ? &b : NULL);
	must(r != NULL);
	return (r);
}

/* --- instructions ------------------------------------------------------ */

#if defined(__x86_64__) && !T_TSAN

#define CAN_TRACE	1
#define TRAP_FLAG	0x100

static struct {
	uint8_t *page;
	uint16_t at[2 * PAGE];		/* offsets, in order */
	size_t n;
} trace;

/* Write down where, and let just this instruction through. */
static void
on_segv(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *uc = arg;
	uintptr_t off = (uintptr_t)info->si_addr - (uintptr_t)trace.page;

	if (off >= PAGE || trace.n == T_COUNT(trace.at)) {
		signal(sig, SIG_DFL);
		return;
	}
	trace.at[trace.n++] = (uint16_t)off;
	mprotect(trace.page, PAGE, PROT_READ | PROT_WRITE);
	uc->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

static void
on_trap(int sig, siginfo_t *info, void *arg)
{
	ucontext_t *uc = arg;

	(void)sig, (void)info;
	mprotect(trace.page, PAGE, PROT_NONE);
	uc->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
}

static void
begin_trace(uint8_t *page)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	trace.page = page;
	trace.n = 0;
	sa.sa_sigaction = on_segv;
	must(sigaction(SIGSEGV, &sa, NULL) == 0);
	sa.sa_sigaction = on_trap;
	must(sigaction(SIGTRAP, &sa, NULL) == 0);
	must(mprotect(page, PAGE, PROT_NONE) == 0);
}

/* The accesses since: "0 4 8". */
static const char *
end_trace(void)
{
	char *s = t_text();
	size_t i;

	signal(SIGSEGV, SIG_DFL);
	signal(SIGTRAP, SIG_DFL);
	must(mprotect(trace.page, PAGE, PROT_READ | PROT_WRITE) == 0);
	for (i = 0; i < trace.n && i < 24; i++)
		t_append(s, "%s%x", i > 0 ? " " : "", trace.at[i]);
	if (i < trace.n)
		t_append(s, " ...");
	return (s);
}

#else

#define CAN_TRACE	0

static struct {
	uint16_t at[1];
	size_t n;
} trace;

static void
begin_trace(uint8_t *page)
{
	(void)page;
}

static const char *
end_trace(void)
{
	return ("");
}

#endif

#define is_trace(want, ...) do {					\
	const char *got_ = end_trace();					\
									\
	if (CAN_TRACE)							\
		is_str(got_, want, __VA_ARGS__);			\
	else								\
		skip(1, "cannot look at instructions here");		\
} while (0)

/* Were the last accesses one every 8 bytes, up to the end of the page? */
static bool
all_by_eights(void)
{
	size_t i;

	for (i = 0; i < trace.n; i++)
		if (trace.at[i] != 8 * i)
			return (false);
	return (trace.n == PAGE / 8);
}

static void
test_instructions(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *r;
	struct mt_space *sp;
	struct mt_mapping map;
	struct mt_cache c;
	static uint8_t buf[PAGE];
	uint8_t *page;
	uint64_t val;

	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE |
	    MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED);
	r = ramd(t, "bar", PAGE, page);
	sp = t_space(r);

	begin_trace(page);
	mt_space_read(sp, 0x10, buf, 4, MT_ATTRS_NONE);
	is_trace("10", "four bytes are read by one access");
	begin_trace(page);
	mt_space_load(sp, 0x18, 8, MT_BIG, &val, MT_ATTRS_NONE);
	is_trace("18", "a value is loaded by one");
	begin_trace(page);
	mt_space_store(sp, 0x20, 2, MT_LITTLE, 1, MT_ATTRS_NONE);
	is_trace("20", "and stored by one");
	begin_trace(page);
	mt_space_read(sp, 3, buf, 22, MT_ATTRS_NONE);
	is_trace("3 4 8 10 18", "a long read is cut into aligned pieces");
	begin_trace(page);
	mt_space_write(sp, 7, buf, 7, MT_ATTRS_NONE);
	is_trace("7 8 c", "a write, too");
	begin_trace(page);
	mt_space_load(sp, 6, 8, MT_LITTLE, &val, MT_ATTRS_NONE);
	is_trace("6 8 c", "and a value at an odd place");
	begin_trace(page);
	mt_space_set(sp, 0x100, 0x55, 24, MT_ATTRS_NONE);
	is_trace("100 108 110", "and a fill");
	begin_trace(page);
	mt_space_write_rom(sp, 0x101, buf, 15, MT_ATTRS_NONE);
	is_trace("101 102 104 108", "and a write as to ROM");

	begin_trace(page);
	must(mt_dma_map(sp, 0, PAGE, MT_DMA_READ, MT_ATTRS_NONE, &map) == 0);
	end_trace();
	if (CAN_TRACE)
		ok(all_by_eights(), "a bounce buffer is filled by eights, not "
		    "by a copy");
	begin_trace(page);
	must(mt_dma_unmap(&map, 0) == 0);
	is_trace("", "and given back without an access");
	must(mt_dma_map(sp, 0, PAGE, MT_DMA_WRITE, MT_ATTRS_NONE, &map) == 0);
	begin_trace(page);
	must(mt_dma_unmap(&map, PAGE) == 0);
	end_trace();
	if (CAN_TRACE)
		ok(all_by_eights(), "one that was written goes back by "
		    "eights");

	must(mt_cache_init(&c, sp, 0x40, 64, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE) == 0);
	begin_trace(page);
	must(mt_cache_load_le64(&c, 8, &val) == MT_OK);
	must(mt_cache_store_le16(&c, 2, 1) == MT_OK);
	must(mt_cache_read(&c, 1, buf, 7) == MT_OK);
	is_trace("48 42 41 42 44", "a cache makes the same accesses");
	mt_cache_fini(&c);

	t_end_space(t, sp, r);
	munmap(page, PAGE);
}

/* --- values ------------------------------------------------------------ */

static void
test_bytes(void)
{
	_Alignas(8) static uint8_t mem[64];
	struct mt_topology *t = t_topology();
	struct mt_region *r = ramd(t, "bar", sizeof(mem), mem);
	struct mt_space *sp = t_space(r);
	static const uint8_t in[] = "\x11\x22\x33\x44\x55\x66\x77\x88\x99";
	struct mt_attrs attrs = MT_ATTRS_NONE;
	uint64_t val;
	uint8_t buf[9];
	size_t i;

	is_int(mt_region_kind(r), MT_RAM_DEVICE, "a RAM device is one");
	ok(mt_region_ptr(r) == mem, "its memory is where it was");
	ok(mt_region_arg(r) == NULL, "it has no callbacks to speak of");
	fails(mt_region_fd(r, NULL), ENOENT, "and no file");

	for (i = 0; i < sizeof(mem); i++)
		mem[i] = (uint8_t)i;
	is_read(sp, 0x0d, 8, "0d0e0f1011121314", "bytes come in order");
	is_int(mt_space_write(sp, 0x1b, in, 9, MT_ATTRS_NONE), MT_OK,
	    "any length can be written");
	is_mem(mem + 0x1b, in, 9, "and bytes go in order");
	must(mt_space_load(sp, 0x1c, 4, MT_LITTLE, &val, MT_ATTRS_NONE) ==
	    MT_OK);
	is_hex(val, 0x55443322, "a little-endian value");
	must(mt_space_load(sp, 0x1c, 4, MT_BIG, &val, MT_ATTRS_NONE) ==
	    MT_OK);
	is_hex(val, 0x22334455, "a big-endian one");
	must(mt_space_load(sp, 0x1b, 8, MT_BIG, &val, MT_ATTRS_NONE) ==
	    MT_OK);
	is_hex(val, 0x1122334455667788, "one that is in pieces");
	must(mt_space_store(sp, 0x21, 4, MT_BIG, 0xaabbccdd, MT_ATTRS_NONE) ==
	    MT_OK);
	is_mem(mem + 0x21, "\xaa\xbb\xcc\xdd", 4, "and stored in pieces");
	is_read(sp, 0x3d, 6, "3d3e3f000000 with 2",
	    "nothing is read past its end");

	attrs.memory_only = 1;
	is_int(mt_space_read(sp, 0, buf, 4, attrs), MT_OK,
	    "it is memory for those who want memory only");
	is_int(mt_space_write(sp, 0, in, 4, attrs), MT_OK, "to write, too");
	ok(mt_space_valid(sp, 1, 13, true, attrs), "which is said before");

	t_end_space(t, sp, r);
}

static void
test_readonly(void)
{
	_Alignas(8) static uint8_t mem[16];
	struct mt_topology *t = t_topology();
	struct mt_backing b = { .kind = MT_BACKING_PTR, .ptr = mem,
	    .flags = MT_BACKING_RDONLY };
	struct mt_region *root = t_container(t, "root", 0x1000), *r, *window;
	struct mt_space *sp = t_space(root);
	struct mt_attrs debug = { .debug = 1 }, only = { .memory_only = 1 };
	struct mt_mapping map;

	r = ramd(t, "bar", sizeof(mem), mem);
	must(mt_region_add(root, r, 0, 0) == 0);
	window = t_add(root, 0x100, 0, t_alias(t, "window", r, 0, 16));
	must(mt_region_set_readonly(window, true) == 0);
	is_int(mt_space_write(sp, 0x100, "abcd", 4, MT_ATTRS_NONE), MT_DECODE,
	    "a write through what is read-only is refused");
	is_int(mt_space_store(sp, 0x100, 4, MT_LITTLE, 7, MT_ATTRS_NONE),
	    MT_DECODE, "a store, too");
	is_int(mt_space_write(sp, 0x100, "abcd", 4, only), MT_DECODE,
	    "as memory that cannot be written, which it is");
	ok(!mt_space_valid(sp, 0x100, 4, true, MT_ATTRS_NONE),
	    "as it is said before");
	is_mem(mem, "\0\0\0\0", 4, "and has not got there");
	must(mt_dma_map(sp, 0x100, 4, MT_DMA_WRITE, MT_ATTRS_NONE, &map) ==
	    0);
	memcpy(map.ptr, "abcd", 4);
	fails(mt_dma_unmap(&map, 4), EIO, "nor does DMA get there");
	is_mem(mem, "\0\0\0\0", 4, "in any way");
	is_int(mt_space_write(sp, 0x100, "abcd", 4, debug), MT_OK,
	    "a debugger may write");
	is_int(mt_space_write(sp, 4, "efgh", 4, MT_ATTRS_NONE), MT_OK,
	    "and so may all who come another way");
	is_mem(mem, "abcdefgh", 8, "and have");
	must(mt_region_del(r) == 0);
	mt_region_put(r);

	r = mt_region_create_ram_device(t, "fixed", MT_SIZE(16), &b);
	must(r != NULL);
	t_add(root, 0, 0, r);
	is_int(mt_space_write(sp, 0, "xxxx", 4, debug), MT_DECODE,
	    "what is backed for reading only not even a debugger writes");
	is_int(mt_space_write_rom(sp, 0, "xxxx", 4, MT_ATTRS_NONE),
	    MT_DECODE, "nor who writes ROM");
	is_read(sp, 0, 4, "61626364", "but it can be read");

	t_end_space(t, sp, root);
}

static void
test_dma(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r;
	struct mt_space *sp = t_space(root);
	struct mt_range ranges[] = { { 0, 0xfff }, { 0x1000, 0x1fff } };
	struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct mt_attrs only = { .memory_only = 1 };
	struct mt_mapping map, maps[4];
	struct iovec iov[4];
	struct mt_sg sg;
	uint8_t *p;

	t_add(root, 0, 0, t_ram(t, "ram", 0x1000));
	r = mt_region_create_ram_device(t, "bar", MT_SIZE(0x1000), &memfd);
	must(r != NULL);
	t_add(root, 0x1000, 0, r);
	p = mt_region_ptr(r);
	memset(p, 'r', 0x1000);
	ok(mt_region_fd(r, NULL) >= 0, "a RAM device may have a file");

	must(mt_dma_map(sp, 0x1000, 64, MT_DMA_READ | MT_DMA_WRITE,
	    MT_ATTRS_NONE, &map) == 0);
	ok(map.bounced && map.ptr != p, "it is not lent in place");
	is_mem(map.ptr, "rrrrrrrr", 8, "but staged");
	memcpy(map.ptr, "wwwww", 5);
	works(mt_dma_unmap(&map, 5), "it is written back");
	is_mem(p, "wwwwwrrr", 8, "as far as it was used");
	must(mt_dma_map(sp, 0xff0, 64, MT_DMA_READ, MT_ATTRS_NONE, &map) ==
	    0);
	ok(!map.bounced && map.len == 16, "memory before it is lent alone");
	must(mt_dma_unmap(&map, 0) == 0);
	works(mt_dma_map(sp, 0x1000, 8, MT_DMA_READ, only, &map),
	    "it is staged for those who want memory only");
	is_int(map.result, MT_OK, "and read");
	must(mt_dma_unmap(&map, 0) == 0);

	must(mt_dma_map_sg(sp, ranges, 2, MT_DMA_READ, MT_ATTRS_NONE, iov,
	    maps, 4, &sg) == 0);
	ok(sg.niov == 2 && !maps[0].bounced && maps[1].bounced &&
	    sg.len == 0x2000, "a list stages it, and lends what it can");
	works(mt_dma_unmap_sg(&sg, 0), "and is given back");

	t_end_space(t, sp, root);
}

/* What is in front of a part of a register hides that part. */
static void
test_hidden(void)
{
	_Alignas(8) static uint8_t mem[16];
	struct mt_topology *t = t_topology();
	struct mt_region *r = ramd(t, "bar", 16, mem);
	struct mt_space *sp = t_space(r);
	struct t_dev table = T_DEV(.valid = { 1, 4, false });

	memset(mem, 0xaa, sizeof(mem));
	t_add(r, 6, 1, t_io(t, "table", 4, &table));
	is_view(sp, "0-5 bar+0, 6-9 table+0, a-f bar+a", "it is overlaid");
	is_read(sp, 0, 16, "aaaaaaaaaaaa00010203aaaaaaaaaaaa",
	    "each byte comes from who shows it");
	must(mt_space_store(sp, 0, 8, MT_LITTLE, 0, MT_ATTRS_NONE) == MT_OK);
	is_mem(mem, "\0\0\0\0\0\0\xaa\xaa\xaa\xaa", 10,
	    "and what is hidden is not written");

	t_end_space(t, sp, r);
}

static void
test_create(void)
{
	_Alignas(8) static uint8_t mem[16];
	struct mt_topology *t = t_topology();
	struct mt_backing b = { .kind = MT_BACKING_PTR, .ptr = mem + 4 };
	char *text = NULL;
	size_t len;
	struct mt_region *r;
	FILE *fp;

	fails_null(mt_region_create_ram_device(t, "x", 7, &b), EINVAL,
	    "memory must be aligned to 8 bytes");
	b.ptr = NULL;
	fails_null(mt_region_create_ram_device(t, "x", 7, &b), EINVAL,
	    "and there");
	r = ramd(t, "bar", 16, NULL);
	must((fp = open_memstream(&text, &len)) != NULL);
	must(mt_dump_tree(fp, r) == 0);
	fclose(fp);
	is_str(text, "0000000000000000-000000000000000f (prio 0, ramd): bar\n",
	    "it has a name in dumps");
	free(text);
	mt_region_put(r);
	t_end(t);
}

/* --- threads ----------------------------------------------------------- */

struct race {
	struct mt_space *sp;
	unsigned int rounds;
	bool torn;
};

static void *
flip(void *arg)
{
	struct race *race = arg;
	unsigned int i;

	for (i = 0; i < race->rounds; i++)
		mt_space_store(race->sp, 8, 8, MT_LITTLE,
		    (i & 1) != 0 ? UINT64_MAX : 0, MT_ATTRS_NONE);
	return (NULL);
}

static void
test_race(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *r = ramd(t, "bar", 16, NULL);
	struct race race = { t_space(r), 20000, false };
	pthread_t thread;
	unsigned int i;
	uint64_t val;

	must(pthread_create(&thread, NULL, flip, &race) == 0);
	for (i = 0; i < race.rounds; i++) {
		mt_space_load(race.sp, 8, 8, MT_LITTLE, &val, MT_ATTRS_NONE);
		if (val != 0 && val != UINT64_MAX)
			race.torn = true;
		mt_space_read(race.sp, 8, &val, 8, MT_ATTRS_NONE);
		if (val != 0 && val != UINT64_MAX)
			race.torn = true;
	}
	pthread_join(thread, NULL);
	ok(!race.torn, "a value is never seen half written");
	t_end_space(t, race.sp, r);
}

int
main(void)
{
	test_create();
	test_bytes();
	test_readonly();
	test_dma();
	test_hidden();
	test_instructions();
	test_race();
	return (done());
}
