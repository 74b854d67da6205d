/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The server against scripted clients. */

#include <sys/stat.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

static struct v_dev dev;

static const char qemu_json[] = "{\"capabilities\":{\"pgsizes\":4096,"
    "\"max_msg_fds\":16,\"max_dma_maps\":65535,"
    "\"max_data_xfer_size\":1048576,\"migration\":{"
    "\"max_bitmap_size\":268435456,\"pgsize\":4096},"
    "\"write_multiple\":true}}";

/* VERSION 0.0 with QEMU's JSON; the length of it. */
static size_t
qemu_version(uint8_t *buf)
{
	const struct vd_version v = { 0, 0 };

	memcpy(buf, &v, sizeof(v));
	memcpy(buf + sizeof(v), qemu_json, sizeof(qemu_json));
	return (sizeof(v) + sizeof(qemu_json));
}

/* Ask for a region, with this argsz and length of request. */
static void
get_region(int fd, uint32_t index, uint32_t argsz, size_t len,
    struct v_reply *r, struct vd_region_info *info)
{
	uint8_t req[4096] = { 0 };

	*info = (struct vd_region_info){ .argsz = argsz, .index = index };
	memcpy(req, info, sizeof(*info));
	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_REGION_INFO, req, len, r) &&
	    v_errno(r) == 0, "region %u is told of", index);
	memcpy(info, r->data, sizeof(*info));
}

static int
access_region(int fd, uint16_t cmd, uint32_t region, uint64_t off,
    uint32_t count, const void *data, size_t len, struct v_reply *r)
{
	uint8_t req[16 + 8192];
	const struct vd_region_access a = { off, region, count };

	memcpy(req, &a, sizeof(a));
	if (len > 0)
		memcpy(req + sizeof(a), data, len);
	if (!v_call(dev.s, fd, cmd, req, sizeof(a) + len, r))
		return (-1);
	return (v_errno(r));
}

static int
read_region(int fd, uint32_t region, uint64_t off, uint32_t count,
    struct v_reply *r)
{
	return (access_region(fd, VD_CMD_REGION_READ, region, off, count,
	    NULL, 0, r));
}

static int
write_region(int fd, uint32_t region, uint64_t off, const void *data,
    uint32_t count, struct v_reply *r)
{
	return (access_region(fd, VD_CMD_REGION_WRITE, region, off, count,
	    data, count, r));
}

static int
set_irqs(int fd, uint32_t flags, uint32_t index, uint32_t start,
    uint32_t count, int evfd, struct v_reply *r)
{
	const struct vd_irq_set set = { 20, flags, index, start, count };

	if (!v_call_fds(dev.s, fd, VD_CMD_DEVICE_SET_IRQS, &set, sizeof(set),
	    &evfd, evfd != -1, r))
		return (-1);
	return (v_errno(r));
}

/* --- QEMU ---------------------------------------------------------------- */

static void
qemu_maps(int fd)
{
	const struct vd_dma_map maps[] = {
		{ 32, 3, 0, 0, 0x200000 },
		{ 32, 1, 0, 0xfffc0000, 0x40000 },
		{ 32, 3, 0, 0xfebf9000, 0x1000 },
	};
	int ram = v_memfd(0x200000);
	struct v_reply r;
	size_t i;

	for (i = 0; i < T_COUNT(maps); i++)
		must(v_send_fds(fd, (uint16_t)(i + 1), VD_CMD_DMA_MAP, 0,
		    &maps[i], sizeof(maps[i]), &ram, i == 0));
	for (i = 0; i < T_COUNT(maps); i++)
		ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) &&
		    v_errno(&r) == 0 && r.len == 0 && r.hdr.id == i + 1,
		    "pipelined map %zu is answered by a header", i);
	close(ram);
}

