"""Routing daemons as Debian has them, which policies protect, and BIRD at the other end.

Nothing at all is changed in them, and none has been told of TCP-AO. BIRD has the kernel's own.
Each of the sessions is of both families at once.
"""

import os
import secrets
import subprocess
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import failed
from lab import REPO, Capture, Mkt, Router, cable, run, wait_for
from speakers import (
    BirdSpeaker,
    FrrBgpd,
    FrrLdpd,
    GoBgpd,
    GoBgpdMptcp,
    NativeBird,
    OpenBgpdSpeaker,
    Peering,
    Speaker,
)
from tcp_authopt_verify.wire import ACK, FIN, RST, SYN
from wall import T, Wall

pytestmark = pytest.mark.ours

WHOLE = bool(os.environ.get("TAO_DAEMONS"))
"""Whether all of the matrix is to run, and not one session of each daemon."""

HERE, THERE = "192.0.2.1", "192.0.2.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"
V4 = Peering(HERE, THERE, "203.0.113.0/24", "198.51.100.0/24")
V6 = Peering(HERE6, THERE6, "2001:db8:1::/48", "2001:db8:2::/48")
LINK_LOCAL = replace(V6, own="fe80::1", peer="fe80::2")
LATER = ("198.51.100.128/25", "2001:db8:2:1::/64")

BGP, LDP = 179, 646

BOTH, CONNECTS, LISTENS = "collision", "active", "passive"
"""What the daemon under policy does."""

DAEMONS = {
    "frr": FrrBgpd,
    "gobgp": GoBgpd,
    "gobgp-mptcp": GoBgpdMptcp,
    "openbgpd": OpenBgpdSpeaker,
    "bird": BirdSpeaker,
}
QUICK = [("frr", BOTH), ("gobgp-mptcp", LISTENS), ("openbgpd", CONNECTS), ("bird", LISTENS)]
ALL = [(name, way) for name in DAEMONS for way in (CONNECTS, LISTENS, BOTH)]

