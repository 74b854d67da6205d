/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The report as text.  What the JSON lacks is left out.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dump.h"

#define WIDTH	79	/* columns, unless a single word has more */
#define INDENT	7

static const char *
text(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return (s != NULL ? s : "");
}

static uint64_t
hex(const json_t *obj, const char *key)
{
	return (strtoull(text(obj, key), NULL, 16));
}

/* Digits without the 0x. */
static const char *
digits(const json_t *obj, const char *key)
{
	const char *s = text(obj, key);

	return (strncmp(s, "0x", 2) == 0 ? s + 2 : s);
}

static uintmax_t
number(const json_t *obj, const char *key)
{
	return ((uintmax_t)json_integer_value(json_object_get(obj, key)));
}

static bool
is_true(const json_t *obj, const char *key)
{
	return (json_is_true(json_object_get(obj, key)));
}

/* 16 KiB, if it is a whole number of something, else in hexadecimal. */
static const char *
size_text(uint64_t size, char buf[static 32])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB",
	    "TiB", "PiB", "EiB" };
	unsigned int i = 0;
	uint64_t n = size;

	while (n != 0 && n % 1024 == 0) {
		n /= 1024;
		i++;
	}
	if (n < 10240)
		snprintf(buf, 32, "%" PRIu64 " %s", n, units[i]);
	else
		snprintf(buf, 32, "0x%" PRIx64 " bytes", size);
	return (buf);
}

/* The strings of an array, each after sep. */
static void
print_words(const json_t *array, const char *sep)
{
	const json_t *word;
	size_t i;

	json_array_foreach(array, i, word)
		printf("%s%s", i == 0 ? " " : sep, json_string_value(word));
}

static void
print_error(const json_t *obj)
{
	if (json_object_get(obj, "error") != NULL)
		printf("  error: %s\n", text(obj, "error"));
}

/* --- the parts ------------------------------------------------------------ */

static void
print_register(const json_t *root, const char *key)
{
	const json_t *obj = json_object_get(root, key);

	if (obj == NULL)
		return;
	printf("%-11s %s", key, digits(obj, "value"));
	print_words(json_object_get(obj, "bits"), ", ");
	putchar('\n');
}

static void
print_header(const json_t *root)
{
	const json_t *ids = json_object_get(root, "ids");
	const json_t *class = json_object_get(root, "class");
	const json_t *device = json_object_get(root, "device");

	if (ids != NULL) {
		printf("%s:%s", digits(ids, "vendor"), digits(ids, "device"));
		if (json_object_get(ids, "subvendor") != NULL)
			printf(", subsystem %s:%s", digits(ids, "subvendor"),
			    digits(ids, "subdevice"));
		printf(", revision %s\n", digits(ids, "revision"));
		printf("%-11s %s %s\n", "class", digits(class, "code"),
		    text(class, "name"));
	}
	print_register(root, "command");
	print_register(root, "status");
	if (json_object_get(root, "interrupt_pin") != NULL)
		printf("%-11s %s\n", "pin", text(root, "interrupt_pin"));
	if (json_object_get(device, "pci") != NULL)
		printf("%-11s %sPCI, %sresettable, %ju regions, "
		    "%ju kinds of interrupts\n", "device",
		    is_true(device, "pci") ? "" : "not ",
		    is_true(device, "resettable") ? "" : "not ",
		    number(device, "regions"), number(device, "interrupts"));
	print_error(device);
}

static void
print_region(const json_t *r)
{
	const json_t *areas = json_object_get(r, "areas"), *a;
	char buf[32];
	size_t i;

	printf("  %-7s", text(r, "name"));
	if (json_object_get(r, "error") != NULL) {
		printf(" error: %s\n", text(r, "error"));
		return;
	}
	printf(" %s", size_text(hex(r, "size"), buf));
	if (json_object_get(r, "type") != NULL)
		printf(", %s", text(r, "type"));
	if (json_object_get(r, "64-bit") != NULL)
		printf(", %s-bit", is_true(r, "64-bit") ? "64" : "32");
	if (is_true(r, "prefetchable"))
		printf(", prefetchable");
	if (json_object_get(r, "address") != NULL)
		printf(", at %s", text(r, "address"));
	if (json_object_get(r, "enabled") != NULL)
		printf(", %s", is_true(r, "enabled") ? "enabled" : "disabled");
	putchar(';');
	print_words(json_object_get(r, "flags"), " ");
	putchar('\n');
	json_array_foreach(areas, i, a) {
		/* The client has checked that none of these can wrap. */
		uint64_t off = hex(a, "offset"), size = hex(a, "size");

		printf("  %-7s maps 0x%" PRIx64 "-0x%" PRIx64
		    ", in the file at 0x%" PRIx64 "\n", "", off,
		    off + (size - 1), off + hex(r, "fd_offset"));
	}
}

static void
print_regions(const json_t *regions)
{
	const json_t *r;
	size_t i;

	if (regions == NULL)
		return;
	printf("regions\n");
	json_array_foreach(regions, i, r)
		if (hex(r, "size") != 0 ||
		    json_object_get(r, "error") != NULL)
			print_region(r);
}

