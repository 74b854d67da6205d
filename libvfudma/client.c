/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client: what it sends, and what it makes of the answers.
 *
 * A reply is bytes from somebody else.  What its length and numbers promise is
 * checked here, before anything is made of it; a server that promises nonsense
 * is one whose next message cannot be trusted either, so the connection ends.
 */

#include <sys/types.h>
#include <sys/uio.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* More than any PCI device has; who allocates by these may do so. */
#define MAX_REGIONS	256u
#define MAX_IRQS	VD__MAX_IRQS

/* Replies to GET_REGION_INFO that we ask for, and areas that fit into one. */
#define INFO_SIZE(areas)						\
	(sizeof(struct vd_region_info) + sizeof(struct vd_cap_sparse) +	\
	    (areas) * sizeof(struct vd_area))
#define INFO_MAX		4096u
#define INFO_MAX_AREAS							\
	((INFO_MAX - INFO_SIZE(0)) / sizeof(struct vd_area))

/* The server does not keep to the protocol. */
static int
broken(struct vd_client *c)
{
	vd__conn_close(c->conn);
	errno = EPROTO;
	return (-1);
}

static const struct vd__conn_ops conn_ops = { .serve = vd__client_serve };

static struct vd_client *
client_create(int fd, const struct vd_client_options *o)
{
	static const struct vd_client_options none = { 0 };
	char why[VD__WHY_MAX];
	struct vd_client *c;

	c = calloc(1, sizeof(*c));
	if (c == NULL) {
		vd__close(fd);
		return (NULL);
	}
	if (o == NULL)
		o = &none;
	vd__client_init(c);
	c->no_twin = o->no_twin;
	c->force_queue = o->force_queue;
	c->timeout_ms = o->timeout_ms != 0 ? o->timeout_ms :
	    VD_CLIENT_TIMEOUT_MS;
	/* Nobody sends what a post leaves queued, so it must leave nothing. */
	c->conn = vd__conn_create(fd, 0);
	if (c->conn == NULL) {
		vd__close(fd);
		vd_client_destroy(c);
		return (NULL);
	}
	c->serve.conn = c->conn;
	c->serve.space = o->dma;
	vd__conn_set_ops(c->conn, &conn_ops, &c->serve);
	vd__conn_set_forced(c->conn, o->force_queue);
	if (vd__negotiate_client(c->conn, c->timeout_ms, !o->no_twin,
	    &c->limits, why) == -1) {
		vd_client_destroy(c);
		return (NULL);
	}
	/* Without it nothing can be mapped, but all is there by message. */
	c->hangup = vd__hangup_create(vd__conn_fd(c->conn));
	return (c);
}

struct vd_client *
vd_client_connect(const char *path)
{
	return (vd_client_connect_with(path, NULL));
}

struct vd_client *
vd_client_attach(int fd)
{
	return (vd_client_attach_with(fd, NULL));
}

struct vd_client *
vd_client_connect_with(const char *path, const struct vd_client_options *o)
{
	int fd = vd__sock_connect(path);
	struct vd_client *c;

	if (fd == -1 || (c = client_create(fd, o)) == NULL)
		return (NULL);
	/* Whoever has no memory for that cannot connect again by it. */
	c->path = strdup(path);
	return (c);
}

struct vd_client *
vd_client_attach_with(int fd, const struct vd_client_options *o)
{
	struct vd_client *c;
	int copy;

	/* If this fails the caller still has its fd, so work on a copy. */
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy == -1)
		return (NULL);
	if (vd__sock_adopt(copy, false) == -1) {
		vd__close(copy);
		return (NULL);
	}
	c = client_create(copy, o);
	if (c != NULL)
		close(fd);
	return (c);
}

void
vd_client_destroy(struct vd_client *c)
{
	int saved = errno;

	if (c == NULL)
		return;
	vd__client_end_pages(c);
	/* Regions of the device may live on, and answer errors. */
	vd__client_disconnect(c);
	vd__client_put(c);
	errno = saved;
}

void
vd_client_set_timeout(struct vd_client *c, int ms)
{
	c->timeout_ms = ms < 0 ? -1 : ms;
}

/* Only locks are changed by who looks at a client. */
static struct vd_client *
lockable(const struct vd_client *c)
{
	return ((struct vd_client *)(uintptr_t)c);
}

