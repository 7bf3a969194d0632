"""What is ours, judged on objects as a real API server (1.35) stored them: `applied.json`, captured by a dry run."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.state import Sealed
from novacore_operator.state.ownership import desired_hash, digest, fingerprint, owned_fingerprint, owned_keys

PAIRS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "applied.json").read_text())
IDS = [f"{pair['manifest']['kind']}-{pair['manifest']['metadata']['name']}" for pair in PAIRS]


def mine(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fieldsV1 of the operator's entry."""
    fields: dict[str, Any] = body["metadata"]["managedFields"][0]["fieldsV1"]
    return fields


def body_of(kind: str) -> tuple[dict[str, Any], str]:
    """Return a stored object of a kind, a copy, and the fingerprint of what was applied."""
    pair = next(pair for pair in PAIRS if pair["manifest"]["kind"] == kind)
    return deepcopy(pair["body"]), fingerprint(pair["manifest"])


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_an_object_as_applied_is_as_wanted(pair: dict[str, Any]) -> None:
    """OWN-1 on every kind, with quantities the user wrote as 0.5, 1000m and 1024Mi."""
    assert owned_fingerprint(pair["body"]) == fingerprint(pair["manifest"])


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_defaults_and_status_of_others_do_not_matter(pair: dict[str, Any]) -> None:
    body = deepcopy(pair["body"])
    body["metadata"]["labels"]["somebody"] = "else"
    body["metadata"].setdefault("annotations", {})["deployment.kubernetes.io/revision"] = "7"
    body["status"] = {"observedGeneration": 99}
    assert owned_fingerprint(body) == fingerprint(pair["manifest"])


def test_an_edited_value_is_seen() -> None:
    body, wanted = body_of("ConfigMap")
    body["data"]["settings.yaml"] = "bad: 1"
    assert owned_fingerprint(body) != wanted


def test_a_field_taken_by_another_manager_is_seen() -> None:
    body, wanted = body_of("Deployment")
    del mine(body)["f:spec"]["f:replicas"]
    assert owned_fingerprint(body) != wanted


def test_a_removed_label_is_seen() -> None:
    body, wanted = body_of("Service")
    body["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
    assert owned_fingerprint(body) != wanted


def test_a_removed_list_item_is_seen() -> None:
    body, wanted = body_of("Deployment")
    body["spec"]["template"]["spec"]["volumes"].pop()
    assert owned_fingerprint(body) != wanted


def test_an_object_that_was_never_applied_by_us_owns_nothing() -> None:
    body, _ = body_of("Service")
    body["metadata"]["managedFields"][0]["manager"] = "kubectl"
    assert owned_fingerprint(body) == ""
    assert owned_keys(body, "data") == frozenset()


def test_only_keys_we_own_count_as_material() -> None:
    body, _ = body_of("ConfigMap")
    body["data"]["added"] = "by hand"
    assert owned_keys(body, "data") == {"settings.yaml"}


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), Json, max_size=4))
def test_hash_ignores_the_order_of_keys(value: dict[str, Any]) -> None:
    assert digest(value) == digest(dict(reversed(list(value.items()))))


def test_order_of_arguments_is_part_of_what_we_want() -> None:
    one = {"metadata": {"name": "a"}, "args": ["serve", "memory"]}
    two = {"metadata": {"name": "a"}, "args": ["memory", "serve"]}
    assert desired_hash(one) != desired_hash(two)


def test_a_sealed_secret_is_not_text() -> None:
    sealed = Sealed({"password": b"hunter2"})
    with pytest.raises(TypeError):
        str(sealed)
    with pytest.raises(TypeError):
        bool(sealed)
    assert "hunter2" not in repr(sealed)
