/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The life of the NVMe controller: enabled, shut down, reset, left by its
 * client; with memory that goes and comes, and interrupts.
 */

#define T_ALARM		300

#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#include "t/example-nvme.h"

/* --- enabling ------------------------------------------------------------- */

static void
try_enable(struct host *h, uint32_t cc, uint32_t aqa, uint64_t asq,
    uint64_t acq, const char *why)
{
	reg_set(h, NVME_REG_CC, 0);
	reg_set(h, NVME_REG_AQA, aqa);
	reg_set64(h, NVME_REG_ASQ, asq);
	reg_set64(h, NVME_REG_ACQ, acq);
	reg_set(h, NVME_REG_CC, cc);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_CFS, "not with %s", why);
}

static void
test_enable(struct host *h)
{
	const uint64_t sq = IOVA, cq = IOVA + 0x10000;
	const uint32_t aqa = 0x001f001f, cc = 0x00460001;

	is_hex(reg_get(h, NVME_REG_CC), 0, "CC is 0 at first");
	is_hex(reg_get(h, NVME_REG_CSTS), 0, "CSTS, too");
	try_enable(h, cc | 1 << 4, aqa, sq, cq, "another command set");
	try_enable(h, cc | 5 << 7, aqa, sq, cq, "pages of 128 KiB");
	try_enable(h, cc | 1 << 11, aqa, sq, cq, "weighted arbitration");
	try_enable(h, 0x00470001, aqa, sq, cq, "entries of 128 bytes");
	try_enable(h, 0x00560001, aqa, sq, cq, "completions of 32 bytes");
	try_enable(h, cc, 0x001f0000, sq, cq, "a submission queue of one");
	try_enable(h, cc, 0x0000001f, sq, cq, "a completion queue of one");
	try_enable(h, cc, aqa, sq + 64, cq, "a queue that is not aligned");
	try_enable(h, cc | 1 << 7, aqa, sq + 4096, cq,
	    "a queue that is not aligned to larger pages");
	try_enable(h, cc, 0x0fff0fff, UINT64_C(0xfffffffffffff000), cq,
	    "a queue over the end of all addresses");
	ok(host_enable(h), "but otherwise");
	ok(host_enable(h), "again and again");
	/* Entry sizes are for I/O queues: an admin queue has no choice. */
	reg_set(h, NVME_REG_CC, 0);
	queue_init(h, 0, ADMIN_ENTRIES);
	reg_set(h, NVME_REG_CC, 1);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY,
	    "without entry sizes, too");
	is_status(identify(h, 1, 0), NVME_OK, "commands work");
	is_status(create_cq(h, 1, 16, 1), NVME_BAD_QUEUE_SIZE,
	    "but I/O queues do not");
}

/* Pages of 64 KiB: all that depends on them. */
static void
test_large_pages(struct host *h)
{
	uint64_t *list = (void *)(h->mem + LISTS);
	unsigned int i;

	reg_set(h, NVME_REG_CC, 0);
	queue_init(h, 0, ADMIN_ENTRIES);
	reg_set(h, NVME_REG_CC, 0x00460001 | 4 << 7);
	is_hex(reg_get(h, NVME_REG_CSTS), NVME_CSTS_RDY, "64 KiB pages work");
	ok(create_pair(h, 1, 256), "a queue is made");
	for (i = 0; i < 16; i++)
		list[i] = IOVA + DATA + (i + 1) * 0x20000;
	memset(h->mem + DATA, 0x11, 0x400000);
	is_status(io(h, .opcode = NVME_IO_WRITE, .nsid = 1,
	    .prp1 = IOVA + DATA + 0x8000, .prp2 = IOVA + LISTS,
	    .cdw12 = 512 - 1), NVME_OK, "256 KiB are written");
	memset(h->mem + DATA, 0, 0x400000);
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA + 0x8000, .prp2 = IOVA + LISTS,
	    .cdw12 = 512 - 1), NVME_OK, "and read");
	ok(h->mem[DATA + 0x8000] == 0x11 && h->mem[DATA + 0xffff] == 0x11 &&
	    h->mem[DATA + 0x10000] == 0 && h->mem[DATA + 0x1ffff] == 0 &&
	    h->mem[DATA + 0x20000] == 0x11 && h->mem[DATA + 0x87fff] == 0x11
	    && h->mem[DATA + 0x88000] == 0, "to the right places");
}

/* --- memory that goes and comes ------------------------------------------- */

static void
remap(struct host *h, size_t from, size_t to, bool map)
{
	if (map)
		must(vd_client_dma_map(h->client, IOVA + from, to - from,
		    VD_DMA_READABLE | VD_DMA_WRITABLE, h->memfd, from) == 0);
	else
		must(vd_client_dma_unmap(h->client, IOVA + from,
		    to - from) == 0);
}

