/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/* Who is to be told of which changes. */
struct notice {
	struct mt_space *sp;
	struct mt_listener *only;	/* NULL: all of them */
	const struct mt_view *other;	/* before or after; NULL: nothing */
	bool is_add;			/* told is what came; else what goes */
	bool begun;
};

/* --- the order of listeners ---------------------------------------------- */

static struct mt_listener *
first(const struct notice *n, bool ascending)
{
	struct mt_listener *l = n->sp->listeners;

	if (n->only != NULL)
		return (n->only);
	while (!ascending && l != NULL && l->next != NULL)
		l = l->next;
	return (l);
}

static struct mt_listener *
next(const struct notice *n, const struct mt_listener *l, bool ascending)
{
	if (n->only != NULL)
		return (NULL);
	return (ascending ? l->next : l->prev);
}

#define FOREACH_LISTENER(l, n, ascending)	\
	for (l = first(n, ascending); l != NULL; l = next(n, l, ascending))

/* Comes before the first thing that is told, if there is any. */
static void
tell_begin(struct notice *n)
{
	struct mt_listener *l;

	if (n->begun)
		return;
	n->begun = true;
	FOREACH_LISTENER(l, n, true)
		if (l->begin != NULL)
			l->begin(l->arg, n->sp);
}

/* l has something to settle when the commit is over. */
static void
unsettle(struct mt_listener *l)
{
	struct mt_listener **at = &l->sp->topology->unsettled;

	if (l->settle == NULL || l->unsettled)
		return;
	while (*at != NULL)
		at = &(*at)->next_unsettled;
	*at = l;
	l->next_unsettled = NULL;
	l->unsettled = true;
}

static void
settled(struct mt_listener *l)
{
	struct mt_listener **at = &l->sp->topology->unsettled;

	if (!l->unsettled)
		return;
	while (*at != l)
		at = &(*at)->next_unsettled;
	*at = l->next_unsettled;
	l->unsettled = false;
}

static void
tell_commit(const struct notice *n)
{
	struct mt_listener *l;

	if (!n->begun)
		return;
	FOREACH_LISTENER(l, n, true) {
		if (l->commit != NULL)
			l->commit(l->arg, n->sp);
		unsettle(l);
	}
}

void
mt__listener_settle(struct mt_topology *t)
{
	struct mt_listener *l;

	t->settling = true;
	while ((l = t->unsettled) != NULL) {
		settled(l);
		l->settle(l->arg, l->sp);
		/* What it has left open would be somebody else's. */
		while (t->depth > 0)
			(void)mt_topology_commit(t);
	}
	t->settling = false;
}

/* --- what is in both views ----------------------------------------------- */

/* What the other view has at addr, if that is the same byte of the region. */
static const struct mt__span *
counterpart(const struct notice *n, const struct mt__span *span, mt_addr addr)
{
	const struct mt__span *s;

	if (n->other == NULL)
		return (NULL);
	s = mt__tree_at(n->other->top, addr);
	if (s == NULL || s->region != span->region ||
	    addr - s->range.first + s->off != addr - span->range.first +
	    span->off)
		return (NULL);
	return (s);
}

/*
 * The same section in the other view, or NULL: all that may differ is what
 * its region has besides.
 */
static const struct mt__span *
twin(const struct notice *n, const struct mt__span *span)
{
	const struct mt__span *s = counterpart(n, span, span->range.first);

	if (s == NULL || s->range.first != span->range.first ||
	    s->range.last != span->range.last ||
	    ((s->flags ^ span->flags) & MT__SECTION_FLAGS) != 0)
		return (NULL);
	return (s);
}

/* --- sections and their logs --------------------------------------------- */

/* The clients for whom sec's writes are logged were, and are. */
static void
tell_log(struct notice *n, const struct mt_section *sec, unsigned int was,
    unsigned int now)
{
	struct mt_listener *l;

	if (was == now)
		return;
	tell_begin(n);
	if ((now & ~was) != 0)
		FOREACH_LISTENER(l, n, true)
			if (l->log_start != NULL)
				l->log_start(l->arg, n->sp, sec, was, now);
	if ((was & ~now) != 0)
		FOREACH_LISTENER(l, n, false)
			if (l->log_stop != NULL)
				l->log_stop(l->arg, n->sp, sec, was, now);
}

