// SPDX-License-Identifier: GPL-2.0

//! A key (MKT), with its master key.

use kernel::prelude::*;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::ffi::wipe;
use super::index::Entry;
use super::rcu::RcuBox;
use crate::proto::criteria::Criteria;
use crate::proto::mkt::KeySpec;
use crate::proto::select::Candidate;
use crate::proto::uapi::MAX_MASTER_KEY_LEN;

/// A key.
#[repr(C)]
pub(super) struct Mkt {
    // First: the index finds a key by the address of this, and is the only one that touches it.
    node: Opaque<bindings::tao_entry>,
    spec: KeySpec,
    serial: u64,
    material: u64,
    key: [u8; MAX_MASTER_KEY_LEN],
}

// SAFETY: `node` is only touched by the index, which has locks of its own.
unsafe impl Send for Mkt {}
// SAFETY: The same; nothing else changes while a key can be found.
unsafe impl Sync for Mkt {}

impl Mkt {
    /// A key of `spec.key_len` bytes, as the namespace's `serial`th entry. `material`: see
    /// [`Self::material`]. `None` if there is no memory.
    pub(super) fn new(
        spec: &KeySpec,
        key: &[u8],
        serial: u64,
        material: u64,
    ) -> Option<RcuBox<Self>> {
        let mkt = Self {
            node: Opaque::uninit(),
            spec: *spec,
            serial,
            material,
            key: [0; MAX_MASTER_KEY_LEN],
        };
        let fill = |mkt: &mut Self| {
            for (to, from) in mkt.key.iter_mut().zip(key) {
                *to = *from;
            }
        };
        RcuBox::new(mkt, GFP_KERNEL_ACCOUNT, fill).ok()
    }

    /// A number that tells which traffic keys are made from this key: the same for two keys only if
    /// one replaced the other, and they differ only in when they may be used.
    pub(super) fn material(&self) -> u64 {
        self.material
    }

    /// The number of [`Self::material`] for a key that replaces this one; `None` if it has other
    /// traffic keys.
    pub(super) fn material_for(&self, spec: &KeySpec, key: &[u8]) -> Option<u64> {
        (self.spec.same_mkt(spec) && self.key() == key).then_some(self.material)
    }

    /// The master key.
    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..self.spec.key_len.into()).unwrap_or(&[])
    }

    pub(super) fn spec(&self) -> &KeySpec {
        &self.spec
    }
}

// SAFETY: `node` is the first field, and private.
unsafe impl Entry for Mkt {
    fn node(&self) -> *mut bindings::tao_entry {
        self.node.get()
    }

    fn criteria(&self) -> &Criteria {
        &self.spec.criteria
    }

    fn serial(&self) -> u64 {
        self.serial
    }
}

impl Drop for Mkt {
    fn drop(&mut self) {
        wipe(&mut self.key);
    }
}

impl Candidate for &Mkt {
    fn spec(&self) -> &KeySpec {
        &self.spec
    }

    fn serial(&self) -> u64 {
        self.serial
    }
}
