/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client and a real server of ours, in another thread and in another
 * process.
 */

#include "t/script.h"

/* --- a real server ------------------------------------------------------- */

#define BAR0_SIZE	(4 * PAGE)
#define BAR2_SIZE	(4u << 20)
#define NR_VECTORS	12	/* more than go into one message */
#define TABLE		0x2000
#define PBA		0x3000

struct device {
	struct mt_topology *topology;
	struct mt_region *bar0, *shared, *regs, *bar2;
	struct vd_server *server;
	int resets;			/* atomic */

	pthread_t thread;
	int stop[2];			/* a pipe */
};

static enum mt_result
regs_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)attrs;
	*val = off * 0x0101;
	return (off < 0x800 ? MT_OK : MT_DEVICE);
}

/* Register 0 fires the interrupt that is written to it. */
static enum mt_result
regs_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct device *d = arg;

	(void)size, (void)attrs;
	if (off == 0 && vd_irq_trigger(d->server, VD_IRQ_MSIX,
	    (unsigned int)val) == -1)
		return (MT_DEVICE);
	if (off == 4 && vd_irq_set_intx(d->server, val != 0) == -1)
		return (MT_DEVICE);
	return (MT_OK);
}

static void
was_reset(void *arg, enum vd_reset why)
{
	struct device *d = arg;

	(void)why;
	__atomic_add_fetch(&d->resets, 1, __ATOMIC_SEQ_CST);
}

static void
device_init(struct device *d)
{
	static const struct mt_io_ops ops = { .read = regs_read,
	    .write = regs_write, .impl = { 1, 8, true } };
	static const struct vd_device_ops device_ops = { .reset = was_reset };
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };

	memset(d, 0, sizeof(*d));
	d->topology = t_topology();
	must((d->server = vd_server_create(d->topology, &device_ops, d)) !=
	    NULL);
	d->bar0 = t_container(d->topology, "bar0", BAR0_SIZE);
	must((d->regs = mt_region_create_io(d->topology, "regs", MT_SIZE(PAGE),
	    &ops, d)) != NULL);
	must((d->shared = mt_region_create_ram(d->topology, "shared",
	    MT_SIZE(PAGE), &memfd)) != NULL);
	d->bar2 = t_ram(d->topology, "bar2", BAR2_SIZE);
	must(mt_region_add(d->bar0, d->regs, 0, 0) == 0);
	must(mt_region_add(d->bar0, d->shared, PAGE, 0) == 0);
	must(vd_pci_set_id(d->server, 0x1b36, 0x10, 0, 0) == 0);
	must(vd_pci_set_class(d->server, 0xff0000, 1) == 0);
	must(vd_pci_set_bar(d->server, 0, d->bar0, 0) == 0);
	must(vd_pci_set_bar(d->server, 2, d->bar2, VD_BAR_64) == 0);
	must(vd_pci_share_bar(d->server, 0,
	    (struct mt_range){ PAGE, 2 * PAGE - 1 }) == 0);
	must(vd_pci_set_intx(d->server, 1) == 0);
	must(vd_pci_add_msix(d->server, NR_VECTORS, 0, TABLE, 0, PBA) > 0);
}

static void
device_fini(struct device *d)
{
	vd_server_destroy(d->server);
	mt_region_put(d->bar0);
	mt_region_put(d->shared);
	mt_region_put(d->regs);
	mt_region_put(d->bar2);
	must(mt_topology_destroy(d->topology) == 0);
}

/* Until fd stop is readable, or closed. */
static void
device_run(struct device *d, int stop)
{
	struct pollfd pfd[2] = {
		{ .fd = vd_server_fd(d->server), .events = POLLIN },
		{ .fd = stop, .events = POLLIN },
	};

	for (;;) {
		if (poll(pfd, 2, -1) == -1 && errno != EINTR)
			return;
		if (pfd[1].revents != 0)
			return;
		if (vd_server_run_all(d->server) == -1)
			return;
	}
}

static void *
device_thread(void *arg)
{
	struct device *d = arg;

	device_run(d, d->stop[0]);
	return (NULL);
}

/* A device in another thread; a connected client. */
static struct vd_client *
device_start(struct device *d)
{
	struct vd_client *c;
	int pair[2];

	device_init(d);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	must(pipe2(d->stop, O_CLOEXEC) == 0);
	must(vd_server_attach(d->server, pair[1]) == 0);
	must(pthread_create(&d->thread, NULL, device_thread, d) == 0);
	c = vd_client_attach(pair[0]);
	if (c == NULL)
		bail("cannot connect to our server: %s", strerror(errno));
	return (c);
}