void
vd_client_limits(const struct vd_client *c, struct vd_client_limits *limits)
{
	pthread_rwlock_rdlock(&lockable(c)->conn_lock);
	*limits = c->limits;
	pthread_rwlock_unlock(&lockable(c)->conn_lock);
}

void
vd_client_set_dma(struct vd_client *c, struct mt_space *sp)
{
	atomic_store(&c->serve.space, sp);
}

int
vd_client_fds(const struct vd_client *c, int fds[VD_CLIENT_FDS])
{
	pthread_rwlock_rdlock(&lockable(c)->conn_lock);
	fds[0] = vd__conn_fd(c->conn);
	fds[1] = vd__conn_twin_fd(c->conn);
	pthread_rwlock_unlock(&lockable(c)->conn_lock);
	return (fds[0] == -1 ? 0 : fds[1] == -1 ? 1 : 2);
}

static int
run(struct vd_client *c)
{
	return (vd__conn_run(c->conn, c->timeout_ms));
}

int
vd_client_run(struct vd_client *c)
{
	if (vd__client_enter(c) == -1)
		return (-1);
	return (vd__client_leave(c, run(c)));
}

void
vd__client_take(struct vd_client *c, struct vd_client *from)
{
	atomic_store(&c->replacing, true);
	pthread_rwlock_wrlock(&c->conn_lock);
	vd__conn_destroy(c->conn);
	c->conn = from->conn;
	c->limits = from->limits;
	c->serve.conn = c->conn;
	vd__conn_set_ops(c->conn, &conn_ops, &c->serve);
	from->conn = NULL;
	pthread_rwlock_unlock(&c->conn_lock);
	vd__client_set_hangup(c, vd__client_hangup(from));
}

/* --- asking -------------------------------------------------------------- */

/* iovecs are not const, though what is sent from them is. */
static struct iovec
iov_of(const void *p, size_t len)
{
	return ((struct iovec){ .iov_base = (void *)(uintptr_t)p,
	    .iov_len = len });
}

static int
invalid(void)
{
	errno = EINVAL;
	return (-1);
}

/* The server takes no descriptors. */
static int
no_fds(void)
{
	errno = ENOTSUP;
	return (-1);
}

/* Send a struct, and fds, and wait for a reply of which nothing is needed. */
static int
command(struct vd_client *c, enum vd_cmd cmd, const void *req, size_t len,
    const int *fds, size_t nfds)
{
	struct iovec iov = iov_of(req, len);
	struct vd__msg reply;
	int rv;

	if (vd__client_enter(c) == -1)
		return (-1);
	rv = vd__conn_call(c->conn, cmd, &iov, len > 0 ? 1 : 0, fds, nfds,
	    c->timeout_ms, &reply);
	if (rv == 0)
		vd__msg_close(&reply);
	return (vd__client_leave(c, rv));
}

/*
 * Send a struct that is answered with one of the same size; for who has
 * entered.
 */
static int
ask(struct vd_client *c, enum vd_cmd cmd, const void *req, void *answer,
    size_t len)
{
	struct iovec iov = iov_of(req, len);
	struct vd__msg reply;

	if (vd__conn_call(c->conn, cmd, &iov, 1, NULL, 0, c->timeout_ms,
	    &reply) == -1)
		return (-1);
	if (reply.len == len)
		memcpy(answer, reply.data, len);
	vd__msg_close(&reply);
	return (reply.len == len ? 0 : broken(c));
}

/* --- the device ---------------------------------------------------------- */

int
vd_client_device_info(struct vd_client *c, struct vd_device_info *info)
{
	const struct vd_device_info req = { .argsz = sizeof(req) };
	struct vd_device_info answer;

	int rv;

	if (vd__client_enter(c) == -1)
		return (-1);
	rv = ask(c, VD_CMD_DEVICE_GET_INFO, &req, &answer, sizeof(answer));
	if (rv == 0 && (answer.num_regions > MAX_REGIONS ||
	    answer.num_irqs > MAX_IRQS))
		rv = broken(c);
	if (rv == 0)
		*info = answer;
	return (vd__client_leave(c, rv));
}

int
vd_client_irq_info(struct vd_client *c, enum vd_irq index,
    struct vd_irq_info *info)
{
	const struct vd_irq_info req = { .argsz = sizeof(req),
	    .index = (uint32_t)index };
	struct vd_irq_info answer;

