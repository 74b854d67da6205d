/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Memory that is gone when the kernel is to send it, or to receive into it: the
 * access fails, or gets zeroes where vd_sigbus_protect() has them, and nobody
 * else does.  So a device moves bytes between what one client shares and what
 * another one has it reach by message, and the first makes its file shorter.
 */

#include <sched.h>
#include <stdatomic.h>

#include "t/script.h"

#define IOVA		0x10000
#define LEN		((size_t)256 << 10)
#define THERE		((size_t)64 << 10)	/* of LEN, what is left */

/* --- a client that answers DMA commands ------------------------------------ */

struct peer {
	struct v_dev dev;
	struct mt_space *sp;
	int fd;
	pthread_t thread;
	uint8_t last[LEN];		/* of the last write */
	_Atomic(unsigned int) writes;	/* that are there to be looked at */
	_Atomic(bool) sound;		/* all that came made sense */
};

static bool
put_reply(struct peer *p, const struct vd_hdr *cmd,
    const struct vd_dma_access *a, const void *data, size_t len)
{
	struct vd_hdr hdr = { cmd->id, cmd->cmd,
	    (uint32_t)(sizeof(hdr) + sizeof(*a) + len), VD_TYPE_REPLY, 0 };

	return (v_send_raw(p->fd, &hdr, sizeof(hdr), NULL, 0) &&
	    v_send_raw(p->fd, a, sizeof(*a), NULL, 0) &&
	    (len == 0 || v_send_raw(p->fd, data, len, NULL, 0)));
}

/* Until what comes is no such command, or the end. */
static void *
answer_dma(void *arg)
{
	struct peer *p = arg;
	static uint8_t data[LEN];
	struct vd_dma_access a;
	struct vd_hdr hdr;
	bool is_write;

	memset(data, 0x5a, sizeof(data));
	while (v_get(p->fd, &hdr, sizeof(hdr))) {
		is_write = hdr.cmd == VD_CMD_DMA_WRITE;
		if ((!is_write && hdr.cmd != VD_CMD_DMA_READ) ||
		    !v_get(p->fd, &a, sizeof(a)) || a.count > LEN ||
		    hdr.size != sizeof(hdr) + sizeof(a) +
		    (is_write ? a.count : 0)) {
			atomic_store(&p->sound, false);
			break;
		}
		if (is_write && !v_get(p->fd, p->last, a.count))
			break;
		atomic_fetch_add(&p->writes, is_write);
		if (!put_reply(p, &hdr, &a, data, is_write ? 0 : a.count))
			break;
	}
	return (NULL);
}

/* Let the device be a bus master, and give it memory, shared unless mem -1. */
static void
give(struct v_dev *d, int fd, int mem)
{
	const struct vd_dma_map m = { 32, 3, 0, IOVA, LEN };
	const struct vd_region_access a = { 4, VD_REGION_CONFIG, 2 };
	struct v_reply reply;
	uint8_t req[18];

	memcpy(req, &a, 16);
	memcpy(req + 16, "\x06\x00", 2);
	must(v_call(d->s, fd, VD_CMD_REGION_WRITE, req, 18, &reply) &&
	    v_errno(&reply) == 0);
	must(v_call_fds(d->s, fd, VD_CMD_DMA_MAP, &m, sizeof(m), &mem,
	    mem == -1 ? 0 : 1, &reply) && v_errno(&reply) == 0);
}

static void
peer_start(struct peer *p, bool force_queue)
{
	const struct vd_server_limits limits = { .force_queue = force_queue };

	v_dev_create(&p->dev);
	must(vd_server_set_limits(p->dev.s, &limits) == 0);
	p->sp = vd_server_dma(p->dev.s);
	p->fd = v_attach(p->dev.s);
	give(&p->dev, p->fd, -1);
	atomic_store(&p->sound, true);
	must(pthread_create(&p->thread, NULL, answer_dma, p) == 0);
}

static void
peer_end(struct peer *p)
{
	shutdown(p->fd, SHUT_RDWR);
	pthread_join(p->thread, NULL);
	close(p->fd);
	v_serve(p->dev.s, 0);
	v_dev_destroy(&p->dev);
}

static enum mt_result
peer_write(struct peer *p, const void *buf)
{
	enum mt_result res;

	res = mt_space_write(p->sp, IOVA, buf, LEN, MT_ATTRS_NONE);
	/* What it answered has been seen to by then. */
	(void)atomic_load(&p->writes);
	return (res);
}

/* The connection is there, and each side is where the other one is. */
#define is_well(p, name)	ok(well(p), "%s: the peer is well", name)

static bool
well(struct peer *p)
{
	static uint8_t buf[LEN];
	bool good;

	memset(buf, 0x3c, sizeof(buf));
	good = peer_write(p, buf) == MT_OK &&
	    memcmp(p->last, buf, sizeof(buf)) == 0;
	good = good && mt_space_read(p->sp, IOVA, buf, LEN, MT_ATTRS_NONE) ==
	    MT_OK && buf[0] == 0x5a && buf[LEN - 1] == 0x5a;
	v_serve(p->dev.s, 0);
	return (good && atomic_load(&p->sound) &&
	    vd_server_connected(p->dev.s));
}

