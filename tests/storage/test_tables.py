"""The hash cache, the DHT's memory, bans and totals: typed, bounded, kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoal.storage import peer_tables
from shoal.storage.filesystem import FileKind, FileStat
from shoal.storage.model import (
    Announce,
    AnnouncementRow,
    ProviderRow,
    RememberedPeer,
)
from shoal.wire.ids import BLAKE3, RAW, Cid
from shoal.wire.swarm import content_key

ONE, TWO = Cid.of(RAW, b"1"), Cid.of(RAW, b"2")
STAT = FileStat(FileKind.FILE, 9, (1 << 64) - 2, 5, 123, 456)


def test_a_hash_is_found_while_the_file_is_the_same(lab: Any) -> None:
    hashes = lab.store.hashes
    hashes.add([(STAT, ONE)], 1.0)
    assert lab.reopen().hashes.find([STAT]) == [ONE]
    for change in (
        {"device": 8},
        {"inode": 7},
        {"size": 6},
        {"mtime_ns": 124},
        {"ctime_ns": 457},
    ):
        values: dict[str, Any] = {name: getattr(STAT, name) for name in FileStat.__match_args__}
        assert lab.store.hashes.find([FileStat(**values | change), STAT]) == [None, ONE]
    assert lab.store.hashes.find([STAT], BLAKE3) == [None]
    lab.store.hashes.add([(STAT, TWO)], 2.0)
    assert lab.store.hashes.find([STAT]) == [TWO]


def test_the_longest_unused_hashes_go(lab: Any) -> None:
    stats = [FileStat(FileKind.FILE, 1, inode, 1, 1, 1) for inode in range(20)]
    for number, stat in enumerate(stats):
        lab.store.hashes.add([(stat, ONE)], float(number))
    lab.store.hashes.trim(5)
    assert lab.store.hashes.find(stats) == [None] * 15 + [ONE] * 5


def test_sharing_what_was_fetched_reads_nothing(lab: Any, make_content: Any) -> None:
    tree = {"a": b"1" * ((1 << 20) + 1), "b": b"2"}
    content = make_content(tree)
    lab.fetch(content, Path("/d/out"))
    stats = [lab.disk.stat(Path("/d/out") / name) for name in tree]
    assert lab.store.hashes.find(stats) == [entry.cid for entry in content.entries[1:]]
    alone = make_content(tree["a"])
    lab.fetch(alone, Path("/d/alone"))
    assert lab.store.hashes.find([lab.disk.stat(Path("/d/alone"))]) == [alone.cid]


def test_routing_peers(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = [RememberedPeer(b"a", (b"x", b"yy" * 100), 1.0), RememberedPeer(b"b", (), 2.0)]
    lab.store.dht.save_peers("/shoal/kad", peers)
    lab.store.dht.save_peers("/other/kad", peers[:1])
    assert lab.reopen().dht.peers("/shoal/kad") == peers[::-1]
    lab.store.dht.save_peers("/shoal/kad", [])
    assert lab.store.dht.peers("/shoal/kad") == []
    assert lab.store.dht.peers("/other/kad") == peers[:1]
    monkeypatch.setattr(peer_tables, "MAX_ROUTING_PEERS", 1)
    lab.store.dht.save_peers("/shoal/kad", peers)
    assert lab.store.dht.peers("/shoal/kad") == [peers[1]]


def test_provider_records(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        ProviderRow(b"key", b"peer", (b"addr",), b"\x01\x02", 1.0, 3.0),
        ProviderRow(b"key", b"qeer", (), None, 1.0, 2.0),
    ]
    lab.store.dht.save_providers(rows)
    assert sorted(lab.reopen().dht.providers(), key=lambda row: row.peer) == rows
    monkeypatch.setattr(peer_tables, "MAX_PROVIDERS", 1)
    lab.store.dht.save_providers(rows)
    assert lab.store.dht.providers() == rows[:1]


def test_the_announcement_schedule(lab: Any) -> None:
    rows = [AnnouncementRow(b"b", 1.0, None), AnnouncementRow(b"a", 2.0, 17)]
    lab.store.dht.save_announcements(rows)
    assert lab.reopen().dht.announcements() == rows
    lab.store.dht.save_announcement(b"b", 3.0, 5)
    assert lab.store.dht.announcements() == [rows[1], AnnouncementRow(b"b", 3.0, 5)]
    lab.store.dht.drop_announcement(b"a")
    assert [row.multihash for row in lab.store.dht.announcements()] == [b"b"]


def test_bans_hold_for_their_time_and_over_restarts(lab: Any) -> None:
    lab.store.peers.ban(b"liar", ONE, 100.0, "bad hash")
    peers = lab.reopen().peers
    assert peers.banned(b"liar", ONE, 99.0)
    assert not peers.banned(b"liar", ONE, 100.0)
    assert not peers.banned(b"liar", TWO, 1.0)
    assert not peers.banned(b"other", ONE, 1.0)
    assert [ban.reason for ban in peers.bans(50.0)] == ["bad hash"]
    assert peers.bans(50.0, TWO) == []
    assert peers.bans(100.0) == []


def test_bans_are_bounded(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_tables, "MAX_BANS", 3)
    for number in range(6):
        lab.store.peers.ban(b"%d" % number, ONE, float(number + 1), "")
    assert [ban.peer for ban in lab.store.peers.bans(0.0)] == [b"5", b"4", b"3"]


def test_totals_add_up(lab: Any) -> None:
    lab.store.peers.add_totals([(b"a", 1, 2), (b"b", 5, 0)], 1.0)
    lab.store.peers.add_totals([(b"a", 10, 20)], 2.0)
    totals = lab.reopen().peers.totals()
    assert [(t.peer, t.sent, t.received, t.seen) for t in totals] == [
        (b"a", 11, 22, 2.0),
        (b"b", 5, 0, 1.0),
    ]


def test_contents(lab: Any) -> None:
    store = lab.store
    content = store.ensure_content(ONE, "film.mp4")
    assert (content.size, content.pieces, content.index_complete) == (None, None, False)
    assert store.ensure_content(ONE, "other name").name == "film.mp4"
    assert store.content_by_key(content_key(ONE)) == content
    assert store.content_by_key(bytes(32)) is None
    assert store.content(TWO) is None
    store.ensure_content(TWO)
    assert store.ensure_content(TWO, "late").name == "late"
    assert [c.cid for c in store.contents()] == [ONE, TWO]
    assert content.announce is Announce.BLINDED
    store.set_announce(ONE, Announce.PUBLIC)
    assert lab.reopen().content(ONE).announce is Announce.PUBLIC
    with pytest.raises(KeyError):
        lab.store.entries(Cid.of(RAW, b"unknown"))
