/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Peers that are slow, a byte at a time, or fall silent in the middle.  Who
 * waits for one waits as long as was said and no longer, whatever comes
 * meanwhile; what comes too late changes nothing; and others are served.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE	4096u
#define KIB	((size_t)1 << 10)
#define TIME	100		/* ms to wait, where waiting ends */
#define LONG	(20 * TIME)	/* a machine may be busy */

static struct v_dev dev, other;
static int other_fd;

/* It took as long as was said. */
static void
in_time(int64_t start, const char *what)
{
	int64_t ms = vd__now_ms() - start;

	ok(ms >= TIME - 1 && ms < LONG, "%s ends in time: %d ms", what,
	    (int)ms);
}

/* --- slow clients -------------------------------------------------------- */

/* Another device of this process answers at once. */
static bool
other_works(void)
{
	const struct vd_region_access a = { 0x40, 0, 4 };
	struct v_reply r;

	return (v_call(other.s, other_fd, VD_CMD_REGION_READ, &a, sizeof(a),
	    &r) && v_errno(&r) == 0);
}

/* The messages of a session, and how many bytes they are. */
static size_t
build_session(uint8_t *buf)
{
	const struct vd_device_info info = { .argsz = sizeof(info) };
	const struct vd_dma_map map = { sizeof(map), 3, 0, 0x1000, PAGE };
	const struct vd_version version = { 0, 1 };
	struct { struct vd_region_access a; uint8_t data[8]; } write =
	    { { 0x40, 0, 8 }, "written" };
	size_t len = 0;

	len += v_build(buf, 0, VD_CMD_VERSION, 0, &version, sizeof(version));
	len += v_build(buf + len, 0, VD_CMD_DEVICE_GET_INFO, 0, &info,
	    sizeof(info));
	len += v_build(buf + len, 0, VD_CMD_DMA_MAP, 0, &map, sizeof(map));
	len += v_build(buf + len, 0, VD_CMD_REGION_WRITE, 0, &write,
	    sizeof(write));
	len += v_build(buf + len, 0, VD_CMD_DEVICE_RESET, 0, NULL, 0);
	return (len);
}

static void
test_version(void)
{
	static char dir[] = "/tmp/vfudma-slow.XXXXXX";
	char path[64];
	uint8_t buf[512];
	struct v_reply r;
	unsigned int i, sent = 0;
	int64_t start;
	int fd, next;

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	v_dev_create(&dev);
	must(vd_server_listen(dev.s, path) == 0);
	build_session(buf);
	dev.s->version_ms = TIME;
	must((fd = v_connect(path)) != -1 && (next = v_connect(path)) != -1);
	start = vd__now_ms();
	for (i = 0; i < 20 && v_send_raw(fd, buf + i, 1, NULL, 0); i++) {
		sent++;
		v_serve(dev.s, TIME / 8);
	}
	in_time(start, "a VERSION of which a byte comes now and then");
	ok(sent < 20, "before it is whole");
	ok(v_hello(dev.s, next), "the next client is served");
	close(fd);
	close(next);
	v_serve(dev.s, 0);

	dev.s->version_ms = LONG;
	must((fd = v_connect(path)) != -1);
	for (i = 0; i < 20; i++) {
		must(v_send_raw(fd, buf + i, 1, NULL, 0));
		v_serve(dev.s, 2);
	}
	ok(v_recv(fd, &r) && v_errno(&r) == 0, "one that is whole in time "
	    "is answered");
	/* From here on a client has all the time that it wants. */
	start = vd__now_ms();
	dev.s->version_ms = TIME;
	v_serve(dev.s, 2 * TIME);
	ok(vd_server_connected(dev.s), "and then there is no hurry");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
	rmdir(dir);
}

