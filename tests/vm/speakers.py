"""BGP daemons under one interface: what they are told of peerings, and what they say of them."""

import json
import re
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, override

from daemons import ESTABLISHED, GoBgp, OpenBgpd
from lab import Bird, Frr, Router

ASN, PEER_ASN = 64511, 64496
HOLD = 9


@dataclass(frozen=True)
class Peering:
    """A session with one peer, for routes of the family of its addresses."""

    own: str
    peer: str
    net: str
    """What is announced to the peer,"""
    peer_net: str
    """and what it announces."""
    interface: str = ""
    """That of link-local addresses."""
    vrf: str = ""
    connects: bool = True
    """Whether this end connects, too."""
    password: str = ""
    """That of TCP-MD5, of both ends."""

    @property
    def family(self) -> str:
        """As most daemons name it."""
        return "ipv6" if ":" in self.peer else "ipv4"

    @property
    def neighbor(self) -> str:
        """The peer's address with its zone."""
        return f"{self.peer}%{self.interface}" if self.interface else self.peer

    def mirrored(self, interface: str) -> "Peering":
        """As the peer has it, which is in no VRF."""
        zone = interface if self.interface else ""
        return Peering(
            self.peer, self.own, self.peer_net, self.net, interface=zone, password=self.password
        )


@dataclass(frozen=True)
class Session:
    """What a daemon says of a session."""

    seconds: float
    """For how long it has been up; none at all is 0, and this then less."""
    times: int
    """How many sessions there have been with this peer."""

    @property
    def is_up(self) -> bool:
        """Whether there is one."""
        return self.seconds >= 0


DOWN = -1.0


class Speaker(ABC):
    """A daemon on a router of its own."""

    package: str
    kind: type[Router]
    keepalive = 1
    """Seconds between two signs of life."""

    def __init__(self, name: str, directory: Path) -> None:
        self.router = self.kind(name, directory)

    @abstractmethod
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        """Starts it."""

    @abstractmethod
    def session(self, peering: Peering) -> Session:
        """What it says of the session."""

    @abstractmethod
    def routes(self, peering: Peering) -> set[str]:
        """The prefixes that it has of the family."""


class FrrBgpd(Speaker):
    """FRR's bgpd."""

    package, kind = "frr", Frr

    @override
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        vrf = peerings[0].vrf
        lines = [
            f"router bgp {ASN}{f' vrf {vrf}' if vrf else ''}",
            f" bgp router-id {router_id}",
            " no bgp ebgp-requires-policy",
            " no bgp network import-check",
            " no bgp default ipv4-unicast",
            f" timers bgp {self.keepalive} {HOLD}",
        ]
        for peering in peerings:
            lines += [
                f" neighbor {peering.peer} remote-as {PEER_ASN}",
                f" neighbor {peering.peer} timers connect 1",
                f" neighbor {peering.peer} advertisement-interval 0",
            ]
            if peering.interface:
                lines.append(f" neighbor {peering.peer} interface {peering.interface}")
            if not peering.connects:
                lines.append(f" neighbor {peering.peer} passive")
            if peering.password:
                lines.append(f" neighbor {peering.peer} password {peering.password}")
        for peering in peerings:
            lines += [
                f" address-family {peering.family} unicast",
                f"  network {peering.net}",
                f"  neighbor {peering.peer} activate",
                " exit-address-family",
            ]
        self.router.launch("\n".join([*lines, ""]))

    @staticmethod
    def instance(peering: Peering) -> str:
        """The words that choose the VRF."""
        return f"vrf {peering.vrf} " if peering.vrf else ""

    @override
    def session(self, peering: Peering) -> Session:
        question = f"show bgp {self.instance(peering)}neighbors {peering.peer} json"
        answer = json.loads(self.router.ask(question))[peering.peer]
        up = answer["bgpState"] == "Established"
        seconds = answer["bgpTimerUpMsec"] / 1000 if up else DOWN
        return Session(seconds, answer["connectionsEstablished"])

    @override
    def routes(self, peering: Peering) -> set[str]:
        question = f"show bgp {self.instance(peering)}{peering.family} unicast json"
        return set(json.loads(self.router.ask(question))["routes"])


