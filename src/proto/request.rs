// SPDX-License-Identifier: GPL-2.0

//! `TCP_AUTHOPT_KEY`: what a `struct tcp_authopt_key` asks for.

use super::addr::Addr;
use super::addr::Family;
use super::addr::Prefix;
use super::criteria::Criteria;
use super::error::Error;
use super::mac::Algorithm;
use super::mkt::Identity;
use super::mkt::KeySpec;
use super::mkt::Lifetime;
use super::policy::PolicySpec;
use super::policy::Require;
use super::policy::Want;
use super::uapi;
use super::uapi::field;
use super::uapi::key_at;
use super::uapi::key_flag;
use super::vrf::Given;
use super::vrf::Name;
use super::wire::KeyId;

/// What `TCP_AUTHOPT_KEY` asks for: a key, or a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Delete the key of this identity, in the VRF that is given.
    Delete(Identity, Given),
    /// Add this key, or replace the one of its identity, in the VRF that it means.
    Add(KeySpec),
    /// Delete the policy with these criteria, in the VRF that is given.
    DeletePolicy(Criteria, Given),
    /// Add this policy, or replace the one with its criteria, in the VRF that it means.
    AddPolicy(PolicySpec),
}

/// Reads a `struct tcp_authopt_key` given to a socket of family `socket`.
///
/// A field whose flag is unset is ignored. The master key stays in `key`: see
/// [`KeySpec::master_key`]. Which VRF has the interface index or the name it does not know: that VRF
/// is [`VrfId::UNKNOWN`].
///
/// # Errors
///
/// [`Error::NoEnt`] for a deletion that names what no key can be, [`Error::Inval`] for all else. A
/// deletion minds unknown flags, reserved bytes and the key length, and after those nothing but its
/// identity.
pub fn parse(key: &[u8; uapi::KEY_LEN], socket: Family) -> Result<Request, Error> {
    let flags = u32::from_ne_bytes(field(key, 0));
    let [send_id, recv_id, alg, key_len] = field(key, 4);
    let has = |flag| flags & flag != 0;
    let mut reserved = key_at::RESERVED
        .into_iter()
        .flat_map(|range| key.get(range));
    if flags & !key_flag::KNOWN != 0
        || usize::from(key_len) > uapi::MAX_MASTER_KEY_LEN
        || reserved.any(|bytes| bytes.iter().any(|byte| *byte != 0))
    {
        return Err(Error::Inval);
    }

    let given = parse_criteria(key, flags);
    let (send_id, recv_id) = (KeyId(send_id), KeyId(recv_id));
    if has(key_flag::DEL) {
        let given = given.ok_or(Error::NoEnt)?;
        if has(key_flag::REQUIRE) || has(key_flag::EXEMPT) {
            return Ok(Request::DeletePolicy(given.criteria, given.vrf));
        }
        let identity = Identity {
            send_id,
            recv_id,
            criteria: given.criteria,
            prefixlen_given: has(key_flag::PREFIXLEN),
        };
        return Ok(Request::Delete(identity, given.vrf));
    }

    let given = given.ok_or(Error::Inval)?;
    if given.family.is_some_and(|family| family != socket) {
        return Err(Error::Inval);
    }
    if flags & key_flag::POLICY != 0 {
        let is_bare = [send_id.0, recv_id.0, alg, key_len] == [0; 4];
        let want = parse_want(flags).filter(|_| is_bare).ok_or(Error::Inval)?;
        return Ok(Request::AddPolicy(PolicySpec {
            flags,
            criteria: given.criteria,
            vrf: given.vrf,
            mapped: given.mapped,
            want,
        }));
    }
    let alg = Algorithm::try_from(alg)?;
    let time = |flag, at| has(flag).then(|| u64::from_ne_bytes(field(key, at)));
    let send_lifetime = Lifetime {
        begin: time(key_flag::SEND_LIFETIME_BEGIN, key_at::SEND_LIFETIME_BEGIN),
        end: time(key_flag::SEND_LIFETIME_END, key_at::SEND_LIFETIME_END),
    };
    let recv_lifetime = Lifetime {
        begin: time(key_flag::RECV_LIFETIME_BEGIN, key_at::RECV_LIFETIME_BEGIN),
        end: time(key_flag::RECV_LIFETIME_END, key_at::RECV_LIFETIME_END),
    };
    let empty = |lifetime: Lifetime| lifetime.first() > lifetime.last();
    if empty(send_lifetime) || empty(recv_lifetime) {
        return Err(Error::Inval);
    }
    Ok(Request::Add(KeySpec {
        flags,
        send_id,
        recv_id,
        alg,
        key_len,
        criteria: given.criteria,
        vrf: given.vrf,
        mapped: given.mapped,
        send_lifetime,
        recv_lifetime,
    }))
}

