"""The one error of this package: what is wrong and what mends it, in one line."""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - it is printed to a person as one
    """Something a person must mend. Printed as `error: <what> (<remedy>)`, exit code 1."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"
