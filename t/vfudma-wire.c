/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Bytes to structs.  Every input ends where a page that must not be touched
 * begins, and every prefix of it is tried.
 */

#include <sys/mman.h>

#include <errno.h>

#include "libvfudma/internal.h"
#include "t/util.h"

static uint8_t *edge;		/* the first byte that must not be read */

static void
make_edge(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, 3 * page, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(p != MAP_FAILED);
	must(mprotect(p + 2 * page, page, PROT_NONE) == 0);
	edge = p + 2 * page;
}

/* Place bytes right before the edge. */
static const void *
at_edge(const void *buf, size_t len)
{
	return (memcpy(edge - len, buf, len));
}

/* Parse as the command named. */
static int
parse(enum vd_cmd cmd, const void *p, size_t len)
{
	union {
		struct vd_version version;
		struct vd_dma_map map;
		struct vd_dma_unmap unmap;
		struct vd_device_info device;
		struct vd_region_info region;
		struct vd_irq_info irq;
		struct vd_irq_set set;
		struct vd_region_access access;
		uint64_t count;
	} u;
	const uint8_t *data;
	const char *json;
	size_t data_len;

	switch (cmd) {
	case VD_CMD_VERSION:
		return (vd__wire_version(p, len, &u.version, &json,
		    &data_len));
	case VD_CMD_DMA_MAP:
		return (vd__wire_dma_map(p, len, &u.map));
	case VD_CMD_DMA_UNMAP:
		return (vd__wire_dma_unmap(p, len, &u.unmap));
	case VD_CMD_DEVICE_GET_INFO:
		return (vd__wire_device_info(p, len, &u.device));
	case VD_CMD_DEVICE_GET_REGION_INFO:
		return (vd__wire_region_info(p, len, &u.region));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		return (vd__wire_irq_info(p, len, &u.irq));
	case VD_CMD_DEVICE_SET_IRQS:
		return (vd__wire_irq_set(p, len, &u.set, &data, &data_len));
	case VD_CMD_REGION_READ:
		return (vd__wire_region_access(p, len, false, 4096, &u.access,
		    &data));
	case VD_CMD_REGION_WRITE:
		return (vd__wire_region_access(p, len, true, 4096, &u.access,
		    &data));
	case VD_CMD_REGION_WRITE_MULTI:
		return (vd__wire_write_multi(p, len, &u.count));
	default:
		return (-1);
	}
}

/*
 * A payload of len bytes parses; no prefix shorter than min does; and none in
 * between reads beyond its end.
 */
static void
try(enum vd_cmd cmd, const void *payload, size_t len, size_t min,
    const char *name)
{
	size_t i, good = 0, bad = 0;
	int err;

	for (i = 0; i <= len; i++) {
		err = parse(cmd, at_edge(payload, i), i);
		if (i < min && err != EINVAL)
			bad++;
		if (i == len && err == 0)
			good++;
	}
	ok(good == 1, "%s is read", name);
	is_int(bad, 0, "%s is refused at every shorter length", name);
}

static void
test_prefixes(void)
{
	struct { struct vd_version v; char json[3]; } version =
	    { { 0, 1 }, "{}" };
	const struct vd_dma_map map = { 32, 3, 0, 0x1000, 0x1000 };
	const struct vd_dma_unmap unmap = { 24, 0, 0x1000, 0x1000 };
	const struct vd_device_info device = { .argsz = 16 };
	const struct vd_region_info region = { .argsz = 32, .index = 8 };
	const struct vd_irq_info irq = { .argsz = 16, .index = 4 };
	struct { struct vd_irq_set s; uint8_t b[4]; } set =
	    { { 24, 0x22, 2, 0, 4 }, { 1, 0, 1, 0 } };
	struct { struct vd_region_access a; uint8_t b[8]; } access =
	    { { 0, 0, 8 }, { 0 } };
	struct { struct vd_write_multi m; struct vd_write_one w[3]; } multi =
	    { .m = { 3 } };

	try(VD_CMD_VERSION, &version, 7, 4, "VERSION");
	try(VD_CMD_DMA_MAP, &map, sizeof(map), 32, "DMA_MAP");
	try(VD_CMD_DMA_UNMAP, &unmap, sizeof(unmap), 24, "DMA_UNMAP");
	try(VD_CMD_DEVICE_GET_INFO, &device, 16, 16, "GET_INFO");
	try(VD_CMD_DEVICE_GET_REGION_INFO, &region, 32, 32, "REGION_INFO");
	try(VD_CMD_DEVICE_GET_IRQ_INFO, &irq, 16, 16, "GET_IRQ_INFO");
	try(VD_CMD_DEVICE_SET_IRQS, &set, 24, 20, "SET_IRQS");
	try(VD_CMD_REGION_READ, &access, 16, 16, "REGION_READ");
	try(VD_CMD_REGION_WRITE, &access, 24, 24, "REGION_WRITE");
	try(VD_CMD_REGION_WRITE_MULTI, &multi, 80, 80, "REGION_WRITE_MULTI");
}

