// SPDX-License-Identifier: GPL-2.0

//! Sockets, and calls of their options, as far as the kernel tells of them.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;

use super::ffi::bindings;
use crate::proto::addr::Addr;
use crate::proto::addr::Endpoints;
use crate::proto::addr::Family;
use crate::proto::criteria::Pair;
use crate::proto::criteria::Side;
use crate::proto::error;
use crate::proto::sockopt::MAX_OPTLEN;
use crate::proto::vrf::VrfId;

/// A socket, a request or a TIME-WAIT socket that the caller of a hook keeps alive.
#[derive(Clone, Copy)]
pub(super) struct Sock<'a> {
    ptr: NonNull<bindings::sock>,
    _lifetime: PhantomData<&'a ()>,
}

impl Sock<'_> {
    /// # Safety
    ///
    /// `ptr` points to a socket that lives for the lifetime of the result.
    pub(super) unsafe fn from_raw(ptr: *const bindings::sock) -> Self {
        Self {
            // SAFETY: It points to a socket.
            ptr: unsafe { NonNull::new_unchecked(ptr.cast_mut()) },
            _lifetime: PhantomData,
        }
    }

    pub(super) fn as_ptr(self) -> *mut bindings::sock {
        self.ptr.as_ptr()
    }

    /// Its connection, as keys see it.
    pub(super) fn pair(self) -> Pair {
        let mut ends = MaybeUninit::zeroed();
        let _guard = rcu::read_lock();
        // SAFETY: The socket lives; the function fills in `ends`, of which any bytes are valid.
        let ends = unsafe {
            bindings::tao_ends_of_sock(self.as_ptr(), ends.as_mut_ptr());
            ends.assume_init()
        };
        pair_of(&ends)
    }

    /// Its state, one of the kernel's `TCP_*`.
    pub(super) fn state(self) -> u8 {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_sk_state(self.as_ptr()) }
    }

    /// It is under `TCP_REPAIR`.
    pub(super) fn in_repair(self) -> bool {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_sk_in_repair(self.as_ptr()) }
    }

    /// Increments a counter of the socket's namespace, one of `LINUX_MIB_*`.
    pub(super) fn count(self, mib: u32) {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_count(self.as_ptr(), mib as c_int) }
    }
}

/// The core's view of the side of a connection.
pub(super) fn side_of(side: &bindings::tao_side) -> Side {
    Side {
        socket: Family::from_af(side.family).unwrap_or(Family::V4),
        vrf: VrfId(side.vrf),
    }
}

/// The core's view of a connection.
pub(super) fn pair_of(ends: &bindings::tao_ends) -> Pair {
    let side = side_of(&ends.side);
    let addr = |bytes: [u8; 16]| match side.socket {
        Family::V6 => Addr::v6(bytes),
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            Addr::v4([a, b, c, d])
        }
    };
    let ends = Endpoints {
        src: addr(ends.local),
        dst: addr(ends.remote),
        src_port: ends.local_port,
        dst_port: ends.remote_port,
    };
    Pair::of_sent(&ends, side)
}

/// What copying from user memory fails with.
fn fault_or_inval(err: Error) -> error::Error {
    if err == EFAULT {
        error::Error::Fault
    } else {
        error::Error::Inval
    }
}

/// A `setsockopt()` or `getsockopt()` call.
pub(super) struct Call<'a>(&'a mut bindings::tao_sockopt);

impl<'a> Call<'a> {
    /// # Safety
    ///
    /// The socket lives; the pointers come from the caller of the system call.
    pub(super) unsafe fn new(call: &'a mut bindings::tao_sockopt) -> Self {
        Self(call)
    }

    pub(super) fn optname(&self) -> i32 {
        self.0.optname
    }

    pub(super) fn optlen(&self) -> usize {
        self.0.optlen as usize
    }

    pub(super) fn sock(&self) -> Sock<'_> {
        // SAFETY: The socket lives as long as the call.
        unsafe { Sock::from_raw(self.0.sk) }
    }

    /// Family of the socket; `None` if it is neither.
    pub(super) fn family(&self) -> Option<Family> {
        // SAFETY: The socket lives.
        Family::from_af(unsafe { bindings::tao_sk_family(self.0.sk) })
    }

    /// The socket carries state of the kernel's own TCP-AO.
    pub(super) fn has_native(&self) -> bool {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_has_native(self.0.sk) }
    }

    /// The caller may add and delete keys of the socket's namespace.
    pub(super) fn may_change_keys(&self) -> bool {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_may_change_keys(self.0.sk) }
    }

    /// Locks the socket until the result is dropped. May sleep.
    pub(super) fn lock(&self) -> SockLock<'_> {
        // SAFETY: The socket lives, and this is process context.
        unsafe { bindings::tao_sk_lock(self.0.sk) };
        SockLock(self.sock())
    }

    /// Whether all bytes of the option value from `from` on are zero.
    pub(super) fn rest_is_zero(&self, from: usize) -> Result<bool, error::Error> {
        let mut err = 0;
        // SAFETY: The pointers come from the caller of the system call; faults are handled.
        let zero = unsafe { bindings::tao_rest_is_zero(self.0, from, &mut err) };
        to_result(err).map_err(|_| error::Error::Fault)?;
        Ok(zero)
    }

    /// Reads the option value, filled up with zeros; of a longer one the rest has to be zero.
    /// One that is too long for that is not read.
    pub(super) fn copy_in(&self, to: &mut [u8]) -> Result<(), error::Error> {
        if self.optlen() > MAX_OPTLEN {
            return Err(error::Error::Inval);
        }
        // SAFETY: `to` has the length given; the other side's faults are handled.
        let ret = unsafe { bindings::tao_copy_in(self.0, to.as_mut_ptr().cast(), to.len()) };
        to_result(ret).map_err(fault_or_inval)
    }

    /// `getsockopt()`: reads how much the caller offers.
    pub(super) fn get_len(&mut self) -> Result<(), error::Error> {
        // SAFETY: The pointer comes from the caller of the system call; faults are handled.
        to_result(unsafe { bindings::tao_get_len(self.0) }).map_err(fault_or_inval)
    }

    /// `getsockopt()`: answers, truncated to what the caller offers.
    pub(super) fn copy_out(&self, from: &[u8]) -> Result<(), error::Error> {
        // SAFETY: `from` has the length given; the other side's faults are handled.
        let ret = unsafe { bindings::tao_copy_out(self.0, from.as_ptr().cast(), from.len()) };
        to_result(ret).map_err(|_| error::Error::Fault)
    }
}

/// The lock of a socket, held.
pub(super) struct SockLock<'a>(Sock<'a>);

impl SockLock<'_> {
    pub(super) fn sock(&self) -> Sock<'_> {
        self.0
    }
}

impl Drop for SockLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Call::lock()`.
        unsafe { bindings::tao_sk_unlock(self.0.as_ptr()) };
    }
}
