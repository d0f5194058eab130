// SPDX-License-Identifier: GPL-2.0-only
/*
 * The XDP handler (net/xdp.h, linux/btf.h): a kfunc that an XDP program calls
 * with each frame. Frames that can be answered are made into their reply,
 * before the kernel makes an sk_buff of them; all others are not touched and
 * go on, to the PRE_ROUTING hook and the UDP socket.
 */
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/etherdevice.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/percpu.h>
#include <net/dsfield.h>
#include <net/inet_ecn.h>
#include <net/udp.h>
#include <net/xdp.h>

#include "counters.h"
#include "frame.h"
#include "hippos.h"
#include "latency.h"
#include "pass.h"
#include "route.h"

/* NULL while the module starts and stops. */
static const struct hippos_xdp __rcu *xdp_state;

/* Counts an arriving packet of len bytes as the network layer does. */
static void count_arrival(const struct frame *frame, u32 len)
{
	struct net *net = dev_net(frame->dev);

	if (frame->protocol == htons(ETH_P_IP)) {
		const struct iphdr *iph = frame->network;

		__IP_UPD_PO_STATS(net, IPSTATS_MIB_IN, len);
		__IP_INC_STATS(net, IPSTATS_MIB_NOECTPKTS + (iph->tos & INET_ECN_MASK));
	} else {
		struct inet6_dev *idev = __in6_dev_get(frame->dev);

		__IP6_UPD_PO_STATS(net, idev, IPSTATS_MIB_IN, len);
		__IP6_INC_STATS(net, idev, IPSTATS_MIB_NOECTPKTS +
				(ipv6_get_dsfield(frame->network) & INET_ECN_MASK));
	}
}

static __always_inline u32 serve(const struct hippos_xdp *state, struct xdp_buff *xdp)
{
	struct hippos_packet packet;
	struct frame frame;
	bool ipv4;
	u32 verdict;

	/* Frames in several buffers (XDP fragments) are left to the stack. */
	if (xdp_buff_has_frags(xdp)) {
		hippos_pass(HIPPOS_XDP, HIPPOS_PASS_SEGMENTS);
		return XDP_PASS;
	}
	if (!parse_ethernet(xdp, &frame))
		return XDP_PASS;
	if (!net_eq(dev_net(frame.dev), state->net)) {
		hippos_pass(HIPPOS_XDP, HIPPOS_PASS_NAMESPACE);
		return XDP_PASS;
	}
	switch (frame.protocol) {
	case htons(ETH_P_IP):
		if (!parse_ipv4(&frame, state, &packet))
			return XDP_PASS;
		break;
	case htons(ETH_P_IPV6):
		if (!parse_ipv6(&frame, state, &packet))
			return XDP_PASS;
		break;
	default:
		return XDP_PASS;
	}
	packet.payload = frame.network + packet.headers;
	packet.room = min_t(u32, xdp_data_hard_end(xdp) - (void *)packet.payload,
			    hippos_route_payload(packet.route, packet.headers));
	packet.local = frame.dev->flags & IFF_LOOPBACK;
	packet.interface = frame.dev->ifindex;
	packet.cpu = raw_smp_processor_id();

	verdict = state->handler.receive(state->handler.private, NULL, &packet);
	if (verdict == NF_ACCEPT)
		return XDP_PASS;
	ipv4 = frame.protocol == htons(ETH_P_IP);
	count_arrival(&frame, packet.headers + packet.len);
	hippos_count_in(state->net, frame.dev, ipv4);
	if (verdict >= HIPPOS_REPLY) {
		hippos_count_out(state->net, frame.dev, ipv4, packet.headers + verdict - HIPPOS_REPLY);
		make_reply_headers(&frame, &packet, verdict - HIPPOS_REPLY);
		xdp->data_end = packet.payload + (verdict - HIPPOS_REPLY);
		return XDP_TX;
	}
	/* Dropped: served without a reply, or over its source's rate limit. */
	return XDP_DROP;
}

/* Records the time that serving a frame took. */
static noinline __cold void record(const struct hippos_xdp *state, u64 began)
{
	u64 ended = hippos_now();

	state->handler.record(state->handler.private, HIPPOS_XDP,
			      ended > began ? ended - began : 0, HIPPOS_NOT_QUEUED);
}

__bpf_kfunc_start_defs();

__bpf_kfunc int hippos_xdp(struct xdp_md *ctx)
{
	const struct hippos_xdp *state;
	u32 verdict = XDP_PASS;
	u64 began = 0;

	if (static_branch_unlikely(&hippos_latency))
		began = hippos_now();
	rcu_read_lock();
	state = rcu_dereference(xdp_state);
	if (likely(state))
		verdict = serve(state, (struct xdp_buff *)ctx);
	if (static_branch_unlikely(&hippos_latency) && verdict != XDP_PASS && began)
		record(state, began);
	rcu_read_unlock();
	if (verdict == XDP_PASS)
		hippos_count(XDP_PASSED);
	else
		hippos_count(XDP_SERVED);
	return verdict;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(hippos_kfuncs)
BTF_ID_FLAGS(func, hippos_xdp)
BTF_KFUNCS_END(hippos_kfuncs)

static const struct btf_kfunc_id_set kfunc_set = {
	.owner = THIS_MODULE,
	.set = &hippos_kfuncs,
};

/* Registers the kfunc and its handler, for frames of net's interfaces; one at a time. */
struct hippos_xdp *hippos_xdp_open(struct net *net, const struct hippos_handler *handler)
{
	struct hippos_xdp *xdp;
	int err;

	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_XDP, &kfunc_set);
	if (err)
		return ERR_PTR(err);
	xdp = kzalloc(sizeof(*xdp), GFP_KERNEL);
	if (!xdp)
		return ERR_PTR(-ENOMEM);
	xdp->handler = *handler;
	xdp->handler.kind = HIPPOS_XDP;
	xdp->net = net;
	rcu_assign_pointer(xdp_state, xdp);
	return xdp;
}

/* Returns when the handler has left its last frame. */
void hippos_xdp_close(struct hippos_xdp *xdp)
{
	RCU_INIT_POINTER(xdp_state, NULL);
	synchronize_net();
	kfree(xdp);
}
