/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client, against servers of two kinds: ours, in another thread and in
 * another process; and one that follows a script, to say what no good server
 * says, or nothing, or to be gone in the middle of it.
 */

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <time.h>

#include <libvfudma/vfudma.h>

#include "t/util.h"

#define PAGE		4096u
#define ARGSZ		176u	/* what the client asks for first */
#define JSON(s)		"{\"capabilities\":{" s "}}"

static unsigned int
nr_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	must(d != NULL);
	while (readdir(d) != NULL)
		n++;
	closedir(d);
	return (n);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

static int
new_memfd(size_t len)
{
	int fd = memfd_create("vfudma-client", MFD_CLOEXEC);

	must(fd != -1 && ftruncate(fd, (off_t)len) == 0);
	return (fd);
}

/* --- a server by hand ---------------------------------------------------- */

struct script {
	void (*run)(struct script *);
	const void *arg;
	const char *json;		/* in the answer to VERSION; or NULL */
	size_t budget;			/* bytes to send before it is gone */
	unsigned int piece;		/* bytes to send at once; 0: all */
	unsigned int pause_ms;		/* between pieces */

	int fd;
	pthread_t thread;
	unsigned int fds_before;

	/* The message that came last. */
	struct vd_hdr hdr;
	uint8_t in[VD_MAX_MSG_SIZE];
	unsigned int nfds;
};

/* Receive len bytes; count descriptors and close them. */
static bool
get_bytes(struct script *s, void *buf, size_t len)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	uint8_t *p = buf;

	while (len > 0) {
		struct iovec iov = { p, len };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
		    .msg_control = &control,
		    .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *cm;

		if (n <= 0)
			return (false);
		for (cm = CMSG_FIRSTHDR(&m); cm != NULL;
		    cm = CMSG_NXTHDR(&m, cm)) {
			size_t count = (cm->cmsg_len - CMSG_LEN(0)) /
			    sizeof(int);

			s->nfds += count;
			for (size_t i = 0; i < count; i++) {
				int fd;

				memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd),
				    sizeof(fd));
				close(fd);
			}
		}
		p += n;
		len -= (size_t)n;
	}
	return (true);
}

static bool
get(struct script *s)
{
	s->nfds = 0;
	if (!get_bytes(s, &s->hdr, sizeof(s->hdr)))
		return (false);
	if (s->hdr.size < sizeof(s->hdr) ||
	    s->hdr.size > sizeof(s->hdr) + sizeof(s->in)) {
		ok(false, "the client sends a sound header");
		return (false);
	}
	return (get_bytes(s, s->in, s->hdr.size - sizeof(s->hdr)));
}

/* Send bytes with nfds descriptors, in pieces and as far as the budget goes. */
static bool
put(struct script *s, const void *hdr, const void *payload, size_t len,
    unsigned int nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	size_t total = sizeof(struct vd_hdr) + len, n;
	uint8_t *all = malloc(total);
	int fd = nfds > 0 ? new_memfd(16 * PAGE) : -1;
	bool gone = false;

	must(all != NULL && nfds <= 64);
	memcpy(all, hdr, sizeof(struct vd_hdr));
	if (len > 0)
		memcpy(all + sizeof(struct vd_hdr), payload, len);
	for (size_t at = 0; at < total && !gone; at += n) {
		struct iovec iov = { all + at, total - at };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

		if (s->piece != 0 && iov.iov_len > s->piece)
			iov.iov_len = s->piece;
		if (iov.iov_len > s->budget)
			iov.iov_len = s->budget;
		if ((gone = iov.iov_len == 0))
			break;
		if (at == 0 && nfds > 0) {
			memset(&control, 0, sizeof(control));
			control.align = (struct cmsghdr){
			    .cmsg_len = CMSG_LEN(nfds * sizeof(int)),
			    .cmsg_level = SOL_SOCKET,
			    .cmsg_type = SCM_RIGHTS };
			for (unsigned int i = 0; i < nfds; i++)
				memcpy(CMSG_DATA(&control.align) +
				    i * sizeof(int), &fd, sizeof(fd));
			m.msg_control = &control;
			m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		}
		n = (size_t)sendmsg(s->fd, &m, MSG_NOSIGNAL);
		if ((gone = n == (size_t)-1))
			break;
		s->budget -= n;
		if (s->pause_ms != 0)
			usleep(s->pause_ms * 1000);
	}
	if (fd != -1)
		close(fd);
	free(all);
	if (gone || s->budget == 0)
		shutdown(s->fd, SHUT_RDWR);
	return (!gone);
}

/* The header of a reply to the message that came last. */
static struct vd_hdr
reply_to(const struct script *s, size_t len)
{
	return ((struct vd_hdr){ .id = s->hdr.id, .cmd = s->hdr.cmd,
	    .size = (uint32_t)(sizeof(struct vd_hdr) + len),
	    .flags = VD_TYPE_REPLY });
}

static bool
answer(struct script *s, const void *payload, size_t len, unsigned int nfds)
{
	struct vd_hdr hdr = reply_to(s, len);

	return (put(s, &hdr, payload, len, nfds));
}

static bool
answer_version(struct script *s)
{
	uint8_t buf[512] = { 0, 0, 1, 0 };
	size_t len = 4;

	if (s->json != NULL) {
		must(strlen(s->json) < sizeof(buf) - len);
		strcpy((char *)buf + len, s->json);
		len += strlen(s->json) + 1;
	}
	return (answer(s, buf, len, 0));
}

/* Answer as a good server would, with a device that is easily told. */
static bool
answer_well(struct script *s)
{
	const struct vd_device_info device = { 16,
	    VD_DEVICE_PCI | VD_DEVICE_RESETTABLE, 9, 5 };
	const struct vd_irq_info irq = { 16, VD_IRQ_INFO_EVENTFD, VD_IRQ_MSIX,
	    7 };
	struct vd_region_access a;

	switch (s->hdr.cmd) {
	case VD_CMD_VERSION:
		return (answer_version(s));
	case VD_CMD_DEVICE_GET_INFO:
		return (answer(s, &device, sizeof(device), 0));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		return (answer(s, &irq, sizeof(irq), 0));
	case VD_CMD_DEVICE_GET_REGION_INFO: {
		const struct {
			struct vd_region_info info;
			struct vd_cap_sparse sparse;
			struct vd_area area;
		} r = { { sizeof(r), 0xf, 0, 32, 4 * PAGE, 0 },
		    { { VD_CAP_SPARSE, 1, 0 }, 1, 0 }, { PAGE, PAGE } };

		return (answer(s, &r, sizeof(r), 1));
	}
	case VD_CMD_REGION_READ:
		memcpy(&a, s->in, sizeof(a));
		for (uint32_t i = 0; i < a.count; i++)
			s->in[sizeof(a) + i] = (uint8_t)(a.offset + i);
		return (answer(s, s->in, sizeof(a) + a.count, 0));
	case VD_CMD_REGION_WRITE:
		if (s->hdr.flags & VD_NO_REPLY)
			return (true);
		return (answer(s, s->in, sizeof(a), 0));
	case VD_CMD_DMA_UNMAP:
		return (answer(s, s->in, sizeof(struct vd_dma_unmap), 0));
	default:
		return (answer(s, NULL, 0, 0));
	}
}

