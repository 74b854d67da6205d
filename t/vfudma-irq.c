/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Interrupts: what the device, the guest and the client do to them. */

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

#include <libvfudma/vfudma.h>

#include "libvfudma/internal.h"
#include "t/util.h"

#define MSI_VECTORS	4u
#define MSIX_VECTORS	70u
#define TABLE		0x0u		/* in BAR 0 */
#define PBA		0x2000u

/* SET_IRQS flags, by their letters: data and action. */
#define N	VD_IRQ_DATA_NONE
#define B	VD_IRQ_DATA_BOOL
#define E	VD_IRQ_DATA_EVENTFD
#define M	VD_IRQ_ACT_MASK
#define U	VD_IRQ_ACT_UNMASK
#define T	VD_IRQ_ACT_TRIGGER

struct dev {
	struct mt_topology *t;
	struct vd_server *s;
	struct mt_space *bar;
	uint32_t msi, msix;		/* capabilities */
};

static const struct vd_device_ops ops;

/* A device with every kind of interrupt. */
static void
dev_init(struct dev *d)
{
	struct mt_region *bar;
	int msi, msix;

	memset(d, 0, sizeof(*d));
	d->t = t_topology();
	d->s = vd_server_create(d->t, &ops, d);
	must(d->s != NULL);
	bar = t_ram(d->t, "bar", 0x4000);
	must(vd_pci_set_bar(d->s, 0, bar, 0) == 0);
	mt_region_put(bar);
	must(vd_pci_set_intx(d->s, 1) == 0);
	msi = vd_pci_add_msi(d->s, MSI_VECTORS);
	msix = vd_pci_add_msix(d->s, MSIX_VECTORS, 0, TABLE, 0, PBA);
	must(msi > 0 && msix > 0);
	d->msi = (uint32_t)msi;
	d->msix = (uint32_t)msix;
	d->bar = vd__pci_region(d->s, 0)->space;
}

static void
dev_fini(struct dev *d)
{
	vd_server_destroy(d->s);
	t_end(d->t);
}

static void
guest_write(struct dev *d, uint32_t off, unsigned int size, uint32_t val)
{
	uint8_t b[4];

	vd__pci_set_field(b, size, val);
	must(vd__pci_write(d->s, off, b, size) == 0);
}

#define set_command(d, val)	guest_write(d, 4, 2, val)
#define set_msi(d, val)		guest_write(d, (d)->msi + 2, 2, val)
#define set_msix(d, val)	guest_write(d, (d)->msix + 2, 2, val)

/* Write the vector control word of a table entry. */
static void
set_entry(struct dev *d, unsigned int vector, uint32_t val)
{
	must(mt_space_store_le32(d->bar, TABLE + 16 * vector + 12, val) ==
	    MT_OK);
}

static uint64_t
pba(struct dev *d, unsigned int word)
{
	uint64_t val;

	must(mt_space_load_le64(d->bar, PBA + 8 * word, &val) == MT_OK);
	return (val);
}

static int
set_raw(struct dev *d, struct vd_irq_set set, const void *data, size_t len,
    int *fds, size_t nfds)
{
	return (vd__irq_set(d->s, &set, data, len, fds, nfds));
}

static int
set(struct dev *d, uint32_t flags, uint32_t index, uint32_t start,
    uint32_t count)
{
	return (set_raw(d, (struct vd_irq_set){ 20, flags, index, start,
	    count }, NULL, 0, NULL, 0));
}

/* Select with the '1's of a text. */
static int
set_bools(struct dev *d, uint32_t flags, uint32_t index, uint32_t start,
    const char *bits)
{
	uint8_t data[64];
	uint32_t i, n = (uint32_t)strlen(bits);

	must(n <= sizeof(data));
	for (i = 0; i < n; i++)
		data[i] = bits[i] == '1';
	return (set_raw(d, (struct vd_irq_set){ 20 + n, flags | B, index,
	    start, n }, data, n, NULL, 0));
}

/* Connect eventfds, of which the test keeps its own descriptors. */
static int
set_fds(struct dev *d, uint32_t flags, uint32_t index, uint32_t start,
    uint32_t count, const int *fds)
{
	int copies[64], error;
	uint32_t i;

	must(count <= T_COUNT(copies));
	for (i = 0; i < count; i++)
		must((copies[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 0)) != -1);
	error = set_raw(d, (struct vd_irq_set){ 20, flags | E, index, start,
	    count }, NULL, 0, copies, count);
	/* All are kept, or none. */
	for (i = 0; i < count; i++) {
		must((copies[i] == -1) == (error == 0));
		if (copies[i] != -1)
			close(copies[i]);
	}
	return (error);
}

/* --- GET_IRQ_INFO -------------------------------------------------------- */

