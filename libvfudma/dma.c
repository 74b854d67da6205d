/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client's memory as regions of a space:
 *
 *	root			what the space shows
 *	  slot
 *	    bus			in it while the device may be a bus master
 *	      one a DMA_MAP	RAM over the client's file; without a file I/O
 *				by message; or reserved, not to be touched
 *
 * Memory that was taken out stays mapped for as long as somebody uses it; the
 * region's owner hears of its end.  A reset makes a new bus, with new regions
 * over the same memory: the old ones end when what was lent before has.
 */

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include <bsd/sys/tree.h>

#include "internal.h"

/* Our mapping of a client's file, as long as an entry has it. */
struct memory {
	_Atomic(unsigned int) refs;
	struct vd__mapping map;
};

/*
 * What one DMA_MAP has given; the owner of its region.  While it is in the
 * tree it belongs to the server's thread; once its region is out of the space
 * the reclaimer hands it back by the list of released entries.
 */
struct entry {
	RB_ENTRY(entry) link;
	struct vd__dma *dma;
	uint64_t first;
	uint64_t last;
	uint32_t flags;
	bool has_fd;
	bool taken_out;			/* by the transaction that is open */
	dev_t dev;			/* of the file */
	ino_t ino;
	uint64_t offset;		/* in it */
	struct mt_region *region;	/* a reference */
	struct memory *mem;		/* a reference; NULL: none */
	struct vd__window window;	/* without a descriptor */
	unsigned int ticket;		/* which reply waits for it; 0: none */
	struct entry *heir;		/* for the time of a reset */
	struct entry *next;		/* released */
};

RB_HEAD(entries, entry);

/*
 * [I] set by vd__dma_init(), then immutable   [a] atomic, order named at use
 * All else belongs to the server's thread.
 */
struct vd__dma {
	int wake_fd;			/* [I] */
	struct mt_region *root;		/* [I] */
	struct mt_region *slot;		/* [I] keeps the place of bus */
	struct mt_space *space;		/* [I] */
	struct mt_region *bus;
	bool master;
	struct entries entries;
	unsigned int count;		/* of entries */
	uint64_t due;			/* releases not heard of on wake_fd */
	unsigned int ticket;		/* of the last reply that waits */
	_Atomic(struct entry *) released;	/* [a] a list */
};

/* Entries that overlap are equal, so an insertion finds what is in the way. */
static int
compare(const struct entry *a, const struct entry *b)
{
	if (a->last < b->first)
		return (-1);
	return (a->first > b->last);
}

RB_GENERATE_INTERNAL(entries, entry, link, compare,
    __attribute__((unused)) static)

/* --- release ------------------------------------------------------------- */

static void
put_memory(struct entry *e)
{
	struct memory *m = e->mem;

	e->mem = NULL;
	if (m == NULL || atomic_fetch_sub(&m->refs, 1) > 1)
		return;
	vd__mapping_fini(&m->map);
	free(m);
}

/* A region is gone: runs on the reclaimer's thread. */
static void
released(void *owner)
{
	const uint64_t one = 1;
	struct entry *e = owner;
	struct vd__dma *d = e->dma;

	put_memory(e);
	e->next = atomic_load_explicit(&d->released, memory_order_relaxed);
	/*
	 * Release pairs with the acquire in vd__dma_heard(): who frees the
	 * entry sees next, and that the memory is unmapped.
	 */
	while (!atomic_compare_exchange_weak_explicit(&d->released, &e->next,
	    e, memory_order_release, memory_order_relaxed))
		continue;
	/*
	 * The entry may be freed by now, but d stays until this write has been
	 * heard of.  It cannot fail: the counter would have to overflow.
	 */
	if (write(d->wake_fd, &one, sizeof(one)) == -1)
		return;
}

