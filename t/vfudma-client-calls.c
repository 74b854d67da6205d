/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The client's calls, and servers that follow a script: what is sent, and what
 * happens when the answer is late, or the server gone.
 */

#include "t/script.h"

/* --- what is sent -------------------------------------------------------- */

/* Takes notes of what it is told. */
static pthread_mutex_t notes_lock = PTHREAD_MUTEX_INITIALIZER;

struct notes {			/* notes_lock */
	unsigned int reads, writes, posts, sets, fds;
	uint32_t start, count, flags;	/* of the last SET_IRQS */
	uint8_t mem[256];
	bool bad;
};

static void
note_access(struct script *s, struct notes *n)
{
	struct vd_region_access a;

	memcpy(&a, s->in, sizeof(a));
	if (a.count > 16 || a.offset + a.count > sizeof(n->mem)) {
		n->bad = true;
		return;
	}
	if (s->hdr.cmd == VD_CMD_REGION_READ) {
		n->reads++;
		memcpy(s->in + sizeof(a), n->mem + a.offset, a.count);
		return;
	}
	n->bad |= s->hdr.size != 32 + a.count;
	memcpy(n->mem + a.offset, s->in + sizeof(a), a.count);
	if (s->hdr.flags & VD_NO_REPLY)
		n->posts++;
	else
		n->writes++;
}

static void
note_irqs(struct script *s, struct notes *n)
{
	struct vd_irq_set set;

	memcpy(&set, s->in, sizeof(set));
	n->bad |= s->nfds > 2 || set.argsz != sizeof(set) ||
	    (s->nfds != 0 && s->nfds != set.count) ||
	    (s->nfds != 0 && n->sets > 0 && set.start != n->start + n->count);
	n->sets++;
	n->fds += s->nfds;
	n->start = set.start;
	n->count = set.count;
	n->flags = set.flags;
}

static void
take_notes(struct script *s)
{
	struct notes *n = (struct notes *)(uintptr_t)s->arg;
	struct vd_region_access a;
	bool alive = true;

	while (alive && get(s)) {
		pthread_mutex_lock(&notes_lock);
		if (s->hdr.cmd == VD_CMD_REGION_READ ||
		    s->hdr.cmd == VD_CMD_REGION_WRITE)
			note_access(s, n);
		else if (s->hdr.cmd == VD_CMD_DEVICE_SET_IRQS)
			note_irqs(s, n);
		pthread_mutex_unlock(&notes_lock);
		/* The data of a read is in place already. */
		memcpy(&a, s->in, sizeof(a));
		alive = s->hdr.cmd == VD_CMD_REGION_READ ?
		    answer(s, s->in, sizeof(a) + a.count, 0) : answer_well(s);
	}
}

static struct notes
look(const struct notes *n)
{
	struct notes copy;

	pthread_mutex_lock(&notes_lock);
	copy = *n;
	pthread_mutex_unlock(&notes_lock);
	return (copy);
}

