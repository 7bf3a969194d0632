"""Cutting a growing answer into windows that can be judged: whole sentences where there are any.

Invariant WINDOW-1: the windows joined are the text, in order, nothing lost or doubled; a window never ends inside a
word unless that word alone is longer than a window may be.
"""

from __future__ import annotations

import re

LONGEST = 400
"""Characters without a sentence's end after which a window is cut at a space, so that no answer waits without bound."""
OVERLAP = 200
"""Characters of already released text judged again with the next window: a phrase may lie across the cut."""

_END = re.compile(r"""(?:[.!?…]+["'”’)\]]*(?=\s)|[。！？]|\n)\s*""")


class Windows:
    """Text in by pieces, sentences out."""

    def __init__(self) -> None:
        self._waiting = ""
        self._released_tail = ""

    def push(self, piece: str) -> None:
        """Add a piece of the answer."""
        self._waiting += piece

    def take(self) -> str:
        """Return all whole sentences at hand, "" while there is none."""
        cut = 0
        for match in _END.finditer(self._waiting):
            cut = match.end()
        if cut == 0 and len(self._waiting) > LONGEST:
            space = self._waiting.rfind(" ", 0, LONGEST)
            cut = space + 1 if space > 0 else LONGEST
        return self._release(cut)

    def rest(self) -> str:
        """Return what is left at the end of the answer."""
        return self._release(len(self._waiting))

    def judged(self, window: str) -> str:
        """Return what the policy must see for a window: the window after the end of what was released before it."""
        return self._released_tail + window

    def released(self, window: str) -> None:
        """Note that a window was sent."""
        self._released_tail = (self._released_tail + window)[-OVERLAP:]

    def _release(self, cut: int) -> str:
        window, self._waiting = self._waiting[:cut], self._waiting[cut:]
        return window
