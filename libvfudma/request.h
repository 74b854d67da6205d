/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_REQUEST_H
#define LIBVFUDMA_REQUEST_H

#include <sys/types.h>

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vd_server;

/* A command of the client that the device answers later. */
struct vd_request;

/*
 * Take the command that is being served, so that it gets no reply until
 * vd_request_finish(): in a callback of a BAR's region, for a REGION_READ or
 * REGION_WRITE of the client, or in the reset callback for VD_RESET_DEVICE.
 * What the callbacks of that access still do and answer is not looked at.
 * Later commands are served meanwhile.
 *
 * Owns:    the caller, until vd_request_finish(), also if the client goes, or
 *          the server.
 * Context: the thread that runs the server, inside such a callback.
 * Returns: the request, or NULL with errno set; then the command is answered
 *          as ever.
 * Errors:  EINVAL (not in such a callback: another access, a
 *          REGION_WRITE_MULTI, config space), EBUSY (taken already), ENOBUFS
 *          (256 are not finished, or their answers and this one may be more
 *          than max_queued bytes), ENOMEM.
 * Since:   0.1
 */
struct vd_request *vd_server_take(struct vd_server *s);

/* What was taken. */
struct vd_request_info {
	bool reset;		/* DEVICE_RESET; the rest is 0 */
	bool is_write;
	unsigned int region;	/* number of the BAR, or of the ROM */
	uint64_t off;		/* in it */
	size_t len;		/* all of the access: maybe of many callbacks */
};

void	vd_request_info(const struct vd_request *r,
	    struct vd_request_info *info);

/*
 * Answer a request: with err, a positive errno, or with success if that is 0.
 * A read is answered with data, which is all of its bytes.  If the client that
 * sent it is gone, or the server, nothing is sent.
 *
 * Owns:    r is gone; data stays the caller's.
 * Context: any thread, callbacks included; does not block.
 * Returns: 0, or -1 with errno set and r still there.
 * Errors:  EINVAL (err is no errno, or len is not that of a read, or not 0
 *          for anything else).
 * Since:   0.1
 */
int	vd_request_finish(struct vd_request *r, int err, const void *data,
	    size_t len);

#ifdef __cplusplus
}
#endif

#endif
