/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Deep trees: nothing needs a stack that grows with them. */

#include <pthread.h>

#include <libmemtree/memtree.h>

#include "t/tap.h"
#include "t/util.h"

#define DEEP		20000
#define DEEP_DUMP	3000	/* each line is indented further */
/* A few bytes for each level would not fit. */
#define STACK		((size_t)(T_ASAN || T_TSAN ? 512 : 64) * 1024)

/* n containers in one another, around r, which only they keep then. */
static struct mt_region *
nest(struct mt_region *r, unsigned int n)
{
	struct mt_region *box;

	while (n-- > 0) {
		box = t_container(mt_region_topology(r), "box", 0x1000);
		t_add(box, 0, 0, r);
		r = box;
	}
	return (r);
}

/* n aliases, each of the one before it. */
static struct mt_region *
chain(struct mt_region *r, unsigned int n)
{
	struct mt_region *alias;

	while (n-- > 0) {
		alias = t_alias(mt_region_topology(r), "alias", r, 0, 0x1000);
		mt_region_put(r);
		r = alias;
	}
	return (r);
}

/* By turns. */
static struct mt_region *
both(struct mt_region *r, unsigned int n)
{
	for (; n > 1; n -= 2)
		r = nest(chain(r, 1), 1);
	return (r);
}

static void
test_shown(struct mt_topology *t, struct mt_region *(*make)(struct mt_region *,
    unsigned int), const char *what)
{
	struct mt_region *ram = t_ram(t, "ram", 0x1000), *top, *other;
	struct mt_space *sp;
	int puts = 0;

	must(mt_region_set_owner(ram, &puts, t_put) == 0);
	top = make(mt_region_get(ram), DEEP);
	sp = t_space(top);
	is_view(sp, "0-fff ram+0", "%s: what is deep below is shown", what);
	works(mt_region_set_enabled(ram, false), "%s: it can be disabled",
	    what);
	is_view(sp, "", "%s: and is gone", what);
	must(mt_region_set_enabled(ram, true) == 0);
	works(mt_region_resize(ram, 0x7ff), "%s: it can be resized", what);
	is_view(sp, "0-7ff ram+0", "%s: and is smaller", what);
	fails(mt_region_add(ram, top, 0, 0), ELOOP,
	    "%s: what is above is not put into it", what);
	other = t_container(t, "other", 0x1000);
	works(mt_region_add(other, top, 0, 0), "%s: but elsewhere it is",
	    what);
	must(mt_topology_begin(t) == 0);
	must(mt_region_del(top) == 0);
	works(mt_topology_commit(t), "%s: from where it is taken", what);

	must(mt_space_destroy(sp) == 0);
	mt_region_put(other);
	mt_region_put(top);
	mt_region_put(ram);
	is_int(t_puts_of(t, &puts), 1, "%s: all of it is freed", what);
}

static void
test_dump(struct mt_topology *t)
{
	struct mt_region *top = both(t_ram(t, "ram", 0x1000), DEEP_DUMP);
	FILE *fp = fopen("/dev/null", "w");

	must(fp != NULL);
	top = nest(top, DEEP_DUMP);
	works(mt_dump_tree(fp, top), "it is written as text");
	works(mt_dump_dot(fp, top), "and as a graph");
	fclose(fp);
	mt_region_put(top);
}

static void *
test(void *arg)
{
	struct mt_topology *t = t_topology();

	(void)arg;
	test_shown(t, nest, "containers");
	test_shown(t, chain, "aliases");
	test_shown(t, both, "both by turns");
	test_dump(t);
	t_end(t);
	return (NULL);
}

int
main(void)
{
	pthread_attr_t attr;
	pthread_t thread;

	must(pthread_attr_init(&attr) == 0);
	must(pthread_attr_setstacksize(&attr, STACK) == 0);
	must(pthread_create(&thread, &attr, test, NULL) == 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
	return (done());
}