static void
test_remap(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA };
	size_t cut;
	unsigned int bad = 0, early = 0, i, j;

	must(host_enable(h) && create_pair(h, 1, 1024));
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "a queue works");
	for (j = 0; j < 60; j++) {
		remap(h, 0, MEM_SIZE, false);
		for (i = 0; i < 5; i++)
			queue_put(h, 1, &cmd);
		queue_ring(h, 1);
		early += queue_peek(h, 1, j == 0 ? 100 : 3).status != ~0u;
		bad += reg_get(h, NVME_REG_CSTS) != NVME_CSTS_RDY;
		remap(h, 0, MEM_SIZE, true);
		for (i = 0; i < 5; i++)
			bad += queue_take(h, 1, ANSWER_MS).status != NVME_OK;
	}
	is_int(early, 0, "without memory nothing is done");
	is_int(bad, 0, "it is done when the memory is back");

	/* In pieces that cut through queues. */
	bad = 0;
	for (i = 0; i < 4; i++) {
		cut = (i < 2 ? SQ_OFF(1) : CQ_OFF(1)) + (i % 2) * 2 * PAGE;
		remap(h, 0, MEM_SIZE, false);
		remap(h, 0, cut, true);
		remap(h, cut, MEM_SIZE, true);
		for (j = 0; j < 1100; j++)
			bad += io(h, .opcode = NVME_IO_READ, .nsid = 1,
			    .prp1 = IOVA + DATA).status != NVME_OK;
		remap(h, 0, cut, false);
		remap(h, cut, MEM_SIZE, false);
		remap(h, 0, MEM_SIZE, true);
	}
	is_int(bad, 0, "queues work that lie in two pieces of memory");
}

/* A part of the memory is away: what needs it waits, or fails, alone. */
static void
test_parts(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA };
	unsigned int bad, i;
	struct answer a;

	/* The CQ: answers wait, and none is lost. */
	remap(h, 0, MEM_SIZE, false);
	remap(h, 0, CQ_OFF(1), true);
	remap(h, CQ_OFF(1) + 0x10000, MEM_SIZE, true);
	for (i = 0; i < 50; i++)
		queue_put(h, 1, &cmd);
	queue_ring(h, 1);
	is_hex(queue_peek(h, 1, 50).status, ~0u, "without a CQ no answer");
	is_status(identify(h, 1, 0), NVME_OK, "other queues go on");
	remap(h, CQ_OFF(1), CQ_OFF(1) + 0x10000, true);
	bad = 0;
	for (i = 0; i < 50; i++) {
		a = queue_take(h, 1, ANSWER_MS);
		bad += a.status != NVME_OK;
	}
	is_int(bad, 0, "fifty answers come with it");

	/* And where it is the data that is away. */
	remap(h, CQ_OFF(1), CQ_OFF(1) + 0x10000, false);
	remap(h, CQ_OFF(1) + 0x10000, MEM_SIZE, false);
	remap(h, CQ_OFF(1), DATA, true);
	is_status(command(h, 1, cmd), NVME_DATA_TRANSFER,
	    "data that is away is an error");
	remap(h, DATA, MEM_SIZE, true);
	is_status(command(h, 1, cmd), NVME_OK, "and later not");

	config_set(h, 4, 0x0402);
	queue_put(h, 1, &cmd);
	queue_ring(h, 1);
	is_hex(queue_peek(h, 1, 50).status, ~0u,
	    "nothing is done while bus mastering is off");
	config_set(h, 4, 0x0406);
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK,
	    "it is when it is on again");
	/* All in one piece, for those that come after. */
	remap(h, 0, CQ_OFF(1), false);
	remap(h, CQ_OFF(1), DATA, false);
	remap(h, DATA, MEM_SIZE, false);
	remap(h, 0, MEM_SIZE, true);
}

/*
 * An SQ is deleted while the answers to its commands wait for the memory of
 * their CQ, and made again for another CQ: that one gets none of them.
 */
