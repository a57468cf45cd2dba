// SPDX-License-Identifier: GPL-2.0

//! The entries of a network namespace: its keys (MKTs), and its policies.
//!
//! Writers hold a mutex and may sleep; see [`super::table`] for readers.
//!
//! Entries of a VRF name it by an id, whatever device it has: see [`crate::proto::vrf`]. Readers turn
//! interface indexes into ids before they look up.
//!
//! Every change, of keys or of the preferences that they are chosen by, ends with a new generation;
//! whoever keeps an answer keeps the generation that he read before he asked, and asks again when
//! it is another. What policies say nobody keeps.

use kernel::prelude::*;
use kernel::sync::atomic::ordering::Acquire;
use kernel::sync::atomic::ordering::Release;
use kernel::sync::atomic::Atomic;
use kernel::sync::new_mutex;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;
use kernel::sync::Mutex;

use super::ffi::synchronize_rcu;
use super::index::Entry;
use super::mkt::Mkt;
use super::policies::Policies;
use super::policies::PolicyRows;
use super::table::age;
use super::table::Matching;
use super::table::Rows;
use super::table::Table;
use super::vrfs::Devices;
use super::vrfs::Vrfs;
use crate::proto::addr::Addr;
use crate::proto::criteria::Criteria;
use crate::proto::criteria::Pair;
use crate::proto::criteria::Shape;
use crate::proto::error::Error;
use crate::proto::mkt::Identity;
use crate::proto::mkt::KeySpec;
use crate::proto::policy::PolicySpec;
use crate::proto::policy::Require;
use crate::proto::show;
use crate::proto::vrf::Given;
use crate::proto::vrf::Name;
use crate::proto::vrf::Vrf;
use crate::proto::vrf::VrfId;

/// The most shapes of criteria that the entries of a namespace may have, and the most keys that may
/// have the same criteria: what softirq does for a SYN is bounded. Each of 256 ids twice is more
/// than one connection has a use for.
const MAX_SHAPES: usize = 64;
const MAX_ALIKE: usize = 512;

/// What writers have.
struct Writer {
    keys: Rows<Mkt>,
    policies: PolicyRows,
    last_serial: u64,
    vrfs: Vrfs,
}

impl Writer {
    /// Whether there is no room for one more entry of this shape.
    fn is_full(&self, shape: Shape, max_entries: u32) -> bool {
        let is_of_keys = |shape: &Shape| self.keys.shapes().any(|it| it == *shape);
        let of_policies = self.policies.rows.shapes().filter(|it| !is_of_keys(it));
        let others = Iterator::chain(self.keys.shapes(), of_policies).filter(|it| *it != shape);
        self.keys.len().saturating_add(self.policies.rows.len()) >= max_entries
            || others.count() >= MAX_SHAPES
    }
}

/// A change has been made, and a reader of before may still be using what it found then.
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

/// All entries of a namespace.
#[pin_data]
pub(super) struct KeyDb {
    generation: Atomic<u64>,
    devices: Devices,
    #[pin]
    keys: Table<Mkt>,
    #[pin]
    policies: Policies,
    #[pin]
    writer: Mutex<Writer>,
}

impl KeyDb {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            generation: Atomic::new(0),
            devices: Devices::none(),
            keys <- Table::new(),
            policies <- Policies::new(),
            writer <- new_mutex!(Writer {
                keys: Rows::new(),
                policies: PolicyRows::new(),
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
    pub(super) fn matching<'g>(&'g self, guard: &'g Guard, pair: &'g Pair) -> Matching<'g, Mkt> {
        self.keys.matching(guard, pair)
    }

    /// See [`Policies::may_require`].
    pub(super) fn may_require(&self, addr: &Addr) -> bool {
        self.policies.may_require(addr)
    }

    /// See [`Policies::required`].
    pub(super) fn required(&self, pair: &Pair) -> Option<Require> {
        self.policies.required(pair)
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
        let old = old.map(|old| (age(old), old.material_for(spec, key)));
        let (mut alike, mut taken) = (0, false);
        for other in self.keys.alike(&guard, &spec.criteria) {
            alike += 1;
            taken |= spec.overlaps(other.spec());
        }
        drop(guard);
        let shape = spec.criteria.shape();
        if old.is_none() && (alike >= MAX_ALIKE || writer.is_full(shape, max_keys)) {
            return Err(Error::NoSpc);
        }
        if taken && !overlap {
            return Err(Error::Exist);
        }

        let serial = writer.last_serial + 1;
        let material = old.and_then(|(_, material)| material).unwrap_or(serial);
        let mkt = Mkt::new(spec, key, serial, material).ok_or(Error::NoMem)?;
        let room = self.keys.room(&mut writer.keys, shape)?;
        let old_age = old.map(|(age, _)| age);
        self.keys.put(&mut writer.keys, mkt, old_age, room)?;
        if old.is_none() {
            writer.vrfs.count_keys(spec.criteria.vrf, 1);
        }
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
        let anywhere = || self.find(&guard, identity);
        let found = writer
            .vrfs
            .find(vrf, anywhere, in_vrf, |mkt| mkt.spec().vrf);
        let mkt = found.ok_or(Error::NoEnt)?;
        let (age, vrf) = (age(mkt), mkt.spec().criteria.vrf);
        drop(guard);
        self.keys.take(&mut writer.keys, age);
        writer.vrfs.count_keys(vrf, -1);
        self.next_generation();
        Ok(Settling(true))
    }

