// SPDX-License-Identifier: GPL-2.0

//! MAC algorithms, behind a trait that the kernel's crypto library and the tests implement.

use super::error::Error;
use super::wire::MAC_LEN;

/// A MAC algorithm with its KDF (RFC 5926 2.2, R33). Each MAC is truncated to 96 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// HMAC-SHA-1-96 with KDF_HMAC_SHA1.
    HmacSha1_96 = 1,
    /// AES-128-CMAC-96 with KDF_AES_128_CMAC.
    Aes128Cmac96 = 2,
    /// HMAC-SHA-256-96 with the same construction over SHA-256: what Linux calls `hmac(sha256)`.
    HmacSha256_96 = 3,
}

impl Algorithm {
    /// Bytes of a traffic key: the whole output of the KDF's PRF (RFC 5926 3.1.1).
    pub const fn traffic_key_len(self) -> usize {
        match self {
            Self::HmacSha1_96 => 20,
            Self::Aes128Cmac96 => 16,
            Self::HmacSha256_96 => 32,
        }
    }
}

impl TryFrom<u8> for Algorithm {
    type Error = Error;

    /// The algorithm of the ABI's number; [`Error::Inval`] if there is none.
    fn try_from(alg: u8) -> Result<Self, Error> {
        match alg {
            1 => Ok(Self::HmacSha1_96),
            2 => Ok(Self::Aes128Cmac96),
            3 => Ok(Self::HmacSha256_96),
            _ => Err(Error::Inval),
        }
    }
}

/// A prepared key: padded hash states, or an expanded AES key.
///
/// It is filled and wiped in place, and never moved once it holds a secret: a move would leave a
/// copy on the stack.
pub trait MacKey: Sized {
    /// A MAC under way.
    type State<'k>: MacState
    where
        Self: 'k;

    /// A key not yet prepared; holds no secret.
    fn empty() -> Self;

    /// Prepares `key`: 16 bytes for AES, any number for HMAC.
    fn set(&mut self, alg: Algorithm, key: &[u8]);

    /// The MAC, with the key that was last set, over what `feed` adds to the state: untruncated,
    /// [`Algorithm::traffic_key_len`] bytes, then zeros. Also what `feed` returns.
    ///
    /// The state begins as a part of the key. It is made, used and overwritten in one place, as
    /// the key is.
    fn mac<R>(&self, out: &mut [u8; 32], feed: impl FnOnce(&mut Self::State<'_>) -> R) -> R;

    /// Overwrites the key.
    fn wipe(&mut self);

    /// Overwrites bytes that a key was made of, in a way that the compiler may not drop.
    fn erase(secret: &mut [u8]);
}

/// A MAC under way.
pub trait MacState {
    /// Adds bytes.
    fn update(&mut self, data: &[u8]);
}

/// Compares two MACs in a time that does not tell where they differ.
///
/// [`core::hint::black_box`] keeps the compiler from leaving the loop at the first difference.
pub fn tags_equal(a: &[u8; MAC_LEN], b: &[u8; MAC_LEN]) -> bool {
    let differing = a
        .iter()
        .zip(b)
        .fold(0, |bits, (a, b)| core::hint::black_box(bits | (a ^ b)));
    differing == 0
}