unsigned int
vd__dma_heard(struct vd_server *s, uint64_t n)
{
	struct vd__dma *d = s->dma;
	struct entry *e, *next;
	unsigned int waited = 0;

	d->due -= n;
	e = atomic_exchange_explicit(&d->released, NULL, memory_order_acquire);
	for (; e != NULL; e = next) {
		next = e->next;
		if (e->ticket != 0 && e->ticket == d->ticket)
			waited++;
		free(e);
	}
	return (waited);
}

bool
vd__dma_releasing(const struct vd_server *s)
{
	return (s->dma->due > 0);
}

/* Drop the region of an entry that is in neither tree any more. */
static void
let_go(struct vd__dma *d, struct entry *e, unsigned int ticket)
{
	struct mt_region *region = e->region;

	e->ticket = ticket;
	e->region = NULL;
	if (region == e->window.region)
		vd__messages_expel(&e->window);
	d->due++;
	mt_region_put(region);
}

/* For releases that the next reply waits for. */
static unsigned int
get_ticket(struct vd__dma *d)
{
	if (++d->ticket == 0)
		d->ticket = 1;
	return (d->ticket);
}

/* An entry that is in no tree, with or without a region. */
static void
discard(struct vd__dma *d, struct entry *e)
{
	if (e->region != NULL) {
		let_go(d, e, 0);
		return;
	}
	put_memory(e);
	free(e);
}

/* --- map ----------------------------------------------------------------- */

/* Make r own e, and put it into e; otherwise put r, and return the errno. */
static int
own(struct entry *e, struct mt_region *r)
{
	int err = 0;

	if (mt_region_set_owner(r, e, released) == -1)
		err = errno;
	if (err != 0)
		mt_region_put(r);
	else
		e->region = r;
	return (err);
}

/* Map what e shows of the client's file, before anybody can know of it. */
static int
map_memory(struct vd_server *s, struct entry *e, int fd, const struct stat *st)
{
	uint64_t len = e->last - e->first + 1;
	int prot = PROT_READ, err;
	struct memory *m;

	if ((e->flags & VD_DMA_WRITABLE) != 0)
		prot |= PROT_WRITE;
	if ((m = calloc(1, sizeof(*m))) == NULL)
		return (ENOMEM);
	m->refs = 1;
	if ((err = vd__mapping_init(&m->map, fd, st, e->offset, len, prot,
	    &s->mark, s->client)) != 0) {
		free(m);
		return (err);
	}
	e->mem = m;
	return (0);
}

/*
 * RAM over the mapping; what of it is not the entry's is hidden by an alias.
 * The RAM owns the entry in any case.
 */
static int
create_backed(struct vd_server *s, struct entry *e, const char *name)
{
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	uint64_t len = e->last - e->first + 1;
	const struct vd__mapping *m = &e->mem->map;
	struct mt_region *ram, *alias;
	int err;

	backing.ptr = m->ptr;
	if ((e->flags & VD_DMA_WRITABLE) == 0)
		backing.flags |= MT_BACKING_RDONLY;
	ram = mt_region_create_ram(s->topology, name, m->len - 1, &backing);
	if (ram == NULL)
		return (errno);
	if ((err = own(e, ram)) != 0)
		return (err);
	if ((e->flags & VD_DMA_WRITABLE) == 0 &&
	    mt_region_set_readonly(ram, true) == -1)
		return (errno);
	if (m->len == len)
		return (0);
	alias = mt_region_create_alias(s->topology, name, ram, m->before,
	    len - 1);
	if (alias == NULL)
		return (errno);
	e->region = alias;
	mt_region_put(ram);
	return (0);
}

/*
 * Make the region of an entry that has all but that: 0, or an errno.  If
 * e->region is not NULL it owns e, also after an error.
 */
static int
create(struct vd_server *s, struct entry *e)
{
	struct mt_region *region;
	char name[32];

	snprintf(name, sizeof(name), "dma@%" PRIx64, e->first);
	/* Memory that the device may not touch is there all the same. */
	if (e->flags == 0) {
		region = mt_region_create_reserved(s->topology, name,
		    e->last - e->first);
	} else if (e->mem != NULL) {
		return (create_backed(s, e, name));
	} else {
		vd__messages_init_window(s, &e->window, e->first, e->flags);
		region = mt_region_create_io(s->topology, name,
		    e->last - e->first, &vd__message_ops, &e->window);
		e->window.region = region;
	}
	return (region == NULL ? errno : own(e, region));
}

