/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The client's memory: maps, unmaps that wait, and what is left behind. */

#include <sys/eventfd.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

static struct v_dev dev;
static int fd, mem;
static unsigned int base_fds;

/* A device with a client, bus mastering on, and 1 MiB of memory to share. */
static void
begin(void)
{
	const struct vd_region_access a = { 4, 7, 2 };
	uint8_t req[18];
	struct v_reply r;

	v_dev_create(&dev);
	mem = v_memfd(1 << 20);
	fd = v_attach(dev.s);
	memcpy(req, &a, 16);
	memcpy(req + 16, "\x06\x00", 2);
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, req, 18, &r) &&
	    v_errno(&r) == 0);
	base_fds = t_count_fds();
}

static void
end(void)
{
	if (fd != -1)
		close(fd);
	v_serve(dev.s, 0);
	close(mem);
	v_dev_destroy(&dev);
}

static int
map_fds(uint64_t addr, uint64_t size, uint32_t flags, uint64_t off,
    const int *fds, size_t nfds)
{
	const struct vd_dma_map m = { 32, flags, off, addr, size };
	struct v_reply r;

	if (!v_call_fds(dev.s, fd, VD_CMD_DMA_MAP, &m, 32, fds, nfds, &r))
		return (-1);
	return (r.len == 0 ? v_errno(&r) : -1);
}

static int
map(uint64_t addr, uint64_t size, uint32_t flags, uint64_t off)
{
	return (map_fds(addr, size, flags, off, &mem, 1));
}

static void
send_unmap(uint16_t id, uint64_t addr, uint64_t size, uint32_t flags)
{
	const struct vd_dma_unmap m = { 24, flags, addr, size };

	must(v_send(fd, id, VD_CMD_DMA_UNMAP, &m, sizeof(m)));
}

static int
unmap(uint64_t addr, uint64_t size, uint32_t flags)
{
	struct v_reply r;

	send_unmap(1, addr, size, flags);
	if (!v_serve_until(dev.s, fd) || !v_recv(fd, &r))
		return (-1);
	return (v_errno(&r));
}

static bool
readable_at(uint64_t addr)
{
	uint8_t byte;

	return (mt_space_read(vd_server_dma(dev.s), addr, &byte, 1,
	    MT_ATTRS_NONE) == MT_OK);
}

