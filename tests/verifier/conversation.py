"""A signed conversation between two ends, as a list of frames to damage."""

from craft import ACK, FIN, PSH, SYN, Ao, Tcp
from tcp_authopt_verify import Key

TIMESTAMPS = bytes.fromhex("0101080a0000000100000002")
SYN_OPTIONS = bytes.fromhex("020405b4") + TIMESTAMPS


class Conversation:
    """Two ends that talk in turn; every method returns the frame that goes out."""

    def __init__(self, key: Key, isn_a: int = 1000, isn_b: int = 0xFFFF0000) -> None:
        self.key = key
        self.isn = {key.a: isn_a, key.b: isn_b}
        self.sent = dict.fromkeys(self.isn, 0)
        """Sequence numbers used so far, SYN included, as plain numbers that never wrap."""

    def syn(self) -> bytes:
        """The first SYN, from a."""
        self.sent[self.key.a] = 1
        return self._frame(self.key.a, 0, SYN, SYN_OPTIONS)

    def syn_ack(self, sender: str | None = None) -> bytes:
        """The answer to it, from b."""
        sender = sender or self.key.b
        self.sent[sender] = 1
        return self._frame(sender, 0, SYN | ACK, SYN_OPTIONS)

    def data(self, sender: str, payload: bytes = b"", flags: int = PSH | ACK) -> bytes:
        """The sender's next segment."""
        start = self.sent[sender]
        self.sent[sender] += len(payload) + bool(flags & FIN)
        return self._frame(sender, start, flags, TIMESTAMPS, payload)

    def skip(self, sender: str, count: int) -> None:
        """As if the sender had sent that much, unseen."""
        self.sent[sender] += count

    def whole(self) -> list[bytes]:
        """Handshake, data both ways and close."""
        a, b = self.key.a, self.key.b
        return [
            self.syn(),
            self.syn_ack(),
            self.data(a, b"", ACK),
            self.data(a, b"the quick brown fox jumps over"),
            self.data(b, b"the lazy dog"),
            self.data(a, b"", FIN | ACK),
            self.data(b, b"", FIN | ACK),
            self.data(a, b"", ACK),
        ]

    def ao(self, sender: str, offset: int, syn: bool = False) -> Ao:
        """How the sender signs what starts at this offset of its stream."""
        receiver = self._peer(sender)
        ids = (self.key.a_keyid, self.key.b_keyid)
        keyid, rnextkeyid = ids if sender == self.key.a else ids[::-1]
        dst_isn = 0 if syn else self.isn[receiver]
        sne = (self.isn[sender] + offset) >> 32
        return Ao(self.key, keyid, rnextkeyid, self.isn[sender], dst_isn, sne)

    def segment(self, sender: str, offset: int, flags: int, options: bytes, payload: bytes) -> Tcp:
        """The segment at this offset of the sender's stream."""
        receiver = self._peer(sender)
        ports = (40000, 179) if sender == self.key.a else (179, 40000)
        ack = self.isn[receiver] + self.sent[receiver] if flags & ACK else 0
        seq = self.isn[sender] + offset
        return Tcp(sender, receiver, *ports, seq, ack, flags, options, payload)

    def _frame(
        self, sender: str, offset: int, flags: int, options: bytes, payload: bytes = b""
    ) -> bytes:
        ao = self.ao(sender, offset, syn=flags & (SYN | ACK) == SYN)
        return self.segment(sender, offset, flags, options, payload).frame(ao)

    def _peer(self, sender: str) -> str:
        return self.key.b if sender == self.key.a else self.key.a


def key_v4(algorithm: str = "hmac-sha-1-96", **changes: object) -> Key:
    """A key between two IPv4 addresses."""
    return make_key("192.0.2.1", "192.0.2.2", algorithm, **changes)


def key_v6(algorithm: str = "hmac-sha-1-96", **changes: object) -> Key:
    """A key between two IPv6 addresses."""
    return make_key("2001:db8::1", "2001:db8::2", algorithm, **changes)


def make_key(a: str, b: str, algorithm: str, **changes: object) -> Key:
    """A key with unlike KeyIDs in the two directions."""
    values = {"name": "test", "a_keyid": 61, "b_keyid": 84, "secret": b"testvector"} | changes
    return Key(a=a, b=b, algorithm=algorithm, **values)