static void
qemu_regions(int fd)
{
	struct vd_region_info info;
	struct vd_area areas[2];
	struct v_reply r;
	unsigned int nr;
	uint32_t i;
	void *p;

	get_region(fd, 0, 32, 32, &r, &info);
	ok(r.len == 32 && r.nfds == 0 && info.argsz == 64 &&
	    info.flags == 7 && info.size == 0x4000,
	    "BAR 0 says that it has more to tell");
	get_region(fd, 0, 64, 32, &r, &info);
	ok(r.len == 64 && info.argsz == 64 && info.flags == 0xf &&
	    info.cap_offset == 32, "and tells it");
	is_int(r.nfds, 1, "with one descriptor");
	is_int(vd__wire_get_areas(r.data, r.len, areas, 2, &nr), 1,
	    "one area");
	ok(nr == 1 && areas[0].offset == 0x1000 && areas[0].size == 0x1000,
	    "at 0x1000");
	p = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_SHARED, r.fds[0],
	    (off_t)(info.offset + areas[0].offset));
	ok(p != MAP_FAILED, "it can be mapped");
	fails(ftruncate(r.fds[0], 0), EPERM, "but not be taken away");
	strcpy(p, "through the map");
	v_close_fds(&r);
	ok(read_region(fd, 0, 0x1000, 16, &r) == 0 &&
	    strcmp((char *)r.data + 16, "through the map") == 0,
	    "and is what the messages show");
	munmap(p, 0x1000);
	for (i = 1; i < 6; i++) {
		get_region(fd, i, 32, 32, &r, &info);
		ok(r.len == 32 && r.nfds == 0 && info.argsz == 32 &&
		    info.size == (i == 2 ? 0x20u : i == 4 ? 0x2000u : 0) &&
		    info.flags == (i == 2 || i == 4 ? 3u : 0),
		    "BAR %u is as it should be", i);
	}
	get_region(fd, VD_REGION_CONFIG, 32, 32, &r, &info);
	ok(info.size == 4096 && info.flags == 3, "config space has 4096 bytes");
}

static void
qemu_config(int fd)
{
	struct vd_irq_info irq = { .argsz = 16, .index = 3 };
	struct v_reply r;
	uint32_t v = 0xfffff800;

	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_IRQ_INFO, &irq, 16, &r) &&
	    v_errno(&r) == 0 && r.len == 16, "ERR is told of");
	memcpy(&irq, r.data, sizeof(irq));
	ok(irq.count == 1 && (irq.flags & 1), "one, by eventfd");
	ok(read_region(fd, 7, 0, 4096, &r) == 0 && r.len == 16 + 4096,
	    "config space is read in one piece");
	ok(r.data[16] == 0x58 && r.data[17] == 0x4e, "it has our vendor");
	is_int(read_region(fd, 7, 0x30, 4, &r), 0, "the ROM BAR is read");
	is_int(write_region(fd, 7, 0x30, &v, 4, &r), 0, "sized");
	is_int(r.len, 16, "the write is answered with 16 bytes");
	ok(read_region(fd, 7, 0x30, 4, &r) == 0 &&
	    memcmp(r.data + 16, &v, 4) == 0, "2 KiB");
	v = 0;
	is_int(write_region(fd, 7, 0x30, &v, 4, &r), 0, "and put back");
	irq = (struct vd_irq_info){ .argsz = 16, .index = 2 };
	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_IRQ_INFO, &irq, 16, &r) &&
	    v_errno(&r) == 0, "MSI-X is told of");
	memcpy(&irq, r.data, sizeof(irq));
	is_int(irq.count, 16, "16 vectors");
	ok(read_region(fd, 7, 0x3d, 1, &r) == 0 && r.len == 17 &&
	    r.data[16] == 1, "there is a pin");
}

