"""A whole Debian machine: systemd, FRR, a disk that keeps what is written; and a shell on it."""

import importlib.machinery
import importlib.util
import os
import re
import secrets
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
MAC = "02:00:00:00:00:02"
UNNEEDED = (
    *(f"modprobe@{name}.service" for name in ("configfs", "drm", "efi_pstore", "fuse")),
    *(f"{name}.timer" for name in ("apt-daily", "apt-daily-upgrade", "dpkg-db-backup", "fstrim")),
    "getty-static.service",
    "getty.target",
    "serial-getty@ttyS0.service",
)
"""What would take an emulated machine a minute, and has nothing to do with the network."""
FEW_DEVICES = b"""
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=virtio --subsystem-match=net
"""
"""Likewise: drivers for all that the processor and the board have."""
PATIENCE = 120.0 * float(os.environ.get("SLOWDOWN", "1"))
SHELL_UNIT = b"""
[Unit]
Description=The shell of the test
[Service]
ExecStart=/bin/bash -c 'cd /run/test; echo booted $(</proc/sys/kernel/random/boot_id); exec bash'
StandardInput=file:/dev/vport0p1
StandardOutput=file:/dev/vport0p1
StandardError=inherit
Environment=HOME=/root
"""

# scripts/vm is a program, and has the archive, the accelerator and what the kernel must not say.
_loader = importlib.machinery.SourceFileLoader("vm", str(REPO / "scripts/vm"))
vm = importlib.util.module_from_spec(importlib.util.spec_from_loader("vm", _loader))
_loader.exec_module(vm)


class Failed(Exception):
    """Something is not as it should be."""


class Router:
    """The machine. It dies with this process."""

    def __init__(
        self,
        kernel: str,
        directory: Path,
        cable: socket.socket,
        files: Sequence[Path],
        disk: Mapping[str, str],
    ) -> None:
        """The files will be where its shell is, and those for the disk on that from the start."""
        self.directory = directory
        names = ("root", "vmlinux", "boot", "machine")
        prepare = [REPO / "scripts/prepare", "--kernel", kernel, "--for", "machine"]
        prepared = subprocess.run(
            [*prepare, "--print", " ".join(names)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        paths = dict(zip(names, prepared.stdout.splitlines(), strict=True))
        (directory / "initramfs").write_bytes(self._initramfs(Path(paths["boot"]), files, disk))
        self.port, theirs = socket.socketpair()
        self.rest = ""
        self.boots = 0
        command = ["env", f"TMPDIR={directory}", "qemu-system-x86_64", "-nodefaults"]
        command += ["-no-user-config", "-display", "none", "-machine", "pc", "-cpu", "max,la57=off"]
        command += ["-accel", vm.accelerator(kernel, vm.prepared(kernel)), "-smp", "1", "-m", "1G"]
        command += ["-kernel", paths["vmlinux"], "-initrd", f"{directory}/initramfs"]
        # A busy host may not emulate a tick in the time that the kernel waits for one.
        command += ["-append", "console=ttyS0 loglevel=5 rw panic_on_warn=1 oops=panic"]
        command[-1] += " no_timer_check tsc=reliable mitigations=off audit=0"
        command[-1] += " systemd.show_status=yes"
        command[-1] += " systemd.wants=test-shell.service systemd.wants=systemd-networkd.service"
        command[-1] += "".join(f" systemd.mask={unit}" for unit in UNNEEDED)
        command += ["-drive", f"if=virtio,format=raw,snapshot=on,file={paths['machine']}"]
        command += ["-serial", f"file:{directory}/console", "-device", "virtio-serial-pci"]
        command += ["-chardev", f"socket,id=shell,fd={theirs.fileno()}"]
        command += ["-device", "virtserialport,nr=1,chardev=shell"]
        command += ["-netdev", f"dgram,id=net,local.type=fd,local.str={cable.fileno()}"]
        command += ["-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="]
        inside = ["setpriv", "--pdeathsig", "KILL", REPO / "scripts/lib/in-root", paths["root"]]
        inside += [Path(paths["vmlinux"]).parent, Path(paths["machine"]).parent, directory, "--"]
        with (directory / "errors").open("wb") as errors:
            self.process = subprocess.Popen(
                [*inside, *command],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
                pass_fds=[theirs.fileno(), cable.fileno()],
            )
        theirs.close()
        self.await_boot()

    @staticmethod
    def _initramfs(boot: Path, files: Sequence[Path], disk: Mapping[str, str]) -> bytes:
        archive = vm.Archive()
        for path in sorted(boot.rglob("*")):
            content = path.read_bytes() if path.is_file() else b""
            archive.add(str(path.relative_to(boot)), path.stat().st_mode, content)
        archive.add("init", 0o100755, (REPO / "tests/deb/boot").read_bytes())
        trigger = "run/systemd/system/systemd-udev-trigger.service.d"
        for name in ("run", "run/systemd", "run/systemd/system", trigger, "run/test"):
            archive.add(name, 0o040755)
        archive.add(f"{trigger}/few.conf", 0o100644, FEW_DEVICES)
        archive.add("run/systemd/system/test-shell.service", 0o100644, SHELL_UNIT)
        for file in files:
            archive.add(f"run/test/{file.name}", 0o100644, file.read_bytes())
        above = {f"disk/{parent}" for name in disk for parent in Path(name).parents}
        for name in sorted(above):
            archive.add(name.removesuffix("/."), 0o040755)
        for name, text in disk.items():
            archive.add(f"disk/{name}", 0o100644, text.encode())
        archive.add("TRAILER!!!", 0)
        return bytes(archive.data)

    def _until(self, pattern: str, what: str) -> str:
        """What the shell says up to the pattern, which ends it."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.rest)):
            self.port.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                data = self.port.recv(1 << 16)
            except TimeoutError:
                data = b""
            if not data:
                raise Failed(f"{what}: no answer; so far: {self.rest!r}\n{self.console()}")
            self.rest += data.decode(errors="replace").replace("\r\n", "\n")
        said, self.rest = self.rest[: found.start()], self.rest[found.end() :]
        return said

    def await_boot(self) -> None:
        """Waits for the shell of the next boot."""
        self._until(r"booted [-0-9a-f]+\n", "boot")
        self.boots += 1

    def try_run(self, command: str) -> tuple[int, str]:
        """Types a command; gives its status and its output."""
        mark = secrets.token_hex(8)
        text = f"{{ {command}\n}} </dev/null 2>&1; status=$?; echo; echo {mark} $status .\n"
        self.port.sendall(text.encode())
        said = self._until(rf"\n{mark} ", command)
        return int(self._until(r" \.\n", command)), said

    def run(self, command: str) -> str:
        """The same for one that has to succeed."""
        status, said = self.try_run(command)
        if status:
            raise Failed(f"{command}: status {status}\n{said}")
        return said.strip()

    def reboot(self) -> None:
        """Boots the same disk again."""
        self.port.sendall(b"systemctl reboot\n")
        self.await_boot()

    def console(self) -> str:
        """The end of what the kernel and systemd have said, and QEMU."""
        lines = (self.directory / "console").read_text(errors="replace").splitlines()[-60:]
        return "\n".join([*lines, (self.directory / "errors").read_text()])

    def complaints(self) -> list[str]:
        """What the kernel must not say, of any boot."""
        lines = (self.directory / "console").read_text(errors="replace").splitlines()
        return [line for line in lines if vm.PATTERNS.search(line)]

    def stop(self) -> None:
        """Cuts the power."""
        self.process.kill()
        self.process.wait()
