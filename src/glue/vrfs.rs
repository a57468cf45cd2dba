// SPDX-License-Identifier: GPL-2.0

//! The VRFs of a namespace: which there are, for writers; which device each has, for readers.
//!
//! What the kernel tells of devices comes under RTNL, which is taken before the mutex of the writers
//! and never inside it.

use kernel::prelude::*;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;

use super::index::Entry;
use super::rcu::RcuBox;
use super::rcu::RcuSlot;
use crate::proto::error::Error;
use crate::proto::mkt::KeySpec;
use crate::proto::vrf;
use crate::proto::vrf::Given;
use crate::proto::vrf::Name;
use crate::proto::vrf::Renamed;
use crate::proto::vrf::Vrf;
use crate::proto::vrf::VrfId;

/// An L3 master device, for readers: its index, and the id of its VRF.
type Device = (u32, Atomic<u32>);

/// The L3 masters of a namespace, for readers: ordered by index.
pub(super) struct Devices(RcuSlot<KVVec<Device>>);

impl Devices {
    pub(super) const fn none() -> Self {
        Self(RcuSlot::empty())
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
        let devices = self.0.get(guard)?;
        let at = devices.binary_search_by_key(&ifindex, |(index, _)| *index);
        devices.get(at.ok()?).map(|(_, id)| id)
    }

    /// The device of this index is another VRF's from now on. It stays in the list otherwise: a
    /// list without it may want memory.
    fn assign(&self, ifindex: u32, id: VrfId) {
        let guard = rcu::read_lock();
        if let Some(device) = self.device(&guard, ifindex) {
            device.store(id.0, Relaxed);
        }
    }
}

/// The VRFs of a namespace, for writers.
pub(super) struct Vrfs {
    /// Ordered by id.
    list: KVVec<Vrf>,
    last: VrfId,
}

impl Vrfs {
    pub(super) const fn none() -> Self {
        Self {
            list: KVVec::new(),
            last: VrfId::OUTSIDE,
        }
    }

    /// The VRF whose device has this index.
    pub(super) fn at(&self, ifindex: u32) -> Option<VrfId> {
        let at = vrf::with_device(&self.list, ifindex)?;
        Some(self.list.get(at)?.id)
    }

    /// The VRF with this name.
    pub(super) fn named(&self, name: Name) -> Option<VrfId> {
        let at = vrf::with_name(&self.list, name)?;
        Some(self.list.get(at)?.id)
    }

    /// The VRF that a key is to be for, if it is for one. A name may be that of a device to come: its
    /// VRF is here from now on, and has to be given a key, or [`Self::count_keys`] called for it.
    ///
    /// # Errors
    ///
    /// [`Error::Inval`]: no VRF has the index. [`Error::NoMem`], [`Error::NoSpc`].
    pub(super) fn meant(&mut self, given: Given) -> Result<Option<VrfId>, Error> {
        match given {
            Given::Any | Given::Outside => Ok(None),
            Given::Index(index) => self.at(index).map(Some).ok_or(Error::Inval),
            Given::Named(name) => match self.named(name) {
                Some(id) => Ok(Some(id)),
                None => {
                    let id = self.last.next().ok_or(Error::NoSpc)?;
                    self.make_room()?;
                    self.put(id, name, None);
                    Ok(Some(id))
                }
            },
        }
    }

    /// Makes room for one more.
    fn make_room(&mut self) -> Result<(), Error> {
        let room = self.list.reserve(1, GFP_KERNEL_ACCOUNT);
        room.map_err(|_| Error::NoMem)
    }

    /// One more VRF, for which there is room.
    fn put(&mut self, id: VrfId, name: Name, ifindex: Option<u32>) {
        let vrf = Vrf {
            id,
            name,
            ifindex,
            keys: 0,
        };
        drop(self.list.push_within_capacity(vrf));
        self.last = id;
    }

