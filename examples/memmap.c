/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */

/*
 * Build the memory map of a PC and write what the library can show of it: the
 * tree and the view as text, the tree as a graph, the view as a picture.
 */

#include <sys/stat.h>

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libmemtree/memtree.h>

#define KIB		((mt_addr)1 << 10)
#define MIB		((mt_addr)1 << 20)
#define GIB		((mt_addr)1 << 30)

#define RAM_SIZE	(4 * GIB)
#define LOW_RAM_SIZE	0xb0000000u	/* what is below the PCI hole */

static struct mt_topology *topology;
static struct mt_region *sys, *pci;

static enum mt_result
zero_read(void *arg, mt_addr off, unsigned int size, uint64_t *val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)attrs;
	*val = 0;
	return (MT_OK);
}

static enum mt_result
no_write(void *arg, mt_addr off, unsigned int size, uint64_t val,
    struct mt_attrs attrs)
{
	(void)arg, (void)off, (void)size, (void)val, (void)attrs;
	return (MT_OK);
}

/* What all devices do here, where nobody accesses them. */
static const struct mt_io_ops ops = {
	.read = zero_read, .write = no_write, .endian = MT_LITTLE,
};

static struct mt_region *
made(struct mt_region *r)
{
	if (r == NULL)
		err(1, "cannot make a region");
	return (r);
}

/* Place r in parent, which keeps it, and lend it. */
static struct mt_region *
place(struct mt_region *parent, mt_addr off, int prio, struct mt_region *r)
{
	if (mt_region_add(parent, made(r), off, prio) == -1)
		err(1, "%s", mt_region_name(r));
	mt_region_put(r);
	return (r);
}

static struct mt_region *
io(const char *name, mt_addr size)
{
	return (mt_region_create_io(topology, name, MT_SIZE(size), &ops,
	    NULL));
}

static struct mt_region *
alias(const char *name, struct mt_region *target, mt_addr off, mt_addr size)
{
	return (mt_region_create_alias(topology, name, target, off,
	    MT_SIZE(size)));
}

/* Memory takes no room until it is written: it is a sparse file. */
static struct mt_region *
ram(const char *name, mt_addr size)
{
	const struct mt_backing memfd = { .kind = MT_BACKING_MEMFD };

	return (mt_region_create_ram(topology, name, MT_SIZE(size), &memfd));
}

/* One RAM, which is seen below the PCI hole and above 4 GiB. */
static void
build_ram(void)
{
	struct mt_region *all = made(ram("pc.ram", RAM_SIZE)), *nvdimm;

	place(sys, 0, 0, alias("ram-below-4g", all, 0, LOW_RAM_SIZE));
	place(sys, 4 * GIB, 0, alias("ram-above-4g", all, LOW_RAM_SIZE,
	    RAM_SIZE - LOW_RAM_SIZE));
	nvdimm = place(sys, 8 * GIB, 0, ram("nvdimm0", 256 * MIB));
	if (mt_region_set_nonvolatile(nvdimm, true) == -1)
		err(1, "mt_region_set_nonvolatile");
	mt_region_put(all);
}

/* Flash below 4 GiB, whose end is seen below 1 MiB, too. */
static void
build_firmware(void)
{
	struct mt_region *flash, *r;

	flash = place(sys, 4 * GIB - 4 * MIB, 0,
	    mt_region_create_rom_device(topology, "pc.flash",
	    MT_SIZE(4 * MIB), NULL, &ops, NULL));
	r = place(sys, 0xe0000, 1, alias("isa-bios", flash,
	    4 * MIB - 128 * KIB, 128 * KIB));
	if (mt_region_set_readonly(r, true) == -1)
		err(1, "mt_region_set_readonly");
	place(sys, 0xc0000, 1, mt_region_create_rom(topology, "vga.rom",
	    MT_SIZE(36 * KIB), NULL));
	/* Unlocked only while the processor is in system management mode. */
	r = place(sys, 0xa0000, 2, mt_region_create_ram(topology, "smram",
	    MT_SIZE(128 * KIB), NULL));
	if (mt_region_set_enabled(r, false) == -1)
		err(1, "mt_region_set_enabled");
}

