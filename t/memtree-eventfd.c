/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Eventfds that writes signal: which writes, where, and who is told. */

#include <sys/eventfd.h>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "t/util.h"

#define WIDE	.impl = { .max = 8 }

static enum mt_result
store(struct mt_space *sp, mt_addr addr, unsigned int size, uint64_t val)
{
	return (mt_space_store(sp, addr, size, MT_LITTLE, val,
	    MT_ATTRS_NONE));
}

/* --- listeners, in words ------------------------------------------------- */

static void
heard_eventfd(void *arg, const char *what, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct t_listener *l = arg;

	if (l->text[0] != '\0')
		t_append(l->text, ", ");
	if (l->name != NULL)
		t_append(l->text, "%s ", l->name);
	t_append(l->text, "%s %" PRIx64 "/%u", what, ev->addr, ev->size);
	if (ev->match)
		t_append(l->text, "=%" PRIx64, ev->data);
	t_append(l->text, " in %" PRIx64, sec->range.first);
}

static void
heard_eventfd_add(void *arg, struct mt_space *sp,
    const struct mt_section *sec, const struct mt_eventfd *ev)
{
	(void)sp;
	heard_eventfd(arg, "+", sec, ev);
}

static void
heard_eventfd_del(void *arg, struct mt_space *sp,
    const struct mt_section *sec, const struct mt_eventfd *ev)
{
	(void)sp;
	heard_eventfd(arg, "-", sec, ev);
}

static void
listen_also(struct t_listener *l, struct mt_space *sp, const char *name,
    int prio, char *text)
{
	t_listen(l, sp, name, prio, text);
	must(mt_listener_unregister(&l->l) == 0);
	l->l.eventfd_add = heard_eventfd_add;
	l->l.eventfd_del = heard_eventfd_del;
	l->text[0] = '\0';
	must(mt_listener_register(sp, &l->l) == 0);
}

/* --- tests --------------------------------------------------------------- */

static void
test_compare(void)
{
	struct t_dev dev = T_DEV(WIDE, .valid = { .unaligned = true });
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_space *sp = t_space(r);
	int a = t_eventfd(), b = t_eventfd(), c = t_eventfd();
	unsigned int size;
	uint64_t val;

	works(mt_region_add_eventfd(r, 0x10, 4, true, 0x12345678, a),
	    "an eventfd for one value");
	is_int(store(sp, 0x10, 4, 0x12345678), MT_OK, "is signalled");
	is_int(t_hits(a), 1, "once by a write of it");
	is_calls(&dev, "", "which the device does not see");
	store(sp, 0x10, 4, 0x12345679);
	store(sp, 0x10, 4, 0x02345678);
	is_calls(&dev, "w 10/4=12345679, w 10/4=2345678",
	    "another value is the device's");
	store(sp, 0x10, 1, 0x78);
	store(sp, 0x10, 2, 0x5678);
	store(sp, 0x10, 8, 0x12345678);
	is_calls(&dev, "w 10/1=78, w 10/2=5678, w 10/8=12345678",
	    "as is another size");
	for (size = 1; size < 4; size++) {
		store(sp, 0x10 - size, 4, 0x12345678);
		store(sp, 0x10 + size, 4, 0x12345678);
	}
	is_calls(&dev, "w f/4=12345678, w 11/4=12345678, w e/4=12345678, "
	    "w 12/4=12345678, w d/4=12345678, w 13/4=12345678",
	    "or another offset");
	is_int(mt_space_load(sp, 0x10, 4, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_OK, "and a read");
	is_calls(&dev, "r 10/4", "too");
	is_int(t_hits(a), 0, "none of which signal");
	works(mt_region_add_eventfd(r, 0x10, 4, false, 0xffffffffff, b),
	    "one for all values of a size, for which data does not matter");
	store(sp, 0x10, 4, 0);
	is_int(t_hits(b), 1, "is signalled");
	is_int(t_hits(a), 0, "alone");
	works(mt_region_add_eventfd(r, 0x10, 0, false, 0, c),
	    "one for all sizes");
	store(sp, 0x10, 1, 0);
	store(sp, 0x10, 2, 0);
	store(sp, 0x10, 8, 0);
	is_int(t_hits(c), 3, "is signalled by each");
	is_int(t_hits(a) + t_hits(b), 0, "others are not");
	store(sp, 0x10, 4, 0x12345678);
	is_calls(&dev, "", "what several are for is not the device's");
	is_str(t_hits(a) == 1 && t_hits(b) == 1 && t_hits(c) == 1 ? "all" : "",
	    "all", "and signals each of them");
	works(mt_region_del_eventfd(r, 0x10, 4, false, 5, b), "one goes");
	works(mt_region_del_eventfd(r, 0x10, 0, false, 0, c), "two go");
	store(sp, 0x10, 4, 0x12345678);
	store(sp, 0x10, 4, 7);
	is_int(t_hits(a), 1, "the third is still there");
	is_calls(&dev, "w 10/4=7", "and alone");
	works(mt_region_add_eventfd(r, 0x20, 8, true, UINT64_MAX, b),
	    "a value may have all bits");
	store(sp, 0x20, 8, UINT64_MAX);
	store(sp, 0x20, 8, UINT32_MAX);
	is_int(t_hits(b), 1, "of eight bytes");
	close(a);
	close(b);
	close(c);
	t_end_space(t, sp, r);
}

static void
test_errors(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_io_ops ro = { .read = t_dev_read };
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_region *ram = t_ram(t, "ram", 0x1000), *none;
	int a = t_eventfd(), b = t_eventfd();
	int blocking = eventfd(0, EFD_CLOEXEC);
	int p[2], before;

	must((none = mt_region_create_io(t, "none", 0xfff, &ro, NULL)) != NULL);
	must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0 && blocking != -1);
	before = (int)t_count_fds();
	works(mt_region_add_eventfd(r, 8, 4, true, 1, a), "an eventfd");
	fails(mt_region_add_eventfd(r, 8, 4, true, 1, a), EEXIST,
	    "is not added twice");
	fails(mt_region_add_eventfd(r, 8, 4, true, 1, b), EEXIST,
	    "nor is another one in its place");
	works(mt_region_add_eventfd(r, 8, 0, false, 0, b),
	    "one for any size is another thing");
	fails(mt_region_del_eventfd(r, 8, 0, false, 0, a), ENOENT,
	    "a del does not take one of another fd,");
	fails(mt_region_del_eventfd(r, 8, 4, false, 0, a), ENOENT,
	    "one for all values,");
	fails(mt_region_del_eventfd(r, 8, 4, true, 2, a), ENOENT,
	    "for another value,");
	fails(mt_region_del_eventfd(r, 8, 8, true, 1, a), ENOENT,
	    "of another size,");
	fails(mt_region_del_eventfd(r, 7, 4, true, 1, a), ENOENT,
	    "or at another offset");
	close(a);
	works(mt_region_del_eventfd(r, 8, 4, true, 1, a),
	    "but the one meant, though its fd was closed");
	fails(mt_region_del_eventfd(r, 8, 4, true, 1, a), ENOENT, "once");
	works(mt_region_del_eventfd(r, 8, 0, false, 0, b), "and the other");
	a = t_eventfd();
	fails(mt_region_add_eventfd(r, 0, 3, false, 0, a), EINVAL,
	    "there is no size 3");
	fails(mt_region_add_eventfd(r, 0, 16, false, 0, a), EINVAL, "nor 16");
	fails(mt_region_add_eventfd(r, 0, 0, true, 0, a), EINVAL,
	    "a value has a size");
	fails(mt_region_add_eventfd(r, 0, 2, true, 0x10000, a), EINVAL,
	    "into which it fits");
	fails(mt_region_add_eventfd(r, MT_LAST_MAX, 2, false, 0, a), EINVAL,
	    "there is nothing past 2^64");
	fails(mt_region_add_eventfd(ram, 0, 4, false, 0, a), EINVAL,
	    "memory has no eventfds");
	fails(mt_region_add_eventfd(none, 0, 4, false, 0, a), EINVAL,
	    "nor has a device that is not written");
	fails(mt_region_add_eventfd(r, 0, 4, false, 0, p[1]), EINVAL,
	    "a pipe is no eventfd");
	fails(mt_region_add_eventfd(r, 0, 4, false, 0, blocking), EINVAL,
	    "one that may block is not taken");
	fails(mt_region_add_eventfd(r, 0, 4, false, 0, -1), EBADF,
	    "and one that is not there can not be");
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "no fd is left of all that");
	works(mt_region_add_eventfd(r, 8, 4, true, 1, a), "and one");
	mt_region_put(r);
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "goes with its region");
	close(a);
	close(b);
	close(blocking);
	close(p[0]);
	close(p[1]);
	mt_region_put(ram);
	mt_region_put(none);
	t_end(t);
}

