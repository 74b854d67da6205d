/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * examples/vfu-dump as a user runs it: on the NVMe controller, on a device of
 * libvfudma's server with all kinds of capabilities, and on servers that lie,
 * hang up, or say nothing.
 */

#include <jansson.h>

#include "t/example-nvme.h"
#include "t/vfu.h"

static char dir[] = "/tmp/example-vfu-dump.XXXXXX";
static char path[64];

/* --- the program ---------------------------------------------------------- */

struct run {
	int status;			/* as nvme_wait() */
	char *out;
	char *err;
};

/* All of a memfd as a string. */
static char *
slurp(int fd)
{
	off_t len = lseek(fd, 0, SEEK_END);
	char *s = malloc((size_t)len + 1);

	must(s != NULL && pread(fd, s, (size_t)len, 0) == len);
	s[len] = '\0';
	close(fd);
	return (s);
}

static void
run_free(struct run *r)
{
	free(r->out);
	free(r->err);
	*r = (struct run){ 0 };
}

/* Run it with args, separated by spaces. */
static void
run_dump(struct run *r, const char *args)
{
	char prog[PATH_MAX + 32], self[PATH_MAX], *copy = strdup(args), *p;
	char *argv[32] = { (char *)(uintptr_t)"vfu-dump" };
	int out = v_memfd(0), error = v_memfd(0), argc = 1;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	pid_t pid;

	must(copy != NULL && n > 0);
	self[n] = '\0';
	must((p = strrchr(self, '/')) != NULL);
	*p = '\0';
	snprintf(prog, sizeof(prog), "%s/../examples/vfu-dump", self);
	for (p = strtok(copy, " "); p != NULL && argc < 31;
	    p = strtok(NULL, " "))
		argv[argc++] = p;
	fflush(stdout);
	must((pid = fork()) != -1);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL);
		dup2(out, STDOUT_FILENO);
		dup2(error, STDERR_FILENO);
		execv(prog, argv);
		_exit(127);
	}
	r->status = nvme_wait(pid);
	r->out = slurp(out);
	r->err = slurp(error);
	free(copy);
}

static void
run_on(struct run *r, const char *socket, const char *args)
{
	char all[512];

	snprintf(all, sizeof(all), "--socket %s %s", socket, args);
	run_dump(r, all);
}

/* Run it with --json, too, and parse that. */
static json_t *
run_json(struct run *r, const char *socket, const char *args)
{
	char all[512];

	snprintf(all, sizeof(all), "--socket %s --json %s", socket, args);
	run_dump(r, all);
	return (json_loads(r->out, JSON_REJECT_DUPLICATES, NULL));
}

static bool
has(const char *s, const char *part)
{
	bool found = strstr(s, part) != NULL;

	if (!found)
		diag("no \"%s\" in:\n%s", part, s);
	return (found);
}

/* Without the newline, which would end the name of the check. */
#define SAYS(part)	"it says: %.*s", (int)strcspn(part, "\n"), part
#define has_out(r, part)	ok(has((r)->out, part), SAYS(part))
#define has_err(r, part)	ok(has((r)->err, part), SAYS(part))

/* Follow keys and indices, such as "regions/0/size". */
static const json_t *
at(const json_t *v, const char *where)
{
	char copy[128], *key, *save;

	snprintf(copy, sizeof(copy), "%s", where);
	for (key = strtok_r(copy, "/", &save); key != NULL;
	    key = strtok_r(NULL, "/", &save))
		v = json_is_array(v) ? json_array_get(v,
		    (size_t)atoi(key)) : json_object_get(v, key);
	return (v);
}

/* The same as text. */
static const char *
value(const json_t *root, const char *where)
{
	static char buf[32];
	const json_t *v = at(root, where);

	if (json_is_integer(v)) {
		snprintf(buf, sizeof(buf), "%jd",
		    (intmax_t)json_integer_value(v));
		return (buf);
	}
	if (json_is_boolean(v))
		return (json_is_true(v) ? "true" : "false");
	return (json_string_value(v));
}
#define is_value(root, where, want) \
	is_str(value(root, where), want, "%s is %s", where, want)

