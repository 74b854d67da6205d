/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The commands about regions: BARs and the ROM, which are accessed through
 * their spaces, and config space.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* A region that the device lacks has size 0. */
static uint64_t
region_size(struct vd_server *s, unsigned int index)
{
	const struct vd__bar *bar;

	if (index == VD_REGION_CONFIG)
		return (s->pci.config_size);
	bar = vd__pci_region(s, index);
	return (bar != NULL ? bar->size : 0);
}

int
vd__region_info(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_region_info info;
	const struct vd__bar *bar;
	struct vd_area area;
	bool shared;
	int err;

	if ((err = vd__wire_region_info(m->data, m->len, &info)) != 0)
		return (err);
	bar = vd__pci_region(s, info.index);
	info.flags = 0;
	info.offset = 0;
	info.size = region_size(s, info.index);
	if (info.size != 0)
		info.flags = VD_REGION_READABLE;
	if (info.size != 0 && info.index != VD_REGION_ROM)
		info.flags |= VD_REGION_WRITABLE;
	/* It is no use to a client that takes no descriptors. */
	shared = bar != NULL && bar->map_len != 0 && s->peer.max_msg_fds > 0;
	if (shared) {
		info.offset = (uint64_t)bar->map_fd_off;
		area.offset = bar->map_off;
		area.size = bar->map_len;
	}
	r->head_len = vd__wire_put_region_info(r->head, &info,
	    shared ? &area : NULL);
	if (shared && r->head_len > sizeof(info))
		r->fd = bar->map_fd;
	return (0);
}

static int
result_errno(enum mt_result res)
{
	if (res & MT_DEVICE)
		return (EIO);
	if (res & MT_DENIED)
		return (EACCES);
	return (res & MT_DECODE ? EFAULT : 0);
}

/* What a register is read or written as: one access, not a copy of bytes. */
static bool
is_register(uint32_t count)
{
	return (count == 1 || count == 2 || count == 4 || count == 8);
}

static int
bar_read(struct vd__bar *bar, const struct vd_region_access *a, uint8_t *buf)
{
	enum mt_result res;
	uint64_t val;
	unsigned int i;

	if (!is_register(a->count))
		return (result_errno(mt_space_read(bar->space, a->offset, buf,
		    a->count, MT_ATTRS_NONE)));
	res = mt_space_load(bar->space, a->offset, a->count, MT_LITTLE, &val,
	    MT_ATTRS_NONE);
	for (i = 0; i < a->count; i++, val >>= 8)
		buf[i] = (uint8_t)val;
	return (result_errno(res));
}

static int
bar_write(struct vd__bar *bar, const struct vd_region_access *a,
    const uint8_t *data)
{
	uint64_t val = 0;
	unsigned int i;

	if (!is_register(a->count))
		return (result_errno(mt_space_write(bar->space, a->offset,
		    data, a->count, MT_ATTRS_NONE)));
	for (i = a->count; i > 0; i--)
		val = val << 8 | data[i - 1];
	return (result_errno(mt_space_store(bar->space, a->offset, a->count,
	    MT_LITTLE, val, MT_ATTRS_NONE)));
}

static bool
inside(struct vd_server *s, const struct vd_region_access *a)
{
	uint64_t size = region_size(s, a->region);

	return (a->offset <= size && a->count <= size - a->offset);
}

/* A buffer of len bytes that is kept for the next reply. */
static uint8_t *
reply_buf(struct vd_server *s, size_t len)
{
	uint8_t *p;

	if (len > s->buf_size) {
		if ((p = realloc(s->buf, len)) == NULL)
			return (NULL);
		s->buf = p;
		s->buf_size = len;
	}
	return (s->buf);
}

int
vd__region_read(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_region_access a;
	const uint8_t *rest;
	uint8_t *buf;
	int err;

	if ((err = vd__wire_region_access(m->data, m->len, false,
	    s->limits.max_data_xfer, &a, &rest)) != 0)
		return (err);
	if (!inside(s, &a))
		return (EINVAL);
	if (a.count == 0)
		return (0);		/* others answer with a header, too */
	if ((buf = reply_buf(s, a.count)) == NULL)
		return (ENOMEM);
	if (a.region == VD_REGION_CONFIG) {
		err = vd__pci_read(s, a.offset, buf, a.count);
	} else {
		vd__request_offer(s, m, &a, false);
		err = bar_read(vd__pci_region(s, a.region), &a, buf);
		if (vd__request_taken(s))
			return (VD__TAKEN);
	}
	if (err != 0)
		return (err);
	memcpy(r->head, &a, sizeof(a));
	r->head_len = sizeof(a);
	r->data = buf;
	r->data_len = a.count;
	return (0);
}

/* Write what is known to have a->count bytes. */
static int
do_write(struct vd_server *s, const struct vd_region_access *a,
    const uint8_t *data)
{
	if (!inside(s, a))
		return (EINVAL);
	if (a->count == 0)
		return (0);
	if (a->region == VD_REGION_CONFIG)
		return (vd__pci_write(s, a->offset, data, a->count));
	return (bar_write(vd__pci_region(s, a->region), a, data));
}

int
vd__region_write(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_region_access a;
	const uint8_t *data;
	int err;

	if ((err = vd__wire_region_access(m->data, m->len, true,
	    s->limits.max_data_xfer, &a, &data)) != 0)
		return (err);
	if (a.region != VD_REGION_CONFIG)
		vd__request_offer(s, m, &a, true);
	err = do_write(s, &a, data);
	if (vd__request_taken(s))
		return (VD__TAKEN);
	if (err != 0)
		return (err);
	if (a.count == 0)
		return (0);
	memcpy(r->head, &a, sizeof(a));
	r->head_len = sizeof(a);
	return (0);
}

/*
 * Writes in order, up to the first that fails.  The reply tells how many were
 * done; an error is told only if none was.
 */
int
vd__region_write_multi(struct vd_server *s, struct vd__msg *m,
    struct vd__reply *r)
{
	struct vd_write_multi done = { 0 };
	struct vd_region_access a;
	struct vd_write_one w;
	uint64_t count;
	int err;

	if ((err = vd__wire_write_multi(m->data, m->len, &count)) != 0)
		return (err);
	for (; done.count < count; done.count++) {
		vd__wire_write_one(m->data, done.count, &w);
		a.offset = w.offset;
		a.region = w.region;
		a.count = w.count;
		if (w.count > sizeof(w.data) || w.region >= VD_NUM_REGIONS)
			err = EINVAL;
		else
			err = do_write(s, &a, w.data);
		if (err != 0)
			break;
	}
	if (err != 0 && done.count == 0)
		return (err);
	memcpy(r->head, &done, sizeof(done));
	r->head_len = sizeof(done);
	return (0);
}
