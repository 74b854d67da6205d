/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What a server does for its client and its device, with its first, second,
 * ... allocation failing, until it makes no more: it works all the same, or it
 * fails with ENOMEM, leaves the device as it was, and works the next time.
 */

#include "t/vfu.h"
#include "t/oom.h"

#define SHARED		0x10000u	/* of the client's file */
#define UNEVEN		0x40123u	/* and of no page */
#define MESSAGE		0x80000u	/* without a file */
#define NOTHING		0xa0000u	/* not to be touched */
#define EXTRA		0xb0000u
#define HOOK		0x2000u		/* a register whose access is taken */

struct world {
	struct v_dev d;
	struct mt_region *hook;
	int fd;
	int mem;
	struct vd_request *taken;
	int take_errno;
	struct mt_access acc;
	uint8_t buf[256];
	unsigned int ended;
	enum mt_result res;
};

static enum mt_result
hook_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	struct world *w = arg;

	(void)off;
	(void)size;
	(void)val;
	(void)attrs;
	w->taken = vd_server_take(w->d.s);
	w->take_errno = errno;
	return (MT_OK);
}

static const struct mt_io_ops hook_ops = { .write = hook_write };

/* --- the client ---------------------------------------------------------- */

static int
call(struct world *w, uint16_t cmd, const void *payload, size_t len, int fd)
{
	struct v_reply r;

	if (!v_call_fds(w->d.s, w->fd, cmd, payload, len, &fd, fd != -1, &r))
		return (-1);
	return (v_errno(&r));
}

static int
map(struct world *w, uint64_t addr, uint32_t flags, uint64_t off, int fd)
{
	const struct vd_dma_map m = { 32, flags, off, addr, 0x1000 };

	return (call(w, VD_CMD_DMA_MAP, &m, sizeof(m), fd));
}

/* A REGION_WRITE of 2 bytes of config space: its length. */
static size_t
config_write(uint8_t *req, uint64_t off, uint16_t value)
{
	const struct vd_region_access a = { off, VD_REGION_CONFIG, 2 };

	memcpy(req, &a, sizeof(a));
	memcpy(req + sizeof(a), &value, 2);
	return (sizeof(a) + 2);
}

static int
set_command(struct world *w, uint16_t value)
{
	uint8_t req[18];
	size_t len = config_write(req, 4, value);

	return (call(w, VD_CMD_REGION_WRITE, req, len, -1));
}

/* Put the message that is to be tried into the socket. */
static void
send_map(struct world *w)
{
	const struct vd_dma_map m = { 32, 3, 0x8000, EXTRA, 0x1000 };

	must(v_send_fds(w->fd, 1, VD_CMD_DMA_MAP, VD_TYPE_COMMAND, &m,
	    sizeof(m), &w->mem, 1));
}

static void
send_map_message(struct world *w)
{
	const struct vd_dma_map m = { 32, 3, 0, EXTRA, 0x1000 };

	must(v_send(w->fd, 1, VD_CMD_DMA_MAP, &m, sizeof(m)));
}

static void
send_unmap(struct world *w)
{
	const struct vd_dma_unmap m = { 24, 0, SHARED, 0x1000 };

	must(v_send(w->fd, 1, VD_CMD_DMA_UNMAP, &m, sizeof(m)));
}

static void
send_unmap_all(struct world *w)
{
	const struct vd_dma_unmap m = { 24, VD_UNMAP_ALL, 0, 0 };

	must(v_send(w->fd, 1, VD_CMD_DMA_UNMAP, &m, sizeof(m)));
}

static void
send_reset(struct world *w)
{
	must(v_send(w->fd, 1, VD_CMD_DEVICE_RESET, NULL, 0));
}

static void
send_flr(struct world *w)
{
	uint8_t req[18], cap = (uint8_t)vd_pci_config_get(w->d.s, 0x34, 1);
	size_t len;

	while (vd_pci_config_get(w->d.s, cap, 1) != 0x10)
		cap = (uint8_t)vd_pci_config_get(w->d.s, cap + 1u, 1);
	len = config_write(req, cap + 8u, 0x8000);
	must(v_send(w->fd, 1, VD_CMD_REGION_WRITE, req, len));
}

