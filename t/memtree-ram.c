/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Where the bytes of memory live, of whatever kind it is. */

#include <sys/mman.h>
#include <sys/stat.h>

#include <fcntl.h>

#include "t/kinds.h"

#define SIZE	0x4000

static int
make_file(void)
{
	uint8_t buf[2 * SIZE];
	size_t i;
	int fd;

	for (i = 0; i < sizeof(buf); i++)
		buf[i] = (uint8_t)(i / 0x100);
	must((fd = memfd_create("test", MFD_CLOEXEC)) != -1);
	must(write(fd, buf, sizeof(buf)) == (ssize_t)sizeof(buf));
	return (fd);
}

static void
test_refused(create_fn *create, const char *name)
{
	struct mt_topology *t = t_topology();
	size_t fds = t_count_fds();
	_Alignas(8) uint8_t mem[16];
	off_t page = sysconf(_SC_PAGESIZE);
	int fd = make_file(), ro, p[2];
	const struct {
		struct mt_backing backing;
		mt_addr last;
		int error;
		const char *what;
	} tries[] = {
		{ { .kind = MT_BACKING_PTR }, 15, EINVAL, "a NULL ptr" },
		{ { .kind = MT_BACKING_ANON, .flags = 1u << 31 }, 15, EINVAL,
		    "an unknown flag" },
		{ { .kind = MT_BACKING_PTR, .ptr = mem, .flags = 1u << 2 },
		    15, EINVAL, "another unknown flag" },
		{ { .kind = (enum mt_backing_kind)77 }, 15, EINVAL,
		    "an unknown kind of backing" },
		{ { .kind = MT_BACKING_FD, .fd = fd, .fd_off = -page }, 15,
		    EINVAL, "a negative offset" },
		{ { .kind = MT_BACKING_FD, .fd = fd, .fd_off = page / 2 }, 15,
		    EINVAL, "an unaligned offset" },
		{ { .kind = MT_BACKING_FD, .fd = -1 }, 15, EBADF,
		    "no file" },
		{ { .kind = MT_BACKING_ANON }, MT_LAST_MAX, EFBIG,
		    "2^64 bytes" },
		{ { .kind = MT_BACKING_ANON }, PTRDIFF_MAX, EFBIG,
		    "more than PTRDIFF_MAX bytes" },
		{ { .kind = MT_BACKING_MEMFD }, PTRDIFF_MAX, EFBIG,
		    "so many in a memfd" },
		{ { .kind = MT_BACKING_FD, .fd = fd }, PTRDIFF_MAX, EFBIG,
		    "so many in a file" },
		{ { .kind = MT_BACKING_PTR, .ptr = mem }, MT_LAST_MAX, EFBIG,
		    "so many at a pointer" },
	};
	struct mt_backing bad;
	char path[64];
	size_t i;

	for (i = 0; i < T_COUNT(tries); i++)
		fails_null(create(t, "x", tries[i].last, &tries[i].backing),
		    tries[i].error, "%s of %s is refused", name,
		    tries[i].what);
	must(pipe(p) == 0);
	bad = (struct mt_backing){ .kind = MT_BACKING_FD, .fd = p[0] };
	errno = 0;
	ok(create(t, "x", 15, &bad) == NULL && errno != 0,
	    "%s of a pipe is refused", name);
	close(p[0]);
	close(p[1]);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if ((ro = open(path, O_RDONLY | O_CLOEXEC)) != -1) {
		bad = (struct mt_backing){ .kind = MT_BACKING_FD, .fd = ro };
		if (create == mt_region_create_ram)
			fails_null(create(t, "x", 15, &bad), EACCES,
			    "%s of a file that cannot be written is refused",
			    name);
		close(ro);
	}
	close(fd);
	works(mt_topology_sync(t), "wait");
	is_int(t_count_fds(), fds, "and no file is left open");
	t_end(t);
}

static void
test_anon(create_fn *create, const char *name)
{
	static const struct mt_backing anon = { .kind = MT_BACKING_ANON };
	static const uint8_t zero[SIZE];
	struct mt_topology *t = t_topology();
	struct mt_region *r;

	must((r = create(t, "r", MT_SIZE(SIZE), NULL)) != NULL);
	ok(mt_region_ptr(r) != NULL, "%s has memory", name);
	is_mem(mt_region_ptr(r), zero, SIZE, "that is 0");
	memset(mt_region_ptr(r), 0xff, SIZE);
	fails(mt_region_fd(r, NULL), ENOENT, "and no file");
	mt_region_put(r);
	must((r = create(t, "r", 0, &anon)) != NULL);
	is_int(*(uint8_t *)mt_region_ptr(r), 0, "a byte of it, too");
	mt_region_put(r);
	must((r = create(t, "r", 0x1800, &anon)) != NULL);
	memset(mt_region_ptr(r), 0xff, 0x1801);
	mt_region_put(r);
	t_end(t);
}

