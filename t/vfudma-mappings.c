/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * How many mappings peers can make a process have: what one client takes, what
 * is left for another, and for the program.
 */

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE		0x1000u

struct rig {
	struct v_dev dev;
	int fd;			/* the client's end */
	int mem;
};

static void
begin(struct rig *r)
{
	v_dev_create(&r->dev);
	r->fd = v_attach(r->dev.s);
	r->mem = v_memfd(2 * PAGE);
}

static void
end(struct rig *r)
{
	close(r->fd);
	close(r->mem);
	v_serve(r->dev.s, 0);
	v_dev_destroy(&r->dev);
}

/* Give page i, which continues neither neighbour; shared or by message. */
static int
map(struct rig *r, unsigned int i, bool shared)
{
	const struct vd_dma_map m = { 32, 3, shared && i % 2 != 0 ? PAGE : 0,
	    (uint64_t)i * PAGE, PAGE };
	struct v_reply reply;

	if (!v_call_fds(r->dev.s, r->fd, VD_CMD_DMA_MAP, &m, sizeof(m),
	    &r->mem, shared ? 1 : 0, &reply))
		return (-1);
	return (v_errno(&reply));
}

static int
unmap(struct rig *r, unsigned int i)
{
	const struct vd_dma_unmap m = { 24, 0, (uint64_t)i * PAGE, PAGE };
	struct v_reply reply;

	if (!v_call(r->dev.s, r->fd, VD_CMD_DMA_UNMAP, &m, sizeof(m), &reply))
		return (-1);
	return (v_errno(&reply));
}

/* Give pages until one is refused: how many were taken, and why no more. */
static unsigned int
fill(struct rig *r, unsigned int most, int *err)
{
	unsigned int n;

	for (n = 0; n < most && (*err = map(r, n, true)) == 0; n++)
		continue;
	return (n);
}

static void
set_regions(struct rig *r, uint32_t n)
{
	const struct vd_server_limits limits = { .max_dma_regions = n };

	must(vd_server_set_limits(r->dev.s, &limits) == 0);
}

static bool told;

static void
on_log(void *arg, int level, const char *msg)
{
	(void)arg, (void)level;
	told |= strstr(msg, "as much is mapped as may be") != NULL;
}

/* Two servers, and room for ten mappings in all. */
static void
test_shared(void)
{
	struct rig a, b;
	int err = 0;

	vd_mappings_set_max(10);
	v_dev_create(&a.dev);
	set_regions(&a, 100);
	vd_server_set_log(a.dev.s, on_log, NULL);
	a.fd = v_attach(a.dev.s);
	a.mem = v_memfd(2 * PAGE);
	begin(&b);
	is_int(map(&b, 0, true), 0, "one of ten mappings");
	is_int(fill(&a, 20, &err), 9, "another client gets the other nine");
	is_int(err, ENOSPC, "and no more");
	ok(told, "the log says why");
	is_int(map(&b, 1, true), ENOSPC, "nor does the first");
	is_int(map(&b, 1, false), 0, "without a descriptor it does");
	ok(vd_server_connected(a.dev.s) && vd_server_connected(b.dev.s),
	    "both stay");
	is_int(unmap(&a, 3), 0, "one is taken back");
	is_int(map(&b, 2, true), 0, "another client can have it");
	is_int(map(&a, 3, true), ENOSPC, "and the first has it no more");
	vd_mappings_set_max(11);
	is_int(map(&a, 3, true), 0, "the limit can be raised");
	vd_mappings_set_max(5);
	is_int(map(&a, 4, true), 0, "what is mapped is when it is lowered");
	is_int(map(&a, 50, true), ENOSPC, "and nothing else can be");
	end(&a);
	mt_topology_sync(b.dev.t);
	is_int(map(&b, 3, true), 0, "a client that leaves gives all back");
	end(&b);
	vd_mappings_set_max(0);
}

/* A thread's first read takes room of liburcu's, which ends the program without. */
static void *
read_first(void *arg)
{
	struct rig *r = arg;
	uint32_t val;

	mt_space_load_le32(vd_server_dma(r->dev.s), 0, &val);
	return (NULL);
}

/* By default one client leaves room for others, and all for the program. */
static void
test_default(void)
{
	struct rig a, b;
	pthread_t thread;
	unsigned int n;
	int err = 0;

	vd_mappings_set_max(8);
	begin(&a);
	is_int(fill(&a, 20, &err), 4, "a client has half of them by default");
	is_int(err, ENOSPC, "and no more");
	begin(&b);
	is_int(fill(&b, 20, &err), 4, "so another one has as many");
	end(&b);
	end(&a);
	vd_mappings_set_max(1);
	begin(&a);
	is_int(fill(&a, 20, &err), 1, "but at least one");
	end(&a);
	vd_mappings_set_max(0);
	n = vd__mappings_max();
	ok(n >= 16384, "a process has room for %u", n);
	if (T_ASAN || T_TSAN) {
		skip(3, "sanitizers take their time");
		return;
	}
	begin(&a);
	fill(&a, 65536, &err);
	is_int(err, ENOSPC, "a client takes as many as it gets");
	begin(&b);
	is_int(map(&b, 0, true), 0, "another client still gets some");
	ok(pthread_create(&thread, NULL, read_first, &a) == 0 &&
	    pthread_join(thread, NULL) == 0, "and the program a thread");
	end(&b);
	end(&a);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_shared();
	test_default();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