static void
test_order_and_steps(void)
{
	struct t_dev le = T_DEV(.endian = MT_LITTLE);
	struct t_dev be = T_DEV(.endian = MT_BIG);
	struct t_dev narrow = T_DEV(.valid = { 1, 2, false });
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *l, *b, *n;
	struct mt_space *sp;
	static const uint8_t buf[16] = { 1, 0, 0, 0, 2, 0, 0, 0,
	    1, 0, 0, 0, 4, 0, 0, 0 };
	int a = t_eventfd(), c = t_eventfd();

	l = t_add(root, 0x1000, 0, t_io(t, "l", 0x1000, &le));
	b = t_add(root, 0x2000, 0, t_io(t, "b", 0x1000, &be));
	n = t_add(root, 0x3000, 0, t_io(t, "n", 0x1000, &narrow));
	sp = t_space(root);
	must(mt_region_add_eventfd(l, 0, 4, true, 1, a) == 0);
	must(mt_region_add_eventfd(b, 0, 4, true, 1, c) == 0);
	store(sp, 0x2000, 4, 1);
	is_int(t_hits(c), 0, "a little-endian 1 in a big-endian device");
	is_calls(&be, "w 0/4=1000000", "is something else");
	store(sp, 0x2000, 4, 0x1000000);
	is_int(t_hits(c), 1, "what is compared is what the device would get");
	must(mt_space_store(sp, 0x2000, 4, MT_BIG, 1, MT_ATTRS_NONE) == MT_OK);
	is_int(t_hits(c), 1, "in whatever order it was stored");
	must(mt_space_write(sp, 0x2000, "\0\0\0\1", 4, MT_ATTRS_NONE) ==
	    MT_OK);
	is_int(t_hits(c), 1, "or written");
	must(mt_space_write(sp, 0x1000, buf, 4, MT_ATTRS_NONE) == MT_OK);
	is_int(t_hits(a), 1, "a little-endian device is the other way round");
	is_calls(&le, "", "neither is called");

	must(mt_region_add_eventfd(l, 8, 4, true, 1, c) == 0);
	is_int(mt_space_write(sp, 0x1000, buf, 16, MT_ATTRS_NONE), MT_OK,
	    "a long write");
	is_str(t_hits(a) == 1 && t_hits(c) == 1 ? "both" : "", "both",
	    "signals for each step that matches");
	is_calls(&le, "w 4/4=2, w c/4=4", "and the device gets the others");
	must(mt_region_add_eventfd(n, 0, 4, false, 0, a) == 0);
	must(mt_region_add_eventfd(n, 2, 2, false, 0, c) == 0);
	is_int(store(sp, 0x3000, 4, 0x22221111), MT_OK,
	    "a write that the device does not take whole");
	is_int(t_hits(a), 0, "is not one of its size");
	is_int(t_hits(c), 1, "but may signal for a part");
	is_calls(&narrow, "w 0/2=1111", "and not for another");
	is_int(store(sp, 0x3001, 2, 0), MT_OK, "an unaligned write");
	is_calls(&narrow, "w 1/1=0, w 2/1=0", "is cut, and signals nothing");
	is_int(t_hits(c), 0, "that has its size");
	close(a);
	close(c);
	t_end_space(t, sp, root);
}

