// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP connections under their lock (net/tcp.h).
 *
 * The holder of a socket's lock reads the receive queue in place, and sends from
 * its own pages, which the socket takes references to: neither copies. The holder
 * is a thread between hippos_stream_lock() and hippos_stream_unlock(), or a
 * callback in softirq that found the socket owned by no thread. Calling
 * tcp_sendmsg_locked() in softirq is allowed, as espintcp does it: with
 * MSG_DONTWAIT it never sleeps, sk_allocation makes its allocations atomic, and
 * with sk_use_task_frag off it leaves the interrupted task's page fragment alone.
 * There is no backlog to flush, because the socket has no owner.
 */
#include <linux/bvec.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/percpu.h>
#include <linux/sizes.h>
#include <linux/skbuff.h>
#include <linux/uio.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "hippos.h"

/*
 * A block with less space than this is replaced. A fixed size, not PAGE_SIZE: a
 * larger page would be half of a block, or all of it.
 */
#define REPLY_PAGES_MIN SZ_4K

/*
 * Shorter replies to a client that reads slowly are copied: spliced bytes keep a
 * whole block, while the socket's limit counts those bytes alone. So a client has at
 * most twice as much memory as is counted, and the blocks of REPLY_SEGMENTS_MAX
 * segments. A client reads slowly if bytes could not be sent yet, or more segments
 * than that are not acknowledged.
 */
#define REPLY_SPLICE_MIN ((PAGE_SIZE << SKB_FRAG_PAGE_ORDER) / 2)
#define REPLY_SEGMENTS_MAX 8

/* Takes the socket's lock, until hippos_stream_unlock(); may sleep. */
struct sock *hippos_stream_lock(struct socket *sock)
{
	lock_sock(sock->sk);
	return sock->sk;
}

void hippos_stream_unlock(struct sock *sk)
{
	release_sock(sk);
}

/*
 * The first received bytes that were not consumed yet: their number, and their
 * address if they are contiguous and no file's or pipe's pages. NULL and a number:
 * they have to be copied. NULL and 0: there are none.
 * A sender on this machine can still change those that come from a packet socket's
 * ring, which nothing marks: a second read may find other bytes.
 */
const void *hippos_stream_peek(struct sock *sk, u32 *len)
{
	struct sk_buff *skb;
	u32 offset, i;

	*len = 0;
	skb = tcp_recv_skb(sk, tcp_sk(sk)->copied_seq, &offset);
	if (!skb || offset >= skb->len)
		return NULL;
	if (offset < skb_headlen(skb)) {
		*len = skb_headlen(skb) - offset;
		return skb->data + offset;
	}
	*len = skb->len - offset;
	if (skb_has_shared_frag(skb) || !skb_frags_readable(skb))
		return NULL;
	offset -= skb_headlen(skb);
	for (i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		const skb_frag_t *frag = &skb_shinfo(skb)->frags[i];

		if (offset < skb_frag_size(frag)) {
			*len = skb_frag_size(frag) - offset;
			return skb_frag_address(frag) + offset;
		}
		offset -= skb_frag_size(frag);
	}
	return NULL;
}

/* Copies up to len bytes of the first buffer and returns their number. Does not consume them. */
u32 hippos_stream_copy(struct sock *sk, void *to, u32 len)
{
	struct sk_buff *skb;
	u32 offset;

	skb = tcp_recv_skb(sk, tcp_sk(sk)->copied_seq, &offset);
	if (!skb || offset >= skb->len)
		return 0;
	len = min(len, skb->len - offset);
	return skb_copy_bits(skb, offset, to, len) ? 0 : len;
}

/* Consumes the first len received bytes. */
void hippos_stream_consume(struct sock *sk, u32 len)
{
	tcp_read_done(sk, len);
}

/* Nothing more will be received: the peer's end of file, or an error. */
bool hippos_stream_ended(const struct sock *sk)
{
	return READ_ONCE(sk->sk_err) || READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN ||
	       READ_ONCE(sk->sk_state) == TCP_CLOSE;
}

