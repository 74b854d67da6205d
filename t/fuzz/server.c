/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A client that means harm, by script: messages of any kind, whole or in
 * pieces, with descriptors of all sorts, read or not, and a device that holds
 * on to the client's memory meanwhile, or reaches for memory that the client
 * answers for by message, well, badly, late or never, and answers commands
 * later, or when nobody is there any more.  The server never
 * blocks, never spins, and in the end nothing is left: no descriptor, no
 * mapping, no region, no access.
 */

#include <sys/eventfd.h>

#include "t/fuzz/peer.h"

#define OPS		64
#define HOLDS		4
#define ACCESSES	32
#define ASKED		64
#define TAKEN		8
#define TIMEOUT_MS	20
#define WINDOW		0x10000u	/* bytes; see give() */

/* An access that was submitted. */
struct submitted {
	struct mt_access access;
	uint64_t addr;
	bool busy;
	bool is_known;			/* what is read: see content() */
	unsigned int again;		/* submit it so often when it is over */
	uint8_t buf[512];
};

/* What the server wants to have answered. */
struct asked {
	struct vd_hdr hdr;
	struct vd_dma_access a;
	struct p_stream *from;
};

struct device {
	struct input in;
	struct mt_topology *t;
	struct vd_server *s;
	struct mt_region *regs, *ram, *bar0, *bar4, *rom;
	struct mt_mapping holds[HOLDS];
	struct submitted accesses[ACCESSES];
	struct vd_request *taken[TAKEN];
	bool takes_reset;
	bool stubborn;			/* keeps memory that is to go */
	bool deaf;			/* answers nothing after the script */
	struct sockaddr_un address;	/* where it listens */
	socklen_t address_len;		/* 0: it does not */
	size_t max_len;			/* of an access: not all day long */
	bool hasty;			/* answers half a question */
	bool lies;			/* about content: see there */
	bool acting;			/* while the server waits */
	int twin;			/* from the server, not yet opened */
	uint16_t id;
	struct asked asked[ASKED];
	unsigned int nasked;
};

static struct device d;
/* The client's ends, and what was held back of a message to one of them. */
static struct p_stream sock, twin;
static struct p_stream *torn;
static uint8_t rest[2 * WINDOW];
static size_t rest_len;
static int kinds[8];			/* descriptors to send along */

static void
let_go(void)
{
	size_t i;

	for (i = 0; i < HOLDS; i++)
		if (d.holds[i].ptr != NULL) {
			check(mt_dma_unmap(&d.holds[i],
			    i < 2 ? d.holds[i].len : 0) == 0 || errno == EIO);
			d.holds[i].ptr = NULL;
		}
}

/*
 * The byte at an address of what is reached by message.  A client may answer
 * as it likes, but what the device takes for read is this, unless the client
 * has answered with something else and kept to all rules.
 */
static uint8_t
content(uint64_t addr)
{
	return ((uint8_t)(addr * 0x9d >> 3 ^ addr >> 7));
}

/* Will one window answer all of a read? */
static bool
is_known(uint64_t addr, size_t len)
{
	const struct mt_range range = { addr, addr + len - 1 };
	struct mt_section sec;
	bool known;

	if (range.last < addr ||
	    mt_space_find(vd_server_dma(d.s), range, &sec) == -1)
		return (false);
	known = sec.range.first == range.first &&
	    sec.range.last == range.last && mt_region_kind(sec.region) == MT_IO;
	mt_region_put(sec.region);
	return (known);
}

static void
check_content(uint64_t addr, const uint8_t *buf, size_t len)
{
	size_t i;

	for (i = 0; i < len && !d.lies; i++)
		check(buf[i] == content(addr + i));
}

static void	submit(struct submitted *x, bool is_write);

static void
access_done(void *arg, enum mt_result res)
{
	struct submitted *x = arg;

	check(x->busy);
	x->busy = false;
	if (res == MT_OK && x->is_known)
		check_content(x->addr, x->buf, sizeof(x->buf));
	if (x->again > 0) {
		x->again--;
		submit(x, (x->again & 1) != 0);
	}
}

