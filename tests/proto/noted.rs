// SPDX-License-Identifier: GPL-2.0

//! Which segments tell a connection the peer's ids, and which are too old for that.

use proptest::prelude::*;
use tcp_authopt::proto::conn::Context;
use tcp_authopt::proto::conn::Numbers;
use tcp_authopt::proto::kdf::Isns;
use tcp_authopt::proto::noted::Extent;
use tcp_authopt::proto::noted::Noted;
use tcp_authopt::proto::sne::Sne;
use tcp_authopt::proto::wire::Isn;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::KeyIds;
use tcp_authopt::proto::wire::TcpHeader;

const OLD: KeyIds = ids(1, 2);
const NEW: KeyIds = ids(3, 4);
const NEWER: KeyIds = ids(5, 6);

/// Streams begin here: nowhere in particular, and right before each boundary of the packed word.
const STARTS: [u64; 5] = [
    1_000_000,
    (1 << 32) - 5000,
    (1 << 46) - 5000,
    (1 << 45) - 5000,
    5000_u64.wrapping_neg(),
];

const fn ids(keyid: u8, rnext: u8) -> KeyIds {
    KeyIds {
        keyid: KeyId(keyid),
        rnext: KeyId(rnext),
    }
}

/// A segment that ends where the receiver is, which has it already.
fn had(start: u64, len: u32) -> Extent {
    let expected = start.wrapping_add(len.into());
    Extent {
        start,
        len,
        expected,
    }
}

/// The segment that is due.
fn due(start: u64, len: u32) -> Extent {
    Extent {
        start,
        len,
        expected: start,
    }
}

/// After segments in this order.
fn noted(segments: &[(KeyIds, Extent)]) -> Noted {
    segments
        .iter()
        .fold(Noted::NOTHING, |noted, (ids, extent)| {
            noted.after(*ids, *extent).unwrap_or(noted)
        })
}

/// OLD from the start, NEW from 1000 bytes on, 2000 bytes received.
fn rolled_over(start: u64) -> Noted {
    noted(&[
        (OLD, due(start, 1000)),
        (NEW, due(start.wrapping_add(1000), 500)),
        (NEW, due(start.wrapping_add(1500), 500)),
    ])
}

fn at(start: u64, offset: u64, len: u32) -> Extent {
    Extent {
        start: start.wrapping_add(offset),
        len,
        expected: start.wrapping_add(2000),
    }
}

#[test]
fn nothing_at_first() {
    assert_eq!(Noted::NOTHING.ids(), None);
    assert_eq!(Noted::told(None), Noted::NOTHING);
    assert_eq!(Noted::told(Some(ids(0, 0))).ids(), Some(ids(0, 0)));
    assert_eq!(noted(&[(ids(0, 0), due(0, 0))]).ids(), Some(ids(0, 0)));
    assert_eq!(
        noted(&[(ids(255, 255), due(0, 0))]).ids(),
        Some(ids(255, 255))
    );
}

#[test]
fn ids_follow_the_peer() {
    for start in STARTS {
        assert_eq!(rolled_over(start).ids(), Some(NEW));
        let next = rolled_over(start).after(NEWER, at(start, 2000, 0)).unwrap();
        assert_eq!(next.ids(), Some(NEWER));
    }
}

#[test]
fn replays_change_nothing() {
    for start in STARTS {
        let noted = rolled_over(start);
        for (offset, len) in [
            (0, 1000),
            (0, 0),
            (500, 500),
            (998, 2),
            (998, 1002),
            (1000, 0),
        ] {
            assert_eq!(noted.after(OLD, at(start, offset, len)), None, "{offset}");
        }
        // Of the ACK before the first segment with new ids it cannot be known before the second.
        let first = due(start, 2000);
        let ack = due(start, 0);
        let noted = self::noted(&[(OLD, ack), (NEW, first)]);
        assert_eq!(noted.after(OLD, at(start, 0, 0)).unwrap().ids(), Some(OLD));
    }
}

