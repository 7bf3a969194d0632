"""`spec` of a NovaCoreDeployment (operator.md §2), as far as this release of the operator carries it out.

A field that would have no effect yet is not here: the API server then says so, instead of taking it silently.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from novacore_contracts.services import BY_NAME
from novacore_operator.api.fields import (
    IMMUTABLE_MODE,
    NO_SHRINK,
    SAME_CLASS,
    Annotations,
    FreeForm,
    Labels,
    Model,
    ObjectName,
    Quantity,
    rules,
)

SERVICE_NAMES = tuple(BY_NAME)


class SecretName(Model):
    """A Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of this resource.")


class SecretKeyRef(Model):
    """One key of a Secret in the resource's namespace."""

    name: ObjectName = Field(description="Name of the Secret, in the namespace of this resource.")
    key: str = Field(
        default="apiKey", pattern=r"^[-._a-zA-Z0-9]+$", max_length=253, description="Key within the Secret."
    )


class Image(Model):
    """Where the image of the nine services comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(has(self.tag) && has(self.digest))",
                "image.tag and image.digest are both set: keep the digest, it says exactly which image",
            )
        )
    )

    repository: str = Field(
        default="novacore/workloads",
        min_length=1,
        max_length=255,
        pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._:/]*$",
        description="Repository of the workloads image, without tag.",
    )
    tag: str | None = Field(
        default=None,
        max_length=128,
        pattern=r"^[a-zA-Z0-9_][-a-zA-Z0-9_.]*$",
        description="Tag; without it the release in spec.version is the tag.",
    )
    digest: str | None = Field(
        default=None,
        max_length=71,
        description="Digest; wins over any tag.",
        json_schema_extra=rules(
            ("self.matches('^sha256:[a-f0-9]{64}$')", "image.digest must be sha256: and 64 hex digits")
        ),
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="When the kubelet pulls."
    )
    pull_secrets: list[ObjectName] = Field(
        default=[], max_length=8, description="Names of Secrets with registry credentials."
    )


class Expose(Model):
    """How the gateway is reached from outside the cluster."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.nodePort) || self.type == 'NodePort'",
                "expose.nodePort is only used with expose.type NodePort: set the type or remove the port",
            )
        )
    )

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = Field(
        default="ClusterIP", description="Type of the public Service `novacore-gateway-public`."
    )
    node_port: int | None = Field(
        default=None,
        description="Port on every node, 30500 if absent.",
        json_schema_extra=rules(
            ("self >= 30000 && self <= 32767", "expose.nodePort must be between 30000 and 32767, or absent")
        ),
    )


class ResourceAmounts(Model):
    """Amounts of cpu and memory."""

    cpu: Quantity | None = Field(default=None, description="Cores, such as 250m or 2.")
    memory: Quantity | None = Field(default=None, description="Bytes, such as 512Mi.")


