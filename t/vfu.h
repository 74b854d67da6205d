/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_VFU_H
#define T_VFU_H

/*
 * A vfio-user client of bare messages, and a device for it, for tests of the
 * server.
 */

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>

#include <libvfudma/vfudma.h>

#include "t/util.h"

#define V__UNUSED	T_UNUSED

struct v_reply {
	struct vd_hdr hdr;
	uint8_t data[8192];		/* the first bytes of the payload */
	size_t len;			/* of all of it */
	int fds[32];
	size_t nfds;
};

V__UNUSED static int
v_memfd(size_t size)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	if (fd == -1 || ftruncate(fd, (off_t)size) == -1)
		bail("memfd: %s", strerror(errno));
	return (fd);
}

/* Send bytes with descriptors; false if the peer is gone. */
V__UNUSED static bool
v_send_raw(int fd, const void *buf, size_t len, const int *fds, size_t nfds)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(64 * sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)(uintptr_t)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *c;
	ssize_t n;

	if (nfds > 0) {
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	while (iov.iov_len > 0) {
		n = sendmsg(fd, &msg, MSG_NOSIGNAL);
		if (n == -1)
			return (false);
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
	}
	return (true);
}

V__UNUSED static size_t
v_build(uint8_t *buf, uint16_t id, uint16_t cmd, uint32_t flags,
    const void *payload, size_t len)
{
	struct vd_hdr h = { id, cmd, (uint32_t)(sizeof(h) + len), flags, 0 };

	memcpy(buf, &h, sizeof(h));
	if (len > 0)
		memcpy(buf + sizeof(h), payload, len);
	return (sizeof(h) + len);
}

V__UNUSED static bool
v_send_fds(int fd, uint16_t id, uint16_t cmd, uint32_t flags,
    const void *payload, size_t len, const int *fds, size_t nfds)
{
	uint8_t *buf = malloc(sizeof(struct vd_hdr) + len);
	bool sent;

	if (buf == NULL)
		bail("no memory");
	sent = v_send_raw(fd, buf, v_build(buf, id, cmd, flags, payload, len),
	    fds, nfds);
	free(buf);
	return (sent);
}

V__UNUSED static bool
v_send(int fd, uint16_t id, uint16_t cmd, const void *payload, size_t len)
{
	return (v_send_fds(fd, id, cmd, VD_TYPE_COMMAND, payload, len, NULL,
	    0));
}

/* Receive exactly len bytes, however long it takes; false at the end. */
V__UNUSED static bool
v_get(int fd, void *buf, size_t len)
{
	uint8_t *p = buf;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n)
		if ((n = recv(fd, p, len, 0)) <= 0)
			return (false);
	return (true);
}

/* Read exactly len bytes, of which as many as fit go to buf. */
V__UNUSED static bool
v_read(int fd, void *buf, size_t size, size_t len, struct v_reply *r)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(32 * sizeof(int))];
	} control;
	uint8_t sink[4096];
	size_t done = 0, n;
	struct cmsghdr *c;
	ssize_t got;

	while (done < len) {
		struct iovec iov = { sink, sizeof(sink) };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
		    .msg_control = control.buf,
		    .msg_controllen = sizeof(control.buf) };

		if (iov.iov_len > len - done)
			iov.iov_len = len - done;
		got = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (got <= 0) {
			if (got == 0)
				errno = ENOTCONN;
			return (false);
		}
		for (c = CMSG_FIRSTHDR(&msg); c != NULL;
		    c = CMSG_NXTHDR(&msg, c)) {
			n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			memcpy(r->fds + r->nfds, CMSG_DATA(c),
			    n * sizeof(int));
			r->nfds += n;
		}
		if (done < size)
			memcpy((uint8_t *)buf + done, sink,
			    done + (size_t)got > size ? size - done :
			    (size_t)got);
		done += (size_t)got;
	}
	return (true);
}

