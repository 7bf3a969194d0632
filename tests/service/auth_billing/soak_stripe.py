"""`make soak-stripe`: many events through every change of secrets and keys; the figures as JSON under loadtest/results/.

Run by pytest for its stores; not collected with the tests, because of its name. EVENTS and SEED come by environment.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from loadtest.record import RESULTS, commit_id, machine
from tests.kit.billing import Billing
from tests.service.auth_billing.stripe_runs import planned_rotation, through_every_change

EVENTS = int(os.environ.get("EVENTS", "100000"))
SEED = int(os.environ.get("SEED", "1"))


async def test_every_change(billing_for, chaos, people):
    """30 % dropped, 30 % doubled, shuffled; two webhook secrets and one API key rotated meanwhile."""
    chaos.random.seed(SEED)
    billing: Billing = await billing_for(workers=2, reconcile_seconds=86_400)
    started = time.monotonic()
    run = await through_every_change(billing, users=await people(50), events=EVENTS)
    assert len(run.calls_by_phase) == 10
    assert min(run.calls_by_phase.values()) > EVENTS // 20
    assert any(entry["outcome"] == "status_401" for entry in chaos.journal)
    await _record(billing, "stripe-every-change", run.calls_by_phase, time.monotonic() - started)


async def test_one_rotation(billing_for, chaos, people):
    """R29 at its full size."""
    chaos.random.seed(SEED)
    billing: Billing = await billing_for(workers=2, reconcile_seconds=86_400)
    started = time.monotonic()
    events = min(EVENTS, 5000)
    run = await planned_rotation(billing, users=await people(50), events=events)
    assert run.refused_before_the_secret_was_stored > 0
    assert billing.replicas[0].platform.metrics.value("novacore_stripe_events_missed_total") == 0
    await _record(billing, "stripe-one-rotation", run.calls_by_phase, time.monotonic() - started)


async def _record(billing: Billing, scenario: str, phases: dict[str, int], seconds: float) -> None:
    chaos, value = billing.chaos, billing.replicas[0].platform.metrics.value
    done = await billing.done()
    lost = [event["id"] for event in chaos.events if event["id"] not in done]
    double = [event_id for event_id, count in done.items() if count > 1]
    differing = await billing.differences()
    via = await billing.conn.fetch("SELECT via, count(*) AS n FROM auth.stripe_events GROUP BY via")
    ledger = await billing.ledger()
    document = {
        "scenario": scenario,
        "what": "auth-billing in one process with a real Postgres and Redis; Stripe is tests/kit/stripechaos.py",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit_id(),
        "machine": machine(),
        "seed": SEED,
        "events": len(chaos.events),
        "webhook_calls": chaos.hooks.calls,
        "calls_by_phase": phases,
        "stored": {row["via"]: row["n"] for row in via},
        "signatures": {
            secret: int(value("novacore_stripe_signature_total", secret=secret, result="ok"))
            for secret in ("current", "pending", "retiring")
        },
        "refused_signatures": int(value("novacore_stripe_signature_total", secret="none", result="bad")),
        "api_calls": dict(sorted(Counter(f"{entry['key']} {entry['outcome']}" for entry in chaos.journal).items())),
        "subscriptions": len(chaos.objects["subscriptions"]),
        "invoices": len(chaos.objects["invoices"]),
        "paid_at_stripe": sum(chaos.paid().values()),
        "in_our_ledger": sum(total for total, _ in ledger.values()),
        "lost": len(lost),
        "double": len(double),
        "objects_that_differ": len(differing),
        "seconds": round(seconds, 1),
        "passed": not (lost or double or differing),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{document['commit']}-{scenario}.json"
    file.write_text(json.dumps(document, indent=2) + "\n")
    print(file.relative_to(Path.cwd()))
    assert document["passed"], (lost[:5], double[:5], differing[:5])
