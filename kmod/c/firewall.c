// SPDX-License-Identifier: GPL-2.0-only
/*
 * Closes handlers while the firewall's rules need the socket (linux/netfilter.h,
 * net/netfilter/nf_tables.h).
 *
 * A reply in place passes neither OUTPUT nor POSTROUTING, and its request is
 * taken before NAT may send it elsewhere. Both receive paths close while the namespace
 * has NAT or something in OUTPUT or POSTROUTING that could change or drop a
 * reply; the socket serves then. A hook that cannot change or drop a reply closes
 * nothing: a base chain of nftables without rules that accepts, and connection
 * tracking alone.
 *
 * Netfilter does not announce changes to modules. The hooks are examined with a
 * route lookup, at most once a tick: each source has a lookup every
 * HIPPOS_ROUTE_AGE. All of it runs under RCU.
 */
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/printk.h>
#include <net/net_namespace.h>
#if IS_ENABLED(CONFIG_NF_TABLES)
#include <net/netfilter/nf_tables.h>
#endif

#include "compat.h"
#include "firewall.h"
#include "hippos.h"
#include "route.h"

static enum hippos_fast fast;
static struct hippos_fast_path_state state;
static u32 looked;
/* None before the start and after the stop. */
static struct net __rcu *served;

static const char *const reasons[] = {
	[HIPPOS_OPEN] = "open",
	[HIPPOS_CLOSED_NAT] = "NAT",
	[HIPPOS_CLOSED_OUTPUT] = "rules in OUTPUT",
	[HIPPOS_CLOSED_POSTROUTING] = "rules in POSTROUTING",
};

/* Whether a hook can change or drop a reply. */
static bool acts(const struct nf_hook_ops *ops, unsigned int hook)
{
	switch (ops->hook_ops_type) {
#if IS_ENABLED(CONFIG_NF_TABLES)
	case NF_HOOK_OP_NF_TABLES: {
		const struct nft_chain *chain = ops->priv;

		return !list_empty(&chain->rules) ||
		       READ_ONCE(nft_base_chain(chain)->policy) != NF_ACCEPT;
	}
#endif
	case NF_HOOK_OP_UNDEFINED:
		/* Connection tracking and its defragmentation; IPv6's last is one less. */
		if (hook == NF_INET_LOCAL_OUT)
			return ops->priority != NF_IP_PRI_CONNTRACK_DEFRAG &&
			       ops->priority != NF_IP_PRI_CONNTRACK;
		/* AppArmor's, which Debian has, looks at marks that rules set (SECMARK). */
		if (hook == NF_INET_POST_ROUTING && ops->priority == NF_IP_PRI_SELINUX_FIRST)
			return false;
		return ops->priority < NF_IP_PRI_CONNTRACK_CONFIRM - 1;
	default:
		return true;
	}
}

/* Whether chains of NAT hold a rule, or may hold one. */
static bool translates(const struct nf_hook_ops *ops)
{
	const struct nf_hook_entries *entries;
	struct nf_hook_ops **chains;
	unsigned int i;

	if (!hippos_nat_chains(ops, &entries))
		return true;
	if (!entries)
		return false;
	chains = nf_hook_entries_get_hook_ops(entries);
	/* Netfilter replaces a removed chain by a dummy in place: each pointer is read once. */
	for (i = 0; i < entries->num_hook_entries; i++)
		if (acts(READ_ONCE(chains[i]), NF_INET_NUMHOOKS))
			return true;
	return false;
}

static bool any(struct nf_hook_entries __rcu *const *hooks, unsigned int hook, bool nat)
{
	const struct nf_hook_entries *entries = rcu_dereference(hooks[hook]);
	struct nf_hook_ops **ops;
	unsigned int i;

	if (!entries)
		return false;
	ops = nf_hook_entries_get_hook_ops(entries);
	for (i = 0; i < entries->num_hook_entries; i++) {
		/* As in translates(). */
		const struct nf_hook_ops *op = READ_ONCE(ops[i]);

		if (hippos_hook_is_nat(op)) {
			if (nat && translates(op))
				return true;
		} else if (!nat && acts(op, hook)) {
			return true;
		}
	}
	return false;
}

static enum hippos_closed why(struct nf_hook_entries __rcu *const *hooks, bool late)
{
	if (!late) {
		unsigned int hook;

		/* A chain of either end serves both directions. */
		for (hook = 0; hook < NF_INET_NUMHOOKS; hook++)
			if (any(hooks, hook, true))
				return HIPPOS_CLOSED_NAT;
	}
	if (any(hooks, NF_INET_LOCAL_OUT, false))
		return HIPPOS_CLOSED_OUTPUT;
	if (any(hooks, NF_INET_POST_ROUTING, false))
		return HIPPOS_CLOSED_POSTROUTING;
	return HIPPOS_OPEN;
}

static void look(struct net *net)
{
	static const char *const names[2][2] = {
		[HIPPOS_HOOK] = { "PRE_ROUTING, IPv6", "PRE_ROUTING, IPv4" },
		[HIPPOS_XDP] = { "XDP, IPv6", "XDP, IPv4" },
	};
	struct hippos_fast_path_state now, old;
	unsigned int kind, ipv4;
	u32 word;

	for (kind = 0; kind < 2; kind++)
		for (ipv4 = 0; ipv4 < 2; ipv4++)
			now.why[kind][ipv4] = why(ipv4 ? net->nf.hooks_ipv4 : net->nf.hooks_ipv6,
						  kind == HIPPOS_HOOK && fast == HIPPOS_LATE);
	memcpy(&word, &now, sizeof(word));
	word = xchg((u32 *)&state, word);
	memcpy(&old, &word, sizeof(word));
	if (memcmp(&now, &old, sizeof(now)))
		hippos_routes_changed();
	for (kind = 0; kind < 2; kind++)
		for (ipv4 = 0; ipv4 < 2; ipv4++) {
			if (now.why[kind][ipv4] == old.why[kind][ipv4] || !net_ratelimit())
				continue;
			if (now.why[kind][ipv4] == HIPPOS_OPEN)
				pr_info("hippos: %s: fast path enabled\n", names[kind][ipv4]);
			else
				pr_info("hippos: %s: fast path disabled by %s, the UDP socket answers\n",
					names[kind][ipv4], reasons[now.why[kind][ipv4]]);
		}
}

bool hippos_firewall_closed(enum hippos_handler_kind kind, struct net *net, bool ipv4)
{
	u32 now = jiffies;

	if (fast == HIPPOS_ALWAYS)
		return false;
	if (READ_ONCE(looked) != now) {
		WRITE_ONCE(looked, now);
		look(net);
	}
	return READ_ONCE(state.why[kind][ipv4]) != HIPPOS_OPEN;
}

/* Called before the first packet. */
void hippos_firewall_start(struct net *net, enum hippos_fast mode)
{
	fast = mode;
	memset(&state, 0, sizeof(state));
	rcu_assign_pointer(served, net);
	hippos_fast_path_state();
}

/* A grace period later no RCU reader has a pointer to the namespace any more. */
void hippos_firewall_stop(void)
{
	RCU_INIT_POINTER(served, NULL);
}

/* The present state, examined anew. */
struct hippos_fast_path_state hippos_fast_path_state(void)
{
	struct hippos_fast_path_state now;
	struct net *net;

	rcu_read_lock();
	net = rcu_dereference(served);
	if (net && fast != HIPPOS_ALWAYS)
		look(net);
	now = READ_ONCE(state);
	if (!net)
		memset(now.why, HIPPOS_OFF, sizeof(now.why));
	rcu_read_unlock();
	return now;
}
