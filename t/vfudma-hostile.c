/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A client that means harm: commands cut short, too long, with absurd fields
 * and descriptors.  The server answers each, or ends that connection; it leaks
 * nothing, and serves the next.  T_SEED repeats a run, T_ROUNDS makes it long.
 */

#include <sys/eventfd.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

static struct v_dev dev;
static int fd = -1;
static int kinds[8];			/* descriptors to send along */
static unsigned int answered, refused, closed, strange;
static uint64_t seed;

/* A request that works; what the tests spoil. */
struct sample {
	uint16_t cmd;
	const char *name;
	size_t len;
	uint8_t payload[128];
};

static struct sample samples[24];
static size_t nsamples;

static void
add(uint16_t cmd, const char *name, const void *payload, size_t len)
{
	struct sample *s = &samples[nsamples++];

	s->cmd = cmd;
	s->name = name;
	s->len = len;
	if (len > 0)
		memcpy(s->payload, payload, len);
}

static void
make_samples(void)
{
	const struct vd_dma_map map = { 32, 3, 0, 0x10000, 0x1000 };
	const struct vd_dma_unmap unmap = { 24, 0, 0x10000, 0x1000 };
	const struct vd_device_info di = { .argsz = 16 };
	const struct vd_region_info ri = { .argsz = 64 };
	const struct vd_region_io_fds io = { .argsz = 16 };
	const struct vd_irq_info ii = { .argsz = 16, .index = 2 };
	const struct vd_irq_set on = { 20, 0x24, 2, 0, 1 };
	struct { struct vd_irq_set s; uint8_t b[8]; } bools =
	    { { 28, 0x22, 2, 0, 8 }, { 1, 1, 0, 1 } };
	const struct vd_region_access rd = { 0x10, 0, 8 };
	const struct vd_region_access cfg = { 0, 7, 4096 };
	struct { struct vd_region_access a; uint8_t b[8]; } wr =
	    { { 0x1000, 0, 8 }, { 1 } }, wrcfg = { { 4, 7, 8 }, { 6 } };
	struct { struct vd_write_multi m; struct vd_write_one w[2]; } multi =
	    { { 2 }, { { 0x1000, 0, 8, { 1 } }, { 4, 7, 2, { 6 } } } };
	const uint64_t dma[2] = { 0x1000, 64 };
	const struct vd_feature feature = { 64, 1u << 16 | 1 };

	add(VD_CMD_VERSION, "VERSION", "\0\0\1\0{}", 7);
	add(VD_CMD_DMA_MAP, "DMA_MAP", &map, sizeof(map));
	add(VD_CMD_DMA_UNMAP, "DMA_UNMAP", &unmap, sizeof(unmap));
	add(VD_CMD_DEVICE_GET_INFO, "GET_INFO", &di, sizeof(di));
	add(VD_CMD_DEVICE_GET_REGION_INFO, "REGION_INFO", &ri, sizeof(ri));
	add(VD_CMD_DEVICE_GET_REGION_IO_FDS, "IO_FDS", &io, sizeof(io));
	add(VD_CMD_DEVICE_GET_IRQ_INFO, "IRQ_INFO", &ii, sizeof(ii));
	add(VD_CMD_DEVICE_SET_IRQS, "SET_IRQS", &on, sizeof(on));
	add(VD_CMD_DEVICE_SET_IRQS, "SET_IRQS with bytes", &bools, 28);
	add(VD_CMD_REGION_READ, "REGION_READ", &rd, sizeof(rd));
	add(VD_CMD_REGION_READ, "REGION_READ of config", &cfg, sizeof(cfg));
	add(VD_CMD_REGION_WRITE, "REGION_WRITE", &wr, 24);
	add(VD_CMD_REGION_WRITE, "REGION_WRITE of config", &wrcfg, 24);
	add(VD_CMD_DMA_READ, "DMA_READ", dma, 16);
	add(VD_CMD_DMA_WRITE, "DMA_WRITE", dma, 16);
	add(VD_CMD_DEVICE_RESET, "DEVICE_RESET", NULL, 0);
	add(14, "DIRTY_PAGES", dma, 16);
	add(VD_CMD_REGION_WRITE_MULTI, "WRITE_MULTI", &multi, 56);
	add(VD_CMD_DEVICE_FEATURE, "DEVICE_FEATURE", &feature, 8);
	add(VD_CMD_MIG_DATA_READ, "MIG_DATA_READ", dma, 8);
	add(VD_CMD_MIG_DATA_WRITE, "MIG_DATA_WRITE", dma, 16);
	add(99, "command 99", dma, 16);
}

