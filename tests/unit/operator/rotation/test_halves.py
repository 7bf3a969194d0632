"""Private entries, minted and seen."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from novacore_contracts.keyset import RingDocument
from novacore_operator.rotation import forms, halves, mint, rings
from novacore_operator.state import names
from tests.unit.operator.make import NOW, Chance, make_material, no_chance

RING = "serviceJwt"
UNIX = int(NOW.timestamp())


def test_the_entries_of_a_first_install_are_seen_with_their_keys() -> None:
    material = make_material()
    root = mint.sound_es256(material[names.root_secret("test")][mint.ROOT_KEY], "root-")
    assert root is not None
    document = forms.read_document(material[names.KEYSET][f"{RING}.jws"], root, RING)
    assert document is not None
    seen = halves.read(RING, material[names.SERVICE_JWT_PRIVATE])
    assert [(half.n, half.kid) for half in seen] == [(key.n, key.kid) for key in document.keys]
    assert [half.public for half in seen] == [key.material for key in document.keys]


@pytest.mark.invariant("HALF-1")
def test_a_minted_entry_is_seen_without_its_private_half() -> None:
    name, entry = halves.mint(RING, 7, why="revoke/x", now=UNIX + 0.7, entropy=Chance("halves"))
    [half] = halves.read(RING, {name: entry})
    private = json.loads(entry)["d"]
    assert name == "serviceJwt-7.jwk"
    assert (half.name, half.n, half.why, half.minted_at) == (name, 7, "revoke/x", UNIX)
    assert "d" not in half.public
    assert private not in repr(half) + repr(half.public)


@pytest.mark.invariant("HALF-1")
@pytest.mark.parametrize("what", ["another number", "another ring", "no key", "its public half exchanged"])
def test_an_entry_that_is_not_what_its_name_says_is_none(what: str) -> None:
    name, entry = halves.mint(RING, 7, why="", now=UNIX, entropy=Chance("halves"))
    other = json.loads(halves.mint(RING, 7, why="", now=UNIX, entropy=Chance("other"))[1])
    wrong = {
        "another number": ("serviceJwt-8.jwk", entry),
        "another ring": halves.mint("userJwt", 7, why="", now=UNIX, entropy=Chance("halves")),
        "no key": (name, b"{}"),
        "its public half exchanged": (name, forms.dumps(json.loads(entry) | {"x": other["x"]})),
    }[what]
    assert halves.read(RING, {wrong[0]: wrong[1]}) == ()
    assert len(halves.read(RING, {name: entry, "junk": b"\xff"})) == 1


def test_what_a_rotation_leaves_is_complete_material_as_it_is() -> None:
    """A rotation's document and entries, written by hand of its parts, are not minted over."""
    material = {name: dict(data) for name, data in make_material().items()}
    root = mint.sound_es256(material[names.root_secret("test")][mint.ROOT_KEY], "root-")
    assert root is not None
    private = material[names.SERVICE_JWT_PRIVATE]
    document: RingDocument | None = forms.read_document(material[names.KEYSET][f"{RING}.jws"], root, RING)
    assert document is not None
    document = rings.activate(document, now=UNIX, trigger="rotate/x")
    name, entry = halves.mint(RING, 3, why="", now=UNIX, entropy=Chance("third"))
    private[name] = entry
    document = rings.mint_standby(document, halves.read(RING, private)[-1], now=UNIX)
    material[names.KEYSET][f"{RING}.jws"] = forms.sign_document(document, root)
    again = mint.complete(material, mint.Setting("test"), now=NOW + timedelta(hours=1), entropy=no_chance)
    assert again == material
    retired = rings.retire(document, document.keys[0].kid, now=UNIX, until=UNIX + 9)
    assert forms.read_document(forms.sign_document(retired, root), root, RING) == retired