/* The capability of that name in a list. */
static const json_t *
find(const json_t *root, const char *list, const char *name)
{
	const json_t *caps = json_object_get(root, list), *cap;
	const char *s;
	size_t i;

	json_array_foreach(caps, i, cap) {
		s = json_string_value(json_object_get(cap, "name"));
		if (s != NULL && strcmp(s, name) == 0)
			return (cap);
	}
	return (NULL);
}

/* Does the warning exist? */
static bool
warns(const json_t *root, const char *what)
{
	const json_t *warning;
	size_t i;

	json_array_foreach(json_object_get(root, "warnings"), i, warning)
		if (strstr(json_string_value(warning), what) != NULL)
			return (true);
	return (false);
}

/* --- the NVMe controller -------------------------------------------------- */

/* The README shows what it prints of the controller, indented. */
static void
is_in_readme(const char *out)
{
	int fd = open("README.md", O_RDONLY | O_CLOEXEC);
	const char *end;
	char line[256];
	char *readme;

	if (fd == -1) {
		skip(1, "not run where README.md is");
		return;
	}
	readme = slurp(fd);
	for (; (end = strchr(out, '\n')) != NULL; out = end + 1) {
		snprintf(line, sizeof(line), "\n    %.*s\n",
		    (int)(end - out), out);
		if (strstr(readme, line) == NULL)
			break;
	}
	ok(*out == '\0', "the README shows it as it is");
	if (*out != '\0')
		diag("not there:%s", line);
	free(readme);
}

static void
test_nvme(void)
{
	const char *const args[] = { "--ram", "1M", NULL };
	uint8_t regs[16];
	const json_t *cap;
	struct host h;
	struct run r;
	json_t *root;

	host_start(&h, args);
	run_on(&r, h.path, "--read 0 0 0x20");
	is_int(r.status, 0, "the NVMe controller is shown");
	is_str(r.err, "", "without complaints");
	has_out(&r, "1af4:10f4, subsystem 1af4:10f4, revision 01\n");
	has_out(&r, "010802 NVM Express I/O controller\n");
	has_out(&r, "BAR0    16 KiB, memory, 64-bit, at 0x0; "
	    "read write mmap caps\n");
	has_out(&r, "maps 0x1000-0x1fff, in the file at 0x1000\n");
	has_out(&r, "BAR4    4 KiB, memory, 32-bit, at 0x0; read write\n");
	has_out(&r, "MSI-X (11): vectors 65, table BAR4+0x0, "
	    "pba BAR4+0x800\n");
	has_out(&r, "type endpoint, flr,");
	has_out(&r, "INTx    1; eventfd maskable automasked\n");
	has_out(&r, "MSI-X   65; eventfd");
	has_out(&r, "24000 DMA maps, pages of 4 KiB, a twin socket\n");
	ok(strstr(r.out, "warnings") == NULL, "and there is no warning");
	is_in_readme(r.out);
	run_free(&r);

	root = run_json(&r, h.path, "--read 0 0 0x10 --read 4 0x800 16");
	ok(root != NULL && r.status == 0, "JSON parses");
	is_value(root, "ids/vendor", "0x1af4");
	is_value(root, "ids/subdevice", "0x10f4");
	is_value(root, "class/code", "0x010802");
	is_value(root, "interrupt_pin", "INTA");
	is_value(root, "device/regions", "9");
	is_value(root, "regions/0/size", "0x4000");
	is_value(root, "regions/0/64-bit", "true");
	is_value(root, "regions/0/fd", "true");
	is_value(root, "regions/0/areas/0/offset", "0x1000");
	is_value(root, "regions/0/areas/0/size", "0x1000");
	is_value(root, "regions/4/fd", "false");
	is_value(root, "regions/7/size", "0x1000");
	is_value(root, "interrupts/2/count", "65");
	is_value(root, "limits/minor", "1");
	is_value(root, "limits/max_data_xfer", "0x100000");
	is_value(root, "limits/twin_socket", "true");
	cap = find(root, "capabilities", "MSI-X");
	is_value(cap, "vectors", "65");
	is_value(cap, "pba", "BAR4+0x800");
	is_value(find(root, "capabilities", "power management"), "state",
	    "D0");
	is_value(root, "reads/0/width", "8");
	is_value(root, "reads/1/data", "00000000000000000000000000000000");
	host_connect(&h);
	must(vd_client_read(h.client, VD_REGION_BAR0, 0, regs, 8) == 0);
	must(vd_client_read(h.client, VD_REGION_BAR0, 8, regs + 8, 8) == 0);
	is_str(value(root, "reads/0/data"), t_hex(regs, sizeof(regs)),
	    "the registers are what another client reads");
	json_decref(root);
	run_free(&r);

	/* While that client is there nobody else is served. */
	run_on(&r, h.path, "--timeout 1");
	is_int(r.status, 4, "a server that is busy is a timeout");
	has_err(&r, "it may be serving another client");
	run_free(&r);
	is_int(host_stop(&h, SIGTERM), 0, "the controller lives on");
}

