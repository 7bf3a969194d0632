"""A throw-away copy of a commit, for tests that build images of another state of the repository."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / ".tools/tree"
CLUSTER = "novacore-test"
PORT = 5055


@contextmanager
def copy_of(commit: str) -> Iterator[Path]:
    """Give a work tree of a commit that shares our tools, container engine and test cluster."""
    tools()
    subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
    subprocess.run(
        ["git", "worktree", "add", "--force", "--detach", "--quiet", str(TREE), commit], cwd=ROOT, check=True
    )
    try:
        (TREE / ".tools").symlink_to(ROOT / ".tools")
        yield TREE
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(TREE)], cwd=ROOT, check=True)
        tools()  # the copy's have linked .tools/bin to themselves


def tools() -> None:
    """Start the container engine and link the tools from here: both outlive a copy."""
    hack(ROOT, "tools")
    hack(ROOT, "up", "--name", CLUSTER, "--port", str(PORT), "--replace")


def hack(tree: Path, *arguments: str, module: str = "hack.cluster") -> None:
    """Run a command of a tree's own `hack/`."""
    subprocess.run([sys.executable, "-m", module, *arguments], cwd=tree, check=True)


def commit_of(tree: Path = ROOT) -> str:
    """Return the short name of a tree's commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
