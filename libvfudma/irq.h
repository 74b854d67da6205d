/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBVFUDMA_IRQ_H
#define LIBVFUDMA_IRQ_H

#include <libmemtree/types.h>
#include <libvfudma/proto.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vd_server;

/*
 * How the guest wants to be interrupted now: VD_IRQ_MSIX or VD_IRQ_MSI if it
 * enabled that in config space, else VD_IRQ_INTX.
 *
 * Context: any thread; takes a leaf lock of the server's interrupts.
 * Since:   0.1
 */
enum vd_irq vd_irq_mode(struct vd_server *s);

/*
 * Signal one interrupt: an MSI-X or MSI vector, ERR or REQ (vector 0).  A
 * masked MSI-X or MSI vector becomes pending, and is signalled when the guest
 * unmasks it.  An entry of the MSI-X table masks its vector only once it has
 * been written since the reset: clients like QEMU keep the table to themselves,
 * and connect the vectors that are unmasked.  A vector that the guest has not
 * enabled, or that the client has not connected to an eventfd, is dropped, as
 * on a real bus.
 *
 * Context: any thread; never blocks.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (no such vector, or index is VD_IRQ_INTX).
 * Since:   0.1
 */
int	vd_irq_trigger(struct vd_server *s, enum vd_irq index,
	    unsigned int vector);

/*
 * Set the level of the INTx pin.  The client's eventfd is signalled when it
 * rises, and again after the client has unmasked it if it is still high; not
 * while the guest has set interrupt disable in its command register, or has
 * enabled MSI or MSI-X.
 *
 * Context: any thread; never blocks.
 * Returns: 0, or -1 with errno set.
 * Errors:  EINVAL (the device has no pin).
 * Since:   0.1
 */
int	vd_irq_set_intx(struct vd_server *s, bool high);

#ifdef __cplusplus
}
#endif

#endif
