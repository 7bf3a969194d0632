"""Matching a text against a policy: one Aho-Corasick pass per view, then two pointers per pattern. Linear in the text.

Invariants: MATCH-1 the work grows linearly with the text, whatever the text or the policy. MATCH-2 a rule is found at
most once per text. MATCH-3 nothing of a pattern or of the text leaves this module but rule ids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import ahocorasick

from novacore.noble_spirit.document import PolicyDocument, Rule
from novacore.noble_spirit.normalise import SENTENCE_END, View, term, views

LOOSE_TERM_MIN = 4
"""Shorter terms would be found inside every run of letters."""
ADJACENT = 2
"""An allowing word this close behind a match belongs to it ("bomb disposal")."""

Span = tuple[int, int]


@dataclass(slots=True)
class _Hits:
    """Where things stand in one view, in ascending order."""

    of: dict[int, list[Span]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    asks: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Compiled:
    rule: Rule
    patterns: tuple[tuple[int, ...], ...]
    allow: tuple[int, ...]


class Matcher:
    """A compiled policy. Immutable; safe to use from several threads."""

    def __init__(self, document: PolicyDocument) -> None:
        numbers = {name: n for n, name in enumerate(document.vocabulary)}
        self._ask, self._except, self._end = len(numbers), len(numbers) + 1, len(numbers) + 2
        terms: dict[str, set[int]] = {f" {SENTENCE_END} ": {self._end}}
        for name, words in document.vocabulary.items():
            _add(terms, words, numbers[name])
        _add(terms, document.asks, self._ask)
        _add(terms, document.exceptions, self._except)
        self._automaton = _automaton(terms)
        loose: dict[str, set[int]] = {}
        for key, owners in terms.items():
            bare = key.replace(" ", "")
            if len(bare) >= LOOSE_TERM_MIN and not owners & {self._except, self._end}:
                loose.setdefault(bare, set()).update(owners)
        self._loose = _automaton(loose) if loose else None
        self._rules = tuple(
            _Compiled(
                rule=rule,
                patterns=tuple(tuple(numbers[name] for name in pattern) for pattern in rule.patterns),
                allow=tuple(numbers[name] for name in rule.allow),
            )
            for rule in document.rules
        )

    def find(self, text: str) -> list[Rule]:
        """Return the rules a text breaks, in the policy's order."""
        found: set[str] = set()
        for view in views(text):
            hits = self._hits(view)
            if not hits.of:
                continue
            for compiled in self._rules:
                if compiled.rule.id not in found and _breaks(compiled, hits):
                    found.add(compiled.rule.id)
        return [compiled.rule for compiled in self._rules if compiled.rule.id in found]

    def _hits(self, view: View) -> _Hits:
        raw: list[tuple[int, int, tuple[int, ...]]] = []
        masked: list[Span] = []
        for last, (length, owners) in self._automaton.iter(view.text):
            start, end = last - length + 2, last + (view.text[last] != " ")  # without the spaces around
            if owners[0] == self._except:
                masked.append((start, end))
            else:
                raw.append((start, end, owners))
        if view.loose and self._loose is not None:
            for begin, finish in view.loose:
                for last, (length, owners) in self._loose.iter(view.text[begin:finish]):
                    raw.append((begin + last - length + 1, begin + last + 1, owners))
        raw.sort()  # overlapping terms end in another order than they begin
        return self._sorted_out(raw, masked)

    def _sorted_out(self, raw: list[tuple[int, int, tuple[int, ...]]], masked: list[Span]) -> _Hits:
        hits = _Hits()
        starts = [start for start, _ in masked]
        for start, end, owners in raw:
            if masked and _is_masked(start, end, masked, starts):
                continue
            for owner in owners:
                if owner == self._end:
                    hits.ends.append(start)
                elif owner == self._ask:
                    hits.asks.append(start)
                else:
                    hits.of.setdefault(owner, []).append((start, end))
        return hits


def _add(terms: dict[str, set[int]], words: Sequence[str], owner: int) -> None:
    for word in words:
        stem = word.endswith("*")
        key = term(word.rstrip("*"))
        if key:
            terms.setdefault(f" {key}" if stem else f" {key} ", set()).add(owner)


def _automaton(terms: dict[str, set[int]]) -> ahocorasick.Automaton:
    automaton = ahocorasick.Automaton()
    for key, owners in terms.items():
        # Highest number first: an exception that is a term too is an exception.
        automaton.add_word(key, (len(key), tuple(sorted(owners, reverse=True))))
    automaton.make_automaton()
    return automaton


def _is_masked(start: int, end: int, masked: list[Span], starts: list[int]) -> bool:
    """Return whether a span lies inside an exception. Exceptions are short, so at most a few begin at or before it."""
    index = bisect_right(starts, start) - 1
    while index >= 0 and start - starts[index] <= 60:
        if end <= masked[index][1]:
            return True
        index -= 1
    return False


def _breaks(compiled: _Compiled, hits: _Hits) -> bool:
    for pattern in compiled.patterns:
        groups = [hits.of.get(number) for number in pattern]
        if all(groups):
            for window in _windows([group for group in groups if group], compiled.rule.window):
                if not _allowed(window, compiled.allow, hits):
                    return True
    return False


def _windows(groups: list[list[Span]], width: int) -> Iterator[Span]:
    """Yield the spans of at most `width` characters that hold a hit of every group: the foremost pointer moves."""
    at = [0] * len(groups)
    while True:
        current = [group[n] for group, n in zip(groups, at, strict=True)]
        start = min(span[0] for span in current)
        end = max(span[1] for span in current)
        if end - start <= width:
            yield start, end
        first = min(range(len(groups)), key=lambda n: current[n][0])
        at[first] += 1
        if at[first] == len(groups[first]):
            return


def _allowed(window: Span, allow: tuple[int, ...], hits: _Hits) -> bool:
    """Return whether a context of help takes a match back."""
    start, end = window
    sentence_start = hits.ends[n - 1] if (n := bisect_left(hits.ends, start)) else -1
    for number in allow:
        spans = hits.of.get(number)
        if not spans:
            continue
        last = bisect_right(spans, (end + ADJACENT, -1)) - 1  # the nearest that begins before or right behind the match
        if last < 0 or spans[last][0] <= sentence_start:
            continue
        help_end = spans[last][1]
        asked = bisect_left(hits.asks, help_end)
        if asked == len(hits.asks) or hits.asks[asked] > end:
            return True
    return False
