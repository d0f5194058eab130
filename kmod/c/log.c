// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lines in the kernel's log that clients can cause (linux/ratelimit.h), and who
 * causes those of an administrator (linux/cred.h, linux/audit.h).
 */
#include <linux/audit.h>
#include <linux/cred.h>
#include <linux/ratelimit.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>

#include "hippos.h"

/*
 * Whether one more such line may be written: ten a minute for connections that
 * are refused, ten for datagrams, whose sources may be forged, and ten for
 * changes by clients.
 */
bool hippos_log_permits(enum hippos_log_kind kind)
{
	static struct ratelimit_state
		connections = RATELIMIT_STATE_INIT_FLAGS(connections, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE),
		datagrams = RATELIMIT_STATE_INIT_FLAGS(datagrams, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE),
		changes = RATELIMIT_STATE_INIT_FLAGS(changes, 60 * HZ, 10, RATELIMIT_MSG_ON_RELEASE);

	switch (kind) {
	case HIPPOS_LOG_CONNECTION:
		return __ratelimit(&connections);
	case HIPPOS_LOG_DATAGRAM:
		return __ratelimit(&datagrams);
	case HIPPOS_LOG_CHANGE:
		return __ratelimit(&changes);
	}
	return false;
}

/* The number of the user who makes this system call. */
u32 hippos_log_user(void)
{
	return from_kuid(&init_user_ns, current_uid());
}

/* That of the user who logged in, before any su or sudo; -1 without a login. */
u32 hippos_log_login(void)
{
	return from_kuid(&init_user_ns, audit_get_loginuid(current));
}
