/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The version exchange, for both roles.
 */

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "internal.h"

/* A peer's JSON beyond this is not read: all known keys take some 300 bytes. */
#define JSON_LIMIT	8192

/* What our server says, with three more capabilities, or nothing instead. */
#define JSON		"{\"capabilities\":{\"max_msg_fds\":%d%s%s%s}}"

/* What a peer that names no value means, and what our client offers. */
#define DEF_MSG_FDS	1
#define DEF_DATA_XFER	((uint64_t)1 << 20)
#define DEF_DMA_MAPS	65535
#define DEF_PGSIZES	4096
#define DEF_BITMAP	((uint64_t)256 << 20)
#define TOP_MSG_FDS	1024		/* what others refuse to believe */

static int __attribute__((format(printf, 2, 3)))
invalid(char why[VD__WHY_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, VD__WHY_MAX, fmt, ap);
	va_end(ap);
	return (EINVAL);
}

static void
defaults(struct vd__caps *caps)
{
	memset(caps, 0, sizeof(*caps));
	caps->max_msg_fds = DEF_MSG_FDS;
	caps->max_data_xfer = DEF_DATA_XFER;
	caps->max_dma_maps = DEF_DMA_MAPS;
	caps->pgsizes = DEF_PGSIZES;
	caps->migration_pgsize = DEF_PGSIZES;
	caps->max_bitmap = DEF_BITMAP;
}

/* An integer from min to max, if obj has key. */
static int
get_int(json_t *obj, const char *key, uint64_t min, uint64_t max,
    uint64_t *out, char why[VD__WHY_MAX])
{
	json_t *v = json_object_get(obj, key);
	json_int_t i;

	if (v == NULL)
		return (0);
	if (!json_is_integer(v))
		return (invalid(why, "%s is not an integer", key));
	i = json_integer_value(v);
	if (i < 0 || (uint64_t)i < min || (uint64_t)i > max)
		return (invalid(why, "%s %" JSON_INTEGER_FORMAT " is not in "
		    "%" PRIu64 " to %" PRIu64, key, i, min, max));
	*out = (uint64_t)i;
	return (0);
}

static int
get_bool(json_t *obj, const char *key, bool *out, char why[VD__WHY_MAX])
{
	json_t *v = json_object_get(obj, key);

	if (v == NULL)
		return (0);
	if (!json_is_boolean(v))
		return (invalid(why, "%s is not a boolean", key));
	*out = json_is_true(v);
	return (0);
}

/* A set of page sizes, none below 4096. */
static int
get_pgsizes(json_t *obj, const char *key, bool one, uint64_t *out,
    char why[VD__WHY_MAX])
{
	int err;

	if ((err = get_int(obj, key, 4096, INT64_MAX, out, why)) != 0)
		return (err);
	if ((*out & 4095) != 0 || (one && (*out & (*out - 1)) != 0))
		return (invalid(why, "%s %#" PRIx64 " is no page size", key,
		    *out));
	return (0);
}

/* obj[key], which has to be an object; *out is NULL if there is none. */
static int
get_object(json_t *obj, const char *key, json_t **out, char why[VD__WHY_MAX])
{
	*out = json_object_get(obj, key);
	if (*out != NULL && !json_is_object(*out))
		return (invalid(why, "%s is not an object", key));
	return (0);
}

static int
get_migration(json_t *obj, bool from_server, struct vd__caps *caps,
    char why[VD__WHY_MAX])
{
	json_t *migration;
	int err;

	if ((err = get_object(obj, "migration", &migration, why)) != 0 ||
	    migration == NULL)
		return (err);
	if ((err = get_pgsizes(migration, "pgsize", true,
	    &caps->migration_pgsize, why)) != 0)
		return (err);
	return (get_int(migration, "max_bitmap_size", 1,
	    from_server ? DEF_BITMAP : INT64_MAX, &caps->max_bitmap, why));
}

static int
get_twin_socket(json_t *obj, bool from_server, struct vd__caps *caps,
    char why[VD__WHY_MAX])
{
	uint64_t fd_index = TOP_MSG_FDS;
	json_t *twin;
	int err;

	if ((err = get_object(obj, "twin_socket", &twin, why)) != 0 ||
	    twin == NULL)
		return (err);
	if ((err = get_bool(twin, "supported", &caps->twin_socket, why)) != 0 ||
	    (err = get_int(twin, "fd_index", 0, TOP_MSG_FDS - 1, &fd_index,
	    why)) != 0)
		return (err);
	if (from_server && caps->twin_socket && fd_index == TOP_MSG_FDS)
		return (invalid(why, "twin_socket has no fd_index"));
	caps->twin_index = (unsigned int)fd_index;
	return (0);
}

