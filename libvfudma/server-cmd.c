/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Commands: who answers which, and how answers go out.
 */

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "internal.h"

static int
device_info(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_device_info info;
	int err;

	(void)s;
	if ((err = vd__wire_device_info(m->data, m->len, &info)) != 0)
		return (err);
	info.argsz = sizeof(info);
	info.flags = VD_DEVICE_RESETTABLE | VD_DEVICE_PCI;
	info.num_regions = VD_NUM_REGIONS;
	info.num_irqs = VD_NUM_IRQS;
	memcpy(r->head, &info, sizeof(info));
	r->head_len = sizeof(info);
	return (0);
}

static int
irq_info(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_irq_info info;
	int err;

	if ((err = vd__wire_irq_info(m->data, m->len, &info)) != 0 ||
	    (err = vd__irq_info(s, &info)) != 0)
		return (err);
	info.argsz = sizeof(info);
	memcpy(r->head, &info, sizeof(info));
	r->head_len = sizeof(info);
	return (0);
}

static int
set_irqs(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_irq_set set;
	const uint8_t *data;
	size_t len;
	int err;

	(void)r;
	if ((err = vd__wire_irq_set(m->data, m->len, &set, &data, &len)) != 0)
		return (err);
	return (vd__irq_set(s, &set, data, len, m->fds, m->nfds));
}

static int
dma_map(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_dma_map dm;
	int err;

	(void)r;
	if ((err = vd__wire_dma_map(m->data, m->len, &dm)) != 0)
		return (err);
	return (vd__dma_map(s, &dm, m->fds, m->nfds));
}

static int
dma_unmap(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	struct vd_dma_unmap unmap;
	int err;

	if ((err = vd__wire_dma_unmap(m->data, m->len, &unmap)) != 0 ||
	    (err = vd__dma_unmap(s, &unmap, &s->parked.waiting)) != 0)
		return (err);
	unmap.argsz = sizeof(unmap);
	memcpy(r->head, &unmap, sizeof(unmap));
	r->head_len = sizeof(unmap);
	return (0);
}

static int
device_reset(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	int err;

	(void)r;
	vd__request_offer(s, m, NULL, false);
	err = vd__server_reset(s, VD_RESET_DEVICE);
	return (vd__request_taken(s) ? VD__TAKEN : err);
}

/* What exists in the protocol, but not here. */
static int
unsupported(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	(void)s;
	(void)m;
	(void)r;
	return (ENOTSUP);
}

/* What a client never sends, or not now. */
static int
misplaced(struct vd_server *s, struct vd__msg *m, struct vd__reply *r)
{
	(void)s;
	(void)m;
	(void)r;
	return (EINVAL);
}

static const struct {
	const char *name;
	int (*fn)(struct vd_server *s, struct vd__msg *m, struct vd__reply *r);
} commands[] = {
	[VD_CMD_VERSION] = { "VERSION", misplaced },
	[VD_CMD_DMA_MAP] = { "DMA_MAP", dma_map },
	[VD_CMD_DMA_UNMAP] = { "DMA_UNMAP", dma_unmap },
	[VD_CMD_DEVICE_GET_INFO] = { "DEVICE_GET_INFO", device_info },
	[VD_CMD_DEVICE_GET_REGION_INFO] = { "DEVICE_GET_REGION_INFO",
	    vd__region_info },
	[VD_CMD_DEVICE_GET_REGION_IO_FDS] = { "DEVICE_GET_REGION_IO_FDS",
	    unsupported },
	[VD_CMD_DEVICE_GET_IRQ_INFO] = { "DEVICE_GET_IRQ_INFO", irq_info },
	[VD_CMD_DEVICE_SET_IRQS] = { "DEVICE_SET_IRQS", set_irqs },
	[VD_CMD_REGION_READ] = { "REGION_READ", vd__region_read },
	[VD_CMD_REGION_WRITE] = { "REGION_WRITE", vd__region_write },
	[VD_CMD_DMA_READ] = { "DMA_READ", misplaced },
	[VD_CMD_DMA_WRITE] = { "DMA_WRITE", misplaced },
	[VD_CMD_DEVICE_RESET] = { "DEVICE_RESET", device_reset },
	[14] = { "DIRTY_PAGES", unsupported },	/* withdrawn */
	[VD_CMD_REGION_WRITE_MULTI] = { "REGION_WRITE_MULTI",
	    vd__region_write_multi },
	[VD_CMD_DEVICE_FEATURE] = { "DEVICE_FEATURE", unsupported },
	[VD_CMD_MIG_DATA_READ] = { "MIG_DATA_READ", unsupported },
	[VD_CMD_MIG_DATA_WRITE] = { "MIG_DATA_WRITE", unsupported },
};

