"""SYN cookies: a peer with a key is answered by a request instead, and opens nothing by an ACK.

The ISNs of a connection that begins with a cookie are those that its ACK shows: all of a recorded
one could be played again. Peers without keys have cookies as ever.
"""

import socket
from dataclasses import replace
from ipaddress import ip_address

import pytest

import abi
from clock import wait_for
from conftest import OURS
from craft import ACK, PSH, SYN
from forge import Forger, md5_is_right
from handshake import ANSWER, OPENING, Negotiated, names, sent
from link import BAD, FIRST, MAPPED_SERVER, PORT, REQUIRED, V4, V6, Ends, Link, Peer
from requirement import requirement
from rtnetlink import Rtnetlink
from test_md5 import SECRET, counters, second_address, set_md5

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
BULK = bytes(range(256)) * 1200
CLIENTS = [pytest.param("ours", marks=OURS), "native"]
TO_OURS = [pytest.param(client, marks=OURS, id=client) for client in ("ours", "native")]

SPARE_REQUESTS = 256
"""So many more requests than the backlog do peers with keys have."""


def cookies(link: Link) -> tuple[int, int]:
    """How many SYN cookies B has sent and got back."""
    found = link.b.namespace.counters()
    return found["SyncookiesSent"], found["SyncookiesRecv"]


def always(link: Link) -> None:
    """B answers every SYN by a cookie, where that is the stack's to say."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 2)


@requirement(13)
@pytest.mark.parametrize("ends", [*ENDS, pytest.param(MAPPED_SERVER, id="mapped")])
@pytest.mark.parametrize("client", TO_OURS)
def test_a_peer_with_a_key_gets_a_request(link: Link, client, ends):
    """With all options that both ends want, as if there were no cookies."""
    always(link)
    connection = link.connected(client, "ours", ends)
    (syn,), (answer,) = sent(link, link.a, OPENING), sent(link, link.b, ANSWER)
    assert names(syn) == {"ao", "mss", "wscale", "timestamps", "sack-permitted"}
    assert names(answer) == {"ao", "mss", "wscale", "sack-permitted"}
    agreed = Negotiated.read(connection.client.sock)
    assert Negotiated.read(connection.server.sock) == agreed.mirrored
    assert agreed.sack
    assert agreed.snd_wscale
    connection.exchange(BULK, BULK[::-1])
    connection.close()
    link.verify()
    assert cookies(link) == (0, 0)
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(13)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("client", CLIENTS)
def test_small_with_the_kernels_server(link: Link, client, ends):
    """It does not keep the window's scale: see README.md."""
    always(link)
    connection = link.connected(client, "native", ends)
    assert cookies(link) == (1, 1)
    connection.exchange()
    connection.close()
    link.verify()


