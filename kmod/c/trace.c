// SPDX-License-Identifier: GPL-2.0-only
/*
 * The trace points, and the functions that kapi/trace.rs calls when it has found
 * them on (linux/tracepoint.h). Any context.
 */
#include <linux/string.h>

#include "trace.h"

#define CREATE_TRACE_POINTS
#include "hippos_trace.h"

void hippos_trace_request(const struct hippos_traced_request *request)
{
	trace_request(request);
}

void hippos_trace_refuse(const char *path, const char *reason, const struct in6_addr *client,
			 u16 port)
{
	trace_refuse(path, reason, client, port);
}

void hippos_trace_evict(const struct hippos_traced_item *item)
{
	trace_evict(item);
}

void hippos_trace_expire(const struct hippos_traced_item *item)
{
	trace_expire(item);
}

void hippos_trace_reclaim(u32 from_class, u32 to_class)
{
	trace_reclaim(from_class, to_class);
}

void hippos_trace_steer(const char *what, int from_cpu, int to_cpu, u32 load)
{
	trace_steer(what, from_cpu, to_cpu, load);
}
