/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * XDP's part of reading and writing headers: whether a frame, whose headers
 * nothing has checked and which may end anywhere, is a request, and the
 * headers of the reply. For xdp.c, and for the machine that
 * testing/fuzz/tests/frame.rs compiles it for.
 */
#ifndef HIPPOS_FRAME_H
#define HIPPOS_FRAME_H

#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <net/ip6_checksum.h>
#include <net/udp.h>
#include <net/xdp.h>

#include "datagram.h"
#include "hippos.h"
#include "pass.h"
#include "route.h"

struct hippos_xdp {
	struct hippos_handler handler;
	struct net *net;
};

/* A frame as far as its network header. */
struct frame {
	struct ethhdr *eth;
	void *network;
	/* Bytes from the network header on, padding included. */
	u32 len;
	__be16 protocol;
	/* The receiving interface, or the VLAN on top of it. */
	struct net_device *dev;
};

static bool has_vlans(const struct net_device *dev)
{
#if IS_ENABLED(CONFIG_VLAN_8021Q)
	return rcu_access_pointer(dev->vlan_info);
#else
	return false;
#endif
}

/*
 * Whether the card may have taken the VLAN tag out of a frame: XDP can't see
 * that the frame had one, nor to which VLAN it belongs. A card that filters
 * VLANs and has no VLAN interface drops all tagged frames but those of VLAN 0,
 * which are this interface's own, unless it is promiscuous.
 */
static bool tags_hidden(const struct net_device *dev)
{
	netdev_features_t features = dev->features;

	if (!(features & (NETIF_F_HW_VLAN_CTAG_RX | NETIF_F_HW_VLAN_STAG_RX)))
		return false;
	if (has_vlans(dev) || READ_ONCE(dev->flags) & IFF_PROMISC)
		return true;
	return (features & NETIF_F_HW_VLAN_CTAG_RX && !(features & NETIF_F_HW_VLAN_CTAG_FILTER)) ||
	       (features & NETIF_F_HW_VLAN_STAG_RX && !(features & NETIF_F_HW_VLAN_STAG_FILTER));
}

/*
 * Whether the device has lower devices: a bridge, a bond, macvlan. The kernel
 * takes a VLAN tag out at the lower one, and runs generic XDP of the upper one
 * before it looks for the VLAN's interface. On that interface itself no tag is
 * hidden. Whether the list is empty needs no lock.
 */
static bool is_upper(const struct net_device *dev)
{
	return !list_empty(&dev->adj_list.lower) && !is_vlan_dev(dev);
}

/*
 * Whether the frame is for this host's network layer, by the interface's own
 * address. Frames of a bridge's, a bond's or a VRF's port are passed.
 */
static bool parse_ethernet(const struct xdp_buff *xdp, struct frame *frame)
{
	struct net_device *dev = xdp->rxq->dev;
	void *end = xdp->data_end;
	struct ethhdr *eth = xdp->data;
	void *network = eth + 1;

	if (network > end)
		return false;
	if (unlikely(is_upper(dev)))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_DEVICE);
	if (tags_hidden(dev))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_VLAN);
	frame->protocol = eth->h_proto;
	if (frame->protocol == htons(ETH_P_8021Q)) {
		const struct vlan_hdr *vlan = network;

		network = (void *)(vlan + 1);
		/* A device without VLANs may be a port of a device that has some. */
		if (network > end || !has_vlans(dev))
			return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_VLAN);
		frame->protocol = vlan->h_vlan_encapsulated_proto;
		dev = __vlan_find_dev_deep_rcu(dev, htons(ETH_P_8021Q),
					       ntohs(vlan->h_vlan_TCI) & VLAN_VID_MASK);
		if (!dev || !(dev->flags & IFF_UP))
			return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_VLAN);
	}
	if (dev->type != ARPHRD_ETHER && dev->type != ARPHRD_LOOPBACK)
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_DEVICE);
	if (!ether_addr_equal(eth->h_dest, dev->dev_addr) ||
	    is_multicast_ether_addr(eth->h_source))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_BROADCAST);
	if (rcu_access_pointer(dev->rx_handler) ||
	    (dev->priv_flags & (IFF_L3MDEV_MASTER | IFF_L3MDEV_SLAVE)))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_DEVICE);
	frame->eth = eth;
	frame->network = network;
	frame->len = end - network;
	frame->dev = dev;
	return true;
}

/* Whether the UDP header, which nothing has checked, is for our port and its length right. */
static __always_inline bool parse_udp(const struct udphdr *uh, u32 udp_len, u16 port)
{
	if (uh->dest != htons(port))
		return false;
	if (!hippos_source_port_ok(uh, port))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_SOURCE_PORT);
	if (ntohs(uh->len) != udp_len || udp_len <= sizeof(*uh))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_LENGTH);
	return true;
}

static bool parse_ipv4(const struct frame *frame, const struct hippos_xdp *xdp,
		      struct hippos_packet *packet)
{
	const struct iphdr *iph = frame->network;
	const struct udphdr *uh = (const struct udphdr *)(iph + 1);
	u32 len, udp_len;

