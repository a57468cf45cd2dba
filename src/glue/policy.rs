// SPDX-License-Identifier: GPL-2.0

//! A policy, and how those of a namespace hold the module.

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::index::Entry;
use super::rcu::RcuBox;
use crate::proto::criteria::Criteria;
use crate::proto::error;
use crate::proto::policy::PolicySpec;

/// A policy.
#[repr(C)]
pub(super) struct Policy {
    // First: the index finds a policy by the address of this, and is the only one that touches it.
    node: Opaque<bindings::tao_entry>,
    spec: PolicySpec,
    serial: u64,
}

// SAFETY: `node` is only touched by the index, which has locks of its own.
unsafe impl Send for Policy {}
// SAFETY: The same; nothing else changes while a policy can be found.
unsafe impl Sync for Policy {}

impl Policy {
    /// A policy, as the namespace's `serial`th entry. `None` if there is no memory.
    pub(super) fn new(spec: &PolicySpec, serial: u64) -> Option<RcuBox<Self>> {
        let policy = Self {
            node: Opaque::uninit(),
            spec: *spec,
            serial,
        };
        RcuBox::new(policy, GFP_KERNEL_ACCOUNT, |_| ()).ok()
    }

    pub(super) fn spec(&self) -> &PolicySpec {
        &self.spec
    }
}

// SAFETY: `node` is the first field, and private.
unsafe impl Entry for Policy {
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

/// What holds the module for a namespace that requires connections to be protected: without the
/// module they would not be.
#[pin_data(PinnedDrop)]
pub(super) struct Hold {
    #[pin]
    node: Opaque<bindings::list_head>,
}

// SAFETY: `node` is used by functions of C only, which have a lock for it.
unsafe impl Send for Hold {}
// SAFETY: The same.
unsafe impl Sync for Hold {}

impl Hold {
    pub(super) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `node` is to be initialised, and stays where it is.
            node <- Opaque::ffi_init(|node| unsafe { bindings::tao_hold_init(node) }),
        })
    }

    /// Holds the module, if it does not yet.
    ///
    /// # Errors
    ///
    /// `ENODEV`: the module is being drained or unloaded.
    pub(super) fn take(&self) -> Result<(), error::Error> {
        // SAFETY: It is initialised.
        let taken = to_result(unsafe { bindings::tao_hold(self.node.get()) });
        taken.map_err(|err| error::Error::Kernel(err.to_errno()))
    }

    /// Lets go of the module, if it holds it.
    pub(super) fn release(&self) {
        // SAFETY: It is initialised.
        unsafe { bindings::tao_let_go(self.node.get()) };
    }
}

#[pinned_drop]
impl PinnedDrop for Hold {
    fn drop(self: Pin<&mut Self>) {
        self.release();
    }
}