static void
send_hook(struct world *w)
{
	const struct vd_region_access a = { HOOK, 0, 4 };
	uint8_t req[sizeof(a) + 4] = { 0 };

	memcpy(req, &a, sizeof(a));
	must(v_send(w->fd, 1, VD_CMD_REGION_WRITE, req, sizeof(req)));
}

/* --- the device ---------------------------------------------------------- */

static bool
readable_at(struct world *w, uint64_t addr)
{
	uint8_t byte;

	return (mt_space_read(vd_server_dma(w->d.s), addr, &byte, 1,
	    MT_ATTRS_NONE) == MT_OK);
}

/* What the device sees, without what it only could ask the client for. */
static void
look(struct world *w, char *text, size_t len)
{
	snprintf(text, len, "%d%d%d%d, %u resets, command %#x",
	    readable_at(w, SHARED), readable_at(w, UNEVEN),
	    readable_at(w, UNEVEN + 0xfff), readable_at(w, EXTRA),
	    w->d.resets[VD_RESET_DEVICE] + w->d.resets[VD_RESET_FLR],
	    vd_pci_config_get(w->d.s, 4, 2));
}

static void
ended(void *arg, enum mt_result res)
{
	struct world *w = arg;

	w->ended++;
	w->res = res;
}

static int
submit(struct world *w)
{
	return (mt_access_submit(vd_server_dma(w->d.s), &w->acc, MESSAGE,
	    w->buf, sizeof(w->buf), false, MT_ATTRS_NONE, ended, w));
}

static void
start(struct world *w)
{
	memset(w, 0, sizeof(*w));
	v_dev_create(&w->d);
	w->hook = t_not_null(mt_region_create_io(w->d.t, "hook", MT_SIZE(4),
	    &hook_ops, w), "hook");
	must(mt_region_add(w->d.bar0, w->hook, HOOK, 0) == 0);
	w->mem = v_memfd(1 << 20);
	w->fd = v_attach(w->d.s);
	must(set_command(w, 6) == 0);
	must(map(w, SHARED, 3, 0, w->mem) == 0);
	must(map(w, UNEVEN, 3, 0x4123, w->mem) == 0);
	must(map(w, MESSAGE, 3, 0, -1) == 0);
	must(map(w, NOTHING, 0, 0, -1) == 0);
}

static void
stop(struct world *w)
{
	if (w->taken != NULL)
		must(vd_request_finish(w->taken, 0, NULL, 0) == 0);
	close(w->fd);
	v_serve(w->d.s, 0);
	close(w->mem);
	mt_region_put(w->hook);
	must(v_dev_free(&w->d) == 0);
}

/* --- trying -------------------------------------------------------------- */

static const struct command {
	const char *name;
	void (*send)(struct world *w);
	bool resets;
	bool partial;			/* what does not fail may be done */
	const char *after;		/* what look() says; NULL: no matter */
} commands[] = {
	{ "DMA_MAP", send_map, false, false, "1111, 0 resets, command 0x6" },
	{ "DMA_MAP without a file", send_map_message, false, false,
	    NULL },
	{ "DMA_UNMAP", send_unmap, false, false,
	    "0110, 0 resets, command 0x6" },
	{ "DMA_UNMAP of all", send_unmap_all, false, true,
	    "0000, 0 resets, command 0x6" },
	{ "DEVICE_RESET", send_reset, true, false,
	    "1110, 1 resets, command 0x6" },
	{ "an FLR", send_flr, true, false, "1110, 1 resets, command 0x6" },
};

/* Serve one message with its n-th allocation failing. */
static int
serve(struct world *w, long n)
{
	int rv;

	hit = false;
	countdown = n;
	rv = vd_server_run(w->d.s);
	countdown = 0;
	return (rv);
}

/* The errno of the reply, or -1. */
static int
reply(struct world *w)
{
	struct v_reply r;

	if (!v_serve_until(w->d.s, w->fd) || !v_recv(w->fd, &r))
		return (-1);
	return (v_errno(&r));
}

