// SPDX-License-Identifier: GPL-2.0

//! The receive table of the ABI, each cell, and the ISNs and SNE of a segment in each state.

use tcp_authopt::proto::conn::isns_and_sne;
use tcp_authopt::proto::conn::Context;
use tcp_authopt::proto::conn::NoIsns;
use tcp_authopt::proto::conn::Numbers;
use tcp_authopt::proto::error::Error;
use tcp_authopt::proto::kdf::Isns;
use tcp_authopt::proto::policy::Require;
use tcp_authopt::proto::sne::Sne;
use tcp_authopt::proto::verdict::answer;
use tcp_authopt::proto::verdict::child;
use tcp_authopt::proto::verdict::connect;
use tcp_authopt::proto::verdict::first_step;
use tcp_authopt::proto::verdict::native_does;
use tcp_authopt::proto::verdict::syn;
use tcp_authopt::proto::verdict::Answer;
use tcp_authopt::proto::verdict::Child;
use tcp_authopt::proto::verdict::Crowd;
use tcp_authopt::proto::verdict::Discard;
use tcp_authopt::proto::verdict::Origin;
use tcp_authopt::proto::verdict::Step;
use tcp_authopt::proto::verdict::Syn;
use tcp_authopt::proto::wire::AoOption;
use tcp_authopt::proto::wire::Auth;
use tcp_authopt::proto::wire::Isn;
use tcp_authopt::proto::wire::KeyId;
use tcp_authopt::proto::wire::KeyIds;
use tcp_authopt::proto::wire::Malformed;
use tcp_authopt::proto::wire::TcpHeader;

const OPTION: AoOption = AoOption {
    offset: 20,
    ids: KeyIds {
        keyid: KeyId(1),
        rnext: KeyId(2),
    },
    mac: [7; 12],
};

/// What is done with `parsed`: not keyed, not keyed with REJECT_UNEXPECTED, keyed.
fn row(parsed: Result<Auth, Malformed>) -> [Step; 3] {
    let keyed = first_step(parsed, true, false);
    assert_eq!(first_step(parsed, true, true), keyed, "keyed: no matter");
    [
        first_step(parsed, false, false),
        first_step(parsed, false, true),
        keyed,
    ]
}

#[test]
fn what_cannot_be_is_dropped() {
    for malformed in [
        Malformed::HeaderLength,
        Malformed::OptionLength,
        Malformed::AoLength,
        Malformed::AoAndMd5,
        Malformed::TwoAo,
        Malformed::TwoMd5,
    ] {
        let drop = Step::Drop(Discard::Malformed);
        assert_eq!(row(Err(malformed)), [drop; 3], "{malformed:?}");
    }
}

#[test]
fn no_ao() {
    let required = Step::Drop(Discard::Required);
    let expected = [Step::CheckMd5, Step::CheckMd5, required];
    assert_eq!(row(Ok(Auth::None)), expected);
    assert_eq!(row(Ok(Auth::Md5)), expected);
}

#[test]
fn ao() {
    let unexpected = Step::Drop(Discard::Unexpected);
    assert_eq!(
        row(Ok(Auth::Ao(OPTION))),
        [Step::CheckMd5, unexpected, Step::Verify(OPTION)]
    );
}

