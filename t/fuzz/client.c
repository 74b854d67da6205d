/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * A server that means harm, by script: it answers what the client asks while
 * that waits, well or in one of many bad ways, late or never; it asks for the
 * client's memory, hangs up, and is another one after that.  The client has
 * the device in a memory tree, and gives it the memory of one.  It believes
 * nothing, and in the end nothing is left: no descriptor, no region.
 */

#include "t/fuzz/device.h"

#define OPS		48
#define TIMEOUT_MS	20
#define BARS		8
#define RAMS		5
#define CROWD		72		/* more than there are calls at once */

/* --- the client ---------------------------------------------------------- */

static struct vd_client *client;
static struct mt_topology *topology;
static struct mt_region *root, *parts[2], *rams[RAMS], *bars[BARS];
static struct mt_region *crowd[CROWD];	/* or NULL, each */
static struct mt_space *space;
static struct vd_client_dma *dma;
static bool watching, in_transaction;
static unsigned int may_lose;		/* how often it may be told of a loss */
static size_t max_len;			/* of one access: not all day long */
static unsigned int want;		/* of what memory the device is told */

static void
lost(void *arg, int error)
{
	check(arg == &may_lose && error > 0);
	check(may_lose > 0);
	may_lose--;
}

static void
dma_failed(void *arg, bool unmap, struct mt_range range, int error)
{
	(void)unmap;
	check(arg == &want && error > 0 && range.first <= range.last);
}

static bool
dma_wanted(void *arg, const struct mt_section *sec)
{
	check(arg == &want);
	return ((want >> (sec->range.first / SLOT % 8) & 1) == 0);
}

static const struct vd_client_dma_ops dma_ops = { .failed = dma_failed,
    .wanted = dma_wanted };

static void
attach(void)
{
	const unsigned int how = (unsigned int)next(&in, 1);
	const struct vd_client_options o = { .timeout_ms = TIMEOUT_MS,
	    .no_twin = (how & 1) != 0, .force_queue = (how & 2) != 0,
	    .dma = (how & 4) != 0 ? space : NULL };
	struct vd_client_limits limits;
	int fd = listen_again(true);

	if ((client = vd_client_attach_with(fd, &o)) == NULL) {
		close(fd);
		return;
	}
	may_lose = 0;
	vd_client_limits(client, &limits);
	check(limits.max_data_xfer > 0 &&
	    limits.max_data_xfer <= VD_MAX_DATA_XFER);
	max_len = (size_t)limits.max_data_xfer * 16;
}

static void
commit(void)
{
	if (in_transaction)
		check(mt_topology_commit(topology) == 0);
	in_transaction = false;
}

static void
detach(void)
{
	commit();
	vd_client_dma_destroy(dma);
	dma = NULL;
	vd_client_destroy(client);
	client = NULL;
	watching = false;
}

static void
check_region(const struct vd_client_region *r)
{
	unsigned int i;

	check(r->nr_areas <= VD_CLIENT_MAX_AREAS);
	for (i = 0; i < r->nr_areas; i++) {
		check(r->areas[i].size <= r->size);
		check(r->areas[i].offset <= r->size - r->areas[i].size);
	}
	if (r->fd != -1)
		close(r->fd);
}

/* --- what it calls ------------------------------------------------------- */

static void
ask(unsigned int what, unsigned int arg)
{
	struct vd_device_info device;
	struct vd_irq_info irq;
	struct vd_client_region region;

	switch (what) {
	case 0:
		if (vd_client_device_info(client, &device) == 0)
			check(device.num_regions <= 256);
		break;
	case 1:
		vd_client_irq_info(client, (enum vd_irq)(arg % 6), &irq);
		break;
	case 2:
		if (vd_client_region_info(client, arg % 16, &region) == 0)
			check_region(&region);
		break;
	case 3:
		vd_client_reset(client);
		break;
	}
}