static void
test_limits(void)
{
	struct notes notes = { 0 }, n;
	struct script *s = script_new(take_notes, &notes);
	struct vd_client_limits l;
	struct vd_client *c;
	uint8_t in[100], out[100];
	int fds[5] = { 0, 1, 2, 1, 0 };

	s->json = JSON("\"max_msg_fds\":2,\"max_data_xfer_size\":16,"
	    "\"max_dma_maps\":9");
	c = script_connect(s);
	vd_client_limits(c, &l);
	ok(l.minor == 1 && l.max_msg_fds == 2 && l.max_data_xfer == 16 &&
	    l.max_dma_maps == 9 && l.pgsizes == 4096,
	    "the server's limits are told");

	for (unsigned int i = 0; i < sizeof(out); i++)
		out[i] = (uint8_t)(3 * i + 1);
	works(vd_client_write(c, 0, 40, out, 100), "a long write");
	n = look(&notes);
	is_int(n.writes, 7, "goes out in pieces of 16 bytes");
	works(vd_client_read(c, 0, 40, in, 100), "a long read");
	n = look(&notes);
	is_int(n.reads, 7, "too");
	is_mem(in, out, 100, "and all bytes are in their places");
	works(vd_client_post(c, 0, 0, out, 33), "a posted write");
	works(vd_client_read(c, 0, 0, in, 33), "and a read after it");
	n = look(&notes);
	is_int(n.posts, 3, "is cut as well");
	is_mem(in, out, 33, "and comes first");
	works(vd_client_read(c, 0, 0, NULL, 0), "nothing can be read");
	works(vd_client_write(c, 0, 0, NULL, 0), "and written");
	n = look(&notes);
	ok(!n.bad && n.reads == 10, "without asking");

	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 3, 5, fds),
	    "five eventfds");
	n = look(&notes);
	ok(n.sets == 3 && n.fds == 5 && n.start == 7 && n.count == 1,
	    "go out by two");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 3, 5, NULL),
	    "they are taken back");
	n = look(&notes);
	ok(n.sets == 4 && n.fds == 5 && n.start == 3 && n.count == 5 &&
	    n.flags == (VD_IRQ_DATA_EVENTFD | VD_IRQ_ACT_TRIGGER),
	    "in one message");
	works(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 0, NULL),
	    "all are disconnected");
	n = look(&notes);
	ok(n.sets == 5 && n.count == 0 &&
	    n.flags == (VD_IRQ_DATA_NONE | VD_IRQ_ACT_TRIGGER),
	    "by a trigger of none");
	works(vd_client_set_irqs(c, VD_IRQ_INTX, 0, 1, VD_IRQ_ACT_UNMASK),
	    "an interrupt is unmasked");
	n = look(&notes);
	ok(n.flags == (VD_IRQ_DATA_NONE | VD_IRQ_ACT_UNMASK) && !n.bad,
	    "without data");
	ok(script_stop(s, c), "no descriptor is left");
}

/* What is wrong on our side is not sent. */
static void
test_arguments(void)
{
	struct script *s = script_new(serve, NULL);
	struct vd_client *c;
	uint8_t buf[8];
	int fds[2] = { 1, -1 };

	s->json = JSON("\"max_msg_fds\":0");
	c = script_connect(s);
	fails(vd_client_dma_map(c, 0, 0, 1, -1, 0), EINVAL, "a map of nothing");
	fails(vd_client_dma_map(c, 1, PAGE, 1, -1, 0), EINVAL,
	    "a map that starts inside a page");
	fails(vd_client_dma_map(c, 0, 100, 1, -1, 0), EINVAL,
	    "a map that ends inside a page");
	fails(vd_client_dma_map(c, -(uint64_t)PAGE, 2 * PAGE, 1, -1, 0),
	    EINVAL, "a map that wraps");
	fails(vd_client_dma_map(c, 0, PAGE, 4, -1, 0), EINVAL,
	    "a map with unknown flags");
	fails(vd_client_dma_map(c, 0, PAGE, 1, -1, PAGE), EINVAL,
	    "an offset in no file");
	fails(vd_client_dma_map(c, 0, PAGE, 1, 1, INT64_MAX), EINVAL,
	    "an offset past any file");
	fails(vd_client_dma_map(c, 0, PAGE, 1, 1, 0), ENOTSUP,
	    "a descriptor for a server that takes none");
	works(vd_client_dma_map(c, -(uint64_t)PAGE, PAGE, 1, -1, 0),
	    "a map of the last page");
	fails(vd_client_dma_unmap(c, 0, 0), EINVAL, "an unmap of nothing");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 1, 0, NULL), EINVAL,
	    "none from the second on");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, -1u, 2, NULL), EINVAL,
	    "interrupts that wrap");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 2, fds), EINVAL,
	    "an eventfd that is none");
	fails(vd_client_set_eventfds(c, VD_IRQ_MSIX, 0, 1, fds), ENOTSUP,
	    "eventfds for a server that takes none");
	fails(vd_client_set_irqs(c, VD_IRQ_MSIX, 0, 1, 3), EINVAL,
	    "an action that is none");
	fails(vd_client_read(c, 0, -4ull, buf, 8), EINVAL, "a read that wraps");
	fails(vd_client_write(c, 0, -4ull, buf, 8), EINVAL,
	    "a write that wraps");
	fails(vd_client_post(c, 0, -4ull, buf, 8), EINVAL,
	    "a post that wraps");
	works(vd_client_reset(c), "and all is still well");
	ok(script_stop(s, c), "no descriptor is left");
}

/* --- time and loss ------------------------------------------------------- */