static void
test_qemu(void)
{
	int sv[2], ev = t_eventfd(), i;
	struct vd_device_info info = { .argsz = 16 };
	uint8_t version[256];
	struct v_reply r;
	uint16_t cmd = 0;
	uint32_t zero = 0;
	size_t len;

	v_dev_create(&dev);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	works(vd_server_attach(dev.s, sv[1]), "a client is attached");
	ok(!vd_server_connected(dev.s), "it is not connected yet");
	len = qemu_version(version);
	ok(v_call(dev.s, sv[0], VD_CMD_VERSION, version, len, &r) &&
	    v_errno(&r) == 0 && r.nfds == 0, "VERSION");
	/* It has no room for more than it has sent. */
	ok(r.len <= len && r.data[r.len - 1] == '\0' && r.data[2] == 0,
	    "is answered as QEMU wants: %s", r.data + 4);
	ok(vd_server_connected(dev.s) && dev.connects == 1,
	    "now it is connected");
	qemu_maps(sv[0]);
	is_int(dev.maps, 3, "the device heard of three maps");
	ok(v_call(dev.s, sv[0], VD_CMD_DEVICE_GET_INFO, &info, 16, &r),
	    "GET_INFO");
	memcpy(&info, r.data, sizeof(info));
	ok(r.len == 16 && info.flags == 3 && info.num_regions == 9 &&
	    info.num_irqs == 5 && info.argsz == 16, "is as expected");
	qemu_regions(sv[0]);
	qemu_config(sv[0]);
	is_int(set_irqs(sv[0], 0x24, 0, 0, 1, ev, &r), 0, "INTx on");
	is_int(r.len, 0, "with a header");
	is_int(set_irqs(sv[0], 0x24, 3, 0, 1, ev, &r), 0, "ERR on");
	is_int(set_irqs(sv[0], 0x21, 0, 0, 0, -1, &r), 0, "INTx off");
	ok(read_region(sv[0], 7, 4, 2, &r) == 0 &&
	    write_region(sv[0], 7, 4, &cmd, 2, &r) == 0, "command register");
	ok(v_call(dev.s, sv[0], VD_CMD_DEVICE_RESET, NULL, 0, &r) &&
	    v_errno(&r) == 0 && r.len == 0, "DEVICE_RESET");
	is_int(dev.resets[VD_RESET_DEVICE], 1, "reaches the device");
	is_int(set_irqs(sv[0], 0x24, 0, 0, 1, ev, &r), 0, "INTx on again");
	for (i = 0; i < 6; i++)
		is_int(write_region(sv[0], 7, 0x10 + 4 * (uint32_t)i, &zero,
		    4, &r), 0, "BAR %d is written", i);
	is_int(set_irqs(sv[0], 0x24, 2, 0, 1, -1, &r), 0,
	    "MSI-X with a placeholder");
	is_int(set_irqs(sv[0], 0x24, 2, 0, 1, ev, &r), 0, "then a vector");
	is_int(set_irqs(sv[0], 0x21, 2, 0, 0, -1, &r), 0, "then off");
	is_int(set_irqs(sv[0], 0x21, 2, 0, 0, -1, &r), 0, "and off again");
	close(sv[0]);
	fails(v_serve(dev.s, 0), ENOTCONN, "QEMU leaves");
	ok(dev.disconnects == 1 && dev.resets[VD_RESET_LOST] == 1 &&
	    dev.unmaps == 3, "the device is told");
	close(ev);
	v_dev_destroy(&dev);
}

/* --- SPDK ---------------------------------------------------------------- */

static void
test_spdk(void)
{
	struct vd_device_info di = { .argsz = 16 };
	struct vd_dma_map map = { 32, 3, 0, 0x200000200000, 0x200000 };
	struct vd_dma_unmap unmap = { 24, 0, 0x200000200000, 0x200000 };
	int fd, mem = v_memfd(0x200000);
	struct vd_region_info info;
	unsigned int before;
	struct v_reply r;
	uint32_t i, cmd = 0x404;
	uint64_t asq = 0x2000003e4000;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	before = t_count_fds();
	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_INFO, &di, 16, &r) &&
	    v_errno(&r) == 0, "GET_INFO");
	for (i = 0; i < 9; i++) {
		get_region(fd, i, 4064, 4064, &r, &info);
		is_int(r.len, i == 0 ? 64 : 32, "in one go");
		is_int(r.nfds, i == 0, "with the descriptor, if it has one");
		v_close_fds(&r);
	}
	ok(v_call_fds(dev.s, fd, VD_CMD_DMA_MAP, &map, 32, &mem, 1, &r) &&
	    v_errno(&r) == 0, "its memory is mapped");
	is_int(write_region(fd, 7, 4, &cmd, 2, &r), 0, "bus mastering");
	is_int(mt_space_store_le32(vd_server_dma(dev.s), 0x200000200010,
	    0x12345678), 0, "the device reaches the memory");
	ok(pread(mem, &i, 4, 16) == 4 && i == 0x12345678, "it is the client's");
	is_int(write_region(fd, 0, 0x28, &asq, 8, &r), 0, "a register");
	ok(dev.off == 0x28 && dev.size == 8 && dev.val == asq,
	    "is written by one access of 8 bytes");
	ok(read_region(fd, 0, 0x1c, 4, &r) == 0 && dev.size == 4 &&
	    memcmp(r.data + 16, "\x11\x22\x33\x44", 4) == 0,
	    "and read by one of 4");
	ok(v_call_fds(dev.s, fd, VD_CMD_DMA_UNMAP, &unmap, 24, &mem, 1, &r) &&
	    v_errno(&r) == 0 && r.len == 24, "unmapped with a stray fd");
	is_int(t_count_fds(), before, "no descriptor is kept");
	close(fd);
	v_serve(dev.s, 0);
	close(mem);
	v_dev_destroy(&dev);
}

