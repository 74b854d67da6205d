/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_DEVICE_H
#define T_FUZZ_DEVICE_H

/*
 * A server that means harm, for the client's fuzzer: what its device is like,
 * how it answers, and what it wants itself, all by the script in.
 */

#include <sys/eventfd.h>

#include "t/fuzz/peer.h"

#define LATE		4
#define PAGE		0x1000u
#define SLOT		0x8000u		/* bytes between places in the space */

static struct input in;
static int kinds[8];			/* descriptors to send along */
static int event;

/* --- the device ---------------------------------------------------------- */

/* What a region may be like, besides its flags and descriptor. */
struct layout {
	uint64_t size;
	uint32_t flags;
	uint64_t fd_off;
	unsigned int nr_areas;		/* 0: none, or all */
	struct vd_area areas[3];
};

#define RW	(VD_REGION_READABLE | VD_REGION_WRITABLE)
#define MAP	VD_REGION_MAPPABLE

static const struct layout layouts[] = {
	{ 0, 0, 0, 0, { { 0 } } },
	{ 4 * PAGE, RW, 0, 0, { { 0 } } },
	{ 4 * PAGE, RW | MAP, 0, 0, { { 0 } } },
	{ 0x100, RW | MAP, 0, 0, { { 0 } } },
	{ 4 * PAGE, RW | MAP, PAGE, 1, { { PAGE, 2 * PAGE } } },
	{ 8 * PAGE, RW | MAP, 0, 3, { { PAGE, PAGE }, { 3 * PAGE, PAGE },
	    { 6 * PAGE, 2 * PAGE } } },
	{ 2 * PAGE, VD_REGION_READABLE | MAP, 0, 0, { { 0 } } },
	{ 0x800, VD_REGION_READABLE | MAP, PAGE, 1, { { 0, 0x800 } } },
	{ 0x80, VD_REGION_WRITABLE, 0, 0, { { 0 } } },
	{ (uint64_t)1 << 40, RW, 0, 0, { { 0 } } },
	{ UINT64_MAX, RW | MAP, 0, 1, { { PAGE, PAGE } } },
	{ 0x40, RW | MAP, 0x800, 1, { { 0, 0x40 } } },
	{ 4 * PAGE, RW | MAP, 0, 2, { { 0, 2 * PAGE }, { PAGE, PAGE } } },
	{ PAGE, RW | MAP, 15 * PAGE, 0, { { 0 } } },
};

/* A command that waits for its answer. */
struct late {
	struct p_stream *from;
	struct vd_hdr hdr;
	uint8_t data[64];
	size_t len;
};

static struct {
	uint8_t layout[VD_NUM_REGIONS];	/* index into layouts */
	uint8_t kind[VD_NUM_REGIONS];	/* index into kinds */
	uint8_t config[256];
	bool has_twin;			/* offers one */
	int twin;			/* the client's end of it, or -1 */
	const char *json;		/* of VERSION */
	size_t json_len;
	unsigned int good;		/* so many answers are well */
	unsigned int mute;		/* so often it does not look */
	bool narrow;			/* sockets take little */
	bool hasty;			/* answers half a question */
	struct late late[LATE];
	unsigned int nlate;
	uint16_t id;			/* of what it asks */
} dev;

static struct p_stream sock, twin;	/* the server's ends */

static void	wish(void);

