"""Targets: what a configuration is to reach, as the command line says it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import ScenarioError, did_you_mean

#: Metrics that are to be at least so much, and those that are to be at most so much: the column
#: of a run, and what it is called in figures.
SHARES = {
    "aud": "accuracy under deadline",
    "hit_ratio": "deadline-hit ratio",
    "accuracy": "accuracy of answers",
}
LATENCIES = {
    f"latency_p{percent}_ms": (
        f"latency_p{percent}_s",
        f"{percent}{'th percentile' if percent != 50 else 'th percentile (median)'} of latency",
    )
    for percent in (50, 95, 99)
}
METRICS = (*SHARES, *LATENCIES)

#: How far short an unknown value falls: of a latency, as a multiple of the target.
_SHORT_OF_SHARE, _SHORT_OF_LATENCY = 1.0, 10.0


@dataclass(frozen=True)
class Target:
    """One metric and its target.

    Attributes:
        metric: one of :data:`METRICS`.
        value: a share, from above 0 to 1, that it is to reach; of a latency, seconds that it is not
            to exceed.
    """

    metric: str
    value: float

    @property
    def is_share(self) -> bool:
        """Whether more is better."""
        return self.metric in SHARES

    @property
    def column(self) -> str:
        """Of the table of runs."""
        return self.metric if self.is_share else LATENCIES[self.metric][0]

    @property
    def title(self) -> str:
        """What it is called in figures."""
        return SHARES[self.metric] if self.is_share else LATENCIES[self.metric][1]

    def is_met_by(self, value: float) -> bool:
        """Whether a value is no worse than the target; never if it is not known."""
        return value >= self.value if self.is_share else value <= self.value

    def slack(self, mean: float) -> float:
        """By how much a mean is better than the target; negative if it is worse.

        Of shares their difference; of latencies the part of the target that is left.
        """
        if math.isnan(mean):
            return -_SHORT_OF_SHARE if self.is_share else -_SHORT_OF_LATENCY
        return mean - self.value if self.is_share else 1 - mean / self.value

    def shown(self, value: float) -> str:
        """A value of the metric, with its unit."""
        if math.isnan(value):
            return "none"
        return f"{100 * value:.2f} %" if self.is_share else f"{1e3 * value:.3g} ms"

    def difference(self, mean: float) -> str:
        """How far a mean is from the target, in words."""
        if math.isnan(mean):
            return "unknown, since no request is answered"
        if self.is_share:
            points = 100 * (mean - self.value)
            return f"{abs(points):.2f} points {'above' if points >= 0 else 'below'} the target"
        off_ms = 1e3 * (mean - self.value)
        return f"{abs(off_ms):.3g} ms {'above' if off_ms > 0 else 'below'} the target"

    def __str__(self) -> str:
        if self.is_share:
            return f"{self.metric} ≥ {100 * self.value:g} %"
        return f"{self.metric} ≤ {1e3 * self.value:g}"


def read_targets(texts: Sequence[str]) -> tuple[Target, ...]:
    """The targets of the command line, ``NAME=VALUE`` each.

    Raises:
        ScenarioError: there is none, one is unknown or named twice, or cannot be.
    """
    if not texts:
        raise ScenarioError(
            "--target is missing: what is the configuration to reach? For example --target "
            f"aud=0.85 (known: {', '.join(METRICS)})"
        )
    targets = tuple(_read(text) for text in texts)
    for index, target in enumerate(targets):
        if any(target.metric == other.metric for other in targets[:index]):
            raise ScenarioError(f"--target {texts[index]}: {target.metric} is named twice")
    return targets


def _read(text: str) -> Target:
    name, separator, given = (part.strip() for part in text.partition("="))
    if not separator or not name or not given:
        raise ScenarioError(f"--target {text}: write it as NAME=VALUE, such as aud=0.85")
    if name not in METRICS:
        raise ScenarioError(
            f"--target {text}: no metric is called {name!r}{did_you_mean(name, METRICS)} "
            f"(known: {', '.join(METRICS)})"
        )
    number = given.removesuffix("%").rstrip()
    try:
        value = float(number)
    except ValueError:
        raise ScenarioError(f"--target {text}: {given!r} is not a number") from None
    if name in SHARES:
        if given.endswith("%"):
            value /= 100
        if not 0 < value <= 1:
            hint = f"; did you mean {value:g}%?" if 1 < value <= 100 and "%" not in given else ""
            raise ScenarioError(
                f"--target {text}: {name} is a share: above 0, and at most 1 (or 100%){hint}"
            )
        return Target(name, value)
    if given.endswith("%"):
        raise ScenarioError(f"--target {text}: {name} is in milliseconds, not in per cent")
    if not (math.isfinite(value) and value > 0):
        raise ScenarioError(f"--target {text}: {name} is in milliseconds, above 0")
    return Target(name, value / 1e3)
