/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The controller: its registers, and what enabling, disabling, shutting down
 * and resetting it mean.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>

#include <bsd/string.h>

#include "nvme.h"

#define CAP_TO		30	/* 15 s to get ready; it takes no time */

void
nvme_log(struct nvme_ctrl *c, const char *fmt, ...)
{
	va_list ap;

	if (!c->verbose)
		return;
	fputs("nvme: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

uint64_t
nvme_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

/* --- enabling, disabling, shutting down ----------------------------------- */

/* Why the controller cannot work with what the host has set up, or NULL. */
static const char *
config_error(const struct nvme_ctrl *c)
{
	uint64_t mask = (UINT64_C(4096) << NVME_CC_MPS(c->cc)) - 1;
	uint32_t sqs = (c->aqa & 0xfff) + 1, cqs = (c->aqa >> 16 & 0xfff) + 1;

	if (NVME_CC_CSS(c->cc) != 0)
		return ("command set");
	if (NVME_CC_AMS(c->cc) != 0)
		return ("arbitration");
	if (NVME_CC_MPS(c->cc) > NVME_MPSMAX)
		return ("page size");
	/* May be left 0 until there are I/O queues. */
	if (NVME_CC_IOSQES(c->cc) != 0 &&
	    NVME_CC_IOSQES(c->cc) != NVME_SQE_SHIFT)
		return ("submission entry size");
	if (NVME_CC_IOCQES(c->cc) != 0 &&
	    NVME_CC_IOCQES(c->cc) != NVME_CQE_SHIFT)
		return ("completion entry size");
	if (sqs < 2 || cqs < 2)
		return ("admin queue size");
	if ((c->asq & mask) != 0 || (c->acq & mask) != 0)
		return ("admin queue alignment");
	if (c->asq + (sqs << NVME_SQE_SHIFT) - 1 < c->asq ||
	    c->acq + (cqs << NVME_CQE_SHIFT) - 1 < c->acq)
		return ("admin queue address");
	return (NULL);
}

static void
enable(struct nvme_ctrl *c)
{
	const char *why;

	/* A host that does not wait for RDY to go: see nvme_ctrl_settled(). */
	if (c->stopping)
		return;
	why = config_error(c);
	/* A shutdown while disabled may have left either. */
	c->csts &= ~(NVME_CSTS_SHST | NVME_CSTS_CFS);
	if (why != NULL) {
		nvme_log(c, "cannot be enabled: bad %s", why);
		c->csts |= NVME_CSTS_CFS;
		return;
	}
	c->page_shift = 12 + NVME_CC_MPS(c->cc);
	/* What the doorbells say is of queues that are no more. */
	nvme_queues_reset(c, true);
	nvme_cq_start(c, 0, c->acq, (c->aqa >> 16 & 0xfff) + 1, true, 0);
	nvme_sq_start(c, 0, c->asq, (c->aqa & 0xfff) + 1, 0);
	c->csts |= NVME_CSTS_RDY;
	nvme_log(c, "enabled");
}

/*
 * A controller reset: everything but the admin queue registers goes.  The
 * host may use its memory for something else when it sees that we are not
 * ready any more, so what is being written to it is waited for, unless it has
 * to be now.
 */
static void
disable(struct nvme_ctrl *c, bool now)
{
	nvme_queues_reset(c, now);
	nvme_features_reset(c);
	nvme_intr_reset(c);
	c->naers = 0;
	c->nevents = 0;
	c->masked = 0;
	c->intm = 0;
	c->stopping = !now && c->inflight > 0;
	c->csts = c->stopping ? NVME_CSTS_RDY : 0;
}

/*
 * A shutdown that cannot save all data never is complete, and as no completion
 * could tell of it, it is a fatal status (NVMe 1.4, 3.1.6): hosts that look
 * for SHST alone give up after their timeout, and say so.
 */
void
nvme_shutdown_go_on(struct nvme_ctrl *c)
{
	struct nvme_ns *ns;
	unsigned int i;
	bool busy = c->njobs > 0, failed = false;

	if ((c->csts & NVME_CSTS_SHST) != NVME_CSTS_SHST_BUSY)
		return;
	for (i = 0; i < c->nns; i++) {
		ns = c->ns[i];
		if (ns->dirty && !ns->syncing)
			nvme_ns_start_sync(ns);
		busy |= ns->syncing;
		failed |= ns->error != 0;
	}
	if (busy)
		return;
	if (failed) {
		c->csts |= NVME_CSTS_CFS;
		nvme_log(c, "cannot be shut down: data was lost");
	} else {
		c->csts = (c->csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_DONE;
		nvme_log(c, "shut down");
	}
}

void
nvme_ctrl_settled(struct nvme_ctrl *c)
{
	if (c->stopping) {
		c->stopping = false;
		c->csts &= ~NVME_CSTS_RDY;
		nvme_log(c, "disabled, and nothing is in flight any more");
		if ((c->cc & NVME_CC_EN) != 0)
			enable(c);
	}
	nvme_shutdown_go_on(c);
}

/*
 * The host finds CFS when it wonders why nothing comes, and resets us.  This
 * may be called from within what uses queues and commands, so they are given
 * up later, by nvme_work().
 */
void
nvme_ctrl_fail(struct nvme_ctrl *c, const char *why)
{
	if (!nvme_enabled(c))
		return;
	c->csts |= NVME_CSTS_CFS;
	c->failed = true;
	nvme_queues_stick(c);
	nvme_log(c, "has failed: %s", why);
}

static void
write_cc(struct nvme_ctrl *c, uint32_t val)
{
	uint32_t old = c->cc;

	c->cc = val & NVME_CC_MASK;
	if ((old & NVME_CC_EN) != 0 && (val & NVME_CC_EN) == 0) {
		nvme_log(c, "disabled");
		disable(c, false);
	} else if ((old & NVME_CC_EN) == 0 && (val & NVME_CC_EN) != 0) {
		enable(c);
	}
	if (NVME_CC_SHN(old) == 0 && NVME_CC_SHN(val) != 0) {
		c->csts = (c->csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_BUSY;
		nvme_shutdown_go_on(c);
	}
}

/* --- registers ------------------------------------------------------------ */

/*
 * The library cuts 8-byte accesses in two and refuses those that are not
 * aligned, or shorter than 4 bytes.
 */
static enum mt_result
reg_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	struct nvme_ctrl *c = arg;

	(void)size;
	(void)attrs;
	switch (off) {
	case NVME_REG_CAP:
		*val = (uint32_t)c->cap;
		break;
	case NVME_REG_CAP + 4:
		*val = c->cap >> 32;
		break;
	case NVME_REG_VS:
		*val = NVME_VERSION;
		break;
	case NVME_REG_INTMS:
	case NVME_REG_INTMC:
		*val = c->intm;
		break;
	case NVME_REG_CC:
		*val = c->cc;
		break;
	case NVME_REG_CSTS:
		*val = c->csts;
		break;
	case NVME_REG_AQA:
		*val = c->aqa;
		break;
	case NVME_REG_ASQ:
		*val = (uint32_t)c->asq;
		break;
	case NVME_REG_ASQ + 4:
		*val = c->asq >> 32;
		break;
	case NVME_REG_ACQ:
		*val = (uint32_t)c->acq;
		break;
	case NVME_REG_ACQ + 4:
		*val = c->acq >> 32;
		break;
	default:
		*val = 0;
	}
	return (MT_OK);
}

static void
set_half(uint64_t *reg, bool high, uint64_t val)
{
	if (high)
		*reg = (*reg & 0xffffffffu) | val << 32;
	else
		*reg = (*reg & ~UINT64_C(0xffffffff)) | val;
}

static enum mt_result
reg_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct nvme_ctrl *c = arg;

	(void)size;
	(void)attrs;
	val &= 0xffffffffu;
	switch (off) {
	case NVME_REG_INTMS:
		c->intm |= (uint32_t)val;
		c->intr_dirty = true;
		break;
	case NVME_REG_INTMC:
		c->intm &= ~(uint32_t)val;
		c->intr_dirty = true;
		break;
	case NVME_REG_CC:
		write_cc(c, (uint32_t)val);
		break;
	case NVME_REG_AQA:
		c->aqa = (uint32_t)val & 0x0fff0fffu;
		break;
	case NVME_REG_ASQ:
	case NVME_REG_ASQ + 4:
		set_half(&c->asq, off != NVME_REG_ASQ, val);
		break;
	case NVME_REG_ACQ:
	case NVME_REG_ACQ + 4:
		set_half(&c->acq, off != NVME_REG_ACQ, val);
		break;
	default:
		break;
	}
	return (MT_OK);
}

const struct mt_io_ops nvme_reg_ops = {
	.read = reg_read,
	.write = reg_write,
	.endian = MT_LITTLE,
	.valid = { .min = 4, .max = 8 },
	.impl = { .min = 4, .max = 4 },
};

/* --- what the server tells ------------------------------------------------ */

static void
on_reset(void *arg, enum vd_reset why)
{
	static const char *const names[] = {
		[VD_RESET_DEVICE] = "reset by the client",
		[VD_RESET_FLR] = "reset by the guest",
		[VD_RESET_LOST] = "reset: the client is gone",
	};
	struct nvme_ctrl *c = arg;

	nvme_log(c, "%s", names[why]);
	if ((c->csts & NVME_CSTS_RDY) != 0 &&
	    (c->csts & NVME_CSTS_SHST) == 0)
		c->stats.unsafe_shutdowns++;
	disable(c, true);
	c->cc = 0;
	c->aqa = 0;
	c->asq = 0;
	c->acq = 0;
	c->master = false;
	/* What went wrong for one client is no business of the next. */
	if (why == VD_RESET_LOST)
		memset(c->errors, 0, sizeof(c->errors));
}

static void
on_connected(void *arg)
{
	nvme_log(arg, "a client has connected");
}

static void
on_dma_map(void *arg, struct mt_range iova)
{
	(void)iova;
	nvme_queues_retry(arg);
}

static void
on_dma_unmap(void *arg, struct mt_range iova)
{
	nvme_queues_unmap(arg, iova);
}

#define PCI_COMMAND		4
#define PCI_COMMAND_MASTER	(1u << 2)

/* Interrupt modes and bus mastering may have changed. */
static void
on_config_written(void *arg, uint32_t off, uint32_t len)
{
	struct nvme_ctrl *c = arg;
	bool master;

	(void)off;
	(void)len;
	c->intr_dirty = true;
	master = (vd_pci_config_get(c->server, PCI_COMMAND, 2) &
	    PCI_COMMAND_MASTER) != 0;
	if (master == c->master)
		return;
	c->master = master;
	c->missing = 0;
	if (!master)
		nvme_queues_unmap(c, (struct mt_range){ 0, MT_LAST_MAX });
	else
		nvme_queues_retry(c);
}

static const struct vd_device_ops device_ops = {
	.reset = on_reset,
	.connected = on_connected,
	.dma_map = on_dma_map,
	.dma_unmap = on_dma_unmap,
	.config_written = on_config_written,
};

static void
on_log(void *arg, int level, const char *msg)
{
	nvme_log(arg, "%s%s", level <= LOG_ERR ? "error: " :
	    level <= LOG_WARNING ? "warning: " : "", msg);
}

/* --- creation ------------------------------------------------------------- */

struct nvme_ctrl *
nvme_ctrl_create(struct mt_topology *t, const struct nvme_options *opt)
{
	struct nvme_ctrl *c;
	int error;

	if ((c = calloc(1, sizeof(*c))) == NULL)
		return (NULL);
	c->topology = t;
	c->map_doorbells = opt->map_doorbells;
	c->verbose = opt->verbose;
	strlcpy(c->serial, opt->serial, sizeof(c->serial));
	strlcpy(c->model, opt->model, sizeof(c->model));
	c->cap = NVME_CAP_MQES(NVME_MQES) | NVME_CAP_CQR |
	    NVME_CAP_TO(CAP_TO) | NVME_CAP_CSS_NVM |
	    NVME_CAP_MPSMAX(NVME_MPSMAX);
	c->page_shift = 12;
	c->stats.started_ns = nvme_now();
	LIST_INIT(&c->flying);
	TAILQ_INIT(&c->ready);
	TAILQ_INIT(&c->idle_jobs);

	if ((c->server = vd_server_create(t, &device_ops, c)) == NULL)
		goto fail;
	vd_server_set_log(c->server, on_log, c);
	c->dma = vd_server_dma(c->server);
	if (nvme_pci_init(c) == -1)
		goto fail;
	nvme_queues_reset(c, true);
	nvme_features_reset(c);
	return (c);
fail:
	error = errno;
	vd_server_destroy(c->server);
	nvme_pci_fini(c);
	free(c);
	errno = error;
	return (NULL);
}

int
nvme_ctrl_add_ns(struct nvme_ctrl *c, struct nvme_ns *ns)
{
	if (c->nns == NVME_MAX_NS) {
		errno = ENOSPC;
		return (-1);
	}
	if (nvme_ns_is_file(ns) && c->sync == NULL &&
	    (c->sync = nvme_sync_create()) == NULL)
		return (-1);
	ns->ctrl = c;
	c->ns[c->nns++] = ns;
	ns->nsid = c->nns;
	nvme_features_reset(c);		/* there may be a write cache now */
	return (0);
}

void
nvme_ctrl_destroy(struct nvme_ctrl *c)
{
	unsigned int i;

	disable(c, true);
	/* The end of the client is the end of what could not be given up. */
	vd_server_destroy(c->server);
	nvme_log(c, "commands whose data was mapped: %" PRIu64 ", came in "
	    "messages: %" PRIu64 "; bytes read by message: %" PRIu64
	    ", written: %" PRIu64, c->stats.by_map, c->stats.by_message,
	    c->stats.bytes_in, c->stats.bytes_out);
	nvme_jobs_fini(c);
	nvme_pci_fini(c);
	nvme_sync_destroy(c->sync);
	for (i = 0; i < c->nns; i++)
		nvme_ns_destroy(c->ns[i]);
	free(c);
}