static void
submit(struct submitted *x, bool is_write)
{
	x->busy = true;
	x->is_known = !is_write && is_known(x->addr, sizeof(x->buf));
	if (mt_access_submit(vd_server_dma(d.s), &x->access, x->addr, x->buf,
	    sizeof(x->buf), is_write, MT_ATTRS_NONE, access_done, x) == -1)
		x->busy = false;
}

static void
cancel(struct submitted *x)
{
	x->again = 0;
	if (x->busy && mt_access_cancel(&x->access))
		x->busy = false;
}

/* What the device does with the client's memory: where val says. */
static void
use_memory(uint64_t val, unsigned int what)
{
	static const size_t sizes[] = { 128, 8, 5000, 40000 };
	static uint8_t buf[40000];
	struct mt_space *dma = vd_server_dma(d.s);
	struct mt_mapping *m = &d.holds[what % HOLDS];
	struct submitted *x = &d.accesses[what >> 3 & 3];
	size_t len = sizes[what >> 5 & 3];
	bool known;

	if (len > d.max_len)
		len = d.max_len;
	/* Mostly where something is. */
	if (val >> 63 == 0)
		val &= val >> 62 == 0 ? 0x3ffff : 0xfffff;
	switch (what % 8) {
	case 0:
		known = is_known(val, len);
		if (mt_space_read(dma, val, buf, len, MT_ATTRS_NONE) ==
		    MT_OK && known)
			check_content(val, buf, len);
		break;
	case 1:
		cancel(x);
		break;
	case 2:
		mt_space_write(dma, val, buf, len, MT_ATTRS_NONE);
		break;
	case 3:
		if (x->busy)
			break;
		x->addr = val;
		x->again = what >> 5 & 3;
		submit(x, (what & 0x80) != 0);
		break;
	default:
		if (m->ptr == NULL && mt_dma_map(dma, val, 256, MT_DMA_READ |
		    MT_DMA_WRITE, MT_ATTRS_NONE, m) == 0)
			memset(m->ptr, 0x5a, m->len);
	}
}

/* What it has submitted, and gives up, all at once. */
static void
use_much(unsigned int how)
{
	unsigned int i = how >> 3, n = (how & 4) != 0 ? ACCESSES : 1;

	for (; n > 0; n--, i++) {
		struct submitted *x = &d.accesses[i % ACCESSES];

		switch (how & 3) {
		case 0:
			cancel(x);
			break;
		default:
			if (x->busy)
				break;
			/* To read, to write, and what it may not. */
			x->addr = (how & 3) == 3 ? 0x10000 : 0;
			submit(x, (how & 3) == 2);
			break;
		}
	}
}

/* --- what it answers later ----------------------------------------------- */

static void
take(unsigned int i)
{
	struct vd_request **r = &d.taken[i % TAKEN];

	/* Not in config space, by DMA, twice, or in a write of many. */
	if (*r == NULL && (*r = vd_server_take(d.s)) != NULL) {
		check(vd_server_take(d.s) == NULL);
		check(errno == EBUSY);
	}
}

static void
finish(unsigned int i, unsigned int how)
{
	static const uint8_t data[WINDOW];
	struct vd_request **r = &d.taken[i % TAKEN];
	struct vd_request_info info;
	size_t len;

	if (*r == NULL)
		return;
	vd_request_info(*r, &info);
	check(info.len <= 4096 && info.off + info.len <= 0x4000);
	check(!info.reset || (info.len == 0 && !info.is_write));
	len = info.is_write ? 0 : info.len;
	check(vd_request_finish(*r, 0, data, len + 1) == -1);
	check(vd_request_finish(*r, -1, NULL, 0) == -1);
	check(vd_request_finish(*r, (how & 1) != 0 ? EIO : 0, data,
	    (how & 1) != 0 ? 0 : len) == 0);
	*r = NULL;
}

