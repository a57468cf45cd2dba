// SPDX-License-Identifier: GPL-2.0

//! Owned objects that readers under RCU may still be looking at.

use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use kernel::alloc::AllocError;
use kernel::alloc::Flags;
use kernel::prelude::*;
use kernel::sync::atomic::ordering::Acquire;
use kernel::sync::atomic::ordering::Full;
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu::Guard;
use kernel::types::Opaque;

use super::ffi::bindings;

#[repr(C)]
struct Node<T> {
    // First, so that its address is the node's.
    head: Opaque<bindings::callback_head>,
    value: T,
}

/// An object on the heap that is dropped and freed one RCU grace period after this is dropped.
///
/// # Invariants
///
/// The pointer is to a node that came from a `KBox`, and of which there is no other owner.
pub(super) struct RcuBox<T: Send + Sync>(NonNull<Node<T>>, PhantomData<T>);

// SAFETY: It owns a `T`, which is `Send`.
unsafe impl<T: Send + Sync> Send for RcuBox<T> {}
// SAFETY: It gives out `&T` only, and `T` is `Sync`.
unsafe impl<T: Send + Sync> Sync for RcuBox<T> {}

// What it owns stays where it is when the box moves.
impl<T: Send + Sync> Unpin for RcuBox<T> {}

impl<T: Send + Sync> RcuBox<T> {
    /// Moves `value` to the heap and has `finish` complete it there: what is secret is filled in
    /// where it stays, since a move leaves a copy behind.
    pub(super) fn new(
        value: T,
        flags: Flags,
        finish: impl FnOnce(&mut T),
    ) -> Result<Self, AllocError> {
        let mut node = KBox::new(
            Node {
                head: Opaque::uninit(),
                value,
            },
            flags,
        )?;
        finish(&mut node.value);
        // INVARIANT: The pointer comes from a `KBox` that is given up here.
        Ok(Self(NonNull::from(KBox::leak(node)), PhantomData))
    }
}

impl<T: Send + Sync> Deref for RcuBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant the node lives.
        unsafe { &self.0.as_ref().value }
    }
}

impl<T: Send + Sync> Drop for RcuBox<T> {
    fn drop(&mut self) {
        /// # Safety
        ///
        /// `head` is that of a `Node<T>` which nobody can reach any more.
        unsafe extern "C" fn free<T>(head: *mut bindings::callback_head) {
            // SAFETY: `head` is the first field of a node that came from a `KBox`.
            drop(unsafe { KBox::from_raw(head.cast::<Node<T>>()) });
        }

        // SAFETY: The node lives, and by the type invariant this is its only owner; `free` runs
        // once. The module waits for the callback before it goes (`Namespaces::drop()`).
        unsafe { bindings::tao_call_rcu(self.0.as_ptr().cast(), Some(free::<T>)) };
    }
}

/// A place for an object that readers find under RCU.
///
/// # Invariants
///
/// Null, or a pointer that came from an `RcuBox`, which the slot owns.
pub(super) struct RcuSlot<T: Send + Sync>(Atomic<*mut Node<T>>, PhantomData<RcuBox<T>>);

// SAFETY: It is an `Option<RcuBox<T>>`.
unsafe impl<T: Send + Sync> Send for RcuSlot<T> {}
// SAFETY: It gives out `&T` only, and replaces atomically.
unsafe impl<T: Send + Sync> Sync for RcuSlot<T> {}

impl<T: Send + Sync> RcuSlot<T> {
    pub(super) const fn empty() -> Self {
        Self(Atomic::new(core::ptr::null_mut()), PhantomData)
    }

    /// What is in it, which stays valid for as long as `guard` is held.
    pub(super) fn get<'g>(&'g self, _guard: &'g Guard) -> Option<&'g T> {
        let node = self.0.load(Acquire);
        // SAFETY: By the type invariant it is null or a node, which is freed a grace period after
        // it is replaced at the earliest: not while the guard lives.
        unsafe { node.as_ref() }.map(|node| &node.value)
    }

    /// Puts `new` in; what was in it before goes when its readers have gone.
    pub(super) fn set(&self, new: Option<RcuBox<T>>) {
        let new = new.map_or(core::ptr::null_mut(), |new| {
            core::mem::ManuallyDrop::new(new).0.as_ptr()
        });
        // INVARIANT: It comes from an `RcuBox` that was given up above.
        let old = self.0.xchg(new, Full);
        // INVARIANT: It came from an `RcuBox` that was given up to the slot, which no longer has it.
        drop(NonNull::new(old).map(|old| RcuBox(old, PhantomData)));
    }
}

impl<T: Send + Sync> Drop for RcuSlot<T> {
    fn drop(&mut self) {
        self.set(None);
    }
}