static void
test_other_cq(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_FLUSH, .nsid = 1 };
	unsigned int bad, i;
	struct answer a;
	uint16_t cid;

	must(host_enable(h) && create_pair(h, 1, 16));
	is_status(create_cq(h, 2, 16, 1), NVME_OK, "another CQ is made");
	remap(h, 0, MEM_SIZE, false);
	remap(h, 0, CQ_OFF(1), true);
	remap(h, CQ_OFF(1) + 0x10000, MEM_SIZE, true);
	cid = queue_put(h, 1, &cmd);
	queue_ring(h, 1);
	is_hex(queue_peek(h, 1, 50).status, ~0u, "an answer waits");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 1), NVME_OK,
	    "the SQ is deleted");
	is_status(create_sq(h, 1, 16, 2), NVME_OK,
	    "it is made again, for the other CQ");
	remap(h, CQ_OFF(1), CQ_OFF(1) + 0x10000, true);
	a = queue_peek(h, 1, 1000);
	ok(a.status == NVME_OK && a.cid == cid,
	    "the answer comes to the CQ that it was for");
	is_hex(queue_peek(h, 2, 50).status, ~0u, "and not to the other");

	/* All of both queues' entries are there to be used. */
	h->q[1].tail = 0;
	for (bad = i = 0; i < 15; i++)
		queue_put(h, 1, &cmd);
	queue_ring(h, 1);
	for (i = 0; i < 15; i++) {
		a = queue_peek(h, 2, ANSWER_MS);
		bad += a.status != NVME_OK || a.cid != (uint16_t)(h->cid -
		    15 + i);
	}
	is_int(bad, 0, "where fifteen more have room");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 1), NVME_OK,
	    "the first CQ can be deleted");
	/* All in one piece, for those that come after. */
	remap(h, 0, CQ_OFF(1), false);
	remap(h, CQ_OFF(1), CQ_OFF(1) + 0x10000, false);
	remap(h, CQ_OFF(1) + 0x10000, MEM_SIZE, false);
	remap(h, 0, MEM_SIZE, true);
	must(host_enable(h) && create_pair(h, 1, 1024));
}

/* Memory without a descriptor: only messages reach it. */
static void
test_no_fd(struct host *h)
{
	const uint64_t far = UINT64_C(0x40000000);
	unsigned int i;

	works(vd_client_dma_map(h->client, far, 0x10000,
	    VD_DMA_READABLE | VD_DMA_WRITABLE, -1, 0),
	    "memory without a descriptor is taken");
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 1, .prp1 = far),
	    NVME_DATA_TRANSFER, "data cannot go there");
	is_status(io(h, .opcode = NVME_IO_WRITE, .nsid = 1, .prp1 = far),
	    NVME_DATA_TRANSFER, "nor come from there");
	works(vd_client_dma_unmap(h->client, far, 0x10000), "and given back");
	is_status(admin(h, .opcode = NVME_ADM_CREATE_CQ, .prp1 = far,
	    .cdw10 = 15 << 16 | 2, .cdw11 = 1), NVME_OK,
	    "a CQ may be made where it was");
	is_status(create_sq(h, 2, 16, 2), NVME_OK, "and an SQ for it");
	h->q[2] = (struct queue){ .qid = 2, .entries = 16, .phase = 1,
	    .sq = SQ_OFF(2), .cq = CQ_OFF(2) };
	for (i = 0; i < 15; i++)
		queue_put(h, 2, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
		    .nsid = 1 });
	queue_ring(h, 2);
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "what does not need it works");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 2), NVME_OK,
	    "the SQ can be deleted");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 2), NVME_OK,
	    "the CQ, with what could not be posted");

	works(vd_client_dma_map(h->client, far, 0x10000,
	    VD_DMA_READABLE | VD_DMA_WRITABLE, -1, 0), "it is there again");
	is_status(admin(h, .opcode = NVME_ADM_CREATE_CQ, .prp1 = far,
	    .cdw10 = 15 << 16 | 2, .cdw11 = 1), NVME_OK,
	    "a CQ may be made there");
	is_status(create_sq(h, 2, 16, 2), NVME_OK, "and an SQ");
	h->q[2].tail = 0;
	queue_put(h, 2, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
	    .nsid = 1 });
	queue_ring(h, 2);
	ok(csts_wait(h, NVME_CSTS_CFS, NVME_CSTS_CFS),
	    "but who does not answer for it has the controller fail");
	works(vd_client_dma_unmap(h->client, far, 0x10000), "without it");
	ok(host_enable(h) && create_pair(h, 1, 1024),
	    "a reset makes it work again");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "indeed");
}

/* --- files ---------------------------------------------------------------- */

