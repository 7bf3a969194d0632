"""The number of pods has one owner, and passes from us to the autoscaler without a pod less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_contracts.services import BY_NAME
from novacore_operator.build.deployment import build_deployment
from novacore_operator.build.scale import build_scale_handover, pods_wanted
from novacore_operator.state import Manifest, WorkloadFacts
from novacore_operator.state.fieldpath import without
from tests.unit.operator.make import make_nova

NUMBERS = st.integers(0, 50)


def deployment(**settings: Any) -> Manifest:
    """Return the Deployment of memory with these settings."""
    return build_deployment(make_nova(services={"memory": settings}), BY_NAME["memory"])


def scaled(least: int = 1) -> Manifest:
    """Return a Deployment whose number of pods is an autoscaler's."""
    return deployment(autoscaling={"minReplicas": least, "maxReplicas": 50})


def running(replicas: int) -> WorkloadFacts:
    """Return the facts of a Deployment that somebody scaled."""
    return WorkloadFacts(replicas, 1, replicas, replicas, replicas)


@given(NUMBERS, NUMBERS)
def test_a_number_of_ours_is_wanted_whatever_runs(replicas: int, now: int) -> None:
    fixed = deployment(replicas=replicas)
    assert fixed["spec"]["replicas"] == pods_wanted(fixed, running(now)) == pods_wanted(fixed, None) == replicas
    assert build_scale_handover(fixed, running(now)) is None


@given(st.integers(1, 50), NUMBERS)
def test_a_number_of_the_autoscaler_is_not_named_by_us_and_never_below_its_least(least: int, now: int) -> None:
    assert "replicas" not in scaled(least)["spec"]
    assert pods_wanted(scaled(least), running(now)) == max(least, now)
    assert pods_wanted(scaled(least), None) == least


def test_nothing_is_handed_over_at_zero_from_which_no_autoscaler_starts() -> None:
    assert build_scale_handover(scaled(), running(0)) is None


@given(st.integers(1, 50), st.integers(1, 50))
def test_the_handover_takes_no_pod_away_and_names_nothing_else(least: int, now: int) -> None:
    assert build_scale_handover(scaled(least), running(now)) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "novacore-memory", "namespace": "test"},
        "spec": {"replicas": now},
    }


@pytest.mark.parametrize("settings", [{"replicas": 5}, {"autoscaling": {"maxReplicas": 4}}, {}], ids=str)
def test_how_many_pods_there_are_is_no_part_of_the_template(settings: dict[str, Any]) -> None:
    """Neither another number nor an autoscaler replaces a pod."""
    assert deployment(**settings)["spec"]["template"] == deployment()["spec"]["template"]


def test_a_number_that_is_left_to_a_rival_is_not_taken_by_our_second_manager() -> None:
    assert build_scale_handover(without(deployment(replicas=2), [".spec.replicas"]), running(3)) is None
