// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets, and the worker that each of them wakes when it is ready (net/sock.h).
 *
 * A socket's callbacks run in softirq with its spin lock held; they put it
 * on its worker's lock-free list, once, and wake the worker. Rules:
 *
 * - A callback reads sk_user_data under sk_callback_lock and
 *   hippos_watch_remove() clears it under the same lock, so that no callback
 *   uses a removed watch.
 * - A connection's data_ready is called with the socket's own lock held, by
 *   softirq when no thread owns the socket and by its owner otherwise. Found
 *   unowned it may serve the connection at once; a thread that touches a
 *   connection's state owns the socket, hippos_watch_remove() included. The
 *   worker is woken only for input that data_ready can't serve.
 * - A socket's sk_user_data is never NULL: it is a watch or HIPPOS_UNWATCHED,
 *   without tags. A BPF program that puts sockets into a socket map, as they
 *   are established or listen, would keep its own data there, and gets EBUSY.
 * - An accepted socket is a copy of its listener, with its sk_user_data and
 *   its callbacks. Until listener.c replaces both, none of them uses the watch.
 * - queued is cleared before a socket is served: input that arrives meanwhile
 *   puts it on the list again.
 */
#include <linux/bitops.h>
#include <linux/kthread.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <net/inet_sock.h>
#include <net/sock.h>

#include "hippos.h"
#include "latency.h"
#include "listener.h"
#include "socket.h"

#define QUEUED 0

static_assert(!((unsigned long)HIPPOS_UNWATCHED & ~SK_USER_DATA_PTRMASK));

static void make_ready(struct hippos_watch *watch)
{
	struct hippos_poll *poll = watch->poll;

	if (test_and_set_bit(QUEUED, &watch->queued))
		return;
	if (static_branch_unlikely(&hippos_latency))
		watch->queued_at = hippos_now();
	if (llist_add(&watch->node, &poll->ready))
		wake_up_process(poll->task);
}

static struct hippos_watch *watch_of(struct sock *sk)
{
	struct hippos_watch *watch = __locked_read_sk_user_data_with_flags(sk, 0);

	return watch == HIPPOS_UNWATCHED ? NULL : watch;
}

static void on_event(struct sock *sk)
{
	struct hippos_watch *watch;

	read_lock_bh(&sk->sk_callback_lock);
	watch = watch_of(sk);
	if (watch)
		make_ready(watch);
	read_unlock_bh(&sk->sk_callback_lock);
}

/* data_ready of a listener, and of its copies that were not accepted yet. */
static void on_connection(struct sock *sk)
{
	if (inet_sk_state_load(sk) == TCP_LISTEN)
		on_event(sk);
}

/* data_ready of a connection, called with the socket's lock held. */
static void on_data(struct sock *sk)
{
	struct hippos_watch *watch = rcu_dereference_check(
		__sk_user_data(sk), lockdep_sock_is_held(sk));

	if (!watch || watch == HIPPOS_UNWATCHED)
		return;
	/* The worker serves a queued socket anyway. */
	if (in_serving_softirq() && !sock_owned_by_user_nocheck(sk) &&
	    !test_bit(QUEUED, &watch->queued) && watch->poll->serve(watch, sk))
		return;
	make_ready(watch);
}

static void on_space(struct sock *sk)
{
	struct hippos_watch *watch;

	read_lock_bh(&sk->sk_callback_lock);
	watch = watch_of(sk);
	if (watch && sk->sk_socket && sk_stream_is_writeable(sk)) {
		clear_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
		make_ready(watch);
	}
	read_unlock_bh(&sk->sk_callback_lock);
}

/* serve is called in softirq; it returns whether it has left nothing for the worker. */
void hippos_poll_init(struct hippos_poll *poll,
		      bool (*serve)(struct hippos_watch *watch, struct sock *sk))
{
	poll->serve = serve;
	init_llist_head(&poll->ready);
	poll->batch = NULL;
	init_llist_head(&poll->parked);
	poll->parked_first = NULL;
	poll->unparked = 0;
	poll->queued_at = 0;
	poll->task = NULL;
}

/* Called by the worker itself, before anything is watched. */
void hippos_poll_start(struct hippos_poll *poll)
{
	poll->task = current;
}

/* Sleeps until a socket is ready, the worker is woken or stopped, or the timeout ends. */
void hippos_poll_wait(struct hippos_poll *poll, long timeout_ms)
{
	set_current_state(TASK_IDLE);
	if (!poll->batch && llist_empty(&poll->ready) && !kthread_should_stop())
		schedule_timeout(timeout_ms < 0 ? MAX_SCHEDULE_TIMEOUT :
						  msecs_to_jiffies(timeout_ms));
	__set_current_state(TASK_RUNNING);
}

