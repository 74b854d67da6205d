/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server that does not read, and meanwhile has the client write to the
 * server's own registers by DMA: the thread that waits for room to post a
 * write serves that, and posts another one inside of it.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define SIZE		0x10000u	/* of the BAR */
#define WRITES		256u
#define LEN		4096u
#define OWN		0x40u		/* register that is written by DMA */

static unsigned int nr_writes, nr_own, nr_answers, nr_other;

static void
answer(int fd, const struct v_reply *r, const void *payload, size_t len)
{
	must(v_send_fds(fd, r->hdr.id, r->hdr.cmd, VD_TYPE_REPLY, payload, len,
	    NULL, 0));
}

static void
take(int fd, struct v_reply *r)
{
	struct vd_region_info ask, info = { .argsz = sizeof(info),
	    .flags = VD_REGION_READABLE | VD_REGION_WRITABLE };
	const struct vd_device_info device = { .argsz = sizeof(device),
	    .flags = VD_DEVICE_PCI, .num_regions = VD_NUM_REGIONS,
	    .num_irqs = VD_NUM_IRQS };
	struct vd_region_access a;

	switch (r->hdr.cmd) {
	case VD_CMD_DEVICE_GET_INFO:
		answer(fd, r, &device, sizeof(device));
		break;
	case VD_CMD_DEVICE_GET_REGION_INFO:
		memcpy(&ask, r->data, sizeof(ask));
		info.index = ask.index;
		info.size = ask.index == 0 ? SIZE : 0;
		answer(fd, r, &info, sizeof(info));
		break;
	case VD_CMD_REGION_WRITE:
		memcpy(&a, r->data, sizeof(a));
		nr_writes += a.count == LEN;
		nr_own += a.count == 4 && a.offset == OWN;
		break;
	case VD_CMD_DMA_WRITE:
		nr_answers += (r->hdr.flags & VD_ERROR) == 0;
		break;
	default:
		nr_other++;
	}
}

/* v_recv() for who has time. */
static bool
next(int fd, struct v_reply *r)
{
	return (v_readable(fd, 5000) && v_recv(fd, r));
}

static void *
server(void *arg)
{
	static const char version[] = "\0\0\1\0{\"capabilities\":{}}";
	static struct v_reply r;
	static const struct {
		struct vd_dma_access a;
		uint32_t val;
	} __attribute__((packed)) dma = { { OWN, 4 }, 77 };
	int fd = *(int *)arg;

	must(next(fd, &r));
	answer(fd, &r, version, sizeof(version));
	do {
		must(next(fd, &r));
		take(fd, &r);
	} while (r.hdr.cmd != VD_CMD_REGION_WRITE);
	/* The client writes until nothing more fits. */
	usleep(200000);
	must(v_send(fd, 1, VD_CMD_DMA_WRITE, &dma, sizeof(dma)));
	usleep(200000);
	while (nr_writes < WRITES || nr_own == 0 || nr_answers == 0) {
		if (!next(fd, &r))
			break;
		take(fd, &r);
	}
	close(fd);
	return (NULL);
}

int
main(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", SIZE), *bar;
	struct mt_space *sp = t_space(root);
	const struct vd_client_options o = { .no_twin = true, .dma = sp };
	static const uint8_t data[LEN] = { 1 };
	unsigned int bad = 0, i;
	struct vd_client *c;
	pthread_t th;
	int sv[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(pthread_create(&th, NULL, server, &sv[0]) == 0);
	must((c = vd_client_attach_with(sv[1], &o)) != NULL);
	bar = vd_client_region_create(c, t, 0, "bar", VD_CLIENT_POST);
	must(bar != NULL && mt_region_add(root, bar, 0, 0) == 0);
	alarm(30);
	for (i = 0; i < WRITES; i++)
		bad += mt_space_write(sp, 0x1000, data, LEN,
		    MT_ATTRS_NONE) != MT_OK;
	is_int(bad, 0, "posted writes go on");
	must(pthread_join(th, NULL) == 0);
	is_int(nr_writes, WRITES, "and all arrive");
	is_int(nr_own, 1, "so does what was posted to serve the server");
	is_int(nr_answers, 1, "which is answered");
	is_int(nr_other, 0, "and nothing else is sent");
	must(mt_region_del(bar) == 0);
	mt_region_put(bar);
	vd_client_destroy(c);
	t_end_space(t, sp, root);
	return (done());
}
