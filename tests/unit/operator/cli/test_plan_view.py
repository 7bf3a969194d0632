"""A preview as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.cli.plan_view import component_of, exit_code, grouped, render, short, summary_line, unified
from novacore_operator.policies import Finding
from novacore_operator.preview import Change, FieldChange, Preview
from novacore_operator.reasons import Reason
from novacore_operator.state import Ref

IMAGE = "spec.template.spec.containers[memory].image"


def change(verb: str, kind: str, name: str, *fields: FieldChange, why: str = "changed", **more: str) -> Change:
    return Change(verb, Ref(kind, "shop", name), why, fields, **more)


PREVIEW = Preview(
    (
        change(
            "update",
            "Deployment",
            "novacore-gateway",
            FieldChange("spec.replicas", 1, 2),
            why="drift",
            waits_for="stage 4",
        ),
        change(
            "update",
            "Deployment",
            "novacore-memory",
            FieldChange(IMAGE, "novacore/workloads:0.1.0", "novacore/workloads:0.2.0"),
            FieldChange("metadata.labels.a", "b", None),
            consequence="restarts memory (2 pods)",
        ),
        change(
            "create",
            "ConfigMap",
            "novacore-memory-settings",
            FieldChange("data", None, {"a": "1", "b": "x\ny"}),
            why="missing",
        ),
        change("delete", "PodDisruptionBudget", "novacore-memory", why="unwanted"),
    )
)
BLOCKED = Finding(Reason.SECRET_MISSING, "Secret openai does not exist")


@pytest.mark.parametrize(
    ("preview", "code"),
    [(Preview(()), 0), (PREVIEW, 2), (Preview((), blocked=BLOCKED), 3), (Preview(PREVIEW.changes, blocked=BLOCKED), 3)],
)
def test_exit_codes_are_for_scripts(preview: Preview, code: int) -> None:
    assert exit_code(preview) == code


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("novacore-memory", "memory"),
        ("novacore-mcp-server-settings", "mcp-server"),
        ("novacore-gateway-public", "gateway"),
        ("novacore-postgres-tls", "postgres"),
        ("novacore-migrate-0-1-0-abc", "migrate"),
        ("novacore-svcjwt-private", "installation"),
        ("novacore-memorys", "installation"),
    ],
)
def test_an_objects_name_tells_its_component(name: str, component: str) -> None:
    assert component_of(Ref("Secret", "shop", name)) == component


def test_components_come_in_the_order_of_a_roll_out() -> None:
    assert [name for name, _ in grouped(PREVIEW.changes)] == ["memory", "gateway"]


def test_the_plan_reads_as_a_person_would_say_it() -> None:
    assert render(PREVIEW).plain.splitlines() == [
        "memory",
        "  ~ update Deployment novacore-memory  restarts memory (2 pods)",
        f"      {IMAGE}  novacore/workloads:0.1.0 → novacore/workloads:0.2.0",
        "      metadata.labels.a  b (removed)",
        "  + create ConfigMap novacore-memory-settings",
        '      data  {"a": "1", "b": "x\\ny"}',
        "  - delete PodDisruptionBudget novacore-memory  (no longer wanted)",
        "",
        "gateway",
        "  ~ update Deployment novacore-gateway  (somebody changed it: put back)",
        "      spec.replicas  1 → 2",
        "      waits for: stage 4",
        "",
        f"Plan {PREVIEW.hash}: 1 to create, 2 to update, 1 to delete. Nothing has been written.",
    ]


def test_what_blocks_is_told_with_its_remedy() -> None:
    text = render(Preview((), blocked=BLOCKED)).plain
    assert "Blocked (SecretMissing): Secret openai does not exist" in text
    assert Reason.SECRET_MISSING.remedy in text
    assert "Nothing would be written." in text


def test_no_change_is_said_so() -> None:
    assert summary_line(Preview(())) == "No changes: the cluster is as the resource says."


def test_a_diff_has_an_object_per_file_and_a_field_per_hunk() -> None:
    lines = unified(PREVIEW).splitlines()
    assert lines[:4] == [
        "--- live/Deployment/shop/novacore-gateway",
        "+++ planned/Deployment/shop/novacore-gateway",
        "@@ -1,1 +1,1 @@ spec.replicas",
        "-1",
    ]
    assert "@@ -1,1 +1,0 @@ metadata.labels.a" in lines
    assert lines[lines.index("--- /dev/null") + 1] == "+++ planned/ConfigMap/shop/novacore-memory-settings"
    assert lines[-2:] == ["--- live/PodDisruptionBudget/shop/novacore-memory", "+++ /dev/null"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_any_value_is_one_line_in_the_plan_and_whole_lines_in_the_diff(old: object, new: object) -> None:
    preview = Preview((change("update", "ConfigMap", "novacore-ca", FieldChange("data.x", old, new)),))
    assert "\n" not in short(old)
    head, *rest = unified(preview).split("\n")[2:-1]
    removed, added = (int(part.split(",")[1]) for part in head.split(" ")[1:3])
    assert sum(line.startswith("-") for line in rest) == removed
    assert sum(line.startswith("+") for line in rest) == added
    assert len(rest) == removed + added
