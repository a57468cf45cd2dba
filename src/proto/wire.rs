// SPDX-License-Identifier: GPL-2.0

//! TCP headers and their authentication options (RFC 9293 3.1, RFC 5925 2.2).

/// Option kind of TCP-AO (RFC 5925 2.2).
pub const AO_KIND: u8 = 29;
/// Length of our TCP-AO option: kind, length, KeyID, RNextKeyID, MAC.
pub const AO_LEN: usize = AO_FIXED_LEN + MAC_LEN;
/// Bytes of a MAC: all our algorithms truncate to 96 bits (RFC 5926 3.2).
pub const MAC_LEN: usize = 12;
/// Longest TCP header.
pub const MAX_HEADER_LEN: usize = 60;

/// Bytes of a TCP-AO option before its MAC.
pub(super) const AO_FIXED_LEN: usize = 4;
/// Bytes of a TCP header before its options.
pub(super) const FIXED_LEN: usize = 20;

/// Option kind of TCP MD5 signatures (RFC 2385).
const MD5_KIND: u8 = 19;
const MD5_LEN: usize = 18;
const EOL_KIND: u8 = 0;
const NOP_KIND: u8 = 1;

const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

/// A KeyID or RNextKeyID. All 256 values are valid, none is reserved (RFC 5925 3.1, R4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u8);

/// The two ids of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyIds {
    /// The key that signed it: the sender's `send_id`.
    pub keyid: KeyId,
    /// The key that its sender wants next: the sender's `recv_id`.
    pub rnext: KeyId,
}

/// An initial sequence number, host byte order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Isn(pub u32);

/// Why a segment cannot be one that an honest peer sent. It is dropped, keys or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The data offset is under 5 words or past the end of the bytes, or lengths disagree.
    HeaderLength,
    /// An option's length is under 2, is past the end of the header (R3), or is not that of MD5.
    OptionLength,
    /// A TCP-AO option shorter than 4 (RFC 5925 2.2, R3).
    AoLength,
    /// TCP-AO and MD5 in one segment (RFC 5925 2.2, R1).
    AoAndMd5,
    /// More than one TCP-AO option (RFC 5925 2.2, R2).
    TwoAo,
    /// More than one MD5 option.
    TwoMd5,
}

/// A TCP header: exactly the bytes that its data offset counts.
#[derive(Clone, Copy, Debug)]
pub struct TcpHeader<'a> {
    bytes: &'a [u8],
    fixed: &'a [u8; FIXED_LEN],
    options: &'a [u8],
}

impl<'a> TcpHeader<'a> {
    /// Finds the header at the start of `segment`, which may go on with data.
    ///
    /// # Errors
    ///
    /// [`Malformed::HeaderLength`] if the data offset and the number of bytes do not fit.
    pub fn parse(segment: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, _) = segment
            .split_first_chunk::<FIXED_LEN>()
            .ok_or(Malformed::HeaderLength)?;
        let header_len = usize::from(fixed[12] >> 4) * 4;
        let bytes = segment.get(..header_len).ok_or(Malformed::HeaderLength)?;
        let options = bytes.get(FIXED_LEN..).ok_or(Malformed::HeaderLength)?;
        Ok(Self {
            bytes,
            fixed,
            options,
        })
    }

    /// The whole header, options included: 20..=60 bytes.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The header before its options.
    pub const fn fixed(&self) -> &'a [u8; FIXED_LEN] {
        self.fixed
    }

    /// The options: 0..=40 bytes.
    pub const fn options(&self) -> &'a [u8] {
        self.options
    }

    /// Source port.
    pub const fn source(&self) -> u16 {
        u16::from_be_bytes([self.fixed[0], self.fixed[1]])
    }

    /// Destination port.
    pub const fn dest(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// Sequence number.
    pub const fn seq(&self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// SYN is set.
    pub const fn syn(&self) -> bool {
        self.fixed[13] & SYN != 0
    }

    /// ACK is set.
    pub const fn ack(&self) -> bool {
        self.fixed[13] & ACK != 0
    }

    /// It is a SYN without ACK, which opens a connection.
    pub const fn opens(&self) -> bool {
        self.syn() && !self.ack()
    }
}

/// The kind of MPTCP's options (RFC 8684 3), and in the upper half of the third byte its MP_JOIN.
const MPTCP_KIND: u8 = 30;
const MP_JOIN: u8 = 1;

/// Whether an MPTCP option asks to join a connection that there is (RFC 8684 3.2).
pub fn joins_mptcp(header: &TcpHeader<'_>) -> bool {
    let mut rest = header.options();
    while let [kind, after_kind @ ..] = rest {
        rest = match (*kind, after_kind) {
            (EOL_KIND, _) => break,
            (NOP_KIND, _) => after_kind,
            (MPTCP_KIND, [_, subtype, ..]) if subtype >> 4 == MP_JOIN => return true,
            (_, [len, ..]) => rest.get(usize::from(*len).max(1)..).unwrap_or(&[]),
            (_, []) => break,
        };
    }
    false
}

/// A TCP-AO option of the one length that our algorithms make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AoOption {
    /// Where its kind byte is, from the start of the TCP header.
    pub offset: usize,
    /// Its KeyID and RNextKeyID.
    pub ids: KeyIds,
    /// The MAC as received.
    pub mac: [u8; MAC_LEN],
}

