/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVMe controller and hosts that are wrong: each mistake has the status
 * that NVMe 1.4 names for it, and none does any harm.
 */

#define T_ALARM		300

#include "t/example-nvme.h"

#define BLOCKS		16384u		/* of 512 bytes: 8 MiB */

static uint64_t seed;

/* --- queues --------------------------------------------------------------- */

/* cmd with one member changed. */
#define try_bad(member, val, want, ...)	do {				\
	bad = cmd;							\
	bad.member = (val);						\
	is_status(command(h, 0, bad), want, __VA_ARGS__);		\
} while (0)

static void
test_create_cq(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_ADM_CREATE_CQ,
	    .prp1 = IOVA + CQ_OFF(2), .cdw10 = 15 << 16 | 2, .cdw11 = 1 };
	struct nvme_cmd bad;

	try_bad(cdw10, 15 << 16, NVME_BAD_QID, "Create CQ: not 0");
	try_bad(cdw10, 15 << 16 | 65, NVME_BAD_QID, "Create CQ: not 65");
	try_bad(cdw10, 15 << 16 | 0xffff, NVME_BAD_QID,
	    "Create CQ: not 65535");
	try_bad(cdw10, 15 << 16 | 1, NVME_BAD_QID, "Create CQ: not again");
	try_bad(cdw10, 2, NVME_BAD_QUEUE_SIZE, "Create CQ: not of one entry");
	try_bad(cdw10, 1024 << 16 | 2, NVME_BAD_QUEUE_SIZE,
	    "Create CQ: not of more than MQES");
	try_bad(cdw11, 0, NVME_INVALID_FIELD, "Create CQ: in one piece only");
	try_bad(cdw11, 65 << 16 | 3, NVME_BAD_VECTOR,
	    "Create CQ: not of a vector that we do not have");
	try_bad(cdw11, 1 << 16 | 3, NVME_BAD_VECTOR,
	    "Create CQ: not of vector 1 without MSI-X");
	try_bad(prp1, IOVA + 8, NVME_PRP_BAD_OFFSET,
	    "Create CQ: not beside a page");
	try_bad(prp1, UINT64_C(0xfffffffffffff000), NVME_OK,
	    "Create CQ: up to the end of all addresses");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 2), NVME_OK,
	    "Delete CQ");
	bad = cmd;
	bad.prp1 = UINT64_C(0xfffffffffffff000);
	bad.cdw10 = 512 << 16 | 2;
	is_status(command(h, 0, bad), NVME_INVALID_FIELD,
	    "Create CQ: not past it");
	bad = cmd;
	bad.flags = 1;
	is_status(command(h, 0, bad), NVME_INVALID_FIELD,
	    "Create CQ: not fused");
	bad.flags = 1 << 6;
	is_status(command(h, 0, bad), NVME_INVALID_FIELD,
	    "Create CQ: not by SGL");

	is_status(create_cq(h, 2, 16, 1), NVME_OK, "Create CQ");
}

static void
test_create_sq(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_ADM_CREATE_SQ,
	    .prp1 = IOVA + SQ_OFF(2), .cdw10 = 15 << 16 | 2,
	    .cdw11 = 2 << 16 | 1 };
	struct nvme_cmd bad;

	try_bad(cdw10, 15 << 16, NVME_BAD_QID, "Create SQ: not 0");
	try_bad(cdw10, 15 << 16 | 65, NVME_BAD_QID, "Create SQ: not 65");
	try_bad(cdw10, 15 << 16 | 1, NVME_BAD_QID, "Create SQ: not again");
	try_bad(cdw10, 2, NVME_BAD_QUEUE_SIZE, "Create SQ: not of one entry");
	try_bad(cdw10, 1024 << 16 | 2, NVME_BAD_QUEUE_SIZE,
	    "Create SQ: not of more than MQES");
	try_bad(cdw11, 2 << 16, NVME_INVALID_FIELD,
	    "Create SQ: in one piece only");
	try_bad(cdw11, 1, NVME_BAD_QID, "Create SQ: not to the admin CQ");
	try_bad(cdw11, 200 << 16 | 1, NVME_BAD_QID,
	    "Create SQ: not to a CQ that cannot be");
	try_bad(cdw11, 3 << 16 | 1, NVME_BAD_CQ,
	    "Create SQ: not to a CQ that is not there");
	try_bad(prp1, IOVA + 8, NVME_PRP_BAD_OFFSET,
	    "Create SQ: not beside a page");
	is_status(create_sq(h, 2, 16, 2), NVME_OK, "Create SQ");
}