static enum mt_result
write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	(void)buf;
	(void)attrs;
	*(unsigned int *)arg += off == 0 ? (unsigned int)len : 1000;
	return (MT_OK);
}

static enum mt_result
write_one(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)off;
	(void)val;
	(void)attrs;
	*(unsigned int *)arg += 100 * size;
	return (MT_OK);
}

static void
test_buffers(void)
{
	const struct mt_io_ops ops = { .write = write_one,
	    .write_buf = write_buf, .impl = { .max = 8 },
	    .valid = { .max = 8 } };
	const struct mt_io_ops only = { .write_buf = write_buf };
	struct mt_topology *t = t_topology();
	struct mt_region *r, *o;
	struct mt_space *sp;
	unsigned int got = 0;
	char buf[16] = "";
	int a = t_eventfd();

	must((r = mt_region_create_io(t, "r", 0xfff, &ops, &got)) != NULL);
	must((o = mt_region_create_io(t, "o", 0xfff, &only, &got)) != NULL);
	sp = t_space(r);
	must(mt_region_add_eventfd(r, 0, 0, false, 0, a) == 0);
	must(mt_space_write(sp, 0, buf, 16, MT_ATTRS_NONE) == MT_OK);
	is_int(t_hits(a), 0, "a buffer signals nothing");
	is_int(got, 16, "and is the device's as a whole");
	must(mt_space_write(sp, 0, buf, 8, MT_ATTRS_NONE) == MT_OK);
	is_int(t_hits(a), 1, "a value from a buffer does signal");
	is_int(got, 16, "and is not");
	fails(mt_region_add_eventfd(o, 0, 4, false, 0, a), EINVAL,
	    "a device that gets no values has no eventfds");
	close(a);
	mt_region_put(o);
	t_end_space(t, sp, r);
}

/* A device that writes to its own doorbell, at 8, when 0 is written. */
struct selfish {
	struct mt_space *sp;
	int res;
};

static enum mt_result
write_self(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct selfish *s = arg;

	(void)val;
	if (off == 0)
		s->res = (int)mt_space_store(s->sp, 8, size, MT_LITTLE, 1,
		    attrs);
	return (MT_OK);
}

static void
test_guard(void)
{
	const struct mt_io_ops ops = { .write = write_self };
	struct mt_guard guard = MT_GUARD_INIT;
	struct mt_topology *t = t_topology();
	struct selfish s = { .res = -1 };
	struct mt_region *r;
	int a = t_eventfd();

	must((r = mt_region_create_io(t, "r", 0xfff, &ops, &s)) != NULL);
	must(mt_region_set_guard(r, &guard) == 0);
	s.sp = t_space(r);
	must(mt_region_add_eventfd(r, 8, 4, false, 0, a) == 0);
	store(s.sp, 8, 4, 1);
	is_int(t_hits(a), 1, "an eventfd of a guarded device is signalled");
	store(s.sp, 0, 4, 1);
	is_int(s.res, MT_DENIED, "but not by the device itself");
	is_int(t_hits(a), 0, "whose write is refused");
	close(a);
	t_end_space(t, s.sp, r);
}

