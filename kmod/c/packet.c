// SPDX-License-Identifier: GPL-2.0-only
/*
 * Datagrams that are answered where they arrive, in their own sk_buff
 * (linux/skbuff.h, net/ip.h, net/ipv6.h). All of it runs under RCU, from the
 * PRE_ROUTING hook; packets are answered with softirqs off only.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/jump_label.h>
#include <linux/moduleparam.h>
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
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
#include <net/netfilter/nf_conntrack.h>
#endif
#include <net/udp.h>

#include "datagram.h"
#include "hippos.h"
#include "latency.h"
#include "pass.h"
#include "route.h"
#include "transmit.h"

/*
 * Whether the frame came to this host over a plain Ethernet-like device, so
 * that turning its headers round sends it back where it came from. Cloned or
 * tapped packets are fine: hippos_packet_room() gives them a head of their
 * own.
 */
static __always_inline bool plain_frame(const struct sk_buff *skb, const struct net_device *dev)
{
	if (skb->pkt_type != PACKET_HOST)
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_BROADCAST);
	if (skb_is_gso(skb))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_SEGMENTS);
	if (skb->encapsulation)
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_TUNNEL);
	/* ip_rcv() leaves only a socket that traffic control or TPROXY has chosen for the packet. */
	if (unlikely(skb->sk))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_SOCKET_CHOSEN);
	/* An unset MAC header gives a larger distance. */
	if (skb->data - skb_mac_header(skb) != ETH_HLEN)
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_DEVICE);
	if (likely(dev->type == ARPHRD_ETHER)) {
		/* A destination that is set before routing is a tunnel's metadata. */
		if (is_multicast_ether_addr(eth_hdr(skb)->h_source) || unlikely(skb->_skb_refdst))
			return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_TUNNEL);
	} else if (dev->type != ARPHRD_LOOPBACK) {
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_DEVICE);
	}
	if (dev->priv_flags & (IFF_L3MDEV_MASTER | IFF_L3MDEV_SLAVE))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_DEVICE);
	/*
	 * A bridge's netfilter, IPsec or traffic control has set an extension: a
	 * reply that ignored it could leave by a way that they forbid.
	 */
	if (skb_has_extensions((struct sk_buff *)skb))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_EXTENSION);
	return true;
}

/* Counts a pass if the packet is for our port. The UDP header, at offset at, is unchecked. */
static noinline __cold bool pass_if_to_port(const struct sk_buff *skb, unsigned int at, u16 port,
					    enum hippos_pass_reason reason)
{
	struct udphdr copy;
	const struct udphdr *uh = skb_header_pointer(skb, at, sizeof(copy), &copy);

	if (uh && uh->dest == htons(port))
		hippos_pass(HIPPOS_HOOK, reason);
	return false;
}

/* A packet with IP options, or a fragment, of which only the first has a UDP header. */
static noinline __cold bool pass_options_or_fragment(const struct sk_buff *skb, const struct iphdr *iph,
					 u16 port)
{
	return !(iph->frag_off & htons(IP_OFFSET)) &&
	       pass_if_to_port(skb, iph->ihl * 4, port,
			       ip_is_fragment(iph) ? HIPPOS_PASS_FRAGMENT : HIPPOS_PASS_OPTIONS);
}

/* The same for IPv6: the UDP header is behind extension headers. */
static noinline __cold bool pass_extended(const struct sk_buff *skb, u16 port)
{
	u8 next = ((const struct ipv6hdr *)skb->data)->nexthdr;
	__be16 fragment;
	int at = ipv6_skip_exthdr(skb, sizeof(struct ipv6hdr), &next, &fragment);

	return at >= 0 && next == IPPROTO_UDP &&
	       pass_if_to_port(skb, at, port,
			       fragment ? HIPPOS_PASS_FRAGMENT : HIPPOS_PASS_OPTIONS);
}