static void
test_map(void)
{
	struct mt_space *sp;
	uint32_t v = 0;
	int ro, huge, fds[2];

	begin();
	sp = vd_server_dma(dev.s);
	fds[0] = fds[1] = mem;
	is_int(map(0x10000, 0x10000, 3, 0x4000), 0, "memory is mapped");
	ok(dev.maps == 1 && dev.range.first == 0x10000 &&
	    dev.range.last == 0x1ffff, "the device is told of it");
	must(mt_space_store_le32(sp, 0x10010, 0xfeedface) == MT_OK);
	ok(pread(mem, &v, 4, 0x4010) == 4 && v == 0xfeedface,
	    "a write arrives in the file, at its offset");
	ok(!readable_at(0xffff) && !readable_at(0x20000),
	    "nothing is before or behind it");
	is_int(map(0x10000, 0x10000, 3, 0x4000), 0, "the same again is fine");
	is_int(dev.maps, 1, "and no news");
	is_int(map(0x10000, 0x10000, 3, 0x5000), EEXIST, "another offset not");
	is_int(map(0x10000, 0x10000, 1, 0x4000), EEXIST, "nor other flags");
	is_int(map(0x10000, 0x8000, 3, 0x4000), EEXIST, "nor a part");
	is_int(map(0x1f000, 0x2000, 3, 0), EEXIST, "nor an overlap");
	is_int(map(0, 0x80000, 3, 0), EEXIST, "nor what is around it");
	is_int(map_fds(0x10000, 0x10000, 3, 0x4000, NULL, 0), EEXIST,
	    "nor the same without a descriptor");
	is_int(map(0x20000, 0x1000, 3, 0), 0, "a neighbour is no overlap");
	is_int(map(0x40000, 0x1000, 3, 0xff000), 0, "the end of the file");
	is_int(map(0x50000, 0x1000, 3, 0xff001), EINVAL, "not beyond it");
	is_int(map(0x50000, 0x2000, 3, 0xff000), EINVAL, "nor over it");
	is_int(map(0x50000, 0x1000, 3, UINT64_MAX), EINVAL, "nor far beyond");
	is_int(map(0x50000, 0x1000, 3, 1ull << 63), EINVAL, "nor negative");
	is_int(map(0x50000, 1ull << 62, 3, 0), EINVAL, "nor too long");
	is_int(map_fds(0x50000, 0x1000, 3, 0, fds, 2), EINVAL,
	    "two descriptors are too many");
	is_int(map(0x60123, 0x234, 3, 0x1001), 0, "no page has to start here");
	must(mt_space_store_le32(sp, 0x60353, 0x01020304) == MT_OK);
	ok(pread(mem, &v, 4, 0x1231) == 4 && v == 0x01020304,
	    "it is where it should be");
	ok(!readable_at(0x60122) && !readable_at(0x60357),
	    "and ends where it should");

	is_int(map(0x70000, 0x1000, 1, 0), 0, "memory to read only");
	ok(readable_at(0x70000), "can be read");
	ok(mt_space_store_le32(sp, 0x70000, 1) != MT_OK, "and not written");
	must((ro = open("/bin/sh", O_RDONLY)) != -1);
	is_int(map_fds(0x80000, 0x1000, 1, 0, &ro, 1), 0,
	    "also of a file that cannot be written");
	ok(mt_space_store_le32(sp, 0x80000, 1) != MT_OK, "which is not");
	is_int(map_fds(0x90000, 0x1000, 3, 0, &ro, 1), EACCES,
	    "nor mapped to be");
	close(ro);
	is_int(map(0x90000, 0x1000, 0, 0), 0, "memory for nothing");
	ok(!readable_at(0x90000), "cannot be read");

	is_int(map_fds(0xfffc0000, 0x40000, 1, 0, NULL, 0), 0,
	    "memory without a descriptor");
	is_hex(mt_space_store_le32(sp, 0xfffc0000, 1), MT_DENIED,
	    "is there, and not to be written");
	is_int(map_fds(0x100000000, UINT64_MAX - 0xffffffff, 3, 0, NULL, 0),
	    0, "up to the last address");
	huge = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	if (huge == -1 || ftruncate(huge, 4 << 20) == -1 ||
	    mmap(NULL, 2 << 20, PROT_READ, MAP_SHARED, huge, 0) == MAP_FAILED)
		skip(1, "no huge pages");
	else
		is_int(map_fds(0xa0000, 0x20000, 3, 0xa0000, &huge, 1), 0,
		    "a part of huge pages");
	if (huge != -1)
		close(huge);
	is_int(t_count_fds(), base_fds, "no descriptor is kept");
	end();
}

static void
test_kinds(void)
{
	int p[2], dir, ev, zero, path;

	begin();
	must(pipe(p) == 0);
	must((dir = open("/", O_RDONLY)) != -1);
	must((ev = eventfd(0, 0)) != -1);
	must((zero = open("/dev/zero", O_RDWR)) != -1);
	must((path = open("/bin/sh", O_PATH)) != -1);
	ok(map_fds(0, 0x1000, 3, 0, &p[0], 1) > 0, "a pipe is no memory");
	ok(map_fds(0, 0x1000, 3, 0, &dir, 1) > 0, "nor is a directory");
	ok(map_fds(0, 0x1000, 3, 0, &ev, 1) > 0, "nor an eventfd");
	ok(map_fds(0, 0x1000, 3, 0, &zero, 1) > 0, "nor a device");
	ok(map_fds(0, 0x1000, 3, 0, &fd, 1) > 0, "nor the socket itself");
	ok(map_fds(0, 0x1000, 1, 0, &path, 1) > 0, "nor a mere path");
	is_int(map(0, 0x1000, 3, 0), 0, "none of them has left a trace");
	close(p[0]);
	close(p[1]);
	close(dir);
	close(ev);
	close(zero);
	close(path);
	end();
}

