/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A device that waits for its client's memory inside a command of the client,
 * by a twin socket, while that answers, keeps silent, asks for more, or leaves.
 * The device is told of a loss when its callback is over, and not before.
 */

#include <pthread.h>

#include "t/vfu.h"

#define PAGE	0x1000u
#define TIME	100		/* ms for an answer */

enum manner { ANSWER, SILENT, PIPELINE, CLOSE_TWIN, CLOSE_BOTH };

static struct v_dev dev;
static struct mt_region *bar;
static int fd, twin;
static bool inside, told_inside;
static enum mt_result res;
static uint64_t got;

static enum mt_result
hook(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)val;
	(void)attrs;
	inside = true;
	res = mt_space_read(vd_server_dma(dev.s), 0x40, &got, sizeof(got),
	    MT_ATTRS_NONE);
	inside = false;
	return (res);
}

static void
was_reset(struct v_dev *d, enum vd_reset why)
{
	(void)d;
	(void)why;
	told_inside = told_inside || inside;
}

/* What the client does about the DMA_READ. */
static void *
client(void *arg)
{
	const struct vd_region_access read = { 0, VD_REGION_CONFIG, 4 };
	struct { struct vd_dma_access a; uint64_t val; } answer =
	    { { 0x40, 8 }, 0x1122334455667788 };
	enum manner manner = *(enum manner *)arg;
	struct v_reply r;
	unsigned int i;

	must(v_readable(twin, 5000) && v_recv(twin, &r));
	must(r.hdr.cmd == VD_CMD_DMA_READ);
	switch (manner) {
	case PIPELINE:
		for (i = 0; i < 100; i++)
			must(v_send(fd, (uint16_t)i, VD_CMD_REGION_READ,
			    &read, sizeof(read)));
		/* FALLTHROUGH */
	case ANSWER:
		must(v_send_fds(twin, r.hdr.id, r.hdr.cmd, VD_TYPE_REPLY,
		    &answer, sizeof(answer), NULL, 0));
		break;
	case CLOSE_BOTH:
		shutdown(fd, SHUT_RDWR);
		/* FALLTHROUGH */
	case CLOSE_TWIN:
		shutdown(twin, SHUT_RDWR);
		break;
	case SILENT:
		break;
	}
	return (NULL);
}

static void
begin(void)
{
	static const struct mt_io_ops ops = { .write = hook };
	static const char version[] = "\0\0\1\0{\"capabilities\":{"
	    "\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}}}"
	    "                                                        ";
	const struct vd_dma_map map = { sizeof(map), 3, 0, 0, PAGE };
	struct { struct vd_region_access a; uint16_t val; } master =
	    { { 4, VD_REGION_CONFIG, 2 }, 6 };
	struct v_reply r;
	int sv[2];

	v_dev_create(&dev);
	dev.on_reset = was_reset;
	must((bar = mt_region_create_io(dev.t, "hook", MT_SIZE(PAGE), &ops,
	    NULL)) != NULL);
	must(vd_pci_set_bar(dev.s, 5, bar, 0) == 0);
	must(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .dma_timeout_ms = TIME }) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	fd = sv[0];
	must(v_call(dev.s, fd, VD_CMD_VERSION, version, sizeof(version), &r));
	must(v_errno(&r) == 0 && r.nfds == 1);
	twin = r.fds[0];
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, &master, 18, &r) &&
	    v_errno(&r) == 0);
	must(v_call(dev.s, fd, VD_CMD_DMA_MAP, &map, sizeof(map), &r) &&
	    v_errno(&r) == 0);
	told_inside = false;
	got = 0;
}

static void
end(void)
{
	close(fd);
	close(twin);
	v_serve(dev.s, 0);
	is_int(dev.disconnects, 1, "the device is told once that it has left");
	ok(!told_inside, "and not inside the callback");
	mt_region_put(bar);
	v_dev_destroy(&dev);
}

static void
try(enum manner manner, const char *name)
{
	const struct { struct vd_region_access a; uint32_t val; } write =
	    { { 0, 5, 4 }, 1 };
	bool good = manner == ANSWER || manner == PIPELINE;
	unsigned int i, answers = 0;
	struct v_reply r;
	pthread_t th;

	begin();
	must(pthread_create(&th, NULL, client, &manner) == 0);
	must(v_send(fd, 7, VD_CMD_REGION_WRITE, &write, 20));
	while (v_readable(vd_server_fd(dev.s), 100))
		if (vd_server_run(dev.s) == -1)
			break;
	must(pthread_join(th, NULL) == 0);
	is_hex(res, good ? MT_OK : MT_DEVICE, "a client that %s", name);
	is_hex(got, good ? 0x1122334455667788 : 0, "gives what it should");
	is_int(vd_server_connected(dev.s), manner < CLOSE_TWIN,
	    "and is %s", manner < CLOSE_TWIN ? "still there" : "gone");
	if (manner < CLOSE_TWIN) {
		ok(v_recv(fd, &r) && r.hdr.id == 7 && v_errno(&r) ==
		    (good ? 0 : EIO), "it is answered first");
		for (i = 0; manner == PIPELINE && i < 100; i++)
			answers += v_serve_until(dev.s, fd) &&
			    v_recv(fd, &r) && r.hdr.id == i &&
			    v_errno(&r) == 0;
		is_int(answers, manner == PIPELINE ? 100 : 0,
		    "and then for what it has asked meanwhile");
	}
	end();
}

int
main(void)
{
	unsigned int before = t_count_fds();

	try(ANSWER, "answers");
	try(PIPELINE, "asks for other things before it answers");
	try(SILENT, "keeps silent");
	try(CLOSE_TWIN, "ends the twin");
	try(CLOSE_BOTH, "leaves");
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