static void
test_delete(struct host *h)
{
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 2),
	    NVME_QUEUE_IN_USE, "Delete CQ: not while an SQ uses it");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 0),
	    NVME_BAD_QID, "Delete SQ: not the admin queue");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 7),
	    NVME_BAD_QID, "Delete SQ: not what is not there");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 0x8000),
	    NVME_BAD_QID, "Delete SQ: not what cannot be");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 0),
	    NVME_BAD_QID, "Delete CQ: not the admin queue");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 7),
	    NVME_BAD_QID, "Delete CQ: not what is not there");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 2), NVME_OK,
	    "Delete SQ");
	is_status(admin(h, .opcode = NVME_ADM_DELETE_CQ, .cdw10 = 2), NVME_OK,
	    "Delete CQ");
	is_status(admin(h, .opcode = 0x7c), NVME_INVALID_OPCODE,
	    "no Doorbell Buffer Config");
	is_status(admin(h, .opcode = 0x80), NVME_INVALID_OPCODE, "no Format");
	is_status(admin(h, .opcode = 0xff), NVME_INVALID_OPCODE,
	    "no opcode ff");
}

/* --- features, logs ------------------------------------------------------- */

#define get_feature(h, fid, ...) \
	admin(h, .opcode = NVME_ADM_GET_FEATURES, .cdw10 = (fid), __VA_ARGS__)
#define set_feature(h, fid, ...) \
	admin(h, .opcode = NVME_ADM_SET_FEATURES, .cdw10 = (fid), __VA_ARGS__)

static void
test_features(struct host *h)
{
	struct answer a;

	is_status(set_feature(h, 7, .cdw11 = 0x00ff00ff),
	    NVME_COMMAND_SEQUENCE, "queues cannot be allocated any more");
	is_status(set_feature(h, 7, .cdw11 = 0xffff0000), NVME_INVALID_FIELD,
	    "65536 of them never");
	a = get_feature(h, 7, .nsid = 0);
	is_hex(a.result, 0x003f003f, "64 pairs were");
	is_status(set_feature(h, 1, .cdw11 = 0x01020304), NVME_OK,
	    "arbitration is set");
	is_hex(get_feature(h, 1, .nsid = 0).result, 0x01020304, "and read");
	is_hex(get_feature(h, 1 | 1 << 8, .nsid = 0).result, 0,
	    "its default is another");
	is_hex(get_feature(h, 1 | 3 << 8, .nsid = 0).result, 4,
	    "it can be changed, but not saved");
	is_status(set_feature(h, 1u | 1u << 31, .cdw11 = 1),
	    NVME_NOT_SAVEABLE, "as trying to shows");
	is_status(set_feature(h, 1, .nsid = 1), NVME_NOT_NAMESPACED,
	    "it is not of a namespace");
	is_status(set_feature(h, 2, .cdw11 = 1), NVME_INVALID_FIELD,
	    "there is one power state");
	is_status(set_feature(h, 2, .cdw11 = 0x20), NVME_OK,
	    "a workload hint is taken");
	is_hex(get_feature(h, 4, .nsid = 0).result, 343,
	    "a temperature threshold");
	is_status(get_feature(h, 4, .cdw11 = 3 << 20), NVME_INVALID_FIELD,
	    "of no third kind");
	is_status(set_feature(h, 4, .cdw11 = 9 << 16), NVME_INVALID_FIELD,
	    "for no ninth sensor");
	is_status(set_feature(h, 5, .nsid = 1, .cdw11 = 7), NVME_OK,
	    "error recovery is of a namespace");
	is_hex(get_feature(h, 5, .nsid = 1).result, 7, "and kept by it");
	is_status(get_feature(h, 5, .nsid = 9), NVME_INVALID_NSID,
	    "that must be there");
	is_status(set_feature(h, 5, .nsid = 1, .cdw11 = 1 << 16),
	    NVME_INVALID_FIELD, "deallocated blocks are no error");
	is_status(get_feature(h, 6, .nsid = 0), NVME_INVALID_FIELD,
	    "without a file there is no cache to ask for");
}

