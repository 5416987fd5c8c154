"""A small internet of network namespaces: public machines, and machines behind NATs of all kinds.

Every machine is a namespace. `internet` routes between links; each public link lies in a /16 of
its own, since nodes count observers by /16. A NAT box is a namespace with nftables rules, and drops
what nobody asked for (a reset would end a hole punch).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 20
MINIUPNPD = "miniupnpd"
PREFIX = "shoal-nat-"

FORWARD = """
  chain forward {{ type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lanbr" accept
    ct status dnat accept
    {extra}
  }}
  chain input {{ type filter hook input priority 0; policy drop;
    iifname "lo" accept
    iifname "lanbr" accept
    ct state established,related accept
    icmp type echo-request accept
  }}
"""


def missing() -> str:
    """Return why no lab can be built here; empty = it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces need Linux and root"
    lacking = [name for name in ("ip", "nft") if shutil.which(name) is None]
    return f"install {' and '.join(lacking)} (iproute2, nftables)" if lacking else ""


def run(*words: str, stdin: str | None = None, check: bool = True) -> str:
    """Run a command to its end; return what it prints."""
    done = subprocess.run(
        words, input=stdin, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert not check or done.returncode == 0, (words, done.stderr)
    return done.stdout


@dataclass
class Machine:
    """One namespace; `address` is its own, `public` where the world sees it (None: nowhere)."""

    lab: Lab
    name: str
    space: str
    address: str
    public: str | None = None
    box: Box | None = None
    gateway: str = ""

    def command(self, *words: str) -> list[str]:
        """Return the words that run a command here."""
        return ["ip", "netns", "exec", self.space, *words]

    def run(self, *words: str, check: bool = True) -> str:
        """Run a command here to its end."""
        return run(*self.command(*words), check=check)

    def change_address(self, address: str) -> None:
        """Take another address of the same link (with its prefix length, as 10.0.0.3/24)."""
        version = ("-6",) if ":" in address else ("-4",)
        run("ip", "-n", self.space, "addr", "flush", "dev", "e0", "scope", "global")
        run("ip", "-n", self.space, "addr", "add", address, "dev", "e0", *NODAD[":" in address])
        run("ip", *version, "-n", self.space, "route", "add", "default", "via", self.gateway)
        self.address = address.partition("/")[0]


NODAD = {True: ("nodad",), False: ()}


@dataclass
class Box:
    """A NAT box: a namespace with rules."""

    lab: Lab
    space: str
    wan: str
    rules: str
    lan_prefix: str
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)
    hosts: int = 1
    lans: int = 0

    def load(self) -> None:
        """Make the rules anew."""
        text = f"flush ruleset\n{self.rules}"
        run("ip", "netns", "exec", self.space, "nft", "-f", "-", stdin=text)

    def drop_tcp_with(self, address: str) -> None:
        """Let no TCP pass between this network and an address; UDP does."""
        rules = f"""
          table inet notcp {{ chain forward {{ type filter hook forward priority -10;
            meta l4proto tcp ip saddr {address} drop
            meta l4proto tcp ip daddr {address} drop
            }}
          }}"""
        run("ip", "netns", "exec", self.space, "nft", "-f", "-", stdin=rules)

    def restart(self) -> None:
        """Forget all mappings, as a router does that was switched off and on."""
        self.load()
        if shutil.which("conntrack"):
            run("ip", "netns", "exec", self.space, "conntrack", "-F", check=False)


