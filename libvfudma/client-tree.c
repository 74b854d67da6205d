/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Regions of a client's device as regions of a memory tree. */

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define PCI_CAP_MSIX		0x11u
#define PCI_HEADER		0x40u
#define MSIX_ENTRY		16u

static uint64_t
page_size(void)
{
	return ((uint64_t)sysconf(_SC_PAGESIZE));
}

/* --- accesses ------------------------------------------------------------ */

static enum mt_result
result_of(int rv)
{
	if (rv == 0)
		return (MT_OK);
	if (errno == EFAULT)
		return (MT_DECODE);
	return (errno == EACCES ? MT_DENIED : MT_DEVICE);
}

static enum mt_result
io_read_buf(void *arg, mt_addr off, void *buf, size_t len,
    struct mt_attrs attrs)
{
	struct vd__region *r = arg;

	(void)attrs;
	if ((r->access & VD_REGION_READABLE) == 0)
		return (MT_DECODE);
	return (result_of(vd_client_read(r->client, r->index, off, buf,
	    len)));
}

/*
 * A posted write that goes out under post_lock has gone before anything can be
 * mapped: see vd__client_stop_posts().  Who finds the server gone tells the
 * owner when it leaves, which is after that.
 */
static int
post(struct vd__region *r, mt_addr off, const void *buf, size_t len)
{
	struct vd_client *c = r->client;
	bool mapped;
	int rv = 0;

	if (vd__client_enter(c) == -1)
		return (-1);
	pthread_mutex_lock(&c->post_lock);
	mapped = c->mapped;
	if (!mapped) {
		c->posted = true;
		rv = vd__client_post(c, r->index, off, buf, len);
	}
	pthread_mutex_unlock(&c->post_lock);
	rv = vd__client_leave(c, rv);
	return (mapped ? vd_client_write(c, r->index, off, buf, len) : rv);
}

static enum mt_result
io_write_buf(void *arg, mt_addr off, const void *buf, size_t len,
    struct mt_attrs attrs)
{
	struct vd__region *r = arg;

	(void)attrs;
	if ((r->access & VD_REGION_WRITABLE) == 0)
		return (MT_DECODE);
	if (r->flags & VD_CLIENT_POST)
		return (result_of(post(r, off, buf, len)));
	return (result_of(vd_client_write(r->client, r->index, off, buf,
	    len)));
}

/* A register is one message of its size; its bytes are in bus order. */
static enum mt_result
io_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	enum mt_result res;
	uint8_t buf[8];

	res = io_read_buf(arg, off, buf, size, attrs);
	if (res != MT_OK)
		memset(buf, 0xff, sizeof(buf));
	for (*val = 0; size > 0; size--)
		*val = *val << 8 | buf[size - 1];
	return (res);
}

static enum mt_result
io_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	uint8_t buf[8];

	for (unsigned int i = 0; i < size; i++, val >>= 8)
		buf[i] = (uint8_t)val;
	return (io_write_buf(arg, off, buf, size, attrs));
}

static const struct mt_io_ops io_ops = {
	.read = io_read,
	.write = io_write,
	.endian = MT_LITTLE,
	.valid = { 1, 8, true },
	.impl = { 1, 8, true },
	.read_buf = io_read_buf,
	.write_buf = io_write_buf,
};

int
vd__client_stop_posts(struct vd_client *c)
{
	struct vd_device_info info;
	bool posted;

	pthread_mutex_lock(&c->post_lock);
	c->mapped = true;
	posted = c->posted;
	c->posted = false;
	pthread_mutex_unlock(&c->post_lock);
	/* Commands are served in order: after any answer they are done. */
	return (posted ? vd_client_device_info(c, &info) : 0);
}

/* --- what is mapped ------------------------------------------------------ */

/* Our mapping of a server's file; the owner of the region that shows it. */
struct window {
	struct vd__mapping map;
	struct vd__hangup *hangup;	/* a reference */
};

static void
close_window(void *owner)
{
	struct window *w = owner;

	vd__mapping_fini(&w->map);
	vd__hangup_put(w->hangup);
	free(w);
}

/*
 * Is all of the area in the file?  Touching what is not would be fatal.  The
 * length of a regular file says so; others can be mapped where nothing is.
 */
static bool
long_enough(const struct stat *st, uint64_t end)
{
	return (S_ISREG(st->st_mode) && st->st_size >= 0 &&
	    end <= (uint64_t)st->st_size);
}

