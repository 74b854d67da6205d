/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_EXAMPLE_NVME_H
#define T_EXAMPLE_NVME_H

/*
 * What the tests of examples/nvme share: the program under test, started as
 * a user would, and as much of a driver as it takes to look at every answer.
 */

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#include <libvfudma/vfudma.h>

#include "examples/nvme/spec.h"
#include "t/util.h"

/*
 * The memory that the device is given, at IOVA.  Queue 0 is the admin pair;
 * lists and data are for the tests to use as they like.
 */
#define MEM_SIZE	((size_t)16 << 20)
#define IOVA		UINT64_C(0x10000000)
#define PAGE		4096u
#define SQ_OFF(qid)	(0x20000u * (qid))
#define CQ_OFF(qid)	(0x20000u * (qid) + 0x10000u)
#define LISTS		0x200000u
#define DATA		0x400000u
#define DATA2		0x800000u
#define NR_QUEUES	8u
#define ADMIN_ENTRIES	64u

struct queue {
	unsigned int qid;
	uint32_t entries;
	uint32_t tail;
	uint32_t head;
	uint32_t phase;
	size_t sq, cq;			/* offsets in the memory */
};

struct host {
	pid_t pid;
	char dir[PATH_MAX];
	char path[PATH_MAX + 16];
	char line[256];			/* what the program said */
	struct vd_client *client;
	int memfd;
	uint8_t *mem;
	_Atomic uint32_t *db;		/* NULL: doorbells are messages */
	bool serves;			/* DMA by message, while it waits */
	struct queue q[NR_QUEUES];
	uint16_t cid;
};

struct answer {
	unsigned int status;		/* SCT and SC; ~0: none came */
	bool dnr;
	uint32_t result;
	uint16_t cid;
	uint16_t sqhd;
};

#define is_status(answer, want, ...) \
	is_hex((answer).status, want, __VA_ARGS__)

/* Make a file of len bytes at path, as mkstemp(3): false if it cannot be. */
static T_UNUSED bool
new_file(char *path, size_t len)
{
	int fd = mkstemp(path);

	if (fd == -1)
		return (false);
	must(ftruncate(fd, (off_t)len) == 0);
	close(fd);
	return (true);
}

/* --- the program ---------------------------------------------------------- */

#define MAX_ARGS	24

/* If not NULL, what the process does to itself before it is the program. */
static void (*nvme_child)(void);

/*
 * Start one of the programs in examples/ with args; its stdout can be read
 * from *out.
 */
