/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Clients that a server waits for, and that do nothing: it does so for a time,
 * as their end may lie in a socket that is not read, and nothing else tells
 * that they are dead.
 */

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define TIME	200		/* ms that a client has */
#define PAGE	4096u
#define BASE	0x10000u

static struct v_dev dev;
static char dir[] = "/tmp/vfudma-stuck.XXXXXX", path[64];
static int fd, twin;

static void
begin(bool with_twin, uint32_t ms)
{
	static const char hello[] = "\0\0\1\0{\"capabilities\":{"
	    "\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}"
	    "                                                        ";
	struct mt_region *ram;
	struct v_reply r;

	v_dev_create(&dev);
	ram = t_ram(dev.t, "ram", 1 << 20);
	must(vd_pci_set_bar(dev.s, 5, ram, 0) == 0);
	mt_region_put(ram);
	must(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .max_queued = 16 * PAGE, .no_twin = !with_twin,
	    .dma_timeout_ms = TIME, .stall_timeout_ms = ms }) == 0);
	must(vd_server_listen(dev.s, path) == 0);
	must((fd = v_connect(path)) != -1);
	must(v_call(dev.s, fd, VD_CMD_VERSION, hello, sizeof(hello), &r) &&
	    v_errno(&r) == 0 && r.nfds == with_twin);
	twin = with_twin ? r.fds[0] : -1;
}

static void
end(void)
{
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

/* The client is gone, but its ends are in the socket. */
static void
die(void)
{
	const int ends[2] = { fd, twin };

	must(v_send_fds(fd, 0, VD_CMD_DEVICE_RESET, VD_TYPE_COMMAND, NULL, 0,
	    ends, twin != -1 ? 2 : 1));
	close(fd);
	if (twin != -1)
		close(twin);
}

/* The next one gets in when the time of this one is up, and not before. */
static void
is_dropped(const char *what)
{
	int64_t start = t_now_ms(), ms;
	struct v_reply r;
	int next;

	must((next = v_connect(path)) != -1);
	must(v_send(next, 1, VD_CMD_VERSION, "\0\0\1\0", 4));
	ok(v_serve_until(dev.s, next) && v_recv(next, &r) && v_errno(&r) == 0,
	    "%s keeps nobody out", what);
	ms = t_now_ms() - start;
	ok(ms >= TIME / 2, "for longer than it may: %d ms", (int)ms);
	close(next);
	v_serve(dev.s, 0);
}

/* Ask for more than is kept. */
static void
fill_queue(void)
{
	const struct vd_region_access a = { 0, VD_REGION_CONFIG, PAGE };

	while (!vd__conn_full(dev.s->conn)) {
		must(v_send(fd, 0, VD_CMD_REGION_READ, &a, sizeof(a)));
		v_serve(dev.s, 0);
	}
}

static void
test_unread(void)
{
	begin(false, TIME);
	fill_queue();
	die();
	is_dropped("one that reads nothing");
	end();
}

/* One that reads, if slowly, stays: of one answer, a little at a time. */
static void
test_slow(void)
{
	const struct vd_region_access a = { 0, 5, 1 << 20 };
	static uint8_t buf[32 << 10];
	int64_t start, ms;

	begin(false, 3 * TIME);
	must(v_send(fd, 0, VD_CMD_REGION_READ, &a, sizeof(a)));
	v_serve(dev.s, 0);
	for (start = t_now_ms(); vd_server_connected(dev.s) &&
	    vd__conn_full(dev.s->conn);) {
		v_serve(dev.s, TIME / 3);
		must(recv(fd, buf, sizeof(buf), 0) > 0);
		v_serve(dev.s, 0);
	}
	ms = t_now_ms() - start;
	ok(ms > 5 * TIME, "one that reads for %d ms", (int)ms);
	ok(vd_server_connected(dev.s), "stays");
	close(fd);
	end();
}

/* Give the device a page, with a descriptor or none. */
static void
map(const int *mem, size_t nfds)
{
	const struct vd_dma_map m = { sizeof(m), 3, 0, BASE, PAGE };
	struct { struct vd_region_access a; uint16_t val; } w =
	    { { 4, VD_REGION_CONFIG, 2 }, 6 };
	struct v_reply r;

	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, &w, 18, &r) &&
	    v_errno(&r) == 0);
	must(v_call_fds(dev.s, fd, VD_CMD_DMA_MAP, &m, sizeof(m), mem, nfds,
	    &r) && v_errno(&r) == 0);
}

static void
send_unmap(void)
{
	const struct vd_dma_unmap m = { sizeof(m), 0, BASE, PAGE };

	must(v_send(fd, 1, VD_CMD_DMA_UNMAP, &m, sizeof(m)));
}

/* Nor is it the client's fault if the device takes its time. */
static void
test_device(void)
{
	int mem = v_memfd(PAGE);
	struct mt_mapping m;
	struct v_reply r;

	begin(false, TIME);
	map(&mem, 1);
	must(mt_dma_map(vd_server_dma(dev.s), BASE, PAGE, MT_DMA_READ,
	    MT_ATTRS_NONE, &m) == 0);
	send_unmap();
	v_serve(dev.s, 2 * TIME);
	ok(vd_server_connected(dev.s), "nor does a device that takes its time");
	must(mt_dma_unmap(&m, 0) == 0);
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && v_errno(&r) == 0,
	    "end its client, which is answered");
	close(mem);
	close(fd);
	end();
}

static int ended;
static struct mt_access acc;

static void
acc_done(void *arg, enum mt_result res)
{
	(void)arg;
	(void)res;
	ended++;
}

/* A write that is not answered keeps memory, until the client is gone. */
static void
test_write(void)
{
	static uint8_t buf[PAGE];

	begin(true, TIME);
	map(NULL, 0);
	must(mt_access_submit(vd_server_dma(dev.s), &acc, BASE, buf, PAGE, true,
	    MT_ATTRS_NONE, acc_done, NULL) == 0);
	v_serve(dev.s, 0);
	must(mt_access_cancel(&acc));
	send_unmap();
	v_serve(dev.s, 0);
	die();
	is_dropped("one that does not answer what its command waits for");
	is_int(ended, 0, "what was given up has not ended");
	end();
}

/* It does not do worse with other things that time ends. */
static void
test_read(void)
{
	static uint8_t buf[PAGE];
	int64_t start;

	begin(true, 50 * TIME);
	map(NULL, 0);
	fill_queue();
	v_serve(dev.s, 0);
	ended = 0;
	must(mt_access_submit(vd_server_dma(dev.s), &acc, BASE, buf, PAGE,
	    false, MT_ATTRS_NONE, acc_done, NULL) == 0);
	for (start = t_now_ms(); ended == 0 && t_now_ms() - start < 10 * TIME;)
		v_serve(dev.s, TIME / 4);
	is_int(ended, 1, "a read that is not answered ends in its own time");
	ok(vd_server_connected(dev.s), "while the client has more");
	close(fd);
	close(twin);
	end();
}

int
main(void)
{
	unsigned int before = t_count_fds();

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	test_unread();
	test_slow();
	test_device();
	test_write();
	test_read();
	rmdir(dir);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
