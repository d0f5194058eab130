/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The cache of return paths: the next hop, device and MTU that a socket's reply
 * would have. A table for each CPU, used in softirq only.
 */
#ifndef HIPPOS_ROUTE_H
#define HIPPOS_ROUTE_H

#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/jiffies.h>
#include <linux/netdevice.h>
#include <linux/percpu.h>
#include <linux/unaligned.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/udp.h>

#include "hippos.h"

/* Entries a CPU; powers of two. */
#define HIPPOS_ROUTES_IPV4 2048
#define HIPPOS_ROUTES_IPV6 1024

/* The lifetime of an entry: changes of sysctls and path MTUs are not announced. */
#define HIPPOS_ROUTE_AGE (HZ / 4)

/* A cache line. */
struct hippos_route {
	/* Both addresses, as they stand in the request's header. */
	union {
		u64 ipv4;
		struct {
			struct in6_addr from;
			struct in6_addr to;
		} ipv6;
	};
	/* hippos_route_dev(), plus ELSEWHERE if the reply is the socket's. */
	unsigned long dev;
	u32 generation;
	/* In jiffies. */
	u32 looked_up;
	/* The next hop's Ethernet address and the device's own. */
	u8 stations[2 * ETH_ALEN];
	/* The longest packet, headers included. */
	u16 mtu;
	/* IPv4's time to live or IPv6's hop limit. */
	u8 ttl;
	/* With ELSEWHERE: an enum hippos_pass_reason. */
	u8 why;
};
static_assert(sizeof(struct hippos_route) == 64);

/* Flags in the low bits of dev, which a net_device's alignment leaves 0. */
#define HIPPOS_ELSEWHERE 1
#define HIPPOS_BY_XDP 2

struct hippos_routes {
	struct hippos_route ipv4[HIPPOS_ROUTES_IPV4];
	struct hippos_route ipv6[HIPPOS_ROUTES_IPV6];
	/* Lookups within one tick. */
	unsigned long tick;
	unsigned int spent;
};

DECLARE_PER_CPU(struct hippos_routes *, hippos_routes);
extern u32 hippos_route_generation;

const struct hippos_route *hippos_route_ipv4_slow(const struct hippos_handler *handler, struct net *net,
						  struct net_device *dev, struct sk_buff *skb,
						  const struct iphdr *iph,
						  struct hippos_packet *packet);
const struct hippos_route *hippos_route_ipv6_slow(const struct hippos_handler *handler, struct net *net,
						  struct net_device *dev, struct sk_buff *skb,
						  const struct ipv6hdr *iph,
						  struct hippos_packet *packet);
int hippos_routes_start(struct net *net);
void hippos_routes_stop(struct net *net);
void hippos_routes_changed(void);

static __always_inline u32 hippos_route_hash_ipv4(u64 pair)
{
	return (u32)pair * 0x9e3779b1u >> (32 - ilog2(HIPPOS_ROUTES_IPV4));
}

static __always_inline u32 hippos_route_hash_ipv6(const struct in6_addr *from)
{
	u32 word = (__force u32)(from->s6_addr32[1] ^ from->s6_addr32[2] ^ from->s6_addr32[3]);

	return word * 0x9e3779b1u >> (32 - ilog2(HIPPOS_ROUTES_IPV6));
}

/*
 * The key of an entry: the request's device, and the handler's kind, since the
 * firewall can close one kind and leave the other open.
 */
static __always_inline unsigned long hippos_route_dev(const struct net_device *dev,
						      enum hippos_handler_kind kind)
{
	return (unsigned long)dev + (kind == HIPPOS_XDP ? HIPPOS_BY_XDP : 0);
}

/* Whether an entry is still valid. */
static __always_inline bool hippos_route_holds(const struct hippos_route *route)
{
	return route->generation == READ_ONCE(hippos_route_generation) &&
	       (u32)jiffies - route->looked_up < HIPPOS_ROUTE_AGE;
}

/*
 * The return path of the reply to a request that came by dev with this header, or
 * NULL when the socket must send it. skb is the request's, or NULL for a frame
 * whose Ethernet header lies right before the network header. kind is the
 * handler's, a constant for the compiler.
 */
static __always_inline const struct hippos_route *
hippos_route_ipv4(const struct hippos_handler *handler, enum hippos_handler_kind kind, struct net *net,
		  struct net_device *dev, struct sk_buff *skb, const struct iphdr *iph,
		  struct hippos_packet *packet)
{
	u64 pair = get_unaligned((const u64 *)&iph->saddr);
	const struct hippos_route *route =
		&this_cpu_read(hippos_routes)->ipv4[hippos_route_hash_ipv4(pair)];

	if (likely(route->ipv4 == pair && route->dev == hippos_route_dev(dev, kind) &&
		   hippos_route_holds(route)))
		return route;
	return hippos_route_ipv4_slow(handler, net, dev, skb, iph, packet);
}

static __always_inline const struct hippos_route *
hippos_route_ipv6(const struct hippos_handler *handler, enum hippos_handler_kind kind, struct net *net,
		  struct net_device *dev, struct sk_buff *skb, const struct ipv6hdr *iph,
		  struct hippos_packet *packet)
{
	const struct hippos_route *route =
		&this_cpu_read(hippos_routes)->ipv6[hippos_route_hash_ipv6(&iph->saddr)];

	if (likely(ipv6_addr_equal(&route->ipv6.from, &iph->saddr) &&
		   ipv6_addr_equal(&route->ipv6.to, &iph->daddr) &&
		   route->dev == hippos_route_dev(dev, kind) && hippos_route_holds(route)))
		return route;
	return hippos_route_ipv6_slow(handler, net, dev, skb, iph, packet);
}

/* The longest payload that the return path takes in one packet. */
static __always_inline unsigned int hippos_route_payload(const struct hippos_route *route,
							 unsigned int headers)
{
	unsigned int mtu = route->mtu;

	return mtu > headers ? mtu - headers : 0;
}

/* Writes the addresses of a reply's Ethernet header. */
static __always_inline void hippos_route_address(const struct hippos_route *route, void *eth)
{
	memcpy(eth, route->stations, sizeof(route->stations));
}

/* Counts a request as the stack counts one that a socket receives. */
static __always_inline void hippos_count_in(struct net *net, const struct net_device *dev, bool ipv4)
{
	if (likely(ipv4)) {
		__IP_INC_STATS(net, IPSTATS_MIB_INDELIVERS);
		__UDP_INC_STATS(net, UDP_MIB_INDATAGRAMS);
	} else {
		__IP6_INC_STATS(net, __in6_dev_get(dev), IPSTATS_MIB_INDELIVERS);
		__UDP6_INC_STATS(net, UDP_MIB_INDATAGRAMS);
	}
}

/* Counts a reply of len bytes, from the network header on. */
static __always_inline void hippos_count_out(struct net *net, const struct net_device *dev,
					     bool ipv4, unsigned int len)
{
	if (likely(ipv4)) {
		__UDP_INC_STATS(net, UDP_MIB_OUTDATAGRAMS);
		__IP_INC_STATS(net, IPSTATS_MIB_OUTREQUESTS);
		__IP_UPD_PO_STATS(net, IPSTATS_MIB_OUT, len);
	} else {
		struct inet6_dev *idev = __in6_dev_get(dev);

		__UDP6_INC_STATS(net, UDP_MIB_OUTDATAGRAMS);
		__IP6_INC_STATS(net, idev, IPSTATS_MIB_OUTREQUESTS);
		__IP6_UPD_PO_STATS(net, idev, IPSTATS_MIB_OUT, len);
	}
}

#endif
