"""Every CEL rule of the CRD with one resource that it lets pass and one that it refuses.

The table is data: `tests/unit/operator/api/test_cel_cases.py` holds it against the generated CRD (no rule without a
case, no case without a rule), `test_cel.py` beside it sends each case to a real API server. A case must differ between
`accepted` and `refused` in nothing but what its rule looks at, so that the refusal can come from that rule alone.

How to send one: make an object with `manifest(case.accepted)`. A case with `old` is a transition rule (`oldSelf`):
create `old` first, then update it to `accepted` (goes through) or to `refused` (does not). The refusal's message holds
`case.says`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from novacore_operator.api import API_VERSION, KIND
from novacore_operator.api.fields import RULES

Fields = dict[str, Any]

VERSION = "0.1.0"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def spec(**fields: Any) -> Fields:
    """Return a whole spec: the fields given, and the version, which is the only one without a default."""
    return {"version": VERSION, **fields}


def service(name: str = "memory", /, **fields: Any) -> Fields:
    """Return a spec with settings of one service."""
    return spec(services={name: fields})


def llm(**fields: Any) -> Fields:
    """Return a spec with a language model."""
    return spec(models={"llm": fields})


def stripe(**fields: Any) -> Fields:
    """Return a spec with Stripe, whole but for the fields given; None takes one out."""
    whole = {
        "enabled": True,
        "apiKeySecretRef": {"name": "stripe"},
        "webhook": {"secretRef": {"name": "stripe"}},
        "prices": {"pro": "price_1AbC"},
    } | fields
    return spec(stripe={name: value for name, value in whole.items() if value is not None})


def window(**fields: Any) -> Fields:
    """Return a spec with one maintenance window, good but for the fields given."""
    return spec(maintenance={"windows": [{"cron": "0 2 * * 6", "duration": "2h", **fields}]})


def ring(name: str, /, **fields: Any) -> Fields:
    """Return a spec with what is said of one ring of keys."""
    return spec(secrets={"rings": {name: fields}})


def ring_window(name: str, /, **fields: Any) -> Fields:
    """Return a spec with one window of a ring, good but for the fields given."""
    return ring(name, windows=[{"cron": "0 9 * * 1-4", "duration": "7h", **fields}])


def peer(**fields: Any) -> Fields:
    """Return a spec that lets one peer reach the gateway."""
    return spec(networkPolicy={"ingressFrom": [fields]})


def toleration(**fields: Any) -> Fields:
    """Return a spec with one toleration of one service."""
    return service(tolerations=[fields])


@dataclass(frozen=True, slots=True)
class Case:
    """One rule, named by where it stands and by words of its sentence that no other rule there uses.

    `path` is dotted from the root of the resource, with `*` for the keys of a map and `[]` for the items of a list:
    `spec.services.*.replicas`; the root itself is the empty string. `name` is the resource's name, `refused_name` that
    of the refused one, for the one rule that looks at it.
    """

    path: str
    says: str
    accepted: Fields
    refused: Fields
    old: Fields | None = None
    name: str = "nova"
    refused_name: str = "nova"

    @property
    def id(self) -> str:
        """Return the name of the case, for the test's id."""
        return f"{self.path or 'metadata'}: {self.says}"

    @property
    def is_transition(self) -> bool:
        """Return whether the rule compares with the object before the update."""
        return self.old is not None

    def manifests(self, namespace: str) -> Manifests:
        """Return the objects to send: `old` (None unless it is a transition), `accepted`, `refused`."""
        return Manifests(
            old=manifest(self.old, name=self.name, namespace=namespace) if self.old is not None else None,
            accepted=manifest(self.accepted, name=self.name, namespace=namespace),
            refused=manifest(self.refused, name=self.refused_name, namespace=namespace),
        )


@dataclass(frozen=True, slots=True)
class Manifests:
    """The objects of one case."""

    old: Fields | None = field(repr=False)
    accepted: Fields = field(repr=False)
    refused: Fields = field(repr=False)


