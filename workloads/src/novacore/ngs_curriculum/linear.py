"""Regular expressions that cannot hang: a subset matched in time linear in the text, whatever the pattern.

Python's `re` backtracks: `(a+)+$` on forty letters does not come back. A pattern is read into an automaton (Thompson,
1968) whose subsets of states become deterministic ones as the text needs them, at most `_STATES_MAX` kept.

The subset: literals, `.`, classes `[a-z]` `[^…]`, `\\d \\w \\s` and their negations, groups, `|`, `? * +`, `{m}`,
`{m,}`, `{m,n}` up to 32, and `^` `$` at the ends of a line where the whole pattern stands. Letter
case is ignored. No look-around, no back reference, no lazy quantifier: such a pattern is refused with `PatternError`.

Invariant LIN-1: for every pattern of the subset, a line is found exactly when Python's `re` finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

_REPEAT_MAX = 32
_NODES_MAX = 4000
_STATES_MAX = 2000
_ESCAPES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}

Test = Callable[[str], bool]


class PatternError(ValueError):
    """The pattern is not of the subset."""


@dataclass(slots=True)
class _Node:
    """One state: either a test that leads to `then`, or free steps to each of `free`."""

    test: Test | None = None
    then: int = -1
    free: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the automaton: where it begins, and the state that is its end."""

    start: int
    end: int


class Pattern:
    """A compiled pattern. Threads may share it: the cache only ever gains or forgets what can be computed again."""

    def __init__(self, source: str) -> None:
        """Read `source`. PatternError when it is not of the subset."""
        self.source = source
        self._at_start = source.startswith("^")
        self._at_end = source.endswith("$") and not source.endswith("\\$")
        body = source[self._at_start : len(source) - self._at_end]
        parser = _Parser(body)
        part = parser.parse()
        self._nodes, self._accept = parser.nodes, part.end
        self._closures: dict[int, frozenset[int]] = {}
        self._first = self._close([part.start])
        self._cache: dict[frozenset[int], dict[str, frozenset[int]]] = {}
        if self._accept in self._first:
            raise PatternError(f"pattern {source!r}: it matches the empty text, so it would find everything")

    def lines(self, text: str, *, enough: int = 1) -> int:
        """Return in how many lines of `text` the pattern is found; counting stops at `enough`."""
        found = 0
        for line in text.casefold().splitlines():
            found += self._found_in(line)
            if found >= enough:
                break
        return found

    def _found_in(self, line: str) -> bool:
        state = self._first
        last = len(line) - 1
        for position, char in enumerate(line):
            state = self._step(state, char)
            if self._accept in state and (not self._at_end or position == last):
                return True
            if not self._at_start:
                state |= self._first  # a match may begin at the next character too
        return False

    def _step(self, state: frozenset[int], char: str) -> frozenset[int]:
        row = self._cache.get(state)
        if row is None:
            if len(self._cache) >= _STATES_MAX:
                self._cache.clear()  # bounded memory; what is needed is built again
            row = self._cache[state] = {}
        reached = row.get(char)
        if reached is None:
            if len(row) >= 512:
                row.clear()
            reached = row[char] = self._close(
                [n.then for i in state if (n := self._nodes[i]).test is not None and n.test(char)]
            )
        return reached

    def _close(self, starts: Sequence[int]) -> frozenset[int]:
        """Return the states reached from `starts` by free steps."""
        seen: set[int] = set()
        stack = list(starts)
        while stack:
            index = stack.pop()
            if index not in seen:
                seen.add(index)
                stack.extend(self._nodes[index].free)
        return frozenset(seen)


