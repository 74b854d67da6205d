/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVMe controller and hosts whose memory it cannot map: queues, lists and
 * data are messages.
 */

#define T_ALARM		300

#include "t/example-nvme-relay.h"

#define BLOCKS		16384u		/* of 512 bytes: 8 MiB */
#define MANY		100u		/* commands at once */
#define BIG		(128u << 10)	/* bytes of a command with a list */
#define NR_BIG		32u

static uint64_t seed;

/* --- many commands -------------------------------------------------------- */

/*
 * Command i of a batch: len bytes, at DATA + i * len, of the blocks from
 * i * len on.  Each has a page for its list.
 */
static void
put_one(struct host *h, unsigned int opcode, uint32_t nsid, unsigned int i,
    size_t len)
{
	size_t data = DATA + i * len, list = LISTS + (size_t)i * PAGE, k;
	struct nvme_cmd cmd = { .opcode = (uint8_t)opcode, .nsid = nsid,
	    .prp1 = IOVA + data, .cdw10 = (uint32_t)(i * len / 512),
	    .cdw12 = (uint32_t)(len / 512) - 1 };

	must(data + len <= MEM_SIZE && list < DATA);
	if (len > PAGE)
		cmd.prp2 = IOVA + list;
	for (k = 1; k < len / PAGE; k++)
		((uint64_t *)(void *)(h->mem + list))[k - 1] =
		    IOVA + data + k * PAGE;
	queue_put(h, 1, &cmd);
}

static void
put_batch(struct host *h, unsigned int opcode, uint32_t nsid, unsigned int n,
    size_t len)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		put_one(h, opcode, nsid, i, len);
	queue_ring(h, 1);
}

/* How many of n commands complete with status. */
static unsigned int
take_batch(struct host *h, unsigned int n, unsigned int status)
{
	unsigned int i, right = 0;
	struct answer a;

	for (i = 0; i < n; i++) {
		a = queue_take(h, 1, ANSWER_MS);
		if (a.status == ~0u)
			break;
		right += a.status == status;
	}
	return (right);
}

/* --- the tests ------------------------------------------------------------ */

/* Sizes and places of data, by PRPs; then what else commands point at. */
static void
test_data(struct host *h, uint32_t nsid)
{
	static const size_t lens[] = { 512, PAGE, 2 * PAGE, 3 * PAGE, 65536,
	    512 * PAGE / 8, 1 << 20 };
	uint8_t *want = malloc(1 << 20);
	unsigned int wrong = 0, differ = 0;
	struct nvme_cmd cmd;
	struct relay r;
	uint64_t lba;
	size_t i, len;

	must(want != NULL);
	ready(&r, h);
	is_status(identify(h, 1, 0), NVME_OK, "Identify");
	is_mem(h->mem + DATA + 24, "memtree NVMe", 12, "has come");
	for (i = 0; i < 3 * T_COUNT(lens); i++) {
		len = lens[i % T_COUNT(lens)];
		lba = t_random(&seed) % (BLOCKS - len / 512);
		fill_random(want, len, &seed);
		memcpy(h->mem + DATA, want, len);
		wrong += move(h, NVME_IO_WRITE, nsid, lba,
		    (unsigned int)(len / 512), DATA, len).status != NVME_OK;
		memset(h->mem + DATA2, 0xee, len + 8);
		wrong += move(h, NVME_IO_READ, nsid, lba,
		    (unsigned int)(len / 512), DATA2, len).status != NVME_OK;
		differ += memcmp(h->mem + DATA2, want, len) != 0 ||
		    h->mem[DATA2 + len] != 0xee;
		wrong += move(h, NVME_IO_COMPARE, nsid, lba,
		    (unsigned int)(len / 512), DATA, len).status != NVME_OK;
	}
	is_int(wrong, 0, "namespace %u: all commands succeed", nsid);
	is_int(differ, 0, "what was written is read, and no more");
	ok(r.reads > 0 && r.writes > 0, "by %u messages", r.reads + r.writes);
	h->mem[DATA + 700] ^= 1;
	is_status(move(h, NVME_IO_COMPARE, nsid, lba, 2, DATA, 1024),
	    NVME_COMPARE_FAILED, "what differs does not compare");

	/* Two blocks of data in a list, the second first in memory. */
	cmd = (struct nvme_cmd){ .opcode = NVME_IO_WRITE, .flags = 1 << 6,
	    .nsid = nsid, .cdw12 = 1, .sgl = { .addr = IOVA + LISTS,
	    .len = 2 * sizeof(struct nvme_sgl), .type = NVME_SGL_LAST << 4 } };
	memcpy(h->mem + LISTS, (const struct nvme_sgl[2]){
	    { .addr = IOVA + DATA + 1000, .len = 300 },
	    { .addr = IOVA + DATA + 100, .len = 724 } },
	    2 * sizeof(struct nvme_sgl));
	is_status(command(h, 1, cmd), NVME_OK, "an SGL");
	is_status(move(h, NVME_IO_READ, nsid, 0, 2, DATA2, 1024), NVME_OK,
	    "and back");
	ok(memcmp(h->mem + DATA2, h->mem + DATA + 1000, 300) == 0 &&
	    memcmp(h->mem + DATA2 + 300, h->mem + DATA + 100, 724) == 0,
	    "has its data");
	leave(&r);
	free(want);
}

