// SPDX-License-Identifier: GPL-2.0

//! Kernel functions and facts, made safe to use.
//!
//! C header: `src/shim/tao.h`, from which bindgen makes [`bindings`] in every build.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use kernel::error::code;
use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu;

use crate::proto::addr::Addr;
use crate::proto::addr::Endpoints;
use crate::proto::addr::Family;
use crate::proto::error;
use crate::proto::mac::MacState;
use crate::proto::mkt::Peer;
use crate::proto::mkt::CRITERIA_KEY_LEN;
use crate::proto::sockopt::Repair;
use crate::proto::sockopt::MAX_OPTLEN;
use crate::proto::uapi;
use crate::proto::vrf;
use crate::proto::vrf::VrfId;

/// Declarations of `src/shim/tao.h`.
#[allow(
    clippy::all,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unreachable_pub,
    unsafe_op_in_unsafe_fn
)]
pub(super) mod bindings {
    pub use kernel::bindings::sk_buff;
    pub use kernel::bindings::sock;

    include!(env!("TAO_BINDINGS"));
}

// The core has its own idea of the ABI, the C header another: they must be one.
const _: () = {
    assert!(uapi::AUTHOPT_LEN == size_of::<bindings::tcp_authopt>());
    assert!(uapi::KEY_LEN == size_of::<bindings::tcp_authopt_key>());
    assert!(uapi::REPAIR_LEN == size_of::<bindings::tcp_repair_authopt>());
    assert!(uapi::MAX_MASTER_KEY_LEN == bindings::TCP_AUTHOPT_MAXKEYLEN as usize);
    assert!(CRITERIA_KEY_LEN == bindings::TAO_CRITERIA_LEN as usize);
    assert!(vrf::NAME_LEN == kernel::bindings::IFNAMSIZ as usize);
};

/// The `int` of a failed call.
pub(super) fn to_errno(err: error::Error) -> c_int {
    let code = match err {
        error::Error::Perm => code::EPERM,
        error::Error::NoEnt => code::ENOENT,
        error::Error::NoMem => code::ENOMEM,
        error::Error::Fault => code::EFAULT,
        error::Error::Busy => code::EBUSY,
        error::Error::Exist => code::EEXIST,
        error::Error::Inval => code::EINVAL,
        error::Error::NoSpc => code::ENOSPC,
        // Not among those that the `kernel` crate of every kernel names.
        error::Error::NoProtoOpt => return -(kernel::bindings::ENOPROTOOPT as c_int),
        error::Error::Kernel(errno) => return errno,
        error::Error::NoKey => return -(kernel::bindings::ENOKEY as c_int),
    };
    code.to_errno()
}

/// Overwrites `secret` with zeros, in a way that the compiler may not drop.
pub(crate) fn wipe(secret: &mut [u8]) {
    // SAFETY: The slice is ours to write.
    unsafe { bindings::tao_wipe(secret.as_mut_ptr().cast(), secret.len()) }
}

/// Waits for every RCU read lock that is held now. The `kernel` crate has it since 7.3.
pub(super) fn synchronize_rcu() {
    // SAFETY: Needs no more than a context that may sleep, which all callers are in.
    unsafe { kernel::bindings::synchronize_rcu() }
}

/// Waits for all that was given to RCU to be freed. The `kernel` crate has it since 7.3.
fn rcu_barrier() {
    // SAFETY: Needs no more than a context that may sleep, such as that of unloading.
    unsafe { kernel::bindings::rcu_barrier() }
}

/// Seconds of wall-clock time (`CLOCK_REALTIME`).
pub(super) fn now() -> u64 {
    // SAFETY: Can be called anywhere.
    unsafe { bindings::tao_now() }
}

/// Nanoseconds of a clock that nobody sets (`CLOCK_MONOTONIC`).
pub(super) fn uptime() -> u64 {
    // SAFETY: Can be called anywhere but in an NMI.
    unsafe { bindings::tao_uptime() }
}