@pytest.mark.parametrize(
    ("ends", "whose"),
    [pytest.param(V4, "client", id="v4-client"), pytest.param(V6, "server", id="v6-server")],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_without_timestamps(link: Link, client, ends, whose):
    """The kernel's cookie without a timestamp has no room for options: neither end uses any."""
    host = link.a if whose == "client" else link.b
    host.namespace.write_sysctl("net/ipv4/tcp_timestamps", 0)
    always(link)
    connection = link.connected(client, "native", ends)
    assert cookies(link) == (1, 1)
    (answer,) = sent(link, link.b, ANSWER)
    assert names(answer) == {"ao", "mss"}
    agreed = Negotiated.read(connection.client.sock)
    assert agreed == Negotiated.read(connection.server.sock) == (False, False, False, 0, 0)
    # More than the window is at first, which is not scaled.
    connection.exchange(BULK[:100000], BULK[:100000])
    connection.close()
    link.verify()
    assert (link.a.counters(), link.b.counters()) == ({}, {})


def recorded(link: Link) -> list[tuple[bytes, int]]:
    """Each TCP frame that A has sent so far, oldest first, with its SYN and ACK."""
    records = link.audit().records
    mine = {ip_address(address) for address in link.a.addresses.values()}
    # More may have come since.
    frames = link.tap.settle()[: len(records)]
    return [
        (frame.data, record.segment.flags & (SYN | ACK))
        for frame, record in zip(frames, records, strict=True)
        if record.segment is not None and ip_address(record.source) in mine
    ]


def sockets(link: Link) -> int:
    """How many sockets B has, TIME-WAITs too."""
    tables = [link.b.namespace.read(name).splitlines()[1:] for name in ("tcp", "tcp6")]
    return sum(map(len, tables))


@requirement(13)
@pytest.mark.ours
@pytest.mark.parametrize("what", ["all", "without the SYN"])
@pytest.mark.parametrize("fast", [False, True], ids=["cookies", "fast-open"])
@pytest.mark.parametrize("ends", ENDS)
def test_a_recorded_connection_is_played_again(link: Link, ends, fast, what):
    """Not a byte of it reaches the program, though each MAC was right once."""
    always(link)
    if fast:
        link.a.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x1 | 0x4)
        # For listeners that begin to listen from now on.
        link.b.namespace.write_sysctl("net/ipv4/tcp_fastopen", 0x2 | 0x200 | 0x400)
    listener = link.listen("ours", ends, FIRST)
    client = link.client("native", ends, FIRST)
    if fast:
        client.sock.sendto(b"ping", socket.MSG_FASTOPEN, (client.address, PORT))
        server = listener.accept()
        assert server.sock.recv(100) == b"ping"
    else:
        connection = link.connect(client, listener)
        connection.exchange()
        server = connection.server
    # The client closes first, so that the server keeps nothing of the connection.
    client.sock.shutdown(socket.SHUT_WR)
    assert server.sock.recv(1) == b""
    server.sock.close()
    wait_for("the server to forget", lambda: sockets(link) == 1)
    link.verify()

    for frame, flags in recorded(link):
        if what == "all" or flags != SYN:
            link.a.inject(frame)
    # All that was played has been judged when the next connection is there.
    fresh = link.connect(link.client("native", ends, FIRST), listener)
    fresh.exchange(b"new", b"not old")
    assert not listener.asked
    assert cookies(link) == (0, 0)
    assert link.b.counters().keys() <= {BAD}


@requirement(13)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_ack_of_no_request(link: Link, ends):
    """The first key comes between cookie and ACK, which is as the peer would then sign it.

    It opens nothing, and nothing is computed for it: no counter of MACs moves, not for a wrong one
    either.
    """
    always(link)
    listener = link.listen("ours", ends)
    forger = Forger(link, link.a, ends.wire, 1024, PORT, unsigned=True)
    forger.send(forger.tcp(seq=1000, flags=SYN))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))
    assert cookies(link) == (1, 0)
    listener.add(FIRST)
    before = link.b.namespace.counters()["TCPAOGood"]
    good = forger.tcp(payload=b"data", flags=ACK | PSH)
    forger.send(good, forger.ao(FIRST))
    forger.send(good, forger.ao(FIRST, src_isn=1))
    forger.send(good)
    wait_for("the unsigned one to be refused", lambda: link.b.counters() == {REQUIRED: 1})
    assert not listener.asked
    assert cookies(link) == (1, 0)
    assert link.b.namespace.counters()["TCPAOGood"] == before
    link.audit(unsigned=True)


@requirement(32)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_listener_with_md5_peers_and_ao_peers(link: Link, ends):
    """Each is served as its own key wants it."""
    always(link)
    listener = link.listen("ours", ends, FIRST)
    address = second_address(link, ends)
    abi.set_md5(listener.sock, address, SECRET)
    client = link.client("native", ends, FIRST)
    client.sock.bind((link.a.address(ends.wire, ends.client), 0))
    first = link.connect(client, listener)
    assert cookies(link) == (0, 0)
    signer = link.client("plain", ends)
    signer.sock.bind((address, 0))
    set_md5(signer)
    second = link.connect(signer, listener)
    assert cookies(link) == (1, 1)
    for connection in (first, second):
        connection.exchange()
    assert abi.get_authopt(first.server.sock).flags == abi.FLAG_ACTIVE
    assert abi.get_authopt(second.server.sock).flags == 0
    for connection in (first, second):
        connection.close()
    report = link.verify(unsigned=True)
    assert report.unsigned
    assert all(md5_is_right(record.segment, SECRET) for record in report.unsigned)
    assert not counters(link.b)
    assert link.a.addresses[ends.wire] in {record.source for record in report.signed}
    assert address not in {record.source for record in report.signed}


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_peer_without_a_key(link: Link, ends):
    """Its cookie is the stack's: nothing of the module's is in its way."""
    always(link)
    listener = link.listen("ours", ends)
    connection = link.connect(link.client("plain", ends), listener)
    connection.exchange(BULK, BULK)
    assert cookies(link) == (1, 1)
    agreed = Negotiated.read(connection.client.sock)
    assert Negotiated.read(connection.server.sock) == agreed.mirrored
    assert agreed.sack
    assert abi.get_authopt(connection.server.sock).flags == 0
    link.verify(unsigned=True)


