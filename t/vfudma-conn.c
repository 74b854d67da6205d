/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The connection under threads, and against peers that time things badly:
 * early and late answers, stuffed sockets, commands in between.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define MIB		((size_t)1 << 20)
#define LARGE		(MIB - 64)
#define QUEUED		(64u << 10)

static struct vd__conn *conn;
static int peer, twin;

/* --- the other end, byte for byte ---------------------------------------- */

static bool
get(int fd, void *buf, size_t len)
{
	uint8_t *p = buf;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n)
		if (!v_readable(fd, 10000) || (n = read(fd, p, len)) <= 0)
			return (false);
	return (true);
}

static bool
put(int fd, const void *buf, size_t len)
{
	return (v_send_raw(fd, buf, len, NULL, 0));
}

/* Take a message of any size: its payload, to be freed; NULL at the end. */
static uint8_t *
take(int fd, struct vd_hdr *h)
{
	uint8_t *p;

	if (!get(fd, h, sizeof(*h)))
		return (NULL);
	must((p = malloc(h->size)) != NULL);
	if (get(fd, p, h->size - sizeof(*h)))
		return (p);
	free(p);
	return (NULL);
}

static bool
skip_message(int fd, struct vd_hdr *h)
{
	uint8_t *p = take(fd, h);

	free(p);
	return (p != NULL);
}

static bool
answer(int fd, const struct vd_hdr *h, const void *payload, size_t len)
{
	uint8_t *buf = malloc(sizeof(*h) + len);
	bool rv;

	must(buf != NULL);
	rv = put(fd, buf, v_build(buf, h->id, h->cmd, VD_TYPE_REPLY, payload,
	    len));
	free(buf);
	return (rv);
}

static uint8_t *
pattern(size_t len, unsigned int seed)
{
	uint8_t *p = malloc(len);
	size_t i;

	must(p != NULL);
	for (i = 0; i < len; i++)
		p[i] = (uint8_t)(i * 7 + i / 251 + seed);
	return (p);
}

static void
begin_with(const struct vd__conn_ops *ops, size_t max_queued)
{
	int sv[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must((conn = vd__conn_create(sv[0], max_queued)) != NULL);
	if (ops != NULL)
		vd__conn_set_ops(conn, ops, NULL);
	peer = sv[1];
	twin = -1;
}

static void
begin(const struct vd__conn_ops *ops)
{
	begin_with(ops, QUEUED);
}

static void
begin_twin(const struct vd__conn_ops *ops, bool ours)
{
	int sv[2];

	begin(ops);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd__conn_set_twin(conn, sv[0], ours) == 0);
	twin = sv[1];
}

static void
end(void)
{
	vd__conn_destroy(conn);
	vd__close(peer);
	vd__close(twin);
}

static struct iovec
iov_of(const void *p, size_t len)
{
	return ((struct iovec){ (void *)(uintptr_t)p, len });
}

static int
start(struct vd__call *call, const void *p, size_t len, int timeout)
{
	struct iovec iov = iov_of(p, len);

	return (vd__conn_send(conn, call, VD_CMD_REGION_READ, &iov, len > 0,
	    NULL, 0, timeout));
}

static int
await(struct vd__call *call)
{
	int rv = vd__conn_await(conn, call), saved = errno;

	if (rv == 0)
		vd__msg_close(&call->reply);
	errno = saved;
	return (rv);
}

static int
ask(int timeout)
{
	struct vd__call call = { 0 };

	return (start(&call, NULL, 0, timeout) == -1 ? -1 : await(&call));
}

static void
join(pthread_t th)
{
	must(pthread_join(th, NULL) == 0);
}

/* --- answers that come early or late ------------------------------------- */

static void
test_early(void)
{
	uint8_t *data = pattern(LARGE, 3), *lent = pattern(LARGE, 3), *got;
	struct vd__call call = { 0 }, other = { 0 };
	struct vd_hdr h, guess;
	size_t len = LARGE;

	begin(NULL);
	must(start(&call, lent, len, 5000) == 0);
	must(get(peer, &h, sizeof(h)));
	must(answer(peer, &h, "early", 5));
	works(await(&call), "an answer may come before all is asked");
	memset(lent, 0xee, len);
	memset(&call, 0xee, sizeof(call));
	must((got = malloc(len)) != NULL);
	{
		size_t done = 0;
		ssize_t n;

		while (done < len && vd__conn_flush(conn) != -1 &&
		    (n = recv(peer, got + done, len - done,
		    MSG_DONTWAIT)) > 0)
			done += (size_t)n;
		is_int(done, len, "the rest of the question still goes out");
	}
	ok(memcmp(got, data, len) == 0, "and is what it was");
	is_int(vd__conn_queued(conn), 0, "nothing is left to send");
	free(got);
	end();

	begin(NULL);
	memset(&call, 0, sizeof(call));
	must(start(&call, data, len, 5000) == 0);
	must(start(&other, data, len, 5000) == 0);
	must(get(peer, &guess, sizeof(guess)));
	guess.id++;			/* the next slot, used once, too */
	must(answer(peer, &guess, NULL, 0));
	fails(await(&other), EPROTO,
	    "an answer to what was not begun to be sent is an end");
	fails(await(&call), EPROTO, "of all calls");
	end();
	free(data);
	free(lent);
}

