"""Every time of a rotation, in one place. `PRODUCTION` is for installations; `TEST` makes a rotation take seconds.

The services take `ttl_max` from the ring document. No other module of `rotation` may hold a time of its own. Seconds
throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from novacore_contracts.identity import SERVICE_TOKEN_SECONDS_MAX, USER_TOKEN_SECONDS


@dataclass(frozen=True, slots=True)
class Timing:
    """What `plan` waits for. The defaults are those of production."""

    service_ttl_s: float = SERVICE_TOKEN_SECONDS_MAX
    user_ttl_s: float = USER_TOKEN_SECONDS

    hold_s: float = 5  # a proof must hold this long before a key signs: two looks, not one lucky moment
    relist_s: float = 30  # after a switch the pods are listed and proven once more: some were born meanwhile
    blocked_after_s: float = 11  # a mute pod is named in the condition, within 15 s: looks at it take 2 s and more
    ack_timeout_s: float = 600  # … and is a failure, and `onStraggler` applies

    clock_margin_s: float = 60  # leeway of 30 s at both ends of a token's life
    retire_slack_s: float = 300
    quiet_s: float = 600  # no pod accepted the retiring key for so long
    destroy_private_s: float = 3600  # until then a switch can be taken back
    rollback_margin_s: float = 60  # … but not in its last minute: destroying and taking back are two objects
    orphan_s: float = 3600  # a private half that no document names is collected

    skew_warn_s: float = 10
    skew_block_s: float = 30  # as the verifiers' leeway

    fence_after_s: float = 10
    drain_patience_s: float = 10  # for callers to renew before the key is revoked under them

    busy_look_s: float = 0.5  # between two looks while something is under way
    eager_s: float = 120  # … for so long; then a pod is in the way, and each look asks it and all others
    patient_look_s: float = 5
    tired_look_s: float = 30  # after `ack_timeout_s`
    idle_look_s: float = 600

    @property
    def overlap_margin_s(self) -> float:
        """What a retiring key is trusted beyond the life of its last token."""
        return self.clock_margin_s + self.retire_slack_s

    def scaled(self, factor: float) -> Timing:
        """Return the same profile, `factor` times as long in every field."""
        return Timing(**{item.name: getattr(self, item.name) * factor for item in fields(self)})


PRODUCTION = Timing()
TEST = Timing(
    service_ttl_s=10,
    user_ttl_s=60,
    hold_s=0.5,
    relist_s=1,
    blocked_after_s=3,
    ack_timeout_s=20,
    clock_margin_s=1,
    retire_slack_s=1,
    quiet_s=1,
    destroy_private_s=5,
    rollback_margin_s=0.5,
    orphan_s=5,
    skew_warn_s=0.5,
    skew_block_s=1,
    fence_after_s=3,
    drain_patience_s=3,
    busy_look_s=0.2,
    eager_s=20,
    patient_look_s=1,
    tired_look_s=2,
    idle_look_s=5,
)
