/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What the server is asked.  Questions and reads only: nothing is written,
 * mapped or reset.
 */

#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dump.h"

const char *
region_name(unsigned int index, char buf[static REGION_NAME])
{
	static const char *const names[] = { "ROM", "config", "VGA" };

	if (index < VD_NUM_BARS)
		snprintf(buf, REGION_NAME, "BAR%u", index);
	else if (index < VD_NUM_REGIONS)
		snprintf(buf, REGION_NAME, "%s", names[index - VD_NUM_BARS]);
	else
		snprintf(buf, REGION_NAME, "region %u", index);
	return (buf);
}

static void
put_flags(json_t *obj, uint32_t flags, const char *const *names)
{
	json_t *a = put_array(obj, "flags");

	for (; *names != NULL; names++, flags >>= 1)
		if (flags & 1)
			add_text(a, *names);
}

/* --- limits and interrupts ------------------------------------------------ */

static void
get_limits(struct dump *d)
{
	json_t *obj = json_object();
	struct vd_client_limits l;

	vd_client_limits(d->client, &l);
	put(d->root, "limits", obj);
	put_int(obj, "minor", l.minor);
	put_int(obj, "max_msg_fds", l.max_msg_fds);
	put_hex(obj, "max_data_xfer", l.max_data_xfer, 1);
	put_int(obj, "max_dma_maps", l.max_dma_maps);
	put_hex(obj, "page_sizes", l.pgsizes, 1);
	put_bool(obj, "twin_socket", l.twin);
}

static bool
get_irqs(struct dump *d, unsigned int count)
{
	static const char *const kinds[VD_NUM_IRQS] = { "INTx", "MSI",
	    "MSI-X", "ERR", "REQ" };
	static const char *const flags[] = { "eventfd", "maskable",
	    "automasked", "noresize", NULL };
	json_t *irqs = put_array(d->root, "interrupts"), *obj;
	struct vd_irq_info info;
	char name[24];

	for (unsigned int i = 0; i < count; i++) {
		obj = add_object(irqs);
		put_int(obj, "index", i);
		if (i < VD_NUM_IRQS)
			snprintf(name, sizeof(name), "%s", kinds[i]);
		else
			snprintf(name, sizeof(name), "interrupt %u", i);
		put_text(obj, "name", name);
		if (vd_client_irq_info(d->client, (enum vd_irq)i,
		    &info) == -1) {
			if (failed(d, obj, name))
				return (false);
			continue;
		}
		put_int(obj, "count", info.count);
		put_flags(obj, info.flags, flags);
	}
	return (true);
}

/* --- regions -------------------------------------------------------------- */

static void
put_areas(json_t *obj, const struct vd_client_region *info)
{
	json_t *areas = put_array(obj, "areas"), *area;

	for (unsigned int i = 0; i < info->nr_areas; i++) {
		area = add_object(areas);
		put_hex(area, "offset", info->areas[i].offset, 1);
		put_hex(area, "size", info->areas[i].size, 1);
	}
}

static bool
get_region(struct dump *d, unsigned int index)
{
	static const char *const flags[] = { "read", "write", "mmap", "caps",
	    NULL };
	json_t *obj = add_object(d->regions);
	struct vd_client_region info;
	char name[REGION_NAME];

	put_int(obj, "index", index);
	put_text(obj, "name", region_name(index, name));
	if (vd_client_region_info(d->client, index, &info) == -1)
		return (!failed(d, obj, name));
	if (index < VD_NUM_REGIONS) {
		d->sizes[index] = info.size;
		d->flags[index] = info.flags;
	}
	put_hex(obj, "size", info.size, 1);
	put_flags(obj, info.flags, flags);
	put_bool(obj, "fd", info.fd != -1);
	if (info.fd != -1) {
		put_hex(obj, "fd_offset", info.fd_off, 1);
		put_areas(obj, &info);
		close(info.fd);
	}
	if (index < VD_NUM_BARS && (info.size & (info.size - 1)) != 0)
		warning(d, "the size of %s is not a power of two", name);
	return (true);
}

/*
 * Config space: in one piece, as VMMs read it, or by words from a server that
 * does not like that.  What cannot be read ends it.
 */