	int rv;

	if (vd__client_enter(c) == -1)
		return (-1);
	rv = ask(c, VD_CMD_DEVICE_GET_IRQ_INFO, &req, &answer,
	    sizeof(answer));
	if (rv == 0 && (answer.index != req.index || answer.count > MAX_IRQS))
		rv = broken(c);
	if (rv == 0)
		*info = answer;
	return (vd__client_leave(c, rv));
}

int
vd_client_reset(struct vd_client *c)
{
	return (command(c, VD_CMD_DEVICE_RESET, NULL, 0, NULL, 0));
}

/* --- regions ------------------------------------------------------------- */

/*
 * Can this be in a file?  Where it is in the fd is the sum of two numbers of
 * the server's, which may wrap: one of them counts as negative then.
 */
static bool
sound_area(const struct vd_region_info *info, const struct vd_area *a)
{
	uint64_t in_fd = info->offset + a->offset;

	return (in_fd <= INT64_MAX && a->size <= INT64_MAX - in_fd);
}

/* Is it whole pages?  A region that is less is mapped with its page. */
static bool
mappable_area(const struct vd_region_info *info, const struct vd_area *a)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t align = info->size < page && a->size == info->size ? 0 :
	    a->size;

	return (((a->offset | align | (info->offset + a->offset)) &
	    (page - 1)) == 0);
}

static bool
overlap(const struct vd_area *a, const struct vd_area *b)
{
	return (a->offset < b->offset + b->size &&
	    b->offset < a->offset + a->size);
}

/*
 * Find what can be mapped of a region.  All areas must be sound, also those
 * that are left to messages: what is not whole pages of ours, which the server
 * need not know, or what we have no room for.
 */
static int
get_areas(struct vd_client *c, const struct vd_region_info *raw,
    const struct vd__msg *reply, struct vd_client_region *info)
{
	struct vd_area areas[INFO_MAX_AREAS];
	unsigned int nr, i, j;
	int rv;

	rv = vd__wire_get_areas(reply->data, reply->len, areas,
	    INFO_MAX_AREAS, &nr);
	if (rv == -1)
		return (broken(c));
	if (rv == 0) {
		/* All of it. */
		areas[0] = (struct vd_area){ 0, raw->size };
		nr = sound_area(raw, &areas[0]) ? 1 : 0;
	}
	for (i = 0; i < nr; i++) {
		if (!sound_area(raw, &areas[i]))
			return (broken(c));
		for (j = 0; j < i; j++)
			if (overlap(&areas[i], &areas[j]))
				return (broken(c));
		if (info->nr_areas < VD_CLIENT_MAX_AREAS &&
		    mappable_area(raw, &areas[i]))
			info->areas[info->nr_areas++] = areas[i];
	}
	return (0);
}

/*
 * Make a struct vd_client_region of a reply that has come whole.  A region is
 * mapped by one fd; one whose descriptors make no sense can still be reached
 * by messages, so it is not mappable.
 */
static int
get_region(struct vd_client *c, const struct vd_region_info *raw,
    struct vd__msg *reply, struct vd_client_region *info)
{
	*info = (struct vd_client_region){
		.flags = raw->flags & (VD_REGION_READABLE |
		    VD_REGION_WRITABLE | VD_REGION_MAPPABLE | VD_REGION_CAPS),
		.size = raw->size,
		.fd_off = raw->offset,
		.fd = -1,
	};
	if ((raw->flags & VD_REGION_MAPPABLE) == 0 || raw->size == 0 ||
	    reply->nfds != 1 || reply->fds_lost) {
		info->flags &= ~VD_REGION_MAPPABLE;
		return (0);
	}
	if (get_areas(c, raw, reply, info) == -1)
		return (-1);
	if (info->nr_areas == 0) {
		info->flags &= ~VD_REGION_MAPPABLE;
		return (0);
	}
	info->fd = reply->fds[0];
	reply->fds[0] = -1;
	return (0);
}

int
vd_client_region_info(struct vd_client *c, unsigned int index,
    struct vd_client_region *info)
{
	struct vd_region_info req = { .index = index }, raw;
	struct iovec iov = iov_of(&req, sizeof(req));
	struct vd__msg reply;
	uint32_t argsz = INFO_SIZE(VD_CLIENT_MAX_AREAS);
	int rv;