/* The rest of an answer comes when nobody wants it any more. */
static void
late(size_t len, bool cancel, const char *name)
{
	uint8_t *data = pattern(len, 5), *buf = malloc(len + 64), *reply;
	struct vd__call call = { .data = buf, .data_len = len };
	struct vd_hdr h;
	size_t i, bad = 0, half = len / 2, total;

	must(buf != NULL && (reply = malloc(len + sizeof(h))) != NULL);
	begin(NULL);
	memset(buf, 0, len + 64);
	must(start(&call, NULL, 0, 20) == 0 && skip_message(peer, &h));
	total = v_build(reply, h.id, h.cmd, VD_TYPE_REPLY, data, len);
	{
		size_t done = 0;
		ssize_t n;

		while (done < half && (n = send(peer, reply + done,
		    half - done, MSG_DONTWAIT)) > 0) {
			done += (size_t)n;
			must(vd__conn_pump(conn) == 0);
		}
		must(done == half);
	}
	if (cancel)
		ok(vd__conn_cancel(conn, &call), "%s: cancelled", name);
	else
		fails(await(&call), ETIMEDOUT, "%s: timed out", name);
	memset(buf, 0x5a, len + 64);
	for (i = half; i < total;) {
		ssize_t n = send(peer, reply + i, total - i, MSG_DONTWAIT);

		i += n > 0 ? (size_t)n : 0;
		must(vd__conn_pump(conn) == 0);
	}
	for (i = 0; i < len + 64; i++)
		bad += buf[i] != 0x5a;
	is_int(bad, 0, "%s: the buffer is left alone", name);
	free(buf);
	memset(&call, 0xee, sizeof(call));
	call = (struct vd__call){ 0 };
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(peer, &h) &&
	    answer(peer, &h, NULL, 0));
	works(await(&call), "%s: and the next call works", name);
	end();
	free(data);
	free(reply);
}

static void
test_late(void)
{
	late(8, false, "8 bytes");
	late(MIB - 64, false, "1 MiB");
	late(MIB - 64, true, "1 MiB");
}

static void
test_cancel(void)
{
	uint8_t *data = pattern(LARGE, 1), *got;
	struct vd__call first = { 0 }, second = { 0 }, third = { 0 };
	struct vd_hdr h, keep;

	begin(NULL);
	must(start(&first, data, LARGE, 5000) == 0);
	must(start(&second, data, LARGE, 5000) == 0);
	ok(vd__conn_cancel(conn, &second), "cancel what waits in the queue");
	ok(vd__conn_queued(conn) < LARGE, "it has left");
	ok(vd__conn_cancel(conn, &first), "cancel what was sent in part");
	memset(data, 0, LARGE);
	fails(await(&first), ECANCELED, "which is its end");
	ok(!vd__conn_cancel(conn, &first), "it ends but once");
	is_int(vd__conn_pending(conn), 0, "no call is left");
	must(start(&third, NULL, 0, 5000) == 0);
	must((got = malloc(LARGE)) != NULL && get(peer, &keep, sizeof(keep)));
	{
		size_t done = 0;
		ssize_t n;

		while (done < LARGE && vd__conn_flush(conn) != -1 && (n = recv(
		    peer, got + done, LARGE - done, MSG_DONTWAIT)) > 0)
			done += (size_t)n;
		free(data);
		data = pattern(LARGE, 1);
		ok(done == LARGE && memcmp(got, data, LARGE) == 0,
		    "what was begun arrives whole");
	}
	must(vd__conn_flush(conn) == 1 && skip_message(peer, &h));
	is_int(h.size, 16, "what was not begun does not arrive");
	must(answer(peer, &keep, NULL, 0) && answer(peer, &h, NULL, 0));
	works(await(&third), "the late answer is no matter");
	must(start(&third, NULL, 0, 5000) == 0 && skip_message(peer, &h));
	ok(vd__conn_cancel(conn, &third), "cancel what was sent");
	must(answer(peer, &h, NULL, 0));
	works(vd__conn_pump(conn), "its answer is dropped");
	must(start(&third, NULL, 0, 5000) == 0 && skip_message(peer, &h) &&
	    answer(peer, &h, NULL, 0) && vd__conn_pump(conn) == 0);
	ok(!vd__conn_cancel(conn, &third), "what has ended stays ended");
	works(await(&third), "with its answer");
	end();
	free(got);
	free(data);
}