class Lab:
    """Builds machines; `close` removes all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tag = f"{PREFIX}{os.getpid()}-"
        self._spaces: list[str] = []
        self._links = 0
        self._boxes: list[Box] = []
        sweep()
        self.internet = self._space("internet")
        for family in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            self._sysctl(self.internet, f"net.{family}=1")

    def close(self) -> None:
        """Remove everything."""
        for box in self._boxes:
            for daemon in box.daemons:
                daemon.kill()
                daemon.wait()
        for space in self._spaces:
            pids = run("ip", "netns", "pids", space, check=False).split()
            for pid in pids:
                run("kill", "-9", pid, check=False)
            run("ip", "netns", "del", space, check=False)

    def _space(self, name: str) -> str:
        space = f"{self._tag}{name}"
        run("ip", "netns", "add", space)
        self._spaces.append(space)
        run("ip", "-n", space, "link", "set", "lo", "up")
        return space

    def _sysctl(self, space: str, *settings: str) -> None:
        run("ip", "netns", "exec", space, "sysctl", "-qw", *settings)

    def _wire(self, inner: str, device: str, outer: str, outer_device: str) -> None:
        """Lay a cable between two namespaces."""
        ends = ("type", "veth", "peer", "name", outer_device, "netns", outer)
        run("ip", "-n", inner, "link", "add", device, *ends)
        for space, name in ((inner, device), (outer, outer_device)):
            run("ip", "-n", space, "link", "set", name, "up")

    def _address(self, space: str, device: str, address: str) -> None:
        run("ip", "-n", space, "addr", "add", address, "dev", device, *NODAD[":" in address])

    def _route(self, space: str, gateway: str) -> None:
        version = "-6" if ":" in gateway else "-4"
        run("ip", version, "-n", space, "route", "add", "default", "via", gateway)

    def _uplink(self, space: str, device: str, *, v4: bool = True, v6: bool = False) -> str:
        """Connect a namespace to the internet, in a network of its own; return its address."""
        self._links += 1
        number = self._links
        outer = f"p{number}"
        self._wire(space, device, self.internet, outer)
        address = ""
        if v6:
            address = f"2a00:{number:x}::2"
            self._address(self.internet, outer, f"2a00:{number:x}::1/64")
            self._address(space, device, f"{address}/64")
            self._route(space, f"2a00:{number:x}::1")
        if v4:
            address = f"45.{number}.0.2"
            self._address(self.internet, outer, f"45.{number}.0.1/24")
            self._address(space, device, f"{address}/24")
            self._route(space, f"45.{number}.0.1")
        return address

    # Machines

    def public(self, name: str, *, v6: bool = False) -> Machine:
        """(a) A machine without NAT."""
        space = self._space(name)
        address = self._uplink(space, "e0", v6=v6)
        gateway = address.rpartition(".")[0] + ".1"
        return Machine(self, name, space, address, address, gateway=gateway)

    def firewalled(self, name: str) -> Machine:
        """(h) A public address, and a firewall that lets nothing in that was not asked for."""
        machine = self.public(name)
        rules = """
          table inet filter { chain input { type filter hook input priority 0; policy drop;
            iifname "lo" accept
            ct state established,related accept
            }
          }"""
        run(*machine.command("nft", "-f", "-"), stdin=rules)
        machine.public = None
        return machine

    def ipv6_only(self, name: str) -> Machine:
        """(g) A machine with a global IPv6 address and nothing else."""
        space = self._space(name)
        address = self._uplink(space, "e0", v4=False, v6=True)
        gateway = address.removesuffix("2") + "1"
        return Machine(self, name, space, address, address, gateway=gateway)

    def cone(self, name: str) -> Machine:
        """(b) Endpoint-independent mapping and filtering: one machine, all ports lead to it."""
        box = self._box(name, 'oifname "wan" masquerade', 'iifname "wan" dnat ip to HOST')
        return self.host(box, name)

    def restricted(self, name: str) -> Machine:
        """(c) Address-and-port-dependent filtering, ports preserved."""
        return self.host(self._box(name, 'oifname "wan" masquerade'), name)

    def symmetric(self, name: str) -> Machine:
        """(d) Another random port for each connection."""
        return self.host(self._box(name, 'oifname "wan" masquerade fully-random'), name)

    def double(self, name: str) -> Machine:
        """(e) A home router behind a carrier's NAT."""
        carrier = self._box(f"{name}-isp", 'oifname "wan" masquerade', lan="100.64.0")
        home = self._box(name, 'oifname "wan" masquerade', lan="192.168.1", behind=carrier)
        return self.host(home, name)

    def upnp(self, name: str) -> Machine:
        """(f) As `restricted`, with a daemon that maps ports."""
        box = self._box(name, "jump postrouting_miniupnpd", "jump prerouting_miniupnpd", upnp=True)
        machine = self.host(box, name)
        conf = self.folder / f"{name}.conf"
        conf.write_text(
            "ext_ifname=wan\nlistening_ip=lanbr\nhttp_port=5000\nsecure_mode=yes\n"
            "enable_natpmp=yes\nenable_upnp=yes\nipv6_disable=yes\n"
            "upnp_table_name=filter\nupnp_nat_table_name=filter\n"
            "allow 1024-65535 0.0.0.0/0 1024-65535\n"
            "uuid=00000000-0000-0000-0000-000000000077\n"
        )
        words = ["ip", "netns", "exec", box.space, MINIUPNPD, "-d", "-f", str(conf)]
        words += ["-P", str(self.folder / f"{name}.pid")]
        with (self.folder / f"{name}.log").open("wb") as log:
            daemon = subprocess.Popen(words, stdout=log, stderr=log)
        box.daemons.append(daemon)
        return machine

    def host(self, box: Box, name: str) -> Machine:
        """Add a machine to the network behind a box; the first one is what `cone` forwards to."""
        space = self._space(f"{name}-{box.hosts}" if box.hosts > 1 else name)
        device = f"lan{box.lans}"
        box.lans += 1
        box.hosts += 1
        self._wire(space, "e0", box.space, device)
        # The box's ports form one network, over which multicast goes.
        run("ip", "-n", box.space, "link", "set", device, "master", "lanbr")
        address = f"{box.lan_prefix}.{box.hosts}"
        self._address(space, "e0", f"{address}/24")
        self._route(space, f"{box.lan_prefix}.1")
        return Machine(self, name, space, address, None, box, f"{box.lan_prefix}.1")

    def _box(
        self,
        name: str,
        postrouting: str,
        prerouting: str = "",
        *,
        lan: str = "192.168.0",
        behind: Box | None = None,
        upnp: bool = False,
    ) -> Box:
        space = self._space(f"{name}-box")
        if behind is None:
            wan = self._uplink(space, "wan")
        else:
            device = f"lan{behind.lans}"
            behind.lans += 1
            behind.hosts += 1
            wan = f"{behind.lan_prefix}.{behind.hosts}"
            self._wire(space, "wan", behind.space, device)
            run("ip", "-n", behind.space, "link", "set", device, "master", "lanbr")
            self._address(space, "wan", f"{wan}/24")
            self._route(space, f"{behind.lan_prefix}.1")
        run("ip", "-n", space, "link", "add", "lanbr", "type", "bridge", "mcast_snooping", "0")
        run("ip", "-n", space, "link", "set", "lanbr", "up")
        self._address(space, "lanbr", f"{lan}.1/24")
        self._sysctl(space, "net.ipv4.ip_forward=1")
        host = f"{lan}.2"
        extra = "jump miniupnpd" if upnp else ""
        chains = ""
        if upnp:
            names = ("miniupnpd", "prerouting_miniupnpd", "postrouting_miniupnpd")
            chains = "\n".join(f"chain {name} {{ }}" for name in names)
            postrouting += '\n oifname "wan" masquerade'
        rules = f"""
          table inet filter {{
            {chains}
            {FORWARD.format(extra=extra)}
            chain prerouting {{ type nat hook prerouting priority -100;
              {prerouting.replace("HOST", host)}
            }}
            chain postrouting {{ type nat hook postrouting priority 100;
              {postrouting}
            }}
          }}"""
        box = Box(self, space, wan, rules, lan)
        box.hosts = 1
        box.load()
        self._boxes.append(box)
        return box


def sweep() -> None:
    """Remove what killed runs have left."""
    for line in run("ip", "netns", "list", check=False).splitlines():
        name = line.split(" ", 1)[0]
        if not name.startswith(PREFIX):
            continue
        owner = name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            run("ip", "netns", "del", name, check=False)


@contextmanager
def a_lab(folder: Path) -> Iterator[Lab]:
    """Have a lab for the length of a block."""
    lab = Lab(folder)
    try:
        yield lab
    finally:
        lab.close()
