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
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>

#include "host.h"

#define BLOCK_MAX	((size_t)1 << 20)
#define DEPTH		32u
#define DEPTH_MAX	1023u
#define QUEUES		4u
#define SEED		1u
#define ST_USAGE	2	/* exit status for bad options */

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

static void
usage(FILE *fp)
{
	fputs("usage: nvme-host --socket PATH [--size BYTES] [--queues N]\n"
	    "           [--depth N] [--block BYTES] [--seed N]\n"
	    "           [--doorbells map|message] [--no-irq]\n"
	    "           [--memory shared|private] [--no-twin]\n", fp);
}

static void __attribute__((noreturn))
help(void)
{
	usage(stdout);
	printf("\nDrive the NVMe controller on a vfio-user socket: overwrite "
	    "the start of every\nnamespace with a pattern, read it back and "
	    "compare every byte.\n"
	    "\n"
	    "  --socket PATH      where the controller listens\n"
	    "  --size BYTES       of each namespace (64M)\n"
	    "  --queues N         I/O queue pairs, 1 to %u (%u)\n"
	    "  --depth N          commands in flight in each, 1 to %u (%u)\n"
	    "  --block BYTES      in one command, 4K to 1M (128K)\n"
	    "  --seed N           of the pattern (%u)\n"
	    "  --doorbells map    write them to shared memory, or fail\n"
	    "  --doorbells message\n"
	    "                     send every write of them; by default they "
	    "are mapped\n"
	    "                     if the controller shares them\n"
	    "  --no-irq           poll for completions\n"
	    "  --memory shared    let the controller map the buffers "
	    "(default)\n"
	    "  --memory private   have it ask for their contents by message\n"
	    "  --no-twin          let it ask by the socket of our commands, "
	    "not by one of\n"
	    "                     its own\n"
	    "  --help             print this\n"
	    "\n"
	    "BYTES may end in K, M or G.\n"
	    "\n"
	    "Exit status: 0; 1 if something fails or a byte differs, 2 for "
	    "bad options.\n",
	    MAX_QUEUES, QUEUES, DEPTH_MAX, DEPTH, SEED);
	exit(fflush(stdout) == EOF ? 1 : 0);
}

static void __attribute__((noreturn))
bad_usage(const char *why)
{
	if (why != NULL)
		warnx("%s", why);
	usage(stderr);
	exit(ST_USAGE);
}

static uint64_t
parse_size(const char *s, const char *what, uint64_t least, uint64_t most)
{
	uint64_t n;

	if (expand_number(s, &n) == -1 || n < least || n > most)
		errx(ST_USAGE, "--%s: %s is not a size from %ju to %ju", what,
		    s, (uintmax_t)least, (uintmax_t)most);
	return (n);
}

static unsigned int
parse_count(const char *s, const char *what, unsigned int most)
{
	const char *why;
	long long n = strtonum(s, 1, most, &why);

	if (why != NULL)
		errx(ST_USAGE, "--%s: %s is %s; 1 to %u are possible", what,
		    s, why, most);
	return ((unsigned int)n);
}

static uint64_t
parse_seed(const char *s)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(s, &end, 0);
	if (*s < '0' || *s > '9' || *end != '\0' || errno != 0)
		errx(ST_USAGE, "--seed: %s is not a number", s);
	return (n);
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

	*o = (struct options){ .queues = QUEUES, .depth = DEPTH,
	    .block = 128 << 10, .seed = SEED };
	while ((ch = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (ch == 'b')
			o->block = parse_size(optarg, "block", HOST_PAGE,
			    BLOCK_MAX) / HOST_PAGE * HOST_PAGE;
		else if (ch == 'd')
			o->depth = parse_count(optarg, "depth", DEPTH_MAX);
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
			o->seed = parse_seed(optarg);
		else if (ch == 's')
			o->size = parse_size(optarg, "size", 512, INT64_MAX);
		else if (ch == 'p')
			o->socket = optarg;
		else if (ch == 'h')
			help();
		else
			bad_usage(ch == 'D' ? "--doorbells is map or message" :
			    ch == 'm' ? "--memory is shared or private" :
			    NULL);
	}
	if (optind != argc)
		bad_usage("there are no arguments but options");
	if (o->socket == NULL)
		bad_usage("--socket is missing");
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
