"""Text as a reader sees it, whatever it is made of: the matcher reads this and never the raw text. Pure.

NFKC, invisible characters dropped, look-alike letters of other scripts made Latin, marks dropped, folded case, digits
and signs that stand for letters decoded, letters pulled apart put together again, drawn-out letters shortened.
Two views come out, because one text can hide words in two ways: `words` splits at every separator ("how-to-make"),
`joined` deletes separators inside a chunk ("m.a.k.e", "ma-ke"). Everything here is linear in the length of the text.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

SENTENCE_END: Final = "\u00b6"
"""Stands as a word of its own where a sentence ends."""
LETTER_RUN_MIN: Final = 3
"""So many single letters in a row are a word pulled apart."""

_LOOKALIKES: Final = {
    "a": "аαɑᴀ", "b": "вβʙьƅ", "c": "сᴄϲ", "d": "ԁđɗᴅ", "e": "еεєᴇ", "f": "ƒғꜰ", "g": "ɡɢց", "h": "нһʜ",
    "i": "іıɩɪι", "j": "јᴊ", "k": "кκᴋ", "l": "ӏłʟⅼ", "m": "мᴍ", "n": "ηпɴո", "o": "оοøᴏσօ", "p": "рρᴘ",
    "q": "ԛգ", "r": "гʀ", "s": "ѕꜱ", "t": "тτᴛ", "u": "υμᴜս", "v": "νᴠѵ", "w": "ԝωᴡѡ", "x": "хχ", "y": "уγʏ", "z": "ᴢ",
}  # fmt: skip
_CAPITALS: Final = {
    "a": "АΑ", "b": "ВΒ", "c": "СϹ", "e": "ЕΕ", "h": "НΗ", "i": "ІΙ", "j": "Ј", "k": "КΚ", "m": "МΜ", "n": "Ν",
    "o": "ОΟØ", "p": "РΡ", "s": "Ѕ", "t": "ТΤ", "x": "ХΧ", "y": "УΥҮ", "z": "Ζ",
}  # fmt: skip
_INVISIBLE: Final = (
    (0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF9, 0xFFFB), (0xE0000, 0xE007F), (0xE0100, 0xE01EF),
    # marks on letters, after they were taken apart
    (0x0300, 0x036F), (0x0483, 0x0489), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE20, 0xFE2F),
)  # fmt: skip
_LEET: Final = str.maketrans("0134578@$!|€", "oieastbasile")
_LEET_AS_L: Final = str.maketrans("01345789@$!|€", "oleastbgaslle")
_LEET_SIGNS: Final = frozenset("0134578@$!|€")


def _table() -> dict[int, str | None]:
    table: dict[int, str | None] = {}
    for letter, others in (*_LOOKALIKES.items(), *_CAPITALS.items()):
        table |= dict.fromkeys(map(ord, others), letter)
    for first, last in _INVISIBLE:
        table |= dict.fromkeys(range(first, last + 1), None)
    for base in (0x1F150, 0x1F170, 0x1F1E6):  # letters in black circles, black squares, flags
        table |= {base + n: chr(ord("a") + n) for n in range(26)}
    return table


_SEEN_AS: Final = _table()
_DRAWN_OUT: Final = re.compile(r"([^\W\d_])\1{2,}")  # a run has one way to match: linear
_LETTER_RUN: Final = re.compile(rf"(?: [^\W_]){{{LETTER_RUN_MIN}}} ")  # of fixed length: linear
_APOSTROPHES: Final = str.maketrans("\u2019\u2018`\u00b4\u02bc", "'''''")
_EDGES: Final = "\"'.,;:!?()[]{}<>*_~-\u2013\u2014\u201c\u201d\u201e\u00ab\u00bb\u2026/\\#&=^%\u2022"
_ENDS: Final = frozenset(".!?;\u2026")


@dataclass(frozen=True, slots=True)
class View:
    """Words with one space around each. `loose` are the spans of words that were put together from single letters:
    inside these, terms are looked for without word boundaries."""

    text: str
    loose: tuple[tuple[int, int], ...] = ()


def views(raw: str) -> tuple[View, ...]:
    """Return the readings of a text, one to three, without duplicates."""
    text = _readable(raw)
    short = _DRAWN_OUT.sub(r"\1", text)
    double = text if short == text else _DRAWN_OUT.sub(r"\1\1", text)
    words, plain = _words(double)
    found = [_view(words)]
    if plain and short == text:
        return (found[0],)
    for joined in (_joined(short, _LEET), _joined(short, _LEET_AS_L)):
        view = _view(joined)
        if view not in found:
            found.append(view)
    return tuple(found)


def term(raw: str) -> str:
    """Return a policy's term as it appears in a view, without the outer spaces."""
    return views(raw)[0].text.strip()


