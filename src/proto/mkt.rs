// SPDX-License-Identifier: GPL-2.0

//! Keys: master key tuples (RFC 5925 3.1) as `TCP_AUTHOPT_KEY` sets them.
//!
//! Of a key, all but its bytes is a [`KeySpec`]. The peers that it matches are its [`Criteria`];
//! criteria of one [`Shape`] use the same fields, so that a lookup is one exact match for each
//! shape in use, of which there are few, however many keys there are.

use core::cmp::Ordering;

use super::addr::Addr;
use super::addr::Endpoints;
use super::addr::Family;
use super::addr::Prefix;
use super::error::Error;
use super::mac::Algorithm;
use super::segment::Covers;
use super::uapi;
use super::uapi::field;
use super::uapi::key_at;
use super::uapi::key_flag;
use super::vrf::VrfId;
use super::wire::KeyId;

/// Bytes of [`Criteria::to_key`].
pub const CRITERIA_KEY_LEN: usize = 24;

/// Which connections a key is for. Equal criteria match the same peers.
///
/// Local address and ports will be further optional fields here, in [`Shape`] and in [`Pair`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Criteria {
    /// The peer's VRF, or outside of all; `None` for any.
    pub vrf: Option<VrfId>,
    /// Where the peer's address must be; `None` for anywhere, in both families. An IPv4 prefix is
    /// the same peers on sockets of either family.
    pub remote: Option<Prefix>,
}

impl Criteria {
    /// The fields that these criteria use.
    pub fn shape(&self) -> Shape {
        Shape {
            vrf: self.vrf.is_some(),
            remote: self.remote.map(|p| (p.addr().family(), p.prefixlen())),
        }
    }

    /// These criteria as a flat key for a hash table: equal keys mean equal criteria.
    pub fn to_key(self) -> [u8; CRITERIA_KEY_LEN] {
        let mut key = [0; CRITERIA_KEY_LEN];
        if let Some(VrfId(id)) = self.vrf {
            key[0] = 1;
            key[4..8].copy_from_slice(&id.to_ne_bytes());
        }
        if let Some(prefix) = self.remote {
            key[1] = prefix.addr().family() as u8;
            key[2] = prefix.prefixlen();
            key[8..24].copy_from_slice(prefix.addr().padded());
        }
        key
    }
}

/// What keys look at of a connection, and its segments do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The family of the socket. One of IPv6 has IPv4 connections, too.
    pub socket: Family,
    /// The VRF.
    pub vrf: VrfId,
}

/// A connection, as keys see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The peer's address, not IPv4-mapped.
    remote: Addr,
    side: Side,
}

impl Pair {
    /// The connection of a segment that is sent.
    pub fn of_sent(ends: &Endpoints, side: Side) -> Self {
        Self::new(ends.dst, side)
    }

    /// The connection of a segment that has come.
    pub fn of_received(ends: &Endpoints, side: Side) -> Self {
        Self::new(ends.src, side)
    }

    fn new(remote: Addr, side: Side) -> Self {
        Self {
            remote: remote.unmapped(),
            side,
        }
    }
}

/// Which fields criteria use, and how long their prefix is.
///
/// Ordered by preference, the most specific first: a VRF over none, then the longer prefix, an
/// unbound key last; an IPv4 prefix counts as one of mapped addresses, 96 bits longer. Two shapes
/// that then differ only in family come in a fixed order, which never decides anything, for no peer
/// matches both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    vrf: bool,
    remote: Option<(Family, u8)>,
}

impl Shape {
    /// The only criteria of this shape that `pair` matches; `None` if its family is another. An IPv4
    /// peer of an IPv6 socket is in IPv6 prefixes too, those that are shorter than what all mapped
    /// addresses have in common.
    pub fn criteria_of(&self, pair: &Pair) -> Option<Criteria> {
        let remote = match self.remote {
            Some((family, len)) => {
                let addr = match (family, pair.remote.family(), pair.side.socket) {
                    (Family::V6, Family::V4, Family::V6) => pair.remote.mapped(),
                    _ => pair.remote,
                };
                let prefix = Prefix::around(addr, len);
                if prefix.addr().family() != family {
                    return None;
                }
                Some(prefix)
            }
            None => None,
        };
        Some(Criteria {
            vrf: self.vrf.then_some(pair.side.vrf),
            remote,
        })
    }