static void
device_stop(struct device *d)
{
	must(write(d->stop[1], "x", 1) == 1);
	pthread_join(d->thread, NULL);
	close(d->stop[0]);
	close(d->stop[1]);
	device_fini(d);
}

/* --- what the client does with one --------------------------------------- */

static void
use_info(struct vd_client *c)
{
	struct vd_client_limits l;
	struct vd_client_region r;
	struct vd_device_info info;
	struct vd_irq_info irq;
	uint32_t shared, *p;

	vd_client_limits(c, &l);
	ok(l.minor == 1 && l.max_msg_fds == VD_MAX_MSG_FDS &&
	    l.max_data_xfer == VD_MAX_DATA_XFER, "our server has its limits");
	works(vd_client_device_info(c, &info), "device info");
	ok(info.flags == (VD_DEVICE_PCI | VD_DEVICE_RESETTABLE) &&
	    info.num_regions == VD_NUM_REGIONS &&
	    info.num_irqs == VD_NUM_IRQS, "tells of a PCI device");
	works(vd_client_irq_info(c, VD_IRQ_MSIX, &irq), "MSI-X info");
	is_int(irq.count, NR_VECTORS, "tells of its vectors");
	works(vd_client_irq_info(c, VD_IRQ_INTX, &irq), "INTx info");
	is_int(irq.count, 1, "tells of one pin");
	fails(vd_client_irq_info(c, (enum vd_irq)9, &irq), EINVAL,
	    "there is no interrupt 9");
	for (unsigned int i = 0; i < VD_NUM_REGIONS; i++) {
		works(vd_client_region_info(c, i, &r), "region info %u", i);
		is_hex(r.size, i == 0 ? BAR0_SIZE : i == 2 ? BAR2_SIZE :
		    i == VD_REGION_CONFIG ? 256 : 0, "tells its size");
		ok((r.fd != -1) == (i == 0), "and whether it can be mapped");
		if (r.fd != -1)
			close(r.fd);
	}
	fails(vd_client_region_info(c, VD_NUM_REGIONS, &r), EINVAL,
	    "there is no region 9");

	must(vd_client_region_info(c, 0, &r) == 0);
	ok(r.nr_areas == 1 && r.areas[0].offset == PAGE &&
	    r.areas[0].size == PAGE, "BAR 0 has a page to be mapped");
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, r.fd,
	    (off_t)(r.fd_off + r.areas[0].offset));
	ok(p != MAP_FAILED, "which can be mapped");
	must(p != MAP_FAILED);
	p[3] = 0x12345678;
	works(vd_client_read(c, 0, PAGE + 12, &shared, 4), "and read");
	is_hex(shared, 0x12345678, "with what was stored there");
	shared = 0x9abcdef0;
	works(vd_client_write(c, 0, PAGE + 16, &shared, 4), "or written");
	is_hex(p[4], 0x9abcdef0, "to be loaded again");
	munmap(p, PAGE);
	close(r.fd);
}

static void
use_regions(struct vd_client *c)
{
	size_t len = BAR2_SIZE - PAGE - 3;
	uint8_t *out = malloc(len), *in = calloc(1, len);
	uint64_t val;

	must(out != NULL && in != NULL);
	for (size_t i = 0; i < len; i++)
		out[i] = (uint8_t)(i * 7 + (i >> 9));
	val = 0;
	works(vd_client_read(c, 0, 0x10, &val, 4), "a register is read");
	is_hex(val, 0x10 * 0x0101, "and has its value");
	works(vd_client_read(c, 7, 0, &val, 4), "config space is read");
	is_hex(val & 0xffffffff, 0x00101b36, "and has its IDs");
	works(vd_client_write(c, 2, 3, out, len),
	    "megabytes are written in several messages");
	works(vd_client_read(c, 2, 3, in, len), "and read back");
	is_mem(in, out, len, "unharmed");
	val = 0x1122334455667788;
	works(vd_client_post(c, 2, 8, &val, 8), "a write is posted");
	val = 0;
	works(vd_client_read(c, 2, 8, &val, 8), "and followed by a read");
	is_hex(val, 0x1122334455667788, "that sees it");
	fails(vd_client_read(c, 2, BAR2_SIZE - 4, &val, 8), EINVAL,
	    "a read past the end fails");
	fails(vd_client_read(c, 1, 0, &val, 8), EINVAL,
	    "and one of no region");
	ok(vd_client_read(c, 0, 0x900, &val, 4) == -1 && errno != ENOTCONN,
	    "and one that the device refuses");
	works(vd_client_post(c, 1, 0, &val, 8), "a posted one does not");
	works(vd_client_read(c, 0, 0x10, &val, 4), "all is well after that");
	free(out);
	free(in);
}