/* What the device says it is, by script. */
static void
make_device(void)
{
	static const char *const says[] = {
		"\"max_msg_fds\":8,\"max_data_xfer_size\":1024",
		"\"max_msg_fds\":1,\"max_data_xfer_size\":72",
		"\"max_msg_fds\":0,\"pgsizes\":8192",
		"\"max_msg_fds\":16,\"max_dma_maps\":2",
	};
	static const char twins[] =
	    ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}";
	static char json[256];
	const unsigned int how = (unsigned int)next(&in, 1);
	uint8_t *c = dev.config;
	unsigned int i, n;

	for (i = 0; i < VD_NUM_REGIONS; i++) {
		n = i == VD_REGION_CONFIG ? 0 : (unsigned int)next(&in, 1);
		dev.layout[i] = (uint8_t)((n & 31) % F_COUNT(layouts));
		dev.kind[i] = (uint8_t)(n >> 5);
	}
	memset(c, 0, sizeof(dev.config));
	c[0] = 0x36;
	c[2] = (uint8_t)(how >> 6);
	c[6] = 0x10;
	c[0x34] = (uint8_t)(next_below(&in, 8) * 8 + 0x40);
	/* A table of some vectors in some BAR. */
	c[c[0x34]] = 0x11;
	c[c[0x34] + 1] = (uint8_t)next(&in, 1);
	c[c[0x34] + 2] = (uint8_t)next(&in, 1);
	c[c[0x34] + 4] = (uint8_t)next(&in, 1);
	c[c[0x34] + 5] = (uint8_t)next(&in, 1);
	dev.json = NULL;
	dev.json_len = 0;
	dev.has_twin = (how & 8) != 0;
	if ((how & 7) < F_COUNT(says)) {
		snprintf(json, sizeof(json), "{\"capabilities\":{%s%s}}",
		    says[how & 7], dev.has_twin ? twins : "");
		dev.json = json;
		dev.json_len = strlen(json) + 1;
	} else if ((how & 7) == 7) {
		/* Its own words. */
		dev.json_len = next_bytes(&in, json, sizeof(json));
		dev.json = json;
	}
	dev.good = (how & 0x10) != 0 ? (unsigned int)next(&in, 1) : 255;
	dev.nlate = dev.mute = 0;
	dev.narrow = (how & 0x20) != 0;
	dev.hasty = (how & 0x80) != 0;
}

/* --- answers ------------------------------------------------------------- */

/* A reply under way. */
struct reply {
	struct vd_hdr hdr;
	uint8_t data[40000 + 128];
	size_t len;
	int fds[16];
	size_t nfds;
};

static void
put_reply(struct reply *r, const void *p, size_t len)
{
	memcpy(r->data + r->len, p, len);
	r->len += len;
}

static void
say_version(struct reply *r)
{
	const struct vd_version v = { 0, 1 };
	int sv[2];

	put_reply(r, &v, sizeof(v));
	if (dev.json_len > 0)
		put_reply(r, dev.json, dev.json_len);
	if (!dev.has_twin || twin.fd != -1)
		return;
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	check(fcntl(sv[0], F_SETFL, O_NONBLOCK) == 0);
	p_open(&twin, sv[0]);
	dev.twin = r->fds[r->nfds++] = sv[1];
}

static void
say_region(struct reply *r, struct vd_region_info info)
{
	static const struct layout config = { 256, RW, 0, 0, { { 0 } } };
	const struct layout *l = &config;
	struct vd_cap_sparse sparse = { { VD_CAP_SPARSE, 1, 0 }, 0, 0 };

	if (info.index < VD_NUM_REGIONS && info.index != VD_REGION_CONFIG)
		l = &layouts[dev.layout[info.index]];
	info.size = l->size;
	info.offset = l->fd_off;
	info.flags = l->flags;
	if (l->nr_areas > 0) {
		info.flags |= VD_REGION_CAPS;
		info.cap_offset = sizeof(info);
	}
	info.argsz = (uint32_t)(sizeof(info) + (l->nr_areas > 0 ?
	    sizeof(sparse) + l->nr_areas * sizeof(l->areas[0]) : 0));
	put_reply(r, &info, sizeof(info));
	if (l->nr_areas > 0) {
		sparse.nr_areas = l->nr_areas;
		put_reply(r, &sparse, sizeof(sparse));
		put_reply(r, l->areas, l->nr_areas * sizeof(l->areas[0]));
	}
	if (l->flags & MAP)
		r->fds[r->nfds++] = kinds[dev.kind[info.index]];
}

static void
say_data(struct reply *r, const struct vd_region_access *a)
{
	size_t i;

	check(a->count <= VD_MAX_DATA_XFER);
	if (a->count > 40000) {
		r->hdr.flags |= VD_ERROR;
		r->hdr.error = EIO;
		return;
	}
	put_reply(r, a, sizeof(*a));
	for (i = 0; i < a->count; i++)
		r->data[r->len++] = a->region == VD_REGION_CONFIG &&
		    a->offset + i < sizeof(dev.config) ?
		    dev.config[a->offset + i] : (uint8_t)i;
}

