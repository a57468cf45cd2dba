// SPDX-License-Identifier: GPL-2.0

//! Policies: which connections of a namespace must be protected, whatever their sockets asked.
//!
//! A policy has the criteria of a key, and is added by the same option; it has no ids and no bytes.
//! Of those that match a connection the most specific one decides. Keys protect nobody who did not
//! ask, and policies have nothing to sign with: a connection that is required to be protected, and
//! has no key, is none.

use super::criteria::Criteria;
use super::vrf::Given;
use super::vrf::VrfId;

/// What a policy wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// That connections are protected.
    Require(Require),
    /// Nothing, where another policy would.
    Exempt,
}

/// How a policy wants connections to be protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Require {
    /// Not by the kernel's own TCP-AO.
    pub strict: bool,
    /// They do not ignore ICMP errors (RFC 5925 7.8, R31).
    pub accept_icmp: bool,
}

/// A policy. Its criteria are its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicySpec {
    /// `TCP_AUTHOPT_KEY_*`, as given.
    pub flags: u32,
    /// The connections that it is for; but see [`super::request::parse`] for its VRF.
    pub criteria: Criteria,
    /// How its VRF was given.
    pub vrf: Given,
    /// Its IPv4 addresses were given as IPv6 ones.
    pub mapped: bool,
    /// What it wants.
    pub want: Want,
}

impl PolicySpec {
    /// The policy that was asked for, in the VRF that was meant.
    pub fn in_vrf(self, vrf: VrfId) -> Self {
        let criteria = self.criteria.in_vrf(vrf);
        Self { criteria, ..self }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self.want {
            Want::Require(_) => "require",
            Want::Exempt => "exempt",
        }
    }

    /// It wants protection.
    pub fn requires(&self) -> bool {
        matches!(self.want, Want::Require(_))
    }
}

/// What the policies of a namespace want of a connection. `matching`: those that match it, the most
/// specific first; of several that differ only in which of the connection's ports they have, one that
/// requires counts.
pub fn wanted<'a>(matching: impl Iterator<Item = &'a PolicySpec>) -> Option<Require> {
    let mut shape = None;
    for policy in matching {
        if *shape.get_or_insert(policy.criteria.shape()) != policy.criteria.shape() {
            break;
        }
        if let Want::Require(require) = policy.want {
            return Some(require);
        }
    }
    None
}
