/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The PCI face of a device: config space, BARs, capabilities. */

#include <sys/mman.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <libvfudma/vfudma.h>

#include "libvfudma/internal.h"
#include "t/util.h"

#define GIB	((uint64_t)1 << 30)

struct dev {
	struct mt_topology *t;
	struct vd_server *s;
	struct mt_region *regs;		/* RAM, to be made a BAR */
	unsigned int resets;
	enum vd_reset why;
	unsigned int writes;		/* calls of config_written */
	uint32_t off, len;		/* of the last */
};

static void
on_reset(void *arg, enum vd_reset why)
{
	struct dev *d = arg;

	d->resets++;
	d->why = why;
}

static void
on_config_written(void *arg, uint32_t off, uint32_t len)
{
	struct dev *d = arg;

	d->writes++;
	d->off = off;
	d->len = len;
}

static const struct vd_device_ops ops = {
	.reset = on_reset,
	.config_written = on_config_written,
};

static void
dev_init(struct dev *d)
{
	memset(d, 0, sizeof(*d));
	d->t = t_topology();
	d->s = vd_server_create(d->t, &ops, d);
	must(d->s != NULL);
	d->regs = t_ram(d->t, "regs", 0x4000);
}

static void
dev_fini(struct dev *d)
{
	vd_server_destroy(d->s);
	mt_region_put(d->regs);
	t_end(d->t);
}

/* The guest's accesses of 1 to 4 bytes. */
static uint32_t
guest_read(struct dev *d, uint32_t off, unsigned int size)
{
	uint8_t b[4] = { 0 };

	must(vd__pci_read(d->s, off, b, size) == 0);
	return (vd__pci_field(b, size));
}

static void
guest_write(struct dev *d, uint32_t off, unsigned int size, uint32_t val)
{
	uint8_t b[4];

	vd__pci_set_field(b, size, val);
	must(vd__pci_write(d->s, off, b, size) == 0);
}

/* Write all ones, see what stuck, and put zeros there. */
static uint32_t
guest_size(struct dev *d, uint32_t off)
{
	uint32_t val;

	guest_write(d, off, 4, 0xffffffff);
	val = guest_read(d, off, 4);
	guest_write(d, off, 4, 0);
	return (val);
}

static struct mt_region *
memfd_ram(struct dev *d, const char *name, uint64_t size)
{
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct mt_region *r;

	r = mt_region_create_ram(d->t, name, MT_SIZE(size), &memfd);
	must(r != NULL);
	return (r);
}

/* --- the header ---------------------------------------------------------- */

static void
test_identity(void)
{
	struct dev d;

	dev_init(&d);
	works(vd_pci_set_id(d.s, 0x1234, 0x5678, 0x9abc, 0xdef0),
	    "IDs are set");
	works(vd_pci_set_class(d.s, 0x010802, 7), "the class is set");
	fails(vd_pci_set_class(d.s, 0x1000000, 0), EINVAL,
	    "a class of more than 24 bits is refused");
	is_hex(guest_read(&d, 0, 4), 0x56781234, "vendor and device read back");
	is_hex(guest_read(&d, 8, 4), 0x01080207, "class and revision do");
	is_hex(guest_read(&d, 0x2c, 4), 0xdef09abc, "the subsystem does");
	is_hex(guest_read(&d, 0x0e, 1), 0, "the header is of type 0");
	is_hex(guest_read(&d, 4, 4), 0, "command and status start at 0");
	guest_write(&d, 0, 4, 0xffffffff);
	guest_write(&d, 8, 4, 0xffffffff);
	is_hex(guest_read(&d, 0, 4), 0x56781234, "a guest cannot write IDs");
	is_hex(guest_read(&d, 8, 4), 0x01080207, "nor the class");

	fails(vd_pci_set_intx(d.s, 0), EINVAL, "there is no pin 0");
	fails(vd_pci_set_intx(d.s, 5), EINVAL, "nor a pin 5");
	works(vd_pci_set_intx(d.s, 4), "pin 4 is INTD");
	works(vd_pci_set_intx(d.s, 1), "the pin can be set again");
	guest_write(&d, 0x3c, 4, 0xffffffff);
	is_hex(guest_read(&d, 0x3c, 4), 0x000001ff,
	    "the interrupt line can be written, the pin cannot");
	dev_fini(&d);
}

static void
test_get_set(void)
{
	struct dev d;

	dev_init(&d);
	works(vd_pci_config_set(d.s, 0x40, 4, 0x44332211), "the device writes");
	is_hex(vd_pci_config_get(d.s, 0x40, 4), 0x44332211, "4 bytes read");
	is_hex(vd_pci_config_get(d.s, 0x42, 2), 0x4433, "2 bytes read");
	is_hex(vd_pci_config_get(d.s, 0x41, 1), 0x22, "1 byte reads");
	is_hex(vd_pci_config_get(d.s, 0x41, 2), 0xffffffff,
	    "an unaligned get gives ones");
	is_hex(vd_pci_config_get(d.s, 0x40, 3), 0xffffffff, "a size of 3 too");
	is_hex(vd_pci_config_get(d.s, 0x40, 8), 0xffffffff, "a size of 8 too");
	is_hex(vd_pci_config_get(d.s, 256, 1), 0xffffffff,
	    "one past the end too");
	is_hex(vd_pci_config_get(d.s, UINT32_MAX - 3, 4), 0xffffffff,
	    "one near the end of numbers too");
	fails(vd_pci_config_set(d.s, 0x42, 4, 0), EINVAL,
	    "an unaligned set fails");
	fails(vd_pci_config_set(d.s, 256, 4, 0), EINVAL,
	    "one past the end fails");
	fails(vd_pci_config_set(d.s, 0, 0, 0), EINVAL, "an empty one fails");
	guest_write(&d, 0x40, 4, 0);
	is_hex(guest_read(&d, 0x40, 4), 0x44332211,
	    "a guest cannot write what has no mask");

	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_hex(guest_read(&d, 0x40, 4), 0x44332211,
	    "what was set without a client is the state after a reset");
	d.s->connected = true;
	works(vd_pci_config_set(d.s, 0x40, 4, 5), "set with a client");
	is_hex(guest_read(&d, 0x40, 4), 5, "it is seen");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	d.s->connected = false;
	is_hex(guest_read(&d, 0x40, 4), 0x44332211, "a reset forgets it");
	dev_fini(&d);
}

