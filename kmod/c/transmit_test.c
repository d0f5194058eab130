// SPDX-License-Identifier: GPL-2.0-only
/*
 * transmit.c's own test, for selftest=1: a device that sends receives a request
 * at once, which is answered before the device returns. No driver of the kernel
 * does so today; tc's redirects did.
 */
#include <linux/etherdevice.h>
#include <linux/if_arp.h>
#include <linux/netdevice.h>
#include <linux/nsproxy.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>

#include "hippos.h"
#include "transmit.h"

/* Replies by the first device, the one to its own request included, and by the second. */
#define FIRST 2
#define SECOND 1

struct port {
	/* The device's reference count before the first reply. */
	int references;
	/* Replies that were given to hippos_transmit(), and those that left. */
	unsigned int given, sent;
	bool no_memory;
	/* The device that answers the request which arrives with the next reply. */
	struct net_device *answers;
};

/* Sends a reply as the handlers do. */
static void reply_by(struct net_device *dev)
{
	struct sk_buff *skb = alloc_skb(ETH_ZLEN, GFP_ATOMIC);
	struct port *port = netdev_priv(dev);

	if (!skb) {
		port->no_memory = true;
		return;
	}
	port->given++;
	skb_put_zero(skb, ETH_ZLEN);
	skb_reset_mac_header(skb);
	skb->protocol = htons(ETH_P_802_EX1);
	skb->dev = dev;
	hippos_transmit(skb);
}

static netdev_tx_t on_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct port *port = netdev_priv(dev);
	struct net_device *answers = port->answers;
	bool ours = skb->protocol == htons(ETH_P_802_EX1);

	consume_skb(skb);
	if (!ours)
		return NETDEV_TX_OK;
	port->sent++;
	port->answers = NULL;
	if (answers)
		reply_by(answers);
	return NETDEV_TX_OK;
}

static const struct net_device_ops ops = {
	.ndo_start_xmit = on_xmit,
};

static void setup(struct net_device *dev)
{
	ether_setup(dev);
	/* No addresses, and nothing else that sends. */
	dev->type = ARPHRD_VOID;
	dev->flags |= IFF_NOARP;
	dev->netdev_ops = &ops;
	eth_hw_addr_random(dev);
}

/* A device that is up, in the calling process's namespace. */
static struct net_device *add(void)
{
	struct net_device *dev = alloc_netdev(sizeof(struct port), "hippostest%d", NET_NAME_ENUM, setup);
	int err;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	dev_net_set(dev, current->nsproxy->net_ns);
	err = register_netdev(dev);
	if (err) {
		free_netdev(dev);
		return ERR_PTR(err);
	}
	rtnl_lock();
	err = dev_open(dev, NULL);
	rtnl_unlock();
	if (err) {
		unregister_netdev(dev);
		free_netdev(dev);
		return ERR_PTR(err);
	}
	return dev;
}

static void remove(struct net_device *dev)
{
	struct port *port = netdev_priv(dev);

	/* A batch of lost replies still holds its device, and unregistering would wait for it. */
	if (port->sent < port->given && netdev_refcnt_read(dev) > port->references)
		dev_put(dev);
	unregister_netdev(dev);
	free_netdev(dev);
}

/* Called before the module's hippos_transmit_start(). -EIO when replies were lost; may sleep. */
int hippos_transmit_test(void)
{
	struct net_device *first, *second;
	struct port *one, *two;
	bool together;
	int err;

	first = add();
	if (IS_ERR(first))
		return PTR_ERR(first);
	second = add();
	if (IS_ERR(second)) {
		remove(first);
		return PTR_ERR(second);
	}
	one = netdev_priv(first);
	two = netdev_priv(second);
	one->references = netdev_refcnt_read(first);
	two->references = netdev_refcnt_read(second);
	one->answers = first;
	err = hippos_transmit_start(HIPPOS_TOGETHER);
	if (!err) {
		local_bh_disable();
		reply_by(first);
		/* Another qdisc than the usual one, or a packet tap, leaves nothing to send together. */
		together = !one->sent;
		/* A reply by another device sends the first one's batch. */
		reply_by(second);
		local_bh_enable();
		hippos_transmit_stop();
		if (one->no_memory || two->no_memory) {
			err = -ENOMEM;
		} else if (!together) {
			pr_info("hippos: selftest: replies are not sent together here, which is not tested\n");
		} else if (one->sent != FIRST || two->sent != SECOND) {
			pr_err("hippos: selftest: %u and %u replies left, not %u and %u\n",
			       one->sent, two->sent, FIRST, SECOND);
			err = -EIO;
		}
	}
	remove(first);
	remove(second);
	return err;
}
