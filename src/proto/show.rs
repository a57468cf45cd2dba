// SPDX-License-Identifier: GPL-2.0

//! Rows of `/proc/net/tcp_authopt` and `/proc/net/tcp_authopt_entries` (RFC 5925 7.1, R18).

use core::fmt;
use core::net::Ipv6Addr;

use super::addr::Addr;
use super::addr::Family;
use super::addr::Prefix;
use super::mkt::KeySpec;
use super::mkt::Lifetime;
use super::policy::PolicySpec;
use super::uapi::key_flag;
use super::vrf::Vrf;

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
    let with_len = spec.has(key_flag::PREFIXLEN);
    write_prefix(out, spec.criteria.remote, spec.mapped, with_len)?;
    writeln!(out, "\t{l3index}")
}

/// The first line of the file of entries.
pub const ENTRIES_HEADER: &str = "kind\tvrf\tpeer\tlocal\tport\tsend_id\trecv_id\talg\tflags\t\
    send_from\tsend_until\taccept_from\taccept_until\tsends\taccepts\n";

/// A key or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A key, without its bytes.
    Key(KeySpec),
    /// A policy.
    Policy(PolicySpec),
}

/// Writes the line of an entry: what `-` is in it has none, and `*` is any.
///
/// `vrf`: the VRF that it is for, if it is for one. `tolerance`: see
/// [`super::select::Preferences::accept_tolerance`]. `now`: seconds of wall-clock time.
pub fn write_entry(
    out: &mut impl fmt::Write,
    entry: &Entry,
    vrf: Option<&Vrf>,
    tolerance: u32,
    now: u64,
) -> fmt::Result {
    let (kind, flags, criteria, mapped) = match entry {
        Entry::Key(spec) => ("key", spec.flags, spec.criteria, spec.mapped),
        Entry::Policy(spec) => (spec.name(), spec.flags, spec.criteria, spec.mapped),
    };
    write!(out, "{kind}\t")?;
    match (criteria.vrf, vrf) {
        (None, _) => out.write_char('*')?,
        (Some(_), None) => out.write_char('-')?,
        (Some(_), Some(vrf)) => write!(out, "{}", vrf.name.as_bytes().escape_ascii())?,
    }
    for prefix in [criteria.remote, criteria.local] {
        out.write_char('\t')?;
        let with_len = prefix.is_some_and(|it| it.prefixlen() < it.addr().family().bits());
        write_prefix(out, prefix, mapped, with_len)?;
    }
    match criteria.port {
        None => out.write_str("\t*")?,
        Some(port) => write!(out, "\t{port}")?,
    }
    let Entry::Key(spec) = entry else {
        return writeln!(out, "\t-\t-\t-\t{flags:#x}\t-\t-\t-\t-\t-\t-");
    };
    let ids = (spec.send_id.0, spec.recv_id.0);
    write!(
        out,
        "\t{}\t{}\t{}\t{flags:#x}",
        ids.0, ids.1, spec.alg as u8
    )?;
    let (send, recv) = (spec.send_lifetime, spec.recv_lifetime);
    for time in [send.begin, send.end, recv.begin, recv.end] {
        match time {
            None => out.write_str("\t-")?,
            Some(time) => write!(out, "\t{time}")?,
        }
    }
    let is_there = criteria.vrf.is_none() || vrf.is_none_or(|vrf| vrf.ifindex.is_some());
    let use_of = |validity: Option<Lifetime>, tolerance: u32| match validity {
        None => "never",
        Some(_) if !is_there => "no-vrf",
        Some(lifetime) if lifetime.contains(now) => "yes",
        Some(lifetime) if lifetime.widened(tolerance).contains(now) => "tolerated",
        Some(lifetime) if now < lifetime.first() => "not-yet",
        Some(_) => "over",
    };
    let sends = use_of(spec.send_validity(), 0);
    let accepts = use_of(spec.recv_validity(), tolerance);
    writeln!(out, "\t{sends}\t{accepts}")
}

/// Writes a prefix, its length only if that is wanted; `*` for none.
fn write_prefix(
    out: &mut impl fmt::Write,
    prefix: Option<Prefix>,
    mapped: bool,
    with_len: bool,
) -> fmt::Result {
    let Some(prefix) = prefix else {
        return out.write_char('*');
    };
    let (addr, len) = (prefix.addr(), prefix.prefixlen());
    let (addr, len) = if mapped {
        (addr.mapped(), addr.family().mapped_len(len))
    } else {
        (addr, len)
    };
    write_addr(out, addr)?;
    if with_len {
        write!(out, "/{len}")?;
    }
    Ok(())
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
