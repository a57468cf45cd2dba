"""L3 masters that come, go and change their names under the keys of a namespace."""

import errno
import socket
import time
from collections.abc import Iterator
from math import inf

import pytest

import abi
from abi import pack_key
from netns import Namespace
from rtnetlink import Rtnetlink
from test_socket_options import MAX_KEYS, refused, rows

pytestmark = [pytest.mark.ours, pytest.mark.usefixtures("quick")]

FEW, MANY, ROUNDS, MOST_ROUNDS = 10, 10_000, 20, 100


@pytest.fixture
def rtnetlink(sock: socket.socket) -> Iterator[Rtnetlink]:
    """In the namespace of the socket."""
    with Rtnetlink() as rtnetlink:
        yield rtnetlink


def shown() -> list[int]:
    """The index of each key's VRF, the newest key first."""
    return [int(row.split("\t")[-1]) for row in rows()]


def delete(sock: socket.socket, ifindex: int, ids: tuple[int, int] = (1, 2)) -> None:
    abi.set_key(sock, pack_key(*ids, ifindex=ifindex, flags=abi.KEY_DEL))


def test_keys_wait_for_their_vrf(sock, rtnetlink):
    """They are listed, with the index that they were added with, until there is another one."""
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    for index in (51, 50, 52):
        rtnetlink.delete("red")
        assert shown() == [50]
        with refused(errno.EINVAL):
            abi.set_key(sock, pack_key(3, 4, ifindex=50))
        rtnetlink.add_vrf("red", 100, index)
        assert shown() == [index]
    with refused(errno.EEXIST):
        abi.set_key(sock, pack_key(1, 3, ifindex=52))
    abi.set_key(sock, pack_key(1, 2, ifindex=52, secret=b"replaced"))
    rtnetlink.delete("red")
    assert shown() == [52]


