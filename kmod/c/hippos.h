/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The C side of kapi: wrappers of the kernel's macros, inline functions and bit
 * fields, and the callbacks that the kernel calls with its own types. Every
 * function is declared a second time, for Rust, in kmod/kapi/ffi.rs;
 * 'cargo xtask lint' compares the two.
 */
#ifndef HIPPOS_H
#define HIPPOS_H

#include <linux/build_bug.h>
#include <linux/in6.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/mm_types_task.h>
#include <linux/spinlock_types.h>
#include <linux/stddef.h>
#include <linux/types.h>

struct device;
struct file;
struct hippos_route;
struct net;
struct nf_hook_state;
struct rps_map;
struct shrinker;
struct sk_buff;
struct sock;
struct socket;
struct task_struct;

/* packet.c */

/* A UDP datagram for this host that may be answered in place. */
struct hippos_packet {
	/* The UDP payload, linear, and its length. */
	u8 *payload;
	u32 len;
	/*
	 * Bytes that may be written at payload without hippos_packet_room(), and that
	 * the return path takes in one datagram.
	 */
	u32 room;
	/* The sender: ipv4 in network byte order, or ipv6 when that is 0. */
	u32 ipv4;
	/* The number of the receiving interface. */
	u32 interface;
	/* The CPU that handles it. */
	u32 cpu;
	/* IP and UDP header together: 28 or 48. */
	u16 headers;
	/* Came over a loopback device. */
	bool local;
	u8 ipv6[16];
	/* The return path: one of this CPU's entries, or held. */
	const struct hippos_route *route;
	/* A copy, for replies that take more than one datagram. */
	u64 held[8];
	/* Bytes of a reply of several datagrams: for kapi/packet.rs alone. */
	u32 sent;
};

static_assert(sizeof(struct hippos_packet) == 128 &&
	      offsetof(struct hippos_packet, sent) == 120);

bool hippos_packet_room(struct sk_buff *skb, struct hippos_packet *packet, u32 len);
struct sk_buff *hippos_packet_alloc_reply(const struct sk_buff *skb,
				   struct hippos_packet *packet, u32 len, u8 **payload);
void hippos_packet_reply(struct sk_buff *skb, struct hippos_packet *packet, u32 len, bool first);
void hippos_packet_free(struct sk_buff *skb);
void hippos_packet_consume(struct sk_buff *skb);

/* hook.c */

/* The base of the verdicts to reply: the reply's length is added to it. */
#define HIPPOS_REPLY 0x10000

/*
 * Handles a packet in softirq, under RCU. Returns a verdict of Netfilter's, or
 * HIPPOS_REPLY plus the length of the reply, which it has written to
 * packet->payload.
 */
typedef u32 hippos_receive_fn(void *private, struct sk_buff *skb,
			      struct hippos_packet *packet);

/*
 * Whether the sender is allowed, in the same context; only the sender, the
 * interface and local are set in the packet.
 */
typedef bool hippos_allow_fn(void *private, const struct hippos_packet *packet);

enum hippos_handler_kind {
	HIPPOS_HOOK,
	HIPPOS_XDP,
};

/*
 * Records the time that serving a packet took and, unless it is U64_MAX, the time
 * that the packet had waited, in nanoseconds. In the same context.
 */
typedef void hippos_record_fn(void *private, u32 kind, u64 service, u64 queued);

/* The handler that gets the packets for a UDP port. */
struct hippos_handler {
	hippos_receive_fn *receive;
	hippos_allow_fn *allow;
	hippos_record_fn *record;
	void *private;
	/* The interface that the socket is bound to, or 0. */
	u32 interface;
	u16 port;
	enum hippos_handler_kind kind;
};

static_assert(sizeof(struct hippos_handler) == 48 &&
	      offsetof(struct hippos_handler, kind) == 40);

/* The values of udp_fast=: when requests are answered before the socket. */
enum hippos_fast {
	HIPPOS_NEVER,
	/* While neither NAT nor rules for outgoing packets could affect a reply. */
	HIPPOS_AUTO,
	HIPPOS_ALWAYS,
	/* Behind destination NAT. */
	HIPPOS_LATE,
};

struct hippos_hooks;

unsigned int hippos_on_ipv4(void *private, struct sk_buff *skb,
			    const struct nf_hook_state *state);
unsigned int hippos_on_ipv6(void *private, struct sk_buff *skb,
			    const struct nf_hook_state *state);
unsigned int hippos_on_ipv4_late(void *private, struct sk_buff *skb,
				 const struct nf_hook_state *state);
unsigned int hippos_on_ipv6_late(void *private, struct sk_buff *skb,
				 const struct nf_hook_state *state);
struct hippos_hooks *hippos_hooks_register(struct net *net, const struct hippos_handler *handler,
					   enum hippos_fast fast);
void hippos_hooks_unregister(struct hippos_hooks *hooks);

/* firewall.c */

enum hippos_closed {
	HIPPOS_OPEN,
	HIPPOS_CLOSED_NAT,
	HIPPOS_CLOSED_OUTPUT,
	HIPPOS_CLOSED_POSTROUTING,
	HIPPOS_OFF,
};

