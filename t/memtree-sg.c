/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Lists of ranges: pieces, how far they come, and giving them back. */

#include "t/util.h"

#define N	8

struct world {
	struct mt_topology *t;
	struct mt_region *root, *ram, *other, *rom;
	struct mt_space *sp;
	struct t_dev dev;
	struct iovec iov[N];
	struct mt_mapping maps[N];
	struct mt_sg sg;
};

/* 0-fff ram, 1000-1fff other, 3000-30ff io, 4000-4fff rom. */
static void
begin(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->dev = (struct t_dev)T_DEV(.endian = MT_LITTLE, .valid = { 1, 8, 0 },
	    .impl = { 1, 8, 0 });
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x10000);
	w->ram = t_add(w->root, 0, 0, t_ram(w->t, "ram", 0x1000));
	w->other = t_add(w->root, 0x1000, 0, t_ram(w->t, "other", 0x1000));
	t_add(w->root, 0x3000, 0, t_io(w->t, "io", 0x100, &w->dev));
	w->rom = t_add(w->root, 0x4000, 0, t_rom(w->t, "rom", 0x1000));
	w->sp = t_space(w->root);
}

static void
end(struct world *w)
{
	is_int(mt_dma_bounce_used(w->sp), 0, "all budget has come back");
	t_end_space(w->t, w->sp, w->root);
}

static int
map(struct world *w, const struct mt_range *ranges, size_t nranges,
    unsigned int dir, size_t n)
{
	return (mt_dma_map_sg(w->sp, ranges, nranges, dir, MT_ATTRS_NONE,
	    w->iov, w->maps, n, &w->sg));
}

/* "100+8 2" pieces by where they are in ram, or "?+8" if elsewhere. */
static const char *
pieces(struct world *w)
{
	uint8_t *ram = mt_region_ptr(w->ram), *p;
	char *s = t_text();
	size_t i, sum = 0;

	for (i = 0; i < w->sg.niov; i++) {
		p = w->iov[i].iov_base;
		if (p >= ram && p < ram + 0x1000)
			t_append(s, "%tx", p - ram);
		else
			t_append(s, "?");
		t_append(s, "+%zx ", w->iov[i].iov_len);
		sum += w->iov[i].iov_len;
	}
	t_append(s, "of %zx", w->sg.len);
	if (sum != w->sg.len)
		t_append(s, " but %zx", sum);
	if (w->sg.error != 0)
		t_append(s, ", %s at %zu+%" PRIx64, strerror(w->sg.error),
		    w->sg.range, w->sg.off);
	return (s);
}

static void
test_direct(void)
{
	static const struct mt_range some[] = { { 0x100, 0x10f },
	    { 0x200, 0x2ff }, { 0x80, 0x80 } };
	static const struct mt_range joined[] = { { 0x100, 0x1ff },
	    { 0x200, 0x2ff }, { 0x300, 0x37f }, { 0x300, 0x37f } };
	static const struct mt_range over[] = { { 0xff0, 0x100f } };
	struct world w;
	struct mt_sg copy;

	begin(&w);
	works(map(&w, some, 3, MT_DMA_READ, N), "ranges of RAM");
	is_str(pieces(&w), "100+10 200+100 80+1 of 111", "are lent in place");
	copy = w.sg;
	fails(mt_dma_unmap_sg(&copy, 0), EINVAL, "a copy is no list");
	works(mt_dma_unmap_sg(&w.sg, 0), "all is given back at once");
	fails(mt_dma_unmap_sg(&w.sg, 0), EINVAL, "once");
	works(map(&w, joined, 4, MT_DMA_WRITE, N), "neighbours");
	is_str(pieces(&w), "100+280 300+80 of 300", "become one piece");
	fails(mt_dma_unmap_sg(&w.sg, 0x301), ERANGE,
	    "no more can be used than was lent");
	works(mt_dma_unmap_sg(&w.sg, 0x300), "all of it can");
	works(map(&w, over, 1, MT_DMA_READ, N), "a range over two regions");
	is_str(pieces(&w), "ff0+10 ?+10 of 20", "is two pieces");
	works(mt_dma_unmap_sg(&w.sg, 5), "and what was used is ignored for "
	    "reading");
	end(&w);
}

