"""The OpenAPI document of each service, as committed in `tests/contract/openapi/` and checked for drift."""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from novacore.common.app import ServiceDefinition, make_apps
from novacore.common.settings import CommonSettings
from novacore_contracts.paths import Paths
from novacore_contracts.services import BY_NAME, SERVICES

FOLDER = Path("tests/contract/openapi")


def definition_of(service: str) -> ServiceDefinition[Any]:
    """Return the definition of a service by name. KeyError when there is no such service."""
    definition: ServiceDefinition[Any] = importlib.import_module(f"novacore.{BY_NAME[service].module}.app").DEFINITION
    return definition


def document(service: str) -> dict[str, Any]:
    """Return the OpenAPI document of a service's own listener. Needs no mounts and opens no connection."""
    definition = definition_of(service)
    settings: CommonSettings = definition.settings()
    with tempfile.TemporaryDirectory() as folder:
        paths = Paths(Path(folder))
        paths.creds.mkdir(parents=True)
        (paths.creds / "log.key").write_text("00" * 32)
        return make_apps(definition, settings, paths=paths).public.openapi()


def files(root: Path) -> dict[Path, str]:
    """Return what the repository must contain: one JSON file for each service with a port."""
    return {
        root / FOLDER / f"{service.name}.json": json.dumps(document(service.name), indent=2, ensure_ascii=False) + "\n"
        for service in SERVICES
        if service.port is not None
    }