/// The sysctl `net.ipv4.tcp_authopt` is 1.
pub(super) fn enabled() -> bool {
    // SAFETY: Reads an integer.
    unsafe { bindings::tao_enabled() }
}

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

    /// The far end, as keys see it.
    pub(super) fn peer(self) -> Peer {
        let mut peer = MaybeUninit::zeroed();
        let _guard = rcu::read_lock();
        // SAFETY: The socket lives; the function fills in `peer`, of which any bytes are valid.
        let peer = unsafe {
            bindings::tao_peer_of_sock(self.as_ptr(), peer.as_mut_ptr());
            peer.assume_init()
        };
        peer_of(&peer)
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

/// The core's view of a peer.
pub(super) fn peer_of(peer: &bindings::tao_peer) -> Peer {
    let addr = if i32::from(peer.family) == kernel::bindings::AF_INET6 as i32 {
        Addr::v6(peer.addr)
    } else {
        let [a, b, c, d, ..] = peer.addr;
        Addr::v4([a, b, c, d])
    };
    Peer::new(addr, VrfId(peer.vrf))
}

/// A segment: addresses, length, and what follows the header. The header is beside it, since it is
/// written to where the segment is to be sent.
pub(super) struct Segment<'a> {
    src: Addr,
    dst: Addr,
    /// Bytes of header and payload.
    pub(super) len: u32,
    /// To be sent: where the AO option is in the header.
    pub(super) ao: usize,
    header_len: u32,
    skb: *const bindings::sk_buff,
    _lifetime: PhantomData<&'a ()>,
}

impl<'a> Segment<'a> {
    /// Returns the segment and its header.
    ///
    /// # Safety
    ///
    /// `raw` describes a segment that lives for `'a` (see `struct tao_segment`).
    pub(super) unsafe fn from_raw(raw: &bindings::tao_segment) -> (Self, &'a [u8]) {
        let family = Family::from_af(raw.family);
        // SAFETY: The addresses have the length that the family says.
        let (src, dst) = unsafe { (addr_at(family, raw.saddr), addr_at(family, raw.daddr)) };
        // SAFETY: So many bytes of header are readable.
        let header = unsafe { core::slice::from_raw_parts(raw.th, raw.header_len as usize) };
        let segment = Self {
            src,
            dst,
            len: raw.len,
            ao: raw.ao as usize,
            header_len: raw.header_len,
            skb: raw.skb,
            _lifetime: PhantomData,
        };
        (segment, header)
    }

    /// Addresses and, from the header, ports.
    pub(super) fn endpoints(&self, src_port: u16, dst_port: u16) -> Endpoints {
        Endpoints {
            src: self.src,
            dst: self.dst,
            src_port,
            dst_port,
        }
    }

    /// Feeds all that follows the header. False: the CPU cannot read all of it.
    #[must_use]
    pub(super) fn feed_payload<S: MacState>(&self, state: &mut S) -> bool {
        /// # Safety
        ///
        /// `arg` is the `S` that `tao_payload()` was given; `len` bytes at `data` are readable.
        unsafe extern "C" fn each<S: MacState>(arg: *mut c_void, data: *const u8, len: usize) {
            // SAFETY: By the safety requirements of this function.
            let (state, data) = unsafe {
                (
                    &mut *arg.cast::<S>(),
                    core::slice::from_raw_parts(data, len),
                )
            };
            state.update(data);
        }

        if self.len <= self.header_len {
            return true;
        }
        let arg = core::ptr::from_mut(state).cast();
        // SAFETY: There is payload, so there is an skb, which lives for `'a`. Nothing else uses
        // `state` during the call.
        unsafe { bindings::tao_payload(self.skb, self.header_len, Some(each::<S>), arg) }
    }
}

