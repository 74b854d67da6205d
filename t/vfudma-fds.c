/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Descriptors: too many of them, from either side; none left for those that
 * come; and such as are not open.  Whoever cannot take one says so, or does
 * without, and the connection goes on.
 */

#include <sys/resource.h>
#include <sys/wait.h>

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE	4096u
#define FLOOD	16		/* descriptors a message */

static struct v_dev dev;
static struct rlimit limit;

/* Only so many more descriptors can be opened; numbers are given in turn. */
static void
leave_room(unsigned int more)
{
	struct rlimit few = limit;
	int fd;

	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
	must((fd = dup(0)) != -1);
	close(fd);
	few.rlim_cur = (rlim_t)fd + more;
	must(setrlimit(RLIMIT_NOFILE, &few) == 0);
}

static void
leave_all(void)
{
	must(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* --- the server ---------------------------------------------------------- */

static int
set_irqs(int fd, uint32_t flags, uint32_t start, uint32_t count, int event)
{
	const struct vd_irq_set set = { sizeof(set), flags |
	    VD_IRQ_ACT_TRIGGER, VD_IRQ_MSIX, start, count };
	struct v_reply r;
	int fds[16];

	for (int i = 0; i < 16; i++)
		fds[i] = event;
	if (!v_call_fds(dev.s, fd, VD_CMD_DEVICE_SET_IRQS, &set, sizeof(set),
	    fds, event == -1 ? 0 : count, &r))
		return (-1);
	return (v_errno(&r));
}

static int
dma_map(int fd, uint64_t addr, int mem)
{
	const struct vd_dma_map map = { sizeof(map), 3, 0, addr, PAGE };
	struct v_reply r;

	if (!v_call_fds(dev.s, fd, VD_CMD_DMA_MAP, &map, sizeof(map), &mem, 1,
	    &r))
		return (-1);
	return (v_errno(&r));
}

static void
test_server(void)
{
	int event = t_eventfd(), fd, mem;
	struct vd_region_info info = { .argsz = 64 };
	unsigned int before;
	struct v_reply r;
	uint64_t n;

	v_dev_create(&dev);
	mem = v_memfd(PAGE);
	fd = v_attach(dev.s);
	must(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 0, 1, event) == 0);
	before = t_count_fds();
	leave_room(0);
	is_int(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 0, 1, event), EMFILE,
	    "an eventfd for which there is no room is refused");
	is_int(dma_map(fd, 0, mem), EMFILE, "and so is memory");
	is_int(dev.maps, 0, "of which the device does not hear");
	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_REGION_INFO, &info,
	    sizeof(info), &r) && v_errno(&r) == 0 && r.len == 64,
	    "other commands are answered");
	is_int(set_irqs(fd, VD_IRQ_DATA_NONE, 0, 1, -1), 0, "so are they");
	ok(read(event, &n, sizeof(n)) == sizeof(n),
	    "and what was connected before still is");
	leave_room(3);
	is_int(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 0, 8, event), EMFILE,
	    "eight are refused if there is room for three");
	leave_all();
	v_close_fds(&r);
	is_int(t_count_fds(), before, "which are closed");
	is_int(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 0, 8, event), 0,
	    "with room for them they are taken");
	is_int(dma_map(fd, 0, mem), 0, "and so is memory");
	close(fd);
	v_serve(dev.s, 0);
	close(event);
	close(mem);
	v_dev_destroy(&dev);
}

