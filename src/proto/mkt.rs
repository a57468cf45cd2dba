// SPDX-License-Identifier: GPL-2.0

//! Keys: master key tuples (RFC 5925 3.1) as `TCP_AUTHOPT_KEY` sets them.
//!
//! Of a key, all but its bytes is a [`KeySpec`].

use super::criteria::Criteria;
use super::mac::Algorithm;
use super::segment::Covers;
use super::uapi;
use super::uapi::key_at;
use super::uapi::key_flag;
use super::vrf::Given;
use super::vrf::VrfId;
use super::wire::KeyId;

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
    /// The connections that it is for; but see [`super::request::parse`] for its VRF.
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
    pub fn in_vrf(self, vrf: VrfId) -> Self {
        let criteria = self.criteria.in_vrf(vrf);
        Self { criteria, ..self }
    }
}

impl KeySpec {
    /// The key that was asked for, in the VRF that was meant.
    pub fn in_vrf(self, vrf: VrfId) -> Self {
        let criteria = self.criteria.in_vrf(vrf);
        Self { criteria, ..self }
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