static void
tell_section(struct notice *n, const struct mt__span *span)
{
	const struct mt_region *r = span->region;
	struct mt_listener *l;
	struct mt_section sec;

	if (twin(n, span) != NULL)
		return;
	tell_begin(n);
	mt__section_of(span, &sec);
	if (!n->is_add)
		tell_log(n, &sec, r->log_told, 0);
	FOREACH_LISTENER(l, n, n->is_add) {
		if (n->is_add ? l->add == NULL : l->del == NULL)
			continue;
		(n->is_add ? l->add : l->del)(l->arg, n->sp, &sec);
	}
	/* Who comes inside a transaction hears of its changes at the end. */
	if (n->is_add)
		tell_log(n, &sec, 0, n->only != NULL ? r->log_told :
		    r->state.log);
}

/* The log of a section that stayed, if it was changed. */
static bool
tell_relog(void *arg, const struct mt__span *span)
{
	const struct mt_region *r = span->region;
	struct notice *n = arg;
	struct mt_section sec;

	if (r->log_told == r->state.log || twin(n, span) == NULL)
		return (false);
	mt__section_of(span, &sec);
	tell_log(n, &sec, r->log_told, r->state.log);
	return (false);
}

/* --- eventfds ------------------------------------------------------------ */

struct eventfd_notice {
	struct notice *n;
	const struct mt__span *span;
};

static void
tell_eventfd(void *arg, const struct mt__eventfd *ev)
{
	const struct eventfd_notice *en = arg;
	const struct mt__span *span = en->span, *s;
	struct notice *n = en->n;
	struct mt_eventfd info = {
		.addr = span->range.first + (ev->off - span->off),
		.size = ev->size, .match = ev->match, .data = ev->data,
		.fd = ev->fd,
	};
	struct mt_listener *l;
	struct mt_section sec;

	if (!mt__eventfd_shown(span, info.addr, ev))
		return;
	s = counterpart(n, span, info.addr);
	if (s != NULL && mt__eventfd_shown(s, info.addr, ev))
		return;
	tell_begin(n);
	mt__section_of(span, &sec);
	FOREACH_LISTENER(l, n, n->is_add) {
		if (n->is_add ? l->eventfd_add == NULL : l->eventfd_del == NULL)
			continue;
		(n->is_add ? l->eventfd_add : l->eventfd_del)(l->arg, n->sp,
		    &sec, &info);
	}
}

static void
tell_eventfds(struct notice *n, const struct mt__span *span)
{
	struct eventfd_notice en = { .n = n, .span = span };
	struct mt_range range = { span->off,
	    span->off + (span->range.last - span->range.first) };
	const struct mt__span *s;

	if (span->extras == NULL)
		return;
	/* In the same section what both have is quickly skipped. */
	s = twin(n, span);
	mt__eventfds_diff(span->extras->eventfds, s != NULL &&
	    s->extras != NULL ? s->extras->eventfds : NULL, range,
	    tell_eventfd, &en);
}

/* --- coalescing ---------------------------------------------------------- */

/* Does span, unless NULL, show just this, of range i of x? */
static bool
shows(const struct mt__span *span, const struct mt__extras *x, size_t i,
    const struct mt_range *shown)
{
	struct mt_range r;

	return (x != NULL && i < x->nranges &&
	    mt__coalesce_shown(span, &x->ranges[i], &r) &&
	    r.first == shown->first && r.last == shown->last);
}

static void
tell_range(struct notice *n, const struct mt__span *span,
    struct mt_range shown)
{
	struct mt_listener *l;
	struct mt_section sec;

	tell_begin(n);
	mt__section_of(span, &sec);
	FOREACH_LISTENER(l, n, n->is_add) {
		if (n->is_add ? l->coalesce_add == NULL :
		    l->coalesce_del == NULL)
			continue;
		(n->is_add ? l->coalesce_add : l->coalesce_del)(l->arg, n->sp,
		    &sec, shown);
	}
}

/*
 * A range is in what the other view shows of the region at its address, which
 * may be in several sections, or in none.  Where it is the same section, both
 * have their ranges in order.
 */
static void
tell_ranges(struct notice *n, const struct mt__span *span)
{
	const struct mt__extras *x = span->extras, *y = NULL;
	const struct mt__span *same, *s;
	struct mt_range shown;
	size_t i, at;

	if (x == NULL || x->nranges == 0)
		return;
	if ((same = s = twin(n, span)) != NULL)
		y = s->extras;
	at = mt__coalesce_find(y, span->off);
	for (i = mt__coalesce_find(x, span->off); i < x->nranges &&
	    mt__coalesce_shown(span, &x->ranges[i], &shown); i++) {
		if (same == NULL) {
			s = counterpart(n, span, shown.first);
			y = s != NULL ? s->extras : NULL;
			at = mt__coalesce_find(y, span->off +
			    (shown.first - span->range.first));
		}
		while (same != NULL && y != NULL && at < y->nranges &&
		    y->ranges[at].last < x->ranges[i].first)
			at++;
		if (!shows(s, y, at, &shown))
			tell_range(n, span, shown);
	}
}

