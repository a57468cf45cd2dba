// SPDX-License-Identifier: GPL-2.0

//! Keys: master key tuples (RFC 5925 3.1) as `TCP_AUTHOPT_KEY` sets them.
//!
//! Of a key, all but its bytes is a [`KeySpec`]. The connections that it matches are its
//! [`Criteria`]; criteria of one [`Shape`] use the same fields, so that a lookup is an exact match or
//! two for each shape in use, of which there are few, however many keys there are.

use core::cmp::Ordering;
use core::cmp::Reverse;

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
use super::vrf::Given;
use super::vrf::Name;
use super::vrf::VrfId;
use super::wire::KeyId;

/// Bytes of [`Criteria::to_key`].
pub const CRITERIA_KEY_LEN: usize = 44;

/// Which connections a key is for. Equal criteria match the same connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Criteria {
    /// The VRF of the connection, or outside of all; `None` for any.
    pub vrf: Option<VrfId>,
    /// Where the peer's address must be; `None` for anywhere, in both families. An IPv4 prefix is
    /// the same peers on sockets of either family.
    pub remote: Option<Prefix>,
    /// The same of the address of this end.
    pub local: Option<Prefix>,
    /// A port that either end must have; `None` for any.
    pub port: Option<u16>,
}

impl Criteria {
    /// The fields that these criteria use.
    pub fn shape(&self) -> Shape {
        let length = |prefix: Prefix| (prefix.addr().family(), prefix.prefixlen());
        Shape {
            vrf: self.vrf.is_some(),
            remote: self.remote.map(length),
            local: self.local.map(length),
            port: self.port.is_some(),
        }
    }

    /// These criteria as a flat key for a hash table: equal keys mean equal criteria.
    pub fn to_key(self) -> [u8; CRITERIA_KEY_LEN] {
        let mut key = [0; CRITERIA_KEY_LEN];
        if let Some(VrfId(id)) = self.vrf {
            key[0] = 1;
            key[8..12].copy_from_slice(&id.to_ne_bytes());
        }
        if let Some(prefix) = self.remote {
            key[1] = prefix.addr().family() as u8;
            key[2] = prefix.prefixlen();
            key[12..28].copy_from_slice(prefix.addr().padded());
        }
        if let Some(prefix) = self.local {
            key[3] = prefix.addr().family() as u8;
            key[4] = prefix.prefixlen();
            key[28..44].copy_from_slice(prefix.addr().padded());
        }
        if let Some(port) = self.port {
            key[5] = 1;
            key[6..8].copy_from_slice(&port.to_ne_bytes());
        }
        key
    }

    /// Greater is more specific: a VRF over none, the longer prefix of the peer, the longer one of
    /// this end, a port over none; of two ports the lower one, which is the service as a rule. Of
    /// the criteria that one connection matches, no two are equal in this.
    pub(super) fn specificity(&self) -> impl Ord {
        let port = self.port.map(Reverse);
        (self.shape().specificity(), port)
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
    /// The address of this end, not IPv4-mapped; the unspecified one if it is not known.
    local: Addr,
    /// The ports of both ends; 0 if one is not known.
    ports: [u16; 2],
    side: Side,
}

impl Pair {
    /// The connection of a segment that is sent.
    pub fn of_sent(ends: &Endpoints, side: Side) -> Self {
        Self {
            remote: ends.dst.unmapped(),
            local: ends.src.unmapped(),
            ports: [ends.src_port, ends.dst_port],
            side,
        }
    }

    /// The connection of a segment that has come.
    pub fn of_received(ends: &Endpoints, side: Side) -> Self {
        Self {
            remote: ends.src.unmapped(),
            local: ends.dst.unmapped(),
            ports: [ends.dst_port, ends.src_port],
            side,
        }
    }
}

/// A prefix, without its address.
type Length = (Family, u8);

/// Which fields criteria use, and how long their prefixes are.
///
/// Ordered by preference, the most specific first: see [`Criteria::specificity`]. An IPv4 prefix
/// counts as one of mapped addresses, 96 bits longer. Two shapes that then differ only in a family
/// come in a fixed order, which never decides anything, for no connection matches both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    vrf: bool,
    remote: Option<Length>,
    local: Option<Length>,
    port: bool,
}

