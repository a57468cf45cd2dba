// SPDX-License-Identifier: GPL-2.0

//! The core's MACs over the kernel's crypto library, which may be called in any context, does not
//! allocate and cannot fail.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use super::ffi::bindings;
use super::ffi::wipe;
use crate::proto::mac::Algorithm;
use crate::proto::mac::MacKey;
use crate::proto::mac::MacState;

type Init = unsafe extern "C" fn(*mut bindings::tao_mac_state, *const bindings::tao_mac_key);
type Finish = unsafe extern "C" fn(*mut bindings::tao_mac_state, *mut u8);

/// A prepared key: for HMAC the hash states after the padded key, for AES the expanded key.
pub(super) struct PreparedKey {
    alg: Algorithm,
    // Plain data; which member of the union is in use follows from `alg`.
    key: bindings::tao_mac_key,
}

impl PreparedKey {
    /// Makes this a copy of `other`.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.alg = other.alg;
        // SAFETY: Plain data; `self` is borrowed mutably, so these are two.
        unsafe { core::ptr::copy_nonoverlapping(&other.key, &mut self.key, 1) };
    }
}

impl MacKey for PreparedKey {
    type State<'k> = State<'k>;

    fn empty() -> Self {
        Self {
            alg: Algorithm::HmacSha1_96,
            // SAFETY: All members of the union are plain data, for which zeros are valid.
            key: unsafe { MaybeUninit::zeroed().assume_init() },
        }
    }

    fn set(&mut self, alg: Algorithm, key: &[u8]) {
        self.alg = alg;
        let set = match alg {
            Algorithm::HmacSha1_96 => bindings::tao_mac_set_sha1,
            Algorithm::Aes128Cmac96 => bindings::tao_mac_set_cmac,
            Algorithm::HmacSha256_96 => bindings::tao_mac_set_sha256,
        };
        // SAFETY: `key` has the length given; the function writes the member that goes with `alg`.
        unsafe { set(&mut self.key, key.as_ptr(), key.len()) };
    }

    #[inline]
    fn mac<R>(&self, out: &mut [u8; 32], feed: impl FnOnce(&mut State<'_>) -> R) -> R {
        let (init, finish): (Init, Finish) = match self.alg {
            Algorithm::HmacSha1_96 => (bindings::tao_mac_init_sha1, bindings::tao_mac_final_sha1),
            Algorithm::Aes128Cmac96 => (bindings::tao_mac_init_cmac, bindings::tao_mac_final_cmac),
            Algorithm::HmacSha256_96 => (
                bindings::tao_mac_init_sha256,
                bindings::tao_mac_final_sha256,
            ),
        };
        // INVARIANT: Initialised below, before anybody sees it.
        let mut state = State {
            alg: self.alg,
            state: MaybeUninit::uninit(),
            key: PhantomData,
        };
        // SAFETY: `self.key` holds a key of `alg`; the function fills in the state, which may
        // point to the key, and borrows it.
        unsafe { init(state.state.as_mut_ptr(), &self.key) };
        let fed = feed(&mut state);
        out.fill(0);
        // SAFETY: By the type invariant; no algorithm writes more than 32 bytes. The function also
        // wipes the state.
        unsafe { finish(state.state.as_mut_ptr(), out.as_mut_ptr()) };
        fed
    }

    fn erase(secret: &mut [u8]) {
        wipe(secret);
    }

    fn wipe(&mut self) {
        // SAFETY: The union is plain data, of which zeros are a value.
        wipe(unsafe {
            core::slice::from_raw_parts_mut(
                core::ptr::from_mut(&mut self.key).cast(),
                size_of::<bindings::tao_mac_key>(),
            )
        });
    }
}

impl Drop for PreparedKey {
    fn drop(&mut self) {
        self.wipe();
    }
}

/// A MAC being computed. It is not moved once it is initialised, for it holds the key's state.
///
/// # Invariants
///
/// `state` was initialised for `alg`.
pub(super) struct State<'k> {
    alg: Algorithm,
    state: MaybeUninit<bindings::tao_mac_state>,
    key: PhantomData<&'k PreparedKey>,
}

impl MacState for State<'_> {
    #[inline]
    fn update(&mut self, data: &[u8]) {
        let update = match self.alg {
            Algorithm::HmacSha1_96 => bindings::tao_mac_update_sha1,
            Algorithm::Aes128Cmac96 => bindings::tao_mac_update_cmac,
            Algorithm::HmacSha256_96 => bindings::tao_mac_update_sha256,
        };
        // SAFETY: By the type invariant; `data` has the length given.
        unsafe { update(self.state.as_mut_ptr(), data.as_ptr(), data.len()) };
    }
}
