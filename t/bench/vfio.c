/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * How fast a server answers.  One thread drives both ends of a socketpair: it
 * sends bare messages, runs the server, takes the reply.  vfio.floor4 is what
 * remains without the server: the bytes of vfio.region_read4 to and fro.
 */

#include <sys/mman.h>
#include <sys/socket.h>

#include <poll.h>
#include <unistd.h>

#include <libvfudma/vfudma.h>

#include "t/bench/bench.h"

#define PAGE		((uint64_t)4096)
#define IOVA(i)		(0x100000 + (uint64_t)(i) * 2 * PAGE)

static const size_t sizes[] = { 1, 64, 1024 };

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
		err(1, "sendmsg");
}

/* Take what is there: one message. */
static size_t
get(int from, void *buf, size_t size, int flags)
{
	struct iovec iov = { buf, size };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n = recvmsg(from, &msg, flags);

	if (n <= 0)
		err(1, "recvmsg");
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
dma_map(struct rig *r, size_t i, bool is_timed, double *ns)
{
	struct command c = command(VD_CMD_DMA_MAP, sizeof(c.u.map));
	double start;

	c.u.map = (struct vd_dma_map){ sizeof(c.u.map),
	    VD_DMA_READABLE | VD_DMA_WRITABLE, 0, IOVA(i), PAGE };
	if (!is_timed) {
		call(r, &c, r->memfd);
		return;
	}
	start = b_now();
	put(r->fd, &c, c.hdr.size, r->memfd);
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
	if (sv[0] == 0 &&
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1)
		err(1, "socketpair");
	return (b_measure(floor4, NULL, sv));
}

/* --- memory -------------------------------------------------------------- */

/* One more map, beside n - 1 that stay; taking it back is not measured. */
static double
bench_dma_map(size_t n)
{
	size_t rounds = b_quick ? 3 : 401, i;
	struct rig *r = rig();
	double *each, ns, begun;

	if ((each = calloc(rounds, sizeof(*each))) == NULL)
		err(1, "calloc");
	for (; r->maps < n - 1; r->maps++)
		dma_map(r, r->maps, false, NULL);
	for (begun = b_now(), i = 0; i < rounds; i++) {
		dma_map(r, n, true, &each[i]);
		dma_unmap(r, n);
		if (i > 20 && b_now() - begun > 2 * B_TOTAL_NS)
			break;
	}
	ns = b_median(each, i < rounds ? i + 1 : rounds);
	free(each);
	return (ns);
}

/* ------------------------------------------------------------------------- */

static const struct bench benches[] = {
	{ "vfio.floor4", "ns", bench_floor4, false },
	{ "vfio.region_read4", "ns", bench_region_read4, false },
	{ "vfio.region_write4", "ns", bench_region_write4, false },
	{ "vfio.posted_write4", "ns", bench_posted_write4, false },
	{ "vfio.idle_poll", "ns", bench_idle_poll, false },
	{ "vfio.dma_map.fd", "ns", bench_dma_map, true },
};

int
main(int argc, char *argv[])
{
	return (b_main(argc, argv, benches, B_COUNT(benches), sizes,
	    B_COUNT(sizes)));
}
