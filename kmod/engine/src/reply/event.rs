// SPDX-License-Identifier: GPL-2.0-only
//! Formats events as lines for watchers, as memcached does.

use core::fmt::Write;
use core::net::Ipv6Addr;

use heapless::String;
use hippos_proto::reply::Out;
use hippos_store::{Event, LoggedEvent};

use crate::reply::uri::put_uri;

/// The kinds of events: the store's, and the engine's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EventKind {
    /// The store evicted an item.
    Eviction = Event::EVICTION,
    /// A lookup of any command.
    Get,
    Store,
    Delete,
    /// A connection; the size is its port, the key its address.
    Connect,
    Close,
}

impl EventKind {
    /// The kind of a logged event.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        const ALL: [EventKind; 6] = [
            EventKind::Eviction,
            EventKind::Get,
            EventKind::Store,
            EventKind::Delete,
            EventKind::Connect,
            EventKind::Close,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == event.kind)
    }
}

/// The result of a lookup. Each of the last two is reported once for an item.
#[derive(Clone, Copy)]
pub(crate) enum GetStatus {
    NotFound,
    Found,
    Flushed,
    Expired,
}

/// The result of a store.
#[derive(Clone, Copy)]
pub(crate) enum StoreStatus {
    NotStored,
    Stored,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
}

/// How something was stored.
#[derive(Clone, Copy)]
pub(crate) enum StoreCommand {
    Add,
    Set,
    Replace,
    Append,
    Prepend,
    Cas,
}

/// How something was deleted.
#[derive(Clone, Copy)]
pub(crate) enum DeleteCommand {
    Delete,
    Meta,
}

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The connection broke, or the server closed it.
    Error,
    /// The client closed it.
    Normal,
    /// A value arrived too slowly.
    IdleTimeout,
    /// The server shuts down.
    Shutdown,
}

const GET_STATUS: &[&str] = &["not_found", "found", "flushed", "expired"];
const STORE_STATUS: &[&str] = &[
    "not_stored",
    "stored",
    "exists",
    "not_found",
    "too_large",
    "no_memory",
];
const STORE_COMMAND: &[&str] = &["add", "set", "replace", "append", "prepend", "cas"];
const DELETE_COMMAND: &[&str] = &["delete", "md"];
const CLOSE_REASON: &[&str] = &["error", "normal", "idle_timeout", "shutdown"];

/// Writes a line, shorter than [`REPLY_HEADER_MAX`](crate::REPLY_HEADER_MAX).
pub(crate) fn put_event(out: &mut impl Out, kind: EventKind, logged: &LoggedEvent) {
    let event = &logged.event;
    let word = |of: &[&'static str], at: u8| of.get(usize::from(at)).copied().unwrap_or("na");
    number(out, b"ts=", logged.unix_us / 1_000_000);
    // Like memcached, without leading zeros.
    number(out, b".", logged.unix_us % 1_000_000);
    number(out, b" gid=", logged.number);
    match kind {
        EventKind::Eviction => {
            key(out, "eviction", logged);
            text(out, b" fetch=", word(&["no", "yes"], event.status));
            out.put(b" ttl=");
            if event.ttl < 0 {
                out.put(b"-");
            }
            out.put_decimal(u64::from(event.ttl.unsigned_abs()));
            number(out, b" la=", event.idle);
            number(out, b" clsid=", event.class);
            number(out, b" size=", event.size);
        }
        EventKind::Get => {
            key(out, "item_get", logged);
            text(out, b" status=", word(GET_STATUS, event.status));
            number(out, b" clsid=", event.class);
            number(out, b" cfd=", event.client);
            number(out, b" size=", event.size);
        }
        EventKind::Store => {
            key(out, "item_store", logged);
            text(out, b" status=", word(STORE_STATUS, event.status));
            text(out, b" cmd=", word(STORE_COMMAND, event.command));
            number(out, b" ttl=", event.ttl as u32);
            number(out, b" clsid=", event.class);
            number(out, b" cfd=", event.client);
            number(out, b" size=", event.size);
        }
        EventKind::Delete => {
            key(out, "deleted", logged);
            text(out, b" cmd=", word(DELETE_COMMAND, event.command));
            number(out, b" clsid=", event.class);
            number(out, b" size=", event.size);
        }
        EventKind::Connect => {
            peer(out, "conn_new", logged);
            number(out, b" cfd=", event.client);
        }
        EventKind::Close => {
            peer(out, "conn_close", logged);
            text(out, b" reason=", word(CLOSE_REASON, event.status));
            number(out, b" cfd=", event.client);
        }
    }
    out.put(b"\n");
}

fn text(out: &mut impl Out, name: &[u8], value: &str) {
    out.put(name);
    out.put(value.as_bytes());
}

fn number(out: &mut impl Out, name: &[u8], value: impl Into<u64>) {
    out.put(name);
    out.put_decimal(value.into());
}

fn key(out: &mut impl Out, kind: &str, logged: &LoggedEvent) {
    text(out, b" type=", kind);
    out.put(b" key=");
    put_uri(out, logged.key());
}

fn peer(out: &mut impl Out, kind: &str, logged: &LoggedEvent) {
    let octets = logged.key().first_chunk().copied().unwrap_or([0; 16]);
    let mut address = String::<48>::new();
    let _ = write!(address, "{}", Ipv6Addr::from(octets).to_canonical());
    text(out, b" type=", kind);
    text(out, b" rip=", &address);
    number(out, b" rport=", logged.event.size);
    out.put(b" transport=tcp");
}