/* Leaves one command unanswered until the next has come. */
static void
answer_late(struct script *s)
{
	struct vd_hdr first;
	struct vd_device_info info = { 16, 3, 77, 5 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	first = reply_to(s, sizeof(info));
	if (!get(s) || !put(s, &first, &info, sizeof(info), 5) ||
	    !answer_well(s))
		return;
	serve(s);
}

/* The beginning of a reply, and the rest of it much later. */
static void
answer_torn(struct script *s)
{
	struct vd_device_info info = { 16, 3, 77, 5 };
	struct vd_hdr first;

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	first = reply_to(s, sizeof(info));
	must(send(s->fd, &first, 9, MSG_NOSIGNAL) == 9);
	if (!get(s))
		return;
	must(send(s->fd, (const char *)&first + 9, 7, MSG_NOSIGNAL) == 7);
	must(send(s->fd, &info, sizeof(info), MSG_NOSIGNAL) == sizeof(info));
	if (answer_well(s))
		serve(s);
}

/* Answers nothing at all, then everything. */
static void
answer_in_the_end(struct script *s)
{
	struct vd_hdr late[64];
	unsigned int n = 0;

	if (!get(s) || !answer_version(s))
		return;
	while (n < T_COUNT(late) && get(s))
		late[n++] = reply_to(s, 0);
	sem_wait((sem_t *)(uintptr_t)s->arg);
	while (n-- > 0)
		put(s, &late[n], NULL, 0, 0);
	serve(s);
}

static void
test_timeouts(void)
{
	struct script *s;
	struct vd_client *c;
	struct vd_device_info info;
	struct vd_irq_info irq;
	unsigned int n;
	int64_t start;
	sem_t told;

	for (int torn = 0; torn < 2; torn++) {
		s = script_new(torn ? answer_torn : answer_late, NULL);
		c = script_connect(s);
		vd_client_set_timeout(c, 100);
		start = t_now_ms();
		fails(vd_client_device_info(c, &info), ETIMEDOUT,
		    "%s reply is not waited for",
		    torn ? "a torn" : "a missing");
		start = t_now_ms() - start;
		ok(start >= 90 && start < 3000, "longer than was said");
		vd_client_set_timeout(c, -1);
		works(vd_client_irq_info(c, VD_IRQ_MSIX, &irq),
		    "the next command is answered");
		is_int(irq.count, 7, "by its own reply");
		works(vd_client_device_info(c, &info), "and the next again");
		is_int(info.num_regions, 9, "for good");
		ok(script_stop(s, c), "no descriptor is left");
	}

	must(sem_init(&told, 0, 0) == 0);
	s = script_new(answer_in_the_end, &told);
	c = script_connect(s);
	vd_client_set_timeout(c, 1);
	for (n = 0; n < 1000; n++) {
		must(vd_client_reset(c) == -1);
		if (errno != ETIMEDOUT)
			break;
	}
	is_int(n < 1000 ? errno : 0, ENOBUFS,
	    "only so many commands can wait for a server");
	sem_post(&told);
	vd_client_set_timeout(c, 2000);
	for (start = t_now_ms(); t_now_ms() - start < 5000; usleep(10000))
		if (vd_client_device_info(c, &info) == 0)
			break;
	works(vd_client_device_info(c, &info),
	    "it is well again when it has answered");
	is_int(info.num_regions, 9, "and not out of step");
	ok(script_stop(s, c), "no descriptor is left");
}

/* Commands of the server's while the client waits for a reply. */
static void
ask_back(struct script *s)
{
	struct vd_hdr mine, hdr = { .id = 0x5555, .cmd = VD_CMD_DMA_WRITE,
	    .size = 16 + 16 + 64 };
	uint8_t payload[80] = { 0 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	mine = s->hdr;
	put(s, &hdr, payload, sizeof(payload), 2);
	ok(get(s) && s->hdr.id == 0x5555 && s->hdr.cmd == VD_CMD_DMA_WRITE &&
	    s->hdr.size == 16 && s->hdr.flags == (VD_TYPE_REPLY | VD_ERROR) &&
	    s->hdr.error != 0, "a DMA_WRITE is answered with an error");
	/* With the id of the client's own command, which is no clash. */
	hdr = (struct vd_hdr){ .id = mine.id, .cmd = VD_CMD_DMA_READ,
	    .size = 32 };
	put(s, &hdr, payload, 16, 0);
	ok(get(s) && s->hdr.id == mine.id && s->hdr.cmd == VD_CMD_DMA_READ &&
	    (s->hdr.flags & VD_ERROR), "a DMA_READ is, too");
	hdr.flags = VD_NO_REPLY;
	put(s, &hdr, payload, 16, 0);
	s->hdr = mine;
	answer_well(s);
	serve(s);
}

/* The server reads a register of another device's, and RAM, and both. */
static void
read_register(struct script *s)
{
	static const struct { uint64_t addr, count; } wants[] = {
		{ PAGE, 8 }, { 0, 8 }, { PAGE - 8, 16 },
	};
	struct vd_hdr mine, hdr = { .cmd = VD_CMD_DMA_READ, .size = 32 };

	if (!get(s) || !answer_version(s) || !get(s))
		return;
	mine = s->hdr;
	for (size_t i = 0; i < T_COUNT(wants); i++) {
		put(s, &hdr, &wants[i], sizeof(wants[i]), 0);
		ok(get(s) && s->hdr.cmd == VD_CMD_DMA_READ &&
		    s->hdr.flags == VD_TYPE_REPLY &&
		    s->hdr.size == 32 + wants[i].count, "%u bytes at %#x are "
		    "answered", (unsigned int)wants[i].count,
		    (unsigned int)wants[i].addr);
	}
	s->hdr = mine;
	answer_well(s);
	serve(s);
}

static enum mt_result
count_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)off;
	(void)size;
	(void)attrs;
	*val = ++*(unsigned int *)arg;
	return (MT_OK);
}

