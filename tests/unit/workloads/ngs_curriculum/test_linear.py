"""The regular expressions that cannot hang."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from novacore.ngs_curriculum.linear import Pattern, PatternError

ATOMS = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\d", r"\w", "(?:ab)", "(a|b)", "1", "-"])
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,3}", "{2,}"])).map("".join)
PATTERNS = st.lists(PIECES, min_size=1, max_size=5).map("".join)
TEXTS = st.text(alphabet="ab1-c ", max_size=30)


@pytest.mark.invariant("LIN-1")
@settings(max_examples=150)
@given(PATTERNS, TEXTS, st.booleans(), st.booleans())
def test_a_line_is_found_exactly_when_python_finds_it(pattern: str, text: str, start: bool, end: bool) -> None:
    """LIN-1."""
    whole = ("^" if start else "") + pattern + ("$" if end else "")
    group = ("^" if start else "") + f"(?:{pattern})" + ("$" if end else "")
    try:
        ours = Pattern(whole)
    except PatternError:
        assert re.fullmatch(pattern, "") is not None  # all that is refused of these finds everything
        return
    expected = bool(text) and re.search(group, text) is not None
    assert bool(ours.lines(text)) == expected


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("(a+)+$", "a" * 20_000 + "b"), ("(a|a)*b", "a" * 20_000), (".*.*.*x", "y" * 20_000), ("(a*)*b{3}", "a" * 20_000)],
)
def test_patterns_that_explode_elsewhere_stay_linear(pattern: str, text: str) -> None:
    started = time.perf_counter()
    assert Pattern(pattern).lines(text) == 0
    assert time.perf_counter() - started < 2


def test_counts_lines_and_not_matches() -> None:
    assert Pattern(r"\d+").lines("12 34\n5\nno\n6", enough=10) == 3


def test_stops_counting_when_it_is_enough() -> None:
    assert Pattern("a").lines("a\na\na", enough=2) == 2


def test_letter_case_does_not_count() -> None:
    assert Pattern("^inv-[a-z]: Ok$").lines("INV-Q: OK") == 1


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)",
        r"(a)\1",
        "a*?",
        "a**",
        "a{40}",
        "a{3,1}",
        "a{x}",
        "(a",
        "a)",
        "[",
        "[b-a]",
        "*a",
        "a*",
        "",
        r"\p",
        "a^b",
    ],
)
def test_what_is_not_of_the_subset_is_refused(pattern: str) -> None:
    with pytest.raises(PatternError):
        Pattern(pattern)