static void
test_odd_accesses(void)
{
	uint8_t all[4096], again[4096];
	struct dev d;

	dev_init(&d);
	works(vd_pci_set_intx(d.s, 1), "the device has a pin");
	ok(vd_pci_add_express(d.s) > 0, "and 4096 bytes of config space");
	guest_write(&d, 0x0c, 2, 0xffff);
	is_hex(guest_read(&d, 0x0c, 4), 0xff,
	    "2 bytes at 0x0c reach the cache line size");
	guest_write(&d, 4, 4, 0xffffffff);
	is_hex(guest_read(&d, 4, 2), 0x0547, "a dword reaches the command");
	guest_write(&d, 5, 1, 0);
	is_hex(guest_read(&d, 4, 2), 0x0047, "a byte reaches its upper half");
	guest_write(&d, 3, 3, 0);
	is_hex(guest_read(&d, 4, 2), 0, "3 bytes at 3 reach the command");

	memset(all, 0xff, sizeof(all));
	is_int(vd__pci_write(d.s, 0, all, sizeof(all)), 0,
	    "all of config space is written in one piece");
	is_int(d.len, 4096, "and the device told of it");
	ok(d.resets == 1 && d.why == VD_RESET_FLR,
	    "and as FLR was among it, reset");
	is_hex(guest_read(&d, 4, 2), 0, "which leaves nothing of it");
	is_int(vd__pci_read(d.s, 0, all, sizeof(all)), 0,
	    "all of it is read in one piece");
	is_int(vd__pci_read(d.s, 1, again + 1, sizeof(all) - 1), 0,
	    "or all but the first byte");
	again[0] = all[0];
	is_mem(again, all, sizeof(all), "with the same outcome");

	d.writes = 0;
	is_int(vd__pci_write(d.s, 4096, all, 0), 0, "no bytes can be written");
	is_int(d.writes, 0, "and nobody is told");
	is_int(vd__pci_write(d.s, 4096, all, 1), EINVAL, "none past the end");
	is_int(vd__pci_write(d.s, 4095, all, 2), EINVAL, "nor across it");
	is_int(vd__pci_write(d.s, UINT64_MAX, all, 1), EINVAL, "nor far away");
	is_int(vd__pci_write(d.s, 1, all, SIZE_MAX), EINVAL,
	    "nor a number that wraps");
	is_int(vd__pci_read(d.s, 4095, all, 2), EINVAL, "nor read");
	is_int(vd__pci_read(d.s, UINT64_MAX, all, 1), EINVAL, "nor far away");
	is_int(vd__pci_read(d.s, 8, all, SIZE_MAX - 4), EINVAL,
	    "nor a number that wraps");
	is_int(d.writes, 0, "and nobody is told of those");
	dev_fini(&d);
}

static void
test_status(void)
{
	struct dev d;

	dev_init(&d);
	works(vd_pci_set_intx(d.s, 1), "the device has a pin");
	d.s->connected = true;
	works(vd_pci_config_set(d.s, 6, 2, 0xf900), "all errors are set");
	guest_write(&d, 6, 2, 0);
	is_hex(guest_read(&d, 6, 2), 0xf900, "zeros clear none");
	guest_write(&d, 6, 2, 0x8100);
	is_hex(guest_read(&d, 6, 2), 0x7800, "ones clear theirs");
	guest_write(&d, 4, 2, 0x0400);
	is_hex(guest_read(&d, 6, 2), 0x7800,
	    "a write of the command leaves the status");
	guest_write(&d, 4, 4, 0xffff0000);
	is_hex(guest_read(&d, 4, 4), 0, "a dword writes both");

	works(vd_irq_set_intx(d.s, true), "the pin rises");
	is_hex(guest_read(&d, 6, 2), 0x0008, "the status shows it");
	is_hex(guest_read(&d, 4, 4), 0x00080000, "also in a dword");
	is_hex(guest_read(&d, 6, 1), 0x08, "also in a byte");
	is_hex(guest_read(&d, 7, 1), 0, "not in the next");
	is_hex(vd_pci_config_get(d.s, 6, 2), 8, "and to the device");
	guest_write(&d, 4, 4, 0xffff0400);
	is_hex(guest_read(&d, 4, 4), 0x00080400,
	    "interrupt disable does not hide the level, nor a one clear it");
	works(vd_irq_set_intx(d.s, false), "the pin falls");
	is_hex(guest_read(&d, 6, 2), 0, "the status shows it");
	works(vd_irq_set_intx(d.s, true), "the pin rises");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_hex(guest_read(&d, 4, 4), 0, "a reset lowers it");
	d.s->connected = false;
	dev_fini(&d);
}

/* --- BARs ---------------------------------------------------------------- */

static void
test_bars(void)
{
	struct mt_region *huge, *big, *io, *rom;
	struct dev d;

	dev_init(&d);
	huge = t_container(d.t, "huge", 8 * GIB);
	big = t_container(d.t, "big", 2 * GIB);
	io = t_container(d.t, "io", 4);
	rom = t_rom(d.t, "rom", 0x10000);
	works(vd_pci_set_bar(d.s, 0, d.regs, VD_BAR_64), "a 64-bit BAR");
	works(vd_pci_set_bar(d.s, 2, big, VD_BAR_PREFETCH), "a 2 GiB BAR");
	works(vd_pci_set_bar(d.s, 3, io, VD_BAR_IO), "an I/O BAR");
	works(vd_pci_set_bar(d.s, 4, huge, VD_BAR_64 | VD_BAR_PREFETCH),
	    "an 8 GiB BAR");
	works(vd_pci_set_rom(d.s, rom), "a ROM");
	is_hex(guest_read(&d, 0x10, 4), 0x4, "type bits show at once");
	is_hex(guest_size(&d, 0x10), 0xffffc004, "BAR 0 is 16 KiB");
	is_hex(guest_size(&d, 0x14), 0xffffffff, "above 4 GiB too");
	is_hex(guest_size(&d, 0x18), 0x80000008, "BAR 2 is 2 GiB");
	is_hex(guest_size(&d, 0x1c), 0xfffffffd, "BAR 3 is 4 ports");
	is_hex(guest_size(&d, 0x20), 0x0000000c, "BAR 4 has no low half");
	is_hex(guest_size(&d, 0x24), 0xfffffffe, "its upper half is 8 GiB");
	is_hex(guest_size(&d, 0x30), 0xffff0001, "the ROM is 64 KiB");
	guest_write(&d, 0x30, 4, 0xfffff800);
	is_hex(guest_read(&d, 0x30, 4), 0xffff0000,
	    "it is sized with the enable bit off, as QEMU does");
	is_hex(guest_read(&d, 0x10, 4), 0x4, "type bits have survived");
	guest_write(&d, 0x11, 2, 0xffff);
	is_hex(guest_read(&d, 0x10, 4), 0x00ffc004,
	    "BARs may be written in parts");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_hex(guest_read(&d, 0x10, 4), 0x4, "a reset empties them");
	is_hex(guest_read(&d, 0x20, 4), 0xc, "all of them");

	ok(vd__pci_region(d.s, 0) != NULL && vd__pci_region(d.s, 4) != NULL &&
	    vd__pci_region(d.s, VD_REGION_ROM) != NULL,
	    "the BARs and the ROM are found");
	ok(vd__pci_region(d.s, 1) == NULL && vd__pci_region(d.s, 5) == NULL &&
	    vd__pci_region(d.s, VD_REGION_CONFIG) == NULL &&
	    vd__pci_region(d.s, UINT32_MAX) == NULL,
	    "upper halves, config space and nonsense are not");
	mt_region_put(huge);
	mt_region_put(big);
	mt_region_put(io);
	mt_region_put(rom);
	dev_fini(&d);
}

