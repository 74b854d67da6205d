/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Memory of a peer's that is no more.  A fault in a mapping that was entered
 * here is mended by zeroes in its place; the peer is marked.
 *
 * Signals are the process's, so this file has state of the process: the
 * handler that was there before us, and a skip list by address of the
 * mappings.
 *
 * The handler may run on any thread at any point of any access, so it takes no
 * lock and waits for nobody.  Why it finds the mapping that was touched, and
 * follows no pointer to freed memory:
 *
 *  1. A range is entered before anybody can know its address, and taken out
 *     when the last access to it has ended.  So from before a fault until the
 *     handler has returned its range is in the list.
 *  2. Links change one at a time, under the lock: a new range is linked when
 *     its own links are set, from the bottom up, and unlinked from the top
 *     down, keeping its own.  Who stands on a range that is being unlinked
 *     goes on to what is behind it.
 *  3. A handler that began after a range was entered never stands on one that
 *     was unlinked before that: it started from the head, and whatever led to
 *     the unlinked range was changed then, or was itself unlinked earlier.  So
 *     no link that it follows is too old to lead to the range.
 *  4. Who takes a range out waits until no handler is in the list.  Either it
 *     sees the handler's count, or the handler sees the range unlinked, as
 *     count and links are sequentially consistent.  It waits only for walks
 *     and mmap(2)s: each range faults once, so that cannot go on for long.
 *
 * The kernel raises no signal when it finds memory gone in a system call.  Who
 * is told EFAULT then asks which page it was, and does what the handler does, by
 * the same rules.
 *
 * Nothing is entered, and no lock taken, unless the program has asked for
 * protection.
 */

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "internal.h"

#define LEVELS	VD__SIGBUS_LEVELS

/*
 * [l] lock   [I] set before the handler is installed, then immutable
 * [a] atomic, order named at use
 */
static struct {
	pthread_mutex_t lock;			/* leaf; not in the handler */
	_Atomic(bool) on;			/* [a] set once */
	struct sigaction before;		/* [I] */
	_Atomic(bool) before_used;		/* [a] */
	_Atomic(unsigned int) walking;		/* [a] handlers in the list */
	struct vd__sigbus_range head;		/* its links: [a] */
	uint32_t random;			/* [l] */
} bus = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.random = 1,
};

static struct vd__sigbus_range *
next_of(const struct vd__sigbus_range *r, unsigned int level)
{
	return (atomic_load_explicit(&r->next[level], memory_order_seq_cst));
}

static void
set_next(struct vd__sigbus_range *r, unsigned int level,
    struct vd__sigbus_range *next)
{
	atomic_store_explicit(&r->next[level], next, memory_order_seq_cst);
}

/*
 * The last range that starts below p, or the head; before, unless NULL, gets
 * the last one of each level.
 */
static struct vd__sigbus_range *
find_below(uintptr_t p, struct vd__sigbus_range **before)
{
	struct vd__sigbus_range *at = &bus.head, *next;
	unsigned int level = LEVELS;

	while (level-- > 0) {
		while ((next = next_of(at, level)) != NULL && next->first < p)
			at = next;
		if (before != NULL)
			before[level] = at;
	}
	return (at);
}

/* --- the handler --------------------------------------------------------- */

/*
 * Put zeroes at [at, at + len).  They are mapped elsewhere first: a mapping
 * that cannot be had in that size shall not take away the one that is there.
 */
static bool
put_zeroes(uintptr_t at, size_t len)
{
	void *p = mmap(NULL, len, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return (false);
	if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at) !=
	    MAP_FAILED)
		return (true);
	munmap(p, len);
	return (false);
}

/*
 * The same in one step, which takes no room in the address space: the last
 * resort, as what was there may be gone if it fails.
 */
static bool
put_zeroes_over(uintptr_t at, size_t len)
{
	return (mmap((void *)at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
	    MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED);
}

/* Have the owner look.  A later peer's number stays. */
static void
tell(struct vd__sigbus_mark *m, uint64_t number)
{
	const uint64_t news = VD__SIGBUS_NEWS;
	uint64_t old = atomic_load_explicit(&m->lost, memory_order_relaxed);

	/* Release pairs with the acquire in vd__sigbus_lost(). */
	while (old < number && !atomic_compare_exchange_weak_explicit(
	    &m->lost, &old, number, memory_order_release,
	    memory_order_relaxed))
		continue;
	if (m->fd == -1)
		return;
	if (m->is_socket) {
		/* Who uses it finds its end; it cannot fail but for that. */
		shutdown(m->fd, SHUT_RDWR);
		return;
	}
	/* It cannot fail: the counter would have to overflow. */
	if (write(m->fd, &news, sizeof(news)) == -1)
		return;
	/* Who sees it finds the write by reading: release, as above. */
	atomic_fetch_add_explicit(&m->told, 1, memory_order_release);
}

/* Was p in a peer's memory?  Then it can be touched now. */
static bool
mend(uintptr_t p)
{
	struct vd__sigbus_range *r;
	bool mended = false;

	atomic_fetch_add_explicit(&bus.walking, 1, memory_order_seq_cst);
	r = p < UINTPTR_MAX ? find_below(p + 1, NULL) : &bus.head;
	if (r != &bus.head && p - r->first < r->len) {
		/* First: who sees zeroes finds the mark. */
		tell(r->mark, r->number);
		/*
		 * All of it, which is one fault a mapping and no mapping more.
		 * Where there is not that much to be had, the page.
		 */
		mended = put_zeroes(r->first, r->len) ||
		    put_zeroes(p - (p - r->first) % r->unit, r->unit) ||
		    put_zeroes_over(r->first, r->len);
	}
	/* Release: what was read here, before it is freed. */
	atomic_fetch_sub_explicit(&bus.walking, 1, memory_order_release);
	return (mended);
}

/* Relaxed: the lock orders the rest. */
bool
vd__sigbus_is_on(void)
{
	return (atomic_load_explicit(&bus.on, memory_order_relaxed));
}

/*
 * Ask the kernel, which looks at the 32 bytes before it finds that there is no
 * such timer.
 */
bool
vd__sigbus_gone(const void *p)
{
	int saved = errno;
	bool gone;

	gone = syscall(SYS_setitimer, -1, (uintptr_t)p & ~(uintptr_t)31,
	    NULL) == -1 && errno == EFAULT;
	errno = saved;
	return (gone);
}

bool
vd__sigbus_fix(const void *p, size_t len)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)p;
	size_t n;
	bool fixed = false;

	if (!vd__sigbus_is_on())
		return (false);
	for (; len > 0; at += n, len -= n) {
		n = page - at % page;
		if (n > len)
			n = len;
		if (vd__sigbus_gone((const void *)at) && mend(at))
			fixed = true;
	}
	return (fixed);
}

