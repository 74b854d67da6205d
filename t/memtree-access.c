/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Accesses: how they are cut, swapped, widened, refused and answered. */

#include "t/util.h"

#define IO	0x1000		/* where the device under test is */

/* A root with a device at IO and RAM behind it. */
struct world {
	struct mt_topology *t;
	struct mt_region *root, *io, *ram;
	struct mt_space *sp;
};

static struct world
begin(struct t_dev *dev, mt_addr size)
{
	struct world w;

	w.t = t_topology();
	w.root = t_container(w.t, "root", 0x10000);
	w.io = t_add(w.root, IO, 0, t_io(w.t, "io", size, dev));
	w.ram = t_add(w.root, IO + size, 0, t_ram(w.t, "ram", 0x100));
	memset(mt_region_ptr(w.ram), 0xaa, 0x100);
	w.sp = t_space(w.root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
}

/* The bytes of off, off + 1, ... that a device is read as. */
static const char *
bytes_from(mt_addr off, size_t len)
{
	uint8_t buf[64];
	size_t i;

	must(len <= sizeof(buf));
	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)(off + i);
	return (t_hex(buf, len));
}

/* How accesses of any length are cut into calls. */
static void
test_cut(void)
{
	static const struct {
		struct mt_width valid, impl;
		mt_addr off;
		size_t len;
		const char *calls;	/* NULL: refused */
		const char *what;
	} tries[] = {
		{ { 0 }, { 0 }, 0, 1, "r 0/1", "a byte is a byte" },
		{ { 0 }, { 0 }, 0, 8, "r 0/4, r 4/4", "the default is words" },
		{ { 0 }, { 0 }, 0, 3, "r 0/2, r 2/1",
		    "steps are powers of two" },
		{ { 0 }, { 0 }, 1, 4, "r 1/1, r 2/2, r 4/1",
		    "and aligned" },
		{ { 0 }, { 0 }, 2, 8, "r 2/2, r 4/4, r 8/2",
		    "and as large as can be" },
		{ { 1, 8, 0 }, { 1, 8, 0 }, 0, 16, "r 0/8, r 8/8",
		    "up to the largest valid size" },
		{ { 1, 8, 0 }, { 1, 8, 0 }, 4, 12, "r 4/4, r 8/8",
		    "the offset limits a step" },
		{ { 1, 8, 1 }, { 1, 8, 1 }, 3, 16, "r 3/8, r b/8",
		    "but not of a device that implements unaligned ones" },
		{ { 1, 8, 1 }, { 1, 8, 0 }, 3, 8,
		    "r 3/1, r 4/4, r 8/2, r a/1",
		    "it does if they are only valid" },
		{ { 1, 4, 0 }, { 1, 4, 1 }, 1, 4, NULL,
		    "it does not if they are not valid, but refused" },
		{ { 1, 1, 0 }, { 0 }, 1, 3, "r 1/1, r 2/1, r 3/1",
		    "a device of bytes gets bytes" },
		{ { 1, 2, 0 }, { 0 }, 0, 5, "r 0/2, r 2/2, r 4/1",
		    "one of two bytes gets these" },
		{ { 4, 4, 0 }, { 0 }, 0, 2, NULL,
		    "less than the least valid size is refused" },
		{ { 4, 4, 0 }, { 0 }, 2, 4, NULL,
		    "also as part of what is not aligned" },
		{ { 4, 4, 0 }, { 0 }, 4, 8, "r 4/4, r 8/4",
		    "just the valid size is fine" },
		{ { 4, 0, 0 }, { 0 }, 0, 1, "r 0/1",
		    "a least size without a largest does not count" },
		{ { 1, 8, 0 }, { 1, 2, 0 }, 0, 8,
		    "r 0/2, r 2/2, r 4/2, r 6/2",
		    "a callback gets what it implements" },
		{ { 1, 8, 0 }, { 0 }, 0, 8, "r 0/4, r 4/4",
		    "which is 4 at most if not said" },
		{ { 1, 8, 0 }, { 8, 0, 0 }, 0, 8, "r 0/8",
		    "or 8 if it is no less" },
		{ { 1, 8, 0 }, { 1, 1, 0 }, 0, 4,
		    "r 0/1, r 1/1, r 2/1, r 3/1", "or bytes" },
		{ { 1, 4, 0 }, { 4, 4, 0 }, 0, 1, "r 0/4",
		    "or more than was asked for" },
		{ { 1, 4, 0 }, { 4, 4, 0 }, 5, 1, "r 5/4",
		    "then at the offset as it is" },
		{ { 1, 4, 0 }, { 2, 4, 0 }, 1, 4, "r 1/2, r 2/2, r 4/2",
		    "each step for itself" },
	};
	struct t_dev dev;
	struct world w;
	uint8_t buf[8];
	size_t i, order;

	for (i = 0; i < T_COUNT(tries) * 2; i++) {
		size_t n = i / 2;

		order = i % 2 == 0 ? MT_LITTLE : MT_BIG;
		dev = (struct t_dev)T_DEV(.endian = (enum mt_endian)order,
		    .valid = tries[n].valid, .impl = tries[n].impl);
		w = begin(&dev, 0x100);
		if (tries[n].calls != NULL) {
			is_read(w.sp, IO + tries[n].off, tries[n].len,
			    bytes_from(tries[n].off, tries[n].len),
			    "%s: the bytes (%s endian)", tries[n].what,
			    order == MT_BIG ? "big" : "little");
			is_calls(&dev, tries[n].calls, "the calls");
		} else {
			memset(buf, 0x55, sizeof(buf));
			is_int(mt_space_read(w.sp, IO + tries[n].off, buf,
			    tries[n].len, MT_ATTRS_NONE), MT_DECODE,
			    "%s", tries[n].what);
			is_mem(buf, "\0\0\0\0\0\0\0", tries[n].len,
			    "read as 0");
			is_calls(&dev, "", "without a call");
		}
		end(&w);
	}
}