static void
test_bar_errors(void)
{
	struct mt_topology *other = t_topology();
	struct mt_region *odd, *tiny, *g4, *all, *foreign;
	struct dev d;

	dev_init(&d);
	odd = t_container(d.t, "odd", 0x3000);
	tiny = t_container(d.t, "tiny", 8);
	g4 = t_container(d.t, "4g", 4 * GIB);
	all = mt_region_create_container(d.t, "all", MT_LAST_MAX);
	foreign = t_container(other, "foreign", 0x1000);
	must(all != NULL);
	fails(vd_pci_set_bar(d.s, 6, d.regs, 0), EINVAL, "no BAR 6");
	fails(vd_pci_set_bar(d.s, UINT32_MAX, d.regs, 0), EINVAL,
	    "no BAR -1");
	fails(vd_pci_set_bar(d.s, 0, odd, 0), EINVAL, "not 12 KiB");
	fails(vd_pci_set_bar(d.s, 0, tiny, 0), EINVAL, "not 8 bytes");
	works(vd_pci_set_bar(d.s, 3, tiny, VD_BAR_IO), "8 ports do");
	fails(vd_pci_set_bar(d.s, 0, g4, 0), EINVAL, "not 4 GiB in 32 bits");
	fails(vd_pci_set_bar(d.s, 0, all, VD_BAR_64), EINVAL,
	    "not all addresses");
	fails(vd_pci_set_bar(d.s, 0, d.regs, 8), EINVAL, "no unknown flag");
	fails(vd_pci_set_bar(d.s, 0, d.regs, VD_BAR_IO | VD_BAR_64), EINVAL,
	    "no 64-bit ports");
	fails(vd_pci_set_bar(d.s, 0, d.regs, VD_BAR_IO | VD_BAR_PREFETCH),
	    EINVAL, "no prefetchable ports");
	fails(vd_pci_set_bar(d.s, 5, d.regs, VD_BAR_64), EINVAL,
	    "nothing after BAR 5");
	fails(vd_pci_set_bar(d.s, 0, foreign, 0), EXDEV,
	    "no region of another topology");
	fails(vd_pci_set_bar(d.s, 2, d.regs, VD_BAR_64), EEXIST,
	    "no 64-bit BAR if the next is set");
	works(vd_pci_set_bar(d.s, 0, g4, VD_BAR_64), "4 GiB in 64 bits do");
	fails(vd_pci_set_bar(d.s, 0, d.regs, 0), EEXIST, "not twice");
	fails(vd_pci_set_bar(d.s, 1, d.regs, 0), EEXIST,
	    "not in an upper half");
	fails(vd_pci_set_rom(d.s, tiny), EINVAL, "a ROM has 2 KiB");
	fails(vd_pci_set_rom(d.s, odd), EINVAL, "and a power of two");
	works(vd_pci_set_rom(d.s, d.regs), "RAM may be a ROM");
	fails(vd_pci_set_rom(d.s, d.regs), EEXIST, "but only one");
	is_hex(guest_size(&d, 0x18), 0, "what failed left no trace");
	mt_region_put(odd);
	mt_region_put(tiny);
	mt_region_put(g4);
	mt_region_put(all);
	mt_region_put(foreign);
	t_end(other);
	dev_fini(&d);
}

static void
test_share(void)
{
	struct mt_region *bar, *shared, *rom, *alias;
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct vd__bar *b;
	struct dev d;

	dev_init(&d);
	bar = t_container(d.t, "bar", 0x10000);
	shared = memfd_ram(&d, "shared", 0x4000);
	rom = mt_region_create_rom(d.t, "rom", MT_SIZE(0x1000), &memfd);
	must(rom != NULL);
	t_add(bar, 0x8000, 0, rom);
	t_add(bar, 0x9000, 0, t_ram(d.t, "anon", 0x1000));
	t_add(bar, 0xa800, 0, memfd_ram(&d, "half", 0x1800));
	alias = t_add(bar, 0x1000, 0, t_alias(d.t, "alias", shared, 0x2000,
	    0x2000));
	works(vd_pci_set_bar(d.s, 0, bar, 0), "a BAR of many parts");
#define SHARE(n, first, last) \
	vd_pci_share_bar(d.s, n, (struct mt_range){ first, last })
	fails(SHARE(1, 0, 0xfff), ENOENT, "no BAR 1");
	fails(SHARE(9, 0, 0xfff), ENOENT, "no BAR 9");
	fails(SHARE(0, 0, 0xfff), EINVAL, "not a hole");
	fails(SHARE(0, 0, 0x1fff), EINVAL, "not across one");
	fails(SHARE(0, 0x2000, 0x3fff), EINVAL, "nor into one");
	fails(SHARE(0, 0x8000, 0x8fff), EINVAL, "not a ROM");
	fails(SHARE(0, 0x9000, 0x9fff), EINVAL, "not memory without a file");
	fails(SHARE(0, 0xa800, 0xbfff), EINVAL, "not half a page");
	fails(SHARE(0, 0xb000, 0xbfff), EINVAL, "nor half a page in the file");
	fails(SHARE(0, 0x1000, 0x1ffe), EINVAL, "not all but a byte");
	fails(SHARE(0, 0x1001, 0x2000), EINVAL, "not a page out of place");
	fails(SHARE(0, 0x2fff, 0x1000), EINVAL, "not backwards");
	fails(SHARE(0, 0x10000, 0x10fff), EINVAL, "not past the end");
	fails(SHARE(0, 0, MT_LAST_MAX), EINVAL, "not everything");
	must(mt_region_set_readonly(alias, true) == 0);
	fails(SHARE(0, 0x1000, 0x2fff), EINVAL, "not what is read-only");
	must(mt_region_set_readonly(alias, false) == 0);
	works(SHARE(0, 0x1000, 0x2fff), "two pages of a memfd can be shared");
	b = vd__pci_region(d.s, 0);
	is_hex(b->map_off, 0x1000, "they start there");
	is_hex(b->map_len, 0x2000, "and are as long");
	is_int(b->map_fd, mt_region_fd(shared, NULL), "they are of that file");
	is_hex(b->map_fd_off + (off_t)b->map_off, 0x2000,
	    "at their place in it");
	fails(SHARE(0, 0x1000, 0x1fff), EEXIST, "one part a BAR");
	fails(vd_pci_add_msix(d.s, 4, 0, 0x1000, 0, 0x3000), EINVAL,
	    "no MSI-X table where clients write past us");
	fails(vd_pci_add_msix(d.s, 4, 0, 0x3000, 0, 0x2ff8), EINVAL,
	    "nor pending bits");

	must(mt_region_del(alias) == 0);
	mt_region_put(shared);
	mt_topology_sync(d.t);
	ok(fcntl(b->map_fd, F_GETFD) != -1,
	    "the file stays open when the memory leaves the BAR");
	mt_region_put(bar);
	dev_fini(&d);
}

