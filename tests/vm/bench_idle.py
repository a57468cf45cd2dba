"""What the module costs a machine that has it loaded and does not use it, in instructions.

Where guest time counts instructions, a difference of two readings of the clock is a number of
instructions; interrupts and what the kernel does on the side come on top at times, so the
smallest of many readings is taken. Python's own instructions are in all columns alike.

    scripts/vm --icount --no-module --share . -- python3 tests/vm/bench_idle.py
"""

import socket
import time
from collections.abc import Callable

import abi
from module import Module

READINGS = 200
SEGMENTS = 1000
LOOPBACK = "127.0.0.1"


class Loopback:
    """A listener, and one established connection with it."""

    def __init__(self) -> None:
        self.listener = socket.create_server((LOOPBACK, 0))
        self.client, self.server = self.connection()
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def connection(self) -> tuple[socket.socket, socket.socket]:
        """A new connection."""
        client = socket.create_connection(self.listener.getsockname())
        return client, self.listener.accept()[0]

    def cycle(self) -> None:
        """Connects, accepts and closes; no TIME-WAIT is left for later readings to find."""
        client, server = self.connection()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        client.close()
        server.close()

    def set_option(self) -> None:
        """An option of TCP."""
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get_option(self) -> None:
        """The same, read."""
        self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def segment(self) -> None:
        """One segment, received by the other end."""
        self.client.send(b"x")
        self.server.recv(1)


def instructions(operation: Callable[[], None], times: int) -> float:
    """How many instructions the operation takes, of so many of them at once."""
    readings = []
    for _ in range(READINGS):
        start = time.monotonic_ns()
        for _ in range(times):
            operation()
        readings.append(time.monotonic_ns() - start)
    return min(readings) / times


def measure() -> dict[str, float]:
    """All rows of the table."""
    loopback = Loopback()
    return {
        "connect, accept, close": instructions(loopback.cycle, 5),
        "setsockopt": instructions(loopback.set_option, 100),
        "getsockopt": instructions(loopback.get_option, 100),
        f"{SEGMENTS} segments": instructions(loopback.segment, 10) * SEGMENTS,
    }


def main() -> None:
    """Prints the table."""
    module = Module()
    # The first time through, all is dearer.
    if not module.loaded:
        module.load()
    measure()
    module.unload(wait=True)
    columns = {"without": measure()}
    module.load()
    columns["loaded"] = measure()
    module.enable()
    with socket.socket() as user:
        abi.set_authopt(user)
        columns["in use elsewhere"] = measure()
    module.unload(wait=True)
    columns["without again"] = measure()
    print(f"{'instructions':24}" + "".join(f"{name:>20}" for name in columns))
    for row, base in columns["without"].items():
        cells = (f"{column[row]:.0f} ({column[row] - base:+.0f})" for column in columns.values())
        print(f"{row:24}" + "".join(f"{cell:>20}" for cell in cells))


if __name__ == "__main__":
    main()
