# SPDX-License-Identifier: GPL-2.0
"""What the story in `routers` is made of, but for `daemons`: namespaces, keys, captures, BIRD, FRR.

Nothing in here prints. What is not as it should be raises Failed with a sentence that says what
was expected and what was seen.
"""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO / "tools"))

from tcp_authopt_verify import Audit, Key, Policy, Record, Status  # noqa: E402
from tcp_authopt_verify.capture import CaptureError, read  # noqa: E402
from tcp_authopt_verify.wire import ACK, RST, Segment  # noqa: E402

BAD, REQUIRED, NOT_FOUND = "TCPAOBad", "TCPAORequired", "TCPAOKeyNotFound"
REFUSALS = (BAD, REQUIRED, NOT_FOUND)
"""What the kernel counts refused segments under: wrong MAC, none at all, no key with that KeyID."""

PATIENCE = 40.0 * float(os.environ.get("SLOWDOWN", "1"))
"""Seconds to wait for anything: an emulated machine is slow, a loaded one slower."""

OFFLOADS = ("rx", "tx", "tso", "gso", "gro")

T = TypeVar("T")


class Failed(Exception):
    """Something is not as it should be."""


def require(holds: object, expected: str, seen: object) -> None:
    """Ends the story unless it holds."""
    if not holds:
        raise Failed(f"expected {expected}, but saw {seen or 'nothing'}")


def wait_for(expected: str, look: Callable[[], T], holds: Callable[[T], object] = bool) -> T:
    """Looks again and again until what is seen holds, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if holds(seen):
            return seen
        if time.monotonic() > deadline:
            raise Failed(f"expected {expected} within {PATIENCE:g} s, but saw {seen or 'nothing'}")
        time.sleep(0.1)


def run(*command: str | Path, text: str = "") -> str:
    """Runs a command that must succeed, with text as its input, and returns its output."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    said = (done.stderr or done.stdout).strip()
    require(
        done.returncode == 0,
        f"{' '.join(words)!r} to succeed",
        f"exit status {done.returncode}: {said}",
    )
    return done.stdout


def spawn(log: Path, *command: str) -> subprocess.Popen:
    """Starts a program whose output goes to a file."""
    with log.open("a") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )


def answers(path: Path) -> bool:
    """Whether someone listens on this Unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@dataclass(frozen=True)
class Mkt:
    """A Master Key Tuple: a key between a router that the module protects and a peer of its."""

    name: str
    peer: str
    """The peer's address."""
    own_id: int
    """The KeyID of what the router itself sends."""
    peer_id: int
    """The KeyID of what the peer sends."""
    algorithm: str
    """One of ALGORITHMS."""
    secret: str

    @property
    def row(self) -> str:
        """Its line in /proc/net/tcp_authopt on the router."""
        number = ALGORITHMS[self.algorithm].number
        return f"0x4\t{self.own_id}\t{self.peer_id}\t{number}\t{self.peer}\t0"

    def for_verifier(self, own: str) -> Key:
        """The same for the verifier of captures; own is the address that the router has there."""
        algorithm = ALGORITHMS[self.algorithm].verifier
        return Key(
            self.name, own, self.peer, self.own_id, self.peer_id, algorithm, self.secret.encode()
        )

    def for_bird(self, note: str = "") -> str:
        """The same in BIRD's words; the note is "preferred" or "deprecated"."""
        return (
            f'key {{ send id {self.peer_id}; recv id {self.own_id}; secret "{self.secret}";'
            f" algorithm {ALGORITHMS[self.algorithm].bird}; {note + ';' if note else ''} }};"
        )


@dataclass(frozen=True)
class Algorithm:
    """An algorithm's number in the module's interface, and its other names."""

    number: int
    bird: str
    verifier: str


ALGORITHMS = {
    "SHA1": Algorithm(1, "hmac sha1", "hmac-sha-1-96"),
    "AES128": Algorithm(2, "cmac aes128", "aes-128-cmac-96"),
    "SHA256": Algorithm(3, "hmac sha256", "hmac-sha-256-96"),
}


