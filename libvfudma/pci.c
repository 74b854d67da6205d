/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <libmemtree/memtree.h>

#include "libvfudma/internal.h"

/*
 * Config space is bytes and three masks: what a guest may write (wmask), what
 * a written 1 clears (w1c), and what a reset puts back (initial).  A write of
 * any length is applied byte by byte; only then is it worked out which of the
 * registers that mean something to the rest of the server have changed.  So
 * no width and no alignment is special, and a write can never reach a bit
 * that its mask does not offer.
 */

#define HEADER_COMMAND_WMASK	0x0547u	/* spaces, master, PERR, SERR, INTx */
#define HEADER_STATUS_W1C	0xf900u
#define HEADER_CACHE_LINE	0x0cu
#define HEADER_SUBSYSTEM	0x2cu
#define HEADER_END		0x40u

#define BAR_TYPE_IO		0x1u
#define BAR_TYPE_64		0x4u
#define BAR_TYPE_PREFETCH	0x8u
#define ROM_ENABLE		0x1u
#define ROM_ADDRESS		0xfffff800u

#define DEVCTL_FLR_HIGH		0x80u	/* bit 15, in its upper byte */
#define PMCSR			4u
#define PMCSR_STATE		0x03u
#define PMCSR_D3HOT		0x03u

uint32_t
vd__pci_field(const uint8_t *field, unsigned int size)
{
	uint32_t val = 0;

	while (size-- > 0)
		val = val << 8 | field[size];
	return (val);
}

void
vd__pci_set_field(uint8_t *field, unsigned int size, uint32_t val)
{
	for (; size > 0; size--, val >>= 8)
		*field++ = (uint8_t)val;
}

void
vd__pci_describe(struct vd_server *s, uint32_t off, unsigned int size,
    uint32_t val)
{
	vd__pci_set_field(s->pci.config + off, size, val);
	vd__pci_set_field(s->pci.initial + off, size, val);
}

/* --- life ---------------------------------------------------------------- */

int
vd__pci_init(struct vd_server *s)
{
	struct vd__pci *p = &s->pci;
	unsigned int i;

	memset(p, 0, sizeof(*p));
	p->config_size = 256;
	p->cap_end = HEADER_END;
	p->ext_cap_end = 256;
	for (i = 0; i < VD_NUM_BARS; i++)
		p->bars[i].map_fd = -1;
	p->rom.map_fd = -1;
	vd__pci_set_field(p->wmask + VD__PCI_COMMAND, 2, HEADER_COMMAND_WMASK);
	vd__pci_set_field(p->w1c + VD__PCI_STATUS, 2, HEADER_STATUS_W1C);
	p->wmask[HEADER_CACHE_LINE] = 0xff;
	p->wmask[VD__PCI_LINE] = 0xff;
	return (0);
}

static void
bar_fini(struct vd__bar *bar)
{
	/* Fails only if the device broke the rules; the BAR leaks then. */
	if (bar->space != NULL && mt_space_destroy(bar->space) == -1)
		return;
	mt_region_put(bar->map_region);
	mt_region_put(bar->region);
	memset(bar, 0, sizeof(*bar));
	bar->map_fd = -1;
}

void
vd__pci_fini(struct vd_server *s)
{
	struct vd__pci *p = &s->pci;
	unsigned int i;

	/* The BARs are the device's, and may live on without us. */
	if (p->msix_table != NULL)
		(void)mt_region_del(p->msix_table);
	if (p->msix_pba != NULL)
		(void)mt_region_del(p->msix_pba);
	mt_region_put(p->msix_table);
	mt_region_put(p->msix_pba);
	p->msix_table = p->msix_pba = NULL;
	for (i = 0; i < VD_NUM_BARS; i++)
		bar_fini(&p->bars[i]);
	bar_fini(&p->rom);
}

struct vd__bar *
vd__pci_region(struct vd_server *s, unsigned int index)
{
	struct vd__bar *bar;

	if (index < VD_NUM_BARS)
		bar = &s->pci.bars[index];
	else if (index == VD_REGION_ROM)
		bar = &s->pci.rom;
	else
		return (NULL);
	return (bar->region != NULL ? bar : NULL);
}

/* --- accesses ------------------------------------------------------------ */

/* What the rest of the server acts on. */
struct controls {
	uint32_t command;
	uint32_t pin;
	uint32_t msi;
	uint32_t msi_mask;
	uint32_t msix;
};