static void
serve(struct script *s)
{
	while (get(s) && answer_well(s))
		continue;
}

static void *
script_thread(void *arg)
{
	struct script *s = arg;

	s->run(s);
	shutdown(s->fd, SHUT_RDWR);
	return (NULL);
}

static struct script *
script_new(void (*run)(struct script *), const void *arg)
{
	struct script *s = calloc(1, sizeof(*s));

	must(s != NULL);
	s->run = run;
	s->arg = arg;
	s->budget = SIZE_MAX;
	s->fds_before = nr_fds();
	return (s);
}

/* Start a script, and connect a client to it: NULL with errno if it fails. */
static struct vd_client *
script_start(struct script *s)
{
	struct vd_client *c;
	int pair[2], error;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	s->fd = pair[1];
	must(pthread_create(&s->thread, NULL, script_thread, s) == 0);
	c = vd_client_attach(pair[0]);
	error = errno;
	if (c == NULL)
		close(pair[0]);
	errno = error;
	return (c);
}

/* True if no descriptor was leaked. */
static bool
script_stop(struct script *s, struct vd_client *c)
{
	bool same;

	vd_client_destroy(c);
	shutdown(s->fd, SHUT_RDWR);
	pthread_join(s->thread, NULL);
	close(s->fd);
	same = nr_fds() == s->fds_before;
	free(s);
	return (same);
}

/* Connect to a script for which that has to work. */
static struct vd_client *
script_connect(struct script *s)
{
	struct vd_client *c = script_start(s);

	if (c == NULL)
		bail("cannot connect to a script: %s", strerror(errno));
	return (c);
}

/* --- connecting ---------------------------------------------------------- */

struct hello {
	const char *name;
	int want;			/* errno */
	const char *payload;
	size_t len;
	uint32_t flags, error;
	unsigned int nfds;
};

static void
say_hello(struct script *s)
{
	const struct hello *h = s->arg;
	struct vd_hdr hdr;

	if (!get(s))
		return;
	hdr = reply_to(s, h->len);
	hdr.flags |= h->flags;
	hdr.error = h->error;
	put(s, &hdr, h->payload, h->len, h->nfds);
	while (get(s))
		continue;
}

#define HELLO(s)	.payload = "\0\0\1\0" s, .len = sizeof("\0\0\1\0" s)

static void
test_hello(void)
{
	static const struct hello hellos[] = {
		{ "a version without JSON", 0, .payload = "\0\0\1\0",
		    .len = 4 },
		{ "an older minor version", 0, .payload = "\0\0\0\0",
		    .len = 4 },
		{ "capabilities", 0, HELLO(JSON("\"max_msg_fds\":3")) },
		{ "an empty object", 0, HELLO("{}") },
		{ "a newer minor version", EPROTONOSUPPORT,
		    .payload = "\0\0\2\0", .len = 4 },
		{ "another major version", EPROTONOSUPPORT,
		    .payload = "\1\0\0\0", .len = 4 },
		{ "an error", EINVAL, .flags = VD_ERROR, .error = EINVAL },
		{ "nothing but a header", EPROTO, .len = 0 },
		{ "half a version", EPROTO, .payload = "\0", .len = 2 },
		{ "JSON without an end", EPROTO, .payload = "\0\0\1\0{}",
		    .len = 6 },
		{ "no JSON", EPROTO, HELLO("capable of anything") },
		{ "half of some JSON", EPROTO, HELLO("{\"capabilities\":{") },
		{ "an array", EPROTO, HELLO("[1,2]") },
		{ "capabilities of a wrong type", EPROTO,
		    HELLO("{\"capabilities\":7}") },
		{ "transfers of no bytes", EPROTO,
		    HELLO(JSON("\"max_data_xfer_size\":0")) },
		{ "transfers of less than no bytes", EPROTO,
		    HELLO(JSON("\"max_data_xfer_size\":-1")) },
		{ "a size that is a string", EPROTO,
		    HELLO(JSON("\"max_data_xfer_size\":\"8\"")) },
		{ "pages of 3 bytes", EPROTO, HELLO(JSON("\"pgsizes\":3")) },
		{ "a twin that is no socket", EPROTO,
		    HELLO(JSON("\"twin_socket\":{\"supported\":true,"
		    "\"fd_index\":0}")), .nfds = 1 },
		{ "descriptors", EPROTO, .payload = "\0\0\1\0", .len = 4,
		    .nfds = 20 },
	};

	for (size_t i = 0; i < T_COUNT(hellos); i++) {
		const struct hello *h = &hellos[i];
		struct script *s = script_new(say_hello, h);
		struct vd_client *c = script_start(s);
		int error = c != NULL ? 0 : errno;

		is_int(error, h->want, "VERSION is answered with %s", h->name);
		ok(script_stop(s, c), "and no descriptor is left of that");
	}
}

static void
test_connect_errors(void)
{
	char path[200];
	int pipes[2], sock;

	memset(path, 'x', sizeof(path));
	path[sizeof(path) - 1] = '\0';
	fails_null(vd_client_connect(path), ENAMETOOLONG,
	    "a path too long for a socket is refused");
	fails_null(vd_client_connect("/nonexistent/socket"), ENOENT,
	    "a socket has to be there");
	fails_null(vd_client_attach(-1), EBADF, "a descriptor has to be open");
	must(pipe(pipes) == 0);
	ok(vd_client_attach(pipes[0]) == NULL, "a pipe is no socket");
	ok(fcntl(pipes[0], F_GETFD) != -1, "and stays ours");
	close(pipes[0]);
	close(pipes[1]);
	must((sock = socket(AF_UNIX, SOCK_STREAM, 0)) != -1);
	ok(vd_client_attach(sock) == NULL, "a socket has to be connected");
	ok(fcntl(sock, F_GETFD) != -1, "and it, too, stays ours");
	close(sock);
	vd_client_destroy(NULL);
	ok(true, "no client can be destroyed");
}

/*
 * A server that says nothing keeps a client waiting its full 5 seconds, in
 * which the other tests are done: a process of its own.
 */
static pid_t
silence_start(void)
{
	pid_t pid = fork();
	int pair[2];
	int64_t start;

	must(pid != -1);
	if (pid != 0)
		return (pid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == -1)
		_exit(3);
	start = now_ms();
	if (vd_client_attach(pair[0]) != NULL || errno != ETIMEDOUT)
		_exit(1);
	start = now_ms() - start;
	_exit(start >= 4900 && start < 15000 ? 0 : 2);
}

static void
silence_end(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	is_hex(status, 0,
	    "a server that says nothing is given up after five seconds");
}

/* --- one bad reply ------------------------------------------------------- */

enum op {
	OP_DEVICE, OP_IRQ, OP_REGION, OP_READ, OP_WRITE, OP_POST, OP_MAP,
	OP_UNMAP, OP_EVENTFDS, OP_IRQS, OP_RESET, NR_OPS,
};

