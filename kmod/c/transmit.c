// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sending replies from softirq (linux/netdevice.h, net/sch_generic.h).
 *
 * A reply goes straight to the driver's queue when the usual path,
 * dev_queue_xmit(), would only pass it on: the kernel itself bypasses an empty
 * queueing discipline that has TCQ_F_CAN_BYPASS. It takes the usual path when
 *
 * - the queueing discipline has no such flag (it shapes, delays or classifies),
 *   has packets waiting, or is none at all (software devices);
 * - taps, tc, BPF or Netfilter at egress see outgoing packets;
 * - the device is down or has no carrier, chooses its queue by a rule of its
 *   own, or would need the checksum or a VLAN tag put in by software;
 * - the driver's queue is stopped, frozen or busy.
 *
 * Replies to the packets of one poll of the device leave together, so that the
 * device is notified once and not for each. The first of them schedules a NAPI
 * instance of our own, which runs right after the device's and sends them; a full
 * batch is sent at once. All of this is per CPU and runs with softirqs off.
 */
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/percpu.h>
#include <linux/skbuff.h>
#include <net/sch_generic.h>

#include "transmit.h"

/* The most replies in a batch. */
#define BATCH 16

struct batch {
	struct napi_struct napi;
	/* The device of the waiting replies, held; NULL when there are none. */
	struct net_device *dev;
	struct sk_buff *first;
	struct sk_buff **end;
	unsigned int count;
};

static struct batch __percpu *batches;
/* The device of the NAPI instances; never registered. */
static struct net_device *dummy;
static enum hippos_xmit_mode mode;

/* The usual path. */
static void queue(struct sk_buff *skb)
{
	/* The next owner of skb->cb must find nothing there from the receive path. */
	memset(skb->cb, 0, sizeof(skb->cb));
	dev_queue_xmit(skb);
}

/* Whether taps, tc, BPF or Netfilter see the packets that leave by dev. */
static bool watched(const struct net_device *dev)
{
#ifdef CONFIG_NET_XGRESS
	if (rcu_access_pointer(dev->tcx_egress))
		return true;
#endif
#ifdef CONFIG_NETFILTER_EGRESS
	if (rcu_access_pointer(dev->nf_hooks_egress))
		return true;
#endif
	return dev_nit_active_rcu(dev);
}

/* The driver's queue for packets like skb, or NULL for the usual path. */
static struct netdev_queue *direct_queue(struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct netdev_queue *txq;
	const struct Qdisc *q;
	u16 index = 0;

	if (unlikely(!netif_running(dev) || !netif_carrier_ok(dev) || watched(dev)))
		return NULL;
	if (dev->real_num_tx_queues != 1) {
		if (dev->netdev_ops->ndo_select_queue)
			return NULL;
#ifdef CONFIG_XPS
		/* sender_cpu shares its field with napi_id: overwrite it. */
		skb->sender_cpu = raw_smp_processor_id() + 1;
#endif
		index = netdev_pick_tx(dev, skb, NULL);
	}
	txq = netdev_get_tx_queue(dev, index);
	q = rcu_dereference_bh(txq->qdisc);
	if (!q->enqueue || !(q->flags & TCQ_F_CAN_BYPASS))
		return NULL;
	if (q->flags & TCQ_F_NOLOCK ? !nolock_qdisc_is_empty(q) : READ_ONCE(q->q.qlen))
		return NULL;
	return txq;
}

/* Whether the device can send skb without software filling in its checksum or VLAN tag. */
static bool ready(struct sk_buff *skb)
{
	const struct net_device *dev = skb->dev;
	netdev_features_t features = dev->features;
	netdev_features_t enough = NETIF_F_HW_CSUM;

	if (unlikely(skb_vlan_tag_present(skb)))
		return false;
	if (skb->ip_summed != CHECKSUM_PARTIAL)
		return true;
	enough |= skb->protocol == htons(ETH_P_IP) ? NETIF_F_IP_CSUM : NETIF_F_IPV6_CSUM;
	if (dev->netdev_ops->ndo_features_check &&
	    dev->netdev_ops->ndo_features_check != passthru_features_check)
		features = dev->netdev_ops->ndo_features_check(skb, skb->dev, features);
	return features & enough;
}

