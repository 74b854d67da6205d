/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Windows looked up once: values, borders, staleness, what they keep. */

#include "t/util.h"

#define RW	(MT_DMA_READ | MT_DMA_WRITE)

struct world {
	struct mt_topology *t;
	struct mt_region *root, *ram, *rom;
	struct mt_space *sp;
	struct t_dev dev;
	uint8_t *p;
	struct mt_cache c;
};

/* 0-fff ram, 1000-10ff io, 2000-2fff rom. */
static void
begin(struct world *w)
{
	size_t i;

	memset(w, 0, sizeof(*w));
	w->dev = (struct t_dev)T_DEV(.endian = MT_BIG, .valid = { 1, 4, 0 });
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x10000);
	w->ram = t_add(w->root, 0, 0, t_ram(w->t, "ram", 0x1000));
	t_add(w->root, 0x1000, 0, t_io(w->t, "io", 0x100, &w->dev));
	w->rom = t_add(w->root, 0x2000, 0, t_rom(w->t, "rom", 0x1000));
	w->sp = t_space(w->root);
	w->p = mt_region_ptr(w->ram);
	for (i = 0; i < 0x1000; i++)
		w->p[i] = (uint8_t)i;
}

static void
end(struct world *w)
{
	mt_cache_fini(&w->c);
	t_end_space(w->t, w->sp, w->root);
}

static void
init(struct world *w, mt_addr addr, size_t len, unsigned int dir)
{
	mt_cache_fini(&w->c);
	must(mt_cache_init(&w->c, w->sp, addr, len, dir, MT_ATTRS_NONE) == 0);
}

/* Each of the inlined loads and stores against the plain ones. */
#define TRY(bits, name, order) do {					\
	uint##bits##_t got;						\
	uint64_t want;							\
	size_t off;							\
	unsigned int bad = 0;						\
									\
	for (off = 0; off < 20; off++) {				\
		must(mt_space_load(w.sp, 0x40 + off, bits / 8, order,	\
		    &want, MT_ATTRS_NONE) == MT_OK);			\
		bad += mt_cache_load_##name##bits(&w.c, off, &got) !=	\
		    MT_OK || got != want;				\
		want = want * 3 + 1;					\
		bad += mt_cache_store_##name##bits(&w.c, off,		\
		    (uint##bits##_t)want) != MT_OK;			\
		must(mt_space_load(w.sp, 0x40 + off, bits / 8, order,	\
		    &want, MT_ATTRS_NONE) == MT_OK);			\
		bad += mt_cache_load(&w.c, off, bits / 8, order,	\
		    &want) != MT_OK;					\
		bad += mt_cache_load_##name##bits(&w.c, off, &got) !=	\
		    MT_OK || got != want;				\
	}								\
	is_int(bad, 0, #name #bits " is as in the space, "		\
	    "at any alignment");					\
} while (0)

static void
test_values(void)
{
	struct world w;

	begin(&w);
	init(&w, 0x40, 0x100, RW);
	TRY(8, u, MT_LITTLE);
	TRY(16, le, MT_LITTLE);
	TRY(32, le, MT_LITTLE);
	TRY(64, le, MT_LITTLE);
	TRY(16, be, MT_BIG);
	TRY(32, be, MT_BIG);
	TRY(64, be, MT_BIG);
	TRY(16, host, MT_HOST);
	TRY(32, host, MT_HOST);
	TRY(64, host, MT_HOST);
	is_int(mt_cache_store_be32(&w.c, 1, 0x11223344), MT_OK, "a value");
	is_str(t_hex(w.p + 0x41, 4), "11223344", "is in memory as it should");
	end(&w);
}

