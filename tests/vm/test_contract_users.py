"""Users without privilege, and with it in a user namespace of their own only."""

import ctypes
import errno
import os
import pickle
import socket
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

import abi
from abi import pack_key
from contract import HEADER
from test_socket_options import refused

pytestmark = pytest.mark.ours

PROC = Path("/proc/self/net/tcp_authopt")
SYSCTLS = Path("/proc/sys/net/ipv4")
USER = 65534
PR_SET_DUMPABLE = 4


def become_root_of_own_namespace() -> None:
    """Gives up all privilege, and then is root of a user namespace."""
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    # Else its files in /proc are root's.
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    os.unshare(os.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", "0"), ("gid_map", "0")):
        Path("/proc/self", name).write_text(text if text == "deny" else f"0 {USER} 1")


def as_root_of_own_namespace(work: Callable[[], object]) -> object:
    """Lets a child of no privilege make itself root of a user namespace; returns what it found."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            become_root_of_own_namespace()
            answer = True, work()
        except BaseException:
            answer = False, traceback.format_exc()
        os.write(writable, pickle.dumps(answer))
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        good, answer = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    assert good, answer
    return answer


def refusal(call: Callable[..., object], *arguments: object) -> int:
    """The error of a call, 0 for none."""
    try:
        call(*arguments)
    except OSError as error:
        return error.errno
    return 0


def test_own_network_namespace():
    """Its root manages its keys, sees them, and may let them overlap; the limit is not his."""

    def work() -> dict[str, object]:
        os.unshare(os.CLONE_NEWNET)
        with socket.socket() as sock:
            found = {"add": refusal(abi.set_key, sock, pack_key(1, 2))}
            found["rows"] = PROC.read_text()
            status = PROC.stat()
            found["mode"] = stat.filemode(status.st_mode), status.st_uid, status.st_gid
            found["replace"] = refusal(abi.set_key, sock, pack_key(1, 2, secret=b"x"))
            found["overlap"] = refusal(
                (SYSCTLS / "tcp_authopt_key_overlap").write_text, "1"
            ) or refusal(abi.set_key, sock, pack_key(1, 3))
            found["delete"] = refusal(abi.set_key, sock, pack_key(1, 2, flags=abi.KEY_DEL))
        limit = SYSCTLS / "tcp_authopt_max_keys"
        found["limit"] = limit.read_text()
        found["limit raised"] = refusal(limit.write_text, "131073")
        found["limit lowered"] = refusal(limit.write_text, "1")
        found["limit then"] = limit.read_text()
        found["switch"] = (SYSCTLS / "tcp_authopt").exists()
        return found

    assert as_root_of_own_namespace(work) == {
        "add": 0,
        "rows": HEADER + "0x0\t1\t2\t1\t*\t0\n",
        "mode": ("-r--------", 0, 0),
        "replace": 0,
        "overlap": 0,
        "delete": 0,
        "limit": "131072\n",
        "limit raised": errno.EPERM,
        "limit lowered": errno.EPERM,
        "limit then": "131072\n",
        "switch": False,
    }


def test_initial_network_namespace():
    """The root of another user namespace is nobody there, though his sockets may ask."""

    def work() -> dict[str, int]:
        with socket.socket() as sock:
            return {
                "add": refusal(abi.set_key, sock, pack_key(1, 2)),
                "delete": refusal(abi.set_key, sock, pack_key(1, 2, flags=abi.KEY_DEL)),
                "ask": refusal(abi.set_authopt, sock),
                "proc": refusal(PROC.read_text),
                "switch": refusal((SYSCTLS / "tcp_authopt").write_text, "1"),
                "limit": refusal((SYSCTLS / "tcp_authopt_max_keys").write_text, "1"),
                "overlap": refusal((SYSCTLS / "tcp_authopt_key_overlap").write_text, "1"),
            }

    assert as_root_of_own_namespace(work) == {
        "add": errno.EPERM,
        "delete": errno.EPERM,
        "ask": 0,
        "proc": errno.EACCES,
        "switch": errno.EACCES,
        "limit": errno.EACCES,
        "overlap": errno.EACCES,
    }


def test_the_namespace_of_the_socket_counts():
    """Not that of the caller: a socket that he brought along is one of the initial namespace."""

    def work() -> tuple[int, int]:
        with socket.socket() as brought:
            os.unshare(os.CLONE_NEWNET)
            with socket.socket() as own:
                return tuple(refusal(abi.set_key, sock, pack_key(1, 2)) for sock in (brought, own))

    assert as_root_of_own_namespace(work) == (errno.EPERM, 0)


def test_root_of_the_initial_namespace_may_everywhere():
    """With a socket of the user's namespace, which he was handed."""
    ours, theirs = socket.socketpair()

    def work() -> str:
        os.unshare(os.CLONE_NEWNET)
        with socket.socket() as sock:
            socket.send_fds(theirs, [b"key, please"], [sock.fileno()])
            theirs.recv(1)
        return PROC.read_text()

    child = os.fork()
    if not child:
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 100, 1)
        failed = errno.EBADF
        for fd in fds:
            with socket.socket(fileno=fd) as sock:
                failed = refusal(abi.set_key, sock, pack_key(1, 2))
        ours.send(b"!")
        os._exit(failed)
    ours.close()
    try:
        rows = as_root_of_own_namespace(work)
    finally:
        theirs.close()
        _, status = os.waitpid(child, 0)
    assert rows == HEADER + "0x0\t1\t2\t1\t*\t0\n"
    assert status == 0


@pytest.mark.parametrize("name", ["tcp_authopt", "tcp_authopt_key_overlap", "tcp_authopt_max_keys"])
def test_users_read_sysctls_and_do_not_write_them(name):
    sysctl = SYSCTLS / name
    before = sysctl.read_text()
    os.seteuid(USER)
    try:
        assert sysctl.read_text() == before
        with refused(errno.EACCES):
            sysctl.write_text(before)
    finally:
        os.seteuid(0)