def manifest(of: Fields, *, name: str = "nova", namespace: str = "default") -> Fields:
    """Return a NovaCoreDeployment with this spec."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": of,
    }


GENERAL = (
    Case("", "63 characters or fewer", spec(), spec(), name="n" * 63, refused_name="n" * 64),
    Case("spec.version", "without a leading v", spec(), spec(version="v0.1.0")),
    Case("spec.image", "keep the digest", spec(image={"digest": DIGEST}), spec(image={"digest": DIGEST, "tag": "t"})),
    Case(
        "spec.image.pullSecrets",
        "names a Secret twice",
        spec(image={"pullSecrets": ["a", "b"]}),
        spec(image={"pullSecrets": ["a", "a"]}),
    ),
    Case("spec.image.digest", "64 hex digits", spec(image={"digest": DIGEST}), spec(image={"digest": DIGEST[:-1]})),
    Case(
        "spec.expose",
        "only used with expose.type NodePort",
        spec(expose={"type": "NodePort", "nodePort": 30001}),
        spec(expose={"type": "LoadBalancer", "nodePort": 30001}),
    ),
    Case(
        "spec.expose.nodePort",
        "between 30000 and 32767",
        spec(expose={"type": "NodePort", "nodePort": 32767}),
        spec(expose={"type": "NodePort", "nodePort": 32768}),
    ),
    Case(
        "spec.rollout.progressDeadlineSeconds",
        "30 to 3600",
        spec(rollout={"progressDeadlineSeconds": 30}),
        spec(rollout={"progressDeadlineSeconds": 29}),
    ),
    Case(
        "spec.rollout.canary.seconds",
        "10 to 3600",
        spec(rollout={"canary": {"enabled": True, "seconds": 10}}),
        spec(rollout={"canary": {"enabled": True, "seconds": 9}}),
    ),
    Case("spec.rollout.maxParallel", "1 to 9", spec(rollout={"maxParallel": 9}), spec(rollout={"maxParallel": 0})),
    Case("spec.maintenance.windows[].cron", "needs five fields", window(cron="30 2 1 * *"), window(cron="0 2 * *")),
    Case(
        "spec.maintenance.windows[].timezone",
        "must be an IANA name",
        window(timezone="Europe/Berlin"),
        window(timezone="+02:00"),
    ),
    Case("spec.maintenance.windows[].duration", "from 10m to 168h", window(duration="1h30m"), window(duration="9m")),
)

SHORTEST = {"serviceJwt": ("12h3m", "12h2m"), "userJwt": ("11m", "10m")}
RINGS = tuple(
    case
    for name, (long_enough, too_short) in SHORTEST.items()
    for at in [f"spec.secrets.rings.{name}"]
    for case in (
        Case(at, "remove one of them", ring(name, cron="0 3 1 * *"), ring(name, cron="0 3 1 * *", interval="2160h")),
        Case(at, "must be at least", ring(name, interval=long_enough), ring(name, interval=too_short)),
        Case(f"{at}.interval", "at most 87600h", ring(name, interval="36h30m"), ring(name, interval="87601h")),
        Case(f"{at}.cron", "needs five fields", ring(name, cron="0 3 1 * *"), ring(name, cron="0 3 1 *")),
        Case(f"{at}.timezone", "must be an IANA name", ring(name, timezone="Asia/Tokyo"), ring(name, timezone="+9")),
        Case(f"{at}.jitter", "must be 0% to 50%", ring(name, jitter="50%"), ring(name, jitter="51%")),
        Case(
            f"{at}.ackTimeoutSeconds", "10 to 86400", ring(name, ackTimeoutSeconds=10), ring(name, ackTimeoutSeconds=9)
        ),
        Case(f"{at}.history", "3 to 50", ring(name, history=50), ring(name, history=51)),
        Case(
            f"{at}.windows[].cron",
            "needs five fields",
            ring_window(name, cron="0 9 * * *"),
            ring_window(name, cron="0 9 * *"),
        ),
        Case(
            f"{at}.windows[].timezone",
            "must be an IANA name",
            ring_window(name, timezone="Europe/Berlin"),
            ring_window(name, timezone="+02:00"),
        ),
        Case(
            f"{at}.windows[].duration",
            "from 10m to 168h",
            ring_window(name, duration="168h"),
            ring_window(name, duration="169h"),
        ),
    )
)

SERVICES = (
    Case("spec.services", "a service that does not exist", service("gateway"), service("gate")),
    Case(
        "spec.services",
        "set its replicas to 0 or 1",
        service("distillation-worker", replicas=1),
        service("distillation-worker", replicas=2),
    ),
    Case(
        "spec.services",
        "remove its autoscaling",
        service("reflection-worker", autoscaling={"maxReplicas": 2}),
        service("distillation-worker", autoscaling={"maxReplicas": 2}),
    ),
    Case(
        "spec.services",
        "gateway cannot be disabled",
        service("memory", enabled=False),
        service("gateway", enabled=False),
    ),
    Case(
        "spec.services",
        "auth-billing cannot be disabled",
        service("auth-billing", enabled=True),
        service("auth-billing", enabled=False),
    ),
    Case(
        "spec.services.*",
        "remove replicas",
        service(autoscaling={"maxReplicas": 3}),
        service(autoscaling={"maxReplicas": 3}, replicas=2),
    ),
    Case("spec.services.*.replicas", "0 or more", service(replicas=0), service(replicas=-1)),
    Case("spec.services.*.replicas", "50 or fewer", service(replicas=50), service(replicas=51)),
    Case(
        "spec.services.*.autoscaling",
        "below autoscaling.minReplicas",
        service(autoscaling={"minReplicas": 3, "maxReplicas": 3}),
        service(autoscaling={"minReplicas": 4, "maxReplicas": 3}),
    ),
    Case(
        "spec.services.*.autoscaling.minReplicas",
        "must be 1 to 50",
        service(autoscaling={"minReplicas": 1, "maxReplicas": 2}),
        service(autoscaling={"minReplicas": 0, "maxReplicas": 2}),
    ),
    Case(
        "spec.services.*.autoscaling.maxReplicas",
        "must be 1 to 50",
        service(autoscaling={"maxReplicas": 50}),
        service(autoscaling={"maxReplicas": 51}),
    ),
    Case(
        "spec.services.*.autoscaling.targetCPUUtilization",
        "10 to 100, in percent",
        service(autoscaling={"maxReplicas": 2, "targetCPUUtilization": 100}),
        service(autoscaling={"maxReplicas": 2, "targetCPUUtilization": 101}),
    ),
    Case(
        "spec.services.*.image",
        "keep the digest",
        service(image={"digest": DIGEST}),
        service(image={"digest": DIGEST, "tag": "t"}),
    ),
    Case(
        "spec.services.*.image.digest",
        "64 hex digits",
        service(image={"digest": DIGEST}),
        service(image={"digest": "sha512:" + DIGEST[7:]}),
    ),
    Case("spec.services.*.env", "capital letters", service(env={"HTTP_PROXY": "p"}), service(env={"http_proxy": "p"})),
    Case("spec.services.*.env", "prefix NOVA_", service(env={"NOVA": "p"}), service(env={"NOVA_ROOT": "/"})),
    Case("spec.services.*.env", "must not hold secrets", service(env={"TZ": "UTC"}), service(env={"API_KEY": "sk"})),
    Case(
        "spec.services.*.podAnnotations",
        "prefix novacore.ai/",
        service(podAnnotations={"example.org/a": "1"}),
        service(podAnnotations={"novacore.ai/a": "1"}),
    ),
    Case(
        "spec.services.*.podLabels",
        "prefixes novacore.ai/ and app.kubernetes.io/",
        service(podLabels={"team": "a"}),
        service(podLabels={"app.kubernetes.io/name": "a"}),
    ),
    Case(
        "spec.services.*.tolerations[]",
        "bears any value",
        toleration(key="pool", operator="Equal", value="a"),
        toleration(key="pool", operator="Exists", value="a"),
    ),
    Case("spec.services.*.tolerations[]", "needs a key", toleration(operator="Exists"), toleration(operator="Equal")),
    Case(
        "spec.services.*.tolerations[]",
        "only used with effect NoExecute",
        toleration(key="pool", effect="NoExecute", tolerationSeconds=60),
        toleration(key="pool", effect="NoSchedule", tolerationSeconds=60),
    ),
    Case(
        "spec.services.*.topologySpreadConstraints",
        "keep one",
        service(topologySpreadConstraints=[{"topologyKey": "zone"}, {"topologyKey": "rack"}]),
        service(topologySpreadConstraints=[{"topologyKey": "zone"}, {"topologyKey": "zone", "maxSkew": 2}]),
    ),
    Case(
        "spec.services.*.image.pullSecrets",
        "names a Secret twice",
        service(image={"pullSecrets": ["a", "b"]}),
        service(image={"pullSecrets": ["a", "a"]}),
    ),
    Case(
        "spec.services.*.topologySpreadConstraints[].maxSkew",
        "1 or more",
        service(topologySpreadConstraints=[{"maxSkew": 1}]),
        service(topologySpreadConstraints=[{"maxSkew": 0}]),
    ),
    Case(
        "spec.services.*.terminationGracePeriodSeconds",
        "45 to 3600",
        service(terminationGracePeriodSeconds=45),
        service(terminationGracePeriodSeconds=44),
    ),
)

NETWORK = (
    Case(
        "spec.networkPolicy",
        "only used with networkPolicy.enabled",
        spec(networkPolicy={"enabled": True, "ingressFrom": [{"podSelector": {}}]}),
        spec(networkPolicy={"enabled": False, "ingressFrom": [{"podSelector": {}}]}),
    ),
    Case(
        "spec.networkPolicy.ingressFrom",
        "is empty",
        peer(namespaceSelector={"matchLabels": {"team": "a"}}),
        spec(networkPolicy={"ingressFrom": []}),
    ),
    Case("spec.networkPolicy.ingressFrom[]", "names nobody", peer(namespaceSelector={}), peer()),
    Case(
        "spec.networkPolicy.ingressFrom[]",
        "stands alone",
        peer(ipBlock={"cidr": "192.0.2.0/24"}),
        peer(ipBlock={"cidr": "192.0.2.0/24"}, podSelector={}),
    ),
    Case(
        "spec.networkPolicy.ingressFrom[].ipBlock.cidr",
        "a range of addresses",
        peer(ipBlock={"cidr": "2001:db8::/32"}),
        peer(ipBlock={"cidr": "192.0.2.256/24"}),
    ),
)


def resources(path: str, place: Any) -> Iterator[Case]:
    """Yield the rules on requests and limits, which stand in three places. `place` makes a spec of the field."""
    for what, less, more in (("cpu", "500m", "1"), ("memory", "512Mi", "1Gi")):
        yield Case(
            path,
            f"resources.requests.{what} is above",
            place({"requests": {what: less}, "limits": {what: more}}),
            place({"requests": {what: more}, "limits": {what: less}}),
        )


def storage(store: str) -> Iterator[Case]:
    """Yield the rules on the volume of one data store."""

    def volume(**fields: Any) -> Fields:
        return spec(**{store: {"storage": fields}})

    path = f"spec.{store}.storage"
    yield Case(path, "100Mi or more", volume(size="100Mi"), volume(size="99Mi"))
    yield Case(path, "cannot shrink", volume(size="3Gi"), volume(size="1999Mi"), old=volume(size="2Gi"))
    yield Case(
        path,
        "className cannot be changed",
        volume(size="2Gi", className="slow"),
        volume(size="1Gi", className="fast"),
        old=volume(size="1Gi", className="slow"),
    )


EXTERNAL: Fields = {"mode": "External", "external": {"adminSecretRef": {"name": "pg"}}}
LOGINS = ("auth-billing", "noble-spirit", "memory", "intelligence", "ngs-curriculum", "distillation-worker", "migrate")


def own_logins(*names: str) -> Fields:
    """Return a spec with logins that the user made."""
    refs = {name: {"name": f"pg-{name}"} for name in names}
    return spec(postgres={"mode": "External", "external": {"perServiceSecretRefs": refs}})


def redis(*, cache: str = "", second: bool = False) -> Fields:
    """Return a spec with a Redis of the user's."""
    refs = {"secretRef": {"name": "redis"}, **({"cacheSecretRef": {"name": "cache"}} if second else {})}
    return spec(redis={"mode": "External", "external": refs, **({"cache": cache} if cache else {})})


