"""What the verifier accepts, what it rejects and why, connection by connection."""

import pytest

from conversation import SYN_OPTIONS, TIMESTAMPS, Conversation, key_v4, key_v6
from craft import ACK, FIN, RST, SYN, Tcp, ip_frame, timed
from tcp_authopt_verify import Key, Policy, Report, Status, audit
from tcp_authopt_verify.mac import ALGORITHMS

KEY = key_v4()


def judge(frames: list[bytes], *keys: Key, **policy: object) -> Report:
    return audit(timed(frames), Policy(keys or (KEY,), **policy))


def reasons(report: Report) -> list[str]:
    return [record.reason for record in report.bad]


@pytest.mark.parametrize("covers_options", [True, False], ids=["options", "no-options"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("make", [key_v4, key_v6], ids=["v4", "v6"])
def test_good_conversation(make, algorithm, covers_options):
    key = make(algorithm, covers_options=covers_options)
    report = judge(Conversation(key).whole(), key)
    assert report.ok, report.summary()
    assert len(report.signed) == len(report.segments) == 8
    assert {(r.source, r.keyid, r.rnextkeyid) for r in report.signed} == {
        (key.a, 61, 84),
        (key.b, 84, 61),
    }
    assert "8 segments checked: 8 signed, 0 unsigned, 0 bad" in report.summary()
    assert "5 segments, 30 bytes of data" in report.summary()


def test_nothing_captured_is_not_ok():
    assert not judge([]).ok


def test_unsigned_segment():
    plain = Tcp("192.0.2.1", "192.0.2.2", 40000, 179, 1, flags=SYN).frame()
    assert reasons(judge([plain])) == ["no AO option"]
    report = judge([plain], unsigned_ports=frozenset({179}))
    assert report.ok
    assert len(report.unsigned) == 1


def test_signed_segments_are_judged_where_unsigned_ones_may_be():
    frames = Conversation(KEY).whole()
    frames[3] = frames[3][:-1] + b"!"
    report = judge(frames, check_checksums=False, unsigned_ports=frozenset({179}))
    assert reasons(report) == ["wrong MAC"]


def test_other_traffic_is_counted_apart():
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    report = judge([arp, *Conversation(KEY).whole()])
    assert report.ok
    assert [record.reason for record in report.having(Status.OTHER)] == ["arp"]
    assert not judge([arp]).ok


def test_igmp_is_of_a_group():
    """What a router says of multicast; of two hosts it would be a segment that was damaged."""
    report = bytes.fromhex("1600 0904 e000 0005")
    groups, nobody = (
        ip_frame("192.0.2.1", to, report, protocol=2) for to in ("224.0.0.5", "192.0.2.2")
    )
    assert [record.reason for record in judge([groups]).records] == ["igmp"]
    assert reasons(judge([nobody])) == ["malformed: IP protocol 2"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"secret": b"testvectoR"}, "wrong MAC"),
        ({"covers_options": False}, "wrong MAC"),
        ({"algorithm": "hmac-sha-256-96"}, "wrong MAC"),
        ({"a_keyid": 62}, "unknown KeyID"),
        ({"a_keyid": 84, "b_keyid": 61}, "unknown KeyID"),
    ],
    ids=str,
)
def test_other_key(change, reason):
    algorithm = change.pop("algorithm", KEY.algorithm)
    report = judge(Conversation(KEY).whole(), key_v4(algorithm, **change))
    assert reasons(report)[0] == reason
    assert not report.signed or len(report.bad) + len(report.signed) == 8


def test_trailing_nul_makes_another_aes_key():
    frames = Conversation(key_v4("aes-128-cmac-96")).whole()
    longer = key_v4("aes-128-cmac-96", secret=KEY.secret + b"\0")
    assert set(reasons(judge(frames, longer))) == {"wrong MAC", "no handshake seen"}


def test_key_between_other_addresses():
    assert set(reasons(judge(Conversation(KEY).whole(), key_v6()))) == {"unknown KeyID"}


