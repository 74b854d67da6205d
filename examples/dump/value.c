/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

#include <err.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dump.h"

static void
must(int rv)
{
	if (rv == -1)
		errx(ST_FAILED, "out of memory");
}

void
put(json_t *obj, const char *key, json_t *val)
{
	must(json_object_set_new(obj, key, val));
}

void
put_bool(json_t *obj, const char *key, bool val)
{
	put(obj, key, json_boolean(val));
}

void
put_int(json_t *obj, const char *key, uint64_t val)
{
	put(obj, key, json_integer((json_int_t)val));
}

void
put_hex(json_t *obj, const char *key, uint64_t val, int digits)
{
	put(obj, key, json_sprintf("0x%0*" PRIx64, digits, val));
}

void
put_text(json_t *obj, const char *key, const char *val)
{
	put(obj, key, json_string(val));
}

void
put_bytes(json_t *obj, const char *key, const uint8_t *p, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	char *s = malloc(2 * len + 1);

	if (s == NULL)
		err(ST_FAILED, NULL);
	for (size_t i = 0; i < len; i++) {
		s[2 * i] = digits[p[i] >> 4];
		s[2 * i + 1] = digits[p[i] & 15];
	}
	s[2 * len] = '\0';
	put(obj, key, json_string(s));
	free(s);
}

json_t *
put_array(json_t *obj, const char *key)
{
	json_t *a = json_array();

	put(obj, key, a);
	return (a);
}

json_t *
add_object(json_t *array)
{
	json_t *obj = json_object();

	must(json_array_append_new(array, obj));
	return (obj);
}

void
add_text(json_t *array, const char *val)
{
	must(json_array_append_new(array, json_string(val)));
}
