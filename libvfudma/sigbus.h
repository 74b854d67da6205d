/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_SIGBUS_H
#define LIBVFUDMA_SIGBUS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Survive peers that make a file shorter after they have shared it: an
 * access to what is gone raises SIGBUS, which ends a program that does not
 * handle it.  This installs a handler for the whole process, once.  It puts
 * zeroes where the peer's memory was, so that the access ends.  If that was a
 * client's, the next vd_server_run() drops it; if a server's, its connection is
 * shut down, and the client has lost it as if it had hung up.  What is no fault
 * in a peer's memory goes to the handler that was there before, or does what
 * SIGBUS does by default.
 *
 * Memory that peers shared before the call is not protected, nor are threads
 * that block SIGBUS.
 *
 * Context: any thread, before the first client is served or the first server
 *          connected to, and after the program has installed a handler of its
 *          own.
 * Returns: 0, or -1 with errno set.  The second call has no effect.
 * Errors:  those of sigaction(2).
 * Since:   0.1
 */
int	vd_sigbus_protect(void);

#ifdef __cplusplus
}
#endif

#endif