/* Give memory; see it from the device if d is at hand. */
static void
use_dma(struct vd_client *c, struct device *d)
{
	int fd = v_memfd(4 * PAGE);
	uint8_t *mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
	    fd, 0);
	unsigned int rw = VD_DMA_READABLE | VD_DMA_WRITABLE;
	uint16_t command = 0x6;
	uint64_t val;

	must(mem != MAP_FAILED);
	works(vd_client_write(c, 7, 4, &command, 2),
	    "the device becomes a bus master");
	works(vd_client_dma_map(c, 0x100000000, 2 * PAGE, rw, fd, PAGE),
	    "memory is given");
	works(vd_client_dma_map(c, 0, PAGE, VD_DMA_READABLE, -1, 0),
	    "and some without a file");
	fails(vd_client_dma_map(c, 0x100000000 + PAGE, PAGE, rw, fd, 0),
	    EEXIST, "not twice at the same place");
	if (d != NULL) {
		struct mt_space *dma = vd_server_dma(d->server);

		memcpy(mem + PAGE + 8, "\1\2\3\4\5\6\7\10", 8);
		is_hex(mt_space_load_le64(dma, 0x100000008, &val), MT_OK,
		    "the device reads it");
		is_hex(val, 0x0807060504030201, "and sees what is there");
		is_hex(mt_space_store_le32(dma, 0x100001ffc, 0xabcdef01),
		    MT_OK, "the device writes it");
		ok(memcmp(mem + 3 * PAGE - 4, "\x01\xef\xcd\xab", 4) == 0,
		    "and it is there");
		ok(mt_space_load_le64(dma, 0x100002000, &val) != MT_OK,
		    "it sees nothing behind it");
	}
	fails(vd_client_dma_unmap(c, 0x100000000, PAGE), ENOENT,
	    "half of it is not taken back");
	works(vd_client_dma_unmap(c, 0x100000000, 2 * PAGE), "all of it is");
	works(vd_client_dma_unmap(c, 0, PAGE), "and what has no file");
	fails(vd_client_dma_unmap(c, 0, PAGE), ENOENT, "but only once");
	if (d != NULL)
		ok(mt_space_load_le64(vd_server_dma(d->server), 0x100000008,
		    &val) != MT_OK, "the device has lost it");
	munmap(mem, 4 * PAGE);
	close(fd);
}