static enum mt_result
regs_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)attrs;
	check(off < 0x1000 && size <= 8);
	*val = off;
	if (off >> 8 == 0xe)
		take((unsigned int)off >> 3);
	return (off == 0xff8 ? MT_DEVICE : MT_OK);
}

static enum mt_result
regs_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)attrs;
	check(off < 0x1000 && size <= 8);
	switch (off >> 4 & 7) {
	case 0:
		use_memory(val, (unsigned int)off);
		break;
	case 1:
		vd_irq_trigger(d.s, val & 1 ? VD_IRQ_MSIX : VD_IRQ_MSI,
		    (unsigned int)(val >> 1 & 31));
		break;
	case 2:
		vd_irq_set_intx(d.s, (val & 1) != 0);
		break;
	case 3:
		vd_irq_trigger(d.s, val & 1 ? VD_IRQ_ERR : VD_IRQ_REQ, 0);
		break;
	case 4:
		let_go();
		break;
	case 5:
		if (val == 0x5a)
			vd_server_disconnect(d.s);
		d.takes_reset = (val & 1) != 0;
		break;
	case 6:
		take((unsigned int)val);
		break;
	case 7:
		finish((unsigned int)val, (unsigned int)(val >> 8));
		break;
	}
	return (MT_OK);
}

static void
dev_reset(void *arg, enum vd_reset why)
{
	(void)arg;
	let_go();
	if (d.takes_reset)
		take(why);
}

/* A device that cannot wait: in the client's command. */
static void
dev_map(void *arg, struct mt_range range)
{
	(void)arg;
	if (d.stubborn)
		use_memory(range.first, (unsigned int)range.last & 2);
}

static void
dev_disconnected(void *arg)
{
	(void)arg;
	use_much(4);
}

static void
dev_unmap(void *arg, struct mt_range range)
{
	(void)arg, (void)range;
	if (!d.stubborn)
		let_go();
}

static const struct mt_io_ops regs_ops = {
	.read = regs_read, .write = regs_write, .endian = MT_LITTLE,
	.valid = { 1, 8, false }, .impl = { 1, 8, false },
};

/* Whatever the client has said, this is one line of text. */
static void
logged(void *arg, int level, const char *msg)
{
	check(arg == NULL && level > 0 && msg[0] != '\0');
	for (; *msg != '\0'; msg++)
		check(*msg >= ' ' && *msg <= '~');
}

/* A socket that the server listens on, without a name in a folder. */
static void
listen_first(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	check(fd != -1);
	check(bind(fd, (struct sockaddr *)&sun, sizeof(sun.sun_family)) == 0);
	check(listen(fd, 4) == 0);
	d.address_len = sizeof(d.address);
	check(getsockname(fd, (struct sockaddr *)&d.address,
	    &d.address_len) == 0);
	check(vd_server_listen_fd(d.s, fd) == 0);
}

