"""AutoNAT version 1: a server's word that it reached us counts only with a connection from it."""

from __future__ import annotations

import pytest

from shoal.node.nat.circuit import read_message, send_message
from shoal.node.net.stream import Stream
from shoal.wire.autonat import MAX_MESSAGE, PROTOCOL_V1, AnswerV1, StatusV1, encode_v1

from .conftest import MakePeer


@pytest.mark.parametrize("reachable", [True, False])
async def test_a_server_that_dials_is_believed(
    autojump_clock: object, make_peer: MakePeer, reachable: bool
) -> None:
    server = await make_peer("server")
    asker = await make_peer("asker", reachable=reachable, serve=False)
    connection = await asker.host.dial(server.addr)
    verdict = await asker.nat.client.test_whole(connection, asker.host.listen_addrs())
    assert verdict is reachable


async def test_a_server_that_only_says_so_is_not_believed(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    async def say_so(stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await send_message(stream, encode_v1(AnswerV1(StatusV1.OK)))

    server = await make_peer("server", serve=False)
    server.host.handle(PROTOCOL_V1, say_so)
    asker = await make_peer("asker", reachable=False, serve=False)
    connection = await asker.host.dial(server.addr)
    assert await asker.nat.client.test_whole(connection, asker.host.listen_addrs()) is None


async def test_a_connection_of_somebody_else_does_not_help_it(
    autojump_clock: object, make_peer: MakePeer
) -> None:
    asker = await make_peer("asker", serve=False)
    other = await make_peer("other", serve=False)
    server = await make_peer("server", serve=False)

    async def say_so(stream: Stream) -> None:
        await read_message(stream, MAX_MESSAGE)
        await other.host.dial(asker.addr)
        await send_message(stream, encode_v1(AnswerV1(StatusV1.OK)))

    server.host.handle(PROTOCOL_V1, say_so)
    connection = await asker.host.dial(server.addr)
    assert await asker.nat.client.test_whole(connection, asker.host.listen_addrs()) is None
    assert asker.host.connection(other.id) is not None
