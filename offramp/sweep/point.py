"""What a worker does with points of a sweep: it simulates them. Free of torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from models.artifacts import Profile, read_predictions
from models.errors import ArtifactError, error_text
from models.host import resolved_device, resolved_precision
from offramp.planned_changes import planned_changes
from offramp.scenario import LoadedScenario
from offramp.stages import keys
from offramp.stages.arm_tables import ArmTables
from offramp.stages.inputs import Inputs, fitted_policies
from offramp.stages.jobs import Job, Row, untried_job
from offramp.stages.layout import PROFILE, VALIDATION_PREDICTIONS
from offramp.store import Store, content_key
from offramp.sweep.rows import pack
from offramp.sweep.sharing import Shared, decides_fitting, decides_networks, decides_profile
from offramp.sweep.template import Template
from offramp.sweep.versions import versions
from offramp.worlds import build_world, needs_host_profile, read_matching_profile
from offramp.yaml_lines import Location
from sim.results.verdict import VERDICTS, load_verdict
from sim.running.slices import Slices
from sim.simulation import simulate_in_slices

T = TypeVar("T")

#: Values of a point, in the order of the swept keys.
Values = tuple[Any, ...]

#: What so many sets of networks depend on is remembered; neighbouring points share them.
_REMEMBERED = 64
#: Files of predictions that are kept in memory: half a megabyte each, for 10,000 samples.
_KEPT_PREDICTIONS = 128


@dataclass(frozen=True)
class Context:
    """What is the same for all points of a sweep: plain data, sent to workers.

    Attributes:
        template: what makes a scenario of the values of a point.
        store_root: root of the artefact store.
        device: what ``auto`` means for ``training.device``: what it means for the driver.
        precision: what ``auto`` means for ``training.precision`` on each device, likewise.
        profiles: keys of the profiles that the driver measured, in its store, by
            :func:`asked_profile`.
        versions: of all that results depend on, as the driver has them.
    """

    template: Template
    store_root: Path
    device: str
    precision: dict[str, str]
    profiles: dict[str, str]
    versions: dict[str, str]

    @staticmethod
    def here(template: Template, store: Store) -> Context:
        """That of a driver in this process, before it measured any profile."""
        return Context(
            template=template,
            store_root=store.root.absolute(),
            device=resolved_device("auto"),
            precision={it: resolved_precision("auto", it) for it in ("cpu", "cuda")},
            profiles={},
            versions=versions(),
        )

    @property
    def folder(self) -> Path:
        """Files that the scenario names are relative to it."""
        return self.template.folder

    @property
    def data(self) -> dict[str, Any]:
        """The scenario's data without the sweep."""
        return self.template.data

    def moved(self, folder: Path, store_root: Path) -> Context:
        """The same where files and artefacts lie elsewhere."""
        template = replace(self.template, folder=folder)
        return replace(self, template=template, store_root=store_root)

    def scenario_at(self, values: Sequence[Any]) -> LoadedScenario:
        """The scenario of a point, computed as the driver would, on whatever host.

        Raises:
            ScenarioError: the values are not valid together.
        """
        return self.scenario_with(dict(zip(self.template.keys, values, strict=True)))

    def scenario_with(self, values: dict[str, Any]) -> LoadedScenario:
        """The same with some of the swept keys set, by key."""
        loaded = self.template.scenario_with(values)
        training = loaded.scenario.training
        device = self.device if training.device == "auto" else training.device
        precision: str = training.precision
        if precision == "auto":
            precision = self.precision[device]
        settled = training.model_copy(update={"device": device, "precision": precision})
        scenario = loaded.scenario.model_copy(update={"training": settled})
        return replace(loaded, scenario=scenario)


@dataclass(frozen=True)
class PointResult:
    """What became of one point.

    Attributes:
        index: of the point.
        layout: the columns of its rows; see :mod:`offramp.sweep.rows`.
        rows: its rows, packed; None where it failed.
        error: why it failed.
        wall_s: seconds that it took.
        died: it failed since workers ended each time it was tried, which says little of the point.
    """

    index: int
    layout: str | None
    rows: bytes | None
    error: str | None
    wall_s: float
    died: bool = False

    @staticmethod
    def failed(index: int, error: str, wall_s: float = 0.0, died: bool = False) -> PointResult:
        """Of a point that failed."""
        return PointResult(index, None, None, error, wall_s, died)


def asked_profile(loaded: LoadedScenario) -> str:
    """Key of what is asked of a profile, whatever host it is measured on."""
    return content_key(keys.asked_profile_key(loaded.scenario, loaded.experiment))


def simulate_points(context: Context, chunk: Sequence[tuple[int, Values]]) -> list[PointResult]:
    """Simulate points, one after the other, each by its number and values.

    Nothing is raised: a point that fails has its error.
    """
    simulator = _simulator(context)
    return [simulator.simulate(index, values) for index, values in chunk]


def _simulator(context: Context) -> PointSimulator:
    """The same one for all chunks of a sweep."""
    global _LATEST
    if _LATEST is None or _LATEST.context != context:
        _LATEST = PointSimulator(context)
    return _LATEST