static void
create(unsigned int how)
{
	static const struct vd_device_ops ops = { .reset = dev_reset,
	    .disconnected = dev_disconnected, .dma_map = dev_map,
	    .dma_unmap = dev_unmap };
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	const struct vd_server_limits limits = { .max_dma_regions = 8,
	    .max_data_xfer = 4096, .max_queued = 65536,
	    .dma_timeout_ms = TIMEOUT_MS, .force_queue = (how & 1) != 0,
	    .no_twin = (how & 2) != 0 };

	check((d.t = mt_topology_create()) != NULL);
	check((d.s = vd_server_create(d.t, &ops, NULL)) != NULL);
	vd_server_set_log(d.s, logged, NULL);
	check((d.bar0 = mt_region_create_container(d.t, "bar0",
	    MT_SIZE(0x4000))) != NULL);
	check((d.regs = mt_region_create_io(d.t, "regs", MT_SIZE(0x1000),
	    &regs_ops, NULL)) != NULL);
	check((d.ram = mt_region_create_ram(d.t, "ram", MT_SIZE(0x1000),
	    &memfd)) != NULL);
	check((d.bar4 = mt_region_create_container(d.t, "bar4",
	    MT_SIZE(0x2000))) != NULL);
	check((d.rom = mt_region_create_rom(d.t, "rom", MT_SIZE(0x800),
	    NULL)) != NULL);
	check(mt_region_add(d.bar0, d.regs, 0, 0) == 0);
	check(mt_region_add(d.bar0, d.ram, 0x1000, 0) == 0);
	check(vd_server_set_limits(d.s, &limits) == 0);
	check(vd_pci_set_bar(d.s, 0, d.bar0, VD_BAR_64) == 0);
	check(vd_pci_set_bar(d.s, 2, d.regs, VD_BAR_IO) == 0);
	check(vd_pci_set_bar(d.s, 4, d.bar4, 0) == 0);
	check(vd_pci_set_rom(d.s, d.rom) == 0);
	check(vd_pci_share_bar(d.s, 0,
	    (struct mt_range){ 0x1000, 0x1fff }) == 0);
	check(vd_pci_set_intx(d.s, 1) == 0);
	check(vd_pci_add_msi(d.s, 8) != -1);
	check(vd_pci_add_msix(d.s, 16, 4, 0, 4, 0x1000) != -1);
	check(vd_pci_add_express(d.s) != -1);
	if ((how & 4) != 0)
		listen_first();
}

static void
hang_up(void)
{
	p_close(&sock);
	p_close(&twin);
	if (d.twin != -1)
		close(d.twin);
	d.twin = -1;
	d.nasked = 0;
	torn = NULL;
}

static void
destroy(void)
{
	unsigned int i;

	let_go();
	hang_up();
	vd_server_destroy(d.s);
	let_go();
	/* Who was taken from a server may be finished without it. */
	for (i = 0; i < TAKEN; i++)
		finish(i, 0);
	for (i = 0; i < ACCESSES; i++)
		check(!d.accesses[i].busy);
	mt_region_put(d.bar0);
	mt_region_put(d.regs);
	mt_region_put(d.ram);
	mt_region_put(d.bar4);
	mt_region_put(d.rom);
	check(mt_topology_destroy(d.t) == 0);
}

/* --- the client ---------------------------------------------------------- */

static void
serve(void)
{
	unsigned int i, idle = 0;

	/* It is the server that waits. */
	if (d.acting)
		return;
	for (i = 0; i < 256 && v_readable(vd_server_fd(d.s), 0); i++) {
		switch (d.stubborn ? vd_server_run_all(d.s) :
		    vd_server_run(d.s)) {
		case -1:
			check(errno == ENOTCONN);
			return;
		case 0:
			/* Readable for nothing, again and again. */
			check(++idle < 100);
			break;
		default:
			idle = 0;
		}
	}
}

static void
taken(struct p_stream *st, const struct vd_hdr *hdr, const uint8_t *data,
    size_t len)
{
	struct asked *q = &d.asked[d.nasked];

	if ((hdr->flags & VD_TYPE_MASK) != VD_TYPE_COMMAND) {
		check((hdr->flags & VD_TYPE_MASK) == VD_TYPE_REPLY);
		return;
	}
	/* It speaks of memory that this client has given, and no other way. */
	check(hdr->cmd == VD_CMD_DMA_READ || hdr->cmd == VD_CMD_DMA_WRITE);
	check(st == (twin.fd != -1 ? &twin : &sock));
	check(len >= sizeof(q->a));
	if (d.nasked == ASKED)
		return;
	q->hdr = *hdr;
	memcpy(&q->a, data, sizeof(q->a));
	check(q->a.count > 0 && q->a.count <= 40000);
	check(len == sizeof(q->a) +
	    (hdr->cmd == VD_CMD_DMA_WRITE ? q->a.count : 0));
	q->from = st;
	d.nasked++;
}

