import pytest

from shoal.simulations.model.nat import KINDS, Kind, path
from shoal.simulations.validation.nats import in_theory


@pytest.mark.parametrize("getter", KINDS)
def test_boxes_give_what_theory_says(getter: Kind) -> None:
    assert [path(getter, sharer) for sharer in KINDS] == [
        in_theory(getter, sharer) for sharer in KINDS
    ]


def test_a_hole_needs_a_packet_that_arrives() -> None:
    assert path("port_restricted", "port_restricted", lambda: True) == "relayed"
    losses = iter([True, False])
    assert path("port_restricted", "port_restricted", lambda: next(losses)) == "punched"
