// SPDX-License-Identifier: GPL-2.0

//! Sequence number extensions (RFC 5925 6.2, RFC 9187).

/// The upper half of a 64-bit sequence number, which is 0 at the ISN (RFC 5925 6.2, R15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sne(pub u32);

/// The SNE of `seq`, given that of `basis_seq`, a sequence number within 2^31 of it (RFC 9187, R39).
///
/// A window holds less than 2^31 bytes, so any number that the connection has in use will do as
/// the basis; the same holds for one given to `TCP_REPAIR_AUTHOPT`.
pub const fn sne_at(basis: Sne, basis_seq: u32, seq: u32) -> Sne {
    let distance = seq.wrapping_sub(basis_seq) as i32;
    let wide = ((basis.0 as u64) << 32) | basis_seq as u64;
    Sne((wide.wrapping_add_signed(distance as i64) >> 32) as u32)
}
