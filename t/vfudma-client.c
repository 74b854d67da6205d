/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client and servers that follow a script: how it connects, and what one
 * bad reply does.
 */

#include "t/script.h"

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
	start = t_now_ms();
	if (vd_client_attach(pair[0]) != NULL || errno != ETIMEDOUT)
		_exit(1);
	start = t_now_ms() - start;
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
R odd_one = { INFO(2, 8 * PAGE, 0), SPARSE(2),
    { { 0x100, 2 * PAGE }, { 4 * PAGE, 2 * PAGE } } };
R odd_overlap = { INFO(2, 8 * PAGE, 0), SPARSE(2),
    { { 0, 2 * PAGE }, { 0x100, 0x100 } } };
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
		C("no areas", 0, none, LEN(0), 1, .fd = false),
		C("an unaligned area", 0, odd_off, LEN(1), 1, .fd = false),
		C("an area of an odd size", 0, odd_size, LEN(1), 1,
		    .fd = false),
		C("an unaligned descriptor offset", 0, skewed, LEN(1), 1,
		    .fd = false),
		C("an unaligned area of two", 0, odd_one, LEN(2), 1,
		    .areas = 1, .fd = true),
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
		C("areas that overlap", EPROTO, overlap, LEN(2), 1),
		C("unaligned areas that overlap", EPROTO, odd_overlap, LEN(2),
		    1),
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

int
main(void)
{
	/* What forks comes before what makes threads. */
	pid_t pid = silence_start();

	test_hello();
	test_connect_errors();
	test_framing();
	test_replies();
	test_region_info();
	test_region_room();
	silence_end(pid);
	return (done());
}
