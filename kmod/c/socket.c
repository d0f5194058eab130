// SPDX-License-Identifier: GPL-2.0-only
/*
 * Kernel sockets (linux/net.h). A UDP socket holds no reference to its namespace:
 * the caller holds one for the socket's lifetime. TCP sockets hold one, since a
 * closed connection lives on until its peer has acknowledged all of its data.
 */
#include <linux/err.h>
#include <linux/file.h>
#include <linux/in.h>
#include <linux/inetdevice.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/tcp.h>
#include <net/addrconf.h>
#include <net/inet_sock.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/route.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "hippos.h"
#include "latency.h"
#include "socket.h"

#define DATAGRAM_BUFFER (1 << 20)

/* The number of an interface, 0 if there is none of that name. */
u32 hippos_interface(struct net *net, const char *name)
{
	struct net_device *dev = dev_get_by_name(net, name);
	u32 index = dev ? dev->ifindex : 0;

	dev_put(dev);
	return index;
}

/*
 * Binds to the wildcard address of both families; of IPv4 alone where IPv6 is off.
 * With an interface the socket gets only the packets that arrive over it.
 */
int hippos_socket_bind(struct socket *sock, u16 port, u32 interface)
{
	struct sockaddr_in6 ipv6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(port),
	};
	struct sockaddr_in ipv4 = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
	};
	int err;

	if (interface) {
		err = sock_bindtoindex(sock->sk, interface, true);
		if (err)
			return err;
	}
	if (sock->sk->sk_family == AF_INET6)
		return kernel_bind(sock, (struct sockaddr_unsized *)&ipv6, sizeof(ipv6));
	return kernel_bind(sock, (struct sockaddr_unsized *)&ipv4, sizeof(ipv4));
}

/* A socket of both families; of IPv4 alone where IPv6 is off. */
struct socket *hippos_socket_create(struct net *net, int type, int protocol)
{
	struct socket *sock;
	int err;

	err = sock_create_kern(net, AF_INET6, type, protocol, &sock);
	if (err == -EAFNOSUPPORT)
		err = sock_create_kern(net, AF_INET, type, protocol, &sock);
	if (err)
		return ERR_PTR(err);
	/* Before a BPF program could put the socket into a socket map: see poll.c. */
	rcu_assign_sk_user_data(sock->sk, HIPPOS_UNWATCHED);
	if (sock->sk->sk_family == AF_INET6)
		/* Independently of net.ipv6.bindv6only. */
		sock->sk->sk_ipv6only = false;
	return sock;
}

/* A datagram socket whose sends fail when they have waited send_ms for buffer space. */
struct socket *hippos_udp_bind(struct net *net, u16 port, u32 interface,
			       unsigned int send_ms)
{
	struct socket *sock = hippos_socket_create(net, SOCK_DGRAM, IPPROTO_UDP);
	int err;

	if (IS_ERR(sock))
		return sock;
	if (sock->sk->sk_family == AF_INET6)
		ip6_sock_set_recvpktinfo(sock->sk);
	else
		ip_sock_set_pktinfo(sock->sk);
	/* Bursts of requests, and replies of a thousand datagrams. */
	sock_set_rcvbuf(sock->sk, DATAGRAM_BUFFER);
	lock_sock(sock->sk);
	sock->sk->sk_userlocks |= SOCK_SNDBUF_LOCK;
	WRITE_ONCE(sock->sk->sk_sndbuf, 2 * DATAGRAM_BUFFER);
	sock->sk->sk_sndtimeo = msecs_to_jiffies(send_ms);
	release_sock(sock->sk);
	err = hippos_socket_bind(sock, port, interface);
	if (err) {
		sock_release(sock);
		return ERR_PTR(err);
	}
	/*
	 * The socket keeps the time stamp of the datagram that was received last, for
	 * hippos_udp_queued(). Unlike SO_TIMESTAMP the flag does not enable the kernel's
	 * time stamps: latency.c does, while times are measured.
	 */
	lock_sock(sock->sk);
	sock_set_flag(sock->sk, SOCK_TIMESTAMP);
	release_sock(sock->sk);
	return sock;
}

/*
 * Binds a datagram socket to its interface again, if it has lost it: an operator's
 * "ss -K" leaves the port and removes the interface. Returns whether it had.
 */