/* The socket that has waited longest, or NULL. */
struct hippos_watch *hippos_poll_next(struct hippos_poll *poll)
{
	struct hippos_watch *watch;

	if (!poll->batch) {
		poll->batch = llist_reverse_order(llist_del_all(&poll->ready));
		if (!poll->batch)
			return NULL;
	}
	watch = llist_entry(poll->batch, struct hippos_watch, node);
	poll->batch = poll->batch->next;
	poll->queued_at = watch->queued_at;
	watch->queued_at = 0;
	/*
	 * From here on a callback may put it on the list again: the accesses above
	 * are ordered before that. Pairs with test_and_set_bit(): input that came
	 * before a callback found the bit set is seen by the caller's reads.
	 */
	clear_bit_unlock(QUEUED, &watch->queued);
	smp_mb__after_atomic();
	return watch;
}

/* How long the socket of the last hippos_poll_next() was on the list, in nanoseconds. */
u64 hippos_poll_queued(const struct hippos_poll *poll)
{
	u64 now = hippos_now();

	if (!poll->queued_at)
		return HIPPOS_NOT_QUEUED;
	return now > poll->queued_at ? now - poll->queued_at : 0;
}

void hippos_watch_add(struct hippos_watch *watch, struct hippos_poll *poll,
		      struct socket *sock)
{
	struct sock *sk = sock->sk;

	memset(watch, 0, sizeof(*watch));
	watch->poll = poll;
	lock_sock(sk);
	write_lock_bh(&sk->sk_callback_lock);
	watch->data_ready = sk->sk_data_ready;
	watch->state_change = sk->sk_state_change;
	watch->write_space = sk->sk_write_space;
	rcu_assign_sk_user_data(sk, watch);
	if (sk->sk_state == TCP_LISTEN) {
		hippos_listener_watch(sk, on_connection);
	} else {
		sk->sk_state_change = on_event;
		if (sk->sk_type == SOCK_STREAM) {
			sk->sk_data_ready = on_data;
			sk->sk_write_space = on_space;
			/* Softirqs send as well: not from a task's fragment. */
			sk->sk_use_task_frag = false;
		} else {
			sk->sk_data_ready = on_event;
		}
	}
	write_unlock_bh(&sk->sk_callback_lock);
	release_sock(sk);
	/* Input that came before the callbacks were set has called none of them. */
	make_ready(watch);
}

/* No callback uses watch afterwards; it may still be on the list. May sleep. */
void hippos_watch_remove(struct hippos_watch *watch, struct socket *sock)
{
	struct sock *sk = sock->sk;

	/* Excludes a callback that serves the connection. */
	lock_sock(sk);
	write_lock_bh(&sk->sk_callback_lock);
	sk->sk_data_ready = watch->data_ready;
	sk->sk_state_change = watch->state_change;
	sk->sk_write_space = watch->write_space;
	rcu_assign_sk_user_data(sk, HIPPOS_UNWATCHED);
	write_unlock_bh(&sk->sk_callback_lock);
	release_sock(sk);
	if (sk->sk_state == TCP_LISTEN)
		hippos_listener_close_waiting(sock);
}

/* Puts a socket that has work left at the list's end. */
void hippos_watch_again(struct hippos_watch *watch)
{
	make_ready(watch);
}

/*
 * Parks a socket whose command waits for memory: it stays queued, so that no
 * callback makes it ready, until hippos_poll_unpark(). Called by the worker.
 */
void hippos_watch_park(struct hippos_watch *watch)
{
	struct hippos_poll *poll = watch->poll;

	/* New input has put it on the ready list, where it stays. */
	if (test_and_set_bit(QUEUED, &watch->queued))
		return;
	if (llist_add(&watch->node, &poll->parked))
		poll->parked_first = &watch->node;
}

bool hippos_poll_has_parked(const struct hippos_poll *poll)
{
	return !llist_empty(&poll->parked);
}

/* Makes the parked sockets ready, at most once a tick. Called by the worker. */
void hippos_poll_unpark(struct hippos_poll *poll)
{
	struct llist_node *last;

	if (llist_empty(&poll->parked) || poll->unparked == jiffies)
		return;
	poll->unparked = jiffies;
	last = llist_del_all(&poll->parked);
	llist_add_batch(last, poll->parked_first, &poll->ready);
}

/* Whether a removed watch still is on the list. */
bool hippos_watch_is_queued(const struct hippos_watch *watch)
{
	return test_bit(QUEUED, &watch->queued);
}
