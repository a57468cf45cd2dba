// SPDX-License-Identifier: GPL-2.0

//! Whether any entry can be for a peer, told from its address alone and at little cost: of most
//! connections of a machine no entry is.
//!
//! The prefixes of all entries are hashed to the bits of a table. An address whose prefixes, of those
//! [`Lengths`] that are in use, have no bit set matches no entry. A bit may be set for another prefix,
//! or for one that is gone: then the entries are looked at in vain.

use super::addr::Addr;
use super::addr::Family;
use super::addr::Prefix;
use super::criteria::Shape;

/// Which prefixes of peers' addresses entries have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths {
    /// Some entry is for any peer, or for all of a family.
    any: bool,
    /// The length n of IPv4 is bit n - 1; so it is with those of IPv6.
    v4: u32,
    v6: u128,
}

impl Lengths {
    /// Those of entries of these shapes.
    pub fn of(shapes: impl Iterator<Item = Shape>) -> Self {
        let mut lengths = Self::default();
        for shape in shapes {
            match shape.remote() {
                None | Some((_, 0)) => lengths.any = true,
                Some((Family::V4, len)) => lengths.v4 |= bit(len) as u32,
                Some((Family::V6, len)) => lengths.v6 |= bit(len),
            }
        }
        lengths
    }

    /// Whether an entry can be for a peer at `addr`. `is_set`: the bit of [`hash`] in the table. An
    /// IPv4 address is in no IPv6 prefix here, as to policies.
    pub fn may_match(&self, addr: &Addr, is_set: impl Fn(u64) -> bool) -> bool {
        if self.any {
            return true;
        }
        let addr = addr.unmapped();
        let (family, mut lengths) = match addr.family() {
            Family::V4 => (Family::V4, u128::from(self.v4)),
            Family::V6 => (Family::V6, self.v6),
        };
        let bits = addr.to_bits();
        while lengths != 0 {
            let len = lengths.trailing_zeros() as u8 + 1;
            lengths &= lengths - 1;
            let masked = bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            if is_set(hash_of(family, len, masked)) {
                return true;
            }
        }
        false
    }
}

/// The bit of a length that is not 0.
fn bit(len: u8) -> u128 {
    1u128.checked_shl(u32::from(len) - 1).unwrap_or(0)
}

/// The number of a prefix: a table takes as many of its upper bits as it needs.
pub fn hash(prefix: &Prefix) -> u64 {
    let addr = prefix.addr();
    hash_of(addr.family(), prefix.prefixlen(), addr.to_bits())
}

/// Mixes by multiplication: what is near each other, as addresses are, goes far apart in the upper
/// bits.
fn hash_of(family: Family, len: u8, bits: u128) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (upper, lower) = ((bits >> 64) as u64, bits as u64);
    let seed = u64::from(len) << 8 | family as u64;
    let mixed = (upper ^ seed).wrapping_mul(ODD).rotate_left(32);
    (mixed ^ lower).wrapping_mul(ODD)
}