static void
use_irqs(struct vd_client *c)
{
	uint32_t entry[4] = { 0xfee00000, 0, 0, 0 }, val;
	uint16_t control;
	uint8_t cap;
	int fds[NR_VECTORS], fd;

	for (unsigned int i = 0; i < NR_VECTORS; i++)
		fds[i] = t_eventfd();
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, NR_VECTORS, fds),
	    "vectors are connected");
	for (unsigned int i = 0; i < NR_VECTORS; i++)
		must(vd_client_write(c, 0, TABLE + 16 * i, entry, 16) == 0);
	must(vd_client_read(c, 7, 0x34, &cap, 1) == 0);
	must(vd_client_read(c, 7, cap + 2, &control, 2) == 0);
	control |= 0x8000;
	must(vd_client_write(c, 7, cap + 2, &control, 2) == 0);
	val = NR_VECTORS - 1;
	works(vd_client_write(c, 0, 0, &val, 4), "the device fires the last");
	is_int(t_hits(fds[NR_VECTORS - 1]), 1, "which comes");
	is_int(t_hits(fds[0]), 0, "and no other");
	works(vd_client_set_irqs(c, VD_IRQ_MSIX, 1, 2, VD_IRQ_ACT_TRIGGER),
	    "two are triggered by hand");
	ok(t_hits(fds[0]) == 0 && t_hits(fds[1]) == 1 && t_hits(fds[2]) == 1 &&
	    t_hits(fds[3]) == 0, "and come alone");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 4, 2, NULL),
	    "two are disconnected");
	for (val = 3; val < 7; val++)
		must(vd_client_write(c, 0, 0, &val, 4) == 0);
	ok(t_hits(fds[3]) == 1 && t_hits(fds[4]) == 0 && t_hits(fds[5]) == 0 &&
	    t_hits(fds[6]) == 1, "and keep quiet");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, NR_VECTORS - 1, 2, fds),
	    EINVAL, "there are no more than there are");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL),
	    "all are disconnected");
	val = 0;
	must(vd_client_write(c, 0, 0, &val, 4) == 0);
	is_int(t_hits(fds[0]), 0, "and none comes any more");
	control &= 0x7fff;
	must(vd_client_write(c, 7, cap + 2, &control, 2) == 0);
	for (unsigned int i = 0; i < NR_VECTORS; i++)
		close(fds[i]);

	fd = t_eventfd();
	works(vd_client_set_eventfds(c, VD_IRQ_INTX, 0, 1, &fd),
	    "INTx is connected");
	val = 1;
	must(vd_client_write(c, 0, 4, &val, 4) == 0);
	is_int(t_hits(fd), 1, "and comes when the pin rises");
	works(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "it is unmasked");
	is_int(t_hits(fd), 1, "and comes again as the pin is still high");
	val = 0;
	must(vd_client_write(c, 0, 4, &val, 4) == 0);
	must(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK) ==
	    0);
	is_int(t_hits(fd), 0, "but not when it is low");
	works(vd_client_set_eventfds(c, VD_IRQ_INTX, 0, 0, NULL),
	    "INTx is disconnected");
	close(fd);
}

static void
test_threads(void)
{
	unsigned int before = t_count_fds();
	struct device d;
	struct vd_client *c = device_start(&d);
	struct vd_device_info info;
	uint32_t command;
	int resets;

	use_info(c);
	use_regions(c);
	use_dma(c, &d);
	use_irqs(c);
	resets = __atomic_load_n(&d.resets, __ATOMIC_SEQ_CST);
	works(vd_client_reset(c), "the device is reset");
	is_int(__atomic_load_n(&d.resets, __ATOMIC_SEQ_CST), resets + 1,
	    "once");
	must(vd_client_read(c, 7, 4, &command, 4) == 0);
	is_hex(command & 0x7, 0, "and is no bus master after that");
	device_stop(&d);
	fails(vd_client_device_info(c, &info), ENOTCONN,
	    "a server that ends is missed");
	fails(vd_client_post(c, 0, 0, &command, 4), ENOTCONN, "always");
	vd_client_destroy(c);
	is_int(t_count_fds(), before, "no descriptor is left of client and server");
}

/* The server as a process of its own, until it is killed. */
static pid_t
server_start(const char *path)
{
	struct device d;
	int ready[2];
	pid_t pid;
	char byte;

	must(pipe(ready) == 0);
	must((pid = fork()) != -1);
	if (pid != 0) {
		close(ready[1]);
		must(read(ready[0], &byte, 1) == 1);
		close(ready[0]);
		return (pid);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	device_init(&d);
	if (vd_server_listen(d.server, path) == -1 ||
	    write(ready[1], "x", 1) != 1)
		_exit(1);
	device_run(&d, -1);
	_exit(1);
}

static void
test_processes(void)
{
	char dir[] = "/tmp/vfudma-client.XXXXXX", path[64];
	struct vd_device_info info;
	struct vd_client *c;
	pid_t pid;

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/socket", dir);
	pid = server_start(path);
	for (int i = 0; i < 2; i++) {
		c = vd_client_connect(path);
		ok(c != NULL, "a client connects to another process");
		must(c != NULL);
		use_info(c);
		use_regions(c);
		use_dma(c, NULL);
		use_irqs(c);
		if (i == 0)
			vd_client_destroy(c);
	}
	kill(pid, SIGKILL);
	must(waitpid(pid, NULL, 0) == pid);
	fails(vd_client_device_info(c, &info), ENOTCONN,
	    "a server that was killed is missed");
	vd_client_destroy(c);
	fails_null(vd_client_connect(path), ECONNREFUSED,
	    "and cannot be connected to");
	unlink(path);
	rmdir(dir);
}

int
main(void)
{
	/* What forks comes before what makes threads. */
	test_processes();
	test_threads();
	return (done());
}