static void
test_places(void)
{
	struct t_dev dev = T_DEV(WIDE, .valid = { .unaligned = true });
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r, *al, *ram;
	struct mt_space *sp;
	struct t_listener l;
	int a = t_eventfd(), b = t_eventfd();

	r = t_add(root, 0x1000, 0, t_io(t, "r", 0x1000, &dev));
	al = t_add(root, 0x4000, 0, t_alias(t, "al", r, 0x100, 0x100));
	sp = t_space(root);
	listen_also(&l, sp, NULL, 0, NULL);
	t_events(l.text);
	works(mt_region_add_eventfd(r, 0x100, 4, true, 5, a), "an eventfd");
	is_heard(&l, "begin, + 1100/4=5 in 1000, + 4000/4=5 in 4000, commit",
	    "is wherever its region is seen");
	works(mt_region_add_eventfd(r, 0xfe, 4, false, 0, b), "another");
	is_heard(&l, "begin, + 10fe/4 in 1000, commit",
	    "is not where an alias shows half of it");
	store(sp, 0x1100, 4, 5);
	store(sp, 0x4000, 4, 5);
	is_int(t_hits(a), 2, "it is signalled by each of them");
	works(mt_region_set_alias_offset(al, 0xfe), "the alias moves");
	is_heard(&l, "begin, - 4000/4=5 in 4000, del 4000-40ff r+100, "
	    "add 4000-40ff r+fe, + 4000/4 in 4000, + 4002/4=5 in 4000, "
	    "commit", "and with it what it shows");
	store(sp, 0x4000, 4, 1);
	is_int(t_hits(b), 1, "that, too");
	t_calls(&dev);
	ram = t_add(root, 0x1102, 1, t_ram(t, "ram", 0x10));
	is_heard(&l, "begin, - 1100/4=5 in 1000, del 1000-1fff r+0, "
	    "add 1000-1101 r+0, add 1102-1111 ram+0, add 1112-1fff r+112, "
	    "commit", "one that is covered in part is gone, alone");
	store(sp, 0x1100, 2, 5);
	is_calls(&dev, "w 100/2=5", "and the device gets what is left of it");
	is_int(t_hits(a), 0, "without a signal");
	works(mt_region_move(ram, 0x1800), "what covers it goes elsewhere");
	is_heard(&l, "begin, del 1000-1101 r+0, del 1102-1111 ram+0, "
	    "del 1112-1fff r+112, add 1000-17ff r+0, add 1800-180f ram+0, "
	    "add 1810-1fff r+810, + 1100/4=5 in 1000, commit",
	    "and it is back, while another has stayed");
	works(mt_region_set_readonly(r, true), "a region in other sections");
	is_heard(&l, "begin, del 1000-17ff r+0, del 1810-1fff r+810, "
	    "del 4000-40ff r+fe, add 1000-17ff r+0 r, add 1810-1fff r+810 r, "
	    "add 4000-40ff r+fe r, commit", "keeps its eventfds");
	works(mt_region_set_enabled(r, false), "a region that goes");
	is_heard(&l, "begin, - 10fe/4 in 1000, - 1100/4=5 in 1000, "
	    "- 4000/4 in 4000, - 4002/4=5 in 4000, del 1000-17ff r+0 r, "
	    "del 1810-1fff r+810 r, del 4000-40ff r+fe r, "
	    "commit", "takes them along");
	works(mt_region_set_enabled(r, true), "and");
	t_events(l.text);
	works(mt_region_del_eventfd(r, 0x100, 4, true, 5, a), "one goes");
	is_heard(&l, "begin, - 1100/4=5 in 1000, - 4002/4=5 in 4000, commit",
	    "everywhere");
	works(mt_region_resize(r, 0x100), "one that the end cuts");
	t_events(l.text);
	store(sp, 0x10fe, 2, 0);
	is_int(t_hits(b), 0, "is not there");
	works(mt_region_resize(r, 0x101), "but is");
	is_heard(&l, "begin, del 1000-1100 r+0 r, del 4000-4002 r+fe r, "
	    "add 1000-1101 r+0 r, add 4000-4003 r+fe r, + 10fe/4 in 1000, "
	    "+ 4000/4 in 4000, commit", "when it has its bytes");
	must(mt_listener_unregister(&l.l) == 0);
	close(a);
	close(b);
	t_end_space(t, sp, root);
}

static void
test_transactions(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r;
	struct mt_space *sp;
	struct t_listener l;
	int a = t_eventfd(), b = t_eventfd();

	r = t_add(root, 0x1000, 0, t_io(t, "r", 0x1000, &dev));
	sp = t_space(root);
	must(mt_region_add_eventfd(r, 0, 4, false, 0, a) == 0);
	listen_also(&l, sp, NULL, 0, NULL);
	is_heard(&l, "begin, add 1000-1fff r+0, + 1000/4 in 1000, commit",
	    "who registers is told of those there are");
	must(mt_topology_begin(t) == 0);
	must(mt_region_add_eventfd(r, 8, 4, false, 0, b) == 0);
	store(sp, 0x1008, 4, 1);
	is_int(t_hits(b), 0, "nothing is there before the commit");
	is_calls(&dev, "w 8/4=1", "and the device is called");
	must(mt_region_del_eventfd(r, 8, 4, false, 0, b) == 0);
	must(mt_topology_commit(t) == 0);
	is_heard(&l, "", "what comes and goes is not told");
	must(mt_topology_begin(t) == 0);
	must(mt_region_del_eventfd(r, 0, 4, false, 0, a) == 0);
	store(sp, 0x1000, 4, 1);
	is_int(t_hits(a), 1, "what goes is there until the commit");
	must(mt_region_add_eventfd(r, 0, 4, false, 0, b) == 0);
	must(mt_region_set_enabled(r, false) == 0);
	must(mt_region_set_enabled(r, true) == 0);
	must(mt_topology_commit(t) == 0);
	is_heard(&l, "begin, - 1000/4 in 1000, + 1000/4 in 1000, commit",
	    "one in the place of another is told as that");
	store(sp, 0x1000, 4, 1);
	is_int(t_hits(a), 0, "and signals one");
	is_int(t_hits(b), 1, "and not the other");
	must(mt_topology_begin(t) == 0);
	must(mt_region_add_eventfd(r, 8, 4, false, 0, a) == 0);
	must(mt_region_move(r, 0x2000) == 0);
	must(mt_topology_commit(t) == 0);
	is_heard(&l, "begin, - 1000/4 in 1000, del 1000-1fff r+0, "
	    "add 2000-2fff r+0, + 2000/4 in 2000, + 2008/4 in 2000, commit",
	    "a region moves with what it has got meanwhile");
	works(mt_listener_unregister(&l.l), "who leaves");
	is_heard(&l, "begin, - 2000/4 in 2000, - 2008/4 in 2000, "
	    "del 2000-2fff r+0, commit", "is told that all goes");
	works(mt_region_del_eventfd(r, 8, 4, false, 0, a), "one goes unheard");
	works(mt_listener_register(sp, &l.l), "and who comes back");
	is_heard(&l, "begin, add 2000-2fff r+0, + 2000/4 in 2000, commit",
	    "is not told of it");
	works(mt_listener_unregister(&l.l), "clean up");
	close(a);
	close(b);
	t_end_space(t, sp, root);
}

