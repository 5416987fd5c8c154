"""Machines of one network: namespaces joined by a cable. Needs root, and removes what it makes."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from shoal.wire.ids import PeerId
from shoal.wire.keys import PrivateKey

TYPINGS = Path(__file__).resolve().parents[3] / "typings"
DEADLINE = 30.0

NODE = """
import json, sys
import trio
from shoal.node.environment import real_environment
from shoal.node.nat import mdns
from shoal.wire.addresses import parse_multiaddr
from shoal.wire.keys import PrivateKey

seed, service, *addrs = sys.argv[1:]
mdns.POLL_SECONDS = 0.5

def say(**what):
    print(json.dumps(what), flush=True)

def found(peer, addrs):
    say(found=str(peer), addrs=[str(addr) for addr in addrs])

async def stop_with_input(scope):
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
    scope.cancel()

async def main():
    own = PrivateKey(bytes([int(seed)]) * 32).peer_id
    told = [parse_multiaddr(addr) for addr in addrs]
    node = mdns.Mdns(real_environment(), own, lambda: told, found, service)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_with_input, nursery.cancel_scope)
        await nursery.start(node.run)
        verdict = ""
        while True:
            if node.state.verdict != verdict:
                verdict = node.state.verdict
                say(verdict=verdict)
            await trio.sleep(0.05)

trio.run(main)
say(ended=True)
"""


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two namespaces without an interface that is up, and an unplugged cable between them."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("NEEDS LINUX, ROOT AND `ip`: mDNS between machines is untested")
    tag = secrets.token_hex(3)
    names = (f"shoal-{tag}-a", f"shoal-{tag}-b")
    made: list[str] = []
    try:
        try:
            for name in names:
                ip(f"netns add {name}")
                made.append(name)
            ip(f"link add v{tag}a netns {names[0]} type veth peer name v{tag}b netns {names[1]}")
            for name, end in zip(names, "ab", strict=True):
                ip(f"-n {name} link set v{tag}{end} name cable")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"NO NAMESPACES HERE, mDNS between machines is untested: {error}")
        yield names
    finally:
        for name in made:
            ip(f"netns del {name}")


def plug_in(machine: str, address: str) -> None:
    """Give the machine's end of the cable an address and set it up."""
    nodad = " nodad" if ":" in address else ""
    ip(f"-n {machine} addr add {address} dev cable{nodad}")
    ip(f"-n {machine} link set cable up")


class Machine:
    """A process in a namespace, and what it said."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdout is not None
        self.process = process
        self.said: list[dict[str, Any]] = []
        self._out = process.stdout
        self._buffer = b""

    async def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Read on until it says what is wanted."""
        while True:
            while b"\n" not in self._buffer:
                data = await self._out.receive_some()
                assert data, f"it ended after {self.said}"
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\n")
            self.said.append(json.loads(line))
            if wanted(self.said[-1]):
                return self.said[-1]

    async def until_found(self, peer: PeerId) -> list[str]:
        addrs: list[str] = (await self.until(lambda said: said.get("found") == str(peer)))["addrs"]
        return addrs

    async def until_verdict(self, part: str) -> None:
        await self.until(lambda said: part in said.get("verdict", ""))

    async def stop(self) -> float:
        """End it kindly; return the seconds that it took."""
        assert self.process.stdin is not None
        began = trio.current_time()
        await self.process.stdin.aclose()
        await self.until(lambda said: "ended" in said)
        return trio.current_time() - began


async def start(nursery: trio.Nursery, machine: str, seed: int, *arguments: str) -> Machine:
    command = ["ip", "netns", "exec", machine, sys.executable, "-c", NODE, str(seed), *arguments]
    run = partial(
        trio.run_process,
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TYPINGS)},
    )
    return Machine(await nursery.start(run))


def peer(seed: int) -> PeerId:
    return PrivateKey(bytes([seed]) * 32).peer_id


SERVICE = "_p2p._udp.local."


@pytest.mark.parametrize("network", ["192.168.77", "fd00:77:"])
async def test_two_machines_find_each_other(machines: tuple[str, str], network: str) -> None:
    ip6 = ":" in network
    places = [f"{network}{':' if ip6 else '.'}{n}" for n in (1, 2)]
    for name, place in zip(machines, places, strict=True):
        plug_in(name, f"{place}/{64 if ip6 else 24}")
    told = [f"/ip{6 if ip6 else 4}/{place}/tcp/4001" for place in places]
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            a = await start(nursery, machines[0], 1, SERVICE, told[0])
            b = await start(nursery, machines[1], 2, SERVICE, told[1])
            assert await a.until_found(peer(2)) == [told[1]]
            assert await b.until_found(peer(1)) == [told[0]]
            assert await a.stop() < 3
            assert await b.stop() < 3


async def test_a_network_that_comes_later_is_taken_up(machines: tuple[str, str]) -> None:
    told = [f"/ip4/10.77.0.{n}/tcp/4001" for n in (1, 2)]
    with trio.fail_after(2 * DEADLINE):
        async with trio.open_nursery() as nursery:
            a = await start(nursery, machines[0], 1, SERVICE, told[0])
            await a.until_verdict("there is no network interface")
            ip(f"-n {machines[0]} link set lo up")
            await a.until_verdict("no network interface carries multicast")
            for n, name in enumerate(machines, 1):
                plug_in(name, f"10.77.0.{n}/24")
            await a.until_verdict("LAN discovery is on")
            b = await start(nursery, machines[1], 2, SERVICE, told[1])
            await a.until_found(peer(2))
            await b.until_found(peer(1))
            await a.stop()
            ip(f"-n {machines[1]} addr del 10.77.0.2/24 dev cable")
            plug_in(machines[1], "10.77.0.9/24")
            a = await start(nursery, machines[0], 3, SERVICE, told[0])
            await a.until_found(peer(2))
            await b.until_found(peer(3))
            await a.stop()
            await b.stop()


async def test_nobody_outside_is_listened_to(machines: tuple[str, str]) -> None:
    """Private places that are told from a global address: somebody from the internet."""
    places = ["5.6.7.1/24", "5.9.9.2/24"]
    for name, place in zip(machines, places, strict=True):
        # Else they would find each other by their link-local addresses.
        ip(f"netns exec {name} sysctl -q net.ipv6.conf.cable.disable_ipv6=1")
        plug_in(name, place)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            a = await start(nursery, machines[0], 1, SERVICE, "/ip4/192.168.77.1/tcp/4001")
            b = await start(nursery, machines[1], 2, SERVICE, "/ip4/192.168.77.2/tcp/4001")
            await a.until_verdict("LAN discovery is on")
            await b.until_verdict("LAN discovery is on")
            with trio.move_on_after(3):  # both have asked and announced by then
                await a.until_found(peer(2))
                pytest.fail("it was found")
            for n, (name, place) in enumerate(zip(machines, places, strict=True), 1):
                ip(f"-n {name} addr del {place} dev cable")
                plug_in(name, f"5.6.7.{n}/24")  # neighbours, whatever their scope
            await a.until_found(peer(2))
            await b.until_found(peer(1))
            await a.stop()
            await b.stop()
