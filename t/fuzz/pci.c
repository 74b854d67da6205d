/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Config space, written and read at any offset in any width, by the guest and
 * by the device, with interrupts raised meanwhile.  What describes the device
 * stays as it is, BARs keep their size and kind, lists of capabilities end.
 */

#include "t/fuzz/peer.h"

#define OPS		128

static struct mt_topology *t;
static struct vd_server *s;
static struct input in;
static int fd;
static bool reset_seen;

static void
on_reset(void *arg, enum vd_reset why)
{
	(void)arg, (void)why;
	reset_seen = true;
}

static void
create(void)
{
	static const struct vd_device_ops ops = { .reset = on_reset };
	static const uint8_t vendor[] = { 8, 1, 2, 3, 4, 5 };
	static const uint8_t vendor_mask[] = { 0, 0xff, 0x0f, 0, 0x80, 1 };
	static const uint8_t ext[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
	struct mt_region *bar0, *bar2, *rom;

	check((t = mt_topology_create()) != NULL);
	check((s = vd_server_create(t, &ops, NULL)) != NULL);
	check((bar0 = mt_region_create_container(t, "bar0",
	    MT_SIZE(0x10000))) != NULL);
	check((bar2 = mt_region_create_container(t, "bar2",
	    MT_SIZE(0x20))) != NULL);
	check((rom = mt_region_create_rom(t, "rom", MT_SIZE(0x800),
	    NULL)) != NULL);
	check(vd_pci_set_id(s, 0x1234, 0x5678, 0x9abc, 0xdef0) == 0);
	check(vd_pci_set_class(s, 0x010802, 3) == 0);
	check(vd_pci_set_bar(s, 0, bar0, VD_BAR_64 | VD_BAR_PREFETCH) == 0);
	check(vd_pci_set_bar(s, 2, bar2, VD_BAR_IO) == 0);
	check(vd_pci_set_rom(s, rom) == 0);
	check(vd_pci_set_intx(s, 2) == 0);
	check(vd_pci_add_pm(s) != -1);
	check(vd_pci_add_msi(s, 8) != -1);
	check(vd_pci_add_msix(s, 8, 0, 0x1000, 0, 0x2000) != -1);
	check(vd_pci_add_cap(s, 9, vendor, vendor_mask,
	    sizeof(vendor)) != -1);
	check(vd_pci_add_express(s) != -1);
	check(vd_pci_add_ext_cap(s, 0xb, 1, ext, NULL, sizeof(ext)) != -1);
	mt_region_put(bar0);
	mt_region_put(bar2);
	mt_region_put(rom);
	fd = v_attach(s);
}

/* The guest's access, which is always answered. */
static void
guest(bool is_write, uint32_t off, size_t len)
{
	static struct v_reply r;
	uint8_t buf[sizeof(struct vd_region_access) + 64];
	struct vd_region_access a = { off, VD_REGION_CONFIG, (uint32_t)len };

	memset(buf, 0, sizeof(buf));
	memcpy(buf, &a, sizeof(a));
	if (is_write)
		next_bytes(&in, buf + sizeof(a), len);
	check(v_call(s, fd, is_write ? VD_CMD_REGION_WRITE :
	    VD_CMD_REGION_READ, buf, sizeof(a) + (is_write ? len : 0), &r));
	check(v_errno(&r) == 0 || off + len > 4096 || len == 0);
	if (!is_write && v_errno(&r) == 0)
		check(r.len == (len > 0 ? sizeof(a) + len : 0));
	v_close_fds(&r);
}

static void
check_config(void)
{
	unsigned int at, n;
	uint32_t val;

	check(vd_pci_config_get(s, 0, 4) == 0x56781234);
	check(vd_pci_config_get(s, 8, 4) == 0x01080203);
	check(vd_pci_config_get(s, 0x2c, 4) == 0xdef09abc);
	check(vd_pci_config_get(s, 0x0e, 1) == 0);
	check(vd_pci_config_get(s, 0x3d, 1) == 2);
	check((vd_pci_config_get(s, 0x10, 4) & 0xffff) == 0xc);
	check((vd_pci_config_get(s, 0x18, 4) & 0x1f) == 1);
	check((vd_pci_config_get(s, 0x30, 4) & 0x7fe) == 0);
	for (at = 0x1c; at < 0x28; at += 4)
		check(vd_pci_config_get(s, at, 4) == 0);
	at = vd_pci_config_get(s, 0x34, 1);
	for (n = 0; at != 0; at = vd_pci_config_get(s, at + 1, 1)) {
		check(at >= 0x40 && at < 0x100 && at % 4 == 0);
		n++;
	}
	check(n == 5);
	for (at = 0x100, n = 0; at != 0; at = val >> 20, n++) {
		check(at >= 0x100 && n < 8);
		val = vd_pci_config_get(s, at, 4);
	}
	at = (unsigned int)vd_irq_mode(s);
	check(at == VD_IRQ_INTX || at == VD_IRQ_MSI || at == VD_IRQ_MSIX);
}

static void
step(void)
{
	const uint8_t op = (uint8_t)next(&in, 1);
	uint32_t off = (uint32_t)next(&in, op & 0x80 ? 2 : 1);
	struct v_reply r;
	size_t len;

	switch (op & 15) {
	default:
		len = op & 16 ? 4 : next_below(&in, 64);
		guest(true, off % 4200, len);
		break;
	case 9:
	case 10:
		guest(false, off % 4200, next_below(&in, 64));
		break;
	case 11:
		vd_irq_trigger(s, VD_IRQ_MSI, off & 15);
		break;
	case 12:
		vd_irq_trigger(s, VD_IRQ_MSIX, off & 15);
		break;
	case 13:
		vd_irq_set_intx(s, (off & 1) != 0);
		break;
	case 14:
		/* What the guest may write the device may write. */
		vd_pci_config_set(s, 0x3c, 1, off & 0xff);
		break;
	case 15:
		check(v_call(s, fd, VD_CMD_DEVICE_RESET, NULL, 0, &r));
		check(reset_seen);
		check((vd_pci_config_get(s, 4, 2) & 7) == 0);
		break;
	}
	check_config();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int before = count_fds(), i;

	in = (struct input){ data, size };
	reset_seen = false;
	create();
	check_config();
	for (i = 0; in.left > 0 && i < OPS; i++)
		step();
	close(fd);
	vd_server_destroy(s);
	check(mt_topology_destroy(t) == 0);
	check(count_fds() == before);
	return (0);
}