STORES = (
    Case(
        "spec.postgres.external",
        "needs one of two",
        spec(postgres=EXTERNAL),
        spec(postgres={"mode": "External", "external": {}}),
    ),
    Case(
        "spec.postgres.external.perServiceSecretRefs",
        "must name a Secret for each of",
        own_logins(*LOGINS),
        own_logins(*LOGINS[:-1]),
    ),
    Case(
        "spec.postgres.external.perServiceSecretRefs",
        "logs in nowhere",
        own_logins(*LOGINS),
        own_logins(*LOGINS[:-1], "gateway"),
    ),
    Case(
        "spec.postgres",
        "only read with postgres.mode CloudNativePG",
        spec(postgres={"mode": "CloudNativePG", "cloudNativePG": {"instances": 2}}),
        spec(postgres={"mode": "Simple", "cloudNativePG": {"instances": 2}}),
    ),
    Case(
        "spec.postgres.cloudNativePG.instances",
        "must be 1 to 9",
        spec(postgres={"mode": "CloudNativePG", "cloudNativePG": {"instances": 9}}),
        spec(postgres={"mode": "CloudNativePG", "cloudNativePG": {"instances": 0}}),
    ),
    Case(
        "spec.redis",
        "cannot be changed in place",
        spec(redis={"cache": "Separate"}),
        redis(),
        old=spec(redis={"cache": "Shared"}),
    ),
    Case("spec.redis", "no Secret is named", redis(), spec(redis={"mode": "External"})),
    Case(
        "spec.redis",
        "only read with redis.mode External",
        redis(),
        spec(redis={"mode": "Simple", "external": {"secretRef": {"name": "redis"}}}),
    ),
    Case("spec.redis", "must agree", redis(cache="Separate", second=True), redis(cache="Shared", second=True)),
    Case(
        "spec.postgres",
        "cannot be changed in place",
        spec(postgres={"image": "pgvector/pgvector:pg17"}),
        spec(postgres=EXTERNAL),
        old=spec(postgres={"mode": "Simple"}),
    ),
    Case("spec.postgres", "no Secret is named", spec(postgres=EXTERNAL), spec(postgres={"mode": "External"})),
    Case(
        "spec.postgres",
        "only read with postgres.mode External",
        spec(postgres=EXTERNAL),
        spec(postgres={**EXTERNAL, "mode": "Simple"}),
    ),
    *(case for store in ("postgres", "redis") for case in storage(store)),
    *resources("spec.services.*.resources", lambda given: service(resources=given)),
    *resources("spec.postgres.resources", lambda given: spec(postgres={"resources": given})),
    *resources("spec.redis.resources", lambda given: spec(redis={"resources": given})),
)