static void
test_header(void)
{
	struct vd_hdr h = { 7, 9, 16, 0, 0 }, got;
	size_t i, more = 0;

	for (i = 0; i < sizeof(h); i++)
		more += vd__wire_hdr(at_edge(&h, i), i, 100, &got) == 0;
	is_int(more, 16, "a piece of a header asks for more");
	is_int(vd__wire_hdr(at_edge(&h, 16), 16, 100, &got), 1,
	    "a header of nothing else is whole");
	is_mem(&got, &h, sizeof(h), "it is copied");
	h.size = 15;
	fails(vd__wire_hdr(&h, 16, 100, &got), EPROTO, "size 15 is refused");
	h.size = 0;
	fails(vd__wire_hdr(&h, 16, 100, &got), EPROTO, "size 0 is refused");
	h.size = 101;
	fails(vd__wire_hdr(&h, 16, 100, &got), EPROTO,
	    "a size above the limit is refused");
	h.size = 100;
	is_int(vd__wire_hdr(&h, 16, 100, &got), 1, "the limit is not");

	h = (struct vd_hdr){ 0x1234, 5, 48, 0x10, 99 };
	vd__wire_error(&got, &h, ENOENT);
	is_int(got.id, 0x1234, "an error reply echoes the id");
	is_int(got.cmd, 5, "and the command");
	is_int(got.size, 16, "is a header only");
	is_hex(got.flags, 0x21, "of type reply, with the error bit");
	is_int(got.error, ENOENT, "and the errno");
	vd__wire_error(&got, &h, 0);
	is_int(got.error, EIO, "an error of 0 goes out as EIO");
	got.error = 0;
	is_int(vd__wire_errno(&got), EIO, "and is understood so");
	got.error = 1u << 31;
	is_int(vd__wire_errno(&got), EIO, "as is one beyond all errnos");
	got.error = 4095;
	is_int(vd__wire_errno(&got), 4095, "the last errno is taken");
}

static void
test_dma(void)
{
	static const struct {
		struct vd_dma_map m;
		int err;
		const char *name;
	} maps[] = {
		{ { 31, 3, 0, 0, 1 }, EINVAL, "argsz below the struct" },
		{ { 64, 3, 0, 0, 1 }, 0, "argsz above the struct" },
		{ { 32, 4, 0, 0, 1 }, EINVAL, "an unknown flag" },
		{ { 32, 0, 0, 0, 1 }, 0, "no flags" },
		{ { 32, 3, 0, 0, 0 }, EINVAL, "size 0" },
		{ { 32, 3, 0, UINT64_MAX, 1 }, 0, "the last byte of all" },
		{ { 32, 3, 0, UINT64_MAX, 2 }, EINVAL, "one byte beyond it" },
		{ { 32, 3, 0, 2, UINT64_MAX - 1 }, 0, "all but two" },
		{ { 32, 3, 0, 2, UINT64_MAX }, EINVAL, "a wrap" },
	};
	static const struct {
		struct vd_dma_unmap m;
		int err;
		const char *name;
	} unmaps[] = {
		{ { 23, 0, 0, 1 }, EINVAL, "argsz below the struct" },
		{ { 1u << 20, 0, 0, 1 }, 0, "argsz of 1 MiB" },
		{ { (1u << 20) + 1, 0, 0, 1 }, EINVAL, "argsz above it" },
		{ { 24, 0, 0, 0 }, EINVAL, "size 0" },
		{ { 24, 2, 0, 0 }, 0, "ALL" },
		{ { 24, 2, 1, 0 }, EINVAL, "ALL with an address" },
		{ { 24, 2, 0, 1 }, EINVAL, "ALL with a size" },
		{ { 24, 3, 0, 0 }, EINVAL, "ALL with a bitmap" },
		{ { 24, 4, 0, 1 }, EINVAL, "an unknown flag" },
		{ { 24, 0, UINT64_MAX, 2 }, EINVAL, "a wrap" },
	};
	size_t i;

	for (i = 0; i < T_COUNT(maps); i++)
		is_int(parse(VD_CMD_DMA_MAP, &maps[i].m, sizeof(maps[i].m)),
		    maps[i].err, "DMA_MAP with %s", maps[i].name);
	for (i = 0; i < T_COUNT(unmaps); i++)
		is_int(parse(VD_CMD_DMA_UNMAP, &unmaps[i].m,
		    sizeof(unmaps[i].m)), unmaps[i].err, "DMA_UNMAP with %s",
		    unmaps[i].name);
}

