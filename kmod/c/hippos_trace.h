/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Trace points: events/hippos in tracefs (linux/tracepoint.h). Each is a patched
 * branch on a cold path, so that one that is off costs nothing.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hippos

#if !defined(HIPPOS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define HIPPOS_TRACE_H

#include <linux/tracepoint.h>

/* A datagram is left to the next one on its way. */
TRACE_EVENT(pass,
	TP_PROTO(const char *from, const char *reason),
	TP_ARGS(from, reason),
	TP_STRUCT__entry(
		__string(from, from)
		__string(reason, reason)
	),
	TP_fast_assign(
		__assign_str(from);
		__assign_str(reason);
	),
	TP_printk("from=%s reason=%s", __get_str(from), __get_str(reason))
);

#endif

/* The kernel's macros read this file again and again. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE hippos_trace
#include <trace/define_trace.h>
