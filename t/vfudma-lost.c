/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* A server that goes away, and what comes in its place. */

#include "t/machine.h"

static const uint16_t master = 0x6;

struct lost {
	unsigned int calls;		/* atomic */
	int error;
};

static void
lost(void *arg, int error)
{
	struct lost *l = arg;

	l->error = error;
	__atomic_add_fetch(&l->calls, 1, __ATOMIC_SEQ_CST);
}

/* What a driver does with a device that was reset. */
static void
set_up_master(struct m_machine *m)
{
	must(vd_client_write(m->c, VD_REGION_CONFIG, 4, &master, 2) == 0);
}

static void
set_up(struct m_machine *m)
{
	uint16_t control;
	uint8_t cap;

	set_up_master(m);
	must(vd_client_read(m->c, VD_REGION_CONFIG, 0x34, &cap, 1) == 0);
	must(vd_client_read(m->c, VD_REGION_CONFIG, cap + 2u, &control,
	    2) == 0);
	control |= 0x8000;
	must(vd_client_write(m->c, VD_REGION_CONFIG, cap + 2u, &control,
	    2) == 0);
}

static void
test_again(const char *path)
{
	const struct m_options o = { .vectors = 20, .small = true,
	    .path = path };
	struct m_options other = o;
	struct lost l = { 0 };
	struct vd_client_dma *dma;
	struct m_device d;
	struct m_machine m;
	const char *view = "10000-100ff bar4, mapped+0, 20000-21fff bar2+0, "
	    "22000-22fff bar2, mapped+0, 23000-23fff bar2+3000, "
	    "100000-101fff ram+0";
	uint32_t val;
	int fds[20];

	m_start(&d, &o);
	m_connect(&m, &d);
	fails(vd_client_reconnect(m.c, -1), EINVAL,
	    "nobody can reconnect who has not said so before");
	works(vd_client_set_lost(m.c, lost, &l), "somebody wants to be told");
	m_add_bar(&m, 2, 0x20000, 0, 0);
	m_add_bar(&m, 4, 0x10000, 0, 0);
	must(vd_client_watch_pages(m.c, m.sp) == 0);
	t_add(m.root, 0x100000, 0, t_ram(m.t, "ram", 2 * PAGE));
	must((dma = vd_client_dma_create(m.c, m.sp, NULL, NULL)) != NULL);
	for (unsigned int i = 0; i < 20; i++)
		fds[i] = t_eventfd();
	must(vd_client_set_eventfds(m.c, VD_IRQ_MSIX, 0, 20, fds) == 0);
	must(vd_client_set_eventfds(m.c, VD_IRQ_MSIX, 5, 1, NULL) == 0);
	must(vd_client_set_irqs(m.c, VD_IRQ_MSIX, 7, 1, VD_IRQ_ACT_MASK) ==
	    0);
	set_up(&m);
	is_view(m.sp, view, "a device at work");
	must(mt_space_store_le32(m.sp, 0x22000, 0x11) == MT_OK);
	works(vd_client_check(m.c), "its server is there");
	is_int(m_get(&l.calls), 0, "and nobody was told");

	m_stop(&d);
	is_hex(mt_space_load_le32(m.sp, 0x20040, &val), MT_DEVICE,
	    "its server is gone, and a read fails");
	is_int(m_get(&l.calls), 1, "that is told");
	is_int(l.error, ENOTCONN, "with the reason");
	is_hex(mt_space_load_le32(m.sp, 0x20040, &val), MT_DEVICE,
	    "the next one fails");
	fails(vd_client_check(m.c), ENOTCONN, "so does a look");
	is_int(m_get(&l.calls), 1, "and nobody is told again");
	ok(vd_client_reconnect(m.c, -1) == -1, "nobody answers yet");
	/* It changes while there is nobody to tell. */
	t_add(m.root, 0x102000, 0, t_ram(m.t, "more", PAGE));

	other.id = 0x11;
	m_start(&d, &other);
	fails(vd_client_reconnect(m.c, -1), ENODEV,
	    "another device is not taken");
	m_stop(&d);
	other = o;
	other.vectors = 21;
	m_start(&d, &other);
	fails(vd_client_reconnect(m.c, -1), ENODEV,
	    "nor one with another interrupt");
	m_stop(&d);
	other = o;
	other.small = false;
	m_start(&d, &other);
	fails(vd_client_reconnect(m.c, -1), ENODEV, "nor one without a BAR");
	is_hex(mt_space_load_le32(m.sp, 0x20040, &val), MT_DEVICE,
	    "reads still fail");
	m_stop(&d);

	m_start(&d, &o);
	works(vd_client_reconnect(m.c, -1), "the same is taken");
	set_up(&m);
	ok(strncmp(t_space_text(m.sp), view, strlen(view)) == 0,
	    "all is where it was");
	is_hex(mt_space_load_le32(m.sp, 0x20040, &val), MT_OK,
	    "a register is read");
	is_hex(val, 0x40404040, "and has its value");
	must(mt_space_load_le32(m.sp, 0x22000, &val) == MT_OK);
	is_hex(val, 0, "what is mapped is the new server's memory");
	must(mt_space_store_le32(m.sp, 0x22004, 0x77) == MT_OK);
	is_hex(((uint32_t *)mt_region_ptr(d.page))[1], 0x77, "indeed");
	must(mt_space_store_le32(m.sp, 0x10004, 0x78) == MT_OK);
	is_hex(((uint32_t *)mt_region_ptr(d.small))[1], 0x78,
	    "that of the small BAR, too");
	is_view(vd_server_dma(d.server), "100000-102fff dma@100000+0",
	    "it has the memory, and what came");
	must(mt_space_store_le32(m.sp, 0x20000 + M_FIRE, 19) == MT_OK);
	is_int(t_hits(fds[19]), 1, "it interrupts");
	must(mt_space_store_le32(m.sp, 0x20000 + M_FIRE, 5) == MT_OK);
	is_int(t_hits(fds[5]), 0, "not where nothing is connected");
	must(mt_space_store_le32(m.sp, 0x20000 + M_FIRE, 7) == MT_OK);
	is_int(t_hits(fds[7]), 0, "nor where it is masked");
	works(vd_client_set_irqs(m.c, VD_IRQ_MSIX, 7, 1, VD_IRQ_ACT_UNMASK),
	    "until it is not");
	is_int(t_hits(fds[7]), 1, "then it does");

	m_stop(&d);
	fails(vd_client_check(m.c), ENOTCONN, "that is gone, too");
	is_int(m_get(&l.calls), 2, "which is told");
	m_start(&d, &o);
	works(vd_client_reconnect(m.c, -1), "it can be done again");
	works(vd_client_reconnect(m.c, -1), "also when nothing is lost");
	is_int(m_get(&l.calls), 2, "of which nobody is told");
	is_hex(mt_space_load_le32(m.sp, 0x20040, &val), MT_OK,
	    "and works");
	vd_client_dma_destroy(dma);
	must(vd_client_unwatch_pages(m.c) == 0);
	for (unsigned int i = 0; i < 20; i++)
		close(fds[i]);
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- memory that was given by hand ---------------------------------------- */

#define MANY	100u
#define BOTH	(VD_DMA_READABLE | VD_DMA_WRITABLE)

static int
file_of(unsigned int pages)
{
	int fd = memfd_create("given", MFD_CLOEXEC);

	must(fd != -1 && ftruncate(fd, pages * PAGE) == 0);
	return (fd);
}

static void
test_maps(const char *path)
{
	const char *left = "300000-301fff dma@300000+0, "
	    "400000-400fff dma@400000+0, 500000-500fff dma@500000+0 r";
	const struct m_options o = { .path = path };
	struct m_options small = o;
	struct lost l = { 0 };
	struct m_device d;
	struct m_machine m;
	struct vd_device_info info;
	unsigned int before;
	uint32_t val;
	int fd, other;

	m_start(&d, &o);
	m_connect(&m, &d);
	fd = file_of(4);
	other = file_of(1);
	must(vd_client_dma_map(m.c, 0x100000, PAGE, BOTH, fd, 0) == 0);
	must(vd_client_set_lost(m.c, lost, &l) == 0);
	before = t_count_fds();
	must(vd_client_dma_map(m.c, 0x600000, PAGE, BOTH, other, 0) == 0);
	must(vd_client_dma_map(m.c, 0x500000, PAGE, VD_DMA_READABLE, fd,
	    0) == 0);
	must(vd_client_dma_map(m.c, 0x300000, 2 * PAGE, BOTH, fd, PAGE) == 0);
	must(vd_client_dma_map(m.c, 0x400000, PAGE, BOTH, -1, 0) == 0);
	must(vd_client_dma_map(m.c, 0x200000, PAGE, BOTH, fd, 0) == 0);
	must(vd_client_dma_map(m.c, 0x700000, PAGE, BOTH, fd, 0) == 0);
	/* The server has closed what it got when it serves the next. */
	must(vd_client_device_info(m.c, &info) == 0);
	is_int(t_count_fds(), before + 2,
	    "memory of one file costs the client one descriptor");
	fails(vd_client_dma_map(m.c, 0x301000, PAGE, BOTH, fd, 0), EEXIST,
	    "what is refused");
	must(vd_client_dma_unmap(m.c, 0x200000, PAGE) == 0);
	m_stop(&d);
	fails(vd_client_dma_map(m.c, 0x800000, PAGE, BOTH, fd, 0), ENOTCONN,
	    "what no server has got");
	fails(vd_client_dma_unmap(m.c, 0x700000, PAGE), ENOTCONN,
	    "or what is taken back meanwhile");
	must(vd_client_dma_unmap(m.c, 0x600000, PAGE) == -1);
	must(pwrite(fd, "\x11\x22\x33\x44", 4, PAGE) == 4);

	m_start(&d, &o);
	works(vd_client_reconnect(m.c, -1), "... is not missed");
	set_up_master(&m);
	is_view(vd_server_dma(d.server), left,
	    "the rest is given to the new server");
	must(mt_space_load_le32(vd_server_dma(d.server), 0x300000, &val) ==
	    MT_OK);
	is_hex(val, 0x44332211, "and is the same memory");
	m_stop(&d);
	close(other);

	small.max_maps = 2;
	m_start(&d, &small);
	ok(vd_client_reconnect(m.c, -1) == -1,
	    "a server that does not take all of it is not taken");
	fails(vd_client_check(m.c), ENOTCONN, "and has been left");
	must(vd_client_dma_unmap(m.c, 0x500000, PAGE) == -1);
	works(vd_client_reconnect(m.c, -1), "with less to give it is");
	set_up_master(&m);
	is_view(vd_server_dma(d.server), "300000-301fff dma@300000+0, "
	    "400000-400fff dma@400000+0", "and has that");
	works(vd_client_dma_unmap(m.c, 0x300000, 2 * PAGE), "it gives it back");
	works(vd_client_reconnect(m.c, -1), "the next");
	set_up_master(&m);
	is_view(vd_server_dma(d.server), "400000-400fff dma@400000+0",
	    "does not get that any more");
	m_stop(&d);
	m_start(&d, &o);
	must(vd_client_reconnect(m.c, -1) == 0);
	for (unsigned int i = 0; i < MANY; i++)
		must(vd_client_dma_map(m.c, 0x800000 + i * 2 * PAGE, PAGE,
		    BOTH, fd, 0) == 0);
	m_stop(&d);
	m_start(&d, &o);
	works(vd_client_reconnect(m.c, -1), "another one takes more");
	is_int(m_get(&d.maps), MANY + 1, "and is given all");
	vd_client_destroy(m.c);
	m_disconnect(&m, true);
	m_stop(&d);
	close(fd);
}

/* Over sockets of the caller's, while others read. */
struct reader {
	struct m_machine *m;
	bool stop;			/* atomic */
	uint64_t good, bad, wrong;
};

static void *
reader_thread(void *arg)
{
	struct reader *r = arg;
	uint32_t val;

	while (!__atomic_load_n(&r->stop, __ATOMIC_RELAXED)) {
		if (mt_space_load_le32(r->m->sp, 0x20040, &val) != MT_OK)
			r->bad++;
		else if (val != 0x40404040)
			r->wrong++;
		else
			__atomic_add_fetch(&r->good, 1, __ATOMIC_SEQ_CST);
		mt_space_load_le32(r->m->sp, 0x22000, &val);
	}
	return (NULL);
}

static void
test_readers(void)
{
	const struct m_options o = { 0 };
	struct m_device d;
	struct m_machine m;
	struct lost l = { 0 };
	struct reader r = { .m = &m };
	pthread_t thread;
	uint64_t good;

	m_start(&d, &o);
	m_connect(&m, &d);
	m_add_bar(&m, 2, 0x20000, 0, 0);
	must(vd_client_set_lost(m.c, lost, &l) == 0);
	fails(vd_client_reconnect(m.c, -1), EINVAL, "no path is known");
	must(pthread_create(&thread, NULL, reader_thread, &r) == 0);
	for (unsigned int i = 0; i < 10; i++) {
		good = __atomic_load_n(&r.good, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&r.good, __ATOMIC_SEQ_CST) < good + 3)
			usleep(1000);
		m_stop(&d);
		while (__atomic_load_n(&l.calls, __ATOMIC_SEQ_CST) <= i)
			usleep(1000);
		m_start(&d, &o);
		must(vd_client_reconnect(m.c, d.fd) == 0);
	}
	good = __atomic_load_n(&r.good, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&r.good, __ATOMIC_SEQ_CST) < good + 3)
		usleep(1000);
	__atomic_store_n(&r.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	is_int(r.wrong, 0, "a reader reads what is right, or errors");
	is_int(m_get(&l.calls), 10, "every loss is told once");
	m_disconnect(&m, false);
	m_stop(&d);
}