static void
test_range(void)
{
	struct world w;
	uint64_t u64;
	uint32_t u32;
	uint8_t u8, buf[32];

	begin(&w);
	init(&w, 0x100, 0x10, RW);
	is_int(mt_cache_load_le32(&w.c, 0xc, &u32), MT_OK, "the last value");
	is_hex(u32, 0x0f0e0d0c, "is there");
	is_int(mt_cache_load_le32(&w.c, 0xd, &u32), MT_DECODE,
	    "one that reaches past the window is not");
	is_hex(u32, 0, "and loads zero");
	is_int(mt_cache_load_u8(&w.c, 0x10, &u8), MT_DECODE, "nor is the end");
	is_int(mt_cache_load_le64(&w.c, SIZE_MAX - 3, &u64), MT_DECODE,
	    "nor one that wraps around");
	is_int(mt_cache_store_le32(&w.c, 0xd, 0), MT_DECODE,
	    "the same for a store");
	is_hex(w.p[0x10d], 0x0d, "which changes nothing");
	is_int(mt_cache_store_be64(&w.c, SIZE_MAX, 0), MT_DECODE, "at all");
	is_int(mt_cache_read(&w.c, 0, buf, 0x10), MT_OK, "all can be read");
	is_mem(buf, w.p + 0x100, 0x10, "as it is");
	is_int(mt_cache_read(&w.c, 1, buf, 0x10), MT_DECODE, "no more can");
	is_hex(buf[0] | buf[15], 0, "and is zero");
	is_int(mt_cache_write(&w.c, 0xf, buf, 2), MT_DECODE, "nor be written");
	is_int(mt_cache_read(&w.c, 0x10, buf, 0), MT_OK, "nothing is nothing");
	is_int(mt_cache_load(&w.c, 0, 3, MT_LITTLE, &u64), MT_DECODE,
	    "3 bytes are no value");

	init(&w, 0x100, 0x10, MT_DMA_READ);
	is_int(mt_cache_store_u8(&w.c, 0, 1), MT_DENIED, "only for reading");
	is_int(mt_cache_write(&w.c, 0, buf, 1), MT_DENIED, "is not to write");
	is_hex(w.p[0x100], 0, "and was not written");
	init(&w, 0x100, 0x10, MT_DMA_WRITE);
	is_int(mt_cache_load_u8(&w.c, 1, &u8), MT_DENIED, "nor the reverse");
	is_hex(u8, 0, "and gives nothing");

	mt_cache_fini(&w.c);
	is_int(mt_cache_load_le32(&w.c, 0, &u32), MT_DECODE,
	    "without a window there is nothing");
	is_int(mt_cache_store_le32(&w.c, 0, 0), MT_DECODE, "to load or store");
	ok(mt_cache_stale(&w.c), "and it is stale");
	mt_cache_fini(&w.c);
	fails(mt_cache_init(&w.c, w.sp, 0, 0, RW, MT_ATTRS_NONE), EINVAL,
	    "no length");
	fails(mt_cache_init(&w.c, w.sp, 0, 1, 0, MT_ATTRS_NONE), EINVAL,
	    "no direction");
	fails(mt_cache_init(&w.c, w.sp, MT_LAST_MAX, 2, RW, MT_ATTRS_NONE),
	    EINVAL, "past the end of all addresses");
	works(mt_cache_init(&w.c, w.sp, MT_LAST_MAX, 1, RW, MT_ATTRS_NONE),
	    "up to there");
	is_int(mt_cache_load_u8(&w.c, 0, &u8), MT_DECODE, "is a hole");
	end(&w);
}

/* What is not memory, or in part. */
static void
test_slow(void)
{
	struct mt_attrs attrs = { .requester_id = 5 };
	struct world w;
	uint32_t u32;
	uint16_t u16;
	uint64_t u64;

	begin(&w);
	init(&w, 0x1010, 0x20, RW);
	is_int(mt_cache_load_le32(&w.c, 4, &u32), MT_OK, "a register");
	is_hex(u32, 0x17161514, "has its value");
	is_calls(&w.dev, "r 14/4", "by one call");
	mt_cache_store_be16(&w.c, 2, 0x1234);
	is_calls(&w.dev, "w 12/2=1234", "and takes one");
	mt_cache_fini(&w.c);
	must(mt_cache_init(&w.c, w.sp, 0xff8, 0x10, RW, attrs) == 0);
	is_int(mt_cache_load_le64(&w.c, 4, &u64), MT_OK,
	    "a value in memory and a device");
	is_hex(u64, 0x03020100fffefdfc, "is put together");
	is_int(w.dev.calls[0].attrs.requester_id, 5, "with the attributes");
	is_calls(&w.dev, "r 0/4", "by a call for its part");
	is_int(mt_cache_load_le32(&w.c, 0, &u32), MT_OK, "the memory alone");
	is_calls(&w.dev, "", "is nobody's business");
	init(&w, 0x2000, 0x10, RW);
	is_int(mt_cache_load_le16(&w.c, 0, &u16), MT_OK, "ROM can be loaded");
	is_int(mt_cache_store_le16(&w.c, 0, 1), MT_DECODE, "but not stored");
	end(&w);
}