/* --- a device with everything --------------------------------------------- */

struct served {
	struct v_dev d;
	pthread_t thread;
	int stop;			/* write end */
	int stopped;
};

static void *
serve_thread(void *arg)
{
	struct served *s = arg;
	struct pollfd pfd[2] = {
		{ .fd = vd_server_fd(s->d.s), .events = POLLIN },
		{ .fd = s->stopped, .events = POLLIN },
	};

	while (poll(pfd, 2, -1) >= 0 && pfd[1].revents == 0)
		if (vd_server_run_all(s->d.s) == -1)
			break;
	return (NULL);
}

static void
serve_start(struct served *s)
{
	int fds[2];

	must(pipe2(fds, O_CLOEXEC) == 0);
	s->stopped = fds[0];
	s->stop = fds[1];
	must(pthread_create(&s->thread, NULL, serve_thread, s) == 0);
}

static void
serve_stop(struct served *s)
{
	close(s->stop);
	pthread_join(s->thread, NULL);
	close(s->stopped);
	/* That the last client has left resets the device: not later. */
	while (vd_server_run(s->d.s) > 0)
		continue;
}

static void
test_device(void)
{
	const uint8_t vendor[] = { 7, 0xde, 0xad, 0xbe, 0xef };
	const uint8_t odd[] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66 };
	const uint8_t sn[] = { 8, 7, 6, 5, 4, 3, 2, 1 };
	const uint8_t vsec[] = { 0x34, 0x12, 0xc1, 0, 1, 2, 3, 4 };
	struct served s = { 0 };
	const json_t *cap;
	json_t *root;
	struct run r;
	int at_vendor;

	v_dev_create(&s.d);
	must(vd_pci_add_msi(s.d.s, 4) != -1);
	at_vendor = vd_pci_add_cap(s.d.s, 9, vendor, NULL, sizeof(vendor));
	must(at_vendor != -1);
	must(vd_pci_add_cap(s.d.s, 0x55, odd, NULL, sizeof(odd)) != -1);
	must(vd_pci_add_ext_cap(s.d.s, 3, 1, sn, NULL, sizeof(sn)) != -1);
	must(vd_pci_add_ext_cap(s.d.s, 0xb, 1, vsec, NULL,
	    sizeof(vsec)) != -1);
	must(vd_pci_add_ext_cap(s.d.s, 0xabc, 2, odd, NULL,
	    sizeof(odd)) != -1);
	must(vd_server_listen(s.d.s, path) == 0);
	serve_start(&s);

	root = run_json(&r, path, "--read 0 0 0x20 --read 0 3 6 "
	    "--read 2 0 8 --read rom 0 4 --read config 0 4");
	ok(root != NULL && r.status == 0, "a device with everything is shown");
	is_value(root, "ids/vendor", "0x4e58");
	is_value(root, "regions/2/type", "I/O");
	is_value(root, "regions/2/size", "0x20");
	is_value(root, "regions/6/size", "0x800");
	is_value(root, "regions/6/enabled", "false");
	is_value(find(root, "capabilities", "MSI"), "vectors", "4");
	is_value(find(root, "capabilities", "MSI-X"), "table", "BAR4+0x0");
	is_value(find(root, "capabilities", "vendor-specific"), "data",
	    "deadbeef");
	cap = find(root, "capabilities", "unknown");
	is_value(cap, "id", "0x55");
	is_value(cap, "data", "112233445566");
	cap = find(root, "extended_capabilities", "serial number");
	is_value(cap, "serial", "0102030405060708");
	cap = find(root, "extended_capabilities", "vendor-specific");
	is_value(cap, "vendor_id", "0x1234");
	is_value(cap, "vendor_revision", "1");
	is_value(cap, "data", "01020304");
	cap = find(root, "extended_capabilities", "unknown");
	is_value(cap, "id", "0x0abc");
	is_value(cap, "revision", "2");
	is_value(cap, "data", "112233445566");
	is_value(root, "reads/0/data", "1122334455667788112233445566778811"
	    "22334455667788" "1122334455667788");
	/* At 3 a byte, at 4 four, at 8 a byte: each starts with 11. */
	is_value(root, "reads/1/data", "111122334411");
	is_value(root, "reads/3/data", "00000000");
	is_value(root, "reads/4/data", "584e0100");
	is_int(json_array_size(at(root, "warnings")), 0,
	    "nothing is wrong with it");
	json_decref(root);
	run_free(&r);

	run_on(&r, path, "--width 4 --read 0 0 8");
	has_out(&r, "  00000000  11 22 33 44 11 22 33 44"
	    "                           |.\"3D.\"3D|\n");
	run_free(&r);
	run_on(&r, path, "--read 0 0x3000 4");
	is_int(r.status, 1, "a read that fails is told by the status");
	has_out(&r, "BAR0 at 0x3000, 0x4 bytes");
	has_out(&r, "  error: Input/output error\n");
	run_free(&r);
	run_on(&r, path, "--read 0 0x3ffc 8");
	is_int(r.status, 1, "so is one past the end");
	has_out(&r, "beyond the region's 0x4000 bytes");
	run_free(&r);
	run_on(&r, path, "--read 0 0xffffffffffffffff 8");
	is_int(r.status, 1, "and one whose end wraps");
	run_free(&r);
	run_on(&r, path, "--read 5 0 4");
	has_out(&r, "the device has no such region");
	run_free(&r);
	serve_stop(&s);
	is_int(s.d.writes, 0, "no register was written");
	is_int(s.d.configs, 0, "nor config space");
	is_int(s.d.resets[VD_RESET_DEVICE] + s.d.resets[VD_RESET_FLR], 0,
	    "nor was the device reset by command");
	is_int(s.d.maps, 0, "nor was it given memory");

	/* Bend the list back, and make the table leave its BAR. */
	must(vd_pci_config_set(s.d.s, (uint32_t)at_vendor + 1, 1, 0x40) == 0);
	must(vd_pci_config_set(s.d.s, 0x10c, 4, 0x1001000b) == 0);
	must(vd_pci_config_get(s.d.s, 0x48, 1) == 0x11);
	must(vd_pci_config_set(s.d.s, 0x4c, 4, 0x2004) == 0);
	serve_start(&s);
	root = run_json(&r, path, "");
	ok(root != NULL && r.status == 0, "a list that loops comes to an end");
	ok(warns(root, "loops: it comes back to 0x40"), "and is told");
	ok(warns(root, "loops: it comes back to 0x100"),
	    "so is an extended one");
	ok(find(root, "capabilities", "vendor-specific") != NULL &&
	    find(root, "capabilities", "unknown") == NULL,
	    "what comes before is shown");
	ok(warns(root, "the MSI-X table is outside of its BAR"),
	    "a table that has no room is told, too");
	json_decref(root);
	run_free(&r);
	serve_stop(&s);
	v_dev_destroy(&s.d);
	ok(access(path, F_OK) == -1, "the socket is gone");
}