/* A server that takes the connection and says nothing good. */
static void
test_hostile(const char *path)
{
	const struct m_options o = { .path = path };
	struct m_device d;
	struct m_machine m;
	struct lost l = { 0 };
	uint8_t junk[64];
	int pair[2];

	m_start(&d, &o);
	m_connect(&m, &d);
	must(vd_client_set_lost(m.c, lost, &l) == 0);
	memset(junk, 0xa5, sizeof(junk));
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	must(write(pair[1], junk, sizeof(junk)) == sizeof(junk));
	fails(vd_client_reconnect(m.c, pair[0]), EPROTO,
	    "one that talks nonsense is not taken");
	ok(fcntl(pair[0], F_GETFD) != -1, "and the socket is still ours");
	close(pair[1]);
	fails(vd_client_reconnect(m.c, pair[0]), ENOTCONN,
	    "nor one that is closed");
	close(pair[0]);
	fails(vd_client_check(m.c), ENOTCONN, "the old one has been dropped");
	is_int(m_get(&l.calls), 0, "of which nobody has to be told");
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- against a callback that changes the tree ---------------------------- */

static struct m_machine *machine;
static struct mt_region *changed;
static unsigned int inside, over, ended;	/* atomic */

/* The device's write arrives, and is what moves something in the tree. */
static enum mt_result
moves(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)val, (void)attrs;
	__atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
	usleep(100000);		/* somebody is connecting again by now */
	must(mt_region_set_enabled(changed, false) == 0);
	__atomic_store_n(&over, 1, __ATOMIC_SEQ_CST);
	return (MT_OK);
}

