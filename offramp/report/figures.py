"""The figures of a run: which there are, and writing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from offramp.report.deadline_figures import aud_against_deadline, gain_against_deadline
from offramp.report.exit_figures import (
    exits_accuracy_and_latency,
    exits_taken,
    gain_at_each_exit,
)
from offramp.report.figure import Figure, remove_figure, save_figure
from offramp.report.latency_figures import latency_ecdf
from offramp.report.results import Results
from offramp.report.style import paper_style
from offramp.report.tradeoff import accuracy_against_latency
from offramp.report.verdicts import invalid_note
from offramp.report.world_figures import (
    aud_by_group,
    energy_per_correct_answer,
    telemetry_over_time,
)

#: What a drawing says of itself where its results are INVALID; its caption says why.
INVALID_MARK = "INVALID: see the caption"

#: Of networks alone: no run makes them invalid.
_OF_NETWORKS = ("gain_at_each_exit", "exits_accuracy_and_latency")

#: By name, in the order of the page; None where results have nothing to draw.
FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "aud_against_deadline": aud_against_deadline,
    "gain_against_deadline": gain_against_deadline,
    "gain_at_each_exit": gain_at_each_exit,
    "accuracy_against_latency": accuracy_against_latency,
    "exits_accuracy_and_latency": exits_accuracy_and_latency,
    "exits_taken": exits_taken,
    "latency_ecdf": latency_ecdf,
    "aud_by_group": aud_by_group,
    "energy_per_correct_answer": energy_per_correct_answer,
    "telemetry_over_time": telemetry_over_time,
}


def write_figures(results: Results, folder: Path) -> dict[str, str]:
    """Write every figure with its data and caption into ``folder``; return captions by name."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    invalid = invalid_note(results)
    with paper_style():
        for name, draw in FIGURES.items():
            figure = draw(results)
            if figure is None:
                remove_figure(folder, name)
                continue
            if invalid and name not in _OF_NETWORKS:
                figure = figure.marked(INVALID_MARK, invalid)
            save_figure(figure, folder, name)
            captions[name] = figure.caption
    return captions
