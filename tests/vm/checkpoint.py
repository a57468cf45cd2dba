"""Checkpoint and restore of a connection of ours, as in Documentation/abi.rst."""

import fcntl
import os
import socket
import struct
import termios
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import abi
from link import TIMEOUT, Host, Peer

TCP = socket.IPPROTO_TCP
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS = 19, 20, 21, 22
TCP_TIMESTAMP, TCP_REPAIR_WINDOW = 24, 29
ON, OFF, OFF_WITHOUT_PROBE = 1, 0, -1
RECEIVE_QUEUE, SEND_QUEUE = 1, 2
OPTION_MSS, OPTION_WINDOW, OPTION_SACK, OPTION_TIMESTAMP = 2, 3, 4, 8
INFO_TIMESTAMPS, INFO_SACK, INFO_WSCALE = 1, 2, 4

WINDOW = struct.Struct("=IIIII")  # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
ROOM = 1 << 20


def signed(value: int) -> int:
    """An option value is an int, whatever it stands for."""
    return (value + (1 << 31)) % (1 << 32) - (1 << 31)


def repair(sock: socket.socket, mode: int) -> None:
    """Enters or leaves repair."""
    sock.setsockopt(TCP, TCP_REPAIR, mode)


def _choose(sock: socket.socket, queue: int) -> None:
    sock.setsockopt(TCP, TCP_REPAIR_QUEUE, queue)


def put(sock: socket.socket, queue: int, data: bytes) -> None:
    """Fills a queue, of a socket in repair; what goes into the send queue counts as sent."""
    _choose(sock, queue)
    rest = memoryview(data)
    while rest:
        rest = rest[sock.send(rest) :]


def _peek(sock: socket.socket, queue: int) -> tuple[int, bytes]:
    """The sequence number at the end of a queue, and what is in it."""
    _choose(sock, queue)
    end = sock.getsockopt(TCP, TCP_QUEUE_SEQ) % (1 << 32)
    try:
        return end, sock.recv(ROOM, socket.MSG_PEEK)
    except BlockingIOError:
        return end, b""


@dataclass(frozen=True)
class Frozen:
    """A connection, as far as the kernel knows it."""

    family: socket.AddressFamily
    near: tuple
    far: tuple
    authopt: abi.Authopt
    ao: abi.RepairAuthopt
    receive_end: int
    received: bytes
    """What the program has not read yet."""
    send_end: int
    sent: bytes
    """What the peer has not acknowledged."""
    unsent: bytes
    options: tuple[tuple[int, int], ...]
    timestamp: int
    window: bytes

    @staticmethod
    def read_ao(sock: socket.socket) -> tuple[abi.Authopt, abi.RepairAuthopt]:
        """What TCP-AO needs beyond the keys."""
        return abi.get_authopt(sock), abi.get_repair(sock)

    @classmethod
    def of(cls, sock: socket.socket) -> Self:
        """Reads everything; the socket is in repair, and stays there."""
        sock.setblocking(False)
        receive_end, received = _peek(sock, RECEIVE_QUEUE)
        send_end, queued = _peek(sock, SEND_QUEUE)
        (unsent,) = struct.unpack("=i", fcntl.ioctl(sock, 0x894B, bytes(4)))  # SIOCOUTQNSD
        (outstanding,) = struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
        assert len(queued) == outstanding
        info = sock.getsockopt(TCP, socket.TCP_INFO, 8)
        known, scales = info[5], info[6]
        options = [(OPTION_MSS, sock.getsockopt(TCP, socket.TCP_MAXSEG))]
        if known & INFO_WSCALE:
            options.append((OPTION_WINDOW, scales & 0xF | scales >> 4 << 16))
        if known & INFO_SACK:
            options.append((OPTION_SACK, 0))
        if known & INFO_TIMESTAMPS:
            options.append((OPTION_TIMESTAMP, 0))
        return cls(
            sock.family,
            sock.getsockname(),
            sock.getpeername(),
            *cls.read_ao(sock),
            receive_end,
            received,
            send_end,
            queued[: len(queued) - unsent],
            queued[len(queued) - unsent :],
            tuple(options),
            sock.getsockopt(TCP, TCP_TIMESTAMP),
            sock.getsockopt(TCP, TCP_REPAIR_WINDOW, WINDOW.size),
        )

    def moved(self, sent: int, received: int) -> Self:
        """As if so many more bytes had passed either way; the SNEs stay at the old places."""
        wl1, snd_wnd, max_window, rcv_wnd, wup = WINDOW.unpack(self.window)
        return replace(
            self,
            send_end=self.send_end + sent,
            receive_end=self.receive_end + received,
            window=WINDOW.pack(
                (wl1 + received) % (1 << 32),
                snd_wnd,
                max_window,
                rcv_wnd,
                (wup + received) % (1 << 32),
            ),
        )

    def connect(self, host: Host) -> socket.socket:
        """A socket in repair at the place of the old one, established but without its ISNs."""
        sock = host.tcp_socket(self.family)
        repair(sock, ON)
        starts = (
            (RECEIVE_QUEUE, self.receive_end - len(self.received)),
            (SEND_QUEUE, self.send_end - len(self.sent) - len(self.unsent)),
        )
        for queue, start in starts:
            _choose(sock, queue)
            sock.setsockopt(TCP, TCP_QUEUE_SEQ, signed(start))
        sock.bind(self.near)
        self.set_authopt(sock)
        sock.connect(self.far)
        return sock

    def set_authopt(self, sock: socket.socket) -> None:
        """TCP_AUTHOPT as it was read."""
        sock.setsockopt(TCP, abi.TCP_AUTHOPT, abi.AUTHOPT.pack(*self.authopt))

    def set_ao(self, sock: socket.socket) -> None:
        """What TCP-AO needs beyond the keys: right after connect()."""
        abi.set_repair(sock, self.ao)
        self.set_authopt(sock)

    def set_rest(self, sock: socket.socket) -> None:
        """What any connection needs."""
        options = b"".join(struct.pack("=II", *option) for option in self.options)
        sock.setsockopt(TCP, TCP_REPAIR_OPTIONS, options)
        sock.setsockopt(TCP, TCP_TIMESTAMP, self.timestamp)
        put(sock, RECEIVE_QUEUE, self.received)
        put(sock, SEND_QUEUE, self.sent)
        sock.setsockopt(TCP, TCP_REPAIR_WINDOW, self.window)

    def rebuild(self, host: Host) -> socket.socket:
        """The connection, which goes on."""
        sock = self.connect(host)
        self.set_ao(sock)
        self.set_rest(sock)
        repair(sock, OFF)
        sock.sendall(self.unsent)
        return sock


def freeze(peer: Peer) -> Frozen:
    """Takes the connection's state out of the kernel; the socket goes without a word."""
    repair(peer.sock, ON)
    frozen = Frozen.of(peer.sock)
    peer.sock.close()
    return frozen


def in_another_process(host: Host, build: Callable[[Host], socket.socket]) -> socket.socket:
    """A socket that a process makes which ends with that."""
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            socket.send_fds(there, [b"!"], [build(host).fileno()])
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    there.close()
    with here:
        _, fds, _, _ = socket.recv_fds(here, 1, 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the other process has failed"
    return adopt(host, socket.socket(fileno=fds[0]))


def adopt(host: Host, sock: socket.socket) -> socket.socket:
    """Makes the socket one that is closed with its host."""
    sock.settimeout(TIMEOUT)
    host.sockets.append(sock)
    return sock