	*info = (struct vd_client_region){ .fd = -1 };
	if (vd__client_enter(c) == -1)
		return (-1);
	/* A server that needs more room says how much, and is asked again. */
	for (;;) {
		req.argsz = argsz;
		if (vd__conn_call(c->conn, VD_CMD_DEVICE_GET_REGION_INFO, &iov,
		    1, NULL, 0, c->timeout_ms, &reply) == -1)
			return (vd__client_leave(c, -1));
		rv = -1;
		if (reply.len < sizeof(raw) || reply.len > argsz)
			break;
		memcpy(&raw, reply.data, sizeof(raw));
		if (raw.index != index)
			break;
		if (raw.argsz <= argsz) {
			rv = 0;
			break;
		}
		/* Once only, and within reason. */
		if (argsz != INFO_SIZE(VD_CLIENT_MAX_AREAS) ||
		    raw.argsz > INFO_MAX)
			break;
		argsz = raw.argsz;
		vd__msg_close(&reply);
	}
	rv = rv == 0 ? get_region(c, &raw, &reply, info) : broken(c);
	vd__msg_close(&reply);
	return (vd__client_leave(c, rv));
}

/* What one message may carry of len bytes. */
static uint32_t
chunk(const struct vd_client *c, size_t len)
{
	uint64_t most = c->limits.max_data_xfer < VD_MAX_DATA_XFER ?
	    c->limits.max_data_xfer : VD_MAX_DATA_XFER;

	return ((uint32_t)(len < most ? len : most));
}

static bool
valid_access(uint64_t off, size_t len)
{
	return (len == 0 || len - 1 <= UINT64_MAX - off);
}

/*
 * Send one access and check what the server says it has done.  What is read
 * goes to buf; what is written comes from data.
 */
static int
region_access(struct vd_client *c, const struct vd_region_access *req,
    void *buf, const void *data)
{
	const struct iovec iov[2] = { iov_of(req, sizeof(*req)),
	    iov_of(data, req->count) };
	struct vd__call call = { .data = buf, .data_len = req->count,
	    .head = sizeof(*req) };
	struct vd_region_access answer = { .count = 0 };
	bool whole;

	if (vd__conn_send(c->conn, &call, data != NULL ? VD_CMD_REGION_WRITE :
	    VD_CMD_REGION_READ, iov, data != NULL ? 2 : 1, NULL, 0,
	    c->timeout_ms) == -1 || vd__conn_await(c->conn, &call) == -1)
		return (-1);
	whole = call.reply.len >= sizeof(answer);
	if (whole)
		memcpy(&answer, call.reply.data, sizeof(answer));
	vd__msg_close(&call.reply);
	if (!whole || answer.offset != req->offset ||
	    answer.region != req->region || answer.count > req->count)
		return (broken(c));
	if (answer.count < req->count) {
		errno = EIO;
		return (-1);
	}
	return (data != NULL || call.placed ? 0 : broken(c));
}

static int
do_read(struct vd_client *c, unsigned int index, uint64_t off, void *buf,
    size_t len)
{
	struct vd_region_access req = { .region = index };
	uint8_t *p = buf;

	for (; len > 0; len -= req.count, off += req.count, p += req.count) {
		req.offset = off;
		req.count = chunk(c, len);
		if (region_access(c, &req, p, NULL) == -1)
			return (-1);
	}
	return (0);
}

int
vd_client_read(struct vd_client *c, unsigned int index, uint64_t off,
    void *buf, size_t len)
{
	if (!valid_access(off, len))
		return (invalid());
	if (vd__client_enter(c) == -1)
		return (-1);
	return (vd__client_leave(c, do_read(c, index, off, buf, len)));
}

static int
do_write(struct vd_client *c, unsigned int index, uint64_t off,
    const void *buf, size_t len)
{
	struct vd_region_access req = { .region = index };
	const uint8_t *p = buf;

	for (; len > 0; len -= req.count, off += req.count, p += req.count) {
		req.offset = off;
		req.count = chunk(c, len);
		if (region_access(c, &req, NULL, p) == -1)
			return (-1);
	}
	return (0);
}

int
vd_client_write(struct vd_client *c, unsigned int index, uint64_t off,
    const void *buf, size_t len)
{
	if (!valid_access(off, len))
		return (invalid());
	if (vd__client_enter(c) == -1)
		return (-1);
	return (vd__client_leave(c, do_write(c, index, off, buf, len)));
}

