// SPDX-License-Identifier: GPL-2.0

//! Which keys match a peer: through shapes, as the module looks them up, against one key at a time
//! with plain comparisons.

use std::collections::BTreeSet;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use tcp_authopt::proto::addr::Addr;
use tcp_authopt::proto::addr::Family;
use tcp_authopt::proto::addr::Prefix;
use tcp_authopt::proto::criteria::Criteria;
use tcp_authopt::proto::criteria::Shape;
use tcp_authopt::proto::criteria::CRITERIA_KEY_LEN;
use tcp_authopt::proto::mkt::KeySpec;
use tcp_authopt::proto::vrf::VrfId;

use crate::support;
use crate::support::addr;
use crate::support::any_addr;
use crate::support::any_key;
use crate::support::any_peer;
use crate::support::key;
use crate::support::peer;
use crate::support::prefix;
use crate::support::Seen;
use crate::support::With;

/// The bits of an address, first bit first.
fn bits(addr: Addr) -> Vec<bool> {
    let bit_of = |octet: u8| (0..8).map(move |bit| octet & (0x80 >> bit) != 0);
    addr.octets().iter().copied().flat_map(bit_of).collect()
}

/// The bits of an address among those of IPv6, where IPv4 is `::ffff:0:0/96`.
fn wide(addr: Addr) -> Vec<bool> {
    let mapping = match addr.family() {
        Family::V4 => bits(support::addr("::ffff:0:0"))[..96].to_vec(),
        Family::V6 => Vec::new(),
    };
    [mapping, bits(addr)].concat()
}

/// How long a prefix is among those of IPv6.
pub fn wide_len(prefix: Prefix) -> usize {
    let skipped = 128 - usize::from(prefix.addr().family().bits());
    skipped + usize::from(prefix.prefixlen())
}

/// The rule of the ABI, said plainly: IPv4 is a part of IPv6, but for sockets of IPv4 there is
/// nothing around it.
pub fn matches(criteria: &Criteria, peer: &Seen) -> bool {
    let within = |prefix: Option<Prefix>, addr: Addr| match prefix {
        None => true,
        Some(prefix) => {
            let len = wide_len(prefix);
            let reaches = addr.family() == Family::V6 || len >= 96;
            reaches && wide(prefix.addr())[..len] == wide(addr)[..len]
        }
    };
    criteria.vrf.is_none_or(|VrfId(id)| peer.vrf == id)
        && within(criteria.remote, peer.addr)
        && within(criteria.local, peer.local)
        && criteria.port.is_none_or(|port| peer.ports.contains(&port))
}

fn shape(spec: KeySpec) -> Shape {
    spec.criteria.shape()
}

fn matches_peer(spec: KeySpec, peer: &Seen) -> bool {
    let found = shape(spec)
        .criteria_of(&peer.pair())
        .contains(&Some(spec.criteria));
    assert_eq!(found, matches(&spec.criteria, peer));
    found
}

#[test]
fn unbound_key_matches_both_families() {
    assert!(matches_peer(key(1, 1), &peer("10.0.0.1")));
    assert!(matches_peer(key(1, 1), &peer("fd00::1")));
}

#[test]
fn bound_key_matches_its_prefix() {
    let host = key(1, 1).remote("10.0.0.1/32");
    assert!(matches_peer(host, &peer("10.0.0.1")));
    assert!(!matches_peer(host, &peer("10.0.0.2")));
    let net = key(1, 1).remote("10.0.0.128/25");
    assert!(matches_peer(net, &peer("10.0.0.255")));
    assert!(!matches_peer(net, &peer("10.0.0.127")));
    let net = key(1, 1).remote("fd00::8000:0/97");
    assert!(matches_peer(net, &peer("fd00::ffff:1")));
    assert!(!matches_peer(net, &peer("fd00::7fff:1")));
}

#[test]
fn bound_key_of_length_0_matches_its_family() {
    let any_v4 = key(1, 1).remote("0.0.0.0/0");
    assert!(matches_peer(any_v4, &peer("10.0.0.1")));
    assert!(!matches_peer(any_v4, &peer("fd00::1")));
    assert!(matches_peer(any_v4, &peer("::ffff:10.0.0.1")));
}