static void *
serve_memory(void *arg)
{
	while (m_get(&ended) == 0)
		if (vd_client_run(machine->c) == -1)
			usleep(1000);
	return (arg);
}

static void *
write_memory(void *arg)
{
	struct m_device *d = arg;

	(void)mt_space_store_le32(vd_server_dma(d->server), 0x100000, 1);
	return (NULL);
}

/*
 * Who connects again needs the tree, and waits for who is in the connection;
 * who is in there may want the tree.
 */
static void
test_changes(const char *path)
{
	static const struct mt_io_ops ops = { .write = moves };
	const struct m_options o = { .path = path };
	struct mt_region *io;
	struct lost l = { 0 };
	struct m_device d;
	struct m_machine m;
	pthread_t server, writer;

	m_start(&d, &o);
	m_connect(&m, &d);
	machine = &m;
	m_add_bar(&m, 2, 0x20000, 0, 0);
	must((io = mt_region_create_io(m.t, "io", PAGE - 1, &ops, NULL)) !=
	    NULL);
	t_add(m.root, 0x100000, 0, io);
	changed = t_add(m.root, 0x300000, 0, t_reserved(m.t, "changed", 16));
	vd_client_set_dma(m.c, m.sp);
	must(vd_client_set_lost(m.c, lost, &l) == 0);
	must(vd_client_dma_map(m.c, 0x100000, PAGE, VD_DMA_READABLE |
	    VD_DMA_WRITABLE, -1, 0) == 0);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	must(pthread_create(&server, NULL, serve_memory, NULL) == 0);
	must(pthread_create(&writer, NULL, write_memory, &d) == 0);
	while (m_get(&inside) == 0)
		usleep(1000);
	works(vd_client_reconnect(m.c, -1),
	    "it is connected again while a callback changes the tree");
	is_int(m_get(&over), 1, "which was let do it");
	__atomic_store_n(&ended, 1, __ATOMIC_SEQ_CST);
	must(pthread_join(server, NULL) == 0);
	must(pthread_join(writer, NULL) == 0);
	m_disconnect(&m, false);
	m_stop(&d);
}