static void
test_more_features(struct host *h)
{
	uint64_t ms;

	is_status(set_feature(h, 8, .cdw11 = 0x0102), NVME_OK,
	    "coalescing is set");
	is_hex(get_feature(h, 8, .nsid = 0).result, 0x0102, "and read");
	is_status(set_feature(h, 9, .cdw11 = 1 << 16 | 3), NVME_OK,
	    "and turned off for a vector");
	is_hex(get_feature(h, 9, .cdw11 = 3).result, 1 << 16 | 3,
	    "for that one");
	is_hex(get_feature(h, 9, .cdw11 = 4).result, 4, "not for another");
	is_status(set_feature(h, 9, .cdw11 = 65), NVME_INVALID_FIELD,
	    "that must exist");
	is_status(get_feature(h, 9, .cdw11 = 0xffff), NVME_INVALID_FIELD,
	    "also to be read");
	is_status(set_feature(h, 0xa, .cdw11 = 1), NVME_OK,
	    "write atomicity is set");
	is_hex(get_feature(h, 0xa, .nsid = 0).result, 1, "and read");
	is_status(set_feature(h, 0xb, .cdw11 = 0x11f), NVME_OK,
	    "events are set");
	is_hex(get_feature(h, 0xb, .nsid = 0).result, 0x11f, "and read");

	ms = 1234567890123;
	memcpy(h->mem + DATA, &ms, sizeof(ms));
	is_status(set_feature(h, 0xe, .prp1 = IOVA + DATA), NVME_OK,
	    "the time is set");
	memset(h->mem + DATA, 0, 16);
	is_status(get_feature(h, 0xe, .prp1 = IOVA + DATA + 4), NVME_OK,
	    "and read");
	memcpy(&ms, h->mem + DATA + 4, sizeof(ms));
	ok((ms & UINT64_C(0xffffffffffff)) >= 1234567890123 &&
	    (ms & UINT64_C(0xffffffffffff)) < 1234567890123 + 60000 &&
	    ms >> 48 == 2, "it is what the host set, and going on");
	h->mem[DATA] = 2;
	is_status(set_feature(h, 0x16, .prp1 = IOVA + DATA),
	    NVME_INVALID_FIELD, "host behavior has two values");
	h->mem[DATA] = 1;
	is_status(set_feature(h, 0x16, .prp1 = IOVA + DATA), NVME_OK,
	    "one of which is set");
	is_status(get_feature(h, 0x16, .prp1 = IOVA + DATA2), NVME_OK,
	    "and read");
	is_int(h->mem[DATA2], 1, "with that value");
	is_status(get_feature(h, 0x03, .nsid = 1), NVME_INVALID_FIELD,
	    "no LBA ranges");
	is_status(get_feature(h, 0x0f, .nsid = 0), NVME_INVALID_FIELD,
	    "no keep-alive");
	is_status(set_feature(h, 0xc0, .nsid = 0), NVME_INVALID_FIELD,
	    "nothing of a vendor");
	is_status(get_feature(h, 1 | 5 << 8, .nsid = 0), NVME_INVALID_FIELD,
	    "nothing else of a feature");
}

#define get_log(h, id, dwords, ...) \
	admin(h, .opcode = NVME_ADM_GET_LOG, .prp1 = IOVA + DATA, \
	    .cdw10 = ((uint32_t)(dwords) - 1) << 16 | (id), __VA_ARGS__)