class FrrLdpd(Speaker):
    """FRR's ldpd, for LDP rather than BGP: what it announces are labels, of all addresses."""

    package, kind = "frr", Frr
    device = ""
    """Its interface."""

    @override
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        (peering,) = peerings
        lines = [
            "mpls ldp",
            f" router-id {router_id}",
            " discovery hello interval 1",
            f" address-family {peering.family}",
            f"  discovery transport-address {peering.own}",
            f"  interface {self.device}",
            "  exit",
            " exit-address-family",
        ]
        self.router.launch("\n".join([*lines, ""]), "ldpd")

    @override
    def session(self, peering: Peering) -> Session:
        answer = json.loads(self.router.ask("show mpls ldp neighbor json"))
        for neighbor in answer.get("neighbors", []):
            if neighbor["state"] == "OPERATIONAL":
                hours, minutes, seconds = map(int, neighbor["upTime"].split(":"))
                # It counts no sessions.
                return Session(hours * 3600 + minutes * 60 + seconds, 1)
        return Session(DOWN, 0)

    @override
    def routes(self, peering: Peering) -> set[str]:
        answer = json.loads(self.router.ask("show mpls ldp binding json"))
        return {
            binding["prefix"]
            for binding in answer.get("bindings", [])
            if binding["remoteLabel"] not in {"-", ""}
        }


class GoBgpd(Speaker):
    """GoBGP's gobgpd."""

    package, kind = "gobgpd", GoBgp
    environment: ClassVar[dict[str, str]] = {}

    @override
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        lines = ["[global.config]", f"as = {ASN}", f'router-id = "{router_id}"']
        for peering in peerings:
            lines += [
                "[[neighbors]]",
                "[neighbors.config]",
                f"peer-as = {PEER_ASN}",
                f'neighbor-address = "{peering.neighbor}"',
                *([f'auth-password = "{peering.password}"'] if peering.password else []),
                "[neighbors.timers.config]",
                "connect-retry = 1",
                "idle-hold-time-after-reset = 1",
                f"hold-time = {HOLD}",
                f"keepalive-interval = {self.keepalive}",
                "[neighbors.transport.config]",
                f"passive-mode = {str(not peering.connects).lower()}",
                *([f'bind-interface = "{peering.vrf}"'] if peering.vrf else []),
                "[[neighbors.afi-safis]]",
                "[neighbors.afi-safis.config]",
                f'afi-safi-name = "{peering.family}-unicast"',
            ]
        self.router.launch("\n".join([*lines, ""]), **self.environment)
        for peering in peerings:
            self.router.ask("global", "rib", "add", peering.net, "-a", peering.family)

    @override
    def session(self, peering: Peering) -> Session:
        answer = self.router.ask("neighbor", peering.neighbor)
        # Messages and times are left out where they are none yet.
        times = answer["state"].get("messages", {}).get("received", {}).get("open", 0)
        if answer["state"].get("session_state") != ESTABLISHED:
            return Session(DOWN, times)
        since = answer["timers"]["state"]["uptime"]["seconds"]
        return Session(max(time.time() - since, 0), times)

    @override
    def routes(self, peering: Peering) -> set[str]:
        return self.router.routes(peering.family)


class GoBgpdMptcp(GoBgpd):
    """The same with a listener of MPTCP, which that of Debian 13 has only where it is asked to."""

    environment: ClassVar[dict[str, str]] = {"GODEBUG": "multipathtcp=2"}


class OpenBgpdSpeaker(Speaker):
    """OpenBGPD's bgpd."""

    package, kind = "openbgpd", OpenBgpd

    @override
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        lines = [f"AS {ASN}", f"router-id {router_id}", "connect-retry 1", f"holdtime {HOLD}"]
        lines += [f"network {peering.net}" for peering in peerings]
        for peering in peerings:
            version = {"ipv4": "IPv4", "ipv6": "IPv6"}[peering.family]
            lines += [
                f"neighbor {peering.neighbor} {{",
                f"  remote-as {PEER_ASN}",
                f"  announce {version} unicast",
                *(["  passive"] if not peering.connects else []),
                *([f"  tcp md5sig password {peering.password}"] if peering.password else []),
                "}",
            ]
        lines += ["allow from any", "allow to any"]
        self.router.launch("\n".join([*lines, ""]))

    @override
    def session(self, peering: Peering) -> Session:
        answer = self.router.neighbor(peering.neighbor)
        up = answer["state"] == "Established"
        # It counts no sessions, but the messages of all of them; each has begun with one.
        times = answer["stats"]["message"]["received"]["open"]
        return Session(answer["last_updown_sec"] if up else DOWN, times)

    @override
    def routes(self, peering: Peering) -> set[str]:
        return self.router.routes()