static void
test_unmap(void)
{
	int i;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	is_int(unmap(0x10000, 0x8000, 0), ENOENT, "a part cannot be taken");
	is_int(unmap(0x18000, 0x8000, 0), ENOENT, "nor the other");
	is_int(unmap(0, 0x100000, 0), ENOENT, "nor what is around it");
	is_int(unmap(0x10000, 0x10000, VD_UNMAP_DIRTY), ENOTSUP,
	    "there is no dirty bitmap");
	ok(readable_at(0x10000) && dev.unmaps == 0, "it is all still there");
	is_int(unmap(0x10000, 0x10000, 0), 0, "all of it can");
	ok(!readable_at(0x10000), "then it is gone");
	ok(dev.unmaps == 1 && dev.range.first == 0x10000 &&
	    dev.range.last == 0x1ffff, "the device was told");
	is_int(unmap(0x10000, 0x10000, 0), ENOENT, "only once");
	for (i = 0; i < 100; i++)
		must(map((uint64_t)i << 20, 0x1000, 3, 0) == 0);
	is_int(unmap(0, 0, VD_UNMAP_ALL), 0, "all at once");
	ok(dev.unmaps == 101 && !readable_at(0) && !readable_at(99 << 20),
	    "are gone");
	is_int(unmap(0, 0, VD_UNMAP_ALL), 0, "also if there is none");
	for (i = 0; i < 200; i++)
		must(map(0x1000, 0x1000, 3, 0) == 0 &&
		    unmap(0x1000, 0x1000, 0) == 0);
	is_int(t_count_fds(), base_fds, "200 maps later nothing is kept");
	end();
}

static void
test_deferred(void)
{
	struct mt_mapping m, other;
	struct vd_device_info di = { .argsz = 16 };
	struct v_reply r;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	must(map(0x40000, 0x10000, 3, 0x20000) == 0);
	must(mt_dma_map(vd_server_dma(dev.s), 0x11000, 0x1000, MT_DMA_WRITE,
	    MT_ATTRS_NONE, &m) == 0);
	must(mt_dma_map(vd_server_dma(dev.s), 0x41000, 0x1000, MT_DMA_WRITE,
	    MT_ATTRS_NONE, &other) == 0);
	ok(!m.bounced, "a device holds memory");
	send_unmap(5, 0x10000, 0x10000, 0);
	must(v_send(fd, 6, VD_CMD_DEVICE_GET_INFO, &di, 16));
	ok(v_serve(dev.s, 50) != -1, "that the client wants back");
	ok(!v_readable(fd, 0), "there is no answer yet, nor to what follows");
	ok(!v_readable(vd_server_fd(dev.s), 0), "and nothing to do");
	is_int(vd_server_run(dev.s), 0, "a run does nothing");
	ok(!readable_at(0x11000), "it is out of the space already");
	memcpy(m.ptr, "last words", 10);
	works(mt_dma_unmap(&m, 10), "the device gives it back");
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && r.hdr.id == 5 &&
	    v_errno(&r) == 0 && r.len == 24, "now the answer comes");
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && r.hdr.id == 6,
	    "and the next one");
	{
		char words[10];

		ok(pread(mem, words, 10, 0x1000) == 10 &&
		    memcmp(words, "last words", 10) == 0,
		    "what was written is in the file");
	}
	ok(readable_at(0x41000), "other memory is not concerned");

	/* A device that gives back when it is asked to. */
	dev.lent = &other;
	is_int(unmap(0x40000, 0x10000, 0), 0, "a device may hurry");

	/* Posted, and many. */
	must(map(0x10000, 0x1000, 3, 0) == 0);
	must(map(0x20000, 0x1000, 3, 0) == 0);
	must(mt_dma_map(vd_server_dma(dev.s), 0x20000, 8, MT_DMA_READ,
	    MT_ATTRS_NONE, &m) == 0);
	{
		const struct vd_dma_unmap all = { 24, VD_UNMAP_ALL, 0, 0 };

		must(v_send_fds(fd, 7, VD_CMD_DMA_UNMAP, VD_NO_REPLY, &all,
		    sizeof(all), NULL, 0));
	}
	must(v_send(fd, 8, VD_CMD_DEVICE_GET_INFO, &di, 16));
	v_serve(dev.s, 20);
	ok(!v_readable(fd, 0), "an unmap of all waits for the last mapping");
	mt_dma_unmap(&m, 0);
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && r.hdr.id == 8,
	    "and is not answered if nobody asked for it");
	end();
}

static void
set_command(uint8_t value)
{
	const struct vd_region_access a = { 4, 7, 2 };
	uint8_t req[18] = { 0 };
	struct v_reply r;

	memcpy(req, &a, 16);
	req[16] = value;
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, req, 18, &r) &&
	    v_errno(&r) == 0);
}

