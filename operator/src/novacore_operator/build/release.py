"""Which image runs, and as what a release is stored."""

from __future__ import annotations

from novacore_operator.api.service import Image
from novacore_operator.api.spec import Spec
from novacore_operator.state import Kind

CONTROLLER_REVISION = Kind("ControllerRevision", "apps/v1", "controllerrevisions", wave=1)


def image_for(spec: Spec, service: str) -> Image:
    """Return where the image of one service comes from: its own settings, the rest from `spec.image`.

    A tag or digest of its own replaces both of those: the digest of another image would win over the tag otherwise.
    """
    own = spec.of(service).image
    if own is None:
        return spec.image
    changes = own.model_dump(exclude_none=True)
    if own.tag or own.digest:
        changes = {"tag": None, "digest": None, **changes}
    return spec.image.model_copy(update=changes)


def image_of(spec: Spec, image: Image | None = None) -> str:
    """Return an image's reference: by digest if one is given, else by tag, else by the release."""
    image = image or spec.image
    if image.digest:
        return f"{image.repository}@{image.digest}"
    return f"{image.repository}:{image.tag or spec.version}"


def since(spec: Spec, release: str) -> bool:
    """Return whether a release is `release` or a later one.

    What a pod looks like follows from the release alone, so that a newer operator restarts nothing: each change of a
    template asks here (`tests/unit/operator/build/templates.json` holds the older ones).
    """
    return spec.since(release)


def release_arguments(spec: Spec, service: str | None = None) -> list[str]:
    """Return the arguments by which an image makes sure that it is the release: another one ends at once and says so.

    Without `service`: of the migration. None where a tag or digest names the image: then nobody knows its release.
    """
    image = spec.image if service is None else image_for(spec, service)
    if image.tag or image.digest or not since(spec, "0.2.0"):
        return []
    return [f"--release={spec.version}"]
