// SPDX-License-Identifier: GPL-2.0

//! TCP-AO (RFC 5925) as a loadable module.
//!
//! This is the kernel's root; `lib.rs` is the host's. Both compile the protocol core in `proto`.

mod glue;
mod proto;

use kernel::prelude::*;

module! {
    type: TcpAuthopt,
    name: "tcp_authopt",
    authors: ["The tcp-authopt authors"],
    description: "TCP Authentication Option (RFC 5925) with keys per network namespace",
    license: "GPL",
}

/// What the module has set up, in the order in which it is taken down.
struct TcpAuthopt {
    _hooks: glue::Hooks,
    _tables: glue::SocketTables,
    _net: glue::Namespaces,
}

impl kernel::Module for TcpAuthopt {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        glue::selftest::run()?;
        let net = glue::Namespaces::register()?;
        let tables = glue::SocketTables::new()?;
        let hooks = glue::Hooks::attach()?;
        Ok(Self {
            _hooks: hooks,
            _tables: tables,
            _net: net,
        })
    }
}
