"""All objects of an installation, for tables over them."""

from __future__ import annotations

from typing import Any

from novacore_operator.build.installation import build_installation
from novacore_operator.build.site import Site
from novacore_operator.plan import contents_of, setting_of
from novacore_operator.rotation import mint
from novacore_operator.state import Manifest
from tests.unit.operator.make import NOW, Chance, World, make_material, make_nova

Objects = dict[tuple[str, str], Manifest]
"""By kind and name."""


def build(world: World | None = None, **spec: Any) -> Objects:
    """Return all objects by kind and name."""
    seen = (world or World()).seen()
    nova = make_nova(**spec)
    material = mint.complete(make_material(), setting_of(nova, seen), now=NOW, entropy=Chance("x"))
    objects = build_installation(Site(nova, seen, contents_of(nova, seen, material)))
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in objects}


def templates(objects: Objects) -> dict[str, dict[str, Any]]:
    """Return every pod template by its owner's name."""
    return {
        name: manifest["spec"]["template"]
        for (kind, name), manifest in objects.items()
        if kind in ("Deployment", "StatefulSet", "Job")
    }
