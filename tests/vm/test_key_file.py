"""Files of the key command: what they say is in force, whatever else is wrong in them."""

import os
import resource
import subprocess
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from netns import Namespace

pytestmark = pytest.mark.ours

SECRET = b"for both ends\n"
BOTH = "add, require nor exempt, which are what a file can say"
WHOLE = 'in a file a key needs "key-file", and a path that begins with /'
KEYS_ONLY, ANY = 3, 1


def few(what: int, number: int) -> Callable[[], None]:
    """Has a program so little of something."""
    return lambda: resource.setrlimit(what, (number, number))


@pytest.fixture
def file(command, tmp_path):
    """Does what a text says, in a namespace of its own."""
    namespace = Namespace()
    path, key = tmp_path / "entries", tmp_path / "key"
    key.write_bytes(SECRET)
    key.chmod(0o600)

    def do(verb: str, text: str | bytes, mode: int = 0o644, **how) -> tuple[int, list[str]]:
        path.write_bytes(text.encode("latin-1") if isinstance(text, str) else text)
        path.chmod(mode)
        return run(verb, **how)

    def run(verb: str, **how) -> tuple[int, list[str]]:
        with namespace.entered():
            done = subprocess.run([command, verb, path], capture_output=True, check=False, **how)
        assert done.stdout == b""
        said = done.stderr.decode("latin-1").splitlines()
        return done.returncode, [line.removeprefix(f"{path}:") for line in said]

    def entries() -> list[tuple[str, ...]]:
        rows = namespace.read("tcp_authopt_entries").splitlines()[1:]
        fields = (row.split("\t") for row in reversed(rows))
        return [(each[0], each[2], each[4], each[5]) for each in fields]

    yield SimpleNamespace(do=do, run=run, entries=entries, key=key, path=path, namespace=namespace)
    namespace.close()


def test_policies_before_keys(file):
    """Of all lines, in whatever order they are; and once more, which changes nothing."""
    text = (
        f"# of 192.0.2.0/24\n\n  add 192.0.2.1 send-id 1 recv-id 2 key-file {file.key} # first\n"
        f"exempt 192.0.2.9\n\trequire\t192.0.2.0/24 port 179\n#exempt any\n"
        f"add any port 179 recv-id 4 send-id 3 key-file {file.key} send-until @4000000000\n"
        "require 2001:db8::/32 port 179\n"
    )
    expected = [
        ("exempt", "192.0.2.9", "*", "-"),
        ("require", "192.0.2.0/24", "179", "-"),
        ("require", "2001:0db8:0000:0000:0000:0000:0000:0000/32", "179", "-"),
        ("key", "192.0.2.1", "*", "1"),
        ("key", "*", "179", "3"),
    ]
    assert file.do("check", text) == (0, [])
    assert file.entries() == []
    for _ in range(2):
        assert file.do("load", text) == (0, [])
        assert file.entries() == expected


LINES = {
    "word": ("reqire 192.0.2.0/24", ANY, f"reqire: neither {BOTH}"),
    "del": ("del 192.0.2.1 policy", ANY, f"del: neither {BOTH}"),
    "load": ("load /etc/entries", ANY, f"load: neither {BOTH}"),
    "adds": ("adds any", ANY, f"adds: neither {BOTH}"),
    "no-peer": ("require", ANY, "require lacks a PEER"),
    "loopback": (
        "require any",
        ANY,
        "this is loopback, too: programs of this machine could not talk to each other; name a "
        "port, or --force if you mean it",
    ),
    "crlf": (
        "require 192.0.2.0/24\r",
        ANY,
        "the line has a carriage return: lines end as on Windows, by CRLF; \"sed -i 's/\\r$//'\" "
        "takes that out",
    ),
    "nul": ("require 192.0.2.0/24\0 port 179", ANY, "the line has a zero byte: this is no text"),
    "words": ("exempt " + "x " * 70, ANY, "these are more words than any command has"),
    "key-no-peer": ("add", ANY, "add lacks a PEER"),
    "comment": (
        "require 192.0.2.0/24 vrf blue#ish",
        ANY,
        "blue#ish: a comment begins with a blank and a #",
    ),
    "policy": (
        "add any policy send-id 2 recv-id 1",
        ANY,
        'policy: this is for "del" only; see "tcp-authopt-key help"',
    ),
    "nbsp": ("require 192.0.2.0/24 vrf blue\xa0", ANY, "vrf blue\xa0: no device has such a name"),
    "date": (
        "add any send-id 2 recv-id 1 key-file /none send-until 2026-01-01",
        ANY,
        'send-until 2026-01-01: not @SECONDS of the epoch, which "date -d DATE +%s" prints',
    ),
    # A newline was lost: what was a policy is part of a line for a key.
    "lost": (
        "add any send-id 2 recv-id 1 key-file /nonerequire 192.0.2.0/24",
        ANY,
        'unknown word 192.0.2.0/24; see "tcp-authopt-key help"',
    ),
    "id": (
        "add any send-id 256 recv-id 1",
        ANY,
        "send-id 256: not a number from 0 to 255",
    ),
    "stdin": ("add any send-id 2 recv-id 1", ANY, WHOLE),
    "relative": ("add any send-id 2 recv-id 1 key-file key", ANY, WHOLE),
    "missing": (
        "add any send-id 2 recv-id 1 key-file /none",
        KEYS_ONLY,
        "/none: No such file or directory",
    ),
    "directory": (
        "add any send-id 2 recv-id 1 key-file /tmp",
        KEYS_ONLY,
        "/tmp: not a regular file",
    ),
}


