/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Memory that grows and shrinks, and those who are told. */

#include <sys/mman.h>

#include <pthread.h>

#include "t/kinds.h"

/* --- who is told ------------------------------------------------------- */

struct owner {
	struct mt_topology *t;
	struct mt_space *sp;
	struct t_listener *l;
	char text[T_TEXT];
	mt_addr again;			/* resize to that when told */
};

static void
resized(void *arg, struct mt_region *r, mt_addr last)
{
	struct owner *o = arg;
	struct mt_section sec;
	mt_addr want;

	t_append(o->text, "%s%s %" PRIx64, o->text[0] != '\0' ? ", " : "",
	    mt_region_name(r), last);
	/* A listener heard of it before. */
	if (o->l != NULL && o->l->text[0] == '\0')
		t_append(o->text, " before others");
	/* Not in a transaction, whose lock would be held. */
	if (mt_topology_commit(o->t) == 0 || errno != EPERM)
		t_append(o->text, " inside");
	if (o->sp != NULL) {
		must(mt_space_find(o->sp, (struct mt_range){ 0, MT_LAST_MAX },
		    &sec) == 0);
		if (sec.range.last != last)
			t_append(o->text, " but it shows %" PRIx64,
			    sec.range.last);
		mt_region_put(sec.region);
	}
	if ((want = o->again) != 0) {
		o->again = 0;
		must(mt_region_resize(r, want) == 0);
	}
}

#define is_told(o, want, ...)	is_str(t_events((o)->text), want, __VA_ARGS__)

static struct mt_region *
growable(struct mt_topology *t, mt_addr last, mt_addr max)
{
	struct mt_backing b = { .kind = MT_BACKING_ANON, .max_last = max };
	struct mt_region *r;

	must((r = mt_region_create_ram(t, "ram", last, &b)) != NULL);
	return (r);
}

static void
test_told(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *r = growable(t, 0xfff, 0x3fff), *io;
	struct mt_space *sp = t_space(r);
	struct owner o = { .t = t, .sp = sp };
	struct t_listener l;

	t_listen(&l, sp, NULL, 0, NULL);
	o.l = &l;
	fails(mt_region_set_resized(r, NULL, NULL), EINVAL,
	    "who is to be told?");
	works(mt_region_set_resized(r, resized, &o), "somebody");
	fails(mt_region_set_resized(r, resized, &o), EBUSY, "nobody else");

	t_events(l.text);
	works(mt_region_resize(r, 0x1fff), "RAM grows");
	is_told(&o, "ram 1fff", "its owner is told, when it is done");
	is_heard(&l, "begin, del 0-fff ram+0, add 0-1fff ram+0, commit",
	    "as are listeners");
	works(mt_region_resize(r, 0x1fff), "to the size that it has");
	is_told(&o, "", "it does not change");
	works(mt_region_set_readonly(r, true), "another change");
	is_told(&o, "", "is not told");
	works(mt_region_set_readonly(r, false), "nor that");
	fails(mt_region_resize(r, 0x4000), EINVAL, "it can become too large");
	is_told(&o, "", "which is not told");

	must(mt_topology_begin(t) == 0);
	must(mt_region_resize(r, 0x2fff) == 0);
	must(mt_topology_begin(t) == 0);
	must(mt_region_resize(r, 0x7ff) == 0);
	must(mt_topology_commit(t) == 0);
	is_told(&o, "", "nothing is told inside a transaction");
	must(mt_topology_commit(t) == 0);
	is_told(&o, "ram 7ff", "at its end only how it came out");
	must(mt_topology_begin(t) == 0);
	must(mt_region_resize(r, 0x2fff) == 0);
	must(mt_region_set_nonvolatile(r, true) == 0);
	must(mt_region_resize(r, 0x7ff) == 0);
	must(mt_topology_commit(t) == 0);
	is_told(&o, "", "and not there if nothing came of it");
	must(mt_region_set_nonvolatile(r, false) == 0);

	o.again = 0x3fff;
	o.sp = NULL;
	must(mt_region_resize(r, 0xfff) == 0);
	is_told(&o, "ram fff, ram 3fff", "it may be resized when told");
	is_int(mt_region_last(r), 0x3fff, "and is");

	io = t_io(t, "io", 16, &dev);
	o.l = NULL;
	must(mt_region_set_resized(io, resized, &o) == 0);
	must(mt_region_resize(io, 7) == 0);
	is_told(&o, "io 7", "what is shown nowhere is told about, too");
	mt_region_put(io);
	must(mt_listener_unregister(&l.l) == 0);
	t_end_space(t, sp, r);
}

