/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A persistent radix tree over addresses, whose leaves are spans.  A build
 * copies the nodes on the way to what it changes and shares all others with
 * the view before it.  A span stands in every slot that it reaches into; it
 * fills whole slots as high up as its alignment allows, so that a large
 * region takes few.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static mt_addr
node_last(const struct mt__node *n)
{
	return (n->base | ~n->mask);
}

static unsigned int
slot_of(const struct mt__node *n, mt_addr addr)
{
	return ((addr >> n->shift) & (MT__FAN - 1));
}

static mt_addr
slot_first(const struct mt__node *n, unsigned int i)
{
	return (n->base + ((mt_addr)i << n->shift));
}

static mt_addr
slot_last(const struct mt__node *n, unsigned int i)
{
	return (slot_first(n, i) + (((mt_addr)1 << n->shift) - 1));
}

const struct mt__span *
mt__tree_next(uintptr_t slot, mt_addr addr)
{
	const struct mt__node *n;
	const struct mt__span *span;
	unsigned int i, end;

	if (!mt__is_node(slot)) {
		span = (const struct mt__span *)slot;
		return (span != NULL && span->range.last >= addr ? span :
		    NULL);
	}
	n = mt__to_node(slot);
	if (addr > node_last(n))
		return (NULL);
	i = addr > n->base ? slot_of(n, addr) : 0;
	/* The topmost node has slots beyond the last address. */
	end = slot_of(n, node_last(n));
	for (; i <= end; i++) {
		span = n->slots[i] == 0 ? NULL :
		    mt__tree_next(n->slots[i], addr);
		if (span != NULL)
			return (span);
	}
	return (NULL);
}

void
mt__span_free(struct mt__span *span)
{
	mt__extras_put(span->extras);
	mt_region_put(span->region);
	free(span);
}

/*
 * Free what is below slot; *prev is the span that was seen before.  Nothing
 * below a node is newer than the node, as to change that it was copied.
 */
static size_t
free_below(uintptr_t slot, uint64_t build, struct mt__span **prev)
{
	struct mt__node *n;
	struct mt__span *span;
	size_t bytes = sizeof(*n);
	unsigned int i;

	if (slot == 0)
		return (0);
	if (!mt__is_node(slot)) {
		/* Slots of one span follow each other. */
		span = (struct mt__span *)slot;
		if (span == *prev || span->build < build)
			return (0);
		if (*prev != NULL)
			mt__span_free(*prev);
		*prev = span;
		return (sizeof(*span));
	}
	n = mt__to_node(slot);
	if (n->build < build)
		return (0);
	for (i = 0; i < MT__FAN; i++)
		bytes += free_below(n->slots[i], build, prev);
	free(n);
	return (bytes);
}

size_t
mt__tree_free(uintptr_t slot, uint64_t build)
{
	struct mt__span *prev = NULL;
	size_t bytes = free_below(slot, build, &prev);

	if (prev != NULL)
		mt__span_free(prev);
	return (bytes);
}

/* --- building ------------------------------------------------------------ */

void
mt__build_begin(struct mt__build *b, uint64_t number, const struct mt_view *v)
{
	b->number = number;
	b->top = v->top;
	b->count = v->count;
	b->bytes = v->bytes;
	b->garbage = 0;
	TAILQ_INIT(&b->new_nodes);
	TAILQ_INIT(&b->old_nodes);
	TAILQ_INIT(&b->adds);
	TAILQ_INIT(&b->dels);
}

void
mt__build_abort(struct mt__build *b)
{
	struct mt__node *n;
	struct mt__span *span;

	while ((n = TAILQ_FIRST(&b->new_nodes)) != NULL) {
		TAILQ_REMOVE(&b->new_nodes, n, link);
		free(n);
	}
	while ((span = TAILQ_FIRST(&b->adds)) != NULL) {
		TAILQ_REMOVE(&b->adds, span, link);
		mt__span_free(span);
	}
}

/* A node of this build that covers first and last, and as little as it can. */
static struct mt__node *
new_node(struct mt__build *b, mt_addr first, mt_addr last)
{
	struct mt__node *n;
	unsigned int bits;

	if ((n = calloc(1, sizeof(*n))) == NULL)
		return (NULL);
	bits = first == last ? 1 :
	    64 - (unsigned int)__builtin_clzll(first ^ last);
	n->shift = (uint8_t)((bits - 1) / MT__BITS * MT__BITS);
	n->mask = n->shift + MT__BITS >= 64 ? 0 :
	    ~(((mt_addr)1 << (n->shift + MT__BITS)) - 1);
	n->base = first & n->mask;
	n->build = b->number;
	b->bytes += sizeof(*n);
	TAILQ_INSERT_TAIL(&b->new_nodes, n, link);
	return (n);
}

