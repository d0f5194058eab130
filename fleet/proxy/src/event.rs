// SPDX-License-Identifier: MIT

//! The events of a worker's epoll instance, and the sockets' part of it.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::event::epoll;

use crate::config;
use crate::metrics::Counters;

/// The environment of a node's sockets.
pub(crate) struct Context<'a> {
    pub(crate) epoll: BorrowedFd<'a>,
    pub(crate) index: usize,
    pub(crate) now: u64,
    pub(crate) config: &'a config::Config,
    pub(crate) counters: &'a Arc<Counters>,
    pub(crate) scratch: &'a mut [u8],
}

/// The object of an epoll event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Wake,
    Listener,
    Local,
    Udp,
    Client(u32),
    Text(u32),
    Binary(u32),
    UdpChannel(u32, u8),
}

impl Token {
    pub(crate) fn pack(self) -> epoll::EventData {
        let (kind, low, channel) = match self {
            Token::Wake => (0, 0, 0),
            Token::Listener => (1, 0, 0),
            Token::Local => (2, 0, 0),
            Token::Udp => (3, 0, 0),
            Token::Client(index) => (4, index, 0),
            Token::Text(index) => (5, index, 0),
            Token::Binary(index) => (6, index, 0),
            Token::UdpChannel(index, channel) => (7, index, channel),
        };
        epoll::EventData::new_u64(kind << 56 | u64::from(channel) << 32 | u64::from(low))
    }

    pub(crate) fn unpack(data: epoll::EventData) -> Self {
        let data = data.u64();
        let low = data as u32;
        match data >> 56 {
            0 => Token::Wake,
            1 => Token::Listener,
            2 => Token::Local,
            3 => Token::Udp,
            4 => Token::Client(low),
            5 => Token::Text(low),
            6 => Token::Binary(low),
            _ => Token::UdpChannel(low, (data >> 32) as u8),
        }
    }
}

/// Edge-triggered: each socket is registered once.
pub(crate) fn events() -> epoll::EventFlags {
    epoll::EventFlags::IN
        | epoll::EventFlags::OUT
        | epoll::EventFlags::RDHUP
        | epoll::EventFlags::ET
}
