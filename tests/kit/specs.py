"""Random changes of a spec that reach every field of the resource, for tests that ask what a change leads to.

The fields are read from the CRD, so a new one is reached by itself. What a schema says of a value (its type, its words,
the bounds in its CEL rules) is used; what a text means it does not say: that stands in `TEXTS`. A text that is neither
there, nor has a value in the table of CEL cases, is an `UnknownFieldError`: whoever adds a field sees at once that the
generator does not know it. Rules over several fields are left to the API server: a candidate that it refuses is thrown
away, and whatever the table of CEL cases shows to be accepted is one of the candidates.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from novacore_contracts.releases import RELEASES
from novacore_operator.api.crd import custom_resource_definition
from novacore_operator.api.fields import RULES
from novacore_operator.api.spec import SERVICE_NAMES
from novacore_operator.api.stores import LOGINS
from tests.api.cel_cases import CASES

Json = Any
Path = tuple[str, ...]
"""`*` is any key of a map, `[]` any item of a list: `services.*.tolerations.[].key`."""

SECRETS = ("named-a", "named-b")
"""Secrets that exist with every key, and that the operator may read."""
MISSING_SECRET = "named-but-missing"

SIZES = ("1Gi", "2Gi", "3Gi", "5Gi", "6Gi", "8Gi", "10Gi", "12Gi", "16Gi", "20Gi", "24Gi", "32Gi", "48Gi", "64Gi")
AFFINITY = (
    {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                                           "labelSelector": {"matchLabels": {"app.kubernetes.io/part-of": "novacore"}}}}]}},
    {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "example.org/zone", "operator": "In", "values": ["a", "b"]}]}]}}},
)  # fmt: skip

TEXTS: Mapping[str, Sequence[Json]] = {
    "version": (*RELEASES * 4, "9.9.9"),  # the last one blocks
    "repository": ("novacore/workloads", "registry.example.org/team/workloads"),
    "tag": ("0.1.0", "trial", "nightly-2"),
    "digest": ("sha256:" + "ab" * 32, "sha256:" + "0c" * 32),
    "pullSecrets.[]": ("registry", "mirror"),
    "cron": ("* * * * *",) * 6 + ("0 0 29 2 *", "61 * * * *"),  # always open, shut, not a schedule
    "timezone": ("UTC", "Europe/Berlin", "America/Sao_Paulo"),
    "duration": ("10m", "2h", "1h30m"),
    "cidr": ("192.0.2.0/24", "198.51.100.0/25", "2001:db8::/32"),
    "model": ("small", "large"),
    "baseURL": ("http://models.example.org:11434", "https://models.example.org/v1"),
    "key": ("apiKey", "password"),
    "prices.basic": ("price_1", "price_2"),
    "prices.pro": ("price_3",),
    "returnURL": ("https://app.example.org",),
    "postgres.image": ("pgvector/pgvector:pg18", "registry.example.org/pgvector:pg17"),
    "imageName": ("registry.example.org/postgresql:18", "registry.example.org/postgresql:17"),
    "redis.image": ("redis:8.0", "registry.example.org/redis:7.4"),
    "tolerations.[].key": ("example.org/pool", "spot"),
    "tolerations.[].value": ("a", "b"),
    "topologyKey": ("kubernetes.io/hostname", "topology.kubernetes.io/zone"),
    "priorityClassName": ("system-cluster-critical", "system-node-critical"),
    "className": ("standard",),
    "cpu": ("50m", "100m", "250m", "500m", "1", "2"),
    "memory": ("128Mi", "256Mi", "512Mi", "1Gi", "2Gi", "1500M"),
    "size": SIZES,
}
"""Values of texts, by the end of the field's path; the longest end that fits counts."""

