"""Keys of a namespace: identity, overlap, limit, families, and that memory is charged."""

import errno
import os
import random
import resource
import socket
import struct
from ipaddress import ip_address, ip_network
from math import inf
from pathlib import Path

import pytest

import abi
from abi import pack_key
from contract import Keys
from link import BAD, FIRST, MAPPED_BOTH, V4, Ours
from netns import Namespace
from requirement import requirement
from rtnetlink import Rtnetlink
from test_socket_options import MAX_KEYS, refused, rows

pytestmark = pytest.mark.ours

OVERLAP = Path("/proc/sys/net/ipv4/tcp_authopt_key_overlap")
PEER = "192.0.2.1"
MOST = inf if os.uname().release.endswith("-debug") else 1024
"""Bytes that an object may be charged with; KASAN keeps what was freed, and that stays charged."""


# --- identity ------------------------------------------------------------------------------------

KEY = {"send_id": 1, "recv_id": 2, "address": PEER, "secret": b"secret"}


def with_port(key: bytes) -> bytes:
    """The key with a port in its address."""
    return key[:90] + struct.pack("!H", 179) + key[92:]


def with_scope(key: bytes) -> bytes:
    """The key with an interface beside its IPv6 address."""
    return key[:112] + struct.pack("=I", 7) + key[116:]


def to_delete(key: bytes) -> bytes:
    """The key with the flag that deletes it."""
    return (int.from_bytes(key[:4], "little") | abi.KEY_DEL).to_bytes(4, "little") + key[4:]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pack_key(**KEY | {"send_id": 3}), id="send_id"),
        pytest.param(pack_key(**KEY | {"recv_id": 3}), id="recv_id"),
        pytest.param(pack_key(**KEY | {"address": None}), id="addr_bind"),
        pytest.param(pack_key(**KEY | {"address": "192.0.2.2"}), id="addr"),
        pytest.param(pack_key(**KEY, prefixlen=32), id="prefixlen_flag"),
        pytest.param(pack_key(**KEY | {"address": "192.0.2.0"}, prefixlen=24), id="prefixlen"),
        pytest.param(pack_key(**KEY, ifindex=0), id="ifindex_flag"),
    ],
)
def test_identity_is(sock, other):
    """Two keys that differ in one of these are two, and each is deleted by its own."""
    OVERLAP.write_text("1")
    key = pack_key(**KEY)
    abi.set_key(sock, key)
    abi.set_key(sock, other)
    assert len(rows()) == 2
    for value, left in ((other, 1), (key, 0)):
        abi.set_key(sock, to_delete(value))
        assert len(rows()) == left
        with refused(errno.ENOENT):
            abi.set_key(sock, to_delete(value))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(pack_key(**KEY, alg=abi.ALG_AES_128_CMAC_96), id="alg"),
        pytest.param(pack_key(**KEY | {"secret": b"another"}), id="key"),
        pytest.param(pack_key(**KEY | {"secret": b""}), id="keylen"),
        pytest.param(pack_key(**KEY, flags=abi.KEY_EXCLUDE_OPTS), id="exclude_opts"),
        pytest.param(pack_key(**KEY, flags=abi.KEY_NOSEND), id="nosend"),
        pytest.param(pack_key(**KEY, flags=abi.KEY_NORECV), id="norecv"),
        pytest.param(pack_key(**KEY, flags=0x780, lifetimes=(1, 2, 3, 4)), id="lifetimes"),
        pytest.param(with_port(pack_key(**KEY)), id="port"),
    ],
)
def test_identity_is_not(sock, other):
    """The other one takes the key's place, and deletes it."""
    abi.set_key(sock, pack_key(**KEY))
    abi.set_key(sock, other)
    assert len(rows()) == 1
    abi.set_key(sock, to_delete(other))
    assert rows() == []


def test_identity_is_not_the_scope(sock6):
    """A link-local peer is one on every link."""
    key = pack_key(**KEY | {"address": "fe80::2"})
    for other in (with_scope(key), key):
        abi.set_key(sock6, other)
        assert len(rows()) == 1
    abi.set_key(sock6, to_delete(with_scope(key)))
    assert rows() == []


def test_fields_without_their_flag_are_ignored(sock):
    """In the identity too: this is the same key three times."""
    abi.set_key(sock, pack_key(1, 2))
    filled = pack_key(1, 2, address=PEER, prefixlen=7, ifindex=9, lifetimes=(4, 3, 2, 1))
    abi.set_key(sock, bytes(4) + filled[4:])
    assert rows() == ["0x0\t1\t2\t1\t*\t0"]
    abi.set_key(sock, abi.KEY_DEL.to_bytes(4, "little") + filled[4:])
    assert rows() == []


