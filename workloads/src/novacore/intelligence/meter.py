"""What the chain reports, as metrics of the registry. Models are bounded: six names, then `other`."""

from __future__ import annotations

from novacore.common.metrics import Metrics
from novacore.intelligence.providers import FailureKind, Provider

OPERATION = "chat"


class ModelMeter:
    """Implements `providers.chain.Meter`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._duration = metrics.histogram("gen_ai_client_operation_duration_seconds")
        self._usage = metrics.histogram("gen_ai_client_token_usage")
        self._first = metrics.histogram("gen_ai_server_time_to_first_token_seconds")
        self._per_token = metrics.histogram("gen_ai_server_time_per_output_token_seconds")
        self._requests = metrics.counter("novacore_llm_requests_total")
        self._tokens = metrics.counter("novacore_llm_tokens_total")
        self._cost = metrics.counter("novacore_llm_cost_usd_total")
        self._up = metrics.gauge("novacore_llm_provider_up")
        self._depth = metrics.gauge("novacore_llm_queue_depth")
        self._wait = metrics.histogram("novacore_llm_queue_wait_seconds")
        self._fallbacks = metrics.counter("novacore_llm_fallbacks_total")

    def announce(self, provider: Provider) -> None:
        """Create the children of a configured provider, so that its first event is an increase."""
        model = self._model(provider.model)
        for outcome in ("ok", "error", "timeout", "cancelled"):
            self._requests.labels(provider.name, model, outcome)
        for kind in ("prompt", "completion", "cached"):
            self._tokens.labels(model, kind)
        self._cost.labels(model)
        self._up.labels(provider.name).set(0)
        self._depth.labels(provider.name).set(0)

    def request(self, provider: Provider, outcome: str, *, seconds: float, first_s: float | None) -> None:
        """Count and time a generation."""
        model = self._model(provider.model)
        self._requests.labels(provider.name, model, outcome).inc()
        self._duration.labels(OPERATION, provider.name, model).observe(seconds)
        if first_s is not None:
            self._first.labels(model).observe(first_s)

    def fallback(self, reason: FailureKind) -> None:
        """Count a fallback."""
        self._fallbacks.labels(reason.value).inc()

    def queue(self, provider: Provider, *, depth: int, waited_s: float | None) -> None:
        """Show the queue's length, and how long the one who left it had waited."""
        self._depth.labels(provider.name).set(depth)
        if waited_s is not None:
            self._wait.observe(waited_s)

    def up(self, provider: Provider, *, is_up: bool) -> None:
        """Show whether the provider answered its probe."""
        self._up.labels(provider.name).set(int(is_up))

    def tokens(self, model: str, *, prompt: int, completion: int, cached: int, writing_s: float | None) -> None:
        """Count what a run used. `writing_s`: from the first token to the last."""
        bounded = self._model(model)
        self._tokens.labels(bounded, "prompt").inc(prompt)
        self._tokens.labels(bounded, "completion").inc(completion)
        self._tokens.labels(bounded, "cached").inc(cached)
        self._usage.labels("input", bounded).observe(prompt)
        self._usage.labels("output", bounded).observe(completion)
        if writing_s is not None and completion > 1:
            self._per_token.labels(bounded).observe(writing_s / (completion - 1))

    def _model(self, model: str) -> str:
        return self._metrics.bounded("novacore_llm_requests_total", "model", model)
