/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server that means harm, by script: what it answers lies in the socket
 * before the client asks, since both ends are one thread's.  The client has no
 * time to wait.  It believes nothing, and in the end no descriptor is left.
 */

#include <sys/eventfd.h>

#include "t/fuzz/peer.h"

#define OPS		32

static struct input in;
static struct vd_client *client;
static int fd;				/* the server's end */
static uint16_t id;			/* of the client's next command */
static uint16_t given_up[16];		/* of those that timed out */
static unsigned int nr_given_up;
static int errno_of_call;
static int memfd, event;

/* Take what the client has sent: what it asks next has the next id. */
static void
drain(void)
{
	static struct v_reply r;
	int spare = 0;

	while (v_recv(fd, &r) && spare++ < 64) {
		v_close_fds(&r);
		if ((r.hdr.flags & VD_TYPE_MASK) != VD_TYPE_COMMAND ||
		    (r.hdr.flags & VD_NO_REPLY) != 0)
			continue;
		id = (uint16_t)(r.hdr.id + 1);
		if (errno_of_call == ETIMEDOUT)
			given_up[nr_given_up++ % F_COUNT(given_up)] = r.hdr.id;
	}
	v_close_fds(&r);
}

/* An answer to a command of which only the script knows if it comes. */
static void
answer(uint16_t cmd, size_t nth)
{
	const uint8_t how = (uint8_t)next(&in, 1);
	struct vd_hdr h = { (uint16_t)(id + nth), cmd, 0, VD_TYPE_REPLY, 0 };
	uint8_t buf[sizeof(h) + 255];
	int fds[16];
	size_t len, nfds = 0, i;

	len = next_bytes(&in, buf + sizeof(h), (size_t)next(&in, 1));
	h.size = (uint32_t)(sizeof(h) + len);
	if ((how & 3) == 1)
		nfds = 1;
	else if ((how & 3) == 2)
		nfds = how >> 4;
	for (i = 0; i < nfds; i++)
		fds[i] = (how & 4) != 0 ? memfd : event;
	if ((how & 8) != 0) {
		/* One field of the header is wrong, or just different. */
		switch (next_below(&in, 5)) {
		case 0:
			h.id = nr_given_up > 0 ? given_up[next(&in, 1) %
			    F_COUNT(given_up)] : (uint16_t)next(&in, 2);
			break;
		case 1:
			h.cmd = (uint16_t)next(&in, 1);
			break;
		case 2:
			h.size = (uint32_t)next(&in, 4);
			break;
		case 3:
			h.flags = (uint32_t)next(&in, 1);
			break;
		case 4:
			h.flags |= VD_ERROR;
			h.error = (uint32_t)next(&in, 4);
			break;
		}
	}
	memcpy(buf, &h, sizeof(h));
	v_send_raw(fd, buf, sizeof(h) + len, fds, nfds);
}

static void
check_region(const struct vd_client_region *r)
{
	unsigned int i;

	check(r->nr_areas <= VD_CLIENT_MAX_AREAS);
	for (i = 0; i < r->nr_areas; i++) {
		check(r->areas[i].size <= r->size);
		check(r->areas[i].offset <= r->size - r->areas[i].size);
	}
	if (r->fd != -1)
		close(r->fd);
}

