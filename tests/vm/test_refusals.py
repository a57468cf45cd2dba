"""Whoever lacks the key gets nowhere, and is counted."""

import errno
import socket
from collections import Counter
from dataclasses import replace

import pytest

import abi
from clock import wait_for
from conftest import OURS, PAIRS, ROLES
from craft import ACK, PSH, RST, SYN
from forge import Forger
from link import BAD, FIRST, KEY_NOT_FOUND, PORT, REQUIRED, SECOND, V4, V6, Link, Mkt, Ours
from requirement import requirement
from test_reuse import disconnect
from test_socket_options import refused

ENDS = [pytest.param(V4, id="v4"), pytest.param(V6, id="v6")]
WRONG = replace(FIRST, name="wrong", secret=b"guessed")
OTHER_IDS = replace(FIRST, name="unknown", a_id=7, b_id=8)


def assert_unanswered(link: Link) -> None:
    """There are only SYNs on the wire."""
    assert {record.segment.flags for record in link.report.segments} == {SYN}


def assert_refused(link: Link, counter: str) -> None:
    """Only SYNs again, and each of them was counted, here and nowhere else."""
    assert_unanswered(link)
    wait_for(
        "each SYN to be counted once",
        lambda: link.b.counters() == {counter: len(link.audit().segments)},
    )


@requirement(22, 26)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize(("client", "server"), PAIRS)
@pytest.mark.parametrize(
    ("key", "counter"), [(WRONG, BAD), (OTHER_IDS, KEY_NOT_FOUND)], ids=["wrong-key", "missing-key"]
)
def test_client_with_another_key(link, client, server, ends, key, counter):
    listener = link.listen(server, ends, FIRST)
    client = link.client(client, ends, key)
    link.start(client)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(counter))
    assert client.pending
    assert not listener.asked
    link.verify()
    assert_refused(link, counter)


@requirement(26)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("server", ROLES)
def test_client_without_a_signature(link, server, ends):
    listener = link.listen(server, ends, FIRST)
    client = link.client("plain", ends)
    link.start(client)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(REQUIRED))
    assert client.pending
    assert not listener.asked
    report = link.verify(unsigned=True)
    assert len(report.unsigned) == len(report.segments)
    assert_refused(link, REQUIRED)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("client", ROLES)
def test_server_without_tcp_ao(link, client, ends):
    """The kernel's rule, with the module as without it: a plain socket takes no signed SYN."""
    listener = link.listen("plain", ends)
    client = link.client(client, ends, FIRST)
    link.start(client)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(KEY_NOT_FOUND))
    assert client.pending
    assert not listener.asked
    link.verify()
    assert_refused(link, KEY_NOT_FOUND)


@requirement(22)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("client", ROLES)
def test_forged_answers_to_a_syn(link, client, ends):
    """Nobody listens on B, which is silent to signed segments: an attacker answers for it."""
    client = link.client(client, ends, FIRST)
    link.start(client)
    wait_for("the SYN", lambda: link.audit().signed)
    forger = Forger.of(link, link.b, ends.wire)
    answer = forger.tcp(seq=5000, flags=SYN | ACK)
    signature = forger.ao(FIRST, src_isn=5000)
    forgeries = [
        (answer, None, REQUIRED),
        (replace(answer, flags=RST | ACK, seq=0), None, REQUIRED),
        (answer, forger.ao(WRONG, src_isn=5000), BAD),
        (answer, replace(signature, src_isn=5001), BAD),
        (answer, replace(signature, sne=1), BAD),
        (answer, replace(signature, keyid=signature.keyid ^ 1), KEY_NOT_FOUND),
    ]
    counted: Counter[str] = Counter()
    for segment, ao, counter in forgeries:
        forger.send(segment, ao)
        counted[counter] += 1
        wait_for("the forgery to be refused", lambda: link.a.counters() == counted)
        assert client.pending, (segment, ao)
    # The one with the wrong key is known to the verifier, and so a good segment to it.
    assert len(link.audit().bad) == len(forgeries) - 1

    forger.send(answer, signature)
    wait_for("the good one to be taken", lambda: not client.pending)
    assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert len(link.audit().bad) == len(forgeries) - 1