/* --- registers and errors ------------------------------------------------ */

static void
test_accesses(void)
{
	struct { struct vd_write_multi m; struct vd_write_one w[3]; } multi =
	    { { 3 }, { { 0, 0, 4, { 1 } }, { 8, 0, 8, { 2 } },
	    { 0x10, 2, 2, { 3 } } } };
	struct { struct vd_region_access a; uint32_t v; } post =
	    { { 0x40, 0, 4 }, 0xabcd };
	struct vd_region_io_fds io = { .argsz = 16 };
	uint8_t data[4096];
	struct v_reply r;
	uint64_t done;
	int fd;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	memset(data, 0x5a, sizeof(data));
	is_int(read_region(fd, 0, 0x2000, 4, &r), EFAULT, "a hole");
	is_int(r.hdr.size, 16, "its error is a header");
	is_int(read_region(fd, 0, 0x3000, 4, &r), EIO, "a device error");
	is_int(read_region(fd, 0, 0x3ffc, 8, &r), EINVAL, "past the end");
	is_int(read_region(fd, 0, UINT64_MAX, 8, &r), EINVAL, "far past it");
	is_int(read_region(fd, 0, 0x4000, 0, &r), 0, "nothing, at the end");
	is_int(r.hdr.size, 16, "is a header");
	is_int(read_region(fd, 0, 0x4001, 0, &r), EINVAL, "but not beyond");
	is_int(read_region(fd, 1, 0, 4, &r), EINVAL, "the upper half");
	is_int(read_region(fd, 8, 0, 4, &r), EINVAL, "no VGA");
	is_int(read_region(fd, 9, 0, 4, &r), EINVAL, "no region 9");
	is_int(read_region(fd, 6, 0, 2, &r), 0, "the ROM");
	is_int(write_region(fd, 0, 0x1001, data, 1000, &r), 0,
	    "1000 bytes of RAM");
	ok(read_region(fd, 0, 0x1001, 1000, &r) == 0 &&
	    memcmp(r.data + 16, data, 1000) == 0, "are read back");
	dev.reads = 0;
	ok(read_region(fd, 0, 4, 64, &r) == 0 && dev.reads == 8 + 2 - 1,
	    "64 bytes of registers are read by %u accesses", dev.reads);
	is_int(read_region(fd, 0, 0xff8, 16, &r), 0, "across two regions");
	is_int(access_region(fd, VD_CMD_REGION_WRITE, 0, 0, 4, data, 5, &r),
	    EINVAL, "more data than count");
	is_int(access_region(fd, VD_CMD_REGION_WRITE, 0, 0, 4, data, 3, &r),
	    EINVAL, "less data than count");

	dev.writes = 0;
	ok(v_call(dev.s, fd, VD_CMD_REGION_WRITE_MULTI, &multi, sizeof(multi),
	    &r) && v_errno(&r) == 0 && r.len == 8, "three writes in one");
	memcpy(&done, r.data, 8);
	is_int(done, 3, "all are done");
	ok(dev.writes == 3 && dev.off == 0x10 && dev.size == 2,
	    "one after the other");
	multi.w[1].region = 9;
	ok(v_call(dev.s, fd, VD_CMD_REGION_WRITE_MULTI, &multi, sizeof(multi),
	    &r) && v_errno(&r) == 0, "with a bad one in between");
	memcpy(&done, r.data, 8);
	is_int(done, 1, "it ends there");
	multi.w[0].count = 9;
	ok(v_call(dev.s, fd, VD_CMD_REGION_WRITE_MULTI, &multi, sizeof(multi),
	    &r) && v_errno(&r) == EINVAL, "a bad one first is an error");

	ok(v_send_fds(fd, 1, VD_CMD_REGION_WRITE, VD_NO_REPLY, &post,
	    20, NULL, 0), "a posted write");
	v_serve(dev.s, 0);
	ok(dev.off == 0x40 && dev.val == 0xabcd && !v_readable(fd, 0),
	    "is done and not answered");
	post.a.region = 9;
	dev.logged = 0;
	ok(v_send_fds(fd, 1, VD_CMD_REGION_WRITE, VD_NO_REPLY, &post,
	    20, NULL, 0), "nor is one that fails");
	v_serve(dev.s, 0);
	ok(!v_readable(fd, 0) && dev.logged == 1, "the log tells: %s",
	    dev.log);

	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_REGION_IO_FDS, &io, 16, &r) &&
	    v_errno(&r) == ENOTSUP, "there are no IO_FDS");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

