/* SPDX-License-Identifier: GPL-2.0-only */
/* The steps of poll.c that are for listeners only. */
#ifndef HIPPOS_LISTENER_H
#define HIPPOS_LISTENER_H

struct sock;
struct socket;

void hippos_listener_watch(struct sock *sk, void (*data_ready)(struct sock *sk));
void hippos_listener_close_waiting(struct socket *listener);

#endif