impl AoOption {
    /// Writes an option with these ids and a MAC of zeros, the form in which it is hashed.
    pub fn emit(option: &mut [u8; AO_LEN], ids: KeyIds) {
        *option = [0; AO_LEN];
        option[0] = AO_KIND;
        option[1] = AO_LEN as u8;
        option[2] = ids.keyid.0;
        option[3] = ids.rnext.0;
    }
}

/// The authentication that a segment carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Neither TCP-AO nor MD5.
    None,
    /// An MD5 option.
    Md5,
    /// A TCP-AO option that may verify.
    Ao(AoOption),
    /// A TCP-AO option with a MAC of a length that none of our algorithms makes.
    AoOfOtherLength,
}

/// Walks the options of `header`, to their end or to End-of-Option-List.
///
/// # Errors
///
/// See [`Malformed`]. The walk is strict to the last byte: where an option that cannot be may hide
/// a second TCP-AO option, the segment is refused.
pub fn parse_auth(header: &TcpHeader<'_>) -> Result<Auth, Malformed> {
    let mut found = Auth::None;
    let mut rest = header.options();
    while let Some((&kind, after_kind)) = rest.split_first() {
        if kind == EOL_KIND {
            break;
        }
        if kind == NOP_KIND {
            rest = after_kind;
            continue;
        }
        let len = usize::from(*after_kind.first().ok_or(Malformed::OptionLength)?);
        if len < 2 {
            return Err(Malformed::OptionLength);
        }
        let (option, next) = rest.split_at_checked(len).ok_or(Malformed::OptionLength)?;
        found = match (kind, found) {
            (AO_KIND, Auth::None) => {
                parse_ao(option, header.bytes().len().saturating_sub(rest.len()))?
            }
            (AO_KIND, Auth::Md5) => return Err(Malformed::AoAndMd5),
            (AO_KIND, _) => return Err(Malformed::TwoAo),
            (MD5_KIND, Auth::None) if len == MD5_LEN => Auth::Md5,
            (MD5_KIND, Auth::None) => return Err(Malformed::OptionLength),
            (MD5_KIND, Auth::Md5) => return Err(Malformed::TwoMd5),
            (MD5_KIND, _) => return Err(Malformed::AoAndMd5),
            (_, found) => found,
        };
        rest = next;
    }
    Ok(found)
}

/// Reads the TCP-AO option that fills `option` and begins `offset` bytes into the header.
fn parse_ao(option: &[u8], offset: usize) -> Result<Auth, Malformed> {
    let (&[_, _, keyid, rnext], mac) = option
        .split_first_chunk::<AO_FIXED_LEN>()
        .ok_or(Malformed::AoLength)?;
    Ok(match mac.try_into() {
        Ok(mac) => Auth::Ao(AoOption {
            offset,
            ids: KeyIds {
                keyid: KeyId(keyid),
                rnext: KeyId(rnext),
            },
            mac,
        }),
        Err(_) => Auth::AoOfOtherLength,
    })
}
