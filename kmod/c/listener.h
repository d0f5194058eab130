/* SPDX-License-Identifier: GPL-2.0-only */
/* What poll.c does with a listener and with no other socket. */
#ifndef HIPPOS_LISTENER_H
#define HIPPOS_LISTENER_H

struct sock;
struct socket;

void hippos_listener_watch(struct sock *sk, void (*data_ready)(struct sock *sk));
void hippos_listener_close_waiting(struct socket *listener);

#endif
