"""All kinds of machines, each getting a file from each: the paths that they end up with."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from natlab.lab import Lab, Machine
from natlab.theory import DIRECT, KINDS, MAPPED, Kind, expected, possible
from natlab.town import (
    GetFailed,
    Host,
    NotInTime,
    Town,
    can_be_found,
    get,
    share,
    until,
    write_file,
)
from shoal.node.events import Peer

FILE_BYTES = 64 << 20

SHARER_RATE = "16MB"
"""A second, of each sharer: a file takes 4 s, so that a transfer which begins over a relay is still
under way when a hole has been punched."""

WATCH_SECONDS = 0.5
"""Between two looks at the path of a running transfer."""

SETTLE_SECONDS = 30.0
"""For the path that theory expects to be there when the file already is."""


@dataclass(frozen=True)
class Outcome:
    """What one `get` showed."""

    getter: Kind
    sharer: Kind
    right: bool
    """The SHA-256 is that of the shared file."""
    path: str
    """The best path between the two at the end."""
    began: str
    """The path that was there first, if seen."""
    wasted: int
    """Bytes that were fetched twice."""
    seconds: float

    @property
    def expected(self) -> str:
        """What theory says."""
        return expected(self.getter, self.sharer)[0]

    @property
    def agrees(self) -> bool:
        """Whether the file is right, and the path one that theory allows."""
        return self.right and self.path in possible(self.getter, self.sharer)


def build(lab: Lab, kind: Kind, name: str) -> Machine:
    """Make a machine of a kind."""
    makers: dict[str, Callable[[str], Machine]] = {
        "public": partial(lab.public, v6=True),
        "cone": lab.cone,
        "restricted": lab.restricted,
        "symmetric": lab.symmetric,
        "double": lab.double,
        "upnp": lab.upnp,
        "ipv6": lab.ipv6_only,
        "firewall": lab.firewalled,
    }
    return makers[kind.name](name)


def word_of(row: Peer, getter: Host, sharer: Host) -> str:
    """Return the word for a connection of the getter: a mapped port is a direct one to `peers`."""
    if row.path != DIRECT:
        return str(row.path)
    dialled = sharer if row.direction == "out" else getter
    return MAPPED if dialled.kind == "upnp" else DIRECT


class Matrix:
    """Two machines of each kind: all getters on one side, all sharers on the other.

    So each pair meets for the first time, and two of one kind are behind two boxes.
    """

    def __init__(self, town: Town, kinds: Sequence[Kind] = KINDS) -> None:
        self.town = town
        self.kinds = kinds
        self.getters: dict[str, Host] = {}
        self.sharers: dict[str, Host] = {}
        self.outcomes: list[Outcome] = []
        self.started = time.monotonic()

    async def start(self) -> None:
        """Start all nodes, and wait until each knows how it can be reached."""
        town = self.town
        await town.populate()
        assert town.relay is not None
        limit = (f"SHOAL_UP_LIMIT={SHARER_RATE}",)
        await self._start_side(self.sharers, "share", town.relay.peer_id, limit)
        # Only now: who meets before it knows how it can be reached meets in another way.
        await self._start_side(self.getters, "get", None, ())

    async def _start_side(
        self, side: dict[str, Host], word: str, relay: str | None, env: tuple[str, ...]
    ) -> None:
        """Start one machine of each kind, with a place at a relay if one is named."""
        town = self.town

        machines = {kind: build(town.lab, kind, f"{word}-{kind.name}") for kind in self.kinds}

        def start(kind: Kind, machine: Machine) -> None:
            via = town.via(machine) if relay is not None else []
            side[kind.name] = town.start(machine, kind.name, *town.join, *via, env=env)

        await town.starts(*(partial(start, *pair) for pair in machines.items()))
        for host in side.values():
            what = f"{host.name} knows how it can be reached, and has a place where it needs one"
            await until(what, partial(can_be_found, host, relay))

    async def rounds(self, pairs: Iterable[tuple[Kind, Kind]]) -> None:
        """Run the pairs, each machine in one transfer at a time."""
        left = list(pairs)
        while left:
            now: list[tuple[Kind, Kind]] = []
            for pair in left:
                if all(pair[0] is not a and pair[1] is not b for a, b in now):
                    now.append(pair)
            left = [pair for pair in left if pair not in now]
            async with trio.open_nursery() as nursery:
                for getter, sharer in now:
                    nursery.start_soon(self._run, getter, sharer)

    async def _run(self, getter: Kind, sharer: Kind) -> None:
        self.outcomes.append(await self.try_pair(getter, sharer))

    async def try_pair(self, getter: Kind, sharer: Kind) -> Outcome:
        """Share a file on one side, get it on the other, and look which path it took."""
        source, target = self.sharers[sharer.name], self.getters[getter.name]
        file = self.town.folder / f"{sharer.letter}-to-{getter.letter}"
        digest = await trio.to_thread.run_sync(partial(write_file, file, FILE_BYTES))
        cid = await share(source, file)
        to = self.town.folder / f"{getter.letter}-from-{sharer.letter}"
        seen: list[str] = []
        began = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, target, source, seen)
            try:
                got = await get(target, cid, to, town=self.town)
            except GetFailed as error:
                print(f"{target.name} gets from {source.name}: {error}", flush=True)
                await self._tell_why(target, source)
                return Outcome(getter, sharer, False, "none", "", 0, time.monotonic() - began)
            finally:
                nursery.cancel_scope.cancel()
        seconds = time.monotonic() - began
        wanted = possible(getter, sharer)
        path = await self._path(target, source)

        async def as_expected() -> bool:
            nonlocal path
            path = await self._path(target, source)
            return path in wanted

        with suppress(NotInTime):  # the outcome says so
            await until("the path of theory", as_expected, SETTLE_SECONDS)
        to.unlink()
        return Outcome(
            getter,
            sharer,
            got.sha256 == digest,
            path,
            seen[0] if seen else path,
            got.complete["wasted_bytes"],
            seconds,
        )

    async def _tell_why(self, *hosts: Host) -> None:
        """Print what the nodes know of how they are reached."""
        for host in hosts:
            print(f"  {host.name}: {(await host.status()).addrs}")
            for rung in await host.ask(lambda client: client.doctor(1)):
                print(f"    {rung.name}: {rung.text}", flush=True)

    async def _path(self, getter: Host, sharer: Host) -> str:
        rows = await getter.connections(sharer.peer_id)
        return word_of(rows[0], getter, sharer) if rows else "none"

    async def _watch(self, getter: Host, sharer: Host, seen: list[str]) -> None:
        while True:
            path = await self._path(getter, sharer)
            if path != "none" and (not seen or seen[-1] != path):
                seen.append(path)
            await trio.sleep(WATCH_SECONDS)


def all_pairs(kinds: Sequence[Kind] = KINDS) -> list[tuple[Kind, Kind]]:
    """Return every ordered pair (getter, sharer), so ordered that rounds are full."""
    count = len(kinds)
    return [(kinds[n], kinds[(n + shift) % count]) for shift in range(count) for n in range(count)]


def table(outcomes: Iterable[Outcome], kinds: Sequence[Kind] = KINDS) -> str:
    """Return the matrix as a Markdown table: a row for each getter, a column for each sharer."""
    found = {(o.getter.name, o.sharer.name): o for o in outcomes}
    head = "| gets \\ shares | " + " | ".join(f"{k.letter} {k.title}" for k in kinds) + " |"
    lines = [head, "|---" * (len(kinds) + 1) + "|"]
    for getter in kinds:
        cells = []
        for sharer in kinds:
            outcome = found.get((getter.name, sharer.name))
            if outcome is None:
                cells.append("")
            elif outcome.agrees:
                cells.append(outcome.path)
            else:
                wrong = "" if outcome.right else ", WRONG BYTES"
                cells.append(f"**{outcome.path}** (not {outcome.expected}{wrong})")
        lines.append(f"| {getter.letter} {getter.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def theory_table(kinds: Sequence[Kind] = KINDS) -> str:
    """Return the same table as theory has it."""
    outcomes = [Outcome(a, b, True, expected(a, b)[0], "", 0, 0.0) for a in kinds for b in kinds]
    return table(outcomes, kinds)


MARKS = ("<!-- matrix -->\n", "<!-- /matrix -->\n")


def write_table(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Replace the matrix that stands in a text."""
    before, _, rest = path.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    path.write_text(before + MARKS[0] + table(outcomes) + MARKS[1] + after)


async def run_all(folder: Path, pairs: Sequence[tuple[Kind, Kind]], lab: Lab) -> Matrix:
    """Run these pairs in a lab."""
    town = Town(lab, folder)
    matrix = Matrix(town)
    try:
        await matrix.start()
        print(f"all nodes are ready after {time.monotonic() - matrix.started:.0f} s", flush=True)
        await matrix.rounds(pairs)
    finally:
        town.close()
    return matrix
