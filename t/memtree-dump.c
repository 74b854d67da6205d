/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Trees and views as text: for people, so only what they look for. */

#include <ctype.h>

#include "t/util.h"

static char *
dump(struct mt_region *root, struct mt_space *sp)
{
	char *text = NULL;
	size_t len = 0;
	FILE *fp;
	int ret;

	must((fp = open_memstream(&text, &len)) != NULL);
	if (root != NULL)
		ret = mt_dump_tree(fp, root);
	else
		ret = mt_dump_view(fp, sp);
	works(ret, "the dump is made");
	fclose(fp);
	return (text);
}

/* The lines in which what is, in the order of the text. */
static int
line_of(const char *text, const char *what)
{
	const char *at = strstr(text, what);
	int n = 0;

	if (at == NULL)
		return (-1);
	for (; text < at; text++)
		n += *text == '\n';
	return (n);
}

static int
indent_of(const char *text, const char *what)
{
	const char *at = strstr(text, what);
	int n = 0;

	if (at == NULL)
		return (-1);
	while (at > text && at[-1] != '\n')
		at--;
	while (at[n] == ' ' || at[n] == '\t')
		n++;
	return (n);
}

static int
count(const char *text, const char *what)
{
	int n = 0;

	while ((text = strstr(text, what)) != NULL) {
		n++;
		text += strlen(what);
	}
	return (n);
}

static void
test_tree(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *root, *box, *low, *high, *target, *alias, *second;
	char *text;

	root = t_container(t, "the-root", T_ALL);
	box = t_add(root, 0x1000, 0, t_container(t, "the-box", 0x2000));
	low = t_add(box, 0, -1, t_ram(t, "the-low", 0x2000));
	high = t_add(box, 0x1abc, 7, t_io(t, "the-high", 0x10, &dev));
	target = t_rom(t, "the-target", 0x1000);
	t_add(target, 0, 0, t_reserved(t, "the-inner", 0x10));
	alias = t_add(root, 0x8000, 0,
	    t_alias(t, "the-alias", target, 0x500, 0x1000));
	second = t_add(root, 0x9000, 0,
	    t_alias(t, "the-second", target, 0, 0x1000));
	t_add(root, 0xa000, 0, t_alias(t, "the-own", box, 0, 0x1000));
	must(mt_region_set_enabled(second, false) == 0);
	text = dump(root, NULL);
	ok(text[0] != '\0' && text[strlen(text) - 1] == '\n',
	    "it consists of lines");
	is_int(count(text, "the-root"), 1, "the root is in it");
	is_int(line_of(text, "the-root"), 0, "first");
	ok(line_of(text, "the-high") > line_of(text, "the-box"),
	    "what wins comes first below its parent");
	is_int(line_of(text, "the-low"), line_of(text, "the-high") + 1,
	    "then what loses");
	ok(indent_of(text, "the-box") > indent_of(text, "the-root"),
	    "a child is indented");
	ok(indent_of(text, "the-low") > indent_of(text, "the-box"),
	    "and its child more");
	is_int(indent_of(text, "the-low"), indent_of(text, "the-high"),
	    "siblings are indented alike");
	ok(line_of(text, "the-own") != -1 &&
	    line_of(text, "the-own") < line_of(text, "the-second") &&
	    line_of(text, "the-second") < line_of(text, "the-alias"),
	    "the latest of equals comes first");
	ok(strstr(text, "1abc") != NULL || strstr(text, "2abc") != NULL,
	    "it tells addresses");
	ok(strstr(text, "ffffffffffffffff") != NULL, "and the last of all");
	ok(line_of(text, "the-inner") > line_of(text, "the-alias") &&
	    line_of(text, "the-inner") > line_of(text, "the-low"),
	    "targets that are not in the tree follow it");
	is_int(count(text, "the-inner"), 1, "once");
	is_int(count(text, "the-high"), 1, "and those that are do not");
	ok(strstr(text, "disabled") != NULL, "it tells what is disabled");
	free(text);

	text = dump(box, NULL);
	ok(strstr(text, "the-root") == NULL &&
	    strstr(text, "the-low") != NULL, "any region can be dumped");
	free(text);

	must(mt_topology_begin(t) == 0);
	must(mt_region_del(low) == 0);
	text = dump(root, NULL);
	ok(strstr(text, "the-low") == NULL,
	    "in a transaction the tree is as it is then");
	free(text);
	must(mt_topology_commit(t) == 0);
	(void)high, (void)alias;
	mt_region_put(target);
	mt_region_put(root);
	works(mt_topology_sync(t), "wait");
	t_end(t);
}

