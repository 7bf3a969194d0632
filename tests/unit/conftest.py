"""Settings of all unit tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine makes any example slow; speed is measured by benchmarks, never by an example's deadline.
settings.register_profile("no-deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-deadline")