/* Where an FLR is ordered in config space. */
static uint64_t
flr_at(void)
{
	uint8_t express = (uint8_t)vd_pci_config_get(dev.s, 0x34, 1);

	while (vd_pci_config_get(dev.s, express, 1) != 0x10)
		express = (uint8_t)vd_pci_config_get(dev.s, express + 1, 1);
	return (express + 8u);
}

/* Order an FLR, by a message of this id. */
static void
send_flr(uint16_t id, uint32_t flags)
{
	const struct vd_region_access a = { flr_at(), 7, 2 };
	uint8_t req[18];

	memcpy(req, &a, 16);
	memcpy(req + 16, "\x00\x80", 2);
	must(v_send_fds(fd, id, VD_CMD_REGION_WRITE, flags, req, 18, NULL, 0));
}

static void
lend(uint64_t addr, struct mt_mapping *m)
{
	must(mt_dma_map(vd_server_dma(dev.s), addr, 0x800, MT_DMA_WRITE,
	    MT_ATTRS_NONE, m) == 0);
}

/* Is the next message the reply to id, without an error? */
static bool
replied(uint16_t id)
{
	struct v_reply r;

	return (v_serve_until(dev.s, fd) && v_recv(fd, &r) &&
	    r.hdr.id == id && v_errno(&r) == 0);
}

static void
give_back_lent(struct v_dev *d, enum vd_reset why)
{
	(void)why;
	if (d->lent != NULL)
		mt_dma_unmap(d->lent, 0);
	d->lent = NULL;
}

static void
test_reset(void)
{
	static const struct { const char *name; uint64_t addr; } t[] = {
		{ "shared", 0x10000 }, { "shared, of no page", 0x40200 },
	};
	struct vd_device_info di = { .argsz = 16 };
	struct mt_mapping m, n;
	char words[10];
	size_t i;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	must(map(0x40123, 0x1000, 3, 0x20123) == 0);
	must(map_fds(0x80000, 0x10000, 3, 0, NULL, 0) == 0);
	must(map(0xa0000, 0x1000, 0, 0) == 0);
	for (i = 0; i < T_COUNT(t); i++) {
		diag("memory that is %s", t[i].name);
		lend(t[i].addr, &m);
		must(v_send(fd, 5, VD_CMD_DEVICE_RESET, NULL, 0));
		must(v_send(fd, 6, VD_CMD_DEVICE_GET_INFO, &di, 16));
		ok(v_serve(dev.s, 50) != -1 && !v_readable(fd, 0),
		    "a reset waits until it is given back");
		is_int(dev.resets[VD_RESET_DEVICE], 2 * i + 1,
		    "the device was told");
		is_int(mt_dma_map(vd_server_dma(dev.s), t[i].addr, 8,
		    MT_DMA_WRITE, MT_ATTRS_NONE, &n), -1, "nothing is lent");
		is_int(vd_server_run(dev.s), 0, "and nothing to do");
		memcpy(m.ptr, "last words", 10);
		works(mt_dma_unmap(&m, 10), "the device does");
		ok(replied(5) && replied(6), "and the answers come");
		if (i == 0)
			ok(pread(mem, words, 10, 0) == 10 &&
			    memcmp(words, "last words", 10) == 0,
			    "what was written is in the file");
		set_command(6);
		lend(t[i].addr, &m);
		dev.lent = &m;
		dev.on_reset = give_back_lent;
		must(v_send(fd, 7, VD_CMD_DEVICE_RESET, NULL, 0));
		ok(replied(7), "it may hurry when it is told");
		set_command(6);
		lend(t[i].addr, &m);
		send_flr(8, VD_TYPE_COMMAND);
		v_serve(dev.s, 20);
		ok(!v_readable(fd, 0), "an FLR waits, too");
		mt_dma_unmap(&m, 0);
		ok(replied(8), "and is answered");
		set_command(6);
		lend(t[i].addr, &m);
		send_flr(9, VD_TYPE_COMMAND | VD_NO_REPLY);
		must(v_send(fd, 10, VD_CMD_DEVICE_GET_INFO, &di, 16));
		v_serve(dev.s, 20);
		ok(!v_readable(fd, 0), "so does what follows one");
		mt_dma_unmap(&m, 0);
		ok(replied(10), "that nobody wants answered");
		set_command(6);
	}
	lend(0x80000, &m);
	must(m.bounced);
	must(v_send(fd, 11, VD_CMD_DEVICE_RESET, NULL, 0));
	ok(v_serve(dev.s, 20) != -1 && !v_readable(fd, 0),
	    "it waits for what is staged of memory without a file");
	mt_dma_unmap(&m, 0);
	ok(replied(11), "until that is given back");
	set_command(6);
	ok(readable_at(0x10000) && readable_at(0x1ffff) &&
	    !readable_at(0x20000) && readable_at(0x40123) &&
	    readable_at(0x41122) && !readable_at(0x40122) &&
	    !readable_at(0x41123), "the memory is where it was");
	must(mt_space_store_le32(vd_server_dma(dev.s), 0x40200,
	    0x01020304) == MT_OK);
	ok(pread(mem, words, 4, 0x20200) == 4 &&
	    memcmp(words, "\4\3\2\1", 4) == 0, "and the same");
	is_int(map(0x10000, 0x10000, 3, 0), 0, "it counts as mapped");
	is_int(map(0x8f000, 0x1000, 3, 0), EEXIST, "and is in the way");
	is_int(unmap(0x10000, 0x10000, 0), 0, "some of it can be taken back");
	is_int(unmap(0, 0, VD_UNMAP_ALL), 0, "and the rest");
	is_int(dev.maps + dev.unmaps, 8, "the device heard of nothing else");
	is_int(t_count_fds(), base_fds, "no descriptor is kept");
	end();
}