static void
test_info(void)
{
	static const struct {
		uint32_t count, flags;
	} want[VD_NUM_IRQS] = {
		{ 1, VD_IRQ_INFO_EVENTFD | VD_IRQ_INFO_MASKABLE |
		    VD_IRQ_INFO_AUTOMASKED },
		{ MSI_VECTORS, VD_IRQ_INFO_EVENTFD },
		{ MSIX_VECTORS, VD_IRQ_INFO_EVENTFD },
		{ 1, VD_IRQ_INFO_EVENTFD }, { 1, VD_IRQ_INFO_EVENTFD },
	};
	struct vd_irq_info info = { .argsz = 16 };
	struct mt_topology *t = t_topology();
	struct vd_server *s = vd_server_create(t, &ops, NULL);
	struct dev d;

	must(s != NULL);
	dev_init(&d);
	for (info.index = 0; info.index < VD_NUM_IRQS; info.index++) {
		is_int(vd__irq_info(d.s, &info), 0, "kind %u is known",
		    info.index);
		is_int(info.count, want[info.index].count, "so many vectors");
		is_hex(info.flags, want[info.index].flags, "of such abilities");
	}
	is_int(vd__irq_info(d.s, &info), EINVAL, "kind 5 is not known");
	info.index = UINT32_MAX;
	is_int(vd__irq_info(d.s, &info), EINVAL, "nor kind -1");
	for (info.index = 0; info.index <= VD_IRQ_MSIX; info.index++) {
		is_int(vd__irq_info(s, &info), 0, "kind %u of a bare device",
		    info.index);
		is_int(info.count, 0, "has no vectors");
	}
	fails(vd_irq_set_intx(s, true), EINVAL, "it has no pin");
	fails(vd_irq_trigger(s, VD_IRQ_MSIX, 0), EINVAL, "and no MSI-X");
	is_int(vd_irq_mode(s), VD_IRQ_INTX, "whatever its mode is");
	vd_server_destroy(s);
	t_end(t);
	dev_fini(&d);
}

/* --- SET_IRQS that are refused ------------------------------------------- */

static void
test_refused(void)
{
	uint8_t data[4] = { 1, 1, 1, 1 };
	int fds[4], bad[2] = { -1, -1 };
	struct dev d;
	unsigned int i, before;

	dev_init(&d);
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	before = t_count_fds();
#define RAW(argsz, flags, index, start, count, len, nfds) \
	set_raw(&d, (struct vd_irq_set){ argsz, flags, index, start, count }, \
	    data, len, fds, nfds)
	is_int(RAW(19, N | T, 2, 0, 1, 0, 0), EINVAL, "argsz is short");
	is_int(RAW(20, 0, 2, 0, 1, 0, 0), EINVAL, "no flags");
	is_int(RAW(20, N, 2, 0, 1, 0, 0), EINVAL, "no action");
	is_int(RAW(20, T, 2, 0, 1, 0, 0), EINVAL, "no data");
	is_int(RAW(20, N | B | T, 2, 0, 1, 1, 0), EINVAL, "two data");
	is_int(RAW(20, N | M | U, 2, 0, 1, 0, 0), EINVAL, "two actions");
	is_int(RAW(20, N | T | 0x40, 2, 0, 1, 0, 0), EINVAL, "a flag unknown");
	is_int(RAW(20, 0xffffffff, 2, 0, 1, 0, 0), EINVAL, "every flag");
	is_int(RAW(20, N | T, 5, 0, 1, 0, 0), EINVAL, "kind 5");
	is_int(RAW(20, N | T, UINT32_MAX, 0, 0, 0, 0), EINVAL, "kind -1");
	is_int(RAW(20, N | T, 2, 70, 1, 0, 0), EINVAL, "start past the end");
	is_int(RAW(20, N | T, 2, 69, 2, 0, 0), EINVAL, "end past the end");
	is_int(RAW(20, N | M, 2, 0, 71, 0, 0), EINVAL, "one too many");
	is_int(RAW(20, N | M, 2, 2, UINT32_MAX, 0, 0), EINVAL, "a sum wraps");
	is_int(RAW(20, N | M, 2, UINT32_MAX, 2, 0, 0), EINVAL, "again");
	is_int(RAW(20, N | T, 2, 1, 0, 0, 0), EINVAL, "disable from 1 on");
	is_int(RAW(20, N | M, 2, 0, 0, 0, 0), EINVAL, "mask none");
	is_int(RAW(20, N | U, 2, 0, 0, 0, 0), EINVAL, "unmask none");
	is_int(RAW(20, B | T, 2, 0, 0, 0, 0), EINVAL, "no bools");
	is_int(RAW(20, E | T, 2, 0, 0, 0, 0), EINVAL, "no eventfds");
	is_int(RAW(24, B | T, 2, 0, 4, 3, 0), EINVAL, "a bool is missing");
	is_int(RAW(24, B | T, 2, 0, 3, 4, 0), EINVAL, "a bool too many");
	is_int(RAW(20, N | T, 2, 0, 1, 0, 1), EINVAL, "an fd with NONE");
	is_int(RAW(20, N | T, 2, 0, 0, 0, 1), EINVAL, "an fd to disable");
	is_int(RAW(21, B | T, 2, 0, 1, 1, 1), EINVAL, "an fd with BOOL");
	is_int(RAW(20, E | T, 2, 0, 2, 0, 1), EINVAL, "an fd is missing");
	is_int(RAW(20, E | T, 2, 0, 2, 0, 3), EINVAL, "an fd too many");
	is_int(RAW(20, E | T, 2, 69, 2, 0, 2), EINVAL, "fds past the end");
	is_int(RAW(20, E | M, 0, 0, 1, 0, 1), ENOTSUP, "mask by eventfd");
	is_int(RAW(20, E | U, 0, 0, 1, 0, 1), ENOTSUP, "unmask by eventfd");
	is_int(RAW(20, N | M, 3, 0, 1, 0, 0), EINVAL, "mask ERR");
	is_int(RAW(20, N | U, 4, 0, 1, 0, 0), EINVAL, "unmask REQ");
	is_int(RAW(20, N | T, 3, 0, 2, 0, 0), EINVAL, "two ERR");
	is_int(set_raw(&d, (struct vd_irq_set){ 20, E | T, 2, 0, 2 }, NULL, 0,
	    bad, 2), EINVAL, "fds that are none");
	for (i = 0; i < 4; i++)
		ok(fds[i] != -1, "eventfd %u is left to the caller", i);
	is_int(t_count_fds(), before, "no descriptor was lost or made");
	set_msix(&d, 0x8000);
	for (i = 0; i < 4; i++)
		must(vd_irq_trigger(d.s, VD_IRQ_MSIX, i) == 0);
	is_int(t_hits(fds[0]) + t_hits(fds[1]) + t_hits(fds[2]) +
	    t_hits(fds[3]), 0, "and none connected");
	for (i = 0; i < 4; i++)
		close(fds[i]);
	dev_fini(&d);
}