/// # Safety
///
/// 4 bytes at `ptr` are readable, or 16 if `family` is IPv6.
unsafe fn addr_at(family: Option<Family>, ptr: *const u8) -> Addr {
    if family == Some(Family::V6) {
        // SAFETY: By the safety requirements of this function; bytes need no alignment.
        Addr::v6(unsafe { *ptr.cast::<[u8; 16]>() })
    } else {
        // SAFETY: As above.
        Addr::v4(unsafe { *ptr.cast::<[u8; 4]>() })
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

    /// State of the socket, one of the kernel's `TCP_*`.
    pub(super) fn state(&self) -> u8 {
        // SAFETY: The socket lives.
        unsafe { bindings::tao_sk_state(self.0.sk) }
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
        to_result(ret).map_err(|err| {
            if err == code::EFAULT {
                error::Error::Fault
            } else {
                error::Error::Inval
            }
        })
    }

    /// `getsockopt()`: reads how much the caller offers.
    pub(super) fn get_len(&mut self) -> Result<(), error::Error> {
        // SAFETY: The pointer comes from the caller of the system call; faults are handled.
        to_result(unsafe { bindings::tao_get_len(self.0) }).map_err(|err| {
            if err == code::EFAULT {
                error::Error::Fault
            } else {
                error::Error::Inval
            }
        })
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

    /// What a connection needs to go on elsewhere.
    pub(super) fn repair(&self, conn: &super::conn::Conn) -> Repair {
        let mut raw = MaybeUninit::zeroed();
        // SAFETY: The socket is locked and `conn` is its state; the function fills in `raw`, of
        // which any bytes are valid.
        let raw = unsafe {
            bindings::tao_repair_get(self.0.as_ptr(), conn.as_c(), raw.as_mut_ptr());
            raw.assume_init()
        };
        Repair {
            src_isn: crate::proto::wire::Isn(raw.src_isn),
            dst_isn: crate::proto::wire::Isn(raw.dst_isn),
            snd_sne: crate::proto::sne::Sne(raw.snd_sne),
            // It is counted from the peer's ISN, which an unprotected connection does not keep.
            rcv_sne: crate::proto::sne::Sne(if conn.knows_isns() { raw.rcv_sne } else { 0 }),
            snd_seq: raw.snd_seq,
            rcv_seq: raw.rcv_seq,
        }
    }

    /// Sets what [`Self::repair`] tells.
    pub(super) fn set_repair(&self, conn: &super::conn::Conn, repair: &Repair) {
        let raw = bindings::tcp_repair_authopt {
            src_isn: repair.src_isn.0,
            dst_isn: repair.dst_isn.0,
            snd_sne: repair.snd_sne.0,
            rcv_sne: repair.rcv_sne.0,
            snd_seq: repair.snd_seq,
            rcv_seq: repair.rcv_seq,
        };
        // SAFETY: The socket is locked and `conn` is its state.
        unsafe { bindings::tao_repair_set(self.0.as_ptr(), conn.as_c(), &raw) };
    }
}

impl Drop for SockLock<'_> {
    fn drop(&mut self) {
        // SAFETY: Locked by `Call::lock()`.
        unsafe { bindings::tao_sk_unlock(self.0.as_ptr()) };
    }
}

/// Turns on what the first socket needs. May sleep. Where rules of the machine's own forbid that, the
/// error is theirs; making a socket calls a lack of memory `ENOBUFS`, which we call as everywhere.
pub(super) fn wake() -> Result<(), error::Error> {
    const ENOBUFS: c_int = -(kernel::bindings::ENOBUFS as c_int);

    // SAFETY: Process context.
    to_result(unsafe { bindings::tao_wake() }).map_err(|err| match err.to_errno() {
        ENOBUFS => error::Error::NoMem,
        errno => error::Error::Kernel(errno),
    })
}

/// The hooks, attached as long as this lives.
pub(crate) struct Hooks(());

impl Hooks {
    pub(crate) fn attach() -> Result<Self> {
        // SAFETY: Called once, while the module is loaded.
        to_result(unsafe { bindings::tao_hooks_init() })?;
        Ok(Self(()))
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // SAFETY: They are attached.
        unsafe { bindings::tao_hooks_exit() };
    }
}

/// State of sockets whose connection is not protected.
pub(crate) struct SocketTables(());

impl SocketTables {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called once, while the module is loaded.
        to_result(unsafe { bindings::tao_conn_tables_init() })?;
        Ok(Self(()))
    }
}

impl Drop for SocketTables {
    fn drop(&mut self) {
        // SAFETY: They exist, and the hooks, which use them, are gone.
        unsafe { bindings::tao_conn_tables_exit() };
    }
}

/// What the module has in every network namespace.
pub(crate) struct Namespaces(());

impl Namespaces {
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: Called once, while the module is loaded.
        to_result(unsafe { bindings::tao_net_init() })?;
        Ok(Self(()))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // SAFETY: It is registered; whoever uses it is gone.
        unsafe { bindings::tao_net_exit() };
        // Whatever was given to RCU is freed by functions of this module.
        rcu_barrier();
    }
}
