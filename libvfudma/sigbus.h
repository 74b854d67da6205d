/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_SIGBUS_H
#define LIBVFUDMA_SIGBUS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Survive clients that make a file shorter after they have shared it: an
 * access to what is gone raises SIGBUS, which ends a program that does not
 * handle it.  This installs a handler for the whole process, once.  It puts
 * zeroes where the client's memory was, so that the access ends, and has the
 * next vd_server_run() drop that client.  What is no fault in a client's
 * memory goes to the handler that was there before, or does what SIGBUS does
 * by default.
 *
 * Memory that clients shared before the call is not protected, nor are threads
 * that block SIGBUS.
 *
 * Context: any thread, before the first client is served and after the
 *          program has installed a handler of its own.
 * Returns: 0, or -1 with errno set.  The second call has no effect.
 * Errors:  those of sigaction(2).
 * Since:   0.1
 */
int	vd_sigbus_protect(void);

#ifdef __cplusplus
}
#endif

#endif
