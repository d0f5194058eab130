/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Trace points: events/hippos in tracefs (linux/tracepoint.h). Each is a patched
 * branch: a disabled one costs a no-op. docs/bpftrace/README.md describes the
 * fields. Tools read them by name: none may change its meaning.
 *
 * Commands, outcomes and reasons are texts, not numbers: tools need no table of
 * names, and a new name does not renumber others. The texts are arrays, since the bpftrace of
 * Debian 13 (0.23) reads __data_loc, which __string makes, from wrong places. Keys
 * come encoded: they are printed to terminals.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hippos

#if !defined(HIPPOS_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define HIPPOS_TRACE_H

#include <linux/tracepoint.h>

#include "trace.h"

/* A datagram is passed to the next receive path. */
TRACE_EVENT(pass,
	TP_PROTO(const char *from, const char *reason),
	TP_ARGS(from, reason),
	TP_STRUCT__entry(
		__array(char, from, HIPPOS_TRACED_NAME)
		__array(char, reason, HIPPOS_TRACED_NAME)
	),
	TP_fast_assign(
		strscpy_pad(__entry->from, from);
		strscpy_pad(__entry->reason, reason);
	),
	TP_printk("from=%s reason=%s", __entry->from, __entry->reason)
);

/* A datagram was served, or a turn of a TCP connection. */
TRACE_EVENT(request,
	TP_PROTO(const struct hippos_traced_request *request),
	TP_ARGS(request),
	TP_STRUCT__entry(
		__field(u64, ns)
		__array(u8, client, 16)
		__array(char, path, HIPPOS_TRACED_NAME)
		__array(char, command, HIPPOS_TRACED_NAME)
		__array(char, key, HIPPOS_TRACED_KEY)
		__array(char, outcome, HIPPOS_TRACED_NAME)
		__field(u32, commands)
		__field(u32, bytes)
		__field(u16, family)
		__field(u16, port)
		__field(u16, key_len)
	),
	TP_fast_assign(
		__entry->ns = request->ns;
		memcpy(__entry->client, &request->client, 16);
		strscpy_pad(__entry->path, request->path);
		hippos_text(__entry->command, sizeof(__entry->command), request->command.text,
			    request->command.len);
		hippos_text(__entry->key, sizeof(__entry->key), request->key.text, request->key.shown);
		hippos_text(__entry->outcome, sizeof(__entry->outcome), request->outcome.text,
			    request->outcome.len);
		__entry->commands = request->commands;
		__entry->bytes = request->bytes;
		__entry->family = hippos_family(&request->client);
		__entry->port = request->port;
		__entry->key_len = request->key.len;
	),
	TP_printk("path=%s client=[%pI6c]:%u command=%s key=%s key_len=%u outcome=%s commands=%u bytes=%u ns=%llu",
		  __entry->path, __entry->client, __entry->port, __entry->command,
		  __entry->key, __entry->key_len, __entry->outcome, __entry->commands,
		  __entry->bytes, __entry->ns)
);

/* A client was refused. */
TRACE_EVENT(refuse,
	TP_PROTO(const char *path, const char *reason, const struct in6_addr *client, u16 port),
	TP_ARGS(path, reason, client, port),
	TP_STRUCT__entry(
		__array(u8, client, 16)
		__array(char, path, HIPPOS_TRACED_NAME)
		__array(char, reason, HIPPOS_TRACED_NAME)
		__field(u16, family)
		__field(u16, port)
	),
	TP_fast_assign(
		memcpy(__entry->client, client, 16);
		strscpy_pad(__entry->path, path);
		strscpy_pad(__entry->reason, reason);
		__entry->family = hippos_family(client);
		__entry->port = port;
	),
	TP_printk("path=%s client=[%pI6c]:%u reason=%s", __entry->path, __entry->client,
		  __entry->port, __entry->reason)
);

/* An item leaves without a client's request. */
DECLARE_EVENT_CLASS(hippos_item,
	TP_PROTO(const struct hippos_traced_item *item),
	TP_ARGS(item),
	TP_STRUCT__entry(
		__array(char, key, HIPPOS_TRACED_KEY)
		__array(char, reason, HIPPOS_TRACED_NAME)
		__field(u32, size)
		__field(u32, idle)
		__field(u16, key_len)
		__field(u8, slab_class)
		__field(u8, fetched)
	),
	TP_fast_assign(
		hippos_text(__entry->key, sizeof(__entry->key), item->key.text, item->key.shown);
		strscpy_pad(__entry->reason, item->reason);
		__entry->size = item->size;
		__entry->idle = item->idle;
		__entry->key_len = item->key.len;
		__entry->slab_class = item->slab_class;
		__entry->fetched = item->fetched;
	),
	TP_printk("slab_class=%u key=%s key_len=%u size=%u idle=%u fetched=%u reason=%s",
		  __entry->slab_class, __entry->key, __entry->key_len, __entry->size,
		  __entry->idle, __entry->fetched, __entry->reason)
);

/* It was evicted to make room for other items. */
DEFINE_EVENT(hippos_item, evict,
	TP_PROTO(const struct hippos_traced_item *item),
	TP_ARGS(item)
);

/* It was found dead and reclaimed. */
DEFINE_EVENT(hippos_item, expire,
	TP_PROTO(const struct hippos_traced_item *item),
	TP_ARGS(item)
);

/* A slab of one class was emptied for another. */
TRACE_EVENT(reclaim,
	TP_PROTO(u32 from_class, u32 to_class),
	TP_ARGS(from_class, to_class),
	TP_STRUCT__entry(
		__field(u32, from_class)
		__field(u32, to_class)
	),
	TP_fast_assign(
		__entry->from_class = from_class;
		__entry->to_class = to_class;
	),
	TP_printk("from_class=%u to_class=%u", __entry->from_class, __entry->to_class)
);

/* A card's packets, or a worker, move to other CPUs. */
TRACE_EVENT(steer,
	TP_PROTO(const char *what, int from_cpu, int to_cpu, u32 load),
	TP_ARGS(what, from_cpu, to_cpu, load),
	TP_STRUCT__entry(
		__array(char, what, HIPPOS_TRACED_NAME)
		__field(int, from_cpu)
		__field(int, to_cpu)
		__field(u32, load)
	),
	TP_fast_assign(
		strscpy_pad(__entry->what, what);
		__entry->from_cpu = from_cpu;
		__entry->to_cpu = to_cpu;
		__entry->load = load;
	),
	TP_printk("what=%s from_cpu=%d to_cpu=%d load=%u", __entry->what, __entry->from_cpu,
		  __entry->to_cpu, __entry->load)
);

#endif

/* The kernel's macros read this file again and again. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE hippos_trace
#include <trace/define_trace.h>