static int transmit(struct sock *sk, struct msghdr *msg, size_t len, bool more)
{
	bool softirq = in_serving_softirq();
	gfp_t allocation = sk->sk_allocation;
	int n;

	msg->msg_flags |= MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
	if (softirq)
		sk->sk_allocation = GFP_ATOMIC | __GFP_NOWARN;
	n = tcp_sendmsg_locked(sk, msg, len);
	sk->sk_allocation = allocation;
	return n;
}

/*
 * Sends, by copying, as many bytes as the socket takes without waiting, and returns
 * their number; with more set a short segment at the end is held back.
 */
int hippos_stream_send(struct sock *sk, const void *bytes, size_t len, bool more)
{
	struct kvec vec = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = {};

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	return transmit(sk, &msg, len, more);
}

/* Whether the socket would probably accept a whole short reply; the send may still fail. */
bool hippos_stream_takes(const struct sock *sk)
{
	return sk->sk_state == TCP_ESTABLISHED && !sk->sk_err && !sk->sk_shutdown &&
	       sk_stream_memory_free(sk) && !tcp_under_memory_pressure(sk);
}

/*
 * Memory for replies: the rest of the present block of pages. When a block is full
 * the second one replaces it, and is reused if all bytes that were sent from it
 * have been acknowledged.
 */
void *hippos_reply_pages_open(struct hippos_reply_pages *pages, bool atomic, u32 *size)
{
	struct page_frag *frag = &pages->frag[pages->now];

	if (!frag->page || frag->size - frag->offset < REPLY_PAGES_MIN) {
		pages->now ^= 1;
		frag = &pages->frag[pages->now];
		if (!skb_page_frag_refill(REPLY_PAGES_MIN, frag,
					  atomic ? GFP_ATOMIC | __GFP_NOWARN : GFP_KERNEL))
			return NULL;
	}
	*size = frag->size - frag->offset;
	return page_address(frag->page) + frag->offset;
}

static bool is_behind(const struct sock *sk)
{
	return !tcp_write_queue_empty(sk) || tcp_sk(sk)->packets_out > REPLY_SEGMENTS_MAX;
}

/*
 * Sends the first len bytes of the pages last opened. Unless it copies them, the
 * socket's buffers hold references to the pages, and the bytes are not used again.
 */
int hippos_reply_pages_send(struct hippos_reply_pages *pages, struct sock *sk, u32 len, bool more)
{
	struct page_frag *frag = &pages->frag[pages->now];
	struct msghdr msg = { .msg_flags = MSG_SPLICE_PAGES | MSG_NO_SHARED_FRAGS };
	struct bio_vec vec;
	const void *bytes = page_address(frag->page) + frag->offset;
	int n;

	if (len < REPLY_SPLICE_MIN && is_behind(sk)) {
		/*
		 * If the block's end was reached, the next part of a long reply begins a
		 * block, and is spliced.
		 */
		if (frag->size - frag->offset - len < REPLY_PAGES_MIN)
			frag->offset = frag->size;
		return hippos_stream_send(sk, bytes, len, more);
	}
	bvec_set_page(&vec, frag->page, len, frag->offset);
	iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	n = transmit(sk, &msg, len, more);
	if (n > 0)
		frag->offset += n;
	return n;
}

void hippos_reply_pages_free(struct hippos_reply_pages *pages)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(pages->frag); i++) {
		if (pages->frag[i].page)
			put_page(pages->frag[i].page);
		pages->frag[i].page = NULL;
	}
}

static DEFINE_PER_CPU(struct hippos_reply_pages, softirq_pages);

/* The reply pages of this CPU's softirqs, one of which the caller runs in. */
struct hippos_reply_pages *hippos_reply_pages_this_cpu(void)
{
	return this_cpu_ptr(&softirq_pages);
}

static DEFINE_MUTEX(softirq_mutex);
static unsigned int softirq_users;

/* Called before the first callback that may use the pages. */
void hippos_reply_pages_get(void)
{
	mutex_lock(&softirq_mutex);
	softirq_users++;
	mutex_unlock(&softirq_mutex);
}

/* Called after the last callback; the last user frees the pages. */
void hippos_reply_pages_put(void)
{
	int cpu;

	mutex_lock(&softirq_mutex);
	if (!--softirq_users)
		for_each_possible_cpu(cpu)
			hippos_reply_pages_free(per_cpu_ptr(&softirq_pages, cpu));
	mutex_unlock(&softirq_mutex);
}
