/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* Dumps are for people, so tests are of what they look for only. */

#include <ctype.h>

#include "t/util.h"

static char *
dump_by(struct mt_region *root, struct mt_space *sp,
    int (*tree)(FILE *, struct mt_region *),
    int (*view)(FILE *, struct mt_space *))
{
	char *text = NULL;
	size_t len = 0;
	FILE *fp;
	int ret;

	must((fp = open_memstream(&text, &len)) != NULL);
	if (root != NULL)
		ret = tree(fp, root);
	else
		ret = view(fp, sp);
	works(ret, "the dump is made");
	fclose(fp);
	return (text);
}

static char *
dump(struct mt_region *root, struct mt_space *sp)
{
	return (dump_by(root, sp, mt_dump_tree, mt_dump_view));
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

/* The text between the last before and the next after, before what. */
static const char *
around(const char *text, const char *what, const char *before,
    const char *after)
{
	const char *at = strstr(text, what), *begin = NULL, *p, *end;
	char *s = t_text();

	if (at == NULL)
		return ("(not there)");
	for (p = text; (p = strstr(p, before)) != NULL && p < at; p++)
		begin = p + strlen(before);
	if (begin != NULL && (end = strstr(begin, after)) != NULL)
		t_append(s, "%.*s", (int)(end - begin), begin);
	return (s);
}

static void
test_dot(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *box, *target, *off;
	const char *win;
	char *text, *again, *end, edge[64];

	root = t_container(t, "the \"root\" \\", T_ALL);
	box = t_add(root, 0x1000, 0, t_container(t, "the-box", 0x2000));
	t_add(box, 0x800, 7, t_rom(t, "the-rom", 0x800));
	target = t_ram(t, "the-target", 0x4000);
	t_add(root, 0x8000, 1, t_alias(t, "the-alias", target, 0xabc, 0x1000));
	t_add(root, 0x9000, 0, t_alias(t, "the-own", box, 0, 0x1000));
	off = t_add(root, 0xa000, 0, t_container(t, "the-off", 0x1000));
	t_add(off, 0, 0, t_reserved(t, "the-inner\xff\n", 0x1000));
	must(mt_region_set_enabled(off, false) == 0);
	text = dump_by(root, NULL, mt_dump_dot, NULL);
	again = dump_by(root, NULL, mt_dump_dot, NULL);
	is_str(again, text, "the same tree is the same graph");
	free(again);
	ok(strstr(text, "digraph \"the \\\"root\\\" \\\\\" {\n") == text,
	    "a graph has the name of its root, escaped");
	is_int(count(text, "[label="), 8, "each region has a node");
	ok(strstr(around(text, "the-rom", "[label=", "]"),
	    "1800 - 1fff\\nprio 7, rom\"") != NULL,
	    "with addresses, priority and kind");
	ok(strstr(around(text, "the-alias", "[label=", "]"),
	    "alias @abc\"") != NULL, "and the offset of an alias");
	is_int(count(text, "-> "), 6 + 2, "edges to children and targets");
	is_int(count(text, "[style=dashed"), 2, "of which the latter dashed");
	/* By number: "n1" is the first, what is listed first wins. */
	win = around(text, "the-alias", "\tn", " ");
	snprintf(edge, sizeof(edge), "\tn%s -> n%s [style=dashed", win,
	    around(text, "the-target", "\tn", " "));
	is_str(win, "1", "what wins is the first");
	ok(strstr(text, edge) != NULL, "an alias leads to what it shows");
	ok(strstr(around(text, "the-off", "[label=", "]"), "disabled") !=
	    NULL && strstr(around(text, "the-off", "[label=", "]"),
	    "dashed") != NULL, "what is disabled looks so");
	ok(strstr(around(text, "the-inner", "[label=", "]"), "disabled") ==
	    NULL && strstr(around(text, "the-inner", "[label=", "]"),
	    "dashed") != NULL, "and so does what is in it");
	ok(strstr(text, "the-inner\xef\xbf\xbd\xef\xbf\xbd\\n") != NULL,
	    "bytes that are no text are replaced");
	end = text + strlen(text) - 2;
	is_str(end, "}\n", "it is closed");
	free(text);
	mt_region_put(target);
	mt_region_put(root);
	t_end(t);
}

/* Do any two texts of a picture, or a text and the edge, overlap? */
static int
overlaps(const char *svg)
{
	struct {
		double x, y, w;
	} box[4096], *a;
	int n = 0, found = 0, i, x, y;
	const char *p, *s;
	bool is_right;
	size_t len;

	for (p = svg; (p = strstr(p, "<text x=")) != NULL; p = s) {
		must(sscanf(p, "<text x=\"%d\" y=\"%d\"", &x, &y) == 2);
		is_right = strncmp(strchr(p, '>') - 2, "r\"", 2) == 0;
		s = strstr(p, "</text>");
		for (len = 0, p = strchr(p, '>') + 1; p < s; p++) {
			if (*p == '<')
				p = strchr(p, '>');
			else if ((*p & 0xc0) != 0x80 && ++len && *p == '&')
				p = strchr(p, ';');
		}
		must((size_t)n < T_COUNT(box));
		a = &box[n++];
		a->w = (double)len * 6.7;
		a->x = is_right ? x - a->w : x;
		a->y = y;
		found += a->x < 0 || a->x + a->w > 980;
		for (i = 0; i < n - 1; i++)
			if (a->y - box[i].y < 11 && box[i].y - a->y < 11 &&
			    a->x < box[i].x + box[i].w &&
			    box[i].x < a->x + a->w) {
				diag("%d,%d and %d,%d", x, y, (int)box[i].x,
				    (int)box[i].y);
				found++;
			}
	}
	return (n > 0 ? found : -1);
}

static void
test_svg(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *r;
	struct mt_space *sp;
	uint64_t seed = 1;
	char *text;
	int i;

	root = t_container(t, "root", T_ALL);
	sp = t_space(root);
	text = dump_by(NULL, sp, NULL, mt_dump_svg);
	ok(strstr(text, ">hole<") != NULL && strstr(text, ">16 EiB<") != NULL,
	    "of nothing there is a picture");
	free(text);
	t_add(root, 0x1000, 0, t_ram(t, "<a>&\"b\"\x01", 0x3000));
	t_add(root, 0x2abc, 1, t_reserved(t, "the-small", 0x10));
	r = t_add(root, 0xfffffffffffff000, 0, t_rom(t, "the-name-that-is-too-"
	    "long-to-be-shown-in-any-box", 0x1000));
	must(mt_region_set_nonvolatile(r, true) == 0);
	text = dump_by(NULL, sp, NULL, mt_dump_svg);
	is_int(count(text, ">&lt;a&gt;&amp;&quot;b&quot;\xef\xbf\xbd</text>"),
	    2, "names are escaped, a box for each piece");
	ok(strstr(text, "to-be-shown-in-any-box fff") != NULL,
	    "a title has all of a name");
	ok(strstr(text, ">the-name-that-is-too-long-to-be-shown-i"
	    "\xe2\x80\xa6<") != NULL, "a box what fits of it");
	is_int(count(text, ">hole</text>"), 1 + 2, "holes are shown");
	ok(strstr(text, "0000000000001000<") != NULL &&
	    strstr(text, "0000000000002abc<") != NULL &&
	    strstr(text, "0000000000002acc<") != NULL &&
	    strstr(text, "fffffffffffff000<") != NULL,
	    "as are the addresses where something begins");
	ok(strstr(text, ">16 B<") != NULL && strstr(text, ">4 KiB<") != NULL &&
	    strstr(text, ">~6.68 KiB<") != NULL, "and sizes");
	ok(strstr(text, ">nv-rom</text>") != NULL &&
	    strstr(text, ">ram, +1acc</text>") != NULL, "and kinds");
	is_int(overlaps(text), 0, "no text overlaps another");
	free(text);

	must(mt_topology_begin(t) == 0);
	for (i = 0; i < 300; i++)
		t_add(root, 0x100000000 * (mt_addr)(i + 1), 0, t_reserved(t,
		    "a-rather-long-name-for-no-more-than-some-region",
		    (mt_addr)1 + (t_random(&seed) >> (32 + t_below(&seed,
		    32)))));
	must(mt_topology_commit(t) == 0);
	text = dump_by(NULL, sp, NULL, mt_dump_svg);
	ok(strstr(text, ">48 sections left out<") != NULL,
	    "of too many the middle is left out");
	is_int(overlaps(text), 0, "of many no text overlaps either");
	free(text);
	must(mt_space_destroy(sp) == 0);
	mt_region_put(root);
	works(mt_topology_sync(t), "wait");
	t_end(t);
}

/* Names that would pass for lines, or for what a terminal does. */
static void
test_names(void)
{
	struct mt_topology *t = t_topology();
	struct mt_region *root, *target;
	struct mt_space *sp;
	char *text;

	root = t_container(t, "root\nthe-forged", T_ALL);
	target = t_ram(t, "target\x1b[2K\xc2\x9b\xe2\x82\xac\xff", 0x1000);
	t_add(root, 0, 0, t_alias(t, "alias\r", target, 0, 0x1000));
	must((sp = mt_space_create(root, "space\nthe-forged")) != NULL);
	text = dump(root, NULL);
	is_int(count(text, "\n"), 4, "a tree has no lines but its own");
	is_int(count(text, "\x1b") + count(text, "\r") +
	    count(text, "\xc2\x9b") + count(text, "\xff"), 0,
	    "and nothing for the terminal");
	is_int(count(text, "target\xef\xbf\xbd[2K\xef\xbf\xbd\xe2\x82\xac"
	    "\xef\xbf\xbd"), 3, "what else is in a name stays");
	free(text);
	text = dump(NULL, sp);
	is_int(count(text, "\n"), 2, "nor does a view have others");
	is_int(count(text, "\x1b"), 0, "or anything for the terminal");
	free(text);
	mt_region_put(target);
	t_end_space(t, sp, root);
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
		skip(4, "no /dev/full");
	else {
		setvbuf(fp, NULL, _IONBF, 0);
		fails(mt_dump_tree(fp, root), ENOSPC,
		    "a tree that cannot be written is an error");
		clearerr(fp);
		fails(mt_dump_view(fp, sp), ENOSPC, "as is a view");
		clearerr(fp);
		fails(mt_dump_dot(fp, root), ENOSPC, "and a graph");
		clearerr(fp);
		fails(mt_dump_svg(fp, sp), ENOSPC, "and a picture");
		fclose(fp);
	}
	t_end_space(t, sp, root);
}

int
main(void)
{
	test_tree();
	test_view();
	test_dot();
	test_svg();
	test_names();
	test_errors();
	return (done());
}
