// SPDX-License-Identifier: GPL-2.0

//! Entries for connections: how they come to be, whether they are protected, and their end.

use core::ptr;

use kernel::prelude::*;

use super::declared;
use crate::glue::conn::Conn;
use crate::glue::ffi::bindings;
use crate::glue::ffi::to_errno;
use crate::glue::netns::Netns;
use crate::glue::netns::Refused;
use crate::glue::rx;
use crate::glue::segment::addr_at;
use crate::glue::sock::pair_of;
use crate::glue::sock::Sock;
use crate::glue::state::arc_of;
use crate::glue::state::conn_of;
use crate::glue::state::netns_of;
use crate::proto::addr::Family;
use crate::proto::verdict::answer;
use crate::proto::verdict::child;
use crate::proto::verdict::connect;
use crate::proto::verdict::native_does;
use crate::proto::verdict::syn;
use crate::proto::verdict::Answer;
use crate::proto::verdict::Child;
use crate::proto::verdict::Crowd;
use crate::proto::verdict::Discard;
use crate::proto::verdict::Origin;
use crate::proto::verdict::Syn;
use crate::proto::wire::KeyId;
use crate::proto::wire::KeyIds;

declared!(
    tao_rust_stand_in,
    tao_rust_conn_for,
    tao_rust_conn_again,
    tao_rust_conn_accept,
    tao_rust_conn_free,
    tao_rust_asked,
    tao_rust_may_require,
    tao_rust_required,
    tao_rust_refuses_answer,
    tao_rust_refuses_native,
    tao_rust_connect,
    tao_rust_not_connected,
    tao_rust_takes_md5,
    tao_rust_must_sign,
    tao_rust_may_send,
    tao_rust_syn,
    tao_rust_answer,
    tao_rust_child,
);

/// State that stands in for the sockets of a namespace that have none; null if there is no memory.
/// May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_stand_in(net: *mut bindings::tao_net) -> *mut bindings::tao_conn {
    // SAFETY: The namespace lives.
    let net = unsafe { arc_of(net) };
    Conn::stand_in(net).map_or(ptr::null_mut(), |conn| KBox::into_raw(conn).cast())
}

/// State for `sk`, which never asked for any; null if there is no memory.
#[no_mangle]
unsafe extern "C" fn tao_rust_conn_for(
    sk: *mut bindings::sock,
    may_sleep: bool,
) -> *mut bindings::tao_conn {
    // SAFETY: The socket lives, and is locked.
    let sk = unsafe { Sock::from_raw(sk) };
    let alloc = if may_sleep {
        GFP_KERNEL_ACCOUNT
    } else {
        GFP_ATOMIC | __GFP_NOWARN
    };
    let conn = Conn::new(netns_of(sk), None, sk, alloc);
    conn.map_or(ptr::null_mut(), |conn| KBox::into_raw(conn).cast())
}

/// Whether the program of the socket has asked for protection.
#[no_mangle]
unsafe extern "C" fn tao_rust_asked(conn: *const bindings::tao_conn) -> bool {
    // SAFETY: The state lives.
    unsafe { conn_of(conn) }.asked()
}

/// Whether a policy may require connections with a peer to be protected.
#[no_mangle]
unsafe extern "C" fn tao_rust_may_require(
    stand_in: *const bindings::tao_conn,
    addr: *const u8,
    family: u16,
) -> bool {
    // SAFETY: The state lives, and the address has the length that the family says.
    let (conn, addr) = unsafe { (conn_of(stand_in), addr_at(Family::from_af(family), addr)) };
    conn.net.keys.may_require(&addr)
}

/// Whether a policy requires a connection to be protected.
#[no_mangle]
unsafe extern "C" fn tao_rust_required(
    stand_in: *const bindings::tao_conn,
    ends: *const bindings::tao_ends,
) -> bool {
    // SAFETY: Both live.
    let required = unsafe { conn_of(stand_in).net.keys.required(&pair_of(&*ends)) };
    required.is_some()
}

/// Whether a policy refuses the connection of `sk`, whose SYN was not signed.
#[no_mangle]
unsafe extern "C" fn tao_rust_refuses_answer(
    stand_in: *const bindings::tao_conn,
    sk: *const bindings::sock,
    ends: *const bindings::tao_ends,
) -> bool {
    // SAFETY: All live.
    let (net, sk) = unsafe { (&conn_of(stand_in).net, Sock::from_raw(sk)) };
    // SAFETY: The same.
    let required = net.keys.required(&pair_of(unsafe { &*ends }));
    counted(required.is_some(), net, sk, Refused::Active)
}

