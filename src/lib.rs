// SPDX-License-Identifier: GPL-2.0

//! TCP-AO (RFC 5925) for Linux: the protocol core, as a library for the host.
//!
//! The module has a root of its own; both roots compile the one [`proto`] folder. This one exists
//! for `cargo test`, which needs no kernel.

#![no_std]

pub mod proto;
