// SPDX-License-Identifier: GPL-2.0

//! The keys (MKTs) of a network namespace.
//!
//! Readers hold an RCU read lock. They go through the shapes of criteria in use, most specific
//! first, and look each up in a hash table: the cost of a lookup does not depend on the number of
//! keys. Writers hold a mutex and may sleep.
//!
//! Keys of a VRF name it by an id, whatever device it has: see [`crate::proto::vrf`]. What the
//! kernel tells of devices comes under RTNL, which is taken before the mutex of the writers and
//! never inside it. Readers turn interface indexes into ids before they look up.
//!
//! Every change, of keys or of the policy that they are chosen by, ends with a new generation;
//! whoever keeps an answer keeps the generation that he read before he asked, and asks again when
//! it is another.

use core::ptr;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::rbtree::RBTree;
use kernel::rbtree::RBTreeNodeReservation;
use kernel::sync::atomic::ordering::Acquire;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::ordering::Release;
use kernel::sync::atomic::Atomic;
use kernel::sync::new_mutex;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;
use kernel::sync::Mutex;
use kernel::types::Opaque;

use super::ffi::bindings;
use super::ffi::synchronize_rcu;
use super::ffi::wipe;
use super::rcu::RcuBox;
use super::rcu::RcuSlot;
use crate::proto::error::Error;
use crate::proto::mkt::Criteria;
use crate::proto::mkt::Identity;
use crate::proto::mkt::KeySpec;
use crate::proto::mkt::Peer;
use crate::proto::mkt::Shape;
use crate::proto::select::Candidate;
use crate::proto::uapi::MAX_MASTER_KEY_LEN;
use crate::proto::vrf;
use crate::proto::vrf::Name;
use crate::proto::vrf::Renamed;
use crate::proto::vrf::Vrf;
use crate::proto::vrf::VrfId;

/// Ages are positions in `/proc`, which are `loff_t`.
const OLDEST: u64 = i64::MAX as u64;

/// The most shapes of criteria that the keys of a namespace may have, and the most keys that may
/// have the same criteria: what softirq does for a SYN is bounded. Each of 256 ids twice is more
/// than one connection has a use for.
const MAX_SHAPES: usize = 64;
const MAX_ALIKE: usize = 512;

/// A key.
#[repr(C)]
pub(super) struct Mkt {
    // First: the index finds a key by the address of this.
    node: Opaque<bindings::tao_mkt>,
    spec: KeySpec,
    serial: u64,
    secret: u64,
    key: [u8; MAX_MASTER_KEY_LEN],
}

// SAFETY: `node` is only touched by the index, which has locks of its own.
unsafe impl Send for Mkt {}
// SAFETY: As above; nothing else changes while a key can be found.
unsafe impl Sync for Mkt {}

impl Mkt {
    /// The same for two keys only if one replaced the other and is the same MKT: traffic keys of
    /// one are those of the other.
    pub(super) fn secret(&self) -> u64 {
        self.secret
    }

    /// The master key.
    pub(super) fn key(&self) -> &[u8] {
        self.key.get(..self.spec.key_len.into()).unwrap_or(&[])
    }

    pub(super) fn spec(&self) -> &KeySpec {
        &self.spec
    }

    /// Position in `/proc`: the newest is first.
    fn age(&self) -> u64 {
        OLDEST - self.serial
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

/// What writers have.
struct Writer {
    by_age: RBTree<u64, RcuBox<Mkt>>,
    /// How many keys have each of the shapes that readers see, in the same order.
    counts: KVec<(Shape, u32)>,
    count: u32,
    last_serial: u64,
    /// Ordered by id.
    vrfs: KVVec<Vrf>,
    last_vrf: VrfId,
}

impl Writer {
    fn vrf_at(&self, ifindex: u32) -> Option<VrfId> {
        let at = vrf::with_device(&self.vrfs, ifindex)?;
        Some(self.vrfs.get(at)?.id)
    }

    /// Another key is for this VRF, or one less.
    fn count_in(&mut self, vrf: Option<VrfId>, change: i32) {
        let at = vrf.and_then(|id| vrf::with_id(&self.vrfs, id));
        if let Some((at, vrf)) = at.and_then(|at| Some((at, self.vrfs.get_mut(at)?))) {
            vrf.keys = vrf.keys.saturating_add_signed(change);
            self.forget_if_over(at);
        }
    }

    fn forget_if_over(&mut self, at: usize) {
        if self.vrfs.get(at).is_some_and(Vrf::is_over) {
            let _ = self.vrfs.remove(at);
        }
    }
}

/// An L3 master device, for readers: its index, and the id of its VRF.
type Device = (u32, Atomic<u32>);

/// Keys that readers go through.
///
/// # Invariants
///
/// The RCU read lock is held for `'g`. `node` is null or was found in the index under it.
#[derive(Clone)]
pub(super) struct Matching<'g> {
    db: &'g KeyDb,
    node: *mut bindings::tao_mkt,
    peer: &'g Peer,
    /// Those still to be looked up.
    shapes: &'g [Shape],
}

impl<'g> Iterator for Matching<'g> {
    type Item = &'g Mkt;