static void
test_logs(struct host *h)
{
	const struct nvme_error_entry *e = (void *)(h->mem + DATA);
	const struct nvme_smart *s = (void *)(h->mem + DATA);
	const struct nvme_effects *fx = (void *)(h->mem + DATA);
	struct answer a;
	uint64_t count, reads;

	a = io(h, .opcode = NVME_IO_READ, .nsid = 1, .prp1 = IOVA + DATA,
	    .cdw10 = 0x77777777, .cdw11 = 0x55555555);
	is_status(a, NVME_LBA_RANGE, "a mistake");
	is_status(get_log(h, NVME_LOG_ERROR, 64 * 16, .nsid = NVME_NSID_ALL),
	    NVME_OK, "the error log");
	is_int(e->sqid, 1, "names its queue");
	is_int(e->cid, a.cid, "its command");
	is_hex(e->status >> 1 & 0x7ff, NVME_LBA_RANGE, "its status");
	is_hex(e->lba, UINT64_C(0x5555555577777777), "its block");
	is_int(e->nsid, 1, "and its namespace");
	count = e[0].count;
	is_int(e[1].count, count - 1, "the one before follows");
	is_status(get_log(h, NVME_LOG_ERROR, 4, .cdw12 = 64), NVME_OK,
	    "a part of it");
	is_int(e->count, count - 1, "is given from where it is asked for");

	is_status(get_log(h, NVME_LOG_SMART, 128, .nsid = NVME_NSID_ALL),
	    NVME_OK, "the SMART log");
	is_int(s->spare, 100, "has spare");
	is_int(s->error_entries.lo, count, "counts errors");
	is_int(s->temperature[0] | s->temperature[1] << 8, 308,
	    "knows the temperature");
	reads = s->reads.lo;
	move(h, NVME_IO_READ, 1, 0, 8, DATA2, PAGE);
	move(h, NVME_IO_WRITE, 1, 0, 8, DATA2, PAGE);
	get_log(h, NVME_LOG_SMART, 128, .nsid = 0);
	is_int(s->reads.lo, reads + 1, "counts reads");
	ok(s->writes.lo >= 1 && s->units_written.lo >= 1, "and writes");

	is_status(get_log(h, NVME_LOG_FIRMWARE, 128, .nsid = 0), NVME_OK,
	    "the firmware log");
	ok(h->mem[DATA] == 1 && h->mem[DATA + 8] != 0, "has a revision");
	is_status(get_log(h, NVME_LOG_EFFECTS, 1024, .nsid = 0), NVME_OK,
	    "the effects log");
	is_hex(fx->admin[NVME_ADM_IDENTIFY], 1, "has Identify");
	is_hex(fx->io[NVME_IO_WRITE], 3, "and Write, which changes blocks");
	is_hex(fx->io[0x7f], 0, "and not what there is not");

	is_status(get_log(h, 0x04, 4, .nsid = 0), NVME_BAD_LOG_PAGE,
	    "no log of changed namespaces");
	is_status(get_log(h, 0xc0, 4, .nsid = 0), NVME_BAD_LOG_PAGE,
	    "none of a vendor");
	is_status(get_log(h, NVME_LOG_SMART, 4, .cdw12 = 512),
	    NVME_INVALID_FIELD, "nothing after the end");
	is_status(get_log(h, NVME_LOG_SMART, 4, .cdw12 = 2),
	    NVME_INVALID_FIELD, "nothing between dwords");
	is_status(get_log(h, NVME_LOG_SMART, 4, .cdw13 = 0xffffffff),
	    NVME_INVALID_FIELD, "nothing far away");
	is_status(get_log(h, NVME_LOG_SMART, 4, .nsid = 1),
	    NVME_INVALID_FIELD, "nothing of one namespace");
	memset(h->mem + DATA, 0xee, PAGE);
	is_status(get_log(h, NVME_LOG_SMART, 65536, .cdw11 = 0xffff),
	    NVME_OK, "more than there is");
	ok(h->mem[DATA + 511] == 0 && h->mem[DATA + 512] == 0xee,
	    "gives what there is");
}

/* --- I/O ------------------------------------------------------------------ */

#define rw(h, op, ...)	io(h, .opcode = (op), .nsid = 1, __VA_ARGS__)

static void
test_io_errors(struct host *h)
{
	struct answer a;

	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 0,
	    .prp1 = IOVA + DATA), NVME_INVALID_NSID, "no namespace 0");
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = 2,
	    .prp1 = IOVA + DATA), NVME_INVALID_NSID, "no namespace 2");
	is_status(io(h, .opcode = NVME_IO_READ, .nsid = NVME_NSID_ALL,
	    .prp1 = IOVA + DATA), NVME_INVALID_NSID, "not all of them");
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = 5),
	    NVME_INVALID_NSID, "no namespace 5 to flush");
	a = rw(h, 0x0d, .prp1 = 0);
	is_status(a, NVME_INVALID_OPCODE, "no reservations");
	ok(a.dnr, "it is no use to try that again");
	is_status(rw(h, NVME_IO_READ, .flags = 1), NVME_INVALID_FIELD,
	    "nothing is fused");
	is_status(rw(h, NVME_IO_READ, .flags = 3 << 6), NVME_INVALID_FIELD,
	    "no fourth way to describe data");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw10 = BLOCKS),
	    NVME_LBA_RANGE, "Read: not after the end");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA,
	    .cdw10 = BLOCKS - 1, .cdw12 = 1), NVME_LBA_RANGE,
	    "Read: not across the end");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA,
	    .cdw10 = BLOCKS - 1), NVME_OK, "Read: the last block");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA,
	    .cdw10 = 0xffffffff, .cdw11 = 0xffffffff, .cdw12 = 1),
	    NVME_LBA_RANGE, "Read: not so far that it wraps");
	is_status(rw(h, NVME_IO_WRITE, .prp1 = IOVA + DATA, .cdw11 = 1),
	    NVME_LBA_RANGE, "Write: not after the end");
	is_status(rw(h, NVME_IO_WRITE_ZEROES, .cdw10 = BLOCKS - 9,
	    .cdw12 = 9), NVME_LBA_RANGE, "Write Zeroes: not across the end");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 2048),
	    NVME_INVALID_FIELD, "Read: not more than MDTS");
	is_status(rw(h, NVME_IO_WRITE, .prp1 = IOVA + DATA,
	    .cdw12 = 1 << 20), NVME_INVALID_FIELD, "Write: no directives");

	memset(h->mem + DATA, 0x42, PAGE);
	is_status(move(h, NVME_IO_WRITE, 1, 8, 8, DATA, PAGE), NVME_OK,
	    "Write");
	is_status(move(h, NVME_IO_COMPARE, 1, 8, 8, DATA, PAGE), NVME_OK,
	    "Compare: equal");
	h->mem[DATA + PAGE - 1]++;
	is_status(move(h, NVME_IO_COMPARE, 1, 8, 8, DATA, PAGE),
	    NVME_COMPARE_FAILED, "Compare: the last byte differs");
}

