// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module's parameters (linux/moduleparam.h). They stand here because the
 * module! macro knows integers only and shows nothing in sysfs. Their ranges
 * are checked in kmod/src/config.rs.
 */
#include <linux/moduleparam.h>

#include "hippos.h"

struct hippos_params hippos_params = {
	.port = 11211,
	.memory_mb = 64,
	.maxconns = 1024,
	.factor = 125,
	.item_min = 48,
	.backlog = 1024,
	.steer = 70,
	.upload_timeout = 30,
	.udp = true,
	.udp_fast = "1",
	.udp_bytes = (1 << 20) + (64 << 10),
	.item_max = "1m",
	.eviction = "clock",
	.allow = "",
	.admin = "network",
	.dev = "",
};

#define PARAM(name, type, description) \
	module_param_named(name, hippos_params.name, type, 0444); \
	MODULE_PARM_DESC(name, description)

PARAM(port, uint, "TCP and UDP port to serve (1 to 65535, default 11211)");
PARAM(memory_mb, uint, "memory for items, MiB (8 to 16777216, default 64)");
PARAM(maxconns, uint, "simultaneous TCP connections (1 to 1000000, default 1024)");
PARAM(threads, uint, "TCP workers (0 to 1024, default 0: one a CPU)");
PARAM(backlog, uint, "connections waiting to be accepted, a worker (1 to 65535, default 1024)");
PARAM(steer, uint, "load of the CPU that polls a card with one receive queue, percent, beyond which"
      " its packets are spread over all CPUs (0 to 100, default 70; 0: never)");
PARAM(upload_timeout, uint, "seconds after which a connection is closed whose value does not come:"
      " no byte for so long, or fewer than 4096 a second over a longer time (0 to 86400,"
      " default 30; 0: never)");
PARAM(item_max, charp, "largest item, bytes or with k or m (1k to 128m, default 1m)");
PARAM(item_min, uint, "space for the smallest item's key and value, bytes (1 to 1024, default 48)");
PARAM(factor, uint, "growth from slab class to slab class, percent (101 to 400, default 125)");
PARAM(eviction, charp, "what goes when memory is full: clock, sieve or s3fifo (default clock)");
PARAM(udp, bool, "serve UDP too (default yes)");
PARAM(udp_fast, charp, "answer UDP GETs where the packets arrive, past the firewall's input: 1 unless"
      " NAT or rules for what leaves could have a say, always, late (behind destination NAT), or 0:"
      " all of UDP goes through a socket (default 1)");
PARAM(udp_bytes, uint, "longest UDP reply, bytes (1392 to 8388608, default 1114112)");
PARAM(udp_rate, uint, "UDP reply bytes a second for each source outside private networks"
      " (default 0: no limit)");
PARAM(dev, charp, "serve only what arrives over this interface (default: all)");
PARAM(allow, charp, "who may ask: networks like 10.0.0.0/8,fd00::/8, default, or any"
      " (default: loopback, private and link-local ranges)");
PARAM(admin, charp, "which clients may use administration commands: network (all), local (on this"
      " host, over TCP) or off (default network)");
PARAM(selftest, uint, "test the store in the kernel before serving (0 no, 1 yes,"
      " 2 with a fault planted, which must be found; default 0)");
PARAM(selftest_oops, bool, "test only: oops on purpose, to see that it is noticed (default no)");