static struct controls
get_controls(const struct vd__pci *p)
{
	struct controls c = { 0 };

	c.command = vd__pci_field(p->config + VD__PCI_COMMAND, 2);
	c.pin = p->config[VD__PCI_PIN];
	if (p->msi_cap != 0) {
		c.msi = vd__pci_field(p->config + p->msi_cap +
		    VD__MSI_CTRL, 2);
		c.msi_mask = vd__pci_field(p->config + p->msi_cap +
		    VD__MSI_MASK, 4);
	}
	if (p->msix_cap != 0)
		c.msix = vd__pci_field(p->config + p->msix_cap +
		    VD__MSIX_CTRL, 2);
	return (c);
}

static void
apply_controls(struct vd_server *s, const struct controls *old)
{
	struct controls c = get_controls(&s->pci);

	if ((c.command ^ old->command) & VD__PCI_CMD_MASTER)
		vd__dma_set_master(s,
		    (c.command & VD__PCI_CMD_MASTER) != 0);
	if (((c.command ^ old->command) & VD__PCI_CMD_NO_INTX) != 0 ||
	    c.pin != old->pin || c.msi != old->msi ||
	    c.msi_mask != old->msi_mask || c.msix != old->msix)
		vd__irq_config(s);
}

/* Set bits of the byte at off, if buf, which starts at first, has it. */
static void
patch(uint8_t *buf, uint64_t first, size_t len, uint64_t off, uint8_t set)
{
	if (off >= first && off - first < len)
		buf[off - first] |= set;
}

static void
read_config(const struct vd_server *s, uint64_t off, uint8_t *buf, size_t len)
{
	const struct vd__pci *p = &s->pci;
	uint32_t pending;
	unsigned int i;

	memcpy(buf, p->config + off, len);
	if (off <= VD__PCI_STATUS && off + len > VD__PCI_STATUS &&
	    vd__irq_pin(s))
		patch(buf, off, len, VD__PCI_STATUS, VD__PCI_STATUS_INTX);
	if (p->msi_cap == 0)
		return;
	pending = vd__irq_msi_pending(s);
	for (i = 0; i < 4; i++, pending >>= 8)
		patch(buf, off, len, p->msi_cap + VD__MSI_PENDING + i,
		    (uint8_t)pending);
}

int
vd__pci_read(struct vd_server *s, uint64_t off, void *buf, size_t len)
{
	if (off > s->pci.config_size || len > s->pci.config_size - off)
		return (EINVAL);
	read_config(s, off, buf, len);
	return (0);
}

static void
write_byte(struct vd__pci *p, uint32_t off, uint8_t val)
{
	uint8_t mask = p->wmask[off], byte = p->config[off];

	byte = (uint8_t)((byte & ~mask) | (val & mask));
	byte &= (uint8_t)~(val & p->w1c[off]);
	p->config[off] = byte;
}

int
vd__pci_write(struct vd_server *s, uint64_t off, const void *buf, size_t len)
{
	struct vd__pci *p = &s->pci;
	const uint8_t *b = buf;
	struct controls old = get_controls(p);
	uint8_t state = 0, *pmcsr = NULL;
	uint64_t flr_at;
	bool flr = false;
	size_t i;

	if (off > p->config_size || len > p->config_size - off)
		return (EINVAL);
	if (len == 0)
		return (0);
	if (p->pm_cap != 0) {
		pmcsr = p->config + p->pm_cap + PMCSR;
		state = *pmcsr & PMCSR_STATE;
	}
	for (i = 0; i < len; i++)
		write_byte(p, (uint32_t)(off + i), b[i]);

	/* A power state that we lack is ignored, not an error. */
	if (pmcsr != NULL && (*pmcsr & PMCSR_STATE) != 0 &&
	    (*pmcsr & PMCSR_STATE) != PMCSR_D3HOT)
		*pmcsr = (uint8_t)((*pmcsr & ~PMCSR_STATE) | state);
	/* The FLR bit is an order, not a state: it reads as 0. */
	if (p->express_cap != 0) {
		flr_at = p->express_cap + VD__EXPRESS_DEVCTL + 1;
		flr = flr_at >= off && flr_at - off < len &&
		    (b[flr_at - off] & DEVCTL_FLR_HIGH) != 0;
	}
	apply_controls(s, &old);
	if (s->ops->config_written != NULL)
		s->ops->config_written(s->arg, (uint32_t)off, (uint32_t)len);
	return (flr ? vd__server_reset(s, VD_RESET_FLR) : 0);
}

