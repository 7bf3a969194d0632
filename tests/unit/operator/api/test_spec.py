"""What the models know beside their fields."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novacore_contracts.services import BY_NAME, SERVICES
from novacore_operator.api.spec import INDISPENSABLE, Spec


def test_without_settings_all_nine_are_enabled() -> None:
    assert Spec(version="0.1.0").enabled_services() == SERVICES


@given(st.sets(st.sampled_from(sorted(set(BY_NAME) - INDISPENSABLE.keys()))))
def test_enabled_services_are_the_others_in_the_order_of_the_contracts(disabled: set[str]) -> None:
    spec = Spec.model_validate({"version": "0.1.0", "services": {name: {"enabled": False} for name in disabled}})
    assert spec.enabled_services() == tuple(service for service in SERVICES if service.name not in disabled)


def test_settings_alone_do_not_disable() -> None:
    spec = Spec.model_validate({"version": "0.1.0", "services": {"memory": {"replicas": 0}}})
    assert spec.enabled_services() == SERVICES
