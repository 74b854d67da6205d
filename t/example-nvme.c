/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * The NVMe controller as a disk: what it says it is, and that every byte goes
 * where the command says, however the command describes its memory.
 */

#define T_ALARM		300

#include "t/example-nvme.h"

#define RAM_SIZE	((size_t)8 << 20)
#define MAX_XFER	((size_t)1 << 20)

static uint64_t seed;

/* --- options -------------------------------------------------------------- */

#define run(...)	nvme_run((const char *const[]){ __VA_ARGS__, NULL })

static void
test_options(void)
{
	is_int(run("--help"), 0, "--help is no error");
	is_int(run("--bogus"), 2, "an unknown option is a usage error");
	is_int(run("--ram", "1M"), 2, "a socket must be given");
	is_int(run("--socket", "/tmp/x"), 2, "a namespace must be given");
	is_int(run("--socket", "/tmp/x", "--ram", "1M", "extra"), 2,
	    "arguments are refused");
	is_int(run("--socket", "/tmp/x", "--ram", "1X"), 2,
	    "a bad size is refused");
	is_int(run("--socket", "/tmp/x", "--ram", "-1"), 2,
	    "a negative size is refused");
	is_int(run("--socket", "/tmp/x", "--ram", "99999999999G"), 2,
	    "a size that overflows is refused");
	is_int(run("--socket", "/tmp/x", "--ram", "513"), 1,
	    "half a block is refused");
	is_int(run("--socket", "/tmp/x", "--block-size", "1024", "--ram",
	    "1M"), 2, "a block size that we do not have is refused");
	is_int(run("--socket", "/tmp/x", "--doorbells", "no", "--ram", "1M"),
	    2, "an unknown kind of doorbells is refused");
	is_int(run("--socket", "/tmp/x", "--file", "/tmp/no/such/file"), 1,
	    "a file must exist");
	is_int(run("--socket", "/tmp/x", "--file", "/tmp"), 1,
	    "a directory is no file");
	is_int(run("--socket", "/tmp/x", "--file", "/dev/zero"), 1,
	    "nor is a character device");
	is_int(run("--socket", "/tmp/no/such/dir/cntrl", "--ram", "1M"), 1,
	    "a socket that cannot be made is an error");
	is_int(run("--socket", "/tmp/x", "--serial",
	    "123456789012345678901", "--ram", "1M"), 2,
	    "a serial number that is too long is refused");
}

/* --- registers and identity ----------------------------------------------- */

static void
test_registers(struct host *h)
{
	uint64_t cap = 0;
	uint32_t val;

	must(vd_client_read(h->client, VD_REGION_BAR0, 0, &cap, 8) == 0);
	is_hex(cap & 0xffff, 1023, "CAP: queues of 1024 entries");
	ok((cap & NVME_CAP_CQR) != 0, "CAP: queues in one piece");
	is_hex(cap >> 37 & 0xff, 1, "CAP: the NVM command set");
	is_hex(cap >> 48 & 0xf, 0, "CAP: pages of 4 KiB");
	is_hex(cap >> 32 & 0xf, 0, "CAP: doorbells without gaps");
	ok((cap >> 24 & 0xff) != 0, "CAP: a time-out");
	is_hex(reg_get(h, 0) | (uint64_t)reg_get(h, 4) << 32, cap,
	    "CAP can be read in halves");
	is_hex(reg_get(h, NVME_REG_VS), 0x10400, "VS: 1.4");
	is_hex(reg_get(h, 0x38) | reg_get(h, 0x3c) | reg_get(h, 0x68), 0,
	    "what is not there reads as zero");
	is_hex(reg_get(h, 0x3000), 0, "so does the end of the BAR");
	reg_set64(h, NVME_REG_ASQ, UINT64_C(0x123456789000));
	is_hex(reg_get(h, NVME_REG_ASQ), 0x56789000, "ASQ: lower half");
	is_hex(reg_get(h, NVME_REG_ASQ + 4), 0x1234, "ASQ: upper half");
	ok(vd_client_read(h->client, VD_REGION_BAR0, 0x16, &val, 4) == -1,
	    "an unaligned access is refused");
	ok(vd_client_read(h->client, VD_REGION_BAR0, 0x14, &val, 1) == -1,
	    "a byte of a register is refused");
	is_hex(config_get(h, 8, 4) >> 8, 0x010802, "it is an NVMe controller");
}

