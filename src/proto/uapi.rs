// SPDX-License-Identifier: GPL-2.0

//! Numbers and layouts of the socket options: `include/uapi/linux/tcp_authopt.h`, which explains
//! them. Integers in host byte order.

/// Socket option `TCP_AUTHOPT`; `TCP_AO_ADD_KEY` of the kernel.
pub const TCP_AUTHOPT: i32 = 38;
/// Socket option `TCP_AUTHOPT_KEY`; `TCP_AO_DEL_KEY` of the kernel.
pub const TCP_AUTHOPT_KEY: i32 = 39;
/// Socket option `TCP_REPAIR_AUTHOPT`; `TCP_AO_INFO` of the kernel.
pub const TCP_REPAIR_AUTHOPT: i32 = 40;
/// The kernel's `TCP_AO_GET_KEYS`.
pub const TCP_AO_GET_KEYS: i32 = 41;
/// The kernel's `TCP_AO_REPAIR`.
pub const TCP_AO_REPAIR: i32 = 42;

/// Size of `struct tcp_authopt`.
pub const AUTHOPT_LEN: usize = 8;
/// Size of `struct tcp_authopt_key`.
pub const KEY_LEN: usize = 320;
/// Size of `struct tcp_repair_authopt`.
pub const REPAIR_LEN: usize = 24;
/// Longest master key.
pub const MAX_MASTER_KEY_LEN: usize = 80;

/// `TCP_AUTHOPT_FLAG_*`.
pub mod flag {
    /// Send with `send_keyid` rather than what the peer asks for.
    pub const LOCK_KEYID: u32 = 1 << 0;
    /// Ask for `send_rnextkeyid` rather than the best key to receive with.
    pub const LOCK_RNEXTKEYID: u32 = 1 << 1;
    /// Drop signed segments of peers that no key matches.
    pub const REJECT_UNEXPECTED: u32 = 1 << 2;
    /// Read only: the connection is protected.
    pub const ACTIVE: u32 = 1 << 3;
    /// Do not ignore ICMP errors once the connection is established.
    pub const ACCEPT_ICMP: u32 = 1 << 16;
    /// All of them.
    pub const KNOWN: u32 = LOCK_KEYID | LOCK_RNEXTKEYID | REJECT_UNEXPECTED | ACTIVE | ACCEPT_ICMP;
}

/// `TCP_AUTHOPT_KEY_*`.
pub mod key_flag {
    /// Delete rather than add.
    pub const DEL: u32 = 1 << 0;
    /// The MAC covers no option but TCP-AO.
    pub const EXCLUDE_OPTS: u32 = 1 << 1;
    /// `addr` is set: the key is for that peer only.
    pub const ADDR_BIND: u32 = 1 << 2;
    /// `ifindex` is set: the key is for that VRF only, or with 0 for none.
    pub const IFINDEX: u32 = 1 << 3;
    /// Not to send with.
    pub const NOSEND: u32 = 1 << 4;
    /// Not to receive with.
    pub const NORECV: u32 = 1 << 5;
    /// `prefixlen` is set: the key is for all peers in that prefix of `addr`.
    pub const PREFIXLEN: u32 = 1 << 6;
    /// `send_lifetime_begin` is set.
    pub const SEND_LIFETIME_BEGIN: u32 = 1 << 7;
    /// `send_lifetime_end` is set.
    pub const SEND_LIFETIME_END: u32 = 1 << 8;
    /// `recv_lifetime_begin` is set.
    pub const RECV_LIFETIME_BEGIN: u32 = 1 << 9;
    /// `recv_lifetime_end` is set.
    pub const RECV_LIFETIME_END: u32 = 1 << 10;
    /// Not a key, but a policy: connections that match must be protected.
    pub const REQUIRE: u32 = 1 << 16;
    /// Not a key, but a policy: connections that match need not be.
    pub const EXEMPT: u32 = 1 << 17;
    /// With `REQUIRE`: the kernel's own TCP-AO does not do.
    pub const STRICT: u32 = 1 << 18;
    /// With `REQUIRE`: connections heed ICMP errors.
    pub const ACCEPT_ICMP: u32 = 1 << 19;
    /// `local` is set: the key is for connections of that address of this end only.
    pub const LOCAL_ADDR: u32 = 1 << 20;
    /// `local_prefixlen` is set: the key is for all addresses in that prefix of `local`.
    pub const LOCAL_PREFIXLEN: u32 = 1 << 21;
    /// `service_port` is set: the key is for connections of which either end has that port.
    pub const SERVICE_PORT: u32 = 1 << 22;
    /// `vrf` is set: the key is for the VRF of that name only.
    pub const VRF_NAME: u32 = 1 << 23;
    /// What criteria are made of.
    pub const CRITERIA: u32 =
        ADDR_BIND | IFINDEX | PREFIXLEN | LOCAL_ADDR | LOCAL_PREFIXLEN | SERVICE_PORT | VRF_NAME;
    /// What makes an entry a policy, and of which kind.
    pub const POLICY: u32 = REQUIRE | EXEMPT | STRICT | ACCEPT_ICMP;
    /// All of them.
    pub const KNOWN: u32 = ((1 << 11) - 1) | CRITERIA | POLICY;
}

/// Offsets in `struct tcp_authopt_key`. Its first 8 bytes are the flags and four single bytes.
pub(super) mod key_at {
    /// The master key, 80 bytes.
    pub const KEY: usize = 8;
    /// A `sockaddr_storage`, 128 bytes: the family, host byte order, is its first two.
    pub const ADDR: usize = 88;
    /// The address of a `sockaddr_in`, after the port.
    pub const ADDR_V4: usize = ADDR + 4;
    /// The address of a `sockaddr_in6`, after port and flow label.
    pub const ADDR_V6: usize = ADDR + 8;
    pub const IFINDEX: usize = 216;
    pub const PREFIXLEN: usize = 220;
    pub const SEND_LIFETIME_BEGIN: usize = 224;
    pub const SEND_LIFETIME_END: usize = 232;
    pub const RECV_LIFETIME_BEGIN: usize = 240;
    pub const RECV_LIFETIME_END: usize = 248;
    /// An address, IPv4 in the first 4 bytes, of the family that `ADDR` has.
    pub const LOCAL: usize = 256;
    pub const LOCAL_PREFIXLEN: usize = 272;
    pub const SERVICE_PORT: usize = 276;
    /// Zero: 2 bytes, and 24.
    pub const RESERVED: [core::ops::Range<usize>; 2] = [278..280, 296..320];
    /// A name, padded with zeros.
    pub const VRF: usize = 280;
}

/// The `N` bytes of `buf` from `at`; zeros if it is shorter.
pub(super) fn field<const N: usize>(buf: &[u8], at: usize) -> [u8; N] {
    buf.get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or([0; N])
}
