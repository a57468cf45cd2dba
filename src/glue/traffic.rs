// SPDX-License-Identifier: GPL-2.0

//! Traffic keys (RFC 5925 5.2): made once for a connection, a key and a direction.

use kernel::prelude::*;

use super::crypto::PreparedKey;
use super::mkt::Mkt;
use super::rcu::RcuBox;
use super::segment::Segment;
use crate::proto::addr::Endpoints;
use crate::proto::kdf;
use crate::proto::kdf::Isns;
use crate::proto::mac::MacKey;
use crate::proto::mac::MacState;
use crate::proto::mkt::Window;
use crate::proto::segment::Covers;
use crate::proto::segment::MacHead;
use crate::proto::sne::Sne;
use crate::proto::wire::KeyId;
use crate::proto::wire::KeyIds;
use crate::proto::wire::Malformed;
use crate::proto::wire::TcpHeader;
use crate::proto::wire::MAC_LEN;

/// Why a segment has no MAC that could be computed.
pub(super) enum NoMac {
    /// Its header cannot be.
    Malformed,
    /// Its payload is where the CPU cannot read it: in the memory of a device.
    Unreadable,
}

impl From<Malformed> for NoMac {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Why a choice was made, and what the key is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Grounds {
    /// The set of keys that was chosen from: `KeyDb::generation()`.
    pub(super) generation: u64,
    /// To send: the KeyID that was preferred.
    pub(super) preferred: Option<KeyId>,
    /// Of the connection, which `TCP_REPAIR_AUTHOPT` can change.
    pub(super) isns: Isns,
}

/// A traffic key, and the choice of the MKT that it is made from.
///
/// Not changed once it can be found: another choice is another object.
pub(super) struct TrafficKey {
    /// KeyID in segments signed with it; to send, the RNextKeyID to go with it.
    pub(super) ids: KeyIds,
    grounds: Grounds,
    /// When the choice stands, as far as time goes.
    window: Window,
    /// Of the MKT: [`Mkt::material`].
    material: u64,
    covers: Covers,
    key: PreparedKey,
}

impl TrafficKey {
    /// The choice of `mkt`; [`Self::derive`] makes the key.
    pub(super) fn chosen(mkt: &Mkt, ids: KeyIds, grounds: Grounds, window: Window) -> Self {
        Self {
            ids,
            grounds,
            window,
            material: mkt.material(),
            covers: mkt.spec().covers(),
            key: PreparedKey::empty(),
        }
    }

    /// Derives the key for the direction of `ends`. If `last`, which is of the same connection and
    /// direction, is of the same MKT and ISNs, it is the same key.
    pub(super) fn derive(&mut self, mkt: &Mkt, ends: &Endpoints, last: Option<&Self>) {
        let isns = self.grounds.isns;
        match last {
            Some(last) if last.material == self.material && last.grounds.isns == isns => {
                self.key.copy_from(&last.key);
            }
            _ => kdf::traffic_key(mkt.spec().alg, mkt.key(), ends, isns, &mut self.key),
        }
    }

    /// A copy to be kept; `None` if there is no memory for one, in softirq.
    pub(super) fn to_keep(&self) -> Option<RcuBox<Self>> {
        let blank = Self {
            key: PreparedKey::empty(),
            ..*self
        };
        let fill = |new: &mut Self| new.key.copy_from(&self.key);
        RcuBox::new(blank, GFP_ATOMIC | __GFP_NOWARN, fill).ok()
    }

    /// The choice still stands.
    pub(super) fn holds(&self, grounds: Grounds, now: u64) -> bool {
        self.grounds == grounds && self.window.contains(now)
    }

    /// The MAC of a segment (RFC 5925 5.1). `header` has an AO option at `ao`.
    pub(super) fn mac(
        &self,
        sne: Sne,
        ends: &Endpoints,
        header: &TcpHeader<'_>,
        ao: usize,
        segment: &Segment<'_>,
    ) -> Result<[u8; MAC_LEN], NoMac> {
        let head = MacHead::new(sne, ends, header, ao, segment.len, self.covers)?;
        let mut digest = [0; 32];
        let complete = self.key.mac(&mut digest, |state| {
            state.update(head.bytes());
            segment.feed_payload(state)
        });
        if !complete {
            return Err(NoMac::Unreadable);
        }
        let mut mac = [0; MAC_LEN];
        mac.copy_from_slice(&digest[..MAC_LEN]);
        Ok(mac)
    }
}