/* Map len bytes of an area; NULL if that cannot be. */
static struct window *
open_window(const struct vd__region *r, const struct vd_client_region *info,
    const struct vd_area *a, uint64_t len)
{
	uint64_t off = info->fd_off + a->offset;
	int prot = PROT_READ;
	struct window *w;
	struct stat st;

	if ((r->access & VD_REGION_WRITABLE) != 0)
		prot |= PROT_WRITE;
	if (fstat(info->fd, &st) == -1 || !long_enough(&st, off + a->size) ||
	    (w = calloc(1, sizeof(*w))) == NULL)
		return (NULL);
	if ((w->hangup = vd__client_hangup(r->client)) != NULL &&
	    vd__mapping_init(&w->map, info->fd, &st, off, len, prot,
	    &w->hangup->mark, 1) == 0)
		return (w);
	vd__hangup_put(w->hangup);
	free(w);
	return (NULL);
}

/*
 * An area, or the page of one that is smaller.  NULL if it cannot be mapped.
 */
static struct mt_region *
map_area(const struct vd__region *r, struct mt_topology *t, const char *name,
    const struct vd_client_region *info, const struct vd_area *a)
{
	struct mt_backing backing = { .kind = MT_BACKING_PTR };
	uint64_t page = page_size(), len = a->size < page ? page : a->size;
	struct mt_region *region;
	struct window *w;

	if ((w = open_window(r, info, a, len)) == NULL)
		return (NULL);
	backing.ptr = (uint8_t *)w->map.ptr + w->map.before;
	if ((r->access & VD_REGION_WRITABLE) == 0)
		backing.flags |= MT_BACKING_RDONLY;
	region = mt_region_create_ram_device(t, name, len - 1, &backing);
	if (region == NULL || mt_region_set_owner(region, w,
	    close_window) == -1) {
		mt_region_put(region);
		close_window(w);
		return (NULL);
	}
	if ((r->access & VD_REGION_WRITABLE) == 0 &&
	    mt_region_set_readonly(region, true) == -1) {
		mt_region_put(region);
		return (NULL);
	}
	return (region);
}

static void
direct_drop(struct vd__direct *d)
{
	for (unsigned int i = 0; i < d->nr; i++)
		mt_region_put(d->areas[i]);
	mt_region_put(d->back);
	mt_region_put(d->front);
	mt_region_put(d->page);
	memset(d, 0, sizeof(*d));
}

/*
 * A mapping of all of a BAR would show the table to the guest, and let it be
 * written without anybody hearing of it; so its pages are cut out.
 */
static unsigned int
cut_table(const struct vd__msix *m, unsigned int index, uint64_t size,
    struct vd_area areas[2])
{
	uint64_t page = page_size(), first, end;
	unsigned int nr = 0;

	areas[0] = (struct vd_area){ 0, size };
	if (m->len == 0 || m->bar != index || m->off >= size)
		return (1);
	first = m->off / page * page;
	end = (m->off + m->len + page - 1) / page * page;
	if (first > 0)
		areas[nr++] = (struct vd_area){ 0, first };
	if (end < size)
		areas[nr++] = (struct vd_area){ end, size - end };
	return (nr);
}

/* The page of a region that is smaller; it is shown by client-page.c. */
static void
make_page(struct vd__region *r, struct mt_topology *t, const char *name,
    const struct vd_client_region *info, struct vd__direct *d)
{
	const struct vd_area whole = { 0, r->size };

	if ((d->page = map_area(r, t, name, info, &whole)) == NULL)
		return;
	d->front = mt_region_create_alias(t, name, d->page, 0, r->size - 1);
	d->back = mt_region_create_alias(t, name, d->page, r->size,
	    page_size() - r->size - 1);
	if (d->front == NULL || d->back == NULL)
		direct_drop(d);
}

/* What can be mapped of a region, or nothing; put by direct_drop(). */
static void
direct_make(struct vd__region *r, struct mt_topology *t,
    const struct vd_client_region *info, struct vd__direct *d)
{
	struct vd_area areas[VD_CLIENT_MAX_AREAS];
	unsigned int nr = info->nr_areas;
	char name[48];

	memset(d, 0, sizeof(*d));
	if (info->fd == -1 || nr == 0 ||
	    (r->access & VD_REGION_READABLE) == 0)
		return;
	snprintf(name, sizeof(name), "%s, mapped",
	    mt_region_name(r->container));
	memcpy(areas, info->areas, nr * sizeof(areas[0]));
	if (nr == 1 && areas[0].size == r->size)
		nr = cut_table(&r->client->msix, r->index, r->size, areas);
	if (nr == 1 && r->size < page_size()) {
		make_page(r, t, name, info, d);
		return;
	}
	for (unsigned int i = 0; i < nr; i++) {
		d->areas[i] = map_area(r, t, name, info, &areas[i]);
		if (d->areas[i] == NULL) {
			/* All of it, or none: half a device helps nobody. */
			direct_drop(d);
			return;
		}
		d->off[i] = areas[i].offset;
		d->nr++;
	}
}