KEYS: Mapping[str, Sequence[str]] = {
    "services": SERVICE_NAMES,
    "perServiceSecretRefs": LOGINS,
    "env": ("HTTP_PROXY", "TZ", "LC_ALL"),
    "podAnnotations": ("example.org/note", "linkerd.io/inject"),
    "podLabels": ("example.org/team", "tier"),
    "nodeSelector": ("example.org/pool", "kubernetes.io/arch"),
    "matchLabels": ("kubernetes.io/metadata.name", "example.org/team"),
}
"""Keys of maps, in the same manner."""

FREE: Mapping[str, Sequence[Json]] = {"affinity": AFFINITY}
"""Values of parts that are handed to Kubernetes as they are."""
WORDS = ("a", "b", "true")
"""Values in maps of texts: labels, variables."""
NUMBERS: Mapping[str, Sequence[int]] = {"canary.seconds": (10, 11)}
"""Whole numbers of which only some are of use: a sweep waits for each canary."""
INTEGERS = (0, 1, 30, 300)
"""Whole numbers of which no rule says how great they may be."""


class UnknownFieldError(LookupError):
    """The generator does not know what to put into a field."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One field that a change can be about."""

    path: Path

    def __str__(self) -> str:
        """As the documentation writes it."""
        return dotted(self.path)


def dotted(path: Path) -> str:
    """Return a path as text: `services.*.tolerations.[].key`."""
    return ".".join(path)


@cache
def schema() -> Json:
    """Return the schema of the spec, as the CRD has it."""
    return custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]


def is_free(node: Json) -> bool:
    """Whether a node takes what Kubernetes takes."""
    return bool(node.get("x-kubernetes-preserve-unknown-fields"))


def leaves(node: Json | None = None, path: Path = ()) -> Iterator[Leaf]:
    """Yield the fields: texts, numbers, words, and maps and lists of those."""
    node = schema() if node is None else node
    if "properties" in node:
        for name, part in node["properties"].items():
            yield from leaves(part, (*path, name))
    elif isinstance(node.get("additionalProperties"), dict) and "properties" in node["additionalProperties"]:
        yield from leaves(node["additionalProperties"], (*path, "*"))
    elif "items" in node and "properties" in node["items"]:
        yield from leaves(node["items"], (*path, "[]"))
    elif len(node.get("enum", ())) != 1:  # one word is no choice
        yield Leaf(path)


def flat(value: Json, node: Json | None = None, path: Path = ()) -> dict[Path, list[Json]]:
    """Return the values that a spec has at each leaf: of several (services, items of a list), all of them."""
    node = schema() if node is None else node
    found: dict[Path, list[Json]] = {}
    parts: list[tuple[Path, Json, Json]] = []
    if "properties" in node:
        parts = [((*path, name), value[name], part) for name, part in node["properties"].items() if name in value]
    elif isinstance(node.get("additionalProperties"), dict) and "properties" in node["additionalProperties"]:
        parts = [((*path, "*"), value[key], node["additionalProperties"]) for key in sorted(value)]
    elif "items" in node and "properties" in node["items"]:
        parts = [((*path, "[]"), item, node["items"]) for item in value]
    else:
        return {path: [value]}
    for where, item, part in parts:
        for leaf, values in flat(item, part, where).items():
            found.setdefault(leaf, []).extend(values)
    return found


def changed(before: Json, after: Json) -> frozenset[Path]:
    """Return the leaves at which two specs differ."""
    old, new = flat(before), flat(after)
    return frozenset(path for path in {*old, *new} if old.get(path) != new.get(path))


# --- values -----------------------------------------------------------------------------------------------------------


@cache
def shown() -> Mapping[Path, tuple[Json, ...]]:
    """Return the values that the table of CEL cases has for each leaf, of the specs that are accepted."""
    found: dict[Path, list[Json]] = {}
    for case in CASES:
        for path, values in flat(case.accepted).items():
            found.setdefault(path, []).extend(values)
    return {path: tuple(values) for path, values in found.items()}


