"""`spec.image` and `spec.services`: what each of the nine services has of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Annotations, EnvValue, FreeForm, Labels, Model, ObjectName, rules
from novacore_operator.api.resources import Resources

MAX_PODS = 50

ONE_VERSION = (
    "!(has(self.tag) && has(self.digest))",
    "image.tag and image.digest are both set: keep the digest, it says exactly which image",
)
DIGEST_FORM = ("self.matches('^sha256:[a-f0-9]{64}$')", "image.digest must be sha256: and 64 hex digits")
Repository = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[a-zA-Z0-9][-a-zA-Z0-9._:/]*$")]
Tag = Annotated[str, Field(max_length=128, pattern=r"^[a-zA-Z0-9_][-a-zA-Z0-9_.]*$")]
Digest = Annotated[str, Field(max_length=71)]
PullPolicy = Literal["IfNotPresent", "Always", "Never"]
PullSecrets = Annotated[
    list[ObjectName],
    Field(
        max_length=8,
        json_schema_extra=rules(
            (
                "self.all(name, self.exists_one(other, other == name))",
                "image.pullSecrets names a Secret twice: name it once",
            )
        ),
    ),
]


class Image(Model):
    """Where the image of the nine services comes from."""

    model_config = ConfigDict(json_schema_extra=rules(ONE_VERSION))

    repository: Repository = Field(
        default="novacore/workloads", description="Repository of the workloads image, without tag."
    )
    tag: Tag | None = Field(default=None, description="Tag; without it the release in spec.version is the tag.")
    digest: Digest | None = Field(
        default=None, description="Digest; wins over any tag.", json_schema_extra=rules(DIGEST_FORM)
    )
    pull_policy: PullPolicy = Field(default="IfNotPresent", description="When the kubelet pulls.")
    pull_secrets: PullSecrets = Field(default=[], description="Names of Secrets with registry credentials.")


class ServiceImage(Model):
    """Another image for one service. What is absent comes from `spec.image`."""

    model_config = ConfigDict(json_schema_extra=rules(ONE_VERSION))

    repository: Repository | None = Field(default=None, description="Repository; absent: spec.image.repository.")
    tag: Tag | None = Field(
        default=None, description="Tag; absent, with digest absent too: the tag or digest of spec.image."
    )
    digest: Digest | None = Field(
        default=None, description="Digest; wins over any tag.", json_schema_extra=rules(DIGEST_FORM)
    )
    pull_policy: PullPolicy | None = Field(
        default=None, description="When the kubelet pulls; absent: spec.image.pullPolicy."
    )
    pull_secrets: PullSecrets | None = Field(
        default=None, description="Names of Secrets with registry credentials; absent: spec.image.pullSecrets."
    )


class Autoscaling(Model):
    """A HorizontalPodAutoscaler on the CPU that the pods use. It needs a metrics server in the cluster."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.minReplicas) || self.maxReplicas >= self.minReplicas",
                "autoscaling.maxReplicas is below autoscaling.minReplicas: raise the one or lower the other",
            )
        )
    )

    min_replicas: int | None = Field(
        default=None,
        description="Least number of pods; absent: the profile's number (1 or 2), or maxReplicas if that is less.",
        json_schema_extra=rules(
            (
                f"self >= 1 && self <= {MAX_PODS}",
                f"autoscaling.minReplicas must be 1 to {MAX_PODS}: use replicas 0 to stop a service",
            )
        ),
    )
    max_replicas: int = Field(
        description="Greatest number of pods.",
        json_schema_extra=rules(
            (f"self >= 1 && self <= {MAX_PODS}", f"autoscaling.maxReplicas must be 1 to {MAX_PODS}")
        ),
    )
    target_cpu_utilization: int = Field(
        default=80,
        alias="targetCPUUtilization",
        description="Mean CPU use of the pods to aim at, in percent of what they request.",
        json_schema_extra=rules(
            ("self >= 10 && self <= 100", "autoscaling.targetCPUUtilization must be 10 to 100, in percent")
        ),
    )


class Toleration(Model):
    """A toleration of the pod."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.operator == 'Equal' || !has(self.value)",
                "tolerations: operator Exists bears any value: remove the value or use operator Equal",
            ),
            (
                "self.operator == 'Exists' || has(self.key)",
                "tolerations: operator Equal needs a key: set it, or use operator Exists to bear every taint",
            ),
            (
                "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                "tolerations: tolerationSeconds is only used with effect NoExecute: set the effect or remove it",
            ),
        )
    )

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


SECRET_WORDS = ("PASSWORD", "SECRET", "TOKEN", "KEY")
ENV_RULES = (
    (
        "self.all(k, size(k) <= 64 && k.matches('^[A-Z][A-Z0-9_]*$'))",
        "env: a name has capital letters, digits and underscores, begins with a letter and is 64 characters or fewer",
    ),
    (
        "self.all(k, !k.startsWith('NOVA_'))",
        "env must not use the prefix NOVA_: those variables are the operator's, use the fields of this resource",
    ),
    (
        f"self.all(k, !{list(SECRET_WORDS)}.exists(word, k.contains(word)))",
        f"env must not hold secrets (a name with {', '.join(SECRET_WORDS)}): put the value into a Secret and name it "
        "in a secretRef, such as models.llm.apiKeySecretRef",
    ),
)


class ServiceSpec(Model):
    """What one of the nine services has of its own. Everything is optional."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!(has(self.replicas) && has(self.autoscaling))",
                "replicas and autoscaling are both set: remove replicas, the autoscaler chooses the number",
            )
        )
    )

    enabled: bool = Field(
        default=True,
        description="Whether the service exists. Without it, its Deployment, Service and policies go; its data and its "
        "credentials stay. gateway and auth-billing cannot be disabled.",
    )
    replicas: int | None = Field(
        default=None,
        description="Pods; absent: 1 with profile Development, 2 with Production (1 for distillation-worker).",
        json_schema_extra=rules(
            ("self >= 0", "replicas must be 0 or more: 0 stops the service, absent takes the profile's number"),
            (f"self <= {MAX_PODS}", f"replicas must be {MAX_PODS} or fewer"),
        ),
    )
    autoscaling: Autoscaling | None = Field(
        default=None, description="Let the load decide how many pods there are, instead of replicas."
    )
    image: ServiceImage | None = Field(default=None, description="Another image for this service, such as a trial.")
    env: dict[str, EnvValue] | None = Field(
        default=None,
        max_length=32,
        description="Extra environment variables of the container. Settings have fields, secrets a secretRef.",
        json_schema_extra=rules(*ENV_RULES),
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
        default=None,
        max_length=8,
        description="Spread; absent: over nodes, where there are two or more replicas.",
        json_schema_extra=rules(
            (
                "self.all(item, self.exists_one(other, other.topologyKey == item.topologyKey && "
                "other.whenUnsatisfiable == item.whenUnsatisfiable))",
                "topologySpreadConstraints: two entries have the same topologyKey and whenUnsatisfiable: keep one",
            )
        ),
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