/* A client stops after any number of bytes, and is gone some time later. */
static void
test_silent_client(void)
{
	unsigned int restless = 0, stuck = 0, kept = 0, lost = 0, before;
	int sv[2], mem = v_memfd(PAGE);
	uint8_t buf[512];
	size_t len = build_session(buf), i;

	v_dev_create(&dev);
	v_dev_create(&other);
	other_fd = v_attach(other.s);
	before = t_count_fds();
	for (i = 0; i <= len; i++) {
		must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
		    sv) == 0);
		must(vd_server_attach(dev.s, sv[1]) == 0);
		v_send_raw(sv[0], buf, i, &mem, i > 60);
		v_serve(dev.s, 0);
		restless += v_readable(vd_server_fd(dev.s), 0);
		stuck += !other_works();
		lost += dev.s->conn == NULL && i <= 60;
		close(sv[0]);
		v_serve(dev.s, 0);
		stuck += dev.s->conn != NULL;
		kept += t_count_fds() != before;
		/* What tells of the end of its memory is not the next one's. */
		must(mt_topology_sync(dev.t) == 0);
		v_serve(dev.s, 0);
	}
	is_int(lost, 0, "a client may be silent after any byte");
	is_int(restless, 0, "of which the server makes no work");
	is_int(stuck, 0, "others are served, and its end is seen");
	is_int(kept, 0, "and no descriptor is left of it");
	close(mem);
	v_dev_destroy(&dev);
}

/* A client sends a byte at a time, and reads so. */
static void
test_bytes(void)
{
	const struct vd_region_access a = { 0, VD_REGION_CONFIG, PAGE };
	unsigned int answers = 0, bad = 0, stuck = 0;
	uint8_t buf[512], got[16 + 16 + PAGE];
	size_t len = build_session(buf), i, at = 0;
	int sv[2], small = 1, n = 60;
	struct v_reply r;

	v_dev_create(&dev);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small,
	    sizeof(small)) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	for (i = 0; i < len; i++) {
		must(v_send_raw(sv[0], buf + i, 1, NULL, 0));
		v_serve(dev.s, 1);
		stuck += !other_works();
		while (v_recv(sv[0], &r))
			answers += v_errno(&r) == 0;
	}
	/* A reset is answered when a thread has freed what it replaced. */
	while (answers < 5 && v_serve_until(dev.s, sv[0]) &&
	    v_recv(sv[0], &r))
		answers += v_errno(&r) == 0;
	is_int(answers, 5, "a byte now and then makes a session");
	for (i = 0; i < (size_t)n; i++)
		must(v_send(sv[0], 0, VD_CMD_REGION_READ, &a, sizeof(a)));
	v_serve(dev.s, 0);
	ok(vd__conn_queued(dev.s->conn) > 0, "answers wait for who reads");
	while (n > 0) {
		ssize_t k = recv(sv[0], got + at, sizeof(got) - at < 97 ?
		    sizeof(got) - at : 97, MSG_DONTWAIT);

		if (k <= 0) {
			must(v_serve_until(dev.s, sv[0]));
			continue;
		}
		stuck += at == 0 && !other_works();
		at += (size_t)k;
		if (at < sizeof(got))
			continue;
		at = 0;
		n--;
		bad += got[32] != 0x58 || got[33] != 0x4e;
	}
	is_int(bad, 0, "a little at a time");
	is_int(stuck, 0, "while others are served");
	close(sv[0]);
	v_serve(dev.s, 0);
	close(other_fd);
	v_serve(other.s, 0);
	v_dev_destroy(&other);
	v_dev_destroy(&dev);
}

/* --- slow DMA ------------------------------------------------------------ */

/* How the client answers DMA, the first time; then it is quick. */
struct dma_peer {
	int fd;
	size_t len;			/* of a message */
	size_t piece;
	unsigned int pause_ms;
	uint8_t *buf;
	pthread_t thread;
};

static bool
get(int fd, void *buf, size_t len, size_t piece, unsigned int ms)
{
	uint8_t *p = buf;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n) {
		if (ms != 0)
			usleep(ms * 1000);
		if (!v_readable(fd, 10000) ||
		    (n = recv(fd, p, len < piece ? len : piece, 0)) <= 0)
			return (false);
	}
	return (true);
}

