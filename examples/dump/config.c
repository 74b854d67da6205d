/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Config space: the header, and the two lists of capabilities.
 */

#include <stdio.h>
#include <string.h>

#include "dump.h"

#define STATUS_CAPS	0x0010u
#define CAP_LAST	0x100u		/* end of the space of the first list */
#define CAPS_MAX	((CFG_MAX - CAP_LAST) / 4)

uint32_t
cfg(const struct dump *d, size_t off, unsigned int size)
{
	uint32_t val = 0;

	if (size > d->cfg_len || off > d->cfg_len - size)
		return (0);
	for (unsigned int i = size; i > 0; i--)
		val = val << 8 | d->cfg[off + i - 1];
	return (val);
}

/* --- words for numbers ---------------------------------------------------- */

struct class {
	uint32_t code;
	uint32_t mask;
	const char *name;
};

/* The first that fits. */
static const struct class classes[] = {
	{ 0x000100, 0xffff00, "VGA-compatible device" },
	{ 0x010000, 0xffff00, "SCSI controller" },
	{ 0x010100, 0xffff00, "IDE controller" },
	{ 0x010400, 0xffff00, "RAID controller" },
	{ 0x010601, 0xffffff, "SATA controller, AHCI" },
	{ 0x010600, 0xffff00, "SATA controller" },
	{ 0x010700, 0xffff00, "SAS controller" },
	{ 0x010802, 0xffffff, "NVM Express I/O controller" },
	{ 0x010803, 0xffffff, "NVM Express administrative controller" },
	{ 0x010800, 0xffff00, "non-volatile memory controller" },
	{ 0x010000, 0xff0000, "mass storage controller" },
	{ 0x020000, 0xffff00, "Ethernet controller" },
	{ 0x020700, 0xffff00, "InfiniBand controller" },
	{ 0x020000, 0xff0000, "network controller" },
	{ 0x030000, 0xffffff, "VGA controller" },
	{ 0x030200, 0xffff00, "3D controller" },
	{ 0x030000, 0xff0000, "display controller" },
	{ 0x040300, 0xffff00, "audio device" },
	{ 0x040000, 0xff0000, "multimedia controller" },
	{ 0x050000, 0xffff00, "RAM controller" },
	{ 0x050200, 0xffff00, "CXL memory controller" },
	{ 0x050000, 0xff0000, "memory controller" },
	{ 0x060000, 0xffff00, "host bridge" },
	{ 0x060100, 0xffff00, "ISA bridge" },
	{ 0x060400, 0xffff00, "PCI bridge" },
	{ 0x060000, 0xff0000, "bridge" },
	{ 0x070000, 0xffff00, "serial controller" },
	{ 0x070000, 0xff0000, "communication controller" },
	{ 0x080600, 0xffff00, "IOMMU" },
	{ 0x080000, 0xff0000, "system peripheral" },
	{ 0x090000, 0xff0000, "input device" },
	{ 0x0c0330, 0xffffff, "USB controller, xHCI" },
	{ 0x0c0300, 0xffff00, "USB controller" },
	{ 0x0c0500, 0xffff00, "SMBus controller" },
	{ 0x0c0000, 0xff0000, "serial bus controller" },
	{ 0x0d0000, 0xff0000, "wireless controller" },
	{ 0x100000, 0xff0000, "encryption controller" },
	{ 0x110000, 0xff0000, "signal processing controller" },
	{ 0x120000, 0xff0000, "processing accelerator" },
	{ 0x000000, 0xff0000, "device from before there were classes" },
	{ 0xff0000, 0xff0000, "device that fits no class" },
	{ 0, 0, "unknown class" },
};

static const char *
class_name(uint32_t code)
{
	const struct class *c = classes;

	while ((code & c->mask) != c->code)
		c++;
	return (c->name);
}

struct bit {
	uint32_t bit;
	const char *name;
};

static const struct bit command_bits[] = {
	{ 0x0001, "I/O" }, { 0x0002, "memory" }, { 0x0004, "bus master" },
	{ 0x0040, "parity errors" }, { 0x0100, "SERR" },
	{ 0x0400, "INTx disabled" }, { 0, NULL },
};

static const struct bit status_bits[] = {
	{ 0x0008, "INTx pending" }, { 0x0010, "capabilities" },
	{ 0x0100, "master parity error" }, { 0x0800, "signalled abort" },
	{ 0x1000, "received target abort" },
	{ 0x2000, "received master abort" }, { 0x4000, "signalled error" },
	{ 0x8000, "parity error" }, { 0, NULL },
};

static void
put_bits(json_t *root, const char *key, uint32_t val, const struct bit *bits)
{
	json_t *obj = json_object(), *a;

	put(root, key, obj);
	put_hex(obj, "value", val, 4);
	a = put_array(obj, "bits");
	for (; bits->name != NULL; bits++)
		if (val & bits->bit)
			add_text(a, bits->name);
}

/* --- the header ----------------------------------------------------------- */

/* The register of each BAR says what the region is. */
static void
decode_bars(struct dump *d, unsigned int nr)
{
	json_t *obj;
	uint64_t addr;
	uint32_t val;
	bool wide;

	for (unsigned int i = 0; i < nr; i++) {
		obj = json_array_get(d->regions, i);
		if (obj == NULL || d->sizes[i] == 0)
			continue;
		val = cfg(d, 0x10 + 4 * i, 4);
		if (val & 1) {
			put_text(obj, "type", "I/O");
			put_hex(obj, "address", val & ~3u, 1);
			continue;
		}
		wide = (val & 6) == 4;
		addr = val & ~15u;
		if (wide && i + 1 < nr)
			addr |= (uint64_t)cfg(d, 0x14 + 4 * i, 4) << 32;
		put_text(obj, "type", "memory");
		put_bool(obj, "64-bit", wide);
		put_bool(obj, "prefetchable", val & 8);
		put_hex(obj, "address", addr, 1);
		if (wide && (i + 1 == nr || d->sizes[i + 1] != 0))
			warning(d, "BAR%u takes two places and has one", i);
		else if (!wide && d->sizes[i] > UINT32_MAX)
			warning(d, "BAR%u does not fit into 32 bits", i);
	}
}

