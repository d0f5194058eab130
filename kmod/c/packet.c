// SPDX-License-Identifier: GPL-2.0-only
/*
 * Datagrams that are answered where they arrive, in their own sk_buff
 * (linux/skbuff.h, net/ip.h, net/ipv6.h). All of it runs in softirq, under
 * RCU, from the PRE_ROUTING hook.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/netfilter_ipv6.h>
#include <linux/skbuff.h>
#include <linux/udp.h>
#include <net/addrconf.h>
#include <net/ip.h>
#include <net/ip6_checksum.h>
#include <net/ipv6.h>
#include <net/udp.h>

#include "hippos.h"

/* Longer requests than a usual frame holds go to the socket. */
#define REQUEST_MAX 2048

/* Replies to memcached's default port could make two servers talk for ever. */
#define MEMCACHED_PORT 11211

/*
 * Whether the frame came to this host over a plain Ethernet-like device, so
 * that turning its headers round sends it back where it came from. Cloned or
 * tapped packets are fine: hippos_packet_room() gives them a head of their
 * own.
 */
static bool plain_frame(const struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;

	if (skb->pkt_type != PACKET_HOST || skb_is_gso(skb) || skb->encapsulation)
		return false;
	if (!skb_mac_header_was_set(skb) ||
	    skb->data - skb_mac_header(skb) != ETH_HLEN)
		return false;
	if (dev->type == ARPHRD_ETHER) {
		if (is_multicast_ether_addr(eth_hdr(skb)->h_source))
			return false;
	} else if (dev->type != ARPHRD_LOOPBACK) {
		return false;
	}
	/*
	 * An extension tells of a bridge's netfilter, of IPsec or of traffic
	 * control: a reply that ignored it could go where it must not.
	 */
	return !(dev->priv_flags & (IFF_L3MDEV_MASTER | IFF_L3MDEV_SLAVE)) &&
	       !skb_has_extensions((struct sk_buff *)skb);
}

/*
 * Whether the UDP header behind the IP header is ours, and a reply to its
 * sender could not go round in circles.
 */
static const struct udphdr *our_header(struct sk_buff *skb, unsigned int ip_len, u16 port)
{
	const struct udphdr *uh;

	if (!pskb_may_pull(skb, ip_len + sizeof(*uh)))
		return NULL;
	uh = (const struct udphdr *)(skb->data + ip_len);
	if (uh->dest != htons(port))
		return NULL;
	if (!uh->source || uh->source == htons(MEMCACHED_PORT) || uh->source == htons(port))
		return NULL;
	if (skb->len > REQUEST_MAX || ntohs(uh->len) != skb->len - ip_len ||
	    skb->len <= ip_len + sizeof(*uh))
		return NULL;
	return plain_frame(skb) ? uh : NULL;
}

static bool fill(struct sk_buff *skb, unsigned int ip_len, struct hippos_packet *packet)
{
	unsigned int headers = ip_len + sizeof(struct udphdr);
	unsigned int mtu = READ_ONCE(skb->dev->mtu);

	if (skb_is_nonlinear(skb) && skb_linearize(skb))
		return false;
	packet->payload = skb->data + headers;
	packet->len = skb->len - headers;
	packet->room = skb_cloned(skb) ? 0 : packet->len + skb_tailroom(skb);
	packet->mtu = mtu > headers ? mtu - headers : 0;
	packet->headers = headers;
	packet->port = ntohs(((const struct udphdr *)(skb->data + ip_len))->source);
	packet->local = skb->dev->flags & IFF_LOOPBACK;
	return true;
}

/*
 * Whether an address is one that no other host on dev's networks can have:
 * a network's first or last, which stand for all, or dev's own. Routing would
 * refuse such a source, and a reply to it could reach many.
 */
static bool is_nobodys(const struct net_device *dev, __be32 address)
{
	const struct in_device *in_dev = __in_dev_get_rcu(dev);
	const struct in_ifaddr *ifa;

	if (!in_dev)
		return false;
	in_dev_for_each_ifa_rcu(ifa, in_dev) {
		__be32 host = address & ~ifa->ifa_mask;

		if (!inet_ifa_match(address, ifa))
			continue;
		if (address == ifa->ifa_local)
			return !(dev->flags & IFF_LOOPBACK);
		/* A network of one or two has neither. */
		if (ifa->ifa_prefixlen < 31 && (!host || host == ~ifa->ifa_mask))
			return true;
	}
	return false;
}

