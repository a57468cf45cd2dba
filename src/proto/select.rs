// SPDX-License-Identifier: GPL-2.0

//! Choosing among the keys that match a peer (RFC 5925 3.3, RFC 8177 2.2).
//!
//! Each choice goes through all matching keys, in any order, and names one at most (R9, R10). An
//! answer holds for a window of wall-clock time, as long as the set of keys and the preferences are the
//! same.

use core::cmp::Reverse;

use super::mkt::KeySpec;
use super::mkt::Lifetime;
use super::mkt::Window;
use super::wire::KeyId;

/// A key that matches the peer.
pub trait Candidate: Copy {
    /// The key.
    fn spec(&self) -> &KeySpec;

    /// Greater for a key that was added later.
    fn serial(&self) -> u64;
}

/// How a namespace wants its keys to be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// Which of several valid keys comes first.
    pub rule: Rule,
    /// Seconds for which a key is still accepted after its receive lifetime, and already before
    /// it: the accept-tolerance of RFC 8177 2.2, for clocks that differ. Nobody is asked to use a
    /// key outside its lifetime.
    pub accept_tolerance: u32,
}

/// Which of several valid keys comes first, if neither the peer's wish nor specificity decides.
///
/// It holds for the key to send with and for the one to ask for alike: what one end of a
/// connection moves to is what the other asks it to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The one whose lifetime ends last; no end is the latest.
    #[default]
    LongestLifetime,
    /// The one whose lifetime begins last, no begin being the earliest; of those, the one whose
    /// lifetime ends last.
    LatestStart,
}

impl Rule {
    /// Greater for the lifetime that comes first. It does not depend on the time, so that only
    /// the begin or end of a lifetime can change a choice.
    fn rank(self, lifetime: Lifetime) -> (u64, u64) {
        match self {
            Self::LongestLifetime => (lifetime.last(), 0),
            Self::LatestStart => (lifetime.first(), lifetime.last()),
        }
    }
}

/// The answer to a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen<C> {
    /// The key; `None` if none will do.
    pub key: Option<C>,
    /// The time in which the same keys give the same answer. It holds the `now` that was asked
    /// about.
    pub holds: Window,
}

/// The key to sign with.
///
/// The order, in which the first difference decides: the preferred `send_id`; the more specific
/// criteria; the preferences's [`Rule`]; the lower `send_id`; the newer key (for two with one id, where
/// overlap is allowed).
///
/// `preferred`: see [`super::conn::preferred`].
pub fn send_key<C: Candidate>(
    matching: impl Iterator<Item = C>,
    preferred: Option<KeyId>,
    preferences: Preferences,
    now: u64,
) -> Chosen<C> {
    let rank = |key: &C, validity| send_rank(key, validity, preferred, preferences);
    choose(matching, KeySpec::send_validity, now, rank)
}

/// The key to sign with, as [`send_key`] chooses it, and the key to ask the peer for: in the same
/// order, with no preference, on receive validity and `recv_id`.
pub fn send_and_rnext_key<C: Candidate>(
    matching: impl Iterator<Item = C>,
    preferred: Option<KeyId>,
    preferences: Preferences,
    now: u64,
) -> (Chosen<C>, Chosen<C>) {
    let (mut send, mut rnext) = (Choice::new(now), Choice::new(now));
    for key in matching {
        send.offer(key, key.spec().send_validity(), |validity| {
            send_rank(&key, validity, preferred, preferences)
        });
        rnext.offer(key, key.spec().recv_validity(), |validity| {
            rnext_rank(&key, validity, preferences)
        });
    }
    (send.made(), rnext.made())
}

fn send_rank(
    key: &impl Candidate,
    validity: Lifetime,
    preferred: Option<KeyId>,
    preferences: Preferences,
) -> impl Ord {
    let spec = key.spec();
    (
        Some(spec.send_id) == preferred,
        spec.criteria.specificity(),
        preferences.rule.rank(validity),
        Reverse(spec.send_id),
        key.serial(),
    )
}

fn rnext_rank(key: &impl Candidate, validity: Lifetime, preferences: Preferences) -> impl Ord {
    let spec = key.spec();
    (
        spec.criteria.specificity(),
        preferences.rule.rank(validity),
        Reverse(spec.recv_id),
        key.serial(),
    )
}

/// The key that a segment with this KeyID must be signed with, any that is valid to receive with
/// (RFC 8177 2.2, R41): the most specific; of two with the same criteria, where overlap is allowed,
/// the newer.
///
/// One that is only tolerated (R42) is for where there is no valid one: the tolerance never has a
/// segment refused that would be accepted without it.
pub fn recv_key<C: Candidate>(
    matching: impl Iterator<Item = C> + Clone,
    keyid: KeyId,
    preferences: Preferences,
    now: u64,
) -> Chosen<C> {
    let with_keyid = matching.filter(|key| key.spec().recv_id == keyid);
    let rank = |key: &C, _| (key.spec().criteria.specificity(), key.serial());
    let valid = choose(with_keyid.clone(), KeySpec::recv_validity, now, rank);
    if valid.key.is_some() || preferences.accept_tolerance == 0 {
        return valid;
    }
    let tolerated = |spec: &KeySpec| {
        let lifetime = spec.recv_validity()?;
        Some(lifetime.widened(preferences.accept_tolerance))
    };
    let tolerated = choose(with_keyid, tolerated, now, rank);
    Chosen {
        key: tolerated.key,
        holds: valid.holds.and(tolerated.holds),
    }
}

/// Whether any key matches, valid or not: the peer is "keyed".
///
/// This decides whether a connection is protected, once: when its SYN is sent or answered, or at
/// `connect()` under `TCP_REPAIR`.
pub fn any_match<C: Candidate>(mut matching: impl Iterator<Item = C>) -> bool {
    matching.next().is_some()
}

/// The key of highest `rank` among those valid at `now`.
fn choose<C: Candidate, Rank: Ord>(
    keys: impl Iterator<Item = C>,
    validity: impl Fn(&KeySpec) -> Option<Lifetime>,
    now: u64,
    rank: impl Fn(&C, Lifetime) -> Rank,
) -> Chosen<C> {
    let mut choice = Choice::new(now);
    for key in keys {
        choice.offer(key, validity(key.spec()), |validity| rank(&key, validity));
    }
    choice.made()
}

/// A choice that is being made.
struct Choice<C, Rank> {
    now: u64,
    best: Option<(Rank, C)>,
    holds: Window,
}

impl<C: Candidate, Rank: Ord> Choice<C, Rank> {
    fn new(now: u64) -> Self {
        Self {
            now,
            best: None,
            holds: Window::ALWAYS,
        }
    }

    /// One more key. `validity`: when it may be used; `None`: never.
    fn offer(&mut self, key: C, validity: Option<Lifetime>, rank: impl FnOnce(Lifetime) -> Rank) {
        let Some(validity) = validity else {
            return;
        };
        // A key that loses now counts too: it may win once another one ends.
        self.holds = self.holds.and(validity.steady(self.now));
        if !validity.contains(self.now) {
            return;
        }
        let rank = rank(validity);
        if self
            .best
            .as_ref()
            .is_none_or(|(highest, _)| rank > *highest)
        {
            self.best = Some((rank, key));
        }
    }

    fn made(self) -> Chosen<C> {
        Chosen {
            key: self.best.map(|(_, key)| key),
            holds: self.holds,
        }
    }
}
