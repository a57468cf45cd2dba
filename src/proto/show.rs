// SPDX-License-Identifier: GPL-2.0

//! Rows of `/proc/net/tcp_authopt` (RFC 5925 7.1, R18).

use core::fmt;
use core::net::Ipv6Addr;

use super::addr::Addr;
use super::addr::Family;
use super::mkt::KeySpec;
use super::uapi::key_flag;

/// The first line.
pub const HEADER: &str = "flags\tsend_id\trecv_id\talg\taddr\tl3index\n";

/// Writes the line of a key, its address in the form in which it was given. The key's bytes are not in it, nor in `spec` (RFC 8177 5, R44).
///
/// `l3index`: interface index of its VRF.
pub fn write_row(out: &mut impl fmt::Write, spec: &KeySpec, l3index: u32) -> fmt::Result {
    write!(
        out,
        "{:#x}\t{}\t{}\t{}\t",
        spec.flags, spec.send_id.0, spec.recv_id.0, spec.alg as u8
    )?;
    match spec.criteria.remote {
        None => out.write_char('*')?,
        Some(prefix) => {
            let (addr, len) = (prefix.addr(), prefix.prefixlen());
            let (addr, len) = if spec.mapped {
                (addr.mapped(), addr.family().mapped_len(len))
            } else {
                (addr, len)
            };
            write_addr(out, addr)?;
            if spec.has(key_flag::PREFIXLEN) {
                write!(out, "/{len}")?;
            }
        }
    }
    writeln!(out, "\t{l3index}")
}

/// Writes an address as the kernel's `%pI4` and `%pI6` do, the latter without `::`.
fn write_addr(out: &mut impl fmt::Write, addr: Addr) -> fmt::Result {
    let bytes = *addr.padded();
    match addr.family() {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            write!(out, "{a}.{b}.{c}.{d}")
        }
        Family::V6 => {
            let mut separator = "";
            for segment in Ipv6Addr::from(bytes).segments() {
                write!(out, "{separator}{segment:04x}")?;
                separator = ":";
            }
            Ok(())
        }
    }
}
