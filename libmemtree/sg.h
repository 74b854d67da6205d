/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_SG_H
#define LIBMEMTREE_SG_H

#include <sys/uio.h>

#include <libmemtree/dma.h>
#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory lent by mt_dma_map_sg(); lives in the caller's memory, not copied. */
struct mt_sg {
	size_t len;			/* bytes lent, in all */
	size_t niov;			/* elements of iov that are filled in */
	int error;			/* 0: all; else why it stopped */
	size_t range;			/* where: in ranges[range], */
	mt_addr off;			/*   so many bytes from its first */
	enum mt_result result;		/* as of all mappings, failed too */
	/* private */
	uintptr_t magic;
	struct mt_mapping *maps;
};

/*
 * Lend host memory for a device to use at all of ranges, in their order, as
 * an iovec.  Each piece is lent as mt_dma_map() does; pieces that continue
 * each other in host memory are one.  It stops where a map fails, or when n
 * pieces are full, and lends what it has until then: sg->error tells why, one
 * of the errors below, or ENOSPC if n was too small.
 *
 * Units:   n is elements of both iov and maps.  dir is MT_DMA_* bits.
 * Owns:    sg and maps pin all of it until mt_dma_unmap_sg(), and must stay
 *          where they are until then; ranges and iov need not.
 * Context: as mt_dma_map(); allocates bounce buffers, and nothing else.
 * Returns: 0 if at least one byte is lent, or -1 with errno set.
 * Errors:  those of mt_dma_map() for the first range; EINVAL also for no
 *          ranges, a range whose first is above its last, or n 0.
 * Since:   0.1
 */
int	mt_dma_map_sg(struct mt_space *sp, const struct mt_range *ranges,
	    size_t nranges, unsigned int dir, struct mt_attrs attrs,
	    struct iovec *iov, struct mt_mapping *maps, size_t n,
	    struct mt_sg *sg);

/*
 * Give all of it back.  used is how many bytes from the start the device has
 * written.  sg->result then tells what the write-backs met.
 *
 * Units:   used is bytes, at most sg->len; ignored without MT_DMA_WRITE.
 * Context: as mt_dma_unmap().
 * Returns: 0, or -1 with errno set.
 * Errors:  EIO (a write-back failed; all is given back all the same), EINVAL
 *          (sg is not live, or is a copy), ERANGE (used is more than sg->len;
 *          still lent).
 * Since:   0.1
 */
int	mt_dma_unmap_sg(struct mt_sg *sg, size_t used);

#ifdef __cplusplus
}
#endif

#endif
