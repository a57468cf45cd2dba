// SPDX-License-Identifier: GPL-2.0

//! Whose a socket option is, and the two small structs.

use proptest::prelude::*;
use tcp_authopt::proto::conn::preferred;
use tcp_authopt::proto::conn::rnext_id;
use tcp_authopt::proto::error::Error;
use tcp_authopt::proto::sne::Sne;
use tcp_authopt::proto::sockopt::ids_received;
use tcp_authopt::proto::sockopt::route_get;
use tcp_authopt::proto::sockopt::route_set;
use tcp_authopt::proto::sockopt::value_decides;
use tcp_authopt::proto::sockopt::Owner;
use tcp_authopt::proto::sockopt::Repair;
use tcp_authopt::proto::sockopt::Route;
use tcp_authopt::proto::sockopt::SockFlags;
use tcp_authopt::proto::uapi::flag;
use tcp_authopt::proto::wire::Isn;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::KeyIds;

/// Lengths that matter to any option, and their neighbours.
const LENGTHS: [usize; 21] = [
    0, 1, 4, 8, 9, 23, 24, 25, 47, 48, 49, 143, 144, 145, 255, 256, 287, 288, 289, 4096, 4097,
];

#[test]
fn a_native_socket_is_the_kernels() {
    for optname in 38..=42 {
        for len in LENGTHS {
            for nonzero in [false, true] {
                assert_eq!(
                    route_set(optname, len, nonzero, Owner::Native),
                    Route::Kernel
                );
            }
            assert_eq!(route_get(optname, len, Owner::Native), Route::Kernel);
        }
    }
}

#[test]
fn a_socket_of_ours_is_ours() {
    for optname in 38..=40 {
        for len in LENGTHS {
            for nonzero in [false, true] {
                assert_eq!(route_set(optname, len, nonzero, Owner::Ours), Route::Ours);
            }
        }
    }
    for len in LENGTHS {
        assert_eq!(route_get(38, len, Owner::Ours), Route::Ours);
        assert_eq!(route_get(40, len, Owner::Ours), Route::Ours);
    }
}

#[test]
fn a_socket_of_ours_has_no_41_and_42() {
    for optname in [41, 42] {
        for len in LENGTHS {
            let set = route_set(optname, len, true, Owner::Ours);
            assert_eq!(set, Route::NoProtoOpt);
            assert_eq!(route_get(optname, len, Owner::Ours), Route::NoProtoOpt);
            let set = route_set(optname, len, true, Owner::Neither);
            assert_eq!(set, Route::Kernel);
            assert_eq!(route_get(optname, len, Owner::Neither), Route::Kernel);
        }
    }
}

#[test]
fn keys_cannot_be_read_back() {
    for len in LENGTHS {
        assert_eq!(route_get(39, len, Owner::Ours), Route::NoProtoOpt);
        assert_eq!(route_get(39, len, Owner::Neither), Route::NoProtoOpt);
    }
}

#[test]
fn setting_38_on_a_socket_of_neither() {
    for len in LENGTHS {
        let native = if (288..=4096).contains(&len) {
            Route::Kernel
        } else {
            Route::Ours
        };
        assert_eq!(route_set(38, len, true, Owner::Neither), native, "{len}");
        assert_eq!(
            route_set(38, len, false, Owner::Neither),
            Route::Ours,
            "{len}"
        );
    }
}

/// What is read before anybody knows whose the call is.
#[test]
fn the_value_decides_over_one_form() {
    for optname in 38..=42 {
        for len in LENGTHS {
            for owner in [Owner::Native, Owner::Ours, Owner::Neither] {
                let expected =
                    optname == 38 && (288..=4096).contains(&len) && owner == Owner::Neither;
                assert_eq!(
                    value_decides(optname, len, owner),
                    expected,
                    "{optname} {len}"
                );
            }
        }
    }
}

#[test]
fn setting_39_on_a_socket_of_neither() {
    for len in LENGTHS {
        let expected = if len == 144 {
            Route::Kernel
        } else {
            Route::Ours
        };
        assert_eq!(route_set(39, len, true, Owner::Neither), expected, "{len}");
    }
}

#[test]
fn setting_and_getting_40_on_a_socket_of_neither() {
    for len in LENGTHS {
        let expected = if len >= 48 {
            Route::Kernel
        } else {
            Route::Ours
        };
        assert_eq!(route_set(40, len, true, Owner::Neither), expected, "{len}");
        assert_eq!(route_get(40, len, Owner::Neither), expected, "{len}");
    }
}

#[test]
fn getting_38_on_a_socket_of_neither() {
    for len in LENGTHS {
        assert_eq!(route_get(38, len, Owner::Neither), Route::Ours, "{len}");
    }
}

#[test]
fn other_options_are_the_kernels() {
    for optname in [i32::MIN, -1, 0, 1, 14, 37, 43, i32::MAX] {
        for owner in [Owner::Native, Owner::Ours, Owner::Neither] {
            for len in LENGTHS {
                assert_eq!(route_set(optname, len, true, owner), Route::Kernel);
                assert_eq!(route_get(optname, len, owner), Route::Kernel);
            }
        }
    }
}

fn authopt(flags: u32, ids: [u8; 4]) -> [u8; 8] {
    let mut buf = [0; 8];
    buf[..4].copy_from_slice(&flags.to_ne_bytes());
    buf[4..].copy_from_slice(&ids);
    buf
}

