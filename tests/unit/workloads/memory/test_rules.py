"""Sizes, expiries and directions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.memory.rules import TIERS, expires_at, is_billed, is_upward, percentage, searchable_text, size_bytes

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_size_is_utf8_bytes_tags_vector_and_row() -> None:
    assert size_bytes("a", None, []) == 1 + 1536 + 162
    assert size_bytes("é", "日本", ["ab", "ü"]) == 2 + 6 + (2 + 4) + (2 + 4) + 1536 + 162


@pytest.mark.invariant("MEM-SIZE")
@given(st.text(max_size=50), st.none() | st.text(max_size=50), st.lists(st.text(max_size=10), max_size=5))
def test_a_size_never_depends_on_the_order_of_tags(text: str, output: str | None, tags: list[str]) -> None:
    """MEM-SIZE: what is taken for a memory is what is given back for it."""
    assert size_bytes(text, output, tags) == size_bytes(text, output, tags[::-1]) >= 1536 + 162


def test_tiers_expire_after_an_hour_a_week_and_never() -> None:
    lives = {tier: expires_at(tier, NOW, stm_ttl=3600, itm_ttl=604_800) for tier in TIERS}
    assert lives == {"stm": NOW + timedelta(hours=1), "itm": NOW + timedelta(days=7), "ltm": None}


def test_only_longer_lived_tiers_are_upward() -> None:
    upward = {(a, b) for a, b in product(TIERS, TIERS) if is_upward(a, b)}
    assert upward == {("stm", "itm"), ("stm", "ltm"), ("itm", "ltm")}
    assert [tier for tier in TIERS if is_billed(tier)] == ["itm", "ltm"]


def test_percentages_compare_like_with_like() -> None:
    assert percentage(1, 3) == 33.3
    assert percentage(10, -1) == 0


def test_input_and_output_are_searched_together() -> None:
    assert searchable_text("a", "b") == "a b"
    assert searchable_text("a", None) == searchable_text("a", "") == "a"
