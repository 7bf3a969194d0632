"""docs/invariants.md: which promise is made where, and which test proves it.

Module docstrings state invariants with an id (`QUEUE-1 …`); a test names the ids that it proves, by
`@pytest.mark.invariant("QUEUE-1")` or in its docstring. An id without a test is listed as such, and
tests/unit/docs fails on it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCES = ("contracts/src", "operator/src", "workloads/src")
ID = re.compile(r"\b(?!SHA-|UTF-|RFC-|ISO-|AES-|RS-|ES-|HS-)([A-Z][A-Z]{2,}-\d+)\b")
_END = r"(?=(?:[;.]?\s+(?:[Ii]nvariants?:?\s+)?[A-Z]{3,}-\d+\b)|[.;]\s+Not here:|\n\s*\n|\Z)"
STATEMENT = re.compile(r"\b([A-Z]{3,}-\d+)[:,]?\s+(.+?)" + _END, re.DOTALL)


def files(root: Path) -> dict[Path, str]:
    """Return the page."""
    promised, proofs = promises(root), proven(root)
    lines = [
        "<!-- written by hack/gen/invariants.py; run: make gen -->",
        "# Invariants",
        "",
        "What must always hold, where it is promised, and the tests that prove it.",
        "",
        "| id | promise | where | proven by |",
        "|---|---|---|---|",
    ]
    for name, (text, where) in sorted(promised.items(), key=lambda item: _order(item[0])):
        tests = "<br>".join(f"`{test}`" for test in proofs.get(name, [])) or "**no test**"
        lines.append(f"| {name} | {text.replace('|', '&#124;')} | `{where}` | {tests} |")
    return {root / "docs/invariants.md": "\n".join(lines) + "\n"}


def promises(root: Path) -> dict[str, tuple[str, str]]:
    """Return id -> (sentence, file) from the module docstrings and SQL comments of the sources."""
    found: dict[str, tuple[str, str]] = {}
    for folder in SOURCES:
        for file in sorted([*(root / folder).rglob("*.py"), *(root / folder).rglob("*.sql")]):
            doc = _doc(file)
            for name, text in STATEMENT.findall(doc):
                if ID.fullmatch(name):
                    sentence = " ".join(text.split()).rstrip(";. ")
                    found.setdefault(name, (sentence, str(file.relative_to(root))))
    return found


def proven(root: Path) -> dict[str, list[str]]:
    """Return id -> test names, from markers and docstrings below tests/."""
    found: dict[str, list[str]] = {}
    for file in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                words = " ".join([ast.get_docstring(node) or "", *map(ast.unparse, node.decorator_list)])
                label = node.name
            elif isinstance(node, ast.Assign) and "invariant" in ast.unparse(node.value):
                words, label = ast.unparse(node.value), ast.unparse(node.targets[0])
            else:
                continue
            for name in sorted(set(ID.findall(words))):
                found.setdefault(name, []).append(f"{file.relative_to(root / 'tests')}::{label}")
    return found


def _doc(file: Path) -> str:
    """Return a Python module's docstring, or the comments of an SQL file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".sql":
        return "\n".join(
            line.strip().lstrip("-").strip() for line in text.splitlines() if line.strip().startswith("--")
        )
    return ast.get_docstring(ast.parse(text)) or ""


def _order(name: str) -> tuple[str, int]:
    area, number = name.rsplit("-", 1)
    return area, int(number)
