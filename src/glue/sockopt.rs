// SPDX-License-Identifier: GPL-2.0

//! Socket options.
//!
//! 1. Whose is the call? 38 to 42 are options of the kernel's own TCP-AO too: [`route_set`],
//!    [`route_get`].
//! 2. Ours need the sysctl.
//! 3. `TCP_AUTHOPT` gives the socket its state ([`set_authopt`]); `TCP_AUTHOPT_KEY` changes the
//!    keys and policies of its namespace ([`set_key`]), and adding a key gives the socket state, too;
//!    `TCP_REPAIR_AUTHOPT` is for checkpoint and restore.
//!
//! Process context; may sleep.

use kernel::prelude::*;
use kernel::sync::rcu;

use super::conn::Conn;
use super::ffi;
use super::ffi::bindings;
use super::keydb::Settling;
use super::netns::Netns;
use super::sock::Call;
use super::sock::SockLock;
use super::state;
use super::state::NewState;
use crate::proto::error::Error;
use crate::proto::mkt::KeySpec;
use crate::proto::policy::PolicySpec;
use crate::proto::request::parse;
use crate::proto::request::Request;
use crate::proto::sockopt::ids_received;
use crate::proto::sockopt::route_get;
use crate::proto::sockopt::route_set;
use crate::proto::sockopt::value_decides;
use crate::proto::sockopt::Owner;
use crate::proto::sockopt::Repair;
use crate::proto::sockopt::Route;
use crate::proto::sockopt::SockFlags;
use crate::proto::uapi;

/// What became of a call.
pub(super) enum Answer {
    Done,
    /// It is the kernel's.
    NotOurs,
}

pub(super) fn set(call: &Call<'_>) -> Result<Answer, Error> {
    let owner = owner(call);
    // No other form is read before the sysctl is.
    let nonzero_past_8 = value_decides(call.optname(), call.optlen(), owner)
        && !call.rest_is_zero(uapi::AUTHOPT_LEN)?;
    match route_set(call.optname(), call.optlen(), nonzero_past_8, owner) {
        Route::Kernel => return Ok(Answer::NotOurs),
        Route::NoProtoOpt => return Err(Error::NoProtoOpt),
        Route::Ours => {}
    }
    if !ffi::enabled() {
        return Err(Error::Perm);
    }
    match call.optname() {
        uapi::TCP_AUTHOPT => set_authopt(call)?,
        uapi::TCP_AUTHOPT_KEY => set_key(call)?,
        _ => set_repair(call)?,
    }
    Ok(Answer::Done)
}

pub(super) fn get(call: &mut Call<'_>) -> Result<Answer, Error> {
    call.get_len()?;
    match route_get(call.optname(), call.optlen(), owner(call)) {
        Route::Kernel => return Ok(Answer::NotOurs),
        Route::NoProtoOpt => return Err(Error::NoProtoOpt),
        Route::Ours => {}
    }
    if !ffi::enabled() {
        return Err(Error::Perm);
    }
    let lock = call.lock();
    if call.optname() == uapi::TCP_AUTHOPT {
        let authopt = state::with_state(&lock, |conn| {
            let emitted = conn.flags().emit(
                conn.is_protected(),
                conn.sent().unwrap_or_default(),
                conn.received().unwrap_or_default(),
            );
            (conn.asked() || conn.is_protected()).then_some(emitted)
        });
        let authopt = authopt.flatten().ok_or(Error::NoEnt)?;
        drop(lock);
        call.copy_out(&authopt)?;
    } else {
        if !call.sock().in_repair() {
            return Err(Error::Perm);
        }
        let repair = state::with_state(&lock, |conn| state::repair(&lock, conn).emit());
        let repair = repair.ok_or(Error::NoEnt)?;
        drop(lock);
        call.copy_out(&repair)?;
    }
    Ok(Answer::Done)
}

/// Without the socket lock, so that it may not hold any more when that is taken: state of the
/// kernel's that another thread has added is then met by [`state::with_state`], which finds none of
/// ours beside it, and by [`NewState::prepare`], which fails.
fn owner(call: &Call<'_>) -> Owner {
    state::forget_leftover(call.sock());
    let _guard = rcu::read_lock();
    if call.has_native() {
        Owner::Native
    } else if state::has_state(call.sock()) {
        Owner::Ours
    } else {
        Owner::Neither
    }
}