static void
move_bytes(unsigned int what, unsigned int arg)
{
	static const size_t sizes[] = { 1, 8, 100, 40000 };
	static uint8_t buf[40000];
	const uint64_t off = next(&in, 2);
	size_t len = sizes[arg >> 4 & 3];

	if (len > max_len)
		len = max_len;

	switch (what) {
	case 0:
		vd_client_read(client, arg & 15, off, buf, len);
		break;
	case 1:
		vd_client_write(client, arg & 15, off, buf, len);
		break;
	case 2:
		vd_client_post(client, arg & 15, off, buf, len);
		break;
	}
}

static void
irqs(unsigned int arg)
{
	const enum vd_irq index = (enum vd_irq)(arg % 6);
	const unsigned int start = (unsigned int)next_below(&in, 32);
	const unsigned int count = (unsigned int)next_below(&in, 32);
	int fds[32];
	unsigned int i;

	for (i = 0; i < F_COUNT(fds); i++)
		fds[i] = event;
	switch (arg >> 4 & 7) {
	case 0:
		vd_client_set_eventfds(client, index, start, count, NULL);
		break;
	case 1:
		vd_client_set_irqs(client, index, start, count,
		    VD_IRQ_ACT_MASK);
		break;
	case 2:
		vd_client_set_irqs(client, index, start, count,
		    VD_IRQ_ACT_UNMASK);
		break;
	case 3:
		vd_client_set_irqs(client, index, start, count,
		    VD_IRQ_ACT_TRIGGER);
		break;
	case 4:
		fds[count] = -1;
		/* FALLTHROUGH */
	default:
		vd_client_set_eventfds(client, index, start, count, fds);
		break;
	}
}

static mt_addr
place(unsigned int arg)
{
	static const unsigned int more[] = { 0, 0, 0x800, 0x10 };

	return ((arg & 15) * SLOT + (arg >> 4 & 3) * PAGE + more[arg >> 6]);
}

static void
drop(struct mt_region **r)
{
	if (*r != NULL && mt_region_parent(*r) != NULL)
		check(mt_region_del(*r) == 0);
	mt_region_put(*r);
	*r = NULL;
}

static void
bar(unsigned int arg)
{
	const unsigned int i = arg % BARS;
	const unsigned int at = (unsigned int)next(&in, 1);

	switch (arg >> 3 & 3) {
	case 0:
		if (bars[i] != NULL)
			check(mt_region_move(bars[i], place(at)) == 0);
		break;
	case 1:
		drop(&bars[i]);
		break;
	default:
		commit();
		drop(&bars[i]);
		bars[i] = vd_client_region_create(client, topology,
		    at % 10, "bar", arg >> 5 & 3);
		if (bars[i] != NULL)
			check(mt_region_add(root, bars[i],
			    place((unsigned int)next(&in, 1)),
			    (int)(arg >> 7)) == 0);
		break;
	}
}

static void
ram(unsigned int arg)
{
	struct mt_region *r = rams[arg % RAMS];
	const unsigned int at = (unsigned int)next(&in, 1);

	switch (arg >> 3 & 3) {
	case 0:
		if (mt_region_parent(r) != NULL)
			check(mt_region_del(r) == 0);
		break;
	case 1:
		/* Of RAM only: the others say so. */
		check(mt_region_set_readonly(r, (at & 1) != 0) == 0 ||
		    errno == EINVAL);
		break;
	case 2:
		check(mt_region_set_unmergeable(r, (at & 1) != 0) == 0);
		break;
	case 3:
		if (mt_region_parent(r) != NULL)
			check(mt_region_move(r, place(at)) == 0);
		else
			check(mt_region_add(root, r, place(at),
			    (int)(arg >> 5)) == 0);
		break;
	}
}

