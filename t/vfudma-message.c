/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * DMA by message: memory that came without a descriptor.  The client is a
 * thread that answers as it is told to, well or badly.
 */

#include <pthread.h>
#include <stdatomic.h>

#include <sys/eventfd.h>

#include "t/vfu.h"

#define KIB		((size_t)1 << 10)
#define MEM		((size_t)4 << 20)	/* the client's memory */
#define BASE		0x10000u		/* where the device sees it */
#define RO		0x80000000u		/* 64 KiB to read only */
#define WO		0x90000000u		/* and to write only */

/* An answer is no longer than this may be, so that it has room for a twin. */
#define TWIN	"\"twin_socket\":{\"supported\":true},\"max_msg_fds\":8," \
	"\"max_dma_maps\":65535,\"pgsizes\":4096,"			\
	"\"migration\":{\"pgsize\":4096},\"write_multiple\":false"

static struct v_dev dev;
static struct mt_space *sp;

/* What a callback of BAR 0 at HOOK does, on the server's thread. */
#define HOOK		0x2000u
static struct mt_region *hook_region;
static void (*hook)(bool is_write);

/* --- the server's thread ------------------------------------------------- */

static pthread_t runner;
static int stop_fd;
static int run_result, run_errno;

static void *
run_server(void *arg)
{
	struct pollfd pfd[2] = {
		{ .fd = vd_server_fd(dev.s), .events = POLLIN },
		{ .fd = stop_fd, .events = POLLIN },
	};

	(void)arg;
	run_result = 0;
	for (;;) {
		must(poll(pfd, 2, -1) > 0);
		if (pfd[1].revents != 0)
			return (NULL);
		if (vd_server_run_all(dev.s) == -1) {
			run_errno = errno;
			run_result = -1;
			return (NULL);
		}
	}
}

static void
start_server(void)
{
	must((stop_fd = eventfd(0, EFD_CLOEXEC)) != -1);
	must(pthread_create(&runner, NULL, run_server, NULL) == 0);
}

static void
stop_server(void)
{
	const uint64_t one = 1;

	must(write(stop_fd, &one, sizeof(one)) == sizeof(one));
	must(pthread_join(runner, NULL) == 0);
	close(stop_fd);
}

/* --- the client's thread ------------------------------------------------- */

/* How it answers. */
enum manner {
	WELL,
	HEADER_ONLY,		/* to writes, as QEMU */
	ERROR,
	SILENT,
	BACKWARDS,		/* the last first, once there are 8 */
	WRONG_ADDR,
	WRONG_COUNT,
	SHORT,
	LONG,
	EMPTY,			/* to reads */
	HANG_UP,
};

struct peer {
	int fd;			/* commands of ours, and all answers */
	int twin;		/* -1: none */
	pthread_t thread;
	_Atomic(int) manner;
	_Atomic(uint32_t) error;
	_Atomic(unsigned int) asked;	/* commands that came */
	_Atomic(uint64_t) largest;	/* count */
	_Atomic(unsigned int) held;	/* commands not answered */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool answered;			/* lock */
	struct v_reply reply;		/* lock */
	uint8_t *mem;
	struct { struct vd_hdr hdr; struct vd_dma_access a; } hold[64];
	uint8_t in[2 << 20];
};

static struct peer peer;

/* Where the memory is that is asked for; all three windows show it. */
static uint8_t *
at(struct peer *p, const struct vd_dma_access *a)
{
	uint64_t off = a->addr - BASE;

	if (a->addr >= WO)
		off = a->addr - WO;
	else if (a->addr >= RO)
		off = a->addr - RO;
	if (off > MEM || a->count > MEM - off)
		bail("asked for %#" PRIx64 "+%#" PRIx64, a->addr, a->count);
	return (p->mem + off);
}

static bool
answer(struct peer *p, int fd, const struct vd_hdr *req,
    struct vd_dma_access a, int manner)
{
	static uint8_t out[sizeof(struct vd_hdr) + 16 + (1 << 20) + 64];
	struct vd_hdr h = *req;
	size_t len = sizeof(a);
	uint8_t *mem = at(p, &a);
	bool read = req->cmd == VD_CMD_DMA_READ;
	size_t count = (size_t)a.count;

	h.flags = VD_TYPE_REPLY;
	switch (manner) {
	case HEADER_ONLY:
		len = read ? len : 0;
		break;
	case ERROR:
		h.flags |= VD_ERROR;
		h.error = p->error;
		len = 0;
		read = false;
		break;
	case WRONG_ADDR:
		a.addr++;
		break;
	case WRONG_COUNT:
		a.count--;
		break;
	case SHORT:
		if (read)
			count--;
		else
			len--;
		break;
	case LONG:
		if (read)
			count++;
		else
			len++;
		break;
	case EMPTY:
		read = false;
		len = 0;
		break;
	}
	memcpy(out + sizeof(h), &a, sizeof(a));
	if (read) {
		memcpy(out + sizeof(h) + len, mem, count);
		len += count;
	}
	h.size = (uint32_t)(sizeof(h) + len);
	memcpy(out, &h, sizeof(h));
	return (v_send_raw(fd, out, h.size, NULL, 0));
}