static void
test_errors(void)
{
	static const struct { uint16_t cmd; int err; } cmds[] = {
		{ 0, ENOSYS }, { 1, EINVAL }, { 2, EINVAL }, { 3, EINVAL },
		{ 4, EINVAL }, { 5, EINVAL }, { 6, ENOTSUP }, { 7, EINVAL },
		{ 8, EINVAL }, { 9, EINVAL }, { 10, EINVAL }, { 11, EINVAL },
		{ 12, EINVAL }, { 13, 0 }, { 14, ENOTSUP }, { 15, EINVAL },
		{ 16, ENOTSUP }, { 17, ENOTSUP }, { 18, ENOTSUP },
		{ 19, ENOSYS }, { 255, ENOSYS }, { 65535, ENOSYS },
	};
	struct vd_hdr h = { 3, 4, 16, VD_TYPE_REPLY, 0 };
	struct v_reply r;
	int fd, sv[2];
	size_t i;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	for (i = 0; i < T_COUNT(cmds); i++)
		ok(v_call(dev.s, fd, cmds[i].cmd, NULL, 0, &r) &&
		    v_errno(&r) == cmds[i].err && r.hdr.cmd == cmds[i].cmd &&
		    r.hdr.id == 0x7777, "command %u alone: %s", cmds[i].cmd,
		    strerror(cmds[i].err));
	must(v_send_raw(fd, &h, 16, NULL, 0));
	fails(v_serve(dev.s, 0), ENOTCONN, "a reply is not for us");
	close(fd);
	fd = v_attach(dev.s);
	h.flags = 7;
	must(v_send_raw(fd, &h, 16, NULL, 0));
	fails(v_serve(dev.s, 0), ENOTCONN, "nor is a message of another type");
	close(fd);

	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	must(v_send(sv[0], 0, VD_CMD_DEVICE_RESET, NULL, 0));
	fails(v_serve(dev.s, 0), ENOTCONN, "VERSION has to be first");
	ok(v_recv(sv[0], &r) && v_errno(&r) == EINVAL,
	    "what comes instead is refused before the end");
	ok(dev.connects == 2 && dev.resets[VD_RESET_LOST] == 2,
	    "and the device never hears of it");
	close(sv[0]);
	v_dev_destroy(&dev);
}

