/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Sockets: descriptors in both directions, and paths. */

#include <sys/resource.h>
#include <sys/stat.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

static int sv[2];

static void
open_pair(void)
{
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
}

static void
close_pair(void)
{
	close(sv[0]);
	close(sv[1]);
}

static void
test_fds(void)
{
	int fds[64], got[VD_MAX_FDS];
	unsigned int before;
	size_t n, i;
	char buf[64];
	bool lost;

	open_pair();
	before = t_count_fds();
	for (i = 0; i < T_COUNT(fds); i++)
		fds[i] = 1;
	is_int(vd__sock_recv(sv[0], buf, sizeof(buf), got, &n, &lost), -1,
	    "nothing is there");
	ok(errno == EAGAIN, "and nobody waits for it");
	must(v_send_raw(sv[1], "abc", 3, fds, 3));
	is_int(vd__sock_recv(sv[0], buf, sizeof(buf), got, &n, &lost), 3,
	    "three bytes come");
	is_int(n, 3, "with three descriptors");
	ok(!lost, "and none is lost");
	is_int(fcntl(got[0], F_GETFD), FD_CLOEXEC, "they do not survive exec");
	for (i = 0; i < n; i++)
		vd__close(got[i]);
	must(v_send_raw(sv[1], "a", 1, fds, VD_MAX_FDS));
	is_int(vd__sock_recv(sv[0], buf, sizeof(buf), got, &n, &lost), 1,
	    "the most that we take");
	ok(n == VD_MAX_FDS && !lost, "are taken");
	for (i = 0; i < n; i++)
		vd__close(got[i]);
	must(v_send_raw(sv[1], "a", 1, fds, 64));
	is_int(vd__sock_recv(sv[0], buf, sizeof(buf), got, &n, &lost), 1,
	    "of more");
	ok(lost, "some are lost");
	for (i = 0; i < n; i++)
		vd__close(got[i]);
	is_int(t_count_fds(), before, "and none leaks");

	is_int(vd__sock_send(sv[0], &(struct iovec){ buf, 1 }, 1, fds,
	    VD_MAX_FDS + 1), -1, "more than that cannot be sent");
	errno = EXDEV;
	vd__close(-1);
	ok(errno == EXDEV, "closing keeps errno");
	close(sv[1]);
	is_int(vd__sock_recv(sv[0], buf, sizeof(buf), got, &n, &lost), 0,
	    "the end is the end");
	fails(vd__sock_send(sv[0], &(struct iovec){ buf, 1 }, 1, NULL, 0),
	    EPIPE, "sending to nobody fails, without a signal");
	close(sv[0]);
}

static void
test_full_table(void)
{
	struct rlimit old, few;
	int fds[8] = { 1, 1, 1, 1, 1, 1, 1, 1 }, got[VD_MAX_FDS], top;
	size_t n;
	char c;
	bool lost;

	open_pair();
	must(v_send_raw(sv[1], "a", 1, fds, 8));
	must(getrlimit(RLIMIT_NOFILE, &old) == 0);
	top = dup(1);
	few = old;
	few.rlim_cur = (rlim_t)top + 3;
	close(top);
	must(setrlimit(RLIMIT_NOFILE, &few) == 0);
	is_int(vd__sock_recv(sv[0], &c, 1, got, &n, &lost), 1,
	    "with no room for descriptors the bytes come");
	setrlimit(RLIMIT_NOFILE, &old);
	ok(lost && n < 8, "and it is known that some are lost (%zu came)", n);
	while (n > 0)
		vd__close(got[--n]);
	close_pair();
}

static void
test_adopt(void)
{
	int fd;

	open_pair();
	works(vd__sock_adopt(sv[0], false), "a connected socket is adopted");
	ok(fcntl(sv[0], F_GETFL) & O_NONBLOCK, "and does not block then");
	fails(vd__sock_adopt(sv[0], true), EINVAL,
	    "but not as one that listens");
	close_pair();
	must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv) == 0);
	fails(vd__sock_adopt(sv[0], false), EINVAL, "nor are packets");
	close_pair();
	must(pipe(sv) == 0);
	fails(vd__sock_adopt(sv[0], false), EINVAL, "nor a pipe");
	close_pair();
	must((fd = socket(AF_UNIX, SOCK_STREAM, 0)) != -1);
	fails(vd__sock_adopt(fd, false), EINVAL,
	    "nor a socket that is not connected");
	close(fd);
	must((fd = socket(AF_INET, SOCK_STREAM, 0)) != -1);
	fails(vd__sock_adopt(fd, false), EINVAL, "nor TCP");
	close(fd);
	fails(vd__sock_adopt(-1, false), EINVAL, "nor nothing");
}

static void
test_paths(void)
{
	char dir[] = "/tmp/vfudma-sock.XXXXXX", path[128], longer[300];
	struct stat st;
	mode_t mask;
	int fd, other, client;

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	mask = umask(0);
	must((fd = vd__sock_listen(path)) != -1);
	must(lstat(path, &st) == 0);
	is_hex(st.st_mode, S_IFSOCK | 0600, "the mode is 0600 with umask 0");
	fails(vd__sock_listen(path), EADDRINUSE, "a live socket is kept");
	must((client = vd__sock_connect(path)) != -1);
	ok(vd__sock_trusted(client), "our own user is trusted");
	close(client);
	close(fd);
	fails(vd__sock_connect(path), ECONNREFUSED, "a dead one refuses");
	umask(0777);
	ok((fd = vd__sock_listen(path)) != -1, "and is replaced");
	must(lstat(path, &st) == 0);
	is_hex(st.st_mode, S_IFSOCK | 0600, "the mode is 0600 with umask 0777");
	umask(mask);
	close(fd);
	unlink(path);

	must((fd = open(path, O_CREAT | O_WRONLY, 0600)) != -1);
	close(fd);
	fails(vd__sock_listen(path), EEXIST, "a file is not replaced");
	works(lstat(path, &st), "and stays");
	unlink(path);
	must(symlink("nowhere", path) == 0);
	fails(vd__sock_listen(path), EEXIST, "nor is a symbolic link");
	unlink(path);

	must((other = socket(AF_UNIX, SOCK_DGRAM, 0)) != -1);
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	memcpy(sun.sun_path, path, strlen(path));
	must(bind(other, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	fails(vd__sock_listen(path), EADDRINUSE,
	    "nor is a socket of another kind");
	close(other);
	unlink(path);

	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	fails(vd__sock_listen(longer), ENAMETOOLONG, "a long path is too long");
	fails(vd__sock_connect(longer), ENAMETOOLONG, "also to connect to");
	fails(vd__sock_listen(""), ENOENT, "an empty one is none");
	snprintf(longer, sizeof(longer), "%s/none/s", dir);
	fails(vd__sock_listen(longer), ENOENT, "a folder has to exist");
	rmdir(dir);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_fds();
	test_full_table();
	test_adopt();
	test_paths();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