static void
make_kinds(void)
{
	int p[2], full[2];

	must(pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0);
	must(pipe2(full, O_CLOEXEC | O_NONBLOCK) == 0);
	while (write(full[1], p, sizeof(p)) > 0)
		continue;
	close(p[0]);			/* p[1]: a pipe without a reader */
	close(full[0]);
	kinds[0] = t_eventfd();
	kinds[1] = p[1];
	kinds[2] = full[1];
	kinds[3] = v_memfd(1 << 16);
	must((kinds[4] = open("/", O_RDONLY | O_CLOEXEC)) != -1);
	must((kinds[5] = open("/dev/zero", O_RDWR | O_CLOEXEC)) != -1);
	must((kinds[6] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) !=
	    -1);
	must((kinds[7] = eventfd(0, EFD_CLOEXEC)) != -1);
}

/* Have a client that is served; a new one if the last was dropped. */
static void
need_client(void)
{
	if (fd != -1 && vd_server_connected(dev.s))
		return;
	if (fd != -1)
		close(fd);
	fd = v_attach(dev.s);
}

/*
 * Send len bytes of a message in pieces: descriptors go with the byte at.
 * Then see what the server makes of it.
 */
static void
attack(const uint8_t *buf, size_t len, const int *fds, size_t nfds, size_t at)
{
	struct vd_hdr h;
	struct v_reply r;

	if (at > 0 && at < len) {
		if (!v_send_raw(fd, buf, at, NULL, 0))
			return;
		v_serve(dev.s, 0);
		v_send_raw(fd, buf + at, len - at, fds, nfds);
	} else
		v_send_raw(fd, buf, len, fds, nfds);
	memcpy(&h, buf, sizeof(h));
	if (h.flags & VD_NO_REPLY) {
		v_serve(dev.s, 0);
		strange += v_readable(fd, 0) && vd_server_connected(dev.s);
		return;
	}
	if (!v_serve_until(dev.s, fd)) {
		strange++;
		diag("no answer to command %u of %zu bytes", h.cmd, len);
		return;
	}
	if (!v_recv(fd, &r)) {
		closed++;
		v_serve(dev.s, 0);
		return;
	}
	v_close_fds(&r);
	if (r.hdr.id != h.id || r.hdr.cmd != h.cmd || v_errno(&r) == -1) {
		strange++;
		diag("odd answer to command %u of %zu bytes", h.cmd, len);
	} else if (v_errno(&r) != 0)
		refused++;
	else
		answered++;
}

static void
attack_with(const struct sample *s, const uint8_t *payload, size_t len)
{
	static uint8_t buf[200000];
	static uint16_t id;

	need_client();
	v_build(buf, id++ & 3, s->cmd, VD_TYPE_COMMAND, payload, len);
	attack(buf, sizeof(struct vd_hdr) + len, NULL, 0, 0);
}

static void
start_counting(void)
{
	answered = refused = closed = strange = 0;
}

static void
test_lengths(void)
{
	static const size_t more[] = { 1, 3, 16, 4000, 150000 };
	static uint8_t payload[160000];
	const struct sample *s;
	size_t i, j;

	for (i = 0; i < nsamples; i++) {
		s = &samples[i];
		start_counting();
		for (j = 0; j <= s->len; j++)
			attack_with(s, s->payload, j);
		memset(payload, 0, sizeof(payload));
		memcpy(payload, s->payload, s->len);
		for (j = 0; j < T_COUNT(more); j++)
			attack_with(s, payload, s->len + more[j]);
		memset(payload + s->len, 0xff, sizeof(payload) - s->len);
		for (j = 0; j < T_COUNT(more); j++)
			attack_with(s, payload, s->len + more[j]);
		is_int(strange, 0, "%s at any length (%u answered, %u "
		    "refused, %u closed)", s->name, answered, refused,
		    closed);
	}
}

