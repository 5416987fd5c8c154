"""Reading ranges of files straight into what is about to be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...wire.yamux import Read
from ..environment import RunBlocking
from .stream import FileRange, Stream


def runs_of(reads: Sequence[Read]) -> Iterator[Sequence[Read]]:
    """Split reads into runs that are contiguous in one file."""
    at = 0
    while at < len(reads):
        run = at + 1
        end = reads[at].offset + len(reads[at].view)
        while run < len(reads) and reads[run].source is reads[at].source:
            if reads[run].offset != end:
                break
            end += len(reads[run].view)
            run += 1
        yield reads[at:run]
        at = run


async def read_run(run: Sequence[Read], run_blocking: RunBlocking) -> str | None:
    """Read one contiguous run into its views; return what is wrong, if something is."""
    part = run[0].source
    assert isinstance(part, FileRange)
    wanted = sum(len(read.view) for read in run)
    views = [read.view for read in run]
    try:
        done = part.file.preadv(views, run[0].offset, nowait=True)
        if done < wanted:
            done = await run_blocking(part.file.preadv, views, run[0].offset)
    except (OSError, ValueError) as error:
        return str(error)
    if done < wanted:
        return "the file has become shorter"
    if part.unchanged is not None and not part.unchanged():
        return "the file was changed"
    return None


def withdraw(read: Read, why: str) -> None:
    """End the stream of a read that failed, and tell who queued it."""
    part = read.source
    stream = read.stream.driver
    if isinstance(stream, Stream):
        stream.reset(why)
    if isinstance(part, FileRange) and part.failed is not None:
        part.failed(why)
