/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <limits.h>
#include <string.h>

#include <libmemtree/memtree.h>

#include "libvfudma/internal.h"

/* The capabilities that the library acts on. */
#define CAP_PM			0x01u
#define CAP_MSI			0x05u
#define CAP_EXPRESS		0x10u
#define CAP_MSIX		0x11u

#define CONFIG_SIZE		256u		/* without extended ones */
#define CAP_HEADER		2u
#define EXT_CAP_HEADER		4u
#define EXT_CAP_MAX_VERSION	15u

#define PM_LEN			8u
#define PM_PMC			0x0003u		/* version 3; no PME, D1, D2 */
#define PM_PMCSR		0x0008u		/* D3hot to D0 is no reset */
#define PM_PMCSR_WMASK		0x0003u		/* power state */

#define MSI_LEN			24u
#define MSI_CTRL		0x0180u		/* 64-bit addresses, masks */
#define MSI_CTRL_WMASK		0x0071u		/* enable, vectors in use */
#define MSI_MAX_VECTORS		32u

#define MSIX_LEN		12u
#define MSIX_CTRL_WMASK		0xc000u		/* enable, mask all */
#define MSIX_MAX_VECTORS	2048u
#define MSIX_ENTRY		16u

/* In front of everything that the device put into its BAR. */
#define MSIX_PRIO		INT_MAX

/* --- the two lists ------------------------------------------------------- */

/* Append a capability of len bytes, header included, to the list. */
static int
cap_append(struct vd_server *s, uint8_t id, size_t len)
{
	struct vd__pci *p = &s->pci;
	uint32_t off = p->cap_end;

	if (len > CONFIG_SIZE - off) {
		errno = ENOSPC;
		return (-1);
	}
	vd__pci_describe(s, off, 1, id);
	vd__pci_describe(s, off + 1, 1, 0);
	vd__pci_describe(s, p->cap_last != 0 ? p->cap_last + 1 : VD__PCI_CAPS,
	    1, off);
	vd__pci_describe(s, VD__PCI_STATUS, 1,
	    p->config[VD__PCI_STATUS] | VD__PCI_STATUS_CAPS);
	p->cap_last = off;
	p->cap_end = (off + (uint32_t)len + 3) & ~3u;
	return ((int)off);
}

static bool
is_busy(const struct vd_server *s, uint32_t cap)
{
	if (s->connected)
		errno = EBUSY;
	else if (cap != 0)
		errno = EEXIST;
	else
		return (false);
	return (true);
}

/* The body of a capability that the library knows nothing about. */
static void
fill(struct vd_server *s, uint32_t off, const uint8_t *data,
    const uint8_t *wmask, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++) {
		vd__pci_describe(s, off + (uint32_t)i, 1, data[i]);
		s->pci.wmask[off + i] = wmask != NULL ? wmask[i] : 0;
	}
}

int
vd_pci_add_cap(struct vd_server *s, uint8_t id, const void *data,
    const void *wmask, size_t len)
{
	int off;

	if (is_busy(s, 0))
		return (-1);
	/* A guest would believe these, and nothing would stand behind them. */
	if (id == 0 || id == CAP_PM || id == CAP_MSI || id == CAP_EXPRESS ||
	    id == CAP_MSIX || (data == NULL && len > 0)) {
		errno = EINVAL;
		return (-1);
	}
	if (len > CONFIG_SIZE) {
		errno = ENOSPC;
		return (-1);
	}
	off = cap_append(s, id, CAP_HEADER + len);
	if (off != -1)
		fill(s, (uint32_t)off + CAP_HEADER, data, wmask, len);
	return (off);
}

int
vd_pci_add_ext_cap(struct vd_server *s, uint16_t id, uint8_t version,
    const void *data, const void *wmask, size_t len)
{
	struct vd__pci *p = &s->pci;
	uint32_t off = p->ext_cap_end, last = p->ext_cap_last;

	if (is_busy(s, 0))
		return (-1);
	if (id == 0 || version > EXT_CAP_MAX_VERSION ||
	    (data == NULL && len > 0)) {
		errno = EINVAL;
		return (-1);
	}
	if (len > VD__CONFIG_MAX ||
	    EXT_CAP_HEADER + len > VD__CONFIG_MAX - off) {
		errno = ENOSPC;
		return (-1);
	}
	/* Bits 31 to 20 of a header are the offset of the next. */
	vd__pci_describe(s, off, 4, (uint32_t)version << 16 | id);
	if (last != 0)
		vd__pci_describe(s, last, 4, off << 20 |
		    (vd__pci_field(p->config + last, 4) & 0xfffff));
	fill(s, off + EXT_CAP_HEADER, data, wmask, len);
	p->ext_cap_last = off;
	p->ext_cap_end = (off + EXT_CAP_HEADER + (uint32_t)len + 3) & ~3u;
	p->config_size = VD__CONFIG_MAX;
	return ((int)off);
}

