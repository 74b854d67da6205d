/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The connection: any split, descriptors, queueing, calls. */

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define QUEUED	(64u << 10)

static struct vd__conn *conn;
static int peer;

static void
begin_with(size_t queued)
{
	int sv[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must((conn = vd__conn_create(sv[0], queued)) != NULL);
	peer = sv[1];
}

static void
begin(void)
{
	begin_with(QUEUED);
}

static void
end(void)
{
	vd__conn_destroy(conn);
	close(peer);
}

static uint8_t *
pattern(size_t len, unsigned int seed)
{
	uint8_t *p = malloc(len + 1);
	size_t i;

	must(p != NULL);
	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 251 + seed);
	return (p);
}

static void
test_splits(void)
{
	static const size_t sizes[] = { 0, 1, 4, 17, 4080, 20000 };
	uint8_t *data = pattern(20000, 1), *buf = malloc(20016);
	size_t i, j, len, early, same;
	struct vd__msg m;
	bool whole = true;
	int rv = 0;

	begin();
	for (i = 0; i < T_COUNT(sizes); i++) {
		len = v_build(buf, (uint16_t)i, 9, 0, data, sizes[i]);
		early = 0;
		for (j = 0; j < len; j++) {
			must(write(peer, buf + j, 1) == 1);
			rv = vd__conn_next(conn, &m);
			early += rv != 0 && j + 1 < len;
		}
		ok(rv == 1 && early == 0 && m.len == sizes[i] &&
		    m.hdr.id == i && memcmp(m.data, data, m.len) == 0,
		    "%zu bytes of payload, byte by byte", sizes[i]);
		vd__msg_close(&m);
	}
	/* Many in one segment, and one over two. */
	for (len = 0, i = 0; i < 100; i++)
		len += v_build(buf + len, (uint16_t)i, 9, 0, data, i);
	must(write(peer, buf, len - 10) == (ssize_t)len - 10);
	for (i = 0; i < 99; i++) {
		whole = whole && vd__conn_next(conn, &m) == 1 &&
		    m.hdr.id == i && m.len == i &&
		    memcmp(m.data, data, i) == 0;
		vd__msg_close(&m);
	}
	ok(whole, "99 messages in one piece come apart");
	ok(!vd__conn_ready(conn), "the last is not whole yet");
	is_int(vd__conn_next(conn, &m), 0, "and does not come");
	must(write(peer, buf + len - 10, 10) == 10);
	is_int(vd__conn_next(conn, &m), 1, "until the rest is there");
	vd__msg_close(&m);
	end();

	/* Two large ones: the buffer grows, and is not lost. */
	begin();
	free(data);
	data = pattern(VD_MAX_MSG_SIZE, 3);
	free(buf);
	must((buf = malloc(VD_MAX_MSG_SIZE)) != NULL);
	for (i = 0; i < 3; i++) {
		len = v_build(buf, 1, 10, 0, data, VD_MAX_MSG_SIZE - 16);
		for (j = 0, same = 0; j < len;) {
			ssize_t n = send(peer, buf + j, len - j, MSG_DONTWAIT);

			if (n > 0)
				j += (size_t)n;
			rv = vd__conn_next(conn, &m);
			if (rv != 0)
				same = rv == 1 && m.len == len - 16 &&
				    memcmp(m.data, data, m.len) == 0;
			vd__msg_close(&m);
		}
		ok(same == 1, "a message of the largest size arrives");
	}
	end();
	free(buf);
	free(data);
}

static void
test_framing(void)
{
	static const uint32_t sizes[] = { 0, 15, VD_MAX_MSG_SIZE + 1,
	    UINT32_MAX };
	struct vd_hdr h = { 0 };
	struct vd__msg m;
	size_t i;

	for (i = 0; i < T_COUNT(sizes); i++) {
		begin();
		h.size = sizes[i];
		must(write(peer, &h, sizeof(h)) == sizeof(h));
		fails(vd__conn_next(conn, &m), EPROTO,
		    "a message of %u bytes ends the connection", sizes[i]);
		fails(vd__conn_next(conn, &m), ENOTCONN, "for good");
		is_int(vd__conn_fd(conn), -1, "it has no descriptor any more");
		ok(v_readable(peer, 0), "and the peer sees the end");
		end();
	}
	begin();
	must(write(peer, &h, 7) == 7);
	close(peer);
	fails(vd__conn_next(conn, &m), ENOTCONN, "a half header, then the end");
	peer = dup(1);
	end();
}