    /// Greater is more specific. Of the criteria that one peer matches, no two are equal in this.
    pub(super) fn specificity(&self) -> (bool, Option<u8>) {
        let len = self.remote.map(|(family, len)| family.mapped_len(len));
        (self.vrf, len)
    }
}

impl Ord for Shape {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_specificity = other.specificity().cmp(&self.specificity());
        by_specificity.then_with(|| self.remote.cmp(&other.remote))
    }
}

impl PartialOrd for Shape {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// When a key may be used, in seconds of wall-clock time (`CLOCK_REALTIME`).
///
/// Without either end it may always be, and the one to send is independent of the one to receive
/// (RFC 8177 3, R40).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// The first second.
    pub begin: Option<u64>,
    /// The last second.
    pub end: Option<u64>,
}

impl Lifetime {
    /// `now` is within.
    pub fn contains(&self, now: u64) -> bool {
        self.first() <= now && now <= self.last()
    }

    /// The longest window around `now` in which [`Self::contains`] stays what it is.
    pub fn steady(&self, now: u64) -> Window {
        let (first, last) = (self.first(), self.last());
        let (from, until) = if now < first {
            (0, first - 1)
        } else if now > last {
            (last + 1, u64::MAX)
        } else {
            (first, last)
        };
        Window { from, until }
    }

    /// This lifetime and some seconds before and after it.
    pub fn widened(&self, seconds: u32) -> Self {
        let seconds = u64::from(seconds);
        Self {
            begin: self.begin.map(|begin| begin.saturating_sub(seconds)),
            end: self.end.map(|end| end.saturating_add(seconds)),
        }
    }

    /// The last second; no end is the end of time, and the longest validity.
    pub(super) fn last(&self) -> u64 {
        self.end.unwrap_or(u64::MAX)
    }

    /// The first second; no begin is the beginning of time.
    pub(super) fn first(&self) -> u64 {
        self.begin.unwrap_or(0)
    }
}

/// Seconds of wall-clock time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first second.
    pub from: u64,
    /// The last second.
    pub until: u64,
}

impl Window {
    /// All of time.
    pub const ALWAYS: Self = Self {
        from: 0,
        until: u64::MAX,
    };

    /// `now` is within. To be asked on each use of a cached answer: a clock set back leaves a
    /// window as one that runs on does.
    pub const fn contains(&self, now: u64) -> bool {
        self.from <= now && now <= self.until
    }

    /// The part that both have.
    pub fn and(&self, other: Self) -> Self {
        Self {
            from: self.from.max(other.from),
            until: self.until.min(other.until),
        }
    }
}

/// A key without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// `TCP_AUTHOPT_KEY_*`, as given.
    pub flags: u32,
    /// KeyID of the segments that we sign with it.
    pub send_id: KeyId,
    /// KeyID of the segments that the peer signs with it.
    pub recv_id: KeyId,
    /// MAC and KDF.
    pub alg: Algorithm,
    /// Bytes of the master key: 0..=80.
    pub key_len: u8,
    /// The connections that it is for; but see [`Self::in_its_vrf`].
    pub criteria: Criteria,
    /// The interface index by which its VRF was given; 0 for outside of all VRFs, `None` for any.
    pub ifindex: Option<u32>,
    /// Its IPv4 address was given as an IPv6 one, `::ffff:a.b.c.d`.
    pub mapped: bool,
    /// When it may sign; but see [`Self::send_validity`].
    pub send_lifetime: Lifetime,
    /// When it may verify; but see [`Self::recv_validity`].
    pub recv_lifetime: Lifetime,
}

