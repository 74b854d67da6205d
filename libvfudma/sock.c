/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * UNIX stream sockets, and the descriptors that travel on them.
 */

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "internal.h"

/* Clients that wait to be accepted while another one is served. */
#define BACKLOG		16

/* Messages up to so many bytes are sent from one piece. */
#define SMALL		((size_t)256)

/* Aligned room for one control message with VD_MAX_FDS descriptors. */
union control {
	struct cmsghdr align;
	char buf[CMSG_SPACE(VD_MAX_FDS * sizeof(int))];
};

void
vd__close(int fd)
{
	int saved = errno;

	if (fd != -1)
		close(fd);
	errno = saved;
}

ssize_t
vd__sock_recv(int fd, void *buf, size_t len, int *fds, size_t *nfds,
    bool *lost)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	union control control;
	struct msghdr msg;
	struct cmsghdr *cmsg;
	const unsigned char *from;
	size_t room;
	ssize_t n;
	int got;

	*nfds = 0;
	*lost = false;
	memset(&msg, 0, sizeof(msg));
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = control.buf;
	msg.msg_controllen = sizeof(control.buf);
	do {
		n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	} while (n == -1 && errno == EINTR);
	if (n == -1)
		return (-1);
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg != NULL;
	    cmsg = CMSG_NXTHDR(&msg, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		from = CMSG_DATA(cmsg);
		room = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (; room > 0; room--, from += sizeof(int)) {
			memcpy(&got, from, sizeof(got));
			if (*nfds < VD_MAX_FDS)
				fds[(*nfds)++] = got;
			else {
				vd__close(got);
				*lost = true;
			}
		}
	}
	/* The kernel has dropped what had no room, here or in our table. */
	if (msg.msg_flags & MSG_CTRUNC)
		*lost = true;
	return (n);
}

/*
 * Gather a message that is small: its length, or 0.  One that lies in a piece
 * goes by send(2), for which the kernel copies neither a header nor a vector
 * first: 200 ns of the 2000 that a small one takes there and back.
 */
static size_t
gather(char *buf, const struct iovec *iov, int iovcnt)
{
	size_t len = 0;
	int i;

	for (i = 0; i < iovcnt; i++) {
		if (iov[i].iov_len > SMALL - len)
			return (0);
		if (iov[i].iov_len > 0)
			memcpy(buf + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	return (len);
}

ssize_t
vd__sock_send(int fd, const struct iovec *iov, int iovcnt, const int *fds,
    size_t nfds)
{
	union control control;
	struct msghdr msg;
	struct cmsghdr *cmsg;
	char small[SMALL];
	size_t len;
	ssize_t n;

	if (nfds > VD_MAX_FDS) {
		errno = EINVAL;
		return (-1);
	}
	if (nfds == 0 && (len = gather(small, iov, iovcnt)) != 0) {
		do {
			n = send(fd, small, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		} while (n == -1 && errno == EINTR);
		return (n);
	}
	memset(&msg, 0, sizeof(msg));
	msg.msg_iov = (struct iovec *)(uintptr_t)iov;	/* only read */
	msg.msg_iovlen = (size_t)iovcnt;
	if (nfds > 0) {
		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	}
	do {
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n == -1 && errno == EINTR);
	return (n);
}

static int
set_path(struct sockaddr_un *sun, const char *path)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	if (path[0] == '\0') {
		errno = ENOENT;
		return (-1);
	}
	if (strlcpy(sun->sun_path, path, sizeof(sun->sun_path)) >=
	    sizeof(sun->sun_path)) {
		errno = ENAMETOOLONG;
		return (-1);
	}
	return (0);
}

static int
new_socket(void)
{
	return (socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK,
	    0));
}

/*
 * Remove the socket at path if nobody listens on it; otherwise fails with
 * what vd_server_listen() promises.
 */
static int
remove_stale(const char *path, const struct sockaddr_un *sun)
{
	struct stat before, now;
	int fd, rv;

	if (lstat(path, &before) == -1)
		return (errno == ENOENT ? 0 : -1);
	if (!S_ISSOCK(before.st_mode)) {
		errno = EEXIST;
		return (-1);
	}
	if ((fd = new_socket()) == -1)
		return (-1);
	rv = connect(fd, (const struct sockaddr *)sun, sizeof(*sun));
	vd__close(fd);
	if (rv == 0 || errno != ECONNREFUSED) {
		/* A full backlog is EAGAIN, another kind EPROTOTYPE. */
		if (rv == 0 || (errno != EACCES && errno != EPERM))
			errno = EADDRINUSE;
		return (-1);
	}
	/* Not one that somebody has put there meanwhile. */
	if (lstat(path, &now) == -1)
		return (errno == ENOENT ? 0 : -1);
	if (now.st_dev != before.st_dev || now.st_ino != before.st_ino) {
		errno = EADDRINUSE;
		return (-1);
	}
	return (unlink(path) == -1 && errno != ENOENT ? -1 : 0);
}

int
vd__sock_listen(const char *path)
{
	struct sockaddr_un sun;
	const struct sockaddr *sa = (const struct sockaddr *)&sun;
	bool bound = false;
	int fd, rv;

	if (set_path(&sun, path) == -1 || (fd = new_socket()) == -1)
		return (-1);
	/*
	 * Linux makes the file with the mode of the socket's own inode less
	 * the umask, so that it is never wider than this.
	 */
	if (fchmod(fd, 0600) == -1)
		goto fail;
	rv = bind(fd, sa, sizeof(sun));
	if (rv == -1 && errno == EADDRINUSE) {
		if (remove_stale(path, &sun) == -1)
			goto fail;
		rv = bind(fd, sa, sizeof(sun));
	}
	if (rv == -1)
		goto fail;
	bound = true;
	/* Narrower only by an odd umask. */
	if (fchmodat(AT_FDCWD, path, 0600, AT_SYMLINK_NOFOLLOW) == -1 &&
	    errno != EOPNOTSUPP)
		goto fail;
	if (listen(fd, BACKLOG) == -1)
		goto fail;
	return (fd);
fail:
	if (bound) {
		rv = errno;
		unlink(path);
		errno = rv;
	}
	vd__close(fd);
	return (-1);
}

int
vd__sock_connect(const char *path)
{
	struct sockaddr_un sun;
	int fd;

	if (set_path(&sun, path) == -1 || (fd = new_socket()) == -1)
		return (-1);
	if (connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) == -1) {
		vd__close(fd);
		return (-1);
	}
	return (fd);
}

static int
get_option(int fd, int option)
{
	int val = -1;
	socklen_t len = sizeof(val);

	if (getsockopt(fd, SOL_SOCKET, option, &val, &len) == -1)
		return (-1);
	return (val);
}

int
vd__sock_adopt(int fd, bool listening)
{
	struct sockaddr_un sun;
	socklen_t len = sizeof(sun);
	int flags;

	if (get_option(fd, SO_DOMAIN) != AF_UNIX ||
	    get_option(fd, SO_TYPE) != SOCK_STREAM ||
	    get_option(fd, SO_ACCEPTCONN) != listening ||
	    (!listening &&
	    getpeername(fd, (struct sockaddr *)&sun, &len) == -1)) {
		errno = EINVAL;
		return (-1);
	}
	if ((flags = fcntl(fd, F_GETFL)) == -1 ||
	    fcntl(fd, F_SETFL, flags | O_NONBLOCK) == -1)
		return (-1);
	return (0);
}

bool
vd__sock_trusted(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == -1)
		return (false);
	return (cred.uid == 0 || cred.uid == geteuid());
}