SERVER: Fields = {"provider": "openai", "baseURL": "https://models.example.org", "model": "m"}
MODELS = (
    Case(
        "spec.models.llm",
        "need llm.baseURL",
        llm(**SERVER),
        llm(provider="openai", model="m"),
    ),
    Case(
        "spec.models.llm",
        "need llm.model",
        llm(**SERVER),
        llm(provider="openai", baseURL="https://models.example.org"),
    ),
    Case(
        "spec.models.llm",
        "llm.apiKeySecretRef is only used with",
        llm(**SERVER, apiKeySecretRef={"name": "key"}),
        llm(**{**SERVER, "provider": "ollama"}, apiKeySecretRef={"name": "key"}),
    ),
    Case(
        "spec.models.llm",
        "llm.baseURL is only used with",
        llm(**{**SERVER, "provider": "ollama"}),
        llm(provider="embedded", baseURL="https://models.example.org"),
    ),
    Case(
        "spec.models.llm.baseURL",
        "must start with http",
        llm(**SERVER),
        llm(**{**SERVER, "baseURL": "models.example.org"}),
    ),
    Case("spec.models.llm.maxTokens", "1 to 2000", llm(maxTokens=2000), llm(maxTokens=2001)),
    Case("spec.models.llm.timeoutSeconds", "1 to 600", llm(timeoutSeconds=600), llm(timeoutSeconds=0)),
    Case(
        "spec.models.llm.echo.delayMs",
        "0 to 10000",
        llm(provider="echo", echo={"delayMs": 0}),
        llm(provider="echo", echo={"delayMs": -1}),
    ),
    Case(
        "spec.models.llm.echo.tokens",
        "1 to 2000",
        llm(provider="echo", echo={"tokens": 1}),
        llm(provider="echo", echo={"tokens": 0}),
    ),
)