static void
test_write(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 8, false }, .impl = { 1, 8, false });
	static const char bytes[] = "\x11\x22\x33\x44\x55\x66\x77\x88";
	struct world w;

	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO + 2, bytes, 8, MT_ATTRS_NONE),
	    "a write is cut as a read");
	is_calls(&dev, "w 2/2=2211, w 4/4=66554433, w 8/2=8877",
	    "little endian: the first byte is the least");
	end(&w);

	dev.ops.endian = MT_BIG;
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO + 2, bytes, 8, MT_ATTRS_NONE), "cut");
	is_calls(&dev, "w 2/2=1122, w 4/4=33445566, w 8/2=7788",
	    "big endian: the first byte is the greatest");
	end(&w);

	dev.ops.impl = (struct mt_width){ 1, 2, false };
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO, bytes, 8, MT_ATTRS_NONE), "split");
	is_calls(&dev, "w 0/2=1122, w 2/2=3344, w 4/2=5566, w 6/2=7788",
	    "big endian: the first part has the greatest bytes");
	end(&w);

	dev.ops.impl = (struct mt_width){ 4, 4, false };
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO + 1, bytes, 1, MT_ATTRS_NONE), "widen");
	is_calls(&dev, "w 1/4=11000000",
	    "big endian: the bytes asked for are the greatest, the rest 0");
	end(&w);

	dev.ops.endian = MT_LITTLE;
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO + 1, bytes, 1, MT_ATTRS_NONE), "widen");
	is_calls(&dev, "w 1/4=11",
	    "little endian: they are the least, the rest 0");
	end(&w);

	dev.ops.impl = (struct mt_width){ 8, 0, false };
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO, bytes, 8, MT_ATTRS_NONE), "as it is");
	is_calls(&dev, "w 0/8=8877665544332211",
	    "a device that implements 8 only gets 8");
	end(&w);

	dev.ops.endian = MT_HOST;
	dev.ops.impl = (struct mt_width){ 1, 2, false };
	w = begin(&dev, 0x100);
	works(mt_space_write(w.sp, IO, bytes, 4, MT_ATTRS_NONE), "split");
	is_calls(&dev, __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ?
	    "w 0/2=2211, w 2/2=4433" : "w 0/2=1122, w 2/2=3344",
	    "a device can have the order of the host");
	end(&w);
}

/* No call begins or reaches past the end of a region. */
static void
test_end(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 8, true }, .impl = { 1, 8, true });
	struct world w = begin(&dev, 6);
	uint64_t val;

	is_read(w.sp, IO, 8, "000102030405aaaa",
	    "what reaches past a device goes on behind it");
	is_calls(&dev, "r 0/4, r 4/2", "and is cut there");
	is_read(w.sp, IO + 5, 4, "05aaaaaa", "from its last byte too");
	is_calls(&dev, "r 5/1", "which is a call of a byte");
	works(mt_space_write(w.sp, IO + 3, "\1\2\3\4\5\6\7", 7,
	    MT_ATTRS_NONE), "a write");
	is_calls(&dev, "w 3/2=201, w 5/1=3", "is cut as well");
	is_read(w.sp, IO + 6, 5, "04050607aa", "and goes on behind");
	works(mt_space_load(w.sp, IO + 4, 4, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "a value that reaches past it");
	is_hex(val, 0x05040504, "is put together");
	is_calls(&dev, "r 4/2", "of what it has");
	works(mt_space_store(w.sp, IO + 5, 8, MT_LITTLE, 0x1122334455667788,
	    MT_ATTRS_NONE), "and is stored");
	is_calls(&dev, "w 5/1=88", "in the parts");
	is_read(w.sp, IO + 6, 7, "77665544332211", "that there are");

	works(mt_region_resize(w.io, 2), "a device that shrinks");
	must(mt_region_move(w.ram, IO + 3) == 0);
	is_read(w.sp, IO, 4, "00010277", "is cut at its new end");
	is_calls(&dev, "r 0/2, r 2/1", "everywhere");
	end(&w);
}

/* Also if the end moves where it is not seen, and the section stays. */
static void
test_end_covered(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 8, true }, .impl = { 1, 8, true });
	struct world w = begin(&dev, 8);
	struct mt_region *cover = t_add(w.root, IO + 4, 1,
	    t_ram(w.t, "cover", 0x100));

	memset(mt_region_ptr(cover), 0xcc, 0x100);
	is_view(w.sp, "1000-1003 io+0, 1004-1103 cover+0, 1104-1107 ram+fc",
	    "a device that ends behind something");
	is_read(w.sp, IO + 2, 4, "02030405", "may be read as far as it goes");
	is_calls(&dev, "r 2/4", "by a call that begins where it is seen");
	works(mt_region_resize(w.io, 4), "when it shrinks there");
	is_view(w.sp, "1000-1003 io+0, 1004-1103 cover+0, 1104-1107 ram+fc",
	    "nothing else looks different");
	is_read(w.sp, IO + 2, 4, "0203cccc", "but no call");
	is_calls(&dev, "r 2/2", "reaches past its new end");
	works(mt_region_resize(w.io, 7), "when it grows");
	is_read(w.sp, IO + 2, 4, "02030405", "calls are");
	is_calls(&dev, "r 2/4", "as they were");
	end(&w);
}

