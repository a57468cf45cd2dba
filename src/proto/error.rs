// SPDX-License-Identifier: GPL-2.0

//! Why a socket option, a connection or a segment that is to be sent is refused.

/// Why that is refused. Each is one errno, which the caller of the core maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// `EPERM`: the sysctl is off, a capability is missing, the socket is in the wrong state.
    Perm,
    /// `ENOENT`: no such key, or no authentication state on this socket.
    NoEnt,
    /// `ENOMEM`.
    NoMem,
    /// `EFAULT`: user memory is not readable or writable, or a length that cannot be.
    Fault,
    /// `EBUSY`: the socket already carries the kernel's own TCP-AO, or ours.
    Busy,
    /// `EEXIST`: the ids overlap those of a key that matches the same connections.
    Exist,
    /// `EINVAL`: an unknown flag, or a value out of range.
    Inval,
    /// `ENOSPC`: the namespace holds as many keys as it may.
    NoSpc,
    /// `ENOPROTOOPT`: there is no such option on this socket.
    NoProtoOpt,
    /// What another part of the kernel has refused, with its own errno, which is negative.
    Kernel(i32),
    /// `ENOKEY`: the connection is protected, and no key may be used to send now.
    NoKey,
    /// `EOPNOTSUPP`: the connection has to be protected, and would be one of MPTCP.
    OpNotSupp,
    /// `ECONNABORTED`: the connection has to be protected, and was answered before it was.
    ConnAborted,
}
