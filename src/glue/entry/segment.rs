// SPDX-License-Identifier: GPL-2.0

//! Entries for segments that are sent and received.

use kernel::prelude::*;

use super::declared;
use crate::glue::ffi::bindings;
use crate::glue::ffi::to_errno;
use crate::glue::rx;
use crate::glue::segment::context_of;
use crate::glue::segment::header_to_write;
use crate::glue::segment::numbers_to_send;
use crate::glue::segment::Segment;
use crate::glue::sock::Sock;
use crate::glue::state::conn_of;
use crate::glue::tx;
use crate::glue::tx::Unsent;
use crate::proto::sne::sne_at;
use crate::proto::sne::Sne;
use crate::proto::wire::joins_mptcp;
use crate::proto::wire::parse_auth;
use crate::proto::wire::Auth;
use crate::proto::wire::KeyId;
use crate::proto::wire::TcpHeader;

declared!(
    tao_rust_transmit,
    tao_rust_reply,
    tao_rust_receive,
    tao_rust_find_ao,
    tao_rust_carries_ao,
    tao_rust_joins_mptcp,
    tao_rust_sne,
);

#[no_mangle]
unsafe extern "C" fn tao_rust_transmit(
    conn: *mut bindings::tao_conn,
    segment: *const bindings::tao_segment,
    numbers: *const bindings::tao_numbers,
) -> c_int {
    // SAFETY: All live; `conn` is of a socket that is locked, and the segment is being built.
    let sent = unsafe {
        let (seg, _) = Segment::from_raw(&*segment);
        let numbers = numbers_to_send(&*numbers);
        tx::transmit(conn_of(conn), &seg, header_to_write(segment), numbers)
    };
    match sent {
        Ok(()) => 0,
        Err(Unsent::Told(err)) => to_errno(err),
        Err(Unsent::NotToldYet) => bindings::TAO_NOT_TOLD_YET as c_int,
    }
}

#[no_mangle]
unsafe extern "C" fn tao_rust_reply(
    conn: *mut bindings::tao_conn,
    segment: *const bindings::tao_segment,
    reply: *const bindings::tao_reply,
) -> c_int {
    // SAFETY: All live; the segment is being built.
    let sent = unsafe {
        let (seg, _) = Segment::from_raw(&*segment);
        tx::reply(
            conn_of(conn),
            &seg,
            header_to_write(segment),
            numbers_to_send(&(*reply).numbers),
            if (*reply).own {
                conn_of(conn).received().map(|ids| ids.rnext)
            } else {
                Some(KeyId((*reply).preferred))
            },
        )
    };
    sent.map_or_else(to_errno, |()| 0)
}

#[no_mangle]
unsafe extern "C" fn tao_rust_receive(
    conn: *mut bindings::tao_conn,
    sk: *const bindings::sock,
    segment: *const bindings::tao_segment,
    l3index: c_int,
    context: bindings::tao_context,
    numbers: *const bindings::tao_numbers,
) -> bindings::skb_drop_reason {
    // SAFETY: All live; we are in an RCU read-side section.
    unsafe {
        let (seg, header) = Segment::from_raw(&*segment);
        let received = rx::Received {
            segment: seg,
            header,
        };
        rx::receive(
            conn_of(conn),
            Sock::from_raw(sk),
            &received,
            context_of(context, &*numbers),
            || bindings::tao_md5_wanted(sk, segment, l3index),
        )
    }
}

/// Where a header has an AO option that may verify; 0 if it has none.
#[no_mangle]
unsafe extern "C" fn tao_rust_find_ao(th: *const u8, header_len: u32) -> u32 {
    // SAFETY: So many bytes of header are readable.
    let header = unsafe { core::slice::from_raw_parts(th, header_len as usize) };
    match TcpHeader::parse(header).and_then(|tcp| parse_auth(&tcp)) {
        Ok(Auth::Ao(option)) => option.offset as u32,
        _ => 0,
    }
}

/// Whether a header has an AO option, of whatever length.
#[no_mangle]
unsafe extern "C" fn tao_rust_carries_ao(th: *const u8, header_len: u32) -> bool {
    // SAFETY: So many bytes of header are readable.
    let header = unsafe { core::slice::from_raw_parts(th, header_len as usize) };
    let auth = TcpHeader::parse(header).and_then(|tcp| parse_auth(&tcp));
    matches!(auth, Ok(Auth::Ao(_) | Auth::AoOfOtherLength))
}

/// Whether a header has an MP_JOIN option.
#[no_mangle]
unsafe extern "C" fn tao_rust_joins_mptcp(th: *const u8, header_len: u32) -> bool {
    // SAFETY: So many bytes of header are readable.
    let header = unsafe { core::slice::from_raw_parts(th, header_len as usize) };
    TcpHeader::parse(header).is_ok_and(|tcp| joins_mptcp(&tcp))
}

/// The SNE of `seq`, given that of `basis`.
#[no_mangle]
unsafe extern "C" fn tao_rust_sne(sne: u32, basis: u32, seq: u32) -> u32 {
    sne_at(Sne(sne), basis, seq).0
}