def test_the_vrf_is_identity_and_must_be_one(sock):
    """Its device may be gone when the key is deleted, and not when one is added."""
    with Rtnetlink() as rtnetlink:
        for name, table in (("red", 100), ("blue", 200)):
            rtnetlink.add_vrf(name, table)
        rtnetlink.add_dummy("plain")
        rtnetlink.enslave("plain", "red")
        red, blue, plain = map(socket.if_nametoindex, ("red", "blue", "plain"))
        for ifindex in (red, blue, 0):
            abi.set_key(sock, pack_key(1, 2, ifindex=ifindex))
        with refused(errno.EINVAL):
            abi.set_key(sock, pack_key(1, 2, ifindex=plain))
        rtnetlink.delete("blue")
    with refused(errno.EINVAL):
        abi.set_key(sock, pack_key(1, 2, ifindex=blue, secret=b"new"))
    assert [row.split("\t")[-1] for row in rows()] == ["0", str(blue), str(red)]
    for ifindex in (blue, red):
        abi.set_key(sock, pack_key(1, 2, ifindex=ifindex, flags=abi.KEY_DEL))
    with refused(errno.ENOENT):
        abi.set_key(sock, pack_key(1, 2, ifindex=plain, flags=abi.KEY_DEL))
    assert rows() == ["0x8\t1\t2\t1\t*\t0"]


# --- delete --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(pack_key(9, 9), id="none"),
        pytest.param(pack_key(1, 2, flags=abi.KEY_ADDR_BIND), id="no-family"),
        pytest.param(pack_key(1, 2, address=PEER, prefixlen=33), id="prefix-33"),
        pytest.param(pack_key(1, 2, address=PEER, prefixlen=-1), id="prefix-negative"),
        pytest.param(pack_key(1, 2, address=PEER, prefixlen=24), id="host-bits"),
        pytest.param(pack_key(1, 2, prefixlen=0), id="prefix-of-no-address"),
        pytest.param(pack_key(1, 2, ifindex=-1), id="ifindex-negative"),
    ],
)
def test_delete_of_what_is_not_there(sock, key):
    abi.set_key(sock, pack_key(1, 2))
    abi.set_key(sock, pack_key(1, 2, address=PEER))
    flags = int.from_bytes(key[:4], "little") | abi.KEY_DEL
    with refused(errno.ENOENT):
        abi.set_key(sock, flags.to_bytes(4, "little") + key[4:])
    assert len(rows()) == 2


def test_delete_minds_its_identity_only(sock, sock6):
    """Not even whether the rest could be added, nor the family of the socket."""
    lifetimes = {"flags": 0x780 | abi.KEY_DEL, "lifetimes": (2, 1, 2, 1)}
    for value in (
        pack_key(1, 2, address=PEER, alg=99, secret=b"?", flags=abi.KEY_DEL),
        pack_key(1, 2, address=PEER, **lifetimes),
    ):
        for socket_of_any_family in (sock, sock6):
            abi.set_key(sock, pack_key(1, 2, address=PEER))
            abi.set_key(socket_of_any_family, value)
            assert rows() == []


# --- add, replace --------------------------------------------------------------------------------


def test_longest_and_empty_key(sock):
    abi.set_key(sock, pack_key(1, 2, secret=bytes(range(80))))
    abi.set_key(sock, pack_key(3, 4))
    assert len(rows()) == 2


def test_failed_replace_keeps_the_key(sock):
    abi.set_key(sock, pack_key(1, 2, secret=b"x", flags=abi.KEY_NOSEND))
    before = rows()
    for value in (
        pack_key(1, 2, alg=9),
        pack_key(1, 2, flags=abi.KEY_SEND_LIFETIME_BEGIN | abi.KEY_SEND_LIFETIME_END | 1 << 11),
    ):
        with refused(errno.EINVAL):
            abi.set_key(sock, value)
    assert rows() == before


def test_replacing_lifetimes_disturbs_nothing(link):
    """On a live connection; that NOSEND and NORECV do not is in test_live_keys.py."""
    connection = link.connected("ours", "ours")
    connection.exchange()
    for flags, lifetimes in (
        (abi.KEY_SEND_LIFETIME_END | abi.KEY_RECV_LIFETIME_END, (0, 1 << 40, 0, 1 << 40)),
        (0x780, (1, (1 << 64) - 1, 1, (1 << 64) - 1)),
        (0, (0, 0, 0, 0)),
    ):
        for peer in connection.peers:
            key = pack_key(
                *peer.host.ids(FIRST),
                secret=FIRST.secret,
                address=peer.address,
                flags=flags,
                lifetimes=lifetimes,
            )
            abi.set_key(peer.sock, key)
            connection.exchange()
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