static void
test_identify(struct host *h)
{
	const struct nvme_id_ctrl *id = (void *)(h->mem + DATA);
	const struct nvme_id_ns *ns = (void *)(h->mem + DATA);
	const struct nvme_ns_desc *desc = (void *)(h->mem + DATA);
	const uint32_t *list = (void *)(h->mem + DATA);
	uint8_t uuid[16];

	is_status(identify(h, 1, 0), NVME_OK, "Identify: the controller");
	is_mem(id->sn, "SERIAL-1            ", 20, "its serial number");
	is_mem(id->mn, "A model                                 ", 40,
	    "its model");
	is_hex(id->ver, 0x10400, "its version");
	is_int(id->nn, 3, "its namespaces");
	is_int(id->mdts, 8, "MDTS is 1 MiB");
	is_int(id->cntrltype, 1, "it is an I/O controller");
	is_hex(id->sqes, 0x66, "its submission entries");
	is_hex(id->cqes, 0x44, "its completion entries");
	is_hex(id->vwc, 7, "a file has a volatile write cache");
	ok(strncmp(id->subnqn, "nqn.2014-08.", 12) == 0, "it has a name");

	is_status(identify(h, 0, 1), NVME_OK, "Identify: namespace 1");
	is_int(ns->nsze, RAM_SIZE / 512, "its size");
	is_int(ns->lbaf[ns->flbas & 0xf] >> 16 & 0xff, 9, "its blocks");
	is_hex(ns->dlfeat, 9, "deallocated blocks read as zeroes");
	is_status(identify(h, 0, 2), NVME_OK, "Identify: namespace 2");
	is_int(ns->nsze, RAM_SIZE / 4096, "its size");
	is_int(ns->lbaf[ns->flbas & 0xf] >> 16 & 0xff, 12, "its blocks");
	is_status(identify(h, 0, 0), NVME_INVALID_NSID, "there is none 0");
	is_status(identify(h, 0, 4), NVME_INVALID_NSID, "there is none 4");
	is_status(identify(h, 0, NVME_NSID_ALL), NVME_INVALID_NSID,
	    "all of them have nothing in common");

	is_status(identify(h, 2, 0), NVME_OK, "Identify: the list");
	ok(list[0] == 1 && list[1] == 2 && list[2] == 3 && list[3] == 0,
	    "namespaces 1 to 3");
	is_status(identify(h, 2, 1), NVME_OK, "Identify: what follows 1");
	ok(list[0] == 2 && list[1] == 3 && list[2] == 0, "2 and 3");
	is_status(identify(h, 2, NVME_NSID_ALL), NVME_INVALID_NSID,
	    "nothing can follow the last");
	is_status(identify(h, 3, 1), NVME_OK, "Identify: descriptors");
	ok(desc->type == NVME_NIDT_UUID && desc->len == 16, "a UUID");
	memcpy(uuid, desc->id, 16);
	is_status(identify(h, 3, 2), NVME_OK, "Identify: descriptors");
	ok(memcmp(uuid, desc->id, 16) != 0, "of each its own");
	is_status(identify(h, 5, 1), NVME_OK, "Identify: CNS 05h");
	is_status(identify(h, 6, 0), NVME_OK, "Identify: CNS 06h");
	is_status(identify(h, 7, 0), NVME_OK, "Identify: CNS 07h");
	is_status(identify(h, 8, 1), NVME_OK, "Identify: CNS 08h");
	is_int(h->mem[DATA + 14], 1, "the namespace is ready");
	is_status(identify(h, 0x4f, 0), NVME_INVALID_FIELD,
	    "Identify: nothing else");
}

/* --- data pointers -------------------------------------------------------- */

/*
 * Scatter len bytes over pages of [DATA, DATA2 + ...) in random order, the
 * first from byte first of its page, and describe them by PRPs with the list
 * at byte at of its page.  The guest's side of the bytes is given in where.
 */
struct scatter {
	struct nvme_cmd cmd;
	unsigned int n;
	struct {
		size_t off;
		size_t len;
	} part[4096];
};

/* Pages or blocks in random order: an index is given once. */
static void
shuffle(uint16_t *v, unsigned int n)
{
	unsigned int i, j;
	uint16_t x;

	for (i = 0; i < n; i++)
		v[i] = (uint16_t)i;
	for (i = n; i > 1; i--) {
		j = (unsigned int)t_below(&seed, i);
		x = v[i - 1];
		v[i - 1] = v[j];
		v[j] = x;
	}
}