static int
do_op(struct vd_client *c, enum op op, struct vd_client_region *region)
{
	struct vd_device_info device;
	struct vd_irq_info irq;
	uint8_t buf[32] = { 0 };
	int fds[3] = { 1, 1, 1 };

	switch (op) {
	case OP_DEVICE:
		return (vd_client_device_info(c, &device));
	case OP_IRQ:
		return (vd_client_irq_info(c, VD_IRQ_MSIX, &irq));
	case OP_REGION:
		return (vd_client_region_info(c, 0, region));
	case OP_READ:
		return (vd_client_read(c, 0, 0x40, buf, sizeof(buf)));
	case OP_WRITE:
		return (vd_client_write(c, 0, 0x40, buf, sizeof(buf)));
	case OP_POST:
		return (vd_client_post(c, 0, 0x40, buf, sizeof(buf)));
	case OP_MAP:
		return (vd_client_dma_map(c, PAGE, PAGE, VD_DMA_READABLE, 1,
		    0));
	case OP_UNMAP:
		return (vd_client_dma_unmap(c, PAGE, PAGE));
	case OP_EVENTFDS:
		return (vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 3, fds));
	case OP_IRQS:
		return (vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1,
		    VD_IRQ_ACT_UNMASK));
	default:
		return (vd_client_reset(c));
	}
}

/* What is sent instead of the reply to the first command. */
struct canned {
	const char *name;
	enum op op;
	int want;			/* errno */
	const void *payload;
	size_t len;
	unsigned int nfds;
	struct vd_hdr add;		/* to the header of a good reply */
	/* Of OP_REGION, if it works: */
	unsigned int areas;
	bool fd;
};

static void
send_canned(struct script *s)
{
	const struct canned *k = s->arg;
	struct vd_hdr hdr;

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	hdr = reply_to(s, k->len);
	hdr.id = (uint16_t)(hdr.id + k->add.id);
	hdr.cmd = (uint16_t)(hdr.cmd + k->add.cmd);
	hdr.size += k->add.size;
	hdr.flags += k->add.flags;
	hdr.error += k->add.error;
	if (put(s, &hdr, k->payload, k->len, k->nfds))
		serve(s);
}

static void
try_canned(const struct canned *k)
{
	struct script *s = script_new(send_canned, k);
	struct vd_client *c = script_connect(s);
	struct vd_client_region r = { .fd = -1 };
	struct vd_device_info info;
	int rv, error;

	vd_client_set_timeout(c, 2000);
	rv = do_op(c, k->op, &r);
	error = rv == -1 ? errno : 0;
	is_int(error, k->want, "%s", k->name);
	if (k->op == OP_REGION && rv == 0) {
		is_int(r.nr_areas, k->areas, "... has %u areas", k->areas);
		is_int(r.fd != -1, k->fd, "... has %s descriptor",
		    k->fd ? "a" : "no");
		is_int((r.flags & VD_REGION_MAPPABLE) != 0, k->fd,
		    "... and is marked so");
	}
	if (r.fd != -1)
		close(r.fd);
	rv = vd_client_device_info(c, &info);
	if (k->want == EPROTO)
		ok(rv == -1 && errno == ENOTCONN,
		    "... after which it is disconnected");
	else
		ok(rv == 0 && info.num_regions == 9,
		    "... after which all is well");
	ok(script_stop(s, c), "... with no descriptor left");
}

static void
test_framing(void)
{
	static const struct vd_device_info good = { 16, 3, 9, 5 };
#define GOOD	.payload = &good, .len = sizeof(good)
	static const struct canned cans[] = {
		{ "a reply with another id", OP_DEVICE, EPROTO, GOOD,
		    .add = { .id = 1 } },
		{ "a reply to another command", OP_DEVICE, EPROTO, GOOD,
		    .add = { .cmd = 1 } },
		{ "a reply of another type", OP_DEVICE, EPROTO, GOOD,
		    .add = { .flags = 1 } },
		{ "a size of 0", OP_DEVICE, EPROTO, GOOD,
		    .add = { .size = -32u } },
		{ "a size of 15", OP_DEVICE, EPROTO, GOOD,
		    .add = { .size = -17u } },
		{ "a size of 4 GiB", OP_DEVICE, EPROTO, GOOD,
		    .add = { .size = UINT32_MAX - 32 } },
		{ "a size just above what is taken", OP_DEVICE, EPROTO, GOOD,
		    .add = { .size = VD_MAX_MSG_SIZE + 1 - 32 } },
		{ "an error", OP_DEVICE, EBUSY,
		    .add = { .flags = VD_ERROR, .error = EBUSY } },
		{ "an error with a payload", OP_DEVICE, EBUSY, GOOD,
		    .add = { .flags = VD_ERROR, .error = EBUSY } },
		{ "an error with descriptors", OP_DEVICE, EBUSY, .nfds = 9,
		    .add = { .flags = VD_ERROR, .error = EBUSY } },
		{ "an error without a number", OP_DEVICE, EIO,
		    .add = { .flags = VD_ERROR } },
		{ "an error with no known number", OP_DEVICE, EIO,
		    .add = { .flags = VD_ERROR, .error = 70000 } },
		{ "a negative error", OP_DEVICE, EIO,
		    .add = { .flags = VD_ERROR, .error = -EINVAL } },
		{ "a number without the error flag", OP_DEVICE, 0, GOOD,
		    .add = { .error = EBUSY } },
		{ "stray descriptors", OP_DEVICE, 0, GOOD, .nfds = 3 },
		{ "a flood of descriptors", OP_DEVICE, 0, GOOD, .nfds = 64 },
	};
#undef GOOD

	for (size_t i = 0; i < T_COUNT(cans); i++)
		try_canned(&cans[i]);
}

