/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A client that means harm, by script: messages of any kind, whole or in
 * pieces, with descriptors of all sorts, read or not, and a device that holds
 * on to the client's memory meanwhile.  The server never blocks, never spins,
 * and in the end nothing is left: no descriptor, no mapping, no region.
 */

#include <sys/eventfd.h>

#include "t/fuzz/peer.h"

#define OPS		64
#define HOLDS		4

struct device {
	struct input in;
	struct mt_topology *t;
	struct vd_server *s;
	struct mt_region *regs, *ram, *bar0, *bar4, *rom;
	struct mt_mapping holds[HOLDS];
	bool stubborn;			/* keeps memory that is to go */
	int fd;				/* the client's end, or -1 */
	uint16_t id;
};

static struct device d;
static int kinds[8];			/* descriptors to send along */

static void
let_go(void)
{
	size_t i;

	for (i = 0; i < HOLDS; i++)
		if (d.holds[i].ptr != NULL) {
			check(mt_dma_unmap(&d.holds[i], 0) == 0 ||
			    errno == EIO);
			d.holds[i].ptr = NULL;
		}
}

/* What the device does with the client's memory: where val says. */
static void
use_memory(uint64_t val, unsigned int what)
{
	struct mt_space *dma = vd_server_dma(d.s);
	struct mt_mapping *m = &d.holds[what % HOLDS];
	uint8_t buf[128] = { 0 };

	switch (what % 8) {
	case 0:
	case 1:
		mt_space_read(dma, val, buf, sizeof(buf), MT_ATTRS_NONE);
		break;
	case 2:
	case 3:
		mt_space_write(dma, val, buf, sizeof(buf), MT_ATTRS_NONE);
		break;
	default:
		if (m->ptr == NULL && mt_dma_map(dma, val, 256, MT_DMA_READ |
		    MT_DMA_WRITE, MT_ATTRS_NONE, m) == 0)
			memset(m->ptr, 0x5a, m->len);
	}
}

static enum mt_result
regs_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)attrs;
	check(off < 0x1000 && size <= 8);
	*val = off;
	return (off == 0xff8 ? MT_DEVICE : MT_OK);
}

static enum mt_result
regs_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)attrs;
	check(off < 0x1000 && size <= 8);
	switch (off >> 4 & 7) {
	case 0:
		use_memory(val, (unsigned int)off);
		break;
	case 1:
		vd_irq_trigger(d.s, val & 1 ? VD_IRQ_MSIX : VD_IRQ_MSI,
		    (unsigned int)(val >> 1 & 31));
		break;
	case 2:
		vd_irq_set_intx(d.s, (val & 1) != 0);
		break;
	case 3:
		vd_irq_trigger(d.s, val & 1 ? VD_IRQ_ERR : VD_IRQ_REQ, 0);
		break;
	case 4:
		let_go();
		break;
	case 5:
		if (val == 0x5a)
			vd_server_disconnect(d.s);
		break;
	}
	return (MT_OK);
}

static void
dev_reset(void *arg, enum vd_reset why)
{
	(void)arg, (void)why;
	let_go();
}

static void
dev_unmap(void *arg, struct mt_range range)
{
	(void)arg, (void)range;
	if (!d.stubborn)
		let_go();
}

static const struct mt_io_ops regs_ops = {
	.read = regs_read, .write = regs_write, .endian = MT_LITTLE,
	.valid = { 1, 8, false }, .impl = { 1, 8, false },
};