/* As many vectors as there can be, each with a descriptor. */
static void
test_vectors(void)
{
	int event = t_eventfd(), fd, err = 0;
	unsigned int before, i;
	struct mt_region *bar;

	v_dev_create(&dev);
	vd_server_destroy(dev.s);
	must((dev.s = vd_server_create(dev.t, NULL, NULL)) != NULL);
	must((bar = mt_region_create_container(dev.t, "table",
	    MT_SIZE(0x10000))) != NULL);
	must(vd_pci_set_bar(dev.s, 0, bar, 0) == 0);
	must(vd_pci_add_msix(dev.s, 2048, 0, 0, 0, 0x8000) != -1);
	fd = v_attach(dev.s);
	must(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 0, 1, event) == 0);
	before = t_count_fds();
	leave_room(500);
	for (i = 0; i < 2048 && err == 0; i += 8)
		err = set_irqs(fd, VD_IRQ_DATA_EVENTFD, i, 8, event);
	is_int(err, EMFILE, "vectors are connected as long as there is room");
	ok(i > 400 && i <= 512, "for %u of 2048", i);
	is_int(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 8, 2040, -1), 0,
	    "all but eight are disconnected");
	is_int(set_irqs(fd, VD_IRQ_DATA_EVENTFD, 2040, 8, event), 0,
	    "which makes room for others");
	leave_all();
	is_int(t_count_fds(), before + 15, "and none is lost");
	close(fd);
	v_serve(dev.s, 0);
	/* The socket, at both ends, and what wakes who waits for it, too. */
	is_int(t_count_fds(), before - 4, "the last go with the client");
	vd_server_destroy(dev.s);
	mt_region_put(bar);
	dev.s = NULL;
	close(event);
	v_dev_destroy(&dev);
}

static void
test_accept(void)
{
	static char dir[] = "/tmp/vfudma-fds.XXXXXX";
	char path[64];
	unsigned int runs;
	int a, b;

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	v_dev_create(&dev);
	must(vd_server_listen(dev.s, path) == 0);
	must((a = v_connect(path)) != -1 && (b = v_connect(path)) != -1);
	leave_room(0);
	dev.logged = 0;
	for (runs = 0; v_readable(vd_server_fd(dev.s), 100) && runs < 100;
	    runs++)
		must(vd_server_run(dev.s) != -1);
	ok(runs < 5, "a client for whom there is no room is not tried "
	    "again and again: %u", runs);
	is_int(dev.logged, 1, "the log tells: %s", dev.log);
	leave_all();
	ok(v_hello(dev.s, a), "when there is room it is served");
	close(a);
	ok(v_hello(dev.s, b), "and so is the next");
	close(b);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
	rmdir(dir);
}

/* Commands that nobody asked descriptors for. */
static void
test_flood(void)
{
	const struct { struct vd_region_access a; uint32_t v; } post =
	    { { 0x40, 0, 4 }, 1 };
	unsigned int before, most = 0, i, j;
	int fds[FLOOD], fd;
	uint8_t buf[64];
	size_t len;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	for (i = 0; i < FLOOD; i++)
		fds[i] = fd;
	len = v_build(buf, 1, VD_CMD_REGION_WRITE, VD_NO_REPLY, &post, 20);
	before = t_count_fds();
	for (i = 0; i < 50; i++) {
		for (j = 0; j < 20; j++)
			must(v_send_raw(fd, buf, len, fds, FLOOD));
		while (v_readable(vd_server_fd(dev.s), 0)) {
			must(vd_server_run(dev.s) == 1);
			if (t_count_fds() > most)
				most = t_count_fds();
		}
	}
	is_int(dev.writes, 1000, "commands with descriptors are obeyed");
	ok(most <= before + 2 * FLOOD, "of which few are held: %u",
	    most - before);
	is_int(t_count_fds(), before, "and none is kept");
	/* A message that never ends, with descriptors for each byte of it. */
	for (i = 0; i + 1 < len; i++) {
		must(v_send_raw(fd, buf + i, 1, fds, FLOOD));
		v_serve(dev.s, 0);
		if (t_count_fds() > most)
			most = t_count_fds();
	}
	ok(most <= before + 2 * FLOOD, "nor of those for one byte each: %u",
	    most - before);
	close(fd);
	v_serve(dev.s, 0);
	ok(!vd_server_connected(dev.s), "a client's own socket, kept in such a "
	    "message, does not hide its end");
	is_int(t_count_fds(), before - 3, "nor does any outlive it");
	v_dev_destroy(&dev);
}

/* --- the client ---------------------------------------------------------- */

