"""The one place where `plan` and `diff` reach the operator's own plan: what they show is what the operator would do.

It runs here, with the user's rights: it lists the installation's objects, reads its Secrets (their hashes are part of
pod templates) and sends every write as a dry run.
"""

from __future__ import annotations

import asyncio
import json

from novacore_operator.api import API_VERSION, KIND
from novacore_operator.cli import resource
from novacore_operator.cli.errors import BadInput, Failed, one_line
from novacore_operator.cli.kubectl import FIELD_MANAGER, Kubectl
from novacore_operator.cli.operators import DEFAULT_NAMESPACE, operators
from novacore_operator.cli.options import Options
from novacore_operator.cli.specfile import SpecFile
from novacore_operator.errors import NovaError
from novacore_operator.loop.preview import preview_live
from novacore_operator.preview import Preview

LIMIT_S = 120


def compute(options: Options, override: SpecFile | None) -> Preview:
    """Return what the operator would write for the live resource, or for `override` in its place. Writes nothing."""
    kubectl = Kubectl(options)
    body = resource.find(kubectl, options) if override is None else _as_stored(kubectl, override)
    found = operators(kubectl)
    namespace = found[0]["metadata"]["namespace"] if found else DEFAULT_NAMESPACE
    work = preview_live(
        body, kubeconfig=options.kubeconfig, context=options.context, operator_namespace=namespace, limit_s=LIMIT_S
    )
    try:
        return asyncio.run(work)
    except NovaError as error:
        raise Failed(
            f"{one_line(error.message)}: plan lists the installation's objects and reads its Secrets"
        ) from None
    except TimeoutError:
        raise Failed(f"no plan within {LIMIT_S} s: check that you may watch the installation's objects") from None


def _as_stored(kubectl: Kubectl, file: SpecFile) -> resource.Resource:
    """Return a file's resource as the API server would store it, its defaults filled in and its rules checked."""
    body = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": file.name} | ({"namespace": file.namespace} if file.namespace else {}),
        "spec": file.spec,
    }
    try:
        stored: resource.Resource = kubectl.json(
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            f"--field-manager={FIELD_MANAGER}",
            "--filename=-",
            stdin=json.dumps(body),
        )
    except Failed as error:
        if "is invalid" in error.message or "Invalid value" in error.message:
            raise BadInput(error.message) from None
        raise
    return stored
