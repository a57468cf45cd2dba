// SPDX-License-Identifier: GPL-2.0

//! An index of entries: a resizable hash table by criteria, which readers use under RCU.

use core::marker::PhantomData;
use core::ptr;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu::Guard;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::rcu::RcuBox;
use crate::proto::criteria::Criteria;
use crate::proto::error::Error;

/// What an index has in it.
///
/// # Safety
///
/// [`Self::node`] gives the first field, which only the index touches.
pub(super) unsafe trait Entry: Send + Sync {
    /// What the index finds it by.
    fn node(&self) -> *mut bindings::tao_entry;

    /// Which connections it is for.
    fn criteria(&self) -> &Criteria;

    /// Its number among all entries of the namespace: greater for one that was added later.
    fn serial(&self) -> u64;
}

/// The index. Its writers exclude each other.
///
/// # Invariants
///
/// What is in it is the `node` of a `T` that is freed a grace period after it was taken out.
#[pin_data(PinnedDrop)]
pub(super) struct Index<T> {
    #[pin]
    table: Opaque<bindings::rhltable>,
    is_destroyed: Atomic<bool>,
    entries: PhantomData<T>,
}

#[pinned_drop]
impl<T> PinnedDrop for Index<T> {
    fn drop(self: Pin<&mut Self>) {
        if !self.is_destroyed.load(Relaxed) {
            // SAFETY: It was never used: its namespace could not be made.
            unsafe { bindings::tao_index_destroy(self.table.get()) };
        }
    }
}

// SAFETY: The table has locks of its own.
unsafe impl<T: Send + Sync> Send for Index<T> {}
// SAFETY: The same.
unsafe impl<T: Send + Sync> Sync for Index<T> {}

impl<T: Entry> Index<T> {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            table <- Opaque::try_ffi_init(|table| {
                // SAFETY: `table` is to be initialised.
                to_result(unsafe { bindings::tao_index_init(table) })
            }),
            is_destroyed: Atomic::new(false),
            entries: PhantomData,
        })
    }

    /// Frees what the table itself has. May sleep.
    ///
    /// # Safety
    ///
    /// Nobody looks into the index any more, and this is called once.
    pub(super) unsafe fn destroy(&self) {
        self.is_destroyed.store(true, Relaxed);
        // SAFETY: By the safety requirements of this function.
        unsafe { bindings::tao_index_destroy(self.table.get()) };
    }

    /// Puts an entry in.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`].
    ///
    /// # Safety
    ///
    /// The index is not destroyed, and nobody else changes it meanwhile. Nobody else knows the
    /// entry, which is taken out before it is dropped.
    pub(super) unsafe fn add(&self, entry: &RcuBox<T>) -> Result<(), Error> {
        let node = entry.node();
        // SAFETY: By the safety requirements of this function; the node is ours to write.
        to_result(unsafe {
            (*node).criteria = entry.criteria().to_key();
            bindings::tao_index_add(self.table.get(), node)
        })
        .map_err(|_| Error::NoMem)
    }

    /// Readers find `entry` in place of `old`, which has the same criteria: one of the two, always.
    ///
    /// # Safety
    ///
    /// That of [`Self::add`] for `entry`, and of [`Self::remove`] for `old`.
    pub(super) unsafe fn replace(&self, old: &RcuBox<T>, entry: &RcuBox<T>) {
        let node = entry.node();
        // SAFETY: By the safety requirements of this function; the node is ours to write.
        unsafe {
            (*node).criteria = old.criteria().to_key();
            bindings::tao_index_replace(self.table.get(), old.node(), node);
        }
    }

    /// Takes an entry out.
    ///
    /// # Safety
    ///
    /// The index is not destroyed and has the entry in it, and nobody else changes it meanwhile.
    pub(super) unsafe fn remove(&self, entry: &RcuBox<T>) {
        // SAFETY: By the safety requirements of this function.
        unsafe { bindings::tao_index_del(self.table.get(), entry.node()) };
    }

    /// No entries yet: see [`Alike::look_up`].
    pub(super) fn nothing<'g>(&'g self, _guard: &'g Guard) -> Alike<'g, T> {
        Alike {
            index: self,
            node: ptr::null_mut(),
            guard: PhantomData,
        }
    }

    /// All entries with these criteria.
    pub(super) fn alike<'g>(&'g self, guard: &'g Guard, criteria: &Criteria) -> Alike<'g, T> {
        let mut alike = self.nothing(guard);
        alike.look_up(criteria);
        alike
    }
}

/// Entries of the same criteria that readers go through.
///
/// # Invariants
///
/// The RCU read lock is held for `'g`. `node` is null or was found in the index under it.
pub(super) struct Alike<'g, T> {
    index: &'g Index<T>,
    node: *mut bindings::tao_entry,
    guard: PhantomData<&'g Guard>,
}

impl<T: Entry> Alike<'_, T> {
    /// Goes on with the entries that have these criteria.
    pub(super) fn look_up(&mut self, criteria: &Criteria) {
        // SAFETY: The index is alive: `destroy()` is called when nobody can look any more. It
        // hashes `CRITERIA_KEY_LEN` bytes. By the type invariant the RCU read lock is held.
        self.node = unsafe {
            bindings::tao_index_first(self.index.table.get(), criteria.to_key().as_ptr())
        };
    }
}

impl<'g, T: Entry> Iterator for Alike<'g, T> {
    type Item = &'g T;

    fn next(&mut self) -> Option<&'g T> {
        if self.node.is_null() {
            return None;
        }
        // SAFETY: By the type invariants it is the first field of a `T`, which is not freed while `'g`
        // lasts.
        let entry = unsafe { &*self.node.cast::<T>() };
        // SAFETY: It is in the index, or was when it was found under the read lock.
        self.node = unsafe { bindings::tao_index_next(self.node) };
        Some(entry)
    }
}

impl<T> Clone for Alike<'_, T> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}