ALGORITHMS = ("SHA1", "AES128", "SHA256", "SHA1")
HOUR = 3600
MARGIN = 600
"""For how long a key is accepted before and after it is sent."""


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The key command."""
    program = tmp_path_factory.mktemp("tools") / "tcp-authopt-key"
    source, include = REPO / "tools/tcp-authopt-key.c", REPO / "include/uapi"
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{include}", "-o", program, source], check=True)
    return program


def hour(number: int) -> int:
    """When the key of this number begins to be sent; the first one has begun before."""
    return T + number * HOUR if number else T - HOUR


def keys_for(peering: Peering) -> list[Mkt]:
    """Four keys, one after the other."""
    return [
        Mkt(f"{peering.peer} {n}", peering.peer, 61 + n, 84 + n, name, secrets.token_hex(16))
        for n, name in enumerate(ALGORITHMS)
    ]


class Stage:
    """A daemon under policy on one router, its peer on another, and a capture between them."""

    def __init__(self, here: Speaker, there: Speaker, command: Path, last: ExitStack) -> None:
        self.here, self.there, self.command = here, there, command
        self.routers = (here.router, there.router)
        for router in self.routers:
            last.callback(run, "ip", "netns", "delete", router.name)
            last.callback(self.kill, router)
        cable(here.router, "to-there", there.router, "to-here")

    @staticmethod
    def kill(router: Router) -> None:
        for daemon in router.daemons:
            daemon.kill()
            daemon.wait(20)

    def begin(self, peerings: list[Peering], way: str, last: ExitStack, port: int = BGP) -> None:
        """Adds addresses, after the capture has begun, and the policy with its keys."""
        self.peerings = [replace(peering, connects=way != LISTENS) for peering in peerings]
        self.mirrored = [replace(p.mirrored("to-here"), connects=way != CONNECTS) for p in peerings]
        self.keys = {peering: keys_for(peering) for peering in self.peerings}
        self.capture = Capture(
            self.here.router,
            "to-there",
            tuple(key.for_verifier(p.own) for p, keys in self.keys.items() for key in keys),
        )
        last.callback(self.capture.tcpdump.kill)
        for (_, those), router, device, link_local in zip(
            self.sides(), self.routers, ("to-there", "to-here"), ("fe80::1", "fe80::2"), strict=True
        ):
            router.ip("link", "set", device, "addrgenmode", "none")
            for name in ("accept_dad=0", "disable_ipv6=0"):
                router.run("sysctl", "-q", "-w", f"net.ipv6.conf.{device}.{name}")
            # FRR wants a link-local address beside others, for next hops.
            for address in {link_local, *(peering.own for peering in those)}:
                length = 64 if ":" in address else 24
                router.ip("address", "add", f"{address}/{length}", "dev", device)
        self.protect(self.here.router, port, vrf=peerings[0].vrf)

    def protect(self, router: Router, port: int, *, vrf: str = "", mirrored: bool = False) -> None:
        """A policy, and the keys, each of which is sent for an hour, from a file as at boot."""
        where = f"port {port}{f' vrf {vrf}' if vrf else ''}"
        lines = [f"require any {where}"]
        for peering, keys in self.keys.items():
            for number, key in enumerate(keys):
                peer, ids = key.peer, (key.frr_id, key.peer_id)
                if mirrored:
                    peer, ids = peering.own, ids[::-1]
                secret = router.directory / f"{router.name}.{len(lines)}.key"
                secret.touch(mode=0o600)
                secret.write_text(key.secret)
                begin, end = hour(number), hour(number + 1)
                lines.append(
                    f"add {peer} {where} send-id {ids[0]} recv-id {ids[1]}"
                    f" algorithm {key.algorithm} key-file {secret}"
                    f" send-from @{begin} send-until @{end - 1}"
                    f" accept-from @{begin - MARGIN} accept-until @{end + MARGIN}"
                )
        entries = router.directory / f"{router.name}.entries"
        entries.write_text("\n".join([*lines, ""]))
        router.run(self.command, "load", entries)

    def at_peer(self, *numbers: int) -> dict[str, str]:
        """BIRD's keys of these numbers, the last of which is the one to be used."""
        return {
            peering.own: " ".join(
                keys[number].for_bird("preferred" if number == numbers[-1] else "deprecated")
                for number in numbers
            )
            for peering, keys in self.keys.items()
        }

    def launch(self) -> None:
        """Starts both."""
        self.here.start(HERE, self.peerings)
        self.there.start(THERE, self.mirrored, self.at_peer(0))

    def up(self) -> None:
        """Waits for the sessions and the routes, as the daemons tell."""
        for speaker, peerings in self.sides():
            name = speaker.router.name
            for peering in peerings:
                wait_for(
                    f"the session with {peering.peer} to be up {name}",
                    lambda s=speaker, p=peering: s.session(p),
                    lambda session: session.is_up,
                )
        for speaker, peerings in self.sides():
            for peering in peerings:
                self.await_route(speaker, peering, peering.peer_net)

    def sides(self):
        """Each end and what it calls the sessions."""
        return (self.here, self.peerings), (self.there, self.mirrored)

    @staticmethod
    def await_route(speaker, peering: Peering, net: str) -> None:
        """Waits until the daemon has a route."""
        wait_for(
            f"{net} to be {speaker.router.name}",
            lambda: speaker.routes(peering),
            lambda routes: net in routes,
        )

    def sessions(self) -> dict:
        """What the daemons say of the sessions."""
        return {
            (speaker.router.name, peering.peer): speaker.session(peering)
            for speaker, peerings in self.sides()
            for peering in peerings
        }

    def until_signed_with(self, number: int) -> None:
        """Waits until both ends of all sessions sign with the key of this number and ask for it."""
        wanted = set()
        for peering, keys in self.keys.items():
            key = keys[number]
            wanted.add((peering.own, key.frr_id, key.peer_id))
            wanted.add((peering.peer, key.peer_id, key.frr_id))

        def last() -> set:
            signed = {}
            for record in self.capture.signed():
                signed[record.source] = (record.source, record.keyid, record.rnextkeyid)
            return set(signed.values())

        wait_for(f"all to be signed with the keys number {number}", last, wanted.__eq__)
        if not isinstance(self.there, NativeBird):
            return
        for mirrored, keys in zip(self.mirrored, self.keys.values(), strict=True):
            ids = str(keys[number].peer_id), str(keys[number].frr_id)
            assert self.there.keys(mirrored) == ids

    def roll(self, wall: Wall) -> None:
        """Three times the next key, by the clock here and by configuration there, and no flap."""
        before, began, start = self.sessions(), time.monotonic(), len(self.capture.records)
        assert all(session.is_up for session in before.values())
        for number in range(1, len(ALGORITHMS)):
            self.there.take(self.at_peer(number - 1, number))
            wall.set(hour(number))
            self.until_signed_with(number)
            self.there.take(self.at_peer(number))
        later = [net for net in LATER if any((":" in net) == (":" in p.net) for p in self.peerings)]
        self.there.take(self.at_peer(number), *later)
        for peering in self.peerings:
            (net,) = (net for net in later if (":" in net) == (":" in peering.net))
            self.await_route(self.here, peering, net)
        self.unchanged(before, start, began)

    def unchanged(self, before: dict, start: int, began: float) -> None:
        """The sessions are the same as before, say the daemons and the capture."""
        for record in self.capture.signed(start):
            assert not record.segment.flags & (SYN | FIN | RST), record
        # A second less, since some say whole ones.
        elapsed = time.monotonic() - began - 1
        for which, session in self.sessions().items():
            assert session.is_up, which
            assert session.times == before[which].times, which
            assert session.seconds >= elapsed, which

    def end(self, record_property) -> None:
        """The daemons end, and every segment from the first to the last was signed."""
        for router in self.routers:
            router.stop()
        alive = ("ss", "-Htano", "state", "connected", "exclude", "time-wait")
        for router in self.routers:
            # One that has not ended would keep its namespace, and so the module.
            wait_for(
                f"the connections of {router.name} to end",
                lambda r=router: r.run(*alive),
                lambda left: not left,
            )
        self.capture.finish()
        signed = self.capture.signed()
        record_property("segments", len(signed))
        ids = {(record.source, record.keyid) for record in signed}
        for peering, keys in self.keys.items():
            for key in keys:
                assert {(peering.own, key.frr_id), (peering.peer, key.peer_id)} <= ids


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


@pytest.fixture
def last(request, directory):
    """What is to be taken down in the end; of a test that has failed, the daemons' last words."""
    with ExitStack() as last:
        yield last
        if failed(request.node):
            for log in sorted(directory.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-40:]
                print(f"--- {log.name} ---", *lines, sep="\n")


@pytest.fixture
def directory():
    """A place for files that users without privilege may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


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


@pytest.fixture
def set_stage(command, directory, last, wall):
    """Gives a stage on which nothing runs yet."""
    wall.set(T)
    return lambda name: Stage(
        DAEMONS[name]("here", directory), NativeBird("there", directory), command, last
    )


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
    stage.protect(stage.there.router, LDP, mirrored=True)
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
