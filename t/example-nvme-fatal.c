/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVMe controller when it cannot reach its queues.  That their memory
 * answers with errors is fatal, and a reset ends it; that there is none is so
 * only after a while.
 */

#define T_ALARM		300

#include "t/example-nvme-relay.h"

#define FAILED		(NVME_CSTS_RDY | NVME_CSTS_CFS)
#define QUEUE_SIZE	0x10000u	/* of memory, at most */
#define NR_WRITES	10u
#define PATIENCE_US	5000000u	/* with memory that is away */

static const struct nvme_cmd flush = { .opcode = NVME_IO_FLUSH, .nsid = 1 };

static uint64_t seed;
static uint8_t written[NR_WRITES * PAGE];	/* and acknowledged */

/* --- what is on the disk -------------------------------------------------- */

static void
write_some(struct host *h)
{
	unsigned int bad = 0, i;

	fill_random(written, sizeof(written), &seed);
	memcpy(h->mem + DATA, written, sizeof(written));
	for (i = 0; i < NR_WRITES; i++)
		bad += move(h, NVME_IO_WRITE, 1, i * 8, 8, DATA + i * PAGE,
		    PAGE).status != NVME_OK;
	is_int(bad, 0, "something is written");
}

static void
is_written(struct host *h)
{
	unsigned int bad = 0, i;

	memset(h->mem + DATA, 0xee, sizeof(written));
	for (i = 0; i < NR_WRITES; i++)
		bad += move(h, NVME_IO_READ, 1, i * 8, 8, DATA + i * PAGE,
		    PAGE).status != NVME_OK;
	is_int(bad, 0, "it works");
	is_mem(h->mem + DATA, written, sizeof(written),
	    "and has what was written");
}

/* --- resets --------------------------------------------------------------- */

enum cure { BY_CC, BY_FLR, BY_CLIENT, NR_CURES };

static void
cure(struct host *h, enum cure how)
{
	switch (how) {
	case BY_CC:
		reg_set(h, NVME_REG_CC, 0);
		ok(csts_wait(h, ~0u, 0), "a controller reset ends that");
		break;
	case BY_FLR:
		config_set(h, find_cap(h, 0x10) + 8, 0x8000);
		is_hex(reg_get(h, NVME_REG_CSTS), 0, "an FLR ends that");
		break;
	default:
		works(vd_client_reset(h->client), "the client resets it");
		is_hex(reg_get(h, NVME_REG_CSTS), 0, "which ends that");
	}
	config_set(h, 4, 0x0406);
	ok(host_enable(h) && create_pair(h, 1, 256), "it is enabled again");
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY, "CSTS is as ever");
}

/* --- memory that answers with errors -------------------------------------- */

static void
set_error(struct relay *r, size_t off, size_t len, uint32_t error)
{
	set_range(r, off, len);
	r->error = error;
	r->manner = FAIL;
}

/* Nothing is done any more, and new memory does not change that. */
static void
is_still(struct relay *r)
{
	const struct nvme_cmd cmd = { .opcode = NVME_ADM_IDENTIFY,
	    .prp1 = IOVA + DATA2, .cdw10 = 1 };
	struct host *h = r->h;
	unsigned int i;

	r->manner = PASS;
	set_range(r, 0, MEM_SIZE);
	for (i = 0; i < 2; i++) {
		queue_put(h, 0, &cmd);
		queue_ring(h, 0);
		queue_put(h, 1, &flush);
		queue_ring(h, 1);
		if (i == 1)
			break;
		must(vd_client_dma_unmap(h->client, IOVA, MEM_SIZE) == 0);
		host_map(h);
	}
	is_status(queue_take(h, 0, 50), ~0u, "from there on admin commands");
	is_status(queue_take(h, 1, 50), ~0u, "and others are not completed");
	is_int(r->reads + r->writes, 0, "nor is memory accessed");
	is_hex(reg_get(h, NVME_REG_CSTS), FAILED, "even if memory changes");
}

static void
test_error(struct host *h, unsigned int qid, bool cq, uint32_t error,
    enum cure how)
{
	const struct nvme_cmd identify_it = { .opcode = NVME_ADM_IDENTIFY,
	    .prp1 = IOVA + DATA2, .cdw10 = 1 };
	struct relay r;

	diag("%s queue %u, error %u", cq ? "completion" : "submission", qid,
	    error);
	ready(&r, h);
	write_some(h);
	set_error(&r, cq ? CQ_OFF(qid) : SQ_OFF(qid), QUEUE_SIZE, error);
	queue_put(h, qid, qid == 0 ? &identify_it : &flush);
	queue_ring(h, qid);
	ok(csts_wait(h, NVME_CSTS_CFS, NVME_CSTS_CFS), cq ?
	    "a completion that cannot be written is fatal" :
	    "a command that cannot be read is fatal");
	is_hex(reg_get(h, NVME_REG_CSTS), FAILED, "it still is ready");
	is_int(cq ? r.writes : r.reads, 1, "which is not tried again");
	is_still(&r);
	cure(h, how);
	is_written(h);
	leave(&r);
}