/* Take a message that is there already: false if none is, with errno. */
V__UNUSED static bool
v_recv(int fd, struct v_reply *r)
{
	memset(r, 0, sizeof(*r));
	if (!v_read(fd, &r->hdr, sizeof(r->hdr), sizeof(r->hdr), r))
		return (false);
	if (r->hdr.size < sizeof(r->hdr)) {
		errno = EPROTO;
		return (false);
	}
	r->len = r->hdr.size - sizeof(r->hdr);
	return (v_read(fd, r->data, sizeof(r->data), r->len, r));
}

V__UNUSED static void
v_close_fds(struct v_reply *r)
{
	while (r->nfds > 0)
		close(r->fds[--r->nfds]);
}

/*
 * Serve *fd by hand, on a thread of its own, and connect a client to it: NULL
 * with errno if that fails.
 */
V__UNUSED static struct vd_client *
v_by_hand(pthread_t *thread, int *fd, void *(*serve)(void *), void *arg,
    const struct vd_client_options *o)
{
	struct vd_client *c;
	int sv[2], saved;

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	*fd = sv[1];
	must(pthread_create(thread, NULL, serve, arg) == 0);
	c = vd_client_attach_with(sv[0], o);
	saved = errno;
	if (c == NULL)
		close(sv[0]);
	errno = saved;
	return (c);
}

V__UNUSED static void
v_by_hand_end(struct vd_client *c, pthread_t thread, int fd)
{
	vd_client_destroy(c);
	shutdown(fd, SHUT_RDWR);
	must(pthread_join(thread, NULL) == 0);
	close(fd);
}

/* Is there something to read, or the end, within ms? */
V__UNUSED static bool
v_readable(int fd, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return (poll(&pfd, 1, ms) == 1);
}

/*
 * Run a server for as long as its descriptor says so, and for ms more.
 * Returns what the last run returned.
 */
V__UNUSED static int
v_serve(struct vd_server *s, int ms)
{
	int rv = 0, spins = 0;

	while (v_readable(vd_server_fd(s), ms)) {
		if ((rv = vd_server_run(s)) == -1)
			break;
		/* Readable for nothing: somebody would burn a processor. */
		spins = rv == 0 ? spins + 1 : 0;
		if (spins > 100000)
			bail("the poll descriptor is stuck");
	}
	return (rv);
}

/* Run a server until fd has something to read; false after 5 s without. */
V__UNUSED static bool
v_serve_until(struct vd_server *s, int fd)
{
	struct pollfd pfd[2] = {
		{ .fd = fd, .events = POLLIN },
		{ .fd = vd_server_fd(s), .events = POLLIN },
	};

	for (;;) {
		if (poll(pfd, 2, 5000) <= 0)
			return (false);
		if (pfd[0].revents != 0)
			return (true);
		if (vd_server_run(s) == -1)
			return (v_readable(fd, 0));
	}
}

/* Send a command, run the server, and take the reply. */
V__UNUSED static bool
v_call_fds(struct vd_server *s, int fd, uint16_t cmd, const void *payload,
    size_t len, const int *fds, size_t nfds, struct v_reply *r)
{
	memset(r, 0, sizeof(*r));
	return (v_send_fds(fd, 0x7777, cmd, VD_TYPE_COMMAND, payload, len,
	    fds, nfds) && v_serve_until(s, fd) && v_recv(fd, r));
}

V__UNUSED static bool
v_call(struct vd_server *s, int fd, uint16_t cmd, const void *payload,
    size_t len, struct v_reply *r)
{
	return (v_call_fds(s, fd, cmd, payload, len, NULL, 0, r));
}

/* The errno of an error reply that is well formed, 0 for success, or -1. */
V__UNUSED static int
v_errno(const struct v_reply *r)
{
	if ((r->hdr.flags & VD_TYPE_MASK) != VD_TYPE_REPLY)
		return (-1);
	if ((r->hdr.flags & VD_ERROR) == 0)
		return (r->hdr.error == 0 ? 0 : -1);
	return (r->len == 0 && r->hdr.error != 0 ? (int)r->hdr.error : -1);
}

