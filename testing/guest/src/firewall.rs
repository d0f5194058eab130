// SPDX-License-Identifier: GPL-2.0-only
//! IPVS and the tables of iptables-legacy, by the socket options that `ipvsadm` and
//! `iptables-legacy` use (linux/ip_vs.h, linux/netfilter_ipv4/ip_tables.h): the guest has neither
//! program.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use anyhow::{ensure, Context, Result};
use nix::errno::Errno;
use nix::libc;

const IP_VS_SO_SET_ADD: i32 = 64 + 1024 + 64 + 2;
const IP_VS_SO_SET_FLUSH: i32 = 64 + 1024 + 64 + 5;
const IP_VS_SO_SET_ADDDEST: i32 = 64 + 1024 + 64 + 7;
const IPT_SO_GET_INFO: i32 = 64;

/// Virtual services of the kernel.
pub(crate) mod ipvs {
    use super::*;

    /// Sends UDP datagrams for `service` to `server`, whose addresses it puts in (masquerading).
    pub(crate) fn add(service: SocketAddrV4, server: SocketAddrV4) -> Result<()> {
        let mut user = Vec::new();
        user.extend_from_slice(&(libc::IPPROTO_UDP as u16).to_ne_bytes());
        user.extend_from_slice(&[0; 2]);
        user.extend_from_slice(&service.ip().octets());
        user.extend_from_slice(&service.port().to_be_bytes());
        user.extend_from_slice(&[0; 2]);
        // No mark of a firewall's.
        user.extend_from_slice(&[0; 4]);
        user.extend_from_slice(b"rr\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        // No flags, no time-out.
        user.extend_from_slice(&[0; 8]);
        user.extend_from_slice(&Ipv4Addr::BROADCAST.octets());
        set(IP_VS_SO_SET_ADD, &user).context("ipvs: no service")?;
        user.extend_from_slice(&server.ip().octets());
        user.extend_from_slice(&server.port().to_be_bytes());
        user.extend_from_slice(&[0; 2]);
        // Masquerading.
        user.extend_from_slice(&0u32.to_ne_bytes());
        // Weight, thresholds.
        user.extend_from_slice(&1i32.to_ne_bytes());
        user.extend_from_slice(&[0; 8]);
        set(IP_VS_SO_SET_ADDDEST, &user).context("ipvs: no server")
    }

    /// Removes all services.
    pub(crate) fn flush() -> Result<()> {
        set(IP_VS_SO_SET_FLUSH, &[]).context("ipvs: no flush")
    }
}

/// Tables of iptables-legacy.
pub(crate) mod iptables {
    use super::*;

    /// Makes the table if it is not there, as a first look at it does.
    pub(crate) fn ensure_table(table: &str) -> Result<()> {
        ensure!(table.len() < 32, "{table}: a long name");
        // struct ipt_getinfo
        let mut info = [0; 84];
        info[..table.len()].copy_from_slice(table.as_bytes());
        get(IPT_SO_GET_INFO, &mut info).with_context(|| format!("iptables: no table {table}"))
    }
}

fn set(option: i32, value: &[u8]) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: the kernel reads `value.len()` bytes at `value`, which lives on.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn get(option: i32, value: &mut [u8]) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes at `value`, which is borrowed for it.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            value.as_mut_ptr().cast(),
            &mut length,
        )
    };
    Errno::result(result)?;
    Ok(())
}
