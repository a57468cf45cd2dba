// SPDX-License-Identifier: GPL-2.0

//! The VRFs of a namespace: which device is which, while devices come, go and change their names.
//!
//! A VRF is here while it has a device, an L3 master, or keys. Keys name it by an id that no other
//! VRF of the namespace ever gets, so that nothing has to be done to them when its device goes or
//! comes: without one the VRF waits for a device of its name. An interface index says nothing
//! beyond the life of its device.
//!
//! The caller keeps the VRFs in a list, ordered by id, in which no two have one name.

use super::error::Error;

/// Which VRF of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VrfId(pub u32);

impl VrfId {
    /// Where no VRF is.
    pub const OUTSIDE: Self = Self(0);
    /// A VRF that the namespace does not know. No key is for it, so that only those match that do
    /// not mind the VRF.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// The next one to be given; `None` if all were.
    pub fn next(self) -> Option<Self> {
        let next = Self(self.0.checked_add(1)?);
        (next != Self::UNKNOWN).then_some(next)
    }
}

/// Bytes of a device's name, a final zero included.
pub const NAME_LEN: usize = 16;

/// The name of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name([u8; NAME_LEN]);

impl Name {
    /// The name that ends before the first zero; what is behind that does not count.
    pub fn new(mut bytes: [u8; NAME_LEN]) -> Self {
        let len = bytes.iter().position(|byte| *byte == 0);
        for byte in bytes.iter_mut().skip(len.unwrap_or(NAME_LEN)) {
            *byte = 0;
        }
        Self(bytes)
    }

    /// The name that somebody gives; `None` if the kernel would give it to no device, or something
    /// is behind it.
    pub fn parse(bytes: [u8; NAME_LEN]) -> Option<Self> {
        let len = bytes.iter().position(|byte| *byte == 0)?;
        let (name, padding) = bytes.split_at(len);
        let is_wrong = |byte: &u8| matches!(byte, b'/' | b':' | b' ' | b'\t'..=b'\r' | 0xa0);
        let is_good = !matches!(name, b"" | b"." | b"..")
            && !name.iter().any(is_wrong)
            && padding.iter().all(|byte| *byte == 0);
        is_good.then_some(Self(bytes))
    }

    /// Its bytes, without what fills them up.
    pub fn as_bytes(&self) -> &[u8] {
        let len = self.0.iter().position(|byte| *byte == 0);
        self.0.get(..len.unwrap_or(NAME_LEN)).unwrap_or(&[])
    }
}

/// Which VRF somebody means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// Any, and where there is none.
    Any,
    /// Only where there is none.
    Outside,
    /// The one whose device has this index now.
    Index(u32),
    /// The one of this name, whether or not it has a device now.
    Named(Name),
}

impl Given {
    /// What criteria say of it. Which VRF has the index or name is not known here: it is
    /// [`VrfId::UNKNOWN`].
    pub fn in_criteria(self) -> Option<VrfId> {
        match self {
            Self::Any => None,
            Self::Outside => Some(VrfId::OUTSIDE),
            Self::Index(_) | Self::Named(_) => Some(VrfId::UNKNOWN),
        }
    }
}

/// A VRF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vrf {
    /// What its keys name it by.
    pub id: VrfId,
    /// The name that its device has, or had.
    pub name: Name,
    /// The interface index of its device; `None` while it waits for one.
    pub ifindex: Option<u32>,
    /// How many keys are for it.
    pub keys: u32,
}

impl Vrf {
    /// Neither a device nor a key is left: it is to be forgotten.
    pub fn is_over(&self) -> bool {
        self.ifindex.is_none() && self.keys == 0
    }
}

/// The place of the VRF with this id.
pub fn with_id(vrfs: &[Vrf], id: VrfId) -> Option<usize> {
    vrfs.binary_search_by_key(&id, |vrf| vrf.id).ok()
}

/// The place of the VRF whose device has this index now.
pub fn with_device(vrfs: &[Vrf], ifindex: u32) -> Option<usize> {
    vrfs.iter().position(|vrf| vrf.ifindex == Some(ifindex))
}

/// The place of the VRF with this name.
pub fn with_name(vrfs: &[Vrf], name: Name) -> Option<usize> {
    vrfs.iter().position(|vrf| vrf.name == name)
}

/// The place of the VRF that waits for a device of this name.
pub fn waiting_for(vrfs: &[Vrf], name: Name) -> Option<usize> {
    vrfs.iter()
        .position(|vrf| vrf.ifindex.is_none() && vrf.name == name)
}

/// The interface index to show for a key that is for `vrf`: that of the device; while there is none,
/// the one that was `given` with the key, or 0.
pub fn index_to_show(vrfs: &[Vrf], vrf: Option<VrfId>, given: Given) -> u32 {
    let at = vrf.and_then(|id| with_id(vrfs, id));
    let now = at.and_then(|at| vrfs.get(at)?.ifindex);
    match (now, given) {
        (Some(index), _) | (None, Given::Index(index)) => index,
        (None, _) => 0,
    }
}

/// What a new name of a device means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renamed {
    /// The VRF at this place has it from now on; its keys come along.
    Kept(usize),
    /// The device is the one that the second VRF has waited for. The first one, which had it, has
    /// no keys: it is over.
    Awaited(usize, usize),
}

/// The device with this index has got another name. `Ok(None)` if it is not that of a VRF.
///
/// # Errors
///
/// [`Error::Exist`]: the VRF has keys, and others wait for a device of that name. Neither can be
/// right for all of them, so the device must keep its old name.
pub fn renamed(vrfs: &[Vrf], ifindex: u32, name: Name) -> Result<Option<Renamed>, Error> {
    let Some(at) = with_device(vrfs, ifindex) else {
        return Ok(None);
    };
    let has_keys = vrfs.get(at).is_some_and(|vrf| vrf.keys != 0);
    match waiting_for(vrfs, name) {
        None => Ok(Some(Renamed::Kept(at))),
        Some(_) if has_keys => Err(Error::Exist),
        Some(other) => Ok(Some(Renamed::Awaited(at, other))),
    }
}
