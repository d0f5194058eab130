// SPDX-License-Identifier: GPL-2.0-only
/*
 * PRE_ROUTING hooks of one network namespace (linux/netfilter.h).
 */
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/nsproxy.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <net/net_namespace.h>

#include "hippos.h"

/* Before defragmentation (-400) and everything of the firewall's. */
#define HOOK_PRIORITY (NF_IP_PRI_CONNTRACK_DEFRAG - 25)

struct hippos_hooks {
	struct net *net;
	struct nf_hook_ops ops[2];
};

struct hippos_hooks *hippos_hooks_register(struct net *net, hippos_hook_fn *ipv4,
					   hippos_hook_fn *ipv6, void *private)
{
	struct hippos_hooks *hooks = kzalloc(sizeof(*hooks), GFP_KERNEL);
	int err;

	if (!hooks)
		return ERR_PTR(-ENOMEM);
	hooks->net = net;
	hooks->ops[0] = (struct nf_hook_ops){
		.hook = ipv4,
		.priv = private,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_PRE_ROUTING,
		.priority = HOOK_PRIORITY,
	};
	hooks->ops[1] = hooks->ops[0];
	hooks->ops[1].hook = ipv6;
	hooks->ops[1].pf = NFPROTO_IPV6;
	err = nf_register_net_hooks(net, hooks->ops, ARRAY_SIZE(hooks->ops));
	if (err) {
		kfree(hooks);
		return ERR_PTR(err);
	}
	return hooks;
}

/* Returns when no packet is in a hook any more. */
void hippos_hooks_unregister(struct hippos_hooks *hooks)
{
	nf_unregister_net_hooks(hooks->net, hooks->ops, ARRAY_SIZE(hooks->ops));
	synchronize_net();
	kfree(hooks);
}

/* The namespace of whoever loads the module, held. */
struct net *hippos_net_get(void)
{
	return get_net(current->nsproxy->net_ns);
}

void hippos_net_put(struct net *net)
{
	put_net(net);
}