class Resources(Model):
    """Requests and limits of a container. What is absent comes from the profile."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.requests) || !has(self.requests.{what}) || !has(self.limits) || "
                    f"!has(self.limits.{what}) || "
                    f"quantity(self.requests.{what}).compareTo(quantity(self.limits.{what})) <= 0",
                    f"resources.requests.{what} is above resources.limits.{what}: raise the limit or lower the request",
                )
                for what in ("cpu", "memory")
            )
        )
    )

    requests: ResourceAmounts | None = Field(default=None, description="What the scheduler sets aside.")
    limits: ResourceAmounts | None = Field(default=None, description="What the container may use at most.")


class Toleration(Model):
    """A toleration of the pod."""

    key: str | None = Field(default=None, max_length=317, description="Taint key; absent matches every key.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How the value is compared.")
    value: str | None = Field(default=None, max_length=63, description="Taint value, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent matches every effect."
    )
    toleration_seconds: int | None = Field(default=None, description="How long a NoExecute taint is borne.")


class TopologySpread(Model):
    """Spread of a service's pods. The selector is the service's own and need not be given."""

    max_skew: int = Field(
        default=1,
        description="Largest difference between two domains.",
        json_schema_extra=rules(("self >= 1", "maxSkew must be 1 or more")),
    )
    topology_key: str = Field(default="kubernetes.io/hostname", max_length=317, description="Node label of a domain.")
    when_unsatisfiable: Literal["ScheduleAnyway", "DoNotSchedule"] = Field(
        default="ScheduleAnyway", description="What to do when no node fits."
    )


RESERVED_LABELS = (
    "self.all(k, !k.startsWith('novacore.ai/') && !k.startsWith('app.kubernetes.io/'))",
    "podLabels must not use the prefixes novacore.ai/ and app.kubernetes.io/: the operator selects by them",
)
RESERVED_ANNOTATIONS = (
    "self.all(k, !k.startsWith('novacore.ai/'))",
    "podAnnotations must not use the prefix novacore.ai/: the operator writes those",
)


class ServiceSpec(Model):
    """What one of the nine services has of its own. Everything is optional."""

    replicas: int | None = Field(
        default=None,
        description="Pods; absent: 1 with profile Development, 2 with Production (1 for distillation-worker).",
        json_schema_extra=rules(
            ("self >= 0", "replicas must be 0 or more: 0 stops the service, absent takes the profile's number"),
            ("self <= 50", "replicas must be 50 or fewer"),
        ),
    )
    resources: Resources | None = Field(default=None, description="Requests and limits; absent: the profile's.")
    pod_annotations: Annotations | None = Field(
        default=None, description="Extra annotations of the pods.", json_schema_extra=rules(RESERVED_ANNOTATIONS)
    )
    pod_labels: Labels | None = Field(
        default=None, description="Extra labels of the pods.", json_schema_extra=rules(RESERVED_LABELS)
    )
    node_selector: Labels | None = Field(default=None, description="Labels a node must have.")
    tolerations: list[Toleration] | None = Field(default=None, max_length=16, description="Taints to bear.")
    affinity: FreeForm | None = Field(default=None, description="Pod and node affinity, as in a pod spec.")
    topology_spread_constraints: list[TopologySpread] | None = Field(
        default=None, max_length=8, description="Spread; absent: over nodes, where there are two or more replicas."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods.")
    termination_grace_period_seconds: int | None = Field(
        default=None,
        description="Time a pod has to drain, 60 if absent.",
        json_schema_extra=rules(
            (
                "self >= 45 && self <= 3600",
                "terminationGracePeriodSeconds must be 45 to 3600: a drain takes up to 45 seconds",
            )
        ),
    )
    log_level: Literal["debug", "info", "warning", "error"] | None = Field(
        default=None, description="Least level that is logged, info if absent."
    )


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

    model_config = ConfigDict(json_schema_extra=rules(IMMUTABLE_MODE))

    mode: Literal["Simple"] = Field(default="Simple", description="Simple: one Redis that the operator runs.")
    image: str = Field(default="redis:8.0", min_length=1, max_length=255, description="Image, Redis 7 or later.")
    storage: Storage = Field(default=Storage(), description="Volume of the append-only file.")
    resources: Resources | None = Field(default=None, description="Requests and limits.")


class Echo(Model):
    """The deterministic provider `echo`, for tests and load."""

    delay_ms: int = Field(
        default=5,
        description="Pause before each token, in milliseconds.",
        json_schema_extra=rules(("self >= 0 && self <= 10000", "echo.delayMs must be 0 to 10000")),
    )
    tokens: int = Field(
        default=32,
        description="Length of an answer in tokens.",
        json_schema_extra=rules(("self >= 1 && self <= 2000", "echo.tokens must be 1 to 2000")),
    )


class LLM(Model):
    """The language model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(self.provider in ['ollama', 'openai']) || has(self.baseURL)",
                "llm.provider ollama and openai need llm.baseURL: the address of the model server",
            ),
            (
                "!(self.provider in ['ollama', 'openai']) || has(self.model)",
                "llm.provider ollama and openai need llm.model: the name of the model there",
            ),
            (
                "!has(self.apiKeySecretRef) || self.provider == 'openai'",
                "llm.apiKeySecretRef is only used with llm.provider openai: set the provider or remove the key",
            ),
            (
                "!has(self.baseURL) || self.provider in ['ollama', 'openai']",
                "llm.baseURL is only used with llm.provider ollama or openai: set the provider or remove the address",
            ),
        )
    )

    provider: Literal["embedded", "ollama", "openai", "echo"] = Field(
        default="embedded",
        description="embedded: the small model in the image. ollama, openai: a server at baseURL. echo: for tests.",
    )
    model: str | None = Field(default=None, min_length=1, max_length=128, description="Name of the model at baseURL.")
    base_url: str | None = Field(
        default=None,
        alias="baseURL",
        max_length=512,
        description="Address of the model server, with scheme.",
        json_schema_extra=rules(
            ("self.matches('^https?://[^ ]+$')", "llm.baseURL must start with http:// or https://")
        ),
    )
    api_key_secret_ref: SecretKeyRef | None = Field(
        default=None, alias="apiKeySecretRef", description="Key for provider openai."
    )
    max_tokens: int = Field(
        default=2000,
        description="Longest answer in tokens.",
        json_schema_extra=rules(("self >= 1 && self <= 2000", "llm.maxTokens must be 1 to 2000")),
    )
    timeout_seconds: int = Field(
        default=120,
        description="Longest time one answer may take.",
        json_schema_extra=rules(("self >= 1 && self <= 600", "llm.timeoutSeconds must be 1 to 600")),
    )
    echo: Echo = Field(default=Echo(), description="Behaviour of provider echo.")


