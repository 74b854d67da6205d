/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * fdatasync(2) may take seconds, and a client that waits for the answer to a
 * message gives up after five; so it has a thread of its own.
 */

#include <sys/eventfd.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "nvme.h"

/*
 * [I] set before the thread starts, then immutable   [l] lock
 */
struct nvme_sync {
	pthread_t thread;		/* [I] */
	int event;			/* [I] told when something is done */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	uint64_t todo;			/* [l] a bit per namespace */
	uint64_t done;			/* [l] */
	int fds[NVME_MAX_NS];		/* [l] */
	int errors[NVME_MAX_NS];	/* [l] of those that are done */
	bool quit;			/* [l] */
};

_Static_assert(NVME_MAX_NS <= 64, "a bit per namespace");

static void *
run(void *arg)
{
	struct nvme_sync *y = arg;
	unsigned int i;
	int error, fd;

	pthread_mutex_lock(&y->lock);
	while (!y->quit) {
		if (y->todo == 0) {
			pthread_cond_wait(&y->wake, &y->lock);
			continue;
		}
		i = (unsigned int)__builtin_ctzll(y->todo);
		y->todo &= ~(UINT64_C(1) << i);
		fd = y->fds[i];
		pthread_mutex_unlock(&y->lock);
		error = fdatasync(fd) == 0 ? 0 : errno;
		pthread_mutex_lock(&y->lock);
		y->errors[i] = error;
		y->done |= UINT64_C(1) << i;
		eventfd_write(y->event, 1);
	}
	pthread_mutex_unlock(&y->lock);
	return (NULL);
}

struct nvme_sync *
nvme_sync_create(void)
{
	struct nvme_sync *y;
	sigset_t all, old;
	int error;

	if ((y = calloc(1, sizeof(*y))) == NULL)
		return (NULL);
	if ((y->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) == -1) {
		free(y);
		return (NULL);
	}
	pthread_mutex_init(&y->lock, NULL);
	pthread_cond_init(&y->wake, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(&y->thread, NULL, run, y);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error != 0) {
		close(y->event);
		free(y);
		errno = error;
		return (NULL);
	}
	return (y);
}

void
nvme_sync_stop(struct nvme_sync *y)
{
	if (y->quit)		/* nobody but us sets it */
		return;
	pthread_mutex_lock(&y->lock);
	y->quit = true;
	pthread_cond_signal(&y->wake);
	pthread_mutex_unlock(&y->lock);
	pthread_join(y->thread, NULL);
}

void
nvme_sync_destroy(struct nvme_sync *y)
{
	if (y == NULL)
		return;
	nvme_sync_stop(y);
	pthread_cond_destroy(&y->wake);
	pthread_mutex_destroy(&y->lock);
	close(y->event);
	free(y);
}

int
nvme_sync_fd(const struct nvme_sync *y)
{
	return (y->event);
}

void
nvme_sync_start(struct nvme_sync *y, unsigned int i, int fd)
{
	pthread_mutex_lock(&y->lock);
	y->todo |= UINT64_C(1) << i;
	y->fds[i] = fd;
	pthread_cond_signal(&y->wake);
	pthread_mutex_unlock(&y->lock);
}

void
nvme_sync_reap(struct nvme_ctrl *c)
{
	struct nvme_sync *y = c->sync;
	int errors[NVME_MAX_NS];
	eventfd_t n;
	uint64_t done;
	unsigned int i;

	eventfd_read(y->event, &n);
	pthread_mutex_lock(&y->lock);
	done = y->done;
	y->done = 0;
	for (i = 0; i < c->nns; i++)
		errors[i] = y->errors[i];
	pthread_mutex_unlock(&y->lock);
	for (i = 0; i < c->nns; i++)
		if ((done & UINT64_C(1) << i) != 0)
			nvme_flush_done(c, c->ns[i], errors[i]);
}