/*
 * Says whether skb is a datagram to our port on this host that may be
 * answered in place, and describes it. ip_rcv() has checked the IP header.
 * What is refused here is not touched: whoever comes next decides.
 */
bool hippos_packet_ipv4(struct sk_buff *skb, const struct nf_hook_state *state,
			u16 port, struct hippos_packet *packet)
{
	const struct iphdr *iph = (const struct iphdr *)skb->data;
	const struct udphdr *uh;
	bool loopback;

	if (iph->protocol != IPPROTO_UDP || iph->ihl != 5 || ip_is_fragment(iph))
		return false;
	uh = our_header(skb, sizeof(*iph), port);
	if (!uh)
		return false;
	iph = (const struct iphdr *)skb->data;
	loopback = skb->dev->flags & IFF_LOOPBACK;
	if (ipv4_is_zeronet(iph->saddr) || ipv4_is_multicast(iph->saddr) ||
	    ipv4_is_lbcast(iph->saddr) || is_nobodys(skb->dev, iph->saddr))
		return false;
	if (!loopback && (ipv4_is_loopback(iph->saddr) || ipv4_is_loopback(iph->daddr)))
		return false;
	if (!__ip_dev_find(state->net, iph->daddr, false))
		return false;
	if (uh->check && !skb_csum_unnecessary(skb) &&
	    nf_ip_checksum(skb, NF_INET_PRE_ROUTING, sizeof(*iph), IPPROTO_UDP))
		return false;
	if (!fill(skb, sizeof(*iph), packet))
		return false;
	iph = (const struct iphdr *)skb->data;
	ipv6_addr_set_v4mapped(iph->saddr, &packet->source);
	return true;
}

/* The same for IPv6; extension headers are left to the socket. */
bool hippos_packet_ipv6(struct sk_buff *skb, const struct nf_hook_state *state,
			u16 port, struct hippos_packet *packet)
{
	const struct ipv6hdr *iph = (const struct ipv6hdr *)skb->data;
	const struct udphdr *uh;
	bool loopback;

	if (iph->nexthdr != IPPROTO_UDP)
		return false;
	uh = our_header(skb, sizeof(*iph), port);
	if (!uh || !uh->check)
		return false;
	iph = (const struct ipv6hdr *)skb->data;
	loopback = skb->dev->flags & IFF_LOOPBACK;
	if (ipv6_addr_any(&iph->saddr) || ipv6_addr_is_multicast(&iph->saddr) ||
	    ipv6_addr_v4mapped(&iph->saddr))
		return false;
	if (!loopback && (ipv6_addr_loopback(&iph->saddr) || ipv6_addr_loopback(&iph->daddr)))
		return false;
	if (!ipv6_chk_addr(state->net, &iph->daddr, skb->dev, 0))
		return false;
	if (!skb_csum_unnecessary(skb) &&
	    nf_ip6_checksum(skb, NF_INET_PRE_ROUTING, sizeof(*iph), IPPROTO_UDP))
		return false;
	if (!fill(skb, sizeof(*iph), packet))
		return false;
	iph = (const struct ipv6hdr *)skb->data;
	packet->source = iph->saddr;
	return true;
}

/*
 * Makes len bytes at packet->payload writable and the headers before them
 * too. False when memory is short; nothing has changed then.
 */
bool hippos_packet_room(struct sk_buff *skb, struct hippos_packet *packet, u32 len)
{
	u32 have = packet->len + skb_tailroom(skb);

	if (pskb_expand_head(skb, 0, len > have ? SKB_DATA_ALIGN(len - have) : 0,
			     GFP_ATOMIC | __GFP_NOWARN))
		return false;
	packet->payload = skb->data + packet->headers;
	packet->room = packet->len + skb_tailroom(skb);
	return true;
}

/*
 * A second datagram with skb's headers and room for len bytes of payload,
 * for a reply that takes more than one.
 */
