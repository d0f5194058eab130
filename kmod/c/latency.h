/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether times are measured: a static branch, so that receive paths pay a no-op
 * while the measurement is off.
 */
#ifndef HIPPOS_LATENCY_H
#define HIPPOS_LATENCY_H

#include <linux/jump_label.h>
#include <linux/skbuff.h>
#include <linux/timekeeping.h>

DECLARE_STATIC_KEY_FALSE(hippos_latency);

/* Nanoseconds; in any context. */
static __always_inline u64 hippos_now(void)
{
	return ktime_get_mono_fast_ns();
}

#define HIPPOS_NOT_QUEUED U64_MAX

/* Longer times are taken for a clock change. */
#define HIPPOS_QUEUED_MAX (60 * NSEC_PER_SEC)

/*
 * Nanoseconds from a time stamp of the kernel's, which is of the wall clock, to
 * now; HIPPOS_NOT_QUEUED without one, or when the clock was set meanwhile.
 */

static inline u64 hippos_since_stamp(ktime_t stamp)
{
	s64 ns = ktime_get_real_fast_ns() - ktime_to_ns(stamp);

	return stamp > 0 && ns >= 0 && ns <= HIPPOS_QUEUED_MAX ? ns : HIPPOS_NOT_QUEUED;
}

/* The time since the kernel has received the packet. */
static inline u64 hippos_queued(const struct sk_buff *skb)
{
	if (skb->tstamp_type != SKB_CLOCK_REALTIME)
		return HIPPOS_NOT_QUEUED;
	return hippos_since_stamp(skb->tstamp);
}

#endif
