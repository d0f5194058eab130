// SPDX-License-Identifier: GPL-2.0-only
/*
 * Receive packet steering (net/rps.h), and what tells when it is needed: how
 * busy CPUs are and how often they received.
 *
 * net-sysfs keeps the lock of its rps_cpus files to itself. Only a queue that
 * has no map gets one of ours, and only ours is taken away, each by one
 * cmpxchg(), so that an administrator's choice stays. Should a process write
 * the file at the very moment of our cmpxchg(), our map, less than a cache
 * line, is lost and steering's static key stays on.
 */
#include <linux/if_arp.h>
#include <linux/kernel_stat.h>
#include <linux/kthread.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/tick.h>
#include <net/net_namespace.h>
#include <net/netdev_rx_queue.h>
#include <net/rps.h>

#include "hippos.h"

/* Of a card, not of a tunnel or bridge, that is up and has one receive queue. */
static bool single_queue(const struct net_device *dev)
{
	return dev->flags & IFF_UP && dev->type == ARPHRD_ETHER && dev->dev.parent &&
	       READ_ONCE(dev->real_num_rx_queues) == 1;
}

/* How many such devices there are that have no map but ours. */
unsigned int hippos_steer_devices(const struct hippos_steer *steer)
{
	struct net_device *dev;
	unsigned int count = 0, i;

	rcu_read_lock();
	for_each_netdev_rcu(steer->net, dev) {
		void *map;

		if (!single_queue(dev))
			continue;
		map = rcu_access_pointer(dev->_rx[0].rps_map);
		for (i = 0; map && i < HIPPOS_STEERED; i++)
			if (steer->maps[i] == map)
				map = NULL;
		count += !map;
	}
	rcu_read_unlock();
	return count;
}

/*
 * Spreads what these devices receive over all CPUs; may sleep. False when that was
 * done for none: there is one CPU, no memory, or others configure devices just now, who may
 * take seconds, and the caller has a clock to keep.
 */
bool hippos_steer_on(struct hippos_steer *steer)
{
	struct net_device *dev;
	unsigned int i = 0;

	if (!rtnl_trylock())
		return false;
	for_each_netdev(steer->net, dev) {
		struct rps_map *map, **place;
		unsigned int cpu, left;

		if (!single_queue(dev) || i == HIPPOS_STEERED)
			continue;
		cpus_read_lock();
		left = num_online_cpus();
		/* Nothing to spread over one; and see is_ours(). */
		map = left < 2 ? NULL :
		      kzalloc(max_t(size_t, RPS_MAP_SIZE(left), L1_CACHE_BYTES), GFP_KERNEL);
		if (map) {
			map->len = left;
			/* Descending: see is_ours(). */
			for_each_online_cpu(cpu)
				if (left)
					map->cpus[--left] = cpu;
		}
		cpus_read_unlock();
		if (!map)
			break;
		place = (struct rps_map **)&dev->_rx[0].rps_map;
		if (cmpxchg(place, NULL, map)) {
			kfree(map);
			continue;
		}
		static_branch_inc(&rps_needed);
		steer->maps[i++] = map;
	}
	rtnl_unlock();
	return i > 0;
}

/*
 * Whether a map is one of ours: net-sysfs lists CPUs in ascending order. A map
 * that went with its device may since have left its memory to another one's.
 */
static bool is_ours(const struct rps_map *map)
{
	return map->len > 1 && map->cpus[0] > map->cpus[map->len - 1];
}

/*
 * The device that still has our map, in whichever namespace it is by now, and
 * under whichever number: that changes if another has it there. Under RTNL.
 */
static struct net_device *find(const struct rps_map *ours)
{
	struct net_device *dev, *found = NULL;
	const struct rps_map *map;
	struct net *net;

	rcu_read_lock();
	for_each_net_rcu(net)
		for_each_netdev_rcu(net, dev) {
			map = rcu_dereference(dev->_rx[0].rps_map);
			if (map == ours && is_ours(map))
				found = dev;
		}
	rcu_read_unlock();
	return found;
}

/*
 * Takes away what is still ours; may sleep. False when others configure devices
 * just now, unless it is to wait.
 */
bool hippos_steer_off(struct hippos_steer *steer, bool wait)
{
	unsigned int i;

	if (wait)
		rtnl_lock();
	else if (!rtnl_trylock())
		return false;
	for (i = 0; i < HIPPOS_STEERED; i++) {
		struct rps_map *map = steer->maps[i], **place;
		struct net_device *dev;

		if (!map)
			continue;
		steer->maps[i] = NULL;
		/* A device that is gone has taken its map along. */
		dev = find(map);
		if (!dev)
			continue;
		place = (struct rps_map **)&dev->_rx[0].rps_map;
		if (cmpxchg(place, map, NULL) == map) {
			static_branch_dec(&rps_needed);
			kfree_rcu(map, rcu);
		}
	}
	rtnl_unlock();
	return true;
}

/* Microseconds that a CPU was idle so far; in *now the time it was read. */
u64 hippos_cpu_idle(unsigned int cpu, u64 *now)
{
	u64 idle = get_cpu_idle_time_us(cpu, now);

	if (idle != -1ULL)
		return idle + get_cpu_iowait_time_us(cpu, NULL);
	/* Without a tickless kernel: what the tick has counted. */
	*now = ktime_to_us(ktime_get());
	return div_u64(kcpustat_cpu(cpu).cpustat[CPUTIME_IDLE] +
		       kcpustat_cpu(cpu).cpustat[CPUTIME_IOWAIT], NSEC_PER_USEC);
}

/* How often a CPU has gone to receive packets so far. */
unsigned int hippos_cpu_receives(unsigned int cpu)
{
	return kstat_softirqs_cpu(NET_RX_SOFTIRQ, cpu);
}

/* Binds the calling thread to a CPU, or to all others; whether it is bound so now. */
bool hippos_thread_bind(unsigned int cpu, bool others)
{
	cpumask_var_t mask;
	bool bound = false;

	if (!others)
		return !set_cpus_allowed_ptr(current, cpumask_of(cpu));
	if (!zalloc_cpumask_var(&mask, GFP_KERNEL))
		return false;
	cpumask_copy(mask, cpu_online_mask);
	cpumask_clear_cpu(cpu, mask);
	if (!cpumask_empty(mask))
		bound = !set_cpus_allowed_ptr(current, mask);
	free_cpumask_var(mask);
	return bound;
}

/*
 * Whether the calling thread, which was bound to this CPU, has lost it: the
 * kernel lets threads that are bound to a CPU run anywhere once it goes offline,
 * and binds none again. A CPU on its way out is online still, but not active.
 */
bool hippos_thread_lost(unsigned int cpu)
{
	return unlikely(current->nr_cpus_allowed != 1) && cpu_active(cpu);
}
