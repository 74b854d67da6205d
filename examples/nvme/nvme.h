/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef NVME_H
#define NVME_H

#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libmemtree/memtree.h>
#include <libvfudma/vfudma.h>

#include "spec.h"

/*
 * Everything but the file syncer runs on one thread, the one that calls
 * vd_server_run() and nvme_work().  Register accesses change registers and
 * nothing else; commands are executed by nvme_work(), between messages.
 */

#define NVME_QUEUES		65	/* the admin pair and 64 */
#define NVME_MQES		1023
#define NVME_MPSMAX		4	/* 64 KiB */
#define NVME_MDTS		8	/* 1 MiB */
#define NVME_MAX_XFER		(4096u << NVME_MDTS)
#define NVME_MAX_SEGS		1024	/* of one command; fits an iovec list */
#define NVME_MAX_NS		64
#define NVME_SQ_REQS		128	/* commands of one SQ under way */
#define NVME_POST_MAX		64	/* completions in one message */
#define NVME_JOBS		256	/* commands whose data is messages, */
#define NVME_JOB_BYTES		((size_t)64 << 20)	/* and their data */
#define NVME_JOB_DMA		32	/* accesses of one in flight */
#define NVME_AERS		4
#define NVME_EVENTS		8
#define NVME_ERRORS		64
#define NVME_TEMPERATURE	308	/* kelvin; a disk that keeps cool */
#define NVME_MISSING_NS		UINT64_C(5000000000)	/* a queue's memory */

#define NVME_MODEL		"memtree NVMe"
#define NVME_FIRMWARE		"0.1"

#define nvme_likely(x)		__builtin_expect(!!(x), 1)
#define nvme_unlikely(x)	__builtin_expect(!!(x), 0)

struct nvme_ctrl;
struct nvme_job;
struct nvme_ns;
struct nvme_sq;

/*
 * What executing a command came to: a status, to complete it with now, or one
 * of these.
 */
#define NVME_LATER	(-1)	/* somebody will complete or resume it */
#define NVME_NO_ROOM	(-2)	/* resume when another job has ended */
#define NVME_AGAIN	(-3)	/* has done a part: go on in the next slice */
#define NVME_DRAIN	(-4)	/* resume when an access has ended */
#define NVME_REMOTE	(-5)	/* its memory cannot be mapped: see job.c */

TAILQ_HEAD(nvme_jobs, nvme_job);
TAILQ_HEAD(nvme_reqs, nvme_req);

/* An access to guest memory that ends later; in its owner's memory. */
struct nvme_dma {
	struct mt_access acc;
	struct nvme_ctrl *c;
	LIST_ENTRY(nvme_dma) link;	/* while it is busy */
	struct mt_range range;
	void (*done)(struct nvme_dma *d, enum mt_result res);
	void *arg;			/* the owner's */
	bool is_write;
	bool busy;			/* in flight */
};

struct nvme_req {
	struct nvme_cmd cmd;
	struct nvme_sq *sq;
	struct nvme_cq *cq;		/* its SQ may get another meanwhile */
	TAILQ_ENTRY(nvme_req) link;
	struct nvme_reqs *list;		/* the one it is on, or NULL */
	struct nvme_job *job;		/* moves its data, or NULL */
	uint64_t pos;			/* bytes that are done already */
	size_t need;			/* NVME_NO_ROOM: of so many bytes */
	uint32_t result;		/* dword 0 of the completion */
	unsigned int flushed;		/* namespaces before it need no sync */
	bool busy;			/* not on its queue's free list */
};

/*
 * Queue memory.  It is looked at through a mapping that is dropped whenever
 * the memory may have changed, and made again by the next use; so nobody may
 * hold a pointer into it across a message.
 */
struct nvme_ring {
	mt_addr base;
	uint32_t entries;
	unsigned int shift;		/* log2 of the entry size */
	unsigned int dir;
	uint8_t *ptr;			/* of len bytes at byte off */
	size_t off;
	size_t len;
	struct mt_mapping map;
	bool slow;			/* nothing to map: by messages */
	bool stuck;			/* no access at all, until a change; */
					/*   or the controller has failed */
};

