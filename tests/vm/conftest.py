"""Fixtures of the tests that run as root inside the virtual machine.

Everything happens in one thread: a socket keeps the namespace that it was made in, so both ends
of a connection can be held by one process. Each test has namespaces, and so keys, of its own.
"""

import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from clock import SLOWDOWN
from link import Link
from module import Module
from netns import Namespace
from speakers import DAEMONS, NativeBird
from stage import Stage
from wall import T, Wall

OURS = pytest.mark.ours
ROLES = [pytest.param("ours", marks=OURS), "native"]
PAIRS = [
    pytest.param("ours", "ours", marks=OURS, id="ours-ours"),
    pytest.param("ours", "native", marks=OURS, id="ours-native"),
    pytest.param("native", "ours", marks=OURS, id="native-ours"),
    pytest.param("native", "native", id="native-native"),
]
"""Client and server; the kernel's own with itself shows that a test asks nothing odd."""

CGROUP = Path("/sys/fs/cgroup")
RCU_EXPEDITED = Path("/sys/kernel/rcu_expedited")
TEST_SECONDS = 60
FIRST, LAST = ("test_sysctl.py",), ("test_drain.py", "test_unload.py")


def pytest_configure(config: pytest.Config) -> None:
    """Declares the marker."""
    config.addinivalue_line("markers", "ours: needs the module; loads it and turns the sysctl on")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The sysctl is tested before anything turns it on, unloading after everything else."""
    items.sort(key=lambda item: (item.path.name in LAST, item.path.name not in FIRST))


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Says beside the verdict how many captured segments it rests on, or what else was counted."""
    said = dict(report.user_properties)
    if "segments" in said:
        said.setdefault("counted", f"{said['segments']:>5} segments checked")
    if report.when == "call" and report.passed and "counted" in said:
        return "passed", ".", f"PASSED {said['counted']}, {report.duration:.1f} s"
    return None


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """The sum over all tests."""
    reports = terminalreporter.stats.get("passed", [])
    total = sum(dict(report.user_properties).get("segments", 0) for report in reports)
    terminalreporter.write_line(f"{total} segments checked in all captures")


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """No test may hang."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"the test took more than {TEST_SECONDS * SLOWDOWN:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, TEST_SECONDS * SLOWDOWN)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def module() -> Iterator[Module]:
    """The module under test; at the very end it must go without a trace."""
    module = Module()
    yield module
    if module.loaded:
        module.unload(wait=True)


@pytest.fixture(autouse=True)
def _needs_module(request: pytest.FixtureRequest, module: Module) -> None:
    """Skips what needs the module where it is meant to be missing."""
    if request.node.get_closest_marker("ours") is None:
        return
    module.require()
    module.enable()


@pytest.fixture(autouse=True)
def _requirement() -> None:
    """Lets each test be told its requirements: see requirement.py."""


@pytest.fixture
def quick() -> Iterator[None]:
    """A grace period follows each change of a key's bytes and each deletion: not a long one."""
    RCU_EXPEDITED.write_text("1")
    yield
    RCU_EXPEDITED.write_text("0")


@pytest.fixture
def charged() -> Iterator[Callable[[], int]]:
    """A memory cgroup that this process is in; gives what it was charged for kernel objects."""
    (CGROUP / "cgroup.subtree_control").write_text("+memory")
    group = CGROUP / "tcp-authopt-test"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))

    def slab() -> int:
        fields = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int(fields["slab"])

    yield slab
    (CGROUP / "cgroup.procs").write_text(str(os.getpid()))
    group.rmdir()
    (CGROUP / "cgroup.subtree_control").write_text("-memory")


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A socket in a namespace without any interface or key."""
    namespace = Namespace()
    with namespace.entered(), socket.socket() as sock:
        yield sock
    namespace.close()


@pytest.fixture
def sock6(sock: socket.socket) -> Iterator[socket.socket]:
    """An IPv6 socket in the same namespace."""
    with socket.socket(socket.AF_INET6) as sock6:
        yield sock6


@pytest.fixture
def wall() -> Iterator[Wall]:
    """The wall clock, to be set at will."""
    wall = Wall()
    yield wall
    wall.restore()


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key command."""
    tree, program = Path(__file__).parents[2], tmp_path_factory.mktemp("tools") / "tcp-authopt-key"
    source, include = tree / "tools/tcp-authopt-key.c", tree / "include/uapi"
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{include}", "-o", program, source], check=True)
    return program


@pytest.fixture
def last(request: pytest.FixtureRequest, directory: Path) -> Iterator[ExitStack]:
    """What is to be taken down in the end; of a test that has failed, the daemons' last words."""
    with ExitStack() as last:
        yield last
        if failed(request.node):
            for log in sorted(directory.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-40:]
                print(f"--- {log.name} ---", *lines, sep="\n")


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place for files that users without privilege may read."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def set_stage(command: Path, directory: Path, last: ExitStack, wall: Wall) -> Callable[..., Stage]:
    """Gives a stage for a daemon, by its name, on which nothing runs yet."""
    wall.set(T)
    return lambda name, *connect: Stage(
        DAEMONS[name]("here", directory), NativeBird("there", directory), command, last, *connect
    )


@pytest.fixture
def topology() -> type[Link]:
    """What is between the two hosts; a file of tests may have one of its own."""
    return Link


@pytest.fixture
def link(request: pytest.FixtureRequest, topology: type[Link]) -> Iterator[Link]:
    """Two hosts and a tapped cable; a test that ends without judging the capture has failed."""
    link = topology()
    try:
        yield link
        if directory := os.environ.get("TAO_CAPTURES"):
            name = "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name)
            link.save(Path(directory, name))
        if not failed(request.node):
            assert link.report is not None, "nobody looked at the capture"
    finally:
        link.close()


_FAILED = pytest.StashKey[bool]()


def failed(node: pytest.Item) -> bool:
    """Whether the test has failed already."""
    return node.stash.get(_FAILED, False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> pytest.TestReport:
    """Notes what the captures showed, and for the fixtures whether the test has failed already."""
    machine = item.funcargs.get("machine")
    links = machine.links.values() if machine else [item.funcargs.get("link")]
    reports = [link.report for link in links if link is not None and link.report is not None]
    if call.when == "call" and reports:
        checked = sum(len(report.segments) for report in reports)
        item.user_properties.append(("segments", checked))
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = not report.passed
    return report
