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
use super::ffi::Segment;
use super::ffi::Sock;
use super::rcu::RcuSlot;
use super::traffic::Grounds;
use super::traffic::NoMac;
use super::traffic::TrafficKey;
use super::tx::may_send;
use crate::proto::conn::isns_and_sne;
use crate::proto::conn::Context;
use crate::proto::conn::KeyIds;
use crate::proto::kdf::Isns;
use crate::proto::mac::tags_equal;
use crate::proto::mkt::Peer;
use crate::proto::noted::Extent;
use crate::proto::select;
use crate::proto::sne::Sne;
use crate::proto::verdict::first_step;
use crate::proto::verdict::Discard;
use crate::proto::verdict::Step;
use crate::proto::wire::parse_auth;
use crate::proto::wire::AoOption;
use crate::proto::wire::Isn;
use crate::proto::wire::TcpHeader;

/// Whose connection a received segment belongs to.
#[derive(Clone, Copy)]
pub(super) enum State {
    /// A listener's, and none yet.
    Listen,
    /// That of a listener's request, whose SYN was signed: the stack lets no other pass to here.
    Request(Context),
    /// That of the state itself, which is protected.
    Own(Context),
    /// The same, of which a TIME-WAIT socket is left. Where that is asked nothing may be allocated.
    TimeWait(Context),
    /// It has ended.
    Closed,
    /// It is not protected.
    Unprotected,
}

/// A segment that has come.
pub(super) struct Received<'a> {
    pub(super) segment: Segment<'a>,
    /// Its TCP header.
    pub(super) header: &'a [u8],
    /// Its sender.
    pub(super) peer: Peer,
}

/// Judges a segment: [`bindings::skb_drop_reason`], 0 to accept it. `wants_md5`: the socket has an
/// MD5 key for the sender.
pub(super) fn receive(
    conn: &Conn,
    sk: Sock<'_>,
    received: &Received<'_>,
    state: State,
    wants_md5: impl FnOnce() -> bool,
) -> bindings::skb_drop_reason {
    match judge(conn, received, state) {
        // What the stack does for a segment without AO it does not do behind this hook.
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
        Err(Refusal::Unknown) => bindings::skb_drop_reason_SKB_DROP_REASON_TCP_FLAGS,
    }
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
    Unknown,
}

/// `Ok(true)`: its MAC is right. `Ok(false)`: it needs none.
fn judge(conn: &Conn, received: &Received<'_>, state: State) -> Result<bool, Refusal> {
    let malformed = |_| Refusal::Discard(Discard::Malformed);
    let tcp = TcpHeader::parse(received.header).map_err(malformed)?;
    let keyed = match state {
        State::Unprotected => false,
        State::Listen => is_keyed(conn, &received.peer),
        // Even if its last key is gone.
        State::Request(_) | State::Own(_) | State::TimeWait(_) | State::Closed => true,
    };
    let reject = conn.flags().reject_unexpected;
    let option = match first_step(parse_auth(&tcp), keyed, reject) {
        Step::Drop(discard) => return Err(Refusal::Discard(discard)),
        Step::CheckMd5 => return Ok(false),
        Step::Verify(option) => option,
    };
    let own = matches!(state, State::Own(_) | State::TimeWait(_));
    // The stack would answer the ACK of a request: not unless that can be signed.
    if matches!(state, State::Request(_)) && !may_send(conn, &received.peer) {
        return Err(Refusal::Discard(Discard::KeyNotFound));
    }
    verify(conn, received, &tcp, &option, state)?;
    // A SYN may be of any age.
    if own && (!tcp.syn() || tcp.ack()) {
        let ids = KeyIds {
            keyid: option.keyid,
            rnext: option.rnext,
        };
        let data = received
            .segment
            .len
            .saturating_sub(tcp.bytes().len() as u32);
        let extent = state.context().and_then(|it| Extent::of(it, &tcp, data));
        if let Some(extent) = extent {
            conn.on_received(ids, extent);
        }
    }
    Ok(true)
}

/// Some key matches the peer, valid or not.
pub(super) fn is_keyed(conn: &Conn, peer: &Peer) -> bool {
    let guard = rcu::read_lock();
    select::any_match(conn.net.keys.matching(&guard, peer))
}

