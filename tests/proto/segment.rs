// SPDX-License-Identifier: GPL-2.0

//! What a MAC covers, sequence number extensions, and the comparison of MACs.

use proptest::prelude::*;
use tcp_authopt::proto::addr::Addr;
use tcp_authopt::proto::addr::Endpoints;
use tcp_authopt::proto::mac::tags_equal;
use tcp_authopt::proto::segment::Covers;
use tcp_authopt::proto::segment::MacHead;
use tcp_authopt::proto::sne::sne_at;
use tcp_authopt::proto::sne::Sne;
use tcp_authopt::proto::wire::Malformed;
use tcp_authopt::proto::wire::TcpHeader;

use crate::support::addr;

/// A segment in its parts, of which both the packet and the expected bytes are made.
#[derive(Clone, Debug)]
struct Parts {
    sne: u32,
    addresses: Option<([u8; 4], [u8; 4])>,
    addresses_v6: ([u8; 16], [u8; 16]),
    ports_to_window: [u8; 12],
    flags: [u8; 2],
    window: [u8; 2],
    checksum: [u8; 2],
    urgent: [u8; 2],
    before: Vec<u8>,
    ids: [u8; 2],
    mac: [u8; 12],
    after: Vec<u8>,
    data_len: u16,
}

fn any_parts() -> impl Strategy<Value = Parts> {
    let words = (0..=6usize, 0..=6usize).prop_map(|(a, b)| (a, b.min(6 - a)));
    (
        (
            any::<u32>(),
            any::<Option<([u8; 4], [u8; 4])>>(),
            any::<([u8; 16], [u8; 16])>(),
        ),
        any::<(
            [u8; 12],
            [u8; 2],
            [u8; 2],
            [u8; 2],
            [u8; 2],
            [u8; 2],
            [u8; 12],
        )>(),
        words,
        any::<[u8; 24]>(),
        0..2000u16,
    )
        .prop_map(|(outer, fixed, (before, after), options, data_len)| Parts {
            sne: outer.0,
            addresses: outer.1,
            addresses_v6: outer.2,
            ports_to_window: fixed.0,
            flags: fixed.1,
            window: fixed.2,
            checksum: fixed.3,
            urgent: fixed.4,
            before: options[..before * 4].to_vec(),
            ids: fixed.5,
            mac: fixed.6,
            after: options[24 - after * 4..].to_vec(),
            data_len,
        })
}

impl Parts {
    fn ends(&self) -> Endpoints {
        let (src, dst) = match self.addresses {
            Some((src, dst)) => (Addr::v4(src), Addr::v4(dst)),
            None => (Addr::v6(self.addresses_v6.0), Addr::v6(self.addresses_v6.1)),
        };
        Endpoints {
            src,
            dst,
            src_port: 0,
            dst_port: 0,
        }
    }

    /// The header with this checksum, these options around TCP-AO, and this MAC.
    fn header(&self, checksum: [u8; 2], before: &[u8], mac: [u8; 12], after: &[u8]) -> Vec<u8> {
        let words = (20 + self.before.len() + 16 + self.after.len()) / 4;
        [
            &self.ports_to_window[..],
            &[(words as u8) << 4 | self.flags[0] >> 4, self.flags[1]],
            &self.window,
            &checksum,
            &self.urgent,
            before,
            &[29, 16],
            &self.ids,
            &mac,
            after,
        ]
        .concat()
    }

    fn packet_header(&self) -> Vec<u8> {
        self.header(self.checksum, &self.before, self.mac, &self.after)
    }

    fn segment_len(&self) -> u32 {
        self.packet_header().len() as u32 + u32::from(self.data_len)
    }

    /// RFC 5925 5.1, item by item.
    fn expected(&self, covers: Covers) -> Vec<u8> {
        let pseudo_header = match self.addresses {
            Some((src, dst)) => {
                let len = self.segment_len() as u16;
                [&src[..], &dst, &[0, 6], &len.to_be_bytes()].concat()
            }
            None => {
                let (src, dst) = self.addresses_v6;
                let len = self.segment_len();
                [&src[..], &dst, &len.to_be_bytes(), &[0, 0, 0, 6]].concat()
            }
        };
        let header = match covers {
            Covers::AllOptions => self.header([0; 2], &self.before, [0; 12], &self.after),
            Covers::AoOnly => self.header([0; 2], &[], [0; 12], &[]),
        };
        [&self.sne.to_be_bytes()[..], &pseudo_header, &header].concat()
    }
}