/* --- calls with done ----------------------------------------------------- */

static unsigned int finished, wrong;

static void
done_ok(struct vd__call *call)
{
	finished++;
	wrong += call->err != 0;
	if (call->err == 0)
		vd__msg_close(&call->reply);
}

static void
done_late(struct vd__call *call)
{
	finished++;
	wrong += call->err != ETIMEDOUT;
}

static void
test_done(void)
{
	static struct vd__call calls[1025];
	static struct vd_hdr h[1024];
	unsigned int i, twice = 0;
	static bool seen[65536];
	int ms;

	begin(NULL);
	memset(calls, 0, sizeof(calls));
	finished = wrong = 0;
	for (i = 0; i < 1024; i++) {
		calls[i].done = done_ok;
		must(start(&calls[i], NULL, 0, 5000) == 0);
		must(skip_message(peer, &h[i]));
		twice += seen[h[i].id];
		seen[h[i].id] = true;
	}
	is_int(twice, 0, "1024 calls have 1024 ids");
	fails(start(&calls[1024], NULL, 0, 5000), ENOBUFS, "one more has none");
	for (i = 1024; i-- > 0;) {
		must(answer(peer, &h[i], "x", 1));
		must(i % 128 != 0 || vd__conn_pump(conn) == 0);
	}
	works(vd__conn_pump(conn), "all are answered, the last first");
	is_int(finished, 0, "but nobody is told");
	ok(vd__conn_has_ended(conn), "before somebody asks");
	is_int(vd__conn_finish(conn), 1024, "then all are");
	is_int(finished, 1024, "once");
	is_int(wrong, 0, "and well");

	finished = wrong = 0;
	for (i = 0; i < 3; i++) {
		calls[i] = (struct vd__call){ .done = done_late };
		must(start(&calls[i], NULL, 0, (int)(i == 0 ? 10000 :
		    i == 1 ? 20 : 40)) == 0);
	}
	ms = vd__conn_expire(conn);
	ok(ms > 0 && ms <= 20, "the first is overdue in %d ms", ms);
	usleep(50000);
	ms = vd__conn_expire(conn);
	ok(ms > 5000, "then two are, and the last is not in %d ms", ms);
	is_int(finished, 0, "told by finish only");
	is_int(vd__conn_finish(conn), 2, "as ended");
	is_int(wrong, 0, "out of time");
	calls[0].done = done_ok;
	vd__conn_close(conn);
	is_int(vd__conn_finish(conn), 1, "the end of the connection ends all");
	is_int(wrong, 1, "with an error");
	end();
}

/* --- many threads -------------------------------------------------------- */

#define THREADS		8
#define ROUNDS		200

static void *
caller(void *arg)
{
	uint32_t n = (uint32_t)(uintptr_t)arg << 16;
	struct iovec iov = { &n, sizeof(n) };
	uintptr_t bad = 0;
	struct vd__msg m;
	int i;

	for (i = 0; i < ROUNDS; i++, n++) {
		if (vd__conn_call(conn, VD_CMD_REGION_READ, &iov, 1, NULL, 0,
		    10000, &m) == -1) {
			bad++;
			continue;
		}
		bad += m.len != sizeof(n) || memcmp(m.data, &n, 4) != 0;
		vd__msg_close(&m);
	}
	return ((void *)bad);
}

/* Answers up to 5 at a time, the last first. */
static void *
shuffler(void *arg)
{
	struct vd_hdr h[5];
	uint8_t *p[5];
	unsigned int n = 0, left = THREADS * ROUNDS;

	(void)arg;
	while (left > 0) {
		if (n < 5 && (n == 0 || v_readable(peer, 1))) {
			if ((p[n] = take(peer, &h[n])) == NULL)
				return (NULL);
			n++;
			continue;
		}
		while (n > 0) {
			n--;
			left--;
			answer(peer, &h[n], p[n], h[n].size - sizeof(h[n]));
			free(p[n]);
		}
	}
	return (NULL);
}