/// Whether a policy refuses a connection of `sk`, which has state of the kernel's own TCP-AO.
/// `is_signed`: that signs it.
#[no_mangle]
unsafe extern "C" fn tao_rust_refuses_native(
    stand_in: *const bindings::tao_conn,
    sk: *const bindings::sock,
    ends: *const bindings::tao_ends,
    is_signed: bool,
) -> bool {
    // SAFETY: All live.
    let (net, sk) = unsafe { (&conn_of(stand_in).net, Sock::from_raw(sk)) };
    // SAFETY: The same.
    let required = net.keys.required(&pair_of(unsafe { &*ends }));
    counted(!native_does(required, is_signed), net, sk, Refused::Native)
}

/// Whether a connection of `sk` is refused, which is counted if it is.
fn counted(refused: bool, net: &Netns, sk: Sock<'_>, what: Refused) -> bool {
    if refused {
        rx::count(sk, Discard::Required);
        net.count_refused(what);
    }
    refused
}

/// State with the flags of `old`, another one of `sk`; null if there is no memory. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_conn_again(
    old: *const bindings::tao_conn,
    sk: *mut bindings::sock,
) -> *mut bindings::tao_conn {
    // SAFETY: Both live; the socket is locked, and `old` is its state.
    let (old, sk) = unsafe { (conn_of(old), Sock::from_raw(sk)) };
    let conn = Conn::new(old.net.clone(), old.asked_for(), sk, GFP_KERNEL_ACCOUNT);
    conn.map_or(ptr::null_mut(), |conn| KBox::into_raw(conn).cast())
}

/// State for a child of `listener`; null if there is no memory. `signed_by`: two ids, if its
/// connection is protected.
#[no_mangle]
unsafe extern "C" fn tao_rust_conn_accept(
    listener: *const bindings::tao_conn,
    newsk: *const bindings::sock,
    signed_by: *const u8,
) -> *mut bindings::tao_conn {
    // SAFETY: Both live; we are in an RCU read-side section.
    let (listener, newsk) = unsafe { (conn_of(listener), Sock::from_raw(newsk)) };
    // SAFETY: It is null or two bytes.
    let signed_by = unsafe { signed_by.cast::<[u8; 2]>().as_ref() };
    let alloc = GFP_ATOMIC | __GFP_NOWARN;
    let Some(conn) = Conn::new(listener.net.clone(), listener.asked_for(), newsk, alloc) else {
        return ptr::null_mut();
    };
    let required = conn.net.keys.required(&newsk.pair());
    conn.begin(
        signed_by.is_some(),
        required,
        signed_by.map(|&[keyid, rnext]| KeyIds {
            keyid: KeyId(keyid),
            rnext: KeyId(rnext),
        }),
        false,
    );
    KBox::into_raw(conn).cast()
}

/// Nobody can reach it any more.
#[no_mangle]
unsafe extern "C" fn tao_rust_conn_free(conn: *mut bindings::tao_conn) {
    // SAFETY: It is the first field of a `Conn` that came from a `KBox`, and this is called once.
    drop(unsafe { KBox::from_raw(conn.cast::<Conn>()) });
}

/// Whether the connection that `sk` is about to open is protected: 1 or 0; or an error.
#[no_mangle]
unsafe extern "C" fn tao_rust_connect(
    conn: *mut bindings::tao_conn,
    sk: *const bindings::sock,
    speaks_mptcp: bool,
) -> c_int {
    // SAFETY: The socket is locked, and `conn` is its state.
    let (conn, sk) = unsafe { (conn_of(conn), Sock::from_raw(sk)) };
    let pair = sk.pair();
    let (keyed, required) = conn.must_protect(&pair);
    let answered = u32::from(sk.state()) != bindings::TCP_SYN_SENT;
    match connect(keyed, || conn.net.may_send(&pair), answered, speaks_mptcp) {
        Ok(protected) => {
            conn.begin(protected, required, None, sk.in_repair());
            protected.into()
        }
        Err(err) => {
            if required.is_some() {
                conn.net.count_refused(Refused::Active);
            }
            to_errno(err)
        }
    }
}

/// The socket has no connection: it is about to listen, or one that [`tao_rust_connect`] was asked
/// about did not begin. It is locked, and `conn` is its state.
#[no_mangle]
unsafe extern "C" fn tao_rust_not_connected(conn: *mut bindings::tao_conn) {
    // SAFETY: The state lives.
    unsafe { conn_of(conn) }.not_connected();
}

/// The socket may get MD5 keys, whoever has keys here: it has no connection that is protected.
#[no_mangle]
unsafe extern "C" fn tao_rust_takes_md5(conn: *const bindings::tao_conn) -> bool {
    // SAFETY: The state lives.
    !unsafe { conn_of(conn) }.is_protected()
}