/* Many FLRs, and a device that may be a bus master between them. */
static void
test_many_flrs(void)
{
	const struct vd_write_one flr = { flr_at(), 7, 2, { 0, 0x80 } },
	    master = { 4, 7, 2, { 6 } };
	const struct vd_write_multi multi = { 40 };
	uint8_t req[8 + 40 * sizeof(flr)];
	struct vd_write_multi done;
	struct mt_mapping m;
	struct v_reply r;
	size_t i;

	must(map(0x10000, 0x10000, 3, 0) == 0);
	lend(0x10000, &m);
	memcpy(req, &multi, 8);
	for (i = 0; i < 40; i++)
		memcpy(req + 8 + i * sizeof(flr), i % 2 == 0 ? &flr : &master,
		    sizeof(flr));
	must(v_send(fd, 5, VD_CMD_REGION_WRITE_MULTI, req, sizeof(req)));
	v_serve(dev.s, 20);
	ok(!v_readable(fd, 0), "FLRs in one message wait");
	mt_dma_unmap(&m, 0);
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && r.len == 8 &&
	    v_errno(&r) == 0, "and are answered");
	memcpy(&done, r.data, 8);
	ok(done.count == 2 && dev.resets[VD_RESET_FLR] == 1,
	    "the second one is not done");
	set_command(6);
	ok(readable_at(0x10000), "the memory is there");
}

/* How many pieces of a memfd of this name are mapped. */
static unsigned int
mapped(const char *name)
{
	char line[256];
	unsigned int n = 0;
	FILE *fp;

	must((fp = fopen("/proc/self/maps", "r")) != NULL);
	while (fgets(line, sizeof(line), fp) != NULL)
		n += strstr(line, name) != NULL;
	fclose(fp);
	return (n);
}

/* A client leaves while its reset waits. */
static void
test_reset_lost(void)
{
	struct mt_mapping m;
	int named = memfd_create("t-reset", MFD_CLOEXEC);

	must(named != -1 && ftruncate(named, 0x10000) == 0);
	begin();
	must(map_fds(0x10000, 0x10000, 3, 0, &named, 1) == 0);
	lend(0x10000, &m);
	must(v_send(fd, 5, VD_CMD_DEVICE_RESET, NULL, 0));
	v_serve(dev.s, 10);
	close(fd);
	fails(v_serve(dev.s, 0), ENOTCONN,
	    "a client leaves while its reset waits");
	must(mt_topology_sync(dev.t) == 0);
	is_int(mapped("t-reset"), 1, "its memory stays as long as it is held");
	memcpy(m.ptr, "too late", 8);
	fd = v_attach(dev.s);
	set_command(6);
	must(map(0x10000, 0x10000, 3, 0) == 0);
	must(v_send(fd, 6, VD_CMD_DEVICE_RESET, NULL, 0));
	ok(replied(6), "the next one's reset does not wait for it");
	works(mt_dma_unmap(&m, 8), "it is given back");
	must(mt_topology_sync(dev.t) == 0);
	is_int(mapped("t-reset"), 0, "and is gone");
	close(named);
	end();
}

