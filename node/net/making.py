"""Making connections: a raw stream in either direction is secured, admitted and run."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import trio
from multiaddr import Multiaddr

from ...wire.addresses import Scope, host_port, ip_of, is_quic, is_relayed, scope_of
from ...wire.errors import PeerFault
from ...wire.ids import PeerId
from ..environment import Listener, RawStream
from .connection import Connection
from .dialer import CONNECT_SECONDS, UPGRADE_SECONDS
from .errors import NetError, Unreachable, WrongPeer
from .muxing import Carrier, Security, SelfSecuring
from .paths import Path
from .secure import NoiseKeys, upgrade

if TYPE_CHECKING:
    from .host import Host
    from .quic.endpoint import Endpoint

ACCEPT_PAUSE = 0.2
"""Pause of a listener that could not accept (no file descriptor left)."""

PORT_TAKEN = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
"""A connection from this port to that address exists, or existed a moment ago."""

SECURING_SECONDS = 0.05
"""Between two looks whether a connection over TCP is still being secured."""

OTHER_PEER = frozenset({"noise-wrong-peer", "tls-wrong-peer"})
"""How a handshake fails in which another peer than the expected one answered."""

SAME_ROLE = frozenset({"noise-handshake-length", "noise-decrypt"})
"""How a handshake fails whose two sides both began it."""


class Circuit(RawStream, Protocol):
    """A raw stream through a relay."""

    @property
    def limited(self) -> bool:
        """Whether the relay ends it after so much time or so many bytes."""
        ...


class Circuits(Protocol):
    """Makes raw streams through relays; see `node/nat`."""

    async def dial(self, addr: Multiaddr, target: PeerId) -> Circuit:
        """Reach a peer at a relayed address (NetError, PeerFault, OSError: it did not work)."""
        ...


class Maker:
    """Makes the connections of a host.

    Args:
        host: Whose they are.
        keys: Its Noise keys.
        register: Takes a secured stream as a new connection.
    """

    def __init__(
        self,
        host: Host,
        keys: NoiseKeys,
        register: Callable[[Carrier, Security, bool, Path | None, bool], Connection],
    ) -> None:
        self._host = host
        self._keys = keys
        self._register = register
        self._upgrading = 0
        self.circuits: Circuits | None = None
        """How relayed addresses are dialled; None = they are not."""
        self._expected: dict[Multiaddr, tuple[PeerId, bool]] = {}
        self.securing: Counter[PeerId] = Counter()
        """Peers to whom a dialled connection is open and being secured."""

    def can_dial(self, addr: Multiaddr) -> bool:
        """Return whether an address is of a kind that can be dialled."""
        if is_relayed(addr):
            return self.circuits is not None
        if is_quic(addr):
            return self._host.uses_quic
        return self._host.environment.transport.can_dial(addr)

    async def dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        """Dial and upgrade one address.

        Raises:
            NetError, PeerFault, OSError, trio.TooSlowError: It did not work.
        """
        host = self._host
        host.dials.begin(addr)
        success: bool | None = None
        try:
            connection = await self._dial(addr, expected)
            success = True
        except (NetError, PeerFault, OSError, trio.TooSlowError):
            success = False
            raise
        finally:
            host.dials.end(addr, success)
        host.peerstore.add(connection.peer_id, [addr])
        return connection

    async def _dial(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        if is_relayed(addr):
            if self.circuits is None or expected is None:
                raise Unreachable(str(addr), [(str(addr), "no peer behind the relay is named")])
            circuit = await self.circuits.dial(addr, expected)
            return await self._secure(circuit, expected, limited=circuit.limited)
        if is_quic(addr):
            return await self._dial_quic(addr, expected)
        port = self.listening_port(addr)
        if port is not None:
            try:
                raw = await self._connect(addr, port)
                return await self._secure(raw, expected, may_cross=True)
            except PeerFault as fault:
                if fault.reason not in SAME_ROLE:
                    raise
            except OSError as error:
                if error.errno not in PORT_TAKEN:
                    raise
        return await self._secure(await self._connect(addr, None), expected)

    async def _dial_quic(self, addr: Multiaddr, expected: PeerId | None) -> Connection:
        quic = self._host.quic
        if quic is None:
            raise Unreachable(str(addr), [(str(addr), "QUIC is not in use here")])
        # TCP got through: QUIC is only for if the peer does not answer there after all.
        while expected is not None and self.securing[expected]:  # noqa: ASYNC110 - at most 10 s
            await trio.sleep(SECURING_SECONDS)
        with trio.fail_after(CONNECT_SECONDS):
            link = await quic.dial(addr)
        return await self._secure(link, expected)

    async def _connect(self, addr: Multiaddr, port: int | None) -> RawStream:
        with trio.fail_after(CONNECT_SECONDS):
            return await self._host.environment.transport.dial(addr, source_port=port)

    def listening_port(self, addr: Multiaddr) -> int | None:
        """Return the port of ours to dial a global address from; None = any."""
        target = host_port(addr)
        if target is None or scope_of(addr) is not Scope.GLOBAL:
            return None
        version = ":" in target[0]
        pairs = map(host_port, self._host.listen_addrs())
        return next((p[1] for p in pairs if p is not None and (":" in p[0]) == version), None)

    async def _secure(
        self,
        raw: Carrier,
        expected: PeerId | None,
        *,
        limited: bool = False,
        may_cross: bool = False,
    ) -> Connection:
        with self._securing(expected):
            return await self.admit(
                raw, expected, initiator=True, limited=limited, may_cross=may_cross
            )

    @contextmanager
    def _securing(self, peer: PeerId | None) -> Iterator[None]:
        if peer is None:
            yield
            return
        self.securing[peer] += 1
        try:
            yield
        finally:
            self.securing[peer] -= 1
            if not self.securing[peer]:
                del self.securing[peer]

    async def admit(
        self,
        raw: RawStream | Carrier,
        expected: PeerId | None,
        *,
        initiator: bool,
        path: Path | None = None,
        limited: bool = False,
        may_cross: bool = False,
    ) -> Connection:
        """Secure a raw stream and take it as a connection; it is closed if that fails.

        Args:
            raw: The stream.
            expected: Who must be at the other end; None = anybody.
            initiator: Whether we are the client of all that is negotiated.
            path: What kind of path it is; None = as the address says.
            limited: Whether a relay ends it after some time or bytes.
            may_cross: The other may have dialled from its port at the same moment: then it is one
                connection of two clients, which is nobody's fault; another port makes it two.

        Raises:
            NetError, PeerFault, OSError, trio.TooSlowError: It did not work.
        """
        ephemeral = self._host.environment.random.secret(32)
        try:
            with trio.fail_after(UPGRADE_SECONDS):
                secured: Security
                if isinstance(raw, SelfSecuring):
                    initiator = raw.client
                    secured = await raw.secure(expected)
                else:
                    assert isinstance(raw, RawStream)
                    secured = await upgrade(
                        raw, self._keys, ephemeral, initiator=initiator, expected=expected
                    )
            if path is None and self._is_expected(raw.remote, secured.peer):
                path = Path.PUNCHED
            return self._register(raw, secured, initiator, path, limited)
        except BaseException as error:
            await trio.aclose_forcefully(raw)  # type: ignore[arg-type]
            if isinstance(error, PeerFault):
                if not (may_cross and error.reason in SAME_ROLE):
                    self._host.faults[error.reason] += 1
                if error.reason in OTHER_PEER and expected is not None:
                    found = PeerId.parse(error.detail.split(" ", 1)[0])
                    raise WrongPeer(str(raw.remote), expected, found) from error
            raise

    @contextmanager
    def expecting(
        self, addrs: Sequence[Multiaddr], peer: PeerId, *, initiator: bool
    ) -> Iterator[None]:
        """Know for a while that a peer may come from these addresses through a punched hole.

        Its packets may reach our listener before ours have left: what comes of that is the same
        connection, in which the roles are agreed already.
        """
        added = {addr: (peer, initiator) for addr in addrs if addr not in self._expected}
        self._expected.update(added)
        try:
            yield
        finally:
            for addr in added:
                del self._expected[addr]

    def _is_expected(self, remote: Multiaddr, peer: PeerId) -> bool:
        """Return whether a peer comes from the IP at which it is expected, if from another port.

        Who cannot dial from the port that it listens on (js) comes as a usual client.
        """
        ip = ip_of(remote)
        return any(peer == who and ip == ip_of(a) for a, (who, _) in self._expected.items())

    async def accept(self, listener: Listener | Endpoint, nursery: trio.Nursery) -> None:
        """Accept on a listener until it is closed; connections are secured in the nursery."""
        host = self._host
        while True:
            try:
                raw: Carrier = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError:
                await trio.sleep(ACCEPT_PAUSE)
                continue
            if self._upgrading >= host.config.limits.upgrades:
                host.faults["upgrades-busy"] += 1
                await trio.aclose_forcefully(raw)  # type: ignore[arg-type]
                continue
            self._upgrading += 1
            nursery.start_soon(self._inbound, raw)

    async def _inbound(self, raw: RawStream | Carrier) -> None:
        peer, initiator = self._expected.get(raw.remote, (None, False))
        path = Path.PUNCHED if peer is not None else None
        try:
            await self.admit(raw, peer, initiator=initiator, path=path)
        except PeerFault:
            pass  # counted
        except (NetError, OSError, trio.TooSlowError, trio.ClosedResourceError) as error:
            self._host.faults[f"upgrade-{type(error).__name__}"] += 1
        finally:
            self._upgrading -= 1