static void
test_replies(void)
{
	static const struct vd_device_info regions = { 16, 3, UINT32_MAX, 5 };
	static const struct vd_device_info irqs = { 16, 3, 9, UINT32_MAX };
	static const struct vd_irq_info count = { 16, 1, 2, UINT32_MAX };
	static const struct vd_irq_info index = { 16, 1, 3, 7 };
	static const struct { struct vd_region_access a; uint8_t data[64]; }
	    good = { .a = { 0x40, 0, 32 } }, less = { .a = { 0x40, 0, 8 } },
	    more = { .a = { 0x40, 0, 64 } }, huge = { .a = { 0x40, 0, -1u } },
	    off = { .a = { 0x48, 0, 32 } }, other = { .a = { 0x40, 1, 32 } };
	static const struct vd_dma_unmap wrong = { 24, 0, PAGE, 2 * PAGE };
#define P(p, n)	.payload = &p, .len = n
	static const struct canned cans[] = {
		{ "device info: a header", OP_DEVICE, EPROTO, .len = 0 },
		{ "device info: too short", OP_DEVICE, EPROTO, P(irqs, 12) },
		{ "device info: too long", OP_DEVICE, EPROTO, P(good, 32) },
		{ "device info: absurd regions", OP_DEVICE, EPROTO,
		    P(regions, 16) },
		{ "device info: absurd interrupts", OP_DEVICE, EPROTO,
		    P(irqs, 16) },
		{ "interrupt info: a header", OP_IRQ, EPROTO, .len = 0 },
		{ "interrupt info: too short", OP_IRQ, EPROTO, P(count, 15) },
		{ "interrupt info: absurd count", OP_IRQ, EPROTO,
		    P(count, 16) },
		{ "interrupt info: another index", OP_IRQ, EPROTO,
		    P(index, 16) },
		{ "read: a header", OP_READ, EPROTO, .len = 0 },
		{ "read: half an answer", OP_READ, EPROTO, P(good, 15) },
		{ "read: an answer without data", OP_READ, EPROTO,
		    P(good, 16) },
		{ "read: a byte too few", OP_READ, EPROTO, P(good, 47) },
		{ "read: a byte too many", OP_READ, EPROTO, P(good, 49) },
		{ "read: fewer bytes, and says so", OP_READ, EIO,
		    P(less, 24) },
		{ "read: says fewer bytes, sends all", OP_READ, EIO,
		    P(less, 48) },
		{ "read: more than asked", OP_READ, EPROTO, P(more, 80) },
		{ "read: absurd count", OP_READ, EPROTO, P(huge, 48) },
		{ "read: of another offset", OP_READ, EPROTO, P(off, 48) },
		{ "read: of another region", OP_READ, EPROTO, P(other, 48) },
		{ "write: a header", OP_WRITE, EPROTO, .len = 0 },
		{ "write: half an answer", OP_WRITE, EPROTO, P(good, 8) },
		{ "write: fewer bytes", OP_WRITE, EIO, P(less, 16) },
		{ "write: more bytes", OP_WRITE, EPROTO, P(more, 16) },
		{ "unmap: a header", OP_UNMAP, EPROTO, .len = 0 },
		{ "unmap: of something else", OP_UNMAP, EPROTO,
		    P(wrong, 24) },
		{ "map: with a payload", OP_MAP, 0, P(good, 60), .nfds = 1 },
		{ "map: an error", OP_MAP, EEXIST,
		    .add = { .flags = VD_ERROR, .error = EEXIST } },
		{ "interrupts: with a payload", OP_EVENTFDS, 0, P(good, 60) },
		{ "reset: with a payload", OP_RESET, 0, P(good, 60) },
	};
#undef P

	for (size_t i = 0; i < T_COUNT(cans); i++)
		try_canned(&cans[i]);
}

/* Replies to GET_REGION_INFO with a sparse capability after the struct. */
struct sparse_reply {
	struct vd_region_info info;
	struct vd_cap_sparse sparse;
	struct vd_area areas[2];
};
#define LEN(areas)	(48u + 16u * (areas))
#define MAPPABLE	(VD_REGION_READABLE | VD_REGION_WRITABLE |	\
	    VD_REGION_MAPPABLE)
#define INFO(n, s, o)	{ LEN(n), MAPPABLE | VD_REGION_CAPS, 0, 32, s, o }
#define SPARSE(n)	{ { VD_CAP_SPARSE, 1, 0 }, n, 0 }

#define R	static const struct sparse_reply
R two = { INFO(2, 8 * PAGE, PAGE), SPARSE(2),
    { { PAGE, PAGE }, { 4 * PAGE, 4 * PAGE } } };
R negative = { INFO(1, 4 * PAGE, -(uint64_t)PAGE), SPARSE(1),
    { { PAGE, PAGE } } };
R low = { INFO(1, 4 * PAGE, -2 * (uint64_t)PAGE), SPARSE(1),
    { { PAGE, PAGE } } };
R high = { INFO(1, 4 * PAGE, INT64_MAX & -(uint64_t)PAGE), SPARSE(1),
    { { 0, 2 * PAGE } } };
R skewed = { INFO(1, 4 * PAGE, 512), SPARSE(1), { { PAGE, PAGE } } };
R overlap = { INFO(2, 8 * PAGE, 0), SPARSE(2),
    { { 0, 2 * PAGE }, { PAGE, PAGE } } };
R beyond = { INFO(1, 4 * PAGE, 0), SPARSE(1), { { PAGE, 4 * PAGE } } };
R wraps = { INFO(1, 4 * PAGE, 0), SPARSE(1),
    { { PAGE, -(uint64_t)PAGE } } };
R outside = { INFO(1, 4 * PAGE, 0), SPARSE(1),
    { { -(uint64_t)PAGE, PAGE } } };
R empty = { INFO(1, 4 * PAGE, 0), SPARSE(1), { { PAGE, 0 } } };
R odd_off = { INFO(1, 4 * PAGE, 0), SPARSE(1), { { 256, PAGE } } };
R odd_size = { INFO(1, 4 * PAGE, 0), SPARSE(1), { { PAGE, 100 } } };
R none = { INFO(0, 4 * PAGE, 0), SPARSE(0), { { 0, 0 } } };
R many = { INFO(1, 4 * PAGE, 0), SPARSE(-1u), { { 0, PAGE } } };
R missing = { INFO(1, 4 * PAGE, 0), SPARSE(2), { { 0, PAGE } } };
R loop = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 32, 4 * PAGE, 0 },
    { { 9, 1, 32 }, 0, 0 }, { { 0, 0 } } };
R back = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 40, 4 * PAGE, 0 },
    { { 9, 1, 0 }, 9, 32 }, { { 0, 0 } } };
R inside = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 8, 4 * PAGE, 0 },
    SPARSE(1), { { 0, PAGE } } };
R past = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 65, 4 * PAGE, 0 },
    SPARSE(1), { { 0, PAGE } } };
R far = { { 64, MAPPABLE | VD_REGION_CAPS, 0, -1u, 4 * PAGE, 0 },
    SPARSE(1), { { 0, PAGE } } };
R far_next = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 32, 4 * PAGE, 0 },
    { { 9, 1, -8u }, 0, 0 }, { { 0, 0 } } };
R unknown = { { 64, MAPPABLE | VD_REGION_CAPS, 0, 32, 4 * PAGE, 0 },
    { { 9, 1, 0 }, 0, 0 }, { { 0, 0 } } };
R whole = { .info = { 32, MAPPABLE, 0, 0, 4 * PAGE, 0 } };
R small = { .info = { 32, MAPPABLE, 0, 0, 256, 0 } };
R other = { .info = { 32, MAPPABLE, 1, 0, 4 * PAGE, 0 } };
R plain = { .info = { 32, VD_REGION_READABLE, 0, 0, 4 * PAGE, 0 } };
R absent = { .info = { 32, 0, 0, 0, 0, 0 } };
R greedy = { .info = { -1u, MAPPABLE, 0, 0, 4 * PAGE, 0 } };
R more = { .info = { 5000, MAPPABLE, 0, 0, 4 * PAGE, 0 } };
static const uint8_t huge[ARGSZ + 8] = { 32 };
#undef R

