/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_VFUDMA_H
#define LIBVFUDMA_VFUDMA_H

#include <libmemtree/memtree.h>
#include <libvfudma/proto.h>
#include <libvfudma/request.h>
#include <libvfudma/server.h>
#include <libvfudma/pci.h>
#include <libvfudma/irq.h>
#include <libvfudma/mappings.h>
#include <libvfudma/sigbus.h>
#include <libvfudma/client.h>
#include <libvfudma/client-tree.h>

#endif