/* Gives a list to the driver; returns the rest that it does not accept. */
static struct sk_buff *send(struct sk_buff *skb, struct net_device *dev,
			    struct netdev_queue *txq)
{
	u16 index = txq - dev->_tx;

	HARD_TX_LOCK(dev, txq, smp_processor_id());
	while (skb && !netif_xmit_frozen_or_stopped(txq)) {
		struct sk_buff *next = skb->next;

		skb_mark_not_on_list(skb);
		skb_set_queue_mapping(skb, index);
		if (!dev_xmit_complete(netdev_start_xmit(skb, dev, txq, next))) {
			skb->next = next;
			break;
		}
		skb = next;
	}
	HARD_TX_UNLOCK(dev, txq);
	return skb;
}

/* Sends a list of one device, to the driver if direct_queue() still allows it. */
static void send_list(struct sk_buff *skb)
{
	struct netdev_queue *txq = direct_queue(skb);
	struct sk_buff *next;

	if (likely(txq))
		skb = send(skb, skb->dev, txq);
	for (; unlikely(skb); skb = next) {
		next = skb->next;
		skb_mark_not_on_list(skb);
		queue(skb);
	}
}

static void flush(struct batch *batch)
{
	struct net_device *dev = batch->dev;
	struct sk_buff *skb = batch->first;

	if (!dev)
		return;
	batch->dev = NULL;
	send_list(skb);
	dev_put(dev);
}

static int poll(struct napi_struct *napi, int budget)
{
	flush(container_of(napi, struct batch, napi));
	napi_complete_done(napi, 0);
	return 0;
}

/*
 * Sends skb, whose data begins with the Ethernet header, by skb->dev, and
 * consumes it. Softirq only.
 */
void hippos_transmit(struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct batch *batch;

	if (mode == HIPPOS_QUEUED || !ready(skb)) {
		queue(skb);
		return;
	}
	skb_mark_not_on_list(skb);
	if (mode == HIPPOS_DIRECT) {
		send_list(skb);
		return;
	}
	batch = this_cpu_ptr(batches);
	if (batch->dev != dev) {
		flush(batch);
		/*
		 * The device may have received the sent packets at once, and a request
		 * among them has begun a new batch: see transmit_test.c.
		 */
		if (unlikely(batch->dev)) {
			send_list(skb);
			return;
		}
		if (!direct_queue(skb)) {
			queue(skb);
			return;
		}
		/* The device must stay until the batch is sent. */
		dev_hold(dev);
		batch->dev = dev;
		batch->end = &batch->first;
		batch->count = 0;
		napi_schedule(&batch->napi);
	}
	*batch->end = skb;
	batch->end = &skb->next;
	if (++batch->count >= BATCH)
		flush(batch);
}

int hippos_transmit_start(enum hippos_xmit_mode wanted)
{
	int cpu;

	mode = wanted;
	dummy = alloc_netdev_dummy(0);
	batches = alloc_percpu(struct batch);
	if (!dummy || !batches) {
		free_percpu(batches);
		if (dummy)
			free_netdev(dummy);
		return -ENOMEM;
	}
	for_each_possible_cpu(cpu) {
		struct batch *batch = per_cpu_ptr(batches, cpu);

		set_bit(NAPI_STATE_NO_BUSY_POLL, &batch->napi.state);
		netif_napi_add(dummy, &batch->napi, poll);
		napi_enable(&batch->napi);
	}
	return 0;
}

/* Called after the last hippos_transmit(). Sends the waiting replies. */
void hippos_transmit_stop(void)
{
	int cpu;

	for_each_possible_cpu(cpu) {
		struct batch *batch = per_cpu_ptr(batches, cpu);

		/* Waits for a scheduled poll to end. */
		napi_disable(&batch->napi);
		__netif_napi_del(&batch->napi);
	}
	synchronize_net();
	free_percpu(batches);
	free_netdev(dummy);
}
