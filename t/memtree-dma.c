/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Mapping memory for devices, in place or not, and giving it back. */

#include "t/util.h"

/* RAM at 0, a device at 0x1000, ROM at 0x2000, a hole, and the end. */
struct world {
	struct mt_topology *t;
	struct mt_region *root, *ram, *io, *rom;
	struct mt_space *sp;
	struct t_dev dev;
};

static void
begin(struct world *w)
{
	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w->t = t_topology();
	w->root = t_container(w->t, "root", T_ALL);
	w->ram = t_add(w->root, 0, 0, t_ram(w->t, "ram", 0x1000));
	w->io = t_add(w->root, 0x1000, 0,
	    t_io(w->t, "io", 0x1000, &w->dev));
	w->rom = t_add(w->root, 0x2000, 0, t_rom(w->t, "rom", 0x1000));
	memset(mt_region_ptr(w->rom), 0x77, 0x1000);
	w->sp = t_space(w->root);
}

static void
end(struct world *w)
{
	is_int(mt_dma_bounce_used(w->sp), 0, "all budget has come back");
	t_end_space(w->t, w->sp, w->root);
}

static int
map(struct world *w, mt_addr addr, size_t len, unsigned int dir,
    struct mt_mapping *m)
{
	return (mt_dma_map(w->sp, addr, len, dir, MT_ATTRS_NONE, m));
}

static void
test_direct(void)
{
	struct mt_mapping m;
	struct mt_region *half, *tail;
	struct world w;

	begin(&w);
	works(map(&w, 0x10, 0x20, MT_DMA_READ, &m), "RAM is mapped");
	ok(!m.bounced && m.ptr == (uint8_t *)mt_region_ptr(w.ram) + 0x10,
	    "in place");
	is_int(m.len, 0x20, "as long as asked");
	is_int(m.result, MT_OK, "without an error");
	is_int(mt_dma_bounce_used(w.sp), 0, "and takes no budget");
	works(mt_dma_unmap(&m, 0), "and unmapped");
	ok(m.ptr == NULL, "and gone");
	works(map(&w, 0xff0, 0x20, MT_DMA_WRITE, &m), "a longer piece");
	is_int(m.len, 0x10, "ends where memory does");
	memset(m.ptr, 0x5a, m.len);
	works(mt_dma_unmap(&m, m.len), "what was written");
	is_read(w.sp, 0xff0, 2, "5a5a", "is there");
	works(map(&w, 0, 16, MT_DMA_READ | MT_DMA_WRITE, &m),
	    "both directions at once");
	works(mt_dma_unmap(&m, 16), "are fine");
	works(map(&w, 0x2000, 16, MT_DMA_READ, &m), "ROM");
	ok(!m.bounced && m.ptr == mt_region_ptr(w.rom),
	    "is read in place, too");
	works(mt_dma_unmap(&m, 99999), "used is ignored without a write");

	/* Sections that continue each other in one region are one piece. */
	half = t_add(w.root, 0x800, 1,
	    t_alias(w.t, "half", w.ram, 0x800, 0x100));
	must(mt_region_set_nonvolatile(half, true) == 0);
	is_view(w.sp, "0-7ff ram+0, 800-8ff ram+800 n, 900-fff ram+900, "
	    "1000-1fff io+0, 2000-2fff rom+0 r", "(a view with such)");
	works(map(&w, 0x700, 0x500, MT_DMA_WRITE, &m), "across sections");
	is_int(m.len, 0x500, "that continue each other it is one piece");
	works(mt_dma_unmap(&m, 0), "unmap");
	works(map(&w, 0x700, 0x100, MT_DMA_WRITE, &m), "up to such");
	is_int(m.len, 0x100, "it is no longer than asked for");
	works(mt_dma_unmap(&m, 0), "unmap");
	must(mt_region_set_readonly(half, true) == 0);
	works(map(&w, 0x700, 0x500, MT_DMA_WRITE, &m), "but not");
	is_int(m.len, 0x100, "where one is read-only");
	works(mt_dma_unmap(&m, 0), "unmap");
	works(map(&w, 0x700, 0x500, MT_DMA_READ, &m), "unless it is read");
	is_int(m.len, 0x500, "which is one piece");
	works(mt_dma_unmap(&m, 0), "unmap");
	tail = t_add(w.root, 0xf00, 1,
	    t_alias(w.t, "tail", w.ram, 0xf00, 0x100));
	must(mt_region_set_nonvolatile(tail, true) == 0);
	works(map(&w, 0xe00, 0x180, MT_DMA_READ, &m), "into the last one");
	is_int(m.len, 0x180, "it is no longer than asked for");
	works(mt_dma_unmap(&m, 0), "unmap");
	must(mt_region_set_alias_offset(half, 0x700) == 0);
	works(map(&w, 0x700, 0x500, MT_DMA_READ, &m), "or does not continue");
	is_int(m.len, 0x100, "in memory");
	works(mt_dma_unmap(&m, 0), "unmap");
	end(&w);
}

