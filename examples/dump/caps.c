/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What single capabilities say.  One that has no room for its fields before
 * the next one begins is shown as bytes.
 */

#include <stdio.h>

#include "dump.h"

#define DATA_MAX	64u	/* bytes shown of what is not known */

struct decoder {
	uint32_t id;
	size_t len;			/* that it has to have */
	const char *name;
	void (*decode)(struct dump *d, json_t *obj, size_t at, size_t end);
};

/* Bytes in hexadecimal, less the zeroes at the end. */
static void
put_data(struct dump *d, json_t *obj, size_t at, size_t end)
{
	if (end > at + DATA_MAX)
		end = at + DATA_MAX;
	while (end > at && d->cfg[end - 1] == 0)
		end--;
	put_bytes(obj, "data", d->cfg + at, end > at ? end - at : 0);
}

/* --- standard ------------------------------------------------------------ */

static void
pm(struct dump *d, json_t *obj, size_t at, size_t end)
{
	static const char *const states[] = { "D0", "D1", "D2", "D3hot" };
	uint32_t pmc = cfg(d, at + 2, 2), csr = cfg(d, at + 4, 2);

	(void)end;
	put_int(obj, "version", pmc & 7);
	put_text(obj, "state", states[csr & 3]);
	put_bool(obj, "d1", pmc & 0x200);
	put_bool(obj, "d2", pmc & 0x400);
	put_bool(obj, "pme", pmc & 0xf800);
	put_bool(obj, "no_soft_reset", csr & 8);
}

static void
msi(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t ctrl = cfg(d, at + 2, 2);

	(void)end;
	put_int(obj, "vectors", 1u << (ctrl >> 1 & 7));
	put_bool(obj, "64-bit", ctrl & 0x80);
	put_bool(obj, "maskable", ctrl & 0x100);
	put_bool(obj, "enabled", ctrl & 1);
}

/* A place in a BAR, which has to have room for it. */
static void
msix_place(struct dump *d, json_t *obj, const char *key, uint32_t val,
    uint64_t len)
{
	uint32_t bar = val & 7, off = val & ~7u;

	put(obj, key, json_sprintf("BAR%u+0x%x", (unsigned int)bar,
	    (unsigned int)off));
	if (bar >= VD_NUM_BARS || len > d->sizes[bar] ||
	    off > d->sizes[bar] - len)
		warning(d, "the MSI-X %s is outside of its BAR", key);
}

static void
msix(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t ctrl = cfg(d, at + 2, 2), vectors = (ctrl & 0x7ff) + 1;

	(void)end;
	put_int(obj, "vectors", vectors);
	msix_place(d, obj, "table", cfg(d, at + 4, 4), vectors * 16);
	msix_place(d, obj, "pba", cfg(d, at + 8, 4), (vectors + 63) / 64 * 8);
	put_bool(obj, "enabled", ctrl & 0x8000);
	put_bool(obj, "masked", ctrl & 0x4000);
}

static const char *
express_type(unsigned int type)
{
	static const char *const types[16] = {
		[0] = "endpoint", [1] = "legacy endpoint", [4] = "root port",
		[5] = "upstream port", [6] = "downstream port",
		[7] = "bridge to PCI", [8] = "bridge from PCI",
		[9] = "root complex endpoint",
		[10] = "root complex event collector",
	};

	return (types[type] != NULL ? types[type] : "unknown type");
}

static void
put_link(json_t *obj, const char *key, uint32_t val)
{
	static const char *const speeds[16] = {
		[1] = "2.5", [2] = "5", [3] = "8", [4] = "16", [5] = "32",
		[6] = "64",
	};
	const char *speed = speeds[val & 15];

	put(obj, key, json_sprintf("x%u at %s GT/s",
	    (unsigned int)(val >> 4 & 63), speed != NULL ? speed : "?"));
}