#[test]
fn ao_of_other_length_r27() {
    let unexpected = Step::Drop(Discard::Unexpected);
    assert_eq!(
        row(Ok(Auth::AoOfOtherLength)),
        [Step::CheckMd5, unexpected, Step::Drop(Discard::BadLength)]
    );
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A header with these flags and numbers.
fn header(flags: u8, seq: u32, ack_seq: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[4..8].copy_from_slice(&seq.to_be_bytes());
    bytes[8..12].copy_from_slice(&ack_seq.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes
}

/// ISNs (source, destination) and SNE of a segment with these flags and numbers.
fn told(context: Context, flags: u8, seq: u32, ack_seq: u32) -> Result<(u32, u32, u32), NoIsns> {
    let bytes = header(flags, seq, ack_seq);
    isns_and_sne(context, &TcpHeader::parse(&bytes).unwrap())
        .map(|(isns, sne)| (isns.src.0, isns.dst.0, sne.0))
}

/// Both ISNs known; the sender is at 0x2_fffffff0.
const NUMBERS: Numbers = Numbers {
    isns: Isns {
        src: Isn(100),
        dst: Isn(200),
    },
    basis: Sne(2),
    basis_seq: 0xffff_fff0,
};
const PAIRED: Context = Context::Paired(NUMBERS);

/// A request socket.
fn request(src: u32) -> Context {
    Context::Request(Numbers {
        isns: Isns {
            src: Isn(src),
            dst: Isn(200),
        },
        basis: Sne(0),
        basis_seq: src,
    })
}

#[test]
fn a_syn_stands_for_itself_in_every_state() {
    let syn_sent = Context::SynSent { dst: Isn(200) };
    let time_wait = Context::TimeWait(NUMBERS);
    for context in [Context::Listen, syn_sent, request(100), PAIRED, time_wait] {
        for flags in [SYN, SYN | FIN, SYN | RST] {
            assert_eq!(told(context, flags, 77, 88), Ok((77, 0, 0)), "{context:?}");
        }
    }
}

#[test]
fn listener_cannot_know_the_isns_of_anything_else() {
    // The first after none is the ACK of a cookie.
    for flags in [0, ACK, FIN, RST, SYN | ACK] {
        assert_eq!(
            told(Context::Listen, flags, 101, 201),
            Err(NoIsns::NoRequest),
            "{flags:#x}"
        );
    }
}

#[test]
fn nothing_is_computed_where_there_is_no_connection() {
    for context in [Context::Closed, Context::Unprotected] {
        for flags in [SYN, ACK, RST, SYN | ACK] {
            assert_eq!(told(context, flags, 101, 201), Err(NoIsns::Closed));
        }
    }
}

#[test]
fn what_must_be_signed_and_whose_ids_count() {
    let syn_sent = Context::SynSent { dst: Isn(200) };
    let (syn, ack) = (header(SYN, 101, 0), header(ACK, 101, 201));
    let (syn, ack) = (
        TcpHeader::parse(&syn).unwrap(),
        TcpHeader::parse(&ack).unwrap(),
    );
    for (context, must, goes_by) in [
        (Context::Listen, None, false),
        (request(100), Some(true), false),
        (syn_sent, Some(true), true),
        (PAIRED, Some(true), true),
        (Context::TimeWait(NUMBERS), Some(true), true),
        (Context::Closed, Some(true), false),
        (Context::Unprotected, Some(false), false),
    ] {
        assert_eq!(context.must_be_signed(), must, "{context:?}");
        assert_eq!(context.goes_by_its_ids(&ack), goes_by, "{context:?}");
        assert!(!context.goes_by_its_ids(&syn), "of any age: {context:?}");
    }
}

#[test]
fn request_socket() {
    assert_eq!(told(request(100), ACK, 101, 201), Ok((100, 200, 0)));
    assert_eq!(told(request(100), RST, 101, 0), Ok((100, 200, 0)));
    assert_eq!(
        told(request(0xffff_ffff), ACK, 0, 201),
        Ok((0xffff_ffff, 200, 1))
    );
    assert_eq!(
        told(request(0xffff_fff0), ACK, 0x10, 201),
        Ok((0xffff_fff0, 200, 1))
    );
}

#[test]
fn syn_sent() {
    let context = Context::SynSent { dst: Isn(200) };
    assert_eq!(told(context, SYN | ACK, 77, 201), Ok((77, 200, 0)));
    assert_eq!(
        told(context, SYN | ACK, 0xffff_ffff, 201),
        Ok((0xffff_ffff, 200, 0))
    );
    // A refusal: its sender has no ISN, and its sequence number is 0 (RFC 9293 3.10.7.1).
    assert_eq!(told(context, RST | ACK, 0, 201), Ok((0, 200, 0)));
}

#[test]
fn synchronized() {
    for flags in [ACK, ACK | FIN, RST, RST | ACK, SYN | ACK] {
        assert_eq!(told(PAIRED, flags, 0xffff_fff0, 5), Ok((100, 200, 2)));
        assert_eq!(told(PAIRED, flags, 0x10, 5), Ok((100, 200, 3)), "ahead");
        assert_eq!(
            told(PAIRED, flags, 0x8000_0000, 5),
            Ok((100, 200, 2)),
            "behind"
        );
    }
}

/// What becomes of a child of each origin: signed and keyed, signed, keyed, neither.
fn children(origin: Origin) -> [Child; 4] {
    [(true, true), (true, false), (false, true), (false, false)]
        .map(|(signed, keyed)| child(keyed, signed, origin))
}

#[test]
fn only_a_request_opens_a_connection_of_a_peer_with_keys() {
    use Child::{Protected, Refused, Unprotected};
    assert_eq!(
        children(Origin::Request),
        [Protected, Protected, Refused, Unprotected]
    );
    assert_eq!(
        children(Origin::Cookie),
        [Refused, Refused, Refused, Unprotected]
    );
    assert_eq!(
        children(Origin::FastOpen),
        [Refused, Unprotected, Refused, Unprotected]
    );
}

const NO_CROWD: Option<Crowd> = None;

fn crowd(requests: u32, backlog: u32) -> Option<Crowd> {
    Some(Crowd { requests, backlog })
}

#[test]
fn a_syn_without_keys_is_the_stacks() {
    for signed in [false, true] {
        for crowd in [NO_CROWD, crowd(0, 128), crowd(u32::MAX, 128)] {
            assert_eq!(syn(false, signed, false, crowd), Syn::Stack);
        }
    }
}

#[test]
fn a_syn_that_must_be_signed_and_is_not() {
    for crowd in [NO_CROWD, crowd(0, 128), crowd(u32::MAX, 128)] {
        assert_eq!(
            syn(true, false, false, crowd),
            Syn::Discard(Discard::Required)
        );
    }
}

#[test]
fn a_signed_syn_does_not_join_mptcp() {
    for crowd in [NO_CROWD, crowd(0, 128)] {
        assert_eq!(syn(true, true, true, crowd), Syn::Drop);
        assert_eq!(syn(false, true, true, crowd), Syn::Stack);
        let required = Syn::Discard(Discard::Required);
        assert_eq!(syn(true, false, true, crowd), required);
    }
}

#[test]
fn a_signed_syn_is_admitted_up_to_a_bound() {
    assert_eq!(syn(true, true, false, NO_CROWD), Syn::Stack);
    for (backlog, most) in [(0, 255), (1, 256), (256, 511), (1000, 1999)] {
        assert_eq!(syn(true, true, false, crowd(most, backlog)), Syn::Admit);
        assert_eq!(syn(true, true, false, crowd(most + 1, backlog)), Syn::Drop);
    }
    assert_eq!(
        syn(true, true, false, crowd(u32::MAX - 1, u32::MAX)),
        Syn::Admit
    );
}

#[test]
fn what_a_signed_syn_is_answered_with() {
    let decides = |first, keyed, may_send, cookie| answer(first, || keyed, may_send, cookie);
    for may_send in [false, true] {
        for cookie in [false, true] {
            assert_eq!(decides(true, false, may_send, cookie), Answer::Unsigned);
        }
        assert_eq!(decides(true, true, may_send, true), Answer::None);
    }
    // Once more: whatever has become of keys and policies, it is signed or it is not sent.
    for (first, keyed) in [(true, true), (false, true), (false, false)] {
        assert_eq!(decides(first, keyed, false, false), Answer::None);
        assert_eq!(decides(first, keyed, true, false), Answer::Signed);
    }
}

#[test]
fn what_becomes_of_connect() {
    let decides = |keyed, may_send, answered| connect(keyed, || may_send, answered, false);
    for answered in [false, true] {
        for may_send in [false, true] {
            assert_eq!(decides(false, may_send, answered), Ok(false));
        }
        assert_eq!(decides(true, false, answered), Err(Error::NoKey));
    }
    assert_eq!(decides(true, true, false), Ok(true));
    assert_eq!(decides(true, true, true), Err(Error::ConnAborted));
    assert_eq!(connect(true, || true, false, true), Err(Error::OpNotSupp));
    assert_eq!(connect(false, || true, false, true), Ok(false));
}

#[test]
fn when_the_kernels_own_does() {
    let required = |strict| {
        Some(Require {
            strict,
            accept_icmp: false,
        })
    };
    for signed in [false, true] {
        assert!(native_does(None, signed));
        assert_eq!(native_does(required(false), signed), signed);
        assert!(!native_does(required(true), signed));
    }
}