/* Whether the UDP header is for our port, and a reply to its sender can't start a loop. */
static __always_inline bool our_header(struct sk_buff *skb, unsigned int ip_len, u16 port)
{
	const unsigned int least = ip_len + sizeof(struct udphdr) + 1;
	const unsigned int len = skb->len;
	const struct udphdr *uh;

	/* A shorter length wraps to a large number. */
	if (len - least > HIPPOS_REQUEST_MAX - least)
		return pass_if_to_port(skb, ip_len, port, HIPPOS_PASS_LENGTH);
	if (unlikely(skb_is_nonlinear(skb)) && !pskb_may_pull(skb, ip_len + sizeof(*uh)))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_MEMORY);
	uh = (const struct udphdr *)(skb->data + ip_len);
	if (uh->dest != htons(port))
		return false;
	if (unlikely(!hippos_source_port_ok(uh, port)))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_SOURCE_PORT);
	if (unlikely(ntohs(uh->len) != len - ip_len))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_LENGTH);
	/*
	 * A packet that NFQUEUE reinjects continues in process context, where a softirq
	 * could interrupt this code.
	 */
	if (unlikely(!in_softirq()))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_CONTEXT);
	return plain_frame(skb, skb->dev);
}

static __always_inline bool fill_packet(struct sk_buff *skb, unsigned int ip_len,
				 struct hippos_packet *packet)
{
	unsigned int headers = ip_len + sizeof(struct udphdr);

	if (skb_is_nonlinear(skb) && skb_linearize(skb))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_MEMORY);
	packet->payload = skb->data + headers;
	packet->len = skb->len - headers;
	packet->room = unlikely(skb_cloned(skb)) ? 0 :
		min(packet->len + (skb_end_offset(skb) - skb->tail),
		    hippos_route_payload(packet->route, headers));
	packet->headers = headers;
	packet->interface = skb->dev->ifindex;
	packet->cpu = raw_smp_processor_id();
	packet->local = skb->dev->flags & IFF_LOOPBACK;
	return true;
}

/* Whether the checksum is good without a check: verified by the device, or of this host's own. */
static __always_inline bool csum_verified(const struct sk_buff *skb)
{
	return likely(skb->ip_summed == CHECKSUM_PARTIAL ||
		      skb->ip_summed == CHECKSUM_UNNECESSARY) || skb_csum_unnecessary(skb);
}

/*
 * Whether skb is a datagram to our port on this host that may be answered in
 * place; fills packet then. ip_rcv() has checked the IP header. A packet that
 * is passed has not been changed: the next hook or the socket decides.
 */
static __always_inline bool parse_ipv4(struct sk_buff *skb, const struct nf_hook_state *state,
				      const struct hippos_handler *handler,
				      struct hippos_packet *packet)
{
	const struct iphdr *iph = (const struct iphdr *)skb->data;
	const struct udphdr *uh;

	if (iph->protocol != IPPROTO_UDP)
		return false;
	if (unlikely(iph->ihl != 5 || ip_is_fragment(iph)))
		return pass_options_or_fragment(skb, iph, handler->port);
	if (!our_header(skb, sizeof(*iph), handler->port))
		return false;
	iph = (const struct iphdr *)skb->data;
	uh = (const struct udphdr *)(iph + 1);
	if (unlikely(hippos_policies(state->net)))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_POLICY);
	if (uh->check && !csum_verified(skb) &&
	    nf_ip_checksum(skb, NF_INET_PRE_ROUTING, sizeof(*iph), IPPROTO_UDP))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_CHECKSUM);
	packet->route = hippos_route_ipv4(handler, HIPPOS_HOOK, state->net, skb->dev, skb,
					  (const struct iphdr *)skb->data, packet);
	if (unlikely(!packet->route))
		return false;
	if (!fill_packet(skb, sizeof(*iph), packet))
		return false;
	iph = (const struct iphdr *)skb->data;
	packet->ipv4 = (__force u32)iph->saddr;
	return true;
}

/* The same for IPv6; extension headers are left to the socket. */
static __always_inline bool parse_ipv6(struct sk_buff *skb, const struct nf_hook_state *state,
				      const struct hippos_handler *handler,
				      struct hippos_packet *packet)
{
	const struct ipv6hdr *iph = (const struct ipv6hdr *)skb->data;