fn verify(
    conn: &Conn,
    received: &Received<'_>,
    tcp: &TcpHeader<'_>,
    option: &AoOption,
    state: State,
) -> Result<(), Refusal> {
    let Received { segment, peer, .. } = received;
    let opening = tcp.syn() && !tcp.ack();
    let ends = segment.endpoints(tcp.source(), tcp.dest());
    let context = state.context().ok_or(Refusal::Closed)?;
    let (isns, sne) = isns_and_sne(context, tcp).ok_or(Refusal::Unknown)?;
    let check = |key: &TrafficKey| {
        let mac = key
            .mac(sne, &ends, tcp, option.offset, segment)
            .map_err(|err| match err {
                NoMac::Malformed => Refusal::Discard(Discard::Malformed),
                NoMac::Unreadable => Refusal::Discard(Discard::BadMac),
            })?;
        if tags_equal(&mac, &option.mac) {
            Ok(())
        } else {
            Err(Refusal::Discard(Discard::BadMac))
        }
    };

    let now = now();
    let guard = rcu::read_lock();
    let keys = &conn.net.keys;
    let grounds = Grounds {
        generation: keys.generation(),
        preferred: None,
        isns,
    };
    // Traffic keys are kept for the pair of ISNs of a connection: not for a SYN, a listener's
    // requests, or an answer to our SYN, whose ISN is not settled before it is verified. In
    // TIME-WAIT those that are there are used, and others derived for each segment.
    let (uses_kept, keeps) = match state {
        State::Own(Context::Paired { .. }) => (!opening, !opening),
        State::TimeWait(_) => (!opening, false),
        _ => (false, false),
    };
    let kept = |keyid| {
        let slots = conn.rx.iter().filter(|_| uses_kept);
        slots
            .map(|slot| (slot, slot.get(&guard)))
            .find(move |(_, key)| key.is_some_and(|key| key.ids.keyid == keyid))
    };
    let old = kept(option.keyid);
    let last = old.and_then(|(_, key)| key);
    if let Some(key) = last.filter(|key| key.holds(grounds, now)) {
        return check(key);
    }

    let matching = keys.matching(&guard, peer);
    let chosen = select::recv_key(matching, option.keyid, conn.net.policy(), now);
    let mkt = chosen.key.ok_or(Refusal::Discard(Discard::KeyNotFound))?;
    let ids = KeyIds {
        keyid: option.keyid,
        rnext: option.rnext,
    };
    let mut key = TrafficKey::chosen(mkt, ids, grounds, chosen.holds);
    key.derive(mkt, &ends, last);
    check(&key)?;
    if keeps {
        keep(conn, &key, old.map(|(slot, _)| slot), &guard);
    }
    Ok(())
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

impl State {
    /// What is known of the connection; `None` if there is none.
    fn context(self) -> Option<Context> {
        match self {
            Self::Listen => Some(Context::Listen),
            Self::Request(context) | Self::Own(context) | Self::TimeWait(context) => Some(context),
            Self::Closed | Self::Unprotected => None,
        }
    }

    /// Of what C knows.
    pub(super) fn new(state: bindings::tao_state, numbers: &bindings::tao_numbers) -> Self {
        let paired = Context::Paired {
            isns: Isns {
                src: Isn(numbers.risn),
                dst: Isn(numbers.lisn),
            },
            basis: Sne(numbers.sne),
            basis_seq: numbers.seq,
        };
        match state {
            bindings::tao_state_TAO_LISTEN => Self::Listen,
            bindings::tao_state_TAO_REQUEST => Self::Request(paired),
            bindings::tao_state_TAO_SYN_SENT => Self::Own(Context::SynSent {
                dst: Isn(numbers.lisn),
            }),
            bindings::tao_state_TAO_PAIRED => Self::Own(paired),
            bindings::tao_state_TAO_TIME_WAIT => Self::TimeWait(paired),
            bindings::tao_state_TAO_UNPROTECTED => Self::Unprotected,
            _ => Self::Closed,
        }
    }
}
