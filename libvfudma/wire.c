/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Bytes to structs and back.  Payloads sit at any offset of a receive buffer,
 * so structs are copied out of it, never pointed at.
 */

#include <errno.h>
#include <string.h>

#include "internal.h"

/* The largest argsz of commands whose reply has no natural bound. */
#define ARGSZ_MAX	(1u << 20)

/* Copy a struct that starts a payload. */
static int
get(void *out, size_t size, const void *p, size_t len)
{
	if (len < size)
		return (EINVAL);
	memcpy(out, p, size);
	return (0);
}

static const uint8_t *
after(const void *p, size_t size)
{
	return ((const uint8_t *)p + size);
}

int
vd__wire_hdr(const void *buf, size_t len, size_t max, struct vd_hdr *hdr)
{
	if (len < sizeof(*hdr))
		return (0);
	memcpy(hdr, buf, sizeof(*hdr));
	if (hdr->size < sizeof(*hdr) || hdr->size > max) {
		errno = EPROTO;
		return (-1);
	}
	return (1);
}

void
vd__wire_reply(struct vd_hdr *hdr, const struct vd_hdr *req, size_t payload)
{
	hdr->id = req->id;
	hdr->cmd = req->cmd;
	hdr->size = (uint32_t)(sizeof(*hdr) + payload);
	hdr->flags = VD_TYPE_REPLY;
	hdr->error = 0;
}

void
vd__wire_error(struct vd_hdr *hdr, const struct vd_hdr *req, int err)
{
	vd__wire_reply(hdr, req, 0);
	hdr->flags |= VD_ERROR;
	hdr->error = err > 0 && err <= VD_MAX_ERRNO ? (uint32_t)err : EIO;
}

int
vd__wire_errno(const struct vd_hdr *hdr)
{
	if (hdr->error == 0 || hdr->error > VD_MAX_ERRNO)
		return (EIO);
	return ((int)hdr->error);
}

int
vd__wire_version(const void *p, size_t len, struct vd_version *v,
    const char **json, size_t *json_len)
{
	const char *end;

	*json = NULL;
	*json_len = 0;
	if (get(v, sizeof(*v), p, len) != 0)
		return (EINVAL);
	len -= sizeof(*v);
	if (len == 0)
		return (0);
	*json = (const char *)after(p, sizeof(*v));
	if ((end = memchr(*json, '\0', len)) == NULL) {
		*json = NULL;
		return (EINVAL);
	}
	*json_len = (size_t)(end - *json);
	return (0);
}

/* An address range that is neither empty nor wraps; it may end at 2^64 - 1. */
static bool
range_ok(uint64_t addr, uint64_t size)
{
	return (size > 0 && addr + (size - 1) >= addr);
}

int
vd__wire_dma_map(const void *p, size_t len, struct vd_dma_map *m)
{
	if (get(m, sizeof(*m), p, len) != 0 || m->argsz < sizeof(*m) ||
	    (m->flags & ~(VD_DMA_READABLE | VD_DMA_WRITABLE)) != 0 ||
	    !range_ok(m->addr, m->size))
		return (EINVAL);
	return (0);
}

int
vd__wire_dma_unmap(const void *p, size_t len, struct vd_dma_unmap *m)
{
	if (get(m, sizeof(*m), p, len) != 0 || m->argsz < sizeof(*m) ||
	    m->argsz > ARGSZ_MAX ||
	    (m->flags & ~(VD_UNMAP_DIRTY | VD_UNMAP_ALL)) != 0 ||
	    m->flags == (VD_UNMAP_DIRTY | VD_UNMAP_ALL))
		return (EINVAL);
	if (m->flags & VD_UNMAP_ALL)
		return (m->addr == 0 && m->size == 0 ? 0 : EINVAL);
	return (range_ok(m->addr, m->size) ? 0 : EINVAL);
}

int
vd__wire_device_info(const void *p, size_t len, struct vd_device_info *info)
{
	if (get(info, sizeof(*info), p, len) != 0 ||
	    info->argsz < sizeof(*info))
		return (EINVAL);
	return (0);
}

int
vd__wire_region_info(const void *p, size_t len, struct vd_region_info *info)
{
	if (get(info, sizeof(*info), p, len) != 0 ||
	    info->argsz < sizeof(*info) || info->index >= VD_NUM_REGIONS)
		return (EINVAL);
	return (0);
}

int
vd__wire_irq_info(const void *p, size_t len, struct vd_irq_info *info)
{
	if (get(info, sizeof(*info), p, len) != 0 ||
	    info->argsz < sizeof(*info) || info->index >= VD_NUM_IRQS)
		return (EINVAL);
	return (0);
}

