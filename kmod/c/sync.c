// SPDX-License-Identifier: GPL-2.0-only
/* RCU, CPU numbers and short sleeps (linux/rcupdate.h, linux/cpumask.h, linux/delay.h). */
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/isolation.h>
#include <linux/smp.h>

#include "hippos.h"

void hippos_read_lock(void)
{
	rcu_read_lock();
}

void hippos_read_unlock(void)
{
	rcu_read_unlock();
}

/* The present CPU; the caller may have moved to another by the time it uses the number. */
unsigned int hippos_cpu(void)
{
	return raw_smp_processor_id();
}

/* One more than the highest possible CPU number. */
unsigned int hippos_cpus(void)
{
	return nr_cpu_ids;
}

/* The online CPU after cpu (-1 to begin), or -1. */
int hippos_next_cpu(int cpu)
{
	unsigned int next = cpumask_next(cpu, cpu_online_mask);

	return next < nr_cpu_ids ? next : -1;
}

/*
 * Whether a CPU is kept free of the kernel's own work: by isolcpus= or nohz_full=, or in an
 * isolated partition of cpusets.
 */
bool hippos_cpu_is_isolated(int cpu)
{
	bool isolated;

	/* Partitions change. */
	rcu_read_lock();
	isolated = !housekeeping_test_cpu(cpu, HK_TYPE_DOMAIN) ||
		   !housekeeping_test_cpu(cpu, HK_TYPE_WQ);
	rcu_read_unlock();
	return isolated;
}

void hippos_resched(void)
{
	cond_resched();
}

u32 hippos_ticks(void)
{
	return jiffies;
}

/* Sleeps for about a tenth of a millisecond. */
void hippos_short_sleep(void)
{
	usleep_range(100, 200);
}
