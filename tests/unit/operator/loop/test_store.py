"""What of a resource is kept, and which of its changes call for a turn."""

from typing import Any

from novacore_operator.loop.store import Store

KEY = ("shop", "nova")


def body(version: int, *, generation: int = 1, annotations: dict[str, str] | None = None) -> dict[str, Any]:
    fields = {f"f:{name}": {} for name in annotations or {}}
    metadata = {
        "namespace": KEY[0],
        "name": KEY[1],
        "uid": "u",
        "resourceVersion": str(version),
        "generation": generation,
        "creationTimestamp": "2026-11-29T00:00:00Z",
        "annotations": annotations or {},
        "managedFields": [
            {"manager": "somebody", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
            {"manager": "kubectl-annotate", "fieldsV1": {"f:metadata": {"f:annotations": fields}}},
        ],
    }
    return {"metadata": metadata, "spec": {"version": "0.2.0"}}


def test_a_request_by_annotation_calls_for_a_turn_as_a_new_generation_does() -> None:
    store = Store()
    assert store.put(body(1))
    assert not store.put(body(2))
    assert store.put(body(3, annotations={"novacore.ai/rotate": "serviceJwt/n1"}))
    assert not store.put(body(4, annotations={"novacore.ai/rotate": "serviceJwt/n1"}))
    assert store.put(body(5, annotations={"novacore.ai/rotate": "serviceJwt/n2"}))
    assert store.put(body(6, generation=2, annotations={"novacore.ai/rotate": "serviceJwt/n2"}))


def test_what_is_asked_for_and_by_whom_is_kept_and_no_other_annotation() -> None:
    store = Store()
    store.put(body(1, annotations={"novacore.ai/deny": "memory/n1", "example.org/note": "long text"}))
    nova = store.get(KEY)
    assert nova is not None
    assert nova.asked == {"novacore.ai/deny": "memory/n1"}
    assert nova.askers == {"novacore.ai/deny": "kubectl-annotate"}
