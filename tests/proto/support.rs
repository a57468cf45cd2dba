// SPDX-License-Identifier: GPL-2.0

//! What several tests share: a [`MacKey`] over RustCrypto crates, and short ways to write keys.

use std::cell::Cell;

use cmac::Cmac;
use hmac::Hmac;
use hmac::Mac;
use proptest::prelude::*;
use tcp_authopt::proto::addr::Addr;
use tcp_authopt::proto::addr::Endpoints;
use tcp_authopt::proto::addr::Prefix;
use tcp_authopt::proto::criteria::Criteria;
use tcp_authopt::proto::criteria::Pair;
use tcp_authopt::proto::criteria::Side;
use tcp_authopt::proto::mac::Algorithm;
use tcp_authopt::proto::mac::MacKey;
use tcp_authopt::proto::mac::MacState;
use tcp_authopt::proto::mkt::KeySpec;
use tcp_authopt::proto::mkt::Lifetime;
use tcp_authopt::proto::select::Candidate;
use tcp_authopt::proto::uapi::key_flag;
use tcp_authopt::proto::vrf::Given;
use tcp_authopt::proto::vrf::VrfId;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::MAC_LEN;

thread_local! {
    static SECRETS: Cell<i32> = const { Cell::new(0) };
    static ERASED: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// How many keys of this thread are set and not wiped.
pub fn secrets_alive() -> i32 {
    SECRETS.get()
}

/// What was erased last in this thread, as it was before.
pub fn last_erased() -> Option<Vec<u8>> {
    ERASED.take()
}

/// A key that can be looked at.
pub struct TestKey {
    /// What was set, last.
    pub set: Option<(Algorithm, Vec<u8>)>,
}

/// A MAC under way, its input collected.
pub struct TestState {
    input: Vec<u8>,
}

impl MacKey for TestKey {
    type State<'k> = TestState;

    fn empty() -> Self {
        Self { set: None }
    }

    fn set(&mut self, alg: Algorithm, key: &[u8]) {
        self.wipe();
        self.set = Some((alg, key.to_vec()));
        SECRETS.set(SECRETS.get() + 1);
    }

    fn mac<R>(&self, out: &mut [u8; 32], feed: impl FnOnce(&mut TestState) -> R) -> R {
        let mut state = TestState { input: Vec::new() };
        let fed = feed(&mut state);
        let (alg, key) = self.set.as_ref().expect("the key is set");
        let mac = match alg {
            Algorithm::HmacSha1_96 => mac_of::<Hmac<sha1::Sha1>>(key, &state.input),
            Algorithm::Aes128Cmac96 => mac_of::<Cmac<aes::Aes128>>(key, &state.input),
            Algorithm::HmacSha256_96 => mac_of::<Hmac<sha2::Sha256>>(key, &state.input),
        };
        *out = [0; 32];
        out[..mac.len()].copy_from_slice(&mac);
        fed
    }

    fn wipe(&mut self) {
        if self.set.take().is_some() {
            SECRETS.set(SECRETS.get() - 1);
        }
    }

    fn erase(secret: &mut [u8]) {
        ERASED.set(Some(secret.to_vec()));
        secret.fill(0);
    }
}

impl MacState for TestState {
    fn update(&mut self, data: &[u8]) {
        self.input.extend(data);
    }
}

fn mac_of<M: Mac + hmac::digest::KeyInit>(key: &[u8], input: &[u8]) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("a key of this length");
    mac.update(input);
    mac.finalize().into_bytes().to_vec()
}

/// The MAC that goes on the wire.
pub fn tag(key: &TestKey, head: &[u8], data: &[u8]) -> [u8; MAC_LEN] {
    let mut mac = [0; 32];
    key.mac(&mut mac, |state| {
        state.update(head);
        state.update(data);
    });
    mac[..MAC_LEN].try_into().unwrap()
}

/// The bytes that a string of hex digits stands for.
pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len() % 2 == 0);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// An address from its usual form.
pub fn addr(text: &str) -> Addr {
    match text.parse().expect("an IP address") {
        std::net::IpAddr::V4(v4) => Addr::v4(v4.octets()),
        std::net::IpAddr::V6(v6) => Addr::v6(v6.octets()),
    }
}

/// A prefix from `ADDRESS/LENGTH`.
pub fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').expect("a slash");
    Prefix::new(addr(address), len.parse().unwrap()).expect("no host bits")
}

/// A connection as its socket has it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// To an IPv6 socket an IPv4 peer is `::ffff:a.b.c.d`.
    pub addr: Addr,
    /// The address of this end, of the same family.
    pub local: Addr,
    /// Of this end, and of the peer.
    pub ports: [u16; 2],
    /// 0 outside of VRFs.
    pub vrf: u32,
}

impl Seen {
    pub fn pair(&self) -> Pair {
        let ends = Endpoints {
            src: self.local,
            dst: self.addr,
            src_port: self.ports[0],
            dst_port: self.ports[1],
        };
        let side = Side {
            socket: self.addr.family(),
            vrf: VrfId(self.vrf),
        };
        let pair = Pair::of_sent(&ends, side);
        let ends = Endpoints {
            src: ends.dst,
            dst: ends.src,
            src_port: ends.dst_port,
            dst_port: ends.src_port,
        };
        assert_eq!(Pair::of_received(&ends, side), pair);
        pair
    }
}

/// A peer outside of VRFs.
pub fn peer(text: &str) -> Seen {
    let addr = addr(text);
    Seen {
        addr,
        local: addr,
        ports: [1024, 179],
        vrf: 0,
    }
}