@pytest.mark.parametrize("case", LINES)
def test_a_wrong_line(file, case):
    """Is told with its number, and holds up no other line."""
    line, status, said = LINES[case]
    around = f"add 192.0.2.1 send-id 1 recv-id 2 key-file {file.key}\n{line}\nrequire 192.0.2.1\n"
    for verb in ("check", "load"):
        assert file.do(verb, around) == (status, [f"2: {said}"])
    assert file.entries() == [("require", "192.0.2.1", "*", "-"), ("key", "192.0.2.1", "*", "1")]


def test_from_now_on(file):
    """Would be another time with every load."""
    status, said = file.do(
        "load", f"add any send-id 1 recv-id 2 key-file {file.key} send-from +60\n"
    )
    assert status == ANY
    assert said[0].startswith("1: send-from +60: in a file this would be another time with every ")
    assert file.entries() == []


def test_all_that_is_wrong(file):
    """Is told at once; a policy's status goes before a key's."""
    status, said = file.do("load", "require 10.0.0.1/8 port 179\n\nadd any\nexempt 10.0.0.1\n")
    assert status == ANY
    assert [line.partition(": ")[0] for line in said] == ["1", "3"]
    assert file.entries() == [("exempt", "10.0.0.1", "*", "-")]


def test_refused_by_the_module(file):
    """With file and line, too."""
    key = f"key-file {file.key}\n"
    text = f"add any send-id 1 recv-id 2 {key}add any send-id 1 recv-id 3 {key}require 10.0.0.1\n"
    status, said = file.do("load", text)
    assert (status, len(said)) == (KEYS_ONLY, 1)
    assert said[0].startswith("2: another key for this peer has one of these ids")
    assert [entry[0] for entry in file.entries()] == ["require", "key"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620], ids=oct)
def test_a_key_that_others_could_read(file, mode):
    file.key.chmod(mode)
    status, said = file.do("load", f"add any send-id 1 recv-id 2 key-file {file.key}\n")
    assert (status, said) == (
        KEYS_ONLY,
        [
            f"1: {file.key}: its mode is {mode:04o}, so that others could read or change it; "
            f'"chmod go-rwx {file.key}"'
        ],
    )


def test_a_key_of_another_user(file):
    os.chown(file.key, 65534, 0)
    status, said = file.do("load", f"add any send-id 1 recv-id 2 key-file {file.key}\n")
    assert status == KEYS_ONLY
    assert said[0].startswith(f"1: {file.key}: belongs to another user, who could change it; ")


@pytest.mark.parametrize("mode", [0o664, 0o646])
def test_a_file_that_others_could_change(file, mode):
    """Counts for nothing: they could have exempted what they like."""
    status, said = file.do("load", "require 192.0.2.1\n", mode)
    assert status == ANY
    assert said[0].startswith(f"tcp-authopt-key: {file.path}: its mode is {mode:04o}")
    assert file.entries() == []