/* What a hostile client may pass for an eventfd. */
static void
test_not_eventfds(void)
{
	int pipes[2], socks[2], mixed[2], fd;
	const uint64_t full = UINT64_MAX - 1;
	struct dev d;

	dev_init(&d);
	set_msix(&d, 0x8000);
	must(pipe2(pipes, O_CLOEXEC) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks) == 0);
	is_int(set_fds(&d, T, 2, 0, 1, &pipes[1]), EINVAL, "no pipe");
	is_int(set_fds(&d, T, 2, 0, 1, &socks[0]), EINVAL, "no socket");
	must((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) != -1);
	is_int(set_fds(&d, T, 2, 0, 1, &fd), EINVAL, "no device");
	close(fd);
	must((fd = epoll_create1(EPOLL_CLOEXEC)) != -1);
	is_int(set_fds(&d, T, 2, 0, 1, &fd), EINVAL, "no epoll");
	close(fd);
	mixed[0] = t_eventfd();
	mixed[1] = pipes[1];
	is_int(set_fds(&d, T, 2, 0, 2, mixed), EINVAL, "none among others");
	must(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0) == 0);
	is_int(t_hits(mixed[0]), 0, "which are not connected then");
	close(mixed[0]);

	/* One that blocks, and is full. */
	fd = eventfd(0, EFD_CLOEXEC);
	must(fd != -1 && write(fd, &full, sizeof(full)) == sizeof(full));
	is_int(set_fds(&d, T, 2, 0, 1, &fd), 0, "a full one is connected");
	is_int(fcntl(fd, F_GETFL) & O_NONBLOCK, 0,
	    "and may block the client as before");
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "it does not block us");
	ok(t_hits(fd) >= full, "and it stays full");
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "once emptied");
	is_int(t_hits(fd), 1, "it works");
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
	close(socks[0]);
	close(socks[1]);
	dev_fini(&d);
}

/* However a signal is made, it adds 1, and never waits. */
static void
test_notifier(bool open)
{
	const uint64_t full = UINT64_MAX - 1;
	struct vd__notifier n = { .fd = -1 };
	unsigned int i, before = t_count_fds();
	const char *how = open ? "by the kernel" : "by hand";
	int fd = eventfd(0, EFD_CLOEXEC);

	must(fd != -1);
	if (open) {
		vd__notifier_open(&n);
		if (n.fd == -1)
			diag("no asynchronous I/O here");
	}
	for (i = 0; i < 1000; i++)
		vd__notify(&n, fd);
	is_int(t_hits(fd), 1000, "%s: 1000 signals are 1000", how);
	must(write(fd, &full, sizeof(full)) == sizeof(full));
	vd__notify(&n, fd);
	vd__notify(&n, fd);
	ok(t_hits(fd) >= full, "%s: a full counter stays full", how);
	vd__notify(&n, fd);
	is_int(t_hits(fd), 1, "%s: and works when it was emptied", how);
	vd__notifier_close(&n);
	vd__notify(&n, fd);
	is_int(t_hits(fd), 1, "%s: closed it still signals", how);
	close(fd);
	is_int(t_count_fds(), before, "%s: no descriptor is left", how);
}

/* --- every data with every action ---------------------------------------- */

static uint64_t
all_hits(const int *fds, unsigned int n)
{
	uint64_t text = 0;
	unsigned int i;

	/* One decimal digit each: 1010 is the second and the fourth. */
	for (i = n; i-- > 0;)
		text = text * 10 + t_hits(fds[i]);
	return (text);
}

static void
trigger_all(struct dev *d, enum vd_irq index, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		must(vd_irq_trigger(d->s, index, i) == 0);
}

