/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets of the kernel's own, for listener.c. */
#ifndef HIPPOS_SOCKET_H
#define HIPPOS_SOCKET_H

#include <linux/types.h>

struct net;
struct socket;

struct socket *hippos_socket_create(struct net *net, int type, int protocol);
int hippos_socket_bind(struct socket *sock, u16 port, u32 interface);

#endif