static T_UNUSED pid_t
example_spawn(const char *name, const char *const *args, bool quiet, int *out)
{
	char self[PATH_MAX], prog[PATH_MAX + 32];
	const char *argv[MAX_ARGS + 2] = { name };
	unsigned int i;
	ssize_t n;
	int fds[2], null;
	pid_t pid;
	char *p;

	n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	must(n > 0);
	self[n] = '\0';
	must((p = strrchr(self, '/')) != NULL);
	*p = '\0';
	snprintf(prog, sizeof(prog), "%s/../examples/%s", self, name);
	if (access(prog, X_OK) == -1)
		bail("%s is not built", prog);
	for (i = 0; args[i] != NULL; i++) {
		must(i < MAX_ARGS);
		argv[i + 1] = args[i];
	}
	must(pipe2(fds, O_CLOEXEC) == 0);
	fflush(stdout);
	must((pid = fork()) != -1);
	if (pid == 0) {
		/* It does not outlive a test that was killed. */
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		if (quiet && (null = open("/dev/null", O_WRONLY)) != -1)
			dup2(null, STDERR_FILENO);
		if (nvme_child != NULL)
			nvme_child();
		execv(prog, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	close(fds[1]);
	*out = fds[0];
	return (pid);
}

static T_UNUSED pid_t
nvme_spawn(const char *const *args, bool quiet, int *out)
{
	return (example_spawn("nvme/nvme", args, quiet, out));
}

/* The exit status, or 256 + signal. */
static T_UNUSED int
nvme_wait(pid_t pid)
{
	int status;

	must(waitpid(pid, &status, 0) == pid);
	return (WIFEXITED(status) ? WEXITSTATUS(status) :
	    256 + WTERMSIG(status));
}

/* Run the program to an end that it comes to by itself. */
static T_UNUSED int
nvme_run(const char *const *args)
{
	char buf[512];
	int out;
	pid_t pid;

	pid = nvme_spawn(args, true, &out);
	while (read(out, buf, sizeof(buf)) > 0)
		continue;
	close(out);
	return (nvme_wait(pid));
}

/* Start it and wait until it says that it listens. */
static T_UNUSED void
host_start(struct host *h, const char *const *args)
{
	const char *argv[MAX_ARGS] = { "--socket", h->path };
	size_t len = 0;
	unsigned int i;
	ssize_t n;
	int out;

	memset(h, 0, sizeof(*h));
	h->memfd = -1;
	snprintf(h->dir, sizeof(h->dir), "/tmp/example-nvme.XXXXXX");
	must(mkdtemp(h->dir) != NULL);
	snprintf(h->path, sizeof(h->path), "%s/cntrl", h->dir);
	for (i = 0; args[i] != NULL; i++)
		argv[i + 2] = args[i];
	h->pid = nvme_spawn(argv, false, &out);
	while (len < sizeof(h->line) - 1 &&
	    (n = read(out, h->line + len, sizeof(h->line) - 1 - len)) > 0) {
		len += (size_t)n;
		if (h->line[len - 1] == '\n')
			break;
	}
	close(out);
	if (len == 0)
		bail("the program did not start");
	h->line[len - 1] = '\0';
}

/* Ask it to end; returns what nvme_wait() does. */
static T_UNUSED int
host_stop(struct host *h, int sig)
{
	int status;

	vd_client_destroy(h->client);
	h->client = NULL;
	kill(h->pid, sig);
	status = nvme_wait(h->pid);
	if (h->mem != NULL)
		munmap(h->mem, MEM_SIZE);
	if (h->db != NULL)
		munmap((void *)(uintptr_t)h->db, PAGE);
	if (h->memfd != -1)
		close(h->memfd);
	unlink(h->path);
	rmdir(h->dir);
	return (status);
}

/* --- registers ------------------------------------------------------------ */

static T_UNUSED uint32_t
reg_get(struct host *h, uint32_t off)
{
	uint32_t val = ~0u;

	must(vd_client_read(h->client, VD_REGION_BAR0, off, &val,
	    sizeof(val)) == 0);
	return (val);
}

static T_UNUSED void
reg_set(struct host *h, uint32_t off, uint32_t val)
{
	must(vd_client_write(h->client, VD_REGION_BAR0, off, &val,
	    sizeof(val)) == 0);
}

static T_UNUSED void
reg_set64(struct host *h, uint32_t off, uint64_t val)
{
	must(vd_client_write(h->client, VD_REGION_BAR0, off, &val,
	    sizeof(val)) == 0);
}

static T_UNUSED void
config_set(struct host *h, uint32_t off, uint16_t val)
{
	must(vd_client_write(h->client, VD_REGION_CONFIG, off, &val,
	    sizeof(val)) == 0);
}

static T_UNUSED uint32_t
config_get(struct host *h, uint32_t off, size_t len)
{
	uint32_t val = 0;

	must(vd_client_read(h->client, VD_REGION_CONFIG, off, &val, len) == 0);
	return (val);
}

/* Where a capability is in config space. */
static T_UNUSED uint32_t
find_cap(struct host *h, uint8_t id)
{
	uint32_t at = config_get(h, 0x34, 1);

	while (at != 0 && config_get(h, at, 1) != id)
		at = config_get(h, at + 1, 1);
	return (at);
}

/* Wait for bits of CSTS to have a value. */
static T_UNUSED bool
csts_wait(struct host *h, uint32_t mask, uint32_t want)
{
	int64_t end = t_now_ms() + 10000;

	while ((reg_get(h, NVME_REG_CSTS) & mask) != want) {
		if (t_now_ms() > end)
			return (false);
		usleep(500);
	}
	return (true);
}

/* --- connecting and enabling ---------------------------------------------- */

static T_UNUSED void
host_map(struct host *h)
{
	must(vd_client_dma_map(h->client, IOVA, MEM_SIZE,
	    VD_DMA_READABLE | VD_DMA_WRITABLE, h->memfd, 0) == 0);
}

/* Connect, give the device memory, and map the doorbells if they can be. */
static T_UNUSED void
host_connect(struct host *h)
{
	struct vd_client_region info;
	void *p;

	h->client = vd_client_connect(h->path);
	must(h->client != NULL);
	if (h->memfd == -1) {
		h->memfd = memfd_create("host", MFD_CLOEXEC);
		must(h->memfd != -1 &&
		    ftruncate(h->memfd, (off_t)MEM_SIZE) == 0);
		h->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE,
		    MAP_SHARED, h->memfd, 0);
		must(h->mem != MAP_FAILED);
	}
	host_map(h);
	must(vd_client_region_info(h->client, VD_REGION_BAR0, &info) == 0);
	if (h->db != NULL)
		munmap((void *)(uintptr_t)h->db, PAGE);
	h->db = NULL;
	if (info.fd != -1) {
		must(info.nr_areas == 1 && info.areas[0].offset == 0x1000 &&
		    info.areas[0].size == PAGE);
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		    info.fd, (off_t)(info.fd_off + 0x1000));
		must(p != MAP_FAILED);
		h->db = p;
		close(info.fd);
	}
	config_set(h, 4, 0x0406);	/* memory, bus master, no INTx */
}