/* Both do what is left to do, so that each can undo half of the other. */
static int
add(struct vd__region *r, struct mt_region *region, uint64_t off, bool on)
{
	if (region == NULL || mt_region_parent(region) != NULL)
		return (0);
	if (mt_region_set_enabled(region, on) == -1)
		return (-1);
	return (mt_region_add(r->inner, region, off, 0));
}

static int
direct_add(struct vd__region *r, const struct vd__direct *d)
{
	for (unsigned int i = 0; i < d->nr; i++)
		if (add(r, d->areas[i], d->off[i], r->client->direct) == -1)
			return (-1);
	return (add(r, d->front, 0, false));
}

static int
del_if_there(struct mt_region *region)
{
	if (region == NULL || mt_region_parent(region) == NULL)
		return (0);
	return (mt_region_del(region));
}

static int
direct_del(const struct vd__direct *d)
{
	for (unsigned int i = 0; i < d->nr; i++)
		if (del_if_there(d->areas[i]) == -1)
			return (-1);
	if (del_if_there(d->front) == -1 || del_if_there(d->back) == -1)
		return (-1);
	return (0);
}

/* --- the MSI-X table ----------------------------------------------------- */

static uint32_t
le32(const uint8_t *p)
{
	return (p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	    (uint32_t)p[3] << 24);
}

/* Find it in the first 256 bytes of config space; a list may loop. */
static void
parse_msix(struct vd__msix *m, const uint8_t config[256])
{
	uint32_t at, table, vectors;

	if ((config[VD__PCI_STATUS] & VD__PCI_STATUS_CAPS) == 0)
		return;
	at = config[VD__PCI_CAPS] & 0xfcu;
	for (int left = 48; left > 0 && at >= PCI_HEADER && at <= 256 - 12;
	    left--, at = config[at + 1] & 0xfcu) {
		if (config[at] != PCI_CAP_MSIX)
			continue;
		vectors = ((config[at + 2] | config[at + 3] << 8) & 0x7ff) + 1;
		table = le32(config + at + 4);
		m->bar = table & 7;
		m->off = table & ~7u;
		m->len = vectors * MSIX_ENTRY;
		return;
	}
}

/* Ask once; 0, or -1 with errno set if the device does not say. */
static int
find_msix(struct vd_client *c)
{
	struct vd__msix msix = { .known = true };
	struct vd_client_region info;
	struct vd_device_info device;
	uint8_t config[256] = { 0 };
	bool known;
	size_t len;

	pthread_mutex_lock(&c->regions_lock);
	known = c->msix.known;
	pthread_mutex_unlock(&c->regions_lock);
	if (known)
		return (0);
	if (vd_client_device_info(c, &device) == -1)
		return (-1);
	if ((device.flags & VD_DEVICE_PCI) &&
	    device.num_regions > VD_REGION_CONFIG) {
		if (vd_client_region_info(c, VD_REGION_CONFIG, &info) == -1)
			return (-1);
		vd__close(info.fd);
		len = info.size < sizeof(config) ? (size_t)info.size :
		    sizeof(config);
		if (vd_client_read(c, VD_REGION_CONFIG, 0, config, len) == -1)
			return (-1);
		parse_msix(&msix, config);
	}
	pthread_mutex_lock(&c->regions_lock);
	if (!c->msix.known)
		c->msix = msix;
	pthread_mutex_unlock(&c->regions_lock);
	return (0);
}

/* --- life ---------------------------------------------------------------- */

/* The last reference takes r out of the list. */
static void
region_put(struct vd__region *r)
{
	struct vd_client *c = r->client;
	struct vd__region **at;

	pthread_mutex_lock(&c->regions_lock);
	if (atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) > 1) {
		pthread_mutex_unlock(&c->regions_lock);
		return;
	}
	for (at = &c->regions; *at != NULL; at = &(*at)->next)
		if (*at == r) {
			*at = r->next;
			break;
		}
	pthread_mutex_unlock(&c->regions_lock);
	direct_drop(&r->direct);
	vd__client_put(c);
	free(r);
}

/* Both run on the reclaimer's thread. */
static void
io_released(void *owner)
{
	region_put(owner);
}