struct nvme_cq {
	struct nvme_ring ring;
	uint32_t head;
	uint32_t shown;			/* the guest has those before it */
	uint32_t tail;
	uint32_t reserved;		/* entries promised to commands */
	uint32_t bad_head;		/* last one complained about */
	uint16_t qid;
	uint16_t vector;
	uint16_t nsqs;
	uint8_t phase;
	bool live;
	bool ien;
	bool irq;			/* posted since the last interrupt */
	bool stopping;			/* being deleted */
	bool showing;			/* in the controller's shows[] */
	bool post_stale;		/* of a queue that is no more */
	struct nvme_dma post;
	unsigned int post_age;		/* the memory's when it began */
	uint32_t nposting;
	struct nvme_cqe posting[NVME_POST_MAX];
	struct nvme_cqe held[NVME_MQES + 1];	/* from shown to tail */
};

struct nvme_sq {
	struct nvme_ring ring;
	struct nvme_cq *cq;
	struct nvme_reqs free;
	uint32_t head;
	uint32_t tail;
	uint32_t bad_tail;
	uint16_t qid;
	bool live;
	bool stopping;			/* being deleted: fetch no more */
	unsigned int njobs;
	uint32_t next_fetched;		/* in fetched[], of nfetched */
	uint32_t nfetched;
	uint32_t nfetching;
	bool fetch_stale;		/* of a queue that is no more */
	struct nvme_dma fetch;
	unsigned int fetch_age;		/* the memory's when it began */
	struct nvme_cmd fetched[NVME_SQ_REQS];
	struct nvme_req reqs[NVME_SQ_REQS];
};

/* Guest memory that a command names, in order. */
struct nvme_seg {
	mt_addr addr;
	size_t len;
};

/*
 * The way through a command's data pointers.  While bytes is not 0 it stops
 * for a piece of a list: so many bytes at addr, to be copied to list before
 * they are looked at, as the guest may change them meanwhile.
 */
struct nvme_walk {
	mt_addr addr;
	size_t bytes;
	size_t want;			/* bytes of data */
	size_t len;			/* of them are in v */
	bool sgl;
	bool last;			/* SGL: in the last segment */
	unsigned int left;		/* SGL: descriptors still to be read */
	size_t todo;			/* SGL: those of this segment */
	unsigned int n;
	struct nvme_seg v[NVME_MAX_SEGS];
	union {
		uint64_t prp[512];
		struct nvme_sgl sgl[256];
	} list;
};

struct nvme_event {
	uint8_t type;
	uint8_t info;
	uint8_t log;
};

struct nvme_features {
	uint32_t arbitration;
	uint32_t power;
	uint32_t atomicity;
	uint32_t coalescing;
	uint32_t events;
	uint16_t over;			/* temperature thresholds */
	uint16_t under;
	bool write_cache;
	uint8_t acre;
	uint16_t nsqs;			/* allocated, not counting admin */
	uint16_t ncqs;
	bool no_coalescing[NVME_QUEUES];
	uint64_t timestamp;		/* ms, at timestamp_set */
	uint64_t timestamp_set;		/* our clock, ns */
	bool timestamp_host;		/* the host has set it */
};

struct nvme_stats {
	uint64_t sectors_read;		/* 512 bytes */
	uint64_t sectors_written;
	uint64_t reads;
	uint64_t writes;
	uint64_t busy_ns;
	uint64_t started_ns;
	uint64_t unsafe_shutdowns;
	uint64_t media_errors;
	uint64_t errors;
	uint64_t by_map;		/* commands whose data was mapped, */
	uint64_t by_message;		/*   or came in messages */
	uint64_t bytes_in;		/* asked for by messages, queues too */
	uint64_t bytes_out;		/* sent by messages */
};

struct nvme_options {
	const char *serial;
	const char *model;
	bool map_doorbells;
	bool verbose;
};

/* Work that one call of nvme_work() does, about 50 ns each. */
#define NVME_COST_COMMAND	8u
#define NVME_COST_SHIFT		9	/* bytes moved for one unit */