@cache
def beside(leaf: Leaf) -> tuple[Json, ...]:
    """Return the accepted specs of the table of CEL cases that set a field, or one beside it."""
    near = leaf.path[:-1]
    return tuple(case.accepted for case in CASES if any(path[:-1] == near for path in flat(case.accepted)))


def _fitting(table: Mapping[str, Sequence[Any]], path: Path) -> Sequence[Any] | None:
    for start in range(len(path)):
        end = dotted(path[start:])
        if end in table:
            return table[end]
    return None


def bounds(path: Path) -> tuple[int | None, int | None]:
    """Return the least and the greatest value of a whole number, from its CEL rules and those of what it is a part of."""
    node, texts = schema(), []
    for step in path:
        texts = [rule["rule"].replace(f"self.{path[-1]} ", "self ") for rule in node.get(RULES, ())]
        node = _inner(node, step)
    texts += [rule["rule"] for rule in node.get(RULES, ())]
    least = [int(number) for text in texts for number in re.findall(r"\bself >= (-?\d+)", text)]
    most = [int(number) for text in texts for number in re.findall(r"\bself <= (-?\d+)", text)]
    return max(least, default=None), min(most, default=None)


def _inner(node: Json, step: str) -> Json:
    if step == "*":
        return node["additionalProperties"]
    return node["items"] if step == "[]" else node["properties"][step]