/* On MSI (1) or MSI-X (2), which behave alike. */
static void
test_combinations(enum vd_irq index)
{
	const char *name = index == VD_IRQ_MSI ? "MSI" : "MSI-X";
	struct dev d;
	int fds[4];
	unsigned int i;

	dev_init(&d);
	diag("%s", name);
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	if (index == VD_IRQ_MSI)
		set_msi(&d, 0x0021);
	else
		set_msix(&d, 0x8000);

	is_int(set_fds(&d, T, index, 0, 4, fds), 0, "EVENTFD TRIGGER: connect");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 1111, "each signals its own");

	is_int(set(&d, N | T, index, 1, 2), 0, "NONE TRIGGER");
	is_int(all_hits(fds, 4), 110, "signals the range");
	is_int(set_bools(&d, T, index, 0, "1001"), 0, "BOOL TRIGGER");
	is_int(all_hits(fds, 4), 1001, "signals what is true");
	is_int(set_bools(&d, T, index, 2, "01"), 0, "BOOL TRIGGER from 2");
	is_int(all_hits(fds, 4), 1000, "signals that");

	is_int(set(&d, N | M, index, 1, 2), 0, "NONE MASK");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 1001, "masks the range");
	is_int(set(&d, N | U, index, 2, 2), 0, "NONE UNMASK");
	is_int(all_hits(fds, 4), 100, "signals what was pending");
	is_int(set_bools(&d, U, index, 0, "1010"), 0, "BOOL UNMASK");
	is_int(all_hits(fds, 4), 0, "leaves what is false");
	is_int(set_bools(&d, U, index, 0, "0100"), 0, "BOOL UNMASK again");
	is_int(all_hits(fds, 4), 10, "unmasks what is true");
	is_int(set_bools(&d, M, index, 1, "101"), 0, "BOOL MASK");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 101, "masks what is true");
	is_int(set(&d, N | T, index, 0, 4), 0, "NONE TRIGGER");
	is_int(all_hits(fds, 4), 1111, "signals what is masked, too");
	is_int(set(&d, N | U, index, 0, 4), 0, "NONE UNMASK");
	is_int(all_hits(fds, 4), 1010, "once each was pending");
	trigger_all(&d, index, 4);
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 2222, "nothing is masked any more");

	is_int(set(&d, E | M, index, 0, 2), 0, "EVENTFD MASK without fds");
	is_int(set(&d, E | U, index, 0, 2), 0, "EVENTFD UNMASK without fds");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 1111, "do nothing");
	is_int(set_fds(&d, M, index, 0, 1, fds), ENOTSUP,
	    "EVENTFD MASK is not offered");
	is_int(set_fds(&d, U, index, 0, 1, fds), ENOTSUP,
	    "nor EVENTFD UNMASK");

	is_int(set(&d, E | T, index, 1, 2), 0, "EVENTFD TRIGGER without fds");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 1001, "disconnects the range");
	is_int(set(&d, N | T, index, 0, 4), 0, "NONE TRIGGER");
	is_int(all_hits(fds, 4), 1001, "signals what is left");
	is_int(set_fds(&d, T, index, 2, 2, fds), 0, "EVENTFD TRIGGER from 2");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 12, "replaces one, connects one");
	is_int(set(&d, N | M, index, 0, 4), 0, "all are masked");
	is_int(set(&d, N | T, index, 0, 0), 0, "NONE TRIGGER of 0: disable");
	is_int(set(&d, N | T, index, 0, 4), 0, "NONE TRIGGER");
	is_int(all_hits(fds, 4), 0, "finds nothing connected");
	is_int(set_fds(&d, T, index, 0, 4, fds), 0, "connected again");
	trigger_all(&d, index, 4);
	is_int(all_hits(fds, 4), 1111, "nothing is masked then");
	for (i = 0; i < 4; i++)
		close(fds[i]);
	dev_fini(&d);
}

/* The kinds do not share eventfds; where there are none, all the same. */
static void
test_kinds(void)
{
	struct mt_topology *t = t_topology();
	struct vd_server *s = vd_server_create(t, &ops, NULL);
	struct vd_irq_set off = { 20, N | T, 0, 0, 0 };
	int fds[VD_NUM_IRQS];
	unsigned int before = t_count_fds();
	struct dev d;
	uint32_t i;

	must(s != NULL);
	for (off.index = 0; off.index < VD_NUM_IRQS; off.index++)
		is_int(vd__irq_set(s, &off, NULL, 0, NULL, 0), 0,
		    "disabling kind %u of a bare device works", off.index);
	off = (struct vd_irq_set){ 20, E | T, VD_IRQ_MSIX, 0, 1 };
	is_int(vd__irq_set(s, &off, NULL, 0, NULL, 0), EINVAL,
	    "disconnecting a vector that is not there does not");
	vd_server_destroy(s);
	t_end(t);

	before = t_count_fds();
	dev_init(&d);
	for (i = 0; i < VD_NUM_IRQS; i++) {
		fds[i] = t_eventfd();
		is_int(set_fds(&d, T, i, 0, 1, &fds[i]), 0,
		    "kind %u is connected", i);
	}
	works(vd_irq_trigger(d.s, VD_IRQ_ERR, 0), "an error is told");
	works(vd_irq_trigger(d.s, VD_IRQ_REQ, 0), "a request is made");
	fails(vd_irq_trigger(d.s, VD_IRQ_ERR, 1), EINVAL, "there is one ERR");
	fails(vd_irq_trigger(d.s, VD_IRQ_INTX, 0), EINVAL,
	    "the pin is not triggered");
	fails(vd_irq_trigger(d.s, VD_IRQ_MSI, 4), EINVAL, "no vector 4");
	fails(vd_irq_trigger(d.s, VD_IRQ_MSIX, 70), EINVAL, "no vector 70");
	fails(vd_irq_trigger(d.s, (enum vd_irq)7, 0), EINVAL, "no kind 7");
	fails(vd_irq_trigger(d.s, (enum vd_irq)-1, 0), EINVAL, "no kind -1");
	is_int(all_hits(fds, 5), 11000, "ERR and REQ have their own eventfds");
	is_int(set_bools(&d, T, VD_IRQ_REQ, 0, "1"), 0, "BOOL TRIGGER on REQ");
	is_int(all_hits(fds, 5), 10000, "signals it");
	is_int(set(&d, N | T, VD_IRQ_INTX, 0, 0), 0, "INTx is disabled");
	set_msix(&d, 0x8000);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "MSI-X vector 0");
	is_int(all_hits(fds, 5), 100, "is still connected");
	vd__irq_disconnect(d.s);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "without a client");
	works(vd_irq_trigger(d.s, VD_IRQ_ERR, 0), "there are");
	is_int(all_hits(fds, 5), 0, "no eventfds at all");
	for (i = 0; i < VD_NUM_IRQS; i++) {
		must(set_fds(&d, T, i, 0, 1, &fds[i]) == 0);
		close(fds[i]);
	}
	dev_fini(&d);
	is_int(t_count_fds(), before, "a server that goes closes them");
}