static void
test_delivery(void)
{
	uint8_t buf[1024], version[256];
	struct vd_device_info di = { .argsz = 16 };
	struct vd_region_access a = { 0, 7, 4 };
	size_t i, len = 0, answers = 0;
	struct v_reply r;
	int fd, sv[2];

	v_dev_create(&dev);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) == 0);
	must(vd_server_attach(dev.s, sv[1]) == 0);
	fd = sv[0];
	len += v_build(buf + len, 0, VD_CMD_VERSION, 0, version,
	    qemu_version(version));
	len += v_build(buf + len, 0, VD_CMD_DEVICE_GET_INFO, 0, &di, 16);
	len += v_build(buf + len, 0, VD_CMD_REGION_READ, 0, &a, 16);
	for (i = 0; i < len; i++) {
		must(write(fd, buf + i, 1) == 1);
		v_serve(dev.s, 0);
		while (v_recv(fd, &r))
			answers += v_errno(&r) == 0;
	}
	is_int(answers, 3, "byte by byte, all is answered");
	for (len = 0, i = 0; i < 20; i++)
		len += v_build(buf + len, (uint16_t)i, VD_CMD_REGION_READ, 0,
		    &a, 16);
	must(write(fd, buf, len) == (ssize_t)len);
	is_int(vd_server_run(dev.s), 1, "of twenty at once");
	ok(v_recv(fd, &r) && r.hdr.id == 0 && !v_readable(fd, 0),
	    "a run does one");
	ok(v_readable(vd_server_fd(dev.s), 0),
	    "the poll descriptor knows of the rest");
	is_int(vd_server_run_all(dev.s), 1, "which can be done in one go");
	for (i = 1; i < 20 && v_recv(fd, &r); i++)
		if (r.hdr.id != i)
			break;
	is_int(i, 20, "in order");
	ok(!v_readable(vd_server_fd(dev.s), 0), "then nothing is left");
	is_int(vd_server_run(dev.s), 0, "and nothing done");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

