// SPDX-License-Identifier: GPL-2.0

//! Which VRF a device is, while devices come, go and change their names.

use proptest::collection::vec;
use proptest::prelude::*;
use tcp_authopt::proto::error::Error;
use tcp_authopt::proto::vrf::index_to_show;
use tcp_authopt::proto::vrf::renamed;
use tcp_authopt::proto::vrf::waiting_for;
use tcp_authopt::proto::vrf::with_device;
use tcp_authopt::proto::vrf::with_id;
use tcp_authopt::proto::vrf::Given;
use tcp_authopt::proto::vrf::Name;
use tcp_authopt::proto::vrf::Renamed;
use tcp_authopt::proto::vrf::Vrf;
use tcp_authopt::proto::vrf::VrfId;

fn name(text: &str) -> Name {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    Name::new(bytes)
}

fn vrf(id: u32, text: &str, ifindex: impl Into<Option<u32>>, keys: u32) -> Vrf {
    Vrf {
        id: VrfId(id),
        name: name(text),
        ifindex: ifindex.into(),
        keys,
    }
}

#[test]
fn ids_end_before_the_unknown_one() {
    assert_eq!(VrfId::OUTSIDE.next(), Some(VrfId(1)));
    assert_eq!(VrfId(u32::MAX - 2).next(), Some(VrfId(u32::MAX - 1)));
    assert_eq!(VrfId(u32::MAX - 1).next(), None);
    assert_eq!(VrfId::UNKNOWN.next(), None);
}

#[test]
fn names_end_at_the_first_zero() {
    assert_eq!(Name::new(*b"red\0former name\0"), name("red"));
    assert_eq!(Name::new(*b"0123456789abcdef"), name("0123456789abcdef"));
    assert_ne!(name("red"), name("red0"));
}

#[test]
fn only_the_one_that_waits_is_waited_for() {
    let vrfs = [vrf(1, "red", None, 1), vrf(4, "blue", 7, 1)];
    assert_eq!(waiting_for(&vrfs, name("red")), Some(0));
    assert_eq!(waiting_for(&vrfs, name("blue")), None);
    assert_eq!(waiting_for(&vrfs, name("re")), None);
    assert_eq!(with_device(&vrfs, 7), Some(1));
    assert_eq!(with_device(&vrfs, 1), None);
    assert_eq!(with_id(&vrfs, VrfId(4)), Some(1));
    assert_eq!(with_id(&vrfs, VrfId(2)), None);
}

#[test]
fn over_without_device_and_keys() {
    let over = [(None, 0), (None, 1), (Some(7), 0), (Some(7), 1)]
        .map(|(ifindex, keys)| vrf(1, "red", ifindex, keys).is_over());
    assert_eq!(over, [true, false, false, false]);
}

#[test]
fn index_to_show_is_that_of_now() {
    let vrfs = [vrf(1, "red", None, 1), vrf(4, "blue", 7, 1)];
    assert_eq!(index_to_show(&vrfs, Some(VrfId(4)), Given::Index(3)), 7);
    assert_eq!(index_to_show(&vrfs, Some(VrfId(1)), Given::Index(3)), 3);
    assert_eq!(
        index_to_show(&vrfs, Some(VrfId::OUTSIDE), Given::Outside),
        0
    );
    assert_eq!(index_to_show(&vrfs, None, Given::Any), 0);
    let waits = Given::Named(name("red"));
    assert_eq!(index_to_show(&vrfs, Some(VrfId(1)), waits), 0);
    assert_eq!(index_to_show(&vrfs, Some(VrfId(4)), waits), 7);
}

#[test]
fn renaming_takes_the_keys_along() {
    for keys in [0, 1] {
        let vrfs = [vrf(1, "red", None, 1), vrf(4, "blue", 7, keys)];
        let to = |text| renamed(&vrfs, 7, name(text));
        assert_eq!(to("green"), Ok(Some(Renamed::Kept(1))));
        assert_eq!(to("blue"), Ok(Some(Renamed::Kept(1))), "back again");
    }
    assert_eq!(renamed(&[], 7, name("red")), Ok(None));
}