	if (iph->nexthdr != IPPROTO_UDP)
		return unlikely(hippos_ipv6_extended(iph)) && pass_extended(skb, handler->port);
	if (!our_header(skb, sizeof(*iph), handler->port))
		return false;
	iph = (const struct ipv6hdr *)skb->data;
	if (!((const struct udphdr *)(iph + 1))->check)
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_CHECKSUM);
	if (unlikely(hippos_policies(state->net)))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_POLICY);
	if (!csum_verified(skb) &&
	    nf_ip6_checksum(skb, NF_INET_PRE_ROUTING, sizeof(*iph), IPPROTO_UDP))
		return hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_CHECKSUM);
	packet->route = hippos_route_ipv6(handler, HIPPOS_HOOK, state->net, skb->dev, skb,
					  (const struct ipv6hdr *)skb->data, packet);
	if (unlikely(!packet->route))
		return false;
	if (!fill_packet(skb, sizeof(*iph), packet))
		return false;
	iph = (const struct ipv6hdr *)skb->data;
	packet->ipv4 = 0;
	memcpy(packet->ipv6, &iph->saddr, sizeof(packet->ipv6));
	return true;
}

/*
 * Makes len bytes at packet->payload and the headers before them writable.
 * False when memory is short, or the return path's MTU is too small; nothing has
 * changed then.
 */
bool hippos_packet_room(struct sk_buff *skb, struct hippos_packet *packet, u32 len)
{
	u32 have = packet->len + skb_tailroom(skb);
	u32 most = hippos_route_payload(packet->route, packet->headers);

	if (len > most)
		return false;
	if (pskb_expand_head(skb, 0, len > have ? SKB_DATA_ALIGN(len - have) : 0,
			     GFP_ATOMIC | __GFP_NOWARN))
		return false;
	packet->payload = skb->data + packet->headers;
	packet->room = min(packet->len + skb_tailroom(skb), most);
	return true;
}

/*
 * A second datagram with skb's headers and room for len bytes of payload,
 * for a reply that takes more than one.
 */
struct sk_buff *hippos_packet_alloc_reply(const struct sk_buff *skb,
				   struct hippos_packet *packet, u32 len, u8 **payload)
{
	unsigned int reserve = max_t(unsigned int, LL_RESERVED_SPACE(skb->dev), NET_SKB_PAD);
	struct sk_buff *reply_skb;

	if (len > hippos_route_payload(packet->route, packet->headers))
		return NULL;
	/* While a reply is sent this CPU may receive a packet, which may replace the entry. */
	if (packet->route != (const void *)packet->held) {
		memcpy(packet->held, packet->route, sizeof(packet->held));
		packet->route = (const void *)packet->held;
	}
	reply_skb = alloc_skb(reserve + packet->headers + len + skb->dev->needed_tailroom,
			 GFP_ATOMIC | __GFP_NOWARN);
	if (!reply_skb)
		return NULL;
	skb_reserve(reply_skb, reserve);
	skb_put(reply_skb, packet->headers);
	memcpy(reply_skb->data - ETH_HLEN, skb->data - ETH_HLEN, ETH_HLEN + packet->headers);
	skb_set_mac_header(reply_skb, -ETH_HLEN);
	skb_reset_network_header(reply_skb);
	skb_set_transport_header(reply_skb, packet->headers - sizeof(struct udphdr));
	reply_skb->dev = skb->dev;
	reply_skb->protocol = skb->protocol;
	skb_copy_hash(reply_skb, skb);
	skb_copy_queue_mapping(reply_skb, skb);
	if (packet->local)
		skb_dst_copy(reply_skb, skb);
	*payload = reply_skb->data + packet->headers;
	return reply_skb;
}

DEFINE_PER_CPU(u16, hippos_reply_id);

/* A checksum over the pseudo header; the device, or software in its place, adds the rest. */
static __always_inline void leave_checksum(struct sk_buff *skb, struct udphdr *uh, __sum16 pseudo)
{
	uh->check = (__force __sum16)~(__force u16)pseudo;
	skb->ip_summed = CHECKSUM_PARTIAL;
	skb->csum_start = skb->transport_header;
	skb->csum_offset = offsetof(struct udphdr, check);
}