/* Answer what was held back, the last first. */
static void
release(struct peer *p, int fd)
{
	unsigned int n = p->held;

	while (n-- > 0)
		must(answer(p, fd, &p->hold[n].hdr, p->hold[n].a, WELL));
	p->held = 0;
}

/* One message of fd. */
static bool
serve(struct peer *p, int fd)
{
	struct vd_dma_access a;
	struct vd_hdr h;
	int manner;
	size_t len;

	if (!v_get(fd, &h, sizeof(h)))
		return (false);
	len = h.size - sizeof(h);
	must(len <= sizeof(p->in));
	if (!v_get(fd, p->in, len))
		return (false);
	if ((h.flags & VD_TYPE_MASK) == VD_TYPE_REPLY) {
		pthread_mutex_lock(&p->lock);
		p->reply.hdr = h;
		p->reply.len = len;
		memcpy(p->reply.data, p->in, len < sizeof(p->reply.data) ?
		    len : sizeof(p->reply.data));
		p->answered = true;
		pthread_cond_broadcast(&p->cond);
		pthread_mutex_unlock(&p->lock);
		return (true);
	}
	must(len >= sizeof(a));
	memcpy(&a, p->in, sizeof(a));
	must(len == sizeof(a) + (h.cmd == VD_CMD_DMA_WRITE ? a.count : 0));
	if (a.count > p->largest)
		p->largest = a.count;
	manner = p->manner;
	pthread_mutex_lock(&p->lock);
	if (h.cmd == VD_CMD_DMA_WRITE && manner != ERROR)
		memcpy(at(p, &a), p->in + sizeof(a), len - sizeof(a));
	pthread_mutex_unlock(&p->lock);
	p->asked++;
	if (manner == HANG_UP)
		return (false);
	if (manner == SILENT || manner == BACKWARDS) {
		must(p->held < T_COUNT(p->hold));
		p->hold[p->held].hdr = h;
		p->hold[p->held].a = a;
		p->held++;
		if (manner == BACKWARDS && p->held == 8)
			release(p, fd);
		return (true);
	}
	return (answer(p, fd, &h, a, manner));
}

static void *
run_peer(void *arg)
{
	struct peer *p = arg;
	struct pollfd pfd[2] = {
		{ .fd = p->fd, .events = POLLIN },
		{ .fd = p->twin, .events = POLLIN },
	};
	int i;

	for (;;) {
		must(poll(pfd, 2, -1) > 0);
		for (i = 0; i < 2; i++)
			if (pfd[i].revents != 0 && !serve(p, pfd[i].fd))
				goto gone;
	}
gone:
	shutdown(p->fd, SHUT_RDWR);
	if (p->twin != -1)
		shutdown(p->twin, SHUT_RDWR);
	return (NULL);
}

/* Send a command; peer_wait() is the errno of its answer. */
static void
peer_send(uint16_t cmd, uint32_t flags, const void *payload, size_t len)
{
	pthread_mutex_lock(&peer.lock);
	peer.answered = false;
	pthread_mutex_unlock(&peer.lock);
	must(v_send_fds(peer.fd, 99, cmd, VD_TYPE_COMMAND | flags, payload,
	    len, NULL, 0));
}

static int
peer_wait(void)
{
	int err;

	pthread_mutex_lock(&peer.lock);
	while (!peer.answered)
		pthread_cond_wait(&peer.cond, &peer.lock);
	err = v_errno(&peer.reply);
	pthread_mutex_unlock(&peer.lock);
	return (err);
}

static bool
peer_answered(void)
{
	bool answered;

	pthread_mutex_lock(&peer.lock);
	answered = peer.answered;
	pthread_mutex_unlock(&peer.lock);
	return (answered);
}

static int
peer_call(uint16_t cmd, const void *payload, size_t len)
{
	peer_send(cmd, 0, payload, len);
	return (peer_wait());
}

static int
peer_map(uint64_t addr, uint64_t size, uint32_t flags)
{
	const struct vd_dma_map m = { 32, flags, 0, addr, size };

	return (peer_call(VD_CMD_DMA_MAP, &m, sizeof(m)));
}

static void
send_unmap(uint64_t addr, uint64_t size)
{
	const struct vd_dma_unmap m = { 24, 0, addr, size };

	peer_send(VD_CMD_DMA_UNMAP, 0, &m, sizeof(m));
}

