/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * nvme-host: a small NVMe driver in user space, on libvfudma's client.  It
 * brings up the controller behind a vfio-user socket, fills its namespaces
 * with a pattern through several queues, reads everything back and compares
 * every byte.
 *
 * What the namespaces held is lost.
 */

#include <err.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>

#include "host.h"

#define BLOCK_MAX	((size_t)1 << 20)

static void
show_queues(struct host *h)
{
	char size[8];

	printf("queues      %u pair%s, %u deep, %s a command\n",
	    h->nr_queues, h->nr_queues == 1 ? "" : "s",
	    h->queues[0].entries - 1, human(h->block, size));
	printf("memory      %s\n", h->opt.private ? "private, by message" :
	    "shared");
	printf("doorbells   %s\n", h->mapped ? "mapped" :
	    "by message");
	if (h->nr_vectors > 0)
		printf("interrupts  MSI-X, %u vector%s\n", h->nr_vectors,
		    h->nr_vectors == 1 ? "" : "s");
	else
		printf("interrupts  none, completions are polled for\n");
}

static void __attribute__((noreturn))
usage(void)
{
	fprintf(stderr,
	    "usage: nvme-host --socket PATH [--size BYTES] [--queues N]\n"
	    "           [--depth N] [--block BYTES] [--seed N]\n"
	    "           [--doorbells map|message] [--no-irq]\n"
	    "           [--memory shared|private] [--no-twin]\n"
	    "Overwrites the first --size bytes (64M) of every namespace with\n"
	    "a pattern and reads them back.  BYTES may end in K, M or G.\n");
	exit(2);
}

static uint64_t
parse_size(const char *s, const char *what, uint64_t least, uint64_t most)
{
	uint64_t n;

	if (expand_number(s, &n) == -1 || n < least || n > most)
		errx(2, "--%s: %s is not a size from %ju to %ju", what, s,
		    (uintmax_t)least, (uintmax_t)most);
	return (n);
}

static unsigned int
parse_count(const char *s, const char *what, unsigned int most)
{
	const char *why;
	long long n = strtonum(s, 1, most, &why);

	if (why != NULL)
		errx(2, "--%s: %s is %s; 1 to %u are possible", what, s, why,
		    most);
	return ((unsigned int)n);
}

static void
parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "block", required_argument, NULL, 'b' },
		{ "depth", required_argument, NULL, 'd' },
		{ "doorbells", required_argument, NULL, 'D' },
		{ "help", no_argument, NULL, 'h' },
		{ "memory", required_argument, NULL, 'm' },
		{ "no-irq", no_argument, NULL, 'n' },
		{ "no-twin", no_argument, NULL, 't' },
		{ "queues", required_argument, NULL, 'q' },
		{ "seed", required_argument, NULL, 'S' },
		{ "size", required_argument, NULL, 's' },
		{ "socket", required_argument, NULL, 'p' },
		{ NULL, 0, NULL, 0 },
	};
	int ch;

	*o = (struct options){ .queues = 4, .depth = 32, .block = 128 << 10,
	    .seed = 1 };
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (ch == 'b')
			o->block = parse_size(optarg, "block", HOST_PAGE,
			    BLOCK_MAX) / HOST_PAGE * HOST_PAGE;
		else if (ch == 'd')
			o->depth = parse_count(optarg, "depth", 1023);
		else if (ch == 'D' && strcmp(optarg, "map") == 0)
			o->doorbells = DB_MAP;
		else if (ch == 'D' && strcmp(optarg, "message") == 0)
			o->doorbells = DB_MESSAGE;
		else if (ch == 'm' && strcmp(optarg, "private") == 0)
			o->private = true;
		else if (ch == 'm' && strcmp(optarg, "shared") == 0)
			o->private = false;
		else if (ch == 'n')
			o->no_irq = true;
		else if (ch == 't')
			o->no_twin = true;
		else if (ch == 'q')
			o->queues = parse_count(optarg, "queues", MAX_QUEUES);
		else if (ch == 'S')
			o->seed = strtoull(optarg, NULL, 0);
		else if (ch == 's')
			o->size = parse_size(optarg, "size", 512, INT64_MAX);
		else if (ch == 'p')
			o->socket = optarg;
		else
			usage();
	}
	if (optind != argc || o->socket == NULL)
		usage();
}

int
main(int argc, char **argv)
{
	struct vd_client_options how = { 0 };
	struct host h = { 0 };
	size_t per_queue;
	bool good = true;

	parse_options(argc, argv, &h.opt);
	setvbuf(stdout, NULL, _IOLBF, 0);
	how.no_twin = h.opt.no_twin;
	h.client = vd_client_connect_with(h.opt.socket, &how);
	if (h.client == NULL)
		err(1, "%s", h.opt.socket);
	vd_client_limits(h.client, &h.limits);
	bus_create(&h);

	pci_open(&h);
	/* Both queues, each possibly moved to the next segment; buffers. */
	per_queue = (h.opt.depth + 1) * 2 * (sizeof(struct nvme_cmd) +
	    sizeof(struct nvme_cqe)) + 2 * HOST_PAGE +
	    h.opt.depth * ((size_t)h.opt.block + 3 * HOST_PAGE);
	mem_create(&h, 2 * HOST_SEGMENT + h.opt.queues * per_queue);
	ctrl_enable(&h);
	find_namespaces(&h);
	queues_negotiate(&h);
	msix_open(&h);
	queues_create(&h);
	show_queues(&h);

	for (unsigned int i = 0; i < h.nr_ns; i++)
		good &= test_namespace(&h, &h.ns[i]);

	queues_delete(&h);
	ctrl_shutdown(&h);
	msix_close(&h);
	mem_destroy(&h);
	free(h.ns);
	vd_client_destroy(h.client);
	bus_destroy(&h);
	if (fflush(stdout) == EOF)
		err(1, "standard output");
	return (good ? 0 : 1);
}
