"""The sockets of mDNS: python-zeroconf, with the parts replaced that do not fit libp2p.

Only a worker thread imports this module, as zeroconf takes a while to load. zeroconf runs an event
loop in a thread of its own; packets are read there.

Its browser gives names and wants an SRV record behind each, which rust does not send, and its cache
takes all that devices of the network say of themselves. So answers are read packet by packet, those
that do not name our service go unread, and zeroconf sees only what came back of our own, by which
it keeps from repeating itself. Queries it answers by itself: PTR, and TXT with all else in the
additional section, which is the form that rust needs.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final, TypeVarTuple

import ifaddr
from zeroconf import Error, InterfaceChoice, IPVersion, ServiceInfo, Zeroconf
from zeroconf._dns import DNSPointer, DNSQuestion, DNSText
from zeroconf._handlers.query_handler import QueryHandler
from zeroconf._handlers.record_manager import RecordManager
from zeroconf._protocol.incoming import DNSIncoming
from zeroconf._protocol.outgoing import DNSOutgoing
from zeroconf._transport import _WrappedTransport

from ...wire.addresses import Scope
from ...wire.scopes import scope_of_ip
from .mdns_records import TTL_SECONDS, Allowance, Heard, Told

ALIVE_SECONDS: Final = 0.5
"""zeroconf's thread has so long to show that it still runs before we say goodbye through it."""

REPLY_BURST: Final = 50
REPLIES_PER_SECOND: Final = 10.0
"""Queries that are answered; an answer has up to thirty times their bytes, and asks may be forged
in somebody else's name."""

MAX_NETWORKS: Final = 64
"""Global networks of ours that a packet's sender may be on."""

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Ts = TypeVarTuple("Ts")

_ANSWER: Final = 0x8400
"""Flags of an answer of whoever knows it at first hand (RFC 1035)."""

_QUERY: Final = 0
_PTR: Final = 12
_IN: Final = 1


class RadioOff(Exception):
    """mDNS cannot be spoken here now; the text says why, for people."""


class _Answers(RecordManager):
    """Reads the answers of others instead of keeping them."""

    def __init__(self, zeroconf: Radio) -> None:
        super().__init__(zeroconf)
        self._radio = zeroconf

    def async_updates_from_response(self, msg: DNSIncoming) -> None:
        """Read an answer; runs in zeroconf's thread."""
        if not self._radio.is_near(msg.source[0] if msg.source else ""):
            self._radio.unsee(msg)
            return
        if not self._radio.is_about_us(msg):
            return
        if self._radio.own_label in msg.data:
            super().async_updates_from_response(msg)
        self._radio.read(msg)


class _Questions(QueryHandler):
    """Answers whom we would answer: neighbours, and not too many of them."""

    def __init__(self, zeroconf: Radio) -> None:
        super().__init__(zeroconf)
        self._radio = zeroconf
        self._allowance = Allowance(REPLY_BURST, REPLIES_PER_SECOND)

    def handle_assembled_query(
        self,
        packets: list[DNSIncoming],
        addr: str,
        port: int,
        transport: _WrappedTransport,
        v6_flow_scope: tuple[()] | tuple[int, int],
    ) -> None:
        """Answer a query; runs in zeroconf's thread."""
        if not self._radio.is_near(addr):
            self._radio.unsee(packets[0])
        elif self._allowance.spend(packets[0].now / 1000):
            super().handle_assembled_query(packets, addr, port, transport, v6_flow_scope)


