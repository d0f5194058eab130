/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Why a datagram to our port is passed to the next receive path: by XDP to
 * PRE_ROUTING, by PRE_ROUTING to the stack and so to the UDP socket. Counted
 * for each CPU, on these paths alone. Packets of other protocols and to other
 * ports are not counted; the text of a reason that is checked before the port
 * mentions that.
 *
 * This list is the only one. kapi/pass.rs reads it when it is compiled, and
 * `stats hippos_pass` shows the names; docs/statistics.md has the table.
 */
#ifndef HIPPOS_PASS_H
#define HIPPOS_PASS_H

#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/stddef.h>
#include <linux/types.h>

/* A packet with more bytes, its IP header included, goes to the socket. The text of LENGTH names it. */
#define HIPPOS_REQUEST_MAX 2048

/* X(enumerator, name, meaning) */
#define HIPPOS_PASS_REASONS(X) \
	X(OPTIONS, "options", "IPv4 options or IPv6 extension headers; by XDP of any protocol and port") \
	X(FRAGMENT, "fragment", "the first fragment of a datagram; by XDP each fragment, to any port") \
	X(LENGTH, "length", "no payload, more than 2048 bytes, or lengths that do not fit together") \
	X(SOURCE_PORT, "source_port", "from port 0, 11211 or ours: a reply could go round in circles") \
	X(CHECKSUM, "checksum", "a wrong checksum, or none over IPv6") \
	X(MEMORY, "memory", "no memory to make the packet linear") \
	X(CONTEXT, "context", "not in softirq: given back by NFQUEUE") \
	X(BROADCAST, "broadcast", "to another MAC address than the device's, broadcast and multicast included; by XDP of any port") \
	X(SEGMENTS, "segments", "several datagrams joined by GRO, or a frame of several buffers; by XDP of any port") \
	X(TUNNEL, "tunnel", "out of a tunnel") \
	X(SOCKET_CHOSEN, "socket_chosen", "traffic control or TPROXY has chosen a socket") \
	X(DEVICE, "device", "not by an Ethernet-like device of its own (a bridge's or bond's port, a VRF, another link type); by XDP of any port") \
	X(VLAN, "vlan", "a VLAN's tag is hidden by the card, or no interface has it; by XDP of any port") \
	X(NAMESPACE, "namespace", "a device of another network namespace; by XDP of any port") \
	X(EXTENSION, "extension", "marked by a bridge's Netfilter, by IPsec or by traffic control") \
	X(POLICY, "policy", "the namespace has IPsec policies") \
	X(TRANSLATED, "translated", "part of a flow that NAT translates (udp_fast=late); any protocol and port") \
	X(FIREWALL, "firewall", "closed for the firewall's sake: hippos-ctl status says by what") \
	X(SOURCE, "source", "its source is not allowed") \
	X(LOOKUPS, "lookups", "too many lookups of return paths in this tick") \
	X(RULES, "rules", "routing rules look at ports or protocols") \
	X(ADDRESSES, "addresses", "not from a host's address to one of this host's") \
	X(ROUTE_IN, "route_in", "routing would not deliver it here (reverse path filter, martian, not local)") \
	X(ROUTE_OUT, "route_out", "its reply would not leave by the device that it came by") \
	X(NEIGHBOUR, "neighbour", "the next hop's link-layer address is not known, or not valid") \
	X(INTERFACE, "interface", "not by the interface of dev=") \
	X(ROOM, "room", "its reply is longer than the MTU of its path or its frame allows, or there is no memory for it") \
	X(INVALID, "invalid", "no valid request") \
	X(UNSERVED, "unserved", "a request that only the UDP socket's worker serves")

enum hippos_pass_reason {
#define X(enumerator, name, meaning) HIPPOS_PASS_##enumerator,
	HIPPOS_PASS_REASONS(X)
#undef X
	HIPPOS_PASS_COUNT
};

/* By kind of handler: one counts here, the next one serves or counts again. */
struct hippos_pass_counts {
	u64 hook;
	u64 xdp;
};

static_assert(sizeof(struct hippos_pass_counts) == 16 &&
	      offsetof(struct hippos_pass_counts, xdp) == 8);

struct hippos_pass_row {
	/* Its terminating zero is not counted in len. */
	const char *name;
	size_t len;
	struct hippos_pass_counts sum;
};

static_assert(sizeof(struct hippos_pass_row) == 32 &&
	      offsetof(struct hippos_pass_row, sum) == 16);

/* Cold, so that the code of answered datagrams does not contain it. */
bool __cold hippos_pass(unsigned int kind, unsigned int reason);
bool hippos_pass_row(unsigned int reason, struct hippos_pass_row *row);

#endif