static void
step(void)
{
	static const uint16_t cmds[] = { VD_CMD_DEVICE_GET_INFO,
	    VD_CMD_DEVICE_GET_IRQ_INFO, VD_CMD_DEVICE_GET_REGION_INFO,
	    VD_CMD_REGION_READ, VD_CMD_REGION_WRITE, VD_CMD_REGION_WRITE,
	    VD_CMD_DMA_MAP, VD_CMD_DMA_UNMAP, VD_CMD_DEVICE_SET_IRQS,
	    VD_CMD_DEVICE_SET_IRQS, VD_CMD_DEVICE_RESET };
	const unsigned int what = (unsigned int)next_below(&in,
	    F_COUNT(cmds));
	const uint8_t arg = (uint8_t)next(&in, 1);
	size_t n = next_below(&in, 4), i;
	static uint8_t buf[8192];
	struct vd_device_info device;
	struct vd_irq_info irq;
	struct vd_client_region region;
	const int fds[4] = { event, -1, event, event };

	for (i = 0; i < n; i++)
		answer(cmds[what], i);
	errno = 0;
	switch (what) {
	case 0:
		vd_client_device_info(client, &device);
		break;
	case 1:
		vd_client_irq_info(client, arg % VD_NUM_IRQS, &irq);
		break;
	case 2:
		if (vd_client_region_info(client, arg % 16, &region) == 0)
			check_region(&region);
		break;
	case 3:
		vd_client_read(client, arg & 15, arg, buf,
		    (size_t)arg * 16);
		break;
	case 4:
		vd_client_write(client, arg & 15, arg, buf,
		    (size_t)arg * 16);
		break;
	case 5:
		vd_client_post(client, arg & 15, arg, buf, arg);
		break;
	case 6:
		vd_client_dma_map(client, (uint64_t)arg << 12, 0x1000,
		    VD_DMA_READABLE, (arg & 1) != 0 ? memfd : -1, 0);
		break;
	case 7:
		vd_client_dma_unmap(client, (uint64_t)arg << 12, 0x1000);
		break;
	case 8:
		vd_client_set_eventfds(client, VD_IRQ_MSIX, arg & 7, arg >> 6,
		    fds);
		break;
	case 9:
		vd_client_set_irqs(client, VD_IRQ_MSIX, arg & 7, arg >> 6,
		    VD_IRQ_ACT_MASK);
		break;
	case 10:
		vd_client_reset(client);
		break;
	}
	errno_of_call = errno;
	drain();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* As generous as a server may be, so that all is tried. */
	static const char json[] = "\0\0\1\0{\"capabilities\":"
	    "{\"max_msg_fds\":8,\"max_data_xfer_size\":1024}}";
	struct vd_hdr h = { 0, VD_CMD_VERSION, 0, VD_TYPE_REPLY, 0 };
	struct vd_client_limits limits;
	unsigned int before, i;
	uint8_t buf[1024];
	size_t len;
	int sv[2];

	if (memfd == 0) {
		memfd = v_memfd(1 << 16);
		check((event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) != -1);
	}
	before = count_fds();
	in = (struct input){ data, size };
	id = 0;
	nr_given_up = 0;
	memset(given_up, 0, sizeof(given_up));
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	fd = sv[1];
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	if (next_below(&in, 4) == 0) {
		/* Any answer to VERSION, and then the end. */
		i = (unsigned int)next_below(&in, 3);
		if (i == 0)
			v_send_raw(fd, in.p, in.left, NULL, 0);
		else if (i == 1)
			answer(VD_CMD_VERSION, 0);
		else if (in.left < sizeof(buf) - sizeof(h) - 4) {
			len = sizeof(h) + 4 + in.left;
			h.size = (uint32_t)len;
			memcpy(buf, &h, sizeof(h));
			memcpy(buf + sizeof(h), json, 4);
			memcpy(buf + sizeof(h) + 4, in.p, in.left);
			v_send_raw(fd, buf, len, NULL, 0);
		}
		in.left = 0;
		shutdown(fd, SHUT_WR);
	} else {
		h.size = sizeof(h) + sizeof(json);
		v_send_raw(fd, &h, sizeof(h), NULL, 0);
		v_send_raw(fd, json, sizeof(json), NULL, 0);
	}
	if ((client = vd_client_attach(sv[0])) == NULL) {
		check(in.left == 0);
		close(sv[0]);
	} else {
		vd_client_limits(client, &limits);
		check(limits.max_data_xfer > 0 &&
		    limits.max_data_xfer <= VD_MAX_DATA_XFER);
		vd_client_set_timeout(client, 0);
		drain();
		for (i = 0; in.left > 0 && i < OPS; i++)
			step();
		vd_client_destroy(client);
	}
	close(fd);
	check(count_fds() == before);
	return (0);
}
