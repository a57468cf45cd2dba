// SPDX-License-Identifier: GPL-2.0

//! Kernel functions and facts, made safe to use.
//!
//! C header: `src/shim/bindings.h`, from which bindgen makes [`bindings`] in every build.

use kernel::error::code;
use kernel::error::to_result;
use kernel::prelude::*;

use crate::proto::criteria::CRITERIA_KEY_LEN;
use crate::proto::error;
use crate::proto::sockopt;
use crate::proto::uapi;
use crate::proto::vrf;
use crate::proto::wire;

/// Declarations of `src/shim/bindings.h`.
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
    assert!(wire::MAC_LEN == bindings::TAO_MAC_LEN as usize);
    assert!(sockopt::NATIVE_ADD_KEY_LEN == size_of::<bindings::tcp_ao_add>());
    assert!(sockopt::NATIVE_DEL_KEY_LEN == size_of::<bindings::tcp_ao_del>());
    assert!(sockopt::NATIVE_INFO_LEN == size_of::<bindings::tcp_ao_info_opt>());
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
        error::Error::OpNotSupp => return -(kernel::bindings::EOPNOTSUPP as c_int),
        error::Error::ConnAborted => return -(kernel::bindings::ECONNABORTED as c_int),
    };
    code.to_errno()
}

/// Overwrites `secret` with zeros, in a way that the compiler may not drop.
pub(super) fn wipe(secret: &mut [u8]) {
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
        to_result(unsafe { bindings::tao_seam_attach() })?;
        Ok(Self(()))
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // SAFETY: They are attached.
        unsafe { bindings::tao_seam_detach() };
    }
}

/// What all sockets share: tables of functions, the table of parked states, what the first one woke.
pub(crate) struct SocketTables(());

impl SocketTables {
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Called once, while the module is loaded.
        to_result(unsafe { bindings::tao_load_conns() })?;
        Ok(Self(()))
    }
}

impl Drop for SocketTables {
    fn drop(&mut self) {
        // SAFETY: They exist, and the hooks, which use them, are gone.
        unsafe { bindings::tao_unload_conns() };
    }
}

/// What the module has in every network namespace.
pub(crate) struct Namespaces(());

impl Namespaces {
    pub(crate) fn register() -> Result<Self> {
        // SAFETY: Called once, while the module is loaded.
        to_result(unsafe { bindings::tao_load_namespaces() })?;
        Ok(Self(()))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // SAFETY: It is registered; whoever uses it is gone.
        unsafe { bindings::tao_unload_namespaces() };
        // Whatever was given to RCU is freed by functions of this module.
        rcu_barrier();
    }
}