static void
test_prp_errors(struct host *h)
{
	const uint64_t hole = IOVA + MEM_SIZE + PAGE;
	uint64_t *list = (void *)(h->mem + LISTS);

	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA + 2),
	    NVME_PRP_BAD_OFFSET, "PRP1: dwords only");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 15,
	    .prp2 = IOVA + DATA + PAGE + 512), NVME_PRP_BAD_OFFSET,
	    "PRP2: pages only");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 31,
	    .prp2 = IOVA + LISTS + 4), NVME_PRP_BAD_OFFSET,
	    "PRP list: quadwords only");
	list[0] = IOVA + DATA + PAGE;
	list[1] = IOVA + DATA + 2 * PAGE + 512;
	list[2] = IOVA + DATA + 3 * PAGE;
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 31,
	    .prp2 = IOVA + LISTS), NVME_PRP_BAD_OFFSET,
	    "PRP list: pages only");
	list[1] = hole;
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 31,
	    .prp2 = IOVA + LISTS), NVME_DATA_TRANSFER,
	    "PRP list: no page that is not there");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + DATA, .cdw12 = 31,
	    .prp2 = hole), NVME_DATA_TRANSFER,
	    "PRP list: not where nothing is");
	is_status(rw(h, NVME_IO_READ, .prp1 = hole), NVME_DATA_TRANSFER,
	    "Read: not to where nothing is");
	is_status(rw(h, NVME_IO_WRITE, .prp1 = 0), NVME_DATA_TRANSFER,
	    "Write: not from where nothing is");
	is_status(rw(h, NVME_IO_READ, .prp1 = ~UINT64_C(0xfff),
	    .prp2 = 0, .cdw12 = 15), NVME_DATA_TRANSFER,
	    "Read: not over the end of all addresses");
	is_status(rw(h, NVME_IO_READ, .prp1 = IOVA + MEM_SIZE - PAGE,
	    .prp2 = IOVA + MEM_SIZE, .cdw12 = 15), NVME_DATA_TRANSFER,
	    "Read: not half beside the memory");
	is_status(rw(h, NVME_IO_DSM, .prp1 = hole, .cdw11 = 4),
	    NVME_DATA_TRANSFER, "DSM: not from where nothing is");
	memset(h->mem + DATA, 0, 32);
	h->mem[DATA + 4] = 1;
	h->mem[DATA + 15] = 0xff;
	is_status(rw(h, NVME_IO_DSM, .prp1 = IOVA + DATA, .cdw11 = 4),
	    NVME_LBA_RANGE, "DSM: not after the end");
}

static void
set_sgl(void *at, uint64_t addr, uint32_t len, unsigned int type)
{
	const struct nvme_sgl d = { .addr = addr, .len = len,
	    .type = (uint8_t)type };

	memcpy(at, &d, sizeof(d));
}

static void
test_sgl_errors(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_READ, .nsid = 1,
	    .flags = 1 << 6, .cdw12 = 7 };
	uint8_t *list = h->mem + LISTS;
	const uint64_t at = IOVA + LISTS;
	unsigned int i;

