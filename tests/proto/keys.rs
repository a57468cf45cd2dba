// SPDX-License-Identifier: GPL-2.0

//! `TCP_AUTHOPT_KEY`: what is refused and in which order, identity, overlap, replacement, and the
//! rows of /proc.

use proptest::prelude::*;
use tcp_authopt::proto::addr::Family;
use tcp_authopt::proto::criteria::Criteria;
use tcp_authopt::proto::error::Error;
use tcp_authopt::proto::mac::Algorithm;
use tcp_authopt::proto::mkt::Identity;
use tcp_authopt::proto::mkt::KeySpec;
use tcp_authopt::proto::mkt::Lifetime;
use tcp_authopt::proto::request::parse;
use tcp_authopt::proto::request::Request;
use tcp_authopt::proto::segment::Covers;
use tcp_authopt::proto::show;
use tcp_authopt::proto::uapi::key_flag::*;
use tcp_authopt::proto::uapi::KEY_LEN;
use tcp_authopt::proto::vrf::Given;
use tcp_authopt::proto::vrf::Name;
use tcp_authopt::proto::vrf::VrfId;
use tcp_authopt::proto::wire::KeyId;

use crate::support::any_key;
use crate::support::key;
use crate::support::prefix;
use crate::support::With;
use crate::support::ANY;

const RED: VrfId = VrfId(70);

/// A `struct tcp_authopt_key`: send_id 12, recv_id 23, algorithm 1, key "abc", bound to nothing.
#[derive(Clone)]
struct Raw([u8; KEY_LEN]);

impl Raw {
    fn new(flags: u32) -> Self {
        let raw = Self([0; KEY_LEN]).put(0, &flags.to_ne_bytes());
        raw.put(4, &[12, 23, 1, 3]).put(8, b"abc")
    }

    fn put(mut self, at: usize, bytes: &[u8]) -> Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn alg(self, alg: u8) -> Self {
        self.put(6, &[alg])
    }

    fn keylen(self, keylen: u8) -> Self {
        self.put(7, &[keylen])
    }

    fn family(self, family: u16) -> Self {
        self.put(88, &family.to_ne_bytes())
    }

    /// A `sockaddr_in`, port and all.
    fn v4(self, octets: [u8; 4]) -> Self {
        self.family(2).put(90, &[0, 179]).put(92, &octets)
    }

    /// A `sockaddr_in6`, with port, flow label and scope.
    fn v6(self, segments: [u16; 8]) -> Self {
        let octets: Vec<u8> = segments.iter().flat_map(|s| s.to_be_bytes()).collect();
        let raw = self.family(10).put(90, &[0, 179, 1, 2, 3, 4]);
        raw.put(96, &octets).put(112, &[5, 6, 7, 8])
    }

    fn ifindex(self, ifindex: i32) -> Self {
        self.put(216, &ifindex.to_ne_bytes())
    }

    fn prefixlen(self, prefixlen: i32) -> Self {
        self.put(220, &prefixlen.to_ne_bytes())
    }

    fn times(self, times: [u64; 4]) -> Self {
        let bytes: Vec<u8> = times.iter().flat_map(|t| t.to_ne_bytes()).collect();
        self.put(224, &bytes)
    }

    /// An address of this end, after that of the peer has said which family.
    fn local(self, octets: &[u8]) -> Self {
        self.put(256, octets)
    }

    fn local_prefixlen(self, prefixlen: i32) -> Self {
        self.put(272, &prefixlen.to_ne_bytes())
    }

    fn port(self, port: u16) -> Self {
        self.put(276, &port.to_ne_bytes())
    }

    fn vrf_name(self, name: &[u8]) -> Self {
        self.put(280, name)
    }

    /// The request on a socket of that family, interface 7 being that of the only VRF, red.
    fn parse_on(&self, socket: Family) -> Result<Request, Error> {
        let red = Name::new(*b"red\0\0\0\0\0\0\0\0\0\0\0\0\0");
        Ok(match parse(&self.0, socket)? {
            Request::Add(spec) => match spec.vrf {
                Given::Index(7) => Request::Add(spec.in_vrf(RED)),
                Given::Named(name) if name == red => Request::Add(spec.in_vrf(RED)),
                _ => Request::Add(spec),
            },
            delete => delete,
        })
    }

