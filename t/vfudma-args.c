/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * What a client may ask in each command, up to the last value that is good and
 * from the first that is not: argsz, flags, indexes, lengths and ranges.
 */

#include "t/vfu.h"

#define PAGE	4096u

static struct v_dev dev;
static int fd;
static struct v_reply reply;

/* The errno of the answer to a command. */
static int
ask(uint16_t cmd, const void *payload, size_t len)
{
	if (!v_call(dev.s, fd, cmd, payload, len, &reply))
		return (-1);
	v_close_fds(&reply);
	return (v_errno(&reply));
}

/* The same, with bytes behind it that nobody asked for. */
static int
ask_longer(uint16_t cmd, const void *payload, size_t len)
{
	uint8_t buf[4096];

	memset(buf, 0xee, sizeof(buf));
	memcpy(buf, payload, len);
	return (ask(cmd, buf, sizeof(buf)));
}

static void
begin(const struct vd_server_limits *limits)
{
	v_dev_create(&dev);
	if (limits != NULL)
		must(vd_server_set_limits(dev.s, limits) == 0);
	fd = v_attach(dev.s);
}

static void
end(void)
{
	ok(vd_server_connected(dev.s), "the client is still there");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

static void
test_info(void)
{
	static const struct {
		uint32_t argsz;
		int err;
	} sizes[] = { { 0, EINVAL }, { 15, EINVAL }, { 16, 0 }, { 17, 0 },
	    { 4096, 0 }, { 1u << 20, 0 }, { UINT32_MAX, 0 } };
	struct vd_device_info device = { 0 };
	struct vd_irq_info irq = { .index = VD_IRQ_MSIX };
	struct vd_region_info region = { .index = 2 };
	size_t i;

	begin(NULL);
	for (i = 0; i < T_COUNT(sizes); i++) {
		device.argsz = irq.argsz = sizes[i].argsz;
		is_int(ask(VD_CMD_DEVICE_GET_INFO, &device, sizeof(device)),
		    sizes[i].err, "GET_INFO with argsz %u", sizes[i].argsz);
		is_int(ask(VD_CMD_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq)),
		    sizes[i].err, "GET_IRQ_INFO with argsz %u",
		    sizes[i].argsz);
		if (sizes[i].err == 0)
			is_int(reply.len, sizeof(irq), "has its length");
		region.argsz = sizes[i].argsz + 16;
		is_int(ask(VD_CMD_DEVICE_GET_REGION_INFO, &region,
		    sizeof(region)), sizes[i].argsz == UINT32_MAX ? EINVAL :
		    sizes[i].err, "GET_REGION_INFO with argsz %u",
		    region.argsz);
	}
	device.argsz = irq.argsz = 16;
	region.argsz = 32;
	is_int(ask_longer(VD_CMD_DEVICE_GET_INFO, &device, sizeof(device)), 0,
	    "GET_INFO may be longer");
	is_int(ask_longer(VD_CMD_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq)), 0,
	    "and GET_IRQ_INFO");
	is_int(ask_longer(VD_CMD_DEVICE_GET_REGION_INFO, &region,
	    sizeof(region)), 0, "and GET_REGION_INFO");
	/* A capability comes as soon as there is room for it, and whole. */
	region.index = 0;
	for (i = 32; i <= 65; i += i == 32 ? 31 : 1) {
		region.argsz = (uint32_t)i;
		is_int(ask(VD_CMD_DEVICE_GET_REGION_INFO, &region,
		    sizeof(region)), 0, "GET_REGION_INFO with argsz %zu", i);
		is_int(reply.len, i < 64 ? 32 : 64, "gets what fits");
		memcpy(&device.argsz, reply.data, 4);
		is_int(device.argsz, 64, "and is told what there is");
	}
	for (i = 0; i < 12; i++) {
		region.argsz = 32;
		region.index = (uint32_t)i;
		is_int(ask(VD_CMD_DEVICE_GET_REGION_INFO, &region,
		    sizeof(region)), i < VD_NUM_REGIONS ? 0 : EINVAL,
		    "region %zu", i);
		irq.index = (uint32_t)i;
		is_int(ask(VD_CMD_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq)),
		    i < VD_NUM_IRQS ? 0 : EINVAL, "interrupt %zu", i);
	}
	region.index = irq.index = UINT32_MAX;
	is_int(ask(VD_CMD_DEVICE_GET_REGION_INFO, &region, sizeof(region)),
	    EINVAL, "the last region of all");
	is_int(ask(VD_CMD_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq)), EINVAL,
	    "the last interrupt of all");
	end();
}

