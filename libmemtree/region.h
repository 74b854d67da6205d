/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef LIBMEMTREE_REGION_H
#define LIBMEMTREE_REGION_H

#include <sys/types.h>

#include <libmemtree/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mt_piece;
struct mt_topology;

/*
 * A piece of a memory map.  Regions are reference counted: every create
 * function returns one with one reference, which the caller gives back with
 * mt_region_put().  A parent holds a reference to each child, an alias one to
 * its target, a space one to its root, a view, section or mapping one to each
 * region in it.  Any region may have subregions; they win over what it shows
 * itself.
 */
struct mt_region;

enum mt_kind {
	MT_CONTAINER,		/* shows its subregions only */
	MT_ALIAS,		/* a window onto another region */
	MT_RAM,			/* host memory, read and written in place */
	MT_ROM,			/* host memory, read in place, not written */
	MT_ROM_DEVICE,		/* read in place in ROM mode, else by callback */
	MT_RAM_DEVICE,		/* registers that are mapped: see below */
	MT_IO,			/* callbacks */
	MT_RESERVED,		/* claims its addresses, answers no access */
	MT_IOMMU,		/* leads elsewhere: see iommu.h */
};

/* Byte order of a device's registers. */
enum mt_endian {
	MT_LITTLE,
	MT_BIG,
	MT_HOST,
};

/* Access widths in bytes, powers of two up to 8; 0 means not given. */
struct mt_width {
	uint8_t min;
	uint8_t max;
	bool unaligned;
};

/*
 * The callbacks of an I/O region or ROM device.  valid says what the device
 * accepts from the bus (max 0: anything; a longer access is cut to 4-byte
 * steps), impl what the callbacks implement (min 0: 1; max 0: 4); an access
 * is split or widened to fit.  off is the offset in the region; size is 1, 2,
 * 4 or 8; val is in host order, in its low size bytes.
 *
 * An access is cut at the end of the region, so callbacks see no offset past
 * it.  qemu_exact asks for what QEMU does instead, for models that depend on
 * it: an access that begins inside reaches its callback whole; one to a ROM
 * device in ROM mode goes on to the end of the last page of its memory, also
 * where something else is in front of it; mt_space_valid() measures steps by
 * the address in the space, not by the offset.
 *
 * read_buf and write_buf move any number of bytes, in address order, in one
 * call.  They get what falls to one section of an access of more than 8 bytes,
 * and of a shorter one if the callback for single values is NULL.  valid,
 * impl, endian and accepts have no part in that: any offset and length inside
 * the region may come.  read_buf sets all of buf; it reads as zero if the
 * answer is not MT_OK.
 *
 * submit_buf begins what read_buf and write_buf would do, and does not wait:
 * mt_access_complete(piece, result) ends it, then or later, on any thread.
 * buf is valid until then; a write only reads it.  Accesses that were
 * submitted use this one, others the other two, or this one if there is no
 * other, and wait, at their end, for all that were so begun.  cancel_buf gives
 * a piece up: true if it will neither touch its buffer nor complete it any
 * more; false if it is too late, which may be because it is being or has been
 * completed.
 *
 * Context: the accessing thread, inside a read-side section, with no lock of
 *          the library held, but with that of mt_region_set_lock().
 *          Accesses, mt_dma_map() and changes of the tree are allowed;
 *          mt_topology_sync() is not, nor is waiting for a thread that calls
 *          it.
 * Since:   0.1
 */
