/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What a small message costs when all is warm: no allocation, and one receive
 * and one send at each end.  Calls are counted by threads.
 */

#include <sys/syscall.h>

#include <pthread.h>

#include "t/vfu.h"

#define ROUNDS	200u

static __thread unsigned int allocs, sends, recvs;

#if !T_ASAN && !T_TSAN

void	*__libc_malloc(size_t size);
void	*__libc_calloc(size_t n, size_t size);
void	*__libc_realloc(void *p, size_t size);

void *
malloc(size_t size)
{
	allocs++;
	return (__libc_malloc(size));
}

void *
calloc(size_t n, size_t size)
{
	allocs++;
	return (__libc_calloc(n, size));
}

void *
realloc(void *p, size_t size)
{
	allocs++;
	return (__libc_realloc(p, size));
}

ssize_t
sendmsg(int fd, const struct msghdr *msg, int flags)
{
	sends++;
	return (syscall(SYS_sendmsg, fd, msg, flags));
}

ssize_t
send(int fd, const void *buf, size_t len, int flags)
{
	sends++;
	return (syscall(SYS_sendto, fd, buf, len, flags, NULL, 0));
}

ssize_t
recvmsg(int fd, struct msghdr *msg, int flags)
{
	recvs++;
	return (syscall(SYS_recvmsg, fd, msg, flags));
}

#endif

static struct v_dev dev;
static _Atomic(bool) stop, all;
static unsigned int served_allocs, served_sends, served_recvs;

/* One command a run, as a program with other things to do has it, or all. */
static void *
server(void *arg)
{
	unsigned int a = 0, s = 0, r = 0;

	(void)arg;
	while (!stop) {
		if (!v_readable(vd_server_fd(dev.s), 5))
			continue;
		if (dev.val == 0xc0) {		/* the client is warm */
			dev.val = 0;
			a = allocs;
			s = sends;
			r = recvs;
		} else if (dev.val == 0xc1) {
			dev.val = 0;
			served_allocs = allocs - a;
			served_sends = sends - s;
			served_recvs = recvs - r;
		}
		if ((all ? vd_server_run_all(dev.s) :
		    vd_server_run(dev.s)) == -1)
			break;
	}
	return (NULL);
}

enum { READ, WRITE, POST };

static int
one(struct vd_client *c, int what)
{
	uint32_t val = 1;

	if (what == READ)
		return (vd_client_read(c, 0, 0x40, &val, sizeof(val)));
	if (what == WRITE)
		return (vd_client_write(c, 0, 0x40, &val, sizeof(val)));
	return (vd_client_post(c, 0, 0x40, &val, sizeof(val)));
}

/* Have the server note its counts: before a round, or after it. */
static void
mark(struct vd_client *c, uint32_t val)
{
	must(vd_client_write(c, 0, 0x10, &val, sizeof(val)) == 0);
}

static void
count(struct vd_client *c, int what, const char *name)
{
	unsigned int i, a, s, r, bad = 0, replies = what == POST ? 0 : ROUNDS;

	for (i = 0; i < 10; i++)
		bad += one(c, what) == -1;
	mark(c, 0xc0);
	a = allocs;
	s = sends;
	r = recvs;
	for (i = 0; i < ROUNDS; i++)
		bad += one(c, what) == -1;
	a = allocs - a;
	s = sends - s;
	r = recvs - r;
	mark(c, 0xc1);
	/* By its answer the server has seen the mark; it acts on it next. */
	mark(c, 0);
	is_int(bad, 0, "%s works", name);
	is_int(a + served_allocs, 0, "%s allocates nothing", name);
	is_int(s, ROUNDS, "%s is one send of the client's", name);
	is_int(r, replies, "and one receive, if it is answered");
	/* The answer to one of the marks is among them. */
	is_int(served_sends, replies + 1, "one send of the server's");
	ok(served_recvs <= ROUNDS + 1, "and one receive: %u for %u",
	    served_recvs, ROUNDS + 1);
}

/* --- the other way: the device reads and writes the client's memory ------ */