struct nvme_ctrl {
	struct vd_server *server;
	struct mt_topology *topology;
	struct mt_space *dma;
	struct mt_region *bar0;
	struct mt_region *bar4;
	struct mt_region *doorbell_region;
	_Atomic uint32_t *db;		/* shared with the guest, or own_db */
	_Atomic uint32_t own_db[1024];
	bool map_doorbells;
	bool verbose;
	char serial[21];
	char model[41];
	uint8_t uuid[16];		/* of the subsystem */

	uint64_t cap;
	uint32_t cc;
	uint32_t csts;
	uint32_t aqa;
	uint64_t asq;
	uint64_t acq;
	uint32_t intm;			/* INTMS and INTMC */
	unsigned int page_shift;
	bool stopping;			/* disabled, but for what is in flight */
	bool failed;			/* CFS is new: give up all commands */

	bool intr_dirty;
	bool intx;			/* level of the pin */
	bool master;			/* bus master enable, as last seen */
	bool retry;			/* memory has come: look at stuck CQs */
	uint64_t missing;		/* since when a queue's is, ns, or 0 */
	unsigned int nirqs;		/* CQs that want to interrupt */
	uint16_t irqs[NVME_QUEUES];

	unsigned int nactive;		/* live SQs but admin, in active[] */
	unsigned int next_active;	/* where the next slice starts */
	uint16_t active[NVME_QUEUES];
	struct nvme_cq cq[NVME_QUEUES];
	struct nvme_sq sq[NVME_QUEUES];

	struct nvme_reqs starved;	/* wait for room for a job */
	struct nvme_reqs again;		/* have more to do */
	struct nvme_reqs drain;		/* wait for accesses to end */
	bool feeding;			/* those that were starved */
	bool landed;			/* an access or a job has ended */

	LIST_HEAD(, nvme_dma) flying;	/* accesses in flight */
	unsigned int inflight;		/* so many */
	unsigned int memory_age;	/* counts changes of guest memory */
	struct nvme_jobs ready;		/* have something to do */
	struct nvme_jobs idle_jobs;
	unsigned int njobs;		/* that are not idle */
	size_t job_bytes;		/* of their data */
	unsigned int nshows;		/* CQs that hold entries to be shown */
	uint16_t shows[NVME_QUEUES];

	uint16_t aer_cid[NVME_AERS];
	unsigned int naers;
	struct nvme_event events[NVME_EVENTS];
	unsigned int nevents;
	uint8_t masked;			/* types of event whose log is unread */

	struct nvme_features feat;
	struct nvme_stats stats;
	struct nvme_error_entry errors[NVME_ERRORS];	/* ring, by count */

	struct nvme_ns *ns[NVME_MAX_NS];	/* nsid - 1 */
	unsigned int nns;
	struct nvme_sync *sync;		/* NULL if nothing needs it */

	/* For the command that is being executed. */
	uint64_t moved;			/* bytes, for the budget */
	struct nvme_walk walk;
	struct iovec iov[NVME_MAX_SEGS];
	struct mt_mapping maps[NVME_MAX_SEGS];
	uint8_t scratch[65536];
};

/* --- ctrl.c: registers and life cycle ------------------------------------- */

/* Create a controller and its server, which is not listening yet. */
struct nvme_ctrl *nvme_ctrl_create(struct mt_topology *t,
	    const struct nvme_options *opt);
void	nvme_ctrl_destroy(struct nvme_ctrl *c);
/* Takes ns over; before a client connects. */
int	nvme_ctrl_add_ns(struct nvme_ctrl *c, struct nvme_ns *ns);
extern const struct mt_io_ops nvme_reg_ops;
/* Go on with a shutdown when a file has been synced, or jobs have ended. */
void	nvme_shutdown_go_on(struct nvme_ctrl *c);
/* Nothing is in flight any more. */
void	nvme_ctrl_settled(struct nvme_ctrl *c);
/*
 * Have a fatal status: from here on no command is fetched and no completion
 * posted, until the host resets the controller.
 */
void	nvme_ctrl_fail(struct nvme_ctrl *c, const char *why);
void	nvme_log(struct nvme_ctrl *c, const char *fmt, ...)
	    __attribute__((format(printf, 2, 3)));
uint64_t nvme_now(void);

static inline bool
nvme_enabled(const struct nvme_ctrl *c)
{
	return ((c->csts & (NVME_CSTS_RDY | NVME_CSTS_CFS)) ==
	    NVME_CSTS_RDY && !c->stopping);
}

