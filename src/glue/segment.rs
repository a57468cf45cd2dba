// SPDX-License-Identifier: GPL-2.0

//! Segments, and what C knows of the connections that they belong to.

use core::marker::PhantomData;

use kernel::prelude::*;

use super::ffi::bindings;
use super::sock::side_of;
use crate::proto::addr::Addr;
use crate::proto::addr::Endpoints;
use crate::proto::addr::Family;
use crate::proto::conn::Context;
use crate::proto::conn::Numbers;
use crate::proto::criteria::Side;
use crate::proto::kdf::Isns;
use crate::proto::mac::MacState;
use crate::proto::sne::Sne;
use crate::proto::wire::Isn;

/// A segment: addresses, length, and what follows the header. The header is beside it, since it is
/// written to where the segment is to be sent.
pub(super) struct Segment<'a> {
    src: Addr,
    dst: Addr,
    /// Bytes of header and payload.
    pub(super) len: u32,
    /// To be sent: where the AO option is in the header.
    pub(super) ao: usize,
    /// Of the connection that it is for.
    pub(super) side: Side,
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
            side: side_of(&raw.side),
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
pub(super) unsafe fn addr_at(family: Option<Family>, ptr: *const u8) -> Addr {
    if family == Some(Family::V6) {
        // SAFETY: By the safety requirements of this function; bytes need no alignment.
        Addr::v6(unsafe { *ptr.cast::<[u8; 16]>() })
    } else {
        // SAFETY: By the safety requirements of this function; bytes need no alignment.
        Addr::v4(unsafe { *ptr.cast::<[u8; 4]>() })
    }
}

/// # Safety
///
/// The segment is being built: its header is ours to write.
pub(super) unsafe fn header_to_write<'a>(segment: *const bindings::tao_segment) -> &'a mut [u8] {
    // SAFETY: So many bytes of header are ours to write.
    unsafe { core::slice::from_raw_parts_mut((*segment).th, (*segment).header_len as usize) }
}

/// The numbers of a connection, for a segment from the end with the first ISN to the other.
fn numbers_of(src: u32, dst: u32, raw: &bindings::tao_numbers) -> Numbers {
    Numbers {
        isns: Isns {
            src: Isn(src),
            dst: Isn(dst),
        },
        basis: Sne(raw.sne),
        basis_seq: raw.seq,
    }
}

/// The numbers of a connection, for a segment that it sends.
pub(super) fn numbers_to_send(raw: &bindings::tao_numbers) -> Numbers {
    numbers_of(raw.lisn, raw.risn, raw)
}

/// What C knows of the connection of a segment that was received.
pub(super) fn context_of(context: bindings::tao_context, raw: &bindings::tao_numbers) -> Context {
    let numbers = numbers_of(raw.risn, raw.lisn, raw);
    match context {
        bindings::tao_context_TAO_LISTEN => Context::Listen,
        bindings::tao_context_TAO_REQUEST => Context::Request(numbers),
        bindings::tao_context_TAO_SYN_SENT => Context::SynSent {
            dst: numbers.isns.dst,
        },
        bindings::tao_context_TAO_PAIRED => Context::Paired(numbers),
        bindings::tao_context_TAO_TIME_WAIT => Context::TimeWait(numbers),
        bindings::tao_context_TAO_UNPROTECTED => Context::Unprotected,
        _ => Context::Closed,
    }
}
