"""The only module that talks to the API server, and the only user of `kubernetes`.

`kubernetes.aio.dynamic` alone: the typed classes load every model (64 -> 170 MiB). Addresses come from our own table of
kinds, so there is no discovery and no cache file. Errors leave as the operator's own.
Invariant KUBE-1: every write asks the guard whether the Lease is still ours, before the request is made and again
in the step that hands it to the socket: a process may be stopped in between, and wake when another holds the Lease.
Not here: what to write (plan), what to remember (observe).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Callable, Sequence
from contextvars import ContextVar
from typing import Any

import aiohttp
import kubernetes.aio.config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic.client import DynamicClient as UntypedDynamicClient
from kubernetes.aio.dynamic.resource import Resource as UntypedResource

from novacore_operator.api import API_VERSION, KIND, PLURAL
from novacore_operator.build.installation import KINDS
from novacore_operator.errors import Blocked, NovaError, Retry
from novacore_operator.reasons import Reason
from novacore_operator.state import Kind, Manifest, Ref
from novacore_operator.state.names import MANAGER
from novacore_operator.telemetry import Metrics

# The client carries no types here: the names below say so once.
DynamicClient: Any = UntypedDynamicClient
Resource: Any = UntypedResource
_untyped: Any = kubernetes.aio.config

_guarded: ContextVar[bool] = ContextVar("guarded", default=False)
"""Whether the current request is one that only the holder of the Lease may send."""

REQUEST_S = aiohttp.ClientTimeout(total=30, connect=10)
WATCH_S = 240
PAGE = 100
"""Objects per request of a list: a page of Deployments is 2 MB, and 1,000 installations have 90 of them."""
BUFFER_BYTES = 32 * 1024
"""What asyncio reads of a TLS connection at once. Its own 256 KiB are filled with zeros for each connection: 15 MiB for
the sixty of an operator."""
SILENCE_S = 100
"""A watch with bookmarks hears something about each minute; a longer silence is a dead connection."""

UNTYPED = "failed to create typed patch object"
"""The API server's words for an apply that does not fit the kind's schema."""

RBAC_SAYS = re.compile(r'User "[^"]*" cannot ')
"""In a 403 that means a right is missing. Admission answers 403 too, and another right would not help there."""

OTHER_KINDS: dict[str, Kind] = {
    KIND: Kind(KIND, API_VERSION, PLURAL, wave=None),
    "Lease": Kind("Lease", "coordination.k8s.io/v1", "leases", wave=None),
    "Event": Kind("Event", "events.k8s.io/v1", "events", wave=None),
}


class Conflict(NovaError):  # noqa: N818 - the API server's word
    """Another field manager holds fields (`holders`: field, manager), or the object moved on."""

    holders: tuple[tuple[str, str], ...] = ()


class Gone(NovaError):  # noqa: N818 - see Conflict
    """The watch's resource version is too old: list again."""


class NotFound(NovaError):  # noqa: N818 - see Conflict
    """The object, or the kind, does not exist."""


class Forbidden(Blocked):
    """RBAC says no."""


