"""Every metric there is. Services, rules, panels, docs and tests read this table; none adds to
it elsewhere.

A label is a `Label` with either `values` (enumerated; children of a counter are created at start with 0, so that the
first event is an increase and not a birth) or a `bound` (how many values it may take at most). Invariants: METRIC-1
names are unique; METRIC-2 counters and only counters end in `_total`; METRIC-3 each label has values or a bound;
METRIC-4 no label names a person, a request, a raw path, a raw model or a raw tool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

ALL = "all"
"""Owner of the metrics that each of the nine services exposes."""
WORKERS = "workers"
"""Owner of the metrics of every process that consumes a stream, the two workers among them."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label: its possible values, or how many there may be."""

    name: str
    values: tuple[str, ...] = ()
    bound: int = 0

    @property
    def size(self) -> int:
        """The most values this label takes."""
        return len(self.values) or self.bound


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `owners`: service names, `all`, `workers` or `operator`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    owners: tuple[str, ...] = (ALL,)

    @property
    def enumerated(self) -> bool:
        """Whether all label values are known beforehand, so that all children can exist from the start."""
        return all(label.values for label in self.labels)


TIER = Label("tier", ("free_trial", "basic", "pro"))
RESOURCE = Label("resource", ("llm_tokens", "memory_storage", "agent_minutes"))
RING = Label(
    "ring",
    ("serviceJwt", "userJwt", "policy", "stripeKey", "stripeWebhook", "postgres", "redis", "providers"),
)
ROUTE = Label("route", bound=25)
METHOD = Label("method", ("GET", "POST", "PUT", "DELETE", "other"))
STATUS_CODES: tuple[str, ...] = (
    "200",
    "201",
    "202",
    "204",
    "304",
    "400",
    "401",
    "402",
    "403",
    "404",
    "409",
    "413",
    "422",
    "429",
    "500",
    "502",
    "503",
    "504",
)
CODE = Label("code", (*STATUS_CODES, "other"))
QUIET_ROUTES: frozenset[str] = frozenset({"/livez", "/readyz", "/startupz", "/metrics", "/internal/keyset"})
"""Asked again and again by the cluster itself: not in the access log, and no part of what a service serves."""
PEER = Label("peer", bound=8)
STREAM = Label("stream", bound=5)
JOB = Label("job", bound=6)
MODEL = Label("gen_ai_request_model", bound=6)
READY_CHECKS: tuple[str, ...] = ("database", "redis", "migrations", "model", "draining", "loop")
MEMORY_TIER = Label("tier", ("stm", "itm", "ltm"))
RESULT_OK = Label("result", ("ok", "error"))

_REQUEST = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
_QUERY = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1)


def _doubling(first: float, count: int) -> tuple[float, ...]:
    return tuple(round(first * 2**n, 2) for n in range(count))