/* Attach, say hello with these capabilities, and let a thread answer. */
static void
start_peer(const char *caps)
{
	uint8_t req[18], v[512] = { 0, 0, 1, 0 };
	const struct vd_region_access a = { 4, 7, 2 };
	struct v_reply r;
	int sv[2];
	size_t len;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	peer.fd = sv[0];
	peer.twin = -1;
	peer.manner = WELL;
	peer.asked = peer.held = 0;
	peer.largest = 0;
	len = (size_t)snprintf((char *)v + 4, sizeof(v) - 4,
	    "{\"capabilities\":{%s}}", caps) + 5;
	must(v_call(dev.s, peer.fd, VD_CMD_VERSION, v, len, &r) &&
	    v_errno(&r) == 0);
	if (r.nfds > 0)
		peer.twin = r.fds[0];
	must((peer.twin != -1) == (strstr(caps, "twin") != NULL));
	start_server();
	must(pthread_create(&peer.thread, NULL, run_peer, &peer) == 0);
	memcpy(req, &a, 16);
	memcpy(req + 16, "\x06\x00", 2);
	must(peer_call(VD_CMD_REGION_WRITE, req, 18) == 0);
	must(peer_map(BASE, MEM, 3) == 0);
	must(peer_map(RO, 64 * KIB, 1) == 0);
	must(peer_map(WO, 64 * KIB, 2) == 0);
}

static void
stop_peer(void)
{
	shutdown(peer.fd, SHUT_RDWR);
	must(pthread_join(peer.thread, NULL) == 0);
	close(peer.fd);
	if (peer.twin != -1)
		close(peer.twin);
}

static void
fill(uint8_t *p, size_t len, unsigned int seed)
{
	size_t i;

	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + (i >> 8) * 13 + seed);
}

static enum mt_result
hook_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)attrs;
	*val = 0x55;
	hook(false);
	return (MT_OK);
}

static enum mt_result
hook_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)val;
	(void)attrs;
	hook(true);
	return (MT_OK);
}

static const struct mt_io_ops hook_ops = {
	.read = hook_read,
	.write = hook_write,
};

/* Access the hook: len bytes, zeroes if written. */
static void
send_hook(bool is_write, uint32_t flags, uint32_t len)
{
	const struct vd_region_access a = { HOOK, 0, len };
	uint8_t req[sizeof(a) + 64] = { 0 };

	memcpy(req, &a, sizeof(a));
	peer_send(is_write ? VD_CMD_REGION_WRITE : VD_CMD_REGION_READ, flags,
	    req, sizeof(a) + (is_write ? len : 0));
}

static void
begin(const char *caps, const struct vd_server_limits *limits)
{
	v_dev_create(&dev);
	sp = vd_server_dma(dev.s);
	hook_region = t_not_null(mt_region_create_io(dev.t, "hook",
	    MT_SIZE(64), &hook_ops, NULL), "hook");
	must(mt_region_add(dev.bar0, hook_region, HOOK, 0) == 0);
	if (limits != NULL)
		must(vd_server_set_limits(dev.s, limits) == 0);
	must((peer.mem = malloc(MEM)) != NULL);
	fill(peer.mem, MEM, 0);
	start_peer(caps);
}

static void
end(void)
{
	stop_peer();
	stop_server();
	mt_region_put(hook_region);
	v_dev_destroy(&dev);
	free(peer.mem);
}

/* --- accesses that wait -------------------------------------------------- */

static enum mt_result
dma_read(uint64_t addr, void *buf, size_t len)
{
	return (mt_space_read(sp, addr, buf, len, MT_ATTRS_NONE));
}

static enum mt_result
dma_write(uint64_t addr, const void *buf, size_t len)
{
	return (mt_space_write(sp, addr, buf, len, MT_ATTRS_NONE));
}

/* The lock is for tools that do not know what order sockets make. */
static bool
client_has(size_t off, const void *want, size_t len)
{
	bool same;

	pthread_mutex_lock(&peer.lock);
	same = memcmp(peer.mem + off, want, len) == 0;
	pthread_mutex_unlock(&peer.lock);
	return (same);
}

/* Is len at off read and written as it is in the client's memory? */
static bool
round_trip(size_t off, size_t len)
{
	uint8_t *buf = malloc(len + 2), *want = calloc(1, len);
	bool right;

	must(buf != NULL && want != NULL);
	memset(buf, 0xa5, len + 2);
	fill(want, len, (unsigned int)len);
	right = dma_write(BASE + off, want, len) == MT_OK &&
	    client_has(off, want, len) &&
	    dma_read(BASE + off, buf + 1, len) == MT_OK &&
	    memcmp(buf + 1, want, len) == 0 && buf[0] == 0xa5 &&
	    buf[len + 1] == 0xa5;
	free(buf);
	free(want);
	return (right);
}

