/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_MAPPINGS_H
#define LIBVFUDMA_MAPPINGS_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Set how many mappings of peers' files the process has at most: one for each
 * DMA_MAP with a descriptor of any client, and one for each area that a client
 * maps of a device.  0 means the default, three quarters of what the system
 * lets a process have (vm.max_map_count), of which the rest is left for the
 * program, as nothing works without any: neither malloc() nor new threads.
 *
 * Beyond it a DMA_MAP is answered with ENOSPC, and areas of a device are
 * reached by message.  What is mapped already stays.
 *
 * Context: any thread; for the whole process.
 * Since:   0.1
 */
void	vd_mappings_set_max(unsigned int max);

#ifdef __cplusplus
}
#endif

#endif
