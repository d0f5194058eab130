// SPDX-License-Identifier: GPL-2.0-only
/* Lines in the kernel's log that clients can cause (linux/ratelimit.h). */
#include <linux/ratelimit.h>

#include "hippos.h"

/* Whether one more such line may be written: ten a minute. */
bool hippos_log_permits(void)
{
	static struct ratelimit_state lines =
		RATELIMIT_STATE_INIT_FLAGS(lines, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE);

	return __ratelimit(&lines);
}
