"""What the module has hooked, and what else may sit on these functions: tracers that count."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import bpf

TRACEFS = Path("/sys/kernel/tracing")


def hooked() -> dict[str, str]:
    """The functions that the loaded module has hooked, each with its callback.

    Only while nobody else is on them: ftrace does not tell who shares a function.
    """
    text = (TRACEFS / "enabled_functions").read_text()
    return dict(re.findall(r"^(\S+) .*->(\w+)\+\S+ \[tcp_authopt\]$", text, re.MULTILINE))


class Tracer(Protocol):
    """Something on functions that counts."""

    def hits(self) -> Counter[str]:
        """How often each function was met."""

    def close(self) -> None:
        """Detaches it."""


class Events:
    """An event of tracefs with a probe on each function; a record in the trace is a hit."""

    def __init__(
        self,
        functions: Iterable[str],
        name: str,
        kind: str,
        suffix: str = "",
        only: str = "",
    ) -> None:
        self.name = name
        self._define(f"{kind}:tao/{name} {function}{suffix}" for function in functions)
        if only:
            (TRACEFS / "events/tao" / name / "filter").write_text(only)
        self._switch("1")

    @staticmethod
    def _define(lines: Iterable[str]) -> None:
        # Opened by hand: it can be appended to, but not sought in.
        fd = os.open(TRACEFS / "dynamic_events", os.O_WRONLY | os.O_APPEND)
        try:
            for line in lines:
                os.write(fd, f"{line}\n".encode())
        finally:
            os.close(fd)

    def _switch(self, value: str) -> None:
        (TRACEFS / "events/tao" / self.name / "enable").write_text(value)

    def hits(self) -> Counter[str]:
        """Counts the records: where, or from where to where."""
        trace = (TRACEFS / "trace").read_text()
        return Counter(re.findall(rf": {self.name}: \((?:\S+ <- )?(\w+)", trace))

    def close(self) -> None:
        """Removes it."""
        self._switch("0")
        self._define([f"-:tao/{self.name}"])
        (TRACEFS / "trace").write_text("")


class Programs:
    """BPF programs."""

    def __init__(self, functions: Iterable[str], attach: int) -> None:
        self.programs: dict[str, bpf.Counter] = {}
        for function in functions:
            self.programs[function] = bpf.Counter(function, attach)

    def hits(self) -> Counter[str]:
        """Asks the programs."""
        return Counter({function: program.hits for function, program in self.programs.items()})

    def close(self) -> None:
        """Detaches the programs."""
        for program in self.programs.values():
            program.close()


class Several:
    """Tracers of several kinds at once; only what all of them met counts."""

    def __init__(self, functions: Iterable[str], kinds: Iterable[str]) -> None:
        self.tracers = [TRACERS[kind](functions) for kind in kinds]

    def hits(self) -> Counter[str]:
        """The least that any of them counted."""
        first, *others = [tracer.hits() for tracer in self.tracers]
        for other in others:
            first &= other
        return first

    def close(self) -> None:
        """Detaches them, the last one first."""
        for tracer in reversed(self.tracers):
            tracer.close()


class SleepingLocks:
    """The locks that the module takes by itself, of those that sleep on PREEMPT_RT.

    Elsewhere they are inline and spin; there is nothing to be seen, and none is.
    """

    TAKE = "rt_spin_lock"

    def __enter__(self) -> Self:
        text = int(Path("/sys/module/tcp_authopt/sections/.text").read_text(), 16)
        self._events: Events | None = None
        if f" T {self.TAKE}\n" in Path("/proc/kallsyms").read_text():
            here = f"by >= {text:#x} && by < {text + (1 << 20):#x}"
            self._events = Events([self.TAKE], "locks", "p", " by=$stack0:x64", here)
        return self

    def taken(self) -> int:
        """How many so far."""
        return self._events.hits()[self.TAKE] if self._events else 0

    def __exit__(self, *_: object) -> None:
        if self._events:
            self._events.close()


@dataclass(frozen=True)
class Allocation:
    """A piece of memory that the module has taken."""

    size: int
    charged: bool
    """To the memory cgroup of the caller."""


class Ledger:
    """All memory that Rust takes in the module, and what of it is freed, as the allocator tells.

    Only its events are asked for: reading the trace takes and frees memory, too.
    """

    def __enter__(self) -> Self:
        self.taken: list[Allocation] = []
        self._left: dict[bytes, Allocation] = {}
        self._rest = b""
        self._instance = TRACEFS / "instances/ledger"
        self._instance.mkdir()
        # One clock for all CPUs: what is freed was taken before.
        self._write("trace_clock", "mono")
        self._write("buffer_size_kb", 4096)
        self._write("options/hash-ptr", 0)
        self._pipe = os.open(self._instance / "trace_pipe", os.O_RDONLY | os.O_NONBLOCK)
        text = int(Path("/sys/module/tcp_authopt/sections/.text").read_text(), 16)
        filters = {
            "kmalloc": f"call_site >= {text:#x} && call_site < {text + (1 << 20):#x}",
            "kfree": f"call_site.function == {RUST_FREES_IN}",
        }
        for event, filter_ in filters.items():
            self._write(f"events/kmem/{event}/filter", filter_)
            self._write(f"events/kmem/{event}/enable", 1)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._pipe)
        self._instance.rmdir()

    def _write(self, name: str, value: object) -> None:
        (self._instance / name).write_text(str(value))

    def left(self) -> list[Allocation]:
        """What of that is `taken` by now is not freed."""
        while True:
            try:
                self._rest += os.read(self._pipe, 1 << 20)
            except BlockingIOError:
                break
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._note(line)
        return list(self._left.values())

    def _note(self, line: bytes) -> None:
        assert b"LOST" not in line, "the ledger is too small"
        if found := _FREED.search(line):
            self._left.pop(found[1], None)
        # What is made for an RST is freed by the stack.
        elif (found := _TAKEN.search(line)) and found[1] != b"tao_prepare_reset":
            _, pointer, size, charged = found.groups()
            self._left[pointer] = Allocation(int(size), charged == b"true")
            self.taken.append(self._left[pointer])


RUST_FREES_IN = "krealloc_node_align_noprof"

_FREED = re.compile(rb" kfree: call_site=\S+ ptr=(\w+)")
_TAKEN = re.compile(
    rb" kmalloc: call_site=(\w+)\S* \[tcp_authopt\] ptr=(\w+) bytes_req=(\d+) .*accounted=(\w+)"
)


TRACERS: dict[str, Callable[[Iterable[str]], Tracer]] = {
    "kprobe": lambda functions: Events(functions, "kprobe", "p"),
    "kretprobe": lambda functions: Events(functions, "kretprobe", "r"),
    "fprobe": lambda functions: Events(functions, "fprobe", "f", "%return"),
    "fentry": lambda functions: Programs(functions, bpf.FENTRY),
    "fexit": lambda functions: Programs(functions, bpf.FEXIT),
    "several": lambda functions: Several(functions, ["kprobe", "kretprobe", "fentry", "fexit"]),
}
