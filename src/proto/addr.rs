// SPDX-License-Identifier: GPL-2.0

//! Addresses, prefixes, and the two ends of a segment.

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

impl Family {
    /// The family of a socket API number (`AF_INET` 2, `AF_INET6` 10); `None` for any other.
    pub const fn from_af(af: u16) -> Option<Self> {
        match af {
            2 => Some(Self::V4),
            10 => Some(Self::V6),
            _ => None,
        }
    }

    /// Bits of an address: 32 or 128, which is also the longest prefix.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The length of a prefix of this family, as one of IPv6 addresses, among which those of IPv4
    /// are mapped.
    pub const fn mapped_len(self, len: u8) -> u8 {
        match self {
            Self::V4 => MAPPED_LEN + len,
            Self::V6 => len,
        }
    }
}

/// The prefix `::ffff:0:0/96` of IPv4-mapped IPv6 addresses (RFC 4291 2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Bits of [`MAPPED`].
const MAPPED_LEN: u8 = 96;

/// An IP address in network byte order.
///
/// # Invariants
///
/// An IPv4 address is in the first 4 bytes and the rest is zero, so that equal addresses are equal
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr {
    family: Family,
    bytes: [u8; 16],
}

impl Addr {
    /// The IPv4 address of these bytes.
    pub const fn v4([a, b, c, d]: [u8; 4]) -> Self {
        Self {
            family: Family::V4,
            bytes: [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The IPv6 address of these bytes.
    pub const fn v6(bytes: [u8; 16]) -> Self {
        Self {
            family: Family::V6,
            bytes,
        }
    }

    /// The family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The address as it goes on the wire: 4 or 16 bytes.
    pub fn octets(&self) -> &[u8] {
        match self.family {
            Family::V4 => &self.bytes[..4],
            Family::V6 => &self.bytes,
        }
    }

    /// All 16 bytes; those past an IPv4 address are zero.
    pub const fn padded(&self) -> &[u8; 16] {
        &self.bytes
    }

    /// Whether it is `0.0.0.0` or `::`, which stand for any address, or for none.
    pub fn is_unspecified(&self) -> bool {
        self.bytes == [0; 16]
    }

    /// The address as a number, its first bit the highest; an IPv4 address is in the upper 32.
    pub fn to_bits(self) -> u128 {
        u128::from_be_bytes(self.bytes)
    }

    /// The IPv4 address that `::ffff:a.b.c.d` stands for; any other address unchanged.
    ///
    /// On the wire such a connection is IPv4, so that is what its KDF and pseudo-header see.
    pub fn unmapped(&self) -> Self {
        match (self.family, self.bytes.split_last_chunk::<4>()) {
            (Family::V6, Some((prefix, v4))) if *prefix == MAPPED => Self::v4(*v4),
            _ => *self,
        }
    }

    /// The reverse: `::ffff:a.b.c.d` for an IPv4 address; any other address unchanged.
    pub fn mapped(&self) -> Self {
        let [a, b, c, d, ..] = self.bytes;
        match self.family {
            Family::V4 => Self::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]),
            Family::V6 => *self,
        }
    }

    /// The address with all bits past the first `len` cleared.
    pub fn masked(&self, len: u8) -> Self {
        let past = u128::MAX.checked_shr(len.into()).unwrap_or(0);
        Self {
            bytes: (self.to_bits() & !past).to_be_bytes(),
            ..*self
        }
    }
}

/// An address prefix. One of IPv4-mapped addresses is one of IPv4: `::ffff:192.0.2.0/120` and
/// `192.0.2.0/24` are equal.
///
/// # Invariants
///
/// The length is at most that of the family, no bit past it is set, and an IPv6 prefix of mapped
/// addresses only, which is 96 bits long or longer, does not occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: Addr,
    len: u8,
}

impl Prefix {
    /// A prefix; `None` if `len` is over the family's length, or if a bit past it is set.
    pub fn new(addr: Addr, len: u8) -> Option<Self> {
        (len <= addr.family.bits() && addr.masked(len) == addr).then(|| Self::around(addr, len))
    }

    /// The prefix of that length around `addr`; one over the family's length means all of it.
    pub fn around(addr: Addr, len: u8) -> Self {
        let (addr, len) = (addr.masked(len), len.min(addr.family.bits()));
        match (addr.unmapped(), len.checked_sub(MAPPED_LEN)) {
            (v4, Some(len)) if v4 != addr => Self { addr: v4, len },
            _ => Self { addr, len },
        }
    }

    /// Its first address.
    pub const fn addr(&self) -> Addr {
        self.addr
    }

    /// Its length in bits.
    pub const fn prefixlen(&self) -> u8 {
        self.len
    }
}

/// The two ends of a segment, in the direction that it travels.
///
/// Both addresses are of one family, as in any packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The sender's address.
    pub src: Addr,
    /// The receiver's address.
    pub dst: Addr,
    /// The sender's port, host byte order.
    pub src_port: u16,
    /// The receiver's port, host byte order.
    pub dst_port: u16,
}
