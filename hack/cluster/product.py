"""Our two images: `novacore/operator` and `novacore/workloads`.

Each build gets the release tag and a tag made from its content, so that a deploy names exactly what was built and pods
roll only when that changed. The names are written to `.tools/images.json` for the deploy step.
"""

from __future__ import annotations

import json
import re
import tomllib

from hack.cluster import engine
from hack.cluster.bases import Bases
from hack.cluster.errors import Problem
from hack.cluster.paths import IMAGES_FILE, ROOT, digest
from hack.cluster.stages import Stages, run, succeeds

PRODUCTS = ("operator", "workloads")


def version() -> str:
    """Return the release of this checkout."""
    return str(tomllib.loads((ROOT / "workloads/pyproject.toml").read_text())["project"]["version"])


def build(bases: Bases, stages: Stages, *, only: str = "") -> dict[str, str]:
    """Build one or both images; return and record `{operator, workloads, postgres, redis}` -> image name."""
    names = {**recorded(), "postgres": bases.postgres, "redis": bases.redis}
    for product in PRODUCTS:
        if only in ("", product):
            with stages.stage(f"building novacore/{product}"):
                names[product] = _build(product, bases.python)
    IMAGES_FILE.parent.mkdir(exist_ok=True)
    IMAGES_FILE.write_text(json.dumps(names, indent=2) + "\n")
    return names


def recorded() -> dict[str, str]:
    """Return what the last build wrote, or nothing."""
    return json.loads(IMAGES_FILE.read_text()) if IMAGES_FILE.exists() else {}


def built() -> list[str]:
    """Return the names to load; a Problem when nothing has been built."""
    names = recorded()
    if not names:
        raise Problem("no images have been built here", "run: make image")
    return list(names.values())


def push(registry: str) -> list[str]:
    """Tag both images for a registry and push them; return the names."""
    if not registry or "://" in registry:
        raise Problem("no registry given", "use: make push REGISTRY=registry.example.org/team")
    pushed = []
    for product in PRODUCTS:
        source, target = f"novacore/{product}:{version()}", f"{registry.rstrip('/')}/{product}:{version()}"
        if not engine.has_image(source):
            raise Problem(f"{source} has not been built", "run: make image")
        run([engine.docker(), "tag", source, target])
        run([engine.docker(), "push", "--quiet", target], why="is the registry reachable, and are you logged in?")
        pushed.append(target)
    return pushed


def _build(product: str, base: str) -> str:
    release = f"novacore/{product}:{version()}"
    revision = run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT).strip() if _in_git() else "unknown"
    arguments = {"BASE_IMAGE": base, "VERSION": version(), "REVISION": revision, "SOURCE": _source()}
    flags = tuple(word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}"))
    engine.build(ROOT, tag=release, dockerfile=ROOT / product / "Dockerfile", args=flags)
    development = f"novacore/{product}:dev-{_content_id(release)}"
    run([engine.docker(), "tag", release, development])
    engine.remove_older(f"novacore/{product}", keep=development, prefix="dev-")
    return development


def _content_id(image: str) -> str:
    """Return 12 hex over the layers and the run configuration, labels apart: a commit alone must roll no pod."""
    form = "{{json .RootFS.Layers}} {{json .Config.Entrypoint}} {{json .Config.Env}} {{.Config.User}}"
    return digest(run([engine.docker(), "image", "inspect", "--format", form, image]))


def _source() -> str:
    """Where the code came from, for the image's label: the clone's origin if it is an address, without credentials."""
    if not succeeds(["git", "-C", ROOT, "remote", "get-url", "origin"]):
        return ""
    return public_address(run(["git", "remote", "get-url", "origin"], cwd=ROOT).strip())


def public_address(remote: str) -> str:
    """Return a remote as an https address without a user, or "" when it is a path of this machine."""
    found = re.fullmatch(r"(?:https?://(?:[^@/]*@)?|ssh://git@|git@)([^/:]+)[/:](.+?)(?:\.git)?/?", remote)
    return f"https://{found[1]}/{found[2]}" if found else ""


def _in_git() -> bool:
    return succeeds(["git", "-C", ROOT, "rev-parse", "HEAD"])