static void
test_sizes(const char *what, const char *caps, size_t cut,
    const struct vd_server_limits *limits)
{
	static const size_t small[] = { 1, 2, 3, 4, 7, 8, 9, 16, 17, 4096 };
	size_t i, k, asked;
	bool right = true;
	uint8_t *buf;
	uint32_t v;

	begin(caps, limits);
	diag("%s", what);
	for (i = 0; i < T_COUNT(small); i++)
		right = right && round_trip(3 + i, small[i]);
	ok(right, "small accesses are right");
	right = true;
	for (k = 1; k <= 40 && k * cut + 1 <= MEM; k = k * 2 + 1)
		for (i = 0; i < 3; i++)
			right = right && round_trip(0, k * cut - 1 + i);
	ok(right, "so are those about as long as some messages");
	ok(round_trip(0, MEM), "and all of the memory at once");
	is_int(peer.largest, cut, "no message carries more than it may");
	asked = peer.asked;
	must((buf = malloc(2 * cut)) != NULL);
	is_hex(dma_read(BASE, buf, 2 * cut), MT_OK, "twice that");
	is_int(peer.asked - asked, 2, "takes two");
	asked = peer.asked;
	is_hex(mt_space_load_le32(sp, BASE + 8, &v), MT_OK, "a register");
	is_int(peer.asked - asked, cut < 4 ? 2 : 1, "takes one");
	free(buf);
	end();
}

/* See QEMU_READ in message.c. */
static void
test_qemu(void)
{
	const size_t len = 200 * KIB;
	uint8_t *buf = calloc(1, len);

	must(buf != NULL);
	begin("\"write_multiple\":true", NULL);
	is_hex(dma_read(BASE, buf, len), MT_OK, "QEMU is asked for much");
	ok(memcmp(buf, peer.mem, len) == 0, "and has it");
	is_int(peer.largest, 32 * KIB, "in pieces that it can send");
	is_hex(dma_write(BASE, buf, len), MT_OK, "and given much");
	is_int(peer.largest, len, "at once");
	end();
	free(buf);
}

static void
test_permissions(void)
{
	uint8_t buf[64];
	unsigned int asked;

	begin("", NULL);
	asked = peer.asked;
	is_hex(dma_read(RO, buf, 64), MT_OK, "memory to read is read");
	is_hex(dma_write(RO, buf, 64), MT_DENIED, "and not written");
	is_hex(dma_write(WO, buf, 64), MT_OK, "memory to write is written");
	is_hex(dma_read(WO, buf, 64), MT_DENIED, "and not read");
	is_int(peer.asked - asked, 2, "without asking the client");
	end();
}

static void
test_errors(void)
{
	static const struct { uint32_t err; enum mt_result res; } t[] = {
		{ EFAULT, MT_DECODE }, { EACCES, MT_DENIED },
		{ EPERM, MT_DENIED }, { EIO, MT_DEVICE }, { EINVAL, MT_DEVICE },
		{ ENOSYS, MT_DEVICE }, { ETIMEDOUT, MT_DEVICE },
		{ ENOTCONN, MT_DEVICE }, { 0, MT_DEVICE },
		{ UINT32_MAX, MT_DEVICE },
	};
	static const uint8_t zero[32];
	uint8_t buf[32];
	size_t i;

	begin("", NULL);
	peer.manner = HEADER_ONLY;
	is_hex(dma_write(BASE, zero, 32), MT_OK, "a header answers a write");
	peer.manner = ERROR;
	for (i = 0; i < T_COUNT(t); i++) {
		peer.error = t[i].err;
		memset(buf, 0xff, 32);
		is_hex(dma_read(BASE, buf, 32), t[i].res,
		    "a read fails by error %u", t[i].err);
		is_mem(buf, zero, 32, "and reads as zero");
		is_hex(dma_write(BASE, buf, 32), t[i].res, "so does a write");
	}
	peer.manner = WELL;
	ok(round_trip(5, 5000), "the client is as good as before");
	end();
}

static void
test_nonsense(void)
{
	static const struct { int manner; bool write; const char *name; } t[] =
	{
		{ WRONG_ADDR, false, "another address" },
		{ WRONG_ADDR, true, "another address" },
		{ WRONG_COUNT, false, "another count" },
		{ WRONG_COUNT, true, "another count" },
		{ SHORT, false, "too short" }, { SHORT, true, "too short" },
		{ LONG, false, "too long" }, { LONG, true, "too long" },
		{ EMPTY, false, "empty" },
		{ HANG_UP, false, "the end" }, { HANG_UP, true, "the end" },
	};
	uint8_t buf[9000];
	size_t i, len;

	memset(buf, 0, sizeof(buf));
	for (i = 0; i < T_COUNT(t); i++) {
		for (len = 64; len <= 9000; len += 8936) {
			begin("", NULL);
			peer.manner = t[i].manner;
			is_hex(t[i].write ? dma_write(BASE, buf, len) :
			    dma_read(BASE, buf, len), MT_DEVICE,
			    "a %s of %zu fails if the answer is %s",
			    t[i].write ? "write" : "read", len, t[i].name);
			pthread_join(runner, NULL);
			ok(run_result == -1 && run_errno == ENOTCONN,
			    "and the client is dropped");
			is_hex(dma_read(BASE, buf, 1), MT_DECODE,
			    "with its memory");
			stop_peer();
			close(stop_fd);
			mt_region_put(hook_region);
			v_dev_destroy(&dev);
			free(peer.mem);
		}
	}
}