/* --- those that the library acts on -------------------------------------- */

int
vd_pci_add_pm(struct vd_server *s)
{
	struct vd__pci *p = &s->pci;
	int off;

	if (is_busy(s, p->pm_cap) || (off = cap_append(s, CAP_PM,
	    PM_LEN)) == -1)
		return (-1);
	p->pm_cap = (uint32_t)off;
	vd__pci_describe(s, p->pm_cap + 2, 2, PM_PMC);
	vd__pci_describe(s, p->pm_cap + 4, 2, PM_PMCSR);
	vd__pci_set_field(p->wmask + p->pm_cap + 4, 2, PM_PMCSR_WMASK);
	return (off);
}

int
vd_pci_add_msi(struct vd_server *s, unsigned int vectors)
{
	struct vd__pci *p = &s->pci;
	uint32_t cap, shift = 0;
	int off;

	if (is_busy(s, p->msi_cap))
		return (-1);
	if (vectors == 0 || vectors > MSI_MAX_VECTORS ||
	    (vectors & (vectors - 1)) != 0) {
		errno = EINVAL;
		return (-1);
	}
	if ((off = cap_append(s, CAP_MSI, MSI_LEN)) == -1)
		return (-1);
	while (1u << shift < vectors)
		shift++;
	cap = (uint32_t)off;
	vd__pci_describe(s, cap + VD__MSI_CTRL, 2, MSI_CTRL | shift << 1);
	vd__pci_set_field(p->wmask + cap + VD__MSI_CTRL, 2, MSI_CTRL_WMASK);
	vd__pci_set_field(p->wmask + cap + 4, 4, ~3u);		/* address */
	vd__pci_set_field(p->wmask + cap + 8, 4, ~0u);
	vd__pci_set_field(p->wmask + cap + 12, 2, 0xffff);	/* data */
	vd__pci_set_field(p->wmask + cap + VD__MSI_MASK, 4,
	    UINT32_MAX >> (MSI_MAX_VECTORS - vectors));
	p->msi_vectors = vectors;
	p->msi_cap = cap;
	vd__irq_config(s);
	return (off);
}

/* Do [off, off + len) lie in the BAR, and outside what is mapped of it? */
static bool
fits(const struct vd__bar *bar, uint64_t off, uint64_t len)
{
	if (off % 8 != 0 || len > bar->size || off > bar->size - len)
		return (false);
	/* A client would reach memory there, not us. */
	return (bar->map_len == 0 || off + len <= bar->map_off ||
	    off >= bar->map_off + bar->map_len);
}

/* Make the table and the pending bits, and put them into their BARs. */
static int
msix_show(struct vd_server *s, unsigned int vectors, struct vd__bar *table_bar,
    uint32_t table_off, struct vd__bar *pba_bar, uint32_t pba_off)
{
	struct mt_region *table, *pba;
	int error;

	if (vd__irq_msix_regions(s, vectors, &table, &pba) == -1)
		return (-1);
	if (mt_region_add(table_bar->region, table, table_off,
	    MSIX_PRIO) == -1)
		goto fail;
	if (mt_region_add(pba_bar->region, pba, pba_off, MSIX_PRIO) == -1) {
		error = errno;
		(void)mt_region_del(table);
		errno = error;
		goto fail;
	}
	s->pci.msix_table = table;
	s->pci.msix_pba = pba;
	return (0);
fail:
	error = errno;
	mt_region_put(table);
	mt_region_put(pba);
	errno = error;
	return (-1);
}

