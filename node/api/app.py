"""What answers on the control socket: a Starlette application, spoken for by Hypercorn.

Imported when somebody first connects (`server.py`), as these libraries take a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress

import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.events import Event as HypercornEvent
from hypercorn.protocol.h11 import (
    H2CProtocolRequiredError,
    H2ProtocolAssumedError,
    H11Protocol,
)
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import Receive, Scope, Send

from ..client import Client
from ..errors import Refused, ShoalError, UsageError
from ..events import Event, Failure, to_line
from .arguments import Arguments
from .routes import COMMANDS, QUERIES, Route, Rows

Converse = Callable[[trio.SocketStream], Awaitable[None]]
"""Speaks HTTP on one connection until it ends."""

MAX_BODY = 64 * 1024
"""Bytes of a request: a path, a link of 4 KiB and some peers."""

MAX_HEAD = 16 * 1024
"""Bytes of a request's line and headers."""

BODY_SECONDS = 10.0
"""Within which a request's body must be there."""

STATUS = {2: 400, 3: 404, 4: 422, 5: 507, 6: 409, 130: 409}
"""The HTTP status for each exit code; 500 for the others."""

MAX_READ = 64 * 1024
"""Bytes taken from a connection at once."""

LINGER_SECONDS = 1.0
"""How long to read on after our last byte."""

NO_MORE = (
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    h11.LocalProtocolError,
    H2CProtocolRequiredError,
    H2ProtocolAssumedError,
)
"""What ends a conversation: the caller is gone, or asks for what we do not speak."""

NDJSON = b"application/x-ndjson"


def converse_with(client: Client) -> Converse:
    """Return what serves HTTP for this node on one stream."""
    config = Config()
    config.h11_max_incomplete_size = MAX_HEAD
    config.include_server_header = False
    application = ASGIWrapper(application_for(client))  # type: ignore[arg-type]

    async def converse(stream: trio.SocketStream) -> None:
        await _Conversation(application, config, stream).run()

    return converse


class _Conversation:
    """HTTP/1.1 on one connection, by Hypercorn's protocol class.

    Its own connection class would also speak HTTP/2 (and let a bad upgrade end the process), shield
    its sends from cancellation, and stay for its idle timer after the caller has hung up.
    """

    def __init__(self, application: ASGIWrapper, config: Config, stream: trio.SocketStream) -> None:
        self._application = application
        self._config = config
        self._stream = stream
        self._turn = trio.Lock()
        self._reading = trio.CancelScope()

    async def run(self) -> None:
        """Answer requests until either side is done."""
        async with TaskGroup() as group:
            protocol = H11Protocol(
                self._application, self._config, WorkerContext(None), group, ConnectionState({}),
                False, None, None, self._send,
            )  # fmt: skip
            with self._reading, suppress(*NO_MORE):
                while data := await self._stream.receive_some(MAX_READ):
                    await protocol.handle(RawData(bytes(data)))
            await protocol.handle(Closed())
        # Unread input would make the system throw away our answer.
        with trio.move_on_after(LINGER_SECONDS), suppress(*NO_MORE):
            while await self._stream.receive_some(MAX_READ):
                pass

    async def _send(self, event: HypercornEvent) -> None:
        with suppress(*NO_MORE):
            match event:
                case RawData():
                    async with self._turn:
                        await self._stream.send_all(event.data)
                case Closed():
                    self._reading.cancel()
                    async with self._turn:
                        await self._stream.send_eof()


def application_for(client: Client) -> Starlette:
    """Return the application: `/v1/…` of `routes.py`."""
    return Starlette(
        routes=[
            StarletteRoute(path, _endpoint(client, route), methods=[method])
            for method, table in (("GET", QUERIES), ("POST", COMMANDS))
            for path, route in table.items()
        ],
        exception_handlers={HTTPException: _not_there},
    )


def _endpoint(client: Client, route: Route) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return _EventStream(route(client, Arguments.parse(await _body(request))))
        except ShoalError as error:
            return _line(Failure(error.code, error.message), STATUS.get(error.code, 500))

    return endpoint


async def _body(request: Request) -> bytes:
    data = bytearray()
    with trio.move_on_after(BODY_SECONDS) as scope:
        try:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    data += chunk
                    if len(data) > MAX_BODY:
                        raise UsageError(f"a request has at most {MAX_BODY} bytes")
        except ClientDisconnect as error:
            raise UsageError("the request was cut short") from error
    if scope.cancelled_caught:
        raise Refused(f"the request was not there within {BODY_SECONDS:.0f} s")
    return bytes(data)


async def _not_there(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path} does not exist here; see docs/events.md"
    return _line(Failure(2, message), error.status_code)


def _line(event: Event, status: int) -> Response:
    return Response(to_line(event), status, media_type=NDJSON.decode())


class _EventStream(Response):
    """Tells events as lines while they happen, and stops the work when the caller hangs up."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self._rows = rows
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            async with aclosing(self._rows) as rows:
                await self._tell(rows, send)
            nursery.cancel_scope.cancel()
        # The watcher has ended: Hypercorn reports the end of a request as a hang-up, too.
        await self._begin(send, 200)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, rows: Rows, send: Send) -> None:
        """Send the events as they come; the status waits for the first of them."""
        try:
            async for event in rows:
                await self._line(send, event, 200)
        except ShoalError as error:
            status = STATUS.get(error.code, 500)
            await self._line(send, Failure(error.code, error.message), status)

    async def _line(self, send: Send, event: Event, status: int) -> None:
        await self._begin(send, status)
        await send({"type": "http.response.body", "body": to_line(event), "more_body": True})

    async def _begin(self, send: Send, status: int) -> None:
        if not self._begun:
            self._begun = True
            headers = [(b"content-type", NDJSON)]
            await send({"type": "http.response.start", "status": status, "headers": headers})


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
