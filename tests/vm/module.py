"""The kernel module: loading, unloading, and its sysctl."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from clock import wait_for

NAME = "tcp_authopt"
SYSCTL = Path("/proc/sys/net/ipv4/tcp_authopt")
SYS_FINIT_MODULE = 313  # x86-64


def finit_module(file: Path) -> None:
    """Loads the module in this file, here and now, with the error that insmod rewords."""
    libc = ctypes.CDLL(None, use_errno=True)
    with file.open("rb") as module:
        if libc.syscall(SYS_FINIT_MODULE, module.fileno(), b"", 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Module:
    """The module file that was built for this kernel, and its state in it."""

    def __init__(self) -> None:
        self.file = Path(os.environ.get("TAO_MODULE", f"/run/{NAME}.ko"))

    @property
    def loaded(self) -> bool:
        """Whether the kernel has it."""
        return Path("/sys/module", NAME).exists()

    def require(self) -> None:
        """Ends the test where there is no module, which only a developer may want."""
        if self.loaded or self.file.exists():
            return
        reason = "the tcp_authopt module is neither loaded nor there to be loaded"
        if os.environ.get("TAO_REQUIRE_MODULE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    def load(self) -> None:
        """Loads it, off as it comes."""
        subprocess.run(["insmod", self.file], check=True)

    def enable(self) -> None:
        """Loads it if it is not there, and turns it on; there is no way back but unloading."""
        if not self.loaded:
            self.load()
        SYSCTL.write_text("1")

    @property
    def users(self) -> int:
        """How many sockets and other things of the kernel hold it."""
        return int(Path("/sys/module", NAME, "refcnt").read_text())

    def unload(self, *, wait: bool = False) -> str:
        """Tries to unload; returns what rmmod complains about, nothing if it is gone.

        With `wait` the module must go: its last sockets may still be on their way out, since the
        kernel takes namespaces down in the background.
        """
        if wait:
            wait_for("the module to be unloaded", lambda: not self.unload(), 20)
            return ""
        result = subprocess.run(["rmmod", NAME], capture_output=True, text=True, check=False)
        assert self.loaded == bool(result.returncode)
        return result.stderr.strip()
