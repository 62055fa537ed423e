"""The same simulation with other slow moments.

When a host was slow, within seconds, a calibration does not know: it knows how alike services are
that follow one another, and a simulation draws slow moments that are as alike. Near saturation, one
draw of ten seconds has another mean latency than the next, by more than what is to be found out. So
each replication is simulated several times, with the same requests, and the mean is compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from models.files import whole_file
from offramp.pipeline import Pipeline
from offramp.scenario import LoadedScenario
from offramp.validation.comparison import run_metrics
from offramp.validation.runs import Side, check_same_requests, read_side

#: How often each replication is simulated, where service times are alike for a while.
DRAWS = 8

METRICS = "draws.csv"

_FOLDER = ".draw-"


def other_draws(
    simulating: Pipeline,
    of_replications: Sequence[LoadedScenario],
    results: Path,
    simulated: Path,
    jobs: int | None,
) -> list[pd.DataFrame]:
    """Metrics of each run with other slow moments; none where services are not alike.

    They are written to ``draws.csv`` in ``results``, those of the first draw before them.

    Args:
        simulating: as the first was simulated.
        of_replications: scenario of each.
        simulated: results of the first.
    """
    for left in results.glob(f"{_FOLDER}*"):  # of a process that was killed
        shutil.rmtree(left)
    (results / METRICS).unlink(missing_ok=True)
    if not any(_is_alike(loaded) for loaded in of_replications):
        return []
    first = read_side(simulated)
    others = list(_simulated(simulating, of_replications, results, first, jobs))
    of_all = [run_metrics(first), *others]
    table = pd.concat(dict(enumerate(of_all)), names=["draw"])
    with whole_file(results / METRICS) as partial:
        table.reset_index().to_csv(partial, index=False)
    return others


def _simulated(
    simulating: Pipeline,
    of_replications: Sequence[LoadedScenario],
    results: Path,
    first: Side,
    jobs: int | None,
) -> Iterator[pd.DataFrame]:
    quiet = Pipeline(simulating.loaded, simulating.store)
    with simulating.console.task("simulate other slow moments", DRAWS - 1) as update:
        for draw in range(1, DRAWS):
            with tempfile.TemporaryDirectory(dir=results, prefix=_FOLDER) as folder:
                quiet.simulate(Path(folder), jobs, of_replications, draw)
                side = read_side(Path(folder))
            check_same_requests(first, side)
            update(draw)
            yield run_metrics(side)


def _is_alike(loaded: LoadedScenario) -> bool:
    nodes = loaded.scenario.nodes.values()
    return any(node.overhead is not None and node.overhead.autocorrelation for node in nodes)