static void
test_region_info(void)
{
#define C(what, want, p, n, fds, ...)					\
	{ .name = "region info: " what, OP_REGION, want, &p, n, fds,	\
	    __VA_ARGS__ }
	static const struct canned cans[] = {
		C("two areas", 0, two, LEN(2), 1, .areas = 2, .fd = true),
		C("an offset that is negative in all", 0, negative, LEN(1), 1,
		    .areas = 1, .fd = true),
		C("all of it", 0, whole, 32, 1, .areas = 1, .fd = true),
		C("an unknown capability", 0, unknown, 64, 1, .areas = 1,
		    .fd = true),
		C("no areas", 0, none, LEN(0), 1, .fd = true),
		C("less than a page", 0, small, 32, 1, .areas = 1,
		    .fd = true),
		C("nothing to map", 0, plain, 32, 0, .fd = false),
		C("no region", 0, absent, 32, 0, .fd = false),
		C("mappable without a descriptor", 0, whole, 32, 0,
		    .fd = false),
		C("a descriptor of what is not mappable", 0, plain, 32, 1,
		    .fd = false),
		C("a descriptor of no region", 0, absent, 32, 1, .fd = false),
		C("two descriptors", 0, two, LEN(2), 2, .fd = false),
		C("forty descriptors", 0, two, LEN(2), 40, .fd = false),
		C("a header", EPROTO, two, 0, 1),
		C("too short", EPROTO, two, 31, 1),
		C("longer than asked", EPROTO, huge, sizeof(huge), 1),
		C("another index", EPROTO, other, 32, 1),
		C("asks for 4 GiB", EPROTO, greedy, 32, 1),
		C("asks for more than is sane", EPROTO, more, 32, 1),
		C("capabilities in a loop", EPROTO, loop, 64, 1),
		C("capabilities that lead back", EPROTO, back, 64, 1),
		C("capabilities inside the struct", EPROTO, inside, 64, 1),
		C("capabilities past the end", EPROTO, past, 64, 1),
		C("capabilities far away", EPROTO, far, 64, 1),
		C("a next capability far away", EPROTO, far_next, 64, 1),
		C("a capability cut off", EPROTO, two, 36, 1),
		C("a sparse capability cut off", EPROTO, two, 44, 1),
		C("areas cut off", EPROTO, missing, LEN(1), 1),
		C("4 G areas", EPROTO, many, LEN(1), 1),
		C("an area beyond the region", EPROTO, beyond, LEN(1), 1),
		C("an area that wraps", EPROTO, wraps, LEN(1), 1),
		C("an area outside", EPROTO, outside, LEN(1), 1),
		C("an empty area", EPROTO, empty, LEN(1), 1),
		C("an unaligned area", EPROTO, odd_off, LEN(1), 1),
		C("an area of an odd size", EPROTO, odd_size, LEN(1), 1),
		C("areas that overlap", EPROTO, overlap, LEN(2), 1),
		C("an unaligned descriptor offset", EPROTO, skewed, LEN(1), 1),
		C("a negative descriptor offset", EPROTO, low, LEN(1), 1),
		C("an absurd descriptor offset", EPROTO, high, LEN(1), 1),
	};
#undef C

	for (size_t i = 0; i < T_COUNT(cans); i++)
		try_canned(&cans[i]);
}

/* More areas than the client asks room for at first. */
static void
twenty_areas(struct script *s)
{
	struct {
		struct vd_region_info info;
		struct vd_cap_sparse sparse;
		struct vd_area areas[20];
	} r = { { sizeof(r), MAPPABLE, 0, 0, 64 * PAGE, 0 }, SPARSE(20),
	    { { 0, 0 } } };
	struct vd_region_info req;

	for (unsigned int i = 0; i < 20; i++)
		r.areas[i] = (struct vd_area){ 3 * i * PAGE, PAGE };
	if (!get(s) || !answer_version(s) || !get(s))
		return;
	memcpy(&req, s->in, sizeof(req));
	is_int(req.argsz, ARGSZ, "the client asks for some room");
	if (!answer(s, &r, sizeof(r.info), 0) || !get(s))
		return;
	memcpy(&req, s->in, sizeof(req));
	is_int(req.argsz, sizeof(r), "and for more if there is more");
	r.info.flags |= VD_REGION_CAPS;
	r.info.cap_offset = 32;
	answer(s, &r, sizeof(r), 1);
	serve(s);
}

/* A server that always wants more room. */
static void
ever_more(struct script *s)
{
	struct vd_region_info info = { .flags = MAPPABLE, .size = PAGE };

	if (!get(s) || !answer_version(s))
		return;
	while (get(s)) {
		memcpy(&info.argsz, s->in, sizeof(info.argsz));
		info.argsz += 16;
		answer(s, &info, sizeof(info), 0);
	}
}

static void
test_region_room(void)
{
	struct script *s = script_new(twenty_areas, NULL);
	struct vd_client *c = script_connect(s);
	struct vd_client_region r;

	works(vd_client_region_info(c, 0, &r), "a region with twenty areas");
	is_int(r.nr_areas, VD_CLIENT_MAX_AREAS, "shows some of them");
	is_hex(r.areas[7].offset, 21 * PAGE, "in order");
	ok(r.fd != -1 && close(r.fd) == 0, "with a descriptor");
	ok(script_stop(s, c), "and leaves none");

	s = script_new(ever_more, NULL);
	c = script_connect(s);
	fails(vd_client_region_info(c, 0, &r), EPROTO,
	    "a server that always wants more room is left");
	is_int(r.fd, -1, "without a descriptor");
	ok(script_stop(s, c), "and none is left over");
}

/* --- what is sent -------------------------------------------------------- */

/* Takes notes of what it is told. */
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

struct notes {			/* notes_lock */
	unsigned int reads, writes, posts, sets, fds;
	uint32_t start, count, flags;	/* of the last SET_IRQS */
	uint8_t mem[256];
	bool bad;
};

static void
note_access(struct script *s, struct notes *n)
{
	struct vd_region_access a;

	memcpy(&a, s->in, sizeof(a));
	if (a.count > 16 || a.offset + a.count > sizeof(n->mem)) {
		n->bad = true;
		return;
	}
	if (s->hdr.cmd == VD_CMD_REGION_READ) {
		n->reads++;
		memcpy(s->in + sizeof(a), n->mem + a.offset, a.count);
		return;
	}
	n->bad |= s->hdr.size != 32 + a.count;
	memcpy(n->mem + a.offset, s->in + sizeof(a), a.count);
	if (s->hdr.flags & VD_NO_REPLY)
		n->posts++;
	else
		n->writes++;
}

static void
note_irqs(struct script *s, struct notes *n)
{
	struct vd_irq_set set;

	memcpy(&set, s->in, sizeof(set));
	n->bad |= s->nfds > 2 || set.argsz != sizeof(set) ||
	    (s->nfds != 0 && s->nfds != set.count) ||
	    (s->nfds != 0 && n->sets > 0 && set.start != n->start + n->count);
	n->sets++;
	n->fds += s->nfds;
	n->start = set.start;
	n->count = set.count;
	n->flags = set.flags;
}

static void
take_notes(struct script *s)
{
	struct notes *n = (struct notes *)(uintptr_t)s->arg;
	struct vd_region_access a;
	bool alive = true;

	while (alive && get(s)) {
		pthread_mutex_lock(&notes_lock);
		if (s->hdr.cmd == VD_CMD_REGION_READ ||
		    s->hdr.cmd == VD_CMD_REGION_WRITE)
			note_access(s, n);
		else if (s->hdr.cmd == VD_CMD_DEVICE_SET_IRQS)
			note_irqs(s, n);
		pthread_mutex_unlock(&notes_lock);
		/* The data of a read is in place already. */
		memcpy(&a, s->in, sizeof(a));
		alive = s->hdr.cmd == VD_CMD_REGION_READ ?
		    answer(s, s->in, sizeof(a) + a.count, 0) : answer_well(s);
	}
}

