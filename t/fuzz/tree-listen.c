/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Listeners: each has a mirror of its space, made of what it is told. */

#include "t/fuzz/tree.h"

static void
told_begin(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && !s->telling);
	s->telling = true;
}

static void
told_commit(void *arg, struct mt_space *sp)
{
	struct seat *s = arg;

	check(sp == s->sp && s->telling);
	s->telling = false;
	/* Changes from here are refused. */
	check(mt_topology_begin(w.t) == -1 && errno == EDEADLK);
}

static size_t
place_of(const struct seat *s, const struct mt_section *sec)
{
	size_t i = 0;

	while (i < s->n && s->mirror[i].range.first < sec->range.first)
		i++;
	return (i);
}

static void
told_add(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	size_t i = place_of(s, sec);

	check(sp == s->sp && s->n < MIRROR);
	check(i == s->n || sec->range.last < s->mirror[i].range.first);
	check(i == 0 || sec->range.first > s->mirror[i - 1].range.last);
	memmove(&s->mirror[i + 1], &s->mirror[i],
	    (s->n - i) * sizeof(s->mirror[0]));
	s->mirror[i] = *sec;
	s->n++;
}

static void
told_del(void *arg, struct mt_space *sp, const struct mt_section *sec)
{
	struct seat *s = arg;
	size_t i = place_of(s, sec);

	check(sp == s->sp && i < s->n && same(&s->mirror[i], sec));
	s->n--;
	memmove(&s->mirror[i], &s->mirror[i + 1],
	    (s->n - i) * sizeof(s->mirror[0]));
}

void
toggle_listener(struct seat *s)
{
	if (s->sp == NULL)
		return;
	if (s->listening) {
		check(mt_listener_unregister(&s->l) == 0);
		check(s->n == 0);
	} else {
		s->l = (struct mt_listener){ .arg = s, .begin = told_begin,
		    .commit = told_commit, .add = told_add, .del = told_del };
		check(mt_listener_register(s->sp, &s->l) == 0);
	}
	s->listening = !s->listening;
}
