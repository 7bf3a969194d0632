"""`spec.postgres` and `spec.redis`."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import IMMUTABLE_MODE, NO_SHRINK, SAME_CLASS, Model, ObjectName, Quantity, rules
from novacore_operator.api.resources import Resources


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


class ExternalPostgres(Model):
    """A Postgres that somebody else runs."""

    admin_secret_ref: SecretName = Field(
        description="Secret with the keys host, port, user, password, database and ca (PEM). The user must be allowed "
        "to create roles, schemas and the extension vector; the operator makes one role per service with it."
    )


class Postgres(Model):
    """Postgres with pgvector."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            IMMUTABLE_MODE,
            (
                "self.mode != 'External' || has(self.external)",
                "postgres.mode is External but no Secret is named: set postgres.external.adminSecretRef.name to a "
                "Secret with host, port, user, password, database and ca, or use mode Simple",
            ),
            (
                "self.mode == 'External' || !has(self.external)",
                "postgres.external is only read with postgres.mode External: set the mode or remove it",
            ),
        )
    )

    mode: Literal["Simple", "External"] = Field(
        default="Simple",
        description="Simple: one Postgres that the operator runs. External: one that you run.",
    )
    image: str = Field(
        default="pgvector/pgvector:pg18",
        min_length=1,
        max_length=255,
        description="Image of mode Simple: Postgres 15 or later with pgvector 0.8.4 or later.",
    )
    storage: PostgresStorage = Field(default=PostgresStorage(), description="Volume of mode Simple.")
    external: ExternalPostgres | None = Field(default=None, description="Connection of mode External.")
    resources: Resources | None = Field(default=None, description="Requests and limits of mode Simple.")


class Redis(Model):
    """Redis."""

    mode: Literal["Simple"] = Field(default="Simple", description="Simple: one Redis that the operator runs.")
    image: str = Field(default="redis:8.0", min_length=1, max_length=255, description="Image, Redis 7 or later.")
    storage: Storage = Field(default=Storage(), description="Volume of the append-only file.")
    resources: Resources | None = Field(default=None, description="Requests and limits.")