static void
test_threads(void)
{
	pthread_t th[THREADS], other;
	uintptr_t bad = 0;
	struct vd__msg m;
	void *rv;
	int i;

	begin(NULL);
	must(pthread_create(&other, NULL, shuffler, NULL) == 0);
	for (i = 0; i < THREADS; i++)
		must(pthread_create(&th[i], NULL, caller,
		    (void *)(uintptr_t)i) == 0);
	for (i = 0; i < THREADS; i++) {
		must(pthread_join(th[i], &rv) == 0);
		bad += (uintptr_t)rv;
	}
	join(other);
	is_int(bad, 0, "answers in any order come to who asked");
	end();

	/* Beside a thread that reads without waiting. */
	begin(&(struct vd__conn_ops){ .wake = NULL, .serve = NULL });
	must(pthread_create(&other, NULL, shuffler, NULL) == 0);
	for (i = 0; i < THREADS; i++)
		must(pthread_create(&th[i], NULL, caller,
		    (void *)(uintptr_t)i) == 0);
	for (i = 0; i < 20000 && vd__conn_next(conn, &m) == 0; i++)
		continue;
	for (i = 0, bad = 0; i < THREADS; i++) {
		must(pthread_join(th[i], &rv) == 0);
		bad += (uintptr_t)rv;
	}
	join(other);
	is_int(bad, 0, "also if another thread reads them");
	end();
}

static void *
asker(void *arg)
{
	(void)arg;
	return ((void *)(uintptr_t)(ask(-1) == -1 ? errno : 0));
}

static void
test_close(void)
{
	uint8_t *data = pattern(LARGE, 1);
	struct iovec iov = iov_of(data, LARGE);
	pthread_t th[4];
	int i, bad = 0;
	void *rv;

	begin(NULL);
	for (i = 0; i < 4; i++)
		must(pthread_create(&th[i], NULL, asker, NULL) == 0);
	while (vd__conn_pending(conn) < 4)
		usleep(1000);
	usleep(10000);
	vd__conn_close(conn);
	for (i = 0; i < 4; i++) {
		must(pthread_join(th[i], &rv) == 0);
		bad += (uintptr_t)rv != ENOTCONN;
	}
	is_int(bad, 0, "a close wakes all who wait");
	end();

	begin(NULL);
	must(pthread_create(&th[0], NULL, asker, NULL) == 0);
	while (vd__conn_pending(conn) < 1)
		usleep(1000);
	usleep(10000);
	close(peer);
	peer = -1;
	fails(vd__conn_post(conn, VD_CMD_REGION_WRITE, &iov, 1, NULL, 0,
	    5000), ENOTCONN, "a post that is not sent to its end fails");
	join(th[0]);
	end();
	free(data);
}

/* --- commands in between ------------------------------------------------- */

static uint8_t *blob;
static size_t blob_len;
static _Atomic(unsigned int) served, inside, most_inside, disorder;
static _Atomic(size_t) most_queued;

static void
serve(void *arg, struct vd__msg *m)
{
	struct iovec iov = iov_of(blob, blob_len);
	unsigned int now = ++inside;
	uint32_t n = served++;

	(void)arg;
	if (now > most_inside)
		most_inside = now;
	if (m->len >= 4)
		disorder += memcmp(m->data, &n, 4) != 0;
	vd__conn_reply(conn, m, &iov, blob_len > 0, NULL, 0);
	if (vd__conn_queued(conn) > most_queued)
		most_queued = vd__conn_queued(conn);
	inside--;
}

static const struct vd__conn_ops serving = { .serve = serve };

static void
reset(size_t len)
{
	free(blob);
	blob = pattern(len + 1, 9);
	blob_len = len;
	served = inside = most_inside = disorder = 0;
	most_queued = 0;
}

/* Commands, all with id 0, numbered, at once with the answer to h. */
static void
flood(const struct vd_hdr *h, unsigned int n, uint32_t flags)
{
	uint8_t *buf = malloc(n * 20 + 16);
	size_t len = 0;
	uint32_t i;

	must(buf != NULL);
	for (i = 0; i < n; i++)
		len += v_build(buf + len, 0, VD_CMD_DMA_READ, flags, &i, 4);
	if (h != NULL)
		len += v_build(buf + len, h->id, h->cmd, VD_TYPE_REPLY, NULL,
		    0);
	must(put(peer, buf, len));
	free(buf);
}

