/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* What a client answers a server that reads and writes its memory. */

#include "t/script.h"

#define DENIED	0x10u		/* registers: such accesses fail */
#define NOTHING	0x20u
#define BROKEN	0x30u
#define DEPTH	4u		/* of serving inside of serving */

static enum mt_result
result_at(mt_addr off)
{
	return (off == DENIED ? MT_DENIED : off == NOTHING ? MT_DECODE :
	    off == BROKEN ? MT_DEVICE : MT_OK);
}

static enum mt_result
reg_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)attrs;
	*val = 0;
	return (result_at(off));
}

static enum mt_result
reg_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)val, (void)attrs;
	return (result_at(off));
}

/* --- results -------------------------------------------------------------- */

static const struct ask {
	const char *name;
	bool is_write;
	uint64_t addr, count;
	int want;			/* errno */
} asks[] = {
	{ "a read of memory", false, 0x1000, 64, 0 },
	{ "a write to memory", true, 0x1000, 64, 0 },
	{ "a read of ROM", false, 0x2000, 64, 0 },
	{ "a write to ROM", true, 0x2000, 64, EACCES },
	{ "a read of read-only memory", false, 0x3000, 8, 0 },
	{ "a write to read-only memory", true, 0x3000, 8, EACCES },
	{ "a write that ends in ROM", true, 0x1ff0, 32, EACCES },
	{ "a read that ends in ROM", false, 0x1ff0, 32, 0 },
	{ "a read of a hole", false, 0x8000, 64, EFAULT },
	{ "a write to a hole", true, 0x8000, 8, EFAULT },
	{ "a read that ends in a hole", false, 0x5ff0, 32, EFAULT },
	{ "a write that ends in a hole", true, 0x5ff0, 32, EFAULT },
	{ "a write to a hole and then ROM", true, 0x11ff0, 32, EFAULT },
	{ "a read of a register", false, 0x4000, 4, 0 },
	{ "a write to a register", true, 0x4000, 4, 0 },
	{ "a read that is denied", false, 0x4000 + DENIED, 4, EACCES },
	{ "a write that is denied", true, 0x4000 + DENIED, 4, EACCES },
	{ "a read that is not decoded", false, 0x4000 + NOTHING, 4, EFAULT },
	{ "a write that is not decoded", true, 0x4000 + NOTHING, 4, EFAULT },
	{ "a read that fails", false, 0x4000 + BROKEN, 4, EIO },
	{ "a write that fails", true, 0x4000 + BROKEN, 4, EIO },
	{ "a read that wraps", false, -(uint64_t)8, 16, EINVAL },
	{ "a write that wraps", true, -(uint64_t)8, 16, EINVAL },
	{ "a read of more than a message", false, 0x1000,
	    VD_MAX_DATA_XFER + 1, EINVAL },
};

static int got[T_COUNT(asks)];

/* Send one, and take what comes: its errno, or -1. */
static int
try(struct script *s, const struct ask *k)
{
	struct {
		struct vd_dma_access a;
		uint8_t data[64];
	} m = { { k->addr, k->count }, { 0 } };
	size_t len = sizeof(m.a) + (k->is_write ? k->count : 0);
	const struct vd_hdr hdr = { 77, k->is_write ? VD_CMD_DMA_WRITE :
	    VD_CMD_DMA_READ, (uint32_t)(sizeof(hdr) + len), 0, 0 };

	if (!put(s, &hdr, &m, len, 0) || !get(s) || s->hdr.id != 77 ||
	    s->hdr.cmd != hdr.cmd || (s->hdr.flags & VD_TYPE_MASK) !=
	    VD_TYPE_REPLY)
		return (-1);
	return (s->hdr.flags & VD_ERROR ? (int)s->hdr.error : 0);
}

static void
ask_all(struct script *s)
{
	struct vd_hdr first;

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	first = s->hdr;
	for (size_t i = 0; i < T_COUNT(asks); i++)
		got[i] = try(s, &asks[i]);
	s->hdr = first;
	if (answer_well(s))
		serve(s);
}

