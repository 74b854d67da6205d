/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Memory that a client takes back while the device is at it by message: what
 * the reply waits for, and for how long.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define BASE	0x10000u
#define SIZE	0x200000u
#define ELSE	0x800000u	/* as much, which stays */
#define QUIET	60		/* ms in which nothing comes */
#define TIME	400		/* ms for an answer, if the test waits for it */
#define SOON	1500		/* ms, fewer than there are for an answer */

static struct v_dev dev;
static struct mt_space *sp;
static int fd, twin;			/* twin: -1 if there is none */
static unsigned int before;

/* --- accesses ------------------------------------------------------------ */

static struct job {
	struct mt_access acc;
	uint8_t *buf;
	int done;
	enum mt_result res;
} jobs[64];

static void
job_done(void *arg, enum mt_result res)
{
	struct job *j = arg;

	j->done++;
	j->res = res;
}

static void
submit(struct job *j, uint64_t addr, size_t len, bool is_write)
{
	j->done = 0;
	free(j->buf);
	must((j->buf = malloc(len)) != NULL);
	memset(j->buf, 0x5a, len);
	must(mt_access_submit(sp, &j->acc, addr, j->buf, len, is_write,
	    MT_ATTRS_NONE, job_done, j) == 0);
	v_serve(dev.s, 0);
}

/* The device gives up what it has begun, as it is told to. */
static bool cancels;
static struct vd_device_ops ops;

static void
unmap(void *arg, struct mt_range range)
{
	size_t i;

	(void)arg;
	(void)range;
	for (i = 0; cancels && i < T_COUNT(jobs); i++)
		if (jobs[i].buf != NULL)
			mt_access_cancel(&jobs[i].acc);
}

static void
reset(struct v_dev *d, enum vd_reset why)
{
	(void)why;
	unmap(d, (struct mt_range){ 0, 0 });
}

/* --- the client ---------------------------------------------------------- */

static void
call(uint16_t cmd, const void *payload, size_t len)
{
	struct v_reply r;

	must(v_call(dev.s, fd, cmd, payload, len, &r) && v_errno(&r) == 0);
	v_close_fds(&r);
}

static void
write_config(uint32_t off, uint16_t val)
{
	struct { struct vd_region_access a; uint16_t val; } w =
	    { { off, VD_REGION_CONFIG, 2 }, val };

	must(v_send(fd, 3, VD_CMD_REGION_WRITE, &w, 18));
}

static void
map(uint64_t addr)
{
	const struct vd_dma_map m = { sizeof(m), 3, 0, addr, SIZE };

	call(VD_CMD_DMA_MAP, &m, sizeof(m));
}

static void
begin(bool with_twin, uint32_t timeout_ms)
{
	static const char hello[] = "\0\0\1\0{\"capabilities\":{"
	    "\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}"
	    "                                                        ";
	struct v_reply r;
	int sv[2];

	before = t_count_fds();
	v_dev_create(&dev);
	ops = *dev.s->ops;
	ops.dma_unmap = unmap;
	dev.s->ops = &ops;
	dev.on_reset = reset;
	sp = vd_server_dma(dev.s);
	must(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .dma_timeout_ms = timeout_ms, .no_twin = !with_twin }) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	fd = sv[0];
	must(v_call(dev.s, fd, VD_CMD_VERSION, hello, sizeof(hello), &r) &&
	    v_errno(&r) == 0 && r.nfds == with_twin);
	twin = with_twin ? r.fds[0] : -1;
	write_config(4, 6);
	must(v_serve_until(dev.s, fd) && v_recv(fd, &r) && v_errno(&r) == 0);
	map(BASE);
	map(ELSE);
	cancels = false;
}

static void
end(void)
{
	size_t i;

	if (fd != -1)
		close(fd);
	if (twin != -1)
		close(twin);
	v_serve(dev.s, 0);
	must(mt_access_drain(sp) == 0);
	for (i = 0; i < T_COUNT(jobs); i++) {
		free(jobs[i].buf);
		jobs[i].buf = NULL;
	}
	v_dev_destroy(&dev);
	is_int(t_count_fds(), before, "nor a descriptor is left");
}

