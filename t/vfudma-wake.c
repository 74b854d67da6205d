/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Threads that leave something for the one that runs the server: it hears of
 * it, however close together they are, and of nothing else.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define THREADS	3
#define ROUNDS	20u
#define WAKES	200000u

static struct v_dev dev;
static _Atomic(unsigned int) busy;

static void *
waker(void *arg)
{
	unsigned int i;

	(void)arg;
	for (i = 0; i < WAKES; i++)
		vd__server_wake(dev.s);
	busy--;
	return (NULL);
}

int
main(void)
{
	unsigned int deaf = 0, restless = 0, i, j;
	pthread_t th[THREADS];
	int fd;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	for (i = 0; i < ROUNDS; i++) {
		busy = THREADS;
		for (j = 0; j < THREADS; j++)
			must(pthread_create(&th[j], NULL, waker, NULL) == 0);
		while (busy > 0)
			if (v_readable(vd_server_fd(dev.s), 1))
				must(vd_server_run(dev.s) != -1);
		for (j = 0; j < THREADS; j++)
			must(pthread_join(th[j], NULL) == 0);
		v_serve(dev.s, 0);
		restless += v_readable(vd_server_fd(dev.s), 0);
		vd__server_wake(dev.s);
		deaf += !v_readable(vd_server_fd(dev.s), 0);
		v_serve(dev.s, 0);
	}
	is_int(deaf, 0, "a server hears of what comes after a crowd");
	is_int(restless, 0, "and of nothing when nothing comes");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
	return (done());
}