/* Commands that wait for a file to be synced, and what can befall them. */
static void
test_file(struct host *h, const char *file)
{
	struct nvme_cmd write = { .opcode = NVME_IO_WRITE, .nsid = 2,
	    .prp1 = IOVA + DATA, .cdw12 = 7 };
	struct answer a;

	must(host_enable(h));
	a = admin(h, .opcode = NVME_ADM_SET_FEATURES, .cdw10 = 7,
	    .cdw11 = 0x00020002);
	is_hex(a.result, 0x00020002, "three queue pairs are allocated");
	is_status(create_cq(h, 4, 16, 1), NVME_BAD_QID, "a fourth is not");
	a = admin(h, .opcode = NVME_ADM_SET_FEATURES, .cdw10 = 7,
	    .cdw11 = 0xfffefffe);
	is_hex(a.result, 0x003f003f, "64 are when more are asked for");
	must(create_pair(h, 1, 256));

	a = admin(h, .opcode = NVME_ADM_GET_FEATURES, .cdw10 = 6);
	is_hex(a.result, 1, "there is a write cache, and it is on");
	queue_put(h, 1, &write);
	queue_ring(h, 1);
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK, "Write");
	is_status(admin(h, .opcode = NVME_ADM_SET_FEATURES, .cdw10 = 6),
	    NVME_OK, "it is turned off");
	a = admin(h, .opcode = NVME_ADM_GET_FEATURES, .cdw10 = 6);
	is_hex(a.result, 0, "and is off");
	is_status(command(h, 1, write), NVME_OK, "Write through");
	is_status(io(h, .opcode = NVME_IO_WRITE_ZEROES, .nsid = 2,
	    .cdw10 = 8, .cdw12 = 7), NVME_OK, "Write Zeroes through");
	admin(h, .opcode = NVME_ADM_SET_FEATURES, .cdw10 = 6, .cdw11 = 1);

	must(truncate(file, 4096) == 0);
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 2,
	    .prp1 = IOVA + DATA, .cdw10 = 7, .cdw12 = 1), NVME_READ_ERROR,
	    "a file that was cut short is a medium error");
	must(truncate(file, 1 << 20) == 0);
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 2,
	    .prp1 = IOVA + DATA, .cdw10 = 7, .cdw12 = 1), NVME_OK,
	    "until it is long enough again");

	memset(h->mem + DATA, 0x99, PAGE);
	move(h, NVME_IO_WRITE, 3, 16383, 1, DATA, PAGE);
	is_status(io(h, .opcode = NVME_IO_WRITE_ZEROES, .nsid = 3,
	    .cdw12 = 16383), NVME_OK, "64 MiB of zeroes");
	move(h, NVME_IO_READ, 3, 16383, 1, DATA, PAGE);
	is_int(h->mem[DATA] | h->mem[DATA + 4095], 0, "to the last byte");
}

static uint8_t
first_byte(struct host *h, uint64_t slba)
{
	h->mem[DATA] = 0xee;
	move(h, NVME_IO_READ, 3, slba, 1, DATA, PAGE);
	return (h->mem[DATA]);
}

/* More than is deallocated in one go. */
static void
test_deallocate(struct host *h)
{
	static const struct { uint64_t slba; bool gone; } blocks[] = {
		{ 2, false }, { 3, true }, { 8000, true }, { 16002, true },
		{ 16003, false }, { 16039, false }, { 16040, true },
		{ 16079, true }, { 16080, false }, { 16383, false },
	};
	const unsigned int n = sizeof(blocks) / sizeof(blocks[0]);
	struct nvme_dsm_range *range = (void *)(h->mem + LISTS);
	struct nvme_cmd cmd = { .opcode = NVME_IO_DSM, .nsid = 3,
	    .prp1 = IOVA + LISTS, .cdw11 = NVME_DSM_DEALLOCATE };
	unsigned int bad = 0, i;

	memset(h->mem + DATA, 0x77, PAGE);
	for (i = 0; i < n; i++)
		move(h, NVME_IO_WRITE, 3, blocks[i].slba, 1, DATA, PAGE);
	memset(range, 0, PAGE);
	range[0] = (struct nvme_dsm_range){ .slba = 3, .nlb = 16000 };
	for (i = 0; i < 40; i++)
		range[2 + i] = (struct nvme_dsm_range){ .slba = 16040 + i,
		    .nlb = 1 };
	cmd.cdw10 = 2 + 40 - 1;
	is_status(command(h, 1, cmd), NVME_OK, "many ranges are deallocated");
	for (i = 0; i < n; i++)
		bad += first_byte(h, blocks[i].slba) !=
		    (blocks[i].gone ? 0 : 0x77);
	is_int(bad, 0, "they, and nothing else");

	for (i = 0; i < 256; i++)
		range[i] = (struct nvme_dsm_range){ .nlb = 16384 };
	cmd.cdw10 = 255;
	is_status(command(h, 1, cmd), NVME_OK, "all of it, 256 times");
	is_int(first_byte(h, 16383), 0, "to the last block");
	for (i = 0; i < 256; i++)
		range[i].nlb = 256;
	cmd.nsid = 2;
	cmd.cdw10 = 255;
	is_status(command(h, 1, cmd), NVME_OK, "a file, too");
}

