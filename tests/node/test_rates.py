"""Rates as people write them, on the command line and in the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.node.config import Config, ConfigError, load_config
from shoal.node.rates import HIGHEST, parse_rate
from shoal.swarm.bucket import LEAST_RATE
from shoal.wire.errors import InvalidText


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10MB", 10_000_000),
        ("500kB", 500_000),
        ("500KB", 500_000),
        ("1.5MiB", 1_572_864),
        ("64KiB/s", 65_536),
        ("2 GB/s", 2_000_000_000),
        ("1M", 1_000_000),
        ("1000", 1000),
        ("none", None),
    ],
)
def test_rates(text: str, rate: int | None) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "-1MB", "1e6", "10Mbit", "10Mb", "0", "999", "1MB2", "9999TB", "٣MB"]
)
def test_what_is_no_rate_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidText, match="none"):
        parse_rate(text)


@given(st.text(max_size=12))
def test_any_text_is_a_rate_within_bounds_or_refused(text: str) -> None:
    try:
        rate = parse_rate(text)
    except InvalidText:
        return
    assert rate is None or LEAST_RATE <= rate <= HIGHEST


def test_limits_in_the_settings(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('up_limit = "5MB"\npeer_up_limit = 250000\n')
    config = load_config(tmp_path, {"SHOAL_DOWN_LIMIT": "2MiB", "SHOAL_UP_LIMIT": "6MB"})
    assert (config.up_limit, config.down_limit) == ("6MB", "2MiB")
    assert (config.peer_up_limit, config.peer_down_limit) == ("250000", None)
    assert Config().up_limit is None


@pytest.mark.parametrize("line", ['up_limit = "fast"', "down_limit = 7", 'up_limit = ["1MB"]'])
def test_a_bad_limit_in_the_settings_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "config.toml").write_text(line)
    with pytest.raises(ConfigError, match=r"config\.toml"):
        load_config(tmp_path, {})