/* --- modes and masks ----------------------------------------------------- */

static void
test_mode(void)
{
	struct dev d;
	int fds[2];

	dev_init(&d);
	fds[0] = t_eventfd();
	fds[1] = t_eventfd();
	must(set_fds(&d, T, VD_IRQ_MSI, 0, 1, &fds[0]) == 0);
	must(set_fds(&d, T, VD_IRQ_MSIX, 0, 1, &fds[1]) == 0);
#define TRIGGER_BOTH() do {						\
	works(vd_irq_trigger(d.s, VD_IRQ_MSI, 0), "MSI is triggered");	\
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "and MSI-X");	\
} while (0)
	is_int(vd_irq_mode(d.s), VD_IRQ_INTX, "the pin is what is there first");
	TRIGGER_BOTH();
	is_int(all_hits(fds, 2), 0, "eventfds alone enable nothing");
	set_msi(&d, 0x0001);
	is_int(vd_irq_mode(d.s), VD_IRQ_MSI, "MSI is enabled");
	TRIGGER_BOTH();
	is_int(all_hits(fds, 2), 1, "and works");
	set_msix(&d, 0x8000);
	is_int(vd_irq_mode(d.s), VD_IRQ_MSIX, "MSI-X goes before it");
	TRIGGER_BOTH();
	is_int(all_hits(fds, 2), 10, "and works alone");
	set_msi(&d, 0);
	set_msix(&d, 0);
	is_int(vd_irq_mode(d.s), VD_IRQ_INTX, "both are disabled");
	TRIGGER_BOTH();
	is_int(all_hits(fds, 2), 0, "and drop what comes");
	set_msix(&d, 0x8000);
	set_msi(&d, 1);
	is_int(all_hits(fds, 2), 0, "for ever");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_int(vd_irq_mode(d.s), VD_IRQ_INTX, "a reset disables both");
	set_msix(&d, 0x8000);
	TRIGGER_BOTH();
	is_int(all_hits(fds, 2), 10, "but keeps eventfds");
	close(fds[0]);
	close(fds[1]);
	dev_fini(&d);
}

static void
test_msi_masks(void)
{
	struct dev d;
	int fds[4];
	unsigned int i;

	dev_init(&d);
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	must(set_fds(&d, T, VD_IRQ_MSI, 0, 4, fds) == 0);
	set_msi(&d, 0x0011);
	trigger_all(&d, VD_IRQ_MSI, 4);
	is_int(all_hits(fds, 4), 11, "the guest has given 2 vectors of 4");
	set_msi(&d, 0x0071);
	trigger_all(&d, VD_IRQ_MSI, 4);
	is_int(all_hits(fds, 4), 1111, "128 mean as many as there are");
	guest_write(&d, d.msi + 16, 4, 0x6);
	trigger_all(&d, VD_IRQ_MSI, 4);
	is_int(all_hits(fds, 4), 1001, "two are masked in config space");
	is_hex(vd_pci_config_get(d.s, d.msi + 20, 4), 0x6, "and pending there");
	guest_write(&d, d.msi + 16, 1, 0x4);
	is_int(all_hits(fds, 4), 10, "one is signalled when unmasked");
	is_hex(vd_pci_config_get(d.s, d.msi + 20, 4), 0x4, "one is pending");
	is_hex(vd_pci_config_get(d.s, d.msi + 20, 1), 0x4, "also in a byte");
	set_msi(&d, 0x0070);
	set_msi(&d, 0x0071);
	guest_write(&d, d.msi + 16, 4, 0);
	is_int(all_hits(fds, 4), 0, "disabling MSI forgets it");
	for (i = 0; i < 4; i++)
		close(fds[i]);
	dev_fini(&d);
}