@requirement(21)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_signed_answer_to_another_syn(link, ends):
    """TCP would reset it; without the peer's ISN that cannot be signed, and the SYN comes again."""
    client = link.client("ours", ends, FIRST)
    link.start(client)
    wait_for("the SYN", lambda: link.audit().signed)
    forger = Forger.of(link, link.b, ends.wire)
    answer, signature = forger.tcp(seq=5000, flags=SYN | ACK), forger.ao(FIRST, src_isn=5000)
    forger.send(replace(answer, ack=answer.ack + 1), signature)
    wait_for("the SYN to come again", lambda: len(forger.segments(link.a)) == 2)
    assert client.pending
    forger.send(answer, signature)
    wait_for("the good one to be taken", lambda: not client.pending)
    assert client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    # To the verifier the wrong one belongs to a handshake that it has not seen.
    (bad,) = link.audit().bad
    assert bad.segment.ack == answer.ack + 1
    assert not [segment for segment in forger.segments(link.a) if segment.flags & RST]
    assert link.a.counters() == {}


@requirement(22)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("server", ROLES)
def test_forged_end_of_a_handshake(link, server, ends):
    """A stranger who has seen a good SYN cannot finish the handshake."""
    listener = link.listen(server, ends, FIRST)
    forger = Forger(link, link.a, ends.wire, 1024, PORT)
    forger.send(forger.tcp(seq=9000, flags=SYN), forger.ao(FIRST, src_isn=9000))
    wait_for("the SYN-ACK", lambda: forger.segments(link.b))

    ack = forger.tcp()
    assert ack.seq == 9001
    signature = forger.ao(FIRST)
    forgeries = [
        (ack, None, BAD),
        (ack, replace(signature, dst_isn=signature.dst_isn + 1), BAD),
        (ack, forger.ao(WRONG), BAD),
        (ack, replace(signature, keyid=signature.keyid ^ 1), KEY_NOT_FOUND),
        (replace(ack, flags=RST), None, BAD),
    ]
    counted: Counter[str] = Counter()
    for segment, ao, counter in forgeries:
        forger.send(segment, ao)
        counted[counter] += 1
        wait_for("the forgery to be refused", lambda: link.b.counters() == counted)
        assert not listener.asked
    forger.send(ack, signature)
    wait_for("the good one to be taken", lambda: listener.asked)
    assert len(link.audit().bad) == len(forgeries) - 1