static void
test_refused(void)
{
	struct mt_attrs attrs = { .memory_only = 1 };
	struct mt_mapping m;
	struct world w;

	begin(&w);
	t_add(w.root, 0x8000, 0, t_reserved(w.t, "reserved", 0x1000));
	memset(&m, 0xff, sizeof(m));
	fails(map(&w, 0x5000, 4, MT_DMA_READ, &m), EFAULT,
	    "what is not there is not mapped");
	ok(m.ptr == NULL, "and nothing is lent");
	fails(map(&w, 0x8000, 4, MT_DMA_READ, &m), EFAULT,
	    "nor what is reserved");
	fails(map(&w, 0, 0, MT_DMA_READ, &m), EINVAL, "nothing is not mapped");
	fails(map(&w, 0, 4, 0, &m), EINVAL, "nor in no direction");
	fails(map(&w, 0, 4, MT_DMA_READ | 4, &m), EINVAL,
	    "nor in an unknown one");
	fails(mt_dma_map(w.sp, 0x1000, 4, MT_DMA_READ, attrs, &m), EFAULT,
	    "a device is denied by memory only");
	ok(m.ptr == NULL, "and nothing is lent");
	works(mt_dma_map(w.sp, 0, 4, MT_DMA_READ, attrs, &m), "memory is not");
	works(mt_dma_unmap(&m, 0), "unmap");
	is_calls(&w.dev, "", "the device was not called");
	fails(mt_dma_unmap(&m, 0), EINVAL, "a mapping is unmapped once");
	end(&w);
}

static void
test_wrong(void)
{
	struct mt_mapping m, copy, garbage, zero;
	struct world w;

	begin(&w);
	memset(&garbage, 0xa5, sizeof(garbage));
	memset(&zero, 0, sizeof(zero));
	fails(mt_dma_unmap(&zero, 0), EINVAL, "what is 0 is no mapping");
	fails(mt_dma_unmap(&garbage, 0), EINVAL, "nor is garbage");
	must(map(&w, 0, 16, MT_DMA_WRITE, &m) == 0);
	copy = m;
	fails(mt_dma_unmap(&copy, 0), EINVAL, "nor is a copy of one");
	fails(mt_dma_unmap(&m, 17), ERANGE,
	    "no more is used than there was");
	ok(m.ptr != NULL && m.len == 16, "it is still mapped");
	works(mt_dma_unmap(&m, 16), "and unmapped");
	fails(mt_dma_unmap(&m, 16), EINVAL, "once");
	fails(mt_dma_unmap(&copy, 0), EINVAL, "and the copy is still none");

	must(map(&w, 0x1000, 16, MT_DMA_WRITE, &m) == 0);
	copy = m;
	fails(mt_dma_unmap(&copy, 0), EINVAL,
	    "nor is a copy of a bounced one");
	fails(mt_dma_unmap(&m, 17), ERANGE, "which is no longer either");
	ok(m.ptr != NULL && mt_dma_bounce_used(w.sp) == 16,
	    "it is still mapped");
	works(mt_dma_unmap(&m, 0), "and unmapped");
	fails(mt_dma_unmap(&m, 0), EINVAL, "once");
	is_calls(&w.dev, "", "and nothing was written");
	end(&w);
}

