// SPDX-License-Identifier: GPL-2.0-only
//! Requests that cards of a topology are sent.

use hippos_client::framed;

use crate::tap::{fold, sum, Addresses, Datagram};
use crate::topology::{BEHIND, NEAR};

pub(crate) const HOST: [u8; 4] = [10, 9, 200, 1];
pub(crate) const HOST6: &str = "fd09:200::1";
pub(crate) const FAR: [u8; 4] = [8, 8, 8, 8];

/// A request whose reply fits its frame.
pub(crate) fn short() -> Vec<u8> {
    framed(7, format!("get key {}\r\n", "n".repeat(230)).as_bytes())
}

/// One with a reply of a whole datagram, 1,392 bytes.
pub(crate) fn long() -> Vec<u8> {
    framed(8, b"get long\r\n")
}

pub(crate) fn v4(from: [u8; 4], to: [u8; 4]) -> Datagram {
    Datagram {
        addresses: Addresses::Ipv4(from, to),
        ..Datagram::ipv4(&short())
    }
}

pub(crate) fn v6(from: &str, to: &str) -> Datagram {
    let address = |text: &str| {
        text.parse::<std::net::Ipv6Addr>()
            .map_or([0; 16], |a| a.octets())
    };
    Datagram {
        addresses: Addresses::Ipv6(address(from), address(to)),
        ..Datagram::ipv6(&short())
    }
}

pub(crate) fn from_mac(mac: [u8; 6], datagram: Datagram) -> Datagram {
    Datagram {
        from_mac: mac,
        ..datagram
    }
}

pub(crate) fn with(payload: Vec<u8>, datagram: Datagram) -> Datagram {
    Datagram {
        payload,
        ..datagram
    }
}

/// A frame, and the card that receives it.
pub(crate) type Ask = (usize, Vec<u8>);

/// By the second card.
pub(crate) fn second(datagram: Datagram) -> Ask {
    let datagram = Datagram {
        to_mac: NEAR[1],
        from_mac: BEHIND,
        ..datagram
    };
    (1, datagram.frame())
}

/// The usual headers around `payload`, for protocols other than UDP.
pub(crate) fn encapsulated(payload: &[u8], protocol: u8, outer: Datagram) -> Ask {
    let mut frame = outer.frame();
    frame.truncate(outer.before_udp());
    frame.extend_from_slice(payload);
    let length = frame.len() - 14;
    match outer.addresses {
        Addresses::Ipv4(..) => {
            frame[16..18].copy_from_slice(&(length as u16).to_be_bytes());
            frame[23] = protocol;
            frame[24..26].fill(0);
            let sum = checksum(&frame[14..34], 0);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Addresses::Ipv6(..) => {
            frame[18..20].copy_from_slice(&((length - 40) as u16).to_be_bytes());
            frame[20] = protocol;
        }
    }
    (0, frame)
}

/// An ICMP error from `router` about the reply to `request`.
pub(crate) fn icmp_error(
    router: Datagram,
    kind: [u8; 2],
    rest: [u8; 4],
    request: &Datagram,
) -> Ask {
    let reply = Datagram {
        addresses: match request.addresses {
            Addresses::Ipv4(from, to) => Addresses::Ipv4(to, from),
            Addresses::Ipv6(from, to) => Addresses::Ipv6(to, from),
        },
        from_port: request.to_port,
        to_port: request.from_port,
        ..with(vec![b'x'; 8], v4(FAR, HOST))
    };
    let mut message = [&kind[..], &[0, 0], &rest, &reply.frame()[14..]].concat();
    let (protocol, pseudo) = match router.addresses {
        Addresses::Ipv4(..) => (1, 0),
        Addresses::Ipv6(from, to) => {
            let addresses = sum(&[from, to].concat());
            (58, addresses + 58 + message.len() as u32)
        }
    };
    let sum = checksum(&message, pseudo);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    encapsulated(&message, protocol, router)
}

/// The Internet checksum, with the pseudo header's sum.
fn checksum(bytes: &[u8], pseudo: u32) -> u16 {
    !fold(sum(bytes) + pseudo)
}
