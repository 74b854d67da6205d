/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Our server and our client with each other: every command, with every option,
 * through a relay that passes on bytes one by one or all that is there, takes
 * away descriptors, or cuts the connection at any byte.
 */

#include <sys/prctl.h>
#include <sys/wait.h>

#include <pthread.h>
#include <signal.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define DMA_LEN		3000u
#define MESSAGES	256

struct option {
	bool bytes, forced, twin, no_fds;
	bool remote;			/* the server is another process */
	int cut_way;			/* 0: the client's bytes, 1: the server's */
	size_t cut;			/* after so many of them; 0: never */
};

static struct v_dev dev;
static struct mt_topology *topology;	/* the client's memory */
static struct mt_region *memory;
static struct mt_space *space;
static int memfd, event;
static const char *failed;		/* where the last session did */
static _Atomic(bool) *dma_done;		/* shared by both processes */

/* --- the relay ----------------------------------------------------------- */

static const char key[] = "\"max_msg_fds\":";

/* One direction. */
struct way {
	int from, to;
	const struct option *o;
	int number;
	size_t passed;
	size_t matched;			/* bytes of key, then its digits */
	struct vd_hdr hdr;		/* of the message that passes */
	size_t at;			/* in it */
	size_t ends[MESSAGES];		/* where messages end */
	unsigned int nends;
};

static struct way ways[2];

/* "max_msg_fds":8 becomes "max_msg_fds":0. */
static void
hide_fds(struct way *w, char *c)
{
	if (w->matched < sizeof(key) - 1)
		w->matched = *c == key[w->matched] ? w->matched + 1 :
		    *c == key[0];
	else if (*c >= '0' && *c <= '9')
		*c = w->matched++ == sizeof(key) - 1 ? '0' : ' ';
	else
		w->matched = 0;
}

static void
note(struct way *w, uint8_t c)
{
	if (w->at < sizeof(w->hdr))
		((uint8_t *)&w->hdr)[w->at] = c;
	w->at++;
	w->passed++;
	if (w->at >= sizeof(w->hdr) && w->at == w->hdr.size) {
		w->at = 0;
		if (w->nends < MESSAGES)
			w->ends[w->nends++] = w->passed;
	}
}

/* Pass on what is there: false at the end. */
static bool
pass(struct way *w)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(16 * sizeof(int))];
	} control;
	static uint8_t buf[65536];
	struct iovec iov = { buf, w->o->bytes ? 1 : sizeof(buf) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
	    .msg_control = control.buf,
	    .msg_controllen = sizeof(control.buf) };
	struct cmsghdr *c;
	int fds[16];
	size_t nfds = 0;
	ssize_t n, i;
	bool sent;

	if (w->o->cut > 0 && w->number == w->o->cut_way) {
		if (w->passed == w->o->cut)
			return (false);
		if (iov.iov_len > w->o->cut - w->passed)
			iov.iov_len = w->o->cut - w->passed;
	}
	n = recvmsg(w->from, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n <= 0)
		return (n == -1 && errno == EAGAIN);
	for (c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
		nfds = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(c), nfds * sizeof(int));
	}
	for (i = 0; i < n; i++) {
		if (w->o->no_fds)
			hide_fds(w, (char *)&buf[i]);
		note(w, buf[i]);
	}
	sent = v_send_raw(w->to, buf, (size_t)n, fds, nfds);
	while (nfds > 0)
		close(fds[--nfds]);
	return (sent);
}

static void *
relay(void *arg)
{
	struct pollfd pfd[2];
	bool goes_on = true;
	int i;

	(void)arg;
	for (i = 0; i < 2; i++)
		pfd[i] = (struct pollfd){ .fd = ways[i].from,
		    .events = POLLIN };
	while (goes_on && poll(pfd, 2, 20000) > 0)
		for (i = 0; i < 2; i++)
			if (pfd[i].revents != 0)
				goes_on = pass(&ways[i]) && goes_on;
	close(ways[0].from);
	close(ways[1].from);
	return (NULL);
}