/* Does the file have all the bytes?  Otherwise touching them is fatal. */
static bool
long_enough(const struct vd_dma_map *m, const struct stat *st)
{
	return (st->st_size >= 0 && m->offset <= (uint64_t)st->st_size &&
	    m->size <= (uint64_t)st->st_size - m->offset);
}

static bool
identical(const struct entry *a, const struct entry *b)
{
	return (a->first == b->first && a->last == b->last &&
	    a->flags == b->flags && a->has_fd == b->has_fd &&
	    (!a->has_fd || (a->dev == b->dev && a->ino == b->ino &&
	    a->offset == b->offset)));
}

/* Put e into the space; *kept says whether it is there. */
static int
map(struct vd_server *s, struct entry *e, int fd, const struct stat *st,
    bool *kept)
{
	struct vd__dma *d = s->dma;
	struct entry *other;
	int err;

	*kept = false;
	if ((other = RB_FIND(entries, &d->entries, e)) != NULL)
		return (identical(e, other) ? 0 : EEXIST);
	if (d->count >= s->limits.max_dma_regions)
		return (ENOSPC);
	if (fd != -1 && e->flags != 0 && (err = map_memory(s, e, fd, st)) != 0)
		return (err);
	if ((err = create(s, e)) != 0)
		return (err);
	if (mt_region_add(d->bus, e->region, e->first, 0) == -1)
		return (errno);
	RB_INSERT(entries, &d->entries, e);
	d->count++;
	*kept = true;
	return (0);
}

int
vd__dma_map(struct vd_server *s, const struct vd_dma_map *m, const int *fds,
    size_t nfds)
{
	struct stat st = { 0 };
	struct entry *e;
	bool kept;
	int err;

	if (nfds > 1)
		return (EINVAL);
	if (nfds == 1 && fstat(fds[0], &st) == -1)
		return (errno);
	if (nfds == 1 && !long_enough(m, &st)) {
		vd__log(s, LOG_WARNING, "DMA_MAP of %#" PRIx64 "+%#" PRIx64
		    ": beyond the end of its file", m->addr, m->size);
		return (EINVAL);
	}
	if ((e = calloc(1, sizeof(*e))) == NULL)
		return (ENOMEM);
	e->dma = s->dma;
	e->first = m->addr;
	e->last = m->addr + (m->size - 1);
	e->flags = m->flags;
	if (nfds == 1) {
		e->has_fd = true;
		e->dev = st.st_dev;
		e->ino = st.st_ino;
		e->offset = m->offset;
	}
	err = map(s, e, nfds == 1 ? fds[0] : -1, &st, &kept);
	if (!kept)
		discard(s->dma, e);
	if (err != 0) {
		vd__log(s, LOG_WARNING, "DMA_MAP of %#" PRIx64 "+%#" PRIx64
		    ": %s", m->addr, m->size, err == ENOSPC ?
		    "as much is mapped as may be" : strerror(err));
		return (err);
	}
	if (!kept)
		return (0);
	if (nfds == 0)
		vd__log(s, LOG_INFO, "memory at %#" PRIx64 "+%#" PRIx64
		    " came without a descriptor: it is reached by message, "
		    "which is slower than if the client shared it", m->addr,
		    m->size);
	if (s->ops->dma_map != NULL)
		s->ops->dma_map(s->arg, (struct mt_range){ m->addr,
		    m->addr + (m->size - 1) });
	return (0);
}

/* --- unmap --------------------------------------------------------------- */

/*
 * Take entries first to last, by address, out of the space in one
 * transaction.  If some cannot be taken out they stay, and the others go.
 * Sets *gone to how many have; returns 0 or an errno.
 */
