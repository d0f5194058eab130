// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sums of the counters that C keeps (linux/percpu.h).
 */
#include <linux/percpu.h>

#include "counters.h"
#include "hippos.h"

DEFINE_PER_CPU(u64 [HIPPOS_COUNTER_COUNT], hippos_counters);

/* A counter's sum over all CPUs since the load, by its number in the list. */
u64 hippos_counter_sum(u32 counter)
{
	u64 sum = 0;
	int cpu;

	if (counter >= HIPPOS_COUNTER_COUNT)
		return 0;
	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(hippos_counters, cpu)[counter]);
	return sum;
}
