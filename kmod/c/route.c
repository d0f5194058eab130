// SPDX-License-Identifier: GPL-2.0-only
/*
 * The return path of replies in place (net/route.h, net/ip6_route.h,
 * net/neighbour.h): on a miss the kernel's own lookups, in both directions,
 * as they are made for a socket that receives the request and sends the reply.
 * A reply leaves in place if a socket's reply would leave by the device that the
 * request came by, to a neighbour whose address is resolved; the socket answers
 * all other requests.
 *
 * An entry holds for HIPPOS_ROUTE_AGE at most, and not beyond a change of
 * routes, rules, addresses, devices or of a neighbour that replies were sent
 * to: each of these increments the generation, which is read before a lookup
 * begins.
 *
 * The number of lookups a CPU and tick is limited; beyond it requests go to the
 * socket. A source that is not allowed causes no lookup.
 */
#include <linux/delay.h>
#include <linux/if_arp.h>
#include <linux/inetdevice.h>
#include <linux/jhash.h>
#include <linux/mm.h>
#include <linux/netdevice.h>
#include <linux/notifier.h>
#include <linux/random.h>
#include <linux/rtnetlink.h>
#include <linux/skbuff.h>
#include <linux/workqueue.h>
#include <net/addrconf.h>
#include <net/arp.h>
#include <net/fib_notifier.h>
#include <net/fib_rules.h>
#include <net/ip6_route.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/netevent.h>
#include <net/nexthop.h>
#include <net/route.h>

#include "counters.h"
#include "datagram.h"
#include "firewall.h"
#include "hippos.h"
#include "pass.h"
#include "route.h"

/* Lookups a second on one CPU: for sources without an entry, and for all. */
#define NEW_LOOKUPS 10000
#define ALL_LOOKUPS 40000

/*
 * So many ticks after a neighbour was not known it is looked at again, since no
 * notification says that the socket's reply has resolved it.
 */
#define NEIGHBOUR_AGE 2

DEFINE_PER_CPU(struct hippos_routes *, hippos_routes);

/* Starts at 1: an entry that was never filled has 0. */
u32 hippos_route_generation = 1;

static struct net *served;

void hippos_routes_changed(void)
{
	/* A reader of the new number sees all earlier writes. */
	smp_mb__before_atomic();
	atomic_inc((atomic_t *)&hippos_route_generation);
	hippos_count(ROUTE_CHANGES);
}

/*
 * The neighbours that replies went to: each slot has a hash of the neighbour's key,
 * and its address. Only a change of one of these voids the cached routes: most
 * announcements of neighbours change no reply, and a large network has many. The
 * hash is keyed with a secret, so that no client can choose addresses that share
 * a slot.
 */
#define KNOWN 16384
static u64 known[KNOWN];
static u32 known_secret;

/*
 * Marks a slot that several neighbours share. The slot has lost the earlier ones'
 * addresses, so that each announcement is taken as a change. No unicast address has
 * this bit.
 */
#define SHARED BIT_ULL(40)

static u64 *known_slot(const struct neighbour *n, const u8 *address, u64 *value)
{
	u32 hash = jhash(n->primary_key, n->tbl->key_len, n->dev->ifindex ^ known_secret);

	*value = (u64)(hash >> 16 | 1) << 48 | ether_addr_to_u64(address);
	return &known[hash % KNOWN];
}

static bool usable(const struct neighbour *n)
{
	return READ_ONCE(n->nud_state) & NUD_VALID && !READ_ONCE(n->dead);
}

/*
 * Gets a valid neighbour's address, and triggers the same reachability checks as
 * a packet to it does.
 */
static bool ask_neighbour(struct neighbour *n, struct net_device *dev, u8 *address)
{
	u8 now[MAX_ADDR_LEN], again[MAX_ADDR_LEN];
	u64 before, shared, value, *slot;

	if (!n || !usable(n) || neigh_event_send(n, NULL))
		return false;
	neigh_ha_snapshot(now, n, dev);
	if (is_multicast_ether_addr(now))
		return false;
	slot = known_slot(n, now, &value);
	/*
	 * A full barrier, which pairs with the one in on_neighbour(): either that
	 * function finds the slot filled, or its change is seen below.
	 */
	before = READ_ONCE(*slot);
	do {
		shared = before && before >> 48 != value >> 48 ? SHARED : before & SHARED;
	} while (!try_cmpxchg(slot, &before, value | shared));
	neigh_ha_snapshot(again, n, dev);
	/*
	 * The neighbour's address has changed: on_neighbour(), if it runs later, does
	 * not find the old address in the slot, which entries still have.
	 */
	if ((before >> 48 == value >> 48 && (before & ~SHARED) != value) ||
	    !ether_addr_equal(now, again))
		hippos_routes_changed();
	if (!usable(n) || !ether_addr_equal(now, again))
		return false;
	ether_addr_copy(address, now);
	return true;
}

