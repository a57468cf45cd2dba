// SPDX-License-Identifier: GPL-2.0

//! The published vectors: all 32 segments of RFC 9235, all 29 steps of RFC 9187 6.

use serde_json::Value;
use tcp_authopt::proto::addr::Addr;
use tcp_authopt::proto::addr::Endpoints;
use tcp_authopt::proto::conn::isns_and_sne;
use tcp_authopt::proto::conn::Context;
use tcp_authopt::proto::conn::Numbers;
use tcp_authopt::proto::kdf::traffic_key;
use tcp_authopt::proto::kdf::Isns;
use tcp_authopt::proto::mac::tags_equal;
use tcp_authopt::proto::mac::Algorithm;
use tcp_authopt::proto::mac::MacKey;
use tcp_authopt::proto::segment::Covers;
use tcp_authopt::proto::segment::MacHead;
use tcp_authopt::proto::sne::sne_at;
use tcp_authopt::proto::sne::Sne;
use tcp_authopt::proto::verdict::first_step;
use tcp_authopt::proto::verdict::Step;
use tcp_authopt::proto::wire::parse_auth;
use tcp_authopt::proto::wire::AoOption;
use tcp_authopt::proto::wire::Isn;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::KeyIds;
use tcp_authopt::proto::wire::TcpHeader;

use crate::support::addr;
use crate::support::last_erased;
use crate::support::secrets_alive;
use crate::support::tag;
use crate::support::unhex;
use crate::support::TestKey;

/// A segment of RFC 9235.
struct Vector {
    section: String,
    alg: Algorithm,
    master: Vec<u8>,
    covers: Covers,
    ends: Endpoints,
    kdf_isns: Isns,
    /// ISNs of sender and receiver, known or not at the time of the segment.
    isns: Isns,
    sne: Sne,
    ids: KeyIds,
    traffic_key: Vec<u8>,
    packet: Vec<u8>,
    ip_len: usize,
    mac_input: Vec<u8>,
    mac: Vec<u8>,
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().expect(field)
}

fn number(value: &Value, field: &str) -> u32 {
    value[field].as_u64().expect(field).try_into().unwrap()
}

fn hex_number(value: &Value, field: &str) -> u32 {
    u32::from_str_radix(text(value, field).trim_start_matches("0x"), 16).unwrap()
}

fn id(value: &Value, field: &str) -> KeyId {
    KeyId(number(value, field).try_into().unwrap())
}