static void
express(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t caps = cfg(d, at + 2, 2), dev = cfg(d, at + 4, 4);
	uint32_t ctl = cfg(d, at + 8, 2);

	(void)end;
	put_int(obj, "version", caps & 15);
	put_text(obj, "type", express_type(caps >> 4 & 15));
	put_bool(obj, "flr", dev & 1u << 28);
	put_bool(obj, "extended_tags", dev & 0x20);
	/* Payloads: possible, set; and what may be asked for by reads. */
	put_int(obj, "max_payload", 128u << (dev & 7));
	put_int(obj, "payload", 128u << (ctl >> 5 & 7));
	put_int(obj, "read_request", 128u << (ctl >> 12 & 7));
	/* A root complex endpoint has none. */
	if (cfg(d, at + 0x0c, 4) != 0) {
		put_link(obj, "link", cfg(d, at + 0x0c, 4));
		put_link(obj, "link_now", cfg(d, at + 0x12, 2));
	}
}

static void
vendor(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t len = cfg(d, at + 2, 1);

	put_int(obj, "length", len);
	if (len < 3 || len > end - at) {
		warning(d, "the length of the vendor capability at 0x%zx "
		    "is wrong", at);
		len = 3;
	}
	put_bytes(obj, "data", d->cfg + at + 3, len - 3);
}

static void
advanced(struct dump *d, json_t *obj, size_t at, size_t end)
{
	(void)end;
	put_bool(obj, "transactions_pending", cfg(d, at + 3, 1) & 1);
	put_bool(obj, "flr", cfg(d, at + 3, 1) & 2);
}

static const struct decoder caps[] = {
	{ 0x01, 8, "power management", pm },
	{ 0x02, 0, "AGP", NULL },
	{ 0x03, 0, "vital product data", NULL },
	{ 0x04, 0, "slot identification", NULL },
	{ 0x05, 10, "MSI", msi },
	{ 0x07, 0, "PCI-X", NULL },
	{ 0x08, 0, "HyperTransport", NULL },
	{ 0x09, 3, "vendor-specific", vendor },
	{ 0x0a, 0, "debug port", NULL },
	{ 0x0c, 0, "hot-plug", NULL },
	{ 0x0d, 0, "bridge subsystem", NULL },
	{ 0x10, 0x14, "PCI Express", express },
	{ 0x11, 12, "MSI-X", msix },
	{ 0x12, 0, "SATA", NULL },
	{ 0x13, 6, "advanced features", advanced },
	{ 0x14, 0, "enhanced allocation", NULL },
	{ 0x15, 0, "flattening portal bridge", NULL },
	{ 0, 0, NULL, NULL },
};

/* --- extended ------------------------------------------------------------ */

static void
aer(struct dump *d, json_t *obj, size_t at, size_t end)
{
	(void)end;
	put_hex(obj, "uncorrectable", cfg(d, at + 0x04, 4), 8);
	put_hex(obj, "uncorrectable_mask", cfg(d, at + 0x08, 4), 8);
	put_hex(obj, "severity", cfg(d, at + 0x0c, 4), 8);
	put_hex(obj, "correctable", cfg(d, at + 0x10, 4), 8);
	put_hex(obj, "correctable_mask", cfg(d, at + 0x14, 4), 8);
}

static void
serial(struct dump *d, json_t *obj, size_t at, size_t end)
{
	(void)end;
	put(obj, "serial", json_sprintf("%08x%08x",
	    (unsigned int)cfg(d, at + 8, 4), (unsigned int)cfg(d, at + 4, 4)));
}

/* What a vendor says in len bytes from the header, of which skip are known. */
static void
put_vendor_data(struct dump *d, json_t *obj, size_t at, size_t end,
    uint32_t len, uint32_t skip)
{
	put_int(obj, "length", len);
	if (len < skip || len > end - at) {
		warning(d, "the length of the vendor capability at 0x%zx "
		    "is wrong", at);
		len = skip;
	}
	put_data(d, obj, at + skip, at + len);
}

static void
ext_vendor(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t head = cfg(d, at + 4, 4);

	put_hex(obj, "vendor_id", head & 0xffff, 4);
	put_int(obj, "vendor_revision", head >> 16 & 15);
	put_vendor_data(d, obj, at, end, head >> 20, 8);
}

