// SPDX-License-Identifier: GPL-2.0

//! Policies: how `TCP_AUTHOPT_KEY` says them, and which one decides.

use proptest::collection::vec;
use proptest::prelude::*;
use tcp_authopt::proto::addr::Family;
use tcp_authopt::proto::criteria::Criteria;
use tcp_authopt::proto::error::Error;
use tcp_authopt::proto::policy::wanted;
use tcp_authopt::proto::policy::PolicySpec;
use tcp_authopt::proto::policy::Require;
use tcp_authopt::proto::policy::Want;
use tcp_authopt::proto::request::parse;
use tcp_authopt::proto::request::Request;
use tcp_authopt::proto::uapi::key_flag::*;
use tcp_authopt::proto::uapi::KEY_LEN;
use tcp_authopt::proto::vrf::Given;

use crate::matching::matches;
use crate::support::any_key;
use crate::support::any_peer;
use crate::support::key;
use crate::support::peer;
use crate::support::Seen;
use crate::support::With;
use crate::support::ANY;

const MILD: Require = Require {
    strict: false,
    accept_icmp: false,
};

/// A `struct tcp_authopt_key` of nothing but flags, with a service port of 179 in it.
fn raw(flags: u32) -> [u8; KEY_LEN] {
    let mut raw = [0; KEY_LEN];
    raw[..4].copy_from_slice(&flags.to_ne_bytes());
    raw[276..278].copy_from_slice(&179u16.to_ne_bytes());
    raw
}

fn asked(flags: u32) -> Result<Request, Error> {
    parse(&raw(flags), Family::V4)
}

