/* SPDX-License-Identifier: BSD-2-Clause */
/* Copyright (c) 2026 The memtree authors */
#ifndef T_FUZZ_PEER_H
#define T_FUZZ_PEER_H

/* For fuzzers that play one end of a connection: bare messages, no TAP. */

#define T_ALARM		0

#include "t/fuzz/fuzz.h"
#include "t/vfu.h"

/* After the constructor in t/tap.h: libFuzzer replaces no handler but this. */
__attribute__((constructor)) static void
leave_alarm_alone(void)
{
	signal(SIGALRM, SIG_DFL);
}

#endif