static int
get_caps(json_t *obj, bool from_server, struct vd__caps *caps,
    char why[VD__WHY_MAX])
{
	uint64_t fds = caps->max_msg_fds;
	int err;

	if ((err = get_int(obj, "max_msg_fds", 0, TOP_MSG_FDS, &fds,
	    why)) != 0)
		return (err);
	caps->max_msg_fds = (uint32_t)fds;
	/* Accesses of 8 bytes at least have to fit into a message. */
	if ((err = get_int(obj, "max_data_xfer_size", 8, INT64_MAX,
	    &caps->max_data_xfer, why)) != 0 ||
	    (err = get_int(obj, "max_dma_maps", 1,
	    from_server ? DEF_DMA_MAPS : INT64_MAX, &caps->max_dma_maps,
	    why)) != 0 ||
	    (err = get_pgsizes(obj, "pgsizes", false, &caps->pgsizes,
	    why)) != 0 ||
	    (err = get_bool(obj, "write_multiple", &caps->write_multiple,
	    why)) != 0 ||
	    (err = get_migration(obj, from_server, caps, why)) != 0 ||
	    (err = get_twin_socket(obj, from_server, caps, why)) != 0)
		return (err);
	if (from_server && caps->write_multiple)
		return (invalid(why, "write_multiple was not offered"));
	return (0);
}

int
vd__negotiate_parse(const char *json, size_t len, bool from_server,
    struct vd__caps *caps, char why[VD__WHY_MAX])
{
	json_error_t error;
	json_t *root, *obj;
	int err;

	why[0] = '\0';
	defaults(caps);
	if (len > JSON_LIMIT)
		return (invalid(why, "JSON of %zu bytes is too long", len));
	/*
	 * The depth is bounded by jansson; an integer that does not fit
	 * into 64 bits and an object with a key twice are errors.
	 */
	root = json_loadb(json, len, JSON_REJECT_DUPLICATES, &error);
	if (root == NULL) {
		if (json_error_code(&error) == json_error_out_of_memory) {
			invalid(why, "out of memory");
			return (ENOMEM);
		}
		return (invalid(why, "JSON: %s", error.text));
	}
	if (!json_is_object(root))
		err = invalid(why, "JSON is not an object");
	else if ((err = get_object(root, "capabilities", &obj, why)) == 0 &&
	    obj != NULL)
		err = get_caps(obj, from_server, caps, why);
	json_decref(root);
	return (err);
}

/* The same major version, or why not. */
static int
check_major(const struct vd_version *v, char why[VD__WHY_MAX])
{
	if (v->major == VD_PROTO_MAJOR)
		return (0);
	return (invalid(why, "version %u.%u is not spoken here", v->major,
	    v->minor));
}

/*
 * Our capabilities as JSON with its NUL, in at most room bytes: where that is
 * little, what equals the default goes first, then what matters least.
 */
static size_t
server_json(const struct vd_server_limits *limits, bool *twin, char *buf,
    size_t room)
{
	static const char twin_json[] =
	    ",\"twin_socket\":{\"supported\":true,\"fd_index\":0}";
	const bool usual = limits->max_data_xfer == DEF_DATA_XFER;
	const char *with;
	char maps[40] = "", xfer[48];
	int n;

	if (limits->max_dma_regions < DEF_DMA_MAPS)
		snprintf(maps, sizeof(maps), ",\"max_dma_maps\":%" PRIu32,
		    limits->max_dma_regions);
	snprintf(xfer, sizeof(xfer), ",\"max_data_xfer_size\":%" PRIu32,
	    limits->max_data_xfer);
	with = *twin ? twin_json : "";
	n = snprintf(buf, room, JSON, VD_MAX_MSG_FDS, with, xfer, maps);
	if ((size_t)n >= room && usual)
		n = snprintf(buf, room, JSON, VD_MAX_MSG_FDS, with, "", maps);
	if ((size_t)n >= room && *twin) {
		*twin = false;
		return (server_json(limits, twin, buf, room));
	}
	if ((size_t)n >= room && !usual)
		n = snprintf(buf, room, JSON, VD_MAX_MSG_FDS, "", xfer, "");
	if ((size_t)n >= room)
		n = snprintf(buf, room, "{}");
	return ((size_t)n >= room ? 0 : (size_t)n + 1);
}

int
vd__negotiate_server(const struct vd__msg *req,
    const struct vd_server_limits *limits, struct vd__caps *peer,
    uint16_t *minor, uint8_t buf[VD__VERSION_MAX], size_t *len,
    char why[VD__WHY_MAX])
{
	struct vd_version v;
	const char *json;
	size_t json_len, room = VD__VERSION_MAX - sizeof(v);
	int err;

	why[0] = '\0';
	defaults(peer);
	if ((err = vd__wire_version(req->data, req->len, &v, &json,
	    &json_len)) != 0)
		return (invalid(why, "malformed VERSION"));
	if ((err = check_major(&v, why)) != 0)
		return (err);
	if (req->nfds > 0)
		return (invalid(why, "VERSION came with descriptors"));
	if (json != NULL) {
		if ((err = vd__negotiate_parse(json, json_len, false, peer,
		    why)) != 0)
			return (err);
		/* QEMU has no room for more than it sent. */
		if (req->len - sizeof(v) < room)
			room = req->len - sizeof(v);
	}
	v.minor = v.minor < VD_PROTO_MINOR ? v.minor : VD_PROTO_MINOR;
	*minor = v.minor;
	memcpy(buf, &v, sizeof(v));
	/* A twin needs a descriptor to come by. */
	peer->twin_socket = peer->twin_socket && peer->max_msg_fds > 0 &&
	    !limits->no_twin;
	*len = sizeof(v) + server_json(limits, &peer->twin_socket,
	    (char *)buf + sizeof(v), room);
	return (0);
}