/* What can befall those that wait for it. */
static void
test_waiting(struct host *h)
{
	struct nvme_cmd write = { .opcode = NVME_IO_WRITE, .nsid = 2,
	    .prp1 = IOVA + DATA, .cdw12 = 7 };
	struct nvme_cmd flush = { .opcode = NVME_IO_FLUSH, .nsid = 2 };
	unsigned int aborted = 0, bad = 0, i, n = 0, other = 0, round;
	struct answer a;
	uint16_t cid;

	/* Whatever the order, no command gets more than one answer. */
	for (round = 0; round < 20; round++) {
		must(create_pair(h, 2, 64));
		for (i = 0; i < 20; i++)
			queue_put(h, 2, i % 2 == 0 ? &write : &flush);
		queue_ring(h, 2);
		queue_put(h, 0, &(struct nvme_cmd){ .cdw10 = 2,
		    .opcode = NVME_ADM_DELETE_SQ });
		queue_ring(h, 0);
		bad += queue_take(h, 0, ANSWER_MS).status != NVME_OK;
		while ((a = queue_take(h, 2, 0)).status != ~0u) {
			n++;
			aborted += a.status == NVME_ABORT_SQ_DELETED;
			other += a.status != NVME_ABORT_SQ_DELETED &&
			    a.status != NVME_OK;
		}
		bad += admin(h, .opcode = NVME_ADM_DELETE_CQ,
		    .cdw10 = 2).status != NVME_OK;
	}
	diag("%u answers, %u of them aborted", n, aborted);
	ok(bad == 0 && other == 0 && n <= 400,
	    "an SQ is deleted with commands in it");
	n = 0;
	for (round = 0; round < 20; round++) {
		queue_put(h, 1, &write);
		cid = queue_put(h, 1, &flush);
		queue_ring(h, 1);
		a = admin(h, .opcode = NVME_ADM_ABORT,
		    .cdw10 = (uint32_t)cid << 16 | 1);
		bad += a.status != NVME_OK;
		bad += queue_take(h, 1, ANSWER_MS).status != NVME_OK;
		aborted = a.result == 0;
		a = queue_take(h, 1, ANSWER_MS);
		bad += a.cid != cid || a.status !=
		    (aborted ? NVME_ABORT_REQUESTED : NVME_OK);
		n += aborted;
	}
	diag("%u of 20 flushes aborted", n);
	is_int(bad, 0, "a flush is aborted, or is done");
}

/* --- interrupts ----------------------------------------------------------- */

static bool
signalled(int fd, int ms)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	eventfd_t n;

	return (poll(&p, 1, ms) == 1 && eventfd_read(fd, &n) == 0);
}

/* Each signal masks the pin; one that we no longer wait for does, too. */
static void
intx_settle(struct host *h, int fd)
{
	do {
		vd_client_set_irqs(h->client, VD_IRQ_INTX, 0, 1,
		    VD_IRQ_ACT_UNMASK);
	} while (signalled(fd, 50));
}

static void
test_intx(struct host *h)
{
	struct answer a;
	int fd = t_eventfd();

	must(host_enable(h));
	works(vd_client_set_eventfds(h->client, VD_IRQ_INTX, 0, 1, &fd),
	    "INTx is connected");
	config_set(h, 4, 0x0006);
	is_status(create_cq(h, 1, 16, 3), NVME_OK, "a CQ with interrupts");
	is_status(create_sq(h, 1, 16, 1), NVME_OK, "its SQ");
	intx_settle(h, fd);

	queue_put(h, 1, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
	    .nsid = 1 });
	queue_ring(h, 1);
	ok(signalled(fd, 1000), "the pin tells of I/O");
	a = queue_peek(h, 1, 1000);
	is_status(a, NVME_OK, "which is done");
	vd_client_set_irqs(h->client, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK);
	ok(signalled(fd, 1000), "and again, while it is not acknowledged");
	ring_doorbell(h, 3, h->q[1].head);
	usleep(20000);
	vd_client_set_irqs(h->client, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK);
	ok(!signalled(fd, 50), "but not afterwards");

	reg_set(h, NVME_REG_INTMS, 1);
	is_hex(reg_get(h, NVME_REG_INTMC), 1, "vector 0 is masked");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "I/O works");
	ok(!signalled(fd, 50), "without interrupts");
	queue_put(h, 1, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
	    .nsid = 1 });
	queue_ring(h, 1);
	queue_peek(h, 1, 1000);
	reg_set(h, NVME_REG_INTMC, 1);
	ok(signalled(fd, 1000), "when it is unmasked the pin rises");
	ring_doorbell(h, 3, h->q[1].head);
	vd_client_set_eventfds(h->client, VD_IRQ_INTX, 0, 0, NULL);
	config_set(h, 4, 0x0406);
	close(fd);
}