/* --- lengths ------------------------------------------------------------- */

static int
read_region(uint32_t index, uint64_t off, uint32_t count)
{
	const struct vd_region_access a = { off, index, count };

	return (ask(VD_CMD_REGION_READ, &a, sizeof(a)));
}

static int
write_region(uint32_t index, uint64_t off, uint32_t count)
{
	static uint8_t buf[sizeof(struct vd_hdr) + 16 + (1 << 20) + 64],
	    payload[16 + (1 << 20) + 64];
	const struct vd_region_access a = { off, index, count };
	size_t len, at = 0;
	ssize_t n;

	memcpy(payload, &a, sizeof(a));
	len = v_build(buf, 1, VD_CMD_REGION_WRITE, 0, payload,
	    sizeof(a) + count);
	/* No socket takes the longest of them as a whole. */
	while (at < len) {
		n = send(fd, buf + at, len - at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n == -1 && errno != EAGAIN)
			return (-1);
		at += n == -1 ? 0 : (size_t)n;
		must(vd_server_run(dev.s) != -1);
	}
	if (!v_serve_until(dev.s, fd) || !v_recv(fd, &reply))
		return (-1);
	return (v_errno(&reply));
}

static void
test_lengths(void)
{
	const struct vd_server_limits small = { .max_data_xfer = 100 },
	    least = { .max_data_xfer = 8 }, less = { .max_data_xfer = 7 },
	    more = { .max_data_xfer = (1 << 20) + 1 };
	struct mt_region *big;

	begin(&small);
	is_int(read_region(0, 0x1000, 100), 0, "as many bytes as are allowed");
	is_int(reply.len, 116, "are read");
	is_int(read_region(0, 0x1000, 101), EINVAL, "and not one more");
	is_int(write_region(0, 0x1000, 100), 0, "so many are written");
	is_int(write_region(0, 0x1000, 101), EINVAL, "and not one more");
	is_int(read_region(VD_REGION_CONFIG, 0, 100), 0, "also of config "
	    "space");
	is_int(read_region(VD_REGION_CONFIG, 0, 101), EINVAL, "also there");
	is_int(read_region(0, 0x1000, UINT32_MAX), EINVAL, "far from it");
	end();
	begin(&least);
	is_int(read_region(0, 0x40, 8), 0, "eight bytes can be the most");
	is_int(read_region(0, 0x1000, 9), EINVAL, "and nine are more");
	end();
	v_dev_create(&dev);
	fails(vd_server_set_limits(dev.s, &less), EINVAL,
	    "less would not do for a register");
	fails(vd_server_set_limits(dev.s, &more), EINVAL,
	    "nor is more than a mebibyte taken");
	fails(vd_server_set_limits(dev.s, &(struct vd_server_limits){
	    .stall_timeout_ms = UINT32_MAX }), EINVAL, "nor any time");
	/* The default, with a BAR that has as much and more. */
	big = t_ram(dev.t, "big", 4u << 20);
	must(vd_pci_set_bar(dev.s, 5, big, 0) == 0);
	mt_region_put(big);
	fd = v_attach(dev.s);
	is_int(write_region(5, 0, 1 << 20), 0, "a mebibyte is written");
	is_int(write_region(5, 0, (1 << 20) + 1), EINVAL, "and not one more");
	is_int(write_region(5, 3u << 20, 1 << 20), 0, "up to the end");
	is_int(write_region(5, (3u << 20) + 1, 1 << 20), EINVAL,
	    "and not beyond");
	is_int(read_region(5, (4u << 20) - 1, 1), 0, "the last byte is read");
	is_int(read_region(5, 4u << 20, 1), EINVAL, "the next is not");
	is_int(read_region(5, UINT64_MAX, 1), EINVAL, "nor the last of all");
	is_int(read_region(5, UINT64_MAX - 6, 8), EINVAL, "nor across it");
	end();
}

/* --- memory -------------------------------------------------------------- */

static int
dma_map(uint32_t argsz, uint32_t flags, uint64_t addr, uint64_t size)
{
	const struct vd_dma_map m = { argsz, flags, 0, addr, size };

	return (ask(VD_CMD_DMA_MAP, &m, sizeof(m)));
}