/* Try it with its n-th allocation failing; false if it made fewer. */
static bool
try(const struct command *c, long n, unsigned int *bad, unsigned int *failures)
{
	char before[64], after[64];
	bool was_hit;
	struct world w;
	int err;

	start(&w);
	look(&w, before, sizeof(before));
	c->send(&w);
	err = serve(&w, n) == -1 ? -1 : reply(&w);
	was_hit = hit;
	if (err == ENOMEM) {
		++*failures;
		look(&w, after, sizeof(after));
		if (!was_hit || (!c->partial && strcmp(before, after) != 0)) {
			diag("%s, %ld: %s, was %s", c->name, n, after, before);
			++*bad;
		}
		c->send(&w);
		err = reply(&w);
	}
	if (err == 0 && c->resets)
		err = set_command(&w, 6);
	if (err != 0) {
		diag("%s, %ld: %s", c->name, n, err == -1 ? "dropped" :
		    strerror(err));
		++*bad;
	} else if (c->after != NULL) {
		look(&w, after, sizeof(after));
		if (strcmp(after, c->after) != 0) {
			diag("%s, %ld: %s", c->name, n, after);
			++*bad;
		}
	}
	stop(&w);
	return (was_hit);
}

static void
test_command(const struct command *c)
{
	unsigned int bad = 0, failures = 0;
	long n = 1;

	while (n < 500 && try(c, n, &bad, &failures))
		n++;
	ok(n > 1 && n < 500, "%s makes %ld allocations", c->name, n - 1);
	ok(failures > 0, "the client hears of it if one fails");
	is_int(bad, 0, "and can ask again, of a device %s", c->partial ?
	    "with what is left" : "as it was");
}

/* An access that cannot be taken is answered at once. */
static void
test_take(void)
{
	struct world w;

	start(&w);
	send_hook(&w);
	is_int(serve(&w, 1), 1, "a register is written without memory");
	ok(hit && w.taken == NULL && w.take_errno == ENOMEM,
	    "the access is not taken");
	is_int(reply(&w), 0, "and answered");
	send_hook(&w);
	is_int(serve(&w, 2), 1, "with memory");
	ok(!hit && w.taken != NULL, "it is taken");
	hit = false;
	countdown = 1;
	works(vd_request_finish(w.taken, 0, NULL, 0), "and finished without");
	countdown = 0;
	w.taken = NULL;
	is_int(reply(&w), 0, "which the client hears");
	stop(&w);
}

/* Returns whether an allocation failed; *res is MT_DEVICE if the access did. */
static bool
try_submit(long n, bool *failed)
{
	struct world w;
	bool was_hit, done;
	int rv;

	start(&w);
	hit = false;
	countdown = n;
	rv = submit(&w);
	countdown = 0;
	was_hit = hit;
	done = w.ended > 0;
	*failed = rv == -1 || (done && w.res == MT_DEVICE);
	if (rv == 0 && !done)
		must(mt_access_cancel(&w.acc) && w.ended == 0);
	else
		must(w.ended == (rv == 0));
	/* And again, with memory. */
	w.ended = 0;
	must(submit(&w) == 0 && w.ended == 0);
	must(mt_access_cancel(&w.acc) && w.ended == 0);
	must(mt_access_drain(vd_server_dma(w.d.s)) == 0);
	stop(&w);
	return (was_hit);
}

static void
test_submit(void)
{
	bool failed, right = true, was_hit;
	long n = 0;

	do {
		was_hit = try_submit(++n, &failed);
		right = right && failed == was_hit;
	} while (was_hit && n < 100);
	ok(n > 1 && n < 100, "a DMA_READ makes %ld allocations", n - 1);
	ok(right, "with each of them failing the access fails, and no other");
}

int
main(void)
{
	size_t i;

	if (T_ASAN || T_TSAN)
		skip_all("a sanitizer has an allocator of its own");
	for (i = 0; i < T_COUNT(commands); i++)
		test_command(&commands[i]);
	test_take();
	test_submit();
	return (done());
}