static void
build_chipset(void)
{
	place(sys, 0xfec00000, 0, io("ioapic", 4 * KIB));
	place(sys, 0xfed00000, 0, io("hpet", KIB));
	place(sys, 0xfed1c000, 0, io("rcba", 16 * KIB));
	place(sys, 0xfed40000, 0, mt_region_create_reserved(topology, "tpm",
	    MT_SIZE(20 * KIB)));
	place(sys, 0xfee00000, 4096, io("lapic", MIB));
	place(sys, LOW_RAM_SIZE, 0, io("pcie-ecam", 256 * MIB));
}

/*
 * The PCI bus is behind everything else, and shows through where nothing else
 * is; but its window for VGA is in front of the RAM.
 */
static void
build_pci(void)
{
	struct mt_region *bar;

	pci = place(sys, 0, -1, mt_region_create_container(topology, "pci",
	    MT_LAST_MAX));
	place(sys, 0xa0000, 1, alias("vga-window", pci, 0xa0000, 128 * KIB));
	place(pci, 0xa0000, 1, io("vga.legacy", 128 * KIB));
	place(pci, 0xc0000000, 1, ram("vga.vram", 16 * MIB));
	place(pci, 0xfeb40000, 1, io("e1000.mmio", 128 * KIB));
	place(pci, 0xfeb80000, 1, io("vga.mmio", 4 * KIB));
	bar = place(pci, 0xfeb84000, 1, mt_region_create_container(topology,
	    "nvme.bar0", MT_SIZE(16 * KIB)));
	place(bar, 0, 0, io("nvme.regs", 4 * KIB));
	place(bar, 0x1000, 0, ram("nvme.doorbells", 4 * KIB));
	place(bar, 0x2000, 0, io("nvme.msix-table", KIB));
	place(bar, 0x3000, 0, io("nvme.msix-pba", 8));
	/* A card that is passed through: its memory is mapped from it. */
	place(pci, 0x4000000000, 1, mt_region_create_ram_device(topology,
	    "gpu.bar2", MT_SIZE(256 * MIB), NULL));
}

static void
write_file(const char *dir, const char *name, struct mt_space *sp,
    int (*tree)(FILE *, struct mt_region *),
    int (*view)(FILE *, struct mt_space *))
{
	char *path;
	FILE *fp;

	if (asprintf(&path, "%s/%s", dir, name) == -1)
		err(1, "asprintf");
	if ((fp = fopen(path, "w")) == NULL)
		err(1, "%s", path);
	if ((tree != NULL ? tree(fp, sys) : view(fp, sp)) == -1 ||
	    fclose(fp) == EOF)
		err(1, "%s", path);
	puts(path);
	free(path);
}

int
main(int argc, char *argv[])
{
	const char *dir = NULL;
	static const char usage[] = "usage: memmap -o directory\n"
	    "Builds the memory map of a PC, and writes its tree and its flat "
	    "view into the\ndirectory: tree.txt, tree.dot, view.txt, view.svg.";
	static const struct option options[] = {
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct mt_space *sp;
	int c;

	while ((c = getopt_long(argc, argv, "ho:", options, NULL)) != -1) {
		switch (c) {
		case 'h':
			printf("%s\n", usage);
			return (0);
		case 'o':
			dir = optarg;
			break;
		default:
			return (2);
		}
	}
	if (dir == NULL || optind != argc)
		errx(2, "%s", usage);
	if (mkdir(dir, 0777) == -1 && errno != EEXIST)
		err(1, "%s", dir);
	if ((topology = mt_topology_create()) == NULL)
		err(1, "mt_topology_create");
	sys = made(mt_region_create_container(topology, "system",
	    MT_LAST_MAX));
	/* As one change: the space's view is made once. */
	if (mt_topology_begin(topology) == -1)
		err(1, "mt_topology_begin");
	if ((sp = mt_space_create(sys, "memory")) == NULL)
		err(1, "mt_space_create");
	build_ram();
	build_firmware();
	build_chipset();
	build_pci();
	if (mt_topology_commit(topology) == -1)
		err(1, "mt_topology_commit");

	write_file(dir, "tree.txt", sp, mt_dump_tree, NULL);
	write_file(dir, "tree.dot", sp, mt_dump_dot, NULL);
	write_file(dir, "view.txt", sp, NULL, mt_dump_view);
	write_file(dir, "view.svg", sp, NULL, mt_dump_svg);

	if (mt_space_destroy(sp) == -1)
		err(1, "mt_space_destroy");
	mt_region_put(sys);
	if (mt_topology_destroy(topology) == -1)
		err(1, "mt_topology_destroy");
	return (0);
}