def test_another_vrf_of_the_index_has_none_of_the_keys(sock, rtnetlink):
    """A key of the same ids is another one there, and DEL finds first what is there now."""
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50, flags=abi.KEY_NOSEND))
    rtnetlink.delete("red")
    rtnetlink.add_vrf("blue", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    rtnetlink.add_vrf("red", 100, 60)
    assert shown() == [50, 60]
    assert [row.split("\t")[0] for row in rows()] == ["0x8", "0x18"]
    delete(sock, 50)
    assert shown() == [60]
    delete(sock, 50)
    assert shown() == []


@pytest.mark.parametrize("now", ["waiting", "elsewhere", "other-vrf"])
def test_delete_by_the_old_index(sock, rtnetlink, now):
    """With the one that the key was added with, whatever has become of its VRF, and of that."""
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    rtnetlink.delete("red")
    if now == "elsewhere":
        rtnetlink.add_vrf("red", 100, 51)
    elif now == "other-vrf":
        rtnetlink.add_vrf("blue", 100, 50)
    for index in (49, 52):
        with refused(errno.ENOENT):
            delete(sock, index)
    with refused(errno.ENOENT):
        delete(sock, 50, (1, 3))
    delete(sock, 50)
    assert rows() == []
    with refused(errno.ENOENT):
        delete(sock, 50)


def test_delete_finds_the_newest_of_those_that_wait(sock, rtnetlink):
    for name in ("red", "blue", "green"):
        rtnetlink.add_vrf(name, 100, 50)
        abi.set_key(sock, pack_key(1, 2, ifindex=50))
        rtnetlink.delete(name)
    rtnetlink.add_vrf("blue", 100, 70)
    assert shown() == [50, 70, 50]
    for left in ([70, 50], [50], []):
        delete(sock, 50)
        assert shown() == left


def test_delete_by_the_new_index(sock, rtnetlink):
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    rtnetlink.delete("red")
    rtnetlink.add_vrf("red", 100, 51)
    delete(sock, 51)
    assert rows() == []


def test_keys_go_with_the_device_that_is_renamed(sock, rtnetlink):
    """Its old name is free, and means nothing to them any more."""
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    rtnetlink.rename("red", "blue")
    assert shown() == [50]
    rtnetlink.add_vrf("red", 101, 51)
    assert shown() == [50]
    rtnetlink.delete("blue")
    rtnetlink.rename("red", "green")
    rtnetlink.add_vrf("red", 102, 52)
    assert shown() == [50], "they wait for blue"
    rtnetlink.add_vrf("blue", 100, 53)
    assert shown() == [53]


def test_device_is_renamed_to_what_is_waited_for(sock, rtnetlink):
    """It is that VRF now, unless it has keys itself, which nobody could tell apart."""
    rtnetlink.add_vrf("red", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    rtnetlink.delete("red")
    rtnetlink.add_vrf("blue", 100, 51)
    abi.set_key(sock, pack_key(3, 4, ifindex=51))
    with refused(errno.EEXIST):
        rtnetlink.rename("blue", "red")
    assert socket.if_indextoname(51) == "blue"
    assert shown() == [51, 50]
    rtnetlink.delete("blue")
    rtnetlink.add_vrf("blue", 100, 52)
    assert shown() == [52, 50], "it has kept its name here, too"
    delete(sock, 52, (3, 4))
    rtnetlink.rename("blue", "red")
    assert socket.if_indextoname(52) == "red"
    assert shown() == [52]
    with refused(errno.EEXIST):
        abi.set_key(sock, pack_key(1, 5, ifindex=52))


def test_vrfs_that_were_there_before_the_module(module):
    """Each has to be known, to have keys."""
    module.unload(wait=True)
    namespace = Namespace()
    with namespace.entered(), Rtnetlink() as rtnetlink:
        for index in (70, 50, 60):
            rtnetlink.add_vrf(f"vrf{index}", 100 + index, index)
        rtnetlink.rename("vrf60", "red")
    module.enable()
    with namespace.entered(), Rtnetlink() as rtnetlink, socket.socket() as sock:
        for index in (50, 60, 70):
            abi.set_key(sock, pack_key(1, 2, ifindex=index))
        rtnetlink.delete("red")
        rtnetlink.add_vrf("red", 100, 80)
        assert shown() == [70, 80, 50]
    namespace.close()


def test_many_vrfs(sock, rtnetlink):
    """In any order of indexes, some of which have keys."""
    indexes = [100 + 37 * number % 256 for number in range(256)]
    for index in indexes:
        rtnetlink.add_vrf(f"vrf{index}", index, index)
    for index in indexes:
        abi.set_key(sock, pack_key(1, 2, ifindex=index))
    assert shown() == indexes[::-1]
    for index in indexes[::3]:
        rtnetlink.delete(f"vrf{index}")
        rtnetlink.add_vrf(f"vrf{index}", index, index + 1000)
    assert shown() == [
        index + 1000 * (place % 3 == 0) for place, index in list(enumerate(indexes))[::-1]
    ]


def test_device_costs_the_same_however_many_keys_there_are():
    """To come and to go, in turn beside few keys and beside many.

    Of the rounds the fastest, by what it takes of the processor: grace periods do not count. What
    others take of the host's processors does, so that there are more rounds where these do not do.
    """
    namespaces = {FEW: Namespace(), MANY: Namespace()}
    for count, namespace in namespaces.items():
        with namespace.entered(), Rtnetlink() as rtnetlink, socket.socket() as sock:
            rtnetlink.add_vrf("red", 100, 50)
            for number in range(count):
                address = f"10.0.{number // 256}.{number % 256}"
                abi.set_key(sock, pack_key(1, 2, ifindex=50, address=address))
    taken = dict.fromkeys(namespaces, inf)
    for done in range(MOST_ROUNDS):
        if done >= ROUNDS and taken[MANY] < 1.5 * taken[FEW]:
            break
        for count, namespace in namespaces.items():
            with namespace.entered(), Rtnetlink() as rtnetlink:
                before = time.thread_time()
                rtnetlink.delete("red")
                rtnetlink.add_vrf("red", 100, 50)
                taken[count] = min(taken[count], time.thread_time() - before)
    for namespace in namespaces.values():
        namespace.close()
    print({count: f"{1000 * seconds:.2f} ms" for count, seconds in taken.items()})
    assert taken[MANY] < 1.5 * taken[FEW]


def test_keys_by_name(sock, rtnetlink):
    """The VRF need not exist yet: the key waits, and is the one that its index would have named."""
    abi.set_key(sock, pack_key(1, 2, vrf="red"))
    assert shown() == [0]
    rtnetlink.add_vrf("red", 100, 50)
    assert shown() == [50]
    with refused(errno.EEXIST):
        abi.set_key(sock, pack_key(1, 3, ifindex=50))
    abi.set_key(sock, pack_key(1, 2, ifindex=50, secret=b"replaced"))
    assert len(rows()) == 1
    abi.set_key(sock, pack_key(1, 2, vrf="red"))
    rtnetlink.delete("red")
    assert shown() == [0]
    for wrong in (pack_key(1, 2, vrf="blue", flags=abi.KEY_DEL), pack_key(1, 2, flags=abi.KEY_DEL)):
        with refused(errno.ENOENT):
            abi.set_key(sock, wrong)
    abi.set_key(sock, pack_key(1, 2, vrf="red", flags=abi.KEY_DEL))
    assert rows() == []


def test_name_of_a_key_that_is_refused_is_forgotten(sock, rtnetlink):
    """Nothing waits for a device of that name, so that one with keys may be called so."""
    rtnetlink.add_vrf("blue", 100, 50)
    abi.set_key(sock, pack_key(1, 2, ifindex=50))
    MAX_KEYS.write_text("1")
    with refused(errno.ENOSPC):
        abi.set_key(sock, pack_key(1, 2, vrf="red"))
    rtnetlink.rename("blue", "red")
    assert shown() == [50]
    abi.set_key(sock, pack_key(1, 2, vrf="red", flags=abi.KEY_DEL))
    assert rows() == []