static void
designated(struct dump *d, json_t *obj, size_t at, size_t end)
{
	uint32_t head = cfg(d, at + 4, 4);

	put_hex(obj, "vendor", head & 0xffff, 4);
	put_int(obj, "vendor_revision", head >> 16 & 15);
	put_hex(obj, "vendor_id", cfg(d, at + 8, 2), 4);
	put_vendor_data(d, obj, at, end, head >> 20, 10);
}

static void
sriov(struct dump *d, json_t *obj, size_t at, size_t end)
{
	(void)end;
	put_int(obj, "total_vfs", cfg(d, at + 0x0e, 2));
	put_int(obj, "initial_vfs", cfg(d, at + 0x0c, 2));
	put_int(obj, "vfs", cfg(d, at + 0x10, 2));
	put_int(obj, "vf_offset", cfg(d, at + 0x14, 2));
	put_int(obj, "vf_stride", cfg(d, at + 0x16, 2));
	put_hex(obj, "vf_device", cfg(d, at + 0x1a, 2), 4);
	put_bool(obj, "enabled", cfg(d, at + 0x08, 2) & 1);
}

static const struct decoder ext_caps[] = {
	{ 0x0001, 0x18, "advanced error reporting", aer },
	{ 0x0002, 0, "virtual channel", NULL },
	{ 0x0003, 12, "serial number", serial },
	{ 0x0004, 0, "power budgeting", NULL },
	{ 0x0009, 0, "virtual channel", NULL },
	{ 0x000b, 8, "vendor-specific", ext_vendor },
	{ 0x000d, 0, "access control services", NULL },
	{ 0x000e, 0, "alternative routing ID", NULL },
	{ 0x000f, 0, "address translation services", NULL },
	{ 0x0010, 0x40, "SR-IOV", sriov },
	{ 0x0012, 0, "multicast", NULL },
	{ 0x0013, 0, "page requests", NULL },
	{ 0x0015, 0, "resizable BARs", NULL },
	{ 0x0016, 0, "dynamic power allocation", NULL },
	{ 0x0017, 0, "TPH requester", NULL },
	{ 0x0018, 0, "latency tolerance reporting", NULL },
	{ 0x0019, 0, "secondary PCI Express", NULL },
	{ 0x001b, 0, "PASID", NULL },
	{ 0x001d, 0, "downstream port containment", NULL },
	{ 0x001e, 0, "L1 PM substates", NULL },
	{ 0x001f, 0, "precision time measurement", NULL },
	{ 0x0023, 10, "designated vendor-specific", designated },
	{ 0x0024, 0, "VF resizable BARs", NULL },
	{ 0x0025, 0, "data link feature", NULL },
	{ 0x0026, 0, "physical layer 16 GT/s", NULL },
	{ 0x0027, 0, "lane margining", NULL },
	{ 0x002a, 0, "physical layer 32 GT/s", NULL },
	{ 0x002e, 0, "data object exchange", NULL },
	{ 0, 0, NULL, NULL },
};

/* --- either -------------------------------------------------------------- */

static void
decode(struct dump *d, json_t *obj, size_t at, size_t end,
    const struct decoder *table, uint32_t id, size_t header)
{
	while (table->name != NULL && table->id != id)
		table++;
	put_text(obj, "name", table->name != NULL ? table->name : "unknown");
	if (table->len > end - at)
		warning(d, "the capability at 0x%zx has no room for what it "
		    "has to hold", at);
	/* What is not there would read as the next one's, or beyond. */
	if (table->decode != NULL && table->len <= end - at)
		table->decode(d, obj, at, end);
	else
		put_data(d, obj, at + header, end);
}

void
decode_cap(struct dump *d, json_t *obj, size_t at, size_t end)
{
	decode(d, obj, at, end, caps, cfg(d, at, 1), 2);
}

void
decode_ext_cap(struct dump *d, json_t *obj, size_t at, size_t end)
{
	decode(d, obj, at, end, ext_caps, cfg(d, at, 4) & 0xffff, 4);
}