static void
test_fields(void)
{
	static const uint64_t values[] = { 0, 1, 2, 3, 7, 8, 9, 15, 16, 31,
	    32, 63, 64, 255, 256, 4095, 4096, 4097, 0xffff, 0x10000, 1 << 20,
	    (1 << 20) + 1, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff,
	    0x100000000, INT64_MAX, 1ull << 63, UINT64_MAX - 4095,
	    UINT64_MAX - 1, UINT64_MAX };
	uint8_t payload[128];
	const struct sample *s;
	size_t i, j, k, width;

	for (i = 0; i < nsamples; i++) {
		s = &samples[i];
		start_counting();
		for (width = 1; width <= 8; width *= 2) {
			for (j = 0; j + width <= s->len; j += width) {
				for (k = 0; k < T_COUNT(values); k++) {
					memcpy(payload, s->payload, s->len);
					memcpy(payload + j, &values[k], width);
					attack_with(s, payload, s->len);
				}
			}
		}
		is_int(strange, 0, "%s with absurd fields (%u answered, %u "
		    "refused, %u closed)", s->name, answered, refused,
		    closed);
	}
}

static void
test_descriptors(void)
{
	static const size_t counts[] = { 1, 2, 8, 15, 16, 17, 40, 63 };
	uint8_t buf[256];
	int fds[64];
	size_t i, j, k, len;

	for (i = 0; i < nsamples; i++) {
		start_counting();
		for (j = 0; j < T_COUNT(counts) * T_COUNT(kinds); j++) {
			for (k = 0; k < 64; k++)
				fds[k] = kinds[j % T_COUNT(kinds)];
			len = v_build(buf, 1, samples[i].cmd, 0,
			    samples[i].payload, samples[i].len);
			need_client();
			attack(buf, len, fds, counts[j / T_COUNT(kinds)], 0);
			need_client();
			attack(buf, len, fds, counts[j / T_COUNT(kinds)],
			    j % len);
		}
		is_int(strange, 0, "%s with descriptors (%u answered, %u "
		    "refused, %u closed)", samples[i].name, answered, refused,
		    closed);
	}
}

static uint64_t
rnd(void)
{
	return (t_random(&seed));
}

/* A number of the kind that finds faults. */
static uint64_t
rnd_value(void)
{
	static const uint64_t near[] = { 0, 8, 16, 32, 64, 256, 4096, 0x4000,
	    1 << 20, 1ull << 32, 1ull << 63 };

	switch (rnd() % 3) {
	case 0:
		return (rnd());
	case 1:
		return (rnd() % 64);
	}
	return (near[rnd() % T_COUNT(near)] + rnd() % 5 - 2);
}

static void
test_random(void)
{
	uint64_t n = t_env("T_ROUNDS", 6000);
	uint8_t buf[512], payload[256];
	const struct sample *s;
	int fds[64];
	size_t len, nfds, i, width;
	uint32_t flags;
	uint64_t v;

	start_counting();
	for (; n > 0; n--) {
		s = &samples[rnd() % nsamples];
		memset(payload, 0, sizeof(payload));
		memcpy(payload, s->payload, s->len);
		len = s->len;
		for (i = rnd() % 4; i > 0 && len > 0; i--) {
			width = (size_t)1 << rnd() % 4;
			v = rnd_value();
			memcpy(payload + rnd() % len / width * width, &v,
			    width);
		}
		if (rnd() % 8 == 0)
			len = rnd() % sizeof(payload);
		flags = rnd() % 16 == 0 ? (uint32_t)rnd() & 0x3f :
		    rnd() % 8 == 0 ? VD_NO_REPLY : 0;
		nfds = rnd() % 4 == 0 ? rnd() % 20 : rnd() % 2;
		for (i = 0; i < nfds; i++)
			fds[i] = kinds[rnd() % T_COUNT(kinds)];
		len = v_build(buf, (uint16_t)rnd(), s->cmd, flags, payload,
		    len);
		need_client();
		attack(buf, len, fds, nfds, rnd() % 4 == 0 ? rnd() % len : 0);
	}
	is_int(strange, 0, "random commands (%u answered, %u refused, %u "
	    "closed)", answered, refused, closed);
}

