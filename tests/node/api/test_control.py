"""The control socket and its client, with a node that only tells what it was asked."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal.node.api import server
from shoal.node.api.client import RunningNode, connect
from shoal.node.errors import DiskError, NoNode, NotFound, Refused, UsageError
from shoal.node.events import Announced, Complete, Hashing, Lookup, Notice, Provider, Shared

CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


async def test_queries_come_back_as_they_were_told(client: RunningNode, node: Any) -> None:
    assert await client.id() == await node.id()
    assert await client.ls() == await node.ls()
    assert await client.status() == await node.status()
    assert await client.peers() == []
    assert await client.dht_table() == await node.dht_table()
    assert (await client.dht_find_peer("12D3other")).peer_id == "12D3other"


async def test_a_share_tells_its_events_in_order(client: RunningNode, node: Any) -> None:
    events = [event async for event in client.share("/data/x", public=True, peers=["12D3a"])]
    assert [type(event) for event in events] == [Hashing, Shared, Announced]
    ((name, arguments, options),) = node.asked
    assert (name, arguments) == ("share", ("/data/x",))
    assert options == {
        "hash_only": False, "public": True, "announce": True, "hidden": True,
        "skip_special": False, "peers": ["12D3a"], "hash": "sha2-256",
    }  # fmt: skip


async def test_awaiting_gives_the_outcome(client: RunningNode) -> None:
    shared = await client.share("/data/x")
    assert shared.cid == CID
    complete = await client.get(CID, "/data/out")
    assert complete.sources[0].bytes == 10


async def test_an_operation_runs_once(client: RunningNode) -> None:
    operation = client.share("/data/x")
    await operation
    with pytest.raises(RuntimeError):
        await operation


async def test_paths_are_the_callers(
    client: RunningNode, node: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    await client.get(CID)
    await client.share("sub/x")
    await client.share("link/../x")
    asked = [arguments[-1] for _, arguments, _ in node.asked]
    assert asked == [str(tmp_path), str(tmp_path / "sub/x"), str(tmp_path / "real/x")]


async def test_an_early_error_comes_back_as_itself(client: RunningNode) -> None:
    with pytest.raises(NotFound, match="see: shoal ls"):
        await client.rm("other")


async def test_a_late_error_ends_the_events(client: RunningNode, node: Any) -> None:
    node.late_error = DiskError("the disk is full; make room")
    events = aiter(client.get(CID, "/out"))
    assert (await anext(events)).event == "progress"
    with pytest.raises(DiskError, match="make room"):
        await anext(events)


async def test_commands_name_the_copy(client: RunningNode, node: Any) -> None:
    assert [row.path for row in await client.pause(CID, "/y")] == ["/y"]
    assert [row.path for row in await client.resume(CID)] == ["/y"]
    assert [row.deleted for row in await client.rm(CID, delete_data=True)] == [True]
    assert [arguments for _, arguments, _ in node.asked] == [(CID, "/y"), (CID, None), (CID, None)]


async def test_limits_pass_as_they_were_said(client: RunningNode, node: Any) -> None:
    (row,) = await client.limit(up="1kB")
    assert (row.scope, row.up, row.down) == ("node", 1000, None)
    await client.limit(CID, down="none")
    await client.limit(each_peer=True)
    assert node.asked == [
        ("limit", (None,), {"each_peer": False, "up": "1kB", "down": None}),
        ("limit", (CID,), {"each_peer": False, "up": None, "down": "none"}),
        ("limit", (None,), {"each_peer": True, "up": None, "down": None}),
    ]


async def test_lookups_and_verify_stream(client: RunningNode) -> None:
    found = [event async for event in client.dht_find_providers(CID)]
    assert [type(event) for event in found] == [Provider, Lookup]
    assert [event.event async for event in client.verify(CID)] == ["verifying", "verified"]


async def test_hanging_up_ends_the_work(client: RunningNode, node: Any) -> None:
    node.endless = True
    with trio.fail_after(5):
        operation = client.get(CID, "/out", leave="continue")
        events = aiter(operation)
        await anext(events)
        await events.aclose()
        await node.cancelled.wait()
    assert node.asked[0][2]["leave"] == "continue"


async def test_a_caller_that_reads_no_more_does_not_keep_the_node(
    node: Any, home: Path, nursery: trio.Nursery
) -> None:
    node.burst = 20_000
    scope = trio.CancelScope()
    ended = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            await server.serve_control(node, home / "control.sock", task_status=task_status)
        ended.set()

    await nursery.start(serve)
    deaf = await trio.open_unix_socket(str(home / "control.sock"))
    body = b'{"target":"t","destination":"/out"}'
    head = f"POST /v1/get HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    await deaf.send_all(head + body)
    with trio.fail_after(5):
        while node.asked == []:
            await trio.testing.wait_all_tasks_blocked(0.05)
        await trio.testing.wait_all_tasks_blocked(0.05)
        scope.cancel()
        await ended.wait()
        await node.cancelled.wait()
    await deaf.aclose()
    assert not (home / "control.sock").exists()


async def test_a_node_that_stops_is_said(node: Any, home: Path, nursery: trio.Nursery) -> None:
    node.endless = True
    scope = trio.CancelScope()
    ended = trio.Event()

    async def serve(*, task_status: trio.TaskStatus[None]) -> None:
        with scope:
            await server.serve_control(node, home / "control.sock", task_status=task_status)
        ended.set()

    await nursery.start(serve)
    with trio.fail_after(5):
        async with connect(home) as client:
            events = aiter(client.get(CID, "/out"))
            await anext(events)
            scope.cancel()
            with pytest.raises(Refused, match="node stopped"):
                await anext(events)
            await ended.wait()
            with pytest.raises(NoNode):
                await client.id()


async def test_events_until_the_end(client: RunningNode) -> None:
    seen = []
    with trio.fail_after(5):
        async for event in client.events():
            seen.append(event)
            await client.stop()
    assert seen == [Notice("port 4071 is in use")]


async def test_without_a_node(home: Path) -> None:
    with pytest.raises(NoNode, match="shoal up"):
        async with connect(home):
            raise AssertionError("nobody is there")


async def test_a_stale_socket_is_not_a_node(node: Any, home: Path, nursery: trio.Nursery) -> None:
    stale = trio.socket.socket(trio.socket.AF_UNIX)
    await stale.bind(str(home / "control.sock"))
    stale.close()
    with pytest.raises(NoNode):
        async with connect(home):
            raise AssertionError("nobody is there")
    await nursery.start(server.serve_control, node, home / "control.sock")
    async with connect(home) as client:
        assert (await client.id()).running


async def test_only_the_owner_may_open_the_socket(control: Path) -> None:
    found = await trio.Path(control).stat()
    assert stat.S_IMODE(found.st_mode) == 0o600


async def test_another_user_is_turned_away(
    control: Path, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "peer_uid", lambda stream: 4242)
    async with connect(control.parent) as client:
        with trio.fail_after(5), pytest.raises(Refused):
            await client.id()


async def test_the_system_tells_the_peers_user(home: Path) -> None:
    import os

    ours, theirs = trio.socket.socketpair()
    with ours, theirs:
        assert server.peer_uid(trio.SocketStream(ours)) == os.geteuid()


async def _raw(control: Path, request: bytes) -> bytes:
    stream = await trio.open_unix_socket(str(control))
    async with stream:
        with trio.fail_after(5):
            await stream.send_all(request)
            answer = b""
            async for chunk in stream:
                answer += chunk
    return answer


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        ((b"GET", b"/v1/nothing", b""), 404, b"does not exist"),
        ((b"GET", b"/v1/share", b""), 405, b"does not exist"),
        ((b"POST", b"/v1/share", b"{}"), 400, b"lacks 'path'"),
        ((b"POST", b"/v1/share", b"[]"), 400, b"not a JSON object"),
        ((b"POST", b"/v1/share", b"[" * 60_000), 400, b"not JSON"),
        ((b"POST", b"/v1/share", b"{"), 400, b"not JSON"),
        ((b"POST", b"/v1/share", b'{"path":"/x","pubic":true}'), 400, b"'pubic'"),
        ((b"POST", b"/v1/share", b'{"path":"/x","public":1}'), 400, b"true or false"),
        ((b"POST", b"/v1/share", b'{"path":"/x","peers":"y"}'), 400, b"list of texts"),
        ((b"POST", b"/v1/share", b'{"path":"/x","hash":"md5"}'), 400, b"blake3"),
        ((b"POST", b"/v1/get", b'{"target":"x","destination":"\\u0000"}'), 400, b"text"),
        ((b"POST", b"/v1/get", b'{"target":"x","destination":"/","timeout":-1}'), 400, b"0"),
        ((b"POST", b"/v1/rm", b'{"cid":"other"}'), 404, b"shoal ls"),
        ((b"POST", b"/v1/share", b" " * 70_000), 400, b"at most 65536 bytes"),
        ((b"GET", b"/v1/id", b""), 200, b'"event": "id"'),
    ],
)
async def test_a_request_that_is_wrong_is_told_so(
    control: Path, node: Any, request_: tuple[bytes, bytes, bytes], status: int, says: bytes
) -> None:
    method, path, body = request_
    head = b"%s %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
    answer = await _raw(control, head % (method, path, len(body)) + body)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert says in answer


UPGRADE = b"host: x\r\nconnection: upgrade\r\nupgrade: "
NOISE = [
    b"\x00" * 100,
    b"GET / HTTP/9\r\n\r\n",
    b"A" * 20_000,
    b"GET /v1/id",
    b"GET /v1/id HTTP/1.1\r\nhost: x\r\n\r\n" * 50,  # pipelined
    b"GET /v1/id HTTP/1.0\r\n\r\n",
    b"HEAD /v1/id HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /v1/%ff%00 HTTP/1.1\r\nhost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    b"GET /v1/id HTTP/1.1\r\n" + UPGRADE + b"h2c\r\nhttp2-settings: AAAA\r\n\r\n",
    b"GET /v1/id HTTP/1.1\r\n" + UPGRADE + b"websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    b"POST /v1/share HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/share HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/share HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("patient", [True, False])
async def test_noise_on_the_socket_hurts_nobody(control: Path, noise: bytes, patient: bool) -> None:
    stream = await trio.open_unix_socket(str(control))
    async with stream:
        with contextlib.suppress(trio.BrokenResourceError):
            await stream.send_all(noise)
            if patient:
                await trio.testing.wait_all_tasks_blocked(0.01)
                await stream.send_eof()
                with trio.move_on_after(1):
                    while await stream.receive_some():
                        pass
    async with connect(control.parent) as client:
        assert (await client.id()).running


async def test_a_body_that_is_far_too_long_leaves_no_task_behind(control: Path, node: Any) -> None:
    length = 50 << 20
    stream = await trio.open_unix_socket(str(control))
    async with stream:
        head = b"POST /v1/share HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length
        await stream.send_all(head)
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            for _ in range(length >> 20):
                await stream.send_all(bytes(1 << 20))
        with trio.fail_after(5):
            answer = await stream.receive_some()
    assert b"at most 65536 bytes" in answer


async def test_connections_are_bounded(
    control: Path, node: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    node.endless = True
    with trio.fail_after(10):
        async with connect(control.parent) as client:
            await trio.testing.wait_all_tasks_blocked(0.05)  # connect looked before it called
            first, second = aiter(client.get(CID, "/a")), aiter(client.get(CID, "/b"))
            await anext(first)
            await anext(second)
            with pytest.raises(Refused):
                await client.id()
            await first.aclose()
            await second.aclose()


async def test_a_path_too_long_for_a_socket_is_refused_in_words(node: Any, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="cannot be made"):
        await server.serve_control(node, tmp_path / ("x" * 200))


def test_usage_errors_carry_their_code() -> None:
    assert UsageError("x").code == 2
    assert isinstance(Complete("c", "p", 1, 1.0).to_json()["skipped_links"], list)


async def test_a_home_with_a_long_path_names_its_socket(
    node: Any, tmp_path: Path, home: Path, nursery: trio.Nursery
) -> None:
    long = tmp_path / ("x" * 200)
    long.mkdir()
    (long / "control.path").write_text(f"{home / 'short.sock'}\n")
    await nursery.start(server.serve_control, node, home / "short.sock")
    async with connect(long) as client:
        assert (await client.id()).running