/// Gives the socket its state, or changes the flags that it has. A socket that has connected
/// already stays as it is: its state says so, no more. In repair what was read from a protected
/// connection also tells what its peer has asked for.
fn set_authopt(call: &Call<'_>) -> Result<(), Error> {
    let mut authopt = [0; uapi::AUTHOPT_LEN];
    call.copy_in(&mut authopt)?;
    let flags = SockFlags::parse(&authopt)?;
    ffi::wake()?;
    let lock = call.lock();
    let had_state = state::with_state(&lock, |conn| {
        conn.set_flags(flags);
        let ids = ids_received(&authopt);
        let restores = conn.is_protected() && call.sock().in_repair();
        if restores && ids.is_some() {
            conn.told(ids);
        }
    })
    .is_some();
    if had_state {
        return Ok(());
    }
    new_state(call, &lock, flags)?.give();
    Ok(())
}

/// State for the socket, which has none.
fn new_state<'a>(
    call: &Call<'_>,
    lock: &'a SockLock<'a>,
    flags: SockFlags,
) -> Result<NewState<'a>, Error> {
    let net = state::netns_of(call.sock());
    let conn = Conn::new(net, Some(flags), call.sock(), GFP_KERNEL_ACCOUNT);
    let conn = conn.ok_or(Error::NoMem)?;
    let open = !matches!(
        u32::from(call.sock().state()),
        bindings::TCP_CLOSE | bindings::TCP_LISTEN
    );
    NewState::prepare(lock, conn, open)
}

fn set_key(call: &Call<'_>) -> Result<(), Error> {
    if !call.may_change_keys() {
        return Err(Error::Perm);
    }
    let family = call.family().ok_or(Error::Inval)?;
    let mut key = Secret([0; uapi::KEY_LEN]);
    call.copy_in(&mut key.0)?;
    let request = parse(&key.0, family)?;
    let net = state::netns_of(call.sock());
    let settling = match request {
        Request::Add(spec) => add_key(call, &net, &spec, spec.master_key(&key.0))?,
        Request::Delete(identity, vrf) => net.keys.delete(&identity, vrf)?,
        Request::AddPolicy(spec) => add_policy(call, &net, &spec)?,
        Request::DeletePolicy(criteria, vrf) => net.keys.delete_policy(&criteria, vrf)?,
    };
    // Not with the socket locked: that would hold up its segments.
    settling.wait();
    Ok(())
}

/// Adds a key, and gives the socket the state that `TCP_AUTHOPT` with all zeros would give it; or
/// does neither. A socket that has asked before is not locked for this.
fn add_key(call: &Call<'_>, net: &Netns, spec: &KeySpec, key: &[u8]) -> Result<Settling, Error> {
    let add = || net.keys.add(spec, key, net.max_keys(), net.may_overlap());
    if state::has_asked(call.sock()) {
        return add();
    }
    ffi::wake()?;
    let lock = call.lock();
    let state = match state::with_state(&lock, |_| ()) {
        Some(()) => None,
        None => Some(new_state(call, &lock, SockFlags::default())?),
    };
    let settling = add()?;
    match state {
        Some(state) => state.give(),
        // Only a policy has protected it so far.
        None => {
            state::with_state(&lock, |conn| conn.set_flags(conn.flags()));
        }
    }
    Ok(settling)
}

/// Adds a policy. The socket is as it was: whoever says what others must do has asked for nothing.
fn add_policy(call: &Call<'_>, net: &Netns, spec: &PolicySpec) -> Result<Settling, Error> {
    ffi::wake()?;
    state::make_stand_in(call.sock())?;
    net.keys.add_policy(spec, net.max_keys())
}

fn set_repair(call: &Call<'_>) -> Result<(), Error> {
    if call.optlen() != uapi::REPAIR_LEN {
        return Err(Error::Fault);
    }
    let mut repair = [0; uapi::REPAIR_LEN];
    call.copy_in(&mut repair)?;
    let lock = call.lock();
    if u32::from(call.sock().state()) != bindings::TCP_ESTABLISHED {
        return Err(Error::Perm);
    }
    state::with_state(&lock, |conn| {
        // It has no ISNs that mean anything, and would go on unsigned.
        if !conn.is_protected() {
            return Err(Error::NoEnt);
        }
        if !call.sock().in_repair() {
            return Err(Error::Perm);
        }
        state::set_repair(&lock, conn, &Repair::parse(&repair));
        conn.know_isns();
        Ok(())
    })
    .ok_or(Error::NoEnt)?
}

/// Wiped when it goes.
struct Secret([u8; uapi::KEY_LEN]);

impl Drop for Secret {
    fn drop(&mut self) {
        ffi::wipe(&mut self.0);
    }
}