static _Atomic(bool) stop_scribbling;
static _Atomic(unsigned int) scribbled;

/* A device's thread: write where it is allowed to, and take its time. */
static void *
scribble(void *arg)
{
	const uint64_t addr = 0x10000 + (uint64_t)(uintptr_t)arg * 0x1000;
	struct mt_mapping m;

	while (!stop_scribbling) {
		if (mt_dma_map(vd_server_dma(dev.s), addr, 0x1000,
		    MT_DMA_WRITE, MT_ATTRS_NONE, &m) == -1) {
			usleep(50);
			continue;
		}
		memset(m.ptr, 0xa5, 0x800);
		usleep(500);
		memset((uint8_t *)m.ptr + 0x800, 0x5a, 0x800);
		mt_dma_unmap(&m, 0x1000);
		scribbled++;
	}
	return (NULL);
}

/* Is memory that the client takes for something else left alone? */
static bool
left_alone(void)
{
	static uint8_t zero[0x4000], now[0x4000];

	must(pwrite(mem, zero, sizeof(zero), 0) == sizeof(zero));
	usleep(3000);
	must(pread(mem, now, sizeof(now), 0) == sizeof(now));
	return (memcmp(now, zero, sizeof(zero)) == 0);
}

/* Resets and unmaps, while threads of the device are at work. */
static void
test_load(void)
{
	pthread_t th[4];
	bool reset = true, flr = true, unmapped = true;
	unsigned int n;
	uintptr_t i;

	begin();
	must(map(0x10000, 0x4000, 3, 0) == 0);
	stop_scribbling = false;
	for (i = 0; i < T_COUNT(th); i++)
		must(pthread_create(&th[i], NULL, scribble, (void *)i) == 0);
	for (i = 0; i < 60; i++) {
		for (n = scribbled; scribbled < n + 8;)
			usleep(50);
		switch (i % 3) {
		case 0:
			must(v_send(fd, 5, VD_CMD_DEVICE_RESET, NULL, 0));
			reset = replied(5) && left_alone() && reset;
			set_command(6);
			break;
		case 1:
			send_flr(5, VD_TYPE_COMMAND);
			flr = replied(5) && left_alone() && flr;
			set_command(6);
			break;
		case 2:
			unmapped = unmap(0x10000, 0x4000, 0) == 0 &&
			    left_alone() && unmapped;
			must(map(0x10000, 0x4000, 3, 0) == 0);
			break;
		}
	}
	stop_scribbling = true;
	for (i = 0; i < T_COUNT(th); i++)
		must(pthread_join(th[i], NULL) == 0);
	ok(reset, "after a reset nothing is written by a busy device");
	ok(flr, "nor after an FLR");
	ok(unmapped, "nor after an unmap");
	end();
}

/* Does another server answer its client meanwhile? */
static bool
other_goes_on(struct v_dev *other, int other_fd)
{
	struct vd_device_info di = { .argsz = 16 };
	const struct vd_dma_map map_req = { 32, 3, 0, 0x1000, 0x1000 };
	const struct vd_dma_unmap unmap_req = { 24, 0, 0x1000, 0x1000 };
	struct v_reply r;

	return (v_call(other->s, other_fd, VD_CMD_DEVICE_GET_INFO, &di, 16,
	    &r) && v_errno(&r) == 0 &&
	    v_call_fds(other->s, other_fd, VD_CMD_DMA_MAP, &map_req, 32, &mem,
	    1, &r) && v_errno(&r) == 0 &&
	    v_call(other->s, other_fd, VD_CMD_DMA_UNMAP, &unmap_req, 24, &r) &&
	    v_errno(&r) == 0 &&
	    v_call(other->s, other_fd, VD_CMD_DEVICE_RESET, NULL, 0, &r) &&
	    v_errno(&r) == 0);
}