static void
test_timeout(void)
{
	const struct vd_server_limits limits = { .dma_timeout_ms = 50 };
	static const uint8_t zero[9000];
	uint8_t buf[9000];

	begin("", &limits);
	peer.manner = SILENT;
	memset(buf, 0xff, sizeof(buf));
	is_hex(dma_read(BASE, buf, 9000), MT_DEVICE, "a read times out");
	is_mem(buf, zero, 9000, "and reads as zero");
	is_hex(dma_write(BASE + 10000, zero, 9000), MT_DEVICE, "so a write");
	is_int(peer.held, 2, "which the client has");
	memset(buf, 0xff, sizeof(buf));
	release(&peer, peer.fd);
	peer.manner = WELL;
	ok(round_trip(1, 9000), "late answers are dropped");
	end();
}

/* --- deferred accesses --------------------------------------------------- */

struct job {
	struct mt_access acc;
	uint8_t buf[4096];
	size_t len;
	_Atomic(int) done;		/* how often */
	_Atomic(int) res;
	pthread_t thread;		/* that called done */
};

static struct job jobs[1100];

static void
job_done(void *arg, enum mt_result res)
{
	struct job *j = arg;

	j->res = (int)res;
	j->thread = pthread_self();
	j->done++;
}

static void
submit(struct job *j, uint64_t addr, size_t len, bool is_write)
{
	j->done = 0;
	j->len = len;
	must(mt_access_submit(sp, &j->acc, addr, j->buf, len, is_write,
	    MT_ATTRS_NONE, job_done, j) == 0);
}

/*
 * Has each of n ended once, with this result, and on no thread but the server's
 * or, before mt_access_submit() had returned, ours?
 */
static bool
all_done(const struct job *j, size_t n, enum mt_result res)
{
	for (; n > 0; n--, j++)
		if (j->done != 1 || j->res != (int)res ||
		    (!pthread_equal(j->thread, runner) &&
		    !pthread_equal(j->thread, pthread_self())))
			return (false);
	return (true);
}

static bool
all_right(const struct job *j, size_t n, size_t len)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (!client_has(i * len, j[i].buf, len))
			return (false);
	return (true);
}

static void
test_deferred(const char *what, const char *caps,
    const struct vd_server_limits *limits)
{
	size_t n = T_COUNT(jobs), i;

	begin(caps, limits);
	diag("%s", what);
	peer.manner = BACKWARDS;
	for (i = 0; i < 32; i++)
		submit(&jobs[i], BASE + i * 512, 512, false);
	must(mt_access_drain(sp) == 0);
	ok(all_done(jobs, 32, MT_OK), "32 reads in flight end in any order");
	ok(all_right(jobs, 32, 512), "each with its own bytes");
	peer.manner = WELL;
	for (i = 0; i < n; i++)
		submit(&jobs[i], BASE + i * 2048, 2048, false);
	must(mt_access_drain(sp) == 0);
	ok(all_done(jobs, n, MT_OK),
	    "so do more than can be in flight at a time");
	ok(all_right(jobs, n, 2048), "each with its own bytes");
	for (i = 0; i < n; i++) {
		fill(jobs[i].buf, 2048, (unsigned int)i);
		submit(&jobs[i], BASE + i * 2048, 2048, true);
	}
	must(mt_access_drain(sp) == 0);
	ok(all_done(jobs, n, MT_OK) && all_right(jobs, n, 2048), "and writes");
	peer.manner = ERROR;
	peer.error = EFAULT;
	submit(&jobs[0], BASE, 100, false);
	must(mt_access_drain(sp) == 0);
	ok(all_done(jobs, 1, MT_DECODE), "an error is told");
	submit(&jobs[0], RO, 100, true);
	ok(jobs[0].done == 1 && jobs[0].res == MT_DENIED,
	    "what is not allowed ends at once");
	end();
}

/* Submit n reads, or reads and writes by turns, which the peer keeps. */
static void
submit_held(unsigned int n, bool by_turns)
{
	unsigned int i;

	peer.manner = SILENT;
	for (i = 0; i < n; i++)
		submit(&jobs[i], BASE + i * 512, 512, by_turns && i % 2 != 0);
	while (peer.held < n)
		usleep(1000);
}

