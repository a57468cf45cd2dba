// SPDX-License-Identifier: GPL-2.0

//! What tells most connections from those that policies may be for: see [`crate::proto::filter`].
//!
//! Bits are set before a policy can be found, and stay when it goes, until the table is made anew. It
//! has at least [`SPARE`] bits for each policy that was put in since.

use kernel::prelude::*;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu;

use super::rcu::RcuBox;
use super::rcu::RcuSlot;
use crate::proto::addr::Addr;
use crate::proto::addr::Prefix;
use crate::proto::criteria::Shape;
use crate::proto::error::Error;
use crate::proto::filter::hash;
use crate::proto::filter::Lengths;

/// Bits for each policy.
const SPARE: usize = 16;

/// A table of bits, of which there are 64 or another power of 2.
struct Bits {
    words: KVVec<Atomic<u64>>,
    /// How far the number of a prefix has to be shifted to be that of a bit.
    shift: u32,
}

impl Bits {
    /// A table for so many prefixes.
    fn for_many(count: usize) -> Result<Self, Error> {
        let words = (count * SPARE / 64).next_power_of_two();
        let mut bits = Self {
            words: KVVec::with_capacity(words, GFP_KERNEL_ACCOUNT).map_err(|_| Error::NoMem)?,
            shift: 64 - 6 - words.trailing_zeros(),
        };
        for _ in 0..words {
            let pushed = bits.words.push_within_capacity(Atomic::new(0));
            pushed.map_err(|_| Error::NoMem)?;
        }
        Ok(bits)
    }

    fn len(&self) -> usize {
        self.words.len() * 64
    }

    fn word(&self, number: u64) -> (Option<&Atomic<u64>>, u64) {
        let bit = number >> self.shift;
        (self.words.get((bit / 64) as usize), 1 << (bit % 64))
    }

    fn set(&self, prefix: &Prefix) {
        if let (Some(word), bit) = self.word(hash(prefix)) {
            // There is one writer.
            word.store(word.load(Relaxed) | bit, Relaxed);
        }
    }

    fn is_set(&self, number: u64) -> bool {
        let (word, bit) = self.word(number);
        word.is_some_and(|word| word.load(Relaxed) & bit != 0)
    }
}

/// The filter of a namespace's policies.
pub(super) struct Filter {
    lengths: RcuSlot<Lengths>,
    bits: RcuSlot<Bits>,
}

/// What writers have of it.
pub(super) struct FilterWriter {
    /// How many prefixes were put in since the table was made.
    put: usize,
}

impl FilterWriter {
    pub(super) const fn new() -> Self {
        Self { put: 0 }
    }
}

impl Filter {
    pub(super) const fn empty() -> Self {
        Self {
            lengths: RcuSlot::empty(),
            bits: RcuSlot::empty(),
        }
    }

    /// Whether a policy may be for a peer at `addr`. No: none is.
    pub(super) fn may_match(&self, addr: &Addr) -> bool {
        let guard = rcu::read_lock();
        let Some(lengths) = self.lengths.get(&guard) else {
            return false;
        };
        lengths.may_match(addr, |number| {
            self.bits
                .get(&guard)
                .is_some_and(|bits| bits.is_set(number))
        })
    }

    /// There are no policies.
    pub(super) fn hide(&self) {
        self.lengths.set(None);
    }

    /// A policy of this shape is about to be put in beside those that there are, of which `shapes` and
    /// `prefixes` are all shapes and all prefixes. Readers may find it from now on.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`]: readers would not.
    pub(super) fn put<'a>(
        &self,
        writer: &mut FilterWriter,
        new: (Shape, Option<Prefix>),
        shapes: impl Iterator<Item = Shape>,
        prefixes: impl Iterator<Item = &'a Prefix>,
        count: usize,
    ) -> Result<(), Error> {
        let (shape, prefix) = new;
        let boxed = |lengths| RcuBox::new(lengths, GFP_KERNEL_ACCOUNT, |_| ());
        let lengths = Lengths::of(Iterator::chain(shapes, [shape]));
        let lengths = boxed(lengths).map_err(|_| Error::NoMem)?;
        let guard = rcu::read_lock();
        let room = self.bits.get(&guard).map_or(0, Bits::len) / SPARE;
        drop(guard);
        if writer.put >= room {
            let bits = Bits::for_many(2 * (count + 1))?;
            prefixes.for_each(|prefix| bits.set(prefix));
            let bits = RcuBox::new(bits, GFP_KERNEL_ACCOUNT, |_| ());
            self.bits.set(Some(bits.map_err(|_| Error::NoMem)?));
            writer.put = count;
        }
        if let Some(prefix) = prefix {
            let guard = rcu::read_lock();
            if let Some(bits) = self.bits.get(&guard) {
                bits.set(&prefix);
            }
            writer.put += 1;
        }
        self.lengths.set(Some(lengths));
        Ok(())
    }
}
