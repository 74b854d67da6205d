/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Many devices in one process, run by one thread, whose clients all come at
 * once and stay busy: each is answered well within the time that clients
 * allow, also beside some that only take up time.
 */

#include <sys/epoll.h>

#include <pthread.h>

#include "t/vfu.h"

#define DEVICES		24u
#define BAD		3u	/* of them have bad clients */
#define ROUNDS		200u
#define MOST_MS		1000	/* less than any client waits */

static struct v_dev devs[DEVICES];
static char dir[] = "/tmp/vfudma-many.XXXXXX";
static _Atomic(bool) stop;
static pthread_barrier_t gate;

static void
path_of(unsigned int i, char path[64])
{
	snprintf(path, 64, "%s/%u", dir, i);
}

/* Run who has something to do, each in turn. */
static void *
runner(void *arg)
{
	struct epoll_event ev[DEVICES];
	int ep = epoll_create1(EPOLL_CLOEXEC), i, n;

	(void)arg;
	must(ep != -1);
	for (i = 0; i < (int)DEVICES; i++) {
		ev[0] = (struct epoll_event){ .events = EPOLLIN,
		    .data.u32 = (uint32_t)i };
		must(epoll_ctl(ep, EPOLL_CTL_ADD, vd_server_fd(devs[i].s),
		    &ev[0]) == 0);
	}
	while (!stop) {
		n = epoll_wait(ep, ev, DEVICES, 10);
		for (i = 0; i < n; i++)
			must(vd_server_run_all(devs[ev[i].data.u32].s) != -1);
	}
	close(ep);
	return (NULL);
}

struct client {
	pthread_t thread;
	unsigned int number;
	unsigned int failed;
	int64_t longest;		/* ms of a call */
};

#define timed(k, call)							\
	do {								\
		int64_t begun = t_now_ms();				\
									\
		if ((call) == -1) {					\
			(k)->failed++;					\
			diag("%u: %s: %s", (k)->number, #call,		\
			    strerror(errno));				\
		}							\
		if (t_now_ms() - begun > (k)->longest)			\
			(k)->longest = t_now_ms() - begun;		\
	} while (0)

static void *
client(void *arg)
{
	int event = t_eventfd(), mem;
	struct client *k = arg;
	struct vd_device_info info;
	struct vd_client *c;
	int64_t start;
	uint32_t val;
	uint16_t cmd = 6;
	unsigned int i;
	char path[64];

	path_of(k->number, path);
	mem = v_memfd(0x10000);
	pthread_barrier_wait(&gate);
	start = t_now_ms();
	if ((c = vd_client_connect(path)) == NULL) {
		diag("%u: %s", k->number, strerror(errno));
		k->failed++;
		close(mem);
		close(event);
		return (NULL);
	}
	k->longest = t_now_ms() - start;
	timed(k, vd_client_device_info(c, &info));
	timed(k, vd_client_write(c, VD_REGION_CONFIG, 4, &cmd, 2));
	timed(k, vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 1, &event));
	for (i = 0; i < ROUNDS; i++) {
		val = i;
		timed(k, vd_client_dma_map(c, 0, 0x10000, 3, mem, 0));
		timed(k, vd_client_post(c, 0, 0x10, &val, sizeof(val)));
		timed(k, vd_client_read(c, 0, 0x40, &val, sizeof(val)));
		timed(k, vd_client_dma_unmap(c, 0, 0x10000));
		if (val != 0x44332211)
			k->failed++;
		if (i % 50 == 0)
			timed(k, vd_client_reset(c));
	}
	vd_client_destroy(c);
	close(mem);
	close(event);
	return (NULL);
}

/* Asks and does not read; sends half of something; posts without end. */
static void *
nuisance(void *arg)
{
	const struct vd_region_access read = { 0, VD_REGION_CONFIG, 4096 };
	const struct { struct vd_region_access a; uint32_t v; } post =
	    { { 0x40, 0, 4 }, 1 };
	const struct vd_version version = { 0, 1 };
	struct client *k = arg;
	uint8_t buf[64];
	size_t len;
	int fd;
	char path[64];

	path_of(k->number, path);
	pthread_barrier_wait(&gate);
	must((fd = v_connect(path)) != -1);
	must(v_send(fd, 0, VD_CMD_VERSION, &version, sizeof(version)));
	if (k->number == 0) {
		len = v_build(buf, 0, VD_CMD_REGION_READ, 0, &read, 16);
		while (!stop && send(fd, buf, len, MSG_DONTWAIT |
		    MSG_NOSIGNAL) == (ssize_t)len)
			continue;
	} else if (k->number == 1) {
		must(v_send_raw(fd, &read, 9, NULL, 0));
	} else {
		len = v_build(buf, 0, VD_CMD_REGION_WRITE, VD_NO_REPLY, &post,
		    20);
		while (!stop)
			if (send(fd, buf, len, MSG_DONTWAIT |
			    MSG_NOSIGNAL) == -1)
				v_readable(vd_server_fd(devs[2].s), 1);
	}
	while (!stop)
		usleep(10000);
	close(fd);
	return (NULL);
}

int
main(void)
{
	static struct client clients[DEVICES];
	unsigned int before, i, failed = 0;
	int64_t longest = 0;
	char path[64];
	pthread_t th;

	before = t_count_fds();
	must(mkdtemp(dir) != NULL);
	for (i = 0; i < DEVICES; i++) {
		v_dev_create(&devs[i]);
		path_of(i, path);
		must(vd_server_listen(devs[i].s, path) == 0);
	}
	must(pthread_barrier_init(&gate, NULL, DEVICES) == 0);
	must(pthread_create(&th, NULL, runner, NULL) == 0);
	for (i = 0; i < DEVICES; i++) {
		clients[i].number = i;
		must(pthread_create(&clients[i].thread, NULL, i < BAD ?
		    nuisance : client, &clients[i]) == 0);
	}
	for (i = BAD; i < DEVICES; i++) {
		must(pthread_join(clients[i].thread, NULL) == 0);
		failed += clients[i].failed;
		if (clients[i].longest > longest)
			longest = clients[i].longest;
	}
	stop = true;
	for (i = 0; i < BAD; i++)
		must(pthread_join(clients[i].thread, NULL) == 0);
	must(pthread_join(th, NULL) == 0);
	is_int(failed, 0, "%u clients that come at once are served",
	    DEVICES - BAD);
	ok(longest < MOST_MS || T_TSAN, "each call within %d ms",
	    (int)longest);
	for (i = 0, failed = 0; i < DEVICES; i++) {
		v_serve(devs[i].s, 0);
		failed += devs[i].connects != 1 || devs[i].disconnects != 1;
	}
	is_int(failed, 0, "and leave");
	for (i = 0; i < DEVICES; i++)
		failed += v_dev_free(&devs[i]) == -1;
	is_int(failed, 0, "everything has been given back");
	pthread_barrier_destroy(&gate);
	must(rmdir(dir) == 0);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
