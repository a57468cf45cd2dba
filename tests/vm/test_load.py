"""Loading: all or nothing, with one line in the kernel's log that says which function and why."""

import errno
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clock import SLOWDOWN, wait_for
from module import finit_module
from tracing import TRACEFS, hooked

pytestmark = pytest.mark.ours

HELPERS = Path(__file__).parents[1] / "modules/build"
FTRACE = Path("/proc/sys/kernel/ftrace_enabled")
LIVEPATCHED = "tcp_ao_established_key"
HELD = "a live patch or the like holds it (-EBUSY)"
OFF = "ftrace is off (kernel.ftrace_enabled) (-EBUSY)"
MISSING = "not in this kernel (-ENOENT)"
ELSEWHERE = "its calls do not come here (-ENXIO)"
HELD_FUNCTIONS = (
    "tcp_connect",
    "tcp_ao_destroy_sock",
    "tcp_ao_do_lookup",
    "tcp_inbound_ao_hash",
    "tcp_setsockopt",
    "tcp_getsockopt",
)
"""Some that share an ``ftrace_ops`` and some that have one; the first of all and the last."""
INSTEAD = ("tcp_reset", "tcp_done")
"""Functions of the kernel that take the place of a hooked one."""
EVERY = os.environ.get("TAO_EVERY_FUNCTION") == "1"
"""Whether to try each of them, a load each, rather than one of its kind."""
SOME_HELD = HELD_FUNCTIONS if EVERY else (HELD_FUNCTIONS[0], HELD_FUNCTIONS[-1])
ATTACHED = {"tao_call", "tao_call_inbound", "tao_call_sockopt"}
ERROR = 3


class Log:
    """The records that the kernel's log gets from now on."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def ours(self) -> list[tuple[int, str]]:
        """Level and text of the module's own."""
        records = []
        while True:
            try:
                head, _, text = os.read(self.fd, 8192).decode().partition(";")
            except BlockingIOError:
                return records
            text = text.partition("\n")[0]
            if text.startswith("tcp_authopt: "):
                records.append((int(head.split(",")[0]) & 7, text))


@pytest.fixture(scope="module")
def functions(module):
    """The functions, each with its callback."""
    module.require()
    module.enable()
    names = hooked()
    assert set(names.values()) == {names[name] for name in HELD_FUNCTIONS} == ATTACHED
    return names


@pytest.fixture
def unloaded(module, functions):
    """The module is out at first, and comes back."""
    module.unload(wait=True)
    yield
    module.enable()


