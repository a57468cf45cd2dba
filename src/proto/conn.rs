// SPDX-License-Identifier: GPL-2.0

//! What a protected connection makes of its ids and sequence numbers.

use super::kdf::Isns;
use super::sne::sne_at;
use super::sne::Sne;
use super::sockopt::SockFlags;
use super::wire::Isn;
use super::wire::KeyId;
use super::wire::TcpHeader;

/// The two ids of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyIds {
    /// The key that signed it.
    pub keyid: KeyId,
    /// The key that its sender wants next.
    pub rnext: KeyId,
}

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
/// [`super::select::rnext_key`] chose, else of the key that signs.
pub fn rnext_id(flags: &SockFlags, chosen: Option<KeyId>, of_send_key: KeyId) -> KeyId {
    flags.lock_rnext.or(chosen).unwrap_or(of_send_key)
}

/// Seconds without a key to send with after which a socket that asked for protection is told of it,
/// if the namespace has not said how many: it asked, and wants to know.
const GRACE_OF_WHO_ASKED: u32 = 0;

/// Whether a connection without a key to send with is told so now, that a segment is due.
///
/// `grace`: `net.ipv4.tcp_authopt_no_key_grace`, in seconds, negative for what suits the socket.
/// `since`: when the first segment was due for which there was none. Times are in nanoseconds of a
/// clock that nobody sets.
pub fn lack_is_told(grace: i32, since: u64, now: u64) -> bool {
    const SECOND: u64 = 1_000_000_000;
    let grace = u32::try_from(grace).unwrap_or(GRACE_OF_WHO_ASKED);
    now.saturating_sub(since) >= u64::from(grace) * SECOND
}

/// What is known of the connection of a segment, in the direction that the segment travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A listener, and no request socket: nothing is known.
    Listen,
    /// The sender's ISN is not known, the receiver's is: SYN-SENT, on receipt.
    SynSent {
        /// The receiver's ISN.
        dst: Isn,
    },
    /// Both ISNs are known: a request socket, and every other state, TIME-WAIT too.
    Paired {
        /// Both ISNs.
        isns: Isns,
        /// SNE of `basis_seq`.
        basis: Sne,
        /// A sequence number of the sender's within 2^31 of the segment's: RCV.NXT on receipt,
        /// SND.UNA to send; in a request, with SNE 0, the sender's ISN.
        basis_seq: u32,
    },
}

/// The ISNs that the traffic key of a segment is made for, and the SNE that its MAC covers
/// (RFC 5925 5.2, 6.2; R13).
///
/// A SYN without ACK stands for itself in every state, retransmitted or new: its own ISN, none of
/// the receiver's, SNE 0. `None` if they cannot be known, since a listener gets another segment, and
/// has no request that it belongs to. It is dropped, and nothing is computed for it: nor for the ACK
/// of a SYN cookie, see [`super::verdict::child`].
pub fn isns_and_sne(context: Context, header: &TcpHeader<'_>) -> Option<(Isns, Sne)> {
    let seq = header.seq();
    if header.syn() && !header.ack() {
        let isns = Isns {
            src: Isn(seq),
            dst: Isn(0),
        };
        return Some((isns, Sne(0)));
    }
    let (isns, basis, basis_seq) = match context {
        Context::Listen => return None,
        // A SYN-ACK brings its ISN. A RST that refuses our SYN is of a peer that has none: its
        // sequence number stands for it.
        Context::SynSent { dst } => {
            let src = Isn(seq);
            (Isns { src, dst }, Sne(0), seq)
        }
        Context::Paired {
            isns,
            basis,
            basis_seq,
        } => (isns, basis, basis_seq),
    };
    Some((isns, sne_at(basis, basis_seq, seq)))
}
