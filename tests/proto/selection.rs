// SPDX-License-Identifier: GPL-2.0

//! Choosing keys: each rule of the ABI, and properties against a choice written differently.

use std::cmp::Reverse;

use proptest::collection::vec;
use proptest::prelude::*;
use tcp_authopt::proto::mkt::KeySpec;
use tcp_authopt::proto::mkt::Lifetime;
use tcp_authopt::proto::mkt::Window;
use tcp_authopt::proto::select::any_match;
use tcp_authopt::proto::select::recv_key;
use tcp_authopt::proto::select::send_and_rnext_key;
use tcp_authopt::proto::select::send_key;
use tcp_authopt::proto::select::Chosen;
use tcp_authopt::proto::select::Preferences;
use tcp_authopt::proto::select::Rule;
use tcp_authopt::proto::uapi::key_flag::*;
use tcp_authopt::proto::wire::KeyId;

use crate::matching::matches;
use crate::matching::wide_len;
use crate::support::any_key;
use crate::support::any_peer;
use crate::support::entries;
use crate::support::key;
use crate::support::Entry;
use crate::support::With;

const NOW: u64 = 1000;

/// That of a namespace of which nothing was set.
const DEFAULT: Preferences = Preferences {
    rule: Rule::LongestLifetime,
    accept_tolerance: 0,
};
const LATEST_START: Preferences = Preferences {
    rule: Rule::LatestStart,
    accept_tolerance: 0,
};

const fn tolerant(seconds: u32) -> Preferences {
    Preferences {
        rule: Rule::LongestLifetime,
        accept_tolerance: seconds,
    }
}

/// The key to ask for, of those that are chosen in one pass.
fn rnext_key<'k>(
    keys: impl Iterator<Item = Entry<'k>>,
    preferences: Preferences,
    now: u64,
) -> Chosen<Entry<'k>> {
    send_and_rnext_key(keys, None, preferences, now).1
}

/// Index of the key to send with; in whichever order the keys come.
fn send_by(
    preferences: Preferences,
    keys: &[KeySpec],
    preferred: impl Into<Option<u8>>,
) -> Option<usize> {
    let preferred = preferred.into().map(KeyId);
    let mut backwards: Vec<Entry<'_>> = entries(keys).collect();
    backwards.reverse();
    let chosen = index(send_key(entries(keys), preferred, preferences, NOW));
    let again = send_key(backwards.into_iter(), preferred, preferences, NOW);
    assert_eq!(chosen, index(again));
    chosen
}

fn rnext_by(preferences: Preferences, keys: &[KeySpec]) -> Option<usize> {
    index(rnext_key(entries(keys), preferences, NOW))
}

fn recv_by(preferences: Preferences, keys: &[KeySpec], keyid: u8) -> Option<usize> {
    index(recv_key(entries(keys), KeyId(keyid), preferences, NOW))
}

fn send(keys: &[KeySpec], preferred: impl Into<Option<u8>>) -> Option<usize> {
    send_by(DEFAULT, keys, preferred)
}

fn rnext(keys: &[KeySpec]) -> Option<usize> {
    rnext_by(DEFAULT, keys)
}

fn recv(keys: &[KeySpec], keyid: u8) -> Option<usize> {
    recv_by(DEFAULT, keys, keyid)
}

fn index(chosen: Chosen<Entry<'_>>) -> Option<usize> {
    chosen.key.map(|entry| entry.index)
}

// Sending.

#[test]
fn send_no_key() {
    assert_eq!(send(&[], None), None);
    assert_eq!(send(&[], 1), None);
}

#[test]
fn send_key_must_be_valid_now() {
    assert_eq!(send(&[key(1, 1).send(NOW + 1, None)], 1), None, "not yet");
    assert_eq!(send(&[key(1, 1).send(None, NOW - 1)], 1), None, "no longer");
    assert_eq!(
        send(&[key(1, 1).send(NOW, NOW)], 1),
        Some(0),
        "both ends included"
    );
    assert_eq!(
        send(&[key(1, 1).recv(None, NOW - 1)], 1),
        Some(0),
        "to receive: no matter"
    );
}

