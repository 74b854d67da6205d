/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVM commands.
 *
 * A command that waits, for its data or for a file to be synced, is executed
 * again from its start afterwards: what it has done for good is
 * told by req->pos and req->flushed.  So is one that takes long, which gives
 * others their turn.
 */

#include <string.h>

#include "nvme.h"

/* How much is zeroed in one go: others want to be served meanwhile. */
#define ZERO_STEP	((uint64_t)16 << 20)
/* To deallocate is cheaper, but each range takes a system call. */
#define DEALLOCATE_STEP	((uint64_t)64 << 20)
#define DEALLOCATE_CALLS 16

/* Start and length, in bytes, of the blocks that a command names. */
static int
extent(const struct nvme_ns *ns, const struct nvme_cmd *cmd, uint64_t *off,
    uint64_t *len)
{
	uint64_t slba = cmd->cdw10 | (uint64_t)cmd->cdw11 << 32;
	uint64_t nlb = (uint64_t)(cmd->cdw12 & 0xffff) + 1;

	if (slba >= ns->blocks || nlb > ns->blocks - slba)
		return (NVME_LBA_RANGE | NVME_DNR);
	*off = slba << ns->shift;
	*len = nlb << ns->shift;
	return (NVME_OK);
}

/* Must what was just written, or will be read, be on the medium? */
static bool
durable(const struct nvme_ctrl *c, const struct nvme_ns *ns,
    const struct nvme_cmd *cmd, bool write)
{
	return (nvme_ns_is_file(ns) && ((cmd->cdw12 & NVME_RW_FUA) != 0 ||
	    (write && !c->feat.write_cache)));
}

/* --- read, write, compare ------------------------------------------------- */

struct move {
	struct nvme_ns *ns;
	uint64_t off;
};

static int
move_read(void *arg, struct iovec *iov, unsigned int n, uint64_t pos,
    size_t len)
{
	const struct move *m = arg;

	return (nvme_ns_read(m->ns, m->off + pos, iov, n, len));
}

static int
move_write(void *arg, struct iovec *iov, unsigned int n, uint64_t pos,
    size_t len)
{
	const struct move *m = arg;

	return (nvme_ns_write(m->ns, m->off + pos, iov, n, len));
}

static int
move_compare(void *arg, struct iovec *iov, unsigned int n, uint64_t pos,
    size_t len)
{
	const struct move *m = arg;

	return (nvme_ns_compare(m->ns, m->off + pos, iov, n, len));
}

/* Check a command that moves data; *m and *len say what. */
static int
prepare(struct nvme_ns *ns, const struct nvme_cmd *cmd, struct move *m,
    uint64_t *len)
{
	/* Before the range: MDTS is a limit on the command itself. */
	if (((uint64_t)(cmd->cdw12 & 0xffff) + 1) << ns->shift >
	    NVME_MAX_XFER)
		return (NVME_INVALID_FIELD | NVME_DNR);
	m->ns = ns;
	return (extent(ns, cmd, &m->off, len));
}

static int
io_read(struct nvme_ctrl *c, struct nvme_req *req, struct nvme_ns *ns)
{
	struct move m;
	struct nvme_xfer x = { .dir = MT_DMA_WRITE, .fn = move_read,
	    .arg = &m };
	uint64_t len;
	int status;

	if ((status = prepare(ns, &req->cmd, &m, &len)) != NVME_OK)
		return (status);
	if (nvme_unlikely(durable(c, ns, &req->cmd, false)) &&
	    (status = nvme_flush(c, req, ns->nsid)) != NVME_OK)
		return (status);
	x.len = len;
	x.mem = nvme_ns_ptr(ns, m.off);
	status = nvme_xfer(c, req, &x);
	if (status == NVME_OK) {
		c->stats.reads++;
		c->stats.sectors_read += len / 512;
	}
	return (status);
}