/* One command waits for its data when the controller fails. */
static void
fail_under(struct relay *r, unsigned int opcode)
{
	struct nvme_cmd cmd = { .opcode = (uint8_t)opcode, .nsid = 1,
	    .prp1 = IOVA + DATA2, .cdw12 = 7 };
	struct host *h = r->h;

	memset(h->mem + DATA2, 0x77, PAGE);
	hold(r, DATA2, PAGE, T_COUNT(r->held));
	queue_put(h, 1, &cmd);
	queue_ring(h, 1);
	must(wait_held(r, 1));
	set_error(r, SQ_OFF(1), QUEUE_SIZE, EIO);
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	ok(csts_wait(h, NVME_CSTS_CFS, NVME_CSTS_CFS),
	    "it fails while a %s waits for its data",
	    opcode == NVME_IO_READ ? "read" : "write");
}

static void
test_under_way(struct host *h)
{
	struct relay r;

	ready(&r, h);
	write_some(h);
	fail_under(&r, NVME_IO_WRITE);
	reg_set(h, NVME_REG_CC, 0x00464001);
	ok(csts_wait(h, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE),
	    "a shutdown does not wait for it");
	is_hex(reg_get(h, NVME_REG_CSTS), FAILED | NVME_CSTS_SHST_DONE,
	    "nor does it hide the failure");
	release(&r);
	is_status(queue_take(h, 1, 50), ~0u, "what comes late is not used");
	cure(h, BY_CC);
	is_written(h);

	fail_under(&r, NVME_IO_READ);
	reg_set(h, NVME_REG_CC, 0);
	usleep(50000);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY,
	    "a reset waits for what is written to memory");
	release(&r);
	cure(h, BY_CC);
	is_written(h);

	fail_under(&r, NVME_IO_READ);
	cure(h, BY_CLIENT);
	release(&r);
	is_written(h);
	leave(&r);
}

/* No answer is as bad as an error. */
static void
test_silence(struct host *h)
{
	struct relay r;

	ready(&r, h);
	write_some(h);
	set_range(&r, CQ_OFF(1), QUEUE_SIZE);
	r.manner = SWALLOW;
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	ok(csts_wait(h, NVME_CSTS_CFS, NVME_CSTS_CFS),
	    "a completion that is not answered is fatal");
	is_still(&r);
	cure(h, BY_FLR);
	is_written(h);
	leave(&r);
}

/* --- memory that is away -------------------------------------------------- */

static void
map_part(struct host *h, size_t from, size_t to)
{
	must(vd_client_dma_map(h->client, IOVA + from, to - from,
	    VD_DMA_READABLE | VD_DMA_WRITABLE, h->memfd,
	    h->memfd == -1 ? 0 : from) == 0);
}

/* Take the memory of a queue away, which is at off, */
static void
take_queue(struct host *h, size_t off)
{
	must(vd_client_dma_unmap(h->client, IOVA, MEM_SIZE) == 0);
	map_part(h, 0, off);
	map_part(h, off + QUEUE_SIZE, MEM_SIZE);
}

/* and give it back, in one piece with all the rest. */
static void
give_queue(struct host *h, size_t off)
{
	must(vd_client_dma_unmap(h->client, IOVA, off) == 0);
	must(vd_client_dma_unmap(h->client, IOVA + off + QUEUE_SIZE,
	    MEM_SIZE - off - QUEUE_SIZE) == 0);
	host_map(h);
}

/* A queue's memory is away for a moment: a client makes pieces of it. */
static void
test_away(struct host *h, size_t off, const char *what)
{
	take_queue(h, off);
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	is_status(queue_take(h, 1, 50), ~0u, "without %s no answer", what);
	is_status(identify(h, 1, 0), NVME_OK, "other queues go on");
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY, "it has not failed");
	give_queue(h, off);
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK,
	    "the answer comes with the memory");
}

/* It is away for good. */
static void
test_gone(struct host *h, size_t off, const char *what)
{
	write_some(h);
	take_queue(h, off);
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	/* Without a message that would wake it. */
	usleep(PATIENCE_US + 2000000);
	is_hex(reg_get(h, NVME_REG_CSTS), FAILED, "%s that is away for long "
	    "is fatal", what);
	give_queue(h, off);
	is_status(queue_take(h, 1, 50), ~0u, "and too late when it is back");
	is_hex(reg_get(h, NVME_REG_CSTS), FAILED, "it stays failed");
	cure(h, BY_CC);
	is_written(h);
}

