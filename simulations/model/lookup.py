"""Lookups with the rules of `dht/lookup.py`, event by event, over the arrays of a network.

The peers heard of are sorted by distance; at most `alpha` requests count as in flight, a slow one
gives its place back after a second and counts as failed after five, and the walk ends when the
nearest `enough` that have not failed have all answered. What happens at one instant is taken in
together before anybody else is asked, as the trio driver does.

With more than one path (S/Kademlia) the first contacts are dealt out to the paths, and no peer is
asked on two of them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiled import Word, draw, entry, kernel, share_of, whole
from .network import ALIVE, EVIL, HANGS, JITTER, REFUSES, SILENT, Net, round_trip, status_of
from .tables import SCRATCH, closest_contacts, nearest_nodes

HEARD, ASKED, SLOW, ANSWERED, FAILED, TAKEN = 0, 1, 2, 3, 4, 5
"""States of a peer on a path; taken: another path has asked it."""

TURN_SLOW, GIVE_UP, ANSWER = 0, 1, 2
"""What happens to a request."""

MAX_HEARD: Final = 512
"""Peers remembered on a path (the shipped lookup: 2000)."""

FEW_HEARD: Final = 64
"""Peers remembered at first: the farthest are dropped, which changes nothing while at most
`FEW_HEARD` - k others were slow or failed; a walk where more did is done again with `MAX_HEARD`."""


MAX_EVENTS: Final = 1024
"""Events that may wait in one lookup: three for each request that is open."""

MAX_PATHS: Final = 32

DROP, LIE = 0, 1
"""What attackers do: answer without naming anybody; name the nearest other attackers."""

OK, HEARD_TOO_MANY, TOO_MANY_EVENTS = 0, 1, 2
"""How a walk ended; anything but OK is an error."""


class Rules(NamedTuple):
    """Widths, patience and bounds, as in `dht.lookup.LookupConfig`, and what the model adds."""

    k: int = 20
    alpha: int = 10
    enough: int = 3
    slow_after: float = 1.0
    fail_after: float = 5.0
    max_asked: int = 400
    paths: int = 1
    hang_after: float = 5.0
    """Seconds until a peer that hangs counts as failed."""
    trips: float = 1.0
    """Round trips from the wish to ask until the answer, dialling included."""
    jitter: float = 0.0
    """Part of its time by which an answer may come later."""
    evil_does: int = DROP
    max_heard: int = FEW_HEARD


class Space(NamedTuple):
    """Arrays that a walk works in; made once for many walks."""

    far: NDArray[np.uint64]
    """Distances of the peers of each path, rising."""
    order: NDArray[np.int16]
    """Which slot each of these is."""
    who: NDArray[np.int64]
    state: NDArray[np.int8]
    depth: NDArray[np.int8]
    tally: NDArray[np.int64]
    """Peers on each path; then requests that are in flight and not slow; then open ones."""
    answer: NDArray[np.int64]
    named: NDArray[np.uint64]
    """Distances of those in `answer`."""
    event_at: NDArray[np.float64]
    event: NDArray[np.int64]
    """Kind, path and slot of each event that waits."""


COLUMNS: Final = ("hops", "rpcs", "answered", "failed", "found", "nearest", "known", "slow", "code")
"""What a walk gives back as whole numbers. hops: how far on the way the nearest one was learnt;
found: whether the nearest node that lives was among the result; nearest: the nearest that
answered, or -1; known: how many of the k nearest that live are in the result; slow: requests that
gave their place back."""

HOPS, RPCS, ANSWERS, FAILURES, FOUND, NEAREST, KNOWN, SLOWS, CODE = range(9)


@entry
def make_space(k: int, paths: int, room: int) -> Space:
    """Make the arrays for walks that remember so many peers on each path."""
    return Space(
        np.empty((paths, room), np.uint64),
        np.empty((paths, room), np.int16),
        np.empty((paths, room), np.int64),
        np.empty((paths, room), np.int8),
        np.empty((paths, room), np.int8),
        np.zeros((3, paths), np.int64),
        np.empty(max(SCRATCH * k + k, MAX_HEARD), np.int64),
        np.empty(max(SCRATCH * k + k, MAX_HEARD), np.uint64),
        np.empty(MAX_EVENTS, np.float64),
        np.empty((MAX_EVENTS, 3), np.int64),
    )


@kernel
def _rank(space: Space, path: int, far: Word) -> int:
    """Return the first place whose distance is not below `far`."""
    low, high = 0, space.tally[0, path]
    while low < high:
        middle = (low + high) >> 1
        if space.far[path, middle] < far:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _hear(space: Space, room: int, path: int, node: int, far: Word, depth: int) -> bool:
    """Add a peer to a path unless it is known; False if there was no room for it.

    Without room the farthest goes for which no event waits: not asked yet, or done.
    """
    count = space.tally[0, path]
    if count == room and far > space.far[path, count - 1]:
        return True  # most are farther than all that are remembered
    at = _rank(space, path, far)
    if at < count and space.far[path, at] == far:
        return True
    last = count
    slot = count
    if count == room:
        last = count - 1
        if at > last:
            return True
        while last >= 0:
            state = space.state[path, space.order[path, last]]
            if state in (HEARD, ANSWERED):
                break
            last -= 1
        if last < 0:
            return False
        if at > last:
            return True  # it is the farthest itself
        slot = whole(space.order[path, last])
    else:
        space.tally[0, path] = count + 1
    for place in range(last, at, -1):
        space.far[path, place] = space.far[path, place - 1]
        space.order[path, place] = space.order[path, place - 1]
    space.far[path, at] = far
    space.order[path, at] = slot
    space.who[path, slot] = node
    space.state[path, slot] = HEARD
    space.depth[path, slot] = depth
    return True


@kernel
def _is_taken(space: Space, rules: Rules, path: int, far: Word) -> bool:
    """Return whether another path has asked the peer at this distance."""
    for other in range(rules.paths):
        if other == path:
            continue
        at = _rank(space, other, far)
        if at < space.tally[0, other] and space.far[other, at] == far:
            state = space.state[other, space.order[other, at]]
            if state not in (HEARD, TAKEN):
                return True
    return False


@kernel
def _path_is_over(space: Space, rules: Rules, enough: int, path: int, asked: int) -> bool:
    """Return whether nothing is left to ask or wait for on a path."""
    live = 0
    all_answered = True
    any_heard = False
    for place in range(space.tally[0, path]):
        state = space.state[path, space.order[path, place]]
        if state in (FAILED, TAKEN):
            continue
        if (
            state == HEARD
            and rules.paths > 1
            and _is_taken(space, rules, path, space.far[path, place])
        ):
            space.state[path, space.order[path, place]] = TAKEN
            continue
        if live < enough and state != ANSWERED:
            all_answered = False
            if rules.paths == 1 and space.tally[2, path] > 0:
                return False
        any_heard = any_heard or state == HEARD
        live += 1
        if live == rules.k:
            break
    if all_answered:
        return True
    if space.tally[2, path] > 0:
        return False
    return asked >= rules.max_asked or not any_heard


@kernel
def _next_place(space: Space, rules: Rules, path: int) -> int:
    """Return the place of the nearest peer to ask on a path, or -1."""
    quick = 0
    for place in range(space.tally[0, path]):
        slot = space.order[path, place]
        state = space.state[path, slot]
        if state in (FAILED, TAKEN, SLOW):
            continue
        if state == HEARD:
            if rules.paths == 1 or not _is_taken(space, rules, path, space.far[path, place]):
                return place
            space.state[path, slot] = TAKEN
            continue
        quick += 1
        if quick == rules.k:
            return -1
    return -1


@kernel
def _push(space: Space, events: int, at: float, kind: int, path: int, slot: int) -> int:
    space.event_at[events] = at
    space.event[events, 0] = kind
    space.event[events, 1] = path
    space.event[events, 2] = slot
    return events + 1


@kernel
def _ask(
    net: Net, rules: Rules, space: Space, start: int, path: int, slot: int, now: float, events: int
) -> int:
    """Ask a peer: lay down what will come of it; return how many events wait now."""
    node = space.who[path, slot]
    space.state[path, slot] = ASKED
    space.tally[1, path] += 1
    space.tally[2, path] += 1
    status = status_of(net, node)
    patience = rules.fail_after
    took = np.inf
    if status == HANGS:
        patience = rules.hang_after
    elif status != SILENT:
        took = round_trip(net, start, node)
        if status != REFUSES:
            took *= rules.trips
        if rules.jitter > 0.0:
            took *= 1.0 + rules.jitter * share_of(draw(net.seed, JITTER, start, node))
    if rules.slow_after < min(took, patience):
        events = _push(space, events, now + rules.slow_after, TURN_SLOW, path, slot)
    if status == REFUSES:
        return _push(space, events, now + min(took, patience), GIVE_UP, path, slot)
    if patience < took:
        events = _push(space, events, now + patience, GIVE_UP, path, slot)
    if took < np.inf:
        events = _push(space, events, now + took, ANSWER, path, slot)
    return events


@kernel
def _named(
    net: Net, rules: Rules, node: int, target: Word, start: int, out: NDArray[np.int64]
) -> int:
    """Write whom a peer names in its answer; return how many."""
    if status_of(net, node) != EVIL:
        return closest_contacts(net, node, target, rules.k, start, out)
    if rules.evil_does == DROP or len(net.evil) == 0:
        return 0
    return _nearest_evil(net, target, rules.k, out)


@kernel
def _nearest_evil(net: Net, target: Word, wanted: int, out: NDArray[np.int64]) -> int:
    """Write the attackers nearest to a target; of two neighbours in the list one is the nearest."""
    low, high = 0, len(net.evil)
    while low < high:
        middle = (low + high) >> 1
        if net.ids[net.evil[middle]] < target:
            low = middle + 1
        else:
            high = middle
    first, end = max(0, low - wanted), min(len(net.evil), low + wanted)
    found = 0
    for number in range(first, end):
        node = net.evil[number]
        far = net.ids[node] ^ target
        place = found if found < wanted else wanted - 1
        if found == wanted and far >= (net.ids[out[place]] ^ target):
            continue
        while place > 0 and (net.ids[out[place - 1]] ^ target) > far:
            out[place] = out[place - 1]
            place -= 1
        out[place] = node
        if found < wanted:
            found += 1
    return found


@kernel
def _apply(
    net: Net,
    rules: Rules,
    space: Space,
    start: int,
    target: Word,
    event: tuple[int, int, int],
    row: NDArray[np.int64],
) -> bool:
    """Let an event happen; False if there was no room for what was heard."""
    kind, path, slot = event
    state = space.state[path, slot]
    if kind == TURN_SLOW:
        if state == ASKED:
            space.state[path, slot] = SLOW
            space.tally[1, path] -= 1
            row[SLOWS] += 1
        return True
    if state == ASKED:
        space.tally[1, path] -= 1
    if state in (ASKED, SLOW):
        space.tally[2, path] -= 1
    if kind == GIVE_UP:
        space.state[path, slot] = FAILED
        row[FAILURES] += 1
        return True
    space.state[path, slot] = ANSWERED
    row[ANSWERS] += 1
    count = _named(net, rules, space.who[path, slot], target, start, space.answer)
    depth = whole(space.depth[path, slot]) + 1
    # All ids first: they lie anywhere, and so the processor waits for many of them at once.
    for number in range(count):
        space.named[number] = net.ids[space.answer[number]] ^ target
    for number in range(count):
        node = space.answer[number]
        if node != start and not _hear(
            space, rules.max_heard, path, node, space.named[number], depth
        ):
            return False
    return True


@kernel
def _ask_all(
    net: Net,
    rules: Rules,
    enough: int,
    space: Space,
    start: int,
    now: float,
    events: int,
    row: NDArray[np.int64],
) -> int:
    """Ask on every path that is not over whom the width allows; -1 if all are over."""
    all_over = True
    for path in range(rules.paths):
        if _path_is_over(space, rules, enough, path, row[RPCS]):
            continue
        all_over = False
        width = max(1, rules.alpha // rules.paths)
        while space.tally[1, path] < width and row[RPCS] < rules.max_asked:
            place = _next_place(space, rules, path)
            if place < 0:
                break
            if events + 3 > MAX_EVENTS:
                row[CODE] = TOO_MANY_EVENTS
                return -1
            slot = whole(space.order[path, place])
            events = _ask(net, rules, space, start, path, slot, now, events)
            row[RPCS] += 1
    return -1 if all_over else events


@kernel
def _empty(space: Space) -> None:
    for path in range(space.tally.shape[1]):
        for number in range(3):
            space.tally[number, path] = 0


@kernel
def _begin(net: Net, rules: Rules, space: Space, start: int, target: Word) -> None:
    _empty(space)
    seeds = closest_contacts(net, start, target, rules.k, -1, space.answer)
    for number in range(seeds):
        node = space.answer[number]
        _hear(space, rules.max_heard, 0, node, net.ids[node] ^ target, 1)
    if rules.paths > 1:  # the nearest to the first path, the next to the second, and so on
        count = space.tally[0, 0]
        for place in range(count):
            space.answer[place] = space.who[0, space.order[0, place]]
        _empty(space)
        for place in range(count):
            node = space.answer[place]
            path = place % rules.paths
            _hear(space, rules.max_heard, path, node, net.ids[node] ^ target, 1)


@kernel
def walk(
    net: Net,
    rules: Rules,
    enough: int,
    space: Space,
    start: int,
    target: Word,
    holders: NDArray[np.int64],
    row: NDArray[np.int64],
    result: NDArray[np.int64],
) -> float:
    """Walk towards a target and return the seconds it took.

    Args:
        net: The network.
        rules: Of the lookup.
        enough: How many of the nearest must have answered (in place of the one of the rules).
        space: Where to work.
        start: Who looks.
        target: The key.
        holders: Nodes whose answer ends the walk (they have what is sought), or none.
        row: The whole numbers of `COLUMNS`; nearest and known are left to the caller.
        result: Room for the k nearest that answered; -1 behind them.
    """
    for column in range(len(row)):
        row[column] = 0
    row[NEAREST] = -1
    now = 0.0
    is_found = False
    _begin(net, rules, space, start, target)
    events = _ask_all(net, rules, enough, space, start, now, 0, row)
    while events >= 0 and not is_found:
        if events == 0:
            break
        now = float(space.event_at[0])
        for number in range(1, events):
            now = min(now, space.event_at[number])
        number = 0
        while number < events:
            if space.event_at[number] > now:
                number += 1
                continue
            event = (space.event[number, 0], space.event[number, 1], space.event[number, 2])
            events -= 1
            space.event_at[number] = space.event_at[events]
            for part in range(3):
                space.event[number, part] = space.event[events, part]
            if not _apply(net, rules, space, start, target, event, row):
                row[CODE] = HEARD_TOO_MANY
                return now
            if event[0] == ANSWER:
                for holder in holders:
                    is_found = is_found or holder == space.who[event[1], event[2]]
        events = _ask_all(net, rules, enough, space, start, now, events, row)
    if row[FAILURES] + row[SLOWS] + rules.k > rules.max_heard:
        row[CODE] = HEARD_TOO_MANY
    row[FOUND] = is_found
    _collect(rules, space, row, result)
    return now


@kernel
def _collect(rules: Rules, space: Space, row: NDArray[np.int64], result: NDArray[np.int64]) -> None:
    """Merge what the paths found: the k nearest that answered."""
    at = space.tally[1]
    for path in range(rules.paths):
        at[path] = 0
    for number in range(rules.k):
        result[number] = -1
        best = -1
        for path in range(rules.paths):
            while at[path] < space.tally[0, path]:
                if space.state[path, space.order[path, at[path]]] == ANSWERED:
                    break
                at[path] += 1
            if at[path] < space.tally[0, path] and (
                best < 0 or space.far[path, at[path]] < space.far[best, at[best]]
            ):
                best = path
        if best < 0:
            continue
        slot = space.order[best, at[best]]
        result[number] = space.who[best, slot]
        if number == 0:
            row[HOPS] = space.depth[best, slot]
            row[NEAREST] = result[0]
        at[best] += 1


@entry
def many_walks(
    net: Net,
    rules: Rules,
    starts: NDArray[np.int64],
    targets: NDArray[np.uint64],
    holders: NDArray[np.int64],
    rows: NDArray[np.int64],
    seconds: NDArray[np.float64],
    results: NDArray[np.int64],
) -> None:
    """Walk once for each start and target; see `walk`. Rows of `holders` may be empty."""
    space = make_space(rules.k, rules.paths, rules.max_heard)
    # Who looks is not counted, nor is who does not live; else more than k + 1 are of no use.
    all_live = len(net.status) == 0 and net.shares == (0.0, 0.0, 0.0, 0.0)
    truth = np.empty(rules.k + 1 if all_live else max(2 * rules.k, 64), np.int64)
    result = np.empty(rules.k, np.int64)
    for number in range(len(starts)):
        row = rows[number]
        start, target = starts[number], targets[number]
        seconds[number] = walk(
            net, rules, rules.enough, space, start, target, holders[number], row, result
        )
        if results.shape[0] > 0:
            results[number] = result
        if holders.shape[1] > 0:
            continue
        # Compare with the truth: the k nearest that live and are not who looks.
        there = nearest_nodes(net, target, len(truth), truth)
        living = 0
        for place in range(there):
            node = truth[place]
            if node == start or status_of(net, node) != ALIVE:
                continue
            for other in range(rules.k):
                if result[other] == node:
                    row[KNOWN] += 1
                    row[FOUND] += living == 0
                    break
            living += 1
            if living == rules.k:
                break
