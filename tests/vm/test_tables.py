"""Tables of functions that the module has to copy: there is room for so many, and no more."""

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import abi
from craft import SYN
from link import FIRST, V4, V6, Link, Peer
from test_load import helper

pytestmark = pytest.mark.ours

ROOM = 8
PARAMETER = Path("/sys/module/tao_test_tables/parameters/socket")


@pytest.fixture
def own_tables(module) -> Iterator[None]:
    """A module that gives sockets tables of their own; ours forgets them when it is unloaded."""
    module.unload(wait=True)
    module.enable()
    subprocess.run(["insmod", helper("tables")], check=True)
    yield
    module.unload(wait=True)
    subprocess.run(["rmmod", "tao_test_tables"], check=True)


def syns(link: Link) -> int:
    """How many there were on the cable."""
    report = link.audit()
    assert not report.bad, report.summary()
    return sum(record.segment.flags == SYN for record in report.segments)


def connects(link: Link, client: Peer, listener: Peer) -> bool:
    """Whether it does, or is refused before anything was sent."""
    before = syns(link)
    try:
        connection = link.connect(client, listener)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        assert syns(link) == before
        return False
    connection.exchange()
    assert abi.get_authopt(client.sock).flags == abi.FLAG_ACTIVE
    return True


@pytest.mark.usefixtures("own_tables")
@pytest.mark.parametrize("ends", [V4, V6], ids=["v4", "v6"])
def test_connect_with_a_table_too_many(link, ends):
    """The table is found at connect(): later nothing could be refused, and segments would leave."""
    listener = link.listen("native", ends, FIRST)
    done = []
    for _ in range(ROOM + 1):
        client = link.client("ours", ends, FIRST)
        PARAMETER.write_text(str(client.sock.fileno()))
        done.append(connects(link, client, listener))
    # IPv4 has one from the start.
    assert done == [True] * (ROOM - 1) + [False] * 2
    # One that is there goes on.
    assert connects(link, link.client("ours", V4, FIRST), link.listen("native", V4, FIRST, port=7))
    link.verify()
