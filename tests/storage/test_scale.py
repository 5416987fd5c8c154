"""What is large in one way: an index of 50 TiB, many small files, many copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synthetic import fill_index

from shoal.storage.model import PIECES_PER_BLOCK
from shoal.storage.reader import PLACES_AT_ONCE, CopyReader

TEBIBYTES = 50

OPEN = """
import sys, time
from pathlib import Path
from shoal.storage.disk import RealDisk
from shoal.storage.store import Store
from shoal.storage.writer import CopyWriter

store = Store.open(Path(sys.argv[1]), RealDisk(), time.time())
(copy,) = store.copies()
content = store.content(copy.cid)
assert content.pieces == 50 << 20, content
writer = CopyWriter(store, copy.id)
writer.prepare()
assert not store.bits(copy.id).any()
last = store.piece_table(copy.cid, (content.pieces - 1) // 1024)
assert last.first + last.count == content.pieces
assert store.local_sources(copy.id, 0) == []
store.set_bits(copy.id, [content.pieces - 1])
assert sum(store.bit_counts(copy.id)) == 1
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads its memory from /proc")
def test_an_index_of_fifty_tebibytes_is_opened_within_100_mib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    fill_index(home, tmp_path / "data", TEBIBYTES, fetch_to=tmp_path / "target")
    # 50 TiB are free on no disk of ours: only the question is answered otherwise.
    opened = OPEN.replace("writer.prepare()", "writer.check_room = lambda: None; writer.prepare()")
    done = subprocess.run(
        [sys.executable, "-c", opened, str(home)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < 100 << 20


def many(count: int) -> dict[str, bytes]:
    return {f"{number:05}": b"file %d" % number for number in range(count)}


def shared(lab: Any, make_content: Any, count: int) -> tuple[Any, CopyReader]:
    tree = many(count)
    content = make_content(tree)
    lab.put(Path("/data/many"), tree)
    return content, CopyReader(lab.store, lab.share(content, Path("/data/many")))


def wanted(content: Any, pieces: range) -> list[tuple[int, int, int]]:
    return [(*content.place(piece), len(content.pieces[piece])) for piece in pieces]


def test_small_files_are_read_many_at_a_time(lab: Any, make_content: Any) -> None:
    count = 2 * PLACES_AT_ONCE + 10
    content, reader = shared(lab, make_content, count)
    assert reader.read_small(wanted(content, range(count))) == content.pieces
    backwards = wanted(content, range(count))[::-1]
    assert reader.read_small(backwards) == content.pieces[::-1]


def test_reading_ends_at_a_file_that_is_not_what_was_hashed(lab: Any, make_content: Any) -> None:
    content, reader = shared(lab, make_content, 9)
    folder = lab.disk.folder(Path("/data/many"))
    folder.open("00003", writable=True).pwrite(b"FILE", 0)
    folder.remove("00006")
    assert reader.read_small(wanted(content, range(9))) == content.pieces[:3]
    assert reader.read_small(wanted(content, range(4, 9))) == content.pieces[4:6]
    assert reader.read_small(wanted(content, range(6, 9))) == []
    folder.open("00007", writable=True).truncate(2)
    assert reader.read_small(wanted(content, range(7, 9))) == []


def test_tables_of_many_small_files(lab: Any, make_content: Any) -> None:
    content = make_content(many(PIECES_PER_BLOCK + 5) | {"99999": bytes((1 << 20) + 1)})
    lab.learn(content)
    second = lab.store.piece_table(content.cid, 1)
    assert (second.first, second.count) == (PIECES_PER_BLOCK, 7)
    for piece in range(second.first, second.first + second.count):
        at = piece - second.first
        assert (second.files[at], second.offsets[at]) == content.place(piece)
        assert second.lengths[at] == len(content.pieces[piece])


def test_copies_are_looked_after_together(lab: Any, make_content: Any) -> None:
    copies = []
    for number in range(5):
        content = make_content(b"content %d" % number)
        path = Path(f"/data/{number}")
        lab.put(path, b"content %d" % number)
        copies.append(lab.share(content, path))
    folder = lab.disk.folder(Path("/data"))
    folder.open("1", writable=True).pwrite(b"CONTENT", 0)
    lab.store.remove_copy(copies[2])
    done, sentences = lab.store.check_copies(copies)
    assert done == 5
    assert len(sentences) == 1
    assert "/data/1 was changed" in sentences[0]


def test_one_call_looks_at_a_bounded_number_of_files(
    lab: Any, make_content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, reader = shared(lab, make_content, 30)
    copy = lab.store.copies()[0].id
    monkeypatch.setattr("shoal.storage.store.CHECK_FILES", 20)
    assert lab.store.check_copies([copy, copy, copy]) == (1, [])
    assert reader.read_small([]) == []