def helper(name: str) -> Path:
    """A module out of tests/modules."""
    path = HELPERS / os.uname().release / f"tao_test_{name}.ko"
    if not path.exists():
        reason = f"{path} is missing: scripts/build --source tests/modules"
        if os.environ.get("TAO_REQUIRE_MODULE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@contextmanager
def held(function: str) -> Iterator[None]:
    """Somebody else may change where calls of this function go."""
    subprocess.run(["insmod", helper("holder"), f"function={function}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["rmmod", "tao_test_holder"], check=True)


@contextmanager
def seen(function: str, found: str, times: int | None = None) -> Iterator[None]:
    """The module sees another first instruction of the function than there is, so often."""
    parameters = [f"function={function}", f"found={found}"]
    if times is not None:
        parameters.append(f"times={times}")
    subprocess.run(["insmod", helper("site"), *parameters], check=True)
    try:
        yield
    finally:
        subprocess.run(["rmmod", "tao_test_site"], check=True)


@contextmanager
def livepatched() -> Iterator[None]:
    """LIVEPATCHED is."""
    subprocess.run(["insmod", helper("livepatch")], check=True)
    patch = Path("/sys/kernel/livepatch/tao_test_livepatch")
    try:
        wait_for("the live patch", lambda: (patch / "transition").read_text() == "0\n", 20)
        yield
    finally:
        (patch / "enabled").write_text("0")
        wait_for("the live patch to go", lambda: not patch.exists(), 20)
        subprocess.run(["rmmod", "tao_test_livepatch"], check=True)


def switch_ftrace_off() -> int:
    """Gives the error, 0 if it is off."""
    try:
        FTRACE.write_text("0")
    except OSError as refused:
        return refused.errno
    return 0


def refuse(file: Path, number: int, function: str, reason: str) -> None:
    """Loading gives this error and this line, and leaves no hook behind."""
    with Log() as log:
        with pytest.raises(OSError, match=rf"^\[Errno {number}\] "):
            finit_module(file)
        assert log.ours() == [(ERROR, f"tcp_authopt: cannot hook {function}: {reason}")]
    assert "tcp_authopt" not in (TRACEFS / "enabled_functions").read_text()
    assert not Path("/sys/module/tcp_authopt").exists()


def test_every_name_is_one_function(functions):
    """The kernel's symbols are searched by name, which finds the first of several."""
    symbols = Path("/proc/kallsyms").read_text()
    names = [*functions, *INSTEAD]
    found = Counter(re.findall(rf" ({'|'.join(names)})$", symbols, re.MULTILINE))
    assert found == dict.fromkeys(names, 1)


@pytest.mark.usefixtures("unloaded")
def test_missing_function(module, functions, tmp_path):
    """In a copy of the module that asks for another name."""
    image = module.file.read_bytes()
    for function in (*functions, *INSTEAD) if EVERY else (HELD_FUNCTIONS[-1], INSTEAD[-1]):
        other = "X" + function[1:]
        copy = tmp_path / "copy.ko"
        # Strings of the code only: names of symbols, which the loader looks for, come behind them.
        name, changed = f"\0{function}\0".encode(), f"\0{other}\0".encode()
        assert name in image
        copy.write_bytes(image.replace(name, changed, 1))
        refuse(copy, errno.ENOENT, other, MISSING)


@pytest.mark.usefixtures("unloaded")
def test_function_that_another_holds(module, functions):
    for function in SOME_HELD:
        with held(function):
            refuse(module.file, errno.EBUSY, function, HELD)
    module.load()
    assert hooked() == functions


@pytest.mark.usefixtures("unloaded")
def test_function_with_a_live_patch(module):
    with livepatched():
        refuse(module.file, errno.EBUSY, LIVEPATCHED, HELD)
    module.load()


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("found", ["nop", "call", "jump"])
def test_hook_that_is_not_armed(module, found):
    """It is attached, as ftrace says, but the function does not call our trampoline."""
    functions = SOME_HELD if found == "nop" else SOME_HELD[-1:]
    for function in functions:
        with seen(function, found):
            refuse(module.file, errno.ENXIO, function, ELSEWHERE)
    module.load()


@pytest.mark.usefixtures("unloaded")
def test_hook_that_is_being_changed(module, functions):
    """Somebody attaches a tracer while the module looks: it looks again."""
    with seen(HELD_FUNCTIONS[0], "breakpoint", times=3):
        module.load()
        assert Path("/sys/module/tao_test_site/parameters/times").read_text() == "0\n"
    assert hooked() == functions


def test_others_find_the_functions_held(functions):
    """Neither a live patch nor the like gets one of ours; afterwards all is as it was."""
    for function in HELD_FUNCTIONS:
        with pytest.raises(subprocess.CalledProcessError), held(function):
            pass
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run(["insmod", helper("livepatch")], check=True)
    assert hooked() == functions


@pytest.mark.usefixtures("unloaded")
def test_ftrace_off(module, functions):
    """Where it still can be switched off, that is what the log says; in 7.3 it cannot."""
    if switch_ftrace_off() == errno.EOPNOTSUPP:
        module.load()
        assert hooked() == functions
        return
    try:
        refuse(module.file, errno.EBUSY, HELD_FUNCTIONS[0], OFF)
    finally:
        FTRACE.write_text("1")


def test_ftrace_stays_on(functions):
    assert switch_ftrace_off() in {errno.EBUSY, errno.EOPNOTSUPP}
    assert FTRACE.read_text() == "1\n"
    assert hooked() == functions


def crowding() -> float:
    """How much longer things take just now because others use the same CPUs.

    Short work is done over and over: at best nobody comes in between.
    """
    times = []
    for _ in range(300):
        start = time.monotonic()
        sum(range(10_000))
        times.append(time.monotonic() - start)
    return sum(times) / len(times) / min(times)


def test_how_long_it_takes(module):
    """Loading and unloading, on an emulated machine that is left alone."""
    loading, unloading = [], []
    module.unload(wait=True)
    for _ in range(4):
        before = crowding()
        start = time.monotonic()
        module.load()
        loaded = time.monotonic()
        loading.append((loaded - start) / max(before, crowding()))
        start = time.monotonic()
        assert not module.unload()
        # Most of this is waiting, which takes no longer on a crowded machine.
        unloading.append(time.monotonic() - start)
    module.enable()
    assert min(loading) < 1.5 * SLOWDOWN, loading
    assert min(unloading) < 2 * SLOWDOWN, unloading
