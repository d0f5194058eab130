/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The code that PRE_ROUTING and XDP share: the checks of a request's headers, and
 * the making of the reply's. All of it runs in softirq, under RCU, on complete
 * headers.
 */
#ifndef HIPPOS_DATAGRAM_H
#define HIPPOS_DATAGRAM_H

#include <linux/etherdevice.h>
#include <linux/inetdevice.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/percpu.h>
#include <linux/udp.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/xfrm.h>

/* Replies to memcached's default port could make two servers talk for ever. */
#define HIPPOS_MEMCACHED_PORT 11211

/* The next reply's IP id, by CPU; repeats after 65536 replies. */
DECLARE_PER_CPU(u16, hippos_reply_id);

/* Whether a reply to this source port cannot start a loop between servers. */
static __always_inline bool hippos_source_port_ok(const struct udphdr *uh, u16 port)
{
	return uh->source && uh->source != htons(HIPPOS_MEMCACHED_PORT) &&
	       uh->source != htons(port);
}

/* Whether an extension header follows, other than IPsec's. */
static __always_inline bool hippos_ipv6_extended(const struct ipv6hdr *iph)
{
	return iph->nexthdr == NEXTHDR_HOP || iph->nexthdr == NEXTHDR_ROUTING ||
	       iph->nexthdr == NEXTHDR_FRAGMENT || iph->nexthdr == NEXTHDR_DEST;
}

/*
 * Whether to is an address of this host, and from one that another host on dev's
 * networks can have: not a network's first or last address, which are for
 * broadcasts, nor dev's own. Routing would refuse such a source, and a reply to it
 * could reach many hosts. Most devices have one address, and to is that one.
 */
static __always_inline bool hippos_addresses_fit(struct net *net, const struct net_device *dev,
						 __be32 from, __be32 to)
{
	const struct in_device *in_dev = __in_dev_get_rcu(dev);
	const struct in_ifaddr *ifa;
	bool own = false;

	if (unlikely(!in_dev))
		return __ip_dev_find(net, to, false);
	in_dev_for_each_ifa_rcu(ifa, in_dev) {
		__be32 host = from & ~ifa->ifa_mask;

		own |= ifa->ifa_local == to;
		if (!inet_ifa_match(from, ifa))
			continue;
		if (from == ifa->ifa_local) {
			if (!(dev->flags & IFF_LOOPBACK))
				return false;
			break;
		}
		/* /31 and /32 have no network or broadcast address. */
		if (ifa->ifa_prefixlen < 31 && (!host || host == ~ifa->ifa_mask))
			return false;
	}
	return likely(own) || __ip_dev_find(net, to, false);
}

/* Whether an IPsec policy could apply: these receive paths come before the kernel's check. */
static __always_inline bool hippos_policies(const struct net *net)
{
#ifdef CONFIG_XFRM
	return READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_IN]) ||
	       READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_OUT]) ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_IN]) != XFRM_USERPOLICY_ACCEPT ||
	       READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_OUT]) != XFRM_USERPOLICY_ACCEPT;
#else
	return false;
#endif
}

/* Whether the packet is a unicast from another host, or from this one over loopback. */
static __always_inline bool hippos_ipv4_fits(struct net *net, const struct net_device *dev,
					     const struct iphdr *iph)
{
	if (ipv4_is_zeronet(iph->saddr) || ipv4_is_multicast(iph->saddr) ||
	    ipv4_is_lbcast(iph->saddr) || unlikely(hippos_policies(net)))
		return false;
	if (!(dev->flags & IFF_LOOPBACK) &&
	    (ipv4_is_loopback(iph->saddr) || ipv4_is_loopback(iph->daddr)))
		return false;
	return hippos_addresses_fit(net, dev, iph->saddr, iph->daddr);
}

static __always_inline bool hippos_ipv6_fits(struct net *net, const struct net_device *dev,
					     const struct ipv6hdr *iph)
{
	const struct inet6_dev *idev = __in6_dev_get(dev);

	/*
	 * The stack drops what comes by a device where IPv6 is off, but behind XDP.
	 * With ipv6.disable=1 no device has it, and the kernel's tables of addresses
	 * and routes, which are asked next, do not exist.
	 */
	if (unlikely(!idev || READ_ONCE(idev->cnf.disable_ipv6)))
		return false;
	if (ipv6_addr_any(&iph->saddr) || ipv6_addr_is_multicast(&iph->saddr) ||
	    ipv6_addr_v4mapped(&iph->saddr) || unlikely(hippos_policies(net)))
		return false;
	if (!(dev->flags & IFF_LOOPBACK) &&
	    (ipv6_addr_loopback(&iph->saddr) || ipv6_addr_loopback(&iph->daddr)))
		return false;
	return ipv6_chk_addr(net, &iph->daddr, dev, 0);
}

/* The header of a reply of len bytes, itself included; addresses is the sum over both of them. */
static __always_inline void hippos_ipv4_make_reply(struct iphdr *iph, unsigned int len,
					     __wsum addresses, u8 ttl)
{
	/* Version and length of the header, nothing special; id, no fragment; TTL and protocol. */
	u32 first = (__force u32)htonl(0x45000000 | len);
	u32 second = (__force u32)htonl((u32)this_cpu_inc_return(hippos_reply_id) << 16);
	u32 third = (__force u32)htonl((u32)ttl << 24 | IPPROTO_UDP << 16);
	u64 sum = (u64)first + second + third + (__force u32)addresses;
	u32 *words = (u32 *)iph;

	swap(iph->saddr, iph->daddr);
	words[0] = first;
	words[1] = second;
	words[2] = third;
	iph->check = csum_fold(csum_add((__force __wsum)(u32)sum, (__force __wsum)(sum >> 32)));
}

/* The header before udp_len bytes. */
static __always_inline void hippos_ipv6_make_reply(struct ipv6hdr *iph, unsigned int udp_len, u8 ttl)
{
	swap(iph->saddr, iph->daddr);
	ip6_flow_hdr(iph, 0, 0);
	iph->payload_len = htons(udp_len);
	iph->hop_limit = ttl;
}

#endif
