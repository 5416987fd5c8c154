"""A real router: miniupnpd between two network namespaces (root alone can make them).

lan 192.168.77.2 -- 192.168.77.1 router 45.67.89.1 -- 45.67.89.2 wan
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("miniupnpd", "nft", "ip", "ss")
MISSING = [name for name in NEEDED if shutil.which(name) is None]

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0 or bool(MISSING),
        reason=f"a real router needs Linux, root and {', '.join(NEEDED)} (missing: {MISSING})",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
PORT = 4071
DEADLINE = 90.0
"""Seconds; a busy machine loses some of the multicast for UPnP, sent again after 30 s."""

NODE = """
import json, sys, trio
from shoal.node.environment import real_environment
from shoal.node.nat.portmap.mapper import PortMapper
from shoal.node.nat.portmap.system import SystemRouter

class Deaf:
    # Loses all PCP datagrams on request.
    def __init__(self, socket):
        self.socket, self.receive, self.close = socket, socket.receive, socket.close
    async def send(self, data):
        if data[0] != 2:
            await self.socket.send(data)

class Router(SystemRouter):
    async def open(self, route):
        socket = await super().open(route)
        return Deaf(socket) if sys.argv[1] == "NAT-PMP" else socket

def told(state):
    print(json.dumps({
        "via": state.via, "gateway": state.gateway, "addrs": [str(a) for a in state.external_addrs],
        "private": state.external_is_private, "expires": state.expires,
        "verdicts": [[v.protocol, v.works, v.sentence] for v in state.verdicts],
    }), flush=True)

async def greet(stream):
    await stream.send_all(b"hello from inside")
    await stream.aclose()

async def main():
    port = int(sys.argv[2])
    async with trio.open_nursery() as nursery:
        await nursery.start(trio.serve_tcp, greet, port)
        mapper = PortMapper(real_environment(), Router(), [port], on_change=told)
        await nursery.start(mapper.run)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        started = trio.current_time()
        nursery.cancel_scope.cancel()
    print(json.dumps({"left": trio.current_time() - started}), flush=True)

trio.run(main)
"""

CALL = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    print(s.makefile().read())
"""


def run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=DEADLINE)
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout


