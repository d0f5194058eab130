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

#include "firewall.h"
#include "hippos.h"
#include "route.h"
#include "transmit.h"

/* Before defragmentation (-400) and all hooks of the firewall. */
#define HOOK_PRIORITY (NF_IP_PRI_CONNTRACK_DEFRAG - 25)
/* Behind destination NAT; IPVS, which comes later, closes the path by its hook in OUTPUT. */
#define HOOK_PRIORITY_LATE (NF_IP_PRI_NAT_DST + 1)

struct hippos_hooks {
	struct hippos_handler handler;
	struct net *net;
	struct nf_hook_ops ops[2];
};

struct hippos_hooks *hippos_hooks_register(struct net *net, const struct hippos_handler *handler,
					   enum hippos_fast fast)
{
	bool late = fast == HIPPOS_LATE;
	struct hippos_hooks *hooks = kzalloc(sizeof(*hooks), GFP_KERNEL);
	int err;

	if (!hooks)
		return ERR_PTR(-ENOMEM);
	hooks->handler = *handler;
	hooks->handler.kind = HIPPOS_HOOK;
	hooks->net = net;
	hooks->ops[0] = (struct nf_hook_ops){
		.hook = late ? hippos_on_ipv4_late : hippos_on_ipv4,
		.priv = &hooks->handler,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_PRE_ROUTING,
		.priority = late ? HOOK_PRIORITY_LATE : HOOK_PRIORITY,
	};
	hooks->ops[1] = hooks->ops[0];
	hooks->ops[1].hook = late ? hippos_on_ipv6_late : hippos_on_ipv6;
	hooks->ops[1].pf = NFPROTO_IPV6;
	err = hippos_transmit_start(HIPPOS_TOGETHER);
	if (err)
		goto free;
	err = hippos_routes_start(net);
	if (err)
		goto stop;
	hippos_firewall_start(net, fast);
	err = nf_register_net_hooks(net, hooks->ops, ARRAY_SIZE(hooks->ops));
	if (err)
		goto routes;
	return hooks;
routes:
	hippos_firewall_stop();
	synchronize_net();
	hippos_routes_stop(net);
stop:
	hippos_transmit_stop();
free:
	kfree(hooks);
	return ERR_PTR(err);
}

/* Returns when no packet is in a hook, or on its way out, any more. */
void hippos_hooks_unregister(struct hippos_hooks *hooks)
{
	nf_unregister_net_hooks(hooks->net, hooks->ops, ARRAY_SIZE(hooks->ops));
	hippos_firewall_stop();
	synchronize_net();
	hippos_transmit_stop();
	hippos_routes_stop(hooks->net);
	kfree(hooks);
}

/* The namespace of the process that loads the module, held. */
struct net *hippos_net_get(void)
{
	return get_net(current->nsproxy->net_ns);
}

void hippos_net_put(struct net *net)
{
	put_net(net);
}
