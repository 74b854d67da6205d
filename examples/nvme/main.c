/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * nvme: an NVMe controller on a vfio-user socket.
 */

#include <sys/prctl.h>
#include <sys/signalfd.h>

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <bsd/string.h>

#include "nvme.h"

/*
 * The doorbells are shared memory: nothing tells us of a write, so we look.
 * While there is work we look all the time, and ask the socket every BUDGET
 * units.  Then ever less often: we sleep an eighth of the time that nothing
 * has happened, so that the first command after a pause waits no longer than
 * an eighth of the pause, and an idle controller costs next to nothing.
 */
#define BUDGET		512
#define SPIN_NS		50000
#define MESSAGE_SPIN	64	/* a message is seldom the last one */
#define SLEEP_MIN_NS	10000
#define SLEEP_MAX_NS	2000000
#define LATE_MAX	16	/* commands in a row found after a sleep */
#define MESSAGES	64	/* before the queues get their turn */

#define ST_USAGE	2	/* exit status for bad options */

struct config {
	const char *socket;
	struct nvme_options nvme;
	struct nvme_ns *ns[NVME_MAX_NS];
	unsigned int nns;
};

static void
usage(FILE *fp)
{
	fputs("usage: nvme --socket PATH [--block-size 512|4096] "
	    "(--ram SIZE | --file PATH)...\n"
	    "            [--serial S] [--model M] [--doorbells map|message] "
	    "[--verbose]\n", fp);
}

static void __attribute__((noreturn))
help(void)
{
	usage(stdout);
	puts("\nServe an NVMe controller to vfio-user clients, one at a time.\n"
	    "\n"
	    "  --socket PATH      listen here; SPDK connects to DIR/cntrl if\n"
	    "                     it is given DIR as its traddr\n"
	    "  --ram SIZE         add a namespace in memory, zeroed\n"
	    "  --file PATH        add a namespace in a file or block device\n"
	    "  --block-size N     of the namespaces that follow: 512 or 4096\n"
	    "  --serial S         serial number, else made from PATH\n"
	    "  --model M          model number\n"
	    "  --doorbells map    share them as memory and poll (default)\n"
	    "  --doorbells message\n"
	    "                     have every write of them sent\n"
	    "  --verbose          tell on stderr what happens\n"
	    "  --help             print this\n"
	    "\n"
	    "SIZE is in bytes, or with a suffix K, M, G or T (powers of 1024)."
	    "\nNamespaces are numbered from 1 in the order given.  SIGTERM and"
	    "\nSIGINT end the program when all data is in its files.\n"
	    "\n"
	    "Exit status: 0; 1 if something fails, 2 for bad options.");
	exit(0);
}

/* --- options -------------------------------------------------------------- */

static uint64_t
parse_size(const char *s)
{
	static const char suffixes[] = "KMGT";
	unsigned int shift = 0;
	uintmax_t n;
	char *end;
	const char *p;

	errno = 0;
	n = strtoumax(s, &end, 10);
	if (*s < '0' || *s > '9' || errno != 0)
		errx(ST_USAGE, "bad size: %s", s);
	if (*end != '\0' && (p = strchr(suffixes, *end & ~0x20)) != NULL) {
		shift = 10 * (unsigned int)(p - suffixes + 1);
		end++;
	}
	if (*end != '\0' || n == 0 || n > (uintmax_t)PTRDIFF_MAX >> shift)
		errx(ST_USAGE, "bad size: %s", s);
	return ((uint64_t)n << shift);
}

static const char *
parse_text(const char *s, size_t max, const char *what)
{
	const char *p;

	for (p = s; *p >= ' ' && *p <= '~'; p++)
		continue;
	if (p == s || *p != '\0' || strlen(s) > max)
		errx(ST_USAGE, "bad %s: 1 to %zu printable characters", what,
		    max);
	return (s);
}

static void
add_ns(struct config *cfg, struct nvme_ns *ns, const char *what)
{
	if (ns == NULL && errno == ENOSPC)
		errx(1, "%s: is shorter than a block", what);
	if (ns == NULL && errno == EBUSY)
		errx(1, "%s: is in use by another process", what);
	if (ns == NULL && errno == ENOTBLK)
		errx(1, "%s: is neither a file nor a block device", what);
	if (ns == NULL && errno == EINVAL)
		errx(1, "%s: is not a number of blocks", what);
	if (ns == NULL)
		err(1, "%s", what);
	if (cfg->nns == NVME_MAX_NS)
		errx(ST_USAGE, "more than %d namespaces", NVME_MAX_NS);
	cfg->ns[cfg->nns++] = ns;
}

static void __attribute__((noreturn))
bad_usage(const char *why)
{
	if (why != NULL)
		warnx("%s", why);
	usage(stderr);
	exit(ST_USAGE);
}

