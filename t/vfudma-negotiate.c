/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/* The version exchange: what is accepted, and what is answered. */

#include <errno.h>

#include "libvfudma/internal.h"
#include "t/util.h"

static const struct vd_server_limits limits = { .max_dma_regions = 65535,
    .max_data_xfer = 1u << 20, .max_queued = 4u << 20 };

static int
parse(const char *json, bool from_server, struct vd__caps *caps, char *why)
{
	return (vd__negotiate_parse(json, strlen(json), from_server, caps,
	    why));
}

/* Some capabilities are refused, with a reason that has word in it. */
static void
refused(const char *body, bool from_server, const char *word)
{
	char json[512], why[VD__WHY_MAX];
	struct vd__caps caps;
	int err;

	snprintf(json, sizeof(json), "{\"capabilities\":%s}", body);
	err = parse(json, from_server, &caps, why);
	ok(err == EINVAL && strstr(why, word) != NULL,
	    "%s %s is refused: %s",
	    from_server ? "answer" : "offer", body, why);
}

static void
accepted(const char *body, bool from_server)
{
	char json[512], why[VD__WHY_MAX];
	struct vd__caps caps;
	int err;

	snprintf(json, sizeof(json), "{\"capabilities\":%s}", body);
	err = parse(json, from_server, &caps, why);
	ok(err == 0, "%s %s is accepted%s%s",
	    from_server ? "answer" : "offer", body, why[0] ? ": " : "", why);
}

static void
test_values(void)
{
	static const struct {
		const char *key;
		const char *good[3];
		const char *bad[7];
	} ints[] = {
		{ "max_msg_fds", { "0", "8", "1024" },
		    { "-1", "1025", "9223372036854775807", "1.5", "\"8\"",
		    "null", "[8]" } },
		{ "max_data_xfer_size", { "8", "1048576",
		    "9223372036854775807" }, { "0", "7", "-1", "1e6",
		    "true", "{}", "null" } },
		{ "max_dma_maps", { "1", "16", "65535" }, { "0", "-1",
		    "-9223372036854775808", "0.5", "\"1\"", "null", "[]" } },
		{ "pgsizes", { "4096", "2101248", "4611686018427387904" },
		    { "0", "1", "4095", "4097", "-4096", "\"4096\"",
		    "null" } },
	};
	char body[128];
	size_t i, j;

	for (i = 0; i < T_COUNT(ints); i++) {
		for (j = 0; j < T_COUNT(ints[i].good); j++) {
			snprintf(body, sizeof(body), "{\"%s\":%s}",
			    ints[i].key, ints[i].good[j]);
			accepted(body, false);
		}
		for (j = 0; j < T_COUNT(ints[i].bad); j++) {
			snprintf(body, sizeof(body), "{\"%s\":%s}",
			    ints[i].key, ints[i].bad[j]);
			refused(body, false, ints[i].key);
			refused(body, true, ints[i].key);
		}
	}
	accepted("{\"write_multiple\":true}", false);
	refused("{\"write_multiple\":true}", true, "write_multiple");
	accepted("{\"write_multiple\":false}", true);
	refused("{\"write_multiple\":1}", false, "write_multiple");
	accepted("{\"twin_socket\":{\"supported\":true}}", false);
	accepted("{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}", true);
	refused("{\"twin_socket\":{\"supported\":true}}", true, "fd_index");
	accepted("{\"twin_socket\":{\"supported\":false}}", true);
	refused("{\"twin_socket\":true}", false, "twin_socket");
	refused("{\"twin_socket\":{\"supported\":0}}", false, "supported");
	refused("{\"twin_socket\":{\"fd_index\":-1}}", false, "fd_index");
	refused("{\"migration\":4096}", false, "migration");
	refused("{\"migration\":{\"pgsize\":4095}}", false, "pgsize");
	refused("{\"migration\":{\"pgsize\":12288}}", false, "pgsize");
	accepted("{\"migration\":{\"pgsize\":65536}}", false);
	refused("{\"migration\":{\"max_bitmap_size\":0}}", false,
	    "max_bitmap_size");
	refused("{\"migration\":{\"max_bitmap_size\":268435457}}", true,
	    "max_bitmap_size");
	refused("{\"max_dma_maps\":65536}", true, "max_dma_maps");
	accepted("{\"max_dma_maps\":65536}", false);
	accepted("{\"something\":{\"new\":[1,2]},\"max_msg_fds\":3}", false);
	refused("[]", false, "capabilities");
	refused("null", false, "capabilities");
}

