/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What one commit gives to a device is sent without waiting in between: a
 * server that answers nothing as long as something comes sees how much that is.
 */

#include <pthread.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE		0x1000u
#define NR		150u		/* regions, a page apart */
#define AT(i)		((uint64_t)(i) * 2 * PAGE)
#define WINDOW		64u		/* what client-dma.c has under way */

struct server {
	int fd;
	pthread_t thread;
	bool refuses;			/* the maps of every third region */
	unsigned int gone_after;	/* so many commands; 0: stays */
	bool silent;			/* about maps */
	/* what has been seen */
	unsigned int most;		/* commands at a time */
	unsigned int maps, unmaps, rounds, fds;
	bool has[NR];
	unsigned int wrong;
};

/* What a server has seen is written by its thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool
get(struct server *s, struct v_reply *r)
{
	if (!v_recv(s->fd, r))
		return (false);
	pthread_mutex_lock(&lock);
	s->fds += (unsigned int)r->nfds;
	pthread_mutex_unlock(&lock);
	v_close_fds(r);
	return (true);
}

/* Do it: the errno to answer. */
static int
obey(struct server *s, const struct v_reply *r)
{
	struct vd_dma_unmap unmap;
	struct vd_dma_map map;
	uint64_t i;

	if (r->hdr.cmd == VD_CMD_DMA_MAP) {
		memcpy(&map, r->data, sizeof(map));
		i = map.addr / (2 * PAGE);
		s->maps++;
		s->wrong += i >= NR || map.addr != AT(i) || map.size != PAGE ||
		    s->has[i];
		if (s->refuses && i % 3 == 0)
			return (EINVAL);
		s->has[i] = true;
	} else {
		memcpy(&unmap, r->data, sizeof(unmap));
		i = unmap.addr / (2 * PAGE);
		s->unmaps++;
		s->wrong += i >= NR || !s->has[i];
		s->has[i] = false;
	}
	return (0);
}

static void
answer(struct server *s, const struct v_reply *r, int error)
{
	struct vd_hdr h = r->hdr;

	h.flags = VD_TYPE_REPLY | (error != 0 ? VD_ERROR : 0);
	h.error = (uint32_t)error;
	h.size = sizeof(h);
	if (error == 0 && h.cmd == VD_CMD_DMA_UNMAP)
		h.size += sizeof(struct vd_dma_unmap);
	must(v_send_raw(s->fd, &h, sizeof(h), NULL, 0));
	if (h.size > sizeof(h))
		must(v_send_raw(s->fd, r->data, sizeof(struct vd_dma_unmap),
		    NULL, 0));
}

static void *
serve(void *arg)
{
	static const char version[] = "\0\0\1\0{\"capabilities\":{"
	    "\"max_msg_fds\":8,\"max_dma_maps\":1000}}";
	static struct v_reply r[NR + 1];
	struct server *s = arg;
	unsigned int n, i, all = 0;
	int errors[NR + 1];

	must(v_readable(s->fd, 5000) && get(s, &r[0]));
	must(v_send_fds(s->fd, r[0].hdr.id, VD_CMD_VERSION, VD_TYPE_REPLY,
	    version, sizeof(version), NULL, 0));
	for (;;) {
		/* As long as something comes, listen. */
		for (n = 0; n <= NR && v_readable(s->fd,
		    n > 0 ? 30 : 10000); n++) {
			if (!get(s, &r[n]))
				break;
			if (++all == s->gone_after) {
				close(s->fd);
				return (NULL);
			}
		}
		if (n == 0)
			break;
		pthread_mutex_lock(&lock);
		s->rounds++;
		if (n > s->most)
			s->most = n;
		for (i = 0; i < n; i++)
			errors[i] = obey(s, &r[i]);
		pthread_mutex_unlock(&lock);
		for (i = 0; i < n; i++) {
			if (!s->silent || r[i].hdr.cmd != VD_CMD_DMA_MAP)
				answer(s, &r[i], errors[i]);
		}
	}
	close(s->fd);
	return (NULL);
}

static unsigned int nr_failed, nr_unmap_failed, nr_odd;

static void
failed(void *arg, bool unmap, struct mt_range range, int error)
{
	const int *expected = arg;

	nr_failed += !unmap;
	nr_unmap_failed += unmap;
	nr_odd += error != *expected || range.last - range.first != PAGE - 1;
}

static const struct vd_client_dma_ops ops = { .failed = failed };

static struct mt_topology *t;
static struct mt_region *root, *parts[NR];
static struct mt_space *sp;

static struct vd_client *
start(struct server *s, int timeout_ms)
{
	const struct vd_client_options o = { .timeout_ms = timeout_ms };
	struct vd_client *c;

	nr_failed = nr_unmap_failed = nr_odd = 0;
	c = v_by_hand(&s->thread, &s->fd, serve, s, &o);
	must(c != NULL);
	return (c);
}

static void
stop(struct server *s, struct vd_client *c)
{
	vd_client_destroy(c);
	must(pthread_join(s->thread, NULL) == 0);
	is_int(s->wrong, 0, "and nothing is sent that makes no sense");
}

static unsigned int
seen(const unsigned int *p)
{
	unsigned int n;

	pthread_mutex_lock(&lock);
	n = *p;
	pthread_mutex_unlock(&lock);
	return (n);
}

static unsigned int
held(const struct server *s)
{
	unsigned int i, n = 0;

	pthread_mutex_lock(&lock);
	for (i = 0; i < NR; i++)
		n += s->has[i];
	pthread_mutex_unlock(&lock);
	return (n);
}