static void
scatter_prp(struct host *h, struct scatter *s, size_t first, size_t at,
    size_t len)
{
	uint16_t pages[1024];
	uint64_t *list;
	size_t here, off, page = 0, list_page = 0;

	shuffle(pages, 1024);
	s->n = 0;
	here = PAGE - first < len ? PAGE - first : len;
	off = DATA + pages[page++] * PAGE + first;
	s->part[s->n].off = off;
	s->part[s->n++].len = here;
	s->cmd.prp1 = IOVA + off;
	s->cmd.prp2 = 0;
	len -= here;
	if (len == 0)
		return;
	if (len <= PAGE) {
		off = DATA + pages[page++] * PAGE;
		s->part[s->n].off = off;
		s->part[s->n++].len = len;
		s->cmd.prp2 = IOVA + off;
		return;
	}
	s->cmd.prp2 = IOVA + LISTS + at;
	list = (void *)(h->mem + LISTS + at);
	while (len > 0) {
		if (((uintptr_t)list & (PAGE - 1)) == PAGE - 8 && len > PAGE) {
			/* Every other page, so that it is not what follows. */
			list_page += 2;
			*list = IOVA + LISTS + list_page * PAGE;
			list = (void *)(h->mem + LISTS + list_page * PAGE);
		}
		here = len < PAGE ? len : PAGE;
		off = DATA + pages[page++] * PAGE;
		*list++ = IOVA + off;
		s->part[s->n].off = off;
		s->part[s->n++].len = here;
		len -= here;
	}
}

static void
put_sgl(uint8_t *at, uint64_t addr, size_t len, unsigned int type)
{
	const struct nvme_sgl d = { .addr = addr, .len = (uint32_t)len,
	    .type = (uint8_t)(type << 4) };

	memcpy(at, &d, sizeof(d));
}

/* The same by SGL: parts of any length at any address, in segments. */
static void
scatter_sgl(struct host *h, struct scatter *s, size_t len, size_t max_part)
{
	uint16_t slots[256];
	size_t at, n, part, pos = LISTS, left = 0, want, segment;
	struct nvme_sgl *d;

	shuffle(slots, 256);
	s->n = 0;
	while (len > 0) {
		part = 1 + t_below(&seed, max_part);
		part = part < len ? part : len;
		if (s->n == 255)
			part = len;
		s->part[s->n].len = part;
		/* Each has 16 KiB for itself; the last may need all. */
		s->part[s->n].off = s->n == 255 ? DATA2 + 0x400001 :
		    DATA + slots[s->n] * 0x4000u + t_below(&seed, 100);
		s->n++;
		len -= part;
	}
	if (s->n == 1) {
		put_sgl((uint8_t *)&s->cmd.sgl, IOVA + s->part[0].off,
		    s->part[0].len, NVME_SGL_DATA);
		return;
	}
	/* Descriptors in segments of random size. */
	d = NULL;
	for (n = 0; n < s->n;) {
		want = s->n - n;
		segment = 1 + t_below(&seed, 20);
		if (segment >= want)
			segment = want;
		left = want - segment;
		/* One more descriptor names the next segment. */
		at = pos;
		pos += (segment + (left > 0)) * sizeof(struct nvme_sgl) + 32;
		put_sgl(d == NULL ? (uint8_t *)&s->cmd.sgl : (uint8_t *)d,
		    IOVA + at, (segment + (left > 0)) * sizeof(*d),
		    left > 0 ? NVME_SGL_SEGMENT : NVME_SGL_LAST);
		while (segment-- > 0) {
			put_sgl(h->mem + at, IOVA + s->part[n].off,
			    s->part[n].len, NVME_SGL_DATA);
			at += sizeof(*d);
			n++;
		}
		d = (void *)(h->mem + at);
	}
}

