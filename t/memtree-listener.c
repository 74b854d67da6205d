/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Listeners: what they are told, when, and in which order. */

#include <unistd.h>

#include "t/util.h"

struct world {
	struct mt_topology *t;
	struct mt_region *root, *a, *b;
	struct mt_space *sp;
};

static struct world
begin(void)
{
	struct world w;

	w.t = t_topology();
	w.root = t_container(w.t, "root", 0x10000);
	w.a = t_add(w.root, 0x1000, 0, t_ram(w.t, "a", 0x1000));
	w.b = t_add(w.root, 0x4000, 0, t_ram(w.t, "b", 0x1000));
	w.sp = t_space(w.root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
}

static void
test_register(void)
{
	struct world w = begin();
	struct mt_listener none = { .prio = 0 };
	struct t_listener l;

	fails(mt_listener_unregister(&none), ENOENT,
	    "who is not registered is not unregistered");
	t_listen(&l, w.sp, NULL, 0, NULL);
	is_heard(&l, "begin, add 1000-1fff a+0, add 4000-4fff b+0, commit",
	    "who registers is told what there is");
	fails(mt_listener_register(w.sp, &l.l), EBUSY,
	    "who is registered is not registered again");
	is_heard(&l, "", "nor told again");
	works(mt_listener_register(w.sp, &none),
	    "one who does not want to hear anything");
	is_heard(&l, "", "is registered without the other hearing");
	works(mt_region_set_enabled(w.a, false), "and is");
	works(mt_listener_unregister(&none), "told nothing");
	is_heard(&l, "begin, del 1000-1fff a+0, commit", "the other is");
	works(mt_listener_unregister(&l.l), "who leaves");
	is_heard(&l, "begin, del 4000-4fff b+0, commit",
	    "is told that all goes");
	fails(mt_listener_unregister(&l.l), ENOENT, "once");
	works(mt_region_set_enabled(w.a, true), "who has left");
	is_heard(&l, "", "hears no more");
	works(mt_listener_register(w.sp, &l.l), "and may come back");
	is_heard(&l, "begin, add 1000-1fff a+0, add 4000-4fff b+0, commit",
	    "to hear all");
	works(mt_listener_unregister(&l.l), "clean up");
	end(&w);
}

static void
test_changes(void)
{
	struct world w = begin();
	struct t_listener l;
	struct mt_region *c, *d;

	t_listen(&l, w.sp, NULL, 0, NULL);
	t_events(l.text);
	c = t_add(w.root, 0x8000, 0, t_ram(w.t, "c", 0x1000));
	is_heard(&l, "begin, add 8000-8fff c+0, commit",
	    "what comes is told, alone");
	works(mt_region_move(c, 0x9000), "what moves");
	is_heard(&l, "begin, del 8000-8fff c+0, add 9000-9fff c+0, commit",
	    "goes and comes");
	works(mt_region_move(c, 0x9000), "what moves nowhere");
	is_heard(&l, "", "does not");
	works(mt_region_resize(c, 0x7ff), "what shrinks");
	is_heard(&l, "begin, del 9000-9fff c+0, add 9000-97ff c+0, commit",
	    "goes and comes as a whole");
	works(mt_region_set_readonly(c, true), "as does");
	is_heard(&l, "begin, del 9000-97ff c+0, add 9000-97ff c+0 r, commit",
	    "what becomes read-only");
	works(mt_region_set_nonvolatile(c, true), "or non-volatile");
	is_heard(&l, "begin, del 9000-97ff c+0 r, add 9000-97ff c+0 rn, "
	    "commit", "by its flags");
	d = t_add(w.root, 0x1400, 1, t_ram(w.t, "d", 0x100));
	is_heard(&l, "begin, del 1000-1fff a+0, add 1000-13ff a+0, "
	    "add 1400-14ff d+0, add 1500-1fff a+500, commit",
	    "what is cut is told in pieces");
	works(mt_region_move(d, 0x1500), "what is cut elsewhere");
	is_heard(&l, "begin, del 1000-13ff a+0, del 1400-14ff d+0, "
	    "del 1500-1fff a+500, add 1000-14ff a+0, add 1500-15ff d+0, "
	    "add 1600-1fff a+600, commit", "is told ascending");
	works(mt_region_del(d), "what goes");
	is_heard(&l, "begin, del 1000-14ff a+0, del 1500-15ff d+0, "
	    "del 1600-1fff a+600, add 1000-1fff a+0, commit",
	    "is told with what it hid");
	works(mt_region_set_enabled(w.root, false), "a root that goes");
	is_heard(&l, "begin, del 1000-1fff a+0, del 4000-4fff b+0, "
	    "del 9000-97ff c+0 rn, commit", "takes all along");
	works(mt_region_del(c), "what changes unseen");
	is_heard(&l, "", "is not told");
	works(mt_listener_unregister(&l.l), "and one who leaves");
	is_heard(&l, "begin, commit", "what is empty is told nothing");
	end(&w);
}

/* Slots of one RAM, as a VMM gives them to somebody else. */
static void
test_unmergeable(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", T_ALL);
	struct mt_region *ram, *slot[3], *front;
	struct mt_space *sp = t_space(root);
	struct t_listener l;
	struct mt_mapping map;
	unsigned int i;

	ram = t_ram(t, "ram", 0x3000);
	must(mt_topology_begin(t) == 0);
	for (i = 0; i < 3; i++) {
		slot[i] = t_add(root, i * 0x1000, 0, t_alias(t, "slot", ram,
		    i * 0x1000, 0x1000));
		must(mt_region_set_unmergeable(slot[i], i != 2) == 0);
	}
	must(mt_topology_commit(t) == 0);
	t_listen(&l, sp, NULL, 0, NULL);
	is_heard(&l, "begin, add 0-fff ram+0 u, add 1000-1fff ram+1000 u, "
	    "add 2000-2fff ram+2000, commit",
	    "what is unmergeable stays apart");
	mt_region_get(slot[1]);
	works(mt_region_del(slot[1]), "one of them goes");
	is_heard(&l, "begin, del 1000-1fff ram+1000 u, commit",
	    "and nobody else with it");
	t_add(root, 0x1000, 0, slot[1]);
	is_heard(&l, "begin, add 1000-1fff ram+1000 u, commit",
	    "nor when it comes");
	must(mt_region_resize(slot[1], 0x7ff) == 0);
	is_heard(&l, "begin, del 1000-1fff ram+1000 u, "
	    "add 1000-17ff ram+1000 u, commit", "nor when it is resized");
	must(mt_region_resize(slot[1], 0xfff) == 0);
	is_heard(&l, "begin, del 1000-17ff ram+1000 u, "
	    "add 1000-1fff ram+1000 u, commit", "either way");
	front = t_add(root, 0x1800, 1, t_ram(t, "front", 0x100));
	is_heard(&l, "begin, del 1000-1fff ram+1000 u, "
	    "add 1000-17ff ram+1000 u, add 1800-18ff front+0, "
	    "add 1900-1fff ram+1900 u, commit", "it can be hidden in part");
	must(mt_region_move(front, 0x1f80) == 0);
	is_heard(&l, "begin, del 1000-17ff ram+1000 u, del 1800-18ff front+0,"
	    " del 1900-1fff ram+1900 u, del 2000-2fff ram+2000, "
	    "add 1000-1f7f ram+1000 u, add 1f80-207f front+0, "
	    "add 2080-2fff ram+2080, commit", "or with its neighbour");
	must(mt_region_del(front) == 0);
	t_events(l.text);
	is_view(sp, "0-fff ram+0 u, 1000-1fff ram+1000 u, "
	    "2000-2fff ram+2000", "and is whole again");
	must(mt_dma_map(sp, 0, 0x3000, MT_DMA_READ, MT_ATTRS_NONE, &map) ==
	    0);
	is_int(map.len, 0x3000, "a mapping goes over all of them");
	must(mt_dma_unmap(&map, 0) == 0);
	works(mt_region_set_unmergeable(ram, true), "a target may be");
	is_heard(&l, "begin, del 2000-2fff ram+2000, add 2000-2fff ram+2000 u"
	    ", commit", "which those hear for whom it is new");
	works(mt_region_set_unmergeable(ram, false), "and not be");
	t_events(l.text);
	must(mt_region_set_unmergeable(slot[1], false) == 0);
	is_heard(&l, "begin, del 1000-1fff ram+1000 u, "
	    "del 2000-2fff ram+2000, add 1000-2fff ram+1000, commit",
	    "what is not any more joins its neighbour");
	ok(!mt_region_unmergeable(slot[1]) && mt_region_unmergeable(slot[0]),
	    "and can be asked");

	must(mt_listener_unregister(&l.l) == 0);
	mt_region_put(ram);
	t_end_space(t, sp, root);
}

static void
test_transactions(void)
{
	struct world w = begin();
	struct t_listener l;
	struct mt_region *far;

	t_listen(&l, w.sp, NULL, 0, NULL);
	t_events(l.text);
	must(mt_topology_begin(w.t) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "", "an empty transaction is not told");
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.a, false) == 0);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_move(w.b, 0x6000) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "", "nor is one that has not ended");
	must(mt_region_set_enabled(w.a, true) == 0);
	must(mt_region_move(w.b, 0x4000) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "", "nor one after which all is as before");
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.a, false) == 0);
	must(mt_region_move(w.b, 0x800) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, del 1000-1fff a+0, del 4000-4fff b+0, "
	    "add 800-17ff b+0, commit", "else the difference is told at once");
	far = t_ram(w.t, "far", 0x1000);
	must(mt_region_set_enabled(far, false) == 0);
	must(mt_region_set_enabled(far, true) == 0);
	must(mt_region_resize(far, 0xff) == 0);
	is_heard(&l, "", "what is not in the space is not told");
	must(mt_region_add(w.root, far, 0x20000, 0) == 0);
	must(mt_region_move(far, 0x30000) == 0);
	is_heard(&l, "", "nor what lies outside of it");
	must(mt_region_del(far) == 0);
	mt_region_put(far);

	/* Registering while a transaction is open. */
	must(mt_listener_unregister(&l.l) == 0);
	t_events(l.text);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_enabled(w.a, true) == 0);
	must(mt_listener_register(w.sp, &l.l) == 0);
	is_heard(&l, "begin, add 800-17ff b+0, commit",
	    "who registers in a transaction is told what was before it");
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, add 1800-1fff a+800, commit",
	    "and its difference in the end");
	must(mt_listener_unregister(&l.l) == 0);
	end(&w);
}