/* The answer that a good server gives. */
static void
say(struct reply *r, const struct vd_hdr *hdr, const uint8_t *data, size_t len)
{
	static const uint32_t counts[VD_NUM_IRQS] = { 1, 8, 20, 1, 1 };
	struct vd_device_info device = { sizeof(device),
	    VD_DEVICE_RESETTABLE | VD_DEVICE_PCI, VD_NUM_REGIONS,
	    VD_NUM_IRQS };
	struct vd_region_info region;
	struct vd_region_access access;
	struct vd_irq_info irq;

	r->hdr = (struct vd_hdr){ hdr->id, hdr->cmd, 0, VD_TYPE_REPLY, 0 };
	r->len = 0;
	r->nfds = 0;
	switch (hdr->cmd) {
	case VD_CMD_VERSION:
		say_version(r);
		break;
	case VD_CMD_DEVICE_GET_INFO:
		put_reply(r, &device, sizeof(device));
		break;
	case VD_CMD_DEVICE_GET_REGION_INFO:
		check(len == sizeof(region));
		memcpy(&region, data, sizeof(region));
		say_region(r, region);
		break;
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		check(len == sizeof(irq));
		memcpy(&irq, data, sizeof(irq));
		irq.flags = VD_IRQ_INFO_EVENTFD;
		irq.count = irq.index < VD_NUM_IRQS ? counts[irq.index] : 0;
		put_reply(r, &irq, sizeof(irq));
		break;
	case VD_CMD_REGION_READ:
		check(len == sizeof(access));
		memcpy(&access, data, sizeof(access));
		say_data(r, &access);
		break;
	case VD_CMD_REGION_WRITE:
		put_reply(r, data, sizeof(access));
		break;
	case VD_CMD_DMA_UNMAP:
		put_reply(r, data, sizeof(struct vd_dma_unmap));
		break;
	}
}

/* --- and worse ones ------------------------------------------------------ */

static void
hang_up(void)
{
	p_close(&sock);
	p_close(&twin);
	dev.nlate = 0;
}

static void
keep_for_later(struct p_stream *st, const struct vd_hdr *hdr,
    const uint8_t *data, size_t len)
{
	struct late *l = &dev.late[dev.nlate];

	if (dev.nlate == LATE || len > sizeof(l->data))
		return;
	l->from = st;
	l->hdr = *hdr;
	memcpy(l->data, data, len);
	l->len = len;
	dev.nlate++;
}

/* Spoil an answer; false if there is to be none. */
static bool
spoil(struct p_stream *st, struct reply *r, const struct vd_hdr *hdr,
    const uint8_t *data, size_t len)
{
	size_t at, i;

	switch (next_below(&in, 17)) {
	case 1:
		return (false);
	case 2:
		keep_for_later(st, hdr, data, len);
		return (false);
	case 3:
		r->hdr.flags |= VD_ERROR;
		r->hdr.error = (uint32_t)next(&in, 2);
		r->len = 0;
		break;
	case 4:
		/* A few bytes are others. */
		at = (size_t)next(&in, 1);
		i = (size_t)next_below(&in, 9);
		if (at + i <= r->len)
			next_bytes(&in, r->data + at, i);
		break;
	case 5:
		r->len -= next(&in, 1) % (r->len + 1);
		break;
	case 6:
		i = (size_t)next(&in, 1);
		memset(r->data + r->len, 0x11, i > 64 ? 64 : i);
		r->len += i > 64 ? 64 : i;
		break;
	case 7:
		r->len = next_bytes(&in, r->data, (size_t)next(&in, 1));
		break;
	case 8:
		r->hdr.id = (uint16_t)(r->hdr.id + (int8_t)next(&in, 1));
		break;
	case 9:
		r->hdr.cmd = (uint16_t)next(&in, 1);
		break;
	case 10:
		r->hdr.flags = (uint32_t)next(&in, 1);
		break;
	case 11:
		r->nfds = next_below(&in, F_COUNT(r->fds) + 1);
		for (i = 0; i < r->nfds; i++)
			r->fds[i] = kinds[next_below(&in, F_COUNT(kinds))];
		break;
	case 12:
		hang_up();
		return (false);
	case 13:
		/* First it wants something itself. */
		for (i = next_below(&in, 8); i > 0; i--)
			wish();
		break;
	case 14:
		/* It cannot be followed any more after this. */
		r->hdr.size = (uint32_t)next(&in, 4);
		break;
	case 15:
		shutdown(st->fd, SHUT_WR);
		return (false);
	case 16:
		dev.mute = (unsigned int)next_below(&in, 32);
		break;
	}
	return (true);
}

