"""The systems that are compared: each moves one file between processes on loopback, once a call."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from processes import Shoal, seed

from peers.measuring import Measured, cpu_seconds, peak_bytes

HERE = Path(__file__).parent
TIMEOUT = 600.0

System = Callable[[Path, Path, int], Measured]
"""Moves a file (second) to `fetched` in a folder (first) from so many seeders."""


def shoal(folder: Path, path: Path, seeders: int) -> Measured:
    """Fetch with shoal: encrypted, verified, synced to disk; timed from the first `progress`."""
    with ExitStack() as stack:
        nodes: list[Shoal] = []
        peers: list[str] = []
        for number in range(seeders):
            node, listening = seed(folder / f"home-{number}", path)
            nodes.append(stack.enter_context(node))
            peers += ["--peer", listening["addrs"][0]]
        cid = [node.wait_for("shared", TIMEOUT) for node in nodes][-1]["cid"]
        senders = [node.process.pid for node in nodes]
        arguments = ["-o", str(folder / "fetched"), "--listen", "/ip4/127.0.0.1/tcp/0", *peers]
        getter = stack.enter_context(Shoal(folder / "home-get", "get", cid, *arguments))
        receiver = [getter.process.pid]
        getter.wait_for("progress", TIMEOUT)
        began, used, sent = time.perf_counter(), cpu_seconds(receiver), cpu_seconds(senders)
        getter.wait_for("complete", TIMEOUT)
        return Measured(
            time.perf_counter() - began,
            cpu_seconds(receiver) - used,
            cpu_seconds(senders) - sent,
            peak_bytes(receiver),
            peak_bytes(senders),
        )


class _Torrent:
    """A libtorrent process."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "libtorrent_peer.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def event(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("libtorrent ended early")
        found: dict[str, Any] = json.loads(line)
        return found

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> _Torrent:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def _libtorrent(folder: Path, path: Path, seeders: int, *options: str) -> Measured:
    from peers.libtorrent_peer import make_torrent

    torrent = path.with_suffix(".torrent")
    if not torrent.exists():
        make_torrent(path, torrent)
    with ExitStack() as stack:
        nodes = []
        for number in range(seeders):
            # An address each: libtorrent counts peers by their address.
            address = f"127.0.0.{number + 2}"
            node = _Torrent("seed", str(path), str(torrent), address, *options)
            nodes.append(stack.enter_context(node))
        places = [node.event() for node in nodes]
        others = [f"{place['address']}:{place['port']}" for place in places]
        target = folder / "torrent"
        target.mkdir()
        getter = stack.enter_context(
            _Torrent("get", str(target), str(torrent), "127.0.0.1", *others, *options)
        )
        getter.event()
        receiver = [getter.process.pid]
        senders = [node.process.pid for node in nodes]
        began, used, sent = time.perf_counter(), cpu_seconds(receiver), cpu_seconds(senders)
        getter.go()
        getter.event()
        measured = Measured(
            time.perf_counter() - began,
            cpu_seconds(receiver) - used,
            cpu_seconds(senders) - sent,
            peak_bytes(receiver),
            peak_bytes(senders),
        )
    (target / path.name).rename(folder / "fetched")
    return measured


def libtorrent_default(folder: Path, path: Path, seeders: int) -> Measured:
    """Fetch with libtorrent as it comes: v1 torrent, plain text, verified by SHA-1."""
    return _libtorrent(folder, path, seeders)


def libtorrent_tuned(folder: Path, path: Path, seeders: int) -> Measured:
    """Fetch with libtorrent set for fast local networks."""
    return _libtorrent(folder, path, seeders, "--tuned")


NGINX = """
daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 64; }}
http {{
  access_log off; sendfile on;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} ssl; root {root};
    ssl_protocols TLSv1.3; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  }}
}}
"""


def nginx_curl(folder: Path, path: Path, seeders: int) -> Measured:
    """Fetch with curl from nginx over TLS 1.3: encrypted, not verified, not synced."""
    del seeders
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = ["-subj", "/CN=localhost"]
    made += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *made],
        check=True,
        capture_output=True,
    )
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, root=path.parent))
    for parent in path.parents:
        if parent.stat().st_mode & 0o005 != 0o005 and str(parent).startswith("/tmp/"):
            parent.chmod(0o755)  # its workers run as another user
    server = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "nginx.log")])
    try:
        _wait_listening(port)
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
        senders = [server.pid, *map(int, children.split())]
        sent = cpu_seconds(senders)
        began = time.perf_counter()
        url = f"https://127.0.0.1:{port}/{path.name}"
        how = ["--silent", "--show-error", "--insecure", "--fail", "--tlsv1.3"]
        client = subprocess.Popen(["curl", *how, url, "--output", str(folder / "fetched")])
        _, status, usage = os.wait4(client.pid, 0)
        seconds = time.perf_counter() - began
        client.returncode = os.waitstatus_to_exitcode(status)
        if client.returncode:
            raise RuntimeError("curl failed")
        used = usage.ru_utime + usage.ru_stime
        peak = peak_bytes(senders)
        return Measured(seconds, used, cpu_seconds(senders) - sent, usage.ru_maxrss * 1024, peak)
    finally:
        server.terminate()
        server.wait()


def _wait_listening(port: int) -> None:
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise RuntimeError("nginx does not listen")


def available() -> dict[str, str]:
    """Return why a system cannot run here, by its name; nothing for those that can."""
    missing = {}
    try:
        import libtorrent  # noqa: F401
    except ImportError:
        missing["libtorrent"] = "the package libtorrent is missing: pip install '.[bench]'"
    for tool in ("nginx", "curl", "openssl"):
        if shutil.which(tool) is None:
            missing["nginx"] = f"{tool} is not installed"
    return missing