#define try_sgl(addr, len, type, want, ...) do {			\
	set_sgl(&cmd.sgl, addr, len, type);				\
	is_status(command(h, 1, cmd), want, __VA_ARGS__);		\
} while (0)
	try_sgl(IOVA + DATA, PAGE, 0, NVME_OK, "SGL: a data block");
	try_sgl(IOVA + DATA + 1, PAGE, 0, NVME_OK, "SGL: at any byte");
	try_sgl(IOVA + DATA, 2 * PAGE, 0, NVME_OK, "SGL: longer than needed");
	try_sgl(IOVA + DATA, PAGE - 1, 0, NVME_SGL_BAD_LENGTH,
	    "SGL: not shorter");
	try_sgl(IOVA + DATA, PAGE, 0x10, NVME_SGL_BAD_TYPE,
	    "SGL: no bit bucket");
	try_sgl(IOVA + DATA, PAGE, 0x01, NVME_SGL_BAD_TYPE,
	    "SGL: no offset as address");
	try_sgl(IOVA + DATA, PAGE, 0x40, NVME_SGL_BAD_TYPE, "SGL: no keys");
	try_sgl(IOVA + DATA, PAGE, 0xf0, NVME_SGL_BAD_TYPE,
	    "SGL: nothing of a vendor");
	try_sgl(UINT64_C(0xfffffffffffffff0), PAGE, 0, NVME_DATA_TRANSFER,
	    "SGL: not over the end of all addresses");
	try_sgl(IOVA + MEM_SIZE + PAGE, PAGE, 0, NVME_DATA_TRANSFER,
	    "SGL: not where nothing is");
	try_sgl(at, 8, 0x30, NVME_SGL_BAD_SEGMENT, "SGL: no half descriptor");
	try_sgl(at, 0, 0x30, NVME_SGL_BAD_SEGMENT, "SGL: no empty segment");
	try_sgl(IOVA + MEM_SIZE, 16, 0x30, NVME_DATA_TRANSFER,
	    "SGL: no segment that is not there");
	set_sgl(list, IOVA + DATA, 100, 0);
	set_sgl(list + 16, IOVA + DATA + 200, PAGE - 100, 0);
	try_sgl(at, 32, 0x30, NVME_OK, "SGL: a last segment of two blocks");
	try_sgl(at, 32, 0x20, NVME_OK, "SGL: or a segment of two blocks");
	set_sgl(list + 16, at, 32, 0x30);
	try_sgl(at, 32, 0x30, NVME_SGL_BAD_SEGMENT,
	    "SGL: the last segment names no other");
	set_sgl(list, at + 32, 16, 0x30);
	set_sgl(list + 16, IOVA + DATA, PAGE, 0);
	try_sgl(at, 32, 0x20, NVME_SGL_BAD_SEGMENT,
	    "SGL: only the end of a segment names another");
	set_sgl(list, at, 16, 0x20);
	try_sgl(at, 16, 0x20, NVME_SGL_BAD_COUNT,
	    "SGL: a segment that goes on with itself is not followed for ever");
	for (i = 0; i < 4096; i++)
		set_sgl(list + 16 * i, IOVA + DATA, 0, 0);
	try_sgl(at, 16 * 4096, 0x30, NVME_SGL_BAD_LENGTH,
	    "SGL: nothing but empty blocks");
	try_sgl(at, 0xfffffff0, 0x30, NVME_SGL_BAD_COUNT,
	    "SGL: too many of them");
	for (i = 0; i < 4096; i++)
		set_sgl(list + 16 * i, IOVA + DATA + 2 * i, 1, 0);
	try_sgl(at, 16 * 4096, 0x30, NVME_SGL_BAD_COUNT,
	    "SGL: too many pieces");
#undef try_sgl
}

/* --- abort ---------------------------------------------------------------- */

static void
test_abort(struct host *h)
{
	struct nvme_cmd aer = { .opcode = NVME_ADM_AER };
	struct answer a;
	uint16_t cid[5];
	unsigned int i;

	is_status(admin(h, .opcode = NVME_ADM_ABORT, .cdw10 = 60),
	    NVME_INVALID_FIELD, "Abort: not in a queue that is not there");
	a = admin(h, .opcode = NVME_ADM_ABORT, .cdw10 = 0xabcd0001);
	ok(a.status == NVME_OK && a.result == 1,
	    "Abort: what is not there is not aborted");
	for (i = 0; i < 5; i++)
		cid[i] = queue_put(h, 0, &aer);
	queue_ring(h, 0);
	a = queue_take(h, 0, ANSWER_MS);
	ok(a.status == NVME_AER_LIMIT && a.cid == cid[4],
	    "a fifth AER is too much");
	a = queue_take(h, 0, 50);
	is_hex(a.status, ~0u, "the others wait");
	for (i = 0; i < 4; i++) {
		queue_put(h, 0, &(struct nvme_cmd){ .opcode = NVME_ADM_ABORT,
		    .cdw10 = (uint32_t)cid[3 - i] << 16 });
		queue_ring(h, 0);
		a = queue_take(h, 0, ANSWER_MS);
		ok(a.status == NVME_ABORT_REQUESTED && a.cid == cid[3 - i],
		    "an AER is aborted");
		a = queue_take(h, 0, ANSWER_MS);
		ok(a.status == NVME_OK && a.result == 0, "as Abort tells");
	}
}

