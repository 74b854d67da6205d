/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A view as a picture: a column of boxes, low addresses on top, a box for each
 * section and each hole.  Neighbours whose sizes are not too far apart are
 * drawn to one scale and bracketed; all others are drawn as tall as a line of
 * text needs, a little taller the larger they are, and their sides are broken.
 *
 * Text never overlaps: every box is at least a line high, each column of text
 * has its own room, and names are cut to what theirs holds.  Fonts cannot be
 * measured here, so all text is in fixed width, with room to spare.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/stdlib.h>

#include "internal.h"

#define LINE		18		/* the least height of a box */
#define RATIO		8.0		/* most between sizes to one scale */
#define PIECES_MAX	((size_t)512)	/* boxes that are drawn */

/* Where the columns begin, and the width of all. */
#define SCALE_X		12
#define ADDR_X		100
#define BOX_X		224
#define BOX_W		380
#define NAME_CHARS	40		/* of names in boxes, before sizes */
#define NOTE_X		(BOX_X + BOX_W + 12)
#define WIDTH		980
#define TOP		96

struct piece {
	struct mt_range range;
	struct mt_region *region;	/* NULL: a hole, or left out */
	mt_addr off;
	unsigned int flags;
	size_t left_out;		/* sections that this stands for */
	bool scaled;
	int height;
};

static double
bytes(struct mt_range range)
{
	return ((double)(range.last - range.first) + 1);
}

/* --- text ---------------------------------------------------------------- */

/* A name, cut to so many columns, 0 for all of it. */
static void
put_name(FILE *fp, const char *name, size_t columns)
{
	const char *s = name;
	size_t n, width = 0, wide;
	bool cut = false;
	char c[4];

	while ((n = mt__dump_char(&s, c)) > 0)
		/* Han, Hangul, kana and all later ones may be two wide. */
		width += (unsigned char)c[0] >= 0xe1 ? 2 : 1;
	if (columns > 0 && width > columns) {
		cut = true;
		columns--;		/* for the dots */
	}
	for (s = name, width = 0; (n = mt__dump_char(&s, c)) > 0;) {
		wide = (unsigned char)c[0] >= 0xe1 ? 2 : 1;
		if (cut && width + wide > columns)
			break;
		width += wide;
		switch (c[0]) {
		case '<':
			fputs("&lt;", fp);
			break;
		case '>':
			fputs("&gt;", fp);
			break;
		case '&':
			fputs("&amp;", fp);
			break;
		case '"':
			fputs("&quot;", fp);
			break;
		default:
			fwrite(c, 1, n, fp);
		}
	}
	if (cut)
		fputs("\xe2\x80\xa6", fp);
}

/* "4 KiB"; "~3.25 GiB" where that is not all of it. */
static const char *
size_text(struct mt_range range, char *buf, size_t len)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB",
	    "PiB", "EiB" };
	uint64_t n = range.last - range.first + 1, whole, cents, rest;
	unsigned int unit = 0, shift;
	bool exact;

	if (n == 0)
		return ("16 EiB");
	while (unit + 1 < sizeof(units) / sizeof(units[0]) &&
	    n >> 10 * (unit + 1) != 0)
		unit++;
	shift = 10 * unit;
	whole = n >> shift;
	rest = n - (whole << shift);
	/* A hundred times the rest has to fit. */
	if (shift > 50) {
		rest >>= shift - 50;
		shift = 50;
	}
	cents = rest * 100 >> shift;
	exact = cents << shift == rest * 100;
	if (cents == 0)
		snprintf(buf, len, "%s%" PRIu64 " %s", exact ? "" : "~",
		    whole, units[unit]);
	else
		snprintf(buf, len, "%s%" PRIu64 ".%0*" PRIu64 " %s",
		    exact ? "" : "~", whole, cents % 10 == 0 ? 1 : 2,
		    cents % 10 == 0 ? cents / 10 : cents, units[unit]);
	return (buf);
}

/* --- which boxes, and how tall ------------------------------------------- */

static size_t
hole(struct piece *list, size_t n, mt_addr first, mt_addr last)
{
	list[n] = (struct piece){ .range = { first, last } };
	return (n + 1);
}

/*
 * Fill list with the sections of v and the holes between them, and leave out
 * the middle of what is too many.  How many there are.
 */
static size_t
split(const struct mt_view *v, struct piece *list)
{
	size_t count = mt_view_count(v), i = 0, n = 0, half = PIECES_MAX / 4;
	struct mt_section sec;
	struct piece *gap;
	mt_addr at = 0;

	while (mt_view_next(v, at, &sec)) {
		i++;
		if (count > 2 * half && i > half && i <= count - half) {
			gap = &list[n - 1];
			if (i == half + 1) {
				gap = &list[n++];
				*gap = (struct piece){ .range.first = at };
			}
			gap->left_out++;
			gap->range.last = sec.range.last;
		} else {
			if (sec.range.first > at)
				n = hole(list, n, at, sec.range.first - 1);
			list[n++] = (struct piece){ .range = sec.range,
			    .region = sec.region, .off = sec.off,
			    .flags = sec.flags };
		}
		if ((at = sec.range.last + 1) == 0)
			return (n);
	}
	return (hole(list, n, at, MT_LAST_MAX));
}