/* Much memory comes and goes at once. */
static void
move_crowd(void)
{
	unsigned int i = (unsigned int)next_below(&in, CROWD);
	unsigned int n = (unsigned int)next(&in, 1);

	check(mt_topology_begin(topology) == 0);
	for (; n > 0 && i < CROWD; n--, i++) {
		if (crowd[i] == NULL)
			check((crowd[i] = mt_region_create_alias(topology,
			    "one of many", rams[0], i % 4 * PAGE,
			    MT_SIZE(PAGE))) != NULL);
		if (mt_region_parent(crowd[i]) != NULL)
			check(mt_region_del(crowd[i]) == 0);
		else
			check(mt_region_add(root, crowd[i], SLOT * 32 +
			    i * 2 * PAGE, 0) == 0);
	}
	check(mt_topology_commit(topology) == 0);
}

/* Guests, and devices of the same machine. */
static void
access_space(unsigned int arg)
{
	static const size_t sizes[] = { 1, 2, 4, 8, 100, 3, 900, 40 };
	static uint8_t buf[900];
	const mt_addr at = place((unsigned int)next(&in, 1)) + next(&in, 1);
	const size_t len = sizes[arg & 7];
	struct mt_mapping m;
	uint64_t val;

	switch (arg >> 3 & 7) {
	case 0:
		mt_space_read(space, at, buf, len, MT_ATTRS_NONE);
		break;
	case 1:
		mt_space_write(space, at, buf, len, MT_ATTRS_NONE);
		break;
	case 2:
		if (mt_dma_map(space, at, len, MT_DMA_READ | MT_DMA_WRITE,
		    MT_ATTRS_NONE, &m) == 0) {
			memset(m.ptr, 0x5a, m.len);
			check(mt_dma_unmap(&m, m.len) == 0 || errno == EIO);
		}
		break;
	case 3:
		mt_space_store(space, at, 1u << (arg & 3), MT_LITTLE, 77,
		    MT_ATTRS_NONE);
		break;
	default:
		mt_space_load(space, at, 1u << (arg & 3), MT_LITTLE, &val,
		    MT_ATTRS_NONE);
		break;
	}
}

static void
pages(unsigned int arg)
{
	switch (arg % 4) {
	case 0:
		if (vd_client_watch_pages(client, space) == 0)
			watching = true;
		else
			check(errno == EBUSY && watching);
		break;
	case 1:
		check((vd_client_unwatch_pages(client) == 0) == watching);
		watching = false;
		break;
	case 2:
		check((vd_client_update_pages(client) == 0) == watching);
		break;
	case 3:
		check(vd_client_set_direct(client, (arg & 4) != 0) == 0);
		break;
	}
}

static void
give(unsigned int arg)
{
	if ((arg & 0x40) != 0) {
		move_crowd();
		return;
	}
	want = (unsigned int)next(&in, 1);
	switch (arg % 4) {
	case 0:
		vd_client_dma_destroy(dma);
		dma = NULL;
		break;
	case 1:
		if (dma != NULL)
			check(vd_client_dma_create(client, space, NULL,
			    NULL) == NULL && errno == EBUSY);
		else
			dma = vd_client_dma_create(client, space, &dma_ops,
			    &want);
		break;
	case 2:
		vd_client_dma_map(client, (uint64_t)want << 12, PAGE,
		    arg >> 2 & 3, (arg & 0x10) != 0 ? kinds[0] : -1, 0);
		break;
	case 3:
		vd_client_dma_unmap(client, (uint64_t)want << 12, PAGE);
		break;
	}
}

static void
reconnect(void)
{
	int fd;

	commit();
	fd = listen_again(next_below(&in, 8) == 1);
	/* There may be another loss, but none of the one that is given up. */
	may_lose = 0;
	if (vd_client_reconnect(client, fd) == -1)
		close(fd);
	else
		may_lose = 1;
}