static void
test_register(void)
{
	static const struct mt_io_ops ops = { .read = count_read,
	    .valid = { 1, 8, false }, .impl = { 1, 8, false } };
	struct script *s = script_new(read_register, NULL);
	struct vd_client *c = script_connect(s);
	struct mt_topology *t = t_topology();
	struct mt_region *root = t_container(t, "root", 2 * PAGE), *ram, *reg;
	struct vd_device_info info;
	struct mt_space *sp;
	unsigned int reads = 0;

	must((ram = mt_region_create_ram(t, "ram", MT_SIZE(PAGE), NULL)) !=
	    NULL);
	must((reg = mt_region_create_io(t, "register", MT_SIZE(PAGE), &ops,
	    &reads)) != NULL);
	must(mt_region_add(root, ram, 0, 0) == 0);
	must(mt_region_add(root, reg, PAGE, 0) == 0);
	sp = t_space(root);
	vd_client_set_dma(c, sp);
	works(vd_client_device_info(c, &info), "the server reads meanwhile");
	is_int(reads, 2, "a register once for each");
	ok(script_stop(s, c), "no descriptor is left");
	must(mt_space_destroy(sp) == 0);
	mt_region_put(reg);
	mt_region_put(ram);
	mt_region_put(root);
	must(mt_topology_destroy(t) == 0);
}

/* Commands without end, whose answers are read, or not. */
static void
flood(struct script *s)
{
	struct vd_hdr hdr = { .cmd = VD_CMD_DMA_READ, .size = 32 };
	uint8_t bytes[1024 * 32] = { 0 };
	bool reads = s->arg != NULL;

	for (size_t i = 0; i < sizeof(bytes); i += 32)
		memcpy(bytes + i, &hdr, sizeof(hdr));
	if (!get(s) || !answer_version(s) || !get(s))
		return;
	while (send(s->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) ==
	    sizeof(bytes)) {
		while (reads && recv(s->fd, s->in, sizeof(s->in),
		    MSG_DONTWAIT) > 0)
			continue;
	}
}

static void
test_commands(void)
{
	struct script *s = script_new(ask_back, NULL);
	struct vd_client *c = script_connect(s);
	struct vd_device_info info;
	int64_t start;

	works(vd_client_device_info(c, &info),
	    "a reply is found among the server's commands");
	is_int(info.num_regions, 9, "and is the right one");
	ok(script_stop(s, c), "no descriptor is left");

	for (int reads = 0; reads < 2; reads++) {
		s = script_new(flood, reads ? "reads" : NULL);
		c = script_connect(s);
		vd_client_set_timeout(c, 300);
		start = t_now_ms();
		ok(vd_client_device_info(c, &info) == -1,
		    "a flood of commands %s", reads ?
		    "gets answers, but" : "that reads no answers");
		ok(t_now_ms() - start < 5000, "keeps nobody longer than said");
		ok(script_stop(s, c), "no descriptor is left");
	}
}

