/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * vfu-dump: what a device on a vfio-user socket is, as text or as JSON.
 *
 * One timer bounds all that the server is asked: when it runs out the socket
 * is shut down, and whatever waits for an answer fails.  A limit for each
 * answer would not do, as there may be thousands.
 */

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/libutil.h>
#include <bsd/stdlib.h>
#include <bsd/string.h>

#include <libmemtree/memtree.h>

#include "dump.h"

#define TIMEOUT_S	10
#define TIMEOUT_MAX_S	86400

/* --- time ----------------------------------------------------------------- */

static int timer_fd = -1;
static volatile sig_atomic_t expired;

static void
on_alarm(int sig)
{
	int saved = errno;

	(void)sig;
	expired = 1;
	shutdown(timer_fd, SHUT_RDWR);
	errno = saved;
}

static void
timer_set(unsigned int seconds)
{
	const struct itimerval it = { .it_value.tv_sec = (time_t)seconds };

	if (setitimer(ITIMER_REAL, &it, NULL) == -1)
		err(ST_FAILED, "setitimer");
}

static void
timer_start(int fd, unsigned int seconds)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	sigset_t set;

	/* Who starts us may have blocked or ignored it. */
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	timer_fd = fd;
	if (sigaction(SIGALRM, &sa, NULL) == -1 ||
	    sigprocmask(SIG_UNBLOCK, &set, NULL) == -1)
		err(ST_FAILED, "SIGALRM");
	timer_set(seconds);
}

/* --- what goes wrong ------------------------------------------------------ */

/*
 * A server may answer with one of these, too.  Then it is taken at its word.
 * After the handshake ETIMEDOUT is nothing but an answer: our client waits
 * until the timer ends it.
 */
bool
lost(int error)
{
	return (expired || error == ENOTCONN || error == EPROTO);
}

/* Why the connection is of no more use, and the exit status for it. */
static const char *
lost_why(int error, enum status *status)
{
	if (expired) {
		*status = ST_TIMEOUT;
		return ("the server does not answer in time");
	}
	*status = ST_PROTOCOL;
	return (error == EPROTO ? "the server does not keep to the protocol" :
	    "the server closed the connection");
}

bool
failed(struct dump *d, json_t *obj, const char *what)
{
	int saved = errno;
	enum status status;

	if (!lost(saved)) {
		if (obj != NULL)
			put_text(obj, "error", strerror(saved));
		errno = saved;
		return (false);
	}
	put(d->root, "error", json_sprintf("%s: %s", what,
	    lost_why(saved, &status)));
	d->status = status;
	return (true);
}

void
warning(struct dump *d, const char *fmt, ...)
{
	char buf[160];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(buf, sizeof(buf), fmt, ap);
	va_end(ap);
	add_text(d->warnings, buf);
}

/* --- options -------------------------------------------------------------- */

static void
usage(FILE *fp)
{
	fputs("usage: vfu-dump --socket PATH [--json] [--timeout SECONDS]\n"
	    "           [--read BAR OFFSET LEN]... [--width 1|2|4|8]\n", fp);
}

