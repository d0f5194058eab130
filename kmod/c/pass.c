// SPDX-License-Identifier: GPL-2.0-only
/*
 * Counts and traces why datagrams are passed to the next receive path
 * (linux/percpu.h, linux/tracepoint.h).
 */
#include <linux/percpu.h>
#include <linux/string.h>

#include "hippos.h"
#include "hippos_trace.h"
#include "pass.h"

static DEFINE_PER_CPU(struct hippos_pass_counts [HIPPOS_PASS_COUNT], counts);

static const char *const names[] = {
#define X(enumerator, name, meaning) [HIPPOS_PASS_##enumerator] = name,
	HIPPOS_PASS_REASONS(X)
#undef X
};

/* Returns false, as the result of a function that checks whether a packet may be answered. */
bool hippos_pass(unsigned int kind, unsigned int reason)
{
	if (kind == HIPPOS_XDP)
		this_cpu_inc(counts[reason].xdp);
	else
		this_cpu_inc(counts[reason].hook);
	trace_pass(kind == HIPPOS_XDP ? "xdp" : "hook", names[reason]);
	return false;
}

/* A reason's name and its sums over all CPUs; false behind the last reason. */
bool hippos_pass_row(unsigned int reason, struct hippos_pass_row *row)
{
	int cpu;

	if (reason >= HIPPOS_PASS_COUNT)
		return false;
	*row = (struct hippos_pass_row){
		.name = names[reason],
		.len = strlen(names[reason]),
	};
	for_each_possible_cpu(cpu) {
		row->sum.hook += READ_ONCE(per_cpu(counts, cpu)[reason].hook);
		row->sum.xdp += READ_ONCE(per_cpu(counts, cpu)[reason].xdp);
	}
	return true;
}
