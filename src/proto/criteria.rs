// SPDX-License-Identifier: GPL-2.0

//! Which connections an entry is for: [`Criteria`].
//!
//! Criteria of one [`Shape`] use the same fields, so that a lookup is an exact match or two for each
//! shape in use, of which there are few, however many entries there are.

use core::cmp::Ordering;
use core::cmp::Reverse;

use super::addr::Addr;
use super::addr::Endpoints;
use super::addr::Family;
use super::addr::Prefix;
use super::vrf::VrfId;

/// Bytes of [`Criteria::to_key`].
pub const CRITERIA_KEY_LEN: usize = 44;

/// Which connections an entry is for. Equal criteria match the same connections.
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
    /// These in that VRF.
    pub fn in_vrf(self, vrf: VrfId) -> Self {
        let vrf = Some(vrf);
        Self { vrf, ..self }
    }

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

/// What criteria look at of a connection, and its segments do not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// The family of the socket. One of IPv6 has IPv4 connections, too.
    pub socket: Family,
    /// The VRF.
    pub vrf: VrfId,
}

/// A connection, as entries see it.
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
    /// The connection as policies see it: IPv4 is in no IPv6 prefix, whatever the socket.
    pub fn for_policies(&self) -> Self {
        let mut pair = *self;
        pair.side.socket = pair.remote.family();
        pair
    }

    /// The peer's address.
    pub fn remote(&self) -> &Addr {
        &self.remote
    }

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
pub type Length = (Family, u8);

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
    /// Family and length of the prefix of the peer's address.
    pub fn remote(&self) -> Option<Length> {
        self.remote
    }

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
