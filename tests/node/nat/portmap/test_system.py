"""The door of real nodes, on loopback: nothing leaves this machine."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
import time

import pytest
import trio

from shoal.node.nat.portmap import system
from shoal.node.nat.portmap.door import IgdError, IgdMissing, Route
from shoal.node.nat.portmap.replies import ANNOUNCE_PORT
from shoal.node.nat.portmap.system import SystemRouter

LOOPBACK = ipaddress.ip_address("127.0.0.1")


async def test_sockets() -> None:
    router = SystemRouter()
    with trio.fail_after(10):
        ours = await router.open(Route(LOOPBACK, LOOPBACK))
        try:
            await ours.send(b"is a router here?")
            with pytest.raises(OSError, match="refused"):
                await ours.receive()
        finally:
            ours.close()
        ears = [await router.announcements(4) for _ in range(2)]  # the port is shared
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as sender:
            await sender.sendto(b"x" * 2000, ("127.0.0.1", ANNOUNCE_PORT))
            data, source = await ears[1].receive()
            assert (len(data), source) == (1101, (LOOPBACK, sender.getsockname()[1]))
        for ear in ears:
            ear.close()


def test_the_way_to_the_internet_is_known_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (4, 6):
        router = SystemRouter()
        told = router.route(version)
        assert told is None or told.source.version == version
        assert told is None or told.gateway is None or told.gateway != told.source
    monkeypatch.delattr(socket, "AF_NETLINK", raising=False)
    elsewhere = SystemRouter().route(4)
    assert elsewhere is None or elsewhere.gateway is None


async def test_upnp_that_is_not_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "miniupnpc", None)
    with pytest.raises(IgdMissing, match=r"install shoal\[upnp\]"):
        await SystemRouter().find_igd(LOOPBACK)


async def test_a_library_that_hangs_is_left_behind() -> None:
    done = threading.Event()
    limiter = trio.CapacityLimiter(1)
    started = time.monotonic()
    for _ in range(2):  # the second waits for the first one's thread
        with pytest.raises(IgdError, match="no answer in time"):
            await system._in_thread(done.wait, 0.2, limiter)
    assert time.monotonic() - started < 5
    assert limiter.borrowed_tokens == 1
    done.set()
    with trio.fail_after(5):
        async with limiter:  # the thread gives its token back
            pass


async def test_errors_of_the_library_are_translated_and_others_are_not() -> None:
    def fails(error: Exception) -> None:
        raise error

    limiter = trio.CapacityLimiter(1)
    with pytest.raises(IgdError, match="ConflictInMappingEntry"):
        await system._in_thread(lambda: fails(Exception("ConflictInMappingEntry")), 5, limiter)
    with pytest.raises(IgdError):
        await system._in_thread(lambda: b"\xff".decode(), 5, limiter)
    with pytest.raises(TypeError):
        await system._in_thread(lambda: fails(TypeError("ours")), 5, limiter)