/* Connect to the socket at path, without waiting to be accepted. */
V__UNUSED static int
v_connect(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	if (fd == -1 ||
	    connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == -1) {
		if (fd != -1)
			close(fd);
		return (-1);
	}
	return (fd);
}

/* VERSION 0.1 without JSON, as SPDK says it. */
V__UNUSED static bool
v_hello(struct vd_server *s, int fd)
{
	const struct vd_version v = { 0, 1 };
	struct v_reply r;

	return (v_call(s, fd, VD_CMD_VERSION, &v, sizeof(v), &r) &&
	    v_errno(&r) == 0);
}

/* A client of s over a socketpair that has said hello. */
V__UNUSED static int
v_attach(struct vd_server *s)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == -1)
		bail("socketpair: %s", strerror(errno));
	if (vd_server_attach(s, sv[1]) == -1)
		bail("vd_server_attach: %s", strerror(errno));
	if (!v_hello(s, sv[0]))
		bail("no answer to VERSION");
	return (sv[0]);
}

/* --- a device ------------------------------------------------------------ */

/*
 * BAR 0: registers at 0, shareable RAM at 0x1000, nothing at 0x2000, an error
 * at 0x3000.  BAR 2: I/O.  BAR 4: MSI-X.  Express, PM and a ROM.
 */
struct v_dev {
	struct mt_topology *t;
	struct vd_server *s;
	struct mt_region *bar0, *regs, *ram, *bad, *bar2, *bar4, *rom;
	unsigned int reads, writes;		/* of registers */
	mt_addr off;				/* of the last one */
	unsigned int size;
	uint64_t val;
	unsigned int resets[3], connects, disconnects, maps, unmaps, configs;
	struct mt_range range;			/* of the last map or unmap */
	struct mt_mapping *lent;		/* given back by unmap */
	bool disconnect_on_write;
	void (*on_reset)(struct v_dev *, enum vd_reset);
	unsigned int logged;
	char log[512];				/* the last line */
};

V__UNUSED static enum mt_result
v_dev_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct v_dev *d = arg;

	(void)attrs;
	d->reads++;
	d->off = off;
	d->size = size;
	*val = 0x8877665544332211u;
	return (MT_OK);
}

V__UNUSED static enum mt_result
v_dev_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct v_dev *d = arg;

	(void)attrs;
	d->writes++;
	d->off = off;
	d->size = size;
	d->val = val;
	if (d->disconnect_on_write)
		vd_server_disconnect(d->s);
	return (MT_OK);
}

V__UNUSED static enum mt_result
v_dev_bad(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg;
	(void)off;
	(void)size;
	(void)attrs;
	*val = 0;
	return (MT_DEVICE);
}

V__UNUSED static void
v_dev_reset(void *arg, enum vd_reset why)
{
	struct v_dev *d = arg;

	d->resets[why]++;
	if (d->on_reset != NULL)
		d->on_reset(d, why);
}

V__UNUSED static void
v_dev_connected(void *arg)
{
	((struct v_dev *)arg)->connects++;
}

V__UNUSED static void
v_dev_disconnected(void *arg)
{
	((struct v_dev *)arg)->disconnects++;
}

V__UNUSED static void
v_dev_map(void *arg, struct mt_range range)
{
	struct v_dev *d = arg;

	d->maps++;
	d->range = range;
}

V__UNUSED static void
v_dev_unmap(void *arg, struct mt_range range)
{
	struct v_dev *d = arg;

	d->unmaps++;
	d->range = range;
	if (d->lent != NULL) {
		mt_dma_unmap(d->lent, 0);
		d->lent = NULL;
	}
}

V__UNUSED static void
v_dev_config(void *arg, uint32_t off, uint32_t len)
{
	(void)off;
	(void)len;
	((struct v_dev *)arg)->configs++;
}

