"""Reading `-f cr.yaml`: one NovaCoreDeployment, checked before anything is asked of the cluster.

The file is a stranger's: its size, its depth and its aliases are bounded. Rules that compare fields (CEL) are the API
server's; here only what the models say.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from novacore_operator.api import API_VERSION, KIND
from novacore_operator.api.spec import Spec
from novacore_operator.cli.errors import BadInput, one_line
from novacore_operator.cli.options import DNS_NAME, Options

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50  # the scanner's time is quadratic in the depth: 100,000 brackets take minutes
MAX_ALIASES = 20  # each can double the document when it is walked
MAX_MISTAKES = 20
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)


@dataclass(frozen=True, slots=True)
class SpecFile:
    """What the file asks for. `spec` is as the user wrote it."""

    name: str
    namespace: str | None
    spec: dict[str, Any]


def read(path: str) -> SpecFile:
    """Return the resource in a file, `-` for standard input. BadInput with a line per mistake."""
    shown = "standard input" if path == "-" else path
    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{shown}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise BadInput(f"{shown}: larger than 256 KiB: this is no {KIND}")
    return parse(data, shown=shown)


def parse(data: bytes, *, shown: str) -> SpecFile:
    """Return the resource in a YAML or JSON text."""
    body = _only_document(data, shown)
    for key, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if body.get(key) != wanted:
            raise BadInput(f"{shown}: {key} is {_quoted(body.get(key))}: it must be {wanted}")
    metadata, spec = body.get("metadata"), body.get("spec")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
        raise BadInput(f"{shown}: metadata.name is missing")
    for key in ("name", "namespace"):
        value = metadata.get(key)
        if value is not None and not (isinstance(value, str) and DNS_NAME.fullmatch(value)):
            raise BadInput(
                f"{shown}: metadata.{key} is {_quoted(value)}: it must be lower case letters, digits, dashes"
            )
    if not isinstance(spec, dict):
        raise BadInput(f"{shown}: spec is missing: it needs at least spec.version")
    mistakes = _mistakes(spec)
    if mistakes:
        raise BadInput("\n".join(f"{shown}: {mistake}" for mistake in mistakes))
    return SpecFile(name=metadata["name"], namespace=metadata.get("namespace"), spec=spec)


def joined(options: Options, file: SpecFile, *, shown: str) -> Options:
    """Return the options with the file's name and namespace. BadInput where both are given and differ."""
    pairs = (("name", "--name", options.name, file.name), ("namespace", "-n", options.namespace, file.namespace))
    for key, option, asked, written in pairs:
        if asked is not None and written is not None and asked != written:
            raise BadInput(f"{shown}: metadata.{key} is {written}, and {option} says {asked}: give one of the two")
    return replace(options, name=file.name, namespace=file.namespace or options.namespace)


def _only_document(data: bytes, shown: str) -> dict[str, Any]:
    try:
        text = data.decode("utf-8")
        _check_size(text, shown)
        documents = [document for document in yaml.load_all(text, Loader=LOADER) if document is not None]
    except UnicodeDecodeError:
        raise BadInput(f"{shown}: not UTF-8 text") from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput(f"{shown}: not YAML: {one_line(_where(error))}") from None
    if len(documents) != 1:
        raise BadInput(f"{shown}: {len(documents)} documents: give exactly one {KIND}")
    if not isinstance(documents[0], dict):
        raise BadInput(f"{shown}: a {type(documents[0]).__name__}, not a resource: it needs apiVersion, kind, spec")
    return documents[0]


def _check_size(text: str, shown: str) -> None:
    """Refuse what would take long to build: tokens come one by one, so nothing is built before it is refused."""
    depth = aliases = 0
    for token in yaml.scan(text, Loader=LOADER):
        depth += isinstance(token, OPENING) - isinstance(token, CLOSING)
        aliases += isinstance(token, yaml.AliasToken)
        if depth > MAX_DEPTH:
            raise BadInput(f"{shown}: nested deeper than {MAX_DEPTH} levels: this is no {KIND}")
        if aliases > MAX_ALIASES:
            raise BadInput(f"{shown}: more than {MAX_ALIASES} YAML aliases: write the values out")


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return str(error)
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '') or 'cannot be read'}"


def _mistakes(spec: dict[str, Any]) -> list[str]:
    """Return a line for each field the models refuse."""
    try:
        Spec.model_validate(spec)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    else:
        return []
    lines = []
    for item in found[:MAX_MISTAKES]:
        path = ".".join(("spec", *(str(part) for part in item["loc"])))
        unknown = item["type"] == "extra_forbidden"
        lines.append(one_line(f"{path}: {'there is no such field' if unknown else _lowered(item['msg'])}"))
    if len(found) > MAX_MISTAKES:
        lines.append(f"and {len(found) - MAX_MISTAKES} more mistakes")
    return lines


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:]


def _quoted(value: Any) -> str:
    return "missing" if value is None else one_line(repr(value))[:80]
