"""The key command: against the kernel's own TCP-AO at the other end, and what it refuses."""

import subprocess
from pathlib import Path

import pytest

from link import CMAC, SHA1, SHA256, V4, V6, Mkt
from netns import Namespace
from requirement import requirement

pytestmark = pytest.mark.ours
nowhere = pytest.mark.usefixtures("same_namespace")
fresh = pytest.mark.usefixtures("sock")

SECRET = b"for both ends"


@pytest.fixture(scope="module")
def namespace():
    """Where no key is left."""
    namespace = Namespace()
    yield namespace
    namespace.close()


@pytest.fixture
def same_namespace(namespace):
    """The test is in there."""
    with namespace.entered():
        yield


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


@pytest.mark.parametrize(
    ("form", "text"),
    [([], SECRET), (["hex"], b" " + SECRET.hex().upper().encode() + b"\t\r\n\r\n")],
    ids=["ascii", "hex"],
)
def test_what_is_around_the_key(link, command, form, text):
    """No newline; and what cannot be a part of it."""
    test_added_by_the_command(link, command, V4, [], SHA1, form, text)


def rows() -> list[str]:
    """The namespace's keys."""
    return Path("/proc/self/net/tcp_authopt").read_text().splitlines()[1:]


def refusal(command: Path, *words: str, text: bytes = SECRET, status: int = 1) -> str:
    """What the command says when it refuses; nothing may have changed."""
    before = rows()
    done = subprocess.run([command, *words], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (status, b"")
    assert rows() == before
    name, _, said = done.stderr.decode().partition(": ")
    assert name == "tcp-authopt-key"
    return said.removesuffix("\n")


IDS = ("send-id", "61", "recv-id", "84")
WHOLE = "the key is one line, and one newline at its end is not part of it"
NOT_TEXT = "is a control character; a key that is not text is written in hex"
CRLF = (
    "the key has a carriage return: its lines end as on Windows, by CRLF; "
    "\"tr -d '\\r'\" takes that out"
)
BOM = "the key begins with a byte-order mark"

KEYS = {
    "crlf": (b"secret\r\n", CRLF),
    "cr": (b"secret\r", CRLF),
    "crlf-and-more": (b"secret\r\n\r\n", CRLF),
    "bom": (
        b"\xef\xbb\xbfsecret\n",
        BOM + " (UTF-8), which an editor has written; \"sed '1s/^\\xef\\xbb\\xbf//'\" takes it out",
    ),
    "utf-16": (
        "secret\n".encode("utf-16"),
        BOM + ': it is UTF-16; "iconv -f UTF-16 -t UTF-8" makes bytes of it that the peer '
        "may have, too",
    ),
    "blank-at-the-end": (
        b"secret \n",
        "the key ends with a blank; if that is part of it, write it in hex",
    ),
    "tab-at-the-end": (
        b"secret\t",
        "the key ends with a blank; if that is part of it, write it in hex",
    ),
    "blank-at-the-beginning": (
        b" secret\n",
        "the key begins with a blank; if that is part of it, write it in hex",
    ),
    "empty-line": (b"secret\n\n", f"there are empty lines at the end: {WHOLE}"),
    "two-lines": (b"# of B\nsecret\n", f"there is more than one line: {WHOLE}"),
    "nul": (b"sec\0ret\n", f"byte 4 of the key {NOT_TEXT}"),
    "not-text": (bytes(range(1, 9)), f"byte 1 of the key {NOT_TEXT}"),
    "empty": (b"", "the key is empty"),
    "newline": (b"\n", "the key is empty"),
    "long": (b"x" * 81, "the key is longer than 80 bytes"),
}


@requirement(34)
@pytest.mark.parametrize("case", KEYS)
@nowhere
def test_refused_key(command, case):
    """What would make it another key than the peer's, unseen."""
    text, said = KEYS[case]
    assert refusal(command, "add", "any", *IDS, text=text) == said


HEX = {
    "odd": (b"0f0\n", "the key has an odd number of hexadecimal digits, 3"),
    "prefix": (b"0x0f\n", "the key has something else in it than hexadecimal digits"),
    "blank": (b"0f 0f\n", "the key has something else in it than hexadecimal digits"),
    "bom": KEYS["bom"],
    "empty": (b"\r\n", "the key is empty"),
    "long": (b"00" * 81, "the key is longer than 80 bytes"),
}


@requirement(34)
@pytest.mark.parametrize("case", HEX)
@nowhere
def test_refused_hex(command, case):
    text, said = HEX[case]
    assert refusal(command, "add", "any", *IDS, "hex", text=text) == said


@fresh
def test_key_of_a_file(command, tmp_path):
    """A key may have blanks inside, and 80 bytes, or those that are not ASCII."""
    file = tmp_path / "key"
    missing = refusal(command, "add", "any", *IDS, "key-file", str(file))
    assert missing == f"{file}: No such file or directory"
    for text in (b"two words\n", b"x" * 80 + b"\n", "schl\u00fcssel\n".encode()):
        file.write_bytes(text)
        subprocess.run([command, "add", "any", *IDS, "key-file", file], check=True)
        subprocess.run([command, "del", "any", *IDS], check=True)
    assert rows() == []


def test_key_of_a_slow_pipe(command):
    """It is waited for."""
    script = '"$0" "$@" key-file <(sleep 0.5; echo secret)'
    subprocess.run(["bash", "-c", script, command, "add", "any", *IDS], check=True)
    subprocess.run([command, "del", "any", *IDS], check=True)


BEHIND = "bits are set behind the prefix"
BEHIND_IT = "a port is written behind"
NO_PEER = 'neither an address, nor a prefix ADDRESS/LENGTH, nor "any"; names are not looked up'
TIME = "neither +SECONDS from now nor @SECONDS of the epoch; a date is @$(date -d DATE +%s)"
SEE = 'see "tcp-authopt-key help"'

PEERS = {
    "192.0.2.1/24": f"{BEHIND}; the prefix is 192.0.2.0/24, the one address 192.0.2.1",
    "192.0.2.1/0": f"{BEHIND}; the prefix is 0.0.0.0/0, the one address 192.0.2.1",
    "192.0.2.129/25": f"{BEHIND}; the prefix is 192.0.2.128/25, the one address 192.0.2.129",
    "2001:db8::1/64": f"{BEHIND}; the prefix is 2001:db8::/64, the one address 2001:db8::1",
    "::ffff:192.0.2.1/120": (
        f"{BEHIND}; the prefix is ::ffff:192.0.2.0/120, the one address ::ffff:192.0.2.1"
    ),
    "::ffff:192.0.2.0/24": (
        "these are IPv6 bits; an IPv4 prefix is written 192.0.2.0/24, or ::ffff:192.0.2.0/120"
    ),
    "::ffff:192.0.2.1/24": (
        "these are IPv6 bits; an IPv4 prefix is written 192.0.2.0/24, or ::ffff:192.0.2.0/120"
    ),
    "::ffff:192.0.2.0/95": "an IPv4 prefix written like this has a length from 96 to 128",
    "fe80::1%eth0": "a key is for no interface; fe80::1 is this address on every link of its VRF",
    "192.0.2.1:179": f"{BEHIND_IT}: 192.0.2.1 port 179",
    "[2001:db8::1]:179": f"{BEHIND_IT}: 2001:db8::1 port 179",
    "[2001:db8::1]": "an address has no brackets here: write 2001:db8::1",
    "router1.example": NO_PEER,
    "192.0.2": NO_PEER,
    "192.0.2.1 ": NO_PEER,
    "%eth0": NO_PEER,
    "[::1": NO_PEER,
    "": NO_PEER,
}
WORDS = {
    "send-id 256": "send-id 256: not a number from 0 to 255",
    "send-id -1": "send-id -1: not a number from 0 to 255",
    "send-id 1 send-id 2": "send-id is given twice",
    "hex hex": "hex is given twice",
    "send-id": f"send-id lacks a value; {SEE}",
    "nosend": f"unknown word nosend; {SEE}",
    "Send-Until @1": f"unknown word Send-Until; {SEE}",
    "algorithm MD5": "algorithm MD5: not one of SHA1, AES128, SHA256",
    "send-until 1767225600": f"send-until 1767225600: {TIME}",
    "accept-from 2026-01-01": f"accept-from 2026-01-01: {TIME}",
    "send-from +10m": f"send-from +10m: {TIME}",
    "send-from +": f"send-from +: {TIME}",
    "recv-id 2": "send-id is needed: the ids are the KeyIDs of segments sent and received",
    "send-id 1": "recv-id is needed: the ids are the KeyIDs of segments sent and received",
    "send-id 1 recv-id 2 send-from @20 send-until @9": (
        "send-until is 11 s before send-from: there is no time between them; is one the other?"
    ),
    "send-id 1 recv-id 2 accept-until @19 accept-from @20": (
        "accept-until is 1 s before accept-from: there is no time between them; is one the other?"
    ),
}


@pytest.mark.parametrize("verb", ["add", "del"])
@pytest.mark.parametrize("peer", PEERS)
@nowhere
def test_refused_peer(command, verb, peer):
    assert refusal(command, verb, peer, *IDS) == f"{peer}: {PEERS[peer]}"


@pytest.mark.parametrize("length", ["33", "-1", "255.255.255.0", ""])
@nowhere
def test_refused_prefix_length(command, length):
    said = refusal(command, "add", f"192.0.2.0/{length}", *IDS)
    assert said == f"prefix length {length}: not a number from 0 to 32"


@pytest.mark.parametrize("words", WORDS)
@nowhere
def test_refused_words(command, words):
    assert refusal(command, "add", "any", *words.split()) == WORDS[words]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["delete", "any", *IDS], "delete: neither add, del, require, exempt, load nor check"),
        (["add"], "add lacks a PEER"),
    ],
    ids=["verb", "no-peer"],
)
@nowhere
def test_refused_at_once(command, words, said):
    """With the usage."""
    first, _, usage = refusal(command, *words, status=2).partition("\n\n")
    assert first == said
    assert usage.startswith("usage: ")