/// What makes a key the same key: adding replaces, and deleting finds, the one with this identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// KeyID to send with.
    pub send_id: KeyId,
    /// KeyID to receive with.
    pub recv_id: KeyId,
    /// The connections that it is for.
    pub criteria: Criteria,
    /// A prefix length was given. A host address is another identity than its prefix of full
    /// length, though both are the same criteria.
    pub prefixlen_given: bool,
}

impl Identity {
    /// This one in that VRF.
    pub fn in_vrf(mut self, vrf: VrfId) -> Self {
        self.criteria.vrf = Some(vrf);
        self
    }
}

impl KeySpec {
    /// The key that was asked for, its VRF being the one that has the index now.
    ///
    /// # Errors
    ///
    /// [`Error::Inval`]: `vrf_at` says that there is none.
    pub fn in_its_vrf(mut self, vrf_at: impl Fn(u32) -> Option<VrfId>) -> Result<Self, Error> {
        if let Some(index) = self.ifindex.filter(|index| *index != 0) {
            self.criteria.vrf = Some(vrf_at(index).ok_or(Error::Inval)?);
        }
        Ok(self)
    }

    /// The key's identity.
    pub fn identity(&self) -> Identity {
        Identity {
            send_id: self.send_id,
            recv_id: self.recv_id,
            criteria: self.criteria,
            prefixlen_given: self.has(key_flag::PREFIXLEN),
        }
    }

    /// This key beside `other` would leave a connection with two keys for one id, which
    /// RFC 5925 3.1 forbids (R7). A key and its own replacement do not overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.criteria == other.criteria
            && (self.send_id == other.send_id || self.recv_id == other.recv_id)
            && self.identity() != other.identity()
    }

    /// Nothing but the key bytes can make this replacement of `other` a new MKT (RFC 5925 3.1, R5):
    /// what differs is only when it may be used.
    pub fn same_mkt(&self, other: &Self) -> bool {
        self.alg == other.alg && self.key_len == other.key_len && self.covers() == other.covers()
    }

    /// When it may sign; `None` for never.
    pub fn send_validity(&self) -> Option<Lifetime> {
        (!self.has(key_flag::NOSEND)).then_some(self.send_lifetime)
    }

    /// When it may verify; `None` for never.
    pub fn recv_validity(&self) -> Option<Lifetime> {
        (!self.has(key_flag::NORECV)).then_some(self.recv_lifetime)
    }

    /// The options that its MACs cover, in both directions.
    pub fn covers(&self) -> Covers {
        if self.has(key_flag::EXCLUDE_OPTS) {
            Covers::AoOnly
        } else {
            Covers::AllOptions
        }
    }

    /// The master key in the struct that this was parsed from.
    pub fn master_key<'a>(&self, key: &'a [u8; uapi::KEY_LEN]) -> &'a [u8] {
        key.get(key_at::KEY..)
            .and_then(|rest| rest.get(..usize::from(self.key_len)))
            .unwrap_or(&[])
    }

    /// This `TCP_AUTHOPT_KEY_*` is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// What `TCP_AUTHOPT_KEY` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRequest {
    /// Delete the key of this identity; if an interface index is given, in the VRF that it means.
    Delete(Identity, Option<u32>),
    /// Add this key, or replace the one of its identity, in the VRF that it means.
    Add(KeySpec),
}