/* The node in slot as one that this build may change. */
static struct mt__node *
writable(struct mt__build *b, uintptr_t *slot)
{
	struct mt__node *n = mt__to_node(*slot), *copy;

	if (n->build == b->number)
		return (n);
	if ((copy = malloc(sizeof(*copy))) == NULL)
		return (NULL);
	memcpy(copy, n, sizeof(*copy));
	copy->build = b->number;
	TAILQ_INSERT_TAIL(&b->new_nodes, copy, link);
	TAILQ_INSERT_TAIL(&b->old_nodes, n, link);
	b->garbage += sizeof(*n);
	*slot = (uintptr_t)copy + 1;
	return (copy);
}

static int	put(struct mt__build *b, uintptr_t *slot, mt_addr slot_lo,
		    mt_addr slot_hi, struct mt__span *span);

static mt_addr
max(mt_addr a, mt_addr b)
{
	return (a > b ? a : b);
}

static mt_addr
min(mt_addr a, mt_addr b)
{
	return (a < b ? a : b);
}

/* Put the part of a span that lies in node n into its slots. */
static int
put_in_node(struct mt__build *b, struct mt__node *n, struct mt__span *span)
{
	unsigned int i = slot_of(n, max(span->range.first, n->base));
	unsigned int end = slot_of(n, min(span->range.last, node_last(n)));

	for (; i <= end; i++) {
		if (n->slots[i] == 0) {
			n->slots[i] = (uintptr_t)span;
			n->used++;
		} else if (put(b, &n->slots[i], slot_first(n, i),
		    slot_last(n, i), span) == -1)
			return (-1);
	}
	return (0);
}

/* Put the part of a span that lies in a slot's addresses into the slot. */
static int
put(struct mt__build *b, uintptr_t *slot, mt_addr slot_lo, mt_addr slot_hi,
    struct mt__span *span)
{
	mt_addr lo = max(span->range.first, slot_lo);
	mt_addr hi = min(span->range.last, slot_hi);
	struct mt__span *other;
	struct mt__node *n, *inner;

	if (*slot == 0) {
		*slot = (uintptr_t)span;
		return (0);
	}
	if (!mt__is_node(*slot)) {
		/* Two share the slot: a node that tells them apart. */
		other = (struct mt__span *)*slot;
		n = new_node(b,
		    min(lo, max(other->range.first, slot_lo)),
		    max(hi, min(other->range.last, slot_hi)));
		if (n == NULL || put_in_node(b, n, other) == -1)
			return (-1);
		*slot = (uintptr_t)n + 1;
		return (put_in_node(b, n, span));
	}
	inner = mt__to_node(*slot);
	if (lo < inner->base || hi > node_last(inner)) {
		/* The node is too small: one around it. */
		n = new_node(b, min(lo, inner->base),
		    max(hi, node_last(inner)));
		if (n == NULL)
			return (-1);
		n->slots[slot_of(n, inner->base)] = *slot;
		n->used = 1;
		*slot = (uintptr_t)n + 1;
		return (put_in_node(b, n, span));
	}
	if ((n = writable(b, slot)) == NULL)
		return (-1);
	return (put_in_node(b, n, span));
}

static int
take(struct mt__build *b, uintptr_t *slot, const struct mt__span *span)
{
	struct mt__node *n;
	unsigned int i, end;

	if (!mt__is_node(*slot)) {
		if (*slot == (uintptr_t)span)
			*slot = 0;
		return (0);
	}
	if ((n = writable(b, slot)) == NULL)
		return (-1);
	i = slot_of(n, max(span->range.first, n->base));
	end = slot_of(n, min(span->range.last, node_last(n)));
	for (; i <= end; i++) {
		if (n->slots[i] == 0)
			continue;
		if (take(b, &n->slots[i], span) == -1)
			return (-1);
		if (n->slots[i] == 0)
			n->used--;
	}
	if (n->used == 0) {
		TAILQ_REMOVE(&b->new_nodes, n, link);
		b->bytes -= sizeof(*n);
		free(n);
		*slot = 0;
	}
	return (0);
}

int
mt__build_add(struct mt__build *b, struct mt__span *span)
{
	span->build = b->number;
	TAILQ_INSERT_TAIL(&b->adds, span, link);
	b->count++;
	b->bytes += sizeof(*span);
	return (put(b, &b->top, 0, MT_LAST_MAX, span));
}

int
mt__build_del(struct mt__build *b, struct mt__span *span)
{
	if (take(b, &b->top, span) == -1)
		return (-1);
	b->count--;
	b->bytes -= sizeof(*span);
	/* What this build has made itself nobody needs to hear of. */
	if (span->build == b->number) {
		TAILQ_REMOVE(&b->adds, span, link);
		mt__span_free(span);
	} else {
		TAILQ_INSERT_TAIL(&b->dels, span, link);
		b->garbage += sizeof(*span);
	}
	return (0);
}