/* The regions stay while they are lent. */
static void
test_pinned(void)
{
	static const struct mt_range two[] = { { 0x0, 0x7f }, { 0x80, 0xff } };
	struct world w;
	int owner = 0;

	begin(&w);
	must(mt_region_set_owner(w.ram, &owner, t_put) == 0);
	works(map(&w, two, 2, MT_DMA_WRITE, N), "lent memory");
	must(mt_region_del(w.ram) == 0);
	is_int(t_puts_of(w.t, &owner), 0, "stays");
	memset(w.iov[0].iov_base, 1, w.iov[0].iov_len);
	works(mt_dma_unmap_sg(&w.sg, 0x100), "until it is given back");
	is_int(t_puts_of(w.t, &owner), 1, "and goes then");
	end(&w);
}

static void
test_partial(void)
{
	static const struct mt_range hole[] = { { 0x100, 0x1ff },
	    { 0x1ff0, 0x200f }, { 0, 0 } };
	static const struct mt_range many[] = { { 0, 0xf }, { 0x10, 0x1f },
	    { 0x40, 0x4f }, { 0x80, 0x8f } };
	static const struct mt_range bad[] = { { 0, 1 }, { 2, 1 } };
	struct world w;

	begin(&w);
	works(map(&w, hole, 3, MT_DMA_READ, N), "a list with a hole");
	is_str(pieces(&w), "100+100 ?+10 of 110, Bad address at 1+10",
	    "is lent up to it");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);
	works(map(&w, many, 4, MT_DMA_READ, 2), "too few elements");
	is_str(pieces(&w), "0+20 40+10 of 30, No space left on device at 3+0",
	    "are filled");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);
	works(map(&w, many, 2, MT_DMA_READ, 1), "one element");
	is_str(pieces(&w), "0+20 of 20", "is enough for neighbours");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);
	works(map(&w, bad, 2, MT_DMA_READ, N), "a range that makes no sense");
	is_str(pieces(&w), "0+2 of 2, Invalid argument at 1+0",
	    "stops the list");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);

	fails(map(&w, bad + 1, 1, MT_DMA_READ, N), EINVAL,
	    "it fails if it is the first");
	fails(map(&w, hole, 0, MT_DMA_READ, N), EINVAL, "no list");
	fails(map(&w, hole, 1, MT_DMA_READ, 0), EINVAL, "no elements");
	fails(map(&w, hole, 1, 0, N), EINVAL, "no direction");
	fails(map(&w, hole, 1, 8, N), EINVAL, "a wrong one");
	fails(map(&w, (struct mt_range[]){ { 0x2000, 0x2000 } }, 1,
	    MT_DMA_READ, N), EFAULT, "nothing there");
	fails(mt_dma_unmap_sg(&w.sg, 0), EINVAL, "nothing to give back");
	end(&w);
}

