/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server makes the file of a BAR shorter that its client has mapped: that
 * client loses this server, and nothing else.
 */

#include <stdatomic.h>

#include "t/script.h"

#define BAR_LEN		(2 * PAGE)
#define SMALL_LEN	256u		/* of BAR 2 */

/* A server of two BARs that can be mapped, from the same file. */
struct server {
	struct script *s;
	int mem;
	_Atomic(bool) ended;
};

static bool
answer_region(struct script *s, int mem)
{
	struct vd_region_info info = { .argsz = sizeof(info) };
	uint8_t buf[16 + sizeof(info)];
	struct vd_hdr hdr = reply_to(s, sizeof(info));

	memcpy(&info.index, s->in + 8, sizeof(info.index));
	if (info.index == VD_REGION_BAR0)
		info.size = BAR_LEN;
	else if (info.index == VD_REGION_BAR0 + 2)
		info.size = SMALL_LEN;
	else if (info.index == VD_REGION_CONFIG)
		info.size = 256;
	if (info.size != 0)
		info.flags = VD_REGION_READABLE | VD_REGION_WRITABLE;
	if (info.index < VD_REGION_CONFIG && info.size != 0)
		info.flags |= VD_REGION_MAPPABLE;
	memcpy(buf, &hdr, sizeof(hdr));
	memcpy(buf + sizeof(hdr), &info, sizeof(info));
	return (v_send_raw(s->fd, buf, sizeof(buf), &mem,
	    (info.flags & VD_REGION_MAPPABLE) != 0 ? 1 : 0));
}

static bool
answer_irq(struct script *s)
{
	struct vd_irq_info info = { .argsz = sizeof(info) };

	memcpy(&info.index, s->in + 8, sizeof(info.index));
	return (answer(s, &info, sizeof(info), 0));
}

static bool
answer_one(struct script *s, int mem)
{
	switch (s->hdr.cmd) {
	case VD_CMD_DEVICE_GET_REGION_INFO:
		return (answer_region(s, mem));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		return (answer_irq(s));
	default:
		return (answer_well(s));
	}
}

static void
serve_bars(struct script *s)
{
	struct server *v = (struct server *)(uintptr_t)s->arg;

	while (get(s) && answer_one(s, v->mem))
		continue;
	atomic_store(&v->ended, true);
}

static struct server *
server_new(uint8_t val)
{
	struct server *v = calloc(1, sizeof(*v));
	uint8_t buf[BAR_LEN];

	must(v != NULL);
	v->mem = v_memfd(BAR_LEN);
	memset(buf, val, sizeof(buf));
	must(pwrite(v->mem, buf, sizeof(buf), 0) == BAR_LEN);
	v->s = script_new(serve_bars, v);
	return (v);
}

/* Without a client, which may have another server by now. */
static void
server_end(struct server *v)
{
	shutdown(v->s->fd, SHUT_RDWR);
	must(pthread_join(v->s->thread, NULL) == 0);
	close(v->s->fd);
	close(v->mem);
	free(v->s);
	free(v);
}

static bool
has_ended(struct server *v)
{
	for (int i = 0; i < 5000 && !atomic_load(&v->ended); i++)
		usleep(1000);
	return (atomic_load(&v->ended));
}

/* A client whose device's BARs are in a memory tree. */
struct machine {
	struct mt_topology *t;
	struct mt_region *root, *bar0, *bar2;
	struct mt_space *sp;
	struct vd_client *c;
	unsigned int lost;
	int error;
};

static void
on_lost(void *arg, int error)
{
	struct machine *m = arg;

	m->lost++;
	m->error = error;
}

static void
machine_start(struct machine *m, struct server *v)
{
	memset(m, 0, sizeof(*m));
	m->c = script_connect(v->s);
	must((m->t = mt_topology_create()) != NULL);
	m->root = mt_region_create_container(m->t, "root", MT_LAST_MAX);
	must(m->root != NULL);
	must((m->sp = mt_space_create(m->root, "bus")) != NULL);
	must(vd_client_set_lost(m->c, on_lost, m) == 0);
	m->bar0 = vd_client_region_create(m->c, m->t, 0, "bar0", 0);
	m->bar2 = vd_client_region_create(m->c, m->t, 2, "bar2", 0);
	must(m->bar0 != NULL && m->bar2 != NULL);
	must(mt_region_add(m->root, m->bar0, 0, 0) == 0 &&
	    mt_region_add(m->root, m->bar2, 0x10000, 0) == 0);
	must(vd_client_watch_pages(m->c, m->sp) == 0);
}