/* --- pci.c: how the controller looks on the bus --------------------------- */

int	nvme_pci_init(struct nvme_ctrl *c);
void	nvme_pci_fini(struct nvme_ctrl *c);

/* --- intr.c --------------------------------------------------------------- */

/* Completions were posted to cq: interrupt at the next update. */
void	nvme_intr_post(struct nvme_ctrl *c, struct nvme_cq *cq);
/* Bring interrupts up to date, if anything has changed that they show. */
void	nvme_intr_update(struct nvme_ctrl *c);
void	nvme_intr_reset(struct nvme_ctrl *c);

/* --- ring.c: queue memory ------------------------------------------------- */

void	nvme_ring_init(struct nvme_ring *r, mt_addr base, uint32_t entries,
	    unsigned int shift, unsigned int dir);
void	nvme_ring_drop(struct nvme_ring *r);
/* Copy the command at the head; false if it has to wait. */
bool	nvme_sq_fetch(struct nvme_ctrl *c, struct nvme_sq *sq,
	    struct nvme_cmd *cmd);
void	nvme_sq_forget(struct nvme_sq *sq);
/* Post an entry, for which there must be room. */
void	nvme_cq_post(struct nvme_ctrl *c, struct nvme_cq *cq,
	    const struct nvme_cqe *cqe);
/* Send what could not be written in place; at the end of a pass. */
void	nvme_cqs_show(struct nvme_ctrl *c);
/* Try again to reach its memory. */
void	nvme_cq_unstick(struct nvme_ctrl *c, struct nvme_cq *cq);
/* Drop its memory; what is in flight is given up now, or no more its own. */
void	nvme_cq_forget(struct nvme_cq *cq, bool now);

/* --- dma.c: accesses to guest memory that end later ----------------------- */

/*
 * Begin an access; fn is called at its end, which may be before this returns.
 * Returns 0, or -1 if there is no memory for it.
 */
int	nvme_dma_start(struct nvme_ctrl *c, struct nvme_dma *d, mt_addr addr,
	    void *buf, size_t len, bool is_write,
	    void (*fn)(struct nvme_dma *d, enum mt_result res));
/* Give it up, with MT_DEVICE.  It is still busy if that is impossible. */
void	nvme_dma_cancel(struct nvme_dma *d);
/* Those that touch range; of writes to guest memory only if so asked. */
void	nvme_dma_cancel_all(struct nvme_ctrl *c, struct mt_range range,
	    bool writes);

/* --- queue.c -------------------------------------------------------------- */

/*
 * Do about budget units of work, counting a look at the doorbells that finds
 * nothing as one; end after spin of those.  Returns whether it found any.
 */
bool	nvme_work(struct nvme_ctrl *c, unsigned int budget, unsigned int spin);
/* Does anything happen that no message tells of? */
bool	nvme_polling(const struct nvme_ctrl *c);
/* In how many ns there will be something to do even so; -1: never. */
int64_t	nvme_deadline(const struct nvme_ctrl *c, uint64_t now);

void	nvme_cq_start(struct nvme_ctrl *c, unsigned int qid, mt_addr base,
	    uint32_t entries, bool ien, unsigned int vector);
void	nvme_sq_start(struct nvme_ctrl *c, unsigned int qid, mt_addr base,
	    uint32_t entries, unsigned int cqid);
/* End a queue; false if that has to wait for accesses: call again. */
bool	nvme_cq_stop(struct nvme_ctrl *c, unsigned int qid);
bool	nvme_sq_stop(struct nvme_ctrl *c, unsigned int qid);
/*
 * Forget all queues and commands, and whatever the doorbells say.  What is
 * being written to guest memory is given up now, or it is still in flight.
 */