static void
send_unmap(uint64_t addr)
{
	const struct vd_dma_unmap m = { sizeof(m), 0, addr, SIZE };

	must(v_send(fd, 9, VD_CMD_DMA_UNMAP, &m, sizeof(m)));
	v_serve(dev.s, 0);
}

/* What asks for memory back. */
enum how { UNMAP, RESET, FLR, HOWS };

static const char *const how_names[] = { "an unmap", "a reset", "an FLR" };

static void
ask(enum how how)
{
	if (how == UNMAP) {
		send_unmap(BASE);
		return;
	}
	if (how == RESET)
		must(v_send(fd, 9, VD_CMD_DEVICE_RESET, NULL, 0));
	else
		write_config(dev.s->pci.express_cap + VD__EXPRESS_DEVCTL,
		    0x8000);
	v_serve(dev.s, 0);
}

static bool
is_command(const struct v_reply *r, uint16_t cmd)
{
	return ((r->hdr.flags & VD_TYPE_MASK) == VD_TYPE_COMMAND &&
	    r->hdr.cmd == cmd);
}

/* Take a DMA command, which is there. */
static void
take(uint16_t cmd, struct v_reply *r)
{
	must(v_recv(twin != -1 ? twin : fd, r));
	must(is_command(r, cmd));
}

static void
answer(const struct v_reply *cmd)
{
	struct vd_dma_access a;
	static uint8_t buf[sizeof(a) + (1 << 20)];
	size_t len = sizeof(a);

	memcpy(&a, cmd->data, sizeof(a));
	memcpy(buf, &a, sizeof(a));
	if (cmd->hdr.cmd == VD_CMD_DMA_READ) {
		memset(buf + len, 0xc1, (size_t)a.count);
		len += (size_t)a.count;
	}
	must(v_send_fds(twin != -1 ? twin : fd, cmd->hdr.id, cmd->hdr.cmd,
	    VD_TYPE_REPLY, buf, len, NULL, 0));
	v_serve(dev.s, 0);
}

/* Nothing is answered, though the server is given time. */
static void
is_held(const char *what)
{
	v_serve(dev.s, QUIET);
	ok(!v_readable(fd, 0), "%s is not answered", what);
}

/* It is answered, and nothing else is. */
static void
is_answered(const char *when)
{
	struct v_reply r;

	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && v_errno(&r) == 0,
	    "it is answered %s", when);
}

