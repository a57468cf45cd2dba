"""Routing daemons as Debian has them, which policies protect, and BIRD at the other end.

Nothing at all is changed in them, and none has been told of TCP-AO. BIRD has the kernel's own.
Each of the sessions is of both families at once.
"""

import os
import time
from dataclasses import replace
from itertools import pairwise

import pytest

from lab import Router, run, wait_for
from speakers import DAEMONS, FrrLdpd, GoBgpdMptcp
from stage import (
    ALGORITHMS,
    BOTH,
    CONNECTS,
    ENTRIES,
    HERE,
    LDP,
    LISTENS,
    THERE,
    V4,
    V6,
    Stage,
    hour,
)
from tcp_authopt_verify.wire import ACK, SYN
from wall import T, Wall

pytestmark = pytest.mark.ours

WHOLE = bool(os.environ.get("TAO_DAEMONS"))
"""Whether all of the matrix is to run, and not one session of each daemon."""

LINK_LOCAL = replace(V6, own="fe80::1", peer="fe80::2")
QUICK = [("frr", BOTH), ("gobgp-mptcp", LISTENS), ("openbgpd", CONNECTS), ("bird", LISTENS)]
ALL = [(name, way) for name in DAEMONS for way in (CONNECTS, LISTENS, BOTH)]


def opened(records) -> set[str]:
    """Whose connections have been opened: their SYN was answered, and they have answered that."""
    asked, answered, open_ = {}, set(), set()
    for record in records:
        segment = record.segment
        ends = (segment.src, segment.sport), (segment.dst, segment.dport)
        kind = segment.flags & (SYN | ACK)
        if kind == SYN:
            asked[ends] = record.source
        elif kind == SYN | ACK:
            answered.add(ends[::-1])
        elif ends in asked and ends in answered:
            open_.add(asked[ends])
    return open_


NO_SYN = """
table inet held {
	chain input {
		type filter hook input priority 0;
		tcp dport 179 tcp flags syn / syn,ack drop
	}
}
"""


def mptcp_sockets(router: Router) -> int:
    """How many sockets of MPTCP there are."""
    rows = (line.split() for line in router.run("cat", "/proc/net/protocols").splitlines())
    return sum(int(row[2]) for row in rows if row[0].startswith("MPTCP"))


def play(stage: Stage, way: str, wall: Wall, record_property) -> None:
    """A session from its beginning to its end."""
    times = [time.monotonic()]
    if way == BOTH:
        for router in stage.routers:
            router.run("nft", "-f", "-", text=NO_SYN)
    stage.launch()
    if isinstance(stage.here, GoBgpdMptcp):
        assert mptcp_sockets(stage.here.router)
    times.append(time.monotonic())
    if way == BOTH:
        # Each has sent one that has not arrived, and sends it again when it can.
        everybody = {end for p in stage.peerings for end in (p.own, p.peer)}
        wait_for(
            "a SYN of everybody",
            lambda: {r.source for r in stage.capture.signed() if r.segment.is_syn},
            everybody.__eq__,
        )
        for router in stage.routers:
            router.run("nft", "delete", "table", "inet", "held")
    stage.up()
    times.append(time.monotonic())
    stage.until_signed_with(0)
    allowed = {
        CONNECTS: {peering.own for peering in stage.peerings},
        LISTENS: {peering.peer for peering in stage.peerings},
    }
    if way != BOTH:
        assert opened(stage.capture.signed()) == allowed[way]
    stage.roll(wall)
    times.append(time.monotonic())
    stage.end(record_property)
    times.append(time.monotonic())
    steps = zip(("start", "up", "rolled", "ended"), pairwise(times), strict=True)
    print(", ".join(f"{what} {end - begin:.1f} s" for what, (begin, end) in steps))


@pytest.mark.parametrize(("name", "way"), ALL if WHOLE else QUICK)
def test_session(set_stage, last, wall, record_property, name, way):
    """IPv4 and IPv6 at once; this end connects, or the other, or both, at the same time."""
    stage = set_stage(name)
    stage.begin([V4, V6], way, last)
    play(stage, way, wall, record_property)


if WHOLE:

    @pytest.mark.parametrize("way", [CONNECTS, LISTENS])
    @pytest.mark.parametrize("name", ["frr", "bird"])
    def test_link_local(set_stage, last, wall, record_property, name, way):
        """The peers have no other addresses.

        GoBGP has such sessions, too, but announces routes in them with a next hop of zeros.
        """
        stage = set_stage(name)
        stage.begin([replace(LINK_LOCAL, interface="to-there")], way, last)
        play(stage, way, wall, record_property)

    @pytest.mark.parametrize(
        ("name", "way"),
        [(name, way) for name in ("frr", "bird") for way in (CONNECTS, LISTENS)]
        + [("gobgp", CONNECTS)],
    )
    def test_vrf(set_stage, last, wall, record_property, name, way):
        """Policy and keys of a VRF, which the daemon is told to work in."""
        stage = set_stage(name)
        router = stage.here.router
        router.ip("link", "add", "red", "type", "vrf", "table", "100")
        router.ip("link", "set", "red", "up")
        router.ip("link", "set", "to-there", "master", "red")
        stage.begin([replace(V4, vrf="red"), replace(V6, vrf="red")], way, last)
        play(stage, way, wall, record_property)


LABELS = {
    "v4": (
        replace(V4, net="203.0.113.1/32", peer_net="198.51.100.1/32"),
        ["203.0.113.1{}/32", "198.51.100.1{}/32"],
    ),
    "v6": (
        replace(V6, net="2001:db8:1::1/128", peer_net="2001:db8:2::1/128"),
        ["2001:db8:1::1{}/128", "2001:db8:2::1{}/128"],
    ),
}
"""Of which addresses, and of which others later."""


@pytest.mark.parametrize("family", ["v4", "v6"] if WHOLE else ["v4"])
def test_ldp(command, directory, last, wall, record_property, family):
    """FRR's ldpd with itself, of which both ends are protected by policy; hellos are of UDP."""
    wall.set(T)
    run("modprobe", "mpls_router")
    stage = Stage(FrrLdpd("here", directory), FrrLdpd("there", directory), command, last)
    peering, others = LABELS[family]
    stage.begin([peering], BOTH, last, LDP)
    stage.protect(*ENTRIES, mirrored=True)
    for (speaker, (mine,)), device in zip(stage.sides(), ("to-there", "to-here"), strict=True):
        router, speaker.device = speaker.router, device
        mpls = ("net.mpls.platform_labels=1000", f"net.mpls.conf.{device}.input=1")
        router.run("sysctl", "-q", "-w", "net.ipv6.conf.lo.disable_ipv6=0", *mpls)
        router.ip("address", "add", mine.net, "dev", "lo")
    stage.here.start(HERE, stage.peerings)
    stage.there.start(THERE, stage.mirrored)
    stage.up()
    stage.until_signed_with(0)
    before, start, began = stage.sessions(), len(stage.capture.records), time.monotonic()
    for number in range(1, len(ALGORITHMS)):
        wall.set(hour(number))
        # Something to be said, by one after the other: an address, and a label for it.
        ears = reversed(stage.sides())
        for router, (speaker, (its,)), other in zip(stage.routers, ears, others, strict=True):
            router.ip("address", "add", other.format(number), "dev", "lo")
            stage.await_route(speaker, its, other.format(number))
        stage.until_signed_with(number)
    stage.unchanged(before, start, began)
    stage.end(record_property)