	if (frame->len < sizeof(*iph) + sizeof(*uh))
		return false;
	if (iph->version != 4 || iph->protocol != IPPROTO_UDP)
		return false;
	if (iph->ihl != 5)
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_OPTIONS);
	if (ip_is_fragment(iph))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_FRAGMENT);
	/* A frame may be padded. */
	len = ntohs(iph->tot_len);
	if (len > frame->len || len < sizeof(*iph) + sizeof(*uh))
		return uh->dest == htons(xdp->handler.port) &&
		       hippos_pass(HIPPOS_XDP, HIPPOS_PASS_LENGTH);
	udp_len = len - sizeof(*iph);
	if (!parse_udp(uh, udp_len, xdp->handler.port))
		return false;
	if (hippos_policies(xdp->net))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_POLICY);
	if (ip_fast_csum(iph, sizeof(*iph) / 4))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_CHECKSUM);
	if (uh->check && csum_tcpudp_magic(iph->saddr, iph->daddr, udp_len, IPPROTO_UDP,
					   csum_partial(uh, udp_len, 0)))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_CHECKSUM);
	packet->route = hippos_route_ipv4(&xdp->handler, HIPPOS_XDP, xdp->net, frame->dev, NULL, iph,
					  packet);
	if (!packet->route)
		return false;
	packet->len = udp_len - sizeof(*uh);
	packet->headers = sizeof(*iph) + sizeof(*uh);
	packet->ipv4 = (__force u32)iph->saddr;
	return true;
}

static bool parse_ipv6(const struct frame *frame, const struct hippos_xdp *xdp,
		      struct hippos_packet *packet)
{
	const struct ipv6hdr *iph = frame->network;
	const struct udphdr *uh = (const struct udphdr *)(iph + 1);
	u32 udp_len;

	if (frame->len < sizeof(*iph) + sizeof(*uh))
		return false;
	if (iph->version != 6)
		return false;
	if (iph->nexthdr != IPPROTO_UDP)
		return hippos_ipv6_extended(iph) && hippos_pass(HIPPOS_XDP, HIPPOS_PASS_OPTIONS);
	udp_len = ntohs(iph->payload_len);
	if (udp_len > frame->len - sizeof(*iph))
		return uh->dest == htons(xdp->handler.port) &&
		       hippos_pass(HIPPOS_XDP, HIPPOS_PASS_LENGTH);
	if (!parse_udp(uh, udp_len, xdp->handler.port))
		return false;
	if (!uh->check)
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_CHECKSUM);
	if (hippos_policies(xdp->net))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_POLICY);
	if (csum_ipv6_magic(&iph->saddr, &iph->daddr, udp_len, IPPROTO_UDP,
			    csum_partial(uh, udp_len, 0)))
		return hippos_pass(HIPPOS_XDP, HIPPOS_PASS_CHECKSUM);
	packet->route = hippos_route_ipv6(&xdp->handler, HIPPOS_XDP, xdp->net, frame->dev, NULL, iph,
					  packet);
	if (!packet->route)
		return false;
	packet->len = udp_len - sizeof(*uh);
	packet->headers = sizeof(*iph) + sizeof(*uh);
	packet->ipv4 = 0;
	memcpy(packet->ipv6, &iph->saddr, sizeof(packet->ipv6));
	return true;
}

/* Turns the request's headers into those of a reply of len bytes, which is in place. */
static void make_reply_headers(const struct frame *frame, const struct hippos_packet *packet, u32 len)
{
	struct udphdr *uh = (struct udphdr *)packet->payload - 1;
	u32 udp_len = sizeof(*uh) + len;

	hippos_route_address(packet->route, frame->eth);
	if (frame->network != frame->eth + 1) {
		struct vlan_hdr *vlan = (struct vlan_hdr *)(frame->eth + 1);

		/* The request's priority is not the reply's. */
		vlan->h_vlan_TCI &= htons(VLAN_VID_MASK);
		vlan->h_vlan_TCI |= htons(vlan_dev_get_egress_qos_mask(frame->dev, 0));
	}
	swap(uh->source, uh->dest);
	uh->len = htons(udp_len);
	uh->check = 0;
	if (frame->protocol == htons(ETH_P_IP)) {
		struct iphdr *iph = frame->network;

		__wsum addresses = csum_tcpudp_nofold(iph->saddr, iph->daddr, 0, 0, 0);
		u32 rest = htons(IPPROTO_UDP) + (__force u32)uh->len;

		hippos_ipv4_make_reply(iph, sizeof(*iph) + udp_len, addresses, packet->route->ttl);
		uh->check = csum_fold(csum_partial(uh, udp_len,
						   csum_add(addresses, (__force __wsum)rest)));
	} else {
		struct ipv6hdr *iph = frame->network;

		hippos_ipv6_make_reply(iph, udp_len, packet->route->ttl);
		uh->check = udp_v6_check(udp_len, &iph->saddr, &iph->daddr,
					 csum_partial(uh, udp_len, 0));
	}
	if (!uh->check)
		uh->check = CSUM_MANGLED_0;
}

#endif