static void
parse_options(struct config *cfg, int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "socket", required_argument, NULL, 's' },
		{ "ram", required_argument, NULL, 'r' },
		{ "file", required_argument, NULL, 'f' },
		{ "block-size", required_argument, NULL, 'b' },
		{ "serial", required_argument, NULL, 'S' },
		{ "model", required_argument, NULL, 'M' },
		{ "doorbells", required_argument, NULL, 'd' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	unsigned int shift = 9;
	int ch;

	while ((ch = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (ch) {
		case 's':
			cfg->socket = optarg;
			break;
		case 'r':
			add_ns(cfg, nvme_ns_ram(parse_size(optarg), shift),
			    optarg);
			break;
		case 'f':
			add_ns(cfg, nvme_ns_file(optarg, shift), optarg);
			break;
		case 'b':
			if (strcmp(optarg, "512") == 0)
				shift = 9;
			else if (strcmp(optarg, "4096") == 0)
				shift = 12;
			else
				bad_usage("--block-size is 512 or 4096");
			break;
		case 'S':
			cfg->nvme.serial = parse_text(optarg, 20,
			    "serial number");
			break;
		case 'M':
			cfg->nvme.model = parse_text(optarg, 40, "model");
			break;
		case 'd':
			if (strcmp(optarg, "map") != 0 &&
			    strcmp(optarg, "message") != 0)
				bad_usage("--doorbells is map or message");
			cfg->nvme.map_doorbells = optarg[1] == 'a';
			break;
		case 'v':
			cfg->nvme.verbose = true;
			break;
		case 'h':
			help();
		default:
			bad_usage(NULL);
		}
	}
	if (optind < argc)
		bad_usage("there are no arguments but options");
	if (cfg->socket == NULL)
		bad_usage("--socket is missing");
	if (cfg->nns == 0)
		bad_usage("no namespace: give --ram or --file");
}

/*
 * Hosts tell controllers apart by it, so two should not have the same, and
 * one should have the same the next time.
 */
static void
make_serial(const char *path, char *serial, size_t len)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	char cwd[4096];
	const char *p;

	if (*path != '/' && getcwd(cwd, sizeof(cwd)) != NULL)
		for (p = cwd; *p != '\0'; p++)
			h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	for (p = path; *p != '\0'; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	snprintf(serial, len, "MT%016" PRIX64, h);
}

/* --- the event loop ------------------------------------------------------- */

/*
 * How long to wait for a message when the queues have nothing: 0 to look at
 * them again at once, -1 until one comes.
 */
static int64_t
idle_wait(struct nvme_ctrl *c, uint64_t *since)
{
	uint64_t idle, t = nvme_now();

	if (*since == 0)
		*since = t;
	idle = t - *since;
	if (idle < SPIN_NS)
		return (0);
	if (!nvme_polling(c))
		return (nvme_deadline(c, t));
	if (idle / 8 < SLEEP_MIN_NS)
		return (SLEEP_MIN_NS);
	return (idle / 8 < SLEEP_MAX_NS ? (int64_t)(idle / 8) : SLEEP_MAX_NS);
}

/*
 * Answer messages; the work that each asks for is done after its reply.
 * False if the server cannot go on.
 */
static bool
serve(struct nvme_ctrl *c)
{
	int i, did;

	for (i = 0; i < MESSAGES; i++) {
		if ((did = vd_server_run(c->server)) == -1) {
			warn("cannot serve any more");
			return (false);
		}
		if (did == 0)
			break;
		nvme_work(c, BUDGET, 0);
	}
	return (true);
}

/*
 * Whoever rings the doorbells may have been put on our CPU, where our looking
 * for its next command is what keeps it from ringing.  The sign of that is
 * that we never see anything while we look, but always after a sleep.  The
 * scheduler takes its time to see it, or never does, so we step aside.
 */
static void
step_aside(void)
{
	cpu_set_t all, others;
	int cpu;

	if ((cpu = sched_getcpu()) < 0 || cpu >= CPU_SETSIZE ||
	    sched_getaffinity(0, sizeof(all), &all) == -1)
		return;
	others = all;
	CPU_CLR((unsigned int)cpu, &others);
	if (CPU_COUNT(&others) == 0)
		return;
	if (sched_setaffinity(0, sizeof(others), &others) == 0)
		sched_setaffinity(0, sizeof(all), &all);
}

/* Until a signal comes: 0, or 1 if something fails before. */
static int
loop(struct nvme_ctrl *c, int sigfd)
{
	struct pollfd fds[] = {
		{ .fd = vd_server_fd(c->server), .events = POLLIN },
		{ .fd = sigfd, .events = POLLIN },
		{ .fd = c->sync != NULL ? nvme_sync_fd(c->sync) : -1,
		    .events = POLLIN },
	};
	struct timespec ts;
	uint64_t since = 0, busy_from = 0;
	int64_t wait;
	int ready;
	bool slept = false;
	unsigned int spin = 0, late = 0;

	for (;;) {
		if (nvme_work(c, BUDGET, spin)) {
			late = slept ? late + 1 : 0;
			if (late == LATE_MAX) {
				step_aside();
				late = 0;
			}
			since = 0;
			wait = 0;
			if (busy_from == 0)
				busy_from = nvme_now();
			spin = c->map_doorbells ? BUDGET : 0;
		} else {
			wait = idle_wait(c, &since);
			if (wait != 0)
				spin = 0;
			if (busy_from != 0 && wait != 0) {
				c->stats.busy_ns += nvme_now() - busy_from;
				busy_from = 0;
			}
		}
		ts.tv_sec = wait > 0 ? (time_t)(wait / 1000000000) : 0;
		ts.tv_nsec = wait > 0 ? (long)(wait % 1000000000) : 0;
		ready = ppoll(fds, 3, wait >= 0 ? &ts : NULL, NULL);
		if (ready == -1 && errno != EINTR) {
			warn("ppoll");
			return (1);
		}
		/* To be woken is not to be late. */
		slept = wait > 0 && ready == 0;
		if (fds[1].revents != 0)
			return (0);
		if (fds[2].revents != 0)
			nvme_sync_reap(c);
		if (fds[0].revents != 0) {
			if (!serve(c))
				return (1);
			since = 0;
			spin = nvme_polling(c) ? MESSAGE_SPIN : 0;
		}
	}
}

/* --- the program ---------------------------------------------------------- */

static int
catch_signals(void)
{
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	/* A client may make a file shorter that we have mapped. */
	if (vd_sigbus_protect() == -1)
		err(1, "cannot handle SIGBUS");
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if ((fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) == -1)
		err(1, "signalfd");
	return (fd);
}

/* Say that we listen: one line, which scripts wait for. */
static void
announce(const struct config *cfg)
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB" };
	unsigned int i, u;
	uint64_t size = 0;

	for (i = 0; i < cfg->nns; i++)
		size += nvme_ns_size(cfg->ns[i]);
	for (u = 0; u < 3 && size % 1024 == 0; u++)
		size /= 1024;
	printf("nvme: listening on %s: %u namespace%s, %" PRIu64 " %s\n",
	    cfg->socket, cfg->nns, cfg->nns == 1 ? "" : "s", size, units[u]);
	fflush(stdout);
}