static void
test_errors(void)
{
	static const struct mt_io_ops ops = { .read = reg_read,
	    .write = reg_write };
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", T_ALL), *ro, *io;
	struct script *s = script_new(ask_all, NULL);
	struct mt_space *sp = t_space(root);
	struct vd_device_info info;
	struct vd_client *c;

	must((io = mt_region_create_io(t, "io", MT_SIZE(0x1000), &ops,
	    NULL)) != NULL);
	ro = t_ram(t, "read-only", 0x1000);
	must(mt_region_set_readonly(ro, true) == 0);
	t_add(root, 0x1000, 0, t_ram(t, "ram", 0x1000));
	t_add(root, 0x2000, 0, t_rom(t, "rom", 0x1000));
	t_add(root, 0x3000, 0, ro);
	t_add(root, 0x4000, 0, io);
	t_add(root, 0x5000, 0, t_ram(t, "before a hole", 0x1000));
	t_add(root, 0x12000, 0, t_rom(t, "behind a hole", 0x1000));
	c = script_connect(s);
	vd_client_set_dma(c, sp);
	works(vd_client_device_info(c, &info), "a server asks");
	ok(script_stop(s, c), "and leaves no descriptor");
	for (size_t i = 0; i < T_COUNT(asks); i++)
		is_int(got[i], asks[i].want, "%s", asks[i].name);
	t_end_space(t, sp, root);
}

/* --- depth ---------------------------------------------------------------- */

/* A register that cannot be written without asking the server. */
static enum mt_result
asks_back(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct vd_client **c = arg;
	struct vd_device_info info;

	(void)off, (void)size, (void)val, (void)attrs;
	return (vd_client_device_info(*c, &info) == 0 ? MT_OK : MT_DEVICE);
}

static unsigned int depth;	/* of calls, before one is refused */
static int refused, answered;

/* Answer each question with a write that leads to the next one. */
static void
ask_ever_deeper(struct script *s)
{
	const struct {
		struct vd_dma_access a;
		uint32_t val;
	} __attribute__((packed)) w = { { 0x1000, 4 }, 1 };
	const struct vd_hdr hdr = { 77, VD_CMD_DMA_WRITE,
	    sizeof(hdr) + sizeof(w), 0, 0 };
	struct vd_hdr calls[2 * DEPTH];

	if (!get(s) || !answer_version(s))
		return;
	while (get(s) && s->hdr.cmd == VD_CMD_DEVICE_GET_INFO &&
	    depth < T_COUNT(calls)) {
		calls[depth++] = s->hdr;
		if (!put(s, &hdr, &w, sizeof(w), 0))
			return;
	}
	refused = s->hdr.flags & VD_ERROR ? (int)s->hdr.error : 0;
	for (unsigned int i = depth; i-- > 0;) {
		s->hdr = calls[i];
		if (!answer_well(s))
			return;
		/* The write that this call was made for. */
		if (i > 0 && get(s) && s->hdr.cmd == VD_CMD_DMA_WRITE)
			answered += (s->hdr.flags & VD_ERROR) == 0;
	}
	serve(s);
}

static void
test_depth(void)
{
	static const struct mt_io_ops ops = { .write = asks_back };
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", T_ALL), *io;
	struct script *s = script_new(ask_ever_deeper, NULL);
	struct mt_space *sp = t_space(root);
	struct vd_device_info info;
	struct vd_client *c = NULL;

	must((io = mt_region_create_io(t, "io", MT_SIZE(0x1000), &ops,
	    &c)) != NULL);
	t_add(root, 0x1000, 0, io);
	c = script_connect(s);
	vd_client_set_dma(c, sp);
	works(vd_client_device_info(c, &info),
	    "a server that asks inside of what it asks");
	works(vd_client_device_info(c, &info), "may ask on");
	ok(script_stop(s, c), "and leaves no descriptor");
	is_int(depth, 1 + DEPTH, "it may do so %u deep", DEPTH);
	is_int(refused, EDEADLK, "and is refused more");
	is_int(answered, DEPTH, "the others are answered");
	t_end_space(t, sp, root);
}

int
main(void)
{
	test_errors();
	test_depth();
	return (done());
}
