"""`spec.rollout` and `spec.maintenance`: how and when a change is carried out."""

from __future__ import annotations

from pydantic import Field

from novacore_operator.api.fields import SCHEDULE_FORM, ZONE_FORM, Model, rules


class Canary(Model):
    """One pod of the new revision beside the old ones, before any of them is replaced."""

    enabled: bool = Field(
        default=False,
        description="Before the pods of a service are replaced, one new pod serves beside them and is compared with "
        "them. Not for the workers, which serve no requests, and only when there is a last good release to go back to.",
    )
    seconds: int = Field(
        default=60,
        description="How long each canary is compared before the other pods are replaced.",
        json_schema_extra=rules(("self >= 10 && self <= 3600", "rollout.canary.seconds must be 10 to 3600")),
    )


class Rollout(Model):
    """How a change is carried out."""

    auto_rollback: bool = Field(
        default=True,
        description="Return to the last good release when a roll-out fails: its time is over, its pods crash, or its "
        "image cannot be pulled.",
    )
    progress_deadline_seconds: int = Field(
        default=600,
        description="Time a service has to become available before the roll-out counts as failed.",
        json_schema_extra=rules(("self >= 30 && self <= 3600", "rollout.progressDeadlineSeconds must be 30 to 3600")),
    )
    max_parallel: int = Field(
        default=2,
        description="Services that are replaced at the same time.",
        json_schema_extra=rules(("self >= 1 && self <= 9", "rollout.maxParallel must be 1 to 9")),
    )
    canary: Canary = Field(default=Canary(), description="Whether one new pod goes before the others.")


class Window(Model):
    """A time in which pods may be replaced."""

    cron: str = Field(
        max_length=64,
        description="When the window opens: minute, hour, day of month, month, day of week, such as 0 2 * * 6.",
        json_schema_extra=rules(
            (
                SCHEDULE_FORM,
                "maintenance window: cron needs five fields, such as 0 2 * * 6 for Saturdays at two",
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
                "maintenance window: timezone must be an IANA name such as UTC or Europe/Berlin",
            )
        ),
    )
    duration: str = Field(
        max_length=16,
        description="How long the window stays open, such as 2h or 90m.",
        json_schema_extra=rules(
            (
                "self.matches('^([0-9]+h)?([0-9]+m)?$') && size(self) >= 2 && duration(self) >= duration('10m') && "
                "duration(self) <= duration('168h')",
                "maintenance window: duration must be hours and minutes such as 2h or 1h30m, from 10m to 168h",
            )
        ),
    )


class Maintenance(Model):
    """When pods may be replaced."""

    windows: list[Window] = Field(
        default=[],
        max_length=16,
        description="Outside them no pod is replaced for a change of this resource; none: at any time. The first "
        "installation, repairs and the return to the last good release do not wait.",
    )