static void
test_memfd(create_fn *create, const char *name)
{
	static const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct mt_topology *t = t_topology();
	size_t fds = t_count_fds();
	struct mt_region *r;
	struct stat st;
	uint8_t byte = 0;
	off_t off = -1;
	void *p;
	int fd;

	if ((r = create(t, "r", MT_SIZE(SIZE), &memfd)) == NULL &&
	    errno == ENOSYS) {
		skip(7, "no memfd");
		t_end(t);
		return;
	}
	must(r != NULL);
	fd = mt_region_fd(r, &off);
	ok(fd >= 0, "%s of a memfd has a file", name);
	is_int(off, 0, "from its beginning");
	ok(fstat(fd, &st) == 0 && st.st_size >= SIZE, "of its size");
	is_int(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC,
	    "that is not inherited");
	((uint8_t *)mt_region_ptr(r))[SIZE - 1] = 0x42;
	ok(pread(fd, &byte, 1, SIZE - 1) == 1 && byte == 0x42,
	    "what is written is in the file");
	p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(p != MAP_FAILED);
	*(uint8_t *)p = 0x43;
	is_int(*(uint8_t *)mt_region_ptr(r), 0x43,
	    "and what another mapping of it writes is there");
	munmap(p, SIZE);
	mt_region_put(r);
	works(mt_topology_sync(t), "wait");
	is_int(t_count_fds(), fds, "the file is closed in the end");
	t_end(t);
}

static void
test_ptr(create_fn *create, const char *name)
{
	struct mt_topology *t = t_topology();
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	struct mt_region *r;
	int owner = 0;

	must((backing.ptr = malloc(SIZE)) != NULL);
	memset(backing.ptr, 0x33, SIZE);
	must((r = create(t, "r", MT_SIZE(SIZE), &backing)) != NULL);
	must(mt_region_set_owner(r, &owner, t_put) == 0);
	ok(mt_region_ptr(r) == backing.ptr, "%s is where the caller has it",
	    name);
	fails(mt_region_fd(r, NULL), ENOENT, "and has no file");
	mt_region_put(r);
	is_int(t_puts_of(t, &owner), 1, "when it goes");
	is_int(((uint8_t *)backing.ptr)[SIZE - 1], 0x33,
	    "the memory stays as it is");
	free(backing.ptr);
	t_end(t);
}

static void
test_fd(create_fn *create, const char *name)
{
	struct mt_topology *t = t_topology();
	off_t page = sysconf(_SC_PAGESIZE), off = -1;
	struct mt_backing backing = { .kind = MT_BACKING_FD,
	    .fd_off = page };
	size_t fds = t_count_fds();
	struct mt_region *r;
	uint8_t byte = 0;
	struct stat a, b;
	int fd;

	backing.fd = make_file();
	must((r = create(t, "r", MT_SIZE(SIZE), &backing)) != NULL);
	is_int(*(uint8_t *)mt_region_ptr(r), page / 0x100,
	    "%s of a file begins at its offset", name);
	fails(mt_region_fd(r, NULL), ENOENT, "it does not keep the file");
	is_int(t_count_fds(), fds + 1, "at all");
	*(uint8_t *)mt_region_ptr(r) = 0x99;
	ok(pread(backing.fd, &byte, 1, page) == 1 && byte == 0x99,
	    "what is written is in the file");
	mt_region_put(r);

	backing.flags = MT_BACKING_KEEP_FD;
	must((r = create(t, "r", MT_SIZE(SIZE), &backing)) != NULL);
	must(fstat(backing.fd, &a) == 0);
	close(backing.fd);
	fd = mt_region_fd(r, &off);
	ok(fd != -1 && fstat(fd, &b) == 0 && a.st_ino == b.st_ino &&
	    a.st_dev == b.st_dev, "it keeps one of its own if asked to");
	is_int(off, page, "and knows its offset");
	is_int(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC,
	    "which is not inherited");
	is_int(((uint8_t *)mt_region_ptr(r))[0], 0x99, "the caller's may go");
	mt_region_put(r);
	works(mt_topology_sync(t), "wait");
	is_int(t_count_fds(), fds, "no file is left open");
	t_end(t);
}

