// SPDX-License-Identifier: GPL-2.0

//! Entries from C: each turns what C gives into what safe Rust takes, calls it, and turns the
//! answer back. And what goes the other way with the state of a socket.
//!
//! The contracts are those of `src/shim/tao.h`: pointers are valid, structures filled in, and the
//! context is the one that `src/shim/seam.c` states.

#![expect(clippy::missing_safety_doc, reason = "said above, for all of them")]

use core::ptr;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::Arc;

use super::conn::Conn;
use super::ffi;
use super::ffi::bindings;
use super::ffi::to_errno;
use super::ffi::Call;
use super::ffi::Segment;
use super::ffi::Sock;
use super::ffi::SockLock;
use super::netns::Netns;
use super::rx;
use super::sockopt;
use super::sockopt::Answer;
use super::tx;
use super::tx::Unsent;
use crate::proto::conn::KeyIds;
use crate::proto::error::Error;
use crate::proto::verdict::child;
use crate::proto::verdict::crowded;
use crate::proto::verdict::Child;
use crate::proto::verdict::Crowded;
use crate::proto::verdict::Origin;
use crate::proto::vrf::Name;
use crate::proto::vrf::NAME_LEN;
use crate::proto::wire::parse_auth;
use crate::proto::wire::Auth;
use crate::proto::wire::KeyId;
use crate::proto::wire::TcpHeader;

/// Compiles only if the function has the type that the header says.
macro_rules! declared {
    ($($function:ident),+ $(,)?) => {
        $(const _: () = {
            let _ = if true { $function } else { bindings::$function };
        };)+
    };
}

declared!(
    tao_rust_net_new,
    tao_rust_net_hide,
    tao_rust_net_free,
    tao_rust_net_max_keys,
    tao_rust_net_key_overlap,
    tao_rust_net_rollover_rule,
    tao_rust_net_accept_tolerance,
    tao_rust_net_no_key_grace,
    tao_rust_net_choose_again,
    tao_rust_vrf_at,
    tao_rust_vrf_added,
    tao_rust_vrf_gone,
    tao_rust_vrf_renamed,
    tao_rust_proc_position,
    tao_rust_proc_line,
    tao_rust_setsockopt,
    tao_rust_getsockopt,
    tao_rust_conn_again,
    tao_rust_conn_accept,
    tao_rust_conn_free,
    tao_rust_connect,
    tao_rust_not_connected,
    tao_rust_takes_md5,
    tao_rust_keyed,
    tao_rust_must_sign,
    tao_rust_may_send,
    tao_rust_crowded,
    tao_rust_child,
    tao_rust_transmit,
    tao_rust_reply,
    tao_rust_receive,
    tao_rust_find_ao,
    tao_rust_sne,
);

/// # Safety
///
/// `conn` is the state of a socket, which lives as long as the result is used.
unsafe fn conn_of<'a>(conn: *const bindings::tao_conn) -> &'a Conn {
    // SAFETY: It is the first field of a `Conn`.
    unsafe { &*conn.cast::<Conn>() }
}

/// # Safety
///
/// `net` came from [`tao_rust_net_new`] and was not given to [`tao_rust_net_free`].
unsafe fn net_of<'a>(net: *const bindings::tao_net) -> &'a Netns {
    // SAFETY: It is an `Arc<Netns>` that was turned into a pointer.
    unsafe { &*net.cast::<Netns>() }
}

// ---- namespaces, /proc ----

/// A new namespace; null if there is no memory.
#[no_mangle]
unsafe extern "C" fn tao_rust_net_new() -> *mut bindings::tao_net {
    let net = Arc::pin_init(Netns::new(), GFP_KERNEL_ACCOUNT);
    net.map_or(ptr::null_mut(), |net| Arc::into_raw(net).cast_mut().cast())
}

/// It goes; after the next grace period its keys are looked up no more.
#[no_mangle]
unsafe extern "C" fn tao_rust_net_hide(net: *mut bindings::tao_net) {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.keys.hide();
}

/// It has gone.
#[no_mangle]
unsafe extern "C" fn tao_rust_net_free(net: *mut bindings::tao_net) {
    // SAFETY: It came from `tao_rust_net_new()`, and this is called once.
    let net = unsafe { Arc::from_raw(net.cast::<Netns>()) };
    net.keys.clear();
}

#[no_mangle]
unsafe extern "C" fn tao_rust_net_max_keys(net: *mut bindings::tao_net) -> *mut u32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.max_keys.as_ptr()
}

#[no_mangle]
unsafe extern "C" fn tao_rust_net_key_overlap(net: *mut bindings::tao_net) -> *mut u32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.key_overlap.as_ptr()
}