/* --- memory ------------------------------------------------------------ */

static void
test_kind(create_fn *create, const char *name)
{
	struct mt_topology *t = t_topology();
	struct mt_backing b = { .kind = MT_BACKING_MEMFD,
	    .max_last = MT_SIZE(0x4000) };
	struct mt_region *r;
	struct mt_space *sp;
	uint8_t *p;

	r = create(t, "r", MT_SIZE(0x1000), &b);
	must(r != NULL);
	sp = t_space(r);
	is_int(mt_region_last(r), 0xfff, "%s begins small", name);
	is_int(mt_region_max_last(r), 0x3fff, "it can grow");
	is_view(sp, create == create_romd ? "0-fff r+0 d" :
	    create == mt_region_create_rom ? "0-fff r+0 r" : "0-fff r+0",
	    "what it is now is shown");
	p = mt_region_ptr(r);
	p[0xfff] = 1;
	p[0x3fff] = 3;
	is_read(sp, 0xfff, 1, "01", "its last byte");
	is_read(sp, 0x3fff, 1, "00 with 2", "is not that of later");
	works(mt_region_resize(r, 0x3fff), "it grows");
	is_read(sp, 0x3fff, 1, "03", "into memory that was there");
	ok(mt_region_ptr(r) == p, "and stays where it is");
	fails(mt_region_resize(r, 0x4000), EINVAL, "but not further");
	works(mt_region_resize(r, 0), "it shrinks");
	is_read(sp, 0xfff, 1, "00 with 2", "and shows no more");
	works(mt_region_resize(r, 0xfff), "it comes back");
	is_read(sp, 0xfff, 1, "01", "as it was");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(r);

	b.max_last = 0xffe;
	fails_null(create(t, "r", 0xfff, &b), EINVAL,
	    "it can not be larger than it can be");
	b.max_last = MT_LAST_MAX;
	fails_null(create(t, "r", 0xfff, &b), EFBIG, "nor that large");
	b.max_last = 0;
	must((r = create(t, "r", 0xfff, &b)) != NULL);
	is_int(mt_region_max_last(r), 0xfff, "else it stays what it is");
	mt_region_put(r);
	t_end(t);
}

static void
test_backings(void)
{
	struct mt_topology *t = t_topology();
	static uint8_t mem[64];
	struct mt_backing ptr = { .kind = MT_BACKING_PTR, .ptr = mem,
	    .max_last = 63 };
	struct mt_backing file = { .kind = MT_BACKING_FD, .max_last = 0x1fff };
	struct mt_region *r;
	struct mt_space *sp;

	must((r = mt_region_create_ram(t, "r", 31, &ptr)) != NULL);
	sp = t_space(r);
	is_int(mt_space_write(sp, 32, "x", 1, MT_ATTRS_NONE), MT_DECODE,
	    "not all of the caller's memory is shown");
	must(mt_region_resize(r, 63) == 0);
	is_int(mt_space_write(sp, 32, "x", 1, MT_ATTRS_NONE), MT_OK,
	    "until it has grown");
	is_int(mem[32], 'x', "and is the caller's");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(r);

	/* A file that grows first. */
	must((file.fd = memfd_create("test", MFD_CLOEXEC)) != -1);
	must(ftruncate(file.fd, 0x1000) == 0);
	must((r = mt_region_create_ram(t, "r", 0xfff, &file)) != NULL);
	sp = t_space(r);
	must(ftruncate(file.fd, 0x2000) == 0);
	must(pwrite(file.fd, "file", 4, 0x1ffc) == 4);
	must(mt_region_resize(r, 0x1fff) == 0);
	is_read(sp, 0x1ffc, 4, "66696c65", "a file may grow with its region");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(r);
	close(file.fd);
	t_end(t);
}

