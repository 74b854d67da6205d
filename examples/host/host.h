/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef HOST_H
#define HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libmemtree/memtree.h>
#include <libvfudma/vfudma.h>

#include "examples/nvme/spec.h"

#define HOST_PAGE	4096u
#define HOST_SEGMENT	((size_t)2 << 20)	/* of memory, mapped at once */
#define BAR0_BASE	0xc0000000u	/* on the bus */
#define PCI_VENDOR	0x00	/* and device, in config space */
#define MAX_QUEUES	64u
#define MAX_VECTORS	(MAX_QUEUES + 1)

/* The memory that the controller may use; places in it are offsets. */
struct mem {
	struct mt_region *ram;
	struct vd_client_dma *dma;	/* gives it to the controller */
	uint8_t *base;
	size_t len;
	size_t used;
};

/* What one command in flight uses. */
struct slot {
	size_t data;
	size_t list;
	uint64_t off;			/* bytes from the namespace's start */
	size_t len;
	bool busy;
};

struct queue {
	unsigned int id;
	unsigned int entries;
	unsigned int tail;		/* of the submission queue */
	unsigned int head;		/* of the completion queue */
	unsigned int rung;		/* tail that the controller knows */
	uint16_t phase;
	size_t sq, cq;
	struct slot *slots;		/* entries - 1 of them */
	uint16_t *idle;			/* a stack of their numbers */
	unsigned int nr_idle;
};

struct namespace {
	uint32_t id;
	uint64_t blocks;
	unsigned int shift;		/* of the block size */
};

enum doorbells { DB_AUTO, DB_MAP, DB_MESSAGE };

struct options {
	const char *socket;
	uint64_t size;			/* 0: not given */
	uint64_t block;
	uint64_t seed;
	unsigned int queues;
	unsigned int depth;
	enum doorbells doorbells;
	bool no_irq;
	bool no_twin;
	bool private;			/* memory without a file */
};

struct host {
	struct vd_client *client;
	struct options opt;
	struct vd_client_limits limits;
	struct mem mem;

	/* A bus with the controller's BAR0, and the memory. */
	struct mt_topology *topology;
	struct mt_region *root;
	struct mt_space *bus;
	struct mt_region *bar;

	uint64_t cap;
	bool mapped;			/* doorbells are; else by message */
	unsigned int stride;		/* of doorbells, in bytes */

	struct queue admin;
	struct queue *queues;
	unsigned int nr_queues;
	size_t block;			/* bytes in one command */
	size_t scratch;			/* a page for admin commands */
	uint8_t *expect;		/* one block */

	uint8_t msix;			/* capability offset, 0: none */
	int *irq_fds;
	unsigned int nr_vectors;	/* 0: completions are polled for */

	struct namespace *ns;
	unsigned int nr_ns;
};

/* How long nothing has come from the controller. */
struct host_idle {
	double since;
	double checked;
	unsigned int spins;
};

/*
 * All of these end the program with a message if they fail: there is nobody
 * who could go on.
 */

/* --- mem.c: memory that the controller may use ---------------------------- */

void	mem_create(struct host *h, size_t len);
void	mem_destroy(struct host *h);
/* Answer what the controller asks of private memory. */
void	mem_serve(struct host *h);
size_t	mem_alloc(struct mem *m, size_t len, bool contiguous);
void	*mem_ptr(struct host *h, size_t off);
uint64_t mem_iova(const struct mem *m, size_t at);

/* --- bus.c: the bus, registers, config space, doorbells, interrupts -------- */

void	bus_create(struct host *h);
void	bus_destroy(struct host *h);
void	pci_open(struct host *h);
uint64_t reg_read(struct host *h, unsigned int reg, size_t size);
void	reg_write(struct host *h, unsigned int reg, uint64_t val, size_t size);
uint32_t cfg_read(struct host *h, unsigned int off, size_t size);
void	doorbells_open(struct host *h, unsigned int queues);
void	doorbell_ring(struct host *h, unsigned int which, uint32_t val);
void	msix_open(struct host *h);
void	msix_close(struct host *h);

/* --- queue.c: commands and completions ------------------------------------ */

double	now(void);
void	host_wait(struct host *h, struct host_idle *idle);
void	queue_init(struct host *h, struct queue *q, unsigned int id,
	    unsigned int entries);
void	queue_put(struct host *h, struct queue *q, const struct nvme_cmd *e);
void	queue_ring(struct host *h, struct queue *q);
bool	queue_take(struct host *h, struct queue *q, struct nvme_cqe *out);
void	check_status(const char *what, uint16_t status);
/* Run one admin command; returns dword 0 of its completion. */
uint32_t admin_run(struct host *h, struct nvme_cmd *e, const char *what);
/* A page of data, lent until the next call. */
const void *identify(struct host *h, unsigned int cns, uint32_t nsid,
	    const char *what);
void	queues_negotiate(struct host *h);
void	queues_create(struct host *h);
void	queues_delete(struct host *h);

/* --- ctrl.c: the controller ----------------------------------------------- */

void	ctrl_enable(struct host *h);
void	ctrl_shutdown(struct host *h);
void	find_namespaces(struct host *h);
/* A size in a few characters, such as 128 MiB. */
const char *human(uint64_t bytes, char buf[static 8]);

/* --- test.c: write, read, compare ----------------------------------------- */

/* True if every byte came back. */
bool	test_namespace(struct host *h, const struct namespace *ns);

#endif
