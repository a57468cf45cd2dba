"""Capture files in and out, and the command line."""

import struct

import pytest

from conversation import Conversation, key_v4
from craft import timed
from tcp_authopt_verify import Policy
from tcp_authopt_verify.__main__ import main
from tcp_authopt_verify.capture import CaptureError, Frame, read, write
from tcp_authopt_verify.keys import dump_policy, load_policy

KEY = key_v4()
FRAMES = timed(Conversation(KEY).whole())


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "good.pcap"
    write(path, FRAMES)
    return path


@pytest.fixture
def policy(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(dump_policy(Policy((KEY,), frozenset({5201}))))
    return path


def test_round_trip(capture):
    assert list(read(capture)) == FRAMES


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("magic", "tick"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_byte_orders_and_clocks(tmp_path, order, magic, tick):
    path = tmp_path / "other.pcap"
    header = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    path.write_bytes(header + struct.pack(order + "IIII", 5, 7, 3, 3) + b"abc")
    assert list(read(path)) == [Frame(5_000_000_000 + 7 * tick, b"abc")]


def test_truncated_anywhere(capture, tmp_path):
    raw = capture.read_bytes()
    boundaries = {24}
    for frame in FRAMES:
        boundaries.add(max(boundaries) + 16 + len(frame.data))
    cut = tmp_path / "cut.pcap"
    for length in range(len(raw)):
        cut.write_bytes(raw[:length])
        if length in boundaries:
            assert len(list(read(cut))) < len(FRAMES)
        else:
            with pytest.raises(CaptureError):
                list(read(cut))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "shorter"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "pcapng"),
        (bytes(24), "magic"),
        (struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 113), "link type 113"),
        (
            struct.pack("<IHHiIIIIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1, 0, 0, 3, 60) + b"abc",
            "only 3 of 60",
        ),
    ],
    ids=["empty", "pcapng", "no-pcap", "link-type", "snapped"],
)
def test_not_a_whole_capture(tmp_path, content, complaint):
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    with pytest.raises(CaptureError, match=complaint):
        list(read(path))


def test_policy_round_trip(policy):
    loaded = load_policy(policy)
    assert vars(loaded.keys[0]) == vars(KEY)
    assert loaded.unsigned_ports == {5201}


def test_secrets_are_not_shown():
    assert "testvector" not in repr(KEY)


@pytest.mark.parametrize(
    "change", [{"algorithm": "md5"}, {"a_keyid": 256}, {"a": "192.0.2.300"}], ids=str
)
def test_policy_that_makes_no_sense(change):
    values = vars(KEY) | change
    with pytest.raises(ValueError, match=r"no algorithm|KeyID is|does not appear"):
        type(KEY)(**values)


def test_command_line(capture, policy, capsys):
    assert main(["--keys", str(policy), "--list", str(capture)]) == 0
    out = capsys.readouterr().out
    assert "8 segments checked: 8 signed, 0 unsigned, 0 bad" in out
    assert out.count("ao 61/84: signed") + out.count("ao 84/61: signed") == 8


def test_command_line_sees_bad_frames(capture, policy, tmp_path, capsys):
    bad = tmp_path / "bad.pcap"
    write(bad, [FRAMES[0], FRAMES[0]._replace(data=FRAMES[0].data[:-1] + b"\xff")])
    assert main(["--keys", str(policy), str(capture), str(bad)]) == 1
    assert "BAD frame 2" in capsys.readouterr().out
    empty = tmp_path / "empty.pcap"
    write(empty, [])
    assert main(["--keys", str(policy), str(empty)]) == 1


def test_command_line_sees_unreadable_files(capture, policy, tmp_path, capsys):
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(capture.read_bytes()[:-1])
    assert main(["--keys", str(policy), str(cut), str(capture)]) == 2
    assert main(["--keys", str(tmp_path / "none.json"), str(capture)]) == 2
    assert "truncated" in capsys.readouterr().err
