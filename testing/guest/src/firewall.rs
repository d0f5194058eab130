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
const IPT_SO_SET_REPLACE: i32 = 64;
const IPT_SO_GET_INFO: i32 = 64;
const IPT_SO_GET_ENTRIES: i32 = 65;

/// Where the verdict of a policy's entry lies: behind `struct ipt_entry` and the target's header.
const VERDICT: usize = 112 + 32;

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

    /// What a chain does with packets that no rule decides on.
    #[derive(Clone, Copy)]
    pub(crate) enum Policy {
        Accept,
        Drop,
    }

    /// Makes the table if it is not there, as a first look at it does.
    pub(crate) fn look(table: &str) -> Result<()> {
        info(table).map(drop)
    }

    /// Sets the policy of the chain OUTPUT of a table without rules.
    pub(crate) fn output(table: &str, policy: Policy) -> Result<()> {
        const LOCAL_OUT: usize = 3;
        // struct ipt_getinfo
        let info = info(table)?;
        let (name, rest) = info.split_at(32);
        let word = |at: usize| -> Result<u32> {
            let bytes = rest.get(at * 4..at * 4 + 4).context("ipt_getinfo")?;
            Ok(u32::from_ne_bytes(bytes.try_into()?))
        };
        let (underflow, entries, size) = (word(6 + LOCAL_OUT)?, word(11)?, word(12)? as usize);
        // struct ipt_get_entries
        let mut answer = vec![0; 40 + size];
        answer[..32].copy_from_slice(name);
        answer[32..36].copy_from_slice(&(size as u32).to_ne_bytes());
        get(IPT_SO_GET_ENTRIES, &mut answer).context("iptables: no entries")?;
        let mut rules = answer.split_off(40);
        let at = underflow as usize + VERDICT;
        let verdict = rules.get_mut(at..at + 4).context("no policy")?;
        // A verdict stands below zero, less one.
        let verdict_is = match policy {
            Policy::Drop => -1i32,
            Policy::Accept => -2,
        };
        verdict.copy_from_slice(&verdict_is.to_ne_bytes());
        // struct ipt_replace
        let mut counters = vec![0u64; entries as usize * 2];
        let mut replace = name.to_vec();
        replace.extend_from_slice(&rest[..4]);
        replace.extend_from_slice(&entries.to_ne_bytes());
        replace.extend_from_slice(&(size as u32).to_ne_bytes());
        replace.extend_from_slice(&rest[4..44]);
        replace.extend_from_slice(&entries.to_ne_bytes());
        replace.extend_from_slice(&(counters.as_mut_ptr() as u64).to_ne_bytes());
        replace.extend_from_slice(&rules);
        set(IPT_SO_SET_REPLACE, &replace).context("iptables: not replaced")
    }

    /// `struct ipt_getinfo` of a table.
    fn info(table: &str) -> Result<Vec<u8>> {
        ensure!(table.len() < 32, "{table}: a long name");
        let mut info = vec![0; 84];
        info[..table.len()].copy_from_slice(table.as_bytes());
        get(IPT_SO_GET_INFO, &mut info).with_context(|| format!("iptables: no table {table}"))?;
        Ok(info)
    }
}

fn set(option: i32, value: &[u8]) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    // SAFETY: the kernel reads `value.len()` bytes at `value`, which lives on; addresses within it
    // are those of buffers that live on in the caller.
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
