"""`PortMapper`: keeps our listening ports reachable through the home router."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio

from ....wire.addresses import Scope
from ....wire.scopes import scope_of_ip
from ...environment import Environment
from .asking import ERROR_PAUSE, Throttle
from .door import Route, Router
from .holding import Holding, unix_end
from .state import Mapping, PortMapState

POLL_SECONDS: Final = 30.0
"""Between looks at the gateway and our address."""


class PortMapper:
    """Asks the router to forward our ports, as long as it runs.

    Whatever a router does ends in a verdict of `state`, never in an exception.

    Args:
        environment: Clock, chance and secrets of the node.
        router: The door; `system.SystemRouter` in a real node.
        ports: TCP ports that we listen on over IPv4; each is wished for under its own number.
        pinholes: TCP ports that we listen on over IPv6, to be opened in the router's firewall.
        on_change: Called with the new state whenever it is another one.
    """

    def __init__(
        self,
        environment: Environment,
        router: Router,
        ports: Iterable[int],
        *,
        pinholes: Iterable[int] = (),
        on_change: Callable[[PortMapState], None] = lambda state: None,
    ) -> None:
        self._environment = environment
        self._router = router
        self._ports = {4: tuple(ports), 6: tuple(pinholes)}
        self._on_change = on_change
        self._state = PortMapState()
        self._holdings: dict[int, Holding] = {}
        self._offset = 0.0
        """Unix time less trio's, at the start."""

    @property
    def state(self) -> PortMapState:
        """What has been achieved."""
        return self._state

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Map until cancelled; then give the mappings back, within 3 s."""
        self._offset = self._environment.clock.now() - trio.current_time()
        async with trio.open_nursery() as nursery:
            for version in (4, 6):
                if self._ports[version]:
                    nursery.start_soon(self._listen, version)
                    nursery.start_soon(self._follow, version)
            task_status.started()
            await trio.sleep_forever()

    async def _follow(self, version: int) -> None:
        """Hold mappings on the present way to the internet, and begin anew on another."""
        while True:
            route = self._route(version)
            if route is not None:
                async with trio.open_nursery() as nursery:
                    holding = Holding(
                        self._environment, self._router, route, self._ports[version], self._publish
                    )
                    self._holdings[version] = holding
                    nursery.start_soon(holding.run)
                    while True:
                        await trio.sleep(POLL_SECONDS)
                        if self._route(version) != route:
                            break
                    nursery.cancel_scope.cancel()
                del self._holdings[version]
                self._publish()
            else:
                await trio.sleep(POLL_SECONDS)

    def _route(self, version: int) -> Route | None:
        """Return the way to the internet; over IPv6 only one with an address of global scope."""
        route = self._router.route(version)
        if route is None or (version == 6 and scope_of_ip(route.source) is not Scope.GLOBAL):
            return None
        return route

    async def _listen(self, version: int) -> None:
        """Hand on what routers announce; without it, changes are noticed by asking."""
        try:
            socket = await self._router.announcements(version)
        except OSError:
            return
        throttle = Throttle()
        try:
            while True:
                try:
                    data, source = await socket.receive()
                except OSError:
                    await trio.sleep(ERROR_PAUSE)
                    continue
                if version in self._holdings:
                    self._holdings[version].announced(data, source)
                await throttle.pass_one()
        finally:
            socket.close()

    def _publish(self) -> None:
        """Gather the state, and tell it if it is another one."""
        holdings = [self._holdings[version] for version in sorted(self._holdings)]
        gateways = [h.route.gateway for h in holdings if h.route.gateway is not None]
        state = PortMapState(
            gateway=str(gateways[0]) if gateways else None,
            mappings=tuple(
                Mapping(
                    holding.via,
                    grant.internal_port,
                    grant.external_ip,
                    grant.external_port,
                    unix_end(grant, self._offset),
                )
                for holding in holdings
                for grant in holding.grants()
                if holding.via is not None
            ),
            verdicts=tuple(verdict for holding in holdings for verdict in holding.verdicts()),
        )
        if state != self._state:
            self._state = state
            self._on_change(state)