static void
test_bounce(void)
{
	static const struct mt_range mixed[] = { { 0x100, 0x107 },
	    { 0x3000, 0x300f }, { 0x108, 0x10f }, { 0x3080, 0x308f } };
	static const struct mt_range rom[] = { { 0x100, 0x103 },
	    { 0x4000, 0x4003 } };
	struct world w;

	begin(&w);
	works(map(&w, mixed, 4, MT_DMA_READ | MT_DMA_WRITE, N),
	    "devices among memory");
	is_str(pieces(&w), "100+8 ?+10 108+8 ?+10 of 30", "are staged");
	is_calls(&w.dev, "r 0/8, r 8/8, r 80/8, r 88/8", "and filled");
	memset(w.iov[0].iov_base, 1, 8);
	memset(w.iov[1].iov_base, 2, 16);
	memset(w.iov[2].iov_base, 3, 8);
	memset(w.iov[3].iov_base, 4, 16);
	works(mt_dma_unmap_sg(&w.sg, 0x28), "what was used");
	is_calls(&w.dev, "w 0/8=202020202020202, w 8/8=202020202020202, "
	    "w 80/8=404040404040404", "is written back, and no more");

	w.dev.fail = MT_DEVICE;
	w.dev.fail_off = 0x80;
	works(map(&w, mixed, 4, MT_DMA_READ | MT_DMA_WRITE, N),
	    "an error of a fill");
	is_int(w.sg.result, MT_DEVICE, "is told");
	fails(mt_dma_unmap_sg(&w.sg, w.sg.len), EIO,
	    "one of a write-back, too");
	is_int(w.sg.result, MT_DEVICE, "with its result");
	fails(mt_dma_unmap_sg(&w.sg, 0), EINVAL, "and all is given back");
	works(map(&w, rom, 2, MT_DMA_WRITE, N), "ROM that is written");
	fails(mt_dma_unmap_sg(&w.sg, 8), EIO, "is refused in the end");
	is_int(w.sg.result, MT_DECODE, "as a write is");

	mt_dma_set_bounce_limit(w.sp, 20);
	works(map(&w, mixed, 4, MT_DMA_WRITE, N), "with too little budget");
	is_str(pieces(&w), "100+8 ?+10 108+8 ?+4 of 24, Resource temporarily "
	    "unavailable at 3+4", "some of it is lent");
	works(mt_dma_unmap_sg(&w.sg, 0), "and given back");
	works(map(&w, mixed, 4, MT_DMA_WRITE, 1), "a device after the last");
	is_str(pieces(&w), "100+8 of 8, No space left on device at 1+0",
	    "element takes no budget");
	is_int(mt_dma_bounce_used(w.sp), 0, "at all");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);
	end(&w);
}

/* Others take the places of both RAMs while a device is asked. */
static enum mt_result
replace(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct world *w = arg;

	(void)off, (void)size, (void)attrs;
	*val = 0;
	must(mt_topology_begin(w->t) == 0);
	must(mt_region_del(w->ram) == 0);
	must(mt_region_del(w->other) == 0);
	t_add(w->root, 0, 0, t_ram(w->t, "new", 0x2000));
	must(mt_topology_commit(w->t) == 0);
	return (MT_OK);
}

/* A list has one view, whatever changes while it is mapped. */
static void
test_one_view(void)
{
	static const struct mt_io_ops ops = { .read = replace,
	    .valid = { 1, 8, 0 }, .impl = { 1, 8, 0 } };
	static const struct mt_range list[] = { { 0x7f0, 0x80f },
	    { 0x200, 0x20f }, { 0x1000, 0x100f } };
	struct world w;
	uint8_t *other;

	begin(&w);
	t_add(w.root, 0x800, 1, (struct mt_region *)t_not_null(
	    mt_region_create_io(w.t, "replace", 7, &ops, &w), "io"));
	other = mt_region_ptr(w.other);
	memset(mt_region_ptr(w.ram), 0x11, 0x1000);
	works(map(&w, list, 3, MT_DMA_READ, N), "a list whose memory goes "
	    "while it is mapped");
	is_str(pieces(&w), "7f0+10 ?+10 200+10 ?+10 of 40",
	    "has what was there");
	ok(w.sg.niov == 4 && w.iov[3].iov_base == other, "in all ranges");
	is_str(t_hex(w.iov[1].iov_base, 16),
	    "00000000000000001111111111111111", "and in what is staged");
	is_view(w.sp, "0-7ff new+0, 800-807 replace+0, 808-1fff new+808, "
	    "3000-30ff io+0, 4000-4fff rom+0 r", "where others are now");
	must(mt_dma_unmap_sg(&w.sg, 0) == 0);
	end(&w);
}

int
main(void)
{
	test_direct();
	test_pinned();
	test_partial();
	test_bounce();
	test_one_view();
	return (done());
}
