"""A sweep in its manifest, and made again of it: nothing but the files that it names is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from models.errors import OfframpError, ResultsError
from models.files import whole_file
from offramp.named_files import NamedFile, named_files
from offramp.scenario import LoadedScenario, checked_scenario
from offramp.stages.layout import PROFILE
from offramp.store import DESCRIPTION, Store
from offramp.sweep.axes import (
    Axis,
    Choices,
    Draw,
    Integers,
    LatinHypercubeAxis,
    ListedAxis,
    LogUniform,
    RandomAxis,
    Uniform,
)
from offramp.sweep.definition import Sweep
from offramp.sweep.points import Points
from offramp.sweep.reading import GivenAxis
from offramp.sweep.swept_keys import locate_all
from offramp.sweep.template import Template
from offramp.yaml_source import Source

_PROFILES = "profiles"

_DRAWS: dict[str, type[Choices | Uniform | LogUniform | Integers]] = {
    "choices": Choices,
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "integers": Integers,
}
_DRAWN: dict[str, type[RandomAxis | LatinHypercubeAxis]] = {
    "random": RandomAxis,
    "latin_hypercube": LatinHypercubeAxis,
}


def recorded(sweep: Sweep) -> dict[str, Any]:
    """What a manifest holds of a sweep, so that it can be made again without its YAML."""
    return {
        "source": sweep.source,
        "overrides": list(sweep.overrides),
        "fixed": list(sweep.template.overrides),
        "folder": str(sweep.template.folder.absolute()),
        "data": sweep.data,
        "axes": [_axis_data(axis) for axis in sweep.points.axes],
    }


def recorded_sweep(manifest: dict[str, Any], folder: Path, path: Path) -> Sweep:
    """The sweep of a manifest.

    Args:
        folder: files that the scenario names are relative to it.
        path: of the manifest, for messages.

    Raises:
        ResultsError: the manifest holds none.
        ScenarioError: this Offramp does not accept it.
    """
    try:
        axes = [_axis(data) for data in manifest["axes"]]
        data, fixed = manifest["data"], tuple(manifest["fixed"])
    except (KeyError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} does not hold the axes of its sweep: {error!r}") from None
    written = Source(str(path), {}, {})
    base = checked_scenario(data, folder, manifest["source"], fixed, written)
    points = Points(axes)
    swept = locate_all(data, [GivenAxis(axis, str(path)) for axis in axes], written)
    template = Template(data, points.keys, tuple(swept), folder, manifest["source"], fixed, written)
    return Sweep(base, template, points, manifest["source"], tuple(manifest["overrides"]))


def named_files_of(sweep: Sweep) -> dict[str, NamedFile]:
    """Every file that the scenario of a point names, by key and name."""
    return {
        f"{key} ({file.name})": file
        for loaded in _scenarios(sweep)
        for key, file in named_files(loaded).items()
    }


def keep_profiles(hashes: dict[str, str], store: Store, results: Path) -> None:
    """Copy the profiles that points use into the results: on another host there are no such.

    Args:
        hashes: of artefacts that points use, by kind and key.
    """
    for name in hashes:
        kind, _, key = name.partition(" ")
        if kind == "profile":
            for source, target in kept_profile(results, key).items():
                with whole_file(target) as partial:
                    shutil.copyfile(store.root / kind / key / source, partial)


def kept_profile(results: Path, key: str) -> dict[str, Path]:
    """The copies of a profile's files in a results folder, by their names in the store."""
    folder = results / _PROFILES
    return {PROFILE: folder / f"{key}.parquet", DESCRIPTION: folder / f"{key}.json"}


def _scenarios(sweep: Sweep) -> Iterator[LoadedScenario]:
    """The base scenario, and one with each value that could name a file."""
    yield sweep.base
    for axis in sweep.points.axes:
        for values in axis.extremes():
            if any(isinstance(value, str | list | dict) for value in values.values()):
                try:
                    yield sweep.template.scenario_with(values)
                except OfframpError:
                    continue  # valid with other values only, or not at all: its points tell


def _axis_data(axis: Axis) -> dict[str, Any]:
    if isinstance(axis, ListedAxis):
        return {"listed": {"keys": list(axis.keys), "rows": [list(row) for row in axis.rows]}}
    name = next(name for name, kind in _DRAWN.items() if type(axis) is kind)
    assert isinstance(axis, RandomAxis | LatinHypercubeAxis)
    draws = {key: _draw_data(draw) for key, draw in axis.draws.items()}
    return {name: {"draws": draws, "points": axis.points, "seed": axis.seed}}


def _draw_data(draw: Draw) -> dict[str, Any]:
    name = next(name for name, kind in _DRAWS.items() if type(draw) is kind)
    return {name: asdict(draw)}  # type: ignore[call-overload]


def _axis(data: dict[str, Any]) -> Axis:
    ((name, parts),) = data.items()
    if name == "listed":
        return ListedAxis(tuple(parts["keys"]), tuple(tuple(row) for row in parts["rows"]))
    draws = {key: _draw(draw) for key, draw in parts["draws"].items()}
    return _DRAWN[name](draws, parts["points"], parts["seed"])


def _draw(data: dict[str, Any]) -> Draw:
    ((name, parts),) = data.items()
    if name == "choices":
        return Choices(tuple(parts["values"]))
    draw: Draw = _DRAWS[name](**parts)
    return draw