/* Send a message of len payload bytes with nfds descriptors at byte at. */
static void
send_at(uint16_t id, size_t len, size_t at, size_t nfds)
{
	uint8_t buf[512], zero[256] = { 0 };
	int fds[64];
	size_t i, n = v_build(buf, id, 2, 0, zero, len);

	for (i = 0; i < nfds; i++)
		fds[i] = 1;
	if (at > 0)
		must(v_send_raw(peer, buf, at, NULL, 0));
	must(v_send_raw(peer, buf + at, n - at, fds, nfds));
}

/* The next message has this id and number of descriptors. */
static void
expect(uint16_t id, size_t nfds, bool lost, const char *name)
{
	struct vd__msg m;
	int rv = vd__conn_next(conn, &m);

	ok(rv == 1 && m.hdr.id == id && m.nfds == nfds && m.fds_lost == lost,
	    "%s (%d: id %u, %zu descriptors)", name, rv, m.hdr.id, m.nfds);
	vd__msg_close(&m);
}

static void
test_fds(void)
{
	unsigned int before;
	struct vd__msg m;

	begin();
	before = t_count_fds();
	send_at(1, 32, 0, 1);
	send_at(2, 32, 0, 0);
	send_at(3, 32, 0, 2);
	send_at(4, 32, 0, 1);
	expect(1, 1, false, "a descriptor goes to its message");
	expect(2, 0, false, "not to the next");
	expect(3, 2, false, "two to theirs");
	expect(4, 1, false, "and one to the last");
	send_at(5, 32, 0, 0);
	send_at(6, 32, 0, 0);
	send_at(7, 0, 0, 3);
	expect(5, 0, false, "none to the first of three in a segment");
	expect(6, 0, false, "nor to the second");
	expect(7, 3, false, "but all to the third");
	send_at(8, 32, 20, 1);
	expect(8, 1, false, "one that comes with the body counts");
	send_at(9, 32, 5, 1);
	expect(9, 1, false, "as does one with the rest of the header");
	send_at(10, 32, 0, 17);
	expect(10, 16, true, "more than 16 are cut, and that is known");
	send_at(11, 32, 0, 1);
	expect(11, 1, false, "only for that message");

	/* Bytes with descriptors, over and over, of one message. */
	send_at(12, 0, 0, 0);
	expect(12, 0, false, "a message without any");
	{
		uint8_t buf[216], zero[200] = { 0 };
		int fds[16], i;

		for (i = 0; i < 16; i++)
			fds[i] = 1;
		v_build(buf, 13, 2, 0, zero, 200);
		for (i = 0; i < 215; i++) {
			must(v_send_raw(peer, buf + i, 1, fds, 16));
			must(vd__conn_next(conn, &m) == 0);
		}
		ok(t_count_fds() <= before + 32,
		    "a message cannot make us hold many");
		must(v_send_raw(peer, buf + 215, 1, fds, 16));
		expect(13, 16, true, "it has 16 in the end");
	}
	is_int(t_count_fds(), before, "none leaks");
	send_at(14, 32, 0, 1);
	must(vd__conn_next(conn, &m) == 1);
	vd__msg_close(&m);
	vd__msg_close(&m);
	is_int(t_count_fds(), before, "closing twice does no harm");
	send_at(15, 32, 0, 4);
	send_at(16, 32, 0, 4);
	{
		struct vd_hdr h = { 0, 2, 48, 0, 0 };
		int fds[2] = { 1, 1 };

		must(v_send_raw(peer, &h, 16, fds, 2));
	}
	close(peer);
	expect(15, 4, false, "messages before the end come");
	expect(16, 4, false, "all of them");
	fails(vd__conn_next(conn, &m), ENOTCONN, "then the end");
	is_int(t_count_fds() + 1, before, "which closes what was left");
	vd__conn_destroy(conn);
}