#[test]
fn send_nosend_overrides_the_lifetime() {
    assert_eq!(send(&[key(1, 1).send(0, None).flags(NOSEND)], 1), None);
    assert_eq!(send(&[key(1, 1).flags(NORECV)], 1), Some(0));
}

#[test]
fn send_validity_comes_before_the_preferred_id() {
    let keys = [key(1, 1).send(None, NOW - 1), key(2, 2)];
    assert_eq!(send(&keys, 1), Some(1));
    let keys = [key(1, 1).flags(NOSEND), key(2, 2)];
    assert_eq!(send(&keys, 1), Some(1));
}

#[test]
fn send_preferred_id_comes_before_specificity() {
    let keys = [key(1, 1).vrf(7).remote("10.0.0.1/32"), key(2, 2)];
    assert_eq!(send(&keys, 2), Some(1));
    assert_eq!(send(&keys, 1), Some(0));
    assert_eq!(send(&keys, None), Some(0));
}

#[test]
fn send_preferred_id_that_no_key_has_is_ignored() {
    assert_eq!(send(&[key(1, 1), key(2, 2)], 3), Some(0));
}

#[test]
fn send_preferred_id_may_be_0() {
    let keys = [key(0, 0).send(None, NOW), key(1, 1)];
    assert_eq!(
        send(&keys, None),
        Some(1),
        "nothing received is no preference"
    );
    assert_eq!(send(&keys, 0), Some(0));
}

#[test]
fn send_vrf_comes_before_prefix() {
    let keys = [key(1, 1).remote("10.0.0.1/32"), key(2, 2).vrf(7)];
    assert_eq!(send(&keys, None), Some(1));
    let keys = [key(1, 1).remote("10.0.0.1/32"), key(2, 2).vrf(0)];
    assert_eq!(send(&keys, None), Some(1));
}

#[test]
fn send_longer_prefix_comes_first() {
    let keys = [
        key(1, 1).remote("10.0.0.0/24"),
        key(2, 2).remote("10.0.0.0/25"),
    ];
    assert_eq!(send(&keys, None), Some(1));
}

#[test]
fn send_bound_comes_before_unbound() {
    let keys = [key(1, 1), key(2, 2).remote("0.0.0.0/0")];
    assert_eq!(send(&keys, None), Some(1));
}

#[test]
fn send_less_specific_key_where_no_more_specific_one_is_valid() {
    let keys = [
        key(1, 1),
        key(2, 2).remote("10.0.0.1/32").send(NOW + 1, None),
    ];
    assert_eq!(send(&keys, None), Some(0));
}

#[test]
fn send_specificity_comes_before_validity() {
    let keys = [key(1, 1), key(2, 2).remote("10.0.0.0/8").send(None, NOW)];
    assert_eq!(send(&keys, None), Some(1));
}

#[test]
fn send_longer_validity_comes_first() {
    let keys = [key(1, 1).send(None, NOW + 5), key(2, 2).send(None, NOW + 6)];
    assert_eq!(send(&keys, None), Some(1));
    let keys = [key(1, 1).send(None, NOW + 5), key(2, 2)];
    assert_eq!(send(&keys, None), Some(1), "no end is the longest");
    let keys = [key(2, 2).send(0, None), key(1, 1).send(NOW, None)];
    assert_eq!(send(&keys, None), Some(1), "the begin does not count");
    let keys = [key(1, 1).recv(None, NOW), key(2, 2)];
    assert_eq!(send(&keys, None), Some(0), "nor does validity to receive");
}

#[test]
fn send_lower_id_comes_last() {
    assert_eq!(send(&[key(2, 1), key(1, 2)], None), Some(1));
    assert_eq!(send(&[key(255, 1), key(0, 2)], None), Some(1));
}

/// Two keys of one id and the same criteria are there only where the sysctl allows overlap.
#[test]
fn send_newer_of_overlapping_keys() {
    assert_eq!(send(&[key(1, 1), key(1, 2)], None), Some(1));
    assert_eq!(send(&[key(1, 1), key(1, 2)], 1), Some(1));
}

#[test]
fn send_next_match_once_the_key_in_use_is_deleted() {
    let keys = [key(2, 2), key(1, 1), key(3, 3).remote("10.0.0.1/32")];
    assert_eq!(send(&keys, 3), Some(2));
    assert_eq!(send(&keys[..2], 3), Some(1));
    assert_eq!(send(&keys[..1], 3), Some(0));
}

