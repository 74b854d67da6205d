/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_EXAMPLE_NVME_RELAY_H
#define T_EXAMPLE_NVME_RELAY_H

/*
 * A host whose memory examples/nvme cannot map.  What it is asked for, and
 * answers, goes through a relay, which counts, keeps messages back, answers
 * some with errors, and hangs up.
 */

#include <sys/eventfd.h>

#include "t/example-nvme.h"
#include "t/vfu.h"

/* --- the relay ------------------------------------------------------------ */

/* What becomes of DMA in its range. */
enum manner {
	PASS,
	HOLD,		/* until there are enough, then the last first */
	FAIL,
	SWALLOW,	/* no answer ever */
};

struct held {
	uint8_t *msg;
	size_t len;
};

struct relay {
	int server;			/* its sockets */
	int client;
	int other;			/* of the client's socket: lent to it */
	int kick;			/* let go of what is held */
	pthread_t thread;
	_Atomic(int) manner;
	_Atomic(uint32_t) error;	/* FAIL */
	_Atomic(uint64_t) first;	/* the range */
	_Atomic(uint64_t) last;
	_Atomic(unsigned int) want;	/* HOLD: enough */
	_Atomic(unsigned int) nheld;
	_Atomic(unsigned int) most;	/* held at once */
	_Atomic(unsigned int) reads;	/* DMA_READs in the range */
	_Atomic(unsigned int) writes;
	struct held held[256];
	struct host *h;
	struct mt_topology *t;
	struct mt_region *root;
	struct mt_space *space;
};

/* A whole message, or NULL at the end. */
static T_UNUSED uint8_t *
get_message(int fd, size_t *len)
{
	struct vd_hdr hdr;
	uint8_t *msg;

	if (!v_get(fd, &hdr, sizeof(hdr)))
		return (NULL);
	must(hdr.size >= sizeof(hdr) && hdr.size <= 4u << 20);
	must((msg = malloc(hdr.size)) != NULL);
	memcpy(msg, &hdr, sizeof(hdr));
	*len = hdr.size;
	if (v_get(fd, msg + sizeof(hdr), hdr.size - sizeof(hdr)))
		return (msg);
	free(msg);
	return (NULL);
}

/* Nobody there is no error: the other side will find out. */
static T_UNUSED void
put_message(int fd, uint8_t *msg, size_t len)
{
	(void)v_send_raw(fd, msg, len, NULL, 0);
	free(msg);
}

static T_UNUSED void
let_go(struct relay *r)
{
	unsigned int n = r->nheld;

	while (n-- > 0)
		put_message(r->client, r->held[n].msg, r->held[n].len);
	r->nheld = 0;
}

/* A command of the server's. */
static T_UNUSED void
ask(struct relay *r, uint8_t *msg, size_t len)
{
	struct vd_dma_access a;
	struct vd_hdr hdr;

	memcpy(&hdr, msg, sizeof(hdr));
	must(hdr.cmd == VD_CMD_DMA_READ || hdr.cmd == VD_CMD_DMA_WRITE);
	memcpy(&a, msg + sizeof(hdr), sizeof(a));
	if (a.addr > r->last || a.addr + (a.count - 1) < r->first) {
		put_message(r->client, msg, len);
		return;
	}
	if (hdr.cmd == VD_CMD_DMA_READ)
		r->reads++;
	else
		r->writes++;
	switch (r->manner) {
	case FAIL:
		hdr.flags = VD_TYPE_REPLY | VD_ERROR;
		hdr.error = r->error;
		hdr.size = sizeof(hdr);
		memcpy(msg, &hdr, sizeof(hdr));
		put_message(r->server, msg, sizeof(hdr));
		break;
	case SWALLOW:
		free(msg);
		break;
	case HOLD:
		must(r->nheld < T_COUNT(r->held));
		r->held[r->nheld++] = (struct held){ msg, len };
		if (r->nheld > r->most)
			r->most = r->nheld;
		if (r->nheld < r->want)
			break;
		r->manner = PASS;
		let_go(r);
		break;
	default:
		put_message(r->client, msg, len);
	}
}

