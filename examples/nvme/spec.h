/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

#include <stddef.h>
#include <stdint.h>

/*
 * What NVM Express 1.4 puts on the wire: registers, commands, completions and
 * data structures, as far as this controller has them.  All of it is little
 * endian, and so must be the host.
 */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
    "the wire structs are used as they are");

#define NVME_VERSION		0x00010400u
#define NVME_NSID_ALL		0xffffffffu

/* --- registers ------------------------------------------------------------ */

#define NVME_REG_CAP		0x00
#define NVME_REG_VS		0x08
#define NVME_REG_INTMS		0x0c
#define NVME_REG_INTMC		0x10
#define NVME_REG_CC		0x14
#define NVME_REG_CSTS		0x1c
#define NVME_REG_AQA		0x24
#define NVME_REG_ASQ		0x28
#define NVME_REG_ACQ		0x30
#define NVME_REG_DOORBELLS	0x1000

#define NVME_CAP_MQES(n)	((uint64_t)(n))
#define NVME_CAP_CQR		(UINT64_C(1) << 16)
#define NVME_CAP_TO(n)		((uint64_t)(n) << 24)	/* 500 ms */
#define NVME_CAP_CSS_NVM	(UINT64_C(1) << 37)
#define NVME_CAP_MPSMAX(n)	((uint64_t)(n) << 52)	/* 4 KiB << n */

#define NVME_CC_EN		(1u << 0)
#define NVME_CC_CSS(cc)		((cc) >> 4 & 0x7u)
#define NVME_CC_MPS(cc)		((cc) >> 7 & 0xfu)
#define NVME_CC_AMS(cc)		((cc) >> 11 & 0x7u)
#define NVME_CC_SHN(cc)		((cc) >> 14 & 0x3u)
#define NVME_CC_IOSQES(cc)	((cc) >> 16 & 0xfu)
#define NVME_CC_IOCQES(cc)	((cc) >> 20 & 0xfu)
#define NVME_CC_MASK		0x00fffff1u

#define NVME_CSTS_RDY		(1u << 0)
#define NVME_CSTS_CFS		(1u << 1)
#define NVME_CSTS_SHST		(3u << 2)
#define NVME_CSTS_SHST_BUSY	(1u << 2)
#define NVME_CSTS_SHST_DONE	(2u << 2)

/* --- queues --------------------------------------------------------------- */

#define NVME_SQE_SHIFT		6
#define NVME_CQE_SHIFT		4

struct nvme_sgl {
	uint64_t addr;
	uint32_t len;
	uint8_t reserved[3];
	uint8_t type;			/* NVME_SGL_* << 4 | subtype */
};

#define NVME_SGL_DATA		0x0
#define NVME_SGL_SEGMENT	0x2
#define NVME_SGL_LAST		0x3

struct nvme_cmd {
	uint8_t opcode;
	uint8_t flags;			/* fused, PSDT */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2;
	uint32_t cdw3;
	uint64_t mptr;
	union {
		struct {
			uint64_t prp1;
			uint64_t prp2;
		};
		struct nvme_sgl sgl;
	};
	uint32_t cdw10;
	uint32_t cdw11;
	uint32_t cdw12;
	uint32_t cdw13;
	uint32_t cdw14;
	uint32_t cdw15;
};

#define NVME_CMD_FUSE(cmd)	((cmd)->flags & 0x3u)
#define NVME_CMD_PSDT(cmd)	((cmd)->flags >> 6)

struct nvme_cqe {
	uint32_t result;
	uint32_t reserved;
	uint16_t sqhd;
	uint16_t sqid;
	uint16_t cid;
	uint16_t status;		/* phase in bit 0 */
};

/* --- status: SCT << 8 | SC ------------------------------------------------ */

#define NVME_MORE		0x2000	/* see the error log */
#define NVME_DNR		0x4000	/* do not retry */
#define NVME_STATUS_CODE(st)	((st) & 0x7ff)

