"""IPv4 and IPv4-mapped are one address: whoever writes a key does not know the daemon's sockets."""

import errno
import socket

import pytest

import abi
from abi import pack_key
from clock import wait_for
from link import (
    BAD,
    FIRST,
    MAPPED_BOTH,
    MAPPED_CLIENT,
    MAPPED_SERVER,
    REQUIRED,
    SECOND,
    V4,
    Host,
    Link,
    Mkt,
)
from requirement import requirement
from test_contract_keys import PEER, to_delete
from test_reuse import is_protected
from test_socket_options import refused, rows

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

FAMILIES = {"v4": socket.AF_INET, "mapped": socket.AF_INET6}
FORMS = pytest.mark.parametrize("form", FAMILIES)
NET = "192.0.2.0"


def written(form: str, address: str = PEER, prefixlen: int | None = None) -> dict[str, object]:
    """The address or prefix in this form, as criteria."""
    if form == "v4":
        return {"address": address, "prefixlen": prefixlen}
    length = None if prefixlen is None else 96 + prefixlen
    return {"address": f"::ffff:{address}", "prefixlen": length}


def give(link: Link, host: Host, key: Mkt, form: str, flags: int = 0, **where: object) -> None:
    """Adds, replaces or deletes a key of the host's for the other one, in this form."""
    link.know(key)
    other = link.b if host is link.a else link.a
    value = pack_key(
        *host.ids(key),
        secret=key.secret,
        alg=key.algorithm.ours,
        flags=flags,
        **written(form, **{"address": other.addresses["v4"]} | where),
    )
    abi.set_key(host.control(FAMILIES[form]), value)


@requirement(26)
@FORMS
@pytest.mark.parametrize("reject", [0, abi.FLAG_REJECT_UNEXPECTED], ids=["accept", "reject"])
@pytest.mark.parametrize("prefixlen", [None, 24], ids=["host", "prefix"])
@pytest.mark.parametrize("ends", [V4, MAPPED_SERVER], ids=["v4", "mapped-server"])
def test_listener(link, ends, form, prefixlen, reject):
    """It takes no unsigned SYN, and a signed one is answered signed."""
    where = {} if prefixlen is None else {"address": NET, "prefixlen": prefixlen}
    give(link, link.b, FIRST, form, **where)
    listener = link.listen("ours", ends)
    abi.set_authopt(listener.sock, reject)
    stranger = link.client("plain", ends)
    link.start(stranger)
    wait_for("it to be refused", lambda: link.b.counters().get(REQUIRED))
    assert stranger.pending
    assert not listener.asked
    stranger.sock.close()

    connection = link.connect(link.client("native", ends, FIRST), listener)
    connection.exchange()
    assert is_protected(connection.server)
    connection.close()
    report = link.verify(unsigned=True)
    assert {record.source for record in report.unsigned} == {link.a.addresses["v4"]}


@requirement(9)
@FORMS
@pytest.mark.parametrize("prefixlen", [None, 24], ids=["host", "prefix"])
@pytest.mark.parametrize("ends", [V4, MAPPED_CLIENT], ids=["v4", "mapped-client"])
def test_connect(link, ends, form, prefixlen):
    where = {} if prefixlen is None else {"address": NET, "prefixlen": prefixlen}
    give(link, link.a, FIRST, form, **where)
    connection = link.connect(link.client("ours", ends), link.listen("native", ends, FIRST))
    connection.exchange()
    assert is_protected(connection.client)
    connection.close()
    assert all(len(record.segment.src) == 4 for record in link.verify().signed)
    assert (link.a.counters(), link.b.counters()) == ({}, {})


@requirement(9, 10)
@pytest.mark.parametrize("ends", [V4, MAPPED_BOTH], ids=["v4", "mapped"])
def test_longer_prefix_comes_first_in_either_form(link, ends):
    """Also to verify: the other key has the same ids."""
    right, wrong = FIRST, Mkt("wrong", b"another secret")
    give(link, link.a, right, "v4", address=NET, prefixlen=30)
    give(link, link.a, wrong, "mapped", address=NET, prefixlen=29)
    listener = link.listen("native", ends, right)
    for _ in range(2):
        connection = link.connect(link.client("ours", ends), listener)
        connection.exchange()
        connection.close()
        for flags in (abi.KEY_DEL, 0):
            give(link, link.a, wrong, "mapped", flags, address=NET, prefixlen=29)
    assert {record.key.name for record in link.verify().signed} == {right.name}
    give(link, link.a, wrong, "mapped", address=link.b.addresses["v4"], prefixlen=31)
    client = link.client("ours", ends)
    link.start(client)
    wait_for("it to be refused", lambda: link.b.counters().get(BAD))
    assert client.pending
    link.audit()