#[test]
fn ipv4_and_mapped_are_one_peer() {
    for host in ["::ffff:10.0.0.1/128", "10.0.0.1/32"] {
        let host = key(1, 1).remote(host);
        for (of_v4, of_v6, matches) in [
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.2", "::ffff:10.0.0.2", false),
        ] {
            assert_eq!(matches_peer(host, &peer(of_v4)), matches);
            assert_eq!(matches_peer(host, &peer(of_v6)), matches);
        }
    }
    for net in ["::ffff:10.0.0.0/104", "10.0.0.0/8"] {
        let net = key(1, 1).remote(net);
        for (of_v4, of_v6, matches) in [
            ("10.9.9.9", "::ffff:10.9.9.9", true),
            ("11.0.0.1", "::ffff:11.0.0.1", false),
        ] {
            assert_eq!(matches_peer(net, &peer(of_v4)), matches);
            assert_eq!(matches_peer(net, &peer(of_v6)), matches);
        }
    }
}

/// What is around all mapped addresses has them in it for IPv6 sockets only.
#[test]
fn short_ipv6_prefixes_are_for_ipv6_sockets() {
    for net in ["::fffe:0:0/95", "::/80", "::/0"] {
        let net = key(1, 1).remote(net);
        assert!(matches_peer(net, &peer("::ffff:10.0.0.1")));
        assert!(!matches_peer(net, &peer("10.0.0.1")));
    }
    for all in ["::ffff:0:0/96", "0.0.0.0/0"] {
        let all = key(1, 1).remote(all);
        assert!(matches_peer(all, &peer("::ffff:10.0.0.1")));
        assert!(matches_peer(all, &peer("10.0.0.1")));
        assert!(!matches_peer(all, &peer("::10.0.0.1")));
    }
}