static void
show_all(bool on)
{
	must(mt_topology_begin(t) == 0);
	for (unsigned int i = 0; i < NR; i++)
		must(mt_region_set_enabled(parts[i], on) == 0);
	must(mt_topology_commit(t) == 0);
}

static void
test_window(void)
{
	struct server s = { 0 };
	struct vd_client_dma *dma;
	struct vd_client *c;
	unsigned int rounds;
	int none = 0;

	c = start(&s, 5000);
	must((dma = vd_client_dma_create(c, sp, &ops, &none)) != NULL);
	is_int(held(&s), NR, "%u maps in one commit", NR);
	is_int(seen(&s.fds), NR, "each with its file");
	is_int(seen(&s.most), WINDOW, "are sent %u at a time", WINDOW);
	/* After the first lot one is sent for each that is answered. */
	rounds = seen(&s.rounds);
	ok(rounds < NR / 2, "and not one by one (%u rounds)", rounds);
	pthread_mutex_lock(&lock);
	s.most = 0;
	pthread_mutex_unlock(&lock);
	must(mt_topology_begin(t) == 0);
	for (unsigned int i = 0; i < 20; i++)
		must(mt_region_set_readonly(parts[i * 7], true) == 0);
	must(mt_topology_commit(t) == 0);
	is_int(seen(&s.most), 40, "20 that change: unmaps and maps, all at once");
	is_int(seen(&s.rounds) - rounds, 1, "so the way there and back is waited once");
	is_int(held(&s), NR, "all is there again");
	must(mt_topology_begin(t) == 0);
	for (unsigned int i = 0; i < 20; i++)
		must(mt_region_set_readonly(parts[i * 7], false) == 0);
	must(mt_topology_commit(t) == 0);
	show_all(false);
	is_int(held(&s), 0, "what goes is taken back");
	show_all(true);
	vd_client_dma_destroy(dma);
	is_int(held(&s), 0, "and at the end");
	is_int(nr_failed + nr_unmap_failed, 0, "nothing has failed");
	stop(&s, c);
}

static void
test_refused(void)
{
	struct server s = { .refuses = true };
	struct vd_client_dma *dma;
	struct vd_client *c;
	int expected = EINVAL;

	c = start(&s, 5000);
	must((dma = vd_client_dma_create(c, sp, &ops, &expected)) != NULL);
	is_int(nr_failed, NR / 3, "what is refused is told of");
	is_int(nr_odd, 0, "with the reason, each by itself");
	is_int(held(&s), NR - NR / 3, "and the rest is mapped");
	show_all(false);
	is_int(seen(&s.unmaps), NR - NR / 3, "only that is taken back");
	is_int(nr_unmap_failed, 0, "without fail");
	show_all(true);
	is_int(nr_failed, 2 * (NR / 3), "what comes again is tried again");
	vd_client_dma_destroy(dma);
	stop(&s, c);
}

static void
test_silent(void)
{
	struct server s = { .silent = true };
	struct vd_client_dma *dma;
	struct vd_client *c;
	int expected = ETIMEDOUT;
	int64_t before;

	for (unsigned int i = 10; i < NR; i++)
		must(mt_region_set_enabled(parts[i], false) == 0);
	c = start(&s, 300);
	before = vd__now_ms();
	must((dma = vd_client_dma_create(c, sp, &ops, &expected)) != NULL);
	ok(vd__now_ms() - before < 2000, "10 maps without answer are waited for "
	    "together");
	is_int(nr_failed, 10, "which is told of each");
	is_int(nr_odd, 0, "with the reason");
	is_int(held(&s), 10, "though the server has them");
	/* It answers this, but the machine may be busy. */
	vd_client_set_timeout(c, 5000);
	vd_client_dma_destroy(dma);
	is_int(held(&s), 0, "so they are taken back");
	stop(&s, c);
	show_all(true);
}

static void
test_gone(void)
{
	unsigned int bad = 0, after;

	for (after = 1; after < 2 * NR; after += 13) {
		struct server s = { .gone_after = after };
		struct vd_client_dma *dma;
		struct vd_client *c;
		int expected = 0;

		c = start(&s, 5000);
		dma = vd_client_dma_create(c, sp, &ops, &expected);
		must(dma != NULL);
		show_all(false);
		show_all(true);
		vd_client_dma_destroy(dma);
		bad += nr_failed + nr_unmap_failed != 0;
		bad += vd_client_check(c) != -1;
		vd_client_destroy(c);
		must(pthread_join(s.thread, NULL) == 0);
		bad += s.wrong != 0;
	}
	is_int(bad, 0, "a server that goes in the middle of it does no harm");
}

int
main(void)
{
	const struct mt_backing backing = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_KEEP_FD, .fd = v_memfd(PAGE) };
	unsigned int before = t_count_fds(), i;

	t = t_topology();
	root = t_container(t, "root", NR * 2 * PAGE);
	for (i = 0; i < NR; i++) {
		parts[i] = mt_region_create_ram(t, "part", PAGE - 1, &backing);
		must(parts[i] != NULL);
		must(mt_region_add(root, parts[i], AT(i), 0) == 0);
	}
	sp = t_space(root);
	before = t_count_fds();
	test_window();
	test_refused();
	test_silent();
	test_gone();
	is_int(t_count_fds(), before, "no descriptor is left");
	for (i = 0; i < NR; i++)
		mt_region_put(parts[i]);
	t_end_space(t, sp, root);
	close(backing.fd);
	return (done());
}