#[no_mangle]
unsafe extern "C" fn tao_rust_net_rollover_rule(net: *mut bindings::tao_net) -> *mut u32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.rollover_rule.as_ptr()
}

#[no_mangle]
unsafe extern "C" fn tao_rust_net_accept_tolerance(net: *mut bindings::tao_net) -> *mut u32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.accept_tolerance.as_ptr()
}

#[no_mangle]
unsafe extern "C" fn tao_rust_net_no_key_grace(net: *mut bindings::tao_net) -> *mut i32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.no_key_grace.as_ptr()
}

/// The rule or the tolerance was written. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_net_choose_again(net: *mut bindings::tao_net) {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.keys.choose_again();
}

/// The VRF whose device has this index, as keys name it.
#[no_mangle]
unsafe extern "C" fn tao_rust_vrf_at(net: *mut bindings::tao_net, ifindex: u32) -> u32 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.keys.vrf_at(ifindex).0
}

/// # Safety
///
/// `name` is that of a device, with as many bytes as one may have.
unsafe fn name_at(name: *const c_char) -> Name {
    // SAFETY: By the safety requirements of this function.
    Name::new(unsafe { *name.cast::<[u8; NAME_LEN]>() })
}

/// An L3 master is there, and is not up yet. An error means that it must go again. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_vrf_added(
    net: *mut bindings::tao_net,
    ifindex: u32,
    name: *const c_char,
) -> c_int {
    // SAFETY: The namespace lives; `name` is a device's.
    let (net, name) = unsafe { (net_of(net), name_at(name)) };
    let added = net.keys.device_added(ifindex, name);
    added.map_or_else(to_errno, |()| 0)
}

/// An L3 master goes, and is down already. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_vrf_gone(net: *mut bindings::tao_net, ifindex: u32) {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.keys.device_gone(ifindex);
}

/// An L3 master has another name. An error means that it must keep the old one. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_vrf_renamed(
    net: *mut bindings::tao_net,
    ifindex: u32,
    name: *const c_char,
) -> c_int {
    // SAFETY: The namespace lives; `name` is a device's.
    let (net, name) = unsafe { (net_of(net), name_at(name)) };
    let renamed = net.keys.device_renamed(ifindex, name);
    renamed.map_or_else(to_errno, |()| 0)
}

/// The first position from `from` on that has a key; 0 if there is none.
#[no_mangle]
unsafe extern "C" fn tao_rust_proc_position(net: *mut bindings::tao_net, from: u64) -> u64 {
    // SAFETY: The namespace lives.
    unsafe { net_of(net) }.keys.position_from(from).unwrap_or(0)
}

/// Writes the line at a position; returns its length.
#[no_mangle]
unsafe extern "C" fn tao_rust_proc_line(
    net: *mut bindings::tao_net,
    position: u64,
    line: *mut u8,
    size: usize,
) -> usize {
    // SAFETY: The namespace lives; `size` bytes at `line` are ours to write.
    let (net, line) = unsafe { (net_of(net), core::slice::from_raw_parts_mut(line, size)) };
    net.show(position, line)
}

// ---- socket options ----

fn answer(answer: Result<Answer, Error>) -> c_int {
    match answer {
        Ok(Answer::Done) => 0,
        Ok(Answer::NotOurs) => bindings::TAO_NOT_OURS as c_int,
        Err(err) => to_errno(err),
    }
}

#[no_mangle]
unsafe extern "C" fn tao_rust_setsockopt(call: *mut bindings::tao_sockopt) -> c_int {
    // SAFETY: `call` is filled in.
    answer(sockopt::set(&unsafe { Call::new(&mut *call) }))
}

#[no_mangle]
unsafe extern "C" fn tao_rust_getsockopt(call: *mut bindings::tao_sockopt) -> c_int {
    // SAFETY: `call` is filled in.
    answer(sockopt::get(&mut unsafe { Call::new(&mut *call) }))
}

/// The namespace of a socket.
pub(super) fn netns_of(sk: Sock<'_>) -> Arc<Netns> {
    // SAFETY: The socket lives, so its namespace does, which holds the pointer as an `Arc` that
    // was turned into one.
    unsafe {
        let net = bindings::tao_net_of(sk.as_ptr()).cast::<Netns>();
        (*core::mem::ManuallyDrop::new(Arc::from_raw(net))).clone()
    }
}

fn find_state(sk: Sock<'_>) -> *mut bindings::tao_conn {
    // SAFETY: The socket lives; the caller has it locked or holds an RCU read lock.
    unsafe { bindings::tao_find(sk.as_ptr()) }
}

/// The socket carries our state. Only a hint unless it is locked.
pub(super) fn has_state(sk: Sock<'_>) -> bool {
    !find_state(sk).is_null()
}