bool hippos_udp_rebind(struct socket *sock, u32 interface)
{
	struct sock *sk = sock->sk;
	bool lost;

	/* An abort reports its error before it removes the interface, with the lock held. */
	lock_sock(sk);
	lost = sk->sk_bound_dev_if != interface && !sock_bindtoindex(sk, interface, false);
	release_sock(sk);
	return lost;
}

/* Closes a socket of any kind. */
void hippos_socket_release(struct socket *sock)
{
	struct sock *sk = sock->sk;

	/* With the flag the release would disable time stamps that the socket did not enable. */
	if (sock_flag(sk, SOCK_TIMESTAMP)) {
		lock_sock(sk);
		sock_reset_flag(sk, SOCK_TIMESTAMP);
		release_sock(sk);
	}
	sock_release(sock);
}

static void map_address(const struct sock *sk, struct in6_addr *to, __be32 ipv4,
			const struct in6_addr *ipv6)
{
	if (sk->sk_family == AF_INET6)
		*to = *ipv6;
	else
		ipv6_addr_set_v4mapped(ipv4, to);
}

/* Both ends of a connection. */
void hippos_peer(struct socket *sock, struct hippos_addresses *ends)
{
	const struct sock *sk = sock->sk;

	memset(ends, 0, sizeof(*ends));
	map_address(sk, &ends->peer, sk->sk_daddr, &sk->sk_v6_daddr);
	map_address(sk, &ends->own, sk->sk_rcv_saddr, &sk->sk_v6_rcv_saddr);
	ends->peer_port = ntohs(sk->sk_dport);
	/* A loopback address or the same at both ends: no network in between. */
	ends->local = ipv6_addr_equal(&ends->peer, &ends->own) ||
		      ipv6_addr_loopback(&ends->peer) ||
		      (ipv6_addr_v4mapped(&ends->peer) &&
		       ipv4_is_loopback(ends->peer.s6_addr32[3]));
	ends->unicast = true;
}

/* A reference to a connection, which may outlive its socket. */
struct sock *hippos_connection_get(struct socket *sock)
{
	sock_hold(sock->sk);
	return sock->sk;
}

void hippos_connection_put(struct sock *sk)
{
	sock_put(sk);
}

/*
 * Shuts a connection down as inet_shutdown() does, which needs the struct socket:
 * the queued data and a FIN are sent, and the worker closes its side. False if it
 * is closed or shut down already. May sleep.
 */
bool hippos_connection_shut_down(struct sock *sk)
{
	bool open;

	lock_sock(sk);
	open = sk->sk_state != TCP_CLOSE && sk->sk_shutdown != SHUTDOWN_MASK;
	if (open) {
		WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
		sk->sk_prot->shutdown(sk, SHUTDOWN_MASK);
		sk->sk_state_change(sk);
	}
	release_sock(sk);
	return open;
}

/* Bytes received in order, and those sent that the peer has acknowledged. */
u64 hippos_connection_received(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->bytes_received);
}

u64 hippos_connection_sent(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->bytes_acked);
}

union control {
	struct cmsghdr align;
	u8 ipv4[CMSG_SPACE(sizeof(struct in_pktinfo))];
	u8 ipv6[CMSG_SPACE(sizeof(struct in6_pktinfo))];
};

/* Finds by the interface that a datagram came by whether its addresses are local and unicast, and its VRF. */
static void ask_interface(struct net *net, struct hippos_addresses *ends)
{
	const struct net_device *dev;

	rcu_read_lock();
	dev = dev_get_by_index_rcu(net, ends->interface);
	ends->local = dev && dev->flags & IFF_LOOPBACK;
	ends->vrf = l3mdev_master_ifindex_rcu(dev);
	/* A VRF has its own addresses. Where IPv6 is off, its functions may not be called. */
	if (ipv6_addr_v4mapped(&ends->own))
		ends->unicast = inet_addr_type_dev_table(net, dev, ends->own.s6_addr32[3]) ==
				RTN_LOCAL;
	else
		ends->unicast = dev && __in6_dev_get(dev) &&
				ipv6_chk_addr(net, &ends->own, dev, 0);
	rcu_read_unlock();
}

/*
 * How long the datagram that was received last had been in the kernel, in nanoseconds;
 * HIPPOS_NOT_QUEUED when the kernel had not stamped it.
 */
u64 hippos_udp_queued(struct socket *sock)
{
	return hippos_since_stamp(sock_read_timestamp(sock->sk));
}