static void __attribute__((noreturn))
help(void)
{
	usage(stdout);
	printf("\nShow what the device on a vfio-user socket is: IDs, BARs, "
	    "capabilities,\ninterrupts, limits.\n"
	    "\n"
	    "  --socket PATH      where the server listens\n"
	    "  --json             print JSON; what is in hexadecimal, and may "
	    "need 64\n"
	    "                     bits, is a string\n"
	    "  --read BAR OFFSET LEN\n"
	    "                     show registers, too: BAR is 0 to 5, rom or "
	    "config;\n"
	    "                     up to %u times, up to 1M each\n"
	    "  --width N          read registers of N bytes; by default the "
	    "widest\n"
	    "                     that fit, of 8 bytes at first and of 4 if "
	    "that is\n"
	    "                     refused\n"
	    "  --timeout SECONDS  for all of it together (%u)\n"
	    "  --version          print the version\n"
	    "  --help             print this\n"
	    "\n"
	    "Nothing is written to the device, nor is it reset; but reading a "
	    "register\nmay have effects, and most servers reset a device when "
	    "their client leaves.\n"
	    "\n"
	    "Exit status: 0; 1 if there is no connection or something could "
	    "not be read,\n2 for bad options, 3 if the server breaks the "
	    "protocol or hangs up, 4 if it\ndoes not answer in time.\n",
	    MAX_READS, TIMEOUT_S);
	exit(fflush(stdout) == EOF ? ST_FAILED : ST_GOOD);
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
parse_number(const char *s, const char *what)
{
	uint64_t n;

	/* It takes a sign, too. */
	if (*s < '0' || *s > '9' || expand_number(s, &n) == -1)
		errx(ST_USAGE, "--read: %s is not a number: %s", what, s);
	return (n);
}

static unsigned int
parse_region(const char *s)
{
	if (strcmp(s, "rom") == 0)
		return (VD_REGION_ROM);
	if (strcmp(s, "config") == 0)
		return (VD_REGION_CONFIG);
	if (*s >= '0' && *s < '0' + VD_NUM_BARS && s[1] == '\0')
		return ((unsigned int)(*s - '0'));
	errx(ST_USAGE, "--read: BAR is 0 to 5, rom or config, not %s", s);
}

/* The three words from s on. */
static void
parse_read(struct options *o, int argc, char **argv, const char *s)
{
	struct range *r = &o->reads[o->nr_reads];

	if (argc - optind < 2)
		bad_usage("--read needs BAR OFFSET LEN");
	if (o->nr_reads++ == MAX_READS)
		errx(ST_USAGE, "--read: more than %u", MAX_READS);
	r->region = parse_region(s);
	r->off = parse_number(argv[optind++], "OFFSET");
	r->len = parse_number(argv[optind++], "LEN");
	if (r->len == 0 || r->len > READ_MAX)
		errx(ST_USAGE, "--read: LEN is 1 to %ju",
		    (uintmax_t)READ_MAX);
}

static unsigned int
parse_count(const char *s, const char *what, unsigned int most)
{
	const char *why;
	long long n = strtonum(s, 1, most, &why);

	if (why != NULL)
		errx(ST_USAGE, "--%s: %s is %s", what, s, why);
	return ((unsigned int)n);
}

static void
check_width(const struct options *o)
{
	if ((o->width & (o->width - 1)) != 0)
		bad_usage("--width is 1, 2, 4 or 8");
	for (unsigned int i = 0; i < o->nr_reads && o->width != 0; i++)
		if (((o->reads[i].off | o->reads[i].len) &
		    (o->width - 1)) != 0)
			errx(ST_USAGE, "--read: OFFSET and LEN are not "
			    "multiples of --width %u", o->width);
}

static void
parse_options(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {
		{ "help", no_argument, NULL, 'h' },
		{ "json", no_argument, NULL, 'j' },
		{ "read", required_argument, NULL, 'r' },
		{ "socket", required_argument, NULL, 's' },
		{ "timeout", required_argument, NULL, 't' },
		{ "version", no_argument, NULL, 'v' },
		{ "width", required_argument, NULL, 'w' },
		{ NULL, 0, NULL, 0 },
	};
	int ch;

	*o = (struct options){ .timeout_s = TIMEOUT_S };
	/* In order, so that what follows --read is where optind says. */
	while ((ch = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
		switch (ch) {
		case 'h':
			help();
		case 'j':
			o->json = true;
			break;
		case 'r':
			parse_read(o, argc, argv, optarg);
			break;
		case 's':
			o->socket = optarg;
			break;
		case 't':
			o->timeout_s = parse_count(optarg, "timeout",
			    TIMEOUT_MAX_S);
			break;
		case 'v':
			printf("vfu-dump %d.%d.%d\n", MT_VERSION_MAJOR,
			    MT_VERSION_MINOR, MT_VERSION_PATCH);
			exit(fflush(stdout) == EOF ? ST_FAILED : ST_GOOD);
		case 'w':
			o->width = parse_count(optarg, "width", 8);
			break;
		default:
			bad_usage(NULL);
		}
	}
	if (optind != argc)
		bad_usage("there are no arguments but options");
	if (o->socket == NULL)
		bad_usage("--socket is missing");
	check_width(o);
}

/* --- connecting ----------------------------------------------------------- */

static int
connect_to(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct stat st;
	int fd;

	if (strlcpy(sun.sun_path, path, sizeof(sun.sun_path)) >=
	    sizeof(sun.sun_path))
		errx(ST_FAILED, "%s: too long for a socket", path);
	/* Non-blocking: a server that accepts nobody must not keep us. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd == -1)
		err(ST_FAILED, "socket");
	if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
		return (fd);
	if (errno == ENOENT)
		errx(ST_FAILED, "%s: there is no such socket", path);
	/* So is who asks a file of another kind. */
	if (errno == ECONNREFUSED)
		errx(ST_FAILED, "%s: %s", path, stat(path, &st) == 0 &&
		    !S_ISSOCK(st.st_mode) ? "not a socket" :
		    "nobody listens there");
	if (errno == EAGAIN)
		errx(ST_FAILED, "%s: too many wait to be served", path);
	err(ST_FAILED, "%s", path);
}

static struct vd_client *
handshake(const char *path, unsigned int seconds)
{
	struct vd_client *c;
	enum status status;
	const char *why;
	int fd = connect_to(path), copy;

	/* The client closes what it is given; the timer needs it, too. */
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy == -1)
		err(ST_FAILED, "%s", path);
	timer_start(fd, seconds);
	c = vd_client_attach(copy);
	if (c != NULL) {
		vd_client_set_timeout(c, -1);
		return (c);
	}
	if (errno == EPROTONOSUPPORT)
		errx(ST_PROTOCOL, "%s: the server speaks another version",
		    path);
	/* The client has a limit of its own for this. */
	if (errno == ETIMEDOUT)
		expired = 1;
	if (!lost(errno))
		err(ST_FAILED, "%s: the server refuses to talk", path);
	why = lost_why(errno, &status);
	/* One that serves somebody else accepts us when it is done. */
	errx(status, "%s: %s; %s", path, why, status == ST_TIMEOUT ?
	    "it may be serving another client" :
	    "it may be no vfio-user server, or not take clients of this user");
}

int
main(int argc, char **argv)
{
	struct dump *d = calloc(1, sizeof(*d));
	enum status status;
	const char *why;

	if (d == NULL)
		err(ST_FAILED, NULL);
	parse_options(argc, argv, &d->opt);
	d->client = handshake(d->opt.socket, d->opt.timeout_s);
	d->root = json_object();
	d->warnings = json_array();

	if (get_device(d))
		get_reads(d);
	timer_set(0);
	vd_client_destroy(d->client);
	close(timer_fd);
	/* What is known is worth to be seen, even if there was no more. */
	decode_config(d);
	put(d->root, "warnings", d->warnings);

	if (!d->opt.json)
		print_text(d->root);
	else if (json_dumpf(d->root, stdout, JSON_INDENT(2)) == 0)
		putchar('\n');
	if (fflush(stdout) == EOF || ferror(stdout))
		err(ST_FAILED, "standard output");
	why = json_string_value(json_object_get(d->root, "error"));
	if (why != NULL)
		warnx("%s: %s", d->opt.socket, why);
	status = d->status;
	json_decref(d->root);
	free(d);
	return ((int)status);
}
