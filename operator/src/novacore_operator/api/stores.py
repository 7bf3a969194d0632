"""`spec.postgres` and `spec.redis`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from novacore_contracts.services import SERVICES
from novacore_operator.api.fields import NO_SHRINK, SAME_CLASS, Model, ObjectName, Quantity, immutable_mode, rules
from novacore_operator.api.resources import Resources

MIGRATE = "migrate"
"""Key of the login of the migration among those of the services."""
LOGINS: tuple[str, ...] = (*(service.name for service in SERVICES if service.schema), MIGRATE)
"""Who logs in to Postgres, each with a role of its own."""


class SecretName(Model):
    """A Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of this resource.")


class Storage(Model):
    """The volume of a data store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            NO_SHRINK,
            SAME_CLASS,
            ("quantity(self.size).isGreaterThan(quantity('99Mi'))", "storage.size must be 100Mi or more"),
        )
    )

    size: Quantity = Field(default="1Gi", description="Size; may grow where the class allows it, never shrink.")
    class_name: ObjectName | None = Field(default=None, description="StorageClass; absent: the cluster's default.")
    reclaim: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="What happens to the volume and its passwords when this resource is deleted. "
        "Retain: a resource applied again serves the old data.",
    )


class PostgresStorage(Storage):
    """The volume of Postgres."""

    size: Quantity = Field(default="5Gi", description="Size; may grow where the class allows it, never shrink.")


Logins = Annotated[dict[Annotated[str, Field(max_length=63)], SecretName], Field(max_length=len(LOGINS))]


class ExternalPostgres(Model):
    """A Postgres that you run. Each Secret has the keys host, port, user, password, database and ca (PEM)."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.adminSecretRef) != has(self.perServiceSecretRefs)",
                "postgres.external needs one of two: adminSecretRef, with which the operator makes a role per service, "
                "or perServiceSecretRefs, the logins of roles that you made",
            )
        )
    )

    admin_secret_ref: SecretName | None = Field(
        default=None,
        description="Secret of a user who may create roles, schemas and the extension vector; the operator makes one "
        "role per service with it.",
    )
    per_service_secret_refs: Logins | None = Field(
        default=None,
        description="Secrets of roles that you made, one for each of: " + ", ".join(LOGINS) + ".",
        json_schema_extra=rules(
            (
                f"self.all(k, k in [{', '.join(repr(name) for name in LOGINS)}])",
                "postgres.external.perServiceSecretRefs has a key that logs in nowhere: use " + ", ".join(LOGINS),
            ),
            (
                f"[{', '.join(repr(name) for name in LOGINS)}].all(k, k in self)",
                "postgres.external.perServiceSecretRefs must name a Secret for each of " + ", ".join(LOGINS),
            ),
        ),
    )


class CloudNativePG(Model):
    """A Postgres that the operator CloudNativePG runs."""

    instances: int = Field(
        default=1,
        description="Instances, the primary included; from 2 on one takes over when the primary is lost.",
        json_schema_extra=rules(("self >= 1 && self <= 9", "cloudNativePG.instances must be 1 to 9")),
    )
    image_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        description="Image of the instances, with pgvector 0.8.4 or later; absent: CloudNativePG's own default.",
    )


class Postgres(Model):
    """Postgres with pgvector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            immutable_mode("postgres", "dump and restore the database with pg_dump and pg_restore"),
            (
                "self.mode != 'External' || has(self.external)",
                "postgres.mode is External but no Secret is named: set postgres.external.adminSecretRef.name to a "
                "Secret with host, port, user, password, database and ca, or use mode Simple",
            ),
            (
                "self.mode == 'External' || !has(self.external)",
                "postgres.external is only read with postgres.mode External: set the mode or remove it",
            ),
            (
                "self.mode == 'CloudNativePG' || !has(self.cloudNativePG)",
                "postgres.cloudNativePG is only read with postgres.mode CloudNativePG: set the mode or remove it",
            ),
        )
    )

    mode: Literal["Simple", "External", "CloudNativePG"] = Field(
        default="Simple",
        description="Simple: one Postgres that the operator runs. External: one that you run. CloudNativePG: one that "
        "the operator CloudNativePG runs, which must be installed in the cluster.",
    )
    image: str = Field(
        default="pgvector/pgvector:pg18",
        min_length=1,
        max_length=255,
        description="Image of mode Simple: Postgres 15 or later with pgvector 0.8.4 or later.",
    )
    storage: PostgresStorage = Field(
        default=PostgresStorage(), description="Volume of modes Simple and CloudNativePG (there: of each instance)."
    )
    external: ExternalPostgres | None = Field(default=None, description="Connection of mode External.")
    cloud_native_pg: CloudNativePG | None = Field(
        default=None, alias="cloudNativePG", description="What is asked of CloudNativePG, in the mode of that name."
    )
    resources: Resources | None = Field(
        default=None, description="Requests and limits of modes Simple and CloudNativePG."
    )


class ExternalRedis(Model):
    """A Redis that you run. Each Secret has the keys host, port, user, password and ca (PEM)."""

    secret_ref: SecretName = Field(
        description="Secret of a Redis 7 or later with TLS that evicts nothing, and of an ACL user who may use all "
        "its keys, channels and scripts. Two installations must not share one."
    )
    cache_secret_ref: SecretName | None = Field(
        default=None, description="The same of a second Redis, for what may be lost; it may evict."
    )


class Redis(Model):
    """Redis."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            immutable_mode("redis", "and let the old one run until its streams are empty"),
            (
                "self.mode != 'External' || has(self.external)",
                "redis.mode is External but no Secret is named: set redis.external.secretRef.name to a Secret with "
                "host, port, user, password and ca, or use mode Simple",
            ),
            (
                "self.mode == 'External' || !has(self.external)",
                "redis.external is only read with redis.mode External: set the mode or remove it",
            ),
            (
                "!has(self.external) || !has(self.cache) || (self.cache == 'Separate') == "
                "has(self.external.cacheSecretRef)",
                "redis.cache and redis.external.cacheSecretRef must agree: Separate with the Secret of a second Redis, "
                "Shared without one",
            ),
        )
    )

    mode: Literal["Simple", "External"] = Field(
        default="Simple",
        description="Simple: Redis that the operator runs. External: one that you run.",
    )
    cache: Literal["Shared", "Separate"] | None = Field(
        default=None,
        description="Shared: one Redis for all. Separate: a second one for what may be lost (rate limits, short "
        "memory, leaderboard), which evicts when it is full and writes nothing to disk. Absent: Separate in profile "
        "Production, in mode External if external.cacheSecretRef is set. May be changed; the caches are lost then.",
    )
    image: str = Field(default="redis:8.0", min_length=1, max_length=255, description="Image, Redis 7 or later.")
    storage: Storage = Field(default=Storage(), description="Volume of the append-only file.")
    external: ExternalRedis | None = Field(default=None, description="Connection of mode External.")
    resources: Resources | None = Field(default=None, description="Requests and limits, of each Redis.")