static void on_neighbour(struct neighbour *n)
{
	u8 address[MAX_ADDR_LEN] = {};
	u64 seen, value, *slot;

	if (!net_eq(dev_net(n->dev), served) || n->dev->addr_len != ETH_ALEN)
		return;
	neigh_ha_snapshot(address, n, n->dev);
	slot = known_slot(n, address, &value);
	/* Pairs with the barrier in ask_neighbour(). */
	smp_mb();
	seen = READ_ONCE(*slot);
	/* No reply went to it: the slot is empty, or another neighbour's alone. */
	if (!seen || (!(seen & SHARED) && seen >> 48 != value >> 48))
		return;
	if (seen == value && usable(n))
		return;
	/* A lookup that fills the slot meanwhile has an older generation than the one below. */
	WRITE_ONCE(*slot, 0);
	hippos_routes_changed();
}

#if defined(CONFIG_IP_MULTIPLE_TABLES) || defined(CONFIG_IPV6_MULTIPLE_TABLES)
/*
 * The kernel's own count, fib_rules_require_fldissect, leaves out the rules of
 * "iif lo", which are those of packets that this host sends.
 */
static bool rules_by_ports(const struct fib_rules_ops *ops)
{
	const struct fib_rule *rule;

	list_for_each_entry_rcu(rule, &ops->rules_list, list)
		if (rule->ip_proto || fib_rule_port_range_set(&rule->sport_range) ||
		    fib_rule_port_range_set(&rule->dport_range))
			return true;
	return false;
}
#endif

/*
 * Whether a rule matches a protocol or ports, which an entry does not have: its
 * result could not be cached. A rule that is added later voids the entry.
 */
static bool rules_look_deeper(const struct net *net, bool ipv4)
{
#ifdef CONFIG_IP_MULTIPLE_TABLES
	if (ipv4)
		return READ_ONCE(net->ipv4.fib_has_custom_rules) &&
		       rules_by_ports(net->ipv4.rules_ops);
#endif
#ifdef CONFIG_IPV6_MULTIPLE_TABLES
	if (!ipv4)
		return READ_ONCE(net->ipv6.fib6_has_custom_rules) &&
		       rules_by_ports(net->ipv6.fib6_rules_ops);
#endif
	return false;
}

/* An sk_buff with a frame's headers, for the kernel functions that need one. */
static struct sk_buff *sample(struct net_device *dev, const void *network, unsigned int headers,
			      __be16 protocol)
{
	struct sk_buff *skb = alloc_skb(NET_SKB_PAD + ETH_HLEN + headers,
					GFP_ATOMIC | __GFP_NOWARN);
	struct ethhdr *eth;

	if (!skb)
		return NULL;
	skb_reserve(skb, NET_SKB_PAD);
	eth = skb_put(skb, ETH_HLEN);
	/* With a VLAN tag the Ethernet header lies further in front; only logs show this copy. */
	memcpy(eth, network - ETH_HLEN, ETH_HLEN);
	eth->h_proto = protocol;
	skb_reset_mac_header(skb);
	skb_pull(skb, ETH_HLEN);
	skb_put_data(skb, network, headers);
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, headers - sizeof(struct udphdr));
	skb->dev = dev;
	skb->skb_iif = dev->ifindex;
	skb->protocol = protocol;
	return skb;
}

/* Whether routing would deliver a packet with these headers to this host. */
static bool comes_in_ipv4(struct sk_buff *skb, struct net_device *dev, const struct iphdr *iph)
{
	struct rtable *rt;
	bool in = false;

	if (!ip_route_input_noref(skb, iph->daddr, iph->saddr, ip4h_dscp(iph), dev)) {
		rt = skb_rtable(skb);
		in = rt && rt->rt_type == RTN_LOCAL && !rt->dst.error && !rt->dst.lwtstate;
	}
	skb_dst_drop(skb);
	return in;
}

