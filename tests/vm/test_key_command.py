"""The key command, against the kernel's own TCP-AO at the other end."""

import subprocess
from pathlib import Path

import pytest

from link import CMAC, SHA1, SHA256, V4, V6, Mkt
from requirement import requirement

pytestmark = pytest.mark.ours

REPO = Path(__file__).resolve().parent.parent.parent
SECRET = b"for both ends"


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The key command, compiled as its first lines say."""
    program = tmp_path_factory.mktemp("tools") / "tcp-authopt-key"
    source, include = REPO / "tools/tcp-authopt-key.c", REPO / "include/uapi"
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{include}", "-o", program, source], check=True)
    return program


@requirement(34, 37)
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize(
    ("words", "algorithm"),
    [([], SHA1), (["algorithm", "AES128"], CMAC), (["algorithm", "SHA256"], SHA256)],
    ids=["default", "AES128", "SHA256"],
)
@pytest.mark.parametrize(
    ("form", "text"),
    [([], SECRET + b"\n"), (["hex"], SECRET.hex().encode() + b"\n")],
    ids=["ascii", "hex"],
)
def test_added_by_the_command(link, command, ends, words, algorithm, form, text):
    """What it adds protects a connection with a peer that has been given the same bytes."""
    key = Mkt(secret=SECRET, algorithm=algorithm)
    listener = link.listen("native", ends, key)
    client = link.client("ours", ends)
    ids = ["send-id", str(key.a_id), "recv-id", str(key.b_id)]
    with link.a.namespace.entered():
        done = [command, "add", client.address, *ids, *words, *form]
        subprocess.run(done, input=text, check=True)
    connection = link.connect(client, listener)
    connection.exchange()
    connection.close()
    link.verify()