static bool
get_config(struct dump *d)
{
	size_t len = CFG_MAX, at;

	if (d->sizes[VD_REGION_CONFIG] < len)
		len = (size_t)d->sizes[VD_REGION_CONFIG];
	if (len < CFG_HEADER) {
		warning(d, "config space has %zu bytes: too few for a header",
		    len);
		return (true);
	}
	if (vd_client_read(d->client, VD_REGION_CONFIG, 0, d->cfg, len) == 0) {
		d->cfg_len = len;
		return (true);
	}
	if (failed(d, NULL, "config space"))
		return (false);
	for (at = 0; at + 4 <= len; at += 4)
		if (vd_client_read(d->client, VD_REGION_CONFIG, at,
		    d->cfg + at, 4) == -1) {
			if (failed(d, NULL, "config space"))
				return (false);
			warning(d, "config space cannot be read at 0x%zx: %s",
			    at, strerror(errno));
			d->status = ST_FAILED;
			break;
		}
	d->cfg_len = at < CFG_HEADER ? 0 : at;
	return (true);
}

bool
get_device(struct dump *d)
{
	struct vd_device_info info;
	json_t *obj = json_object();

	get_limits(d);
	put(d->root, "device", obj);
	if (vd_client_device_info(d->client, &info) == -1) {
		d->status = ST_FAILED;
		(void)failed(d, obj, "device info");
		return (false);
	}
	d->pci = (info.flags & VD_DEVICE_PCI) != 0;
	put_bool(obj, "pci", d->pci);
	put_bool(obj, "resettable", info.flags & VD_DEVICE_RESETTABLE);
	put_int(obj, "regions", info.num_regions);
	put_int(obj, "interrupts", info.num_irqs);
	d->regions = put_array(d->root, "regions");
	for (unsigned int i = 0; i < info.num_regions; i++)
		if (!get_region(d, i))
			return (false);
	if (d->pci && !get_config(d))
		return (false);
	return (get_irqs(d, info.num_irqs));
}

/* --- reads ---------------------------------------------------------------- */

/* The widest access up to most that starts at off and has len bytes left. */
static unsigned int
access_width(uint64_t off, uint64_t len, unsigned int most)
{
	unsigned int width = most;

	while (width > len || (off & (width - 1)) != 0)
		width /= 2;
	return (width);
}

/*
 * Read register by register.  Many devices take no more than 4 bytes at once;
 * one that refuses 8 is asked for 4 from there on, unless --width was given.
 * Returns how much was read; less than asked for if errno says why.
 */
static uint64_t
read_range(struct dump *d, const struct range *r, uint8_t *buf,
    unsigned int *most)
{
	unsigned int width;
	uint64_t done = 0;

	while (done < r->len) {
		width = access_width(r->off + done, r->len - done, *most);
		if (vd_client_read(d->client, r->region, r->off + done,
		    buf + done, width) == 0)
			done += width;
		else if (width == 8 && d->opt.width == 0 &&
		    !lost(errno))
			*most = 4;
		else
			break;
	}
	return (done);
}

/* False if it cannot be read, and why is in obj. */
static bool
check_range(const struct dump *d, const struct range *r, json_t *obj)
{
	uint64_t size = d->sizes[r->region];

	if (size == 0)
		put_text(obj, "error", "the device has no such region");
	else if ((d->flags[r->region] & VD_REGION_READABLE) == 0)
		put_text(obj, "error", "the region is not readable");
	else if (r->len > size || r->off > size - r->len)
		put(obj, "error", json_sprintf("beyond the region's 0x%jx "
		    "bytes", (uintmax_t)size));
	else
		return (true);
	return (false);
}

static bool
get_read(struct dump *d, const struct range *r, json_t *obj)
{
	unsigned int most = d->opt.width != 0 ? d->opt.width : 8;
	bool gone = false;
	uint64_t done;
	uint8_t *buf;
	char name[REGION_NAME];

	put_text(obj, "region", region_name(r->region, name));
	put_hex(obj, "offset", r->off, 1);
	put_hex(obj, "size", r->len, 1);
	if (!check_range(d, r, obj)) {
		d->status = ST_FAILED;
		return (true);
	}
	buf = malloc((size_t)r->len);
	if (buf == NULL)
		err(ST_FAILED, NULL);
	done = read_range(d, r, buf, &most);
	if (done < r->len) {
		d->status = ST_FAILED;
		gone = failed(d, obj, name);
	}
	put_int(obj, "width", most);
	put_bytes(obj, "data", buf, (size_t)done);
	free(buf);
	return (!gone);
}

bool
get_reads(struct dump *d)
{
	json_t *reads = put_array(d->root, "reads");

	for (unsigned int i = 0; i < d->opt.nr_reads; i++)
		if (!get_read(d, &d->opt.reads[i], add_object(reads)))
			return (false);
	return (true);
}