# --- overlap -------------------------------------------------------------------------------------


@requirement(7)
def test_overlap_is_refused(sock):
    """RFC 5925 3.1: with the same criteria both ids must differ."""
    MAX_KEYS.write_text("100")
    for criteria in ({}, {"address": PEER}, {"address": "192.0.2.0", "prefixlen": 24}):
        abi.set_key(sock, pack_key(1, 2, **criteria))
        for ids in ((1, 3), (3, 2)):
            with refused(errno.EEXIST):
                abi.set_key(sock, pack_key(*ids, **criteria))
        abi.set_key(sock, pack_key(2, 1, **criteria))
    with refused(errno.EEXIST):  # another identity, the same peers
        abi.set_key(sock, pack_key(1, 2, address=PEER, prefixlen=32))
    assert len(rows()) == 6


def test_keys_of_other_criteria_may_share_ids(sock, sock6):
    """The more specific one wins, so that there is one answer."""
    criteria = [
        {},
        {"ifindex": 0},
        {"address": PEER},
        {"address": PEER, "ifindex": 0},
        {"address": "192.0.2.2"},
        {"address": "0.0.0.0", "prefixlen": 0},
        {"address": "192.0.2.0", "prefixlen": 24},
        {"address": "192.0.2.0", "prefixlen": 25},
    ]
    for each in criteria:
        abi.set_key(sock, pack_key(1, 2, **each))
    for each in ({"address": "::", "prefixlen": 0}, {"address": "2001:db8::1"}):
        abi.set_key(sock6, pack_key(1, 2, **each))
    assert len(rows()) == len(criteria) + 2


def test_overlap_where_it_is_permitted(sock):
    """And no longer, once it is not: not even a replacement of what overlaps."""
    OVERLAP.write_text("1")
    abi.set_key(sock, pack_key(1, 2))
    abi.set_key(sock, pack_key(1, 3))
    OVERLAP.write_text("0")
    before = rows()
    with refused(errno.EEXIST):
        abi.set_key(sock, pack_key(1, 2, flags=abi.KEY_NOSEND))
    assert rows() == before
    abi.set_key(sock, pack_key(1, 3, flags=abi.KEY_DEL))
    abi.set_key(sock, pack_key(1, 2, flags=abi.KEY_NOSEND))


@pytest.mark.parametrize("newer", ["right", "wrong"])
def test_newer_key_wins_where_overlap_is_permitted(link, newer):
    """Two keys of A with the same ids for the same peer: a host, and a prefix of full length."""
    link.a.namespace.write_sysctl("net/ipv4/tcp_authopt_key_overlap", 1)
    listener = link.listen("ours", V4, FIRST)
    client = link.client("ours", V4)
    keys = {
        "right": pack_key(FIRST.a_id, FIRST.b_id, secret=FIRST.secret, address=client.address),
        "wrong": pack_key(FIRST.a_id, FIRST.b_id, address=client.address, prefixlen=32),
    }
    for name in sorted(keys, key=lambda name: name == newer):
        abi.set_key(client.sock, keys[name])
    if newer == "right":
        connection = link.connect(client, listener)
        connection.exchange()
        connection.close()
        link.verify()
    else:
        client.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.sock.connect((client.address, listener.sock.getsockname()[1]))
        assert set(link.b.counters()) == {BAD}
        link.audit()


# --- limit ---------------------------------------------------------------------------------------


def test_limit(sock):
    """ENOSPC; a replacement always has room, and what is there stays if the limit sinks."""
    assert MAX_KEYS.read_text() == "131072\n"
    MAX_KEYS.write_text("3")
    for number in range(1, 4):
        abi.set_key(sock, pack_key(number, number))
    for _ in range(2):
        with refused(errno.ENOSPC):
            abi.set_key(sock, pack_key(4, 4))
        abi.set_key(sock, pack_key(2, 2, secret=b"other bytes"))
        assert len(rows()) == 3
        MAX_KEYS.write_text("1")
    abi.set_key(sock, pack_key(1, 1, flags=abi.KEY_DEL))
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(4, 4))
    MAX_KEYS.write_text("3")
    abi.set_key(sock, pack_key(4, 4))


