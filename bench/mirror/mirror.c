// SPDX-License-Identifier: GPL-2.0-only
/*
 * The packet mirror: the least that a Netfilter hook can do to answer.
 *
 * Sends each UDP packet for its port back as it is, with the addresses
 * swapped. No key is looked up and no length changes, so the checksums stay
 * right as they are. It is the limit that benchmarks measure Hippos against,
 * and of no other use; it is not part of hippos.ko.
 */
#include <linux/etherdevice.h>
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/skbuff.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/net_namespace.h>

/* It sends as Hippos does. */
#include "../../kmod/c/transmit.c"

static unsigned short port = 11211;
module_param(port, ushort, 0444);
MODULE_PARM_DESC(port, "UDP port to answer on (default 11211)");

static unsigned int way = HIPPOS_TOGETHER;
module_param(way, uint, 0444);
MODULE_PARM_DESC(way, "how packets leave: 0 queued, 1 past an empty queue, 2 several at once (default)");

static unsigned int mirror(void *priv, struct sk_buff *skb,
			   const struct nf_hook_state *state)
{
	struct ethhdr *eth;
	struct iphdr *ip;
	struct udphdr *udp;
	u8 mac[ETH_ALEN];

	if (skb->pkt_type != PACKET_HOST || skb_is_gso(skb) ||
	    !skb_mac_header_was_set(skb) || skb->data - skb_mac_header(skb) != ETH_HLEN)
		return NF_ACCEPT;
	ip = ip_hdr(skb);
	if (ip->protocol != IPPROTO_UDP || ip->ihl != 5 || ip_is_fragment(ip))
		return NF_ACCEPT;
	if (!pskb_may_pull(skb, sizeof(*ip) + sizeof(*udp)) ||
	    skb_ensure_writable(skb, sizeof(*ip) + sizeof(*udp)))
		return NF_ACCEPT;
	ip = ip_hdr(skb);
	udp = (struct udphdr *)(ip + 1);
	if (udp->dest != htons(port))
		return NF_ACCEPT;

	swap(ip->saddr, ip->daddr);
	swap(udp->source, udp->dest);
	eth = eth_hdr(skb);
	ether_addr_copy(mac, eth->h_source);
	ether_addr_copy(eth->h_source, eth->h_dest);
	ether_addr_copy(eth->h_dest, mac);

	skb_orphan(skb);
	skb_dst_drop(skb);
	/* A checksum that is still the device's to finish stays so. */
	if (skb->ip_summed != CHECKSUM_PARTIAL)
		skb->ip_summed = CHECKSUM_NONE;
	skb->priority = 0;
	skb_clear_tstamp(skb);
	skb_push(skb, ETH_HLEN);
	hippos_transmit(skb);
	return NF_STOLEN;
}

static const struct nf_hook_ops hook = {
	.hook = mirror,
	.pf = NFPROTO_IPV4,
	.hooknum = NF_INET_PRE_ROUTING,
	.priority = -425,
};

static int __init mirror_init(void)
{
	int err = hippos_transmit_start(min_t(unsigned int, way, HIPPOS_TOGETHER));

	if (err)
		return err;
	err = nf_register_net_hook(&init_net, &hook);
	if (err)
		hippos_transmit_stop();
	return err;
}

static void __exit mirror_exit(void)
{
	nf_unregister_net_hook(&init_net, &hook);
	/* Unregistering does not wait for packets inside the hook. */
	synchronize_net();
	hippos_transmit_stop();
}

module_init(mirror_init);
module_exit(mirror_exit);
MODULE_DESCRIPTION("Sends UDP packets back: the limit for benchmarks of Hippos");
MODULE_LICENSE("GPL");