static void
test_msix_masks(void)
{
	struct dev d;
	int fds[4];
	unsigned int i;

	dev_init(&d);
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	must(set_fds(&d, T, VD_IRQ_MSIX, 0, 3, fds) == 0);
	must(set_fds(&d, T, VD_IRQ_MSIX, 69, 1, &fds[3]) == 0);
	set_msix(&d, 0xc000);
	trigger_all(&d, VD_IRQ_MSIX, 2);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 69), "the last one");
	is_int(all_hits(fds, 4), 0, "all are masked by the function's mask");
	is_hex(pba(&d, 0), 0x3, "and pending");
	is_hex(pba(&d, 1), 0x20, "in both words");
	set_msix(&d, 0x8000);
	is_int(all_hits(fds, 4), 1011, "until it is cleared");
	is_hex(pba(&d, 0) | pba(&d, 1), 0, "nothing is pending then");
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 1), "vector 1 is triggered");
	is_int(all_hits(fds, 4), 10,
	    "a table that was never written masks nothing");

	set_entry(&d, 1, 1);
	set_entry(&d, 2, 0);
	trigger_all(&d, VD_IRQ_MSIX, 3);
	is_int(all_hits(fds, 4), 101, "an entry that was written does");
	is_hex(pba(&d, 0), 0x2, "its vector is pending");
	set_entry(&d, 1, 0);
	is_int(all_hits(fds, 4), 10, "until it is unmasked");
	is_hex(pba(&d, 0), 0, "and only once");
	set_entry(&d, 1, 1);
	must(set(&d, N | M, VD_IRQ_MSIX, 1, 1) == 0);
	trigger_all(&d, VD_IRQ_MSIX, 2);
	set_entry(&d, 1, 0);
	is_int(all_hits(fds, 4), 1, "the client's mask is another");
	must(set(&d, N | U, VD_IRQ_MSIX, 1, 1) == 0);
	is_int(all_hits(fds, 4), 10, "both have to go");

	/* The way of a guest that changes what a vector says. */
	set_entry(&d, 0, 1);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "vector 0 is triggered");
	must(mt_space_store_le64(d.bar, TABLE, 0xfee00000) == MT_OK);
	must(mt_space_store_le64(d.bar, TABLE + 8, 0x22) == MT_OK);
	is_int(all_hits(fds, 4), 1, "8 bytes may unmask as well");

	must(set(&d, E | T, VD_IRQ_MSIX, 0, 1) == 0);
	set_msix(&d, 0xc000);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "masked, not connected");
	must(set_fds(&d, T, VD_IRQ_MSIX, 0, 1, fds) == 0);
	is_int(all_hits(fds, 4), 0, "it is pending while eventfds change");
	set_msix(&d, 0x8000);
	is_int(all_hits(fds, 4), 1, "and is not lost");

	set_msix(&d, 0xc000);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "pending once more");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_hex(pba(&d, 0), 0, "a reset forgets it");
	set_msix(&d, 0x8000);
	works(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0), "vector 0 is triggered");
	is_int(all_hits(fds, 4), 1, "and that the table was written");
	for (i = 0; i < 4; i++)
		close(fds[i]);
	dev_fini(&d);
}

/* As the trace of a Linux guest in QEMU shows it. */
static void
test_qemu_msix(void)
{
	struct dev d;
	int fds[2];

	dev_init(&d);
	fds[0] = t_eventfd();
	fds[1] = t_eventfd();
	must(set_fds(&d, T, VD_IRQ_INTX, 0, 1, fds) == 0);
	set_msix(&d, 0xc000);
	must(set(&d, N | T, VD_IRQ_INTX, 0, 0) == 0);
	is_int(set(&d, E | T, VD_IRQ_MSIX, 0, 1), 0, "a vector without an fd");
	is_int(set_fds(&d, T, VD_IRQ_MSIX, 0, 1, &fds[0]), 0, "then with one");
	is_int(set_fds(&d, T, VD_IRQ_MSIX, 1, 1, &fds[1]), 0, "and the next");
	set_msix(&d, 0x8000);
	trigger_all(&d, VD_IRQ_MSIX, 3);
	is_int(all_hits(fds, 2), 11, "both work");
	set_msix(&d, 0);
	is_int(set(&d, N | T, VD_IRQ_MSIX, 0, 0), 0, "all off");
	is_int(set_fds(&d, T, VD_IRQ_INTX, 0, 1, fds), 0, "INTx is back");
	works(vd_irq_set_intx(d.s, true), "the pin rises");
	is_int(all_hits(fds, 2), 1, "and works");
	close(fds[0]);
	close(fds[1]);
	dev_fini(&d);
}

/* --- INTx ---------------------------------------------------------------- */

