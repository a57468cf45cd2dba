"""What holds if a hook is not reached: the state of a protected connection is shut by itself.

`scripts/detached` runs this with the module built so that calls of one hooked function go to the
kernel as long as a switch is on. With the module as it is, there is no switch and all hooks hold.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from clock import wait_for
from craft import ACK, PSH, RST, SYN, Ao, Tcp
from forge import Forger, with_md5
from handshake import OPENING, sent
from link import FIRST, PORT, V4, V6, Link
from requirement import requirement
from tcp_authopt_verify import Key
from test_md5 import SECRET, set_md5

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
SWITCH = Path("/sys/module/tcp_authopt/parameters/off")
REFUSED = ("TCPAORequired", "TCPAOBad", "TCPAOKeyNotFound", "TCPMD5Unexpected", "TCPMD5Failure")


@contextmanager
def detached() -> Iterator[None]:
    """The function is not hooked, where the module is built so."""
    switched = "TAO_SWITCH" in os.environ
    assert switched == SWITCH.exists()
    if switched:
        SWITCH.write_text("Y")
    yield
    if switched:
        SWITCH.write_text("N")


def refused(link: Link) -> int:
    """How many segments both hosts have refused."""
    counters = (host.namespace.counters() for host in (link.a, link.b))
    return sum(found[name] for found in counters for name in REFUSED)


@dataclass(frozen=True)
class ZeroSuite:
    """The MACs of a stack that looks for its traffic keys where there are zeros."""

    suite: object

    def traffic_key(self, _secret: bytes, _context: bytes) -> bytes:
        """Where nothing was ever written."""
        return bytes(20)

    def mac(self, key: bytes, message: bytes) -> bytes:
        """As ever."""
        return self.suite.mac(key, message)


@dataclass(frozen=True)
class ZeroKey:
    """A key that is none."""

    suite: ZeroSuite
    secret: bytes = b""
    covers_options: bool = True


def forgeries(forger: Forger, good: Ao) -> list[tuple[str, Ao]]:
    """How somebody may sign who does not know the key, but how the module is made."""
    real = good.key
    empty: Key = replace(real, name="empty", secret=b"")
    zero = ZeroKey(ZeroSuite(real.suite))
    ids = {(good.keyid, good.rnextkeyid), (0, 0), (0, good.rnextkeyid)}
    return [
        (f"{name} {keyid}", replace(good, key=key, keyid=keyid, rnextkeyid=rnext))
        for name, key in (("empty", empty), ("zero", zero))
        for keyid, rnext in sorted(ids)
    ]


def attack(link: Link, forger: Forger, segment: Tcp, good: Ao) -> None:
    """Sends it in every way that is not right. Each is refused."""
    ways = [None, *(signature for _, signature in forgeries(forger, good))]
    for signature in ways:
        before = refused(link)
        forger.send(segment, signature)
        wait_for(f"{signature} to be refused", lambda before=before: refused(link) > before)
    before = refused(link)
    forger.send(with_md5(segment, SECRET))
    wait_for("MD5 to be refused", lambda: refused(link) > before)


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_a_session(link: Link, ends):
    """Neither data nor a RST, of either role."""
    connection = link.connected("ours", "ours", ends)
    connection.exchange()
    for host in (link.a, link.b):
        forger = Forger.of(link, host, ends.wire)
        data = forger.tcp(flags=ACK | PSH, payload=b"forged")
        good = forger.ao(FIRST)
        with detached():
            attack(link, forger, data, good)
            attack(link, forger, replace(data, flags=RST, payload=b""), good)
    connection.exchange(b"good", b"as well")
    connection.close()
    link.audit()


@requirement(21, 26)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("md5", [False, True], ids=["", "md5-too"])
def test_a_listener(link: Link, ends, md5):
    """A whole handshake, as if its numbers were known: no connection."""
    listener = link.listen("ours", ends, FIRST)
    if md5:
        set_md5(listener)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    syn = forger.tcp(seq=1000, ack=0, flags=SYN)
    good = forger.ao(FIRST, src_isn=1000, dst_isn=0)
    ways = [None, *(signature for _, signature in forgeries(forger, good))]
    with detached():
        for number, signature in enumerate([*ways, "md5"]):
            opening = replace(syn, sport=2000 + number)
            shake(link, forger, opening, signature)
    fresh = link.connect(link.client("native", ends, FIRST), listener)
    fresh.exchange()
    assert not listener.asked
    link.audit(unsigned=True)


def shake(link: Link, forger: Forger, syn: Tcp, signature: Ao | str | None) -> None:
    """Sends a SYN, and if that is answered an ACK with data."""

    def send(segment: Tcp, **isns: int) -> None:
        if signature == "md5":
            forger.send(with_md5(segment, SECRET))
        else:
            forger.send(segment, signature and replace(signature, **isns))

    def answers() -> list[Tcp]:
        report = link.audit(unsigned=True)
        return [
            record.segment
            for record in report.records
            if record.segment and record.segment.dport == syn.sport
        ]

    before = refused(link)
    send(syn)
    wait_for("an answer or a refusal", lambda: answers() or refused(link) > before)
    for answer in answers()[:1]:
        ack = replace(syn, seq=1001, ack=answer.seq + 1, flags=ACK | PSH, payload=b"forged")
        send(ack, dst_isn=answer.seq)


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_a_client(link: Link, ends):
    """What answers its SYN has to be signed with the key."""
    client = link.client("ours", ends, FIRST)
    link.start(client)
    wait_for("the SYN", lambda: sent(link, link.a, OPENING))
    syn = sent(link, link.a, OPENING)[0]
    forger = Forger(link, link.b, ends.wire, PORT, syn.sport)
    answer = forger.tcp(seq=5000, ack=syn.seq + 1, flags=SYN | ACK)
    good = forger.ao(FIRST, src_isn=5000, dst_isn=syn.seq)
    with detached():
        attack(link, forger, answer, good)
        attack(link, forger, replace(answer, flags=RST | ACK), good)
    assert client.pending
    assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    forger.send(answer, good)
    wait_for("the connection", lambda: not client.pending)
    link.audit()
