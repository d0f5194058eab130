/* SPDX-License-Identifier: GPL-2.0-only */
/* The arguments of trace points: kapi/trace.rs fills them in. */
#ifndef HIPPOS_TRACED_H
#define HIPPOS_TRACED_H

#include <linux/build_bug.h>
#include <linux/in6.h>
#include <linux/minmax.h>
#include <linux/socket.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>
#include <net/ipv6.h>

/* Bytes of the texts in events, with the zero behind them. */
#define HIPPOS_TRACED_NAME 16
#define HIPPOS_TRACED_KEY 128

/* A key as it is shown, no zero behind it, and the bytes of the whole key. */
struct hippos_traced_key {
	const char *text;
	u32 shown;
	u32 len;
};

static_assert(sizeof(struct hippos_traced_key) == 16 &&
	      offsetof(struct hippos_traced_key, len) == 12);

/* No zero behind it. */
struct hippos_traced_word {
	const char *text;
	u32 len;
};

static_assert(sizeof(struct hippos_traced_word) == 16 &&
	      offsetof(struct hippos_traced_word, len) == 8);

struct hippos_traced_request {
	u64 ns;
	const char *path;
	struct hippos_traced_word command;
	struct hippos_traced_word outcome;
	struct hippos_traced_key key;
	/* An IPv4 one is mapped. */
	struct in6_addr client;
	u32 commands;
	u32 bytes;
	u16 port;
};

static_assert(sizeof(struct hippos_traced_request) == 96 &&
	      offsetof(struct hippos_traced_request, port) == 88);

struct hippos_traced_item {
	struct hippos_traced_key key;
	const char *reason;
	/* Header included. */
	u32 size;
	/* Seconds since it was last read or stored. */
	u32 idle;
	/* As statistics count: from 1. */
	u8 slab_class;
	/* It was read since it was stored. */
	bool fetched;
};

static_assert(sizeof(struct hippos_traced_item) == 40 &&
	      offsetof(struct hippos_traced_item, fetched) == 33);

/* Copies the text as far as it fits, and fills the rest with zeroes. */
static inline void hippos_text(char *to, size_t size, const char *text, u32 len)
{
	size_t fits = min_t(size_t, len, size - 1);

	memcpy(to, text, fits);
	memset(to + fits, 0, size - fits);
}

static inline u16 hippos_family(const struct in6_addr *client)
{
	return ipv6_addr_v4mapped(client) ? AF_INET : AF_INET6;
}

void hippos_trace_request(const struct hippos_traced_request *request);
void hippos_trace_refuse(const char *path, const char *reason, const struct in6_addr *client,
			 u16 port);
void hippos_trace_evict(const struct hippos_traced_item *item);
void hippos_trace_expire(const struct hippos_traced_item *item);
void hippos_trace_reclaim(u32 from_class, u32 to_class);
void hippos_trace_steer(const char *what, int from_cpu, int to_cpu, u32 load);

#endif