class Embeddings(Model):
    """The embedding model."""

    provider: Literal["minilm", "hash"] = Field(
        default="minilm", description="minilm: the model in the image. hash: words only, for tests."
    )


class Models(Model):
    """The models."""

    llm: LLM = Field(default=LLM(), description="The language model.")
    embeddings: Embeddings = Field(default=Embeddings(), description="The embedding model.")


def _rate(default: int, what: str) -> int:
    rate: int = Field(
        default=default,
        description=f"{what} per minute.",
        json_schema_extra=rules(("self >= 1 && self <= 1000000", "a rate limit must be 1 to 1000000 per minute")),
    )
    return rate


class Limits(Model):
    """Rate limits of the gateway, per address unless said otherwise."""

    auth_per_minute: int = _rate(10, "Calls to register, login and refresh")
    login_per_account_per_minute: int = _rate(5, "Logins to one account")
    anon_per_minute: int = _rate(60, "Calls without a token")
    webhook_per_minute: int = _rate(600, "Webhook calls")


class Tier(Model):
    """What one subscription tier may use. -1 is unlimited."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (f"self.{field} >= -1", f"tiers: {field} must be 0 or more, or -1 for unlimited")
                for field in ("tokensPerDay", "memoryGiB", "agentMinutesPerMonth")
            ),
            *(
                (f"self.{field} >= 1 && self.{field} <= 1000000", f"tiers: {field} must be 1 to 1000000")
                for field in ("requestsPerMinute", "readPerMinute")
            ),
            ("self.ngsMaxLevel >= 1 && self.ngsMaxLevel <= 24", "tiers: ngsMaxLevel must be 1 to 24"),
        ),
    )

    tokens_per_day: int = Field(description="Model tokens per UTC day.")
    memory_gi_b: int = Field(alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(description="Calls that cost (chat, memory store, MCP) per minute and user.")
    read_per_minute: int = Field(description="Other calls per minute and user.")
    ngs_max_level: int = Field(description="Highest curriculum level.")
    mcp: bool = Field(description="Whether the MCP server may be used.")


class FreeTrial(Tier):
    """Tier `free_trial`."""

    tokens_per_day: int = Field(default=1000, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=1, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=0, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=10, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=120, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=3, description="Highest curriculum level.")
    mcp: bool = Field(default=False, description="Whether the MCP server may be used.")


class Basic(Tier):
    """Tier `basic`."""

    tokens_per_day: int = Field(default=50_000, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=10, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=60, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=50, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=300, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=24, description="Highest curriculum level.")
    mcp: bool = Field(default=False, description="Whether the MCP server may be used.")


class Pro(Tier):
    """Tier `pro`."""

    tokens_per_day: int = Field(default=-1, description="Model tokens per UTC day.")
    memory_gi_b: int = Field(default=-1, alias="memoryGiB", description="Storage for memories, in GiB.")
    agent_minutes_per_month: int = Field(default=-1, description="Agent minutes per UTC month.")
    requests_per_minute: int = Field(default=100, description="Calls that cost, per minute and user.")
    read_per_minute: int = Field(default=600, description="Other calls, per minute and user.")
    ngs_max_level: int = Field(default=24, description="Highest curriculum level.")
    mcp: bool = Field(default=True, description="Whether the MCP server may be used.")


class Tiers(Model):
    """The three subscription tiers."""

    free_trial: FreeTrial = Field(default=FreeTrial(), description="Tier `free_trial`.")
    basic: Basic = Field(default=Basic(), description="Tier `basic`.")
    pro: Pro = Field(default=Pro(), description="Tier `pro`.")


class NetworkPolicySpec(Model):
    """Which pods may talk to which."""

    enabled: bool = Field(default=True, description="Deny everything but the paths the services need.")


class Rollout(Model):
    """How a change is carried out."""

    progress_deadline_seconds: int = Field(
        default=600,
        description="Time a service has to become available before the roll-out counts as failed.",
        json_schema_extra=rules(("self >= 60 && self <= 3600", "rollout.progressDeadlineSeconds must be 60 to 3600")),
    )
    max_parallel: int = Field(
        default=2,
        description="Services that are replaced at the same time.",
        json_schema_extra=rules(("self >= 1 && self <= 9", "rollout.maxParallel must be 1 to 9")),
    )


ServiceKey = Annotated[str, Field(max_length=63)]


class Spec(Model):
    """The desired installation."""

    version: str = Field(
        max_length=32,
        description="Release of the services; the image tag and the level of the database schemas follow from it.",
        json_schema_extra=rules(
            (
                r"self.matches('^[0-9]+\\.[0-9]+\\.[0-9]+(-[a-z0-9.]+)?$')",
                "version must be a release such as 0.1.0, without a leading v",
            )
        ),
    )
    paused: bool = Field(default=False, description="Change and repair nothing; the status is still kept.")
    profile: Literal["Development", "Production"] = Field(
        default="Development",
        description="Development: one pod each. Production: two pods each, budgets, spread.",
    )
    image: Image = Field(default=Image(), description="Where the services' image comes from.")
    expose: Expose = Field(default=Expose(), description="How the gateway is reached from outside the cluster.")
    services: dict[ServiceKey, ServiceSpec] = Field(
        default={},
        max_length=9,
        description="Settings of single services, by name: " + ", ".join(SERVICE_NAMES) + ".",
        json_schema_extra=rules(
            (
                f"self.all(k, k in [{', '.join(repr(name) for name in SERVICE_NAMES)}])",
                f"spec.services has a service that does not exist: use one of {', '.join(SERVICE_NAMES)}",
            ),
            (
                "!('distillation-worker' in self) || !has(self['distillation-worker'].replicas) || "
                "self['distillation-worker'].replicas <= 1",
                "distillation-worker keeps its own schedule and runs as one pod: set its replicas to 0 or 1",
            ),
        ),
    )
    postgres: Postgres = Field(default=Postgres(), description="Postgres with pgvector: all that must last.")
    redis: Redis = Field(default=Redis(), description="Redis: streams, revocations, rate limits, short memory.")
    models: Models = Field(default=Models(), description="The language model and the embedding model.")
    limits: Limits = Field(default=Limits(), description="Rate limits of the gateway.")
    tiers: Tiers = Field(default=Tiers(), description="What each subscription tier may use.")
    network_policy: NetworkPolicySpec = Field(default=NetworkPolicySpec(), description="Which pods may talk to which.")
    rollout: Rollout = Field(default=Rollout(), description="How a change is carried out.")

    def of(self, service: str) -> ServiceSpec:
        """Return the settings of one service, empty if none are given."""
        return self.services.get(service, ServiceSpec())