struct mt_io_ops {
	enum mt_result (*read)(void *arg, mt_addr off, unsigned int size,
	    uint64_t *val, struct mt_attrs attrs);
	enum mt_result (*write)(void *arg, mt_addr off, unsigned int size,
	    uint64_t val, struct mt_attrs attrs);
	bool (*accepts)(void *arg, mt_addr off, unsigned int size,
	    bool is_write, struct mt_attrs attrs);	/* NULL: all */
	enum mt_endian endian;
	bool qemu_exact;
	struct mt_width valid;
	struct mt_width impl;
	enum mt_result (*read_buf)(void *arg, mt_addr off, void *buf,
	    size_t len, struct mt_attrs attrs);
	enum mt_result (*write_buf)(void *arg, mt_addr off, const void *buf,
	    size_t len, struct mt_attrs attrs);
	void (*submit_buf)(void *arg, mt_addr off, void *buf, size_t len,
	    bool is_write, struct mt_attrs attrs, struct mt_piece *piece);
	bool (*cancel_buf)(void *arg, struct mt_piece *piece);
};

/* Where the bytes of RAM, ROM, ROM devices and RAM devices live. */
enum mt_backing_kind {
	MT_BACKING_ANON,	/* private zeroed memory */
	MT_BACKING_MEMFD,	/* a new memfd: can be shared by its fd */
	MT_BACKING_PTR,		/* the caller's memory, never freed by us */
	MT_BACKING_FD,		/* the caller's file, mapped shared */
};

#define MT_BACKING_RDONLY	(1u << 0)	/* never written, map PROT_READ */
#define MT_BACKING_KEEP_FD	(1u << 1)	/* see mt_region_fd() */

struct mt_backing {
	enum mt_backing_kind kind;
	unsigned int flags;		/* MT_BACKING_* bits */
	void *ptr;			/* MT_BACKING_PTR */
	int fd;				/* MT_BACKING_FD */
	off_t fd_off;			/* byte in fd of the region's offset 0 */
	mt_addr max_last;		/* may grow up to this; 0: not */
};

/*
 * Create a region that shows nothing but its subregions, or one that claims
 * its addresses and answers every access with MT_DECODE.
 *
 * Units:   last is the offset of the last byte: MT_SIZE(bytes).
 * Owns:    name is copied; one reference to the caller.
 * Context: any thread.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOMEM.
 * Since:   0.1
 */
struct mt_region *mt_region_create_container(struct mt_topology *t,
	    const char *name, mt_addr last);
struct mt_region *mt_region_create_reserved(struct mt_topology *t,
	    const char *name, mt_addr last);

/*
 * Create a window onto target that starts at target's offset off.  What lies
 * past the end of target is a hole.
 *
 * Units:   off is bytes from the start of target; last as above.
 * Owns:    keeps a reference to target; one reference to the caller.
 * Context: any thread.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOMEM, EXDEV (target is of another topology).
 * Since:   0.1
 */
struct mt_region *mt_region_create_alias(struct mt_topology *t,
	    const char *name, struct mt_region *target, mt_addr off,
	    mt_addr last);

/*
 * Create RAM or ROM over backing; NULL means MT_BACKING_ANON.  The bytes of a
 * ROM are set through mt_region_ptr(), mt_space_write_rom() or a backing that
 * holds them already.
 *
 * With backing->max_last the region can be resized up to that.  All of it is
 * there from the beginning and stays where it is: what is mapped, cached or
 * pointed to stays valid, and bytes that were cut off come back as they were.
 *
 * Units:   last and max_last as above; at most PTRDIFF_MAX bytes in all.
 * Owns:    the caller keeps backing and its fd, which is not needed once this
 *          returns; MT_BACKING_PTR memory must live until the region is
 *          released (see mt_region_set_owner()).
 * Context: any thread.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOMEM, EINVAL (a NULL ptr, unknown flags, an unaligned or
 *          negative fd_off, max_last below last), EFBIG (too long to
 *          map), and those of mmap(2) and memfd_create(2).
 * Since:   0.1
 */
struct mt_region *mt_region_create_ram(struct mt_topology *t,
	    const char *name, mt_addr last, const struct mt_backing *backing);
struct mt_region *mt_region_create_rom(struct mt_topology *t,
	    const char *name, mt_addr last, const struct mt_backing *backing);