/* A BAR of less than a page takes its page along. */
static void
test_share_small(void)
{
	struct mt_backing file = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_KEEP_FD, .fd = memfd_create("f", 0) };
	static const struct {
		const char *name;
		off_t off, len;		/* of the region in the file; of it */
		off_t byte;		/* that is not 0, or -1 */
		int error;
	} cases[] = {
		{ "at the end of its file", 0x1000, 0x1100, 0xfff, 0 },
		{ "with zeroes behind it", 0x1000, 0x2000, 0x10ff, 0 },
		{ "with something behind it", 0x1000, 0x2000, 0x1100,
		    EINVAL },
		{ "with something far behind it", 0x1000, 0x1c00, 0x1bff,
		    EINVAL },
		{ "before another page", 0, 0x2000, -1, EINVAL },
	};
	struct mt_region *bar, *part;
	struct dev d;

	must(file.fd != -1);
	for (size_t i = 0; i < T_COUNT(cases); i++) {
		dev_init(&d);
		must(ftruncate(file.fd, 0) == 0);
		must(ftruncate(file.fd, cases[i].len) == 0);
		if (cases[i].byte != -1)
			must(pwrite(file.fd, "x", 1, cases[i].byte) == 1);
		file.fd_off = cases[i].off;
		bar = mt_region_create_ram(d.t, "bar", MT_SIZE(0x100), &file);
		must(bar != NULL);
		must(vd_pci_set_bar(d.s, 0, bar, 0) == 0);
		if (cases[i].error == 0)
			works(SHARE(0, 0, 0xff), "a small BAR %s is shared",
			    cases[i].name);
		else
			fails(SHARE(0, 0, 0xff), cases[i].error,
			    "one %s is not", cases[i].name);
		fails(SHARE(0, 0, 0x7f), cases[i].error == 0 ? EEXIST : EINVAL,
		    "nor is half of it");
		mt_region_put(bar);
		dev_fini(&d);
	}
	dev_init(&d);
	bar = t_container(d.t, "bar", 0x100);
	part = memfd_ram(&d, "page", 0x1000);
	t_add(bar, 0, 0, part);
	must(vd_pci_set_bar(d.s, 0, bar, 0) == 0);
	fails(SHARE(0, 0, 0xff), EINVAL,
	    "nor one whose memory goes on behind it");
	must(mt_region_del(part) == 0);
	t_add(bar, 0, 0, memfd_ram(&d, "own", 0x100));
	works(SHARE(0, 0, 0xff), "one with a memfd of its own is");
	mt_region_put(bar);
	dev_fini(&d);
	close(file.fd);
}

/* Two parts: what continues what was shared, from another region, is not. */
static void
test_share_offset(void)
{
	struct mt_region *bar, *shared;
	struct vd__bar *b;
	struct dev d;

	dev_init(&d);
	bar = t_container(d.t, "bar", 0x4000);
	shared = t_add(bar, 0x1000, 0, memfd_ram(&d, "doorbells", 0x1000));
	t_add(bar, 0x2000, 0, memfd_ram(&d, "more", 0x1000));
	works(vd_pci_set_bar(d.s, 2, bar, VD_BAR_64), "a BAR");
	fails(SHARE(2, 0x1000, 0x2fff), EINVAL, "not across two files");
	works(SHARE(2, 0x1000, 0x1fff), "a page of its own file");
	b = vd__pci_region(d.s, 2);
	is_hex(b->map_fd_off, (off_t)-0x1000, "starts before the file");
	is_hex((uint64_t)b->map_fd_off + b->map_off, 0,
	    "as clients reckon, it is the file's start");
	is_int(b->map_fd, mt_region_fd(shared, NULL), "of the right one");
	mt_region_put(bar);

	/* A page of a file as large as the BAR, at the same offset. */
	bar = t_container(d.t, "bar", 0x4000);
	shared = memfd_ram(&d, "file", 0x4000);
	t_add(bar, 0x1000, 0, t_alias(d.t, "page", shared, 0x1000, 0x1000));
	mt_region_put(shared);
	works(vd_pci_set_bar(d.s, 0, bar, 0), "another BAR");
	works(SHARE(0, 0x1000, 0x1fff), "a page of a file as large");
	b = vd__pci_region(d.s, 0);
	ok(b->map_fd_off == 0 && b->map_off == 0x1000,
	    "at the same offset no sum wraps");
	mt_region_put(bar);
	dev_fini(&d);
}

/* --- capabilities -------------------------------------------------------- */

/* The list as text: "01@40 05@48". */
static const char *
caps(struct dev *d)
{
	char *s = t_text();
	uint32_t at = guest_read(d, 0x34, 1);
	unsigned int n;

	for (n = 0; at != 0 && n < 64; n++) {
		t_append(s, "%s%02x@%x", n > 0 ? " " : "",
		    guest_read(d, at, 1), at);
		at = guest_read(d, at + 1, 1);
	}
	return (s);
}

