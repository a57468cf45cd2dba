// SPDX-License-Identifier: GPL-2.0

//! Headers and options: each malformed form, and properties of the parser.

use proptest::prelude::*;
use tcp_authopt::proto::wire::joins_mptcp;
use tcp_authopt::proto::wire::parse_auth;
use tcp_authopt::proto::wire::AoOption;
use tcp_authopt::proto::wire::Auth;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::KeyIds;
use tcp_authopt::proto::wire::Malformed;
use tcp_authopt::proto::wire::TcpHeader;

const AO: [u8; 16] = [29, 16, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
const MD5: [u8; 18] = [19, 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A header with these options, which must fill whole words.
fn header(options: &[u8]) -> Vec<u8> {
    assert!(options.len() % 4 == 0 && options.len() <= 40);
    let mut bytes = vec![0; 20];
    bytes[12] = (5 + options.len() as u8 / 4) << 4;
    bytes.extend(options);
    bytes
}

fn auth(options: &[u8]) -> Result<Auth, Malformed> {
    parse_auth(&TcpHeader::parse(&header(options)).unwrap())
}

fn ids(keyid: u8, rnext: u8) -> KeyIds {
    KeyIds {
        keyid: KeyId(keyid),
        rnext: KeyId(rnext),
    }
}

fn ao_at(offset: usize) -> Auth {
    Auth::Ao(AoOption {
        offset,
        ids: ids(3, 4),
        mac: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
    })
}

/// RFC 8684 3.1 and 3.2: the subtype is the upper half of the third byte.
#[test]
fn options_that_join_mptcp() {
    let joins = |options: &[u8]| joins_mptcp(&TcpHeader::parse(&header(options)).unwrap());
    let join = [30, 12, 0x10, 7, 1, 2, 3, 4, 5, 6, 7, 8];
    let capable = [30, 4, 0x01, 0x01];
    assert!(joins(&join));
    assert!(joins(&[&AO[..], &join].concat()));
    assert!(joins(&[&[1, 1, 1, 1], &capable[..], &join].concat()));
    assert!(!joins(&capable));
    assert!(!joins(&AO));
    assert!(!joins(&[]));
    assert!(
        !joins(&[&[0, 0, 0, 0], &join[..]].concat()),
        "behind the end"
    );
    for cut in [
        &[1, 1, 1, 30][..],
        &[1, 1, 30, 2],
        &[1, 1, 1, 5],
        &[5, 0, 1, 1],
    ] {
        assert!(!joins(cut), "{cut:?}");
    }
}

#[test]
fn header_fields() {
    let bytes = [
        0x00, 0xb3, 0xe9, 0xd7, 0x11, 0xc1, 0x42, 0x61, 0xfb, 0xfb, 0xab, 0x5b, 0x50, 0x12, 0xff,
        0xff, 0x37, 0x76, 0x00, 0x00, 0xda, 0x7a,
    ];
    let header = TcpHeader::parse(&bytes).unwrap();
    assert_eq!((header.source(), header.dest()), (179, 59863));
    assert_eq!(header.seq(), 0x11c14261);
    assert_eq!(header.bytes(), &bytes[..20]);
    assert!(header.options().is_empty());
}

#[test]
fn header_flags() {
    for (flags, syn, ack) in [
        (0x00, false, false),
        (0x02, true, false),
        (0x10, false, true),
        (0xed, false, false),
        (0xff, true, true),
    ] {
        let mut bytes = header(&[]);
        bytes[13] = flags;
        let header = TcpHeader::parse(&bytes).unwrap();
        assert_eq!((header.syn(), header.ack()), (syn, ack), "{flags:#x}");
    }
}

#[test]
fn header_length_that_cannot_be() {
    let whole = header(&[1; 12]);
    assert!(TcpHeader::parse(&whole).is_ok());
    for len in 0..whole.len() {
        assert_eq!(
            TcpHeader::parse(&whole[..len]).unwrap_err(),
            Malformed::HeaderLength,
            "{len} bytes"
        );
    }
    for words in 0..5 {
        let mut short = whole.clone();
        short[12] = words << 4;
        assert_eq!(
            TcpHeader::parse(&short).unwrap_err(),
            Malformed::HeaderLength,
            "{words} words"
        );
    }
}

#[test]
fn no_option_and_other_options() {
    assert_eq!(auth(&[]), Ok(Auth::None));
    assert_eq!(auth(&[1, 1, 1, 1]), Ok(Auth::None));
    assert_eq!(auth(&[2, 4, 5, 180, 1, 3, 3, 7]), Ok(Auth::None));
    assert_eq!(auth(&[254, 2, 253, 6, 9, 9, 9, 9]), Ok(Auth::None));
}

#[test]
fn authentication_is_found_anywhere() {
    assert_eq!(auth(&AO), Ok(ao_at(20)));
    assert_eq!(auth(&[&[1, 1, 1, 1][..], &AO].concat()), Ok(ao_at(24)));
    assert_eq!(auth(&[&[2, 4, 5, 180][..], &AO].concat()), Ok(ao_at(24)));
    assert_eq!(auth(&[&[1][..], &AO, &[1, 1, 1]].concat()), Ok(ao_at(21)));
    assert_eq!(auth(&[&MD5[..], &[1, 1]].concat()), Ok(Auth::Md5));
}

#[test]
fn nothing_after_the_end_of_the_list_counts() {
    assert_eq!(auth(&[&[0, 0, 0, 0][..], &AO].concat()), Ok(Auth::None));
    assert_eq!(auth(&[&AO[..], &[0, 29, 16, 0]].concat()), Ok(ao_at(20)));
    assert_eq!(auth(&[&AO[..], &[0, 7, 0, 0]].concat()), Ok(ao_at(20)));
}

/// RFC 5925 2.2: more than one TCP-AO option.
#[test]
fn two_ao_r2() {
    assert_eq!(auth(&[AO, AO].concat()), Err(Malformed::TwoAo));
    // Of other lengths too.
    let short = [29, 4, 3, 4];
    assert_eq!(auth(&[&AO[..], &short].concat()), Err(Malformed::TwoAo));
    assert_eq!(auth(&[&short[..], &AO].concat()), Err(Malformed::TwoAo));
}

/// RFC 5925 2.2: TCP-AO and MD5 in one segment, in either order.
#[test]
fn ao_and_md5_r1() {
    let pad = &[1, 1][..];
    for options in [[&AO[..], &MD5, pad], [&MD5[..], &AO, pad]] {
        assert_eq!(auth(&options.concat()), Err(Malformed::AoAndMd5));
    }
}

#[test]
fn two_md5() {
    assert_eq!(auth(&[MD5, MD5].concat()), Err(Malformed::TwoMd5));
}

/// RFC 5925 2.2: a length under 4, or inconsistent with the header.
#[test]
fn ao_length_that_cannot_be_r3() {
    assert_eq!(auth(&[29, 0, 0, 0]), Err(Malformed::OptionLength));
    assert_eq!(auth(&[29, 1, 0, 0]), Err(Malformed::OptionLength));
    assert_eq!(auth(&[29, 2, 1, 1]), Err(Malformed::AoLength));
    assert_eq!(auth(&[29, 3, 0, 1]), Err(Malformed::AoLength));
    for len in 9..=255 {
        let options = [29, len, 0, 0, 0, 0, 0, 0];
        assert_eq!(auth(&options), Err(Malformed::OptionLength), "{len}");
    }
    assert_eq!(auth(&[1, 1, 1, 29]), Err(Malformed::OptionLength));
}

#[test]
fn ao_of_a_length_that_is_not_ours() {
    for len in (4..=40usize).filter(|&len| len != 16) {
        let mut options = vec![1; len.next_multiple_of(4)];
        options[..2].copy_from_slice(&[29, len as u8]);
        assert_eq!(auth(&options), Ok(Auth::AoOfOtherLength), "{len}");
    }
}

#[test]
fn md5_length_that_cannot_be() {
    for len in (2..=40usize).filter(|&len| len != 18) {
        let mut options = vec![1; len.next_multiple_of(4)];
        options[..2].copy_from_slice(&[19, len as u8]);
        assert_eq!(auth(&options), Err(Malformed::OptionLength), "{len}");
    }
}

#[test]
fn other_option_length_that_cannot_be() {
    for options in [[2, 0, 1, 1], [2, 1, 1, 1], [2, 5, 1, 1], [1, 1, 1, 8]] {
        assert_eq!(auth(&options), Err(Malformed::OptionLength), "{options:?}");
        // Before TCP-AO and after it.
        let before = [&options[..], &AO].concat();
        assert_ne!(auth(&before), Ok(ao_at(24)), "{options:?}");
        let after = [&AO[..], &options].concat();
        assert_eq!(auth(&after), Err(Malformed::OptionLength), "{options:?}");
    }
}

#[test]
fn emit_writes_the_whole_option() {
    let mut option = [0xaa; 16];
    AoOption::emit(&mut option, ids(0, 255));
    assert_eq!(option, [29, 16, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// An option as it stands in a list.
#[derive(Clone, Debug)]
enum Item {
    Nop,
    Other(u8, Vec<u8>),
    Md5([u8; 16]),
    Ao(u8, u8, Vec<u8>),
}

impl Item {
    fn bytes(&self) -> Vec<u8> {
        let with_len = |kind: u8, body: &[u8]| [&[kind, body.len() as u8 + 2], body].concat();
        match self {
            Item::Nop => vec![1],
            Item::Other(kind, body) => with_len(*kind, body),
            Item::Md5(digest) => with_len(19, digest),
            Item::Ao(keyid, rnext, mac) => with_len(29, &[&[*keyid, *rnext], &mac[..]].concat()),
        }
    }
}

fn any_item() -> impl Strategy<Value = Item> {
    let body = || proptest::collection::vec(any::<u8>(), 0..6);
    let mac = || prop_oneof![3 => Just(12), 1 => 0..14usize];
    prop_oneof![
        2 => Just(Item::Nop),
        2 => (2..=18u8, body()).prop_map(|(kind, body)| Item::Other(kind, body)),
        1 => (30..=255u8, body()).prop_map(|(kind, body)| Item::Other(kind, body)),
        1 => any::<[u8; 16]>().prop_map(Item::Md5),
        3 => (any::<[u8; 14]>(), mac())
            .prop_map(|(bytes, mac)| Item::Ao(bytes[0], bytes[1], bytes[2..2 + mac.min(12)].to_vec())),
    ]
}

/// Lists that fit a header, and their bytes with padding.
fn any_list() -> impl Strategy<Value = (Vec<Item>, Vec<u8>)> {
    let items = proptest::collection::vec(any_item(), 0..6);
    (items, 0..=1u8).prop_map(|(mut items, pad)| {
        let bytes = |items: &[Item]| items.iter().flat_map(Item::bytes).collect::<Vec<_>>();
        while bytes(&items).len() > 40 {
            items.pop();
        }
        let mut options = bytes(&items);
        options.resize(options.len().next_multiple_of(4), pad);
        (items, options)
    })
}

proptest! {
    #[test]
    fn parsing_never_panics(segment in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(header) = TcpHeader::parse(&segment) {
            prop_assert!(segment.starts_with(header.bytes()));
            prop_assert_eq!(header.bytes()[20..].len(), header.options().len());
            if let Ok(Auth::Ao(option)) = parse_auth(&header) {
                prop_assert_eq!(header.bytes()[option.offset], 29);
                prop_assert_eq!(&header.bytes()[option.offset + 4..][..12], &option.mac);
            }
        }
    }

    /// The same with a data offset that fits, so that options are reached each time.
    #[test]
    fn options_never_panic(words in 0..=10usize, options: [[u8; 4]; 10]) {
        let _ = auth(&options[..words].concat());
    }

    #[test]
    fn lists_parse_to_what_they_hold((items, options) in any_list()) {
        let count = |of: fn(&Item) -> bool| items.iter().filter(|item| of(item)).count();
        let ao = count(|item| matches!(item, Item::Ao(..)));
        let md5 = count(|item| matches!(item, Item::Md5(_)));
        let found = auth(&options);
        match (ao, md5) {
            (0, 0) => prop_assert_eq!(found, Ok(Auth::None)),
            (0, 1) => prop_assert_eq!(found, Ok(Auth::Md5)),
            (1, 0) => {
                let at = items.iter().position(|item| matches!(item, Item::Ao(..))).unwrap();
                let before: usize = items[..at].iter().map(|item| item.bytes().len()).sum();
                let Item::Ao(keyid, rnext, mac) = &items[at] else { unreachable!() };
                let expected = match mac[..].try_into() {
                    Ok(mac) => Auth::Ao(AoOption {
                        offset: 20 + before,
                        ids: ids(*keyid, *rnext),
                        mac,
                    }),
                    Err(_) => Auth::AoOfOtherLength,
                };
                prop_assert_eq!(found, Ok(expected));
            }
            _ => {
                let second = [Malformed::TwoAo, Malformed::TwoMd5, Malformed::AoAndMd5];
                prop_assert!(second.contains(&found.unwrap_err()));
            }
        }
    }

    #[test]
    fn emitted_options_parse_back(keyid: u8, rnext: u8, before in 0..=6usize) {
        let mut option = [0xff; 16];
        AoOption::emit(&mut option, ids(keyid, rnext));
        let options = [&vec![1; before * 4][..], &option].concat();
        let expected = AoOption {
            offset: 20 + before * 4,
            ids: ids(keyid, rnext),
            mac: [0; 12],
        };
        prop_assert_eq!(auth(&options), Ok(Auth::Ao(expected)));
    }
}
