// SPDX-License-Identifier: GPL-2.0-only
/*
 * Receive packet steering (net/rps.h), and the measurements that decide on it:
 * the CPUs' idle time and their numbers of receive softirqs.
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

/* Whether dev is a card, not a tunnel or a bridge, that is up and has one receive queue. */
static bool single_queue(const struct net_device *dev)
{
	return dev->flags & IFF_UP && dev->type == ARPHRD_ETHER && dev->dev.parent &&
	       READ_ONCE(dev->real_num_rx_queues) == 1;
}

/* The number of such devices whose receive queue has no map, or ours. */
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

/* The online CPUs, without isolated ones: the CPUs that packets and threads are moved to. */
static void usable_cpus(struct cpumask *mask)
{
	unsigned int cpu;

	cpumask_clear(mask);
	for_each_online_cpu(cpu)
		if (!hippos_cpu_is_isolated(cpu))
			cpumask_set_cpu(cpu, mask);
}

/*
 * Spreads the packets of these devices over the CPUs that are not isolated; may
 * sleep. False when no device got a map: there is one such CPU, no memory, or RTNL
 * is held, which may take seconds, while the caller must keep the store's clock.
 */
bool hippos_steer_on(struct hippos_steer *steer)
{
	struct net_device *dev;
	cpumask_var_t usable;
	unsigned int i = 0;

	if (!zalloc_cpumask_var(&usable, GFP_KERNEL))
		return false;
	if (!rtnl_trylock()) {
		free_cpumask_var(usable);
		return false;
	}
	for_each_netdev(steer->net, dev) {
		struct rps_map *map, **place;
		unsigned int cpu, left;

		if (!single_queue(dev) || i == HIPPOS_STEERED)
			continue;
		cpus_read_lock();
		usable_cpus(usable);
		left = cpumask_weight(usable);
		/* One CPU has nothing to spread over, and is_ours() needs two. */
		map = left < 2 ? NULL :
		      kzalloc(max_t(size_t, RPS_MAP_SIZE(left), L1_CACHE_BYTES), GFP_KERNEL);
		if (map) {
			map->len = left;
			/* Descending: see is_ours(). */
			for_each_cpu(cpu, usable)
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
	free_cpumask_var(usable);
	return i > 0;
}

/*
 * Whether a map is one of ours: net-sysfs lists CPUs in ascending order. The
 * memory of a map that was freed with its device may since hold another device's.
 */
static bool is_ours(const struct rps_map *map)
{
	return map->len > 1 && map->cpus[0] > map->cpus[map->len - 1];
}

/*
 * The device that still has our map. All namespaces are searched, by the map: a
 * moved device gets another number if its own is taken. Under RTNL.
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
 * Removes our maps that are still set; may sleep. False when RTNL is held, unless
 * the caller wants to wait for it.
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
		/* A removed device has freed its map. */
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

/* Microseconds that a CPU has been idle since boot; *now is the time of the reading. */
u64 hippos_cpu_idle(unsigned int cpu, u64 *now)
{
	u64 idle = get_cpu_idle_time_us(cpu, now);

	if (idle != -1ULL)
		return idle + get_cpu_iowait_time_us(cpu, NULL);
	/* Without NO_HZ: the time that the timer tick has counted. */
	*now = ktime_to_us(ktime_get());
	return div_u64(kcpustat_cpu(cpu).cpustat[CPUTIME_IDLE] +
		       kcpustat_cpu(cpu).cpustat[CPUTIME_IOWAIT], NSEC_PER_USEC);
}

/* The number of receive softirqs that a CPU has run since boot. */
unsigned int hippos_cpu_receives(unsigned int cpu)
{
	return kstat_softirqs_cpu(NET_RX_SOFTIRQ, cpu);
}

/* Binds the calling thread to a CPU, or to all others that are not isolated; false when that failed. */
bool hippos_thread_bind(unsigned int cpu, bool others)
{
	cpumask_var_t mask;
	bool bound = false;

	if (!others)
		return !set_cpus_allowed_ptr(current, cpumask_of(cpu));
	if (!zalloc_cpumask_var(&mask, GFP_KERNEL))
		return false;
	usable_cpus(mask);
	cpumask_clear_cpu(cpu, mask);
	if (!cpumask_empty(mask))
		bound = !set_cpus_allowed_ptr(current, mask);
	free_cpumask_var(mask);
	return bound;
}

/*
 * Whether the calling thread, which was bound to this CPU, has lost its binding
 * and can get it again: the kernel lets a CPU's threads run anywhere once the CPU
 * goes offline, and does not bind them again. A CPU that is going offline is still
 * online, but no longer active.
 */
bool hippos_thread_lost(unsigned int cpu)
{
	return unlikely(current->nr_cpus_allowed != 1) && cpu_active(cpu);
}