static void
test_intx(void)
{
	struct dev d;
	int fd = t_eventfd(), other = t_eventfd();

	dev_init(&d);
	works(vd_irq_set_intx(d.s, true), "the pin rises");
	is_int(set_fds(&d, T, VD_IRQ_INTX, 0, 1, &fd), 0, "then is connected");
	is_int(t_hits(fd), 1, "a level is not missed");
	works(vd_irq_set_intx(d.s, true), "high again");
	works(vd_irq_set_intx(d.s, false), "low");
	works(vd_irq_set_intx(d.s, true), "high");
	is_int(t_hits(fd), 0, "it has masked itself");
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "the client unmasks");
	is_int(t_hits(fd), 1, "it is high still, and signals again");
	works(vd_irq_set_intx(d.s, false), "low");
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask");
	is_int(t_hits(fd), 0, "low is silent");
	works(vd_irq_set_intx(d.s, true), "high");
	is_int(t_hits(fd), 1, "and high signals");
	is_int(set_bools(&d, U, VD_IRQ_INTX, 0, "0"), 0, "unmask nothing");
	is_int(t_hits(fd), 0, "is nothing");
	is_int(set_bools(&d, U, VD_IRQ_INTX, 0, "1"), 0, "unmask by bool");
	is_int(t_hits(fd), 1, "is the same");
	works(vd_irq_set_intx(d.s, false), "low");
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask");

	is_int(set(&d, N | M, VD_IRQ_INTX, 0, 1), 0, "the client masks");
	works(vd_irq_set_intx(d.s, true), "high");
	is_int(t_hits(fd), 0, "is not told");
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask");
	is_int(t_hits(fd), 1, "now it is");

	/* Interrupt disable. */
	set_command(&d, 0x0400);
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask");
	is_int(t_hits(fd), 0, "not while interrupts are disabled");
	set_command(&d, 0);
	is_int(t_hits(fd), 1, "but when they are enabled");

	/* A driver that turns it off with the pin high, and another. */
	is_int(set(&d, N | T, VD_IRQ_INTX, 0, 0), 0, "INTx is disabled");
	is_int(set_fds(&d, T, VD_IRQ_INTX, 0, 1, &other), 0, "and enabled");
	is_int(t_hits(other), 1, "nothing is masked, and the pin is high");
	is_int(t_hits(fd), 0, "the old eventfd is not used");
	is_int(set_fds(&d, T, VD_IRQ_INTX, 0, 1, &fd), 0, "one for the other");
	is_int(t_hits(fd), 0, "keeps the mask");
	is_int(set(&d, E | T, VD_IRQ_INTX, 0, 1), 0, "disconnected");
	is_int(set_fds(&d, T, VD_IRQ_INTX, 0, 1, &fd), 0, "connected");
	is_int(t_hits(fd), 1, "does not");

	/* MSI takes the pin's place. */
	set_msi(&d, 1);
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask, with MSI on");
	is_int(t_hits(fd), 0, "the pin is silent");
	set_msi(&d, 0);
	is_int(t_hits(fd), 1, "until MSI is off");
	vd__server_reset(d.s, VD_RESET_DEVICE);
	is_int(set(&d, N | U, VD_IRQ_INTX, 0, 1), 0, "unmask, after a reset");
	is_int(t_hits(fd), 0, "the pin is low");
	is_int(set(&d, N | T, VD_IRQ_INTX, 0, 1), 0, "NONE TRIGGER");
	is_int(t_hits(fd), 1, "is a signal without a level");
	works(vd_irq_set_intx(d.s, true), "high");
	is_int(t_hits(fd), 1, "and masks nothing");
	close(fd);
	close(other);
	dev_fini(&d);
}

/* --- threads ------------------------------------------------------------- */

struct racer {
	struct dev *d;
	atomic_bool stop;
	unsigned int done;	/* by its thread, until joined */
};

static void *
race(void *arg)
{
	struct racer *r = arg;
	unsigned int n = 0;

	while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
		vd_irq_trigger(r->d->s, VD_IRQ_MSIX, n % MSIX_VECTORS);
		vd_irq_trigger(r->d->s, VD_IRQ_MSI, n % MSI_VECTORS);
		vd_irq_trigger(r->d->s, VD_IRQ_ERR, 0);
		vd_irq_set_intx(r->d->s, n % 2 == 0);
		(void)vd_irq_mode(r->d->s);
		(void)pba(r->d, n % 2);
		set_entry(r->d, n % 4, n % 3 == 0);
		n++;
	}
	r->done = n;
	return (NULL);
}

/* Devices that interrupt while the client and the guest change everything. */
static void
test_threads(void)
{
	struct racer r[2];
	pthread_t thread[2];
	unsigned int i, n, errors = 0, before = t_count_fds();
	int fds[4];
	struct dev d;

	dev_init(&d);
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	for (i = 0; i < 2; i++) {
		r[i].d = &d;
		r[i].done = 0;
		atomic_init(&r[i].stop, false);
		must(pthread_create(&thread[i], NULL, race, &r[i]) == 0);
	}
	for (n = 0; n < 2000; n++) {
		errors += set_fds(&d, T, VD_IRQ_MSIX, n % 60, 4, fds) != 0;
		errors += set_fds(&d, T, VD_IRQ_INTX, 0, 1, fds) != 0;
		errors += set_fds(&d, T, VD_IRQ_ERR, 0, 1, fds) != 0;
		errors += set_fds(&d, T, VD_IRQ_MSI, 0, 4, fds) != 0;
		set_msix(&d, n % 3 == 0 ? 0 : n % 3 == 1 ? 0xc000 : 0x8000);
		set_msi(&d, n % 2);
		set_command(&d, n % 5 == 0 ? 0x400 : 0);
		errors += set(&d, N | M, VD_IRQ_MSIX, 0, n % 70 + 1) != 0;
		errors += set(&d, N | U, VD_IRQ_MSIX, 0, 70) != 0;
		errors += set(&d, N | U, VD_IRQ_INTX, 0, 1) != 0;
		errors += set(&d, E | T, VD_IRQ_MSIX, n % 60, 3) != 0;
		if (n % 16 == 0)
			vd__server_reset(d.s, VD_RESET_DEVICE);
		if (n % 32 == 0)
			errors += set(&d, N | T, VD_IRQ_MSIX, 0, 0) != 0;
		if (n % 64 == 0)
			vd__irq_disconnect(d.s);
	}
	for (i = 0; i < 2; i++)
		atomic_store_explicit(&r[i].stop, true, memory_order_relaxed);
	for (i = 0; i < 2; i++) {
		pthread_join(thread[i], NULL);
		ok(r[i].done > 0, "thread %u has interrupted", i);
	}
	is_int(errors, 0, "while the client had its way");
	for (i = 0; i < 4; i++)
		close(fds[i]);
	dev_fini(&d);
	is_int(t_count_fds(), before, "no descriptor is left");
}

/*
 * A client of two threads: one fills its eventfd as soon as there is room,
 * and waits in that for the other, who empties it when it was tried to signal.
 */