static void
test_stale(void)
{
	struct world w;
	struct mt_region *far, *extra;
	uint8_t u8;
	int owner = 0;

	begin(&w);
	must(mt_region_set_owner(w.ram, &owner, t_put) == 0);
	init(&w, 0x100, 0x10, RW);
	ok(!mt_cache_stale(&w.c), "a new one is not stale");
	far = t_container(w.t, "elsewhere", 0x100);
	extra = t_add(far, 0, 0, t_ram(w.t, "extra", 0x100));
	ok(!mt_cache_stale(&w.c), "nor after a change that is not seen");
	must(mt_region_set_enabled(extra, false) == 0);
	ok(!mt_cache_stale(&w.c), "nor after another");
	must(mt_region_del(w.ram) == 0);
	ok(mt_cache_stale(&w.c), "after one that is, it is");
	is_int(mt_cache_load_u8(&w.c, 5, &u8), MT_OK, "it goes on to show");
	is_hex(u8, 5, "what was there");
	is_int(t_puts_of(w.t, &owner), 0, "which stays");
	fails(mt_space_destroy(w.sp), EBUSY, "as does the space");
	init(&w, 0x100, 0x10, RW);
	is_int(t_puts_of(w.t, &owner), 1, "until it is set up anew");
	ok(!mt_cache_stale(&w.c), "when it is not stale");
	is_int(mt_cache_load_u8(&w.c, 5, &u8), MT_DECODE, "and shows what is");
	mt_region_put(far);
	end(&w);
}

/* One thread changes the tree, others follow by caches of their own. */
struct follower {
	struct world *w;
	bool stop;
	unsigned int loads, bad;
};

static void *
follow(void *arg)
{
	struct follower *f = arg;
	struct mt_cache c;
	uint32_t val;

	memset(&c, 0, sizeof(c));
	while (!__atomic_load_n(&f->stop, __ATOMIC_RELAXED) || f->loads == 0) {
		if (mt_cache_stale(&c)) {
			mt_cache_fini(&c);
			must(mt_cache_init(&c, f->w->sp, 0x4000, 4, RW,
			    MT_ATTRS_NONE) == 0);
		}
		/* One of the two regions that take turns there. */
		if (mt_cache_load_le32(&c, 0, &val) != MT_OK ||
		    (val != 1 && val != 2))
			f->bad++;
		f->loads++;
	}
	mt_cache_fini(&c);
	return (NULL);
}

static void
test_threads(void)
{
	struct follower f[2];
	struct mt_region *a, *b;
	pthread_t thread[2];
	struct world w;
	unsigned int i, bad = 0;

	begin(&w);
	b = t_add(w.root, 0x4000, 0, t_ram(w.t, "b", 0x100));
	a = t_add(w.root, 0x4000, 1, t_ram(w.t, "a", 0x100));
	*(uint8_t *)mt_region_ptr(a) = 1;
	*(uint8_t *)mt_region_ptr(b) = 2;
	memset(f, 0, sizeof(f));
	for (i = 0; i < 2; i++) {
		f[i].w = &w;
		must(pthread_create(&thread[i], NULL, follow, &f[i]) == 0);
	}
	for (i = 0; i < 2000; i++)
		must(mt_region_set_enabled(a, i % 2) == 0);
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&f[i].stop, true, __ATOMIC_RELAXED);
		pthread_join(thread[i], NULL);
		bad += f[i].bad;
	}
	is_int(bad, 0, "caches that follow a writer see one or the other");
	end(&w);
}

int
main(void)
{
	test_values();
	test_range();
	test_slow();
	test_stale();
	test_threads();
	return (done());
}
