// SPDX-License-Identifier: GPL-2.0-only
/* Lines in the kernel's log that clients can cause (linux/ratelimit.h). */
#include <linux/ratelimit.h>

#include "hippos.h"

/*
 * Whether one more such line may be written: ten a minute for connections, and
 * ten for datagrams, whose sources may be forged.
 */
bool hippos_log_permits(bool datagram)
{
	static struct ratelimit_state
		connections = RATELIMIT_STATE_INIT_FLAGS(connections, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE),
		datagrams = RATELIMIT_STATE_INIT_FLAGS(datagrams, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE);

	return __ratelimit(datagram ? &datagrams : &connections);
}
