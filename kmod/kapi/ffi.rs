// SPDX-License-Identifier: GPL-2.0-only
//! Every foreign function that Hippos calls. Functions named `hippos_*` are in
//! `kmod/c` and declared in `kmod/c/hippos.h`, the others are the kernel's.
//!
//! Structures are laid out as in `hippos.h`; the kernel's own are opaque. `cargo xtask lint` compares all of it
//! with the headers (`xtask/src/lint/ffi.rs`).

use core::ffi::{c_int, c_long, c_uint, c_ulong, c_void};
use core::mem::offset_of;
use kernel::bindings;
use kernel::ffi::c_char;

macro_rules! opaque {
    ($($name:ident),*) => {$(
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}

opaque!(
    hippos_device,
    hippos_hooks,
    hippos_route,
    hippos_xdp,
    net,
    shrinker,
    sk_buff,
    sock,
    socket,
    task_struct
);

/// `struct hippos_packet`.
#[repr(C)]
pub(crate) struct hippos_packet {
    pub(crate) payload: *mut u8,
    pub(crate) len: u32,
    pub(crate) room: u32,
    pub(crate) ipv4: u32,
    pub(crate) interface: u32,
    pub(crate) cpu: u32,
    pub(crate) headers: u16,
    pub(crate) local: bool,
    pub(crate) ipv6: [u8; 16],
    pub(crate) route: *const hippos_route,
    pub(crate) held: [u64; 8],
    pub(crate) sent: u32,
}

/// `hippos_latency`, a `struct static_key_false`.
#[repr(C)]
pub(crate) struct hippos_latency_key {
    pub(crate) key: bindings::static_key_false,
}

/// `struct hippos_traced_key`.
#[repr(C)]
pub(crate) struct hippos_traced_key {
    pub(crate) text: *const c_char,
    pub(crate) shown: u32,
    pub(crate) len: u32,
}

/// `struct hippos_traced_word`.
#[repr(C)]
pub(crate) struct hippos_traced_word {
    pub(crate) text: *const c_char,
    pub(crate) len: u32,
}

/// `struct hippos_traced_request`.
#[repr(C)]
pub(crate) struct hippos_traced_request {
    pub(crate) ns: u64,
    pub(crate) path: *const c_char,
    pub(crate) command: hippos_traced_word,
    pub(crate) outcome: hippos_traced_word,
    pub(crate) key: hippos_traced_key,
    pub(crate) client: [u8; 16],
    pub(crate) commands: u32,
    pub(crate) bytes: u32,
    pub(crate) port: u16,
}

/// `struct hippos_traced_item`.
#[repr(C)]
pub(crate) struct hippos_traced_item {
    pub(crate) key: hippos_traced_key,
    pub(crate) reason: *const c_char,
    pub(crate) size: u32,
    pub(crate) idle: u32,
    pub(crate) slab_class: u8,
    pub(crate) fetched: bool,
}

/// `struct hippos_handler`.
#[repr(C)]
pub(crate) struct hippos_handler {
    pub(crate) receive: Receive,
    pub(crate) allow: Allow,
    pub(crate) record: Record,
    pub(crate) private: *mut c_void,
    pub(crate) interface: u32,
    pub(crate) port: u16,
    pub(crate) kind: c_uint,
}

/// `struct hippos_fast_path_state`.
#[repr(C, align(4))]
pub(crate) struct hippos_fast_path_state {
    pub(crate) why: [[u8; 2]; 2],
}

/// `struct hippos_pass_counts`.
#[repr(C)]
pub(crate) struct hippos_pass_counts {
    pub(crate) hook: u64,
    pub(crate) xdp: u64,
}

/// `struct hippos_pass_row`.
#[repr(C)]
pub(crate) struct hippos_pass_row {
    pub(crate) name: *const c_char,
    pub(crate) len: usize,
    pub(crate) sum: hippos_pass_counts,
}

/// `struct hippos_addresses`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct hippos_addresses {
    pub(crate) peer: [u8; 16],
    pub(crate) own: [u8; 16],
    pub(crate) peer_scope: u32,
    pub(crate) interface: u32,
    pub(crate) vrf: u32,
    pub(crate) peer_port: u16,
    pub(crate) local: bool,
    pub(crate) unicast: bool,
}

/// `struct hippos_poll`.
#[repr(C)]
pub(crate) struct hippos_poll {
    private: [*mut c_void; 8],
}

/// `struct hippos_reply_pages`: two `struct page_frag` and a number.
#[repr(C)]
pub(crate) struct hippos_reply_pages {
    private: [*mut c_void; 5],
}

/// `struct hippos_steer`.
#[repr(C)]
pub(crate) struct hippos_steer {
    net: *mut net,
    maps: [*mut c_void; 4],
}

impl hippos_steer {
    pub(crate) fn new(net: *mut net) -> Self {
        Self {
            net,
            maps: [core::ptr::null_mut(); 4],
        }
    }
}

/// `struct hippos_watch`.
#[repr(C)]
pub(crate) struct hippos_watch {
    private: [*mut c_void; 7],
}

/// `struct hippos_waker`.
#[repr(C)]
pub(crate) struct hippos_waker {
    pub(crate) task: *mut task_struct,
    pub(crate) pending: c_ulong,
}

/// Sizes, and the offset of the last field, as C asserts them of the same structures.
macro_rules! layout {
    ($($name:ident: $size:literal bytes, $last:ident at $offset:literal;)*) => {$(
        const _: () = assert!(size_of::<$name>() == $size && offset_of!($name, $last) == $offset);
    )*};
}

layout! {
    hippos_packet: 128 bytes, sent at 120;
    hippos_traced_key: 16 bytes, len at 12;
    hippos_traced_word: 16 bytes, len at 8;
    hippos_traced_request: 96 bytes, port at 88;
    hippos_traced_item: 40 bytes, fetched at 33;
    hippos_handler: 48 bytes, kind at 40;
    hippos_fast_path_state: 4 bytes, why at 0;
    hippos_pass_counts: 16 bytes, xdp at 8;
    hippos_pass_row: 32 bytes, sum at 16;
    hippos_addresses: 48 bytes, unicast at 47;
    hippos_waker: 16 bytes, pending at 8;
}

pub(crate) const HIPPOS_REPLY: u32 = 0x10000;
pub(crate) const HIPPOS_MEMCACHED_PORT: u16 = 11211;
pub(crate) const HIPPOS_TRACED_KEY: usize = 128;

// `enum hippos_handler_kind`.
pub(crate) const HIPPOS_HOOK: c_uint = 0;
pub(crate) const HIPPOS_XDP: c_uint = 1;

// `enum hippos_fast`.
pub(crate) const HIPPOS_AUTO: c_uint = 1;
pub(crate) const HIPPOS_ALWAYS: c_uint = 2;
pub(crate) const HIPPOS_LATE: c_uint = 3;

// `enum hippos_closed`.
pub(crate) const HIPPOS_OPEN: c_uint = 0;
pub(crate) const HIPPOS_CLOSED_NAT: c_uint = 1;
pub(crate) const HIPPOS_CLOSED_OUTPUT: c_uint = 2;
pub(crate) const HIPPOS_CLOSED_POSTROUTING: c_uint = 3;

/// `hippos_receive_fn`.
pub(crate) type Receive =
    unsafe extern "C" fn(*mut c_void, *mut sk_buff, *mut hippos_packet) -> u32;

/// `hippos_allow_fn`.
pub(crate) type Allow = unsafe extern "C" fn(*mut c_void, *const hippos_packet) -> bool;

/// `hippos_record_fn`.
pub(crate) type Record = unsafe extern "C" fn(*mut c_void, u32, u64, u64);

extern "C" {
    // packet.c
    pub(crate) fn hippos_packet_room(
        skb: *mut sk_buff,
        packet: *mut hippos_packet,
        len: u32,
    ) -> bool;
    pub(crate) fn hippos_packet_alloc_reply(
        skb: *const sk_buff,
        packet: *mut hippos_packet,
        len: u32,
        payload: *mut *mut u8,
    ) -> *mut sk_buff;
    pub(crate) fn hippos_packet_reply(
        skb: *mut sk_buff,
        packet: *mut hippos_packet,
        len: u32,
        first: bool,
    );
    pub(crate) fn hippos_packet_free(skb: *mut sk_buff);
    pub(crate) fn hippos_packet_consume(skb: *mut sk_buff);

    // xdp.c
    pub(crate) fn hippos_xdp_open(net: *mut net, handler: *const hippos_handler)
        -> *mut hippos_xdp;
    pub(crate) fn hippos_xdp_close(xdp: *mut hippos_xdp);

    // hook.c
    pub(crate) fn hippos_hooks_register(
        net: *mut net,
        handler: *const hippos_handler,
        fast: c_uint,
    ) -> *mut hippos_hooks;
    pub(crate) fn hippos_hooks_unregister(hooks: *mut hippos_hooks);
    pub(crate) fn hippos_net_get() -> *mut net;
    pub(crate) fn hippos_net_put(net: *mut net);

    // pass.c
    pub(crate) fn hippos_pass(kind: c_uint, reason: c_uint) -> bool;
    pub(crate) fn hippos_pass_row(reason: c_uint, row: *mut hippos_pass_row) -> bool;

    // firewall.c
    pub(crate) fn hippos_fast_path_state() -> hippos_fast_path_state;

    // counters.c
    pub(crate) fn hippos_counter_sum(counter: u32) -> u64;

    // socket.c
    pub(crate) fn hippos_interface(net: *mut net, name: *const c_char) -> u32;
    pub(crate) fn hippos_udp_bind(
        net: *mut net,
        port: u16,
        interface: u32,
        send_ms: c_uint,
    ) -> *mut socket;
    pub(crate) fn hippos_udp_rebind(sock: *mut socket, interface: u32) -> bool;
    pub(crate) fn hippos_peer(socket: *mut socket, ends: *mut hippos_addresses);
    pub(crate) fn hippos_connection_get(socket: *mut socket) -> *mut sock;
    pub(crate) fn hippos_connection_put(sk: *mut sock);
    pub(crate) fn hippos_connection_shut_down(sk: *mut sock) -> bool;
    pub(crate) fn hippos_connection_received(sk: *const sock) -> u64;
    pub(crate) fn hippos_connection_sent(sk: *const sock) -> u64;
    pub(crate) fn hippos_socket_release(socket: *mut socket);
    pub(crate) fn hippos_udp_queued(socket: *mut socket) -> u64;
    pub(crate) fn hippos_receive_from(
        socket: *mut socket,
        buffer: *mut c_void,
        len: usize,
        ends: *mut hippos_addresses,
    ) -> c_int;
    pub(crate) fn hippos_send_to(
        socket: *mut socket,
        head: *const c_void,
        head_len: usize,
        body: *const c_void,
        body_len: usize,
        ends: *const hippos_addresses,
    ) -> c_int;

    // listener.c
    pub(crate) fn hippos_tcp_listen(
        net: *mut net,
        port: u16,
        interface: u32,
        cpu: c_int,
        backlog: c_int,
    ) -> *mut socket;
    pub(crate) fn hippos_accept(listener: *mut socket) -> *mut socket;

    // stream.c
    pub(crate) fn hippos_stream_lock(socket: *mut socket) -> *mut sock;
    pub(crate) fn hippos_stream_unlock(sk: *mut sock);
    pub(crate) fn hippos_stream_peek(sk: *mut sock, len: *mut u32) -> *const c_void;
    pub(crate) fn hippos_stream_copy(sk: *mut sock, to: *mut c_void, len: u32) -> u32;
    pub(crate) fn hippos_stream_consume(sk: *mut sock, len: u32);
    pub(crate) fn hippos_stream_ended(sk: *const sock) -> bool;
    pub(crate) fn hippos_stream_send(
        sk: *mut sock,
        bytes: *const c_void,
        len: usize,
        more: bool,
    ) -> c_int;
    pub(crate) fn hippos_stream_takes(sk: *const sock) -> bool;
    pub(crate) fn hippos_reply_pages_open(
        pages: *mut hippos_reply_pages,
        atomic: bool,
        size: *mut u32,
    ) -> *mut c_void;
    pub(crate) fn hippos_reply_pages_send(
        pages: *mut hippos_reply_pages,
        sk: *mut sock,
        len: u32,
        more: bool,
    ) -> c_int;
    pub(crate) fn hippos_reply_pages_free(pages: *mut hippos_reply_pages);
    pub(crate) fn hippos_reply_pages_this_cpu() -> *mut hippos_reply_pages;
    pub(crate) fn hippos_reply_pages_get();
    pub(crate) fn hippos_reply_pages_put();

    // poll.c
    pub(crate) fn hippos_poll_init(
        poll: *mut hippos_poll,
        serve: unsafe extern "C" fn(*mut hippos_watch, *mut sock) -> bool,
    );
    pub(crate) fn hippos_poll_start(poll: *mut hippos_poll);
    pub(crate) fn hippos_poll_wait(poll: *mut hippos_poll, timeout_ms: c_long);
    pub(crate) fn hippos_poll_next(poll: *mut hippos_poll) -> *mut hippos_watch;
    pub(crate) fn hippos_watch_add(
        watch: *mut hippos_watch,
        poll: *mut hippos_poll,
        socket: *mut socket,
    );
    pub(crate) fn hippos_watch_remove(watch: *mut hippos_watch, socket: *mut socket);
    pub(crate) fn hippos_watch_again(watch: *mut hippos_watch);
    pub(crate) fn hippos_watch_park(watch: *mut hippos_watch);
    pub(crate) fn hippos_poll_queued(poll: *const hippos_poll) -> u64;
    pub(crate) fn hippos_poll_has_parked(poll: *const hippos_poll) -> bool;
    pub(crate) fn hippos_poll_unpark(poll: *mut hippos_poll);
    pub(crate) fn hippos_watch_is_queued(watch: *const hippos_watch) -> bool;

    // steer.c
    pub(crate) fn hippos_steer_devices(steer: *const hippos_steer) -> c_uint;
    pub(crate) fn hippos_steer_on(steer: *mut hippos_steer) -> bool;
    pub(crate) fn hippos_steer_off(steer: *mut hippos_steer, wait: bool) -> bool;
    pub(crate) fn hippos_cpu_idle(cpu: c_uint, now: *mut u64) -> u64;
    pub(crate) fn hippos_cpu_receives(cpu: c_uint) -> c_uint;
    pub(crate) fn hippos_thread_bind(cpu: c_uint, others: bool) -> bool;
    pub(crate) fn hippos_thread_lost(cpu: c_uint) -> bool;

    // transmit_test.c
    pub(crate) fn hippos_transmit_test() -> c_int;

    // kthread.c
    pub(crate) fn hippos_thread_start(
        run: unsafe extern "C" fn(*mut c_void) -> c_int,
        data: *mut c_void,
        cpu: c_int,
        name: *const c_char,
    ) -> *mut task_struct;
    pub(crate) fn hippos_threads_us() -> u64;
    pub(crate) fn hippos_softirq_us() -> u64;
    pub(crate) fn hippos_threads_pid() -> u32;
    pub(crate) fn hippos_thread_stop(task: *mut task_struct) -> c_int;
    pub(crate) fn hippos_thread_should_stop() -> bool;
    pub(crate) fn hippos_thread_sleep(timeout_ms: c_long);
    pub(crate) fn hippos_waker_attach(waker: *mut hippos_waker) -> bool;
    pub(crate) fn hippos_waker_detach(waker: *mut hippos_waker);
    pub(crate) fn hippos_waker_wake(waker: *mut hippos_waker);
    pub(crate) fn hippos_waker_wait(waker: *mut hippos_waker, timeout_ms: c_long);

    // mm.c
    pub(crate) fn hippos_pages_alloc(bytes: usize) -> *mut c_void;
    pub(crate) fn hippos_pages_free(address: *mut c_void, bytes: usize);
    pub(crate) fn hippos_table_alloc(bytes: usize) -> *mut c_void;
    pub(crate) fn hippos_table_free(address: *mut c_void);
    pub(crate) fn hippos_memory() -> u64;
    pub(crate) fn hippos_memory_available() -> u64;
    pub(crate) fn hippos_shrinker_register(waker: *mut hippos_waker, bytes: u64) -> *mut shrinker;
    pub(crate) fn hippos_shrinker_unregister(shrinker: *mut shrinker);
    pub(crate) fn hippos_direct_map() -> c_ulong;

    // sync.c
    pub(crate) fn hippos_read_lock();
    pub(crate) fn hippos_read_unlock();
    pub(crate) fn hippos_cpu() -> c_uint;
    pub(crate) fn hippos_cpus() -> c_uint;
    pub(crate) fn hippos_next_cpu(cpu: c_int) -> c_int;
    pub(crate) fn hippos_cpu_is_isolated(cpu: c_int) -> bool;
    pub(crate) fn hippos_resched();
    pub(crate) fn hippos_short_sleep();
    pub(crate) fn hippos_ticks() -> u32;

    // lock.c
    pub(crate) fn hippos_lock_init(lock: *mut bindings::spinlock_t, class: c_uint);
    pub(crate) fn hippos_lock(lock: *mut bindings::spinlock_t);
    pub(crate) fn hippos_trylock(lock: *mut bindings::spinlock_t) -> bool;
    pub(crate) fn hippos_unlock(lock: *mut bindings::spinlock_t);
    pub(crate) fn hippos_registry_lock();
    pub(crate) fn hippos_registry_unlock();

    // kernel/rcu/tree.c
    pub(crate) fn start_poll_synchronize_rcu() -> c_ulong;
    pub(crate) fn poll_state_synchronize_rcu(cookie: c_ulong) -> bool;
    pub(crate) fn synchronize_rcu();
    pub(crate) fn synchronize_rcu_expedited();
    pub(crate) fn rcu_barrier();

    // log.c
    pub(crate) fn hippos_log_permits(kind: c_uint) -> bool;
    pub(crate) fn hippos_log_user() -> u32;
    pub(crate) fn hippos_log_login() -> u32;

    // time.c
    pub(crate) fn hippos_uptime_ms() -> u64;
    pub(crate) fn hippos_unix_ms() -> i64;
    pub(crate) fn hippos_unix_us() -> u64;

    // version.c
    pub(crate) fn hippos_version() -> *const c_char;

    // latency.c
    pub(crate) static hippos_latency: hippos_latency_key;
    pub(crate) fn hippos_latency_set(on: bool);
    pub(crate) fn hippos_latency_is_on() -> bool;
    pub(crate) fn hippos_latency_now() -> u64;

    // trace.c
    pub(crate) fn hippos_trace_request(request: *const hippos_traced_request);
    pub(crate) fn hippos_trace_refuse(
        path: *const c_char,
        reason: *const c_char,
        client: *const [u8; 16],
        port: u16,
    );
    pub(crate) fn hippos_trace_evict(item: *const hippos_traced_item);
    pub(crate) fn hippos_trace_expire(item: *const hippos_traced_item);
    pub(crate) fn hippos_trace_reclaim(from_class: u32, to_class: u32);
    pub(crate) fn hippos_trace_steer(
        what: *const c_char,
        from_cpu: c_int,
        to_cpu: c_int,
        load: u32,
    );

    // device.c
    pub(crate) fn hippos_device_register(
        name: *const c_char,
        call: unsafe extern "C" fn(*mut c_void, c_uint, c_ulong) -> c_long,
        private: *mut c_void,
    ) -> *mut hippos_device;
    pub(crate) fn hippos_device_unregister(device: *mut hippos_device);

    // fault.c
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_selftest() -> *const c_char;
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_bh_disable();
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_bh_enable();
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_fault_unsafe_lock();
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_fault_lock_order();
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_fault_unguarded();
    #[cfg(CONFIG_KASAN)]
    pub(crate) fn hippos_fault_freed_timer();

    // drivers/char/random.c
    pub(crate) fn get_random_bytes(buffer: *mut c_void, len: usize);
}

// trace.c: only their addresses and those of their static keys are used. The compiler warns of an empty
// structure in one of their fields.
#[cfg(CONFIG_TRACEPOINTS)]
#[allow(improper_ctypes)]
extern "C" {
    pub(crate) static __tracepoint_request: bindings::tracepoint;
    pub(crate) static __tracepoint_refuse: bindings::tracepoint;
    pub(crate) static __tracepoint_evict: bindings::tracepoint;
    pub(crate) static __tracepoint_expire: bindings::tracepoint;
    pub(crate) static __tracepoint_reclaim: bindings::tracepoint;
    pub(crate) static __tracepoint_steer: bindings::tracepoint;
}