/* A client that asks and does not read. */
static void
test_backpressure(void)
{
	struct vd_server_limits limits = { .max_queued = 64 << 10 };
	struct vd_region_access a = { 0, 7, 4096 };
	uint8_t req[32];
	unsigned int asked = 0, got = 0;
	struct v_reply r;
	int fd;

	v_dev_create(&dev);
	must(vd_server_set_limits(dev.s, &limits) == 0);
	fd = v_attach(dev.s);
	fails(vd_server_set_limits(dev.s, &limits), EBUSY,
	    "limits stay while a client is there");
	v_build(req, 0, VD_CMD_REGION_READ, 0, &a, 16);
	for (;;) {
		ssize_t n = send(fd, req, 32, MSG_DONTWAIT);

		if (n == 32) {
			asked++;
			continue;
		}
		v_serve(dev.s, 0);
		if (send(fd, req, 32, MSG_DONTWAIT) != 32)
			break;
		asked++;
	}
	ok(asked > 100, "%u reads wait", asked);
	ok(vd__conn_queued(dev.s->conn) <= (64 << 10) + 4128,
	    "%zu bytes of replies are queued",
	    vd__conn_queued(dev.s->conn));
	ok(!v_readable(vd_server_fd(dev.s), 0), "the server rests");
	while (got < asked && v_serve_until(dev.s, fd)) {
		/* A message may come in pieces: its rest comes soon. */
		if (recv(fd, &r.hdr, 16, MSG_PEEK) <= 0)
			break;
		while (recv(fd, req, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
			char sink[4128];

			if (recv(fd, sink, sizeof(sink), MSG_WAITALL |
			    MSG_PEEK | MSG_DONTWAIT) < (ssize_t)sizeof(sink)) {
				must(vd_server_run(dev.s) != -1);
				continue;
			}
			must(recv(fd, sink, sizeof(sink), 0) == sizeof(sink));
			got++;
		}
	}
	is_int(got, asked, "all are answered when the client reads");
	close(fd);
	v_serve(dev.s, 0);
	v_dev_destroy(&dev);
}

/* --- paths and clients --------------------------------------------------- */

static char dir[] = "/tmp/vfudma-server.XXXXXX", path[64];

static void
test_path(void)
{
	int a, b, silent;
	struct v_reply r;
	struct stat st;

	v_dev_create(&dev);
	works(vd_server_listen(dev.s, path), "a path is listened on");
	fails(vd_server_listen(dev.s, path), EBUSY, "one is enough");
	must(stat(path, &st) == 0);
	is_hex(st.st_mode & 07777, 0600, "for our user alone");
	is_int(vd_server_run(dev.s), 0, "nobody comes");
	must((a = v_connect(path)) != -1);
	ok(v_hello(dev.s, a), "a client is served");
	must((b = v_connect(path)) != -1);
	must(v_send(b, 1, VD_CMD_VERSION, "\0\0\1\0", 4));
	is_int(v_serve(dev.s, 20), 0, "a second one");
	ok(!v_readable(b, 0), "waits");
	ok(read_region(a, 7, 0, 4, &r) == 0, "while the first goes on");
	close(a);
	ok(v_serve_until(dev.s, b) && v_recv(b, &r) && v_errno(&r) == 0,
	    "until the first is gone");
	ok(dev.connects == 2 && dev.disconnects == 1,
	    "the device was told of all that");
	vd_server_disconnect(dev.s);
	ok(v_readable(b, 0) && !v_recv(b, &r) && dev.disconnects == 2,
	    "a client can be dropped");
	close(b);

	dev.s->version_ms = 30;
	must((silent = v_connect(path)) != -1);
	must((b = v_connect(path)) != -1);
	must(v_send(b, 1, VD_CMD_VERSION, "\0\0\1\0", 4));
	ok(v_serve_until(dev.s, b) && v_recv(b, &r) && v_errno(&r) == 0,
	    "a silent client does not keep others out for long");
	ok(v_readable(silent, 0) && !v_recv(silent, &r), "it was dropped");
	v_serve(dev.s, 50);
	ok(read_region(b, 7, 0, 4, &r) == 0,
	    "who has said VERSION may be silent");
	close(silent);
	dev.disconnect_on_write = true;
	must(write_region(b, 0, 0, "abcd", 4, &r) == 0);
	v_serve(dev.s, 0);
	ok(!vd_server_connected(dev.s), "a callback can drop its client");
	close(b);
	v_dev_destroy(&dev);
	ok(stat(path, &st) == -1 && errno == ENOENT,
	    "the socket is removed in the end");
}

static void
test_listen_fd(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), c, sv[2];
	struct stat st;

	v_dev_create(&dev);
	fails(vd_server_run(dev.s), ENOTCONN, "nothing to serve");
	memcpy(sun.sun_path, path, strlen(path));
	must(bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	fails(vd_server_listen_fd(dev.s, fd), EINVAL, "not listening yet");
	must(listen(fd, 4) == 0);
	works(vd_server_listen_fd(dev.s, fd), "somebody else's socket");
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, sv) == 0);
	fails(vd_server_attach(dev.s, sv[0]), EBUSY, "it is one or the other");
	close(sv[0]);
	close(sv[1]);
	must((c = v_connect(path)) != -1);
	ok(v_hello(dev.s, c), "is served");
	close(c);
	v_dev_destroy(&dev);
	works(stat(path, &st), "and its file stays");
	unlink(path);
}

static void
test_two_servers(void)
{
	struct v_dev other;
	int a, b;
	struct v_reply r;

	v_dev_create(&dev);
	v_dev_create(&other);
	a = v_attach(dev.s);
	b = v_attach(other.s);
	ok(read_region(a, 0, 0, 4, &r) == 0 && dev.reads == 1 &&
	    other.reads == 0, "two servers in one process are apart");
	close(a);
	close(b);
	v_dev_destroy(&dev);
	v_dev_destroy(&other);
}

/* A process that inherited the server's end does not keep a client alive. */
static void
test_inherited(void)
{
	struct v_reply r;
	int fd, copy;

	v_dev_create(&dev);
	fd = v_attach(dev.s);
	copy = dup(dev.s->conn_fd);
	vd_server_disconnect(dev.s);
	ok(v_readable(fd, 0) && !v_recv(fd, &r), "the client sees the end");
	ok(!v_readable(vd_server_fd(dev.s), 0), "and the server is quiet");
	close(copy);
	close(fd);
	v_dev_destroy(&dev);
}

int
main(void)
{
	unsigned int before = t_count_fds();

	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	test_qemu();
	test_spdk();
	test_accesses();
	test_errors();
	test_delivery();
	test_backpressure();
	test_path();
	test_listen_fd();
	test_two_servers();
	test_inherited();
	rmdir(dir);
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
