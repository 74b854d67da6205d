/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct notice {
	struct mt_space *sp;
	struct mt_listener *only;	/* NULL: all of them */
	uint64_t build;			/* that is told of */
	bool begun;
};

static struct mt_listener *
last_of(struct mt_listener *l)
{
	while (l != NULL && l->next != NULL)
		l = l->next;
	return (l);
}

/* The clients for whom sec's writes are logged were, and are. */
static void
tell_log(struct notice *n, const struct mt_section *sec, unsigned int was,
    unsigned int now)
{
	struct mt_listener *l;

	if ((now & ~was) != 0)
		for (l = n->only != NULL ? n->only : n->sp->listeners;
		    l != NULL; l = n->only != NULL ? NULL : l->next)
			if (l->log_start != NULL)
				l->log_start(l->arg, n->sp, sec, was, now);
	if ((was & ~now) != 0)
		for (l = n->only != NULL ? n->only : last_of(n->sp->listeners);
		    l != NULL; l = n->only != NULL ? NULL : l->prev)
			if (l->log_stop != NULL)
				l->log_stop(l->arg, n->sp, sec, was, now);
}

static void
tell_add(void *arg, const struct mt_section *sec)
{
	struct notice *n = arg;
	struct mt_listener *l;

	for (l = n->only != NULL ? n->only : n->sp->listeners; l != NULL;
	    l = n->only != NULL ? NULL : l->next)
		if (l->add != NULL)
			l->add(l->arg, n->sp, sec);
	/* Who comes inside a transaction hears of its changes at the end. */
	tell_log(n, sec, 0, n->only != NULL ? sec->region->log_told :
	    sec->region->state.log);
}

static void
tell_del(void *arg, const struct mt_section *sec)
{
	struct notice *n = arg;
	struct mt_listener *l;

	tell_log(n, sec, sec->region->log_told, 0);
	for (l = n->only != NULL ? n->only : last_of(n->sp->listeners);
	    l != NULL; l = n->only != NULL ? NULL : l->prev)
		if (l->del != NULL)
			l->del(l->arg, n->sp, sec);
}

static void
tell_begin(struct notice *n)
{
	struct mt_listener *l;

	n->begun = true;
	for (l = n->sp->listeners; l != NULL; l = l->next)
		if (l->begin != NULL)
			l->begin(l->arg, n->sp);
}

/* The log of a section that stayed, if it was changed. */
static bool
tell_relog(void *arg, const struct mt__span *span)
{
	const struct mt_region *r = span->region;
	struct notice *n = arg;
	struct mt_section sec;

	if (span->build == n->build || r->log_told == r->state.log)
		return (false);
	if (!n->begun)
		tell_begin(n);
	mt__section_of(span, &sec);
	tell_log(n, &sec, r->log_told, r->state.log);
	return (false);
}

/* Of the changes of a commit that root has, if any. */
void
mt__listener_notify(struct mt_space *sp, struct mt__root *root)
{
	const struct mt__build *b = &root->build;
	struct notice n = { .sp = sp, .build = b->number };
	const struct mt__span *span;
	struct mt_section sec;
	struct mt_listener *l;

	if (sp->listeners == NULL)
		return;
	if (root->next_view != NULL)
		tell_begin(&n);
	TAILQ_FOREACH(span, &b->dels, link) {
		mt__section_of(span, &sec);
		tell_del(&n, &sec);
	}
	TAILQ_FOREACH(span, &b->adds, link) {
		mt__section_of(span, &sec);
		tell_add(&n, &sec);
	}
	if (sp->topology->relogged)
		(void)mt__root_touched(root, tell_relog, &n);
	for (l = n.begun ? sp->listeners : NULL; l != NULL; l = l->next)
		if (l->commit != NULL)
			l->commit(l->arg, sp);
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

/* Tell only l that the view which sp shows has come or gone. */
static void
replay(struct mt_space *sp, struct mt_listener *l,
    void (*tell)(void *, const struct mt_section *))
{
	struct notice n = { .sp = sp, .only = l };
	const struct mt__span *span;
	struct mt_section sec;
	mt_addr addr = 0;

	sp->topology->notifying = true;
	if (l->begin != NULL)
		l->begin(l->arg, sp);
	while ((span = mt__view_search(sp->root->view, addr)) != NULL) {
		mt__section_of(span, &sec);
		tell(&n, &sec);
		if (sec.range.last == MT_LAST_MAX)
			break;
		addr = sec.range.last + 1;
	}
	if (l->commit != NULL)
		l->commit(l->arg, sp);
	sp->topology->notifying = false;
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
	replay(sp, l, tell_add);
	return (mt_topology_commit(t));
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
	replay(sp, l, tell_del);
	unlink_listener(l);
	return (mt_topology_commit(t));
}