class Lab:
    """Three machines in a row, and the daemon on the middle one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.lan, self.router, self.wan = (
            f"portmap-{os.getpid()}-{name}" for name in ("lan", "router", "wan")
        )
        for space in (self.lan, self.router, self.wan):
            run("ip", "netns", "add", space)
            stack.callback(run, "ip", "netns", "del", space, check=False)
            run("ip", "-n", space, "link", "set", "lo", "up")
        self._wire(self.lan, "192.168.77.2/24", self.router, "inside", "192.168.77.1/24")
        self._wire(self.wan, "45.67.89.2/24", self.router, "outside", "45.67.89.1/24")
        run("ip", "-n", self.lan, "route", "add", "default", "via", "192.168.77.1")
        self.at(self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        rules = """
            table inet filter {
              chain forward { type filter hook forward priority 0; policy drop;
                ct state established,related accept
                iifname "inside" accept
                jump miniupnpd
              }
              chain miniupnpd { }
              chain prerouting { type nat hook prerouting priority -100;
                jump prerouting_miniupnpd
              }
              chain postrouting { type nat hook postrouting priority 100;
                jump postrouting_miniupnpd
                oifname "outside" masquerade
              }
              chain prerouting_miniupnpd { }
              chain postrouting_miniupnpd { }
            }"""
        (folder / "rules").write_text(rules)
        self.at(self.router, "nft", "-f", str(folder / "rules"))

    def _wire(self, space: str, ip: str, router: str, name: str, router_ip: str) -> None:
        ends = ("type", "veth", "peer", "name", name, "netns", router)
        run("ip", "-n", space, "link", "add", "eth0", *ends)
        run("ip", "-n", space, "addr", "add", ip, "dev", "eth0")
        run("ip", "-n", router, "addr", "add", router_ip, "dev", name)
        run("ip", "-n", space, "link", "set", "eth0", "up")
        run("ip", "-n", router, "link", "set", name, "up")

    def at(self, space: str, *words: str, check: bool = True) -> str:
        return run("ip", "netns", "exec", space, *words, check=check)

    def daemon(self, *, port_5351: bool, upnp: bool) -> subprocess.Popen[bytes]:
        yes = {True: "yes", False: "no"}
        (self.folder / "conf").write_text(
            "ext_ifname=outside\nlistening_ip=inside\nhttp_port=5000\nsecure_mode=yes\n"
            f"enable_natpmp={yes[port_5351]}\nenable_upnp={yes[upnp]}\nipv6_disable=yes\n"
            "upnp_table_name=filter\nupnp_nat_table_name=filter\n"
            "allow 1024-65535 0.0.0.0/0 1024-65535\n"
            "uuid=00000000-0000-0000-0000-000000000077\n"
        )
        words = ("miniupnpd", "-d", "-f", str(self.folder / "conf"), "-P", str(self.folder / "pid"))
        with (self.folder / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                ["ip", "netns", "exec", self.router, *words], stdout=log, stderr=log
            )
        self.stack.callback(daemon.wait)
        self.stack.callback(daemon.terminate)
        port = ":5351 " if port_5351 else ":1900 "
        end = time.monotonic() + DEADLINE
        while port not in self.at(self.router, "ss", "-Hlun"):
            assert daemon.poll() is None, (self.folder / "daemon.log").read_text()
            assert time.monotonic() < end, "miniupnpd does not listen"
            time.sleep(0.1)
        return daemon

    def node(self, via: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-c", NODE, via, str(PORT)]
        path = os.pathsep.join([str(ROOT / "typings"), *sys.path])
        with (
            (self.folder / "node.log").open("w") as out,
            (self.folder / "node.err").open("w") as err,
        ):
            node = subprocess.Popen(
                ["ip", "netns", "exec", self.lan, *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                text=True,
            )
        assert node.stdin is not None
        self.stack.callback(node.wait)
        self.stack.callback(node.kill)
        self.stack.callback(node.stdin.close)
        return node

    def said(self) -> list[dict[str, Any]]:
        lines = (self.folder / "node.log").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def wait(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < end, (
                self.said()[-2:],
                (self.folder / "node.err").read_text()[-2000:],
                (self.folder / "daemon.log").read_text()[-2000:],
            )
            time.sleep(0.1)

    def call(self) -> str:
        return self.at(
            self.wan, sys.executable, "-c", CALL, "45.67.89.1", str(PORT), check=False
        ).strip()

    def rules(self) -> str:
        return self.at(self.router, "nft", "list", "ruleset")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(tmp_path, stack)


@pytest.mark.parametrize("via", ["PCP", "NAT-PMP", "UPnP"])
def test_a_router_forwards_our_port(lab: Lab, via: str) -> None:
    # The stubs of `typings` make a package of that name, with nothing in it.
    if via == "UPnP" and not hasattr(pytest.importorskip("miniupnpc"), "UPnP"):
        pytest.skip("miniupnpc is not installed")
    kind = {"port_5351": via != "UPnP", "upnp": via == "UPnP"}
    daemon = lab.daemon(**kind)
    started = time.monotonic()
    node = lab.node(via)
    lab.wait(lambda: any(state.get("addrs") for state in lab.said()))
    print(f"{via}: mapped after {time.monotonic() - started:.1f} s")
    state = lab.said()[-1]
    assert state["via"] == via, state
    assert state["gateway"] == "192.168.77.1"
    assert state["addrs"] == [f"/ip4/45.67.89.1/tcp/{PORT}"]
    assert not state["private"]
    assert lab.call() == "hello from inside"

    # A restart: this router announces it over PCP alone; else it is noticed within minutes.
    if via == "PCP":
        daemon.terminate()
        daemon.wait()
        run("ip", "netns", "exec", lab.router, "nft", "-f", str(lab.folder / "rules"))
        for chain in ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd"):
            lab.at(lab.router, "nft", "flush", "chain", "inet", "filter", chain)
        assert lab.call() == ""
        time.sleep(2)
        lab.daemon(**kind)
        lab.wait(lambda: lab.call() == "hello from inside")

    assert str(PORT) in lab.rules()
    assert node.stdin is not None
    node.stdin.close()
    lab.wait(lambda: "left" in lab.said()[-1])
    assert lab.said()[-1]["left"] < 3
    assert str(PORT) not in lab.rules()
    assert lab.call() == ""