static void
test_bounce(void)
{
	static const uint8_t zero[32];
	struct mt_mapping m;
	struct world w;

	begin(&w);
	works(map(&w, 0x1008, 6, MT_DMA_READ, &m), "a device is mapped");
	ok(m.bounced && m.len == 6, "through a bounce buffer");
	is_int(mt_dma_bounce_used(w.sp), 6, "that takes budget");
	is_calls(&w.dev, "r 8/4, r c/2", "which is filled");
	is_mem(m.ptr, "\x08\x09\x0a\x0b\x0c\x0d", 6, "with what is read");
	works(mt_dma_unmap(&m, 6), "unmap");
	is_calls(&w.dev, "", "and not written back");
	ok(m.ptr == NULL, "it is gone");
	is_int(mt_dma_bounce_used(w.sp), 0, "and its budget back");

	works(map(&w, 0x1010, 32, MT_DMA_WRITE, &m), "for writing");
	is_calls(&w.dev, "", "it is not filled");
	is_mem(m.ptr, zero, 32, "but with 0");
	memcpy(m.ptr, "\x11\x22\x33\x44\x55\x66\x77\x88", 8);
	works(mt_dma_unmap(&m, 6), "unmap");
	is_calls(&w.dev, "w 10/4=44332211, w 14/2=6655",
	    "as much as was used is written back");
	works(map(&w, 0x1010, 32, MT_DMA_WRITE, &m), "of which");
	works(mt_dma_unmap(&m, 0), "nothing");
	is_calls(&w.dev, "", "is nothing");

	works(map(&w, 0x1010, 4, MT_DMA_READ | MT_DMA_WRITE, &m), "both ways");
	((uint8_t *)m.ptr)[1] = 0xee;
	works(mt_dma_unmap(&m, 4), "unmap");
	is_calls(&w.dev, "r 10/4, w 10/4=1312ee10", "is filled and written");

	works(map(&w, 0x1ffe, 8, MT_DMA_READ, &m),
	    "a bounce buffer goes on behind the device");
	is_int(m.len, 8, "as long as asked");
	is_mem(m.ptr, "\xfe\xff\x77\x77\x77\x77\x77\x77", 8, "into the next");
	is_int(m.result, MT_OK, "without an error");
	works(mt_dma_unmap(&m, 0), "unmap");
	w.dev.ncalls = 0;
	end(&w);
}