/* Why a handler is closed, by its kind, IPv6 before IPv4. */
struct hippos_fast_path_state {
	u8 why[2][2];
} __aligned(4);

static_assert(sizeof(struct hippos_fast_path_state) == 4 &&
	      offsetof(struct hippos_fast_path_state, why) == 0);

struct hippos_fast_path_state hippos_fast_path_state(void);

/* counters.c */

u64 hippos_counter_sum(u32 counter);

/* xdp.c */

struct hippos_xdp;

struct hippos_xdp *hippos_xdp_open(struct net *net, const struct hippos_handler *handler);
void hippos_xdp_close(struct hippos_xdp *xdp);

struct net *hippos_net_get(void);
void hippos_net_put(struct net *net);

/* socket.c */

/* Both ends of a datagram; IPv4 addresses are mapped. */
struct hippos_addresses {
	struct in6_addr peer;
	struct in6_addr own;
	u32 peer_scope;
	u32 interface;
	/* The VRF that the interface is part of, by its device's number; 0 if none. */
	u32 vrf;
	u16 peer_port;
	/* The sender shares this host's loopback device. */
	bool local;
	/* The own address is one that a reply may come from. */
	bool unicast;
};

static_assert(sizeof(struct hippos_addresses) == 48 &&
	      offsetof(struct hippos_addresses, unicast) == 47);

u32 hippos_interface(struct net *net, const char *name);
struct socket *hippos_udp_bind(struct net *net, u16 port, u32 interface,
			       unsigned int send_ms);
bool hippos_udp_rebind(struct socket *sock, u32 interface);
void hippos_peer(struct socket *socket, struct hippos_addresses *ends);
struct sock *hippos_connection_get(struct socket *socket);
void hippos_connection_put(struct sock *sk);
bool hippos_connection_shut_down(struct sock *sk);
u64 hippos_connection_received(const struct sock *sk);
u64 hippos_connection_sent(const struct sock *sk);
void hippos_socket_release(struct socket *socket);
u64 hippos_udp_queued(struct socket *socket);
int hippos_receive_from(struct socket *socket, void *buffer, size_t len,
			struct hippos_addresses *ends);
int hippos_send_to(struct socket *socket, const void *head, size_t head_len,
		   const void *body, size_t body_len, const struct hippos_addresses *ends);

/* listener.c */

struct socket *hippos_tcp_listen(struct net *net, u16 port, u32 interface, int cpu,
				 int backlog);
struct socket *hippos_accept(struct socket *listener);

/* stream.c */

/* The pages that replies are written to: the rest of a page block, and a second one. */
struct hippos_reply_pages {
	struct page_frag frag[2];
	u32 now;
};

static_assert(sizeof(struct hippos_reply_pages) == 5 * sizeof(long));

struct sock *hippos_stream_lock(struct socket *socket);
void hippos_stream_unlock(struct sock *sk);
const void *hippos_stream_peek(struct sock *sk, u32 *len);
u32 hippos_stream_copy(struct sock *sk, void *to, u32 len);
void hippos_stream_consume(struct sock *sk, u32 len);
bool hippos_stream_ended(const struct sock *sk);
int hippos_stream_send(struct sock *sk, const void *bytes, size_t len, bool more);
bool hippos_stream_takes(const struct sock *sk);
void *hippos_reply_pages_open(struct hippos_reply_pages *pages, bool atomic, u32 *size);
int hippos_reply_pages_send(struct hippos_reply_pages *pages, struct sock *sk, u32 len, bool more);
void hippos_reply_pages_free(struct hippos_reply_pages *pages);
struct hippos_reply_pages *hippos_reply_pages_this_cpu(void);
void hippos_reply_pages_get(void);
void hippos_reply_pages_put(void);

/* poll.c */

struct hippos_watch;

/* A worker's list of sockets with something to do. */
struct hippos_poll {
	struct llist_head ready;
	/* Taken off ready, oldest first; the worker's own. */
	struct llist_node *batch;
	/* Queued, but for a moment put aside; the worker's own. */
	struct llist_head parked;
	struct llist_node *parked_first;
	unsigned long unparked;
	/* Since when the socket that was taken off last had been on it, or 0. */
	u64 queued_at;
	struct task_struct *task;
	bool (*serve)(struct hippos_watch *watch, struct sock *sk);
};

static_assert(sizeof(struct hippos_poll) == 8 * sizeof(long));

/* A socket on a worker's list. */
struct hippos_watch {
	struct llist_node node;
	/* On ready, batch or parked. */
	unsigned long queued;
	/* When it was put on ready, while times are measured; else 0. */
	u64 queued_at;
	struct hippos_poll *poll;
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*write_space)(struct sock *sk);
};

static_assert(sizeof(struct hippos_watch) == 7 * sizeof(long));

void hippos_poll_init(struct hippos_poll *poll,
		      bool (*serve)(struct hippos_watch *watch, struct sock *sk));
