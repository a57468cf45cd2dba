"""Documentation/operators.rst: each command on it is one that works, in the order of the page."""

import re
import subprocess
from pathlib import Path

import pytest

from netns import Namespace

pytestmark = pytest.mark.ours

REPO = Path(__file__).resolve().parent.parent.parent
PLACE, KEY = "/etc/tcp-authopt", "/root/key-of-192.0.2.1"
NEXT = "/root/next-key-of-192.0.2.1"
OURS = {"tcp-authopt-key", "install", "echo", "sysctl", "cat", "nstat"}
"""What is run here."""
THEIRS = {"vtysh", "gobgp", "bgpctl", "birdc", "tcpdump"}
"""What is not: daemons are needed, or something on the wire."""


def sections() -> dict[str, list[str]]:
    """The commands below each heading of the first rank."""
    text = (REPO / "Documentation/operators.rst").read_text()
    parts = re.split(r"\n(.+)\n={4,}\n", text)[1:]
    found = {}
    for heading, body in zip(parts[::2], parts[1::2], strict=True):
        blocks = re.findall(r"::\n\n((?:    .*\n)+)", body)
        commands = "".join(blocks).replace("\\\n", " ").splitlines()
        if commands:
            found[heading] = [" ".join(command.split()) for command in commands]
    return found


SECTIONS = sections()


def test_commands_are_known():
    """Nothing on the page is left out by mistake."""
    words = {command.split()[0] for commands in SECTIONS.values() for command in commands}
    assert words <= OURS | THEIRS
    assert words > {"tcp-authopt-key", "vtysh", "sysctl"}


@pytest.mark.parametrize("heading", SECTIONS)
def test_section(command, tmp_path, heading):
    """All succeed, one after the other, where the commands above them have been typed."""
    places = {PLACE: tmp_path / "etc", KEY: tmp_path / "key", NEXT: tmp_path / "next"}
    places[KEY].write_text("for both ends\n")
    places[NEXT].write_text("for both ends, too\n")
    first = next(iter(SECTIONS.values()))
    begun = [] if SECTIONS[heading] == first else first
    if heading == "From MD5":
        begun = first[:2]  # the key is in its file, and there is no policy yet
    namespace = Namespace()
    try:
        for typed in [*begun, *SECTIONS[heading]]:
            if typed.split()[0] in THEIRS:
                continue
            line = re.sub("|".join(places), lambda found: str(places[found[0]]), typed)
            with namespace.entered():
                done = subprocess.run(
                    ["sh", "-ec", line],
                    env={"PATH": f"{command.parent}:/usr/sbin:/usr/bin:/sbin:/bin"},
                    capture_output=True,
                    check=False,
                )
            assert (done.returncode, done.stderr) == (0, b""), line
    finally:
        namespace.close()