PLATFORM: tuple[Metric, ...] = (
    Metric("http_requests_total", "counter", "Requests answered.", (METHOD, ROUTE, CODE)),
    Metric(
        "http_request_duration_seconds",
        "histogram",
        "Time to the last byte of an answer; of a stream, to its first byte.",
        (METHOD, ROUTE, Label("slo", ("interactive", "stream", "batch"))),
        _REQUEST,
    ),
    Metric(
        "http_response_start_seconds",
        "histogram",
        "Time to the first byte of an answer.",
        (ROUTE,),
        (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
    ),
    Metric("http_requests_in_flight", "gauge", "Requests being answered now."),
    Metric(
        "http_client_requests_total",
        "counter",
        "Calls to a peer.",
        (PEER, Label("outcome", ("ok", "error", "timeout", "open"))),
    ),
    Metric("http_client_request_duration_seconds", "histogram", "Time of a call to a peer.", (PEER,), _REQUEST),
    Metric("novacore_circuit_state", "gauge", "Circuit to a peer: 0 closed, 1 half-open, 2 open.", (PEER,)),
    Metric(
        "novacore_http_shed_total",
        "counter",
        "Requests refused to protect the service.",
        (Label("reason", ("in_flight", "queue", "draining")),),
    ),
    Metric(
        "novacore_build_info", "gauge", "Always 1; what runs.", (Label("version", bound=2), Label("revision", bound=2))
    ),
    Metric("novacore_ready", "gauge", "A readiness check: 1 passes.", (Label("check", READY_CHECKS),)),
    Metric(
        "novacore_event_loop_lag_seconds",
        "histogram",
        "How late the event loop wakes.",
        (),
        (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
    ),
    Metric("novacore_shutdown_draining", "gauge", "1 while the process drains before it ends."),
    Metric(
        "novacore_db_pool_connections",
        "gauge",
        "Connections of the Postgres pool.",
        (Label("state", ("idle", "used")),),
    ),
    Metric("novacore_db_pool_max", "gauge", "Upper limit of the Postgres pool."),
    Metric(
        "novacore_db_pool_wait_seconds",
        "histogram",
        "Wait for a pooled connection.",
        (),
        (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5),
    ),
    Metric(
        "novacore_db_query_duration_seconds",
        "histogram",
        "Time of a statement.",
        (Label("op", ("select", "insert", "update", "delete", "call", "other")),),
        _QUERY,
    ),
    Metric(
        "novacore_db_errors_total",
        "counter",
        "Failed statements and connections.",
        (Label("class", ("connection", "timeout", "integrity", "serialization", "statement", "other")),),
    ),
    Metric(
        "novacore_redis_errors_total",
        "counter",
        "Failed Redis commands.",
        (Label("class", ("connection", "timeout", "response", "other")),),
    ),
    Metric("novacore_outbox_relayed_total", "counter", "Outbox rows moved to a stream.", (RESULT_OK,)),
    Metric(
        "novacore_outbox_oldest_timestamp_seconds", "gauge", "Birth of the oldest row not yet relayed; 0 when none."
    ),
    Metric("novacore_keyring_version", "gauge", "Generation of the ring document in use.", (RING,)),
    Metric("novacore_keyset_load_errors_total", "counter", "Ring documents refused.", (RING,)),
    Metric(
        "novacore_token_verifications_total",
        "counter",
        "Tokens checked.",
        (Label("ring", ("serviceJwt", "userJwt")), Label("result", ("ok", "expired", "unknown_kid", "retired", "bad"))),
    ),
    Metric(
        "novacore_log_lines_total",
        "counter",
        "Log lines written.",
        (Label("level", ("debug", "info", "warning", "error")),),
    ),
)

_GATEWAY = ("gateway",)
GATEWAY: tuple[Metric, ...] = (
    Metric(
        "novacore_rate_limited_total",
        "counter",
        "Requests refused by a rate limit.",
        (Label("class", ("costly", "read", "auth", "anon", "webhook")), Label("scope", ("user", "ip"))),
        owners=_GATEWAY,
    ),
    Metric(
        "novacore_auth_failures_total",
        "counter",
        "Requests refused for their token.",
        (Label("reason", ("missing", "invalid", "expired", "revoked", "scope", "unknown_kid")),),
        owners=_GATEWAY,
    ),
    Metric("novacore_ws_connections", "gauge", "Open WebSockets.", owners=_GATEWAY),
    Metric(
        "novacore_ws_closed_total",
        "counter",
        "WebSockets closed.",
        (Label("code", ("1000", "1001", "1008", "1009", "1012", "4001", "4003", "4008", "4029", "other")),),
        owners=_GATEWAY,
    ),
    Metric(
        "novacore_ws_frames_total",
        "counter",
        "WebSocket frames.",
        (Label("direction", ("in", "out")),),
        owners=_GATEWAY,
    ),
    Metric(
        "novacore_stream_resumes_total",
        "counter",
        "Streams taken up again.",
        (Label("result", ("ok", "refused", "gone")),),
        owners=_GATEWAY,
    ),
    Metric(
        "novacore_gateway_overhead_seconds",
        "histogram",
        "Time of a request that the gateway itself used.",
        (),
        (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05),
        _GATEWAY,
    ),
)

_AUTH = ("auth-billing",)
AUTH: tuple[Metric, ...] = (
    Metric(
        "novacore_logins_total",
        "counter",
        "Log-in attempts.",
        (Label("result", ("ok", "bad_credentials", "locked", "rate_limited", "refused", "error")),),
        owners=_AUTH,
    ),
    Metric(
        "novacore_tokens_issued_total",
        "counter",
        "Tokens signed.",
        (Label("type", ("access", "refresh", "service")),),
        owners=_AUTH,
    ),
    Metric(
        "novacore_refresh_reuse_total",
        "counter",
        "Refresh tokens presented twice; the family was revoked.",
        owners=_AUTH,
    ),
    Metric(
        "novacore_stripe_webhooks_total",
        "counter",
        "Stripe events received.",
        (Label("type", bound=12), Label("result", ("ok", "duplicate", "bad_signature", "error"))),
        owners=_AUTH,
    ),
    Metric(
        "novacore_stripe_signature_total",
        "counter",
        "Which webhook secret matched.",
        (Label("secret", ("current", "pending", "retiring", "none")), Label("result", ("ok", "bad"))),
        owners=_AUTH,
    ),
    Metric("novacore_stripe_webhook_duration_seconds", "histogram", "Time to answer a webhook.", (), _REQUEST, _AUTH),
    Metric("novacore_stripe_inbox_pending", "gauge", "Stripe events stored and not yet worked.", owners=_AUTH),
    Metric(
        "novacore_stripe_inbox_oldest_timestamp_seconds",
        "gauge",
        "Birth of the oldest such event; 0 when none.",
        owners=_AUTH,
    ),
    Metric(
        "novacore_stripe_events_missed_total",
        "counter",
        "Events found by asking Stripe that no webhook brought.",
        owners=_AUTH,
    ),
    Metric(
        "novacore_subscription_changes_total",
        "counter",
        "Changes of tier.",
        (Label("from", TIER.values), Label("to", TIER.values)),
        owners=_AUTH,
    ),
    Metric("novacore_users", "gauge", "Accounts (from SQL).", (TIER,), owners=_AUTH),
    Metric(
        "novacore_users_active",
        "gauge",
        "Accounts with a request in the window (from SQL).",
        (Label("window", ("1d", "7d", "30d")),),
        owners=_AUTH,
    ),
    Metric(
        "novacore_quota_reservations_total",
        "counter",
        "Reservations asked for.",
        (RESOURCE, TIER, Label("result", ("granted", "denied", "error"))),
        owners=_AUTH,
    ),
    Metric(
        "novacore_usage_total", "counter", "Amounts settled, in the resource's unit.", (RESOURCE, TIER), owners=_AUTH
    ),
    Metric(
        "novacore_quota_users",
        "gauge",
        "Accounts by how much of their allowance is used, in percent (from SQL).",
        (RESOURCE, TIER, Label("band", ("0", "50", "80", "95", "100"))),
        owners=_AUTH,
    ),
    Metric("novacore_quota_limit", "gauge", "Allowance of a tier; -1 is none.", (RESOURCE, TIER), owners=_AUTH),
    Metric(
        "novacore_quota_ledger_drift",
        "gauge",
        "Absolute difference of balances and ledger (from SQL).",
        (RESOURCE,),
        owners=_AUTH,
    ),
    Metric("novacore_quota_holds_open", "gauge", "Reservations not yet settled.", owners=_AUTH),
    Metric(
        "novacore_quota_oldest_hold_timestamp_seconds",
        "gauge",
        "Birth of the oldest open reservation; 0 when none.",
        owners=_AUTH,
    ),
    Metric("novacore_quota_reserve_seconds", "histogram", "Time of a reservation.", (), _QUERY, _AUTH),
)

_CHAT = ("intelligence",)
_PROVIDER = Label("provider", ("embedded", "ollama", "openai", "echo"))
_LLM_MODEL = Label("model", bound=6)
INTELLIGENCE: tuple[Metric, ...] = (
    Metric(
        "gen_ai_client_operation_duration_seconds",
        "histogram",
        "Time of a model operation.",
        (Label("gen_ai_operation_name", bound=3), Label("gen_ai_provider_name", _PROVIDER.values), MODEL),
        _doubling(0.01, 14),
        _CHAT,
    ),
    Metric(
        "gen_ai_client_token_usage",
        "histogram",
        "Tokens of a model operation.",
        (Label("gen_ai_token_type", ("input", "output")), MODEL),
        tuple(float(4**n) for n in range(14)),
        _CHAT,
    ),
    Metric(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        "Time to the first token, queue included.",
        (MODEL,),
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10),
        _CHAT,
    ),
    Metric(
        "gen_ai_server_time_per_output_token_seconds",
        "histogram",
        "Time between tokens after the first.",
        (MODEL,),
        (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5),
        _CHAT,
    ),
    Metric(
        "novacore_llm_requests_total",
        "counter",
        "Model runs by outcome.",
        (_PROVIDER, _LLM_MODEL, Label("outcome", ("ok", "error", "timeout", "cancelled"))),
        owners=_CHAT,
    ),
    Metric(
        "novacore_llm_tokens_total",
        "counter",
        "Tokens used.",
        (_LLM_MODEL, Label("type", ("prompt", "completion", "cached"))),
        owners=_CHAT,
    ),
    Metric(
        "novacore_llm_cost_usd_total", "counter", "Cost of the model runs in US dollars.", (_LLM_MODEL,), owners=_CHAT
    ),
    Metric("novacore_llm_provider_up", "gauge", "1 when the provider answered our probe.", (_PROVIDER,), owners=_CHAT),
    Metric("novacore_llm_queue_depth", "gauge", "Runs waiting for the provider.", (_PROVIDER,), owners=_CHAT),
    Metric(
        "novacore_llm_queue_wait_seconds",
        "histogram",
        "Wait of a run in the queue.",
        (),
        (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30),
        _CHAT,
    ),
    Metric(
        "novacore_llm_fallbacks_total",
        "counter",
        "Runs given to another provider.",
        (Label("reason", ("connection", "timeout", "rate_limited", "context", "server", "other")),),
        owners=_CHAT,
    ),
    Metric("novacore_chat_messages_total", "counter", "Chat messages accepted.", (TIER,), owners=_CHAT),
    Metric(
        "novacore_stream_aborts_total",
        "counter",
        "Answers that ended before their end.",
        (Label("reason", ("client", "deadline", "policy", "error", "drain")),),
        owners=_CHAT,
    ),
    Metric(
        "novacore_context_items",
        "histogram",
        "Memories given to the model.",
        (MEMORY_TIER,),
        (0, 1, 2, 5, 10, 20),
        _CHAT,
    ),
)

_MEMORY = ("memory",)
MEMORY: tuple[Metric, ...] = (
    Metric("novacore_memory_items", "gauge", "Memories (from SQL and Redis).", (MEMORY_TIER,), owners=_MEMORY),
    Metric("novacore_memory_bytes", "gauge", "Bytes of memories (from SQL and Redis).", (MEMORY_TIER,), owners=_MEMORY),
    Metric(
        "novacore_memory_operations_total",
        "counter",
        "Operations on memories.",
        (
            Label("op", ("store", "get", "list", "search", "context", "delete", "promote", "expire")),
            MEMORY_TIER,
            RESULT_OK,
        ),
        owners=_MEMORY,
    ),
    Metric(
        "novacore_memory_search_duration_seconds",
        "histogram",
        "Time of one arm of a search, or of all together.",
        (Label("arm", ("vector", "lexical", "fused")),),
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1),
        _MEMORY,
    ),
    Metric(
        "novacore_memory_search_results", "histogram", "Results of a search.", (), (0, 1, 2, 5, 10, 20, 50), _MEMORY
    ),
    Metric(
        "novacore_embedding_duration_seconds",
        "histogram",
        "Time of an embedding.",
        (Label("provider", bound=3),),
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5),
        _MEMORY,
    ),
    Metric(
        "novacore_embedding_cache_total",
        "counter",
        "Look-ups in the embedding cache.",
        (Label("result", ("hit", "miss")),),
        owners=_MEMORY,
    ),
    Metric(
        "novacore_memory_promotions_total",
        "counter",
        "Memories moved to a longer-lived tier.",
        (Label("from", ("stm", "itm")), Label("to", ("itm", "ltm"))),
        owners=_MEMORY,
    ),
    Metric("novacore_memory_expired_pending", "gauge", "Expired memories not yet removed (from SQL).", owners=_MEMORY),
)