/* Check a server's answer. */
static int
check_answer(struct vd__msg *m, bool offered,
    struct vd_client_limits *limits, int *twin, char why[VD__WHY_MAX])
{
	struct vd__caps caps;
	struct vd_version v;
	const char *json;
	size_t json_len;
	int err;

	defaults(&caps);
	if (vd__wire_version(m->data, m->len, &v, &json, &json_len) != 0) {
		invalid(why, "malformed answer to VERSION");
		return (EPROTO);
	}
	if (check_major(&v, why) != 0)
		return (EPROTONOSUPPORT);
	if (v.minor > VD_PROTO_MINOR) {
		invalid(why, "version 0.%u is more than was asked for",
		    v.minor);
		return (EPROTONOSUPPORT);
	}
	if (json != NULL && (err = vd__negotiate_parse(json, json_len, true,
	    &caps, why)) != 0)
		return (err == ENOMEM ? ENOMEM : EPROTO);
	if (caps.twin_socket && !offered) {
		invalid(why, "twin_socket was not offered");
		return (EPROTO);
	}
	if (caps.twin_socket && m->nfds == 0 && m->fds_lost) {
		invalid(why, "no room for the descriptor of twin_socket");
		return (EMFILE);
	}
	if (m->nfds != (caps.twin_socket ? 1 : 0) || m->fds_lost ||
	    (caps.twin_socket && caps.twin_index != 0)) {
		invalid(why, "VERSION was answered with %zu descriptors%s",
		    m->nfds, caps.twin_socket ? ", and a twin_socket that is "
		    "not the only one" : "");
		return (EPROTO);
	}
	if (caps.twin_socket && vd__sock_adopt(m->fds[0], false) == -1) {
		invalid(why, "twin_socket is not a socket");
		return (EPROTO);
	}
	if (caps.twin_socket) {
		*twin = m->fds[0];
		m->fds[0] = -1;
	}
	limits->minor = v.minor;
	limits->max_msg_fds = caps.max_msg_fds < VD_MAX_FDS ?
	    caps.max_msg_fds : VD_MAX_FDS;
	limits->max_data_xfer = caps.max_data_xfer < VD_MAX_DATA_XFER ?
	    caps.max_data_xfer : VD_MAX_DATA_XFER;
	limits->max_dma_maps = caps.max_dma_maps;
	limits->pgsizes = caps.pgsizes;
	limits->twin = caps.twin_socket;
	return (0);
}

int
vd__negotiate_client(struct vd__conn *c, int timeout_ms, bool twin,
    struct vd_client_limits *limits, char why[VD__WHY_MAX])
{
	const struct vd_version v = { VD_PROTO_MAJOR, VD_PROTO_MINOR };
	struct vd__msg reply;
	uint8_t buf[VD__VERSION_MAX];
	struct iovec iov = { .iov_base = buf };
	int err, n, twin_fd = -1;

	why[0] = '\0';
	memset(limits, 0, sizeof(*limits));
	memcpy(buf, &v, sizeof(v));
	n = snprintf((char *)buf + sizeof(v), sizeof(buf) - sizeof(v),
	    "{\"capabilities\":{\"max_msg_fds\":%d,"
	    "\"max_data_xfer_size\":%zu,\"max_dma_maps\":%d,"
	    "\"pgsizes\":%d,\"migration\":{\"pgsize\":%d}%s}}",
	    VD_MAX_MSG_FDS, VD_MAX_DATA_XFER, DEF_DMA_MAPS, DEF_PGSIZES,
	    DEF_PGSIZES, twin ? ",\"twin_socket\":{\"supported\":true}" : "");
	iov.iov_len = sizeof(v) + (size_t)n + 1;
	if (vd__conn_call(c, VD_CMD_VERSION, &iov, 1, NULL, 0, timeout_ms,
	    &reply) == -1)
		return (-1);
	err = check_answer(&reply, twin, limits, &twin_fd, why);
	vd__msg_close(&reply);
	if (twin_fd != -1 && vd__conn_set_twin(c, twin_fd, false) == -1) {
		vd__close(twin_fd);
		err = ENOMEM;
	}
	if (err != 0) {
		errno = err;
		return (-1);
	}
	return (0);
}