V__UNUSED static void
v_dev_log(void *arg, int level, const char *msg)
{
	struct v_dev *d = arg;

	(void)level;
	d->logged++;
	snprintf(d->log, sizeof(d->log), "%s", msg);
	if (getenv("T_LOG") != NULL)
		diag("log: %s", msg);
}

V__UNUSED static void
v_dev_create(struct v_dev *d)
{
	static const struct mt_io_ops regs = {
		.read = v_dev_read,
		.write = v_dev_write,
		.endian = MT_LITTLE,
		.valid = { 1, 8, false },
		.impl = { 1, 8, false },
	}, bad = { .read = v_dev_bad };
	static const struct vd_device_ops ops = {
		.reset = v_dev_reset,
		.connected = v_dev_connected,
		.disconnected = v_dev_disconnected,
		.dma_map = v_dev_map,
		.dma_unmap = v_dev_unmap,
		.config_written = v_dev_config,
	};
	struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };

	memset(d, 0, sizeof(*d));
	must((d->t = mt_topology_create()) != NULL);
	must((d->s = vd_server_create(d->t, &ops, d)) != NULL);
	vd_server_set_log(d->s, v_dev_log, d);
	d->bar0 = mt_region_create_container(d->t, "bar0", MT_SIZE(0x4000));
	d->regs = mt_region_create_io(d->t, "regs", MT_SIZE(0x1000), &regs, d);
	d->ram = mt_region_create_ram(d->t, "ram", MT_SIZE(0x1000), &memfd);
	d->bad = mt_region_create_io(d->t, "bad", MT_SIZE(0x1000), &bad, d);
	d->bar2 = mt_region_create_io(d->t, "bar2", MT_SIZE(0x20), &regs, d);
	d->bar4 = mt_region_create_container(d->t, "bar4", MT_SIZE(0x2000));
	d->rom = mt_region_create_rom(d->t, "rom", MT_SIZE(0x800), NULL);
	must(d->bar0 && d->regs && d->ram && d->bad && d->bar2 && d->bar4 &&
	    d->rom);
	must(mt_region_add(d->bar0, d->regs, 0, 0) == 0);
	must(mt_region_add(d->bar0, d->ram, 0x1000, 0) == 0);
	must(mt_region_add(d->bar0, d->bad, 0x3000, 0) == 0);
	must(vd_pci_set_id(d->s, 0x4e58, 1, 0x4e58, 1) == 0);
	must(vd_pci_set_class(d->s, 0x010802, 2) == 0);
	must(vd_pci_set_bar(d->s, 0, d->bar0, VD_BAR_64) == 0);
	must(vd_pci_set_bar(d->s, 2, d->bar2, VD_BAR_IO) == 0);
	must(vd_pci_set_bar(d->s, 4, d->bar4, 0) == 0);
	must(vd_pci_set_rom(d->s, d->rom) == 0);
	must(vd_pci_share_bar(d->s, 0,
	    (struct mt_range){ 0x1000, 0x1fff }) == 0);
	must(vd_pci_set_intx(d->s, 1) == 0);
	must(vd_pci_add_pm(d->s) != -1);
	must(vd_pci_add_msix(d->s, 16, 4, 0, 4, 0x1000) != -1);
	must(vd_pci_add_express(d->s) != -1);
}

/* As mt_topology_destroy(). */
V__UNUSED static int
v_dev_free(struct v_dev *d)
{
	vd_server_destroy(d->s);
	mt_region_put(d->bar0);
	mt_region_put(d->regs);
	mt_region_put(d->ram);
	mt_region_put(d->bad);
	mt_region_put(d->bar2);
	mt_region_put(d->bar4);
	mt_region_put(d->rom);
	return (mt_topology_destroy(d->t));
}

V__UNUSED static void
v_dev_destroy(struct v_dev *d)
{
	works(v_dev_free(d), "everything has been given back");
}

#endif