static void
test_others(void)
{
	struct v_dev other;
	struct mt_mapping m;
	int other_fd;

	begin();
	v_dev_create(&other);
	other_fd = v_attach(other.s);
	must(map(0x10000, 0x10000, 3, 0) == 0);
	lend(0x10000, &m);
	must(v_send(fd, 5, VD_CMD_DEVICE_RESET, NULL, 0));
	v_serve(dev.s, 10);
	ok(other_goes_on(&other, other_fd) && !v_readable(fd, 0),
	    "while a reset waits other devices are served");
	mt_dma_unmap(&m, 0);
	ok(replied(5), "up to its end");
	set_command(6);
	lend(0x10000, &m);
	send_unmap(6, 0x10000, 0x10000, 0);
	v_serve(dev.s, 10);
	ok(other_goes_on(&other, other_fd) && !v_readable(fd, 0),
	    "and while an unmap waits");
	mt_dma_unmap(&m, 0);
	ok(replied(6), "up to its end");
	close(other_fd);
	v_serve(other.s, 0);
	v_dev_destroy(&other);
	end();
}

static void
test_lost(void)
{
	struct mt_mapping m;
	struct vd_device_info di = { .argsz = 16 };
	struct v_reply r;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	must(mt_dma_map(vd_server_dma(dev.s), 0x10000, 16, MT_DMA_WRITE,
	    MT_ATTRS_NONE, &m) == 0);
	send_unmap(5, 0x10000, 0x10000, 0);
	v_serve(dev.s, 10);
	close(fd);
	fails(v_serve(dev.s, 0), ENOTCONN,
	    "a client leaves while its unmap waits");
	fd = v_attach(dev.s);
	ok(v_call(dev.s, fd, VD_CMD_DEVICE_GET_INFO, &di, 16, &r) &&
	    v_errno(&r) == 0, "the next one is served");
	ok(!readable_at(0x10000), "and its memory space is empty");
	is_int(map(0x10000, 0x10000, 3, 0), 0, "it maps the same addresses");
	send_unmap(6, 0x10000, 0x10000, 0);
	ok(v_serve_until(dev.s, fd) && v_recv(fd, &r) && r.hdr.id == 6,
	    "and unmaps them, though the old memory is still held");
	memcpy(m.ptr, "too late", 8);
	works(mt_dma_unmap(&m, 8), "which can be given back now");
	v_serve(dev.s, 50);
	ok(!v_readable(vd_server_fd(dev.s), 0) && !v_readable(fd, 0),
	    "nobody hears of that");
	must(map(0x10000, 0x10000, 3, 0) == 0);
	close(fd);
	fails(v_serve(dev.s, 0), ENOTCONN, "it leaves as well");
	fd = -1;
	ok(!readable_at(0x10000), "and takes its memory along");
	end();
}

/* What was staged of a client's memory is that client's, or nobody's. */
static void
test_lost_staged(void)
{
	uint8_t zero[8] = { 0 }, now[8];
	struct mt_mapping m, n;

	begin();
	must(map_fds(0x10000, 0x1000, 3, 0, NULL, 0) == 0);
	must(map_fds(0x20000, 0x1000, 3, 0, NULL, 0) == 0);
	lend(0x10000, &m);
	must(m.bounced);
	send_unmap(5, 0x20000, 0x1000, 0);
	ok(replied(5), "staged memory does not keep other memory");
	send_unmap(6, 0x10000, 0x1000, 0);
	v_serve(dev.s, 20);
	ok(!v_readable(fd, 0), "but its own");
	mt_dma_unmap(&m, 0);
	ok(replied(6), "until it is given back");

	must(map_fds(0x10000, 0x1000, 3, 0, NULL, 0) == 0);
	must(map_fds(0x20000, 0x1000, 3, 0, NULL, 0) == 0);
	lend(0x10000, &m);
	lend(0x20000, &n);
	close(fd);
	fails(v_serve(dev.s, 0), ENOTCONN, "a client leaves");
	fd = v_attach(dev.s);
	set_command(6);
	must(map(0x10000, 0x1000, 3, 0) == 0);
	must(map_fds(0x20000, 0x1000, 3, 0, NULL, 0) == 0);
	memcpy(m.ptr, "too late", 8);
	memcpy(n.ptr, "too late", 8);
	fails(mt_dma_unmap(&m, 8), EIO, "what is given back then is lost");
	fails(mt_dma_unmap(&n, 8), EIO, "all of it");
	ok(pread(mem, now, 8, 0) == 8 && memcmp(now, zero, 8) == 0,
	    "and not in the next one's memory");
	v_serve(dev.s, 20);
	ok(!v_readable(fd, 0), "which hears of nothing");
	end();
}

static void *
give_back(void *arg)
{
	usleep(50000);
	mt_dma_unmap(arg, 0);
	return (NULL);
}