static int
dma_unmap(uint32_t argsz, uint32_t flags, uint64_t addr, uint64_t size)
{
	const struct vd_dma_unmap m = { argsz, flags, addr, size };

	return (ask(VD_CMD_DMA_UNMAP, &m, sizeof(m)));
}

static void
test_memory(void)
{
	struct vd_dma_unmap echo;
	unsigned int bit;

	begin(NULL);
	is_int(dma_map(31, 3, 0, PAGE), EINVAL, "DMA_MAP: argsz 31");
	is_int(dma_map(32, 3, 0, 0), EINVAL, "DMA_MAP: nothing");
	is_int(dma_map(32, 3, 1, UINT64_MAX), 0, "DMA_MAP: all but a byte");
	is_int(dma_map(32, 3, 0, 1), 0, "DMA_MAP: that byte");
	is_int(dma_map(32, 3, UINT64_MAX, 1), EEXIST, "DMA_MAP: no third");
	is_int(dma_map(32, 3, 1, UINT64_MAX), 0, "DMA_MAP: the same again");
	is_int(dma_unmap(24, 0, 1, UINT64_MAX - 1), ENOENT,
	    "DMA_UNMAP: not a byte less");
	is_int(dma_unmap(24, 0, 0, UINT64_MAX), ENOENT,
	    "DMA_UNMAP: nor shifted");
	is_int(dma_unmap(24, 0, 1, UINT64_MAX), 0, "DMA_UNMAP: all of it");
	memcpy(&echo, reply.data, sizeof(echo));
	ok(reply.len == 24 && echo.argsz == 24 && echo.addr == 1 &&
	    echo.size == UINT64_MAX, "which the answer says");
	is_int(dma_map(32, 3, 2, UINT64_MAX), EINVAL, "DMA_MAP: a wrap");
	is_int(dma_map(32, 3, UINT64_MAX, 2), EINVAL, "DMA_MAP: another");
	for (bit = 2; bit < 32; bit++)
		if (dma_map(32, 1u << bit, PAGE, PAGE) != EINVAL)
			break;
	is_int(bit, 32, "DMA_MAP: unknown flags");
	is_int(dma_map(4096, 3, PAGE, PAGE), 0, "DMA_MAP: argsz 4096");
	is_int(dev.maps, 3, "the device heard of what was taken");

	is_int(dma_unmap(23, 0, PAGE, PAGE), EINVAL, "DMA_UNMAP: argsz 23");
	is_int(dma_unmap((1 << 20) + 1, 0, PAGE, PAGE), EINVAL,
	    "DMA_UNMAP: argsz above 1 MiB");
	is_int(dma_unmap(24, 0, PAGE, 0), EINVAL, "DMA_UNMAP: nothing");
	is_int(dma_unmap(24, 0, 0, 2 * PAGE), ENOENT, "DMA_UNMAP: two");
	is_int(dma_unmap(24, 0, 2, UINT64_MAX), EINVAL, "DMA_UNMAP: a wrap");
	is_int(dma_unmap(24, VD_UNMAP_DIRTY, PAGE, PAGE), ENOTSUP,
	    "DMA_UNMAP: there is no bitmap");
	is_int(dma_unmap(24, 3, 0, 0), EINVAL, "DMA_UNMAP: nor of all");
	for (bit = 2; bit < 32; bit++)
		if (dma_unmap(24, 1u << bit, PAGE, PAGE) != EINVAL)
			break;
	is_int(bit, 32, "DMA_UNMAP: unknown flags");
	is_int(dma_unmap(24, VD_UNMAP_ALL, PAGE, PAGE), EINVAL,
	    "DMA_UNMAP: all, and an address");
	is_int(dma_unmap(24, VD_UNMAP_ALL, 0, PAGE), EINVAL,
	    "DMA_UNMAP: all, and a size");
	is_int(dev.unmaps, 1, "of which the device has not heard");
	is_int(dma_unmap(1 << 20, VD_UNMAP_ALL, 0, 0), 0, "DMA_UNMAP: all");
	memcpy(&echo, reply.data, sizeof(echo));
	ok(reply.len == 24 && echo.flags == VD_UNMAP_ALL && echo.addr == 0 &&
	    echo.size == 0, "which the answer says");
	is_int(dev.unmaps, 3, "of which it has");
	is_int(dma_unmap(24, VD_UNMAP_ALL, 0, 0), 0, "DMA_UNMAP: all, again");
	is_int(dev.unmaps, 3, "and there was none");
	end();
}

/* --- many writes in a message -------------------------------------------- */