class Router:
    """A network namespace and the daemons in it."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self.daemons: list[subprocess.Popen] = []
        run("ip", "netns", "add", name)
        # Silence on the links until they have addresses, so that captures can begin before it ends.
        self.run(
            "sysctl",
            "-q",
            "-w",
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
        )
        self.ip("link", "set", "lo", "up")

    def file(self, kind: str) -> Path:
        """One of its files."""
        return self.directory / f"{self.name}.{kind}"

    def enter(self, *command: str | Path) -> list[str]:
        """The words that run a command in the namespace."""
        return ["nsenter", f"--net=/run/netns/{self.name}", *map(str, command)]

    def run(self, *command: str | Path, text: str = "") -> str:
        """Runs a command in the namespace."""
        return run(*self.enter(*command), text=text)

    def ip(self, *words: str) -> str:
        """Runs an `ip` command on the namespace."""
        return run("ip", "-n", self.name, *words)

    def start(self, name: str, control: Path, *command: str | Path) -> None:
        """Starts a daemon in the foreground, and waits for its control socket to answer."""
        daemon = spawn(self.directory / f"{name}.log", *self.enter(*command))
        self.daemons.append(daemon)
        wait_for(f"{name} to start", lambda: daemon.poll() is not None or answers(control))
        require(daemon.poll() is None, f"{name} to run", f"exit status {daemon.poll()}")

    def stop(self) -> None:
        """Has the daemons say good-bye, and waits for that."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
            wait_for(f"the daemons of {self.name} to end", lambda d=daemon: d.poll() is not None)
        self.daemons.clear()

    def route(self, prefix: str) -> str:
        """What the kernel's routing table says about a prefix, on one line."""
        return " ".join(self.ip("route", "show", prefix).split())

    def proc(self, name: str) -> list[str]:
        """The lines of a file in /proc/net."""
        return self.run("cat", f"/proc/net/{name}").splitlines()

    def counters(self) -> dict[str, int]:
        """What the kernel counts here of TCP, from /proc/net/netstat."""
        names, values = (
            line.split()[1:] for line in self.proc("netstat") if line.startswith("TcpExt:")
        )
        return dict(zip(names, map(int, values), strict=True))

    def refused(self) -> Counter[str]:
        """How many segments the kernel has refused here, and why."""
        counted = self.counters()
        return Counter({name: counted[name] for name in REFUSALS if counted[name]})

    def forge_reset(self, last: Segment, option: bytes) -> None:
        """Sends a RST as if from the sender of this segment, right behind it."""
        seq = (last.seq + len(last.payload)) % (1 << 32)
        words = (20 + len(option)) // 4 << 4
        reset = bytearray(
            struct.pack(
                "!HHIIBBHHH", last.sport, last.dport, seq, last.ack, words, RST | ACK, 0, 0, 0
            )
            + option
        )
        pseudo = last.src + last.dst + struct.pack("!HH", socket.IPPROTO_TCP, len(reset))
        total = sum(struct.unpack(f"!{(len(pseudo) + len(reset)) // 2}H", pseudo + reset))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        reset[16:18] = struct.pack("!H", total ^ 0xFFFF)
        own = os.open("/proc/self/ns/net", os.O_RDONLY)
        namespace = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        os.setns(namespace, os.CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
            os.setns(own, os.CLONE_NEWNET)
            raw.bind((socket.inet_ntoa(last.src), 0))
            raw.sendto(reset, (socket.inet_ntoa(last.dst), 0))
        os.close(own)
        os.close(namespace)


class Bird(Router):
    """A router that runs BIRD."""

    def launch(self, configuration: str) -> None:
        """Starts BIRD."""
        self.write(configuration)
        control = self.file("ctl")
        self.start(self.name, control, "bird", "-f", "-c", self.file("conf"), "-s", control)

    def write(self, configuration: str) -> None:
        """Writes the configuration, which has secrets in it."""
        self.file("conf").touch(mode=0o600)
        self.file("conf").write_text(configuration)

    def ask(self, question: str) -> str:
        """The answer of birdc."""
        return run("birdc", "-s", self.file("ctl"), question)

    def reconfigure(self, configuration: str) -> None:
        """Has BIRD take another configuration, as an operator does."""
        self.write(configuration)
        answer = self.ask("configure")
        require(
            re.search("Reconfigur(ed|ation in progress)", answer),
            "BIRD to take its new configuration",
            answer,
        )

    def field(self, protocol: str, name: str) -> str:
        """A line of `show protocols all`, such as "BGP state"; empty if it is not there."""
        found = re.search(rf"^ +{name}: +(.*)$", self.ask(f"show protocols all {protocol}"), re.M)
        return found[1].strip() if found else ""

    def state(self, protocol: str) -> str:
        """The BGP state."""
        return self.field(protocol, "BGP state")

    def since(self, protocol: str) -> datetime:
        """When the protocol came into its state."""
        row = self.ask(f"show protocols {protocol}").splitlines()[-1].split()
        return datetime.fromisoformat(f"{row[4]} {row[5]}").astimezone()


class Frr(Router):
    """A router that runs FRR, as its package has it."""

    def launch(self, configuration: str, daemon: str = "bgpd") -> None:
        """Starts mgmtd, without which zebra complains in a loop, zebra, and the routing daemon."""
        run("install", "-d", "-o", "frr", "-g", "frr", "/run/frr", f"/run/frr/{self.name}")
        file = self.directory / f"{self.name}.{daemon}.conf"
        file.write_text(configuration)
        run("chown", "frr:", file)
        self.daemon = daemon
        for name, *options in (("mgmtd",), ("zebra",), (daemon, "-f", file)):
            # What they have in common is in a place of this router's own.
            self.start(
                f"{self.name}.{name}",
                Path(f"/run/frr/{self.name}/{name}.vty"),
                f"/usr/lib/frr/{name}",
                "--log",
                "stdout",
                "-N",
                self.name,
                *options,
            )

    def ask(self, *commands: str) -> str:
        """The answer of vtysh."""
        return run(
            "vtysh",
            "-N",
            self.name,
            "-d",
            self.daemon,
            *(word for each in commands for word in ("-c", each)),
        )

    def neighbor(self, address: str) -> dict[str, Any]:
        """What bgpd knows about a neighbor."""
        return json.loads(self.ask(f"show bgp neighbors {address} json"))[address]

    def state(self, address: str) -> str:
        """The BGP state."""
        return self.neighbor(address)["bgpState"]

    def established(self, address: str) -> int:
        """How many sessions there have been with a neighbor."""
        return self.neighbor(address)["connectionsEstablished"]


class Capture:
    """All frames of an interface from now on, each segment judged by the verifier."""

    def __init__(self, router: Router, interface: str, keys: tuple[Key, ...]) -> None:
        self.router, self.interface = router, interface
        self.file = router.directory / f"{router.name}.{interface}.pcap"
        self.log = router.directory / f"{router.name}.{interface}.log"
        self.audit = Audit(Policy(keys))
        self.records = self.audit.report.records
        self.tcpdump = spawn(
            self.log,
            *router.enter(
                "tcpdump",
                "-i",
                interface,
                "-w",
                self.file,
                "-s",
                "0",
                "-B",
                "8192",
                "--immediate-mode",
                "-U",
                "-Z",
                "root",
            ),
        )
        wait_for(
            f"tcpdump to listen on {interface}",
            self.log.read_text,
            lambda said: "listening on" in said,
        )
        self.is_finished = False
        self.before = 0
        self.before = self.counted()

    def counted(self) -> int:
        """How many packets the interface has counted in both directions since the beginning."""
        (link,) = json.loads(self.router.ip("-j", "-s", "link", "show", "dev", self.interface))
        return sum(link["stats64"][way]["packets"] for way in ("rx", "tx")) - self.before

    def look(self) -> int:
        """Judges the frames that have come since the last look; says how many there are in all."""
        # The last frame may be half written yet: it will be whole the next time.
        with contextlib.suppress(CaptureError):
            for frame in islice(read(self.file), len(self.records), None):
                self.audit.feed(frame)
        return len(self.records)

    def segments(self, start: int = 0) -> list[Record]:
        """The records of TCP segments, from that frame on, up to now."""
        count = 0 if self.is_finished else self.counted()
        wait_for(
            f"all {count} frames on {self.interface} to be captured",
            self.look,
            lambda frames: frames >= count,
        )
        return [record for record in self.records[start:] if record.status is not Status.OTHER]

    def signed(self, start: int = 0) -> list[Record]:
        """The same where each of them has to be signed well."""
        segments = self.segments(start)
        for record in segments:
            require(
                record.status is Status.SIGNED,
                "every segment of the session to carry option 29 with the right MAC",
                record,
            )
        return segments

    def finish(self) -> int:
        """Ends the capture and makes sure that it is complete; says how many frames it has."""
        counted = wait_for(f"silence on {self.interface}", self.pause, lambda count: count >= 0)
        self.tcpdump.send_signal(signal.SIGINT)
        wait_for("tcpdump to end", lambda: self.tcpdump.poll() is not None)
        said = self.log.read_text()
        require(
            re.findall(r"(\d+) packets dropped", said) == ["0"],
            "tcpdump to have dropped no packet",
            said,
        )
        self.is_finished = True
        # One may have come after all, before or after tcpdump had ended.
        captured, at_last = self.look(), self.counted()
        require(
            counted <= captured <= at_last,
            f"{counted} frames in the capture, as the interface counted",
            captured,
        )
        return captured

    def pause(self) -> int:
        """The interface's count if no packet comes for a while, else -1."""
        before = self.counted()
        time.sleep(0.5)
        return before if self.counted() == before else -1


def cable(one: Router, name: str, other: Router, other_name: str) -> None:
    """Connects two routers, without offloads: so a capture shows segments as they are on a wire."""
    run(
        "ip",
        "link",
        "add",
        name,
        "netns",
        one.name,
        "type",
        "veth",
        "peer",
        "name",
        other_name,
        "netns",
        other.name,
    )
    for router, interface in ((one, name), (other, other_name)):
        offloads = (word for offload in OFFLOADS for word in (offload, "off"))
        router.run("ethtool", "-K", interface, *offloads)
        router.ip("link", "set", interface, "up")
