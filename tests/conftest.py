import os
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from shoal.simulations.world import World

# Real nodes of these tests are alone in the world: no neighbours of this machine, no router of it.
os.environ.update(SHOAL_MDNS="0", SHOAL_PORT_MAPPING="0")

# One shared set of cases, no clock: the suite is the same everywhere, and fast.
settings.register_profile("shoal", max_examples=60, deadline=None, derandomize=True)
settings.load_profile("shoal")


@pytest.fixture
async def world(autojump_clock: object) -> AsyncIterator[World]:
    """A simulated world; the test must ask for `autojump_clock` as well."""
    async with World(seed=1) as world:
        yield world
