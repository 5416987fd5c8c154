"""The hash is the capability: whoever does not know it learns nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from shoal.swarm.greeting import FEATURES
from shoal.wire.ids import Cid
from shoal.wire.swarm import Hello, Reject, RejectReason, content_key, encode, hash_proof

Start = Callable[..., Awaitable[Any]]
MakePuppet = Callable[[str], Awaitable[Any]]
REFUSAL = encode(Reject(0, RejectReason.UNKNOWN_CONTENT))


@pytest.mark.parametrize("forgery", ["zeros", "bent", "other role", "other key", "other handshake"])
async def test_a_wrong_proof_is_answered_as_an_unknown_content_is(
    autojump_clock: object, start: Start, puppet: MakePuppet, forgery: str
) -> None:
    alice, eve, friend = await start("alice"), await puppet("eve"), await puppet("friend")
    alice.write("secret", b"the plans")
    root = Cid.parse(await alice.share("secret"))
    wire = await eve.open(alice)
    right = wire.greeting(root)
    other = (await friend.open(alice)).greeting(root)
    sent = {
        "zeros": replace(right, proof=bytes(32)),
        "bent": replace(right, proof=bytes([right.proof[0] ^ 1]) + right.proof[1:]),
        "other role": replace(right, proof=alice_proof(wire, root)),
        "other key": replace(right, key=bytes(32)),
        "other handshake": other,
    }[forgery]

    await wire.send(sent)

    assert await wire.everything() == REFUSAL
    assert wire.stream.is_reset or wire.stream._inner.remote_ended  # and no stream is left behind


def alice_proof(wire: Any, root: Cid) -> bytes:
    connection = wire.stream.connection
    return hash_proof(root, connection.handshake_hash, not connection.is_initiator)


async def test_the_right_proof_is_answered_with_one(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    alice, bob = await start("alice"), await puppet("bob")
    alice.write("secret", b"the plans")
    root = Cid.parse(await alice.share("secret"))
    wire = await bob.open(alice)

    await wire.send(wire.greeting(root))
    answer, _ = await wire.receive()

    assert answer == Hello(content_key(root), alice_proof(wire, root), FEATURES, 1)


async def test_a_fetch_says_nothing_to_who_cannot_prove(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    """Who is asked learns the key and a proof that is worth nothing elsewhere; then silence."""
    alice, bob, eve = await start("alice"), await start("bob"), await puppet("eve")
    alice.write("secret", b"the plans")
    cid = await alice.share("secret")
    heard: list[bytes] = []

    async def echo(stream: Any) -> None:
        # What was sent is sent back: the proof of the other role is another one.
        hello = await stream.receive_some()
        await stream.send_all(hello)
        while data := await stream.receive_some():
            heard.append(data)

    async def hear(stream: Any) -> None:
        try:
            await echo(stream)
        except trio.BrokenResourceError:
            heard.append(b"reset")

    eve.host.handle("/shoal/swarm/1.0.0", hear)

    await bob.get(cid, eve, alice)
    await trio.sleep(60)

    assert set(heard) == {b"reset"}
    assert bob.node.host.faults["swarm-proof"] >= 1


async def test_who_says_nothing_is_let_go(
    autojump_clock: object, start: Start, puppet: MakePuppet
) -> None:
    alice, eve = await start("alice"), await puppet("eve")
    wire = await eve.open(alice)
    begun = trio.current_time()

    assert await wire.everything() == b""

    assert trio.current_time() - begun < 15
    assert wire.stream.is_reset
