"""Where a node listens: what its owner named, else TCP and UDP ports of the same numbers."""

from __future__ import annotations

import errno
from contextlib import suppress

from multiaddr import Multiaddr

from ..wire.addresses import host_port, parse_multiaddr, quic_addr
from .client import Purpose
from .config import ANY_PORT_LISTEN, DEFAULT_LISTEN, Config
from .errors import Refused
from .net.host import Host


async def listen(host: Host, config: Config, purpose: Purpose) -> list[str]:
    """Listen; return what the owner should know of it.

    Raises:
        Refused: On an address that was named, or on none of the default ones.
    """
    default = DEFAULT_LISTEN if purpose == "up" else ANY_PORT_LISTEN
    texts = config.listen or default
    explicit = config.listen is not None
    notices: list[str] = []
    opened: list[Multiaddr] = []
    last: OSError | None = None
    for text in texts:
        addr = parse_multiaddr(text)
        try:
            await host.listen(addr)
            opened.append(addr)
            continue
        except OSError as error:
            last = error
            if explicit:
                raise Refused(_cannot_listen(text, error)) from error
        if last.errno == errno.EADDRINUSE:
            free = parse_multiaddr(text.rpartition("/")[0] + "/0")
            with suppress(OSError):
                await host.listen(free)
                opened.append(free)
                notices.append(f"the port of {text} is in use: another one was taken")
    if not opened and last is not None:
        raise Refused(_cannot_listen(", ".join(texts), last))
    if not explicit and host.uses_quic:
        await _listen_quic(host)
    return notices


async def _listen_quic(host: Host) -> None:
    """Listen on UDP ports of the same numbers as those of TCP, or on any free ones."""
    pairs = {pair for addr in host.listen_addrs() if (pair := host_port(addr)) is not None}
    for wildcard in ("0.0.0.0", "::"):
        for port in sorted({p for ip, p in pairs if (":" in ip) == (":" in wildcard)}):
            try:
                await host.listen(quic_addr(wildcard, port))
            except OSError:
                with suppress(OSError):  # TCP is there; that has to do
                    await host.listen(quic_addr(wildcard, 0))


def _cannot_listen(text: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"cannot listen on {text}: {reason}; name another address with --listen"