    fn parse(&self) -> Result<Request, Error> {
        self.parse_on(Family::V4)
    }

    fn parse_v6(&self) -> Result<Request, Error> {
        self.parse_on(Family::V6)
    }

    fn spec(&self) -> KeySpec {
        match self.parse() {
            Ok(Request::Add(spec)) => spec,
            other => panic!("{other:?}"),
        }
    }

    fn spec_v6(&self) -> KeySpec {
        match self.parse_v6() {
            Ok(Request::Add(spec)) => spec,
            other => panic!("{other:?}"),
        }
    }

    fn deletes(&self) -> Result<Identity, Error> {
        match self.parse()? {
            Request::Delete(identity, Given::Any | Given::Outside) => Ok(identity),
            Request::Delete(identity, Given::Index(7)) => Ok(identity.in_vrf(RED)),
            other => panic!("{other:?}"),
        }
    }
}

fn add(spec: KeySpec) -> Result<Request, Error> {
    Ok(Request::Add(spec))
}

const UNSET: Lifetime = Lifetime {
    begin: None,
    end: None,
};

// What is read.

#[test]
fn plain_key() {
    assert_eq!(Raw::new(0).parse(), add(key(12, 23)));
    let raw = Raw::new(0);
    assert_eq!(raw.spec().master_key(&raw.0), b"abc");
}

#[test]
fn all_ids_are_valid_r4() {
    for id in 0..=255 {
        let spec = Raw::new(0).put(4, &[id, 255 - id]).spec();
        assert_eq!((spec.send_id, spec.recv_id), (KeyId(id), KeyId(255 - id)));
    }
}

#[test]
fn fields_without_their_flag_are_ignored() {
    let junk = Raw::new(0)
        .put(88, &[0xff; 128])
        .ifindex(-1)
        .prefixlen(-1)
        .times([9, 1, 9, 1]);
    assert_eq!(junk.parse(), add(key(12, 23)));
}

#[test]
fn bytes_past_the_key_are_ignored() {
    let raw = Raw::new(0).put(8, &[b'x'; 80]).keylen(2);
    assert_eq!(raw.spec().master_key(&raw.0), b"xx");
}

#[test]
fn key_lengths() {
    for keylen in [0, 1, 79, 80] {
        let raw = Raw::new(0).put(8, &[b'x'; 80]).keylen(keylen);
        assert_eq!(raw.spec().key_len, keylen);
        assert_eq!(raw.spec().master_key(&raw.0), vec![b'x'; keylen.into()]);
    }
    for keylen in [81, 255] {
        assert_eq!(Raw::new(0).keylen(keylen).parse(), Err(Error::Inval));
    }
}

#[test]
fn algorithms() {
    for (number, alg, traffic_key_len) in [
        (1, Algorithm::HmacSha1_96, 20),
        (2, Algorithm::Aes128Cmac96, 16),
        (3, Algorithm::HmacSha256_96, 32),
    ] {
        assert_eq!(Raw::new(0).alg(number).spec().alg, alg);
        assert_eq!(alg as u8, number);
        assert_eq!(alg.traffic_key_len(), traffic_key_len);
    }
    for number in [0, 4, 255] {
        assert_eq!(Raw::new(0).alg(number).parse(), Err(Error::Inval));
    }
}

#[test]
fn use_flags() {
    let lifetime = Some(UNSET);
    let plain = Raw::new(0).spec();
    assert_eq!(plain.covers(), Covers::AllOptions);
    assert_eq!(
        (plain.send_validity(), plain.recv_validity()),
        (lifetime, lifetime)
    );
    let spec = Raw::new(EXCLUDE_OPTS).spec();
    assert_eq!(spec.covers(), Covers::AoOnly);
    let spec = Raw::new(NOSEND).spec();
    assert_eq!(
        (spec.send_validity(), spec.recv_validity()),
        (None, lifetime)
    );
    let spec = Raw::new(NORECV).spec();
    assert_eq!(
        (spec.send_validity(), spec.recv_validity()),
        (lifetime, None)
    );
}