static struct notes
look(const struct notes *n)
{
	struct notes copy;

	pthread_mutex_lock(&notes_lock);
	copy = *n;
	pthread_mutex_unlock(&notes_lock);
	return (copy);
}

static void
test_limits(void)
{
	struct notes notes = { 0 }, n;
	struct script *s = script_new(take_notes, &notes);
	struct vd_client_limits l;
	struct vd_client *c;
	uint8_t in[100], out[100];
	int fds[5] = { 0, 1, 2, 1, 0 };

	s->json = JSON("\"max_msg_fds\":2,\"max_data_xfer_size\":16,"
	    "\"max_dma_maps\":9");
	c = script_connect(s);
	vd_client_limits(c, &l);
	ok(l.minor == 1 && l.max_msg_fds == 2 && l.max_data_xfer == 16 &&
	    l.max_dma_maps == 9 && l.pgsizes == 4096,
	    "the server's limits are told");

	for (unsigned int i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(3 * i + 1);
	works(vd_client_write(c, 0, 40, out, 100), "a long write");
	n = look(&notes);
	is_int(n.writes, 7, "goes out in pieces of 16 bytes");
	works(vd_client_read(c, 0, 40, in, 100), "a long read");
	n = look(&notes);
	is_int(n.reads, 7, "too");
	is_mem(in, out, 100, "and all bytes are in their places");
	works(vd_client_post(c, 0, 0, out, 33), "a posted write");
	works(vd_client_read(c, 0, 0, in, 33), "and a read after it");
	n = look(&notes);
	is_int(n.posts, 3, "is cut as well");
	is_mem(in, out, 33, "and comes first");
	works(vd_client_read(c, 0, 0, NULL, 0), "nothing can be read");
	works(vd_client_write(c, 0, 0, NULL, 0), "and written");
	n = look(&notes);
	ok(!n.bad && n.reads == 10, "without asking");

	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 3, 5, fds),
	    "five eventfds");
	n = look(&notes);
	ok(n.sets == 3 && n.fds == 5 && n.start == 7 && n.count == 1,
	    "go out by two");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 3, 5, NULL),
	    "they are taken back");
	n = look(&notes);
	ok(n.sets == 4 && n.fds == 5 && n.start == 3 && n.count == 5 &&
	    n.flags == (VD_IRQ_DATA_EVENTFD | VD_IRQ_ACT_TRIGGER),
	    "in one message");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL),
	    "all are disconnected");
	n = look(&notes);
	ok(n.sets == 5 && n.count == 0 &&
	    n.flags == (VD_IRQ_DATA_NONE | VD_IRQ_ACT_TRIGGER),
	    "by a trigger of none");
	works(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "an interrupt is unmasked");
	n = look(&notes);
	ok(n.flags == (VD_IRQ_DATA_NONE | VD_IRQ_ACT_UNMASK) && !n.bad,
	    "without data");
	ok(script_stop(s, c), "no descriptor is left");
}

/* What is wrong on our side is not sent. */
static void
test_arguments(void)
{
	struct script *s = script_new(serve, NULL);
	struct vd_client *c;
	uint8_t buf[8];
	int fds[2] = { 1, -1 };

	s->json = JSON("\"max_msg_fds\":0");
	c = script_connect(s);
	fails(vd_client_dma_map(c, 0, 0, 1, -1, 0), EINVAL, "a map of nothing");
	fails(vd_client_dma_map(c, 1, PAGE, 1, -1, 0), EINVAL,
	    "a map that starts inside a page");
	fails(vd_client_dma_map(c, 0, 100, 1, -1, 0), EINVAL,
	    "a map that ends inside a page");
	fails(vd_client_dma_map(c, -(uint64_t)PAGE, 2 * PAGE, 1, -1, 0),
	    EINVAL, "a map that wraps");
	fails(vd_client_dma_map(c, 0, PAGE, 4, -1, 0), EINVAL,
	    "a map with unknown flags");
	fails(vd_client_dma_map(c, 0, PAGE, 1, -1, PAGE), EINVAL,
	    "an offset in no file");
	fails(vd_client_dma_map(c, 0, PAGE, 1, 1, INT64_MAX), EINVAL,
	    "an offset past any file");
	fails(vd_client_dma_map(c, 0, PAGE, 1, 1, 0), ENOTSUP,
	    "a descriptor for a server that takes none");
	works(vd_client_dma_map(c, -(uint64_t)PAGE, PAGE, 1, -1, 0),
	    "a map of the last page");
	fails(vd_client_dma_unmap(c, 0, 0), EINVAL, "an unmap of nothing");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 1, 0, NULL), EINVAL,
	    "none from the second on");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, -1u, 2, NULL), EINVAL,
	    "interrupts that wrap");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 2, fds), EINVAL,
	    "an eventfd that is none");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 1, fds), ENOTSUP,
	    "eventfds for a server that takes none");
	fails(vd_client_set_irqs(c, VD_IRQ_MSIX, 0, 1, 3), EINVAL,
	    "an action that is none");
	fails(vd_client_read(c, 0, -4ull, buf, 8), EINVAL, "a read that wraps");
	fails(vd_client_write(c, 0, -4ull, buf, 8), EINVAL,
	    "a write that wraps");
	fails(vd_client_post(c, 0, -4ull, buf, 8), EINVAL,
	    "a post that wraps");
	works(vd_client_reset(c), "and all is still well");
	ok(script_stop(s, c), "no descriptor is left");
}

/* --- time and loss ------------------------------------------------------- */

