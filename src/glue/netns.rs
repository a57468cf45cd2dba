// SPDX-License-Identifier: GPL-2.0

//! What the module has in a network namespace: keys and limits, and what they say of a connection.
//! What is in `/proc/net` is read here.

use core::fmt::Write;

use kernel::prelude::*;
use kernel::sync::atomic::ordering::Relaxed;
use kernel::sync::atomic::Atomic;
use kernel::sync::rcu;

use super::ffi::now;
use super::keydb::KeyDb;
use crate::proto::criteria::Pair;
use crate::proto::select;
use crate::proto::select::Preferences;
use crate::proto::select::Rule;
use crate::proto::show;

const DEFAULT_MAX_KEYS: u32 = 131_072;

/// A network namespace. Its sockets hold references, TIME-WAIT sockets too, and outlive it.
#[pin_data]
pub(super) struct Netns {
    /// Its keys, policies and VRFs.
    #[pin]
    pub(super) keys: KeyDb,
    /// The sysctl `net.ipv4.tcp_authopt_max_keys`.
    pub(super) max_keys: Atomic<u32>,
    /// The sysctl `net.ipv4.tcp_authopt_key_overlap`.
    pub(super) key_overlap: Atomic<u32>,
    /// The sysctl `net.ipv4.tcp_authopt_rollover_rule`.
    pub(super) rollover_rule: Atomic<u32>,
    /// The sysctl `net.ipv4.tcp_authopt_accept_tolerance`.
    pub(super) accept_tolerance: Atomic<u32>,
    /// The sysctl `net.ipv4.tcp_authopt_no_key_grace`.
    pub(super) no_key_grace: Atomic<i32>,
    /// How many connections policies have refused, by [`Refused`].
    refused: [Atomic<u64>; 3],
}

impl Netns {
    pub(super) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            keys <- KeyDb::new(),
            max_keys: Atomic::new(DEFAULT_MAX_KEYS),
            key_overlap: Atomic::new(0),
            rollover_rule: Atomic::new(0),
            accept_tolerance: Atomic::new(0),
            no_key_grace: Atomic::new(-1),
            refused: [const { Atomic::new(0) }; 3],
        })
    }

    pub(super) fn max_keys(&self) -> u32 {
        self.max_keys.load(Relaxed)
    }

    pub(super) fn may_overlap(&self) -> bool {
        self.key_overlap.load(Relaxed) != 0
    }

    pub(super) fn no_key_grace(&self) -> i32 {
        self.no_key_grace.load(Relaxed)
    }

    /// To be asked after [`KeyDb::generation`], by whoever keeps what was chosen by it: a change
    /// ends with [`KeyDb::choose_again`].
    pub(super) fn preferences(&self) -> Preferences {
        Preferences {
            rule: match self.rollover_rule.load(Relaxed) {
                0 => Rule::LongestLifetime,
                _ => Rule::LatestStart,
            },
            accept_tolerance: self.accept_tolerance.load(Relaxed),
        }
    }

    /// Some key matches the connection, valid or not.
    pub(super) fn is_keyed(&self, pair: &Pair) -> bool {
        let guard = rcu::read_lock();
        select::any_match(self.keys.matching(&guard, pair))
    }

    /// Some key that matches the connection may be used to send.
    pub(super) fn may_send(&self, pair: &Pair) -> bool {
        self.matches_and_may_send(pair).1
    }

    /// Both: [`Self::is_keyed`], and [`Self::may_send`].
    pub(super) fn matches_and_may_send(&self, pair: &Pair) -> (bool, bool) {
        let guard = rcu::read_lock();
        let mut matches = false;
        let matching = self.keys.matching(&guard, pair).inspect(|_| matches = true);
        let send = select::send_key(matching, None, self.preferences(), now());
        (matches, send.key.is_some())
    }

    /// The first position from `from` on that has a line in this file.
    pub(super) fn position_from(&self, file: File, from: u64) -> Option<u64> {
        match file {
            File::Keys => self.keys.position_from(from),
            File::Entries => self.keys.entry_from(from),
            File::Counters => None,
        }
    }

    /// Writes the line of a file in `/proc` at `position`: 0 is the heading. Returns its length; 0 if
    /// the entry has gone.
    pub(super) fn show(&self, file: File, position: u64, line: &mut [u8]) -> usize {
        let mut out = Line { line, len: 0 };
        let written = match (file, position) {
            (File::Keys, 0) => out.write_str(show::HEADER),
            (File::Keys, _) => match self.keys.spec_at(position) {
                Some((spec, index)) => show::write_row(&mut out, &spec, index),
                None => Ok(()),
            },
            (File::Entries, 0) => out.write_str(show::ENTRIES_HEADER),
            (File::Entries, _) => match self.keys.entry_at(position) {
                Some((entry, vrf)) => {
                    let tolerance = self.preferences().accept_tolerance;
                    show::write_entry(&mut out, &entry, vrf.as_ref(), tolerance, now())
                }
                None => Ok(()),
            },
            (File::Counters, _) => {
                let [passive, active, native] = self.refused.each_ref().map(|it| it.load(Relaxed));
                writeln!(
                    out,
                    "syn_refused\t{passive}\nconnect_refused\t{active}\nnative_refused\t{native}"
                )
            }
        };
        // The caller's line is long enough for any entry.
        written.map_or(0, |()| out.len)
    }

    /// A policy has kept a connection from coming to be.
    pub(super) fn count_refused(&self, what: Refused) {
        if let Some(counter) = self.refused.get(what as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }
}

/// A file in `/proc/net`.
#[derive(Clone, Copy)]
pub(super) enum File {
    /// `tcp_authopt`
    Keys,
    /// `tcp_authopt_entries`
    Entries,
    /// `tcp_authopt_counters`
    Counters,
}

/// What a policy keeps from coming to be.
#[derive(Clone, Copy)]
pub(super) enum Refused {
    /// A connection to a listener, whose SYN or ACK is not signed.
    Passive,
    /// One that `connect()` was to open.
    Active,
    /// Either, though the kernel's own TCP-AO is there.
    Native,
}

struct Line<'a> {
    line: &'a mut [u8],
    len: usize,
}

impl Write for Line<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();
        let free = self.line.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        free.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}