/* n commands of len bytes each, kept until all of them have asked. */
static void
test_in_flight(struct host *h, uint32_t nsid, unsigned int n, size_t len)
{
	uint8_t *want = malloc(n * len);
	struct relay r;

	must(want != NULL);
	ready(&r, h);
	fill_random(h->mem + DATA, n * len, &seed);
	memcpy(want, h->mem + DATA, n * len);
	/* Their memory is contiguous: one message each. */
	hold(&r, DATA, n * len, n);
	put_batch(h, NVME_IO_WRITE, nsid, n, len);
	is_int(take_batch(h, n, NVME_OK), n, "namespace %u: %u writes of "
	    "%zu KiB, none answered before the last has asked", nsid, n,
	    len >> 10);
	is_int(r.most, n, "have all their DMA in flight");
	is_int(r.reads, n, "one DMA_READ each");
	release(&r);
	memset(h->mem + DATA, 0xee, n * len);
	hold(&r, DATA, n * len, n);
	put_batch(h, NVME_IO_READ, nsid, n, len);
	is_int(take_batch(h, n, NVME_OK), n, "as many reads");
	is_int(r.most, n, "have all theirs");
	is_int(r.writes, n, "one DMA_WRITE each");
	ok(memcmp(h->mem + DATA, want, n * len) == 0, "every byte is right");
	leave(&r);
	free(want);
}

