"""The manifests of installations, built anew only when something that a builder looked at has changed. Pure.

Building some eighty manifests and their digests is most of what a turn costs. A roll-out takes some twenty turns, one
for each word from a workload, and between two of them hardly anything that a builder looks at is another. The last few
installations are remembered: with more at once each is built once a turn, as without a memory.

Invariant MADE-1: what is remembered is what `build` would return.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from novacore_operator.api.spec import Spec
from novacore_operator.plan import build, setting_of
from novacore_operator.rotation import mint
from novacore_operator.state import Live, Manifest, Material, Nova, Observed, Ref

KEPT = 8
"""Installations, each about 0.4 MiB."""


class Made:
    """What was built lately. Nobody may change what it returns."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._known: OrderedDict[tuple[str, str], _Built] = OrderedDict()  # by namespace and uid of the resource

    def of(self, nova: Nova, seen: Observed, material: Material) -> Mapping[Ref, Manifest]:
        """Return what must exist."""
        setting = setting_of(nova, seen)
        key = (nova.namespace, nova.uid)
        known = self._known.get(key)
        if known is None or not known.fits(nova, setting, seen, material):
            looked_at = _Looked(seen.objects)
            manifests = build(nova, replace(seen, objects=looked_at), material)
            known = _Built(nova.spec, setting, seen.operator_namespace, material, looked_at, manifests)
            self._known[key] = known
            if len(self._known) > self._kept:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return known.manifests

    def forget(self, namespace: str) -> None:
        """Drop what is kept of a namespace, its keys and passwords with it."""
        for key in [key for key in self._known if key[0] == namespace]:
            del self._known[key]


@dataclass(frozen=True, slots=True)
class _Built:
    """The manifests, and what they follow from. Name, namespace and uid of a resource never change."""

    spec: Spec
    setting: mint.Setting = field(repr=False)
    operator_namespace: str
    material: Material = field(repr=False)
    looked_at: _Looked
    manifests: Mapping[Ref, Manifest] = field(repr=False)

    def fits(self, nova: Nova, setting: mint.Setting, seen: Observed, material: Material) -> bool:
        """Return whether building now would give the same."""
        return (
            self.looked_at.same(seen.objects)
            and self.operator_namespace == seen.operator_namespace
            and self.spec == nova.spec
            and self.setting == setting
            and self.material == material
        )


class _Looked(Mapping[Ref, Live]):
    """Objects that remember what was asked of them."""

    def __init__(self, objects: Mapping[Ref, Live]) -> None:
        self._objects: Mapping[Ref, Live] = objects
        self._asked: dict[Ref, Live | None] = {}
        self._walked = False

    def __getitem__(self, ref: Ref) -> Live:
        self._asked[ref] = self._objects.get(ref)
        return self._objects[ref]

    def __iter__(self) -> Iterator[Ref]:
        self._walked = True
        return iter(self._objects)

    def __len__(self) -> int:
        self._walked = True
        return len(self._objects)

    def same(self, objects: Mapping[Ref, Live]) -> bool:
        """Whether the same questions would have the same answers."""
        return not self._walked and all(objects.get(ref) == live for ref, live in self._asked.items())
