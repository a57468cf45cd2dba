"""What happens to daemons under policy, and that nothing of it opens a session to anybody.

They are killed, start before their keys and policy are there, lose their keys for a while, begin
with a clock that says 1970, have 200 peers, a path of small packets, or another peer. BIRD with the
kernel's own TCP-AO is at the other end.
"""

import json
import time
from dataclasses import replace
from itertools import permutations

import pytest

from lab import wait_for
from speakers import DOWN
from stage import BOTH, CONNECTS, ENTRIES, HERE, THERE, V4, V6, Narrow, Stage, hour
from tcp_authopt_verify import Status
from tcp_authopt_verify.wire import OPTION_MD5, SYN
from wall import T

pytestmark = pytest.mark.ours

NAMES = ("frr", "gobgp-mptcp", "openbgpd", "bird")
"""Each daemon once."""
AWAY = 2
"""Seconds without a key. TCP sends again at intervals that double, so that the silence is twice as
long at the worst, and the hold time must be longer than that.
"""
PEERS = 200
TABLE = tuple(f"10.{n // 250}.{n % 250}.0/24" for n in range(10000))


@pytest.fixture
def with_sessions(set_stage, last):
    """Gives a stage with a session of each family, both up."""

    def begin(name: str) -> Stage:
        stage = set_stage(name)
        stage.begin([V4, V6], BOTH, last)
        stage.launch()
        stage.up()
        stage.until_signed_with(0)
        return stage

    return begin


@pytest.mark.parametrize("order", permutations(("daemon", *ENTRIES)), ids="-".join)
def test_in_any_order(set_stage, last, record_property, order):
    """The session comes by itself when all is there, and BIRD has refused what was tried before."""
    stage = set_stage("frr")
    stage.begin([V4, V6], BOTH, last, what=())
    stage.there.start(THERE, stage.mirrored, stage.at_peer(0))
    for step in order:
        assert not any(stage.there.session(peering).is_up for peering in stage.mirrored)
        if step == "daemon":
            stage.here.start(HERE, stage.peerings)
        else:
            stage.protect(step)
        time.sleep(1.5)
    stage.up()
    assert bool(stage.unsigned()) == (order.index("daemon") < order.index("policy"))
    stage.end(record_property, tried=True)


@pytest.mark.parametrize("name", NAMES)
def test_killed(with_sessions, record_property, name):
    """It starts again, and has its sessions again; none of it is unsigned."""
    stage = with_sessions(name)
    stage.kill(stage.here.router)
    wait_for(
        "BIRD to notice",
        lambda: [stage.there.session(peering).seconds for peering in stage.mirrored],
        lambda seconds: set(seconds) == {DOWN},
    )
    stage.here.start(HERE, stage.peerings)
    stage.up()
    stage.end(record_property)


@pytest.mark.parametrize("name", NAMES)
def test_key_is_away(with_sessions, record_property, name):
    """Deleted and added again, as some replace a key: silence, and then the same session."""
    stage = with_sessions(name)
    before, start, began = stage.sessions(), len(stage.capture.records), time.monotonic()
    stage.remove(0)
    stage.silent(AWAY)
    stage.protect("keys")
    time.sleep(AWAY)
    stage.unchanged(before, start, began)
    stage.end(record_property)


def test_hole_between_lifetimes(with_sessions, wall, record_property):
    """For as long as the grace: there is no key of the hour that begins."""
    stage = with_sessions("frr")
    stage.remove(1)
    before, start, began = stage.sessions(), len(stage.capture.records), time.monotonic()
    stage.there.take(stage.at_peer(0, 2))
    wall.set(hour(1))
    stage.silent(AWAY)
    wall.set(hour(2))
    stage.until_signed_with(2)
    stage.unchanged(before, start, began)
    stage.end(record_property)


@pytest.mark.parametrize("name", NAMES)
def test_from_md5(set_stage, last, record_property, name):
    """The steps of the operators' page, while the daemon here keeps its password."""
    stage = set_stage(name)
    stage.begin([replace(p, password="before") for p in (V4, V6)], BOTH, last, what=())
    stage.here.start(HERE, stage.peerings)
    stage.there.start(THERE, stage.mirrored, None)
    stage.up()
    before = stage.sessions()
    stage.protect(*ENTRIES)
    time.sleep(2)
    assert {which: s.times for which, s in stage.sessions().items()} == {
        which: s.times for which, s in before.items()
    }
    changed, since = time.monotonic(), stage.capture.look()
    stage.there.take(stage.at_peer(0))
    stage.up()
    record_property("counted", f"down for {time.monotonic() - changed:.1f} s at most")
    opening = [r for r in stage.capture.segments(since) if r.segment.flags & SYN]
    assert opening
    assert {record.status for record in opening} == {Status.SIGNED}
    stage.until_signed_with(0, stage.capture.look())
    stage.end(record_property, tried=True)
    for record in stage.capture.segments():
        assert record.status is Status.SIGNED or record.segment.named(OPTION_MD5), record