void
vd__pci_reset(struct vd_server *s)
{
	struct controls old = get_controls(&s->pci);

	memcpy(s->pci.config, s->pci.initial, sizeof(s->pci.config));
	apply_controls(s, &old);
}

/* May the device access this register?  errno is set if not. */
static bool
good_register(const struct vd_server *s, uint32_t off, unsigned int size)
{
	if ((size != 1 && size != 2 && size != 4) || off % size != 0 ||
	    off >= s->pci.config_size) {
		errno = EINVAL;
		return (false);
	}
	return (true);
}

uint32_t
vd_pci_config_get(const struct vd_server *s, uint32_t off, unsigned int size)
{
	uint8_t buf[4];

	if (!good_register(s, off, size))
		return (UINT32_MAX);
	read_config(s, off, buf, size);
	return (vd__pci_field(buf, size));
}

int
vd_pci_config_set(struct vd_server *s, uint32_t off, unsigned int size,
    uint32_t val)
{
	struct controls old = get_controls(&s->pci);

	if (!good_register(s, off, size))
		return (-1);
	vd__pci_set_field(s->pci.config + off, size, val);
	/* Without a client this describes the device, so a reset keeps it. */
	if (!s->connected)
		vd__pci_set_field(s->pci.initial + off, size, val);
	apply_controls(s, &old);
	return (0);
}

/* --- identity ------------------------------------------------------------ */

int
vd_pci_set_id(struct vd_server *s, uint16_t vendor, uint16_t device,
    uint16_t subvendor, uint16_t subdevice)
{
	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	vd__pci_describe(s, 0, 2, vendor);
	vd__pci_describe(s, 2, 2, device);
	vd__pci_describe(s, HEADER_SUBSYSTEM, 2, subvendor);
	vd__pci_describe(s, HEADER_SUBSYSTEM + 2, 2, subdevice);
	return (0);
}

int
vd_pci_set_class(struct vd_server *s, uint32_t class_code, uint8_t revision)
{
	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	if (class_code > 0xffffff) {
		errno = EINVAL;
		return (-1);
	}
	vd__pci_describe(s, 8, 4, class_code << 8 | revision);
	return (0);
}

int
vd_pci_set_intx(struct vd_server *s, unsigned int pin)
{
	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	if (pin < 1 || pin > 4) {
		errno = EINVAL;
		return (-1);
	}
	vd__pci_describe(s, VD__PCI_PIN, 1, pin);
	vd__irq_config(s);
	return (0);
}

/* --- BARs ---------------------------------------------------------------- */

/* Check what holds for every BAR, then make its space. */
static int
bar_init(struct vd_server *s, struct vd__bar *bar, struct mt_region *region,
    uint64_t min, unsigned int flags, const char *name)
{
	uint64_t size = mt_region_last(region) + 1;	/* 0: 2^64 */

	if ((size & (size - 1)) != 0 || size < min ||
	    (size > UINT32_MAX && (flags & VD_BAR_64) == 0)) {
		errno = EINVAL;
		return (-1);
	}
	if (mt_region_topology(region) != s->topology) {
		errno = EXDEV;
		return (-1);
	}
	bar->space = mt_space_create(region, name);
	if (bar->space == NULL)
		return (-1);
	bar->region = mt_region_get(region);
	bar->size = size;
	bar->flags = flags;
	return (0);
}

int
vd_pci_set_bar(struct vd_server *s, unsigned int bar,
    struct mt_region *region, unsigned int flags)
{
	char name[] = "bar0";
	struct vd__bar *b;
	uint32_t reg, type;
	uint64_t mask;

	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	if (bar >= VD_NUM_BARS ||
	    (flags & ~(VD_BAR_IO | VD_BAR_64 | VD_BAR_PREFETCH)) != 0 ||
	    ((flags & VD_BAR_IO) != 0 && flags != VD_BAR_IO) ||
	    ((flags & VD_BAR_64) != 0 && bar == VD_NUM_BARS - 1)) {
		errno = EINVAL;
		return (-1);
	}
	b = &s->pci.bars[bar];
	if (b->region != NULL || b->upper ||
	    ((flags & VD_BAR_64) != 0 && b[1].region != NULL)) {
		errno = EEXIST;
		return (-1);
	}
	name[3] = (char)('0' + bar);
	if (bar_init(s, b, region, flags & VD_BAR_IO ? 4 : 16, flags,
	    name) == -1)
		return (-1);