static bool comes_in_ipv6(struct sk_buff *skb)
{
	const struct dst_entry *dst;
	bool in;

	ip6_route_input(skb);
	dst = skb_dst(skb);
	in = dst && !dst->error && !dst->lwtstate &&
	     dst_rt6_info(dst)->rt6i_flags & RTF_LOCAL &&
	     !(dst_rt6_info(dst)->rt6i_flags & RTF_ANYCAST);
	skb_dst_drop(skb);
	return in;
}

static bool comes_in(struct sk_buff *skb, struct net_device *dev, const void *network, bool ipv4)
{
	unsigned int headers = ipv4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	struct sk_buff *stand_in = NULL;
	bool in;

	/* A packet on lo already has its route. */
	if (dev->flags & IFF_LOOPBACK)
		return true;
	if (!skb) {
		stand_in = sample(dev, network, headers + sizeof(struct udphdr),
				  ipv4 ? htons(ETH_P_IP) : htons(ETH_P_IPV6));
		if (!stand_in)
			return false;
		skb = stand_in;
		network = skb_network_header(skb);
	}
	in = ipv4 ? comes_in_ipv4(skb, dev, network) : comes_in_ipv6(skb);
	kfree_skb_reason(stand_in, SKB_CONSUMED);
	return in;
}

/* Whether dst is a plain route by dev: no error, no encapsulation, no IPsec. */
static bool leaves_by(const struct dst_entry *dst, const struct net_device *dev)
{
	return dst_dev(dst) == dev && !dst->error && !dst->lwtstate
#ifdef CONFIG_XFRM
	       && !dst->xfrm
#endif
	       ;
}

/* Fills the rest of an entry from a route and its next hop. */
static bool fill(struct hippos_route *route, const struct dst_entry *dst, struct net_device *dev,
		 struct neighbour *n, int ttl)
{
	u32 mtu = dst_mtu(dst);

	route->mtu = min_t(u32, mtu, U16_MAX);
	route->ttl = ttl;
	if (dev->flags & IFF_LOOPBACK) {
		memset(route->stations, 0, sizeof(route->stations));
		return true;
	}
	memcpy(route->stations + ETH_ALEN, dev->dev_addr, ETH_ALEN);
	route->why = HIPPOS_PASS_NEIGHBOUR;
	return ask_neighbour(n, dev, route->stations);
}

/* Whether a socket's reply would leave by dev; fills the entry then. */
static bool leaves_ipv4(const struct hippos_handler *handler, struct net *net, struct net_device *dev,
			const struct iphdr *iph, struct hippos_route *route)
{
	const struct udphdr *uh = (const struct udphdr *)(iph + 1);
	bool loopback = dev->flags & IFF_LOOPBACK;
	struct neighbour *n = NULL;
	struct flowi4 flow;
	struct rtable *rt;
	bool here;

	flowi4_init_output(&flow, handler->interface, 0, 0, RT_SCOPE_UNIVERSE, IPPROTO_UDP, 0,
			   iph->saddr, iph->daddr, uh->source, uh->dest,
			   sock_net_uid(net, NULL));
	rt = ip_route_output_flow(net, &flow, NULL);
	if (IS_ERR(rt))
		return false;
	here = rt->rt_type == (loopback ? RTN_LOCAL : RTN_UNICAST) && leaves_by(&rt->dst, dev);
	if (here && !loopback) {
		if (rt->rt_gw_family == AF_INET6)
			n = __ipv6_neigh_lookup_noref(dev, &rt->rt_gw6);
		else
			n = __ipv4_neigh_lookup_noref(dev, rt->rt_gw_family == AF_INET ?
						      (__force u32)rt->rt_gw4 :
						      (__force u32)iph->saddr);
	}
	here = here && fill(route, &rt->dst, dev, n, ip4_dst_hoplimit(&rt->dst));
	ip_rt_put(rt);
	return here;
}