/* Until the end. */
static void *
dma_peer(void *arg)
{
	struct dma_peer *p = arg;
	struct vd_dma_access a;
	size_t piece = p->piece, len, at, n;
	unsigned int ms = p->pause_ms;
	struct vd_hdr h;
	int i;

	for (i = 0;; i = 1, ms = 0, piece = SIZE_MAX) {
		if (!get(p->fd, &h, sizeof(h), SIZE_MAX, ms) ||
		    !get(p->fd, &a, sizeof(a), SIZE_MAX, 0) ||
		    !get(p->fd, p->buf, h.size - sizeof(h) - sizeof(a), piece,
		    ms))
			return (NULL);
		len = sizeof(h) + sizeof(a);
		if (h.cmd == VD_CMD_DMA_READ) {
			memset(p->buf + len, 'a' + i, (size_t)a.count);
			len += (size_t)a.count;
		}
		h.flags = VD_TYPE_REPLY;
		h.size = (uint32_t)len;
		memcpy(p->buf, &h, sizeof(h));
		memcpy(p->buf + sizeof(h), &a, sizeof(a));
		for (at = 0; at < len; at += n) {
			n = len - at < piece ? len - at : piece;
			if (!v_send_raw(p->fd, p->buf + at, n, NULL, 0))
				return (NULL);
			if (ms != 0)
				usleep(ms * 1000);
		}
	}
	return (NULL);
}

static void
slow_dma(size_t len, size_t piece, unsigned int ms, bool is_write,
    const char *name)
{
	const struct vd_server_limits limits = { .dma_timeout_ms = TIME };
	const struct vd_dma_map map = { sizeof(map), 3, 0, 0, 2 << 20 };
	struct { struct vd_region_access a; uint16_t val; } master =
	    { { 4, VD_REGION_CONFIG, 2 }, 6 };
	struct dma_peer p = { .len = len, .piece = piece, .pause_ms = ms };
	uint8_t *buf = malloc(len);
	enum mt_result res;
	struct v_reply r;
	int64_t start;
	size_t i, bad = 0;

	v_dev_create(&dev);
	must(vd_server_set_limits(dev.s, &limits) == 0);
	p.fd = v_attach(dev.s);
	must((p.buf = malloc((2 << 20) + 64)) != NULL && buf != NULL);
	must(v_call(dev.s, p.fd, VD_CMD_REGION_WRITE, &master, 18, &r) &&
	    v_errno(&r) == 0);
	must(v_call(dev.s, p.fd, VD_CMD_DMA_MAP, &map, sizeof(map), &r) &&
	    v_errno(&r) == 0);
	must(pthread_create(&p.thread, NULL, dma_peer, &p) == 0);
	memset(buf, 'w', len);
	start = vd__now_ms();
	res = is_write ? mt_space_write(vd_server_dma(dev.s), 0, buf, len,
	    MT_ATTRS_NONE) : mt_space_read(vd_server_dma(dev.s), 0, buf, len,
	    MT_ATTRS_NONE);
	is_hex(res, MT_DEVICE, "%s is an error", name);
	in_time(start, "which");
	/* The next one, once what was begun has come to its end. */
	for (i = 0; i < 100 && res != MT_OK; i++)
		res = is_write ? mt_space_write(vd_server_dma(dev.s), 0, buf,
		    8, MT_ATTRS_NONE) : mt_space_read(vd_server_dma(dev.s), 0,
		    buf, 8, MT_ATTRS_NONE);
	is_hex(res, MT_OK, "then all is well");
	for (i = 0; i < 8; i++)
		bad += buf[i] != (is_write ? 'w' : 'b');
	is_int(bad, 0, "and as it should be");
	shutdown(p.fd, SHUT_RDWR);
	must(pthread_join(p.thread, NULL) == 0);
	close(p.fd);
	v_serve(dev.s, 0);
	free(p.buf);
	free(buf);
	v_dev_destroy(&dev);
}