/*
 * Removes the state that the receive path has left in the sk_buff, as
 * skb_scrub_packet() does, except extensions, which no answered packet has.
 */
static __always_inline void scrub(struct sk_buff *skb)
{
	skb_orphan(skb);
	skb->skb_iif = 0;
	skb->ignore_df = 0;
	skb_dst_drop(skb);
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	if (unlikely(skb->_nfct))
		nf_reset_ct(skb);
#endif
	nf_reset_trace(skb);
#ifdef CONFIG_NET_SWITCHDEV
	skb->offload_fwd_mark = 0;
	skb->offload_l3_fwd_mark = 0;
#endif
	ipvs_reset(skb);
	skb->mark = 0;
	skb->priority = 0;
	skb_clear_tstamp(skb);
}

/*
 * Turns a request, or a reply skb, into a reply of len bytes of payload, which are in
 * place already, and sends it. skb is no longer the caller's.
 */
static __always_inline void reply(struct sk_buff *skb, const struct hippos_packet *packet, u32 len)
{
	const struct hippos_route *route = packet->route;
	struct net_device *dev = skb->dev;
	u32 headers = packet->headers;
	void *network = skb->data;
	struct udphdr *uh = network + headers - sizeof(*uh);
	unsigned int udp_len = sizeof(*uh) + len;
	unsigned int total = headers + len;

	skb_set_tail_pointer(skb, total);
	skb_set_transport_header(skb, headers - sizeof(*uh));
	skb->len = total + ETH_HLEN;
	skb->data -= ETH_HLEN;
	skb_reset_mac_header(skb);

	/* State of the receive path must not affect the reply. */
	if (unlikely(dev->flags & IFF_LOOPBACK)) {
		/* lo needs a route, and the request's leads back to this host. */
		unsigned long dst = skb->_skb_refdst;

		skb->_skb_refdst = 0;
		scrub(skb);
		skb->_skb_refdst = dst;
	} else {
		scrub(skb);
	}

	swap(uh->source, uh->dest);
	uh->len = htons(udp_len);
	if (likely(skb->protocol == htons(ETH_P_IP))) {
		struct iphdr *iph = network;
		/* Both checksums go over the addresses, whichever way round. */
		__wsum addresses = csum_tcpudp_nofold(iph->saddr, iph->daddr, 0, 0, 0);
		u32 rest = htons(IPPROTO_UDP) + (__force u32)htons(udp_len);

		hippos_ipv4_make_reply(iph, total, addresses, route->ttl);
		leave_checksum(skb, uh, csum_fold(csum_add(addresses, (__force __wsum)rest)));
	} else {
		struct ipv6hdr *iph = network;

		hippos_ipv6_make_reply(iph, udp_len, route->ttl);
		leave_checksum(skb, uh, udp_v6_check(udp_len, &iph->saddr, &iph->daddr, 0));
	}

	hippos_route_address(route, network - ETH_HLEN);
	hippos_count_out(dev_net(dev), dev, skb->protocol == htons(ETH_P_IP), total);
	hippos_transmit(skb);
}

#ifdef HIPPOS_FRESH_REPLIES
/*
 * For benchmarks only: measures the gain from sending the request's own sk_buff
 * back. Moves the reply's payload to a new sk_buff and frees the request's.
 */
static struct sk_buff *fresh(struct sk_buff *skb, struct hippos_packet *packet, u32 len)
{
	struct sk_buff *reply_skb;
	u8 *payload;

	reply_skb = hippos_packet_alloc_reply(skb, packet, len, &payload);
	if (!reply_skb)
		return skb;
	memcpy(payload, packet->payload, len);
	consume_skb(skb);
	return reply_skb;
}
#else
static struct sk_buff *fresh(struct sk_buff *skb, struct hippos_packet *packet, u32 len)
{
	return skb;
}
#endif