static void
container_released(void *owner)
{
	struct vd__region *r = owner;
	struct vd__direct direct, fresh;
	struct mt_region *inner;

	pthread_mutex_lock(&r->client->regions_lock);
	r->container = NULL;
	inner = r->inner;
	r->inner = NULL;
	direct = r->direct;
	fresh = r->fresh;
	memset(&r->direct, 0, sizeof(r->direct));
	memset(&r->fresh, 0, sizeof(r->fresh));
	pthread_mutex_unlock(&r->client->regions_lock);
	/*
	 * What is behind everything is in another tree, if there was no memory
	 * to take it out when this left the space, and still is there if there
	 * is none now.
	 */
	if (direct.back != NULL && mt_region_parent(direct.back) != NULL)
		(void)mt_region_del(direct.back);
	direct_drop(&direct);
	direct_drop(&fresh);
	mt_region_put(inner);
	region_put(r);
}

static int
own(struct mt_region *region, struct vd__region *r, void (*put)(void *))
{
	if (mt_region_set_owner(region, r, put) == -1)
		return (-1);
	atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
	return (0);
}

/* Put the parts together; what there is of r->container is the caller's. */
static int
assemble(struct vd__region *r, struct mt_topology *t, const char *name,
    const struct vd_client_region *info)
{
	struct vd_client *c = r->client;
	int rv, saved = 0;

	r->container = mt_region_create_container(t, name, r->size - 1);
	if (r->container == NULL ||
	    own(r->container, r, container_released) == -1)
		return (-1);
	r->io = mt_region_create_io(t, name, r->size - 1, &io_ops, r);
	if (r->io == NULL)
		return (-1);
	if (own(r->io, r, io_released) == -1 ||
	    mt_region_add(r->container, r->io, 0, 0) == -1) {
		mt_region_put(r->io);
		return (-1);
	}
	mt_region_put(r->io);
	r->inner = mt_region_create_container(t, name, r->size - 1);
	if (r->inner == NULL ||
	    mt_region_add(r->container, r->inner, 0, 1) == -1)
		return (-1);
	direct_make(r, t, info, &r->direct);
	if ((r->direct.nr > 0 || r->direct.page != NULL) &&
	    vd__client_stop_posts(c) == -1)
		return (-1);
	if (mt_topology_begin(t) == -1)
		return (-1);
	pthread_mutex_lock(&c->regions_lock);
	rv = direct_add(r, &r->direct);
	if (rv == 0) {
		r->next = c->regions;
		c->regions = r;
	} else
		saved = errno;
	pthread_mutex_unlock(&c->regions_lock);
	/* It is in no space yet; but a commit may have to do with others. */
	if (mt_topology_commit(t) == -1 && rv == 0)
		return (-1);
	if (rv == -1)
		errno = saved;
	return (rv);
}

int
vd__client_set_topology(struct vd_client *c, struct mt_topology *t)
{
	int rv = 0;

	pthread_mutex_lock(&c->regions_lock);
	if (c->topology == NULL)
		c->topology = t;
	else if (c->topology != t) {
		errno = EXDEV;
		rv = -1;
	}
	pthread_mutex_unlock(&c->regions_lock);
	return (rv);
}

static struct mt_region *
create(struct vd_client *c, struct mt_topology *t, unsigned int index,
    const char *name, unsigned int flags, const struct vd_client_region *info)
{
	struct mt_region *container;
	struct vd__region *r;
	int saved;

	if ((r = calloc(1, sizeof(*r))) == NULL)
		return (NULL);
	r->refs = 1;
	r->client = vd__client_get(c);
	r->index = index;
	r->flags = flags;
	r->access = info->flags;
	r->size = info->size;
	if (assemble(r, t, name, info) == -1) {
		saved = errno;
		mt_region_put(r->container);
		region_put(r);
		errno = saved;
		return (NULL);
	}
	container = r->container;
	region_put(r);
	return (container);
}

struct mt_region *
vd_client_region_create(struct vd_client *c, struct mt_topology *t,
    unsigned int index, const char *name, unsigned int flags)
{
	struct mt_region *region = NULL;
	struct vd_client_region info;

	if ((flags & ~(VD_CLIENT_POST | VD_CLIENT_WHOLE_PAGE)) != 0) {
		errno = EINVAL;
		return (NULL);
	}
	if (vd__client_set_topology(c, t) == -1 || find_msix(c) == -1 ||
	    vd_client_region_info(c, index, &info) == -1)
		return (NULL);
	if (info.size == 0)
		errno = ENOENT;
	else
		region = create(c, t, index, name, flags, &info);
	vd__close(info.fd);
	return (region);
}

