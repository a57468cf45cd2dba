// SPDX-License-Identifier: GPL-2.0

//! Receive: a segment is verified, or dropped with a reason. Each one is (RFC 5925 7.3, R21), and
//! before it has any effect; a SYN too (RFC 5925 7.5, R26).
//!
//! 1. What it carries, and whether it must: [`first_step`].
//! 2. Which ISNs and SNE: [`isns_and_sne`].
//! 3. Which key has its KeyID: one that verified before, while the choice stands; else the one
//!    that [`select::recv_key`] names.
//! 4. Is its MAC right? That of what the CPU cannot read is not. A key is kept only then, so that
//!    forged KeyIDs displace none.
//! 5. Its ids are noted, unless it is an old one; or it is counted and dropped: [`reason`].
//!
//! Softirq, RCU read lock, the socket not locked.

use kernel::prelude::*;
use kernel::sync::rcu;

use super::conn::Conn;
use super::ffi::bindings;
use super::ffi::now;
use super::rcu::RcuSlot;
use super::segment::Segment;
use super::sock::Sock;
use super::traffic::Grounds;
use super::traffic::NoMac;
use super::traffic::TrafficKey;
use crate::proto::conn::isns_and_sne;
use crate::proto::conn::Context;
use crate::proto::conn::NoIsns;
use crate::proto::criteria::Pair;
use crate::proto::mac::tags_equal;
use crate::proto::noted::Extent;
use crate::proto::select;
use crate::proto::verdict::first_step;
use crate::proto::verdict::Discard;
use crate::proto::verdict::Step;
use crate::proto::wire::parse_auth;
use crate::proto::wire::AoOption;
use crate::proto::wire::KeyId;
use crate::proto::wire::TcpHeader;

/// A segment that has come.
pub(super) struct Received<'a> {
    pub(super) segment: Segment<'a>,
    /// Its TCP header.
    pub(super) header: &'a [u8],
}

/// Judges a segment: [`bindings::skb_drop_reason`], 0 to accept it. `wants_md5`: the socket has an
/// MD5 key for the sender.
pub(super) fn receive(
    conn: &Conn,
    sk: Sock<'_>,
    received: &Received<'_>,
    context: Context,
    wants_md5: impl FnOnce() -> bool,
) -> bindings::skb_drop_reason {
    match judge(conn, received, context) {
        // Behind this hook the stack makes no MD5 check, so that it is made here.
        Ok(false) if wants_md5() => {
            sk.count(bindings::LINUX_MIB_TCPMD5NOTFOUND);
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_MD5NOTFOUND
        }
        Ok(false) => bindings::skb_drop_reason_SKB_NOT_DROPPED_YET,
        Ok(true) => {
            sk.count(bindings::LINUX_MIB_TCPAOGOOD);
            bindings::skb_drop_reason_SKB_NOT_DROPPED_YET
        }
        Err(Refusal::Discard(discard)) => {
            let (reason, counter) = reason(discard);
            sk.count(counter);
            reason
        }
        Err(Refusal::Closed) => bindings::skb_drop_reason_SKB_DROP_REASON_TCP_CLOSE,
        Err(Refusal::NoRequest) => bindings::skb_drop_reason_SKB_DROP_REASON_TCP_FLAGS,
    }
}

/// Counts a segment that is discarded where no reason can be given.
pub(super) fn count(sk: Sock<'_>, discard: Discard) {
    sk.count(reason(discard).1);
}

/// The drop reason and the counter, `LINUX_MIB_*`, of each discard.
fn reason(discard: Discard) -> (bindings::skb_drop_reason, u32) {
    match discard {
        Discard::Malformed => (
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_AUTH_HDR,
            bindings::LINUX_MIB_TCPAOBAD,
        ),
        Discard::Required => (
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_AONOTFOUND,
            bindings::LINUX_MIB_TCPAOREQUIRED,
        ),
        Discard::Unexpected => (
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_AOUNEXPECTED,
            bindings::LINUX_MIB_TCPAOKEYNOTFOUND,
        ),
        Discard::KeyNotFound => (
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_AOKEYNOTFOUND,
            bindings::LINUX_MIB_TCPAOKEYNOTFOUND,
        ),
        Discard::BadLength | Discard::BadMac => (
            bindings::skb_drop_reason_SKB_DROP_REASON_TCP_AOFAILURE,
            bindings::LINUX_MIB_TCPAOBAD,
        ),
    }
}

/// Why a segment goes no further.
enum Refusal {
    /// The protocol says so.
    Discard(Discard),
    /// There is no connection any more.
    Closed,
    /// There is none yet, and this does not open one.
    NoRequest,
}

impl From<NoIsns> for Refusal {
    fn from(no: NoIsns) -> Self {
        match no {
            NoIsns::Closed => Self::Closed,
            NoIsns::NoRequest => Self::NoRequest,
        }
    }
}

