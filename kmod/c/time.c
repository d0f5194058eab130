// SPDX-License-Identifier: GPL-2.0-only
/* Clocks (linux/timekeeping.h), coarse ones: a second is fine enough. */
#include <linux/timekeeping.h>

#include "hippos.h"

/* Seconds since boot, suspended time included. */
u32 hippos_uptime(void)
{
	return ktime_get_boottime_seconds();
}

/* Seconds since 1970. */
s64 hippos_unix(void)
{
	return ktime_get_real_seconds();
}
