"""What a service refuses to start with."""

from __future__ import annotations

import json

import pytest

from novacore.common.settings import CommonSettings, SettingsError, load_settings, read_settings
from novacore_contracts.paths import Paths
from tests.kit.keys import put


def read(tmp_path, text, env=None):
    put(Paths(tmp_path).settings / "settings.yaml", text)
    return read_settings(CommonSettings, paths_=Paths(tmp_path), env=env or {})


def test_reads_a_file_and_fills_in_defaults(tmp_path):
    settings = read(tmp_path, "version: 0.2.0\nlog_level: debug\n")

    assert (settings.version, settings.log_level) == ("0.2.0", "debug")
    assert settings.tiers.of("pro").llm_tokens_per_day == -1
    assert settings.tiers.of("no such tier") == settings.tiers.free_trial


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("no_such_key: 1", "no_such_key"),
        ("tiers: {gold: {}}", "tiers.gold"),
        ("log_level: loud", "log_level"),
        ("- a list", "settings.yaml"),
        ("{", "settings.yaml"),
        ("profile: Production\npostgres_insecure: true", "settings"),
    ],
)
def test_refuses_and_names_the_setting(tmp_path, text, setting):
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)

    assert caught.value.setting == setting


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="missing"):
        read_settings(CommonSettings, paths_=Paths(tmp_path), env={})


def test_a_variable_overrides_and_a_secret_variable_is_refused(tmp_path):
    assert read(tmp_path, "", {"NOVA_LOG_LEVEL": "error", "NOVA_ROOT": "/x"}).log_level == "error"
    with pytest.raises(SettingsError, match="must not come by environment"):
        read(tmp_path, "", {"NOVA_POSTGRES_PASSWORD": "hunter2"})


def test_the_process_ends_with_78_one_line_and_no_value(tmp_path, capsys):
    put(Paths(tmp_path).settings / "settings.yaml", "log_level: hunter2")

    with pytest.raises(SystemExit) as caught:
        load_settings(CommonSettings, paths_=Paths(tmp_path), env={})

    assert caught.value.code == 78
    line = json.loads(capsys.readouterr().out)
    assert line["setting"] == "log_level"
    assert "hunter2" not in json.dumps(line)
