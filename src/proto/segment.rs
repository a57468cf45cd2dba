// SPDX-License-Identifier: GPL-2.0

//! The bytes that a MAC covers (RFC 5925 5.1, R12).

use super::addr::Endpoints;
use super::addr::Family;
use super::sne::Sne;
use super::wire::Malformed;
use super::wire::TcpHeader;
use super::wire::AO_FIXED_LEN;
use super::wire::AO_LEN;
use super::wire::MAC_LEN;
use super::wire::MAX_HEADER_LEN;

/// SNE, IPv6 pseudo-header, longest TCP header.
const MAX_LEN: usize = 4 + 40 + MAX_HEADER_LEN;
/// IP protocol number of TCP.
const PROTO_TCP: u8 = 6;
/// Where a TCP header has its checksum.
const CHECKSUM_AT: usize = 16;
const CHECKSUM_LEN: usize = 2;

/// Which TCP options a MAC covers (RFC 5925 3.1, the TCP option flag; R8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covers {
    /// All of them, in the order of the segment.
    AllOptions,
    /// Only TCP-AO itself; the others are left out, not zeroed.
    AoOnly,
}

/// What a MAC covers before the data: SNE, pseudo-header, TCP header with options, with checksum
/// and MAC zeroed.
///
/// In one piece, so that one update hashes it all.
pub struct MacHead {
    buf: [u8; MAX_LEN],
    len: usize,
}

impl MacHead {
    /// Builds it for a segment whose TCP-AO option is `ao_offset` bytes into `header`.
    ///
    /// `segment_len` counts header and data, as in the pseudo-header. IPv4-mapped addresses count
    /// as IPv4. What checksum and MAC hold does not matter.
    ///
    /// # Errors
    ///
    /// [`Malformed::HeaderLength`] if the option is not all in the header, or if `segment_len` is
    /// over what IPv4 can carry.
    pub fn new(
        sne: Sne,
        ends: &Endpoints,
        header: &TcpHeader<'_>,
        ao_offset: usize,
        segment_len: u32,
        covers: Covers,
    ) -> Result<Self, Malformed> {
        let src = ends.src.unmapped();
        let mut head = Self {
            buf: [0; MAX_LEN],
            len: 0,
        };
        head.push(&sne.0.to_be_bytes())?;
        head.push(src.octets())?;
        head.push(ends.dst.unmapped().octets())?;
        match src.family() {
            Family::V4 => {
                let len = u16::try_from(segment_len).map_err(|_| Malformed::HeaderLength)?;
                head.push(&[0, PROTO_TCP])?;
                head.push(&len.to_be_bytes())?;
            }
            Family::V6 => {
                head.push(&segment_len.to_be_bytes())?;
                head.push(&[0, 0, 0, PROTO_TCP])?;
            }
        }

        match covers {
            Covers::AllOptions => {
                let header = head.push(header.bytes())?;
                zero(header, CHECKSUM_AT, CHECKSUM_LEN)?;
                zero(header, ao_offset.saturating_add(AO_FIXED_LEN), MAC_LEN)?;
            }
            Covers::AoOnly => {
                let ao = header
                    .bytes()
                    .get(ao_offset..)
                    .and_then(|rest| rest.first_chunk::<AO_LEN>())
                    .ok_or(Malformed::HeaderLength)?;
                zero(head.push(header.fixed())?, CHECKSUM_AT, CHECKSUM_LEN)?;
                zero(head.push(ao)?, AO_FIXED_LEN, MAC_LEN)?;
            }
        }
        Ok(head)
    }

    /// The bytes, to be hashed before the segment's data.
    pub fn bytes(&self) -> &[u8] {
        self.buf.get(..self.len).unwrap_or(&self.buf)
    }

    /// Appends `data`, and gives it back as it lies in the buffer.
    fn push(&mut self, data: &[u8]) -> Result<&mut [u8], Malformed> {
        let pushed = self
            .buf
            .get_mut(self.len..)
            .and_then(|free| free.get_mut(..data.len()))
            .ok_or(Malformed::HeaderLength)?;
        pushed.copy_from_slice(data);
        self.len = self.len.saturating_add(data.len());
        Ok(pushed)
    }
}

/// Clears `len` bytes of `bytes` from `at`.
fn zero(bytes: &mut [u8], at: usize, len: usize) -> Result<(), Malformed> {
    bytes
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..len))
        .ok_or(Malformed::HeaderLength)?
        .fill(0);
    Ok(())
}