static bool
has(const struct vd__direct *d, const struct mt_region *region)
{
	for (unsigned int i = 0; i < d->nr; i++)
		if (region == d->areas[i])
			return (true);
	return (region == d->page);
}

bool
vd__client_owns(struct vd_client *c, const struct mt_region *region)
{
	struct vd__region *r;
	bool found = false;

	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL && !found; r = r->next)
		found = has(&r->direct, region) || has(&r->fresh, region);
	pthread_mutex_unlock(&c->regions_lock);
	return (found);
}

/* --- on and off ---------------------------------------------------------- */

static int
set_direct(struct vd__region *r, bool on)
{
	struct vd__direct *d = &r->direct;

	for (unsigned int i = 0; i < d->nr; i++)
		if (mt_region_set_enabled(d->areas[i], on) == -1)
			return (-1);
	return (0);
}

int
vd_client_set_direct(struct vd_client *c, bool on)
{
	struct mt_topology *t;
	struct vd__region *r;
	int rv = 0, saved = 0;
	bool old;

	pthread_mutex_lock(&c->regions_lock);
	old = c->direct;
	if ((t = c->topology) == NULL)
		c->direct = on;
	pthread_mutex_unlock(&c->regions_lock);
	if (t == NULL)
		return (0);
	if (mt_topology_begin(t) == -1)
		return (-1);
	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL && rv == 0; r = r->next)
		rv = set_direct(r, on);
	if (rv == 0)
		rv = vd__client_show_pages(c, on);
	if (rv == -1) {
		/* What a transaction has changed once it can change back. */
		saved = errno;
		for (r = c->regions; r != NULL; r = r->next)
			(void)set_direct(r, old);
		(void)vd__client_show_pages(c, old);
	} else
		c->direct = on;
	pthread_mutex_unlock(&c->regions_lock);
	if (mt_topology_commit(t) == -1 && rv == 0) {
		saved = errno;
		rv = -1;
		pthread_mutex_lock(&c->regions_lock);
		c->direct = old;
		pthread_mutex_unlock(&c->regions_lock);
		/* For who has gone by the other value meanwhile. */
		(void)vd_client_update_pages(c);
	}
	if (rv == -1)
		errno = saved;
	return (rv);
}

/* --- another server ------------------------------------------------------ */

/* In a transaction, under regions_lock: r->fresh instead of r->direct. */
static int
replace(struct vd__region *r, const struct vd_client_region *info)
{
	struct mt_topology *t = r->client->topology;

	direct_make(r, t, info, &r->fresh);
	r->replacing = true;
	if (direct_del(&r->direct) == -1)
		return (-1);
	return (direct_add(r, &r->fresh));
}

/* After the transaction: only what it has made is kept. */
static void
settle(struct vd__region *r, bool done)
{
	struct vd__direct old = r->direct;

	if (done)
		r->direct = r->fresh;
	else
		old = r->fresh;
	memset(&r->fresh, 0, sizeof(r->fresh));
	r->replacing = false;
	direct_drop(&old);
}

int
vd__client_remap(struct vd_client *c, const struct vd_client_region *regions)
{
	struct vd__region *r;
	bool mapped = false;
	int rv = 0, saved = 0;

	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL; r = r->next)
		mapped |= r->index < VD_NUM_REGIONS &&
		    regions[r->index].nr_areas > 0;
	pthread_mutex_unlock(&c->regions_lock);
	if (mapped && (rv = vd__client_stop_posts(c)) == -1)
		saved = errno;
	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL && rv == 0; r = r->next)
		if (r->container != NULL && r->index < VD_NUM_REGIONS &&
		    (rv = replace(r, &regions[r->index])) == -1)
			saved = errno;
	if (rv == 0 && (rv = vd__client_show_pages(c, c->direct)) == -1)
		saved = errno;
	if (rv == -1) {
		for (r = c->regions; r != NULL; r = r->next)
			if (r->container != NULL) {
				(void)direct_del(&r->fresh);
				(void)direct_add(r, &r->direct);
				settle(r, false);
			}
		(void)vd__client_show_pages(c, c->direct);
	}
	pthread_mutex_unlock(&c->regions_lock);
	if (mt_topology_commit(c->topology) == -1 && rv == 0) {
		saved = errno;
		rv = -1;
	}
	pthread_mutex_lock(&c->regions_lock);
	for (r = c->regions; r != NULL; r = r->next)
		if (r->replacing)
			settle(r, rv == 0);
	pthread_mutex_unlock(&c->regions_lock);
	errno = saved;
	return (rv);
}