/* Have the client gone, as if it had crashed. */
static T_UNUSED void
host_leave(struct host *h)
{
	vd_client_destroy(h->client);
	h->client = NULL;
}

static T_UNUSED void
queue_init(struct host *h, unsigned int qid, uint32_t entries)
{
	struct queue *q = &h->q[qid];

	must(qid < NR_QUEUES);
	*q = (struct queue){ .qid = qid, .entries = entries, .phase = 1,
	    .sq = SQ_OFF(qid), .cq = CQ_OFF(qid) };
	memset(h->mem + q->cq, 0, (size_t)entries << NVME_CQE_SHIFT);
}

/* Disable, set up the admin queues, enable; true when ready. */
static T_UNUSED bool
host_enable(struct host *h)
{
	reg_set(h, NVME_REG_CC, 0);
	if (!csts_wait(h, NVME_CSTS_RDY, 0))
		return (false);
	queue_init(h, 0, ADMIN_ENTRIES);
	reg_set(h, NVME_REG_AQA, (ADMIN_ENTRIES - 1) * 0x10001u);
	reg_set64(h, NVME_REG_ASQ, IOVA + SQ_OFF(0));
	reg_set64(h, NVME_REG_ACQ, IOVA + CQ_OFF(0));
	reg_set(h, NVME_REG_CC, 0x00460001);
	return (csts_wait(h, NVME_CSTS_RDY, NVME_CSTS_RDY));
}

/* --- commands ------------------------------------------------------------- */

static T_UNUSED void
ring_doorbell(struct host *h, unsigned int index, uint32_t val)
{
	if (h->db != NULL)
		atomic_store_explicit(&h->db[index], val,
		    memory_order_release);
	else
		reg_set(h, NVME_REG_DOORBELLS + 4 * index, val);
}

/* Put a command into the queue without ringing; returns its ID. */
static T_UNUSED uint16_t
queue_put(struct host *h, unsigned int qid, const struct nvme_cmd *cmd)
{
	struct queue *q = &h->q[qid];
	struct nvme_cmd c = *cmd;

	c.cid = h->cid++;
	memcpy(h->mem + q->sq + ((size_t)q->tail << NVME_SQE_SHIFT), &c,
	    sizeof(c));
	q->tail = (q->tail + 1) % q->entries;
	return (c.cid);
}

static T_UNUSED void
queue_ring(struct host *h, unsigned int qid)
{
	ring_doorbell(h, 2 * qid, h->q[qid].tail);
}

/* Take one completion, if one comes in ms; the head is not told. */
static T_UNUSED struct answer
queue_peek(struct host *h, unsigned int qid, int ms)
{
	struct queue *q = &h->q[qid];
	struct answer a = { .status = ~0u };
	struct nvme_cqe cqe;
	_Atomic uint32_t *last;
	int64_t end = 0;
	uint32_t word, spins = 0;

	last = (void *)(h->mem + q->cq +
	    ((size_t)q->head << NVME_CQE_SHIFT) + 12);
	for (;;) {
		word = atomic_load_explicit(last, memory_order_acquire);
		if ((word >> 16 & 1) == q->phase)
			break;
		if (++spins % 64 != 0)
			continue;
		if (h->serves && vd_client_run(h->client) == 1)
			continue;
		if (end == 0)
			end = t_now_ms() + ms;
		if (t_now_ms() > end)
			return (a);
		sched_yield();
	}
	memcpy(&cqe, h->mem + q->cq + ((size_t)q->head << NVME_CQE_SHIFT),
	    sizeof(cqe));
	if (++q->head == q->entries) {
		q->head = 0;
		q->phase ^= 1;
	}
	a.status = cqe.status >> 1 & 0x7ff;
	a.dnr = (cqe.status >> 1 & NVME_DNR) != 0;
	a.result = cqe.result;
	a.cid = cqe.cid;
	a.sqhd = cqe.sqhd;
	return (a);
}