/* Nor does one that is wider than what was asked for. */
static void
test_end_widened(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 4, true }, .impl = { 4, 4, false });
	struct world w = begin(&dev, 6);
	uint64_t val;

	is_read(w.sp, IO + 2, 1, "02", "a call that is widened to the end");
	is_calls(&dev, "r 2/4", "is made");
	is_read(w.sp, IO + 3, 1, "00 with 2", "one that is past it");
	is_int(mt_space_write(w.sp, IO + 5, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "is not, to read or to write");
	is_int(mt_space_load(w.sp, IO + 4, 2, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_DECODE, "nor to load");
	is_hex(val, 0, "which gives 0");
	is_int(mt_space_store(w.sp, IO + 4, 2, MT_LITTLE, 1, MT_ATTRS_NONE),
	    MT_DECODE, "nor to store");
	ok(!mt_space_valid(w.sp, IO + 4, 1, false, MT_ATTRS_NONE),
	    "nor is that valid");
	ok(mt_space_valid(w.sp, IO + 2, 1, false, MT_ATTRS_NONE),
	    "but what comes before");
	is_calls(&dev, "", "there was no call");
	end(&w);
}

/* Who asks for what QEMU does gets it. */
static void
test_end_exact(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE, .qemu_exact = true,
	    .valid = { 1, 8, true }, .impl = { 1, 8, true });
	struct world w = begin(&dev, 6);
	struct mt_region *romd;

	is_read(w.sp, IO + 5, 4, "05060708",
	    "on demand a call reaches past the end");
	is_calls(&dev, "r 5/4", "in one piece");
	is_read(w.sp, IO + 4, 16, "0405060708090a0baaaaaaaaaaaaaaaa",
	    "if it begins inside");
	is_calls(&dev, "r 4/8", "and is as wide as can be");
	end(&w);

	dev.ops.impl = (struct mt_width){ 4, 4, false };
	w = begin(&dev, 6);
	is_read(w.sp, IO + 5, 1, "05", "or widened");
	is_calls(&dev, "r 5/4", "past the end");
	romd = t_add(w.root, 0x4000, 0, t_romd(w.t, "romd", 4, &dev));
	memset(mt_region_ptr(romd), 0x33, 4);
	is_read(w.sp, 0x4002, 6, "333300000000",
	    "a ROM device goes on to the end of its page");
	end(&w);
}

static enum mt_result
refuse_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)attrs;
	*val = 0x5a5a5a5a5a5a5a5a;
	return (MT_DENIED);
}

