/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets of the kernel's own, for listener.c and poll.c. */
#ifndef HIPPOS_SOCKET_H
#define HIPPOS_SOCKET_H

#include <linux/types.h>

struct net;
struct socket;

/* sk_user_data of a socket that is not watched: no pointer, and no tag of net/sock.h. */
#define HIPPOS_UNWATCHED ((void *)8UL)

struct socket *hippos_socket_create(struct net *net, int type, int protocol);
int hippos_socket_bind(struct socket *sock, u16 port, u32 interface);

#endif
