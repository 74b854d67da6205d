/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Ranges of regions in which writes may be coalesced: a hint to listeners. */

#include "t/util.h"

static void
heard_range(void *arg, const char *what, const struct mt_section *sec,
    struct mt_range range)
{
	struct t_listener *l = arg;

	t_append(l->text, "%s%s %" PRIx64 "-%" PRIx64 " in %" PRIx64,
	    l->text[0] != '\0' ? ", " : "", what, range.first, range.last,
	    sec->range.first);
}

static void
heard_coalesce_add(void *arg, struct mt_space *sp,
    const struct mt_section *sec, struct mt_range range)
{
	(void)sp;
	heard_range(arg, "+", sec, range);
}

static void
heard_coalesce_del(void *arg, struct mt_space *sp,
    const struct mt_section *sec, struct mt_range range)
{
	(void)sp;
	heard_range(arg, "-", sec, range);
}

static void
test_tell(void)
{
	struct t_dev dev = T_DEV();
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r, *ram;
	struct mt_space *sp;
	struct t_listener l;

	r = t_add(root, 0x1000, 0, t_io(t, "r", 0x1000, &dev));
	t_add(root, 0x4000, 0, t_alias(t, "al", r, 0x100, 0x100));
	sp = t_space(root);
	t_listen(&l, sp, NULL, 0, NULL);
	must(mt_listener_unregister(&l.l) == 0);
	l.l.coalesce_add = heard_coalesce_add;
	l.l.coalesce_del = heard_coalesce_del;
	must(mt_listener_register(sp, &l.l) == 0);
	t_events(l.text);
	works(mt_region_add_coalescing(r, 0x80, 0x17f), "a range");
	is_heard(&l, "begin, + 1080-117f in 1000, + 4000-407f in 4000, commit",
	    "is told where it is seen, as far as it is");
	works(mt_region_add_coalescing(r, 0x100, 0x17f), "what is in it");
	is_heard(&l, "", "changes nothing");
	works(mt_region_add_coalescing(r, 0x400, 0x4ff), "another one");
	is_heard(&l, "begin, + 1400-14ff in 1000, commit", "is told alone");
	works(mt_region_add_coalescing(r, 0x500, 0x5ff), "what touches");
	is_heard(&l, "begin, - 1400-14ff in 1000, + 1400-15ff in 1000, commit",
	    "becomes one");
	works(mt_region_add_coalescing(r, 0x20, 0x28), "one before them");
	is_heard(&l, "begin, + 1020-1028 in 1000, commit", "is another");
	ram = t_add(root, 0x1500, 1, t_ram(t, "ram", 0x10));
	is_heard(&l, "begin, - 1400-15ff in 1000, del 1000-1fff r+0, "
	    "add 1000-14ff r+0, add 1500-150f ram+0, add 1510-1fff r+510, "
	    "+ 1400-14ff in 1000, + 1510-15ff in 1510, commit",
	    "one that is cut is two; the others stay unmentioned");
	must(mt_listener_unregister(&l.l) == 0);
	is_heard(&l, "begin, - 1020-1028 in 1000, - 1080-117f in 1000, "
	    "- 1400-14ff in 1000, - 1510-15ff in 1510, - 4000-407f in 4000, "
	    "del 1000-14ff r+0, del 1500-150f ram+0, del 1510-1fff r+510, "
	    "del 4000-40ff r+100, commit", "who leaves is told that all goes");
	must(mt_listener_register(sp, &l.l) == 0);
	is_heard(&l, "begin, add 1000-14ff r+0, add 1500-150f ram+0, "
	    "add 1510-1fff r+510, add 4000-40ff r+100, + 1020-1028 in 1000, "
	    "+ 1080-117f in 1000, + 1400-14ff in 1000, + 1510-15ff in 1510, "
	    "+ 4000-407f in 4000, commit",
	    "who comes is told of all, also where the first is not seen");
	must(mt_region_del(ram) == 0);
	t_events(l.text);
	works(mt_region_add_coalescing(r, 0x29, 0x3ff), "what joins all");
	is_heard(&l, "begin, - 1020-1028 in 1000, - 1080-117f in 1000, "
	    "- 1400-15ff in 1000, - 4000-407f in 4000, + 1020-15ff in 1000, "
	    "+ 4000-40ff in 4000, commit", "makes one of them");
	works(mt_region_clear_coalescing(r), "all are cleared");
	is_heard(&l, "begin, - 1020-15ff in 1000, - 4000-40ff in 4000, "
	    "commit", "at once");
	works(mt_region_clear_coalescing(r), "where there are none");
	is_heard(&l, "", "nothing changes");
	must(mt_topology_begin(t) == 0);
	works(mt_region_add_coalescing(r, 0, MT_LAST_MAX), "all of a region");
	is_heard(&l, "", "is not told before the commit");
	must(mt_region_move(r, 0x2000) == 0);
	must(mt_topology_commit(t) == 0);
	is_heard(&l, "begin, del 1000-1fff r+0, add 2000-2fff r+0, "
	    "+ 2000-2fff in 2000, + 4000-40ff in 4000, commit",
	    "and where it is then");
	must(mt_space_store(sp, 0x2000, 4, MT_LITTLE, 1, MT_ATTRS_NONE) ==
	    MT_OK);
	is_calls(&dev, "w 0/4=1", "the library itself coalesces nothing");
	must(mt_listener_unregister(&l.l) == 0);
	t_end_space(t, sp, root);
}