enum nvme_status {
	NVME_OK				= 0x000,
	NVME_INVALID_OPCODE		= 0x001,
	NVME_INVALID_FIELD		= 0x002,
	NVME_DATA_TRANSFER		= 0x004,
	NVME_INTERNAL			= 0x006,
	NVME_ABORT_REQUESTED		= 0x007,
	NVME_ABORT_SQ_DELETED		= 0x008,
	NVME_INVALID_NSID		= 0x00b,
	NVME_COMMAND_SEQUENCE		= 0x00c,
	NVME_SGL_BAD_SEGMENT		= 0x00d,
	NVME_SGL_BAD_COUNT		= 0x00e,
	NVME_SGL_BAD_LENGTH		= 0x00f,
	NVME_SGL_BAD_TYPE		= 0x011,
	NVME_PRP_BAD_OFFSET		= 0x013,
	NVME_LBA_RANGE			= 0x080,
	NVME_CAPACITY_EXCEEDED		= 0x081,
	NVME_BAD_CQ			= 0x100,
	NVME_BAD_QID			= 0x101,
	NVME_BAD_QUEUE_SIZE		= 0x102,
	NVME_AER_LIMIT			= 0x105,
	NVME_BAD_VECTOR			= 0x108,
	NVME_BAD_LOG_PAGE		= 0x109,
	NVME_QUEUE_IN_USE		= 0x10c,
	NVME_NOT_SAVEABLE		= 0x10d,
	NVME_NOT_CHANGEABLE		= 0x10e,
	NVME_NOT_NAMESPACED		= 0x10f,
	NVME_WRITE_FAULT		= 0x280,
	NVME_READ_ERROR			= 0x281,
	NVME_COMPARE_FAILED		= 0x285,
};

/* --- opcodes -------------------------------------------------------------- */

enum nvme_admin_opcode {
	NVME_ADM_DELETE_SQ	= 0x00,
	NVME_ADM_CREATE_SQ	= 0x01,
	NVME_ADM_GET_LOG	= 0x02,
	NVME_ADM_DELETE_CQ	= 0x04,
	NVME_ADM_CREATE_CQ	= 0x05,
	NVME_ADM_IDENTIFY	= 0x06,
	NVME_ADM_ABORT		= 0x08,
	NVME_ADM_SET_FEATURES	= 0x09,
	NVME_ADM_GET_FEATURES	= 0x0a,
	NVME_ADM_AER		= 0x0c,
};

enum nvme_io_opcode {
	NVME_IO_FLUSH		= 0x00,
	NVME_IO_WRITE		= 0x01,
	NVME_IO_READ		= 0x02,
	NVME_IO_COMPARE		= 0x05,
	NVME_IO_WRITE_ZEROES	= 0x08,
	NVME_IO_DSM		= 0x09,
};

#define NVME_RW_FUA		(1u << 30)	/* cdw12 */
#define NVME_WZ_DEAC		(1u << 25)
#define NVME_DSM_DEALLOCATE	(1u << 2)	/* cdw11 */

struct nvme_dsm_range {
	uint32_t attrs;
	uint32_t nlb;
	uint64_t slba;
};

/* --- asynchronous events -------------------------------------------------- */

#define NVME_AER_ERROR		0
#define NVME_AER_SMART		1
#define NVME_AER_BAD_DB_REG	0	/* info of an error event */
#define NVME_AER_BAD_DB_VALUE	1
#define NVME_AER_TEMPERATURE	1	/* info of a SMART event */

/* --- features ------------------------------------------------------------- */

enum nvme_feature {
	NVME_FEAT_ARBITRATION	= 0x01,
	NVME_FEAT_POWER		= 0x02,
	NVME_FEAT_TEMPERATURE	= 0x04,
	NVME_FEAT_RECOVERY	= 0x05,
	NVME_FEAT_WRITE_CACHE	= 0x06,
	NVME_FEAT_QUEUES	= 0x07,
	NVME_FEAT_COALESCING	= 0x08,
	NVME_FEAT_VECTOR	= 0x09,
	NVME_FEAT_ATOMICITY	= 0x0a,
	NVME_FEAT_EVENTS	= 0x0b,
	NVME_FEAT_TIMESTAMP	= 0x0e,
	NVME_FEAT_HOST_BEHAVIOR	= 0x16,
};

#define NVME_FEAT_CAP_NAMESPACED	(1u << 1)
#define NVME_FEAT_CAP_CHANGEABLE	(1u << 2)

/* --- log pages ------------------------------------------------------------ */

enum nvme_log {
	NVME_LOG_ERROR		= 0x01,
	NVME_LOG_SMART		= 0x02,
	NVME_LOG_FIRMWARE	= 0x03,
	NVME_LOG_EFFECTS	= 0x05,
};

