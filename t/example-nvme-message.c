/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVMe controller and hosts whose memory it cannot map: queues, lists and
 * data are messages.  What a host answers goes through a relay, which counts,
 * keeps messages back, answers some with errors, and hangs up.
 */

#define T_ALARM		300

#include <sys/eventfd.h>

#include "t/example-nvme.h"
#include "t/vfu.h"

#define BLOCKS		16384u		/* of 512 bytes: 8 MiB */
#define MANY		100u		/* commands at once */
#define BIG		(128u << 10)	/* bytes of a command with a list */
#define NR_BIG		32u

static uint64_t seed;

/* --- the relay ------------------------------------------------------------ */

/* What becomes of DMA in its range. */
enum manner {
	PASS,
	HOLD,		/* until there are enough, then the last first */
	FAIL,
	SWALLOW,	/* no answer ever */
};

struct held {
	uint8_t *msg;
	size_t len;
};

struct relay {
	int server;			/* its sockets */
	int client;
	int other;			/* of the client's socket: lent to it */
	int kick;			/* let go of what is held */
	pthread_t thread;
	_Atomic(int) manner;
	_Atomic(uint32_t) error;	/* FAIL */
	_Atomic(uint64_t) first;	/* the range */
	_Atomic(uint64_t) last;
	_Atomic(unsigned int) want;	/* HOLD: enough */
	_Atomic(unsigned int) nheld;
	_Atomic(unsigned int) most;	/* held at once */
	_Atomic(unsigned int) reads;	/* DMA_READs in the range */
	_Atomic(unsigned int) writes;
	struct held held[256];
	struct host *h;
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *space;
};

static bool
get(int fd, void *buf, size_t len)
{
	uint8_t *p = buf;
	ssize_t n;

	for (; len > 0; p += n, len -= (size_t)n)
		if ((n = recv(fd, p, len, 0)) <= 0)
			return (false);
	return (true);
}

/* A whole message, or NULL at the end. */
static uint8_t *
get_message(int fd, size_t *len)
{
	struct vd_hdr hdr;
	uint8_t *msg;

	if (!get(fd, &hdr, sizeof(hdr)))
		return (NULL);
	must(hdr.size >= sizeof(hdr) && hdr.size <= 4u << 20);
	must((msg = malloc(hdr.size)) != NULL);
	memcpy(msg, &hdr, sizeof(hdr));
	*len = hdr.size;
	if (get(fd, msg + sizeof(hdr), hdr.size - sizeof(hdr)))
		return (msg);
	free(msg);
	return (NULL);
}

/* Nobody there is no error: the other side will find out. */
static void
put_message(int fd, uint8_t *msg, size_t len)
{
	(void)v_send_raw(fd, msg, len, NULL, 0);
	free(msg);
}

static void
let_go(struct relay *r)
{
	unsigned int n = r->nheld;

	while (n-- > 0)
		put_message(r->client, r->held[n].msg, r->held[n].len);
	r->nheld = 0;
}

/* A command of the server's. */
static void
ask(struct relay *r, uint8_t *msg, size_t len)
{
	struct vd_dma_access a;
	struct vd_hdr hdr;

	memcpy(&hdr, msg, sizeof(hdr));
	must(hdr.cmd == VD_CMD_DMA_READ || hdr.cmd == VD_CMD_DMA_WRITE);
	memcpy(&a, msg + sizeof(hdr), sizeof(a));
	if (a.addr > r->last || a.addr + (a.count - 1) < r->first) {
		put_message(r->client, msg, len);
		return;
	}
	if (hdr.cmd == VD_CMD_DMA_READ)
		r->reads++;
	else
		r->writes++;
	switch (r->manner) {
	case FAIL:
		hdr.flags = VD_TYPE_REPLY | VD_ERROR;
		hdr.error = r->error;
		hdr.size = sizeof(hdr);
		memcpy(msg, &hdr, sizeof(hdr));
		put_message(r->server, msg, sizeof(hdr));
		break;
	case SWALLOW:
		free(msg);
		break;
	case HOLD:
		must(r->nheld < T_COUNT(r->held));
		r->held[r->nheld++] = (struct held){ msg, len };
		if (r->nheld > r->most)
			r->most = r->nheld;
		if (r->nheld < r->want)
			break;
		r->manner = PASS;
		let_go(r);
		break;
	default:
		put_message(r->client, msg, len);
	}
}

static void *
relay(void *arg)
{
	struct relay *r = arg;
	struct pollfd pfd[] = {
		{ .fd = r->server, .events = POLLIN },
		{ .fd = r->client, .events = POLLIN },
		{ .fd = r->kick, .events = POLLIN },
	};
	struct vd_hdr hdr;
	uint64_t n;
	uint8_t *msg;
	size_t len;

	for (;;) {
		must(poll(pfd, 3, -1) > 0);
		if (pfd[2].revents != 0) {
			must(read(r->kick, &n, sizeof(n)) == sizeof(n));
			let_go(r);
		}
		if (pfd[1].revents != 0) {
			if ((msg = get_message(r->client, &len)) == NULL)
				break;
			put_message(r->server, msg, len);
		}
		if (pfd[0].revents != 0) {
			if ((msg = get_message(r->server, &len)) == NULL)
				break;
			memcpy(&hdr, msg, sizeof(hdr));
			if ((hdr.flags & VD_TYPE_MASK) == VD_TYPE_REPLY)
				put_message(r->client, msg, len);
			else
				ask(r, msg, len);
		}
	}
	shutdown(r->server, SHUT_RDWR);
	shutdown(r->client, SHUT_RDWR);
	while (r->nheld > 0)
		free(r->held[--r->nheld].msg);
	return (NULL);
}

