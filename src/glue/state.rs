// SPDX-License-Identifier: GPL-2.0

//! The state of a socket: how it is found, and how it comes to be the socket's.

use core::mem::MaybeUninit;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::sync::Arc;

use super::conn::Conn;
use super::ffi::bindings;
use super::netns::Netns;
use super::sock::Sock;
use super::sock::SockLock;
use crate::proto::error::Error;
use crate::proto::sne::Sne;
use crate::proto::sockopt::Repair;
use crate::proto::wire::Isn;

/// # Safety
///
/// `conn` is the state of a socket, which lives as long as the result is used.
pub(super) unsafe fn conn_of<'a>(conn: *const bindings::tao_conn) -> &'a Conn {
    // SAFETY: It is the first field of a `Conn`.
    unsafe { &*conn.cast::<Conn>() }
}

/// # Safety
///
/// `net` came from `tao_rust_net_new()` and was not given to `tao_rust_net_free()`.
pub(super) unsafe fn arc_of(net: *mut bindings::tao_net) -> Arc<Netns> {
    // SAFETY: `struct net` holds the pointer as an `Arc` that was turned into one.
    let net = unsafe { Arc::from_raw(net.cast::<Netns>()) };
    (*core::mem::ManuallyDrop::new(net)).clone()
}

/// The namespace of a socket.
pub(super) fn netns_of(sk: Sock<'_>) -> Arc<Netns> {
    // SAFETY: The socket lives, so its namespace does.
    unsafe { arc_of(bindings::tao_net_of(sk.as_ptr())) }
}

fn find_state(sk: Sock<'_>) -> *mut bindings::tao_conn {
    // SAFETY: The socket lives; the caller has it locked or holds an RCU read lock.
    unsafe { bindings::tao_find(sk.as_ptr()) }
}

/// The socket carries our state. Only a hint unless it is locked.
pub(super) fn has_state(sk: Sock<'_>) -> bool {
    !find_state(sk).is_null()
}

/// The socket carries our state, since its program has asked. Only a hint unless it is locked.
pub(super) fn has_asked(sk: Sock<'_>) -> bool {
    let _guard = rcu::read_lock();
    let conn = find_state(sk);
    // SAFETY: It was found under the read lock, which is still held.
    !conn.is_null() && unsafe { conn_of(conn) }.asked()
}

/// A policy has protected a connection of the socket, whose program never asked, and which is over:
/// the socket is as if there had been none.
pub(super) fn forget_leftover(sk: Sock<'_>) {
    // SAFETY: The socket lives, and this is process context.
    unsafe { bindings::tao_forget_leftover(sk.as_ptr()) };
}

/// The namespace of the socket is about to get a policy. May sleep.
pub(super) fn make_stand_in(sk: Sock<'_>) -> Result<(), Error> {
    // SAFETY: The socket lives.
    to_result(unsafe { bindings::tao_make_stand_in(sk.as_ptr()) }).map_err(|_| Error::NoMem)
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

/// What a connection needs to go on elsewhere. `conn` is the state of the socket.
pub(super) fn repair(lock: &SockLock<'_>, conn: &Conn) -> Repair {
    let mut raw = MaybeUninit::zeroed();
    // SAFETY: The socket is locked and `conn` is its state; the function fills in `raw`, of which
    // any bytes are valid.
    let raw = unsafe {
        bindings::tao_repair_get(lock.sock().as_ptr(), conn.as_c(), raw.as_mut_ptr());
        raw.assume_init()
    };
    Repair {
        src_isn: Isn(raw.src_isn),
        dst_isn: Isn(raw.dst_isn),
        snd_sne: Sne(raw.snd_sne),
        // It is counted from the peer's ISN, which an unprotected connection does not keep.
        rcv_sne: Sne(if conn.knows_isns() { raw.rcv_sne } else { 0 }),
        snd_seq: raw.snd_seq,
        rcv_seq: raw.rcv_seq,
    }
}

/// Sets what [`repair`] tells.
pub(super) fn set_repair(lock: &SockLock<'_>, conn: &Conn, repair: &Repair) {
    let raw = bindings::tcp_repair_authopt {
        src_isn: repair.src_isn.0,
        dst_isn: repair.dst_isn.0,
        snd_sne: repair.snd_sne.0,
        rcv_sne: repair.rcv_sne.0,
        snd_seq: repair.snd_seq,
        rcv_seq: repair.rcv_seq,
    };
    // SAFETY: The socket is locked and `conn` is its state.
    unsafe { bindings::tao_repair_set(lock.sock().as_ptr(), conn.as_c(), &raw) };
}