/* What has been sent is answered when the 32 reads that are held end. */
static void
waits_for_reads(const char *what)
{
	usleep(20000);
	ok(!peer_answered(), "%s waits for accesses in flight", what);
	is_int(jobs[0].done, 0, "which go on");
	release(&peer, peer.twin);
	is_int(peer_wait(), 0, "and is answered when they end");
	ok(all_done(jobs, 32, MT_OK) && all_right(jobs, 32, 512), "well");
}

static void
test_unmap(void)
{
	begin(TWIN, NULL);
	submit_held(32, false);
	send_unmap(BASE, MEM);
	waits_for_reads("an unmap");
	end();
}

static void
test_reset(void)
{
	begin(TWIN, NULL);
	submit_held(32, false);
	peer_send(VD_CMD_DEVICE_RESET, 0, NULL, 0);
	waits_for_reads("a reset");
	is_hex(dma_read(BASE, jobs[0].buf, 1), MT_DECODE,
	    "there are no more until the guest allows them");
	end();
}

static void
test_cancel(void)
{
	static struct job kept;
	size_t i, taken = 0, n = 900;

	begin("", NULL);
	/* The client holds 64; more than that stay in the socket. */
	submit_held(64, true);
	for (i = 0; i < 64; i++) {
		taken += mt_access_cancel(&jobs[i].acc);
		memset(jobs[i].buf, 0xa5, sizeof(jobs[i].buf));
	}
	is_int(taken, 64, "what the client has not answered is cancelled");
	must(mt_access_drain(sp) == 0);
	memset(&kept, 0xa5, sizeof(kept));
	peer.manner = WELL;
	release(&peer, peer.fd);
	submit(&jobs[64], BASE, 512, false);
	must(mt_access_drain(sp) == 0);
	ok(all_done(&jobs[64], 1, MT_OK), "others go on");
	for (i = 0, taken = 0; i < 64; i++)
		taken += jobs[i].done == 0 &&
		    memcmp(jobs[i].buf, kept.buf, sizeof(kept.buf)) == 0;
	is_int(taken, 64, "late answers touch nothing and end nothing");
	for (i = 0; i < n; i++)
		submit(&jobs[i], BASE + i * 512, 512, false);
	for (i = 0, taken = 0; i < n; i++)
		taken += mt_access_cancel(&jobs[i].acc);
	must(mt_access_drain(sp) == 0);
	for (i = 0; i < n; i++)
		taken += jobs[i].done == 1;
	is_int(taken, n, "each is cancelled, or ends once");
	ok(round_trip(1, 5000), "the client is still good");
	end();
}

/* --- waiting inside a command -------------------------------------------- */

static _Atomic(int) hook_res;

static void
hook_waits(bool is_write)
{
	uint8_t buf[512];

	(void)is_write;
	hook_res = (int)dma_read(BASE, buf, sizeof(buf));
}

static _Atomic(int) hook_errno;

/* What waits in other ways. */
static void
hook_drains(bool is_write)
{
	(void)is_write;
	hook_res = mt_access_drain(sp);
	hook_errno = errno;
}

static void
hook_maps(bool is_write)
{
	struct mt_mapping m;

	(void)is_write;
	must(mt_dma_map(sp, BASE, 512, MT_DMA_READ, MT_ATTRS_NONE, &m) == 0);
	hook_res = (int)m.result;
	must(mt_dma_unmap(&m, 0) == 0);
}

static struct job hook_job;

static void
hook_submits(bool is_write)
{
	(void)is_write;
	submit(&hook_job, BASE, 512, false);
}

static void
test_deadlock(void)
{
	begin("", NULL);
	hook = hook_waits;
	hook_res = -1;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "a register is written");
	is_hex(hook_res, MT_DEVICE, "its callback cannot wait for the client");
	ok(strstr(dev.log, "EDEADLK") != NULL, "as the log says");
	is_int(peer.asked, 0, "nor was it asked");
	hook_res = -1;
	send_hook(true, VD_NO_REPLY, 4);
	send_hook(false, 0, 1);
	peer_wait();
	is_hex(hook_res, MT_DEVICE, "nor for a read");
	is_int(peer.asked, 1, "but for a posted write it can");
	hook = hook_maps;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "a callback that maps what has to be fetched");
	is_hex(hook_res, MT_DEVICE, "does not get it");
	hook = hook_drains;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "one that waits for what was submitted");
	ok(hook_res == -1 && hook_errno == EDEADLK, "is told EDEADLK");
	is_int(peer.asked, 1, "the client was not asked");
	hook = hook_submits;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "what it submits");
	must(mt_access_drain(sp) == 0);
	ok(all_done(&hook_job, 1, MT_OK), "ends after the reply");
	ok(round_trip(0, 4096), "and other threads wait as they like");
	end();

	begin(TWIN, NULL);
	hook = hook_waits;
	hook_res = -1;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "with a twin a register is written");
	is_hex(hook_res, MT_OK, "by a callback that waits for the client");
	is_int(peer.asked, 1, "which was asked");
	end();
}