static void
signal_it(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	const uint64_t seven = 7;
	uint64_t val;

	(void)sp;
	*(int *)arg = (int)write(ev->fd, &seven, sizeof(seven));
	/* Nothing may be changed from here. */
	errno = 0;
	if (mt_region_del_eventfd(sec->region, 0, 4, false, 0, 0) != -1 ||
	    errno != EDEADLK)
		*(int *)arg = -1;
	(void)mt_space_load(sp, ev->addr, 4, MT_LITTLE, &val, MT_ATTRS_NONE);
}

static void
test_order(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_space *sp = t_space(r);
	struct t_listener lo, hi;
	char log[T_TEXT] = "";
	int wrote = 0, a = t_eventfd();
	struct mt_listener one = { .arg = &wrote, .eventfd_add = signal_it };

	listen_also(&hi, sp, "hi", 1, log);
	listen_also(&lo, sp, "lo", 0, log);
	log[0] = '\0';
	must(mt_region_add_eventfd(r, 0, 0, false, 0, a) == 0);
	is_str(log, "lo begin, hi begin, lo + 0/0 in 0, hi + 0/0 in 0, "
	    "lo commit, hi commit", "what comes is told to the low first");
	log[0] = '\0';
	must(mt_region_del_eventfd(r, 0, 0, false, 0, a) == 0);
	is_str(log, "lo begin, hi begin, hi - 0/0 in 0, lo - 0/0 in 0, "
	    "lo commit, hi commit", "what goes to the high");
	must(mt_listener_unregister(&lo.l) == 0);
	must(mt_listener_unregister(&hi.l) == 0);
	must(mt_listener_register(sp, &one) == 0);
	must(mt_region_add_eventfd(r, 0, 4, false, 0, a) == 0);
	is_int(wrote, 8, "a listener may signal what it is told of");
	is_int(t_hits(a), 7, "which is the caller's");
	must(mt_listener_unregister(&one) == 0);
	close(a);
	t_end_space(t, sp, r);
}

static void
test_full(void)
{
	const uint64_t most = UINT64_MAX - 1;
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_space *sp = t_space(r);
	int a = t_eventfd();

	must(mt_region_add_eventfd(r, 0, 4, false, 0, a) == 0);
	must(write(a, &most, sizeof(most)) == sizeof(most));
	is_int(store(sp, 0, 4, 0), MT_OK, "one that is full makes nobody wait");
	is_int(t_hits(a), most, "and stays full");
	must(fcntl(a, F_SETFL, 0) == 0);
	must(write(a, &most, sizeof(most)) == sizeof(most));
	is_int(store(sp, 0, 4, 0), MT_OK,
	    "nor does one that is full and was made blocking since");
	is_int(t_hits(a), most, "which stays full, too");
	is_int(store(sp, 0, 4, 0), MT_OK, "and");
	is_int(t_hits(a), 1, "is signalled once there is room");
	close(a);
	t_end_space(t, sp, r);
}

/* A view keeps what it was made with. */
static void
test_cache(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_space *sp = t_space(r);
	int a = t_eventfd(), before = (int)t_count_fds();
	struct mt_cache c;

	must(mt_region_add_eventfd(r, 4, 4, false, 0, a) == 0);
	must(mt_cache_init(&c, sp, 0, 0x100, MT_DMA_WRITE,
	    MT_ATTRS_NONE) == 0);
	must(mt_region_del_eventfd(r, 4, 4, false, 0, a) == 0);
	ok(mt_cache_stale(&c), "a cache is stale when an eventfd has gone");
	must(mt_cache_store(&c, 4, 4, MT_LITTLE, 0) == MT_OK);
	is_int(t_hits(a), 1, "and still signals, as its view has it");
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before + 1, "by an fd that is open as long");
	mt_cache_fini(&c);
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "and no longer");
	close(a);
	t_end_space(t, sp, r);
}

/* --- random changes, compared with a recount ----------------------------- */

#define NREGIONS	4
#define NFDS		6
#define MAX_EVENTFDS	64
#define MAX_MIRROR	1024

struct model {
	mt_addr off;
	unsigned int size;
	bool match;
	uint64_t data;
	int fd;				/* index */
};

struct mirror {
	struct mt_eventfd list[MAX_MIRROR];
	struct mt_eventfd gone[MAX_MIRROR];	/* in this commit */
	size_t n, ngone;
	int bad;
};

struct fuzz {
	uint64_t seed;
	struct mt_topology *t;
	struct t_dev dev;
	struct mt_region *root, *regions[NREGIONS], *aliases[2], *ram;
	struct mt_space *sp;
	struct model have[NREGIONS][MAX_EVENTFDS];
	size_t nhave[NREGIONS];
	int fds[NFDS];
	struct mirror m;
};

static bool
same(const struct mt_eventfd *a, const struct mt_eventfd *b)
{
	return (a->addr == b->addr && a->size == b->size &&
	    a->match == b->match && a->data == b->data);
}

static void
mirror_begin(void *arg, struct mt_space *sp)
{
	struct mirror *m = arg;

	(void)sp;
	m->ngone = 0;
}

static void
mirror_add(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct mirror *m = arg;
	size_t i;

	(void)sp;
	for (i = 0; i < m->n; i++)
		m->bad += same(&m->list[i], ev);
	/* Did it go and come for nothing? */
	for (i = 0; i < m->ngone; i++)
		m->bad += same(&m->gone[i], ev) && m->gone[i].fd == ev->fd;
	m->bad += ev->addr < sec->range.first || ev->addr > sec->range.last ||
	    sec->range.last - ev->addr + 1 < ev->size;
	must(m->n < MAX_MIRROR);
	m->list[m->n++] = *ev;
}