fn rfc9235() -> Vec<Vector> {
    let file: Value = serde_json::from_str(include_str!("../vectors/rfc9235.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    vectors.iter().map(vector).collect()
}

fn vector(v: &Value) -> Vector {
    let (client, server) = (hex_number(v, "client_isn"), hex_number(v, "server_isn"));
    let (src, dst) = match text(v, "sender") {
        "client" => (client, server),
        _ => (server, client),
    };
    Vector {
        section: text(v, "section").to_string(),
        alg: match text(v, "alg") {
            "HMAC-SHA-1-96" => Algorithm::HmacSha1_96,
            "AES-128-CMAC-96" => Algorithm::Aes128Cmac96,
            other => panic!("{other}"),
        },
        master: unhex(text(v, "master_key_hex")),
        covers: if v["covers_options"].as_bool().unwrap() {
            Covers::AllOptions
        } else {
            Covers::AoOnly
        },
        ends: Endpoints {
            src: addr(text(v, "src_addr")),
            dst: addr(text(v, "dst_addr")),
            src_port: number(v, "src_port").try_into().unwrap(),
            dst_port: number(v, "dst_port").try_into().unwrap(),
        },
        kdf_isns: Isns {
            src: Isn(hex_number(v, "kdf_src_isn")),
            dst: Isn(hex_number(v, "kdf_dst_isn")),
        },
        isns: Isns {
            src: Isn(src),
            dst: Isn(dst),
        },
        sne: Sne(number(v, "sne")),
        ids: KeyIds {
            keyid: id(v, "keyid"),
            rnext: id(v, "rnextkeyid"),
        },
        traffic_key: unhex(text(v, "traffic_key_hex")),
        packet: unhex(text(v, "packet_hex")),
        ip_len: if number(v, "ip_version") == 4 { 20 } else { 40 },
        mac_input: unhex(text(v, "mac_input_hex")),
        mac: unhex(text(v, "mac_hex")),
    }
}

impl Vector {
    /// The ends as the packet has them.
    fn ends_of(&self, packet: &[u8]) -> Endpoints {
        let (src, dst) = if self.ip_len == 20 {
            let v4 = |at: usize| Addr::v4(packet[at..at + 4].try_into().unwrap());
            (v4(12), v4(16))
        } else {
            let v6 = |at: usize| Addr::v6(packet[at..at + 16].try_into().unwrap());
            (v6(8), v6(24))
        };
        let header = TcpHeader::parse(&packet[self.ip_len..]).expect("a TCP header");
        Endpoints {
            src,
            dst,
            src_port: header.source(),
            dst_port: header.dest(),
        }
    }

    /// What a receiver that holds the key, and is in the state that it would be in, says of
    /// `packet`, which may be a changed one.
    fn verifies(&self, packet: &[u8]) -> bool {
        let segment = &packet[self.ip_len..];
        let Ok(header) = TcpHeader::parse(segment) else {
            return false;
        };
        let Step::Verify(option) = first_step(parse_auth(&header), true, false) else {
            return false;
        };
        let ends = self.ends_of(packet);
        let own = TcpHeader::parse(&self.packet[self.ip_len..]).unwrap();
        let context = match (own.syn(), own.ack()) {
            (true, false) => Context::Listen,
            (true, true) => Context::SynSent { dst: self.isns.dst },
            _ => Context::Paired(Numbers {
                isns: self.isns,
                basis: Sne(0),
                basis_seq: self.isns.src.0,
            }),
        };
        let Ok((isns, sne)) = isns_and_sne(context, &header) else {
            return false;
        };
        let mut key = TestKey::empty();
        traffic_key(self.alg, &self.master, &ends, isns, &mut key);
        let Ok(head) = MacHead::new(
            sne,
            &ends,
            &header,
            option.offset,
            segment.len() as u32,
            self.covers,
        ) else {
            return false;
        };
        let data = &segment[header.bytes().len()..];
        let equal = tags_equal(&tag(&key, head.bytes(), data), &option.mac);
        key.wipe();
        option.ids == self.ids && equal
    }
}

#[test]
fn rfc9235_has_all_segments() {
    assert_eq!(rfc9235().len(), 32);
}

#[test]
fn rfc9235_traffic_keys_r35_r38() {
    for v in rfc9235() {
        let mut key = TestKey::empty();
        traffic_key(v.alg, &v.master, &v.ends, v.kdf_isns, &mut key);
        assert_eq!(
            key.set,
            Some((v.alg, v.traffic_key.clone())),
            "{}",
            v.section
        );
        assert_eq!(secrets_alive(), 1, "temporaries are wiped");
        let erased = last_erased().expect("the output of the PRF is erased");
        assert_eq!(erased[..v.traffic_key.len()], v.traffic_key);
        key.wipe();
    }
}

#[test]
fn rfc9235_mac_inputs_and_macs_r12() {
    for v in rfc9235() {
        let segment = &v.packet[v.ip_len..];
        let header = TcpHeader::parse(segment).unwrap();
        let offset = header.bytes().len() - 16;
        let len = segment.len() as u32;
        let head = MacHead::new(v.sne, &v.ends, &header, offset, len, v.covers).unwrap();
        let data = &segment[header.bytes().len()..];
        assert_eq!([head.bytes(), data].concat(), v.mac_input, "{}", v.section);

        let mut key = TestKey::empty();
        key.set(v.alg, &v.traffic_key);
        assert_eq!(tag(&key, head.bytes(), data)[..], v.mac, "{}", v.section);
    }
}

#[test]
fn rfc9235_segments_parse() {
    for v in rfc9235() {
        let header = TcpHeader::parse(&v.packet[v.ip_len..]).unwrap();
        assert_eq!(v.ends_of(&v.packet), v.ends, "{}", v.section);
        let option = AoOption {
            offset: header.bytes().len() - 16,
            ids: v.ids,
            mac: v.mac[..].try_into().unwrap(),
        };
        assert_eq!(
            first_step(parse_auth(&header), true, false),
            Step::Verify(option),
            "{}",
            v.section
        );
    }
}

#[test]
fn rfc9235_segments_verify() {
    for v in rfc9235() {
        assert!(v.verifies(&v.packet), "{}", v.section);
    }
}

/// Each bit that the MAC covers makes the segment fail; the checksum, which it does not, none.
#[test]
fn rfc9235_segments_with_a_flipped_bit_fail() {
    for v in rfc9235() {
        let header = TcpHeader::parse(&v.packet[v.ip_len..]).unwrap();
        let header_end = v.ip_len + header.bytes().len();
        let addresses = if v.ip_len == 20 { 12..20 } else { 8..40 };
        let checksum = v.ip_len + 16..v.ip_len + 18;
        let uncovered_options = match v.covers {
            Covers::AllOptions => 0..0,
            Covers::AoOnly => v.ip_len + 20..header_end - 16,
        };
        for at in addresses.chain(v.ip_len..v.packet.len()) {
            if uncovered_options.contains(&at) {
                continue;
            }
            for bit in 0..8 {
                let mut packet = v.packet.clone();
                packet[at] ^= 1 << bit;
                let verifies = v.verifies(&packet);
                let section = &v.section;
                assert_eq!(
                    verifies,
                    checksum.contains(&at),
                    "{section} byte {at} bit {bit}"
                );
            }
        }
    }
}

/// Options that the MAC leaves out may change underway (RFC 5925 3.1).
#[test]
fn rfc9235_uncovered_options_may_change_r8() {
    for v in rfc9235().iter().filter(|v| v.covers == Covers::AoOnly) {
        let header = TcpHeader::parse(&v.packet[v.ip_len..]).unwrap();
        let options = v.ip_len + 20..v.ip_len + header.bytes().len() - 16;
        let mut packet = v.packet.clone();
        packet[options].fill(1);
        assert!(v.verifies(&packet), "{}", v.section);
    }
}

/// "IPv4-mapped: KDF and pseudo-header are then IPv4's."
#[test]
fn rfc9235_over_ipv4_mapped_addresses() {
    let mapped = |addr: Addr| {
        let mut bytes = [0; 16];
        bytes[10..12].fill(0xff);
        bytes[12..].copy_from_slice(addr.octets());
        Addr::v6(bytes)
    };
    for v in rfc9235().iter().filter(|v| v.ip_len == 20) {
        let ends = Endpoints {
            src: mapped(v.ends.src),
            dst: mapped(v.ends.dst),
            ..v.ends
        };
        let mut key = TestKey::empty();
        traffic_key(v.alg, &v.master, &ends, v.kdf_isns, &mut key);
        assert_eq!(key.set, Some((v.alg, v.traffic_key.clone())));

        let segment = &v.packet[v.ip_len..];
        let header = TcpHeader::parse(segment).unwrap();
        let offset = header.bytes().len() - 16;
        let len = segment.len() as u32;
        let head = MacHead::new(v.sne, &ends, &header, offset, len, v.covers).unwrap();
        assert!(v.mac_input.starts_with(head.bytes()));
    }
}

/// No RFC has vectors for these; the values were made with Python's hmac and cryptography.
#[test]
fn traffic_keys_of_other_algorithms_and_lengths_r36() {
    let ends = Endpoints {
        src: addr("10.11.12.13"),
        dst: addr("172.27.28.29"),
        src_port: 59863,
        dst_port: 179,
    };
    let isns = Isns {
        src: Isn(0xfbfbab5a),
        dst: Isn(0x11c14261),
    };
    let long = [b'k'; 80];
    for (alg, master, expected) in [
        (
            Algorithm::HmacSha256_96,
            &b"testvector"[..],
            "4854feea2f3ded4133ce1acb7b119a7cf022ec6bc311f3b0679960b1ff451856",
        ),
        (
            Algorithm::HmacSha256_96,
            &long,
            "26498dd4ca8fbdb642401473fe6c521dc571a328a4681c867008c62c8cf43093",
        ),
        (
            Algorithm::HmacSha256_96,
            b"",
            "bd5859438bc0f1a4405eb2c9f2dd13d7c09984d6f7b6e95fc240faa54910881d",
        ),
        (
            Algorithm::HmacSha1_96,
            &long,
            "6f93012950136bdccd408ac9d510b8e8b6a33db9",
        ),
        (
            Algorithm::HmacSha1_96,
            b"",
            "3999b4982569ff406b797624354b52b42df9359c",
        ),
        (
            Algorithm::Aes128Cmac96,
            b"0123456789abcdef",
            "63828cc41d8107b77f96fc986419bcda",
        ),
        (
            Algorithm::Aes128Cmac96,
            &long,
            "ec4cc927f3630ca93fa6b26919970361",
        ),
        (
            Algorithm::Aes128Cmac96,
            b"",
            "06c8890152e481a73a4cc83a23247665",
        ),
    ] {
        let mut key = TestKey::empty();
        traffic_key(alg, master, &ends, isns, &mut key);
        assert_eq!(key.set, Some((alg, unhex(expected))), "{alg:?} {master:?}");
    }
}

/// Each step against the highest sequence number so far, as in the code of RFC 9187 5.
#[test]
fn rfc9187_steps_r39() {
    let file: Value = serde_json::from_str(include_str!("../vectors/rfc9187_sne.json")).unwrap();
    let steps = file["vectors"].as_array().unwrap();
    assert_eq!(steps.len(), 29);
    let (mut highest, mut highest_seq) = (Sne(0), 0);
    for (index, step) in steps.iter().enumerate() {
        let seq = hex_number(step, "seq");
        let sne = sne_at(highest, highest_seq, seq);
        assert_eq!(sne, Sne(hex_number(step, "sne")), "step {index}");
        if (sne.0, seq) > (highest.0, highest_seq) {
            (highest, highest_seq) = (sne, seq);
        }
    }
}
