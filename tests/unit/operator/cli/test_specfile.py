"""`-f cr.yaml`: what is taken, and a line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from novacore_operator.cli.errors import BadInput
from novacore_operator.cli.options import Options
from novacore_operator.cli.specfile import MAX_BYTES, SpecFile, joined, parse, read

HEAD = "apiVersion: novacore.ai/v1alpha1\nkind: NovaCoreDeployment\nmetadata: {name: shop}\n"
GOOD = HEAD + "spec: {version: 0.1.0, services: {memory: {replicas: 2}}}\n"


def test_a_resource_is_taken_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "cr.yaml"
    path.write_text(GOOD)
    wanted = SpecFile("shop", None, {"version": "0.1.0", "services": {"memory": {"replicas": 2}}})
    assert read(str(path)) == wanted
    assert parse(("---\n" + GOOD + "---\n").encode(), shown="x") == wanted


@pytest.mark.invariant("CLI-1")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 documents"),
        (GOOD + "---\n" + GOOD, "2 documents"),
        ("just words", "a str, not a resource"),
        ("- a list", "a list, not a resource"),
        ("a: [1, 2", "not YAML: line 2, column 1"),
        ("a: !!python/object:os.system {}", "not YAML: line 1"),
        ("a: 2026-99-99", "not YAML"),
        ("kind: Pod", "apiVersion is missing"),
        (GOOD.replace("NovaCoreDeployment", "Pod"), "kind is 'Pod': it must be NovaCoreDeployment"),
        (GOOD.replace("v1alpha1", "v9"), "apiVersion is 'novacore.ai/v9'"),
        (GOOD.replace("{name: shop}", "{}"), "metadata.name is missing"),
        (GOOD.replace("name: shop", "name: Shop_1"), "metadata.name is 'Shop_1'"),
        (GOOD.replace("name: shop", "name: shop, namespace: [a]"), "metadata.namespace is"),
        (HEAD, "spec is missing"),
        (HEAD + "spec: {}", "spec.version: field required"),
        (HEAD + "spec: {version: 0.1.0, colour: red}", "spec.colour: there is no such field"),
        (HEAD + "spec: {version: 0.1.0, mode: Guess}", "spec.mode: input should be 'Apply' or 'Plan'"),
        (HEAD + "spec: {version: 0.1.0, services: {memory: {replicas: many}}}", "spec.services.memory.replicas:"),
        ("[" * 100_000, "nested deeper than 50 levels"),
        ("{a: " * 60, "nested deeper than 50 levels"),
        ("a: &a 1\nb: [" + "*a, " * 30 + "1]", "more than 20 YAML aliases"),
    ],
)
def test_a_mistake_is_one_line(text: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text.encode(), shown="cr.yaml")
    (line,) = caught.value.message.splitlines()
    assert line.startswith("cr.yaml: ")
    assert said in line


def test_each_mistake_has_its_line() -> None:
    spec = {"version": 3, "mode": "x", "paused": [], "nonsense": 1}
    with pytest.raises(BadInput) as caught:
        parse((HEAD + yaml.safe_dump({"spec": spec})).encode(), shown="cr.yaml")
    assert len(caught.value.message.splitlines()) == 4


def test_values_of_a_refused_field_are_not_repeated() -> None:
    with pytest.raises(BadInput) as caught:
        parse((HEAD + "spec: {version: 0.1.0, models: {llm: {apiKey: sk-12345}}}").encode(), shown="cr.yaml")
    assert "sk-12345" not in caught.value.message


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "cr.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(BadInput, match="larger than 256 KiB"):
        read(str(path))


@pytest.mark.invariant("CLI-1")
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: (HEAD + "spec: " + text).encode()))
def test_any_bytes_are_a_resource_or_lines_that_say_why_not(data: bytes) -> None:
    try:
        parse(data, shown="cr.yaml")
    except BadInput as error:
        assert all(line.startswith("cr.yaml: ") for line in error.message.splitlines())


def test_file_and_options_must_not_disagree() -> None:
    file = SpecFile("shop", "shop-ns", {})
    assert joined(Options(), file, shown="x") == Options(name="shop", namespace="shop-ns")
    assert joined(Options(namespace="n"), SpecFile("shop", None, {}), shown="x").namespace == "n"
    for options in (Options(name="other"), Options(namespace="other")):
        with pytest.raises(BadInput, match="give one of the two"):
            joined(options, file, shown="x")
