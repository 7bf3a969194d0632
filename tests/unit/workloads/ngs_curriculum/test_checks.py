"""Grading of challenges."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from novacore.ngs_curriculum import checks
from novacore.ngs_curriculum.checks import grade, load


def make_check(kind: str, **fields: Any) -> dict[str, Any]:
    return {"id": kind, "kind": kind, "message": "Say what is wanted here.", **fields}


CONTAINS = make_check("contains", terms=["signal", "second reading"], least=2)
STRUCTURE = make_check("structure", headings=["Event", "Choice"], min_words=10, min_items=2, weight=2)
REGEX = make_check("regex", pattern=r"\d{4}-\d{2}", lines=2)
RUBRIC = make_check("rubric", criteria={"when": ["monday", "friday"], "who": ["ines"]}, hidden=True)
JSON = make_check(
    "json",
    shape={
        "type": "object",
        "required": ["n"],
        "additionalProperties": False,
        "properties": {"n": {"type": "integer", "minimum": 1}, "s": {"type": "array", "items": {"type": "string"}}},
    },
)


def score(check: dict[str, Any], text: str) -> int:
    return grade(load([check]), text).score


@pytest.mark.parametrize(
    ("check", "text", "expected"),
    [
        (CONTAINS, "A Signal, and a second reading.", 100),
        (CONTAINS, "signals and second", 0),
        (CONTAINS, "one signal", 50),
        (REGEX, "2026-01\n2026-02", 100),
        (REGEX, "2026-01 2026-02", 50),
        (RUBRIC, "On Friday Ines looks", 100),
        (RUBRIC, "On Friday", 50),
        (JSON, '{"n": 2, "s": ["a"]}', 100),
        (JSON, '{"n": true}', 0),
        (JSON, '{"n": 0}', 0),
        (JSON, '{"n": 1, "x": 1}', 0),
        (JSON, '{"n": 1, "s": [1]}', 0),
        (JSON, "not json", 0),
        (JSON, "[" * 9000, 0),
        (STRUCTURE, "Event:\n- one thing\n- two things\nChoice:\nwords words words words words words", 100),
        (STRUCTURE, "Choice:\n- one thing\n- two things\nEvent:\nwords words words words words words", 83),
    ],
)
def test_each_kind_gives_its_share(check: dict[str, Any], text: str, expected: int) -> None:
    assert score(check, text) == expected


def test_a_text_beyond_its_limit_has_no_structure() -> None:
    assert score(make_check("structure", max_words=3), "one two three four") == 0


def test_weights_decide_and_the_score_is_rounded_downwards() -> None:
    result = grade(load([STRUCTURE | {"weight": 2, "headings": [], "min_items": 0, "min_words": 1}, CONTAINS]), "word")
    assert (result.score, result.passed) == (66, True)


@pytest.mark.invariant("CHK-1")
@given(st.text(max_size=300))
def test_every_text_scores_between_0_and_100_and_always_the_same(text: str) -> None:
    """CHK-1."""
    suite = load([CONTAINS, STRUCTURE, REGEX, RUBRIC, JSON])
    first = grade(suite, text)
    assert 0 <= first.score <= 100
    assert grade(suite, text) == first
    assert first.passed == (first.score >= checks.PASS_SCORE)


@pytest.mark.invariant("CHK-2")
def test_feedback_names_no_hidden_check_and_no_term() -> None:
    """CHK-2."""
    hidden = make_check("rubric", criteria={"secret": ["lighthouse"], "other": ["harbour"]}, hidden=True)
    hidden["message"] = "Mention the lighthouse somewhere."
    feedback = grade(load([CONTAINS, hidden]), "nothing").feedback
    assert "lighthouse" not in feedback
    assert "second reading" not in feedback
    assert "1 further point" in feedback


@pytest.mark.parametrize(
    "check",
    [
        make_check("regex", pattern="(a+)+(?=b)"),
        make_check("json", shape={"$ref": "http://example.org"}),
        make_check("json", shape={"type": "date"}),
        make_check("shell", command="true"),
        make_check("contains", terms=[]),
    ],
)
def test_a_malformed_check_is_refused(check: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        load([check])
