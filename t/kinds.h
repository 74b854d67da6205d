/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_KINDS_H
#define T_KINDS_H

/* The kinds of regions that have memory, for tests that go through them. */

#include "t/util.h"

typedef struct mt_region *create_fn(struct mt_topology *, const char *,
    mt_addr, const struct mt_backing *);

static struct t_dev dev = T_DEV(.endian = MT_LITTLE);

static struct mt_region *
create_romd(struct mt_topology *t, const char *name, mt_addr last,
    const struct mt_backing *backing)
{
	return (mt_region_create_rom_device(t, name, last, backing, &dev.ops,
	    &dev));
}

static const struct {
	const char *name;
	create_fn *create;
} kinds[] = {
	{ "RAM", mt_region_create_ram },
	{ "ROM", mt_region_create_rom },
	{ "a ROM device", create_romd },
	{ "a RAM device", mt_region_create_ram_device },
};

#endif