/* A server of few words, each with descriptors. */
struct server {
	pthread_t thread;
	int fd;
	const char *json;
	_Atomic(unsigned int) nfds;	/* that come with an answer */
	unsigned int version_fds;
	_Atomic(unsigned int) flood;	/* commands before each answer */
};

static void
reply(const struct server *s, const struct v_reply *r, const void *payload,
    size_t len, unsigned int nfds)
{
	int fds[FLOOD];

	for (unsigned int i = 0; i < FLOOD; i++)
		fds[i] = s->fd;
	if (!v_send_fds(s->fd, r->hdr.id, r->hdr.cmd, VD_TYPE_REPLY, payload,
	    len, fds, nfds))
		diag("the client is gone");
}

static void
answer(const struct server *s, struct v_reply *r)
{
	const struct vd_device_info device = { 16, VD_DEVICE_PCI, 9, 5 };
	const struct vd_region_info region = { .argsz = 32, .flags =
	    VD_REGION_READABLE | VD_REGION_WRITABLE | VD_REGION_MAPPABLE,
	    .size = PAGE };
	uint8_t version[512] = { 0, 0, 1, 0 };

	switch (r->hdr.cmd) {
	case VD_CMD_VERSION:
		strcpy((char *)version + 4, s->json);
		reply(s, r, version, 5 + strlen(s->json), s->version_fds);
		break;
	case VD_CMD_DEVICE_GET_INFO:
		reply(s, r, &device, sizeof(device), s->nfds);
		break;
	case VD_CMD_DEVICE_GET_REGION_INFO:
		reply(s, r, &region, sizeof(region), 1);
		break;
	case VD_CMD_REGION_READ:
		reply(s, r, r->data, 16 + r->data[12], s->nfds);
		break;
	default:
		reply(s, r, NULL, 0, s->nfds);
		break;
	}
}

static void *
serve(void *arg)
{
	const struct vd_dma_access a = { 0, 8 };
	struct server *s = arg;
	struct v_reply r;
	int fds[FLOOD];
	unsigned int i;

	for (i = 0; i < FLOOD; i++)
		fds[i] = s->fd;
	while (v_readable(s->fd, 10000) && v_recv(s->fd, &r)) {
		v_close_fds(&r);
		for (i = 0; i < s->flood; i++)
			if (!v_send_fds(s->fd, (uint16_t)i, VD_CMD_DMA_READ,
			    VD_NO_REPLY, &a, sizeof(a), fds, FLOOD))
				break;
		answer(s, &r);
	}
	return (NULL);
}

static struct vd_client *
start(struct server *s, const struct vd_client_options *o)
{
	return (v_by_hand(&s->thread, &s->fd, serve, s, o));
}

static void
stop(struct server *s, struct vd_client *c)
{
	v_by_hand_end(c, s->thread, s->fd);
}

static void
test_client(void)
{
	struct server s = { .json = "{}" };
	struct vd_client_region region;
	struct vd_device_info info;
	unsigned int before, i;
	struct vd_client *c;
	uint8_t buf[8];

	must((c = start(&s, NULL)) != NULL);
	before = t_count_fds();
	s.nfds = FLOOD;
	for (i = 0; i < 100; i++)
		if (vd_client_device_info(c, &info) == -1)
			break;
	is_int(i, 100, "answers with descriptors are taken");
	is_int(t_count_fds(), before, "and the descriptors are not");
	s.flood = 20;
	for (i = 0; i < 20; i++)
		if (vd_client_read(c, 0, 0, buf, 8) == -1)
			break;
	is_int(i, 20, "also behind commands with more of them");
	is_int(t_count_fds(), before, "of which none is kept, either");
	s.flood = 0;
	leave_room(0);
	works(vd_client_region_info(c, 0, &region),
	    "a region whose descriptor has no room is told of");
	ok(region.fd == -1 && (region.flags & VD_REGION_MAPPABLE) == 0 &&
	    region.size == PAGE, "as one that cannot be mapped");
	works(vd_client_read(c, 0, 0, buf, 8), "and can be read by message");
	leave_all();
	works(vd_client_region_info(c, 0, &region), "with room for it");
	ok(region.fd != -1 && close(region.fd) == 0, "it has one");
	stop(&s, c);
}

