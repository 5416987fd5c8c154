"""shoal: a swarm node that moves files straight between the machines that have and want them.

`shoal.Node` is a node in this process; `shoal.connect` gives the same methods for a node
that already runs. Nothing is imported until it is asked for, so that `shoal --help` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .node.api.client import connect as connect
    from .node.app import Node as Node

__version__ = "0.1.0"
__all__ = ["Node", "__version__", "connect"]


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used (PEP 562)."""
    if name == "Node":
        from .node.app import Node

        return Node
    if name == "connect":
        from .node.api.client import connect

        return connect
    raise AttributeError(f"module 'shoal' has no attribute {name!r}")