/* Leaves one command unanswered until the next has come. */
static void
answer_late(struct script *s)
{
	struct vd_hdr first;
	struct vd_device_info info = { 16, 3, 77, 5 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	first = reply_to(s, sizeof(info));
	if (!get(s) || !put(s, &first, &info, sizeof(info), 5) ||
	    !answer_well(s))
		return;
	serve(s);
}

/* The beginning of a reply, and the rest of it much later. */
static void
answer_torn(struct script *s)
{
	struct vd_device_info info = { 16, 3, 77, 5 };
	struct vd_hdr first;

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	first = reply_to(s, sizeof(info));
	must(send(s->fd, &first, 9, MSG_NOSIGNAL) == 9);
	if (!get(s))
		return;
	must(send(s->fd, (const char *)&first + 9, 7, MSG_NOSIGNAL) == 7);
	must(send(s->fd, &info, sizeof(info), MSG_NOSIGNAL) == sizeof(info));
	if (answer_well(s))
		serve(s);
}

/* Answers nothing at all, then everything. */
static void
answer_in_the_end(struct script *s)
{
	struct vd_hdr late[64];
	unsigned int n = 0;

	if (!get(s) || !answer_version(s))
		return;
	while (n < T_COUNT(late) && get(s))
		late[n++] = reply_to(s, 0);
	sem_wait((sem_t *)(uintptr_t)s->arg);
	while (n-- > 0)
		put(s, &late[n], NULL, 0, 0);
	serve(s);
}

static void
test_timeouts(void)
{
	struct script *s;
	struct vd_client *c;
	struct vd_device_info info;
	struct vd_irq_info irq;
	unsigned int n;
	int64_t start;
	sem_t told;

	for (int torn = 0; torn < 2; torn++) {
		s = script_new(torn ? answer_torn : answer_late, NULL);
		c = script_connect(s);
		vd_client_set_timeout(c, 100);
		start = now_ms();
		fails(vd_client_device_info(c, &info), ETIMEDOUT,
		    "%s reply is not waited for",
		    torn ? "a torn" : "a missing");
		start = now_ms() - start;
		ok(start >= 90 && start < 3000, "longer than was said");
		vd_client_set_timeout(c, -1);
		works(vd_client_irq_info(c, VD_IRQ_MSIX, &irq),
		    "the next command is answered");
		is_int(irq.count, 7, "by its own reply");
		works(vd_client_device_info(c, &info), "and the next again");
		is_int(info.num_regions, 9, "for good");
		ok(script_stop(s, c), "no descriptor is left");
	}

	must(sem_init(&told, 0, 0) == 0);
	s = script_new(answer_in_the_end, &told);
	c = script_connect(s);
	vd_client_set_timeout(c, 1);
	for (n = 0; n < 1000; n++) {
		must(vd_client_reset(c) == -1);
		if (errno != ETIMEDOUT)
			break;
	}
	is_int(n < 1000 ? errno : 0, ENOBUFS,
	    "only so many commands can wait for a server");
	sem_post(&told);
	vd_client_set_timeout(c, 2000);
	for (start = now_ms(); now_ms() - start < 5000; usleep(10000))
		if (vd_client_device_info(c, &info) == 0)
			break;
	works(vd_client_device_info(c, &info),
	    "it is well again when it has answered");
	is_int(info.num_regions, 9, "and not out of step");
	ok(script_stop(s, c), "no descriptor is left");
}

/* Commands of the server's while the client waits for a reply. */
static void
ask_back(struct script *s)
{
	struct vd_hdr mine, hdr = { .id = 0x5555, .cmd = VD_CMD_DMA_WRITE,
	    .size = 16 + 16 + 64 };
	uint8_t payload[80] = { 0 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	mine = s->hdr;
	put(s, &hdr, payload, sizeof(payload), 2);
	ok(get(s) && s->hdr.id == 0x5555 && s->hdr.cmd == VD_CMD_DMA_WRITE &&
	    s->hdr.size == 16 && s->hdr.flags == (VD_TYPE_REPLY | VD_ERROR) &&
	    s->hdr.error != 0, "a DMA_WRITE is answered with an error");
	/* With the id of the client's own command, which is no clash. */
	hdr = (struct vd_hdr){ .id = mine.id, .cmd = VD_CMD_DMA_READ,
	    .size = 32 };
	put(s, &hdr, payload, 16, 0);
	ok(get(s) && s->hdr.id == mine.id && s->hdr.cmd == VD_CMD_DMA_READ &&
	    (s->hdr.flags & VD_ERROR), "a DMA_READ is, too");
	hdr.flags = VD_NO_REPLY;
	put(s, &hdr, payload, 16, 0);
	s->hdr = mine;
	answer_well(s);
	serve(s);
}

/* The server reads a register of another device's, and RAM, and both. */
static void
read_register(struct script *s)
{
	static const struct { uint64_t addr, count; } wants[] = {
		{ PAGE, 8 }, { 0, 8 }, { PAGE - 8, 16 },
	};
	struct vd_hdr mine, hdr = { .cmd = VD_CMD_DMA_READ, .size = 32 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	mine = s->hdr;
	for (size_t i = 0; i < T_COUNT(wants); i++) {
		put(s, &hdr, &wants[i], sizeof(wants[i]), 0);
		ok(get(s) && s->hdr.cmd == VD_CMD_DMA_READ &&
		    s->hdr.flags == VD_TYPE_REPLY &&
		    s->hdr.size == 32 + wants[i].count, "%u bytes at %#x are "
		    "answered", (unsigned int)wants[i].count,
		    (unsigned int)wants[i].addr);
	}
	s->hdr = mine;
	answer_well(s);
	serve(s);
}

static enum mt_result
count_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)off;
	(void)size;
	(void)attrs;
	*val = ++*(unsigned int *)arg;
	return (MT_OK);
}

static void
test_register(void)
{
	static const struct mt_io_ops ops = { .read = count_read,
	    .valid = { 1, 8, false }, .impl = { 1, 8, false } };
	struct script *s = script_new(read_register, NULL);
	struct vd_client *c = script_connect(s);
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 2 * PAGE), *ram, *reg;
	struct vd_device_info info;
	struct mt_space *sp;
	unsigned int reads = 0;

	must((ram = mt_region_create_ram(t, "ram", MT_SIZE(PAGE), NULL)) !=
	    NULL);
	must((reg = mt_region_create_io(t, "register", MT_SIZE(PAGE), &ops,
	    &reads)) != NULL);
	must(mt_region_add(root, ram, 0, 0) == 0);
	must(mt_region_add(root, reg, PAGE, 0) == 0);
	sp = t_space(root);
	vd_client_set_dma(c, sp);
	works(vd_client_device_info(c, &info), "the server reads meanwhile");
	is_int(reads, 2, "a register once for each");
	ok(script_stop(s, c), "no descriptor is left");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(reg);
	mt_region_put(ram);
	mt_region_put(root);
	must(mt_topology_destroy(t) == 0);
}

/* Commands without end, whose answers are read, or not. */
static void
flood(struct script *s)
{
	struct vd_hdr hdr = { .cmd = VD_CMD_DMA_READ, .size = 32 };
	uint8_t bytes[1024 * 32] = { 0 };
	bool reads = s->arg != NULL;

	for (size_t i = 0; i < sizeof(bytes); i += 32)
		memcpy(bytes + i, &hdr, sizeof(hdr));
	if (!get(s) || !answer_version(s) || !get(s))
		return;
	while (send(s->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) ==
	    sizeof(bytes)) {
		while (reads && recv(s->fd, s->in, sizeof(s->in),
		    MSG_DONTWAIT) > 0)
			continue;
	}
}

static void
test_commands(void)
{
	struct script *s = script_new(ask_back, NULL);
	struct vd_client *c = script_connect(s);
	struct vd_device_info info;
	int64_t start;

	works(vd_client_device_info(c, &info),
	    "a reply is found among the server's commands");
	is_int(info.num_regions, 9, "and is the right one");
	ok(script_stop(s, c), "no descriptor is left");

	for (int reads = 0; reads < 2; reads++) {
		s = script_new(flood, reads ? "reads" : NULL);
		c = script_connect(s);
		vd_client_set_timeout(c, 300);
		start = now_ms();
		ok(vd_client_device_info(c, &info) == -1,
		    "a flood of commands %s", reads ?
		    "gets answers, but" : "that reads no answers");
		ok(now_ms() - start < 5000, "keeps nobody longer than said");
		ok(script_stop(s, c), "no descriptor is left");
	}
}

/* Reads VERSION, then nothing more. */
static void
never_read(struct script *s)
{
	struct pollfd pfd = { .fd = s->fd, .events = POLLRDHUP };

	if (get(s) && answer_version(s))
		poll(&pfd, 1, -1);
}