static _Atomic(bool) device_done;
static unsigned int device_bad, device_allocs, device_sends, device_recvs;

static void *
device(void *arg)
{
	struct mt_space *sp = vd_server_dma(dev.s);
	unsigned int a = 0, s = 0, r = 0;
	uint32_t i, val;

	(void)arg;
	for (i = 0; i < ROUNDS + 10; i++) {
		if (i == 10) {
			a = allocs;
			s = sends;
			r = recvs;
		}
		device_bad += mt_space_write(sp, 0x40, &i, 4,
		    MT_ATTRS_NONE) != MT_OK;
		val = UINT32_MAX;
		device_bad += mt_space_read(sp, 0x40, &val, 4,
		    MT_ATTRS_NONE) != MT_OK || val != i;
	}
	device_allocs = allocs - a;
	device_sends = sends - s;
	device_recvs = recvs - r;
	device_done = true;
	return (NULL);
}

static void
count_dma(struct vd_client *c, const char *name)
{
	int fds[VD_CLIENT_FDS], n = vd_client_fds(c, fds);
	struct pollfd pfd[VD_CLIENT_FDS];
	unsigned int a = 0, s = 0, r = 0, served = 0, i;
	pthread_t th;
	uint16_t cmd = 6;

	must(vd_client_write(c, VD_REGION_CONFIG, 4, &cmd, 2) == 0);
	must(vd_client_dma_map(c, 0, 0x1000, 3, -1, 0) == 0);
	for (i = 0; i < (unsigned int)n; i++)
		pfd[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
	device_done = false;
	device_bad = 0;
	must(pthread_create(&th, NULL, device, NULL) == 0);
	while (!device_done) {
		if (poll(pfd, (nfds_t)n, 5) <= 0)
			continue;
		if (served == 20) {
			a = allocs;
			s = sends;
			r = recvs;
		}
		must(vd_client_run(c) == 1);
		served++;
	}
	must(pthread_join(th, NULL) == 0);
	is_int(device_bad, 0, "4 bytes of DMA%s work", name);
	is_int(served, 2 * (ROUNDS + 10), "each by a message");
	is_int(device_allocs, 0, "which allocates nothing");
	is_int(device_sends, 2 * ROUNDS, "and is one send of the device's");
	/* The thread that runs the server may be faster to receive it. */
	ok(device_recvs <= 2 * ROUNDS, "and at most one receive: %u for %u",
	    device_recvs, 2 * ROUNDS);
	is_int(allocs - a, 0, "nor does the client allocate");
	is_int(sends - s, 2 * ROUNDS, "which sends once");
	ok(recvs - r <= 2 * ROUNDS, "and receives once: %u for %u", recvs - r,
	    2 * ROUNDS);
	must(vd_client_dma_unmap(c, 0, 0x1000) == 0);
}

static void
run(bool no_twin, const char *name, struct mt_space *sp)
{
	const struct vd_client_options o = { .no_twin = no_twin, .dma = sp };
	struct vd_client *c;
	pthread_t th;
	int sv[2];

	v_dev_create(&dev);
	stop = false;
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	must(pthread_create(&th, NULL, server, NULL) == 0);
	must((c = vd_client_attach_with(sv[0], &o)) != NULL);
	count(c, READ, "a read");
	count(c, WRITE, "a write");
	count(c, POST, "a posted write");
	all = true;
	count(c, READ, "a read of who runs all");
	count(c, WRITE, "a write of who does");
	all = false;
	count_dma(c, name);
	vd_client_destroy(c);
	stop = true;
	must(pthread_join(th, NULL) == 0);
	v_dev_destroy(&dev);
}

int
main(void)
{
	struct mt_topology *t;
	struct mt_region *memory;
	struct mt_space *sp;

	if (T_ASAN || T_TSAN)
		skip_all("a sanitizer has an allocator of its own");
	t = t_topology();
	memory = t_ram(t, "memory", 0x1000);
	sp = t_space(memory);
	run(true, ", by the one socket,", sp);
	run(false, ", by a twin socket,", sp);
	t_end_space(t, sp, memory);
	return (done());
}
