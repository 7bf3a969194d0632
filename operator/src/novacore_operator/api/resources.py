"""Requests and limits of a container."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from novacore_operator.api.fields import Model, Quantity, rules


class ResourceAmounts(Model):
    """Amounts of cpu and memory."""

    cpu: Quantity | None = Field(default=None, description="Cores, such as 250m or 2.")
    memory: Quantity | None = Field(default=None, description="Bytes, such as 512Mi.")


class Resources(Model):
    """Requests and limits of a container. What is absent comes from the profile."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.requests) || !has(self.requests.{what}) || !has(self.limits) || "
                    f"!has(self.limits.{what}) || "
                    f"quantity(self.requests.{what}).compareTo(quantity(self.limits.{what})) <= 0",
                    f"resources.requests.{what} is above resources.limits.{what}: raise the limit or lower the request",
                )
                for what in ("cpu", "memory")
            )
        )
    )

    requests: ResourceAmounts | None = Field(default=None, description="What the scheduler sets aside.")
    limits: ResourceAmounts | None = Field(default=None, description="What the container may use at most.")