/* --- slow servers -------------------------------------------------------- */

struct server {
	pthread_t thread;
	int fd;
	_Atomic(unsigned int) silent;	/* at this command, once; 0: none */
	_Atomic(bool) never;		/* at all of these, for ever */
	_Atomic(unsigned int) unmaps;	/* that came */
	_Atomic(unsigned int) pause_us;	/* after each byte; 0: all at once */
	struct v_reply held;		/* the command that is not answered */
	bool holds;
};

static void
say(struct server *s, const struct v_reply *r, const void *payload,
    size_t len)
{
	static uint8_t buf[16 + 16 + (64 << 10)];
	size_t total = v_build(buf, r->hdr.id, r->hdr.cmd, VD_TYPE_REPLY,
	    payload, len), i, n;

	for (i = 0; i < total; i += n) {
		n = s->pause_us != 0 ? 1 : total - i;
		if (!v_send_raw(s->fd, buf + i, n, NULL, 0))
			return;
		if (s->pause_us != 0)
			usleep(s->pause_us);
	}
}

static void
answer(struct server *s, const struct v_reply *r)
{
	static uint8_t data[16 + (64 << 10)];
	const struct vd_device_info device = { 16, VD_DEVICE_PCI, 9, 5 };
	const struct vd_irq_info irq = { 16, 1, VD_IRQ_MSIX, 7 };
	struct vd_region_info region = { .argsz = 32, .flags =
	    VD_REGION_READABLE | VD_REGION_WRITABLE, .size = 64 << 10 };
	struct vd_region_access a;

	switch (r->hdr.cmd) {
	case VD_CMD_VERSION:
		say(s, r, "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":8}}",
		    39);
		break;
	case VD_CMD_DEVICE_GET_INFO:
		say(s, r, &device, sizeof(device));
		break;
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		say(s, r, &irq, sizeof(irq));
		break;
	case VD_CMD_DEVICE_GET_REGION_INFO:
		memcpy(&region.index, r->data + 8, 4);
		say(s, r, &region, sizeof(region));
		break;
	case VD_CMD_REGION_READ:
		memcpy(&a, r->data, sizeof(a));
		memcpy(data, &a, sizeof(a));
		memset(data + sizeof(a), (int)a.offset, a.count);
		say(s, r, data, sizeof(a) + a.count);
		break;
	case VD_CMD_REGION_WRITE:
		if ((r->hdr.flags & VD_NO_REPLY) == 0)
			say(s, r, r->data, sizeof(a));
		break;
	case VD_CMD_DMA_UNMAP:
		say(s, r, r->data, sizeof(struct vd_dma_unmap));
		break;
	default:
		say(s, r, NULL, 0);
		break;
	}
}

static void *
serve(void *arg)
{
	struct server *s = arg;
	struct v_reply r;

	while (v_readable(s->fd, 20000) && v_recv(s->fd, &r)) {
		v_close_fds(&r);
		s->unmaps += r.hdr.cmd == VD_CMD_DMA_UNMAP;
		if (s->silent == r.hdr.cmd) {
			if (s->never)
				continue;
			s->silent = 0;
			s->held = r;
			s->holds = true;
			continue;
		}
		if (s->holds)
			answer(s, &s->held);
		s->holds = false;
		answer(s, &r);
	}
	return (NULL);
}

static struct vd_client *
start(struct server *s, int timeout_ms)
{
	const struct vd_client_options o = { .timeout_ms = timeout_ms };

	s->holds = false;
	return (v_by_hand(&s->thread, &s->fd, serve, s, &o));
}

static void
stop(struct server *s, struct vd_client *c)
{
	v_by_hand_end(c, s->thread, s->fd);
}

static uint8_t large[60 << 10];
static int event;