STRIPE = (
    Case("spec.stripe", "name both Secrets", stripe(), stripe(webhook=None)),
    Case("spec.stripe", "needs a price", stripe(prices={"basic": "price_1AbC"}), stripe(prices={})),
    Case(
        "spec.stripe.prices.basic",
        "must be the id of a price",
        stripe(prices={"basic": "price_1"}),
        stripe(prices={"basic": "9.00"}),
    ),
    Case(
        "spec.stripe.prices.pro",
        "must be the id of a price",
        stripe(prices={"pro": "price_1"}),
        stripe(prices={"pro": "prod_1"}),
    ),
    Case(
        "spec.stripe.returnURL",
        "must start with http",
        stripe(returnURL="https://app.example.org"),
        stripe(returnURL="app.example.org"),
    ),
)

LIMITS = tuple(
    Case(f"spec.limits.{name}", "1 to 1000000 per minute", spec(limits={name: 1}), spec(limits={name: 0}))
    for name in ("authPerMinute", "loginPerAccountPerMinute", "anonPerMinute", "webhookPerMinute")
)

TIERS = tuple(
    Case(
        f"spec.tiers.{tier}",
        f"tiers: {name} must be",
        spec(tiers={tier: {name: accepted}}),
        spec(tiers={tier: {name: refused}}),
    )
    for tier in ("freeTrial", "basic", "pro")
    for name, accepted, refused in (
        ("tokensPerDay", -1, -2),
        ("memoryGiB", 0, -2),
        ("agentMinutesPerMonth", -1, -2),
        ("requestsPerMinute", 1, 0),
        ("readPerMinute", 1_000_000, 1_000_001),
        ("ngsMaxLevel", 24, 25),
    )
)

CASES: tuple[Case, ...] = (*GENERAL, *RINGS, *SERVICES, *NETWORK, *STORES, *MODELS, *STRIPE, *LIMITS, *TIERS)


def rules_of(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every rule with its path."""
    for rule in node.get(RULES, ()):
        yield path, rule
    for name, child in node.get("properties", {}).items():
        yield from rules_of(child, f"{path}.{name}" if path else name)
    if isinstance(node.get("additionalProperties"), dict):
        yield from rules_of(node["additionalProperties"], f"{path}.*")
    if "items" in node:
        yield from rules_of(node["items"], f"{path}[]")
