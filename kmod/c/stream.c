// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP connections under their lock (net/tcp.h).
 *
 * The holder of a socket's lock reads what lies in its receive queue where it
 * lies, and sends from pages of its own that the socket takes references to:
 * neither way copies. The holder is a thread between hippos_stream_lock() and
 * hippos_stream_unlock(), or a callback in softirq that found the socket
 * owned by no thread. tcp_sendmsg_locked() in softirq does what espintcp has
 * it do: with MSG_DONTWAIT it never sleeps, sk_allocation tells what memory
 * it may ask for, and no fragment of the interrupted task's is used. It
 * flushes no backlog there, because without an owner there is none.
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
 * Fewer bytes than this are not worth starting with. Not a page: with larger ones
 * that would be half of a block, or all of it.
 */
#define REPLY_PAGES_MIN SZ_4K

/*
 * Shorter replies to a client that is behind with reading are copied: a few
 * bytes that were spliced keep a whole block, of which the socket's limit counts
 * those bytes alone. It is behind if bytes could not be sent yet, or more than
 * these segments are not acknowledged.
 */
#define REPLY_SPLICE_MIN SZ_4K
#define REPLY_SEGMENTS_MAX 8

/* The caller's until hippos_stream_unlock(); may sleep. */
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
 * What was received and not yet consumed: how many bytes lie in the first
 * buffer, and where, if they lie in one piece that no other user can change.
 * NULL and bytes: they have to be copied. NULL and none: there is nothing.
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

/* Copies up to len bytes of the first buffer; how many. They stay there. */
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

/* Done with the first len bytes of what was received. */
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
 * Gives what the socket takes without waiting; more holds a short tail back.
 * Copies the bytes.
 */
int hippos_stream_send(struct sock *sk, const void *bytes, size_t len, bool more)
{
	struct kvec vec = { .iov_base = (void *)bytes, .iov_len = len };
	struct msghdr msg = {};

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &vec, 1, len);
	return transmit(sk, &msg, len, more);
}

/* Whether a short reply would be sent whole, as far as that is known before. */
bool hippos_stream_takes(const struct sock *sk)
{
	return sk->sk_state == TCP_ESTABLISHED && !sk->sk_err && !sk->sk_shutdown &&
	       sk_stream_memory_free(sk) && !tcp_under_memory_pressure(sk);
}

/*
 * The memory for replies is the rest of a page block. A second block takes its
 * place when it is full, and is used again when all that was sent of it has
 * been acknowledged.
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
	int n;

	if (len < REPLY_SPLICE_MIN && is_behind(sk))
		return hippos_stream_send(sk, page_address(frag->page) + frag->offset, len, more);
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

/* Before the first callback that may use them. */
void hippos_reply_pages_get(void)
{
	mutex_lock(&softirq_mutex);
	softirq_users++;
	mutex_unlock(&softirq_mutex);
}

/* After the last one; the last user frees their pages. */
void hippos_reply_pages_put(void)
{
	int cpu;

	mutex_lock(&softirq_mutex);
	if (!--softirq_users)
		for_each_possible_cpu(cpu)
			hippos_reply_pages_free(per_cpu_ptr(&softirq_pages, cpu));
	mutex_unlock(&softirq_mutex);
}