// The key to ask for.

#[test]
fn rnext_key_must_be_valid_to_receive() {
    assert_eq!(rnext(&[]), None);
    assert_eq!(rnext(&[key(1, 1).recv(NOW + 1, None)]), None);
    assert_eq!(rnext(&[key(1, 1).flags(NORECV)]), None);
    assert_eq!(
        rnext(&[key(1, 1).recv(NOW, NOW).send(None, 0).flags(NOSEND)]),
        Some(0)
    );
}

#[test]
fn rnext_order() {
    let keys = [key(1, 1).remote("10.0.0.1/32"), key(2, 2).vrf(7)];
    assert_eq!(rnext(&keys), Some(1), "VRF");
    let keys = [
        key(1, 1).remote("10.0.0.0/8"),
        key(2, 2).remote("10.0.0.0/9"),
    ];
    assert_eq!(rnext(&keys), Some(1), "prefix");
    let keys = [key(1, 1), key(2, 2).remote("0.0.0.0/0").recv(None, NOW)];
    assert_eq!(rnext(&keys), Some(1), "bound before validity");
    let keys = [key(1, 1).recv(None, NOW + 5), key(2, 2)];
    assert_eq!(rnext(&keys), Some(1), "validity to receive");
    let keys = [key(1, 1).send(None, NOW), key(2, 2)];
    assert_eq!(rnext(&keys), Some(0), "not that to send");
    assert_eq!(rnext(&[key(1, 9), key(2, 8)]), Some(1), "lower recv_id");
    assert_eq!(rnext(&[key(1, 1), key(2, 1)]), Some(1), "newer");
}

// Receiving.

#[test]
fn recv_key_has_the_keyid() {
    let keys = [key(1, 11), key(11, 2)];
    assert_eq!(recv(&keys, 11), Some(0));
    assert_eq!(recv(&keys, 2), Some(1));
    assert_eq!(recv(&keys, 1), None, "a send_id does not count");
}

#[test]
fn recv_key_must_be_valid_to_receive() {
    assert_eq!(recv(&[key(1, 1).recv(NOW + 1, None)], 1), None, "not yet");
    assert_eq!(recv(&[key(1, 1).recv(None, NOW - 1)], 1), None, "no longer");
    assert_eq!(
        recv(&[key(1, 1).recv(NOW, NOW)], 1),
        Some(0),
        "both ends included"
    );
    assert_eq!(recv(&[key(1, 1).flags(NORECV)], 1), None);
    assert_eq!(recv(&[key(1, 1).flags(NOSEND).send(None, 0)], 1), Some(0));
}

/// RFC 8177 2.2: any key that is valid to accept, not only the one asked for.
#[test]
fn recv_any_valid_key_r41() {
    let keys = [key(1, 1), key(2, 2), key(3, 3)];
    for keyid in 1..=3 {
        assert_eq!(recv(&keys, keyid), Some(usize::from(keyid) - 1));
    }
}

#[test]
fn recv_most_specific_only_r10() {
    let keys = [key(1, 1), key(2, 1).vrf(7), key(3, 1).remote("10.0.0.1/32")];
    assert_eq!(recv(&keys, 1), Some(1));
    let keys = [
        key(1, 1),
        key(3, 1).remote("10.0.0.1/32"),
        key(2, 1).remote("10.0.0.0/8"),
    ];
    assert_eq!(recv(&keys, 1), Some(1));
    let keys = [
        key(1, 1),
        key(2, 1).remote("10.0.0.1/32").recv(None, NOW - 1),
    ];
    assert_eq!(recv(&keys, 1), Some(0), "among the valid");
}

#[test]
fn recv_newer_of_overlapping_keys() {
    let keys = [key(1, 1), key(2, 1).recv(None, NOW)];
    assert_eq!(recv(&keys, 1), Some(1), "validity does not count");
}

// The other rule.

#[test]
fn default_preferences() {
    assert_eq!(Preferences::default(), DEFAULT);
}