static void
test_view(void)
{
	struct mt_topology *t = t_topology();
	struct t_dev dev = T_DEV(.endian = MT_LITTLE);
	struct mt_region *root, *hidden, *romd;
	struct mt_space *sp;
	char *text, *other;

	root = t_container(t, "root", T_ALL);
	sp = t_space(root);
	text = dump(NULL, sp);
	ok(strstr(text, "the-") == NULL, "an empty view shows nothing");
	free(text);
	t_add(root, 0x1000, 0, t_ram(t, "the-ram", 0x3000));
	t_add(root, 0x2abc, 1, t_io(t, "the-io", 0x10, &dev));
	t_add(root, 0xfffffffffffff000, 0, t_rom(t, "the-rom", 0x1000));
	hidden = t_add(root, 0x1000, -1, t_ram(t, "the-hidden", 0x1000));
	text = dump(NULL, sp);
	is_int(count(text, "the-ram"), 2, "each piece has a line");
	is_int(line_of(text, "the-io"), line_of(text, "the-ram") + 1,
	    "in the order of addresses");
	ok(line_of(text, "the-rom") > line_of(text, "the-io"), "all of them");
	ok(strstr(text, "1000") != NULL && strstr(text, "2abb") != NULL &&
	    strstr(text, "2abc") != NULL && strstr(text, "2acb") != NULL &&
	    strstr(text, "2acc") != NULL && strstr(text, "3fff") != NULL &&
	    strstr(text, "ffffffffffffffff") != NULL,
	    "from the first to the last byte");
	ok(strstr(text, "1acc") != NULL,
	    "with the offset of what does not begin at 0");
	ok(strstr(text, "the-hidden") == NULL, "what is hidden is not there");
	free(text);

	romd = t_add(root, 0x9000, 0, t_romd(t, "the-romd", 0x1000, &dev));
	text = dump(NULL, sp);
	must(mt_region_set_nonvolatile(root, true) == 0);
	other = dump(NULL, sp);
	ok(strcmp(text, other) != 0, "what is non-volatile is told apart");
	free(other);
	must(mt_region_set_nonvolatile(root, false) == 0);
	must(mt_region_set_rom_mode(romd, false) == 0);
	other = dump(NULL, sp);
	ok(strcmp(text, other) != 0, "and what is in ROM mode");
	free(other);
	must(mt_region_set_rom_mode(romd, true) == 0);
	must(mt_region_set_readonly(root, true) == 0);
	other = dump(NULL, sp);
	ok(strcmp(text, other) != 0, "and what is read-only");
	free(other);
	must(mt_region_set_readonly(root, false) == 0);
	other = dump(NULL, sp);
	is_str(other, text, "and what is as before is not");
	free(other);
	free(text);

	must(mt_topology_begin(t) == 0);
	must(mt_region_move(hidden, 0x8000) == 0);
	text = dump(NULL, sp);
	ok(strstr(text, "the-hidden") == NULL,
	    "nor what a transaction has not shown yet");
	free(text);
	must(mt_topology_commit(t) == 0);
	text = dump(NULL, sp);
	is_int(count(text, "the-hidden"), 1, "until it has");
	free(text);
	must(mt_space_destroy(sp) == 0);
	mt_region_put(root);
	works(mt_topology_sync(t), "wait");
	t_end(t);
}

static void
test_errors(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root;
	struct mt_space *sp;
	FILE *fp;

	root = t_ram(t, "root", 0x1000);
	sp = t_space(root);
	if ((fp = fopen("/dev/full", "w")) == NULL)
		skip(2, "no /dev/full");
	else {
		setvbuf(fp, NULL, _IONBF, 0);
		fails(mt_dump_tree(fp, root), ENOSPC,
		    "a tree that cannot be written is an error");
		clearerr(fp);
		fails(mt_dump_view(fp, sp), ENOSPC, "as is a view");
		fclose(fp);
	}
	must(mt_space_destroy(sp) == 0);
	mt_region_put(root);
	t_end(t);
}

int
main(void)
{
	test_tree();
	test_view();
	test_errors();
	return (done());
}