static void
test_replies(void)
{
	struct vd__msg req = { .hdr = { 5, 9, 32, 0, 0 } };
	uint8_t *data = pattern(10000, 9);
	struct iovec iov[2] = { { data, 16 }, { data + 16, 9984 } };
	unsigned int sent = 0, before, bad = 0, got = 0;
	int fds[1] = { 1 };
	struct v_reply r;

	begin();
	before = t_count_fds();
	works(vd__conn_reply(conn, &req, iov, 2, fds, 1), "a reply is sent");
	must(v_recv(peer, &r));
	ok(r.len == 10000 && memcmp(r.data, data, sizeof(r.data)) == 0 &&
	    r.nfds == 1, "in one piece, with its descriptor");
	v_close_fds(&r);
	req.hdr.flags = VD_NO_REPLY;
	works(vd__conn_reply(conn, &req, iov, 2, fds, 1), "none is asked for");
	works(vd__conn_error(conn, &req, EIO), "also if it fails");
	ok(!v_readable(peer, 0), "so none comes");
	req.hdr.flags = 0;

	while (!vd__conn_full(conn)) {
		req.hdr.id = (uint16_t)sent++;
		must(vd__conn_reply(conn, &req, iov, 2, NULL, 0) == 0);
	}
	ok(vd__conn_queued(conn) > QUEUED, "%u replies fill the queue", sent);
	is_int(vd__conn_flush(conn), 0, "which cannot be sent now");
	while (got < sent) {
		if (!v_readable(peer, 0)) {
			if (vd__conn_flush(conn) == -1)
				break;
			continue;
		}
		/* What is there of a message comes first; then the rest. */
		while (!v_recv(peer, &r))
			must(vd__conn_flush(conn) != -1 && errno == EAGAIN &&
			    r.len == 0);
		bad += r.hdr.id != got++ || r.len != 10000;
		/* Replies have to be whole messages here. */
		if (bad > 0)
			break;
	}
	is_int(got, sent, "all come when they are read");
	is_int(bad, 0, "in order");
	ok(!vd__conn_full(conn), "and there is room again");

	/* Descriptors in the queue stay with their messages. */
	sent = 0;
	while (!vd__conn_full(conn)) {
		req.hdr.id = (uint16_t)sent++;
		must(vd__conn_reply(conn, &req, iov, 1, fds,
		    req.hdr.id % 3 == 0) == 0);
	}
	ok(t_count_fds() <= before + 16, "few are copied (%u replies)", sent);
	for (got = bad = 0; got < sent; got++) {
		while (!v_recv(peer, &r))
			must(vd__conn_flush(conn) != -1);
		bad += r.nfds != (r.hdr.id % 3 == 0);
		v_close_fds(&r);
	}
	is_int(bad, 0, "each has what it was given");
	is_int(t_count_fds(), before, "no copy is left");
	while (!vd__conn_full(conn))
		must(vd__conn_reply(conn, &req, iov, 2, fds, 1) == 0);
	vd__conn_close(conn);
	is_int(t_count_fds(), before, "nor after an early end");
	fails(vd__conn_reply(conn, &req, iov, 2, fds, 1), ENOTCONN,
	    "then nothing can be sent");
	end();
	free(data);
}

/* Read len bytes as they come, or only what is there now; returns how many. */
static size_t
take(void *buf, size_t len, bool all)
{
	size_t got = 0;
	ssize_t n;

	if (len == 0)
		return (0);
	do {
		n = recv(peer, (uint8_t *)buf + got, len - got, MSG_DONTWAIT);
		must(n > 0 || (n == -1 && errno == EAGAIN));
		if (n > 0)
			got += (size_t)n;
		else if (all)
			must(vd__conn_flush(conn) != -1);
	} while (all && got < len);
	return (got);
}

/*
 * QEMU ends the connection if it reads a part of a header.  Linux cuts what is
 * sent at once every 36544 bytes, if pages have 4096, and may take only what
 * is before the cut: here it would be in the eighth of the short messages.
 */
static void
test_headers(void)
{
	const size_t len = 36412;
	uint8_t *data = pattern(len, 3), *buf = malloc(len);
	struct vd__msg req = { .hdr = { 0, 9, 32, 0, 0 } };
	unsigned int sent = 0, seen = 0, cut = 0, bad = 0;
	struct vd_hdr hdr;
	struct iovec iov;
	size_t n;

	must(buf != NULL);
	begin_with((size_t)1 << 20);
	while (!vd__conn_full(conn)) {
		req.hdr.id = (uint16_t)sent;
		iov = (struct iovec){ data, sent++ % 16 == 0 ? len : 0 };
		must(vd__conn_reply(conn, &req, &iov, 1, NULL, 0) == 0);
	}
	while (seen < sent) {
		if ((n = take(&hdr, sizeof(hdr), false)) == 0) {
			must(vd__conn_flush(conn) != -1);
			continue;
		}
		cut += n < sizeof(hdr);
		take((uint8_t *)&hdr + n, sizeof(hdr) - n, true);
		n = hdr.size - sizeof(hdr);
		must(n <= len);
		take(buf, n, true);
		bad += hdr.id != seen || n != (seen % 16 == 0 ? len : 0) ||
		    memcmp(buf, data, n) != 0;
		seen++;
	}
	is_int(cut, 0, "no header comes in two pieces, whatever is queued");
	is_int(bad, 0, "and %u messages come whole", sent);
	end();
	free(data);
	free(buf);
}