static void
mirror_del(void *arg, struct mt_space *sp, const struct mt_section *sec,
    const struct mt_eventfd *ev)
{
	struct mirror *m = arg;
	size_t i;

	(void)sp;
	m->bad += ev->addr < sec->range.first || ev->addr > sec->range.last;
	for (i = 0; i < m->n; i++)
		if (same(&m->list[i], ev))
			break;
	if (i == m->n || m->list[i].fd != ev->fd || m->ngone == MAX_MIRROR) {
		m->bad++;
		return;
	}
	m->gone[m->ngone++] = *ev;
	m->list[i] = m->list[--m->n];
}

static void
change_eventfd(struct fuzz *f, size_t r)
{
	struct model *have = f->have[r], e;
	size_t *n = &f->nhave[r], i;
	int ret;

	if (*n != 0 && t_below(&f->seed, 3) == 0) {
		i = t_below(&f->seed, *n);
		must(mt_region_del_eventfd(f->regions[r], have[i].off,
		    have[i].size, have[i].match, have[i].data,
		    f->fds[have[i].fd]) == 0);
		have[i] = have[--*n];
		return;
	}
	if (*n == MAX_EVENTFDS)
		return;
	e.off = t_below(&f->seed, 40) * (1 + t_below(&f->seed, 7));
	e.size = (1u << t_below(&f->seed, 5)) & 15;
	e.match = e.size != 0 && t_below(&f->seed, 2);
	e.data = e.match ? t_below(&f->seed, 3) : 0;
	e.fd = (int)t_below(&f->seed, NFDS);
	for (i = 0; i < *n; i++)
		if (have[i].off == e.off && have[i].size == e.size &&
		    have[i].match == e.match && have[i].data == e.data)
			break;
	ret = mt_region_add_eventfd(f->regions[r], e.off, e.size, e.match,
	    e.data, f->fds[e.fd]);
	must(ret == (i < *n ? -1 : 0));
	if (ret == 0)
		have[(*n)++] = e;
	else
		must(errno == EEXIST);
}

static void
change(struct fuzz *f)
{
	size_t r = t_below(&f->seed, NREGIONS);
	mt_addr at = t_below(&f->seed, 0x60) * 8;
	struct mt_region *moved;

	switch (t_below(&f->seed, 9)) {
	case 0:
		must(mt_region_move(f->regions[r], at) == 0);
		break;
	case 1:
		must(mt_region_set_enabled(f->regions[r],
		    t_below(&f->seed, 3) != 0) == 0);
		break;
	case 2:
		must(mt_region_resize(f->regions[r], at + 7) == 0);
		break;
	case 3:
		moved = t_below(&f->seed, 3) == 0 ? f->ram :
		    f->aliases[t_below(&f->seed, 2)];
		must(mt_region_move(moved, at) == 0);
		break;
	case 4:
		must(mt_region_set_alias_offset(f->aliases[r & 1],
		    t_below(&f->seed, 0x80)) == 0);
		break;
	default:
		change_eventfd(f, r);
	}
}

static size_t
index_of(const struct fuzz *f, const struct mt_region *r)
{
	size_t i;

	for (i = 0; i < NREGIONS && f->regions[i] != r; i++)
		;
	return (i);
}

/* Is all in the mirror that should be, and nothing else? */
static int
compare(struct fuzz *f)
{
	struct mt_view *v = mt_space_view(f->sp);
	const struct model *e;
	struct mt_eventfd want;
	struct mt_section sec;
	mt_addr at = 0, end;
	size_t i, j, r, n = 0;
	int bad = 0;

	while (mt_view_next(v, at, &sec)) {
		r = index_of(f, sec.region);
		end = sec.off + (sec.range.last - sec.range.first);
		for (i = 0; r < NREGIONS && i < f->nhave[r]; i++) {
			e = &f->have[r][i];
			if (e->off < sec.off || e->off > end ||
			    (e->size > 1 && end - e->off < e->size - 1))
				continue;
			want.addr = sec.range.first + (e->off - sec.off);
			want.size = e->size;
			want.match = e->match;
			want.data = e->data;
			for (j = 0; j < f->m.n; j++)
				if (same(&f->m.list[j], &want))
					break;
			bad += j == f->m.n;
			n++;
		}
		if ((at = sec.range.last + 1) == 0)
			break;
	}
	mt_view_put(v);
	return (bad + (n != f->m.n));
}

/* Does a write signal what it should, and else reach its device? */
static int
try_write(struct fuzz *f, unsigned int *signals)
{
	unsigned int size = 1u << t_below(&f->seed, 4), hits = 0;
	mt_addr addr = t_below(&f->seed, 0x400), off;
	uint64_t val = t_below(&f->seed, 3), want[NFDS] = { 0 };
	const struct model *e;
	struct mt_section sec;
	size_t i, r;
	int bad = 0;

	if (mt_space_find(f->sp, (struct mt_range){ addr, addr }, &sec) == -1)
		return (0);
	/* Found with the byte alone, so look where the section ends. */
	mt_region_put(sec.region);
	off = sec.off;
	if (mt_space_find(f->sp, (struct mt_range){ addr, addr + size - 1 },
	    &sec) == -1)
		return (1);
	mt_region_put(sec.region);
	r = index_of(f, sec.region);
	if (r == NREGIONS || sec.range.last != addr + size - 1)
		return (0);
	for (i = 0; i < f->nhave[r]; i++) {
		e = &f->have[r][i];
		if (e->off == off && (e->size == 0 || e->size == size) &&
		    (!e->match || e->data == val)) {
			want[e->fd]++;
			hits++;
		}
	}
	*signals += hits;
	f->dev.ncalls = 0;
	bad += store(f->sp, addr, size, val) != MT_OK;
	bad += f->dev.ncalls != (hits == 0);
	for (i = 0; i < NFDS; i++)
		bad += t_hits(f->fds[i]) != want[i];
	return (bad);
}