static void
test_order(void)
{
	struct world w = begin();
	struct t_listener lo, mid, mid2, hi;
	char log[T_TEXT] = "";

	t_listen(&mid, w.sp, "mid", 0, log);
	t_listen(&hi, w.sp, "hi", 10, log);
	t_listen(&lo, w.sp, "lo", -10, log);
	t_listen(&mid2, w.sp, "mid2", 0, log);
	log[0] = '\0';
	works(mt_region_move(w.a, 0x2000), "a change");
	is_str(log, "lo begin, mid begin, mid2 begin, hi begin, "
	    "hi del 1000-1fff a+0, mid2 del 1000-1fff a+0, "
	    "mid del 1000-1fff a+0, lo del 1000-1fff a+0, "
	    "lo add 2000-2fff a+0, mid add 2000-2fff a+0, "
	    "mid2 add 2000-2fff a+0, hi add 2000-2fff a+0, "
	    "lo commit, mid commit, mid2 commit, hi commit",
	    "is told by priority, then age; what goes the other way round");
	works(mt_listener_unregister(&mid.l), "one leaves");
	log[0] = '\0';
	works(mt_region_set_enabled(w.a, false), "a change");
	is_str(log, "lo begin, mid2 begin, hi begin, "
	    "hi del 2000-2fff a+0, mid2 del 2000-2fff a+0, "
	    "lo del 2000-2fff a+0, lo commit, mid2 commit, hi commit",
	    "is told to the others");
	works(mt_listener_register(w.sp, &mid.l), "and comes back");
	log[0] = '\0';
	works(mt_region_set_enabled(w.a, true), "a change");
	is_str(log, "lo begin, mid2 begin, mid begin, hi begin, "
	    "lo add 2000-2fff a+0, mid2 add 2000-2fff a+0, "
	    "mid add 2000-2fff a+0, hi add 2000-2fff a+0, "
	    "lo commit, mid2 commit, mid commit, hi commit",
	    "behind its equals");
	works(mt_listener_unregister(&lo.l), "first");
	works(mt_listener_unregister(&hi.l), "last");
	works(mt_listener_unregister(&mid.l), "middle");
	works(mt_listener_unregister(&mid2.l), "all");
	end(&w);
}

