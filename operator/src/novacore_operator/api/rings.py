"""`spec.secrets`: when the keys that sign tokens are changed, and what happens to a pod that does not follow."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import SCHEDULE_FORM, ZONE_FORM, Model, rules
from novacore_operator.api.rollout import Window

SHORTEST = {"serviceJwt": "12h3m", "userJwt": "11m"}
"""Half of the time that two keys overlap: with a shorter interval a fifth key would have to be trusted."""


class Ring(Model):
    """One ring of keys."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.cron) || !has(self.interval)",
                "a ring rotates by secrets.rings.*.cron or by interval: remove one of them",
            ),
        )
    )

    interval: str | None = Field(
        default=None,
        max_length=16,
        description="Time between two rotations by schedule, such as 2160h; without it, and without cron, 2160h.",
        json_schema_extra=rules(
            (
                "self.matches('^([0-9]+h)?([0-9]+m)?$') && size(self) >= 2 && duration(self) <= duration('87600h')",
                "secrets.rings.*.interval must be hours and minutes such as 2160h or 36h30m, at most 87600h",
            ),
        ),
    )
    cron: str | None = Field(
        default=None,
        max_length=64,
        description="When a rotation is due, instead of interval: minute, hour, day of month, month, day of week.",
        json_schema_extra=rules(
            (
                SCHEDULE_FORM,
                "secrets.rings.*.cron needs five fields, such as 0 3 1 * * for the first of each month at three",
            )
        ),
    )
    timezone: str = Field(
        default="UTC",
        max_length=64,
        description="IANA time zone of `cron`, such as Europe/Berlin.",
        json_schema_extra=rules(
            (
                ZONE_FORM,
                "secrets.rings.*.timezone must be an IANA name such as UTC or Europe/Berlin",
            )
        ),
    )
    jitter: str = Field(
        default="10%",
        max_length=4,
        description="Share of the interval by which a rotation comes earlier or later, always the same for one key.",
        json_schema_extra=rules(
            ("self.matches('^([0-9]|[1-4][0-9]|50)%$')", "secrets.rings.*.jitter must be 0% to 50%"),
        ),
    )
    windows: list[Window] = Field(
        default=[],
        max_length=16,
        description="A rotation by schedule begins inside one of them; none: at any time. What a person asks for, and "
        "an emergency, does not wait.",
    )
    pause: bool = Field(default=False, description="No rotation by schedule. What a person asks for is still done.")
    on_straggler: Literal["wait", "replace-pod", "force"] = Field(
        default="wait",
        description="What happens when a pod does not prove the new key in time. wait: the old key goes on signing. "
        "replace-pod: it is evicted, one at a time. force: a rotation by hand passes it over.",
    )
    ack_timeout_seconds: int = Field(
        default=600,
        description="That time.",
        json_schema_extra=rules(
            ("self >= 10 && self <= 86400", "secrets.rings.*.ackTimeoutSeconds must be 10 to 86400")
        ),
    )
    history: int = Field(
        default=10,
        description="Entries that are kept of what happened to the ring.",
        json_schema_extra=rules(("self >= 3 && self <= 50", "secrets.rings.*.history must be 3 to 50")),
    )


def _at_least(ring: str) -> dict[str, Any]:
    shortest = SHORTEST[ring]
    return rules(
        (
            f"!has(self.interval) || !self.interval.matches('^([0-9]+h)?([0-9]+m)?$') || size(self.interval) < 2 || "
            f"duration(self.interval) >= duration('{shortest}')",
            f"secrets.rings.{ring}.interval must be at least {shortest}: tokens of the key before are still alive, and "
            "no more than four keys are trusted",
        )
    )


class Rings(Model):
    """The rings whose keys sign tokens."""

    service_jwt: Ring = Field(
        default=Ring(),
        description="Keys of the tokens with which services know each other.",
        json_schema_extra=_at_least("serviceJwt"),
    )
    user_jwt: Ring = Field(
        default=Ring(),
        description="Keys of the tokens of users.",
        json_schema_extra=_at_least("userJwt"),
    )

    def of(self, ring: str) -> Ring:
        """Return one ring by the name that documents give it."""
        return {"serviceJwt": self.service_jwt, "userJwt": self.user_jwt}[ring]


class Secrets(Model):
    """How keys are changed."""

    rings: Rings = Field(default=Rings(), description="Each ring of keys.")