int
vd__client_post(struct vd_client *c, unsigned int index, uint64_t off,
    const void *buf, size_t len)
{
	struct vd_region_access req = { .region = index };
	const uint8_t *p = buf;

	for (; len > 0; len -= req.count, off += req.count, p += req.count) {
		struct iovec iov[2] = { iov_of(&req, sizeof(req)) };

		req.offset = off;
		req.count = chunk(c, len);
		iov[1] = iov_of(p, req.count);
		if (vd__conn_post(c->conn, VD_CMD_REGION_WRITE, iov, 2, NULL,
		    0, c->timeout_ms) == -1)
			return (-1);
	}
	return (0);
}

int
vd_client_post(struct vd_client *c, unsigned int index, uint64_t off,
    const void *buf, size_t len)
{
	if (!valid_access(off, len))
		return (invalid());
	if (vd__client_enter(c) == -1)
		return (-1);
	return (vd__client_leave(c, vd__client_post(c, index, off, buf, len)));
}

/* --- memory -------------------------------------------------------------- */

/* Is this something that a server could be given, in its smallest pages? */
static bool
valid_range(const struct vd_client *c, uint64_t iova, uint64_t len)
{
	struct vd_client_limits limits;
	uint64_t page;

	vd_client_limits(c, &limits);
	page = limits.pgsizes & -limits.pgsizes;

	return (len > 0 && len - 1 <= UINT64_MAX - iova &&
	    ((iova | len) & (page - 1)) == 0);
}

static int
begin_op(struct vd_client *c, struct vd__dma_op *op, enum vd_cmd cmd,
    const void *req, size_t len)
{
	op->iov = iov_of(req, len);
	op->is_unmap = cmd == VD_CMD_DMA_UNMAP;
	return (vd__conn_begin(c->conn, &op->call, cmd, &op->iov, 1, &op->fd,
	    op->fd == -1 ? 0 : 1, c->timeout_ms));
}

int
vd__client_begin_map(struct vd_client *c, struct vd__dma_op *op,
    uint64_t iova, uint64_t len, unsigned int flags, int fd, uint64_t off)
{
	op->map = (struct vd_dma_map){ .argsz = sizeof(op->map),
	    .flags = flags, .offset = off, .addr = iova, .size = len };
	op->fd = fd;
	return (begin_op(c, op, VD_CMD_DMA_MAP, &op->map, sizeof(op->map)));
}

int
vd__client_begin_unmap(struct vd_client *c, struct vd__dma_op *op,
    uint64_t iova, uint64_t len)
{
	op->unmap = (struct vd_dma_unmap){ .argsz = sizeof(op->unmap),
	    .addr = iova, .size = len };
	op->fd = -1;
	return (begin_op(c, op, VD_CMD_DMA_UNMAP, &op->unmap,
	    sizeof(op->unmap)));
}

int
vd__client_end_op(struct vd_client *c, struct vd__dma_op *op)
{
	const struct vd__msg *reply = &op->call.reply;
	struct vd_dma_unmap answer;
	bool sound = true;

	if (vd__conn_await(c->conn, &op->call) == -1)
		return (-1);
	/* A server that let go of something else may still use this. */
	if (op->is_unmap && (sound = reply->len == sizeof(answer))) {
		memcpy(&answer, reply->data, sizeof(answer));
		sound = answer.addr == op->unmap.addr &&
		    answer.size == op->unmap.size;
	}
	vd__msg_close(&op->call.reply);
	return (sound ? 0 : broken(c));
}