/* Write what is in model at slba through s, or read it and compare. */
static bool
through(struct host *h, struct scatter *s, unsigned int opcode, uint32_t nsid,
    uint64_t slba, unsigned int nlb, const uint8_t *model, size_t len)
{
	struct answer a;
	unsigned int i;
	size_t pos = 0;

	for (i = 0; i < s->n; pos += s->part[i++].len) {
		if (opcode == NVME_IO_READ)
			memset(h->mem + s->part[i].off, 0xee, s->part[i].len);
		else
			memcpy(h->mem + s->part[i].off, model + pos,
			    s->part[i].len);
	}
	must(pos == len);
	s->cmd.opcode = (uint8_t)opcode;
	s->cmd.nsid = nsid;
	s->cmd.cdw10 = (uint32_t)slba;
	s->cmd.cdw11 = (uint32_t)(slba >> 32);
	s->cmd.cdw12 = nlb - 1;
	a = command(h, 1, s->cmd);
	if (a.status != NVME_OK) {
		diag("status 0x%x", a.status);
		return (false);
	}
	if (opcode != NVME_IO_READ)
		return (true);
	for (i = 0, pos = 0; i < s->n; pos += s->part[i++].len)
		if (memcmp(h->mem + s->part[i].off, model + pos,
		    s->part[i].len) != 0) {
			diag("part %u of %u differs", i, s->n);
			return (false);
		}
	return (true);
}

static void
round_trips(struct host *h, uint32_t nsid, unsigned int block, bool sgl,
    unsigned int rounds)
{
	static uint8_t model[RAM_SIZE];
	static struct scatter s;
	static const size_t firsts[] = { 0, 4, 8, 512, 2048, 4092 };
	static const size_t ats[] = { 0, 8, 16, 2048, 4072, 4080, 4088 };
	unsigned int bad = 0, i, nlb, op;
	size_t len, max;
	uint64_t slba;

	/* A known state first, in one stroke each. */
	fill_random(model, RAM_SIZE, &seed);
	for (i = 0; i < RAM_SIZE / MAX_XFER; i++) {
		s.cmd = (struct nvme_cmd){ 0 };
		scatter_prp(h, &s, 0, 0, MAX_XFER);
		if (!through(h, &s, NVME_IO_WRITE, nsid,
		    i * MAX_XFER / block, (unsigned int)(MAX_XFER / block),
		    model + i * MAX_XFER, MAX_XFER))
			bad++;
	}
	for (i = 0; i < rounds; i++) {
		max = i % 4 == 0 ? MAX_XFER : i % 4 == 1 ? 65536 : 16384;
		nlb = 1 + (unsigned int)t_below(&seed, max / block);
		len = (size_t)nlb * block;
		slba = t_below(&seed, RAM_SIZE / block - nlb + 1);
		s.cmd = (struct nvme_cmd){ 0 };
		if (sgl) {
			scatter_sgl(h, &s, len, 8192);
			s.cmd.flags = (uint8_t)(1 + i % 2) << 6;
		} else {
			scatter_prp(h, &s, firsts[i % T_COUNT(firsts)],
			    ats[t_below(&seed, T_COUNT(ats))], len);
		}
		op = i % 3 == 0 ? NVME_IO_WRITE : i % 3 == 1 ? NVME_IO_READ :
		    NVME_IO_COMPARE;
		if (op == NVME_IO_WRITE)
			fill_random(model + slba * block, len, &seed);
		if (!through(h, &s, op, nsid, slba, nlb, model + slba * block,
		    len)) {
			diag("opcode %u of %zu bytes, first %zu", op, len,
			    firsts[i % T_COUNT(firsts)]);
			bad++;
		}
	}
	is_int(bad, 0, "namespace %u: %u commands by %s move every byte",
	    nsid, rounds, sgl ? "SGL" : "PRP");
}

/* --- the other commands --------------------------------------------------- */

static bool
all_are(const uint8_t *p, uint8_t byte, size_t len)
{
	while (len > 0 && *p == byte)
		p++, len--;
	return (len == 0);
}