/* --- what is told is told with nothing held ------------------------------- */

struct helped {
	struct m_machine *m;
	void *(*help)(void *);		/* on another thread */
	int fd;				/* to connect again with */
	unsigned int told;		/* times */
	bool waited_in_vain;
};

/* An owner that waits for another thread, which uses the client. */
static void
lost_and_waits(void *arg, int error)
{
	struct helped *h = arg;
	struct timespec until;
	pthread_t thread;

	is_int(error, ENOTCONN, "a loss is told");
	h->told++;
	must(pthread_create(&thread, NULL, h->help, h) == 0);
	must(clock_gettime(CLOCK_REALTIME, &until) == 0);
	until.tv_sec += 10;
	if (pthread_timedjoin_np(thread, NULL, &until) != 0) {
		h->waited_in_vain = true;
		must(pthread_detach(thread) == 0);
	}
}

static void *
posts(void *arg)
{
	struct helped *h = arg;

	(void)mt_space_store_le32(h->m->sp, 0x40, 1);
	return (NULL);
}

/* Who posts a write finds that the server is gone. */
static void
test_told_of_post(void)
{
	const struct m_options o = { .no_page = true };
	struct helped h = { .help = posts };
	struct m_device d;
	struct m_machine m;

	m_start(&d, &o);
	m_connect(&m, &d);
	h.m = &m;
	m_add_bar(&m, 2, 0, 0, VD_CLIENT_POST);
	must(vd_client_set_lost(m.c, lost_and_waits, &h) == 0);
	m_stop(&d);
	for (unsigned int i = 0; i < 1000 && h.told == 0; i++)
		(void)mt_space_store_le32(m.sp, 0x40, i);
	is_int(h.told, 1, "to who posts a write");
	ok(!h.waited_in_vain, "and another thread can post meanwhile");
	m_disconnect(&m, false);
}