static bool leaves_ipv6(const struct hippos_handler *handler, struct net *net, struct net_device *dev,
			const struct ipv6hdr *iph, struct hippos_route *route)
{
	const struct udphdr *uh = (const struct udphdr *)(iph + 1);
	bool loopback = dev->flags & IFF_LOOPBACK;
	struct flowi6 flow = {
		.flowi6_oif = handler->interface,
		.flowi6_proto = IPPROTO_UDP,
		.flowi6_uid = sock_net_uid(net, NULL),
		.daddr = iph->saddr,
		.saddr = iph->daddr,
		.fl6_dport = uh->source,
		.fl6_sport = uh->dest,
	};
	struct neighbour *n = NULL;
	struct dst_entry *dst;
	bool here;

	/* A link-local address is unique on its link only. */
	if (ipv6_addr_type(&iph->saddr) & IPV6_ADDR_LINKLOCAL ||
	    ipv6_addr_type(&iph->daddr) & IPV6_ADDR_LINKLOCAL)
		flow.flowi6_oif = dev->ifindex;
	dst = ip6_route_output(net, NULL, &flow);
	here = leaves_by(dst, dev) &&
	       !(dst_rt6_info(dst)->rt6i_flags & (RTF_REJECT | RTF_ANYCAST)) &&
	       !!(dst_rt6_info(dst)->rt6i_flags & RTF_LOCAL) == loopback;
	if (here && !loopback)
		n = __ipv6_neigh_lookup_noref(dev, rt6_nexthop(dst_rt6_info(dst), &iph->saddr));
	here = here && fill(route, dst, dev, n, ip6_dst_hoplimit(dst));
	dst_release(dst);
	return here;
}

/* Whether one more lookup may be made in this tick. */
static bool may_look(struct hippos_routes *routes, bool again)
{
	unsigned long now = jiffies;

	if (routes->tick != now) {
		routes->tick = now;
		routes->spent = 0;
	}
	if (routes->spent >= max(1, (again ? ALL_LOOKUPS : NEW_LOOKUPS) / HZ)) {
		hippos_count(ROUTE_LIMITED);
		return false;
	}
	routes->spent++;
	return true;
}

/* Whether the entry is for these addresses; it may be outdated. */
static bool is_for(const struct hippos_route *route, unsigned long dev, const void *addresses,
		   size_t len)
{
	return (route->dev & ~HIPPOS_ELSEWHERE) == dev && !memcmp(route, addresses, len);
}

/* Whether a socket would get the request; sets route->why, for the return path's lookup too. */
static bool comes(struct net *net, struct net_device *dev, struct sk_buff *skb,
		  const void *network, bool ipv4, struct hippos_route *route)
{
	route->why = HIPPOS_PASS_RULES;
	if (rules_look_deeper(net, ipv4))
		return false;
	route->why = HIPPOS_PASS_ADDRESSES;
	if (ipv4 ? !hippos_ipv4_fits(net, dev, network) :
		   !hippos_ipv6_fits(net, dev, network))
		return false;
	route->why = HIPPOS_PASS_ROUTE_IN;
	if (!comes_in(skb, dev, network, ipv4))
		return false;
	route->why = HIPPOS_PASS_ROUTE_OUT;
	return true;
}

static const struct hippos_route *slow(const struct hippos_handler *handler, struct net *net,
				       struct net_device *dev, struct sk_buff *skb,
				       const void *network, bool ipv4,
				       struct hippos_packet *packet)
{
	struct hippos_routes *routes = this_cpu_read(hippos_routes);
	struct hippos_route *way[2], *route = NULL;
	struct hippos_route found = {
		.dev = hippos_route_dev(dev, handler->kind),
		.generation = READ_ONCE(hippos_route_generation),
		.looked_up = jiffies,
	};
	const void *addresses;
	bool here;
	size_t len;
	int i;

	/* All later reads, of the firewall's state too, are newer than the generation. */
	smp_rmb();
	if (ipv4) {
		const struct iphdr *iph = network;
		u32 hash;

		addresses = &iph->saddr;
		len = 2 * sizeof(iph->saddr);
		hash = hippos_route_hash_ipv4(get_unaligned((const u64 *)addresses));
		way[0] = &routes->ipv4[hash];
		way[1] = &routes->ipv4[hash ^ 1];
		packet->ipv4 = (__force u32)iph->saddr;
	} else {
		const struct ipv6hdr *iph = network;
		u32 hash = hippos_route_hash_ipv6(&iph->saddr);

		addresses = &iph->saddr;
		len = 2 * sizeof(iph->saddr);
		way[0] = &routes->ipv6[hash];
		way[1] = &routes->ipv6[hash ^ 1];
		packet->ipv4 = 0;
		memcpy(packet->ipv6, &iph->saddr, sizeof(packet->ipv6));
	}
	for (i = 0; i < ARRAY_SIZE(way); i++)
		if (is_for(way[i], found.dev, addresses, len)) {
			route = way[i];
			break;
		}
	if (route && hippos_route_holds(route)) {
		if (!(route->dev & HIPPOS_ELSEWHERE))
			return route;
		if (route->why != HIPPOS_PASS_NEIGHBOUR ||
		    (u32)jiffies - route->looked_up < NEIGHBOUR_AGE) {
			hippos_pass(handler->kind, route->why);
			return NULL;
		}
	}