static void
test_json(void)
{
	static const char *bad[] = {
		"", " ", "{", "}", "[]", "1", "null", "\"x\"", "{\"a\"}",
		"{\"a\":}", "{\"a\":1,}", "{} {}", "{}x", "{\"a\":01}",
		"{\"a\":99999999999999999999}", "{\"a\":-99999999999999999999}",
		"{\"a\":1e999}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\xff\"}",
		"{\"a\":1,\"a\":2}",
		"{\"capabilities\":{},\"capabilities\":{}}",
		"{\"capabilities\":{\"max_msg_fds\":1,\"max_msg_fds\":2}}",
	};
	struct vd__caps caps;
	char why[VD__WHY_MAX];
	char *deep;
	size_t i;

	for (i = 0; i < T_COUNT(bad); i++)
		ok(parse(bad[i], false, &caps, why) == EINVAL && why[0],
		    "JSON case %zu is refused", i);
	is_int(parse("{}", false, &caps, why), 0, "{} is accepted");
	is_int(caps.max_msg_fds, 1, "a default is 1 descriptor");
	is_int(caps.max_data_xfer, 1 << 20, "and 1 MiB");
	is_int(caps.max_dma_maps, 65535, "and 65535 maps");
	is_int(caps.pgsizes, 4096, "and pages of 4096");

	must((deep = malloc(1 << 20)) != NULL);
	memset(deep, '[', 1 << 20);
	is_int(vd__negotiate_parse(deep, 8000, false, &caps, why), EINVAL,
	    "8000 levels are refused");
	is_int(vd__negotiate_parse(deep, 1 << 20, false, &caps, why), EINVAL,
	    "and a megabyte of them");
	memset(deep, ' ', 1 << 20);
	memcpy(deep, "{}", 2);
	is_int(vd__negotiate_parse(deep, 1 << 20, false, &caps, why), EINVAL,
	    "a megabyte of nothing is refused");
	is_int(vd__negotiate_parse(deep, 4000, false, &caps, why), 0,
	    "4000 bytes of it are not");
	free(deep);
	is_int(vd__negotiate_parse("{\0}", 3, false, &caps, why), EINVAL,
	    "a NUL inside is refused");
}

/* The reply to VERSION with this JSON, NULL for none. */
static int
ask(uint16_t major, uint16_t minor, const char *json, uint8_t *buf,
    size_t *len, const struct vd_server_limits *lim)
{
	uint8_t payload[1024];
	struct vd_version v = { major, minor };
	struct vd__msg m = { .data = payload, .len = sizeof(v) };
	struct vd__caps caps;
	char why[VD__WHY_MAX];
	uint16_t agreed;

	memcpy(payload, &v, sizeof(v));
	if (json != NULL) {
		memcpy(payload + sizeof(v), json, strlen(json) + 1);
		m.len += strlen(json) + 1;
	}
	return (vd__negotiate_server(&m, lim, &caps, &agreed, buf, len, why));
}

static void
test_server(void)
{
	static const char *qemu = "{\"capabilities\":{\"pgsizes\":4096,"
	    "\"max_msg_fds\":16,\"max_dma_maps\":65535,"
	    "\"max_data_xfer_size\":1048576,\"migration\":{"
	    "\"max_bitmap_size\":268435456,\"pgsize\":4096},"
	    "\"write_multiple\":true}}";
	static const char *small[] = { "{}", "{\"capabilities\":{}}",
	    "{\"capabilities\":{\"max_msg_fds\":8}}" };
	struct vd_server_limits few = { .max_dma_regions = 16,
	    .max_data_xfer = 4096, .max_queued = 4u << 20 };
	struct vd__caps caps;
	uint8_t buf[VD__VERSION_MAX];
	char why[VD__WHY_MAX];
	struct vd_version v;
	size_t len, i;

	is_int(ask(0, 0, qemu, buf, &len, &limits), 0, "QEMU is accepted");
	memcpy(&v, buf, sizeof(v));
	is_int(v.major, 0, "major 0");
	is_int(v.minor, 0, "minor 0, as it asked for");
	ok(len > 4 && buf[len - 1] == '\0', "with JSON that ends in NUL");
	ok(len + 16 <= 100, "in a short message: %zu", len + 16);
	is_str((char *)buf + 4, "{\"capabilities\":{\"max_msg_fds\":8,"
	    "\"max_data_xfer_size\":1048576}}", "the capabilities are told");
	ok(strstr((char *)buf + 4, "write_multiple") == NULL &&
	    strstr((char *)buf + 4, "twin_socket") == NULL,
	    "and none that QEMU cannot do");

	is_int(ask(0, 1, NULL, buf, &len, &limits), 0,
	    "SPDK, without JSON, is accepted");
	memcpy(&v, buf, sizeof(v));
	is_int(v.minor, 1, "minor 1");
	ok(len > 4, "and told our capabilities");
	is_int(ask(0, 77, NULL, buf, &len, &limits), 0, "0.77 is accepted");
	memcpy(&v, buf, sizeof(v));
	is_int(v.minor, VD_PROTO_MINOR, "and answered with ours");
	is_int(ask(1, 0, NULL, buf, &len, &limits), EINVAL, "1.0 is refused");
	is_int(ask(0, 1, "", buf, &len, &limits), EINVAL,
	    "an empty string is refused");

	for (i = 0; i < T_COUNT(small); i++) {
		is_int(ask(0, 1, small[i], buf, &len, &limits), 0,
		    "%s is accepted", small[i]);
		ok(len <= 4 + strlen(small[i]) + 1 &&
		    vd__negotiate_parse((char *)buf + 4, len - 5, true, &caps,
		    why) == 0, "and answered with no more: %s", buf + 4);
	}
	is_int(ask(0, 0, qemu, buf, &len, &few), 0, "limits of ours are told");
	is_int(vd__negotiate_parse((char *)buf + 4, len - 5, true, &caps,
	    why), 0, "as what a client can read");
	is_int(caps.max_data_xfer, 4096, "the transfer size");
	is_int(caps.max_dma_maps, 16, "and the number of maps");

	few.max_data_xfer = VD_MAX_DATA_XFER;
	is_int(ask(0, 1, "{\"capabilities\":{\"max_msg_fds\":8,"
	    "\"max_data_xfer_size\":1048576}}", buf, &len, &few), 0,
	    "with little room");
	is_str((char *)buf + 4, "{\"capabilities\":{\"max_msg_fds\":8,"
	    "\"max_dma_maps\":16}}", "what is no default is told");
}

int
main(void)
{
	test_values();
	test_json();
	test_server();
	return (done());
}