/* Guest memory that answers with errors. */
static void
test_errors(struct host *h, uint32_t nsid)
{
	static const uint32_t errors[] = { EFAULT, EACCES, EIO, 0 };
	struct relay r;
	size_t i;

	ready(&r, h);
	fill_random(h->mem + DATA, BIG, &seed);
	is_status(move(h, NVME_IO_WRITE, nsid, 0, BIG / 512, DATA, BIG),
	    NVME_OK, "namespace %u: some data", nsid);
	memcpy(h->mem + DATA2, h->mem + DATA, BIG);
	for (i = 0; i < BIG; i++)
		h->mem[DATA + i] ^= 0xff;
	for (i = 0; i < T_COUNT(errors); i++) {
		r.error = errors[i];
		/* One page of many. */
		set_range(&r, DATA + 17 * PAGE, 1);
		r.manner = FAIL;
		is_status(move(h, NVME_IO_WRITE, nsid, 0, BIG / 512, DATA,
		    BIG), NVME_DATA_TRANSFER, "Write: error %u for a page",
		    errors[i]);
		is_status(move(h, NVME_IO_READ, nsid, 0, BIG / 512, DATA,
		    BIG), NVME_DATA_TRANSFER, "Read: the same");
		set_range(&r, LISTS, PAGE);
		is_status(move(h, NVME_IO_WRITE, nsid, 0, BIG / 512, DATA,
		    BIG), NVME_DATA_TRANSFER, "for the list");
		set_range(&r, DATA, PAGE);
		is_status(identify(h, 1, 0), NVME_DATA_TRANSFER,
		    "Identify: for its page");
	}
	put_batch(h, NVME_IO_WRITE, nsid, NR_BIG, PAGE);
	is_int(take_batch(h, NR_BIG, NVME_OK), NR_BIG - 1,
	    "one of %u commands has an error, the others have not", NR_BIG);
	r.manner = PASS;
	is_status(move(h, NVME_IO_READ, nsid, 8, 8, DATA2 + BIG, PAGE),
	    NVME_OK, "what was written");
	is_mem(h->mem + DATA2 + BIG, h->mem + DATA + PAGE, PAGE, "is there");
	is_status(move(h, NVME_IO_READ, nsid, 0, 8, DATA, PAGE), NVME_OK,
	    "and what could not be fetched");
	is_mem(h->mem + DATA, h->mem + DATA2, PAGE, "was not written");
	leave(&r);
}

/* A host that does not answer, and one that gives commands up. */
static void
test_silence(struct host *h)
{
	struct relay r;
	struct answer a;
	int64_t begun;
	uint16_t cid;

	ready(&r, h);
	begun = t_now_ms();
	set_range(&r, DATA, PAGE);
	r.manner = SWALLOW;
	is_status(move(h, NVME_IO_WRITE, 1, 0, 8, DATA, PAGE),
	    NVME_DATA_TRANSFER, "no answer is an error, too");
	ok(t_now_ms() - begun < 9000, "in time (%d ms)",
	    (int)(t_now_ms() - begun));

	hold(&r, DATA, PAGE, 2);
	put_one(h, NVME_IO_WRITE, 1, 0, PAGE);
	cid = (uint16_t)(h->cid - 1);
	queue_ring(h, 1);
	must(wait_held(&r, 1));
	a = admin(h, .opcode = NVME_ADM_ABORT,
	    .cdw10 = (uint32_t)cid << 16 | 1);
	is_status(a, NVME_OK, "a command that waits for its data is aborted");
	is_int(a.result, 0, "indeed");
	is_status(queue_take(h, 1, ANSWER_MS), NVME_ABORT_REQUESTED,
	    "without its data");
	release(&r);
	is_status(move(h, NVME_IO_READ, 1, 0, 8, DATA2, PAGE), NVME_OK,
	    "that comes late does no harm");

	hold(&r, DATA, PAGE, 2);
	put_one(h, NVME_IO_READ, 1, 0, PAGE);
	queue_ring(h, 1);
	must(wait_held(&r, 1));
	is_status(queue_take(h, 1, 100), ~0u, "a read waits for its host");
	reg_set(h, NVME_REG_CC, 0);
	usleep(50000);
	is_hex(reg_get(h, NVME_REG_CSTS) & NVME_CSTS_RDY, NVME_CSTS_RDY,
	    "a reset waits for what is written to memory");
	release(&r);
	ok(csts_wait(h, NVME_CSTS_RDY, 0), "and no longer");
	ok(host_enable(h) && create_pair(h, 1, 256), "enabled again");
	is_status(move(h, NVME_IO_READ, 1, 0, 8, DATA2, PAGE), NVME_OK,
	    "it works");
	leave(&r);
}

