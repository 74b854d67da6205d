/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server whose pages are not ours: memory is given to it in its smallest
 * ones, and what has no whole one is told of.
 */

#include <pthread.h>

#include "t/vfu.h"

#define PAGE	0x1000u
#define LARGE	0x10000u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct vd_dma_map maps[16];	/* lock */
static unsigned int nmaps;		/* lock */

struct server {
	pthread_t thread;
	int fd;
	const char *pgsizes;
};

static void
note(const struct v_reply *r)
{
	struct vd_dma_unmap unmap;

	pthread_mutex_lock(&lock);
	if (r->hdr.cmd == VD_CMD_DMA_MAP && nmaps < T_COUNT(maps))
		memcpy(&maps[nmaps++], r->data, sizeof(maps[0]));
	if (r->hdr.cmd == VD_CMD_DMA_UNMAP) {
		memcpy(&unmap, r->data, sizeof(unmap));
		for (unsigned int i = 0; i < nmaps; i++)
			if (maps[i].addr == unmap.addr &&
			    maps[i].size == unmap.size)
				maps[i--] = maps[--nmaps];
	}
	pthread_mutex_unlock(&lock);
}

static void *
serve(void *arg)
{
	struct server *s = arg;
	char version[256] = { 0, 0, 1, 0 };
	struct v_reply r;
	size_t len;

	while (v_readable(s->fd, 20000) && v_recv(s->fd, &r)) {
		v_close_fds(&r);
		note(&r);
		len = r.hdr.cmd == VD_CMD_DMA_UNMAP ? r.len : 0;
		if (r.hdr.cmd == VD_CMD_VERSION) {
			len = 5 + (size_t)snprintf(version + 4,
			    sizeof(version) - 4, "{\"capabilities\":{"
			    "\"max_msg_fds\":8,\"pgsizes\":%s}}", s->pgsizes);
			memcpy(r.data, version, len);
		}
		must(v_send_fds(s->fd, r.hdr.id, r.hdr.cmd, VD_TYPE_REPLY,
		    r.data, len, NULL, 0));
	}
	return (NULL);
}

/* "10000+20000 3, ..." in the order of addresses. */
static const char *
maps_text(void)
{
	char *s = t_text();
	uint64_t after = 0;
	unsigned int i, n;

	pthread_mutex_lock(&lock);
	for (n = 0; n < nmaps; n++) {
		const struct vd_dma_map *m = NULL;

		for (i = 0; i < nmaps; i++)
			if (maps[i].addr >= after && (m == NULL ||
			    maps[i].addr < m->addr))
				m = &maps[i];
		if (m == NULL)
			break;
		t_append(s, "%s%" PRIx64 "+%" PRIx64, n > 0 ? ", " : "",
		    m->addr, m->size);
		after = m->addr + 1;
	}
	pthread_mutex_unlock(&lock);
	return (s);
}

static struct vd_client *
start(struct server *s)
{
	struct vd_client *c;

	nmaps = 0;
	c = v_by_hand(&s->thread, &s->fd, serve, s, NULL);
	must(c != NULL);
	return (c);
}

static void
stop(struct server *s, struct vd_client *c)
{
	v_by_hand_end(c, s->thread, s->fd);
}

static void
test_calls(void)
{
	struct server s = { .pgsizes = "65536" };
	struct vd_client *c = start(&s);

	fails(vd_client_dma_map(c, LARGE, PAGE, 3, -1, 0), EINVAL,
	    "a page of ours is none of its");
	fails(vd_client_dma_map(c, PAGE, LARGE, 3, -1, 0), EINVAL,
	    "nor is one of its size elsewhere");
	works(vd_client_dma_map(c, LARGE, LARGE, 3, -1, 0), "one of its is");
	fails(vd_client_dma_unmap(c, LARGE, PAGE), EINVAL,
	    "and is not taken back in part");
	works(vd_client_dma_unmap(c, LARGE, LARGE), "but as a whole");
	stop(&s, c);

	s.pgsizes = "2166784";			/* 2 MiB, 64 KiB and 4 KiB */
	c = start(&s);
	works(vd_client_dma_map(c, PAGE, PAGE, 3, -1, 0),
	    "of several sizes the smallest will do");
	fails(vd_client_dma_map(c, PAGE / 2, PAGE, 3, -1, 0), EINVAL,
	    "and nothing smaller");
	stop(&s, c);
}

/* --- a space ------------------------------------------------------------- */

static char *told;

static void
told_failed(void *arg, bool unmap, struct mt_range range, int error)
{
	(void)arg;
	t_append(told, "%s%" PRIx64 "-%" PRIx64 "%s", told[0] != '\0' ? ", " :
	    "", range.first, range.last, unmap || error != EINVAL ? "?" : "");
}

static void
test_space(const char *pgsizes, const char *want, const char *want_told)
{
	static const struct vd_client_dma_ops ops = { .failed = told_failed };
	static const struct { uint64_t at, size; } where[] = {
		{ 0x10000, 0x20000 },	/* whole pages */
		{ 0x48000, 0x20000 },	/* one, and half of two */
		{ 0x80000, 0x1000 },	/* none */
		{ 0xaf000, 0x2000 },	/* none, on both sides of a border */
	};
	static char buf[T_TEXT];
	struct mt_region *root, *ram[T_COUNT(where)];
	struct mt_topology *t = t_topology();
	struct server s = { .pgsizes = pgsizes };
	struct vd_client *c = start(&s);
	struct vd_client_dma *d;
	struct mt_space *sp;
	size_t i;

	root = t_container(t, "root", 1 << 20);
	sp = t_space(root);
	told = buf;
	told[0] = '\0';
	for (i = 0; i < T_COUNT(where); i++) {
		ram[i] = t_ram(t, "ram", where[i].size);
		must(mt_region_add(root, ram[i], where[i].at, 0) == 0);
	}
	must((d = vd_client_dma_create(c, sp, &ops, NULL)) != NULL);
	is_str(maps_text(), want, "with pages of %s that is given", pgsizes);
	is_str(told, want_told, "and that is not");
	vd_client_dma_destroy(d);
	is_str(maps_text(), "", "all of it is taken back");
	for (i = 0; i < T_COUNT(where); i++) {
		must(mt_region_del(ram[i]) == 0);
		mt_region_put(ram[i]);
	}
	stop(&s, c);
	t_end_space(t, sp, root);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_calls();
	test_space("65536", "10000+20000, 50000+10000",
	    "80000-80fff, af000-b0fff, 48000-4ffff, 60000-67fff");
	test_space("69632", "10000+20000, 48000+20000, 80000+1000, af000+2000",
	    "");
	test_space("2097152", "", "10000-2ffff, 48000-67fff, 80000-80fff, "
	    "af000-b0fff");
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
