"""multistream-select: what is sent, and that no split, truncation or garbage does harm."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.wire.errors import Misuse, PeerFault
from shoal.wire.multistream import MAX_LINE_BYTES, MAX_PROPOSALS, Initiator, Responder, message

HEADER = b"\x13/multistream/1.0.0\n"
NAMES = ["/noise", "/yamux/1.0.0", "/ipfs/id/1.0.0"]


def split(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def test_bytes_on_the_wire() -> None:
    assert message("na") == b"\x03na\n"
    assert Initiator(["/noise"]).start() == HEADER + b"\x07/noise\n"
    responder = Responder(lambda name: name == "/noise")
    assert responder.start() == HEADER
    assert responder.receive(HEADER + b"\x04/no\n\x07/noise\nrest") == b"\x03na\n\x07/noise\n"
    assert responder.agreed == "/noise"
    assert responder.remainder == b"rest"


def test_second_choice() -> None:
    initiator = Initiator(["/a", "/b"])
    assert initiator.receive(HEADER) == b""
    assert initiator.receive(message("na")) == message("/b")
    assert initiator.receive(message("/b") + b"more") == b""
    assert (initiator.agreed, initiator.remainder) == ("/b", b"more")


def test_all_refused() -> None:
    initiator = Initiator(["/a"])
    initiator.receive(HEADER + message("na"))
    assert initiator.refused
    assert initiator.agreed is None


def test_list() -> None:
    responder = Responder(lambda name: name in NAMES, lambda: NAMES)
    inner = b"".join(message(name) for name in NAMES)
    answer = responder.receive(HEADER + message("ls"))
    assert answer == bytes([len(inner) + 1]) + inner + b"\n"
    assert responder.receive(message("/noise")) == message("/noise")


@given(
    proposed=st.lists(st.sampled_from([*NAMES, "/other", "/x"]), min_size=1, unique=True),
    served=st.sets(st.sampled_from(NAMES)),
    cuts=st.lists(st.integers(0, 200), max_size=8),
    behind=st.binary(max_size=40),
)
def test_two_sides_agree_under_every_split(
    proposed: list[str], served: set[str], cuts: list[int], behind: bytes
) -> None:
    initiator, responder = Initiator(proposed), Responder(served.__contains__)
    to_responder, to_initiator = initiator.start(), responder.start()
    while initiator.agreed is None and not initiator.refused:
        for part in split(to_responder, cuts):
            to_initiator += responder.receive(part)
        if responder.agreed is not None:
            to_initiator += behind
        to_responder = b""
        for part in split(to_initiator, cuts):
            to_responder += initiator.receive(part)
        to_initiator = b""
    wanted = next((name for name in proposed if name in served), None)
    assert initiator.agreed == responder.agreed == wanted
    assert initiator.refused == (wanted is None)
    assert initiator.remainder == (b"" if wanted is None else behind)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_garbage_is_the_peers_fault(data: bytes, cuts: list[int]) -> None:
    for machine in (Initiator(["/a", "/b"]), Responder(lambda name: True)):
        try:
            for part in split(data, cuts):
                machine.receive(part)
        except PeerFault:
            continue
        # Undecided without a fault: what is kept is bounded by one line.
        assert machine.agreed is not None or len(machine.remainder) <= MAX_LINE_BYTES + 9


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x81\x08" + b"a" * 1025,
        b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\xff" * 10,
        b"\x03abc",
        b"\x03\xff\xff\n",
        message("/http/1.1"),
        HEADER + message("/neither") * 2,
    ],
)
def test_an_initiator_refuses(data: bytes) -> None:
    with pytest.raises(PeerFault):
        Initiator(["/a"]).receive(data)


def test_proposals_are_bounded() -> None:
    responder = Responder(lambda name: False)
    responder.receive(HEADER + message("/x") * MAX_PROPOSALS)
    with pytest.raises(PeerFault, match="proposals"):
        responder.receive(message("/x"))


def test_nothing_to_propose_is_our_mistake() -> None:
    with pytest.raises(Misuse):
        Initiator([])
