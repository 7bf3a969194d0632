"""Terms of the lexical index."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore.memory.text import TERM_CHARS_MAX, frequencies, terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The spare KEY", ["spar", "key"]),
        ("Anna's dogs don't bark", ["anna", "dog", "don", "bark"]),
        ("two cities, three glasses on a bus", ["two", "city", "thre", "glass", "bus"]),
        ("ﬁne ＡＢＣ x²", ["fin", "abc", "x2"]),  # NFKC
        ("snake_case foo-bar a1b2 1000", ["snak", "cas", "foo", "bar", "a1b2", "1000"]),
        ("naïve café", ["naïv", "café"]),
        ("the of and", ["the", "of", "and"]),  # nothing else: better than no term
        ("", []),
        ("!?", []),
    ],
)
def test_splits_folds_and_drops_stop_words(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    "forms",
    [
        "live lives lived living",
        "stop stops stopped stopping",
        "bake bakes baked baking",
        "study studies studied",
        "dog dogs dog's",
    ],
)
def test_the_forms_of_a_word_are_one_term(forms: str) -> None:
    assert len(set(terms(forms))) == 1


def test_counts_repeats() -> None:
    assert frequencies("red fox, red barn") == {"red": 2, "fox": 1, "barn": 1}


@given(st.text(max_size=200))
def test_terms_are_short_lower_and_never_empty(text: str) -> None:
    found = terms(text)
    assert all(0 < len(term) <= TERM_CHARS_MAX and "\x00" not in term for term in found)
    assert sum(frequencies(text).values()) == len(found)


@given(st.text(alphabet="abcs'ie ", max_size=40))
def test_a_query_in_the_documents_words_always_meets_it(text: str) -> None:
    assert set(terms(text)) == set(terms(text.upper()))