/* Memory that must not be written by us, whatever is asked for. */
static void
test_rdonly(void)
{
	struct mt_topology *t = t_topology();
	struct mt_backing backing = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_RDONLY };
	struct mt_attrs debug = { .debug = 1 };
	struct mt_mapping map;
	struct mt_region *r;
	struct mt_space *sp;
	char path[64];
	uint8_t byte;
	int fd;

	fd = make_file();
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if ((backing.fd = open(path, O_RDONLY | O_CLOEXEC)) == -1) {
		skip(10, "no /proc");
		close(fd);
		t_end(t);
		return;
	}
	must((r = mt_region_create_ram(t, "r", MT_SIZE(SIZE), &backing)) !=
	    NULL);
	close(backing.fd);
	sp = t_space(r);
	is_read(sp, 0x100, 2, "0101", "RAM of a read-only mapping is read");
	is_int(mt_space_write(sp, 0x100, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "and not written");
	is_int(mt_space_write(sp, 0x100, "a", 1, debug), MT_DECODE,
	    "not even by a debugger");
	is_int(mt_space_write_rom(sp, 0x100, "a", 1, MT_ATTRS_NONE),
	    MT_DECODE, "nor as ROM");
	is_int(mt_space_set(sp, 0x100, 'a', 1, MT_ATTRS_NONE), MT_DECODE,
	    "nor set");
	is_int(mt_space_store_u8(sp, 0x100, 'a'), MT_DECODE, "nor stored");
	ok(!mt_space_valid(sp, 0x100, 1, true, MT_ATTRS_NONE),
	    "nor is that valid");
	works(mt_dma_map(sp, 0x100, 4, MT_DMA_READ, MT_ATTRS_NONE, &map),
	    "it is mapped for reading");
	ok(!map.bounced, "in place");
	works(mt_dma_unmap(&map, 0), "unmap");
	if (mt_dma_map(sp, 0x100, 4, MT_DMA_WRITE, MT_ATTRS_NONE, &map) == 0) {
		ok(map.bounced, "but not for writing");
		memset(map.ptr, 'a', map.len);
		fails(mt_dma_unmap(&map, map.len), EIO,
		    "which is refused in the end");
	} else {
		ok(true, "but not for writing");
		ok(map.ptr == NULL, "at all");
	}
	ok(pread(fd, &byte, 1, 0x100) == 1 && byte == 1,
	    "and the file is as it was");
	close(fd);
	t_end_space(t, sp, r);
}

/* The same of memory that the caller has. */
static void
test_rdonly_ptr(void)
{
	static uint8_t mem[16] = "read-only";
	struct mt_topology *t = t_topology();
	struct mt_backing backing = { .kind = MT_BACKING_PTR,
	    .flags = MT_BACKING_RDONLY, .ptr = mem };
	struct mt_region *r;
	struct mt_space *sp;

	must((r = mt_region_create_ram(t, "r", 15, &backing)) != NULL);
	sp = t_space(r);
	is_read(sp, 0, 4, "72656164", "memory at a pointer is read");
	is_int(mt_space_write(sp, 0, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "and not written if it is said to be read-only");
	is_int(mt_space_write_rom(sp, 0, "a", 1, MT_ATTRS_NONE), MT_DECODE,
	    "nor as ROM");
	is_str((char *)mem, "read-only", "and is as it was");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(r);
	backing.flags = 0;
	must((r = mt_region_create_ram(t, "r", 15, &backing)) != NULL);
	sp = t_space(r);
	works(mt_space_write(sp, 0, "R", 1, MT_ATTRS_NONE), "else it is");
	is_str((char *)mem, "Read-only", "in place");
	t_end_space(t, sp, r);
}

int
main(void)
{
	size_t i;

	for (i = 0; i < T_COUNT(kinds); i++) {
		test_refused(kinds[i].create, kinds[i].name);
		test_anon(kinds[i].create, kinds[i].name);
		test_memfd(kinds[i].create, kinds[i].name);
		test_ptr(kinds[i].create, kinds[i].name);
		test_fd(kinds[i].create, kinds[i].name);
	}
	test_rdonly();
	test_rdonly_ptr();
	return (done());
}
