/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Signal eventfds that belong to a peer, without ever waiting.
 *
 * A write(2) to an eventfd waits while its counter is full.  Whether it may is
 * said by O_NONBLOCK, which the peer can take back at any time, and a poll(2)
 * before the write tells of the past.  The kernel itself never waits: when an
 * asynchronous read has ended it adds 1 to the eventfd that the request names,
 * and a full counter stays full.  So that is how we signal: a read of nothing,
 * from a file of ours, is over when io_submit(2) returns.  It costs some 0.4
 * us more than poll(2) and write(2) together.
 *
 * Where there is no such thing (it can be configured or filtered away, or
 * fs.aio-max-nr is used up) we poll and write; then a peer that hits the
 * moment in between makes us wait until it reads.
 */

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/aio_abi.h>

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

#include "internal.h"

/* Requests that have ended are collected so many at a time. */
#define BATCH	32

void
vd__notifier_open(struct vd__notifier *n)
{
	aio_context_t ctx = 0;

	if (n->fd != -1)
		return;
	n->fd = memfd_create("vfudma-notifier", MFD_CLOEXEC);
	if (n->fd == -1)
		return;
	if (syscall(SYS_io_setup, 2 * BATCH, &ctx) == -1) {
		vd__close(n->fd);
		n->fd = -1;
		return;
	}
	n->ctx = ctx;
	n->ended = 0;
}

void
vd__notifier_close(struct vd__notifier *n)
{
	if (n->fd == -1)
		return;
	syscall(SYS_io_destroy, (aio_context_t)n->ctx);
	vd__close(n->fd);
	n->fd = -1;
}

/* Make room for requests: forget those that have ended. */
static void
collect(struct vd__notifier *n)
{
	struct io_event events[BATCH];
	long got;

	got = syscall(SYS_io_getevents, (aio_context_t)n->ctx, 0L,
	    (long)BATCH, events, NULL);
	n->ended -= got > 0 && got < n->ended ? (unsigned int)got : n->ended;
}

static bool
submit(struct vd__notifier *n, int fd)
{
	struct iocb cb = {
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)n->fd,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd,
	};
	struct iocb *list = &cb;

	if (syscall(SYS_io_submit, (aio_context_t)n->ctx, 1L, &list) != 1)
		return (false);
	if (++n->ended >= BATCH)
		collect(n);
	return (true);
}

void
vd__notify(struct vd__notifier *n, int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };
	const uint64_t one = 1;

	if (n->fd != -1 && submit(n, fd))
		return;
	/* One that is full is readable as it is: nothing is lost. */
	if (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0)
		return;
	/* Whatever it says, there is nobody to tell. */
	if (write(fd, &one, sizeof(one)) == -1)
		return;
}