STRANGER = {"v4": "192.0.2.77", "v6": "2001:db8::77"}
"""Nobody has this address, and so nobody resets what is sent there."""


def strangers(link: Link, ends: Ends) -> Forger:
    """Speaks as somebody without a key, whom B can answer."""
    with link.b.namespace.entered(), Rtnetlink() as rtnetlink:
        rtnetlink.add_neighbours(link.b.interface, [STRANGER[ends.wire]], link.a.mac)
    return Forger(link, link.a, ends.wire, 0, PORT, unsigned=True)


def flood(link: Link, ends: Ends, listener: Peer, backlog: int) -> None:
    """SYNs of somebody without a key, until there are cookies for them."""
    listener.sock.listen(backlog)
    forger = strangers(link, ends)
    syn = forger.tcp(src=STRANGER[ends.wire], seq=1000, ack=0, flags=SYN)
    for port in range(2000, 2000 + backlog + 2):
        forger.send(replace(syn, sport=port))
    wait_for("cookies", lambda: cookies(link)[0] > 0)


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("syncookies", [0, 1])
@pytest.mark.parametrize("ends", ENDS)
def test_flood_of_strangers(link: Link, ends, syncookies):
    """Their SYNs fill the queue. Those of a peer with a key find room all the same."""
    listener = link.listen("ours", ends, FIRST)
    flood(link, ends, listener, 4)
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", syncookies)
    before = cookies(link)
    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    assert cookies(link) == before
    assert abi.get_authopt(connection.server.sock).flags == abi.FLAG_ACTIVE
    # What was sent to strangers is unsigned.
    link.audit(unsigned=True)
    assert link.b.counters() == {}


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_last_quarter_without_cookies(link: Link, ends):
    """It is for those who have been here before; and for a peer with a key, who has not."""
    link.b.namespace.write_sysctl("net/ipv4/tcp_syncookies", 0)
    link.b.namespace.write_sysctl("net/ipv4/tcp_max_syn_backlog", 16)
    listener = link.listen("ours", ends, FIRST)
    forger = strangers(link, ends)
    syn = forger.tcp(src=STRANGER[ends.wire], seq=1000, ack=0, flags=SYN)
    for port in range(2000, 2020):
        forger.send(replace(syn, sport=port))
    drops = link.b.namespace.counters
    wait_for("no more room", lambda: drops()["ListenDrops"] > 0)
    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    link.audit(unsigned=True)


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_flood_of_a_peers_old_syns(link: Link, ends):
    """Each has a right MAC and makes a request of its own, up to a bound; then it is dropped.

    There is no cookie for it, and no room that the strangers had is taken for good.
    """
    backlog, most = 4, 4 + SPARE_REQUESTS
    listener = link.listen("ours", ends, FIRST)
    flood(link, ends, listener, backlog)
    before = cookies(link)
    overflows = link.b.namespace.counters()["ListenDrops"]
    forger = Forger(link, link.a, ends.wire, 3000, PORT)
    syn = forger.tcp(seq=1000, ack=0, flags=SYN)
    signature = forger.ao(FIRST, src_isn=1000, dst_isn=0)
    for port in range(3000, 3000 + most + 20):
        forger.send(replace(syn, sport=port), signature)
    # The strangers have one request more than the backlog.
    dropped = 20 + backlog + 1
    drops = link.b.namespace.counters
    wait_for("the last ones to go", lambda: drops()["ListenDrops"] == overflows + dropped)
    assert cookies(link) == before
    answered = {segment.dport for segment in sent(link, link.b, ANSWER, unsigned=True)}
    assert len([port for port in answered if port >= 3000]) == most - backlog - 1
    assert link.b.counters() == {}
