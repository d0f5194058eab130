// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switches the measuring of times on and off (linux/jump_label.h, linux/netdevice.h).
 */
#include <linux/mutex.h>
#include <linux/netdevice.h>

#include "hippos.h"
#include "latency.h"

DEFINE_STATIC_KEY_FALSE(hippos_latency);

static DEFINE_MUTEX(mutex);

/* Switches the kernel's time stamps of received packets as well. May sleep. */
void hippos_latency_set(bool on)
{
	mutex_lock(&mutex);
	if (on && !static_key_enabled(&hippos_latency)) {
		net_enable_timestamp();
		static_branch_enable(&hippos_latency);
	} else if (!on && static_key_enabled(&hippos_latency)) {
		static_branch_disable(&hippos_latency);
		net_disable_timestamp();
	}
	mutex_unlock(&mutex);
}

bool hippos_latency_is_on(void)
{
	return static_key_enabled(&hippos_latency);
}

u64 hippos_latency_now(void)
{
	return hippos_now();
}