/* --- all of it ----------------------------------------------------------- */

static void
tell_each(struct notice *n, const struct mt__spans *list,
    void (*tell)(struct notice *, const struct mt__span *))
{
	const struct mt__span *span;

	TAILQ_FOREACH(span, list, link)
		tell(n, span);
}

/* Of the changes of a commit that root has, if any. */
void
mt__listener_notify(struct mt_space *sp, struct mt__root *root)
{
	const struct mt__build *b = &root->build;
	struct notice n = { .sp = sp, .other = root->view };

	if (sp->listeners == NULL)
		return;
	tell_each(&n, &b->dels, tell_ranges);
	tell_each(&n, &b->dels, tell_eventfds);
	tell_each(&n, &b->dels, tell_section);
	n.is_add = true;
	if (root->next_view != NULL)
		n.other = root->next_view;	/* is the old one by now */
	tell_each(&n, &b->adds, tell_section);
	if (sp->topology->relogged)
		(void)mt__root_touched(root, tell_relog, &n);
	tell_each(&n, &b->adds, tell_eventfds);
	tell_each(&n, &b->adds, tell_ranges);
	tell_commit(&n);
}

/* The same for all spans of the view that the space shows. */
static void
tell_all(struct notice *n, void (*tell)(struct notice *,
    const struct mt__span *))
{
	const struct mt__span *span;
	mt_addr addr = 0;

	while ((span = mt__view_search(n->sp->root->view, addr)) != NULL) {
		tell(n, span);
		if (span->range.last == MT_LAST_MAX)
			break;
		addr = span->range.last + 1;
	}
}

/* Tell only l that the view which sp shows has come or gone. */
static void
replay(struct mt_space *sp, struct mt_listener *l, bool is_add)
{
	struct notice n = { .sp = sp, .only = l, .is_add = is_add };

	sp->topology->notifying = true;
	tell_begin(&n);
	if (is_add)
		tell_all(&n, tell_section);
	else if (l->coalesce_del != NULL)
		tell_all(&n, tell_ranges);
	if (is_add ? l->eventfd_add != NULL : l->eventfd_del != NULL)
		tell_all(&n, tell_eventfds);
	if (!is_add)
		tell_all(&n, tell_section);
	else if (l->coalesce_add != NULL)
		tell_all(&n, tell_ranges);
	tell_commit(&n);
	sp->topology->notifying = false;
}

static void
link_listener(struct mt_space *sp, struct mt_listener *l)
{
	struct mt_listener *at, *prev = NULL;

	for (at = sp->listeners; at != NULL && at->prio <= l->prio;
	    at = at->next)
		prev = at;
	l->prev = prev;
	l->next = at;
	if (prev != NULL)
		prev->next = l;
	else
		sp->listeners = l;
	if (at != NULL)
		at->prev = l;
	l->sp = sp;
}

static void
unlink_listener(struct mt_listener *l)
{
	if (l->prev != NULL)
		l->prev->next = l->next;
	else
		l->sp->listeners = l->next;
	if (l->next != NULL)
		l->next->prev = l->prev;
	l->next = l->prev = NULL;
	l->sp = NULL;
}

/*
 * What is done is done.  The commit can fail for a space that is new and has
 * no view yet, because its own failed: that is left to the one after this.
 */
static void
leave(struct mt_topology *t)
{
	(void)mt_topology_commit(t);
}

/*
 * Inside a transaction the view is that of before it; the changes follow at
 * the commit.
 */
int
mt_listener_register(struct mt_space *sp, struct mt_listener *l)
{
	struct mt_topology *t = sp->topology;

	if (mt_topology_begin(t) == -1)
		return (-1);
	if (l->sp != NULL) {
		(void)mt_topology_commit(t);
		errno = EBUSY;
		return (-1);
	}
	link_listener(sp, l);
	replay(sp, l, true);
	leave(t);
	return (0);
}

int
mt_listener_unregister(struct mt_listener *l)
{
	struct mt_space *sp = l->sp;
	struct mt_topology *t;

	if (sp == NULL) {
		errno = ENOENT;
		return (-1);
	}
	t = sp->topology;
	if (mt_topology_begin(t) == -1)
		return (-1);
	replay(sp, l, false);
	settled(l);
	unlink_listener(l);
	leave(t);
	return (0);
}