static void
answer(struct p_stream *st, const struct vd_hdr *hdr, const uint8_t *data,
    size_t len)
{
	static uint8_t buf[sizeof(struct vd_hdr) + 40000 + 128];
	static struct reply r;
	bool speak = true;

	say(&r, hdr, data, len);
	if (dev.good < 255 && dev.good-- == 0) {
		r.hdr.size = 0;
		speak = spoil(st, &r, hdr, data, len);
		dev.good = (unsigned int)next(&in, 1);
	}
	if (speak && st->fd != -1) {
		if (r.hdr.size == 0)
			r.hdr.size = (uint32_t)(sizeof(r.hdr) + r.len);
		memcpy(buf, &r.hdr, sizeof(r.hdr));
		memcpy(buf + sizeof(r.hdr), r.data, r.len);
		v_send_raw(st->fd, buf, sizeof(r.hdr) + r.len, r.fds, r.nfds);
	}
	if (dev.twin != -1)
		close(dev.twin);
	dev.twin = -1;
}

static void
taken(struct p_stream *st, const struct vd_hdr *hdr, const uint8_t *data,
    size_t len)
{
	if (hdr->flags & (VD_TYPE_REPLY | VD_NO_REPLY))
		return;
	check((hdr->flags & VD_TYPE_MASK) == VD_TYPE_COMMAND);
	check(st == &sock);		/* the twin is for the server's */
	answer(st, hdr, data, len);
}

/* The server wants the client's memory. */
static void
wish(void)
{
	const unsigned int how = (unsigned int)next(&in, 1);
	struct p_stream *st = (how & 1) == 0 && twin.fd != -1 ? &twin : &sock;
	const bool is_write = (how & 2) != 0;
	struct vd_dma_access a = { next_below(&in, 64) * (SLOT / 4), 0 };
	static uint8_t buf[sizeof(struct vd_hdr) + sizeof(a) + 0x10000];
	struct vd_hdr h = { dev.id++, is_write ? VD_CMD_DMA_WRITE :
	    VD_CMD_DMA_READ, 0, VD_TYPE_COMMAND, 0 };
	size_t len = sizeof(a), nfds = 0;

	a.count = next(&in, 1) << ((how & 4) != 0 ? 8 : 0);
	if (is_write)
		len += (size_t)a.count;
	switch (how >> 3 & 15) {
	case 1:
		a.addr = next(&in, 8);
		break;
	case 2:
		a.count = next(&in, 3);
		break;
	case 3:
		len -= next_below(&in, len + 1);
		break;
	case 4:
		h.cmd = (uint16_t)next(&in, 1);
		break;
	case 5:
		h.flags = (uint32_t)next(&in, 1);
		break;
	case 6:
		nfds = 8;
		break;
	case 7:
		a.addr += next(&in, 2);
		break;
	}
	h.size = (uint32_t)(sizeof(h) + len);
	memcpy(buf, &h, sizeof(h));
	memcpy(buf + sizeof(h), &a, sizeof(a));
	if (st->fd != -1)
		v_send_raw(st->fd, buf, h.size, kinds, nfds);
}

/* The client waits, or something is to be looked at. */
static void
act(void)
{
	struct vd_hdr h;
	struct late l;

	if (dev.mute > 0) {
		dev.mute--;
		return;
	}
	while (dev.nlate > 0 && dev.good > 0 && in.left > 0 &&
	    (dev.good & 1) != 0) {
		l = dev.late[--dev.nlate];
		answer(l.from, &l.hdr, l.data, l.len);
	}
	p_receive(&sock, taken);
	p_receive(&twin, taken);
	if (dev.hasty && p_begun(&sock, &h, sizeof(struct vd_region_access)) &&
	    h.cmd == VD_CMD_REGION_WRITE)
		taken(&sock, &h, sock.buf + sizeof(h), 0);
}

/* A new server's socket for the client: of the same device, or another. */
static int
listen_again(bool other)
{
	const int least = 1;
	int sv[2];

	hang_up();
	if (other)
		make_device();
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	/* Who fills the socket must not wait for who has to empty it. */
	check(fcntl(sv[1], F_SETFL, O_NONBLOCK) == 0);
	if (dev.narrow)
		check(setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &least,
		    sizeof(least)) == 0);
	p_open(&sock, sv[1]);
	return (sv[0]);
}

static void
make_kinds(void)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	check(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	check((event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) != -1);
	kinds[0] = v_memfd(1 << 16);
	kinds[1] = v_memfd(1 << 15);
	kinds[2] = v_memfd(1);
	kinds[3] = p[0];
	check((kinds[4] = open("/", O_RDONLY | O_CLOEXEC)) != -1);
	check((kinds[5] = open("/dev/zero", O_RDWR | O_CLOEXEC)) != -1);
	check((kinds[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) !=
	    -1);
	kinds[7] = event;
	close(p[1]);
}

#endif
