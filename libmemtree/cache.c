/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <string.h>

#include "internal.h"

/* How much of the window is memory, from its start on, and where. */
static uint8_t *
direct(struct mt_cache *c, bool is_write, size_t *len)
{
	struct mt__hit hit;

	mt__lookup(c->view, c->addr, is_write, c->attrs, &hit);
	*len = hit.host == NULL ? 0 : mt__direct_len(c->view, &hit, c->addr,
	    c->len, is_write, c->attrs);
	if (*len != 0 && is_write) {
		/* An atomic byte is as large as one that is not. */
		_Static_assert(sizeof(hit.span->region->logging) == 1, "byte");
		c->wregion = hit.span->region;
		c->logging = (const unsigned char *)
		    (uintptr_t)&c->wregion->logging;
	}
	return (hit.host);
}

int
mt_cache_init(struct mt_cache *c, struct mt_space *sp, mt_addr addr,
    size_t len, unsigned int dir, struct mt_attrs attrs)
{
	memset(c, 0, sizeof(*c));
	if (len == 0 || len - 1 > MT_LAST_MAX - addr || dir == 0 ||
	    (dir & ~(MT_DMA_READ | MT_DMA_WRITE)) != 0) {
		errno = EINVAL;
		return (-1);
	}
	c->sp = sp;
	c->addr = addr;
	c->len = len;
	c->dir = dir;
	c->attrs = attrs;
	/* An atomic pointer is as large as one that is not. */
	_Static_assert(sizeof(sp->view) == sizeof(*c->current), "as plain");
	c->current = (struct mt_view *const *)
	    (uintptr_t)&sp->view;
	c->view = mt_space_view(sp);
	if ((dir & MT_DMA_READ) != 0)
		c->rhost = direct(c, false, &c->rlen);
	if ((dir & MT_DMA_WRITE) != 0)
		c->whost = direct(c, true, &c->wlen);
	atomic_fetch_add_explicit(&sp->ncaches, 1, memory_order_relaxed);
	return (0);
}

void
mt__cache_wrote(const struct mt_cache *c, size_t off, size_t len)
{
	mt__dirty_mark(c->wregion, (mt_addr)(c->whost - c->wregion->ptr) + off,
	    len);
}

void
mt_cache_fini(struct mt_cache *c)
{
	struct mt_space *sp = c->sp;

	if (c->view == NULL)
		return;
	mt_view_put(c->view);
	memset(c, 0, sizeof(*c));
	/* Pairs with the acquire in mt_space_destroy(). */
	atomic_fetch_sub_explicit(&sp->ncaches, 1, memory_order_release);
}

/* Go by the view of the cache, which stays. */
static void
begin(struct mt__reader *rd, const struct mt_cache *c)
{
	rd->topology = c->sp->topology;
	rd->view = c->view;
	rd->access = NULL;
	rd->kept = true;
	rd->put = false;
	rd->depth = rd->whole = 0;
	mt__read_begin(rd->topology);
}

/* May this part of the window be accessed so? */
static enum mt_result
check(const struct mt_cache *c, size_t off, size_t len, unsigned int dir)
{
	if (c->view == NULL || off > c->len || len > c->len - off)
		return (MT_DECODE);
	return ((c->dir & dir) != 0 ? MT_OK : MT_DENIED);
}

enum mt_result
mt_cache_read(const struct mt_cache *c, size_t off, void *buf, size_t len)
{
	struct mt__reader rd;
	enum mt_result res = check(c, off, len, MT_DMA_READ);

	if (res != MT_OK) {
		memset(buf, 0, len);
		return (res);
	}
	begin(&rd, c);
	res = mt__access(&rd, c->addr + off, buf, len, false, c->attrs);
	mt__reader_end(&rd);
	return (res);
}

enum mt_result
mt_cache_write(const struct mt_cache *c, size_t off, const void *buf,
    size_t len)
{
	void *from = (void *)(uintptr_t)buf;	/* it is only read from */
	struct mt__reader rd;
	enum mt_result res = check(c, off, len, MT_DMA_WRITE);

	if (res != MT_OK)
		return (res);
	begin(&rd, c);
	res = mt__access(&rd, c->addr + off, from, len, true, c->attrs);
	mt__reader_end(&rd);
	return (res);
}

enum mt_result
mt_cache_load(const struct mt_cache *c, size_t off, unsigned int size,
    enum mt_endian order, uint64_t *val)
{
	struct mt__reader rd;
	enum mt_result res = check(c, off, size, MT_DMA_READ);

	*val = 0;
	if (res != MT_OK)
		return (res);
	begin(&rd, c);
	res = mt__load(&rd, c->addr + off, size, order, val, c->attrs);
	mt__reader_end(&rd);
	return (res);
}

enum mt_result
mt_cache_store(const struct mt_cache *c, size_t off, unsigned int size,
    enum mt_endian order, uint64_t val)
{
	struct mt__reader rd;
	enum mt_result res = check(c, off, size, MT_DMA_WRITE);

	if (res != MT_OK)
		return (res);
	begin(&rd, c);
	res = mt__store(&rd, c->addr + off, size, order, val, c->attrs);
	mt__reader_end(&rd);
	return (res);
}