int
vd_pci_add_msix(struct vd_server *s, unsigned int vectors,
    unsigned int table_bar, uint32_t table_off, unsigned int pba_bar,
    uint32_t pba_off)
{
	struct vd__pci *p = &s->pci;
	uint64_t table_len = (uint64_t)vectors * MSIX_ENTRY;
	uint64_t pba_len = ((uint64_t)vectors + 63) / 64 * 8;
	struct vd__bar *tb, *pb;
	uint32_t cap;

	if (is_busy(s, p->msix_cap))
		return (-1);
	if (vectors == 0 || vectors > MSIX_MAX_VECTORS) {
		errno = EINVAL;
		return (-1);
	}
	tb = table_bar < VD_NUM_BARS ? vd__pci_region(s, table_bar) : NULL;
	pb = pba_bar < VD_NUM_BARS ? vd__pci_region(s, pba_bar) : NULL;
	if (tb == NULL || pb == NULL) {
		errno = ENOENT;
		return (-1);
	}
	if (((tb->flags | pb->flags) & VD_BAR_IO) != 0 ||
	    !fits(tb, table_off, table_len) || !fits(pb, pba_off, pba_len) ||
	    (tb == pb && table_off < pba_off + pba_len &&
	    pba_off < table_off + table_len)) {
		errno = EINVAL;
		return (-1);
	}
	cap = p->cap_end;
	if (MSIX_LEN > CONFIG_SIZE - cap) {
		errno = ENOSPC;
		return (-1);
	}
	if (msix_show(s, vectors, tb, table_off, pb, pba_off) == -1)
		return (-1);
	(void)cap_append(s, CAP_MSIX, MSIX_LEN);	/* there is room */
	vd__pci_describe(s, cap + VD__MSIX_CTRL, 2, vectors - 1);
	vd__pci_set_field(p->wmask + cap + VD__MSIX_CTRL, 2, MSIX_CTRL_WMASK);
	vd__pci_describe(s, cap + 4, 4, table_off | table_bar);
	vd__pci_describe(s, cap + 8, 4, pba_off | pba_bar);
	p->msix_vectors = vectors;
	p->msix_cap = cap;
	vd__irq_config(s);
	return ((int)cap);
}

/*
 * An endpoint by version 2 of the capability, on a link of four lanes at
 * 8 GT/s: a guest's driver may tell the user if that looks slow.
 */
static const struct express_field {
	uint8_t off;
	uint8_t size;
	uint32_t val;
	uint32_t wmask;
	uint32_t w1c;
} express_fields[] = {
	{ 0x02, 2, 0x0002, 0, 0 },		/* version 2, endpoint */
	{ 0x04, 4, 0x10008000, 0, 0 },		/* FLR, role-based errors */
	{ 0x08, 2, 0x2810, 0x781f, 0 },		/* 512-byte reads */
	{ 0x0a, 2, 0, 0, 0x000f },		/* errors seen */
	{ 0x0c, 4, 0x00400043, 0, 0 },		/* link: x4, 8 GT/s */
	{ 0x10, 2, 0, 0x00cb, 0 },
	{ 0x12, 2, 0x0043, 0, 0 },
	{ 0x24, 4, 0x00000010, 0, 0 },		/* timeouts can be disabled */
	{ 0x28, 2, 0, 0x0010, 0 },
	{ 0x2c, 4, 0x0000000e, 0, 0 },		/* 2.5, 5, 8 GT/s */
	{ 0x30, 2, 0x0003, 0x000f, 0 },
};

#define EXPRESS_LEN		60u

int
vd_pci_add_express(struct vd_server *s)
{
	struct vd__pci *p = &s->pci;
	const struct express_field *f;
	uint32_t cap;
	size_t i;
	int off;

	if (is_busy(s, p->express_cap) || (off = cap_append(s, CAP_EXPRESS,
	    EXPRESS_LEN)) == -1)
		return (-1);
	cap = (uint32_t)off;
	for (i = 0; i < sizeof(express_fields) / sizeof(*f); i++) {
		f = &express_fields[i];
		vd__pci_describe(s, cap + f->off, f->size, f->val);
		vd__pci_set_field(p->wmask + cap + f->off, f->size, f->wmask);
		vd__pci_set_field(p->w1c + cap + f->off, f->size, f->w1c);
	}
	p->express_cap = cap;
	p->config_size = VD__CONFIG_MAX;
	return (off);
}