@fresh
def test_refused_by_the_module(command):
    """In words of what is to be done."""
    subprocess.run([command, "add", "any", *IDS], input=SECRET, check=True)
    there = refusal(command, "add", "any", "send-id", "61", "recv-id", "85")
    assert there == (
        "another key for this peer has one of these ids: delete it first, or take others"
    )
    gone = refusal(command, "del", "any", "send-id", "61", "recv-id", "85")
    assert gone == (
        "there is no such key: PEER, WHERE and both ids have to be as when it was added"
    )
    Path("/proc/sys/net/ipv4/tcp_authopt_max_keys").write_text("1")
    full = refusal(command, "add", "192.0.2.1", *IDS)
    assert full == (
        "there are as many as may be: in all (net.ipv4.tcp_authopt_max_keys), 512 keys of "
        "one PEER and WHERE, or 64 combinations of what PEER and WHERE consist of"
    )
    unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    done = subprocess.run(
        [*unprivileged, command, "add", "192.0.2.1", *IDS],
        input=SECRET,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        b"tcp-authopt-key: not permitted: needs net.ipv4.tcp_authopt=1, and CAP_NET_ADMIN\n"
    )


@pytest.mark.parametrize(
    ("peer", "shown"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1/32", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/33", "2001:0db8:0000:0000:0000:0000:0000:0000/33"),
        ("::ffff:192.0.2.0/120", "0000:0000:0000:0000:0000:ffff:c000:0200/120"),
        ("fe80::1", "fe80:0000:0000:0000:0000:0000:0000:0001"),
        ("any", "*"),
    ],
)
@fresh
def test_peers(command, peer, shown):
    """As they are listed; and what is added can be deleted in the same words."""
    subprocess.run([command, "add", peer, *IDS], input=SECRET, check=True)
    assert [row.split("\t")[4] for row in rows()] == [shown]
    subprocess.run([command, "del", peer, *IDS], check=True)
    assert rows() == []