impl Shape {
    /// The criteria of this shape that `pair` matches: none if its family is another; two if the
    /// port decides, of which it has two. An IPv4 connection of an IPv6 socket is in IPv6 prefixes
    /// too, those that are shorter than what all mapped addresses have in common.
    pub fn criteria_of(&self, pair: &Pair) -> [Option<Criteria>; 2] {
        let prefix = |length: Option<Length>, addr: Addr| match length {
            None => Some(None),
            Some((family, len)) => {
                let addr = match (family, addr.family(), pair.side.socket) {
                    (Family::V6, Family::V4, Family::V6) => addr.mapped(),
                    _ => addr,
                };
                let prefix = Prefix::around(addr, len);
                (prefix.addr().family() == family).then_some(Some(prefix))
            }
        };
        let is_known = !pair.local.is_unspecified() || self.local.is_none();
        let (Some(remote), Some(local), true) = (
            prefix(self.remote, pair.remote),
            prefix(self.local, pair.local),
            is_known,
        ) else {
            return [None, None];
        };
        let with = |port| Criteria {
            vrf: self.vrf.then_some(pair.side.vrf),
            remote,
            local,
            port,
        };
        let [here, there] = pair.ports;
        if !self.port {
            [Some(with(None)), None]
        } else {
            let other = (there != here).then(|| with(Some(there)));
            [Some(with(Some(here))), other]
        }
    }

    /// Greater is more specific.
    fn specificity(&self) -> impl Ord {
        let len = |length: Option<Length>| length.map(|(family, len)| family.mapped_len(len));
        (self.vrf, len(self.remote), len(self.local), self.port)
    }
}

impl Ord for Shape {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_specificity = other.specificity().cmp(&self.specificity());
        by_specificity
            .then_with(|| self.remote.cmp(&other.remote))
            .then_with(|| self.local.cmp(&other.local))
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
    /// The connections that it is for; but see [`parse_key`] for its VRF.
    pub criteria: Criteria,
    /// How its VRF was given.
    pub vrf: Given,
    /// Its IPv4 addresses were given as IPv6 ones, `::ffff:a.b.c.d`.
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
    /// The key that was asked for, in the VRF that was meant.
    pub fn in_vrf(mut self, vrf: VrfId) -> Self {
        self.criteria.vrf = Some(vrf);
        self
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
    /// Delete the key of this identity, in the VRF that is given.
    Delete(Identity, Given),
    /// Add this key, or replace the one of its identity, in the VRF that it means.
    Add(KeySpec),
}

/// Reads a `struct tcp_authopt_key` given to a socket of family `socket`.
///
/// A field whose flag is unset is ignored. The master key stays in `key`: see
/// [`KeySpec::master_key`]. Which VRF has the interface index or the name it does not know: that VRF
/// is [`VrfId::UNKNOWN`].
///
/// # Errors
///
/// [`Error::NoEnt`] for a deletion that names what no key can be, [`Error::Inval`] for all else. A
/// deletion minds unknown flags, reserved bytes and the key length, and after those nothing but its
/// identity.
pub fn parse_key(key: &[u8; uapi::KEY_LEN], socket: Family) -> Result<KeyRequest, Error> {
    let flags = u32::from_ne_bytes(field(key, 0));
    let [send_id, recv_id, alg, key_len] = field(key, 4);
    let has = |flag| flags & flag != 0;
    let mut reserved = key_at::RESERVED
        .into_iter()
        .flat_map(|range| key.get(range));
    if flags & !key_flag::KNOWN != 0
        || usize::from(key_len) > uapi::MAX_MASTER_KEY_LEN
        || reserved.any(|bytes| bytes.iter().any(|byte| *byte != 0))
    {
        return Err(Error::Inval);
    }

    let given = parse_criteria(key, flags);
    let (send_id, recv_id) = (KeyId(send_id), KeyId(recv_id));
    if has(key_flag::DEL) {
        let given = given.ok_or(Error::NoEnt)?;
        let identity = Identity {
            send_id,
            recv_id,
            criteria: given.criteria,
            prefixlen_given: has(key_flag::PREFIXLEN),
        };
        return Ok(KeyRequest::Delete(identity, given.vrf));
    }

    let given = given.ok_or(Error::Inval)?;
    if given.family.is_some_and(|family| family != socket) {
        return Err(Error::Inval);
    }
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
        criteria: given.criteria,
        vrf: given.vrf,
        mapped: given.mapped,
        send_lifetime,
        recv_lifetime,
    }))
}