struct filler {
	int fd;
	atomic_uint signals;	/* that have returned */
	atomic_bool stop;
	unsigned int blocked;	/* by drain(), until joined */
};

static void *
fill(void *arg)
{
	struct filler *f = arg;
	const uint64_t most = UINT64_MAX - 1;

	while (!atomic_load_explicit(&f->stop, memory_order_relaxed))
		must(write(f->fd, &most, sizeof(most)) == sizeof(most));
	return (NULL);
}

static void *
drain(void *arg)
{
	struct pollfd p = { .events = POLLIN };
	struct filler *f = arg;
	unsigned int i, was;
	uint64_t n;

	p.fd = f->fd;
	while (!atomic_load_explicit(&f->stop, memory_order_relaxed)) {
		was = atomic_load_explicit(&f->signals, memory_order_relaxed);
		for (i = 0; i < 200; i++) {
			if (atomic_load_explicit(&f->signals,
			    memory_order_relaxed) != was)
				break;
			usleep(i < 100 ? 0 : 10000);
		}
		f->blocked += i == 200;
		if (poll(&p, 1, 0) == 1)
			must(read(f->fd, &n, sizeof(n)) == sizeof(n));
	}
	return (NULL);
}

/* For the commit "libvfudma: signal eventfds without ever waiting". */
static void
test_filled(void)
{
	struct filler f = { .fd = eventfd(0, EFD_CLOEXEC) };
	pthread_t filler, drainer;
	unsigned int n;
	struct dev d;
	uint64_t val;

	must(f.fd != -1);
	dev_init(&d);
	set_msix(&d, 0x8000);
	must(set_fds(&d, T, VD_IRQ_MSIX, 0, 1, &f.fd) == 0);
	must(pthread_create(&filler, NULL, fill, &f) == 0);
	must(pthread_create(&drainer, NULL, drain, &f) == 0);
	for (n = 1; n <= 20000; n++) {
		must(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0) == 0);
		atomic_store_explicit(&f.signals, n, memory_order_relaxed);
	}
	atomic_store_explicit(&f.stop, true, memory_order_relaxed);
	pthread_join(drainer, NULL);
	is_int(f.blocked, 0, "who fills its eventfd in time blocks nobody");
	/* Empty it, so that who fills it sees the end; there is something. */
	must(vd_irq_trigger(d.s, VD_IRQ_MSIX, 0) == 0);
	must(read(f.fd, &val, sizeof(val)) == sizeof(val));
	pthread_join(filler, NULL);
	close(f.fd);
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
test_client(void)
{
	unsigned int i, before = t_count_fds();
	uint16_t on = 0x8000;
	struct vd_irq_info info;
	struct vd_client *c;
	pthread_t thread;
	int fds[20], sv[2];
	struct dev d;

	dev_init(&d);
	for (i = 0; i < 20; i++)
		fds[i] = t_eventfd();
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(d.s, sv[0]) == 0);
	must(pthread_create(&thread, NULL, serve, d.s) == 0);
	must((c = vd_client_attach(sv[1])) != NULL);
	works(vd_client_irq_info(c, VD_IRQ_MSIX, &info), "a client asks");
	is_int(info.count, MSIX_VECTORS, "how many vectors there are");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 20, fds),
	    "it connects 20 of them");
	works(vd_client_set_eventfds(c, VD_IRQ_INTX, 0, 1, fds), "and INTx");
	works(vd_irq_set_intx(d.s, true), "another thread raises the pin");
	is_int(t_hits(fds[0]), 1, "the client is interrupted");
	works(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, U), "it unmasks");
	is_int(t_hits(fds[0]), 1, "the pin was high");
	works(vd_client_write(c, VD_REGION_CONFIG, d.msix + 2, &on, 2),
	    "it enables MSI-X");
	is_int(vd_irq_mode(d.s), VD_IRQ_MSIX, "the mode changes");
	trigger_all(&d, VD_IRQ_MSIX, 20);
	for (i = 0; i < 20; i++)
		must(t_hits(fds[i]) == 1);
	ok(true, "all 20 vectors interrupt");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 2, 2, NULL),
	    "it disconnects [2, 4)");
	trigger_all(&d, VD_IRQ_MSIX, 6);
	is_int(all_hits(fds, 6), 110011, "those and no others");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL), "then all");
	works(vd_client_set_eventfds(c, VD_IRQ_REQ, 0, 0, NULL),
	    "and what never was");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 69, 2, fds), EINVAL,
	    "it cannot connect what there is not");
	must(vd_client_set_eventfds(c, VD_IRQ_ERR, 0, 1, fds) == 0);
	vd_client_destroy(c);
	pthread_join(thread, NULL);
	works(vd_irq_trigger(d.s, VD_IRQ_ERR, 0), "with the client gone");
	is_int(all_hits(fds, 20), 0, "nobody is interrupted");
	for (i = 0; i < 20; i++)
		close(fds[i]);
	dev_fini(&d);
	is_int(t_count_fds(), before, "no descriptor is left");
}

int
main(void)
{
	test_info();
	test_refused();
	test_not_eventfds();
	test_notifier(true);
	test_notifier(false);
	test_combinations(VD_IRQ_MSI);
	test_combinations(VD_IRQ_MSIX);
	test_kinds();
	test_mode();
	test_msi_masks();
	test_msix_masks();
	test_qemu_msix();
	test_intx();
	test_threads();
	test_filled();
	test_client();
	return (done());
}