def test_later_line_counts(file):
    """Of two policies with the same criteria, as if they had been typed."""
    lines = ["exempt 192.0.2.9 port 179", "require 192.0.2.9 port 179"]
    for text in (lines, lines[::-1]):
        assert file.do("load", "".join(f"{line}\n" for line in text)) == (0, [])
        assert file.entries() == [(text[-1].split()[0], "192.0.2.9", "179", "-")]


def test_begins_with_a_byte_order_mark(file):
    status, said = file.do("load", b"\xef\xbb\xbfexempt 192.0.2.9\nrequire 192.0.2.0/24\n")
    assert status == ANY
    assert [line.partition(",")[0] for line in said] == [
        "1: the file begins with a byte-order mark (UTF-8)"
    ]
    assert file.entries() == [("require", "192.0.2.0/24", "*", "-")]


def test_cut_off(file):
    """What is left of the last line may be another policy than was meant."""
    status, said = file.do("load", "require 192.0.2.1\nrequire 192.0.2.0/24 port 17")
    assert (status, said) == (
        ANY,
        ["2: the file ends within this line, or a newline is missing: was all of it written?"],
    )
    assert file.entries() == [("require", "192.0.2.1", "*", "-")]


def test_empty(file):
    """As after a crash; one that has comments only is somebody's wish."""
    status, said = file.do("check", "")
    assert (status, said) == (
        ANY,
        ["1: the file is empty: one that is to say nothing has a comment"],
    )
    assert file.do("check", "# nothing yet\n") == (0, [])


def test_line_without_end(file):
    """There is no memory for it: what is before it counts, and that is told."""
    with file.path.open("wb") as entries:
        entries.write(b"require 192.0.2.1\n")
        entries.truncate(1 << 30)
    status, said = file.run("load", preexec_fn=few(resource.RLIMIT_AS, 64 << 20))
    assert (status, said) == (
        ANY,
        ["2: Cannot allocate memory; this line and all behind it are not read"],
    )
    assert file.entries() == [("require", "192.0.2.1", "*", "-")]


def test_many_wrong_keys(file):
    """Do not use up the descriptors that the next line needs."""
    file.key.chmod(0o644)
    wrong = f"add any send-id 1 recv-id 2 key-file {file.key}\n" * 50
    status, said = file.do(
        "load", f"{wrong}require 192.0.2.1\n", preexec_fn=few(resource.RLIMIT_NOFILE, 16)
    )
    assert (status, len(said)) == (KEYS_ONLY, 50)
    assert {line.partition(": ")[2] for line in said} == {said[0].partition(": ")[2]}
    assert file.entries() == [("require", "192.0.2.1", "*", "-")]


def test_nobody_reads_what_is_wrong(file, command):
    """A pipe whose reader has ended does not end the command before it has added anything."""
    file.path.write_text("wrong\n" * 1000 + "require 192.0.2.1\n")
    script = '"$0" load "$1" 2>&1 | true; exit ${PIPESTATUS[0]}'
    with file.namespace.entered():
        done = subprocess.run(["bash", "-c", script, command, file.path], check=False)
    assert done.returncode == ANY
    assert file.entries() == [("require", "192.0.2.1", "*", "-")]


def test_policies_before_keys_are_read(file):
    """A key on a file system that hangs does not hold up any policy."""
    key = file.path.with_name("fifo")
    os.mkfifo(key, 0o600)
    status, said = file.do(
        "load", f"add any send-id 1 recv-id 2 key-file {key}\nrequire 192.0.2.1\n"
    )
    assert (status, said) == (KEYS_ONLY, [f"1: {key}: not a regular file"])
    assert file.entries() == [("require", "192.0.2.1", "*", "-")]


def test_no_regular_file(file):
    """Would wait for a writer, and is none that has a mode."""
    os.mkfifo(file.path)
    status, said = file.run("check")
    assert (status, said) == (ANY, [f"tcp-authopt-key: {file.path}: not a regular file"])


def test_no_file(command, tmp_path):
    done = subprocess.run([command, "load", tmp_path / "none"], capture_output=True, check=False)
    assert done.returncode == ANY
    assert done.stderr.decode() == f"tcp-authopt-key: {tmp_path}/none: No such file or directory\n"