#[test]
fn a_segment_longer_than_its_ip_can_carry() {
    let mut bytes = [0; 36];
    bytes[12] = 9 << 4;
    let header = TcpHeader::parse(&bytes).unwrap();
    let new = |ends: &Endpoints, segment_len| {
        let head = MacHead::new(Sne(0), ends, &header, 20, segment_len, Covers::AllOptions);
        head.map(|head| head.bytes().len())
    };
    let v4 = Endpoints {
        src: addr("10.0.0.1"),
        dst: addr("10.0.0.2"),
        src_port: 1,
        dst_port: 2,
    };
    assert_eq!(new(&v4, 0xffff), Ok(4 + 12 + 36));
    assert_eq!(new(&v4, 0x10000), Err(Malformed::HeaderLength));
    let v6 = Endpoints {
        src: addr("fd00::1"),
        dst: addr("fd00::2"),
        ..v4
    };
    assert_eq!(new(&v6, 0x10000), Ok(4 + 40 + 36));
}

#[test]
fn sne_at_the_edges() {
    for (basis, basis_seq, seq, expected) in [
        (0, 0, 0, 0),
        (0, 0xffff_ffff, 0, 1),
        (1, 0, 0xffff_ffff, 0),
        (0, 0, 0x7fff_ffff, 0),
        (5, 0x8000_0000, 0xffff_ffff, 5),
        (5, 0x8000_0001, 0, 6),
        (5, 0x7fff_ffff, 0xffff_ffff, 4),
        (0xffff_ffff, 0xffff_ffff, 0, 0),
        (0, 0, 0xffff_ffff, 0xffff_ffff),
    ] {
        let sne = sne_at(Sne(basis), basis_seq, seq);
        assert_eq!(sne, Sne(expected), "{basis:#x} {basis_seq:#x} {seq:#x}");
    }
}

proptest! {
    #[test]
    fn mac_head_is_what_the_rfc_lists(parts in any_parts()) {
        let bytes = parts.packet_header();
        let header = TcpHeader::parse(&bytes).unwrap();
        for covers in [Covers::AllOptions, Covers::AoOnly] {
            let offset = 20 + parts.before.len();
            let head = MacHead::new(
                Sne(parts.sne),
                &parts.ends(),
                &header,
                offset,
                parts.segment_len(),
                covers,
            )
            .unwrap();
            prop_assert_eq!(head.bytes(), parts.expected(covers));
        }
    }

    #[test]
    fn mac_head_never_panics(
        parts in any_parts(),
        offset in prop_oneof![0..80usize, any::<usize>()],
        segment_len: u32,
    ) {
        let bytes = parts.packet_header();
        let header = TcpHeader::parse(&bytes).unwrap();
        for covers in [Covers::AllOptions, Covers::AoOnly] {
            let ends = parts.ends();
            let head = MacHead::new(Sne(0), &ends, &header, offset, segment_len, covers);
            let fits = offset <= bytes.len() - 16;
            let carried = parts.addresses.is_none() || segment_len <= 0xffff;
            prop_assert_eq!(head.is_ok(), fits && carried);
        }
    }

    /// The upper half of a 64-bit number is found again from any other within 2^31.
    #[test]
    fn sne_is_the_upper_half(wide in (1u64 << 32)..(u64::MAX >> 1), distance: i32) {
        let seq = wide.wrapping_add_signed(distance.into());
        let sne = sne_at(Sne((wide >> 32) as u32), wide as u32, seq as u32);
        prop_assert_eq!(sne, Sne((seq >> 32) as u32));
    }

    /// And as the kernel says it, with 32 bits.
    #[test]
    fn sne_is_that_of_the_kernel(basis: u32, basis_seq: u32, seq: u32) {
        let before = (seq.wrapping_sub(basis_seq) as i32) < 0;
        let expected = if before && seq > basis_seq {
            basis.wrapping_sub(1)
        } else if !before && seq < basis_seq {
            basis.wrapping_add(1)
        } else {
            basis
        };
        prop_assert_eq!(sne_at(Sne(basis), basis_seq, seq), Sne(expected));
    }

    #[test]
    fn macs_are_equal_only_to_themselves(mac: [u8; 12], other: [u8; 12], at in 0..96usize) {
        let mut flipped = mac;
        flipped[at / 8] ^= 1 << (at % 8);
        prop_assert!(tags_equal(&mac, &mac));
        prop_assert!(!tags_equal(&mac, &flipped));
        prop_assert_eq!(tags_equal(&mac, &other), mac == other);
    }
}