void hippos_poll_start(struct hippos_poll *poll);
void hippos_poll_wait(struct hippos_poll *poll, long timeout_ms);
struct hippos_watch *hippos_poll_next(struct hippos_poll *poll);
void hippos_watch_add(struct hippos_watch *watch, struct hippos_poll *poll,
		      struct socket *socket);
void hippos_watch_remove(struct hippos_watch *watch, struct socket *socket);
void hippos_watch_again(struct hippos_watch *watch);
void hippos_watch_park(struct hippos_watch *watch);
u64 hippos_poll_queued(const struct hippos_poll *poll);
bool hippos_poll_has_parked(const struct hippos_poll *poll);
void hippos_poll_unpark(struct hippos_poll *poll);
bool hippos_watch_is_queued(const struct hippos_watch *watch);

/* steer.c */

/* Cards whose packets are steered by us, at most. */
#define HIPPOS_STEERED 4

struct hippos_steer {
	struct net *net;
	struct rps_map *maps[HIPPOS_STEERED];
};

static_assert(sizeof(struct hippos_steer) == 5 * sizeof(long));

unsigned int hippos_steer_devices(const struct hippos_steer *steer);
bool hippos_steer_on(struct hippos_steer *steer);
bool hippos_steer_off(struct hippos_steer *steer, bool wait);
u64 hippos_cpu_idle(unsigned int cpu, u64 *now);
unsigned int hippos_cpu_receives(unsigned int cpu);
bool hippos_thread_bind(unsigned int cpu, bool others);
bool hippos_thread_lost(unsigned int cpu);

/* transmit_test.c */

int hippos_transmit_test(void);

/* kthread.c */

/* Wakes one thread; safe after the thread has ended. */
struct hippos_waker {
	struct task_struct *task;
	unsigned long pending;
};

static_assert(sizeof(struct hippos_waker) == 16 &&
	      offsetof(struct hippos_waker, pending) == 8);

struct task_struct *hippos_thread_start(int (*run)(void *data), void *data, int cpu,
					const char *name);
u64 hippos_threads_us(void);
u64 hippos_softirq_us(void);
u32 hippos_threads_pid(void);
int hippos_thread_stop(struct task_struct *task);
bool hippos_thread_should_stop(void);
void hippos_thread_sleep(long timeout_ms);
bool hippos_waker_attach(struct hippos_waker *waker);
void hippos_waker_detach(struct hippos_waker *waker);
void hippos_waker_wake(struct hippos_waker *waker);
void hippos_waker_wait(struct hippos_waker *waker, long timeout_ms);

/* mm.c */

void *hippos_pages_alloc(size_t bytes);
void hippos_pages_free(void *address, size_t bytes);
void *hippos_table_alloc(size_t bytes);
void hippos_table_free(void *address);
u64 hippos_memory(void);
u64 hippos_memory_available(void);
struct shrinker *hippos_shrinker_register(struct hippos_waker *waker, u64 bytes);
void hippos_shrinker_unregister(struct shrinker *shrinker);
unsigned long hippos_direct_map(void);

/* sync.c */

void hippos_read_lock(void);
void hippos_read_unlock(void);
unsigned int hippos_cpu(void);
unsigned int hippos_cpus(void);
int hippos_next_cpu(int cpu);
bool hippos_cpu_is_isolated(int cpu);
void hippos_resched(void);
void hippos_short_sleep(void);
u32 hippos_ticks(void);

/* lock.c */

void hippos_lock_init(spinlock_t *lock, unsigned int class);
void hippos_lock(spinlock_t *lock);
bool hippos_trylock(spinlock_t *lock);
void hippos_unlock(spinlock_t *lock);
void hippos_registry_lock(void);
void hippos_registry_unlock(void);

/* log.c */

/* The subject of a line; kapi/log.rs has the same numbers. */
enum hippos_log_kind {
	HIPPOS_LOG_CONNECTION = 0,
	HIPPOS_LOG_DATAGRAM = 1,
	HIPPOS_LOG_CHANGE = 2,
};

bool hippos_log_permits(enum hippos_log_kind kind);
u32 hippos_log_user(void);
u32 hippos_log_login(void);

/* time.c */

u64 hippos_uptime_ms(void);
s64 hippos_unix_ms(void);
u64 hippos_unix_us(void);

/* version.c */

const char *hippos_version(void);

/* latency.c */

void hippos_latency_set(bool on);
bool hippos_latency_is_on(void);
u64 hippos_latency_now(void);

/* device.c */

struct hippos_device;
struct hippos_device *hippos_device_register(const char *name,
					     long (*call)(void *private, unsigned int number,
							  unsigned long argument),
					     void *private);
void hippos_device_unregister(struct hippos_device *device);

/* fault.c */

#ifdef CONFIG_KASAN
const char *hippos_selftest(void);
void hippos_bh_disable(void);
void hippos_bh_enable(void);
void hippos_fault_unsafe_lock(void);
void hippos_fault_lock_order(void);
void hippos_fault_unguarded(void);
void hippos_fault_freed_timer(void);
#endif

#endif