    fn next(&mut self) -> Option<&'g Mkt> {
        while self.node.is_null() {
            let (shape, rest) = self.shapes.split_first()?;
            self.shapes = rest;
            if let Some(criteria) = shape.criteria_of(self.peer) {
                self.node = self.db.first(&criteria);
            }
        }
        // SAFETY: By the type invariant it is in the index, where nodes are the first field of an
        // `Mkt`, and freed a grace period after they were taken out: not while `'g` lasts.
        let mkt = unsafe { &*self.node.cast::<Mkt>() };
        // SAFETY: As above.
        self.node = unsafe { bindings::tao_index_next(self.node) };
        Some(mkt)
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
    // Ordered by index.
    devices: RcuSlot<KVVec<Device>>,
    // Of `Mkt::node`, by criteria.
    #[pin]
    index: Opaque<bindings::rhltable>,
    #[pin]
    writer: Mutex<Writer>,
}

// SAFETY: The index has locks of its own.
unsafe impl Send for KeyDb {}
// SAFETY: As above.
unsafe impl Sync for KeyDb {}

impl KeyDb {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            generation: Atomic::new(0),
            shapes: RcuSlot::empty(),
            devices: RcuSlot::empty(),
            index <- Opaque::try_ffi_init(|index| {
                // SAFETY: `index` is to be initialised.
                to_result(unsafe { bindings::tao_index_init(index) })
            }),
            writer <- new_mutex!(Writer {
                by_age: RBTree::new(),
                counts: KVec::new(),
                count: 0,
                last_serial: 0,
                vrfs: KVVec::new(),
                last_vrf: VrfId::OUTSIDE,
            }),
        })
    }

    /// A number that another set of keys, or another policy, does not have.
    pub(super) fn generation(&self) -> u64 {
        // Whoever sees a generation sees the keys of it.
        self.generation.load(Acquire)
    }

    /// The VRF whose device has this interface index now; 0 is outside of all.
    pub(super) fn vrf_at(&self, ifindex: u32) -> VrfId {
        if ifindex == 0 {
            return VrfId::OUTSIDE;
        }
        let guard = rcu::read_lock();
        let id = self.device(&guard, ifindex).map(|id| id.load(Relaxed));
        id.map_or(VrfId::UNKNOWN, VrfId)
    }

    fn device<'g>(&'g self, guard: &'g Guard, ifindex: u32) -> Option<&'g Atomic<u32>> {
        let devices = self.devices.get(guard)?;
        let at = devices.binary_search_by_key(&ifindex, |(index, _)| *index);
        devices.get(at.ok()?).map(|(_, id)| id)
    }

    /// An L3 master has been registered: what is known here of its index is true when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`], [`Error::NoSpc`]: it must not come to be, since what goes through it would
    /// be nobody's.
    pub(super) fn device_added(&self, ifindex: u32, name: Name) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        // All that can fail, first.
        let waiting = vrf::waiting_for(&writer.vrfs, name);
        let id = match waiting.and_then(|at| writer.vrfs.get(at)) {
            Some(vrf) => vrf.id,
            None => writer.last_vrf.next().ok_or(Error::NoSpc)?,
        };
        let room = writer.vrfs.reserve(1, GFP_KERNEL_ACCOUNT);
        room.map_err(|_| Error::NoMem)?;
        let devices = devices_of(&writer.vrfs, (ifindex, id)).ok_or(Error::NoMem)?;
        match waiting.and_then(|at| writer.vrfs.get_mut(at)) {
            Some(vrf) => vrf.ifindex = Some(ifindex),
            None => {
                let vrf = Vrf {
                    id,
                    name,
                    ifindex: Some(ifindex),
                    keys: 0,
                };
                // There is room for it.
                drop(writer.vrfs.push_within_capacity(vrf));
                writer.last_vrf = id;
            }
        }
        self.devices.set(Some(devices));
        Ok(())
    }

    /// The L3 master of this index goes: its VRF waits for another one of its name, if it has keys.
    /// Connections that began in it keep its id, and so their keys.
    pub(super) fn device_gone(&self, ifindex: u32) {
        let mut writer = self.writer.lock();
        let guard = rcu::read_lock();
        // It stays in the list, whose next one may want memory.
        if let Some(id) = self.device(&guard, ifindex) {
            id.store(VrfId::UNKNOWN.0, Relaxed);
        }
        drop(guard);
        if let Some(at) = vrf::with_device(&writer.vrfs, ifindex) {
            if let Some(vrf) = writer.vrfs.get_mut(at) {
                vrf.ifindex = None;
            }
            writer.forget_if_over(at);
        }
    }

    /// The L3 master of this index has another name.
    ///
    /// # Errors
    ///
    /// [`Error::Exist`]: see [`vrf::renamed`].
    pub(super) fn device_renamed(&self, ifindex: u32, name: Name) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        match vrf::renamed(&writer.vrfs, ifindex, name)? {
            Some(Renamed::Kept(at)) => {
                if let Some(vrf) = writer.vrfs.get_mut(at) {
                    vrf.name = name;
                }
            }
            Some(Renamed::Awaited(old, new)) => {
                if let Some(vrf) = writer.vrfs.get_mut(new) {
                    vrf.ifindex = Some(ifindex);
                    let guard = rcu::read_lock();
                    if let Some(id) = self.device(&guard, ifindex) {
                        id.store(vrf.id.0, Relaxed);
                    }
                }
                let _ = writer.vrfs.remove(old);
            }
            None => {}
        }
        Ok(())
    }

    /// All keys that match `peer`, in no particular order.
    pub(super) fn matching<'g>(&'g self, guard: &'g Guard, peer: &'g Peer) -> Matching<'g> {
        Matching {
            db: self,
            node: ptr::null_mut(),
            peer,
            shapes: self.shapes.get(guard).map_or(&[], |shapes| shapes),
        }
    }

    /// All keys with these criteria; `peer` is any.
    fn with_criteria<'g>(&'g self, _guard: &'g Guard, criteria: &Criteria) -> Matching<'g> {
        Matching {
            db: self,
            node: self.first(criteria),
            peer: &Peer::NOBODY,
            shapes: &[],
        }
    }

    /// The first key with these criteria, or null. The caller holds an RCU read lock.
    fn first(&self, criteria: &Criteria) -> *mut bindings::tao_mkt {
        // SAFETY: The index is alive: `clear()` runs when nobody can look any more. It hashes
        // `CRITERIA_KEY_LEN` bytes.
        unsafe { bindings::tao_index_first(self.index.get(), criteria.to_key().as_ptr()) }
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
        let spec = &spec.in_its_vrf(|ifindex| writer.vrf_at(ifindex))?;
        let guard = rcu::read_lock();
        let old = self.find(&guard, &spec.identity());
        let old = old.map(|old| (old.age(), same_mkt(old, spec, key)));
        let (mut alike, mut taken) = (0, false);
        for other in self.with_criteria(&guard, &spec.criteria) {
            alike += 1;
            taken |= spec.overlaps(&other.spec);
        }
        drop(guard);
        let shape = spec.criteria.shape();
        let find = |counts: &[(Shape, u32)]| counts.binary_search_by(|(it, _)| it.cmp(&shape));
        let at = find(&writer.counts);
        let others = |(it, count): &&(Shape, u32)| *it != shape && *count != 0;
        let is_full = writer.count >= max_keys
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
        let mkt = Mkt {
            node: Opaque::uninit(),
            spec: *spec,
            serial,
            secret: old.and_then(|(_, secret)| secret).unwrap_or(serial),
            key: [0; MAX_MASTER_KEY_LEN],
        };
        let age = mkt.age();
        let mkt = RcuBox::new(mkt, GFP_KERNEL_ACCOUNT, |mkt| {
            for (to, from) in mkt.key.iter_mut().zip(key) {
                *to = *from;
            }
        })
        .map_err(|_| Error::NoMem)?;
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
            Some(old) => self.index_replace(&old, &mkt),
            None => {
                self.index_add(&mkt)?;
                if let Some(shapes) = more_shapes {
                    self.shapes.set(Some(shapes));
                }
                writer.count += 1;
                writer.count_in(spec.criteria.vrf, 1);
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
        writer.by_age.insert(place.into_node(age, mkt));
        writer.last_serial = serial;
        self.next_generation();
        // Whoever has chosen the old key before may be about to use it.
        Ok(Settling(old.is_some_and(|(_, same)| same.is_none())))
    }

    /// Deletes the key with this identity; when it has settled, nothing uses it any more. With an
    /// `ifindex` it is the one in the VRF that has this index now, or the newest one that was added
    /// with it.
    pub(super) fn delete(
        &self,
        identity: &Identity,
        ifindex: Option<u32>,
    ) -> Result<Settling, Error> {
        let mut writer = self.writer.lock();
        let guard = rcu::read_lock();
        let found = match ifindex {
            None => self.find(&guard, identity),
            Some(ifindex) => {
                let now = writer.vrf_at(ifindex);
                now.and_then(|vrf| self.find(&guard, &identity.in_vrf(vrf)))
                    .or_else(|| {
                        let vrfs = writer.vrfs.iter();
                        vrfs.filter_map(|vrf| self.find(&guard, &identity.in_vrf(vrf.id)))
                            .filter(|mkt| mkt.spec.ifindex == Some(ifindex))
                            .max_by_key(|mkt| mkt.serial)
                    })
            }
        };
        let mkt = found.ok_or(Error::NoEnt)?;
        let (age, criteria) = (mkt.age(), mkt.spec.criteria);
        drop(guard);
        if let Some(mkt) = writer.by_age.remove(&age) {
            // SAFETY: The index is alive and has the key in it.
            unsafe { bindings::tao_index_del(self.index.get(), mkt.node.get()) };
        }
        writer.count -= 1;
        writer.count_in(criteria.vrf, -1);
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
        let spec = writer.by_age.get(&position)?.spec;
        let index = vrf::index_to_show(&writer.vrfs, spec.criteria.vrf, spec.ifindex);
        Some((spec, index))
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
        // SAFETY: It is alive, and nobody looks into it any more.
        unsafe { bindings::tao_index_destroy(self.index.get()) };
        self.writer.lock().by_age = RBTree::new();
    }

    fn find<'g>(&'g self, guard: &'g Guard, identity: &Identity) -> Option<&'g Mkt> {
        self.with_criteria(guard, &identity.criteria)
            .find(|mkt| mkt.spec.identity() == *identity)
    }

    fn index_add(&self, mkt: &RcuBox<Mkt>) -> Result<(), Error> {
        let node = mkt.node.get();
        // SAFETY: The index is alive; nobody else knows the key yet, so its node is ours to write.
        to_result(unsafe {
            (*node).criteria = mkt.spec.criteria.to_key();
            bindings::tao_index_add(self.index.get(), node)
        })
        .map_err(|_| Error::NoMem)
    }

    /// Readers find `mkt` in place of `old`, which has the same criteria: one of the two, always.
    fn index_replace(&self, old: &RcuBox<Mkt>, mkt: &RcuBox<Mkt>) {
        let node = mkt.node.get();
        // SAFETY: The index is alive and has `old` in it; nobody else knows the new key yet, so its
        // node is ours to write.
        unsafe {
            (*node).criteria = old.spec.criteria.to_key();
            bindings::tao_index_replace(self.index.get(), old.node.get(), node);
        }
    }

    fn next_generation(&self) {
        self.generation.fetch_add(1, Release);
    }
}

/// The secret of `old`, if its replacement differs only in when it may be used.
fn same_mkt(old: &Mkt, spec: &KeySpec, key: &[u8]) -> Option<u64> {
    (old.spec.same_mkt(spec) && old.key() == key).then_some(old.secret)
}

/// A list for readers, of all VRFs that have a device and one more; `None` if there is no memory.
fn devices_of(vrfs: &[Vrf], more: (u32, VrfId)) -> Option<RcuBox<KVVec<Device>>> {
    let mut list = KVVec::with_capacity(vrfs.len() + 1, GFP_KERNEL_ACCOUNT).ok()?;
    let devices = vrfs.iter().filter_map(|vrf| Some((vrf.ifindex?, vrf.id)));
    for (ifindex, id) in Iterator::chain(devices, [more]) {
        list.push_within_capacity((ifindex, Atomic::new(id.0)))
            .ok()?;
    }
    list.sort_unstable_by_key(|(ifindex, _)| *ifindex);
    RcuBox::new(list, GFP_KERNEL_ACCOUNT, |_| ()).ok()
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