_POLICY = ("noble-spirit",)
POLICY: tuple[Metric, ...] = (
    Metric(
        "novacore_policy_decisions_total",
        "counter",
        "Decisions of the policy.",
        (Label("direction", ("input", "output")), Label("decision", ("allow", "warn", "block", "rewrite"))),
        owners=_POLICY,
    ),
    Metric(
        "novacore_policy_evaluation_seconds",
        "histogram",
        "Time of a decision.",
        (),
        (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01),
        _POLICY,
    ),
    Metric(
        "novacore_alignment_score",
        "histogram",
        "Alignment scores given.",
        (),
        tuple(n / 10 for n in range(11)),
        _POLICY,
    ),
    Metric("novacore_policy_version", "gauge", "Version of the active policy.", owners=_POLICY),
    Metric(
        "novacore_policy_signature_failures_total", "counter", "Policies refused for their signature.", owners=_POLICY
    ),
    Metric(
        "novacore_policy_audit_chain_broken",
        "gauge",
        "1 when the audit log's hash chain does not hold.",
        owners=_POLICY,
    ),
)

_NGS = ("ngs-curriculum",)
XP_SOURCES: tuple[str, ...] = (
    "lesson_completion",
    "quiz_perfect",
    "quiz_good",
    "quiz_pass",
    "reflection_high",
    "reflection_medium",
    "helping_others",
    "creative_solution",
    "challenge_solved",
    "daily_streak",
    "unknown",
)
NGS: tuple[Metric, ...] = (
    Metric(
        "novacore_lessons_completed_total",
        "counter",
        "Lessons completed for the first time.",
        (Label("level", tuple(str(n) for n in range(1, 25))),),
        owners=_NGS,
    ),
    Metric(
        "novacore_xp_awarded_total",
        "counter",
        "Experience points awarded.",
        (Label("source", XP_SOURCES),),
        owners=_NGS,
    ),
    Metric(
        "novacore_challenge_submissions_total",
        "counter",
        "Challenge submissions.",
        (
            Label("type", ("coding", "design", "reflection", "collaboration")),
            Label("result", ("passed", "failed", "error")),
        ),
        owners=_NGS,
    ),
    Metric("novacore_leaderboard_rebuild_seconds", "histogram", "Time to rebuild the leaderboard.", (), _REQUEST, _NGS),
)

