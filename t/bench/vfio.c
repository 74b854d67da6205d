/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * How fast a server answers.  One thread drives both ends of a socketpair: it
 * sends bare messages, runs the server, takes the reply.  vfio.floor4 is what
 * remains without the server: the bytes of vfio.region_read4 to and fro.
 *
 * DMA by message is between two processes.  The client's does nothing but
 * answer by recvmsg and sendmsg that block; vfio.floor.* is the same program
 * asked by a loop of the same two calls, so what is above it is the server's.
 */

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <libvfudma/vfudma.h>

#include "t/bench/bench.h"

#define PAGE		((uint64_t)4096)
#define IOVA(i)		(0x100000 + (uint64_t)(i) * 2 * PAGE)

static const size_t sizes[] = { 64, 1024, 16384 };

struct rig {
	struct mt_topology *t;
	struct vd_server *s;
	int fd;				/* the client's end */
	int memfd;
	size_t maps;			/* how many are made */
};

static enum mt_result
reg_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)size, (void)attrs;
	*val = off;
	return (MT_OK);
}

static enum mt_result
reg_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)attrs;
	b_use(val);
	return (MT_OK);
}

static const struct mt_io_ops reg_ops = {
	.read = reg_read, .write = reg_write, .endian = MT_LITTLE,
	.valid = { .min = 4, .max = 4 }, .impl = { .min = 4, .max = 4 },
};

static bool is_client;

/* A socket has failed.  A client ends without a word when the other end has. */
static void
lost(const char *what)
{
	if (is_client)
		_exit(0);
	err(1, "%s", what);
}

/* Send len bytes from one end, with a descriptor unless it is -1. */
static void
put(int to, const void *buf, size_t len, int fd)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;

	if (fd != -1) {
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	if (sendmsg(to, &msg, MSG_NOSIGNAL) != (ssize_t)len)
		lost("sendmsg");
}

/* Take what is there: one message. */
static size_t
get(int from, void *buf, size_t size, int flags)
{
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = recvmsg(from, &msg, flags);

	if (n <= 0)
		lost("recvmsg");
	return ((size_t)n);
}

struct command {
	struct vd_hdr hdr;
	union {
		struct vd_version version;
		struct vd_dma_map map;
		struct vd_dma_unmap unmap;
		struct {
			struct vd_region_access a;
			uint8_t data[8];
		} access;
	} u;
};

static struct command
command(enum vd_cmd cmd, size_t len)
{
	return ((struct command){ .hdr = {
	    .id = 1, .cmd = (uint16_t)cmd,
	    .size = (uint32_t)(sizeof(struct vd_hdr) + len) } });
}

static void
run(struct rig *r)
{
	if (vd_server_run(r->s) == -1)
		err(1, "vd_server_run");
}

/* The reply has come. */
static void
finish(struct rig *r)
{
	uint8_t buf[512];
	struct vd_hdr h;

	get(r->fd, buf, sizeof(buf), 0);
	memcpy(&h, buf, sizeof(h));
	if ((h.flags & VD_ERROR) != 0)
		errx(1, "command %u: %s", h.cmd, strerror((int)h.error));
}

/* As a client that can wait does it: until there is an answer. */
static void
call(struct rig *r, const struct command *c, int fd)
{
	struct pollfd p[2] = {
		{ .fd = r->fd, .events = POLLIN },
		{ .fd = vd_server_fd(r->s), .events = POLLIN },
	};

	put(r->fd, c, c->hdr.size, fd);
	for (;;) {
		if (poll(p, 2, 5000) <= 0)
			errx(1, "no answer");
		if (p[0].revents != 0)
			break;
		run(r);
	}
	finish(r);
}

static void
dma_map(struct rig *r, size_t i, int fd, bool is_timed, double *ns)
{
	struct command c = command(VD_CMD_DMA_MAP, sizeof(c.u.map));
	double start;

	c.u.map = (struct vd_dma_map){ sizeof(c.u.map),
	    VD_DMA_READABLE | VD_DMA_WRITABLE, 0, IOVA(i), PAGE };
	if (!is_timed) {
		call(r, &c, fd);
		return;
	}
	start = b_now();
	put(r->fd, &c, c.hdr.size, fd);
	run(r);
	finish(r);
	*ns += b_now() - start;
}

