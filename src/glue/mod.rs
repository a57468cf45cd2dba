// SPDX-License-Identifier: GPL-2.0

//! The safe side of the seam: what the kernel asks for, answered with the protocol core.
//!
//! ```text
//! setsockopt   entry -> sockopt -> keydb
//! transmit     entry -> tx -> traffic
//! receive      entry -> rx -> traffic
//! /proc        entry -> netns -> proto::show
//! ```
//!
//! `unsafe` is in [`ffi`], [`sock`], [`segment`] and [`crypto`] (kernel functions), [`entry`]
//! (entries from C), [`rcu`], [`mkt`], [`policy`], [`index`], [`table`], [`conn`] and [`state`] (what
//! RCU or the stack keeps alive) only.

mod conn;
mod crypto;
mod entry;
mod ffi;
mod filter;
mod index;
mod keydb;
mod mkt;
mod netns;
mod policies;
mod policy;
mod rcu;
mod rfc9235;
mod rx;
mod segment;
pub(crate) mod selftest;
mod sock;
mod sockopt;
mod state;
mod table;
mod traffic;
mod tx;
mod vrfs;

pub(crate) use ffi::Hooks;
pub(crate) use ffi::Namespaces;
pub(crate) use ffi::SocketTables;
