"""Running a study: every configuration, strategy and seed, each trained once and kept in a table.

The table in the results folder is what a study leaves, and what it resumes from: a row says what
it was made from, and is trained again only if that has changed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from models.artifacts import read_predictions
from models.checkpoint import read_curve
from models.errors import ResultsError, TrainingError, error_text
from models.files import is_disk_full
from models.training.strategies import RANKED_STRATEGIES
from offramp.console import Console
from offramp.parallel import in_processes
from offramp.pipeline import check_writable
from offramp.stages import keys
from offramp.stages.layout import CHECKPOINT, PREDICTIONS
from offramp.stages.network import check_training
from offramp.stages.training import TrainingStage
from offramp.store import Store, content_key
from offramp.study.cells import Cell, by_training, cells
from offramp.study.definition import Configuration, Study
from offramp.study.figures import write_figures
from offramp.study.page import write_page
from offramp.study.statistics import paired_gains
from offramp.study.table import Outcome, Table

FIGURES = "figures"

#: A study of more configurations, such as a search, is read in its tables.
MOST_DRAWN = 24


def run_study(
    study: Study, store: Store, results: Path, console: Console, jobs: int | None = None
) -> Path:
    """Train what is missing, then write tables, figures and the page; return the page's path.

    Args:
        jobs: worker processes; where there are several, each trains on one thread, or as many as
            ``training.threads`` says.

    Raises:
        TrainingError: some trainings failed; the others are in the tables and on the page.
        ResultsError: the folder cannot be written to, or holds tables of something else.
    """
    check_writable(results)
    store.check_writable()
    results.mkdir(parents=True, exist_ok=True)
    trainings = by_training(cells(study))
    table = Table(study, results)
    table.keep(trainings)
    for training in trainings.values():
        table.copy_within(training)
    missing = [training for training in trainings.values() if not table.has(training)]
    console.note(f"{len(trainings) - len(missing)} of {len(trainings)} trainings are in {results}")
    if missing:
        for configuration in _networks(missing):
            error_at = partial(study.error_at, configuration)
            check_training(configuration.experiment, error_at)
        most = jobs or os.cpu_count() or 1
        workers = min(most, len(missing))
        # As many threads for the last trainings as for the first: sums in another order are
        # another network.
        threads = None if min(most, len(trainings)) == 1 else 1
        firsts = _scores_first(study, [training[0] for training in missing])
        told: set[str] = set()
        frozen = _frozen_backbones(firsts)
        with console.task("prepare backbones and activations", len(frozen)) as update:
            for done, notes in enumerate(
                _parallel(_prepare_backbone, frozen, store, workers, threads), start=1
            ):
                for line in notes:
                    if line not in told:
                        console.note(line)
                        told.add(line)
                update(done)
        failures: list[str] = []
        try:
            with console.task("train", len(missing)) as update:
                for done, (made_from, outcome) in enumerate(
                    _parallel(_train, firsts, store, workers, threads), start=1
                ):
                    if isinstance(outcome, str):
                        failures.append(outcome)
                    else:
                        table.add(trainings[made_from], outcome)
                    update(done)
        except (KeyboardInterrupt, ResultsError):
            if page := _write_what_is_there(study, results):
                console.note(f"{page} shows the trainings that are finished")
            else:
                console.note("no page yet: nothing is finished that others are compared with")
            raise
        if failures:
            _write_what_is_there(study, results)
            raise TrainingError(
                f"{len(failures)} of {len(missing)} trainings failed; what {results} shows is "
                "without them:\n" + "\n".join(failures)
            )
    page = _write_what_is_there(study, results)
    assert page is not None
    return page


def _write_what_is_there(study: Study, results: Path) -> Path | None:
    """The page of what is in the tables; None if that has no baseline."""
    # Rounded as on disk, so that a page that is made anew is the same.
    table = Table(study, results)
    if not len(table.accuracy) or "standard" not in set(table.accuracy["strategy"]):
        return None
    return write_results(study, table.accuracy, table.curves, results)


def write_results(
    study: Study, accuracy: pd.DataFrame, curves: pd.DataFrame, results: Path
) -> Path:
    """Statistics, figures and page of a study's tables; return the page's path."""
    strategies = list(dict.fromkeys(accuracy["strategy"]))
    frozen = all(
        configuration.experiment.training.regime == "classifier_wise"
        for configuration in study.configurations
    )
    accuracy, fixed = _without_untrained_exits(accuracy, study.axes) if frozen else (accuracy, [])
    curves = curves[curves["exit"].isin(accuracy["exit"].unique())]
    gains = paired_gains(accuracy, study.axes, "standard", study.measures)
    over_random = None
    ranked = [strategy for strategy in strategies if strategy in RANKED_STRATEGIES]
    if "random_curriculum" in strategies and ranked:
        over_random = paired_gains(
            accuracy, study.axes, "random_curriculum", study.measures, ranked
        )
    captions: dict[str, str] = {}
    if len(study.configurations) <= MOST_DRAWN:
        captions = write_figures(results / FIGURES, study.axes, gains, curves)
    else:
        fixed.append(
            f"{len(study.configurations)} configurations are too many to draw; the tables have all."
        )
    command = f"offramp study {shlex.quote(study.source)}" + "".join(
        f" --set {shlex.quote(override)}" for override in study.overrides
    )
    return write_page(
        results,
        name=study.name,
        description=study.description,
        command=command,
        axes=study.axes,
        accuracy=accuracy,
        gains_over_standard=gains,
        gains_over_random=over_random,
        captions=captions,
        figures=FIGURES,
        notes=[*study.notes, *fixed, _computed_by(accuracy)],
    )


def _computed_by(accuracy: pd.DataFrame) -> str:
    """A paragraph about the versions and devices that trained the networks."""
    trainings = accuracy.groupby("computed_by", sort=False)["made_from"].nunique()
    if len(trainings) == 1:
        return f"Trained with {trainings.index[0]}."
    parts = "; ".join(f"{count} trainings with {host}" for host, count in trainings.items())
    return f"{parts}. All strategies of a seed were trained with the same, so that they pair."


def _without_untrained_exits(
    accuracy: pd.DataFrame, axes: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Leave out the last exit where all trainings share it, and say how good it is."""
    last = accuracy["exit"].max()
    rows = accuracy[accuracy["exit"] == last]
    # A backbone that is trained here is another for each seed.
    of_seed = rows.groupby([*axes, "seed"], sort=False, dropna=False)["test_accuracy"]
    if (of_seed.nunique() > 1).any() or rows["strategy"].nunique() < 2:
        return accuracy, []
    by_axes = rows.groupby(list(axes), sort=False, dropna=False) if axes else rows
    means = by_axes["test_accuracy"].mean()
    shares = ", ".join(f"{100 * share:.2f} %" for share in np.unique(means))
    note = (
        f"Exit {last} is the frozen backbone's own, which no strategy trains: {shares} of the test "
        "set. It is in the table of accuracies, and left out of what follows."
    )
    return accuracy[accuracy["exit"] != last], [note]