static int
io_compare(struct nvme_ctrl *c, struct nvme_req *req, struct nvme_ns *ns)
{
	struct move m;
	struct nvme_xfer x = { .dir = MT_DMA_READ, .fn = move_compare,
	    .arg = &m };
	uint64_t len;
	int status;

	if ((status = prepare(ns, &req->cmd, &m, &len)) != NVME_OK)
		return (status);
	if (durable(c, ns, &req->cmd, false) &&
	    (status = nvme_flush(c, req, ns->nsid)) != NVME_OK)
		return (status);
	x.len = len;
	status = nvme_xfer(c, req, &x);
	if (status == NVME_OK) {
		c->stats.reads++;
		c->stats.sectors_read += len / 512;
	}
	return (status);
}

static int
io_write(struct nvme_ctrl *c, struct nvme_req *req, struct nvme_ns *ns)
{
	struct move m;
	struct nvme_xfer x = { .dir = MT_DMA_READ, .fn = move_write,
	    .arg = &m };
	uint64_t len;
	int status;

	/* No directives, so of no type. */
	if ((req->cmd.cdw12 & 0xfu << 20) != 0)
		return (NVME_INVALID_FIELD | NVME_DNR);
	if (req->flushed == 0) {
		status = prepare(ns, &req->cmd, &m, &len);
		if (status != NVME_OK)
			return (status);
		x.len = len;
		status = nvme_xfer(c, req, &x);
		if (status != NVME_OK)
			return (status);
		c->stats.writes++;
		c->stats.sectors_written += len / 512;
	}
	if (nvme_unlikely(durable(c, ns, &req->cmd, true)))
		return (nvme_flush(c, req, ns->nsid));
	return (NVME_OK);
}

/* --- zeroes, deallocation ------------------------------------------------- */

static int
io_write_zeroes(struct nvme_ctrl *c, struct nvme_req *req, struct nvme_ns *ns)
{
	bool deallocate = (req->cmd.cdw12 & NVME_WZ_DEAC) != 0;
	uint64_t len, off, step;
	int status;

	if ((status = extent(ns, &req->cmd, &off, &len)) != NVME_OK)
		return (status);
	if (req->pos < len) {
		step = len - req->pos;
		if (step > ZERO_STEP)
			step = ZERO_STEP;
		status = nvme_ns_zero(ns, off + req->pos, step, deallocate);
		if (status != NVME_OK)
			return (status);
		c->moved += step;
		req->pos += step;
		if (req->pos < len)
			return (NVME_AGAIN);
		c->stats.writes++;
	}
	if (durable(c, ns, &req->cmd, true))
		return (nvme_flush(c, req, ns->nsid));
	return (NVME_OK);
}

/*
 * Deallocate a part of what n ranges name, from byte req->pos of all of them
 * on.  The guest may have changed them since the last part: that is its loss.
 */
static int
deallocate(struct nvme_req *req, struct nvme_ns *ns,
    const struct nvme_dsm_range *range, unsigned int n)
{
	uint64_t left = DEALLOCATE_STEP, len, off, skip = req->pos, step;
	unsigned int calls = 0, i;
	int status;

	for (i = 0; i < n; i++) {
		len = (uint64_t)range[i].nlb << ns->shift;
		if (skip >= len) {
			skip -= len;
			continue;
		}
		if (left == 0 || calls++ == DEALLOCATE_CALLS)
			return (NVME_AGAIN);
		off = (range[i].slba << ns->shift) + skip;
		len -= skip;
		/* Whole pages: what is cut in two cannot be given back. */
		step = DEALLOCATE_STEP - off % DEALLOCATE_STEP;
		if (step > len)
			step = len;
		status = nvme_ns_deallocate(ns, off, step);
		if (status != NVME_OK)
			return (status);
		req->pos += step;
		if (step < len)
			return (NVME_AGAIN);
		left -= step < left ? step : left;
		skip = 0;
	}
	return (NVME_OK);
}

static int
io_dsm(struct nvme_ctrl *c, struct nvme_req *req, struct nvme_ns *ns)
{
	const struct nvme_cmd *cmd = &req->cmd;
	struct nvme_dsm_range *range = (void *)c->scratch;
	unsigned int i, n = (cmd->cdw10 & 0xff) + 1;
	int status;

	if (NVME_CMD_PSDT(cmd) == 3)
		return (NVME_INVALID_FIELD | NVME_DNR);
	status = nvme_xfer_buf(c, req, MT_DMA_READ, range,
	    n * sizeof(*range));
	if (status != NVME_OK)
		return (status);
	for (i = 0; i < n; i++)
		if (range[i].slba > ns->blocks ||
		    range[i].nlb > ns->blocks - range[i].slba)
			return (NVME_LBA_RANGE | NVME_DNR);
	/* The other attributes are hints that we have no use for. */
	if ((cmd->cdw11 & NVME_DSM_DEALLOCATE) == 0)
		return (NVME_OK);
	return (deallocate(req, ns, range, n));
}

