/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Answers that the device gives later, to a client that does not read them:
 * they take no more memory than those that are given at once.
 */

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define MIB	(1u << 20)
#define READS	32

static struct v_dev dev;
static struct mt_region *bar;
static int fd;
static struct vd_request *taken[READS];
static unsigned int ntaken, nrefused;
static uint8_t data[MIB];

static enum mt_result
read_bar(void *arg, mt_addr off, void *buf, size_t len, struct mt_attrs attrs)
{
	struct vd_request *r = vd_server_take(dev.s);

	(void)arg;
	(void)off;
	(void)attrs;
	memset(buf, 0xaa, len);
	if (r != NULL)
		taken[ntaken++] = r;
	else if (errno == ENOBUFS)
		nrefused++;
	return (MT_OK);
}

static void
begin(uint32_t max_queued)
{
	static const struct mt_io_ops ops = { .read_buf = read_bar };

	v_dev_create(&dev);
	must((bar = mt_region_create_io(dev.t, "bar", MT_SIZE(MIB), &ops,
	    NULL)) != NULL);
	must(vd_pci_set_bar(dev.s, 5, bar, 0) == 0);
	must(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .max_queued = max_queued }) == 0);
	fd = v_attach(dev.s);
	ntaken = nrefused = 0;
}

static void
end(void)
{
	close(fd);
	v_serve(dev.s, 0);
	mt_region_put(bar);
	v_dev_destroy(&dev);
}

static void
ask(uint16_t id, uint32_t count)
{
	const struct vd_region_access a = { 0, 5, count };

	must(v_send(fd, id, VD_CMD_REGION_READ, &a, sizeof(a)));
	v_serve(dev.s, 0);
}

static void
finish_all(int err)
{
	while (ntaken > 0)
		must(vd_request_finish(taken[--ntaken], err, data,
		    err == 0 ? MIB : 0) == 0);
	v_serve(dev.s, 0);
}

/* Take a whole answer, for which the server is run. */
static void
get_answer(struct vd_hdr *h, size_t len)
{
	static uint8_t sink[sizeof(*h) + sizeof(struct vd_region_access) + MIB];
	size_t have = 0;
	ssize_t n;

	len += sizeof(*h);
	for (; have < len; have += (size_t)n) {
		must(v_serve_until(dev.s, fd));
		n = recv(fd, sink + have, len - have, 0);
		must(n > 0);
	}
	memcpy(h, sink, sizeof(*h));
}

static bool
is_served(void)
{
	struct v_reply r;

	return (v_call(dev.s, fd, VD_CMD_DEVICE_GET_INFO,
	    "\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16, &r) && v_errno(&r) == 0);
}

static void
test_unread(void)
{
	unsigned int i, seen[READS] = { 0 }, most, bad = 0;
	struct vd_hdr h;
	size_t due;

	begin(4 * MIB);
	for (i = 0; i < READS; i++)
		ask((uint16_t)i, MIB);
	most = ntaken;
	ok(most >= 3 && most <= 4, "of %u reads %u are taken", READS, most);
	ok(nrefused > 0, "others are not");
	due = vd__conn_queued(dev.s->conn) + ntaken * MIB;
	ok(due <= 5 * MIB + 100, "%zu bytes of answers are due", due);
	finish_all(0);
	due = vd__conn_queued(dev.s->conn);
	ok(due <= 5 * MIB + 100, "or queued: %zu", due);
	ok(!v_readable(vd_server_fd(dev.s), 0), "the server rests");
	for (i = 0; i < READS; i++) {
		get_answer(&h, sizeof(struct vd_region_access) + MIB);
		bad += h.id >= READS || seen[h.id]++ != 0 ||
		    (h.flags & VD_ERROR) != 0;
		/* What has been taken meanwhile. */
		finish_all(0);
	}
	is_int(bad, 0, "a client that reads them has all");
	nrefused = 0;
	for (i = 0; i < 3; i++)
		ask((uint16_t)i, MIB);
	ok(ntaken == 3 && nrefused == 0, "then there is room again");
	ok(is_served(), "commands are served, as the device may wait for one");

	/* Unread answers, though, and it is too much. */
	ask(3, MIB);
	ask(4, MIB);
	is_int(nrefused, 2, "more are not taken");
	ok(vd__conn_queued(dev.s->conn) < 2 * MIB,
	    "some of their answers is in the queue");
	ask(5, MIB);
	is_int(nrefused, 2, "and no further command is served");
	finish_all(EIO);
	is_int(ntaken, 1, "until there is room for its answer");
	finish_all(EIO);
	end();
}

static void
test_long(void)
{
	begin(65536);
	ask(0, MIB);
	ok(ntaken == 1 && nrefused == 0, "one read may be more than all may");
	ok(is_served(), "others go on");
	ask(1, 8);
	is_int(nrefused, 1, "but are not taken");
	/* One that is gone leaves no debt. */
	close(fd);
	v_serve(dev.s, 0);
	fd = v_attach(dev.s);
	ask(0, 8);
	is_int(ntaken, 2, "the next client owes nothing");
	must(vd_request_finish(taken[0], 0, data, MIB) == 0);
	nrefused = 0;
	ask(1, 65536);
	is_int(nrefused, 1, "nor is it given what the last one had");
	must(vd_request_finish(taken[1], 0, data, 8) == 0);
	ntaken = 0;
	end();
}

int
main(void)
{
	test_unread();
	test_long();
	return (done());
}