class Radio(Zeroconf):
    """Speaks mDNS on all interfaces. All methods but `read` are called outside zeroconf's thread.

    Args:
        name: Ours, one label.
        service: What is asked for and answered.
        heard: Called in zeroconf's thread with each packet that names the service and came from
            near by, and the time in seconds (of a clock that never goes back).
        interfaces: Addresses of those to use; none = all.

    Raises:
        RadioOff: There is no interface, or another program keeps the port for itself.
    """

    def __init__(
        self,
        name: str,
        service: str,
        heard: Callable[[Heard, float], None],
        interfaces: Sequence[str] = (),
    ) -> None:
        self.own_label = _label(name)
        self._service_label = _label(service.split(".", 1)[0].lower())
        self._name = name
        self._service = service
        self._heard = heard
        self._info: ServiceInfo | None = None
        self._chosen = bool(interfaces)
        try:
            self._networks = global_networks()
            if interfaces:
                super().__init__(list(interfaces), use_asyncio=False)
            else:
                self._open_all()
        except OSError as error:
            raise RadioOff(f"port 5353 cannot be opened: {error.strerror or error}") from error
        except RuntimeError as error:
            raise RadioOff("there is no network interface") from error

    def _open_all(self) -> None:
        try:
            super().__init__(InterfaceChoice.All, ip_version=IPVersion.All, use_asyncio=False)
        except (OSError, RuntimeError):  # no IPv6 in this kernel, or none that shares its sockets
            super().__init__(InterfaceChoice.All, ip_version=IPVersion.V4Only, use_asyncio=False)

    def start(self) -> None:
        """Put our parts in before zeroconf starts to listen."""
        self.record_manager = _Answers(self)
        self.query_handler = _Questions(self)
        super().start()

    @property
    def reach(self) -> int:
        """Addresses of this machine from which others hear us; 0 = nobody does."""
        senders = self.engine.senders
        return sum(1 for one in senders if self._chosen or not _is_loopback(one.sock_name[0]))

    def is_about_us(self, msg: DNSIncoming) -> bool:
        """Return whether a packet may name our service; else it need not be taken apart."""
        return self._service_label in msg.data.lower()

    def is_near(self, source: str) -> bool:
        """Return whether the sender of a packet is on a network of ours."""
        return is_near(source, self._networks)

    def unsee(self, msg: DNSIncoming) -> None:
        """Let the same bytes count when they come again.

        zeroconf drops what it saw within the last 0.8 s. Many send each packet from every address
        of theirs, and the first to come may be from one that is not near.
        """
        for protocol in self.engine.protocols:
            protocol._recent_packets.pop(msg.data, None)
            if protocol.data == msg.data:
                protocol.data = None

    def read(self, msg: DNSIncoming) -> None:
        """Hand over what a packet says; runs in zeroconf's thread."""
        pointers: list[tuple[str, str]] = []
        texts: list[tuple[str, int, bytes]] = []
        for record in msg.answers():
            if isinstance(record, DNSPointer):
                pointers.append((record.name, record.alias))
            elif isinstance(record, DNSText):
                texts.append((record.name, int(record.ttl), record.text))
        if texts:
            self._heard(Heard(tuple(pointers), tuple(texts)), msg.now / 1000)

    def ask(self) -> None:
        """Ask who is there."""
        out = DNSOutgoing(_QUERY)
        out.add_question(DNSQuestion(self._service, _PTR, _IN))
        self.send(out)

    def tell(self, told: Told) -> None:
        """Answer so from now on; nothing while there is no address."""
        info = None
        if told.text:
            info = ServiceInfo(
                self._service,
                f"{self._name}.{self._service}",
                port=told.port,
                properties=told.text,
                server=f"{self._name}.local.",
                host_ttl=TTL_SECONDS,
                other_ttl=TTL_SECONDS,
                parsed_addresses=list(told.ips),
            )
        self._soon(self._replace, info)

    def announce(self) -> None:
        """Tell all who listen."""
        self._soon(self._announce, None)

    def rescan(self) -> None:
        """Take up interfaces that have come, leave those that have gone; blocks for a second.

        Raises:
            RadioOff: zeroconf does not keep up.
        """
        try:
            self._networks = global_networks()
            self.update_interfaces()
        except (Error, OSError, RuntimeError) as error:
            raise RadioOff(f"interfaces cannot be read: {error}") from error

    def close(self) -> None:
        """Say goodbye and close; blocks for less than a second."""
        alive = threading.Event()
        self._soon(self._announce, 0)
        self._soon(alive.set)
        if not alive.wait(ALIVE_SECONDS):
            self.done = True  # what is stuck is left behind: it does not keep the process alive
            return
        try:
            super().close()
        except (Error, OSError, RuntimeError):
            self.done = True

    def _soon(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(function, *args)

    def _replace(self, info: ServiceInfo | None) -> None:
        if self._info is not None:
            self.registry.async_remove(self._info)
        self._info = info
        if info is not None:
            self.registry.async_add(info)

    def _announce(self, life: int | None) -> None:
        """Send our answer unasked; a life of 0 takes it back."""
        info = self._info
        if info is None:
            return
        out = DNSOutgoing(_ANSWER)
        out.add_answer_at_time(info.dns_pointer(override_ttl=life), 0)
        out.add_additional_answer(info.dns_text(override_ttl=life))
        out.add_additional_answer(info.dns_service(override_ttl=life))
        for record in info.dns_addresses(override_ttl=life):
            out.add_additional_answer(record)
        self.async_send(out)


def _label(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _is_loopback(host: str) -> bool:
    return scope_of_ip(ipaddress.ip_address(host.partition("%")[0])) is Scope.LOOPBACK


def is_near(source: str, networks: Iterable[IpNetwork]) -> bool:
    """Return whether a packet's sender is on a network of ours, or on this machine (RFC 6762, 11).

    One that comes over the internet to an open port 5353 could point us at our own network.

    Args:
        source: Its IP address.
        networks: Those of ours that are global.
    """
    try:
        ip = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return False
    if scope_of_ip(ip) is not Scope.GLOBAL:
        return True
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return any(ip.ipv4_mapped in network for network in networks)
    return any(ip in network for network in networks)


def global_networks() -> list[IpNetwork]:
    """Return the networks of this machine's global addresses: 8.8.8.0/24, 2001:db8:1::/64."""
    found: list[IpNetwork] = []
    for adapter in ifaddr.get_adapters():
        for one in adapter.ips:
            host = one.ip if isinstance(one.ip, str) else one.ip[0]
            with suppress(ValueError):  # a mask that is none
                network = ipaddress.ip_network((host, one.network_prefix), strict=False)
                if scope_of_ip(network[0]) is Scope.GLOBAL and len(found) < MAX_NETWORKS:
                    found.append(network)
    return found