/* Streams that end or lose their way, with descriptors under way. */
static void
test_streams(void)
{
	struct vd_hdr h;
	uint8_t buf[256];
	int fds[64], i;
	unsigned int served = 0;

	for (i = 0; i < 64; i++)
		fds[i] = kinds[i % 8];
	for (i = 0; i < 300; i++) {
		need_client();
		h.id = (uint16_t)i;
		h.cmd = (uint16_t)(rnd() % 20);
		h.size = (uint32_t)(i % 3 == 0 ? rnd_value() : rnd() % 64);
		h.flags = (uint32_t)(i % 5 == 0 ? rnd() : 0);
		h.error = (uint32_t)rnd();
		memset(buf, (int)rnd(), sizeof(buf));
		memcpy(buf, &h, sizeof(h));
		v_send_raw(fd, buf, 1 + rnd() % sizeof(buf), fds, rnd() % 64);
		if (i % 2 == 0) {
			v_serve(dev.s, 0);
			v_send_raw(fd, buf, 1 + rnd() % 16, fds, 3);
		}
		close(fd);
		fd = -1;
		v_serve(dev.s, 0);
		served += !vd_server_connected(dev.s);
	}
	is_int(served, 300, "300 broken streams end");
}

/* Hostile answers to the first message, and none. */
static void
test_version(void)
{
	static const char *texts[] = { "", "{", "[[[[[[[[", "{\"capabilities\":"
	    "{\"max_data_xfer_size\":0}}", "{\"capabilities\":"
	    "{\"max_msg_fds\":-1}}", "\xff\xfe", "{\"capabilities\":7}" };
	uint8_t *payload = calloc(1, 1 << 20);
	struct v_reply r;
	unsigned int good = 0;
	size_t i;
	int sv[2];

	must(payload != NULL);
	if (fd != -1)
		close(fd);
	v_serve(dev.s, 0);
	for (i = 0; i < T_COUNT(texts) + 4; i++) {
		size_t len = 5;

		memset(payload, i == 8 ? '[' : ' ', 1 << 20);
		memset(payload, 0, 4);
		if (i < T_COUNT(texts)) {
			strcpy((char *)payload + 4, texts[i]);
			len = 5 + strlen(texts[i]);
		} else if (i < 10)
			len = i == 7 ? 1 << 20 : 8000;
		else
			payload[0] = 1;		/* another major */
		if (i == 8)
			payload[len - 1] = '\0';
		must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) ==
		    0);
		must(fcntl(sv[0], F_SETFL, O_NONBLOCK) == 0);
		must(vd_server_attach(dev.s, sv[1]) == 0);
		struct vd_hdr h = { 0, 1, (uint32_t)(16 + len), 0, 0 };
		must(send(sv[0], &h, 16, MSG_NOSIGNAL) == 16);
		for (size_t at = 0; at < len;) {
			ssize_t n = send(sv[0], payload + at, len - at,
			    MSG_NOSIGNAL);

			if (n > 0)
				at += (size_t)n;
			vd_server_run(dev.s);
		}
		v_serve(dev.s, 0);
		good += v_recv(sv[0], &r) && v_errno(&r) == EINVAL &&
		    !vd_server_connected(dev.s);
		close(sv[0]);
	}
	is_int(good, T_COUNT(texts) + 4, "bad VERSIONs are refused");
	fd = -1;
	free(payload);
}

/* What a server opens for the first eventfd it keeps for all that follow. */
static void
interrupt_once(void)
{
	const struct vd_irq_set on = { 20, VD_IRQ_DATA_EVENTFD |
	    VD_IRQ_ACT_TRIGGER, VD_IRQ_ERR, 0, 1 };
	struct v_reply r;

	need_client();
	v_call_fds(dev.s, fd, VD_CMD_DEVICE_SET_IRQS, &on, 20, &kinds[0], 1,
	    &r);
	must(v_errno(&r) == 0);
	close(fd);
	fd = -1;
	v_serve(dev.s, 0);
}

int
main(void)
{
	unsigned int before;

	seed = t_env("T_SEED", 0x9e3779b97f4a7c15);
	diag("T_SEED=%#jx", (uintmax_t)seed);
	make_samples();
	make_kinds();
	v_dev_create(&dev);
	interrupt_once();
	before = t_count_fds();
	test_lengths();
	test_fields();
	test_descriptors();
	test_random();
	test_streams();
	test_version();
	if (fd != -1)
		close(fd);
	v_serve(dev.s, 0);
	is_int(t_count_fds(), before, "no descriptor is left");
	fd = -1;
	need_client();
	ok(vd_server_connected(dev.s), "an honest client is served");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
	return (done());
}