/* What the spaces look like when a listener is called. */
struct looker {
	struct mt_space *sp, *other;
	char *what;
	char seen[T_TEXT];
	struct mt_region *kept;
	struct mt_mapping map;
	int mapped;
};

static void
look(void *arg, struct mt_space *sp)
{
	struct looker *l = arg;

	(void)sp;
	t_append(l->seen, "[%s | %s]", t_space_text(l->sp),
	    t_space_text(l->other));
}

static void
look_section(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct looker *l = arg;
	struct mt_section found;

	look(arg, sp);
	if (l->kept == NULL) {
		l->kept = mt_region_get(sec->region);
		l->mapped = mt_dma_map(sp, 0x1000, 4, MT_DMA_READ,
		    MT_ATTRS_NONE, &l->map);
		if (mt_space_find(sp, (struct mt_range){ 0, 0xffff },
		    &found) == 0) {
			t_append(l->seen, "(found %s)",
			    mt_region_name(found.region));
			mt_region_put(found.region);
		}
	}
}

/* Let go of what was kept and mapped inside. */
static void
forget(struct looker *l)
{
	mt_region_put(l->kept);
	l->kept = NULL;
	if (l->mapped == 0)
		must(mt_dma_unmap(&l->map, 0) == 0);
	l->mapped = -1;
	l->seen[0] = '\0';
}