/* The client is as good as before. */
static void
is_good(void)
{
	struct v_reply r;

	call(VD_CMD_DEVICE_GET_INFO, "\x10\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
	write_config(4, 6);
	must(v_serve_until(dev.s, fd) && v_recv(fd, &r) && v_errno(&r) == 0);
	submit(&jobs[0], ELSE, 100, false);
	take(VD_CMD_DMA_READ, &r);
	answer(&r);
	ok(jobs[0].done == 1 && jobs[0].res == MT_OK, "all goes on well");
}

/* --- writes -------------------------------------------------------------- */

static void
test_cancelled(bool with_twin, enum how how)
{
	struct v_reply w;

	begin(with_twin, 0);
	cancels = true;
	submit(&jobs[0], BASE, 4096, true);
	take(VD_CMD_DMA_WRITE, &w);
	ask(how);
	is_int(jobs[0].done, 0, "a write is given up");
	is_held(how_names[how]);
	answer(&w);
	is_answered("when the client has written");
	is_good();
	end();
}

/* As before, but the time for an answer is over before. */
static void
test_timed_out(bool waits)
{
	static const uint8_t buf[4096];
	struct v_reply w, r;
	int64_t start;

	begin(true, TIME);
	if (waits) {
		is_hex(mt_space_write(sp, BASE, buf, sizeof(buf),
		    MT_ATTRS_NONE), MT_DEVICE, "a write that waits");
	} else {
		submit(&jobs[0], BASE, 4096, true);
		while (jobs[0].done == 0)
			v_serve(dev.s, QUIET);
		is_hex(jobs[0].res, MT_DEVICE, "a write that is submitted");
	}
	take(VD_CMD_DMA_WRITE, &w);
	start = t_now_ms();
	submit(&jobs[1], ELSE, 100, false);
	take(VD_CMD_DMA_READ, &r);
	while (jobs[1].done == 0 && t_now_ms() - start < SOON)
		v_serve(dev.s, QUIET);
	ok(jobs[1].done == 1 && jobs[1].res == MT_DEVICE,
	    "others that are not answered end in their time");
	ask(UNMAP);
	is_held("an unmap, when it has timed out,");
	answer(&w);
	is_answered("when the client has written");
	is_good();
	end();
}

/* What the client has not heard of is not waited for. */
static void
test_unsent(void)
{
	struct vd_dma_access a;
	struct v_reply w;
	unsigned int n = 0;
	size_t i;

	begin(true, 0);
	cancels = true;
	for (i = 0; i < 4; i++)
		submit(&jobs[i], BASE, 1 << 20, true);
	must(vd__conn_queued(dev.s->conn) > 3u << 20);
	ask(UNMAP);
	is_held("an unmap with a write in the middle of the socket");
	for (;;) {
		/* A message comes in pieces. */
		if (!v_readable(twin, QUIET))
			break;
		must(v_get(twin, &w.hdr, sizeof(w.hdr)));
		must(v_get(twin, &a, sizeof(a)));
		for (i = 0; i < a.count; i += 1024) {
			must(v_get(twin, w.data, 1024));
			v_serve(dev.s, 0);
		}
		n++;
		memcpy(w.data, &a, sizeof(a));
		ok(!v_readable(fd, 0), "it is not over");
		answer(&w);
	}
	is_int(n, 1, "the client hears of no other");
	is_answered("then");
	is_good();
	end();
}

static void
test_gone(void)
{
	struct v_reply w;

	begin(true, 0);
	cancels = true;
	submit(&jobs[0], BASE, 4096, true);
	take(VD_CMD_DMA_WRITE, &w);
	ask(UNMAP);
	is_held("an unmap");
	close(fd);
	fd = -1;
	is_int(v_serve(dev.s, QUIET), -1, "a client that goes is waited for "
	    "no more");
	end();
}

/* With one socket, a client that serves nothing before it has its answer. */
static void
test_unanswered(bool cancelled)
{
	struct v_reply w, r;
	int64_t start, ms;

	begin(false, TIME);
	cancels = cancelled;
	submit(&jobs[0], BASE, 4096, true);
	take(VD_CMD_DMA_WRITE, &w);
	start = t_now_ms();
	ask(UNMAP);
	is_answered("though a write is not");
	ms = t_now_ms() - start;
	ok(ms >= TIME - QUIET && ms < SOON,
	    "once there was time to do that: %d ms", (int)ms);
	is_int(jobs[0].done, !cancelled, "as the device was told");
	answer(&w);
	is_good();
	/* What comes after it is not for ever without its time. */
	cancels = true;
	map(BASE);
	submit(&jobs[1], BASE, 4096, true);
	take(VD_CMD_DMA_WRITE, &w);
	ask(UNMAP);
	is_held("the next");
	answer(&w);
	must(v_serve_until(dev.s, fd) && v_recv(fd, &r));
	end();
}

/* --- reads --------------------------------------------------------------- */

static void
test_reads(enum how how)
{
	struct v_reply r[4];
	int64_t start;
	size_t i, bad = 0;

	begin(false, 0);
	diag("%s, one socket", how_names[how]);
	for (i = 0; i < 4; i++) {
		submit(&jobs[i], BASE + i * 0x4000, 0x4000, false);
		take(VD_CMD_DMA_READ, &r[i]);
	}
	submit(&jobs[4], ELSE, 100, false);
	must(v_recv(fd, &r[3]) && is_command(&r[3], VD_CMD_DMA_READ));
	start = t_now_ms();
	ask(how);
	is_held(how_names[how]);
	answer(&r[0]);
	is_int(jobs[0].done, 1, "what the client serves meanwhile ends");
	is_hex(jobs[0].res, MT_OK, "well");
	is_answered("though it does not serve the rest");
	ok(t_now_ms() - start < SOON, "soon");
	for (i = 1; i < 4; i++) {
		bad += jobs[i].done != 1 || jobs[i].res != MT_DEVICE;
		memset(jobs[i].buf, 0x77, 0x4000);
	}
	is_int(bad, 0, "which is a bus error to the device");
	is_int(jobs[4].done, how != UNMAP, "%s", how == UNMAP ?
	    "memory that stays is still read" : "all memory is asked for");
	answer(&r[1]);
	answer(&r[2]);
	for (i = 1; i < 4; i++)
		bad += jobs[i].done != 1 || jobs[i].buf[0] != 0x77 ||
		    jobs[i].buf[0x3fff] != 0x77;
	is_int(bad, 0, "late answers touch nothing");
	answer(&r[3]);
	if (how == UNMAP)
		ok(jobs[4].done == 1 && jobs[4].res == MT_OK &&
		    jobs[4].buf[99] == 0xc1, "and ends well");
	end();
}

/* With a twin the client can answer both, so it has all the time. */
static void
test_reads_by_twin(void)
{
	struct v_reply r;
	int64_t start;

	begin(true, 0);
	submit(&jobs[0], BASE, 4096, false);
	take(VD_CMD_DMA_READ, &r);
	ask(UNMAP);
	for (start = t_now_ms(); t_now_ms() - start < TIME;)
		v_serve(dev.s, QUIET);
	is_held("with a twin an unmap");
	is_int(jobs[0].done, 0, "nor is a read given up");
	answer(&r);
	is_answered("when that has been answered");
	ok(jobs[0].done == 1 && jobs[0].res == MT_OK, "well");
	is_good();
	end();
}

/* --- accesses that wait -------------------------------------------------- */

static struct { uint64_t addr; _Atomic(bool) over; enum mt_result res; } reader;

static void *
read_it(void *arg)
{
	uint8_t buf[4096];

	(void)arg;
	reader.res = mt_space_read(sp, reader.addr, buf, sizeof(buf),
	    MT_ATTRS_NONE);
	reader.over = true;
	vd__server_wake(dev.s);
	return (NULL);
}

/* addr is taken back, or not: who waits for a read keeps memory all the same. */
static void
test_waits(uint64_t addr, const char *name)
{
	struct v_reply r;
	pthread_t thread;
	int64_t start;

	begin(false, 0);
	reader.addr = addr;
	reader.over = false;
	must(pthread_create(&thread, NULL, read_it, NULL) == 0);
	must(v_readable(fd, 5000));
	take(VD_CMD_DMA_READ, &r);
	start = t_now_ms();
	ask(UNMAP);
	is_answered("though a thread waits");
	ok(t_now_ms() - start < SOON, "for %s, soon", name);
	must(pthread_join(thread, NULL) == 0);
	is_hex(reader.res, MT_DEVICE, "with an error for the thread");
	answer(&r);
	is_good();
	end();
}

/* --- a device of one thread ---------------------------------------------- */

static enum mt_result
read_alone(size_t len, int64_t *ms)
{
	static uint8_t buf[SIZE];
	int64_t start = t_now_ms();
	enum mt_result res;

	res = mt_space_read(sp, ELSE, buf, len, MT_ATTRS_NONE);
	*ms = t_now_ms() - start;
	return (res);
}

static void
ask_for_config(uint32_t flags)
{
	const struct vd_region_access a = { 0, VD_REGION_CONFIG, 4 };

	must(v_send_fds(fd, 5, VD_CMD_REGION_READ, VD_TYPE_COMMAND | flags, &a,
	    sizeof(a), NULL, 0));
}

/* Drop what the client has received. */
static void
drop_input(void)
{
	static uint8_t sink[8192];

	while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
		continue;
}

/* Who would answer the command waits for the read. */
static void
test_alone(void)
{
	struct v_reply w;
	enum mt_result res;
	int64_t ms;

	begin(false, 0);
	ask_for_config(0);
	res = read_alone(SIZE, &ms);
	ok(res == MT_DEVICE && ms < SOON, "a read on the thread that would "
	    "serve the client ends: %d ms", (int)ms);
	ok(ms >= QUIET, "though not at once");
	drop_input();
	is_answered("then");
	end();

	begin(false, TIME);
	ask_for_config(VD_NO_REPLY);
	res = read_alone(100, &ms);
	ok(res == MT_DEVICE && ms >= TIME - 1, "nobody waits for what is "
	    "posted: %d ms", (int)ms);
	end();

	/* Memory that is taken back is waited for, and the thread reads. */
	begin(false, 0);
	submit(&jobs[0], BASE, 100, true);
	take(VD_CMD_DMA_WRITE, &w);
	ask(UNMAP);
	res = read_alone(100, &ms);
	ok(res == MT_DEVICE && ms < SOON, "nor does it end late if it begins "
	    "when the client waits: %d ms", (int)ms);
	drop_input();
	answer(&w);
	is_answered("then");
	end();
}

static void *
write_it(void *arg)
{
	static const uint8_t buf[100];

	(void)arg;
	is_hex(mt_space_write(sp, ELSE, buf, sizeof(buf), MT_ATTRS_NONE),
	    MT_OK, "another waits for what it writes");
	return (NULL);
}

/* Another thread receives the command. */
static void
test_not_alone(void)
{
	struct v_reply w;
	enum mt_result res;
	pthread_t thread;
	int64_t ms;

	begin(false, 0);
	must(pthread_create(&thread, NULL, write_it, NULL) == 0);
	must(v_readable(fd, 5000));
	take(VD_CMD_DMA_WRITE, &w);
	ask_for_config(0);
	res = read_alone(100, &ms);
	ok(res == MT_DEVICE && ms < SOON, "a thread that reads ends: %d ms",
	    (int)ms);
	drop_input();
	answer(&w);
	must(pthread_join(thread, NULL) == 0);
	is_answered("then");
	end();
}

/* Reads for which no call is free, as all are out for other memory. */
static void
test_queued(void)
{
	static struct job many[800];
	unsigned int i, out;
	struct v_reply r;
	uint8_t *sent;
	int64_t start;

	begin(false, 0);
	for (i = 0; i < T_COUNT(many); i++)
		submit(&many[i], i < 790 ? ELSE + i * 64 : BASE, 64, false);
	start = t_now_ms();
	ask(UNMAP);
	must((sent = calloc(T_COUNT(many), sizeof(struct v_reply))) != NULL);
	for (out = 0;; out++) {
		must(v_serve_until(dev.s, fd) && v_recv(fd, &r));
		if (!is_command(&r, VD_CMD_DMA_READ))
			break;
		memcpy(sent + out * sizeof(r), &r, sizeof(r));
	}
	is_int(r.hdr.cmd, VD_CMD_DMA_UNMAP, "an unmap is answered");
	ok(out < 790 && t_now_ms() - start < SOON,
	    "soon, though %u reads are out and others wait", out);
	for (i = 790; i < T_COUNT(many); i++)
		must(many[i].done == 1 && many[i].res == MT_DEVICE);
	ok(many[0].done == 0 && many[789].done == 0, "for memory that stays");
	for (i = 0; i < out; i++) {
		memcpy(&r, sent + i * sizeof(r), sizeof(r));
		answer(&r);
	}
	free(sent);
	while (many[789].done == 0) {
		must(v_serve_until(dev.s, fd) && v_recv(fd, &r));
		answer(&r);
	}
	is_hex(many[0].res | many[789].res, MT_OK, "where all are served");
	for (i = 0; i < T_COUNT(many); i++)
		free(many[i].buf);
	is_good();
	end();
}

int
main(void)
{
	enum how how;

	for (how = UNMAP; how < HOWS; how++) {
		test_cancelled(true, how);
		test_cancelled(false, how);
		test_reads(how);
	}
	test_timed_out(false);
	test_timed_out(true);
	test_unsent();
	test_gone();
	test_unanswered(true);
	test_unanswered(false);
	test_reads_by_twin();
	test_waits(BASE, "memory that is taken back");
	test_waits(ELSE, "other memory");
	test_queued();
	test_alone();
	test_not_alone();
	return (done());
}