#[test]
fn authopt_probe_of_zeros() {
    assert_eq!(SockFlags::parse(&[0; 8]), Ok(SockFlags::default()));
}

#[test]
fn authopt_ids_are_stored_with_their_lock_only() {
    let ids = [11, 12, 13, 14];
    assert_eq!(SockFlags::parse(&authopt(0, ids)), Ok(SockFlags::default()));
    let keyid = SockFlags {
        lock_keyid: Some(KeyId(11)),
        ..SockFlags::default()
    };
    assert_eq!(SockFlags::parse(&authopt(flag::LOCK_KEYID, ids)), Ok(keyid));
    let rnext = SockFlags {
        lock_rnext: Some(KeyId(12)),
        ..SockFlags::default()
    };
    assert_eq!(
        SockFlags::parse(&authopt(flag::LOCK_RNEXTKEYID, ids)),
        Ok(rnext)
    );
}

#[test]
fn authopt_active_is_ignored() {
    let parsed = SockFlags::parse(&authopt(flag::ACTIVE, [0; 4]));
    assert_eq!(parsed, Ok(SockFlags::default()));
}

#[test]
fn authopt_ids_received_are_those_of_a_protected_connection() {
    let ids = [11, 12, 13, 14];
    assert_eq!(ids_received(&authopt(!flag::ACTIVE, ids)), None);
    let received = KeyIds {
        keyid: KeyId(13),
        rnext: KeyId(14),
    };
    assert_eq!(ids_received(&authopt(flag::ACTIVE, ids)), Some(received));
}

#[test]
fn authopt_unknown_flag() {
    for bit in (4..32).filter(|bit| *bit != 16) {
        let buf = authopt(1 << bit | flag::LOCK_KEYID, [0; 4]);
        assert_eq!(SockFlags::parse(&buf), Err(Error::Inval), "bit {bit}");
    }
}

#[test]
fn authopt_read_back() {
    let ids = |keyid, rnext| KeyIds {
        keyid: KeyId(keyid),
        rnext: KeyId(rnext),
    };
    let flags = SockFlags {
        lock_keyid: Some(KeyId(200)),
        lock_rnext: None,
        reject_unexpected: true,
        accept_icmp: true,
    };
    assert_eq!(
        flags.emit(true, ids(1, 2), ids(3, 4)),
        authopt(1 << 16 | 0b1101, [1, 2, 3, 4])
    );
    assert_eq!(
        SockFlags::default().emit(false, KeyIds::default(), KeyIds::default()),
        [0; 8]
    );
}

#[test]
fn preferred_key() {
    let none = SockFlags::default();
    let locked = SockFlags {
        lock_keyid: Some(KeyId(5)),
        ..none
    };
    assert_eq!(preferred(&none, None), None);
    assert_eq!(preferred(&none, Some(KeyId(7))), Some(KeyId(7)));
    assert_eq!(preferred(&locked, None), Some(KeyId(5)));
    assert_eq!(preferred(&locked, Some(KeyId(7))), Some(KeyId(5)));
}

#[test]
fn rnext_to_send() {
    let none = SockFlags::default();
    let locked = SockFlags {
        lock_rnext: Some(KeyId(5)),
        ..none
    };
    let (chosen, of_send_key) = (KeyId(6), KeyId(7));
    assert_eq!(rnext_id(&none, Some(chosen), of_send_key), chosen);
    assert_eq!(rnext_id(&none, None, of_send_key), of_send_key);
    assert_eq!(rnext_id(&locked, Some(chosen), of_send_key), KeyId(5));
    assert_eq!(rnext_id(&locked, None, of_send_key), KeyId(5));
}

#[test]
fn repair_layout() {
    let repair = Repair {
        src_isn: Isn(1),
        dst_isn: Isn(2),
        snd_sne: Sne(3),
        rcv_sne: Sne(4),
        snd_seq: 5,
        rcv_seq: 6,
    };
    let words: Vec<u8> = (1..=6u32).flat_map(u32::to_ne_bytes).collect();
    assert_eq!(repair.emit()[..], words);
    assert_eq!(Repair::parse(&repair.emit()), repair);
}

proptest! {
    #[test]
    fn authopt_parses_or_refuses(buf: [u8; 8]) {
        let flags = u32::from_ne_bytes(buf[..4].try_into().unwrap());
        prop_assert_eq!(SockFlags::parse(&buf).is_ok(), flags & !0x1_000f == 0);
    }

    /// What was set reads back, but for the ids, which are those of segments.
    #[test]
    fn authopt_flags_read_back(flags: u32, ids: [u8; 4], active: bool) {
        let flags = flags & flag::KNOWN;
        let set = SockFlags::parse(&authopt(flags, ids)).unwrap();
        let read = set.emit(active, KeyIds::default(), KeyIds::default());
        let active = if active { flag::ACTIVE } else { 0 };
        prop_assert_eq!(read, authopt(flags & !flag::ACTIVE | active, [0; 4]));
    }

    #[test]
    fn repair_is_the_same_both_ways(buf: [[u8; 8]; 3]) {
        let buf: [u8; 24] = buf.concat().try_into().unwrap();
        prop_assert_eq!(Repair::parse(&buf).emit(), buf);
    }
}