class BirdSpeaker(Speaker):
    """BIRD, which has TCP-AO of its own, and is told nothing of it unless there are keys."""

    package, kind = "bird2", Bird
    asn, peer_asn = ASN, PEER_ASN
    option = ""
    """One more line for each of its sessions."""

    @override
    def start(self, router_id: str, peerings: list[Peering]) -> None:
        self.router_id, self.peerings = router_id, peerings
        self.router.launch(self.configuration())

    def configuration(self, keys: dict[str, str] | None = None, later: tuple[str, ...] = ()) -> str:
        """Its configuration with keys of the peers, and with more networks to be announced."""
        lines = [
            "log stderr all;",
            "timeformat protocol iso long ms;",
            f"router id {self.router_id};",
            "protocol device { }",
        ]
        for number, peering in enumerate(self.peerings):
            family = peering.family
            nets = [peering.net, *(net for net in later if (":" in net) == (family == "ipv6"))]
            routes = " ".join(f"route {net} blackhole;" for net in nets)
            authentication = f'password "{peering.password}";' if peering.password else ""
            if keys is not None:
                authentication = f"authentication ao; keys {{ {keys[peering.own]} }};"
            lines += [
                f"protocol static {{ {family}; {routes} }}",
                f"protocol bgp {self.name(number)} {{",
                f"  local {peering.own} as {self.asn};",
                f"  neighbor {peering.peer} as {self.peer_asn};",
                *([f'  interface "{peering.interface}";'] if peering.interface else []),
                *([f'  vrf "{peering.vrf}";'] if peering.vrf else []),
                "  connect delay time 1; connect retry time 2; error wait time 1, 2;",
                f"  hold time {HOLD}; keepalive time {self.keepalive};",
                f"  passive {'off' if peering.connects else 'on'}; debug {{ events }};",
                f"  {authentication} {self.option}",
                f"  {family} {{ import all; export where source = RTS_STATIC; }};",
                "}",
            ]
        return "\n".join([*lines, ""])

    @staticmethod
    def name(number: int) -> str:
        """The name of a protocol."""
        return f"peer{number}"

    def protocol(self, peering: Peering) -> str:
        """The one of this peering."""
        return self.name(self.peerings.index(peering))

    @override
    def session(self, peering: Peering) -> Session:
        protocol = self.protocol(peering)
        log = (self.router.directory / f"{self.router.name}.log").read_text()
        times = len(re.findall(rf"> {protocol}: BGP session established", log))
        if self.router.state(protocol) != "Established":
            return Session(DOWN, times)
        up = datetime.now().astimezone() - self.router.since(protocol)
        return Session(max(up.total_seconds(), 0), times)

    @override
    def routes(self, peering: Peering) -> set[str]:
        answer = self.router.ask(f"show route protocol {self.protocol(peering)}")
        return set(re.findall(r"^([0-9a-f.:]+/\d+)", answer, re.M))


class NativeBird(BirdSpeaker):
    """BIRD at the other end, with the kernel's own TCP-AO and keys of its configuration."""

    asn, peer_asn = PEER_ASN, ASN

    @override
    def start(self, router_id: str, peerings: list[Peering], keys: dict[str, str] | None) -> None:
        self.router_id, self.peerings = router_id, peerings
        self.router.launch(self.configuration(keys))

    def take(self, keys: dict[str, str], *later: str) -> None:
        """Reconfigures it with these keys, and more networks."""
        self.router.reconfigure(self.configuration(keys, later))

    def keys(self, peering: Peering) -> tuple[str, str]:
        """The ids with which it signs and that it asks for."""
        protocol = self.protocol(peering)
        return tuple(self.router.field(protocol, f"{which} key") for which in ("Current", "RNext"))


DAEMONS: dict[str, type[Speaker]] = {
    "frr": FrrBgpd,
    "gobgp": GoBgpd,
    "gobgp-mptcp": GoBgpdMptcp,
    "openbgpd": OpenBgpdSpeaker,
    "bird": BirdSpeaker,
}
"""Those of BGP that have not been told of TCP-AO."""