/*
 * "key value", with spaces for underscores; a truth by its name alone.  On a
 * new line if there is no room for it at column.  Returns the column after it.
 */
static int
print_field(const char *key, const json_t *val, char before, int column)
{
	char buf[1024];		/* all of a capability's bytes, as digits */
	int n;

	if (json_is_integer(val))
		n = snprintf(buf, sizeof(buf), "%s %ju", key,
		    (uintmax_t)json_integer_value(val));
	else if (json_is_string(val))
		n = snprintf(buf, sizeof(buf), "%s %s", key,
		    json_string_value(val));
	else
		n = snprintf(buf, sizeof(buf), "%s", key);
	for (size_t i = 0; i < strlen(key); i++)
		if (buf[i] == '_')
			buf[i] = ' ';
	if (column + 2 + n < WIDTH)
		return (column + printf("%c %s", before, buf));
	return (printf("%c\n%*s%s", before, INDENT, "", buf) - 2);
}

static void
print_caps(const json_t *root, const char *what)
{
	const json_t *caps = json_object_get(root, what), *val;
	json_t *cap;
	const char *key;
	int column;
	size_t i;
	char before;

	if (json_array_size(caps) == 0)
		return;
	printf("%s\n", strcmp(what, "capabilities") == 0 ? what :
	    "extended capabilities");
	json_array_foreach(caps, i, cap) {
		column = printf("  %-4s %s (%s)", digits(cap, "offset"),
		    text(cap, "name"), digits(cap, "id"));
		before = ':';
		json_object_foreach(cap, key, val) {
			if (strcmp(key, "offset") == 0 ||
			    strcmp(key, "id") == 0 ||
			    strcmp(key, "name") == 0 || json_is_false(val))
				continue;
			column = print_field(key, val, before, column);
			before = ',';
		}
		putchar('\n');
	}
}

static void
print_irqs(const json_t *irqs)
{
	const json_t *irq;
	size_t i;

	if (irqs == NULL)
		return;
	printf("interrupts\n");
	json_array_foreach(irqs, i, irq) {
		if (json_object_get(irq, "error") != NULL)
			printf("  %-7s error: %s\n", text(irq, "name"),
			    text(irq, "error"));
		if (number(irq, "count") == 0)
			continue;
		printf("  %-7s %ju;", text(irq, "name"),
		    number(irq, "count"));
		print_words(json_object_get(irq, "flags"), " ");
		putchar('\n');
	}
}

static void
print_limits(const json_t *l)
{
	char buf[32];

	printf("limits\n  vfio-user 0.%ju, %ju descriptor%s a message, "
	    "%s a transfer,\n", number(l, "minor"), number(l, "max_msg_fds"),
	    number(l, "max_msg_fds") == 1 ? "" : "s",
	    size_text(hex(l, "max_data_xfer"), buf));
	printf("  %ju DMA maps, pages of", number(l, "max_dma_maps"));
	for (uint64_t left = hex(l, "page_sizes"); left != 0;
	    left &= left - 1)
		printf(" %s", size_text(left & -left, buf));
	printf(", %s twin socket\n",
	    json_is_true(json_object_get(l, "twin_socket")) ? "a" : "no");
}

static unsigned int
nibble(char c)
{
	return ((unsigned int)(c <= '9' ? c - '0' : c - 'a' + 10));
}

/* Sixteen bytes a line; the text is what is printable of them. */
static void
print_line(uint64_t off, const char *s, size_t n)
{
	char ascii[17] = "";
	unsigned int byte;

	printf("  %08" PRIx64 " ", off);
	for (size_t i = 0; i < 16; i++) {
		if (i == 8)
			putchar(' ');
		if (i >= n) {
			printf("   ");
			continue;
		}
		byte = nibble(s[2 * i]) << 4 | nibble(s[2 * i + 1]);
		printf(" %02x", byte);
		ascii[i] = (char)(byte >= ' ' && byte <= '~' ? byte : '.');
	}
	printf("  |%s|\n", ascii);
}

static void
print_read(const json_t *r)
{
	const char *s = text(r, "data");
	size_t len = strlen(s) / 2;

	printf("%s at %s, %s bytes", text(r, "region"), text(r, "offset"),
	    text(r, "size"));
	if (json_object_get(r, "width") != NULL)
		printf(", read by %ju", number(r, "width"));
	putchar('\n');
	for (size_t i = 0; i < len; i += 16)
		print_line(hex(r, "offset") + i, s + 2 * i,
		    len - i < 16 ? len - i : 16);
	print_error(r);
}

void
print_text(const json_t *root)
{
	const json_t *warnings = json_object_get(root, "warnings");
	const json_t *val;
	size_t i;

	print_header(root);
	print_regions(json_object_get(root, "regions"));
	print_caps(root, "capabilities");
	print_caps(root, "extended_capabilities");
	print_irqs(json_object_get(root, "interrupts"));
	print_limits(json_object_get(root, "limits"));
	json_array_foreach(json_object_get(root, "reads"), i, val)
		print_read(val);
	if (json_array_size(warnings) > 0)
		printf("warnings\n");
	json_array_foreach(warnings, i, val)
		printf("  %s\n", json_string_value(val));
}
