"""The generator of spec changes knows every field of the resource: a new one that it does not know fails here."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from novacore_contracts.releases import CURRENT
from tests.kit.specs import ALL, Generator, Leaf, UnknownFieldError, bounds, changed, flat, schema
from tests.unit.operator.api.test_cel_cases import SPEC

DRAWS = 40


@pytest.mark.parametrize("leaf", ALL, ids=str)
def test_a_field_gets_values_that_fit_its_schema(leaf: Leaf) -> None:
    generator = Generator(random.Random(str(leaf)))
    reached = False
    for _ in range(DRAWS):
        spec = generator.candidate({"version": CURRENT}, leaf)
        assert [error.message for error in SPEC.iter_errors(spec)] == []
        reached = reached or leaf.path in flat(spec)
    assert reached


def test_all_fields_are_there() -> None:
    assert len(ALL) == len(set(ALL)) >= 100
    assert {leaf.path[0] for leaf in ALL} == set(schema()["properties"])


def test_a_text_that_nobody_explained_is_an_error() -> None:
    node = copy.deepcopy(schema())
    node["properties"]["colour"] = {"type": "string", "description": "A new field."}
    generator = Generator(random.Random(1))
    with pytest.raises(UnknownFieldError, match=r"spec\.colour: tests/kit/specs\.py does not know"):
        generator.value(node["properties"]["colour"], ("colour",))


def test_bounds_are_read_from_the_rules() -> None:
    assert bounds(("rollout", "maxParallel")) == (1, 9)
    assert bounds(("tiers", "basic", "ngsMaxLevel")) == (1, 24)
    assert bounds(("tiers", "basic", "tokensPerDay")) == (-1, None)


def test_the_same_seed_draws_the_same_changes() -> None:
    def walk() -> list[Any]:
        generator, spec, found = Generator(random.Random(5)), {"version": CURRENT}, []
        for _ in range(50):
            spec = generator.candidate(spec)
            found.append(spec)
        return found

    assert walk() == walk()


def test_a_difference_is_named_by_its_field() -> None:
    before = {"version": "0.1.0", "services": {"memory": {"replicas": 1}}}
    after = {"version": "0.1.0", "services": {"memory": {"replicas": 2}, "gateway": {"env": {"TZ": "UTC"}}}}
    assert changed(before, after) == {("services", "*", "replicas"), ("services", "*", "env")}