#[test]
fn keepalives_and_window_probes_count() {
    for start in STARTS {
        let received = start.wrapping_add(2000);
        // A pure ACK has brought NEW, a probe repeats the number before its own.
        let noted = noted(&[(OLD, due(start, 2000)), (NEW, due(received, 0))]);
        let after = noted.after(NEWER, at(start, 1999, 0)).unwrap();
        assert_eq!(after.ids(), Some(NEWER));
        for noted in [noted, after] {
            assert_eq!(noted.after(NEW, at(start, 1998, 0)), None);
        }
        let next = after.after(NEW, at(start, 1999, 0)).unwrap();
        assert_eq!(next.ids(), Some(NEW));
    }
}

#[test]
fn what_fills_a_hole_counts() {
    for start in STARTS {
        // 1000 bytes are missing before what has brought NEW.
        let beyond = Extent {
            start: start.wrapping_add(2000),
            len: 100,
            expected: start.wrapping_add(1000),
        };
        let noted = noted(&[(OLD, due(start, 1000)), (NEW, beyond)]);
        let hole = |offset, len| Extent {
            start: start.wrapping_add(offset),
            len,
            ..beyond
        };
        for (offset, len) in [(1000, 1), (1000, 1000), (0, 1001), (999, 2)] {
            let after = noted.after(NEWER, hole(offset, len)).unwrap();
            assert_eq!(after.ids(), Some(NEWER), "{offset}");
        }
        for (offset, len) in [(1000, 0), (1001, 900), (0, 1000), (999, 1)] {
            assert_eq!(noted.after(NEWER, hole(offset, len)), None, "{offset}");
        }
    }
}

/// The peer has given up its key before our ACKs came, refuses them, and begins anew.
#[test]
fn what_is_sent_again_counts_if_ids_have_not_changed_since() {
    for start in STARTS {
        let noted = noted(&[
            (OLD, due(start.wrapping_sub(1), 0)), // the SYN-ACK
            (OLD, due(start, 500)),
            (OLD, due(start.wrapping_add(500), 500)),
            (OLD, due(start.wrapping_add(1000), 1000)),
        ]);
        for offset in [0, 500, 1000] {
            let after = noted.after(NEW, at(start, offset, 500)).unwrap();
            assert_eq!(after.ids(), Some(NEW));
        }
    }
}

#[test]
fn what_was_told_is_older_than_all() {
    let noted = Noted::told(Some(OLD));
    assert_eq!(noted.after(OLD, had(1 << 40, 5)), None);
    assert_eq!(noted.after(OLD, had(7, 5)), None);
    for start in STARTS {
        assert_eq!(noted.after(NEW, had(start, 5)).unwrap().ids(), Some(NEW));
    }
}

#[test]
fn usual_segments_change_nothing() {
    for start in STARTS {
        let noted = rolled_over(start);
        assert_eq!(noted.after(NEW, at(start, 2000, 1400)), None);
        assert_eq!(noted.after(NEW, at(start, 0, 1400)), None);
        assert_eq!(noted.after(NEW, due(start.wrapping_add(1 << 32), 1)), None);
    }
}

/// Without end, and never taken for old.
#[test]
fn ids_that_stay_for_long() {
    for start in STARTS {
        let mut noted = rolled_over(start);
        let mut position = start.wrapping_add(2000);
        let mut changes = 0;
        for _ in 0..1 << 16 {
            position = position.wrapping_add((1 << 31) - 1);
            if let Some(next) = noted.after(NEW, due(position, 1)) {
                assert_eq!(next.ids(), Some(NEW));
                noted = next;
                changes += 1;
            }
        }
        assert!(changes <= 1 << 15, "once for 4 GiB at most");
        let again = had(position.wrapping_sub((1 << 30) - 1), 1400);
        assert_eq!(noted.after(NEWER, again).unwrap().ids(), Some(NEWER));
    }
}

#[test]
fn extent_of_a_segment() {
    let segment = |seq: u32, flags: u8| {
        let mut bytes = [0; 20];
        bytes[4..8].copy_from_slice(&seq.to_be_bytes());
        bytes[12] = 5 << 4;
        bytes[13] = flags;
        bytes
    };
    let isns = Isns {
        src: Isn(9),
        dst: Isn(8),
    };
    let paired = Context::Paired(Numbers {
        isns,
        basis: Sne(7),
        basis_seq: 100,
    });
    let of = |context, seq, flags, len| {
        let bytes = segment(seq, flags);
        Extent::of(context, &TcpHeader::parse(&bytes).unwrap(), len)
    };
    let (ack, syn_ack) = (0x10, 0x12);
    let expected = (7 << 32) + 100;
    let extent = |start, len| {
        Some(Extent {
            start,
            len,
            expected,
        })
    };
    assert_eq!(of(paired, 100, ack, 5), extent(expected, 5));
    assert_eq!(of(paired, u32::MAX, ack, 0), extent((7 << 32) - 1, 0));
    let syn_sent = Context::SynSent { dst: Isn(8) };
    assert_eq!(of(syn_sent, 4000, syn_ack, 0), Some(due(4000, 0)));
    assert_eq!(of(Context::Listen, 4000, ack, 0), None);
}