static void
test_access(void)
{
	struct { struct vd_region_access a; uint8_t b[8]; } w =
	    { { 0, 0, 8 }, { 0 } };
	struct vd_write_multi multi = { UINT64_MAX };
	struct vd_version v = { 0, 0 };
	char text[8] = { 0, 0, 0, 0, '{', '}', '\0', 'x' };
	const char *json;
	size_t len;

	is_int(parse(VD_CMD_REGION_WRITE, &w, 23), EINVAL,
	    "a write of less data than its count is refused");
	w.a.count = 7;
	is_int(parse(VD_CMD_REGION_WRITE, &w, 24), EINVAL,
	    "and one of more");
	is_int(parse(VD_CMD_REGION_READ, &w, 24), 0,
	    "a read with something after it is taken");
	w.a.count = 4097;
	is_int(parse(VD_CMD_REGION_READ, &w, 16), EINVAL,
	    "a count above the limit is refused");
	w.a.count = UINT32_MAX;
	is_int(parse(VD_CMD_REGION_WRITE, &w, 24), EINVAL,
	    "also far above it");
	w.a.count = 8;
	w.a.region = 9;
	is_int(parse(VD_CMD_REGION_READ, &w, 16), EINVAL,
	    "there is no region 9");
	is_int(parse(VD_CMD_REGION_WRITE_MULTI, &multi, 8), EINVAL,
	    "a count of writes that overflows is refused");

	is_int(vd__wire_version(at_edge(text, 8), 8, &v, &json, &len), 0,
	    "bytes after the NUL of the JSON are ignored");
	is_int(len, 2, "the JSON ends there");
	is_int(vd__wire_version(at_edge(text, 6), 6, &v, &json, &len), EINVAL,
	    "JSON without a NUL is refused");
	is_int(vd__wire_version(at_edge(text, 4), 4, &v, &json, &len), 0,
	    "no JSON at all is taken");
	ok(json == NULL, "and is NULL");
}

static void
test_region_info(void)
{
	struct vd_region_info info, got;
	struct vd_area area = { 0x1000, 0x1000 }, areas[4];
	uint8_t buf[VD__REGION_INFO_MAX];
	unsigned int nr;
	size_t len, i, odd = 0;

	info = (struct vd_region_info){ .argsz = 32, .flags = 3,
	    .size = 0x4000 };
	len = vd__wire_put_region_info(buf, &info, &area);
	memcpy(&got, buf, sizeof(got));
	is_int(len, 32, "an argsz of 32 gets no capability");
	is_int(got.argsz, 64, "but is told how much to ask for");
	is_hex(got.flags, 7, "and that the region can be mapped");
	is_int(got.cap_offset, 0, "there is no offset then");

	info = (struct vd_region_info){ .argsz = 4064, .flags = 3,
	    .size = 0x4000 };
	len = vd__wire_put_region_info(buf, &info, &area);
	memcpy(&got, buf, sizeof(got));
	is_int(len, 64, "an argsz of more gets it");
	is_hex(got.flags, 0xf, "with the flag");
	is_int(vd__wire_get_areas(at_edge(buf, len), len, areas, 4, &nr), 1,
	    "it is read back");
	is_int(nr, 1, "one area");
	is_mem(areas, &area, sizeof(area), "the same");
	for (i = 0; i < len; i++)
		odd += vd__wire_get_areas(at_edge(buf, i), i, areas, 4,
		    &nr) != -1 || nr != 0;
	is_int(odd, 0, "every shorter reply is refused");
	fails(vd__wire_get_areas(buf, len, areas, 0, &nr), EPROTO,
	    "as is one with more areas than fit");

	memcpy(&got, buf, sizeof(got));
	got.cap_offset = 8;
	memcpy(buf, &got, sizeof(got));
	fails(vd__wire_get_areas(buf, len, areas, 4, &nr), EPROTO,
	    "a capability inside the struct is refused");
	got.cap_offset = UINT32_MAX;
	memcpy(buf, &got, sizeof(got));
	fails(vd__wire_get_areas(buf, len, areas, 4, &nr), EPROTO,
	    "and one beyond the end");
	got.cap_offset = 32;
	got.size = 0x1fff;
	memcpy(buf, &got, sizeof(got));
	fails(vd__wire_get_areas(buf, len, areas, 4, &nr), EPROTO,
	    "and an area beyond the region");
	got.size = 0x4000;
	memcpy(buf, &got, sizeof(got));
	buf[32] = 2;			/* another capability, */
	buf[36] = 32;			/* followed by itself */
	fails(vd__wire_get_areas(buf, len, areas, 4, &nr), EPROTO,
	    "a chain that goes back is refused");
}

int
main(void)
{
	make_edge();
	test_header();
	test_prefixes();
	test_dma();
	test_access();
	test_region_info();
	return (done());
}