    /// The entry that somebody means who says which VRF it is for: `anywhere` finds it if it is for
    /// none, `in_vrf` in one. An interface index means the VRF that has it now, or the one of the
    /// newest entry that was added with it, which `given` tells.
    pub(super) fn find<'g, T: Entry>(
        &self,
        vrf: Given,
        anywhere: impl FnOnce() -> Option<&'g T>,
        in_vrf: impl Fn(VrfId) -> Option<&'g T>,
        given: impl Fn(&T) -> Given,
    ) -> Option<&'g T> {
        match vrf {
            Given::Any | Given::Outside => anywhere(),
            Given::Named(name) => self.named(name).and_then(in_vrf),
            Given::Index(index) => self.at(index).and_then(&in_vrf).or_else(|| {
                let entries = self.list.iter().filter_map(|vrf| in_vrf(vrf.id));
                entries
                    .filter(|entry| given(entry) == vrf)
                    .max_by_key(|entry| entry.serial())
            }),
        }
    }

    /// The VRF with this id.
    pub(super) fn get(&self, id: VrfId) -> Option<Vrf> {
        self.list.get(vrf::with_id(&self.list, id)?).copied()
    }

    /// The interface index that `/proc` shows for a key.
    pub(super) fn index_to_show(&self, spec: &KeySpec) -> u32 {
        vrf::index_to_show(&self.list, spec.criteria.vrf, spec.vrf)
    }

    /// Another key is for this VRF, or one less, or none was added after all.
    pub(super) fn count_keys(&mut self, vrf: Option<VrfId>, change: i32) {
        let at = vrf.and_then(|id| vrf::with_id(&self.list, id));
        if let Some((at, vrf)) = at.and_then(|at| Some((at, self.list.get_mut(at)?))) {
            vrf.keys = vrf.keys.saturating_add_signed(change);
            self.forget_if_over(at);
        }
    }

    fn forget_if_over(&mut self, at: usize) {
        if self.list.get(at).is_some_and(Vrf::is_over) {
            let _ = self.list.remove(at);
        }
    }

    /// An L3 master has been registered: what `devices` says of its index is true when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::NoMem`], [`Error::NoSpc`]: it must not come to be, since what goes through it would
    /// be nobody's.
    pub(super) fn device_added(
        &mut self,
        devices: &Devices,
        ifindex: u32,
        name: Name,
    ) -> Result<(), Error> {
        // All that can fail, first.
        let waiting = vrf::waiting_for(&self.list, name);
        let id = match waiting.and_then(|at| self.list.get(at)) {
            Some(vrf) => vrf.id,
            None => self.last.next().ok_or(Error::NoSpc)?,
        };
        self.make_room()?;
        let list = self.devices_and((ifindex, id)).ok_or(Error::NoMem)?;
        match waiting.and_then(|at| self.list.get_mut(at)) {
            Some(vrf) => vrf.ifindex = Some(ifindex),
            None => self.put(id, name, Some(ifindex)),
        }
        devices.0.set(Some(list));
        Ok(())
    }

    /// The L3 master of this index goes: its VRF waits for another one of its name, if it has keys.
    /// Connections that began in it keep its id, and so their keys.
    pub(super) fn device_gone(&mut self, devices: &Devices, ifindex: u32) {
        devices.assign(ifindex, VrfId::UNKNOWN);
        if let Some(at) = vrf::with_device(&self.list, ifindex) {
            if let Some(vrf) = self.list.get_mut(at) {
                vrf.ifindex = None;
            }
            self.forget_if_over(at);
        }
    }

    /// The L3 master of this index has another name.
    ///
    /// # Errors
    ///
    /// [`Error::Exist`]: see [`vrf::renamed`].
    pub(super) fn device_renamed(
        &mut self,
        devices: &Devices,
        ifindex: u32,
        name: Name,
    ) -> Result<(), Error> {
        match vrf::renamed(&self.list, ifindex, name)? {
            Some(Renamed::Kept(at)) => {
                if let Some(vrf) = self.list.get_mut(at) {
                    vrf.name = name;
                }
            }
            Some(Renamed::Awaited(old, new)) => {
                if let Some(vrf) = self.list.get_mut(new) {
                    vrf.ifindex = Some(ifindex);
                    devices.assign(ifindex, vrf.id);
                }
                let _ = self.list.remove(old);
            }
            None => {}
        }
        Ok(())
    }

    /// A list for readers, of all VRFs that have a device and one more; `None` if there is no
    /// memory.
    fn devices_and(&self, more: (u32, VrfId)) -> Option<RcuBox<KVVec<Device>>> {
        let mut list = KVVec::with_capacity(self.list.len() + 1, GFP_KERNEL_ACCOUNT).ok()?;
        let devices = self.list.iter();
        let devices = devices.filter_map(|vrf| Some((vrf.ifindex?, vrf.id)));
        for (ifindex, id) in Iterator::chain(devices, [more]) {
            list.push_within_capacity((ifindex, Atomic::new(id.0)))
                .ok()?;
        }
        list.sort_unstable_by_key(|(ifindex, _)| *ifindex);
        RcuBox::new(list, GFP_KERNEL_ACCOUNT, |_| ()).ok()
    }
}
