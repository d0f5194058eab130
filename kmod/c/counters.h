/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The counters that C keeps for `stats`, by CPU (linux/percpu.h). Those of
 * passed datagrams are in pass.h.
 *
 * This list is the only one. kmod/engine/src/host_counters.rs reads it when
 * it is compiled, for the rows of `stats` and docs/statistics.md: a counter that
 * kmod/engine/src/statistics.rs gives no position comes last.
 */
#ifndef HIPPOS_COUNTERS_H
#define HIPPOS_COUNTERS_H

#include <linux/percpu.h>
#include <linux/types.h>

/* X(enumerator, name, meaning) */
#define HIPPOS_COUNTERS(X) \
	X(XDP_SERVED, "hippos_xdp_served", "Frames that XDP answered or dropped") \
	X(XDP_PASSED, "hippos_xdp_passed", "All other frames on the interfaces where XDP is attached") \
	X(ROUTE_LOOKUPS, "hippos_route_lookups", "Routing lookups for replies in place") \
	X(ROUTE_ELSEWHERE, "hippos_route_elsewhere", "Of those, lookups that left the reply to the socket") \
	X(ROUTE_LIMITED, "hippos_route_limited", "Routing lookups not made because of their rate limit") \
	X(ROUTE_CHANGES, "hippos_route_changes", "Changes of routes, rules, addresses, interfaces and neighbours, each of which ended all cached routes")

enum hippos_counter {
#define X(enumerator, name, meaning) HIPPOS_COUNTER_##enumerator,
	HIPPOS_COUNTERS(X)
#undef X
	HIPPOS_COUNTER_COUNT
};

DECLARE_PER_CPU(u64 [HIPPOS_COUNTER_COUNT], hippos_counters);

#define hippos_count(enumerator) this_cpu_inc(hippos_counters[HIPPOS_COUNTER_##enumerator])

#endif