WHERE = {
    "local 192.0.2.2/24": (
        f"192.0.2.2/24: {BEHIND}; the prefix is 192.0.2.0/24, the one address 192.0.2.2"
    ),
    "local any": "any: neither an address, nor a prefix ADDRESS/LENGTH; names are not looked up",
    "local 2001:db8::1": (
        "local 2001:db8::1: the peer is given in the other family, and a connection has one"
    ),
    "port 0": 'port 0: no connection has it; without "port" a key is for all',
    "port 65536": "port 65536: not a number from 0 to 65535",
    "port bgp": "port bgp: not a number from 0 to 65535",
    "vrf a/b": "vrf a/b: no device has such a name",
    "vrf sixteen-letters!": "vrf sixteen-letters!: no device has such a name",
}


@pytest.mark.parametrize("words", WHERE)
def test_where_no_connection_is(command, words):
    assert refusal(command, "add", "192.0.2.1", *IDS, *words.split()) == WHERE[words]


@fresh
def test_where(command):
    """One peer and the same ids, in several places; each is deleted in the words of its add."""
    places = [
        ["any"],
        ["any", "local", "2001:db8::2"],
        ["192.0.2.1"],
        ["192.0.2.1", "local", "192.0.2.2"],
        ["192.0.2.1", "local", "192.0.2.0/24"],
        ["192.0.2.1", "port", "179"],
        ["192.0.2.1", "vrf", "red"],
        ["192.0.2.1", "local", "192.0.2.2", "port", "179", "vrf", "red"],
    ]
    for place in places:
        subprocess.run([command, "add", *place, *IDS], input=SECRET, check=True)
    assert len(rows()) == len(places)
    flags = [int(row.split("\t")[0], 16) >> 20 for row in reversed(rows())]
    assert flags == [0, 1, 0, 1, 3, 4, 8, 13]
    for place in places:
        subprocess.run([command, "del", *place, *IDS], check=True)
    assert rows() == []