static const char *
ext_caps(struct dev *d)
{
	char *s = t_text();
	uint32_t at = 0x100, header;
	unsigned int n;

	for (n = 0; at != 0 && n < 1024; n++) {
		header = guest_read(d, at, 4);
		t_append(s, "%s%04x.%x@%x", n > 0 ? " " : "",
		    header & 0xffff, header >> 16 & 0xf, at);
		at = header >> 20;
	}
	return (s);
}

static void
test_caps(void)
{
	static const uint8_t vendor[] = { 6, 0xaa, 0xbb, 0xcc };
	static const uint8_t mask[] = { 0, 0x0f, 0, 0xff };
	struct dev d;
	int msi, express, own;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, 0) == 0);
	is_hex(guest_read(&d, 6, 2), 0, "no list at first");
	is_hex(vd_pci_add_pm(d.s), 0x40, "power management comes first");
	is_hex(guest_read(&d, 6, 2), 0x10, "the status tells of a list");
	is_hex((own = vd_pci_add_cap(d.s, 9, vendor, mask, 4)), 0x48,
	    "a vendor's follows");
	is_hex((msi = vd_pci_add_msi(d.s, 8)), 0x50, "MSI is aligned");
	is_hex(vd_pci_add_msix(d.s, 65, 0, 0x2000, 0, 0x3000), 0x68, "MSI-X");
	is_hex((express = vd_pci_add_express(d.s)), 0x74, "PCI Express");
	is_str(caps(&d), "01@40 09@48 05@50 11@68 10@74", "the list is sound");

	is_hex(guest_read(&d, 0x42, 2), 0x0003, "PM version 3");
	is_hex(guest_read(&d, 0x44, 2), 0x0008, "in D0, no soft reset");
	is_hex(guest_read(&d, (uint32_t)own + 2, 4), 0xccbbaa06,
	    "the vendor's data");
	guest_write(&d, (uint32_t)own, 4, 0);
	guest_write(&d, (uint32_t)own + 4, 4, 0);
	is_hex(guest_read(&d, (uint32_t)own + 2, 4), 0x00bba006,
	    "is writable as its mask says");
	is_hex(guest_read(&d, 0x52, 2), 0x0186, "MSI has 8 vectors, masks");
	is_hex(guest_size(&d, 0x50 + 4), 0xfffffffc, "a 32-bit address");
	is_hex(guest_size(&d, 0x50 + 8), 0xffffffff, "and its upper half");
	is_hex(guest_size(&d, 0x50 + 12), 0x0000ffff, "16 bits of data");
	is_hex(guest_size(&d, 0x50 + 16), 0x000000ff, "8 masks");
	is_hex(guest_size(&d, 0x50 + 20), 0, "read-only pending bits");
	guest_write(&d, (uint32_t)msi, 4, 0xffffffff);
	is_hex(guest_read(&d, (uint32_t)msi, 4), 0x01f76805, "MSI control");
	guest_write(&d, 0x68, 4, 0xffffffff);
	is_hex(guest_read(&d, 0x68, 4), 0xc0407411, "MSI-X control");
	is_hex(guest_read(&d, 0x6c, 4), 0x2000, "the table in BAR 0");
	is_hex(guest_read(&d, 0x70, 4), 0x3000, "pending bits in BAR 0");
	is_hex(guest_read(&d, (uint32_t)express + 2, 2), 2, "an endpoint");
	is_hex(guest_read(&d, (uint32_t)express + 4, 4), 0x10008000, "FLR");
	guest_write(&d, (uint32_t)express + 8, 2, 0x7fff);
	is_hex(guest_read(&d, (uint32_t)express + 8, 2), 0x781f,
	    "device control");
	must(vd_pci_config_set(d.s, (uint32_t)express + 8, 4,
	    0x000f0000) == 0);
	guest_write(&d, (uint32_t)express + 8, 4, 0x00030000);
	is_hex(guest_read(&d, (uint32_t)express + 8, 4), 0x000c0000,
	    "errors are cleared by ones");
	is_int(d.resets, 0, "nothing of that is a reset");
	is_int(d.s->pci.config_size, 4096, "config space has grown");

	fails(vd_pci_add_pm(d.s), EEXIST, "PM once");
	fails(vd_pci_add_msi(d.s, 1), EEXIST, "MSI once");
	fails(vd_pci_add_msix(d.s, 1, 0, 0, 0, 16), EEXIST, "MSI-X once");
	fails(vd_pci_add_express(d.s), EEXIST, "PCI Express once");
	dev_fini(&d);
}

static void
test_cap_errors(void)
{
	static const uint8_t zeros[4096];
	struct dev d;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, 0) == 0);
	fails(vd_pci_add_msi(d.s, 0), EINVAL, "no MSI of no vectors");
	fails(vd_pci_add_msi(d.s, 3), EINVAL, "nor of 3");
	fails(vd_pci_add_msi(d.s, 64), EINVAL, "nor of 64");
	fails(vd_pci_add_msix(d.s, 0, 0, 0, 0, 0x800), EINVAL,
	    "no MSI-X of no vectors");
	fails(vd_pci_add_msix(d.s, 2049, 0, 0, 0, 0x800), EINVAL,
	    "nor of 2049");
	fails(vd_pci_add_msix(d.s, 1, 1, 0, 0, 0x800), ENOENT,
	    "no table without its BAR");
	fails(vd_pci_add_msix(d.s, 1, 0, 0, 7, 0x800), ENOENT,
	    "no pending bits without theirs");
	fails(vd_pci_add_msix(d.s, 1, 0, 4, 0, 0x800), EINVAL,
	    "the table is aligned");
	fails(vd_pci_add_msix(d.s, 1, 0, 0, 0, 0x804), EINVAL,
	    "and so are pending bits");
	fails(vd_pci_add_msix(d.s, 2, 0, 0x3ff0, 0, 0), EINVAL,
	    "the table does not stick out");
	fails(vd_pci_add_msix(d.s, 2048, 0, 0xfffffff8, 0, 0), EINVAL,
	    "not even if it wraps");
	fails(vd_pci_add_msix(d.s, 65, 0, 0, 0, 0x3ff8), EINVAL,
	    "nor pending bits");
	fails(vd_pci_add_msix(d.s, 2, 0, 0x100, 0, 0x118), EINVAL,
	    "they do not overlap");
	fails(vd_pci_add_msix(d.s, 2, 0, 0x100, 0, 0x100), EINVAL,
	    "at all");
	fails(vd_pci_add_cap(d.s, 0x11, zeros, NULL, 10), EINVAL,
	    "MSI-X is not added as bytes");
	fails(vd_pci_add_cap(d.s, 0, zeros, NULL, 10), EINVAL, "nor nothing");
	fails(vd_pci_add_cap(d.s, 9, NULL, NULL, 10), EINVAL, "nor no bytes");
	fails(vd_pci_add_cap(d.s, 9, zeros, NULL, 191), ENOSPC,
	    "191 bytes are too many");
	fails(vd_pci_add_cap(d.s, 9, zeros, NULL, SIZE_MAX), ENOSPC,
	    "and so are all");
	is_hex(guest_read(&d, 0x34, 1), 0, "the list is empty still");
	is_hex(vd_pci_add_cap(d.s, 9, zeros, NULL, 190), 0x40, "190 fit");
	fails(vd_pci_add_pm(d.s), ENOSPC, "then there is no more room");
	fails(vd_pci_add_msix(d.s, 1, 0, 0, 0, 0x800), ENOSPC,
	    "not for MSI-X, either");
	is_int(vd__irq_count(d.s, VD_IRQ_MSIX), 0, "which has no vectors now");
	is_str(t_space_text(vd__pci_region(d.s, 0)->space), "0-3fff regs+0",
	    "and left nothing in the BAR");
	is_str(caps(&d), "09@40", "the list is sound");
	dev_fini(&d);
}

