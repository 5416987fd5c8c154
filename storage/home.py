"""The home folder of a node: its lock, its secret key, and where its control socket goes."""

from __future__ import annotations

import os
import shutil
import stat as modes
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from .errors import Damaged, HomeBusy, StorageError, disk_errors
from .filesystem import Disk, DiskFile, Folder

LOCK_NAME: Final = "lock"
KEY_NAME: Final = "identity.key"
SOCKET_NAME: Final = "control.sock"
POINTER_NAME: Final = "control.path"
"""Where the socket is when the home's own path is too long for one."""

MAX_SOCKET_PATH: Final = 100
"""Bytes; Linux allows 107, macOS 103."""

MAX_KEY_BYTES: Final = 1024
"""A key file is a few dozen bytes."""

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


def default_home(environ: Mapping[str, str]) -> Path:
    """Return the home folder to use when none is named: `SHOAL_HOME`, else the platform's."""
    if environ.get("SHOAL_HOME"):
        return Path(environ["SHOAL_HOME"])
    from platformdirs import user_data_path

    return user_data_path("shoal", appauthor=False)


class Home:
    """A home folder that this process, and no other, uses until `close`."""

    def __init__(self, path: Path, folder: Folder, lock: DiskFile) -> None:
        """Use `Home.open`."""
        self.path = path
        self._folder = folder
        self._lock = lock
        self._short_folder: Path | None = None

    @classmethod
    def open(cls, path: Path, disk: Disk) -> Home:
        """Create the folder (0700) if it is missing, and take its lock.

        Raises:
            HomeBusy: Another process has it.
            StorageError: It cannot be created or written.
        """
        with disk_errors(f"opening the home folder {path}"):
            folder = disk.folder(path, create_mode=_FOLDER_MODE)
            folder.make_private()  # whoever reads the database learns hashes, and so may fetch
            try:
                lock = folder.create(LOCK_NAME, _FILE_MODE)
            except FileExistsError:
                lock = folder.open(LOCK_NAME, writable=True)
            if not lock.lock():
                lock.close()
                raise HomeBusy(
                    f"another shoal uses the home folder {path}: stop it, or choose another "
                    "home with --home"
                )
        return cls(path, folder, lock)

    def identity(self, make: Callable[[], bytes]) -> bytes:
        """Return the secret key's bytes; the first time, those that `make` returns are kept.

        Raises:
            Damaged: The key file is empty or no key.
            StorageError: It cannot be read or written.
        """
        with disk_errors(f"reading {self.path / KEY_NAME}"):
            try:
                file = self._folder.open(KEY_NAME)
            except FileNotFoundError:
                return self._new_identity(make())
            data = bytearray(MAX_KEY_BYTES + 1)
            del data[file.preadv([data], 0) :]
        if not 0 < len(data) <= MAX_KEY_BYTES:
            raise self.damaged_key(f"it has {len(data) or 'no'} bytes")
        return bytes(data)

    def damaged_key(self, why: str) -> Damaged:
        """Return what to tell the owner of a key file that holds no key."""
        return Damaged(
            f"{self.path / KEY_NAME} is no key ({why}): restore it from a backup, or remove it to "
            "get a new peer id"
        )

    def _new_identity(self, secret: bytes) -> bytes:
        """Write the key under another name first, so that half a key is never found."""
        temporary = f"{KEY_NAME}.new"
        if temporary in self._folder.names():
            self._folder.remove(temporary)
        file = self._folder.create(temporary, _FILE_MODE)
        file.pwrite(secret, 0)
        file.fdatasync()
        self._folder.rename(temporary, self._folder, KEY_NAME)
        self._folder.sync()
        return secret

    def control_socket(self) -> Path:
        """Return where to bind the control socket; what lay there is stale and has been removed.

        If the home's path is too long for a socket, it is in a private folder of its own, and
        `control.path` in the home tells where.
        """
        with disk_errors("making a place for the control socket"):
            _remove_pointer(self.path)
            path = self.path / SOCKET_NAME
            if len(os.fsencode(path.absolute())) <= MAX_SOCKET_PATH:
                path.unlink(missing_ok=True)
                return path
            self._short_folder = Path(tempfile.mkdtemp(prefix="shoal-"))  # mode 0700
            short = self._short_folder / SOCKET_NAME
            if len(os.fsencode(short)) > MAX_SOCKET_PATH:
                raise StorageError(f"{short} is too long for a socket: set TMPDIR to a short path")
            pointer = self.path / POINTER_NAME
            with open(pointer, "x", opener=_private) as file:
                file.write(f"{short}\n")
            return short

    def close(self) -> None:
        """Remove the control socket and give the home free; a second call does nothing."""
        if self._short_folder is not None:
            _remove_pointer(self.path)
            self._short_folder = None
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, _FILE_MODE)


def _remove_pointer(home: Path) -> None:
    """Remove `control.path` and the short folder that it names, if that is ours."""
    pointer = home / POINTER_NAME
    try:
        short = Path(pointer.read_text().strip()).parent
    except (FileNotFoundError, UnicodeDecodeError):
        return
    try:
        found = short.lstat()
    except OSError:
        found = None
    if (
        found is not None
        and modes.S_ISDIR(found.st_mode)
        and found.st_uid == os.getuid()
        and short.name.startswith("shoal-")
    ):
        shutil.rmtree(short, ignore_errors=True)
    pointer.unlink(missing_ok=True)