/* There is memory for a CQ, but it is not to be written to. */
static void
test_read_only(struct relay *r)
{
	struct host *h = r->h;

	take_queue(h, CQ_OFF(1));
	must(vd_client_dma_map(h->client, IOVA + CQ_OFF(1), QUEUE_SIZE,
	    VD_DMA_READABLE, -1, 0) == 0);
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	ok(csts_wait(h, NVME_CSTS_CFS, NVME_CSTS_CFS),
	    "a CQ in memory that may only be read is fatal");
	must(vd_client_dma_unmap(h->client, IOVA + CQ_OFF(1),
	    QUEUE_SIZE) == 0);
	give_queue(h, CQ_OFF(1));
	is_still(r);
	cure(h, BY_FLR);
	is_written(h);
}

/* What nobody waits for is not missed. */
static void
test_deleted(struct host *h)
{
	must(create_pair(h, 2, 16));
	take_queue(h, CQ_OFF(2));
	queue_put(h, 2, &flush);
	queue_ring(h, 2);
	is_status(queue_take(h, 2, 50), ~0u, "an answer waits");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 2), NVME_OK,
	    "the SQ is deleted");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 2), NVME_OK,
	    "and the CQ, whose memory is away");
	usleep(PATIENCE_US + 1000000);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY,
	    "that is not waited for any more");
	give_queue(h, CQ_OFF(2));
	is_written(h);
}

/* Bus mastering is the guest's to switch, and takes as long as it likes. */
static void
test_master(struct host *h)
{
	/* Nor does it matter then that memory was away before. */
	take_queue(h, CQ_OFF(1));
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	is_status(queue_take(h, 1, 50), ~0u, "an answer waits");
	config_set(h, 4, 0x0402);
	queue_put(h, 1, &flush);
	queue_ring(h, 1);
	usleep(PATIENCE_US + 1000000);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY,
	    "and may do so while bus mastering is off");
	give_queue(h, CQ_OFF(1));
	usleep(PATIENCE_US + 1000000);
	is_status(queue_take(h, 1, 50), ~0u,
	    "nothing is done while bus mastering is off");
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY,
	    "and nothing has failed");
	config_set(h, 4, 0x0406);
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK,
	    "it is done when it is on again");
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK, "all of it");
	is_written(h);

	reg_set(h, NVME_REG_CC, 0x00464001);
	ok(csts_wait(h, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE), "shut down");
	config_set(h, 4, 0x0402);
	usleep(20000);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY |
	    NVME_CSTS_SHST_DONE, "as it is without bus mastering");
	cure(h, BY_CC);
	is_written(h);
}

/* -------------------------------------------------------------------------- */

/* Doorbells and memory are messages. */
static void
test_message(const char *file)
{
	static const uint32_t errors[] = { EFAULT, EIO, EACCES };
	unsigned int i;
	struct relay r;
	struct host h;

	host_start(&h, (const char *const[]){ "--doorbells", "message",
	    "--file", file, NULL });
	for (i = 0; i < 4 * NR_CURES; i++)
		test_error(&h, i % 2, (i / 2) % 2, errors[i / 4 % 3],
		    (enum cure)((i + i / 4) % NR_CURES));
	test_under_way(&h);
	test_silence(&h);
	ready(&r, &h);
	test_away(&h, SQ_OFF(1), "an SQ");
	test_away(&h, CQ_OFF(1), "a CQ");
	test_gone(&h, SQ_OFF(1), "an SQ");
	test_read_only(&r);
	leave(&r);
	is_int(host_stop(&h, SIGTERM), 0, "SIGTERM ends it cleanly");
}

/* Both are mapped. */
static void
test_mapped(const char *file)
{
	struct host h;

	host_start(&h, (const char *const[]){ "--file", file, NULL });
	host_ready(&h);
	test_away(&h, SQ_OFF(1), "an SQ");
	test_away(&h, CQ_OFF(1), "a CQ");
	test_gone(&h, CQ_OFF(1), "a CQ");
	test_deleted(&h);
	test_master(&h);
	is_int(host_stop(&h, SIGTERM), 0, "SIGTERM ends it cleanly");
}

int
main(void)
{
	char file[] = "/tmp/example-nvme-file.XXXXXX";

	seed = t_env("T_SEED", (uint64_t)time(NULL));
	diag("T_SEED=%" PRIu64, seed);
	must(new_file(file, 1 << 20));
	test_message(file);
	test_mapped(file);
	unlink(file);
	return (done());
}
