// SPDX-License-Identifier: GPL-2.0

//! The protocol core: TCP-AO (RFC 5925, RFC 5926) without a kernel.
//!
//! Pure functions over bytes and values: no allocation, no clock (time is an argument), no kernel
//! types, no `unsafe`, and nothing that can panic. Keys and packets live with the caller.
//!
//! ```text
//! setsockopt   sockopt::route_set -> mkt::parse_key -> KeySpec::{identity, overlaps, same_mkt}
//! transmit     select::send_and_rnext_key -> conn::isns_and_sne -> kdf::traffic_key (once)
//!              -> wire::AoOption::emit -> segment::MacHead -> mac::MacState
//! receive      wire::parse_auth -> verdict::first_step -> conn::isns_and_sne
//!              -> select::recv_key -> kdf::traffic_key (once) -> segment::MacHead
//!              -> mac::MacState -> mac::tags_equal
//! /proc        show::write_row
//! ```

#![forbid(unsafe_code)]
// Foreign bytes must never panic: in the kernel that is a BUG().
#![deny(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unreachable,
    clippy::unwrap_used
)]
// `pub` is the core's API: the host root exports it, the module's root has no outside.
#![allow(unreachable_pub)]

pub mod addr;
pub mod conn;
pub mod criteria;
pub mod error;
pub mod filter;
pub mod kdf;
pub mod mac;
pub mod mkt;
pub mod noted;
pub mod policy;
pub mod request;
pub mod segment;
pub mod select;
pub mod show;
pub mod sne;
pub mod sockopt;
pub mod uapi;
pub mod verdict;
pub mod vrf;
pub mod wire;
