// SPDX-License-Identifier: GPL-2.0

//! Entries of one kind: keys, or policies.
//!
//! Readers hold an RCU read lock. They go through the shapes of criteria in use, most specific
//! first, and look each up in the index: the cost of a lookup does not depend on the number of
//! entries. Writers, one at a time, have the [`Rows`] as well.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::rbtree::RBTreeNodeReservation;
use kernel::sync::rcu::Guard;

use super::index::Alike;
use super::index::Entry;
use super::index::Index;
use super::rcu::RcuBox;
use super::rcu::RcuSlot;
use crate::proto::criteria::Criteria;
use crate::proto::criteria::Pair;
use crate::proto::criteria::Shape;
use crate::proto::error::Error;

/// Ages are positions in `/proc`, which are `loff_t`.
const OLDEST: u64 = i64::MAX as u64;

/// The age of an entry: the newest is first.
pub(super) fn age(entry: &impl Entry) -> u64 {
    OLDEST - entry.serial()
}

/// Entries, as readers see them.
#[pin_data]
pub(super) struct Table<T> {
    // Of all entries, the most specific first.
    shapes: RcuSlot<KVec<Shape>>,
    #[pin]
    index: Index<T>,
}

/// What writers have of a table beside it. Whoever can change it is the only writer.
pub(super) struct Rows<T: Entry> {
    by_age: RBTree<u64, RcuBox<T>>,
    /// How many entries have each of the shapes that readers see, in the same order. Some may have
    /// none, for want of memory.
    counts: KVec<(Shape, u32)>,
}

/// Room for an entry that is about to be put into a table.
pub(super) struct Room<T: Entry> {
    place: RBTreeNodeReservation<u64, RcuBox<T>>,
    /// The list for readers, if the entry is of a new shape, for which there is room in the counts.
    shapes: Option<RcuBox<KVec<Shape>>>,
}

impl<T: Entry> Rows<T> {
    pub(super) fn new() -> Self {
        Self {
            by_age: RBTree::new(),
            counts: KVec::new(),
        }
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> u32 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// The shapes that they have.
    pub(super) fn shapes(&self) -> impl Iterator<Item = Shape> + '_ {
        let used = self.counts.iter().filter(|(_, count)| *count != 0);
        used.map(|(shape, _)| *shape)
    }

    /// The age of the newest entry that is at least this old.
    pub(super) fn age_from(&self, age: u64) -> Option<u64> {
        let cursor = self.by_age.cursor_lower_bound(&age)?;
        Some(*cursor.current().0)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.by_age.values().map(|entry| &**entry)
    }

    /// The entry of this age.
    pub(super) fn get(&self, age: u64) -> Option<&T> {
        self.by_age.get(&age).map(|entry| &**entry)
    }

    fn find(&self, shape: &Shape) -> Result<usize, usize> {
        self.counts.binary_search_by(|(it, _)| it.cmp(shape))
    }
}

