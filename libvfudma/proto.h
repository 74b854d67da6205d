/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_PROTO_H
#define LIBVFUDMA_PROTO_H

#include <stddef.h>
#include <stdint.h>

/*
 * The vfio-user protocol as bytes.  Everything is in host byte order and
 * naturally aligned from the start of a message, so these structs are the
 * wire format; all messages start with a struct vd_hdr.
 */

#define VD_PROTO_MAJOR		0
#define VD_PROTO_MINOR		1

enum vd_cmd {
	VD_CMD_VERSION = 1,
	VD_CMD_DMA_MAP = 2,
	VD_CMD_DMA_UNMAP = 3,
	VD_CMD_DEVICE_GET_INFO = 4,
	VD_CMD_DEVICE_GET_REGION_INFO = 5,
	VD_CMD_DEVICE_GET_REGION_IO_FDS = 6,
	VD_CMD_DEVICE_GET_IRQ_INFO = 7,
	VD_CMD_DEVICE_SET_IRQS = 8,
	VD_CMD_REGION_READ = 9,
	VD_CMD_REGION_WRITE = 10,
	VD_CMD_DMA_READ = 11,
	VD_CMD_DMA_WRITE = 12,
	VD_CMD_DEVICE_RESET = 13,
	VD_CMD_REGION_WRITE_MULTI = 15,
	VD_CMD_DEVICE_FEATURE = 16,
	VD_CMD_MIG_DATA_READ = 17,
	VD_CMD_MIG_DATA_WRITE = 18,
};

/* vd_hdr.flags */
#define VD_TYPE_MASK		0xfu
#define VD_TYPE_COMMAND		0u
#define VD_TYPE_REPLY		1u
#define VD_NO_REPLY		(1u << 4)
#define VD_ERROR		(1u << 5)

struct vd_hdr {
	uint16_t id;
	uint16_t cmd;
	uint32_t size;			/* of the message, header included */
	uint32_t flags;
	uint32_t error;			/* errno, with VD_ERROR */
};

struct vd_version {			/* then JSON and a NUL, optional */
	uint16_t major;
	uint16_t minor;
};

#define VD_DMA_READABLE		(1u << 0)	/* the device may read */
#define VD_DMA_WRITABLE		(1u << 1)	/* the device may write */

struct vd_dma_map {
	uint32_t argsz;
	uint32_t flags;			/* VD_DMA_* */
	uint64_t offset;		/* in the fd */
	uint64_t addr;
	uint64_t size;
};

#define VD_UNMAP_DIRTY		(1u << 0)
#define VD_UNMAP_ALL		(1u << 1)

struct vd_dma_unmap {
	uint32_t argsz;
	uint32_t flags;			/* VD_UNMAP_* */
	uint64_t addr;
	uint64_t size;
};

#define VD_DEVICE_RESETTABLE	(1u << 0)
#define VD_DEVICE_PCI		(1u << 1)

struct vd_device_info {
	uint32_t argsz;
	uint32_t flags;			/* VD_DEVICE_* */
	uint32_t num_regions;
	uint32_t num_irqs;
};

enum vd_region_index {
	VD_REGION_BAR0,
	VD_REGION_BAR1,
	VD_REGION_BAR2,
	VD_REGION_BAR3,
	VD_REGION_BAR4,
	VD_REGION_BAR5,
	VD_REGION_ROM,
	VD_REGION_CONFIG,
	VD_REGION_VGA,
	VD_NUM_REGIONS,
};

#define VD_NUM_BARS		6

#define VD_REGION_READABLE	(1u << 0)
#define VD_REGION_WRITABLE	(1u << 1)
#define VD_REGION_MAPPABLE	(1u << 2)
#define VD_REGION_CAPS		(1u << 3)

struct vd_region_info {
	uint32_t argsz;
	uint32_t flags;			/* VD_REGION_* */
	uint32_t index;
	uint32_t cap_offset;		/* from the start of this struct */
	uint64_t size;
	uint64_t offset;		/* in the fd */
};

#define VD_CAP_SPARSE		1

struct vd_cap {
	uint16_t id;
	uint16_t version;
	uint32_t next;			/* from the start of vd_region_info */
};