static void
dma_unmap(struct rig *r, size_t i)
{
	struct command c = command(VD_CMD_DMA_UNMAP, sizeof(c.u.unmap));

	c.u.unmap = (struct vd_dma_unmap){ sizeof(c.u.unmap), 0, IOVA(i),
	    PAGE };
	call(r, &c, -1);
}

static void
config_write(struct rig *r, uint64_t off, uint16_t val)
{
	struct command c = command(VD_CMD_REGION_WRITE,
	    sizeof(struct vd_region_access) + sizeof(val));

	c.u.access.a = (struct vd_region_access){ off, VD_REGION_CONFIG,
	    sizeof(val) };
	memcpy(c.u.access.data, &val, sizeof(val));
	call(r, &c, -1);
}

static struct rig *
rig(void)
{
	static struct rig r;
	struct command c = command(VD_CMD_VERSION, sizeof(c.u.version));
	struct mt_region *regs;
	int sv[2];

	if (r.t != NULL)
		return (&r);
	if ((r.t = mt_topology_create()) == NULL ||
	    (r.s = vd_server_create(r.t, NULL, NULL)) == NULL ||
	    (regs = mt_region_create_io(r.t, "regs", MT_SIZE(PAGE), &reg_ops,
	    NULL)) == NULL || vd_pci_set_bar(r.s, 0, regs, 0) == -1)
		err(1, "cannot make a device");
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1 ||
	    vd_server_attach(r.s, sv[1]) == -1)
		err(1, "cannot attach");
	if ((r.memfd = memfd_create("bench", MFD_CLOEXEC)) == -1 ||
	    ftruncate(r.memfd, (off_t)PAGE) == -1)
		err(1, "memfd");
	r.fd = sv[0];
	c.u.version.minor = 1;
	call(&r, &c, -1);
	config_write(&r, 4, 6);		/* memory, bus master */
	return (&r);
}

/* --- registers ----------------------------------------------------------- */

static void
region_read4(void *arg, size_t iters)
{
	struct command c = command(VD_CMD_REGION_READ,
	    sizeof(struct vd_region_access));
	struct rig *r = arg;

	c.u.access.a = (struct vd_region_access){ 8, VD_REGION_BAR0, 4 };
	while (iters-- > 0) {
		put(r->fd, &c, c.hdr.size, -1);
		run(r);
		finish(r);
	}
}

static void
write4(struct rig *r, size_t iters, bool is_posted)
{
	struct command c = command(VD_CMD_REGION_WRITE,
	    sizeof(struct vd_region_access) + 4);

	c.u.access.a = (struct vd_region_access){ 8, VD_REGION_BAR0, 4 };
	if (is_posted)
		c.hdr.flags = VD_NO_REPLY;
	while (iters-- > 0) {
		put(r->fd, &c, c.hdr.size, -1);
		run(r);
		if (!is_posted)
			finish(r);
	}
}

static void
region_write4(void *arg, size_t iters)
{
	write4(arg, iters, false);
}

static void
posted_write4(void *arg, size_t iters)
{
	write4(arg, iters, true);
}

static void
idle_poll(void *arg, size_t iters)
{
	while (iters-- > 0)
		run(arg);
}

/* What the kernel takes for as many bytes as a region_read4 moves. */
static void
floor4(void *arg, size_t iters)
{
	const size_t there = sizeof(struct vd_hdr) +
	    sizeof(struct vd_region_access), back = there + 4;
	int *sv = arg;
	uint8_t buf[512] = { 0 };

	while (iters-- > 0) {
		put(sv[0], buf, there, -1);
		get(sv[1], buf, sizeof(buf), MSG_DONTWAIT);
		put(sv[1], buf, back, -1);
		get(sv[0], buf, sizeof(buf), 0);
	}
}

#define FIGURE(name)							\
static double								\
bench_##name(size_t n)							\
{									\
	(void)n;							\
	return (b_measure(name, NULL, rig()));				\
}