static void
test_msix(struct host *h)
{
	int fds[4], fd0;
	unsigned int i;
	uint32_t cap;

	must(host_enable(h));
	for (i = 0; i < 4; i++)
		fds[i] = t_eventfd();
	fd0 = fds[0];
	cap = find_cap(h, 0x11);
	ok(cap != 0, "there is MSI-X");
	is_int((config_get(h, cap + 2, 2) & 0x7ff) + 1, 65, "of 65 vectors");
	/* Entries are masked until the guest has set them up. */
	for (i = 0; i < 4; i++)
		must(vd_client_write(h->client, VD_REGION_BAR4, 16 * i + 12,
		    &(uint32_t){ 0 }, 4) == 0);
	config_set(h, cap + 2, 0x8000);
	works(vd_client_set_eventfds(h->client, VD_IRQ_MSIX, 0, 4, fds),
	    "its vectors are connected");
	is_status(identify(h, 1, 0), NVME_OK, "an admin command");
	ok(signalled(fd0, 1000), "signals vector 0");
	is_status(create_cq(h, 1, 16, 3u << 16 | 3), NVME_OK,
	    "a CQ on vector 3");
	is_status(create_sq(h, 1, 16, 1), NVME_OK, "its SQ");
	ok(!signalled(fds[3], 20), "has not signalled yet");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK, "I/O");
	ok(signalled(fds[3], 1000), "signals it");
	ok(!signalled(fds[1], 0) && !signalled(fds[2], 0), "and no other");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 1), NVME_OK,
	    "the queues are deleted");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 1), NVME_OK,
	    "both");
	ok(create_pair(h, 1, 16), "others are made, without interrupts");
	/* Who answers has signalled what it had to before. */
	reg_get(h, NVME_REG_CSTS);
	while (signalled(fd0, 20))
		continue;
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK, "I/O");
	ok(!signalled(fds[3], 20) && !signalled(fd0, 0), "signals nothing");
	config_set(h, cap + 2, 0);
	vd_client_set_eventfds(h->client, VD_IRQ_MSIX, 0, 0, NULL);
	for (i = 0; i < 4; i++)
		close(fds[i]);
}

/* --- shutdown, reset, other clients --------------------------------------- */

static uint64_t
unsafe_shutdowns(struct host *h)
{
	const struct nvme_smart *s = (void *)(h->mem + DATA);

	is_status(admin(h, .opcode = NVME_ADM_GET_LOG, .prp1 = IOVA + DATA,
	    .cdw10 = 127 << 16 | NVME_LOG_SMART), NVME_OK, "the SMART log");
	return (s->unsafe_shutdowns.lo);
}

static void
test_shutdown(struct host *h)
{
	must(host_enable(h) && create_pair(h, 1, 16));
	memset(h->mem + DATA, 0x65, PAGE);
	is_status(move(h, NVME_IO_WRITE, 2, 0, 8, DATA, PAGE), NVME_OK,
	    "a file is written");
	reg_set(h, NVME_REG_CC, 0x00464001);
	ok(csts_wait(h, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE),
	    "a shutdown comes to its end");
	is_hex(reg_get(h, NVME_REG_CSTS), 9, "CSTS tells");
	reg_set(h, NVME_REG_CC, 0);
	is_hex(reg_get(h, NVME_REG_CSTS), 0, "a reset ends that");
	ok(host_enable(h), "and it can be enabled");
	reg_set(h, NVME_REG_CC, 0);
	reg_set(h, NVME_REG_CC, 0x00008000);
	ok(csts_wait(h, NVME_CSTS_SHST, NVME_CSTS_SHST_DONE),
	    "an abrupt shutdown of a disabled one, too");
}

static void
test_reset(struct host *h)
{
	struct answer a;
	uint64_t before;

	must(host_enable(h) && create_pair(h, 1, 16));
	before = unsafe_shutdowns(h);
	works(vd_client_reset(h->client), "the client resets the device");
	is_hex(reg_get(h, NVME_REG_CC), 0, "it is disabled");
	is_hex(reg_get(h, NVME_REG_CSTS), 0, "it is not ready");
	is_hex(reg_get(h, NVME_REG_AQA), 0, "AQA is 0");
	config_set(h, 4, 0x0406);
	ok(host_enable(h), "it can be enabled");
	is_int(unsafe_shutdowns(h), before + 1,
	    "that it was not shut down is counted");
	is_status(create_sq(h, 1, 16, 1), NVME_BAD_CQ, "the queues are gone");
	a = admin(h, .opcode = NVME_ADM_GET_FEATURES, .cdw10 = 7);
	is_hex(a.result, 0x003f003f, "and so are the features");

	/* Queues in the same place, with doorbells that start at 0. */
	ok(create_pair(h, 1, 16), "queues are made");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "they work");
	ok(host_enable(h) && create_pair(h, 1, 16), "made again");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "they work again");
}