void	nvme_queues_reset(struct nvme_ctrl *c, bool now);
/* Memory in range goes (map it no more), or something came (try again). */
void	nvme_queues_unmap(struct nvme_ctrl *c, struct mt_range range);
void	nvme_queues_retry(struct nvme_ctrl *c);
/* Have no queue's memory accessed any more. */
void	nvme_queues_stick(struct nvme_ctrl *c);
/* Read what the guest wrote to a CQ's doorbell. */
void	nvme_cq_scan(struct nvme_ctrl *c, struct nvme_cq *cq);
/* Are there entries that the guest can see and has not taken? */
bool	nvme_cq_unread(const struct nvme_cq *cq);
/* Entries that nothing has been promised yet. */
uint32_t nvme_cq_room(const struct nvme_cq *cq);

void	nvme_exec(struct nvme_ctrl *c, struct nvme_req *req);
void	nvme_complete(struct nvme_ctrl *c, struct nvme_req *req, int status);
void	nvme_abort(struct nvme_ctrl *c, struct nvme_req *req, int status);
void	nvme_req_queue(struct nvme_reqs *list, struct nvme_req *req);
void	nvme_req_unqueue(struct nvme_req *req);
struct nvme_req *nvme_req_find(struct nvme_sq *sq, uint16_t cid);
/* End a request without a completion: an AER that is kept elsewhere. */
void	nvme_req_release(struct nvme_req *req);

/* --- prp.c, sgl.c: data pointers to segments ------------------------------ */

int	nvme_walk_add(struct nvme_walk *w, mt_addr addr, size_t len);
int	nvme_prp_begin(const struct nvme_ctrl *c, struct nvme_walk *w,
	    const struct nvme_cmd *cmd);
int	nvme_prp_feed(const struct nvme_ctrl *c, struct nvme_walk *w);
int	nvme_sgl_begin(struct nvme_walk *w, const struct nvme_cmd *cmd);
int	nvme_sgl_feed(struct nvme_walk *w);

/* --- xfer.c: moving a command's data -------------------------------------- */

/*
 * Called with bytes pos to pos + len of the data, in guest memory that is
 * mapped or in a buffer; n iovecs, which it may change.  Returns a status.
 */
typedef int nvme_xfer_fn(void *arg, struct iovec *iov, unsigned int n,
	    uint64_t pos, size_t len);

struct nvme_xfer {
	size_t len;
	unsigned int dir;	/* what we do to guest memory: MT_DMA_* */
	nvme_xfer_fn *fn;
	void *arg;
	uint8_t *mem;		/* MT_DMA_WRITE: all of it, if it stays there */
};

/*
 * Move a command's data, or begin to: what then is returned is NVME_LATER or
 * NVME_NO_ROOM, and the command is executed again when it is known how that
 * ended, which the second call returns.  The same data may be moved twice.
 */
int	nvme_xfer(struct nvme_ctrl *c, struct nvme_req *req,
	    const struct nvme_xfer *x);
/* The same between buf and what the command points at. */
int	nvme_xfer_buf(struct nvme_ctrl *c, struct nvme_req *req,
	    unsigned int dir, void *buf, size_t len);
/* Begin with a command's data pointers; go on when w->list was read. */
int	nvme_walk_begin(const struct nvme_ctrl *c, struct nvme_walk *w,
	    const struct nvme_cmd *cmd, size_t len);
int	nvme_walk_feed(const struct nvme_ctrl *c, struct nvme_walk *w);

/* --- job.c: moving it by messages ----------------------------------------- */

int	nvme_job_start(struct nvme_ctrl *c, struct nvme_req *req,
	    const struct nvme_xfer *x);
int	nvme_job_end(struct nvme_ctrl *c, struct nvme_req *req,
	    const struct nvme_xfer *x);
/* Have the command end with status as soon as nothing is in flight. */
void	nvme_job_abort(struct nvme_job *job, int status);
/* The command needs it no more. */
void	nvme_job_leave(struct nvme_job *job);
/* Go on with jobs; returns the work done. */
unsigned int nvme_jobs_run(struct nvme_ctrl *c, unsigned int budget);
/* Execute those that found no room, while there is some. */
unsigned int nvme_jobs_feed(struct nvme_ctrl *c);
void	nvme_jobs_fini(struct nvme_ctrl *c);

/* --- admin.c, identify.c, log.c, feature.c, event.c ----------------------- */

