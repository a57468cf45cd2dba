"""Whose each call is, by option, length and content, with the sysctl off and on.

What is the kernel's must be answered as it is without the module: that is recorded first. What is
ours is answered as the model in contract.py says.
"""

import errno
import socket
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import pytest

import abi
import contract
from contract import Keys, State, Whose, whose
from module import SYSCTL
from netns import Namespace

TCP = socket.IPPROTO_TCP
OPTIONS = range(38, 43)
LENGTHS = range(601)

PEER = "192.0.2.2"
CONTENTS = {
    38: (
        b"",
        abi.AUTHOPT.pack(abi.FLAG_REJECT_UNEXPECTED | abi.FLAG_LOCK_KEYID, 7, 8, 9, 10),
        abi.AO_ADD.pack(abi.pack_sockaddr(PEER), b"hmac(sha1)", 0, 0, 0, 32, 1, 2, 0, 0, 3, b"xyz"),
    ),
    39: (
        abi.pack_key(1, 2, secret=b"8 bytes.", flags=0x780, lifetimes=(1, 9, 1, 9)),
        abi.pack_key(3, 4, address=PEER, prefixlen=32),
        abi.AO_DEL.pack(abi.pack_sockaddr(PEER), 0, 0, 0, 32, 9, 9, 0, 0, 0),
    ),
    40: (
        abi.REPAIR_AUTHOPT.pack(1, 2, 3, 4, 5, 6),
        abi.AO_INFO.pack(abi.INFO_AO_REQUIRED, 0, 0, 0, 0, 0, 0, 0, 0),
    ),
    41: (b"",),
    42: (b"",),
}
"""Values of both interfaces, which each length cuts or fills up with zeros."""


class Call(NamedTuple):
    """A call with a value, of which a get has the length only."""

    setting: bool
    option: int
    value: bytes

    def on(self, sock: socket.socket) -> int | bytes:
        """Makes it: the error, or 0, or what a get has read."""
        try:
            if not self.setting:
                return abi.getsockopt_filled(sock, self.option, self.value)
            sock.setsockopt(TCP, self.option, self.value)
        except OSError as error:
            return error.errno
        return 0


def calls() -> Iterator[Call]:
    """Every option with every length: a get, each content cut to it, and a last byte that is set.

    The last byte is that of the first content, and of the kernel's where the content decides.
    """
    for option, length in product(OPTIONS, LENGTHS):
        yield Call(False, option, bytes(length))
        for content in CONTENTS[option]:
            value = content[:length].ljust(length, b"\0")
            yield Call(True, option, value)
            first, decisive = content is CONTENTS[option][0], len(content) == abi.AO_ADD.size
            if length and (first or decisive):
                yield Call(True, option, value[:-1] + b"\1")


CALLS = list(calls())
WHOSE = {
    state: [whose(call.option, call.value, state, setting=call.setting) for call in CALLS]
    for state in State
}
STATE_AFTER = {
    (Whose.KERNEL, abi.TCP_AO_ADD_KEY): State.NATIVE,
    (Whose.KERNEL, abi.TCP_AO_INFO): State.NATIVE,
    (Whose.OURS, abi.TCP_AUTHOPT): State.OURS,
    (Whose.OURS, abi.TCP_AUTHOPT_KEY): State.OURS,
}
"""What a socket with neither carries after a call that succeeded."""


def fresh(state: State) -> socket.socket:
    """A socket with this state."""
    sock = socket.socket()
    if state is State.OURS:
        abi.set_authopt(sock)
    elif state is State.NATIVE:
        abi.native_add_key(sock, "192.0.2.9", 32, 50, 60, "hmac(sha1)", b"x")
    return sock


def state_of(sock: socket.socket) -> State:
    """What it carries: option 41 is never ours, and the kernel's says whether there are keys."""
    answer = Call(False, abi.TCP_AO_GET_KEYS, b"\0").on(sock)
    return {errno.ENOPROTOOPT: State.OURS, errno.ENOENT: State.NEITHER}.get(answer, State.NATIVE)


def answers(state: State, *, kernels_only: bool = False) -> Iterator[tuple[int, int | bytes]]:
    """Makes the calls, each on a socket with this state, in a namespace without keys.

    Yields the number of the call and the answer.
    """
    namespace = Namespace()
    with namespace.entered():
        sock = fresh(state)
        for number, call in enumerate(CALLS):
            if kernels_only and WHOSE[state][number] is not Whose.KERNEL:
                continue
            answer = call.on(sock)
            yield number, answer
            if state is State.NEITHER and answer == 0:
                assert state_of(sock) is STATE_AFTER[WHOSE[state][number], call.option], call
                sock.close()
                sock = fresh(state)
        sock.close()
    namespace.close()


@pytest.fixture(scope="module")
def bare(module):
    """What the kernel answers without the module, which is there afterwards, off as it comes."""
    module.require()
    if module.loaded:
        module.unload(wait=True)
    recorded = {
        state: dict(answers(state, kernels_only=True)) for state in (State.NEITHER, State.NATIVE)
    }
    module.load()
    return recorded


@pytest.mark.parametrize("state", [State.NEITHER, State.NATIVE], ids=lambda state: state.value)
def test_all_lengths_while_off(bare, state):
    assert SYSCTL.read_text() == "0\n"
    for number, answer in answers(state):
        match WHOSE[state][number]:
            case Whose.KERNEL:
                assert answer == bare[state][number], CALLS[number]
            case Whose.OURS:
                assert answer == errno.EPERM, CALLS[number]
            case Whose.NOBODY:
                assert answer == errno.ENOPROTOOPT, CALLS[number]


class OurSocket:
    """What we answer on a closed socket that is not in repair."""

    def __init__(self, state: State) -> None:
        self.state, self.flags, self.keys = state, 0, Keys()

    def answer(self, call: Call) -> int | bytes:
        """The model's; TCP_AUTHOPT changes the flags of a socket that is kept."""
        match call.option, call.setting:
            case abi.TCP_AUTHOPT, True:
                error = contract.set_authopt(call.value)
                if not error:
                    self.flags = contract.flags_of(call.value) & ~abi.FLAG_ACTIVE
                return error
            case abi.TCP_AUTHOPT, False if self.state is State.OURS:
                return abi.AUTHOPT.pack(self.flags, 0, 0, 0, 0)[: len(call.value)]
            case abi.TCP_AUTHOPT, False:
                return errno.ENOENT
            case abi.TCP_AUTHOPT_KEY, True:
                return self.keys.set(call.value, socket.AF_INET)
            case abi.TCP_REPAIR_AUTHOPT, True if len(call.value) != abi.REPAIR_AUTHOPT.size:
                return errno.EFAULT
            case _:
                return errno.EPERM


@pytest.mark.parametrize("state", list(State), ids=lambda state: state.value)
def test_all_lengths_while_on(bare, module, state):
    module.enable()
    model = OurSocket(state)
    for number, answer in answers(state):
        match WHOSE[state][number]:
            case Whose.KERNEL:
                assert answer == bare[state][number], CALLS[number]
            case Whose.OURS:
                assert answer == model.answer(CALLS[number]), CALLS[number]
            case Whose.NOBODY:
                assert answer == errno.ENOPROTOOPT, CALLS[number]