def _readable(raw: str) -> str:
    if raw.isascii():
        return raw.lower()
    text = unicodedata.normalize("NFKC", raw).translate(_SEEN_AS).casefold()
    if text.isascii():
        return text
    return unicodedata.normalize("NFD", text).translate(_SEEN_AS)


def _words(text: str) -> tuple[list[str], bool]:
    """Return the words split at every separator, and whether no word was hidden by one."""
    words: list[str] = []
    plain = True
    for chunk in text.split():
        if chunk.isalpha():
            words.append(chunk)
            continue
        core = chunk.strip(_EDGES)
        ends = not _ENDS.isdisjoint(chunk[len(chunk.rstrip(_EDGES)) :])
        inner = _without_apostrophe(core)
        if inner.isalpha():
            words.append(inner)
        elif inner:
            plain = False
            words += _pieces(inner)
        if ends:
            words.append(SENTENCE_END)
    return words, plain


def _joined(text: str, leet: dict[int, int]) -> list[str]:
    """Return one word per chunk: signs that stand for letters decoded, other separators deleted."""
    words: list[str] = []
    for chunk in text.split():
        if chunk.isalpha():
            words.append(chunk)
            continue
        core = _without_apostrophe(chunk.strip(_EDGES))
        if any(c.isalpha() for c in core):
            core = core.translate(leet)
        word = "".join(c for c in core if c.isalnum())
        if word:
            words.append(word)
        if not _ENDS.isdisjoint(chunk[len(chunk.rstrip(_EDGES)) :]):
            words.append(SENTENCE_END)
    return words


def _without_apostrophe(word: str) -> str:
    """Return `dont` for don't and `friend` for friend's."""
    word = word.translate(_APOSTROPHES)
    return word.removesuffix("'s").replace("'", "")


def _pieces(chunk: str) -> list[str]:
    pieces = "".join(c if c.isalnum() else " " for c in chunk).split()
    return [piece.translate(_LEET) if _is_mixed(piece) else piece for piece in pieces]


def _is_mixed(word: str) -> bool:
    return not _LEET_SIGNS.isdisjoint(word) and any(c.isalpha() for c in word)


def _view(words: list[str]) -> View:
    text = f" {' '.join(words)} "
    if _LETTER_RUN.search(text.replace(f" {SENTENCE_END}", "")) is None:
        return View(text)
    out: list[str] = []
    runs: list[int] = []
    letters: list[str] = []
    held: list[str] = []  # the run as it came, sentence ends among it

    def close() -> None:
        if len(letters) >= LETTER_RUN_MIN:
            runs.append(len(out))
            out.append("".join(letters))
        else:
            out.extend(held)
        letters.clear()
        held.clear()

    for word in words:
        if len(word) == 1 and (word.isalnum() or (word == SENTENCE_END and letters)):
            held.append(word)
            if word != SENTENCE_END:
                letters.append(word)
        else:
            close()
            out.append(word)
    close()
    return View(f" {' '.join(out)} ", _spans(out, runs))


def _spans(words: list[str], wanted: list[int]) -> tuple[tuple[int, int], ...]:
    spans = []
    at, marks = 1, set(wanted)
    for index, word in enumerate(words):
        if index in marks:
            spans.append((at, at + len(word)))
        at += len(word) + 1
    return tuple(spans)