static int
take_out(struct vd_server *s, struct entry *first, struct entry *last,
    unsigned int ticket, unsigned int *gone)
{
	struct vd__dma *d = s->dma;
	struct entry *e, *end = RB_NEXT(entries, &d->entries, last), *next;
	bool committed;
	int err = 0;

	*gone = 0;
	if (s->ops->dma_unmap != NULL)
		for (e = first; e != end; e = RB_NEXT(entries, &d->entries, e))
			s->ops->dma_unmap(s->arg,
			    (struct mt_range){ e->first, e->last });
	if (mt_topology_begin(s->topology) == -1)
		return (errno);
	for (e = first; e != end; e = RB_NEXT(entries, &d->entries, e)) {
		e->taken_out = mt_region_del(e->region) == 0;
		if (!e->taken_out)
			err = errno;
	}
	committed = mt_topology_commit(s->topology) == 0;
	if (!committed)
		err = errno;
	for (e = first; e != end; e = next) {
		next = RB_NEXT(entries, &d->entries, e);
		if (!committed || !e->taken_out) {
			e->taken_out = false;
			continue;
		}
		RB_REMOVE(entries, &d->entries, e);
		d->count--;
		let_go(d, e, ticket);
		(*gone)++;
	}
	return (err);
}

int
vd__dma_unmap(struct vd_server *s, const struct vd_dma_unmap *m,
    unsigned int *waiting)
{
	struct vd__dma *d = s->dma;
	struct entry key, *first, *last;

	*waiting = 0;
	if (m->flags & VD_UNMAP_DIRTY)
		return (ENOTSUP);
	if (m->flags & VD_UNMAP_ALL) {
		first = RB_MIN(entries, &d->entries);
		last = RB_MAX(entries, &d->entries);
		if (first == NULL)
			return (0);
	} else {
		key.first = m->addr;
		key.last = m->addr + (m->size - 1);
		first = last = RB_FIND(entries, &d->entries, &key);
		if (first == NULL || first->first != key.first ||
		    first->last != key.last)
			return (ENOENT);
	}
	return (take_out(s, first, last, get_ticket(d), waiting));
}

int
vd__dma_clear(struct vd_server *s)
{
	struct vd__dma *d = s->dma;
	unsigned int gone;
	int err;

	if (RB_EMPTY(&d->entries))
		return (0);
	err = take_out(s, RB_MIN(entries, &d->entries),
	    RB_MAX(entries, &d->entries), 0, &gone);
	if (err == 0)
		return (0);
	errno = err;
	return (-1);
}

/* --- reset --------------------------------------------------------------- */

/* The like of e, over the same memory: it is not in the tree.  NULL: ENOMEM. */
static struct entry *
make_heir(struct vd_server *s, const struct entry *e)
{
	struct entry *heir = malloc(sizeof(*heir));

	if (heir == NULL)
		return (NULL);
	*heir = *e;
	heir->region = NULL;
	heir->heir = NULL;
	if (heir->mem != NULL)
		atomic_fetch_add(&heir->mem->refs, 1);
	if (create(s, heir) == 0)
		return (heir);
	discard(s->dma, heir);
	return (NULL);
}

static void
discard_heirs(struct vd__dma *d)
{
	struct entry *e;

	RB_FOREACH(e, entries, &d->entries) {
		if (e->heir != NULL)
			discard(d, e->heir);
		e->heir = NULL;
	}
}

/* A bus with an heir of each entry, for nobody to see yet.  NULL: ENOMEM. */
static struct mt_region *
make_heirs(struct vd_server *s)
{
	struct vd__dma *d = s->dma;
	struct mt_region *bus;
	struct entry *e;
	bool made;

	bus = mt_region_create_container(s->topology, "dma bus", MT_LAST_MAX);
	made = bus != NULL;
	RB_FOREACH(e, entries, &d->entries)
		made = made && (e->heir = make_heir(s, e)) != NULL &&
		    mt_region_add(bus, e->heir->region, e->first, 0) == 0;
	if (made)
		return (bus);
	discard_heirs(d);
	mt_region_put(bus);
	return (NULL);
}

