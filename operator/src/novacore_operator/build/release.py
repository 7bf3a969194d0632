"""Which image runs."""

from __future__ import annotations

from novacore_operator.api.spec import Spec


def image_of(spec: Spec) -> str:
    """Return the image of the nine services: by digest if one is given, else by tag, else by the release."""
    if spec.image.digest:
        return f"{spec.image.repository}@{spec.image.digest}"
    return f"{spec.image.repository}:{spec.image.tag or spec.version}"