#[test]
fn latest_start_comes_first() {
    let keys = [key(1, 1).send(NOW - 2, None), key(2, 2).send(NOW - 1, NOW)];
    assert_eq!(send(&keys, None), Some(0));
    assert_eq!(send_by(LATEST_START, &keys, None), Some(1));
    let keys = [key(1, 1), key(2, 2).send(1, NOW)];
    assert_eq!(
        send_by(LATEST_START, &keys, None),
        Some(1),
        "no begin is the earliest"
    );
    let keys = [key(1, 1), key(2, 2).recv(NOW, None)];
    assert_eq!(
        send_by(LATEST_START, &keys, None),
        Some(0),
        "the begin to receive does not count"
    );
}

#[test]
fn latest_start_of_keys_valid_now() {
    let keys = [
        key(1, 1).send(NOW - 3, None),
        key(2, 2).send(NOW + 1, None),
        key(3, 3).send(NOW - 2, NOW - 1),
    ];
    assert_eq!(send_by(LATEST_START, &keys, None), Some(0));
}

#[test]
fn latest_start_comes_after_preference_and_specificity() {
    let keys = [key(1, 1).remote("10.0.0.1/32"), key(2, 2).send(NOW, None)];
    assert_eq!(send_by(LATEST_START, &keys, None), Some(0));
    let keys = [key(1, 1), key(2, 2).send(NOW, None)];
    assert_eq!(send_by(LATEST_START, &keys, 1), Some(0));
}

#[test]
fn latest_start_goes_on_as_before() {
    let keys = [key(1, 1).send(5, NOW), key(2, 2).send(5, NOW + 1)];
    assert_eq!(send_by(LATEST_START, &keys, None), Some(1), "longer");
    let keys = [key(2, 2).send(0, None), key(1, 1)];
    assert_eq!(send_by(LATEST_START, &keys, None), Some(1), "lower id");
    let keys = [key(1, 1).send(5, None), key(1, 2).send(5, None)];
    assert_eq!(send_by(LATEST_START, &keys, None), Some(1), "newer");
}

/// Otherwise one end would ask for the key that the other end leaves.
#[test]
fn latest_start_decides_which_key_to_ask_for() {
    let keys = [key(1, 1).recv(NOW - 2, None), key(2, 2).recv(NOW - 1, NOW)];
    assert_eq!(rnext(&keys), Some(0));
    assert_eq!(rnext_by(LATEST_START, &keys), Some(1));
    let keys = [key(1, 1), key(2, 2).send(NOW, None)];
    assert_eq!(rnext_by(LATEST_START, &keys), Some(0), "not that to send");
}

#[test]
fn latest_start_does_not_count_on_receipt() {
    let keys = [key(1, 1).remote("10.0.0.0/8"), key(2, 1).recv(NOW, None)];
    assert_eq!(recv_by(LATEST_START, &keys, 1), Some(0));
}

// The tolerance.

#[test]
fn tolerance_widens_the_receive_lifetime() {
    let ended = [key(1, 1).recv(None, NOW - 5)];
    let begins = [key(1, 1).recv(NOW + 5, None)];
    for keys in [&ended, &begins] {
        assert_eq!(recv_by(tolerant(4), keys, 1), None);
        assert_eq!(recv_by(tolerant(5), keys, 1), Some(0));
        assert_eq!(recv_by(tolerant(u32::MAX), keys, 1), Some(0));
    }
}

#[test]
fn tolerance_is_for_receipt_only() {
    let ended = key(1, 1).send(None, NOW - 1).recv(None, NOW - 1);
    assert_eq!(send_by(tolerant(9), &[ended], 1), None);
    assert_eq!(rnext_by(tolerant(9), &[ended]), None);
    let keys = [key(1, 1).recv(None, NOW), key(2, 2).recv(NOW + 1, None)];
    assert_eq!(
        rnext_by(tolerant(9), &keys),
        Some(0),
        "the next one is not asked for yet"
    );
}

#[test]
fn tolerance_does_not_override_norecv() {
    assert_eq!(recv_by(tolerant(9), &[key(1, 1).flags(NORECV)], 1), None);
}