LOOPBACK = (
    "this is loopback, too: programs of this machine could not talk to each other; name a port, or "
    "--force if you mean it"
)
MANY = (
    "these are many peers, for all that they do: name a port, such as 179, or --force if you "
    "mean it"
)
SESSION = (
    "this is the session that you type in, from 192.0.2.77: it would stay, but the next one would "
    "not be let in; --force if you mean it"
)
LOCK_OUTS = {
    "any": SESSION,
    "any local 192.0.2.3": LOOPBACK,
    "127.0.0.1": LOOPBACK,
    "127.1.0.0/16": LOOPBACK,
    "126.0.0.0/7": LOOPBACK,
    "::1": LOOPBACK,
    "::/0": LOOPBACK,
    "::ffff:127.0.0.1": LOOPBACK,
    "10.0.0.0/15": MANY,
    "2001:db8::/31": MANY,
    "::ffff:10.0.0.0/111": MANY,
    "192.0.2.77": SESSION,
    "192.0.2.0/24": SESSION,
    "192.0.2.0/24 port 22": SESSION,
    "192.0.2.0/24 port 5555": SESSION,
    "192.0.2.0/24 local 192.0.2.2": SESSION,
    "::ffff:192.0.2.0/120": SESSION,
    "any port 22": SESSION,
    "any local 192.0.2.0/24 port 22": SESSION,
}
FINE = [
    "any port 179",
    "10.0.0.0/16",
    "10.0.0.0/8 port 179",
    "2001:db8::/32",
    "192.0.2.0/24 port 179",
    "192.0.2.0/24 local 192.0.2.3",
    "192.0.2.78",
]


def entries() -> list[str]:
    """The rows of all entries."""
    return Path("/proc/self/net/tcp_authopt_entries").read_text().splitlines()[1:]


@pytest.fixture
def session(monkeypatch):
    """As SSH says of one; and as if nobody above this process had another one."""
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.77 5555 192.0.2.2 22")


@pytest.mark.parametrize("words", LOCK_OUTS)
@fresh
@pytest.mark.usefixtures("session")
def test_what_would_lock_the_operator_out(command, words):
    assert refusal(command, "require", *words.split()) == LOCK_OUTS[words]
    assert entries() == []
    subprocess.run([command, "require", *words.split(), "--force"], check=True)
    assert len(entries()) == 1


@fresh
@pytest.mark.usefixtures("session")
def test_session_of_who_called(command):
    """Whose environment is not passed on, as by sudo."""
    done = subprocess.run(
        ["sh", "-c", 'env -i "$@"; exit $?', "sh", command, "require", "192.0.2.77"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"tcp-authopt-key: {SESSION}\n")


@fresh
@pytest.mark.usefixtures("session")
def test_policies(command):
    """Each is listed, and deleted in the words of its add."""
    for words in FINE:
        subprocess.run([command, "require", *words.split(), "strict", "accept-icmp"], check=True)
        subprocess.run([command, "exempt", *words.split()], check=True)
        subprocess.run([command, "require", *words.split()], check=True)
    assert len(entries()) == len(FINE)
    assert rows() == []
    subprocess.run([command, "del", *FINE[0].split(), "policy"], check=True)
    gone = refusal(command, "del", *FINE[0].split(), "policy")
    assert gone == "there is no such policy: PEER and WHERE have to be as when it was added"
    for words in FINE[1:]:
        subprocess.run([command, "del", *words.split(), "policy"], check=True)
    assert entries() == []
    subprocess.run([command, "exempt", "any"], check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("require 192.0.2.1 send-id 1", f"send-id: this is not for a policy; {SEE}"),
        ("require 192.0.2.1 hex", f"hex: this is not for a policy; {SEE}"),
        ("exempt 192.0.2.1 strict", f"strict: this is not for a policy; {SEE}"),
        ("add 192.0.2.1 strict", f'strict: this is for "require" only; {SEE}'),
        ("del 192.0.2.1 --force", f'--force: this is for "require" only; {SEE}'),
    ],
)
def test_words_of_the_other_kind(command, words, message):
    assert refusal(command, *words.split()) == message
