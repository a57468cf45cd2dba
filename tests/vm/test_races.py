"""Windows of some nanoseconds between two CPUs; sabotages widen them, and these tests notice."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from craft import ACK, PSH, SYN, Tcp
from forge import Forger
from link import FIRST, PORT, V4, V6, Link
from requirement import requirement

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]


@contextmanager
def elsewhere(work: Callable[[], None], pause: float = 0.001) -> Iterator[None]:
    """A process does the work again and again on one CPU, while what is inside runs on another.

    What is inside must not look at the capture, which is never complete.
    """
    cpus = sorted(os.sched_getaffinity(0))
    assert len(cpus) > 1, "it takes two CPUs"
    begun, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.sched_setaffinity(0, cpus[1:])
            work()
            os.write(tell, b"!")
            while True:
                work()
                time.sleep(pause)
        finally:
            os._exit(1)
    os.close(tell)
    os.sched_setaffinity(0, cpus[:1])
    try:
        assert os.read(begun, 1), "it has ended"
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(begun)
        os.sched_setaffinity(0, cpus)


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_state_goes_while_a_segment_asks_for_it(link: Link, ends):
    """connect() to a peer without a key parks the state, while segments come for the socket."""
    forger = Forger(link, link.b, ends.wire, PORT, 5000, unsigned=True)
    frame = forger.frame(forger.tcp(seq=1, ack=1, flags=ACK))
    with elsewhere(lambda: link.b.inject(frame), pause=0.0001):
        for _ in range(80):
            client = link.client("ours", ends)
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.sock.bind((link.a.address(ends.wire, ends.client), 5000))
            link.start(client)
            assert abi.get_authopt(client.sock).flags == 0
            client.sock.close()
    link.audit(unsigned=True)


@requirement(15)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("_time", range(2))
def test_segment_of_one_wrap_ago(link: Link, ends, _time):
    """It has the sequence number and, until the wrap is counted, the SNE of what is expected."""
    isn = (1 << 32) - 1000
    listener = link.listen("ours", ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=isn, flags=SYN), forger.ao(FIRST, src_isn=isn))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    forger.send(forger.tcp(), forger.ao(FIRST))
    server = listener.accept()
    base = forger.tcp(flags=ACK | PSH)
    before, behind = forger.ao(FIRST), forger.ao(FIRST, sne=1)
    # The second one ends behind the wrap.
    first, second = bytes(900), bytes(599)
    forger.send(changed(base, isn + 1, first), before)
    assert server.sock.recv(2000) == first
    old = forger.frame(changed(base, 500, b"four GiB ago"), before)
    with elsewhere(lambda: link.a.inject(old)):
        forger.send(changed(base, isn + 1 + len(first), second), before)
        assert server.sock.recv(2000) == second
    forger.send(changed(base, 500, b"what is next"), behind)
    assert server.sock.recv(2000) == b"what is next"
    link.audit()


def changed(segment: Tcp, seq: int, payload: bytes) -> Tcp:
    """The segment at another place of the stream, with other data."""
    return replace(segment, seq=seq, payload=payload)
