"""What a figure is, and what several of them need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as MplFigure

from offramp.report.results import Results
from sim.metrics import confidence_interval

#: One legend for the whole figure, where it hides no data.
ABOVE: dict[str, Any] = {"loc": "outside upper center", "ncols": 5, "frameon": False}


@dataclass(frozen=True)
class Figure:
    """A figure, the data behind it and what its caption says."""

    drawing: MplFigure
    data: pd.DataFrame
    caption: str


def common_deadline_ms(results: Results) -> float | None:
    """The deadline if it is the same for every request, else None."""
    deadlines = [group["deadline_ms"] for group in results.scenario["devices"].values()]
    if None in deadlines:
        return None  # a trace brings them
    values = {spec.get("value") if isinstance(spec, dict) else float(spec) for spec in deadlines}
    value = values.pop() if len(values) == 1 else None
    return None if value is None else float(value)


def t_interval(values: pd.Series) -> tuple[float, float]:
    """Ends of the 95 % interval, for seaborn."""
    interval = confidence_interval(values.to_numpy())
    return interval.low, interval.high