/// Criteria, and the form in which they were given.
struct GivenCriteria {
    criteria: Criteria,
    vrf: Given,
    /// That of the addresses; `None` if there are none.
    family: Option<Family>,
    /// They are IPv4 addresses, in the form of IPv6.
    mapped: bool,
}

/// The criteria in a `struct tcp_authopt_key`. `None` if no key can have them: an address that is
/// neither IPv4 nor IPv6, a prefix out of range, with host bits, or of no address, two addresses of
/// which no connection has both, port 0, a name that no VRF has, two ways of saying which VRF.
fn parse_criteria(key: &[u8; uapi::KEY_LEN], flags: u32) -> Option<GivenCriteria> {
    let has = |flag| flags & flag != 0;
    let vrf = match (has(key_flag::IFINDEX), has(key_flag::VRF_NAME)) {
        (true, true) => return None,
        (true, false) => match u32::from_ne_bytes(field(key, key_at::IFINDEX)) {
            0 => Given::Outside,
            index => Given::Index(index),
        },
        (false, true) => Given::Named(Name::parse(field(key, key_at::VRF))?),
        (false, false) => Given::Any,
    };

    let family = Family::from_af(u16::from_ne_bytes(field(key, key_at::ADDR)));
    let prefix = |addr_flag, at_v4, at_v6, len_flag, len_at| {
        if !has(addr_flag) {
            return (!has(len_flag)).then_some(None);
        }
        let family = family?;
        let addr = match family {
            Family::V4 => Addr::v4(field(key, at_v4)),
            Family::V6 => Addr::v6(field(key, at_v6)),
        };
        let len = if has(len_flag) {
            u8::try_from(i32::from_ne_bytes(field(key, len_at))).ok()?
        } else {
            family.bits()
        };
        Some(Some(Prefix::new(addr, len)?))
    };
    let remote = prefix(
        key_flag::ADDR_BIND,
        key_at::ADDR_V4,
        key_at::ADDR_V6,
        key_flag::PREFIXLEN,
        key_at::PREFIXLEN,
    )?;
    let local = prefix(
        key_flag::LOCAL_ADDR,
        key_at::LOCAL,
        key_at::LOCAL,
        key_flag::LOCAL_PREFIXLEN,
        key_at::LOCAL_PREFIXLEN,
    )?;
    let family_of = |prefix: Option<Prefix>| prefix.map(|it| it.addr().family());
    let families = (family_of(remote), family_of(local));
    if matches!(families, (Some(remote), Some(local)) if remote != local) {
        return None;
    }

    let port =
        has(key_flag::SERVICE_PORT).then(|| u16::from_ne_bytes(field(key, key_at::SERVICE_PORT)));
    if port == Some(0) {
        return None;
    }
    let criteria = Criteria {
        vrf: vrf.in_criteria(),
        remote,
        local,
        port,
    };
    let kept = families.0.or(families.1);
    Some(GivenCriteria {
        criteria,
        vrf,
        family: kept.and(family),
        mapped: kept.is_some() && kept != family,
    })
}
