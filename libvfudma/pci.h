/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_PCI_H
#define LIBVFUDMA_PCI_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;
struct vd_server;

/*
 * The PCI face of a server's device: a type 0 configuration header, BARs that
 * are regions of a memory tree, and capabilities.  Describe the device before
 * a client connects; every call below fails with EBUSY while one is.
 *
 * Config space is 256 bytes, or 4096 once vd_pci_add_express() or
 * vd_pci_add_ext_cap() has been called.  The library emulates it: sizing of
 * BARs, the command register, and what the guest may write of capabilities.
 * Any width at any offset is accepted, as on a real bus.
 */

/*
 * Set the identity of the device: vendor, device and subsystem IDs; class
 * code (24 bits, base class first: 0x010802 is NVMe) and revision.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY, EINVAL (a class beyond 24 bits).
 * Since:   0.1
 */
int	vd_pci_set_id(struct vd_server *s, uint16_t vendor, uint16_t device,
	    uint16_t subvendor, uint16_t subdevice);
int	vd_pci_set_class(struct vd_server *s, uint32_t class_code,
	    uint8_t revision);

#define VD_BAR_IO		(1u << 0)	/* I/O ports, else memory */
#define VD_BAR_64		(1u << 1)	/* takes the next BAR, too */
#define VD_BAR_PREFETCH		(1u << 2)

/*
 * Make region BAR number bar, or the expansion ROM.  Guest accesses go
 * through a space on the region, so all that libmemtree can show works:
 * subregions, RAM, ROM, aliases, holes.
 *
 * Units:   bar is 0 to 5; the region's size must be a power of two, at least
 *          16 bytes (4 for I/O, 2048 for the ROM), below 4 GiB unless
 *          VD_BAR_64.
 * Owns:    keeps a reference to region.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY, EEXIST (that BAR is set, or taken by the one before), EINVAL
 *          (bar, size or flags), EXDEV (of another topology), ENOMEM.
 * Since:   0.1
 */
int	vd_pci_set_bar(struct vd_server *s, unsigned int bar,
	    struct mt_region *region, unsigned int flags);
int	vd_pci_set_rom(struct vd_server *s, struct mt_region *region);

/*
 * Let the client map part of a BAR, so that its accesses reach memory without
 * a message.  The part must be memory with a file (MT_BACKING_MEMFD), page
 * aligned in the BAR and in its file, and shown by the BAR as it is now.  One
 * part a BAR: clients do not agree on how to be sent more than one.  Best it
 * is at the same offset in both, so that clients' sums need not wrap.
 *
 * A BAR smaller than a page is shared as a whole, and only if nothing else is
 * in the page that the client gets with it: its memory must be one region of
 * its size, at the start of the last page of a file, with zeroes behind it.
 *
 * Units:   part is offsets in the BAR, inclusive.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY, ENOENT (no such BAR), EEXIST (has a part), EINVAL (part is
 *          not aligned, or not one piece of such memory).
 * Since:   0.1
 */
int	vd_pci_share_bar(struct vd_server *s, unsigned int bar,
	    struct mt_range part);

/*
 * Give the device an interrupt pin: 1 (INTA) to 4.
 *
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY, EINVAL.
 * Since:   0.1
 */
int	vd_pci_set_intx(struct vd_server *s, unsigned int pin);

/*
 * Add a capability, after those that were added before: power management,
 * MSI with 64-bit addresses and masks, MSI-X, PCI Express (an endpoint with
 * FLR).  vd_pci_add_msix() puts the vector table and the pending bits into
 * the BARs as subregions at the offsets given; both take whole 8-byte words.
 *
 * Units:   vectors of MSI is a power of two up to 32, of MSI-X up to 2048;
 *          offsets are bytes, multiples of 8.
 * Returns: the offset of the capability in config space, or -1 with errno set.
 * Errors:  EBUSY, EEXIST (the device has that one), EINVAL (vectors or an
 *          offset), ENOENT (a BAR is not set), ENOSPC (no room), ENOMEM.
 * Since:   0.1
 */
int	vd_pci_add_pm(struct vd_server *s);
int	vd_pci_add_msi(struct vd_server *s, unsigned int vectors);
int	vd_pci_add_msix(struct vd_server *s, unsigned int vectors,
	    unsigned int table_bar, uint32_t table_off,
	    unsigned int pba_bar, uint32_t pba_off);
int	vd_pci_add_express(struct vd_server *s);

/*
 * Add a capability that the library knows nothing about: len bytes of data
 * that follow its header (ID and next pointer; for an extended one the 4-byte
 * header).  The guest may write the bits that are set in wmask, NULL for none.
 *
 * Units:   len is bytes; for a vendor capability (ID 9) the length byte after
 *          the header is part of data.
 * Owns:    data and wmask are copied.
 * Returns, Errors: as above.
 * Since:   0.1
 */
int	vd_pci_add_cap(struct vd_server *s, uint8_t id, const void *data,
	    const void *wmask, size_t len);
int	vd_pci_add_ext_cap(struct vd_server *s, uint16_t id, uint8_t version,
	    const void *data, const void *wmask, size_t len);

/*
 * Read or write config space from the device's side: 1, 2 or 4 bytes, naturally
 * aligned; writes take effect regardless of what the guest may write.
 *
 * Units:   off is bytes from the start of config space.
 * Context: the thread that runs the server; also while a client is connected.
 * Returns: the value, all ones if off or size is bad; 0, or -1 with EINVAL.
 * Since:   0.1
 */
uint32_t vd_pci_config_get(const struct vd_server *s, uint32_t off,
	    unsigned int size);
int	vd_pci_config_set(struct vd_server *s, uint32_t off, unsigned int size,
	    uint32_t val);

#ifdef __cplusplus
}
#endif

#endif
