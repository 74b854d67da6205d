/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_TYPES_H
#define LIBMEMTREE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An address on a bus, or an offset into a region. */
typedef uint64_t mt_addr;

/*
 * Extents are inclusive: a region covers the offsets [0, last] of itself.
 * This is what lets one region cover all 2^64 addresses without wider
 * arithmetic or a length with a special meaning.
 */
struct mt_range {
	mt_addr first;
	mt_addr last;
};

#define MT_LAST_MAX	UINT64_MAX		/* last of a 2^64-byte region */
#define MT_SIZE(bytes)	((mt_addr)(bytes) - 1)	/* last of so many bytes */

/*
 * The outcome of a bus access, as the device or guest that made it sees it.
 * The values are bits: an access that took several steps reports the OR of
 * what its steps met, and goes on past the step that failed.
 */
enum mt_result {
	MT_OK		= 0,
	MT_DEVICE	= 1u << 0,	/* the device reported an error */
	MT_DECODE	= 1u << 1,	/* nothing there, or not accepted */
	MT_DENIED	= 1u << 2,	/* by an attribute, a guard, an IOMMU */
};

/*
 * What travels beside an access.  All zero is right for most callers:
 * see MT_ATTRS_NONE.
 */
struct mt_attrs {
	uint32_t requester_id;		/* PCI routing ID of the initiator */
	uint8_t secure;			/* from the secure world */
	uint8_t user;			/* from user mode */
	uint8_t memory_only;		/* MT_DENIED on regions but memory */
	uint8_t debug;			/* a debugger: may write to ROM */
};

#ifdef __cplusplus
#define MT_ATTRS_NONE	(mt_attrs())
#else
#define MT_ATTRS_NONE	((struct mt_attrs){ 0 })
#endif

#endif
