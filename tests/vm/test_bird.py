"""BIRD with the kernel's own TCP-AO at both ends: the module, off or on, is nothing to it."""

import secrets
import socket
from contextlib import ExitStack
from dataclasses import replace

import pytest

import abi
from lab import Bird, Capture, Mkt, cable, run, wait_for
from module import SYSCTL

LEFT, RIGHT = "192.0.2.1", "192.0.2.2"
LEFT_NET, RIGHT_NET = "198.51.100.0/24", "203.0.113.0/24"

KEY = Mkt("key", RIGHT, 61, 84, "SHA1", secrets.token_hex(16))
"""As the left one has it, which here is the end that Mkt calls FRR."""
AT_RIGHT = KEY.for_bird()
AT_LEFT = replace(KEY, own_id=KEY.peer_id, peer_id=KEY.own_id).for_bird()


@pytest.fixture(params=[False, True], ids=["off", "on"])
def _switched(request, module):
    """The module loaded: as it comes; or on, with a socket of its own, so that no hook sleeps."""
    module.require()
    if module.loaded:
        module.unload(wait=True)
    module.load()
    if not request.param:
        assert SYSCTL.read_text() == "0\n"
        yield
        return
    module.enable()
    with socket.socket() as sock:
        abi.set_authopt(sock)
        yield


def configuration(
    own: str, asn: int, net: str, peer: str, peer_asn: int, key: str, passive: str
) -> str:
    """A router that announces a network to its only neighbour.

    One of two is to be passive. Where both connect, one connection is closed at once (RFC 4271
    6.8), with segments for it under way: these meet the listener, for which an ACK of no connection
    is that of a SYN cookie: to the kernel's own TCP-AO one with other ISNs and so a wrong MAC.
    """
    return f"""
log stderr all;
router id {own};
protocol device {{ }}
protocol static {{ ipv4; route {net} blackhole; }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol bgp peer {{
	local {own} as {asn}; neighbor {peer} as {peer_asn};
	connect delay time 1; connect retry time 2; error wait time 1, 2;
	hold time 9; keepalive time 1;
	passive {passive};
	authentication ao; keys {{ {key} }};
	ipv4 {{ import all; export where source = RTS_STATIC; }};
}}
"""


@pytest.fixture
def routers(tmp_path):
    """Two namespaces on one cable, each with a BIRD that is not started yet."""
    with ExitStack() as last:
        pair = []
        for name in ("left", "right"):
            pair.append(Bird(name, tmp_path))
            last.callback(run, "ip", "netns", "delete", name)
            last.callback(lambda daemons: [d.kill() for d in daemons], pair[-1].daemons)
        left, right = pair
        cable(left, "to-right", right, "to-left")
        yield left, right


@pytest.mark.usefixtures("_switched")
def test_bgp_session(routers, record_property):
    left, right = routers
    # It begins before the first frame, which only addresses bring about.
    capture = Capture(left, "to-right", (KEY.for_verifier(LEFT),))
    try:
        left.ip("address", "add", f"{LEFT}/30", "dev", "to-right")
        right.ip("address", "add", f"{RIGHT}/30", "dev", "to-left")
        left.launch(configuration(LEFT, 64496, LEFT_NET, RIGHT, 64511, AT_LEFT, "off"))
        right.launch(configuration(RIGHT, 64511, RIGHT_NET, LEFT, 64496, AT_RIGHT, "on"))
        for router, net in ((left, RIGHT_NET), (right, LEFT_NET)):
            wait_for("Established", lambda r=router: r.state("peer"), "Established".__eq__)
            wait_for(
                f"a route to {net}",
                lambda r=router, n=net: r.route(n),
                lambda route: " proto bird " in f"{route} ",
            )
        for router, ids in ((left, ("61", "84")), (right, ("84", "61"))):
            keys = tuple(router.field("peer", f"{which} key") for which in ("Current", "RNext"))
            assert keys == ids
        # Before the good-bye, after which there may be no connection for what is under way.
        assert (left.refused(), right.refused()) == ({}, {})
        for router in routers:
            router.stop()
        capture.finish()
        signed = capture.signed()
        record_property("segments", len(signed))
        # A handshake, OPEN, KEEPALIVE and UPDATE both ways, and the end: not an empty capture.
        assert len(signed) >= 12
        assert {(record.source, record.keyid, record.rnextkeyid) for record in signed} == {
            (LEFT, 61, 84),
            (RIGHT, 84, 61),
        }
    finally:
        capture.tcpdump.kill()