FIGURE(region_read4)
FIGURE(region_write4)
FIGURE(posted_write4)
FIGURE(idle_poll)

static double
bench_floor4(size_t n)
{
	static int sv[2];

	(void)n;
	rig();
	if (sv[0] == 0 &&
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1)
		err(1, "socketpair");
	return (b_measure(floor4, NULL, sv));
}

/* --- memory -------------------------------------------------------------- */

#define SPARE	20000u		/* number of the map that comes and goes */

/* One more map, beside n - 1 that stay; taking it back is not measured. */
static double
bench_map(size_t n, bool with_fd)
{
	size_t rounds = b_quick ? 3 : 401, i;
	struct rig *r = rig();
	double *each, ns, begun;
	int fd = with_fd ? r->memfd : -1;

	if ((each = calloc(rounds, sizeof(*each))) == NULL)
		err(1, "calloc");
	for (; r->maps < n - 1; r->maps++)
		dma_map(r, r->maps, r->memfd, false, NULL);
	for (begun = b_now(), i = 0; i < rounds; i++) {
		dma_map(r, SPARE, fd, true, &each[i]);
		dma_unmap(r, SPARE);
		if (i > 20 && b_now() - begun > 2 * B_TOTAL_NS)
			break;
	}
	ns = b_median(each, i < rounds ? i + 1 : rounds);
	free(each);
	return (ns);
}

static double
bench_map_fd(size_t n)
{
	return (bench_map(n, true));
}

static double
bench_map_nofd(size_t n)
{
	return (bench_map(n, false));
}

/* Where a random address of n maps is, held and given back. */
static uint64_t translated;		/* less one; n is a power of two */

static void
translate(void *arg, size_t iters)
{
	struct rig *r = arg;
	struct mt_space *sp = vd_server_dma(r->s);
	struct mt_mapping map;
	uint64_t state = 1;

	while (iters-- > 0) {
		if (mt_dma_map(sp, IOVA(b_random(&state) & translated), 64,
		    MT_DMA_READ, MT_ATTRS_NONE, &map) == -1)
			err(1, "mt_dma_map");
		b_use(map.ptr);
		mt_dma_unmap(&map, 0);
	}
}

static double
bench_translate(size_t n)
{
	struct rig *r = rig();

	for (; r->maps < n; r->maps++)
		dma_map(r, r->maps, r->memfd, false, NULL);
	translated = n - 1;
	return (b_measure(translate, NULL, r));
}

/* --- DMA by message ------------------------------------------------------ */

#define MAX_DMA		((size_t)1 << 20)
#define DEPTH		32

struct dma_msg {
	struct vd_hdr hdr;
	struct vd_dma_access a;
	uint8_t data[MAX_DMA];
};

#define DMA_HEAD	offsetof(struct dma_msg, data)

struct wire {
	struct mt_topology *t;		/* NULL: the floor's */
	struct vd_server *s;
	int fd;				/* the floor's end */
	size_t len;
	bool is_write;
};

static uint8_t dma_buf[DEPTH][MAX_DMA];

/* All of a message: the calls of both directions are these. */
static void
get_all(int fd, void *buf, size_t len)
{
	size_t n;

	for (n = 0; n < len;)
		n += get(fd, (uint8_t *)buf + n, len - n, 0);
}

static void
put_all(int fd, const void *buf, size_t len)
{
	const uint8_t *p = buf;
	struct iovec iov;
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		iov.iov_base = (void *)(uintptr_t)p;
		iov.iov_len = len;
		if ((n = sendmsg(fd, &msg, MSG_NOSIGNAL)) == -1)
			lost("sendmsg");
	}
}

/* One message into m, as few calls as it can be had by. */
static void
get_message(int fd, struct dma_msg *m)
{
	size_t n = get(fd, m, DMA_HEAD, 0);

	if (n < sizeof(m->hdr))
		errx(1, "a header in pieces");
	get_all(fd, (uint8_t *)m + n, m->hdr.size - n);
}

