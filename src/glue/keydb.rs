// SPDX-License-Identifier: GPL-2.0

//! The keys (MKTs) of a network namespace.
//!
//! Readers hold an RCU read lock. They go through the shapes of criteria in use, most specific
//! first, and look each up in a hash table: the cost of a lookup does not depend on the number of
//! keys. Writers hold a mutex and may sleep.
//!
//! Keys of a VRF name it by an id, whatever device it has: see [`crate::proto::vrf`]. Readers turn
//! interface indexes into ids before they look up.
//!
//! Every change, of keys or of the preferences that they are chosen by, ends with a new generation;
//! whoever keeps an answer keeps the generation that he read before he asked, and asks again when
//! it is another.

use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::rbtree::RBTreeNodeReservation;
use kernel::sync::atomic::ordering::Acquire;
use kernel::sync::atomic::ordering::Release;
use kernel::sync::atomic::Atomic;
use kernel::sync::new_mutex;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;
use kernel::sync::Mutex;

use super::ffi::synchronize_rcu;
use super::index::Alike;
use super::index::Index;
use super::mkt::Mkt;
use super::rcu::RcuBox;
use super::rcu::RcuSlot;
use super::vrfs::Devices;
use super::vrfs::Vrfs;
use crate::proto::error::Error;
use crate::proto::mkt::Criteria;
use crate::proto::mkt::Identity;
use crate::proto::mkt::KeySpec;
use crate::proto::mkt::Pair;
use crate::proto::mkt::Shape;
use crate::proto::vrf::Given;
use crate::proto::vrf::Name;
use crate::proto::vrf::VrfId;

/// The most shapes of criteria that the keys of a namespace may have, and the most keys that may
/// have the same criteria: what softirq does for a SYN is bounded. Each of 256 ids twice is more
/// than one connection has a use for.
const MAX_SHAPES: usize = 64;
const MAX_ALIKE: usize = 512;

/// What writers have.
struct Writer {
    by_age: RBTree<u64, RcuBox<Mkt>>,
    /// How many keys have each of the shapes that readers see, in the same order.
    counts: KVec<(Shape, u32)>,
    last_serial: u64,
    vrfs: Vrfs,
}

impl Writer {
    /// How many keys there are.
    fn count(&self) -> u32 {
        self.counts.iter().map(|(_, count)| count).sum()
    }
}

/// Keys that match a connection, which readers go through.
#[derive(Clone)]
pub(super) struct Matching<'g> {
    alike: Alike<'g>,
    /// Criteria to be looked up before the next shape.
    other: Option<Criteria>,
    pair: &'g Pair,
    /// Those still to be looked up.
    shapes: &'g [Shape],
}

impl<'g> Iterator for Matching<'g> {
    type Item = &'g Mkt;

    fn next(&mut self) -> Option<&'g Mkt> {
        loop {
            if let Some(mkt) = self.alike.next() {
                return Some(mkt);
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

/// A change of the keys has been made, and a reader of before may still be using what it found then.
#[must_use]
pub(super) struct Settling(bool);

impl Settling {
    /// Returns when there is no such reader any more. Sleeps for as long as readers take: with
    /// nothing locked that a segment could have to wait for.
    pub(super) fn wait(self) {
        if self.0 {
            synchronize_rcu();
        }
    }
}

/// All keys of a namespace.
#[pin_data]
pub(super) struct KeyDb {
    generation: Atomic<u64>,
    // Of all keys, the most specific first.
    shapes: RcuSlot<KVec<Shape>>,
    devices: Devices,
    #[pin]
    index: Index,
    #[pin]
    writer: Mutex<Writer>,
}

impl KeyDb {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            generation: Atomic::new(0),
            shapes: RcuSlot::empty(),
            devices: Devices::none(),
            index <- Index::new(),
            writer <- new_mutex!(Writer {
                by_age: RBTree::new(),
                counts: KVec::new(),
                last_serial: 0,
                vrfs: Vrfs::none(),
            }),
        })
    }

    /// A number that another set of keys, or other preferences, does not have.
    pub(super) fn generation(&self) -> u64 {
        // Whoever sees a generation sees the keys of it.
        self.generation.load(Acquire)
    }

    /// See [`Devices::vrf_at`].
    pub(super) fn vrf_at(&self, ifindex: u32) -> VrfId {
        self.devices.vrf_at(ifindex)
    }