/* --- commands that are answered later ------------------------------------ */

static _Atomic(struct vd_request *) taken;
static _Atomic(int) take_errno;

static void
hook_takes(bool is_write)
{
	struct vd_request *r = vd_server_take(dev.s);

	(void)is_write;
	if (r != NULL)
		taken = r;
	else
		take_errno = errno;
}

/* Take the hook's access: the request. */
static struct vd_request *
take(bool is_write, uint32_t flags, uint32_t len)
{
	taken = NULL;
	send_hook(is_write, flags, len);
	while (taken == NULL)
		usleep(100);
	return (taken);
}

static void
reset_takes(struct v_dev *d, enum vd_reset why)
{
	if (why == VD_RESET_DEVICE)
		taken = vd_server_take(d->s);
}

static void
test_take_reset(void)
{
	struct vd_request_info info;

	begin("", NULL);
	dev.on_reset = reset_takes;
	hook = hook_takes;
	taken = NULL;
	peer_send(VD_CMD_DEVICE_RESET, 0, NULL, 0);
	while (taken == NULL)
		usleep(100);
	vd_request_info(taken, &info);
	ok(info.reset && info.len == 0, "a reset is taken");
	usleep(10000);
	ok(!peer_answered(), "and not answered");
	fails(vd_request_finish(taken, 0, "x", 1), EINVAL, "it has no data");
	works(vd_request_finish(taken, 0, NULL, 0), "until the device wants");
	is_int(peer_wait(), 0, "it to be");
	is_int(peer.reply.len, 0, "without a payload");
	end();
}

static void
test_take(void)
{
	const struct vd_write_multi multi = { 1 };
	const struct vd_write_one one = { HOOK, 0, 4, { 0 } };
	struct vd_region_access a;
	struct vd_request_info info;
	struct vd_request *r, *many[300];
	uint8_t data[16], req[sizeof(multi) + sizeof(one)];
	unsigned int i, n;

	begin("", NULL);
	hook = hook_takes;
	take_errno = 0;
	r = take(false, 0, 16);
	is_int(take_errno, EBUSY, "what is taken is not taken again");
	vd_request_info(r, &info);
	ok(!info.reset && !info.is_write && info.region == 0 &&
	    info.off == HOOK && info.len == 16, "a request tells what it is");
	peer_send(VD_CMD_DEVICE_GET_INFO, 0, "\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
	    16);
	is_int(peer_wait(), 0, "the next command is answered before it");
	is_int(peer.reply.hdr.cmd, VD_CMD_DEVICE_GET_INFO, "and no other");
	fill(data, 16, 1);
	fails(vd_request_finish(r, 0, data, 15), EINVAL, "15 are not 16 bytes");
	fails(vd_request_finish(r, -1, NULL, 0), EINVAL, "-1 is no errno");
	fails(vd_request_finish(r, 4096, NULL, 0), EINVAL, "nor is 4096");
	pthread_mutex_lock(&peer.lock);
	peer.answered = false;
	pthread_mutex_unlock(&peer.lock);
	works(vd_request_finish(r, 0, data, 16), "16 bytes answer it");
	is_int(peer_wait(), 0, "and arrive");
	memcpy(&a, peer.reply.data, sizeof(a));
	ok(peer.reply.len == 32 && a.offset == HOOK && a.count == 16 &&
	    memcmp(peer.reply.data + 16, data, 16) == 0, "as they are");
	r = take(true, 0, 4);
	vd_request_info(r, &info);
	ok(info.is_write && info.len == 4, "a write is taken, too");
	fails(vd_request_finish(r, 0, data, 4), EINVAL, "it has no data");
	works(vd_request_finish(r, EIO, NULL, 0), "an error answers it");
	is_int(peer_wait(), EIO, "and arrives");
	r = take(true, VD_NO_REPLY, 4);
	works(vd_request_finish(r, 0, NULL, 0), "a posted one has no reply");

	/* Not to be taken. */
	memcpy(req, &multi, sizeof(multi));
	memcpy(req + sizeof(multi), &one, sizeof(one));
	take_errno = 0;
	is_int(peer_call(VD_CMD_REGION_WRITE_MULTI, req, sizeof(req)), 0,
	    "one of several writes");
	is_int(take_errno, EINVAL, "cannot be taken");
	fails_null(vd_server_take(dev.s), EINVAL, "nor can nothing");

	for (n = 0; n < 256; n++)
		many[n] = take(true, 0, 4);
	take_errno = 0;
	send_hook(true, 0, 4);
	is_int(peer_wait(), 0, "one more than 256 is answered at once");
	is_int(take_errno, ENOBUFS, "and not taken");
	for (i = 0; i < n; i++)
		must(vd_request_finish(many[i], 0, NULL, 0) == 0);
	r = take(true, 0, 4);
	must(vd_request_finish(r, 0, NULL, 0) == 0);

	/* The client, and the server, go. */
	many[0] = take(true, 0, 4);
	many[1] = take(false, 0, 4);
	many[2] = take(false, 0, 4);
	stop_peer();
	pthread_join(runner, NULL);
	works(vd_request_finish(many[0], 0, NULL, 0), "the client is gone");
	close(stop_fd);
	mt_region_put(hook_region);
	v_dev_destroy(&dev);
	works(vd_request_finish(many[1], 0, data, 4), "so is the server");
	works(vd_request_finish(many[2], EIO, NULL, 0), "long since");
	free(peer.mem);
}