class _Parser:
    """Recursive descent over the subset; builds the automaton as it reads."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.at = 0
        self.nodes: list[_Node] = []

    def parse(self) -> _Part:
        part = self._alternatives()
        if self.at < len(self.source):
            raise self._error("a closing bracket without its opening one")
        return part

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._take("|"):
            parts.append(self._sequence())
        if len(parts) == 1:
            return parts[0]
        start, end = self._node(), self._node()
        self.nodes[start].free = [part.start for part in parts]
        for part in parts:
            self.nodes[part.end].free.append(end)
        return _Part(start, end)

    def _sequence(self) -> _Part:
        first = self._node()
        last = first
        while self.at < len(self.source) and self.source[self.at] not in "|)":
            part = self._repeated()
            self.nodes[last].free.append(part.start)
            last = part.end
        return _Part(first, last)

    def _repeated(self) -> _Part:
        begin = self.at
        part = self._atom()
        end = self.at
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return part
        # Each copy is read again from the source: the automaton has no sub-routine.
        copies = [part, *(self._again(begin, end) for _ in range(max(1, (least or 1) if most is None else most) - 1))]
        start, stop = self._node(), self._node()
        last = start
        for number, copy in enumerate(copies):
            if number >= least:
                self.nodes[last].free.append(stop)
            self.nodes[last].free.append(copy.start)
            last = copy.end
        self.nodes[last].free.append(stop)
        if most is None:
            self.nodes[last].free.append(copies[-1].start)  # as often as it comes
        return _Part(start, stop)

    def _again(self, begin: int, end: int) -> _Part:
        """Return a fresh copy of the piece written between `begin` and `end`."""
        here, self.at = self.at, begin
        part = self._atom()
        if self.at != end:
            raise self._error("a piece that cannot be repeated")
        self.at = here
        return part

    def _quantifier(self) -> tuple[int, int | None]:
        for sign, bounds in (("?", (0, 1)), ("*", (0, None)), ("+", (1, None))):
            if self._take(sign):
                return self._greedy(bounds)
        if not self._take("{"):
            return 1, 1
        inside, closed, _ = self.source[self.at :].partition("}")
        low, comma, high = inside.partition(",")
        if not closed or not low.isdecimal() or not (high.isdecimal() or not high):
            raise self._error("a count that is not {m}, {m,} or {m,n}")
        least = int(low)
        most = int(high) if high else None if comma else least
        if not 0 <= least <= (least if most is None else most) <= _REPEAT_MAX or most == 0:
            raise self._error(f"a count outside 0..{_REPEAT_MAX}")
        self.at += len(inside) + 1
        return self._greedy((least, most))

    def _greedy(self, bounds: tuple[int, int | None]) -> tuple[int, int | None]:
        if self.at < len(self.source) and self.source[self.at] in "?*+{":
            raise self._error("a second quantifier")
        return bounds

    def _atom(self) -> _Part:
        char = self._next()
        if char == "(":
            if self._take("?") and not self._take(":"):
                raise self._error("an extension; only (?:…) is known")
            part = self._alternatives()
            if not self._take(")"):
                raise self._error("an opening bracket without its closing one")
            return part
        if char == "[":
            return self._leaf(self._class())
        if char == ".":
            return self._leaf(lambda _: True)
        if char == "\\":
            return self._leaf(self._escape(self._next()))
        if char in "?*+{}^$":
            raise self._error(f"{char!r} in a place where it cannot stand")
        return self._leaf(_one(char))

    def _class(self) -> Test:
        negated = self._take("^")
        tests: list[Test] = []
        while not self._take("]"):
            char = self._next()
            if char == "\\":
                tests.append(self._escape(self._next()))
            elif self.source[self.at : self.at + 1] == "-" and self.source[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                tests.append(_range(char, self._next()))
            else:
                tests.append(_one(char))
        if not tests:
            raise self._error("an empty class")
        return (lambda c: not any(t(c) for t in tests)) if negated else (lambda c: any(t(c) for t in tests))

    def _escape(self, char: str) -> Test:
        test = _ESCAPES.get(char.lower())
        if test is not None:
            return (lambda c: not test(c)) if char.isupper() else test
        if char.isalnum():
            raise self._error(f"the escape \\{char}")
        return _one(char)

    def _leaf(self, test: Test) -> _Part:
        start, end = self._node(), self._node()
        self.nodes[start].test, self.nodes[start].then = test, end
        return _Part(start, end)

    def _node(self) -> int:
        if len(self.nodes) >= _NODES_MAX:
            raise self._error("too many repetitions")
        self.nodes.append(_Node())
        return len(self.nodes) - 1

    def _take(self, char: str) -> bool:
        if self.source[self.at : self.at + 1] != char:
            return False
        self.at += 1
        return True

    def _next(self) -> str:
        if self.at >= len(self.source):
            raise self._error("it ends too early")
        self.at += 1
        return self.source[self.at - 1]

    def _error(self, what: str) -> PatternError:
        return PatternError(f"pattern {self.source!r} at {self.at}: {what}")


def _one(char: str) -> Test:
    folded = char.casefold()
    return lambda c: c == folded


def _range(low: str, high: str) -> Test:
    if low > high:
        raise PatternError(f"range {low}-{high} runs backwards")
    low, high = low.casefold(), high.casefold()
    return lambda c: low <= c <= high


@lru_cache(maxsize=256)
def compiled(source: str) -> Pattern:
    """Return the compiled pattern; the same object for the same source."""
    return Pattern(source)