static void
test_inside(void)
{
	struct world w = begin();
	struct looker look1 = { .sp = w.sp, .mapped = -1 };
	struct mt_listener l = { .arg = &look1, .begin = look,
	    .add = look_section, .del = look_section, .commit = look };
	struct mt_region *alias;
	int owner = 0;

	alias = t_alias(w.t, "alias", w.root, 0x1000, 0x1000);
	look1.other = t_space(alias);
	must(mt_listener_register(w.sp, &l) == 0);
	forget(&look1);
	must(mt_region_set_owner(w.b, &owner, t_put) == 0);
	works(mt_region_del(w.b), "a change");
	is_str(look1.seen,
	    "[1000-1fff a+0 | 0-fff a+0]"
	    "[1000-1fff a+0 | 0-fff a+0](found a)"
	    "[1000-1fff a+0 | 0-fff a+0]",
	    "a listener sees the new views, also of what goes");
	is_int(look1.mapped, 0, "and may map");
	is_int(t_puts_of(w.t, &owner), 0, "and keep what it was told of");
	forget(&look1);
	is_int(t_puts_of(w.t, &owner), 1, "until it is put");
	works(mt_region_move(w.a, 0x1800), "a change of two spaces");
	is_str(look1.seen,
	    "[1800-27ff a+0 | 800-fff a+0]"
	    "[1800-27ff a+0 | 800-fff a+0](found a)"
	    "[1800-27ff a+0 | 800-fff a+0]"
	    "[1800-27ff a+0 | 800-fff a+0]",
	    "is told when both have their new views");
	must(mt_listener_unregister(&l) == 0);
	forget(&look1);
	must(mt_space_destroy(look1.other) == 0);
	mt_region_put(alias);
	end(&w);
}