#[test]
fn tolerance_ends_with_time() {
    let tolerance = u32::MAX;
    let first = Lifetime {
        begin: Some(5),
        end: Some(5),
    };
    let last = Lifetime {
        begin: Some(u64::MAX - 5),
        end: Some(u64::MAX - 5),
    };
    assert_eq!(first.widened(tolerance).begin, Some(0));
    assert_eq!(last.widened(tolerance).end, Some(u64::MAX));
    assert_eq!(Lifetime::default().widened(9), Lifetime::default());
}

#[test]
fn tolerance_hides_no_valid_key() {
    let specific = key(2, 1).remote("10.0.0.1/32");
    for lifetime in [
        specific.recv(None, NOW - 1),
        specific.recv(NOW + 1, None),
        key(2, 1).recv(None, NOW - 1),
    ] {
        assert_eq!(recv_by(tolerant(1), &[key(1, 1), lifetime], 1), Some(0));
        let ended = key(1, 1).recv(None, NOW - 1);
        assert_eq!(
            recv_by(tolerant(1), &[ended, lifetime], 1),
            Some(1),
            "of the tolerated ones the most specific, or the newer"
        );
    }
}

// Which connections are protected.

#[test]
fn any_key_protects_valid_or_not() {
    assert!(!any_match(entries(&[])));
    let unusable = key(1, 1).flags(NOSEND | NORECV).send(None, 0).recv(None, 0);
    assert!(any_match(entries(&[unusable])));
}

// How long an answer holds.

const fn window(from: u64, until: u64) -> Window {
    Window { from, until }
}

fn send_holds(keys: &[KeySpec]) -> Window {
    send_key(entries(keys), None, DEFAULT, NOW).holds
}

#[test]
fn holds_for_ever_without_lifetimes() {
    assert_eq!(send_holds(&[]), Window::ALWAYS);
    assert_eq!(send_holds(&[key(1, 1), key(2, 2)]), Window::ALWAYS);
    assert_eq!(send_holds(&[key(1, 1).recv(NOW, NOW)]), Window::ALWAYS);
    let nosend = key(1, 1).flags(NOSEND).send(NOW, NOW);
    assert_eq!(send_holds(&[nosend]), Window::ALWAYS);
}

#[test]
fn holds_between_the_edges_of_all_keys() {
    let keys = [
        key(1, 1).send(900, 1100),
        key(2, 2).send(None, 1050),
        key(3, 3).send(950, None),
    ];
    assert_eq!(send_holds(&keys), window(950, 1050));
}

#[test]
fn holds_until_a_key_begins() {
    assert_eq!(
        send_holds(&[key(1, 1), key(2, 2).send(1001, None)]),
        window(0, 1000)
    );
}

#[test]
fn holds_back_to_where_a_key_ended() {
    let keys = [key(1, 1), key(2, 2).send(None, 999)];
    assert_eq!(send_holds(&keys), window(1000, u64::MAX));
}

#[test]
fn holds_at_the_ends_of_time() {
    let whole = key(1, 1).send(0, u64::MAX);
    assert_eq!(send_holds(&[whole]), Window::ALWAYS);
    let last = key(1, 1).send(u64::MAX, u64::MAX);
    assert_eq!(send_holds(&[last]), window(0, u64::MAX - 1));
    let first = key(1, 1).send(0, 0);
    assert_eq!(send_holds(&[first]), window(1, u64::MAX));
}

#[test]
fn holds_only_for_keys_with_the_keyid_on_receipt() {
    let keys = [key(1, 1), key(2, 2).recv(NOW, NOW)];
    let holds = |keyid| recv_key(entries(&keys), KeyId(keyid), DEFAULT, NOW).holds;
    assert_eq!(holds(1), Window::ALWAYS);
    assert_eq!(holds(2), window(NOW, NOW));
}

#[test]
fn holds_until_the_tolerance_ends() {
    let keys = [key(1, 1).recv(990, 1010), key(2, 2).recv(NOW, NOW)];
    let holds = |preferences| recv_key(entries(&keys), KeyId(1), preferences, NOW).holds;
    assert_eq!(holds(DEFAULT), window(990, 1010));
    assert_eq!(
        holds(tolerant(7)),
        window(990, 1010),
        "while it is valid it comes first"
    );
    let ended = [key(1, 1).recv(900, 995), key(1, 1).recv(980, 990)];
    let holds = |preferences| recv_key(entries(&ended), KeyId(1), preferences, NOW).holds;
    assert_eq!(holds(DEFAULT), window(996, u64::MAX));
    assert_eq!(holds(tolerant(7)), window(998, 1002));
    assert_eq!(holds(tolerant(20)), window(996, 1010));
    assert_eq!(
        rnext_key(entries(&keys), tolerant(7), NOW).holds,
        window(NOW, NOW)
    );
}

