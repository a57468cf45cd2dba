// SPDX-License-Identifier: GPL-2.0

//! What tells that no policy is for a peer: it must never be wrong about that.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;
use tcp_authopt::proto::filter::hash;
use tcp_authopt::proto::filter::Lengths;

use crate::matching::matches;
use crate::support::addr;
use crate::support::any_key;
use crate::support::any_peer;
use crate::support::key;
use crate::support::prefix;
use crate::support::Seen;
use crate::support::With;

/// How many bits of a hash the table of a test takes.
fn upper(number: u64, bits: u32) -> u64 {
    number >> (64 - bits)
}

#[test]
fn an_empty_one_lets_nobody_through() {
    for text in ["10.0.0.1", "fd00::1", "0.0.0.0", "::"] {
        assert!(!Lengths::default().may_match(&addr(text), |_| true));
    }
}

#[test]
fn entries_for_anybody_let_all_through() {
    for spec in [
        key(1, 1),
        key(1, 1).remote("0.0.0.0/0"),
        key(1, 1).port(179),
    ] {
        let lengths = Lengths::of([spec.criteria.shape()].into_iter());
        for text in ["10.0.0.1", "fd00::1"] {
            assert!(lengths.may_match(&addr(text), |_| false));
        }
    }
}

#[test]
fn each_length_is_looked_up() {
    for (net, host) in [
        ("10.0.0.1/32", "10.0.0.1"),
        ("10.0.0.0/8", "10.9.9.9"),
        ("128.0.0.0/1", "255.0.0.1"),
        ("10.0.0.0/8", "::ffff:10.9.9.9"),
        ("fd00::1/128", "fd00::1"),
        ("8000::/1", "fd00::1"),
    ] {
        let shape = key(1, 1).remote(net).criteria.shape();
        let number = hash(&prefix(net));
        let lengths = Lengths::of([shape].into_iter());
        assert!(lengths.may_match(&addr(host), |it| it == number), "{net}");
        assert!(!lengths.may_match(&addr(host), |it| it != number), "{net}");
    }
}

/// Neighbours, and one address in prefixes of all lengths, do not share their bits.
#[test]
fn numbers_are_spread() {
    let hosts = (0..1 << 16).map(|n| format!("10.1.{}.{}/32", n >> 8, n & 255));
    let v4: HashSet<_> = hosts.map(|text| upper(hash(&prefix(&text)), 20)).collect();
    assert!(v4.len() > 60_000, "{}", v4.len());
    let hosts = (0..1 << 16).map(|n: u32| format!("2001:db8:{n:x}::/48"));
    let v6: HashSet<_> = hosts.map(|text| upper(hash(&prefix(&text)), 20)).collect();
    assert!(v6.len() > 60_000, "{}", v6.len());
    let lengths = (1..=32).map(|len| hash(&prefix(&format!("0.0.0.0/{len}"))));
    let lengths: HashSet<_> = lengths.map(|it| upper(it, 16)).collect();
    assert_eq!(lengths.len(), 32);
}

proptest! {
    /// Whoever an entry matches comes through, however small the table is; and with one that is large
    /// enough, hardly anybody else.
    #[test]
    fn nobody_is_overlooked(
        keys in vec(any_key(), 0..30),
        seen in any_peer(),
        bits in 1..=64u32,
    ) {
        let shapes = keys.iter().map(|it| it.criteria.shape());
        let lengths = Lengths::of(shapes);
        let remotes = keys.iter().filter_map(|it| it.criteria.remote);
        let table: HashSet<_> = remotes.map(|it| upper(hash(&it), bits)).collect();
        let as_v4 = Seen {
            addr: seen.addr.unmapped(),
            local: seen.local.unmapped(),
            ..seen
        };
        let matched = keys.iter().any(|it| matches(&it.criteria, &as_v4));
        let through = lengths.may_match(&seen.addr, |it| table.contains(&upper(it, bits)));
        prop_assert!(through || !matched);
        let by_peer = keys.iter().any(|it| {
            let mut criteria = it.criteria;
            (criteria.vrf, criteria.local, criteria.port) = (None, None, None);
            matches(&criteria, &as_v4) || criteria.remote.is_some_and(|it| it.prefixlen() == 0)
        });
        prop_assert!(bits < 64 || through == by_peer);
    }
}
