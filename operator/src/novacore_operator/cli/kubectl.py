"""The edge: the user's own `kubectl`, with the same kubeconfig, context and namespace.

Arguments are a fixed list, never a shell line; what is long or secret goes to standard input (CLI-3).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from novacore_operator.api import GROUP
from novacore_operator.cli.errors import BadInput, Failed, Forbidden, NotFound, Unreachable, one_line
from novacore_operator.cli.options import Options

REQUEST_S = 20
EXEC_S = 180
STOP_S = 10
FIELD_MANAGER = "kubectl-novacore"
NOISE = re.compile(r"^([EIW]\d{4} |Warning: |command terminated with exit code|Defaulted container)")

UNREACHABLE = "the API server does not answer: check --context, --kubeconfig and your network"
REMEDIES: tuple[tuple[str, str], ...] = (
    (f"{GROUP}|doesn't have a resource type", "install the operator's chart, or choose another cluster with --context"),
    (
        r"(connection|was) refused|no such host|i/o time|Unable to connect|deadline exceeded|Timeout|EOF|unreachable",
        UNREACHABLE,
    ),
    (r"Unauthorized|must be logged in|provide credentials|certificate", "your credentials are refused: log in again"),
    (r"\(Conflict\)|object has been modified", "somebody changed it meanwhile: run the command again"),
)
"""The first pattern found in what kubectl said gives the remedy."""


class Kubectl:
    """kubectl, bound to one context and namespace."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def json(self, *arguments: str, namespace: str | None = None, stdin: str | None = None) -> Any:
        """Return the answer of a command with `-o json`."""
        text = self.text(*arguments, "--output=json", namespace=namespace, stdin=stdin)
        try:
            return json.loads(text or "{}")
        except ValueError:
            raise Failed(f"kubectl {arguments[0]} answered with something that is not JSON: update kubectl") from None

    def items(self, kind: str, *more: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """Return all objects of a kind that a selector in `more` names."""
        return list(self.json("get", kind, *more, namespace=namespace).get("items", ()))

    def text(
        self,
        *arguments: str,
        namespace: str | None = None,
        stdin: str | None = None,
        limit_s: int = REQUEST_S,
    ) -> str:
        """Return what a command prints. Failed, NotFound or Forbidden with one line when it does not end well."""
        code, out, error = self.attempt(*arguments, namespace=namespace, stdin=stdin, limit_s=limit_s)
        if code != 0:
            raise failure(error or out, context=self._options.context)
        return out

    def attempt(
        self, *arguments: str, namespace: str | None = None, stdin: str | None = None, limit_s: int = REQUEST_S
    ) -> tuple[int, str, str]:
        """Return exit code, output and error output, whatever they are."""
        quick = [f"--request-timeout={limit_s}s"] if limit_s == REQUEST_S else []  # it would also cut an exec short
        try:
            done = subprocess.run(
                self.command(*quick, *arguments, namespace=namespace),
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit_s + 5,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unreachable(
                f"kubectl {arguments[0]} did not answer within {limit_s + 5} s: check --context and your network"
            ) from None
        return done.returncode, done.stdout, done.stderr

    @contextlib.contextmanager
    def stream(self, *arguments: str, namespace: str | None = None) -> Iterator[Stream]:
        """Give a command's output line by line as it comes; the command ends with the block."""
        process = subprocess.Popen(
            self.command(*arguments, namespace=namespace),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # one pipe: two would need a thread to keep the other from filling up
            text=True,
            errors="replace",
        )
        stream = Stream(process)
        try:
            yield stream
        finally:
            stream.close()

    def command(self, *arguments: str, namespace: str | None = None) -> Sequence[str]:
        """Return the whole argument list."""
        program = shutil.which("kubectl")
        if program is None:
            raise Failed("kubectl is not on the PATH: install it; this command talks to the cluster through it")
        options = self._options
        where = namespace or options.namespace
        flags = (("kubeconfig", options.kubeconfig), ("context", options.context), ("namespace", where))
        return [program, *(f"--{flag}={value}" for flag, value in flags if value), *arguments]


class Stream:
    """Lines of a running command. `code` is its exit code once they are all read, None before."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.code: int | None = None

    def __iter__(self) -> Iterator[str]:
        """Yield each line without its end."""
        for line in self._process.stdout or ():
            yield line.rstrip("\n")
        self.code = self._process.wait(timeout=STOP_S)

    def close(self) -> None:
        """End the command if it still runs."""
        self._process.terminate()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait(timeout=STOP_S)


def failure(said: str, *, context: str | None = None) -> Failed | BadInput:
    """Return the error for what kubectl said: its last telling line, and a remedy."""
    told = [line for line in said.splitlines() if line.strip() and not NOISE.match(line)]
    errors = [line for line in told if line.lower().startswith(("error", "unable", "the connection"))]
    line = one_line((errors or told or ["kubectl failed and said nothing"])[-1])
    line = re.sub(r"^(error: |Error from server: |Error from server )", "", line, flags=re.IGNORECASE)
    line = line.removesuffix(" - did you specify the right host or port?").rstrip(" .:")
    if re.search(r"context .*(does not exist|was not found)", line):
        return BadInput(f"there is no context {context!r} in the kubeconfig: see `kubectl config get-contexts`")
    if "(Forbidden)" in line:
        return Forbidden(f"{line}: ask for this right, or use another --context")
    remedy = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, line)), "")
    if remedy == UNREACHABLE:
        return Unreachable(f"{line}: {remedy}")
    kind = NotFound if "(NotFound)" in line or "doesn't have a resource type" in line else Failed
    return kind(f"{line}: {remedy}" if remedy else line)