/* --- the server ---------------------------------------------------------- */

static uint8_t dma_data[DMA_LEN], dma_back[DMA_LEN];
static struct vd_dma_access access_of = { 0x2000, DMA_LEN };

static void
dma_read_done(struct vd__call *call)
{
	if (call->err != 0)
		return;
	*dma_done = call->placed && memcmp(dma_data, dma_back, DMA_LEN) == 0;
	vd__msg_close(&call->reply);
}

static void
dma_write_done(struct vd__call *call)
{
	static struct iovec iov = { &access_of, sizeof(access_of) };

	if (call->err != 0)
		return;
	vd__msg_close(&call->reply);
	*call = (struct vd__call){ .done = dma_read_done, .data = dma_back,
	    .data_len = DMA_LEN, .head = sizeof(access_of) };
	vd__conn_send(dev.s->conn, call, VD_CMD_DMA_READ, &iov, 1, NULL, 0,
	    10000);
}

/* Write to the client's memory, and read it back. */
static void
do_dma(void)
{
	static struct vd__call call;
	static struct iovec iov[2] = { { &access_of, sizeof(access_of) },
	    { dma_data, DMA_LEN } };

	call = (struct vd__call){ .done = dma_write_done };
	vd__conn_send(dev.s->conn, &call, VD_CMD_DMA_WRITE, iov, 2, NULL, 0,
	    10000);
	vd__server_wake(dev.s);
}

/* Runs until the client is gone. */
static void *
server(void *arg)
{
	(void)arg;
	do {
		v_readable(vd_server_fd(dev.s), 20000);
		if (dev.val == 0xd3a && dev.s->conn != NULL) {
			dev.val = 0;
			do_dma();
		}
	} while (vd_server_run(dev.s) != -1);
	return (NULL);
}

/* --- the client ---------------------------------------------------------- */

#define try(expr)							\
	do {								\
		errno = 0;						\
		if (!(expr)) {						\
			failed = #expr;					\
			return (false);					\
		}							\
	} while (0)

/* What the client has no call for: the errno of the answer, which has len. */
static int
ask(struct vd_client *c, uint16_t cmd, const void *payload, size_t len,
    size_t *answered)
{
	struct iovec iov = { (void *)(uintptr_t)payload, len };
	struct vd__msg m;

	if (vd__conn_call(c->conn, cmd, &iov, len > 0, NULL, 0, 10000,
	    &m) == -1)
		return (errno);
	*answered = m.len;
	vd__msg_close(&m);
	return (0);
}