static void
test_clients(struct host *h)
{
	unsigned int bad = 0, i;
	struct answer a;

	must(host_enable(h) && create_pair(h, 1, 256));
	memset(h->mem + DATA, 0x21, PAGE);
	is_status(move(h, NVME_IO_WRITE, 1, 77, 8, DATA, PAGE), NVME_OK,
	    "the first client writes");
	host_leave(h);
	for (i = 0; i < 20; i++) {
		host_connect(h);
		bad += reg_get(h, NVME_REG_CC) != 0;
		bad += !host_enable(h) || !create_pair(h, 1, 256);
		memset(h->mem + DATA, 0, PAGE);
		a = move(h, NVME_IO_READ, 1, 77, 8, DATA, PAGE);
		bad += a.status != NVME_OK || h->mem[DATA + 4095] != 0x21;
		/* Gone with commands in the queue. */
		queue_put(h, 1, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
		    .nsid = 2 });
		queue_ring(h, 1);
		host_leave(h);
	}
	is_int(bad, 0, "twenty more clients, one after the other, read it");
	host_connect(h);
	must(host_enable(h));
	identify(h, 1, 0);
	is_status(admin(h, .opcode = NVME_ADM_GET_LOG, .prp1 = IOVA + DATA,
	    .cdw10 = 15 << 16 | NVME_LOG_ERROR), NVME_OK, "the error log");
	is_int(h->mem[DATA], 0, "does not tell of other clients' mistakes");
}

/* Within 10 seconds, the connection is closed. */
static bool
is_dropped(struct host *h)
{
	int64_t end = t_now_ms() + 10000;
	uint32_t val;

	while (vd_client_read(h->client, VD_REGION_BAR0, NVME_REG_CSTS, &val,
	    sizeof(val)) == 0) {
		if (t_now_ms() > end)
			return (false);
		usleep(500);
	}
	return (true);
}

/* A client makes the file shorter that it has shared. */
static void
test_truncate(struct host *h)
{
	static const size_t sizes[] = { 0, DATA };
	struct nvme_cmd cmd = { .opcode = NVME_IO_WRITE, .nsid = 1,
	    .prp1 = IOVA + DATA };
	unsigned int i;

	for (i = 0; i < 2; i++) {
		host_leave(h);
		host_ready(h);
		is_status(command(h, 1, cmd), NVME_OK, "a client writes");
		queue_put(h, 1, &cmd);
		must(ftruncate(h->memfd, (off_t)sizes[i]) == 0);
		queue_ring(h, 1);
		ok(is_dropped(h), "it is dropped when its %s is gone",
		    i == 0 ? "queue" : "data");
		is_int(waitpid(h->pid, NULL, WNOHANG), 0,
		    "the program lives on");
		must(ftruncate(h->memfd, (off_t)MEM_SIZE) == 0);
	}
	host_leave(h);
	host_ready(h);
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA), NVME_OK, "the next client is served");
}

/* The processor time of the program's main thread, in us. */
static int64_t
cpu_us(pid_t pid)
{
	unsigned long long ns = 0;
	char path[64];
	FILE *fp;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
	if ((fp = fopen(path, "r")) == NULL)
		return (-1);
	if (fscanf(fp, "%llu", &ns) != 1)
		ns = 0;
	fclose(fp);
	return ((int64_t)(ns / 1000));
}

static void
test_idle(struct host *h)
{
	int64_t before;

	must(host_enable(h) && create_pair(h, 1, 256));
	io(h, .opcode = NVME_IO_FLUSH, .nsid = 1);
	usleep(100000);
	if ((before = cpu_us(h->pid)) == -1) {
		skip(1, "no schedstat");
		return;
	}
	usleep(1000000);
	before = cpu_us(h->pid) - before;
	diag("idle for 1 s, enabled: %jd us of processor time",
	    (intmax_t)before);
	ok(before <= (T_ASAN ? 200000 : 100000),
	    "an idle controller is idle");
}

static void
test_life(const char *doorbells, const char *file)
{
	struct host h;
	uint8_t byte = 0;
	int fd;

	diag("doorbells: %s", doorbells);
	host_start(&h, (const char *const[]){ "--doorbells", doorbells,
	    "--ram", "8M", "--file", file, "--block-size", "4096", "--ram",
	    "64M", NULL });
	is_int(nvme_run((const char *const[]){ "--socket", "/tmp/x", "--file",
	    file, NULL }), 1, "a file that is served is not served again");
	host_connect(&h);
	test_enable(&h);
	test_large_pages(&h);
	test_remap(&h);
	test_parts(&h);
	test_other_cq(&h);
	test_no_fd(&h);
	test_file(&h, file);
	test_deallocate(&h);
	test_waiting(&h);
	test_intx(&h);
	test_msix(&h);
	test_shutdown(&h);
	test_reset(&h);
	test_clients(&h);
	test_truncate(&h);
	test_idle(&h);
	is_int(host_stop(&h, SIGTERM), 0, "SIGTERM ends it with success");
	fd = open(file, O_RDONLY | O_CLOEXEC);
	ok(fd != -1 && pread(fd, &byte, 1, 4095) == 1 && byte == 0x65,
	    "what was written is in the file");
	close(fd);
}