class Kube:
    """A client of one API server."""

    def __init__(self, dynamic: Any, metrics: Metrics) -> None:
        self._dynamic = dynamic
        self._metrics = metrics
        self.guard: Callable[[], None] = lambda: None

    @classmethod
    async def connect(cls, metrics: Metrics, *, kubeconfig: str | None = None, context: str | None = None) -> Kube:
        """Return a client with the pod's own identity, or with a kubeconfig (None: where kubectl looks)."""
        SSLProtocol.max_size = BUFFER_BYTES
        configuration = Configuration()
        configuration.connection_pool_maxsize = 0  # watches each hold one; what bounds writes is `apply`
        if "KUBERNETES_SERVICE_HOST" in os.environ and kubeconfig is None and context is None:
            _untyped.load_incluster_config(client_configuration=configuration)
        else:
            await _untyped.load_kube_config(config_file=kubeconfig, context=context, client_configuration=configuration)
        watched = aiohttp.TraceConfig()
        configuration.trace_configs = [watched]
        kube = cls(DynamicClient(ApiClient(configuration)), metrics)
        # aiohttp tells of a chunk before it writes it, and the head goes with the first one; all our writes have one.
        watched.on_request_chunk_sent.append(kube.about_to_send)
        return kube

    async def about_to_send(self, *_: object) -> None:
        """Ask the guard again, if it is a write that is about to go (KUBE-1)."""
        if _guarded.get():
            self.guard()

    async def close(self) -> None:
        """Close all connections."""
        await self._dynamic.client.close()

    # --- reading ------------------------------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Manifest | None:
        """Return one object, or None."""
        try:
            body: Manifest = await self._call("get", ref.kind, name=ref.name, namespace=ref.namespace)
        except NotFound:
            return None
        return body

    async def find(self, ref: Ref) -> Manifest | None:
        """Return one object with the right to list alone, or None."""
        items, _ = await self.list(ref.kind, namespace=ref.namespace, name=ref.name)
        return items[0] if items else None

    async def pages(
        self, kind: str, *, namespace: str | None, labels: str | None = None, name: str | None = None
    ) -> AsyncIterator[tuple[Sequence[Manifest], str]]:
        """Yield (objects, resource version to watch from), the same version with each page. Gone when it took too long.

        Without a resource version, so that what is listed is never older than what was seen before.
        """
        more: dict[str, Any] = {"limit": PAGE}
        if labels:
            more["label_selector"] = labels
        if name:
            more["field_selector"] = f"metadata.name={name}"
        while True:
            answer = await self._call("get", kind, namespace=namespace, verb="list", **more)
            metadata = answer["metadata"]
            yield answer["items"] or (), str(metadata["resourceVersion"])
            if not metadata.get("continue"):
                return
            more["_continue"] = metadata["continue"]

    async def list(
        self, kind: str, *, namespace: str | None, labels: str | None = None, name: str | None = None
    ) -> tuple[list[Manifest], str]:
        """Return the objects and the resource version to watch from."""
        items: list[Manifest] = []
        listed = ""
        async for page, version in self.pages(kind, namespace=namespace, labels=labels, name=name):
            items += page
            listed = version
        return items, listed

    async def served(self, kind: str, *, namespace: str | None) -> bool:
        """Return whether the API server knows the kind and can say what there is of it."""
        try:
            await self._call("get", kind, namespace=namespace, verb="list", limit=1)
        except (NotFound, Retry):  # Retry: for a moment after it was made its storage is not there yet
            return False
        return True

    async def watch(
        self, kind: str, *, namespace: str | None, since: str, labels: str | None = None, name: str | None = None
    ) -> AsyncIterator[tuple[str, Manifest]]:
        """Yield (type, object) until the server ends the watch. Gone when `since` is too old."""
        more: dict[str, Any] = {
            "resource_version": since,
            "timeout_seconds": WATCH_S,
            "watch": "true",
            "query_params": [("allowWatchBookmarks", "true")],
            "_request_timeout": aiohttp.ClientTimeout(total=None, connect=10, sock_read=SILENCE_S),
        }
        if labels:
            more["label_selector"] = labels
        if name:
            more["field_selector"] = f"metadata.name={name}"
        response = await self._raw("get", kind, namespace=namespace, verb="watch", **more)
        try:
            buffer = b""
            async for chunk in response.content.iter_any():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Retry(Reason.API_UNAVAILABLE, f"watch of {kind} was cut: {type(error).__name__}") from error
        finally:
            response.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    async def apply(
        self,
        manifest: Manifest,
        *,
        force: bool,
        subresource: str = "",
        dry_run: bool = False,
        manager: str = MANAGER,
    ) -> Manifest:
        """Send an object by server-side apply and return it as stored. Conflict when others hold fields."""
        if not dry_run:
            self.guard()
        metadata = manifest["metadata"]
        more = {"query_params": [("dryRun", "All")]} if dry_run else {}
        body: Manifest = await self._call(
            "patch",
            manifest["kind"],
            name=metadata["name"],
            namespace=metadata["namespace"],
            verb="apply",
            subresource=subresource,
            body=manifest,
            content_type="application/apply-patch+yaml",
            field_manager=manager,
            force_conflicts="true" if force else "false",
            guarded=not dry_run,
            **more,
        )
        return body

    async def delete(self, ref: Ref, *, uid: str, dry_run: bool = False, grace_s: int | None = None) -> bool:
        """Delete the object with this uid, never a namesake. False when it is gone already."""
        if not dry_run:
            self.guard()
        body: Manifest = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        if dry_run:
            body["dryRun"] = ["All"]
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        try:
            await self._call("delete", ref.kind, name=ref.name, namespace=ref.namespace, body=body, guarded=True)
        except (NotFound, Conflict):
            return False
        return True

    async def evict(self, ref: Ref, *, uid: str) -> bool:
        """Evict the pod with this uid. False when it is gone already, or a disruption budget does not allow it now."""
        self.guard()
        body: Manifest = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": ref.name, "namespace": ref.namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        try:
            await self._call(
                "post", ref.kind, name=ref.name, namespace=ref.namespace, subresource="eviction", body=body,
                verb="evict", guarded=True,
            )  # fmt: skip
        except (NotFound, Conflict):
            return False
        except Retry as error:
            if error.after_s is None and "disruption budget" not in error.message:
                raise
            return False  # 429: the budget
        return True

    async def create_event(self, body: Manifest) -> None:
        """Post an Event."""
        self.guard()
        await self._call(
            "post", "Event", namespace=body["metadata"]["namespace"], body=body, verb="create", guarded=True
        )

    async def write_lease(self, body: Manifest, *, create: bool) -> Manifest:
        """Create or replace the Lease. Conflict when another holder was faster. Not guarded: it is the guard."""
        metadata = body["metadata"]
        name = None if create else metadata["name"]
        stored: Manifest = await self._call(
            "post" if create else "put", "Lease", name=name, namespace=metadata["namespace"], body=body
        )
        return stored

    # --- inside -------------------------------------------------------------------------------------------------------

    def _path(self, kind: str, *, name: str | None, namespace: str | None, subresource: str) -> str:
        entry = KINDS.get(kind) or OTHER_KINDS[kind]
        group, _, version = entry.api_version.rpartition("/")
        resource = Resource(
            prefix="apis" if group else "api",
            group=group,
            api_version=version,
            kind=kind,
            name=entry.plural,
            namespaced=True,
            client=self._dynamic,
        )
        path: str = resource.path(name=name, namespace=namespace)
        return f"{path}/{subresource}" if subresource else path

    async def _call(self, method: str, kind: str, *, guarded: bool = False, **more: Any) -> Any:
        token = _guarded.set(guarded)
        try:
            response = await self._raw(method, kind, **more)
        finally:
            _guarded.reset(token)
        try:
            return json.loads(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:  # the server died in mid-body
            raise Retry(Reason.API_UNAVAILABLE, f"{method} {kind}: {type(error).__name__} in the answer") from error

    async def _raw(
        self,
        method: str,
        kind: str,
        *,
        name: str | None = None,
        namespace: str | None = None,
        verb: str | None = None,
        subresource: str = "",
        **more: Any,
    ) -> aiohttp.ClientResponse:
        path = self._path(kind, name=name, namespace=namespace, subresource=subresource)
        verb = verb or method
        more.setdefault("_request_timeout", REQUEST_S)
        started = time.monotonic()
        code = "error"
        try:
            response = await self._dynamic.request(method, path, serialize=False, **more)
            code = str(response.status)
        except ApiException as error:
            code = str(error.status)
            raise _translated(error, f"{verb} {kind} {name or ''} in {namespace or 'all namespaces'}") from None
        except (aiohttp.ClientError, TimeoutError, ConnectionError, OSError) as error:
            if isinstance(error.__cause__, NovaError):
                raise error.__cause__ from None  # the guard's no, in aiohttp's words
            raise Retry(Reason.API_UNAVAILABLE, f"{verb} {kind}: {type(error).__name__}") from error
        finally:
            self._metrics.count("api_requests_total", verb=verb, code=code)
            if verb != "watch":
                self._metrics.observe("api_request_duration_seconds", time.monotonic() - started, verb=verb)
        if not isinstance(response, aiohttp.ClientResponse):
            raise TypeError("the client answered with something that is not a response")
        return response


def _event(event: dict[str, Any]) -> tuple[str, Manifest]:
    if event["type"] != "ERROR":
        return str(event["type"]), event["object"]
    status = event["object"]
    if status.get("code") == 410:
        raise Gone(Reason.API_UNAVAILABLE, "the watch's resource version is too old")
    raise Retry(Reason.API_UNAVAILABLE, f"watch ended: {status.get('message', 'no message')}")


def _translated(error: ApiException, what: str) -> NovaError:
    """Return the operator's error for an answer of the API server. The body's message never holds our Secrets."""
    try:
        answer = json.loads(error.body or "{}")
        message = str(answer.get("message", error.reason))
    except (ValueError, AttributeError):
        answer, message = {}, str(error.reason)
    message = message[:500]
    known: dict[int, type[NovaError]] = {404: NotFound, 409: Conflict, 410: Gone, 403: Forbidden, 401: Retry}
    if error.status == 403 and not RBAC_SAYS.search(message):  # a quota, a volume that cannot grow, a policy
        return Blocked(Reason.APPLY_REFUSED, f"{what}: {message}")
    if error.status in known:
        reason = Reason.FORBIDDEN if error.status in (401, 403) else Reason.APPLY_REFUSED
        translated = known[error.status](reason, f"{what}: {message}")
        if isinstance(translated, Conflict):
            translated.holders = _holders(answer)
        return translated
    # 500 where a value has not the type of its field: affinity is handed on as it is, and asking again mends nothing.
    if error.status in (400, 422) or UNTYPED in message:
        return Blocked(Reason.APPLY_REFUSED, f"{what}: {message}")
    after = (error.headers or {}).get("Retry-After")
    return Retry(Reason.API_UNAVAILABLE, f"{what}: {error.status} {message}", after_s=float(after) if after else None)


def _holders(answer: Any) -> tuple[tuple[str, str], ...]:
    """Return (field, manager) of each conflict that a server-side apply names."""
    causes = (answer.get("details") or {}).get("causes") or ()
    found = (
        (str(cause.get("field", "")), re.search(r'conflict with "([^"]*)"', str(cause.get("message", ""))))
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    )
    return tuple((field, match.group(1) if match else "unknown") for field, match in found)


async def wait_until_served(kube: Kube, *, namespace: str | None, pause_s: float = 2.0) -> None:
    """Return when the API server serves our resource: kopf does not notice a definition that comes later."""
    while True:
        if await kube.served(KIND, namespace=namespace):
            return
        await asyncio.sleep(pause_s)