/// Calls `f` with the state of the socket, if it has any.
pub(super) fn with_state<R>(lock: &SockLock<'_>, f: impl FnOnce(&Conn) -> R) -> Option<R> {
    let conn = find_state(lock.sock());
    // SAFETY: The state goes with the socket, which lives and is locked.
    (!conn.is_null()).then(|| f(unsafe { conn_of(conn) }))
}

/// State that a socket is about to get. Nothing that makes it the socket's can fail any more; if
/// this is dropped instead, the socket is as before.
///
/// # Invariants
///
/// `conn` came from a `KBox`. If the socket is `open` the state is parked for it; else
/// `tao_attach_begin()` was called for the two, and neither of the calls that end that.
pub(super) struct NewState<'a> {
    lock: &'a SockLock<'a>,
    conn: *mut bindings::tao_conn,
    open: bool,
}

impl<'a> NewState<'a> {
    /// `conn` is for the socket, which has no state. `open`: its connection has begun. Segments do
    /// not meet the state yet, but on an open socket, where it changes no more than that signed
    /// ones are accepted as unsigned ones are.
    pub(super) fn prepare(
        lock: &'a SockLock<'a>,
        conn: KBox<Conn>,
        open: bool,
    ) -> Result<Self, Error> {
        let raw = conn.as_c();
        let sk = lock.sock().as_ptr();
        // SAFETY: The socket is locked, the state is initialised and nobody's yet.
        let ret = unsafe {
            if open {
                bindings::tao_park(sk, raw)
            } else {
                bindings::tao_attach_begin(sk, raw)
            }
        };
        to_result(ret).map_err(|err| {
            if err == ENOMEM {
                Error::NoMem
            } else {
                Error::Busy
            }
        })?;
        // INVARIANT: It comes from a `KBox`, and one of the two has succeeded.
        Ok(Self {
            lock,
            conn: KBox::into_raw(conn).cast(),
            open,
        })
    }

    /// Makes it the socket's; `tao_rust_conn_free()` gets it back.
    pub(super) fn give(self) {
        let new = core::mem::ManuallyDrop::new(self);
        if !new.open {
            // SAFETY: The socket is still locked; by the type invariant this is what comes next.
            unsafe { bindings::tao_attach_end(new.lock.sock().as_ptr(), new.conn) };
        }
    }
}

impl Drop for NewState<'_> {
    fn drop(&mut self) {
        if self.open {
            // SAFETY: The socket is still locked. By the type invariant the state is parked for
            // it; it is freed when segments that have met it are done.
            unsafe { bindings::tao_forget(self.lock.sock().as_ptr()) };
        } else {
            // SAFETY: By the type invariant. Nobody has met the state but the list of those that
            // pin the module, which it leaves here, so that it is a `KBox` again.
            unsafe {
                bindings::tao_attach_cancel(self.conn);
                drop(KBox::from_raw(self.conn.cast::<Conn>()));
            }
        }
    }
}

// ---- connections ----