/* --- calls: a peer in a thread of its own -------------------------------- */

enum { ANSWER, ERROR, LATE, COMMANDS, WRONG_ID, WRONG_CMD, TRICKLE, HANG_UP,
    UNASKED, FOREVER };

static void
answer(const struct vd_hdr *req, uint32_t flags, uint32_t err)
{
	struct vd_hdr h = { req->id, req->cmd, 24, flags, err };
	uint8_t buf[24] = { 0 };

	memcpy(buf, &h, 16);
	memcpy(buf + 16, "payload", 8);
	if (write(peer, buf, 24) == -1)
		diag("the other side is gone");
}

static void *
serve(void *arg)
{
	int what = *(int *)arg;
	struct vd_hdr c = { 77, VD_CMD_DMA_READ, 16, 0, 0 };
	struct v_reply r;
	struct vd_hdr h;
	uint8_t buf[24];
	int i;

	if (!v_readable(peer, 5000) || !v_recv(peer, &r))
		return (NULL);
	switch (what) {
	case ANSWER:
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		break;
	case ERROR:
		answer(&r.hdr, VD_TYPE_REPLY | VD_ERROR, EXDEV);
		break;
	case LATE:
		usleep(100000);
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		v_readable(peer, 5000);
		v_recv(peer, &r);
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		break;
	case COMMANDS:
		h = r.hdr;
		for (i = 0; i < 3; i++)
			must(write(peer, &c, 16) == 16);
		c.flags = VD_NO_REPLY;
		must(write(peer, &c, 16) == 16);
		for (i = 0; i < 3; i++) {
			v_readable(peer, 5000);
			must(v_recv(peer, &r));
			ok(r.hdr.id == 77 && v_errno(&r) == ENOSYS,
			    "a command meanwhile gets ENOSYS");
		}
		answer(&h, VD_TYPE_REPLY, 0);
		break;
	case WRONG_ID:
		r.hdr.id ^= 0x55;
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		break;
	case WRONG_CMD:
		r.hdr.cmd ^= 1;
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		break;
	case TRICKLE:
		h = (struct vd_hdr){ r.hdr.id, r.hdr.cmd, 24, 1, 0 };
		memcpy(buf, &h, 16);
		memcpy(buf + 16, "payload", 8);
		for (i = 0; i < 24; i++) {
			usleep(1000);
			must(write(peer, buf + i, 1) == 1);
		}
		break;
	case HANG_UP:
		shutdown(peer, SHUT_RDWR);
		break;
	case UNASKED:
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		answer(&r.hdr, VD_TYPE_REPLY, 0);
		v_readable(peer, 5000);
		break;
	case FOREVER:
		c.flags = VD_NO_REPLY;
		while (send(peer, &c, 16, MSG_NOSIGNAL) == 16)
			continue;
		break;
	}
	return (NULL);
}

/* One call to a peer that behaves like this. */
static int
call(int what, int timeout, struct vd__msg *m, pthread_t *thread)
{
	static int arg;
	struct iovec iov = { (void *)(uintptr_t)"question", 8 };
	int rv;

	arg = what;
	must(pthread_create(thread, NULL, serve, &arg) == 0);
	rv = vd__conn_call(conn, VD_CMD_REGION_READ, &iov, 1, NULL, 0,
	    timeout, m);
	return (rv);
}