/* It ends while a client is connected, and leaves nothing behind. */
static void
test_end(void)
{
	struct stat st;
	struct host h;
	char path[sizeof(h.path)];

	host_start(&h, (const char *const[]){ "--ram", "1M", NULL });
	ok(stat(h.path, &st) == 0 && S_ISSOCK(st.st_mode) &&
	    (st.st_mode & 0777) == 0600, "the socket is its owner's");
	host_ready(&h);
	snprintf(path, sizeof(path), "%s", h.path);
	kill(h.pid, SIGTERM);
	is_int(nvme_wait(h.pid), 0,
	    "SIGTERM ends it while a client is connected");
	fails(stat(path, &st), ENOENT, "its socket is removed");
	vd_client_destroy(h.client);
	munmap(h.mem, MEM_SIZE);
	munmap((void *)(uintptr_t)h.db, PAGE);
	close(h.memfd);
	rmdir(h.dir);
}

/* --- a disk that breaks --------------------------------------------------- */

/* From now on every fdatasync() of this process fails, without a word. */
static void
break_sync(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		    offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = 4, .filter = code };
	int null;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1ul, 0ul, 0ul, 0ul) == -1 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == -1)
		_exit(126);
	if ((null = open("/dev/null", O_WRONLY)) != -1)
		dup2(null, STDERR_FILENO);
}

static bool
can_break_sync(void)
{
	pid_t pid;

	fflush(stdout);
	must((pid = fork()) != -1);
	if (pid == 0) {
		break_sync();
		_exit(fdatasync(STDOUT_FILENO) == -1 && errno == EIO ? 0 : 1);
	}
	return (nvme_wait(pid) == 0);
}

static void
is_lost(struct host *h, uint32_t nsid, const char *what)
{
	struct answer a = io(h, .opcode = NVME_IO_FLUSH, .nsid = nsid);

	ok(a.status == NVME_WRITE_FAULT && a.dnr, "%s", what);
}

static void
test_broken(const char *file)
{
	struct nvme_cmd write = { .opcode = NVME_IO_WRITE, .nsid = 1,
	    .prp1 = IOVA + DATA, .cdw12 = 7 };
	struct host h;

	if (!can_break_sync()) {
		skip(1, "no seccomp");
		return;
	}
	nvme_child = break_sync;
	host_start(&h, (const char *const[]){ "--file", file, "--ram", "1M",
	    NULL });
	nvme_child = NULL;
	host_ready(&h);
	is_status(io(&h, .opcode = NVME_IO_FLUSH, .nsid = 1), NVME_OK,
	    "nothing is lost yet");
	is_status(command(&h, 1, write), NVME_OK, "a write is cached");
	is_lost(&h, 1, "and lost");
	is_lost(&h, 1, "which is not forgotten");
	is_lost(&h, NVME_NSID_ALL, "by a flush of all namespaces, either");
	is_status(io(&h, .opcode = NVME_IO_FLUSH, .nsid = 2), NVME_OK,
	    "another namespace has lost nothing");
	is_status(io(&h, .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA), NVME_OK, "reading works");
	write.cdw12 |= NVME_RW_FUA;
	is_status(command(&h, 1, write), NVME_WRITE_FAULT,
	    "writing with FUA does not");

	reg_set(&h, NVME_REG_CC, 0x00464001);
	ok(csts_wait(&h, NVME_CSTS_CFS, NVME_CSTS_CFS), "a shutdown fails");
	is_hex(reg_get(&h, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_CFS |
	    NVME_CSTS_SHST_BUSY, "and never is complete");
	reg_set(&h, NVME_REG_CC, 0);
	is_hex(reg_get(&h, NVME_REG_CSTS), 0, "a reset ends that");
	reg_set(&h, NVME_REG_CC, 0x00008000);
	ok(csts_wait(&h, NVME_CSTS_CFS, NVME_CSTS_CFS),
	    "nor can it be shut down while it is disabled");
	ok(host_enable(&h) && create_pair(&h, 1, 16), "it can be enabled");
	is_lost(&h, 1, "but remembers");
	host_leave(&h);
	host_ready(&h);
	is_lost(&h, 1, "and tells the next client");
	is_int(host_stop(&h, SIGTERM), 1, "SIGTERM ends it with failure");
}

int
main(void)
{
	char disk[] = "/tmp/example-nvme-file.XXXXXX";
	char memory[] = "/dev/shm/example-nvme-file.XXXXXX";
	bool other;

	must(new_file(disk, 1 << 20));
	test_life("map", disk);
	/* Another file system has other ways, or none, to make zeroes. */
	other = new_file(memory, 1 << 20);
	test_life("message", other ? memory : disk);
	test_end();
	test_broken(disk);
	unlink(disk);
	if (other)
		unlink(memory);
	return (done());
}