static const struct op {
	unsigned int cmd;
	const char *name;
} ops[] = {
	{ VD_CMD_DEVICE_GET_INFO, "device info" },
	{ VD_CMD_DEVICE_GET_REGION_INFO, "region info" },
	{ VD_CMD_DEVICE_GET_IRQ_INFO, "interrupt info" },
	{ VD_CMD_REGION_READ, "a read" },
	{ VD_CMD_REGION_WRITE, "a write" },
	{ VD_CMD_DMA_MAP, "a map" },
	{ VD_CMD_DMA_UNMAP, "an unmap" },
	{ VD_CMD_DEVICE_SET_IRQS, "an interrupt" },
	{ VD_CMD_DEVICE_RESET, "a reset" },
};

static int
do_op(struct vd_client *c, unsigned int cmd, size_t len)
{
	struct vd_client_region region = { .fd = -1 };
	struct vd_device_info device;
	struct vd_irq_info irq;

	switch (cmd) {
	case VD_CMD_DEVICE_GET_INFO:
		return (vd_client_device_info(c, &device));
	case VD_CMD_DEVICE_GET_REGION_INFO:
		return (vd_client_region_info(c, 0, &region));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		return (vd_client_irq_info(c, VD_IRQ_MSIX, &irq));
	case VD_CMD_REGION_READ:
		return (vd_client_read(c, 0, 7, large, len));
	case VD_CMD_REGION_WRITE:
		return (vd_client_write(c, 0, 7, large, len));
	case VD_CMD_DMA_MAP:
		return (vd_client_dma_map(c, 0, PAGE, 3, event, 0));
	case VD_CMD_DMA_UNMAP:
		return (vd_client_dma_unmap(c, 0, PAGE));
	case VD_CMD_DEVICE_SET_IRQS:
		return (vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 1, &event));
	default:
		return (vd_client_reset(c));
	}
}

static void
test_silent_server(void)
{
	struct server s = { .silent = 0 };
	struct vd_client *c;
	int64_t begun;
	size_t i;
	int rv;

	s.silent = VD_CMD_VERSION;
	begun = vd__now_ms();
	c = start(&s, TIME);
	ok(c == NULL && errno == ETIMEDOUT, "VERSION: time is up");
	in_time(begun, "it");
	stop(&s, c);

	must((c = start(&s, LONG)) != NULL);
	for (i = 0; i < T_COUNT(ops); i++) {
		s.silent = ops[i].cmd;
		vd_client_set_timeout(c, TIME);
		begun = vd__now_ms();
		rv = do_op(c, ops[i].cmd, sizeof(large));
		ok(rv == -1 && errno == ETIMEDOUT, "%s: time is up",
		    ops[i].name);
		in_time(begun, "it");
		vd_client_set_timeout(c, LONG);
		memset(large, 0, sizeof(large));
		works(do_op(c, ops[i].cmd, sizeof(large)),
		    "%s: the next one works", ops[i].name);
	}
	ok(large[0] == 0, "and nothing else is written");
	works(do_op(c, VD_CMD_REGION_READ, 100), "a read");
	ok(large[0] == 7 && large[99] == 7 && large[100] == 0,
	    "reads what it should");
	stop(&s, c);
}

static void
test_slow_server(void)
{
	struct server s = { .pause_us = 200 };
	struct vd_client *c;
	unsigned int bad = 0;
	int64_t begun;
	size_t i;

	must((c = start(&s, LONG)) != NULL);
	for (i = 0; i < T_COUNT(ops); i++)
		if (do_op(c, ops[i].cmd, 64) == -1) {
			bad++;
			diag("%s: %s", ops[i].name, strerror(errno));
		}
	is_int(bad, 0, "answers may come a byte at a time");
	/* Longer than there is time for, in place and not. */
	for (i = 0; i < 2; i++) {
		s.pause_us = i ? 20 : 10000;
		vd_client_set_timeout(c, TIME);
		begun = vd__now_ms();
		fails(do_op(c, VD_CMD_REGION_READ, i ? sizeof(large) : 64),
		    ETIMEDOUT, "one that goes on and on is given up");
		in_time(begun, "which");
		s.pause_us = 0;
		memset(large, 0, sizeof(large));
		vd_client_set_timeout(c, 2 * LONG);
		works(do_op(c, VD_CMD_DEVICE_GET_INFO, 0),
		    "and another is waited for");
		ok(large[0] == 0 && large[sizeof(large) - 1] == 0,
		    "nothing is written any more by the one that came late");
	}
	stop(&s, c);
}

