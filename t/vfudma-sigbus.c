/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Memory that goes away while it is used: who survives, who is dropped, and
 * who hears of a SIGBUS that is none of ours.
 */

#include <sys/resource.h>
#include <sys/wait.h>

#include <sched.h>
#include <setjmp.h>

#include "libvfudma/internal.h"
#include "t/vfu.h"

#define PAGE		0x1000
#define SIZE		(1 << 20)
#define IOVA		0x10000

/* --- a server with a client ---------------------------------------------- */

struct rig {
	struct v_dev dev;
	struct mt_space *sp;
	int fd;			/* the client's end */
	int mem;
};

static int
map(struct rig *r, uint64_t addr, uint64_t size, uint64_t off)
{
	const struct vd_dma_map m = { 32, 3, off, addr, size };
	struct v_reply reply;

	if (!v_call_fds(r->dev.s, r->fd, VD_CMD_DMA_MAP, &m, sizeof(m),
	    &r->mem, 1, &reply))
		return (-1);
	return (v_errno(&reply));
}

/* A client that has bus mastering on and has shared SIZE bytes at IOVA. */
static void
attach(struct rig *r)
{
	const struct vd_region_access a = { 4, VD_REGION_CONFIG, 2 };
	struct v_reply reply;
	uint8_t req[18];

	r->mem = v_memfd(SIZE);
	r->fd = v_attach(r->dev.s);
	memcpy(req, &a, 16);
	memcpy(req + 16, "\x06\x00", 2);
	must(v_call(r->dev.s, r->fd, VD_CMD_REGION_WRITE, req, 18, &reply) &&
	    v_errno(&reply) == 0);
	must(map(r, IOVA, SIZE, 0) == 0);
}

static void
leave(struct rig *r)
{
	close(r->fd);
	close(r->mem);
	v_serve(r->dev.s, 0);
}

static void
begin(struct rig *r)
{
	v_dev_create(&r->dev);
	r->sp = vd_server_dma(r->dev.s);
	attach(r);
}

static void
end(struct rig *r)
{
	leave(r);
	v_dev_destroy(&r->dev);
}

static bool
is_zero(struct rig *r, uint64_t addr)
{
	uint32_t val = 1;

	return (mt_space_load_le32(r->sp, addr, &val) == MT_OK && val == 0);
}

/* A page whose file has none. */
static uint8_t *
bad_page(void)
{
	int fd = v_memfd(PAGE);
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must(p != MAP_FAILED && ftruncate(fd, 0) == 0);
	close(fd);
	return (p);
}

/* --- children that may die ----------------------------------------------- */

/* Run fn in a child whose SIGBUS does what it does by default. */
static int
status_of(void (*fn)(void))
{
	static const struct rlimit none = { 0, 0 };
	int status;
	pid_t pid;

	fflush(stdout);
	if ((pid = fork()) == 0) {
		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL);
		alarm(30);
		fn();
		_exit(0);
	}
	must(pid != -1 && waitpid(pid, &status, 0) == pid);
	return (status);
}
#define dies(fn, ...)							\
do {									\
	int status_ = status_of(fn);					\
									\
	ok(WIFSIGNALED(status_) && WTERMSIG(status_) == SIGBUS, __VA_ARGS__); \
} while (0)
#define lives(fn, ...)	is_int(status_of(fn), 0, __VA_ARGS__)

/* What must be so in a child. */
#define need(expr)	do { if (!(expr)) _exit(1); } while (0)

static void
touch(volatile uint8_t *p)
{
	(void)*p;
}

static void
unprotected(void)
{
	struct rig r;

	begin(&r);
	need(ftruncate(r.mem, 0) == 0);
	is_zero(&r, IOVA);
}

static void
too_late(void)
{
	struct rig r;

	begin(&r);
	need(vd_sigbus_protect() == 0 && ftruncate(r.mem, 0) == 0);
	is_zero(&r, IOVA);
}

static void
protected(void)
{
	struct rig r;

	need(vd_sigbus_protect() == 0);
	begin(&r);
	need(ftruncate(r.mem, 0) == 0);
	need(is_zero(&r, IOVA));
}

