"""The preload library: every TCP socket of a program that knows nothing of it has the option."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

import abi

pytestmark = pytest.mark.ours

REPO = Path(__file__).resolve().parent.parent.parent
DAEMON = f"""
import socket, sys
try:
    sock = socket.socket(*map(int, sys.argv[1:]))
except OSError as error:
    sys.exit(f"socket: {{error.errno}}")
try:
    print(sock.getsockopt(socket.IPPROTO_TCP, {abi.TCP_AUTHOPT}, 8).hex())
except OSError as error:
    print(error.errno)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """Compiled as its first lines say."""
    library = tmp_path_factory.mktemp("tools") / "authopt-preload.so"
    source, include = REPO / "tools/authopt-preload.c", REPO / "include/uapi"
    options = ["-Wall", "-Werror", "-shared", "-fPIC", f"-I{include}"]
    subprocess.run(["cc", *options, "-o", library, source], check=True)
    return library


def daemon(library: Path, *kind: int) -> subprocess.CompletedProcess[str]:
    """Opens a socket of this family, type and protocol."""
    command = ["env", f"LD_PRELOAD={library}", sys.executable, "-c", DAEMON, *map(str, kind)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


INET, INET6, STREAM, DGRAM, NONBLOCK = 2, 10, 1, 2, 0o4000
TCP, MPTCP = 6, 262
SET = bytes(8).hex()


@pytest.mark.usefixtures("sock")
@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ((INET, STREAM, 0), SET),
        ((INET, STREAM | NONBLOCK, TCP), SET),
        ((INET6, STREAM, TCP), SET),
        ((INET, DGRAM, 0), str(errno.EOPNOTSUPP)),
    ],
    ids=["v4", "v4-nonblocking", "v6", "udp"],
)
def test_who_has_it(library, kind, answer):
    done = daemon(library, *kind)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == answer


@pytest.mark.usefixtures("sock")
def test_mptcp_is_refused(library):
    """It would connect without protection, and nobody notice."""
    done = daemon(library, INET, STREAM, MPTCP)
    if f"socket: {errno.EPROTONOSUPPORT}" in done.stderr:
        pytest.skip("the kernel has no MPTCP")
    assert done.returncode == 1
    assert "MPTCP has no protection" in done.stderr
    assert done.stderr.endswith(f"socket: {errno.ENOPROTOOPT}\n")