def _networks(trainings: list[list[Cell]]) -> list[Configuration]:
    """One configuration for each network, its weights, and what ranks by them."""
    found: dict[Any, Configuration] = {}
    for training in trainings:
        experiment = training[0].configuration.experiment
        scoring = experiment.training.scoring
        of_scoring = (scoring.function, scoring.backbone, scoring.weights)
        key = (experiment.architecture, experiment.model.weights, *of_scoring)
        found.setdefault(key, training[0].configuration)
    return list(found.values())


# --- work --------------------------------------------------------------------------------------


def _parallel(
    work: Any, cells: list[Cell], store: Store, workers: int, threads: int | None
) -> Iterator[Any]:
    calls = [(cell, store.root, threads) for cell in cells]
    if workers == 1:
        return (work(*call) for call in calls)
    return in_processes(work, calls, workers, ordered=False)


def _frozen_backbones(missing: list[Cell]) -> list[Cell]:
    """One training for each frozen backbone with its exits."""
    needed: dict[str, Cell] = {}
    for cell in missing:
        experiment = cell.configuration.experiment
        if experiment.training.regime == "classifier_wise":
            key = keys.activations_key(experiment, cell.seed, "train", "bfloat16")
            needed.setdefault(content_key(key), cell)
    return list(needed.values())