static void
own_fault(void)
{
	need(vd_sigbus_protect() == 0);
	touch(bad_page());
}

static void
sent(void)
{
	need(vd_sigbus_protect() == 0);
	kill(getpid(), SIGBUS);
	usleep(100000);
}

static void
sent_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	sent();
}

static void
fault_ignored(void)
{
	signal(SIGBUS, SIG_IGN);
	own_fault();
}

static sigjmp_buf out;
static volatile sig_atomic_t simple, detailed;
static void *volatile addr_told;
static volatile int mask_told;

static void
on_simple(int sig)
{
	simple += sig == SIGBUS;
	siglongjmp(out, 1);
}

static void
on_detailed(int sig, siginfo_t *si, void *context)
{
	sigset_t set;

	detailed += sig == SIGBUS && context != NULL;
	addr_told = si->si_addr;
	sigprocmask(SIG_BLOCK, NULL, &set);
	mask_told = sigismember(&set, SIGUSR1);
	siglongjmp(out, 1);
}

static void
simple_handler(void)
{
	uint8_t *p = bad_page();

	signal(SIGBUS, on_simple);
	need(vd_sigbus_protect() == 0);
	if (sigsetjmp(out, 1) == 0)
		touch(p);
	if (sigsetjmp(out, 1) == 0)
		kill(getpid(), SIGBUS);
	need(simple == 2);
}

static void
one_time_handler(void)
{
	struct sigaction sa = { .sa_handler = on_simple,
	    .sa_flags = (int)SA_RESETHAND };
	uint8_t *p = bad_page();

	sigaction(SIGBUS, &sa, NULL);
	need(vd_sigbus_protect() == 0);
	if (sigsetjmp(out, 1) == 0)
		touch(p);
	need(simple == 1);
	touch(p);
}

/* It leaves by a jump, and all goes on as if it had not been called. */
static void
detailed_handler(void)
{
	struct sigaction sa = { .sa_sigaction = on_detailed,
	    .sa_flags = SA_SIGINFO };
	uint8_t *p = bad_page();
	struct rig r;

	sigaddset(&sa.sa_mask, SIGUSR1);
	sigaction(SIGBUS, &sa, NULL);
	need(vd_sigbus_protect() == 0 && vd_sigbus_protect() == 0);
	if (sigsetjmp(out, 1) == 0)
		touch(p + 0x123);
	need(detailed == 1 && addr_told == p + 0x123 && mask_told == 1);
	begin(&r);
	need(ftruncate(r.mem, 0) == 0);
	need(is_zero(&r, IOVA) && detailed == 1);
	leave(&r);
	vd_server_destroy(r.dev.s);
}