_MCP = ("mcp-server",)
_MCP_METHOD = Label("mcp_method_name", bound=5)
_MCP_TOOL = Label("tool", bound=15)
MCP: tuple[Metric, ...] = (
    Metric(
        "mcp_server_operation_duration_seconds",
        "histogram",
        "Time of an MCP operation (at most 15 pairs).",
        (_MCP_METHOD, _MCP_TOOL),
        (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
        _MCP,
    ),
    Metric(
        "novacore_mcp_operations_total",
        "counter",
        "MCP operations by outcome (at most 15 pairs).",
        (_MCP_METHOD, _MCP_TOOL, Label("outcome", ("ok", "error", "denied"))),
        owners=_MCP,
    ),
    Metric("novacore_mcp_sessions", "gauge", "Open MCP streams.", owners=_MCP),
)

_WORKERS = (WORKERS,)
_DISTILL = ("distillation-worker",)
WORKER: tuple[Metric, ...] = (
    Metric("novacore_stream_lag", "gauge", "Messages not yet delivered to the group.", (STREAM,), owners=_WORKERS),
    Metric("novacore_stream_pending", "gauge", "Messages delivered and not acknowledged.", (STREAM,), owners=_WORKERS),
    Metric(
        "novacore_stream_oldest_timestamp_seconds",
        "gauge",
        "Birth of the oldest such message; 0 when none.",
        (STREAM,),
        owners=_WORKERS,
    ),
    Metric("novacore_dead_letters", "gauge", "Messages given up, waiting for a person.", (STREAM,), owners=_WORKERS),
    Metric(
        "novacore_jobs_total",
        "counter",
        "Jobs by result.",
        (JOB, Label("result", ("ok", "retry", "dead"))),
        owners=_WORKERS,
    ),
    Metric(
        "novacore_job_duration_seconds", "histogram", "Time of a job.", (JOB,), (0.1, 0.5, 1, 5, 15, 60, 300), _WORKERS
    ),
    Metric("novacore_worker_last_loop_timestamp_seconds", "gauge", "Last turn of the worker's loop.", owners=_WORKERS),
    Metric(
        "novacore_distillation_last_success_timestamp_seconds",
        "gauge",
        "Last distillation that ended well.",
        owners=_DISTILL,
    ),
    Metric(
        "novacore_distillation_runs_total",
        "counter",
        "Distillation runs.",
        (Label("result", ("ok", "partial", "error", "skipped")),),
        owners=_DISTILL,
    ),
    Metric(
        "novacore_principles_total",
        "counter",
        "Principles distilled.",
        (Label("result", ("stored", "duplicate", "rejected", "superseded")),),
        owners=_DISTILL,
    ),
)

_OPERATOR = ("operator",)
_KIND = Label("kind", bound=12)
_PLATFORM_LABEL = Label("platform", bound=50)
_NAME = Label("name", bound=50)
_SECRET_RING = Label("ring", bound=7)
_OP = "novacore_operator_"
_SECRET = "novacore_secret_"  # noqa: S105 - a metric prefix
OPERATOR: tuple[Metric, ...] = (
    Metric(
        _OP + "reconcile_total",
        "counter",
        "Passes.",
        (_KIND, Label("result", ("success", "retry", "error"))),
        owners=_OPERATOR,
    ),
    Metric(
        _OP + "reconcile_duration_seconds",
        "histogram",
        "Time of a pass.",
        (_KIND,),
        (0.05, 0.1, 0.5, 1, 5, 15, 30, 60),
        _OPERATOR,
    ),
    Metric(_OP + "queue_depth", "gauge", "Keys waiting.", (_KIND,), owners=_OPERATOR),
    Metric(_OP + "queue_oldest_seconds", "gauge", "Wait of the oldest key.", (_KIND,), owners=_OPERATOR),
    Metric(
        _OP + "last_success_timestamp_seconds",
        "gauge",
        "Last pass that ended well, also when it wrote nothing.",
        (_PLATFORM_LABEL, _KIND, _NAME),
        owners=_OPERATOR,
    ),
    Metric(_OP + "watch_errors_total", "counter", "Watch errors.", (_KIND,), owners=_OPERATOR),
    Metric(_OP + "watch_restarts_total", "counter", "Watches begun again.", (_KIND,), owners=_OPERATOR),
    Metric(
        _OP + "api_requests_total",
        "counter",
        "Requests to the API server.",
        (Label("verb", bound=8), Label("code", bound=10)),
        owners=_OPERATOR,
    ),
    Metric(
        _OP + "api_request_duration_seconds",
        "histogram",
        "Time of a request to the API server.",
        (Label("verb", bound=8),),
        _REQUEST,
        _OPERATOR,
    ),
    Metric(
        _OP + "child_apply_total",
        "counter",
        "Owned objects applied.",
        (Label("kind", bound=24), Label("result", ("created", "patched", "unchanged", "deleted", "conflict"))),
        owners=_OPERATOR,
    ),
    Metric(
        _OP + "drift_corrections_total",
        "counter",
        "Owned objects put back.",
        (Label("kind", bound=24),),
        owners=_OPERATOR,
    ),
    Metric(_OP + "leader", "gauge", "1 while this process holds the Lease.", owners=_OPERATOR),
    Metric(
        _OP + "admission_requests_total",
        "counter",
        "Reserved: there is no webhook now.",
        (
            Label("webhook", bound=4),
            Label("operation", ("CREATE", "UPDATE", "DELETE")),
            Label("result", ("allowed", "denied", "error")),
        ),
        owners=_OPERATOR,
    ),
    Metric(
        _OP + "admission_duration_seconds",
        "histogram",
        "Reserved: there is no webhook now.",
        (Label("webhook", bound=4),),
        _REQUEST,
        _OPERATOR,
    ),
    Metric(
        _OP + "monitoring_accepted",
        "gauge",
        "1 when the monitoring objects were accepted.",
        (_PLATFORM_LABEL, _KIND, _NAME),
        owners=_OPERATOR,
    ),
    Metric(
        "novacore_platform_condition",
        "gauge",
        "A condition of an installation.",
        (
            _PLATFORM_LABEL,
            _NAME,
            Label(
                "condition",
                (
                    "Ready",
                    "Degraded",
                    "RolledBack",
                    "FieldConflict",
                    "SecretsReady",
                    "BackupReady",
                    "RotationBlocked",
                    "EmergencyIncomplete",
                ),
            ),
            Label("status", ("True", "False", "Unknown")),
        ),
        owners=_OPERATOR,
    ),
    Metric(
        "novacore_certificate_expiry_timestamp_seconds",
        "gauge",
        "End of a certificate.",
        (Label("name", bound=4),),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "last_rotation_timestamp_seconds",
        "gauge",
        "Last rotation.",
        (_PLATFORM_LABEL, _SECRET_RING),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "rotation_interval_seconds",
        "gauge",
        "Wanted interval.",
        (_PLATFORM_LABEL, _SECRET_RING),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "next_rotation_timestamp_seconds",
        "gauge",
        "Next rotation.",
        (_PLATFORM_LABEL, _SECRET_RING),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "phase_started_timestamp_seconds",
        "gauge",
        "Start of the phase a rotation is in.",
        (_PLATFORM_LABEL, _SECRET_RING, Label("phase", bound=6)),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "consumers_pending",
        "gauge",
        "Pods that do not hold the key yet.",
        (_PLATFORM_LABEL, _SECRET_RING),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "rotation_failures_total",
        "counter",
        "Rotations that failed.",
        (_PLATFORM_LABEL, _SECRET_RING, Label("reason", bound=8)),
        owners=_OPERATOR,
    ),
    Metric(
        _SECRET + "rotation_duration_seconds",
        "histogram",
        "Time of a rotation.",
        (_PLATFORM_LABEL, _SECRET_RING),
        (1, 5, 15, 60, 300, 900, 3600, 14400),
        _OPERATOR,
    ),
    Metric(
        _SECRET + "ack_latency_seconds",
        "histogram",
        "Time until every pod holds a new document.",
        (_PLATFORM_LABEL, _SECRET_RING),
        (0.1, 0.5, 1, 2, 5, 15, 60, 120),
        _OPERATOR,
    ),
    Metric(
        _SECRET + "revoke_convergence_seconds",
        "histogram",
        "Time until no pod accepts a revoked key.",
        (_PLATFORM_LABEL, _SECRET_RING),
        (0.1, 0.5, 1, 2, 5, 10, 15, 60),
        _OPERATOR,
    ),
)

METRICS: tuple[Metric, ...] = (
    *PLATFORM,
    *GATEWAY,
    *AUTH,
    *INTELLIGENCE,
    *MEMORY,
    *POLICY,
    *NGS,
    *MCP,
    *WORKER,
    *OPERATOR,
)

BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}

STREAM_CONSUMERS: tuple[str, ...] = (
    "reflection-worker",
    "distillation-worker",
    "auth-billing",
    "ngs-curriculum",
    "gateway",
)
"""Services that expose the metrics of owner `workers`: they consume a stream or run scheduled jobs."""


def metrics_of(owner: str) -> Iterator[Metric]:
    """Yield what one service exposes, or what the operator does."""
    for metric in METRICS:
        shared = ALL in metric.owners and owner != "operator"
        working = WORKERS in metric.owners and owner in STREAM_CONSUMERS
        if shared or working or owner in metric.owners:
            yield metric