/* Sends one of a reply's datagrams; the first one counts the request as received. */
void hippos_packet_reply(struct sk_buff *skb, struct hippos_packet *packet, u32 len, bool first)
{
	if (first)
		hippos_count_in(dev_net(skb->dev), skb->dev, skb->protocol == htons(ETH_P_IP));
	reply(skb, packet, len);
}

static __always_inline unsigned int answer(const struct hippos_handler *handler, struct sk_buff *skb,
					  struct hippos_packet *packet)
{
	u32 verdict = handler->receive(handler->private, skb, packet);

	if (verdict < HIPPOS_REPLY) {
		if (verdict == NF_DROP)
			hippos_count_in(dev_net(skb->dev), skb->dev,
					skb->protocol == htons(ETH_P_IP));
		return verdict;
	}
	hippos_count_in(dev_net(skb->dev), skb->dev, skb->protocol == htons(ETH_P_IP));
	skb = fresh(skb, packet, verdict - HIPPOS_REPLY);
	reply(skb, packet, verdict - HIPPOS_REPLY);
	return NF_STOLEN;
}

static unsigned int on_ipv4(void *private, struct sk_buff *skb, const struct nf_hook_state *state)
{
	const struct hippos_handler *handler = private;
	struct hippos_packet packet __uninitialized;

	return parse_ipv4(skb, state, handler, &packet) ? answer(handler, skb, &packet) : NF_ACCEPT;
}

static unsigned int on_ipv6(void *private, struct sk_buff *skb, const struct nf_hook_state *state)
{
	const struct hippos_handler *handler = private;
	struct hippos_packet packet __uninitialized;

	return parse_ipv6(skb, state, handler, &packet) ? answer(handler, skb, &packet) : NF_ACCEPT;
}

/* Runs a hook and records its service time, unless the packet was passed. */
static noinline __cold unsigned int timed(nf_hookfn *on, void *private, struct sk_buff *skb,
					  const struct nf_hook_state *state)
{
	const struct hippos_handler *handler = private;
	u64 queued = hippos_queued(skb);
	u64 began = hippos_now();
	unsigned int verdict = on(private, skb, state);
	u64 ended = hippos_now();

	if (verdict != NF_ACCEPT)
		handler->record(handler->private, HIPPOS_HOOK, ended > began ? ended - began : 0,
				queued);
	return verdict;
}

/* The hook functions; private is a handler. */
unsigned int hippos_on_ipv4(void *private, struct sk_buff *skb, const struct nf_hook_state *state)
{
	if (static_branch_unlikely(&hippos_latency))
		return timed(on_ipv4, private, skb, state);
	return on_ipv4(private, skb, state);
}

unsigned int hippos_on_ipv6(void *private, struct sk_buff *skb, const struct nf_hook_state *state)
{
	if (static_branch_unlikely(&hippos_latency))
		return timed(on_ipv6, private, skb, state);
	return on_ipv6(private, skb, state);
}

/* Whether NAT has changed the packet, or would change its reply. */
static bool translated(struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info info;
	const struct nf_conn *ct = nf_ct_get(skb, &info);

	if (!ct || !(READ_ONCE(ct->status) & IPS_NAT_MASK))
		return false;
	hippos_pass(HIPPOS_HOOK, HIPPOS_PASS_TRANSLATED);
	return true;
#else
	return false;
#endif
}

/* For the hook behind destination NAT. */
unsigned int hippos_on_ipv4_late(void *private, struct sk_buff *skb,
				 const struct nf_hook_state *state)
{
	return translated(skb) ? NF_ACCEPT : hippos_on_ipv4(private, skb, state);
}

unsigned int hippos_on_ipv6_late(void *private, struct sk_buff *skb,
				 const struct nf_hook_state *state)
{
	return translated(skb) ? NF_ACCEPT : hippos_on_ipv6(private, skb, state);
}

/* Drops a further reply that is not sent. */
void hippos_packet_free(struct sk_buff *skb)
{
	kfree_skb(skb);
}

/* Consumes a request that has no answer, without counting a drop. */
void hippos_packet_consume(struct sk_buff *skb)
{
	hippos_count_in(dev_net(skb->dev), skb->dev, skb->protocol == htons(ETH_P_IP));
	consume_skb(skb);
}