#[test]
fn renaming_to_what_is_waited_for() {
    let at = |keys| [vrf(1, "red", None, 1), vrf(4, "blue", 7, keys)];
    let awaited = Ok(Some(Renamed::Awaited(1, 0)));
    assert_eq!(renamed(&at(0), 7, name("red")), awaited);
    assert_eq!(renamed(&at(1), 7, name("red")), Err(Error::Exist));
}

/// What happens in a namespace.
#[derive(Clone, Debug)]
enum Event {
    /// A device of this name appears.
    Added(usize),
    /// It goes.
    Gone(usize),
    /// It gets the other name, unless there is such a device.
    Renamed(usize, usize),
    /// Keys are added to its VRF.
    Keys(usize),
}

const NAMES: [&str; 3] = ["red", "blue", "green"];

fn any_event() -> impl Strategy<Value = Event> {
    let device = 0..NAMES.len();
    prop_oneof![
        device.clone().prop_map(Event::Added),
        device.clone().prop_map(Event::Gone),
        (device.clone(), device.clone()).prop_map(|(from, to)| Event::Renamed(from, to)),
        device.prop_map(Event::Keys),
    ]
}

proptest! {
    /// Names stay unique and ids in order, keys that wait for a name get the device that has it, and
    /// a device that has keys keeps them whatever it is called.
    #[test]
    fn vrfs_stay_in_order(events in vec(any_event(), 0..60)) {
        let mut vrfs: Vec<Vrf> = Vec::new();
        let mut last = VrfId::OUTSIDE;
        let mut index = 0;
        let at = |vrfs: &[Vrf], text| {
            vrfs.iter().position(|vrf| vrf.name == name(text) && vrf.ifindex.is_some())
        };
        for event in events {
            match event {
                Event::Added(number) if at(&vrfs, NAMES[number]).is_none() => {
                    index += 1;
                    if let Some(waiting) = waiting_for(&vrfs, name(NAMES[number])) {
                        prop_assert!(vrfs[waiting].keys > 0);
                        vrfs[waiting].ifindex = Some(index);
                    } else {
                        last = last.next().unwrap();
                        vrfs.push(vrf(last.0, NAMES[number], index, 0));
                    }
                }
                Event::Gone(number) => {
                    if let Some(place) = at(&vrfs, NAMES[number]) {
                        vrfs[place].ifindex = None;
                    }
                    vrfs.retain(|vrf| !vrf.is_over());
                }
                Event::Renamed(from, to) if at(&vrfs, NAMES[to]).is_none() => {
                    let Some(place) = at(&vrfs, NAMES[from]) else { continue };
                    let before = vrfs[place];
                    match renamed(&vrfs, before.ifindex.unwrap(), name(NAMES[to])) {
                        Ok(Some(Renamed::Kept(place))) => vrfs[place].name = name(NAMES[to]),
                        Ok(Some(Renamed::Awaited(old, new))) => {
                            prop_assert_eq!((old, before.keys), (place, 0));
                            vrfs[new].ifindex = before.ifindex;
                            vrfs.remove(old);
                        }
                        Ok(None) => prop_assert!(false, "it has a device"),
                        Err(_) => prop_assert!(before.keys > 0),
                    }
                }
                Event::Keys(number) => {
                    if let Some(place) = at(&vrfs, NAMES[number]) {
                        vrfs[place].keys += 1;
                    }
                }
                _ => {}
            }
            prop_assert!(vrfs.windows(2).all(|pair| pair[0].id < pair[1].id));
            for (place, one) in vrfs.iter().enumerate() {
                prop_assert!(!one.is_over());
                prop_assert_eq!(with_id(&vrfs, one.id), Some(place));
                prop_assert_eq!(vrfs.iter().filter(|other| other.name == one.name).count(), 1);
            }
        }
    }
}
