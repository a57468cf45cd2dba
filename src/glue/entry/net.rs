// SPDX-License-Identifier: GPL-2.0

//! Entries for namespaces: their keys, limits and VRFs, and `/proc`.

use core::ptr;

use kernel::prelude::*;
use kernel::sync::Arc;

use super::declared;
use crate::glue::ffi::bindings;
use crate::glue::ffi::to_errno;
use crate::glue::netns::File;
use crate::glue::netns::Netns;
use crate::proto::vrf::Name;
use crate::proto::vrf::NAME_LEN;

declared!(
    tao_rust_net_new,
    tao_rust_net_hide,
    tao_rust_net_free,
    tao_rust_net_values,
    tao_rust_net_choose_again,
    tao_rust_vrf_at,
    tao_rust_vrf_added,
    tao_rust_vrf_gone,
    tao_rust_vrf_renamed,
    tao_rust_proc_position,
    tao_rust_proc_line,
);

/// # Safety
///
/// `net` came from [`tao_rust_net_new`] and was not given to [`tao_rust_net_free`].
unsafe fn net_of<'a>(net: *const bindings::tao_net) -> &'a Netns {
    // SAFETY: It is an `Arc<Netns>` that was turned into a pointer.
    unsafe { &*net.cast::<Netns>() }
}

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

/// Where the values of its sysctls are, for as long as it lives.
#[no_mangle]
unsafe extern "C" fn tao_rust_net_values(net: *mut bindings::tao_net) -> bindings::tao_net_values {
    // SAFETY: The namespace lives.
    let net = unsafe { net_of(net) };
    bindings::tao_net_values {
        key_overlap: net.key_overlap.as_ptr(),
        max_keys: net.max_keys.as_ptr(),
        rollover_rule: net.rollover_rule.as_ptr(),
        accept_tolerance: net.accept_tolerance.as_ptr(),
        no_key_grace: net.no_key_grace.as_ptr(),
    }
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

/// A file in `/proc`.
fn file_of(file: bindings::tao_file) -> File {
    match file {
        bindings::tao_file_TAO_FILE_KEYS => File::Keys,
        bindings::tao_file_TAO_FILE_ENTRIES => File::Entries,
        _ => File::Counters,
    }
}

/// The first position from `from` on that has a line; 0 if there is none.
#[no_mangle]
unsafe extern "C" fn tao_rust_proc_position(
    net: *mut bindings::tao_net,
    file: bindings::tao_file,
    from: u64,
) -> u64 {
    // SAFETY: The namespace lives.
    let position = unsafe { net_of(net) }.position_from(file_of(file), from);
    position.unwrap_or(0)
}

/// Writes the line at a position; returns its length.
#[no_mangle]
unsafe extern "C" fn tao_rust_proc_line(
    net: *mut bindings::tao_net,
    file: bindings::tao_file,
    position: u64,
    line: *mut u8,
    size: usize,
) -> usize {
    // SAFETY: The namespace lives; `size` bytes at `line` are ours to write.
    let (net, line) = unsafe { (net_of(net), core::slice::from_raw_parts_mut(line, size)) };
    net.show(file_of(file), position, line)
}