static void
test_buffered(void)
{
	struct vd__call call = { 0 };
	struct vd__msg m;
	struct vd_hdr h;

	begin(&serving);
	reset(0);
	must(start(&call, NULL, 0, 2000) == 0 && skip_message(peer, &h));
	flood(&h, 100, VD_NO_REPLY);
	works(await(&call), "an answer behind 100 commands, in one piece");
	is_int(served, 100, "which are served");
	is_int(disorder, 0, "in order");
	end();

	begin(&(struct vd__conn_ops){ 0 });
	call = (struct vd__call){ 0 };
	must(start(&call, NULL, 0, 2000) == 0 && skip_message(peer, &h));
	flood(&h, 1, VD_NO_REPLY);
	must(vd__conn_next(conn, &m) == 1);
	vd__msg_close(&m);
	works(await(&call), "an answer that came along with a command");
	end();
}

static void *
reader(void *arg)
{
	unsigned int n = (unsigned int)(uintptr_t)arg;
	uintptr_t bad = 0;
	struct vd_hdr h;
	uint8_t *p;

	usleep(20000);
	while (n-- > 0) {
		if ((p = take(peer, &h)) == NULL)
			return ((void *)(bad + 1));
		bad += h.id != 0 || h.size != blob_len + sizeof(h) ||
		    memcmp(p, blob, blob_len) != 0;
		free(p);
	}
	return ((void *)bad);
}

/* The peer that says all it has to say before it reads. */
static void *
talker(void *arg)
{
	uint8_t *data = pattern(LARGE, 5);
	unsigned int i;

	for (i = 0; i < 8; i++)
		must(v_send_fds(peer, 0, VD_CMD_DMA_WRITE, VD_TYPE_COMMAND |
		    VD_NO_REPLY, data, LARGE, NULL, 0));
	free(data);
	return (reader(arg));
}

/* Many answers of ours in the socket, and the peer reads them late. */
static void
test_answers(void)
{
	struct vd__call call = { 0 };
	struct vd_hdr h;
	pthread_t th;
	void *rv;

	begin_with(&serving, 0);
	reset(LARGE);
	must(start(&call, NULL, 0, 10000) == 0 && skip_message(peer, &h));
	flood(&h, 40, 0);
	must(pthread_create(&th, NULL, reader, (void *)40) == 0);
	works(await(&call), "40 commands with answers of 1 MiB each");
	is_int(vd__conn_queued(conn), 0, "none is left behind");
	ok(most_queued <= 3 * MIB, "nor were many queued at a time (%zu)",
	    (size_t)most_queued);
	must(pthread_join(th, &rv) == 0);
	is_int((uintptr_t)rv, 0, "all arrive");
	end();

	/* Our call is over; what we owe goes out when we have listened. */
	begin_with(&serving, 0);
	reset(LARGE);
	call = (struct vd__call){ 0 };
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(peer, &h));
	flood(&h, 10, 0);
	must(pthread_create(&th, NULL, talker, (void *)10) == 0);
	works(await(&call), "answers to who talks before it listens");
	is_int(vd__conn_queued(conn), 0, "are all sent");
	must(pthread_join(th, &rv) == 0);
	is_int((uintptr_t)rv, 0, "and arrive");
	end();

	begin_with(&serving, 0);
	reset(LARGE);
	flood(NULL, 3, 0);
	must(pthread_create(&th, NULL, reader, (void *)3) == 0);
	is_int(vd__conn_run(conn, 10000), 1, "commands while nobody waits");
	is_int(vd__conn_queued(conn), 0, "are answered to the end");
	must(pthread_join(th, &rv) == 0);
	is_int((uintptr_t)rv, 0, "well");
	end();
}

static void *
sprinkler(void *arg)
{
	uint32_t i;
	uint8_t buf[20];

	(void)arg;
	for (i = 0; i < 3000; i++) {
		v_build(buf, 0, VD_CMD_DMA_WRITE, VD_NO_REPLY, &i, 4);
		if (!put(peer, buf, sizeof(buf)))
			break;
	}
	return (NULL);
}

static void
test_order(void)
{
	pthread_t th[4], other;
	struct vd_hdr h[4];
	int i;

	begin(&serving);
	reset(0);
	for (i = 0; i < 4; i++)
		must(pthread_create(&th[i], NULL, asker, NULL) == 0);
	for (i = 0; i < 4; i++)
		must(skip_message(peer, &h[i]));
	must(pthread_create(&other, NULL, sprinkler, NULL) == 0);
	join(other);
	for (i = 0; i < 4; i++)
		answer(peer, &h[i], NULL, 0);
	for (i = 0; i < 4; i++)
		join(th[i]);
	is_int(served, 3000, "commands are served by 4 threads that wait");
	is_int(disorder, 0, "in the order in which they came");
	is_int(most_inside, 1, "one at a time");
	end();
}