int
vd__wire_irq_set(const void *p, size_t len, struct vd_irq_set *set,
    const uint8_t **data, size_t *data_len)
{
	if (get(set, sizeof(*set), p, len) != 0 || set->argsz < sizeof(*set) ||
	    set->index >= VD_NUM_IRQS)
		return (EINVAL);
	*data = after(p, sizeof(*set));
	*data_len = len - sizeof(*set);
	return (0);
}

int
vd__wire_region_access(const void *p, size_t len, bool is_write,
    size_t max_data, struct vd_region_access *a, const uint8_t **data)
{
	if (get(a, sizeof(*a), p, len) != 0 || a->count > max_data ||
	    a->region >= VD_NUM_REGIONS)
		return (EINVAL);
	*data = after(p, sizeof(*a));
	if (is_write && len - sizeof(*a) != a->count)
		return (EINVAL);
	return (0);
}

int
vd__wire_dma_access(const void *p, size_t len, bool is_write, size_t max_data,
    struct vd_dma_access *a, const uint8_t **data)
{
	if (get(a, sizeof(*a), p, len) != 0 || a->count > max_data ||
	    (a->count > 0 && a->addr + (a->count - 1) < a->addr))
		return (EINVAL);
	*data = after(p, sizeof(*a));
	if (is_write && len - sizeof(*a) != a->count)
		return (EINVAL);
	return (0);
}

int
vd__wire_write_multi(const void *p, size_t len, uint64_t *count)
{
	struct vd_write_multi m;

	if (get(&m, sizeof(m), p, len) != 0 ||
	    m.count > (len - sizeof(m)) / sizeof(struct vd_write_one))
		return (EINVAL);
	*count = m.count;
	return (0);
}

void
vd__wire_write_one(const void *p, uint64_t i, struct vd_write_one *w)
{
	memcpy(w, after(p, sizeof(struct vd_write_multi)) +
	    (size_t)i * sizeof(*w), sizeof(*w));
}

size_t
vd__wire_put_region_info(uint8_t buf[VD__REGION_INFO_MAX],
    struct vd_region_info *info, const struct vd_area *area)
{
	const struct vd_cap_sparse sparse = {
		.cap = { .id = VD_CAP_SPARSE, .version = 1, .next = 0 },
		.nr_areas = 1,
	};
	size_t len = sizeof(*info);
	bool whole = false;

	info->cap_offset = 0;
	if (area != NULL) {
		/*
		 * A client that left no room for the capability sees by argsz
		 * that there is one, and asks again.
		 */
		whole = info->argsz >= VD__REGION_INFO_MAX;
		info->argsz = VD__REGION_INFO_MAX;
		info->flags |= VD_REGION_MAPPABLE;
	} else
		info->argsz = sizeof(*info);
	if (whole) {
		info->flags |= VD_REGION_CAPS;
		info->cap_offset = sizeof(*info);
		memcpy(buf + len, &sparse, sizeof(sparse));
		len += sizeof(sparse);
		memcpy(buf + len, area, sizeof(*area));
		len += sizeof(*area);
	}
	memcpy(buf, info, sizeof(*info));
	return (len);
}

/* The areas of the sparse capability at off of a reply. */
static int
get_sparse(const void *p, size_t len, size_t off, uint64_t region_size,
    struct vd_area *areas, unsigned int max, unsigned int *nr)
{
	struct vd_cap_sparse sparse;
	unsigned int i;

	if (get(&sparse, sizeof(sparse), after(p, off), len - off) != 0)
		return (-1);
	off += sizeof(sparse);
	if (sparse.nr_areas > max ||
	    sparse.nr_areas > (len - off) / sizeof(*areas))
		return (-1);
	for (i = 0; i < sparse.nr_areas; i++) {
		memcpy(&areas[i], after(p, off + i * sizeof(*areas)),
		    sizeof(*areas));
		if (areas[i].size == 0 || areas[i].size > region_size ||
		    areas[i].offset > region_size - areas[i].size)
			return (-1);
	}
	*nr = sparse.nr_areas;
	return (0);
}

int
vd__wire_get_areas(const void *p, size_t len, struct vd_area *areas,
    unsigned int max, unsigned int *nr)
{
	struct vd_region_info info;
	struct vd_cap cap;
	size_t off, next;

	*nr = 0;
	if (get(&info, sizeof(info), p, len) != 0)
		goto bad;
	if ((info.flags & VD_REGION_CAPS) == 0 || info.cap_offset == 0)
		return (0);
	/* A chain that only goes forward ends. */
	off = sizeof(info);
	for (next = info.cap_offset; next != 0; next = cap.next) {
		if (next < off || next > len ||
		    get(&cap, sizeof(cap), after(p, next), len - next) != 0)
			goto bad;
		if (cap.id == VD_CAP_SPARSE) {
			if (get_sparse(p, len, next, info.size, areas, max,
			    nr) == -1)
				goto bad;
			return (1);
		}
		off = next + sizeof(cap);
	}
	return (0);
bad:
	*nr = 0;
	errno = EPROTO;
	return (-1);
}
