"""The report of a sweep: figures, and a page that says what came out, in its folder."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pandas as pd

from models.errors import ResultsError
from offramp.report.figure import Figure, remove_figure, save_figure
from offramp.report.markdown import listed, percent
from offramp.report.offline_page import write_pages
from offramp.report.paired import SIGNIFICANCE
from offramp.report.style import paper_style
from offramp.report.sweep_figures import figures_against
from offramp.report.sweep_maps import maps
from offramp.report.sweep_table import (
    FAILURES,
    SWEEP_TABLE,
    SweepResults,
    overloaded_text,
    read_sweep,
    value_text,
)
from offramp.stages.layout import FIGURES, REPORT
from offramp.words import capitalised, counted
from sim.results.verdict import ENOUGH_REQUESTS, NOTHING_IN_TIME

#: Keys of a sweep that get figures of their own.
MOST_KEYS = 6


def write_sweep_report(folder: Path) -> Path:
    """Write figures and page of a sweep into its folder, and return the page's path.

    A sweep that is not over is reported as far as it went.

    Raises:
        ResultsError: the folder holds no sweep, or nothing that can be shown, or cannot be
            written to.
    """
    sweep = read_sweep(folder)
    captions: dict[str, str] = {}
    try:
        with paper_style():
            # One at a time: each is closed before the next is drawn.
            for name, figure in sweep_figures(sweep):
                save_figure(figure, folder / FIGURES, name)
                captions[name] = figure.caption
        for old in (folder / FIGURES).glob("*.tex"):
            if old.stem not in captions:
                remove_figure(folder / FIGURES, old.stem)
        path = folder / REPORT
        write_pages(path, "a sweep", _page(sweep, captions))
    except OSError as error:
        raise ResultsError(f"cannot write the report to {folder}: {error.strerror}") from error
    return path


def sweep_figures(sweep: SweepResults) -> Iterator[tuple[str, Figure]]:
    """Every figure of a sweep, by name."""
    return chain(
        chain.from_iterable(figures_against(sweep, key) for key in sweep.varying[:MOST_KEYS]),
        maps(sweep),
    )


def _page(sweep: SweepResults, captions: dict[str, str]) -> Iterator[str]:
    yield f"# {sweep.name}: a sweep"
    yield _answer(sweep)
    yield "## What was swept"
    yield from _what_was_swept(sweep)
    if captions:
        yield "## Figures"
    for name, caption in captions.items():
        place = f"{FIGURES}/{name}"
        yield f"![{caption}]({place}.png)"
        yield (f"*{caption}* ([PDF]({place}.pdf), [data]({place}.csv), [LaTeX]({place}.tex))")
    if len(sweep.varying) > MOST_KEYS:
        yield f"Of the {len(sweep.varying)} keys that vary, the first {MOST_KEYS} are drawn."
    yield f"Data: `{SWEEP_TABLE}`, one row per point, strategy, training seed, policy, replication."


def _answer(sweep: SweepResults) -> str:
    """How AUD ranges, and at how many points a strategy gains over the baseline."""
    if sweep.points_in_vain == sweep.points:
        return f"{capitalised(NOTHING_IN_TIME)}."
    lines = []
    if sweep.overloaded:
        policies = sweep.rows.loc[sweep.overloaded_rows, "policy"].unique()
        lines.append(
            f"- **{overloaded_text(sweep.overloaded, sweep.points)}** (under {listed(policies)})."
        )
    points = counted(sweep.points, "point")
    if sweep.short_points:
        lines.append(
            f"- **At {sweep.short_points} of {points}, a run measured fewer than "
            f"{ENOUGH_REQUESTS} requests**: too few for percentiles (`simulation.duration_s`)."
        )
    if sweep.unsettled_points is None:
        needed = "two replications" if sweep.replications < 2 else "a table of this version"
        lines.append(f"- Whether the warm-up was long enough was not judged: that takes {needed}.")
    elif sweep.changing_points:
        lines.append(
            f"- Whether the warm-up was long enough was not judged at {sweep.changing_points} of "
            f"{points}: there the world changes at planned times, and latency moves with that."
        )
    if sweep.unsettled_points:
        lines.append(
            f"- **At {sweep.unsettled_points} of {points}, the warm-up had not settled** under "
            "some policy: latency still moved inside the window (`simulation.warm_up_s`). Judged "
            "at 99 %, arm by arm, and not corrected for their number."
        )
    if sweep.points_in_vain:
        lines.append(
            f"- At {sweep.points_in_vain} of {points}, no request was answered in time under any "
            "policy."
        )
    means = sweep.aud(sweep.unit).groupby(["policy", "strategy", "point"]).mean()
    for policy in sweep.policies:
        of_policy = means.loc[policy]
        arms = of_policy.groupby("strategy", sort=False)
        ranges = ", ".join(
            f"{strategy} {percent(float(of_arm.min()))} to {percent(float(of_arm.max()))}"
            for strategy, of_arm in arms
        )
        lines.append(f"- Under `{policy}`, AUD ranges over the points: {ranges}.")
    lines += [_gain_line(sweep, strategy) for strategy in sweep.others]
    return "\n".join(lines)


def _gain_line(sweep: SweepResults, strategy: str) -> str:
    gains = sweep.gains[sweep.gains["strategy"] == strategy]
    mean = float(gains["mean"].mean())
    text = f"- **{strategy}** against {sweep.baseline}: mean gain {mean:+.2f} points of AUD over "
    text += f"{counted(len(gains), 'pair')} of point and policy"
    tested = int(sweep.gains["p"].notna().sum())
    if not tested:
        return f"{text}; with {counted(sweep.training_seeds, 'training seed')}, nothing was tested."
    shown = gains["p_holm"] < SIGNIFICANCE
    better, worse = (
        int((shown & (gains["mean"] > 0)).sum()),
        int((shown & (gains["mean"] < 0)).sum()),
    )
    return (
        f"{text}: better at {better}, worse at {worse}, no difference shown at "
        f"{len(gains) - better - worse} (paired t-test over training seeds, p < {SIGNIFICANCE:g} "
        f"after Holm's correction over {tested} tests)."
    )


def _what_was_swept(sweep: SweepResults) -> Iterator[str]:
    lines = []
    for key in sweep.keys:
        values = sweep.values(key)
        texts = [value_text(value) for value in values]
        if len(values) > 12:
            texts = [f"{len(values)} values from {texts[0]} to {texts[-1]}"]
        lines.append(f"- `{key}`: {', '.join(texts)}")
    yield "\n".join(lines)
    yield f"{counted(sweep.points, 'point')}, with {sweep.repetitions}."
    if sweep.without_requests:
        yield (
            f"{counted(sweep.without_requests, 'row')} without a request left out: there is no "
            "AUD of none."
        )
    if len(sweep.failures):
        yield (
            f"**{counted(_failed(sweep.failures), 'point')} failed** and are in no figure: see "
            f"`{FAILURES}`."
        )
    if not sweep.manifest:
        yield "The sweep is not over: this is what was done so far."


def _failed(failures: pd.DataFrame) -> int:
    return int(failures["point"].nunique()) if "point" in failures else len(failures)
