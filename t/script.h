/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_SCRIPT_H
#define T_SCRIPT_H

/*
 * A server that follows a script, for tests of the client: to say what no good
 * server says, or nothing, or to be gone in the middle of it.
 */

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <time.h>

#include "t/vfu.h"

#define PAGE		4096u
#define ARGSZ		176u	/* what the client asks for first */
#define JSON(s)		"{\"capabilities\":{" s "}}"

/* --- a server by hand ---------------------------------------------------- */

struct script {
	void (*run)(struct script *);
	const void *arg;
	const char *json;		/* in the answer to VERSION; or NULL */
	size_t budget;			/* bytes to send before it is gone */
	unsigned int piece;		/* bytes to send at once; 0: all */
	unsigned int pause_ms;		/* between pieces */

	int fd;
	pthread_t thread;
	unsigned int fds_before;

	/* The message that came last. */
	struct vd_hdr hdr;
	uint8_t in[VD_MAX_MSG_SIZE];
	unsigned int nfds;
};

/* Receive len bytes; count descriptors and close them. */
static T_UNUSED bool
get_bytes(struct script *s, void *buf, size_t len)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	uint8_t *p = buf;

	while (len > 0) {
		struct iovec iov = { p, len };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1,
		    .msg_control = &control,
		    .msg_controllen = sizeof(control) };
		ssize_t n = recvmsg(s->fd, &m, MSG_CMSG_CLOEXEC);
		struct cmsghdr *cm;

		if (n <= 0)
			return (false);
		for (cm = CMSG_FIRSTHDR(&m); cm != NULL;
		    cm = CMSG_NXTHDR(&m, cm)) {
			size_t count = (cm->cmsg_len - CMSG_LEN(0)) /
			    sizeof(int);

			s->nfds += count;
			for (size_t i = 0; i < count; i++) {
				int fd;

				memcpy(&fd, CMSG_DATA(cm) + i * sizeof(fd),
				    sizeof(fd));
				close(fd);
			}
		}
		p += n;
		len -= (size_t)n;
	}
	return (true);
}

static T_UNUSED bool
get(struct script *s)
{
	s->nfds = 0;
	if (!get_bytes(s, &s->hdr, sizeof(s->hdr)))
		return (false);
	if (s->hdr.size < sizeof(s->hdr) ||
	    s->hdr.size > sizeof(s->hdr) + sizeof(s->in)) {
		ok(false, "the client sends a sound header");
		return (false);
	}
	return (get_bytes(s, s->in, s->hdr.size - sizeof(s->hdr)));
}

/* Send bytes with nfds descriptors, in pieces and as far as the budget goes. */
static T_UNUSED bool
put(struct script *s, const void *hdr, const void *payload, size_t len,
    unsigned int nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control;
	size_t total = sizeof(struct vd_hdr) + len, n;
	uint8_t *all = malloc(total);
	int fd = nfds > 0 ? v_memfd(16 * PAGE) : -1;
	bool gone = false;

	must(all != NULL && nfds <= 64);
	memcpy(all, hdr, sizeof(struct vd_hdr));
	if (len > 0)
		memcpy(all + sizeof(struct vd_hdr), payload, len);
	for (size_t at = 0; at < total && !gone; at += n) {
		struct iovec iov = { all + at, total - at };
		struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

		if (s->piece != 0 && iov.iov_len > s->piece)
			iov.iov_len = s->piece;
		if (iov.iov_len > s->budget)
			iov.iov_len = s->budget;
		if ((gone = iov.iov_len == 0))
			break;
		if (at == 0 && nfds > 0) {
			memset(&control, 0, sizeof(control));
			control.align = (struct cmsghdr){
			    .cmsg_len = CMSG_LEN(nfds * sizeof(int)),
			    .cmsg_level = SOL_SOCKET,
			    .cmsg_type = SCM_RIGHTS };
			for (unsigned int i = 0; i < nfds; i++)
				memcpy(CMSG_DATA(&control.align) +
				    i * sizeof(int), &fd, sizeof(fd));
			m.msg_control = &control;
			m.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		}
		n = (size_t)sendmsg(s->fd, &m, MSG_NOSIGNAL);
		if ((gone = n == (size_t)-1))
			break;
		s->budget -= n;
		if (s->pause_ms != 0)
			usleep(s->pause_ms * 1000);
	}
	if (fd != -1)
		close(fd);
	free(all);
	if (gone || s->budget == 0)
		shutdown(s->fd, SHUT_RDWR);
	return (!gone);
}

/* The header of a reply to the message that came last. */
static T_UNUSED struct vd_hdr
reply_to(const struct script *s, size_t len)
{
	return ((struct vd_hdr){ .id = s->hdr.id, .cmd = s->hdr.cmd,
	    .size = (uint32_t)(sizeof(struct vd_hdr) + len),
	    .flags = VD_TYPE_REPLY });
}

static T_UNUSED bool
answer(struct script *s, const void *payload, size_t len, unsigned int nfds)
{
	struct vd_hdr hdr = reply_to(s, len);

	return (put(s, &hdr, payload, len, nfds));
}