/* How many from the first of list can be drawn to one scale. */
static size_t
group(const struct piece *list, size_t n)
{
	double min, max, size;
	size_t i;

	min = max = bytes(list[0].range);
	for (i = 0; i < n && list[i].left_out == 0; i++) {
		size = bytes(list[i].range);
		min = size < min ? size : min;
		max = size > max ? size : max;
		if (max > min * RATIO)
			break;
	}
	return (i > 0 ? i : 1);
}

static void
measure(struct piece *list, size_t n)
{
	double min = bytes(list[0].range), size;
	size_t i;

	for (i = 1; i < n; i++)
		if (bytes(list[i].range) < min)
			min = bytes(list[i].range);
	for (i = 0; i < n; i++) {
		size = bytes(list[i].range);
		list[i].scaled = n > 1;
		if (n > 1)
			list[i].height = (int)(size / min * LINE + 0.5);
		else
			/* 18 for a byte, 50 for all that there is. */
			for (list[i].height = LINE; size >= 4; size /= 4)
				list[i].height++;
	}
}

/* --- drawing ------------------------------------------------------------- */

static void
put_text(FILE *fp, int x, int y, const char *class, const char *text)
{
	fprintf(fp, "<text x=\"%d\" y=\"%d\"%s%s%s>%s</text>\n", x, y,
	    class != NULL ? " class=\"" : "", class != NULL ? class : "",
	    class != NULL ? "\"" : "", text);
}

/* A box of which the sides are broken if it is not to scale. */
static void
put_box(FILE *fp, int x, int y, int w, int h, const char *fill, bool broken,
    bool is_hole)
{
	int mid = y + h / 2, i, side;

	fprintf(fp, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
	    "fill=\"%s\"%s/>\n", x, y, w, h, fill,
	    broken ? "" : is_hole ? " class=\"e h\"" : " class=\"e\"");
	if (!broken)
		return;
	fprintf(fp, "<path class=\"e%s\" d=\"M%d %dh%dM%d %dh%d",
	    is_hole ? " h" : "", x, y, w, x, y + h, w);
	for (i = 0; i < 2; i++) {
		side = x + i * w;
		fprintf(fp, "M%d %dV%dl4 2l-8 4l4 2V%d", side, y, mid - 4,
		    y + h);
	}
	fputs("\"/>\n", fp);
}

static void
put_note(FILE *fp, const struct piece *p, int y)
{
	fprintf(fp, "<text x=\"%d\" y=\"%d\" class=\"n\">%s%s", NOTE_X, y,
	    (p->flags & MT_SECTION_NONVOLATILE) != 0 ? "nv-" : "",
	    mt__dump_kind(p->region->kind));
	if ((p->flags & MT_SECTION_ROM_MODE) != 0)
		fputs(", rom mode", fp);
	if ((p->flags & MT_SECTION_READONLY) != 0 &&
	    p->region->kind != MT_ROM)
		fputs(", read-only", fp);
	if ((p->flags & MT_SECTION_UNMERGEABLE) != 0)
		fputs(", unmergeable", fp);
	if (p->off != 0)
		fprintf(fp, ", +%" PRIx64, p->off);
	fputs("</text>\n", fp);
}

static void
put_piece(FILE *fp, const struct piece *p, int y)
{
	char buf[64];
	/* The first address at the top; the text in the middle if alone. */
	int base = y + 13, middle = y + p->height / 2 + 4;
	const char *fill = p->region != NULL ?
	    mt__dump_colour(p->region->kind) : "#ffffff";

	fputs("<g>\n", fp);
	if (p->region != NULL) {
		fputs("<title>", fp);
		put_name(fp, p->region->name, 0);
		fprintf(fp, " %016" PRIx64 "-%016" PRIx64 "</title>\n",
		    p->range.first, p->range.last);
	}
	put_box(fp, BOX_X, y, BOX_W, p->height, fill, !p->scaled,
	    p->region == NULL);
	snprintf(buf, sizeof(buf), "%016" PRIx64, p->range.first);
	put_text(fp, ADDR_X, base, NULL, buf);
	if (p->height >= 2 * LINE) {
		snprintf(buf, sizeof(buf), "%016" PRIx64, p->range.last);
		put_text(fp, ADDR_X, y + p->height - 5, "n", buf);
	}
	if (p->left_out > 0) {
		snprintf(buf, sizeof(buf), "%zu sections left out",
		    p->left_out);
		put_text(fp, BOX_X + 10, middle, "n", buf);
	} else if (p->region == NULL)
		put_text(fp, BOX_X + 10, middle, "n", "hole");
	else {
		fprintf(fp, "<text x=\"%d\" y=\"%d\">", BOX_X + 10, middle);
		put_name(fp, p->region->name, NAME_CHARS);
		fputs("</text>\n", fp);
		put_note(fp, p, middle);
	}
	put_text(fp, BOX_X + BOX_W - 10, middle, "r",
	    size_text(p->range, buf, sizeof(buf)));
	fputs("</g>\n", fp);
}

