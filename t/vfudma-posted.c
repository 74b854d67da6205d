/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server that does not read, and meanwhile has the client write to the
 * server's own registers by DMA: the thread that waits for room to post a
 * write serves that, and posts another one inside of it.  And one that has not
 * got to what was posted when the client wants to map its memory.
 */

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define SIZE		0x10000u	/* of the BAR */
#define WRITES		256u
#define LEN		4096u
#define OWN		0x40u		/* register that is written by DMA */
#define MEMORY		0x100000u	/* of the client's */

static unsigned int nr_writes, nr_own, nr_answers, nr_other;

static void
answer(int fd, const struct v_reply *r, const void *payload, size_t len)
{
	must(v_send_fds(fd, r->hdr.id, r->hdr.cmd, VD_TYPE_REPLY, payload, len,
	    NULL, 0));
}

static void
take(int fd, struct v_reply *r)
{
	struct vd_region_info ask, info = { .argsz = sizeof(info),
	    .flags = VD_REGION_READABLE | VD_REGION_WRITABLE };
	const struct vd_device_info device = { .argsz = sizeof(device),
	    .flags = VD_DEVICE_PCI, .num_regions = VD_NUM_REGIONS,
	    .num_irqs = VD_NUM_IRQS };
	struct vd_region_access a;

	switch (r->hdr.cmd) {
	case VD_CMD_DEVICE_GET_INFO:
		answer(fd, r, &device, sizeof(device));
		break;
	case VD_CMD_DEVICE_GET_REGION_INFO:
		memcpy(&ask, r->data, sizeof(ask));
		info.index = ask.index;
		info.size = ask.index == 0 ? SIZE : 0;
		answer(fd, r, &info, sizeof(info));
		break;
	case VD_CMD_REGION_WRITE:
		memcpy(&a, r->data, sizeof(a));
		nr_writes += a.count == LEN;
		nr_own += a.count == 4 && a.offset == OWN;
		break;
	case VD_CMD_DMA_WRITE:
		nr_answers += (r->hdr.flags & VD_ERROR) == 0;
		break;
	default:
		nr_other++;
	}
}

/* v_recv() for who has time. */
static bool
next(int fd, struct v_reply *r)
{
	return (v_readable(fd, 5000) && v_recv(fd, r));
}

static void *
server(void *arg)
{
	static const char version[] = "\0\0\1\0{\"capabilities\":{}}";
	static struct v_reply r;
	static const struct {
		struct vd_dma_access a;
		uint32_t val;
	} __attribute__((packed)) dma = { { OWN, 4 }, 77 };
	int fd = *(int *)arg;

	must(next(fd, &r));
	answer(fd, &r, version, sizeof(version));
	do {
		must(next(fd, &r));
		take(fd, &r);
	} while (r.hdr.cmd != VD_CMD_REGION_WRITE);
	/* The client writes until nothing more fits. */
	usleep(200000);
	must(v_send(fd, 1, VD_CMD_DMA_WRITE, &dma, sizeof(dma)));
	usleep(200000);
	while (nr_writes < WRITES || nr_own == 0 || nr_answers == 0) {
		if (!next(fd, &r))
			break;
		take(fd, &r);
	}
	close(fd);
	return (NULL);
}

static void
test_full(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", SIZE), *bar;
	struct mt_space *sp = t_space(root);
	const struct vd_client_options o = { .no_twin = true, .dma = sp };
	static const uint8_t data[LEN] = { 1 };
	unsigned int bad = 0, i;
	struct vd_client *c;
	pthread_t th;
	int sv[2];

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(pthread_create(&th, NULL, server, &sv[0]) == 0);
	must((c = vd_client_attach_with(sv[1], &o)) != NULL);
	bar = vd_client_region_create(c, t, 0, "bar", VD_CLIENT_POST);
	must(bar != NULL && mt_region_add(root, bar, 0, 0) == 0);
	alarm(30);
	for (i = 0; i < WRITES; i++)
		bad += mt_space_write(sp, 0x1000, data, LEN,
		    MT_ATTRS_NONE) != MT_OK;
	is_int(bad, 0, "posted writes go on");
	must(pthread_join(th, NULL) == 0);
	is_int(nr_writes, WRITES, "and all arrive");
	is_int(nr_own, 1, "so does what was posted to serve the server");
	is_int(nr_answers, 1, "which is answered");
	is_int(nr_other, 0, "and nothing else is sent");
	must(mt_region_del(bar) == 0);
	mt_region_put(bar);
	vd_client_destroy(c);
	t_end_space(t, sp, root);
}