static void
machine_end(struct machine *m)
{
	vd_client_destroy(m->c);
	must(mt_region_del(m->bar0) == 0 && mt_region_del(m->bar2) == 0);
	mt_region_put(m->bar0);
	mt_region_put(m->bar2);
	mt_space_destroy(m->sp);
	mt_region_put(m->root);
	works(mt_topology_destroy(m->t), "everything has been given back");
}

static uint64_t
load(struct mt_space *sp, mt_addr addr)
{
	uint32_t val;

	return (mt_space_load_le32(sp, addr, &val) == MT_OK ? val :
	    UINT64_MAX);
}

/* Touching it where, after its file is as long as that. */
static void
test_lost(mt_addr where, off_t left, const char *name)
{
	struct server *v = server_new(0x11), *w = server_new(0x22);
	struct pollfd pfd = { .events = POLLIN };
	struct machine m, n;
	int fds[VD_CLIENT_FDS];

	machine_start(&m, v);
	machine_start(&n, w);
	is_hex(load(m.sp, where), 0x11111111, "%s: a BAR is mapped", name);
	must(vd_client_fds(m.c, fds) == 1);
	pfd.fd = fds[0];
	must(poll(&pfd, 1, 0) == 0);
	must(ftruncate(v->mem, left) == 0);
	works(vd_client_check(m.c), "%s: a file is shorter", name);
	is_hex(load(m.sp, where), 0, "%s: what was there is 0", name);
	is_int(poll(&pfd, 1, 0), 1, "%s: it is known who to blame", name);
	ok(has_ended(v), "%s: the server hears the end", name);
	is_int(m.lost, 0, "%s: the owner does not hear before it asks", name);
	fails(vd_client_check(m.c), ENOTCONN, "%s: the client has lost it",
	    name);
	ok(m.lost == 1 && m.error == ENOTCONN, "%s: which the owner is told",
	    name);
	is_int(mt_space_store_le32(m.sp, where, 5), MT_OK,
	    "%s: a store is no worse", name);
	ok(n.lost == 0 && vd_client_check(n.c) == 0 &&
	    load(n.sp, where) == 0x22222222, "%s: another client is well",
	    name);
	machine_end(&m);
	machine_end(&n);
	server_end(v);
	server_end(w);
}

/* The first server's memory is touched when there is another one. */
static void
test_late(void)
{
	struct server *v = server_new(0x11), *w = server_new(0x22);
	struct mt_section sec;
	struct mt_space *old;
	struct machine m;
	int sv[2];

	machine_start(&m, v);
	must(mt_space_find(m.sp, (struct mt_range){ 0, 3 }, &sec) == 0);
	must((old = mt_space_create(sec.region, "old")) != NULL);
	mt_region_put(sec.region);
	is_hex(load(old, 0), 0x11111111, "the first server's BAR");

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	w->s->fd = sv[1];
	must(pthread_create(&w->s->thread, NULL, script_thread, w->s) == 0);
	works(vd_client_reconnect(m.c, sv[0]), "there is another server");
	is_hex(load(m.sp, 0), 0x22222222, "and its BAR");

	must(ftruncate(v->mem, 0) == 0);
	is_hex(load(old, 0), 0, "the first one's is gone");
	ok(vd_client_check(m.c) == 0 && m.lost == 0, "the second one stays");
	must(ftruncate(w->mem, 0) == 0);
	is_hex(load(m.sp, 0), 0, "until it does the same");
	fails(vd_client_check(m.c), ENOTCONN, "and is lost for it");
	is_int(m.lost, 1, "as is told");
	mt_space_destroy(old);
	machine_end(&m);
	server_end(v);
	server_end(w);
}

/* What cannot be mapped as there is too much already goes by message. */
static void
test_limit(void)
{
	struct server *v = server_new(0x11);
	struct machine m;

	vd_mappings_set_max(1);
	machine_start(&m, v);
	is_hex(load(m.sp, 0), 0x11111111, "one BAR may be mapped");
	is_hex(load(m.sp, 0x10004), 0x07060504, "the other goes by message");
	machine_end(&m);
	server_end(v);
	vd_mappings_set_max(0);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	must(vd_sigbus_protect() == 0);
	test_lost(0, 0, "all of it");
	test_lost(PAGE + 4, PAGE, "its second page");
	test_lost(0x10000, 0, "one smaller than a page");
	test_late();
	test_limit();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
