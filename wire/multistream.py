"""multistream-select 1.0: agreeing on a protocol for a connection or a stream.

Two small state machines: `Initiator` proposes protocols in turn, `Responder` echoes the first that
it knows and answers `na` to others. Bytes behind the agreement belong to the protocol agreed on and
are kept in `remainder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from . import varint
from .errors import Misuse, PeerFault

HEADER: Final = "/multistream/1.0.0"
NOT_AVAILABLE: Final = "na"
LIST: Final = "ls"

MAX_LINE_BYTES: Final = 1024
"""Longest line, newline included (go)."""

MAX_PROPOSALS: Final = 32
"""Proposals answered in one negotiation."""


def message(line: str) -> bytes:
    """Return a line as it goes over the wire."""
    data = line.encode() + b"\n"
    return varint.encode(len(data)) + data


class _Lines:
    """Cuts the stream into lines, one at a time, and leaves the rest untouched."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def next(self) -> str | None:
        """Return the next whole line, or None."""
        found = varint.decode_prefix(self.buffer)
        if found is None:
            return None
        length, start = found
        if not 0 < length <= MAX_LINE_BYTES:
            raise PeerFault("multistream-line", f"a line of {length} bytes")
        if len(self.buffer) < start + length:
            return None
        data = bytes(self.buffer[start : start + length])
        if data[-1:] != b"\n":
            raise PeerFault("multistream-line", "no newline")
        try:
            line = data[:-1].decode()
        except UnicodeDecodeError as error:
            raise PeerFault("multistream-line", "not UTF-8") from error
        del self.buffer[: start + length]
        return line


class Initiator:
    """Proposes protocols, best first; sends its header with the first proposal.

    After `receive`, `agreed` is the protocol, or None while undecided; `refused` is True when the
    other side wants none of them.
    """

    def __init__(self, protocols: Sequence[str]) -> None:
        if not protocols:
            raise Misuse("nothing to propose")
        self._protocols = list(protocols)
        self._lines = _Lines()
        self._greeted = False
        self.agreed: str | None = None
        self.refused = False

    def start(self) -> bytes:
        """Return the header and the first proposal, to be sent at once."""
        return message(HEADER) + message(self._protocols[0])

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take bytes; return what is to be sent.

        Raises:
            PeerFault: The other side does not speak multistream-select.
        """
        self._lines.buffer += data
        out = b""
        while self.agreed is None and not self.refused:
            line = self._lines.next()
            if line is None:
                break
            if not self._greeted:
                if line != HEADER:
                    raise PeerFault("multistream-header", line[:80])
                self._greeted = True
            elif line == self._protocols[0]:
                self.agreed = line
            elif line == NOT_AVAILABLE:
                del self._protocols[0]
                if self._protocols:
                    out += message(self._protocols[0])
                else:
                    self.refused = True
            else:
                raise PeerFault("multistream-answer", line[:80])
        return out

    @property
    def remainder(self) -> bytes:
        """The bytes behind the agreement."""
        return bytes(self._lines.buffer)


class Responder:
    """Answers proposals: echoes one that `supported` accepts, `na` for others.

    After `receive`, `agreed` is the protocol, or None while undecided.
    """

    def __init__(
        self, supported: Callable[[str], bool], listed: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._supported = supported
        self._listed = listed
        self._lines = _Lines()
        self._greeted = False
        self._proposals = 0
        self.agreed: str | None = None

    def start(self) -> bytes:
        """Return the header; it may be sent before anything is received."""
        return message(HEADER)

    def receive(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take bytes; return what is to be sent (the header not included).

        Raises:
            PeerFault: The other side does not speak multistream-select, or asks too often.
        """
        self._lines.buffer += data
        out = b""
        while self.agreed is None:
            line = self._lines.next()
            if line is None:
                break
            if not self._greeted:
                if line != HEADER:
                    raise PeerFault("multistream-header", line[:80])
                self._greeted = True
                continue
            self._proposals += 1
            if self._proposals > MAX_PROPOSALS:
                raise PeerFault("multistream-proposals")
            if line == LIST:
                inner = b"".join(message(name) for name in self._listed())
                out += varint.encode(len(inner) + 1) + inner + b"\n"
            elif self._supported(line):
                self.agreed = line
                out += message(line)
            else:
                out += message(NOT_AVAILABLE)
        return out

    @property
    def remainder(self) -> bytes:
        """The bytes behind the agreement."""
        return bytes(self._lines.buffer)