static T_UNUSED bool
answer_version(struct script *s)
{
	uint8_t buf[512] = { 0, 0, 1, 0 };
	size_t len = 4;

	if (s->json != NULL) {
		must(strlen(s->json) < sizeof(buf) - len);
		strcpy((char *)buf + len, s->json);
		len += strlen(s->json) + 1;
	}
	return (answer(s, buf, len, 0));
}

/* Answer as a good server would, with a device that is easily told. */
static T_UNUSED bool
answer_well(struct script *s)
{
	const struct vd_device_info device = { 16,
	    VD_DEVICE_PCI | VD_DEVICE_RESETTABLE, 9, 5 };
	const struct vd_irq_info irq = { 16, VD_IRQ_INFO_EVENTFD, VD_IRQ_MSIX,
	    7 };
	struct vd_region_access a;

	switch (s->hdr.cmd) {
	case VD_CMD_VERSION:
		return (answer_version(s));
	case VD_CMD_DEVICE_GET_INFO:
		return (answer(s, &device, sizeof(device), 0));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		return (answer(s, &irq, sizeof(irq), 0));
	case VD_CMD_DEVICE_GET_REGION_INFO: {
		const struct {
			struct vd_region_info info;
			struct vd_cap_sparse sparse;
			struct vd_area area;
		} r = { { sizeof(r), 0xf, 0, 32, 4 * PAGE, 0 },
		    { { VD_CAP_SPARSE, 1, 0 }, 1, 0 }, { PAGE, PAGE } };

		return (answer(s, &r, sizeof(r), 1));
	}
	case VD_CMD_REGION_READ:
		memcpy(&a, s->in, sizeof(a));
		for (uint32_t i = 0; i < a.count; i++)
			s->in[sizeof(a) + i] = (uint8_t)(a.offset + i);
		return (answer(s, s->in, sizeof(a) + a.count, 0));
	case VD_CMD_REGION_WRITE:
		if (s->hdr.flags & VD_NO_REPLY)
			return (true);
		return (answer(s, s->in, sizeof(a), 0));
	case VD_CMD_DMA_UNMAP:
		return (answer(s, s->in, sizeof(struct vd_dma_unmap), 0));
	default:
		return (answer(s, NULL, 0, 0));
	}
}

static T_UNUSED void
serve(struct script *s)
{
	while (get(s) && answer_well(s))
		continue;
}

static T_UNUSED void *
script_thread(void *arg)
{
	struct script *s = arg;

	s->run(s);
	shutdown(s->fd, SHUT_RDWR);
	return (NULL);
}

static T_UNUSED struct script *
script_new(void (*run)(struct script *), const void *arg)
{
	struct script *s = calloc(1, sizeof(*s));

	must(s != NULL);
	s->run = run;
	s->arg = arg;
	s->budget = SIZE_MAX;
	s->fds_before = t_count_fds();
	return (s);
}

/* Start a script, and connect a client to it: NULL with errno if it fails. */
static T_UNUSED struct vd_client *
script_start(struct script *s)
{
	return (v_by_hand(&s->thread, &s->fd, script_thread, s, NULL));
}

/* True if no descriptor was leaked. */
static T_UNUSED bool
script_stop(struct script *s, struct vd_client *c)
{
	bool same;

	v_by_hand_end(c, s->thread, s->fd);
	same = t_count_fds() == s->fds_before;
	free(s);
	return (same);
}

/* Connect to a script for which that has to work. */
static T_UNUSED struct vd_client *
script_connect(struct script *s)
{
	struct vd_client *c = script_start(s);

	if (c == NULL)
		bail("cannot connect to a script: %s", strerror(errno));
	return (c);
}

/* --- each call of the client's ------------------------------------------- */

enum op {
	OP_DEVICE, OP_IRQ, OP_REGION, OP_READ, OP_WRITE, OP_POST, OP_MAP,
	OP_UNMAP, OP_EVENTFDS, OP_IRQS, OP_RESET, NR_OPS,
};

static T_UNUSED int
do_op(struct vd_client *c, enum op op, struct vd_client_region *region)
{
	struct vd_device_info device;
	struct vd_irq_info irq;
	uint8_t buf[32] = { 0 };
	int fds[3] = { 1, 1, 1 };

	switch (op) {
	case OP_DEVICE:
		return (vd_client_device_info(c, &device));
	case OP_IRQ:
		return (vd_client_irq_info(c, VD_IRQ_MSIX, &irq));
	case OP_REGION:
		return (vd_client_region_info(c, 0, region));
	case OP_READ:
		return (vd_client_read(c, 0, 0x40, buf, sizeof(buf)));
	case OP_WRITE:
		return (vd_client_write(c, 0, 0x40, buf, sizeof(buf)));
	case OP_POST:
		return (vd_client_post(c, 0, 0x40, buf, sizeof(buf)));
	case OP_MAP:
		return (vd_client_dma_map(c, PAGE, PAGE, VD_DMA_READABLE, 1,
		    0));
	case OP_UNMAP:
		return (vd_client_dma_unmap(c, PAGE, PAGE));
	case OP_EVENTFDS:
		return (vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 3, fds));
	case OP_IRQS:
		return (vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1,
		    VD_IRQ_ACT_UNMASK));
	default:
		return (vd_client_reset(c));
	}
}

#endif
