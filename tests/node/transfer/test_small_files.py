"""Folders of many small files: served and written many at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from shoal.node.errors import ShoalError
from shoal.swarm import greeting
from shoal.wire.ids import Cid
from shoal.wire.swarm import PIECE_RUN, Bitfield, BitfieldKind, Hello, Piece, PieceRun, Request

MakePuppet = Callable[[str], Awaitable[Any]]
Start = Callable[..., Awaitable[Any]]
FOLDERS, FILES = 20, 25


def put_files(machine: Any) -> dict[str, bytes]:
    files = {
        f"part {part}/{number:03}": b"%d of %d " % (number, part) * (number + 1)
        for part in range(FOLDERS)
        for number in range(FILES)
    }
    files["part 0/large"] = bytes(range(256)) * 5000
    files["part 1/empty"] = b""
    for name, data in files.items():
        machine.write(f"album/{name}", data)
    return files


def files_of(tree: dict[str, Any]) -> dict[str, bytes]:
    return {name: data for name, data in tree.items() if isinstance(data, bytes)}


@pytest.mark.parametrize("cores", [1, 8])
async def test_many_small_files_come_out_as_they_went_in(
    autojump_clock: object, start: Start, cores: int
) -> None:
    alice, bob = await start("alice"), await start("bob")
    bob.node.transfers.cores = cores
    files = put_files(alice)
    cid = await alice.share("album")
    complete = await bob.get(cid, alice)
    assert files_of(bob.tree("got")) == files
    assert complete.wasted_bytes == 0
    assert sum(source.pieces for source in complete.sources) <= len(files) + 1
    bob.assert_nothing_reserved()


async def test_a_small_file_that_was_changed_is_withdrawn_and_the_others_come(
    autojump_clock: object, start: Start
) -> None:
    alice, carol, bob = await start("alice"), await start("carol"), await start("bob")
    files = put_files(alice)
    put_files(carol)
    cid = await alice.share("album")
    assert await carol.share("album") == cid
    alice.write("album/part 3/007", b"something else")

    with pytest.raises(ShoalError):
        await bob.get(cid, alice, patience=60)
    held = alice.node.store.bits(alice.node.store.copies()[0].id)
    assert held.count(0) == 1
    await bob.get(cid, alice, carol)

    assert files_of(bob.tree("got")) == files


async def test_peers_that_do_not_know_of_runs_are_sent_piece_by_piece(
    autojump_clock: object, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(greeting, "FEATURES", ())
    alice, bob = await start("alice"), await start("bob")
    files = put_files(alice)
    complete = await bob.get(await alice.share("album"), alice)
    assert files_of(bob.tree("got")) == files
    assert complete.wasted_bytes == 0


@pytest.mark.parametrize("features", [(), (PIECE_RUN,)])
async def test_a_run_of_small_files_is_sent_in_frames_that_the_peer_knows(
    autojump_clock: object, start: Start, puppet: MakePuppet, features: tuple[str, ...]
) -> None:
    alice, bob = await start("alice"), await puppet("bob")
    data = [bytes([number]) * (number + 1) for number in range(100)]
    for number, one in enumerate(data):
        alice.write(f"album/{number:03}", one)
    root = Cid.parse(await alice.share("album"))
    wire = await bob.open(alice)
    hello = wire.greeting(root)
    await wire.send(Hello(hello.key, hello.proof, features))
    assert PIECE_RUN in (await wire.receive())[0].features

    await wire.send(Request(7, 10, 50), Request(9, 0, 3))

    came: dict[int, bytes] = {}
    frames = 0
    with trio.fail_after(60):
        while len(came) < 53:
            body, block = await wire.receive()
            lengths: tuple[int, ...]
            match body:
                case Piece():
                    lengths, first = (body.length,), body.index
                case PieceRun():
                    lengths, first = body.lengths, body.first
                case _:
                    continue
            frames += 1
            assert body.id == (9 if first < 10 else 7)
            for piece, length in enumerate(lengths, first):
                came[piece], block = block[:length], block[length:]
    assert [*came] == [*range(10, 60), 0, 1, 2]
    assert all(came[piece] == data[piece] for piece in came)
    assert frames == (2 if features else 53)


async def test_of_a_run_with_a_wrong_piece_the_others_are_kept_and_the_sender_is_banned(
    autojump_clock: object, start: Start
) -> None:
    liar, honest, bob = await start("liar"), await start("honest"), await start("bob")
    files = put_files(liar)
    put_files(honest)
    cid = await liar.share("album")
    assert await honest.share("album") == cid
    liar.rot("album/part 3/007", 4)

    with pytest.raises(ShoalError):
        await bob.get(cid, liar, patience=60)
    complete = await bob.get(cid, honest)

    assert files_of(bob.tree("got")) == files
    assert complete.banned == (str(liar.node.peer_id),)
    assert complete.bytes - complete.sources[0].bytes > 0  # what was right stayed
    assert bob.node.host.faults["swarm-piece-hash"] == 1
    bob.assert_nothing_reserved()


Lie = Callable[[Request], PieceRun]


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda ask: PieceRun(ask.id, ask.first, (1,) * (ask.count + 1)), "swarm-unasked"),
        (lambda ask: PieceRun(ask.id + 1, ask.first, (1,) * ask.count), "swarm-unasked"),
        (lambda ask: PieceRun(ask.id, ask.first, (1,) * ask.count), "swarm-piece-length"),
    ],
)
async def test_a_run_that_was_not_asked_for_so_ends_the_stream(
    autojump_clock: object, start: Start, puppet: MakePuppet, lie: Lie, reason: str
) -> None:
    alice, eve, bob = await start("alice"), await puppet("eve"), await start("bob")
    for number in range(60):
        alice.write(f"album/{number:03}", b"%03d" % number)
    root = Cid.parse(await alice.share("album"))

    async def behave(wire: Any) -> None:
        await wire.send(Bitfield(BitfieldKind.ALL))
        while True:
            run = lie(await wire.next_request())
            await wire.send(run, data=bytes(sum(run.lengths)))

    eve.behave(root, behave)
    await bob.get(str(root), eve, alice, patience=600)

    assert len(files_of(bob.tree("got"))) == 60
    assert bob.node.host.faults[reason] >= 1
    bob.assert_nothing_reserved()