/* A message, and not a byte of the next. */
static void
skip_message(int fd)
{
	uint8_t buf[512];
	struct vd_hdr h;

	get_all(fd, &h, sizeof(h));
	if (h.size - sizeof(h) > sizeof(buf))
		errx(1, "an answer too long");
	get_all(fd, buf, h.size - sizeof(h));
}

/* The client's process: an answer to each DMA command, for ever. */
static void
answer_dma(int fd)
{
	static struct dma_msg m;

	for (;;) {
		get_message(fd, &m);
		m.hdr.flags = VD_TYPE_REPLY;
		m.hdr.size = DMA_HEAD;
		if (m.hdr.cmd == VD_CMD_DMA_READ)
			m.hdr.size += (uint32_t)m.a.count;
		put_all(fd, &m, m.hdr.size);
	}
}

/* Start it: our end of the socket. */
static int
start_client(struct wire *w)
{
	struct command v = command(VD_CMD_VERSION, sizeof(v.u.version)),
	    c = command(VD_CMD_REGION_WRITE, sizeof(struct vd_region_access) +
	    2), m = command(VD_CMD_DMA_MAP, sizeof(m.u.map));
	const uint16_t master = 6;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1)
		err(1, "socketpair");
	switch (fork()) {
	case -1:
		err(1, "fork");
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		is_client = true;
		close(sv[1]);
		if (w->t != NULL) {
			v.u.version.minor = 1;
			c.u.access.a = (struct vd_region_access){ 4,
			    VD_REGION_CONFIG, sizeof(master) };
			memcpy(c.u.access.data, &master, sizeof(master));
			m.u.map = (struct vd_dma_map){ sizeof(m.u.map),
			    VD_DMA_READABLE | VD_DMA_WRITABLE, 0, 0, MAX_DMA };
			put(sv[0], &v, v.hdr.size, -1);
			skip_message(sv[0]);
			put(sv[0], &c, c.hdr.size, -1);
			skip_message(sv[0]);
			put(sv[0], &m, m.hdr.size, -1);
			skip_message(sv[0]);
		}
		answer_dma(sv[0]);
	}
	close(sv[0]);
	return (sv[1]);
}

static struct wire *
floor_wire(void)
{
	static struct wire w;

	if (w.fd == 0)
		w.fd = start_client(&w);
	return (&w);
}

static void
run_wire(struct wire *w)
{
	struct pollfd p = { .fd = vd_server_fd(w->s), .events = POLLIN };

	if (poll(&p, 1, 5000) != 1)
		errx(1, "no answer");
	if (vd_server_run_all(w->s) == -1)
		err(1, "vd_server_run_all");
}

static struct wire *
dma_wire(void)
{
	static struct wire w;
	uint8_t byte;

	if (w.t != NULL)
		return (&w);
	if ((w.t = mt_topology_create()) == NULL ||
	    (w.s = vd_server_create(w.t, NULL, NULL)) == NULL)
		err(1, "cannot make a device");
	w.fd = start_client(&w);
	if (vd_server_attach(w.s, w.fd) == -1)
		err(1, "cannot attach");
	do
		run_wire(&w);
	while (mt_space_read(vd_server_dma(w.s), 0, &byte, 1,
	    MT_ATTRS_NONE) != MT_OK);
	return (&w);
}

/* What a DMA_READ moves, by hand. */
static void
floor_read(void *arg, size_t iters)
{
	static struct dma_msg m;
	struct wire *w = arg;

	while (iters-- > 0) {
		m.hdr.cmd = VD_CMD_DMA_READ;
		m.hdr.flags = VD_TYPE_COMMAND;
		m.hdr.size = DMA_HEAD;
		m.a.count = w->len;
		put_all(w->fd, &m, DMA_HEAD);
		get_all(w->fd, &m, DMA_HEAD + w->len);
	}
}

static void
dma_access(void *arg, size_t iters)
{
	struct wire *w = arg;
	struct mt_space *sp = vd_server_dma(w->s);
	enum mt_result res;

	while (iters-- > 0) {
		res = w->is_write ? mt_space_write(sp, 0, dma_buf[0], w->len,
		    MT_ATTRS_NONE) : mt_space_read(sp, 0, dma_buf[0], w->len,
		    MT_ATTRS_NONE);
		if (res != MT_OK)
			errx(1, "DMA: %#x", (unsigned int)res);
	}
}