    /// See [`Vrfs::device_added`].
    pub(super) fn device_added(&self, ifindex: u32, name: Name) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        writer.vrfs.device_added(&self.devices, ifindex, name)
    }

    /// See [`Vrfs::device_gone`].
    pub(super) fn device_gone(&self, ifindex: u32) {
        self.writer.lock().vrfs.device_gone(&self.devices, ifindex);
    }

    /// See [`Vrfs::device_renamed`].
    pub(super) fn device_renamed(&self, ifindex: u32, name: Name) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        writer.vrfs.device_renamed(&self.devices, ifindex, name)
    }

    /// All keys that match `pair`, in no particular order.
    pub(super) fn matching<'g>(&'g self, guard: &'g Guard, pair: &'g Pair) -> Matching<'g> {
        Matching {
            alike: self.index.nothing(guard),
            other: None,
            pair,
            shapes: self.shapes.get(guard).map_or(&[], |shapes| shapes),
        }
    }

    /// Adds a key, or replaces the one with its identity, at any time: before a connection is
    /// opened or while it is open (RFC 5925 3.1, 7.1; R6, R16, R17). `key` has `spec.key_len`
    /// bytes.
    ///
    /// When it returns and has settled, the answer to every question is that of the new set of
    /// keys; on an error it is as before.
    pub(super) fn add(
        &self,
        spec: &KeySpec,
        key: &[u8],
        max_keys: u32,
        overlap: bool,
    ) -> Result<Settling, Error> {
        let mut writer = self.writer.lock();
        let vrf = writer.vrfs.meant(spec.vrf)?;
        let spec = vrf.map_or(*spec, |vrf| spec.in_vrf(vrf));
        let added = self.add_in_its_vrf(&mut writer, &spec, key, max_keys, overlap);
        if added.is_err() {
            // It may be one that nobody has meant before.
            writer.vrfs.count_keys(vrf, 0);
        }
        added
    }

    fn add_in_its_vrf(
        &self,
        writer: &mut Writer,
        spec: &KeySpec,
        key: &[u8],
        max_keys: u32,
        overlap: bool,
    ) -> Result<Settling, Error> {
        let guard = rcu::read_lock();
        let old = self.find(&guard, &spec.identity());
        let old = old.map(|old| (old.age(), old.material_for(spec, key)));
        let (mut alike, mut taken) = (0, false);
        for other in self.index.alike(&guard, &spec.criteria) {
            alike += 1;
            taken |= spec.overlaps(other.spec());
        }
        drop(guard);
        let shape = spec.criteria.shape();
        let find = |counts: &[(Shape, u32)]| counts.binary_search_by(|(it, _)| it.cmp(&shape));
        let at = find(&writer.counts);
        let others = |(it, count): &&(Shape, u32)| *it != shape && *count != 0;
        let is_full = writer.count() >= max_keys
            || alike >= MAX_ALIKE
            || writer.counts.iter().filter(others).count() >= MAX_SHAPES;
        if old.is_none() && is_full {
            return Err(Error::NoSpc);
        }
        if taken && !overlap {
            return Err(Error::Exist);
        }

        // All that can fail, first.
        let serial = writer.last_serial + 1;
        let material = old.and_then(|(_, material)| material).unwrap_or(serial);
        let mkt = Mkt::new(spec, key, serial, material).ok_or(Error::NoMem)?;
        let place = RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT).map_err(|_| Error::NoMem)?;
        let more_shapes = match at {
            Ok(_) => None,
            Err(_) => {
                let counts = &mut writer.counts;
                counts
                    .reserve(1, GFP_KERNEL_ACCOUNT)
                    .map_err(|_| Error::NoMem)?;
                Some(shapes_of(counts, Some(shape)).ok_or(Error::NoMem)?)
            }
        };
        match old.and_then(|(old_age, _)| writer.by_age.remove(&old_age)) {
            // SAFETY: The writer's lock is held. Each key of `by_age` is in the index until it is
            // taken out of both; the new one is known here only.
            Some(old) => unsafe { self.index.replace(&old, &mkt) },
            None => {
                // SAFETY: The same.
                unsafe { self.index.add(&mkt) }?;
                if let Some(shapes) = more_shapes {
                    self.shapes.set(Some(shapes));
                }
                writer.vrfs.count_keys(spec.criteria.vrf, 1);
                match at {
                    Ok(at) => {
                        if let Some((_, count)) = writer.counts.get_mut(at) {
                            *count += 1;
                        }
                    }
                    // There is room for it. Readers have been given a list without those of no
                    // key, which may be left for want of memory.
                    Err(_) => {
                        writer.counts.retain(|(_, count)| *count != 0);
                        let at = find(&writer.counts).unwrap_or_else(|at| at);
                        drop(writer.counts.insert_within_capacity(at, (shape, 1)));
                    }
                }
            }
        }
        writer.by_age.insert(place.into_node(mkt.age(), mkt));
        writer.last_serial = serial;
        self.next_generation();
        // Whoever has chosen the old key before may be about to use it.
        let has_other_keys = old.is_some_and(|(_, material)| material.is_none());
        Ok(Settling(has_other_keys))
    }

    /// Deletes the key with this identity in the VRF that is given; when it has settled, nothing uses
    /// it any more. An interface index means the VRF that has it now, or the one of the newest key
    /// that was added with it.
    pub(super) fn delete(&self, identity: &Identity, vrf: Given) -> Result<Settling, Error> {
        let mut writer = self.writer.lock();
        let guard = rcu::read_lock();
        let in_vrf = |vrf| self.find(&guard, &identity.in_vrf(vrf));
        let found = match vrf {
            Given::Any | Given::Outside => self.find(&guard, identity),
            Given::Named(name) => writer.vrfs.named(name).and_then(in_vrf),
            Given::Index(index) => writer.vrfs.at(index).and_then(in_vrf).or_else(|| {
                let keys = writer.vrfs.ids().filter_map(in_vrf);
                keys.filter(|mkt| mkt.spec().vrf == vrf)
                    .min_by_key(|mkt| mkt.age())
            }),
        };
        let mkt = found.ok_or(Error::NoEnt)?;
        let (age, criteria) = (mkt.age(), mkt.spec().criteria);
        drop(guard);
        if let Some(mkt) = writer.by_age.remove(&age) {
            // SAFETY: The writer's lock is held, and the key, which was in `by_age`, is in the index.
            unsafe { self.index.remove(&mkt) };
        }
        writer.vrfs.count_keys(criteria.vrf, -1);
        let shape = criteria.shape();
        let at = writer.counts.iter().position(|(other, _)| *other == shape);
        if let Some((_, count)) = at.and_then(|at| writer.counts.get_mut(at)) {
            *count -= 1;
            if *count == 0 {
                // Without memory the shape stays, of no key.
                if let Some(shapes) = shapes_of(&writer.counts, None) {
                    self.shapes.set(Some(shapes));
                    writer.counts.retain(|(_, count)| *count != 0);
                }
            }
        }
        self.next_generation();
        Ok(Settling(true))
    }

    /// The first position from `from` on that has a key, in `/proc`.
    pub(super) fn position_from(&self, from: u64) -> Option<u64> {
        let writer = self.writer.lock();
        let cursor = writer.by_age.cursor_lower_bound(&from)?;
        Some(*cursor.current().0)
    }

    /// The key at a position, and the interface index of its VRF.
    pub(super) fn spec_at(&self, position: u64) -> Option<(KeySpec, u32)> {
        let writer = self.writer.lock();
        let spec = *writer.by_age.get(&position)?.spec();
        Some((spec, writer.vrfs.index_to_show(&spec)))
    }

    /// What keys are chosen by has changed: when it returns, nothing uses an answer of before.
    pub(super) fn choose_again(&self) {
        self.next_generation();
        synchronize_rcu();
    }

    /// The namespace goes: from the next grace period on, no reader finds anything, or looks.
    pub(super) fn hide(&self) {
        self.shapes.set(None);
        self.next_generation();
    }

    /// Frees all keys, a grace period after [`Self::hide`]. May sleep.
    pub(super) fn clear(&self) {
        // SAFETY: After that grace period nobody looks into it any more, and this is called once.
        unsafe { self.index.destroy() };
        self.writer.lock().by_age = RBTree::new();
    }

    fn find<'g>(&'g self, guard: &'g Guard, identity: &Identity) -> Option<&'g Mkt> {
        self.index
            .alike(guard, &identity.criteria)
            .find(|mkt| mkt.spec().identity() == *identity)
    }

    fn next_generation(&self) {
        self.generation.fetch_add(1, Release);
    }
}

/// A list for readers, of the shapes that keys have and one more; `None` if there is no memory.
fn shapes_of(counts: &[(Shape, u32)], more: Option<Shape>) -> Option<RcuBox<KVec<Shape>>> {
    let mut list = KVec::with_capacity(counts.len() + 1, GFP_KERNEL_ACCOUNT).ok()?;
    for (shape, _) in counts.iter().filter(|(_, count)| *count != 0) {
        list.push_within_capacity(*shape).ok()?;
    }
    if let Some(shape) = more {
        let at = list.partition_point(|other| *other < shape);
        list.insert_within_capacity(at, shape).ok()?;
    }
    RcuBox::new(list, GFP_KERNEL_ACCOUNT, |_| ()).ok()
}
