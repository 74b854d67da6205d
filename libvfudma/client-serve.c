/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What a server asks of its client: the memory that it was given without a
 * descriptor.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static int
result_errno(enum mt_result res)
{
	if (res & MT_DENIED)
		return (EACCES);
	if (res & MT_DECODE)
		return (EFAULT);
	return (res & MT_DEVICE ? EIO : 0);
}

/*
 * What takes no writes is to the bus as if nothing were there; to the server it
 * is not.  What comes first counts.
 */
static int
write_errno(struct mt_space *sp, uint64_t addr, size_t len,
    enum mt_result res)
{
	struct mt_range range = { addr, addr + (len - 1) };
	struct mt_section sec;
	bool readonly;

	if (result_errno(res) != EFAULT)
		return (result_errno(res));
	for (;;) {
		if (mt_space_find(sp, range, &sec) == -1)
			return (EFAULT);
		readonly = mt_region_kind(sec.region) == MT_ROM ||
		    (sec.flags & MT_SECTION_READONLY) != 0;
		mt_region_put(sec.region);
		if (sec.range.first != range.first)
			return (EFAULT);
		if (readonly)
			return (EACCES);
		if (sec.range.last == range.last)
			return (EFAULT);
		range.first = sec.range.last + 1;
	}
}

static void
reply(struct vd__serve *s, const struct vd__msg *m,
    const struct vd_dma_access *a, const void *data, size_t len)
{
	struct iovec iov[2] = {
		{ (void *)(uintptr_t)a, sizeof(*a) },	/* only read */
		{ (void *)(uintptr_t)data, len },
	};

	vd__conn_reply(s->conn, m, iov, len > 0 ? 2 : 1, NULL, 0);
}

/* Is all of it memory?  What is not may be read once only. */
static bool
is_memory(struct mt_space *sp, uint64_t addr, size_t len)
{
	const struct mt_range range = { addr, addr + (len - 1) };
	struct mt_section sec;
	enum mt_kind kind;

	if (mt_space_find(sp, range, &sec) == -1)
		return (false);
	kind = mt_region_kind(sec.region);
	mt_region_put(sec.region);
	return ((kind == MT_RAM || kind == MT_ROM) &&
	    sec.range.first == range.first && sec.range.last == range.last);
}

/* Memory goes out from where it is; anything else by way of a buffer. */
static int
dma_read(struct vd__serve *s, struct mt_space *sp, struct vd__msg *m)
{
	struct vd_dma_access a;
	struct mt_mapping map;
	const uint8_t *rest;
	size_t len;
	void *buf;
	int err;

	if ((err = vd__wire_dma_access(m->data, m->len, false,
	    VD_MAX_DATA_XFER, &a, &rest)) != 0)
		return (err);
	len = (size_t)a.count;
	if (len == 0) {
		reply(s, m, &a, NULL, 0);
		return (0);
	}
	if (is_memory(sp, a.addr, len) && mt_dma_map(sp, a.addr, len,
	    MT_DMA_READ, MT_ATTRS_NONE, &map) == 0) {
		if (map.len == len && !map.bounced) {
			reply(s, m, &a, map.ptr, len);
			mt_dma_unmap(&map, len);
			return (0);
		}
		mt_dma_unmap(&map, 0);
	}
	if ((buf = malloc(len)) == NULL)
		return (ENOMEM);
	err = result_errno(mt_space_read(sp, a.addr, buf, len,
	    MT_ATTRS_NONE));
	if (err == 0)
		reply(s, m, &a, buf, len);
	free(buf);
	return (err);
}

static int
dma_write(struct vd__serve *s, struct mt_space *sp, struct vd__msg *m)
{
	struct vd_dma_access a;
	enum mt_result res = MT_OK;
	const uint8_t *data;
	int err;

	if ((err = vd__wire_dma_access(m->data, m->len, true,
	    VD_MAX_DATA_XFER, &a, &data)) != 0)
		return (err);
	if (a.count > 0)
		res = mt_space_write(sp, a.addr, data, (size_t)a.count,
		    MT_ATTRS_NONE);
	if (res != MT_OK)
		return (write_errno(sp, a.addr, (size_t)a.count, res));
	reply(s, m, &a, NULL, 0);
	return (0);
}

void
vd__client_serve(void *arg, struct vd__msg *m)
{
	struct vd__serve *s = arg;
	struct mt_space *sp = atomic_load(&s->space);
	int err = ENOSYS;

	if (m->hdr.cmd == VD_CMD_DMA_READ && sp != NULL)
		err = dma_read(s, sp, m);
	else if (m->hdr.cmd == VD_CMD_DMA_WRITE && sp != NULL)
		err = dma_write(s, sp, m);
	if (err != 0)
		vd__conn_error(s->conn, m, err);
}