static void
test_mapped(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *r = growable(t, 0xfff, 0x3fff);
	struct mt_space *sp = t_space(r);
	struct mt_mapping map, map2;
	struct mt_cache c;
	uint32_t val;

	must(mt_dma_map(sp, 0xf00, 0x1000, MT_DMA_WRITE, MT_ATTRS_NONE,
	    &map) == 0);
	is_int(map.len, 0x100, "a mapping ends where the region does");
	must(mt_cache_init(&c, sp, 0xffc, 8, MT_DMA_READ, MT_ATTRS_NONE) ==
	    0);
	must(mt_region_resize(r, 0x3fff) == 0);
	memcpy((uint8_t *)map.ptr + 0xfc, "\1\2\3\4", 4);
	ok(mt_cache_stale(&c), "a cache knows that there is more");
	is_int(mt_cache_load_le32(&c, 0, &val), MT_OK, "but serves");
	is_hex(val, 0x04030201, "what it has, as a mapping does");
	mt_cache_fini(&c);
	must(mt_dma_map(sp, 0xf00, 0x1000, MT_DMA_READ, MT_ATTRS_NONE,
	    &map2) == 0);
	is_int(map2.len, 0x1000, "a new mapping has more");
	ok(map2.ptr == map.ptr, "of the same memory");
	must(mt_region_resize(r, 0) == 0);
	is_mem((uint8_t *)map2.ptr + 0xfc, "\1\2\3\4", 4,
	    "what is cut off stays for who has it");
	works(mt_dma_unmap(&map, 0x100), "and goes back");
	works(mt_dma_unmap(&map2, 0), "each");
	t_end_space(t, sp, r);
}

/* --- threads ----------------------------------------------------------- */

struct counter {
	struct mt_region *r;
	unsigned int calls;		/* atomic */
	bool wrong;			/* atomic */
};

static void
count(void *arg, struct mt_region *r, mt_addr last)
{
	struct counter *c = arg;

	__atomic_fetch_add(&c->calls, 1, __ATOMIC_RELAXED);
	if (r != c->r || last > mt_region_max_last(r))
		__atomic_store_n(&c->wrong, true, __ATOMIC_RELAXED);
	(void)mt_region_last(r);
}

static void *
resizer(void *arg)
{
	struct counter *c = arg;
	unsigned int i;

	for (i = 0; i < 1000; i++)
		must(mt_region_resize(c->r, i % 7 * 0x100) == 0);
	return (NULL);
}

static void
test_threads(void)
{
	struct mt_topology *t = t_topology();
	struct counter c = { .r = growable(t, 0xfff, 0x3fff) };
	struct mt_space *sp = t_space(c.r);
	pthread_t thread;

	must(mt_region_set_resized(c.r, count, &c) == 0);
	must(pthread_create(&thread, NULL, resizer, &c) == 0);
	resizer(&c);
	pthread_join(thread, NULL);
	ok(c.calls >= 1000 && c.calls <= 2000 && !c.wrong,
	    "two threads may resize");
	t_end_space(t, sp, c.r);
}

int
main(void)
{
	size_t i;

	for (i = 0; i < T_COUNT(kinds); i++)
		test_kind(kinds[i].create, kinds[i].name);
	test_backings();
	test_told();
	test_mapped();
	test_threads();
	return (done());
}
