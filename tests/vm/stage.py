"""A daemon under policy on one router, its peer on another, and a capture between them."""

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from lab import Capture, Mkt, Router, cable, run, wait_for
from speakers import NativeBird, Peering, Speaker
from tcp_authopt_verify import Record, Status
from tcp_authopt_verify.wire import FIN, RST, SYN
from wall import T, Wall

HERE, THERE = "192.0.2.1", "192.0.2.2"
HERE6, THERE6 = "2001:db8::1", "2001:db8::2"
V4 = Peering(HERE, THERE, "203.0.113.0/24", "198.51.100.0/24")
V6 = Peering(HERE6, THERE6, "2001:db8:1::/48", "2001:db8:2::/48")
LATER = ("198.51.100.128/25", "2001:db8:2:1::/64")


BGP, LDP = 179, 646

BOTH, CONNECTS, LISTENS = "collision", "active", "passive"
"""What the daemon under policy does."""

ALGORITHMS = ("SHA1", "AES128", "SHA256", "SHA1")
HOUR = 3600
ENTRIES = ("policy", "keys")
"""What there is to be loaded."""
MARGIN = 600
"""For how long a key is accepted before and after it is sent."""


MORE_HOPS = """
table ip hops {
	chain first {
		type filter hook prerouting priority -300;
		ip ttl set 64
	}
}
"""


def hour(number: int) -> int:
    """When the key of this number begins to be sent; the first one has begun before."""
    return T + number * HOUR if number else T - HOUR


def keys_for(peering: Peering, algorithms: tuple[str, ...]) -> list[Mkt]:
    """One key after the other."""
    return [
        Mkt(f"{peering.peer} {n}", peering.peer, 61 + n, 84 + n, name, secrets.token_hex(16))
        for n, name in enumerate(algorithms)
    ]


class Narrow:
    """A path over a third router, whose link to the far end is narrow: it says so by ICMP."""

    def __init__(self, mtu: int, last: ExitStack) -> None:
        self.mtu, self.last = mtu, last

    def __call__(self, one: Router, name: str, other: Router, other_name: str) -> None:
        """Connects two routers that have no other addresses in common than IPv4 ones."""
        between = Router("between", one.directory)
        self.last.callback(run, "ip", "netns", "delete", between.name)
        cable(one, name, between, "to-one")
        cable(between, "to-other", other, other_name)
        between.ip("link", "set", "to-other", "mtu", str(self.mtu))
        between.ip("address", "add", "192.0.2.254/32", "dev", "lo")
        for device, address in (("to-one", HERE), ("to-other", THERE)):
            between.ip("route", "add", f"{address}/32", "dev", device)
        names = ("ip_forward", "conf.to-one.proxy_arp", "conf.to-other.proxy_arp")
        between.run("sysctl", "-q", "-w", *(f"net.ipv4.{each}=1" for each in names))
        # A BGP session with a neighbour is for one hop; to sign it covers no TTL.
        between.run("nft", "-f", "-", text=MORE_HOPS)


class Stage:
    """A daemon under policy on one router, its peer on another, and a capture between them."""

    algorithms = ALGORITHMS
    """Of the keys of each peer."""

    def __init__(
        self,
        here: Speaker,
        there: Speaker,
        command: Path,
        last: ExitStack,
        connect: Callable[[Router, str, Router, str], None] = cable,
    ) -> None:
        self.here, self.there, self.command = here, there, command
        self.routers = (here.router, there.router)
        for router in self.routers:
            last.callback(run, "ip", "netns", "delete", router.name)
            last.callback(self.kill, router)
        connect(here.router, "to-there", there.router, "to-here")

    @staticmethod
    def kill(router: Router) -> None:
        """Ends the daemons without a word."""
        for daemon in router.daemons:
            daemon.kill()
            daemon.wait(20)
        router.daemons.clear()

    def begin(
        self,
        peerings: list[Peering],
        way: str,
        last: ExitStack,
        port: int = BGP,
        what: tuple[str, ...] = ENTRIES,
    ) -> None:
        """Adds addresses, after the capture has begun, and the policy with its keys."""
        self.peerings = [replace(peering, connects=way != LISTENS) for peering in peerings]
        self.mirrored = [replace(p.mirrored("to-here"), connects=way != CONNECTS) for p in peerings]
        self.keys = {peering: keys_for(peering, self.algorithms) for peering in self.peerings}
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
        self.port = port
        self.protect(*what)

    def protect(self, *what: str, mirrored: bool = False) -> None:
        """A policy, and the keys, each of which is sent for an hour, from a file as at boot."""
        router, vrf = self.routers[mirrored], self.peerings[0].vrf
        where = f"port {self.port}{f' vrf {vrf}' if vrf else ''}"
        lines = [f"require any {where}"] if "policy" in what else []
        for peering, keys in self.keys.items() if "keys" in what else ():
            for number, key in enumerate(keys):
                peer, ids = key.peer, (key.own_id, key.peer_id)
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
        entries.write_text("".join(f"{line}\n" for line in lines or ["# none"]))
        router.run(self.command, "load", entries)

    def delete(self, key: Mkt) -> None:
        """Deletes a key here."""
        ids = ("send-id", str(key.own_id), "recv-id", str(key.peer_id))
        self.here.router.run(self.command, "del", key.peer, "port", str(self.port), *ids)

    def remove(self, number: int) -> None:
        """Deletes the keys of this number."""
        for keys in self.keys.values():
            self.delete(keys[number])

    def silent(self, seconds: float) -> None:
        """For so long no segment is sent here."""
        self.capture.segments()
        start = len(self.capture.records)
        time.sleep(seconds)
        own = {peering.own for peering in self.peerings}
        assert not [r for r in self.capture.segments(start) if r.source in own]

    def at_peer(self, *numbers: int) -> dict[str, str]:
        """BIRD's keys of these numbers, by its address; the last is the one to be used."""
        return {
            peering.peer: " ".join(
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

    def sides(self) -> tuple[tuple[Speaker, list[Peering]], tuple[Speaker, list[Peering]]]:
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

    def until_signed_with(self, number: int, start: int = 0) -> None:
        """Waits until both ends of all sessions sign with the key of this number and ask for it.

        From that frame on all is signed.
        """
        wanted = set()
        for peering, keys in self.keys.items():
            key = keys[number]
            wanted.add((peering.own, key.own_id, key.peer_id))
            wanted.add((peering.peer, key.peer_id, key.own_id))

        def last() -> set:
            signed = {}
            for record in self.capture.signed(start):
                signed[record.source] = (record.source, record.keyid, record.rnextkeyid)
            return set(signed.values())

        wait_for(f"all to be signed with the keys number {number}", last, wanted.__eq__)
        if not isinstance(self.there, NativeBird):
            return
        for mirrored, keys in zip(self.mirrored, self.keys.values(), strict=True):
            ids = str(keys[number].peer_id), str(keys[number].own_id)
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

    def end(self, record_property: Callable[[str, object], None], *, tried: bool = False) -> None:
        """The daemons end, and every segment from the first to the last was signed.

        Unless something else was tried, which is the test's to judge.
        """
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
        record_property("segments", len(self.capture.records))
        assert tried or not self.unsigned()

    def unsigned(self) -> list[Record]:
        """The segments that are not signed: SYNs, which nobody has answered, of the daemon here."""
        own = {peering.own for peering in self.peerings}
        unsigned = [r for r in self.capture.segments() if r.status is not Status.SIGNED]
        assert all(record.segment.is_syn and record.source in own for record in unsigned)
        return unsigned
