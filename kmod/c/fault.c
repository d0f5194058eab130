// SPDX-License-Identifier: GPL-2.0-only
/*
 * Planted faults, in modules for debug kernels alone: one for each of their
 * checkers, which must report it; kmod/kapi/fault.rs has the ones in Rust.
 */
#include <linux/bottom_half.h>
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timer.h>

#include "hippos.h"

#ifdef CONFIG_KASAN

static char *selftest;
module_param_named(selftest_fault, selftest, charp, 0444);
MODULE_PARM_DESC(selftest_fault, "debug kernels only: the name of a fault to commit while loading");

/* The name of the fault to commit, or NULL. */
const char *hippos_selftest(void)
{
	return selftest;
}

void hippos_bh_disable(void)
{
	local_bh_disable();
}

void hippos_bh_enable(void)
{
	local_bh_enable();
}

static DEFINE_SPINLOCK(one);
static DEFINE_SPINLOCK(two);

static void take_one(struct timer_list *timer)
{
	spin_lock(&one);
	spin_unlock(&one);
}

static DEFINE_TIMER(timer, take_one);

/* A lock that softirq takes is held with softirqs on. */
void hippos_fault_unsafe_lock(void)
{
	spin_lock(&one);
	spin_unlock(&one);
	mod_timer(&timer, jiffies + 1);
	msleep(100);
	timer_delete_sync(&timer);
}

/* Two locks, taken in both orders. */
void hippos_fault_lock_order(void)
{
	spin_lock(&one);
	spin_lock(&two);
	spin_unlock(&two);
	spin_unlock(&one);
	spin_lock(&two);
	spin_lock(&one);
	spin_unlock(&one);
	spin_unlock(&two);
}

/* A pointer that RCU protects is followed outside a read-side section. */
void hippos_fault_unguarded(void)
{
	static void __rcu *pointer;

	rcu_dereference(pointer);
}

struct ticking {
	struct timer_list timer;
};

/* A timer's memory is given back while it runs. */
void hippos_fault_freed_timer(void)
{
	struct ticking *ticking = kzalloc(sizeof(*ticking), GFP_KERNEL);

	if (!ticking)
		return;
	timer_setup(&ticking->timer, take_one, 0);
	mod_timer(&ticking->timer, jiffies + 60 * HZ);
	kfree(ticking);
}

#endif