static void
test_spaces(void)
{
	struct world w = begin();
	struct mt_space *same, *other;
	struct t_listener l1, l2, l3;
	char log[T_TEXT] = "";

	same = t_space(w.root);
	other = t_space(w.b);
	t_listen(&l1, w.sp, "first", 5, log);
	t_listen(&l2, same, "same", -5, log);
	t_listen(&l3, other, "other", 0, log);
	log[0] = '\0';
	works(mt_region_set_enabled(w.a, false), "a change");
	is_str(log, "first begin, first del 1000-1fff a+0, first commit, "
	    "same begin, same del 1000-1fff a+0, same commit",
	    "is told to each space that it changes, and no other");
	log[0] = '\0';
	works(mt_region_move(w.b, 0x5000), "a move of a root");
	ok(strstr(log, "other") == NULL, "is none in its own space");
	log[0] = '\0';
	works(mt_region_resize(w.b, 0x7ff), "a new size of it");
	ok(strstr(log, "other begin, other del 0-fff b+0, "
	    "other add 0-7ff b+0, other commit") != NULL, "is one");
	works(mt_listener_unregister(&l1.l), "clean up");
	works(mt_listener_unregister(&l2.l), "clean up");
	works(mt_listener_unregister(&l3.l), "clean up");
	must(mt_space_destroy(same) == 0 && mt_space_destroy(other) == 0);
	end(&w);
}

/* --- all there is to be told of ------------------------------------------ */

static void
heard_start(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct t_listener *tl = arg;

	(void)sp;
	t_heard(tl, "start", sec);
	t_append(tl->text, " %x>%x", was, now);
}

static void
heard_stop(void *arg, struct mt_space *sp, const struct mt_section *sec,
    unsigned int was, unsigned int now)
{
	struct t_listener *tl = arg;

	(void)sp;
	t_heard(tl, "stop", sec);
	t_append(tl->text, " %x>%x", was, now);
}

static void
heard_eventfd_add(void *arg, struct mt_space *sp,
    const struct mt_section *sec, const struct mt_eventfd *ev)
{
	struct t_listener *tl = arg;

	(void)sp;
	(void)sec;
	t_heard(tl, "fd+", NULL);
	t_append(tl->text, " %" PRIx64, ev->addr);
}

static void
heard_eventfd_del(void *arg, struct mt_space *sp,
    const struct mt_section *sec, const struct mt_eventfd *ev)
{
	struct t_listener *tl = arg;

	(void)sp;
	(void)sec;
	t_heard(tl, "fd-", NULL);
	t_append(tl->text, " %" PRIx64, ev->addr);
}

static void
heard_range_add(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct t_listener *tl = arg;

	(void)sp;
	(void)sec;
	t_heard(tl, "range+", NULL);
	t_append(tl->text, " %" PRIx64, range.first);
}

static void
heard_range_del(void *arg, struct mt_space *sp, const struct mt_section *sec,
    struct mt_range range)
{
	struct t_listener *tl = arg;

	(void)sp;
	(void)sec;
	t_heard(tl, "range-", NULL);
	t_append(tl->text, " %" PRIx64, range.first);
}

static void
listen_to_all(struct t_listener *tl, struct mt_space *sp)
{
	t_listen(tl, sp, NULL, 0, NULL);
	must(mt_listener_unregister(&tl->l) == 0);
	t_events(tl->text);
	tl->l.log_start = heard_start;
	tl->l.log_stop = heard_stop;
	tl->l.eventfd_add = heard_eventfd_add;
	tl->l.eventfd_del = heard_eventfd_del;
	tl->l.coalesce_add = heard_range_add;
	tl->l.coalesce_del = heard_range_del;
	must(mt_listener_register(sp, &tl->l) == 0);
}