#[test]
fn prefixes_of_mapped_addresses_are_ipv4() {
    for (mapped, v4) in [
        ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
        ("::ffff:10.0.0.0/120", "10.0.0.0/24"),
        ("::ffff:0:0/97", "0.0.0.0/1"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
    ] {
        assert_eq!(prefix(mapped), prefix(v4));
        assert_eq!(wide_len(prefix(mapped)), wide_len(prefix(v4)));
    }
    assert_eq!(prefix("::/95").addr().family(), Family::V6);
    assert_eq!(prefix("::fffe:0:0/96").addr().family(), Family::V6);
    assert_eq!(Prefix::new(addr("::ffff:10.0.0.1"), 127), None);
}

#[test]
fn vrf_of_a_key() {
    let at = |vrf| Seen {
        vrf,
        ..peer("10.0.0.1")
    };
    for vrf in [0, 7, 8, VrfId::UNKNOWN.0] {
        assert!(matches_peer(key(1, 1), &at(vrf)), "any VRF");
        assert_eq!(matches_peer(key(1, 1).vrf(0), &at(vrf)), vrf == 0);
        assert_eq!(matches_peer(key(1, 1).vrf(7), &at(vrf)), vrf == 7);
    }
}

#[test]
fn local_address_of_a_key() {
    let at = |text| Seen {
        local: addr(text),
        ..peer("10.0.0.1")
    };
    let net = key(1, 1).local("10.0.0.0/24");
    assert!(matches_peer(net, &at("10.0.0.9")));
    assert!(!matches_peer(net, &at("10.0.1.9")));
    assert!(matches_peer(key(1, 1).local("0.0.0.0/0"), &at("10.0.1.9")));
    let both = net.remote("10.0.0.1/32");
    assert!(matches_peer(both, &at("10.0.0.9")));
    assert!(!matches_peer(both.remote("10.0.0.2/32"), &at("10.0.0.9")));
}

/// A listener does not know the address until a segment shows it: no key is for that connection
/// which another connection would not have as well.
#[test]
fn what_is_not_known_is_in_no_prefix() {
    for (unknown, nets) in [
        ("0.0.0.0", ["0.0.0.0/0", "0.0.0.0/8"]),
        ("::", ["::/0", "::/64"]),
    ] {
        let seen = Seen {
            local: addr(unknown),
            ..peer(unknown)
        };
        assert!(shape(key(1, 1)).criteria_of(&seen.pair())[0].is_some());
        for net in nets {
            let shape = shape(key(1, 1).local(net));
            assert_eq!(shape.criteria_of(&seen.pair()), [None, None], "{net}");
        }
    }
    let seen = Seen {
        ports: [179, 0],
        ..peer("10.0.0.1")
    };
    assert!(matches_peer(key(1, 1).port(179), &seen));
    assert!(!matches_peer(key(1, 1).port(646), &seen));
}

/// "BGP with 10.0.0.0/8, whoever connects" is one key.
#[test]
fn port_of_either_end() {
    for ports in [[179, 1024], [1024, 179], [179, 179]] {
        let seen = Seen {
            ports,
            ..peer("10.0.0.1")
        };
        assert!(matches_peer(key(1, 1).port(179), &seen));
        assert!(!matches_peer(key(1, 1).port(646), &seen));
        let criteria = shape(key(1, 1).port(179)).criteria_of(&seen.pair());
        assert_eq!(
            criteria.iter().flatten().count(),
            if ports == [179, 179] { 1 } else { 2 }
        );
    }
}

/// "VRF over none; longer peer prefix; longer local prefix; service port over none."
#[test]
fn shapes_in_order_of_preference() {
    let order = [
        shape(key(1, 1).vrf(0).remote("10.0.0.1/32")),
        shape(
            key(1, 1)
                .vrf(7)
                .remote("10.0.0.0/8")
                .local("10.0.0.0/8")
                .port(179),
        ),
        shape(key(1, 1).vrf(7).remote("10.0.0.0/8").local("10.0.0.0/8")),
        shape(
            key(1, 1)
                .vrf(7)
                .remote("10.0.0.0/8")
                .local("10.0.0.0/7")
                .port(179),
        ),
        shape(key(1, 1).vrf(7).remote("10.0.0.0/8").port(179)),
        shape(key(1, 1).vrf(7).remote("10.0.0.0/8")),
        shape(key(1, 1).vrf(0).remote("0.0.0.0/0")),
        shape(key(1, 1).vrf(7)),
        shape(key(1, 1).remote("10.0.0.0/31")),
        shape(key(1, 1).remote("fd00::/126")),
        shape(key(1, 1).remote("10.0.0.0/8")),
        shape(key(1, 1).remote("::ffff:10.0.0.0/103")),
        shape(key(1, 1).remote("0.0.0.0/0")),
        shape(key(1, 1).remote("::/95")),
        shape(key(1, 1).local("10.0.0.1/32")),
        shape(key(1, 1).local("0.0.0.0/0").port(179)),
        shape(key(1, 1).local("0.0.0.0/0")),
        shape(key(1, 1).port(179)),
        shape(key(1, 1)),
    ];
    for pair in order.windows(2) {
        assert!(pair[0] < pair[1], "{pair:?}");
    }
}

#[test]
fn shapes_of_one_length_differ_by_family() {
    let v4 = shape(key(1, 1).remote("10.0.0.0/8"));
    let v6 = shape(key(1, 1).remote("fd00::/104"));
    assert_ne!(v4, v6);
    assert!(v4 < v6 || v6 < v4);
}

#[test]
fn prefixes_that_cannot_be() {
    assert_eq!(Prefix::new(addr("10.0.0.0"), 33), None);
    assert_eq!(Prefix::new(addr("fd00::"), 129), None);
    assert_eq!(Prefix::new(addr("10.0.0.1"), 31), None);
    assert!(Prefix::new(addr("10.0.0.1"), 32).is_some());
    assert_eq!(Prefix::around(addr("10.0.0.1"), 255), prefix("10.0.0.1/32"));
}

#[test]
fn socket_families() {
    assert_eq!(Family::from_af(2), Some(Family::V4));
    assert_eq!(Family::from_af(10), Some(Family::V6));
    assert_eq!(Family::from_af(0), None);
}

#[test]
fn unmapping() {
    assert_eq!(addr("::ffff:10.0.0.1").unmapped(), addr("10.0.0.1"));
    assert_eq!(addr("10.0.0.1").mapped(), addr("::ffff:10.0.0.1"));
    for same in ["10.0.0.1", "fd00::1", "::10.0.0.1", "1::ffff:10.0.0.1"] {
        assert_eq!(addr(same).unmapped(), addr(same));
    }
    for same in ["fd00::1", "::ffff:10.0.0.1"] {
        assert_eq!(addr(same).mapped(), addr(same));
    }
}

proptest! {
    /// One exact match for each shape in use finds what a walk over all keys finds, the most
    /// specific first.
    #[test]
    fn shapes_find_what_a_walk_finds(keys in vec(any_key(), 0..40), peer in any_peer()) {
        let mut table: HashMap<[u8; CRITERIA_KEY_LEN], Vec<usize>> = HashMap::new();
        let mut shapes = BTreeSet::new();
        for (index, spec) in keys.iter().enumerate() {
            table.entry(spec.criteria.to_key()).or_default().push(index);
            shapes.insert(spec.criteria.shape());
        }
        let found: Vec<usize> = shapes
            .iter()
            .flat_map(|shape| shape.criteria_of(&peer.pair()))
            .flatten()
            .flat_map(|criteria| table.get(&criteria.to_key()).cloned().unwrap_or_default())
            .collect();

        let mut walked: Vec<usize> = (0..keys.len())
            .filter(|&index| matches(&keys[index].criteria, &peer))
            .collect();
        let rank = |index: &usize| {
            let Criteria { vrf, remote, local, port } = keys[*index].criteria;
            let len = |prefix: Option<Prefix>| prefix.map_or(-1, |it| wide_len(it) as i32);
            (vrf.is_none(), -len(remote), -len(local), port.is_none())
        };
        // Of two ports either may come first: the order of a lookup is that of shapes.
        walked.sort_by_key(|index| (rank(index), *index));
        let ranks: Vec<_> = found.iter().map(rank).collect();
        prop_assert!(ranks.is_sorted());
        let mut found = found;
        found.sort_by_key(|index| (rank(index), *index));
        prop_assert_eq!(found, walked);
    }

    #[test]
    fn criteria_and_their_keys_are_one_to_one(a in any_key(), b in any_key()) {
        let (a, b) = (a.criteria, b.criteria);
        prop_assert_eq!(a == b, a.to_key() == b.to_key());
    }

    /// A total order, with equality only of equal shapes.
    #[test]
    fn shapes_are_ordered(a in any_key(), b in any_key(), c in any_key()) {
        let (a, b, c) = (shape(a), shape(b), shape(c));
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b).is_eq(), a == b);
        prop_assert!(!(a < b && b < c) || a < c);
    }

    #[test]
    fn masking_clears_all_after_the_prefix(
        octets: [u8; 16],
        v4: bool,
        len in prop_oneof![0..=128u8, any::<u8>()],
    ) {
        let [a, b, c, d, ..] = octets;
        let addr = if v4 { Addr::v4([a, b, c, d]) } else { Addr::v6(octets) };
        let mut expected = bits(addr);
        for bit in expected.iter_mut().skip(len.into()) {
            *bit = false;
        }
        prop_assert_eq!(&bits(addr.masked(len)), &expected);
        let fits = len <= addr.family().bits() && bits(addr) == expected;
        prop_assert_eq!(Prefix::new(addr, len).is_some(), fits);
    }

    #[test]
    fn any_addr_is_in_its_own_prefixes(addr in any_addr(), len in 0..=128u8) {
        let prefix = Prefix::around(addr, len);
        prop_assert_eq!(Prefix::new(prefix.addr(), prefix.prefixlen()), Some(prefix));
    }
}
