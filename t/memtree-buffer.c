/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Callbacks that take whole buffers: when they are called, and with what. */

#include "t/util.h"

#define IO	0x1000		/* where the device is */
#define SIZE	0x2000		/* how long it is */
#define OVER	(IO + 0x1800)	/* a RAM that is in front of it */

/* A device of bytes, that writes its calls down as text. */
struct dev {
	struct mt_io_ops ops;
	uint8_t bytes[SIZE];
	char calls[512];
	struct mt_attrs attrs;	/* of the last call */
	enum mt_result answer;
};

static enum mt_result
one_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct dev *d = arg;

	(void)attrs;
	t_append(d->calls, " r %" PRIx64 "/%u", off, size);
	memcpy(val, d->bytes + off, size);
	return (MT_OK);
}

static enum mt_result
one_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct dev *d = arg;

	(void)attrs;
	t_append(d->calls, " w %" PRIx64 "/%u", off, size);
	memcpy(d->bytes + off, &val, size);
	return (MT_OK);
}

static enum mt_result
buf_read(void *arg, mt_addr off, void *buf, size_t len, struct mt_attrs attrs)
{
	struct dev *d = arg;

	must(len != 0 && off < SIZE && len <= SIZE - off);
	t_append(d->calls, " R %" PRIx64 "/%zx", off, len);
	d->attrs = attrs;
	memcpy(buf, d->bytes + off, len);
	return (d->answer);
}

static enum mt_result
buf_write(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	struct dev *d = arg;

	must(len != 0 && off < SIZE && len <= SIZE - off);
	t_append(d->calls, " W %" PRIx64 "/%zx", off, len);
	d->attrs = attrs;
	memcpy(d->bytes + off, buf, len);
	return (d->answer);
}

static bool
never(void *arg, mt_addr off, unsigned int size, bool is_write,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)is_write;
	(void)attrs;
	return (false);
}

static const struct mt_io_ops both_ops = {
	.read = one_read,
	.write = one_write,
	.endian = MT_HOST,
	.read_buf = buf_read,
	.write_buf = buf_write,
};

static const struct mt_io_ops buf_ops = {
	.endian = MT_BIG,
	.read_buf = buf_read,
	.write_buf = buf_write,
	.accepts = never,
	.valid = { 4, 4, false },
};

struct world {
	struct mt_topology *t;
	struct mt_region *root, *io, *ram;
	struct mt_space *sp;
	struct dev dev;
	uint8_t buf[2 * SIZE];
};

static struct world *
begin(const struct mt_io_ops *ops)
{
	struct world *w = calloc(1, sizeof(*w));
	size_t i;

	must(w != NULL);
	w->dev.ops = *ops;
	for (i = 0; i < SIZE; i++)
		w->dev.bytes[i] = (uint8_t)(i * 7 + (i >> 8));
	w->t = t_topology();
	w->root = t_container(w->t, "root", 0x10000);
	w->io = t_add(w->root, IO, 0, t_io(w->t, "io", SIZE, &w->dev));
	w->ram = t_add(w->root, OVER, 1, t_ram(w->t, "ram", 0x100));
	w->sp = t_space(w->root);
	return (w);
}

static void
end(struct world *w)
{
	t_end_space(w->t, w->sp, w->root);
	free(w);
}

/* The calls since the last look. */
static const char *
calls(struct world *w)
{
	char *s = t_text();

	t_append(s, "%s", w->dev.calls);
	w->dev.calls[0] = '\0';
	return (s);
}

static enum mt_result
get(struct world *w, mt_addr addr, size_t len)
{
	memset(w->buf, 0xee, sizeof(w->buf));
	return (mt_space_read(w->sp, addr, w->buf, len, MT_ATTRS_NONE));
}

static enum mt_result
put(struct world *w, mt_addr addr, size_t len)
{
	memset(w->buf, 0x5a, sizeof(w->buf));
	return (mt_space_write(w->sp, addr, w->buf, len, MT_ATTRS_NONE));
}

static void
test_whole(void)
{
	struct mt_attrs attrs = { .requester_id = 7, .user = 1 };
	struct world *w = begin(&both_ops);

	is_int(get(w, IO, 0x1000), MT_OK, "4 KiB");
	is_str(calls(w), " R 0/1000", "are one call");
	is_mem(w->buf, w->dev.bytes, 0x1000, "with all the bytes");
	is_int(put(w, IO + 3, 9), MT_OK, "9 bytes at an odd offset");
	is_str(calls(w), " W 3/9", "are one, too");
	is_mem(w->dev.bytes + 3, w->buf, 9, "and arrive");
	get(w, IO, 8);
	is_str(calls(w), " r 0/4 r 4/4", "8 bytes are single values");
	put(w, IO + 1, 3);
	is_str(calls(w), " w 1/1 w 2/2", "so are fewer");
	mt_space_read(w->sp, IO, w->buf, 16, attrs);
	is_int(w->dev.attrs.requester_id + w->dev.attrs.user, 8,
	    "the attributes come along");
	(void)calls(w);

	is_int(get(w, OVER - 16, 0x120), MT_OK, "what is in front");
	is_str(calls(w), " R 17f0/10 R 1900/10", "cuts a buffer in two");
	end(w);
}