/* What sends more than one message, in a tree. */
static void
told_failed(void *arg, bool unmap, struct mt_range range, int error)
{
	unsigned int *n = arg;

	(void)unmap;
	(void)range;
	*n += error == ETIMEDOUT;
}

static void
test_silent_tree(void)
{
	static const struct vd_client_dma_ops dma_ops = {
		.failed = told_failed };
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 1 << 20), *r, *ram[3];
	struct mt_space *sp = t_space(root);
	struct server s = { .silent = 0 };
	struct vd_client_dma *d;
	unsigned int failed = 0, i;
	struct vd_client *c;
	int64_t begun;
	uint32_t val = 0;

	must((c = start(&s, LONG)) != NULL);
	s.silent = VD_CMD_DEVICE_GET_REGION_INFO;
	vd_client_set_timeout(c, TIME);
	begun = vd__now_ms();
	fails_null(vd_client_region_create(c, t, 0, "bar", 0), ETIMEDOUT,
	    "a region of which nothing is said");
	in_time(begun, "it");
	vd_client_set_timeout(c, LONG);
	must((r = vd_client_region_create(c, t, 0, "bar", 0)) != NULL);
	must(mt_region_add(root, r, 0, 0) == 0);
	vd_client_set_timeout(c, TIME);
	s.silent = VD_CMD_REGION_READ;
	begun = vd__now_ms();
	is_hex(mt_space_read(sp, 4, &val, 4, MT_ATTRS_NONE), MT_DEVICE,
	    "a load without an answer is a device's error");
	is_hex(val, UINT32_MAX, "and reads ones");
	in_time(begun, "it");
	vd_client_set_timeout(c, LONG);
	is_hex(mt_space_read(sp, 4, &val, 4, MT_ATTRS_NONE), MT_OK,
	    "the next one has one");
	is_hex(val, 0x04040404, "its own");
	must((d = vd_client_dma_create(c, sp, &dma_ops, &failed)) != NULL);
	must(mt_topology_begin(t) == 0);
	for (i = 0; i < 3; i++) {
		ram[i] = t_ram(t, "ram", PAGE);
		must(mt_region_add(root, ram[i], (8 + i) << 16, 0) == 0);
	}
	s.never = true;
	s.silent = VD_CMD_DMA_MAP;
	vd_client_set_timeout(c, TIME);
	begun = vd__now_ms();
	must(mt_topology_commit(t) == 0);
	in_time(begun, "a commit of three maps that are not answered");
	is_int(failed, 3, "which is told of each");
	s.never = false;
	s.silent = 0;
	vd_client_set_timeout(c, LONG);
	vd_client_dma_destroy(d);
	is_int(s.unmaps, 3, "as the server may have them, they are taken back");
	is_int(failed, 3, "without fail");
	for (i = 0; i < 3; i++) {
		must(mt_region_del(ram[i]) == 0);
		mt_region_put(ram[i]);
	}
	must(mt_region_del(r) == 0);
	mt_region_put(r);
	stop(&s, c);
	t_end_space(t, sp, root);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	event = t_eventfd();
	test_version();
	test_silent_client();
	test_bytes();
	slow_dma(8, 1, 5, false, "DMA_READ: an answer a byte at a time");
	slow_dma(64 * KIB, KIB, 5, false,
	    "DMA_READ: an answer a kilobyte at a time");
	slow_dma(1024 * KIB, 32 * KIB, 10, true,
	    "DMA_WRITE: a client that reads slowly");
	test_silent_server();
	test_slow_server();
	test_silent_tree();
	close(event);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
