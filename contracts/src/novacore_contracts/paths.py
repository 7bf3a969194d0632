"""Where a pod finds its files. The operator mounts directories (never `subPath`: no updates), the workloads read them.

`NOVA_ROOT` moves the whole tree for a process started by hand (tests, a developer's shell).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

ROOT_VARIABLE = "NOVA_ROOT"


@lru_cache(maxsize=64)
def _below(root: Path, tail: str) -> Path:
    """Join once: the operator names each of these paths a hundred times in a turn."""
    return root / tail


@dataclass(frozen=True, slots=True)
class Paths:
    """Directories of one process, all below `root` ("/" in a pod)."""

    root: Path

    @property
    def settings(self) -> Path:
        """ConfigMap `novacore-<service>-settings`; holds `settings.yaml`."""
        return _below(self.root, "etc/novacore/settings")

    @property
    def creds(self) -> Path:
        """Secret `novacore-<service>-creds`: `postgres.jws`, `redis.jws` (ring documents with material), `log.key`.

        With a Redis of its own for caches, the material of `redis.jws` has a `cache`: the same fields once more."""
        return _below(self.root, "etc/novacore/creds")

    @property
    def keyset(self) -> Path:
        """Secret `novacore-keyset`: `serviceJwt.jws`, `userJwt.jws` (public ring documents)."""
        return _below(self.root, "etc/novacore/keyset")

    @property
    def keyset_root(self) -> Path:
        """ConfigMap `novacore-keyset-root`: `root.jwks` (public root keys, current and next)."""
        return _below(self.root, "etc/novacore/keyset-root")

    @property
    def ca(self) -> Path:
        """ConfigMap `novacore-ca`: `ca.crt`, the installation's CA for Postgres and Redis."""
        return _below(self.root, "etc/novacore/ca")

    @property
    def service_jwt_private(self) -> Path:
        """Secret `novacore-svcjwt-private`: `serviceJwt-<n>.jwk`. auth-billing only."""
        return _below(self.root, "etc/novacore/private/service-jwt")

    @property
    def service_jwt_legacy(self) -> Path:
        """Secret `novacore-svcjwt-legacy`, optional: `legacy.jwk`, the `oct` key while a migration lasts."""
        return _below(self.root, "etc/novacore/legacy")

    @property
    def user_jwt_private(self) -> Path:
        """Secret `novacore-userjwt-private`: `userJwt-<n>.jwk`. auth-billing only."""
        return _below(self.root, "etc/novacore/private/user-jwt")

    @property
    def policy_private(self) -> Path:
        """Secret `novacore-policy-private`: `policy-<n>.jwk` (Ed25519). noble-spirit only."""
        return _below(self.root, "etc/novacore/private/policy")

    @property
    def identity_token(self) -> Path:
        """Projected ServiceAccount token, audience `novacore-auth`."""
        return _below(self.root, "var/run/secrets/novacore.ai/identity/token")

    @property
    def kube_api(self) -> Path:
        """Projected token, `ca.crt` and `namespace` for the API server (TokenReview). auth-billing only."""
        return _below(self.root, "var/run/secrets/novacore.ai/api")

    @property
    def state(self) -> Path:
        """emptyDir in memory: the highest ring documents accepted, so that a container restart cannot go back."""
        return _below(self.root, "var/lib/novacore/state")

    @property
    def models(self) -> Path:
        """In the image: `smollm2-135m-instruct.gguf`, `minilm.onnx`, `tokenizer.json`."""
        return _below(self.root, "opt/novacore/models")

    @property
    def migration(self) -> Path:
        """Secret `novacore-migrate-creds`, migration Job only: `admin.json` (host, port, database, user, password),
        `roles.json` (login roles with their SCRAM verifiers, no password)."""
        return _below(self.root, "etc/novacore/migrate")


def paths() -> Paths:
    """Return the paths of this process: below "/" unless `NOVA_ROOT` says otherwise."""
    return Paths(Path(os.environ.get(ROOT_VARIABLE, "/")))
