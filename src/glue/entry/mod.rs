// SPDX-License-Identifier: GPL-2.0

//! Entries from C, all but two callbacks that are passed to C where they are needed: each turns what
//! C gives into what safe Rust takes, calls it, and turns the answer back.
//!
//! The contracts are those of `src/shim/rust.h`, and `tao.h` for structures: pointers are valid,
//! structures filled in, and the context is the one that the caller in `src/shim` states.

#![expect(clippy::missing_safety_doc, reason = "said above, for all of them")]

mod conn;
mod net;
mod segment;
mod sockopt;

/// Compiles only if the function has the type that the header says.
macro_rules! declared {
    ($($function:ident),+ $(,)?) => {
        $(const _: () = {
            let _ = if true { $function } else { bindings::$function };
        };)+
    };
}
use declared;