static void
create(void)
{
	static const struct vd_device_ops ops = { .reset = dev_reset,
	    .dma_unmap = dev_unmap };
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	const struct vd_server_limits limits = { .max_dma_regions = 8,
	    .max_data_xfer = 4096, .max_queued = 65536 };

	check((d.t = mt_topology_create()) != NULL);
	check((d.s = vd_server_create(d.t, &ops, NULL)) != NULL);
	check((d.bar0 = mt_region_create_container(d.t, "bar0",
	    MT_SIZE(0x4000))) != NULL);
	check((d.regs = mt_region_create_io(d.t, "regs", MT_SIZE(0x1000),
	    &regs_ops, NULL)) != NULL);
	check((d.ram = mt_region_create_ram(d.t, "ram", MT_SIZE(0x1000),
	    &memfd)) != NULL);
	check((d.bar4 = mt_region_create_container(d.t, "bar4",
	    MT_SIZE(0x2000))) != NULL);
	check((d.rom = mt_region_create_rom(d.t, "rom", MT_SIZE(0x800),
	    NULL)) != NULL);
	check(mt_region_add(d.bar0, d.regs, 0, 0) == 0);
	check(mt_region_add(d.bar0, d.ram, 0x1000, 0) == 0);
	check(vd_server_set_limits(d.s, &limits) == 0);
	check(vd_pci_set_bar(d.s, 0, d.bar0, VD_BAR_64) == 0);
	check(vd_pci_set_bar(d.s, 2, d.regs, VD_BAR_IO) == 0);
	check(vd_pci_set_bar(d.s, 4, d.bar4, 0) == 0);
	check(vd_pci_set_rom(d.s, d.rom) == 0);
	check(vd_pci_share_bar(d.s, 0,
	    (struct mt_range){ 0x1000, 0x1fff }) == 0);
	check(vd_pci_set_intx(d.s, 1) == 0);
	check(vd_pci_add_msi(d.s, 8) != -1);
	check(vd_pci_add_msix(d.s, 16, 4, 0, 4, 0x1000) != -1);
	check(vd_pci_add_express(d.s) != -1);
	d.fd = -1;
}

static void
destroy(void)
{
	let_go();
	if (d.fd != -1)
		close(d.fd);
	vd_server_destroy(d.s);
	let_go();
	mt_region_put(d.bar0);
	mt_region_put(d.regs);
	mt_region_put(d.ram);
	mt_region_put(d.bar4);
	mt_region_put(d.rom);
	check(mt_topology_destroy(d.t) == 0);
}

/* --- the client ---------------------------------------------------------- */

static void
serve(void)
{
	unsigned int i, idle = 0;

	for (i = 0; i < 256 && v_readable(vd_server_fd(d.s), 0); i++) {
		switch (vd_server_run(d.s)) {
		case -1:
			check(errno == ENOTCONN);
			return;
		case 0:
			/* Readable for nothing, again and again. */
			check(++idle < 100);
			break;
		default:
			idle = 0;
		}
	}
}

/* Take what the server has sent. */
static void
drain(void)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	static uint8_t buf[8192];
	struct cmsghdr *c;
	size_t i, n;
	int fd;

	for (;;) {
		struct iovec iov = { buf, sizeof(buf) };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
		    .msg_control = control.buf,
		    .msg_controllen = sizeof(control.buf) };

		if (d.fd == -1 || recvmsg(d.fd, &msg, MSG_DONTWAIT |
		    MSG_CMSG_CLOEXEC) <= 0)
			return;
		for (c = CMSG_FIRSTHDR(&msg); c != NULL;
		    c = CMSG_NXTHDR(&msg, c)) {
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (i = 0; i < n; i++) {
				memcpy(&fd, CMSG_DATA(c) + i * sizeof(int),
				    sizeof(fd));
				close(fd);
			}
		}
	}
}

static void
transmit(const uint8_t *buf, size_t len, const int *fds, size_t nfds,
    size_t at)
{
	if (d.fd == -1 || len == 0)
		return;
	if (at > 0 && at < len) {
		v_send_raw(d.fd, buf, at, NULL, 0);
		serve();
		buf += at;
		len -= at;
	}
	v_send_raw(d.fd, buf, len, fds, nfds);
}

