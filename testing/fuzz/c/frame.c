// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reads frames, gives each to kmod/c/frame.h in memory of exactly its size,
 * and writes what became of it: for testing/fuzz/tests/frame.rs.
 */
#include <stdio.h>
#include <stdlib.h>

#include "kernel.h"

/* The table of return paths is the kernel's lookups: left out, but for the check of addresses. */
#define HIPPOS_ROUTE_H
struct hippos_route {
	u8 stations[2 * ETH_ALEN];
	u8 ttl;
};
#include "hippos.h"
#include "pass.h"
#include "datagram.h"

static const struct hippos_route route = {
	.stations = { 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1 },
	.ttl = 64,
};

static const struct hippos_route *hippos_route_ipv4(const struct hippos_handler *handler, u32 kind,
						    struct net *net, struct net_device *dev,
						    struct sk_buff *skb, const struct iphdr *iph,
						    struct hippos_packet *packet)
{
	if (hippos_ipv4_fits(net, dev, iph))
		return &route;
	hippos_pass(kind, HIPPOS_PASS_ADDRESSES);
	return NULL;
}

static const struct hippos_route *hippos_route_ipv6(const struct hippos_handler *handler, u32 kind,
						    struct net *net, struct net_device *dev,
						    struct sk_buff *skb, const struct ipv6hdr *iph,
						    struct hippos_packet *packet)
{
	if (hippos_ipv6_fits(net, dev, iph))
		return &route;
	hippos_pass(kind, HIPPOS_PASS_ADDRESSES);
	return NULL;
}

static void hippos_route_address(const struct hippos_route *route, void *eth)
{
	memcpy(eth, route->stations, sizeof(route->stations));
}

#include "frame.h"

u16 hippos_reply_id;

/* The names of the reasons; the last one that was given. */
static const char *const names[] = {
#define X(enumerator, name, meaning) name,
	HIPPOS_PASS_REASONS(X)
#undef X
};
static const char *passed;

bool hippos_pass(unsigned int kind, unsigned int reason)
{
	passed = names[reason];
	return false;
}

/* The machine: two networks, one of them of two addresses, and a third address elsewhere. */
static struct in_ifaddr pair = {
	NULL, htonl(0xcb007100), htonl(0xcb007100), htonl(0xfffffffe), 31,
};
static struct in_ifaddr wide = {
	&pair, htonl(0xc0000201), htonl(0xc0000201), htonl(0xffffff00), 24,
};
static struct in_device addresses = { &wide };
static struct inet6_dev ipv6_on;
static struct inet6_dev ipv6_off = { .cnf.disable_ipv6 = 1 };
static struct net_device vlan = {
	.flags = IFF_UP,
	.type = ARPHRD_ETHER,
	.dev_addr = { 2, 0, 0, 0, 0, 1 },
	.ip_ptr = &addresses,
	.ip6_ptr = &ipv6_on,
};

struct net_device *__vlan_find_dev_deep_rcu(struct net_device *dev, __be16 proto, u16 vid)
{
	return vid == 5 ? &vlan : NULL;
}

u16 vlan_dev_get_egress_qos_mask(struct net_device *dev, u32 priority)
{
	return 3 << 13;
}

bool __ip_dev_find(struct net *net, __be32 address, bool reference)
{
	return address == pair.ifa_local || address == wide.ifa_local ||
	       address == htonl(0x0a090909);
}

bool ipv6_chk_addr(struct net *net, const struct in6_addr *address,
		   const struct net_device *dev, int strict)
{
	return ipv6_begins(address, (u8 [16]){ 0x20, 0x01, 0x0d, 0xb8, [15] = 1 }, 16);
}

/* The number is little-endian, as is all that goes in and out. */
static u32 get(unsigned int bytes)
{
	u8 number[4] = {};

	if (fread(number, 1, bytes, stdin) != bytes)
		exit(feof(stdin) ? 0 : 1);
	return number[0] | number[1] << 8 | number[2] << 16 | (u32)number[3] << 24;
}

static void put(u32 number, unsigned int bytes)
{
	for (; bytes; bytes--, number >>= 8)
		putchar(number & 0xff);
}

static bool parse(struct xdp_buff *xdp, const struct hippos_xdp *state, struct frame *frame,
		  struct hippos_packet *packet)
{
	if (!parse_ethernet(xdp, frame))
		return false;
	if (frame->protocol == htons(ETH_P_IP))
		return parse_ipv4(frame, state, packet);
	return frame->protocol == htons(ETH_P_IPV6) && parse_ipv6(frame, state, packet);
}

/*
 * A case: the port, 1 if the device has VLANs, 1 if it is a loopback device,
 * 1 if IPv6 is off there or 2 if the kernel has none, 1 if it is on top of
 * another device and 2 if it is a VLAN's, the reply's length, the frame's, and
 * the frame. The answer: the frame's new length, 0 if it is passed, the length
 * of the reason and the reason; of a request the length of its payload, of its
 * headers and its source; the frame.
 */
int main(void)
{
	for (;;) {
		struct net net = { .xfrm.policy_default = { XFRM_USERPOLICY_ACCEPT, XFRM_USERPOLICY_ACCEPT } };
		struct hippos_xdp state = { .handler.port = get(2), .net = &net };
		struct net_device dev = vlan;
		struct xdp_rxq_info queue = { &dev };
		struct hippos_packet packet = {};
		struct xdp_buff xdp;
		struct frame frame;
		struct list_head lower;
		u32 most, len, upper;
		u8 *kept;

		dev.vlan_info = get(1) ? &vlan : NULL;
		if (get(1))
			dev.flags |= IFF_LOOPBACK;
		dev.ip6_ptr = (struct inet6_dev *[]){ &ipv6_on, &ipv6_off, NULL }[get(1)];
		upper = get(1);
		dev.adj_list.lower.next = upper ? &lower : &dev.adj_list.lower;
		if (upper == 2)
			dev.priv_flags |= IFF_802_1Q_VLAN;
		most = get(2);
		len = get(2);
		/* Not a byte more is the frame's. */
		xdp = (struct xdp_buff){ malloc(len), NULL, &queue };
		kept = malloc(len);
		if (fread(kept, 1, len, stdin) != len)
			return 1;
		memcpy(xdp.data, kept, len);
		xdp.data_end = xdp.data + len;
		passed = "";
		if (parse(&xdp, &state, &frame, &packet)) {
			packet.payload = frame.network + packet.headers;
			if (most > packet.len)
				most = packet.len;
			make_reply_headers(&frame, &packet, most);
			len = packet.payload + most - (u8 *)xdp.data;
		} else {
			if (memcmp(kept, xdp.data, len))
				return 2;
			len = 0;
		}
		put(len, 4);
		put(strlen(passed), 1);
		fwrite(passed, 1, strlen(passed), stdout);
		if (len) {
			put(packet.len, 4);
			put(packet.headers, 2);
			fwrite(&packet.ipv4, 1, 4, stdout);
			fwrite(packet.ipv6, 1, 16, stdout);
			fwrite(xdp.data, 1, len, stdout);
		}
		free(kept);
		free(xdp.data);
	}
}