/* Reads VERSION, then nothing more. */
static void
never_read(struct script *s)
{
	struct pollfd pfd = { .fd = s->fd, .events = POLLRDHUP };

	if (get(s) && answer_version(s))
		poll(&pfd, 1, -1);
}

static void
test_full(void)
{
	struct script *s = script_new(never_read, NULL);
	struct vd_client *c = script_connect(s);
	static uint8_t buf[256 << 10];
	int64_t start = t_now_ms();
	int n;

	vd_client_set_timeout(c, 200);
	for (n = 0; n < 1000; n++)
		if (vd_client_post(c, 0, 0, buf, sizeof(buf)) == -1)
			break;
	ok(n < 1000 && (errno == ETIMEDOUT || errno == ENOTCONN),
	    "writes are posted only as long as there is room");
	ok(t_now_ms() - start < 5000, "and then given up in time");
	ok(script_stop(s, c), "no descriptor is left");
}

/*
 * Nobody sends what a post leaves behind, as no reply is waited for: all of it
 * has to be sent, whatever the socket's buffer holds.
 */
static void
read_slowly(struct script *s)
{
	struct notes *n = (struct notes *)(uintptr_t)s->arg;

	if (!get(s) || !answer_version(s))
		return;
	usleep(200000);
	while (get(s)) {
		pthread_mutex_lock(&notes_lock);
		n->posts++;
		pthread_mutex_unlock(&notes_lock);
		if (!answer_well(s))
			break;
	}
}

static void
test_post_all(void)
{
	struct notes n = { 0 };
	struct script *s = script_new(read_slowly, &n);
	struct vd_client *c = script_connect(s);
	size_t len = 1 << 20;
	uint8_t *buf = calloc(1, len);
	int64_t start = t_now_ms();

	must(buf != NULL);
	works(vd_client_post(c, 0, 0, buf, len), "a megabyte is posted");
	while (t_now_ms() - start < 3000 && look(&n).posts == 0)
		usleep(1000);
	is_int(look(&n).posts, 1,
	    "and arrives without anything sent after it");
	free(buf);
	ok(script_stop(s, c), "no descriptor is left");
}

/* Run through all operations; true if each gave what it should. */
static bool
all_ops(struct vd_client *c, int *error)
{
	struct vd_client_region r;

	for (int op = 0; op < NR_OPS; op++) {
		r.fd = -1;
		if (do_op(c, (enum op)op, &r) == -1) {
			*error = errno;
			return (false);
		}
		if (r.fd != -1)
			close(r.fd);
	}
	return (true);
}

static void
test_loss(void)
{
	unsigned int lost = 0, odd = 0, leaks = 0;
	size_t cut;
	int error;

	/* One reply after the other, and one byte more of them each time. */
	for (cut = 0; cut < 1000; cut++) {
		struct script *s = script_new(serve, NULL);
		struct vd_client *c;
		bool all;

		s->json = JSON("\"max_msg_fds\":3");
		s->budget = cut;
		c = script_start(s);
		error = errno;
		all = c != NULL && all_ops(c, &error);
		if (!all) {
			lost++;
			odd += error != ENOTCONN;
		}
		leaks += !script_stop(s, c);
		if (all)
			break;
	}
	ok(lost == cut && cut > 300 && cut < 1000,
	    "a server can be lost at each of %zu bytes", cut);
	is_int(odd, 0, "which is always told as ENOTCONN");
	is_int(leaks, 0, "and leaks nothing");
}

static void
dribble(struct script *s)
{
	if (!get(s) || !answer_version(s))
		return;
	s->piece = 1;
	s->pause_ms = 50;
	serve(s);
}

static void
test_pieces(void)
{
	struct script *s = script_new(serve, NULL);
	struct vd_client *c;
	struct vd_device_info info;
	int error = 0;

	s->piece = 1;
	c = script_connect(s);
	ok(all_ops(c, &error), "replies may come byte by byte: %s",
	    strerror(error));
	ok(script_stop(s, c), "no descriptor is left");

	s = script_new(dribble, NULL);
	c = script_connect(s);
	vd_client_set_timeout(c, 300);
	fails(vd_client_device_info(c, &info), ETIMEDOUT,
	    "but not so slowly that they never end");
	ok(script_stop(s, c), "no descriptor is left");
}

int
main(void)
{
	test_limits();
	test_arguments();
	test_timeouts();
	test_commands();
	test_register();
	test_full();
	test_post_all();
	test_loss();
	test_pieces();
	return (done());
}