int	nvme_admin(struct nvme_ctrl *c, struct nvme_req *req);
int	nvme_identify(struct nvme_ctrl *c, struct nvme_req *req);
int	nvme_get_log(struct nvme_ctrl *c, struct nvme_req *req);
void	nvme_log_error(struct nvme_ctrl *c, struct nvme_req *req, int status);
void	nvme_features_reset(struct nvme_ctrl *c);
int	nvme_get_feature(struct nvme_ctrl *c, struct nvme_req *req);
int	nvme_set_feature(struct nvme_ctrl *c, struct nvme_req *req);
/* The critical warnings of now. */
uint8_t	nvme_warnings(const struct nvme_ctrl *c);
void	nvme_event(struct nvme_ctrl *c, uint8_t type, uint8_t info,
	    uint8_t log);
void	nvme_event_read(struct nvme_ctrl *c, uint8_t type);
void	nvme_event_deliver(struct nvme_ctrl *c);
int	nvme_aer(struct nvme_ctrl *c, struct nvme_req *req);
bool	nvme_aer_abort(struct nvme_ctrl *c, uint16_t cid);

/* --- io.c ----------------------------------------------------------------- */

int	nvme_io(struct nvme_ctrl *c, struct nvme_req *req);
/*
 * Have a namespace, or all of them, synced: NVME_OK if there is nothing to
 * wait for, else req is executed once more when there may be no more.
 */
int	nvme_flush(struct nvme_ctrl *c, struct nvme_req *req, uint32_t nsid);
/* A sync of ns has ended, with 0 or an errno. */
void	nvme_flush_done(struct nvme_ctrl *c, struct nvme_ns *ns, int error);

/* --- ns.c: where the blocks are ------------------------------------------- */

struct nvme_ns {
	struct nvme_ctrl *ctrl;
	uint32_t nsid;
	unsigned int shift;		/* log2 of the block size */
	uint64_t blocks;
	uint8_t *ram;			/* NULL: a file */
	size_t ram_len;
	int fd;
	char *path;
	bool dirty;			/* written since a sync was started */
	bool syncing;
	int error;			/* an errno: data was lost, for good */
	struct nvme_reqs flush_now;	/* the sync under way serves these */
	struct nvme_reqs flush_next;	/* they came too late for it */
	uint16_t recovery;		/* feature 05h, time limit */
};

struct nvme_ns *nvme_ns_ram(uint64_t size, unsigned int shift);
struct nvme_ns *nvme_ns_file(const char *path, unsigned int shift);
void	nvme_ns_destroy(struct nvme_ns *ns);
uint64_t nvme_ns_size(const struct nvme_ns *ns);
/* Where byte off is in memory; NULL for a file. */
uint8_t	*nvme_ns_ptr(const struct nvme_ns *ns, uint64_t off);
bool	nvme_ns_is_file(const struct nvme_ns *ns);
/* All return a status; off is bytes from the start of the namespace. */
int	nvme_ns_read(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
	    unsigned int n, size_t len);
int	nvme_ns_write(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
	    unsigned int n, size_t len);
int	nvme_ns_compare(struct nvme_ns *ns, uint64_t off, struct iovec *iov,
	    unsigned int n, size_t len);
int	nvme_ns_zero(struct nvme_ns *ns, uint64_t off, uint64_t len,
	    bool deallocate);
int	nvme_ns_deallocate(struct nvme_ns *ns, uint64_t off, uint64_t len);
/* Sync a file on the syncer's thread; nvme_flush_done() will tell. */
void	nvme_ns_start_sync(struct nvme_ns *ns);
/*
 * On this thread, for the end of the program: 0, or the errno of this or any
 * earlier sync.
 */
int	nvme_ns_sync(struct nvme_ns *ns);

/* --- sync.c: fdatasync(2) on a thread of its own -------------------------- */

struct nvme_sync *nvme_sync_create(void);
/* End the thread, when the sync that it is at has ended; reap once more. */
void	nvme_sync_stop(struct nvme_sync *y);
void	nvme_sync_destroy(struct nvme_sync *y);
/* Readable when nvme_sync_reap() has something to tell. */
int	nvme_sync_fd(const struct nvme_sync *y);
void	nvme_sync_start(struct nvme_sync *y, unsigned int i, int fd);
void	nvme_sync_reap(struct nvme_ctrl *c);

#endif