impl<T: Entry> Table<T> {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            shapes: RcuSlot::empty(),
            index <- Index::new(),
        })
    }

    /// All entries that match `pair`, those of the most specific shape first.
    pub(super) fn matching<'g>(&'g self, guard: &'g Guard, pair: &'g Pair) -> Matching<'g, T> {
        Matching {
            alike: self.index.nothing(guard),
            other: None,
            pair,
            shapes: self.shapes.get(guard).map_or(&[], |shapes| shapes),
        }
    }

    /// All entries with these criteria.
    pub(super) fn alike<'g>(&'g self, guard: &'g Guard, criteria: &Criteria) -> Alike<'g, T> {
        self.index.alike(guard, criteria)
    }

    /// Does what can fail when an entry of this shape is to be added, or to replace another one.
    pub(super) fn room(&self, rows: &mut Rows<T>, shape: Shape) -> Result<Room<T>, Error> {
        let place = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT).map_err(|_| Error::NoMem)?;
        let shapes = match rows.find(&shape) {
            Ok(_) => None,
            Err(_) => {
                let reserved = rows.counts.reserve(1, GFP_KERNEL_ACCOUNT);
                reserved.map_err(|_| Error::NoMem)?;
                Some(shapes_of(rows, Some(shape)).ok_or(Error::NoMem)?)
            }
        };
        Ok(Room { place, shapes })
    }

    /// Puts an entry in, for which there is `room`. `old`: the age of one with the same criteria, of
    /// which it takes the place.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`], if it replaces none. Nothing has changed then.
    pub(super) fn put(
        &self,
        rows: &mut Rows<T>,
        entry: RcuBox<T>,
        old: Option<u64>,
        room: Room<T>,
    ) -> Result<(), Error> {
        match old.and_then(|age| rows.by_age.remove(&age)) {
            // SAFETY: Whoever has the rows is the only writer. Each entry of `by_age` is in the index
            // until it is taken out of both; the new one is known here only.
            Some(old) => unsafe { self.index.replace(&old, &entry) },
            None => {
                // SAFETY: The same.
                unsafe { self.index.add(&entry) }?;
                let shape = entry.criteria().shape();
                match room.shapes {
                    None => {
                        let at = rows.find(&shape).ok();
                        if let Some((_, count)) = at.and_then(|at| rows.counts.get_mut(at)) {
                            *count += 1;
                        }
                    }
                    // Readers are given a list without those of no entry.
                    Some(shapes) => {
                        self.shapes.set(Some(shapes));
                        rows.counts.retain(|(_, count)| *count != 0);
                        let at = rows.find(&shape).unwrap_or_else(|at| at);
                        drop(rows.counts.insert_within_capacity(at, (shape, 1)));
                    }
                }
            }
        }
        rows.by_age
            .insert(room.place.into_node(age(&*entry), entry));
        Ok(())
    }

    /// Takes the entry of this age out.
    pub(super) fn take(&self, rows: &mut Rows<T>, age: u64) {
        let Some(entry) = rows.by_age.remove(&age) else {
            return;
        };
        // SAFETY: Whoever has the rows is the only writer, and the entry, which was in `by_age`, is in
        // the index.
        unsafe { self.index.remove(&entry) };
        let at = rows.find(&entry.criteria().shape()).ok();
        if let Some((_, count)) = at.and_then(|at| rows.counts.get_mut(at)) {
            *count -= 1;
            if *count == 0 {
                // Without memory the shape stays, of no entry.
                if let Some(shapes) = shapes_of(rows, None) {
                    self.shapes.set(Some(shapes));
                    rows.counts.retain(|(_, count)| *count != 0);
                }
            }
        }
    }

    /// From the next grace period on, no reader finds anything, or looks.
    pub(super) fn hide(&self) {
        self.shapes.set(None);
    }

    /// Frees all entries, a grace period after [`Self::hide`]. May sleep.
    pub(super) fn clear(&self, rows: &mut Rows<T>) {
        // SAFETY: After that grace period nobody looks into it any more, and this is called once.
        unsafe { self.index.destroy() };
        rows.by_age = RBTree::new();
    }
}

/// Entries that match a connection, which readers go through.
pub(super) struct Matching<'g, T> {
    alike: Alike<'g, T>,
    /// Criteria to be looked up before the next shape.
    other: Option<Criteria>,
    pair: &'g Pair,
    /// Those still to be looked up.
    shapes: &'g [Shape],
}

impl<T> Clone for Matching<'_, T> {
    fn clone(&self) -> Self {
        Self {
            alike: self.alike.clone(),
            ..*self
        }
    }
}

impl<'g, T: Entry> Iterator for Matching<'g, T> {
    type Item = &'g T;

    fn next(&mut self) -> Option<&'g T> {
        loop {
            if let Some(entry) = self.alike.next() {
                return Some(entry);
            }
            if let Some(criteria) = self.other.take() {
                self.alike.look_up(&criteria);
                continue;
            }
            let (shape, rest) = self.shapes.split_first()?;
            self.shapes = rest;
            let [criteria, other] = shape.criteria_of(self.pair);
            self.other = other;
            if let Some(criteria) = criteria {
                self.alike.look_up(&criteria);
            }
        }
    }
}

/// A list for readers, of the shapes that entries have and one more; `None` if there is no memory.
fn shapes_of<T: Entry>(rows: &Rows<T>, more: Option<Shape>) -> Option<RcuBox<KVec<Shape>>> {
    let mut list = KVec::with_capacity(rows.counts.len() + 1, GFP_KERNEL_ACCOUNT).ok()?;
    for shape in rows.shapes() {
        list.push_within_capacity(shape).ok()?;
    }
    if let Some(shape) = more {
        let at = list.partition_point(|other| *other < shape);
        list.insert_within_capacity(at, shape).ok()?;
    }
    RcuBox::new(list, GFP_KERNEL_ACCOUNT, |_| ()).ok()
}