#define NUM_COMMANDS	(sizeof(commands) / sizeof(commands[0]))

/* Send what a handler has put together. */
static int
send_reply(struct vd_server *s, const struct vd__msg *req,
    const struct vd__reply *r)
{
	struct iovec iov[2];

	iov[0].iov_base = (void *)(uintptr_t)r->head;	/* only read */
	iov[0].iov_len = r->head_len;
	iov[1].iov_base = (void *)(uintptr_t)r->data;
	iov[1].iov_len = r->data_len;
	return (vd__conn_reply(s->conn, req, iov, r->data_len > 0 ? 2 : 1,
	    &r->fd, r->fd != -1));
}

/* Keep what a handler has put together until memory is released. */
static void
park(struct vd_server *s, const struct vd__msg *m, const struct vd__reply *r)
{
	struct vd__parked *p = &s->parked;

	/* Commands that take memory back are answered by a struct at most. */
	assert(r->head_len <= sizeof(p->head) && r->data_len == 0 &&
	    r->fd == -1);
	memcpy(p->head, r->head, r->head_len);
	p->head_len = r->head_len;
	p->req = *m;
	p->req.buf = NULL;		/* only what it takes to reply */
	p->req.nfds = 0;
	p->since = vd__now_ms();
	p->active = true;
}

/* The first message of a client; -1 if the connection has to end. */
static int
negotiate(struct vd_server *s, struct vd__msg *m)
{
	uint8_t buf[VD__VERSION_MAX];
	char why[VD__WHY_MAX] = "the first message is not VERSION";
	struct iovec iov = { .iov_base = buf };
	int err = EINVAL, twin = -1, rv;

	if (m->hdr.cmd == VD_CMD_VERSION)
		err = vd__negotiate_server(m, &s->limits, &s->peer,
		    &s->minor, buf, &iov.iov_len, why);
	if (err == 0 && s->peer.twin_socket &&
	    (err = vd__server_twin(s, &twin)) != 0)
		snprintf(why, sizeof(why), "twin socket: %s", strerror(err));
	if (err != 0) {
		vd__log(s, LOG_WARNING, "client refused: %s", why);
		vd__conn_error(s->conn, m, err);
		errno = EPROTONOSUPPORT;
		return (-1);
	}
	rv = vd__conn_reply(s->conn, m, &iov, 1, &twin, twin != -1);
	vd__close(twin);
	if (rv == -1)
		return (-1);
	if (s->until != 0)
		vd__server_set_timer(s, 0);
	s->connected = true;
	vd__messages_attach(s);
	vd__desk_attach(s);
	vd__log(s, LOG_INFO, "client connected, version %d.%u%s",
	    VD_PROTO_MAJOR, s->minor,
	    twin != -1 ? ", with a twin socket" : "");
	if (s->ops->connected != NULL)
		s->ops->connected(s->arg);
	return (0);
}

/* Execute a command and answer it; -1 if the connection has to end. */
static int
command(struct vd_server *s, struct vd__msg *m)
{
	struct vd__reply r = { .fd = -1 };
	const char *name = "unknown command";
	int err = ENOSYS;

	if (m->hdr.flags & VD_ERROR)
		err = EINVAL;
	else if (m->fds_lost)
		err = EMFILE;
	else if (m->hdr.cmd < NUM_COMMANDS &&
	    commands[m->hdr.cmd].fn != NULL) {
		name = commands[m->hdr.cmd].name;
		s->parked.waiting = 0;
		vd__messages_serving(s, (m->hdr.flags & VD_NO_REPLY) == 0);
		err = commands[m->hdr.cmd].fn(s, m, &r);
		vd__messages_serving(s, false);
	}
	if (err == VD__TAKEN)
		return (0);
	if (err == 0 && s->parked.waiting > 0) {
		park(s, m, &r);
		return (0);
	}
	if (err == 0)
		return (send_reply(s, m, &r));
	vd__log(s, LOG_DEBUG, "%s (%u) failed: %s", name, m->hdr.cmd,
	    strerror(err));
	return (vd__conn_error(s->conn, m, err));
}

int
vd__server_serve(struct vd_server *s, struct vd__msg *m)
{
	switch (m->hdr.flags & VD_TYPE_MASK) {
	case VD_TYPE_COMMAND:
		return (s->connected ? command(s, m) : negotiate(s, m));
	case VD_TYPE_REPLY:
		vd__log(s, LOG_WARNING, "a reply that nobody asked for");
		break;
	default:
		vd__log(s, LOG_WARNING, "a message of unknown type %#x",
		    m->hdr.flags & VD_TYPE_MASK);
		break;
	}
	errno = EPROTO;
	return (-1);
}