	packet->local = dev->flags & IFF_LOOPBACK;
	packet->interface = dev->ifindex;
	if (hippos_firewall_closed(handler->kind, net, ipv4)) {
		hippos_pass(handler->kind, HIPPOS_PASS_FIREWALL);
		return NULL;
	}
	if (!handler->allow(handler->private, packet)) {
		hippos_pass(handler->kind, HIPPOS_PASS_SOURCE);
		return NULL;
	}
	/* A neighbour that stays unknown is asked for often: its lookups are bounded as those of new sources are. */
	if (!may_look(routes, route && route->why != HIPPOS_PASS_NEIGHBOUR)) {
		hippos_pass(handler->kind, HIPPOS_PASS_LOOKUPS);
		return NULL;
	}
	hippos_count(ROUTE_LOOKUPS);
	memcpy(&found, addresses, len);
	here = comes(net, dev, skb, network, ipv4, &found);
	/* Headers may have moved, if the lookup made the packet linear. */
	if (skb)
		network = skb_network_header(skb);
	here = here && (ipv4 ? leaves_ipv4(handler, net, dev, network, &found) :
			       leaves_ipv6(handler, net, dev, network, &found));
	if (!here) {
		found.dev |= HIPPOS_ELSEWHERE;
		hippos_pass(handler->kind, found.why);
		hippos_count(ROUTE_ELSEWHERE);
	}
	if (!route) {
		/* The first way if it is free, else the one that was filled longer ago. */
		route = way[0];
		if (hippos_route_holds(way[0]) &&
		    (!hippos_route_holds(way[1]) ||
		     (s32)(way[1]->looked_up - way[0]->looked_up) < 0))
			route = way[1];
	}
	*route = found;
	return here ? route : NULL;
}

noinline const struct hippos_route *
hippos_route_ipv4_slow(const struct hippos_handler *handler, struct net *net, struct net_device *dev,
		       struct sk_buff *skb, const struct iphdr *iph, struct hippos_packet *packet)
{
	return slow(handler, net, dev, skb, iph, true, packet);
}

noinline const struct hippos_route *
hippos_route_ipv6_slow(const struct hippos_handler *handler, struct net *net, struct net_device *dev,
		       struct sk_buff *skb, const struct ipv6hdr *iph,
		       struct hippos_packet *packet)
{
	return slow(handler, net, dev, skb, iph, false, packet);
}

/*
 * Some changes are announced before they are made: routes under RTNL or with
 * softirqs off, rules under a lock of their own. A lookup in between could cache
 * the old result, so that the entries are voided once more, a tick later.
 */
static void changed_by_now(struct work_struct *work)
{
	rtnl_lock();
	hippos_routes_changed();
	rtnl_unlock();
}

static DECLARE_DELAYED_WORK(later, changed_by_now);

static int on_route(struct notifier_block *nb, unsigned long event, void *info)
{
	hippos_routes_changed();
	schedule_delayed_work(&later, 1);
	return NOTIFY_DONE;
}

/* These notifiers report changes of all namespaces; only ours void the entries. */
static void changed_in(const struct net *net)
{
	if (net_eq(net, served))
		hippos_routes_changed();
}

static int on_netevent(struct notifier_block *nb, unsigned long event, void *info)
{
	switch (event) {
	case NETEVENT_NEIGH_UPDATE:
		on_neighbour(info);
		break;
	case NETEVENT_IPV4_MPATH_HASH_UPDATE:
	case NETEVENT_IPV6_MPATH_HASH_UPDATE:
	case NETEVENT_IPV4_FWD_UPDATE_PRIORITY_UPDATE:
		changed_in(info);
		break;
	/*
	 * A redirect, like a path MTU, takes effect when an entry expires: the network
	 * sends them, and each could void all entries.
	 */
	default:
		break;
	}
	return NOTIFY_DONE;
}