static int
sync_files(struct nvme_ctrl *c, const struct config *cfg)
{
	unsigned int i;
	int error, failed = 0;

	/* A sync that is under way may have got the only word of an error. */
	if (c->sync != NULL) {
		nvme_sync_stop(c->sync);
		nvme_sync_reap(c);
	}
	for (i = 0; i < cfg->nns; i++) {
		if ((error = nvme_ns_sync(cfg->ns[i])) == 0)
			continue;
		warnx("%s: %s", cfg->ns[i]->path, strerror(error));
		failed = 1;
	}
	return (failed);
}

int
main(int argc, char **argv)
{
	struct config cfg = {
		.nvme = { .model = NVME_MODEL, .map_doorbells = true },
	};
	struct mt_topology *t;
	struct nvme_ctrl *c;
	char serial[21];
	int failed, sigfd;
	unsigned int i;

	parse_options(&cfg, argc, argv);
	if (cfg.nvme.serial == NULL) {
		make_serial(cfg.socket, serial, sizeof(serial));
		cfg.nvme.serial = serial;
	}
	/* Before there are threads, which inherit the mask. */
	sigfd = catch_signals();
	/* Or short sleeps would be 50 us longer. */
	prctl(PR_SET_TIMERSLACK, 1000ul, 0ul, 0ul, 0ul);

	if ((t = mt_topology_create()) == NULL)
		err(1, "cannot make a topology");
	if ((c = nvme_ctrl_create(t, &cfg.nvme)) == NULL)
		err(1, "cannot make a controller");
	for (i = 0; i < cfg.nns; i++)
		if (nvme_ctrl_add_ns(c, cfg.ns[i]) == -1)
			err(1, "cannot add a namespace");
	if (vd_server_listen(c->server, cfg.socket) == -1)
		err(1, "%s", cfg.socket);
	announce(&cfg);
	/* However it ends, what was written is not left to chance. */
	failed = loop(c, sigfd);
	failed |= sync_files(c, &cfg);
	nvme_ctrl_destroy(c);
	if (mt_topology_destroy(t) == -1)
		warn("the topology is still in use");
	close(sigfd);
	return (failed);
}
