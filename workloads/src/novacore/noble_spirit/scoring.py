"""From broken rules to decisions and scores. Pure.

Score of a text: max(0, 1 - 0.08 · violations - 0.04 · warnings). Alignment: the mean of the input's and the output's
score. A principle's score falls by 0.5 for each violation and 0.25 for each warning, times the rule's weight on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from novacore.noble_spirit.document import PRINCIPLES, Principle, Rule, Thresholds

Decision = Literal["allow", "warn", "block", "rewrite"]
Result = Literal["passed", "failed", "warning"]

PRINCIPLE_FALL = {"block": 0.5, "warn": 0.25}

_ADVICE: dict[Principle, str] = {
    "truth": "Say only what is known to be so, and say where it is uncertain.",
    "wisdom": "Look at what follows from it in the long run.",
    "alignment": "Come back to what the person needs.",
    "transparency": "Say openly what is done and why.",
    "accountability": "Say who answers for the outcome.",
    "fairness": "Treat everybody concerned by the same measure.",
    "respect": "Speak of people as of those who read it.",
    "beneficence": "Choose what helps and harms nobody.",
}


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text broke."""

    violations: tuple[Rule, ...]
    warnings: tuple[Rule, ...]
    score: float

    def decision(self, *, strict: bool) -> Decision:
        """Block on a violation, and with `strict` on a warning too."""
        if self.violations or (strict and self.warnings):
            return "block"
        return "warn" if self.warnings else "allow"


@dataclass(frozen=True, slots=True)
class Alignment:
    """How far an exchange keeps the principles."""

    aligned: bool
    score: float
    principles: dict[Principle, float]
    recommendations: list[str]
    concerns: list[str]


def read(broken: list[Rule], thresholds: Thresholds) -> Reading:
    """Return the reading of a text that broke these rules."""
    violations = tuple(rule for rule in broken if rule.action == "block")
    warnings = tuple(rule for rule in broken if rule.action == "warn")
    score = 1 - thresholds.violation * len(violations) - thresholds.warning * len(warnings)
    return Reading(violations, warnings, round(max(0.0, score), 4))


def result_of(decision: Decision) -> Result:
    """Return the old clients' word for a decision."""
    return {"allow": "passed", "warn": "warning", "block": "failed", "rewrite": "warning"}[decision]  # type: ignore[return-value]  # mypy does not read literals out of a dict


def principle_scores(broken: list[Rule]) -> dict[Principle, float]:
    """Return the score of each principle, 0..1."""
    scores: dict[Principle, float] = dict.fromkeys(PRINCIPLES, 1.0)
    for rule in broken:
        for principle, weight in rule.principles.items():
            scores[principle] -= PRINCIPLE_FALL[rule.action] * weight
        # `alignment` itself falls with every rule: it is what the others add up to.
        scores["alignment"] -= PRINCIPLE_FALL[rule.action] / 2
    return {principle: round(max(0.0, score), 4) for principle, score in scores.items()}


def align(given: Reading, answered: Reading, assessed: Reading, thresholds: Thresholds) -> Alignment:
    """Return how far an exchange keeps the principles; what a self-assessment breaks is a concern, not a score."""
    broken = [*given.violations, *given.warnings, *answered.violations, *answered.warnings]
    scores = principle_scores(broken)
    score = round((given.score + answered.score) / 2, 4)
    concerns = [
        f"The {where} breaks {rule.id}."
        for where, reading in (("input", given), ("output", answered), ("self-assessment", assessed))
        for rule in reading.violations
    ]
    weakest = sorted((value, principle) for principle, value in scores.items() if value < 1)
    return Alignment(
        aligned=score >= thresholds.aligned and not concerns,
        score=score,
        principles=scores,
        recommendations=[_ADVICE[principle] for _, principle in weakest[:3]],
        concerns=concerns,
    )