    /// Adds a policy, or replaces the one with its criteria. When it returns and has settled, every
    /// connection that is asked about is asked about with it; on an error all is as before.
    pub(super) fn add_policy(
        &self,
        spec: &PolicySpec,
        max_entries: u32,
    ) -> Result<Settling, Error> {
        let mut writer = self.writer.lock();
        let vrf = writer.vrfs.meant(spec.vrf)?;
        let spec = vrf.map_or(*spec, |vrf| spec.in_vrf(vrf));
        let is_full = writer.is_full(spec.criteria.shape(), max_entries);
        let serial = writer.last_serial + 1;
        let added = self
            .policies
            .add(&mut writer.policies, &spec, serial, is_full);
        // As in [`Self::add`].
        let more = added.as_ref().is_ok_and(|is_new| *is_new);
        writer.vrfs.count_keys(vrf, i32::from(more));
        added?;
        writer.last_serial = serial;
        Ok(Settling(spec.requires()))
    }

    /// Deletes the policy with these criteria, in the VRF that is given as with a key.
    pub(super) fn delete_policy(&self, criteria: &Criteria, vrf: Given) -> Result<Settling, Error> {
        let mut writer = self.writer.lock();
        let guard = rcu::read_lock();
        let in_vrf = |vrf| self.policies.find(&guard, &criteria.in_vrf(vrf));
        let anywhere = || self.policies.find(&guard, criteria);
        let found = writer
            .vrfs
            .find(vrf, anywhere, in_vrf, |policy| policy.spec().vrf);
        let policy = found.ok_or(Error::NoEnt)?;
        let (age, vrf, required) = (age(policy), policy.criteria().vrf, policy.spec().requires());
        drop(guard);
        self.policies.take(&mut writer.policies, age, required);
        writer.vrfs.count_keys(vrf, -1);
        // Where one was exempt, another one may require.
        Ok(Settling(!required))
    }

    /// The first position from `from` on that has a key, in `/proc`.
    pub(super) fn position_from(&self, from: u64) -> Option<u64> {
        let writer = self.writer.lock();
        writer.keys.age_from(from)
    }

    /// The first position from `from` on that has an entry, in `/proc`.
    pub(super) fn entry_from(&self, from: u64) -> Option<u64> {
        let writer = self.writer.lock();
        let ages = [
            writer.keys.age_from(from),
            writer.policies.rows.age_from(from),
        ];
        ages.into_iter().flatten().min()
    }

    /// The entry at a position, and its VRF, if it is for one.
    pub(super) fn entry_at(&self, position: u64) -> Option<(show::Entry, Option<Vrf>)> {
        let writer = self.writer.lock();
        let key = writer.keys.get(position).map(|mkt| *mkt.spec());
        let policy = || {
            writer
                .policies
                .rows
                .get(position)
                .map(|policy| *policy.spec())
        };
        let (entry, vrf) = match key {
            Some(spec) => (show::Entry::Key(spec), spec.criteria.vrf),
            None => policy().map(|spec| (show::Entry::Policy(spec), spec.criteria.vrf))?,
        };
        Some((entry, vrf.and_then(|id| writer.vrfs.get(id))))
    }

    /// The key at a position, and the interface index of its VRF.
    pub(super) fn spec_at(&self, position: u64) -> Option<(KeySpec, u32)> {
        let writer = self.writer.lock();
        let spec = *writer.keys.get(position)?.spec();
        Some((spec, writer.vrfs.index_to_show(&spec)))
    }

    /// What keys are chosen by has changed: when it returns, nothing uses an answer of before.
    pub(super) fn choose_again(&self) {
        self.next_generation();
        synchronize_rcu();
    }

    /// The namespace goes: from the next grace period on, no reader finds anything, or looks.
    pub(super) fn hide(&self) {
        self.keys.hide();
        self.policies.hide();
        self.next_generation();
    }

    /// Frees all entries, a grace period after [`Self::hide`]. May sleep.
    pub(super) fn clear(&self) {
        let writer = &mut *self.writer.lock();
        self.keys.clear(&mut writer.keys);
        self.policies.clear(&mut writer.policies);
    }

    fn find<'g>(&'g self, guard: &'g Guard, identity: &Identity) -> Option<&'g Mkt> {
        self.keys
            .alike(guard, &identity.criteria)
            .find(|mkt| mkt.spec().identity() == *identity)
    }

    fn next_generation(&self) {
        self.generation.fetch_add(1, Release);
    }
}