static void
test_calls(void)
{
	struct iovec iov = { (void *)(uintptr_t)"question", 8 };
	struct iovec huge = { NULL, VD_MAX_MSG_SIZE };
	struct vd__msg m;
	pthread_t th;

	begin();
	works(call(ANSWER, 5000, &m, &th), "a call is answered");
	ok(m.len == 8 && memcmp(m.data, "payload", 8) == 0, "with a payload");
	vd__msg_close(&m);
	pthread_join(th, NULL);
	fails(call(ERROR, 5000, &m, &th), EXDEV,
	    "an error reply fails, also if it has a payload");
	pthread_join(th, NULL);
	works(call(TRICKLE, 5000, &m, &th), "an answer comes byte by byte");
	vd__msg_close(&m);
	pthread_join(th, NULL);
	works(call(COMMANDS, 5000, &m, &th), "commands come before an answer");
	vd__msg_close(&m);
	pthread_join(th, NULL);
	fails(call(LATE, 20, &m, &th), ETIMEDOUT, "a late answer is too late");
	works(vd__conn_call(conn, VD_CMD_REGION_READ, &iov, 1, NULL, 0, 5000,
	    &m), "but does not disturb the next");
	vd__msg_close(&m);
	pthread_join(th, NULL);
	fails(vd__conn_call(conn, VD_CMD_REGION_READ, &huge, 1, NULL, 0, 5000,
	    &m), EMSGSIZE, "what is too large is not sent");
	fails(call(WRONG_ID, 5000, &m, &th), EPROTO, "another id is an end");
	pthread_join(th, NULL);
	fails(vd__conn_call(conn, VD_CMD_REGION_READ, &iov, 1, NULL, 0, 5000,
	    &m), ENOTCONN, "and stays one");
	end();

	begin();
	fails(call(WRONG_CMD, 5000, &m, &th), EPROTO, "so is another command");
	pthread_join(th, NULL);
	end();
	begin();
	fails(call(HANG_UP, 5000, &m, &th), ENOTCONN, "so is the end");
	pthread_join(th, NULL);
	end();
	begin();
	works(call(UNASKED, 5000, &m, &th), "the first answer is good");
	vd__msg_close(&m);
	/* It may have been read along with the first. */
	ok(vd__conn_call(conn, VD_CMD_REGION_READ, &iov, 1, NULL, 0, 5000,
	    &m) == -1 && (errno == EPROTO || errno == ENOTCONN),
	    "a second to the same is not");
	pthread_join(th, NULL);
	end();
	begin();
	fails(call(FOREVER, 100, &m, &th), ETIMEDOUT,
	    "a peer that talks for ever does not get more time");
	vd__conn_close(conn);
	pthread_join(th, NULL);
	end();
}

static void
test_silence(void)
{
	uint8_t *data = pattern(1 << 20, 5);
	struct iovec iov = { data, 1 << 20 };
	static struct vd__call calls[200];
	struct v_reply r;
	struct vd__msg m;
	unsigned int i;

	begin();
	for (i = 0; i < 64; i++)
		if (vd__conn_call(conn, VD_CMD_REGION_READ, NULL, 0, NULL, 0,
		    1, &m) != -1 || errno != ETIMEDOUT)
			break;
	is_int(i, 64, "64 calls may wait for their late answers");
	fails(vd__conn_call(conn, VD_CMD_REGION_READ, NULL, 0, NULL, 0, 1,
	    &m), ENOBUFS, "not more");
	for (i = 0; i < 64; i++)
		if (!v_recv(peer, &r))
			break;
		else
			answer(&r.hdr, VD_TYPE_REPLY, 0);
	fails(vd__conn_call(conn, VD_CMD_REGION_READ, NULL, 0, NULL, 0, 1,
	    &m), ETIMEDOUT, "until those have been answered");
	end();
	begin();
	memset(calls, 0, sizeof(calls));
	for (i = 0; i < T_COUNT(calls); i++)
		if (vd__conn_send(conn, &calls[i], VD_CMD_REGION_READ, NULL, 0,
		    NULL, 0, 1000) == -1 || !vd__conn_cancel(conn, &calls[i]))
			break;
	is_int(i, T_COUNT(calls), "more may have been given up in time");
	end();
	begin();
	fails(vd__conn_post(conn, VD_CMD_REGION_WRITE, &iov, 1, NULL, 0, 20),
	    ETIMEDOUT, "a post that the peer does not read times out");
	fails(vd__conn_post(conn, VD_CMD_REGION_WRITE, &iov, 1, NULL, 0, 20),
	    ETIMEDOUT, "and again");
	ok(vd__conn_queued(conn) < 2u << 20, "without queueing more");
	end();
	free(data);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_splits();
	test_framing();
	test_fds();
	test_replies();
	test_headers();
	test_calls();
	test_silence();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