/* The other commands. */
static bool
others(struct vd_client *c)
{
	static const uint16_t absent[] = { VD_CMD_DEVICE_GET_REGION_IO_FDS,
	    14, VD_CMD_DEVICE_FEATURE, VD_CMD_MIG_DATA_READ,
	    VD_CMD_MIG_DATA_WRITE };
	const struct { struct vd_write_multi m; struct vd_write_one w[2]; }
	    multi = { { 2 }, { { 0x1010, 0, 4, { 1, 2, 3, 4 } },
	    { 0x1018, 0, 8, { 5, 6, 7, 8, 9 } } } };
	const struct { struct vd_irq_set s; uint8_t on[4]; } bools =
	    { { 24, VD_IRQ_DATA_BOOL | VD_IRQ_ACT_MASK, VD_IRQ_MSIX, 3, 4 },
	    { 1, 0, 1 } };
	const struct vd_dma_unmap all = { 24, VD_UNMAP_ALL, 0, 0 };
	const struct vd_region_info plain = { .argsz = 32 };
	uint8_t in[16] = { 0 };
	size_t len, i;

	try(ask(c, VD_CMD_REGION_WRITE_MULTI, &multi, sizeof(multi),
	    &len) == 0 && len == 8);
	try(vd_client_read(c, 0, 0x1010, in, 16) == 0);
	try(memcmp(in, multi.w[0].data, 4) == 0 &&
	    memcmp(in + 8, multi.w[1].data, 8) == 0);
	try(ask(c, VD_CMD_DEVICE_SET_IRQS, &bools, sizeof(bools), &len) == 0);
	try(ask(c, VD_CMD_DEVICE_SET_IRQS, &bools, 23, &len) == EINVAL);
	try(ask(c, VD_CMD_DEVICE_GET_REGION_INFO, &plain, sizeof(plain),
	    &len) == 0 && len == sizeof(plain));
	try(vd_client_dma_map(c, 0x200000, 0x1000, 3, -1, 0) == 0);
	try(vd_client_dma_map(c, 0x300000, 0x1000, 3, -1, 0) == 0);
	try(ask(c, VD_CMD_DMA_UNMAP, &all, sizeof(all), &len) == 0 &&
	    len == sizeof(all));
	try(vd_client_dma_unmap(c, 0x200000, 0x1000) == -1 &&
	    errno == ENOENT);
	for (i = 0; i < T_COUNT(absent); i++)
		try(ask(c, absent[i], &multi, 16, &len) == ENOTSUP);
	try(ask(c, VD_CMD_DMA_READ, &multi, 16, &len) == EINVAL);
	try(ask(c, VD_CMD_VERSION, &multi, 16, &len) == EINVAL);
	try(ask(c, 999, NULL, 0, &len) == ENOSYS);
	return (true);
}

static bool
session(struct vd_client *c, const struct option *o)
{
	struct vd_client_region region;
	struct vd_device_info device;
	struct vd_irq_info irq;
	uint8_t out[4096], in[4096] = { 0 };
	int fds[3] = { event, event, event };
	uint32_t val = 6;
	unsigned int i;

	for (i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(i * 11 + 5);
	/* The session before may have been cut short of this. */
	if (v_readable(event, 0) && read(event, in, 8) != 8)
		return (false);
	try(vd_client_device_info(c, &device) == 0);
	try(device.num_regions == VD_NUM_REGIONS);
	for (i = 0; i < device.num_regions; i++) {
		try(vd_client_region_info(c, i, &region) == 0);
		vd__close(region.fd);
		try(i != 0 || (region.fd == -1) == o->no_fds);
	}
	for (i = 0; i < device.num_irqs; i++)
		try(vd_client_irq_info(c, i, &irq) == 0);
	try(vd_client_irq_info(c, 77, &irq) == -1 && errno == EINVAL);
	try(vd_client_write(c, VD_REGION_CONFIG, 4, &val, 2) == 0);
	try(vd_client_read(c, VD_REGION_CONFIG, 0, in, 256) == 0);
	try(in[0] == 0x58 && in[1] == 0x4e && (in[4] & 6) == 6);
	try(vd_client_write(c, 0, 0x1000, out, sizeof(out)) == 0);
	try(vd_client_read(c, 0, 0x1000, in, sizeof(in)) == 0);
	try(memcmp(in, out, sizeof(in)) == 0);
	try(vd_client_read(c, 0, 0x3000, in, 4) == -1 && errno == EIO);
	try(vd_client_post(c, 0, 0x1004, "posted", 6) == 0);
	try(vd_client_read(c, 0, 0x1004, in, 6) == 0);
	try(memcmp(in, "posted", 6) == 0);
	try(vd_client_dma_map(c, 0x100000, 0x4000, VD_DMA_READABLE, -1,
	    0) == 0);
	try(vd_client_dma_map(c, 0x100000, 0x1000, 1, -1, 0) == -1 &&
	    errno == EEXIST);
	if (o->no_fds) {
		try(vd_client_dma_map(c, 0, 0x4000, 3, memfd, 0) == -1 &&
		    errno == ENOTSUP);
		try(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 3, fds) == -1 &&
		    errno == ENOTSUP);
	} else {
		try(vd_client_dma_map(c, 0, 0x4000, 3, memfd, 0) == 0);
		try(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 3, fds) == 0);
		try(vd_client_set_eventfds(c, VD_IRQ_MSIX, 1, 1, NULL) == 0);
		try(vd_client_set_irqs(c, VD_IRQ_MSIX, 2, 1,
		    VD_IRQ_ACT_TRIGGER) == 0);
		try(v_readable(event, 1000) &&
		    read(event, in, 8) == 8 && in[0] == 1);
		try(vd_client_dma_unmap(c, 0, 0x4000) == 0);
	}
	try(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_MASK) == 0);
	try(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK) == 0);
	val = 0xd3a;
	try(vd_client_write(c, 0, 0x10, &val, 4) == 0);
	for (i = 0; i < 2000 && !*dma_done; i++)
		try(vd_client_read(c, 0, 0x20, in, 4) == 0);
	try(*dma_done);
	try(mt_space_read(space, 0x2000, in, DMA_LEN, MT_ATTRS_NONE) ==
	    MT_OK && memcmp(in, dma_data, DMA_LEN) == 0);
	try(vd_client_dma_unmap(c, 0x100000, 0x4000) == 0);
	try(vd_client_dma_unmap(c, 0x100000, 0x4000) == -1 &&
	    errno == ENOENT);
	try(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL) == 0);
	if (!others(c))
		return (false);
	try(vd_client_reset(c) == 0);
	return (true);
}