/// What a policy wants; `None` if its flags do not say one thing, or if there are some of a key.
fn parse_want(flags: u32) -> Option<Want> {
    let has = |flag| flags & flag != 0;
    let require = Require {
        strict: has(key_flag::STRICT),
        accept_icmp: has(key_flag::ACCEPT_ICMP),
    };
    match flags & !key_flag::CRITERIA & !(key_flag::STRICT | key_flag::ACCEPT_ICMP) {
        key_flag::REQUIRE => Some(Want::Require(require)),
        key_flag::EXEMPT if !require.strict && !require.accept_icmp => Some(Want::Exempt),
        _ => None,
    }
}

/// Criteria, and the form in which they were given.
struct GivenCriteria {
    criteria: Criteria,
    vrf: Given,
    /// That of the addresses; `None` if there are none.
    family: Option<Family>,
    /// They are IPv4 addresses, in the form of IPv6.
    mapped: bool,
}

/// The criteria in a `struct tcp_authopt_key`. `None` if no key can have them: an address that is
/// neither IPv4 nor IPv6, a prefix out of range, with host bits, or of no address, two addresses of
/// which no connection has both, port 0, a name that no VRF has, two ways of saying which VRF.
fn parse_criteria(key: &[u8; uapi::KEY_LEN], flags: u32) -> Option<GivenCriteria> {
    let has = |flag| flags & flag != 0;
    let vrf = match (has(key_flag::IFINDEX), has(key_flag::VRF_NAME)) {
        (true, true) => return None,
        (true, false) => match u32::from_ne_bytes(field(key, key_at::IFINDEX)) {
            0 => Given::Outside,
            index => Given::Index(index),
        },
        (false, true) => Given::Named(Name::parse(field(key, key_at::VRF))?),
        (false, false) => Given::Any,
    };

    let family = Family::from_af(u16::from_ne_bytes(field(key, key_at::ADDR)));
    let prefix = |addr_flag, at_v4, at_v6, len_flag, len_at| {
        if !has(addr_flag) {
            return (!has(len_flag)).then_some(None);
        }
        let family = family?;
        let addr = match family {
            Family::V4 => Addr::v4(field(key, at_v4)),
            Family::V6 => Addr::v6(field(key, at_v6)),
        };
        let len = if has(len_flag) {
            u8::try_from(i32::from_ne_bytes(field(key, len_at))).ok()?
        } else {
            family.bits()
        };
        Some(Some(Prefix::new(addr, len)?))
    };
    let remote = prefix(
        key_flag::ADDR_BIND,
        key_at::ADDR_V4,
        key_at::ADDR_V6,
        key_flag::PREFIXLEN,
        key_at::PREFIXLEN,
    )?;
    let local = prefix(
        key_flag::LOCAL_ADDR,
        key_at::LOCAL,
        key_at::LOCAL,
        key_flag::LOCAL_PREFIXLEN,
        key_at::LOCAL_PREFIXLEN,
    )?;
    let family_of = |prefix: Option<Prefix>| prefix.map(|it| it.addr().family());
    let families = (family_of(remote), family_of(local));
    if matches!(families, (Some(remote), Some(local)) if remote != local) {
        return None;
    }

    let port =
        has(key_flag::SERVICE_PORT).then(|| u16::from_ne_bytes(field(key, key_at::SERVICE_PORT)));
    if port == Some(0) {
        return None;
    }
    let criteria = Criteria {
        vrf: vrf.in_criteria(),
        remote,
        local,
        port,
    };
    let kept = families.0.or(families.1);
    Some(GivenCriteria {
        criteria,
        vrf,
        family: kept.and(family),
        mapped: kept.is_some() && kept != family,
    })
}
