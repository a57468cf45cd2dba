// SPDX-License-Identifier: GPL-2.0

//! The index of a namespace's keys: a resizable hash table by criteria, which readers use under RCU.

use core::marker::PhantomData;
use core::ptr;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::mkt::Mkt;
use super::rcu::RcuBox;
use crate::proto::error::Error;
use crate::proto::mkt::Criteria;

/// The index. Its writers exclude each other.
///
/// # Invariants
///
/// What is in it is the `node` of an [`Mkt`] that is freed a grace period after it was taken out.
#[pin_data]
pub(super) struct Index {
    #[pin]
    table: Opaque<bindings::rhltable>,
}

// SAFETY: The table has locks of its own.
unsafe impl Send for Index {}
// SAFETY: The same.
unsafe impl Sync for Index {}

impl Index {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            table <- Opaque::try_ffi_init(|table| {
                // SAFETY: `table` is to be initialised.
                to_result(unsafe { bindings::tao_index_init(table) })
            }),
        })
    }

    /// Frees what the table itself has. May sleep.
    ///
    /// # Safety
    ///
    /// Nobody looks into the index any more, and this is called once.
    pub(super) unsafe fn destroy(&self) {
        // SAFETY: By the safety requirements of this function.
        unsafe { bindings::tao_index_destroy(self.table.get()) };
    }

    /// Puts a key in.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`].
    ///
    /// # Safety
    ///
    /// The index is not destroyed, and nobody else changes it meanwhile. Nobody else knows the key,
    /// which is taken out before it is dropped.
    pub(super) unsafe fn add(&self, mkt: &RcuBox<Mkt>) -> Result<(), Error> {
        let node = mkt.node.get();
        // SAFETY: By the safety requirements of this function; the node is ours to write.
        to_result(unsafe {
            (*node).criteria = mkt.spec().criteria.to_key();
            bindings::tao_index_add(self.table.get(), node)
        })
        .map_err(|_| Error::NoMem)
    }

    /// Readers find `mkt` in place of `old`, which has the same criteria: one of the two, always.
    ///
    /// # Safety
    ///
    /// That of [`Self::add`] for `mkt`, and of [`Self::remove`] for `old`.
    pub(super) unsafe fn replace(&self, old: &RcuBox<Mkt>, mkt: &RcuBox<Mkt>) {
        let node = mkt.node.get();
        // SAFETY: By the safety requirements of this function; the node is ours to write.
        unsafe {
            (*node).criteria = old.spec().criteria.to_key();
            bindings::tao_index_replace(self.table.get(), old.node.get(), node);
        }
    }

    /// Takes a key out.
    ///
    /// # Safety
    ///
    /// The index is not destroyed and has the key in it, and nobody else changes it meanwhile.
    pub(super) unsafe fn remove(&self, mkt: &RcuBox<Mkt>) {
        // SAFETY: By the safety requirements of this function.
        unsafe { bindings::tao_index_del(self.table.get(), mkt.node.get()) };
    }

    /// No keys yet: see [`Alike::look_up`].
    pub(super) fn nothing<'g>(&'g self, _guard: &'g Guard) -> Alike<'g> {
        Alike {
            index: self,
            node: ptr::null_mut(),
            guard: PhantomData,
        }
    }

    /// All keys with these criteria.
    pub(super) fn alike<'g>(&'g self, guard: &'g Guard, criteria: &Criteria) -> Alike<'g> {
        let mut alike = self.nothing(guard);
        alike.look_up(criteria);
        alike
    }
}

/// Keys of the same criteria that readers go through.
///
/// # Invariants
///
/// The RCU read lock is held for `'g`. `node` is null or was found in the index under it.
#[derive(Clone)]
pub(super) struct Alike<'g> {
    index: &'g Index,
    node: *mut bindings::tao_mkt,
    guard: PhantomData<&'g Guard>,
}

impl Alike<'_> {
    /// Goes on with the keys that have these criteria.
    pub(super) fn look_up(&mut self, criteria: &Criteria) {
        // SAFETY: The index is alive: `destroy()` is called when nobody can look any more. It
        // hashes `CRITERIA_KEY_LEN` bytes. By the type invariant the RCU read lock is held.
        self.node = unsafe {
            bindings::tao_index_first(self.index.table.get(), criteria.to_key().as_ptr())
        };
    }
}

impl<'g> Iterator for Alike<'g> {
    type Item = &'g Mkt;

    fn next(&mut self) -> Option<&'g Mkt> {
        if self.node.is_null() {
            return None;
        }
        // SAFETY: By the type invariants it is the first field of an `Mkt`, which is not freed while
        // `'g` lasts.
        let mkt = unsafe { &*self.node.cast::<Mkt>() };
        // SAFETY: It is in the index, or was when it was found under the read lock.
        self.node = unsafe { bindings::tao_index_next(self.node) };
        Some(mkt)
    }
}