struct vd_cap_sparse {			/* then nr_areas x vd_area */
	struct vd_cap cap;
	uint32_t nr_areas;
	uint32_t reserved;
};

struct vd_area {
	uint64_t offset;
	uint64_t size;
};

struct vd_region_io_fds {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

enum vd_irq {
	VD_IRQ_INTX,
	VD_IRQ_MSI,
	VD_IRQ_MSIX,
	VD_IRQ_ERR,
	VD_IRQ_REQ,
	VD_NUM_IRQS,
};

#define VD_IRQ_INFO_EVENTFD	(1u << 0)
#define VD_IRQ_INFO_MASKABLE	(1u << 1)
#define VD_IRQ_INFO_AUTOMASKED	(1u << 2)
#define VD_IRQ_INFO_NORESIZE	(1u << 3)

struct vd_irq_info {
	uint32_t argsz;
	uint32_t flags;			/* VD_IRQ_INFO_* */
	uint32_t index;
	uint32_t count;
};

#define VD_IRQ_DATA_NONE	(1u << 0)
#define VD_IRQ_DATA_BOOL	(1u << 1)
#define VD_IRQ_DATA_EVENTFD	(1u << 2)
#define VD_IRQ_DATA_MASK	0x07u
#define VD_IRQ_ACT_MASK		(1u << 3)
#define VD_IRQ_ACT_UNMASK	(1u << 4)
#define VD_IRQ_ACT_TRIGGER	(1u << 5)
#define VD_IRQ_ACTION_MASK	0x38u

struct vd_irq_set {			/* then count bytes for DATA_BOOL */
	uint32_t argsz;
	uint32_t flags;			/* one VD_IRQ_DATA_*, one VD_IRQ_ACT_* */
	uint32_t index;
	uint32_t start;
	uint32_t count;
};

struct vd_region_access {		/* then count bytes of data */
	uint64_t offset;
	uint32_t region;
	uint32_t count;
};

struct vd_dma_access {			/* then count bytes of data */
	uint64_t addr;
	uint64_t count;
};

struct vd_write_multi {			/* then count x vd_write_one */
	uint64_t count;
};

struct vd_write_one {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	uint8_t data[8];
};

struct vd_feature {
	uint32_t argsz;
	uint32_t flags;
};

#ifdef __cplusplus
#define VD__ASSERT_SIZE(type, size)	static_assert(sizeof(type) == size, #type)
#else
#define VD__ASSERT_SIZE(type, size)	_Static_assert(sizeof(type) == size, #type)
#endif
VD__ASSERT_SIZE(struct vd_hdr, 16);
VD__ASSERT_SIZE(struct vd_version, 4);
VD__ASSERT_SIZE(struct vd_dma_map, 32);
VD__ASSERT_SIZE(struct vd_dma_unmap, 24);
VD__ASSERT_SIZE(struct vd_device_info, 16);
VD__ASSERT_SIZE(struct vd_region_info, 32);
VD__ASSERT_SIZE(struct vd_cap_sparse, 16);
VD__ASSERT_SIZE(struct vd_area, 16);
VD__ASSERT_SIZE(struct vd_region_io_fds, 16);
VD__ASSERT_SIZE(struct vd_irq_info, 16);
VD__ASSERT_SIZE(struct vd_irq_set, 20);
VD__ASSERT_SIZE(struct vd_region_access, 16);
VD__ASSERT_SIZE(struct vd_dma_access, 16);
VD__ASSERT_SIZE(struct vd_write_multi, 8);
VD__ASSERT_SIZE(struct vd_write_one, 24);
VD__ASSERT_SIZE(struct vd_feature, 8);
#undef VD__ASSERT_SIZE

/* Limits of ours, and those that hold where the peer names none. */
#define VD_MAX_DATA_XFER	((size_t)1 << 20)
#define VD_MAX_MSG_SIZE		(VD_MAX_DATA_XFER + 64)
#define VD_MAX_MSG_FDS		8	/* what we tell the peer */
#define VD_MAX_FDS		16	/* what we take before we give up */
#define VD_MAX_ERRNO		4095

#endif