static bool
all_are(const uint8_t *p, size_t len, uint8_t val)
{
	size_t i;

	for (i = 0; i < len && p[i] == val; i++)
		continue;
	return (i == len);
}

/* --- without protection ---------------------------------------------------- */

/* LEN bytes of a file that has only so many, each of them val. */
static uint8_t *
short_memory(size_t there, uint8_t val)
{
	int fd = v_memfd(LEN);
	uint8_t *p = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
	    0);

	must(p != MAP_FAILED);
	memset(p, val, there);
	must(ftruncate(fd, (off_t)there) == 0);
	close(fd);
	return (p);
}

static void
on_done(void *arg, enum mt_result res)
{
	*(enum mt_result *)arg = res;
}

static void
test_unprotected(bool force_queue)
{
	const char *name = force_queue ? "queued" : "sent at once";
	uint8_t *gone = short_memory(0, 0), *part = short_memory(THERE, 7);
	static struct peer p;
	struct mt_access x;
	enum mt_result res = MT_OK;

	peer_start(&p, force_queue);
	is_well(&p, name);
	ok(peer_write(&p, gone) != MT_OK, "%s: a write of none fails", name);
	is_well(&p, name);
	memset(p.last, 1, LEN);
	ok(peer_write(&p, part) != MT_OK, "%s: a write of a part fails", name);
	ok(all_are(p.last, THERE, 7) && all_are(p.last + THERE, LEN - THERE, 0),
	    "%s: the peer gets that, and zeroes", name);
	is_well(&p, name);
	if (mt_access_submit(p.sp, &x, IOVA, gone, LEN, true, MT_ATTRS_NONE,
	    on_done, &res) == 0)
		while (res == MT_OK)
			v_serve(p.dev.s, 1);
	ok(res != MT_OK, "%s: so does one that is submitted", name);
	is_well(&p, name);
	peer_end(&p);
	munmap(gone, LEN);
	munmap(part, LEN);
}

/* --- a client -------------------------------------------------------------- */

static _Atomic(bool) zeroes;	/* LEN of them were written last */

static void
serve_writes(struct script *s)
{
	while (get(s)) {
		if (s->hdr.cmd == VD_CMD_REGION_WRITE)
			atomic_store(&zeroes, s->hdr.size == 32 + LEN &&
			    all_are(s->in + 16, LEN, 0));
		if (!answer_well(s))
			break;
	}
}

static void
test_client(bool force_queue)
{
	const struct vd_client_options o = { .force_queue = force_queue };
	const char *name = force_queue ? "queued" : "sent at once";
	uint8_t *gone = short_memory(0, 0), *part = short_memory(THERE, 7);
	struct script *s = script_new(serve_writes, NULL);
	static uint8_t good[LEN];
	struct vd_client *c;

	memset(good, 0, LEN);
	must((c = v_by_hand(&s->thread, &s->fd, script_thread, s, &o)) !=
	    NULL);
	fails(vd_client_write(c, 0, 0, gone, LEN), EFAULT,
	    "%s: a client's write of what is gone", name);
	fails(vd_client_write(c, 0, 0, part, LEN), EFAULT,
	    "%s: of which there is a part", name);
	if (!force_queue)
		fails(vd_client_post(c, 0, 0, gone, LEN), EFAULT,
		    "%s: a post", name);
	works(vd_client_write(c, 0, 0, good, LEN), "%s: then one that is there",
	    name);
	ok(atomic_load(&zeroes), "%s: has come whole", name);
	fails(vd_client_read(c, 0, 0, part, LEN), EFAULT,
	    "%s: a read to what is gone", name);
	works(vd_client_read(c, 0, 0, good, LEN), "%s: and to what is there",
	    name);
	ok(good[5] == 5 && good[LEN - 1] == 0xff, "%s: has come whole", name);
	ok(script_stop(s, c), "%s: no descriptor is left", name);
	munmap(gone, LEN);
	munmap(part, LEN);
}

/* --- what a client answers ------------------------------------------------- */

static _Atomic(bool) stop, over;

static void *
run_server(void *arg)
{
	struct v_dev *d = arg;

	while (!atomic_load(&stop))
		v_serve(d->s, 10);
	return (NULL);
}

struct reader {
	struct mt_space *sp;
	mt_addr addr;
	uint8_t buf[LEN];
	enum mt_result res;
};

static void *
read_once(void *arg)
{
	struct reader *r = arg;

	r->res = mt_space_read(r->sp, r->addr, r->buf, LEN, MT_ATTRS_NONE);
	atomic_store(&over, true);
	return (NULL);
}

/* What the device gets of the client's memory at addr. */
static enum mt_result
device_reads(struct vd_client *c, struct reader *r, mt_addr addr)
{
	pthread_t thread;

	r->addr = addr;
	atomic_store(&over, false);
	must(pthread_create(&thread, NULL, read_once, r) == 0);
	while (!atomic_load(&over))
		if (vd_client_run(c) == 0)
			sched_yield();
	pthread_join(thread, NULL);
	return (r->res);
}