#[test]
fn addresses() {
    let spec = Raw::new(ADDR_BIND).v4([10, 0, 0, 1]).spec();
    assert_eq!(spec.criteria.remote, Some(prefix("10.0.0.1/32")));
    let v6 = Raw::new(ADDR_BIND).v6([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(v6.spec_v6().criteria.remote, Some(prefix("fd00::1/128")));
}

#[test]
fn prefixes() {
    let raw = Raw::new(ADDR_BIND | PREFIXLEN).v4([10, 128, 0, 0]);
    assert_eq!(
        raw.clone().prefixlen(9).spec().criteria.remote,
        Some(prefix("10.128.0.0/9"))
    );
    assert_eq!(
        raw.prefixlen(32).spec().criteria.remote,
        Some(prefix("10.128.0.0/32"))
    );
    let raw = Raw::new(ADDR_BIND | PREFIXLEN).v6([0xfd00, 0, 0, 0, 0, 0, 0, 0]);
    let spec = raw.prefixlen(8).spec_v6();
    assert_eq!(spec.criteria.remote, Some(prefix("fd00::/8")));
}

/// Bound to all of IPv4: not the same as unbound.
#[test]
fn prefix_of_length_0() {
    let spec = Raw::new(ADDR_BIND | PREFIXLEN)
        .v4([0; 4])
        .prefixlen(0)
        .spec();
    assert_eq!(spec.criteria.remote, Some(prefix("0.0.0.0/0")));
}

#[test]
fn vrfs() {
    let read = |raw: Raw| {
        let spec = raw.spec();
        (spec.criteria.vrf, spec.vrf)
    };
    let red = Name::parse(*b"red\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    assert_eq!(
        read(Raw::new(0).ifindex(7).vrf_name(b"red")),
        (None, Given::Any)
    );
    assert_eq!(
        read(Raw::new(IFINDEX)),
        (Some(VrfId::OUTSIDE), Given::Outside)
    );
    assert_eq!(
        read(Raw::new(IFINDEX).ifindex(7)),
        (Some(RED), Given::Index(7))
    );
    assert_eq!(
        read(Raw::new(VRF_NAME).vrf_name(b"red")),
        (Some(RED), Given::Named(red))
    );
}

/// Which VRF has the index or the name, the namespace knows: until it has said so the key matches
/// nobody.
#[test]
fn vrf_is_unknown_at_first() {
    for raw in [
        Raw::new(IFINDEX).ifindex(8),
        Raw::new(IFINDEX).ifindex(-7),
        Raw::new(VRF_NAME).vrf_name(b"blue"),
    ] {
        let spec = raw.spec();
        assert_eq!(spec.criteria.vrf, Some(VrfId::UNKNOWN));
        assert_eq!(spec.in_vrf(RED).criteria.vrf, Some(RED));
    }
}

/// A VRF has its keys, by whichever index each was added, or by its name.
#[test]
fn identity_is_blind_to_how_a_vrf_is_given() {
    let by_index = Raw::new(IFINDEX).ifindex(7).spec();
    let by_another = Raw::new(IFINDEX).ifindex(8).spec().in_vrf(RED);
    let by_name = Raw::new(VRF_NAME).vrf_name(b"red").spec();
    assert_eq!(by_index.identity(), by_another.identity());
    assert_eq!(by_index.identity(), by_name.identity());
    assert_ne!(by_index.vrf, by_another.vrf);
}

#[test]
fn names_that_no_vrf_has() {
    for name in [
        &b""[..],
        b".",
        b"..",
        b"a/b",
        b"a:b",
        b"a b",
        b"a\n",
        b"red\0x",
        b"sixteen letters!",
    ] {
        let raw = Raw::new(VRF_NAME).vrf_name(name);
        assert_eq!(raw.parse(), Err(Error::Inval), "{name:?}");
        let raw = Raw::new(VRF_NAME | DEL).vrf_name(name);
        assert_eq!(raw.parse(), Err(Error::NoEnt), "{name:?}");
    }
    for name in [&b"a"[..], b"...", b"fifteen.letters", "\u{e4}".as_bytes()] {
        assert!(
            Raw::new(VRF_NAME).vrf_name(name).parse().is_ok(),
            "{name:?}"
        );
    }
    let both = Raw::new(VRF_NAME | IFINDEX).vrf_name(b"red").ifindex(7);
    assert_eq!(both.parse(), Err(Error::Inval));
}

#[test]
fn reserved_bytes_are_zero() {
    for at in [278, 279, 296, 319] {
        for flags in [0, DEL, SERVICE_PORT] {
            let raw = Raw::new(flags).port(179).put(at, &[1]);
            assert_eq!(raw.parse(), Err(Error::Inval), "{at}");
        }
    }
}

#[test]
fn ports() {
    assert_eq!(Raw::new(0).port(179).spec().criteria.port, None);
    let port = Raw::new(SERVICE_PORT).port(179).spec().criteria.port;
    assert_eq!(port, Some(179));
    assert_eq!(Raw::new(SERVICE_PORT).parse(), Err(Error::Inval));
    assert_eq!(Raw::new(SERVICE_PORT | DEL).parse(), Err(Error::NoEnt));
}

#[test]
fn local_addresses() {
    let local = |raw: Raw| raw.spec().criteria.local;
    let v4 = Raw::new(LOCAL_ADDR)
        .v4([192, 0, 2, 9])
        .local(&[10, 0, 0, 1]);
    assert_eq!(local(v4.clone()), Some(prefix("10.0.0.1/32")));
    assert_eq!(v4.spec().criteria.remote, None, "its family only");
    assert_eq!(v4.parse_v6(), Err(Error::Inval));
    let net = Raw::new(LOCAL_ADDR | LOCAL_PREFIXLEN)
        .v4([0; 4])
        .local(&[10, 0, 0, 0]);
    assert_eq!(
        local(net.clone().local_prefixlen(8)),
        Some(prefix("10.0.0.0/8"))
    );
    for len in [-1, 6, 33] {
        assert_eq!(net.clone().local_prefixlen(len).parse(), Err(Error::Inval));
    }
    let mapped: Vec<u8> = [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 1]].concat();
    let mapped = Raw::new(LOCAL_ADDR).v6([0; 8]).local(&mapped).spec_v6();
    assert_eq!(mapped.identity(), v4.spec().identity());
    assert_eq!((mapped.mapped, v4.spec().mapped), (true, false));

    assert_eq!(
        Raw::new(LOCAL_ADDR).local(&[10, 0, 0, 1]).parse(),
        Err(Error::Inval)
    );
    let length_only = Raw::new(LOCAL_PREFIXLEN).v4([0; 4]).local_prefixlen(8);
    assert_eq!(length_only.parse(), Err(Error::Inval));
}

/// No connection has an IPv4 address at one end and one of IPv6 at the other.
#[test]
fn both_addresses_are_of_one_family() {
    let both = Raw::new(ADDR_BIND | LOCAL_ADDR).v6([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
    let mapped: Vec<u8> = [&[0; 10][..], &[0xff, 0xff, 10, 0, 0, 2]].concat();
    assert_eq!(
        both.clone().local(&[0xfd; 16]).parse_v6(),
        Err(Error::Inval)
    );
    assert!(both.local(&mapped).parse_v6().is_ok());
}

#[test]
fn lifetimes_have_independent_ends() {
    let read = |flags| {
        let spec = Raw::new(flags).times([1, 2, 3, 4]).spec();
        let ends = |lifetime: Lifetime| [lifetime.begin, lifetime.end];
        [ends(spec.send_lifetime), ends(spec.recv_lifetime)].concat()
    };
    assert_eq!(read(SEND_LIFETIME_BEGIN), [Some(1), None, None, None]);
    assert_eq!(read(SEND_LIFETIME_END), [None, Some(2), None, None]);
    assert_eq!(read(RECV_LIFETIME_BEGIN), [None, None, Some(3), None]);
    assert_eq!(read(RECV_LIFETIME_END), [None, None, None, Some(4)]);
}

// What is refused, in the order of the ABI.

#[test]
fn refuses_unknown_flags() {
    let known = CRITERIA | POLICY;
    for bit in (11..32).filter(|bit| known & 1 << bit == 0) {
        assert_eq!(Raw::new(1 << bit).parse(), Err(Error::Inval), "bit {bit}");
        assert_eq!(
            Raw::new(1 << bit | DEL).parse(),
            Err(Error::Inval),
            "bit {bit}"
        );
    }
}

#[test]
fn refuses_long_keys_even_to_delete() {
    assert_eq!(Raw::new(DEL).keylen(81).parse(), Err(Error::Inval));
    assert!(Raw::new(DEL).keylen(80).parse().is_ok());
}

#[test]
fn deleting_needs_no_valid_algorithm_lifetime_or_vrf() {
    let times = SEND_LIFETIME_BEGIN | SEND_LIFETIME_END;
    let raw = Raw::new(DEL | IFINDEX | times).ifindex(99).alg(77);
    let expected = Identity {
        send_id: KeyId(12),
        recv_id: KeyId(23),
        criteria: Criteria {
            vrf: Some(VrfId::UNKNOWN),
            ..ANY
        },
        prefixlen_given: false,
    };
    let delete = Request::Delete(expected, Given::Index(99));
    assert_eq!(raw.times([2, 1, 0, 0]).parse(), Ok(delete));
    // 0 is no VRF that could have gone.
    let outside = Request::Delete(expected.in_vrf(VrfId::OUTSIDE), Given::Outside);
    assert_eq!(Raw::new(DEL | IFINDEX).parse(), Ok(outside));
}

/// The keys are the namespace's: any socket may delete them.
#[test]
fn deleting_needs_no_socket_of_that_family() {
    let raw = Raw::new(DEL | ADDR_BIND).v6([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    let remote = raw.deletes().unwrap().criteria.remote;
    assert_eq!(remote, Some(prefix("fd00::1/128")));
}

#[test]
fn deleting_what_no_key_can_be() {
    let bound = DEL | ADDR_BIND | PREFIXLEN;
    for raw in [
        Raw::new(DEL | ADDR_BIND),
        Raw::new(DEL | ADDR_BIND).family(1),
        Raw::new(DEL | PREFIXLEN).prefixlen(8),
        Raw::new(bound).v4([10, 0, 0, 1]).prefixlen(8),
        Raw::new(bound).v4([0; 4]).prefixlen(33),
        Raw::new(bound).v4([0; 4]).prefixlen(-1),
    ] {
        assert_eq!(raw.parse(), Err(Error::NoEnt));
    }
}

#[test]
fn refuses_addresses_of_another_family() {
    let v4 = Raw::new(ADDR_BIND).v4([10, 0, 0, 1]);
    let v6 = Raw::new(ADDR_BIND).v6([0xfd00, 0, 0, 0, 0, 0, 0, 1]);
    assert!(v4.parse().is_ok());
    assert_eq!(v4.parse_v6(), Err(Error::Inval));
    assert_eq!(v6.parse(), Err(Error::Inval));
    for family in [0, 1, 3, 9, 11, 0xffff] {
        let raw = Raw::new(ADDR_BIND).family(family);
        assert_eq!(raw.parse(), Err(Error::Inval), "{family}");
        assert_eq!(raw.parse_v6(), Err(Error::Inval), "{family}");
    }
}

/// `::ffff:10.0.0.1` and, on any socket, 10.0.0.1; with a prefix length of 128 and 32.
fn both_forms(flags: u32) -> [Raw; 2] {
    let mapped = Raw::new(flags).v6([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]);
    let v4 = Raw::new(flags).v4([10, 0, 0, 1]);
    [mapped.prefixlen(128), v4.prefixlen(32)]
}

/// An IPv4-mapped address is written as one of IPv6: only a socket of that family takes it. It is
/// the IPv4 address all the same.
#[test]
fn ipv4_mapped_addresses_are_ipv4() {
    for flags in [ADDR_BIND, ADDR_BIND | PREFIXLEN] {
        let [mapped, v4] = both_forms(flags);
        assert_eq!(mapped.parse(), Err(Error::Inval));
        assert_eq!(v4.parse_v6(), Err(Error::Inval));
        let (mapped, v4) = (mapped.spec_v6(), v4.spec());
        assert_eq!(mapped.criteria, v4.criteria);
        assert_eq!(mapped.identity(), v4.identity());
        assert_eq!((mapped.mapped, v4.mapped), (true, false));
        assert!(!mapped.overlaps(&v4), "its replacement");
        assert!(mapped.same_mkt(&v4));
    }
    let [host, _] = both_forms(ADDR_BIND);
    let [_, full] = both_forms(ADDR_BIND | PREFIXLEN);
    assert!(host.spec_v6().overlaps(&full.spec()));
}

#[test]
fn deleting_minds_no_form() {
    for flags in [ADDR_BIND, ADDR_BIND | PREFIXLEN] {
        let identity = both_forms(flags)[1].spec().identity();
        for raw in both_forms(flags | DEL) {
            assert_eq!(raw.deletes(), Ok(identity));
        }
    }
}

#[test]
fn refuses_prefixes_out_of_range() {
    let flags = ADDR_BIND | PREFIXLEN;
    for len in [i32::MIN, -1, 33, 128, 256, 256 + 8, i32::MAX] {
        let raw = Raw::new(flags).v4([0; 4]).prefixlen(len);
        assert_eq!(raw.parse(), Err(Error::Inval), "{len}");
    }
    for len in [i32::MIN, -1, 129, 256, 256 + 8, i32::MAX] {
        let raw = Raw::new(flags).v6([0; 8]).prefixlen(len);
        assert_eq!(raw.parse_v6(), Err(Error::Inval), "{len}");
    }
}

#[test]
fn refuses_host_bits() {
    let flags = ADDR_BIND | PREFIXLEN;
    for len in 0..32 {
        let raw = Raw::new(flags).v4([10, 0, 0, 1]).prefixlen(len);
        assert_eq!(raw.parse(), Err(Error::Inval), "{len}");
    }
    for len in 0..128 {
        let raw = Raw::new(flags)
            .v6([0xfd00, 0, 0, 0, 0, 0, 0, 1])
            .prefixlen(len);
        assert_eq!(raw.parse_v6(), Err(Error::Inval), "{len}");
    }
}

#[test]
fn refuses_a_prefix_of_no_address() {
    for len in [0, 8, 32] {
        let raw = Raw::new(PREFIXLEN).prefixlen(len);
        assert_eq!(raw.parse(), Err(Error::Inval), "{len}");
    }
}

#[test]
fn refuses_lifetimes_that_end_before_they_begin() {
    let send = SEND_LIFETIME_BEGIN | SEND_LIFETIME_END;
    let recv = RECV_LIFETIME_BEGIN | RECV_LIFETIME_END;
    assert_eq!(
        Raw::new(send).times([9, 8, 0, 0]).parse(),
        Err(Error::Inval)
    );
    assert_eq!(
        Raw::new(recv).times([0, 0, 9, 8]).parse(),
        Err(Error::Inval)
    );
    assert!(Raw::new(send | recv).times([9, 9, 9, 9]).parse().is_ok());
    // Even where NOSEND and NORECV leave them without use.
    let raw = Raw::new(send | NOSEND).times([9, 8, 0, 0]);
    assert_eq!(raw.parse(), Err(Error::Inval));
}

// Identity, overlap, replacement.

/// What is not part of the identity: such an add replaces.
#[test]
fn identity_is_blind_to_what_a_replacement_changes() {
    let identity = Raw::new(0).spec().identity();
    let times = SEND_LIFETIME_BEGIN | SEND_LIFETIME_END | RECV_LIFETIME_BEGIN | RECV_LIFETIME_END;
    for raw in [
        Raw::new(0).alg(2),
        Raw::new(0).keylen(1),
        Raw::new(0).put(8, b"xyz"),
        Raw::new(EXCLUDE_OPTS),
        Raw::new(NOSEND),
        Raw::new(NORECV),
        Raw::new(times).times([1, 2, 3, 4]),
    ] {
        assert_eq!(raw.spec().identity(), identity);
    }
}

#[test]
fn identity_sees_ids_vrf_address_and_prefix() {
    let bound = ADDR_BIND | PREFIXLEN;
    let identities = [
        Raw::new(0),
        Raw::new(0).put(4, &[13]),
        Raw::new(0).put(5, &[24]),
        Raw::new(IFINDEX),
        Raw::new(IFINDEX).ifindex(7),
        Raw::new(ADDR_BIND).v4([10, 0, 0, 0]),
        Raw::new(ADDR_BIND).v4([10, 0, 0, 1]),
        Raw::new(bound).v4([10, 0, 0, 0]).prefixlen(32),
        Raw::new(bound).v4([10, 0, 0, 0]).prefixlen(8),
        Raw::new(bound).v4([0; 4]).prefixlen(0),
        Raw::new(LOCAL_ADDR).v4([0; 4]).local(&[10, 0, 0, 1]),
        Raw::new(SERVICE_PORT).port(179),
        Raw::new(SERVICE_PORT).port(646),
    ]
    .map(|raw| raw.spec().identity());
    for (i, a) in identities.iter().enumerate() {
        for (j, b) in identities.iter().enumerate() {
            assert_eq!(a == b, i == j, "{a:?} {b:?}");
        }
    }
}

#[test]
fn identity_is_blind_to_the_port() {
    let raw = Raw::new(ADDR_BIND).v4([10, 0, 0, 1]);
    let other_port = raw.clone().put(90, &[1, 2]);
    assert_eq!(raw.spec().identity(), other_port.spec().identity());
}

#[test]
fn deleting_finds_the_identity_of_the_key() {
    let bound = ADDR_BIND | PREFIXLEN;
    for raw in [
        Raw::new(0),
        Raw::new(IFINDEX).ifindex(7),
        Raw::new(ADDR_BIND).v4([10, 0, 0, 1]),
        Raw::new(bound | EXCLUDE_OPTS | NOSEND)
            .v4([10, 0, 0, 0])
            .prefixlen(8),
    ] {
        let spec = raw.spec();
        let flags = spec.flags & !(EXCLUDE_OPTS | NOSEND) | DEL;
        let del = raw.put(0, &flags.to_ne_bytes()).alg(0).keylen(0);
        assert_eq!(del.deletes(), Ok(spec.identity()));
    }
}

#[test]
fn overlap_needs_the_same_criteria_and_one_id_r7() {
    let remote = |send_id, recv_id| key(send_id, recv_id).remote("10.0.0.0/8");
    let base = remote(1, 2);
    assert!(base.overlaps(&remote(1, 3)), "send_id");
    assert!(base.overlaps(&remote(3, 2)), "recv_id");
    assert!(!base.overlaps(&remote(3, 4)), "both differ");
    assert!(
        !base.overlaps(&remote(2, 1)),
        "one's send_id is the other's recv_id"
    );
    assert!(!base.overlaps(&base), "itself");
    assert!(!base.overlaps(&base.flags(NOSEND)), "its replacement");
    assert!(!base.overlaps(&key(1, 3)), "bound and unbound");
    assert!(!base.overlaps(&key(1, 3).remote("10.0.0.0/9")), "prefixes");
    assert!(!base.overlaps(&remote(1, 3).vrf(0)), "VRFs");
}

/// A host address and its prefix of full length match the same: two identities that overlap.
#[test]
fn host_address_overlaps_its_full_prefix() {
    let host = Raw::new(ADDR_BIND).v4([10, 0, 0, 1]).spec();
    let full = Raw::new(ADDR_BIND | PREFIXLEN)
        .v4([10, 0, 0, 1])
        .prefixlen(32)
        .spec();
    assert_eq!(host.criteria, full.criteria);
    assert!(host.overlaps(&full) && full.overlaps(&host));
}

#[test]
fn new_mkt_or_the_same_r5() {
    let base = Raw::new(0).spec();
    let times = SEND_LIFETIME_END | RECV_LIFETIME_END;
    for same in [
        Raw::new(NOSEND),
        Raw::new(NORECV),
        Raw::new(times).times([0, 5, 0, 5]),
    ] {
        assert!(base.same_mkt(&same.spec()));
    }
    for new in [
        Raw::new(EXCLUDE_OPTS),
        Raw::new(0).alg(2),
        Raw::new(0).keylen(2),
    ] {
        assert!(!base.same_mkt(&new.spec()));
    }
}

// Rows of /proc/net/tcp_authopt.

fn row(spec: &KeySpec) -> String {
    let mut row = String::new();
    let index = match spec.vrf {
        Given::Index(index) => index,
        _ => 0,
    };
    show::write_row(&mut row, spec, index).unwrap();
    row
}

fn addr_column(spec: &KeySpec) -> String {
    row(spec).split('\t').nth(4).unwrap().to_string()
}

#[test]
fn proc_header() {
    assert_eq!(
        show::HEADER,
        "flags\tsend_id\trecv_id\talg\taddr\tl3index\n"
    );
}

#[test]
fn proc_rows_r18() {
    let bound = ADDR_BIND | PREFIXLEN;
    for (raw, expected) in [
        (Raw::new(0), "0x0\t12\t23\t1\t*\t0\n"),
        (
            Raw::new(EXCLUDE_OPTS | NORECV).put(4, &[0, 255]).alg(2),
            "0x22\t0\t255\t2\t*\t0\n",
        ),
        (
            Raw::new(ADDR_BIND).v4([10, 0, 0, 1]).alg(3),
            "0x4\t12\t23\t3\t10.0.0.1\t0\n",
        ),
        (
            Raw::new(bound).v4([192, 168, 0, 0]).prefixlen(16),
            "0x44\t12\t23\t1\t192.168.0.0/16\t0\n",
        ),
        (
            Raw::new(bound).v4([10, 0, 0, 1]).prefixlen(32),
            "0x44\t12\t23\t1\t10.0.0.1/32\t0\n",
        ),
        (
            Raw::new(bound).v4([0; 4]).prefixlen(0),
            "0x44\t12\t23\t1\t0.0.0.0/0\t0\n",
        ),
        (Raw::new(IFINDEX), "0x8\t12\t23\t1\t*\t0\n"),
        (Raw::new(IFINDEX).ifindex(7), "0x8\t12\t23\t1\t*\t7\n"),
        (
            Raw::new(SEND_LIFETIME_BEGIN | RECV_LIFETIME_END),
            "0x480\t12\t23\t1\t*\t0\n",
        ),
    ] {
        assert_eq!(row(&raw.spec()), expected);
    }
}

#[test]
fn proc_rows_of_ipv6_are_in_full() {
    for (raw, expected) in [
        (
            Raw::new(ADDR_BIND).v6([0xfd00, 0, 0, 0, 0, 0, 0, 0x1a]),
            "0x4\t12\t23\t1\tfd00:0000:0000:0000:0000:0000:0000:001a\t0\n",
        ),
        (
            Raw::new(ADDR_BIND | PREFIXLEN)
                .v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0])
                .prefixlen(32),
            "0x44\t12\t23\t1\t2001:0db8:0000:0000:0000:0000:0000:0000/32\t0\n",
        ),
        (
            Raw::new(ADDR_BIND).v6([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]),
            "0x4\t12\t23\t1\t0000:0000:0000:0000:0000:ffff:0a00:0001\t0\n",
        ),
        (
            Raw::new(ADDR_BIND | PREFIXLEN)
                .v6([0, 0, 0, 0, 0, 0xffff, 0x0a00, 0])
                .prefixlen(104),
            "0x44\t12\t23\t1\t0000:0000:0000:0000:0000:ffff:0a00:0000/104\t0\n",
        ),
        (
            Raw::new(ADDR_BIND | PREFIXLEN).v6([0; 8]).prefixlen(95),
            "0x44\t12\t23\t1\t0000:0000:0000:0000:0000:0000:0000:0000/95\t0\n",
        ),
    ] {
        assert_eq!(row(&raw.spec_v6()), expected);
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(
        raw: [[u8; 32]; 10],
        flags in 0..0x1000u32,
        more in 0..256u32,
        keylen in 0..90u8,
    ) {
        let raw = Raw(raw.concat().try_into().unwrap())
            .put(0, &(flags | more << 16).to_ne_bytes())
            .put(278, &[0; 2])
            .put(296, &[0; 24])
            .keylen(keylen);
        for socket in [Family::V4, Family::V6] {
            if let Ok(Request::Add(spec)) = parse(&raw.0, socket) {
                prop_assert_eq!(spec.master_key(&raw.0), &raw.0[8..8 + usize::from(keylen)]);
                prop_assert_eq!(addr_column(&spec) == "*", flags & ADDR_BIND == 0);
            }
        }
    }

    /// Addresses read and print as std reads and prints them.
    #[test]
    fn addresses_print_as_usual(octets: [u8; 4], segments: [u16; 8]) {
        let v4 = Raw::new(ADDR_BIND).v4(octets).spec();
        let expected = std::net::Ipv4Addr::from(octets).to_string();
        prop_assert_eq!(addr_column(&v4), expected);
        let v6 = Raw::new(ADDR_BIND).v6(segments).spec_v6();
        let expected = segments.map(|s| format!("{s:04x}")).join(":");
        prop_assert_eq!(addr_column(&v6), expected);
    }

    #[test]
    fn overlap_goes_both_ways(a in any_key(), b in any_key()) {
        prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        prop_assert_eq!(a.same_mkt(&b), b.same_mkt(&a));
    }
}
