"""What breaks under the DHT at message level."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..scenario.model import Fault
from .dht_network import FAULT
from .dht_node import Node
from .dht_tables import any_of

if TYPE_CHECKING:
    from .dht import DhtRun


class Faults:
    """The faults of a scenario."""

    def __init__(self, run: DhtRun) -> None:
        self._run = run

    def plan(self) -> None:
        """Have them happen at their times."""
        for number, fault in enumerate(self._run.scenario.faults):
            self._run.network.time.at(self._run.started + fault.at, self._break, number)

    def _break(self, number: int) -> None:
        fault = self._run.scenario.faults[number]
        draw = random.Random(f"{self._run.seed}/fault {number}")
        met = any_of(self._run.nodes, draw, round(fault.share * len(self._run.nodes)))
        self._run.network.note(FAULT, number, len(met))
        self._apply(fault, met)

    def _apply(self, fault: Fault, met: Sequence[Node]) -> None:
        network = self._run.network
        match fault.kind:
            case "cut":
                network.cut = {node.number for node in met}
                if fault.amount:
                    network.time.after(fault.amount, self._heal)
            case "heal":
                self._heal()
            case "silent":
                for node in met:
                    node.silent = True
                    if fault.amount:
                        network.time.after(fault.amount, self._speak, node)
            case "slow":
                network.slow.update((node.number, max(1.0, fault.amount)) for node in met)
            case "skew":
                for node in met:
                    node.skew += fault.amount
            case "crash":
                for node in met:
                    if node.online:
                        self._run.turn_off(node, goodbye=False)
            case _:
                raise AssertionError(f"{fault.kind} is refused by support.check")

    def _heal(self) -> None:
        self._run.network.cut = set()
        for node in self._run.nodes:
            node.silent = False

    def _speak(self, node: Node) -> None:
        node.silent = False
