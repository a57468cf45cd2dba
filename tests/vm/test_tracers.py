"""Tracers on every function that the module hooks: they see their calls, and nothing gets by us."""

import errno
import socket
import struct
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import abi
from clock import wait_for
from craft import ACK, FIN, SYN
from forge import Forger
from link import BAD, FIRST, PORT, REQUIRED, SECOND, V4, V6, Connection, Ends, Host, Link, Peer
from test_reuse import disconnect, listen_on
from tracing import TRACERS, Ledger, SleepingLocks, Tracer, hooked

pytestmark = pytest.mark.ours

WRONG = replace(FIRST, name="wrong", secret=b"guessed")
STRAY_PORT, NATIVE_PORT, OTHER_PORT, PLAIN_PORT = range(1001, 1005)
FAR_PORT = 1025
GOOD = "TCPAOGood"
TCP_MD5SIG = 14
OTHER_FAMILY = {"v4": "_v6_", "v6": "_v4_"}
SEGMENTS = 1000
LOCKDEP = Path("/proc/lockdep").exists()


@pytest.fixture(scope="module")
def functions(module):
    """The functions, as ftrace has them."""
    module.require()
    module.enable()
    names = hooked()
    assert len(names) >= 20
    return names


@dataclass(frozen=True)
class Traced:
    """A tracer, and the functions that it is on."""

    tracer: Tracer
    functions: set[str]


@pytest.fixture(scope="module", params=TRACERS)
def traced(request, functions):
    """A tracer on all of them: the tests of one kind share it, and run in their order here.

    Where a trampoline of BPF changes on a function that is replaced, the kernel's
    update_ftrace_direct_mod() asks all trampolines that share theirs, with the lock of one held.
    Lockdep complains (as it would at a live patch of two functions with fexit), so that with it
    programs that change their trampolines are on one function only.
    """
    names = set(functions)
    if request.param in ("fexit", "several") and LOCKDEP:
        names = {name for name, callback in functions.items() if callback == "tao_call_inbound"}
        assert len(names) == 1
    tracer = TRACERS[request.param](names)
    yield Traced(tracer, names)
    tracer.close()


def use_md5(link: Link) -> None:
    """Makes the stack look for MD5 keys from now on, which it does not until there is one."""
    sock = link.a.tcp_socket(socket.AF_INET)
    key = abi.pack_sockaddr("203.0.113.1") + struct.pack("=BBHi80s", 0, 0, 1, 0, b"x")
    sock.setsockopt(socket.IPPROTO_TCP, TCP_MD5SIG, key)


def forger_in(link: Link, liar: Host, connection: Connection, ends: Ends) -> Forger:
    """Speaks as this host in the connection."""
    ports = [peer.sock.getsockname()[1] for peer in connection.peers]
    return Forger(link, liar, ends.wire, *(ports if liar is link.a else ports[::-1]))


def forge_in_session(forger: Forger) -> int:
    """An unsigned and a wrongly signed segment: refused and counted. Gives how many are bad."""
    victim = forger.other
    expected = Counter(victim.counters())
    segment = forger.tcp()
    for signature, counter in ((None, REQUIRED), (forger.ao(WRONG), BAD)):
        forger.send(segment, signature)
        expected[counter] += 1
        wait_for("the forgery to be refused", lambda: victim.counters() == expected)
    return 1  # the wrong key is known to the verifier