static bool
is_handler(const struct sigaction *sa)
{
	return (sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN);
}

/* Do what would have been done without us. */
static void
pass_on(int sig, siginfo_t *si, void *context)
{
	const struct sigaction *sa = &bus.before;
	bool is_sent = si->si_code <= 0 || si->si_code == BUS_MCEERR_AO;

	/* One that was installed for one time is gone after it. */
	if (is_handler(sa) && ((sa->sa_flags & SA_RESETHAND) == 0 ||
	    !atomic_exchange_explicit(&bus.before_used, true,
	    memory_order_relaxed))) {
		if ((sa->sa_flags & SA_SIGINFO) != 0)
			sa->sa_sigaction(sig, si, context);
		else
			sa->sa_handler(sig);
		return;
	}
	/* The kernel lets nobody ignore a fault. */
	if (is_sent && sa->sa_handler == SIG_IGN)
		return;
	/* A fault comes again when we return; what was sent does not. */
	signal(sig, SIG_DFL);
	if (is_sent)
		raise(sig);
}

static void
on_bus_error(int sig, siginfo_t *si, void *context)
{
	int saved = errno;
	bool mended;

	/* Not memory that is broken, nor a SIGBUS that somebody has sent. */
	mended = si->si_code == BUS_ADRERR && mend((uintptr_t)si->si_addr);
	errno = saved;
	if (!mended)
		pass_on(sig, si, context);
}

static int
install(void)
{
	struct sigaction sa = { .sa_sigaction = on_bus_error };

	if (sigaction(SIGBUS, NULL, &bus.before) == -1)
		return (-1);
	/* On what stack, and with what blocked, is for a handler to say. */
	sigemptyset(&sa.sa_mask);
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	if (is_handler(&bus.before)) {
		sa.sa_mask = bus.before.sa_mask;
		sa.sa_flags = SA_SIGINFO | (bus.before.sa_flags &
		    (SA_NODEFER | SA_ONSTACK | SA_RESTART));
	}
	return (sigaction(SIGBUS, &sa, NULL));
}

int
vd_sigbus_protect(void)
{
	int rv = 0;

	pthread_mutex_lock(&bus.lock);
	if (!atomic_load_explicit(&bus.on, memory_order_relaxed) &&
	    (rv = install()) == 0)
		atomic_store_explicit(&bus.on, true, memory_order_relaxed);
	pthread_mutex_unlock(&bus.lock);
	return (rv);
}

/* --- the ranges ---------------------------------------------------------- */

/* One more with probability 1/4. */
static unsigned int
choose_levels_locked(void)
{
	uint32_t x = bus.random;
	unsigned int levels = 1;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	bus.random = x;
	for (; levels < LEVELS && (x & 3) == 0; x >>= 2)
		levels++;
	return (levels);
}

void
vd__sigbus_add(struct vd__sigbus_range *r, const void *p, size_t len,
    size_t unit, struct vd__sigbus_mark *mark, uint64_t number)
{
	struct vd__sigbus_range *before[LEVELS];
	unsigned int i;

	r->levels = 0;
	if (!vd__sigbus_is_on())
		return;
	r->first = (uintptr_t)p;
	r->len = (len + unit - 1) / unit * unit;
	r->unit = unit;
	r->mark = mark;
	r->number = number;
	pthread_mutex_lock(&bus.lock);
	find_below(r->first, before);
	r->levels = choose_levels_locked();
	for (i = 0; i < r->levels; i++) {
		atomic_init(&r->next[i], next_of(before[i], i));
		set_next(before[i], i, r);
	}
	pthread_mutex_unlock(&bus.lock);
}

void
vd__sigbus_del(struct vd__sigbus_range *r)
{
	struct vd__sigbus_range *before[LEVELS];
	unsigned int i;

	if (r->levels == 0)
		return;
	pthread_mutex_lock(&bus.lock);
	find_below(r->first, before);
	for (i = r->levels; i-- > 0;)
		set_next(before[i], i, next_of(r, i));
	pthread_mutex_unlock(&bus.lock);
	r->levels = 0;
	while (atomic_load_explicit(&bus.walking, memory_order_seq_cst) != 0)
		sched_yield();
}
