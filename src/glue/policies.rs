// SPDX-License-Identifier: GPL-2.0

//! The policies of a namespace.

use kernel::prelude::*;
use kernel::sync::rcu;
use kernel::sync::rcu::Guard;

use super::filter::Filter;
use super::filter::FilterWriter;
use super::index::Entry;
use super::policy::Hold;
use super::policy::Policy;
use super::table::age;
use super::table::Rows;
use super::table::Table;
use crate::proto::addr::Addr;
use crate::proto::criteria::Criteria;
use crate::proto::criteria::Pair;
use crate::proto::error::Error;
use crate::proto::policy;
use crate::proto::policy::PolicySpec;
use crate::proto::policy::Require;

/// Policies, as readers see them.
#[pin_data]
pub(super) struct Policies {
    #[pin]
    table: Table<Policy>,
    filter: Filter,
    /// Taken while a policy requires something.
    #[pin]
    hold: Hold,
}

/// What their writer has.
pub(super) struct PolicyRows {
    pub(super) rows: Rows<Policy>,
    filter: FilterWriter,
    /// How many require something.
    required: u32,
}

impl PolicyRows {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows::new(),
            filter: FilterWriter::new(),
            required: 0,
        }
    }
}

impl Policies {
    pub(super) fn new() -> impl PinInit<Self, kernel::error::Error> {
        try_pin_init!(Self {
            table <- Table::new(),
            filter: Filter::empty(),
            hold <- Hold::new(),
        })
    }

    /// Whether a policy may be for a peer at `addr`; of most peers of a machine none is.
    pub(super) fn may_require(&self, addr: &Addr) -> bool {
        self.filter.may_match(addr)
    }

    /// How policies require this connection to be protected, if they do.
    pub(super) fn required(&self, pair: &Pair) -> Option<Require> {
        if !self.may_require(pair.remote()) {
            return None;
        }
        let guard = rcu::read_lock();
        let pair = pair.for_policies();
        let matching = self.table.matching(&guard, &pair);
        policy::wanted(matching.map(Policy::spec))
    }

    /// The policy with these criteria.
    pub(super) fn find<'g>(&'g self, guard: &'g Guard, criteria: &Criteria) -> Option<&'g Policy> {
        self.table.alike(guard, criteria).next()
    }

    /// Adds a policy, or replaces the one with its criteria; whether it is a new one, for which there
    /// has to be room (`is_full`). On an error all is as before.
    pub(super) fn add(
        &self,
        writer: &mut PolicyRows,
        spec: &PolicySpec,
        serial: u64,
        is_full: bool,
    ) -> Result<bool, Error> {
        let guard = rcu::read_lock();
        let old = self.find(&guard, &spec.criteria);
        let old = old.map(|old| (age(old), old.spec().requires()));
        drop(guard);
        if old.is_none() && is_full {
            return Err(Error::NoSpc);
        }
        let required = old.is_some_and(|(_, required)| required);
        let put = self.put(writer, spec, serial, old.map(|(age, _)| age));
        if put.is_ok() {
            writer.required += u32::from(spec.requires());
            writer.required -= u32::from(required);
        }
        self.hold_as(writer);
        put.map(|()| old.is_none())
    }

    fn put(
        &self,
        writer: &mut PolicyRows,
        spec: &PolicySpec,
        serial: u64,
        old: Option<u64>,
    ) -> Result<(), Error> {
        if spec.requires() {
            self.hold.take()?;
        }
        let shape = spec.criteria.shape();
        let policy = Policy::new(spec, serial).ok_or(Error::NoMem)?;
        let room = self.table.room(&mut writer.rows, shape)?;
        if old.is_none() {
            let rows = &writer.rows;
            let prefixes = rows.iter().filter_map(|it| it.criteria().remote.as_ref());
            let new = (shape, spec.criteria.remote);
            let count = rows.len() as usize;
            let filter = &mut writer.filter;
            self.filter
                .put(filter, new, rows.shapes(), prefixes, count)?;
        }
        self.table.put(&mut writer.rows, policy, old, room)
    }

    /// Takes the policy of this age out, which `required` something or did not.
    pub(super) fn take(&self, writer: &mut PolicyRows, age: u64, required: bool) {
        self.table.take(&mut writer.rows, age);
        if writer.rows.len() == 0 {
            self.filter.hide();
        }
        writer.required -= u32::from(required);
        self.hold_as(writer);
    }

    /// From the next grace period on, no reader finds anything, or looks.
    pub(super) fn hide(&self) {
        self.table.hide();
        self.filter.hide();
    }

    /// Frees all policies, a grace period after [`Self::hide`]. May sleep.
    pub(super) fn clear(&self, writer: &mut PolicyRows) {
        self.table.clear(&mut writer.rows);
        self.hold.release();
    }

    /// Lets go of the module when nothing is required any more.
    fn hold_as(&self, writer: &PolicyRows) {
        if writer.required == 0 {
            self.hold.release();
        }
    }
}