/// The rule, on numbers without end, and with all that was ever noted at hand.
#[derive(Default)]
struct Model {
    current: Option<KeyIds>,
    since: Option<i128>,
    passed: bool,
}

impl Model {
    fn receive(&mut self, ids: KeyIds, start: i128, len: u32, expected: i128) {
        let is_awaited = start <= expected && expected < start + i128::from(len);
        let behind = self.since.map(|since| start - since);
        if self.current == Some(ids) {
            self.passed |= behind.is_some_and(|behind| behind >= 2);
        } else if is_awaited || behind.is_none_or(|it| it > if self.passed { 0 } else { -2 }) {
            let is_probe = !is_awaited && behind == Some(-1);
            *self = Self {
                current: Some(ids),
                since: Some(if is_probe { start + 1 } else { start }),
                passed: false,
            };
        }
    }
}

proptest! {
    /// Whatever comes, within a window of where the stream is, which goes on for many wraps.
    #[test]
    fn what_is_noted_is_what_the_rule_says(
        start in prop_oneof![any::<u64>(), prop::sample::select(&STARTS[..])],
        told in any::<Option<u8>>(),
        segments in prop::collection::vec(
            (0_u8..3, -(1_i64 << 31)..1 << 31, prop_oneof![0_u32..3, 0..1_u32 << 30],
             prop_oneof![0_u32..3, 0..u32::MAX >> 1]),
            1..60,
        ),
    ) {
        let told = told.map(|id| ids(id % 3, 0));
        let mut noted = Noted::told(told);
        let mut model = Model { current: told, ..Model::default() };
        let mut expected = 0_i128;
        for (id, offset, len, step) in segments {
            // Far and near: what matters is near.
            let offset = if id == 2 { offset } else { offset % 4 };
            let begin = expected + i128::from(offset);
            let position = |at: i128| start.wrapping_add(at as u64);
            let extent = Extent { start: position(begin), len, expected: position(expected) };
            model.receive(ids(id, 0), begin, len, expected);
            noted = noted.after(ids(id, 0), extent).unwrap_or(noted);
            prop_assert_eq!(noted.ids(), model.current);
            expected += i128::from(step);
        }
    }

    /// An honest stream, whose ids change at some places, and all of it replayed after each.
    #[test]
    fn replays_of_all_that_came_before_change_nothing(
        start in prop_oneof![any::<u64>(), prop::sample::select(&STARTS[..])],
        segments in prop::collection::vec((any::<bool>(), 2_u32..100_000), 1..40),
    ) {
        let mut noted = Noted::NOTHING;
        let mut generation = 0;
        let mut position = start;
        let mut since = start;
        let mut passed = false;
        let mut sent: Vec<(KeyIds, u64, u32)> = Vec::new();
        for (change, len) in segments {
            if change || generation == 0 {
                generation += 1;
                since = position;
                passed = false;
            }
            passed |= position != since;
            let current = ids(generation, generation);
            noted = noted.after(current, due(position, len)).unwrap_or(noted);
            prop_assert_eq!(noted.ids(), Some(current));
            sent.push((current, position, len));
            position = position.wrapping_add(len.into());
            for (old, begin, len) in &sent {
                let replay = Extent { start: *begin, len: *len, expected: position };
                prop_assert_eq!(noted.after(*old, replay), None);
            }
            // What the peer sends again, with new ids, counts as far back as the ids are one.
            let oldest = since.wrapping_add(passed.into());
            let again = Extent { start: oldest, len: 1, expected: position };
            let after = noted.after(ids(200, 200), again).map(Noted::ids);
            prop_assert_eq!(after, Some(Some(ids(200, 200))));
        }
    }
}
