"""The home folder: one process, one key, a place for the socket."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shoal.simulations.disk import MemoryDisk
from shoal.storage.disk import RealDisk
from shoal.storage.errors import Damaged, HomeBusy, StorageError
from shoal.storage.home import Home, default_home


def never() -> bytes:
    raise AssertionError("there is a key already")


def test_a_home_is_private(tmp_path: Path) -> None:
    with Home.open(tmp_path / "new" / "home", RealDisk()) as home:
        home.identity(lambda: b"s" * 32)
        assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((home.path / "identity.key").stat().st_mode) == 0o600


def test_a_home_that_was_open_to_all_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Home.open(tmp_path, RealDisk()).close()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_the_key_is_made_once(tmp_path: Path) -> None:
    with Home.open(tmp_path, RealDisk()) as home:
        assert home.identity(lambda: b"first") == b"first"
        assert home.identity(never) == b"first"
    with Home.open(tmp_path, RealDisk()) as home:
        assert home.identity(never) == b"first"


@pytest.mark.parametrize("data", [b"", b"x" * 2000])
def test_a_damaged_key_is_not_replaced(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "identity.key").write_bytes(data)
    with Home.open(tmp_path, RealDisk()) as home, pytest.raises(Damaged, match=r"identity\.key"):
        home.identity(never)
    assert (tmp_path / "identity.key").read_bytes() == data


def test_a_half_written_key_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "identity.key.new").write_bytes(b"ha")
    with Home.open(tmp_path, RealDisk()) as home:
        assert home.identity(lambda: b"whole") == b"whole"
    assert sorted(os.listdir(tmp_path)) == ["identity.key", "lock"]


def test_a_key_survives_a_power_cut_or_was_never_told() -> None:
    disk = MemoryDisk()
    with Home.open(Path("/home"), disk) as home:
        home.identity(lambda: b"key")
    disk.crash()
    with Home.open(Path("/home"), disk) as home:
        assert home.identity(never) == b"key"


def test_a_link_for_a_key_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (tmp_path / "identity.key").symlink_to(tmp_path / "elsewhere")
    with Home.open(tmp_path, RealDisk()) as home, pytest.raises(StorageError):
        home.identity(never)


HOLD = """
import sys
from pathlib import Path
from shoal.storage.disk import RealDisk
from shoal.storage.home import Home
home = Home.open(Path(sys.argv[1]), RealDisk())
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(HomeBusy, match="--home"):
            Home.open(tmp_path, RealDisk())
        process.kill()  # the lock goes with its process, however that ends
    Home.open(tmp_path, RealDisk()).close()


def test_a_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="home folder"):
        Home.open(tmp_path / "file", RealDisk())


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_the_socket_lies_in_the_home(tmp_path: Path) -> None:
    with Home.open(tmp_path, RealDisk()) as home:
        path = home.control_socket()
        assert path == tmp_path / "control.sock"
        bind(path)
        assert home.control_socket() == path  # the stale one is gone
        bind(path)


def test_a_long_home_has_its_socket_elsewhere(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200)
    with Home.open(long, RealDisk()) as home:
        path = home.control_socket()
        assert len(os.fsencode(path)) <= 100
        assert (long / "control.path").read_text().strip() == str(path)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        bind(path)
        stale = path
        path = home.control_socket()
        assert not stale.exists()
        bind(path)
    assert not path.parent.exists()
    assert not (long / "control.path").exists()


def test_a_forged_pointer_deletes_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "data").write_bytes(b"keep")
    home_path = tmp_path / ("x" * 120)
    home_path.mkdir()
    (home_path / "control.path").write_text(str(victim / "control.sock"))
    with Home.open(home_path, RealDisk()) as home:
        home.control_socket()
    assert (victim / "data").read_bytes() == b"keep"


def test_which_home_is_the_default() -> None:
    assert default_home({"SHOAL_HOME": "/somewhere"}) == Path("/somewhere")
    assert default_home({}).name == "shoal"