/* Serving that asks itself, and is asked meanwhile. */
static void
serve_nested(void *arg, struct vd__msg *m)
{
	uint32_t n;

	(void)arg;
	memcpy(&n, m->data, 4);
	served++;
	if (n == 0)
		wrong += ask(5000) == -1;
	vd__conn_reply(conn, m, NULL, 0, NULL, 0);
}

static void
test_nested(void)
{
	static const struct vd__conn_ops ops = { .serve = serve_nested };
	struct vd_hdr outer[2], inner, h;
	pthread_t th[2];
	uint8_t buf[20];
	uint32_t n = 0;
	int i;

	begin(&ops);
	reset(0);
	wrong = 0;
	for (i = 0; i < 2; i++) {
		must(pthread_create(&th[i], NULL, asker, NULL) == 0);
		must(skip_message(peer, &outer[i]));
	}
	v_build(buf, 0, VD_CMD_DMA_READ, 0, &n, 4);
	must(put(peer, buf, sizeof(buf)) && skip_message(peer, &inner));
	for (n = 1; n < 20; n++) {
		v_build(buf, 0, VD_CMD_DMA_READ, 0, &n, 4);
		must(put(peer, buf, sizeof(buf)));
		if (!skip_message(peer, &h) || h.id != 0)
			break;
	}
	is_int(n, 20, "who asks while it serves serves on");
	must(answer(peer, &inner, NULL, 0) && skip_message(peer, &h));
	is_int(wrong, 0, "and gets its answer");
	for (i = 0; i < 2; i++) {
		must(answer(peer, &outer[i], NULL, 0));
		join(th[i]);
	}
	is_int(served, 20, "nothing is served twice");
	end();
}

/* --- commands that nobody serves meanwhile ------------------------------- */

static _Atomic(unsigned int) woken;

static void
wake(void *arg)
{
	(void)arg;
	woken++;
}

static const struct vd__conn_ops waking = { .wake = wake };

static void
test_queue(void)
{
	unsigned int before, i, with = 0, lost = 0, bad = 0;
	struct vd__call call = { 0 };
	struct vd_hdr h;
	struct vd__msg m;
	uint8_t *data;
	int fd = 1;

	begin(&waking);
	before = t_count_fds();
	woken = 0;
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(peer, &h));
	for (i = 0; i < 300; i++) {
		must(v_send_fds(peer, 0, VD_CMD_DMA_MAP, 0, &i, 4, &fd, 1));
		must(vd__conn_pump(conn) == 0);
	}
	must(answer(peer, &h, NULL, 0));
	works(await(&call), "a call goes on beside 300 commands");
	ok(t_count_fds() <= before + 256, "which hold few descriptors");
	ok(vd__conn_ready(conn), "and are there");
	for (i = 0; vd__conn_next(conn, &m) == 1; i++) {
		bad += m.len != 4 || memcmp(m.data, &i, 4) != 0;
		with += m.nfds == 1 && !m.fds_lost;
		lost += m.nfds == 0 && m.fds_lost;
		vd__msg_close(&m);
	}
	is_int(i, 300, "all of them");
	is_int(bad, 0, "in order");
	is_int(with, 256, "256 with what came along");
	is_int(lost, 44, "the others know that they lost it");
	is_int(t_count_fds(), before, "no descriptor is left");
	end();

	begin(&waking);
	call = (struct vd__call){ 0 };
	must(start(&call, NULL, 0, 5000) == 0);
	for (i = 0; i <= 65536 && (i % 128 != 0 || vd__conn_pump(conn) == 0);
	    i++)
		v_send(peer, 0, VD_CMD_DEVICE_RESET, NULL, 0);
	fails(vd__conn_pump(conn), EPROTO, "nobody is queued for ever");
	ok(i == 65537, "after %u", i);
	fails(await(&call), EPROTO, "which ends what waits");
	end();

	begin(&waking);
	data = pattern(64 << 10, 1);
	for (i = 0; i < 1024; i++) {
		must(v_send(peer, 0, VD_CMD_REGION_WRITE, data, 64 << 10));
		if (vd__conn_pump(conn) == -1)
			break;
	}
	ok(i > 200 && i < 280, "no more than about 16 MiB is kept (%u)", i);
	free(data);
	end();
}