@requirement(21, 22)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("victim", ["client", "server"])
@pytest.mark.parametrize("role", ROLES)
def test_forged_segments_in_a_session(link, role, victim, ends):
    """Each is refused and counted, none disturbs; a good RST, the last one, does end it."""
    roles = (role, "native") if victim == "client" else ("native", role)
    connection = link.connected(*roles, ends)
    connection.exchange()
    target, liar = link.a, link.b
    if victim == "server":
        target, liar = liar, target
    forger = Forger.of(link, liar, ends.wire)
    data = forger.tcp(flags=PSH | ACK, payload=b"forged")
    reset = replace(data, flags=RST | ACK, payload=b"")
    good = forger.ao(FIRST)
    option = bytearray(data.data(good)[20:36])
    option[-1] ^= 1
    swapped = replace(good, keyid=good.rnextkeyid, rnextkeyid=good.keyid)
    long = bytes([29, 20, good.keyid, good.rnextkeyid]) + bytes(16)
    short = bytes([29, 12, good.keyid, good.rnextkeyid]) + bytes(8)
    md5 = bytes([19, 18]) + bytes(16) + b"\1\1"
    right_length = bytes([29, 16, good.keyid, good.rnextkeyid]) + bytes(12)
    forgeries = {
        "unsigned data": (data, None, REQUIRED),
        "unsigned RST": (reset, None, REQUIRED),
        "unsigned SYN": (replace(data, flags=SYN, payload=b""), None, REQUIRED),
        "MD5 instead": (replace(data, options=md5), None, None),
        "all-zero MAC": (replace(data, options=right_length), None, BAD),
        "last bit of the MAC": (replace(data, options=bytes(option)), None, BAD),
        "long MAC": (replace(data, options=long), None, BAD),
        "short MAC": (replace(data, options=short), None, BAD),
        "two options": (replace(data, options=right_length + short[:-4]), None, None),
        "AO and MD5": (replace(data, options=right_length + md5), None, None),
        "option of length 3": (replace(data, options=bytes([29, 3, 0]) + b"\1" * 5), None, None),
        "option cut short": (replace(data, options=bytes([1, 1, 29, 16, 1, 1, 1, 1])), None, None),
        "other secret": (data, forger.ao(WRONG), BAD),
        "other secret RST": (reset, forger.ao(WRONG), BAD),
        "other ISN": (data, replace(good, src_isn=good.src_isn ^ 1), BAD),
        "key of the SYN": (data, replace(good, dst_isn=0), BAD),
        "next SNE": (data, replace(good, sne=1), BAD),
        "KeyID of the other direction": (data, swapped, KEY_NOT_FOUND),
    }
    counted: Counter[str] = Counter()
    for what, (segment, ao, counter) in forgeries.items():
        forger.send(segment, ao)
        if counter is None:
            # No counter for this one: it is through when the next one is, which has a counter.
            forger.send(data)
        counted[counter or REQUIRED] += 1
        wait_for(f"{what} to be refused and counted", lambda: target.counters() == counted)
    connection.exchange(b"undisturbed", b"as well")
    helpers = sum(counter is None for _, _, counter in forgeries.values())
    # The verifier knows the other secret.
    right_macs = sum(what.startswith("other secret") for what in forgeries)
    bad = len(forgeries) + helpers - right_macs
    assert len(link.audit().bad) == bad

    forger.send(forger.tcp(flags=RST | ACK), good)
    end = connection.client if victim == "client" else connection.server
    with pytest.raises(ConnectionResetError):
        end.sock.recv(1)
    assert len(link.audit().bad) == bad


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_connect_without_a_key_to_send_with(link, ends):
    link.listen("ours", ends, FIRST)
    client = link.client("ours", ends)
    client.add(FIRST, abi.KEY_NOSEND)
    with pytest.raises(OSError, match="key") as refused:
        client.sock.connect((client.address, PORT))
    assert refused.value.errno == errno.ENOKEY
    assert not link.audit().segments
    client.add(FIRST)
    assert client.sock.connect_ex((client.address, PORT)) == 0
    link.verify()


@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("beside", ["reset", "time-wait"])
def test_connect_again_without_a_key_to_send_with(link, ends, beside):
    """What is read back is not the last connection's any more."""
    connection = link.connected("ours", "native", ends)
    connection.exchange()
    client = connection.client
    assert abi.get_authopt(client.sock).flags == abi.FLAG_ACTIVE
    if beside == "time-wait":
        client.sock.shutdown(socket.SHUT_WR)
        assert connection.server.sock.recv(1) == b""
        connection.server.sock.close()
        assert client.sock.recv(1) == b""
    disconnect(client.sock)
    client.add(FIRST, abi.KEY_NOSEND)
    with refused(errno.ENOKEY):
        client.sock.connect((client.address, PORT))
    assert abi.get_authopt(client.sock).flags == 0
    client.add(FIRST)
    link.connect(client, connection.listener).exchange()
    assert abi.get_authopt(client.sock).flags == abi.FLAG_ACTIVE
    link.verify()