/* Put the heirs in the entries' places. */
static void
inherit(struct vd__dma *d, struct mt_region *bus, unsigned int *waiting)
{
	unsigned int ticket = get_ticket(d);
	struct entry *e, *next;

	for (e = RB_MIN(entries, &d->entries); e != NULL; e = next) {
		next = RB_NEXT(entries, &d->entries, e);
		RB_REMOVE(entries, &d->entries, e);
		RB_INSERT(entries, &d->entries, e->heir);
		let_go(d, e, ticket);
		(*waiting)++;
	}
	/* With it go its references to their regions. */
	mt_region_put(d->bus);
	d->bus = bus;
}

int
vd__dma_reset(struct vd_server *s, unsigned int *waiting)
{
	struct vd__dma *d = s->dma;
	struct mt_region *bus = NULL;

	/* Of many writes in one message each may order one. */
	if (*waiting > 0)
		return (EBUSY);
	if (!RB_EMPTY(&d->entries) && (bus = make_heirs(s)) == NULL)
		return (ENOMEM);
	vd__dma_set_master(s, false);
	if (d->master) {
		discard_heirs(d);
		mt_region_put(bus);
		return (ENOMEM);
	}
	/* Nobody comes by new mappings before the guest wants it again. */
	if (bus != NULL)
		inherit(d, bus, waiting);
	return (0);
}

void
vd__dma_set_master(struct vd_server *s, bool on)
{
	struct vd__dma *d = s->dma;

	if (d->master == on)
		return;
	if ((on ? mt_region_add(d->slot, d->bus, 0, 0) :
	    mt_region_del(d->bus)) == -1) {
		vd__log(s, LOG_ERR, "cannot %s bus mastering: %s",
		    on ? "enable" : "disable", strerror(errno));
		return;
	}
	d->master = on;
}

/* --- life ---------------------------------------------------------------- */

struct mt_space *
vd__dma_space(const struct vd_server *s)
{
	return (s->dma->space);
}

static void
destroy(struct vd__dma *d)
{
	/* What the device may have added to the space is not ours to end. */
	if (d->space != NULL)
		mt_space_destroy(d->space);
	if (d->slot != NULL)
		mt_region_del(d->slot);
	mt_region_put(d->bus);
	mt_region_put(d->slot);
	mt_region_put(d->root);
	free(d);
}

int
vd__dma_init(struct vd_server *s)
{
	struct vd__dma *d;
	int saved;

	if ((d = calloc(1, sizeof(*d))) == NULL)
		return (-1);
	d->wake_fd = s->wake_fd;
	RB_INIT(&d->entries);
	d->root = mt_region_create_container(s->topology, "dma", MT_LAST_MAX);
	d->bus = mt_region_create_container(s->topology, "dma bus",
	    MT_LAST_MAX);
	d->slot = mt_region_create_container(s->topology, "dma slot",
	    MT_LAST_MAX);
	if (d->root == NULL || d->bus == NULL || d->slot == NULL ||
	    mt_region_add(d->root, d->slot, 0, 0) == -1 ||
	    (d->space = mt_space_create(d->root, "dma")) == NULL) {
		saved = errno;
		destroy(d);
		errno = saved;
		return (-1);
	}
	s->dma = d;
	return (0);
}

void
vd__dma_fini(struct vd_server *s)
{
	struct vd__dma *d = s->dma;
	struct pollfd pfd = { .fd = s->wake_fd, .events = POLLIN };
	uint64_t n;

	if (d == NULL)
		return;
	/* Out of memory is all that can fail; others may give some back. */
	while (vd__dma_clear(s) == -1)
		poll(NULL, 0, 10);
	while (d->due > 0) {
		if (poll(&pfd, 1, -1) == 1 &&
		    read(s->wake_fd, &n, sizeof(n)) == sizeof(n))
			vd__dma_heard(s, n % VD__SIGBUS_NEWS);
	}
	destroy(d);
	s->dma = NULL;
}
