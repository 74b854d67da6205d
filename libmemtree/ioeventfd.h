/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_IOEVENTFD_H
#define LIBMEMTREE_IOEVENTFD_H

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_region;

/*
 * Signal an eventfd instead of calling the device: a write of exactly size
 * bytes (0: of any size) at exactly off, and if match of exactly data, adds 1
 * to the eventfd's counter and is done.  What is compared is the value that
 * the device's write callback would get, of an access that the device accepts,
 * before impl splits it.  If several match, all are signalled; a counter that
 * is full stays full, and no access waits for one.
 *
 * A write that reaches the device in a buffer (write_buf, submit_buf) signals
 * nothing.  A longer write that is cut in steps signals for a step that
 * matches.  A guard of the device is asked first, and its lock held meanwhile
 * (see mt_region_set_guard()).
 *
 * Both are part of a transaction, like any change of the tree.  An eventfd
 * exists where its region is seen and all its size bytes (of size 0: the
 * first) are in one section.
 *
 * Units:   off is bytes from the start of r, which may end before it; size is
 *          0, 1, 2, 4 or 8; data is in host order and ignored unless match.
 * Owns:    the caller keeps fd: the library has a copy of it from the add on,
 *          until no view has it any more.  The del is told the same fd by its
 *          number, which need not be open any more.
 * Context: as mt_region_add().
 * Returns: 0, or -1 with errno set and nothing changed.
 * Errors:  EINVAL (another size, data that does not fit it, match without a
 *          size, past 2^64, a region without a write callback, an fd that is
 *          not an eventfd or can block: without EFD_NONBLOCK), EEXIST (there
 *          is one with this off, size, match and data), ENOENT (there is none
 *          with all these), ENOMEM, EAGAIN (see mt_topology_commit()), EDEADLK
 *          (from a listener), and those of fcntl(2) with F_DUPFD.
 * Since:   0.1
 */
int	mt_region_add_eventfd(struct mt_region *r, mt_addr off,
	    unsigned int size, bool match, uint64_t data, int fd);
int	mt_region_del_eventfd(struct mt_region *r, mt_addr off,
	    unsigned int size, bool match, uint64_t data, int fd);

#ifdef __cplusplus
}
#endif

#endif