static void
test_random(void)
{
	static struct fuzz f;
	struct mt_listener l = { .arg = &f.m, .begin = mirror_begin,
	    .eventfd_add = mirror_add, .eventfd_del = mirror_del };
	uint64_t seed = t_env("T_SEED", (uint64_t)time(NULL));
	unsigned int signals = 0;
	int i, n, bad = 0;
	size_t most = 0;

	diag("T_SEED=%" PRIu64, seed);
	f.seed = seed;
	f.dev = (struct t_dev)T_DEV(.impl = { .max = 8, .unaligned = true },
	    .valid = { .unaligned = true });
	f.t = t_topology();
	f.root = t_container(f.t, "root", 0x1000);
	for (i = 0; i < NREGIONS; i++)
		f.regions[i] = t_add(f.root, (mt_addr)i * 0x80, i,
		    t_io(f.t, "r", 0x100, &f.dev));
	for (i = 0; i < 2; i++)
		f.aliases[i] = t_add(f.root, 0x300, i, t_alias(f.t, "al",
		    f.regions[i], 0x10, 0x40));
	f.ram = t_add(f.root, 0x380, 10, t_ram(f.t, "ram", 0xc));
	f.sp = t_space(f.root);
	for (i = 0; i < NFDS; i++)
		f.fds[i] = t_eventfd();
	must(mt_listener_register(f.sp, &l) == 0);
	for (i = 0; i < 3000 && bad == 0; i++) {
		must(mt_topology_begin(f.t) == 0);
		for (n = (int)t_below(&f.seed, 4); n >= 0; n--)
			change(&f);
		must(mt_topology_commit(f.t) == 0);
		bad += f.m.bad + compare(&f);
		for (n = 0; n < 8; n++)
			bad += try_write(&f, &signals);
		if (f.m.n > most)
			most = f.m.n;
		if (i % 500 == 499) {
			must(mt_listener_unregister(&l) == 0);
			bad += f.m.bad + (f.m.n != 0);
			must(mt_listener_register(f.sp, &l) == 0);
			bad += f.m.bad + compare(&f);
		}
	}
	is_int(bad, 0, "listeners know what there is after random changes");
	ok(most > 20, "of which there was much");
	ok(signals > 100, "and writes signal what they should");
	must(mt_listener_unregister(&l) == 0);
	is_int(f.m.n, 0, "and nothing when they have left");
	for (i = 0; i < NFDS; i++)
		close(f.fds[i]);
	t_end_space(f.t, f.sp, f.root);
}

/* --- many ---------------------------------------------------------------- */

static void
test_many(void)
{
	enum { N = 2000 };
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x10000, &dev);
	struct mt_space *sp = t_space(r);
	int a = t_eventfd(), b = t_eventfd();
	int before = (int)t_count_fds(), bad = 0;
	unsigned int i, room = (unsigned int)sysconf(_SC_OPEN_MAX);
	unsigned int n = room < N + 100 ? room - 100 : N;

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < n; i++)
		bad += mt_region_add_eventfd(r, i * 4, 4, true, i,
		    i % 3 == 0 ? b : a) == -1;
	must(mt_topology_commit(t) == 0);
	is_int(bad, 0, "there may be many");
	for (i = 0; i < n; i++)
		bad += store(sp, i * 4, 4, i) != MT_OK;
	is_int(t_hits(b), (n + 2) / 3, "each of which is signalled");
	is_int(t_hits(a), n - (n + 2) / 3, "and each once");
	must(mt_topology_begin(t) == 0);
	for (i = 0; i < n; i += 3)
		bad += mt_region_del_eventfd(r, i * 4, 4, true, i, b) == -1;
	must(mt_topology_commit(t) == 0);
	for (i = 0; i < n; i++)
		bad += store(sp, i * 4, 4, i) != MT_OK;
	is_int(t_hits(b), 0, "some of them go");
	is_int(t_hits(a), n - (n + 2) / 3, "the others stay");
	is_int(dev.ncalls, (n + 2) / 3, "and the device gets what is left");
	for (i = 0; i < n; i++)
		if (i % 3 != 0)
			bad += mt_region_del_eventfd(r, i * 4, 4, true, i,
			    a) == -1;
	is_int(bad, 0, "all go");
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "and leave no fd behind");
	close(a);
	close(b);
	t_end_space(t, sp, r);
}

/* --- threads ------------------------------------------------------------- */

struct race {
	struct mt_space *sp;
	_Atomic(bool) stop;
	uint64_t at[2];			/* writes answered at either place */
	uint64_t called;
};

static enum mt_result
race_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct race *race = arg;

	(void)off;
	(void)size;
	(void)val;
	(void)attrs;
	race->called++;
	return (MT_OK);
}

static void *
race_writer(void *arg)
{
	struct race *race = arg;
	unsigned int i;

	for (i = 0; !race->stop; i ^= 1)
		race->at[i] += store(race->sp, 0x1000 + i * 0x1000, 4, 0) ==
		    MT_OK;
	return (NULL);
}

/*
 * A region goes to and fro, and takes another eventfd at each of its places,
 * or none: what a write finds is all of one commit.
 */
