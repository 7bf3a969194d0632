"""Challenges are graded by declarative checks, in process, in time linear in the text. Pure.

A check looks at one thing and gives a share of its weight. Five kinds: `contains` (terms), `structure` (length,
headings, lists), `regex` (the linear subset of `linear`), `json` (a document of a given shape), `rubric` (criteria,
each met by any of its terms). Nothing a learner sends is ever run.

Invariants:
CHK-1: the score lies in 0..100, for every text, and equal texts score equally.
CHK-2: what is sent back names no hidden check and no term a check looks for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_validator

from novacore.ngs_curriculum import linear
from novacore.ngs_curriculum.rules import words

PASS_SCORE = 60
_JSON_DEPTH_MAX = 20


class _Check(BaseModel):
    """What all kinds share. `message` is for the learner: what is wanted, never the words that are looked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,32}$")]
    weight: Annotated[int, Field(ge=1, le=10)] = 1
    hidden: bool = False
    message: Annotated[str, Field(min_length=12)]


class Contains(_Check):
    """At least `least` of the terms occur, as whole words or phrases; letter case does not count."""

    kind: Literal["contains"]
    terms: Annotated[list[str], Field(min_length=1)]
    least: Annotated[int, Field(ge=1)] = 1


class Structure(_Check):
    """The text has the wanted length, variety of words, headings in order, and list items."""

    kind: Literal["structure"]
    min_words: int = 0
    max_words: int = 20_000
    min_distinct: int = 0
    headings: list[str] = []
    min_items: int = 0


class Regex(_Check):
    """At least `lines` lines hold the pattern."""

    kind: Literal["regex"]
    pattern: str
    lines: Annotated[int, Field(ge=1)] = 1

    @field_validator("pattern")
    @classmethod
    def _of_the_subset(cls, value: str) -> str:
        linear.compiled(value)
        return value


class Json(_Check):
    """The text is a JSON document of this shape: a small part of JSON Schema (see `_fits`)."""

    kind: Literal["json"]
    shape: dict[str, Any]

    @field_validator("shape")
    @classmethod
    def _known_words(cls, value: dict[str, Any]) -> dict[str, Any]:
        _refuse_unknown(value)
        return value


class Rubric(_Check):
    """Each criterion is met by any one of its terms; the share is that of the criteria met."""

    kind: Literal["rubric"]
    criteria: Annotated[dict[str, list[str]], Field(min_length=2)]


Check = Annotated[Contains | Structure | Regex | Json | Rubric, Field(discriminator="kind")]
_CHECKS: TypeAdapter[list[Check]] = TypeAdapter(list[Check])


@dataclass(frozen=True, slots=True)
class Result:
    """How one check went; `share` is 0..1."""

    check_id: str
    hidden: bool
    share: float
    message: str


@dataclass(frozen=True, slots=True)
class Grade:
    """The whole: score 0..100, whether it passes, one line per shortcoming, and the results to be kept."""

    score: int
    passed: bool
    feedback: str
    results: tuple[Result, ...]


def load(raw: Sequence[Mapping[str, Any]]) -> list[Check]:
    """Return the checks of a stored challenge. ValueError (pydantic) when one is malformed."""
    return _CHECKS.validate_python(list(raw))


def grade(checks: Sequence[Check], text: str) -> Grade:
    """Return the grade of a submission."""
    folded = _Text(text)
    results = tuple(
        Result(check_id=one.id, hidden=one.hidden, share=_share(one, folded), message=one.message) for one in checks
    )
    weight = sum(one.weight for one in checks)
    earned = sum(check.weight * result.share for check, result in zip(checks, results, strict=True))
    score = int(100 * earned / weight + 1e-9) if weight else 0  # downwards: 59.9 has not passed
    return Grade(score=score, passed=score >= PASS_SCORE, feedback=_feedback(results), results=results)


def _feedback(results: Sequence[Result]) -> str:
    short = [one for one in results if one.share < 1]
    if not short:
        return "Everything asked for is there."
    lines = [f"- {one.message}" + (" (in part)" if one.share > 0 else "") for one in short if not one.hidden]
    unseen = sum(one.hidden for one in short)
    if unseen:
        lines.append(f"- {unseen} further point{'s' if unseen > 1 else ''} of the task not met yet: read it once more.")
    return "\n".join(lines)