/* --- doorbells, events ---------------------------------------------------- */

static void
test_doorbells(struct host *h)
{
	struct nvme_cmd aer = { .opcode = NVME_ADM_AER };
	struct answer a;
	uint16_t cid;

	cid = queue_put(h, 0, &aer);
	queue_ring(h, 0);
	ring_doorbell(h, 2, 256);	/* of 256 entries */
	a = queue_take(h, 0, ANSWER_MS);
	ok(a.status == NVME_OK && a.cid == cid,
	    "a tail past the end of the queue is an event");
	is_hex(a.result, 0x010100, "of the right kind");
	queue_ring(h, 1);
	queue_put(h, 0, &aer);
	queue_ring(h, 0);
	ring_doorbell(h, 3, 0xffff);
	/* A completion makes it look at the head, so leave that as it is. */
	queue_put(h, 1, &(struct nvme_cmd){ .opcode = NVME_IO_FLUSH,
	    .nsid = 1 });
	queue_ring(h, 1);
	is_status(queue_peek(h, 1, ANSWER_MS), NVME_OK, "the queue goes on");
	a = queue_take(h, 0, 50);
	is_hex(a.status, ~0u, "one event is told until the log is read");
	ring_doorbell(h, 3, h->q[1].head);
	queue_put(h, 0, &(struct nvme_cmd){ .opcode = NVME_ADM_GET_LOG,
	    .prp1 = IOVA + DATA, .cdw10 = 3 << 16 | 1u << 15 | 1 });
	queue_ring(h, 0);
	is_status(queue_take(h, 0, ANSWER_MS), NVME_OK,
	    "the log is read, retaining the event");
	is_hex(queue_take(h, 0, 50).status, ~0u, "that is not enough");

	if (h->db == NULL) {
		ring_doorbell(h, 2 * 9, 1);
		ring_doorbell(h, 1023, 1);
	}
	queue_put(h, 0, &(struct nvme_cmd){ .opcode = NVME_ADM_GET_LOG,
	    .prp1 = IOVA + DATA, .cdw10 = 3 << 16 | 1 });
	queue_ring(h, 0);
	is_status(queue_take(h, 0, ANSWER_MS), NVME_OK, "the log is read");
	a = queue_take(h, 0, ANSWER_MS);
	is_hex(a.result, 0x010100, "the bad head is told then");
	if (h->db == NULL) {
		queue_put(h, 0, &aer);
		get_log(h, NVME_LOG_ERROR, 4, .nsid = 0);
		a = queue_take(h, 0, ANSWER_MS);
		is_hex(a.result, 0x010000,
		    "so is a doorbell of no queue");
	} else {
		skip(1, "shared memory does not tell");
	}

	queue_put(h, 0, &aer);
	queue_ring(h, 0);
	is_status(set_feature(h, 0xb, .cdw11 = 2), NVME_OK,
	    "the host wants to hear of heat");
	queue_put(h, 0, &(struct nvme_cmd){ .opcode = NVME_ADM_SET_FEATURES,
	    .cdw10 = 4, .cdw11 = 300 });
	queue_ring(h, 0);
	is_status(queue_take(h, 0, ANSWER_MS), NVME_OK, "and it is warm");
	a = queue_take(h, 0, ANSWER_MS);
	is_hex(a.result, 0x020101, "which is an event");
	get_log(h, NVME_LOG_SMART, 128, .nsid = 0);
	is_hex(h->mem[DATA], 2, "and a critical warning");
}

/* --- nonsense ------------------------------------------------------------- */

static uint64_t
some_addr(void)
{
	switch (t_below(&seed, 8)) {
	case 0:
		return (t_random(&seed));
	case 1:
		return (~t_below(&seed, 1 << 20));
	case 2:
		return (IOVA + MEM_SIZE - t_below(&seed, 8192));
	case 3:
		return (IOVA + LISTS + 8 * t_below(&seed, 65536));
	default:
		return (IOVA + LISTS + PAGE * t_below(&seed, 512));
	}
}