static void
test_ext_caps(void)
{
	static const uint8_t serial[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	static const uint8_t mask[8] = { 0xff, 0, 0, 0, 0, 0, 0, 0x80 };
	static const uint8_t zeros[4096];
	struct dev d;

	dev_init(&d);
	fails(vd_pci_add_ext_cap(d.s, 3, 16, serial, NULL, 8), EINVAL,
	    "no version 16");
	fails(vd_pci_add_ext_cap(d.s, 0, 1, serial, NULL, 8), EINVAL,
	    "no ID 0");
	fails(vd_pci_add_ext_cap(d.s, 3, 1, zeros, NULL, 3837), ENOSPC,
	    "not more than there is room");
	fails(vd_pci_add_ext_cap(d.s, 3, 1, zeros, NULL, SIZE_MAX), ENOSPC,
	    "nor everything");
	is_int(d.s->pci.config_size, 256, "config space is small yet");
	is_hex(vd_pci_add_ext_cap(d.s, 3, 1, serial, mask, 8), 0x100,
	    "the first is at 0x100");
	is_int(d.s->pci.config_size, 4096, "config space has grown");
	is_hex(vd_pci_add_ext_cap(d.s, 0xb, 2, serial, NULL, 1), 0x10c,
	    "the next follows");
	is_hex(vd_pci_add_ext_cap(d.s, 0xb, 15, NULL, NULL, 0), 0x114,
	    "aligned");
	is_str(ext_caps(&d), "0003.1@100 000b.2@10c 000b.f@114",
	    "the list is sound");
	guest_write(&d, 0x100, 4, 0);
	guest_write(&d, 0x104, 4, 0);
	guest_write(&d, 0x108, 4, 0xffffffff);
	is_hex(guest_read(&d, 0x104, 4), 0x04030200, "masks hold");
	is_hex(guest_read(&d, 0x108, 4), 0x88070605, "in all bytes");
	is_hex(guest_read(&d, 0x100, 4), 0x10c10003, "and for headers");
	is_hex(vd_pci_add_ext_cap(d.s, 3, 1, zeros, NULL, 4096 - 0x118 - 4),
	    0x118, "the rest can be filled");
	fails(vd_pci_add_ext_cap(d.s, 3, 1, NULL, NULL, 0), ENOSPC,
	    "then there is no more room");
	dev_fini(&d);
}

static void
test_busy(void)
{
	static const uint8_t data[4];
	struct dev d;

	dev_init(&d);
	d.s->connected = true;
	fails(vd_pci_set_id(d.s, 1, 2, 3, 4), EBUSY, "with a client: no ID");
	fails(vd_pci_set_class(d.s, 0, 0), EBUSY, "no class");
	fails(vd_pci_set_intx(d.s, 1), EBUSY, "no pin");
	fails(vd_pci_set_bar(d.s, 0, d.regs, 0), EBUSY, "no BAR");
	fails(vd_pci_set_rom(d.s, d.regs), EBUSY, "no ROM");
	fails(SHARE(0, 0, 0xfff), EBUSY, "no part of one");
	fails(vd_pci_add_pm(d.s), EBUSY, "no PM");
	fails(vd_pci_add_msi(d.s, 1), EBUSY, "no MSI");
	fails(vd_pci_add_msix(d.s, 1, 0, 0, 0, 16), EBUSY, "no MSI-X");
	fails(vd_pci_add_express(d.s), EBUSY, "no PCI Express");
	fails(vd_pci_add_cap(d.s, 9, data, NULL, 4), EBUSY, "no capability");
	fails(vd_pci_add_ext_cap(d.s, 9, 1, data, NULL, 4), EBUSY,
	    "no extended one");
	d.s->connected = false;
	dev_fini(&d);
}

/* --- what writes do ------------------------------------------------------ */

static void
test_flr(void)
{
	uint32_t cap;
	struct dev d;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, 0) == 0);
	cap = (uint32_t)vd_pci_add_express(d.s);
	d.s->connected = true;
	guest_write(&d, 4, 2, 0x0006);
	guest_write(&d, 0x10, 4, 0xfebf0000);
	guest_write(&d, cap + 8, 2, 0x2810);
	is_int(d.resets, 0, "device control without FLR is no reset");
	guest_write(&d, cap + 8, 2, 0xa810);
	is_int(d.resets, 1, "FLR is one");
	is_int(d.why, VD_RESET_FLR, "of that kind");
	is_hex(guest_read(&d, cap + 8, 2), 0x2810, "the bit reads as 0");
	is_hex(guest_read(&d, 4, 2), 0, "the command register is reset");
	is_hex(guest_read(&d, 0x10, 4), 0, "and so are BARs");
	guest_write(&d, cap + 9, 1, 0x80);
	is_int(d.resets, 2, "a byte can order it");
	guest_write(&d, cap + 8, 4, 0x00008000);
	is_int(d.resets, 3, "and a dword");
	guest_write(&d, cap + 8, 1, 0x80);
	guest_write(&d, cap + 10, 2, 0x8000);
	is_int(d.resets, 3, "other bytes cannot");
	d.s->connected = false;
	dev_fini(&d);
}

