// SPDX-License-Identifier: GPL-2.0

//! What a protected connection makes of its ids and sequence numbers.

use super::kdf::Isns;
use super::sne::sne_at;
use super::sne::Sne;
use super::sockopt::SockFlags;
use super::wire::Isn;
use super::wire::KeyId;
use super::wire::TcpHeader;

/// The `send_id` to prefer: the locked one, else the one that the peer asked for last (for a
/// SYN-ACK, in the SYN), else none.
///
/// The key in use follows the peer's RNextKeyID, back as well as on (RFC 5925 6.1, R14). An id that
/// no usable key has changes nothing (RFC 5925 7.5.2.e, R28): [`super::select::send_key`] only
/// prefers. With locks the socket's owner sets both ids (RFC 5925 7.1, R19).
pub fn preferred(flags: &SockFlags, peer_rnext: Option<KeyId>) -> Option<KeyId> {
    flags.lock_keyid.or(peer_rnext)
}

/// The RNextKeyID to send: the locked one, else the `recv_id` of the key that
/// [`super::select::send_and_rnext_key`] chose, else of the key that signs.
pub fn rnext_id(flags: &SockFlags, chosen: Option<KeyId>, of_send_key: KeyId) -> KeyId {
    flags.lock_rnext.or(chosen).unwrap_or(of_send_key)
}

/// Seconds without a key to send with after which a socket is told of it, if the namespace has not
/// said how many: one that asked for protection wants to know, and one that never did knows of no
/// keys, and would end a session for which there is one again a moment later.
const GRACE_OF_WHO_ASKED: u32 = 0;
const GRACE_OF_OTHERS: u32 = 10;

/// Whether a connection without a key to send with is told so now, that a segment is due.
///
/// `grace`: `net.ipv4.tcp_authopt_no_key_grace`, in seconds, negative for what suits the socket, which
/// depends on whether it has `asked`. `since`: when the first segment was due for which there was none. Times are in nanoseconds of a
/// clock that nobody sets.
pub fn lack_is_told(grace: i32, asked: bool, since: u64, now: u64) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let grace = u32::try_from(grace).unwrap_or(if asked {
        GRACE_OF_WHO_ASKED
    } else {
        GRACE_OF_OTHERS
    });
    now.saturating_sub(since) >= u64::from(grace) * SECOND
}

/// Sequence numbers of a connection whose ISNs are both known, as a segment's sender has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Both ISNs.
    pub isns: Isns,
    /// SNE of `basis_seq`.
    pub basis: Sne,
    /// A sequence number of the sender's within 2^31 of the segment's: RCV.NXT on receipt, or in a
    /// request, with SNE 0, the sender's ISN; to send, that of the segment itself.
    pub basis_seq: u32,
}

/// What is known of the connection that a segment belongs to, in the direction in which the segment
/// travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Nothing: a listener has received it, and there is no request.
    Listen,
    /// A listener's request, whose SYN was signed.
    Request(Numbers),
    /// The receiver is in SYN-SENT: its ISN is known, the sender's is not.
    SynSent {
        /// The receiver's ISN.
        dst: Isn,
    },
    /// Every later state of a protected connection.
    Paired(Numbers),
    /// The same connection, of which a TIME-WAIT socket is left. Where that is asked nothing may be
    /// allocated.
    TimeWait(Numbers),
    /// The connection has ended.
    Closed,
    /// The connection is not protected.
    Unprotected,
}

impl Context {
    /// Whether the segment has to be signed: the connection is protected, even if its last key is
    /// gone. `None` where there is no connection yet, so that the keys decide.
    pub fn must_be_signed(self) -> Option<bool> {
        match self {
            Self::Listen => None,
            Self::Unprotected => Some(false),
            Self::Request(_)
            | Self::SynSent { .. }
            | Self::Paired(_)
            | Self::TimeWait(_)
            | Self::Closed => Some(true),
        }
    }

    /// Whether the ids of a segment that has verified are those that the connection goes by. Of a
    /// request it is the segment that completes it which tells them.
    pub fn goes_by_its_ids(self, header: &TcpHeader<'_>) -> bool {
        // A SYN may be of any age.
        !header.opens()
            && matches!(
                self,
                Self::SynSent { .. } | Self::Paired(_) | Self::TimeWait(_)
            )
    }
}

/// Why no MAC can be computed for a segment: it is dropped, and nothing is computed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoIsns {
    /// There is no connection any more.
    Closed,
    /// There is none yet, and the segment is not a SYN, which would open one.
    NoRequest,
}

/// The ISNs that the traffic key of a segment is made for, and the SNE that its MAC covers
/// (RFC 5925 5.2, 6.2; R13).
///
/// A SYN without ACK stands for itself in every state of a connection, retransmitted or new: its own
/// ISN, none of the receiver's, SNE 0.
///
/// # Errors
///
/// [`NoIsns::NoRequest`]: a listener gets another segment, and has no request that it belongs to; so
/// it is with the ACK of a SYN cookie, see [`super::verdict::child`]. [`NoIsns::Closed`].
pub fn isns_and_sne(context: Context, header: &TcpHeader<'_>) -> Result<(Isns, Sne), NoIsns> {
    let seq = header.seq();
    match context {
        Context::Closed | Context::Unprotected => Err(NoIsns::Closed),
        _ if header.opens() => {
            let isns = Isns {
                src: Isn(seq),
                dst: Isn(0),
            };
            Ok((isns, Sne(0)))
        }
        Context::Listen => Err(NoIsns::NoRequest),
        // A SYN-ACK brings its ISN. A RST that refuses our SYN is of a peer that has none: its
        // sequence number stands for it.
        Context::SynSent { dst } => {
            let src = Isn(seq);
            Ok((Isns { src, dst }, Sne(0)))
        }
        Context::Request(numbers) | Context::Paired(numbers) | Context::TimeWait(numbers) => {
            Ok((numbers.isns, sne_at(numbers.basis, numbers.basis_seq, seq)))
        }
    }
}