static char dir[] = "/tmp/vfudma-matrix.XXXXXX";

static void
path_of(bool forced, char path[64])
{
	snprintf(path, 64, "%s/%d", dir, forced);
}

/* A socket of the relay's, at whose other end a server is or will be. */
static int
reach(const struct option *o)
{
	int far[2];
	char path[64];

	if (o->remote) {
		path_of(o->forced, path);
		must((far[0] = v_connect(path)) != -1);
		return (far[0]);
	}
	must(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .force_queue = o->forced }) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, far) == 0);
	must(vd_server_attach(dev.s, far[1]) == 0);
	return (far[0]);
}

/* One session; *err is what it failed with. */
static bool
play(const struct option *o, int *err)
{
	const struct vd_client_options co = { .timeout_ms = 10000,
	    .no_twin = !o->twin, .force_queue = o->forced, .dma = space };
	int near[2], far, i;
	struct vd_client *c;
	pthread_t th[2];
	bool good = false;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, near) == 0);
	far = reach(o);
	for (i = 0; i < 2; i++)
		ways[i] = (struct way){ .from = i ? far : near[1],
		    .to = i ? near[1] : far, .o = o, .number = i };
	*dma_done = false;
	must(pthread_create(&th[0], NULL, relay, NULL) == 0);
	if (!o->remote)
		must(pthread_create(&th[1], NULL, server, NULL) == 0);
	failed = "vd_client_attach_with()";
	if ((c = vd_client_attach_with(near[0], &co)) != NULL)
		good = session(c, o);
	*err = errno;
	if (c == NULL)
		close(near[0]);
	vd_client_destroy(c);
	must(pthread_join(th[0], NULL) == 0);
	if (!o->remote)
		must(pthread_join(th[1], NULL) == 0);
	return (good);
}

static void
test_matrix(bool remote)
{
	struct option o = { .remote = remote };
	int i, err;

	for (i = 0; i < 16; i++) {
		o.bytes = (i & 1) != 0;
		o.forced = (i & 2) != 0;
		o.twin = (i & 4) != 0;
		o.no_fds = (i & 8) != 0;
		if (!ok(play(&o, &err), "%s%s%s%s%s", o.bytes ?
		    "byte by byte" : "whole", o.forced ? ", queued" : "",
		    o.twin ? ", twin" : "", o.no_fds ? ", no fds" : "",
		    remote ? ", two processes" : ""))
			diag("%s: %s", failed, strerror(err));
	}
}

/* --- cut short ----------------------------------------------------------- */

