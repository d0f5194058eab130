// SPDX-License-Identifier: GPL-2.0-only
/*
 * Coarse clocks (linux/timekeeping.h): the store counts seconds, and milliseconds
 * show when the next one begins.
 */
#include <linux/timekeeping.h>

#include "hippos.h"

/* Milliseconds since boot, suspended time included. */
u64 hippos_uptime_ms(void)
{
	return ktime_to_ms(ktime_get_coarse_boottime());
}

/* Milliseconds since 1970. */
s64 hippos_unix_ms(void)
{
	return ktime_to_ms(ktime_get_coarse_real());
}

/* Microseconds since 1970, for the times of events: exact, in any context. */
u64 hippos_unix_us(void)
{
	return ktime_to_us(ktime_get_real());
}