@requirement(9)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_listener_without_a_key_to_send_with(link, ends):
    """The SYN is good, and there is no key to sign the answer with: none goes out."""
    listener = link.listen("ours", ends)
    listener.add(FIRST, abi.KEY_NOSEND)
    client = link.client("native", ends, FIRST)
    link.start(client)
    wait_for("the SYN", lambda: link.audit().signed)
    assert client.pending
    link.verify()
    assert_unanswered(link)
    listener.add(FIRST)
    wait_for("a retransmission to be answered", lambda: not client.pending)
    link.verify()


@requirement(10)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_listener_without_a_key_to_receive_with(link, ends):
    """The right key, but not for receiving: the SYN is refused as one with an unknown KeyID."""
    listener = link.listen("ours", ends)
    listener.add(FIRST, abi.KEY_NORECV)
    client = link.client("native", ends, FIRST)
    link.start(client)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(KEY_NOT_FOUND))
    assert client.pending
    link.verify()
    assert_refused(link, KEY_NOT_FOUND)


@requirement(26)
@pytest.mark.ours
@pytest.mark.parametrize("flag", ["NOSEND", "NORECV", "wrong-peer"])
@pytest.mark.parametrize("ends", ENDS)
def test_keys_that_do_not_count(link, ends, flag):
    """A key that is not valid now still says that the peer must sign; another peer's does not."""
    listener = link.listen("ours", ends)
    if flag == "wrong-peer":
        elsewhere = "198.51.100.1" if ends is V4 else "2001:db8:ffff::1"
        abi.set_key(listener.sock, Ours.pack(link.b, elsewhere, FIRST))
    else:
        listener.add(FIRST, getattr(abi, f"KEY_{flag}"))
    client = link.client("plain", ends)
    link.start(client)
    if flag == "wrong-peer":
        wait_for("the connection", lambda: not client.pending)
    else:
        wait_for("the SYN to be refused", lambda: link.b.counters().get(REQUIRED))
        assert client.pending
    assert link.verify(unsigned=True).unsigned


@requirement(23)
@pytest.mark.ours
@pytest.mark.parametrize("reject", [False, True], ids=["accept", "reject"])
@pytest.mark.parametrize("ends", ENDS)
def test_signed_syn_that_nobody_asked_for(link, ends, reject):
    """Without a key for the sender its SYN is answered unsigned, or not at all."""
    listener = link.listen("ours", ends)
    abi.set_authopt(listener.sock, abi.FLAG_REJECT_UNEXPECTED if reject else 0)
    client = link.client("native", ends, FIRST)
    link.start(client)
    if reject:
        wait_for("the SYN to be refused", lambda: link.b.counters().get(KEY_NOT_FOUND))
        link.verify()
        assert_refused(link, KEY_NOT_FOUND)
    else:
        wait_for("the unsigned answer to be refused", lambda: link.a.counters().get(REQUIRED))
        report = link.verify(unsigned=True)
        assert {r.source for r in report.unsigned} == {link.b.addresses[ends.wire]}
    assert client.pending
    assert not listener.asked


@requirement(22)
@pytest.mark.ours
@pytest.mark.parametrize("ends", ENDS)
def test_wrong_key_does_not_harm_the_right_one(link, ends):
    """Two clients, one of them with a wrong key, meet the same listener."""
    listener = link.listen("ours", ends, FIRST, SECOND)
    stranger = link.client("native", ends, WRONG)
    link.start(stranger)
    wait_for("the SYN to be refused", lambda: link.b.counters().get(BAD))
    friend = link.client("native", ends, SECOND)
    link.connect(friend, listener).exchange()
    assert stranger.pending
    link.verify()


def test_marks_are_complete():
    """Every parameter that means the module carries its mark, so that nothing runs by luck."""
    for parameter in (*PAIRS, *ROLES):
        if not isinstance(parameter, str):
            assert ("ours" in parameter.values) == bool(parameter.marks)
    assert OURS.name == "ours"
    assert isinstance(FIRST, Mkt)