static void
test_bounce_errors(void)
{
	struct mt_mapping m;
	struct world w;

	begin(&w);
	w.dev.fail = MT_DEVICE;
	w.dev.fail_off = 4;
	works(map(&w, 0x1000, 8, MT_DMA_READ, &m),
	    "a device that fails to fill is mapped");
	is_int(m.result, MT_DEVICE, "and the mapping tells");
	is_mem(m.ptr, "\0\1\2\3\4\5\6\7", 8, "what it read");
	works(mt_dma_unmap(&m, 0), "unmap");
	w.dev.ncalls = 0;
	works(map(&w, 0x1000, 12, MT_DMA_WRITE, &m), "for writing");
	is_int(m.result, MT_OK, "it has not failed yet");
	memset(m.ptr, 0x11, 12);
	fails(mt_dma_unmap(&m, 12), EIO, "until it is written");
	is_int(m.result, MT_DEVICE, "and the mapping tells");
	is_calls(&w.dev, "w 0/4=11111111, w 4/4=11111111, w 8/4=11111111",
	    "all of it was");
	ok(m.ptr == NULL, "and is gone");
	fails(mt_dma_unmap(&m, 0), EINVAL, "for good");
	is_int(mt_dma_bounce_used(w.sp), 0, "with its budget");
	works(map(&w, 0x1000, 12, MT_DMA_WRITE, &m), "what is not written");
	works(mt_dma_unmap(&m, 4), "does not fail");
	w.dev.fail = MT_OK;
	w.dev.ncalls = 0;

	works(map(&w, 0x2ffc, 4, MT_DMA_WRITE, &m), "ROM is mapped");
	ok(m.bounced, "not in place for writing");
	memset(m.ptr, 0, 4);
	fails(mt_dma_unmap(&m, 4), EIO, "and refused in the end");
	is_int(m.result, MT_DECODE, "as a write would be");
	is_read(w.sp, 0x2ffc, 4, "77777777", "and is as it was");

	must(mt_region_set_readonly(w.ram, true) == 0);
	works(map(&w, 0, 4, MT_DMA_WRITE, &m), "as is read-only RAM");
	ok(m.bounced && m.ptr != mt_region_ptr(w.ram), "not in place");
	memset(m.ptr, 0xff, 4);
	fails(mt_dma_unmap(&m, 4), EIO, "nor written");
	is_read(w.sp, 0, 4, "00000000", "at all");
	works(map(&w, 0, 4, MT_DMA_READ, &m), "but for reading");
	ok(!m.bounced, "it is lent");
	works(mt_dma_unmap(&m, 0), "unmap");
	end(&w);
}

/* A device that goes while it is mapped: an error, not a crash. */
static void
test_bounce_gone(void)
{
	struct mt_mapping m, more;
	struct t_dev other = T_DEV(.endian = MT_LITTLE);
	struct world w;
	int owner = 0;

	begin(&w);
	must(mt_region_set_owner(w.io, &owner, t_put) == 0);
	must(map(&w, 0x1000, 4, MT_DMA_WRITE, &m) == 0);
	must(map(&w, 0x1004, 4, MT_DMA_READ, &more) == 0);
	w.dev.ncalls = 0;
	works(mt_region_del(w.io), "a device that is staged goes");
	t_add(w.root, 0x1000, 0, t_io(w.t, "other", 0x1000, &other));
	is_int(t_puts_of(w.t, &owner), 0, "and lives on");
	memset(m.ptr, 1, 4);
	works(mt_dma_unmap(&m, 4), "what was written");
	is_calls(&w.dev, "w 0/4=1010101", "gets to it");
	is_calls(&other, "", "and not to what took its place");
	is_int(t_puts_of(w.t, &owner), 1,
	    "then it goes: one that is only read is a copy");
	works(mt_dma_unmap(&more, 0), "which is given back");
	end(&w);
}

/* One that reaches over sections keeps those, in their places, and no other. */
static void
test_bounce_parts(void)
{
	struct t_dev second = T_DEV(.endian = MT_LITTLE);
	struct mt_region *io2, *next;
	struct mt_mapping m;
	struct world w;
	int owner = 0, owner2 = 0, after = 0;

	begin(&w);
	must(mt_region_del(w.rom) == 0);
	io2 = t_add(w.root, 0x2010, 0, t_io(w.t, "io2", 0x10, &second));
	next = t_add(w.root, 0x2020, 0, t_ram(w.t, "next", 0x10));
	must(mt_region_set_owner(w.io, &owner, t_put) == 0);
	must(mt_region_set_owner(io2, &owner2, t_put) == 0);
	must(mt_region_set_owner(next, &after, t_put) == 0);
	must(map(&w, 0x1ffc, 0x18, MT_DMA_WRITE, &m) == 0);
	is_int(m.len, 0x18, "a device, a hole and another device");
	must(mt_region_del(w.io) == 0 && mt_region_del(io2) == 0 &&
	    mt_region_del(next) == 0);
	is_int(t_puts_of(w.t, &after), 1, "what is not mapped goes");
	is_int(owner + owner2, 0, "what is mapped stays");
	memset(m.ptr, 2, m.len);
	fails(mt_dma_unmap(&m, m.len), EIO, "the write-back meets the hole");
	is_int(m.result, MT_DECODE, "as a write would");
	is_calls(&w.dev, "w ffc/4=2020202", "the first has its bytes");
	is_calls(&second, "w 0/4=2020202", "and so has the second");
	is_int(t_puts_of(w.t, &owner) + owner2, 2, "and both go");
	end(&w);
}