static void
connection(unsigned int arg)
{
	int fds[VD_CLIENT_FDS];
	unsigned int i;

	switch (arg % 8) {
	case 0:
		may_lose = 1;
		if (vd_client_set_lost(client, lost, &may_lose) == -1)
			check(errno != 0);
		break;
	case 1:
		vd_client_check(client);
		break;
	case 2:
		reconnect();
		break;
	case 3:
		hang_up();
		break;
	case 4:
		vd_client_set_dma(client, (arg & 8) != 0 ? space : NULL);
		break;
	case 5:
		detach();
		attach();
		break;
	case 6:
		commit();
		check(mt_topology_begin(topology) == 0);
		in_transaction = true;
		break;
	case 7:
		commit();
		for (i = arg >> 3; i > 0; i--)
			wish();
		check(vd_client_fds(client, fds) <= VD_CLIENT_FDS);
		for (i = 0; i < 8 && vd_client_run(client) == 1; i++)
			act();
		break;
	}
}

static void
step(void)
{
	const unsigned int what = (unsigned int)next_below(&in, 16);
	const unsigned int arg = (unsigned int)next(&in, 1);

	dev.good = what & 1 ? 255 : (unsigned int)next(&in, 1);
	switch (what >> 1) {
	case 0:
		ask(arg & 3, arg >> 2);
		break;
	case 1:
		move_bytes((unsigned int)next_below(&in, 3), arg);
		break;
	case 2:
		irqs(arg);
		break;
	case 3:
		bar(arg);
		break;
	case 4:
		ram(arg);
		break;
	case 5:
		access_space(arg);
		break;
	case 6:
		if (arg & 0x80)
			pages(arg);
		else
			give(arg);
		break;
	case 7:
		connection(arg);
		break;
	}
	act();
}

/* --- life ---------------------------------------------------------------- */

static void
create(void)
{
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };
	struct mt_backing file = { .kind = MT_BACKING_FD,
	    .flags = MT_BACKING_KEEP_FD, .fd = kinds[0] };
	unsigned int i;

	check((topology = mt_topology_create()) != NULL);
	check((root = mt_region_create_container(topology, "root",
	    MT_LAST_MAX)) != NULL);
	check((space = mt_space_create(root, "space")) != NULL);
	for (i = 0; i < 2; i++) {
		file.fd_off = (4 + i) * PAGE;
		check((parts[i] = mt_region_create_ram(topology, "part",
		    MT_SIZE((2 - i) * PAGE), &file)) != NULL);
	}
	check((rams[0] = mt_region_create_ram(topology, "ram",
	    MT_SIZE(4 * PAGE), &memfd)) != NULL);
	check((rams[1] = mt_region_create_ram(topology, "ram",
	    MT_SIZE(0x1100), NULL)) != NULL);
	/* These continue each other in their file, inside of a page. */
	check((rams[2] = mt_region_create_alias(topology, "front", parts[0],
	    0, MT_SIZE(0x1800))) != NULL);
	check((rams[3] = mt_region_create_alias(topology, "back", parts[1],
	    0x800, MT_SIZE(0x800))) != NULL);
	check((rams[4] = mt_region_create_rom(topology, "rom", MT_SIZE(PAGE),
	    NULL)) != NULL);
}

static void
destroy(bool regions_first)
{
	unsigned int i;

	commit();
	for (i = 0; i < BARS && regions_first; i++)
		drop(&bars[i]);
	if (client != NULL)
		detach();
	hang_up();
	for (i = 0; i < BARS; i++)
		drop(&bars[i]);
	for (i = 0; i < CROWD; i++)
		drop(&crowd[i]);
	for (i = 0; i < RAMS; i++)
		drop(&rams[i]);
	check(mt_space_destroy(space) == 0);
	mt_region_put(parts[0]);
	mt_region_put(parts[1]);
	mt_region_put(root);
	check(mt_topology_destroy(topology) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int before, how, i;

	if (event == 0)
		make_kinds();
	before = count_fds();
	in = (struct input){ data, size };
	memset(&dev, 0, sizeof(dev));
	sock.fd = twin.fd = dev.twin = -1;
	may_lose = want = 0;
	how = (unsigned int)next(&in, 1);
	p_begin(act);
	create();
	attach();
	for (i = 0; client != NULL && in.left > 0 && i < OPS; i++)
		step();
	destroy((how & 1) != 0);
	p_end();
	check(count_fds() == before);
	return (0);
}
