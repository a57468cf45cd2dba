// SPDX-License-Identifier: GPL-2.0

//! The safe side of the seam: what the kernel asks for, answered with the protocol core.
//!
//! ```text
//! setsockopt   hooks -> sockopt -> keydb
//! transmit     hooks -> tx -> proto
//! receive      hooks -> rx -> proto
//! /proc        hooks -> netns -> proto::show
//! ```
//!
//! `unsafe` is in [`ffi`] and [`crypto`] (kernel functions), [`hooks`] (entries from C), [`rcu`],
//! [`keydb`] and [`conn`] (what RCU or the stack keeps alive) only.

mod conn;
mod crypto;
pub(crate) mod ffi;
mod hooks;
mod keydb;
mod netns;
mod rcu;
mod rfc9235;
mod rx;
pub(crate) mod selftest;
mod sockopt;
mod traffic;
mod tx;

pub(crate) use ffi::Hooks;
pub(crate) use ffi::Namespaces;
pub(crate) use ffi::SocketTables;