/* Take what the server has sent. */
static void
drain(void)
{
	struct asked *q;

	p_receive(&sock, taken);
	if (d.twin != -1 && twin.fd == -1) {
		check(fcntl(d.twin, F_SETFL, O_NONBLOCK) == 0);
		p_open(&twin, d.twin);
		d.twin = -1;
	}
	p_receive(&twin, taken);
	/* An answer to half a question. */
	q = &d.asked[d.nasked];
	if (d.hasty && d.nasked < ASKED && p_begun(&sock, &q->hdr,
	    sizeof(q->a)) && q->hdr.cmd == VD_CMD_DMA_WRITE) {
		memcpy(&q->a, sock.buf + sizeof(q->hdr), sizeof(q->a));
		q->from = &sock;
		d.nasked++;
	}
}

/* What does not go whole has other things for its end. */
static void
transfer(struct p_stream *st, const uint8_t *buf, size_t len, const int *fds,
    size_t nfds)
{
	if (!v_send_raw(st->fd, buf, len, fds, nfds))
		d.lies = true;
}

/* Send what was held back. */
static void
mend(void)
{
	if (torn != NULL && torn->fd != -1)
		transfer(torn, rest, rest_len, NULL, 0);
	torn = NULL;
}

static void
transmit(const uint8_t *buf, size_t len, const int *fds, size_t nfds,
    size_t at)
{
	mend();
	if (sock.fd == -1 || len == 0)
		return;
	if (at > 0 && at < len) {
		transfer(&sock, buf, at, NULL, 0);
		serve();
		buf += at;
		len -= at;
	}
	transfer(&sock, buf, len, fds, nfds);
}

/* What kind of client: most of all, what it says of twins and lengths. */
static void
hello(unsigned int kind)
{
	static const char *const says[] = {
		"\"max_msg_fds\":8,\"twin_socket\":{\"supported\":true}",
		"\"max_data_xfer_size\":4096",
		"\"max_data_xfer_size\":16,\"max_msg_fds\":8,"
		    "\"twin_socket\":{\"supported\":true}",
		"\"max_data_xfer_size\":1048576,\"write_multiple\":true",
	};
	struct {
		struct vd_version v;
		char json[252];		/* room for the answer */
	} m = { { 0, 1 }, "" };
	size_t len = sizeof(m.v);

	if (kind % 8 < F_COUNT(says)) {
		snprintf(m.json, sizeof(m.json), "{\"capabilities\":{%s}}%120s",
		    says[kind % 8], "");
		len += strlen(m.json) + 1;
	}
	d.max_len = kind % 8 == 2 ? 1024 : 40000;
	sock.keep = &d.twin;
	v_send(sock.fd, d.id++, VD_CMD_VERSION, &m, len);
	serve();
	drain();
	sock.keep = NULL;
}

static void
connect_to(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
	    0);

	check(fd != -1);
	check(connect(fd, (struct sockaddr *)&d.address,
	    d.address_len) == 0);
	p_open(&sock, fd);
	serve();
}

static void
attach(unsigned int kind)
{
	const int least = 1;		/* room in the socket */
	int sv[2];

	hang_up();
	serve();
	if (vd_server_connected(d.s))
		vd_server_disconnect(d.s);
	let_go();
	if (d.address_len > 0) {
		connect_to();
		if (kind < 0xf0)
			hello(kind);
		return;
	}
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	/* Who fills the socket must not wait for who has to empty it. */
	check(fcntl(sv[0], F_SETFL, O_NONBLOCK) == 0);
	if ((kind & 1) != 0)
		check(setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &least,
		    sizeof(least)) == 0);
	if (vd_server_attach(d.s, sv[1]) == -1) {
		/* The one before is still there: it has not said hello. */
		check(errno == EBUSY);
		close(sv[0]);
		close(sv[1]);
		return;
	}
	d.hasty = (kind & 0x10) != 0;
	p_open(&sock, sv[0]);
	if (kind < 0xf0)
		hello(kind);
}

