// SPDX-License-Identifier: GPL-2.0

//! What becomes of a received segment (RFC 5925 7.5).

use super::wire::AoOption;
use super::wire::Auth;
use super::wire::Malformed;

/// Why a segment is silently discarded (RFC 5925 7.3, R22). Each is one drop reason and one counter
/// of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Its header or options cannot be.
    Malformed,
    /// It is not signed, and must be.
    Required,
    /// It is signed, and no key matches its sender.
    Unexpected,
    /// No key that may be used to receive has its KeyID.
    KeyNotFound,
    /// Its MAC has a length that none of our algorithms makes.
    BadLength,
    /// Its MAC is wrong.
    BadMac,
}

/// What to do with a segment, as far as can be told before its key is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Drop it.
    Drop(Discard),
    /// Leave it to the kernel's MD5 check.
    CheckMd5,
    /// Accept it if its MAC is right. There is no MD5 check after that.
    Verify(AoOption),
}

/// The receive table, up to the MAC.
///
/// `keyed`: for a SYN to a listener, that a key matches the sender, valid or not; for a
/// connection, that it is protected. The length of a MAC is looked at before its key is
/// (RFC 5925 7.5.2, R27). Signed segments that no key matches go on, unless the socket rejects them
/// (RFC 5925 7.3, R23).
pub fn first_step(parsed: Result<Auth, Malformed>, keyed: bool, reject_unexpected: bool) -> Step {
    match (parsed, keyed) {
        (Err(_), _) => Step::Drop(Discard::Malformed),
        (Ok(Auth::None | Auth::Md5), false) => Step::CheckMd5,
        (Ok(Auth::None | Auth::Md5), true) => Step::Drop(Discard::Required),
        (Ok(Auth::Ao(_) | Auth::AoOfOtherLength), false) if reject_unexpected => {
            Step::Drop(Discard::Unexpected)
        }
        (Ok(Auth::Ao(_) | Auth::AoOfOtherLength), false) => Step::CheckMd5,
        (Ok(Auth::AoOfOtherLength), true) => Step::Drop(Discard::BadLength),
        (Ok(Auth::Ao(option)), true) => Step::Verify(option),
    }
}
