"""Rank correlations of a study's difficulty scores with what others measured, as a table.

With C-scores (Jiang et al. 2021), and, for CIFAR-10, with how many of three people gave an image
its label (CIFAR-10N, Wei et al. 2022). Scores come from the artefact store, or are computed.
Difficulties are read from the folder that OFFRAMP_DIFFICULTY names.

    python docs/score_correlations.py [STUDY] [--seeds 1] [--output score_correlations.csv]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from models.data.array_files import read_official_values
from models.data.datasets import Dataset
from offramp.console import Console
from offramp.stages import keys
from offramp.stages.training import TrainingStage
from offramp.store import Store, content_key, default_root
from offramp.study.definition import Study, load_study

C_SCORES = "{dataset}-cscores-orig-order.npz"
PEOPLE = "cifar10n_labels.npz"


def published_difficulty(dataset: str, data: Dataset, folder: Path) -> dict[str, NDArray[Any]]:
    """What others measured of the training samples, high for easy."""

    def values(file: str, key: str) -> NDArray[Any]:
        return read_official_values(folder / file, key, data.official_count, [".npz"])

    found = {"c_score": values(C_SCORES.format(dataset=dataset), "scores")}
    if dataset == "cifar10":
        true = values(PEOPLE, "clean_label")
        agreeing = [values(PEOPLE, f"random_label{person}") == true for person in (1, 2, 3)]
        found["people"] = np.mean(agreeing, axis=0)
    return {name: of_all[data.train.index] for name, of_all in found.items()}


def correlations(
    study: Study, store: Store, folder: Path, seed_count: int
) -> Iterator[dict[str, Any]]:
    """A row for each distinct scoring and seed of a study, and each exit that has its own view."""
    seen = set()
    for configuration in study.configurations:
        experiment = configuration.experiment
        training = experiment.training
        for seed in training.seed_list[:seed_count]:
            key = content_key(keys.scores_key(experiment, seed))
            if key in seen:
                continue
            seen.add(key)
            stage = TrainingStage(experiment, store, Console())
            network, whole = stage.initial_network(seed)
            easiness = stage.easiness(seed, network, whole)
            published = published_difficulty(experiment.data.dataset, stage.data, folder)
            views = easiness.T if easiness.ndim == 2 else [easiness]
            for exit, view in enumerate(views, start=1):
                if not np.isfinite(view).all() or np.ptp(view) == 0:
                    continue  # an exit that was not trained has no view
                yield {
                    **configuration.values,
                    "scoring": training.scoring.function,
                    "seed": seed,
                    "view_of_exit": exit if easiness.ndim == 2 else "",
                    **{
                        f"rho_{name}": spearmanr(view, of_others).statistic
                        for name, of_others in published.items()
                    },
                }


def main() -> None:
    """Print each row as it is known, and write them all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", nargs="?", default="curriculum_search")
    parser.add_argument("--seeds", type=int, default=1, help="of the study's seeds, so many")
    parser.add_argument("--output", type=Path, default=Path("score_correlations.csv"))
    given = parser.parse_args()
    if "OFFRAMP_DIFFICULTY" not in os.environ:
        parser.error("OFFRAMP_DIFFICULTY must name the folder with the published difficulties")
    rows = []
    for row in correlations(
        load_study(given.study),
        Store(default_root()),
        Path(os.environ["OFFRAMP_DIFFICULTY"]),
        given.seeds,
    ):
        rows.append(row)
        print(row, flush=True)
    pd.DataFrame(rows).to_csv(given.output, index=False, float_format="%.3f")
    print(f"written: {given.output}")


if __name__ == "__main__":
    main()
