"""Worlds of single replications, and other draws of their slow moments."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from offramp import Pipeline, load_scenario
from offramp.store import Store
from offramp.validation.comparison import run_metrics
from offramp.validation.draws import other_draws
from offramp.validation.runs import read_side

ALIKE = ["nodes.edge.overhead={begin_ms: 0.1, autocorrelation: 0.8, autocorrelation_ms: 300}"]
#: At which queues tell slow moments.
BUSY = ["nodes.edge.speed=0.05", "simulation.records=full"]


@pytest.fixture
def simulated(
    store: Path, scenario: Callable[..., Path], tmp_path: Path
) -> Callable[..., tuple[Pipeline, Path]]:
    """Simulates the tiny scenario with changes, in worlds of some replications' own."""

    def run(name: str, *changes: str, own: list[list[str]] | None = None) -> tuple[Pipeline, Path]:
        path = str(scenario())
        pipeline = Pipeline(load_scenario(path, [*BUSY, *changes]), Store(store))
        worlds = [load_scenario(path, [*BUSY, *changes, *more]) for more in own or []]
        pipeline.simulate(tmp_path / name, 1, worlds)
        return pipeline, tmp_path / name

    return run


def records_of(folder: Path, replication: int) -> pd.DataFrame:
    records = pq.read_table(folder / "records.parquet").to_pandas()
    return records[records["replication"] == replication].reset_index(drop=True)


def test_each_replication_is_simulated_in_its_own_world(
    simulated: Callable[..., tuple[Pipeline, Path]],
) -> None:
    slower = "nodes.edge.speed=0.04"
    _, plain = simulated("plain")
    _, slow = simulated("slow", slower)
    _, both = simulated("both", own=[[], [slower]])
    for replication, alone in enumerate((plain, slow)):
        pd.testing.assert_frame_equal(
            records_of(both, replication), records_of(alone, replication), check_categorical=False
        )
    assert not records_of(plain, 1).equals(records_of(slow, 1))


def test_other_draws_have_the_same_requests_and_other_slow_moments(
    simulated: Callable[..., tuple[Pipeline, Path]], tmp_path: Path
) -> None:
    pipeline, first = simulated("first", *ALIKE)
    others = other_draws(pipeline, [pipeline.loaded] * 2, tmp_path, first, 1)
    assert len(others) == 7
    before = run_metrics(read_side(first))
    p95_s = np.array([it["latency_p95_s"].to_numpy() for it in (before, *others)])
    # Each run is another in each draw.
    assert all(len(np.unique(of_run)) == 8 for of_run in p95_s.T)
    table = pd.read_csv(tmp_path / "draws.csv")
    assert table["latency_p95_s"].to_numpy() == pytest.approx(p95_s.ravel())
    assert table["draw"].tolist() == np.repeat(range(8), len(before)).tolist()
    assert not list(tmp_path.glob(".draw-*"))


def test_without_slow_moments_there_is_one_draw(
    simulated: Callable[..., tuple[Pipeline, Path]], tmp_path: Path
) -> None:
    (tmp_path / "draws.csv").write_text("of an earlier validation")
    (tmp_path / ".draw-left").mkdir()
    pipeline, first = simulated("first")
    assert other_draws(pipeline, [pipeline.loaded] * 2, tmp_path, first, 1) == []
    assert not (tmp_path / "draws.csv").exists()
    assert not (tmp_path / ".draw-left").exists()