/* --- servers that cannot be trusted --------------------------------------- */

enum mode { M_ANSWER, M_SILENT, M_GARBAGE, M_HANGUP, M_REFUSE, M_VERSION,
	M_FLOOD };

struct evil {
	enum mode mode;
	unsigned int answers;		/* then it hangs up; 0: never */
	unsigned int delay_ms;		/* before each */
	uint32_t nr_regions;
	uint32_t nr_irqs;
	uint64_t bar_size;
	uint64_t cfg_size;
	struct vd_area area;		/* of BAR 0, if it has a size */
	uint32_t most;			/* bytes that a read may have; 0: any */
	int error;			/* for those that have more */
	bool refuse_vga;
	uint8_t cfg[4096];

	int fd;
	unsigned int asked;
	unsigned int rude;		/* commands that are no questions */
	pthread_t thread;
};

static bool
get_all(int fd, void *buf, size_t len)
{
	return (recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len);
}

static bool
answer(int fd, const struct vd_hdr *req, int error, const void *payload,
    size_t len, int pass)
{
	uint8_t buf[8192];
	struct vd_hdr hdr;

	len = v_build(buf, req->id, req->cmd,
	    VD_TYPE_REPLY | (error != 0 ? VD_ERROR : 0), payload, len);
	memcpy(&hdr, buf, sizeof(hdr));
	hdr.error = (uint32_t)error;
	memcpy(buf, &hdr, sizeof(hdr));
	return (v_send_raw(fd, buf, len, &pass, pass == -1 ? 0 : 1));
}