@dataclass(frozen=True, slots=True)
class Generator:
    """Draws values and changes. One `random.Random`: the same seed, the same changes."""

    rng: random.Random

    def value(self, node: Json, path: Path, *, needed: Path = (), now: Json = None) -> Json:
        """Return a value for a node. `needed`: what must be in it, seen from here; `now`: what stands there."""
        if is_free(node):
            return copy.deepcopy(self._of(_fitting(FREE, path), path))
        if "enum" in node:
            return self.rng.choice(node["enum"])
        if "properties" in node:
            return self._object(node, path, needed)
        made = {
            "boolean": lambda: not now if isinstance(now, bool) else self.rng.random() < 0.5,
            "integer": lambda: self._integer(path),
            "string": lambda: self._text(path, now),
            "array": lambda: self._list(node, path, needed),
            "object": lambda: self._map(node, path, needed),
        }
        return made[node["type"]]()

    def candidate(self, spec: Json, leaf: Leaf | None = None) -> Json:
        """Return a changed spec: one leaf (the one given, or any) set, taken out, or set as a CEL case shows it."""
        leaf = leaf or self.rng.choice(ALL)
        way = self.rng.random()
        if way < 0.2 and (known := beside(leaf)):
            result = self.naming(merged(spec, self.rng.choice(known)))
            if leaf.path not in flat(result):
                self._set(result, schema(), leaf.path, ())
            return result
        result = copy.deepcopy(spec)
        if way < 0.35:
            without(result, leaf.path, self.rng)
        else:
            self._set(result, schema(), leaf.path, ())
        return result

    def naming(self, value: Json, path: Path = ()) -> Json:
        """Return a spec that names our Secrets where a CEL case names one of its own."""
        if isinstance(value, dict):
            return {key: self.naming(item, (*path, key)) for key, item in value.items()}
        named = path[-1:] == ("name",) and (path[-2].endswith("Ref") or "perServiceSecretRefs" in path)
        foreign = named and value not in (*SECRETS, MISSING_SECRET)
        return self.rng.choice(SECRETS) if foreign else value

    # --- inside -------------------------------------------------------------------------------------------------------

    def _of(self, values: Sequence[Json] | None, path: Path) -> Json:
        known = [*(values or ()), *(shown().get(path, ()) if values is None else ())]
        if not known:
            raise UnknownFieldError(
                f"spec.{dotted(path)}: tests/kit/specs.py does not know a value for it: add some to TEXTS, KEYS or FREE"
            )
        return self.rng.choice(known)

    def _text(self, path: Path, now: Json) -> Json:
        if path[-1] == "size":  # a volume only grows
            known = SIZES[SIZES.index(now) if now in SIZES else 0 :]
            return known[min(int(self.rng.expovariate(1.0)), len(known) - 1)]
        if path[-1] == "name" and _fitting(TEXTS, path) is None:  # of a Secret
            return MISSING_SECRET if self.rng.random() < 0.05 else self.rng.choice(SECRETS)
        return self._of(_fitting(TEXTS, path), path)

    def _integer(self, path: Path) -> int:
        useful = _fitting(NUMBERS, path)
        if useful is not None:
            return int(self.rng.choice(useful))
        least, most = bounds(path)
        if most is None:
            return self.rng.choice([number for number in INTEGERS if number >= (least or 0)])
        least = 0 if least is None else least
        near = [number for number in (least, least + 1, least + 2, most - 1, most) if least <= number <= most]
        return self.rng.choice([*near, self.rng.randint(least, most)])

    def _object(self, node: Json, path: Path, needed: Path) -> Json:
        chosen = set(node.get("required", ())) | set(needed[:1])
        chosen |= {name for name in node["properties"] if self.rng.random() < 0.15}
        return {
            name: self.value(part, (*path, name), needed=needed[1:] if name in needed[:1] else ())
            for name, part in node["properties"].items()
            if name in chosen
        }

    def _list(self, node: Json, path: Path, needed: Path) -> Json:
        items = [self.value(node["items"], (*path, "[]"), needed=needed[1:])]
        if self.rng.random() < 0.25:
            items.append(self.value(node["items"], (*path, "[]")))
        return items

    def _map(self, node: Json, path: Path, needed: Path) -> Json:
        keys = self._keys(path)
        chosen = self.rng.sample(keys, self.rng.randint(1, min(2, len(keys))))
        if node["additionalProperties"].get("type") == "string":
            return {key: self.rng.choice(WORDS) for key in sorted(chosen)}
        return {key: self.value(node["additionalProperties"], (*path, "*"), needed=needed[1:]) for key in chosen[:1]}

    def _keys(self, path: Path) -> list[str]:
        keys = _fitting(KEYS, path)
        if keys is None:
            raise UnknownFieldError(f"spec.{dotted(path)}: tests/kit/specs.py does not know its keys: add some to KEYS")
        return list(keys)

    def _set(self, at: Json, node: Json, rest: Path, path: Path) -> None:
        """Set a leaf below an object or a map, and leave what stands beside it."""
        step, *more = rest
        key = self.rng.choice(self._keys(path)) if step == "*" else step
        inner = _inner(node, step)
        here = (*path, step)
        if more and more[0] != "[]" and not is_free(inner):
            if key not in at:
                at[key] = self.value(inner, here, needed=tuple(more)) if inner.get("required") else {}
            self._set(at[key], inner, tuple(more), here)
        else:
            at[key] = self.value(inner, here, needed=tuple(more), now=at.get(key))


ALL: tuple[Leaf, ...] = tuple(leaves())


def without(spec: Json, path: Path, rng: random.Random) -> None:
    """Take a leaf, or something that it is a part of, out of a spec; nothing where it is not there."""
    depth = rng.randint(1, len(path))
    at = spec
    for step in path[: depth - 1]:
        if step == "[]" or not isinstance(at, dict) or not at:
            return
        key = rng.choice(sorted(at)) if step == "*" else step
        if key not in at:
            return
        at = at[key]
    last = path[depth - 1]
    if not isinstance(at, dict) or not at or last == "[]" or path[:depth] == ("version",):
        return
    at.pop(rng.choice(sorted(at)) if last == "*" else last, None)


def merged(spec: Json, more: Json) -> Json:
    """Return a spec with what another one sets; maps are joined, the rest is replaced. The release stays."""
    result = copy.deepcopy(spec)
    for key, value in more.items():
        if key == "version":
            continue
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result