#[test]
fn a_window_is_left_both_ways() {
    let window = window(5, 7);
    let inside = [4, 5, 6, 7, 8].map(|now| window.contains(now));
    assert_eq!(inside, [false, true, true, true, false]);
}

// The same, written differently: sort all keys by one rule after the other, the last rule first.

fn valid(lifetime: Lifetime, now: u64) -> bool {
    lifetime.begin.is_none_or(|begin| begin <= now) && lifetime.end.is_none_or(|end| now <= end)
}

/// Valid at a time that is no further away than the tolerance.
fn acceptable(lifetime: Lifetime, tolerance: u32, now: u64) -> bool {
    let tolerance = u64::from(tolerance);
    (now.saturating_sub(tolerance)..=now + tolerance).any(|time| valid(lifetime, time))
}

/// Sorts by specificity, the most specific first, keeping the order among equals.
fn sort_by_specificity(keys: &mut [Entry<'_>]) {
    keys.sort_by_key(|key| key.spec.criteria.port.unwrap_or(u16::MAX));
    keys.sort_by_key(|key| key.spec.criteria.local.is_none());
    keys.sort_by_key(|key| Reverse(key.spec.criteria.local.map_or(0, wide_len)));
    keys.sort_by_key(|key| key.spec.criteria.remote.is_none());
    keys.sort_by_key(|key| Reverse(key.spec.criteria.remote.map_or(0, wide_len)));
    keys.sort_by_key(|key| key.spec.criteria.vrf.is_none());
}

/// Sorts by the end of `lifetime`, the latest first, keeping the order among equals.
fn sort_by_end(keys: &mut [Entry<'_>], lifetime: fn(&KeySpec) -> Lifetime) {
    keys.sort_by_key(|key| Reverse(lifetime(key.spec).end.unwrap_or(0)));
    keys.sort_by_key(|key| lifetime(key.spec).end.is_some());
}

/// Sorts as the rule says, keeping the order among equals.
fn sort_by_rule(keys: &mut [Entry<'_>], rule: Rule, lifetime: fn(&KeySpec) -> Lifetime) {
    sort_by_end(keys, lifetime);
    if rule == Rule::LatestStart {
        keys.sort_by_key(|key| Reverse(lifetime(key.spec).begin.unwrap_or(0)));
    }
}

fn newest_first<'a>(keys: &[Entry<'a>]) -> Vec<Entry<'a>> {
    let mut keys = keys.to_vec();
    keys.sort_by_key(|key| Reverse(key.index));
    keys
}

