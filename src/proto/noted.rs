// SPDX-License-Identifier: GPL-2.0

//! The ids that a connection has received, and which segments may change them.
//!
//! They steer what it sends: see [`super::conn::preferred`]. A segment whose MAC is right may still
//! be an old one that somebody sends once more, and must not bring its ids back.

use super::conn::isns_and_sne;
use super::conn::Context;
use super::sne::Sne;
use super::wire::KeyId;
use super::wire::KeyIds;
use super::wire::TcpHeader;

/// Where a segment is in its sender's stream. Positions are of 64 bits: an SNE, and a sequence
/// number below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its sequence number.
    pub start: u64,
    /// Bytes of data in it.
    pub len: u32,
    /// What its receiver expects next (RCV.NXT).
    pub expected: u64,
}

impl Extent {
    /// That of a segment for the connection of `context`, which holds `len` bytes of data; `None`
    /// for one that belongs to no connection yet.
    pub fn of(context: Context, header: &TcpHeader<'_>, len: u32) -> Option<Self> {
        let (_, sne) = isns_and_sne(context, header).ok()?;
        let at = |sne: Sne, seq| u64::from(sne.0) << 32 | u64::from(seq);
        let start = at(sne, header.seq());
        let expected = match context {
            Context::Request(numbers) | Context::Paired(numbers) | Context::TimeWait(numbers) => {
                at(numbers.basis, numbers.basis_seq)
            }
            Context::SynSent { .. } => start,
            Context::Listen | Context::Closed | Context::Unprotected => return None,
        };
        Some(Self {
            start,
            len,
            expected,
        })
    }

    /// It brings the byte that is expected next: nobody can have sent that before and had it
    /// arrive.
    fn is_awaited(&self) -> bool {
        self.expected.wrapping_sub(self.start) < u64::from(self.len)
    }
}

/// The ids that a connection goes by, and where in the peer's stream they came up.
///
/// One word, so that CPUs that receive segments of a connection at the same time change all of it
/// or nothing. From the lowest bit: KeyID, RNextKeyID, whether there are any, whether their place is
/// known, whether the stream has gone on from there, and the place, modulo 2^45.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted(u64);

const SOME: u64 = 1 << 16;
const PLACED: u64 = 1 << 17;
const PASSED: u64 = 1 << 18;
const PLACE_SHIFT: u32 = 19;

/// A place that is further behind than this is moved up, so that it is never mistaken for one that
/// is ahead.
const FAR: i64 = 1 << 32;
/// To here: no segment that is not a replay is further behind another one, since a window holds less
/// than 2^31 bytes.
const NEAR: u64 = 1 << 31;

impl Noted {
    /// Nothing was received.
    pub const NOTHING: Self = Self(0);

    /// A word that [`Self::to_word`] gave.
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to be kept.
    pub const fn to_word(self) -> u64 {
        self.0
    }

    /// Ids that did not come with a segment of the stream: those of the segment that opened the
    /// connection, or what `TCP_AUTHOPT` restores. Wherever others come up, they are newer.
    pub fn told(ids: Option<KeyIds>) -> Self {
        ids.map_or(Self::NOTHING, |ids| {
            Self(SOME | u64::from(u16::from_le_bytes([ids.keyid.0, ids.rnext.0])))
        })
    }

    fn placed(ids: KeyIds, place: u64) -> Self {
        Self(Self::told(Some(ids)).0 | PLACED | place << PLACE_SHIFT)
    }

    /// The ids.
    pub fn ids(self) -> Option<KeyIds> {
        let [keyid, rnext, ..] = self.0.to_le_bytes();
        (self.0 & SOME != 0).then_some(KeyIds {
            keyid: KeyId(keyid),
            rnext: KeyId(rnext),
        })
    }

    /// How far a position is from the place: negative before it. `None` if that is not known.
    fn distance(self, position: u64) -> Option<i64> {
        let ahead = (position << PLACE_SHIFT).wrapping_sub(self.0 & !0 << PLACE_SHIFT);
        (self.0 & PLACED != 0).then_some(ahead as i64 >> PLACE_SHIFT)
    }

    /// What is noted after a valid segment with these ids; `None` if it is what was noted before.
    ///
    /// Ids are taken over from a segment that does not begin before the place where those noted came
    /// up, less one, for keepalives and window probes repeat the number before the next. Once the
    /// stream has gone on, it must begin behind that place, where the last ACK with the ids of before
    /// was, too. What begins earlier was sent with the ids of then, and is replayed or late. But
    /// where it brings the byte that is awaited it counts: a peer that has given up its keys while
    /// there was a hole has nothing else to say so with.
    ///
    /// The place is where ids *changed*, not where the last segment was. A peer that gives up its
    /// key before it hears our ACKs, which are signed for it with that key, refuses them, and sends
    /// again what we have: were these segments behind what counts, we would never learn of its new
    /// key, and it would refuse us for good.
    pub fn after(self, ids: KeyIds, extent: Extent) -> Option<Self> {
        let distance = self.distance(extent.start);
        if self.ids() == Some(ids) {
            return match distance? {
                FAR.. => {
                    let up = extent.start.wrapping_sub(NEAR);
                    Some(Self(Self::placed(ids, up).0 | PASSED))
                }
                // A probe of what comes next begins behind the place as well.
                2.. if self.0 & PASSED == 0 => Some(Self(self.0 | PASSED)),
                _ => None,
            };
        }
        let first = if self.0 & PASSED == 0 { -1 } else { 1 };
        let place = match distance {
            _ if extent.is_awaited() => extent.start,
            Some(distance) if distance < first => return None,
            // The next probe is no further back than this one.
            Some(-1) => extent.start.wrapping_add(1),
            _ => extent.start,
        };
        Some(Self::placed(ids, place))
    }
}
