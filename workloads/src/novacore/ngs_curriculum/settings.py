"""Settings of ngs-curriculum."""

from __future__ import annotations

from pydantic import Field

from novacore.common.settings import CommonSettings, Section
from novacore.ngs_curriculum.rules import LEVELS, DailyCaps


class Caps(Section):
    """Daily caps (UTC): events of a source, and XP of all sources."""

    streak: int = Field(default=1, ge=0)
    helping_others: int = Field(default=5, ge=0)
    creative_solution: int = Field(default=1, ge=0)
    xp: int = Field(default=1000, ge=0)

    def as_rules(self) -> DailyCaps:
        """Return the caps as the rules take them."""
        return DailyCaps(
            streak=self.streak,
            helping_others=self.helping_others,
            creative_solution=self.creative_solution,
            xp=self.xp,
        )


class NgsSection(Section):
    """Section `ngs`."""

    agent_unlock_level: int = Field(default=12, ge=1, le=LEVELS)
    daily_caps: Caps = Caps()


class NgsSettings(CommonSettings):
    """Everything ngs-curriculum reads from settings.yaml."""

    ngs: NgsSection = NgsSection()
