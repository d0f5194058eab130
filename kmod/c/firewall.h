/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whether a namespace's NAT or its rules for outgoing packets would affect
 * replies in place, which they do not see.
 */
#ifndef HIPPOS_FIREWALL_H
#define HIPPOS_FIREWALL_H

#include "hippos.h"

void hippos_firewall_start(struct net *net, enum hippos_fast mode);
void hippos_firewall_stop(void);
bool hippos_firewall_closed(enum hippos_handler_kind kind, struct net *net, bool ipv4);

#endif