/* The client's own memory, which it answers with, may be a peer's, too. */
static void
test_answer(void)
{
	uint8_t *gone = short_memory(0, 0), *there = short_memory(LEN, 7);
	struct mt_backing a = { .kind = MT_BACKING_PTR, .ptr = gone },
	    b = { .kind = MT_BACKING_PTR, .ptr = there };
	static const uint16_t master = 6;
	struct mt_region *root, *ram[2];
	struct mt_topology *t;
	static struct reader r;
	struct mt_space *sp;
	struct vd_client *c;
	struct v_dev d;
	pthread_t server;
	int sv[2];

	v_dev_create(&d);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(d.s, sv[1]) == 0);
	atomic_store(&stop, false);
	must(pthread_create(&server, NULL, run_server, &d) == 0);
	must((c = vd_client_attach(sv[0])) != NULL);
	must((t = mt_topology_create()) != NULL);
	root = mt_region_create_container(t, "root", MT_LAST_MAX);
	ram[0] = mt_region_create_ram(t, "gone", LEN - 1, &a);
	ram[1] = mt_region_create_ram(t, "there", LEN - 1, &b);
	must(root != NULL && ram[0] != NULL && ram[1] != NULL);
	must(mt_region_add(root, ram[0], IOVA, 0) == 0 &&
	    mt_region_add(root, ram[1], IOVA + LEN, 0) == 0);
	must((sp = mt_space_create(root, "memory")) != NULL);
	vd_client_set_dma(c, sp);
	must(vd_client_dma_map(c, IOVA, 2 * LEN, VD_DMA_READABLE, -1, 0) == 0);
	must(vd_client_write(c, VD_REGION_CONFIG, 4, &master, 2) == 0);

	r.sp = vd_server_dma(d.s);
	ok(device_reads(c, &r, IOVA) != MT_OK,
	    "a client that cannot read its memory says so");
	is_int(device_reads(c, &r, IOVA + LEN), MT_OK,
	    "and goes on with what is there");
	ok(all_are(r.buf, LEN, 7), "which comes as it is");

	vd_client_destroy(c);
	mt_space_destroy(sp);
	for (int i = 0; i < 2; i++)
		must(mt_region_del(ram[i]) == 0);
	for (int i = 0; i < 2; i++)
		mt_region_put(ram[i]);
	mt_region_put(root);
	must(mt_topology_destroy(t) == 0);
	atomic_store(&stop, true);
	pthread_join(server, NULL);
	v_serve(d.s, 0);
	v_dev_destroy(&d);
	munmap(gone, LEN);
	munmap(there, LEN);
}

/* --- with it --------------------------------------------------------------- */

struct owner {
	struct v_dev dev;
	struct mt_mapping map;
	int fd, mem;
};

static void
owner_start(struct owner *a)
{
	v_dev_create(&a->dev);
	a->fd = v_attach(a->dev.s);
	a->mem = v_memfd(LEN);
	give(&a->dev, a->fd, a->mem);
	must(mt_dma_map(vd_server_dma(a->dev.s), IOVA, LEN,
	    MT_DMA_READ | MT_DMA_WRITE, MT_ATTRS_NONE, &a->map) == 0);
	must(a->map.len == LEN && !a->map.bounced);
	memset(a->map.ptr, 7, LEN);
	must(ftruncate(a->mem, THERE) == 0);
}

/* Ends with the loss of its client, or not if it was found out before. */
static void
owner_end(struct owner *a, const char *name)
{
	fails(vd_server_run(a->dev.s), EFAULT,
	    "%s: who made the file shorter is found out", name);
	mt_dma_unmap(&a->map, 0);
	close(a->fd);
	close(a->mem);
	v_dev_destroy(&a->dev);
}

static void
test_protected(bool force_queue)
{
	const char *name = force_queue ? "protected, queued" :
	    "protected, sent at once";
	static struct peer b;
	struct owner a;

	peer_start(&b, force_queue);
	owner_start(&a);
	is_int(peer_write(&b, a.map.ptr), MT_OK, "%s: a write is done", name);
	/* What went out before may be the client's. */
	ok(all_are(b.last + THERE, LEN - THERE, 0),
	    "%s: with zeroes for what is gone", name);
	is_well(&b, name);
	owner_end(&a, name);
	owner_start(&a);
	is_int(mt_space_read(b.sp, IOVA, a.map.ptr, LEN, MT_ATTRS_NONE),
	    MT_OK, "%s: a read is done", name);
	ok(all_are((uint8_t *)a.map.ptr + THERE, LEN - THERE, 0x5a),
	    "%s: to what has taken its place", name);
	is_well(&b, name);
	owner_end(&a, name);
	peer_end(&b);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_unprotected(false);
	test_unprotected(true);
	test_client(false);
	test_client(true);
	test_answer();
	must(vd_sigbus_protect() == 0);
	test_protected(false);
	test_protected(true);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