/*
 * Create a RAM device: registers of real hardware, or of another process,
 * that are mapped, as a PCI BAR is.  Each access is one load or store of 1, 2,
 * 4 or 8 bytes, aligned; longer or unaligned ones are cut into the largest
 * such pieces, in address order.  Nothing is ever copied in bulk, nor lent:
 * mt_dma_map() takes a bounce buffer, and caches go the long way.
 *
 * Owns, Context, Returns, Errors: as above, and EINVAL for a ptr that is not
 *          aligned to 8 bytes.
 * Since:   0.1
 */
struct mt_region *mt_region_create_ram_device(struct mt_topology *t,
	    const char *name, mt_addr last, const struct mt_backing *backing);

/*
 * Create a ROM device: in ROM mode, in which it starts, reads are served from
 * memory and writes by ops->write; out of it both go to ops.
 *
 * Owns:    ops must live until the region is released, arg as the callbacks
 *          need it; the rest as above.
 * Returns, Errors: as above, and EINVAL for ops that make no sense.
 * Since:   0.1
 */
struct mt_region *mt_region_create_rom_device(struct mt_topology *t,
	    const char *name, mt_addr last, const struct mt_backing *backing,
	    const struct mt_io_ops *ops, void *arg);

/*
 * Create an I/O region, whose accesses call ops with arg.  A NULL callback
 * answers MT_DECODE.
 *
 * Owns:    ops must live until the region is released.
 * Context: any thread.
 * Returns: the region, or NULL with errno set.
 * Errors:  ENOMEM, EINVAL (a width that is no power of two up to 8, or min
 *          above a max that is given).
 * Since:   0.1
 */
struct mt_region *mt_region_create_io(struct mt_topology *t, const char *name,
	    mt_addr last, const struct mt_io_ops *ops, void *arg);

/*
 * Take or give back a reference.  When the last one is gone the region is
 * released by the topology's reclaimer, after every reader has left it: its
 * subregions become orphans, its memory is unmapped, its owner is put.
 *
 * Context: any thread, callbacks included; never blocks.  NULL is ignored.
 * Since:   0.1
 */
struct mt_region *mt_region_get(struct mt_region *r);
void	mt_region_put(struct mt_region *r);

/*
 * Hand a reference to owner over to r, so that owner outlives it: put(owner)
 * is called once, when r is released.  Replaces nothing: one owner a region.
 *
 * Owns:    r, from now on, the reference that the caller took for it.
 * Context: put runs on a thread of the reclaimer, one at a time, with no lock
 *          held; it may put other regions and change the tree, and must not
 *          wait for the reclaimer.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (has an owner), EINVAL (put is NULL).
 * Since:   0.1
 */
int	mt_region_set_owner(struct mt_region *r, void *owner,
	    void (*put)(void *owner));

/*
 * Have fn(arg, r, last) called after each commit that gave r another size than
 * it had before, once a commit, with the size that it has now.
 *
 * Context: fn runs on the committing thread, after the new views are published
 *          and the listeners called, with no lock of the library held and the
 *          transaction over; it may do what the caller of the commit may,
 *          resize r again included.  Of two threads that commit, the one that
 *          was later may call first: mt_region_last() tells what is true now.
 * Returns: 0, or -1 with errno set.
 * Errors:  EBUSY (there is one), EINVAL (fn is NULL), ENOMEM.
 * Since:   0.1
 */
int	mt_region_set_resized(struct mt_region *r,
	    void (*fn)(void *arg, struct mt_region *r, mt_addr last),
	    void *arg);

/*
 * Make child visible in parent at off.  Among siblings that overlap the
 * higher prio wins, and the latest added among equals.  What lies past the
 * end of parent, or past 2^64, is clipped, not rejected.
 *
 * Units:   off is bytes from the start of parent.
 * Owns:    parent takes a reference to child until mt_region_del().
 * Context: this and all changes below take the topology's writer lock, so
 *          they wait for other writers; not from a listener.
 * Returns: 0, or -1 with errno set and the tree unchanged.
 * Errors:  EBUSY (child has a parent), ELOOP (child contains or shows
 *          parent), EXDEV (of two topologies), ENOMEM, EAGAIN (see
 *          mt_topology_commit()), EDEADLK (from a listener).
 * Since:   0.1
 */