/* One of very many sections is shorter. */
static void
test_bounce_many(void)
{
	static struct t_dev devs[100];
	struct mt_mapping m;
	struct world w;
	size_t i;

	begin(&w);
	for (i = 0; i < T_COUNT(devs); i++) {
		devs[i] = (struct t_dev)T_DEV(.endian = MT_LITTLE);
		t_add(w.root, 0x4000 + i * 4, 0, t_io(w.t, "word", 4,
		    &devs[i]));
	}
	must(map(&w, 0x4000, 400, MT_DMA_WRITE, &m) == 0);
	ok(m.len < 400 && m.len >= 64 && m.len % 4 == 0,
	    "a hundred sections are not one mapping");
	is_int(mt_dma_bounce_used(w.sp), m.len, "and take what they need");
	memset(m.ptr, 3, m.len);
	i = m.len / 4 - 1;
	works(mt_dma_unmap(&m, m.len), "what there is of it");
	is_calls(&devs[i], "w 0/4=3030303", "is written to its end");
	is_calls(&devs[i + 1], "", "and no further");
	end(&w);
}

/* What was given to map is what a device sees when it is written back. */
static void
test_attrs(void)
{
	struct mt_attrs attrs = { .requester_id = 0xabcd, .secure = 1,
	    .user = 1 };
	struct mt_mapping m;
	struct world w;

	begin(&w);
	must(mt_dma_map(w.sp, 0x1000, 4, MT_DMA_READ | MT_DMA_WRITE, attrs,
	    &m) == 0);
	attrs.requester_id = 0;
	must(mt_dma_unmap(&m, 4) == 0);
	is_int(w.dev.ncalls, 2, "a fill and a write-back");
	ok(w.dev.calls[0].attrs.requester_id == 0xabcd &&
	    w.dev.calls[0].attrs.secure == 1 &&
	    w.dev.calls[0].attrs.user == 1, "carry attributes");
	ok(w.dev.calls[1].attrs.requester_id == 0xabcd &&
	    w.dev.calls[1].attrs.secure == 1 &&
	    w.dev.calls[1].attrs.user == 1, "both of them");
	end(&w);
}

/* Memory that is mapped stays, whatever happens to the tree. */
static void
test_pin(void)
{
	struct mt_mapping m;
	struct mt_region *other;
	struct world w;
	int owner = 0;

	begin(&w);
	must(mt_region_set_owner(w.ram, &owner, t_put) == 0);
	memset(mt_region_ptr(w.ram), 0x42, 0x1000);
	must(map(&w, 0, 0x1000, MT_DMA_WRITE, &m) == 0);
	works(mt_region_del(w.ram), "RAM that is mapped is deleted");
	other = t_add(w.root, 0, 0, t_ram(w.t, "other", 0x1000));
	is_int(t_puts_of(w.t, &owner), 0, "and lives on");
	is_int(((uint8_t *)m.ptr)[0xfff], 0x42, "readable");
	memset(m.ptr, 0x43, m.len);
	works(mt_dma_unmap(&m, m.len), "until it is unmapped");
	is_int(t_puts_of(w.t, &owner), 1, "and goes");
	is_int(*(uint8_t *)mt_region_ptr(other), 0,
	    "what took its place is not written");
	end(&w);
}

