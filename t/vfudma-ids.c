/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Message ids: a peer's may be any, and the same again; ours are not given
 * again while an answer is due; and both sides' may be equal.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE	4096u

static struct v_dev dev;

/* --- the peer's ---------------------------------------------------------- */

/* Commands that are under way together and have all the same id. */
static void
test_same(void)
{
	const struct vd_device_info info = { .argsz = sizeof(info) };
	const struct vd_region_access read = { 0x40, 0, 4 },
	    config = { 0, VD_REGION_CONFIG, 8 };
	const struct vd_dma_map map = { sizeof(map), 3, 0, 0x1000, PAGE };
	static const uint16_t cmds[] = { VD_CMD_DEVICE_GET_INFO,
	    VD_CMD_REGION_READ, VD_CMD_DMA_MAP, VD_CMD_REGION_READ, 77,
	    VD_CMD_DMA_MAP, VD_CMD_DEVICE_RESET };
	static const size_t lens[] = { 16, 20, 0, 24, 0, 0, 0 };
	unsigned int i, round, bad = 0;
	struct v_reply r;
	int fd;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	for (round = 0; round < 20; round++) {
		must(v_send(fd, 0, cmds[0], &info, sizeof(info)));
		must(v_send(fd, 0, cmds[1], &read, sizeof(read)));
		must(v_send(fd, 0, cmds[2], &map, sizeof(map)));
		must(v_send(fd, 0, cmds[3], &config, sizeof(config)));
		must(v_send(fd, 0, cmds[4], NULL, 0));
		must(v_send(fd, 0, cmds[5], &map, sizeof(map) - 1));
		must(v_send(fd, 0, cmds[6], NULL, 0));
		for (i = 0; i < T_COUNT(cmds); i++)
			bad += !v_serve_until(dev.s, fd) || !v_recv(fd, &r) ||
			    r.hdr.id != 0 || r.hdr.cmd != cmds[i] ||
			    r.len != lens[i] || v_errno(&r) != (i == 4 ?
			    ENOSYS : i == 5 ? EINVAL : 0);
	}
	is_int(bad, 0, "commands with one id are answered in order");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

/* Taken by the device, and answered the other way round. */
static struct vd_request *taken[4];
static unsigned int ntaken;

static enum mt_result
take(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)size;
	(void)attrs;
	*val = off;
	must((taken[ntaken++] = vd_server_take(dev.s)) != NULL);
	return (MT_OK);
}