static void
test_destroy(void)
{
	struct mt_mapping m;
	pthread_t th;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	must(mt_dma_map(vd_server_dma(dev.s), 0x10000, 16, MT_DMA_READ,
	    MT_ATTRS_NONE, &m) == 0);
	must(pthread_create(&th, NULL, give_back, &m) == 0);
	close(fd);
	close(mem);
	v_dev_destroy(&dev);
	ok(m.ptr == NULL, "a server ends when its memory is given back");
	pthread_join(th, NULL);
}

static void
test_master(void)
{
	struct vd_region_access a = { 4, 7, 2 };
	uint8_t req[18];
	struct v_reply r;

	begin();
	must(map(0x10000, 0x10000, 3, 0) == 0);
	memcpy(req, &a, 16);
	memcpy(req + 16, "\x02\x00", 2);
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, req, 18, &r));
	ok(!readable_at(0x10000), "without bus mastering nothing is seen");
	is_int(map(0x40000, 0x10000, 3, 0), 0, "but it can be mapped");
	memcpy(req + 16, "\x06\x00", 2);
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, req, 18, &r));
	ok(readable_at(0x10000) && readable_at(0x40000), "with it, all is");
	must(v_call(dev.s, fd, VD_CMD_DEVICE_RESET, NULL, 0, &r));
	ok(!readable_at(0x10000), "a reset turns it off");
	must(v_call(dev.s, fd, VD_CMD_REGION_WRITE, req, 18, &r));
	ok(readable_at(0x10000), "but forgets no memory");
	end();
}

/*
 * Firmware has RAM cut into pieces of 4 KiB pages, whatever it is made of; but
 * what was mapped of huge pages can be unmapped only as whole ones.
 */
static void
test_huge(void)
{
	int huge = memfd_create("t-huge", MFD_CLOEXEC | MFD_HUGETLB);
	void *p = MAP_FAILED;

	if (huge != -1 && ftruncate(huge, 4 << 20) == 0)
		p = mmap(NULL, 4 << 20, PROT_READ, MAP_SHARED, huge, 0);
	if (p == MAP_FAILED) {
		skip(7, "no huge pages");
		if (huge != -1)
			close(huge);
		return;
	}
	begin();
	is_int(map_fds(0, 0xa0000, 3, 0, &huge, 1), 0,
	    "huge pages up to the middle of one");
	is_int(map_fds(0xa0000, 0x20000, 1, 0xa0000, &huge, 1), 0,
	    "a piece of that");
	is_int(map_fds(0xc0000, 0x340000, 3, 0xc0000, &huge, 1), 0,
	    "the rest, and another");
	ok(readable_at(0x9f000) && readable_at(0xbf000) &&
	    readable_at(0x3ff000) && !readable_at(0x400000),
	    "all that was mapped can be read, and no more");
	is_int(unmap(0, 0xa0000, 0) + unmap(0xa0000, 0x20000, 0), 0,
	    "they are unmapped");
	is_int(unmap(0xc0000, 0x340000, 0), 0, "and the rest");
	munmap(p, 4 << 20);
	close(huge);
	is_int(mapped("t-huge"), 0, "nothing of them stays mapped");
	end();
}

static void
test_limit(void)
{
	struct vd_server_limits limits = { .max_dma_regions = 3 };

	v_dev_create(&dev);
	must(vd_server_set_limits(dev.s, &limits) == 0);
	mem = v_memfd(1 << 20);
	fd = v_attach(dev.s);
	must(map(0x1000, 0x1000, 3, 0) == 0);
	must(map(0x2000, 0x1000, 3, 0) == 0);
	must(map(0x3000, 0x1000, 3, 0) == 0);
	is_int(map(0x4000, 0x1000, 3, 0), ENOSPC, "there is a limit");
	is_int(map(0x3000, 0x1000, 3, 0), 0, "what is there is not counted");
	is_int(unmap(0x2000, 0x1000, 0), 0, "one goes");
	is_int(map(0x4000, 0x1000, 3, 0), 0, "another can come");
	end();
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_map();
	test_kinds();
	test_unmap();
	test_deferred();
	test_reset();
	begin();
	test_many_flrs();
	end();
	test_reset_lost();
	test_load();
	test_others();
	test_lost();
	test_lost_staged();
	test_destroy();
	test_master();
	test_limit();
	test_huge();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