/// Reads a `struct tcp_authopt_key` given to a socket of family `socket`.
///
/// A field whose flag is unset is ignored. The master key stays in `key`: see
/// [`KeySpec::master_key`]. Which VRF has the interface index it does not know: that VRF is
/// [`VrfId::UNKNOWN`].
///
/// # Errors
///
/// [`Error::NoEnt`] for a deletion that names what no key can be, [`Error::Inval`] for all else. A
/// deletion minds unknown flags and the key length, and after those nothing but its identity.
pub fn parse_key(key: &[u8; uapi::KEY_LEN], socket: Family) -> Result<KeyRequest, Error> {
    let flags = u32::from_ne_bytes(field(key, 0));
    let [send_id, recv_id, alg, key_len] = field(key, 4);
    let has = |flag| flags & flag != 0;
    if flags & !key_flag::KNOWN != 0 || usize::from(key_len) > uapi::MAX_MASTER_KEY_LEN {
        return Err(Error::Inval);
    }

    let ifindex = has(key_flag::IFINDEX).then(|| u32::from_ne_bytes(field(key, key_at::IFINDEX)));
    let given = parse_criteria(key, flags, ifindex);
    let (send_id, recv_id) = (KeyId(send_id), KeyId(recv_id));
    if has(key_flag::DEL) {
        let identity = Identity {
            send_id,
            recv_id,
            criteria: given.ok_or(Error::NoEnt)?.0,
            prefixlen_given: has(key_flag::PREFIXLEN),
        };
        return Ok(KeyRequest::Delete(
            identity,
            ifindex.filter(|index| *index != 0),
        ));
    }

    let (criteria, family) = given.ok_or(Error::Inval)?;
    if family.is_some_and(|family| family != socket) {
        return Err(Error::Inval);
    }
    let remote = criteria.remote;
    let mapped = remote.is_some_and(|prefix| Some(prefix.addr().family()) != family);
    let alg = Algorithm::try_from(alg)?;
    let time = |flag, at| has(flag).then(|| u64::from_ne_bytes(field(key, at)));
    let send_lifetime = Lifetime {
        begin: time(key_flag::SEND_LIFETIME_BEGIN, key_at::SEND_LIFETIME_BEGIN),
        end: time(key_flag::SEND_LIFETIME_END, key_at::SEND_LIFETIME_END),
    };
    let recv_lifetime = Lifetime {
        begin: time(key_flag::RECV_LIFETIME_BEGIN, key_at::RECV_LIFETIME_BEGIN),
        end: time(key_flag::RECV_LIFETIME_END, key_at::RECV_LIFETIME_END),
    };
    let empty = |lifetime: Lifetime| lifetime.first() > lifetime.last();
    if empty(send_lifetime) || empty(recv_lifetime) {
        return Err(Error::Inval);
    }
    Ok(KeyRequest::Add(KeySpec {
        flags,
        send_id,
        recv_id,
        alg,
        key_len,
        criteria,
        ifindex,
        mapped,
        send_lifetime,
        recv_lifetime,
    }))
}

/// The criteria in a `struct tcp_authopt_key`, and the family that its address was given in. `None`
/// if no key can have them: an address that is neither IPv4 nor IPv6, a prefix out of range, with
/// host bits, or of no address.
fn parse_criteria(
    key: &[u8; uapi::KEY_LEN],
    flags: u32,
    ifindex: Option<u32>,
) -> Option<(Criteria, Option<Family>)> {
    let has = |flag| flags & flag != 0;
    let vrf = ifindex.map(|index| match index {
        0 => VrfId::OUTSIDE,
        _ => VrfId::UNKNOWN,
    });
    let (remote, family) = match (has(key_flag::ADDR_BIND), has(key_flag::PREFIXLEN)) {
        (true, prefixlen_given) => {
            let (prefix, family) = parse_remote(key, prefixlen_given)?;
            (Some(prefix), Some(family))
        }
        (false, true) => return None,
        (false, false) => (None, None),
    };
    Some((Criteria { vrf, remote }, family))
}

/// The prefix in a `struct tcp_authopt_key`, of full length if none is given; and the family that it
/// was given in.
fn parse_remote(key: &[u8; uapi::KEY_LEN], prefixlen_given: bool) -> Option<(Prefix, Family)> {
    let family = Family::from_af(u16::from_ne_bytes(field(key, key_at::ADDR)))?;
    let addr = match family {
        Family::V4 => Addr::v4(field(key, key_at::ADDR_V4)),
        Family::V6 => Addr::v6(field(key, key_at::ADDR_V6)),
    };
    let len = if prefixlen_given {
        let len = i32::from_ne_bytes(field(key, key_at::PREFIXLEN));
        u8::try_from(len).ok()?
    } else {
        family.bits()
    };
    Some((Prefix::new(addr, len)?, family))
}
