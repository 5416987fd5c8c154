"""Chunks of peers' bitfields that come into the window and are not known: peers are asked again."""

from __future__ import annotations

from typing import Final

from ..wire.swarm import CHUNK_BITS, Bitfield
from .source import AskChunk, Source
from .window import Window

CHUNK_SECONDS: Final = 10.0
"""Within which a peer tells a chunk of its bitfield again; then it is supposed to hold all of it,
and rejects what it does not."""


class Questions:
    """What was asked, for one download."""

    def __init__(self, window: Window) -> None:
        self._window = window

    def to_ask(self, now: float) -> list[AskChunk]:
        """Return what to ask now.

        Who does not answer, or cannot be asked, is supposed to hold all of a chunk of which it
        holds something.
        """
        asks: list[AskChunk] = []
        for source in self._window.sources:
            if source.bits.everything:
                continue
            for chunk in self._window.chunks.values():
                number = chunk.number
                if not source.bits.unknown(number):
                    continue
                since = source.chunks_asked.get(number)
                if source.tells_again and since is None:
                    source.chunks_asked[number] = now
                    source.bits.asked(number)
                    asks.append(AskChunk(source, number))
                elif since is None or now >= since + CHUNK_SECONDS:
                    source.chunks_asked.pop(number, None)
                    source.bits.assume(number)
                    chunk.add(source.bits)
        return asks

    def answered(self, source: Source, frame: Bitfield) -> None:
        """See `Download.told_again`."""
        source.chunks_asked.pop(frame.chunk, None)
        if source in self._window.sources:
            first = frame.chunk * CHUNK_BITS
            end = first + CHUNK_BITS
            self._window.change(source, first, end, lambda: source.bits.take(frame))
        else:
            source.bits.take(frame)