/// The peer's segments have to be signed: the connection is protected; or, of a listener's, open or
/// closed since, a key matches. Policies are not asked, as of two that match the less specific one
/// might be for what is not known here: they are when the SYN has passed, and when there is a child.
#[no_mangle]
unsafe extern "C" fn tao_rust_must_sign(
    conn: *const bindings::tao_conn,
    ends: *const bindings::tao_ends,
) -> bool {
    // SAFETY: Both live.
    let (conn, pair) = unsafe { (conn_of(conn), pair_of(&*ends)) };
    conn.is_protected() || conn.asked() && conn.net.is_keyed(&pair)
}

/// Some key that matches the peer may be used to send.
#[no_mangle]
unsafe extern "C" fn tao_rust_may_send(
    conn: *const bindings::tao_conn,
    ends: *const bindings::tao_ends,
) -> bool {
    // SAFETY: Both live.
    unsafe { conn_of(conn).net.may_send(&pair_of(&*ends)) }
}

/// What becomes of a SYN that `sk` has received. `is_signed`: it carries AO. `joins_mptcp`: it asks to
/// join a connection of MPTCP, and `sk` is a listener of that. `is_crowded`: the stack would drop it,
/// or answer it by a cookie; `requests`: so many does the listener have, and `backlog` is the most
/// that it is to have.
#[no_mangle]
unsafe extern "C" fn tao_rust_syn(
    conn: *const bindings::tao_conn,
    sk: *const bindings::sock,
    ends: *const bindings::tao_ends,
    is_signed: bool,
    joins_mptcp: bool,
    is_crowded: bool,
    requests: u32,
    backlog: u32,
) -> bindings::tao_syn {
    // SAFETY: All live.
    let (conn, sk) = unsafe { (conn_of(conn), Sock::from_raw(sk)) };
    // SAFETY: The same.
    let (keyed, required) = conn.must_protect(&pair_of(unsafe { &*ends }));
    let crowd = is_crowded.then_some(Crowd { requests, backlog });
    match syn(keyed, is_signed, joins_mptcp, crowd) {
        Syn::Stack => bindings::tao_syn_TAO_SYN_STACK,
        Syn::Admit => bindings::tao_syn_TAO_SYN_ADMIT,
        Syn::Drop => bindings::tao_syn_TAO_SYN_DROP,
        Syn::Discard(discard) => {
            rx::count(sk, discard);
            if required.is_some() {
                conn.net.count_refused(Refused::Passive);
            }
            bindings::tao_syn_TAO_SYN_DROP
        }
    }
}

/// What a listener answers a signed SYN with. `cookie`: there is to be no request. `first`: it is not
/// answered once more.
#[no_mangle]
unsafe extern "C" fn tao_rust_answer(
    conn: *const bindings::tao_conn,
    ends: *const bindings::tao_ends,
    cookie: bool,
    first: bool,
) -> bindings::tao_answer {
    // SAFETY: Both live.
    let (conn, pair) = unsafe { (conn_of(conn), pair_of(&*ends)) };
    let (matches, may_send) = conn.net.matches_and_may_send(&pair);
    let keyed = || conn.asked() && matches || conn.net.keys.required(&pair).is_some();
    match answer(first, keyed, may_send, cookie) {
        Answer::None => bindings::tao_answer_TAO_ANSWER_NONE,
        Answer::Unsigned => bindings::tao_answer_TAO_ANSWER_UNSIGNED,
        Answer::Signed => bindings::tao_answer_TAO_ANSWER_SIGNED,
    }
}

/// What becomes of a child. `is_signed`: `used_tcp_ao` is set; of a cookie, the ACK carries AO.
#[no_mangle]
unsafe extern "C" fn tao_rust_child(
    listener: *const bindings::tao_conn,
    newsk: *const bindings::sock,
    is_signed: bool,
    origin: bindings::tao_origin,
) -> bindings::tao_child {
    // SAFETY: Both live.
    let (listener, newsk) = unsafe { (conn_of(listener), Sock::from_raw(newsk)) };
    let (keyed, required) = listener.must_protect(&newsk.pair());
    let origin = match origin {
        bindings::tao_origin_TAO_OF_REQUEST => Origin::Request,
        bindings::tao_origin_TAO_OF_FAST_OPEN => Origin::FastOpen,
        _ => Origin::Cookie,
    };
    match child(keyed, is_signed, origin) {
        Child::Protected => bindings::tao_child_TAO_CHILD_PROTECTED,
        Child::Unprotected => bindings::tao_child_TAO_CHILD_UNPROTECTED,
        Child::Refused => {
            if !is_signed {
                rx::count(newsk, Discard::Required);
            }
            if required.is_some() && origin != Origin::FastOpen {
                listener.net.count_refused(Refused::Passive);
            }
            bindings::tao_child_TAO_CHILD_REFUSED
        }
    }
}