/* --- many at once -------------------------------------------------------- */

static _Atomic(bool) stop_load;
static _Atomic(unsigned int) good, bad;

/* Read and write its own 64 KiB, waiting and not. */
static void *
load(void *arg)
{
	size_t off = (size_t)(uintptr_t)arg * 64 * KIB, i;
	struct job *j = t_not_null(calloc(8, sizeof(*j)), "jobs");
	uint8_t buf[5000];
	bool right = true;
	unsigned int n;

	for (n = 0; !stop_load && right; n++) {
		for (i = 0; i < 8; i++) {
			fill(j[i].buf, 1000, n + (unsigned int)i);
			submit(&j[i], BASE + off + i * 1000, 1000, true);
		}
		for (i = 0; i < 8; i++) {
			if (n % 7 == 3 && mt_access_cancel(&j[i].acc))
				continue;
			while (j[i].done == 0)
				usleep(10);
			if (j[i].res != MT_OK)
				right = false;
		}
		fill(buf, sizeof(buf), n);
		if (dma_write(BASE + off + 10000, buf, sizeof(buf)) != MT_OK ||
		    dma_read(BASE + off + 10000, buf, sizeof(buf)) != MT_OK)
			right = false;
		for (i = 0; right && i < sizeof(buf); i++)
			if (buf[i] != (uint8_t)(i * 7 + (i >> 8) * 13 + n))
				bad++;
		good += right;
	}
	free(j);
	return (NULL);
}

enum how { TAKEN_BACK, RESET, LOST };

static void
test_load(const char *what, const char *caps,
    const struct vd_server_limits *limits, enum how how)
{
	pthread_t th[4];
	uintptr_t i;

	begin(caps, limits);
	diag("%s", what);
	stop_load = false;
	good = bad = 0;
	for (i = 0; i < T_COUNT(th); i++)
		must(pthread_create(&th[i], NULL, load, (void *)i) == 0);
	while (good < 40)
		usleep(1000);
	if (how != LOST) {
		if (how == TAKEN_BACK)
			send_unmap(BASE, MEM);
		else
			peer_send(VD_CMD_DEVICE_RESET, 0, NULL, 0);
		is_int(peer_wait(), 0, how == TAKEN_BACK ?
		    "memory is taken back under load" : "a reset under load");
		i = peer.asked;
		usleep(5000);
		is_int(peer.asked - i, 0, "and touched no more");
	} else {
		stop_peer();
	}
	for (i = 0; i < T_COUNT(th); i++)
		must(pthread_join(th[i], NULL) == 0);
	ok(good >= 40 && bad == 0, "all was right up to the end");
	must(mt_access_drain(sp) == 0);
	if (how != LOST) {
		end();
		return;
	}
	pthread_join(runner, NULL);
	ok(run_result == -1 && run_errno == ENOTCONN, "the client is gone");
	close(stop_fd);
	mt_region_put(hook_region);
	v_dev_destroy(&dev);
	free(peer.mem);
}

int
main(void)
{
	static const char *const names[] = { "taken back", "reset", "lost" };
	const struct vd_server_limits forced = { .force_queue = true };
	enum how how;

	pthread_mutex_init(&peer.lock, NULL);
	pthread_cond_init(&peer.cond, NULL);
	test_sizes("one socket", "", 1 << 20, NULL);
	test_sizes("a twin", TWIN, 1 << 20,
	    NULL);
	test_sizes("small messages", "\"max_data_xfer_size\":65536", 1 << 16,
	    NULL);
	test_sizes("queued", "\"max_data_xfer_size\":65536", 1 << 16, &forced);
	test_qemu();
	test_permissions();
	test_errors();
	test_nonsense();
	test_timeout();
	test_deferred("one socket", "", NULL);
	test_deferred("a twin", TWIN, NULL);
	test_deferred("queued, in pieces", "\"max_data_xfer_size\":100",
	    &forced);
	test_unmap();
	test_reset();
	test_cancel();
	test_deadlock();
	test_take();
	test_take_reset();
	for (how = TAKEN_BACK; how <= LOST; how++) {
		test_load(names[how], "", NULL, how);
		test_load(names[how], TWIN, NULL, how);
		test_load(names[how], "\"max_data_xfer_size\":700", &forced,
		    how);
	}
	return (done());
}