static void
test_power(void)
{
	struct dev d;

	dev_init(&d);
	must(vd_pci_add_pm(d.s) == 0x40);
	guest_write(&d, 0x44, 2, 3);
	is_hex(guest_read(&d, 0x44, 2), 0x000b, "D3hot is entered");
	guest_write(&d, 0x44, 2, 1);
	is_hex(guest_read(&d, 0x44, 2), 0x000b, "D1 is not known");
	guest_write(&d, 0x40, 4, 0);
	guest_write(&d, 0x44, 4, 0);
	is_hex(guest_read(&d, 0x44, 4), 0x0008, "D0 is entered again");
	guest_write(&d, 0x44, 4, 0xfffffffe);
	is_hex(guest_read(&d, 0x44, 4), 0x0008, "D2 is not known, either");
	guest_write(&d, 0x44, 1, 3);
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_hex(guest_read(&d, 0x44, 2), 0x0008, "a reset wakes the device");
	dev_fini(&d);
}

static void
test_written(void)
{
	struct dev d;

	dev_init(&d);
	guest_write(&d, 4, 2, 4);
	ok(d.writes == 1 && d.off == 4 && d.len == 2,
	    "the device is told of a write");
	is_hex(guest_read(&d, 4, 2), 4, "which is in place");
	guest_write(&d, 4, 2, 4);
	is_int(d.writes, 2, "also if it changes nothing");
	works(vd_pci_config_set(d.s, 4, 2, 0), "the device writes");
	is_int(d.writes, 2, "and is not told");
	dev_fini(&d);
}

/* --- the MSI-X table in its BAR ------------------------------------------ */

static void
test_msix_table(void)
{
	static const uint8_t ones[16] = { [0 ... 15] = 0xff };
	struct mt_space *sp;
	struct dev d;
	uint64_t val;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, VD_BAR_64) == 0);
	must(vd_pci_add_msix(d.s, 3, 0, 0x1000, 0, 0x2000) > 0);
	sp = vd__pci_region(d.s, 0)->space;
	is_view(sp, "0-fff regs+0, 1000-102f msix-table+0, "
	    "1030-1fff regs+1030, 2000-2007 msix-pba+0, "
	    "2008-3fff regs+2008", "the table lies over the device's BAR");
	is_read(sp, 0x1010, 16, "00000000000000000000000001000000",
	    "an entry starts masked and empty");
	is_int(mt_space_write(sp, 0x1010, ones, 16, MT_ATTRS_NONE), MT_OK,
	    "all of an entry is written");
	is_read(sp, 0x1010, 16, "fcffffffffffffffffffffff01000000",
	    "reserved bits stay 0");
	is_int(mt_space_store(sp, 0x101c, 1, MT_LITTLE, 0, MT_ATTRS_NONE),
	    MT_OK, "a byte can be written");
	is_int(mt_space_store_le16(sp, 0x1018, 0x1234), MT_OK, "2 bytes");
	is_int(mt_space_store_le32(sp, 0x1014, 0x55667788), MT_OK, "4 bytes");
	is_read(sp, 0x1010, 16, "fcffffff887766553412ffff00000000",
	    "where they belong");
	is_int(mt_space_store_le64(sp, 0x1018, 0), MT_OK, "8 bytes");
	is_int(mt_space_load(sp, 0x1010, 8, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_OK, "8 bytes are read at once");
	is_hex(val, 0x55667788fffffffc, "as they were written");
	is_int(mt_space_load(sp, 0x1013, 2, MT_LITTLE, &val, MT_ATTRS_NONE),
	    MT_OK, "also unaligned");
	is_hex(val, 0x88ff, "as they were written");
	is_read(sp, 0x1020, 16, "00000000000000000000000001000000",
	    "the next entry is as it was");
	is_int(mt_space_store_le64(sp, 0x2000, UINT64_MAX), MT_OK,
	    "pending bits take a write");
	is_read(sp, 0x2000, 8, "0000000000000000", "and ignore it");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_read(sp, 0x1010, 16, "00000000000000000000000001000000",
	    "a reset empties the table");
	vd_server_destroy(d.s);

	sp = t_space(d.regs);
	is_view(sp, "0-3fff regs+0", "it leaves the BAR with the server");
	works(mt_space_destroy(sp), "which lives on");
	mt_region_put(d.regs);
	t_end(d.t);
}

/* Somebody still looks at the BAR when the server goes. */
static void
test_msix_outlives(void)
{
	struct mt_section sec;
	struct mt_space *sp;
	struct mt_view *v;
	struct dev d;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, 0) == 0);
	must(vd_pci_add_msix(d.s, 3, 0, 0, 0, 0x2000) > 0);
	v = mt_space_view(vd__pci_region(d.s, 0)->space);
	must(mt_view_next(v, 0, &sec));
	mt_region_get(sec.region);
	vd_server_destroy(d.s);
	mt_view_put(v);
	sp = t_space(sec.region);
	is_read(sp, 0, 16, "00000000000000000000000001000000",
	    "a table that is held outlives its server");
	works(mt_space_destroy(sp), "until it is let go");
	mt_region_put(sec.region);
	mt_region_put(d.regs);
	t_end(d.t);
}

/* --- anything a guest may do --------------------------------------------- */

/*
 * Writes of any place, length and contents leave alone whatever the masks do
 * not offer, and thus the types of BARs and the lists of capabilities.
 */
static bool
fuzz_step(struct dev *d, uint64_t *seed, uint8_t *shadow)
{
	struct vd__pci *p = &d->s->pci;
	uint8_t buf[4096], now[4096];
	uint32_t off = (uint32_t)t_below(seed, p->config_size);
	size_t i, len = (size_t)t_below(seed, 16) + 1;
	unsigned int resets = d->resets;
	bool bad = false;

	if (t_below(seed, 64) == 0)
		len = (size_t)t_below(seed, p->config_size) + 1;
	if (t_below(seed, 2) == 0)
		off &= 0xff;
	if (len > p->config_size - off)
		len = p->config_size - off;
	for (i = 0; i < len; i++)
		buf[i] = (uint8_t)t_random(seed);
	if (t_below(seed, 4) == 0)
		memset(buf, 0xff, len);
	must(vd__pci_write(d->s, off, buf, len) == 0);
	must(vd__pci_read(d->s, 0, now, sizeof(now)) == 0);
	if (d->resets != resets) {
		memcpy(shadow, now, sizeof(now));
		return (memcmp(now, p->initial, sizeof(now)) == 0);
	}
	for (i = 0; i < sizeof(now); i++) {
		uint8_t diff = now[i] ^ shadow[i];

		if (i >= off && i < off + len)
			bad |= (diff & ~(p->wmask[i] | p->w1c[i])) != 0;
		else
			bad |= diff != 0;
		/* What a one clears, nothing sets. */
		bad |= (now[i] & ~shadow[i] & p->w1c[i]) != 0;
	}
	memcpy(shadow, now, sizeof(now));
	return (!bad);
}