int
vd_client_dma_map(struct vd_client *c, uint64_t iova, uint64_t len,
    unsigned int flags, int fd, uint64_t off)
{
	const struct vd_dma_map map = { .flags = flags, .offset = off,
	    .addr = iova, .size = len };
	struct vd_client_limits limits;
	struct vd__kept_map *copy;
	struct vd__dma_op op;
	int rv;

	if (!valid_range(c, iova, len) ||
	    (flags & ~(VD_DMA_READABLE | VD_DMA_WRITABLE)) != 0 ||
	    (fd == -1 ? off != 0 : fd < 0 || off > INT64_MAX ||
	    len > INT64_MAX - off))
		return (invalid());
	vd_client_limits(c, &limits);
	if (fd != -1 && limits.max_msg_fds == 0)
		return (no_fds());
	if (vd__client_copy_map(c, &map, fd, &copy) == -1)
		return (-1);
	if (vd__client_enter(c) == -1) {
		vd__client_keep_map(c, copy, false);
		return (-1);
	}
	rv = vd__client_begin_map(c, &op, iova, len, flags, fd, off);
	if (rv == 0)
		rv = vd__client_end_op(c, &op);
	/* Before another server can have taken the place of this one. */
	vd__client_keep_map(c, copy, rv == 0);
	return (vd__client_leave(c, rv));
}

int
vd_client_dma_unmap(struct vd_client *c, uint64_t iova, uint64_t len)
{
	struct vd__dma_op op;
	int rv;

	if (!valid_range(c, iova, len))
		return (invalid());
	vd__client_forget_map(c, iova, len);
	if (vd__client_enter(c) == -1)
		return (-1);
	rv = vd__client_begin_unmap(c, &op, iova, len);
	if (rv == 0)
		rv = vd__client_end_op(c, &op);
	return (vd__client_leave(c, rv));
}

/* --- interrupts ---------------------------------------------------------- */

static int
set_irqs(struct vd_client *c, enum vd_irq index, uint32_t start,
    uint32_t count, uint32_t flags, const int *fds, size_t nfds)
{
	const struct vd_irq_set req = { .argsz = sizeof(req), .flags = flags,
	    .index = (uint32_t)index, .start = start, .count = count };

	return (command(c, VD_CMD_DEVICE_SET_IRQS, &req, sizeof(req), fds,
	    nfds));
}

int
vd__client_connect_irqs(struct vd_client *c, enum vd_irq index,
    unsigned int start, unsigned int count, const int *fds)
{
	const uint32_t flags = VD_IRQ_DATA_EVENTFD | VD_IRQ_ACT_TRIGGER;
	int copies[VD_MAX_FDS];

	if (vd__client_dup_irqs(c, fds, count, copies) == -1)
		return (-1);
	if (set_irqs(c, index, start, count, flags, fds, count) == -1) {
		vd__client_close_irqs(copies, count);
		return (-1);
	}
	vd__client_keep_irqs(c, index, start, count, copies);
	return (0);
}

int
vd_client_set_eventfds(struct vd_client *c, enum vd_irq index,
    unsigned int start, unsigned int count, const int *fds)
{
	struct vd_client_limits limits;
	unsigned int batch;

	vd_client_limits(c, &limits);
	batch = limits.max_msg_fds < VD_MAX_FDS ? limits.max_msg_fds :
	    VD_MAX_FDS;
	if (count > UINT32_MAX - start || (count == 0 && start != 0))
		return (invalid());
	if (count == 0 || fds == NULL) {
		if (set_irqs(c, index, start, count, (count == 0 ?
		    VD_IRQ_DATA_NONE : VD_IRQ_DATA_EVENTFD) |
		    VD_IRQ_ACT_TRIGGER, NULL, 0) == -1)
			return (-1);
		vd__client_drop_irqs(c, index, start, count);
		return (0);
	}
	for (unsigned int i = 0; i < count; i++)
		if (fds[i] < 0)
			return (invalid());
	if (batch == 0)
		return (no_fds());
	/* If one of several messages fails, what came before stays. */
	for (unsigned int i = 0, n; i < count; i += n) {
		n = count - i < batch ? count - i : batch;
		if (vd__client_connect_irqs(c, index, start + i, n,
		    fds + i) == -1)
			return (-1);
	}
	return (0);
}

int
vd_client_set_irqs(struct vd_client *c, enum vd_irq index, unsigned int start,
    unsigned int count, unsigned int flags)
{
	if (flags != VD_IRQ_ACT_MASK && flags != VD_IRQ_ACT_UNMASK &&
	    flags != VD_IRQ_ACT_TRIGGER)
		return (invalid());
	if (set_irqs(c, index, start, count, VD_IRQ_DATA_NONE | flags, NULL,
	    0) == -1)
		return (-1);
	if (flags != VD_IRQ_ACT_TRIGGER)
		vd__client_mask_irqs(c, index, start, count,
		    flags == VD_IRQ_ACT_MASK);
	return (0);
}
