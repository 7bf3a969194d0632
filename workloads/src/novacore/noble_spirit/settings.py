"""Settings of noble-spirit."""

from __future__ import annotations

from pydantic import Field

from novacore.common.settings import CommonSettings, Section


class PolicySettings(Section):
    """How strictly the policy is applied and how much of it is written down."""

    strict: bool = False
    """A warning counts as a block."""
    audit_sample: float = Field(default=0.01, ge=0, le=1)
    """Share of passed validations in the audit log; failed ones are always there."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """How often the active version is looked up."""
    verify_seconds: float = Field(default=300.0, gt=0)
    """How often the audit log's chain is verified."""


class NobleSpiritSettings(CommonSettings):
    """All of them."""

    policy: PolicySettings = PolicySettings()