class _Text:
    """A submission, prepared once for all its checks."""

    def __init__(self, raw: str) -> None:
        self.raw = raw
        self.words = words(raw)
        self._line = f" {' '.join(self.words)} "

    def has(self, term: str) -> bool:
        """Whether the term's words occur in a row."""
        return f" {' '.join(words(term))} " in self._line

    def headings(self) -> list[str]:
        """The lines that are headings: `# Title`, or a short line that ends with a colon."""
        found = []
        for raw in self.raw.splitlines():
            line = raw.strip()
            if line.startswith("#") or (line.endswith(":") and len(line) <= 80):
                found.append(" ".join(words(line)))
        return found

    def items(self) -> int:
        """How many lines are items of a list."""
        return sum(_is_item(line.strip()) for line in self.raw.splitlines())


def _is_item(line: str) -> bool:
    if line.startswith(("- ", "* ", "+ ")):
        return len(line) > 4
    number, point, rest = line.partition(". ")
    return bool(point) and number.isdecimal() and len(rest) > 2


def _share(check: Check, text: _Text) -> float:
    match check:
        case Contains():
            return min(1.0, sum(text.has(term) for term in check.terms) / check.least)
        case Structure():
            return _structure_share(check, text)
        case Regex():
            return linear.compiled(check.pattern).lines(text.raw, enough=check.lines) / check.lines
        case Json():
            return _json_share(check, text.raw)
        case Rubric():
            met = sum(any(text.has(term) for term in terms) for terms in check.criteria.values())
            return met / len(check.criteria)


def _structure_share(check: Structure, text: _Text) -> float:
    """Return the mean of the parts that are asked for; a text over its limit has no structure at all."""
    count = len(text.words)
    if count > check.max_words:
        return 0.0
    parts: list[float] = []
    if check.min_words:
        parts.append(min(1.0, count / check.min_words))
    if check.min_distinct:
        parts.append(min(1.0, len(set(text.words)) / check.min_distinct))
    if check.headings:
        parts.append(_in_order(check.headings, text.headings()) / len(check.headings))
    if check.min_items:
        parts.append(min(1.0, text.items() / check.min_items))
    return sum(parts) / len(parts) if parts else 1.0


def _in_order(wanted: Sequence[str], found: Sequence[str]) -> int:
    """Return how many of the wanted headings come, one after the other."""
    at = met = 0
    for heading in wanted:
        needle = " ".join(words(heading))
        place = next((i for i in range(at, len(found)) if needle in found[i]), None)
        if place is not None:
            met, at = met + 1, place + 1
    return met


# JSON documents

_WORDS = frozenset(
    {
        "type", "properties", "required", "items", "enum", "additionalProperties",
        "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum",
    }
)  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _refuse_unknown(shape: Mapping[str, Any]) -> None:
    unknown = set(shape) - _WORDS
    if unknown:
        raise ValueError(f"shape: {', '.join(sorted(unknown))} is not of the part of JSON Schema known here")
    if shape.get("type", "object") not in _TYPES:
        raise ValueError(f"shape: type {shape['type']!r} is none of {', '.join(_TYPES)}")
    for inner in (*shape.get("properties", {}).values(), *([shape["items"]] if "items" in shape else [])):
        _refuse_unknown(inner)


def _json_share(check: Json, raw: str) -> float:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0 if _fits(document, check.shape, 0) else 0.0


def _fits(value: Any, shape: Mapping[str, Any], depth: int) -> bool:
    """Whether a document has the shape. An unnamed type is any; a boolean is no number."""
    if depth > _JSON_DEPTH_MAX or not _type_fits(value, shape.get("type")) or value not in shape.get("enum", [value]):
        return False
    match value:
        case dict():
            return _object_fits(value, shape, depth)
        case list():
            long_enough = shape.get("minItems", 0) <= len(value) <= shape.get("maxItems", len(value))
            return long_enough and all(_fits(one, shape.get("items", {}), depth + 1) for one in value)
        case str():
            return bool(shape.get("minLength", 0) <= len(value.strip()) <= shape.get("maxLength", len(value)))
        case int() | float():
            return bool(shape.get("minimum", value) <= value <= shape.get("maximum", value))
    return True


def _type_fits(value: Any, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return isinstance(value, _TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))


def _object_fits(value: Mapping[str, Any], shape: Mapping[str, Any], depth: int) -> bool:
    properties: Mapping[str, Any] = shape.get("properties", {})
    if any(name not in value for name in shape.get("required", ())):
        return False
    if shape.get("additionalProperties") is False and any(name not in properties for name in value):
        return False
    return all(_fits(value[name], inner, depth + 1) for name, inner in properties.items() if name in value)
