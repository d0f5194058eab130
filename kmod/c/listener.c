// SPDX-License-Identifier: GPL-2.0-only
/*
 * TCP listeners (net/inet_connection_sock.h), and the sockets that are accepted
 * from them.
 *
 * An accepted socket is a copy of its listener. poll.c watches a listener by a
 * data_ready of its own, which the copy inherits and which would outlive the
 * module: the kernel's own replaces it at once, whether the copy is watched
 * afterwards or not. Connections that wait to be accepted when their listener is
 * removed are closed, since the kernel could move them to another listener of the
 * port.
 */
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/net.h>
#include <linux/tcp.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "hippos.h"
#include "listener.h"
#include "socket.h"

/*
 * A listener's data_ready before it was watched, and since. Both are the same for
 * all listeners. They are written with a listener's lock held, which
 * kernel_accept() takes as well.
 */
static void (*plain_data_ready)(struct sock *sk);
static void (*watched_data_ready)(struct sock *sk);

/* How often closing waiting connections is tried again, about a millisecond apart. */
#define CLOSE_RETRIES 1000

/*
 * Makes a listener. With a CPU it shares the port with the other CPUs' listeners
 * and gets the connections that arrive on its own CPU; without (-1) it has the
 * port alone.
 */
struct socket *hippos_tcp_listen(struct net *net, u16 port, u32 interface, int cpu,
				 int backlog)
{
	struct socket *sock = hippos_socket_create(net, SOCK_STREAM, IPPROTO_TCP);
	int err;

	if (IS_ERR(sock))
		return sock;
	sock_set_reuseaddr(sock->sk);
	if (cpu >= 0)
		sock_set_reuseport(sock->sk);
	/*
	 * Accepted sockets inherit all of it. Without a reference to its namespace
	 * a closed connection would have no timers: neither its last reply nor its
	 * FIN would be sent again, and it would wait for a silent peer for ever.
	 */
	sk_net_refcnt_upgrade(sock->sk);
	sock_set_keepalive(sock->sk);
	tcp_sock_set_nodelay(sock->sk);
	err = hippos_socket_bind(sock, port, interface);
	if (!err)
		err = kernel_listen(sock, backlog);
	if (!err && cpu >= 0)
		err = sock_setsockopt(sock, SOL_SOCKET, SO_INCOMING_CPU,
				      KERNEL_SOCKPTR(&cpu), sizeof(cpu));
	if (err) {
		sock_release(sock);
		return ERR_PTR(err);
	}
	return sock;
}

/* Sets a listener's data_ready. The caller holds its lock and its sk_callback_lock. */
void hippos_listener_watch(struct sock *sk, void (*data_ready)(struct sock *sk))
{
	WRITE_ONCE(plain_data_ready, sk->sk_data_ready);
	WRITE_ONCE(watched_data_ready, data_ready);
	sk->sk_data_ready = data_ready;
}

/* Removes the callback and the watch that a socket has inherited from its listener. */
static void unwatch_copy(struct sock *sk)
{
	write_lock_bh(&sk->sk_callback_lock);
	rcu_assign_sk_user_data(sk, HIPPOS_UNWATCHED);
	if (sk->sk_data_ready == READ_ONCE(watched_data_ready))
		sk->sk_data_ready = READ_ONCE(plain_data_ready);
	write_unlock_bh(&sk->sk_callback_lock);
}

/* A connection that waits to be accepted, with callbacks of the kernel's own. */
struct socket *hippos_accept(struct socket *listener)
{
	struct socket *sock;
	int err = kernel_accept(listener, &sock, O_NONBLOCK);

	if (err)
		return ERR_PTR(err);
	unwatch_copy(sock->sk);
	return sock;
}

/*
 * Closes the connections that wait to be accepted, when the listener is no longer
 * watched. Connections that come meanwhile have no callback of ours: releasing the
 * listener closes them.
 */
void hippos_listener_close_waiting(struct socket *listener)
{
	u32 waiting, retries = CLOSE_RETRIES;
	struct socket *sock;

	/* Afterwards all copies that were begun with our callback are in the queue. */
	synchronize_rcu();
	waiting = READ_ONCE(listener->sk->sk_ack_backlog);
	while (waiting) {
		sock = hippos_accept(listener);
		if (!IS_ERR(sock)) {
			sock_release(sock);
			waiting--;
		} else if (sock == ERR_PTR(-EAGAIN) || sock == ERR_PTR(-EINVAL) || !retries--) {
			return;
		} else {
			/* Most likely for lack of memory. */
			usleep_range(1000, 2000);
		}
	}
}
