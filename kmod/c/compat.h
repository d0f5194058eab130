/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The differences between the supported kernel series. No other file names a
 * version.
 */
#ifndef HIPPOS_COMPAT_H
#define HIPPOS_COMPAT_H

#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/version.h>

#ifdef CONFIG_PREEMPT_RT
#error "Hippos keeps a CPU's data for one softirq at a time: not for kernels with PREEMPT_RT"
#endif

#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 3, 0)

static inline bool hippos_hook_is_nat(const struct nf_hook_ops *ops)
{
	return ops->hook_ops_type == NF_HOOK_OP_NAT;
}

/* The chains behind a NAT hook; false if the kernel keeps them to itself. Under RCU. */
static inline bool hippos_nat_chains(const struct nf_hook_ops *ops,
				     const struct nf_hook_entries **chains)
{
	const struct nf_nat_lookup_hook_priv *priv = ops->priv;

	*chains = rcu_dereference(priv->entries);
	return true;
}

#else

/*
 * NAT's own hooks have no type and a structure that nf_nat_core.c keeps to
 * itself. They are registered with the namespace's first chain of NAT.
 */
static inline bool hippos_hook_is_nat(const struct nf_hook_ops *ops)
{
	return ops->hook_ops_type == NF_HOOK_OP_UNDEFINED &&
	       (ops->priority == NF_IP_PRI_NAT_DST || ops->priority == NF_IP_PRI_NAT_SRC);
}

static inline bool hippos_nat_chains(const struct nf_hook_ops *ops,
				     const struct nf_hook_entries **chains)
{
	return false;
}

#endif

#endif