struct nvme_error_entry {
	uint64_t count;
	uint16_t sqid;
	uint16_t cid;
	uint16_t status;		/* as in a completion */
	uint16_t location;		/* 0xffff: not of one field */
	uint64_t lba;
	uint32_t nsid;
	uint8_t vendor;
	uint8_t trtype;
	uint8_t reserved0[2];
	uint64_t specific;
	uint16_t trspecific;
	uint8_t reserved1[22];
};

#define NVME_SMART_TEMPERATURE	(1u << 1)	/* critical warning */

/* A 128-bit counter, of which we count 64. */
struct nvme_u128 {
	uint64_t lo;
	uint64_t hi;
};

struct nvme_smart {
	uint8_t critical_warning;
	uint8_t temperature[2];		/* kelvin */
	uint8_t spare;			/* percent */
	uint8_t spare_threshold;
	uint8_t used;
	uint8_t endurance_warning;
	uint8_t reserved0[25];
	struct nvme_u128 units_read;	/* 1000 x 512 bytes */
	struct nvme_u128 units_written;
	struct nvme_u128 reads;
	struct nvme_u128 writes;
	struct nvme_u128 busy_minutes;
	struct nvme_u128 power_cycles;
	struct nvme_u128 power_on_hours;
	struct nvme_u128 unsafe_shutdowns;
	struct nvme_u128 media_errors;
	struct nvme_u128 error_entries;
	uint32_t warning_minutes;
	uint32_t critical_minutes;
	uint16_t sensors[8];
	uint8_t reserved1[296];
};

struct nvme_firmware {
	uint8_t afi;
	uint8_t reserved0[7];
	char slots[7][8];
	uint8_t reserved1[448];
};

#define NVME_EFFECT_SUPPORTED	(1u << 0)
#define NVME_EFFECT_CONTENT	(1u << 1)	/* changes logical blocks */

struct nvme_effects {
	uint32_t admin[256];
	uint32_t io[256];
	uint8_t reserved[2048];
};

/* --- Identify ------------------------------------------------------------- */

enum nvme_cns {
	NVME_CNS_NAMESPACE	= 0x00,
	NVME_CNS_CONTROLLER	= 0x01,
	NVME_CNS_ACTIVE		= 0x02,
	NVME_CNS_DESCRIPTORS	= 0x03,
	/* Of NVMe 2.0, for hosts that ask without looking at the version. */
	NVME_CNS_CSI_NAMESPACE	= 0x05,
	NVME_CNS_CSI_CONTROLLER	= 0x06,
	NVME_CNS_CSI_ACTIVE	= 0x07,
	NVME_CNS_INDEPENDENT	= 0x08,
};

struct nvme_id_power {
	uint16_t max_power;		/* 0.01 W */
	uint8_t reserved0;
	uint8_t flags;
	uint32_t entry_lat;		/* us */
	uint32_t exit_lat;
	uint8_t rest[20];
};

struct nvme_id_ctrl {
	uint16_t vid;
	uint16_t ssvid;
	char sn[20];
	char mn[40];
	char fr[8];
	uint8_t rab;
	uint8_t ieee[3];
	uint8_t cmic;
	uint8_t mdts;
	uint16_t cntlid;
	uint32_t ver;
	uint32_t rtd3r;
	uint32_t rtd3e;
	uint32_t oaes;
	uint32_t ctratt;
	uint16_t rrls;
	uint8_t reserved0[9];
	uint8_t cntrltype;
	uint8_t fguid[16];
	uint16_t crdt[3];
	uint8_t reserved1[122];
	uint16_t oacs;
	uint8_t acl;
	uint8_t aerl;
	uint8_t frmw;
	uint8_t lpa;
	uint8_t elpe;
	uint8_t npss;
	uint8_t avscc;
	uint8_t apsta;
	uint16_t wctemp;
	uint16_t cctemp;
	uint16_t mtfa;
	uint32_t hmpre;
	uint32_t hmmin;
	uint8_t tnvmcap[16];
	uint8_t unvmcap[16];
	uint8_t reserved2[200];
	uint8_t sqes;
	uint8_t cqes;
	uint16_t maxcmd;
	uint32_t nn;
	uint16_t oncs;
	uint16_t fuses;
	uint8_t fna;
	uint8_t vwc;
	uint16_t awun;
	uint16_t awupf;
	uint8_t nvscc;
	uint8_t nwpc;
	uint16_t acwu;
	uint8_t reserved3[2];
	uint32_t sgls;
	uint32_t mnan;
	uint8_t reserved4[224];
	char subnqn[256];
	uint8_t reserved5[1024];
	struct nvme_id_power psd[32];
	uint8_t vendor[1024];
};