def forge_handshake(link: Link, ends: Ends) -> None:
    """A handshake that strays: the ACK of a request, and an RST that is not sent."""
    listener = link.listen("ours", ends, FIRST, port=STRAY_PORT)
    forger = Forger(link, link.a, ends.wire, 1024, STRAY_PORT)
    forger.send(forger.tcp(seq=9000, flags=SYN), forger.ao(FIRST, src_isn=9000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    ack, signature = forger.tcp(), forger.ao(FIRST)
    forger.send(replace(ack, seq=ack.seq + (1 << 20)), signature)
    flags = {ACK, SYN | ACK}  # which is sent again now and then
    wait_for("the ACK", lambda: {answer.flags for answer in forger.segments(link.b)} == flags)
    forger.send(replace(ack, ack=ack.ack + 1), signature)
    assert not listener.asked


def replay_in_time_wait(forger: Forger, owner: Peer) -> int:
    """What the TIME-WAIT socket answers is signed; what is not signed it does not answer.

    Then the traffic key that it has stands no more. Preemption may be off: another one is derived,
    and no memory taken for it, which on PREEMPT_RT the allocator might sleep for.
    """
    sent, last = len(forger.segments(forger.other)), forger.tcp(flags=FIN | ACK)
    last, signature = replace(last, seq=last.seq - 1), forger.ao(FIRST)
    forger.send(last)
    forger.send(last, signature)
    wait_for("the ACK of TIME-WAIT", lambda: len(forger.segments(forger.other)) > sent)
    assert len(forger.segments(forger.other)) == sent + 1

    owner.add(SECOND)
    counters = forger.other.namespace.counters
    good = counters()[GOOD]
    with Ledger() as ledger:
        for count in range(1, 4):
            forger.send(last, signature)
            wait_for("it to be verified", lambda count=count: counters()[GOOD] == good + count)
        ledger.left()
    assert not ledger.taken
    return 1


def protected_traffic(link: Link, ends: Ends) -> None:
    """Everything that meets a hook; what is not ours to forge is signed."""
    bad = 0
    served = link.connected("native", "ours", ends)
    served.exchange()
    bad += forge_in_session(forger_in(link, link.a, served, ends))
    served.exchange()
    assert abi.get_authopt(served.server.sock).flags & abi.FLAG_ACTIVE
    # Data for a socket that was closed is answered by an RST.
    served.server.sock.close()
    served.client.sock.send(b"too late")
    error = socket.SOL_SOCKET, socket.SO_ERROR
    wait_for("the RST", lambda: served.client.sock.getsockopt(*error) == errno.EPIPE)

    ours = link.connected("ours", "native", ends, port=NATIVE_PORT)
    ours.exchange()
    forger = forger_in(link, link.b, ours, ends)
    bad += forge_in_session(forger)
    ours.exchange()
    ours.close()
    owner = link.client("ours", ends)
    bad += replay_in_time_wait(forger, owner)
    owner.delete(SECOND)

    forge_handshake(link, ends)
    report = link.audit()
    assert len(report.bad) == bad, report.summary()


def other_traffic(link: Link, ends: Ends) -> None:
    """Connections that are none of ours."""
    link.connected("native", "native", ends, port=OTHER_PORT).exchange()
    plain = link.connected("plain", "plain", ends, port=PLAIN_PORT)
    plain.exchange()
    unsigned = {
        PLAIN_PORT in (record.segment.sport, record.segment.dport)
        for record in link.audit(unsigned=True).unsigned
    }
    assert True in unsigned

    # A socket with itself, whose SYN crosses itself.
    looped = link.a.tcp_socket(ends.client)
    looped.bind((link.a.address(ends.wire, ends.client), 0))
    looped.connect(looped.getsockname())

    # A socket whose connection was not protected: its state comes back as it listens.
    abi.set_authopt(plain.client.sock)
    disconnect(plain.client.sock)
    listener = listen_on(link, ends, plain.client.sock)
    forger = Forger(link, link.b, ends.wire, FAR_PORT, PORT)
    refused = link.a.counters().get(REQUIRED, 0)
    forger.send(forger.tcp(flags=SYN))
    wait_for("the SYN to be refused", lambda: link.a.counters()[REQUIRED] == refused + 1)
    assert not listener.asked


def test_plain_segments_meet_no_hook(functions, link):
    connection = link.connected("plain", "plain", port=PLAIN_PORT)
    client, server = connection.client.sock, connection.server.sock
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tracer = TRACERS["fentry"](functions)

    def quiet(segments: int) -> bool:
        before = tracer.hits()
        for _ in range(segments):
            client.send(b"x")
            server.recv(1)
        return tracer.hits() == before

    try:
        # While any socket of the machine has an MD5 key, the stack looks for one every time.
        wait_for("the MD5 keys of other tests to be gone", lambda: quiet(1))
        assert quiet(SEGMENTS)
        before = tracer.hits()
        connection.close()
        assert tracer.hits() != before
    finally:
        tracer.close()
    assert len(link.verify(unsigned=True).unsigned) > SEGMENTS


@pytest.mark.usefixtures("functions")
def test_no_lock_sleeps_where_preemption_may_be_off(link):
    """A socket whose state was parked listens: the module's locks are taken in the callback."""
    client = link.connected("plain", "plain").client.sock
    abi.set_authopt(client)
    disconnect(client)
    with SleepingLocks() as locks:
        listen_on(link, V4, client)
        assert not locks.taken()
    link.verify(unsigned=True)


def nothing_gets_by(traced: Traced, link: Link, ends: Ends) -> None:
    """The tests of a kind of tracer."""
    before = traced.tracer.hits()
    use_md5(link)
    protected_traffic(link, ends)
    other_traffic(link, ends)
    hits = traced.tracer.hits() - before
    unmet = {name for name in traced.functions if not hits[name]}
    assert unmet == {name for name in traced.functions if OTHER_FAMILY[ends.wire] in name}


def test_nothing_gets_by_if_attached_after_the_module(traced, link):
    nothing_gets_by(traced, link, V6)


@pytest.fixture
def reloaded(module, traced):
    """The module has come after the tracer."""
    module.unload(wait=True)
    module.enable()


@pytest.mark.usefixtures("reloaded")
def test_nothing_gets_by_if_attached_before_the_module(traced, link):
    nothing_gets_by(traced, link, V4)