static void
test_fuzz(void)
{
	static const char list[] = "01@40 05@48 11@60 10@6c 09@a8";
	uint64_t seed = t_env("T_SEED", (uint64_t)getpid()), steps = 0;
	uint8_t data[6] = { 8, 1, 2, 3, 4, 5 }, shadow[4096];
	uint8_t some[6] = { 0, 0xf0, 0x0f, 0xff, 0, 1 };
	uint64_t want = t_env("T_STEPS", 20000);
	struct mt_region *rom, *io;
	struct dev d;

	dev_init(&d);
	rom = t_rom(d.t, "rom", 0x1000);
	io = t_container(d.t, "io", 16);
	must(vd_pci_set_id(d.s, 1, 2, 3, 4) == 0);
	must(vd_pci_set_intx(d.s, 1) == 0);
	must(vd_pci_set_bar(d.s, 0, d.regs, VD_BAR_64) == 0);
	must(vd_pci_set_bar(d.s, 5, io, VD_BAR_IO) == 0);
	must(vd_pci_set_rom(d.s, rom) == 0);
	must(vd_pci_add_pm(d.s) > 0 && vd_pci_add_msi(d.s, 32) > 0);
	must(vd_pci_add_msix(d.s, 64, 0, 0, 0, 0x2000) > 0);
	must(vd_pci_add_express(d.s) > 0);
	must(vd_pci_add_cap(d.s, 9, data, some, 6) > 0);
	must(vd_pci_add_ext_cap(d.s, 3, 1, data, some, 6) > 0);
	must(vd_pci_add_ext_cap(d.s, 0xb, 1, data, NULL, 6) > 0);
	is_str(caps(&d), list, "a device with everything");
	must(vd_pci_config_set(d.s, 6, 2, 0xf910) == 0);
	must(vd__pci_read(d.s, 0, shadow, sizeof(shadow)) == 0);
	diag("T_SEED=%ju", (uintmax_t)seed);
	while (steps < want && fuzz_step(&d, &seed, shadow))
		steps++;
	is_int(steps, want, "random writes change only what they may");
	is_str(caps(&d), list, "the list is the same");
	is_str(ext_caps(&d), "0003.1@100 000b.1@10c", "so is the other");
	is_hex(guest_read(&d, 0x10, 4) & 0x3fff, 4, "BAR 0 is of its type");
	is_hex(guest_read(&d, 0x24, 4) & 0xf, 1, "BAR 5 is of its type");
	is_hex(guest_read(&d, 0, 4), 0x00020001, "the ID is the same");
	ok(d.resets > 0, "some of the writes were resets");
	mt_region_put(rom);
	mt_region_put(io);
	dev_fini(&d);
}

/* --- with a client ------------------------------------------------------- */

/* Run a server until its client is gone. */
static void *
serve(void *arg)
{
	struct vd_server *s = arg;
	struct pollfd p = { .fd = vd_server_fd(s), .events = POLLIN };

	while (vd_server_run_all(s) != -1)
		poll(&p, 1, -1);
	return (NULL);
}

static void
client_set(struct vd_client *c, uint32_t off, size_t len, uint16_t val)
{
	must(vd_client_write(c, VD_REGION_CONFIG, off, &val, len) == 0);
}

static bool
reaches(struct vd_server *s, uint64_t iova)
{
	uint8_t byte;

	return (mt_space_read(vd_server_dma(s), iova, &byte, 1,
	    MT_ATTRS_NONE) == MT_OK);
}

/* Bus mastering is what shows the client's memory to the device. */
static void
test_client(void)
{
	struct vd_client *c;
	uint8_t all[4096];
	pthread_t thread;
	uint32_t express;
	struct dev d;
	int sv[2], fd;

	dev_init(&d);
	must(vd_pci_set_bar(d.s, 0, d.regs, 0) == 0);
	express = (uint32_t)vd_pci_add_express(d.s);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must((fd = memfd_create("ram", MFD_CLOEXEC)) != -1);
	must(ftruncate(fd, 0x1000) == 0);
	must(vd_server_attach(d.s, sv[0]) == 0);
	must(pthread_create(&thread, NULL, serve, d.s) == 0);
	must((c = vd_client_attach(sv[1])) != NULL);
	works(vd_client_read(c, VD_REGION_CONFIG, 0, all, sizeof(all)),
	    "a client reads all of config space");
	is_mem(all, d.s->pci.initial, sizeof(all), "as it is");
	works(vd_client_dma_map(c, 0x10000, 0x1000,
	    VD_DMA_READABLE | VD_DMA_WRITABLE, fd, 0), "it gives memory");
	ok(!reaches(d.s, 0x10000), "which is hidden at first");
	client_set(c, 4, 2, 0x0006);
	ok(reaches(d.s, 0x10000), "a bus master sees it");
	client_set(c, 5, 1, 0x04);
	ok(reaches(d.s, 0x10000), "other bits change nothing");
	client_set(c, 4, 2, 0x0402);
	ok(!reaches(d.s, 0x10000), "it does no more when it is none");
	client_set(c, 4, 2, 0x0004);
	ok(reaches(d.s, 0x10000), "and does again");
	client_set(c, express + 8, 2, 0x8000);
	ok(!reaches(d.s, 0x10000), "an FLR ends it");
	client_set(c, 4, 2, 0x0004);
	ok(reaches(d.s, 0x10000), "but keeps the memory");
	client_set(c, 0x10, 2, 0xc000);
	vd_client_destroy(c);
	pthread_join(thread, NULL);
	is_int(d.why, VD_RESET_LOST, "a client that goes is a reset");
	is_hex(guest_read(&d, 0x10, 4), 0, "of config space");
	is_hex(guest_read(&d, 4, 2), 0, "all of it");
	close(fd);
	dev_fini(&d);
}

int
main(void)
{
	test_identity();
	test_get_set();
	test_odd_accesses();
	test_status();
	test_bars();
	test_bar_errors();
	test_share();
	test_share_offset();
	test_share_small();
	test_caps();
	test_cap_errors();
	test_ext_caps();
	test_busy();
	test_flr();
	test_power();
	test_written();
	test_msix_table();
	test_msix_outlives();
	test_fuzz();
	test_client();
	return (done());
}
