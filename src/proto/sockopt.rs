// SPDX-License-Identifier: GPL-2.0

//! Whose a socket option is, and `TCP_AUTHOPT` and `TCP_REPAIR_AUTHOPT`. `TCP_AUTHOPT_KEY` is in
//! [`super::mkt`].

use super::error::Error;
use super::sne::Sne;
use super::uapi;
use super::uapi::field;
use super::uapi::flag;
use super::wire::Isn;
use super::wire::KeyId;
use super::wire::KeyIds;

/// Which TCP-AO state a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The kernel's.
    Native,
    /// Ours.
    Ours,
    /// None.
    Neither,
}

/// Who answers a socket option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The kernel.
    Kernel,
    /// We, once the sysctl is on.
    Ours,
    /// Nobody: `ENOPROTOOPT`.
    NoProtoOpt,
}

/// Size of the kernel's `struct tcp_ao_add`: the least that its option 38 takes.
pub const NATIVE_ADD_KEY_LEN: usize = 288;
/// Size of the kernel's `struct tcp_ao_del`, option 39.
pub const NATIVE_DEL_KEY_LEN: usize = 144;
/// Size of the kernel's `struct tcp_ao_info_opt`, option 40.
pub const NATIVE_INFO_LEN: usize = 48;

/// The longest value of options 38 and 39 that is read, if only to see that the rest is zero: a
/// page, as with system calls whose structures grow. What is longer is ours, and refused.
pub const MAX_OPTLEN: usize = 4096;

/// Whether the value has to be read to tell whose a `setsockopt()` is: whether any byte after the
/// first 8 is set. Only the kernel's option 38 has that many that can be.
pub fn value_decides(optname: i32, optlen: usize, owner: Owner) -> bool {
    owner == Owner::Neither
        && optname == uapi::TCP_AUTHOPT
        && (NATIVE_ADD_KEY_LEN..=MAX_OPTLEN).contains(&optlen)
}

/// Who answers a `setsockopt()` at level `IPPROTO_TCP`.
///
/// `nonzero_past_8` matters only where [`value_decides`].
pub fn route_set(optname: i32, optlen: usize, nonzero_past_8: bool, owner: Owner) -> Route {
    let native_form = match optname {
        uapi::TCP_AUTHOPT => value_decides(optname, optlen, owner) && nonzero_past_8,
        uapi::TCP_AUTHOPT_KEY => optlen == NATIVE_DEL_KEY_LEN,
        _ => optlen >= NATIVE_INFO_LEN,
    };
    route(optname, native_form, owner)
}

/// Who answers a `getsockopt()` at level `IPPROTO_TCP`, `optlen` being what the caller offers.
pub fn route_get(optname: i32, optlen: usize, owner: Owner) -> Route {
    if optname == uapi::TCP_AUTHOPT_KEY && owner != Owner::Native {
        // Keys cannot be read back, and the kernel has no such option to get.
        return Route::NoProtoOpt;
    }
    let native_form = optname != uapi::TCP_AUTHOPT && optlen >= NATIVE_INFO_LEN;
    route(optname, native_form, owner)
}

/// `native_form`: the option has a length and content that only the kernel's has.
fn route(optname: i32, native_form: bool, owner: Owner) -> Route {
    match (optname, owner) {
        (_, Owner::Native) => Route::Kernel,
        (uapi::TCP_AUTHOPT..=uapi::TCP_REPAIR_AUTHOPT, Owner::Neither) if native_form => {
            Route::Kernel
        }
        (uapi::TCP_AUTHOPT..=uapi::TCP_REPAIR_AUTHOPT, _) => Route::Ours,
        (uapi::TCP_AO_GET_KEYS | uapi::TCP_AO_REPAIR, Owner::Ours) => Route::NoProtoOpt,
        _ => Route::Kernel,
    }
}

/// What `TCP_AUTHOPT` sets on a socket. An accepted socket inherits it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SockFlags {
    /// The key to send with rather than what the peer asks for, by its `send_id`.
    pub lock_keyid: Option<KeyId>,
    /// The key to ask the peer for, by its `recv_id`.
    pub lock_rnext: Option<KeyId>,
    /// Drop signed segments of peers that no key matches.
    pub reject_unexpected: bool,
    /// Do not ignore ICMP errors once a connection is established (RFC 5925 7.8, R31).
    pub accept_icmp: bool,
}

