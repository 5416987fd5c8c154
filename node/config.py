"""What a node's owner can set, and where it comes from.

Precedence: command-line flag, then `SHOAL_*` in the environment, then `config.toml` of the home,
then the defaults below. A key that is not known is refused, with the nearest known one.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from ..storage.config_file import read_config
from ..wire.addresses import parse_multiaddr, peer_of
from ..wire.errors import InvalidText
from ..wire.ids import PeerId
from .link import parse_peer
from .rates import parse_rate

DhtMode = Literal["auto", "server", "client"]
RelayMode = Literal["auto", "off", "own"]

DEFAULT_PORT = 4071
DEFAULT_LISTEN = (f"/ip4/0.0.0.0/tcp/{DEFAULT_PORT}", f"/ip6/::/tcp/{DEFAULT_PORT}")
"""Where `up` listens; if the port is taken, any free one. With QUIC, on UDP ports of the same
numbers, too."""

ANY_PORT_LISTEN = ("/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0")
"""Where a `share` or `get` of its own listens."""


LIMITS = ("up_limit", "down_limit", "peer_up_limit", "peer_down_limit", "relay_quota")
"""Settings that are numbers of bytes, a second or a day (`rates.py`)."""

SWITCHES = ("mdns", "port_mapping", "quic")
ON_OFF = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
"""What a switch may be in the environment."""


class ConfigError(InvalidText):
    """A setting is wrong; the text says which, where it stands and what it should be."""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings of one node."""

    listen: tuple[str, ...] | None = None
    """Multiaddrs to listen on; None = the default of the command."""

    announce: tuple[str, ...] = ()
    """Further addresses to tell to others (a forwarded port, a public name's address)."""

    bootstrap: tuple[str, ...] = ()
    """Multiaddrs or peer ids through which to join the DHT; none is built in."""

    dht: DhtMode = "auto"
    """server answers others, client only asks, auto decides by what the node does."""

    dht_protocol: str = "/shoal/kad/1.0.0"
    """The DHT to take part in; on `/ipfs/kad/1.0.0` always as a client."""

    up_limit: str | None = None
    """Bytes a second that are sent at most, as `10MB`; None = no limit. So with all limits."""

    down_limit: str | None = None
    peer_up_limit: str | None = None
    """The same for each peer."""

    peer_down_limit: str | None = None

    mdns: bool = True
    """Find, and be found by, nodes on the same network."""

    quic: bool = True
    """Use QUIC beside TCP, if its library is there (`shoal[quic]`)."""

    port_mapping: bool = True
    """Ask the router to forward our port (PCP, NAT-PMP, UPnP)."""

    via: tuple[str, ...] = ()
    """Multiaddrs of relays to be reached through while nothing else leads here."""

    relay: RelayMode = "auto"
    """Be a relay: auto = for meeting only, once others can reach us; own = for whole transfers."""

    relay_members: tuple[str, ...] = ()
    """Peer ids that may have a place at our own relay; none = anybody."""

    relay_quota: str | None = None
    """Bytes that our own relay forwards in a day, as `100GB`; None = no end."""

    def with_flags(self, **flags: Any) -> Config:
        """Return a copy in which each flag that is not None or empty replaces the setting."""
        given = {name: value for name, value in flags.items() if value not in (None, (), [])}
        return _checked(replace(self, **given), "the command line")


def load_config(home: Path, environ: Mapping[str, str]) -> Config:
    """Read `config.toml` and the environment.

    Raises:
        ConfigError: A key is unknown or a value is wrong.
    """
    place = str(home / "config.toml")
    try:
        text = read_config(home)
        table = tomllib.loads(text) if text is not None else {}
    except (tomllib.TOMLDecodeError, ValueError) as error:
        raise ConfigError(f"{place} cannot be read: {error}; mend or remove it") from error
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror}") from error
    config = _checked(replace(Config(), **_from_table(table, place)), place)
    from_environment = {
        field.name: _from_text(field.name, environ[f"SHOAL_{field.name.upper()}"])
        for field in fields(Config)
        if environ.get(f"SHOAL_{field.name.upper()}")
    }
    return _checked(replace(config, **from_environment), "the environment (SHOAL_…)")


def _from_table(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    known = {field.name for field in fields(Config)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            raise ConfigError(f"{place} has an unknown key {key!r}; {hint}")
        if isinstance(value, list) and key not in LIMITS:
            if not all(isinstance(item, str) for item in value):
                raise ConfigError(f"{place}: {key} is a list of texts")
            values[key] = tuple(value)
        elif isinstance(value, str):
            values[key] = _from_text(key, value)
        elif key in SWITCHES and isinstance(value, bool):
            values[key] = value
        elif key in LIMITS and type(value) is int:
            values[key] = str(value)
        else:
            raise ConfigError(f"{place}: {key} cannot be {value!r}")
    return values


def _from_text(key: str, text: str) -> Any:
    """Read a value given as one text; lists are separated by commas or spaces."""
    if key in ("dht", "dht_protocol", "relay", *LIMITS):
        return text
    if key in SWITCHES:
        word = text.strip().lower()
        if word not in ON_OFF:
            raise ConfigError(f"{key} is true or false, not {text!r}")
        return ON_OFF[word]
    return tuple(text.replace(",", " ").split())


def _checked(config: Config, place: str) -> Config:
    """Refuse values that cannot work, before anything is started with them."""
    if config.dht not in get_args(DhtMode):
        raise ConfigError(f"{place}: dht is auto, server or client, not {config.dht!r}")
    if not config.dht_protocol.startswith("/"):
        raise ConfigError(f"{place}: dht_protocol looks like /shoal/kad/1.0.0")
    if config.relay not in get_args(RelayMode):
        raise ConfigError(f"{place}: relay is auto, off or own, not {config.relay!r}")
    for name in ("listen", "announce", "bootstrap", "via", "relay_members"):
        value = getattr(config, name)
        if value is not None and not isinstance(value, tuple):
            raise ConfigError(f"{place}: {name} is a list of texts")
    try:
        for text in (*(config.listen or ()), *config.announce):
            parse_multiaddr(text)
        for text in config.bootstrap:
            parse_peer(text)
        for text in config.via:
            if peer_of(parse_multiaddr(text)) is None:
                raise ConfigError(f"{place}: {text} does not end in /p2p/ and the relay's peer id")
        for text in config.relay_members:
            PeerId.parse(text)
        for name in LIMITS:
            rate = getattr(config, name)
            if rate is not None:
                parse_rate(rate)
    except InvalidText as error:
        raise ConfigError(f"{place}: {error}") from error
    return config
