"""The rights: Secrets by name, nothing wild, and the chart's file is what the code says."""

from pathlib import Path

from novacore_operator.build.installation import KINDS
from novacore_operator.plan import NEVER_DELETED
from novacore_operator.rbac import files, namespaced_rules, own_namespace_rules
from novacore_operator.state import names

ROOT = Path(__file__).parents[3]


def test_secrets_are_granted_by_name_and_never_for_deletion() -> None:
    rules = [rule for rule in namespaced_rules() if "secrets" in rule["resources"]]
    assert [rule["resourceNames"] for rule in rules] == [sorted(names.SECRETS)]
    assert "delete" not in rules[0]["verbs"]


def test_nothing_is_granted_by_wildcard() -> None:
    for rule in [*namespaced_rules(), *own_namespace_rules(["a"])]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_every_watched_kind_may_be_listed_and_watched() -> None:
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in namespaced_rules()
        if "resourceNames" not in rule or "secrets" in rule["resources"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for kind in KINDS.values():
        assert {"list", "watch"} <= granted[kind.group, kind.plural], kind.name


def test_every_kind_that_is_applied_may_be_written() -> None:
    granted = {
        (group, resource): set(rule["verbs"])
        for rule in namespaced_rules()
        if "resourceNames" not in rule or "secrets" in rule["resources"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
    for kind in KINDS.values():
        if kind.wave is None:
            continue
        needed = {"patch"} if kind.name == "PersistentVolumeClaim" else {"create", "patch"}
        assert needed <= granted[kind.group, kind.plural], kind.name
        if kind.name not in NEVER_DELETED:
            assert "delete" in granted[kind.group, kind.plural], kind.name


def test_root_keys_are_granted_by_name_where_the_names_are_known() -> None:
    roots = [rule for rule in own_namespace_rules(["a", "b"]) if "secrets" in rule["resources"]]
    assert roots[0]["resourceNames"] == ["novacore-root-a", "novacore-root-b"]


def test_committed_file_is_what_the_code_says() -> None:
    for path, text in files(ROOT).items():
        assert path.read_text() == text, "run: make gen"