static void
test_twin(void)
{
	struct vd__call call = { 0 };
	struct vd__msg m;
	struct vd_hdr h;
	unsigned int i;

	begin_twin(&waking, true);
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(twin, &h));
	for (i = 0; i < 100; i++)
		must(v_send(peer, 0, VD_CMD_DEVICE_RESET, NULL, 0));
	must(answer(twin, &h, NULL, 0));
	works(await(&call), "a call goes by the twin");
	for (i = 0; vd__conn_next(conn, &m) == 1; i++) {
		must(vd__conn_reply(conn, &m, NULL, 0, NULL, 0) == 0);
		vd__msg_close(&m);
		must(skip_message(peer, &h));
	}
	is_int(i, 100, "commands come and are answered by the socket");
	must(v_send(twin, 0, VD_CMD_DEVICE_RESET, NULL, 0));
	is_int(vd__conn_next(conn, &m), 0, "what nobody waits for stays");
	ok(!vd__conn_ready(conn), "and nobody is told of it");
	must(start(&call, NULL, 0, 5000) == 0);
	fails(await(&call), EPROTO, "a command by the wrong one is an end");
	end();

	begin_twin(&waking, true);
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(twin, &h) &&
	    answer(peer, &h, NULL, 0));
	is_int(vd__conn_next(conn, &m), 1, "an answer by the wrong one");
	ok((m.hdr.flags & VD_TYPE_MASK) == VD_TYPE_REPLY, "answers nothing");
	vd__msg_close(&m);
	end();
	begin_twin(&waking, true);
	must(start(&call, NULL, 0, 5000) == 0);
	close(twin);
	twin = -1;
	fails(await(&call), ENOTCONN, "the end of a twin is the end of all");
	end();

	/* A client's. */
	begin_twin(&serving, false);
	reset(10);
	call = (struct vd__call){ 0 };
	must(start(&call, NULL, 0, 5000) == 0 && skip_message(peer, &h));
	must(v_send(twin, 0, VD_CMD_DMA_READ, "\0\0\0\0", 4) &&
	    answer(peer, &h, NULL, 0));
	works(await(&call), "commands by the twin");
	if (served == 0)
		must(vd__conn_run(conn, 5000) == 1);
	must(skip_message(twin, &h));
	is_int(h.size, 26, "are answered there");
	must(answer(twin, &h, NULL, 0));
	fails(vd__conn_run(conn, 5000), EPROTO, "an answer there is an end");
	end();
}

/* --- both ends stuffed --------------------------------------------------- */

struct side {
	struct vd__conn *conn;
	_Atomic(unsigned int) bad;
	_Atomic(unsigned int) busy;		/* threads that call, of both */
	struct side *other;
	pthread_t th[4];
};

static void
echo(void *arg, struct vd__msg *m)
{
	struct side *s = arg;
	struct iovec iov = iov_of(m->data, m->len);

	vd__conn_reply(s->conn, m, &iov, m->len > 0, NULL, 0);
}

static void *
stuffer(void *arg)
{
	static _Atomic(unsigned int) seed;
	struct side *s = arg;
	uint8_t *data = pattern(LARGE, seed++), *buf = malloc(LARGE);
	struct iovec iov = iov_of(data, LARGE);
	unsigned int i;

	must(buf != NULL);
	for (i = 0; i < 8; i++) {
		struct vd__call call = { .data = buf, .data_len = LARGE };

		memset(buf, 0, LARGE);
		if (vd__conn_send(s->conn, &call, VD_CMD_REGION_READ, &iov, 1,
		    NULL, 0, 30000) == -1 ||
		    vd__conn_await(s->conn, &call) == -1) {
			s->bad++;
			continue;
		}
		s->bad += !call.placed || memcmp(buf, data, LARGE) != 0;
		vd__msg_close(&call.reply);
		s->bad += vd__conn_post(s->conn, VD_CMD_REGION_WRITE, &iov, 1,
		    NULL, 0, 30000) == -1;
	}
	free(data);
	free(buf);
	s->busy--;
	return (NULL);
}

/* Serves until nobody calls any more. */
static void *
runner(void *arg)
{
	struct side *s = arg;
	struct pollfd pfd[2] = {
		{ .fd = vd__conn_fd(s->conn), .events = POLLIN },
		{ .fd = vd__conn_twin_fd(s->conn), .events = POLLIN },
	};

	while (s->busy + s->other->busy > 0) {
		poll(pfd, 2, 5);
		s->bad += vd__conn_run(s->conn, 30000) == -1;
	}
	return (NULL);
}