@pytest.mark.usefixtures("quick")
def test_limit_of_keys_with_equal_criteria(sock):
    """512, which takes overlap; a replacement always has room."""
    OVERLAP.write_text("1")
    alike = [pack_key(number % 256, number // 256, address=PEER) for number in range(514)]
    for key in alike[:512]:
        abi.set_key(sock, key)
    for key in alike[512], pack_key(9, 9, address=PEER, prefixlen=32):
        with refused(errno.ENOSPC):
            abi.set_key(sock, key)
    abi.set_key(sock, pack_key(1, 0, address="192.0.2.2"))
    abi.set_key(sock, alike[7])
    assert len(rows()) == 513
    abi.set_key(sock, to_delete(alike[0]))
    abi.set_key(sock, alike[512])
    with refused(errno.ENOSPC):
        abi.set_key(sock, alike[513])


@pytest.mark.usefixtures("quick")
def test_limit_of_combinations_of_criteria(sock, sock6):
    """64, of both families: which fields there are, and how long the prefix is."""
    combinations = [
        (sock, {"address": "0.0.0.0", "prefixlen": length, "ifindex": ifindex})
        for length in range(25)
        for ifindex in (None, 0)
    ]
    combinations += [(sock6, {"address": "::", "prefixlen": length}) for length in range(13)]
    combinations += [(sock, {})]
    assert len(combinations) == 64
    for each, criteria in combinations:
        abi.set_key(each, pack_key(1, 2, **criteria))
    more = pack_key(1, 2, address="192.0.2.0", prefixlen=25)
    for _ in range(2):
        for value in (more, pack_key(3, 4, ifindex=0), pack_key(3, 4, address="0.0.0.0")):
            with refused(errno.ENOSPC):
                abi.set_key(sock, value)
        for each, criteria in combinations:
            abi.set_key(each, pack_key(1, 2, **criteria, flags=abi.KEY_NOSEND))
        # Another key of a combination that is there is none of a new one.
        abi.set_key(sock, pack_key(3, 4, address="192.0.2.0", prefixlen=24))
    abi.set_key(sock6, pack_key(1, 2, flags=abi.KEY_DEL, address="::", prefixlen=12))
    abi.set_key(sock, more)
    with refused(errno.ENOSPC):
        abi.set_key(sock6, pack_key(1, 2, address="::", prefixlen=12))


def test_limit_is_of_each_namespace(sock):
    MAX_KEYS.write_text("0")
    other = Namespace()
    with other.entered(), socket.socket() as elsewhere:
        assert MAX_KEYS.read_text() == "131072\n"
        abi.set_key(elsewhere, pack_key(1, 2))
    other.close()
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(1, 2))


def test_keys_are_charged_to_the_caller(sock, charged):
    """At least the 280 bytes of a key, and its node in the tree."""
    count = 4000
    before = charged()
    for number in range(count):
        address = f"10.0.{number // 256}.{number % 256}"
        abi.set_key(sock, pack_key(1, 2, address=address))
    each = (charged() - before) / count
    assert 280 + 40 <= each < MOST


def test_state_is_charged_to_the_caller(sock, charged):
    """At least the 376 bytes of a socket's state."""
    count = 2000
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * count, max(2 * count, limits[1])))
    socks = [socket.socket() for _ in range(count)]
    before = charged()
    for each in socks:
        abi.set_authopt(each)
    grown = (charged() - before) / count
    for each in socks:
        each.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert 376 <= grown < MOST


# --- families ------------------------------------------------------------------------------------


def test_mapped_prefix_covers_ipv4_peers(link):
    """A /120 of mapped addresses at either end, and on the wire it is IPv4."""
    listener, client = link.listen("ours", MAPPED_BOTH), link.client("ours", MAPPED_BOTH)
    link.know(FIRST)
    for peer in (listener, client):
        ids = peer.host.ids(FIRST)
        key = pack_key(*ids, secret=FIRST.secret, address="::ffff:192.0.2.0", prefixlen=120)
        abi.set_key(peer.sock, key)
    connection = link.connect(client, listener)
    connection.exchange()
    connection.close()
    assert all(len(record.segment.src) == 4 for record in link.verify().signed)