/* A twin socket that does not fit: it is our own trouble, not nonsense. */
static void
test_twin(void)
{
	struct server s = { .version_fds = 1, .json = "{\"capabilities\":{"
	    "\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}" };
	struct vd_client *c;
	int sv[2], err;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	s.fd = sv[1];
	must(pthread_create(&s.thread, NULL, serve, &s) == 0);
	/* What the client makes of its own: a copy of the socket, an eventfd. */
	leave_room(2);
	c = vd_client_attach(sv[0]);
	err = errno;
	leave_all();
	ok(c == NULL, "a twin socket without room for it is an error");
	is_int(err, EMFILE, "which says so");
	close(sv[0]);
	stop(&s, c);
}

/* What is not open cannot be sent, and that is all. */
static void
test_bad(bool forced)
{
	const struct vd_client_options o = { .force_queue = forced };
	struct server s = { .json = "{\"capabilities\":{"
	    "\"max_msg_fds\":8}}" };
	const char *how = forced ? ", by the queue" : "";
	struct vd_device_info info;
	struct vd_client *c;
	int bad[2], none;

	must((c = start(&s, &o)) != NULL);
	none = (int)limit.rlim_cur - 1;
	must(fcntl(none, F_GETFD) == -1);
	bad[0] = 0;
	bad[1] = none;
	fails(vd_client_dma_map(c, 0, PAGE, 3, none, 0), EBADF,
	    "memory of a file that is not open is not given%s", how);
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 2, bad), EBADF,
	    "nor is what is no eventfd connected%s", how);
	works(vd_client_device_info(c, &info),
	    "and the connection is as it was");
	leave_room(0);
	if (forced)
		fails(vd_client_dma_map(c, 0, PAGE, 3, 0, 0), EMFILE,
		    "what waits to be sent needs room");
	else
		works(vd_client_dma_map(c, 0, PAGE, 3, 0, 0),
		    "to send one needs no room");
	leave_all();
	works(vd_client_device_info(c, &info), "and all is well");
	works(vd_client_dma_map(c, PAGE, PAGE, 3, 0, 0), "for good");
	stop(&s, c);
}

/*
 * The kernel bounds what a user has under way in all sockets, but not for
 * root: a process of somebody else's.  Its exit status is where it failed.
 */
static void
be_nobody(void)
{
	const struct rlimit few = { 40, 40 };
	static struct vd__call calls[64];
	struct vd__conn *c;
	struct v_reply r;
	int sv[2], i;

	if (setrlimit(RLIMIT_NOFILE, &few) == -1 ||
	    (geteuid() == 0 && setresuid(65534, 65534, 65534) == -1) ||
	    socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1 ||
	    (c = vd__conn_create(sv[0], 0)) == NULL)
		_exit(1);
	for (i = 0; i < 60; i++)
		if (vd__conn_send(c, &calls[i], VD_CMD_DMA_MAP, NULL, 0,
		    &sv[0], 1, -1) == -1)
			break;
	if (i == 60)
		_exit(77);		/* no such bound */
	if (errno != ETOOMANYREFS)
		_exit(2);
	while (v_recv(sv[1], &r))
		v_close_fds(&r);
	if (vd__conn_send(c, &calls[63], VD_CMD_DMA_MAP, NULL, 0, &sv[0], 1,
	    -1) == -1)
		_exit(3);
	_exit(vd__conn_pending(c) == (size_t)i + 1 ? 0 : 4);
}

static void
test_under_way(void)
{
	pid_t pid = fork();
	int status;

	must(pid != -1);
	if (pid == 0)
		be_nobody();
	must(waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		skip(1, "the kernel has no bound");
		return;
	}
	is_hex(status, 0, "when too many are under way one is not sent, and "
	    "the next may be");
}

int
main(void)
{
	unsigned int before = t_count_fds();

	must(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	test_under_way();
	test_server();
	test_vectors();
	test_accept();
	test_flood();
	test_client();
	test_twin();
	test_bad(false);
	test_bad(true);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
