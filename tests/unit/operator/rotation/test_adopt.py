"""What somebody edited while no operator ran is kept if it is sound, and never overwritten if the data hang on it."""

from __future__ import annotations

import pytest

from novacore_operator.errors import Blocked
from novacore_operator.reasons import Reason
from novacore_operator.rotation import mint
from novacore_operator.rotation.adopt import adopt
from novacore_operator.state import Material, Sealed, names
from tests.unit.operator.make import NOW, Chance, make_material, no_chance

SETTING = mint.Setting("test")
ROOT = names.root_secret("test")
SECRETS = sorted(make_material())
MEMORY = names.creds("memory")


def edited(*secrets: str) -> tuple[Material, dict[str, Sealed]]:
    """Return complete material as found when somebody else owns all of some Secrets."""
    material = make_material()
    have = {name: {} if name in secrets else data for name, data in material.items()}
    return have, {name: Sealed(material[name]) for name in secrets}


@pytest.mark.parametrize("secret", SECRETS)
def test_a_sound_secret_that_somebody_else_owns_is_kept(secret: str) -> None:
    have, foreign = edited(secret)
    assert mint.complete(adopt(have, foreign, SETTING), SETTING, now=NOW, entropy=no_chance) == make_material()


def test_an_installation_restored_from_a_backup_is_kept_whole() -> None:
    """A backup does not bring `managedFields` back."""
    have, foreign = edited(*SECRETS)
    assert mint.complete(adopt(have, foreign, SETTING), SETTING, now=NOW, entropy=no_chance) == make_material()


def test_a_new_admin_password_is_taken_and_gets_its_verifier() -> None:
    have, foreign = edited(names.POSTGRES_ADMIN)
    foreign[names.POSTGRES_ADMIN] = Sealed({**make_material()[names.POSTGRES_ADMIN], "password": b"n" * 40})
    made = mint.complete(adopt(have, foreign, SETTING), SETTING, now=NOW, entropy=Chance("x"))
    assert made[names.POSTGRES_ADMIN]["password"] == b"n" * 40


@pytest.mark.parametrize(
    ("secret", "key", "value"),
    [
        (names.POSTGRES_ADMIN, "password", b"short"),
        (names.POSTGRES_ADMIN, "password", b"\xff" * 40),
        (names.POSTGRES_ADMIN, "password", b"p" * 40 + b"\n"),
        (names.POLICY_PRIVATE, "policy-1.jwk", b"garbage"),
        (MEMORY, "postgres.jws", b"garbage"),
    ],
)
def test_unusable_material_of_the_data_blocks_and_is_not_told(secret: str, key: str, value: bytes) -> None:
    """ADOPT-3."""
    have, foreign = edited(secret)
    foreign[secret] = Sealed({**make_material()[secret], key: value})
    with pytest.raises(Blocked, match=secret) as caught:
        adopt(have, foreign, SETTING)
    assert caught.value.reason is Reason.SECRET_MALFORMED
    assert value.decode(errors="replace") not in caught.value.message


def test_what_is_absent_is_minted() -> None:
    have, foreign = edited(names.POSTGRES_ADMIN)
    foreign[names.POSTGRES_ADMIN] = Sealed({"note": b"mine"})
    made = mint.complete(adopt(have, foreign, SETTING), SETTING, now=NOW, entropy=Chance("x"))
    assert set(made[names.POSTGRES_ADMIN]) == {"password", "scram"}


def test_what_does_not_verify_is_not_taken() -> None:
    """ADOPT-2, MINT-4: a forged document, and a sound private key that no document names."""
    other = mint.complete({}, SETTING, now=NOW, entropy=Chance("other"))
    have, _ = edited(names.KEYSET)
    assert adopt(have, {names.KEYSET: Sealed(other[names.KEYSET])}, SETTING)[names.KEYSET] == {}
    added = Sealed({"serviceJwt-9.jwk": other[names.SERVICE_JWT_PRIVATE]["serviceJwt-1.jwk"]})
    assert adopt(make_material(), {names.SERVICE_JWT_PRIVATE: added}, SETTING) == make_material()


def test_an_entry_of_ours_is_never_replaced() -> None:
    """ADOPT-1."""
    foreign = {name: Sealed(dict.fromkeys(data, b"x")) for name, data in make_material().items()}
    assert adopt(make_material(), foreign, SETTING) == make_material()