/* Receives one datagram, without waiting. */
int hippos_receive_from(struct socket *sock, void *buffer, size_t len,
			struct hippos_addresses *ends)
{
	struct kvec vec = { .iov_base = buffer, .iov_len = len };
	struct sockaddr_in6 name = {};
	union control control = {};
	struct net *net = sock_net(sock->sk);
	struct msghdr msg = {
		.msg_name = &name,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
		.msg_flags = MSG_DONTWAIT,
	};
	struct cmsghdr *cmsg;
	int n = kernel_recvmsg(sock, &msg, &vec, 1, len, MSG_DONTWAIT);

	if (n < 0)
		return n;
	memset(ends, 0, sizeof(*ends));
	if (name.sin6_family == AF_INET6) {
		ends->peer = name.sin6_addr;
		ends->peer_scope = name.sin6_scope_id;
		ends->peer_port = ntohs(name.sin6_port);
	} else {
		struct sockaddr_in *ipv4 = (struct sockaddr_in *)&name;

		ipv6_addr_set_v4mapped(ipv4->sin_addr.s_addr, &ends->peer);
		ends->peer_port = ntohs(ipv4->sin_port);
	}
	/* put_cmsg() has advanced both. */
	msg.msg_controllen = sizeof(control) - msg.msg_controllen;
	msg.msg_control = &control;
	for_each_cmsghdr(cmsg, &msg) {
		if (!CMSG_OK(&msg, cmsg))
			break;
		if (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo *info = CMSG_DATA(cmsg);

			ends->own = info->ipi6_addr;
			ends->interface = info->ipi6_ifindex;
		} else if (cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *info = CMSG_DATA(cmsg);

			ipv6_addr_set_v4mapped(info->ipi_addr.s_addr, &ends->own);
			ends->interface = info->ipi_ifindex;
		}
	}
	ask_interface(net, ends);
	return n;
}

/* Sends head and body as one datagram, from the address that the request was sent to. */
int hippos_send_to(struct socket *sock, const void *head, size_t head_len,
		   const void *body, size_t body_len, const struct hippos_addresses *ends)
{
	struct kvec vec[2] = {
		{ .iov_base = (void *)head, .iov_len = head_len },
		{ .iov_base = (void *)body, .iov_len = body_len },
	};
	struct sockaddr_in6 ipv6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(ends->peer_port),
		.sin6_addr = ends->peer,
		.sin6_scope_id = ends->peer_scope,
	};
	struct sockaddr_in ipv4 = {
		.sin_family = AF_INET,
		.sin_port = htons(ends->peer_port),
		.sin_addr.s_addr = ends->peer.s6_addr32[3],
	};
	union control control = {};
	struct cmsghdr *cmsg = &control.align;
	/* A socket that is bound to an interface has its routes anyway. */
	u32 vrf = READ_ONCE(sock->sk->sk_bound_dev_if) ? 0 : ends->vrf;
	struct msghdr msg = {
		.msg_flags = MSG_NOSIGNAL,
		.msg_control = &control,
	};

	if (sock->sk->sk_family == AF_INET6) {
		struct in6_pktinfo *info = CMSG_DATA(cmsg);

		msg.msg_name = &ipv6;
		msg.msg_namelen = sizeof(ipv6);
		cmsg->cmsg_level = SOL_IPV6;
		cmsg->cmsg_type = IPV6_PKTINFO;
		cmsg->cmsg_len = CMSG_LEN(sizeof(*info));
		info->ipi6_addr = ends->own;
		/* A link-local address is unique on its link only. */
		info->ipi6_ifindex = ipv6_addr_type(&ends->own) & IPV6_ADDR_LINKLOCAL ?
				     ends->interface : vrf;
		msg.msg_controllen = CMSG_SPACE(sizeof(*info));
	} else {
		struct in_pktinfo *info = CMSG_DATA(cmsg);

		msg.msg_name = &ipv4;
		msg.msg_namelen = sizeof(ipv4);
		cmsg->cmsg_level = SOL_IP;
		cmsg->cmsg_type = IP_PKTINFO;
		cmsg->cmsg_len = CMSG_LEN(sizeof(*info));
		info->ipi_spec_dst.s_addr = ends->own.s6_addr32[3];
		info->ipi_ifindex = vrf;
		msg.msg_controllen = CMSG_SPACE(sizeof(*info));
	}
	return kernel_sendmsg(sock, &msg, vec, ARRAY_SIZE(vec), head_len + body_len);
}
