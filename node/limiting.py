"""Limits of bytes a second: those of the settings, and those set while the node runs.

What `shoal limit` sets is kept in the home's database and goes before the settings until it is set
to `default`. A content's limits are forgotten with its last copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..storage.limit_table import EACH_PEER, MAX_LIMITS, NODE, LimitRow
from ..wire.errors import InvalidText
from ..wire.ids import Cid
from .errors import NotFound, Refused, UsageError
from .events import Limit
from .getting import find_cid
from .rates import parse_rate

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

DEFAULT: Final = "default"

Rates = dict[tuple[str, bool], int | None]
"""By scope (node, peer, or a CID) and whether it is upwards."""

ByWay = dict[bool, int | None]
"""By whether it is upwards."""


async def load(node: Lifecycle) -> None:
    """Apply the limits of a node that starts."""
    for (scope, up), rate in (await _rates(node)).items():
        _apply(node, scope, up, rate)


async def limit(
    node: Lifecycle, text: str | None, each_peer: bool, up: str | None, down: str | None
) -> list[Limit]:
    """Set limits, if any are given, and return those of the scope, or all.

    Args:
        node: Whose.
        text: A content, as CID or link; None = the whole node.
        each_peer: The limit of each peer instead.
        up: A rate, `none`, `default`, or None to leave it as it is.
        down: The same, downwards.

    Raises:
        UsageError: A rate is wrong, or both a content and each peer are meant.
        NotFound: There is no copy of the content here.
        Refused: Too many contents have limits of their own.
    """
    if text is not None and each_peer:
        raise UsageError("a limit is for a content or for each peer: name one of them")
    chosen = [(way, value) for way, value in ((True, up), (False, down)) if value is not None]
    rates: ByWay = {way: None if value == DEFAULT else _rate(value) for way, value in chosen}
    scope = EACH_PEER if each_peer else NODE
    if text is not None:
        cid = find_cid(text)
        if not await node.blocking(node.store.copies, cid):
            raise NotFound(f"there is no copy of {cid} here: shoal ls shows what there is")
        scope = str(cid)
    if chosen:
        await node.blocking(_keep, node, scope, dict(chosen), rates)
    now = await _rates(node)
    for way, _ in chosen:
        if not node.offline:
            _apply(node, scope, way, now.get((scope, way)))
    if chosen or scope != NODE:
        return [_event(scope, now)]
    contents = sorted({name for name, _ in now} - {NODE, EACH_PEER})
    return [_event(name, now) for name in (NODE, EACH_PEER, *contents)]


async def forget(node: Lifecycle, cid: Cid) -> None:
    """Forget the limits of a content whose last copy is gone."""
    await node.blocking(node.store.limits.forget, str(cid))
    if not node.offline:
        for up in (True, False):
            _apply(node, str(cid), up, None)


def _keep(node: Lifecycle, scope: str, chosen: dict[bool, str], rates: ByWay) -> None:
    table = node.store.limits
    others = {row.scope for row in table.all()} - {NODE, EACH_PEER}
    if scope not in (NODE, EACH_PEER, *others) and len(others) >= MAX_LIMITS:
        raise Refused(f"{MAX_LIMITS} contents have limits of their own: set some to default")
    with node.store.transaction():
        for way, value in chosen.items():
            if value == DEFAULT:
                table.forget(scope, way)
            else:
                table.set(LimitRow(scope, way, rates[way]))


async def _rates(node: Lifecycle) -> Rates:
    """Return what holds: the settings, and over them what was set later."""
    config = node.config
    settings = {
        (NODE, True): config.up_limit,
        (NODE, False): config.down_limit,
        (EACH_PEER, True): config.peer_up_limit,
        (EACH_PEER, False): config.peer_down_limit,
    }
    rates: Rates = {
        key: None if text is None else parse_rate(text) for key, text in settings.items()
    }
    for row in await node.blocking(node.store.limits.all):
        rates[row.scope, row.up] = row.rate
    return rates


def _apply(node: Lifecycle, scope: str, up: bool, rate: int | None) -> None:
    side = node.transfers.limits.up if up else node.transfers.limits.down
    match scope:
        case "node":
            side.set_node(rate)
        case "peer":
            side.set_peers(rate)
        case _:
            side.set_content(Cid.parse(scope), rate)


def _event(scope: str, rates: Rates) -> Limit:
    up, down = rates.get((scope, True)), rates.get((scope, False))
    if scope in (NODE, EACH_PEER):
        return Limit(scope, None, up, down)
    return Limit("content", scope, up, down)


def _rate(text: str) -> int | None:
    try:
        return parse_rate(text)
    except InvalidText as error:
        raise UsageError(str(error)) from error