/* The device's write cuts the connection that it came by, and finds that. */
static enum mt_result
cuts(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct helped *h = arg;
	int fds[VD_CLIENT_FDS];

	(void)off, (void)size, (void)val, (void)attrs;
	must(vd_client_fds(h->m->c, fds) > 0);
	must(shutdown(fds[0], SHUT_RDWR) == 0);
	fails(vd_client_check(h->m->c), ENOTCONN,
	    "a callback finds that the server is gone");
	is_int(h->told, 0, "in the middle of a call nobody is told");
	return (MT_OK);
}

static void *
connects_again(void *arg)
{
	struct helped *h = arg;

	works(vd_client_reconnect(h->m->c, h->fd),
	    "another thread connects again");
	return (NULL);
}

static void
test_told_inside(void)
{
	struct helped h = { .help = connects_again };
	const struct mt_io_ops ops = { .write = cuts };
	const struct m_options o = { 0 };
	struct m_device d, next;
	pthread_t writer;
	struct m_machine m;
	struct mt_region *io;

	m_start(&d, &o);
	m_start(&next, &o);
	m_connect(&m, &d);
	h.m = &m;
	h.fd = next.fd;
	must((io = mt_region_create_io(m.t, "io", PAGE - 1, &ops, &h)) !=
	    NULL);
	t_add(m.root, 0x100000, 0, io);
	vd_client_set_dma(m.c, m.sp);
	must(vd_client_set_lost(m.c, lost_and_waits, &h) == 0);
	must(vd_client_dma_map(m.c, 0x100000, PAGE, VD_DMA_READABLE |
	    VD_DMA_WRITABLE, -1, 0) == 0);
	must(vd_client_write(m.c, VD_REGION_CONFIG, 4, &master, 2) == 0);
	must(pthread_create(&writer, NULL, write_memory, &d) == 0);
	while (vd_client_run(m.c) != -1)
		usleep(1000);
	is_int(h.told, 1, "behind the call it is told");
	ok(!h.waited_in_vain, "and no lock is in the way");
	works(vd_client_check(m.c), "of a client that goes on");
	must(pthread_join(writer, NULL) == 0);
	m_stop(&d);
	m_disconnect(&m, false);
	m_stop(&next);
}

int
main(void)
{
	char dir[] = "/tmp/vfudma-lost.XXXXXX", path[64];

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/socket", dir);
	test_again(path);
	test_maps(path);
	test_readers();
	test_hostile(path);
	test_changes(path);
	test_told_of_post();
	test_told_inside();
	rmdir(dir);
	return (done());
}