/* A bracket around what is to one scale, and what a bar in it stands for. */
static void
put_scale(FILE *fp, const struct piece *list, size_t n, int y, int height)
{
	const struct piece *least = list;
	int mid = y + height / 2;
	char buf[32];
	size_t i;

	for (i = 1; i < n; i++)
		if (bytes(list[i].range) < bytes(least->range))
			least = &list[i];
	fprintf(fp, "<path class=\"s\" d=\"M%d %dh-5V%dh5\"/>\n", ADDR_X - 6,
	    y + 3, y + height - 3);
	fprintf(fp, "<path class=\"s\" d=\"M%d %dh6m-3 0v%dm-3 0h6\"/>\n",
	    SCALE_X - 8, mid - LINE / 2, LINE);
	put_text(fp, SCALE_X + 1, mid + 4, "t",
	    size_text(least->range, buf, sizeof(buf)));
}

static void
put_head(FILE *fp, struct mt_space *sp, size_t count, int height)
{
	static const enum mt_kind shown[] = { MT_RAM, MT_ROM, MT_ROM_DEVICE,
	    MT_RAM_DEVICE, MT_IO, MT_RESERVED, MT_IOMMU };
	const int y = 42;
	size_t i;
	int x = BOX_X;

	fprintf(fp, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
	    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" "
	    "height=\"%d\" viewBox=\"0 0 %d %d\">\n"
	    "<style>text{font:11px 'DejaVu Sans Mono',Menlo,Consolas,"
	    "monospace;fill:#000}\n"
	    ".b{font-weight:bold}.n{fill:#555}.r{text-anchor:end}"
	    ".t{font-size:10px;fill:#777}\n"
	    ".e{stroke:#444;stroke-width:1}path{fill:none}"
	    ".h{stroke:#aaa;stroke-dasharray:4 3}"
	    ".s{stroke:#999;stroke-width:1}</style>\n"
	    "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
	    WIDTH, height, WIDTH, height, WIDTH, height);
	fprintf(fp, "<text x=\"%d\" y=\"22\"><tspan class=\"b\">", ADDR_X);
	put_name(fp, mt_space_name(sp), NAME_CHARS);
	fputs("</tspan><tspan class=\"n\">: root ", fp);
	put_name(fp, mt_space_root(sp)->name, NAME_CHARS);
	fprintf(fp, ", %zu section%s</tspan></text>\n", count,
	    count == 1 ? "" : "s");
	for (i = 0; i <= sizeof(shown) / sizeof(shown[0]); i++, x += 92) {
		if (i < sizeof(shown) / sizeof(shown[0])) {
			put_box(fp, x, y, 14, 12, mt__dump_colour(shown[i]),
			    false, false);
			put_text(fp, x + 20, y + 10, NULL,
			    mt__dump_kind(shown[i]));
		} else {
			put_box(fp, x, y, 14, 12, "#ffffff", false, true);
			put_text(fp, x + 20, y + 10, NULL, "hole");
		}
	}
	fprintf(fp, "<path class=\"s\" d=\"M%d %dh-5v16h5\"/>\n", BOX_X + 6,
	    y + 22);
	put_text(fp, BOX_X + 20, y + 34, "n", "to one scale");
	put_box(fp, BOX_X + 6 + 2 * 92 - 4, y + 22, 18, 16, "#ffffff", true,
	    false);
	put_text(fp, BOX_X + 34 + 2 * 92, y + 34, "n", "not to scale");
}

int
mt_dump_svg(FILE *fp, struct mt_space *sp)
{
	struct mt_view *v = mt_space_view(sp);
	size_t count = mt_view_count(v), n, i, j, k;
	int y, total, tall;
	struct piece *list;

	/* Each section that is drawn may have a hole before it. */
	n = count < PIECES_MAX ? 2 * count + 2 : PIECES_MAX + 4;
	if ((list = reallocarray(NULL, n, sizeof(*list))) == NULL) {
		mt_view_put(v);
		errno = ENOMEM;
		return (-1);
	}
	n = split(v, list);
	for (i = 0; i < n; i += group(list + i, n - i))
		measure(list + i, group(list + i, n - i));
	for (total = TOP + 24, i = 0; i < n; i++)
		total += list[i].height;
	put_head(fp, sp, count, total);
	for (y = TOP, i = 0; i < n; i += j) {
		j = group(list + i, n - i);
		for (tall = 0, k = i; k < i + j; k++) {
			put_piece(fp, &list[k], y + tall);
			tall += list[k].height;
		}
		if (j > 1)
			put_scale(fp, list + i, j, y, tall);
		y += tall;
	}
	fputs("</svg>\n", fp);
	free(list);
	mt_view_put(v);
	return (ferror(fp) ? -1 : 0);
}