static void
test_race(void)
{
	static struct race race;
	static const struct mt_io_ops ops = { .write = race_write };
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 0x10000), *r;
	int fds[2] = { t_eventfd(), t_eventfd() };
	int before = (int)t_count_fds(), i, at = 0;
	pthread_t thread;

	must((r = mt_region_create_io(t, "r", 0xfff, &ops, &race)) != NULL);
	t_add(root, 0x1000, 0, r);
	race.sp = t_space(root);
	must(mt_region_add_eventfd(r, 0, 4, false, 0, fds[0]) == 0);
	must(pthread_create(&thread, NULL, race_writer, &race) == 0);
	for (i = 0; i < 4000; i++) {
		must(mt_topology_begin(t) == 0);
		must(mt_region_del_eventfd(r, 0, 4, false, 0, fds[at]) == 0);
		at ^= 1;
		must(mt_region_move(r, 0x1000 + (mt_addr)at * 0x1000) == 0);
		must(mt_region_add_eventfd(r, 0, 4, false, 0, fds[at]) == 0);
		must(mt_topology_commit(t) == 0);
	}
	race.stop = true;
	must(pthread_join(thread, NULL) == 0);
	diag("%" PRIu64 " and %" PRIu64 " writes", race.at[0], race.at[1]);
	ok(race.at[0] + race.at[1] > 0, "a thread writes while another moves");
	is_int(race.called, 0, "a region is never without its eventfd");
	is_int(t_hits(fds[0]), race.at[0], "a write at one place");
	is_int(t_hits(fds[1]), race.at[1], "signals what is for that place");
	must(mt_space_destroy(race.sp) == 0);
	mt_region_put(root);
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "and no fd is left");
	close(fds[0]);
	close(fds[1]);
	t_end(t);
}

/* --- a size that is told ------------------------------------------------- */

static void
note_last(void *arg, struct mt_region *r, mt_addr last)
{
	(void)r;
	*(mt_addr *)arg = last;
}

/* The entry of the undo log by which it is told had eventfds, too. */
static void
test_resized(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_space *sp = t_space(r);
	int a = t_eventfd(), before = (int)t_count_fds();
	mt_addr last = 0;

	must(mt_region_set_resized(r, note_last, &last) == 0);
	must(mt_region_add_eventfd(r, 4, 4, false, 0, a) == 0);
	works(mt_region_resize(r, 0x1fff), "a region with an eventfd grows");
	is_hex(last, 0x1fff, "which is told");
	store(sp, 4, 4, 1);
	is_int(t_hits(a), 1, "the eventfd stays");
	must(mt_region_del_eventfd(r, 4, 4, false, 0, a) == 0);
	must(mt_topology_sync(t) == 0);
	is_int(t_count_fds(), before, "and goes when it is taken out");
	close(a);
	t_end_space(t, sp, r);
}

/* --- dump ---------------------------------------------------------------- */

static void
test_dump(void)
{
	struct t_dev dev = T_DEV(WIDE);
	struct mt_topology *t = t_topology();
	struct mt_region *r = t_io(t, "r", 0x1000, &dev);
	struct mt_region *al = t_alias(t, "al", r, 9, 0xe);
	struct mt_region *root = t_container(t, "root", 0x10000);
	struct mt_space *sp = t_space(root);
	char *text = NULL;
	int a = t_eventfd();
	size_t len;
	FILE *fp;

	must(mt_region_add_eventfd(r, 8, 4, true, 0x1f, a) == 0);
	must(mt_region_add_eventfd(r, 4, 0, false, 0, a) == 0);
	must(mt_region_add_coalescing(r, 0x10, 0x1f) == 0);
	must((fp = open_memstream(&text, &len)) != NULL);
	works(mt_dump_tree(fp, r), "a tree is dumped");
	must(fclose(fp) == 0);
	is_str(text,
	    "0000000000000000-0000000000000fff (prio 0, i/o): r\n"
	    "  coalescing @0000000000000010-000000000000001f\n"
	    "  eventfd @0000000000000004, size any\n"
	    "  eventfd @0000000000000008, size 4, data 1f\n",
	    "with eventfds and coalescing");
	free(text);
	must(mt_region_add_eventfd(r, 0x14, 4, false, 0, a) == 0);
	must(mt_region_add(root, r, 0x1000, 0) == 0);
	must(mt_region_add(root, al, 0x4000, 0) == 0);
	must((fp = open_memstream(&text, &len)) != NULL);
	works(mt_dump_view(fp, sp), "a view is dumped");
	must(fclose(fp) == 0);
	is_str(text,
	    "space space, root root, 2 sections\n"
	    "  0000000000001000-0000000000001fff (i/o): r\n"
	    "    coalescing 0000000000001010-000000000000101f\n"
	    "    eventfd 0000000000001004, size any\n"
	    "    eventfd 0000000000001008, size 4, data 1f\n"
	    "    eventfd 0000000000001014, size 4\n"
	    "  0000000000004000-000000000000400d (i/o): r @0000000000000009\n"
	    "    coalescing 0000000000004007-000000000000400d\n",
	    "with what its sections show, as far as they do");
	free(text);
	close(a);
	mt_region_put(al);
	mt_region_put(r);
	t_end_space(t, sp, root);
}

int
main(void)
{
	int before = (int)t_count_fds();

	if (before == -1)
		skip_all("no /proc/self/fd");
	test_compare();
	test_errors();
	test_order_and_steps();
	test_buffers();
	test_guard();
	test_places();
	test_transactions();
	test_order();
	test_full();
	test_cache();
	test_random();
	test_many();
	test_race();
	test_resized();
	test_dump();
	is_int(t_count_fds(), before, "no fd is left of all tests");
	return (done());
}