fn expected_send(
    keys: &[Entry<'_>],
    preferred: Option<KeyId>,
    preferences: Preferences,
    now: u64,
) -> Option<usize> {
    let mut keys = newest_first(keys);
    keys.sort_by_key(|key| key.spec.send_id);
    sort_by_rule(&mut keys, preferences.rule, |spec| spec.send_lifetime);
    sort_by_specificity(&mut keys);
    keys.sort_by_key(|key| preferred.is_some_and(|id| id != key.spec.send_id));
    keys.retain(|key| key.spec.flags & NOSEND == 0 && valid(key.spec.send_lifetime, now));
    keys.first().map(|key| key.index)
}

fn expected_rnext(keys: &[Entry<'_>], preferences: Preferences, now: u64) -> Option<usize> {
    let mut keys = newest_first(keys);
    keys.sort_by_key(|key| key.spec.recv_id);
    sort_by_rule(&mut keys, preferences.rule, |spec| spec.recv_lifetime);
    sort_by_specificity(&mut keys);
    keys.retain(|key| key.spec.flags & NORECV == 0 && valid(key.spec.recv_lifetime, now));
    keys.first().map(|key| key.index)
}

fn expected_recv(
    keys: &[Entry<'_>],
    keyid: KeyId,
    preferences: Preferences,
    now: u64,
) -> Option<usize> {
    let mut keys = newest_first(keys);
    sort_by_specificity(&mut keys);
    keys.sort_by_key(|key| !valid(key.spec.recv_lifetime, now));
    keys.retain(|key| key.spec.flags & NORECV == 0);
    keys.retain(|key| acceptable(key.spec.recv_lifetime, preferences.accept_tolerance, now));
    keys.retain(|key| key.spec.recv_id == keyid);
    keys.first().map(|key| key.index)
}

fn any_preferences() -> impl Strategy<Value = Preferences> {
    let rule = prop_oneof![Just(Rule::LongestLifetime), Just(Rule::LatestStart)];
    let preferences = |(rule, accept_tolerance)| Preferences {
        rule,
        accept_tolerance,
    };
    (rule, 0..6u32).prop_map(preferences)
}

proptest! {
    /// Every choice is the expected one, at every time for which it was said to hold.
    #[test]
    fn choices(
        keys in vec(any_key(), 0..12),
        peer in any_peer(),
        id in proptest::option::of(0..5u8),
        preferences in any_preferences(),
        now in 0..22u64,
    ) {
        let id = id.map(KeyId);
        let keyid = id.unwrap_or_default();
        let keys: Vec<_> = entries(&keys)
            .filter(|key| matches(&key.spec.criteria, &peer))
            .collect();
        let keys_again = || keys.iter().copied();

        let (send, rnext) = send_and_rnext_key(keys_again(), id, preferences, now);
        let alone = send_key(keys_again(), id, preferences, now);
        prop_assert_eq!((index(send), send.holds), (index(alone), alone.holds));
        let recv = recv_key(keys_again(), keyid, preferences, now);
        prop_assert!([send, rnext, recv].iter().all(|chosen| chosen.holds.contains(now)));
        for time in 0..24 {
            if send.holds.contains(time) {
                prop_assert_eq!(index(send), expected_send(&keys, id, preferences, time));
            }
            if rnext.holds.contains(time) {
                prop_assert_eq!(index(rnext), expected_rnext(&keys, preferences, time));
            }
            if recv.holds.contains(time) {
                prop_assert_eq!(index(recv), expected_recv(&keys, keyid, preferences, time));
            }
        }
    }

    /// What is accepted without a tolerance is accepted with one, with the same key.
    #[test]
    fn tolerance_only_adds(
        keys in vec(any_key(), 0..12),
        id in 0..4u8,
        preferences in any_preferences(),
        now in 0..22u64,
    ) {
        let strict = index(recv_key(entries(&keys), KeyId(id), DEFAULT, now));
        let tolerant = index(recv_key(entries(&keys), KeyId(id), preferences, now));
        prop_assert!(strict.is_none() || strict == tolerant);
    }

    /// A window ends only where some key's validity does.
    #[test]
    fn windows_are_no_shorter_than_need_be(keys in vec(any_key(), 0..12), now in 0..22u64) {
        let Window { from, until } = send_key(entries(&keys), None, DEFAULT, now).holds;
        let valid_at = |time| {
            let usable = keys.iter().filter(|key| key.flags & NOSEND == 0);
            usable.map(|key| valid(key.send_lifetime, time)).collect::<Vec<_>>()
        };
        if let Some(before) = from.checked_sub(1) {
            prop_assert_ne!(valid_at(before), valid_at(now));
        }
        if let Some(after) = until.checked_add(1) {
            prop_assert_ne!(valid_at(after), valid_at(now));
        }
    }

    #[test]
    fn steady_is_around_now(begin: Option<u64>, length: Option<u64>, now: u64) {
        let end = length.map(|length| begin.unwrap_or(0).saturating_add(length));
        let lifetime = Lifetime { begin, end };
        let window = lifetime.steady(now);
        prop_assert!(window.contains(now));
        prop_assert_eq!(lifetime.contains(now), valid(lifetime, now));
        prop_assert_eq!(lifetime.contains(window.from), valid(lifetime, now));
        prop_assert_eq!(lifetime.contains(window.until), valid(lifetime, now));
    }
}
