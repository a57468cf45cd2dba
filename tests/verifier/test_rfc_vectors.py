"""The verifier against the published vectors: RFC 9235 for keys and MACs, RFC 9187 for the SNE."""

import json
from pathlib import Path

import pytest

from craft import ETHERNET, timed
from tcp_authopt_verify import Key, Policy, audit
from tcp_authopt_verify.audit import Stream
from tcp_authopt_verify.mac import ALGORITHMS, kdf_context, mac_input
from tcp_authopt_verify.wire import parse_frame

VECTORS = Path(__file__).parent.parent / "vectors"
RFC9235 = json.loads((VECTORS / "rfc9235.json").read_text())["vectors"]
RFC9187 = json.loads((VECTORS / "rfc9187_sne.json").read_text())["vectors"]
CONNECTIONS = sorted({vector["section"].rpartition(".")[0] for vector in RFC9235})


def frame_of(vector: dict) -> bytes:
    ethertype = b"\x08\x00" if vector["ip_version"] == 4 else b"\x86\xdd"
    return ETHERNET + ethertype + bytes.fromhex(vector["packet_hex"])


def test_there_are_as_many_vectors_as_published():
    assert (len(RFC9235), len(CONNECTIONS), len(RFC9187)) == (32, 8, 29)


@pytest.mark.parametrize("vector", RFC9235, ids=lambda vector: vector["section"])
def test_traffic_key_and_mac(vector):
    segment = parse_frame(frame_of(vector))
    suite = ALGORITHMS[vector["alg"].lower()]
    secret = bytes.fromhex(vector["master_key_hex"])
    isns = int(vector["kdf_src_isn"], 16), int(vector["kdf_dst_isn"], 16)

    context = kdf_context(segment, *isns)
    assert context.hex() == vector["kdf_context_hex"]
    traffic_key = suite.traffic_key(secret, context)
    assert traffic_key.hex() == vector["traffic_key_hex"]
    message = mac_input(segment, vector["sne"], vector["covers_options"])
    assert message.hex() == vector["mac_input_hex"]
    assert suite.mac(traffic_key, message).hex() == vector["mac_hex"]
    (option,) = segment.named(29)
    assert option.value == bytes([vector["keyid"], vector["rnextkeyid"]]) + bytes.fromhex(
        vector["mac_hex"]
    )


@pytest.mark.parametrize("section", CONNECTIONS)
def test_connection_as_a_capture(section):
    vectors = [vector for vector in RFC9235 if vector["section"].rpartition(".")[0] == section]
    first = vectors[0]
    key = Key(
        name=section,
        a=first["client"]["addr"],
        b=first["server"]["addr"],
        a_keyid=first["client"]["keyid"],
        b_keyid=first["server"]["keyid"],
        algorithm=first["alg"].lower(),
        secret=bytes.fromhex(first["master_key_hex"]),
        covers_options=first["covers_options"],
    )
    # The RFC's IPv4 packets have wrong TCP checksums.
    policy = Policy((key,), check_checksums=first["ip_version"] == 6)
    report = audit(timed([frame_of(vector) for vector in vectors]), policy)
    assert report.ok, report.summary()
    assert len(report.signed) == 4


def test_sequence_number_extension():
    stream = Stream.starting(0)
    for step, vector in enumerate(RFC9187):
        seq = int(vector["seq"], 16)
        assert stream.sne(seq) == int(vector["sne"], 16), f"step {step}"
        stream.advance(seq)