static bool
evil_region(struct evil *e, int fd, const struct vd_hdr *req, uint32_t index)
{
	struct {
		struct vd_region_info info;
		struct vd_cap_sparse sparse;
		struct vd_area area;
	} r = { .info = { sizeof(r.info), VD_REGION_READABLE, index, 0, 0, 0 },
	    .sparse = { { VD_CAP_SPARSE, 1, 0 }, 1, 0 }, .area = e->area };
	bool good;
	int pass;

	if (index == VD_REGION_VGA && e->refuse_vga)
		return (answer(fd, req, EINVAL, NULL, 0, -1));
	if (index == VD_REGION_BAR0)
		r.info.size = e->bar_size;
	if (index == VD_REGION_CONFIG)
		r.info.size = e->cfg_size;
	if (index != VD_REGION_BAR0 || e->area.size == 0)
		return (answer(fd, req, 0, &r.info, sizeof(r.info), -1));
	r.info.flags |= VD_REGION_MAPPABLE | VD_REGION_CAPS;
	r.info.argsz = sizeof(r);
	r.info.cap_offset = sizeof(r.info);
	pass = v_memfd(PAGE);
	good = answer(fd, req, 0, &r, sizeof(r), pass);
	close(pass);
	return (good);
}

static bool
evil_read(struct evil *e, int fd, const struct vd_hdr *req,
    const struct vd_region_access *a)
{
	uint8_t buf[sizeof(*a) + 4096] = { 0 };

	if (a->count > 4096 || (e->most != 0 && a->count > e->most))
		return (answer(fd, req, e->error, NULL, 0, -1));
	memcpy(buf, a, sizeof(*a));
	for (uint32_t i = 0; i < a->count; i++)
		buf[sizeof(*a) + i] = a->region == VD_REGION_CONFIG ?
		    e->cfg[(a->offset + i) % 4096] : (uint8_t)(a->offset + i);
	return (answer(fd, req, 0, buf, sizeof(*a) + a->count, -1));
}

static bool
evil_answer(struct evil *e, int fd, const struct vd_hdr *req,
    const uint8_t *in)
{
	const struct vd_version version = { e->mode == M_VERSION, 1 };
	const struct vd_device_info device = { sizeof(device), VD_DEVICE_PCI,
	    e->nr_regions, e->nr_irqs };
	struct vd_irq_info irq = { sizeof(irq), ~0u, 0, 1 };
	struct vd_region_access a;
	uint32_t index;

	memcpy(&index, in + offsetof(struct vd_region_info, index),
	    sizeof(index));
	switch (req->cmd) {
	case VD_CMD_VERSION:
		return (answer(fd, req, e->mode == M_REFUSE ? EACCES : 0,
		    &version, e->mode == M_REFUSE ? 0 : sizeof(version), -1));
	case VD_CMD_DEVICE_GET_INFO:
		return (answer(fd, req, 0, &device, sizeof(device), -1));
	case VD_CMD_DEVICE_GET_REGION_INFO:
		return (evil_region(e, fd, req, index));
	case VD_CMD_DEVICE_GET_IRQ_INFO:
		irq.index = index;
		return (answer(fd, req, 0, &irq, sizeof(irq), -1));
	case VD_CMD_REGION_READ:
		memcpy(&a, in, sizeof(a));
		return (evil_read(e, fd, req, &a));
	default:
		e->rude++;
		return (false);
	}
}

