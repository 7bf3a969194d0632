"""Quantities in the form in which the API server keeps them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.api.resources import Resources
from novacore_operator.build.common import amount, canonical
from novacore_operator.build.resources import DEFAULTS, build_resources


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("2", "2"),
        ("2000", "2k"),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("0.5Gi", "512Mi"),
        ("128Mi", "128Mi"),
        ("100M", "100M"),
        ("0", "0"),
    ],
)
def test_quantities_are_written_as_kept(given_: str, kept: str) -> None:
    assert canonical(given_) == kept


@given(st.integers(1, 10**6), st.sampled_from(["m", "", "k", "M", "G", "Ki", "Mi", "Gi"]))
def test_canonical_form_is_the_same_amount_and_stays(number: int, suffix: str) -> None:
    quantity = f"{number}{suffix}"
    assert amount(canonical(quantity)) == amount(quantity)
    assert canonical(canonical(quantity)) == canonical(quantity)


def test_a_request_above_the_default_limit_raises_it() -> None:
    wanted = Resources.model_validate({"requests": {"memory": "4Gi"}})
    assert build_resources("gateway", wanted)["limits"]["memory"] == "4Gi"


def test_a_limit_below_the_default_request_lowers_it() -> None:
    wanted = Resources.model_validate({"limits": {"cpu": "10m"}})
    assert build_resources("gateway", wanted)["requests"]["cpu"] == "10m"


def test_the_platform_fits_on_two_cores() -> None:
    services = [name for name in DEFAULTS if name != "migrate"]
    assert sum(amount(DEFAULTS[name][0]) for name in services) <= 1
    assert sum(amount(DEFAULTS[name][1]) for name in services) <= amount("2Gi")