static void
stuff(bool forced, bool twins, const char *name)
{
	static const struct vd__conn_ops ops = { .serve = echo };
	struct side s[2] = { { .other = &s[1] }, { .other = &s[0] } };
	int sv[2], tw[2], i, j;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, tw) == 0);
	for (i = 0; i < 2; i++) {
		must((s[i].conn = vd__conn_create(sv[i], 0)) != NULL);
		vd__conn_set_ops(s[i].conn, &ops, &s[i]);
		vd__conn_set_forced(s[i].conn, forced);
		if (twins)
			must(vd__conn_set_twin(s[i].conn, tw[i], i == 0) == 0);
		else
			close(tw[i]);
		s[i].busy = 3;
	}
	for (i = 0; i < 2; i++) {
		for (j = 0; j < 3; j++)
			must(pthread_create(&s[i].th[j], NULL, stuffer,
			    &s[i]) == 0);
		must(pthread_create(&s[i].th[3], NULL, runner, &s[i]) == 0);
	}
	for (i = 0; i < 2; i++)
		for (j = 0; j < 4; j++)
			join(s[i].th[j]);
	is_int(s[0].bad + s[1].bad, 0, "1 MiB back and forth, %s", name);
	vd__conn_destroy(s[0].conn);
	vd__conn_destroy(s[1].conn);
}

/* --- the server around it ------------------------------------------------ */

/* Runs of a server that is said to have something to do, in ms. */
static unsigned int
runs(struct vd_server *s, int ms)
{
	int64_t until = vd__now_ms() + ms;
	unsigned int n = 0;

	while (vd__now_ms() < until && n < 1000)
		if (v_readable(vd_server_fd(s), 5)) {
			n++;
			if (vd_server_run(s) == -1)
				break;
		}
	return (n);
}

static void
test_server(void)
{
	static const char hello[] = "\0\0\1\0{\"capabilities\":{"
	    "\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}"
	    "                                                        ";
	struct vd__call call = { .done = done_ok };
	struct v_reply r;
	struct v_dev d;
	int sv[2];

	v_dev_create(&d);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(d.s, sv[1]) == 0);
	must(v_call(d.s, sv[0], VD_CMD_VERSION, hello, sizeof(hello), &r));
	ok(r.nfds == 1, "a server makes a twin");
	must(v_send(r.fds[0], 0, VD_CMD_DEVICE_RESET, NULL, 0) &&
	    v_send(r.fds[0], 0, VD_CMD_DEVICE_RESET, NULL, 0));
	ok(runs(d.s, 50) < 10, "it does not run for what comes there unasked");
	v_close_fds(&r);
	ok(runs(d.s, 50) < 10, "nor for its end");
	must(v_call(d.s, sv[0], VD_CMD_DEVICE_RESET, NULL, 0, &r));
	is_int(v_errno(&r), 0, "and goes on");
	finished = wrong = 0;
	vd__conn_send(d.s->conn, &call, VD_CMD_DMA_READ, NULL, 0, NULL, 0,
	    1000);
	vd__server_wake(d.s);
	v_serve(d.s, 0);
	is_int(wrong, 1, "until it has something to ask");
	ok(!vd_server_connected(d.s), "which ends it");
	close(sv[0]);

	/* Calls under way, and a full queue. */
	must(vd_server_set_limits(d.s, &(struct vd_server_limits){
	    .max_queued = 4096, .no_twin = true }) == 0);
	sv[0] = v_attach(d.s);
	call = (struct vd__call){ .done = done_ok };
	finished = wrong = 0;
	must(vd__conn_send(d.s->conn, &call, VD_CMD_DMA_READ, NULL, 0, NULL,
	    0, 5000) == 0);
	vd__server_wake(d.s);
	{
		const struct vd_region_access a = { 0x1000, 0, 4096 };
		struct vd_hdr h;

		must(skip_message(sv[0], &h));
		while (!vd__conn_full(d.s->conn)) {
			must(v_send(sv[0], 0, VD_CMD_REGION_READ, &a,
			    sizeof(a)));
			v_serve(d.s, 0);
		}
		ok(runs(d.s, 50) < 10, "a server with a full queue sleeps");
		must(v_send(sv[0], 0, VD_CMD_REGION_READ, &a, sizeof(a)));
		must(answer(sv[0], &h, NULL, 0));
		v_serve(d.s, 0);
		is_int(finished, 1, "and hears what it has asked for");
	}
	close(sv[0]);
	v_serve(d.s, 0);
	v_dev_destroy(&d);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_early();
	test_late();
	test_cancel();
	test_done();
	test_threads();
	test_close();
	test_buffered();
	test_answers();
	test_order();
	test_nested();
	test_queue();
	test_twin();
	stuff(false, false, "one socket");
	stuff(true, false, "forced through the queues");
	stuff(false, true, "with a twin");
	stuff(true, true, "both");
	test_server();
	free(blob);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
