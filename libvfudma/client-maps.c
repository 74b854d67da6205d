/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What the caller has given the device by hand, for when the server is another.
 *
 * A map is remembered from when the server has it until the caller takes it
 * back, or tries to: whatever comes of that, nobody else is to be given it.
 */

#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "internal.h"

/* Messages that are not answered yet. */
#define MAX_FLIGHTS	16

/*
 * A copy of a descriptor.  One serves for all that was given of a regular file;
 * of other things two that look alike need not be.
 */
struct vd__kept_file {
	LIST_ENTRY(vd__kept_file) link;
	unsigned int refs;
	bool shared;
	dev_t dev;
	ino_t ino;
	int flags;			/* how it was opened */
	int fd;
};

struct vd__kept_map {
	RB_ENTRY(vd__kept_map) link;
	struct vd_dma_map map;
	struct vd__kept_file *file;	/* NULL: none */
};

/* Maps that a server has do not overlap. */
static int
compare(const struct vd__kept_map *a, const struct vd__kept_map *b)
{
	return (a->map.addr < b->map.addr ? -1 : a->map.addr > b->map.addr);
}

RB_GENERATE_INTERNAL(vd__kept_maps, vd__kept_map, link, compare,
    __attribute__((unused)) static)

/* --- files: under the lock ------------------------------------------------ */

static struct vd__kept_file *
file_get(struct vd_client *c, int fd)
{
	struct vd__kept_file *f;
	struct stat st;
	int flags;

	if (fstat(fd, &st) == -1 || (flags = fcntl(fd, F_GETFL)) == -1)
		return (NULL);
	LIST_FOREACH(f, &c->kept_files, link)
		if (f->shared && S_ISREG(st.st_mode) && f->dev == st.st_dev &&
		    f->ino == st.st_ino && f->flags == flags) {
			f->refs++;
			return (f);
		}
	if ((f = calloc(1, sizeof(*f))) == NULL)
		return (NULL);
	if ((f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) == -1) {
		free(f);
		return (NULL);
	}
	f->refs = 1;
	f->shared = S_ISREG(st.st_mode);
	f->dev = st.st_dev;
	f->ino = st.st_ino;
	f->flags = flags;
	LIST_INSERT_HEAD(&c->kept_files, f, link);
	return (f);
}

static void
file_put(struct vd__kept_file *f)
{
	if (f == NULL || --f->refs > 0)
		return;
	LIST_REMOVE(f, link);
	vd__close(f->fd);
	free(f);
}

static void
map_free(struct vd__kept_map *k)
{
	if (k == NULL)
		return;
	file_put(k->file);
	free(k);
}

/* --- maps ----------------------------------------------------------------- */

int
vd__client_copy_map(struct vd_client *c, const struct vd_dma_map *m, int fd,
    struct vd__kept_map **copy)
{
	struct vd__kept_map *k = NULL;
	int rv = 0;

	pthread_mutex_lock(&c->lock);
	if (c->identity != NULL) {
		if ((k = calloc(1, sizeof(*k))) == NULL)
			rv = -1;
		else if (fd != -1 && (k->file = file_get(c, fd)) == NULL) {
			free(k);
			k = NULL;
			rv = -1;
		} else
			k->map = *m;
	}
	pthread_mutex_unlock(&c->lock);
	*copy = k;
	return (rv);
}

void
vd__client_keep_map(struct vd_client *c, struct vd__kept_map *k, bool given)
{
	struct vd__kept_map *old;
	int saved = errno;

	if (k == NULL)
		return;
	pthread_mutex_lock(&c->lock);
	if (given) {
		/* Some servers take what they have already. */
		if ((old = RB_INSERT(vd__kept_maps, &c->kept_maps, k)) != NULL) {
			RB_REMOVE(vd__kept_maps, &c->kept_maps, old);
			RB_INSERT(vd__kept_maps, &c->kept_maps, k);
			map_free(old);
		}
	} else
		map_free(k);
	pthread_mutex_unlock(&c->lock);
	errno = saved;
}

void
vd__client_forget_map(struct vd_client *c, uint64_t iova, uint64_t len)
{
	struct vd__kept_map key = { .map.addr = iova }, *k;

	pthread_mutex_lock(&c->lock);
	k = RB_FIND(vd__kept_maps, &c->kept_maps, &key);
	if (k != NULL && k->map.size == len) {
		RB_REMOVE(vd__kept_maps, &c->kept_maps, k);
		map_free(k);
	}
	pthread_mutex_unlock(&c->lock);
}

void
vd__client_free_maps(struct vd_client *c)
{
	struct vd__kept_map *k;

	while ((k = RB_MIN(vd__kept_maps, &c->kept_maps)) != NULL) {
		RB_REMOVE(vd__kept_maps, &c->kept_maps, k);
		map_free(k);
	}
}

/* --- another server ------------------------------------------------------- */

struct flight {
	struct vd__dma_op op;
	struct vd__kept_file *file;	/* a reference, until it has landed */
};

/* The first one from addr on: into *map and *file, with a reference. */
static bool
next_map(struct vd_client *c, uint64_t addr, struct vd_dma_map *map,
    struct vd__kept_file **file)
{
	struct vd__kept_map key = { .map.addr = addr }, *k;

	pthread_mutex_lock(&c->lock);
	k = RB_NFIND(vd__kept_maps, &c->kept_maps, &key);
	if (k != NULL) {
		*map = k->map;
		if ((*file = k->file) != NULL)
			k->file->refs++;
	}
	pthread_mutex_unlock(&c->lock);
	return (k != NULL);
}

static void
release(struct vd_client *c, struct flight *f)
{
	pthread_mutex_lock(&c->lock);
	file_put(f->file);
	pthread_mutex_unlock(&c->lock);
}

/* 0 if it is under way, or an errno, and it has ended. */
static int
begin(struct vd_client *c, struct vd_client *to, struct flight *f,
    const struct vd_dma_map *m)
{
	int error = 0;

	if (f->file != NULL && to->limits.max_msg_fds == 0)
		error = ENOTSUP;
	else if (vd__client_begin_map(to, &f->op, m->addr, m->size, m->flags,
	    f->file != NULL ? f->file->fd : -1, m->offset) == -1)
		error = errno;
	if (error != 0)
		release(c, f);
	return (error);
}

static int
end(struct vd_client *c, struct vd_client *to, struct flight *f)
{
	int error = vd__client_end_op(to, &f->op) == -1 ? errno : 0;

	release(c, f);
	return (error);
}

int
vd__client_give_maps(struct vd_client *c, struct vd_client *to)
{
	struct flight flights[MAX_FLIGHTS], *f;
	unsigned int sent = 0, answered = 0;
	struct vd_dma_map m;
	uint64_t at = 0;
	int error = 0, last;

	if (vd__client_enter(to) == -1)
		return (-1);
	do {
		f = &flights[sent % MAX_FLIGHTS];
		/* The oldest is in the place of the next. */
		if (sent - answered == MAX_FLIGHTS) {
			answered++;
			error = end(c, to, f);
		}
		if (error != 0 || !next_map(c, at, &m, &f->file))
			break;
		at = m.addr + m.size;
		if ((error = begin(c, to, f, &m)) == 0)
			sent++;
	} while (error == 0 && at != 0);
	while (answered != sent) {
		last = end(c, to, &flights[answered++ % MAX_FLIGHTS]);
		error = error != 0 ? error : last;
	}
	errno = error;
	return (vd__client_leave(to, error != 0 ? -1 : 0));
}