/* A queue that is deleted under commands that wait. */
static void
test_delete(struct host *h)
{
	struct relay r;

	ready(&r, h);
	hold(&r, DATA, MANY * PAGE, 2 * MANY);
	put_batch(h, NVME_IO_WRITE, 1, MANY, PAGE);
	ok(wait_held(&r, MANY), "%u commands wait", MANY);
	is_status(admin(h, .opcode = NVME_ADM_DELETE_SQ, .cdw10 = 1), NVME_OK,
	    "their queue is deleted");
	is_int(take_batch(h, MANY, NVME_ABORT_SQ_DELETED), MANY,
	    "all of them are aborted");
	release(&r);
	is_status(create_sq(h, 1, 256, 1), NVME_OK, "another is created");
	h->q[1].tail = 0;
	is_status(move(h, NVME_IO_READ, 1, 0, 8, DATA2, PAGE), NVME_OK,
	    "it works");
	leave(&r);
}

/* The host is gone while n of its messages are not answered. */
static void
test_death(struct host *h, unsigned int opcode, unsigned int n)
{
	struct relay r;

	ready(&r, h);
	hold(&r, DATA, MEM_SIZE - DATA, 256);
	put_batch(h, opcode, 1, n, PAGE);
	ok(wait_held(&r, n), "%u commands wait", n);
	leave(&r);
	ready(&r, h);
	is_status(move(h, NVME_IO_WRITE, 1, 0, 8, DATA, PAGE), NVME_OK,
	    "the next host finds it well");
	leave(&r);
}

/* examples/nvme-host with private memory; ms: it is killed after that time. */
static int
drive(struct host *h, bool twin, const char *size, const char *depth,
    int ms)
{
	const char *args[] = { "--socket", h->path, "--memory", "private",
	    "--size", size, "--depth", depth, "--block", "4K", "--queues",
	    "2", twin ? NULL : "--no-twin", NULL };
	char buf[512];
	int out;
	pid_t pid;

	pid = example_spawn("nvme-host", args, false, &out);
	if (ms > 0) {
		usleep((useconds_t)ms * 1000);
		kill(pid, SIGKILL);
	}
	while (read(out, buf, sizeof(buf)) > 0)
		continue;
	close(out);
	return (nvme_wait(pid));
}

static void
test_driver(struct host *h)
{
	static const int after[] = { 20, 60, 150 };
	size_t i;

	is_int(drive(h, false, "4M", "32", 0), 0,
	    "the example driver finds every byte as written");
	is_int(drive(h, true, "4M", "32", 0), 0,
	    "also by a socket for DMA alone");
	for (i = 0; i < T_COUNT(after); i++) {
		is_int(drive(h, i % 2, "64M", "1", after[i]), 256 + SIGKILL,
		    "a driver is killed after %d ms", after[i]);
		is_int(drive(h, i % 2 == 0, "4M", "32", 0), 0,
		    "the next is served");
	}
}

int
main(void)
{
	static const uint32_t kinds[] = { 1, 2 };	/* memory, a file */
	char file[] = "/tmp/example-nvme-file.XXXXXX";
	const char *args[] = { "--doorbells", "message", "--ram", "8M",
	    "--file", file, "--ram", "64M", NULL };
	struct host h;
	size_t i;

	seed = t_env("T_SEED", (uint64_t)time(NULL));
	diag("T_SEED=%" PRIu64, seed);
	must(new_file(file, BLOCKS * 512));
	host_start(&h, args);
	for (i = 0; i < T_COUNT(kinds); i++) {
		test_data(&h, kinds[i]);
		test_in_flight(&h, kinds[i], MANY, PAGE);
		test_in_flight(&h, kinds[i], NR_BIG, BIG);
		test_errors(&h, kinds[i]);
	}
	test_silence(&h);
	test_delete(&h);
	test_death(&h, NVME_IO_WRITE, 1);
	test_death(&h, NVME_IO_READ, 1);
	test_death(&h, NVME_IO_WRITE, MANY);
	test_death(&h, NVME_IO_READ, MANY);
	test_driver(&h);
	is_int(host_stop(&h, SIGTERM), 0, "SIGTERM ends it cleanly");
	unlink(file);
	return (done());
}