/// `Ok(true)`: its MAC is right. `Ok(false)`: it needs none.
fn judge(conn: &Conn, received: &Received<'_>, context: Context) -> Result<bool, Refusal> {
    let malformed = |_| Refusal::Discard(Discard::Malformed);
    let tcp = TcpHeader::parse(received.header).map_err(malformed)?;
    let ends = received.segment.endpoints(tcp.source(), tcp.dest());
    let pair = Pair::of_received(&ends, received.segment.side);
    let keyed = context
        .must_be_signed()
        .unwrap_or_else(|| conn.must_protect(&pair).0);
    let reject = conn.rejects_unexpected();
    let option = match first_step(parse_auth(&tcp), keyed, reject) {
        Step::Drop(discard) => return Err(Refusal::Discard(discard)),
        Step::CheckMd5 => return Ok(false),
        Step::Verify(option) => option,
    };
    // The stack would answer the ACK of a request, and in TIME-WAIT: not unless that can be signed.
    let answered = matches!(context, Context::Request(_) | Context::TimeWait(_));
    if answered && !conn.net.may_send(&pair) {
        return Err(Refusal::Discard(Discard::KeyNotFound));
    }
    verify(conn, &received.segment, &pair, &tcp, &option, context)?;
    if context.goes_by_its_ids(&tcp) {
        let header_len = tcp.bytes().len() as u32;
        let data = received.segment.len.saturating_sub(header_len);
        if let Some(extent) = Extent::of(context, &tcp, data) {
            conn.on_received(option.ids, extent);
        }
    }
    Ok(true)
}

/// Whether the MAC of a segment is right: the key is looked up among those that are kept; else it is
/// derived, checked, and kept.
fn verify(
    conn: &Conn,
    segment: &Segment<'_>,
    pair: &Pair,
    tcp: &TcpHeader<'_>,
    option: &AoOption,
    context: Context,
) -> Result<(), Refusal> {
    let ids = option.ids;
    let ends = segment.endpoints(tcp.source(), tcp.dest());
    let (isns, sne) = isns_and_sne(context, tcp)?;
    let check = |key: &TrafficKey| match key.mac(sne, &ends, tcp, option.offset, segment) {
        Ok(mac) if tags_equal(&mac, &option.mac) => Ok(()),
        Ok(_) | Err(NoMac::Unreadable) => Err(Refusal::Discard(Discard::BadMac)),
        Err(NoMac::Malformed) => Err(Refusal::Discard(Discard::Malformed)),
    };
    let now = now();
    let guard = rcu::read_lock();
    let keys = &conn.net.keys;
    let grounds = Grounds {
        generation: keys.generation(),
        preferred: None,
        isns,
    };

    // Look up.
    let old = looks_up(context, tcp)
        .then(|| kept(conn, ids.keyid, &guard))
        .flatten();
    let last = old.map(|(_, key)| key);
    if let Some(key) = last.filter(|key| key.holds(grounds, now)) {
        return check(key);
    }

    // Derive.
    let matching = keys.matching(&guard, pair);
    let chosen = select::recv_key(matching, ids.keyid, conn.net.preferences(), now);
    let mkt = chosen.key.ok_or(Refusal::Discard(Discard::KeyNotFound))?;
    let mut key = TrafficKey::chosen(mkt, ids, grounds, chosen.holds);
    key.derive(mkt, &ends, last);

    check(&key)?;

    if keeps(context, tcp) {
        keep(conn, &key, old.map(|(slot, _)| slot), &guard);
    }
    Ok(())
}

/// Whether the traffic key of a segment may be one that is kept: they are for the pair of ISNs of a
/// connection. So it is not for a SYN, a listener's requests, or an answer to our SYN, whose ISN is
/// not settled before it is verified.
fn looks_up(context: Context, tcp: &TcpHeader<'_>) -> bool {
    !tcp.opens() && matches!(context, Context::Paired(_) | Context::TimeWait(_))
}

/// Whether a traffic key that was derived for a segment is kept. In TIME-WAIT, where nothing may be
/// allocated, others are derived for each segment.
fn keeps(context: Context, tcp: &TcpHeader<'_>) -> bool {
    !tcp.opens() && matches!(context, Context::Paired(_))
}

/// The traffic key that is kept for a KeyID, and where.
fn kept<'g>(
    conn: &'g Conn,
    keyid: KeyId,
    guard: &'g rcu::Guard,
) -> Option<(&'g RcuSlot<TrafficKey>, &'g TrafficKey)> {
    let mut slots = conn
        .rx
        .iter()
        .filter_map(|slot| Some((slot, slot.get(guard)?)));
    slots.find(|(_, key)| key.ids.keyid == keyid)
}

/// Puts a key that has verified where the last one with its KeyID was; else into a free slot, else
/// in place of one that the last segment was not signed with.
fn keep(conn: &Conn, key: &TrafficKey, slot: Option<&RcuSlot<TrafficKey>>, guard: &rcu::Guard) {
    let last = conn.received().map(|ids| ids.keyid);
    let is_last = |key: &TrafficKey| Some(key.ids.keyid) == last;
    let slot = slot
        .or_else(|| conn.rx.iter().find(|slot| slot.get(guard).is_none()))
        .or_else(|| {
            let mut slots = conn.rx.iter();
            slots.find(|slot| !slot.get(guard).is_some_and(is_last))
        });
    if let (Some(slot), Some(key)) = (slot, key.to_keep()) {
        slot.set(Some(key));
    }
}
