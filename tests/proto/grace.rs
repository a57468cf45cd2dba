// SPDX-License-Identifier: GPL-2.0

//! When a connection without a key to send with is told so.

use proptest::prelude::*;
use tcp_authopt::proto::conn::lack_is_told;

const SECOND: u64 = 1_000_000_000;

#[test]
fn at_once_without_a_grace() {
    for grace in [-1, i32::MIN, 0] {
        assert!(lack_is_told(grace, true, 7, 7), "{grace}");
    }
}

#[test]
fn when_the_grace_is_over_and_not_before() {
    for grace in [1, 10, 3600, i32::MAX] {
        let end = 7 + SECOND * grace as u64;
        for (now, told) in [(7, false), (end - 1, false), (end, true), (u64::MAX, true)] {
            for asked in [false, true] {
                assert_eq!(lack_is_told(grace, asked, 7, now), told, "{grace} {now}");
            }
        }
    }
}

/// A key that is deleted and added again need not end the session of a program that knows of none.
#[test]
fn who_never_asked_has_ten_seconds() {
    for grace in [-1, i32::MIN] {
        let end = 7 + 10 * SECOND;
        assert!(!lack_is_told(grace, false, 7, end - 1), "{grace}");
        assert!(lack_is_told(grace, false, 7, end), "{grace}");
    }
    assert!(lack_is_told(0, false, 7, 7));
}

proptest! {
    /// Also of a clock that runs backwards, which it never does.
    #[test]
    fn in_whole_seconds_since(grace in any::<i32>(), since in any::<u64>(), now in any::<u64>()) {
        let lasted = i128::from(now) - i128::from(since);
        let told = lasted >= i128::from(SECOND) * i128::from(grace) || grace <= 0;
        prop_assert_eq!(lack_is_told(grace, true, since, now), told);
        let grace = if grace < 0 { 10 } else { grace };
        let told = lasted >= i128::from(SECOND) * i128::from(grace) || grace == 0;
        prop_assert_eq!(lack_is_told(grace, false, since, now), told);
    }
}