def test_ipv6_prefix_around_mapped_addresses(link):
    """It is for IPv4 peers of IPv6 sockets, not for those of IPv4 sockets."""
    key = pack_key(*link.a.ids(FIRST), secret=FIRST.secret, address="::", prefixlen=80)
    abi.set_key(link.a.control(socket.AF_INET6), key)
    link.know(FIRST)
    for ends, role in ((MAPPED_CLIENT, "native"), (V4, "plain")):
        listener = link.listen(role, ends, FIRST)
        connection = link.connect(link.client("ours", ends), listener)
        connection.exchange()
        assert is_protected(connection.client) == (role == "native")
        connection.close()
        listener.sock.close()
    report = link.verify(unsigned=True)
    assert report.signed
    assert report.unsigned


@pytest.mark.parametrize("ends", [V4, MAPPED_BOTH], ids=["v4", "mapped"])
def test_replace_and_delete_in_the_other_form(link, ends):
    """On a live connection, which notices no more than if the form were the same."""
    for host in (link.a, link.b):
        give(link, host, FIRST, "v4")
        give(link, host, SECOND, "mapped")
    connection = link.connect(link.client("ours", ends), link.listen("ours", ends))
    connection.exchange()
    for host in (link.a, link.b):
        give(link, host, FIRST, "mapped")
        connection.exchange()
    for host in (link.a, link.b):
        give(link, host, FIRST, "v4", abi.KEY_DEL)
        connection.exchange()
    assert abi.get_authopt(connection.client.sock).send_keyid == SECOND.a_id
    connection.close()
    assert {record.key.name for record in link.verify().signed} == {"first", "second"}


@pytest.mark.parametrize("prefixlen", [None, 24, 0], ids=["host", "prefix", "all"])
def test_identity(sock, sock6, prefixlen):
    """A key in the other form replaces and deletes; what is shown is the form it was added in."""
    address = {None: PEER, 24: NET, 0: "0.0.0.0"}[prefixlen]
    suffix = {None: ("", ""), 24: ("/24", "/120"), 0: ("/0", "/96")}[prefixlen]
    packed = socket.inet_aton(address).hex()
    shown = {
        "v4": f"{address}{suffix[0]}",
        "mapped": f"{'0000:' * 5}ffff:{packed[:4]}:{packed[4:]}{suffix[1]}",
    }
    socks = {"v4": sock, "mapped": sock6}
    keys = {form: pack_key(1, 2, **written(form, address, prefixlen)) for form in FAMILIES}
    for form in ("v4", "mapped", "v4"):
        abi.set_key(socks[form], keys[form])
        assert [row.split("\t")[4] for row in rows()] == [shown[form]]
    for form, other in (("v4", "mapped"), ("mapped", "v4")):
        abi.set_key(socks[form], keys[form])
        abi.set_key(socks[form], to_delete(keys[other]))
        assert rows() == []
        with refused(errno.ENOENT):
            abi.set_key(socks[form], to_delete(keys[other]))


@requirement(7)
def test_overlap(sock, sock6):
    """The criteria are the same: EEXIST, in either order."""
    keys = {form: written(form) for form in FAMILIES}
    full = {form: written(form, prefixlen=32) for form in FAMILIES}
    socks = {"v4": sock, "mapped": sock6}
    for form, other in (("v4", "mapped"), ("mapped", "v4")):
        abi.set_key(socks[form], pack_key(1, 2, **keys[form]))
        for ids, criteria in (((1, 3), keys), ((3, 2), keys), ((1, 2), full)):
            with refused(errno.EEXIST):
                abi.set_key(socks[other], pack_key(*ids, **criteria[other]))
        abi.set_key(socks[other], pack_key(3, 4, **keys[other]))
        assert len(rows()) == 2
        for ids in ((1, 2), (3, 4)):
            abi.set_key(sock, pack_key(*ids, flags=abi.KEY_DEL, **keys[other]))


def test_family_has_to_be_the_socket_s(sock, sock6):
    """To add; the form is that of the family."""
    for target, form in ((sock, "mapped"), (sock6, "v4")):
        with refused(errno.EINVAL):
            abi.set_key(target, pack_key(1, 2, **written(form)))
    assert rows() == []
