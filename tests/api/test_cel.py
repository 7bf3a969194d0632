"""Every CEL rule of the CRD, decided by a real API server: one resource passes, one is refused with the rule's words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.api.cel_cases import CASES, Case, manifest, rules_of, spec
from tests.kit.api import Api, Manifest, RefusedError

INVALID = 422


def refusal(api: Api, resource: Manifest, *, update: bool = False) -> str:
    """Return what the API server says against a resource; fail if it takes it."""
    with pytest.raises(RefusedError) as caught:
        (api.replace if update else api.create)(resource, dry_run=True)
    assert caught.value.code == INVALID, caught.value
    return caught.value.message


def test_every_rule_that_is_served_has_a_case_that_passes_and_one_that_is_refused(
    api: Api, say: Callable[[str], None]
) -> None:
    """Of the definition that the API server has, not of the file: a rule that nobody tries fails here."""
    served = api.must("CustomResourceDefinition", "novacoredeployments.novacore.ai")
    schema = served["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rules = [(path, rule["message"]) for path, rule in rules_of(schema)]
    untried = [rule for rule in rules if not any(c.path == rule[0] and c.says in rule[1] for c in CASES)]
    say(
        f"cel: {len(rules)} rules ({len({message for _, message in rules})} sentences), each with a resource that is "
        f"accepted and one that is refused; {len(untried)} without; "
        f"{len(served['spec']['versions'][0]['additionalPrinterColumns'])} printer columns"
    )
    assert untried == []
    assert len(rules) >= 40
    assert len(served["spec"]["versions"][0]["additionalPrinterColumns"]) >= 8


@pytest.mark.parametrize("case", [case for case in CASES if not case.is_transition], ids=lambda case: case.id)
def test_a_rule_lets_one_resource_pass_and_refuses_the_other(api: Api, case: Case) -> None:
    sent = case.manifests("default")  # nothing is stored
    api.create(sent.accepted, dry_run=True)
    assert case.says in refusal(api, sent.refused)


@pytest.mark.parametrize("case", [case for case in CASES if case.is_transition], ids=lambda case: case.id)
def test_a_transition_rule_lets_one_update_pass_and_refuses_the_other(api: Api, namespace: str, case: Case) -> None:
    sent = case.manifests(namespace)
    assert sent.old is not None
    version = api.create(sent.old)["metadata"]["resourceVersion"]
    for update in (sent.accepted, sent.refused):
        update["metadata"]["resourceVersion"] = version
    api.replace(sent.accepted, dry_run=True)
    assert case.says in refusal(api, sent.refused, update=True)


@pytest.mark.parametrize(
    "unknown",
    [{"replica": 1}, {"image": {"name": "x"}}, {"services": {"memory": {"replica": 1}}}, {"tiers": {"gold": {}}}],
    ids=str,
)
def test_an_unknown_field_is_refused_under_strict_validation(api: Api, unknown: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="unknown field"):
        api.create(manifest(spec(**unknown)), dry_run=True)