def test_key_between_prefixes():
    key = Key("wide", "192.0.2.0/31", "192.0.2.2/31", 61, 84, KEY.algorithm, KEY.secret)
    assert judge(Conversation(KEY).whole(), key).ok


def test_replaced_key_with_the_same_ids():
    new = key_v4(secret=b"replaced")
    talk = Conversation(KEY)
    frames = talk.whole()
    talk.key = new
    frames.append(talk.data(KEY.a, b"more"))
    report = judge(frames, KEY, new)
    assert report.ok
    assert [record.key for record in report.signed] == [KEY] * 8 + [new]
    assert reasons(judge(frames, KEY)) == ["wrong MAC"]


def syn_with(options: bytes) -> bytes:
    return Conversation(KEY).segment(KEY.a, 0, SYN, options, b"").frame()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((bytes([29, 16]) + bytes(14)) * 2, "more than one AO option"),
        (bytes([29, 16]) + bytes(14) + bytes([29, 4, 0, 0]), "more than one AO option"),
        (bytes([29, 16]) + bytes(14) + bytes([19, 18]) + bytes(16), "AO and MD5 in one segment"),
        (bytes([29, 15]) + bytes(13), "AO option of length 15"),
        (bytes([29, 17]) + bytes(15), "AO option of length 17"),
        (bytes([29, 4, 61, 84]), "AO option of length 4"),
        (bytes([29, 2]), "AO option of length 2"),
        (bytes([29, 1, 1, 1]), "malformed: length of TCP option 29"),
        (bytes([8, 0, 1, 1]), "malformed: length of TCP option 8"),
        (bytes([1, 1, 1, 29]), "malformed: length of TCP option 29"),
        (bytes([29, 40]) + bytes(14), "malformed: length of TCP option 29"),
        (bytes([0, 29, 16]) + bytes(13), "malformed: bytes behind the end of the TCP options"),
        (bytes([8, 10]) + bytes(10), "no AO option"),
        (bytes(4), "no AO option"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_damaged_options(options, reason):
    assert reasons(judge([syn_with(options)])) == [reason]


def test_wrong_tcp_checksum_is_named():
    frame = bytearray(Conversation(KEY).syn())
    frame[14 + 20 + 16] ^= 1
    assert reasons(judge([bytes(frame)])) == ["TCP checksum"]
    assert judge([bytes(frame)], check_checksums=False).ok


def test_capture_without_the_handshake():
    assert set(reasons(judge(Conversation(KEY).whole()[2:]))) == {"no handshake seen"}


def test_retransmissions():
    frames = [copy for frame in Conversation(KEY).whole() for copy in (frame, frame)]
    report = judge(frames)
    assert report.ok
    assert len(report.signed) == 16


@pytest.mark.parametrize("isn", [0, 1, 0x7FFFFFFF, 0xFFFFFF00, 0xFFFFFFFE, 0xFFFFFFFF], ids=hex)
def test_sequence_numbers_wrap(isn):
    talk = Conversation(KEY, isn, isn)
    frames = [talk.syn(), talk.syn_ack()]
    for _ in range(5):
        frames += [talk.data(KEY.a, bytes(1000)), talk.data(KEY.b, bytes(1000))]
        for end in (KEY.a, KEY.b):
            talk.skip(end, 0x70000000)
    # 14 jumps of 0x70000000 pass 2^32 several times; what came before is then repeated too late.
    frames += [talk.data(KEY.a, b"", FIN | ACK)]
    report = judge(frames)
    assert report.ok, report.summary()
    assert reasons(judge([*frames, frames[2]])) == ["wrong MAC"]


def test_old_segment_before_the_wrap():
    talk = Conversation(KEY, 0xFFFFFF00)
    frames = [talk.syn(), talk.syn_ack(), talk.data(KEY.a, bytes(1000)), talk.data(KEY.a, b"x")]
    report = judge([*frames, frames[2]])
    assert report.ok, report.summary()


def test_ports_are_reused():
    first, second = Conversation(KEY, 1, 2).whole(), Conversation(KEY, 100000, 200000).whole()
    report = judge(first + second + first[-1:])
    assert report.ok, report.summary()


def test_forged_syn_does_not_disturb():
    frames = Conversation(KEY).whole()
    forged = Conversation(key_v4(secret=b"forged"), isn_a=77).syn()
    plain = Tcp(KEY.a, KEY.b, 40000, 179, 99, flags=SYN).frame()
    report = judge([*frames[:4], forged, plain, *frames[4:]])
    assert reasons(report) == ["wrong MAC", "no AO option"]


def test_syn_ack_from_another_isn():
    first, second = Conversation(KEY, 1, 2), Conversation(KEY, 1, 9000)
    frames = [first.syn(), first.syn_ack()]
    second.syn()
    frames += [second.syn_ack(), second.data(KEY.a, b"hello"), second.data(KEY.b, b"hello")]
    assert judge(frames).ok


def test_syn_ack_that_answers_nothing():
    talk = Conversation(KEY)
    talk.syn()
    assert reasons(judge([talk.syn_ack()])) == ["no handshake seen"]


@pytest.mark.parametrize("taken", [0, 3, 5])
def test_data_in_the_syn(taken):
    """The answer may acknowledge all of it, a part, or none; it goes on from there."""
    talk = Conversation(KEY, 0xFFFFFFFE)
    syn = talk.segment(KEY.a, 0, SYN, SYN_OPTIONS, b"early").frame(talk.ao(KEY.a, 0, syn=True))
    talk.sent[KEY.a] = 1 + taken
    frames = [syn, talk.syn_ack(), talk.data(KEY.b, b"hello")]
    frames += [talk.data(KEY.a, b"early"[taken:]), talk.data(KEY.b, b"hello")]
    report = judge([*frames, frames[1], talk.syn()])
    assert report.ok, report.summary()


def test_answer_to_more_than_the_syn_had():
    talk = Conversation(KEY)
    syn = talk.segment(KEY.a, 0, SYN, SYN_OPTIONS, b"early").frame(talk.ao(KEY.a, 0, syn=True))
    talk.sent[KEY.a] = 7
    assert reasons(judge([syn, talk.syn_ack()])) == ["no handshake seen"]


def test_simultaneous_open():
    talk = Conversation(KEY, 1, 2)
    swapped = Conversation(
        Key("swapped", KEY.b, KEY.a, KEY.b_keyid, KEY.a_keyid, KEY.algorithm, KEY.secret), 2, 1
    )
    first = talk.syn()
    segment = talk.segment(KEY.b, 0, SYN, b"", b"")
    second = segment.frame(swapped.ao(KEY.b, 0, syn=True))
    talk.sent[KEY.b] = 1
    frames = [first, second, talk.syn_ack(KEY.a), talk.syn_ack(KEY.b)]
    frames += [talk.data(KEY.a, b"hello"), talk.data(KEY.b, b"hello")]
    report = judge(frames)
    assert report.ok, report.summary()


def test_reset_of_both_kinds():
    talk = Conversation(KEY)
    frames = [talk.syn(), talk.syn_ack(), talk.data(KEY.a, b"hello")]
    frames.append(talk.segment(KEY.a, talk.sent[KEY.a], RST | ACK, TIMESTAMPS, b""))
    frames[-1] = frames[-1].frame(talk.ao(KEY.a, talk.sent[KEY.a]))
    frames.append(talk.segment(KEY.a, talk.sent[KEY.a], RST, b"", b"").frame())
    assert reasons(judge(frames)) == ["no AO option"]


def test_record_tells_what_happened():
    report = judge(Conversation(KEY).whole())
    assert str(report.records[3]) == (
        "frame 4: 192.0.2.1.40000 > 192.0.2.2.179 [P.] seq 1001 ack 4294901761 length 30 "
        "ao 61/84: signed"
    )
