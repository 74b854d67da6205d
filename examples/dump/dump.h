/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef DUMP_H
#define DUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <libvfudma/client.h>

/*
 * What is found out about a device goes into one JSON object; --json prints
 * it, and the text is made of it, so the two cannot differ.  What is written
 * in hexadecimal is a string there ("0x4000"): 64 bits do not fit into the
 * integers of JSON.  Counts are numbers.
 *
 * Nothing that the server sends is believed.  Of text it sends none that is
 * kept; the length of every list is bounded here or by libvfudma's client.
 */

#define CFG_MAX		4096u		/* of config space */
#define CFG_HEADER	64u
#define REGION_NAME	20u	/* longest "region 4294967295" */
#define MAX_READS	16u
#define READ_MAX	((uint64_t)1 << 20)	/* bytes of one --read */

enum status {
	ST_GOOD = 0,
	ST_FAILED = 1,		/* no connection, or something was refused */
	ST_USAGE = 2,
	ST_PROTOCOL = 3,	/* not a vfio-user server, or not a good one */
	ST_TIMEOUT = 4,
};

/* What --read asks for. */
struct range {
	unsigned int region;
	uint64_t off;
	uint64_t len;
};

struct options {
	const char *socket;
	unsigned int timeout_s;
	unsigned int width;			/* of reads; 0: the widest */
	struct range reads[MAX_READS];
	unsigned int nr_reads;
	bool json;
};

struct dump {
	struct options opt;
	struct vd_client *client;
	json_t *root;
	json_t *regions;			/* lent by root */
	json_t *warnings;
	bool pci;
	uint8_t cfg[CFG_MAX];
	size_t cfg_len;				/* 0: none could be read */
	uint64_t sizes[VD_NUM_REGIONS];
	uint32_t flags[VD_NUM_REGIONS];		/* VD_REGION_* */
	enum status status;
};

/* --- main.c --------------------------------------------------------------- */

/* Does this errno of a call mean that the connection is of no more use? */
bool	lost(int error);

/*
 * A call of the client failed, with errno.  If the connection is of no more
 * use the report ends with what and why, and this is true; else obj, unless
 * NULL, gets the reason.
 */
bool	failed(struct dump *d, json_t *obj, const char *what);
void	warning(struct dump *d, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));

/* --- value.c: building JSON; all end the program if memory runs out ------- */

void	put(json_t *obj, const char *key, json_t *val);	/* takes val */
void	put_bool(json_t *obj, const char *key, bool val);
void	put_int(json_t *obj, const char *key, uint64_t val);
void	put_hex(json_t *obj, const char *key, uint64_t val, int digits);
void	put_text(json_t *obj, const char *key, const char *val);
/* At most len bytes, as digits. */
void	put_bytes(json_t *obj, const char *key, const uint8_t *p, size_t len);
json_t	*put_array(json_t *obj, const char *key);	/* lends */
json_t	*add_object(json_t *array);			/* lends */
void	add_text(json_t *array, const char *val);

/* --- device.c: all that needs the server ---------------------------------- */

const char *region_name(unsigned int index, char buf[static REGION_NAME]);
/* These are false when the connection is of no more use. */
bool	get_device(struct dump *d);
bool	get_reads(struct dump *d);

/* --- config.c: the header of config space, and the lists in it ------------ */

/* A little-endian field of 1, 2 or 4 bytes; 0 where it is beyond the end. */
uint32_t cfg(const struct dump *d, size_t off, unsigned int size);
void	decode_config(struct dump *d);

/* --- caps.c: one capability in [at, end) ---------------------------------- */

void	decode_cap(struct dump *d, json_t *obj, size_t at, size_t end);
void	decode_ext_cap(struct dump *d, json_t *obj, size_t at, size_t end);

/* --- text.c --------------------------------------------------------------- */

void	print_text(const json_t *root);

#endif