#define NVME_LPA_EFFECTS	(1u << 1)
#define NVME_LPA_OFFSET		(1u << 2)
#define NVME_ONCS_COMPARE	(1u << 0)
#define NVME_ONCS_DSM		(1u << 2)
#define NVME_ONCS_WRITE_ZEROES	(1u << 3)
#define NVME_ONCS_SELECT	(1u << 4)
#define NVME_ONCS_TIMESTAMP	(1u << 6)
#define NVME_VWC_PRESENT	(1u << 0)
#define NVME_VWC_FLUSH_ALL	(3u << 1)
#define NVME_SGLS_UNALIGNED	(1u << 0)
#define NVME_SGLS_LONGER	(1u << 18)

struct nvme_id_ns {
	uint64_t nsze;
	uint64_t ncap;
	uint64_t nuse;
	uint8_t nsfeat;
	uint8_t nlbaf;
	uint8_t flbas;
	uint8_t mc;
	uint8_t dpc;
	uint8_t dps;
	uint8_t nmic;
	uint8_t rescap;
	uint8_t fpi;
	uint8_t dlfeat;
	uint16_t nawun;
	uint16_t nawupf;
	uint16_t nacwu;
	uint16_t nabsn;
	uint16_t nabo;
	uint16_t nabspf;
	uint16_t noiob;
	uint8_t nvmcap[16];
	uint16_t npwg;
	uint16_t npwa;
	uint16_t npdg;
	uint16_t npda;
	uint16_t nows;
	uint8_t reserved0[18];
	uint32_t anagrpid;
	uint8_t reserved1[3];
	uint8_t nsattr;
	uint16_t nvmsetid;
	uint16_t endgid;
	uint8_t nguid[16];
	uint8_t eui64[8];
	uint32_t lbaf[16];
	uint8_t reserved2[192];
	uint8_t vendor[3712];
};

#define NVME_NSFEAT_OPTPERF	(1u << 4)
#define NVME_DLFEAT_ZEROES	0x01
#define NVME_DLFEAT_DEAC	(1u << 3)
#define NVME_LBAF_LBADS(n)	((uint32_t)(n) << 16)

struct nvme_ns_desc {
	uint8_t type;
	uint8_t len;
	uint8_t reserved[2];
	uint8_t id[16];
};

#define NVME_NIDT_UUID		3

#define NVME__SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), #type)
#define NVME__AT(type, member, off) \
	_Static_assert(offsetof(struct type, member) == (off), #member)
NVME__SIZE(nvme_sgl, 16);
NVME__SIZE(nvme_cmd, 64);
NVME__AT(nvme_cmd, sgl, 24);
NVME__AT(nvme_cmd, cdw10, 40);
NVME__SIZE(nvme_cqe, 16);
NVME__SIZE(nvme_dsm_range, 16);
NVME__SIZE(nvme_error_entry, 64);
NVME__SIZE(nvme_smart, 512);
NVME__AT(nvme_smart, units_read, 32);
NVME__AT(nvme_smart, warning_minutes, 192);
NVME__SIZE(nvme_firmware, 512);
NVME__SIZE(nvme_effects, 4096);
NVME__SIZE(nvme_id_power, 32);
NVME__SIZE(nvme_id_ctrl, 4096);
NVME__AT(nvme_id_ctrl, cntrltype, 111);
NVME__AT(nvme_id_ctrl, oacs, 256);
NVME__AT(nvme_id_ctrl, wctemp, 266);
NVME__AT(nvme_id_ctrl, sqes, 512);
NVME__AT(nvme_id_ctrl, vwc, 525);
NVME__AT(nvme_id_ctrl, sgls, 536);
NVME__AT(nvme_id_ctrl, subnqn, 768);
NVME__AT(nvme_id_ctrl, psd, 2048);
NVME__SIZE(nvme_id_ns, 4096);
NVME__AT(nvme_id_ns, dlfeat, 33);
NVME__AT(nvme_id_ns, npwg, 64);
NVME__AT(nvme_id_ns, nguid, 104);
NVME__AT(nvme_id_ns, lbaf, 128);
NVME__SIZE(nvme_ns_desc, 20);
#undef NVME__SIZE
#undef NVME__AT

#endif