static struct nvme_cmd
some_command(unsigned int qid)
{
	static const uint8_t ops[] = { 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x7f };
	struct nvme_cmd cmd;

	fill_random((uint8_t *)&cmd, sizeof(cmd), &seed);
	if (t_below(&seed, 8) != 0)
		cmd.opcode = ops[t_below(&seed, T_COUNT(ops))];
	if (t_below(&seed, 4) != 0)
		cmd.flags = (uint8_t)(t_below(&seed, 3) << 6);
	if (qid == 0 && t_below(&seed, 4) != 0)
		cmd.flags = 0;
	if (t_below(&seed, 4) != 0)
		cmd.nsid = 1;
	cmd.prp1 = some_addr();
	cmd.prp2 = some_addr();
	if (cmd.flags != 0)
		set_sgl(&cmd.sgl, some_addr(), t_below(&seed, 2) ?
		    16u * (uint32_t)t_below(&seed, 70) :
		    (uint32_t)t_random(&seed), 0x20u + 0x10u *
		    (unsigned int)t_below(&seed, 2));
	if (t_below(&seed, 4) != 0) {
		cmd.cdw10 = (uint32_t)t_below(&seed, BLOCKS + 10);
		cmd.cdw11 = (uint32_t)t_below(&seed, 6);
		cmd.cdw12 = (uint32_t)t_below(&seed, 2100);
		cmd.cdw13 = 0;
	}
	return (cmd);
}

/* Not the end of the queues that this test lives on. */
static bool
harmless(const struct nvme_cmd *cmd)
{
	return (!((cmd->opcode == NVME_ADM_DELETE_SQ ||
	    cmd->opcode == NVME_ADM_DELETE_CQ) && (cmd->cdw10 & 0xffff) == 1) &&
	    cmd->opcode != NVME_ADM_AER);
}

static void
test_nonsense(struct host *h)
{
	struct nvme_cmd cmd;
	unsigned int i, j, lost = 0, n = 20000, qid;
	struct nvme_sgl *d;
	uint64_t *list = (void *)(h->mem + LISTS);

	for (i = 0; i < n && lost == 0; i++) {
		if (i % 100 == 0) {
			/* Lists of everything that could be in one. */
			for (j = 0; j < 65536; j++)
				list[j] = some_addr();
			for (j = 0; j < 32768; j += 3) {
				d = (void *)&list[2 * j];
				d->len = 16u * (uint32_t)t_below(&seed, 40);
				d->type = (uint8_t)(0x10 *
				    (t_below(&seed, 10) == 0 ?
				    2 + t_below(&seed, 2) : 0));
			}
		}
		qid = (unsigned int)t_below(&seed, 2);
		do {
			cmd = some_command(qid);
		} while (qid == 0 && !harmless(&cmd));
		/* Queues and answers must not be where data goes. */
		lost += command(h, qid, cmd).status == ~0u;
	}
	is_int(lost, 0, "%u senseless commands are all answered", n);
	is_status(admin(h, .opcode = NVME_ADM_IDENTIFY, .prp1 = IOVA + DATA,
	    .cdw10 = 1), NVME_OK, "and the controller is well");

	for (i = 0; i < 2000; i++)
		ring_doorbell(h, (unsigned int)t_below(&seed, 1024),
		    (uint32_t)t_random(&seed));
	usleep(20000);
	is_hex(reg_get(h, NVME_REG_VS), 0x10400,
	    "senseless doorbells are survived");
	for (i = 0; i < 2000; i++)
		vd_client_write(h->client, VD_REGION_BAR0,
		    t_below(&seed, 0x4000), &list[i % 1000],
		    1 + t_below(&seed, 16));
	is_hex(reg_get(h, NVME_REG_VS), 0x10400,
	    "and senseless registers");
	ok(host_enable(h), "the controller can be reset and enabled");
	is_status(admin(h, .opcode = NVME_ADM_IDENTIFY, .prp1 = IOVA + DATA,
	    .cdw10 = 1), NVME_OK, "and works");
}

static void
test_all(const char *doorbells)
{
	struct host h;

	diag("doorbells: %s", doorbells);
	host_start(&h, (const char *const[]){ "--doorbells", doorbells,
	    "--ram", "8M", NULL });
	host_ready(&h);
	test_create_cq(&h);
	test_create_sq(&h);
	test_delete(&h);
	test_features(&h);
	test_more_features(&h);
	test_logs(&h);
	test_io_errors(&h);
	test_prp_errors(&h);
	test_sgl_errors(&h);
	test_abort(&h);
	test_doorbells(&h);
	test_nonsense(&h);
	is_int(host_stop(&h, SIGINT), 0, "SIGINT ends it with success");
}

int
main(void)
{
	seed = t_env("T_SEED", (uint64_t)time(NULL));
	diag("T_SEED=%" PRIu64, seed);
	test_all("map");
	test_all("message");
	return (done());
}