static void
attach(bool hello)
{
	const struct vd_version v = { 0, 1 };
	int sv[2];

	if (d.fd != -1)
		close(d.fd);
	serve();
	if (vd_server_connected(d.s))
		vd_server_disconnect(d.s);
	let_go();
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	/* Who fills the socket must not wait for who has to empty it. */
	check(fcntl(sv[0], F_SETFL, O_NONBLOCK) == 0);
	if (vd_server_attach(d.s, sv[1]) == -1) {
		/* The one before is still there: it has not said hello. */
		check(errno == EBUSY);
		close(sv[0]);
		close(sv[1]);
		d.fd = -1;
		return;
	}
	d.fd = sv[0];
	if (hello) {
		v_send(d.fd, d.id++, VD_CMD_VERSION, &v, sizeof(v));
		serve();
		drain();
	}
}

static void
message(void)
{
	static uint8_t buf[1024];
	const uint8_t cmd = (uint8_t)next(&d.in, 1);
	const uint8_t how = (uint8_t)next(&d.in, 1);
	const size_t want = (size_t)next(&d.in, 1);
	uint32_t flags = VD_TYPE_COMMAND;
	uint8_t payload[512];
	size_t len, nfds = 0, i;
	int fds[32];

	if ((how & 3) == 1)
		nfds = 1;
	else if ((how & 3) == 2)
		nfds = how >> 4;
	for (i = 0; i < nfds; i++)
		fds[i] = kinds[nfds == 1 ? how >> 5 :
		    next_below(&d.in, F_COUNT(kinds))];
	if ((how & 4) != 0)
		flags = (uint32_t)next(&d.in, 1);
	len = next_bytes(&d.in, payload, want);
	len = v_build(buf, d.id++, cmd % 32, flags, payload, len);
	transmit(buf, len, fds, nfds, (how & 8) != 0 ?
	    (size_t)next(&d.in, 1) : 0);
	serve();
	if ((cmd & 0x80) == 0)
		drain();
}

static void
raw(void)
{
	static uint8_t buf[256];
	const size_t len = next_bytes(&d.in, buf, (size_t)next(&d.in, 1));

	transmit(buf, len, NULL, 0, 0);
	serve();
}

static void
step(void)
{
	switch (next_below(&d.in, 16)) {
	default:
		message();
		break;
	case 11:
		raw();
		break;
	case 12:
		attach(next_below(&d.in, 4) != 0);
		break;
	case 13:
		use_memory(next(&d.in, 8), (unsigned int)next(&d.in, 1));
		break;
	case 14:
		vd_irq_trigger(d.s, (enum vd_irq)(1 + next_below(&d.in, 4)),
		    (unsigned int)next(&d.in, 1));
		vd_irq_set_intx(d.s, next_below(&d.in, 2) != 0);
		break;
	case 15:
		if (next_below(&d.in, 2) != 0)
			let_go();
		serve();
		drain();
		break;
	}
}

static void
make_kinds(void)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	check(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	close(p[0]);			/* p[1]: a pipe without a reader */
	check((kinds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) != -1);
	kinds[1] = v_memfd(1 << 16);
	kinds[2] = v_memfd(1);
	kinds[3] = p[1];
	check((kinds[4] = open("/", O_RDONLY | O_CLOEXEC)) != -1);
	check((kinds[5] = open("/dev/zero", O_RDWR | O_CLOEXEC)) != -1);
	check((kinds[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) !=
	    -1);
	check((kinds[7] = eventfd(0, EFD_CLOEXEC)) != -1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int before, i;

	if (kinds[0] == 0)
		make_kinds();
	before = count_fds();
	memset(&d, 0, sizeof(d));
	d.in = (struct input){ data, size };
	d.stubborn = next_below(&d.in, 2) != 0;
	create();
	attach(true);
	for (i = 0; d.in.left > 0 && i < OPS; i++)
		step();
	destroy();
	check(count_fds() == before);
	return (0);
}