static void
set_range(struct relay *r, size_t off, size_t len)
{
	r->first = IOVA + off;
	r->last = IOVA + off + (len - 1);
	r->reads = r->writes = r->most = 0;
}

/* Keep DMA in the range back until there are want, or it is released. */
static void
hold(struct relay *r, size_t off, size_t len, unsigned int want)
{
	set_range(r, off, len);
	r->want = want;
	r->manner = HOLD;
}

static void
release(struct relay *r)
{
	const uint64_t one = 1;

	r->manner = PASS;
	must(write(r->kick, &one, sizeof(one)) == sizeof(one));
}

static bool
wait_held(const struct relay *r, unsigned int n)
{
	int64_t end = t_now_ms() + 10000;

	while (r->nheld < n && t_now_ms() < end) {
		if (r->h->serves && vd_client_run(r->h->client) == -1)
			return (false);
		usleep(100);
	}
	return (r->nheld >= n);
}

/* --- a host with private memory ------------------------------------------- */

static void
make_memory(struct relay *r)
{
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	struct mt_region *ram;

	backing.ptr = r->h->mem;
	must((r->t = mt_topology_create()) != NULL);
	r->root = mt_region_create_container(r->t, "host", MT_LAST_MAX);
	ram = mt_region_create_ram(r->t, "memory", MT_SIZE(MEM_SIZE),
	    &backing);
	must(r->root != NULL && ram != NULL);
	must(mt_region_add(r->root, ram, IOVA, 0) == 0);
	mt_region_put(ram);
	must((r->space = mt_space_create(r->root, "host")) != NULL);
}

/* Connect by way of the relay, and give the device memory without a file. */
static void
join(struct relay *r, struct host *h)
{
	const struct vd_client_options opt = { .no_twin = true };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int sv[2];

	memset(r, 0, sizeof(*r));
	r->h = h;
	must(strlen(h->path) < sizeof(sun.sun_path));
	memcpy(sun.sun_path, h->path, strlen(h->path) + 1);
	r->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(r->server != -1);
	must(connect(r->server, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	r->client = sv[0];
	must((r->kick = eventfd(0, EFD_CLOEXEC)) != -1);
	set_range(r, 0, MEM_SIZE);
	must(pthread_create(&r->thread, NULL, relay, r) == 0);
	must((h->client = vd_client_attach_with(sv[1], &opt)) != NULL);
	if (h->mem == NULL) {
		h->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(h->mem != MAP_FAILED);
	}
	make_memory(r);
	vd_client_set_dma(h->client, r->space);
	h->serves = true;
	host_map(h);			/* without memfd */
	config_set(h, 4, 0x0406);	/* memory, bus master, no INTx */
}

/* Have the host gone, whatever it was doing. */
static void
leave(struct relay *r)
{
	shutdown(r->client, SHUT_RDWR);
	must(pthread_join(r->thread, NULL) == 0);
	vd_client_destroy(r->h->client);
	r->h->client = NULL;
	close(r->server);
	close(r->client);
	close(r->kick);
	must(mt_space_destroy(r->space) == 0);
	mt_region_put(r->root);
	must(mt_topology_destroy(r->t) == 0);
}

/* Everything until there is one I/O pair. */
static void
ready(struct relay *r, struct host *h)
{
	join(r, h);
	must(host_enable(h));
	must(create_pair(h, 1, 256));
}

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

/* Queues that cannot be reached: no status can tell of it. */
static void
test_queue_errors(struct host *h)
{
	struct relay r;

	ready(&r, h);
	r.error = EFAULT;
	set_range(&r, CQ_OFF(1), PAGE);
	r.manner = FAIL;
	put_one(h, NVME_IO_READ, 1, 0, PAGE);
	queue_ring(h, 1);
	is_status(queue_take(h, 1, 100), ~0u, "a completion has no way");
	is_int(r.writes, 1, "which is not tried again and again");
	r.manner = PASS;
	must(vd_client_dma_unmap(h->client, IOVA, MEM_SIZE) == 0);
	host_map(h);
	is_status(queue_take(h, 1, ANSWER_MS), NVME_OK,
	    "until memory changes: it is not lost");

	set_range(&r, SQ_OFF(1), PAGE);
	r.manner = FAIL;
	put_one(h, NVME_IO_READ, 1, 0, PAGE);
	queue_ring(h, 1);
	is_status(queue_take(h, 1, 100), ~0u, "nor is a command fetched");
	is_int(r.reads, 1, "or tried again and again");
	is_status(identify(h, 1, 0), NVME_OK, "other queues go on");
	r.manner = PASS;
	ok(host_enable(h) && create_pair(h, 1, 256), "a reset helps");
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
	int fd;

	seed = t_env("T_SEED", (uint64_t)time(NULL));
	diag("T_SEED=%" PRIu64, seed);
	must((fd = mkstemp(file)) != -1);
	must(ftruncate(fd, (off_t)BLOCKS * 512) == 0);
	close(fd);
	host_start(&h, args);
	for (i = 0; i < T_COUNT(kinds); i++) {
		test_data(&h, kinds[i]);
		test_in_flight(&h, kinds[i], MANY, PAGE);
		test_in_flight(&h, kinds[i], NR_BIG, BIG);
		test_errors(&h, kinds[i]);
	}
	test_silence(&h);
	test_queue_errors(&h);
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
