"""The first TCP_AUTHOPT on the machine makes what all later ones share: nobody's in particular."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import abi
from bpf import NoKernelSockets, NoOption
from clock import wait_for
from conftest import CGROUP
from test_socket_options import refused

pytestmark = pytest.mark.ours


@pytest.fixture(autouse=True)
def _fresh(module):
    """Nobody has used the module yet."""
    module.unload(wait=True)
    module.enable()


@pytest.fixture
def group() -> Iterator[Path]:
    """A cgroup that this process is in, for as long as it has not left it."""
    group = CGROUP / "tcp-authopt-first"
    group.mkdir()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    yield group
    leave(group)


def leave(group: Path) -> None:
    """Leaves the cgroup and removes it."""
    (CGROUP / "cgroup.procs").write_text(str(os.getpid()))
    if group.exists():
        group.rmdir()


def dying() -> int:
    """How many cgroups were removed and cannot go."""
    fields = dict(line.split() for line in (CGROUP / "cgroup.stat").read_text().splitlines())
    return int(fields["nr_dying_descendants"])


@contextmanager
def available(program: Callable[[], NoOption | NoKernelSockets]) -> Iterator[None]:
    """The program, while it is attached, on kernels that have such."""
    try:
        attached = program()
    except (OSError, KeyError) as error:
        if os.uname().release.endswith("-amd64"):
            raise
        pytest.skip(f"the kernel has no such programs: {error}")
    with closing(attached):
        yield


def use() -> None:
    """Asks for protection once, and closes the socket."""
    with socket.socket() as sock:
        abi.set_authopt(sock)


def test_first_user_can_go(group):
    """His cgroup goes when he does, though the module stays."""
    wait_for("other cgroups to go", lambda: dying() == 0, 20)
    use()
    leave(group)
    wait_for("the cgroup to go", lambda: dying() == 0, 20)
    use()


def test_rules_for_the_first_user_do_not_count(group):
    """They are for his own sockets, and would refuse what the stack is asked for."""
    with available(lambda: NoOption(group, socket.IPPROTO_TCP, abi.TCP_AO_INFO)):
        with socket.socket() as sock, refused(errno.EPERM):
            abi.native_require(sock)
        use()


def test_rules_of_the_machine_count():
    """With the error that is theirs; and the next one is the first."""
    with available(NoKernelSockets):
        for _ in range(2):
            with socket.socket() as sock:
                with refused(errno.EACCES):
                    abi.set_authopt(sock)
                with refused(errno.ENOENT):
                    abi.get_authopt(sock)
    use()
