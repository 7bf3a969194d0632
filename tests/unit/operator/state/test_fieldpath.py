"""A field that the API server names is found in the object, whatever its keys look like."""

from __future__ import annotations

from typing import Any

import pytest

from novacore_operator.state.fieldpath import without

BODY: dict[str, Any] = {
    "metadata": {"labels": {"app.kubernetes.io/name": "novacore", "app": "x"}},
    "spec": {
        "replicas": 1,
        "template": {
            "spec": {
                "containers": [
                    {"name": "a", "image": "i:1", "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]},
                    {"name": "b", "image": "i:2"},
                ]
            }
        },
        "args": ["one", "two"],
    },
}


def containers(body: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body["spec"]["template"]["spec"]["containers"]
    return found


def test_a_plain_field_goes_and_nothing_else() -> None:
    lean = without(BODY, [".spec.replicas"])
    assert "replicas" not in lean["spec"]
    assert lean["spec"]["args"] == ["one", "two"]
    assert BODY["spec"]["replicas"] == 1, "the given object is not changed"


def test_a_key_with_dots_is_one_key() -> None:
    assert without(BODY, [".metadata.labels.app.kubernetes.io/name"])["metadata"]["labels"] == {"app": "x"}
    assert without(BODY, [".metadata.labels.app"])["metadata"]["labels"] == {"app.kubernetes.io/name": "novacore"}


def test_an_item_is_found_by_its_keys() -> None:
    lean = without(BODY, ['.spec.template.spec.containers[name="b"].image'])
    assert containers(lean) == [containers(BODY)[0], {"name": "b"}]
    lean = without(BODY, ['.spec.template.spec.containers[name="a"].ports[containerPort=80,protocol="TCP"].name'])
    assert containers(lean)[0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]


def test_an_item_of_a_set_or_by_index_goes() -> None:
    assert without(BODY, ['.spec.args[="one"]'])["spec"]["args"] == ["two"]
    assert without(BODY, [".spec.args[1]"])["spec"]["args"] == ["one"]


@pytest.mark.parametrize("path", [".spec.nothing", ".spec.replicas.x", '.spec.args[name="x"].y', "", "spec.replicas"])
def test_a_path_that_is_not_there_changes_nothing(path: str) -> None:
    assert without(BODY, [path]) == BODY
