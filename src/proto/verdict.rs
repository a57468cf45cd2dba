// SPDX-License-Identifier: GPL-2.0

//! What becomes of a received segment (RFC 5925 7.5), and of the handshakes that it is part of.

use super::error::Error;
use super::policy::Require;
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

/// Whether the kernel's own TCP-AO does for a connection, by what policies require of it. `signed`:
/// there is a key of the kernel's for it, or its SYN was signed with one.
pub fn native_does(required: Option<Require>, signed: bool) -> bool {
    required.is_none_or(|require| signed && !require.strict)
}

/// Whether a connection that this end is about to open is protected, which a key that matches the
/// peer decides if its socket asked, and a policy for every socket (`keyed`). `may_send`: a key that
/// matches may be used to send. `answered`: the socket could be found before, unprotected, and has
/// taken a segment that nobody has verified; so it can be with `TCP_FASTOPEN_CONNECT`.
/// `speaks_mptcp`: the SYN would be one of MPTCP, of which other subflows need not be protected.
///
/// # Errors
///
/// [`Error::NoKey`], [`Error::ConnAborted`], [`Error::OpNotSupp`]: it must not be opened, since it
/// could not be protected.
pub fn connect(
    keyed: bool,
    may_send: impl FnOnce() -> bool,
    answered: bool,
    speaks_mptcp: bool,
) -> Result<bool, Error> {
    if keyed && speaks_mptcp {
        return Err(Error::OpNotSupp);
    }
    if keyed && !may_send() {
        return Err(Error::NoKey);
    }
    if keyed && answered {
        return Err(Error::ConnAborted);
    }
    Ok(keyed)
}

/// Requests that peers with keys may have beyond a listener's backlog, where that is smaller.
pub const SPARE_REQUESTS: u32 = 256;

/// A listener has no room among its requests, or would answer by a SYN cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// So many requests does it have.
    pub requests: u32,
    /// The most that it is to have.
    pub backlog: u32,
}

/// What to do with a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syn {
    /// What the stack does.
    Stack,
    /// Make it a request although there are too many.
    Admit,
    /// Drop it.
    Drop,
    /// Discard it as other segments are.
    Discard(Discard),
}

/// What becomes of a SYN. `keyed`: a key matches the connection that it asks for. `signed`: it carries
/// AO, and so was verified before, unless a key came in between; the ACK will show then.
///
/// Whether an unsigned one has to be signed is asked twice: before, when only its sender is known
/// (`tcp_ao_do_lookup()`), and here, where its address at this end and its ports are.
///
/// In a crowd a signed SYN of a peer with keys is proof enough of him, so that nobody without a key,
/// however many SYNs he sends, keeps a peer out; and no connection of such a peer is opened by a
/// cookie, whose ISNs are those that the ACK shows, so that a recorded one could be played again as a
/// whole. Old signed SYNs can be played, too. They make one request for each pair of ports, so there
/// is a bound: as many again as the backlog, and no fewer than [`SPARE_REQUESTS`].
///
/// `joins_mptcp`: it asks to be a subflow of a connection that there is. A protected connection is none
/// of MPTCP, and a request that has found the connection which it is to join cannot be made one of TCP.
pub fn syn(keyed: bool, signed: bool, joins_mptcp: bool, crowd: Option<Crowd>) -> Syn {
    let bound = |backlog: u32| backlog.saturating_add(backlog.max(SPARE_REQUESTS));
    if keyed && signed && joins_mptcp {
        return Syn::Drop;
    }
    match (keyed, signed, crowd) {
        (false, _, _) | (true, true, None) => Syn::Stack,
        (true, false, _) => Syn::Discard(Discard::Required),
        (true, true, Some(crowd)) if crowd.requests < bound(crowd.backlog) => Syn::Admit,
        (true, true, Some(_)) => Syn::Drop,
    }
}

/// What a signed SYN is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    None,
    /// A SYN-ACK without TCP-AO, as it is where the connection need not be protected (RFC 5925 7.5).
    Unsigned,
    /// A signed SYN-ACK.
    Signed,
}

/// What a listener answers a signed SYN with. `first`: it has not answered yet; else the first answer was
/// signed, or held back, and nothing makes a later one unsigned. `keyed`: the connection is to be
/// protected. `may_send`: a key that matches may be used to send. `cookie`: there is no request. Of a peer
/// with keys [`syn`] makes one, so that his first key has come since.
pub fn answer(first: bool, keyed: impl FnOnce() -> bool, may_send: bool, cookie: bool) -> Answer {
    match (!first || keyed(), may_send && !cookie) {
        (false, _) => Answer::Unsigned,
        (true, false) => Answer::None,
        (true, true) => Answer::Signed,
    }
}

/// What a listener makes a new connection of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A request, by the ACK that completes it.
    Request,
    /// An ACK that shows a SYN cookie: there is no request.
    Cookie,
    /// A SYN, by TCP Fast Open, before the handshake is over.
    FastOpen,
}

/// What becomes of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    /// It is protected.
    Protected,
    /// It is not.
    Unprotected,
    /// There is none. Of [`Origin::FastOpen`] a request is made instead.
    Refused,
}

/// Whether a new connection is protected, which its SYN decided (RFC 5925 7.5, R26). `keyed`: a key
/// matches the peer now. `signed`: the handshake is; of a cookie or Fast Open, the segment that is
/// there carries AO.
///
/// | origin    | signed, keyed | signed | keyed   | neither     |
/// |-----------|---------------|--------|---------|-------------|
/// | request   | protected     | protected: its last key has gone since | refused: its SYN came before the key | unprotected |
/// | cookie    | refused       | refused: the SYN-ACK was not signed | refused | unprotected |
/// | Fast Open | refused       | unprotected: no key was asked for | refused | unprotected |
///
/// For a peer with keys only a request will do. Its numbers are new, so that its ACK cannot be an
/// old one; a cookie's are those that the ACK shows, and with Fast Open the data comes before any
/// of them: recorded ones could be played again.
pub fn child(keyed: bool, signed: bool, origin: Origin) -> Child {
    match (origin, signed, keyed) {
        (Origin::Request, true, _) => Child::Protected,
        (Origin::Cookie, true, false) | (_, _, true) => Child::Refused,
        (_, false, false) | (Origin::FastOpen, true, false) => Child::Unprotected,
    }
}