/* Ask the client for memory as long as it is there. */
static void
flood(int fd)
{
	const struct vd_dma_access a = { 0, 4 };
	uint8_t sink[4096];

	while (v_send(fd, 1, VD_CMD_DMA_READ, &a, sizeof(a)))
		while (recv(fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
			continue;
}

static void *
evil_thread(void *arg)
{
	static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	struct evil *e = arg;
	uint8_t in[4096];
	struct vd_hdr hdr;
	int fd = accept(e->fd, NULL, NULL);

	if (e->mode == M_GARBAGE)
		(void)v_send_raw(fd, http, sizeof(http) - 1, NULL, 0);
	while (e->mode != M_HANGUP && get_all(fd, &hdr, sizeof(hdr))) {
		if (hdr.size - sizeof(hdr) > sizeof(in) ||
		    (hdr.size > sizeof(hdr) &&
		    !get_all(fd, in, hdr.size - sizeof(hdr))))
			break;
		if (e->mode == M_SILENT || e->mode == M_GARBAGE)
			continue;
		if (e->mode == M_FLOOD && hdr.cmd != VD_CMD_VERSION)
			flood(fd);
		if (e->delay_ms != 0)
			usleep(e->delay_ms * 1000);
		if (e->asked++ == e->answers && e->answers != 0)
			break;
		if (!evil_answer(e, fd, &hdr, in))
			break;
	}
	close(fd);
	return (NULL);
}

/* A device that is sound, to begin with. */
static struct evil *
evil_new(enum mode mode)
{
	struct evil *e = calloc(1, sizeof(*e));

	must(e != NULL);
	e->mode = mode;
	e->nr_regions = VD_NUM_REGIONS;
	e->nr_irqs = VD_NUM_IRQS;
	e->bar_size = PAGE;
	e->cfg_size = sizeof(e->cfg);
	memcpy(e->cfg, (const uint8_t[]){ 0x34, 0x12, 0x78, 0x56 }, 4);
	return (e);
}

static void
evil_start(struct evil *e)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	memcpy(sun.sun_path, path, strlen(path));
	e->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(e->fd != -1 && bind(e->fd, (struct sockaddr *)&sun,
	    sizeof(sun)) == 0 && listen(e->fd, 1) == 0);
	must(pthread_create(&e->thread, NULL, evil_thread, e) == 0);
}

static void
evil_stop(struct evil *e)
{
	pthread_join(e->thread, NULL);
	close(e->fd);
	unlink(path);
}

static json_t *
evil_run(struct evil *e, struct run *r, const char *args)
{
	json_t *root;

	evil_start(e);
	root = run_json(r, path, args);
	evil_stop(e);
	return (root);
}

/* Run it on e, which goes away: the status and what is said of it. */
static void
is_evil(struct evil *e, const char *args, int status, const char *says,
    const char *name)
{
	struct run r;
	json_t *root = evil_run(e, &r, args);

	is_int(r.status, status, "%s", name);
	ok(has(r.err, says), "%s: it says so", name);
	json_decref(root);
	run_free(&r);
	free(e);
}

static void
test_strangers(void)
{
	struct evil *e;
	int64_t start = t_now_ms();

	is_evil(evil_new(M_SILENT), "--timeout 1", 4,
	    "does not answer in time", "silence");
	ok(t_now_ms() - start < 4000, "is not listened to for long");
	is_evil(evil_new(M_GARBAGE), "", 3, "it may be no vfio-user server",
	    "a web server");
	is_evil(evil_new(M_HANGUP), "", 3, "closed the connection",
	    "one that hangs up");
	is_evil(evil_new(M_REFUSE), "", 1, "refuses to talk: Permission",
	    "one that refuses");
	is_evil(evil_new(M_VERSION), "", 3, "speaks another version",
	    "one of the future");
	/* Each answer comes in time, but there are hundreds. */
	e = evil_new(M_ANSWER);
	e->delay_ms = 50;
	e->nr_regions = 256;
	start = t_now_ms();
	is_evil(e, "--timeout 1", 4, "does not answer in time",
	    "one that dawdles");
	ok(t_now_ms() - start < 4000, "is not listened to for longer");
	start = t_now_ms();
	is_evil(evil_new(M_FLOOD), "--timeout 1", 4, "does not answer in time",
	    "one that asks and asks");
	ok(t_now_ms() - start < 4000, "is not answered for long");
	e = evil_new(M_ANSWER);
	e->nr_regions = UINT32_MAX;
	is_evil(e, "", 3, "device info: the server does not keep to",
	    "2^32 - 1 regions");
}

static void
test_regions(void)
{
	struct evil *e = evil_new(M_ANSWER);
	json_t *root;
	struct run r;

	e->bar_size = e->cfg_size = UINT64_MAX;
	e->nr_regions = 256;
	e->nr_irqs = 2048;
	root = evil_run(e, &r, "--read 0 0xfffffffffffffff0 0xf");
	is_int(r.status, 0, "sizes of 2^64 - 1 are shown");
	is_value(root, "regions/0/size", "0xffffffffffffffff");
	is_value(root, "ids/device", "0x5678");
	is_value(root, "reads/0/data", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfe");
	ok(warns(root, "not a power of two"), "but not believed");
	is_int(json_array_size(at(root, "interrupts")), 2048,
	    "as are more interrupts than there are");
	is_int(e->rude, 0, "the server was asked only");
	json_decref(root);
	run_free(&r);

	memset(e, 0, offsetof(struct evil, cfg));
	e->nr_regions = VD_NUM_REGIONS;
	e->cfg_size = 256;
	e->refuse_vga = true;
	e->bar_size = 2 * PAGE;
	e->most = 4;
	e->error = EINVAL;
	root = evil_run(e, &r, "--read 0 0 16");
	is_int(r.status, 0, "a server that takes 4 bytes at most is read");
	is_value(root, "ids/vendor", "0x1234");
	is_value(root, "reads/0/width", "4");
	is_value(root, "reads/0/data", "000102030405060708090a0b0c0d0e0f");
	is_value(root, "regions/8/error", "Invalid argument");
	json_decref(root);
	run_free(&r);
	root = evil_run(e, &r, "--width 8 --read 0 0 16");
	is_int(r.status, 1, "but not if 8 are asked for");
	is_value(root, "reads/0/error", "Invalid argument");
	json_decref(root);
	run_free(&r);
	e->error = ETIMEDOUT;
	root = evil_run(e, &r, "--width 8 --read 0 0 16");
	is_int(r.status, 1, "a device's timeout is not the server's");
	is_value(root, "reads/0/error", strerror(ETIMEDOUT));
	json_decref(root);
	run_free(&r);

	e->area = (struct vd_area){ PAGE, 2 * PAGE };
	root = evil_run(e, &r, "");
	is_int(r.status, 3, "an area beyond its region is an error");
	is_value(root, "error",
	    "BAR0: the server does not keep to the protocol");
	is_value(root, "limits/minor", "1");
	json_decref(root);
	run_free(&r);
	e->area = (struct vd_area){ UINT64_MAX - PAGE + 1, PAGE };
	root = evil_run(e, &r, "");
	is_int(r.status, 3, "so is one that wraps");
	json_decref(root);
	run_free(&r);
	e->area = (struct vd_area){ 0, PAGE };
	e->cfg_size = 16;
	root = evil_run(e, &r, "");
	is_int(r.status, 0, "a config space of 16 bytes is no error");
	ok(warns(root, "too few for a header"), "and told");
	is_value(root, "regions/0/areas/0/size", "0x1000");
	json_decref(root);
	run_free(&r);
	free(e);
}

/* Gone after each of its answers. */
static void
test_disconnect(void)
{
	unsigned int n = 0, wrong = 0;
	struct evil *e;
	json_t *root;
	struct run r;
	int status;

	do {
		e = evil_new(M_ANSWER);
		e->answers = ++n;
		root = evil_run(e, &r, "--read 0 0 16");
		status = r.status;
		if (status != 0 && (status != 3 || root == NULL ||
		    strstr(r.err, "closed the connection") == NULL)) {
			diag("after %u: %d, %s", n, status, r.err);
			wrong++;
		}
		json_decref(root);
		run_free(&r);
		free(e);
	} while (status != 0 && n < 100);
	is_int(wrong, 0, "a server may be gone after any answer");
	/* VERSION, the device, 9 regions, config space, 5 IRQs, 2 reads. */
	is_int(n, 1 + 1 + 9 + 1 + 5 + 2, "each is asked for once");
}

/* Capabilities: what is drawn is often a valid offset. */
static void
test_random_config(void)
{
	uint64_t seed = t_env("T_SEED", (uint64_t)t_now_ms()), state = seed;
	unsigned int wrong = 0, i, j;
	struct evil *e;
	json_t *root;
	struct run r;

	diag("T_SEED=%" PRIu64, seed);
	for (i = 0; i < 40; i++) {
		e = evil_new(M_ANSWER);
		e->cfg_size = i % 4 == 0 ? 64 + t_below(&state, 512) : 4096;
		for (j = 0; j < sizeof(e->cfg); j++)
			e->cfg[j] = (uint8_t)t_random(&state);
		for (j = 0x40; i % 2 == 0 && j < 0x100; j += 4)
			e->cfg[j] = (uint8_t)t_below(&state, 0x16);
		for (j = 0x100; i % 2 == 0 && j < 4096; j += 4) {
			e->cfg[j] = (uint8_t)t_below(&state, 0x30);
			e->cfg[j + 1] = 0;
		}
		e->cfg[0x06] |= 0x10;
		e->cfg[0x0e] &= 0x81;
		root = evil_run(e, &r, "");
		if (r.status != 0 || root == NULL ||
		    json_object_get(root, "capabilities") == NULL) {
			diag("config %u: %d, %s", i, r.status, r.err);
			wrong++;
		}
		json_decref(root);
		run_free(&r);
		free(e);
	}
	is_int(wrong, 0, "config space may hold anything");
}

/* Text, too: nothing but what can be printed. */
static void
test_printable(void)
{
	struct evil *e = evil_new(M_ANSWER);
	const char *p;
	struct run r;

	memset(e->cfg, 0x9b, sizeof(e->cfg));
	e->cfg[0x06] = 0x10;
	e->cfg[0x0e] = 0;
	e->cfg[0x34] = 0x40;
	e->bar_size = 0x3000;
	evil_start(e);
	run_on(&r, path, "--read 0 0 0x100");
	evil_stop(e);
	is_int(r.status, 0, "a strange device is shown as text");
	for (p = r.out; (*p >= ' ' && *p <= '~') || *p == '\n'; p++)
		continue;
	is_int(*p, '\0', "in printable characters");
	has_out(&r, "000000f0  f0 f1 f2 f3 f4 f5 f6 f7  f8 f9 fa fb");
	has_out(&r, "loops: it comes back to 0x9b8\n");
	run_free(&r);
	free(e);
}

/* --- what users get wrong ------------------------------------------------- */

static void
is_usage(const char *args, int status, const char *says)
{
	struct run r;

	run_dump(&r, args);
	is_int(r.status, status, "%s has status %d", args, status);
	ok(has(status == 0 ? r.out : r.err, says), "it says: %s", says);
	run_free(&r);
}

static void
test_usage(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	char args[128];
	int fd;

	is_usage("--help", 0, "usage: vfu-dump --socket PATH");
	is_usage("--version", 0, "vfu-dump 0.");
	is_usage("", 2, "--socket is missing");
	is_usage("--socket x y", 2, "no arguments but options");
	is_usage("--socket x --read 0 0", 2, "needs BAR OFFSET LEN");
	is_usage("--socket x --read 6 0 4", 2, "BAR is 0 to 5");
	is_usage("--socket x --read 0 -4 4", 2, "OFFSET is not a number");
	is_usage("--socket x --read 0 0 0", 2, "LEN is 1 to 1048576");
	is_usage("--socket x --read 0 0 2M", 2, "LEN is 1 to 1048576");
	is_usage("--socket x --width 3", 2, "--width is 1, 2, 4 or 8");
	is_usage("--socket x --width 4 --read 0 2 4", 2, "not multiples");
	is_usage("--socket x --timeout 0", 2, "--timeout: 0 is too small");
	is_usage("--socket /nonexistent/socket", 1, "there is no such socket");
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	must(fd != -1);
	close(fd);
	snprintf(args, sizeof(args), "--socket %s", path);
	is_usage(args, 1, "not a socket");
	unlink(path);
	must((fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) != -1);
	strcpy(sun.sun_path, path);
	must(bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
	is_usage(args, 1, "nobody listens there");
	close(fd);
	unlink(path);
}

int
main(void)
{
	must(mkdtemp(dir) != NULL);
	snprintf(path, sizeof(path), "%s/socket", dir);
	test_nvme();
	test_device();
	test_strangers();
	test_regions();
	test_disconnect();
	test_random_config();
	test_printable();
	test_usage();
	rmdir(dir);
	return (done());
}