def all_up(stage: Stage, count: int) -> None:
    """Waits until so many sessions are up, say both."""
    wait_for(
        f"{count} sessions at BIRD",
        lambda: stage.there.router.ask("show protocols").count("Established"),
        count.__eq__,
    )
    summary = "show bgp ipv4 unicast summary json"
    peers = json.loads(stage.here.router.ask(summary))["peers"].values()
    assert [peer["state"] for peer in peers] == ["Established"] * count


def test_many_at_once(set_stage, last, record_property):
    """A router with many sessions starts again, and all of its peers are there at the same time."""
    stage = set_stage("frr")
    # Else all of them listen on one socket, where keys of one peer with the same ids collide.
    stage.there.option = "strict bind;"
    stage.here.keepalive = stage.there.keepalive = 3
    stage.algorithms = stage.algorithms[:1]
    stage.begin([replace(V4, peer=f"192.0.2.{10 + n}") for n in range(PEERS)], BOTH, last)
    stage.launch()
    all_up(stage, PEERS)
    stage.kill(stage.here.router)
    wait_for(
        "BIRD to notice",
        lambda: stage.there.router.ask("show protocols").count("Established"),
        (0).__eq__,
    )
    began = time.monotonic()
    stage.here.start(HERE, stage.peerings)
    all_up(stage, PEERS)
    record_property("counted", f"{PEERS} sessions after {time.monotonic() - began:.1f} s")
    stage.end(record_property)


@pytest.mark.parametrize("remedy", ["probing", "accept-icmp"])
def test_narrow_path(set_stage, last, record_property, remedy):
    """A large table over a path with a smaller MTU, which a router tells by ICMP, unsigned."""
    stage = set_stage("bird", Narrow(1300, last))
    stage.begin([V4], CONNECTS, last)
    router = stage.here.router
    if remedy == "accept-icmp":
        router.run(stage.command, "require", "any", "port", "179", "accept-icmp")
    stage.launch()
    stage.up()
    before, start, began = stage.sessions(), stage.capture.look(), time.monotonic()
    router.reconfigure(stage.here.configuration(None, TABLE))
    (mirrored,) = stage.mirrored
    if remedy == "probing":
        wait_for("ICMP not to be heeded", lambda: router.counters()["TCPAODroppedIcmps"])
        assert len(stage.there.routes(mirrored)) < len(TABLE)
        router.run("sysctl", "-q", "-w", "net.ipv4.tcp_mtu_probing=1")
    wait_for("the whole table", lambda: len(stage.there.routes(mirrored)), (len(TABLE) + 1).__eq__)
    record_property("counted", f"{len(TABLE)} routes after {time.monotonic() - began:.1f} s")
    stage.unchanged(before, start, began)
    assert bool(router.counters()["TCPAODroppedIcmps"]) == (remedy == "probing")
    stage.end(record_property)


def test_peer_with_another_address(set_stage, last, record_property):
    """A peer is replaced: key and neighbour of another address, and the old ones go."""
    stage = set_stage("frr")
    new = replace(V4, peer="192.0.2.3")
    stage.begin([V4, new], BOTH, last)
    stage.here.start(HERE, stage.peerings[:1])
    stage.there.start(THERE, stage.mirrored[:1], stage.at_peer(0))
    wait_for("the session", lambda: stage.here.session(V4), lambda session: session.is_up)
    stage.there.peerings = stage.mirrored[1:]
    stage.there.take(stage.at_peer(0))
    stage.here.router.ask(
        "configure terminal",
        "router bgp 64511",
        f"no neighbor {V4.peer}",
        f"neighbor {new.peer} remote-as 64496",
        f"neighbor {new.peer} timers connect 1",
        "address-family ipv4 unicast",
        f"neighbor {new.peer} activate",
    )
    for key in stage.keys.pop(stage.peerings.pop(0)):
        stage.delete(key)
    stage.mirrored.pop(0)
    stage.up()
    stage.until_signed_with(0, stage.capture.look())
    stage.end(record_property)


def test_1970(set_stage, last, wall, record_property):
    """No key has begun: nothing is sent at all, until the clock is right."""
    stage = set_stage("frr")
    wall.set(1000)
    stage.begin([V4, V6], BOTH, last)
    stage.launch()
    time.sleep(3)
    assert not any(session.is_up for session in stage.sessions().values())
    own = {peering.own for peering in stage.peerings}
    assert not [record for record in stage.capture.segments() if record.source in own]
    wall.set(T)
    stage.up()
    stage.end(record_property)