/// Criteria that every connection matches.
pub const ANY: Criteria = Criteria {
    vrf: None,
    remote: None,
    local: None,
    port: None,
};

/// A key for anybody, always valid.
pub fn key(send_id: u8, recv_id: u8) -> KeySpec {
    KeySpec {
        flags: 0,
        send_id: KeyId(send_id),
        recv_id: KeyId(recv_id),
        alg: Algorithm::HmacSha1_96,
        key_len: 3,
        criteria: ANY,
        vrf: Given::Any,
        mapped: false,
        send_lifetime: Lifetime::default(),
        recv_lifetime: Lifetime::default(),
    }
}

/// Short ways to change a key.
pub trait With {
    fn flags(self, flags: u32) -> Self;
    fn remote(self, prefix_text: &str) -> Self;
    fn local(self, prefix_text: &str) -> Self;
    fn port(self, port: u16) -> Self;
    fn vrf(self, id: u32) -> Self;
    fn send(self, begin: impl Into<Option<u64>>, end: impl Into<Option<u64>>) -> Self;
    fn recv(self, begin: impl Into<Option<u64>>, end: impl Into<Option<u64>>) -> Self;
}

impl With for KeySpec {
    fn flags(mut self, flags: u32) -> Self {
        self.flags |= flags;
        self
    }

    fn remote(mut self, prefix_text: &str) -> Self {
        self.criteria.remote = Some(prefix(prefix_text));
        self.flags(key_flag::ADDR_BIND | key_flag::PREFIXLEN)
    }

    fn local(mut self, prefix_text: &str) -> Self {
        self.criteria.local = Some(prefix(prefix_text));
        self.flags(key_flag::LOCAL_ADDR | key_flag::LOCAL_PREFIXLEN)
    }

    fn port(mut self, port: u16) -> Self {
        self.criteria.port = Some(port);
        self.flags(key_flag::SERVICE_PORT)
    }

    fn vrf(mut self, id: u32) -> Self {
        self.criteria.vrf = Some(VrfId(id));
        self.flags(key_flag::IFINDEX)
    }

    fn send(mut self, begin: impl Into<Option<u64>>, end: impl Into<Option<u64>>) -> Self {
        self.send_lifetime = Lifetime {
            begin: begin.into(),
            end: end.into(),
        };
        self
    }

    fn recv(mut self, begin: impl Into<Option<u64>>, end: impl Into<Option<u64>>) -> Self {
        self.recv_lifetime = Lifetime {
            begin: begin.into(),
            end: end.into(),
        };
        self
    }
}

/// A key in a set; keys later in the slice are newer.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    pub index: usize,
    pub spec: &'a KeySpec,
}

impl Candidate for Entry<'_> {
    fn spec(&self) -> &KeySpec {
        self.spec
    }

    fn serial(&self) -> u64 {
        self.index as u64
    }
}

/// The keys of `keys`, as candidates.
pub fn entries(keys: &[KeySpec]) -> impl Iterator<Item = Entry<'_>> + Clone {
    keys.iter()
        .enumerate()
        .map(|(index, spec)| Entry { index, spec })
}

/// Addresses that have many prefixes in common.
pub fn any_addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(a, b)| Addr::v4([10, a << 6, 0, b])),
        (0..4u8, 0..4u8).prop_map(|(a, b)| {
            let mut bytes = [0; 16];
            bytes[0] = 0xfd;
            bytes[7] = a << 6;
            bytes[15] = b;
            Addr::v6(bytes)
        }),
        (0..4u8).prop_map(|a| addr(&format!("::ffff:10.0.0.{a}"))),
    ]
}

/// Keys of few ids, times and places, so that they meet often.
pub fn any_key() -> impl Strategy<Value = KeySpec> {
    let place = |weight| proptest::option::weighted(weight, (any_addr(), 0..=128u8));
    let port = proptest::option::weighted(0.3, 1..4u16);
    let criteria = (place(0.7), place(0.3), port);
    let vrf = proptest::option::of(0..3u32);
    let lifetime = || {
        let times = (
            proptest::option::of(0..20u64),
            proptest::option::of(0..20u64),
        );
        times.prop_map(|(begin, end)| Lifetime {
            begin,
            end: end.map(|end| end.max(begin.unwrap_or(0))),
        })
    };
    let flags = 0..64u32;
    (0..4u8, 0..4u8, criteria, vrf, lifetime(), lifetime(), flags).prop_map(
        |(send_id, recv_id, criteria, vrf, send_lifetime, recv_lifetime, flags)| {
            // One in four is NOSEND, one in four NORECV.
            let unused = [key_flag::NOSEND, key_flag::NORECV, 0, 0];
            let mut spec = key(send_id, recv_id).flags(unused[flags as usize % 4]);
            let (remote, local, port) = criteria;
            let prefix = |(addr, len)| Prefix::around(addr, len);
            spec.criteria = Criteria {
                vrf: vrf.map(VrfId),
                remote: remote.map(prefix),
                local: local.map(prefix),
                port,
            };
            spec.send_lifetime = send_lifetime;
            spec.recv_lifetime = recv_lifetime;
            spec
        },
    )
}

/// Connections in the places of [`any_key`].
pub fn any_peer() -> impl Strategy<Value = Seen> {
    let local = any_addr().prop_filter("an address", |addr| !addr.is_unspecified());
    let ports = [1..5u16, 1..5u16];
    let seen = (any_addr(), local, ports, 0..3u32).prop_map(|(addr, local, ports, vrf)| Seen {
        addr,
        local,
        ports,
        vrf,
    });
    seen.prop_filter("one family", |it| it.addr.family() == it.local.family())
}