_LATEST: PointSimulator | None = None


def forget() -> None:
    """Forget what was read: an artefact of the same name has another content now."""
    global _LATEST
    _LATEST = None
    _read_predictions.cache_clear()


class PointSimulator:
    """Simulates points of a sweep, and remembers what neighbours share."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._store = Store(context.store_root)
        self._networks = _Remembered(context.template, decides_networks, self._find_networks)
        self._validation = _Remembered(context.template, decides_fitting, self._find_validation)
        self._profiles = _Remembered(context.template, decides_profile, self._find_profile)

    def simulate(self, index: int, values: Values) -> PointResult:
        """Simulate one point."""
        start = time.perf_counter()
        try:
            layout, rows = pack(list(self.rows(values)))
        except (Exception, SystemExit) as error:  # a policy of the user's own may do anything
            return PointResult.failed(index, error_text(error), time.perf_counter() - start)
        return PointResult(index, layout, rows, None, time.perf_counter() - start)

    def rows(self, values: Values) -> Iterator[Row]:
        """Every run of a point, as ``offramp run`` writes them, and what a report judges it by.

        Raises:
            OfframpError: it cannot be simulated.
        """
        loaded = self.context.scenario_at(values)
        job = self._job(loaded, values)
        changes = bool(planned_changes(loaded.scenario.model_dump()))
        labels = next(iter(job.predictions.values())).label
        for replication in range(job.replications):
            workload = Slices(job.world, labels, replication)
            for network, predictions in job.predictions.items():
                for text in job.policies:
                    policy = job.policy(text, network)
                    tables = ArmTables(job, network, predictions, text, policy, replication)
                    for part in simulate_in_slices(job.world, workload, predictions, policy):
                        tables.add(part, None)
                    yield {**self.row(tables), "planned_changes": changes}

    def row(self, tables: ArmTables) -> Row:
        """What is told of a run that is whole."""
        return {**tables.run_row(), "verdict": _verdict(tables)}

    def _job(self, loaded: LoadedScenario, values: Values) -> Job:
        trained = self._networks.of(loaded, values)
        inputs = Inputs(trained, None, self._validation.of(loaded, values))
        world = build_world(loaded, self._profiles.of(loaded, values))
        job = untried_job(loaded, inputs, world, _read_predictions)
        # Nobody looks at the rest of what runs can show.
        return replace(job, deadline_scales=[1.0], telemetry_step_s=None, trace_window_s=None)

    def _find_networks(self, loaded: LoadedScenario, values: Values) -> dict[tuple[str, int], Path]:
        found: dict[tuple[str, int], Path] = {}
        for strategy, seed, made_from in keys.trained_networks(loaded.experiment):
            folder = self._store.find("trained", made_from)
            if folder is None:
                raise ArtifactError(f"{strategy}, seed {seed}: the trained network is gone")
            found[strategy, seed] = folder
        return found

    def _find_validation(
        self, loaded: LoadedScenario, values: Values
    ) -> dict[tuple[str, int], Path]:
        if not fitted_policies(loaded):
            return {}
        found: dict[tuple[str, int], Path] = {}
        for strategy, seed, made_from in keys.trained_networks(loaded.experiment):
            folder = self._store.find("validation", keys.validation_key(made_from))
            if folder is None:
                raise ArtifactError(f"{strategy}, seed {seed}: its validation predictions are gone")
            found[strategy, seed] = folder / VALIDATION_PREDICTIONS
        return found

    def _find_profile(self, loaded: LoadedScenario, values: Values) -> Profile | None:
        if not needs_host_profile(loaded):
            return None
        key = self.context.profiles.get(asked_profile(loaded))
        folder = self._store.at("profile", key) if key else None
        if folder is None:
            raise ArtifactError("the profile of this network, with these settings, is gone")
        return read_matching_profile(folder / PROFILE, loaded.experiment.architecture)


class _Remembered(Generic[T]):
    """What points share, found once for the values that decide what it is."""

    def __init__(
        self,
        template: Template,
        decides: Callable[[Location], bool],
        find: Callable[[LoadedScenario, Values], T],
    ) -> None:
        self._shared = Shared(template, decides)
        self._find = find
        self._found: dict[str, T] = {}

    def of(self, loaded: LoadedScenario, values: Values) -> T:
        """Those of a point."""
        key = self._shared.among(values)
        if key not in self._found:
            while len(self._found) >= _REMEMBERED:
                del self._found[next(iter(self._found))]
            self._found[key] = self._find(loaded, values)
        return self._found[key]


def _verdict(tables: ArmTables) -> str:
    """On the load of the node or link that had most of it."""
    if any(link.load >= 1 for link in tables.link_loads()):
        return VERDICTS[-1]
    return max(
        (
            load_verdict(
                float(row["work"]),
                float(row["drain_s"]),
                float(row["deadline_mean_s"]),
                bool(row["bounded"]),
            )
            for row in tables.node_rows()
        ),
        key=VERDICTS.index,
        default=VERDICTS[0],
    )


_read_predictions = lru_cache(_KEPT_PREDICTIONS)(read_predictions)
