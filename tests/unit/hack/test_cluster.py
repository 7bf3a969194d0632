"""The cluster's configuration, names and hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hack.cluster import cli, kind, load, tools
from hack.cluster.paths import digest
from hack.cluster.rootfs import Rootfs


@pytest.mark.parametrize("path", ["stock", "bare"])
@pytest.mark.parametrize("cgroup_v1", [True, False])
def test_cluster_config_carries_what_tests_need_from_the_start(path: str, *, cgroup_v1: bool) -> None:
    text = kind.config(port=5000, path=path, cgroup_v1=cgroup_v1, audit_directory=Path("/tmp/audit"))  # type: ignore[arg-type] # a literal from the table
    found = json.loads(text)
    (node,) = found["nodes"]
    (mapping,) = node["extraPortMappings"]
    assert (mapping["listenAddress"], mapping["hostPort"], mapping["containerPort"]) == ("127.0.0.1", 5000, 30500)
    assert found["networking"]["disableDefaultCNI"] is (path == "bare")
    patches = [yaml.safe_load(patch) for patch in node["kubeadmConfigPatches"]]
    assert patches[0]["apiServer"]["extraArgs"]["audit-log-path"].endswith("audit.log")
    assert [p["failCgroupV1"] for p in patches if p["kind"] == "KubeletConfiguration"] == ([False] if cgroup_v1 else [])


def test_the_audit_policy_records_writes_and_nothing_else() -> None:
    rules = yaml.safe_load(kind.AUDIT_POLICY)["rules"]
    assert rules[-1] == {"level": "None"}
    assert set(rules[1]["verbs"]) == {"create", "update", "patch", "delete", "deletecollection"}


@pytest.mark.parametrize(
    ("image", "full"),
    [
        ("redis:8.0", "docker.io/library/redis:8.0"),
        ("novacore/operator:dev-1", "docker.io/novacore/operator:dev-1"),
        ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
        ("localhost/x:1", "localhost/x:1"),
    ],
)
def test_names_images_as_containerd_does(image: str, full: str) -> None:
    assert load.qualified(image) == full


def test_a_hash_changes_with_any_input_and_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one")
    before = digest(tmp_path, "x")
    assert digest(tmp_path, "x") == before
    (tmp_path / "a").write_text("two")
    assert digest(tmp_path, "x") != before
    assert digest(tmp_path, "y") != digest(tmp_path, "x")


def test_a_root_file_system_is_rebuilt_when_its_packages_change() -> None:
    one = Rootfs(name="n", suite="trixie", packages=["a"])
    assert one.key != Rootfs(name="n", suite="trixie", packages=["a", "b"]).key


@pytest.mark.parametrize(
    ("text", "fine"),
    [("go version go1.26.8 linux/amd64", True), ("go version go1.19.8 linux/amd64", False), ("", False)],
)
def test_an_old_compiler_is_not_taken(text: str, *, fine: bool) -> None:
    assert tools.fits(text) is fine


@pytest.mark.parametrize(
    "argv", [["up", "--port", "many"], ["fly"], [], ["up", "--name", "Not A Name"], ["images", "--only", "everything"]]
)
def test_bad_arguments_give_one_line_and_exit_64(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == 64
    printed = capsys.readouterr()
    assert len((printed.out + printed.err).strip().splitlines()) == 1


def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("up", "down", "images", "load", "tools", "push", "doctor", "clean"):
        with pytest.raises(SystemExit) as ended:
            cli.main([verb, "--help"])
        assert ended.value.code == 0
        assert verb in capsys.readouterr().out