static void
test_errors(void)
{
	struct t_dev dev = T_DEV();
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_region *ram = t_ram(t, "ram", 0x1000);

	fails(mt_region_add_coalescing(r, 1, 0), EINVAL,
	    "a range does not end before it begins");
	fails(mt_region_add_coalescing(ram, 0, 7), EINVAL,
	    "memory has no ranges");
	fails(mt_region_clear_coalescing(ram), EINVAL, "to be cleared");
	works(mt_region_add_coalescing(r, 0, MT_LAST_MAX), "all there can be");
	works(mt_region_add_coalescing(r, MT_LAST_MAX, MT_LAST_MAX),
	    "has the last byte");
	works(mt_region_clear_coalescing(r), "and can be cleared");
	works(mt_region_add_coalescing(r, MT_LAST_MAX, MT_LAST_MAX),
	    "which may come alone");
	works(mt_region_add_coalescing(r, 0, 0), "as may the first");
	mt_region_put(r);
	mt_region_put(ram);
	t_end(t);
}

/* --- random changes, compared with bits ---------------------------------- */

#define BYTES	0x400

struct mirror {
	uint8_t on[BYTES];
	int bad;
};

static void
mirror_add(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct mirror *m = arg;
	mt_addr i;

	(void)sp;
	m->bad += range.first < sec->range.first ||
	    range.last > sec->range.last || range.first > range.last;
	for (i = range.first; i <= range.last && i < BYTES; i++)
		m->bad += m->on[i]++;
}

static void
mirror_del(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct mirror *m = arg;
	mt_addr i;

	(void)sp;
	m->bad += range.first < sec->range.first ||
	    range.last > sec->range.last || range.first > range.last;
	for (i = range.first; i <= range.last && i < BYTES; i++)
		m->bad += --m->on[i];
}

static void
test_random(void)
{
	static struct mirror m;
	struct mt_listener l = { .arg = &m, .coalesce_add = mirror_add,
	    .coalesce_del = mirror_del };
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL)), told = 0;
	struct t_dev dev = T_DEV();
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", BYTES), *r[2], *ram;
	static uint8_t on[2][0x200];
	struct mt_section sec;
	struct mt_space *sp;
	mt_addr at, off;
	size_t i, k, n;
	int bad = 0;

	diag("T_SEED=%" PRIu64, seed);
	r[0] = t_add(root, 0, 0, t_io(t, "r0", 0x200, &dev));
	r[1] = t_add(root, 0x180, 1, t_io(t, "r1", 0x200, &dev));
	ram = t_add(root, 0x100, 2, t_ram(t, "ram", 0x10));
	t_add(root, 0x300, 0, t_alias(t, "al", r[0], 0x40, 0x80));
	sp = t_space(root);
	must(mt_listener_register(sp, &l) == 0);
	for (i = 0; i < 2000 && bad == 0; i++) {
		must(mt_topology_begin(t) == 0);
		for (n = t_below(&seed, 3); n < 3; n++) {
			k = t_below(&seed, 2);
			off = t_below(&seed, 0x1c0);
			at = t_below(&seed, 0x40);
			switch (t_below(&seed, 6)) {
			case 0:
				must(mt_region_clear_coalescing(r[k]) == 0);
				memset(on[k], 0, sizeof(on[k]));
				break;
			case 1:
				must(mt_region_move(r[k], off) == 0);
				break;
			case 2:
				must(mt_region_move(ram, off * 2) == 0);
				break;
			default:
				must(mt_region_add_coalescing(r[k], off,
				    off + at) == 0);
				memset(on[k] + off, 1, at + 1);
			}
		}
		must(mt_topology_commit(t) == 0);
		for (at = 0; at < BYTES; at++) {
			n = 0;
			if (mt_space_find(sp, (struct mt_range){ at, at },
			    &sec) == 0) {
				k = sec.region == r[1];
				n = sec.region == r[k] && on[k][sec.off];
				mt_region_put(sec.region);
			}
			bad += m.on[at] != n;
			told += n;
		}
		bad += m.bad;
	}
	is_int(bad, 0, "listeners know all ranges after random changes");
	ok(told > 10000, "of which there were many");
	must(mt_listener_unregister(&l) == 0);
	for (at = 0; at < BYTES; at++)
		bad += m.on[at];
	is_int(bad + m.bad, 0, "and none when they have left");
	t_end_space(t, sp, root);
}

int
main(void)
{
	test_tell();
	test_errors();
	test_random();
	return (done());
}