int	mt_region_add(struct mt_region *parent, struct mt_region *child,
	    mt_addr off, int prio);

/*
 * Take child out of its parent and drop the parent's reference.
 *
 * Returns: 0, or -1 with errno set and the tree unchanged.
 * Errors:  ENOENT (has no parent), ENOMEM, EAGAIN, EDEADLK.
 * Since:   0.1
 */
int	mt_region_del(struct mt_region *child);

/*
 * Change a region in place.  A move to another offset also puts the region in
 * front of its equals, as taking it out and adding it again would.  What has
 * memory can be resized up to mt_region_max_last().  ROM is and stays
 * read-only.  What is read-only on the way refuses writes to memory;
 * the callbacks of a device behind it are called all the same.  What is
 * unmergeable on the way makes sections that never join a neighbour: each is
 * what one region shows in one place, as far as nothing is in front of it.
 *
 * Returns: 0, or -1 with errno set and the tree unchanged.
 * Errors:  EINVAL (not for this kind, or too large), ENOENT (move of a region
 *          without a parent), ENOMEM, EAGAIN, EDEADLK.
 * Since:   0.1
 */
int	mt_region_move(struct mt_region *r, mt_addr off);
int	mt_region_resize(struct mt_region *r, mt_addr last);
int	mt_region_set_enabled(struct mt_region *r, bool enabled);
int	mt_region_set_readonly(struct mt_region *r, bool readonly);
int	mt_region_set_nonvolatile(struct mt_region *r, bool nonvolatile);
int	mt_region_set_unmergeable(struct mt_region *r, bool unmergeable);
int	mt_region_set_rom_mode(struct mt_region *r, bool rom_mode);
int	mt_region_set_alias_offset(struct mt_region *r, mt_addr off);

/*
 * Look at a region.  mt_region_parent() and mt_region_target() lend, they
 * give no reference.  mt_region_ptr() is the host memory of RAM, ROM, ROM and
 * RAM devices, or NULL.  mt_region_arg() is the arg of its callbacks.
 * mt_region_max_last() is how large it can be made.
 *
 * Context: any thread.  What a change can change is read under the writer
 *          lock, so it waits for the transaction of another thread; hold one
 *          to see several things as one.
 * Since:   0.1
 */
const char *mt_region_name(const struct mt_region *r);
enum mt_kind mt_region_kind(const struct mt_region *r);
mt_addr	mt_region_last(const struct mt_region *r);
mt_addr	mt_region_max_last(const struct mt_region *r);
mt_addr	mt_region_addr(const struct mt_region *r);
int	mt_region_prio(const struct mt_region *r);
bool	mt_region_enabled(const struct mt_region *r);
bool	mt_region_readonly(const struct mt_region *r);
bool	mt_region_nonvolatile(const struct mt_region *r);
bool	mt_region_unmergeable(const struct mt_region *r);
bool	mt_region_rom_mode(const struct mt_region *r);
mt_addr	mt_region_alias_offset(const struct mt_region *r);
struct mt_region *mt_region_parent(const struct mt_region *r);
struct mt_region *mt_region_target(const struct mt_region *r);
struct mt_topology *mt_region_topology(const struct mt_region *r);
void	*mt_region_ptr(const struct mt_region *r);
void	*mt_region_arg(const struct mt_region *r);

/*
 * The file behind the memory of a region: a memfd, or the library's own copy
 * of a caller's fd given with MT_BACKING_KEEP_FD.
 *
 * Units:   *off, unless NULL, is set to the byte of the file at offset 0.
 * Owns:    lends: the fd is closed when the region is released.
 * Returns: the fd, or -1 with errno set.
 * Errors:  ENOENT (there is none).
 * Since:   0.1
 */
int	mt_region_fd(const struct mt_region *r, off_t *off);

#ifdef __cplusplus
}
#endif

#endif