def test_prefix_and_unbound_keys_protect(link):
    """Keys for a prefix on one end, for any peer on the other."""
    control = link.a.control(socket.AF_INET)
    link.know(FIRST)
    key = pack_key(FIRST.a_id, FIRST.b_id, secret=FIRST.secret, address="192.0.2.0", prefixlen=24)
    abi.set_key(control, key)
    listener = link.listen("ours", V4)
    abi.set_key(listener.sock, Ours.pack(link.b, None, FIRST))
    connection = link.connect(link.client("ours", V4), listener)
    connection.exchange()
    connection.close()
    link.verify()


# --- anything ------------------------------------------------------------------------------------

SEED = int(os.environ.get("TAO_SEED", "5925"))
STEPS = int(os.environ.get("TAO_STEPS", "800"))


def random_key(rng: random.Random, masters: list[int]) -> bytes:
    """A key of few ids and addresses, so that keys meet; one field in a few is out of range."""
    flags = 0
    for bit in range(11):
        flags |= (rng.random() < (0.25 if bit else 0.4)) << bit
    for bit in range(20, 24):
        flags |= (rng.random() < 0.15) << bit
    policy = rng.random() < 0.3
    if policy:
        flags = flags & (0xF0004D | (rng.random() < 0.05) << rng.randrange(11))
        flags |= rng.choice([abi.KEY_REQUIRE, abi.KEY_EXEMPT]) | rng.choice([0] * 5 + [0xF0000])
    flags |= (rng.random() < 0.02) << rng.choice([*range(11, 20), *range(24, 32)])
    network = ip_network(rng.choice(["192.0.2.0/24", "2001:db8::/64", "::ffff:192.0.2.0/120"]))
    prefixlen = rng.choice([network.prefixlen, network.max_prefixlen, 0, 8, 33, 129, -1, 1 << 8])
    address = network[rng.choice([0, 0, 1, 2])]
    if prefixlen == 0 and rng.random() < 0.8:
        address = type(address)(0)
    bare = policy and rng.random() < 0.9
    return abi.AUTHOPT_KEY.pack(
        flags,
        0 if bare else rng.randrange(3),
        0 if bare else rng.randrange(3),
        0 if bare else rng.choice([1, 1, 1, 2, 3, 0, 4, 255]),
        0 if bare else rng.choice([0, 1, 16, 79, 80, 80, 81, 255]),
        rng.choice([b"one", b"two"]),
        abi.pack_sockaddr(rng.choice([str(address)] * 9 + [None])),
        rng.choice([0, *masters, 1, -1, 1 << 30]),
        prefixlen,
        *(rng.choice([0, 1, 2, (1 << 64) - 1]) for _ in range(4)),
        rng.choice([address.packed, ip_address("192.0.2.1").packed, bytes(16)]),
        rng.choice([0, 32, 128, 24, 129, -1]),
        rng.choice([179, 646, 0]),
        rng.random() < 0.01,
        rng.choice([b"red"] * 4 + [b"blue", b"", b"a/b", b"red\0x", b"x" * 16]),
        rng.choice([b""] * 99 + [b"\0\1"]),
    )


def test_random_keys_are_answered_as_the_model_says(sock, sock6, quick):
    """Value by value the same error, and in the end, and now and then, the same keys."""
    rng = random.Random(SEED)
    with Rtnetlink() as rtnetlink:
        rtnetlink.add_vrf("red", 100)
    keys = Keys(l3_masters={socket.if_nametoindex("red"): "red"})
    answers = set()
    for step in range(STEPS):
        if step % 100 == 0:
            keys.limit, keys.overlap = rng.choice([3, 10, 131072]), rng.random() < 0.3
            MAX_KEYS.write_text(str(keys.limit))
            OVERLAP.write_text(str(int(keys.overlap)))
            assert Path("/proc/self/net/tcp_authopt").read_text() == keys.proc(), (SEED, step)
        value = random_key(rng, list(keys.l3_masters))
        if rng.random() < 0.1:
            value = (value + rng.choice([b"", b"\0", b"\1"]))[: rng.randrange(360)]
        if len(value) == 144:
            continue  # the kernel's
        target = rng.choice([sock, sock6])
        expected = keys.set(value, target.family)
        try:
            abi.set_key(target, value)
            answer = 0
        except OSError as error:
            answer = error.errno
        assert answer == expected, (SEED, step, value.hex())
        answers.add(answer)
    assert Path("/proc/self/net/tcp_authopt").read_text() == keys.proc(), SEED
    entries = Path("/proc/self/net/tcp_authopt_entries").read_text().count("\n") - 1
    assert entries == len(keys.rows) + len(keys.policies), SEED
    assert answers == {0, errno.EINVAL, errno.ENOENT, errno.ENOSPC, errno.EEXIST}