static double
one_by_one(size_t len, bool is_write)
{
	struct wire *w = dma_wire();

	w->len = len;
	w->is_write = is_write;
	return (b_measure(dma_access, NULL, w));
}

#define DMA_FIGURES(name, bytes)					\
static double								\
bench_floor_##name(size_t n)						\
{									\
	struct wire *w = floor_wire();					\
									\
	(void)n;							\
	w->len = bytes;							\
	return (b_measure(floor_read, NULL, w));			\
}									\
									\
static double								\
bench_dma_read_##name(size_t n)						\
{									\
	(void)n;							\
	return (one_by_one(bytes, false));				\
}									\
									\
static double								\
bench_dma_write_##name(size_t n)					\
{									\
	(void)n;							\
	return (one_by_one(bytes, true));				\
}

DMA_FIGURES(4k, (size_t)4 << 10)
DMA_FIGURES(64k, (size_t)64 << 10)
DMA_FIGURES(1m, (size_t)1 << 20)

struct flight {
	struct mt_access acc;
	size_t i;
};

static size_t to_fly, flying;

static void	landed(void *arg, enum mt_result res);

static void
take_off(struct flight *f)
{
	struct wire *w = dma_wire();

	if (to_fly == 0)
		return;
	to_fly--;
	flying++;
	if (mt_access_submit(vd_server_dma(w->s), &f->acc, f->i * w->len,
	    dma_buf[f->i], w->len, false, MT_ATTRS_NONE, landed, f) == -1)
		err(1, "mt_access_submit");
}

static void
landed(void *arg, enum mt_result res)
{
	if (res != MT_OK)
		errx(1, "DMA: %#x", (unsigned int)res);
	flying--;
	take_off(arg);
}

/* DEPTH reads in flight: each that ends begins another. */
static void
dma_deep(void *arg, size_t iters)
{
	static struct flight f[DEPTH];
	size_t i;

	for (to_fly = iters, i = 0; i < DEPTH; i++) {
		f[i].i = i;
		take_off(&f[i]);
	}
	while (flying > 0)
		run_wire(arg);
}

/* The rate with many in flight, over that of one at a time. */
static double
bench_dma_depth(size_t n)
{
	struct wire *w = dma_wire();
	double one = one_by_one((size_t)4 << 10, false);

	(void)n;
	return (one / b_measure(dma_deep, NULL, w));
}

/* ------------------------------------------------------------------------- */

static const struct bench benches[] = {
	{ "vfio.floor4", "ns", bench_floor4, false },
	{ "vfio.region_read4", "ns", bench_region_read4, false },
	{ "vfio.region_write4", "ns", bench_region_write4, false },
	{ "vfio.posted_write4", "ns", bench_posted_write4, false },
	{ "vfio.idle_poll", "ns", bench_idle_poll, false },
	{ "vfio.floor.4k", "ns", bench_floor_4k, false },
	{ "vfio.floor.64k", "ns", bench_floor_64k, false },
	{ "vfio.floor.1m", "ns", bench_floor_1m, false },
	{ "vfio.dma_read.4k", "ns", bench_dma_read_4k, false },
	{ "vfio.dma_read.64k", "ns", bench_dma_read_64k, false },
	{ "vfio.dma_read.1m", "ns", bench_dma_read_1m, false },
	{ "vfio.dma_read.4k.depth32", "times", bench_dma_depth, false },
	{ "vfio.dma_write.4k", "ns", bench_dma_write_4k, false },
	{ "vfio.dma_write.64k", "ns", bench_dma_write_64k, false },
	{ "vfio.dma_write.1m", "ns", bench_dma_write_1m, false },
	{ "vfio.dma_map.fd", "ns", bench_map_fd, true },
	{ "vfio.dma_map.nofd", "ns", bench_map_nofd, true },
	{ "vfio.translate", "ns", bench_translate, true },
};

int
main(int argc, char *argv[])
{
	return (b_main(argc, argv, benches, B_COUNT(benches), sizes,
	    B_COUNT(sizes)));
}
