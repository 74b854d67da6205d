/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <errno.h>
#include <stdlib.h>

#include "internal.h"

struct notice {
	struct mt_space *sp;
	struct mt_listener *only;	/* NULL: all of them */
};

static struct mt_listener *
last_of(struct mt_listener *l)
{
	while (l != NULL && l->next != NULL)
		l = l->next;
	return (l);
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
}

static void
tell_del(void *arg, const struct mt_section *sec)
{
	struct notice *n = arg;
	struct mt_listener *l;

	for (l = n->only != NULL ? n->only : last_of(n->sp->listeners);
	    l != NULL; l = n->only != NULL ? NULL : l->prev)
		if (l->del != NULL)
			l->del(l->arg, n->sp, sec);
}

void
mt__listener_notify(struct mt_space *sp, const struct mt__build *b)
{
	struct notice n = { .sp = sp };
	const struct mt__span *span;
	struct mt_section sec;
	struct mt_listener *l;

	if (sp->listeners == NULL)
		return;
	for (l = sp->listeners; l != NULL; l = l->next)
		if (l->begin != NULL)
			l->begin(l->arg, sp);
	TAILQ_FOREACH(span, &b->dels, link) {
		mt__section_of(span, &sec);
		tell_del(&n, &sec);
	}
	TAILQ_FOREACH(span, &b->adds, link) {
		mt__section_of(span, &sec);
		tell_add(&n, &sec);
	}
	for (l = sp->listeners; l != NULL; l = l->next)
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