def _scores_first(study: Study, missing: list[Cell]) -> list[Cell]:
    """In an order in which few trainings wait for difficulty scores that another one makes.

    Of each seed, first those that each make other scores; then one configuration after the other,
    and in each those that need no scores before those that take them.
    """
    made: set[str] = set()
    numbers = {id(it): number for number, it in enumerate(study.configurations)}
    places = []
    for cell in missing:
        is_ranked = cell.strategy in RANKED_STRATEGIES
        place = (cell.seed, 1, numbers[id(cell.configuration)], is_ranked)
        if is_ranked:
            scores = content_key(keys.scores_key(cell.configuration.experiment, cell.seed))
            if scores not in made:
                place = (cell.seed, 0, 0, True)
            made.add(scores)
        places.append(place)
    return [missing[at] for at in sorted(range(len(missing)), key=places.__getitem__)]


class _Kept(Console):
    """Keeps notes for the process that began the study, instead of printing them."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def _stage(cell: Cell, store_root: Path, threads: int | None, console: Console) -> TrainingStage:
    experiment = cell.configuration.experiment
    torch.set_num_threads(experiment.training.threads or threads or os.cpu_count() or 1)
    return TrainingStage(experiment, Store(store_root), console)


def _prepare_backbone(cell: Cell, store_root: Path, threads: int | None) -> list[str]:
    """Make what several trainings share, so that no two make it at the same time.

    Returns:
        What is to be known of it.
    """
    console = _Kept()
    with suppress(Exception, SystemExit):  # it fails again, and is told, where it is needed
        stage = _stage(cell, store_root, threads, console)
        network, _ = stage.initial_network(cell.seed)
        for split in ("train", "validation", "test"):
            stage.inputs(split, cell.seed, network)
    return console.notes


def _train(cell: Cell, store_root: Path, threads: int | None) -> tuple[str, Outcome | str]:
    """Train one network, if the store lacks it, and read its accuracies and curve.

    Returns:
        What it was made from, and its rows, or what went wrong.
    """
    try:
        stage = _stage(cell, store_root, threads, Console(quiet=True))
        made_from = keys.trained_key(stage.experiment, cell.strategy, cell.seed)
        make = partial(stage.train_network, cell.strategy, cell.seed, made_from)
        folder = stage.store.find_or_make("trained", made_from, make)
    except (Exception, SystemExit) as error:  # a network of the user's own may do anything
        if is_disk_full(error):
            raise ResultsError(
                f"{error_text(error)}. Nothing that is finished is lost: make room, and the same "
                "command goes on from there"
            ) from error
        values = ", ".join(f"{axis}={it}" for axis, it in cell.configuration.values.items())
        return (
            cell.made_from,
            f"{values} {cell.strategy}, seed {cell.seed}: {error_text(error)}".strip(),
        )
    test = read_predictions(folder / PREDICTIONS).accuracy()
    curve = read_curve(folder / CHECKPOINT)
    validation = np.array(curve.validation_accuracy)
    accuracy = [
        {
            "exit": exit,
            "test_accuracy": test[exit - 1],
            "validation_accuracy": validation[-1, exit - 1],
            "curve_area": validation[:, exit - 1].mean(),
        }
        for exit in range(1, len(test) + 1)
    ]
    curves = [
        {"exit": exit, "step": step, "validation_accuracy": row[exit - 1]}
        for step, row in zip(curve.step, curve.validation_accuracy, strict=True)
        for exit in range(1, len(test) + 1)
    ]
    return cell.made_from, (accuracy, curves)
