"""One spelling per address: what is stored, compared and counted. Pure."""

from __future__ import annotations

import unicodedata

EMAIL_CHARACTERS_MAX = 254
LOCAL_CHARACTERS_MAX = 64
_LOCAL_EXTRA = frozenset("!#$%&'*+-/=?^_`{|}~.")


def canonical(raw: str) -> str:
    """Return the address trimmed, NFC and lower-cased. ValueError (a public sentence) when it is no address.

    The form is that of RFC 5321 without quoted local parts and address literals, which no person types.
    """
    email = unicodedata.normalize("NFC", raw.strip()).lower()
    email = unicodedata.normalize("NFC", email)  # lower-casing can leave NFC
    if len(email) > EMAIL_CHARACTERS_MAX:
        raise ValueError(f"an e-mail address has at most {EMAIL_CHARACTERS_MAX} characters")
    local, at, domain = email.rpartition("@")
    if not at or not _local_is_fine(local) or not _domain_is_fine(domain):
        raise ValueError("not an e-mail address")
    return email


def _local_is_fine(local: str) -> bool:
    if not 1 <= len(local) <= LOCAL_CHARACTERS_MAX or local[0] == "." or local[-1] == "." or ".." in local:
        return False
    return all(_is_letter(c) or c in _LOCAL_EXTRA for c in local)


def _domain_is_fine(domain: str) -> bool:
    labels = domain.split(".")
    if len(labels) < 2 or labels[-1].isdecimal():
        return False
    return all(
        1 <= len(label) <= 63 and label[0] != "-" and label[-1] != "-" and all(_is_letter(c) or c == "-" for c in label)
        for label in labels
    )


def _is_letter(c: str) -> bool:
    """Letters, digits and the marks that belong to them in any script (RFC 6531); no control, space or format."""
    return unicodedata.category(c)[0] in "LNM"