static int on_device(struct notifier_block *nb, unsigned long event, void *info)
{
	changed_in(dev_net(netdev_notifier_info_to_dev(info)));
	return NOTIFY_DONE;
}

static int on_ipv4_address(struct notifier_block *nb, unsigned long event, void *info)
{
	const struct in_ifaddr *address = info;

	changed_in(dev_net(address->ifa_dev->dev));
	return NOTIFY_DONE;
}

static int on_ipv6_address(struct notifier_block *nb, unsigned long event, void *info)
{
	const struct inet6_ifaddr *address = info;

	changed_in(dev_net(address->idev->dev));
	return NOTIFY_DONE;
}

static struct notifier_block route_nb = { .notifier_call = on_route };
static struct notifier_block nexthop_nb = { .notifier_call = on_route };
static struct notifier_block netevent_nb = { .notifier_call = on_netevent };
static struct notifier_block device_nb = { .notifier_call = on_device };
static struct notifier_block ipv4_nb = { .notifier_call = on_ipv4_address };
static struct notifier_block ipv6_nb = { .notifier_call = on_ipv6_address };

static void free_tables(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		kvfree(per_cpu(hippos_routes, cpu));
		per_cpu(hippos_routes, cpu) = NULL;
	}
}

/*
 * Registering reads all routes, and fails if they change meanwhile, as when a
 * routing protocol changes large tables: it is tried up to ten times.
 */
static int register_routes(struct net *net)
{
	int err, tries = 10;

	for (;;) {
		err = register_fib_notifier(net, &route_nb, NULL, NULL);
		if (err != -EBUSY || !--tries)
			break;
		msleep(100);
	}
	if (err == -EBUSY)
		pr_err("hippos: the routes change too fast to be followed; load again when they are settled\n");
	return err;
}

/* Called before the first packet. One namespace is served at a time. */
int hippos_routes_start(struct net *net)
{
	int cpu, err = -ENOMEM;

	for_each_possible_cpu(cpu) {
		struct hippos_routes *routes = kvzalloc_node(sizeof(*routes), GFP_KERNEL,
							     cpu_to_node(cpu));

		if (!routes)
			goto free;
		per_cpu(hippos_routes, cpu) = routes;
	}
	served = net;
	known_secret = get_random_u32();
	err = register_netdevice_notifier(&device_nb);
	if (err)
		goto free;
	err = register_netevent_notifier(&netevent_nb);
	if (err)
		goto devices;
	err = register_inetaddr_notifier(&ipv4_nb);
	if (err)
		goto netevents;
	err = register_inet6addr_notifier(&ipv6_nb);
	if (err)
		goto ipv4;
	/* A changed nexthop object sends no FIB notification. */
	err = register_nexthop_notifier(net, &nexthop_nb, NULL);
	if (err)
		goto ipv6;
	err = register_routes(net);
	if (err)
		goto nexthops;
	return 0;
nexthops:
	unregister_nexthop_notifier(net, &nexthop_nb);
ipv6:
	/* Registering announces the existing routes, some of them even if it fails. */
	cancel_delayed_work_sync(&later);
	unregister_inet6addr_notifier(&ipv6_nb);
ipv4:
	unregister_inetaddr_notifier(&ipv4_nb);
netevents:
	unregister_netevent_notifier(&netevent_nb);
devices:
	unregister_netdevice_notifier(&device_nb);
free:
	free_tables();
	return err;
}

/* Called when no packet is in a handler any more. */
void hippos_routes_stop(struct net *net)
{
	unregister_fib_notifier(net, &route_nb);
	unregister_nexthop_notifier(net, &nexthop_nb);
	cancel_delayed_work_sync(&later);
	unregister_inet6addr_notifier(&ipv6_nb);
	unregister_inetaddr_notifier(&ipv4_nb);
	unregister_netevent_notifier(&netevent_nb);
	unregister_netdevice_notifier(&device_nb);
	free_tables();
	/* Without the notifiers changes of neighbours are missed: forget all of them. */
	memset(known, 0, sizeof(known));
}