static void
test_zeroes(struct host *h, uint32_t nsid, unsigned int block)
{
	const unsigned int total = 1024, span = total * block;
	struct nvme_dsm_range *r = (void *)(h->mem + LISTS + 8 * PAGE);
	unsigned int i, nlb = 65536 / block;
	const uint8_t *p = h->mem + DATA;
	bool good = true;

	for (i = 0; i < span / 65536; i++) {
		memset(h->mem + DATA, 0x77, 65536);
		good &= move(h, NVME_IO_WRITE, nsid, i * nlb, nlb, DATA,
		    65536).status == NVME_OK;
	}
	ok(good, "namespace %u: blocks are written", nsid);
	is_status(io(h, .opcode = NVME_IO_WRITE_ZEROES, .nsid = nsid,
	    .cdw10 = 3, .cdw12 = 4), NVME_OK, "Write Zeroes: five blocks");
	move(h, NVME_IO_READ, nsid, 0, 16, DATA, 16 * block);
	ok(all_are(p, 0x77, 3 * block) && all_are(p + 3 * block, 0, 5 * block)
	    && all_are(p + 8 * block, 0x77, 8 * block),
	    "those and no others are zero");
	is_status(io(h, .opcode = NVME_IO_WRITE_ZEROES, .nsid = nsid,
	    .cdw10 = 1, .cdw12 = NVME_WZ_DEAC | (total / 2 - 1)), NVME_OK,
	    "Write Zeroes: many blocks, deallocated");
	move(h, NVME_IO_READ, nsid, total / 2 - 3, 8, DATA, 8 * block);
	ok(all_are(p, 0, 4 * block) && all_are(p + 4 * block, 0x77, 4 * block),
	    "up to the last one");
	r[0] = (struct nvme_dsm_range){ .slba = total - 200, .nlb = 150 };
	r[1] = (struct nvme_dsm_range){ .slba = total - 10, .nlb = 5 };
	r[2] = (struct nvme_dsm_range){ .slba = total, .nlb = 0 };
	is_status(io(h, .opcode = NVME_IO_DSM, .nsid = nsid,
	    .prp1 = IOVA + LISTS + 8 * PAGE, .cdw10 = 2), NVME_OK,
	    "DSM: hints alone");
	move(h, NVME_IO_READ, nsid, total - 10, 10, DATA, 10 * block);
	ok(all_are(p, 0x77, 10 * block), "change nothing");
	is_status(io(h, .opcode = NVME_IO_DSM, .nsid = nsid,
	    .prp1 = IOVA + LISTS + 8 * PAGE, .cdw10 = 2,
	    .cdw11 = NVME_DSM_DEALLOCATE), NVME_OK, "DSM: deallocate");
	move(h, NVME_IO_READ, nsid, total - 12, 12, DATA, 12 * block);
	ok(all_are(p, 0x77, 2 * block) && all_are(p + 2 * block, 0, 5 * block)
	    && all_are(p + 7 * block, 0x77, 5 * block),
	    "makes zeroes of the ranges");
	r[1].nlb = 11;
	is_status(io(h, .opcode = NVME_IO_DSM, .nsid = nsid,
	    .prp1 = IOVA + LISTS + 8 * PAGE, .cdw10 = 0xff,
	    .cdw11 = NVME_DSM_DEALLOCATE), NVME_OK,
	    "DSM: 256 ranges, most of them empty");
}

static void
test_flush(struct host *h)
{
	uint32_t nsid;

	memset(h->mem + DATA, 0x33, PAGE);
	for (nsid = 1; nsid <= 3; nsid++) {
		is_status(move(h, NVME_IO_WRITE, nsid, 1, 1, DATA, PAGE),
		    NVME_OK, "namespace %u: Write", nsid);
		is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = nsid),
		    NVME_OK, "namespace %u: Flush", nsid);
		is_status(io(h, .opcode = NVME_IO_WRITE, .nsid = nsid,
		    .prp1 = IOVA + DATA, .cdw10 = 5,
		    .cdw12 = NVME_RW_FUA), NVME_OK,
		    "namespace %u: Write with FUA", nsid);
		is_status(io(h, .opcode = NVME_IO_READ, .nsid = nsid,
		    .prp1 = IOVA + DATA, .cdw10 = 5,
		    .cdw12 = NVME_RW_FUA), NVME_OK,
		    "namespace %u: Read with FUA", nsid);
	}
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = NVME_NSID_ALL),
	    NVME_OK, "Flush of all that is clean");
	move(h, NVME_IO_WRITE, 3, 1, 1, DATA, PAGE);
	is_status(io(h, .opcode = NVME_IO_FLUSH, .nsid = NVME_NSID_ALL),
	    NVME_OK, "Flush of all namespaces");
}