static void
test_taken(void)
{
	static const struct mt_io_ops ops = { .read = take };
	struct mt_region *bar;
	unsigned int i, bad = 0;
	struct v_reply r;
	uint64_t off;
	int fd;

	v_dev_create(&dev);
	must((bar = mt_region_create_io(dev.t, "taken", MT_SIZE(PAGE), &ops,
	    NULL)) != NULL);
	must(vd_pci_set_bar(dev.s, 5, bar, 0) == 0);
	mt_region_put(bar);
	fd = v_attach(dev.s);
	for (i = 0; i < 4; i++) {
		const struct vd_region_access a = { 4 * i, 5, 4 };

		must(v_send(fd, 9, VD_CMD_REGION_READ, &a, sizeof(a)));
		v_serve(dev.s, 0);
	}
	ok(ntaken == 4 && !v_readable(fd, 0), "a device takes all of them");
	for (i = 4; i-- > 0;) {
		uint32_t val = 1000 + i;

		must(vd_request_finish(taken[i], 0, &val, sizeof(val)) == 0);
		bad += !v_serve_until(dev.s, fd) || !v_recv(fd, &r) ||
		    r.hdr.id != 9 || r.len != 20;
		memcpy(&off, r.data, sizeof(off));
		bad += off != 4 * i || memcmp(r.data + 16, &val, 4) != 0;
	}
	is_int(bad, 0, "and answers each with its own, the last first");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

/* --- ours ---------------------------------------------------------------- */

static int peer;

/* Answers all commands but the first, which it answers in the end. */
static void *
echo(void *arg)
{
	unsigned int n = *(unsigned int *)arg, same = 0;
	struct vd_hdr first = { 0 }, h;
	uint8_t buf[64];

	while (recv(peer, &h, sizeof(h), MSG_WAITALL) == sizeof(h)) {
		must(h.size <= sizeof(buf));
		if (h.size > sizeof(h))
			must(recv(peer, buf + sizeof(h), h.size - sizeof(h),
			    MSG_WAITALL) == (ssize_t)(h.size - sizeof(h)));
		if (first.size == 0) {
			first = h;
			continue;
		}
		same += h.id == first.id;
		if (--n == 0) {
			first.flags = VD_TYPE_REPLY;
			first.size = sizeof(first);
			must(v_send_raw(peer, &first, sizeof(first), NULL, 0));
		}
		h.flags = VD_TYPE_REPLY;
		memcpy(buf, &h, sizeof(h));
		must(v_send_raw(peer, buf, h.size, NULL, 0));
	}
	return ((void *)(uintptr_t)same);
}

/* More calls than there are ids, while one has been given up. */
static void
test_wrap(void)
{
	unsigned int calls = 70000, i;
	struct vd__conn *c;
	struct vd__msg m;
	pthread_t th;
	void *same;
	int sv[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must((c = vd__conn_create(sv[0], 0)) != NULL);
	peer = sv[1];
	must(pthread_create(&th, NULL, echo, &calls) == 0);
	fails(vd__conn_call(c, VD_CMD_REGION_READ, NULL, 0, NULL, 0, 1, &m),
	    ETIMEDOUT, "a call is not answered");
	for (i = 0; i < 70000; i++) {
		struct iovec iov = { &i, sizeof(i) };

		if (vd__conn_call(c, VD_CMD_REGION_READ, &iov, 1, NULL, 0,
		    10000, &m) == -1)
			break;
		if (m.len != sizeof(i) || memcmp(m.data, &i, sizeof(i)) != 0)
			break;
		vd__msg_close(&m);
	}
	is_int(i, 70000, "70000 others are, each with its own");
	is_int(vd__conn_pending(c), 0, "also after the late answer");
	vd__conn_close(c);
	must(pthread_join(th, &same) == 0);
	is_int((uintptr_t)same, 0, "none of which had its id");
	vd__conn_destroy(c);
	close(peer);
}

/* --- both ---------------------------------------------------------------- */

#define ROUNDS	300u

static _Atomic(bool) stop;

/*
 * The server asks for memory from one thread, and answers commands in another;
 * the client's commands have the ids of the server's, as it sees them.
 */
static void *
device(void *arg)
{
	struct mt_space *sp = vd_server_dma(dev.s);
	uintptr_t bad = 0;
	uint64_t i, val;

	(void)arg;
	for (i = 0; i < ROUNDS; i++) {
		bad += mt_space_read(sp, 8 * i, &val, 8, MT_ATTRS_NONE) !=
		    MT_OK || val != 8 * i;
		bad += mt_space_write(sp, 8 * i, &i, 8, MT_ATTRS_NONE) !=
		    MT_OK;
	}
	stop = true;
	return ((void *)bad);
}

static void *
server(void *arg)
{
	(void)arg;
	while (!stop) {
		if (v_readable(vd_server_fd(dev.s), 5) &&
		    vd_server_run(dev.s) == -1)
			break;
	}
	return (NULL);
}

/* A message of the stream is there, or comes soon. */
static bool
next(int fd, struct v_reply *r)
{
	struct vd_hdr h;

	return (v_readable(fd, 5000) &&
	    recv(fd, &h, sizeof(h), MSG_PEEK | MSG_WAITALL) == sizeof(h) &&
	    v_recv(fd, r));
}

static void
test_crossing(void)
{
	const struct vd_dma_map map = { sizeof(map), 3, 0, 0, PAGE };
	struct { struct vd_region_access a; uint16_t val; } master =
	    { { 4, VD_REGION_CONFIG, 2 }, 6 };
	const struct vd_region_access read = { 0x40, 0, 4 };
	unsigned int asked = 0, served = 0, odd = 0, due = 0;
	struct vd_dma_access a;
	uint8_t buf[64];
	struct v_reply r;
	pthread_t th[2];
	void *bad;
	size_t len;

	v_dev_create(&dev);
	peer = v_attach(dev.s);
	must(v_call(dev.s, peer, VD_CMD_REGION_WRITE, &master, 18, &r) &&
	    v_errno(&r) == 0);
	must(v_call(dev.s, peer, VD_CMD_DMA_MAP, &map, sizeof(map), &r) &&
	    v_errno(&r) == 0);
	stop = false;
	must(pthread_create(&th[0], NULL, server, NULL) == 0);
	must(pthread_create(&th[1], NULL, device, NULL) == 0);
	while (served < 2 * ROUNDS && next(peer, &r)) {
		if ((r.hdr.flags & VD_TYPE_MASK) == VD_TYPE_REPLY) {
			odd += due == 0 || r.hdr.cmd != VD_CMD_REGION_READ ||
			    r.len != 20 ||
			    memcmp(r.data + 16, "\x11\x22\x33\x44", 4) != 0;
			due--;
			continue;
		}
		/* Commands of ours, with the same id, before the answer. */
		for (unsigned int i = 0; i < 3; i++, due++, asked++)
			must(v_send(peer, r.hdr.id, VD_CMD_REGION_READ, &read,
			    sizeof(read)));
		memcpy(&a, r.data, sizeof(a));
		len = sizeof(a);
		if (r.hdr.cmd == VD_CMD_DMA_READ) {
			memcpy(r.data + len, &a.addr, 8);
			len += 8;
		} else {
			odd += memcmp(r.data + len, &(uint64_t){ a.addr / 8 },
			    8) != 0;
		}
		len = v_build(buf, r.hdr.id, r.hdr.cmd, VD_TYPE_REPLY, r.data,
		    len);
		must(v_send_raw(peer, buf, len, NULL, 0));
		served++;
	}
	must(pthread_join(th[1], &bad) == 0);
	must(pthread_join(th[0], NULL) == 0);
	while (due > 0 && v_serve_until(dev.s, peer) && next(peer, &r))
		due--;
	is_int((uintptr_t)bad, 0, "DMA goes on among commands");
	ok(asked == 6 * ROUNDS && due == 0, "which are all answered: %u",
	    asked);
	is_int(odd, 0, "and nothing is taken for something else");
	close(peer);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_same();
	test_taken();
	test_wrap();
	test_crossing();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