static void
test_errors(void)
{
	static const struct mt_io_ops none = { .endian = MT_LITTLE };
	static const struct mt_io_ops refuse = { .read = refuse_read };
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct world w = begin(&dev, 0x100);
	struct mt_region *r;

	dev.fail = MT_DEVICE;
	dev.fail_off = 5;
	is_read(w.sp, IO, 12, "000102030405060708090a0b with 1",
	    "a device that fails is read on, and what it gave is kept");
	is_calls(&dev, "r 0/4, r 4/4, r 8/4", "to the end");
	is_int(mt_space_write(w.sp, IO + 2, "\1\2\3\4\5\6\7\10", 8,
	    MT_ATTRS_NONE), MT_DEVICE, "and is written on");
	is_calls(&dev, "w 2/2=201, w 4/4=6050403, w 8/2=807", "to the end");
	is_read(w.sp, IO - 2, 8, "0000000102030405 with 3",
	    "the answer is the OR of all that went wrong");
	must(mt_region_set_enabled(w.ram, false) == 0);
	is_read(w.sp, IO + 0xfe, 4, "feff0000 with 2", "a hole reads as 0");
	dev.fail = MT_DENIED;
	is_read(w.sp, IO + 4, 4, "04050607 with 4",
	    "an answer is passed on as it is");
	is_read(w.sp, 0x8000, 3, "000000 with 2", "nothing is a decode error");
	is_int(mt_space_write(w.sp, 0x8000, "abc", 3, MT_ATTRS_NONE),
	    MT_DECODE, "for a write as well");
	is_int(mt_space_read(w.sp, 0x8000, NULL, 0, MT_ATTRS_NONE), MT_OK,
	    "reading nothing is fine anywhere");
	is_int(mt_space_write(w.sp, 0x8000, NULL, 0, MT_ATTRS_NONE), MT_OK,
	    "as is writing nothing");

	must((r = mt_region_create_io(w.t, "none", 7, &none, NULL)) != NULL);
	t_add(w.root, 0x8000, 0, r);
	is_read(w.sp, 0x8000, 2, "0000 with 2",
	    "a device without a read answers a decode error");
	is_int(mt_space_write(w.sp, 0x8000, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "as does one without a write");
	must((r = mt_region_create_io(w.t, "refuse", 7, &refuse, NULL)) !=
	    NULL);
	t_add(w.root, 0x9000, 0, r);
	is_read(w.sp, 0x9000, 2, "5a5a with 4",
	    "no more than was asked for is taken of a value");
	t_add(w.root, 0xa000, 0, t_reserved(w.t, "reserved", 8));
	is_read(w.sp, 0xa000, 2, "0000 with 2",
	    "a reserved region answers a decode error");
	is_int(mt_space_write(w.sp, 0xa000, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "to a write too");
	end(&w);
}

/* What a device is asked and told beside the value. */
struct picky {
	struct t_dev dev;
	struct t_call asked;
	unsigned int nasked;
};

static bool
picky_accepts(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	struct picky *p = arg;

	p->asked = (struct t_call){ is_write, off, size, 0, attrs };
	p->nasked++;
	return (off < 8 && !(is_write && attrs.user));
}

static void
test_accepts(void)
{
	struct picky p = { .dev = T_DEV(.endian = MT_LITTLE,
	    .accepts = picky_accepts) };
	struct mt_attrs attrs = { .requester_id = 0x1234, .secure = 1 };
	struct mt_attrs user = { .user = 1 };
	struct world w = begin(&p.dev, 0x100);
	uint64_t val;
	uint8_t buf[16];

	works(mt_space_read(w.sp, IO + 4, buf, 2, attrs), "asked, it accepts");
	is_calls(&p.dev, "r 4/2", "and is called");
	ok(!p.asked.is_write && p.asked.off == 4 && p.asked.size == 2 &&
	    p.asked.attrs.requester_id == 0x1234 && p.asked.attrs.secure == 1,
	    "it is asked for what is to be done");
	ok(p.dev.calls[0].attrs.requester_id == 0x1234 &&
	    p.dev.calls[0].attrs.secure == 1, "and gets the attributes");
	is_int(mt_space_read(w.sp, IO + 4, buf, 8, attrs), MT_DECODE,
	    "what it does not accept is refused");
	is_calls(&p.dev, "r 4/4", "alone");
	is_mem(buf, "\4\5\6\7\0\0\0\0", 8, "and reads as 0");
	is_int(mt_space_write(w.sp, IO, "ab", 2, user), MT_DECODE,
	    "it may look at attributes");
	is_calls(&p.dev, "", "before it is called");
	works(mt_space_write(w.sp, IO, "ab", 2, attrs), "or not");
	ok(p.asked.is_write, "it is told that a write is a write");

	is_int(mt_space_store(w.sp, IO, 2, MT_LITTLE, 1, user), MT_DECODE,
	    "a store is a write as well");
	works(mt_space_load(w.sp, IO, 2, MT_LITTLE, &val, user),
	    "a load is a read");
	ok(!p.asked.is_write, "as it is told");

	p.nasked = p.dev.ncalls = 0;
	ok(mt_space_valid(w.sp, IO, 8, false, attrs), "valid asks it");
	ok(!mt_space_valid(w.sp, IO, 12, false, attrs), "for each step");
	ok(!mt_space_valid(w.sp, IO, 4, true, user), "with attributes");
	ok(p.nasked >= 4, "by its callback");
	is_calls(&p.dev, "", "but does not access");
	end(&w);
}

static void
test_typed(void)
{
	static const struct {
		enum mt_endian device, order;
		uint64_t val;
	} tries[] = {
		{ MT_LITTLE, MT_LITTLE, 0x11223344 },
		{ MT_LITTLE, MT_BIG, 0x44332211 },
		{ MT_BIG, MT_LITTLE, 0x44332211 },
		{ MT_BIG, MT_BIG, 0x11223344 },
		{ MT_HOST, MT_HOST, 0x11223344 },
	};
	struct t_dev dev;
	struct world w;
	uint64_t val;
	size_t i;

	for (i = 0; i < T_COUNT(tries); i++) {
		const char *d = tries[i].device == MT_LITTLE ? "little" :
		    tries[i].device == MT_BIG ? "big" : "host";
		const char *o = tries[i].order == MT_LITTLE ? "little" :
		    tries[i].order == MT_BIG ? "big" : "host";

		dev = (struct t_dev)T_DEV(.endian = tries[i].device,
		    .valid = { 1, 8, false }, .impl = { 1, 8, false });
		w = begin(&dev, 0x100);
		dev.is_fixed = true;
		dev.fixed = 0x11223344;
		works(mt_space_load(w.sp, IO, 4, tries[i].order, &val,
		    MT_ATTRS_NONE), "load");
		is_hex(val, tries[i].val, "a %s-endian load of a %s-endian "
		    "register", o, d);
		is_calls(&dev, "r 0/4", "is one call");
		works(mt_space_store(w.sp, IO, 4, tries[i].order,
		    tries[i].val, MT_ATTRS_NONE), "store");
		is_calls(&dev, "w 0/4=11223344",
		    "and a store the reverse of it");
		end(&w);
	}

	w = begin(&dev, 0x100);
	val = 1;
	is_int(mt_space_load(w.sp, IO, 3, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_DECODE, "there are no values of 3 bytes");
	is_hex(val, 0, "to load");
	is_int(mt_space_store(w.sp, IO, 16, MT_LITTLE, 1, MT_ATTRS_NONE),
	    MT_DECODE, "nor of 16 to store");
	is_calls(&dev, "", "and no call is made");
	end(&w);

	/* The value of a callback fits the load. */
	dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w = begin(&dev, 0x100);
	dev.is_fixed = true;
	dev.fixed = UINT64_MAX;
	works(mt_space_load(w.sp, IO, 2, MT_BIG, &val, MT_ATTRS_NONE), "load");
	is_hex(val, 0xffff, "a callback that gives more than asked is cut");
	works(mt_space_store(w.sp, IO, 2, MT_LITTLE, UINT64_MAX,
	    MT_ATTRS_NONE), "store");
	works(mt_space_store(w.sp, IO, 1, MT_BIG, 0x1234, MT_ATTRS_NONE),
	    "store");
	is_calls(&dev, "r 0/2, w 0/2=ffff, w 0/1=34",
	    "as is a value that is too large for a store");
	end(&w);
}

/* Loads and stores that no one region accepts as they are. */
static void
test_typed_parts(void)
{
	struct t_dev dev;
	struct world w;
	uint64_t val;

	dev = (struct t_dev)T_DEV(.endian = MT_BIG, .valid = { 4, 4, false });
	w = begin(&dev, 0x100);
	works(mt_space_load(w.sp, IO, 8, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "a load that is too wide for a device is put together");
	is_hex(val, 0x0706050403020100, "from bytes in address order");
	is_calls(&dev, "r 0/4, r 4/4", "that are read in words");
	works(mt_space_load(w.sp, IO, 8, MT_BIG, &val, MT_ATTRS_NONE),
	    "in the other byte order");
	is_hex(val, 0x0001020304050607, "too");
	dev.ncalls = 0;
	works(mt_space_store(w.sp, IO + 8, 8, MT_BIG, 0x1122334455667788,
	    MT_ATTRS_NONE), "and stored");
	is_calls(&dev, "w 8/4=11223344, w c/4=55667788", "in words");
	val = 1;
	is_int(mt_space_load(w.sp, IO, 2, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_DECODE, "a load that is too narrow is refused");
	is_hex(val, 0, "and gives 0");
	end(&w);

	dev = (struct t_dev)T_DEV(.endian = MT_LITTLE);
	w = begin(&dev, 0x100);
	works(mt_space_load(w.sp, IO, 8, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "a device without limits");
	is_hex(val, 0x0706050403020100, "takes it whole");
	is_calls(&dev, "r 0/4, r 4/4", "in two calls");
	works(mt_space_load(w.sp, IO + 1, 4, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "an unaligned load of a device that has none");
	is_hex(val, 0x04030201, "is put together");
	is_calls(&dev, "r 1/1, r 2/2, r 4/1", "of aligned ones");
	end(&w);

	dev = (struct t_dev)T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 4, true });
	w = begin(&dev, 7);
	works(mt_space_load(w.sp, IO + 1, 4, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "one for which it is valid");
	is_calls(&dev, "r 1/4", "is one call");
	works(mt_space_store(w.sp, IO + 3, 4, MT_LITTLE, 1, MT_ATTRS_NONE),
	    "as is a store");
	is_calls(&dev, "w 3/4=1", "to the very end");
	must(mt_region_move(w.ram, IO + 5) == 0);
	works(mt_space_load(w.sp, IO + 1, 4, MT_LITTLE, &val, MT_ATTRS_NONE),
	    "or to the end of what is seen of it");
	is_calls(&dev, "r 1/4", "in one call");
	end(&w);
}

static void
test_typed_memory(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *a, *b;
	struct mt_space *sp;
	uint8_t bytes[8];
	uint64_t val;
	uint16_t v16;
	uint32_t v32;
	uint8_t v8;
	int i;

	root = t_container(t, "root", T_ALL);
	a = t_add(root, 0x1000, 0, t_ram(t, "a", 0x1000));
	b = t_add(root, 0x2000, 0, t_ram(t, "b", 0x1000));
	for (i = 0; i < 8; i++)
		((uint8_t *)mt_region_ptr(i < 4 ? a : b))
		    [i < 4 ? 0xffc + i : i - 4] = (uint8_t)(0x11 * (i + 1));
	t_add(root, MT_LAST_MAX - 0xfff, 0, t_ram(t, "top", 0x1000));
	sp = t_space(root);

	is_int(mt_space_load_u8(sp, 0x1fff, &v8), MT_OK, "a byte loads");
	is_hex(v8, 0x44, "as it is");
	mt_space_load_le16(sp, 0x1ffd, &v16);
	is_hex(v16, 0x3322, "two bytes load, aligned or not");
	mt_space_load_be16(sp, 0x1ffd, &v16);
	is_hex(v16, 0x2233, "in both byte orders");
	is_int(mt_space_load_le32(sp, 0x1ffe, &v32), MT_OK,
	    "a value across two regions loads");
	is_hex(v32, 0x66554433, "little endian");
	mt_space_load_be32(sp, 0x1ffe, &v32);
	is_hex(v32, 0x33445566, "and big");
	mt_space_load_le64(sp, 0x1ffc, &val);
	is_hex(val, 0x8877665544332211, "of 8 bytes too");
	mt_space_load_be64(sp, 0x1ffc, &val);
	is_hex(val, 0x1122334455667788, "and big");
	is_int(mt_space_store_be64(sp, 0x1ffd, 0xa1a2a3a4a5a6a7a8), MT_OK,
	    "a value across two regions is stored");
	is_read(sp, 0x1ffc, 10, "11a1a2a3a4a5a6a7a800", "in address order");
	mt_space_store_u8(sp, 0x1ffe, 0xb1);
	mt_space_store_le16(sp, 0x1fff, 0xb2b3);
	mt_space_store_be16(sp, 0x2002, 0xb4b5);
	mt_space_store_le32(sp, 0x2004, 0xb6b7b8b9);
	is_read(sp, 0x1ffd, 11, "a1b1b3b2a5b4b5b9b8b7b6", "in all sizes");
	mt_space_store_be32(sp, 0x2004, 0xb6b7b8b9);
	mt_space_store_le64(sp, 0x2008, 0x0102030405060708);
	is_read(sp, 0x2004, 12, "b6b7b8b90807060504030201", "and orders");

	is_int(mt_space_load(sp, 0xffe, 4, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_DECODE, "a value that begins in a hole");
	is_int(mt_space_load(sp, 0x2ffe, 4, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_DECODE, "or ends in one tells so");
	is_hex(val, 0, "and has 0 there");
	mt_space_store_u8(sp, MT_LAST_MAX, 0x99);
	mt_space_store_u8(sp, 0, 0x77);
	is_int(mt_space_load(sp, MT_LAST_MAX, 2, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_DECODE, "a value that reaches past 2^64 tells so");
	is_hex(val, 0x9900, "and has 0 there");
	memset(bytes, 0xcc, sizeof(bytes));
	is_int(mt_space_write(sp, MT_LAST_MAX - 1, bytes, 8, MT_ATTRS_NONE),
	    MT_DECODE, "a write that reaches past 2^64 tells so");
	memset(bytes, 0x66, sizeof(bytes));
	is_int(mt_space_read(sp, MT_LAST_MAX - 3, bytes, 8, MT_ATTRS_NONE),
	    MT_DECODE, "as does a read");
	is_mem(bytes, "\0\0\xcc\xcc\0\0\0\0", 8, "which has 0 there");
	works(mt_space_read(sp, MT_LAST_MAX - 3, bytes, 4, MT_ATTRS_NONE),
	    "the very last bytes are fine");
	t_end_space(t, sp, root);
}

/* Memory at the end of the addresses does not go on at their beginning. */
static void
test_wrap(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE,
	    .valid = { 1, 8, true }, .impl = { 1, 8, true });
	struct t_dev bytes = T_DEV(.valid = { 1, 1, false });
	struct mt_region *root, *lo;
	struct mt_space *sp;

	root = t_container(t, "root", T_ALL);
	lo = t_add(root, 0, 0, t_ram(t, "lo", 0x1000));
	t_add(root, MT_LAST_MAX - 1, 0, t_io(t, "hi", 0x1000, &dev));
	memset(mt_region_ptr(lo), 0xbb, 0x1000);
	sp = t_space(root);
	is_read(sp, MT_LAST_MAX - 1, 2, "0001", "a device at the end is read");
	is_read(sp, MT_LAST_MAX, 1, "01", "to the last byte");
	dev.ncalls = 0;
	is_int(mt_space_write(sp, MT_LAST_MAX, "abcdefgh", 8, MT_ATTRS_NONE),
	    MT_DECODE, "a write past the end tells so");
	is_read(sp, 0, 8, "bbbbbbbbbbbbbbbb", "and writes nothing at 0");
	ok(!mt_space_valid(sp, MT_LAST_MAX, 2, false, MT_ATTRS_NONE),
	    "nor is that valid");
	t_add(root, MT_LAST_MAX - 7, 1, t_io(t, "bytes", 8, &bytes));
	ok(mt_space_valid(sp, MT_LAST_MAX - 7, 8, false, MT_ATTRS_NONE),
	    "but up to the last byte it is");
	is_read(sp, MT_LAST_MAX - 7, 8, "0001020304050607", "to be read");
	is_int(mt_space_set(sp, MT_LAST_MAX, 0xcc, 1024, MT_ATTRS_NONE),
	    MT_DECODE, "nor can it be set");
	is_int(mt_space_write_rom(sp, MT_LAST_MAX, "abcdefgh", 8,
	    MT_ATTRS_NONE), MT_DECODE, "nor written as ROM");
	is_read(sp, 0, 8, "bbbbbbbbbbbbbbbb", "all the same");
	t_end_space(t, sp, root);
}

static void
test_readonly(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_attrs debug = { .debug = 1 };
	struct mt_region *root, *c, *ram, *rom, *romd, *a;
	struct mt_space *sp;

	root = t_container(t, "root", 0x10000);
	c = t_add(root, 0x1000, 0, t_container(t, "c", 0x1000));
	ram = t_add(c, 0, 0, t_ram(t, "ram", 0x1000));
	a = t_add(root, 0x2000, 0, t_alias(t, "a", ram, 0, 0x1000));
	rom = t_add(root, 0x3000, 0, t_rom(t, "rom", 0x1000));
	romd = t_add(root, 0x4000, 0, t_romd(t, "romd", 0x1000, &dev));
	memcpy(mt_region_ptr(rom), "rom!", 4);
	memcpy(mt_region_ptr(romd), "romd", 4);
	sp = t_space(root);

	must(mt_region_set_readonly(a, true) == 0);
	is_int(mt_space_write(sp, 0x2000, "abcd", 4, MT_ATTRS_NONE),
	    MT_DECODE, "RAM is not written through a read-only alias");
	is_read(sp, 0x2000, 4, "00000000", "it is read");
	works(mt_space_write(sp, 0x1000, "abcd", 4, MT_ATTRS_NONE),
	    "elsewhere it is written");
	is_read(sp, 0x2000, 4, "61626364", "which the alias shows");
	must(mt_region_set_readonly(c, true) == 0);
	is_int(mt_space_write(sp, 0x1000, "efgh", 4, MT_ATTRS_NONE),
	    MT_DECODE, "but not through a read-only container");
	is_int(mt_space_store_le32(sp, 0x1000, 1), MT_DECODE,
	    "nor by a store");
	is_int(mt_space_set(sp, 0x1000, 1, 4, MT_ATTRS_NONE), MT_DECODE,
	    "nor set");
	must(mt_region_set_readonly(c, false) == 0);
	must(mt_region_set_readonly(ram, true) == 0);
	is_int(mt_space_write(sp, 0x1000, "efgh", 4, MT_ATTRS_NONE),
	    MT_DECODE, "nor if it is read-only itself");
	is_read(sp, 0x1000, 4, "61626364", "and keeps its bytes");
	must(mt_region_set_readonly(ram, false) == 0);

	is_read(sp, 0x3000, 4, "726f6d21", "ROM is read");
	is_int(mt_space_write(sp, 0x3000, "abcd", 4, MT_ATTRS_NONE),
	    MT_DECODE, "and not written");
	is_read(sp, 0x3000, 4, "726f6d21", "at all");
	works(mt_space_write(sp, 0x3000, "dbg!", 4, debug),
	    "except by a debugger");
	is_read(sp, 0x3000, 4, "64626721", "who can");
	works(mt_space_write_rom(sp, 0x3000, "ROM!", 4, MT_ATTRS_NONE),
	    "or who says so");
	is_read(sp, 0x3000, 4, "524f4d21", "and can too");

	is_read(sp, 0x4000, 4, "726f6d64", "a ROM device is read in place");
	is_calls(&dev, "", "in ROM mode");
	works(mt_space_write(sp, 0x4000, "ab", 2, MT_ATTRS_NONE),
	    "and written");
	is_calls(&dev, "w 0/2=6261", "by a call");
	is_read(sp, 0x4000, 4, "726f6d64", "which leaves its memory alone");
	works(mt_space_write_rom(sp, 0x4000, "RO", 2, MT_ATTRS_NONE),
	    "that can be written");
	is_read(sp, 0x4000, 4, "524f6d64", "on demand");
	must(mt_region_set_rom_mode(romd, false) == 0);
	is_read(sp, 0x4000, 4, "00010203", "out of it");
	works(mt_space_write(sp, 0x4004, "a", 1, MT_ATTRS_NONE), "all");
	is_calls(&dev, "r 0/4, w 4/1=61", "goes by calls");
	works(mt_space_write_rom(sp, 0x4000, "xy", 2, MT_ATTRS_NONE),
	    "but its memory");
	must(mt_region_set_rom_mode(romd, true) == 0);
	is_read(sp, 0x4000, 4, "78796d64", "is still there");
	t_end_space(t, sp, root);
}

static void
test_write_rom(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct world w = begin(&dev, 4);
	struct mt_region *rom;

	rom = t_add(w.root, IO - 4, 0, t_rom(w.t, "rom", 4));
	is_int(mt_space_write_rom(w.sp, IO - 4, "abcdefghij", 10,
	    MT_ATTRS_NONE), MT_DECODE, "a device is no memory");
	is_calls(&dev, "", "and not called");
	is_mem(mt_region_ptr(rom), "abcd", 4, "what is before is written");
	is_mem(mt_region_ptr(w.ram), "ij\xaa", 3, "what is behind too");
	is_int(mt_space_write_rom(w.sp, IO - 8, "abcdABCD", 8, MT_ATTRS_NONE),
	    MT_DECODE, "nor is a hole");
	is_mem(mt_region_ptr(rom), "ABCD", 4, "behind which it goes on");
	works(mt_space_write_rom(w.sp, 0, NULL, 0, MT_ATTRS_NONE),
	    "nothing is fine");
	works(mt_space_write_rom(w.sp, IO - 2, "yz", 2, MT_ATTRS_NONE),
	    "a part of it");
	is_mem(mt_region_ptr(rom), "AByz", 4, "is written where it is");
	end(&w);
}

static void
test_set(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct world w = begin(&dev, 8);
	uint8_t want[0x2000];
	struct mt_region *big;

	works(mt_space_set(w.sp, IO + 6, 0x5a, 5, MT_ATTRS_NONE),
	    "bytes are set");
	is_calls(&dev, "w 6/2=5a5a", "in a device");
	is_read(w.sp, IO + 8, 4, "5a5a5aaa", "and in memory");
	works(mt_space_set(w.sp, IO, 1, 0, MT_ATTRS_NONE), "none are");
	is_calls(&dev, "", "not");
	is_int(mt_space_set(w.sp, 0xf000, 1, 4, MT_ATTRS_NONE), MT_DECODE,
	    "a hole cannot be set");
	big = t_add(w.root, 0x4000, 0, t_ram(w.t, "big", sizeof(want)));
	works(mt_space_set(w.sp, 0x4003, 0x77, sizeof(want) - 5,
	    MT_ATTRS_NONE), "any number of them");
	memset(want, 0, sizeof(want));
	memset(want + 3, 0x77, sizeof(want) - 5);
	is_mem(mt_region_ptr(big), want, sizeof(want), "just these");
	end(&w);
}

/* What filling is, without its short cuts. */
static enum mt_result
set_by_writes(struct mt_space *sp, mt_addr addr, uint8_t byte, size_t len,
    struct mt_attrs attrs)
{
	uint8_t chunk[512];
	unsigned int res = MT_OK;
	size_t step;

	memset(chunk, byte, sizeof(chunk));
	for (; len != 0; addr += step, len -= step) {
		step = sizeof(chunk) - addr % sizeof(chunk);
		if (step > len)
			step = len;
		res |= mt_space_write(sp, addr, chunk, step, attrs);
	}
	return ((enum mt_result)res);
}

#define PIECES	12
#define AT_MOST	0x280		/* bytes of each */

/* One thing after the other, at odd addresses, with holes between them. */
static struct mt_space *
random_space(struct mt_topology *t, struct t_dev *devs, uint64_t *seed,
    struct mt_region **mem)
{
	struct mt_region *root = t_container(t, "root", 0x10000), *r;
	struct mt_space *sp;
	mt_addr at = 0, size;
	unsigned int i;

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < PIECES; i++) {
		size = 1 + t_below(seed, AT_MOST);
		switch (t_below(seed, 8)) {
		case 0:
			r = t_rom(t, "rom", size);
			break;
		case 1:
			r = t_romd(t, "romd", size, &devs[t_below(seed, 3)]);
			break;
		case 2:
		case 3:
			r = t_io(t, "io", size, &devs[t_below(seed, 3)]);
			break;
		case 4:
			r = t_reserved(t, "reserved", size);
			break;
		default:
			r = t_ram(t, "ram", size);
			break;
		}
		mem[i] = t_add(root, at, 0, r);
		at += size;
		if (t_below(seed, 3) == 0)
			at += 1 + t_below(seed, AT_MOST);
	}
	must(mt_topology_commit(t) == 0);
	sp = t_space(root);
	mt_region_put(root);
	return (sp);
}

/* All that has been written since the last look, by calls and in memory. */
static const char *
written(struct t_dev *devs, struct mt_region **mem)
{
	static char text[2][PIECES * AT_MOST * 2 + 4 * T_TEXT];
	static unsigned int turn;
	char *s = text[turn++ % 2], *at = s;
	unsigned int i, n;
	uint8_t *p;

	for (i = 0; i < 3; i++) {
		n = devs[i].ncalls;
		at += sprintf(at, "%u: %s; ", n, t_calls(&devs[i]));
	}
	for (i = 0; i < PIECES; i++) {
		if ((p = mt_region_ptr(mem[i])) == NULL)
			continue;
		for (n = 0; n <= mt_region_last(mem[i]); n++) {
			at += sprintf(at, "%02x", p[n]);
			p[n] = 0;
		}
		at += sprintf(at, " ");
	}
	return (s);
}

static void
test_set_alike(void)
{
	struct t_dev devs[3] = { T_DEV(.endian = MT_LITTLE),
	    T_DEV(.valid = { 1, 8, true }, .impl = { 1, 2, true }),
	    T_DEV(.qemu_exact = true, .valid = { 1, 4, false }) };
	uint64_t seed = t_env("T_SEED", 1);
	struct mt_region *mem[PIECES];
	struct mt_topology *t;
	struct mt_space *sp;
	unsigned int i, j, differ = 0;
	enum mt_result res;
	mt_addr addr;
	size_t len;
	const char *one;

	for (i = 0; i < 40; i++) {
		t = t_topology();
		sp = random_space(t, devs, &seed, mem);
		(void)written(devs, mem);
		for (j = 0; j < 20; j++) {
			struct mt_attrs attrs = {
				.memory_only = t_below(&seed, 8) == 0,
				.debug = t_below(&seed, 8) == 0,
			};

			addr = t_below(&seed, PIECES * AT_MOST);
			len = 1 + t_below(&seed, t_below(&seed, 2) == 0 ? 16 :
			    0xc00);
			res = mt_space_set(sp, addr, 0x5a, len, attrs);
			one = written(devs, mem);
			differ += res != set_by_writes(sp, addr, 0x5a, len,
			    attrs);
			differ += strcmp(one, written(devs, mem)) != 0;
		}
		must(mt_space_destroy(sp) == 0);
		must(mt_topology_destroy(t) == 0);
	}
	is_int(differ, 0, "filling is a series of writes for who is written "
	    "to");
}

static void
test_set_hole(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct world w = begin(&dev, 8);
	struct mt_region *last;

	must(mt_region_resize(w.root, MT_LAST_MAX) == 0);
	last = t_add(w.root, (mt_addr)1 << 60, 0, t_ram(w.t, "last", 8));
	is_int(mt_space_set(w.sp, 0x100000, 7, (size_t)1 << 59,
	    MT_ATTRS_NONE), MT_DECODE, "a hole is passed at once");
	is_int(mt_space_set(w.sp, 0x100001, 7, ((size_t)1 << 60) - 0x100001 +
	    4, MT_ATTRS_NONE), MT_DECODE, "up to what is behind it");
	is_mem(mt_region_ptr(last), "\7\7\7\7\0", 5, "which is set");
	t_add(w.root, 0x100000, 0, t_reserved(w.t, "reserved",
	    (mt_addr)1 << 59));
	is_int(mt_space_set(w.sp, 0x100001, 7, (size_t)1 << 58,
	    MT_ATTRS_NONE), MT_DECODE, "so is what is not to be written");
	end(&w);
}

static void
test_attrs(void)
{
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_attrs attrs = { .memory_only = 1 };
	struct world w = begin(&dev, 0x100);
	uint64_t val;
	uint8_t buf[8];

	works(mt_space_read(w.sp, IO + 0x100, buf, 8, attrs),
	    "memory only is fine for memory");
	memset(buf, 0x55, sizeof(buf));
	is_int(mt_space_read(w.sp, IO, buf, 4, attrs), MT_DENIED,
	    "denied for a device");
	is_mem(buf, "\0\0\0\0\x55", 5, "which reads as 0");
	is_int(mt_space_write(w.sp, IO, buf, 4, attrs), MT_DENIED,
	    "nor is it written");
	is_int(mt_space_load(w.sp, IO, 4, MT_LITTLE, &val, attrs), MT_DENIED,
	    "nor loaded");
	is_int(mt_space_store(w.sp, IO, 4, MT_LITTLE, 1, attrs), MT_DENIED,
	    "nor stored");
	is_int(mt_space_read(w.sp, IO + 0xfc, buf, 8, attrs), MT_DENIED,
	    "nor in part");
	is_mem(buf, "\0\0\0\0\xaa\xaa\xaa\xaa", 8,
	    "but the rest is memory and read");
	is_int(mt_space_read(w.sp, 0x8000, buf, 4, attrs), MT_DECODE,
	    "a hole is a hole");
	t_add(w.root, 0x9000, 0, t_rom(w.t, "rom", 0x100));
	is_int(mt_space_write(w.sp, 0x9000, buf, 4, attrs), MT_DECODE,
	    "and ROM is memory, though it is not written");
	ok(!mt_space_valid(w.sp, IO, 4, false, attrs), "nor is it valid");
	ok(mt_space_valid(w.sp, IO + 0x100, 4, true, attrs), "memory is");
	is_calls(&dev, "", "and the device was not called");
	end(&w);
}

/* A device that uses the bus it is on, and then takes itself away. */
struct master {
	struct world *w;
	int depth;
	enum mt_result res;
	int del;
	struct mt_mapping map;
	int mapped;
};

static enum mt_result
master_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct master *m = arg;
	uint8_t buf[2] = { 0, 0 };

	(void)size;
	if (off == 0) {
		m->res = mt_space_read(m->w->sp, IO + 1, buf, 2, attrs);
		*val = buf[0];
	} else if (off == 1) {
		m->depth++;
		m->mapped = mt_dma_map(m->w->sp, IO + 0x100, 4, MT_DMA_READ,
		    attrs, &m->map);
		*val = 0x42;
	} else {
		m->del = mt_region_del(m->w->io);
		*val = 0x43;
	}
	return (MT_OK);
}

static void
test_reentry(void)
{
	static const struct mt_io_ops ops = { .read = master_read,
	    .valid = { 1, 1, false } };
	struct master m = { .del = -1, .mapped = -1 };
	struct world w;
	int owner = 0;

	w.t = t_topology();
	m.w = &w;
	w.root = t_container(w.t, "root", 0x10000);
	must((w.io = mt_region_create_io(w.t, "io", 0xff, &ops, &m)) != NULL);
	must(mt_region_set_owner(w.io, &owner, t_put) == 0);
	t_add(w.root, IO, 0, w.io);
	w.ram = t_add(w.root, IO + 0x100, 0, t_ram(w.t, "ram", 0x100));
	w.sp = t_space(w.root);
	is_read(w.sp, IO, 1, "42", "a callback may access its own space");
	is_int(m.res, MT_OK, "and itself");
	is_int(m.del, 0, "and take itself out of the tree");
	is_int(m.mapped, 0, "and map memory");
	is_view(w.sp, "1100-11ff ram+0", "which is seen");
	is_int(t_puts_of(w.t, &owner), 1, "and goes when the access is over");
	works(mt_dma_unmap(&m.map, 0), "what was mapped");
	end(&w);
}

int
main(void)
{
	test_cut();
	test_write();
	test_end();
	test_end_covered();
	test_end_widened();
	test_end_exact();
	test_errors();
	test_accepts();
	test_typed();
	test_typed_parts();
	test_typed_memory();
	test_wrap();
	test_readonly();
	test_write_rom();
	test_set();
	test_set_alike();
	test_set_hole();
	test_attrs();
	test_reentry();
	return (done());
}