/* Memory is closed when no reader is left, which may be a moment later. */
static bool
has_fds(unsigned int n)
{
	int i;

	for (i = 0; i < 1000; i++) {
		if (t_count_fds() == n)
			return (true);
		usleep(1000);
	}
	return (false);
}

static void
test_cuts(bool twin)
{
	static size_t ends[2][MESSAGES];
	unsigned int n[2], way, i, half, before, bad = 0, cuts = 0;
	struct option o = { .twin = twin };
	size_t first;
	int err;

	must(play(&o, &err));
	for (way = 0; way < 2; way++) {
		n[way] = ways[way].nends;
		memcpy(ends[way], ways[way].ends, sizeof(ends[way]));
	}
	before = t_count_fds();
	for (way = 0; way < 2; way++) {
		for (i = 0; i < n[way]; i++) {
			for (half = 0; half < 2; half++) {
				first = i > 0 ? ends[way][i - 1] : 0;
				o.cut_way = (int)way;
				o.cut = half ? ends[way][i] :
				    (first + ends[way][i]) / 2;
				/* One that polls less may end before it. */
				if (play(&o, &err))
					continue;
				cuts++;
				if (err == ENOTCONN && !dev.s->connected &&
				    dev.s->conn == NULL && has_fds(before))
					continue;
				bad++;
				diag("cut %u of way %u: %s: %s, %u fds%s%s", i,
				    way, failed, strerror(err),
				    t_count_fds() - before, dev.s->connected ?
				    ", connected" : "", dev.s->conn != NULL ?
				    ", not dropped" : "");
			}
		}
	}
	is_int(bad, 0, "%u cuts are survived by both%s", cuts,
	    twin ? ", with a twin" : "");
	ok(cuts > 160, "which are most of all that there can be");
	o.cut = 0;
	ok(play(&o, &err), "the next client is served");
}

/* --- two processes ------------------------------------------------------- */

static pid_t pids[2];

/* A server that queues what it sends, or not, until it is killed. */
static void
be_server(bool forced)
{
	const struct vd_server_limits limits = { .force_queue = forced };
	char path[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	path_of(forced, path);
	v_dev_create(&dev);
	if (vd_server_set_limits(dev.s, &limits) == 0 &&
	    vd_server_listen(dev.s, path) == 0)
		server(NULL);
	_exit(1);
}

/* Before anything has threads. */
static void
begin_fork(void)
{
	char path[64];
	int i, ms, fd;

	for (i = 0; i < 2; i++) {
		must((pids[i] = fork()) != -1);
		if (pids[i] == 0)
			be_server(i != 0);
		path_of(i != 0, path);
		/* The path is there a moment before somebody listens. */
		for (ms = 0; ms < 5000 && (fd = v_connect(path)) == -1; ms++)
			usleep(1000);
		must(fd != -1);
		close(fd);
	}
}

static void
end_fork(void)
{
	char path[64];
	int status, i;

	for (i = 0; i < 2; i++) {
		must(kill(pids[i], SIGKILL) == 0);
		must(waitpid(pids[i], &status, 0) == pids[i]);
		is_int(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGKILL,
		    "the other process has lived to the end");
		path_of(i != 0, path);
		unlink(path);
	}
	rmdir(dir);
}

int
main(void)
{
	unsigned int before = t_count_fds(), i;

	for (i = 0; i < DMA_LEN; i++)
		dma_data[i] = (uint8_t)(i * 5 + i / 256);
	dma_done = mmap(NULL, sizeof(*dma_done), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(dma_done != MAP_FAILED);
	must(mkdtemp(dir) != NULL);
	begin_fork();
	memfd = v_memfd(0x4000);
	event = t_eventfd();
	topology = t_topology();
	memory = t_ram(topology, "memory", 0x10000);
	space = t_space(memory);
	test_matrix(true);
	end_fork();
	v_dev_create(&dev);
	test_matrix(false);
	test_cuts(false);
	test_cuts(true);
	v_dev_destroy(&dev);
	t_end_space(topology, space, memory);
	close(memfd);
	close(event);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