/* Make the device a bus master, and give it memory, as a good client would. */
static void
give(unsigned int how)
{
	const struct {
		struct vd_region_access a;
		uint16_t command;
	} master = { { 4, VD_REGION_CONFIG, 2 }, 0x0006 };
	const struct vd_dma_map map = { sizeof(map), how >> 6, 0,
	    (how & 15) << 16, how & 0x10 ? 0x10 : WINDOW };
	uint8_t buf[64];

	transmit(buf, v_build(buf, d.id++, VD_CMD_REGION_WRITE, VD_NO_REPLY,
	    &master, sizeof(master.a) + sizeof(master.command)), NULL, 0, 0);
	transmit(buf, v_build(buf, d.id++, VD_CMD_DMA_MAP, 0, &map,
	    sizeof(map)), &kinds[1], how & 0x20 ? 1 : 0, 0);
	serve();
	drain();
}

static void
message(void)
{
	static uint8_t buf[1024];
	const uint8_t cmd = (uint8_t)next(&d.in, 1);
	const uint8_t how = (uint8_t)next(&d.in, 1);
	const size_t want = (size_t)next(&d.in, 1);
	uint32_t flags = VD_TYPE_COMMAND;
	uint8_t payload[512];
	size_t len, nfds = 0, i;
	int fds[32];

	if ((how & 3) == 1)
		nfds = 1;
	else if ((how & 3) == 2)
		nfds = how >> 4;
	for (i = 0; i < nfds; i++)
		fds[i] = kinds[nfds == 1 ? how >> 5 :
		    next_below(&d.in, F_COUNT(kinds))];
	if ((how & 4) != 0)
		flags = (uint32_t)next(&d.in, 1);
	if ((flags & VD_TYPE_MASK) == VD_TYPE_REPLY)
		d.lies = true;
	len = next_bytes(&d.in, payload, want);
	len = v_build(buf, d.id++, cmd % 32, flags, payload, len);
	transmit(buf, len, fds, nfds, (how & 8) != 0 ?
	    (size_t)next(&d.in, 1) : 0);
	serve();
	if ((cmd & 0x80) == 0)
		drain();
}

/* Answer one of the server's commands, in one of many ways. */
static void
answer(unsigned int how)
{
	static uint8_t buf[2 * WINDOW];
	const unsigned int i = (how >> 4) % d.nasked;
	const struct asked q = d.asked[i];
	struct vd_hdr h = { q.hdr.id, q.hdr.cmd, 0, VD_TYPE_REPLY, 0 };
	struct vd_dma_access a = q.a;
	size_t len = sizeof(a), at = 0, nfds = 0, j;

	if (h.cmd == VD_CMD_DMA_READ)
		len += (size_t)a.count;
	switch (how & 15) {
	case 3:
		len = h.cmd == VD_CMD_DMA_WRITE ? 0 : sizeof(a);
		break;
	case 4:
		h.flags |= VD_ERROR;
		h.error = (uint32_t)next(&d.in, 2);
		len = (how & 0x80) != 0 ? len : 0;
		break;
	case 5:
		a.addr += next(&d.in, 1);
		break;
	case 6:
		a.count = next(&d.in, 2);
		break;
	case 7:
		len -= next_below(&d.in, len);
		break;
	case 8:
		len += (size_t)next(&d.in, 1);
		break;
	case 9:
		len = 0;
		break;
	case 10:
		h.id = (uint16_t)next(&d.in, 2);
		break;
	case 11:
		h.cmd = (uint16_t)next(&d.in, 1);
		break;
	case 12:
		nfds = (size_t)next_below(&d.in, 20);
		break;
	case 13:
		at = (size_t)next(&d.in, 2);
		break;
	case 14:
		h.flags = (uint32_t)next(&d.in, 1);
		break;
	}
	h.size = (uint32_t)(sizeof(h) + len);
	memcpy(buf, &h, sizeof(h));
	memcpy(buf + sizeof(h), &a, sizeof(a));
	for (j = sizeof(a); j < len; j++)
		buf[sizeof(h) + j] = content(a.addr + j - sizeof(a));
	len = h.size;
	mend();
	if (at > 0 && at < len) {
		torn = q.from;
		rest_len = len - at;
		memcpy(rest, buf + at, rest_len);
		len = at;
	}
	transfer(q.from, buf, len, kinds, nfds < F_COUNT(kinds) ? nfds :
	    F_COUNT(kinds));
	if ((how & 15) == 15)
		return;			/* once more, later */
	d.nasked--;
	d.asked[i] = d.asked[d.nasked];
}