static T_UNUSED struct answer
queue_take(struct host *h, unsigned int qid, int ms)
{
	struct answer a = queue_peek(h, qid, ms);

	if (a.status != ~0u)
		ring_doorbell(h, 2 * qid + 1, h->q[qid].head);
	return (a);
}

#define ANSWER_MS	10000

/* One command, and its completion. */
static T_UNUSED struct answer
command(struct host *h, unsigned int qid, struct nvme_cmd cmd)
{
	struct answer a;
	uint16_t cid;

	cid = queue_put(h, qid, &cmd);
	queue_ring(h, qid);
	a = queue_take(h, qid, ANSWER_MS);
	if (a.status != ~0u && a.cid != cid)
		diag("the completion is for command %u, not %u", a.cid, cid);
	return (a);
}

#define admin(h, ...)	command(h, 0, (struct nvme_cmd){ __VA_ARGS__ })
#define io(h, ...)	command(h, 1, (struct nvme_cmd){ __VA_ARGS__ })

static T_UNUSED struct answer
create_cq(struct host *h, unsigned int qid, uint32_t entries, uint32_t flags)
{
	if (qid < NR_QUEUES)
		queue_init(h, qid, entries);
	return (admin(h, .opcode = NVME_ADM_CREATE_CQ,
	    .prp1 = IOVA + CQ_OFF(qid % NR_QUEUES),
	    .cdw10 = (entries - 1) << 16 | qid, .cdw11 = flags));
}

static T_UNUSED struct answer
create_sq(struct host *h, unsigned int qid, uint32_t entries,
    unsigned int cqid)
{
	return (admin(h, .opcode = NVME_ADM_CREATE_SQ,
	    .prp1 = IOVA + SQ_OFF(qid % NR_QUEUES),
	    .cdw10 = (entries - 1) << 16 | qid, .cdw11 = cqid << 16 | 1));
}

/* An I/O pair without interrupts. */
static T_UNUSED bool
create_pair(struct host *h, unsigned int qid, uint32_t entries)
{
	return (create_cq(h, qid, entries, 1).status == NVME_OK &&
	    create_sq(h, qid, entries, qid).status == NVME_OK);
}

/* Everything until there is one I/O pair. */
static T_UNUSED void
host_ready(struct host *h)
{
	host_connect(h);
	must(host_enable(h));
	must(create_pair(h, 1, 256));
}

static T_UNUSED struct answer
identify(struct host *h, unsigned int cns, uint32_t nsid)
{
	memset(h->mem + DATA, 0xee, PAGE);
	return (admin(h, .opcode = NVME_ADM_IDENTIFY, .nsid = nsid,
	    .prp1 = IOVA + DATA, .cdw10 = cns));
}

/* Read, write or compare, with data that is contiguous and page aligned. */
static T_UNUSED struct answer
move(struct host *h, unsigned int opcode, uint32_t nsid, uint64_t slba,
    unsigned int nlb, size_t off, size_t len)
{
	struct nvme_cmd cmd = { .opcode = (uint8_t)opcode, .nsid = nsid,
	    .prp1 = IOVA + off, .cdw10 = (uint32_t)slba,
	    .cdw11 = (uint32_t)(slba >> 32), .cdw12 = nlb - 1 };
	uint64_t *list = (void *)(h->mem + LISTS);
	size_t i, pages = (len + PAGE - 1) / PAGE;

	if (pages == 2) {
		cmd.prp2 = IOVA + off + PAGE;
	} else if (pages > 2) {
		for (i = 1; i < pages && i <= 512; i++)
			list[i - 1] = IOVA + off + i * PAGE;
		cmd.prp2 = IOVA + LISTS;
	}
	return (command(h, 1, cmd));
}

static T_UNUSED void
fill_random(uint8_t *p, size_t len, uint64_t *seed)
{
	uint64_t x;

	for (; len >= sizeof(x); len -= sizeof(x), p += sizeof(x)) {
		x = t_random(seed);
		memcpy(p, &x, sizeof(x));
	}
	memset(p, 0x5a, len);
}

#endif