static T_UNUSED void *
relay(void *arg)
{
	struct relay *r = arg;
	struct pollfd pfd[] = {
		{ .fd = r->server, .events = POLLIN },
		{ .fd = r->client, .events = POLLIN },
		{ .fd = r->kick, .events = POLLIN },
	};
	struct vd_hdr hdr;
	uint64_t n;
	uint8_t *msg;
	size_t len;

	for (;;) {
		must(poll(pfd, 3, -1) > 0);
		if (pfd[2].revents != 0) {
			must(read(r->kick, &n, sizeof(n)) == sizeof(n));
			let_go(r);
		}
		if (pfd[1].revents != 0) {
			if ((msg = get_message(r->client, &len)) == NULL)
				break;
			put_message(r->server, msg, len);
		}
		if (pfd[0].revents != 0) {
			if ((msg = get_message(r->server, &len)) == NULL)
				break;
			memcpy(&hdr, msg, sizeof(hdr));
			if ((hdr.flags & VD_TYPE_MASK) == VD_TYPE_REPLY)
				put_message(r->client, msg, len);
			else
				ask(r, msg, len);
		}
	}
	shutdown(r->server, SHUT_RDWR);
	shutdown(r->client, SHUT_RDWR);
	while (r->nheld > 0)
		free(r->held[--r->nheld].msg);
	return (NULL);
}

static T_UNUSED void
set_range(struct relay *r, size_t off, size_t len)
{
	r->first = IOVA + off;
	r->last = IOVA + off + (len - 1);
	r->reads = r->writes = r->most = 0;
}

/* Keep DMA in the range back until there are want, or it is released. */
static T_UNUSED void
hold(struct relay *r, size_t off, size_t len, unsigned int want)
{
	set_range(r, off, len);
	r->want = want;
	r->manner = HOLD;
}

static T_UNUSED void
release(struct relay *r)
{
	const uint64_t one = 1;

	r->manner = PASS;
	must(write(r->kick, &one, sizeof(one)) == sizeof(one));
}

static T_UNUSED bool
wait_held(const struct relay *r, unsigned int n)
{
	int64_t end = t_now_ms() + 10000;

	while (r->nheld < n && t_now_ms() < end) {
		if (r->h->serves && vd_client_run(r->h->client) == -1)
			return (false);
		usleep(100);
	}
	return (r->nheld >= n);
}

/* --- a host with private memory ------------------------------------------- */

static T_UNUSED void
make_memory(struct relay *r)
{
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	struct mt_region *ram;

	backing.ptr = r->h->mem;
	must((r->t = mt_topology_create()) != NULL);
	r->root = mt_region_create_container(r->t, "host", MT_LAST_MAX);
	ram = mt_region_create_ram(r->t, "memory", MT_SIZE(MEM_SIZE),
	    &backing);
	must(r->root != NULL && ram != NULL);
	must(mt_region_add(r->root, ram, IOVA, 0) == 0);
	mt_region_put(ram);
	must((r->space = mt_space_create(r->root, "host")) != NULL);
}

/* Connect by way of the relay, and give the device memory without a file. */
static T_UNUSED void
join(struct relay *r, struct host *h)
{
	const struct vd_client_options opt = { .no_twin = true };
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int sv[2];

	memset(r, 0, sizeof(*r));
	r->h = h;
	must(strlen(h->path) < sizeof(sun.sun_path));
	memcpy(sun.sun_path, h->path, strlen(h->path) + 1);
	r->server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(r->server != -1);
	must(connect(r->server, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	r->client = sv[0];
	must((r->kick = eventfd(0, EFD_CLOEXEC)) != -1);
	set_range(r, 0, MEM_SIZE);
	must(pthread_create(&r->thread, NULL, relay, r) == 0);
	must((h->client = vd_client_attach_with(sv[1], &opt)) != NULL);
	if (h->mem == NULL) {
		h->mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(h->mem != MAP_FAILED);
	}
	make_memory(r);
	vd_client_set_dma(h->client, r->space);
	h->serves = true;
	host_map(h);			/* without memfd */
	config_set(h, 4, 0x0406);	/* memory, bus master, no INTx */
}

/* Have the host gone, whatever it was doing. */
static T_UNUSED void
leave(struct relay *r)
{
	shutdown(r->client, SHUT_RDWR);
	must(pthread_join(r->thread, NULL) == 0);
	vd_client_destroy(r->h->client);
	r->h->client = NULL;
	close(r->server);
	close(r->client);
	close(r->kick);
	must(mt_space_destroy(r->space) == 0);
	mt_region_put(r->root);
	must(mt_topology_destroy(r->t) == 0);
}

/* Everything until there is one I/O pair. */
static T_UNUSED void
ready(struct relay *r, struct host *h)
{
	join(r, h);
	must(host_enable(h));
	must(create_pair(h, 1, 256));
}

#endif