/* Flash has it all: memory that is logged, and registers. */
static void
test_all(void)
{
	struct t_dev dev = T_DEV();
	struct world w = begin();
	struct mt_region *r = t_romd(w.t, "flash", 0x1000, &dev);
	struct mt_listener ends = { .prio = -1 };
	struct t_listener l, only = { .text = only.own };
	int fd = t_eventfd();

	must(mt_region_add(w.root, r, 0x8000, 0) == 0);
	must(mt_region_set_enabled(w.a, false) == 0);
	must(mt_region_set_enabled(w.b, false) == 0);
	must(mt_listener_register(w.sp, &ends) == 0);
	listen_to_all(&l, w.sp);
	only.l = (struct mt_listener){ .arg = &only, .begin = t_heard_begin,
	    .commit = t_heard_commit };
	must(mt_listener_register(w.sp, &only.l) == 0);
	t_events(l.text);
	t_events(only.text);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_add_coalescing(r, 0, 3) == 0);
	must(mt_region_add_eventfd(r, 8, 4, false, 0, fd) == 0);
	must(mt_region_set_log(r, 2, true) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, start 8000-8fff flash+0 d 0>4, fd+ 8008, "
	    "range+ 8000, commit", "a section that stays gets all at once");
	is_heard(&only, "begin, commit",
	    "which is told also to who hears nothing of it");
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_del_eventfd(r, 8, 4, false, 0, fd) == 0);
	must(mt_region_set_log(r, 2, false) == 0);
	must(mt_region_set_log(r, 3, true) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, fd- 8008, start 8000-8fff flash+0 d 4>8, "
	    "stop 8000-8fff flash+0 d 4>8, commit",
	    "and may exchange and lose some");
	must(mt_region_add_eventfd(r, 8, 4, false, 0, fd) == 0);
	t_events(l.text);
	works(mt_region_set_enabled(r, false), "a section that goes");
	is_heard(&l, "begin, range- 8000, fd- 8008, "
	    "stop 8000-8fff flash+0 d 8>0, del 8000-8fff flash+0 d, commit",
	    "gives all back first");
	works(mt_region_set_enabled(r, true), "one that comes");
	is_heard(&l, "begin, add 8000-8fff flash+0 d, "
	    "start 8000-8fff flash+0 d 0>8, fd+ 8008, range+ 8000, commit",
	    "gets all behind its add");
	works(mt_region_move(r, 0x9000), "one that moves");
	is_heard(&l, "begin, range- 8000, fd- 8008, "
	    "stop 8000-8fff flash+0 d 8>0, del 8000-8fff flash+0 d, "
	    "add 9000-9fff flash+0 d, start 9000-9fff flash+0 d 0>8, "
	    "fd+ 9008, range+ 9000, commit", "does both");
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_set_rom_mode(r, false) == 0);
	must(mt_region_set_log(r, 2, true) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, stop 9000-9fff flash+0 d 8>0, "
	    "del 9000-9fff flash+0 d, add 9000-9fff flash+0, "
	    "start 9000-9fff flash+0 0>c, commit",
	    "what stays in a section that changes is not mentioned");
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_clear_coalescing(r) == 0);
	must(mt_region_add_coalescing(r, 0, 3) == 0);
	must(mt_region_set_log(r, 2, false) == 0);
	must(mt_region_set_log(r, 2, true) == 0);
	must(mt_region_del_eventfd(r, 8, 4, false, 0, fd) == 0);
	must(mt_region_move(r, 0x8000) == 0);
	must(mt_region_move(r, 0x9000) == 0);
	t_events(only.text);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_add_eventfd(r, 16, 4, false, 0, fd) == 0);
	must(mt_region_del_eventfd(r, 16, 4, false, 0, fd) == 0);
	must(mt_topology_commit(w.t) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "begin, fd- 9008, commit", "nor what is as it was");
	t_events(only.text);
	must(mt_topology_begin(w.t) == 0);
	must(mt_region_add_coalescing(r, 0x100, 0x103) == 0);
	must(mt_region_clear_coalescing(r) == 0);
	must(mt_region_add_coalescing(r, 0, 3) == 0);
	must(mt_topology_commit(w.t) == 0);
	is_heard(&l, "", "if that is all of it nothing is told");
	is_heard(&only, "", "to nobody");
	works(mt_listener_unregister(&only.l), "clean up");
	works(mt_listener_unregister(&ends), "clean up");
	works(mt_listener_unregister(&l.l), "who leaves");
	is_heard(&l, "begin, range- 9000, stop 9000-9fff flash+0 c>0, "
	    "del 9000-9fff flash+0, commit", "is told in that order, too");
	close(fd);
	mt_region_put(r);
	end(&w);
}

int
main(void)
{
	test_register();
	test_changes();
	test_unmergeable();
	test_transactions();
	test_order();
	test_inside();
	test_spaces();
	test_all();
	return (done());
}