static void
decode_rom(struct dump *d)
{
	json_t *obj = json_array_get(d->regions, VD_REGION_ROM);
	uint32_t val = cfg(d, 0x30, 4);

	if (obj == NULL || d->sizes[VD_REGION_ROM] == 0)
		return;
	put_bool(obj, "enabled", val & 1);
	put_hex(obj, "address", val & ~0x7ffu, 1);
}

static void
decode_ids(struct dump *d, bool endpoint)
{
	json_t *ids = json_object(), *class = json_object();

	put(d->root, "ids", ids);
	put_hex(ids, "vendor", cfg(d, 0x00, 2), 4);
	put_hex(ids, "device", cfg(d, 0x02, 2), 4);
	if (endpoint) {
		put_hex(ids, "subvendor", cfg(d, 0x2c, 2), 4);
		put_hex(ids, "subdevice", cfg(d, 0x2e, 2), 4);
	}
	put_hex(ids, "revision", cfg(d, 0x08, 1), 2);
	put(d->root, "class", class);
	put_hex(class, "code", cfg(d, 0x08, 4) >> 8, 6);
	put_text(class, "name", class_name(cfg(d, 0x08, 4) >> 8));
}

/* --- the lists ------------------------------------------------------------ */

/* Offsets of capabilities in the order of a list. */
struct list {
	size_t at[CAPS_MAX];
	size_t nr;
	bool seen[CFG_MAX / 4];
};

/* Take one more; false if the list has been there, which ends it. */
static bool
list_add(struct dump *d, struct list *l, size_t at)
{
	if (l->seen[at / 4]) {
		warning(d, "the list of capabilities loops: it comes back to "
		    "0x%zx", at);
		return (false);
	}
	l->seen[at / 4] = true;
	l->at[l->nr++] = at;
	return (true);
}

/* Where a capability ends at the latest: at the next one, or with the space. */
static size_t
list_end(const struct list *l, size_t at, size_t end)
{
	for (size_t i = 0; i < l->nr; i++)
		if (l->at[i] > at && l->at[i] < end)
			end = l->at[i];
	return (end);
}

static void
decode_caps(struct dump *d)
{
	json_t *caps = put_array(d->root, "capabilities"), *obj;
	size_t end = d->cfg_len < CAP_LAST ? d->cfg_len : CAP_LAST, at;
	struct list l = { .nr = 0 };

	if ((cfg(d, 0x06, 2) & STATUS_CAPS) == 0)
		return;
	for (at = cfg(d, 0x34, 1) & 0xfc; at != 0;
	    at = cfg(d, at + 1, 1) & 0xfc) {
		if (at < CFG_HEADER || at + 4 > end) {
			warning(d, "a capability at 0x%zx cannot be", at);
			break;
		}
		if (!list_add(d, &l, at))
			break;
	}
	for (size_t i = 0; i < l.nr; i++) {
		at = l.at[i];
		obj = add_object(caps);
		put_hex(obj, "offset", at, 2);
		put_hex(obj, "id", cfg(d, at, 1), 2);
		decode_cap(d, obj, at, list_end(&l, at, end));
	}
}

static void
decode_ext_caps(struct dump *d)
{
	json_t *caps = put_array(d->root, "extended_capabilities"), *obj;
	struct list l = { .nr = 0 };
	uint32_t head;
	size_t at = CAP_LAST;

	head = cfg(d, at, 4);
	/* There always is a first one; if nothing is there it is empty. */
	if (head == 0 || head == UINT32_MAX)
		return;
	for (; at != 0; at = cfg(d, at, 4) >> 20 & 0xffc) {
		if (at < CAP_LAST || at + 4 > d->cfg_len) {
			warning(d, "an extended capability at 0x%zx cannot be",
			    at);
			break;
		}
		if (!list_add(d, &l, at))
			break;
	}
	for (size_t i = 0; i < l.nr; i++) {
		at = l.at[i];
		obj = add_object(caps);
		head = cfg(d, at, 4);
		put_hex(obj, "offset", at, 3);
		put_hex(obj, "id", head & 0xffff, 4);
		put_int(obj, "revision", head >> 16 & 15);
		decode_ext_cap(d, obj, at, list_end(&l, at, d->cfg_len));
	}
}

void
decode_config(struct dump *d)
{
	unsigned int type = cfg(d, 0x0e, 1) & 0x7f;
	uint32_t pin = cfg(d, 0x3d, 1);

	if (d->cfg_len == 0)
		return;
	decode_ids(d, type == 0);
	put_bits(d->root, "command", cfg(d, 0x04, 2), command_bits);
	put_bits(d->root, "status", cfg(d, 0x06, 2), status_bits);
	put_int(d->root, "header_type", type);
	if (pin >= 1 && pin <= 4)
		put(d->root, "interrupt_pin", json_sprintf("INT%c",
		    (int)('A' + pin - 1)));
	else if (pin != 0)
		warning(d, "there is no interrupt pin %u", pin);
	if (type > 1) {
		warning(d, "header type %u is not known", type);
		return;
	}
	decode_bars(d, type == 0 ? VD_NUM_BARS : 2);
	if (type == 0)
		decode_rom(d);
	decode_caps(d);
	decode_ext_caps(d);
}