/* Answer some. */
static void
answers(void)
{
	unsigned int n = (unsigned int)next_below(&d.in, 8);

	drain();
	mend();
	for (; d.nasked > 0 && n > 0; n--)
		answer((unsigned int)next(&d.in, 1));
	while (d.nasked > 0 && d.in.left == 0 && !d.deaf)
		answer(0);
}

/* The server waits: for an answer, or for room in the socket. */
static void
act(void)
{
	const bool outer = d.acting;

	d.acting = true;
	answers();
	switch (next_below(&d.in, 32)) {
	case 1:
		message();
		break;
	case 2:
		hang_up();
		break;
	case 3:
		give((unsigned int)next(&d.in, 1));
		break;
	}
	d.acting = outer;
}

/* Some time, or more than a client has to say hello. */
static void
pass(unsigned int how)
{
	p_pass((how < 0xf0 ? how % 32 : 6000) * (int64_t)P_MS);
	serve();
}

static void
raw(void)
{
	static uint8_t buf[256];
	const size_t len = next_bytes(&d.in, buf, (size_t)next(&d.in, 1));

	d.lies = true;
	transmit(buf, len, NULL, 0, 0);
	serve();
}

static void
step(void)
{
	switch (next_below(&d.in, 16)) {
	default:
		message();
		break;
	case 7:
		use_much((unsigned int)next(&d.in, 1));
		break;
	case 8:
		give((unsigned int)next(&d.in, 1));
		break;
	case 9:
		answers();
		serve();
		break;
	case 10:
		pass((unsigned int)next(&d.in, 1));
		break;
	case 11:
		raw();
		break;
	case 12:
		attach((unsigned int)next(&d.in, 1));
		break;
	case 13:
		use_memory(next(&d.in, 8), (unsigned int)next(&d.in, 1));
		break;
	case 14:
		vd_irq_trigger(d.s, (enum vd_irq)(1 + next_below(&d.in, 4)),
		    (unsigned int)next(&d.in, 1));
		vd_irq_set_intx(d.s, next_below(&d.in, 2) != 0);
		break;
	case 15:
		if (next_below(&d.in, 2) != 0)
			let_go();
		serve();
		drain();
		break;
	}
}

static void
make_kinds(void)
{
	int p[2];

	signal(SIGPIPE, SIG_IGN);
	check(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	close(p[0]);			/* p[1]: a pipe without a reader */
	check((kinds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) != -1);
	kinds[1] = v_memfd(1 << 16);
	kinds[2] = v_memfd(1);
	kinds[3] = p[1];
	check((kinds[4] = open("/", O_RDONLY | O_CLOEXEC)) != -1);
	check((kinds[5] = open("/dev/zero", O_RDWR | O_CLOEXEC)) != -1);
	check((kinds[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) !=
	    -1);
	check((kinds[7] = eventfd(0, EFD_CLOEXEC)) != -1);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int before, how, i;

	if (kinds[0] == 0)
		make_kinds();
	before = count_fds();
	memset(&d, 0, sizeof(d));
	d.in = (struct input){ data, size };
	d.twin = sock.fd = twin.fd = -1;
	d.max_len = 40000;
	how = (unsigned int)next(&d.in, 1);
	d.stubborn = (how & 1) != 0;
	d.deaf = (how & 2) != 0;
	p_begin(act);
	create(how >> 2);
	attach(how >> 5);
	/* To begin with: by message, read-only too, shared, write-only. */
	give(0xc0);
	give(0x41);
	give(0xe2);
	give(0x83);
	for (i = 0; d.in.left > 0 && i < OPS; i++)
		step();
	destroy();
	p_end();
	check(count_fds() == before);
	return (0);
}