/* Several queues at once, deep, in whatever order they complete. */
static void
test_parallel(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_READ, .nsid = 2 };
	unsigned int bad = 0, i, n = 0, qid, round;
	struct answer a;

	must(create_pair(h, 2, 1024) && create_pair(h, 3, 2) &&
	    create_pair(h, 4, 17));
	for (i = 0; i < RAM_SIZE / 4096; i++) {
		memset(h->mem + DATA, (int)(i & 0xff), PAGE);
		move(h, NVME_IO_WRITE, 2, i, 1, DATA, PAGE);
	}
	for (round = 0; round < 50; round++) {
		for (qid = 1; qid <= 4; qid++) {
			for (i = 0; i < h->q[qid].entries - 1; i++) {
				cmd.cdw10 = (uint32_t)t_below(&seed, 256);
				cmd.prp1 = IOVA + DATA + cmd.cdw10 * PAGE;
				queue_put(h, qid, &cmd);
			}
			queue_ring(h, qid);
		}
		for (qid = 1; qid <= 4; qid++) {
			for (i = 0; i < h->q[qid].entries - 1; i++) {
				a = queue_peek(h, qid, ANSWER_MS);
				bad += a.status != NVME_OK;
				n++;
			}
			ring_doorbell(h, 2 * qid + 1, h->q[qid].head);
		}
	}
	is_int(bad, 0, "%u commands in four full queues succeed", n);
	for (i = 0; i < 256; i++)
		bad += !all_are(h->mem + DATA + i * PAGE, (uint8_t)i, PAGE);
	is_int(bad, 0, "and give the right data");
}

/* A CQ that the host does not empty is not overrun. */
static void
test_full_cq(struct host *h)
{
	struct nvme_cmd cmd = { .opcode = NVME_IO_READ, .nsid = 1,
	    .prp1 = IOVA + DATA };
	unsigned int i, n = 0, wrong = 0;
	struct answer a;
	uint16_t first = h->cid;

	/* Room for three in the CQ, for fifteen in the SQ. */
	is_status(create_cq(h, 5, 4, 1), NVME_OK, "a small CQ is made");
	is_status(create_sq(h, 5, 16, 5), NVME_OK, "a larger SQ is made");
	first = h->cid;
	h->q[5].entries = 16;
	for (i = 0; i < 15; i++)
		queue_put(h, 5, &cmd);
	queue_ring(h, 5);
	h->q[5].entries = 4;
	usleep(50000);
	for (i = 0; i < 3; i++) {
		a = queue_peek(h, 5, ANSWER_MS);
		wrong += a.status != NVME_OK ||
		    a.cid != (uint16_t)(first + n++);
	}
	is_int(wrong, 0, "three completions come");
	a = queue_peek(h, 5, 100);
	is_hex(a.status, ~0u, "and no more than have room");
	ring_doorbell(h, 11, h->q[5].head);
	while (n < 15) {
		a = queue_take(h, 5, ANSWER_MS);
		if (a.status != NVME_OK || a.cid != (uint16_t)(first + n))
			break;
		n++;
	}
	is_int(n, 15, "the others come when there is room, in order");
}

static void
test_disk(const char *doorbells, const char *file)
{
	struct host h;

	diag("doorbells: %s", doorbells);
	host_start(&h, (const char *const[]){ "--doorbells", doorbells,
	    "--serial", "SERIAL-1", "--model", "A model", "--ram", "8M",
	    "--block-size", "4096", "--ram", "8192k", "--block-size", "512",
	    "--file", file, NULL });
	is_str(strstr(h.line, ": 3"), ": 3 namespaces, 24 MiB",
	    "it says what it serves");
	host_connect(&h);
	ok((h.db != NULL) == (strcmp(doorbells, "map") == 0),
	    "the doorbells can be mapped or not, as asked");
	test_registers(&h);
	must(host_enable(&h));
	must(create_pair(&h, 1, 256));
	test_identify(&h);
	round_trips(&h, 1, 512, false, 600);
	round_trips(&h, 2, 4096, false, 300);
	round_trips(&h, 3, 512, false, 300);
	round_trips(&h, 1, 512, true, 300);
	round_trips(&h, 3, 512, true, 100);
	test_zeroes(&h, 1, 512);
	test_zeroes(&h, 2, 4096);
	test_zeroes(&h, 3, 512);
	test_flush(&h);
	test_parallel(&h);
	test_full_cq(&h);
	is_int(host_stop(&h, SIGTERM), 0, "SIGTERM ends it with success");
}

int
main(void)
{
	char file[] = "/tmp/example-nvme-file.XXXXXX";

	seed = t_env("T_SEED", (uint64_t)time(NULL));
	diag("T_SEED=%" PRIu64, seed);
	must(new_file(file, RAM_SIZE + 100));
	test_options();
	test_disk("map", file);
	test_disk("message", file);
	unlink(file);
	return (done());
}