	reg = VD__PCI_BAR0 + 4 * bar;
	mask = ~(b->size - 1);
	type = (flags & VD_BAR_IO ? BAR_TYPE_IO : 0) |
	    (flags & VD_BAR_64 ? BAR_TYPE_64 : 0) |
	    (flags & VD_BAR_PREFETCH ? BAR_TYPE_PREFETCH : 0);
	vd__pci_describe(s, reg, 4, type);
	vd__pci_set_field(s->pci.wmask + reg, 4, (uint32_t)mask);
	if (flags & VD_BAR_64) {
		b[1].upper = true;
		vd__pci_describe(s, reg + 4, 4, 0);
		vd__pci_set_field(s->pci.wmask + reg + 4, 4,
		    (uint32_t)(mask >> 32));
	}
	return (0);
}

int
vd_pci_set_rom(struct vd_server *s, struct mt_region *region)
{
	struct vd__bar *rom = &s->pci.rom;

	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	if (rom->region != NULL) {
		errno = EEXIST;
		return (-1);
	}
	if (bar_init(s, rom, region, 2048, 0, "rom") == -1)
		return (-1);
	vd__pci_describe(s, VD__PCI_ROM, 4, 0);
	vd__pci_set_field(s->pci.wmask + VD__PCI_ROM, 4,
	    ((uint32_t)~(rom->size - 1) & ROM_ADDRESS) | ROM_ENABLE);
	return (0);
}

/*
 * A client can map no less than a page.  So what is smaller is shared only if
 * it is all of its BAR, begins a page of its file, and nothing but zeroes
 * follow it in that page, with which the file ends.
 */
static bool
has_page(const struct vd__bar *bar, const struct mt_section *sec, int fd,
    off_t fd_off, uint64_t page)
{
	uint8_t rest[256];
	struct stat st;
	ssize_t n;
	off_t at;

	if (sec->range.first != 0 || sec->range.last != bar->size - 1 ||
	    sec->off != 0 || mt_region_last(sec->region) != bar->size - 1 ||
	    (uint64_t)fd_off % page != 0 || fstat(fd, &st) == -1 ||
	    !S_ISREG(st.st_mode) || st.st_size > fd_off + (off_t)page)
		return (false);
	for (at = fd_off + (off_t)bar->size; at < st.st_size; at += n) {
		n = pread(fd, rest, sizeof(rest), at);
		if (n <= 0)
			return (false);
		for (ssize_t i = 0; i < n; i++)
			if (rest[i] != 0)
				return (false);
	}
	return (true);
}

/* Is sec a piece of a file that a client may map, read and write? */
static bool
shareable(const struct vd__bar *bar, const struct mt_section *sec,
    struct mt_range part, int *fd, off_t *fd_off)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int flags;

	if (sec->range.first != part.first || sec->range.last != part.last ||
	    mt_region_kind(sec->region) != MT_RAM ||
	    (sec->flags & MT_SECTION_READONLY) != 0)
		return (false);
	*fd = mt_region_fd(sec->region, fd_off);
	if (*fd == -1)
		return (false);
	flags = fcntl(*fd, F_GETFL);
	if (flags == -1 || (flags & O_ACCMODE) != O_RDWR)
		return (false);
	*fd_off += (off_t)sec->off;
	if (bar->size < page)
		return (has_page(bar, sec, *fd, *fd_off, page));
	return (part.first % page == 0 && (part.last + 1) % page == 0 &&
	    (uint64_t)*fd_off % page == 0);
}

int
vd_pci_share_bar(struct vd_server *s, unsigned int bar, struct mt_range part)
{
	struct mt_section sec;
	struct vd__bar *b;
	off_t fd_off;
	int fd;

	if (s->connected) {
		errno = EBUSY;
		return (-1);
	}
	if (bar >= VD_NUM_BARS || (b = vd__pci_region(s, bar)) == NULL) {
		errno = ENOENT;
		return (-1);
	}
	if (b->map_len != 0) {
		errno = EEXIST;
		return (-1);
	}
	if (part.first > part.last || part.last >= b->size ||
	    mt_space_find(b->space, part, &sec) == -1) {
		errno = EINVAL;
		return (-1);
	}
	if (!shareable(b, &sec, part, &fd, &fd_off)) {
		mt_region_put(sec.region);
		errno = EINVAL;
		return (-1);
	}
	b->map_region = sec.region;	/* with the reference from the find */
	b->map_fd = fd;
	b->map_fd_off = fd_off - (off_t)part.first;
	b->map_off = part.first;
	b->map_len = part.last - part.first + 1;
	return (0);
}