impl SockFlags {
    /// Reads a `struct tcp_authopt`.
    ///
    /// `ACTIVE` is ignored. An id is read only with its `LOCK` flag; `recv_*` are not: see
    /// [`ids_received`].
    ///
    /// # Errors
    ///
    /// [`Error::Inval`] for an unknown flag.
    pub fn parse(authopt: &[u8; uapi::AUTHOPT_LEN]) -> Result<Self, Error> {
        let [a, b, c, d, send_keyid, send_rnextkeyid, _, _] = *authopt;
        let flags = u32::from_ne_bytes([a, b, c, d]);
        if flags & !flag::KNOWN != 0 {
            return Err(Error::Inval);
        }
        let set = |flag| flags & flag != 0;
        Ok(Self {
            lock_keyid: set(flag::LOCK_KEYID).then_some(KeyId(send_keyid)),
            lock_rnext: set(flag::LOCK_RNEXTKEYID).then_some(KeyId(send_rnextkeyid)),
            reject_unexpected: set(flag::REJECT_UNEXPECTED),
            accept_icmp: set(flag::ACCEPT_ICMP),
        })
    }

    /// The `struct tcp_authopt` that is read back: these flags, whether the connection is
    /// protected, and the ids of the last segment sent and of the last valid one received (RFC 5925
    /// 7.1, R20; 0 where there was none).
    pub fn emit(&self, active: bool, sent: KeyIds, received: KeyIds) -> [u8; uapi::AUTHOPT_LEN] {
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let flags = flag(self.lock_keyid.is_some(), flag::LOCK_KEYID)
            | flag(self.lock_rnext.is_some(), flag::LOCK_RNEXTKEYID)
            | flag(self.reject_unexpected, flag::REJECT_UNEXPECTED)
            | flag(self.accept_icmp, flag::ACCEPT_ICMP)
            | flag(active, flag::ACTIVE);
        let [a, b, c, d] = flags.to_ne_bytes();
        let [send_keyid, send_rnextkeyid] = [sent.keyid.0, sent.rnext.0];
        let [recv_keyid, recv_rnextkeyid] = [received.keyid.0, received.rnext.0];
        [
            a,
            b,
            c,
            d,
            send_keyid,
            send_rnextkeyid,
            recv_keyid,
            recv_rnextkeyid,
        ]
    }
}

/// The ids of the last segment that a connection has received, of a `struct tcp_authopt` that was
/// read from it. `None` if it was not read from a protected connection.
pub fn ids_received(authopt: &[u8; uapi::AUTHOPT_LEN]) -> Option<KeyIds> {
    let [a, b, c, d, _, _, recv_keyid, recv_rnextkeyid] = *authopt;
    let flags = u32::from_ne_bytes([a, b, c, d]);
    (flags & flag::ACTIVE != 0).then_some(KeyIds {
        keyid: KeyId(recv_keyid),
        rnext: KeyId(recv_rnextkeyid),
    })
}

/// `struct tcp_repair_authopt`: what a connection needs to go on in another kernel.
///
/// Each SNE is that of the sequence number beside it; [`super::sne::sne_at`] takes it on from
/// there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Our ISN.
    pub src_isn: Isn,
    /// The peer's ISN.
    pub dst_isn: Isn,
    /// SNE of `snd_seq`.
    pub snd_sne: Sne,
    /// SNE of `rcv_seq`.
    pub rcv_sne: Sne,
    /// A sequence number of ours within 2^31 of the next to be sent.
    pub snd_seq: u32,
    /// A sequence number of the peer's within 2^31 of the next expected.
    pub rcv_seq: u32,
}

impl Repair {
    /// Reads the struct. Any content is valid.
    pub fn parse(buf: &[u8; uapi::REPAIR_LEN]) -> Self {
        let word = |index: usize| u32::from_ne_bytes(field(buf, index * 4));
        Self {
            src_isn: Isn(word(0)),
            dst_isn: Isn(word(1)),
            snd_sne: Sne(word(2)),
            rcv_sne: Sne(word(3)),
            snd_seq: word(4),
            rcv_seq: word(5),
        }
    }

    /// Writes the struct.
    pub fn emit(&self) -> [u8; uapi::REPAIR_LEN] {
        let words = [
            self.src_isn.0,
            self.dst_isn.0,
            self.snd_sne.0,
            self.rcv_sne.0,
            self.snd_seq,
            self.rcv_seq,
        ];
        let mut buf = [0; uapi::REPAIR_LEN];
        for (bytes, word) in buf.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        buf
    }
}