static void
test_full(void)
{
	struct script *s = script_new(never_read, NULL);
	struct vd_client *c = script_connect(s);
	static uint8_t buf[256 << 10];
	int64_t start = now_ms();
	int n;

	vd_client_set_timeout(c, 200);
	for (n = 0; n < 1000; n++)
		if (vd_client_post(c, 0, 0, buf, sizeof(buf)) == -1)
			break;
	ok(n < 1000 && (errno == ETIMEDOUT || errno == ENOTCONN),
	    "writes are posted only as long as there is room");
	ok(now_ms() - start < 5000, "and then given up in time");
	ok(script_stop(s, c), "no descriptor is left");
}

/*
 * Nobody sends what a post leaves behind, as no reply is waited for: all of it
 * has to be sent, whatever the socket's buffer holds.
 */
static void
read_slowly(struct script *s)
{
	struct notes *n = (struct notes *)(uintptr_t)s->arg;

	if (!get(s) || !answer_version(s))
		return;
	usleep(200000);
	while (get(s)) {
		pthread_mutex_lock(&notes_lock);
		n->posts++;
		pthread_mutex_unlock(&notes_lock);
		if (!answer_well(s))
			break;
	}
}

static void
test_post_all(void)
{
	struct notes n = { 0 };
	struct script *s = script_new(read_slowly, &n);
	struct vd_client *c = script_connect(s);
	size_t len = 1 << 20;
	uint8_t *buf = calloc(1, len);
	int64_t start = now_ms();

	must(buf != NULL);
	works(vd_client_post(c, 0, 0, buf, len), "a megabyte is posted");
	while (now_ms() - start < 3000 && look(&n).posts == 0)
		usleep(1000);
	is_int(look(&n).posts, 1,
	    "and arrives without anything sent after it");
	free(buf);
	ok(script_stop(s, c), "no descriptor is left");
}

/* Run through all operations; true if each gave what it should. */
static bool
all_ops(struct vd_client *c, int *error)
{
	struct vd_client_region r;

	for (int op = 0; op < NR_OPS; op++) {
		r.fd = -1;
		if (do_op(c, (enum op)op, &r) == -1) {
			*error = errno;
			return (false);
		}
		if (r.fd != -1)
			close(r.fd);
	}
	return (true);
}

static void
test_loss(void)
{
	unsigned int lost = 0, odd = 0, leaks = 0;
	size_t cut;
	int error;

	/* One reply after the other, and one byte more of them each time. */
	for (cut = 0; cut < 1000; cut++) {
		struct script *s = script_new(serve, NULL);
		struct vd_client *c;
		bool all;

		s->json = JSON("\"max_msg_fds\":3");
		s->budget = cut;
		c = script_start(s);
		error = errno;
		all = c != NULL && all_ops(c, &error);
		if (!all) {
			lost++;
			odd += error != ENOTCONN;
		}
		leaks += !script_stop(s, c);
		if (all)
			break;
	}
	ok(lost == cut && cut > 300 && cut < 1000,
	    "a server can be lost at each of %zu bytes", cut);
	is_int(odd, 0, "which is always told as ENOTCONN");
	is_int(leaks, 0, "and leaks nothing");
}

static void
dribble(struct script *s)
{
	if (!get(s) || !answer_version(s))
		return;
	s->piece = 1;
	s->pause_ms = 50;
	serve(s);
}

static void
test_pieces(void)
{
	struct script *s = script_new(serve, NULL);
	struct vd_client *c;
	struct vd_device_info info;
	int error = 0;

	s->piece = 1;
	c = script_connect(s);
	ok(all_ops(c, &error), "replies may come byte by byte: %s",
	    strerror(error));
	ok(script_stop(s, c), "no descriptor is left");

	s = script_new(dribble, NULL);
	c = script_connect(s);
	vd_client_set_timeout(c, 300);
	fails(vd_client_device_info(c, &info), ETIMEDOUT,
	    "but not so slowly that they never end");
	ok(script_stop(s, c), "no descriptor is left");
}

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
	int fd = new_memfd(4 * PAGE);
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

static uint64_t
fired(int fd)
{
	uint64_t n = 0;

	return (read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0);
}

static void
use_irqs(struct vd_client *c)
{
	uint32_t entry[4] = { 0xfee00000, 0, 0, 0 }, val;
	uint16_t control;
	uint8_t cap;
	int fds[NR_VECTORS], fd;

	for (unsigned int i = 0; i < NR_VECTORS; i++)
		must((fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) != -1);
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
	is_int(fired(fds[NR_VECTORS - 1]), 1, "which comes");
	is_int(fired(fds[0]), 0, "and no other");
	works(vd_client_set_irqs(c, VD_IRQ_MSIX, 1, 2, VD_IRQ_ACT_TRIGGER),
	    "two are triggered by hand");
	ok(fired(fds[0]) == 0 && fired(fds[1]) == 1 && fired(fds[2]) == 1 &&
	    fired(fds[3]) == 0, "and come alone");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 4, 2, NULL),
	    "two are disconnected");
	for (val = 3; val < 7; val++)
		must(vd_client_write(c, 0, 0, &val, 4) == 0);
	ok(fired(fds[3]) == 1 && fired(fds[4]) == 0 && fired(fds[5]) == 0 &&
	    fired(fds[6]) == 1, "and keep quiet");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, NR_VECTORS - 1, 2, fds),
	    EINVAL, "there are no more than there are");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL),
	    "all are disconnected");
	val = 0;
	must(vd_client_write(c, 0, 0, &val, 4) == 0);
	is_int(fired(fds[0]), 0, "and none comes any more");
	control &= 0x7fff;
	must(vd_client_write(c, 7, cap + 2, &control, 2) == 0);
	for (unsigned int i = 0; i < NR_VECTORS; i++)
		close(fds[i]);

	must((fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) != -1);
	works(vd_client_set_eventfds(c, VD_IRQ_INTX, 0, 1, &fd),
	    "INTx is connected");
	val = 1;
	must(vd_client_write(c, 0, 4, &val, 4) == 0);
	is_int(fired(fd), 1, "and comes when the pin rises");
	works(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "it is unmasked");
	is_int(fired(fd), 1, "and comes again as the pin is still high");
	val = 0;
	must(vd_client_write(c, 0, 4, &val, 4) == 0);
	must(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK) ==
	    0);
	is_int(fired(fd), 0, "but not when it is low");
	works(vd_client_set_eventfds(c, VD_IRQ_INTX, 0, 0, NULL),
	    "INTx is disconnected");
	close(fd);
}

static void
test_threads(void)
{
	unsigned int before = nr_fds();
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
	is_int(nr_fds(), before, "no descriptor is left of client and server");
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
	pid_t pid;

	/* What forks comes before what makes threads. */
	pid = silence_start();
	test_processes();
	test_hello();
	test_connect_errors();
	test_framing();
	test_replies();
	test_region_info();
	test_region_room();
	test_limits();
	test_arguments();
	test_timeouts();
	test_commands();
	test_register();
	test_full();
	test_post_all();
	test_loss();
	test_pieces();
	test_threads();
	silence_end(pid);
	return (done());
}
