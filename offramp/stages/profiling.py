"""The profiling stage: the latency of every exit on this host."""

from __future__ import annotations

from typing import Any

from models.artifacts import write_profile
from models.inference.profiler import ProfilingSettings, measure_profile
from offramp.console import Console
from offramp.scenario import LoadedScenario
from offramp.stages.layout import PROFILE
from offramp.store import Store


def run_profiling(
    loaded: LoadedScenario, store: Store, console: Console, made_from: dict[str, Any]
) -> None:
    """Profile the scenario's network on this host and store it."""
    experiment, spec = loaded.experiment, loaded.scenario.profile
    settings = ProfilingSettings(
        batch_sizes=tuple(spec.batch_sizes),
        repetitions=spec.repetitions,
        warm_up=spec.warm_up,
        threads=spec.threads,
        precision=spec.precision,
        runtime=spec.runtime,
    )
    total = spec.repetitions * len(spec.batch_sizes)
    with console.task("profile exits", total) as update:
        profile = measure_profile(experiment.architecture, experiment.info, settings, update)
    with store.make("profile", made_from) as folder:
        write_profile(folder / PROFILE, profile)