/* Let the process have more bytes than it has, and no more. */
static void
limit_room(size_t more)
{
	struct rlimit limit;
	unsigned long pages;
	FILE *fp;

	need((fp = fopen("/proc/self/statm", "r")) != NULL);
	need(fscanf(fp, "%lu", &pages) == 1);
	limit.rlim_cur = limit.rlim_max = pages * PAGE + more;
	need(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* Nothing as large as the mapping can be had: one page has to do. */
static void
no_room(void)
{
	const size_t len = (size_t)1 << 30;
	int fd = v_memfd(len);
	struct vd__sigbus_mark mark = { .fd = -1 };
	struct vd__sigbus_range range;
	uint8_t *p;

	need(vd_sigbus_protect() == 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(p != MAP_FAILED);
	memset(p, 1, 16 * PAGE);
	vd__sigbus_add(&range, p, len, PAGE, &mark, 1);
	need(ftruncate(fd, 8 * PAGE) == 0);
	limit_room(len / 2);
	need(p[8 * PAGE] == 0 && p[9 * PAGE + 5] == 0);
	need(p[7 * PAGE] == 1 && mark.lost == 1);
	vd__sigbus_del(&range);
}

/* Not even a page can be had: what is put there takes the place of another. */
static void
no_room_at_all(void)
{
	const size_t len = 16 * PAGE;
	int fd = v_memfd(len);
	struct vd__sigbus_mark mark = { .fd = -1 };
	struct vd__sigbus_range range;
	unsigned int i;
	uint8_t *p;

	need(vd_sigbus_protect() == 0);
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	need(p != MAP_FAILED);
	vd__sigbus_add(&range, p, len, PAGE, &mark, 1);
	need(ftruncate(fd, 8 * PAGE) == 0);
	limit_room(0);
	for (i = 8; i < 16; i++)
		need(p[i * PAGE] == 0);
	need(mark.lost == 1);
	vd__sigbus_del(&range);
}

static void
test_children(void)
{
	dies(unprotected, "without protection a client ends the program");
	dies(too_late, "and with protection that came after its memory");
	lives(protected, "but not with protection");
	dies(own_fault, "a fault in other memory ends it by SIGBUS");
	dies(sent, "so does a SIGBUS that somebody sends");
	lives(sent_ignored, "unless that was ignored before");
	dies(fault_ignored, "which a fault cannot be");
	lives(simple_handler, "a handler that was there hears of both");
	dies(one_time_handler, "one that is there for one time, once");
	lives(detailed_handler, "one with siginfo gets it, and its mask");
	if (T_ASAN || T_TSAN) {
		skip(2, "sanitizers need room");
		return;
	}
	lives(no_room, "without room for all a page is replaced");
	lives(no_room_at_all, "without room for a page it is done in place");
}

/* --- servers ------------------------------------------------------------- */

#define HALF	(PAGE / 2)

static _Atomic(bool) stop;
static _Atomic(unsigned int) laps, users;

/*
 * Use all of a space's memory, one way or the other, until told to stop: two
 * threads do, each its half of every page.
 */
static void *
use(void *arg)
{
	struct rig *r = arg;
	struct mt_mapping m;
	uint8_t buf[HALF];
	unsigned int i, first = atomic_fetch_add(&users, 1) % 2 * HALF;

	while (!atomic_load(&stop)) {
		for (i = first; i < SIZE; i += PAGE) {
			mt_space_read(r->sp, IOVA + i, buf, HALF,
			    MT_ATTRS_NONE);
			mt_space_store_le32(r->sp, IOVA + i, i);
			if (mt_dma_map(r->sp, IOVA + i, HALF, MT_DMA_WRITE,
			    MT_ATTRS_NONE, &m) == 0) {
				__atomic_store_n((uint32_t *)m.ptr, i,
				    __ATOMIC_RELAXED);
				mt_dma_unmap(&m, HALF);
			}
		}
		atomic_fetch_add(&laps, 1);
	}
	return (NULL);
}

static void
wait_laps(unsigned int n)
{
	n += atomic_load(&laps);
	while ((int)(atomic_load(&laps) - n) < 0)
		usleep(100);
}

static void
test_threads(void)
{
	struct rig a, b;
	pthread_t threads[2];
	unsigned int i, resets;

	begin(&a);
	begin(&b);
	must(mt_space_store_le32(b.sp, IOVA, 0x12345678) == MT_OK);
	atomic_store(&stop, false);
	for (i = 0; i < 2; i++)
		must(pthread_create(&threads[i], NULL, use, &a) == 0);
	wait_laps(4);
	ok(!v_readable(vd_server_fd(a.dev.s), 0), "there is nothing to do");
	must(ftruncate(a.mem, SIZE / 2) == 0);
	wait_laps(4);
	ok(v_readable(vd_server_fd(a.dev.s), 0),
	    "a client's memory goes while two threads use it: there is");
	ok(!v_readable(vd_server_fd(b.dev.s), 0), "not for another server");
	resets = a.dev.resets[VD_RESET_LOST];
	fails(vd_server_run(a.dev.s), EFAULT, "the run says why");
	ok(!vd_server_connected(a.dev.s) && a.dev.disconnects == 1 &&
	    a.dev.unmaps == 1 && a.dev.resets[VD_RESET_LOST] == resets + 1,
	    "the client is dropped, and the device told of it");
	ok(strstr(a.dev.log, "made a file shorter") != NULL, "and the log");
	fails(vd_server_run(a.dev.s), ENOTCONN, "the next run has no client");
	v_serve(a.dev.s, 50);
	ok(!v_readable(vd_server_fd(a.dev.s), 0), "then nothing is left to do");
	atomic_store(&stop, true);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);

	is_read(b.sp, IOVA, 4, "78563412", "the other client has its memory");
	is_int(map(&b, 0x1000000, PAGE, 0), 0, "and is served");
	close(a.fd);
	close(a.mem);
	attach(&a);
	ok(vd_server_connected(a.dev.s) &&
	    mt_space_store_le32(a.sp, IOVA, 1) == MT_OK,
	    "the next client is served, too");
	end(&a);
	end(&b);
}

/* A mapping that outlives its client, and whose fault is not the next one's. */
static void
test_late(void)
{
	struct mt_mapping m;
	struct rig r;
	int old;

	begin(&r);
	must(mt_dma_map(r.sp, IOVA, PAGE, MT_DMA_READ, MT_ATTRS_NONE, &m) ==
	    0);
	close(r.fd);
	old = r.mem;
	v_serve(r.dev.s, 0);
	attach(&r);
	must(ftruncate(old, 0) == 0);
	touch(m.ptr);
	ok(v_serve(r.dev.s, 0) == 0 && vd_server_connected(r.dev.s),
	    "memory of a client that has left: the next one stays");
	must(ftruncate(r.mem, 0) == 0);
	ok(is_zero(&r, IOVA) && v_serve(r.dev.s, 0) == -1 &&
	    !vd_server_connected(r.dev.s), "until it does the same");
	mt_dma_unmap(&m, 0);
	close(old);
	end(&r);
}

/* A client that waits for the answer to an unmap is not safe from it. */
static void
test_parked(void)
{
	const struct vd_dma_unmap unmap = { 24, 0, IOVA, SIZE };
	struct mt_mapping m;
	struct rig r;

	begin(&r);
	must(mt_dma_map(r.sp, IOVA, PAGE, MT_DMA_READ, MT_ATTRS_NONE, &m) ==
	    0);
	must(v_send(r.fd, 1, VD_CMD_DMA_UNMAP, &unmap, sizeof(unmap)));
	must(v_serve(r.dev.s, 0) >= 0);
	must(ftruncate(r.mem, 0) == 0);
	touch(m.ptr);
	ok(v_serve(r.dev.s, 0) == -1 && !vd_server_connected(r.dev.s),
	    "a client that waits for an unmap is dropped");
	mt_dma_unmap(&m, 0);
	end(&r);
}

/* Who listens goes on to the next client. */
static void
test_listening(void)
{
	char dir[] = "/tmp/vfudma-sigbus.XXXXXX", path[64];
	const uint8_t command[] = "\x04\0\0\0\0\0\0\0\x07\0\0\0\x02\0\0\0\x06";
	struct v_reply reply;
	struct rig r;

	v_dev_create(&r.dev);
	r.sp = vd_server_dma(r.dev.s);
	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/s", dir);
	must(vd_server_listen(r.dev.s, path) == 0);
	must((r.fd = v_connect(path)) != -1);
	must(v_hello(r.dev.s, r.fd));
	r.mem = v_memfd(SIZE);
	must(v_call(r.dev.s, r.fd, VD_CMD_REGION_WRITE, command, 18, &reply));
	must(map(&r, IOVA + 0x10, 0x2000, 0x10) == 0);
	must(ftruncate(r.mem, PAGE) == 0);
	ok(is_zero(&r, IOVA + PAGE), "an alias of what is mapped is protected");
	is_int(vd_server_run(r.dev.s), 1, "a server that listens drops it");
	ok(!vd_server_connected(r.dev.s), "and nothing else");
	close(r.fd);
	must((r.fd = v_connect(path)) != -1);
	ok(v_hello(r.dev.s, r.fd), "it takes the next client");
	end(&r);
	rmdir(dir);
}

static void
test_many(void)
{
	const unsigned int n = 3000;
	unsigned int i, bad = 0;
	struct rig r;

	begin(&r);
	/* Neighbours in the file stay apart in memory: no two pages in one. */
	for (i = 0; i < n; i++)
		must(map(&r, 0x1000000 + i * 2 * PAGE, PAGE,
		    i * 7 % 256 * PAGE) == 0);
	must(ftruncate(r.mem, 0) == 0);
	for (i = 0; i < n; i++)
		bad += !is_zero(&r, 0x1000000 + i * 7919 % n * 2 * PAGE);
	is_int(bad, 0, "each of %u mappings is found", n);
	ok(v_serve(r.dev.s, 0) == -1, "the client is dropped");
	end(&r);
}

static void
test_huge(void)
{
	int fd = memfd_create("t-huge", MFD_CLOEXEC | MFD_HUGETLB);
	void *p = MAP_FAILED;
	struct rig r;
	int mem;

	if (fd != -1 && ftruncate(fd, 4 << 20) == 0)
		p = mmap(NULL, 4 << 20, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		skip(2, "no huge pages");
		if (fd != -1)
			close(fd);
		return;
	}
	begin(&r);
	mem = r.mem;
	r.mem = fd;
	must(map(&r, 0x1000000, PAGE, 0x201000) == 0);
	must(ftruncate(fd, 2 << 20) == 0);
	ok(is_zero(&r, 0x1000000), "a part of a huge page is protected");
	ok(v_serve(r.dev.s, 0) == -1, "the client is dropped");
	munmap(p, 4 << 20);
	close(mem);
	end(&r);
}

/* --- ranges that come and go --------------------------------------------- */

#define SLOTS	64

static _Atomic(unsigned int) wrong;

static void *
churn(void *arg)
{
	struct {
		struct vd__sigbus_range range;
		uint8_t *p;
		size_t len;
	} slots[SLOTS] = { 0 };
	struct vd__sigbus_mark mark = { .fd = -1 };
	uint64_t seed = (uintptr_t)arg, number = 0;
	unsigned int i, n = T_TSAN || T_ASAN ? 4000 : 20000;
	int fd = v_memfd(0);
	size_t k;

	for (i = 0; i < n + SLOTS; i++) {
		k = i < n ? t_below(&seed, SLOTS) : i - n;
		if (slots[k].p != NULL) {
			/* Its memory is gone, if it was not touched before. */
			touch(slots[k].p + t_below(&seed, slots[k].len));
			vd__sigbus_del(&slots[k].range);
			munmap(slots[k].p, slots[k].len);
			slots[k].p = NULL;
		}
		if (i >= n)
			continue;
		slots[k].len = PAGE * (1 + t_below(&seed, 4));
		slots[k].p = mmap(NULL, slots[k].len, PROT_READ | PROT_WRITE,
		    MAP_SHARED, fd, 0);
		must(slots[k].p != MAP_FAILED);
		number++;
		vd__sigbus_add(&slots[k].range, slots[k].p, slots[k].len,
		    PAGE, &mark, number);
		if (t_below(&seed, 2) != 0)
			continue;
		touch(slots[k].p + t_below(&seed, slots[k].len));
		if (!vd__sigbus_lost(&mark, number))
			atomic_fetch_add(&wrong, 1);
	}
	close(fd);
	return (NULL);
}

static void
test_churn(void)
{
	pthread_t threads[4];
	unsigned int i;

	for (i = 0; i < T_COUNT(threads); i++)
		must(pthread_create(&threads[i], NULL, churn,
		    (void *)(uintptr_t)(i + 1)) == 0);
	for (i = 0; i < T_COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	is_int(atomic_load(&wrong), 0,
	    "ranges that come and go by four threads: each fault is told");
}

int
main(void)
{
	unsigned int before = t_count_fds();

	test_children();
	works(vd_sigbus_protect(), "protection is asked for");
	works(vd_sigbus_protect(), "twice is once");
	test_threads();
	test_late();
	test_parked();
	test_listening();
	test_many();
	test_huge();
	test_churn();
	is_int(t_count_fds(), before, "no descriptor is left");
	return (done());
}
