"""A connection that counts as nobody's, to see for another whether it can be reached."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr

from ...wire.addresses import is_quic
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ...wire.keys import PrivateKey
from ..environment import RawStream
from .bounds import Budgets
from .connection import Connection
from .dialer import CONNECT_SECONDS, UPGRADE_SECONDS
from .muxing import Security, SelfSecuring
from .secure import NoiseKeys, upgrade

if TYPE_CHECKING:
    from .host import Host

APART_SECONDS = 1.0
"""For the proper end of such a connection."""


@asynccontextmanager
async def apart(
    host: Host,
    addr: Multiaddr,
    peer: PeerId,
    budgets: Budgets,
    faulted: Callable[[Connection, PeerFault], None],
) -> AsyncGenerator[Connection, None]:
    """Make a connection under another identity, from any port.

    It serves nothing and is in no list of the host's; it ends with the block.

    Raises:
        NetError, PeerFault, OSError, trio.TooSlowError: It did not work.
    """
    secret = host.environment.random.secret
    identity = PrivateKey(secret(32))
    async with _dialled(host, addr, identity) as raw:
        secured: Security
        with trio.fail_after(UPGRADE_SECONDS):
            if isinstance(raw, SelfSecuring):
                secured = await raw.secure(peer)
            else:
                keys = NoiseKeys(identity, secret(32))
                secured = await upgrade(raw, keys, secret(32), initiator=True, expected=peer)
        connection = Connection(
            raw,
            secured,
            direction="out",
            services={},
            budgets=budgets,
            faulted=faulted,
            now=host.environment.clock.now,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            try:
                yield connection
            finally:
                connection.close()
                nursery.cancel_scope.deadline = trio.current_time() + APART_SECONDS


@asynccontextmanager
async def _dialled(
    host: Host, addr: Multiaddr, identity: PrivateKey
) -> AsyncGenerator[RawStream | SelfSecuring, None]:
    """Dial; what was made ends with the block."""
    if is_quic(addr):
        if host.quic is None:
            raise OSError("QUIC is not in use here")
        async with host.quic.apart(identity) as other:
            with trio.fail_after(CONNECT_SECONDS):
                link = await other.dial(addr)
            yield link
        return
    with trio.fail_after(CONNECT_SECONDS):
        raw = await host.environment.transport.dial(addr)
    try:
        yield raw
    finally:
        await trio.aclose_forcefully(raw)  # type: ignore[arg-type]