/* --- flush ---------------------------------------------------------------- */

int
nvme_flush(struct nvme_ctrl *c, struct nvme_req *req, uint32_t nsid)
{
	unsigned int i = nsid == NVME_NSID_ALL ? 0 : nsid - 1;
	unsigned int end = nsid == NVME_NSID_ALL ? c->nns : nsid;
	struct nvme_ns *ns;

	for (i = req->flushed > i ? req->flushed : i; i < end; i++) {
		ns = c->ns[i];
		if (nvme_unlikely(ns->error != 0))
			return (NVME_WRITE_FAULT | NVME_DNR);
		if (!ns->dirty && !ns->syncing)
			continue;
		req->flushed = i + 1;
		/* A sync that has begun may miss what came since. */
		nvme_req_queue(ns->dirty ? &ns->flush_next : &ns->flush_now,
		    req);
		if (!ns->syncing)
			nvme_ns_start_sync(ns);
		return (NVME_LATER);
	}
	return (NVME_OK);
}

/*
 * An error is for good.  The kernel tells of it once, and may have dropped
 * what it could not write: a later sync would succeed without it.  So even
 * those are failed whose sync began after the error, and none is retried.
 */
void
nvme_flush_done(struct nvme_ctrl *c, struct nvme_ns *ns, int error)
{
	struct nvme_reqs served = TAILQ_HEAD_INITIALIZER(served);
	struct nvme_req *req;

	ns->syncing = false;
	if (error != 0) {
		nvme_log(c, "%s: %s", ns->path, strerror(error));
		if (ns->error == 0)
			ns->error = error;
	}
	while ((req = TAILQ_FIRST(&ns->flush_now)) != NULL) {
		nvme_req_unqueue(req);
		nvme_req_queue(&served, req);
	}
	if (!TAILQ_EMPTY(&ns->flush_next))
		nvme_ns_start_sync(ns);
	while ((req = TAILQ_FIRST(&served)) != NULL) {
		nvme_req_unqueue(req);
		if (ns->error != 0)
			nvme_complete(c, req, NVME_WRITE_FAULT | NVME_DNR);
		else
			nvme_exec(c, req);
	}
	nvme_shutdown_go_on(c);
}

/* --- all of them ---------------------------------------------------------- */

int
nvme_io(struct nvme_ctrl *c, struct nvme_req *req)
{
	const struct nvme_cmd *cmd = &req->cmd;
	int (*fn)(struct nvme_ctrl *, struct nvme_req *, struct nvme_ns *);

	switch (cmd->opcode) {
	case NVME_IO_READ:
		fn = io_read;
		break;
	case NVME_IO_WRITE:
		fn = io_write;
		break;
	case NVME_IO_FLUSH:
		fn = NULL;
		break;
	case NVME_IO_COMPARE:
		fn = io_compare;
		break;
	case NVME_IO_WRITE_ZEROES:
		fn = io_write_zeroes;
		break;
	case NVME_IO_DSM:
		fn = io_dsm;
		break;
	default:
		return (NVME_INVALID_OPCODE | NVME_DNR);
	}
	if (nvme_unlikely(NVME_CMD_FUSE(cmd) != 0))
		return (NVME_INVALID_FIELD | NVME_DNR);
	if (fn == NULL && cmd->nsid == NVME_NSID_ALL)
		return (nvme_flush(c, req, NVME_NSID_ALL));
	if (nvme_unlikely(cmd->nsid == 0 || cmd->nsid > c->nns))
		return (NVME_INVALID_NSID | NVME_DNR);
	if (fn == NULL)
		return (nvme_flush(c, req, cmd->nsid));
	return (fn(c, req, c->ns[cmd->nsid - 1]));
}