/// State with the flags of `old`, another one of `sk`; null if there is no memory. May sleep.
#[no_mangle]
unsafe extern "C" fn tao_rust_conn_again(
    old: *const bindings::tao_conn,
    sk: *mut bindings::sock,
) -> *mut bindings::tao_conn {
    // SAFETY: Both live; the socket is locked, and `old` is its state.
    let (old, sk) = unsafe { (conn_of(old), Sock::from_raw(sk)) };
    let conn = Conn::new(old.net.clone(), old.flags(), sk, GFP_KERNEL_ACCOUNT);
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
    let Some(conn) = Conn::new(listener.net.clone(), listener.flags(), newsk, alloc) else {
        return ptr::null_mut();
    };
    conn.begin(
        signed_by.is_some(),
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
) -> c_int {
    // SAFETY: The socket is locked, and `conn` is its state.
    let (conn, sk) = unsafe { (conn_of(conn), Sock::from_raw(sk)) };
    let peer = sk.peer();
    let keyed = rx::is_keyed(conn, &peer);
    if keyed && !tx::may_send(conn, &peer) {
        return to_errno(Error::NoKey);
    }
    conn.begin(keyed, None, sk.in_repair());
    keyed.into()
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

/// Some key matches the peer, valid or not.
#[no_mangle]
unsafe extern "C" fn tao_rust_keyed(
    conn: *const bindings::tao_conn,
    peer: *const bindings::tao_peer,
) -> bool {
    // SAFETY: Both live.
    unsafe { rx::is_keyed(conn_of(conn), &ffi::peer_of(&*peer)) }
}

/// The peer's segments have to be signed: the connection is protected; or, of a listener's, open or
/// closed since, a key matches the peer.
#[no_mangle]
unsafe extern "C" fn tao_rust_must_sign(
    conn: *const bindings::tao_conn,
    peer: *const bindings::tao_peer,
) -> bool {
    // SAFETY: Both live.
    let (conn, peer) = unsafe { (conn_of(conn), ffi::peer_of(&*peer)) };
    conn.is_protected() || rx::is_keyed(conn, &peer)
}

/// Some key that matches the peer may be used to send.
#[no_mangle]
unsafe extern "C" fn tao_rust_may_send(
    conn: *const bindings::tao_conn,
    peer: *const bindings::tao_peer,
) -> bool {
    // SAFETY: Both live.
    unsafe { tx::may_send(conn_of(conn), &ffi::peer_of(&*peer)) }
}

/// What becomes of a SYN that the stack would drop, or answer by a cookie. `is_signed`: it carries
/// AO. `requests`: so many does the listener have, and `backlog` is the most that it is to have.
#[no_mangle]
unsafe extern "C" fn tao_rust_crowded(
    conn: *const bindings::tao_conn,
    peer: *const bindings::tao_peer,
    is_signed: bool,
    requests: u32,
    backlog: u32,
) -> bindings::tao_crowded {
    // SAFETY: Both live.
    let keyed = unsafe { rx::is_keyed(conn_of(conn), &ffi::peer_of(&*peer)) };
    match crowded(keyed, is_signed, requests, backlog) {
        Crowded::Stack => bindings::tao_crowded_TAO_CROWDED_STACK,
        Crowded::Admit => bindings::tao_crowded_TAO_CROWDED_ADMIT,
        Crowded::Drop => bindings::tao_crowded_TAO_CROWDED_DROP,
    }
}

/// What becomes of a child. `is_signed`: the stack holds its handshake for a signed one; what shows a
/// cookie carries AO.
#[no_mangle]
unsafe extern "C" fn tao_rust_child(
    listener: *const bindings::tao_conn,
    peer: *const bindings::tao_peer,
    is_signed: bool,
    origin: bindings::tao_origin,
) -> bindings::tao_child {
    // SAFETY: Both live.
    let keyed = unsafe { rx::is_keyed(conn_of(listener), &ffi::peer_of(&*peer)) };
    let origin = match origin {
        bindings::tao_origin_TAO_OF_REQUEST => Origin::Request,
        bindings::tao_origin_TAO_OF_FAST_OPEN => Origin::FastOpen,
        _ => Origin::Cookie,
    };
    match child(keyed, is_signed, origin) {
        Child::Protected => bindings::tao_child_TAO_CHILD_PROTECTED,
        Child::Unprotected => bindings::tao_child_TAO_CHILD_UNPROTECTED,
        Child::Refused => bindings::tao_child_TAO_CHILD_REFUSED,
    }
}

// ---- segments ----

/// # Safety
///
/// The segment is being built: its header is ours to write.
unsafe fn header_to_write<'a>(segment: *const bindings::tao_segment) -> &'a mut [u8] {
    // SAFETY: So many bytes of header are ours to write.
    unsafe { core::slice::from_raw_parts_mut((*segment).th, (*segment).header_len as usize) }
}

#[no_mangle]
unsafe extern "C" fn tao_rust_transmit(
    conn: *mut bindings::tao_conn,
    segment: *const bindings::tao_segment,
    numbers: *const bindings::tao_numbers,
) -> c_int {
    // SAFETY: All live; `conn` is of a socket that is locked, and the segment is being built.
    let sent = unsafe {
        let (seg, _) = Segment::from_raw(&*segment);
        tx::transmit(conn_of(conn), &seg, header_to_write(segment), &*numbers)
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
            &ffi::peer_of(&(*reply).peer),
            &(*reply).numbers,
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
    peer: *const bindings::tao_peer,
    state: bindings::tao_state,
    numbers: *const bindings::tao_numbers,
) -> bindings::skb_drop_reason {
    // SAFETY: All live; we are in an RCU read-side section.
    unsafe {
        let (seg, header) = Segment::from_raw(&*segment);
        let received = rx::Received {
            segment: seg,
            header,
            peer: ffi::peer_of(&*peer),
        };
        rx::receive(
            conn_of(conn),
            Sock::from_raw(sk),
            &received,
            rx::State::new(state, &*numbers),
            || bindings::tao_md5_wanted(sk, peer, (*segment).family),
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

/// The SNE of `seq`, given that of `basis`.
#[no_mangle]
unsafe extern "C" fn tao_rust_sne(sne: u32, basis: u32, seq: u32) -> u32 {
    crate::proto::sne::sne_at(crate::proto::sne::Sne(sne), basis, seq).0
}
