"""Places on disk. Everything of ours is below `.tools/`, which git ignores."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".tools"
BIN = STATE / "bin"
TOOLS = ROOT / "hack" / "tools"
IMAGES_FILE = STATE / "images.json"
ENGINE_LOG = STATE / "dockerd.log"
ENGINE_PID = STATE / "dockerd.pid"
LOCK = STATE / "lock"


def kubeconfig(name: str) -> Path:
    """Kubeconfig of one cluster; never the user's own."""
    return STATE / f"kubeconfig-{name}"


def loaded(name: str) -> Path:
    """What `load` sent to the node of one cluster."""
    return STATE / f"loaded-{name}.json"


def digest(*parts: str | Path) -> str:
    """Return 12 hex of a hash over texts and files (a directory: all its files, by path). Equal inputs, equal tag."""
    seen = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            seen.update(part.encode())
            continue
        files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
        for file in files:
            seen.update(str(file.relative_to(part.parent)).encode())
            seen.update(file.read_bytes())
    return seen.hexdigest()[:12]
