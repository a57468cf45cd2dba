# SPDX-License-Identifier: GPL-2.0
"""Routers whose daemons know no TCP-AO, beside the FRR of `lab`: GoBGP and OpenBGPD.

Each is as its package has it, and is asked by the command that its operators use.
"""

import json
from pathlib import Path
from typing import Any

from lab import Router, run

ESTABLISHED = 6
"""The state of a session, as GoBGP numbers them."""


class GoBgp(Router):
    """A router that runs GoBGP, whose sockets are those of Go's runtime."""

    def launch(self, configuration: str, **environment: str) -> None:
        """Starts GoBGP."""
        file, control = self.file("toml"), self.file("ctl")
        file.write_text(configuration)
        # One that was killed leaves its socket, beside which no other starts.
        control.unlink(missing_ok=True)
        words = [f"{name}={value}" for name, value in environment.items()]
        daemon = ["gobgpd", "-f", file, "--api-hosts", f"unix://{control}"]
        self.start(self.name, control, "env", *words, *daemon)

    def ask(self, *words: str) -> Any:
        """The answer of the gobgp command; nothing where it has none."""
        answer = run("gobgp", "--target", f"unix://{self.file('ctl')}", "-j", *words)
        return json.loads(answer) if answer.strip() else None

    def is_up(self, neighbor: str) -> bool:
        """Whether there is a session with the neighbor."""
        return self.ask("neighbor", neighbor)["state"].get("session_state") == ESTABLISHED

    def routes(self, family: str = "ipv4") -> set[str]:
        """The prefixes that it has routes to."""
        return set(self.ask("global", "rib", "-a", family))


class OpenBgpd(Router):
    """A router that runs OpenBGPD: a process with privilege opens sockets, and hands them on."""

    def launch(self, configuration: str) -> None:
        """Starts OpenBGPD, whose own directory is one that its unit would make."""
        Path("/run/openbgpd").mkdir(exist_ok=True)
        file, control = self.file("conf"), self.file("ctl")
        file.touch(mode=0o600)  # it takes none that others may write
        file.write_text(f'socket "{control}"\n{configuration}')
        self.start(self.name, control, "bgpd", "-d", "-f", file)

    def ask(self, *words: str) -> Any:
        """The answer of bgpctl."""
        return json.loads(run("bgpctl", "-s", self.file("ctl"), "-j", *words))

    def neighbor(self, address: str) -> dict[str, Any]:
        """What it knows about a neighbor."""
        (neighbor,) = self.ask("show", "neighbor", address)["neighbors"]
        return neighbor

    def is_up(self, neighbor: str) -> bool:
        """Whether there is a session with the neighbor."""
        return self.neighbor(neighbor)["state"] == "Established"

    def routes(self) -> set[str]:
        """The prefixes that it has routes to."""
        return {route["prefix"] for route in self.ask("show", "rib").get("rib", [])}
