"""The policy document: what it may say, and its canonical bytes. Pure.

A pattern is a list of vocabulary names; it matches where one term of each stands within `window` characters, in any
order. A term ends in `*` to match every word that begins so. There are no regular expressions: no pattern can be slow.
`except` phrases are not what they seem ("bath bomb"): their words count for nothing. `allow` names vocabularies of
contexts of help ("prevent", "hotline"); one of them in the same sentence, before or right behind the match, takes it
back, unless a term of `asks` ("tell me how") stands between the two.
"""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

Principle = Literal[
    "truth", "wisdom", "alignment", "transparency", "accountability", "fairness", "respect", "beneficence"
]
PRINCIPLES: tuple[Principle, ...] = (
    "truth", "wisdom", "alignment", "transparency", "accountability", "fairness", "respect", "beneficence",
)  # fmt: skip
Term = Annotated[str, Field(min_length=2, max_length=60)]
Weight = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{1,60}$")]

ZERO_HASH = bytes(32)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Thresholds(_Part):
    """Numbers of the score."""

    violation: Weight = 0.08
    warning: Weight = 0.04
    aligned: Weight = 0.7


class Rule(_Part):
    """One rule."""

    id: Name
    category: Name
    action: Literal["block", "warn"]
    principles: dict[Principle, Weight] = Field(min_length=1)
    patterns: list[Annotated[list[Name], Field(min_length=1, max_length=4)]] = Field(min_length=1, max_length=40)
    allow: list[Name] = Field(default_factory=list, max_length=10)
    window: int = Field(default=70, ge=5, le=400)

    @property
    def main_principle(self) -> Principle:
        """The principle named in answers: the heaviest. (Not the first: jsonb keeps no order of keys.)"""
        return max(PRINCIPLES, key=lambda principle: self.principles.get(principle, 0.0))


class PolicyDocument(_Part):
    """The content of one policy version."""

    thresholds: Thresholds = Thresholds()
    principles: dict[Principle, Weight]
    """Weight of each of the eight in the overall reading of an alignment."""
    vocabulary: dict[Name, Annotated[list[Term], Field(min_length=1, max_length=200)]] = Field(max_length=300)
    exceptions: list[Term] = Field(default_factory=list, max_length=500, alias="except")
    asks: list[Term] = Field(default_factory=list, max_length=100)
    rules: list[Rule] = Field(min_length=1, max_length=200)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        if set(self.principles) != set(PRINCIPLES):
            raise ValueError("principles must be exactly the eight")
        if len({rule.id for rule in self.rules}) != len(self.rules):
            raise ValueError("a rule id appears twice")
        for rule in self.rules:
            for name in (*rule.allow, *(name for pattern in rule.patterns for name in pattern)):
                if name not in self.vocabulary:
                    raise ValueError(f"rule {rule.id}: there is no vocabulary {name}")
        return self

    def content(self) -> dict[str, Any]:
        """Return the JSON value that is stored and signed."""
        return self.model_dump(mode="json", by_alias=True)


def canonical(*, version: int, content: dict[str, Any], prev_hash: bytes) -> bytes:
    """Return the bytes that are signed: sorted keys, no spaces, UTF-8."""
    value = {"content": content, "prev_hash": prev_hash.hex(), "version": version}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def content_hash(*, version: int, content: dict[str, Any], prev_hash: bytes) -> bytes:
    """Return the SHA-256 that the next version carries as its `prev_hash`."""
    return hashlib.sha256(canonical(version=version, content=content, prev_hash=prev_hash)).digest()


def first_policy() -> PolicyDocument:
    """Return policy 1 as it comes with the release."""
    raw = files("novacore.noble_spirit").joinpath("policies/policy-1.yaml").read_text(encoding="utf-8")
    return PolicyDocument.model_validate(yaml.safe_load(raw))
