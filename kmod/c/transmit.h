/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sending replies from softirq. The packet mirror of the benchmarks sends with
 * the same code.
 */
#ifndef HIPPOS_TRANSMIT_H
#define HIPPOS_TRANSMIT_H

struct sk_buff;

/* How replies leave; each mode falls back to the ones before. */
enum hippos_xmit_mode {
	/* All through dev_queue_xmit(). */
	HIPPOS_QUEUED,
	/* Past an empty queueing discipline, to the driver. */
	HIPPOS_DIRECT,
	/* Several at once, with one notification of the device. */
	HIPPOS_TOGETHER,
};

int hippos_transmit_start(enum hippos_xmit_mode wanted);
void hippos_transmit_stop(void);
void hippos_transmit(struct sk_buff *skb);

#endif