static void
test_edges(void)
{
	struct world *w = begin(&both_ops);

	is_int(get(w, IO + SIZE - 12, 32), MT_DECODE,
	    "a buffer that goes on behind the region");
	is_str(calls(w), " R 1ff4/c", "is cut at its end");
	is_mem(w->buf, w->dev.bytes + SIZE - 12, 12, "has what is there");
	is_str(t_hex(w->buf + 12, 4), "00000000", "and zeros behind");
	get(w, OVER - 4, 32);
	is_str(calls(w), " r 17fc/4", "a short piece of it is a value");

	must(mt_region_resize(w->io, MT_SIZE(0x20)) == 0);
	get(w, IO, 64);
	is_str(calls(w), " R 0/20", "a region that was resized, too");
	is_int(mt_space_valid(w->sp, IO, 0x20, false, MT_ATTRS_NONE), true,
	    "all of it can be read");
	is_int(mt_space_valid(w->sp, IO, 0x21, false, MT_ATTRS_NONE), false,
	    "and no more");
	end(w);
}

/* A device with nothing else, whose widths and accepts forbid everything. */
static void
test_only(void)
{
	struct world *w = begin(&buf_ops);
	uint64_t val;
	uint8_t u8;

	is_int(mt_space_load_u8(w->sp, IO + 5, &u8), MT_OK,
	    "without another callback");
	is_str(calls(w), " R 5/1", "a byte is a buffer");
	is_hex(u8, w->dev.bytes[5], "which is right");
	is_int(mt_space_store(w->sp, IO + 1, 8, MT_LITTLE,
	    0x1122334455667788, MT_ATTRS_NONE), MT_OK, "so is a value");
	is_str(calls(w), " W 1/8", "in one");
	is_str(t_hex(w->dev.bytes + 1, 8), "8877665544332211",
	    "in the byte order that was asked for");
	is_int(mt_space_load(w->sp, IO + 1, 8, MT_BIG, &val, MT_ATTRS_NONE),
	    MT_OK, "or another");
	is_hex(val, 0x8877665544332211, "as it is");
	ok(mt_space_valid(w->sp, IO + 1, 3, true, MT_ATTRS_NONE),
	    "which is valid");
	(void)calls(w);
	must(mt_space_set(w->sp, IO + 0x10, 9, 0x20, MT_ATTRS_NONE) == 0);
	is_str(calls(w), " W 10/20", "filling is a buffer");
	is_hex(w->dev.bytes[0x2f], 9, "with that byte");
	end(w);
}

/* Filling is one buffer where a write is, and keeps to single values, too. */
static void
test_set(void)
{
	struct world *w = begin(&both_ops);

	works(mt_space_set(w->sp, IO + 0x13, 9, 0xdd0, MT_ATTRS_NONE),
	    "filling");
	is_str(calls(w), " W 13/dd0", "is one buffer");
	is_hex(w->dev.bytes[0x12], 0x7e, "from the first");
	is_hex(w->dev.bytes[0x13] + w->dev.bytes[0xde2], 18, "to the last");
	works(mt_space_set(w->sp, IO + 0x1fc, 8, 8, MT_ATTRS_NONE),
	    "of a few");
	is_str(calls(w), " w 1fc/4 w 200/4", "it is values");
	end(w);
}

static void
test_one_way(void)
{
	static const struct mt_io_ops ops = { .read = one_read,
	    .write_buf = buf_write, .endian = MT_HOST };
	struct world *w = begin(&ops);

	get(w, IO, 12);
	is_str(calls(w), " r 0/4 r 4/4 r 8/4", "either can be alone");
	put(w, IO, 2);
	is_str(calls(w), " W 0/2", "either way");
	end(w);
}

static void
test_fails(void)
{
	struct world *w = begin(&both_ops);
	struct mt_attrs attrs = { .memory_only = 1 };

	w->dev.answer = MT_DEVICE;
	is_int(get(w, IO + SIZE - 16, 32), MT_DEVICE | MT_DECODE,
	    "an error is told beside others");
	is_str(t_hex(w->buf, 16), "00000000000000000000000000000000",
	    "what failed reads as zero");
	is_int(put(w, IO, 16), MT_DEVICE, "a write can fail");
	(void)calls(w);
	is_int(mt_space_read(w->sp, IO, w->buf, 16, attrs), MT_DENIED,
	    "only memory");
	is_str(calls(w), "", "is not asked for");
	end(w);
}

static void
test_bounce(void)
{
	struct world *w = begin(&both_ops);
	struct mt_attrs attrs = { .requester_id = 9 };
	struct mt_mapping m;

	works(mt_dma_map(w->sp, IO + 0x10, 0x1000, MT_DMA_READ | MT_DMA_WRITE,
	    attrs, &m), "a bounce buffer");
	is_str(calls(w), " R 10/1000", "is filled by one call");
	is_mem(m.ptr, w->dev.bytes + 0x10, 0x1000, "with what is there");
	memset(m.ptr, 3, 0x800);
	w->dev.attrs.requester_id = 0;
	works(mt_dma_unmap(&m, 0x800), "and written back");
	is_str(calls(w), " W 10/800", "by one");
	is_int(w->dev.attrs.requester_id, 9, "with the attributes");
	is_hex(w->dev.bytes[0x80f], 3, "up to what was used");
	ok(w->dev.bytes[0x810] != 3, "and no further");
	end(w);
}

static void
test_rom_device(void)
{
	struct world *w = begin(&both_ops);
	struct mt_region *rom;

	rom = t_add(w->root, 0x8000, 0, t_romd(w->t, "rom", 0x100, &w->dev));
	is_int(get(w, 0x8000, 64), MT_OK, "a ROM device in ROM mode");
	is_str(calls(w), "", "is read in place");
	put(w, 0x8000, 64);
	is_str(calls(w), " W 0/40", "and written by buffer");
	must(mt_region_set_rom_mode(rom, false) == 0);
	get(w, 0x8001, 64);
	is_str(calls(w), " R 1/40", "and out of it read so, too");
	end(w);
}

int
main(void)
{
	test_whole();
	test_edges();
	test_only();
	test_set();
	test_one_way();
	test_fails();
	test_bounce();
	test_rom_device();
	return (done());
}
