// SPDX-License-Identifier: GPL-2.0

//! Transmit: a segment is signed.
//!
//! 1. Which ISNs and SNE: [`isns_and_sne`].
//! 2. Which key: the one used last, while the choice stands; else [`choose`].
//! 3. The ids go into the option, the MAC over all of it behind them: [`sign`].
//!
//! The stack has reserved the option, of the one length that all algorithms make, and does nothing
//! more to the segment (RFC 5925 7.4, R25): it is not cut afterwards, see `tao_protect()`.

use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;

use super::conn::Conn;
use super::ffi::now;
use super::ffi::uptime;
use super::mkt::Mkt;
use super::segment::Segment;
use super::traffic::Grounds;
use super::traffic::NoMac;
use super::traffic::TrafficKey;
use crate::proto::addr::Endpoints;
use crate::proto::conn::isns_and_sne;
use crate::proto::conn::preferred;
use crate::proto::conn::rnext_id;
use crate::proto::conn::Context;
use crate::proto::conn::Numbers;
use crate::proto::criteria::Pair;
use crate::proto::error::Error;
use crate::proto::select::send_and_rnext_key;
use crate::proto::sne::Sne;
use crate::proto::wire::AoOption;
use crate::proto::wire::KeyId;
use crate::proto::wire::KeyIds;
use crate::proto::wire::TcpHeader;
use crate::proto::wire::AO_LEN;
use crate::proto::wire::MAC_LEN;

/// Why a segment must not leave.
pub(super) enum Unsent {
    /// The socket is told.
    Told(Error),
    /// No key may be used to send; but there may be one again soon, and the socket is not told yet.
    NotToldYet,
}

impl From<Error> for Unsent {
    fn from(err: Error) -> Self {
        Self::Told(err)
    }
}

/// Signs a segment that the socket of `conn` sends. It is locked.
///
/// # Errors
///
/// [`Error::NoKey`], told now or later: no key may be used to send. Now, too, if none can be made,
/// since the socket was connected in repair and does not know its ISNs yet. [`Error::Fault`]: the
/// CPU cannot read the payload. The segment must not leave.
pub(super) fn transmit(
    conn: &Conn,
    segment: &Segment<'_>,
    header: &mut [u8],
    numbers: Numbers,
) -> Result<(), Unsent> {
    if conn.lacks_isns() {
        return Err(Error::NoKey.into());
    }
    let tcp = TcpHeader::parse(header).map_err(|_| Error::Inval)?;
    let opening = tcp.opens();
    let ends = segment.endpoints(tcp.source(), tcp.dest());
    let (isns, sne) = isns_and_sne(Context::Paired(numbers), &tcp).map_err(|_| Error::Inval)?;

    let now = now();
    let guard = rcu::read_lock();
    let grounds = Grounds {
        generation: conn.net.keys.generation(),
        preferred: conn.preferred(),
        isns,
    };
    let last = conn.tx.get(&guard);
    if let Some(key) = last.filter(|key| !opening && key.holds(grounds, now)) {
        sign(key, sne, &ends, segment, header)?;
        conn.on_sent(key.ids);
        conn.has_key();
        return Ok(());
    }
    let pair = Pair::of_sent(&ends, segment.side);
    let (mkt, mut key) = match choose(conn, &guard, &pair, grounds, now) {
        // Who waits for a handshake is told at once.
        Err(Error::NoKey) if !tcp.syn() && !conn.lacks_key(uptime()) => {
            return Err(Unsent::NotToldYet);
        }
        chosen => chosen?,
    };
    key.derive(mkt, &ends, last.filter(|_| !opening));
    sign(&key, sne, &ends, segment, header)?;
    conn.on_sent(key.ids);
    conn.has_key();
    // The key of a SYN is for that SYN.
    if !opening {
        if let Some(key) = key.to_keep() {
            conn.tx.set(Some(key));
        }
    }
    Ok(())
}

/// Signs a segment that is sent for a listener's request, or that answers one without a socket's
/// buffer: SYN-ACK, RST, ACK of a request or of TIME-WAIT. Any context, nothing locked.
pub(super) fn reply(
    conn: &Conn,
    segment: &Segment<'_>,
    header: &mut [u8],
    numbers: Numbers,
    asked_for: Option<KeyId>,
) -> Result<(), Error> {
    let tcp = TcpHeader::parse(header).map_err(|_| Error::Inval)?;
    let ends = segment.endpoints(tcp.source(), tcp.dest());
    let grounds = Grounds {
        generation: conn.net.keys.generation(),
        preferred: preferred(&conn.flags(), asked_for),
        isns: numbers.isns,
    };
    let guard = rcu::read_lock();
    let pair = Pair::of_sent(&ends, segment.side);
    let (mkt, mut key) = choose(conn, &guard, &pair, grounds, now())?;
    key.derive(mkt, &ends, None);
    sign(&key, numbers.basis, &ends, segment, header)
}

/// Chooses a key to send with.
fn choose<'g>(
    conn: &'g Conn,
    guard: &'g Guard,
    pair: &'g Pair,
    grounds: Grounds,
    now: u64,
) -> Result<(&'g Mkt, TrafficKey), Error> {
    let matching = conn.net.keys.matching(guard, pair);
    let preferences = conn.net.preferences();
    let (send, next) = send_and_rnext_key(matching, grounds.preferred, preferences, now);
    let mkt = send.key.ok_or(Error::NoKey)?;
    let spec = mkt.spec();
    let rnext = next.key.map(|mkt| mkt.spec().recv_id);
    let ids = KeyIds {
        keyid: spec.send_id,
        rnext: rnext_id(&conn.flags(), rnext, spec.recv_id),
    };
    let holds = send.holds.and(next.holds);
    Ok((mkt, TrafficKey::chosen(mkt, ids, grounds, holds)))
}

/// Completes the option that `segment.ao` tells.
fn sign(
    key: &TrafficKey,
    sne: Sne,
    ends: &Endpoints,
    segment: &Segment<'_>,
    header: &mut [u8],
) -> Result<(), Error> {
    let option: &mut [u8; AO_LEN] = option_at(header, segment.ao).ok_or(Error::Inval)?;
    AoOption::emit(option, key.ids);
    let tcp = TcpHeader::parse(header).map_err(|_| Error::Inval)?;
    let mac = key
        .mac(sne, ends, &tcp, segment.ao, segment)
        .map_err(|err| match err {
            NoMac::Malformed => Error::Inval,
            NoMac::Unreadable => Error::Fault,
        })?;
    let option: &mut [u8; AO_LEN] = option_at(header, segment.ao).ok_or(Error::Inval)?;
    option[AO_LEN - MAC_LEN..].copy_from_slice(&mac);
    Ok(())
}

fn option_at(header: &mut [u8], ao: usize) -> Option<&mut [u8; AO_LEN]> {
    header.get_mut(ao..)?.first_chunk_mut()
}
