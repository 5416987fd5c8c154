"""Verdicts on our addresses: whose word counts, when it is asked for again."""

from __future__ import annotations

import pytest

from shoal.node.nat.reachability import (
    FIRST_SECONDS,
    MAX_ADDRS,
    MAX_SILENT,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    AddressTests,
    WholeTests,
)
from shoal.wire.addresses import tcp_addr

OURS = tcp_addr("5.6.7.8", 4001)
OTHER = tcp_addr("5.6.7.8", 4002)


@pytest.fixture
def tests() -> AddressTests:
    found = AddressTests()
    found.candidates([OURS], 0.0)
    return found


def test_a_new_address_is_tested_soon(tests: AddressTests) -> None:
    assert not tests.due(FIRST_SECONDS - 1, 1)
    assert tests.due(FIRST_SECONDS, 1) == [OURS]
    assert tests.overall() == "unknown"


def test_two_servers_must_agree_where_there_are_two(tests: AddressTests) -> None:
    tests.result(OURS, b"a", True, 5.0, 3)
    assert tests.verdict(OURS) == "unknown"
    tests.result(OURS, b"a", True, 6.0, 3)  # the same one again
    assert tests.verdict(OURS) == "unknown"
    tests.result(OURS, b"b", True, 7.0, 3)
    assert tests.verdict(OURS) == "public"
    assert tests.reachable() == [OURS]


def test_the_only_server_decides_until_there_is_another(tests: AddressTests) -> None:
    tests.result(OURS, b"liar", False, 5.0, 1)
    assert tests.overall() == "private"
    assert not tests.due(5.0 + RETRY_SECONDS, 1)
    assert tests.due(5.0 + RETRY_SECONDS, 2) == [OURS]
    tests.result(OURS, b"b", True, 40.0, 3)
    tests.result(OURS, b"c", True, 41.0, 3)
    assert tests.overall() == "public"
    assert not tests.due(41.0 + RETRY_SECONDS, 3)
    assert tests.due(41.0 + REFRESH_SECONDS, 3) == [OURS]


def test_one_liar_never_turns_a_verdict(tests: AddressTests) -> None:
    for number in range(3):
        tests.result(OURS, bytes([number]), True, 5.0, 4)
    for now in range(100):
        tests.result(OURS, b"liar", False, float(now), 4)
        assert tests.verdict(OURS) == "public"


def test_a_verdict_turns_when_most_say_so(tests: AddressTests) -> None:
    for group in b"abc":
        tests.result(OURS, bytes([group]), True, 5.0, 3)
    for group in b"abc":
        tests.result(OURS, bytes([group]), False, 900.0, 3)
    assert tests.verdict(OURS) == "private"


def test_servers_that_do_not_answer_are_asked_less_often(tests: AddressTests) -> None:
    now = 5.0
    for _ in range(MAX_SILENT - 1):
        tests.result(OURS, b"a", None, now, 1)
        assert not tests.due(now + RETRY_SECONDS - 1, 1)
        now += RETRY_SECONDS
        assert tests.due(now, 1)
    tests.result(OURS, b"a", None, now, 1)
    assert not tests.due(now + RETRY_SECONDS, 1)
    assert tests.due(now + REFRESH_SECONDS, 1)


def test_one_address_at_which_we_are_reached_is_enough(tests: AddressTests) -> None:
    tests.candidates([OURS, OTHER], 0.0)
    tests.result(OURS, b"a", False, 5.0, 1)
    assert tests.overall() == "unknown"  # the other may be reachable
    tests.result(OTHER, b"a", True, 5.0, 1)
    assert tests.overall() == "public"
    assert tests.reachable() == [OTHER]
    tests.candidates([OURS], 6.0)
    assert tests.overall() == "private"


def test_addresses_beyond_eight_are_not_tested(tests: AddressTests) -> None:
    tests.candidates([tcp_addr("5.6.7.8", port) for port in range(1, 30)], 0.0)
    assert len(tests.tested()) == MAX_ADDRS


def test_results_of_what_is_not_ours_any_more_are_dropped(tests: AddressTests) -> None:
    tests.result(OTHER, b"a", True, 5.0, 1)
    assert OTHER not in tests.tested()


def test_version_1_needs_three_that_agree_and_counts_last() -> None:
    whole, tests = WholeTests(), AddressTests()
    verdicts: list[str] = []
    for group in b"abc":
        whole.result(bytes([group]), True, 5)
        verdicts.append(whole.verdict)
    assert verdicts == ["unknown", "unknown", "public"]
    assert tests.overall(whole.verdict) == "public"
    tests.candidates([OURS], 0.0)
    tests.result(OURS, b"a", False, 5.0, 1)
    assert tests.overall(whole.verdict) == "private"
    for _ in range(20):
        whole.result(b"liar", False, 5)
    assert whole.verdict == "public"
