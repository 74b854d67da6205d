/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_MEMTREE_H
#define LIBMEMTREE_MEMTREE_H

#define MT_VERSION_MAJOR	0
#define MT_VERSION_MINOR	1
#define MT_VERSION_PATCH	0

#include <libmemtree/types.h>
#include <libmemtree/topology.h>
#include <libmemtree/region.h>
#include <libmemtree/view.h>
#include <libmemtree/space.h>
#include <libmemtree/dma.h>
#include <libmemtree/sg.h>
#include <libmemtree/cache.h>
#include <libmemtree/defer.h>
#include <libmemtree/listener.h>
#include <libmemtree/dirty.h>
#include <libmemtree/ioeventfd.h>
#include <libmemtree/coalesce.h>
#include <libmemtree/iommu.h>
#include <libmemtree/dump.h>
#include <libmemtree/guard.h>

#endif
