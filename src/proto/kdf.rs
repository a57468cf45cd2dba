// SPDX-License-Identifier: GPL-2.0

//! Traffic keys (RFC 5925 5.2, RFC 5926 3.1).

use super::addr::Endpoints;
use super::mac::Algorithm;
use super::mac::MacKey;
use super::mac::MacState;
use super::wire::Isn;

/// Key length of AES-128.
const AES_KEY_LEN: usize = 16;

/// The initial sequence numbers that a traffic key is made for, in the segment's direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isns {
    /// The sender's.
    pub src: Isn,
    /// The receiver's; 0 for a SYN without ACK, whose sender cannot know it (RFC 5925 5.2).
    pub dst: Isn,
}

/// Derives the traffic key of `master` for one direction of a connection, prepared in `out`.
///
/// The master key has any length, zero too. IPv4-mapped addresses count as IPv4.
pub fn traffic_key<K: MacKey>(
    alg: Algorithm,
    master: &[u8],
    ends: &Endpoints,
    isns: Isns,
    out: &mut K,
) {
    let mut prf = K::empty();
    let mut buf = [0; 32];
    if alg == Algorithm::Aes128Cmac96 && master.len() != AES_KEY_LEN {
        // RFC 5926 3.1.1.2, R36: any other length is first extracted with a key of zeros.
        prf.set(alg, &[0; AES_KEY_LEN]);
        prf.mac(&mut buf, |state| state.update(master));
        prf.set(alg, significant(alg, &buf));
    } else {
        prf.set(alg, master);
    }

    // RFC 5926 3.1.1, R35, R38: PRF(Master_Key, i || Label || Context || Output_Length), with i = 1 only,
    // for no algorithm needs more than one block of its PRF.
    let output_bits = alg.traffic_key_len() as u16 * 8;
    prf.mac(&mut buf, |state| {
        let mut input = Gathered::new(state);
        input.add(b"\x01TCP-AO");
        input.add(ends.src.unmapped().octets());
        input.add(ends.dst.unmapped().octets());
        input.add(&ends.src_port.to_be_bytes());
        input.add(&ends.dst_port.to_be_bytes());
        input.add(&isns.src.0.to_be_bytes());
        input.add(&isns.dst.0.to_be_bytes());
        input.add(&output_bits.to_be_bytes());
        input.hash();
    });
    out.set(alg, significant(alg, &buf));

    K::erase(&mut buf);
    prf.wipe();
}

/// What a MAC is to be computed over, which comes in small pieces: to hash each for itself costs more
/// than its bytes do.
struct Gathered<'s, S> {
    state: &'s mut S,
    // All of an IPv4 connection's, and two parts of an IPv6 one's.
    buf: [u8; 32],
    len: usize,
}

impl<'s, S: MacState> Gathered<'s, S> {
    fn new(state: &'s mut S) -> Self {
        Self {
            state,
            buf: [0; 32],
            len: 0,
        }
    }

    fn add(&mut self, piece: &[u8]) {
        let free = self.buf.get_mut(self.len..);
        match free.and_then(|free| free.get_mut(..piece.len())) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.len = self.len.saturating_add(piece.len());
            }
            None => {
                self.hash();
                self.state.update(piece);
            }
        }
    }

    /// Hashes what has come since the last time.
    fn hash(&mut self) {
        self.state.update(self.buf.get(..self.len).unwrap_or(&[]));
        self.len = 0;
    }
}

/// The part of a finished MAC that is not padding.
fn significant(alg: Algorithm, mac: &[u8; 32]) -> &[u8] {
    mac.get(..alg.traffic_key_len()).unwrap_or(mac)
}