struct multi {
	struct vd_write_multi m;
	struct vd_write_one w[220];
};

/* How many were done, or -1 - errno. */
static int
write_multi(const struct multi *m, uint64_t entries)
{
	uint64_t n;
	int err = ask(VD_CMD_REGION_WRITE_MULTI, m,
	    sizeof(m->m) + (size_t)entries * sizeof(m->w[0]));

	if (err != 0)
		return (-1 - err);
	memcpy(&n, reply.data, sizeof(n));
	return (reply.len == 8 ? (int)n : -1000);
}

static void
test_multi(void)
{
	static struct multi m;
	unsigned int i, logged;

	begin(NULL);
	for (i = 0; i < T_COUNT(m.w); i++)
		m.w[i] = (struct vd_write_one){ 8 * i, 0, 1u << i % 4,
		    { (uint8_t)i } };
	m.m.count = 0;
	is_int(write_multi(&m, 0), 0, "no writes are none");
	m.m.count = 1;
	is_int(write_multi(&m, 0), -1 - EINVAL, "a missing one is missed");
	m.m.count = 3;
	is_int(write_multi(&m, 2), -1 - EINVAL, "so is the third");
	is_int(dev.writes, 0, "and nothing is done then");
	is_int(write_multi(&m, 5), 3, "more than are counted are not done");
	is_int(dev.writes, 3, "but those are");
	m.m.count = UINT64_MAX / 24 + 2;
	is_int(write_multi(&m, 5), -1 - EINVAL, "a count that wraps");
	m.m.count = 220;
	dev.writes = 0;
	is_int(write_multi(&m, 220), 220, "220 writes");
	ok(dev.writes == 220 && dev.off == 8 * 219 && dev.size == 8,
	    "are 220 accesses");
	/* As QEMU sends them: nobody wants an answer. */
	m.m.count = 200;
	dev.writes = 0;
	must(v_send_fds(fd, 1, VD_CMD_REGION_WRITE_MULTI, VD_NO_REPLY, &m,
	    8 + 200 * 24, NULL, 0));
	v_serve(dev.s, 0);
	ok(dev.writes == 200 && !v_readable(fd, 0), "or 200 posted ones");
	/* Of other kinds. */
	m.m.count = 4;
	m.w[1] = (struct vd_write_one){ 0, VD_REGION_CONFIG, 2, { 0 } };
	m.w[1].offset = 4;
	m.w[1].data[0] = 6;
	m.w[2] = (struct vd_write_one){ 0, 0, 0, { 0 } };
	is_int(write_multi(&m, 4), 4, "config space, and no bytes, too");
	is_hex(vd_pci_config_get(dev.s, 4, 2), 6, "which is written");
	m.w[2].count = 9;
	is_int(write_multi(&m, 4), 2, "nine bytes are the end of it");
	m.w[2].count = 1;
	m.w[2].region = 6;
	is_int(write_multi(&m, 4), 2, "a ROM as well");
	m.w[2].region = 9;
	is_int(write_multi(&m, 4), 2, "or what is no region");
	m.w[2].region = 0;
	m.w[2].offset = 0x4000;
	is_int(write_multi(&m, 4), 2, "or beyond one");
	m.w[2].offset = UINT64_MAX;
	is_int(write_multi(&m, 4), 2, "or far away");
	m.w[0] = m.w[2];
	logged = dev.logged;
	is_int(write_multi(&m, 4), -1 - EINVAL, "the first one is an error");
	is_int(dev.logged, logged + 1, "which the log tells");
	end();
}

/* --- the log ------------------------------------------------------------- */

/* Memory that nobody can map is the commonest mistake: it is told. */
static void
test_told(void)
{
	begin(NULL);
	is_int(dma_map(32, 3, 0x7000, PAGE), 0, "memory without a descriptor");
	ok(strstr(dev.log, "0x7000") != NULL &&
	    strstr(dev.log, "descriptor") != NULL &&
	    strstr(dev.log, "share") != NULL,
	    "the log names the cause and the cure: %s", dev.log);
	is_int(dma_map(32, 3, 0x6800, PAGE), EEXIST, "and then something else");
	ok(strstr(dev.log, "DMA_MAP") != NULL &&
	    strstr(dev.log, strerror(EEXIST)) != NULL, "what is refused is "
	    "told, too: %s", dev.log);
	end();
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_info();
	test_lengths();
	test_memory();
	test_multi();
	test_told();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
