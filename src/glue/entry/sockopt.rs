// SPDX-License-Identifier: GPL-2.0

//! Entries for socket options.

use kernel::prelude::*;

use super::declared;
use crate::glue::ffi::bindings;
use crate::glue::ffi::to_errno;
use crate::glue::sock::Call;
use crate::glue::sockopt;
use crate::glue::sockopt::Answer;
use crate::proto::error::Error;

declared!(tao_rust_setsockopt, tao_rust_getsockopt,);

fn answer(answer: Result<Answer, Error>) -> c_int {
    match answer {
        Ok(Answer::Done) => 0,
        Ok(Answer::NotOurs) => bindings::TAO_NOT_OURS as c_int,
        Err(err) => to_errno(err),
    }
}

#[no_mangle]
unsafe extern "C" fn tao_rust_setsockopt(call: *mut bindings::tao_sockopt) -> c_int {
    // SAFETY: `call` is filled in.
    answer(sockopt::set(&unsafe { Call::new(&mut *call) }))
}

#[no_mangle]
unsafe extern "C" fn tao_rust_getsockopt(call: *mut bindings::tao_sockopt) -> c_int {
    // SAFETY: `call` is filled in.
    answer(sockopt::get(&mut unsafe { Call::new(&mut *call) }))
}