fn want(flags: u32) -> Result<Want, Error> {
    match asked(flags)? {
        Request::AddPolicy(spec) => {
            assert_eq!((spec.flags, spec.criteria), (flags, ANY));
            Ok(spec.want)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_policy_wants() {
    let require = |strict, accept_icmp| {
        Ok(Want::Require(Require {
            strict,
            accept_icmp,
        }))
    };
    assert_eq!(want(REQUIRE), require(false, false));
    assert_eq!(want(REQUIRE | STRICT), require(true, false));
    assert_eq!(want(REQUIRE | ACCEPT_ICMP), require(false, true));
    assert_eq!(want(REQUIRE | STRICT | ACCEPT_ICMP), require(true, true));
    assert_eq!(want(EXEMPT), Ok(Want::Exempt));
}

#[test]
fn what_no_policy_is() {
    for flags in [
        REQUIRE | EXEMPT,
        STRICT,
        ACCEPT_ICMP,
        EXEMPT | STRICT,
        EXEMPT | ACCEPT_ICMP,
    ] {
        assert_eq!(asked(flags), Err(Error::Inval), "{flags:#x}");
    }
    for of_a_key in [
        EXCLUDE_OPTS,
        NOSEND,
        NORECV,
        SEND_LIFETIME_BEGIN,
        SEND_LIFETIME_END,
        RECV_LIFETIME_BEGIN,
        RECV_LIFETIME_END,
    ] {
        for flags in [REQUIRE, EXEMPT] {
            assert_eq!(asked(flags | of_a_key), Err(Error::Inval), "{of_a_key:#x}");
        }
    }
    // Ids, algorithm, length of a key.
    for at in 4..8 {
        for flags in [REQUIRE, EXEMPT] {
            let mut raw = raw(flags);
            raw[at] = 1;
            assert_eq!(parse(&raw, Family::V4), Err(Error::Inval), "{at}");
        }
    }
}

#[test]
fn criteria_of_a_policy() {
    let criteria = Criteria {
        port: Some(179),
        ..ANY
    };
    match asked(REQUIRE | SERVICE_PORT) {
        Ok(Request::AddPolicy(spec)) => {
            assert_eq!((spec.criteria, spec.vrf), (criteria, Given::Any))
        }
        other => panic!("{other:?}"),
    }
    let mut v6 = raw(REQUIRE | ADDR_BIND);
    v6[88..90].copy_from_slice(&10u16.to_ne_bytes());
    assert_eq!(parse(&v6, Family::V4), Err(Error::Inval));
    assert!(parse(&v6, Family::V6).is_ok());
    assert_eq!(asked(EXEMPT | PREFIXLEN), Err(Error::Inval));
}

/// By its criteria, and either flag: what it wants is not part of its identity.
#[test]
fn deleting_a_policy() {
    for kind in [REQUIRE, EXEMPT, REQUIRE | EXEMPT, REQUIRE | STRICT] {
        let delete = Request::DeletePolicy(ANY, Given::Any);
        assert_eq!(asked(DEL | kind), Ok(delete), "{kind:#x}");
        assert_eq!(asked(DEL | kind | PREFIXLEN), Err(Error::NoEnt));
    }
    assert!(matches!(asked(DEL), Ok(Request::Delete(..))));
}

fn policy(criteria: Criteria, want: Want) -> PolicySpec {
    PolicySpec {
        flags: 0,
        criteria,
        vrf: Given::Any,
        mapped: false,
        want,
    }
}

/// As the module looks them up.
fn decided(policies: &[PolicySpec], seen: &Seen) -> Option<Require> {
    let mut shapes: Vec<_> = policies.iter().map(|it| it.criteria.shape()).collect();
    shapes.sort();
    shapes.dedup();
    let pair = seen.pair().for_policies();
    let criteria = shapes
        .iter()
        .flat_map(|shape| shape.criteria_of(&pair))
        .flatten();
    let found = criteria.flat_map(|it| policies.iter().filter(move |policy| policy.criteria == it));
    wanted(found)
}

#[test]
fn the_most_specific_one_decides() {
    let net = key(0, 0).remote("10.0.0.0/8").criteria;
    let host = key(0, 0).remote("10.0.0.1/32").criteria;
    for (net_wants, host_wants, of_host, of_other) in [
        (Want::Require(MILD), Want::Exempt, None, Some(MILD)),
        (Want::Exempt, Want::Require(MILD), Some(MILD), None),
    ] {
        let policies = [policy(net, net_wants), policy(host, host_wants)];
        assert_eq!(decided(&policies, &peer("10.0.0.1")), of_host);
        assert_eq!(decided(&policies, &peer("10.0.0.2")), of_other);
        assert_eq!(decided(&policies, &peer("11.0.0.1")), None);
    }
}

/// A connection has two ports: where one is exempt and the other is not, it is not.
#[test]
fn of_two_ports_the_required_one_counts() {
    let [bgp, other] = [179, 1024].map(|port| key(0, 0).port(port).criteria);
    for (of_bgp, of_other) in [
        (Want::Require(MILD), Want::Exempt),
        (Want::Exempt, Want::Require(MILD)),
    ] {
        for ports in [[179, 1024], [1024, 179]] {
            let policies = [policy(bgp, of_bgp), policy(other, of_other)];
            let seen = Seen {
                ports,
                ..peer("10.0.0.1")
            };
            assert_eq!(decided(&policies, &seen), Some(MILD));
        }
    }
}

/// A policy for `::/0` says nothing of IPv4, whatever the socket: a key for it does.
#[test]
fn ipv4_is_in_no_ipv6_prefix() {
    for net in ["::/0", "::fffe:0:0/95"] {
        let policies = [policy(key(0, 0).remote(net).criteria, Want::Require(MILD))];
        for v4 in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(decided(&policies, &peer(v4)), None, "{net} {v4}");
        }
    }
    let all = [policy(
        key(0, 0).remote("0.0.0.0/0").criteria,
        Want::Require(MILD),
    )];
    for v4 in ["10.0.0.1", "::ffff:10.0.0.1"] {
        assert_eq!(decided(&all, &peer(v4)), Some(MILD));
    }
}

fn any_want() -> impl Strategy<Value = Want> {
    let require = (any::<bool>(), any::<bool>()).prop_map(|(strict, accept_icmp)| {
        Want::Require(Require {
            strict,
            accept_icmp,
        })
    });
    prop_oneof![require, Just(Want::Exempt)]
}

proptest! {
    /// What is decided is what one of the most specific matches wants; nothing, where none requires.
    #[test]
    fn decisions(policies in vec((any_key(), any_want()), 0..30), seen in any_peer()) {
        let mut specs: Vec<PolicySpec> = Vec::new();
        for (key, want) in policies {
            let spec = policy(key.criteria, want);
            specs.retain(|other| other.criteria != spec.criteria);
            specs.push(spec);
        }
        let as_v4 = Seen {
            addr: seen.addr.unmapped(),
            local: seen.local.unmapped(),
            ..seen
        };
        let same_family = as_v4.addr.family() == as_v4.local.family();
        prop_assume!(same_family);
        let found: Vec<_> = specs.iter().filter(|it| matches(&it.criteria, &as_v4)).collect();
        let best = found.iter().map(|it| it.criteria.shape()).min();
        let best: Vec<_> = found.iter().filter(|it| Some(it.criteria.shape()) == best).collect();
        let expected: Vec<_> = best.iter().filter(|it| it.want != Want::Exempt).collect();
        let decided = decided(&specs, &seen);
        match decided {
            None => prop_assert!(expected.is_empty()),
            Some(require) => {
                prop_assert!(expected.iter().any(|it| it.want == Want::Require(require)));
            }
        }
    }
}