/* --- what is posted comes before what is mapped --------------------------- */

static struct mt_space *space;
static sem_t posted, created;
static bool written;			/* atomic */

/* The server's way to have the client post a write. */
static enum mt_result
posts(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)val, (void)attrs;
	must(mt_space_store_le32(space, OWN, 1) == MT_OK);
	must(sem_post(&posted) == 0);
	return (MT_OK);
}

/* Give a region that can be mapped, but not before a write was posted. */
static void
give_memory(int fd, const struct v_reply *r)
{
	const struct vd_region_info info = { sizeof(info),
	    VD_REGION_READABLE | VD_REGION_WRITABLE | VD_REGION_MAPPABLE, 1,
	    0, SIZE, 0 };
	const struct {
		struct vd_dma_access a;
		uint32_t val;
	} __attribute__((packed)) dma = { { MEMORY, 4 }, 1 };
	int memfd = v_memfd(SIZE);
	struct timespec until;

	must(v_send(fd, 1, VD_CMD_DMA_WRITE, &dma, sizeof(dma)));
	must(sem_wait(&posted) == 0);
	must(v_send_fds(fd, r->hdr.id, r->hdr.cmd, VD_TYPE_REPLY, &info,
	    sizeof(info), &memfd, 1));
	close(memfd);
	/* A client that does not wait for us is done by then. */
	must(clock_gettime(CLOCK_REALTIME, &until) == 0);
	until.tv_sec++;
	(void)sem_timedwait(&created, &until);
}

static void *
slow_server(void *arg)
{
	static const char version[] = "\0\0\1\0{\"capabilities\":{}}";
	static struct v_reply r;
	int fd = *(int *)arg;

	must(next(fd, &r));
	answer(fd, &r, version, sizeof(version));
	while (next(fd, &r)) {
		if (r.hdr.cmd == VD_CMD_DEVICE_GET_REGION_INFO &&
		    r.data[8] == 1)
			give_memory(fd, &r);
		else
			take(fd, &r);
		__atomic_store_n(&written, nr_own > 0, __ATOMIC_SEQ_CST);
	}
	close(fd);
	return (NULL);
}

static void
test_before_mapping(void)
{
	static const struct mt_io_ops ops = { .write = posts };
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", T_ALL), *bar, *io,
	    *memory;
	const struct vd_client_options o = { .no_twin = true,
	    .dma = space = t_space(root) };
	struct vd_client *c;
	pthread_t th;
	int sv[2];

	nr_own = 0;
	must(sem_init(&posted, 0, 0) == 0 && sem_init(&created, 0, 0) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(pthread_create(&th, NULL, slow_server, &sv[0]) == 0);
	must((c = vd_client_attach_with(sv[1], &o)) != NULL);
	must((io = mt_region_create_io(t, "io", MT_SIZE(LEN), &ops, NULL)) !=
	    NULL);
	t_add(root, MEMORY, 0, io);
	bar = vd_client_region_create(c, t, 0, "bar", VD_CLIENT_POST);
	must(bar != NULL && mt_region_add(root, bar, 0, 0) == 0);
	memory = vd_client_region_create(c, t, 1, "memory", 0);
	ok(memory != NULL, "a region of memory is created");
	ok(__atomic_load_n(&written, __ATOMIC_SEQ_CST),
	    "when what was posted before has arrived");
	must(sem_post(&created) == 0);
	must(mt_region_add(root, memory, 2 * MEMORY, 0) == 0);
	is_str(t_space_text(space), "0-ffff bar+0, 100000-100fff io+0, "
	    "200000-20ffff memory, mapped+0", "and it is mapped");
	vd_client_destroy(c);
	must(pthread_join(th, NULL) == 0);
	must(mt_region_del(bar) == 0 && mt_region_del(memory) == 0);
	mt_region_put(bar);
	mt_region_put(memory);
	t_end_space(t, space, root);
}

int
main(void)
{
	test_full();
	test_before_mapping();
	return (done());
}