static void
test_end_of_addresses(void)
{
	struct mt_mapping m;
	struct mt_region *top, *last;
	struct world w;

	begin(&w);
	top = t_add(w.root, MT_LAST_MAX - 7, 0, t_ram(w.t, "top", 0x1000));
	last = t_add(w.root, MT_LAST_MAX, 1, t_alias(w.t, "last", top, 7, 1));
	must(mt_region_set_nonvolatile(last, true) == 0);
	works(map(&w, MT_LAST_MAX - 3, 100, MT_DMA_READ, &m),
	    "memory at the end");
	is_int(m.len, 4, "ends at 2^64");
	works(mt_dma_unmap(&m, 0), "unmap");
	t_add(w.root, MT_LAST_MAX - 7, 0,
	    t_io(w.t, "iotop", 0x1000, &w.dev));
	works(map(&w, MT_LAST_MAX - 3, 100, MT_DMA_WRITE, &m),
	    "a bounce buffer at the end");
	is_int(m.len, 4, "does, too");
	works(mt_dma_unmap(&m, 4), "and is written back");
	w.dev.ncalls = 0;
	end(&w);
}

/* A ROM device is memory for a reader in ROM mode, and nothing else. */
static void
test_rom_device(void)
{
	struct mt_mapping m;
	struct mt_region *romd;
	struct world w;

	begin(&w);
	romd = t_add(w.root, 0x4000, 0, t_romd(w.t, "romd", 0x1000, &w.dev));
	works(map(&w, 0x4000, 4, MT_DMA_READ, &m), "a ROM device");
	ok(!m.bounced, "is read in place in ROM mode");
	works(mt_dma_unmap(&m, 0), "unmap");
	works(map(&w, 0x4000, 4, MT_DMA_WRITE, &m), "and written");
	ok(m.bounced, "through a bounce buffer");
	works(mt_dma_unmap(&m, 4), "in the end");
	is_calls(&w.dev, "w 0/4=0", "by a call");
	must(mt_region_set_rom_mode(romd, false) == 0);
	works(map(&w, 0x4000, 4, MT_DMA_READ, &m), "and out of it");
	ok(m.bounced, "for both");
	works(mt_dma_unmap(&m, 0), "unmap");
	is_calls(&w.dev, "r 0/4", "by calls");
	end(&w);
}

/* Mapping and reading from threads while the map stays as it is. */
struct mapper {
	struct world *w;
	unsigned int errors;
};

static void *
mapper(void *arg)
{
	struct mapper *m = arg;
	struct mt_mapping map1, map2;
	int i;

	for (i = 0; i < 2000; i++) {
		if (map(m->w, 0, 64, MT_DMA_READ, &map1) != 0 ||
		    map(m->w, 0x2000, 64, MT_DMA_READ, &map2) != 0) {
			m->errors++;
			continue;
		}
		if (*(uint8_t *)map2.ptr != 0x77)
			m->errors++;
		if (mt_dma_unmap(&map1, 0) != 0 ||
		    mt_dma_unmap(&map2, 0) != 0)
			m->errors++;
	}
	return (NULL);
}

static void
test_threads(void)
{
	struct mapper m[4];
	pthread_t thread[4];
	unsigned int errors = 0;
	struct world w;
	size_t i;

	begin(&w);
	for (i = 0; i < T_COUNT(m); i++) {
		m[i] = (struct mapper){ &w, 0 };
		must(pthread_create(&thread[i], NULL, mapper, &m[i]) == 0);
	}
	for (i = 0; i < T_COUNT(m); i++) {
		pthread_join(thread[i], NULL);
		errors += m[i].errors;
	}
	is_int(errors, 0, "threads map and unmap side by side");
	end(&w);
}

int
main(void)
{
	test_direct();
	test_refused();
	test_wrong();
	test_bounce();
	test_bounce_errors();
	test_bounce_gone();
	test_bounce_parts();
	test_bounce_many();
	test_attrs();
	test_pin();
	test_end_of_addresses();
	test_rom_device();
	test_threads();
	return (done());
}
