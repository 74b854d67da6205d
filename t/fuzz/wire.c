/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Bytes to every function that takes messages apart.  Each gets a copy that
 * ends where it ends, so that a byte read too far is found.
 */

#include "libvfudma/internal.h"
#include "t/fuzz/fuzz.h"

/* A range is not empty and does not wrap. */
static bool
is_range(uint64_t addr, uint64_t size)
{
	return (size > 0 && addr + (size - 1) >= addr);
}

static void
take_apart(const uint8_t *p, size_t len)
{
	const uint8_t *data;
	struct vd_version version;
	struct vd_dma_map map;
	struct vd_dma_unmap unmap;
	struct vd_device_info device;
	struct vd_region_info region;
	struct vd_irq_info irq;
	struct vd_irq_set set;
	struct vd_region_access a;
	struct vd_dma_access dma;
	struct vd_write_one one;
	struct vd_area areas[4];
	char why[VD__WHY_MAX];
	struct vd__caps caps;
	const char *json;
	unsigned int nr, i;
	uint64_t count;
	size_t n;

	if (vd__wire_version(p, len, &version, &json, &n) == 0 &&
	    json != NULL)
		check(json >= (const char *)p && n <= len);
	if (vd__wire_dma_map(p, len, &map) == 0)
		check(is_range(map.addr, map.size));
	if (vd__wire_dma_unmap(p, len, &unmap) == 0 &&
	    (unmap.flags & VD_UNMAP_ALL) == 0)
		check(is_range(unmap.addr, unmap.size));
	(void)vd__wire_device_info(p, len, &device);
	(void)vd__wire_irq_info(p, len, &irq);
	if (vd__wire_irq_set(p, len, &set, &data, &n) == 0 && n > 0)
		check(data >= p && n <= len &&
		    data + n <= p + len);
	for (i = 0; i < 2; i++)
		if (vd__wire_region_access(p, len, i != 0, VD_MAX_DATA_XFER,
		    &a, &data) == 0) {
			check(a.count <= VD_MAX_DATA_XFER);
			check(i == 0 || data + a.count <= p + len);
		}
	for (i = 0; i < 2; i++)
		if (vd__wire_dma_access(p, len, i != 0, VD_MAX_DATA_XFER,
		    &dma, &data) == 0) {
			check(dma.count <= VD_MAX_DATA_XFER);
			check(dma.count == 0 || is_range(dma.addr,
			    dma.count));
			check(i == 0 || data + dma.count == p + len);
		}
	if (vd__wire_write_multi(p, len, &count) == 0 && count > 0) {
		vd__wire_write_one(p, 0, &one);
		vd__wire_write_one(p, count - 1, &one);
	}
	if (vd__wire_region_info(p, len, &region) == 0) {
		uint8_t buf[VD__REGION_INFO_MAX];
		const struct vd_area area = { 0x1000, 0x1000 };

		n = vd__wire_put_region_info(buf, &region, &area);
		check(n <= sizeof(buf));
	}
	if (vd__wire_get_areas(p, len, areas, F_COUNT(areas), &nr) == 1)
		check(nr <= F_COUNT(areas));
	if (vd__negotiate_parse((const char *)p, len, (len & 1) != 0, &caps,
	    why) != 0)
		check(memchr(why, '\0', sizeof(why)) != NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vd_hdr hdr;
	uint8_t *copy;
	int rv;

	/* Not calloc(0), which may be NULL and is not apart. */
	check((copy = malloc(size + 1)) != NULL);
	memcpy(copy + 1, data, size);
	rv = vd__wire_hdr(copy + 1, size, VD_MAX_MSG_SIZE, &hdr);
	check(rv != 0 || size < sizeof(hdr));
	if (rv == 1) {
		check(hdr.size >= sizeof(hdr) && hdr.size <= VD_MAX_MSG_SIZE);
		rv = vd__wire_errno(&hdr);
		check(rv >= 0 && rv <= VD_MAX_ERRNO);
	}
	take_apart(copy + 1, size);
	free(copy);
	return (0);
}
