// SPDX-License-Identifier: GPL-2.0

//! Tests of the protocol core. They need no kernel: `cargo test`.
//!
//! Published vectors, the rules of the ABI one by one, and properties over random input. What a
//! property compares with is written here from the rule, and differently from the core.

mod filter;
mod grace;
mod keys;
mod matching;
mod noted;
mod policies;
mod receive;
mod segment;
mod selection;
mod sockopts;
mod support;
mod vectors;
mod vrfs;
mod wire;