struct sk_buff *hippos_packet_twin(const struct sk_buff *skb,
				   const struct hippos_packet *packet, u32 len,
				   u8 **payload)
{
	unsigned int reserve = max_t(unsigned int, LL_RESERVED_SPACE(skb->dev), NET_SKB_PAD);
	struct sk_buff *twin;

	twin = alloc_skb(reserve + packet->headers + len + skb->dev->needed_tailroom,
			 GFP_ATOMIC | __GFP_NOWARN);
	if (!twin)
		return NULL;
	skb_reserve(twin, reserve);
	skb_put(twin, packet->headers);
	memcpy(twin->data - ETH_HLEN, skb->data - ETH_HLEN, ETH_HLEN + packet->headers);
	skb_set_mac_header(twin, -ETH_HLEN);
	skb_reset_network_header(twin);
	skb_set_transport_header(twin, packet->headers - sizeof(struct udphdr));
	twin->dev = skb->dev;
	twin->protocol = skb->protocol;
	skb_copy_hash(twin, skb);
	skb_copy_queue_mapping(twin, skb);
	if (packet->local)
		skb_dst_copy(twin, skb);
	*payload = twin->data + packet->headers;
	return twin;
}

static void swap_addresses(struct ethhdr *eth)
{
	u8 address[ETH_ALEN];

	ether_addr_copy(address, eth->h_dest);
	ether_addr_copy(eth->h_dest, eth->h_source);
	ether_addr_copy(eth->h_source, address);
}

/* No two replies of a CPU have the same until 65536 have gone. */
static DEFINE_PER_CPU(u16, reply_id);

/*
 * Turns a request, or the twin of one, into its reply: len bytes of payload
 * are in place already. Sends it and gives it up.
 */
void hippos_packet_reply(struct sk_buff *skb, u32 headers, u32 len)
{
	struct net_device *dev = skb->dev;
	struct udphdr *uh = (struct udphdr *)(skb->data + headers - sizeof(*uh));
	unsigned int udp_len = sizeof(*uh) + len;
	unsigned long dst = 0;
	struct ethhdr *eth;

	skb->len = headers + len;
	skb_set_tail_pointer(skb, skb->len);
	skb_set_transport_header(skb, headers - sizeof(*uh));

	/* Nothing of the way in may matter on the way out. */
	skb_orphan(skb);
	if (dev->flags & IFF_LOOPBACK) {
		/* Its route leads back to this host, and lo wants one. */
		dst = skb->_skb_refdst;
		skb->_skb_refdst = 0;
	}
	skb_scrub_packet(skb, true);
	skb->_skb_refdst = dst;
	skb->priority = 0;
	memset(skb->cb, 0, sizeof(skb->cb));
	skb->ip_summed = CHECKSUM_NONE;

	swap(uh->source, uh->dest);
	uh->len = htons(udp_len);
	if (skb->protocol == htons(ETH_P_IP)) {
		struct iphdr *iph = (struct iphdr *)skb->data;

		swap(iph->saddr, iph->daddr);
		iph->tos = 0;
		iph->tot_len = htons(skb->len);
		iph->id = htons(this_cpu_inc_return(reply_id));
		iph->frag_off = 0;
		iph->ttl = IPDEFTTL;
		ip_send_check(iph);
		udp_set_csum(false, skb, iph->saddr, iph->daddr, udp_len);
	} else {
		struct ipv6hdr *iph = (struct ipv6hdr *)skb->data;

		swap(iph->saddr, iph->daddr);
		ip6_flow_hdr(iph, 0, 0);
		iph->payload_len = htons(udp_len);
		iph->hop_limit = IPDEFTTL;
		udp6_set_csum(false, skb, &iph->saddr, &iph->daddr, udp_len);
	}

	eth = skb_push(skb, ETH_HLEN);
	skb_reset_mac_header(skb);
	swap_addresses(eth);
	dev_queue_xmit(skb);
}

/* Drops a twin that is not sent. */
void hippos_packet_free(struct sk_buff *skb)
{
	kfree_skb(skb);
}

/* Takes a request that has no answer out of the world, without counting a drop. */
void hippos_packet_consume(struct sk_buff *skb)
{
	consume_skb(skb);
}
